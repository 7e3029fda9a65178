//! Who receives what, and in which order, also when the backbone takes its time.

use fulmar_backbone::PublishError;
use fulmar_protocol::close::CloseCode;
use fulmar_sim::frames::{cache_miss, event, member_added, member_removed, roster, succeeded};
use fulmar_sim::{Heard, Pace, Setup, World};

/// Deliveries that the engine holds for a subscription in progress.
const HELD_DELIVERIES_MAX: usize = 1_024;

/// WS-49, DEL-3
#[test]
fn what_is_published_while_the_backbone_answers_comes_after_the_confirmation_once_and_in_order() {
    let mut world = World::new();
    let ana = world.connect("app-1");
    world.set_pace(Pace::SlowToAnswer);
    world.subscribe(ana, "news");
    for data in ["1", "2", "3"] {
        world.publish("app-1", "news", "e", data);
    }
    world.expect_nothing(ana);
    world.let_all_through();
    world.expect(ana, succeeded("news"));
    for data in ["1", "2", "3"] {
        world.expect(ana, event("news", "e", data));
    }
    world.publish("app-1", "news", "e", "4");
    world.expect(ana, event("news", "e", "4"));
    world.expect_nothing(ana);
}

/// DEL-3
#[test]
fn what_was_published_before_the_backbone_heard_of_the_subscription_is_not_for_it() {
    let mut world = World::new();
    // Both on one worker: the first subscription makes the worker hear the channel.
    let (ana, _, bob) = (world.connect("app-1"), world.connect("app-1"), world.connect("app-1"));
    world.join(ana, "news");
    world.set_pace(Pace::Slow);
    world.subscribe(bob, "news");
    world.publish("app-1", "news", "e", "before");
    world.let_hear(0);
    world.publish("app-1", "news", "e", "after");
    world.let_answer(0);
    world.expect(bob, succeeded("news"));
    world.expect(bob, event("news", "e", "after"));
    world.expect(ana, event("news", "e", "before"));
    world.expect(ana, event("news", "e", "after"));
    world.expect_nothing(bob);
}

/// DEL-3: the inbox may be behind the answer as well as ahead of it.
#[test]
fn a_delivery_that_arrives_late_is_not_heard_by_a_subscription_that_began_after_it() {
    let mut world = World::of(Setup { workers: 1, ..Setup::default() });
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.join(ana, "news");
    world.deliver_by_hand(true);
    world.publish("app-1", "news", "e", "before");
    world.join(bob, "news");
    world.publish("app-1", "news", "e", "after");
    world.deliver_by_hand(false);
    world.expect(ana, event("news", "e", "before"));
    world.expect(ana, event("news", "e", "after"));
    world.expect(bob, event("news", "e", "after"));
    world.expect_nothing(bob);
}

/// DEL-5, WS-92
#[test]
fn a_publish_that_races_with_a_subscribe_to_a_cache_channel_arrives_once() {
    for pace in [Pace::Prompt, Pace::SlowToAnswer, Pace::SlowToHear, Pace::Slow] {
        for published_at in 0..4 {
            let mut world = World::new();
            let ana = world.connect("app-1");
            world.publish("app-1", "cache-news", "e", "old");
            world.set_pace(pace);
            let publish_at = |world: &mut World, at: i32| {
                if at == published_at {
                    world.publish("app-1", "cache-news", "e", "new");
                }
            };
            publish_at(&mut world, 0);
            world.subscribe(ana, "cache-news");
            publish_at(&mut world, 1);
            if world.held_back().0 > 0 {
                world.let_hear(0);
            }
            publish_at(&mut world, 2);
            world.let_all_through();
            publish_at(&mut world, 3);
            world.expect(ana, succeeded("cache-news"));
            let first = world.next_heard(ana);
            if first == Some(event("cache-news", "e", "old")) {
                world.expect(ana, event("cache-news", "e", "new"));
            } else {
                assert_eq!(first, Some(event("cache-news", "e", "new")), "{pace:?}, {published_at}");
            }
            world.expect_nothing(ana);
        }
    }
}

/// WS-31, WS-62, DEL-15
#[test]
fn a_subscription_given_up_before_its_answer_is_taken_back_when_the_answer_comes() {
    let mut world = World::new();
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.enter(bob, "presence-room", "bob");
    world.set_pace(Pace::Slow);
    world.subscribe_user(ana, "presence-room", "ana");
    world.subscribe(ana, "news");
    world.unsubscribe(ana, "presence-room");
    world.unsubscribe(ana, "news");
    world.let_all_through();
    world.expect_nothing(ana);
    world.expect(bob, member_added("presence-room", "ana"));
    world.expect(bob, member_removed("presence-room", "ana"));
    assert_eq!(world.channels("app-1"), [("presence-room".to_owned(), 1, 1)]);
    assert_eq!(world.backbone_figures().leaves_ignored, 0);
    assert_eq!(world.load(), (2, 1));
}

/// WS-62
#[test]
fn a_subscription_given_up_and_made_again_before_the_answer_stands_once() {
    let mut world = World::new();
    let ana = world.connect("app-1");
    world.set_pace(Pace::SlowToAnswer);
    world.subscribe_user(ana, "presence-room", "ana");
    world.unsubscribe(ana, "presence-room");
    world.subscribe_user(ana, "presence-room", "ana");
    world.publish("app-1", "presence-room", "e", "x");
    world.let_all_through();
    world.expect(ana, roster("presence-room", &[("ana", "null")]));
    world.expect(ana, event("presence-room", "e", "x"));
    world.expect_nothing(ana);
    assert_eq!(world.channels("app-1"), [("presence-room".to_owned(), 1, 1)]);
    world.leave(ana);
    assert_eq!((world.channels("app-1"), world.load()), (Vec::new(), (0, 0)));
}

/// WS-59
#[test]
fn a_second_subscribe_is_refused_also_while_the_first_is_in_progress() {
    let mut world = World::new();
    let ana = world.connect("app-1");
    world.set_pace(Pace::Slow);
    world.subscribe(ana, "news");
    world.subscribe(ana, "news");
    world.expect(ana, fulmar_sim::frames::error("Existing subscription to channel news"));
    world.let_all_through();
    world.expect(ana, succeeded("news"));
    world.publish("app-1", "news", "e", "once");
    world.expect(ana, event("news", "e", "once"));
    world.expect_nothing(ana);
}

/// WS-39, DEL-15
#[test]
fn a_connection_that_ends_before_its_answer_leaves_nothing_behind() {
    for pace in [Pace::SlowToAnswer, Pace::SlowToHear, Pace::Slow] {
        let mut world = World::new();
        let ana = world.connect("app-1");
        world.set_pace(pace);
        world.subscribe(ana, "news");
        world.subscribe_user(ana, "presence-room", "ana");
        world.leave(ana);
        // Its key goes to the next connection, which must not inherit anything.
        let bob = world.connect("app-1");
        let cid = world.connect("app-1");
        world.let_all_through();
        world.publish("app-1", "news", "e", "x");
        world.expect_nothing(bob);
        world.expect_nothing(cid);
        assert_eq!((world.channels("app-1"), world.load()), (Vec::new(), (2, 0)), "{pace:?}");
    }
}

/// DEL-7: more than can be held for a subscription in progress ends its connection; nothing is skipped in silence.
#[test]
fn too_much_to_hold_for_a_subscription_in_progress_closes_its_connection_with_4200() {
    let mut world = World::of(Setup { workers: 1, ..Setup::default() });
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.join(bob, "news");
    world.set_pace(Pace::SlowToAnswer);
    world.subscribe(ana, "news");
    for number in 0..HELD_DELIVERIES_MAX {
        world.publish("app-1", "news", "e", &number.to_string());
    }
    world.expect_nothing(ana);
    world.publish("app-1", "news", "e", "one too many");
    world.expect_closed(ana, CloseCode::RECONNECT);
    assert_eq!(world.forget_heard(bob), HELD_DELIVERIES_MAX + 1);
    world.let_all_through();
    assert_eq!(world.channels("app-1"), [("news".to_owned(), 1, 0)]);
}

/// DEL-7
#[test]
fn as_much_as_can_be_held_is_delivered_in_full() {
    let mut world = World::new();
    let ana = world.connect("app-1");
    world.set_pace(Pace::SlowToAnswer);
    world.subscribe(ana, "news");
    for number in 0..HELD_DELIVERIES_MAX {
        world.publish("app-1", "news", "e", &number.to_string());
    }
    world.let_all_through();
    world.expect(ana, succeeded("news"));
    for number in 0..HELD_DELIVERIES_MAX {
        world.expect(ana, event("news", "e", &number.to_string()));
    }
    world.expect_nothing(ana);
}

/// WS-67: the exclusion holds for what is held back, too.
#[test]
fn a_held_delivery_is_not_given_to_the_connection_it_excludes() {
    let mut world = World::new();
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.set_pace(Pace::SlowToAnswer);
    world.subscribe(ana, "news");
    world.subscribe(bob, "news");
    world.publish_except("app-1", &["news"], "e", "x", Some(ana));
    world.let_all_through();
    world.expect(ana, succeeded("news"));
    world.expect_nothing(ana);
    world.expect(bob, succeeded("news"));
    world.expect(bob, event("news", "e", "x"));
}

/// WS-64, DEL-8
#[test]
fn members_who_come_and_go_while_the_answer_is_on_its_way_add_up_to_the_snapshot() {
    let mut world = World::new();
    let (ana, bob, cid) = (world.connect("app-1"), world.connect("app-1"), world.connect("app-1"));
    world.enter(bob, "presence-room", "bob");
    world.set_pace(Pace::SlowToAnswer);
    world.subscribe_user(ana, "presence-room", "ana");
    world.subscribe_user(cid, "presence-room", "cid");
    world.unsubscribe(bob, "presence-room");
    world.let_all_through();
    world.expect(ana, roster("presence-room", &[("bob", "null"), ("ana", "null")]));
    world.expect(ana, member_added("presence-room", "cid"));
    world.expect(ana, member_removed("presence-room", "bob"));
    world.expect_nothing(ana);
    world.expect(cid, roster("presence-room", &[("bob", "null"), ("ana", "null"), ("cid", "null")]));
    world.expect(cid, member_removed("presence-room", "bob"));
    world.expect_nothing(cid);
}

/// DEL-8, DEL-9
#[test]
fn a_publish_that_a_full_worker_cannot_take_is_refused_as_a_whole_and_reaches_nobody() {
    let mut world = World::of(Setup { inbox_deliveries_max: 2, ..Setup::default() });
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.join(ana, "news");
    world.join(bob, "sport");
    world.deliver_by_hand(true);
    world.publish("app-1", "news", "e", "1");
    world.publish("app-1", "news", "e", "2");
    let refused = world.try_publish("app-1", &["sport", "news"], "e", "3", None);
    assert_eq!(refused, Err(PublishError::NotAccepted));
    world.publish("app-1", "sport", "e", "4");
    world.deliver_by_hand(false);
    world.expect(ana, event("news", "e", "1"));
    world.expect(ana, event("news", "e", "2"));
    world.expect_nothing(ana);
    world.expect(bob, event("sport", "e", "4"));
    world.expect_nothing(bob);
    world.publish("app-1", "news", "e", "5");
    world.expect(ana, event("news", "e", "5"));
}

/// DEL-2
#[test]
fn publishes_and_client_events_have_one_order_for_everybody() {
    let mut world = World::of(Setup { workers: 3, ..Setup::default() });
    let all: Vec<_> = (0..6).map(|_| world.connect("app-1")).collect();
    for connection in &all {
        world.join(*connection, "private-chat");
    }
    world.deliver_by_hand(true);
    for round in 0..20_usize {
        world.trigger(all[round % 2], "private-chat", "client-x", &format!("{}", 2 * round));
        world.publish("app-1", "private-chat", "e", &format!("{}", 2 * round + 1));
    }
    world.deliver_by_hand(false);
    let number = |heard: &Heard| match heard {
        Heard::Text(text) => {
            let message: serde_json::Value = serde_json::from_str(text).expect("messages are JSON");
            message["data"].as_str().and_then(|data| data.parse::<u32>().ok())
        }
        _ => None,
    };
    for (index, connection) in all.iter().enumerate() {
        let heard: Vec<_> = std::iter::from_fn(|| world.next_heard(*connection)).collect();
        let numbers: Vec<_> = heard.iter().filter_map(number).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        // Ten client events each were allowed, of which the sender hears none.
        assert_eq!(numbers.len(), if index < 2 { 30 } else { 40 });
    }
}

/// DEL-6
#[test]
fn a_call_for_several_channels_is_accepted_as_a_whole() {
    let mut world = World::new();
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.join(ana, "news");
    world.join(bob, "sport");
    world.publish_except("app-1", &["news", "sport", "nobody"], "e", "x", None);
    world.expect(ana, event("news", "e", "x"));
    world.expect(bob, event("sport", "e", "x"));
}

/// DEL-12
#[test]
fn nothing_is_replayed_but_the_cached_event() {
    let mut world = World::new();
    for channel in ["news", "private-a", "presence-a", "cache-a"] {
        world.publish("app-1", channel, "e", "old");
    }
    let ana = world.connect("app-1");
    world.join(ana, "news");
    world.join(ana, "private-a");
    world.subscribe_user(ana, "presence-a", "ana");
    world.expect(ana, roster("presence-a", &[("ana", "null")]));
    world.join(ana, "cache-a");
    world.expect(ana, event("cache-a", "e", "old"));
    world.join(ana, "cache-b");
    world.expect(ana, cache_miss("cache-b"));
    world.expect_nothing(ana);
}
