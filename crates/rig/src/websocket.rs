//! The subscriber's side of the wire: the upgrade, frames, and one blocking subscriber for tests of a few.
//!
//! Written independently of the product's codec, so that a mistake there shows here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

use fulmar_protocol::app::App;
use fulmar_protocol::name::{ChannelName, SocketId};
use fulmar_protocol::signing::Signer;
use serde_json::{Value, json};

use crate::RigError;

/// A frame of a server: opcode, and where its content lies.
#[derive(Debug, PartialEq, Eq)]
pub struct ServerFrame {
    /// RFC 6455's.
    pub opcode: u8,
    /// In the bytes that were given.
    pub content: Range<usize>,
}

pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Reads the frame at the head of `bytes`; `None` until it is complete.
///
/// # Errors
/// No server may send it.
pub fn read_frame(bytes: &[u8]) -> Result<Option<ServerFrame>, RigError> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        return Err(RigError::Peer("a frame is fragmented, masked or carries reserved bits".to_owned()));
    }
    let (header, length) = match (second, bytes) {
        (127, [_, _, a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
        (126, [_, _, high, low, ..]) => (4, u64::from(u16::from_be_bytes([*high, *low]))),
        (126 | 127, _) => return Ok(None),
        (short, _) => (2, u64::from(short)),
    };
    let end = header + usize::try_from(length).map_err(|_| RigError::Peer("a frame is too long".to_owned()))?;
    Ok((bytes.len() >= end).then_some(ServerFrame { opcode: first & 0x0f, content: header..end }))
}

/// A masked frame, as those who connect must send it.
pub fn masked(opcode: u8, content: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![0x80 | opcode];
    match (u8::try_from(content.len()), u16::try_from(content.len())) {
        (Ok(short @ ..=125), _) => bytes.push(0x80 | short),
        (_, Ok(length)) => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(content.len() as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(content.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The request that asks for a WebSocket.
pub fn upgrade_request(app: &App) -> String {
    format!(
        "GET /app/{}?protocol=7&client=rig&version=1.0&flash=false HTTP/1.1\r\nHost: localhost\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n",
        app.key.as_str()
    )
}

/// The command that subscribes, signed where the channel wants it; `member` is `(user id, user info)` for presence channels.
///
/// # Errors
/// The name or the socket id is none.
pub fn subscription(
    app: &App,
    socket_id: &str,
    channel: &str,
    member: Option<(&str, &Value)>,
) -> Result<String, RigError> {
    let wrong = |what: &str| RigError::Peer(format!("not a {what}: {channel} {socket_id}"));
    let mut data = json!({ "channel": channel });
    if channel.starts_with("private-") || channel.starts_with("presence-") {
        let name = ChannelName::parse(channel, 200).map_err(|_| wrong("channel name"))?;
        let id = SocketId::parse(socket_id).ok().flatten().ok_or_else(|| wrong("socket id"))?;
        let about = member.map(|(user, info)| json!({ "user_id": user, "user_info": info }).to_string());
        data["auth"] = json!(Signer::of(app).sign_channel(id, &name, about.as_deref()));
        if let Some(about) = about {
            data["channel_data"] = json!(about);
        }
    }
    Ok(json!({ "event": "pusher:subscribe", "data": data }).to_string())
}

/// Where `needle` begins in `hay`.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|part| part == needle)
}

/// The socket id in `pusher:connection_established`, whose data is JSON within JSON.
pub(crate) fn socket_id(text: &[u8]) -> Option<&str> {
    let after = &text[find(text, b"socket_id")? + 9..];
    let start = after.iter().position(u8::is_ascii_digit)?;
    let length = after[start..].iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
    std::str::from_utf8(&after[start..start + length]).ok()
}

/// One subscriber, blocking.
#[derive(Debug)]
pub struct Subscriber {
    stream: TcpStream,
    read: Vec<u8>,
    app: App,
    /// As the node named it.
    pub socket_id: String,
}

impl Subscriber {
    /// Connects and waits until it is established; nothing later waits longer than `patience`.
    ///
    /// # Errors
    /// The node does not answer, or not so.
    pub fn connect(addr: SocketAddr, app: &App, patience: Duration) -> Result<Self, RigError> {
        let doing = || format!("connecting to {addr}");
        let stream = TcpStream::connect_timeout(&addr, patience).map_err(|e| RigError::io(doing(), e))?;
        let set = stream.set_read_timeout(Some(patience)).and_then(|()| stream.set_nodelay(true));
        set.map_err(|e| RigError::io(doing(), e))?;
        let mut subscriber = Self { stream, read: Vec::new(), app: app.clone(), socket_id: String::new() };
        subscriber.send_bytes(upgrade_request(app).as_bytes())?;
        let head = loop {
            if let Some(end) = find(&subscriber.read, b"\r\n\r\n") {
                break subscriber.read.drain(..end + 4).collect::<Vec<_>>();
            }
            subscriber.more()?;
        };
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(RigError::Peer(format!("the upgrade was answered {}", String::from_utf8_lossy(&head))));
        }
        let first = subscriber.event()?;
        let data = first["data"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let id = data.as_ref().and_then(|data| data["socket_id"].as_str());
        subscriber.socket_id = id.ok_or_else(|| RigError::Peer(format!("no socket id: {first}")))?.to_owned();
        Ok(subscriber)
    }

    /// Subscribes; answers the data of `subscription_succeeded`.
    ///
    /// # Errors
    /// It is refused, or not answered.
    pub fn subscribe(&mut self, channel: &str, member: Option<(&str, &Value)>) -> Result<Value, RigError> {
        self.ask_to_subscribe(channel, member)?;
        loop {
            let event = self.event()?;
            if event["event"] == "pusher_internal:subscription_succeeded" && event["channel"] == channel {
                let data = event["data"].as_str().and_then(|text| serde_json::from_str(text).ok());
                return Ok(data.unwrap_or(Value::Null));
            }
            if event["event"] == "pusher:error" || event["event"] == "pusher:subscription_error" {
                return Err(RigError::Peer(format!("refused: {event}")));
            }
        }
    }

    /// Subscribes without waiting for the answer.
    ///
    /// # Errors
    /// The node does not take it.
    pub fn ask_to_subscribe(&mut self, channel: &str, member: Option<(&str, &Value)>) -> Result<(), RigError> {
        let text = subscription(&self.app, &self.socket_id, channel, member)?;
        self.send_bytes(&masked(TEXT, text.as_bytes()))
    }

    /// The next event; pings are answered on the way.
    ///
    /// # Errors
    /// There is none in time, or the connection ended.
    pub fn event(&mut self) -> Result<Value, RigError> {
        loop {
            let Some(frame) = read_frame(&self.read)? else {
                self.more()?;
                continue;
            };
            let content = self.read[frame.content.clone()].to_vec();
            self.read.drain(..frame.content.end);
            match frame.opcode {
                PING => self.send_bytes(&masked(PONG, &content))?,
                CLOSE => return Err(RigError::Peer(format!("closed: {}", close_words(&content)))),
                _ => {
                    let event = serde_json::from_slice(&content).unwrap_or(Value::Null);
                    if event["event"] != "pusher:ping" {
                        return Ok(event);
                    }
                    self.send_bytes(&masked(TEXT, br#"{"event":"pusher:pong","data":{}}"#))?;
                }
            }
        }
    }

    /// The next event that comes before `until`.
    ///
    /// # Errors
    /// The connection ended.
    pub fn event_before(&mut self, until: Instant) -> Result<Option<Value>, RigError> {
        loop {
            if read_frame(&self.read)?.is_some() {
                match self.event() {
                    // It was a ping, and nothing came behind it.
                    Err(RigError::Io { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => continue,
                    other => return other.map(Some),
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left)).map_err(|e| RigError::io("waiting", e))?;
            match self.more() {
                Err(RigError::Io { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                other => other?,
            }
        }
    }

    /// Reads and drops what has come, without looking at it: for a connection that only has to be there. Nothing can be heard on it
    /// afterwards. One that is never read from is ended by the node's system after half a minute with full buffers.
    ///
    /// # Errors
    /// The connection ended.
    pub fn drop_heard(&mut self) -> Result<(), RigError> {
        self.read.clear();
        self.stream.set_nonblocking(true).map_err(|e| RigError::io("reading", e))?;
        let outcome = loop {
            match self.more() {
                Ok(()) => self.read.clear(),
                Err(RigError::Io { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => break Ok(()),
                Err(other) => break Err(other),
            }
        };
        self.stream.set_nonblocking(false).map_err(|e| RigError::io("reading", e))?;
        outcome
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), RigError> {
        self.stream.write_all(bytes).map_err(|e| RigError::io("sending", e))
    }

    fn more(&mut self) -> Result<(), RigError> {
        let mut scratch = [0; 16 * 1024];
        match self.stream.read(&mut scratch) {
            Ok(0) => Err(RigError::Peer("the connection ended".to_owned())),
            Ok(count) => {
                self.read.extend_from_slice(&scratch[..count]);
                Ok(())
            }
            Err(error) => Err(RigError::io("reading", error)),
        }
    }
}

pub(crate) fn close_words(content: &[u8]) -> String {
    match content {
        [high, low, reason @ ..] => {
            format!("{} {}", u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason))
        }
        _ => "no code".to_owned(),
    }
}
