//! One endpoint's line: which of its batches goes next, and what an attempt meant for the others.

use std::collections::{BTreeMap, HashSet};

use super::{
    BLOCKED_MAX_MS, Fate, IN_FLIGHT_MAX, LOOKAHEAD, OVERTAKE_AFTER_MS, Outcome, PAUSE_MAX_MS, PAUSE_MS, Pool,
    REFUSALS_MAX, Waiting,
};
use crate::time::Moment;

#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) batches: BTreeMap<u64, Entry>,
    pub(super) bytes: usize,
    pub(super) in_flight: usize,
    /// Failures since the last success.
    pub(super) failures: u32,
    /// Whether the last failure was that nobody answered.
    pub(super) is_unreachable: bool,
    /// When a batch was taken last.
    pub(super) delivered_at: Option<Moment>,
    /// While it fails: no attempt before.
    pub(super) not_before: Moment,
    pub(super) is_ready: bool,
    pub(super) timer: Option<Moment>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) waiting: Waiting,
    pub(super) attempts: u32,
    /// Since when every attempt was answered with a refusal.
    pub(super) refused_since: Option<Moment>,
    pub(super) not_before: Moment,
    /// While it is under way: which socket it uses.
    pub(super) pool: Option<Pool>,
}

/// What a line can do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Try(u64),
    At(Moment),
    Nothing,
}

impl Line {
    /// Whether the endpoint itself is in trouble, and not only some batches.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0 && (self.is_unreachable || self.failures >= REFUSALS_MAX)
    }

    pub(super) fn next(&self, now: Moment) -> Next {
        if self.is_failing() {
            return match self.in_flight {
                0 if self.batches.is_empty() => Next::Nothing,
                0 if now < self.not_before => Next::At(self.not_before),
                0 => self.next_while_failing(now).map_or(Next::Nothing, Next::Try),
                _ => Next::Nothing,
            };
        }
        if self.in_flight >= IN_FLIGHT_MAX {
            return Next::Nothing;
        }
        let mut blocked = HashSet::new();
        let mut soonest = None;
        for entry in self.batches.values().take(LOOKAHEAD) {
            let is_free = entry.waiting.lanes.iter().all(|lane| !blocked.contains(lane));
            if is_free && entry.pool.is_none() {
                if entry.not_before <= now {
                    return Next::Try(entry.waiting.id);
                }
                soonest = Some(soonest.map_or(entry.not_before, |at: Moment| at.min(entry.not_before)));
            }
            if entry.blocks(now, self.delivered_at) {
                blocked.extend(&entry.waiting.lanes);
            }
        }
        soonest.map_or(Next::Nothing, Next::At)
    }

    /// Who asks whether the endpoint is back: in turn the oldest, for the sake of order, and the one that was tried least,
    /// so that a batch that alone is refused does not stand for all.
    fn next_while_failing(&self, now: Moment) -> Option<u64> {
        let mut blocked = HashSet::new();
        let mut best: Option<(u32, u64)> = None;
        for entry in self.batches.values().take(LOOKAHEAD) {
            if entry.waiting.lanes.iter().all(|lane| !blocked.contains(lane)) {
                let attempts = if self.failures.is_multiple_of(2) { 0 } else { entry.attempts };
                let candidate = (attempts, entry.waiting.id);
                best = Some(best.map_or(candidate, |best| best.min(candidate)));
            }
            if entry.blocks(now, self.delivered_at) {
                blocked.extend(&entry.waiting.lanes);
            }
        }
        best.map(|(_, id)| id)
    }

    pub(super) fn begin(&mut self, id: u64, pool: Pool) {
        self.in_flight += 1;
        if let Some(entry) = self.batches.get_mut(&id) {
            entry.pool = Some(pool);
            entry.attempts += 1;
        }
    }

    pub(super) fn end(&mut self, id: u64) -> Option<Pool> {
        let pool = self.batches.get_mut(&id)?.pool.take()?;
        self.in_flight -= 1;
        Some(pool)
    }

    pub(super) fn delivered(&mut self, now: Moment, id: u64) -> Fate {
        self.forget(id);
        if self.is_failing() {
            // It is back. What failed because it was away need not wait any longer.
            for entry in self.batches.values_mut() {
                entry.not_before = entry.not_before.min(now);
            }
        }
        self.delivered_at = Some(now);
        self.failures = 0;
        self.is_unreachable = false;
        Fate::Delivered
    }

    pub(super) fn failed(&mut self, now: Moment, id: u64, outcome: Outcome, jitter: u32) -> Fate {
        self.failures = self.failures.saturating_add(1);
        self.is_unreachable = outcome == Outcome::Unreachable;
        self.not_before = now.plus_ms(pause_ms(self.failures, jitter));
        let Some(entry) = self.batches.get_mut(&id) else { return Fate::Unknown };
        match outcome {
            Outcome::Refused => _ = entry.refused_since.get_or_insert(now),
            // Nobody was there to judge it.
            Outcome::Unreachable | Outcome::Delivered => entry.refused_since = None,
        }
        if now >= entry.waiting.last_try {
            self.forget(id);
            return Fate::GivenUp;
        }
        // The last attempt is made when its time comes, however long the pause would be.
        entry.not_before = now.plus_ms(pause_ms(entry.attempts, jitter)).min(entry.waiting.last_try);
        self.not_before = self.not_before.min(entry.waiting.last_try);
        Fate::Kept
    }

    /// The oldest that is not under way.
    pub(super) fn forget_oldest(&mut self) -> Option<u64> {
        let (&oldest, _) = self.batches.iter().find(|(_, entry)| entry.pool.is_none())?;
        self.forget(oldest);
        Some(oldest)
    }

    pub(super) fn forget(&mut self, id: u64) {
        if let Some(entry) = self.batches.remove(&id) {
            self.bytes -= entry.waiting.bytes;
        }
    }
}

impl Entry {
    /// Whether younger batches of the same channels wait for this one.
    fn blocks(&self, now: Moment, delivered_at: Option<Moment>) -> bool {
        let is_alone = |since: Moment| delivered_at.is_some_and(|at| at > since);
        let holds = |since| now.ms_since(since) < if is_alone(since) { OVERTAKE_AFTER_MS } else { BLOCKED_MAX_MS };
        self.pool.is_some() || self.refused_since.is_none_or(holds)
    }
}

/// The pause after the `failures`-th failure in a row: 1, 2, 4 ... seconds, a fifth more or less.
fn pause_ms(failures: u32, jitter: u32) -> u64 {
    let doubled = PAUSE_MS << failures.saturating_sub(1).min(10);
    let pause = doubled.min(PAUSE_MAX_MS);
    pause * 4 / 5 + pause * 2 / 5 * u64::from(jitter) / u64::from(u32::MAX)
}
