//! One connection as its worker holds it: socket, decoder and outbox.
//!
//! While it is idle it owns no buffer: bytes are read into the worker's scratch, and only an unfinished frame is kept.

use std::io;

use fulmar_engine::Moment;
use fulmar_protocol::websocket::{CLIENT_HEADER_BYTES_MAX, Decoder};

use super::handover::Socket;
use super::outbox::Outbox;
use crate::gate::{AppSeat, Seat};

/// How long a peer may take to answer a close.
pub(crate) const CLOSE_TIMEOUT_MS: u64 = 2_000;

pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) decoder: Decoder,
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    /// Bytes that this frame needs, as far as its header tells.
    partial_needs: usize,
    /// When the message began whose end has not come, in whatever frames.
    unfinished_since: Option<Moment>,
    pub(crate) outbox: Outbox,
    pub(crate) stage: Stage,
    /// It is in the worker's list of connections that have more to read.
    pub(crate) is_unread: bool,
    /// The peer has ended its side: what it sent before is to be read to the end.
    pub(crate) is_ending: bool,
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
    pub(crate) fn new(socket: Socket, message_bytes_max: usize, seat: Option<Seat>, app_seat: Option<AppSeat>) -> Self {
        Self {
            socket,
            decoder: Decoder::new(message_bytes_max),
            partial: Vec::new(),
            partial_needs: 0,
            unfinished_since: None,
            outbox: Outbox::default(),
            stage: Stage::Open,
            is_unread: false,
            is_ending: false,
            is_watched: false,
            app_seat,
            _seat: seat,
        }
    }

    /// Whether there is something about it that time alone can make wrong.
    pub(crate) fn needs_watching(&self) -> bool {
        self.stage != Stage::Open || self.unfinished_since.is_some() || self.outbox.is_waiting()
    }

    /// Whether a message was begun longer ago than that and has not ended.
    pub(crate) fn is_stalled(&self, now: Moment, timeout_ms: u64) -> bool {
        self.unfinished_since.is_some_and(|since| now.ms_since(since) > timeout_ms)
    }

    /// Whether a frame was begun and not finished.
    pub(crate) fn has_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Puts what came behind the beginning of a frame. Answers both together once there is something to see; until
    /// then each byte is copied once, so that a frame sent byte by byte costs no more than another.
    pub(crate) fn add_to_partial(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.partial.extend_from_slice(bytes);
        let is_worth_a_look = self.partial.len() >= self.partial_needs || self.partial_needs <= CLIENT_HEADER_BYTES_MAX;
        is_worth_a_look.then(|| std::mem::take(&mut self.partial))
    }

    /// Keeps the beginning of a frame, if there is one, and notes when the message under way began: now, unless it is
    /// the same as before.
    pub(crate) fn keep_partial(&mut self, bytes: &[u8], needs: usize, is_other: bool, now: Moment) {
        self.partial = bytes.to_vec();
        self.partial_needs = needs;
        let is_unfinished = !bytes.is_empty() || self.decoder.is_inside_message();
        let began = if is_other { now } else { self.unfinished_since.unwrap_or(now) };
        self.unfinished_since = is_unfinished.then_some(began);
    }

    /// What was begun is not waited for any more.
    pub(crate) fn drop_partial(&mut self) {
        self.partial = Vec::new();
        self.unfinished_since = None;
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
