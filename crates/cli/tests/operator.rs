//! The operator's verbs as they are run: the real binary against real Redis servers and Sentinels.
//!
//! Skipped, loudly, where there is no `redis-server`.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

#[path = "operator/stage.rs"]
mod stage;

#[path = "operator/status.rs"]
mod status;

#[path = "operator/failover.rs"]
mod failover;

#[path = "operator/migrate.rs"]
mod migrate;

#[path = "operator/stop.rs"]
mod stop;

#[path = "operator/sentinels.rs"]
mod sentinels;

#[path = "operator/reshard.rs"]
mod reshard;
