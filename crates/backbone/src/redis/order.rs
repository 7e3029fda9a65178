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

/// How far apart two publications of a topic may be for the later one to name the earlier.
pub const NAMED_WITHIN: Duration = Duration::from_secs(5);
/// A topic that is listened to for so much longer is one whose earlier publications must have come: what a message was on its
/// way is not part of the age that it tells.
pub const LISTENED_MARGIN: Duration = Duration::from_secs(2);
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
    /// The identity of the publication before this one, when it names one.
    #[must_use]
    pub fn before(event: &Event) -> Option<Identity> {
        let origin = event.identity.origin;
        (event.previous > 0).then_some(Identity { origin, counter: event.previous })
    }

    /// Whether a publication that has come is held here, and so not delivered yet.
    #[must_use]
    pub fn is_held(&self, identity: Identity) -> bool {
        !self.names.is_empty() && self.names.contains(&identity)
    }

    /// Holds a publication until `before` was delivered. Gives it back when as many are held as may be, or another waits for the
    /// same one.
    #[must_use]
    pub fn hold(&mut self, now: Duration, before: Identity, held: Held) -> Option<Held> {
        if self.held.len() >= HELD_MAX || self.held.contains_key(&before) {
            self.holes += 1;
            return Some(held);
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
    use fulmar_protocol::frame::Frame;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn id(counter: u64) -> Identity {
        Identity { origin: 7, counter }
    }

    fn held(counter: u64, previous: u64) -> Held {
        let frame = Frame::new("said");
        let (identity, repeat_of) = (id(counter), 0);
        let event = Event { identity, previous, accepted_ms: 0, repeat_of, except: None, cache_for: None, frame };
        Held { topic: "t".to_owned(), at: None, event }
    }

    fn put(order: &mut Order, now: Duration, counter: u64, previous: u64) {
        let held = held(counter, previous);
        let before = Order::before(&held.event).expect("it names one");
        assert!(order.hold(now, before, held).is_none());
    }

    /// RED-2
    #[test]
    fn what_comes_too_early_follows_what_it_waited_for_one_after_the_other() {
        let mut order = Order::default();
        put(&mut order, MS(0), 9, 5);
        put(&mut order, MS(0), 12, 9);
        assert!(order.is_held(id(9)) && order.is_held(id(12)) && !order.is_held(id(5)));
        assert!(order.after(id(4)).is_none());
        assert_eq!(order.after(id(5)).map(|held| held.event.identity), Some(id(9)));
        assert_eq!(order.after(id(9)).map(|held| held.event.identity), Some(id(12)));
        assert!(order.is_empty() && order.overdue(MS(10_000)).is_none() && order.holes() == 0);
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
        let late = held(2_000_000, 999_999);
        assert!(order.hold(MS(0), id(999_999), late).is_some());
        assert_eq!(order.holes(), 1);
    }
}
