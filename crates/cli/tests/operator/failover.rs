//! `fulmar redis failover`: what is written meanwhile, who refuses, and what is left when something goes wrong.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fulmar_rig::{Redis, Resp, Role, eventually};

use super::stage::{PATIENCE, Stage};

/// Writes numbers to whoever is primary until told to stop; answers those that were acknowledged.
fn write_until(addresses: &[SocketAddr], is_over: &AtomicBool) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    let mut number = 0;
    let mut connection: Option<Resp> = None;
    while !is_over.load(Ordering::Relaxed) {
        let open = |address: &SocketAddr| {
            let mut opened = Resp::connect(*address, Duration::from_secs(5)).ok()?;
            let is_primary = opened.call(&["ROLE"]).ok()?.list().first()?.text() == "master";
            is_primary.then_some(opened)
        };
        let Some(open) = connection.as_mut() else {
            connection = addresses.iter().find_map(open);
            continue;
        };
        number += 1;
        match open.call(&["RPUSH", "written", &number.to_string()]) {
            Ok(_) => acknowledged.push(number),
            // What was not acknowledged may be there or not.
            Err(_) => connection = None,
        }
    }
    acknowledged
}

/// OP-9 OP-20
#[test]
fn nothing_that_was_acknowledged_is_lost_and_the_verb_ends_when_the_group_is_whole() {
    let Some(stage) = Stage::set(2, "[backbone.group.g1]\nreplicas = 2\n") else { return };
    let before = stage.primary();
    let addresses: Vec<SocketAddr> = stage.servers().map(Redis::addr).collect();
    let is_over = AtomicBool::new(false);
    let (ended, acknowledged) = thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&addresses, &is_over));
        let ended = stage.run(&["redis", "failover", "g1", "--json"]);
        is_over.store(true, Ordering::Relaxed);
        (ended, writer.join().unwrap())
    });
    assert_eq!(ended.code, 0, "{} {}", ended.out, ended.err);
    let report = ended.json();
    let after = report["report"]["new_primary"].as_str().unwrap().to_owned();
    assert_ne!(after, before);
    assert!(report["report"]["held_ms"].as_u64().is_some_and(|held| held < 3_400), "{report}");
    eprintln!("held for {} ms, {} writes acknowledged", report["report"]["held_ms"], acknowledged.len());

    let primary = stage.servers().find(|redis| redis.addr().to_string() == after).unwrap();
    let kept = primary.call(&["LRANGE", "written", "0", "-1"]).unwrap();
    let kept: HashSet<u64> = kept.list().iter().filter_map(|value| value.text().parse().ok()).collect();
    let lost: Vec<&u64> = acknowledged.iter().filter(|number| !kept.contains(number)).collect();
    assert!(acknowledged.len() > 100 && lost.is_empty(), "{} acknowledged, lost: {lost:?}", acknowledged.len());
    // Whole means: at the moment the verb ends, and not some time later.
    assert_eq!(primary.replicas_online().unwrap(), 2);
    let old = stage.servers().find(|redis| redis.addr().to_string() == before).unwrap();
    assert_eq!(old.role().unwrap(), Role::Replica);
    for sentinel in stage.redis.sentinels() {
        assert_eq!(sentinel.primary_of("g1").unwrap().to_string(), after);
    }

    let again = stage.run(&["redis", "failover", "g1", "--to", &after, "--json"]);
    assert_eq!((again.code, again.json()["outcome"].as_str()), (4, Some("nothing")), "{}", again.out);
    let written: Vec<String> =
        stage.audit().iter().map(|entry| entry["outcome"].as_str().unwrap().to_owned()).collect();
    assert_eq!(written, ["begun", "done", "nothing"]);
}

/// OP-9
#[test]
fn the_wanted_replica_is_promoted_and_keeps_its_priority() {
    let Some(stage) = Stage::set(2, "") else { return };
    stage.hurry();
    let wanted = stage.redis.replicas_of("g1").unwrap()[1].addr().to_string();
    let ended = stage.run(&["redis", "failover", "g1", "--to", &wanted, "--json"]);
    assert_eq!(ended.code, 0, "{} {}", ended.out, ended.err);
    assert_eq!(ended.json()["report"]["new_primary"], wanted.as_str());
    for redis in stage.servers() {
        let priority = redis.call(&["CONFIG", "GET", "replica-priority"]).unwrap();
        assert_eq!(priority.list()[1].text(), "100", "{}", redis.addr());
    }
}

/// OP-10
#[test]
fn a_guard_refuses_with_its_name_and_figures_and_is_overridden_by_name_with_a_reason() {
    let Some(stage) = Stage::set(2, "[backbone.group.g1]\nreplicas = 2\n") else { return };
    let before = stage.primary();
    stage.redis.replicas_of("g1").unwrap()[0].redis.kill();
    let ended = stage.run(&["redis", "failover", "g1"]);
    assert_eq!(ended.code, 3, "{} {}", ended.out, ended.err);
    for part in ["refused by the guard replicas", "1 of 2 replicas are online", "fulmar redis add-replica"] {
        assert!(ended.err.contains(part), "{part} is not in:\n{}", ended.err);
    }
    let ended = stage.run(&["redis", "failover", "g1", "--json"]);
    let refusal = &ended.json()["refusal"];
    assert_eq!((ended.code, refusal["guard"].as_str()), (3, Some("replicas")));

    let forced = ["redis", "failover", "g1", "--override", "replicas", "--reason", "it burns", "--dry-run", "--json"];
    eventually("nothing else is against it", PATIENCE, || (stage.run(&forced).code == 0).then_some(())).unwrap();
    let guards = stage.run(&forced).json()["plan"]["guards"].clone();
    let replicas = guards.as_array().unwrap().iter().find(|asked| asked["guard"] == "replicas").unwrap();
    assert_eq!((replicas["holds"].as_bool(), replicas["is_overridden"].as_bool()), (Some(false), Some(true)));
    assert_eq!(stage.primary(), before, "a dry run does nothing");

    for (words, said) in [
        (["--override", "identity", "--reason", "x"].as_slice(), "identity cannot be overridden"),
        (&["--override", "nonsense", "--reason", "x"], "nonsense is no guard"),
        (&["--override", "replicas"], "--reason"),
        (&["--to"], "--to"),
    ] {
        let all: Vec<&str> = ["redis", "failover", "g1"].iter().chain(words).copied().collect();
        let ended = stage.run(&all);
        assert!(ended.code == 2 && ended.err.contains(said), "{words:?}: {} {}", ended.code, ended.err);
    }
    let ended = stage.run(&["redis", "failover", "g9"]);
    assert!(ended.code == 2 && ended.err.contains("these are configured: g1"), "{}", ended.err);
}

/// OP-7
#[test]
fn without_a_majority_of_sentinels_nothing_is_planned() {
    let Some(stage) = Stage::set(2, "") else { return };
    stage.redis.sentinels()[0].redis.kill();
    stage.redis.sentinels()[1].redis.kill();
    let all = ["redis", "failover", "g1", "--override", "sentinels", "--reason", "x", "--json"];
    let ended = stage.run(&all);
    let refusal = &ended.json()["refusal"];
    assert_eq!((ended.code, refusal["guard"].as_str()), (3, Some("sight")), "{}", ended.out);
    assert!(refusal["figures"].as_str().unwrap().contains("1 of 3 Sentinels answer"), "{refusal}");
}

/// OP-8
#[test]
fn another_group_s_data_refuses() {
    let Some(stage) = Stage::set(2, "") else { return };
    let primary = stage.redis.primary_of("g1").unwrap();
    primary.redis.call(&["HSET", "fulmar:group", "id", "fulmar/g2"]).unwrap();
    let ended = stage.run(&["redis", "failover", "g1", "--json"]);
    assert_eq!((ended.code, ended.json()["refusal"]["guard"].as_str()), (3, Some("identity")), "{}", ended.out);
    let identity = stage.run(&["redis", "verify-identity"]);
    assert!(identity.code == 1 && identity.out.contains("HAS THE DATA OF fulmar/g2"), "{}", identity.out);
}

/// Holds writes and cannot go on: a failover to one replica while the other hangs from the moment it was planned.
fn held(stage: &Stage) -> (super::stage::Running, String) {
    stage.hurry();
    let replicas = stage.redis.replicas_of("g1").unwrap();
    let wanted = replicas[0].addr().to_string();
    let mut running = stage.begin(&["redis", "failover", "g1", "--to", &wanted, "--json"]);
    running.await_words("step 1: set replica-priority");
    replicas[1].redis.stop();
    running.await_words("hold writes on");
    running.await_words(&replicas[1].addr().to_string());
    (running, wanted)
}

/// OP-16
#[test]
fn a_step_that_does_not_end_is_undone_with_all_before_it() {
    let Some(stage) = Stage::set(2, "") else { return };
    let before = stage.primary();
    let (running, wanted) = held(&stage);
    let ended = running.end();
    assert_eq!(ended.code, 1, "{} {}", ended.out, ended.err);
    let report = ended.json();
    assert_eq!(report["report"]["failed"]["is_undone"], true, "{report}");
    let primary = stage.servers().find(|redis| redis.addr().to_string() == before).unwrap();
    assert!(primary.call(&["SET", "after", "1"]).is_ok(), "writes are taken again");
    assert_eq!(primary.role().unwrap(), Role::Primary);
    let wanted = stage.servers().find(|redis| redis.addr().to_string() == wanted).unwrap();
    assert_eq!(wanted.call(&["CONFIG", "GET", "replica-priority"]).unwrap().list()[1].text(), "100");
    stage.servers().for_each(Redis::resume);
}

/// OP-16
#[test]
fn an_operator_that_is_told_to_stop_undoes_what_it_began() {
    let Some(stage) = Stage::set(2, "") else { return };
    let wanted = stage.redis.replicas_of("g1").unwrap()[0];
    let address = wanted.addr().to_string();
    let mut running = stage.begin(&["redis", "failover", "g1", "--to", &address, "--json"]);
    // Sentinels look at priorities every ten seconds: that long it waits.
    running.await_words("has not noticed the priority");
    let told = Command::new("kill").args(["-TERM", &running.process.id().to_string()]).status().unwrap();
    assert!(told.success());
    let ended = running.end();
    assert_eq!(ended.code, 1, "{} {}", ended.out, ended.err);
    let failed = ended.json()["report"]["failed"].clone();
    assert!(failed["why"].as_str().unwrap().contains("interrupted") && failed["is_undone"] == true, "{failed}");
    assert_eq!(wanted.redis.call(&["CONFIG", "GET", "replica-priority"]).unwrap().list()[1].text(), "100");
    assert_eq!(wanted.redis.role().unwrap(), Role::Replica);
}

/// OP-17
#[test]
fn an_operator_that_dies_while_writes_are_held_leaves_no_group_that_is_held() {
    let Some(stage) = Stage::set(2, "") else { return };
    let before = stage.primary();
    let (mut running, _) = held(&stage);
    running.process.kill().unwrap();
    running.process.wait().unwrap();
    let primary = stage.servers().find(|redis| redis.addr().to_string() == before).unwrap();
    let taken = || primary.call(&["SET", "after", "1"]).ok().map(drop);
    eventually("the pause ends by itself", PATIENCE, taken).unwrap();
    stage.servers().for_each(Redis::resume);
    // Its lease lapses by itself as well; until then the next operator is told whose it is.
    stage.redis.await_whole().unwrap();
    let next = stage.run(&["redis", "failover", "g1", "--json"]);
    if next.code == 3 && next.json()["refusal"]["guard"] == "lease" {
        assert!(
            next.json()["refusal"]["figures"].as_str().unwrap().contains("operates on the group now"),
            "{}",
            next.out
        );
    }
    let mut last = String::new();
    // A machine so busy that a failover takes its time needs more than one.
    eventually("the lease has lapsed", 3 * PATIENCE, || {
        let ended = stage.run(&["redis", "failover", "g1", "--json"]);
        last = ended.out;
        (ended.code == 0).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {last}"));
}

/// OP-18
#[test]
fn two_operators_never_act_on_one_group_at_once() {
    let Some(stage) = Stage::set(2, "") else { return };
    let primary = stage.redis.primary_of("g1").unwrap();
    primary.redis.call(&["SET", "fulmar:operator", "7 ann (process 12)", "PX", "600000"]).unwrap();
    let refused = stage.run(&["redis", "failover", "g1", "--json"]);
    let refusal = &refused.json()["refusal"];
    assert_eq!((refused.code, refusal["guard"].as_str()), (3, Some("lease")), "{}", refused.out);
    assert!(refusal["figures"].as_str().unwrap().contains("7 ann (process 12)"), "{refusal}");
    assert_eq!(primary.redis.role().unwrap(), Role::Primary);

    // A lease that becomes another's in the middle ends the work before the next step.
    primary.redis.call(&["DEL", "fulmar:operator"]).unwrap();
    let wanted = stage.redis.replicas_of("g1").unwrap()[0].addr().to_string();
    let mut running = stage.begin(&["redis", "failover", "g1", "--to", &wanted, "--json"]);
    running.await_words("step 1: set replica-priority");
    primary.redis.call(&["SET", "fulmar:operator", "8 bob (process 13)", "PX", "600000"]).unwrap();
    stage.hurry();
    let ended = running.end();
    assert_eq!(ended.code, 1, "{} {}", ended.out, ended.err);
    assert!(ended.json()["report"]["failed"]["why"].as_str().unwrap().contains("lease"), "{}", ended.out);
    assert_eq!(primary.redis.role().unwrap(), Role::Primary);
}

/// OP-16
#[test]
fn sentinels_that_die_while_writes_are_held_leave_a_group_that_takes_writes() {
    let Some(stage) = Stage::set(2, "") else { return };
    let mut running = stage.begin(&["redis", "failover", "g1", "--json"]);
    running.await_words("hold writes on");
    stage.redis.sentinels().iter().for_each(|sentinel| sentinel.redis.kill());
    // Before they were asked, or after: nobody is left who could say that the group is whole.
    let ended = running.end();
    assert_eq!(ended.code, 1, "{} {}", ended.out, ended.err);
    eventually("a primary takes writes", PATIENCE, || stage.write("after", "1")).unwrap();
    let primaries = stage.servers().filter(|redis| matches!(redis.role(), Ok(Role::Primary))).count();
    assert_eq!(primaries, 1, "{}", ended.err);
}

/// OP-16 INC-2022-04-11
#[test]
fn a_chosen_replica_that_dies_after_the_command_leaves_a_group_that_takes_writes() {
    let Some(stage) = Stage::set(2, "") else { return };
    stage.hurry();
    let chosen = stage.redis.replicas_of("g1").unwrap()[0];
    let wanted = chosen.addr().to_string();
    let mut running = stage.begin(&["redis", "failover", "g1", "--to", &wanted, "--json"]);
    running.await_words("ask a Sentinel for the failover");
    chosen.redis.kill();
    let ended = running.end();
    eprintln!("{}", ended.err);
    // It was killed before it was promoted, or just after: in both cases the verb says so.
    assert_eq!(ended.code, 1, "{} {}", ended.out, ended.err);
    eventually("a primary takes writes", PATIENCE, || stage.write("after", "1")).unwrap();
    // What cannot be put back on the dead replica is named.
    let report = ended.json();
    let left = &report["report"]["failed"]["left"];
    assert!(left.is_null() || left.as_str().unwrap().starts_with("set replica-priority"), "{report}");
}

/// What the README gives nodes on servers, and an operator on servers beyond that and on Sentinels.
pub fn rights_of_the_readme() -> [String; 3] {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let text = std::fs::read_to_string(file).unwrap();
    let after = |words: &str, end: char| {
        let (_, rest) = text.split_once(words).unwrap_or_else(|| panic!("the README has {words:?}"));
        rest.split(end).next().unwrap().to_owned()
    };
    [after("user fulmar on >PASSWORD ", '\n'), after("on the servers with\n`", '`'), after("on Sentinels with `", '`')]
}

/// OP-22
#[test]
fn a_right_that_the_operator_lacks_refuses_before_anything_is_changed_and_is_named_with_its_mending() {
    let Some(stage) = Stage::set(2, "") else { return };
    let before = stage.primary();
    let tell = |redis: &Redis, rules: &[&str]| {
        let words: Vec<&str> = ["ACL", "SETUSER", "ops", "reset", "on", ">pw"].iter().chain(rules).copied().collect();
        redis.call(&words).unwrap();
    };
    let may = |on_servers: &[&str], on_sentinels: &[&str]| {
        stage.servers().for_each(|redis| tell(redis, on_servers));
        stage.redis.sentinels().iter().for_each(|sentinel| tell(&sentinel.redis, on_sentinels));
    };
    let as_ops =
        ["backbone.user=ops", "backbone.password=pw", "backbone.sentinel_user=ops", "backbone.sentinel_password=pw"];
    let words = |more: &[&'static str]| {
        let sets = as_ops.iter().flat_map(|set| ["--set", set]);
        ["redis", "failover", "g1", "--json"].into_iter().chain(more.iter().copied()).chain(sets).collect::<Vec<_>>()
    };
    may(&["~*", "&*", "+@all", "-client|kill"], &["&*", "+@all", "-sentinel|failover"]);
    let ended = stage.run(&words(&[]));
    let refusal = &ended.json()["refusal"];
    assert_eq!((ended.code, refusal["guard"].as_str()), (3, Some("rights")), "{} {}", ended.out, ended.err);
    let (host, port) = before.rsplit_once(':').unwrap();
    let (sentinel, figures) = (stage.redis.sentinels()[0].redis.addr(), refusal["figures"].as_str().unwrap());
    for part in [
        format!(
            "the user ops may not CLIENT KILL at {before} (redis-cli -h {host} -p {port} ACL SETUSER ops +client|kill)"
        ),
        format!("may not SENTINEL FAILOVER at the Sentinel {sentinel}"),
    ] {
        assert!(figures.contains(&part), "{part} is not in {figures}");
    }
    let primary = stage.servers().find(|redis| redis.addr().to_string() == before).unwrap();
    assert!(primary.call(&["GET", "fulmar:operator-fence"]).unwrap().text().is_empty(), "not even a lease was taken");
    // Who may not even ask is told that nobody knows, and goes on.
    may(&["~*", "&*", "+@all", "-acl"], &["&*", "+@all", "-acl"]);
    let ended = stage.run(&words(&["--dry-run"]));
    assert_eq!(ended.code, 0, "{} {}", ended.out, ended.err);
    let guards = ended.json()["plan"]["guards"].clone();
    let rights = guards.as_array().unwrap().iter().find(|asked| asked["guard"] == "rights").unwrap();
    assert!(rights["holds"] == true && rights["figures"].as_str().unwrap().starts_with("not checked at"), "{rights}");
    // What the README gives an operator is enough.
    let [of_nodes, beyond, on_sentinels] = rights_of_the_readme();
    let on_servers: Vec<&str> = of_nodes.split(' ').chain(beyond.split(' ')).chain(["+acl|dryrun"]).collect();
    may(&on_servers, &on_sentinels.split(' ').chain(["+acl|dryrun"]).collect::<Vec<_>>());
    let ended = stage.run(&words(&[]));
    assert_eq!(ended.code, 0, "{} {}", ended.out, ended.err);
    let guards = ended.json()["plan"]["guards"].clone();
    let said = guards.as_array().unwrap().iter().find(|asked| asked["guard"] == "rights").unwrap();
    assert_eq!(said["figures"], "6 servers and Sentinels say that they will do what the plan asks");
    assert_ne!(stage.primary(), before);
}
