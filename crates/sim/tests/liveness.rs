//! Silence, pings and the end of a connection that does not answer.

use fulmar_engine::Settings;
use fulmar_protocol::close::CloseCode;
use fulmar_sim::frames::{member_removed, ping, pong};
use fulmar_sim::{Setup, World};

const ACTIVITY_TIMEOUT_MS: u64 = 120_000;
const PONG_TIMEOUT_MS: u64 = 30_000;

/// WS-36
#[test]
fn a_silent_client_is_pinged_once_and_then_closed_with_4201() {
    let mut world = World::new();
    let ana = world.connect("app-1");
    world.wait(ACTIVITY_TIMEOUT_MS - 1);
    world.expect_nothing(ana);
    world.wait(1);
    world.expect(ana, ping());
    world.wait(PONG_TIMEOUT_MS - 1);
    world.expect_nothing(ana);
    world.wait(1);
    world.expect_closed(ana, CloseCode::PONG_MISSED);
    assert_eq!(world.pongs_missed(), 1);
    world.wait(10 * ACTIVITY_TIMEOUT_MS);
    world.expect_nothing(ana);
}

/// WS-35, WS-37, T-14: Java, Swift and .NET answer the RFC 6455 ping and never a `pusher:ping`.
#[test]
fn a_client_that_answers_with_control_frames_alone_is_never_closed() {
    let mut world = World::new();
    let swift = world.connect("app-1");
    for _ in 0..20 {
        world.wait(ACTIVITY_TIMEOUT_MS);
        world.expect(swift, ping());
        world.wait(PONG_TIMEOUT_MS - 1);
        world.send_control_frame(swift);
    }
    world.expect_nothing(swift);
    assert!(world.is_open(swift));
}

/// WS-35
#[test]
fn any_frame_starts_the_silence_anew() {
    let mut world = World::new();
    let ana = world.connect("app-1");
    for message in ["nonsense", r#"{"event":"pusher:pong"}"#, r#"{"event":"hello"}"#] {
        world.wait(ACTIVITY_TIMEOUT_MS - 1);
        world.say(ana, message);
        world.forget_heard(ana);
    }
    world.wait(ACTIVITY_TIMEOUT_MS - 1);
    world.expect_nothing(ana);
    world.wait(1);
    world.expect(ana, ping());
    world.wait(PONG_TIMEOUT_MS - 1);
    world.say(ana, r#"{"event":"pusher:ping"}"#);
    world.expect(ana, pong());
    world.wait(ACTIVITY_TIMEOUT_MS - 1);
    world.expect_nothing(ana);
    world.wait(1);
    world.expect(ana, ping());
}

/// WS-35: what is sent to a client proves nothing about it.
#[test]
fn what_a_client_is_sent_does_not_keep_it_alive() {
    let mut world = World::new();
    let ana = world.connect("app-1");
    world.join(ana, "news");
    for _ in 0..15 {
        world.wait(10_000);
        if world.is_open(ana) {
            world.publish("app-1", "news", "e", "x");
        }
    }
    assert!(!world.is_open(ana));
}

/// WS-22, WS-36
#[test]
fn the_configured_timeouts_are_told_and_kept() {
    let engine = Settings { activity_timeout_ms: 30_000, pong_timeout_ms: 5_000, ..Settings::default() };
    let mut world = World::of(Setup { engine, ..Setup::default() });
    // `connect` expects the timeout in the first frame.
    let ana = world.connect("app-1");
    world.wait(30_000);
    world.expect(ana, ping());
    world.wait(5_000);
    world.expect_closed(ana, CloseCode::PONG_MISSED);
}

/// WS-39, WS-83, T-27
#[test]
fn a_connection_that_is_found_dead_leaves_its_channels_like_any_other() {
    let mut world = World::new();
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.enter(ana, "presence-room", "ana");
    world.enter(bob, "presence-room", "bob");
    world.forget_heard(ana);
    world.wait(ACTIVITY_TIMEOUT_MS / 2);
    world.send_control_frame(bob);
    world.wait(ACTIVITY_TIMEOUT_MS / 2 + PONG_TIMEOUT_MS);
    world.expect(ana, ping());
    world.expect_closed(ana, CloseCode::PONG_MISSED);
    world.expect(bob, member_removed("presence-room", "ana"));
    assert_eq!(world.users("app-1", "presence-room"), ["bob"]);
}

/// WS-38, T-15: .NET sends one control frame per second, all day.
#[test]
fn a_control_frame_each_second_is_no_trouble() {
    let mut world = World::new();
    let net = world.connect_as("app-1", "pusher-dotnet-client");
    for _ in 0..3_600 {
        world.wait(1_000);
        world.send_control_frame(net);
        world.say(net, r#"{"event":"pusher:ping"}"#);
        world.expect(net, pong());
    }
    world.expect_nothing(net);
}
