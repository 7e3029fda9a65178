//! How the webhooks are doing, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// A moment's figures, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WebhookFigures {
    /// Requests that wait or are under way.
    pub pending: u64,
    /// Bytes of their bodies.
    pub pending_bytes: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// How long the oldest of them has waited, in milliseconds; 0 when none does.
    pub oldest_pending_ms: u64,
    /// Requests delivered. Rises.
    pub delivered: u64,
    /// Attempts that failed. Rises.
    pub attempts_failed: u64,
    /// Requests given up: their time was over, or too much waited for their endpoint. Rises.
    pub given_up: u64,
    /// Events that only inform and were dropped because the disk was too far behind. Rises.
    pub events_dropped: u64,
    /// Transactions that the disk did not take. Rises.
    pub store_failures: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pending: AtomicU64,
    pending_bytes: AtomicU64,
    in_flight: AtomicU64,
    oldest_pending_ms: AtomicU64,
    delivered: AtomicU64,
    attempts_failed: AtomicU64,
    given_up: AtomicU64,
    events_dropped: AtomicU64,
    store_failures: AtomicU64,
}

impl Counters {
    pub(super) fn figures(&self) -> WebhookFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WebhookFigures {
            pending: read(&self.pending),
            pending_bytes: read(&self.pending_bytes),
            in_flight: read(&self.in_flight),
            oldest_pending_ms: read(&self.oldest_pending_ms),
            delivered: read(&self.delivered),
            attempts_failed: read(&self.attempts_failed),
            given_up: read(&self.given_up),
            events_dropped: read(&self.events_dropped),
            store_failures: read(&self.store_failures),
        }
    }

    pub(super) fn waiting(&self, (batches, bytes): (usize, usize), in_flight: usize, oldest_ms: u64) {
        self.pending.store(batches as u64, Ordering::Relaxed);
        self.pending_bytes.store(bytes as u64, Ordering::Relaxed);
        self.in_flight.store(in_flight as u64, Ordering::Relaxed);
        self.oldest_pending_ms.store(oldest_ms, Ordering::Relaxed);
    }

    pub(super) fn delivered(&self) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn attempt_failed(&self) {
        self.attempts_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn given_up(&self) {
        self.given_up.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn event_dropped(&self) {
        self.events_dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn store_failed(&self) {
        self.store_failures.fetch_add(1, Ordering::Relaxed);
    }
}
