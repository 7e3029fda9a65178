//! What is published before, during and after an outage, and who hears it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fulmar_protocol::app::Durability;

use super::super::Fixture;
use super::super::cases::Over;
use super::super::world::{START, Worker, publication, to, wait_for};
use crate::{PublishError, Terms};

/// Channels of a case: enough that whatever part of the store is away has some of them.
const ROOMS: [&str; 8] = ["room-0", "room-1", "room-2", "room-3", "room-4", "room-5", "room-6", "room-7"];

/// As many publishers and subscribed workers, one on each node.
const SEATS: usize = 3;

/// Events of one publisher before an outage, and after it.
const FEW: usize = 4 * ROOMS.len();

/// Events of one publisher during an outage, at most.
const MANY: usize = 16 * ROOMS.len();

/// Longer than a call may wait before it is refused.
const REFUSING: Duration = Duration::from_millis(4_500);

/// Longer than it takes until a primary that is back is the only way again.
const SETTLING: Duration = Duration::from_secs(3);

/// One after the other through one node, each to the room whose turn it is: event `n` to room `n` modulo their number.
struct Publisher<'a> {
    fixture: &'a Fixture,
    name: String,
    seat: usize,
    terms: Terms,
    /// What each event was answered.
    answers: Vec<Result<(), PublishError>>,
}

impl<'a> Publisher<'a> {
    fn new(fixture: &'a Fixture, seat: usize, durability: Durability) -> Self {
        let name = format!("{durability:?}-{seat}");
        Self { fixture, name, seat, terms: Terms { durability, ..Terms::default() }, answers: Vec::new() }
    }

    fn text(&self, number: usize) -> String {
        format!("{} {number}", self.name)
    }

    /// Publishes the next event.
    fn go_on(&mut self) -> bool {
        let number = self.answers.len();
        let event = publication(ROOMS[number % ROOMS.len()], &self.text(number));
        let through = &self.fixture.nodes[self.seat % self.fixture.nodes.len()];
        self.answers.push(wait_for(through.publish(vec![event], self.terms)));
        self.answers[number].is_ok()
    }

    /// Publishes until so many, at least, and the last to every room were accepted.
    fn end(&mut self, count: usize) {
        let mut in_a_row = 0;
        let mut left = count.max(ROOMS.len());
        self.fixture.eventually("publications are accepted again", || {
            while left > 0 || in_a_row < ROOMS.len() {
                let is_accepted = self.go_on();
                left = left.saturating_sub(1);
                in_a_row = if is_accepted { in_a_row + 1 } else { 0 };
                if !is_accepted {
                    return false;
                }
            }
            true
        });
    }

    /// Waits until these have heard what was accepted last in every room: what was published before it has come by then, or never
    /// will.
    fn await_heard(&self, workers: &[Worker]) {
        for (room, name) in ROOMS.iter().enumerate() {
            let of_room = (room..self.answers.len()).step_by(ROOMS.len());
            let Some(last) = of_room.rev().find(|number| self.answers[*number].is_ok()) else { continue };
            workers.iter().for_each(|worker| worker.await_text(name, &self.text(last)));
        }
    }

    /// What a worker heard of this publisher is what was accepted, once and in order; and nothing that was refused for certain.
    fn judge(&self, worker: &Worker) {
        let prefix = format!("{} ", self.name);
        for (room, name) in ROOMS.iter().enumerate() {
            let texts = worker.texts(name, START);
            let numbers = texts.iter().filter_map(|text| text.strip_prefix(&prefix)).map(str::parse);
            let heard: Vec<usize> = numbers.map(|n| n.expect("cases number their events")).collect();
            let wrong = heard.windows(2).find(|pair| pair[0] >= pair[1]);
            assert_eq!(wrong, None, "{prefix}in {name}, in order and once");
            for number in (room..self.answers.len()).step_by(ROOMS.len()) {
                let is_heard = heard.binary_search(&number).is_ok();
                match &self.answers[number] {
                    Ok(()) => assert!(is_heard, "{prefix}{number} was accepted and is not heard in {name}"),
                    Err(PublishError::NotAccepted) => assert!(!is_heard, "{prefix}{number} was refused and is heard"),
                    Err(PublishError::Unknown { .. }) => {}
                }
            }
        }
    }
}

/// One worker on each node, subscribed to every room.
fn subscribed(fixture: &Fixture) -> [Worker; SEATS] {
    let workers = fixture.workers();
    for worker in &workers {
        ROOMS.iter().for_each(|room| drop(worker.join(to(room))));
    }
    workers
}

pub(in super::super) fn loses_and_doubles_nothing(fixture: &Fixture) {
    let workers: [Worker; SEATS] = subscribed(fixture);
    let seats = |durability| (0..SEATS).map(move |seat| Publisher::new(fixture, seat, durability));
    let mut publishers: Vec<Publisher<'_>> = seats(Durability::Replicated).chain(seats(Durability::Memory)).collect();
    publishers.iter_mut().for_each(|publisher| publisher.end(FEW));
    publishers.iter().for_each(|publisher| publisher.await_heard(&workers));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        fixture
            .while_away(|| {
                let over = Over(&is_over);
                let publishing: Vec<_> = publishers
                    .drain(..)
                    .map(|mut publisher| {
                        scope.spawn(|| {
                            for _ in 0..MANY {
                                publisher.go_on();
                                if is_over.load(Ordering::SeqCst) && publisher.terms.durability != Durability::Memory {
                                    break;
                                }
                            }
                            publisher
                        })
                    })
                    .collect();
                if !fixture.outage.has_detour {
                    // Nobody hears anything. Who waits longest is refused.
                    (fixture.pass)(REFUSING);
                    drop(over);
                    return publishing;
                }
                let published = publishing.into_iter().map(|thread| thread.join().expect("publishing does not panic"));
                publishers.extend(published);
                publishers.iter().for_each(|publisher| publisher.await_heard(&workers));
                Vec::new()
            })
            .into_iter()
            .for_each(|thread| publishers.push(thread.join().expect("publishing does not panic")));
    });
    publishers.iter_mut().for_each(|publisher| publisher.end(FEW));
    publishers.iter().for_each(|publisher| publisher.await_heard(&workers));
    for publisher in &publishers {
        workers.iter().for_each(|worker| publisher.judge(worker));
    }
    workers.iter().for_each(|worker| worker.missed_nothing());
}

pub(in super::super) fn keeps_the_order_over_both_its_ends(fixture: &Fixture) {
    let workers: [Worker; SEATS] = subscribed(fixture);
    let (is_over, accepted) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut publisher = Publisher::new(fixture, 0, Durability::default());
    let goes_on = |more: usize| {
        let before = accepted.load(Ordering::SeqCst);
        fixture.eventually("the publisher goes on", || accepted.load(Ordering::SeqCst) >= before + more);
    };
    std::thread::scope(|scope| {
        let over = Over(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let is_accepted = publisher.go_on();
                accepted.fetch_add(usize::from(is_accepted), Ordering::SeqCst);
            }
        });
        goes_on(MANY);
        fixture.while_away(|| {
            if fixture.outage.has_detour {
                goes_on(MANY);
            }
            (fixture.pass)(SETTLING / 2);
        });
        goes_on(MANY);
        (fixture.pass)(SETTLING);
        drop(over);
    });
    publisher.end(FEW);
    publisher.await_heard(&workers);
    workers.iter().for_each(|worker| publisher.judge(worker));
    workers.iter().for_each(|worker| worker.missed_nothing());
}

/// The only subscription of a node on the rooms of a seat.
struct Only {
    worker: Worker,
    room: String,
}

impl Only {
    /// Numbers of the events heard after a position.
    fn numbers(&self, after: fulmar_protocol::exchange::Position) -> Vec<usize> {
        let texts = self.worker.texts(&self.room, after);
        texts.iter().map(|text| text.parse().expect("cases number their events")).collect()
    }
}

/// Publishes numbers, of which each must be accepted, through the node beside the one of a seat.
fn count(fixture: &Fixture, seat: usize, room: &str, numbers: std::ops::Range<usize>) {
    let through = &fixture.nodes[(seat + 1) % fixture.nodes.len()];
    let terms = Terms { durability: Durability::Memory, ..Terms::default() };
    for number in numbers {
        let event = publication(room, &number.to_string());
        assert_eq!(wait_for(through.publish(vec![event], terms)), Ok(()), "a node keeps it until the store is back");
    }
}

pub(in super::super) fn interest_outlives_its_last_subscription(fixture: &Fixture) {
    const BURST: usize = 20;
    let only = |number: usize| {
        let (seat, room) = (number % SEATS, number / SEATS);
        (seat, Only { worker: fixture.worker(seat), room: format!("{}-{seat}", ROOMS[room]) })
    };
    let all: Vec<(usize, Only)> = (0..SEATS * ROOMS.len()).map(only).collect();
    let burst = |number: usize| {
        let numbers = number * BURST..(number + 1) * BURST;
        all.iter().for_each(|(seat, only)| count(fixture, *seat, &only.room, numbers.clone()));
    };
    for (_, Only { worker, room }) in &all {
        worker.join(to(room));
        worker.leave(&to(room));
        let back = worker.join(to(room));
        assert!(worker.texts(room, back.position).is_empty(), "nothing was published yet");
    }
    burst(0);
    for (_, only) in &all {
        only.worker.await_text(&only.room, &(BURST - 1).to_string());
        assert_eq!(only.numbers(START), Vec::from_iter(0..BURST), "taken again at once, it hears all from there on");
        only.worker.leave(&to(&only.room));
    }
    let joins = fixture.while_away(|| {
        burst(1);
        let joins = std::thread::scope(|scope| {
            let joining: Vec<_> =
                all.iter().map(|(_, only)| scope.spawn(|| only.worker.join(to(&only.room)))).collect();
            burst(2);
            let joined = joining.into_iter().map(|thread| thread.join().expect("it is let in"));
            joined.collect::<Vec<_>>()
        });
        burst(3);
        if fixture.outage.has_detour {
            all.iter().for_each(|(_, only)| only.worker.await_text(&only.room, &(4 * BURST - 1).to_string()));
        }
        joins
    });
    burst(4);
    for ((_, only), joined) in all.iter().zip(joins) {
        only.worker.await_text(&only.room, &(5 * BURST - 1).to_string());
        let heard = only.numbers(joined.position);
        let from = 5 * BURST - heard.len();
        assert!(from <= 3 * BURST, "all that was published after the answer: {heard:?}");
        assert_eq!(heard, Vec::from_iter(from..5 * BURST), "without a gap, in order and once, in {}", only.room);
        only.worker.missed_nothing();
    }
}
