//! The line between a worker and the requests of one HTTP session.
//!
//! The worker holds one end ([`WorkerEnd`]) in place of a socket and writes to it as to any socket; the receive request of
//! the moment holds the other ([`Receiver`]). What waits in between is bounded like a socket's buffer: when it is full, the
//! outbox fills, and its budget decides. Keeps the invariant that no frame is left out of a session that goes on: when an
//! answer breaks off that was not ours to end, the session ends.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use fulmar_engine::SessionKey;
use fulmar_protocol::close::CloseCode;
use tokio::sync::{Notify, oneshot};

use super::frames::{self, Translator};
use crate::gate::Seat;
use crate::http::clock::Clock;
use crate::inbox::{Message, WorkerInbox};

/// Bytes beyond which the line takes no more, as a socket's buffer would not.
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// How long a session lives between an answer and the next receive request.
pub(crate) const RECEIVE_WITHIN_MS: u64 = 30_000;
/// How long a client may take to read the end of a session.
const READ_END_WITHIN_MS: u64 = 10_000;
/// How long a client may take to read a stream that is as long as it may be, and to ask for the next.
pub(crate) const READ_STREAM_WITHIN_MS: u64 = 60_000;

/// What the HTTP side tells the worker of a session.
pub(crate) enum Signal {
    /// A request came: a sign of life.
    Heard,
    /// Messages came. The sender of the request is answered once they are taken.
    Said(Vec<String>, oneshot::Sender<()>),
    /// A send came that is larger than a message may be.
    TooBig,
    /// The line was full and is not any more.
    Room,
    /// The client is not there any more.
    Gone,
}

/// One HTTP session's line.
pub(crate) struct Line {
    inbox: Arc<WorkerInbox>,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    /// Given by the worker.
    key: Option<SessionKey>,
    /// Counted until the line is forgotten.
    seat: Option<Seat>,
    translator: Translator,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    worker: Worker,
    worker_wants_room: bool,
    /// The open frame was given out.
    is_open: bool,
    /// Nothing more will ever be given out.
    is_over: bool,
    /// Counts receive requests: only the newest one receives.
    receiver: u64,
    presence: Presence,
    waker: Option<Waker>,
    /// Ends the connection of the newest receive request.
    cut: Option<Arc<Notify>>,
}

/// What the worker still has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worker {
    Speaking,
    /// A close is on its way: whatever comes until then has room.
    Closing,
    /// The close is in the line.
    Done {
        /// Since when, as far as anybody looked.
        since_ms: Option<u64>,
    },
}

/// Whether a receive request waits, and if not, since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Waits,
    /// Its answer is as long as it may be: the client reads it and asks for the next.
    Reads {
        since_ms: u64,
    },
    /// The answer was complete: the client asks for the next.
    Away {
        since_ms: u64,
    },
}

impl Line {
    pub(crate) fn new(inbox: Arc<WorkerInbox>, clock: Clock) -> Arc<Self> {
        let state = State {
            key: None,
            seat: None,
            translator: Translator::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            worker: Worker::Speaking,
            worker_wants_room: false,
            is_open: false,
            is_over: false,
            receiver: 0,
            presence: Presence::Away { since_ms: clock.elapsed_ms() },
            waker: None,
            cut: None,
        };
        Arc::new(Self { inbox, clock, state: Mutex::new(state) })
    }

    /// The seat that the session takes, for as long as the line is known.
    pub(crate) fn take_seat(&self, seat: Seat) {
        self.locked().seat = Some(seat);
    }

    /// The key that the worker gave the session.
    pub(crate) fn key(&self) -> Option<SessionKey> {
        self.locked().key
    }

    /// The worker of this session.
    pub(crate) fn inbox(&self) -> &WorkerInbox {
        &self.inbox
    }

    /// Tells the worker something about this session.
    pub(crate) fn signal(self: &Arc<Self>, signal: Signal) {
        self.inbox.push(Message::Fallback(self.clone(), signal));
    }

    /// A receive request takes over; one that still waits ends. `None` when the session is over. `cut` ends the
    /// connection that it came by.
    pub(crate) fn receive(self: &Arc<Self>, cut: &Arc<Notify>) -> Option<Receiver> {
        let mut state = self.locked();
        if state.is_over {
            return None;
        }
        state.receiver += 1;
        state.presence = Presence::Waits;
        state.cut = Some(cut.clone());
        state.wake();
        Some(Receiver { number: state.receiver, line: self.clone(), is_done: false })
    }

    /// Whether the session is over: given up here if its client stayed away too long.
    pub(crate) fn is_over_by(self: &Arc<Self>, now_ms: u64) -> bool {
        let mut state = self.locked();
        let limit = match state.presence {
            Presence::Waits => state.done_since(now_ms).map(|since_ms| since_ms + READ_END_WITHIN_MS),
            Presence::Reads { since_ms } => Some(since_ms + READ_STREAM_WITHIN_MS),
            Presence::Away { since_ms } => Some(since_ms + RECEIVE_WITHIN_MS),
        };
        if !state.is_over && limit.is_some_and(|limit| now_ms >= limit) {
            state.give_up();
            if let (false, Some(cut)) = (matches!(state.presence, Presence::Away { .. }), &state.cut) {
                cut.notify_one();
            }
            drop(state);
            self.signal(Signal::Gone);
            return true;
        }
        state.is_over
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic on a peer's input runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, frame: Bytes) {
        self.waiting_bytes += frame.len();
        self.waiting.push_back(frame);
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// When the worker had said all, if it has.
    fn done_since(&mut self, now_ms: u64) -> Option<u64> {
        match &mut self.worker {
            Worker::Done { since_ms } => Some(*since_ms.get_or_insert(now_ms)),
            Worker::Speaking | Worker::Closing => None,
        }
    }

    fn is_done(&self) -> bool {
        matches!(self.worker, Worker::Done { .. })
    }

    /// Nobody will ask for what waits.
    fn give_up(&mut self) {
        self.is_over = true;
        self.waiting = VecDeque::new();
        self.waiting_bytes = 0;
        self.wake();
    }
}

/// The worker's end. Dropping it ends the session, with a word if there was none.
pub(crate) struct WorkerEnd(Arc<Line>);

impl WorkerEnd {
    pub(crate) fn new(line: Arc<Line>) -> Self {
        Self(line)
    }

    /// Says which key the session has.
    pub(crate) fn name(&self, key: SessionKey) {
        self.0.locked().key = Some(key);
    }

    /// Whether this is the end of `line`: keys are used again, lines are not.
    pub(crate) fn is_of(&self, line: &Arc<Line>) -> bool {
        Arc::ptr_eq(&self.0, line)
    }

    /// Takes WebSocket frames, or `WouldBlock` when too much waits already.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut guard = self.0.locked();
        let state = &mut *guard;
        if state.worker == Worker::Speaking && state.waiting_bytes >= WAITING_BYTES_MAX {
            state.worker_wants_room = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut translator = std::mem::take(&mut state.translator);
        translator.translate(bytes, |line| match line {
            _ if state.is_over || state.is_done() => {}
            frames::Line::Frame(frame) => state.put(frame),
            frames::Line::Last(frame) => {
                state.put(frame);
                state.worker = Worker::Done { since_ms: None };
            }
        });
        state.translator = translator;
        state.wake();
        Ok(bytes.len())
    }

    /// A close is on its way: there is room for it whatever waits.
    pub(crate) fn begin_close(&mut self) {
        let mut state = self.0.locked();
        if state.worker == Worker::Speaking {
            state.worker = Worker::Closing;
        }
    }
}

impl Drop for WorkerEnd {
    fn drop(&mut self) {
        let mut state = self.0.locked();
        if !state.is_done() && !state.is_over {
            state.put(frames::close(CloseCode::RECONNECT, "The session has ended, please reconnect").into());
        }
        state.worker = Worker::Done { since_ms: None };
        state.wake();
    }
}

/// The receive request of the moment. Dropping it before it is done means that the client broke it off: it does that only
/// when it goes away, and what was on its way then is lost.
pub(crate) struct Receiver {
    line: Arc<Line>,
    number: u64,
    is_done: bool,
}

/// What a receive request is given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Whole frames, at least one.
    Frames(Bytes),
    /// Another request receives now.
    Replaced,
    /// Everything was given out.
    Over,
}

impl Receiver {
    /// Whether the session is yet to be told that it is open; asked once.
    pub(crate) fn opens(&self) -> bool {
        !std::mem::replace(&mut self.line.locked().is_open, true)
    }

    /// Frames of up to `units_max` and the one that passes it, or a promise to wake. With 0 there is never a frame.
    pub(crate) fn poll_take(&mut self, context: &mut Context<'_>, units_max: usize) -> Poll<Taken> {
        let mut state = self.line.locked();
        if state.receiver != self.number {
            self.is_done = true;
            return Poll::Ready(Taken::Replaced);
        }
        let mut taken = BytesMut::new();
        let mut units = 0;
        while units < units_max
            && let Some(frame) = state.waiting.pop_front()
        {
            units += frames::units(&frame);
            state.waiting_bytes -= frame.len();
            taken.extend_from_slice(&frame);
        }
        if state.waiting.is_empty() && state.is_done() {
            state.is_over = true;
        }
        if taken.is_empty() {
            if state.is_over {
                self.is_done = true;
                return Poll::Ready(Taken::Over);
            }
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let has_room = std::mem::take(&mut state.worker_wants_room);
        drop(state);
        if has_room {
            self.line.signal(Signal::Room);
        }
        Poll::Ready(Taken::Frames(taken.freeze()))
    }

    /// The answer is as long as it may be: from now on breaking it off is what the client is expected to do.
    pub(crate) fn pause(&mut self) {
        self.leave(|since_ms| Presence::Reads { since_ms });
    }

    /// The answer is complete.
    pub(crate) fn finish(mut self) {
        self.leave(|since_ms| Presence::Away { since_ms });
    }

    fn leave(&mut self, presence: impl FnOnce(u64) -> Presence) {
        self.is_done = true;
        let now_ms = self.line.clock.elapsed_ms();
        let mut state = self.line.locked();
        if state.receiver == self.number {
            state.presence = presence(now_ms);
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut state = self.line.locked();
        if state.receiver == self.number && !state.is_over {
            state.give_up();
            drop(state);
            self.line.signal(Signal::Gone);
        }
    }
}
