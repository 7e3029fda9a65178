//! The WebSocket side of the node: from an accepted socket to frames in and out.
//!
//! `handshake` (a request head becomes a decision) -> [`handover`] (the socket changes its owner) -> `connection` and
//! `outbox` (bytes in and out of one socket). The loop that drives them is [`crate::worker_loop`].

pub(crate) mod connection;
pub(crate) mod handover;
pub(crate) mod handshake;
pub(crate) mod outbox;
