//! Publications that are here before the one they follow: held until that one has come, for a moment at most (rule 2).
//!
//! Every way is complete and in order from where it begins, but there is more than one, and ways end: what was lost with one
//! may come by another a little later than what followed it. Each publication names the one before it of the same origin on the
//! same topic, if that was not long before; whoever listened then knows whether it has come. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use fulmar_protocol::exchange::Identity;
use hashbrown::{HashMap, HashSet};

use super::envelope::{Event, LogId};
use super::seen::Seen;

/// How far apart two publications of a topic may be for the later one to name the earlier.
pub const NAMED_WITHIN: Duration = Duration::from_secs(5);
/// How long before a publication was made its topic must have been listened to at least, for it to be one that must have come: what
/// a message was on its way is not part of the age that it tells.
const LISTENED_MARGIN_MS: u64 = 1_000;
/// Longest a publication is held.
pub const HELD_FOR: Duration = Duration::from_millis(300);
/// Publications held at most. When there are more, the one that came last is delivered at once and counted as a hole.
const HELD_MAX: usize = 4_096;

/// A publication that waits, with its topic and its place in the log.
#[derive(Debug)]
pub struct Held {
    /// The topic's text.
    pub topic: String,
    /// Its place, when it came from the log.
    pub at: Option<LogId>,
    /// The publication.
    pub event: Event,
}

/// What is held. Costs nothing while that is nothing.
#[derive(Debug, Default)]
pub struct Order {
    /// By the identity that each waits for.
    held: HashMap<Identity, Held>,
    /// Identities of those that are held.
    names: HashSet<Identity>,
    deadlines: VecDeque<(Duration, Identity)>,
    holes: u64,
}

impl Order {
    /// The publication that this one must wait for: the one that it follows, where that was made while its topic was listened to
    /// here (since `listened_since`, in milliseconds as the event's own time) and has not been told.
    #[must_use]
    pub fn missing(
        &self,
        seen: &Seen,
        event: &Event,
        listened_since: impl FnOnce() -> Option<u64>,
    ) -> Option<Identity> {
        let previous = event.previous?;
        let before = Identity { origin: event.identity.origin, counter: previous.counter };
        let is_told = seen.knows(before) && (self.names.is_empty() || !self.names.contains(&before));
        if is_told {
            return None;
        }
        let made_ms = event.accepted_ms.saturating_sub(u64::from(previous.ms_before));
        let must_have_come = listened_since()?.saturating_add(LISTENED_MARGIN_MS) <= made_ms;
        must_have_come.then_some(before)
    }

    /// Holds a publication until `before` was delivered, and whatever waits for the same one already: a publication with a key is
    /// nobody's predecessor, so several may follow one. Gives it back when as many are held as may be.
    #[must_use]
    pub fn hold(&mut self, now: Duration, mut before: Identity, held: Held) -> Option<Held> {
        if self.held.len() >= HELD_MAX {
            self.holes += 1;
            return Some(held);
        }
        while let Some(other) = self.held.get(&before) {
            before = other.event.identity;
        }
        self.names.insert(held.event.identity);
        self.deadlines.push_back((now + HELD_FOR, before));
        self.held.insert(before, held);
        None
    }

    /// Takes out what waited for this one, which was just delivered.
    pub fn after(&mut self, delivered: Identity) -> Option<Held> {
        if self.held.is_empty() {
            return None;
        }
        let held = self.held.remove(&delivered)?;
        self.names.remove(&held.event.identity);
        Some(held)
    }

    /// Takes out what has waited for long enough; the one before it counts as a hole.
    pub fn overdue(&mut self, now: Duration) -> Option<Held> {
        while let Some((at, before)) = self.deadlines.front().copied() {
            let is_waiting = self.held.contains_key(&before);
            if is_waiting && now < at {
                return None;
            }
            self.deadlines.pop_front();
            if is_waiting {
                self.holes += 1;
                return self.after(before);
            }
        }
        None
    }

    /// Whether anything is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Publications that were delivered without the one before them.
    #[must_use]
    pub fn holes(&self) -> u64 {
        self.holes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::envelope::Previous;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn id(counter: u64) -> Identity {
        Identity { origin: 7, counter }
    }

    fn held(counter: u64, previous: Option<Previous>) -> Held {
        Held { topic: "t".to_owned(), at: None, event: Event::bare(counter, previous) }
    }

    fn put(order: &mut Order, now: Duration, counter: u64, previous: u64) {
        assert!(order.hold(now, id(previous), held(counter, None)).is_none());
    }

    /// RED-2
    #[test]
    fn what_was_made_while_nobody_listened_or_has_been_told_is_not_waited_for() {
        let (mut order, mut seen) = (Order::default(), Seen::default());
        seen.note(MS(0), id(5));
        let asked = |order: &Order, seen: &Seen, counter, since, accepted_ms| {
            let mut event = held(9, Some(Previous { counter, ms_before: 3_000 })).event;
            event.accepted_ms = accepted_ms;
            order.missing(seen, &event, || since)
        };
        assert_eq!(asked(&order, &seen, 8, Some(0), 4_000), Some(id(8)));
        assert_eq!(asked(&order, &seen, 8, Some(0), 3_999), None, "it may have been made before somebody listened");
        assert_eq!(asked(&order, &seen, 8, None, 4_000), None, "nobody is told before the topic is open");
        assert_eq!(order.missing(&seen, &held(9, None).event, || Some(0)), None, "it follows nothing");
        assert_eq!(asked(&order, &seen, 5, Some(0), 4_000), None, "that was told");
        put(&mut order, MS(0), 8, 7);
        seen.note(MS(0), id(8));
        assert_eq!(asked(&order, &seen, 8, Some(0), 4_000), Some(id(8)), "that has come and is held itself");
    }

    /// RED-2
    #[test]
    fn what_comes_too_early_follows_what_it_waited_for_one_after_the_other() {
        let mut order = Order::default();
        put(&mut order, MS(0), 9, 5);
        put(&mut order, MS(0), 12, 9);
        assert!(order.after(id(4)).is_none());
        assert_eq!(order.after(id(5)).map(|held| held.event.identity), Some(id(9)));
        assert_eq!(order.after(id(9)).map(|held| held.event.identity), Some(id(12)));
        assert!(order.is_empty() && order.overdue(MS(10_000)).is_none() && order.holes() == 0);
    }

    /// RED-2, DEL-10: nothing names a publication with a key as the one before it.
    #[test]
    fn of_several_that_wait_for_the_same_the_first_to_come_goes_first() {
        let mut order = Order::default();
        [6, 7, 8].into_iter().for_each(|counter| put(&mut order, MS(0), counter, 5));
        let mut told = 5;
        while let Some(held) = order.after(id(told)) {
            told += 1;
            assert_eq!(held.event.identity, id(told));
        }
        assert_eq!((told, order.holes()), (8, 0));
    }

    /// RED-2
    #[test]
    fn nobody_waits_longer_than_a_moment_for_what_does_not_come() {
        let mut order = Order::default();
        put(&mut order, MS(0), 9, 5);
        put(&mut order, MS(100), 30, 20);
        assert!(order.overdue(MS(299)).is_none());
        assert_eq!(order.overdue(MS(300)).map(|held| held.event.identity), Some(id(9)));
        assert!(order.overdue(MS(300)).is_none());
        assert_eq!(order.overdue(MS(400)).map(|held| held.event.identity), Some(id(30)));
        assert_eq!((order.holes(), order.is_empty()), (2, true));
    }

    /// RED-2
    #[test]
    fn what_there_is_no_room_for_is_given_back_at_once() {
        let mut order = Order::default();
        for number in 0..HELD_MAX as u64 {
            put(&mut order, MS(0), 1_000_000 + number, 1 + number);
        }
        let late = held(2_000_000, None);
        assert!(order.hold(MS(0), id(999_999), late).is_some());
        assert_eq!(order.holes(), 1);
    }
}
