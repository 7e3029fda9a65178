//! The reference: one connection that sends PUBLISH, and some that SUBSCRIBE, as small programs do it.
//!
//! Nothing is logged, checked or kept. Each message carries its number and when it was written, so that a lost one is noticed
//! and a late one is measured, as for nodes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use fulmar_rig::{Redis, Resp, Value};

use super::flow::{Flow, PATIENCE, age, pause_until, stamped};
use super::wrong;
use crate::bench::BenchError;
use crate::bench::case::RedisPlan;
use crate::bench::histogram::Histogram;
use crate::bench::process::own_cpu;

/// Every subscriber hears this channel: when a phase is over, and when all is.
const ASIDE: &str = "plain:aside";
const PHASE_OVER: &str = "phase over";
const ALL_OVER: &str = "all over";

/// The publisher and its subscribers.
pub struct Plain {
    publisher: TcpStream,
    subscribers: Vec<Subscriber>,
    channels: Vec<String>,
    /// Times count from here.
    begun: Arc<Instant>,
    /// Published so far.
    published: usize,
    /// Answers that were read.
    answered: usize,
    /// Messages to all subscribers.
    said: usize,
}

/// One subscriber's thread.
struct Subscriber {
    heard: Receiver<Heard>,
}

/// What a subscriber heard of one phase.
struct Heard {
    count: usize,
    latency: Histogram,
    cpu: Duration,
}

impl Plain {
    /// Connects; the channels are dealt to the subscribers in turn.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn connect(redis: &Redis, names: &[String], subscribers: usize) -> Result<Self, BenchError> {
        let channels: Vec<String> = names.iter().map(|name| format!("plain:t:1:{name}")).collect();
        let begun = Arc::new(Instant::now());
        let publisher = TcpStream::connect(redis.addr()).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        let publisher = publisher.map_err(|e| BenchError::io("connecting to Redis", e))?;
        let subscribers = (0..subscribers).map(|number| {
            let own: Vec<&str> = channels.iter().skip(number).step_by(subscribers).map(String::as_str).collect();
            Subscriber::start(redis, &own, Arc::clone(&begun))
        });
        let subscribers = subscribers.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { publisher, subscribers, channels, begun, published: 0, answered: 0, said: 0 })
    }

    /// Publishes as the plan says, for `length`, and waits until everything is heard.
    ///
    /// # Errors
    /// Something is lost.
    pub fn publish(&mut self, plan: &RedisPlan, length: Duration) -> Result<Flow, BenchError> {
        let (start, before, cpu) = (Instant::now(), self.published, own_cpu());
        if plan.messages_per_s == 0 {
            while start.elapsed() < length {
                self.send(plan.plain_batch, plan.data_bytes)?;
                self.await_answers()?;
            }
        } else {
            let gap = Duration::from_secs(1) / plan.messages_per_s * u32::try_from(plan.plain_batch).unwrap_or(1);
            let mut due = start;
            while due < start + length {
                pause_until(due);
                self.send(plan.plain_batch, plan.data_bytes)?;
                self.read_answers()?;
                due += gap;
            }
            self.await_answers()?;
        }
        self.say(PHASE_OVER)?;
        let own_cpu = own_cpu().saturating_sub(cpu);
        let (mut latency, mut subscriber_cpu) = (Histogram::new(), Duration::ZERO);
        for (number, subscriber) in self.subscribers.iter().enumerate() {
            let is_own = |at: &usize| at % self.channels.len() % self.subscribers.len() == number;
            let wanted = (before..self.published).filter(is_own).count();
            let heard = subscriber.heard.recv().map_err(|_| BenchError::Peer("a subscriber is gone".to_owned()))?;
            if heard.count != wanted {
                return Err(BenchError::Peer(format!("{} of {wanted} messages were heard", heard.count)));
            }
            latency.add(&heard.latency);
            subscriber_cpu += heard.cpu;
        }
        let published = (self.published - before) as u64;
        Ok(Flow { published, took: start.elapsed(), own_cpu, subscriber_cpu, latency })
    }

    fn send(&mut self, count: usize, data_bytes: usize) -> Result<(), BenchError> {
        let mut bytes = Vec::new();
        for _ in 0..count {
            let channel = &self.channels[self.published % self.channels.len()];
            self.published += 1;
            let name = channel.rsplit(':').next().unwrap_or_default();
            let data = stamped(&self.begun, Instant::now(), data_bytes);
            let text = format!(r#"{{"event":"bench","channel":"{name}","data":"{data}"}}"#);
            let (name_bytes, text_bytes) = (channel.len(), text.len());
            // Writing to a Vec cannot fail.
            let _ = write!(bytes, "*3\r\n$7\r\nPUBLISH\r\n${name_bytes}\r\n{channel}\r\n${text_bytes}\r\n{text}\r\n");
        }
        self.publisher.write_all(&bytes).map_err(|e| BenchError::io("publishing", e))
    }

    /// Tells all subscribers something, and waits for the answer.
    fn say(&mut self, word: &str) -> Result<(), BenchError> {
        let bytes = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{ASIDE}\r\n${}\r\n{word}\r\n", ASIDE.len(), word.len());
        self.publisher.write_all(bytes.as_bytes()).map_err(|e| BenchError::io("publishing", e))?;
        self.said += 1;
        self.await_answers()
    }

    /// Takes what answers there are, without waiting.
    fn read_answers(&mut self) -> Result<(), BenchError> {
        let doing = |e| BenchError::io("reading answers", e);
        self.publisher.set_nonblocking(true).map_err(doing)?;
        let read = self.take_answers();
        self.publisher.set_nonblocking(false).map_err(doing)?;
        match read {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(doing(error)),
            _ => Ok(()),
        }
    }

    fn await_answers(&mut self) -> Result<(), BenchError> {
        while self.answered < self.published + self.said {
            self.take_answers().map_err(|e| BenchError::io("waiting for answers", e))?;
        }
        Ok(())
    }

    fn take_answers(&mut self) -> std::io::Result<()> {
        let mut scratch = [0; 4096];
        let count = self.publisher.read(&mut scratch)?;
        if count == 0 || scratch[..count].contains(&b'-') {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        self.answered += scratch[..count].iter().filter(|byte| **byte == b'\n').count();
        Ok(())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // A server that is gone has no subscribers.
        let _ = self.say(ALL_OVER);
    }
}

impl Subscriber {
    fn start(redis: &Redis, channels: &[&str], begun: Arc<Instant>) -> Result<Self, BenchError> {
        let mut connection = Resp::connect(redis.addr(), PATIENCE).map_err(wrong)?;
        let words: Vec<&str> = ["SUBSCRIBE", ASIDE].into_iter().chain(channels.iter().copied()).collect();
        connection.send(&words).map_err(wrong)?;
        for _ in 1..words.len() {
            connection.answer().map_err(wrong)?;
        }
        let (said, heard) = channel();
        thread::spawn(move || listen(&mut connection, &begun, &said));
        Ok(Self { heard })
    }
}

/// Counts what comes, phase by phase, and tells of each.
fn listen(connection: &mut Resp, begun: &Instant, said: &Sender<Heard>) {
    let (mut latency, mut count, mut cpu) = (Histogram::new(), 0, own_cpu());
    while let Ok(message) = connection.answer() {
        let Some(Value::Bytes(text)) = message.list().get(2) else { return };
        if text == ALL_OVER.as_bytes() {
            return;
        }
        if text != PHASE_OVER.as_bytes() {
            latency.record(age(text, begun).unwrap_or_default());
            count += 1;
            continue;
        }
        let now = own_cpu();
        let latency = std::mem::replace(&mut latency, Histogram::new());
        if said.send(Heard { count, latency, cpu: now.saturating_sub(cpu) }).is_err() {
            return;
        }
        (count, cpu) = (0, now);
    }
}
