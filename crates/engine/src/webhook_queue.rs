//! Which sealed batch is tried next, and when one is given up.
//!
//! Every endpoint has a line of its own. Within a line, what concerns one channel stays in order: a batch waits for older
//! ones that share a channel with it, unless those have been refused for [`OVERTAKE_AFTER_MS`] although the endpoint took
//! others (or for [`BLOCKED_MAX_MS`] in any case). An endpoint that fails is asked by one request at a time, ever more
//! rarely.
//!
//! Over all lines, sockets are bounded twice: a request starts on one of few fast sockets and, when it lingers, moves to
//! one of many slow ones; endpoints that failed last time start on a slow one. So a thousand dead endpoints, whose
//! requests all last until their time-out, leave the fast sockets to whoever answers.
//!
//! It sends nothing, reads no clock and draws no lots: the time and the jitter are arguments.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

mod line;

use self::line::{Entry, Line, Next};
use crate::time::Moment;
use crate::webhook_batch::Address;

/// The first pause after a failure, in milliseconds; each further one is twice as long.
const PAUSE_MS: u64 = 1_000;
/// The longest pause.
const PAUSE_MAX_MS: u64 = 64_000;
/// A batch that is refused for so long, while others are taken, no longer makes those of its channels wait.
pub const OVERTAKE_AFTER_MS: u64 = 15_000;
/// The same where no others are taken: then it cannot be known whether it is the batch or the endpoint that fails.
pub const BLOCKED_MAX_MS: u64 = 60_000;
/// Refusals in a row after which an endpoint counts as failing, not only its batches.
const REFUSALS_MAX: u32 = 3;
/// Requests to one endpoint at a time.
const IN_FLIGHT_MAX: usize = 8;
/// Batches of a line looked at for one that may go.
const LOOKAHEAD: usize = 64;
/// How long a request may occupy a fast socket while a slow one is free, in milliseconds.
pub const LINGER_MS: u64 = 100;
/// A last attempt that is due may still begin for so long.
const EXPIRY_SLACK_MS: u64 = 1_000;
/// Batches that may wait for one endpoint. When there are more, the oldest is given up.
pub const LINE_BATCHES_MAX: usize = 10_000;
/// Bytes of bodies that may wait for one endpoint. When there are more, the oldest is given up.
pub const LINE_BYTES_MAX: usize = 16 << 20;
/// Bytes of bodies that may wait for all endpoints together. When there are more, the oldest of the longest line is given
/// up.
pub const BYTES_MAX: usize = 256 << 20;

/// What is known of a batch here.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Its identity.
    pub id: u64,
    /// Length of its body.
    pub bytes: usize,
    /// What must stay in order.
    pub lanes: Vec<Arc<str>>,
    /// When it was sealed.
    pub since: Moment,
    /// No attempt begins later.
    pub last_try: Moment,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Taken.
    Delivered,
    /// Answered with something else than success.
    Refused,
    /// Not answered, or not in time.
    Unreachable,
}

/// An attempt to be made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Where.
    pub to: Address,
    /// Which batch.
    pub id: u64,
}

/// What becomes of a batch after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is over: delivered.
    Delivered,
    /// It is over: its time is up.
    GivenUp,
    /// It is tried again.
    Kept,
    /// It was no longer waiting here.
    Unknown,
}

/// How one line stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFigures {
    /// Whose.
    pub to: Address,
    /// Batches that wait or are under way.
    pub batches: usize,
    /// Bytes of their bodies.
    pub bytes: usize,
    /// Failures since the last success.
    pub failures: u32,
    /// When the oldest of them was sealed.
    pub since: Moment,
}

/// Sockets for webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sockets {
    /// For requests that are answered quickly.
    pub fast: usize,
    /// For those that are not.
    pub slow: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pool {
    Fast,
    Slow,
}

/// All lines of a node.
#[derive(Debug)]
pub struct WebhookQueues {
    sockets: Sockets,
    fast_used: usize,
    slow_used: usize,
    lines: HashMap<Address, Line, RandomState>,
    /// Lines with something to do, each once: those that answered last time, those never tried, those that failed.
    ready: [VecDeque<Address>; 3],
    timers: BTreeSet<(Moment, Address)>,
    bytes_max: usize,
    /// All lines have no more than this; counted anew when that is too much.
    bytes_at_most: usize,
}

impl WebhookQueues {
    /// Empty lines. Each kind of socket must be one at least.
    #[must_use]
    pub fn new(sockets: Sockets) -> Self {
        Self {
            sockets,
            fast_used: 0,
            slow_used: 0,
            lines: HashMap::default(),
            ready: Default::default(),
            timers: BTreeSet::new(),
            bytes_max: BYTES_MAX,
            bytes_at_most: 0,
        }
    }

    /// Adds a batch to its line. Answers those that had to be given up for it.
    pub fn add(&mut self, now: Moment, to: &Address, waiting: Waiting) -> Vec<Attempt> {
        let line = self.lines.entry(to.clone()).or_default();
        line.bytes += waiting.bytes;
        self.bytes_at_most += waiting.bytes;
        let entry = Entry { attempts: 0, refused_since: None, not_before: Moment::default(), pool: None, waiting };
        line.batches.insert(entry.waiting.id, entry);
        let mut given_up = Vec::new();
        while line.batches.len() > LINE_BATCHES_MAX || line.bytes > LINE_BYTES_MAX {
            let Some(oldest) = line.forget_oldest() else { break };
            given_up.push(Attempt { to: to.clone(), id: oldest });
        }
        self.settle(now, to);
        while self.bytes_at_most > self.bytes_max {
            self.bytes_at_most = self.pending().1;
            if self.bytes_at_most <= self.bytes_max {
                break;
            }
            let Some((to, longest)) = self.lines.iter_mut().max_by_key(|(_, line)| line.bytes) else { break };
            let Some(oldest) = longest.forget_oldest() else { break };
            given_up.push(Attempt { to: to.clone(), id: oldest });
        }
        given_up
    }

    /// The next attempt, if a socket is free for it. Ask until it answers `None`.
    pub fn next_attempt(&mut self, now: Moment) -> Option<Attempt> {
        while let Some((at, to)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.timers.remove(&(at, to.clone()));
            if let Some(line) = self.lines.get_mut(&to) {
                line.timer = None;
            }
            self.settle(now, &to);
        }
        for class in 0..self.ready.len() {
            // New endpoints may use half of the fast sockets, so that those that answer always find one.
            let has_fast = match class {
                0 => self.fast_used < self.sockets.fast,
                1 => self.fast_used < self.sockets.fast.div_ceil(2),
                _ => false,
            };
            let pool = match has_fast {
                true => Pool::Fast,
                false if self.slow_used < self.sockets.slow => Pool::Slow,
                false => continue,
            };
            while let Some(to) = self.ready[class].pop_front() {
                let Some(line) = self.lines.get_mut(&to) else { continue };
                line.is_ready = false;
                let Next::Try(id) = line.next(now) else {
                    self.settle(now, &to);
                    continue;
                };
                line.begin(id, pool);
                *self.used(pool) += 1;
                self.settle(now, &to);
                return Some(Attempt { to, id });
            }
        }
        None
    }

    /// A request has been under way for [`LINGER_MS`]: it gives up its fast socket if a slow one is free. Answers whether
    /// it should be asked again after the same time.
    pub fn linger(&mut self, attempt: &Attempt) -> bool {
        let line = self.lines.get_mut(&attempt.to);
        let Some(entry) = line.and_then(|line| line.batches.get_mut(&attempt.id)) else { return false };
        if entry.pool != Some(Pool::Fast) {
            return false;
        }
        if self.slow_used >= self.sockets.slow {
            return true;
        }
        entry.pool = Some(Pool::Slow);
        self.fast_used -= 1;
        self.slow_used += 1;
        false
    }

    /// An attempt has ended. `jitter` is a random number, used when it is tried again.
    pub fn finish(&mut self, now: Moment, attempt: &Attempt, outcome: Outcome, jitter: u32) -> Fate {
        let Some(line) = self.lines.get_mut(&attempt.to) else { return Fate::Unknown };
        let Some(pool) = line.end(attempt.id) else { return Fate::Unknown };
        let fate = match outcome {
            Outcome::Delivered => line.delivered(now, attempt.id),
            Outcome::Refused | Outcome::Unreachable => line.failed(now, attempt.id, outcome, jitter),
        };
        *self.used(pool) -= 1;
        self.settle(now, &attempt.to);
        fate
    }

    /// Batches whose time ended while they waited for others or for their endpoint.
    pub fn expire(&mut self, now: Moment) -> Vec<Attempt> {
        let mut expired = Vec::new();
        for (to, line) in &mut self.lines {
            let is_over = |entry: &Entry| entry.pool.is_none() && entry.waiting.last_try.plus_ms(EXPIRY_SLACK_MS) < now;
            let over: Vec<u64> =
                line.batches.values().take(LOOKAHEAD).filter(|e| is_over(e)).map(|e| e.waiting.id).collect();
            for id in over {
                line.forget(id);
                expired.push(Attempt { to: to.clone(), id });
            }
        }
        expired
    }

    /// Takes a batch out again that is not under way. Answers whether there was one.
    pub fn withdraw(&mut self, now: Moment, batch: &Attempt) -> bool {
        let Some(line) = self.lines.get_mut(&batch.to) else { return false };
        if line.batches.get(&batch.id).is_none_or(|entry| entry.pool.is_some()) {
            return false;
        }
        line.forget(batch.id);
        self.settle(now, &batch.to);
        true
    }

    /// Drops the lines of endpoints that are not `wanted`; answers what waited in them. Requests under way are no longer
    /// known when they end.
    pub fn retain(&mut self, wanted: impl Fn(&Address) -> bool) -> Vec<Attempt> {
        let gone: Vec<Address> = self.lines.keys().filter(|to| !wanted(to)).cloned().collect();
        let mut dropped = Vec::new();
        for to in gone {
            let Some(line) = self.lines.remove(&to) else { continue };
            line.timer.map(|at| self.timers.remove(&(at, to.clone())));
            for entry in line.batches.into_values() {
                if let Some(pool) = entry.pool {
                    *self.used(pool) -= 1;
                }
                dropped.push(Attempt { to: to.clone(), id: entry.waiting.id });
            }
        }
        dropped
    }

    /// When [`WebhookQueues::next_attempt`] may have something new, if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Batches that wait or are under way, and the bytes of their bodies.
    #[must_use]
    pub fn pending(&self) -> (usize, usize) {
        let add = |(batches, bytes), line: &Line| (batches + line.batches.len(), bytes + line.bytes);
        self.lines.values().fold((0, 0), add)
    }

    /// Requests under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.fast_used + self.slow_used
    }

    /// Every endpoint for which something waits.
    pub fn lines(&self) -> impl Iterator<Item = LineFigures> {
        self.lines.iter().filter_map(|(to, line)| {
            let since = line.batches.first_key_value()?.1.waiting.since;
            let (batches, bytes, failures) = (line.batches.len(), line.bytes, line.failures);
            Some(LineFigures { to: to.clone(), batches, bytes, failures, since })
        })
    }

    /// The endpoint whose oldest batch waits longest, and since when.
    #[must_use]
    pub fn oldest(&self) -> Option<(&Address, Moment)> {
        let oldest = |line: &Line| line.batches.first_key_value().map(|(_, entry)| entry.waiting.since);
        self.lines.iter().filter_map(|(to, line)| Some((to, oldest(line)?))).min_by_key(|(_, since)| *since)
    }

    fn used(&mut self, pool: Pool) -> &mut usize {
        match pool {
            Pool::Fast => &mut self.fast_used,
            Pool::Slow => &mut self.slow_used,
        }
    }

    /// Puts a line where it belongs: among those with something to do, on a timer, or nowhere.
    fn settle(&mut self, now: Moment, to: &Address) {
        let Some(line) = self.lines.get_mut(to) else { return };
        if line.is_ready {
            return;
        }
        match line.next(now) {
            Next::Try(_) => {
                line.is_ready = true;
                let class = if line.is_failing() { 2 } else { usize::from(line.delivered_at.is_none()) };
                self.ready[class].push_back(to.clone());
            }
            Next::At(at) if line.timer.is_none_or(|set| at < set) => {
                line.timer.map(|set| self.timers.remove(&(set, to.clone())));
                line.timer = Some(at);
                self.timers.insert((at, to.clone()));
            }
            Next::At(_) | Next::Nothing => {}
        }
    }
}

#[cfg(test)]
mod tests;
