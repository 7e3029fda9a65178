//! Who is told what when records change.

use std::time::Duration;

use fulmar_backbone::redis::lane::lane_of;
use fulmar_backbone::redis::records::{Call, Change, Find, Found, Told, Total};
use fulmar_backbone::redis::scripts::PUBLISH;
use fulmar_protocol::exchange::Identity;

use crate::world::{OUTBOX_PART_MAX, World, all_hooks, read, topic, user};

/// RED-25
#[test]
fn the_first_connection_of_a_user_anywhere_is_the_only_one_that_is_told() {
    let Some(mut world) = World::new(2) else { return };
    let room = topic("7:presence-room");
    let change = world.nodes[0].join(&room, 1, "ana");
    let first = world.change(0, change).unwrap();
    assert!(first.is_occupied && first.is_added && first.total == 1, "{first:?}");
    assert_eq!(first.roster.unwrap().len(), 1);
    let change = world.nodes[1].join(&room, 1, "ana");
    let second = world.change(1, change).unwrap();
    assert!(!second.is_occupied && !second.is_added && second.total == 2, "{second:?}");
    let change = world.nodes[1].join(&room, 2, "bob");
    let third = world.change(1, change).unwrap();
    assert!(third.is_added && third.total == 3 && third.at > second.at, "{third:?}");
    let roster = third.roster.unwrap();
    let users: Vec<_> = roster.iter().map(|(member, _)| member.user_id.as_str()).collect();
    assert_eq!(users, ["ana", "bob"]);

    let change = world.nodes[0].part(&room, 0, "ana");
    assert!(!world.change(0, change).unwrap().is_removed, "ana is still on the other node");
    let change = world.nodes[1].part(&room, 1, "ana");
    assert!(world.change(1, change).unwrap().is_removed);
    let change = world.nodes[1].part(&room, 0, "bob");
    let last = world.change(1, change).unwrap();
    assert!(last.is_removed && last.is_vacated && last.total == 0, "{last:?}");
    let log = world.log();
    assert_eq!(
        log,
        [
            r#"7:presence-room A1000 3:ana {"name":"ana"}"#,
            r#"7:presence-room A1000 3:bob {"name":"bob"}"#,
            "7:presence-room R3:ana",
            "7:presence-room R3:bob",
        ]
    );
    log.iter().for_each(|line| drop(read(line)));
    let left: Vec<String> = world.redis(&["KEYS", "dep:[rm]e[cm]:*"]);
    assert!(left.is_empty(), "{left:?}");
}

/// RED-25
#[test]
fn edges_reach_subscribers_and_the_outbox() {
    let Some(mut world) = World::new(1) else { return };
    let mut ears = world.server.connect();
    redis::cmd("PSUBSCRIBE").arg("dep:t:*").exec(&mut ears).unwrap();
    let room = topic("7:presence-cache-room");
    let mut change = world.nodes[0].join(&room, 1, "ana");
    change = Change { hooks: all_hooks(), is_counted: true, wants_cached: true, ..change };
    let changed = world.change(0, change).unwrap();
    assert!(changed.cached.is_none());
    let mut change = world.nodes[0].part(&room, 0, "ana");
    change = Change { hooks: all_hooks(), is_counted: true, ..change };
    world.change(0, change).unwrap();
    assert_eq!(
        world.outbox(&room),
        [
            "co t 7:presence-cache-room",
            "ma t 7:presence-cache-room u ana",
            "sc t 7:presence-cache-room n 1",
            "cm t 7:presence-cache-room",
            "mr t 7:presence-cache-room u ana",
            "cv t 7:presence-cache-room",
        ]
    );
    let mut heard = Vec::new();
    for _ in 0..3 {
        let redis::Value::Array(parts) = ears.recv_response().unwrap() else { panic!("a push") };
        let redis::Value::BulkString(text) = &parts[3] else { panic!("{parts:?}") };
        heard.push(String::from_utf8_lossy(text).into_owned());
    }
    let at = changed.at.to_string();
    assert_eq!(heard[0], format!(r#"{at}.0|A1000 3:ana {{"name":"ana"}}"#));
    assert_eq!(heard[1], format!("{at}.1|C1"));
    assert!(heard[2].ends_with("|R3:ana"), "{heard:?}");
}

/// RED-36
#[test]
fn an_outbox_that_nobody_works_keeps_the_last_edges_and_counts_what_it_drops() {
    let Some(mut world) = World::new(1) else { return };
    let room = topic("7:room");
    let (mut expected, max) = (Vec::new(), usize::try_from(OUTBOX_PART_MAX).unwrap());
    // Each flip makes one edge; while there is room, each coming a count as well.
    for flip in 0..max * 2 {
        let subscriptions = u32::from(flip % 2 == 0);
        let change = Change { is_counted: true, hooks: all_hooks(), ..world.nodes[0].plain(&room, subscriptions) };
        world.change(0, change).unwrap();
        expected.push(if subscriptions > 0 { "co t 7:room" } else { "cv t 7:room" });
    }
    let outbox = world.outbox(&room);
    assert_eq!(outbox, expected[expected.len() - max..], "no count has taken the place of an edge");
    let mark = format!("cut:{}", room.slot().outbox_part());
    assert_eq!(world.redis::<u64>(&["HGET", "dep:group", &mark]), OUTBOX_PART_MAX, "an edge was among them");
    world.run(std::time::Duration::from_secs(1));
    // Of the edges, and of the counts that half of them had with them.
    assert_eq!(world.nodes[0].edges_dropped as usize, max * 2 + max - outbox.len());
}

/// RED-25
#[test]
fn users_are_online_and_offline_where_channels_are_occupied_and_vacated() {
    let Some(mut world) = World::new(2) else { return };
    let ana = topic("7::ana");
    for (node, subscriptions) in [(0, 1), (1, 1), (0, 0), (1, 0)] {
        let change = Change { hooks: all_hooks(), ..world.nodes[node].plain(&ana, subscriptions) };
        world.change(node, change).unwrap();
    }
    assert_eq!(world.log(), ["7::ana O", "7::ana F"]);
    assert_eq!(world.outbox(&ana), ["uo t 7::ana", "uf t 7::ana"]);
}

/// RED-26
#[test]
fn a_user_beyond_the_limit_is_refused_and_leaves_no_trace() {
    let Some(mut world) = World::new(2) else { return };
    let room = topic("7:presence-room");
    let limited = |change: Change| Change { members_max: Some(2), ..change };
    for (node, who) in [(0, "ana"), (1, "bob")] {
        let change = limited(world.nodes[node].join(&room, 1, who));
        assert!(world.change(node, change).is_ok());
    }
    let before: Vec<String> = world.log();
    let change = limited(world.nodes[0].join(&room, 2, "eve"));
    assert!(world.change(0, change).is_err());
    assert_eq!((world.log(), world.total(0, &room)), (before, 2));
    assert_eq!(world.roster(1, &room).0, ["ana", "bob"]);
    let change = limited(world.nodes[0].join(&room, 2, "bob"));
    let changed = world.change(0, change).expect("bob is there already");
    assert_eq!((changed.total, changed.is_added), (3, false));
    world.run(crate::world::WITHIN);
    assert_eq!(world.nodes[0].store.state().mended, 0, "the audit agrees");
}

/// RED-25: what one call says lies in one entry of the log, each edge at a place of its own.
#[test]
fn answers_of_one_batch_show_how_things_are_after_all_of_it() {
    let Some(mut world) = World::new(1) else { return };
    let room = topic("7:presence-room");
    for (number, who) in ["ana", "bob", "eve"].into_iter().enumerate() {
        let change = Change { is_counted: true, ..world.nodes[0].join(&room, number as u32 + 1, who) };
        world.nodes[0].ask(Call::Change(change));
    }
    world.settle();
    let changed: Vec<_> = world.nodes[0]
        .told
        .iter()
        .filter_map(|told| match told {
            Told::Changed { outcome, .. } => outcome.clone().ok(),
            _ => None,
        })
        .collect();
    assert_eq!(changed.len(), 3);
    let first = changed[0].at;
    for (place, changed) in changed.iter().enumerate() {
        assert_eq!((changed.at, changed.total), (first.place(place as u64), 3));
        assert_eq!(changed.roster.as_ref().unwrap().len(), 3);
    }
    let counts: Vec<String> = world.log().into_iter().filter(|line| line.contains(" C")).collect();
    assert_eq!(counts, ["7:presence-room C3"]);
}

/// RED-26
#[test]
fn what_was_not_answered_is_said_again_and_makes_its_edge_once() {
    let Some(mut world) = World::new(1) else { return };
    let room = topic("7:presence-room");
    let now = world.now;
    for is_executed in [false, true] {
        let who = if is_executed { "ana" } else { "bob" };
        let change = world.nodes[0].join(&room, 1, who);
        world.nodes[0].ask(Call::Change(change));
        let outgoing = world.nodes[0].next(now).expect("a call");
        if is_executed {
            drop(world.nodes[0].carry(&outgoing));
        }
        world.nodes[0].lose();
        world.nodes[0].store.attached(now, 1);
        world.settle();
    }
    let added: Vec<String> = world.log().into_iter().filter(|line| line.contains(" A")).collect();
    assert_eq!(added.len(), 2, "{added:?}");
    let answers = world.nodes[0].told.iter().filter(|told| matches!(told, Told::Changed { .. })).count();
    assert_eq!(answers, 2);
}

/// RED-26: a server that hung executes what an older connection sent after what a newer one did.
#[test]
fn what_an_older_connection_said_undoes_nothing() {
    let Some(mut world) = World::new(1) else { return };
    let room = topic("7:room");
    let now = world.now;
    let change = world.nodes[0].plain(&room, 1);
    world.nodes[0].ask(Call::Change(change));
    let old = world.nodes[0].next(now).expect("a call");
    world.nodes[0].lose();
    world.nodes[0].store.attached(now, 1);
    let change = world.nodes[0].plain(&room, 2);
    assert_eq!(world.change(0, change).unwrap().total, 2);
    let replies = world.nodes[0].carry(&old);
    assert!(format!("{replies:?}").contains("STALECALL"), "{replies:?}");
    assert_eq!(world.total(0, &room), 2);
}

/// RED-12
#[test]
fn a_server_that_forgot_its_scripts_learns_them_again() {
    let Some(mut world) = World::new(1) else { return };
    let room = topic("7:presence-room");
    world.redis::<()>(&["SCRIPT", "FLUSH"]);
    let change = world.nodes[0].join(&room, 1, "ana");
    assert!(world.change(0, change).unwrap().is_added);
    world.redis::<()>(&["SCRIPT", "FLUSH"]);
    assert_eq!(world.roster(0, &room).0, ["ana"]);
    world.redis::<()>(&["SCRIPT", "FLUSH"]);
    world.run(crate::world::WITHIN);
    assert_eq!(world.log().len(), 1);
    assert!(world.nodes[0].refused.is_empty());
}

/// RED-28, RED-25
#[test]
fn a_full_server_still_takes_joins_leaves_and_leases() {
    let Some(mut world) = World::new(2) else { return };
    let room = topic("7:presence-room");
    let change = world.nodes[0].join(&room, 1, "ana");
    world.change(0, change).unwrap();
    world.redis::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    world.redis::<()>(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let refused: Result<(), _> = redis::cmd("SET").arg("x").arg("y").exec(&mut world.admin);
    assert_eq!(refused.unwrap_err().code(), Some("OOM"));
    let change = world.nodes[1].join(&room, 1, "bob");
    assert!(world.change(1, change).unwrap().is_added);
    let change = world.nodes[0].part(&room, 0, "ana");
    assert!(world.change(0, change).unwrap().is_removed);
    let lease: String = world.redis(&["HGET", "dep:nodes", "node0"]);
    world.run(std::time::Duration::from_secs(2));
    assert_ne!(world.redis::<String>(&["HGET", "dep:nodes", "node0"]), lease);
    assert_eq!(world.roster(0, &room).0, ["bob"]);
    assert!(world.nodes.iter().all(|node| node.refused.is_empty()));
}

/// RED-29
#[test]
fn listings_show_every_occupied_topic_with_its_numbers() {
    let Some(mut world) = World::new(2) else { return };
    for number in 0..200 {
        for node in 0..2 {
            let change = world.nodes[node].plain(&topic(&format!("7:room-{number}")), 2);
            world.nodes[node].ask(Call::Change(change));
        }
    }
    let room = topic("7:presence-room");
    for (node, who) in [(0, "ana"), (1, "ana"), (1, "bob")] {
        let change = world.nodes[node].join(&room, 1, who);
        world.nodes[node].ask(Call::Change(change));
    }
    let other = world.nodes[0].plain(&topic("8:room-1"), 1);
    world.change(0, other).unwrap();
    let Found::Listed(totals) = world.find(0, Find::Prefix("7:".to_owned())) else { panic!("totals") };
    assert_eq!(totals.len(), 201);
    assert!(totals.iter().filter(|total| total.topic != room).all(|total| total.subscriptions == 4));
    let of_room = Total { topic: room.clone(), subscriptions: 2, members: 2 };
    assert!(totals.contains(&of_room), "{totals:?}");
    let named = world.find(1, Find::Topics(vec![topic("7:none"), room.clone()]));
    let Found::Totals { totals: named, .. } = named else { panic!("totals") };
    assert_eq!(named, [Total { topic: topic("7:none"), subscriptions: 0, members: 0 }, of_room]);
    let Found::Roster(members) = world.find(1, Find::Members(room)) else { panic!("a roster") };
    assert_eq!(members.iter().map(|member| &member.user_id).collect::<Vec<_>>(), [&user("ana"), &user("bob")]);
}

/// RED-17
#[test]
fn the_cached_event_is_found_with_its_place_and_time() {
    let Some(mut world) = World::new(1) else { return };
    let room = topic("7:cache-room");
    let Found::Cached(None) = world.find(0, Find::Cached(room.clone())) else { panic!("nothing") };
    world.redis::<()>(&["SET", "dep:cache:7:cache-room", "17-3|Ehello", "PX", "60000"]);
    let Found::Cached(Some(kept)) = world.find(0, Find::Cached(room.clone())) else { panic!("something") };
    assert_eq!((kept.at.to_string().as_str(), &kept.message[..]), ("17-3", &b"Ehello"[..]));
    assert!((1..=60_000).contains(&kept.ttl_ms));
    let change = Change { wants_cached: true, hooks: all_hooks(), ..world.nodes[0].plain(&room, 1) };
    assert_eq!(world.change(0, change).unwrap().cached.unwrap().at, kept.at);
    assert_eq!(world.outbox(&room), ["co t 7:cache-room"]);
}

/// RED-17: what the log had before a subscription is known by identity, whatever way it comes.
#[test]
fn a_newcomer_is_told_how_far_each_live_node_has_come_in_the_log() {
    let Some(mut world) = World::new(0) else { return };
    let (ab, cd) = (0xab, 0xcd);
    [ab, cd].iter().for_each(|origin| world.add(&format!("{origin:016x}")));
    world.run(Duration::from_secs(3));
    let room = topic("7:room");
    let lane = lane_of(room.slot());
    PUBLISH.load().exec(&mut world.admin).expect("it is loaded");
    let append = |world: &mut World, origin: u64, lane: usize, (number, counter): (u64, u64)| {
        let node = &world.nodes[0];
        let mut publish = PUBLISH.call(&world.keys, &node.facts);
        publish.arg(format!("{origin:016x}.{lane}")).arg(number).arg("1").arg(1_000).arg(60_000).arg(counter);
        publish.arg(room.as_str()).arg("Esaid").arg("").exec(&mut world.admin).expect("it is appended");
    };
    append(&mut world, ab, lane, (1, 17));
    append(&mut world, ab, 1 - lane, (1, 99));
    append(&mut world, cd, lane, (1, 30));
    // One that came over from another group, and one that is another node's.
    append(&mut world, cd, lane, (2, 5));
    append(&mut world, cd, lane, (3, 0));
    append(&mut world, 0xef, lane, (1, 44));
    let first = Change { wants_logged: true, ..world.nodes[0].plain(&room, 1) };
    let mut logged = world.change(0, first).expect("it is let in").logged.to_vec();
    logged.sort_by_key(|identity| identity.origin);
    let of = |origin, counter| Identity { origin, counter };
    assert_eq!(logged, [of(ab, 17), of(cd, 30)], "of the topic's lane, and of nodes that are live");
    let second = world.nodes[0].plain(&room, 2);
    assert!(world.change(0, second).expect("it is let in").logged.is_empty(), "nobody asked");
}

/// RED-25
#[test]
fn a_message_that_no_record_belongs_to_is_logged_and_answered() {
    let Some(mut world) = World::new(1) else { return };
    let (ana, token) = (topic("7::ana"), world.nodes[0].token());
    world.nodes[0].ask(Call::Send { token, topic: ana, message: "T".into() });
    world.settle();
    assert!(world.nodes[0].told.iter().any(|told| matches!(told, Told::Sent { token: of } if *of == token)));
    assert_eq!(world.log(), ["7::ana T"]);
}
