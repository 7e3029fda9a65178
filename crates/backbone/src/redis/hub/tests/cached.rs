//! What cache channels keep: who is given it, who is told it, and when it is read anew.

use std::time::Duration;

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Happening, Identity, Join};

use super::joins::{changes, follow, joined, texts};
use super::walk::count;
use super::words::{as_user, bus_event, channel, ticket_of, to, topic};
use super::world::{Heard, World};
use crate::redis::envelope::{Event, Message};
use crate::redis::hub::Out;
use crate::redis::topic::Topic;
use crate::{Query, Reply};

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
    let of = topic("cache-room");
    for (is_answered_first, cached, told) in [(false, Some("again"), vec![]), (true, None, vec!["again"])] {
        let mut world = World::new(1, 1, 1);
        world.now.ms = 60_000;
        let ticket = world.join(0, 0, to("cache-room"));
        let event = old_event(&world);
        let identity = event.identity;
        world.on(0, |hub, now, outs| hub.heard(now, of.as_str(), None, Message::Event(event), outs));
        if is_answered_first {
            world.drain();
        }
        let at = world.keep(&of, old_event(&world));
        world.on(0, |hub, now, outs| hub.logged(now, of.as_str(), (identity, Some(at)), outs));
        world.drain();
        assert_eq!(joined(&world, 0, ticket).2.as_deref(), cached);
        assert_eq!(texts(&world, 0, 0), told, "once, in one way or the other");
    }
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
