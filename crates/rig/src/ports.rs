//! Ports of loopback that nobody listens on.
//!
//! They are taken from below the range that the kernel gives to outgoing connections: a server that was killed must find its
//! port free when it is started again, while hundreds of connections come and go. Redis Cluster adds 10,000 to a port for its own
//! bus: those lie above all that are drawn, so that a port need be held alone, and below that range as well.
//!
//! Several test programs run at a time. A port that this one has drawn is not drawn by another, though nothing listens on it yet
//! or while its server is dead: each is held by the lock of a file, which the system lets go when the program has ended.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use crate::RigError;

/// What Redis Cluster adds to a port for its bus.
const BUS: u16 = 10_000;
const FIRST: u16 = 11_000;
/// Not drawn itself. From here on ports are the buses of those below, which nobody holds: one that was drawn here could be the bus of
/// another program's server.
const LAST: u16 = FIRST + BUS;
const ATTEMPTS_MAX: usize = 2_000;
/// Below the system's folder for temporary files, each user's own. The files are empty and stay.
const LOCKS: &str = "fulmar-ports";

/// A port on which nothing listens, and which no other program that asks here is given while this one runs.
///
/// # Errors
/// None was found, or the files that hold ports cannot be made.
pub fn free_port() -> Result<u16, RigError> {
    static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    for attempt in 0..ATTEMPTS_MAX {
        let drawn = RandomState::new().hash_one(attempt) % u64::from(LAST - FIRST);
        let port = FIRST + u16::try_from(drawn).expect("less than the range, which is a u16");
        let Some(lock) = hold(port)? else { continue };
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(port) && is_free(port + BUS) {
            held.push(lock);
            return Ok(port);
        }
    }
    Err(RigError::Peer(format!("no port of {FIRST} to {LAST} is free")))
}

/// The lock of a port; none if another program has it, or this one from before.
fn hold(port: u16) -> Result<Option<File>, RigError> {
    let failed = |error| RigError::io(format!("holding port {port}"), error);
    let user = fs::metadata("/proc/self").map_err(failed)?.uid();
    let folder = std::env::temp_dir().join(format!("{LOCKS}-{user}"));
    fs::create_dir_all(&folder).map_err(failed)?;
    let open = File::options().create(true).truncate(false).write(true).open(folder.join(port.to_string()));
    let file = open.map_err(failed)?;
    Ok(file.try_lock().is_ok().then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_was_given_is_not_given_again() {
        let port = free_port().unwrap();
        assert!(hold(port).unwrap().is_none());
    }
}
