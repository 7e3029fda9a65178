//! `fulmar redis reshard`: from one group to two and back, with a node that follows.
//!
//! What becomes of publications meanwhile is tested with the backbone; here are what the verbs say, how they end, and what is written down.

use fulmar_rig::{Node, Redis, eventually};
use serde_json::{Value, json};

use super::failover::rights_of_the_readme;
use super::stage::{Ended, PATIENCE, Stage};

const TO_BOTH: [&str; 2] = ["--groups", "g1,g2"];

/// A node over `g1`, and `g2` beside it, which nobody has met yet.
fn set() -> Option<(Stage, Node)> {
    let stage = Stage::set_groups(&[("g1", 1), ("g2", 1)], "", None)?;
    let node = stage.node();
    Some((stage, node))
}

fn words<'a>(verb: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    ["redis", "reshard", verb].into_iter().chain(more.iter().copied()).collect()
}

fn reshard(stage: &Stage, verb: &str, more: &[&str]) -> Ended {
    stage.run(&words(verb, more))
}

/// Its exit code must be this.
fn ends(ended: Ended, code: i32) -> Ended {
    assert_eq!(ended.code, code, "{} {}", ended.out, ended.err);
    ended
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

/// What was written down: verb and outcome of each entry.
fn written(stage: &Stage) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let entry = |entry: &Value| {
        assert!(text(&entry["who"]).contains("(process ") && entry["at_ms"].as_u64().is_some(), "{entry}");
        (text(&entry["call"]).replace("redis reshard ", ""), text(&entry["outcome"]))
    };
    stage.audit().iter().map(entry).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(verb, outcome)| ((*verb).to_owned(), (*outcome).to_owned())).collect()
}

/// OP-4 OP-10 OP-23
#[test]
fn a_plan_says_what_would_move_or_why_nothing_may_and_changes_nothing() {
    let Some((stage, _node)) = set() else { return };
    let planned = ends(reshard(&stage, "plan", &TO_BOTH), 0);
    let said = ["group     g1           1024 slots", "move       512 slots from g1 to g2", "nodes     1 follow"];
    says(&planned.out, &said);
    says(
        &planned.out,
        &["guard   rights        ok", "7 servers and Sentinels say that they will do what the plan asks"],
    );
    let [one, other] = ["g1", "g2"].map(|group| stage.redis.primary_of(group).unwrap());
    assert_eq!(other.redis.call(&["DBSIZE"]).unwrap().text(), "0", "not even whose it would be is written there");

    // Without a file, flags and keys describe the deployment as they do for a node.
    let (sentinels, folder) = (stage.sentinels(), format!("storage.path={}", stage.folder.path().display()));
    let by_flags = |groups: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fulmar"));
        command.env_clear().args(words("plan", &TO_BOTH)).args(["--json", "--backbone", "redis", "--set", &folder]);
        let done = command.args(["--backbone-sentinels", &sentinels, "--backbone-groups", groups]).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: done.status.code().unwrap(), out: text(done.stdout), err: text(done.stderr) }
    };
    let planned = ends(by_flags("g1"), 0).json();
    assert_eq!(planned["moves"], json!([{ "from": "g1", "to": "g2", "slots": 512 }]), "{planned}");
    assert_eq!((&planned["outcome"], &planned["nodes"]), (&json!("planned"), &json!(1)), "{planned}");
    let refused = ends(by_flags("g1,g2"), 3).json();
    says(refused["refusal"]["figures"].as_str().unwrap(), &["is of the groups g1, and g1,g2 are configured"]);

    // Whatever would stop `apply` stops the plan.
    one.redis.call(&["SET", "fulmar:mover", "another", "PX", "600000"]).unwrap();
    let refused = ends(reshard(&stage, "plan", &["--groups", "g1,g2", "--json"]), 3).json();
    assert_eq!(refused["refusal"]["guard"], "lease", "{refused}");
    one.redis.call(&["DEL", "fulmar:mover"]).unwrap();
    stage.redis.replicas_of("g2").unwrap()[0].redis.kill();
    let is_noticed = || (other.redis.replicas_online().unwrap() == 0).then_some(());
    eventually("the primary has noticed", PATIENCE, is_noticed).unwrap();
    let refused = ends(reshard(&stage, "plan", &TO_BOTH), 3);
    says(&refused.err, &["refused by the guard replicas", "group g2: 0 of 1 replicas are online"]);
    assert_eq!(written(&stage), [], "whoever only plans has done nothing");
}

/// OP-4 OP-20 OP-22 OP-23
#[test]
fn slots_move_there_and_back_by_what_the_readme_allows_and_every_attempt_is_written_down() {
    let Some((stage, _node)) = set() else { return };
    for verb in ["resume", "abort"] {
        let ended = ends(reshard(&stage, verb, &[]), 4);
        assert_eq!(ended.out, "nothing to do: no slots are on their way\n");
    }
    let servers = || ["g1", "g2"].into_iter().flat_map(|group| &stage.redis.group(group).unwrap().servers);
    let may = |redis: &Redis, rules: &str| {
        let words = ["ACL", "SETUSER", "ops", "reset", "on", ">pw"].into_iter().chain(rules.split(' '));
        redis.call(&words.collect::<Vec<_>>()).unwrap();
    };
    let [of_nodes, beyond, on_sentinels] = rights_of_the_readme();
    let on_servers = format!("{of_nodes} {beyond} +acl|dryrun");
    servers().for_each(|server| may(&server.redis, &on_servers));
    stage.redis.sentinels().iter().for_each(|at| may(&at.redis, &format!("{on_sentinels} +acl|dryrun")));
    let mut as_ops = vec!["--groups", "g1,g2", "--reason", "more room"];
    for set in
        ["backbone.user=ops", "backbone.password=pw", "backbone.sentinel_user=ops", "backbone.sentinel_password=pw"]
    {
        as_ops.extend(["--set", set]);
    }
    // A replica may become the primary half-way: it is asked as well.
    let [one, other] = ["g1", "g2"].map(|group| stage.redis.primary_of(group).unwrap());
    let replica = stage.redis.replicas_of("g2").unwrap()[0];
    may(&replica.redis, &format!("{on_servers} -xadd"));
    let refused = ends(reshard(&stage, "apply", &as_ops), 3);
    let (addr, host, port) = (replica.addr(), replica.addr().ip(), replica.addr().port());
    let rule = format!(
        "the user ops may not XADD fulmar:outbox:0 at {addr} (redis-cli -h {host} -p {port} ACL SETUSER ops +xadd)"
    );
    says(&refused.err, &["refused by the guard rights", &rule]);
    let is_there = |redis: &Redis, key: &str| redis.call(&["EXISTS", key]).unwrap().text() == "1";
    assert!(!is_there(&one.redis, "fulmar:map") && !is_there(&other.redis, "fulmar:group"), "nothing was changed");

    may(&replica.redis, &on_servers);
    let moved = ends(reshard(&stage, "apply", &as_ops), 0);
    says(&moved.err, &["    0 of 512 slots  begun", "  512 of 512 slots  arrived"]);
    says(&moved.out, &["move       512 slots from g1 to g2", "done\n", "group     g2            512 slots"]);
    let again = ends(reshard(&stage, "plan", &TO_BOTH), 4);
    says(&again.out, &["nothing to do: every group has its share already", "group     g2            512 slots"]);
    let again = ends(reshard(&stage, "apply", &["--groups", "g1,g2", "--json"]), 4).json();
    assert_eq!((&again["verb"], &again["outcome"]), (&json!("redis reshard apply"), &json!("nothing")));
    ends(reshard(&stage, "abort", &[]), 4);

    // Those of the configuration are meant where none are named.
    let back = ends(reshard(&stage, "apply", &["--json"]), 0).json();
    assert_eq!(back["map"]["groups"], json!([{ "name": "g1", "slots": 1024 }]), "{back}");
    let expected =
        [("resume", "nothing"), ("abort", "nothing"), ("apply", "refused"), ("apply", "begun"), ("apply", "done")];
    let later = [("apply", "nothing"), ("abort", "nothing"), ("apply", "begun"), ("apply", "done")];
    assert_eq!(written(&stage), pairs(&[&expected[..], &later].concat()));
    let audit = stage.audit();
    assert_eq!((&audit[2]["guard"], &audit[2]["group"]), (&json!("rights"), &json!("g1,g2")), "{}", audit[2]);
    let done = (&audit[4]["reason"], &audit[4]["aim"]);
    assert_eq!(done, (&json!("more room"), &json!("g1 has 512 slots, g2 has 512 slots")), "{}", audit[4]);
}

/// OP-20 OP-23 RED-11
#[test]
fn a_move_whose_mover_has_died_is_undone_by_abort_or_gone_on_with_by_resume() {
    let Some((stage, node)) = set() else { return };
    // Nothing moves before every node has taken the map in: one that hangs holds the move at its beginning.
    let interrupt = || {
        node.stop();
        let mut running = stage.begin(&words("apply", &TO_BOTH));
        running.await_words("0 of 512 slots  begun");
        running.process.kill().unwrap();
        running.process.wait().unwrap();
        node.resume();
    };
    interrupt();
    let refused = ends(reshard(&stage, "plan", &["--groups", "g1,g2", "--json"]), 3).json();
    let expected = json!({ "guard": null, "figures": "512 slots are on their way already: `resume` or `abort`" });
    assert_eq!(refused["refusal"], expected);
    let undone = ends(reshard(&stage, "abort", &["--reason", "another day"]), 0);
    says(&undone.out, &["done\n", "group     g1           1024 slots"]);
    ends(reshard(&stage, "plan", &TO_BOTH), 0);

    interrupt();
    let done = ends(reshard(&stage, "resume", &[]), 0);
    says(&done.out, &["group     g1            512 slots", "group     g2            512 slots"]);
    ends(reshard(&stage, "plan", &TO_BOTH), 4);
    let apart = [("apply", "begun"), ("abort", "begun"), ("abort", "done")];
    let on = [("apply", "begun"), ("resume", "begun"), ("resume", "done")];
    assert_eq!(written(&stage), pairs(&[apart, on].concat()));
    let audit = stage.audit();
    assert_eq!((&audit[1]["reason"], &audit[1]["aim"]), (&json!("another day"), &json!("512 slots were on their way")));
}
