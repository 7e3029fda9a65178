//! One connection of the load: from the upgrade to its subscription, then every frame it hears.
//!
//! It knows the protocol's client side and no more; what a delivery means stands in the books (`board`). A frame that is
//! neither expected nor harmless is an error.

use std::io::Write;
use std::time::Instant;

use mio::net::TcpStream;

use super::BenchError;
use super::board::Board;
use super::wire::{self, Mark};

const OPCODE_TEXT: u8 = 1;
const OPCODE_CLOSE: u8 = 8;
const OPCODE_PING: u8 = 9;
const OPCODE_PONG: u8 = 10;

/// A connection with the one subscription it has or wants.
pub struct Conn {
    /// Its socket.
    pub stream: TcpStream,
    /// How far it is.
    pub stage: Stage,
    /// Its channel.
    pub channel: u32,
    /// The beginning of a frame whose end has not arrived.
    left: Vec<u8>,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// TCP is not up.
    Connecting,
    /// Asked for the upgrade.
    Upgrading,
    /// Waits for `connection_established`.
    Greeting,
    /// Waits for `subscription_succeeded`.
    Subscribing,
    /// Subscribed.
    Live,
}

impl Conn {
    /// A socket that is connecting, for one channel.
    pub fn new(stream: TcpStream, channel: u32) -> Self {
        Self { stream, stage: Stage::Connecting, channel, left: Vec::new() }
    }

    /// Handles what arrived and keeps what is incomplete. `index` is the connection's place in the books.
    ///
    /// # Errors
    /// The server said something it must not, or nothing that is understood.
    pub fn take_in(&mut self, index: usize, fresh: &[u8], board: &mut Board) -> Result<(), BenchError> {
        let mut earlier = std::mem::take(&mut self.left);
        let bytes = if earlier.is_empty() {
            fresh
        } else {
            earlier.extend_from_slice(fresh);
            &earlier[..]
        };
        let mut at = 0;
        if self.stage == Stage::Upgrading {
            let Some(head) = wire::find(bytes, b"\r\n\r\n") else {
                self.left = bytes.to_vec();
                return Ok(());
            };
            if !bytes.starts_with(b"HTTP/1.1 101 ") {
                return Err(BenchError::Peer(format!("the upgrade was answered {}", excerpt(bytes))));
            }
            self.stage = Stage::Greeting;
            at = head + 4;
        }
        while let Some(frame) = wire::read_frame(&bytes[at..]).map_err(|why| BenchError::Peer(why.into()))? {
            let payload = &bytes[at + frame.payload.start..at + frame.payload.end];
            at += frame.payload.end;
            match frame.opcode {
                OPCODE_TEXT => self.heard(index, payload, board)?,
                OPCODE_PING => {
                    board.extras += 1;
                    send(&mut self.stream, OPCODE_PONG, payload)?;
                }
                OPCODE_CLOSE => {
                    return Err(BenchError::Peer(format!("the server closed with {}", close_words(payload))));
                }
                other => return Err(BenchError::Peer(format!("a frame with opcode {other} came"))),
            }
        }
        if at < bytes.len() {
            self.left = bytes[at..].to_vec();
        }
        Ok(())
    }

    fn heard(&mut self, index: usize, text: &[u8], board: &mut Board) -> Result<(), BenchError> {
        match self.stage {
            Stage::Live => {
                if let Some(mark) = Mark::find(text, &mut board.hint) {
                    return board.delivered(index, self.channel, mark);
                }
            }
            Stage::Greeting if wire::find(text, b"pusher:connection_established").is_some() => {
                let id = wire::socket_id(text).ok_or_else(|| BenchError::Peer("a greeting has no socket_id".into()))?;
                let name = &board.names[self.channel as usize];
                let auth = if name.starts_with("private-") {
                    format!(r#","auth":"{}""#, board.signer.channel_auth(id, name))
                } else {
                    String::new()
                };
                self.stage = Stage::Subscribing;
                let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{name}"{auth}}}}}"#);
                return say(&mut self.stream, &text);
            }
            Stage::Subscribing if wire::find(text, b"pusher_internal:subscription_succeeded").is_some() => {
                self.stage = Stage::Live;
                board.live += 1;
                board.audience[self.channel as usize] += 1;
                board.progress = Instant::now();
                return Ok(());
            }
            _ => {}
        }
        if wire::find(text, b"pusher_internal:subscription_count").is_some() {
            board.extras += 1;
            return Ok(());
        }
        if wire::find(text, b"\"pusher:ping\"").is_some() {
            board.extras += 1;
            let pong = r#"{"event":"pusher:pong","data":{}}"#;
            return say(&mut self.stream, pong);
        }
        Err(BenchError::Peer(format!("nobody expected {}", excerpt(text))))
    }
}

/// Sends a text frame.
///
/// # Errors
/// The server does not take it.
pub fn say(stream: &mut TcpStream, text: &str) -> Result<(), BenchError> {
    send(stream, OPCODE_TEXT, text.as_bytes())
}

fn send(stream: &mut TcpStream, opcode: u8, payload: &[u8]) -> Result<(), BenchError> {
    let mut frame = Vec::with_capacity(payload.len() + 8);
    wire::write_masked(&mut frame, opcode, payload);
    write_whole(stream, &frame, "sending a frame")
}

/// Writes all of it at once.
///
/// # Errors
/// The socket does not take it. Requests are small and one at a time, so this is a server that does not read.
pub fn write_whole(stream: &mut TcpStream, bytes: &[u8], doing: &str) -> Result<(), BenchError> {
    match stream.write(bytes) {
        Ok(n) if n == bytes.len() => Ok(()),
        Ok(n) => Err(BenchError::Peer(format!("{doing}: the server took only {n} of {} bytes", bytes.len()))),
        Err(e) => Err(BenchError::io(doing, e)),
    }
}

/// The beginning of something unexpected, for a report.
pub fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
    format!("{text:?}")
}

fn close_words(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            format!("{} {}", u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason))
        }
        _ => "no code".into(),
    }
}
