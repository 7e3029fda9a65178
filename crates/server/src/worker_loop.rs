//! The loop of one worker: readiness in, effects out.
//!
//! A turn: read what the sockets have, take what the inbox has, let time pass, then write everything that came of it,
//! each connection once. Nothing here decides what anything means; the engine does.

mod reading;
mod signalled;
mod slow;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fulmar_backbone::{Backbone, WorkerId};
use fulmar_engine::{AppLookup, Effect, Effects, Input, Moment, Seating, SessionKey, Settings, Worker};
use fulmar_protocol::exchange::Answer;
use fulmar_protocol::websocket;
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::apps::Apps;
use crate::http::clock::Clock;
use crate::http::health::{BEAT_EVERY_MS, Pulses};
use crate::inbox::{Message, WorkerInbox};
use crate::quota::NoSeat;
use crate::ws::connection::{CLOSE_TIMEOUT_MS, Connection, Stage};
use crate::ws::handover::{Handover, Socket};
use crate::ws::outbox::{Budget, Flushed, Turn};

/// The inbox's own token.
pub(crate) const WAKE: Token = Token(usize::MAX);
/// Socket events taken per turn.
const EVENTS_PER_TURN: usize = 1_024;
/// Connections written per turn; then the sockets are looked at again, so that a fan-out to 10,000 keeps nobody waiting.
const FLUSHES_PER_TURN: usize = 256;
/// Frames of one turn beyond which sockets and inbox wait until all are written.
const FRAMES_PER_TURN_MAX: usize = 4_096;
/// Deliveries noted in one turn beyond which the inbox waits: four bytes each until they are written.
const NOTES_PER_TURN_MAX: usize = 65_536;
/// How often connections with something unfinished are looked at.
const WATCH_EVERY_MS: u64 = 250;

/// What a loop is given.
pub(crate) struct LoopSettings {
    pub(crate) engine: Settings,
    pub(crate) budget: Budget,
    /// Bytes that may wait on all connections of this worker together.
    pub(crate) backlog_bytes_max: usize,
    pub(crate) message_bytes_max: usize,
    /// How long a message may take from its first byte to its last.
    pub(crate) frame_timeout_ms: u64,
}

/// What all loops of a node have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) backbone: Arc<dyn Backbone>,
    pub(crate) apps: Arc<Apps>,
    pub(crate) clock: Clock,
    pub(crate) pulses: Arc<Pulses>,
}

/// One worker's loop and everything it owns.
pub(crate) struct WorkerLoop {
    index: usize,
    id: WorkerId,
    poll: Poll,
    inbox: Arc<WorkerInbox>,
    backbone: Arc<dyn Backbone>,
    apps: Arc<Apps>,
    clock: Clock,
    pulses: Arc<Pulses>,
    settings: LoopSettings,
    worker: Worker,
    effects: Effects,
    answers: VecDeque<Answer>,
    /// Sessions that asked for a seat of the quota, and whether they have it.
    seatings: VecDeque<(SessionKey, Seating)>,
    connections: Slab<Connection>,
    turn: Turn,
    /// Connections with frames pending, each once.
    dirty: VecDeque<SessionKey>,
    /// Frames of this turn times the connections that are to get them.
    noted: usize,
    /// Connections that had more to read than one turn takes, each once.
    unread: VecDeque<SessionKey>,
    /// Bytes read in this turn.
    read_bytes: usize,
    /// Connections with something unfinished.
    watched: Vec<SessionKey>,
    watched_at: Moment,
    /// Taken from the inbox and not handled yet.
    messages: VecDeque<Message>,
    scratch: Vec<u8>,
    is_stopped: bool,
}

impl WorkerLoop {
    pub(crate) fn new(
        index: usize,
        poll: Poll,
        inbox: Arc<WorkerInbox>,
        shared: Shared,
        settings: LoopSettings,
    ) -> Self {
        let Shared { backbone, apps, clock, pulses } = shared;
        let id = backbone.attach(inbox.clone());
        Self {
            index,
            id,
            poll,
            inbox,
            backbone,
            apps,
            clock,
            pulses,
            worker: Worker::new(settings.engine),
            settings,
            effects: Effects::default(),
            answers: VecDeque::new(),
            seatings: VecDeque::new(),
            connections: Slab::new(),
            turn: Turn::default(),
            dirty: VecDeque::new(),
            noted: 0,
            unread: VecDeque::new(),
            read_bytes: 0,
            watched: Vec::new(),
            watched_at: Moment::default(),
            messages: VecDeque::new(),
            scratch: vec![0; reading::READ_BYTES],
            is_stopped: false,
        }
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// When the operating system no longer polls: nothing can go on without that.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut now = self.now();
        while !self.is_stopped {
            let timeout = self.timeout(now);
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            self.inbox.stay_awake();
            // One look at the clock per turn: everything in it happens at one moment.
            now = self.now();
            self.pulses.beat(self.index, now.0);
            self.turn(now, &events);
        }
        Ok(())
    }

    fn now(&self) -> Moment {
        Moment(self.clock.elapsed_ms())
    }

    fn timeout(&self, now: Moment) -> Duration {
        let is_busy = !self.dirty.is_empty() || !self.unread.is_empty() || !self.messages.is_empty();
        if is_busy || !self.inbox.may_sleep() {
            return Duration::ZERO;
        }
        let deadline = self.worker.next_deadline().map(|at| at.ms_since(now));
        let watch = (!self.watched.is_empty()).then_some(WATCH_EVERY_MS);
        let ms = [deadline, watch].into_iter().flatten().fold(BEAT_EVERY_MS, u64::min);
        Duration::from_millis(ms)
    }

    fn turn(&mut self, now: Moment, events: &Events) {
        self.read_bytes = 0;
        self.read_on(now);
        for event in events {
            if event.token() != WAKE {
                self.ready(now, event);
            }
        }
        self.take_messages(now);
        if self.worker.next_deadline().is_some_and(|at| at <= now) {
            self.handle(now, Input::Deadline);
        }
        self.flush(now);
        if now.ms_since(self.watched_at) >= WATCH_EVERY_MS {
            self.watched_at = now;
            self.inbox.note_figures(self.worker.figures());
            self.watch(now);
        }
    }

    fn ready(&mut self, now: Moment, event: &Event) {
        let key = event.token().0;
        if event.is_writable() {
            self.resume(now, key);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            let key = SessionKey::try_from(key).expect("keys are handed out below 2^32");
            if event.is_read_closed()
                && let Some(connection) = self.connections.get_mut(key as usize)
            {
                // The end that this event tells of may stand behind bytes that are read first, and no event follows.
                connection.is_ending = true;
            }
            if self.may_read() {
                self.read(now, key);
            } else {
                self.read_later(key);
            }
        }
    }

    /// Whether this turn has done all that one turn may before everything that came of it is written.
    fn is_full(&self) -> bool {
        self.turn.len() >= FRAMES_PER_TURN_MAX || self.noted >= NOTES_PER_TURN_MAX
    }

    /// Handles what the inbox has, as far as one turn goes: what a burst brings beyond that waits where it is counted.
    fn take_messages(&mut self, now: Moment) {
        if self.messages.is_empty() {
            self.inbox.take(&mut self.messages);
        }
        while !self.is_full() {
            let Some(message) = self.messages.pop_front() else { return };
            match message {
                Message::Delivery(delivery) => {
                    self.inbox.handled_delivery();
                    self.handle(now, Input::Delivered(&delivery));
                }
                Message::Notice(notice) => self.handle(now, Input::Noticed(&notice)),
                Message::Answer(answer) => self.handle(now, Input::Answered(answer)),
                Message::Connection(handover) => self.adopt(now, *handover),
                Message::Fallback(line, signal) => self.signalled(now, &line, signal),
                Message::AppReplaced(app) => self.handle(now, Input::AppReplaced(&app)),
                Message::AppRemoved(app) => self.handle(now, Input::AppRemoved(&app)),
                // Whoever asked may have stopped waiting.
                Message::Settle(done) => drop(done.send(())),
                Message::Drain { over_ms } => self.handle(now, Input::Drain { over_ms }),
                Message::Stop => self.is_stopped = true,
            }
        }
    }

    /// Hands an input to the engine and performs all that comes of it, questions answered at once included.
    fn handle(&mut self, now: Moment, input: Input<'_>) {
        self.worker.handle(now, input, &mut self.effects);
        loop {
            while let Some(effect) = self.effects.next_effect() {
                self.perform(now, effect);
            }
            if let Some((session, seating)) = self.seatings.pop_front() {
                self.worker.handle(now, Input::Seated { session, seating }, &mut self.effects);
                continue;
            }
            let Some(answer) = self.answers.pop_front() else { return };
            self.worker.handle(now, Input::Answered(answer), &mut self.effects);
        }
    }

    fn perform(&mut self, now: Moment, effect: Effect) {
        match effect {
            Effect::Send { to, frame } => self.send(to, frame.bytes().clone()),
            Effect::FanOut { frame, targets } => {
                let number = self.turn.add(frame.bytes().clone());
                self.noted += targets.len();
                for key in self.effects.targets(targets) {
                    note(&mut self.connections, &mut self.dirty, *key, number);
                }
            }
            Effect::Ping { to } => self.send(to, websocket::ping(&[])),
            Effect::Close { session, code, reason } => {
                self.send(session, websocket::close(code, &reason));
                self.begin_closing(now, session, false);
            }
            Effect::Ask(question) => self.answers.extend(self.backbone.ask(self.id, question)),
            Effect::TakeSeat { session, max } => {
                let connection = self.connections.get_mut(session as usize);
                let seat = connection.and_then(|connection| connection.app_seat.as_mut());
                let seated = seat.map_or(Ok(()), |seat| seat.sit_down(max, now.0));
                let seating = match seated {
                    Ok(()) => Seating::Seated,
                    Err(NoSeat::OverQuota) => Seating::OverQuota,
                    Err(NoSeat::Later) => Seating::Later,
                };
                self.seatings.push_back((session, seating));
            }
        }
    }

    fn send(&mut self, to: SessionKey, bytes: Bytes) {
        let number = self.turn.add(bytes);
        note(&mut self.connections, &mut self.dirty, to, number);
    }

    fn adopt(&mut self, now: Moment, handover: Handover) {
        let Handover { mut socket, response, mut leftover, mut opening, seat, app_seat } = handover;
        // It was looked up on another thread. What changed since then and reached this loop before the connection did
        // would otherwise never reach it; what comes later finds it open.
        if let AppLookup::Found(app) = &opening.app {
            opening.app = match self.apps.as_of_now(app) {
                Some(app) => AppLookup::Found(app),
                None => AppLookup::NoApp { key: app.key.to_string() },
            };
        }
        let is_tls = matches!(socket, Socket::Tls(_));
        let entry = self.connections.vacant_entry();
        let token = Token(entry.key());
        let key = SessionKey::try_from(token.0).expect("file descriptors end long before 2^32 connections");
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = socket.tcp().map_or(Ok(()), |tcp| self.poll.registry().register(tcp, token, interest));
        if registered.is_err() {
            // The peer sees the socket close and comes back.
            self.inbox.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        if let Socket::Fallback(line) = &socket {
            line.name(key);
        }
        entry.insert(Connection::new(socket, self.settings.message_bytes_max, seat, app_seat));
        self.send(key, Bytes::from(response));
        self.handle(now, Input::Opened { session: key, opening });
        if !leftover.is_empty() {
            self.said(now, key, &mut leftover);
        }
        if is_tls {
            // What was decrypted behind the handshake raises no readiness event.
            self.read(now, key);
        }
    }

    fn begin_closing(&mut self, now: Moment, key: SessionKey, is_peer_done: bool) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        connection.app_seat = None;
        connection.drop_partial();
        let until = now.plus_ms(CLOSE_TIMEOUT_MS);
        let peer_is_done = !connection.socket.begin_close() || is_peer_done;
        connection.stage = Stage::Closing { until, peer_is_done, is_shut: false };
        self.watch_if_needed(key);
    }

    /// The socket has ended, whatever the session thinks.
    fn end(&mut self, now: Moment, key: SessionKey) {
        self.handle(now, Input::Gone { session: key });
        self.forget(key);
    }

    fn forget(&mut self, key: SessionKey) {
        let Some(connection) = self.connections.try_remove(key as usize) else { return };
        self.inbox.connections.fetch_sub(1, Ordering::Relaxed);
        if connection.is_unread {
            // Whoever gets this key next is not to be taken for it.
            self.unread.retain(|unread| *unread != key);
        }
    }

    /// Writes what is pending, up to a turn's share of connections.
    fn flush(&mut self, now: Moment) {
        let share = if self.is_full() { self.dirty.len() } else { FLUSHES_PER_TURN };
        for _ in 0..share {
            let Some(key) = self.dirty.pop_front() else { break };
            let Some(connection) = self.connections.get_mut(key as usize) else { continue };
            let flushed = connection.outbox.flush(&mut connection.socket, &mut self.turn, now, &self.settings.budget);
            self.flushed(now, key, flushed);
        }
        if self.dirty.is_empty() {
            self.turn.end();
            self.noted = 0;
        }
    }

    fn resume(&mut self, now: Moment, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        if connection.outbox.is_empty() && matches!(connection.socket, Socket::Plain(_)) {
            return;
        }
        let flushed = connection.outbox.resume(&mut connection.socket, &self.settings.budget);
        let key = SessionKey::try_from(index).expect("keys are handed out below 2^32");
        self.flushed(now, key, flushed);
    }

    fn flushed(&mut self, now: Moment, key: SessionKey, flushed: io::Result<Flushed>) {
        match flushed {
            Ok(Flushed::All) => {
                if self.connections.get_mut(key as usize).is_some_and(Connection::finish_if_flushed) {
                    self.forget(key);
                }
            }
            Ok(Flushed::Waiting) => self.watch_if_needed(key),
            Ok(Flushed::TooSlow) => self.cut(now, key),
            Err(_) => self.end(now, key),
        }
    }
}

/// Notes a frame for a connection, and the connection for the end of the turn.
fn note(connections: &mut Slab<Connection>, dirty: &mut VecDeque<SessionKey>, key: SessionKey, number: u32) {
    if let Some(connection) = connections.get_mut(key as usize)
        && connection.outbox.note(number)
    {
        dirty.push_back(key);
    }
}
