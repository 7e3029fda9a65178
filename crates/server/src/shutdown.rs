//! How a node goes away without hurting anybody.
//!
//! Not ready (so that balancers look elsewhere) -> grace, still serving -> sockets told to come back, one by one over
//! the drain time, because SDKs return at once and all together -> the end. A second signal ends it at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::config::Shutdown;
use crate::edge::Phase;
use crate::gate::Gate;
use crate::http::health::Readiness;
use crate::inbox::{Message, WorkerInbox};
use crate::ws::connection::CLOSE_TIMEOUT_MS;

/// How often it is looked whether everybody has left.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time beyond the drain for the last closes and for REST calls under way.
const LAST_CALLS: Duration = Duration::from_millis(CLOSE_TIMEOUT_MS + 2_000);

/// The signals that end a node.
pub(crate) struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one; answers its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// What a drain acts on.
pub(crate) struct Drain {
    pub(crate) settings: Shutdown,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) inboxes: Vec<Arc<WorkerInbox>>,
    pub(crate) phase: watch::Sender<Phase>,
}

impl Drain {
    /// Lets everybody go, and answers when nobody is left or patience has ended. In both cases nothing is accepted any
    /// more afterwards.
    pub(crate) async fn run(&self) {
        self.readiness.draining();
        let sockets = self.sockets();
        let (grace, drain) = (self.settings.grace, self.settings.drain);
        tracing::info!(sockets, grace_s = grace.as_secs(), drain_s = drain.as_secs(), "going away");
        self.phase.send_replace(Phase::Leaving);
        sleep(grace).await;

        self.phase.send_replace(Phase::Draining);
        let over_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
        for inbox in &self.inboxes {
            inbox.push(Message::Drain { over_ms });
        }
        let until = Instant::now() + drain + LAST_CALLS;
        while self.gate.open() > 0 && Instant::now() < until {
            sleep(LOOK_EVERY).await;
        }
        let left = self.gate.open();
        if left > 0 {
            tracing::warn!(left, "closing connections that did not leave in time");
        }
        self.phase.send_replace(Phase::Closed);
    }

    fn sockets(&self) -> usize {
        self.inboxes.iter().map(|inbox| inbox.connections.load(Ordering::Relaxed)).sum()
    }
}
