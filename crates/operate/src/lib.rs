//! The operator's hand: it looks, does what a plan says, and looks again.
//!
//! Nothing is decided here. What the facts mean, whether something may be done and when a step is over is decided in
//! `fulmar_control`; this crate asks Redis servers and Sentinels over the wire ([`watch`], [`doctor`]), carries a plan out one observed step
//! at a time ([`execute`]) under a lease in the group's own Redis ([`lease`]), and writes down who did what ([`audit`]). It
//! learns of servers from the node's own settings, and knows nothing of a node's insides.

mod act;
pub mod audit;
pub mod doctor;
pub mod doors;
pub mod execute;
pub mod lease;
pub mod presence;
mod read;
pub mod rights;
pub mod watch;
