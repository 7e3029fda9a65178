//! What time it is, for everything the HTTP side decides by time.
//!
//! The one place under `http/` that reads a clock, so that a test can move it. Time that is measured rises only; the
//! wall clock is used for signatures alone, which carry a date.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A clock, or in tests a dial.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's.
    System {
        /// What elapsed time is counted from.
        since: Instant,
    },
    /// Milliseconds since 1970 that somebody else moves.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::System { since: Instant::now() }
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn unix_s(&self) -> u64 {
        match self {
            Self::System { .. } => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            Self::Manual(ms) => ms.load(Ordering::Relaxed) / 1_000,
        }
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        match self {
            Self::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }
            Self::Manual(ms) => ms.load(Ordering::Relaxed),
        }
    }

    /// Milliseconds since an unnamed moment; never goes back.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        match self {
            Self::System { since } => u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            Self::Manual(ms) => ms.load(Ordering::Relaxed),
        }
    }
}
