//! A node that goes away, and apps that change or vanish under their connections.

use fulmar_engine::Load;
use fulmar_protocol::app::App;
use fulmar_protocol::close::CloseCode;
use fulmar_sim::frames::{error, error_with_code, event, pong, subscription_error, succeeded};
use fulmar_sim::{Connection, Pace, Setup, World};

fn is_open(world: &World, connections: &[Connection]) -> usize {
    connections.iter().filter(|connection| world.is_open(**connection)).count()
}

/// WS-117, T-20
#[test]
fn a_draining_node_closes_its_connections_evenly_over_the_span() {
    let mut world = World::new();
    let connections: Vec<_> = (0..2_000).map(|_| world.connect("app-1")).collect();
    world.drain(20_000);
    assert_eq!(is_open(&world, &connections), 2_000, "nobody is closed at once");
    let mut before = 2_000;
    for tenth in 1..=10 {
        world.wait(2_000);
        let left = is_open(&world, &connections);
        let closed = before - left;
        assert!((150..250).contains(&closed), "{closed} of 2000 were closed in tenth {tenth}");
        before = left;
    }
    assert_eq!(before, 0);
    for connection in connections {
        world.expect_closed(connection, CloseCode::RECONNECT);
        world.expect_nothing(connection);
    }
    assert_eq!(world.load(), (0, 0));
}

/// DEL-20, T-20
#[test]
fn who_may_have_missed_something_comes_back_and_nobody_else() {
    let mut world = World::new();
    let concerned: Vec<_> = (0..500).map(|_| world.connect("app-1")).collect();
    let others: Vec<_> = (0..50).map(|_| world.connect("app-1")).collect();
    concerned.iter().for_each(|connection| world.join(*connection, "news"));
    others.iter().for_each(|connection| world.join(*connection, "sport"));
    world.miss("app-1", "news");
    assert_eq!(is_open(&world, &concerned), 500, "nobody is closed at once");
    let newcomer = world.connect("app-1");
    world.join(newcomer, "news");
    world.wait(5_000);
    world.miss("app-1", "nothing");
    assert!((150..350).contains(&is_open(&world, &concerned)), "{}", is_open(&world, &concerned));
    world.wait(5_000);
    for connection in concerned {
        world.expect_closed(connection, CloseCode::RECONNECT);
    }
    assert_eq!((is_open(&world, &others), world.is_open(newcomer)), (50, true));
    world.publish("app-1", "news", "e", "x");
    world.expect(newcomer, event("news", "e", "x"));
}

/// WS-118, WS-34
#[test]
fn until_it_is_closed_a_connection_of_a_draining_node_works_as_ever() {
    let mut world = World::new();
    let ana = world.connect("app-1");
    world.join(ana, "news");
    world.drain(1_000_000_000);
    world.say(ana, r#"{"event":"pusher:ping"}"#);
    world.expect(ana, pong());
    world.publish("app-1", "news", "e", "x");
    world.expect(ana, event("news", "e", "x"));
    world.join(ana, "sport");
    world.wait(120_000);
    assert!(world.is_open(ana));
}

/// WS-118, WS-10, WS-40: 4100 and not 4200, so that a balancer that lags behind causes no tight loop; and before all else.
#[test]
fn newcomers_to_a_draining_node_are_closed_with_4100() {
    let mut world = World::new();
    world.drain(1_000);
    for target in ["/app/key-1?protocol=7", "/app/no-such-key", "/elsewhere"] {
        let late = world.open(target, None);
        world.expect_closed(late, CloseCode::OVER_CAPACITY);
    }
}

/// WS-117: judged before the drain began, handed to its worker after it.
#[test]
fn a_connection_that_slips_in_as_the_drain_begins_is_closed_within_the_span_too() {
    let mut world = World::new();
    world.drain(10_000);
    world.wait(4_000);
    let late: Vec<_> = (0..200).map(|_| world.open_under("/app/key-1?protocol=7", None, Load::default())).collect();
    assert_eq!(is_open(&world, &late), 200);
    world.wait(3_000);
    let left = is_open(&world, &late);
    assert!((70..130).contains(&left), "{left} of 200 are left after half of the time");
    world.wait(3_000);
    assert_eq!(is_open(&world, &late), 0);
    assert!(late.iter().all(|connection| world.forget_heard(*connection) == 3), "established, told why, closed");
}

/// WS-13, WS-10, WS-40, T-17, T-21
#[test]
fn a_full_node_closes_newcomers_with_4100_after_every_lasting_reason() {
    let mut world = World::new();
    let ana = world.connect("app-1");
    let full = Load { overloaded: true, ..Load::default() };
    let turned_away = world.open_under("/app/key-1?protocol=7", None, full);
    world.expect_closed(turned_away, CloseCode::OVER_CAPACITY);
    let wrong = world.open_under("/app/key-1?protocol=4", None, full);
    world.expect_closed(wrong, CloseCode::UNSUPPORTED_PROTOCOL);
    world.expect_nothing(ana);
    assert!(world.is_open(ana));
}

/// NODE-11
#[test]
fn a_node_that_takes_no_connections_sends_everybody_elsewhere_and_stops_nobody() {
    let mut world = World::new();
    let load = Load { elsewhere: true, over_quota: true, ..Load::default() };
    for target in ["/app/key-1?protocol=7", "/app/key-1?protocol=4", "/app/nobody?protocol=7"] {
        let turned_away = world.open_under(target, None, load);
        world.expect_closed(turned_away, CloseCode::OVER_CAPACITY);
    }
}

/// WS-117, DEL-15
#[test]
fn a_connection_that_waits_for_the_backbone_can_be_drained_too() {
    let mut world = World::new();
    let ana = world.connect("app-1");
    world.set_pace(Pace::Slow);
    world.subscribe(ana, "news");
    world.drain(1_000);
    world.wait(1_000);
    world.expect_closed(ana, CloseCode::RECONNECT);
    world.let_all_through();
    assert_eq!((world.channels("app-1"), world.load()), (Vec::new(), (0, 0)));
}

/// WS-5
#[test]
fn the_connections_of_an_app_that_is_disabled_or_removed_are_closed_and_no_others() {
    let setup = Setup { apps: vec![App::new("1", "k1", "s"), App::new("2", "k2", "s")], ..Setup::default() };
    let mut world = World::of(setup);
    let (first, second) = (world.connect("1"), world.connect("2"));
    let disabled = App { enabled: false, ..App::clone(world.app("1")) };
    world.replace_app(disabled);
    world.expect_closed(first, CloseCode::APP_DISABLED);
    let again = world.open("/app/k1?protocol=7", None);
    world.expect_closed(again, CloseCode::APP_DISABLED);
    world.expect_nothing(second);
    world.remove_app("2");
    world.expect_closed(second, CloseCode::NO_SUCH_APP);
    let again = world.open("/app/k2?protocol=7", None);
    world.expect_closed(again, CloseCode::NO_SUCH_APP);
    assert_eq!(world.load(), (0, 0));
}

/// WS-70, WS-75, WS-44, WS-53
#[test]
fn settings_that_change_hold_for_connections_that_are_open() {
    let mut world = World::new();
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.join(ana, "private-chat");
    world.join(bob, "private-chat");
    let old_auth = world.sign(ana, "private-other", None);

    let mut app = App::clone(world.app("app-1"));
    app.limits.client_events_per_s_max = 1;
    app.limits.channel_name_max = 15;
    app.previous_secret = Some(app.secret.clone());
    app.secret = fulmar_protocol::app::Secret::new("new");
    world.replace_app(app.clone());
    world.trigger(ana, "private-chat", "client-x", "1");
    world.trigger(ana, "private-chat", "client-x", "2");
    world.expect(ana, error_with_code(4301, "Client event rejected - rate limit of 1 per second exceeded"));
    world.expect(bob, event("private-chat", "client-x", "1"));
    world.expect_nothing(bob);
    let text = "Invalid channel name: it is longer than 15 characters";
    world.subscribe(ana, "a-name-of-16-let");
    world.expect(ana, error(text));
    world.expect(ana, subscription_error("a-name-of-16-let", text));
    app.limits.channel_name_max = 164;
    app.client_events = false;
    world.replace_app(app);
    world.say(
        ana,
        &format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"private-other","auth":"{old_auth}"}}}}"#),
    );
    world.expect(ana, succeeded("private-other"));
    world.join(ana, "private-third");
    world.trigger(bob, "private-chat", "client-x", "3");
    world.expect(
        bob,
        error("To send client events, you must enable this feature in the Settings page of your dashboard."),
    );
    world.expect_nothing(ana);
}
