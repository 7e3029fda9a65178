//! Servers that are not what they are taken for, or cannot do what is asked: nothing is lost, nobody hammers on them.

use std::time::Duration;

use fulmar_backbone::redis::records::Call;
use fulmar_backbone::redis::store::Refusal;

use crate::world::{IDENTITY, World, topic};

/// Makes the server refuse, asks for a change, lets a second pass, makes it good again: the change is made.
fn check(spoil: &[&str], repair: &[&str], expected: &Refusal) {
    let Some(mut world) = World::new(1) else { return };
    let room = topic("7:presence-room");
    world.redis::<()>(spoil);
    let change = world.nodes[0].join(&room, 1, "ana");
    world.nodes[0].ask(Call::Change(change));
    world.run(Duration::from_secs(1));
    let refused = std::mem::take(&mut world.nodes[0].refused);
    assert!(refused.iter().all(|refusal| refusal == expected), "{refused:?}");
    assert!((1..=44).contains(&refused.len()), "no more than four lanes every 100 ms: {}", refused.len());
    assert!(world.log().is_empty());
    world.redis::<()>(repair);
    world.run(Duration::from_secs(1));
    assert_eq!(world.log(), [r#"7:presence-room A1000 3:ana {"name":"ana"}"#]);
    assert_eq!(world.roster(0, &room).0, ["ana"]);
}

/// RED-6
#[test]
fn the_server_of_another_group_is_not_written_to() {
    let refusal = Refusal::WrongGroup("dep/other".to_owned());
    check(&["HSET", "dep:group", "id", "dep/other"], &["HSET", "dep:group", "id", IDENTITY], &refusal);
}

/// RED-6
#[test]
fn a_server_without_an_identity_is_not_written_to() {
    check(&["HDEL", "dep:group", "id"], &["HSET", "dep:group", "id", IDENTITY], &Refusal::NoIdentity);
}

/// RED-5
#[test]
fn a_primary_of_the_past_is_not_written_to() {
    check(&["HSET", "dep:group", "epoch", "0"], &["HSET", "dep:group", "epoch", "1"], &Refusal::StaleEpoch(0));
}

/// RED-8
#[test]
fn a_replica_is_not_written_to() {
    check(&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"], &Refusal::ReadOnly);
}

/// RED-8
#[test]
fn a_primary_that_lacks_replicas_is_asked_again() {
    let name = "min-replicas-to-write";
    check(&["CONFIG", "SET", name, "1"], &["CONFIG", "SET", name, "0"], &Refusal::NoReplicas);
}

/// RED-5
#[test]
fn a_server_that_has_taken_over_raises_the_epoch_once() {
    let Some(mut world) = World::new(2) else { return };
    // As on a replica that was promoted: the run id is the old primary's.
    world.redis::<()>(&["HSET", "dep:group", "run", "another"]);
    world.run(Duration::from_secs(2));
    assert!(world.nodes.iter().all(|node| node.facts.epoch == 2));
    assert_eq!(world.redis::<u64>(&["HGET", "dep:group", "epoch"]), 2);
    let now = world.now;
    world.nodes.iter_mut().for_each(|node| node.store.attached(now, 2));
    world.run(Duration::from_secs(2));
    assert!(world.roster(0, &topic("7:presence-room")).1, "both have looked after their records in this epoch");
}
