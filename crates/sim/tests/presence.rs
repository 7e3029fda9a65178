//! Who is there, with many users, many connections and a backbone that takes its time.

use fulmar_sim::frames::{error, event, event_from, member_added, member_removed, roster, subscription_refused};
use fulmar_sim::{Pace, Setup, World};

/// WS-86: the limit counts users, not connections.
#[test]
fn the_hundredth_user_has_room_and_the_next_has_not() {
    let mut world = World::new();
    let users: Vec<_> = (0..100).map(|n| format!("u{n}")).collect();
    for user in &users {
        let connection = world.connect("app-1");
        world.enter(connection, "presence-room", user);
    }
    let late = world.connect("app-1");
    world.subscribe_user(late, "presence-room", "late");
    let text = "Presence channel presence-room is full: it may have 100 members";
    world.expect(late, error(text));
    world.expect(late, subscription_refused("presence-room", "LimitReached", text, 403));
    world.subscribe_user(late, "presence-room", "u7");
    let everybody: Vec<_> = users.iter().map(|user| (user.as_str(), "null")).collect();
    world.expect(late, roster("presence-room", &everybody));
    assert_eq!(world.channels("app-1"), [("presence-room".to_owned(), 101, 100)]);
}

/// WS-86, WS-64, WS-57
#[test]
fn a_refusal_that_comes_late_leaves_the_connection_and_the_roster_as_they_were() {
    let mut world = World::with_app(|app| app.limits.presence_members_max = 1);
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.enter(ana, "presence-room", "ana");
    world.set_pace(Pace::Slow);
    world.subscribe_user(bob, "presence-room", "bob");
    world.let_all_through();
    let text = "Presence channel presence-room is full: it may have 1 members";
    world.expect(bob, error(text));
    world.expect(bob, subscription_refused("presence-room", "LimitReached", text, 403));
    world.publish("app-1", "presence-room", "e", "x");
    world.expect(ana, event("presence-room", "e", "x"));
    world.expect_nothing(bob);
    world.leave(ana);
    world.subscribe_user(bob, "presence-room", "bob");
    world.expect(bob, roster("presence-room", &[("bob", "null")]));
}

/// WS-82, WS-83, WS-84, DEL-4, T-25, T-26: on one worker and on several.
#[test]
fn users_come_and_go_once_however_many_connections_they_have() {
    for workers in [1, 3] {
        let mut world = World::of(Setup { workers, ..Setup::default() });
        let witness = world.connect("app-1");
        world.enter(witness, "presence-room", "witness");
        let connections: Vec<_> = (0..5).map(|_| world.connect("app-1")).collect();
        for connection in &connections {
            world.enter(*connection, "presence-room", "ana");
        }
        world.expect(witness, member_added("presence-room", "ana"));
        for connection in connections {
            world.expect_nothing(connection);
            world.expect_nothing(witness);
            world.leave(connection);
        }
        world.expect(witness, member_removed("presence-room", "ana"));
        world.expect_nothing(witness);
    }
}

/// WS-81, WS-80
#[test]
fn the_info_of_the_first_connection_stands_until_the_user_has_left() {
    let mut world = World::new();
    let (first, second, third) = (world.connect("app-1"), world.connect("app-1"), world.connect("app-1"));
    world.subscribe_as(first, "presence-room", r#"{"user_id":1,"user_info":{"a": 1}}"#);
    world.expect(first, roster("presence-room", &[("1", r#"{"a": 1}"#)]));
    world.subscribe_as(second, "presence-room", r#"{"user_id":"1","user_info":{"a":2}}"#);
    world.expect(second, roster("presence-room", &[("1", r#"{"a": 1}"#)]));
    world.leave(first);
    world.subscribe_as(third, "presence-room", r#"{"user_id":1}"#);
    world.expect(third, roster("presence-room", &[("1", r#"{"a": 1}"#)]));
    world.leave(second);
    world.leave(third);
    let again = world.connect("app-1");
    world.subscribe_as(again, "presence-room", r#"{"user_id":1}"#);
    world.expect(again, roster("presence-room", &[("1", "null")]));
}

/// WS-85, DEL-4
#[test]
fn a_user_who_leaves_and_returns_in_one_breath_is_removed_and_added_for_everybody_in_that_order() {
    let mut world = World::of(Setup { workers: 3, ..Setup::default() });
    let (ana, bob, cid) = (world.connect("app-1"), world.connect("app-1"), world.connect("app-1"));
    for (connection, user) in [(ana, "ana"), (bob, "bob"), (cid, "cid")] {
        world.enter(connection, "presence-room", user);
    }
    for connection in [ana, bob, cid] {
        world.forget_heard(connection);
    }
    world.deliver_by_hand(true);
    for _ in 0..3 {
        world.unsubscribe(ana, "presence-room");
        world.subscribe_user(ana, "presence-room", "ana");
        world.expect(ana, roster("presence-room", &[("bob", "null"), ("cid", "null"), ("ana", "null")]));
    }
    world.deliver_by_hand(false);
    for connection in [bob, cid] {
        for _ in 0..3 {
            world.expect(connection, member_removed("presence-room", "ana"));
            world.expect(connection, member_added("presence-room", "ana"));
        }
        world.expect_nothing(connection);
    }
    world.expect_nothing(ana);
}

/// WS-74, T-8, T-13
#[test]
fn a_client_event_says_as_whom_its_sender_is_on_that_channel() {
    let mut world = World::new();
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.enter(bob, "presence-room", "bob");
    world.enter(bob, "presence-hall", "bob");
    world.enter(ana, "presence-room", "ana");
    world.subscribe_as(ana, "presence-hall", r#"{"user_id":5}"#);
    world.forget_heard(bob);
    world.trigger(ana, "presence-room", "client-x", r#"{"user_id":"bob"}"#);
    world.trigger(ana, "presence-hall", "client-x", "5");
    world.expect(bob, event_from("ana", "presence-room", "client-x", r#"{"user_id":"bob"}"#));
    world.expect(bob, event_from("5", "presence-hall", "client-x", "5"));
}
