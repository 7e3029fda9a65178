//! Which HTTP sessions there are: by app key and the name that the client chose.
//!
//! Clients name their sessions themselves, at random. A name is known as long as its session is open or has something
//! left to say, and remembered for a while after: a client that comes back to a session that has ended is told so, and not
//! given a new one under the old name. Holds no more sessions than the gate has seats, since each takes one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use tokio::sync::Notify;

use super::line::{Line, Receiver};
use crate::http::clock::Clock;

/// Ended sessions remembered; beyond it the oldest are forgotten.
const ENDED_MAX: usize = 10_000;
/// How long an ended session is remembered.
const ENDED_FOR_MS: u64 = 120_000;
/// How often sessions without a client are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Names a session: the app's key as it stands in the path, the number for load balancers and the client's own name.
///
/// The number is part of it because the client keeps it, and what is longer is harder to guess.
pub(crate) type SessionName = Arc<str>;

/// The table. Shared by the HTTP threads.
pub(crate) struct Sessions {
    clock: Clock,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    open: HashMap<SessionName, Arc<Line>>,
    ended: HashSet<SessionName>,
    /// The same in the order in which they ended.
    ended_at: VecDeque<(u64, SessionName)>,
}

/// What a receive request finds.
pub(crate) enum Found<T> {
    /// A session that goes on.
    Open(Arc<Line>, Receiver),
    /// Nobody used the name: the line is new, and its session is to be opened with what was found out for it.
    New(Arc<Line>, Receiver, T),
    /// The session has ended.
    Ended,
}

impl Sessions {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, table: Mutex::default() })
    }

    /// The session of this name; when nobody used it, the one that `open` makes, unless it makes none.
    pub(crate) fn receive<T, E>(
        &self,
        name: &str,
        cut: &Arc<Notify>,
        open: impl FnOnce() -> Result<(Arc<Line>, T), E>,
    ) -> Result<Found<T>, E> {
        let mut table = self.locked();
        if let Some(line) = table.open.get(name) {
            return Ok(match line.receive(cut) {
                Some(receiver) => Found::Open(line.clone(), receiver),
                None => Found::Ended,
            });
        }
        if table.ended.contains(name) {
            return Ok(Found::Ended);
        }
        let (line, rest) = open()?;
        let receiver = line.receive(cut).expect("a new line is not over");
        table.open.insert(name.into(), line.clone());
        Ok(Found::New(line, receiver, rest))
    }

    /// The session of this name, if it goes on.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Line>> {
        self.locked().open.get(name).cloned()
    }

    /// Whether there is a session of this name, or was until a while ago.
    pub(crate) fn knows(&self, name: &str) -> bool {
        let table = self.locked();
        table.open.contains_key(name) || table.ended.contains(name)
    }

    /// Ends sessions whose client stayed away and forgets what is over, again and again.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut tick = tokio::time::interval(SWEEP_EVERY);
        loop {
            tick.tick().await;
            self.sweep_once();
        }
    }

    pub(super) fn sweep_once(&self) {
        let now_ms = self.clock.elapsed_ms();
        let over: Vec<_> = {
            let mut table = self.locked();
            let over: Vec<_> = table.open.extract_if(|_, line| line.is_over_by(now_ms)).collect();
            for (name, _) in &over {
                table.remember(now_ms, name.clone());
            }
            table.forget(now_ms);
            over
        };
        // Seats are given back outside the lock.
        drop(over);
    }

    fn locked(&self) -> MutexGuard<'_, Table> {
        // Nothing that can panic on a peer's input runs under this lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn remember(&mut self, now_ms: u64, name: SessionName) {
        if self.ended.insert(name.clone()) {
            self.ended_at.push_back((now_ms, name));
        }
    }

    fn forget(&mut self, now_ms: u64) {
        let is_old = |at: u64| now_ms.saturating_sub(at) > ENDED_FOR_MS;
        while self.ended.len() > ENDED_MAX || self.ended_at.front().is_some_and(|(at, _)| is_old(*at)) {
            let Some((_, name)) = self.ended_at.pop_front() else { return };
            self.ended.remove(&name);
        }
    }
}
