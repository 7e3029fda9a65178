//! Users: who they are, who hears of them, and how they are ended; with a backbone that takes its time.

use fulmar_protocol::close::CloseCode;
use fulmar_sim::frames::{
    error, error_with_code, event, member_added, roster, signed_in, subscription_error, succeeded, watched,
};
use fulmar_sim::{Connection, Pace, Setup, World};

const ANA: &str = r#"{"id":"ana","user_info":{"name": "Ana"},"role":[1]}"#;

/// Signs in and takes the confirmation.
#[track_caller]
fn sign_in(world: &mut World, connection: Connection, user_data: &str) {
    world.sign_in(connection, user_data);
    world.expect(connection, signed_in(user_data));
}

/// WS-125, WS-127: `user_data` comes back as the text it was.
#[test]
fn a_connection_is_one_user_until_it_ends() {
    let mut world = World::new();
    let connection = world.connect("app-1");
    sign_in(&mut world, connection, ANA);
    sign_in(&mut world, connection, ANA);
    sign_in(&mut world, connection, r#"{"id":"ana"}"#);
    world.sign_in(connection, r#"{"id":"bob"}"#);
    world.expect(connection, error("This connection is signed in as another user already"));
    world.subscribe(connection, "#server-to-user-ana");
    world.expect(connection, succeeded("#server-to-user-ana"));
    assert_eq!(world.backbone_figures().users, 1);
    world.leave(connection);
    world.wait(3_000);
    assert_eq!(world.backbone_figures().users, 0);
    assert_eq!(world.backbone_figures().leaves_ignored, 0);
}

/// WS-126: the connection may try again.
#[test]
fn a_refused_sign_in_leaves_the_connection_as_it_was() {
    let mut world = World::new();
    let (connection, other) = (world.connect("app-1"), world.connect("app-1"));
    world.sign_in(connection, r#"{"id":7}"#);
    world.expect(connection, error("Invalid user_data: user_data must contain an id that is a string"));
    world.sign_in(connection, r#"{"id":"ana","watchlist":[7]}"#);
    world.expect(connection, error("Invalid user_data: watchlist must be a list of user ids"));
    // What was signed for another socket.
    let auth = world.sign_user(other, ANA);
    world.say_sign_in(connection, ANA, &auth);
    let text = format!(
        "Invalid signature: Expected HMAC SHA256 hex digest of {}::user::{ANA}, but got {}",
        world.socket_id(connection),
        auth.rsplit(':').next().expect("it has two parts"),
    );
    world.expect(connection, error(&text));
    sign_in(&mut world, connection, ANA);
}

/// WS-128, WS-129, HTTP-44
#[test]
fn events_for_a_user_reach_every_connection_of_the_user_that_subscribed_and_nobody_else() {
    const CHANNEL: &str = "#server-to-user-ana";
    let mut world = World::of(Setup { workers: 3, ..Setup::default() });
    let [first, second, silent, other, nobody] = std::array::from_fn(|_| world.connect("app-1"));
    for connection in [first, second, silent] {
        sign_in(&mut world, connection, ANA);
    }
    sign_in(&mut world, other, r#"{"id":"ana-2"}"#);
    world.join(first, CHANNEL);
    world.join(second, CHANNEL);
    for stranger in [other, nobody] {
        world.subscribe(stranger, CHANNEL);
        world.expect(stranger, error("Not signed in as the user of channel #server-to-user-ana"));
        world.expect(stranger, subscription_error(CHANNEL, "Not signed in as the user of channel #server-to-user-ana"));
    }
    world.publish("app-1", CHANNEL, "e", "x");
    for connection in [first, second] {
        world.expect(connection, event(CHANNEL, "e", "x"));
    }
    for connection in [silent, other, nobody] {
        world.expect_nothing(connection);
    }
    assert_eq!(world.channels("app-1"), [], "such channels are not listed");
}

/// WS-130, T-31
#[test]
fn a_signed_in_user_joins_presence_channels_without_channel_data() {
    let mut world = World::with_app(|app| app.limits.presence_user_info_bytes_max = 40);
    let (ana, bob, long) = (world.connect("app-1"), world.connect("app-1"), world.connect("app-1"));
    sign_in(&mut world, ana, ANA);
    sign_in(&mut world, bob, r#"{"id":"bob"}"#);
    world.subscribe(ana, "presence-room");
    world.expect(ana, roster("presence-room", &[("ana", r#"{"name": "Ana"}"#)]));
    world.subscribe(bob, "presence-room");
    world.expect(bob, roster("presence-room", &[("ana", r#"{"name": "Ana"}"#), ("bob", "null")]));
    world.expect(ana, member_added("presence-room", "bob"));
    // What the application says about the channel wins.
    world.subscribe_user(bob, "presence-other", "robert");
    world.expect(bob, roster("presence-other", &[("robert", "null")]));
    let user_data = format!(r#"{{"id":"long","user_info":"{}"}}"#, "x".repeat(39));
    sign_in(&mut world, long, &user_data);
    world.subscribe(long, "presence-room");
    let text = "Invalid user_data for channel presence-room: user_info is larger than 40 bytes";
    world.expect(long, error(text));
    world.expect(long, subscription_error("presence-room", text));
    assert_eq!(world.users("app-1", "presence-room"), ["ana", "bob"]);
}

/// WS-131, DEL-19
#[test]
fn a_termination_ends_the_connections_of_the_user_and_no_other() {
    let mut world = World::of(Setup { workers: 3, ..Setup::default() });
    let connections: Vec<_> = (0..4).map(|_| world.connect_user("app-1", "ana", &[])).collect();
    let bob = world.connect_user("app-1", "bob", &["ana"]);
    let member = world.connect("app-1");
    world.enter(member, "presence-room", "ana");
    world.terminate("app-1", "ana");
    for connection in connections {
        world.expect_closed(connection, CloseCode::UNAUTHORIZED);
    }
    world.expect_nothing(bob);
    world.expect_nothing(member);
    let back = world.connect("app-1");
    sign_in(&mut world, back, ANA);
    world.terminate("app-1", "nobody");
    world.expect_nothing(back);
    world.terminate("app-1", "ana");
    world.expect_closed(back, CloseCode::UNAUTHORIZED);
}

/// DEL-20
#[test]
fn who_may_have_missed_a_termination_comes_back_and_who_only_watches_stays() {
    let mut world = World::of(Setup { workers: 3, ..Setup::default() });
    let connections: Vec<_> = (0..4).map(|_| world.connect_user("app-1", "ana", &[])).collect();
    let bob = world.connect_user("app-1", "bob", &["ana"]);
    world.miss_user("app-1", "ana");
    assert!(connections.iter().all(|connection| world.is_open(*connection)), "each has its own moment");
    world.wait(10_000);
    for connection in connections {
        world.expect_closed(connection, CloseCode::RECONNECT);
    }
    assert!(world.is_open(bob));
}

/// DEL-19: whoever signs in between the call and its arrival is not meant by it.
#[test]
fn a_termination_that_arrives_late_spares_later_sign_ins() {
    let mut world = World::of(Setup { workers: 1, ..Setup::default() });
    let (before, after) = (world.connect_user("app-1", "ana", &[]), world.connect("app-1"));
    world.deliver_by_hand(true);
    world.terminate("app-1", "ana");
    sign_in(&mut world, after, ANA);
    world.deliver_by_hand(false);
    world.expect_closed(before, CloseCode::UNAUTHORIZED);
    world.expect_nothing(after);
}

/// WS-132, WS-133, DEL-18
#[test]
fn a_watcher_sees_who_is_online_and_then_each_change() {
    for workers in [1, 2] {
        let mut world = World::of(Setup { workers, ..Setup::default() });
        let bob = world.connect_user("app-1", "bob", &[]);
        let watcher = world.connect("app-1");
        let user_data = r#"{"id":"eve","watchlist":["ana","bob","eve","ana"]}"#;
        sign_in(&mut world, watcher, user_data);
        world.expect(watcher, watched(&["bob", "eve"], &["ana"]));
        let ana = world.connect_user("app-1", "ana", &[]);
        world.expect(watcher, watched(&["ana"], &[]));
        let again = world.connect_user("app-1", "ana", &[]);
        world.leave(ana);
        world.wait(10_000);
        world.expect_nothing(watcher);
        world.leave(again);
        world.leave(bob);
        world.wait(2_999);
        world.expect_nothing(watcher);
        world.wait(1);
        let mut told = [world.next_heard(watcher), world.next_heard(watcher)];
        let mut expected = [Some(watched(&[], &["ana"])), Some(watched(&[], &["bob"]))];
        let text = |heard: &Option<fulmar_sim::Heard>| format!("{heard:?}");
        told.sort_by_key(text);
        expected.sort_by_key(text);
        assert_eq!(told, expected);
        world.expect_nothing(watcher);
        world.leave(watcher);
        world.wait(3_000);
        assert_eq!(world.backbone_figures().users, 0, "nothing is left of anybody");
    }
}

/// WS-133: a page that is loaded anew does not flap, however often.
#[test]
fn a_user_who_is_back_in_time_was_never_gone() {
    let mut world = World::new();
    let watcher = world.connect_user("app-1", "eve", &["ana"]);
    let mut ana = world.connect_user("app-1", "ana", &[]);
    world.expect(watcher, watched(&["ana"], &[]));
    for _ in 0..20 {
        world.leave(ana);
        world.wait(2_900);
        ana = world.connect_user("app-1", "ana", &[]);
        world.wait(1_000);
    }
    world.expect_nothing(watcher);
    world.leave(ana);
    world.wait(3_000);
    world.expect(watcher, watched(&[], &["ana"]));
}

/// WS-134
#[test]
fn a_watchlist_that_is_too_long_is_cut_and_the_client_told() {
    let mut world = World::with_app(|app| app.limits.watchlist_max = 2);
    let watcher = world.connect("app-1");
    let user_data = r#"{"id":"eve","watchlist":["a","b","c"]}"#;
    sign_in(&mut world, watcher, user_data);
    let text = "The watchlist is longer than 2; only these users are watched: a, b";
    world.expect(watcher, error_with_code(4302, text));
    world.expect(watcher, watched(&[], &["a", "b"]));
    world.connect_user("app-1", "c", &[]);
    world.expect_nothing(watcher);
    world.connect_user("app-1", "b", &[]);
    world.expect(watcher, watched(&["b"], &[]));
}

/// WS-132: nothing is told where the app has no watchlists, nor for an empty one.
#[test]
fn without_watchlists_a_sign_in_is_only_confirmed() {
    for (is_on, list) in [(false, r#"["a"]"#), (true, "[]")] {
        let mut world = World::with_app(|app| app.watchlist = is_on);
        let watcher = world.connect("app-1");
        sign_in(&mut world, watcher, &format!(r#"{{"id":"eve","watchlist":{list}}}"#));
        world.connect_user("app-1", "a", &[]);
        world.expect_nothing(watcher);
    }
}

/// WS-136, DEL-17, DEL-19: changes that overtake the answer.
#[test]
fn what_happens_while_a_sign_in_waits_is_neither_lost_nor_told_twice() {
    let mut world = World::of(Setup { workers: 1, ..Setup::default() });
    let watcher = world.connect("app-1");
    let user_data = r#"{"id":"eve","watchlist":["ana","bob"]}"#;
    let bob = world.connect_user("app-1", "bob", &[]);
    // The backbone has taken the sign-in, and the answer is on its way.
    world.set_pace(Pace::SlowToAnswer);
    world.sign_in(watcher, user_data);
    world.sign_in(watcher, user_data);
    world.expect(watcher, error("Signing in is in progress"));
    world.subscribe(watcher, "#server-to-user-eve");
    assert_eq!(world.forget_heard(watcher), 2, "not yet signed in");
    world.connect_user("app-1", "ana", &[]);
    world.expect_nothing(watcher);
    world.let_all_through();
    world.expect(watcher, signed_in(user_data));
    world.expect(watcher, watched(&["bob"], &["ana"]));
    world.expect(watcher, watched(&["ana"], &[]));
    world.expect_nothing(watcher);
    assert!(world.is_open(bob));

    // A termination that overtakes the answer.
    let late = world.connect("app-1");
    world.set_pace(Pace::SlowToAnswer);
    world.sign_in(late, ANA);
    world.terminate("app-1", "ana");
    world.expect_nothing(late);
    world.let_all_through();
    world.expect(late, signed_in(ANA));
    world.expect_closed(late, CloseCode::UNAUTHORIZED);
}

/// WS-136, DEL-15: the backbone's count is the truth whenever a session gives up.
#[test]
fn a_session_that_ends_while_its_sign_in_waits_leaves_nobody_behind() {
    for pace in [Pace::SlowToAnswer, Pace::SlowToHear, Pace::Slow] {
        let mut world = World::new();
        let watcher = world.connect_user("app-1", "eve", &["ana"]);
        let ana = world.connect("app-1");
        world.set_pace(pace);
        world.sign_in(ana, r#"{"id":"ana","watchlist":["eve","x"]}"#);
        world.leave(ana);
        world.let_all_through();
        world.wait(3_000);
        assert_eq!(world.forget_heard(watcher), 2, "online and offline");
        assert_eq!(world.backbone_figures().users, 2, "eve, and whom she watches");
        assert_eq!(world.backbone_figures().leaves_ignored, 0);
    }
}

/// WS-135: a sign-in is an authorization, too; and the switch reaches nobody who was there before it.
#[test]
fn signing_in_authorizes_and_a_switch_that_is_turned_off_closes_nobody() {
    let mut world = World::with_app(|app| app.authorized_connections = true);
    let (user, anonymous) = (world.connect("app-1"), world.connect("app-1"));
    sign_in(&mut world, user, ANA);
    world.wait(29_999);
    world.expect_nothing(anonymous);
    world.wait(1);
    world.expect(anonymous, error_with_code(4009, "Connection not authorized within timeout"));
    assert!(!world.is_open(anonymous) && world.is_open(user));

    let late = world.connect("app-1");
    let mut app = (**world.app("app-1")).clone();
    app.authorized_connections = false;
    world.replace_app(app.clone());
    world.wait(60_000);
    assert!(world.is_open(late));
    app.authorized_connections = true;
    world.replace_app(app);
    world.wait(31_000);
    assert!(world.is_open(late), "it was opened before");
}

/// WS-137
#[test]
fn a_connection_counts_from_its_authorization_on_and_is_refused_then_before_anybody_sees_it() {
    let mut world = World::with_app(|app| {
        app.authorized_connections = true;
        app.limits.max_connections = Some(1);
    });
    let [first, second, third] = [0; 3].map(|_| world.connect("app-1"));
    world.join(second, "open");
    world.enter(first, "presence-a", "ana");
    world.join(first, "private-b");
    world.subscribe(second, "open-too");
    world.expect(second, succeeded("open-too"));
    // Its own authorization comes too late: there is no place, and nobody hears of it.
    world.subscribe_user(second, "presence-a", "bob");
    world.expect_closed(second, CloseCode::OVER_QUOTA);
    world.sign_in(third, ANA);
    world.expect_closed(third, CloseCode::OVER_QUOTA);
    world.expect_nothing(first);
    assert_eq!(world.users("app-1", "presence-a"), ["ana"]);
    assert_eq!((world.backbone_figures().users, world.load().0), (0, 1), "no trace of the other two");
    world.leave(first);
    let next = world.connect("app-1");
    world.join(next, "private-b");
    assert!(world.is_open(next), "the place is free again");
}

/// WS-137
#[test]
fn what_is_said_with_the_authorization_and_behind_it_takes_effect_in_order() {
    let mut world = World::with_app(|app| {
        app.authorized_connections = true;
        app.limits.max_connections = Some(1);
    });
    let user = world.connect("app-1");
    sign_in(&mut world, user, ANA);
    world.join(user, "#server-to-user-ana");
    world.join(user, "private-a");
    world.wait(31_000);
    assert!(world.is_open(user));
}

/// WS-137: nothing is asked of them any more.
#[test]
fn connections_without_an_authorization_count_once_the_switch_is_off() {
    let mut world = World::with_app(|app| {
        app.authorized_connections = true;
        app.limits.max_connections = Some(1);
    });
    let (first, second) = (world.connect("app-1"), world.connect("app-1"));
    let mut app = (**world.app("app-1")).clone();
    app.authorized_connections = false;
    world.replace_app(app);
    world.expect_nothing(first);
    world.expect_closed(second, CloseCode::OVER_QUOTA);
    let third = world.open("/app/key-1?protocol=7", None);
    world.expect_closed(third, CloseCode::OVER_QUOTA);
    assert!(world.is_open(first));
}

/// DEL-13
#[test]
fn users_of_different_apps_do_not_meet() {
    let mut setup = Setup::default();
    setup.apps.push(fulmar_protocol::app::App::new("app-2", "key-2", "secret-2"));
    let mut world = World::of(setup);
    let watcher = world.connect_user("app-1", "eve", &["ana"]);
    let theirs = world.connect_user("app-2", "ana", &[]);
    world.expect_nothing(watcher);
    world.terminate("app-1", "ana");
    world.expect_nothing(theirs);
}
