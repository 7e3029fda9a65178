//! What a bare server needs to be one of several: it publishes with PUBLISH and hears with SUBSCRIBE.
//!
//! Nothing is logged, checked, kept or waited for beyond the answer of Redis. Whatever one turn of the loop has for Redis leaves
//! with one write. Two such servers are the least that can stand where two nodes do.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// Answers to what is published come here.
pub const PUBLISHER: Token = Token(usize::MAX - 2);
/// Messages come here.
pub const SUBSCRIBER: Token = Token(usize::MAX - 3);

const SCRATCH_BYTES: usize = 64 * 1024;

/// The two connections of a bare server to Redis.
pub struct Relay {
    publisher: Connection,
    subscriber: Connection,
    /// Whose answer waits for that of Redis, in the order of publishing.
    waiting: VecDeque<usize>,
    /// Whose subscription waits for that of Redis, in their order.
    joining: VecDeque<usize>,
}

/// What comes from Redis to its subscriber.
pub enum Heard<'a> {
    /// Channel and frame.
    Message(&'a [u8], &'a [u8]),
    /// The peer, and its channel.
    Joined(usize, &'a [u8]),
}

/// One connection: what was read and not understood yet, and what is to be written.
struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Relay {
    /// Connects to the server at `redis`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn connect(redis: SocketAddr, registry: &Registry) -> io::Result<Self> {
        let connect = |token| {
            let stream = std::net::TcpStream::connect(redis)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            registry.register(&mut stream, token, Interest::READABLE)?;
            Ok::<_, io::Error>(Connection { stream, input: Vec::new(), output: Vec::new() })
        };
        let (publisher, subscriber) = (connect(PUBLISHER)?, connect(SUBSCRIBER)?);
        Ok(Self { publisher, subscriber, waiting: VecDeque::new(), joining: VecDeque::new() })
    }

    /// Publishes at the end of the turn.
    pub fn publish(&mut self, channel: &[u8], frame: &[u8]) {
        push(&mut self.publisher.output, &[b"PUBLISH", channel, frame]);
    }

    /// `peer` is answered when Redis has answered what it published last.
    pub fn awaits(&mut self, peer: usize) {
        self.waiting.push_back(peer);
    }

    /// Subscribes for `peer` at the end of the turn.
    pub fn subscribe(&mut self, peer: usize, channel: &[u8]) {
        self.joining.push_back(peer);
        push(&mut self.subscriber.output, &[b"SUBSCRIBE", channel]);
    }

    /// Writes what has gathered.
    ///
    /// # Errors
    /// Redis is gone, or takes no more.
    pub fn flush(&mut self) -> io::Result<()> {
        self.publisher.flush()?;
        self.subscriber.flush()
    }

    /// Whose publishing was answered.
    ///
    /// # Errors
    /// Redis is gone, or refuses.
    pub fn answered(&mut self) -> io::Result<Vec<usize>> {
        self.publisher.read()?;
        let input = std::mem::take(&mut self.publisher.input);
        if input.contains(&b'-') {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let whole = input.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.publisher.input.extend_from_slice(&input[whole..]);
        let count = input[..whole].iter().filter(|byte| **byte == b'\n').count();
        Ok(self.waiting.drain(..count.min(self.waiting.len())).collect())
    }

    /// Tells `hear` what has come to the subscriber.
    ///
    /// # Errors
    /// Redis is gone.
    pub fn hear(&mut self, mut hear: impl FnMut(Heard<'_>)) -> io::Result<()> {
        self.subscriber.read()?;
        let input = std::mem::take(&mut self.subscriber.input);
        let mut at = 0;
        while let Some((used, [kind, channel, frame])) = words(&input[at..]) {
            at += used;
            match kind {
                b"message" => hear(Heard::Message(channel, frame)),
                _ => self.joining.pop_front().into_iter().for_each(|peer| hear(Heard::Joined(peer, channel))),
            }
        }
        self.subscriber.input.extend_from_slice(&input[at..]);
        Ok(())
    }
}

impl Connection {
    fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output)?;
            self.output.clear();
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        let mut scratch = [0; SCRATCH_BYTES];
        loop {
            match self.stream.read(&mut scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.input.extend_from_slice(&scratch[..count]);
                    if count < scratch.len() {
                        // It was emptied; edge-triggered epoll tells of anything later.
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }
}

fn push(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// The three words of a message, or two and a number of something else, and how far they reach; `None` while incomplete.
fn words(bytes: &[u8]) -> Option<(usize, [&[u8]; 3])> {
    let mut at = 0;
    let line = |at: &mut usize| {
        let end = *at + bytes.get(*at..)?.windows(2).position(|two| two == b"\r\n")?;
        let line = &bytes[*at..end];
        *at = end + 2;
        Some(line)
    };
    line(&mut at)?;
    let mut words: [&[u8]; 3] = [b"", b"", b""];
    for word in &mut words {
        let head = line(&mut at)?;
        if let Some(length) = head.strip_prefix(b"$") {
            let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
            *word = bytes.get(at..at + length)?;
            at += length + 2;
            if at > bytes.len() {
                return None;
            }
        }
    }
    Some((at, words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::case::RedisPlan;
    use crate::bench::redis::clients::Clients;
    use crate::bench::reference;
    use crate::bench::wire::Signer;

    #[test]
    fn a_message_is_read_once_it_is_there_as_a_whole() {
        let bytes = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\nx\r\ny\r\n";
        let (used, confirmed) = words(bytes).expect("it is whole");
        assert_eq!(confirmed, [&b"subscribe"[..], b"a", b""]);
        assert_eq!(words(&bytes[used..]), Some((bytes.len() - used, [&b"message"[..], b"a", b"x\r\ny"])));
        assert!((used..bytes.len()).all(|end| words(&bytes[used..end]).is_none()));
    }

    #[test]
    fn what_is_published_at_one_is_heard_at_another() {
        let redis = fulmar_rig::Redis::start(&fulmar_rig::RedisOptions::default()).expect("a server");
        let plan: RedisPlan =
            toml::from_str("measure = \"delivery\"\nmessages_per_s = 200\ndata_bytes = 140").expect("a plan");
        reference::while_serving(false, Some(redis.addr()), |to| {
            reference::while_serving(false, Some(redis.addr()), |from| {
                let names = vec!["a".to_owned(), "b".to_owned()];
                let mut clients =
                    Clients::connect([to, from], Signer::new("1", "k", "s"), names, 2).expect("all connect");
                let flow = clients.publish(&plan, std::time::Duration::from_millis(40)).expect("nothing is lost");
                assert_eq!(flow.published, 8);
            });
        });
    }
}
