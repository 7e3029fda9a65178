//! The bare server everything is compared with: the floor of what one core must do.
//!
//! One epoll loop on one thread, a frame encoded once, one `send` per subscriber and message. It is *not* a Pusher
//! server: it finds the few values it needs by scanning, checks no signature, name, limit or UTF-8, knows one channel
//! per connection and no presence. The second mode gathers what one turn of the loop wants to say and writes once per
//! subscriber. What it does promise is that no delivery is lost or reordered, because the bench counts them.

mod channels;
mod text;

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use self::channels::Channels;
use self::text::{accept_key, header, push_frame, value};
use super::BenchError;
use super::relay::{self, Heard, Relay};
use super::wire::find;

const LISTENER: Token = Token(usize::MAX - 1);
const SCRATCH_BYTES: usize = 64 * 1024;
/// What may wait for one subscriber that does not read; then it is dropped.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// No request or frame of a bench is longer.
const INPUT_BYTES_MAX: usize = 1024 * 1024;
const NOWHERE: u32 = u32::MAX;
const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// `bench-reference`: not for people; the bench starts it as a process of its own so that its CPU can be told apart.
#[derive(Debug, Clone, clap::Args)]
pub struct ReferenceArgs {
    /// Port on 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// Gather a turn of the loop and write once per subscriber.
    #[arg(long)]
    gather: bool,
    /// Be one of several: publish and hear over the Redis at this address.
    #[arg(long)]
    over: Option<SocketAddr>,
}

/// Serves until killed.
///
/// # Errors
/// The port could not be taken, or epoll failed.
pub fn run_reference(args: &ReferenceArgs) -> Result<(), BenchError> {
    super::process::raise_open_files();
    let listener = listen(args.port).map_err(|e| BenchError::io(format!("listening on port {}", args.port), e))?;
    let serve = || -> io::Result<()> {
        let mut reference = Reference::new(listener, args.gather)?;
        if let Some(redis) = args.over {
            reference.join(redis)?;
        }
        loop {
            reference.turn(None)?;
        }
    };
    serve().map_err(|e| BenchError::io("serving", e))
}

/// A listening socket whose queue takes a storm.
///
/// # Errors
/// The port is taken.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// The loop and all it knows.
pub struct Reference {
    poll: Poll,
    events: Option<Events>,
    listener: TcpListener,
    peers: Vec<Option<Peer>>,
    free: Vec<u32>,
    channels: Channels,
    scratch: Vec<u8>,
    gather: bool,
    relay: Option<Relay>,
    /// Peers with something gathered this turn.
    dirty: Vec<u32>,
}

struct Peer {
    stream: TcpStream,
    channel: u32,
    place: u32,
    upgraded: bool,
    /// Only for what does not fit the moment; an idle peer has none.
    rest: Option<Box<Rest>>,
}

impl Peer {
    /// Keeps `bytes` until the socket takes them, behind what waits already.
    fn wait_to_write(&mut self, poll: &Poll, index: usize, bytes: &[u8]) {
        let rest = self.rest.get_or_insert_default();
        rest.output.extend_from_slice(bytes);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let watched = rest.watched || poll.registry().reregister(&mut self.stream, Token(index), interest).is_ok();
        rest.watched = watched;
        if !watched || rest.output.len() > WAITING_BYTES_MAX {
            // It shows as an end of file in the next turn, where the peer is dropped.
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[derive(Default)]
struct Rest {
    input: Vec<u8>,
    output: Vec<u8>,
    /// Gathered this turn.
    dirty: bool,
    /// epoll tells when it can be written to.
    watched: bool,
}

impl Reference {
    /// Takes over a listening socket.
    ///
    /// # Errors
    /// epoll failed.
    pub fn new(mut listener: TcpListener, gather: bool) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Some(Events::with_capacity(1024)),
            listener,
            peers: Vec::new(),
            free: Vec::new(),
            channels: Channels::default(),
            scratch: vec![0; SCRATCH_BYTES],
            gather,
            relay: None,
            dirty: Vec::new(),
        })
    }

    /// Becomes one of several that hear each other over `redis`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn join(&mut self, redis: SocketAddr) -> io::Result<()> {
        self.relay = Some(Relay::connect(redis, self.poll.registry())?);
        Ok(())
    }

    /// Waits for something to happen and handles it.
    ///
    /// # Errors
    /// epoll failed.
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut events = self.events.take().expect("put back at the end of every turn");
        let mut polled = self.poll.poll(&mut events, timeout);
        if polled.is_ok() {
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    relay::PUBLISHER | relay::SUBSCRIBER => polled = polled.and(self.relayed(event.token())),
                    Token(index) => self.happened(index, event),
                }
            }
            self.flush_gathered();
            if let Some(relay) = &mut self.relay {
                polled = polled.and_then(|()| relay.flush());
            }
        }
        self.events = Some(events);
        polled.or_else(|e| if e.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(e) })
    }

    /// Something came from Redis.
    fn relayed(&mut self, token: Token) -> io::Result<()> {
        let Some(mut relay) = self.relay.take() else { return Ok(()) };
        let done = if token == relay::PUBLISHER {
            relay.answered().map(|peers| peers.into_iter().for_each(|peer| self.send(peer, ACCEPTED)))
        } else {
            relay.hear(|heard| match heard {
                Heard::Message(channel, frame) => {
                    let channel = self.channels.named(channel);
                    self.fan_out(channel, NOWHERE, frame);
                }
                Heard::Joined(peer, channel) => self.succeed(peer, channel),
            })
        };
        self.relay = Some(relay);
        done
    }

    fn accept(&mut self) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            let index = self.free.pop().unwrap_or_else(|| {
                self.peers.push(None);
                u32::try_from(self.peers.len() - 1).expect("fewer than 2^32 open files")
            });
            let registered = self.poll.registry().register(&mut stream, Token(index as usize), Interest::READABLE);
            if stream.set_nodelay(true).is_err() || registered.is_err() {
                self.free.push(index);
                continue;
            }
            let peer = Peer { stream, channel: NOWHERE, place: 0, upgraded: false, rest: None };
            self.peers[index as usize] = Some(peer);
        }
    }

    fn happened(&mut self, index: usize, event: &Event) {
        let alive = (!event.is_writable() || self.flush(index)) && (!event.is_readable() || self.read(index));
        if !alive {
            self.drop_peer(index);
        }
    }

    fn drop_peer(&mut self, index: usize) {
        let Some(peer) = self.peers[index].take() else { return };
        self.free.push(u32::try_from(index).expect("indices are handed out as u32"));
        if peer.channel != NOWHERE {
            let list = &mut self.channels.subscribers[peer.channel as usize];
            list.swap_remove(peer.place as usize);
            if let Some(moved) = list.get(peer.place as usize) {
                self.peers[*moved as usize].as_mut().expect("subscribers are alive").place = peer.place;
            }
        }
    }

    /// Reads what is there. `false` when the peer is gone or talks nonsense.
    fn read(&mut self, index: usize) -> bool {
        let mut scratch = std::mem::take(&mut self.scratch);
        let alive = loop {
            let Some(peer) = self.peers[index].as_mut() else { break true };
            match peer.stream.read(&mut scratch) {
                Ok(0) => break false,
                Ok(n) => {
                    if !self.take_in(index, &mut scratch[..n]) {
                        break false;
                    }
                    // A short read emptied the socket; edge-triggered epoll tells of anything later.
                    if n < SCRATCH_BYTES {
                        break true;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break true,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        self.scratch = scratch;
        alive
    }

    /// Handles all complete requests or frames, and keeps the rest for later.
    fn take_in(&mut self, index: usize, fresh: &mut [u8]) -> bool {
        let peer = self.peers[index].as_mut().expect("read from just now");
        let mut earlier = peer.rest.as_mut().map(|r| std::mem::take(&mut r.input)).unwrap_or_default();
        let bytes = if earlier.is_empty() {
            fresh
        } else {
            earlier.extend_from_slice(fresh);
            &mut earlier[..]
        };
        let mut at = 0;
        while at < bytes.len() {
            let upgraded = self.peers[index].as_ref().is_some_and(|p| p.upgraded);
            let used = if upgraded { self.frame(index, &mut bytes[at..]) } else { self.request(index, &bytes[at..]) };
            match used {
                Some(0) => break,
                Some(n) => at += n,
                None => return false,
            }
        }
        let left = &bytes[at..];
        if !left.is_empty() {
            let Some(peer) = self.peers[index].as_mut() else { return false };
            peer.rest.get_or_insert_default().input = left.to_vec();
        }
        left.len() <= INPUT_BYTES_MAX
    }

    /// One HTTP request: bytes used, 0 while incomplete, `None` when it is none of ours.
    fn request(&mut self, index: usize, bytes: &[u8]) -> Option<usize> {
        let Some(head) = find(bytes, b"\r\n\r\n").map(|at| at + 4) else { return Some(0) };
        if bytes.starts_with(b"GET /app/") {
            let key = header(&bytes[..head], b"Sec-WebSocket-Key: ")?;
            let mut answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                               Sec-WebSocket-Accept: "
                .to_vec();
            answer.extend_from_slice(&accept_key(key));
            answer.extend_from_slice(b"\r\n\r\n");
            let data = r#"{\"socket_id\":\"12345.67890\",\"activity_timeout\":120}"#;
            let hello = format!(r#"{{"event":"pusher:connection_established","data":"{data}"}}"#);
            push_frame(&mut answer, &[hello.as_bytes()]);
            self.peers[index].as_mut()?.upgraded = true;
            self.send(index, &answer);
            return Some(head);
        }
        let length: usize = std::str::from_utf8(header(&bytes[..head], b"Content-Length: ")?).ok()?.parse().ok()?;
        let body = match bytes.get(head..head.checked_add(length)?) {
            Some(body) => body,
            None if length <= INPUT_BYTES_MAX => return Some(0),
            None => return None,
        };
        let mut at = 0;
        while let Some(used) = self.publish(&body[at..]) {
            at += used;
        }
        match &mut self.relay {
            Some(relay) => relay.awaits(index),
            None => self.send(index, ACCEPTED),
        }
        Some(head + length)
    }

    /// The first event found in `body`; returns how far it reaches. The bench writes data last.
    fn publish(&mut self, body: &[u8]) -> Option<usize> {
        let (name, _) = value(body, br#""name":""#)?;
        let (channel, _) = value(body, br#""channel":""#).or_else(|| value(body, br#""channels":[""#))?;
        let (data, end) = value(body, br#""data":""#)?;
        let mut frame = Vec::with_capacity(64 + name.len() + channel.len() + data.len());
        let parts: [&[u8]; 7] =
            [br#"{"event":""#, name, br#"","channel":""#, channel, br#"","data":""#, data, br#""}"#];
        push_frame(&mut frame, &parts);
        if let Some(relay) = &mut self.relay {
            relay.publish(channel, &frame);
            return Some(end);
        }
        let channel = self.channels.named(channel);
        self.fan_out(channel, NOWHERE, &frame);
        Some(end)
    }

    fn fan_out(&mut self, channel: u32, except: u32, frame: &[u8]) {
        let subscribers = std::mem::take(&mut self.channels.subscribers[channel as usize]);
        for index in &subscribers {
            if *index == except {
                continue;
            }
            if self.gather {
                let peer = self.peers[*index as usize].as_mut().expect("subscribers are alive");
                let rest = peer.rest.get_or_insert_default();
                rest.output.extend_from_slice(frame);
                if !rest.dirty {
                    rest.dirty = true;
                    self.dirty.push(*index);
                }
            } else {
                self.send(*index as usize, frame);
            }
        }
        self.channels.subscribers[channel as usize] = subscribers;
    }

    /// One client frame: bytes used, 0 while incomplete, `None` when the peer leaves or is not understood.
    fn frame(&mut self, index: usize, bytes: &mut [u8]) -> Option<usize> {
        let [first, second, ..] = *bytes else { return Some(0) };
        let (header, len) = match second & 0x7f {
            127 => return None,
            126 if bytes.len() < 4 => return Some(0),
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            short => (2, usize::from(short)),
        };
        let end = header + 4 + len;
        if bytes.len() < end {
            return Some(0);
        }
        let (key, text) = bytes[header..end].split_at_mut(4);
        for (byte, key) in text.iter_mut().zip(key.iter().cycle()) {
            *byte ^= key;
        }
        match first & 0x0f {
            1 => self.said(index, text)?,
            8 => return None,
            _ => {}
        }
        Some(end)
    }

    fn said(&mut self, index: usize, text: &[u8]) -> Option<()> {
        let own = u32::try_from(index).expect("indices are handed out as u32");
        let (event, _) = value(text, br#""event":""#)?;
        if event.starts_with(b"client-") {
            let channel = self.peers[index].as_ref()?.channel;
            if channel != NOWHERE {
                let mut frame = Vec::with_capacity(text.len() + 4);
                push_frame(&mut frame, &[text]);
                self.fan_out(channel, own, &frame);
            }
        } else if event == b"pusher:subscribe" {
            let (name, _) = value(text, br#""channel":""#)?;
            let channel = self.channels.named(name);
            let list = &mut self.channels.subscribers[channel as usize];
            let peer = self.peers[index].as_mut()?;
            if peer.channel != NOWHERE {
                return None;
            }
            peer.channel = channel;
            peer.place = u32::try_from(list.len()).expect("indices are handed out as u32");
            list.push(own);
            match &mut self.relay {
                Some(relay) => relay.subscribe(index, name),
                None => self.succeed(index, name),
            }
        }
        Some(())
    }

    fn succeed(&mut self, index: usize, name: &[u8]) {
        let mut frame = Vec::with_capacity(96 + name.len());
        let parts: [&[u8]; 3] =
            [br#"{"event":"pusher_internal:subscription_succeeded","channel":""#, name, br#"","data":"{}"}"#];
        push_frame(&mut frame, &parts);
        self.send(index, &frame);
    }

    fn flush_gathered(&mut self) {
        while let Some(index) = self.dirty.pop() {
            let index = index as usize;
            if let Some(rest) = self.peers[index].as_mut().and_then(|p| p.rest.as_mut()) {
                rest.dirty = false;
                // A peer that is gone shows in its own read event.
                self.flush(index);
            }
        }
    }

    /// Writes now what fits and keeps the rest behind whatever already waits.
    fn send(&mut self, index: usize, bytes: &[u8]) {
        let Some(peer) = self.peers[index].as_mut() else { return };
        let waits = peer.rest.as_ref().is_some_and(|r| !r.output.is_empty());
        let written = if waits { 0 } else { peer.stream.write(bytes).unwrap_or(0) };
        if written < bytes.len() {
            peer.wait_to_write(&self.poll, index, &bytes[written..]);
        }
    }

    /// Writes what waits. `false` when the peer is gone.
    fn flush(&mut self, index: usize) -> bool {
        let Some(peer) = self.peers[index].as_mut() else { return true };
        let Some(rest) = peer.rest.as_mut() else { return true };
        while !rest.output.is_empty() {
            match peer.stream.write(&rest.output) {
                Ok(n) if n == rest.output.len() => rest.output.clear(),
                Ok(n) => drop(rest.output.drain(..n)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    peer.wait_to_write(&self.poll, index, &[]);
                    return true;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// Runs `conversation` with the address of a reference that serves in this process meanwhile.
#[cfg(test)]
pub fn while_serving(gather: bool, over: Option<SocketAddr>, conversation: impl FnOnce(SocketAddr)) {
    use std::sync::atomic::{AtomicBool, Ordering};
    let listener = listen(0).expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut reference = Reference::new(listener, gather).expect("an epoll");
            over.into_iter().for_each(|redis| reference.join(redis).expect("it answers"));
            while !is_over.load(Ordering::Relaxed) {
                reference.turn(Some(Duration::from_millis(5))).expect("epoll works");
            }
        });
        // A conversation that fails must not leave the scope waiting for its server.
        let talked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| conversation(addr)));
        is_over.store(true, Ordering::Relaxed);
        if let Err(panic) = talked {
            std::panic::resume_unwind(panic);
        }
    });
}
