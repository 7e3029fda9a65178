//! How nodes hear each other over Redis: sharded, replicated, and none of its faults anybody's.

pub mod envelope;
pub mod keys;
pub mod records;
pub mod scripts;
pub mod settings;
pub mod store;
pub mod topic;
