//! The publisher and the listener of nodes: two small programs, as those of the reference are.
//!
//! One thread signs and sends, paced as the reference is, and reads the answers; the other reads the connections of all channels.
//! So neither side of a pair has in its figure what the other's program would cost.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Interest, Poll, Token};

use super::flow::{Flow, PATIENCE, age, pause_until, stamped};
use crate::bench::BenchError;
use crate::bench::case::RedisPlan;
use crate::bench::histogram::Histogram;
use crate::bench::process::own_cpu;
use crate::bench::wire::{self, Signer};

/// The listener asks so often whether the phase is over.
const LOOK: Duration = Duration::from_millis(20);
/// An answer that takes longer than this after its lane's turn has come was waited for.
const WAITED_MIN: Duration = Duration::from_micros(100);
const SCRATCH_BYTES: usize = 16 * 1024;
const OPCODE_TEXT: u8 = 1;
const OPCODE_PING: u8 = 9;
const OPCODE_PONG: u8 = 10;

/// A publisher of one node and a listener of another.
pub struct Clients {
    lanes: Vec<Lane>,
    host: String,
    signer: Signer,
    names: Vec<String>,
    /// Times count from here.
    begun: Instant,
    published: usize,
    /// What was due before this moment counts from when it was due: the publisher was kept waiting.
    owed_until: Instant,
    /// Says how many events a phase has, once it is over.
    over: Sender<usize>,
    heard: Receiver<Result<Heard, BenchError>>,
}

/// A publisher's connection, with at most one request on its way.
struct Lane {
    stream: TcpStream,
    is_open: bool,
}

/// What the listener heard of one phase.
struct Heard {
    latency: Histogram,
    cpu: Duration,
}

/// The connections of all channels, one each.
struct Listener {
    sockets: Vec<Socket>,
    poll: Poll,
    begun: Instant,
    over: Receiver<usize>,
}

struct Socket {
    stream: mio::net::TcpStream,
    /// The beginning of a frame whose end has not arrived.
    left: Vec<u8>,
}

impl Clients {
    /// Connects so many publishers to `to`, and a subscriber of each of `names` to `from`.
    ///
    /// # Errors
    /// A node does not answer, or otherwise than the protocol says.
    pub fn connect(
        [to, from]: [SocketAddr; 2],
        signer: Signer,
        names: Vec<String>,
        publishers: usize,
    ) -> Result<Self, BenchError> {
        let begun = Instant::now();
        let lanes = (0..publishers).map(|_| Ok(Lane { stream: dial(to)?, is_open: false }));
        let lanes = lanes.collect::<Result<Vec<_>, BenchError>>()?;
        let (over, is_over) = channel();
        let (say, heard) = channel();
        let mut listener = Listener::connect(from, signer.key(), &names, begun, is_over)?;
        thread::spawn(move || while listener.phase().is_some_and(|came| say.send(came).is_ok()) {});
        let (host, owed_until) = (to.to_string(), begun);
        Ok(Self { lanes, host, signer, names, begun, published: 0, owed_until, over, heard })
    }

    /// Publishes as the plan says, for `length`, and waits until everything is heard.
    ///
    /// # Errors
    /// A request is refused, or an event is lost or doubled.
    pub fn publish(&mut self, plan: &RedisPlan, length: Duration) -> Result<Flow, BenchError> {
        let (start, before, cpu) = (Instant::now(), self.published, own_cpu());
        let batch = plan.batch.max(1);
        let gap = Duration::from_secs(1) / plan.messages_per_s.max(1) * u32::try_from(batch).unwrap_or(1);
        let mut due = start;
        while due < start + length {
            pause_until(due);
            self.send(due, batch, plan.data_bytes)?;
            due += gap;
        }
        for lane in &mut self.lanes {
            lane.await_answer()?;
        }
        let (own_cpu, count) = (own_cpu().saturating_sub(cpu), self.published - before);
        let gone = || BenchError::Peer("the listener is gone".to_owned());
        self.over.send(count).map_err(|_| gone())?;
        let Heard { latency, cpu } = self.heard.recv().map_err(|_| gone())??;
        Ok(Flow { published: count as u64, took: start.elapsed(), own_cpu, subscriber_cpu: cpu, latency })
    }

    /// Sends so many events in one call.
    fn send(&mut self, due: Instant, batch: usize, data_bytes: usize) -> Result<(), BenchError> {
        let place = self.published / batch % self.lanes.len();
        let (lane, turn) = (&mut self.lanes[place], Instant::now());
        lane.await_answer()?;
        let now = Instant::now();
        if now - turn > WAITED_MIN {
            self.owed_until = now;
        }
        let written = if due < self.owed_until { due } else { now };
        let names = (self.published..self.published + batch).map(|at| &self.names[at % self.names.len()]);
        let data = stamped(&self.begun, written, data_bytes);
        let (path, body) = if batch == 1 {
            let channel = names.map(|name| format!(r#""{name}""#)).collect::<String>();
            ("events", format!(r#"{{"name":"bench","channels":[{channel}],"data":"{data}"}}"#))
        } else {
            let event = |name| format!(r#"{{"name":"bench","channel":"{name}","data":"{data}"}}"#);
            ("batch_events", format!(r#"{{"batch":[{}]}}"#, names.map(event).collect::<Vec<_>>().join(",")))
        };
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let request = self.signer.post(path, &self.host, &body, unix_s);
        lane.stream.write_all(request.as_bytes()).map_err(|e| BenchError::io("publishing", e))?;
        (lane.is_open, self.published) = (true, self.published + batch);
        Ok(())
    }
}

impl Lane {
    /// Reads the answer that is still to come, if one is.
    fn await_answer(&mut self) -> Result<(), BenchError> {
        let (mut scratch, mut filled) = ([0; 2048], 0);
        while self.is_open {
            let count = self.stream.read(&mut scratch[filled..]).map_err(|e| BenchError::io("reading an answer", e))?;
            filled += count;
            let answer = &scratch[..filled];
            let read = wire::read_response(answer).map_err(|why| BenchError::Peer(why.to_owned()))?;
            match read {
                Some((200, length)) if length == filled => self.is_open = false,
                None if count > 0 && filled < scratch.len() => {}
                _ => {
                    let text = String::from_utf8_lossy(answer);
                    return Err(BenchError::Peer(format!("a publish was answered {text:?}")));
                }
            }
        }
        Ok(())
    }
}

impl Listener {
    fn connect(
        addr: SocketAddr,
        key: &str,
        names: &[String],
        begun: Instant,
        over: Receiver<usize>,
    ) -> Result<Self, BenchError> {
        let poll = Poll::new().map_err(|e| BenchError::io("making an epoll", e))?;
        let mut sockets = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let stream = subscribe(addr, key, name)?;
            stream.set_nonblocking(true).map_err(|e| BenchError::io("subscribing", e))?;
            let mut stream = mio::net::TcpStream::from_std(stream);
            let registered = poll.registry().register(&mut stream, Token(index), Interest::READABLE);
            registered.map_err(|e| BenchError::io("registering a subscriber", e))?;
            sockets.push(Socket { stream, left: Vec::new() });
        }
        Ok(Self { sockets, poll, begun, over })
    }

    /// Hears events until a phase is over and has arrived as a whole; `None` when there is to be no other.
    fn phase(&mut self) -> Option<Result<Heard, BenchError>> {
        let (mut latency, mut count, cpu) = (Histogram::new(), 0, own_cpu());
        let (mut events, mut wanted, mut progress) = (Events::with_capacity(256), None, Instant::now());
        while wanted.is_none_or(|wanted| count < wanted) {
            match self.over.try_recv() {
                Ok(count) => (wanted, progress) = (Some(count), Instant::now()),
                Err(TryRecvError::Disconnected) if wanted.is_none() => return None,
                Err(_) => {}
            }
            match self.poll.poll(&mut events, Some(LOOK)) {
                Err(e) if e.kind() != ErrorKind::Interrupted => {
                    return Some(Err(BenchError::io("waiting for events", e)));
                }
                _ => {}
            }
            for event in &events {
                match self.sockets[event.token().0].take(&self.begun, &mut latency) {
                    Ok(0) => {}
                    Ok(more) => (count, progress) = (count + more, Instant::now()),
                    Err(error) => return Some(Err(error)),
                }
            }
            if wanted.is_some() && progress.elapsed() > PATIENCE {
                break;
            }
        }
        if wanted != Some(count) {
            let wanted = wanted.unwrap_or(0);
            return Some(Err(BenchError::Peer(format!("{count} events were heard of {wanted}"))));
        }
        Some(Ok(Heard { latency, cpu: own_cpu().saturating_sub(cpu) }))
    }
}

impl Socket {
    /// Reads what is there and notes the ages of events in it; says how many there were.
    fn take(&mut self, begun: &Instant, latency: &mut Histogram) -> Result<usize, BenchError> {
        let (mut scratch, mut count) = ([0; SCRATCH_BYTES], 0);
        loop {
            let length = match self.stream.read(&mut scratch) {
                Ok(0) => return Err(BenchError::Peer("a node closed a subscriber's connection".to_owned())),
                Ok(length) => length,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(count),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(BenchError::io("reading from a connection", e)),
            };
            self.left.extend_from_slice(&scratch[..length]);
            let mut at = 0;
            while let Some(frame) = next_frame(&self.left[at..])? {
                let payload = &self.left[at + frame.payload.start..at + frame.payload.end];
                at += frame.payload.end;
                match frame.opcode {
                    OPCODE_TEXT => {
                        // The rest are a node's own words, its ping among them.
                        if let Some(age) = age(payload, begun) {
                            latency.record(age);
                            count += 1;
                        }
                    }
                    OPCODE_PING => {
                        let mut pong = Vec::new();
                        wire::write_masked(&mut pong, OPCODE_PONG, payload);
                        self.stream.write_all(&pong).map_err(|e| BenchError::io("answering a ping", e))?;
                    }
                    other => return Err(BenchError::Peer(format!("a frame with opcode {other} came"))),
                }
            }
            self.left.drain(..at);
            if length < scratch.len() {
                // It was emptied; edge-triggered epoll tells of anything later.
                return Ok(count);
            }
        }
    }
}

fn dial(addr: SocketAddr) -> Result<TcpStream, BenchError> {
    let stream = TcpStream::connect(addr).and_then(|stream| {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    });
    stream.map_err(|e| BenchError::io("connecting to a node", e))
}

/// A connection with its one subscription, which nothing was published to yet.
fn subscribe(addr: SocketAddr, key: &str, name: &str) -> Result<TcpStream, BenchError> {
    let mut stream = dial(addr)?;
    let ask = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{name}"}}}}"#);
    let mut bytes = wire::upgrade_request(key, &addr.to_string()).into_bytes();
    wire::write_masked(&mut bytes, OPCODE_TEXT, ask.as_bytes());
    stream.write_all(&bytes).map_err(|e| BenchError::io("subscribing", e))?;
    let mut heard = Vec::new();
    while wire::find(&heard, b"pusher_internal:subscription_succeeded").is_none() || !heard.ends_with(b"}") {
        let mut scratch = [0; 2048];
        let count = stream.read(&mut scratch).map_err(|e| BenchError::io("subscribing", e))?;
        heard.extend_from_slice(&scratch[..count]);
        if count == 0 || heard.len() > SCRATCH_BYTES {
            let text = String::from_utf8_lossy(&heard);
            return Err(BenchError::Peer(format!("a subscription was answered {text:?}")));
        }
    }
    Ok(stream)
}

fn next_frame(bytes: &[u8]) -> Result<Option<wire::ServerFrame>, BenchError> {
    wire::read_frame(bytes).map_err(|why| BenchError::Peer(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::reference;

    #[test]
    fn everything_that_is_published_is_heard_once_and_has_an_age() {
        let plan: RedisPlan =
            toml::from_str("measure = \"delivery\"\nmessages_per_s = 200\ndata_bytes = 140").expect("a plan");
        let names = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        reference::while_serving(false, None, |addr| {
            let mut clients =
                Clients::connect([addr, addr], Signer::new("1", "k", "s"), names, 2).expect("all connect");
            for _ in 0..2 {
                let flow = clients.publish(&plan, Duration::from_millis(40)).expect("nothing is lost");
                assert_eq!(flow.published, 8);
                assert!(flow.latency.quantile(0.5) > Duration::ZERO);
            }
        });
    }
}
