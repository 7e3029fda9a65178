//! Slots move between groups under load, and nobody notices: on real servers, with movers that die.

mod primaries;
mod world;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use fulmar_backbone::redis::RedisBackbone;
use fulmar_backbone::redis::reshard::{Mover, ReshardError};
use fulmar_backbone::redis::settings::Topology;
use fulmar_backbone::redis::topic::Slot;
use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::Answer;

use self::world::{GROUPS, World, name, names, settings, slot_of, topic_of};

/// RED-11
#[test]
fn slots_move_to_a_third_group_and_back_under_load_and_nobody_notices() {
    let Some(mut world) = World::start() else { return };
    (0..8).for_each(|channel| world.keep(0, &format!("cache-{channel}"), &format!("kept {channel}")));
    world.begin();
    let began = Instant::now();
    world.apply(&["g1", "g2", "g3"], None).expect("it is done");
    eprintln!("two groups to three in {:?}", began.elapsed());
    let sight = world.primary("g3").call(&["HGET", "reshard:group", "doubts"]).expect("it is there");
    assert!(sight.text().parse::<u64>().is_ok(), "what was told is compared with what has come (HOOK-41)");
    assert!(world.nodes[0].figures().groups.iter().any(|group| group.name == "g3"));
    for channel in 0..8 {
        let Answer::Joined { cached: Some(frame), .. } = world.join(1, &format!("cache-{channel}"), None) else {
            panic!("the event of cache-{channel} was left behind")
        };
        assert_eq!(frame.text(), format!("kept {channel}"));
    }
    world.apply(&["g1", "g2"], None).expect("it is done");
    let is_left = |node: &RedisBackbone| node.figures().groups.iter().any(|group| group.name == "g3" && group.is_left);
    world.eventually("g3 is left", |world| world.nodes.iter().all(|node| is_left(node)));
    world.judge();
}

/// RED-11
#[test]
fn a_mover_that_dies_at_any_step_is_gone_on_with() {
    let Some(mut world) = World::start() else { return };
    world.begin();
    let steps = ["begun", "listened to twice", "frozen", "filled", "opened", "moved", "arrived", "listened to once"];
    for (number, step) in steps.into_iter().enumerate() {
        let groups: &[&str] = if number % 2 == 0 { &["g1", "g2", "g3"] } else { &["g1", "g2"] };
        let died = world.apply(groups, Some(step));
        assert!(matches!(died, Err(ReshardError::Stopped)), "{step}: {died:?}");
        let began = Instant::now();
        let resumed = world.resume();
        eprintln!("{step}: gone on with in {:?}", began.elapsed());
        match resumed {
            Ok(()) => {}
            Err(ReshardError::Nothing) if step == "listened to once" => {}
            other => panic!("{step}: {other:?}"),
        }
    }
    world.judge();
}

/// RED-11
#[test]
fn a_move_is_undone_until_the_first_slot_has_arrived() {
    let Some(mut world) = World::start() else { return };
    world.begin();
    // Of a slot that is among the first to go, as it must be shown to be.
    let moves = world.plan(&GROUPS).moves;
    let of_pair = moves.iter().filter(|of| (&of.from, &of.to) == (&moves[0].from, &moves[0].to));
    let slot = of_pair.map(|of| of.slot).min_by_key(|slot| (Slot(*slot).outbox_part(), *slot)).expect("some move");
    let mut names = (0..).map(|number| format!("cache-of-{number}")).filter(|name| slot_of(name) == slot);
    let (kept, old) = (names.next().expect("there are enough numbers"), names.next().expect("there are more"));
    let target = world.primary(&moves[0].to);
    let is_filled = || target.call(&["EXISTS", &format!("reshard:filled:{slot}")]).expect("it is there").number();
    for step in ["begun", "frozen", "filled"] {
        world.keep(0, &kept, &format!("kept before {step}"));
        assert!(matches!(world.apply(&["g1", "g2", "g3"], Some(step)), Err(ReshardError::Stopped)));
        assert!(matches!(world.apply(&["g1", "g2", "g3"], None), Err(ReshardError::UnderWay(_))));
        assert_eq!(is_filled(), Some(i64::from(step == "filled")), "{step}");
        world.abort().expect("nothing has arrived");
        assert_eq!(is_filled(), Some(0), "{step}");
        assert!(matches!(world.abort(), Err(ReshardError::Nothing)));
    }
    world.keep(0, &kept, "kept since");
    // As if the slot had been here before, and a primary had died when that was taken away.
    let [kept_key, old_key] = [&kept, &old].map(|of| format!("reshard:cache:{}", topic_of(of).as_str()));
    for key in [&kept_key, &old_key] {
        target.call(&["SET", key, "old", "PX", "300000"]).expect("it is there");
    }
    assert!(matches!(world.apply(&["g1", "g2", "g3"], Some("moved")), Err(ReshardError::Stopped)));
    assert!(matches!(world.abort(), Err(ReshardError::TooLate { arrived, .. }) if arrived > 0));
    world.resume().expect("it is gone on with");
    assert_eq!((world.cached(1, &kept).as_deref(), is_filled()), (Some("kept since"), Some(0)));
    let is_old_there = target.call(&["EXISTS", &old_key]).expect("it is there").number();
    assert_eq!(is_old_there, Some(0), "the group before had nothing");
    world.judge();
}

/// RED-11: a log that is read again after its slots have gone says who came and went before that.
#[test]
fn what_the_group_before_says_again_of_a_slot_that_has_gone_tells_nobody_of_comings_and_goings() {
    let Some(mut world) = World::start() else { return };
    world.begin();
    let moves = world.plan(&GROUPS).moves;
    let of = |channel: &str| moves.iter().find(|of| of.slot == slot_of(channel));
    let room =
        (0..).map(|number| format!("presence-left-{number}")).find(|room| of(room).is_some()).expect("one moves");
    let source = world.primary(&of(&room).expect("it moves").from);
    world.join(0, &room, Some("stays"));
    world.join(1, &room, Some("goes"));
    world.leave(1, &room, "goes");
    world.eventually("the other heard of both", |world| world.edges(0, &room, "goes") == (1, 1));
    let topic = topic_of(&room);
    let said = source.call(&["XREVRANGE", "reshard:log", "+", "-"]).expect("it is there");
    let coming = said.list().iter().find_map(|entry| {
        let [id, fields] = entry.list() else { return None };
        let mut said = fields.list().chunks_exact(2).filter(|said| said[0].text() == topic.as_str());
        let coming = said.find(|said| said[1].text().starts_with('A') && said[1].text().contains("goes"))?;
        Some(format!("{}.0|{}", id.text(), coming[1].text()))
    });
    let coming = coming.expect("it is in the log");
    let channel = format!("reshard:t:{}", topic.as_str());
    let mut heard = 0;
    world
        .apply_and(&GROUPS, |progress| {
            // Everybody goes by what has moved, and still listens on both sides.
            if progress.what == "arrived" {
                let (app, room) = (AppId::new("app"), name(&room));
                let is_moved = |world: &World| world.nodes.iter().all(|node| node.group_of(&app, &room) == 2);
                world.eventually("both nodes know", is_moved);
                heard = source.call(&["PUBLISH", &channel, &coming]).expect("it is there").number().unwrap_or(0);
            }
        })
        .expect("it is done");
    assert_eq!(heard, 2, "both nodes listened there");
    world.await_rounds(1);
    assert_eq!(world.edges(0, &room, "goes"), (1, 1));
    world.judge();
}

/// RED-11
#[test]
fn while_a_dead_mover_has_left_slots_to_nobody_they_are_published_to_over_the_bus() {
    let Some(mut world) = World::start() else { return };
    world.begin();
    assert!(matches!(world.apply(&["g1", "g2", "g3"], Some("frozen")), Err(ReshardError::Stopped)));
    world.await_rounds(2);
    world.resume().expect("it is gone on with");
    world.judge();
}

/// RED-10, RED-11
#[test]
fn a_node_that_is_configured_with_other_groups_goes_by_the_map_and_two_do_not_move_at_once() {
    let Some(mut world) = World::start() else { return };
    world.begin();
    world.apply(&["g1", "g2", "g3"], None).expect("it is done");
    // It knows of g3 from the map alone; the first map of its own groups would be wrong for a third of the slots.
    world.add_node(&["g1", "g2"]);
    world.eventually("the new node is there", |world| world.nodes.iter().all(|node| node.leases().len() == 3));
    let began = Instant::now();
    world.join(2, "c7", None);
    assert!(began.elapsed() < Duration::from_secs(1));
    let primary = &world.servers.group("g1").expect("a group").servers[0].redis;
    primary.call(&["SET", "reshard:mover", "somebody", "PX", "60000"]).expect("it is there");
    assert!(matches!(world.apply(&["g1", "g2"], None), Err(ReshardError::Busy(_))));
    primary.call(&["DEL", "reshard:mover"]).expect("it is there");
    world.nodes[2].stop();
    world.nodes.truncate(2);
    world.judge();
}

/// RED-10
#[test]
fn a_group_that_has_lost_everything_is_told_by_nodes_what_it_said_of_its_slots() {
    let Some(mut world) = World::start() else { return };
    world.begin();
    world.apply(&["g1", "g2", "g3"], None).expect("it is done");
    for group in ["g1", "g3"] {
        let before = world.said(group);
        assert!(before.0.starts_with("version 3\n") && !before.1.is_empty(), "{before:?}");
        world.servers.group(group).expect("a group").servers[0].redis.call(&["FLUSHALL"]).expect("it is there");
        world.eventually("the map is there again", |world| world.said(group).0 == before.0);
        world.eventually("it knows its slots", |world| {
            let after = world.said(group).1;
            before.1.iter().all(|(slot, said)| after.get(slot) == Some(said))
        });
    }
    world.apply(&["g1", "g2"], None).expect("it is done");
    world.judge();
}

/// RED-11
#[test]
fn slots_of_a_single_server_and_of_redis_cluster_are_not_moved_and_it_is_said_why() {
    let single = settings(Topology::Single("127.0.0.1:1".to_owned()));
    let redis_cluster = settings(Topology::RedisCluster { seeds: names(&["127.0.0.1:1"]), shares: 8 });
    for (settings, expected) in [(single, "nowhere to move"), (redis_cluster, "redis-cli --cluster")] {
        let refused = Mover::new(&settings, &mut |_| ControlFlow::Continue(())).err().expect("it is refused");
        assert!(refused.to_string().contains(expected), "{refused}");
    }
}
