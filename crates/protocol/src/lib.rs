//! Words and bytes of the Pusher Channels protocol.
//!
//! This crate is pure: it opens no socket, reads no clock and takes no lock. Bytes from outside are parsed here exactly
//! once into types whose existence proves that the check was made; everything above may trust such a value. What the
//! server says is encoded here exactly once, into a [`frame::Frame`] that every receiver shares.
//!
//! Reading order: [`name`] and [`app`] (who and where), [`client_message`] and [`publish`] (what may come in),
//! [`server_message`] and [`frame`] (what goes out), [`close`] (how it ends), [`exchange`] (what the data plane and a
//! backbone say to each other), [`query`] and [`signing`] (who may), [`webhook`] (what an app's own server is told),
//! [`websocket`] (RFC 6455).

pub mod app;
pub mod client_message;
pub mod close;
pub mod exchange;
pub mod frame;
pub mod name;
pub mod opening;
pub mod publish;
pub mod query;
pub mod server_message;
pub mod signing;
pub mod webhook;
pub mod websocket;
