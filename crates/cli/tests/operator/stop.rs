//! `fulmar redis pre-stop`: a process is stopped only when nothing is lost by it.

use fulmar_rig::Role;

use super::stage::Stage;

/// OP-13 INC-2022-04-11
#[test]
fn a_primary_may_be_stopped_once_it_is_none_and_its_successor_is_complete() {
    let Some(stage) = Stage::set(2, "[backbone.group.g1]\nreplicas = 2\n") else { return };
    let primary = stage.redis.primary_of("g1").unwrap();
    let process = primary.addr().to_string();
    primary.redis.call(&["SET", "kept", "yes"]).unwrap();
    let ended = stage.run(&["redis", "pre-stop", "--process", &process, "--json"]);
    assert_eq!(ended.code, 0, "{} {}", ended.out, ended.err);
    assert_eq!(primary.redis.role().unwrap(), Role::Replica);
    let successor = ended.json()["report"]["new_primary"].as_str().unwrap().to_owned();
    let successor = stage.servers().find(|redis| redis.addr().to_string() == successor).unwrap();
    assert_eq!(successor.replicas_online().unwrap(), 2);
    // A hook that runs twice answers the same, and now there is nothing to do but to look.
    let again = stage.run(&["redis", "pre-stop", "--process", &process]);
    assert_eq!(again.code, 0, "{} {}", again.out, again.err);
    primary.redis.kill();
    assert_eq!(successor.role().unwrap(), Role::Primary);
    assert_eq!(successor.call(&["GET", "kept"]).unwrap().text(), "yes");
    assert!(successor.call(&["SET", "after", "1"]).is_ok(), "its one replica is enough to go on");
}

/// OP-13
#[test]
fn a_primary_without_a_complete_successor_may_not_be_stopped() {
    let Some(stage) = Stage::set(2, "[backbone.group.g1]\nreplicas = 2\n") else { return };
    let primary = stage.redis.primary_of("g1").unwrap();
    stage.redis.replicas_of("g1").unwrap()[0].redis.kill();
    let process = primary.addr().to_string();
    let ended = stage.run(&["redis", "pre-stop", "--process", &process]);
    assert_eq!(ended.code, 3, "{} {}", ended.out, ended.err);
    assert!(ended.err.contains("refused by the guard replicas"), "{}", ended.err);
    assert_eq!(primary.redis.role().unwrap(), Role::Primary);
    let other = stage.redis.replicas_of("g1").unwrap()[1].addr().to_string();
    let ended = stage.run(&["redis", "pre-stop", "--process", &other, "--json"]);
    assert_eq!((ended.code, ended.json()["refusal"]["guard"].as_str()), (3, Some("copies")), "{}", ended.out);
    // Several run on this machine, and none is named.
    let ended = stage.run(&["redis", "pre-stop"]);
    assert!(ended.code == 2 && ended.err.contains("--process"), "{}", ended.err);
}

/// OP-13: a group that was added while the system runs, and is not in the file yet.
#[test]
fn a_process_of_a_group_that_is_not_configured_is_not_said_to_be_of_no_use() {
    let Some(stage) = Stage::set_groups(&[("g1", 0), ("g2", 0)], "", None) else { return };
    let other = &stage.redis.primary_of("g2").unwrap().redis;
    let process = other.addr().to_string();
    let ask = || stage.run(&["redis", "pre-stop", "--process", &process]);
    let empty = ask();
    assert!(empty.code == 0 && empty.err.contains("it may be stopped"), "{} {}", empty.code, empty.err);
    other.call(&["SET", "a", "1"]).unwrap();
    let foreign = ask();
    assert!(foreign.code == 1 && foreign.err.contains("holds 1 keys"), "{} {}", foreign.code, foreign.err);
    other.call(&["HSET", "fulmar:group", "id", "fulmar/g2"]).unwrap();
    let added = ask();
    assert!(added.code == 1 && added.err.contains("data of fulmar/g2"), "{} {}", added.code, added.err);
}
