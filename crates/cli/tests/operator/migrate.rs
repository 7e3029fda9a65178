//! `fulmar redis add-replica` and `replace`.

use fulmar_rig::{Redis, RedisOptions, Role, eventually};

use super::stage::{PATIENCE, Stage};

const ROOMY: &str = "[backbone.group.g1]\nlink_mbit = 10000\nmemory_mb = 4096\nreplicas = 2\n";

/// OP-11
#[test]
fn a_replica_is_added_when_the_arithmetic_allows_it_and_the_verb_ends_when_it_is_online() {
    let Some(stage) = Stage::set(1, "[backbone.group.g1]\nlink_mbit = 10000\nmemory_mb = 4096\n") else { return };
    let new = stage.newcomer();
    let address = new.addr().to_string();
    let all = ["redis", "add-replica", "g1", &address, "--json"];
    let planned = stage.run(&["redis", "add-replica", "g1", &address, "--dry-run"]);
    assert_eq!(planned.code, 0, "{} {}", planned.out, planned.err);
    assert!(
        planned.out.contains("guard   bandwidth     ok") && planned.out.contains("70% of the line"),
        "{}",
        planned.out
    );
    assert_eq!(new.role().unwrap(), Role::Primary, "a dry run does nothing");
    let ended = stage.run(&all);
    assert_eq!(ended.code, 0, "{} {}", ended.out, ended.err);
    let primary = stage.redis.primary_of("g1").unwrap();
    assert_eq!((new.role().unwrap(), primary.redis.replicas_online().unwrap()), (Role::Replica, 2));
    assert_eq!(stage.run(&all).code, 4);
}

/// OP-10 OP-11 INC-2021-11-11
#[test]
fn a_replica_that_would_be_too_much_is_refused_with_the_figures() {
    let Some(stage) = Stage::set(1, "[backbone.group.g1]\nlink_mbit = 1\n") else { return };
    let new = stage.newcomer();
    let address = new.addr().to_string();
    let all = ["redis", "add-replica", "g1", &address, "--json"];
    let refusal = |code: i32| {
        let ended = stage.run(&all);
        assert_eq!(ended.code, code, "{} {}", ended.out, ended.err);
        let refusal = ended.json()["refusal"].clone();
        (refusal["guard"].as_str().unwrap().to_owned(), refusal["figures"].as_str().unwrap().to_owned())
    };
    let (guard, figures) = refusal(3);
    assert_eq!((guard.as_str(), figures.as_str()), ("capacity", "link_mbit is 1, memory_mb is not known"));

    // A megabit carries 87,500 bytes per second to 70%: a primary that writes more has no room for another stream.
    let config = std::fs::read_to_string(stage.file()).unwrap();
    std::fs::write(stage.file(), config.replace("link_mbit = 1", "link_mbit = 1\nmemory_mb = 4096")).unwrap();
    let primary = stage.redis.primary_of("g1").unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let (guard, figures) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = primary.redis.connect().unwrap();
            let data = "x".repeat(2_000);
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = connection.call(&["SET", "load", &data]);
                // Some hundred kilobytes per second: more than the line, and nothing that a replica could not take.
                std::thread::sleep(std::time::Duration::from_millis(4));
            }
        });
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| refusal(3)));
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        refused.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert_eq!(guard, "bandwidth", "{figures}");
    assert!(figures.contains("70% of the line carry") || figures.contains("nothing is left of a line"), "{figures}");
    assert_eq!(new.role().unwrap(), Role::Primary, "nothing was done");

    new.call(&["SET", "a", "1"]).unwrap_or(fulmar_rig::Value::Nil);
    new.call(&["CONFIG", "SET", "min-replicas-to-write", "0"]).unwrap();
    new.call(&["HSET", "fulmar:group", "id", "fulmar/g2"]).unwrap();
    assert_eq!(refusal(3).0, "identity");
}

/// OP-12
#[test]
fn a_primary_is_replaced_by_a_new_server_and_the_old_one_is_nobody_s_any_more() {
    let Some(stage) = Stage::set(2, ROOMY) else { return };
    stage.hurry();
    let (old, new) = (stage.redis.primary_of("g1").unwrap(), stage.newcomer());
    let (from, to) = (old.addr().to_string(), new.addr().to_string());
    old.redis.call(&["SET", "kept", "yes"]).unwrap();
    let ended = stage.run(&["redis", "replace", "g1", &from, &to, "--json"]);
    assert_eq!(ended.code, 0, "{} {}", ended.out, ended.err);
    assert!(ended.json()["afterwards"].as_str().unwrap().contains("stop it"));
    assert_eq!(old.redis.role().unwrap(), Role::Replica, "it takes no writes");
    assert_eq!(new.call(&["GET", "kept"]).unwrap().text(), "yes");
    for sentinel in stage.redis.sentinels() {
        assert_ne!(sentinel.primary_of("g1").unwrap(), old.addr());
        let replicas = sentinel.redis.call(&["SENTINEL", "REPLICAS", "g1"]).unwrap();
        let known: Vec<String> =
            replicas.list().iter().filter_map(|replica| Some(replica.field("port")?.text())).collect();
        assert!(!known.contains(&old.addr().port().to_string()) && known.len() == 2, "{known:?}");
    }
    // Whatever a Sentinel might tell it, it gets nothing any more; and stopping it changes nothing.
    old.redis.kill();
    eventually("the group is as it should be", PATIENCE, || {
        let status = stage.run(&["redis", "status", "--json"]);
        (status.code == 0 && status.json()["groups"][0]["copies"] == 3).then_some(())
    })
    .unwrap();
}

/// OP-4 OP-11
#[test]
fn passwords_are_those_of_the_nodes_and_a_new_replica_gets_that_of_its_primary() {
    let secret = "a-secret-of-the-servers";
    let Some(stage) = Stage::set_with(1, ROOMY.trim_end_matches("replicas = 2\n"), Some(secret)) else { return };
    let new = Redis::start(&RedisOptions { password: Some(secret.to_owned()), ..RedisOptions::default() }).unwrap();
    new.call(&["CONFIG", "SET", "masterauth", ""]).unwrap();
    let address = new.addr().to_string();
    let added = stage.run(&["redis", "add-replica", "g1", &address, "--json"]);
    assert_eq!(added.code, 0, "{} {}", added.out, added.err);
    let moved = stage.run(&["redis", "failover", "g1"]);
    assert_eq!(moved.code, 0, "{} {}", moved.out, moved.err);
    let log = std::fs::read_to_string(stage.folder.path().join("audit.jsonl")).unwrap();
    for said in [added.out, added.err, moved.out, moved.err, log] {
        assert!(!said.contains(secret), "a secret is never shown: {said}");
    }
}
