//! Subscriptions one by one: what is asked for them, in which order, and what they cost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Answer, Happening, Identity, Join, JoinRefusal, Position, Question, Ticket};
use fulmar_protocol::name::ChannelName;
use fulmar_protocol::webhook::{Edge, EventKind, Kinds};

use super::walk::text;
use super::words::{as_user, bus_event, publication, to, topic, user};
use super::world::{Heard, ORIGIN, World};
use crate::redis::envelope::{Event, LogId, Message};
use crate::redis::hub::heard::HELD_MAX;
use crate::redis::hub::topics::Entry;
use crate::redis::hub::{Hub, Out};
use crate::redis::records::Told;
use crate::redis::records::{Call, Change};
use crate::{Inbox, Outbox};

pub fn joined(world: &World, node: usize, ticket: Ticket) -> (Position, Vec<String>, Option<String>) {
    let Some(Answer::Joined { position, roster, cached, .. }) = world.answer_to(node, ticket) else {
        panic!("it was let in")
    };
    let roster = roster.into_iter().flatten().map(|member| member.user_id.as_str().to_owned());
    (position, roster.collect(), cached.map(|frame| frame.text().to_owned()))
}

pub fn texts(world: &World, node: usize, worker: u8) -> Vec<String> {
    let heard = world.heard(node, worker);
    let deliveries = heard.iter().filter_map(|heard| match heard {
        Heard::Delivery(delivery) => text(delivery).map(str::to_owned),
        _ => None,
    });
    deliveries.collect()
}

pub fn changes(world: &World, node: usize) -> Vec<Change> {
    let changes = world.nodes[node].calls.iter().filter_map(|call| match call {
        Call::Change(change) => Some(change.clone()),
        _ => None,
    });
    changes.collect()
}

/// Follows and confirms, so that changes are asked.
pub fn follow(world: &mut World, node: usize) {
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
