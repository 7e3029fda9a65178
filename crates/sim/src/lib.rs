//! Dev only: a world in memory in which whole nodes are tested clause by clause.
//!
//! [`World`] is one node: real workers on the real embedded backbone, driven as the real loop drives them, with a clock
//! that moves only when a test moves it and a network that is a list. [`transcript`] reads conversations written as text
//! and plays them here or, in the tests of the binary, over real sockets. [`walk`] is a random walk whose every step is
//! checked.
//!
//! Failures panic, because every caller is a test. Invariant: nothing here waits, and nothing depends on chance beyond
//! a seed that is printed.

pub mod envelope;
pub mod frames;
mod slow;
pub mod transcript;
pub mod walk;
mod world;

pub use slow::Pace;
pub use world::{Connection, Heard, Setup, World};
