//! The thread that keeps the book: edges in, records to disk, sealed batches out.
//!
//! One transaction carries whatever came in while the last one was written. Only after it are subscriptions answered that
//! waited for their edges, and only after it is a batch handed to the sender. While the disk does not take anything,
//! subscriptions are answered all the same (people must get through), and the records wait in memory for the disk; the
//! log says so.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fulmar_backbone::Inbox;
use fulmar_engine::webhook_batch::{Address, Batch, Now, Record, WebhookBook};
use fulmar_protocol::app::App;
use fulmar_protocol::exchange::Answer;
use fulmar_protocol::webhook::Edge;
use tokio::sync::oneshot;

use super::clock::WebhookClock;
use super::figures::Counters;
use super::sender::{Command, Handed, Sending};
use super::store::{Contents, Ended, GivenUp, Store, StoreError};

/// Edges that may wait for the disk, in all. Beyond it subscriptions on watched channels are refused for the moment, and
/// what only informs (client events, misses, counts) is dropped and counted.
pub(super) const EDGES_MAX: usize = 65_536;
/// How long the end of a batch may wait for a transaction. What is not written when a node is killed is sent again.
const ENDS_WAIT_MS: u64 = 50;
/// How long the keeper waits before it tries a disk again that did not take a transaction.
const RETRY_MS: u64 = 1_000;
/// At most one complaint about the disk in this many milliseconds.
const COMPLAIN_EVERY_MS: u64 = 60_000;
/// A batch this old at the start is sealed anew: receivers refuse a `time_ms` that is further away.
pub(super) const RESEAL_AFTER_MS: u64 = 240_000;

/// An answer that waits for the disk, and whom it is for.
pub(super) type Reply = (Arc<dyn Inbox>, Answer);

/// What the keeper is told.
pub(super) enum Message {
    /// The backbone decided these, in this order.
    Edges(Vec<Edge>),
    /// Answer this when all that was told before is on disk.
    Reply(Reply),
    /// These apps from now on.
    Apps(Vec<Arc<App>>),
    /// From the sender.
    Ended(Ended),
    /// Send again what was given up; answers how many that are.
    Replay(Option<u64>, oneshot::Sender<Result<usize, StoreError>>),
    /// What was given up.
    GivenUp(oneshot::Sender<Result<Vec<GivenUp>, StoreError>>),
    /// Write what there is and end.
    Stop,
}

/// Where the keeper hears.
#[derive(Default)]
pub(super) struct Desk {
    state: Mutex<DeskState>,
    filled: Condvar,
}

#[derive(Default)]
struct DeskState {
    queue: VecDeque<Message>,
    /// Edges in the queue, and records that the disk has not taken.
    edges: usize,
    /// Whether anything that was told is not on disk yet.
    is_behind: bool,
}

impl Desk {
    /// Leaves a message.
    pub(super) fn put(&self, message: Message) {
        let mut state = self.locked();
        state.is_behind = true;
        state.queue.push_back(message);
        self.filled.notify_one();
    }

    /// Leaves edges, and the answer that must not be given before they are on disk; without edges and with nothing on
    /// the way there, the answer comes back at once.
    pub(super) fn put_edges(&self, edges: Vec<Edge>, reply: Option<Reply>) -> Option<Answer> {
        let mut state = self.locked();
        if edges.is_empty() && !state.is_behind {
            return reply.map(|(_, answer)| answer);
        }
        state.edges += edges.len();
        state.is_behind = true;
        if !edges.is_empty() {
            state.queue.push_back(Message::Edges(edges));
        }
        state.queue.extend(reply.map(Message::Reply));
        self.filled.notify_one();
        None
    }

    pub(super) fn has_room(&self) -> bool {
        self.locked().edges < EDGES_MAX
    }

    /// Everything that was left, after waiting for the first at most `patience`.
    fn take(&self, patience: Option<Duration>) -> VecDeque<Message> {
        let mut state = self.locked();
        if state.queue.is_empty() {
            state = match patience {
                Some(patience) => {
                    let waited = self.filled.wait_timeout(state, patience);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        std::mem::take(&mut state.queue)
    }

    /// After a round: what the disk still owes.
    fn owes(&self, unwritten: usize) {
        let mut state = self.locked();
        let waiting = state.queue.iter().map(|m| if let Message::Edges(edges) = m { edges.len() } else { 0 });
        state.edges = unwritten + waiting.sum::<usize>();
        state.is_behind = unwritten > 0 || !state.queue.is_empty();
    }

    fn locked(&self) -> MutexGuard<'_, DeskState> {
        // Nothing that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keeper's own things.
pub(super) struct Keeper {
    desk: Arc<Desk>,
    store: Store,
    book: WebhookBook,
    sending: Sending,
    clock: WebhookClock,
    counters: Arc<Counters>,
    /// Not on disk yet.
    records: Vec<Record>,
    ended: Vec<Ended>,
    /// Since when the oldest of `ended` waits.
    ended_since: Option<u64>,
    replies: Vec<Reply>,
    /// While the disk does not take anything: when it is tried again.
    retry_at: Option<u64>,
    complained_at: Option<u64>,
}

impl Keeper {
    /// Goes on where the store ends.
    ///
    /// # Errors
    /// When the store cannot be read, or not be written.
    pub(super) fn start(
        desk: Arc<Desk>,
        mut store: Store,
        apps: Vec<Arc<App>>,
        sending: Sending,
        clock: WebhookClock,
        counters: Arc<Counters>,
    ) -> Result<Self, StoreError> {
        let Contents { restored, batches } = store.contents()?;
        let mut book = WebhookBook::new();
        let (now, mut records, mut ended) = (clock.now(), Vec::new(), Vec::new());
        book.set_apps(apps, &mut records);
        book.restore(now, restored, &mut records);
        let mut handed = Vec::new();
        for (to, batch) in batches {
            let is_old = now.unix_ms.saturating_sub(batch.sealed_unix_ms) >= RESEAL_AFTER_MS;
            // The node was not there to try it. Its receivers would refuse it now, or nobody is told any more.
            match book.seal_again(now, &to, &batch) {
                Some(_) if !is_old => handed.push(Handed { to, batch: Arc::new(batch) }),
                Some(again) => {
                    ended.push(Ended::Over(to.clone(), batch.id));
                    records.push(Record::Sealed { to, batch: again, turns: Vec::new() });
                }
                None => ended.push(Ended::Over(to, batch.id)),
            }
        }
        store.write(&records, &ended, book.next_id())?;
        let mut keeper = Self {
            desk,
            store,
            book,
            sending,
            clock,
            counters,
            records,
            ended: Vec::new(),
            ended_since: None,
            replies: Vec::new(),
            retry_at: None,
            complained_at: None,
        };
        keeper.sending.send(Command::Batches(handed));
        keeper.hand_over();
        Ok(keeper)
    }

    /// Until it is told to stop.
    pub(super) fn run(mut self) {
        let mut is_stopping = false;
        while !is_stopping {
            for message in self.desk.take(self.patience()) {
                is_stopping |= matches!(message, Message::Stop);
                self.hear(message);
            }
            self.book.pass(self.clock.now(), &mut self.records);
            self.commit_if_due(is_stopping);
        }
    }

    fn patience(&self) -> Option<Duration> {
        let now = self.clock.now().moment.0;
        let timer = self.book.next_deadline().map(|at| at.0);
        // While the disk takes nothing, they wait for it like everything else.
        let ends = self.ended_since.filter(|_| self.retry_at.is_none()).map(|since| since + ENDS_WAIT_MS);
        let next = [timer, ends, self.retry_at].into_iter().flatten().min();
        next.map(|at| Duration::from_millis(at.saturating_sub(now)))
    }

    fn hear(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Edges(edges) => {
                for edge in edges {
                    self.book.take(now, edge, &mut self.records);
                }
            }
            Message::Reply(reply) => self.replies.push(reply),
            Message::Apps(apps) => {
                self.sending.send(Command::Apps(apps.clone()));
                self.book.set_apps(apps, &mut self.records);
            }
            Message::Ended(end) => {
                self.ended.push(end);
                self.ended_since.get_or_insert(now.moment.0);
            }
            // Nobody waits for the answer any more when these fail.
            Message::Replay(id, tell) => drop(tell.send(self.replay(now, id))),
            Message::GivenUp(tell) => drop(tell.send(self.store.given_up())),
            Message::Stop => {}
        }
    }

    fn replay(&mut self, now: Now, id: Option<u64>) -> Result<usize, StoreError> {
        let asked = self.store.given_up()?.into_iter().filter(|old| id.is_none_or(|id| old.batch.id == id));
        let mut count = 0;
        for old in asked {
            if let Some(batch) = self.book.seal_again(now, &old.to, &old.batch) {
                self.records.push(Record::Sealed { to: old.to, batch, turns: Vec::new() });
                self.ended.push(Ended::Taken(old.batch.id));
                count += 1;
            }
        }
        Ok(count)
    }

    fn commit_if_due(&mut self, at_once: bool) {
        let now = self.clock.now().moment.0;
        let ends_due = self.ended_since.is_some_and(|since| now >= since + ENDS_WAIT_MS);
        let has_work = !self.records.is_empty() || ends_due || (at_once && !self.ended.is_empty());
        let may_try = at_once || self.retry_at.is_none_or(|at| now >= at);
        if has_work && may_try {
            self.commit(now);
        }
        for (inbox, answer) in self.replies.drain(..) {
            inbox.answer(answer);
        }
        self.desk.owes(self.records.len());
    }

    fn commit(&mut self, now_ms: u64) {
        match self.store.write(&self.records, &self.ended, self.book.next_id()) {
            Ok(()) => {
                if self.retry_at.take().is_some() {
                    tracing::info!("the webhook store can be written again");
                }
                self.ended.clear();
                self.ended_since = None;
                self.hand_over();
            }
            Err(error) => {
                self.retry_at = Some(now_ms + RETRY_MS);
                self.counters.store_failed();
                if self.complained_at.is_none_or(|at| now_ms >= at + COMPLAIN_EVERY_MS) {
                    self.complained_at = Some(now_ms);
                    tracing::error!(
                        %error,
                        waiting = self.records.len(),
                        "webhooks cannot be stored; they wait in memory and would be lost with this process"
                    );
                }
            }
        }
    }

    /// What is on disk now may be sent.
    fn hand_over(&mut self) {
        let mut handed = Vec::new();
        for record in self.records.drain(..) {
            match record {
                Record::Sealed { to, batch, .. } => handed.push(Handed { to, batch: Arc::new(batch) }),
                Record::Dropped { to, events } => note_dropped(&to, events),
                Record::Came { .. } | Record::Went { .. } | Record::Queued { .. } | Record::Settled { .. } => {}
            }
        }
        if !handed.is_empty() {
            self.sending.send(Command::Batches(handed));
        }
    }
}

pub(super) fn note_dropped(to: &Address, events: usize) {
    tracing::warn!(app = %to.app, url = %to.url, events, "webhook events for an endpoint that is no longer configured");
}

/// The age of a batch in milliseconds.
pub(super) fn age_ms(now: Now, batch: &Batch) -> u64 {
    now.unix_ms.saturating_sub(batch.sealed_unix_ms)
}
