//! Ports of loopback that nobody listens on.
//!
//! They are taken from below the range that the kernel gives to outgoing connections: a server that was killed must find its
//! port free when it is started again, while hundreds of connections come and go. Redis Cluster adds 10,000 to a port, and
//! stays below that range as well.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use crate::RigError;

const FIRST: u16 = 11_000;
const LAST: u16 = 21_900;
const ATTEMPTS_MAX: usize = 2_000;

/// A port on which nothing listens, and which this process does not give out again.
///
/// # Errors
/// None was found.
pub fn free_port() -> Result<u16, RigError> {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_with(HashSet::new);
    for attempt in 0..ATTEMPTS_MAX {
        let drawn = RandomState::new().hash_one(attempt) % u64::from(LAST - FIRST);
        let port = FIRST + u16::try_from(drawn).expect("less than the range, which is a u16");
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if !given.contains(&port) && is_free(port) && is_free(port + 10_000) {
            given.insert(port);
            return Ok(port);
        }
    }
    Err(RigError::Peer(format!("no port of {FIRST} to {LAST} is free")))
}
