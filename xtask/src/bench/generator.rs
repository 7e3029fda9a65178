//! The load: thousands of connections and some publishers, on one thread and one epoll.
//!
//! It reads everything as fast as it can and takes nothing on trust: each delivery carries a mark, and one that is
//! lost, doubled, out of its publisher's order, on the wrong connection or simply not understood fails the case.
//! It knows no case; `sample` tells it what to do.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::BenchError;
use super::board::{Board, LanesHeard};
use super::conn::{Conn, Stage, excerpt, say, write_whole};
use super::histogram::Histogram;
use super::process::own_cpu;
use super::wire::{self, Mark, Signer};

/// Tokens from here on are publishers.
const LANES_FROM: usize = 1 << 32;
const SCRATCH_BYTES: usize = 64 * 1024;
/// Local addresses taken in turn, so that neither ports nor a limit per address run out.
const SOURCES: u8 = 16;
/// Connections begun between two looks at what happened.
const DIALS_PER_TURN: usize = 64;

/// What is published where.
#[derive(Debug, Clone)]
pub struct Feed {
    /// Channels taken in turn.
    pub channels: Vec<u32>,
    /// Events in one request; more than one uses `batch_events`.
    pub batch: usize,
    /// Size of an event's data.
    pub data_bytes: usize,
    /// How many were taken so far; begins at zero.
    pub taken: usize,
}

impl Feed {
    fn next_channel(&mut self) -> u32 {
        self.taken += 1;
        self.channels[(self.taken - 1) % self.channels.len()]
    }
}

/// What one phase of publishing came to.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Requests answered, or client events sent.
    pub publishes: u64,
    /// Frames received.
    pub deliveries: u64,
    /// From the first publish to the last delivery.
    pub took: Duration,
    /// CPU of the generator meanwhile.
    pub own_cpu: Duration,
    /// From publisher's write to each receipt.
    pub latency: Histogram,
}

/// All connections to one server.
pub struct Generator {
    poll: Poll,
    events: Option<Events>,
    scratch: Vec<u8>,
    addr: SocketAddr,
    /// Where connections go, in turn; publishers go to `addr`.
    dialled_addrs: Vec<SocketAddr>,
    host: String,
    upgrade: String,
    conns: Vec<Conn>,
    lanes: Vec<Lane>,
    board: Board,
    dialled: usize,
}

/// One publisher: at most one request, or one client event, is on its way at a time.
struct Lane {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Generator {
    /// Nothing is connected yet; `names` are the channels, later named by their index.
    ///
    /// # Errors
    /// epoll could not be had.
    pub fn new(addr: SocketAddr, signer: Signer, names: Vec<String>) -> Result<Self, BenchError> {
        let host = addr.to_string();
        let board = Board::new(signer, names);
        Ok(Self {
            poll: Poll::new().map_err(|e| BenchError::io("making an epoll", e))?,
            events: Some(Events::with_capacity(1024)),
            scratch: vec![0; SCRATCH_BYTES],
            addr,
            dialled_addrs: vec![addr],
            upgrade: wire::upgrade_request(board.signer.key(), &host),
            host,
            conns: Vec::new(),
            lanes: Vec::new(),
            board,
            dialled: 0,
        })
    }

    /// Frames that were neither expected nor wrong: counts and pings.
    pub fn extras(&self) -> u64 {
        self.board.extras
    }

    /// Connections go to these servers in turn from now on; publishers stay with the first.
    pub fn spread_over(&mut self, addrs: Vec<SocketAddr>) {
        self.dialled_addrs = addrs;
    }

    /// Opens one connection per entry of `channels` and subscribes it there, at most `window` under way at a time.
    ///
    /// # Errors
    /// A connection was refused, closed, answered otherwise than the protocol says, or took too long.
    pub fn connect(&mut self, channels: &[u32], window: usize) -> Result<Duration, BenchError> {
        let start = Instant::now();
        let before = self.board.live;
        let mut begun = 0;
        self.board.progress = start;
        while self.board.live - before < channels.len() {
            for _ in 0..DIALS_PER_TURN {
                let under_way = begun - (self.board.live - before);
                if begun == channels.len() || under_way >= window {
                    break;
                }
                self.dial(channels[begun])?;
                begun += 1;
            }
            let may_dial = begun < channels.len() && begun - (self.board.live - before) < window;
            self.turn(if may_dial { Duration::ZERO } else { Duration::from_millis(100) })?;
            let left = || format!("{} connections are not subscribed", channels.len() + before - self.board.live);
            self.board.check_progress(start, left)?;
        }
        Ok(start.elapsed())
    }

    /// Closes all connections from index `from` on. Publishers stay.
    pub fn drop_from(&mut self, from: usize) {
        for conn in self.conns.drain(from..) {
            if conn.stage == Stage::Live {
                self.board.live -= 1;
                self.board.audience[conn.channel as usize] -= 1;
            }
        }
    }

    /// Opens `count` keep-alive connections for publishing.
    ///
    /// # Errors
    /// A connection was refused.
    pub fn open_lanes(&mut self, count: usize) -> Result<(), BenchError> {
        self.board.open_books(count, self.conns.len(), LanesHeard::Any);
        for index in 0..count {
            let stream = std::net::TcpStream::connect(self.addr);
            let stream = stream.and_then(|s| s.set_nodelay(true).and(s.set_nonblocking(true)).map(|()| s));
            let mut stream = TcpStream::from_std(stream.map_err(|e| BenchError::io("connecting a publisher", e))?);
            let registered = self.poll.registry().register(&mut stream, Token(LANES_FROM + index), Interest::READABLE);
            registered.map_err(|e| BenchError::io("registering a publisher", e))?;
            self.lanes.push(Lane { stream, input: Vec::new() });
        }
        Ok(())
    }

    /// Publishes back to back on every lane for `duration`, then waits until everything has arrived.
    ///
    /// # Errors
    /// A delivery was lost or wrong, or a request was not answered with 200.
    pub fn publish_closed(&mut self, feed: &mut Feed, duration: Duration) -> Result<Tally, BenchError> {
        let mut phase = self.begin();
        let mut idle: Vec<usize> = (0..self.lanes.len()).collect();
        loop {
            if phase.start.elapsed() < duration {
                let requests: Vec<_> = idle.drain(..).map(|lane| (lane, self.next_request(lane, feed))).collect();
                for (lane, request) in &requests {
                    self.publish(*lane, request, None)?;
                    phase.publishes += 1;
                }
            } else if idle.len() == self.lanes.len() {
                return self.end(phase);
            }
            self.turn(Duration::from_millis(100))?;
            idle.append(&mut self.board.done);
            self.board.check_progress(phase.start, || self.board.missing())?;
        }
    }

    /// Publishes `per_s` times a second whatever happens, measuring each delivery's latency.
    ///
    /// A publish that had to wait for a free lane counts from the moment it was due.
    ///
    /// # Errors
    /// As `publish_closed`.
    pub fn publish_paced(&mut self, feed: &mut Feed, per_s: u32, duration: Duration) -> Result<Tally, BenchError> {
        let mut phase = self.begin();
        self.board.latency = Some(Histogram::new());
        // In turn: a connection that says nothing at all for some seconds is closed.
        let mut idle: VecDeque<usize> = (0..self.lanes.len()).collect();
        let gap = Duration::from_secs(1) / per_s;
        let mut due = phase.start;
        let end = phase.start + duration;
        loop {
            let now = Instant::now();
            let mut was_short = false;
            while due <= now && due < end {
                let Some(lane) = idle.pop_front() else {
                    was_short = true;
                    break;
                };
                // A few hundred microseconds are the timer's; more is a lane that was missing.
                let late = now.duration_since(due) > Duration::from_millis(3);
                let request = self.next_request(lane, feed);
                self.publish(lane, &request, late.then_some(due))?;
                phase.publishes += 1;
                due += gap;
            }
            if due >= end && idle.len() == self.lanes.len() {
                let latency = self.board.latency.take();
                let mut tally = self.end(phase)?;
                tally.latency = latency.unwrap_or_else(Histogram::new);
                return Ok(tally);
            }
            let wait = if was_short || due >= end { Duration::from_millis(100) } else { due - now.min(due) };
            self.turn(wait.min(Duration::from_millis(100)))?;
            idle.extend(self.board.done.drain(..));
            if idle.len() == self.lanes.len() {
                self.board.progress = Instant::now();
            }
            self.board.check_progress(phase.start, || self.board.missing())?;
        }
    }

    /// Members of every channel send client events in turn, one per channel on its way, none more often than
    /// `per_member_per_s`, for `duration`; then waits until everything has arrived.
    ///
    /// # Errors
    /// As `publish_closed`; also when a member hears itself.
    pub fn client_events(&mut self, data_bytes: usize, per_s: u32, duration: Duration) -> Result<Tally, BenchError> {
        let channels = self.board.names.len();
        self.board.open_books(channels, self.conns.len(), LanesHeard::One);
        let mut members = vec![Vec::new(); channels];
        for (index, conn) in self.conns.iter().enumerate() {
            members[conn.channel as usize].push(index);
        }
        let gap = Duration::from_secs(1) / per_s;
        let mut phase = self.begin();
        let mut last: Vec<Option<Instant>> = vec![None; self.conns.len()];
        let mut turns = vec![0_usize; channels];
        let mut idle: Vec<usize> = (0..channels).collect();
        loop {
            let now = Instant::now();
            let going_on = now - phase.start < duration;
            if !going_on && idle.len() == channels {
                return self.end(phase);
            }
            let mut waiting = Vec::new();
            for channel in idle.drain(..) {
                let member = members[channel][turns[channel] % members[channel].len()];
                let early = last[member].is_some_and(|at| now - at < gap);
                if !going_on || early {
                    waiting.push(channel);
                    continue;
                }
                turns[channel] += 1;
                last[member] = Some(now);
                self.send_client_event(channel, member, data_bytes)?;
                phase.publishes += 1;
            }
            let wait = if waiting.is_empty() || !going_on { 100 } else { 1 };
            idle = waiting;
            self.turn(Duration::from_millis(wait))?;
            idle.append(&mut self.board.done);
            if idle.len() == channels {
                self.board.progress = Instant::now();
            }
            self.board.check_progress(phase.start, || self.board.missing())?;
        }
    }

    /// Listens a moment longer: whatever comes now was never asked for.
    ///
    /// # Errors
    /// Something came that fits nothing on its way.
    pub fn listen(&mut self, duration: Duration) -> Result<(), BenchError> {
        let start = Instant::now();
        while start.elapsed() < duration {
            self.turn(Duration::from_millis(10))?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Phase {
        self.board.progress = Instant::now();
        self.board.done.clear();
        Phase { start: Instant::now(), own_cpu: own_cpu(), deliveries: self.board.deliveries, publishes: 0 }
    }

    fn end(&mut self, phase: Phase) -> Result<Tally, BenchError> {
        let took = phase.start.elapsed();
        let own_cpu = own_cpu().saturating_sub(phase.own_cpu);
        let deliveries = self.board.deliveries - phase.deliveries;
        self.listen(Duration::from_millis(30))?;
        Ok(Tally { publishes: phase.publishes, deliveries, took, own_cpu, latency: Histogram::new() })
    }

    fn dial(&mut self, channel: u32) -> Result<(), BenchError> {
        let mut stream = self.begin_connect().map_err(|e| BenchError::io("opening a connection", e))?;
        let token = Token(self.conns.len());
        let registered = self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE);
        registered.map_err(|e| BenchError::io("registering a connection", e))?;
        self.conns.push(Conn::new(stream, channel));
        Ok(())
    }

    fn begin_connect(&mut self) -> io::Result<TcpStream> {
        let addr = self.dialled_addrs[self.conns.len() % self.dialled_addrs.len()];
        let domain = if addr.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if addr.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            self.dialled += 1;
            let last = u8::try_from(self.dialled % usize::from(SOURCES)).expect("a remainder below 16") + 2;
            socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())?;
        }
        match socket.connect(&addr.into()) {
            Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }

    /// Opens the books of the lane's next request and writes it down. It is sent apart, so that requests due together
    /// reach the server together.
    fn next_request(&mut self, lane: usize, feed: &mut Feed) -> String {
        let unit = &mut self.board.units[lane];
        unit.seq += 1;
        unit.channels = (0..feed.batch).map(|_| feed.next_channel()).collect();
        unit.missing = unit.channels.iter().map(|c| self.board.audience[*c as usize]).sum();
        unit.unanswered = true;
        let lane = u16::try_from(lane).expect("few lanes");
        let event = |place: usize, channel: &u32| {
            let place = u8::try_from(place).expect("a batch is small");
            let data = Mark { lane, place, seq: unit.seq }.data(feed.data_bytes);
            (&self.board.names[*channel as usize], data)
        };
        let (verb, body) = if feed.batch == 1 {
            let (name, data) = event(0, &unit.channels[0]);
            ("events", format!(r#"{{"name":"bench","channels":["{name}"],"data":"{data}"}}"#))
        } else {
            let events = unit.channels.iter().enumerate().map(|(place, channel)| {
                let (name, data) = event(place, channel);
                format!(r#"{{"name":"bench","channel":"{name}","data":"{data}"}}"#)
            });
            ("batch_events", format!(r#"{{"batch":[{}]}}"#, events.collect::<Vec<_>>().join(",")))
        };
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.board.signer.post(verb, &self.host, &body, unix_s)
    }

    /// Sends a request; its deliveries count from `due` when it could not be sent then.
    fn publish(&mut self, lane: usize, request: &str, due: Option<Instant>) -> Result<(), BenchError> {
        self.board.units[lane].sent = Some(due.unwrap_or_else(Instant::now));
        write_whole(&mut self.lanes[lane].stream, request.as_bytes(), "publishing")
    }

    fn send_client_event(&mut self, channel: usize, member: usize, data_bytes: usize) -> Result<(), BenchError> {
        let unit = &mut self.board.units[channel];
        unit.seq += 1;
        unit.missing = self.board.audience[channel] - 1;
        unit.channels = vec![u32::try_from(channel).expect("few channels")];
        unit.sender = Some(member);
        let mark = Mark { lane: u16::try_from(channel).expect("few channels"), place: 0, seq: unit.seq };
        let name = &self.board.names[channel];
        let data = mark.data(data_bytes);
        let text = format!(r#"{{"event":"client-bench","channel":"{name}","data":"{data}"}}"#);
        let stream = &mut self.conns[member].stream;
        say(stream, &text)
    }

    fn turn(&mut self, timeout: Duration) -> Result<(), BenchError> {
        let mut events = self.events.take().expect("put back at the end of every turn");
        let polled = self.poll.poll(&mut events, Some(timeout));
        let mut result = match polled {
            Err(e) if e.kind() != ErrorKind::Interrupted => Err(BenchError::io("waiting for events", e)),
            _ => Ok(()),
        };
        for event in &events {
            let index = event.token().0;
            let handled = if index >= LANES_FROM {
                self.lane_readable(index - LANES_FROM)
            } else if index < self.conns.len() {
                self.conn_event(index, event.is_writable(), event.is_readable() || event.is_error())
            } else {
                Ok(())
            };
            result = result.and(handled);
        }
        self.events = Some(events);
        result
    }

    fn conn_event(&mut self, index: usize, writable: bool, readable: bool) -> Result<(), BenchError> {
        let conn = &mut self.conns[index];
        let stream = &mut conn.stream;
        if conn.stage == Stage::Connecting && writable {
            if let Some(error) = stream.take_error().ok().flatten() {
                return Err(BenchError::io("connecting", error));
            }
            conn.stage = Stage::Upgrading;
            write_whole(stream, self.upgrade.as_bytes(), "asking for the upgrade")?;
        }
        if !readable {
            return Ok(());
        }
        loop {
            let conn = &mut self.conns[index];
            match conn.stream.read(&mut self.scratch) {
                Ok(0) => return Err(BenchError::Peer("the server closed a connection without a word".into())),
                Ok(n) => {
                    conn.take_in(index, &self.scratch[..n], &mut self.board)?;
                    // A short read emptied the socket; edge-triggered epoll tells of anything later.
                    if n < SCRATCH_BYTES {
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(BenchError::io("reading from a connection", e)),
            }
        }
    }

    fn lane_readable(&mut self, index: usize) -> Result<(), BenchError> {
        let lane = &mut self.lanes[index];
        loop {
            match lane.stream.read(&mut self.scratch) {
                Ok(0) => return Err(BenchError::Peer("the server closed a publisher's connection".into())),
                Ok(n) => lane.input.extend_from_slice(&self.scratch[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(BenchError::io("reading an answer", e)),
            }
        }
        let read = wire::read_response(&lane.input).map_err(|why| BenchError::Peer(why.into()))?;
        let Some((status, length)) = read.filter(|(_, length)| lane.input.len() >= *length) else { return Ok(()) };
        if status != 200 || lane.input.len() > length {
            return Err(BenchError::Peer(format!("a publish was answered {}", excerpt(&lane.input))));
        }
        lane.input.clear();
        self.board.answered(index)
    }
}

struct Phase {
    start: Instant,
    own_cpu: Duration,
    deliveries: u64,
    publishes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::reference;

    /// Runs `conversation` against a reference in this process.
    fn against_reference(gather: bool, names: Vec<String>, conversation: impl FnOnce(&mut Generator)) {
        reference::while_serving(gather, None, |addr| {
            let mut generator = Generator::new(addr, Signer::new("1", "k", "s"), names).expect("an epoll");
            conversation(&mut generator);
        });
    }

    const SHORT: Duration = Duration::from_millis(40);

    #[test]
    fn every_delivery_to_a_crowd_arrives_once_with_and_without_gathering() {
        for gather in [false, true] {
            against_reference(gather, vec!["a".into()], |generator| {
                generator.connect(&[0; 30], 8).expect("all subscribe");
                generator.open_lanes(3).expect("publishers connect");
                let mut feed = Feed { channels: vec![0], batch: 1, data_bytes: 140, taken: 0 };
                let tally = generator.publish_closed(&mut feed, SHORT).expect("nothing is lost");
                assert!(tally.publishes >= 3);
                assert_eq!(tally.deliveries, tally.publishes * 30);
                let tally = generator.publish_paced(&mut feed, 200, SHORT).expect("nothing is lost");
                assert_eq!((tally.publishes, tally.deliveries), (8, 240));
                assert!(tally.latency.quantile(0.5) > Duration::ZERO);
            });
        }
    }

    #[test]
    fn batches_reach_the_channels_they_name_and_those_who_left_are_not_missed() {
        let names = (0..10).map(|i| format!("c{i}")).collect();
        against_reference(false, names, |generator| {
            generator.connect(&(0..20).map(|i| i % 10).collect::<Vec<_>>(), 4).expect("all subscribe");
            generator.drop_from(10);
            generator.connect(&[3, 4], 4).expect("two come back");
            generator.open_lanes(2).expect("publishers connect");
            let mut feed = Feed { channels: (0..10).collect(), batch: 10, data_bytes: 140, taken: 0 };
            let tally = generator.publish_closed(&mut feed, SHORT).expect("nothing is lost");
            assert_eq!(tally.deliveries, tally.publishes * 12);
        });
    }

    #[test]
    fn client_events_reach_the_other_members_at_no_more_than_the_pace() {
        let names = (0..3).map(|i| format!("private-c{i}")).collect();
        against_reference(false, names, |generator| {
            generator.connect(&(0..12).map(|i| i % 3).collect::<Vec<_>>(), 4).expect("all subscribe");
            let tally = generator.client_events(40, 9, SHORT).expect("nothing is lost");
            // Within 40 ms each of the 12 members may speak once.
            assert_eq!((tally.publishes, tally.deliveries), (12, 36));
        });
    }
}
