//! Real processes for tests: Redis, Sentinels and nodes of ours, started on free ports of loopback, hurt on purpose, and ended
//! without a trace; and the load and the ledger that show what the hurt did.
//!
//! It is built for tests alone and decides nothing about the product. What it starts ends with its guard, with a panic, and,
//! by the kernel's hand, with the process that started it; a folder that a killed test left is removed by the next one.
//!
//! ```no_run
//! use fulmar_rig::{Redis, RedisOptions, SentinelDeployment, SentinelOptions};
//!
//! let redis = Redis::start(&RedisOptions::default())?;
//! redis.call(&["SET", "a", "1"])?;
//!
//! let deployment = SentinelDeployment::start(&[("g1", 2), ("g2", 2)], 3, &SentinelOptions::default())?;
//! deployment.primary_of("g1")?.redis.kill();
//! # Ok::<(), fulmar_rig::RigError>(())
//! ```

mod crowd;
mod error;
mod excuse;
mod folder;
pub mod http;
mod lanes;
mod ledger;
mod link;
mod load;
mod mark;
mod node;
mod offer;
mod ports;
mod process;
mod redis;
mod redis_cluster;
mod resp;
mod sentinel;
mod stalls;
mod wait;
mod websocket;

pub use crowd::Seat;
pub use error::RigError;
pub use excuse::Excuses;
pub use folder::Folder;
pub use lanes::LaneSpec;
pub use ledger::{LATE, Ledger, Published, Receipt, Stood, Verdict};
pub use link::Link;
pub use load::{Load, Size};
pub use node::{Node, NodeOptions, Ready};
pub use offer::{Offer, Throughput};
pub use ports::free_port;
pub use process::Process;
pub use redis::{
    FETCHED_VALKEY, OLD_REDIS, Redis, RedisOptions, Role, Tls, fetched_old_redis, fetched_valkey, is_available,
    old_redis_program, server_program, valkey_program,
};
pub use redis_cluster::RedisCluster;
pub use resp::{Resp, Value};
pub use sentinel::{Group, Sentinel, SentinelDeployment, SentinelOptions, Server};
pub use stalls::{Stall, Watch};
pub use wait::eventually;
pub use websocket::Subscriber;
