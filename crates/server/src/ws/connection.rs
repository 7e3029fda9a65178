//! One connection as its worker holds it: socket, decoder and outbox.
//!
//! While it is idle it owns no buffer: bytes are read into the worker's scratch, and only an unfinished frame is kept.

use std::io;

use fulmar_engine::Moment;
use fulmar_protocol::websocket::Decoder;

use super::handover::Socket;
use super::outbox::Outbox;
use crate::gate::{AppSeat, Seat};

/// How long a frame may take from its first byte to its last.
pub(crate) const FRAME_TIMEOUT_MS: u64 = 10_000;
/// How long a peer may take to answer a close.
pub(crate) const CLOSE_TIMEOUT_MS: u64 = 2_000;

pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) decoder: Decoder,
    /// The beginning of a frame whose end has not come.
    pub(crate) partial: Vec<u8>,
    /// When that beginning came; counts while `partial` is not empty.
    pub(crate) partial_since: Moment,
    pub(crate) outbox: Outbox,
    pub(crate) stage: Stage,
    /// It is in the worker's list of connections that are looked at from time to time.
    pub(crate) is_watched: bool,
    /// Counted against the app's quota as long as the session is open.
    pub(crate) app_seat: Option<AppSeat>,
    /// Counted as long as this exists.
    pub(crate) _seat: Option<Seat>,
}

/// How far the connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A session listens.
    Open,
    /// A close frame is on its way out; what comes in is not read as messages any more.
    Closing {
        /// When patience ends.
        until: Moment,
        /// The peer has said goodbye: nothing more is to be waited for.
        peer_is_done: bool,
        /// Our side of the socket is shut.
        is_shut: bool,
    },
}

impl Connection {
    /// Whether there is something about it that time alone can make wrong.
    pub(crate) fn needs_watching(&self) -> bool {
        self.stage != Stage::Open || !self.partial.is_empty() || self.outbox.waiting_bytes() > 0
    }

    /// Keeps the beginning of a frame: of another one than before, or more of the same.
    pub(crate) fn keep_partial(&mut self, bytes: &[u8], is_other: bool, now: Moment) {
        if is_other || self.partial.is_empty() {
            self.partial_since = now;
        }
        self.partial.clear();
        self.partial.extend_from_slice(bytes);
    }

    /// Copies what is kept to where what comes is put behind it. Answers how many bytes that are.
    pub(crate) fn copy_partial(&self, scratch: &mut [u8]) -> usize {
        let bytes = self.partial.len();
        scratch[..bytes].copy_from_slice(&self.partial);
        bytes
    }

    /// Shuts our side once the close frame has left. Answers whether the connection can be forgotten.
    pub(crate) fn finish_if_flushed(&mut self) -> bool {
        let is_flushed = self.outbox.is_empty();
        match &mut self.stage {
            Stage::Closing { peer_is_done, is_shut, .. } if is_flushed => {
                if !*is_shut {
                    *is_shut = true;
                    self.socket.finish();
                }
                *peer_is_done
            }
            _ => false,
        }
    }
}

/// What one read of a socket brought.
pub(crate) enum Read {
    /// So many bytes, and perhaps more to come.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The end.
    End,
}

pub(crate) fn read(socket: &mut Socket, buffer: &mut [u8]) -> Read {
    loop {
        match socket.read(buffer) {
            Ok(0) => return Read::End,
            Ok(bytes) => return Read::Bytes(bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::Nothing,
            Err(_) => return Read::End,
        }
    }
}
