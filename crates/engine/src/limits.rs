//! Rates within one connection.

use crate::time::Moment;

/// A bucket of tokens, refilled evenly. 16 bytes, since every connection carries some.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenBucket {
    /// Thousandths of a token.
    level: u32,
    filled_at: Moment,
}

impl TokenBucket {
    pub(crate) fn full(tokens: u32, now: Moment) -> Self {
        Self { level: tokens.saturating_mul(1_000), filled_at: now }
    }

    /// Takes one token of those of a second, or answers `false` when the rate is used up. The rate may differ from call to
    /// call: it is a setting of the app, which can be reloaded.
    pub(crate) fn take(&mut self, per_s: u32, now: Moment) -> bool {
        self.take_of(per_s, per_s, now)
    }

    /// The same where so many tokens may be there at once.
    pub(crate) fn take_of(&mut self, tokens: u32, per_s: u32, now: Moment) -> bool {
        let full = u64::from(tokens) * 1_000;
        let refill = now.ms_since(self.filled_at).saturating_mul(u64::from(per_s));
        let level = u64::from(self.level).saturating_add(refill).min(full);
        self.filled_at = now;
        let taken = level >= 1_000;
        let left = if taken { level - 1_000 } else { level };
        self.level = u32::try_from(left).unwrap_or(u32::MAX);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_tokens_can_be_taken_at_once_and_then_one_each_tenth() {
        let mut bucket = TokenBucket::full(10, Moment(0));
        let burst = (0..20).filter(|_| bucket.take(10, Moment(0))).count();
        assert_eq!(burst, 10);
        assert!(!bucket.take(10, Moment(99)));
        assert!(bucket.take(10, Moment(200)));
        let after_a_pause = (0..20).filter(|_| bucket.take(10, Moment(60_000))).count();
        assert_eq!(after_a_pause, 10);
    }

    #[test]
    fn more_than_a_second_of_tokens_may_be_there_at_once_and_comes_back_at_the_rate() {
        let mut bucket = TokenBucket::full(50, Moment(0));
        assert_eq!((0..99).filter(|_| bucket.take_of(50, 10, Moment(0))).count(), 50);
        assert_eq!((0..99).filter(|_| bucket.take_of(50, 10, Moment(1_000))).count(), 10);
        assert_eq!((0..99).filter(|_| bucket.take_of(50, 10, Moment(60_000))).count(), 50);
    }

    #[test]
    fn a_rate_that_was_lowered_holds_at_once() {
        let mut bucket = TokenBucket::full(100, Moment(0));
        assert_eq!((0..100).filter(|_| bucket.take(5, Moment(1))).count(), 5);
        assert!(!bucket.take(0, Moment(9_000)));
    }
}
