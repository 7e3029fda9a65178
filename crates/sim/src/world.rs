//! One node in memory: workers, the embedded backbone, connections, and a clock moved by hand.
//!
//! Effects are performed as the real loop performs them: all, in order, before the next input; an answer given at once
//! is handled after the effects that were already there. What a connection is sent is kept until a test expects it.
//! Invariant: a connection that was closed is sent nothing more.

mod outside;
mod people;

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use fulmar_backbone::memory::{CACHE_BYTES_MAX_DEFAULT, ManualClock, Memory};
use fulmar_backbone::{Backbone, Inbox, WorkerId};
use fulmar_engine::{Effect, Effects, Input, Moment, Seating, SessionKey, Settings, Worker};
use fulmar_protocol::app::{App, AppId};
use fulmar_protocol::exchange::{Answer, Delivery, UserNotice};
use fulmar_protocol::name::SocketId;

use crate::envelope;
use crate::slow::{SlowBackbone, locked};

/// When calls to the REST API are signed and checked, in this world.
const NOW_UNIX_S: u64 = 1_700_000_000;

/// A world to be made.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Workers; connections go to them in turn.
    pub workers: usize,
    /// What each worker is told.
    pub engine: Settings,
    /// The apps served.
    pub apps: Vec<App>,
    /// What cached events may weigh.
    pub cache_bytes_max: u64,
    /// Deliveries that may wait for one worker.
    pub inbox_deliveries_max: usize,
}

impl Default for Setup {
    /// Two workers and the app `app-1` (key `key-1`, secret `secret-1`) with every feature on but counts.
    fn default() -> Self {
        let mut app = App::new("app-1", "key-1", "secret-1");
        app.subscription_counts = false;
        Self {
            workers: 2,
            engine: Settings::default(),
            apps: vec![app],
            cache_bytes_max: CACHE_BYTES_MAX_DEFAULT,
            inbox_deliveries_max: 65_536,
        }
    }
}

/// A connection of the world, open or closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(usize);

/// What a connection hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A text message.
    Text(String),
    /// An RFC 6455 ping.
    Ping,
    /// A close frame; nothing comes after it.
    Closed(u16, String),
}

/// The text of a message.
impl From<&str> for Heard {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

struct Line {
    worker: usize,
    key: SessionKey,
    socket_id: SocketId,
    app: Option<AppId>,
    heard: VecDeque<Heard>,
    is_open: bool,
    /// It counts towards the app's quota.
    is_seated: bool,
}

/// A worker and what the real loop keeps beside it.
struct Desk {
    id: WorkerId,
    mailbox: Arc<Mailbox>,
    worker: Worker,
    effects: Effects,
    answers: VecDeque<Answer>,
    seatings: VecDeque<(SessionKey, Seating)>,
    /// Which connection has which key.
    keys: Vec<Option<Connection>>,
}

#[derive(Debug)]
enum Letter {
    Delivery(Arc<Delivery>),
    Notice(Arc<UserNotice>),
    Answer(Answer),
}

struct Mailbox {
    letters: Mutex<VecDeque<Letter>>,
    deliveries: AtomicUsize,
    deliveries_max: usize,
}

impl Inbox for Mailbox {
    fn has_room(&self) -> bool {
        self.deliveries.load(Ordering::SeqCst) < self.deliveries_max
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        self.deliveries.fetch_add(1, Ordering::SeqCst);
        locked(&self.letters).push_back(Letter::Delivery(delivery));
    }

    fn notice(&self, notice: Arc<UserNotice>) {
        locked(&self.letters).push_back(Letter::Notice(notice));
    }

    fn answer(&self, answer: Answer) {
        locked(&self.letters).push_back(Letter::Answer(answer));
    }
}

impl Mailbox {
    fn take(&self) -> Option<Letter> {
        let letter = locked(&self.letters).pop_front();
        if let Some(Letter::Delivery(_)) = letter {
            self.deliveries.fetch_sub(1, Ordering::SeqCst);
        }
        letter
    }
}

/// One node and everybody connected to it.
pub struct World {
    setup: Setup,
    apps: Vec<Arc<App>>,
    backbone: Arc<SlowBackbone>,
    clock: Arc<ManualClock>,
    now: Moment,
    desks: Vec<Desk>,
    lines: Vec<Line>,
    ids: fastrand::Rng,
    is_draining: bool,
    /// Whether letters wait until [`World::deliver_one`] is called.
    is_by_hand: bool,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// The world of [`Setup::default`].
    #[must_use]
    pub fn new() -> Self {
        Self::of(Setup::default())
    }

    /// The default world, its app changed.
    #[must_use]
    pub fn with_app(change: impl FnOnce(&mut App)) -> Self {
        let mut setup = Setup::default();
        change(&mut setup.apps[0]);
        Self::of(setup)
    }

    /// A world as described.
    #[must_use]
    pub fn of(setup: Setup) -> Self {
        let clock = Arc::new(ManualClock::default());
        let memory = Memory::new(7, setup.cache_bytes_max, Arc::clone(&clock) as _);
        let backbone = Arc::new(SlowBackbone::new(memory));
        let desk = |_| {
            let mailbox = Arc::new(Mailbox {
                letters: Mutex::default(),
                deliveries: AtomicUsize::new(0),
                deliveries_max: setup.inbox_deliveries_max,
            });
            Desk {
                id: backbone.attach(Arc::clone(&mailbox) as _),
                mailbox,
                worker: Worker::new(setup.engine),
                effects: Effects::default(),
                answers: VecDeque::new(),
                seatings: VecDeque::new(),
                keys: Vec::new(),
            }
        };
        Self {
            desks: (0..setup.workers).map(desk).collect(),
            apps: setup.apps.iter().cloned().map(Arc::new).collect(),
            setup,
            backbone,
            clock,
            now: Moment(0),
            lines: Vec::new(),
            ids: fastrand::Rng::with_seed(11),
            is_draining: false,
            is_by_hand: false,
        }
    }

    fn tell(&mut self, worker: usize, input: Input<'_>) {
        self.handle(worker, input);
        self.settle();
    }

    /// Empties the mailboxes, unless a test does that by hand.
    fn settle(&mut self) {
        if self.is_by_hand {
            return;
        }
        let mut is_quiet = false;
        while !is_quiet {
            is_quiet = true;
            for worker in 0..self.desks.len() {
                while self.deliver_one(worker) {
                    is_quiet = false;
                }
            }
        }
    }

    fn handle(&mut self, worker: usize, input: Input<'_>) {
        let now = self.now;
        let desk = &mut self.desks[worker];
        desk.worker.handle(now, input, &mut desk.effects);
        loop {
            while let Some(effect) = self.desks[worker].effects.next_effect() {
                self.perform(worker, effect);
            }
            let desk = &mut self.desks[worker];
            if let Some((session, seating)) = desk.seatings.pop_front() {
                desk.worker.handle(now, Input::Seated { session, seating }, &mut desk.effects);
                continue;
            }
            let Some(answer) = desk.answers.pop_front() else { return };
            desk.worker.handle(now, Input::Answered(answer), &mut desk.effects);
        }
    }

    fn perform(&mut self, worker: usize, effect: Effect) {
        match effect {
            Effect::Send { to, frame } => {
                envelope::check(frame.text());
                self.hear(worker, to, Heard::Text(frame.text().to_owned()));
            }
            Effect::FanOut { frame, targets } => {
                envelope::check(frame.text());
                let targets = self.desks[worker].effects.targets(targets).to_vec();
                let number = targets.len();
                for to in targets.iter().copied() {
                    self.hear(worker, to, Heard::Text(frame.text().to_owned()));
                }
                let distinct: HashSet<_> = targets.into_iter().collect();
                assert_eq!(distinct.len(), number, "one fan-out reaches nobody twice: {}", frame.text());
            }
            Effect::Ping { to } => {
                self.hear(worker, to, Heard::Ping);
            }
            Effect::Close { session, code, reason } => {
                assert!(code.0 < 4_300, "no connection is closed with {code:?}");
                let connection = self.hear(worker, session, Heard::Closed(code.0, reason.into_owned()));
                self.hang_up(connection);
            }
            Effect::TakeSeat { session, max } => {
                let connection = self.desks[worker].keys[session as usize].expect("only open sessions ask for a seat");
                let app = self.lines[connection.0].app.clone();
                let has_seat = max.is_none_or(|max| self.seated(app.as_ref()) < max as usize);
                self.lines[connection.0].is_seated |= has_seat;
                self.desks[worker]
                    .seatings
                    .push_back((session, if has_seat { Seating::Seated } else { Seating::OverQuota }));
            }
            Effect::Ask(question) => {
                let desk = &mut self.desks[worker];
                desk.answers.extend(self.backbone.ask(desk.id, question));
            }
        }
    }

    #[track_caller]
    fn hear(&mut self, worker: usize, key: SessionKey, heard: Heard) -> Connection {
        let connection = self.desks[worker].keys[key as usize]
            .unwrap_or_else(|| panic!("worker {worker} sends {heard:?} to {key}, which nobody is"));
        self.lines[connection.0].heard.push_back(heard);
        connection
    }
}

/// The embedded backbone's futures are ready when they are made.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the embedded backbone never waits"),
    }
}
