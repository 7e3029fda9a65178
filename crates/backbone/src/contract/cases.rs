//! The promises about publications, subscriptions and what is kept, case by case.

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Delivery, Happening, Join, Position, Publication};
use fulmar_protocol::name::SocketId;

use super::world::{
    APP, Dice, Joined, START, Worker, as_user, channel, counted, event_text, excluding, ids, publication, to, wait_for,
};
use super::{Fixture, members};
use crate::{PublishError, Terms};

const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn reaches_every_worker_once(fixture: &Fixture) {
    let [twice, once, elsewhere] = fixture.workers();
    twice.join(to("room"));
    twice.join(to("room"));
    once.join(to("room"));
    elsewhere.join(to("other"));
    for n in 0..20 {
        fixture.event("room", &format!("event {n}"));
    }
    fixture.fence("room", &[&twice, &once]);
    fixture.fence("other", &[&elsewhere]);
    let expected: Vec<String> = (0..20).map(|n| format!("event {n}")).collect();
    for worker in [&twice, &once] {
        assert_eq!(worker.texts("room", START), expected);
        let identities: HashSet<_> = worker.heard().iter().map(|d| d.identity).collect();
        assert_eq!(identities.len(), worker.heard().len(), "every publication has an identity of its own");
    }
    assert_eq!(elsewhere.heard_on("room", START).len(), 0);
    let seen = |w: &Worker| w.heard().iter().map(|d| (d.identity, d.position)).collect::<Vec<_>>();
    assert_eq!(seen(&twice), seen(&once), "identity and place are the same everywhere");
}

pub(super) fn carries_the_exclusion(fixture: &Fixture) {
    let [sender, other] = fixture.workers();
    let socket = SocketId::new(3, 4);
    sender.join(to("private-room"));
    other.join(to("private-room"));
    assert_eq!(fixture.publish(vec![excluding(socket, publication("private-room", "over http"))]), Ok(()));
    sender.say(excluding(socket, publication("private-room", "from a client")));
    for worker in [&sender, &other] {
        fixture.eventually("both events are heard", || worker.texts("private-room", START).len() == 2);
        let excepts = worker.heard_on("private-room", START);
        let excepts = excepts.iter().filter_map(|d| match &d.happening {
            Happening::Event { except, .. } => Some(*except),
            _ => None,
        });
        assert_eq!(excepts.collect::<Vec<_>>(), [Some(socket), Some(socket)]);
    }
}

pub(super) fn keeps_one_order(fixture: &Fixture) {
    const ROOMS: [&str; 3] = ["a", "b", "c"];
    const EACH: usize = 300;
    let workers: [Worker; 4] = fixture.workers();
    for worker in &workers {
        for room in ROOMS {
            worker.join(to(room));
        }
    }
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for publisher in 0..4 {
            let start = &start;
            let through = &fixture.nodes[publisher % fixture.nodes.len()];
            scope.spawn(move || {
                let mut dice = Dice(publisher as u64);
                start.wait();
                for n in 0..EACH {
                    let text = format!("{publisher} {n}");
                    // One channel, or all three at once.
                    let rooms = if n % 5 == 0 { &ROOMS[..] } else { &ROOMS[dice.roll(3)..][..1] };
                    let call = rooms.iter().map(|room| publication(room, &text)).collect();
                    assert_eq!(wait_for(through.publish(call, Terms::default())), Ok(()));
                }
            });
        }
    });
    for room in ROOMS {
        fixture.fence(room, &workers.each_ref());
        let first = workers[0].heard_on(room, START);
        assert!(first.windows(2).all(|pair| pair[0].position < pair[1].position), "positions rise along {room}");
        for worker in &workers {
            let heard = worker.heard_on(room, START);
            assert!(heard.iter().map(|d| d.identity).eq(first.iter().map(|d| d.identity)), "one order along {room}");
        }
        for publisher in 0..4 {
            assert_in_order(&workers[0].texts(room, START), publisher);
        }
    }
}

/// The numbers behind `publisher` rise.
fn assert_in_order(texts: &[String], publisher: usize) {
    let prefix = format!("{publisher} ");
    let numbers = texts.iter().filter_map(|text| text.strip_prefix(&prefix)).map(|n| n.parse::<usize>());
    let numbers: Vec<usize> = numbers.map(|n| n.expect("cases number their events")).collect();
    assert!(!numbers.is_empty(), "publisher {publisher} was heard");
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "events of publisher {publisher} in order");
}

pub(super) fn keeps_a_publishers_order(fixture: &Fixture) {
    let [worker, sender] = fixture.workers();
    worker.join(to("private-room"));
    sender.join(to("private-room"));
    for n in 0..50 {
        fixture.event("private-room", &format!("0 {n}"));
        sender.say(publication("private-room", &format!("1 {n}")));
    }
    fixture.eventually("all is heard", || worker.texts("private-room", START).len() == 100);
    assert_in_order(&worker.texts("private-room", START), 0);
    assert_in_order(&worker.texts("private-room", START), 1);
}

pub(super) fn keeps_the_order_of_a_call(fixture: &Fixture) {
    let worker = fixture.worker(0);
    worker.join(to("a"));
    worker.join(to("b"));
    let call = (0..40).map(|n| publication(if n % 3 == 0 { "a" } else { "b" }, &format!("0 {n}"))).collect();
    assert_eq!(fixture.publish(call), Ok(()));
    for (room, count) in [("a", 14), ("b", 26)] {
        fixture.fence(room, &[&worker]);
        assert_eq!(worker.texts(room, START).len(), count);
        assert_in_order(&worker.texts(room, START), 0);
    }
    assert_eq!(fixture.publish(Vec::new()), Ok(()), "a call may be empty");
}

pub(super) fn joins_at_a_position(fixture: &Fixture) {
    race_joins_with_publishes(fixture, "room", None);
}

pub(super) fn joins_a_cache_at_a_position(fixture: &Fixture) {
    race_joins_with_publishes(fixture, "cache-room", Some(HOUR));
}

/// One subscription of the race: how it was answered and what it heard of the channel afterwards.
type Round = (Joined, Vec<(Position, String)>);

/// Joins and leaves without pause while somebody publishes, and compares what each subscription got with what a
/// witness heard who was there all the time.
fn race_joins_with_publishes(fixture: &Fixture, room: &str, cache_for: Option<Duration>) {
    let [witness, first, second] = fixture.workers();
    let opening = witness.join(to(room));
    let is_over = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let over = Over(&is_over);
        let racers = [&first, &second].map(|worker| scope.spawn(|| join_until(&is_over, worker, room)));
        for n in 0..3000 {
            let event = Publication { cache_for, ..publication(room, &format!("event {n}")) };
            assert_eq!(fixture.publish(vec![event]), Ok(()));
        }
        drop(over);
        racers.map(|racer| racer.join().expect("a racer does not panic"))
    });
    fixture.fence(room, &[&witness]);
    let all = events(witness.heard_on(room, opening.position));
    let is_one_node = fixture.nodes.len() == 1;
    for (joined, heard) in rounds.into_iter().flatten() {
        let before = all.partition_point(|(position, _)| *position <= joined.position);
        let before = if is_one_node { before } else { place_of(&all, &joined, &heard) };
        let texts = |events: &[(Position, String)]| events.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>();
        let expected = &all[before..][..heard.len()];
        assert_eq!(texts(expected), texts(&heard), "all that is later, from {:?} on", joined.position);
        assert!(!is_one_node || expected == heard, "at the same positions");
        let last = all[..before].last().map(|(_, text)| text.clone());
        assert_eq!(joined.cached, last.filter(|_| cache_for.is_some()), "the cached event at {:?}", joined.position);
    }
    let late = first.join(to(room));
    fixture.event(room, "after");
    fixture.fence(room, &[&first]);
    assert_eq!(first.texts(room, late.position), ["after"], "one more join hears the rest and nothing else");
}

/// Where in `all` a subscription on another node began: before the first that it heard, else behind what it was given. Positions
/// of different nodes are not comparable.
fn place_of(all: &[(Position, String)], joined: &Joined, heard: &[(Position, String)]) -> usize {
    let place = |text: &str| all.iter().position(|(_, known)| known == text);
    match (heard.first(), &joined.cached) {
        (Some((_, first)), _) => place(first).expect("the witness heard it too"),
        (None, Some(cached)) => place(cached).expect("the witness heard it too") + 1,
        (None, None) => 0,
    }
}

/// Ends a race, also where a publication was refused: nobody would wait for the end of racers that have none.
pub(super) struct Over<'a>(pub(super) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn join_until(is_over: &AtomicBool, worker: &Worker, room: &str) -> Vec<Round> {
    let mut dice = Dice(1);
    let mut rounds = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        let joined = worker.join(to(room));
        for _ in 0..dice.roll(4) {
            std::thread::yield_now();
        }
        worker.leave(&to(room));
        let heard = worker.take_heard().into_iter().filter(|d| d.position > joined.position).collect();
        rounds.push((joined, events(heard)));
    }
    rounds
}

fn events(heard: Vec<std::sync::Arc<Delivery>>) -> Vec<(Position, String)> {
    let events = heard.iter().filter_map(|d| event_text(d).map(|text| (d.position, text.to_owned())));
    events.filter(|(_, text)| !text.starts_with("fence")).collect()
}

pub(super) fn refuses_as_a_whole(fixture: &Fixture) {
    let open = fixture.worker(0);
    // On the same node: whether another node's workers have room may be unknown here.
    let full = fixture.worker(fixture.nodes.len());
    open.join(to("cache-open"));
    full.join(to("full"));
    full.fill(true);
    let call = || {
        let kept = |room, text| Publication { cache_for: Some(HOUR), ..publication(room, text) };
        vec![kept("cache-open", "first"), publication("full", "second"), kept("cache-open", "third")]
    };
    assert_eq!(fixture.publish(call()), Err(PublishError::NotAccepted));
    assert_eq!(fixture.publish(vec![publication("full", "alone")]), Err(PublishError::NotAccepted));
    fixture.fence("cache-open", &[&open]);
    assert_eq!(open.texts("cache-open", START), [] as [&str; 0], "what was refused reaches nobody");
    assert!(fixture.cached("cache-open").is_none(), "nor is it kept");
    full.fill(false);
    assert_eq!(fixture.publish(call()), Ok(()));
    fixture.fence("cache-open", &[&open]);
    fixture.fence("full", &[&full]);
    assert_eq!(open.texts("cache-open", START), ["first", "third"]);
    assert_eq!(full.texts("full", START), ["second"]);
}

pub(super) fn keeps_apps_apart(fixture: &Fixture) {
    let [ours, theirs] = fixture.workers();
    let other = |join: Join| Join { app: AppId::new("other"), ..join };
    let room = "presence-cache-room";
    let start = ours.join(Join { counted: true, ..as_user(room, "ana", "1") });
    let joined = theirs.join(other(Join { counted: true, ..as_user(room, "bob", "2") }));
    assert_eq!(joined.roster.as_deref().map(ids), Some(vec!["bob".to_owned()]));
    fixture.cached_event(room, "ours", HOUR);
    assert_eq!(theirs.join(other(as_user(room, "bob", "2"))).cached, None);
    assert_eq!(ours.join(as_user(room, "ana", "1")).cached.as_deref(), Some("ours"));
    let foreign = Publication { app: AppId::new("other"), ..publication(room, "theirs") };
    assert_eq!(fixture.publish(vec![foreign]), Ok(()));
    fixture.fence(room, &[&ours]);
    assert!(ours.heard().iter().all(|d| d.app.as_str() == APP));
    fixture.eventually("the other app hears its own", || !theirs.texts(room, joined.position).is_empty());
    assert!(theirs.heard().iter().all(|d| d.app.as_str() == "other"));
    assert_eq!(members::edges(&ours, room, start.position).len(), 0);
    assert_eq!(fixture.members(room), ["ana"]);
    assert_eq!(fixture.channels("other", "").len(), 1);
    assert_eq!(fixture.channels("nobody", ""), []);
}

pub(super) fn empties(fixture: &Fixture) {
    let [first, second] = fixture.workers();
    let joins = [to("room"), counted("counted"), as_user("presence-room", "ana", "1"), to("cache-room")];
    for worker in [&first, &second] {
        joins.iter().for_each(|join| drop(worker.join(join.clone())));
    }
    fixture.cached_event("cache-room", "kept", HOUR);
    assert_eq!(fixture.channels(APP, "").len(), 4);
    for worker in [&first, &second] {
        joins.iter().for_each(|join| worker.leave(join));
    }
    fixture.eventually("nothing is occupied", || fixture.channels(APP, "").is_empty());
    assert_eq!(fixture.named(&["room", "counted", "presence-room", "cache-room"]), [(0, 0); 4]);
    assert_eq!(fixture.members("presence-room"), [] as [&str; 0]);
    assert_eq!(first.join(to("cache-room")).cached.as_deref(), Some("kept"), "a kept event outlives its subscribers");
    let back = first.join(as_user("presence-room", "bob", "1"));
    assert_eq!(back.roster.as_deref().map(ids), Some(vec!["bob".to_owned()]));
}

pub(super) fn survives_stray_leaves(fixture: &Fixture) {
    const ROOM: &str = "presence-room";
    let [joined, stranger] = fixture.workers();
    let ana = || as_user(ROOM, "ana", "1");
    stranger.leave(&ana());
    stranger.leave(&counted("nowhere"));
    let start = joined.join(ana());
    stranger.leave(&ana());
    joined.leave(&as_user(ROOM, "bob", "1"));
    joined.leave(&to(ROOM));
    fixture.fence(ROOM, &[&joined]);
    assert_eq!(members::edges(&joined, ROOM, start.position).len(), 0);
    assert_eq!(fixture.named(&[ROOM, "nowhere"]), [(1, 1), (0, 0)]);
    joined.leave(&ana());
    joined.leave(&ana());
    fixture.eventually("it is empty", || fixture.named(&[ROOM]) == [(0, 0)]);
}

pub(super) fn keeps_what_is_to_be_kept(fixture: &Fixture) {
    const ROOM: &str = "private-cache-room";
    let [first, second] = fixture.workers();
    assert_eq!(first.join(to(ROOM)).cached, None);
    fixture.cached_event("cache-nobody", "alone", HOUR);
    assert_eq!(second.join(to("cache-nobody")).cached.as_deref(), Some("alone"), "also with no subscriber");
    fixture.cached_event(ROOM, "one", HOUR);
    fixture.cached_event(ROOM, "two", HOUR);
    first.say(publication(ROOM, "from a client"));
    fixture.event(ROOM, "not to be kept");
    fixture.eventually("the client event is heard", || first.texts(ROOM, START).len() == 4);
    let joined = second.join(to(ROOM));
    assert_eq!(joined.cached.as_deref(), Some("two"));
    let cached = fixture.cached(ROOM).expect("it is kept");
    assert_eq!((cached.frame.text(), cached.ttl_s), ("two", 3600));
    assert!(cached.position <= joined.position || fixture.nodes.len() > 1, "positions are a node's own");
    let heard = first.heard_on(ROOM, START);
    let live = heard.iter().find(|d| event_text(d) == Some("two")).expect("it was heard live");
    assert_eq!(cached.position, live.position, "kept with its place");
    assert_eq!(first.join(to("room")).cached, None);
}

pub(super) fn forgets(fixture: &Fixture) {
    const ROOM: &str = "cache-room";
    let s = Duration::from_secs;
    let worker = fixture.worker(0);
    let ttl = || fixture.cached(ROOM).map(|c| c.ttl_s);
    fixture.cached_event(ROOM, "one", s(10));
    (fixture.pass)(s(6));
    assert_eq!(ttl(), Some(4));
    fixture.cached_event(ROOM, "two", s(10));
    (fixture.pass)(s(6));
    assert_eq!(worker.join(to(ROOM)).cached.as_deref(), Some("two"), "the new one starts anew");
    (fixture.pass)(Duration::from_millis(2_500));
    assert_eq!(ttl(), Some(2), "whole seconds, rounded up");
    (fixture.pass)(s(1));
    assert_eq!(ttl(), Some(1));
    (fixture.pass)(Duration::from_millis(500));
    assert_eq!(ttl(), None);
    assert_eq!(worker.join(to(ROOM)).cached, None);
    fixture.fence(ROOM, &[&worker]);
    assert_eq!(worker.texts(ROOM, START), [] as [&str; 0], "what is kept is not sent again");
}

pub(super) fn lists_channels(fixture: &Fixture) {
    let [first, second] = fixture.workers();
    for room in ["room-1", "room-2", "presence-a", "presence-b"] {
        let join = if room.starts_with("presence") { as_user(room, "ana", "1") } else { to(room) };
        first.join(join.clone());
        second.join(join);
    }
    second.join(as_user("presence-b", "bob", "1"));
    fixture.cached_event("cache-unoccupied", "kept", HOUR);
    let listed = |prefix| {
        let states = fixture.channels(APP, prefix);
        states.iter().map(|s| (s.channel.to_string(), s.subscriptions, s.members)).collect::<Vec<_>>()
    };
    let a = || ("presence-a".to_owned(), 2, 1);
    let b = || ("presence-b".to_owned(), 3, 2);
    let rooms = || [("room-1".to_owned(), 2, 0), ("room-2".to_owned(), 2, 0)];
    assert_eq!(listed("presence-"), [a(), b()]);
    assert_eq!(listed("presence-b"), [b()]);
    assert_eq!(listed(""), [vec![a(), b()], rooms().to_vec()].concat());
    assert_eq!(listed("nothing"), []);
    assert_eq!(fixture.named(&["room-1", "absent", "presence-b"]), [(2, 0), (0, 0), (3, 2)]);
    assert_eq!(fixture.members("presence-b"), ["ana", "bob"]);
    assert_eq!(fixture.members("room-1"), [] as [&str; 0]);
}

pub(super) fn hides_server_to_user(fixture: &Fixture) {
    let worker = fixture.worker(0);
    worker.join(to("#server-to-user-ana"));
    worker.join(to("room"));
    let names: Vec<_> = fixture.channels(APP, "").into_iter().map(|s| s.channel).collect();
    assert_eq!(names, [channel("room")]);
    assert_eq!(fixture.channels(APP, "#server"), []);
    fixture.event("#server-to-user-ana", "for ana");
    fixture.fence("#server-to-user-ana", &[&worker]);
    assert_eq!(worker.texts("#server-to-user-ana", START), ["for ana"]);
}
