//! Conversations that need many connections, several workers or a look inside.

use fulmar_engine::Settings;
use fulmar_protocol::close::CloseCode;
use fulmar_sim::frames::{error, event, member_removed, pong, subscription_error, subscription_refused, succeeded};
use fulmar_sim::{Setup, World};

/// WS-138
#[test]
fn a_connection_that_comes_back_may_ask_for_all_it_had_at_once_and_then_at_a_pace() {
    let engine = Settings { channels_per_connection_max: 50, subscribes_per_s_max: 10, ..Settings::default() };
    let mut world = World::of(Setup { engine, ..Setup::default() });
    let ana = world.connect("app-1");
    (0..50).for_each(|n| world.join(ana, &format!("c{n}")));
    world.unsubscribe(ana, "c0");
    let text = "This connection subscribes more often than 10 times a second, try again";
    world.subscribe(ana, "c0");
    world.expect(ana, error(text));
    world.expect(ana, subscription_refused("c0", "LimitReached", text, 429));
    world.publish("app-1", "c0", "e", "x");
    world.expect_nothing(ana);
    world.wait(100);
    world.join(ana, "c0");
    (0..50).for_each(|n| world.unsubscribe(ana, &format!("c{n}")));
    world.expect_nothing(ana);
    assert_eq!(world.channels("app-1"), [], "leaving has no pace");
    let bob = world.connect("app-1");
    world.join(bob, "c0");
    world.wait(60_000);
    (0..50).for_each(|n| world.join(ana, &format!("d{n}")));
}

/// WS-113
#[test]
fn a_connection_has_room_for_so_many_channels_and_no_more() {
    let engine = Settings { channels_per_connection_max: 3, ..Settings::default() };
    let mut world = World::of(Setup { engine, ..Setup::default() });
    let ana = world.connect("app-1");
    for channel in ["a", "b", "c"] {
        world.join(ana, channel);
    }
    let text = "This connection has its maximum of 3 subscriptions";
    world.subscribe(ana, "d");
    world.expect(ana, error(text));
    world.expect(ana, subscription_refused("d", "LimitReached", text, 403));
    world.unsubscribe(ana, "b");
    world.join(ana, "d");
    for channel in ["a", "b", "c", "d"] {
        world.publish("app-1", channel, "e", "x");
    }
    for channel in ["a", "c", "d"] {
        world.expect(ana, event(channel, "e", "x"));
    }
    world.expect_nothing(ana);
}

/// WS-57
#[test]
fn where_they_are_switched_off_channels_are_not_told_of_refusals() {
    let engine = Settings { subscription_error_events: false, ..Settings::default() };
    let mut world = World::of(Setup { engine, ..Setup::default() });
    let ana = world.connect("app-1");
    world.say(ana, r#"{"event":"pusher:subscribe","data":{"channel":"private-a"}}"#);
    world.expect(ana, error("Auth info required to subscribe to private-a"));
    world.expect_nothing(ana);
}

/// WS-39, DEL-15, T-22
#[test]
fn whoever_goes_by_whatever_way_is_gone_from_everywhere() {
    let mut world = World::new();
    let witness = world.connect("app-1");
    world.enter(witness, "presence-room", "witness");
    let ways: [fn(&mut World, fulmar_sim::Connection); 4] = [
        |world, connection| world.leave(connection),
        |world, connection| world.evict(connection, CloseCode::OVER_CAPACITY, "too slow"),
        |world, connection| world.evict(connection, CloseCode::PROTOCOL, "a broken frame"),
        |world, connection| world.unsubscribe(connection, "presence-room"),
    ];
    for end in ways {
        let ana = world.connect("app-1");
        world.subscribe_user(ana, "presence-room", "ana");
        world.forget_heard(witness);
        end(&mut world, ana);
        world.expect(witness, member_removed("presence-room", "ana"));
        world.expect_nothing(witness);
        assert_eq!(world.users("app-1", "presence-room"), ["witness"]);
    }
    world.leave(witness);
    assert_eq!(world.channels("app-1"), []);
}

/// WS-111: the close codes of RFC 6455 come without an error frame, which speaks of 4000 and above only.
#[test]
fn an_eviction_is_told_in_an_error_frame_only_where_sdks_know_the_code() {
    let mut world = World::new();
    let (slow, broken) = (world.connect("app-1"), world.connect("app-1"));
    world.evict(slow, CloseCode::OVER_CAPACITY, "too slow");
    world.expect_closed(slow, CloseCode::OVER_CAPACITY);
    world.evict(broken, CloseCode::TOO_BIG, "too big");
    world.expect(broken, fulmar_sim::Heard::Closed(1009, "too big".to_owned()));
}

/// WS-20, WS-54, T-22
#[test]
fn a_signature_for_one_connection_is_worth_nothing_on_the_next() {
    let mut world = World::new();
    let ana = world.connect("app-1");
    let auth = world.sign(ana, "private-a", None);
    let before = world.socket_id(ana);
    world.leave(ana);
    let ana = world.connect("app-1");
    assert_ne!(world.socket_id(ana), before);
    world.say(ana, &format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"private-a","auth":"{auth}"}}}}"#));
    let (_, digest) = auth.split_once(':').expect("key and digest");
    let id = world.socket_id(ana);
    let text = format!("Invalid signature: Expected HMAC SHA256 hex digest of {id}:private-a, but got {digest}");
    world.expect(ana, error(&text));
    world.expect(ana, subscription_error("private-a", &text));
}

/// WS-31
#[test]
fn a_refused_command_does_not_disturb_those_around_it() {
    let mut world = World::new();
    let ana = world.connect("app-1");
    world.join(ana, "news");
    world.say(ana, r#"{"event":"pusher:subscribe","data":{"channel":"private-a","auth":"key-1:00"}}"#);
    world.say(ana, "nonsense");
    world.subscribe(ana, "news");
    assert_eq!(world.forget_heard(ana), 4);
    world.publish("app-1", "news", "e", "x");
    world.expect(ana, event("news", "e", "x"));
    world.say(ana, r#"{"event":"pusher:ping"}"#);
    world.expect(ana, pong());
}

/// WS-108
#[test]
fn nothing_that_is_said_breaks_a_worker() {
    let mut world = World::new();
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.join(bob, "news");
    let deep =
        format!(r#"{{"event":"client-x","channel":"private-a","data":{}1{}}}"#, "[".repeat(9_000), "]".repeat(9_000));
    let long = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{}"}}}}"#, "x".repeat(60_000));
    for text in [
        "\0",
        "{\"event\":\"pusher:subscribe\",\"data\":\"\\ud800\"}",
        "{\"event\":\"\\ud800\"}",
        "{\"event\":\"pusher:ping\",\"event\":\"pusher:pong\"}",
        "{\"event\":\"pusher:unsubscribe\",\"data\":{\"channel\":\"\\u0000\"}}",
        deep.as_str(),
        long.as_str(),
    ] {
        world.say(ana, text);
        assert!(world.is_open(ana));
        let answer = world.next_heard(ana);
        let Some(fulmar_sim::Heard::Text(answer)) = answer else { panic!("{answer:?}") };
        assert!(answer.contains("pusher:error") && answer.len() < 1_000, "{answer}");
        world.forget_heard(ana);
    }
    world.publish("app-1", "news", "e", "x");
    world.expect(bob, event("news", "e", "x"));
}

/// WS-21, WS-67
#[test]
fn a_connection_can_be_excluded_as_soon_as_it_knows_its_id() {
    let mut world = World::of(Setup { workers: 1, ..Setup::default() });
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.join(bob, "news");
    world.subscribe(ana, "news");
    world.publish_except("app-1", &["news"], "e", "x", Some(ana));
    world.expect(ana, succeeded("news"));
    world.expect_nothing(ana);
    world.expect(bob, event("news", "e", "x"));
}
