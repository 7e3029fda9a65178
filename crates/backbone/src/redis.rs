//! How nodes hear each other over Redis: sharded, replicated, and none of its faults anybody's.

pub mod envelope;
pub mod keys;
pub mod outbox;
pub mod primaries;
pub mod records;
pub mod settings;
pub mod topic;
