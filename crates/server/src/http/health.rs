//! Whether the node lives (`/livez`) and wants traffic (`/readyz`).
//!
//! Living means that every worker's loop turns, and nothing else: a restart cures nothing but a stuck loop, so a store
//! that is away or a full queue never shows here. Ready is what this node knows of itself; it asks nobody, because a
//! fleet whose health depends on one shared thing is taken out of service all at once.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::clock::Clock;

/// How often a worker must call [`Pulses::beat`] even when it has nothing to do.
pub const BEAT_EVERY_MS: u64 = 1_000;

/// Silence after which a worker counts as stuck.
pub const STUCK_AFTER_MS: u64 = 5_000;

/// The last sign of life of each worker loop.
#[derive(Debug)]
pub struct Pulses {
    clock: Clock,
    last_ms: Box<[AtomicU64]>,
}

impl Pulses {
    /// `workers` loops, all of which count as alive now.
    #[must_use]
    pub fn new(workers: usize, clock: Clock) -> Self {
        let now = clock.elapsed_ms();
        Self { clock, last_ms: (0..workers).map(|_| AtomicU64::new(now)).collect() }
    }

    /// The loop of `worker` turned at this moment of the clock. Called at least every [`BEAT_EVERY_MS`]; a number out of
    /// range is ignored.
    pub fn beat(&self, worker: usize, now_ms: u64) {
        if let Some(last) = self.last_ms.get(worker) {
            last.store(now_ms, Ordering::Relaxed);
        }
    }

    /// The first worker that has been silent for [`STUCK_AFTER_MS`], and for how long.
    #[must_use]
    pub fn stuck(&self) -> Option<Stuck> {
        let now = self.clock.elapsed_ms();
        self.last_ms.iter().enumerate().find_map(|(worker, last)| {
            let silent_ms = now.saturating_sub(last.load(Ordering::Relaxed));
            (silent_ms >= STUCK_AFTER_MS).then_some(Stuck { worker, silent_ms })
        })
    }
}

/// A worker whose loop does not turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stuck {
    /// Which.
    pub worker: usize,
    /// Milliseconds since its last turn.
    pub silent_ms: u64,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} has not turned for {} ms", self.worker, self.silent_ms)
    }
}

const CONFIGURED: u8 = 1;
const LISTENING: u8 = 2;
const DRAINING: u8 = 4;
const TESTED: u8 = 8;

/// What the node needs before it wants traffic. Starts with nothing done.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// The configuration was read.
    pub fn configured(&self) {
        self.0.fetch_or(CONFIGURED, Ordering::Release);
    }

    /// The sockets are bound and accepted from.
    pub fn listening(&self) {
        self.0.fetch_or(LISTENING, Ordering::Release);
    }

    /// A message went through every group and came back, or the time for that is over.
    pub fn tested(&self) {
        self.0.fetch_or(TESTED, Ordering::Release);
    }

    /// The node is going away. Not taken back.
    pub fn draining(&self) {
        self.0.fetch_or(DRAINING, Ordering::Release);
    }

    /// Whether the node is going away.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire) & DRAINING != 0
    }

    /// Why the node does not want traffic, if it does not.
    #[must_use]
    pub fn missing(&self) -> Option<&'static str> {
        match self.0.load(Ordering::Acquire) {
            done if done & DRAINING != 0 => Some("draining"),
            done if done & CONFIGURED == 0 => Some("no configuration yet"),
            done if done & LISTENING == 0 => Some("not listening yet"),
            done if done & TESTED == 0 => Some("the self-test is not done yet"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// HTTP-55
    #[test]
    fn one_silent_worker_is_named_and_the_others_are_not() {
        let dial = Arc::new(AtomicU64::new(1_000));
        let pulses = Pulses::new(3, Clock::Manual(Arc::clone(&dial)));
        assert_eq!(pulses.stuck(), None);
        let now = dial.fetch_add(STUCK_AFTER_MS, Ordering::Relaxed) + STUCK_AFTER_MS;
        pulses.beat(0, now);
        pulses.beat(2, now);
        pulses.beat(99, now);
        assert_eq!(pulses.stuck(), Some(Stuck { worker: 1, silent_ms: STUCK_AFTER_MS }));
        pulses.beat(1, now);
        assert_eq!(pulses.stuck(), None);
    }

    /// HTTP-56, NODE-6
    #[test]
    fn a_node_is_ready_once_everything_is_done_and_never_again_after_draining_began() {
        let readiness = Readiness::default();
        assert_eq!(readiness.missing(), Some("no configuration yet"));
        readiness.configured();
        assert_eq!(readiness.missing(), Some("not listening yet"));
        readiness.listening();
        assert_eq!(readiness.missing(), Some("the self-test is not done yet"));
        readiness.tested();
        assert_eq!(readiness.missing(), None);
        readiness.draining();
        readiness.listening();
        assert_eq!(readiness.missing(), Some("draining"));
    }
}
