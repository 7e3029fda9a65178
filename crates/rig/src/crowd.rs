//! Many subscribers on one thread: each on one channel of one node, noting every receipt with its time.
//!
//! It judges nothing. A connection that ends is noted and stays ended: whoever is disconnected is not who the promises are for.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fulmar_protocol::app::App;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::ledger::{Receipt, Stood, since};
use crate::{RigError, eventually, mark, websocket};

/// Connections that are opened at a time.
const WINDOW: usize = 64;
const TURN: Duration = Duration::from_millis(4);

/// A place to subscribe.
#[derive(Debug, Clone, Copy)]
pub struct Seat {
    /// The node's address,
    pub addr: SocketAddr,
    /// and its number in the ledger.
    pub node: usize,
    /// Number of the channel.
    pub channel: usize,
}

/// The subscribers.
#[derive(Debug)]
pub struct Crowd {
    wanted: Sender<Seat>,
    shared: Arc<Shared>,
    thread: JoinHandle<(Vec<Stood>, Vec<Receipt>)>,
}

#[derive(Debug, Default)]
struct Shared {
    live: AtomicUsize,
    receipts: AtomicUsize,
    is_over: AtomicBool,
    first_fault: Mutex<Option<String>>,
}

impl Crowd {
    /// An empty one; `names` are the channels by number, and times count from `origin`.
    pub fn start(origin: Instant, app: &App, names: &Arc<[String]>) -> Self {
        let (wanted, seats) = channel();
        let shared = Arc::new(Shared::default());
        let (app, names, twin) = (app.clone(), Arc::clone(names), Arc::clone(&shared));
        let thread = thread::spawn(move || match Room::new(origin, app, names, twin) {
            Ok(room) => room.run(&seats),
            Err(_) => (Vec::new(), Vec::new()),
        });
        Self { wanted, shared, thread }
    }

    /// Connects and subscribes one more, soon.
    pub fn add(&self, seat: Seat) {
        // A thread that has ended shows in `await_live`.
        let _ = self.wanted.send(seat);
    }

    /// Those that are subscribed and connected now.
    pub fn live(&self) -> usize {
        self.shared.live.load(Ordering::Relaxed)
    }

    /// Receipts so far.
    pub fn receipts(&self) -> usize {
        self.shared.receipts.load(Ordering::Relaxed)
    }

    /// Waits until so many are subscribed.
    ///
    /// # Errors
    /// They are not within `patience`.
    pub fn await_live(&self, wanted: usize, patience: Duration) -> Result<(), RigError> {
        let fault = || self.shared.first_fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let waited = eventually("everybody is subscribed", patience, || (self.live() >= wanted).then_some(()));
        waited.map_err(|_| {
            let why = fault().unwrap_or_else(|| "nothing was said".to_owned());
            RigError::Peer(format!("{} of {wanted} are subscribed after {patience:?}: {why}", self.live()))
        })
    }

    /// Ends all; answers subscribers by number, in the order they were added, and their receipts.
    pub fn end(self) -> (Vec<Stood>, Vec<Receipt>) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Connecting,
    Upgrading,
    Greeting,
    Subscribing,
    Live,
    Ended,
}

struct Conn {
    seat: Seat,
    stream: Option<TcpStream>,
    stage: Stage,
    read: Vec<u8>,
}

struct Room {
    origin: Instant,
    app: App,
    names: Arc<[String]>,
    shared: Arc<Shared>,
    poll: Poll,
    conns: Vec<Conn>,
    stood: Vec<Stood>,
    receipts: Vec<Receipt>,
    dialled: usize,
    under_way: usize,
}

impl Room {
    fn new(origin: Instant, app: App, names: Arc<[String]>, shared: Arc<Shared>) -> std::io::Result<Self> {
        let poll = Poll::new()?;
        let (conns, stood, receipts) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { origin, app, names, shared, poll, conns, stood, receipts, dialled: 0, under_way: 0 })
    }

    fn run(mut self, seats: &Receiver<Seat>) -> (Vec<Stood>, Vec<Receipt>) {
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; 64 * 1024];
        while !self.shared.is_over.load(Ordering::Relaxed) {
            while let Ok(seat) = seats.try_recv() {
                self.conns.push(Conn { seat, stream: None, stage: Stage::Waiting, read: Vec::new() });
                self.stood.push(Stood { node: seat.node, channel: seat.channel, from_ns: None, ended: None });
            }
            while self.dialled < self.conns.len() && self.under_way < WINDOW {
                self.dial(self.dialled);
                self.dialled += 1;
            }
            if self.poll.poll(&mut events, Some(TURN)).is_err() {
                continue;
            }
            for event in &events {
                let number = event.token().0;
                if event.is_writable() && self.conns[number].stage == Stage::Connecting {
                    self.conns[number].stage = Stage::Upgrading;
                    self.say(number, websocket::upgrade_request(&self.app).as_bytes());
                }
                self.read(number, &mut scratch);
            }
            self.shared.receipts.store(self.receipts.len(), Ordering::Relaxed);
        }
        (self.stood, self.receipts)
    }

    fn dial(&mut self, number: usize) {
        self.under_way += 1;
        self.conns[number].stage = Stage::Connecting;
        let connected = TcpStream::connect(self.conns[number].seat.addr).and_then(|mut stream| {
            self.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => self.conns[number].stream = Some(stream),
            Err(error) => self.ended(number, &format!("cannot connect: {error}")),
        }
    }

    /// Reads until there is nothing more.
    fn read(&mut self, number: usize, scratch: &mut [u8]) {
        loop {
            let Some(stream) = &mut self.conns[number].stream else { return };
            match stream.read(scratch) {
                Ok(0) => return self.ended(number, "the connection ended"),
                Ok(count) => {
                    let now = since(self.origin);
                    self.conns[number].read.extend_from_slice(&scratch[..count]);
                    self.take_in(number, now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if self.conns[number].stage == Stage::Connecting && error.kind() == ErrorKind::NotConnected =>
                {
                    return;
                }
                Err(error) => return self.ended(number, &error.to_string()),
            }
        }
    }

    fn take_in(&mut self, number: usize, now: u64) {
        let bytes = std::mem::take(&mut self.conns[number].read);
        let mut at = 0;
        if self.conns[number].stage == Stage::Upgrading {
            let Some(head) = websocket::find(&bytes, b"\r\n\r\n") else {
                self.conns[number].read = bytes;
                return;
            };
            if !bytes.starts_with(b"HTTP/1.1 101 ") {
                return self.ended(number, &format!("answered {:?}", String::from_utf8_lossy(&bytes[..head])));
            }
            self.conns[number].stage = Stage::Greeting;
            at = head + 4;
        }
        loop {
            let frame = match websocket::read_frame(&bytes[at..]) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return self.ended(number, &error.to_string()),
            };
            let content = &bytes[at + frame.content.start..at + frame.content.end];
            at += frame.content.end;
            match frame.opcode {
                websocket::TEXT => self.heard(number, content, now),
                websocket::PING => self.say(number, &websocket::masked(websocket::PONG, content)),
                websocket::CLOSE => self.ended(number, &format!("closed with {}", websocket::close_words(content))),
                _ => {}
            }
            if self.conns[number].stage == Stage::Ended {
                return;
            }
        }
        self.conns[number].read = bytes[at..].to_vec();
    }

    fn heard(&mut self, number: usize, text: &[u8], now: u64) {
        if let Some((lane, seq)) = mark::find(text) {
            let subscriber = u32::try_from(number).expect("fewer subscribers than that");
            self.receipts.push(Receipt { subscriber, lane, seq, at_ns: now });
            return;
        }
        let has = |part: &[u8]| websocket::find(text, part).is_some();
        match self.conns[number].stage {
            Stage::Greeting if has(b"pusher:connection_established") => {
                let name = &self.names[self.conns[number].seat.channel];
                let asked = websocket::subscription(&self.app, websocket::socket_id(text).unwrap_or(""), name, None);
                self.conns[number].stage = Stage::Subscribing;
                match asked {
                    Ok(asked) => self.say(number, &websocket::masked(websocket::TEXT, asked.as_bytes())),
                    Err(error) => self.ended(number, &error.to_string()),
                }
            }
            Stage::Subscribing if has(b"pusher_internal:subscription_succeeded") => {
                self.conns[number].stage = Stage::Live;
                self.under_way -= 1;
                self.stood[number].from_ns = Some(now);
                self.shared.live.fetch_add(1, Ordering::Relaxed);
            }
            _ if has(b"\"pusher:ping\"") => {
                self.say(number, &websocket::masked(websocket::TEXT, br#"{"event":"pusher:pong","data":{}}"#));
            }
            _ if has(b"pusher:error") || has(b"subscription_error") => {
                self.fault(&String::from_utf8_lossy(text));
            }
            _ => {}
        }
    }

    /// Everything said is small: a node that does not take it at once does not read.
    fn say(&mut self, number: usize, bytes: &[u8]) {
        let Some(stream) = &mut self.conns[number].stream else { return };
        match stream.write(bytes) {
            Ok(count) if count == bytes.len() => {}
            Ok(_) => self.ended(number, "the node does not read"),
            Err(error) => self.ended(number, &error.to_string()),
        }
    }

    fn ended(&mut self, number: usize, words: &str) {
        let conn = &mut self.conns[number];
        match conn.stage {
            Stage::Ended => return,
            Stage::Live => {
                self.shared.live.fetch_sub(1, Ordering::Relaxed);
            }
            _ => self.under_way -= 1,
        }
        conn.stage = Stage::Ended;
        conn.stream = None;
        self.stood[number].ended = Some((since(self.origin), words.to_owned()));
        self.fault(words);
    }

    fn fault(&self, words: &str) {
        let mut fault = self.shared.first_fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.get_or_insert_with(|| words.to_owned());
    }
}
