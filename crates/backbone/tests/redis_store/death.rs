//! Nodes that die, seem to, come back, or go in good order.

use std::time::Duration;

use fulmar_backbone::redis::records::{Call, Change, Told};

use crate::world::{World, all_hooks, topic};

/// Longer than a lease and what the judges add to it.
const LONG: Duration = Duration::from_secs(12);

impl World {
    /// Lets time pass; every node that is up reaps whom it finds dead, as a driver does that hears nothing of them elsewhere.
    fn run_and_reap(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.run(Duration::from_millis(500));
            for node in self.nodes.iter_mut().filter(|node| !node.is_stopped) {
                for dead in node.store.lapsed(self.now) {
                    node.store.reap(&dead);
                }
            }
        }
        self.settle();
    }

    /// Node 2 has users in two rooms, node 0 one of them too; all edges are wanted.
    fn furnish(&mut self) {
        for (node, room, subscriptions, who) in [
            (2, "7:presence-room", 1, "ana"),
            (2, "7:presence-room", 2, "bob"),
            (0, "7:presence-room", 1, "ana"),
            (2, "7:presence-other", 1, "eve"),
        ] {
            let change = self.nodes[node].join(&topic(room), subscriptions, who);
            let change = Change { hooks: all_hooks(), is_counted: true, ..change };
            self.change(node, change).unwrap();
        }
        let change = Change { hooks: all_hooks(), ..self.nodes[2].plain(&topic("7::zoe"), 1) };
        self.change(2, change).unwrap();
        self.run(Duration::from_secs(1));
    }
}

/// What is said of a dead node's records, in no order.
fn obituary() -> Vec<&'static str> {
    vec!["7::zoe F", "7:presence-other R3:eve", "7:presence-room C1", "7:presence-room R3:bob"]
}

fn since(before: usize, mut log: Vec<String>) -> Vec<String> {
    let mut new = log.split_off(before);
    new.sort();
    new
}

/// RED-25, RED-28
#[test]
fn a_dead_nodes_records_go_with_their_edges_once_however_many_reap_it() {
    let Some(mut world) = World::new(3) else { return };
    world.furnish();
    let before = world.log().len();
    world.nodes[2].is_stopped = true;
    world.run_and_reap(Duration::from_secs(5));
    assert_eq!(world.log().len(), before, "not within its lease");
    world.run_and_reap(LONG);
    let log = world.log();
    assert_eq!(since(before, log), obituary());
    let left: Vec<String> = world.redis(&["KEYS", "dep:[rm]e[cm]:*node2*"]);
    assert!(left.is_empty(), "{left:?}");
    let nodes: Vec<String> = world.redis(&["HKEYS", "dep:nodes"]);
    assert_eq!(nodes.len(), 2);
    let outbox = world.outbox(&topic("7:presence-other"));
    assert_eq!(outbox[outbox.len() - 2..], ["mr t 7:presence-other u eve", "cv t 7:presence-other"]);
    assert!(world.outbox(&topic("7::zoe")).contains(&"uf t 7::zoe".to_owned()));
    assert_eq!(world.nodes[0].store.state().mended, 0);
    let doubts: Option<u64> = world.redis(&["HGET", "dep:group", "doubts"]);
    assert!(doubts.is_some(), "who was announced may be on no record, and no edge said so (HOOK-41)");
}

/// RED-12
#[test]
fn nothing_of_a_node_is_left_an_hour_after_its_records_went() {
    let Some(mut world) = World::new(3) else { return };
    world.furnish();
    let now = world.redis::<Vec<String>>(&["TIME"])[0].parse::<u64>().expect("a number");
    for (node, ago) in [("old", 3_700), ("recent", 3_500)] {
        world.redis::<()>(&["HSET", "dep:fence", node, &format!("reaped {}", now - ago)]);
    }
    for lane in ["old.0", "old.0.last", "old.1", "old.1.last", "recent.0", "recent.0.last", "node0.1"] {
        world.redis::<()>(&["HSET", "dep:seq", lane, "7"]);
    }
    world.nodes[1].is_stopped = true;
    world.run_and_reap(LONG);
    let mut lanes: Vec<String> = world.redis(&["HKEYS", "dep:seq"]);
    lanes.sort_unstable();
    assert_eq!(lanes, ["node0.1", "recent.0", "recent.0.last"]);
    let marks: Vec<String> = world.redis(&["HKEYS", "dep:fence"]);
    assert!(!marks.contains(&"old".to_owned()) && marks.contains(&"recent".to_owned()), "{marks:?}");
}

/// RED-28
#[test]
fn a_node_that_was_reaped_and_is_alive_joins_again_with_edges() {
    let Some(mut world) = World::new(3) else { return };
    world.furnish();
    world.nodes[2].is_stopped = true;
    world.run_and_reap(LONG);
    let before = world.log().len();
    world.nodes[2].is_stopped = false;
    world.run_and_reap(Duration::from_secs(3));
    assert!(world.nodes[2].was_reaped);
    let log = world.log();
    let mut expected = vec![
        "7::zoe O".to_owned(),
        r#"7:presence-other A1000 3:eve {"name":"eve"}"#.to_owned(),
        "7:presence-other C1".to_owned(),
        r#"7:presence-room A1000 3:bob {"name":"bob"}"#.to_owned(),
        "7:presence-room C3".to_owned(),
    ];
    expected.sort();
    assert_eq!(since(before, log), expected);
    assert_eq!(world.roster(0, &topic("7:presence-room")), (vec!["ana".to_owned(), "bob".to_owned()], true));
    assert_eq!(world.nodes[2].store.state().mended, 0, "joined, not mended");
}

/// RED-28
#[test]
fn nobody_dies_of_a_store_that_was_away() {
    let Some(mut world) = World::new(3) else { return };
    world.furnish();
    let before = world.log().len();
    // Node 0 comes back first; the others take six seconds more.
    world.nodes.iter_mut().for_each(|node| node.lose());
    world.now += Duration::from_secs(60);
    let now = world.now;
    world.nodes[0].store.attached(now, 1);
    world.run_and_reap(Duration::from_secs(6));
    let now = world.now;
    world.nodes[1..].iter_mut().for_each(|node| node.store.attached(now, 1));
    world.run_and_reap(LONG);
    assert_eq!(world.log().len(), before);
    assert!(!world.nodes.iter().any(|node| node.was_reaped));
}

/// RED-28
#[test]
fn whoever_renews_while_it_is_being_judged_lives() {
    let Some(mut world) = World::new(3) else { return };
    world.furnish();
    let before = world.log().len();
    world.nodes[2].is_stopped = true;
    world.run(LONG);
    assert_eq!(world.nodes[0].store.lapsed(world.now), ["node2"]);
    world.redis::<()>(&["HSET", "dep:nodes", "node2", "renewed"]);
    world.nodes[0].store.reap("node2");
    world.settle();
    assert_eq!(world.log().len(), before);
}

/// RED-28
#[test]
fn a_node_that_returns_in_the_middle_of_its_reaping_is_whole_again() {
    let Some(mut world) = World::new(2) else { return };
    let room = topic("7:presence-room");
    for number in 0..500 {
        let change = world.nodes[1].join(&room, number + 1, &format!("user-{number}"));
        world.nodes[1].ask(Call::Change(change));
    }
    world.settle();
    world.nodes[1].is_stopped = true;
    world.run(LONG);
    world.nodes[0].store.reap("node1");
    let now = world.now;
    // One step, and the node is back.
    while let Some(outgoing) = world.nodes[0].next(now) {
        let replies = world.nodes[0].carry(&outgoing);
        world.nodes[0].store.replied(now, outgoing.ticket, replies, &mut Vec::new());
        let removed = world.log().iter().filter(|line| line.contains(" R")).count();
        if removed > 0 {
            assert!((1..500).contains(&removed), "in steps");
            break;
        }
    }
    world.nodes[1].is_stopped = false;
    world.run_and_reap(Duration::from_secs(4));
    assert!(world.nodes[1].was_reaped);
    assert_eq!(world.roster(0, &room).0.len(), 500);
    let log = world.log();
    let count = |kind: &str| log.iter().filter(|line| line.contains(kind)).count();
    assert_eq!(count(" A"), 500 + count(" R"), "each removal was followed by an addition");
}

/// RED-31
#[test]
fn an_orderly_end_takes_the_records_away_with_their_edges() {
    let Some(mut world) = World::new(3) else { return };
    world.furnish();
    let before = world.log().len();
    world.nodes[2].store.leave();
    world.settle();
    assert!(world.nodes[2].has_left);
    let log = world.log();
    assert_eq!(since(before, log), obituary());
    world.run_and_reap(LONG);
    assert_eq!(world.log().len(), before + obituary().len());
    let nodes: Vec<String> = world.redis(&["HKEYS", "dep:nodes"]);
    assert_eq!(nodes.len(), 2);
    assert!(world.roster(0, &topic("7:presence-room")).1, "nobody waits for it");
}

/// RED-27
#[test]
fn a_node_that_starts_makes_nobody_read_all_rosters_again() {
    let Some(mut world) = World::new(2) else { return };
    world.add("newcomer");
    world.run(Duration::from_secs(3));
    assert!(!world.nodes[0].told.iter().any(|told| matches!(told, Told::Doubtful(_))));
    assert!(world.roster(2, &topic("7:presence-room")).1, "all is settled");
}
