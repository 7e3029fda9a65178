//! `fulmar doctor` as it is run: the real binary, and what is wrong is made wrong for real.
//!
//! Skipped, loudly, where there is no `redis-server`.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

#[path = "doctor/alone.rs"]
mod alone;
#[path = "doctor/clocks.rs"]
mod clocks;
#[path = "doctor/group.rs"]
mod group;
#[path = "doctor/here.rs"]
mod here;
#[path = "doctor/other.rs"]
mod other;
#[path = "doctor/patient.rs"]
mod patient;
#[path = "doctor/redis_cluster.rs"]
mod redis_cluster;
