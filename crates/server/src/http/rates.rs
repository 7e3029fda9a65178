//! How much the apps of this node publish: holds what [`crate::publish_rate`] decides by, and counts refusals.
//!
//! One lock for all apps that have a limit, held for a look into a table; whoever has none takes no lock and reads no clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fulmar_protocol::app::{App, AppId};
use hashbrown::HashMap;

use super::clock::Clock;
use super::refusal::Refusal;
use crate::publish_rate::{Buckets, Share};

/// The publish rates of all apps on this node.
#[derive(Debug)]
pub struct PublishRates {
    /// That divide every limit, this one among them.
    nodes: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    buckets: Buckets,
    /// Calls refused, by app. An app that is served no more is left out at the next reading.
    refused: HashMap<AppId, u64>,
}

impl Default for PublishRates {
    /// Of a node that is the whole deployment, or does not know better yet.
    fn default() -> Self {
        Self { nodes: AtomicU64::new(1), known: Mutex::default() }
    }
}

impl PublishRates {
    /// So many nodes divide every limit from now on; 0 counts as 1.
    pub fn divide_among(&self, nodes: u64) {
        self.nodes.store(nodes.max(1), Ordering::Relaxed);
    }

    /// Lets a call publish so many events, where its app may.
    pub(super) fn admit(&self, app: &App, events: usize, clock: &Clock) -> Result<(), Refusal> {
        let Some(max) = app.limits.publishes_per_s_max else { return Ok(()) };
        let (nodes, now_ms) = (self.nodes.load(Ordering::Relaxed), clock.elapsed_ms());
        let mut known = self.known();
        if known.buckets.take(&app.id, Share::of(max, nodes), events, now_ms) {
            return Ok(());
        }
        *known.refused.entry(app.id.clone()).or_default() += 1;
        Err(Refusal::OverRate { max, nodes })
    }

    /// Takes back what was admitted and surely reached nobody.
    pub(super) fn give_back(&self, app: &App, events: usize) {
        if app.limits.publishes_per_s_max.is_some() {
            self.known().buckets.give_back(&app.id, events);
        }
    }

    /// Calls refused since the node started, by app, of those that are served.
    #[must_use]
    pub fn refused(&self, is_served: impl Fn(&AppId) -> bool) -> HashMap<String, u64> {
        let mut known = self.known();
        known.refused.retain(|app, _| is_served(app));
        known.refused.iter().map(|(app, calls)| (app.to_string(), *calls)).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing that can panic runs under this lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
