//! Events from one client to the others, with time and many connections.

use fulmar_sim::frames::{error, error_with_code, event};
use fulmar_sim::{Pace, World};

/// WS-75: ten at once, then one each tenth of a second, over all channels together.
#[test]
fn the_rate_is_that_of_a_bucket_of_ten_refilled_in_a_second() {
    let mut world = World::new();
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    for channel in ["private-a", "private-b"] {
        world.join(ana, channel);
        world.join(bob, channel);
    }
    let send = |world: &mut World, number: usize| {
        for n in 0..number {
            let channel = if n % 2 == 0 { "private-a" } else { "private-b" };
            world.trigger(ana, channel, "client-x", "1");
        }
    };
    send(&mut world, 25);
    assert_eq!((world.forget_heard(bob), world.forget_heard(ana)), (10, 15));
    world.wait(500);
    send(&mut world, 10);
    assert_eq!((world.forget_heard(bob), world.forget_heard(ana)), (5, 5));
    world.wait(60_000);
    send(&mut world, 11);
    assert_eq!(world.forget_heard(bob), 10);
    world.expect(ana, error_with_code(4301, "Client event rejected - rate limit of 10 per second exceeded"));
    assert!(world.is_open(ana), "T-18: 4301 is never a reason to close");
}

/// WS-38, WS-75: neither pings nor refused events cost anything of the rate.
#[test]
fn only_events_that_could_be_delivered_count_against_the_rate() {
    let mut world = World::new();
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.join(ana, "private-a");
    world.join(bob, "private-a");
    for _ in 0..50 {
        world.say(ana, r#"{"event":"pusher:ping"}"#);
        world.trigger(ana, "private-b", "client-x", "1");
        world.trigger(ana, "news", "client-x", "1");
    }
    for _ in 0..10 {
        world.trigger(ana, "private-a", "client-x", "1");
    }
    assert_eq!(world.forget_heard(bob), 10);
}

/// WS-71, T-32
#[test]
fn a_client_that_has_not_been_let_in_yet_cannot_send() {
    let mut world = World::new();
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.join(bob, "private-a");
    world.set_pace(Pace::Slow);
    world.subscribe(ana, "private-a");
    world.trigger(ana, "private-a", "client-x", "1");
    let refused = "Cannot broadcast client event (connection not subscribed to channel private-a)";
    world.expect(ana, error(refused));
    world.let_all_through();
    world.forget_heard(ana);
    world.trigger(ana, "private-a", "client-x", "2");
    world.expect(bob, event("private-a", "client-x", "2"));
    world.unsubscribe(ana, "private-a");
    world.trigger(ana, "private-a", "client-x", "3");
    world.expect(ana, error(refused));
    world.expect_nothing(bob);
}

/// DEL-10, WS-69
#[test]
fn client_events_that_cross_a_slow_backbone_keep_their_order_and_never_come_back() {
    let mut world = World::new();
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.join(ana, "private-a");
    world.join(bob, "private-a");
    world.set_pace(Pace::Slow);
    for number in ["1", "2", "3"] {
        world.trigger(ana, "private-a", "client-x", number);
    }
    world.unsubscribe(ana, "private-a");
    world.subscribe(ana, "private-a");
    world.let_all_through();
    for number in ["1", "2", "3"] {
        world.expect(bob, event("private-a", "client-x", number));
    }
    assert_eq!(world.forget_heard(ana), 1, "only that it is subscribed");
}
