//! How nodes hear each other over Redis: sharded, replicated, and none of its faults anybody's.

pub mod belief;
pub mod bus;
pub mod circuit;
pub mod envelope;
pub mod hub;
pub mod keys;
pub mod lane;
pub mod link;
pub mod records;
pub mod round;
pub mod seen;
pub mod settings;
pub mod topic;
