//! What is answered while a group is away, and what becomes of it when it is back.

use std::time::Duration;

use fulmar_protocol::exchange::{Answer, Happening, Join, Ticket};

use super::walk::text;
use super::words::{as_user, bus_event, to, topic, user_topic};
use super::world::{Heard, World};
use crate::redis::envelope::LogId;
use crate::redis::hub::{Hub, HubSettings, Moment, Out};
use crate::redis::records::{Call, Found, Told, Total};
use crate::{Query, Reply, Unavailable};

fn roster(world: &World, ticket: Ticket) -> Option<Vec<String>> {
    match world.answer_to(0, ticket)? {
        Answer::Joined { roster, .. } => {
            Some(roster.into_iter().flatten().map(|m| m.user_id.as_str().to_owned()).collect())
        }
        other => panic!("nobody is refused because a store is away, but {other:?}"),
    }
}

fn told(world: &World) -> Vec<String> {
    let told = world.heard(0, 0).into_iter().filter_map(|heard| match heard {
        Heard::Delivery(delivery) => match &delivery.happening {
            Happening::MemberAdded(member) => Some(format!("+{}", member.user_id.as_str())),
            Happening::MemberRemoved(user) => Some(format!("-{}", user.as_str())),
            Happening::Count(count) => Some(count.to_string()),
            Happening::Event { .. } => text(&delivery).map(str::to_owned),
            Happening::Missed => Some("missed".to_owned()),
        },
        Heard::Notice(notice) => Some(format!("{:?} {}", notice.change, notice.user_id.as_str())),
        Heard::Answer(_) => None,
    });
    told.collect()
}

/// RED-24
#[test]
fn a_join_of_a_topic_that_nobody_knows_here_is_answered_after_a_second() {
    let mut world = World::new(1, 1, 1);
    world.set_away(true);
    let ana = world.join(0, 0, as_user("presence-room", "ana", "1"));
    let plain = world.join(0, 0, to("room"));
    world.pass(999);
    assert_eq!((roster(&world, ana), roster(&world, plain)), (None, None));
    world.pass(1);
    assert_eq!((roster(&world, ana), roster(&world, plain)), (Some(vec!["ana".to_owned()]), Some(Vec::new())));
    assert_eq!(world.figures(0).answered_alone, 2);
    let wall = world.now.ms;
    world.on(0, |hub, now, outs| hub.heard(now, topic("room").as_str(), None, bus_event("detoured", wall), outs));
    assert!(told(&world).contains(&"detoured".to_owned()), "what comes over the bus is heard");
    world.set_away(false);
    world.drain();
    assert_eq!((world.total(&topic("room")), world.total(&topic("presence-room"))), (1, 1));
    assert_eq!(world.roster(&topic("presence-room")).len(), 1);
    let edges: Vec<_> = told(&world).into_iter().filter(|told| told.starts_with(['+', '-'])).collect();
    assert_eq!(edges, ["+ana"], "told before the answer, and not again when the store says it");
}

/// RED-24, RED-3
#[test]
fn who_was_answered_without_the_store_is_told_what_was_accepted_since_and_nothing_from_before() {
    let mut world = World::at_its_start(1, 1, 1, None);
    world.join(0, 0, to("room"));
    let asked = world.now.ms;
    let hear = |world: &mut World, text: &str, accepted, at| {
        world.on(0, |hub, now, outs| hub.heard(now, topic("room").as_str(), at, bus_event(text, accepted), outs));
    };
    world.pass(900);
    hear(&mut world, "while it waited", asked + 900, None);
    world.pass(100);
    hear(&mut world, "after the answer", asked + 1_000, None);
    // Only a log that is read later has these.
    hear(&mut world, "unheard while it waited", asked + 500, Some(LogId::new(7, 0)));
    hear(&mut world, "unheard after the answer", asked + 1_001, Some(LogId::new(8, 0)));
    assert_eq!(told(&world), ["while it waited", "after the answer", "unheard after the answer"]);
}

/// RED-24, NODE-13
#[test]
fn a_node_that_has_not_found_its_store_yet_answers_as_one_that_has_lost_it() {
    let mut world = World::at_its_start(1, 1, 1, None);
    let plain = world.join(0, 0, to("room"));
    world.pass(999);
    assert_eq!(roster(&world, plain), None);
    world.pass(1);
    assert_eq!(roster(&world, plain), Some(Vec::new()));
    world.set_away(false);
    world.drain();
    assert_eq!(world.total(&topic("room")), 1);
}

/// RED-24
#[test]
fn nobody_is_answered_alone_while_the_store_answers() {
    let mut world = World::new(1, 1, 1);
    let ana = world.join(0, 0, as_user("presence-room", "ana", "1"));
    world.pass(1_500);
    assert_eq!(roster(&world, ana), None, "it is slow, not away");
    world.set_away(true);
    world.pass(100);
    assert_eq!(roster(&world, ana), Some(vec!["ana".to_owned()]), "it has waited long enough already");
    let bob = world.join(0, 0, as_user("presence-room", "bob", "1"));
    world.set_away(false);
    world.pass(5_200);
    assert_eq!(roster(&world, bob), Some(vec!["ana".to_owned(), "bob".to_owned()]), "nor does a defect last for ever");
}

/// RED-24
#[test]
fn those_present_elsewhere_are_told_when_the_store_is_back() {
    let mut world = World::new(1, 2, 1);
    world.join(1, 0, as_user("presence-room", "bob", "1"));
    world.drain();
    world.set_away(true);
    let ana = world.join(0, 0, as_user("presence-room", "ana", "1"));
    world.pass(1_000);
    assert_eq!(roster(&world, ana), Some(vec!["ana".to_owned()]));
    world.set_away(false);
    world.drain();
    assert_eq!(told(&world), ["+ana", "+bob"]);
    let eve = world.join(0, 0, as_user("presence-room", "eve", "1"));
    world.drain();
    assert_eq!(roster(&world, eve).map(|roster| roster.len()), Some(3));
}

/// RED-24
#[test]
fn who_comes_and_goes_meanwhile_is_told_of_by_this_node_alone() {
    let mut world = World::new(1, 1, 1);
    world.join(0, 0, as_user("presence-room", "ana", "1"));
    world.drain();
    world.set_away(true);
    for _ in 0..3 {
        world.join(0, 0, as_user("presence-room", "bob", "1"));
        world.pass(1_000);
        world.leave(0, 0, &as_user("presence-room", "bob", "1"));
    }
    assert_eq!(told(&world), ["+bob", "-bob", "+bob", "-bob", "+bob", "-bob"]);
    world.set_away(false);
    world.drain();
    let edges = told(&world);
    assert!(edges.windows(2).all(|pair| pair[0] != pair[1]), "still in turn: {edges:?}");
    assert_eq!(edges.last().map(String::as_str), Some("-bob"));
    assert_eq!(world.total(&topic("presence-room")), 1);
}

/// RED-24, RED-26: a limit does not take back what was answered.
#[test]
fn who_was_let_in_alone_stays_although_the_channel_turns_out_to_be_full() {
    let mut world = World::new(1, 2, 1);
    let limited = |id| Join { members_max: 1, ..as_user("presence-room", id, "1") };
    world.join(1, 0, limited("bob"));
    world.drain();
    world.set_away(true);
    let ana = world.join(0, 0, limited("ana"));
    world.pass(1_000);
    assert!(roster(&world, ana).is_some());
    world.set_away(false);
    world.drain();
    assert_eq!(world.roster(&topic("presence-room")).len(), 2);
    assert_eq!(told(&world), ["+ana", "+bob"]);
}

/// RED-24
#[test]
fn changes_wait_as_they_then_stand_and_not_one_by_one() {
    let mut world = World::new(1, 1, 1);
    world.join(0, 0, as_user("presence-room", "ana", "1"));
    world.drain();
    world.set_away(true);
    for n in 0..1_000 {
        world.join(0, 0, as_user("presence-room", &format!("u{n}"), "1"));
    }
    let asked = world.nodes[0].calls.len();
    assert!(asked <= 64, "{asked}");
    world.pass(1_000);
    assert_eq!(world.figures(0).waiting, 0);
    for n in 0..1_000 {
        world.leave(0, 0, &as_user("presence-room", &format!("u{n}"), "1"));
    }
    assert_eq!(world.nodes[0].calls.len(), asked);
    world.set_away(false);
    world.drain();
    assert_eq!((world.total(&topic("presence-room")), world.roster(&topic("presence-room")).len()), (1, 1));
}

/// RED-24
#[test]
fn sign_ins_do_not_wait_for_a_store_that_is_away_either() {
    let mut world = World::new(1, 2, 1);
    world.sign_in(1, 0, "bob", &[]);
    world.drain();
    world.set_away(true);
    let ana = world.sign_in(0, 0, "ana", &["ana", "bob"]);
    world.pass(1_000);
    let Some(Answer::SignedIn { online, .. }) = world.answer_to(0, ana) else { panic!("it is answered") };
    assert_eq!(online.iter().map(|user| user.as_str()).collect::<Vec<_>>(), ["ana"], "as known here");
    world.set_away(false);
    world.drain();
    assert_eq!(told(&world), ["Online bob"], "the rest is told when it is known");
    assert_eq!(world.total(&user_topic("ana")), 1);
}

/// RED-24, RED-11
#[test]
fn who_subscribes_to_what_no_group_has_just_now_waits_no_longer_than_while_one_is_away() {
    for (is_frozen, answered_after) in [(true, 1_000), (false, 5_000)] {
        let mut world = World::new(1, 1, 1);
        world.answers_nobody(is_frozen);
        let ticket = world.join(0, 0, to("room"));
        world.drain();
        world.pass(answered_after - 100);
        assert!(world.answer_to(0, ticket).is_none());
        world.pass(200);
        assert!(world.answer_to(0, ticket).is_some(), "frozen: {is_frozen}");
    }
}

/// RED-24
#[test]
fn questions_about_everything_are_answered_whole_or_not_at_all() {
    let mut world = World::new(1, 1, 1);
    let query = Query::Channels { app: fulmar_protocol::app::AppId::new("app"), prefix: String::new() };
    let token = world.on(0, |hub, now, outs| hub.query(now, query, outs));
    let Some(Call::Find { token: call, .. }) = world.nodes[0].calls.pop_front() else { panic!("it is asked") };
    world.told(0, Told::Found { token: call, found: None });
    let done = format!("{:?}", world.nodes[0].done);
    assert_eq!(done, format!("[Reply({token:?}, Err({Unavailable:?}))]"));
}

/// HTTP-70
#[test]
fn a_question_that_may_be_answered_in_part_is_unless_nobody_answers() {
    let app = fulmar_protocol::app::AppId::new("app");
    let room = topic("room");
    for (first, second, expected) in [
        (true, true, "channels: 1, is_partial: false"),
        (true, false, "channels: 1, is_partial: true"),
        (false, true, "channels: 1, is_partial: true"),
        (false, false, "unavailable"),
    ] {
        let (linger, group_of) = (Duration::from_secs(10), Box::new(|_| 0));
        let mut hub = Hub::new(HubSettings {
            origin: 1,
            groups: 2,
            group_of,
            is_frozen: Box::new(|_| false),
            linger,
            outbox: None,
        });
        let (now, mut outs) = (Moment { ms: 1, wall_us: 1 }, Vec::new());
        hub.query(now, Query::Reachable { app: app.clone(), prefix: String::new() }, &mut outs);
        let mut calls = outs.iter().filter_map(|out| match out {
            Out::Call { call: Call::Find { token, .. }, .. } => Some(*token),
            _ => None,
        });
        let [one, other] = [calls.next().expect("a group is asked"), calls.next().expect("so is the other")];
        let mut outs = Vec::new();
        for (token, is_there) in [(one, first), (other, second)] {
            let totals = vec![Total { topic: room.clone(), subscriptions: 1, members: 0 }];
            let found = is_there.then_some(Found::Listed(totals));
            hub.told(now, 0, Told::Found { token, found }, &mut outs);
        }
        let said = match outs.pop() {
            Some(Out::Reply(_, Ok(Reply::Reachable { channels, is_partial }))) => {
                format!("channels: {}, is_partial: {is_partial}", channels.len())
            }
            Some(Out::Reply(_, Err(Unavailable))) => "unavailable".to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(said, expected);
    }
}
