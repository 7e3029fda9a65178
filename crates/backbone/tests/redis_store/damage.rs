//! Whatever is done to the records, they are right again soon, and nobody is told of a coming or going that did not happen.

use std::time::Duration;

use fulmar_backbone::redis::records::{Call, Change, Find, Found, Told};
use fulmar_backbone::redis::topic::Topic;

use crate::world::{IDENTITY, WITHIN, World, all_hooks, identify, topic};

/// Rooms that node `number` is on, with two users each.
fn rooms(number: usize) -> Vec<Topic> {
    (0..40).map(|room| topic(&format!("7:presence-room-{}", room + number * 20))).collect()
}

/// Two nodes on forty rooms each, half of them shared, and what readers see of them.
fn furnished() -> Option<(World, Vec<String>)> {
    let mut world = World::new(2)?;
    for node in 0..2 {
        for room in rooms(node) {
            for (number, who) in [format!("user-{node}"), "ana".to_owned()].iter().enumerate() {
                let change = world.nodes[node].join(&room, number as u32 + 1, who);
                world.nodes[node].ask(Call::Change(change));
            }
        }
    }
    world.settle();
    world.run(Duration::from_secs(1));
    let seen = all(&mut world);
    assert_eq!(seen.len(), 60);
    world.nodes.iter_mut().for_each(|node| node.told.clear());
    Some((world, seen))
}

/// Everything that readers see.
fn all(world: &mut World) -> Vec<String> {
    let Found::Listed(totals) = world.find(0, Find::Prefix(String::new())) else { panic!("totals") };
    let mut seen = Vec::new();
    for total in totals {
        let users = world.roster(1, &total.topic).0;
        seen.push(format!("{} {} {} {users:?}", total.topic.as_str(), total.subscriptions, total.members));
    }
    seen
}

/// All keys of records and members, with what is in them.
fn stored(world: &mut World) -> Vec<String> {
    let mut keys: Vec<String> = world.redis(&["KEYS", "dep:[rm]e[cm]:*"]);
    keys.sort();
    let mut stored = Vec::new();
    for key in keys {
        let mut fields: Vec<(String, String)> = world.redis(&["HGETALL", &key]);
        fields.sort();
        stored.push(format!("{key} {fields:?}"));
    }
    stored
}

/// Does something to the records; within three seconds all is as before, in every byte, and no edge was made.
fn check(damage: impl Fn(&mut World), is_visible: bool) {
    let Some((mut world, seen)) = furnished() else { return };
    let (before, log) = (stored(&mut world), world.log());
    damage(&mut world);
    if is_visible {
        assert_ne!(all(&mut world), seen, "the damage shows");
    }
    world.nodes.iter_mut().for_each(|node| node.told.clear());
    world.run(WITHIN);
    assert_eq!(all(&mut world), seen);
    assert_eq!(stored(&mut world), before);
    assert_eq!(world.log(), log, "no edge was made");
    if is_visible {
        for node in &world.nodes {
            assert!(node.told.iter().any(|told| matches!(told, Told::Doubtful(_))), "the hubs look again");
        }
        let shared = topic("7:presence-room-30");
        assert!(world.roster(0, &shared).1, "all is settled again");
    }
}

/// Keys of a kind, of node 0, in some order that is always the same.
fn keys(world: &mut World, pattern: &str) -> Vec<String> {
    let mut keys: Vec<String> = world.redis(&["KEYS", pattern]);
    keys.sort();
    keys
}

/// RED-29
#[test]
fn half_of_the_records_deleted() {
    let damage = |world: &mut World| {
        for key in keys(world, "dep:[rm]e[cm]:*").iter().step_by(2) {
            world.redis::<()>(&["DEL", key]);
        }
    };
    check(damage, true);
}

/// RED-29
#[test]
fn single_members_and_counts_deleted_or_changed() {
    let damage = |world: &mut World| {
        let members = keys(world, "dep:mem:*");
        world.redis::<()>(&["HDEL", &members[0], "ana"]);
        world.redis::<()>(&["HSET", &members[1], "ana", "5 {}"]);
        let records = keys(world, "dep:rec:*:node0");
        let fields: Vec<String> = world.redis(&["HKEYS", &records[0]]);
        world.redis::<()>(&["HSET", &records[0], &fields[0], "77 0"]);
        let fields: Vec<String> = world.redis(&["HKEYS", &records[1]]);
        world.redis::<()>(&["HSET", &records[1], &fields[0], "nonsense"]);
    };
    check(damage, true);
}

/// RED-29
#[test]
fn ghosts_inside_the_record_of_a_live_node() {
    let damage = |world: &mut World| {
        for key in keys(world, "dep:mem:*").iter().step_by(3) {
            world.redis::<()>(&["HSET", key, "ghost", "1 {}"]);
        }
        let ghost = topic("7:presence-of-ghosts");
        let (slot, name) = (ghost.slot().0, ghost.as_str());
        world.redis::<()>(&["HSET", &format!("dep:rec:{slot}:node0"), name, "3 0"]);
        world.redis::<()>(&["HSET", &format!("dep:mem:{slot}:node0:{name}"), "ghost", "1 {}"]);
        world.redis::<()>(&["HSET", "dep:rec:5:node1", "no topic at all", "3 0"]);
        world.redis::<()>(&["HSET", "dep:rec:5:node1", "7:presence-room-1", "3 0"]);
    };
    check(damage, true);
}

/// RED-29
#[test]
fn thousands_of_ghosts_in_one_list() {
    let damage = |world: &mut World| {
        let key = keys(world, "dep:mem:*")[0].clone();
        let ghosts: Vec<String> = (0..5_000).map(|number| format!("ghost-{number}")).collect();
        for some in ghosts.chunks(500) {
            let fields = some.iter().flat_map(|ghost| [ghost.as_str(), "1 {}"]);
            world.redis::<()>(&["HSET", &key].into_iter().chain(fields).collect::<Vec<_>>());
        }
    };
    check(damage, true);
}

/// RED-29
#[test]
fn records_overwritten_with_those_of_another_topic() {
    let damage = |world: &mut World| {
        for pattern in ["dep:rec:*:node0", "dep:mem:*:node0:*"] {
            let keys = keys(world, pattern);
            for pair in keys.chunks_exact(2) {
                world.redis::<()>(&["COPY", &pair[0], &pair[1], "REPLACE"]);
            }
        }
    };
    check(damage, true);
}

/// RED-29
#[test]
fn keys_of_the_wrong_type() {
    let damage = |world: &mut World| {
        for pattern in ["dep:rec:*:node0", "dep:mem:*:node1:*"] {
            for key in keys(world, pattern).iter().step_by(4) {
                world.redis::<()>(&["SET", key, "x"]);
            }
        }
    };
    check(damage, true);
}

/// RED-29: nobody sees them; a name used again must not bring them back.
#[test]
fn members_of_channels_that_the_node_is_not_on() {
    let damage = |world: &mut World| {
        let ghost = topic("7:presence-of-ghosts");
        let key = format!("dep:mem:{}:node0:{}", ghost.slot().0, ghost.as_str());
        world.redis::<()>(&["HSET", &key, "ghost", "1 {}"]);
    };
    check(damage, false);
}

/// RED-25
#[test]
fn ghosts_that_lie_ready_do_not_come_to_life_with_the_first_subscription() {
    let Some(mut world) = World::new(1) else { return };
    let room = topic("7:presence-room");
    let key = format!("dep:mem:{}:node0:{}", room.slot().0, room.as_str());
    world.redis::<()>(&["HSET", &key, "ghost", "1 {}"]);
    let change = world.nodes[0].join(&room, 1, "ana");
    assert_eq!(world.change(0, change).unwrap().roster.unwrap().len(), 1);
}

/// RED-25, RED-29
#[test]
fn the_records_of_a_node_without_a_lease_are_never_seen_and_swept_in_time() {
    let Some((mut world, seen)) = furnished() else { return };
    let before = stored(&mut world);
    let ghost = topic("7:presence-room-3");
    let (slot, name) = (ghost.slot().0, ghost.as_str());
    world.redis::<()>(&["HSET", &format!("dep:rec:{slot}:nobody"), name, "3 0"]);
    world.redis::<()>(&["HSET", &format!("dep:mem:{slot}:nobody:{name}"), "ghost", "1 {}"]);
    assert_eq!(all(&mut world), seen);
    world.run(Duration::from_secs(8));
    assert_ne!(stored(&mut world), before, "a node that starts is left alone");
    world.run(Duration::from_secs(8));
    assert_eq!(stored(&mut world), before);
}

/// RED-6, RED-26
#[test]
fn everything_flushed() {
    let damage = |world: &mut World| {
        let log: Vec<String> = world.log();
        world.redis::<()>(&["FLUSHALL"]);
        world.run(Duration::from_millis(200));
        assert!(world.nodes.iter().all(|node| !node.refused.is_empty()), "nobody writes without an identity");
        // What the driver does: the identity is written back, with a higher epoch.
        let keys = world.keys.clone();
        identify(&mut world.admin, &keys, 2);
        for line in log {
            let (topic, message) = line.split_once(' ').unwrap();
            world.redis::<()>(&["XADD", "dep:log", "*", topic, message]);
        }
        let now = world.now;
        for node in &mut world.nodes {
            node.facts.epoch = 2;
            node.lose();
            node.store.attached(now, 2);
        }
    };
    check(damage, false);
    assert_eq!(IDENTITY, "dep/single");
}

/// RED-27
#[test]
fn absence_means_nothing_while_a_group_that_lost_everything_knows_of_fewer_nodes_than_live() {
    let Some((mut world, _)) = furnished() else { return };
    world.redis::<()>(&["FLUSHALL"]);
    let keys = world.keys.clone();
    identify(&mut world.admin, &keys, 2);
    let now = world.now;
    for node in &mut world.nodes {
        node.facts.epoch = 2;
        node.lose();
        node.store.set_live(2);
        node.store.attached(now, 2);
    }
    let shared = topic("7:presence-room-30");
    world.nodes[1].is_stopped = true;
    world.run(Duration::from_secs(2));
    let (users, is_settled) = world.roster(0, &shared);
    assert_eq!((users.len(), is_settled), (2, false), "the other's user is not there, and has not left");
    assert!(!world.settled_total(0, &shared).1, "nor has anybody signed out");
    world.nodes[1].is_stopped = false;
    world.run(WITHIN);
    let (users, is_settled) = world.roster(0, &shared);
    assert_eq!((users.len(), is_settled), (3, true));
    assert!(world.settled_total(0, &shared).1);
}

/// RED-27: what lay of it is taken away as soon as the other has it, and nodes learn of that a little later.
#[test]
fn absence_means_nothing_where_the_slot_is_another_groups() {
    let Some((mut world, _)) = furnished() else { return };
    let shared = topic("7:presence-room-30");
    world.redis::<()>(&["HSET", "dep:group", "slots", "1"]);
    assert!(!world.settled_total(0, &shared).1, "slots have come or gone, and the node has not looked");
    world.nodes.iter_mut().for_each(|node| node.facts.slots = 1);
    assert!(world.settled_total(0, &shared).1 && world.roster(0, &shared).1);
    world.redis::<()>(&["HSET", "dep:slots", &shared.slot().0.to_string(), "to:other:5"]);
    assert!(!world.settled_total(0, &shared).1 && !world.roster(0, &shared).1);
}

/// RED-28
#[test]
fn leases_and_marks_deleted_or_of_the_wrong_type() {
    for command in ["DEL", "SET"] {
        let damage = |world: &mut World| {
            for key in ["dep:nodes", "dep:fence", "dep:settled"] {
                let arguments: &[&str] = if command == "DEL" { &[command, key] } else { &[command, key, "x"] };
                world.redis::<()>(arguments);
            }
        };
        check(damage, true);
    }
}

/// RED-29: a change that is on its way is no damage.
#[test]
fn changes_under_way_are_not_taken_for_damage() {
    let Some(mut world) = World::new(2) else { return };
    for round in 0..400_u32 {
        let room = topic(&format!("7:presence-room-{}", round % 7));
        for node in 0..2 {
            let who = format!("user-{}", round % 5);
            let change = match round % 3 {
                0 => world.nodes[node].part(&room, round % 2, &who),
                _ => world.nodes[node].join(&room, 1 + round % 4, &who),
            };
            world.nodes[node].ask(Call::Change(change));
        }
        world.now += Duration::from_millis(25);
        world.settle();
    }
    for node in &world.nodes {
        let state = node.store.state();
        assert!(state.mended == 0 && state.passes > 3, "{state:?}");
    }
}

const ROOM: &str = "7:presence-room";

/// Ana comes to the room by a node, or goes from it; what an app's server is told of it is worked at once.
fn ana(world: &mut World, node: usize, comes: bool) {
    let room = topic(ROOM);
    let change = if comes { world.nodes[node].join(&room, 1, "ana") } else { world.nodes[node].part(&room, 0, "ana") };
    world.change(node, Change { hooks: all_hooks(), ..change }).unwrap();
}

/// What lies in the outbox, which is then empty.
fn work(world: &mut World) -> Vec<String> {
    let room = topic(ROOM);
    let told = world.outbox(&room);
    let key = world.keys.outbox(room.slot().outbox_part());
    world.redis::<()>(&["XTRIM", &key, "MAXLEN", "0"]);
    told.iter().map(|entry| entry.replace(" t 7:presence-room", "")).collect()
}

fn forget(world: &mut World, node: usize) {
    let slot = topic(ROOM).slot().0;
    world.redis::<()>(&["DEL", &format!("dep:rec:{slot}:node{node}"), &format!("dep:mem:{slot}:node{node}:{ROOM}")]);
}

/// RED-26
#[test]
fn an_apps_server_is_told_who_went_although_damage_had_taken_the_record() {
    let Some(mut world) = World::new(1) else { return };
    ana(&mut world, 0, true);
    assert_eq!(work(&mut world), ["co", "ma u ana"]);
    let log = world.log();
    forget(&mut world, 0);
    ana(&mut world, 0, false);
    assert_eq!(work(&mut world), ["mr u ana", "cv"]);
    assert_eq!(world.log(), log, "subscribers are told by their nodes, who know whom they were told of");
}

/// RED-26
#[test]
fn an_apps_server_is_told_again_who_is_there_when_damage_made_a_false_going() {
    let Some(mut world) = World::new(2) else { return };
    ana(&mut world, 0, true);
    ana(&mut world, 1, true);
    work(&mut world);
    forget(&mut world, 0);
    ana(&mut world, 1, false);
    assert_eq!(work(&mut world), ["mr u ana", "cv"], "as far as anybody could see");
    world.run(WITHIN);
    assert_eq!(work(&mut world), ["co", "ma u ana"]);
    world.run(WITHIN);
    assert!(work(&mut world).is_empty(), "once");
    // The list is there all the time, and nobody saw it without its record.
    ana(&mut world, 1, true);
    work(&mut world);
    world.redis::<()>(&["DEL", &format!("dep:rec:{}:node0", topic(ROOM).slot().0)]);
    ana(&mut world, 1, false);
    assert_eq!(work(&mut world), ["mr u ana", "cv"]);
    world.run(WITHIN);
    assert_eq!(work(&mut world), ["co", "ma u ana"]);
}

/// RED-26
#[test]
fn an_apps_server_is_told_who_went_while_a_ghost_stood_in_the_place() {
    let Some(mut world) = World::new(2) else { return };
    ana(&mut world, 0, true);
    let slot = topic(ROOM).slot().0;
    for kind in [format!("rec:{slot}:node"), format!("mem:{slot}:node")] {
        let name = |node| {
            if kind.starts_with("rec") { format!("dep:{kind}{node}") } else { format!("dep:{kind}{node}:{ROOM}") }
        };
        world.redis::<()>(&["COPY", &name(0), &name(1)]);
    }
    ana(&mut world, 0, false);
    assert_eq!(work(&mut world), ["co", "ma u ana"], "she seems to be on the other node");
    world.run(WITHIN);
    assert_eq!(work(&mut world), ["mr u ana", "cv"]);
}

/// RED-26
#[test]
fn an_apps_server_is_told_again_who_is_there_when_somebody_else_who_leaves_puts_the_record_right() {
    let Some(mut world) = World::new(1) else { return };
    let room = topic(ROOM);
    ana(&mut world, 0, true);
    let bob = world.nodes[0].join(&room, 2, "bob");
    world.change(0, Change { hooks: all_hooks(), ..bob }).unwrap();
    work(&mut world);
    world.redis::<()>(&["DEL", &format!("dep:rec:{}:node0", room.slot().0)]);
    let bob = world.nodes[0].part(&room, 1, "bob");
    world.change(0, Change { hooks: all_hooks(), ..bob }).unwrap();
    assert_eq!(work(&mut world), ["co", "mr u bob", "ma u ana"]);
    // And so when only the number of subscriptions changes.
    world.redis::<()>(&["DEL", &format!("dep:rec:{}:node0", room.slot().0)]);
    let more = world.nodes[0].plain(&room, 2);
    world.change(0, Change { hooks: all_hooks(), ..more }).unwrap();
    assert_eq!(work(&mut world), ["co", "ma u ana"]);
}

/// The server loses everything, and another node than these takes it into use again.
fn lose_everything(world: &mut World) {
    world.redis::<()>(&["FLUSHALL"]);
    let keys = world.keys.clone();
    identify(&mut world.admin, &keys, 2);
}

/// What lies in the outbox, whether left for the first time or again.
fn work_again(world: &mut World) -> Vec<String> {
    let without_generation = |entry: &String| entry.split(" g ").next().unwrap_or_default().to_owned();
    work(world).iter().map(without_generation).collect()
}

/// RED-32
#[test]
fn edges_that_were_lost_are_left_again_by_a_node_that_heard_nothing_of_the_loss() {
    let Some(mut world) = World::new(1) else { return };
    ana(&mut world, 0, true);
    ana(&mut world, 0, false);
    lose_everything(&mut world);
    world.run(WITHIN);
    assert_eq!(work_again(&mut world), ["co", "ma u ana", "mr u ana", "cv"]);
    assert_eq!(world.nodes[0].refused, [], "no call came between");
}

/// RED-32
#[test]
fn no_change_is_made_where_the_edges_before_it_are_not_although_the_lease_is_there_again() {
    let Some(mut world) = World::new(1) else { return };
    ana(&mut world, 0, true);
    ana(&mut world, 0, false);
    lose_everything(&mut world);
    world.now += Duration::from_secs(1);
    let bob = world.nodes[0].join(&topic(ROOM), 1, "bob");
    let (now, node) = (world.now, &mut world.nodes[0]);
    let beat = node.next(now).expect("a beat");
    let beaten = node.carry(&beat);
    // It leaves before the answer says that there was no lease.
    node.ask(Call::Change(Change { hooks: all_hooks(), ..bob }));
    let change = node.next(now).expect("the change");
    let refused = node.carry(&change);
    assert!(format!("{refused:?}").contains("LOSTEDGES"), "{refused:?}");
    for (outgoing, replies) in [(beat, beaten), (change, refused)] {
        node.store.replied(now, outgoing.ticket, replies, &mut Vec::new());
    }
    world.run(WITHIN);
    assert_eq!(work_again(&mut world), ["co", "ma u ana", "mr u ana", "cv", "co", "ma u bob"]);
    assert_eq!(world.nodes[0].refused, []);
}
