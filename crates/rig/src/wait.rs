//! Waiting for what other processes do: looking again and again, for a bounded time.

use std::thread;
use std::time::{Duration, Instant};

use crate::RigError;

const PAUSE: Duration = Duration::from_millis(10);

/// Looks until there is something to see.
///
/// # Errors
/// There was nothing for `patience`.
pub fn eventually<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T, RigError> {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return Ok(seen);
        }
        if begun.elapsed() > patience {
            return Err(RigError::Late { what: what.to_owned(), waited: patience });
        }
        thread::sleep(PAUSE);
    }
}
