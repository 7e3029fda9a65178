//! What both sides of a pair have in common: how their publisher is paced, what its messages carry, what a phase came to.

use std::thread;
use std::time::{Duration, Instant};

use crate::bench::histogram::Histogram;
use crate::bench::wire;

/// Nothing coming for so long is a loss.
pub const PATIENCE: Duration = Duration::from_secs(8);

const HEAD: &str = "~PT";
const MARK_BYTES: usize = 3 + 16;
/// A sleep ends about so late: the rest is waited for awake.
const SLEEP_SLACK: Duration = Duration::from_micros(80);

/// What came of a phase.
pub struct Flow {
    /// Messages.
    pub published: u64,
    /// From the first message to the last receipt.
    pub took: Duration,
    /// CPU of the publisher.
    pub own_cpu: Duration,
    /// CPU of all subscribers.
    pub subscriber_cpu: Duration,
    /// From publisher's write to each receipt.
    pub latency: Histogram,
}

/// Data of `data_bytes` bytes that says when it was written, counted from `begun`.
pub fn stamped(begun: &Instant, written: Instant, data_bytes: usize) -> String {
    let nanos = u64::try_from(written.saturating_duration_since(*begun).as_nanos()).unwrap_or(u64::MAX);
    format!("{HEAD}{nanos:016x}{}", "x".repeat(data_bytes.saturating_sub(MARK_BYTES)))
}

/// How long ago the data in `text` was written; `None` when it has no stamp.
pub fn age(text: &[u8], begun: &Instant) -> Option<Duration> {
    let now = begun.elapsed();
    let at = wire::find(text, HEAD.as_bytes())?;
    let digits = text.get(at + HEAD.len()..at + MARK_BYTES)?;
    let written = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some(now.saturating_sub(Duration::from_nanos(written)))
}

/// Waits until `due`, or a little less: the scheduler wakes late.
pub fn pause_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > SLEEP_SLACK {
        thread::sleep(left - SLEEP_SLACK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_its_age_within_any_envelope() {
        let begun = Instant::now();
        let data = stamped(&begun, begun, 140);
        assert_eq!(data.len(), 140);
        let text = format!(r#"{{"event":"bench","data":"{data}"}}"#);
        assert!(age(text.as_bytes(), &begun).is_some_and(|age| age <= begun.elapsed()));
        assert_eq!(age(br#"{"event":"pusher:ping"}"#, &begun), None);
        assert_eq!(age(b"~PT0123", &begun), None);
    }
}
