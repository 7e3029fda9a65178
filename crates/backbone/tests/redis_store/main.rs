//! The records of a group, on a real Redis server.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod damage;
mod death;
mod edges;
mod failover;
mod refusals;
mod walk;
mod world;
