//! What other nodes put on the bus, as long as no log was heard to have it: whoever outlives such a node appends it.
//!
//! A publication that every live node has heard over the bus is accepted, though no log has it yet. Its own node appends it once the
//! group is back; one that died meanwhile does not. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use fulmar_protocol::exchange::Identity;
use hashbrown::HashMap;

use super::envelope::{Event, Message};
use super::lane::{Item, Spec};
use super::topic::Topic;

/// How long it is kept: a group that is away for that long, less the time it takes to find a node dead, loses nothing by that death.
const KEPT: Duration = Duration::from_secs(90);
/// Bytes of messages kept at most; beyond it the oldest go.
const BYTES_MAX: usize = 32 << 20;

/// Publications of other nodes, by node and in the order they were accepted.
#[derive(Debug)]
pub struct Inheritance {
    own: u64,
    by_origin: HashMap<u64, BTreeMap<u64, Heard>>,
    /// In the order heard; what was taken out since is passed over.
    order: VecDeque<(Duration, Identity)>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Heard {
    at: Duration,
    topic: Topic,
    message: Bytes,
}

impl Inheritance {
    /// Nothing yet. `own` is the origin of this node, which appends what is its own anyway.
    #[must_use]
    pub fn new(own: u64) -> Self {
        Self { own, by_origin: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max: BYTES_MAX }
    }

    /// Something came over the bus.
    pub fn heard(&mut self, now: Duration, topic: &str, message: &[u8]) {
        let Some(identity) = Event::identity_of(message).filter(|identity| identity.origin != self.own) else { return };
        // It comes again and again while the bus is in use.
        if self.by_origin.get(&identity.origin).is_some_and(|known| known.contains_key(&identity.counter)) {
            return;
        }
        let Some(topic) = Topic::parse(topic) else { return };
        let heard = Heard { at: now, topic, message: Bytes::copy_from_slice(message) };
        self.by_origin.entry(identity.origin).or_default().insert(identity.counter, heard);
        self.order.push_back((now, identity));
        self.bytes += message.len();
        while self.bytes > self.bytes_max && self.drop_oldest() {}
    }

    /// It came from a log: nobody needs to append it.
    pub fn logged(&mut self, identity: Identity) {
        // Nearly always, the bus being out of use.
        if self.bytes == 0 {
            return;
        }
        let Some(of_origin) = self.by_origin.get_mut(&identity.origin) else { return };
        if let Some(heard) = of_origin.remove(&identity.counter) {
            self.bytes -= heard.message.len();
        }
        if of_origin.is_empty() {
            self.by_origin.remove(&identity.origin);
        }
    }

    /// Drops what is too old.
    pub fn sweep(&mut self, now: Duration) {
        while self.order.front().is_some_and(|(at, _)| now >= *at + KEPT) && self.drop_oldest() {}
    }

    fn drop_oldest(&mut self) -> bool {
        let oldest = self.order.pop_front();
        oldest.into_iter().for_each(|(_, identity)| self.logged(identity));
        oldest.is_some()
    }

    /// A node is dead: what it left, to be appended in its place. Once, whoever comes first: each has a key, by which the others'
    /// are dropped.
    pub fn take(&mut self, origin: u64) -> Vec<Item> {
        let left = self.by_origin.remove(&origin).unwrap_or_default();
        self.bytes -= left.values().map(|heard| heard.message.len()).sum::<usize>();
        left.into_values().filter_map(Heard::item).collect()
    }
}

impl Heard {
    fn item(self) -> Option<Item> {
        let Message::Event(event) = Message::decode(&self.message)? else { return None };
        let accepted_at = self.at.saturating_sub(Duration::from_millis(event.accepted_ms));
        let once = if event.repeat_of == 0 { key(event.identity) } else { event.repeat_of };
        let spec = Spec { cache_for: event.cache_for, once: Some(once), hook: None };
        Some(Item::new(accepted_at, self.topic, self.message, spec))
    }
}

/// A number for what has no key of its own. Origins are drawn at random.
fn key(identity: Identity) -> u64 {
    identity.origin.rotate_left(32) ^ identity.counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;
    const OTHER: u64 = 7;

    fn event(counter: u64) -> Event {
        Event::bare(counter, None)
    }

    fn counters(items: &[Item]) -> Vec<u64> {
        items.iter().filter_map(|item| Some(Event::identity_of(&item.message)?.counter)).collect()
    }

    fn one_that_heard(counters: &[u64]) -> Inheritance {
        let mut inheritance = Inheritance::new(1);
        counters.iter().for_each(|counter| inheritance.heard(S(1), "1:a", &event(*counter).encode()));
        inheritance
    }

    /// RED-14
    #[test]
    fn what_a_dead_node_left_goes_in_its_order_and_once() {
        let mut inheritance = one_that_heard(&[2, 3, 2, 1]);
        assert!(inheritance.take(8).is_empty());
        let left = inheritance.take(OTHER);
        assert_eq!(counters(&left), [1, 2, 3]);
        assert_eq!(inheritance.bytes, 0);
        assert!(inheritance.take(OTHER).is_empty());
    }

    /// RED-14
    #[test]
    fn what_a_log_has_is_nobody_elses_and_own_publications_are_not_kept() {
        let mut inheritance = one_that_heard(&[1, 2, 3]);
        for counter in [1, 3, 9] {
            inheritance.logged(Identity { origin: OTHER, counter });
        }
        assert_eq!(counters(&inheritance.take(OTHER)), [2]);
        let mut own = Inheritance::new(OTHER);
        own.heard(S(1), "1:a", &event(1).encode());
        own.heard(S(1), "1:a", b"C12");
        assert_eq!((own.bytes, own.order.len()), (0, 0));
    }

    /// RED-14
    #[test]
    fn it_is_marked_with_its_age_and_has_a_key_that_all_heirs_agree_on() {
        let with_key = Event { repeat_of: 5, cache_for: Some(S(60)), ..event(2) };
        let mut inheritance = Inheritance::new(1);
        inheritance.heard(S(10), "1:a", &Event::with_age(&event(1).encode(), 4_000));
        inheritance.heard(S(10), "1:a", &with_key.encode());
        let mut other = Inheritance::new(2);
        other.heard(S(77), "1:a", &event(1).encode());
        let (left, others) = (inheritance.take(OTHER), other.take(OTHER));
        assert_eq!((left[0].accepted_at, left[1].accepted_at), (S(6), S(10)));
        assert_eq!(left[0].spec.once, others[0].spec.once);
        assert_eq!((left[1].spec.once, left[1].spec.cache_for), (Some(5), Some(S(60))));
        assert_ne!(key(Identity { origin: OTHER, counter: 1 }), key(Identity { origin: OTHER, counter: 2 }));
    }

    /// RED-14
    #[test]
    fn it_is_bounded_in_time_and_in_bytes_and_the_oldest_goes() {
        let mut inheritance = one_that_heard(&[1]);
        inheritance.heard(S(50), "1:a", &event(2).encode());
        inheritance.sweep(S(91));
        inheritance.bytes_max = 2 * event(2).encode().len();
        inheritance.heard(S(51), "1:a", &event(3).encode());
        inheritance.heard(S(51), "1:a", &event(4).encode());
        assert_eq!(counters(&inheritance.take(OTHER)), [3, 4]);
        inheritance.sweep(S(1_000));
        assert!(inheritance.order.is_empty() && inheritance.by_origin.is_empty() && inheritance.bytes == 0);
    }
}
