//! Many publishers on one thread: each with one kept-alive connection to one node, one channel, and one publish at a time.
//!
//! A lane publishes at its own pace whatever the others do, and not again before it is answered: that is what an app's server
//! with one connection does, and what order can be asked of. It judges nothing; all goes into the ledger.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fulmar_protocol::app::App;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::http::{self, Answer};
use crate::ledger::{Published, since};
use crate::offer::Offer;
use crate::{RigError, eventually, mark};

const TURN: Duration = Duration::from_millis(2);
/// Official SDKs give up after four or five seconds.
const ANSWER_MAX: Duration = Duration::from_secs(6);
/// Between two attempts to connect, or to publish again.
const BACK_OFF: Duration = Duration::from_millis(100);
/// A publish is tried so often, where it is tried again at all.
const ATTEMPTS_MAX: u32 = 20;
/// What a lane that was held up makes up for at once, at most.
const BEHIND_MAX: Duration = Duration::from_secs(1);
const DATA_BYTES: usize = 160;

/// A publisher.
#[derive(Debug, Clone)]
pub struct LaneSpec {
    /// Nodes by number; the first is where it begins, and the others are for trying again.
    pub through: Vec<(usize, SocketAddr)>,
    /// The node that excuses what it is not answered; a number that none has where none does.
    pub node: usize,
    /// Number of its channel.
    pub channel: usize,
    /// From publish to publish.
    pub every: Duration,
    /// Until the first publish.
    pub first: Duration,
    /// Whether it sends an `Idempotency-Key` and, unanswered or refused, tries again through the next node.
    pub tries_again: bool,
}

/// The publishers.
#[derive(Debug)]
pub struct Lanes {
    origin: Instant,
    wanted: Sender<LaneSpec>,
    shared: Arc<Shared>,
    thread: JoinHandle<Done>,
}

/// What publishers did, and what they set out to do.
#[derive(Debug, Default)]
pub struct Done {
    /// Publishes, in the order of each lane.
    pub published: Vec<Published>,
    /// One per lane.
    pub offers: Vec<Offer>,
    /// When they were told to rest.
    pub rested_ns: u64,
}

#[derive(Debug, Default)]
struct Shared {
    answered: AtomicUsize,
    in_flight: AtomicUsize,
    rests: AtomicBool,
    rested_ns: AtomicU64,
    is_over: AtomicBool,
}

impl Lanes {
    /// None yet; `names` are the channels by number, and times count from `origin`.
    pub fn start(origin: Instant, app: &App, names: &Arc<[String]>) -> Self {
        let (wanted, specs) = channel();
        let shared = Arc::new(Shared::default());
        let (app, names, twin) = (app.clone(), Arc::clone(names), Arc::clone(&shared));
        let thread = thread::spawn(move || match Poll::new() {
            Ok(poll) => {
                let (lanes, done) = (Vec::new(), Done::default());
                Desk { origin, app, names, shared: twin, poll, lanes, done }.run(&specs)
            }
            Err(_) => Done::default(),
        });
        Self { origin, wanted, shared, thread }
    }

    /// One more begins.
    pub fn add(&self, spec: LaneSpec) {
        // A thread that has ended shows in the ledger, which is empty.
        let _ = self.wanted.send(spec);
    }

    /// Answers so far, of any kind.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Nobody begins a publish any more; waits until all are answered or given up.
    ///
    /// # Errors
    /// They are not, in far more time than that takes.
    pub fn rest(&self) -> Result<(), RigError> {
        self.shared.rested_ns.store(since(self.origin), Ordering::Relaxed);
        self.shared.rests.store(true, Ordering::Relaxed);
        eventually("all publishes are answered or given up", 4 * ANSWER_MAX, || {
            (self.shared.in_flight.load(Ordering::Relaxed) == 0).then_some(())
        })
    }

    /// Ends all; answers what they did.
    pub fn end(self) -> Done {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let rested_ns = self.shared.rested_ns.load(Ordering::Relaxed);
        Done { rested_ns, ..self.thread.join().unwrap_or_default() }
    }
}

struct Lane {
    spec: LaneSpec,
    stream: Option<TcpStream>,
    is_connected: bool,
    may_dial: Instant,
    due: Instant,
    seq: u32,
    /// What is on its way, as its place in the list.
    current: Option<usize>,
    /// When that was begun.
    began: Instant,
    /// When it is sent again; `None` while it is on its way.
    again: Option<Instant>,
    to_write: VecDeque<u8>,
    read: Vec<u8>,
}

struct Desk {
    origin: Instant,
    app: App,
    names: Arc<[String]>,
    shared: Arc<Shared>,
    poll: Poll,
    lanes: Vec<Lane>,
    done: Done,
}

impl Desk {
    fn run(mut self, specs: &Receiver<LaneSpec>) -> Done {
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; 16 * 1024];
        while !self.shared.is_over.load(Ordering::Relaxed) {
            while let Ok(spec) = specs.try_recv() {
                self.open(spec);
            }
            let now = Instant::now();
            for number in 0..self.lanes.len() {
                self.step(number, now);
            }
            let in_flight = self.lanes.iter().filter(|lane| lane.current.is_some()).count();
            self.shared.in_flight.store(in_flight, Ordering::Relaxed);
            if self.poll.poll(&mut events, Some(TURN)).is_err() {
                continue;
            }
            for event in &events {
                let number = event.token().0;
                if event.is_writable() {
                    self.lanes[number].is_connected = true;
                    self.flush(number);
                }
                self.read(number, &mut scratch);
            }
        }
        self.done
    }

    fn open(&mut self, spec: LaneSpec) {
        let now = Instant::now();
        let as_ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.done.offers.push(Offer {
            lane: u32::try_from(self.lanes.len()).expect("fewer lanes than that"),
            node: spec.node,
            from_ns: since(self.origin).saturating_add(as_ns(spec.first)),
            every_ns: as_ns(spec.every),
        });
        self.lanes.push(Lane {
            due: now + spec.first,
            spec,
            stream: None,
            is_connected: false,
            may_dial: now,
            seq: 0,
            current: None,
            began: now,
            again: None,
            to_write: VecDeque::new(),
            read: Vec::new(),
        });
    }

    /// Whatever is due for this lane.
    fn step(&mut self, number: usize, now: Instant) {
        let lane = &mut self.lanes[number];
        if lane.stream.is_none() && now >= lane.may_dial {
            self.dial(number, now);
        }
        let lane = &mut self.lanes[number];
        if lane.current.is_some() {
            if now.duration_since(lane.began) > ANSWER_MAX {
                self.lost(number, now);
            } else if lane.again.is_some_and(|at| now >= at) && lane.is_connected {
                lane.again = None;
                self.send(number);
            }
            return;
        }
        if now < lane.due || self.shared.rests.load(Ordering::Relaxed) {
            return;
        }
        if !lane.is_connected {
            // Whoever cannot connect publishes nothing, and makes up for nothing.
            lane.due = now;
            return;
        }
        lane.due = (lane.due + lane.spec.every).max(now.checked_sub(BEHIND_MAX).unwrap_or(now));
        lane.seq += 1;
        lane.began = now;
        lane.current = Some(self.done.published.len());
        let sent_ns = since(self.origin);
        self.done.published.push(Published {
            lane: u32::try_from(number).expect("fewer lanes than that"),
            seq: lane.seq,
            channel: lane.spec.channel,
            node: lane.spec.node,
            through: 0,
            sent_ns,
            answered_ns: sent_ns,
            status: None,
            has_retry_after: false,
            attempts: 0,
        });
        self.send(number);
    }

    fn dial(&mut self, number: usize, now: Instant) {
        let lane = &mut self.lanes[number];
        lane.may_dial = now + BACK_OFF;
        lane.is_connected = false;
        lane.read.clear();
        lane.to_write.clear();
        let connected = TcpStream::connect(lane.spec.through[0].1).and_then(|mut stream| {
            self.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        lane.stream = connected.ok();
    }

    fn send(&mut self, number: usize) {
        let lane = &mut self.lanes[number];
        let Some(current) = lane.current else { return };
        let publish = &mut self.done.published[current];
        publish.attempts += 1;
        publish.through |= 1 << lane.spec.through[0].0;
        let (id, seq) = (publish.lane, publish.seq);
        let body = http::publication(&self.names[lane.spec.channel], &mark::write(id, seq, DATA_BYTES));
        let key = lane.spec.tries_again.then(|| format!("{}-{id}-{seq}", std::process::id()));
        lane.to_write.extend(http::request(&self.app, "POST", "events", &[], &body, key.as_deref()));
        self.flush(number);
    }

    fn flush(&mut self, number: usize) {
        let lane = &mut self.lanes[number];
        while let (false, Some(stream)) = (lane.to_write.is_empty(), &mut lane.stream) {
            match stream.write(lane.to_write.make_contiguous()) {
                Ok(count) => drop(lane.to_write.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.lost(number, Instant::now()),
            }
        }
    }

    fn read(&mut self, number: usize, scratch: &mut [u8]) {
        loop {
            let lane = &mut self.lanes[number];
            let Some(stream) = &mut lane.stream else { return };
            match stream.read(scratch) {
                Ok(0) => return self.lost(number, Instant::now()),
                Ok(count) => {
                    lane.read.extend_from_slice(&scratch[..count]);
                    while let Some((answer, used)) = Answer::read(&self.lanes[number].read) {
                        self.lanes[number].read.drain(..used);
                        self.answered(number, &answer);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.lost(number, Instant::now()),
            }
        }
    }

    fn answered(&mut self, number: usize, answer: &Answer) {
        let lane = &mut self.lanes[number];
        let Some(current) = lane.current else { return };
        let publish = &mut self.done.published[current];
        if answer.status != 200 && lane.spec.tries_again && publish.attempts < ATTEMPTS_MAX {
            lane.spec.through.rotate_left(1);
            lane.stream = None;
            lane.again = Some(Instant::now() + BACK_OFF);
            return;
        }
        publish.status = Some(answer.status);
        publish.has_retry_after = answer.has_retry_after;
        publish.answered_ns = since(self.origin);
        lane.current = None;
        self.shared.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// The connection is of no use any more.
    fn lost(&mut self, number: usize, now: Instant) {
        let lane = &mut self.lanes[number];
        let never_was = !lane.is_connected;
        lane.stream = None;
        lane.is_connected = false;
        lane.may_dial = now + BACK_OFF;
        let Some(current) = lane.current else {
            // A lane that may go elsewhere does.
            if lane.spec.tries_again {
                lane.spec.through.rotate_left(1);
            }
            return;
        };
        let publish = &mut self.done.published[current];
        if lane.spec.tries_again && (never_was || publish.attempts < ATTEMPTS_MAX) && now - lane.began < ANSWER_MAX {
            lane.spec.through.rotate_left(1);
            lane.may_dial = now;
            lane.again = Some(now);
            return;
        }
        publish.answered_ns = since(self.origin);
        lane.current = None;
        lane.again = None;
        self.shared.answered.fetch_add(1, Ordering::Relaxed);
    }
}
