//! How long the machine itself was away while something was measured.
//!
//! A thread that only sleeps notes when it wakes late: the machine was paused, or others had all its cores. A delay that
//! lies within such a stall is nobody's fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::ledger::since;

const PAUSE: Duration = Duration::from_millis(2);
/// Shorter ones are the scheduler's daily bread.
const STALL_MIN_NS: u64 = 15_000_000;

/// A time in which the machine was away, in nanoseconds since the ledger's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// From.
    pub from_ns: u64,
    /// To.
    pub to_ns: u64,
}

/// The sum of what stalls have of a span.
pub fn overlap_ns(stalls: &[Stall], from_ns: u64, to_ns: u64) -> u64 {
    let of = |stall: &Stall| stall.to_ns.min(to_ns).saturating_sub(stall.from_ns.max(from_ns));
    stalls.iter().map(of).sum()
}

/// The thread that watches.
#[derive(Debug)]
pub struct Watch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Stall>>,
}

impl Watch {
    /// Begins; times count from `origin`.
    pub fn start(origin: Instant) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut stalls = Vec::new();
            let mut before = since(origin);
            while !asked.load(Ordering::Relaxed) {
                thread::sleep(PAUSE);
                let now = since(origin);
                if now - before > STALL_MIN_NS {
                    stalls.push(Stall { from_ns: before, to_ns: now });
                }
                before = now;
            }
            stalls
        });
        Self { is_over, thread }
    }

    /// Ends it; answers what it saw.
    pub fn end(self) -> Vec<Stall> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}
