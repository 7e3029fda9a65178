//! How often subscribers are told how many they are.

use crate::time::Moment;

/// Up to this many subscribers every change is told.
pub(crate) const TOLD_AT_ONCE_MAX: u64 = 100;
/// Above it, at most one message in this many milliseconds.
const INTERVAL_MS: u64 = 5_000;

/// Decides when a changed count is sent. The last value of a burst is always sent eventually.
#[derive(Debug, Default)]
pub(crate) struct CountThrottle {
    sent_at: Option<Moment>,
    held: Option<u64>,
}

/// What to do with a new count.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Send it.
    Now,
    /// It is held; wake up then and call [`CountThrottle::due`].
    At(Moment),
    /// It is held, and somebody will wake up anyway.
    AlreadyHeld,
}

impl CountThrottle {
    pub(crate) fn changed(&mut self, count: u64, now: Moment) -> Told {
        let next = self.sent_at.map_or(now, |at| at.plus_ms(INTERVAL_MS));
        if count <= TOLD_AT_ONCE_MAX || now >= next {
            self.sent_at = Some(now);
            self.held = None;
            return Told::Now;
        }
        let told = if self.held.is_some() { Told::AlreadyHeld } else { Told::At(next) };
        self.held = Some(count);
        told
    }

    /// Whether a count waits for its time.
    pub(crate) fn holds_one(&self) -> bool {
        self.held.is_some()
    }

    /// The count that was held, if it is still the newest; to be sent now.
    pub(crate) fn due(&mut self, now: Moment) -> Option<u64> {
        let held = self.held.take()?;
        self.sent_at = Some(now);
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_channels_hear_every_change_and_large_ones_the_last_of_each_five_seconds() {
        let mut throttle = CountThrottle::default();
        assert_eq!(throttle.changed(99, Moment(0)), Told::Now);
        assert_eq!(throttle.changed(100, Moment(1)), Told::Now);
        assert_eq!(throttle.changed(101, Moment(2)), Told::At(Moment(5_001)));
        assert_eq!(throttle.changed(102, Moment(3)), Told::AlreadyHeld);
        assert_eq!(throttle.due(Moment(5_001)), Some(102));
        assert_eq!(throttle.due(Moment(5_002)), None);
        assert_eq!(throttle.changed(103, Moment(20_000)), Told::Now);
    }

    #[test]
    fn a_count_that_fell_below_the_line_is_told_at_once_and_replaces_the_held_one() {
        let mut throttle = CountThrottle::default();
        assert_eq!(throttle.changed(101, Moment(0)), Told::Now);
        assert_eq!(throttle.changed(102, Moment(1)), Told::At(Moment(5_000)));
        assert_eq!(throttle.changed(100, Moment(2)), Told::Now);
        assert_eq!(throttle.due(Moment(5_000)), None);
    }
}
