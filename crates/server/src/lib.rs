//! placeholder

pub mod apps;
pub mod config;
pub mod http;
