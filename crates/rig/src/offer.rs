//! Whether publishers got to publish what they set out to: a fault that nobody notices because nobody could publish is not survived.
//!
//! It knows no fault: it is told when a publisher may have been held, and on which node it had nobody to publish to.

use std::collections::HashMap;
use std::fmt;

use crate::excuse::Excuses;
use crate::ledger::Ledger;

/// What is published of what was set out to be, at least. A publisher that was held up makes up for a second of it at once, and a
/// short hold is no shortfall; a tenth is left to the machine.
const SHARE_MIN: f64 = 0.9;

/// What a publisher set out to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The publisher.
    pub lane: u32,
    /// Number of its node.
    pub node: usize,
    /// When its first publish was due,
    pub from_ns: u64,
    /// and from publish to publish.
    pub every_ns: u64,
}

/// What was published beside what was offered, outside of what is excused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throughput {
    /// So many would have been published if nothing had held anybody up.
    pub offered: usize,
    /// So many were; what one publisher makes up for does not count for another.
    pub published: usize,
}

impl Throughput {
    /// Why this is too little, if it is.
    pub fn miss(&self) -> Option<String> {
        let (offered, published) = (self.offered as f64, self.published as f64);
        (published < offered * SHARE_MIN).then(|| format!("{self}: less than {:.0}%", SHARE_MIN * 100.0))
    }
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.published as f64 / (self.offered as f64).max(1.0);
        write!(f, "{} published of {} offered ({share:.1}%)", self.published, self.offered)
    }
}

impl Ledger {
    /// Compares what was published with what was offered until publishers were told to rest. A publisher is asked for nothing while
    /// a fault may hold it, or while its node is away.
    pub fn throughput(&self, excuses: &Excuses) -> Throughput {
        let mut sent: HashMap<u32, Vec<u64>> = HashMap::new();
        for publish in &self.published {
            sent.entry(publish.lane).or_default().push(publish.sent_ns);
        }
        let mut sum = Throughput::default();
        for offer in &self.offers {
            let spans = excuses.asked_of(offer.node, offer.from_ns..self.rested_ns);
            let asked_ns: u64 = spans.iter().map(|span| span.end - span.start).sum();
            let offered = usize::try_from(asked_ns / offer.every_ns.max(1)).unwrap_or(usize::MAX);
            let is_asked = |sent_ns: &&u64| spans.iter().any(|span| span.contains(sent_ns));
            let published = sent.get(&offer.lane).map_or(0, |of_lane| of_lane.iter().filter(is_asked).count());
            sum.offered += offered;
            sum.published += published.min(offered);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::ledger::Published;

    const S: u64 = 1_000_000_000;

    /// Publishers on nodes 0 and 1 that set out to publish ten times a second for ten seconds, and did at these times.
    fn ledger(lanes: [Range<u64>; 2]) -> Ledger {
        let offers = (0..2).map(|lane| Offer { lane, node: lane as usize, from_ns: 0, every_ns: S / 10 }).collect();
        let mut published = Vec::new();
        for (lane, span) in (0..).zip(lanes) {
            for (seq, tenth) in (1..).zip(span) {
                let sent_ns = tenth * S / 10;
                let (channel, node, status) = (0, lane as usize, Some(200));
                published.push(Published {
                    lane,
                    seq,
                    channel,
                    node,
                    through: 1 << node,
                    sent_ns,
                    answered_ns: sent_ns,
                    status,
                    has_retry_after: false,
                    attempts: 1,
                });
            }
        }
        Ledger { published, offers, rested_ns: 10 * S, ..Ledger::default() }
    }

    #[test]
    fn whoever_publishes_all_the_time_publishes_what_was_offered() {
        let throughput = ledger([0..100, 0..100]).throughput(&Excuses::default());
        assert_eq!(throughput, Throughput { offered: 200, published: 200 });
        assert_eq!(throughput.miss(), None);
        assert_eq!(throughput.to_string(), "200 published of 200 offered (100.0%)");
    }

    #[test]
    fn less_than_nine_in_ten_is_a_miss() {
        let miss = |lanes| ledger(lanes).throughput(&Excuses::default()).miss();
        assert_eq!(miss([0..90, 0..90]), None);
        assert_eq!(miss([0..90, 0..89]).unwrap(), "179 published of 200 offered (89.5%): less than 90%");
        assert!(miss([0..0, 0..100]).is_some(), "nobody ever published on one node");
    }

    #[test]
    fn what_one_makes_up_for_does_not_count_for_another() {
        assert!(ledger([0..60, 0..140]).throughput(&Excuses::default()).miss().is_some());
    }

    #[test]
    fn nothing_is_asked_of_whoever_may_be_held_or_has_no_node() {
        let held = Excuses::default().held(3 * S..7 * S);
        let mut ledger = ledger([0..30, 0..100]);
        assert_eq!(ledger.throughput(&held), Throughput { offered: 120, published: 90 });
        assert!(ledger.throughput(&held).miss().is_some(), "it did not come back after the hold");
        let away = Excuses::default().away(0, 3 * S..u64::MAX);
        assert_eq!(ledger.throughput(&away), Throughput { offered: 130, published: 130 });
        ledger.rested_ns = 3 * S;
        assert_eq!(ledger.throughput(&Excuses::default()).offered, 60);
    }
}
