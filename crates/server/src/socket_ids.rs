//! Ids for connections: random, and never the same twice.

use std::sync::{Mutex, PoisonError};

use fulmar_protocol::name::SocketId;

/// Random bytes fetched at once, so that a wave of connections does not cost a system call each.
const POOL_BYTES: usize = 4_096;
/// Bytes of one id: 96 random bits in two halves.
const ID_BYTES: usize = 12;

/// Hands out ids.
#[derive(Debug)]
pub(crate) struct SocketIds(Mutex<Pool>);

#[derive(Debug)]
struct Pool {
    bytes: Box<[u8; POOL_BYTES]>,
    used: usize,
}

impl SocketIds {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Pool { bytes: Box::new([0; POOL_BYTES]), used: POOL_BYTES }))
    }

    /// An id that nobody can guess.
    pub(crate) fn next(&self) -> SocketId {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.used + ID_BYTES > POOL_BYTES {
            getrandom::fill(&mut pool.bytes[..]).expect("the operating system gives random bytes");
            pool.used = 0;
        }
        let at = pool.used;
        pool.used += ID_BYTES;
        let part =
            |from: usize, to: usize| pool.bytes[at + from..at + to].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        SocketId::new(part(0, 4), part(4, 12))
    }
}
