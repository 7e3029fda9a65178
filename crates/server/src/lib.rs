//! The node: sockets, HTTP, configuration, and the worker loops around the engine.
//!
//! Everything in this crate is a thin effect around a decision that is made elsewhere: `fulmar-engine` decides what a
//! connection hears, `fulmar-protocol` what bytes mean, `fulmar-backbone` in which order things happened.
//!
//! Reading order: [`run`] (how a node comes up and goes away), `edge` (sockets in), `worker_loop` (the hot path),
//! [`http`] (everything that is not a WebSocket), [`config`] and [`apps`].

pub mod admin;
mod alike;
pub mod apps;
pub mod config;
pub mod gate;
pub mod http;
pub mod publish_rate;
pub mod quota;
pub mod registry;
pub mod storage;
pub mod tls;
pub mod webhooks;

mod backbone;
mod banner;
mod edge;
mod fallback;
mod inbox;
mod listen;
mod metrics;
mod node;
mod patient;
mod peer;
mod registrar;
mod rewind;
mod self_test;
mod shutdown;
mod socket_ids;
mod telemetry;
mod worker_loop;
mod ws;

/// For whoever operates the groups that nodes hear each other over.
pub use fulmar_backbone::redis;
pub use listen::{DESCRIPTORS_RESERVED, open_file_limit};
pub use node::run;
