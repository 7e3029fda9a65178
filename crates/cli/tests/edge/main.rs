//! The node's edge against real sockets: what peers do, one file per kind.
//!
//! The real binary runs for each test. Bytes are written by hand where a WebSocket library would be too polite. Nothing
//! here sleeps for an outcome: what must happen is waited for, with a deadline that ends the test when it does not.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod harness;

mod framing;
mod hostile;
mod limits;
mod order;
mod proxies;
mod shutdown;
mod slow_readers;
mod tls;
