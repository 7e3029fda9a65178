//! The operator's hand: it looks, does what a plan says, and looks again.
//!
//! Nothing is decided here. What the facts mean, whether something may be done and when a step is over is decided in
//! `fulmar_control`; this crate asks Redis servers and Sentinels over the wire ([`watch`]). It learns of servers from the node's own
//! settings, and knows nothing of a node's insides.

pub mod doors;
mod read;
pub mod watch;
