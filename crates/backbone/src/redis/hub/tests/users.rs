//! Sign-ins, watchers, absences and terminations; and questions about the whole deployment.

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Answer, OFFLINE_AFTER, Position, Ticket, UserChange};

use super::words::{as_user, channel, to, topic, user, user_topic};
use super::world::{Heard, World};
use crate::redis::envelope::{LogId, Message};
use crate::redis::hub::Out;
use crate::redis::records::{Call, Find, Told};
use crate::{Query, Reply};

fn signed_in(world: &World, node: usize, ticket: Ticket) -> (Position, Vec<String>) {
    let Some(Answer::SignedIn { position, online, .. }) = world.answer_to(node, ticket) else { panic!("it stands") };
    (position, online.iter().map(|user| user.as_str().to_owned()).collect())
}

fn notices(world: &World, node: usize, worker: u8) -> Vec<(Position, String)> {
    let notices = world.heard(node, worker).into_iter().filter_map(|heard| match heard {
        Heard::Notice(notice) => {
            let sign = match notice.change {
                UserChange::Online => '+',
                UserChange::Offline => '-',
                UserChange::Terminated => '!',
                UserChange::Missed => '?',
            };
            Some((notice.position, format!("{sign}{}", notice.user_id.as_str())))
        }
        _ => None,
    });
    notices.collect()
}

fn told(world: &World, node: usize, worker: u8) -> Vec<String> {
    notices(world, node, worker).into_iter().map(|(_, told)| told).collect()
}

/// DEL-17
#[test]
fn a_sign_in_sees_who_is_online_in_the_order_of_its_watchlist() {
    let mut world = World::new(1, 2, 2);
    world.sign_in(1, 0, "ana", &[]);
    world.drain();
    let ticket = world.sign_in(0, 0, "bob", &["eve", "ana", "bob"]);
    let other = world.sign_in(0, 1, "gil", &["joe"]);
    world.drain();
    assert_eq!(signed_in(&world, 0, ticket).1, ["ana", "bob"]);
    assert_eq!(signed_in(&world, 0, other).1, [] as [&str; 0]);
    world.sign_in(1, 0, "eve", &[]);
    world.sign_in(1, 0, "eve", &[]);
    world.drain();
    let after: Vec<_> = notices(&world, 0, 0).into_iter().filter(|n| n.0 > signed_in(&world, 0, ticket).0).collect();
    assert_eq!(after.iter().map(|n| n.1.as_str()).collect::<Vec<_>>(), ["+eve"], "once");
    assert_eq!(told(&world, 0, 1), [] as [&str; 0], "who watches nobody of them hears nothing");
}

/// RED-25: totals of those watched are looked up together.
#[test]
fn a_long_watchlist_is_one_question() {
    let mut world = World::new(1, 1, 1);
    let ids: Vec<String> = (0..100).map(|n| format!("u{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let ticket = world.sign_in(0, 0, "ana", &ids);
    while world.step(0, 0) || world.step(0, 2) {}
    world.tick();
    let finds = world.nodes[0].calls.iter().filter(|call| matches!(call, Call::Find { .. })).count();
    assert_eq!(finds, 1);
    assert!(world.answer_to(0, ticket).is_none());
    world.drain();
    assert!(world.answer_to(0, ticket).is_some());
    let again = world.sign_in(0, 0, "bob", &ids);
    world.tick();
    assert!(!world.nodes[0].calls.iter().any(|call| matches!(call, Call::Find { .. })), "they are known");
    world.drain();
    assert!(world.answer_to(0, again).is_some());
}

/// RED-25
#[test]
fn a_lookup_that_fails_is_made_again() {
    let mut world = World::new(1, 1, 1);
    let ticket = world.sign_in(0, 0, "ana", &["bob"]);
    while world.step(0, 0) || world.step(0, 2) {}
    world.tick();
    let calls = std::mem::take(&mut world.nodes[0].calls);
    for call in calls {
        match call {
            Call::Find { token, what: Find::Topics(_) } => world.told(0, Told::Found { token, found: None }),
            other => world.nodes[0].calls.push_back(other),
        }
    }
    world.drain();
    assert!(world.answer_to(0, ticket).is_none());
    world.live(1_000);
    assert!(world.answer_to(0, ticket).is_some());
}

/// DEL-18
#[test]
fn offline_waits_and_the_time_begins_anew_with_each_absence() {
    let wait = u64::try_from(OFFLINE_AFTER.as_millis()).expect("seconds");
    let mut world = World::new(1, 2, 1);
    world.sign_in(0, 0, "ana", &[]);
    let watching = world.sign_in(1, 0, "watcher", &["ana"]);
    world.drain();
    let start = signed_in(&world, 1, watching).0;
    let told = |world: &World| {
        let later = notices(world, 1, 0).into_iter().filter(|notice| notice.0 > start);
        later.map(|notice| notice.1).collect::<Vec<_>>()
    };
    world.sign_out(0, 0, "ana", &[]);
    world.live(wait - 100);
    world.sign_in(0, 0, "ana", &[]);
    world.sign_out(0, 0, "ana", &[]);
    world.live(wait - 100);
    assert_eq!(told(&world), [] as [&str; 0], "back in time");
    assert_eq!(world.total(&user_topic("ana")), 1, "the record stays");
    world.live(100);
    assert_eq!(told(&world), ["-ana"]);
    assert_eq!(world.total(&user_topic("ana")), 0);
    world.sign_in(0, 0, "ana", &[]);
    world.drain();
    assert_eq!(told(&world), ["-ana", "+ana"]);
}

/// DEL-15
#[test]
fn the_end_of_a_sign_in_that_was_never_made_changes_nothing() {
    let mut world = World::new(1, 1, 2);
    world.sign_in(0, 0, "ana", &["bob"]);
    world.drain();
    world.sign_out(0, 1, "ana", &["bob"]);
    world.sign_out(0, 0, "eve", &["bob"]);
    world.live(4_000);
    assert_eq!((world.total(&user_topic("ana")), world.figures(0).leaves_ignored), (1, 2));
    world.sign_in(0, 1, "bob", &[]);
    world.drain();
    assert_eq!(told(&world, 0, 0), ["+bob"], "still watched");
}

/// DEL-15
#[test]
fn nothing_is_left_of_users_nobody_needs() {
    let mut world = World::new(1, 1, 1);
    world.sign_in(0, 0, "ana", &["bob", "ana"]);
    world.drain();
    assert_eq!(world.figures(0).topics, 2);
    world.sign_out(0, 0, "ana", &["bob", "ana"]);
    world.live(14_000);
    assert_eq!((world.figures(0).topics, world.nodes[0].hub.next_deadline()), (0, None));
}

/// DEL-19
#[test]
fn a_termination_reaches_all_workers_with_connections_of_the_user_and_nobody_else() {
    let mut world = World::new(1, 2, 2);
    world.sign_in(0, 0, "ana", &[]);
    world.sign_in(1, 1, "ana", &[]);
    world.sign_in(0, 1, "bob", &["ana"]);
    world.drain();
    let token = world.on(0, |hub, now, outs| hub.terminate(now, &AppId::new("app"), &user("ana"), outs));
    world.on(0, |hub, now, outs| hub.terminate(now, &AppId::new("app"), &user("nobody"), outs));
    world.drain();
    let is_end = |told: &String| told.starts_with('!');
    let ends = |node, worker| told(&world, node, worker).into_iter().filter(is_end).collect::<Vec<_>>();
    assert_eq!((ends(0, 0), ends(1, 1)), (vec!["!ana".to_owned()], vec!["!ana".to_owned()]));
    assert_eq!((ends(0, 1), ends(1, 0)), (vec![], vec![]), "to watch somebody is not to be somebody");
    let done: Vec<_> = world.nodes[0].done.iter().filter(|out| matches!(out, Out::Terminated(_))).collect();
    assert_eq!(done.len(), 2);
    assert!(matches!(done[0], Out::Terminated(of) if *of == token));
}

/// DEL-19
#[test]
fn who_signs_in_after_the_caller_was_answered_is_not_meant() {
    for is_heard_first in [true, false] {
        let mut world = World::new(1, 1, 1);
        world.sign_in(0, 0, "ana", &[]);
        world.drain();
        world.on(0, |hub, now, outs| hub.terminate(now, &AppId::new("app"), &user("ana"), outs));
        while world.step(0, 1) {}
        let order = if is_heard_first { [2, 3] } else { [3, 2] };
        world.step(0, order[0]);
        if is_heard_first {
            world.step(0, 3);
        }
        let ticket = world.sign_in(0, 0, "ana", &[]);
        while world.step(0, 1) || world.step(0, 3) {}
        let after = signed_in(&world, 0, ticket).0;
        world.drain();
        let ends = notices(&world, 0, 0).into_iter().filter(|notice| notice.1 == "!ana").collect::<Vec<_>>();
        assert!(matches!(ends.as_slice(), [(at, _)] if *at <= after), "{is_heard_first} {ends:?} {after:?}");
    }
}

/// DEL-19
#[test]
fn a_termination_by_another_node_is_heard_once_however_often_it_is_read() {
    let mut world = World::new(1, 1, 1);
    world.sign_in(0, 0, "ana", &[]);
    world.drain();
    let topic = user_topic("ana");
    for at in [50, 50, 51] {
        let at = Some(LogId::new(at, 0));
        world.on(0, |hub, now, outs| hub.heard(now, topic.as_str(), at, Message::Terminated, outs));
    }
    assert_eq!(told(&world, 0, 0), ["!ana", "!ana"]);
}

/// RED-27
#[test]
fn who_is_online_is_looked_up_again_when_it_is_in_doubt() {
    let mut world = World::new(1, 2, 1);
    world.sign_in(0, 0, "watcher", &["ana", "bob"]);
    world.drain();
    world.sign_in(1, 0, "ana", &[]);
    world.drain();
    // What the store loses and invents, without an edge.
    world.records.get_mut(&user_topic("ana")).expect("it is there")[1].subscriptions = 0;
    world.records.insert(user_topic("bob"), vec![Default::default(), Default::default()]);
    world.records.get_mut(&user_topic("bob")).expect("it is there")[1].subscriptions = 1;
    world.is_settled = false;
    world.told(0, Told::Doubtful(None));
    world.drain();
    assert_eq!(told(&world, 0, 0), ["+ana", "+bob"], "absence means nothing yet");
    world.live(6_000);
    assert_eq!(told(&world, 0, 0), ["+ana", "+bob"], "nor later, before all nodes have looked");
    world.is_settled = true;
    world.live(1_100);
    assert_eq!(told(&world, 0, 0), ["+ana", "+bob", "-ana"]);
}

/// RED-31
#[test]
fn who_signs_out_of_a_node_that_goes_away_is_online_until_three_seconds_have_passed_without_it() {
    let mut world = World::new(1, 2, 1);
    world.sign_in(0, 0, "ana", &[]);
    world.sign_in(0, 0, "bob", &[]);
    let watching = world.sign_in(1, 0, "watcher", &["ana", "bob"]);
    world.drain();
    let before = told(&world, 1, 0).len();
    assert_eq!(signed_in(&world, 1, watching).1, ["ana", "bob"]);
    world.on(0, |hub, _, _| hub.drain());
    world.sign_out(0, 0, "ana", &[]);
    world.sign_out(0, 0, "bob", &[]);
    world.live(1_000);
    world.sign_in(1, 0, "ana", &[]);
    world.live(1_900);
    assert!(world.on(0, |hub, now, _| hub.has_leaving(now)), "the node stays for that long");
    assert_eq!(told(&world, 1, 0)[before..], [] as [&str; 0]);
    world.live(200);
    assert_eq!(told(&world, 1, 0)[before..], ["-bob"], "ana was never away");
    assert!(!world.on(0, |hub, now, _| hub.has_leaving(now)));
}

fn ask(world: &mut World, query: Query) -> Reply {
    world.on(0, |hub, now, outs| hub.query(now, query, outs));
    world.drain();
    match world.nodes[0].done.pop() {
        Some(Out::Reply(_, Ok(reply))) => reply,
        other => panic!("it is answered, but {other:?}"),
    }
}

/// HTTP-36, HTTP-44
#[test]
fn channels_are_listed_and_users_are_not_among_them() {
    let mut world = World::new(1, 2, 1);
    for node in 0..2 {
        world.join(node, 0, as_user("presence-a", "ana", "1"));
        world.join(node, 0, to("room"));
    }
    world.join(0, 0, to("#server-to-user-ana"));
    world.sign_in(0, 0, "ana", &[]);
    world.drain();
    let app = || AppId::new("app");
    let shown = |reply| match reply {
        Reply::Channels(states) => {
            let shown = states.into_iter().map(|s| (s.channel.to_string(), s.subscriptions, s.members));
            shown.collect::<Vec<_>>()
        }
        other => panic!("channels are answered with channels, not {other:?}"),
    };
    let all = ask(&mut world, Query::Channels { app: app(), prefix: String::new() });
    let (a, room) = (("presence-a".to_owned(), 2, 1), ("room".to_owned(), 2, 0));
    assert_eq!(shown(all), [a.clone(), room.clone()]);
    let some = ask(&mut world, Query::Channels { app: app(), prefix: "presence-".to_owned() });
    assert_eq!(shown(some), std::slice::from_ref(&a));
    let names = ["room", "absent", "presence-a", "room"].map(channel).to_vec();
    let named = ask(&mut world, Query::Named { app: app(), channels: names });
    assert_eq!(shown(named), [room.clone(), ("absent".to_owned(), 0, 0), a, room]);
    assert!(
        matches!(ask(&mut world, Query::Named { app: app(), channels: vec![] }), Reply::Channels(none) if none.is_empty())
    );
    let members = ask(&mut world, Query::Members { app: app(), channel: channel("presence-a") });
    assert!(matches!(members, Reply::Members(members) if members.len() == 1));
    let cached = ask(&mut world, Query::Cached { app: app(), channel: channel("cache-none") });
    assert!(matches!(cached, Reply::Cached(None)));
    assert_eq!(world.total(&topic("room")), 2);
}
