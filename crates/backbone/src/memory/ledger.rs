//! What the cached events of the whole node weigh, which is the oldest and which lapses next.
//!
//! The events themselves are with their channels; this is the account of them, so that one limit holds over all
//! stripes and so that an event nobody asks for again is still forgotten. An event is entered and struck under its
//! stripe's lock, or taken from here first and then dropped by whoever took it: the account may be ahead of the
//! stripes by what is being dropped, never behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a cached event weighs beside its frame and its channel's name: the channel's record, the entries here, and
/// what the allocator adds to each piece.
const OVERHEAD_BYTES: u64 = 384;

/// The account of all cached events of a node.
#[derive(Default)]
pub(super) struct Ledger {
    bytes: u64,
    /// By the counter of the publication, which rises with age.
    by_age: BTreeMap<u64, Entry>,
    by_lapse: BTreeSet<(Duration, u64)>,
}

/// One cached event in the account.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Hash of the channel, by which it is found again.
    pub(super) hash: u64,
    /// What it weighs; see [`weight`].
    pub(super) bytes: u64,
    /// When it is forgotten.
    pub(super) lapses: Duration,
}

/// A cached event that has left the account and must now be dropped by its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Struck {
    pub(super) hash: u64,
    pub(super) counter: u64,
}

/// What an event is charged with.
pub(super) fn weight(frame_bytes: usize, name_bytes: usize) -> u64 {
    OVERHEAD_BYTES + (frame_bytes + name_bytes) as u64
}

impl Ledger {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.by_age.len()
    }

    /// When the next event lapses.
    pub(super) fn soonest(&self) -> Option<Duration> {
        self.by_lapse.first().map(|(lapses, _)| *lapses)
    }

    pub(super) fn enter(&mut self, counter: u64, entry: Entry) {
        self.bytes += entry.bytes;
        self.by_lapse.insert((entry.lapses, counter));
        self.by_age.insert(counter, entry);
    }

    /// Strikes an event that was replaced. One that was already taken from here is none of our business any more.
    pub(super) fn strike(&mut self, counter: u64) -> Option<Struck> {
        let entry = self.by_age.remove(&counter)?;
        self.by_lapse.remove(&(entry.lapses, counter));
        self.bytes -= entry.bytes;
        Some(Struck { hash: entry.hash, counter })
    }

    /// Strikes the oldest events until the rest weighs no more than `bytes_max`.
    pub(super) fn strike_oldest(&mut self, bytes_max: u64) -> Vec<Struck> {
        let mut struck = Vec::new();
        while self.bytes > bytes_max
            && let Some((&oldest, _)) = self.by_age.first_key_value()
        {
            struck.extend(self.strike(oldest));
        }
        struck
    }

    /// Strikes at most `at_most` events whose time is over.
    pub(super) fn strike_lapsed(&mut self, now: Duration, at_most: usize) -> Vec<Struck> {
        let mut struck = Vec::new();
        while struck.len() < at_most
            && let Some(&(_, counter)) = self.by_lapse.first().filter(|(lapses, _)| *lapses <= now)
        {
            struck.extend(self.strike(counter));
        }
        struck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(entries: &[(u64, u64, u64)]) -> Ledger {
        let mut ledger = Ledger::default();
        for &(counter, bytes, lapses_s) in entries {
            ledger.enter(counter, Entry { hash: counter, bytes, lapses: Duration::from_secs(lapses_s) });
        }
        ledger
    }

    fn counters(struck: &[Struck]) -> Vec<u64> {
        struck.iter().map(|s| s.counter).collect()
    }

    /// WS-108
    #[test]
    fn the_oldest_go_first_and_only_as_many_as_needed() {
        let mut ledger = ledger(&[(1, 10, 9), (2, 10, 8), (3, 10, 7)]);
        assert_eq!(counters(&ledger.strike_oldest(30)), [] as [u64; 0]);
        assert_eq!(counters(&ledger.strike_oldest(15)), [1, 2]);
        assert_eq!((ledger.bytes(), ledger.len()), (10, 1));
    }

    /// WS-94
    #[test]
    fn lapsed_events_are_struck_in_bounded_portions() {
        let mut ledger = ledger(&[(1, 10, 9), (2, 10, 8), (3, 10, 7), (4, 10, 20)]);
        assert_eq!(counters(&ledger.strike_lapsed(Duration::from_secs(9), 2)), [3, 2]);
        assert_eq!(counters(&ledger.strike_lapsed(Duration::from_secs(9), 2)), [1]);
        assert_eq!(ledger.soonest(), Some(Duration::from_secs(20)));
        assert_eq!(ledger.strike(1), None);
    }
}
