//! From readiness to inputs of the engine: bytes of a socket, taken apart into frames.
//!
//! Reads no more per turn than the rest of the node can wait for. What is left stays in the socket, and its connection
//! in a list, each once and in the order in which they came.

use fulmar_engine::{Input, Moment, SessionKey};
use fulmar_protocol::close::CloseCode;
use fulmar_protocol::websocket::{self, Decoded, Incoming};

use super::WorkerLoop;
use crate::ws::connection::{Connection, Read, Stage, read};
use crate::ws::handover::Socket;

/// Bytes read at once; a connection that has more waits for its next turn.
pub(super) const READ_BYTES: usize = 16 * 1024;
/// Bytes read per turn from all sockets; then those that have more wait, so that deliveries do not.
const READ_BYTES_PER_TURN_MAX: usize = 256 * 1024;

impl WorkerLoop {
    pub(super) fn may_read(&self) -> bool {
        self.read_bytes < READ_BYTES_PER_TURN_MAX && !self.is_full()
    }

    pub(super) fn read_later(&mut self, key: SessionKey) {
        if let Some(connection) = self.connections.get_mut(key as usize)
            && !connection.is_unread
        {
            connection.is_unread = true;
            self.unread.push_back(key);
        }
    }

    /// Reads those that had more than the turns before could take, in the order in which they came.
    pub(super) fn read_on(&mut self, now: Moment) {
        for _ in 0..self.unread.len() {
            if !self.may_read() {
                return;
            }
            let Some(key) = self.unread.pop_front() else { return };
            if let Some(connection) = self.connections.get_mut(key as usize) {
                connection.is_unread = false;
                self.read(now, key);
            }
        }
    }

    pub(super) fn read(&mut self, now: Moment, key: SessionKey) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let connection = self.connections.get_mut(key as usize);
        match connection.map_or(Read::Nothing, |connection| read(&mut connection.socket, &mut scratch)) {
            Read::Nothing => {}
            Read::End => self.end(now, key),
            Read::Bytes(bytes) => {
                self.read_bytes += bytes;
                self.said(now, key, &mut scratch[..bytes]);
                // For plain sockets a short read means that nothing is left, and the next byte raises a new event.
                // Within TLS there may be more, and the end of the stream raises none behind the one that told of it.
                let connection = self.connections.get(key as usize);
                let may_have_more =
                    |c: &Connection| bytes == READ_BYTES || c.is_ending || matches!(c.socket, Socket::Tls(_));
                if connection.is_some_and(may_have_more) {
                    self.read_later(key);
                }
            }
        }
        self.scratch = scratch;
    }

    /// Takes what a connection sent, behind what it sent before and did not finish.
    pub(super) fn said(&mut self, now: Moment, key: SessionKey, bytes: &mut [u8]) {
        match self.connections.get_mut(key as usize) {
            Some(connection) if connection.has_partial() => {
                if let Some(mut whole) = connection.add_to_partial(bytes) {
                    self.take_apart(now, key, &mut whole);
                }
            }
            _ => self.take_apart(now, key, bytes),
        }
    }

    /// Takes frames apart; what is left of the last is kept.
    fn take_apart(&mut self, now: Moment, key: SessionKey, bytes: &mut [u8]) {
        let (mut at, mut needs, mut is_other) = (0, 0, false);
        while at < bytes.len() {
            let Some(connection) = self.connections.get_mut(key as usize) else { return };
            if let Stage::Closing { .. } = connection.stage {
                self.said_while_closing(key, &mut bytes[at..]);
                return;
            }
            match connection.decoder.decode(&mut bytes[at..]) {
                Ok(Decoded::Item { message, consumed }) => {
                    at += consumed;
                    is_other |= !connection.decoder.is_inside_message();
                    self.heard(now, key, message);
                }
                Ok(Decoded::NeedMore { frame_bytes }) => {
                    needs = frame_bytes;
                    break;
                }
                Err(broken) => {
                    let reason = "The frame breaks the WebSocket protocol or a limit";
                    let code = broken.close_code();
                    self.handle(now, Input::Evict { session: key, code, reason });
                    return;
                }
            }
        }
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        connection.keep_partial(&bytes[at..], needs, is_other, now);
        self.watch_if_needed(key);
    }

    fn heard(&mut self, now: Moment, key: SessionKey, message: Incoming<'_>) {
        match message {
            Incoming::Text(text) => self.handle(now, Input::Said { session: key, text: &text }),
            Incoming::Pong(_) | Incoming::Fragment => self.handle(now, Input::Heard { session: key }),
            Incoming::Ping(payload) => {
                self.handle(now, Input::Heard { session: key });
                self.send(key, websocket::pong(payload));
            }
            Incoming::Binary => {
                let reason = "Binary frames are not part of the protocol";
                self.handle(now, Input::Evict { session: key, code: CloseCode::UNSUPPORTED, reason });
            }
            Incoming::Close(code, _) => {
                self.handle(now, Input::Gone { session: key });
                let answer = match code {
                    Some(code) => websocket::close(CloseCode(code), ""),
                    None => websocket::close_without_code(),
                };
                self.send(key, answer);
                self.begin_closing(now, key, true);
            }
        }
    }

    /// Behind a close only the peer's own close matters.
    fn said_while_closing(&mut self, key: SessionKey, bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        let mut at = 0;
        while let Ok(Decoded::Item { message, consumed }) = connection.decoder.decode(&mut bytes[at..]) {
            at += consumed;
            if let (Incoming::Close(..), Stage::Closing { peer_is_done, .. }) = (message, &mut connection.stage) {
                *peer_is_done = true;
                break;
            }
        }
        if connection.finish_if_flushed() {
            self.forget(key);
        }
    }
}
