//! Latencies in buckets that grow with the value: a quantile is right to within 1/32, whatever the range.
//!
//! It keeps no single value and never allocates after `new`.

use std::time::Duration;

/// Buckets per doubling.
const STEPS: u64 = 32;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Enough for 2^40 ns, eighteen minutes; longer values land in the last bucket.
const BUCKETS: usize = (STEPS as usize) * 36;

/// Counts of durations.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }

    /// Counts one duration.
    pub fn record(&mut self, value: Duration) {
        let ns = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)] += 1;
        self.total += 1;
    }

    /// Counts what another has counted as well.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, more)| *own += more);
        self.total += other.total;
    }

    /// The value that a share of `share` (0 to 1) of what was counted does not exceed; zero when nothing was counted.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.total as f64) * share).ceil() as u64;
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= wanted && *count > 0 {
                return Duration::from_nanos(upper_edge(index));
            }
        }
        Duration::ZERO
    }
}

fn bucket(ns: u64) -> usize {
    if ns < STEPS {
        return usize::try_from(ns).unwrap_or(0);
    }
    let doublings = 63 - ns.leading_zeros() - STEP_BITS;
    let step = (ns >> doublings) - STEPS;
    let index = u64::from(doublings + 1) * STEPS + step;
    usize::try_from(index).map_or(BUCKETS - 1, |i| i.min(BUCKETS - 1))
}

fn upper_edge(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let doublings = index / STEPS - 1;
    let step = index % STEPS + STEPS;
    ((step + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_right_to_within_a_thirty_second() {
        let mut histogram = Histogram::new();
        for us in 1..=10_000 {
            histogram.record(Duration::from_micros(us));
        }
        for (share, expected_us) in [(0.01, 100), (0.5, 5_000), (0.99, 9_900), (1.0, 10_000)] {
            let seen = histogram.quantile(share).as_nanos();
            let expected = Duration::from_micros(expected_us).as_nanos();
            assert!(seen >= expected && seen <= expected + expected / 31, "{share}: {seen} against {expected}");
        }
    }

    #[test]
    fn extremes_are_counted_and_nothing_counted_is_zero() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.99), Duration::ZERO);
        histogram.record(Duration::ZERO);
        assert_eq!(histogram.quantile(1.0), Duration::ZERO);
        histogram.record(Duration::from_secs(1_000_000));
        assert!(histogram.quantile(1.0) > Duration::from_secs(900));
    }
}
