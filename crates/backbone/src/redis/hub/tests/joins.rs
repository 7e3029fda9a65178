//! Subscriptions one by one: what is asked for them, in which order, and what they cost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Answer, Happening, Identity, Join, JoinRefusal, Position, Question, Ticket};
use fulmar_protocol::name::ChannelName;
use fulmar_protocol::webhook::{Edge, EventKind, Kinds};

use super::walk::{count, text};
use super::words::{as_user, bus_event, channel, publication, ticket_of, to, topic, user};
use super::world::{Heard, ORIGIN, World};
use crate::redis::envelope::{Event, LogId, Message};
use crate::redis::hub::heard::HELD_MAX;
use crate::redis::hub::topics::Entry;
use crate::redis::hub::{Hub, Out};
use crate::redis::records::Told;
use crate::redis::records::{Call, Change};
use crate::redis::topic::Topic;
use crate::{Inbox, Outbox, Query, Reply};

fn joined(world: &World, node: usize, ticket: Ticket) -> (Position, Vec<String>, Option<String>) {
    let Some(Answer::Joined { position, roster, cached, .. }) = world.answer_to(node, ticket) else {
        panic!("it was let in")
    };
    let roster = roster.into_iter().flatten().map(|member| member.user_id.as_str().to_owned());
    (position, roster.collect(), cached.map(|frame| frame.text().to_owned()))
}

fn texts(world: &World, node: usize, worker: u8) -> Vec<String> {
    let heard = world.heard(node, worker);
    let deliveries = heard.iter().filter_map(|heard| match heard {
        Heard::Delivery(delivery) => text(delivery).map(str::to_owned),
        _ => None,
    });
    deliveries.collect()
}

fn changes(world: &World, node: usize) -> Vec<Change> {
    let changes = world.nodes[node].calls.iter().filter_map(|call| match call {
        Call::Change(change) => Some(change.clone()),
        _ => None,
    });
    changes.collect()
}

/// Follows and confirms, so that changes are asked.
fn follow(world: &mut World, node: usize) {
    while world.step(node, 0) || world.step(node, 2) {}
}

/// RED-17
#[test]
fn the_records_are_asked_only_when_the_interest_is_confirmed() {
    let mut world = World::new(1, 1, 1);
    let ticket = world.join(0, 0, as_user("presence-cache-room", "ana", "1"));
    assert!(world.nodes[0].calls.is_empty(), "what is read before listening begins could be missed");
    follow(&mut world, 0);
    let asked = changes(&world, 0);
    assert_eq!((asked.len(), asked[0].subscriptions), (1, 1));
    assert!(asked[0].wants_roster && asked[0].wants_cached);
    assert_eq!(asked[0].members_max, Some(100));
    assert!(world.answer_to(0, ticket).is_none());
    world.drain();
    assert_eq!(joined(&world, 0, ticket).1, ["ana"]);
    world.join(0, 0, as_user("presence-cache-room", "ana", "2"));
    let again = changes(&world, 0).pop().expect("the number changes");
    assert!(!again.wants_roster && !again.wants_cached, "what is known is not asked again");
    assert_eq!((again.subscriptions, again.member), (2, None), "a second connection is no second user");
}

/// RED-17
#[test]
fn many_joins_of_a_plain_channel_are_few_changes() {
    let mut world = World::new(1, 1, 1);
    let tickets: Vec<_> = (0..1_000).map(|_| world.join(0, 0, to("room"))).collect();
    follow(&mut world, 0);
    let asked = changes(&world, 0);
    assert_eq!((asked.len(), asked[0].subscriptions), (1, 1_000));
    world.join(0, 0, to("room"));
    world.join(0, 0, to("room"));
    assert_eq!(changes(&world, 0).len(), 1, "one at a time");
    world.drain();
    assert_eq!(world.total(&topic("room")), 1_002);
    assert!(tickets.iter().all(|ticket| world.answer_to(0, *ticket).is_some()));
    assert_eq!(world.figures(0).waiting, 0);
}

/// DEL-14
#[test]
fn each_counted_join_is_a_change_of_its_own_and_hears_its_own_count() {
    let mut world = World::new(1, 1, 1);
    for _ in 0..3 {
        world.join(0, 0, Join { counted: true, ..to("room") });
    }
    world.drain();
    let counts = world.heard(0, 0).into_iter().filter_map(|heard| match heard {
        Heard::Delivery(delivery) => match delivery.happening {
            Happening::Count(count) => Some(count.to_string()),
            _ => None,
        },
        Heard::Answer(_) => Some("joined".to_owned()),
        Heard::Notice(_) => None,
    });
    let told: Vec<String> = counts.collect();
    assert_eq!(told.iter().filter(|told| *told != "joined").collect::<Vec<_>>(), ["1", "2", "3"]);
    for n in 0..3 {
        let is_own = |told: &String| *told == (n + 1).to_string();
        let joined = told.iter().enumerate().filter(|(_, told)| *told == "joined").nth(n).expect("all are answered").0;
        assert!(told.iter().position(is_own).expect("it is told") > joined, "{told:?}");
    }
}

/// DEL-1
#[test]
fn an_event_is_one_delivery_that_all_workers_share() {
    let mut world = World::new(1, 1, 3);
    for worker in [0, 2] {
        world.join(0, worker, to("room"));
        world.join(0, worker, to("room"));
    }
    world.drain();
    world.event(&topic("room"), None);
    world.event(&topic("elsewhere"), None);
    world.drain();
    let delivered = |worker| {
        let heard = world.heard(0, worker);
        let deliveries = heard.into_iter().filter_map(|heard| match heard {
            Heard::Delivery(delivery) => Some(delivery),
            _ => None,
        });
        deliveries.collect::<Vec<_>>()
    };
    assert!(Arc::ptr_eq(&delivered(0)[0], &delivered(2)[0]));
    assert_eq!((delivered(0).len(), delivered(1).len(), delivered(2).len()), (1, 0, 1));
    assert_eq!(delivered(0)[0].identity.origin, 99, "a publication keeps its identity");
}

/// RED-14
#[test]
fn what_came_over_the_bus_reaches_only_who_asked_before_it_was_accepted() {
    let mut world = World::new(1, 1, 1);
    let wall = world.now.ms;
    world.join(0, 0, to("room"));
    for (text, accepted) in [("old", wall - 1), ("new", wall)] {
        world.on(0, |hub, now, outs| hub.heard(now, topic("room").as_str(), None, bus_event(text, accepted), outs));
    }
    world.drain();
    assert_eq!(texts(&world, 0, 0), ["new"]);
    world.on(0, |hub, now, outs| hub.heard(now, topic("room").as_str(), None, bus_event("late", wall - 9), outs));
    assert_eq!(texts(&world, 0, 0), ["new"], "nor does it when the subscription stands");
}

/// RED-14, RED-3
#[test]
fn what_the_log_had_before_a_subscription_was_made_is_not_for_it_however_it_comes() {
    let mut world = World::new(1, 1, 1);
    world.join(0, 0, to("room"));
    // Nothing is heard yet, and the answer's place is behind it.
    world.event(&topic("room"), None);
    world.drain();
    world.event(&topic("room"), None);
    world.drain();
    assert_eq!(texts(&world, 0, 0), ["event 2"]);
    let again = |world: &mut World, counter: u64, at| {
        let identity = Identity { origin: ORIGIN, counter };
        let Message::Event(event) = bus_event(&format!("event {counter}"), world.now.ms) else { panic!("an event") };
        let message = Message::Event(Event { identity, ..event });
        world.on(0, |hub, now, outs| hub.heard(now, topic("room").as_str(), at, message, outs));
    };
    // It seems as young as it can be: what it was on its way is not part of its age.
    world.pass(10);
    again(&mut world, 1, None);
    world.on(0, |hub, _, _| hub.other_log(0));
    again(&mut world, 1, Some(LogId::new(1, 0)));
    assert_eq!(texts(&world, 0, 0), ["event 2"], "it would be told behind what followed it");
    again(&mut world, 3, None);
    assert_eq!(texts(&world, 0, 0), ["event 2", "event 3"]);
}

/// RED-14
#[test]
fn a_log_that_is_read_again_much_later_brings_nothing_from_before_the_interest() {
    let mut world = World::new(1, 1, 1);
    for _ in 0..3 {
        world.event(&topic("elsewhere"), None);
    }
    world.join(0, 0, to("room"));
    world.drain();
    let since = world.now.ms;
    world.event(&topic("room"), None);
    world.drain();
    assert_eq!(texts(&world, 0, 0).len(), 1);
    world.pass(60_000);
    let read = |world: &mut World, text, at, accepted| {
        world.on(0, |hub, now, outs| hub.heard(now, topic("room").as_str(), at, bus_event(text, accepted), outs));
    };
    read(&mut world, "long ago", None, since - 1);
    world.told(0, Told::Doubtful(None));
    read(&mut world, "before it was opened", Some(LogId::new(1, 0)), since);
    assert_eq!(texts(&world, 0, 0).len(), 1, "neither its age nor its place is forgotten");
    world.on(0, |hub, _, _| hub.other_log(0));
    read(&mut world, "in another log", Some(LogId::new(1, 0)), since + 1);
    assert_eq!(texts(&world, 0, 0).len(), 2, "places of another log may be lower");
}

/// WS-94, RED-3
#[test]
fn what_was_accepted_before_the_kept_event_is_not_told_behind_it() {
    let mut world = World::new(1, 1, 1);
    world.join(0, 0, to("cache-room"));
    // While it is asked for; the bus has them as well, and only the answer says that they are in the records.
    let kept_for = Some(Duration::from_secs(60));
    let (_, given) = (world.event(&topic("cache-room"), kept_for), world.event(&topic("cache-room"), kept_for));
    let over_the_bus = |world: &mut World, counter: u64| {
        let Message::Event(mut event) = bus_event(&format!("event {counter}"), world.now.ms) else {
            panic!("an event")
        };
        (event.identity, event.cache_for) = (Identity { origin: 99, counter }, kept_for);
        world.on(0, |hub, now, outs| hub.heard(now, topic("cache-room").as_str(), None, Message::Event(event), outs));
    };
    over_the_bus(&mut world, 1);
    world.drain();
    assert_eq!(texts(&world, 0, 0), [""; 0], "held until then");
    over_the_bus(&mut world, 1);
    over_the_bus(&mut world, 2);
    assert_eq!(texts(&world, 0, 0), [""; 0], "heard later");
    let second = world.join(0, 0, to("cache-room"));
    world.drain();
    assert_eq!(joined(&world, 0, second).2, Some(given), "nor does it take the place of the kept one");
    over_the_bus(&mut world, 3);
    assert_eq!(texts(&world, 0, 0), ["event 3"]);
}

/// An event of a cache channel that was accepted five seconds ago.
fn old_event(world: &World) -> Event {
    let Message::Event(event) = bus_event("again", world.now.ms - 5_000) else { panic!("an event") };
    Event { cache_for: Some(Duration::from_secs(60)), ..event }
}

/// WS-94, RED-14, DEL-5
#[test]
fn what_is_appended_behind_a_newcomer_though_it_is_older_is_told_to_it_if_it_is_what_is_kept() {
    for is_kept in [true, false] {
        let mut world = World::new(1, 1, 1);
        world.now.ms = 60_000;
        let first = world.join(0, 0, to("cache-room"));
        world.drain();
        assert_eq!(joined(&world, 0, first).2, None, "the log lacked it");
        world.append(&topic("cache-room"), old_event(&world));
        if !is_kept {
            world.event(&topic("cache-room"), Some(Duration::from_secs(60)));
        }
        world.drain();
        let kept = if is_kept { "again" } else { "event 1" };
        assert_eq!(texts(&world, 0, 0), [kept], "as it is what a subscription made now is given");
        let second = world.join(0, 0, to("cache-room"));
        world.drain();
        assert_eq!(joined(&world, 0, second).2.as_deref(), Some(kept));
        assert_eq!(texts(&world, 0, 0), [kept], "once");
    }
}

/// WS-94, RED-14, DEL-5
#[test]
fn what_came_over_the_bus_though_it_is_older_is_told_and_kept_once_a_log_keeps_it() {
    let mut world = World::new(1, 1, 1);
    world.now.ms = 60_000;
    world.join(0, 0, to("cache-room"));
    world.drain();
    let event = old_event(&world);
    let (identity, message) = (event.identity, Message::Event(event));
    let of = topic("cache-room");
    world.on(0, |hub, now, outs| hub.heard(now, of.as_str(), None, message, outs));
    world.drain();
    assert_eq!(texts(&world, 0, 0), [""; 0], "it may be older than what was given");
    // Its copy from the log is a repeat.
    let at = world.keep(&of, old_event(&world));
    world.on(0, |hub, now, outs| hub.logged(now, of.as_str(), (identity, Some(at)), outs));
    world.drain();
    assert_eq!(texts(&world, 0, 0), ["again"]);
    let second = world.join(0, 0, to("cache-room"));
    world.drain();
    assert_eq!(joined(&world, 0, second).2.as_deref(), Some("again"));
}

/// RED-17, DEL-5
#[test]
fn what_is_held_from_the_bus_is_judged_by_its_place_once_a_log_has_it() {
    for is_in_the_answer in [true, false] {
        let mut world = World::new(1, 1, 1);
        world.now.ms = 60_000;
        let of = topic("cache-room");
        let ticket = world.join(0, 0, to("cache-room"));
        let event = old_event(&world);
        let (identity, message) = (event.identity, Message::Event(event));
        world.on(0, |hub, now, outs| hub.heard(now, of.as_str(), None, message, outs));
        let log = |world: &mut World| {
            let at = world.keep(&of, old_event(world));
            world.on(0, |hub, now, outs| hub.logged(now, of.as_str(), (identity, Some(at)), outs));
        };
        if is_in_the_answer {
            log(&mut world);
            world.drain();
        } else {
            world.drain();
            log(&mut world);
            world.drain();
        }
        let cached = joined(&world, 0, ticket).2;
        let heard = texts(&world, 0, 0);
        if is_in_the_answer {
            assert_eq!((cached.as_deref(), heard), (Some("again"), vec![]));
        } else {
            assert_eq!((cached, heard), (None, vec!["again".to_owned()]));
        }
    }
}

/// RED-17, WS-49: slots that move overtake each other.
#[test]
fn what_lies_behind_the_answer_to_a_newcomer_is_told_though_its_node_had_something_later_in_the_log() {
    let mut world = World::new(1, 1, 1);
    world.now.ms = 60_000;
    world.event(&topic("room"), None);
    world.join(0, 0, to("room"));
    world.drain();
    let hear = |world: &mut World, counter, at: Option<LogId>| {
        let Message::Event(event) = bus_event(&format!("{counter} {}", at.is_some()), world.now.ms) else {
            panic!("an event")
        };
        let message = Message::Event(Event { identity: Identity { origin: ORIGIN, counter }, ..event });
        world.on(0, |hub, now, outs| hub.heard(now, topic("room").as_str(), at, message, outs));
    };
    let behind = world.next_id();
    hear(&mut world, 0, None);
    hear(&mut world, 1, Some(behind));
    hear(&mut world, 0, Some(behind));
    assert_eq!(texts(&world, 0, 0), ["0 true"], "not what was given, nor what comes by another way");
}

/// WS-94
#[test]
fn a_kept_event_is_forgotten_after_its_time_and_shown_with_its_place() {
    let mut world = World::new(1, 1, 1);
    world.join(0, 0, to("cache-room"));
    world.drain();
    world.event(&topic("cache-room"), Some(Duration::from_secs(2)));
    world.drain();
    let ticket = world.join(0, 0, to("cache-room"));
    world.drain();
    assert_eq!(joined(&world, 0, ticket).2.as_deref(), Some("event 1"));
    let asked = Query::Cached { app: AppId::new("app"), channel: channel("cache-room") };
    let token = world.on(0, |hub, now, outs| hub.query(now, asked, outs));
    world.drain();
    let Some(Out::Reply(of, Ok(Reply::Cached(Some(cached))))) = world.nodes[0].done.pop() else { panic!("it is kept") };
    let live = world.heard(0, 0).into_iter().find_map(|heard| match heard {
        Heard::Delivery(delivery) => Some(delivery.position),
        _ => None,
    });
    assert_eq!((of, Some(cached.position), cached.ttl_s), (token, live, 2));
    world.pass(2_000);
    let late = world.join(0, 0, to("cache-room"));
    world.drain();
    assert_eq!(joined(&world, 0, late).2, None);
}

/// DEL-20
#[test]
fn who_comes_back_after_a_gap_is_given_what_the_records_have() {
    let mut world = World::new(1, 1, 1);
    world.join(0, 0, to("cache-room"));
    world.event(&topic("cache-room"), Some(Duration::from_secs(60)));
    world.drain();
    let topics = [topic("cache-room"), topic("of-nobody")];
    assert_eq!(world.on(0, |hub, now, outs| hub.missed(now, &topics, outs)), 1, "one has subscribers");
    assert!(changes(&world, 0).pop().expect("it is read again").wants_cached);
    let is_told = |heard: &Heard| matches!(heard, Heard::Delivery(d) if matches!(d.happening, Happening::Missed));
    assert!(world.heard(0, 0).last().is_some_and(is_told));
    let back = world.join(0, 0, to("cache-room"));
    world.drain();
    assert_eq!(joined(&world, 0, back).2.as_deref(), Some("event 1"));
    assert_eq!(world.figures(0).missed, [("app".to_owned(), 1)].into());
}

/// Publishes a kept event that the node does not hear.
fn publish_unheard(world: &mut World, to: &Topic) -> String {
    world.nodes[0].subscribed.remove(to);
    let text = world.event(to, Some(Duration::from_secs(60)));
    world.nodes[0].subscribed.insert(to.clone());
    text
}

/// Opens a cache channel with one subscriber and an event, both of which the node knows.
fn with_kept_event(join: Join) -> World {
    let mut world = World::new(1, 2, 1);
    let topic = topic(join.channel.as_str());
    world.join(0, 0, join);
    world.drain();
    world.event(&topic, Some(Duration::from_secs(60)));
    world.drain();
    world
}

/// DEL-20
#[test]
fn what_was_kept_before_a_gap_is_not_given_to_who_comes_when_nobody_was_left() {
    let (room, mut world) = (topic("cache-room"), with_kept_event(to("cache-room")));
    world.set_away(true);
    world.leave(0, 0, &to("cache-room"));
    world.pass(15_000);
    let unheard = publish_unheard(&mut world, &room);
    assert_eq!(world.on(0, |hub, now, outs| hub.missed(now, std::slice::from_ref(&room), outs)), 0);
    world.set_away(false);
    let back = world.join(0, 0, to("cache-room"));
    world.drain();
    assert_eq!(joined(&world, 0, back).2, Some(unheard));
}

/// DEL-20
#[test]
fn who_asked_before_a_gap_was_found_is_given_what_was_read_after_it() {
    let room = topic("cache-room");
    let join = || Join { counted: true, ..to("cache-room") };
    for is_made in [false, true] {
        let mut world = with_kept_event(join());
        let tickets = [(); 3].map(|()| world.join(0, 0, join()));
        while is_made && world.step(0, 1) {}
        let unheard = publish_unheard(&mut world, &room);
        world.on(0, |hub, now, outs| hub.missed(now, std::slice::from_ref(&room), outs));
        world.drain();
        for (number, ticket) in tickets.into_iter().enumerate() {
            assert_eq!(joined(&world, 0, ticket).2.as_ref(), Some(&unheard), "made before: {is_made}");
            let heard = world.heard(0, 0).into_iter();
            let after = heard.skip_while(|heard| !matches!(heard, Heard::Answer(a) if ticket_of(a) == Some(ticket)));
            let mut counts = after.filter_map(|heard| match heard {
                Heard::Delivery(delivery) => count(&delivery),
                _ => None,
            });
            assert_eq!(counts.next(), Some(number as u64 + 2), "each hears its own count");
        }
    }
}

/// DEL-20
#[test]
fn what_was_read_before_a_gap_was_found_is_read_again() {
    let room = topic("cache-room");
    let mut world = World::new(1, 1, 1);
    world.event(&room, Some(Duration::from_secs(60)));
    let ticket = world.join(0, 0, to("cache-room"));
    follow(&mut world, 0);
    assert!(world.step(0, 1), "the records are read");
    let unheard = publish_unheard(&mut world, &room);
    world.on(0, |hub, now, outs| hub.missed(now, std::slice::from_ref(&room), outs));
    world.drain();
    assert_eq!(joined(&world, 0, ticket).2, Some(unheard));
}

/// DEL-20, RED-25
#[test]
fn who_waits_for_an_edge_when_a_gap_is_found_is_given_what_was_read_after_it() {
    let room = topic("presence-cache-room");
    let mut world = with_kept_event(as_user("presence-cache-room", "ana", "1"));
    let bob = as_user("presence-cache-room", "bob", "1");
    world.join(1, 0, bob.clone());
    for _ in 0..2 {
        while (0..4).any(|kind| world.step(1, kind)) {}
    }
    let ticket = world.join(0, 0, bob);
    assert!(world.step(0, 1) && world.step(0, 3), "the records have both");
    assert!(world.answer_to(0, ticket).is_none(), "what the other connection said of itself is on its way");
    let unheard = publish_unheard(&mut world, &room);
    world.on(0, |hub, now, outs| hub.missed(now, std::slice::from_ref(&room), outs));
    while world.step(0, 2) {}
    world.drain();
    let (_, roster, cached) = joined(&world, 0, ticket);
    assert_eq!((roster, cached), (vec!["ana".to_owned(), "bob".to_owned()], Some(unheard)));
}

/// DEL-20, RED-25
#[test]
fn who_leaves_before_a_gap_lets_it_be_answered_is_present_to_nobody() {
    let room = topic("presence-cache-room");
    let mut world = with_kept_event(as_user("presence-cache-room", "ana", "1"));
    let bob = as_user("presence-cache-room", "bob", "1");
    world.join(0, 0, bob.clone());
    world.on(0, |hub, now, outs| hub.missed(now, std::slice::from_ref(&room), outs));
    world.leave(0, 0, &bob);
    // What was pushed comes before each answer.
    while [1, 2, 3].into_iter().any(|kind| world.step(0, kind)) {}
    world.drain();
    let eve = world.join(0, 0, as_user("presence-cache-room", "eve", "1"));
    world.drain();
    assert_eq!(joined(&world, 0, eve).1, ["ana", "eve"]);
    assert_eq!(world.figures(0).waiting, 0);
}

/// RED-17
#[test]
fn interest_outlives_the_last_subscriber_for_a_while() {
    let mut world = World::new(1, 2, 1);
    world.join(0, 0, to("cache-room"));
    world.drain();
    world.leave(0, 0, &to("cache-room"));
    world.live(9_000);
    assert_eq!(world.total(&topic("cache-room")), 0, "the records know at once");
    world.event(&topic("cache-room"), Some(Duration::from_secs(60)));
    world.drain();
    let back = world.join(0, 0, to("cache-room"));
    assert!(!changes(&world, 0).pop().expect("one more").wants_cached, "nothing is read again");
    world.drain();
    assert_eq!(joined(&world, 0, back).2.as_deref(), Some("event 1"), "it was kept current");
    world.live(20_000);
    assert_eq!(world.figures(0).topics, 1, "somebody is back");
    world.leave(0, 0, &to("cache-room"));
    world.live(9_900);
    assert_eq!(world.figures(0).topics, 1);
    world.live(400);
    assert_eq!((world.figures(0).topics, world.nodes[0].subscribed.len()), (0, 0));
    assert_eq!(world.nodes[0].hub.next_deadline(), None, "nothing is left to look at");
}

/// DEL-15
#[test]
fn leaves_that_were_never_joined_change_nothing_and_are_counted() {
    let mut world = World::new(1, 1, 2);
    world.join(0, 0, as_user("presence-room", "ana", "1"));
    world.drain();
    world.leave(0, 1, &as_user("presence-room", "ana", "1"));
    world.leave(0, 0, &as_user("presence-room", "bob", "1"));
    world.leave(0, 0, &to("presence-room"));
    world.leave(0, 0, &to("nowhere"));
    assert!(world.nodes[0].calls.is_empty());
    assert_eq!((world.figures(0).leaves_ignored, world.figures(0).topics), (4, 1));
}

/// WS-86
#[test]
fn a_refused_join_leaves_no_trace_also_with_others_behind_it() {
    let mut world = World::new(1, 1, 1);
    let limited = |id| Join { members_max: 2, ..as_user("presence-room", id, "1") };
    let tickets = ["ana", "bob", "eve", "eve", "ana"].map(|id| world.join(0, 0, limited(id)));
    world.drain();
    let answers = tickets.map(|ticket| world.answer_to(0, ticket));
    let full = JoinRefusal::MembersFull { max: 2 };
    let is_refused = |answer: &Option<Answer>| matches!(answer, Some(Answer::JoinRefused { why, .. }) if *why == full);
    assert_eq!(answers.iter().map(is_refused).collect::<Vec<_>>(), [false, false, true, true, false]);
    assert_eq!(world.total(&topic("presence-room")), 3);
    world.leave(0, 0, &limited("bob"));
    let eve = world.join(0, 0, limited("eve"));
    world.drain();
    assert_eq!(joined(&world, 0, eve).1, ["ana", "eve"]);
    assert_eq!(world.total(&topic("presence-room")), 3);
}

/// DEL-9
#[test]
fn there_is_room_when_every_interested_worker_has_some() {
    let mut world = World::new(1, 1, 2);
    world.join(0, 0, to("room"));
    world.drain();
    world.nodes[0].inboxes[1].is_full.store(true, Ordering::SeqCst);
    assert!(world.nodes[0].hub.has_room(topic("room").as_str()), "the full one is not interested");
    world.join(0, 1, to("room"));
    assert!(!world.nodes[0].hub.has_room(topic("room").as_str()));
    assert!(world.nodes[0].hub.has_room(topic("elsewhere").as_str()));
}

/// RED-17: every wait has a bound.
#[test]
fn too_much_held_for_a_topic_opens_it() {
    let mut world = World::new(1, 1, 1);
    let wall = world.now.ms;
    let ticket = world.join(0, 0, to("room"));
    for n in 0..=HELD_MAX as u64 {
        world.on(0, |hub, now, outs| hub.heard(now, topic("room").as_str(), None, bus_event("busy", wall + n), outs));
    }
    assert!(world.answer_to(0, ticket).is_some());
    assert_eq!(texts(&world, 0, 0).len(), HELD_MAX + 1);
    world.drain();
    assert_eq!(world.total(&topic("room")), 1, "the records are told all the same");
}

/// DEL-10
#[test]
fn what_a_client_says_goes_out_as_a_publication() {
    let mut world = World::new(1, 1, 1);
    let said = publication("private-room");
    world.ask(0, 0, Question::Publish(said));
    assert!(matches!(world.nodes[0].done.as_slice(), [Out::Publish(_)]));
}

/// RED-27
#[test]
fn edges_without_a_place_and_messages_nobody_follows_are_ignored() {
    let mut world = World::new(1, 1, 1);
    world.join(0, 0, as_user("presence-room", "ana", "1"));
    world.drain();
    let before = world.heard(0, 0).len();
    let gone = || Message::Removed(user("ana"));
    world.on(0, |hub: &mut Hub, now, outs| hub.heard(now, topic("presence-room").as_str(), None, gone(), outs));
    world.on(0, |hub, now, outs| hub.heard(now, topic("other").as_str(), Some(LogId::new(9, 9)), gone(), outs));
    assert_eq!(world.heard(0, 0).len(), before);
}

/// DEL-15: memory is bounded, and small where there is much of it.
#[test]
fn the_record_of_a_topic_is_small() {
    assert!(size_of::<Entry>() <= 192, "{}", size_of::<Entry>());
}

/// An app whose own server wants to hear of cached events that were missed, and of who comes and goes.
struct Wants;

impl Outbox for Wants {
    fn wanted(&self, _: &AppId, _: &ChannelName) -> Kinds {
        [EventKind::CacheMiss, EventKind::ChannelOccupied].into_iter().collect()
    }
    fn wanted_of_users(&self, _: &AppId) -> Kinds {
        [EventKind::UserOnline].into_iter().collect()
    }
    fn has_room(&self) -> bool {
        true
    }
    fn take(&self, _: Vec<Edge>) {
        unreachable!("the scripts leave edges");
    }
    fn take_before(&self, _: Vec<Edge>, _: &Arc<dyn Inbox>, _: Answer) -> Option<Answer> {
        unreachable!("the scripts leave edges");
    }
}

/// RED-32
#[test]
fn changes_say_which_edges_an_apps_own_server_wants_and_only_who_comes_can_miss_an_event() {
    let mut world = World::with_outbox(1, 1, 1, Some(Arc::new(Wants)));
    world.join(0, 0, to("cache-room"));
    world.join(0, 0, to("cache-room"));
    world.sign_in(0, 0, "ana", &[]);
    let mut asked = Vec::new();
    for _ in 0..4 {
        follow(&mut world, 0);
        asked.extend(changes(&world, 0));
        while world.step(0, 1) {}
        while world.step(0, 3) {}
    }
    world.leave(0, 0, &to("cache-room"));
    asked.extend(changes(&world, 0));
    let hooks = |asked: &Change| (asked.subscriptions, asked.hooks.iter().collect::<Vec<_>>());
    let of = |text: &str| asked.iter().filter(|change| change.topic.as_str() == text).map(hooks).collect::<Vec<_>>();
    let (occupied, missed) = (EventKind::ChannelOccupied, EventKind::CacheMiss);
    let left = (1, vec![occupied]);
    assert_eq!(of("app:cache-room"), [(1, vec![occupied, missed]), (2, vec![occupied, missed]), left]);
    assert_eq!(of("app::ana"), [(1, vec![EventKind::UserOnline])]);
}
