//! The ledger: every publish with its answer, every receipt, and what the two say when they are compared.
//!
//! It opens nothing and knows no fault: it is told whose lateness is excused. Whoever was answered 200 was promised that every
//! subscriber that stood connected all the time receives it, once, in its publisher's order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::excuse::Excuses;
use crate::offer::Offer;
use crate::stalls::{Stall, overlap_ns};

/// Pusher's own line for "late".
pub const LATE: Duration = Duration::from_millis(900);
/// What was accepted so long ago has reached everybody.
const REACHED_NS: u64 = 5_000_000_000;
/// Wrong ones that are told one by one.
const EXAMPLES_MAX: usize = 8;

/// Nanoseconds since the beginning.
pub fn since(origin: Instant) -> u64 {
    u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Whose; a publisher has one channel and one node.
    pub lane: u32,
    /// Its number there, from 1.
    pub seq: u32,
    /// Number of the channel.
    pub channel: usize,
    /// Number of the node that excuses it, where one does.
    pub node: usize,
    /// Nodes it was sent to: a bit for each.
    pub through: u64,
    /// When it was first sent.
    pub sent_ns: u64,
    /// When it was answered, or given up.
    pub answered_ns: u64,
    /// The answer; `None` when there was none.
    pub status: Option<u16>,
    /// Whether a refusal said when to come back.
    pub has_retry_after: bool,
    /// How often it was sent.
    pub attempts: u32,
}

/// A receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Number of the subscriber.
    pub subscriber: u32,
    /// Of the publish.
    pub lane: u32,
    /// Of the publish.
    pub seq: u32,
    /// When.
    pub at_ns: u64,
}

/// A subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stood {
    /// Number of its node.
    pub node: usize,
    /// Number of its channel.
    pub channel: usize,
    /// Since when it is subscribed; `None` when it never was.
    pub from_ns: Option<u64>,
    /// When its connection ended, and the words it ended with.
    pub ended: Option<(u64, String)>,
}

/// Everything that was noted.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Publishes, in the order of each lane.
    pub published: Vec<Published>,
    /// What each lane set out to do until [`Ledger::rested_ns`].
    pub offers: Vec<Offer>,
    /// When all lanes were told to rest.
    pub rested_ns: u64,
    /// Subscribers by number.
    pub stood: Vec<Stood>,
    /// Receipts, in the order of each subscriber.
    pub receipts: Vec<Receipt>,
    /// When the machine was away.
    pub stalls: Vec<Stall>,
}

/// What the ledger says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Publishes.
    pub publishes: usize,
    /// Receipts.
    pub receipts: usize,
    /// Answered 200 and not received by one that stood connected all the time.
    pub lost: usize,
    /// Received again by the same socket.
    pub doubled: usize,
    /// Received though nobody published it, or on a wrong channel.
    pub strange: usize,
    /// Received behind a later one of the same publisher.
    pub inversions: usize,
    /// Answered neither 200 nor a clear 503 with `Retry-After`.
    pub failed: usize,
    /// Answered 503 with `Retry-After`.
    pub refused: usize,
    /// Of these, while a fault said that it may be.
    pub refused_apart: usize,
    /// Failed or refused, on an excused node.
    pub failed_apart: usize,
    /// Came later than [`LATE`], stalls of the machine taken off.
    pub late: usize,
    /// Of these, sent while a fault said that there may be no path.
    pub late_apart: usize,
    /// Sockets that were closed, but for those on excused nodes.
    pub closed: usize,
    /// Sockets on excused nodes that were closed.
    pub closed_apart: usize,
    /// The longest delivery, stalls of the machine taken off, but for those over excused nodes.
    pub longest: Duration,
    /// The longest delivery as it was.
    pub longest_raw: Duration,
    /// Half of all deliveries were not slower.
    pub p50: Duration,
    /// 99 of 100 were not slower.
    pub p99: Duration,
    /// The longest time until an answer, but for those of excused nodes.
    pub longest_answer: Duration,
    /// The longest the machine was away.
    pub longest_stall: Duration,
    /// All of it together: where it is much, delays say little.
    pub stalled: Duration,
    /// Some of what is wrong, in words.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong that no fault excuses.
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.strange + self.inversions + self.failed == 0
    }

    /// Of each kind some: many of one leave room for the others.
    fn example(&mut self, kind: &str, words: impl FnOnce() -> String) {
        let of_kind = self.examples.iter().filter(|example| example.starts_with(kind)).count();
        if of_kind < EXAMPLES_MAX {
            self.examples.push(format!("{kind}{}", words()));
        }
    }
}

impl Ledger {
    /// Compares. What passes over a node of `excused` may be late, refused or without an answer; nothing may be lost or doubled.
    pub fn verdict(&self, excused: &[usize]) -> Verdict {
        self.verdict_but_for(&Excuses::of_nodes(excused))
    }

    /// The same, where nodes and paths were away for a while only.
    pub fn verdict_but_for(&self, excused: &Excuses) -> Verdict {
        let mut verdict =
            Verdict { publishes: self.published.len(), receipts: self.receipts.len(), ..Verdict::default() };
        let by_mark: HashMap<_, _> = self.published.iter().map(|p| ((p.lane, p.seq), p)).collect();
        self.judge_answers(excused, &mut verdict);
        let received = self.judge_receipts(excused, &by_mark, &mut verdict);
        self.judge_losses(&received, &mut verdict);
        for stood in &self.stood {
            let Some((at, words)) = &stood.ended else { continue };
            if excused.is_gone(stood.node, *at) {
                verdict.closed_apart += 1;
            } else {
                verdict.closed += 1;
                verdict.example("a socket was closed", || {
                    format!(" on node {} at {:.3} s: {words}", stood.node, seconds(*at))
                });
            }
        }
        let longest = self.stalls.iter().map(|stall| stall.to_ns - stall.from_ns).max();
        verdict.longest_stall = Duration::from_nanos(longest.unwrap_or(0));
        verdict.stalled = Duration::from_nanos(overlap_ns(&self.stalls, 0, u64::MAX));
        verdict
    }

    /// What was sent between two moments, and the receipts of it. A socket that was closed well after that stood all the time; one
    /// that was closed before, or too soon after for all to have reached it, counts as if it had never been there.
    #[must_use]
    pub fn sent_between(&self, from_ns: u64, to_ns: u64) -> Self {
        let span = from_ns..to_ns;
        let published: Vec<_> = self.published.iter().filter(|p| span.contains(&p.sent_ns)).copied().collect();
        let marks: HashSet<_> = published.iter().map(|p| (p.lane, p.seq)).collect();
        let is_meant = |receipt: &&Receipt| marks.contains(&(receipt.lane, receipt.seq));
        let receipts = self.receipts.iter().filter(is_meant).copied().collect();
        let mut stood = self.stood.clone();
        for one in &mut stood {
            let Some((at_ns, _)) = &one.ended else { continue };
            if *at_ns >= to_ns.saturating_add(REACHED_NS) {
                one.ended = None;
            } else if !span.contains(at_ns) {
                (one.from_ns, one.ended) = (None, None);
            }
        }
        // What was offered in a span is asked of the whole alone.
        Self { published, offers: Vec::new(), rested_ns: 0, stood, receipts, stalls: self.stalls.clone() }
    }

    /// What 99 of 100 deliveries on these channels were not slower than, stalls of the machine taken off, of what was sent in each
    /// `step` of a span. Steps in which nothing was sent are left out, so are those of which the machine was away for more than a
    /// fiftieth, and so is the rest of the span that makes no whole one.
    pub fn p99s(&self, channels: &HashSet<usize>, span_ns: Range<u64>, step: Duration) -> Vec<Duration> {
        let step_ns = u64::try_from(step.as_nanos()).unwrap_or(u64::MAX).max(1);
        let is_meant = |p: &&Published| channels.contains(&p.channel) && span_ns.contains(&p.sent_ns);
        let sent: HashMap<_, _> =
            self.published.iter().filter(is_meant).map(|p| ((p.lane, p.seq), p.sent_ns)).collect();
        let mut steps: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for receipt in &self.receipts {
            let Some(sent_ns) = sent.get(&(receipt.lane, receipt.seq)).copied() else { continue };
            let raw_ns = receipt.at_ns.saturating_sub(sent_ns);
            let took_ns = raw_ns - overlap_ns(&self.stalls, sent_ns, receipt.at_ns).min(raw_ns);
            steps.entry((sent_ns - span_ns.start) / step_ns).or_default().push(took_ns);
        }
        let whole = (span_ns.end - span_ns.start) / step_ns;
        let of_step = |mut took_ns: Vec<u64>| {
            took_ns.sort_unstable();
            Duration::from_nanos(took_ns[took_ns.len() * 99 / 100])
        };
        let is_meant = |step: u64| {
            let from_ns = span_ns.start + step * step_ns;
            step < whole && overlap_ns(&self.stalls, from_ns, from_ns + step_ns) <= step_ns / 50
        };
        steps.into_iter().filter(|(step, _)| is_meant(*step)).map(|(_, took_ns)| of_step(took_ns)).collect()
    }

    fn judge_answers(&self, excused: &Excuses, verdict: &mut Verdict) {
        for publish in &self.published {
            let took = Duration::from_nanos(publish.answered_ns - publish.sent_ns);
            let (from_ns, to_ns) = (publish.sent_ns, publish.answered_ns);
            let is_excused = excused.is_away(publish.node, from_ns, to_ns);
            if !is_excused {
                verdict.longest_answer = verdict.longest_answer.max(took);
            }
            match publish.status {
                Some(200) => {}
                _ if is_excused => verdict.failed_apart += 1,
                Some(503) if publish.has_retry_after => {
                    verdict.refused += 1;
                    verdict.refused_apart += usize::from(excused.is_refused(from_ns, to_ns));
                }
                status => {
                    verdict.failed += 1;
                    let answer = status.map_or("nothing".to_owned(), |status| status.to_string());
                    let (node, at) = (publish.node, seconds(publish.sent_ns));
                    verdict.example("failed", || {
                        format!(": node {node} answered {answer} to a publish at {at:.3} s after {took:?}")
                    });
                }
            }
        }
    }

    fn judge_receipts(
        &self,
        excused: &Excuses,
        by_mark: &HashMap<(u32, u32), &Published>,
        verdict: &mut Verdict,
    ) -> HashSet<(u32, u32, u32)> {
        let mut received = HashSet::with_capacity(self.receipts.len());
        let mut last: HashMap<(u32, u32), u32> = HashMap::new();
        let mut took_ns = Vec::with_capacity(self.receipts.len());
        for receipt in &self.receipts {
            let stood = &self.stood[receipt.subscriber as usize];
            let publish = by_mark.get(&(receipt.lane, receipt.seq)).filter(|p| p.channel == stood.channel);
            let Some(publish) = publish else {
                verdict.strange += 1;
                continue;
            };
            let who = || {
                let (seq, lane, from, on) = (publish.seq, publish.lane, publish.node, stood.node);
                let [sent, came] = [publish.sent_ns, receipt.at_ns].map(seconds);
                format!("number {seq} of lane {lane} from node {from}, sent {sent:.3} s, came {came:.3} s to node {on}")
            };
            if !received.insert((receipt.subscriber, receipt.lane, receipt.seq)) {
                verdict.doubled += 1;
                verdict.example("doubled", || format!(": {}", who()));
                continue;
            }
            let last = last.entry((receipt.subscriber, receipt.lane)).or_default();
            if *last > receipt.seq {
                verdict.inversions += 1;
                let status = publish.status.unwrap_or_default();
                verdict.example("out of order", || format!(" behind {last}, answered {status}: {}", who()));
            }
            *last = (*last).max(receipt.seq);
            let raw = receipt.at_ns.saturating_sub(publish.sent_ns);
            took_ns.push(raw);
            let (from_ns, to_ns) = (publish.sent_ns, receipt.at_ns);
            let through = (0..64).filter(|node| publish.through & 1 << node != 0);
            if through.chain([publish.node, stood.node]).any(|node| excused.is_away(node, from_ns, to_ns)) {
                continue;
            }
            let took = Duration::from_nanos(raw - overlap_ns(&self.stalls, from_ns, to_ns).min(raw));
            verdict.longest_raw = verdict.longest_raw.max(Duration::from_nanos(raw));
            verdict.longest = verdict.longest.max(took);
            if took > LATE {
                verdict.late += 1;
                verdict.late_apart += usize::from(excused.is_held(from_ns, to_ns));
                verdict.example("late", || format!(" by {took:?}: {}", who()));
            }
        }
        took_ns.sort_unstable();
        let share = |of: usize| took_ns.get((took_ns.len() * of / 100).min(took_ns.len().saturating_sub(1)));
        verdict.p50 = Duration::from_nanos(share(50).copied().unwrap_or(0));
        verdict.p99 = Duration::from_nanos(share(99).copied().unwrap_or(0));
        received
    }

    fn judge_losses(&self, received: &HashSet<(u32, u32, u32)>, verdict: &mut Verdict) {
        let mut audience: HashMap<usize, Vec<(u32, &Stood)>> = HashMap::new();
        for (number, stood) in (0..).zip(&self.stood) {
            if stood.ended.is_none() {
                audience.entry(stood.channel).or_default().push((number, stood));
            }
        }
        for publish in self.published.iter().filter(|publish| publish.status == Some(200)) {
            for (number, stood) in audience.get(&publish.channel).into_iter().flatten() {
                let was_there = stood.from_ns.is_some_and(|from| from <= publish.sent_ns);
                if was_there && !received.contains(&(*number, publish.lane, publish.seq)) {
                    verdict.lost += 1;
                    let (seq, lane, node, at) = (publish.seq, publish.lane, publish.node, seconds(publish.sent_ns));
                    let to = stood.node;
                    verdict.example("lost", || {
                        format!(": number {seq} of lane {lane} from node {node}, sent {at:.3} s, to socket {number} of node {to}")
                    });
                }
            }
        }
    }
}

#[allow(clippy::cast_precision_loss)] // For the eye.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn publish(seq: u32, status: Option<u16>) -> Published {
        let sent_ns = u64::from(seq) * 1_000 * MS;
        let answered_ns = sent_ns + MS;
        Published {
            lane: 7,
            seq,
            channel: 1,
            node: 0,
            through: 1,
            sent_ns,
            answered_ns,
            status,
            has_retry_after: false,
            attempts: 1,
        }
    }

    fn receipt(subscriber: u32, seq: u32, after_ms: u64) -> Receipt {
        Receipt { subscriber, lane: 7, seq, at_ns: (u64::from(seq) * 1_000 + after_ms) * MS }
    }

    /// Two subscribers of channel 1, on nodes 0 and 1, and three publishes answered 200; all is well with these receipts.
    fn ledger() -> Ledger {
        let stood = |node| Stood { node, channel: 1, from_ns: Some(0), ended: None };
        let receipts = (1..=3).flat_map(|seq| [receipt(0, seq, 2), receipt(1, seq, 3)]).collect();
        let published = (1..=3).map(|seq| publish(seq, Some(200))).collect();
        Ledger { published, stood: vec![stood(0), stood(1)], receipts, ..Ledger::default() }
    }

    #[test]
    fn a_ledger_in_order_is_clean() {
        let verdict = ledger().verdict(&[]);
        assert!(verdict.is_clean() && verdict.late == 0, "{verdict:?}");
        assert_eq!((verdict.longest, verdict.p50), (Duration::from_millis(3), Duration::from_millis(3)));
    }

    /// DEL-1
    #[test]
    fn what_a_standing_subscriber_did_not_receive_is_lost() {
        let mut ledger = ledger();
        ledger.receipts.remove(0);
        assert_eq!(ledger.verdict(&[]).lost, 1);
        ledger.stood[0].from_ns = Some(1_500 * MS);
        assert_eq!(ledger.verdict(&[]).lost, 0, "it came later");
        ledger.stood[0] = Stood { from_ns: Some(0), ended: Some((9, "1006".to_owned())), ..ledger.stood[0].clone() };
        let verdict = ledger.verdict(&[]);
        assert_eq!((verdict.lost, verdict.closed), (0, 1), "it was closed, which is counted");
    }

    #[test]
    fn what_was_not_answered_200_may_be_missing_and_is_counted() {
        let mut ledger = ledger();
        ledger.receipts.retain(|receipt| receipt.seq != 2);
        ledger.published[1].status = Some(503);
        assert_eq!(ledger.verdict(&[]).failed, 1, "without Retry-After");
        ledger.published[1].has_retry_after = true;
        let verdict = ledger.verdict(&[]);
        assert_eq!((verdict.failed, verdict.refused, verdict.lost), (0, 1, 0));
        ledger.published[1].status = None;
        assert_eq!((ledger.verdict(&[]).failed, ledger.verdict(&[0]).failed_apart), (1, 1));
    }

    #[test]
    fn repeats_inversions_and_strangers_are_counted() {
        let mut ledger = ledger();
        ledger.receipts.push(receipt(0, 3, 5));
        assert_eq!(ledger.verdict(&[]).doubled, 1);
        ledger.receipts.pop();
        ledger.receipts.swap(0, 2);
        assert_eq!(ledger.verdict(&[]).inversions, 1);
        ledger.receipts[0].lane = 8;
        let verdict = ledger.verdict(&[]);
        assert_eq!((verdict.strange, verdict.lost), (1, 1));
    }

    #[test]
    fn a_span_of_a_ledger_is_judged_alone() {
        let mut ledger = ledger();
        ledger.receipts.remove(0);
        assert_eq!(ledger.sent_between(0, 1_500 * MS).verdict(&[]).lost, 1);
        assert_eq!(ledger.sent_between(1_500 * MS, 9_000 * MS).verdict(&[]).lost, 0);
        ledger.stood[0].ended = Some((1_600 * MS, "4200".to_owned()));
        let verdicts = [0, 1_500 * MS].map(|from| ledger.sent_between(from, from + 1_500 * MS).verdict(&[]));
        assert_eq!(verdicts.map(|verdict| (verdict.lost, verdict.closed)), [(0, 0), (0, 1)]);
        ledger.stood[0].ended = Some((7_000 * MS, "4200".to_owned()));
        assert_eq!(ledger.sent_between(0, 1_500 * MS).verdict(&[]).lost, 1, "it stood long after");
    }

    #[test]
    fn delays_can_be_asked_of_some_channels_step_by_step() {
        let mut ledger = ledger();
        let (channels, step) = (HashSet::from([1]), Duration::from_secs(1));
        ledger.receipts[3] = receipt(1, 2, 40);
        ledger.stalls.push(Stall { from_ns: 2_010 * MS, to_ns: 2_030 * MS });
        let ms = |span: Range<u64>| {
            let p99s = ledger.p99s(&channels, span.start * MS..span.end * MS, step);
            p99s.iter().map(Duration::as_millis).collect::<Vec<_>>()
        };
        assert_eq!(ms(900..3_900), [3, 20, 3]);
        assert_eq!(ms(900..2_800), [3], "what makes no whole second is left out");
        assert!(ms(0..1_000).is_empty());
        ledger.stalls.push(Stall { from_ns: 1_100 * MS, to_ns: 1_125 * MS });
        let p99s = ledger.p99s(&channels, 900 * MS..3_900 * MS, step);
        assert_eq!(p99s.len(), 2, "the machine was away in the first");
        assert!(ledger.p99s(&HashSet::from([2]), 0..9_000 * MS, step).is_empty());
    }

    #[test]
    fn what_is_late_is_counted_unless_its_node_or_the_machine_was_away() {
        let mut ledger = ledger();
        ledger.receipts[5] = receipt(1, 3, 1_000);
        assert_eq!(ledger.verdict(&[]).late, 1);
        assert_eq!(ledger.verdict(&[1]).late, 0);
        ledger.stalls.push(Stall { from_ns: 3_100 * MS, to_ns: 3_300 * MS });
        let verdict = ledger.verdict(&[]);
        assert_eq!((verdict.late, verdict.longest), (0, Duration::from_millis(800)));
    }

    #[test]
    fn a_publish_that_was_tried_elsewhere_may_be_late_by_every_node_it_was_sent_to_and_is_answered_for_by_none() {
        let mut ledger = ledger();
        ledger.receipts[5] = receipt(1, 3, 1_000);
        let elsewhere = Published { node: usize::MAX, through: 0b101, status: None, ..ledger.published[2] };
        ledger.published[2] = elsewhere;
        let counts = |node| {
            let verdict = ledger.verdict(&[node]);
            (verdict.late, verdict.failed)
        };
        assert_eq!([0, 2, 3].map(counts), [(0, 1), (0, 1), (1, 1)]);
    }

    #[test]
    fn what_was_sent_while_a_fault_says_so_is_late_refused_and_closed_apart() {
        let mut ledger = ledger();
        ledger.receipts[3] = receipt(1, 2, 1_000);
        ledger.published[2] = Published { status: Some(503), has_retry_after: true, ..ledger.published[2] };
        ledger.receipts.truncate(4);
        ledger.stood[0].ended = Some((5_000 * MS, "1006".to_owned()));
        let apart = |excuses: &Excuses| {
            let verdict = ledger.verdict_but_for(excuses);
            assert_eq!((verdict.late, verdict.refused), (1, 1));
            [verdict.late_apart, verdict.refused_apart, verdict.closed_apart]
        };
        let held = Excuses::default().held(2_500 * MS..2_600 * MS);
        assert_eq!(apart(&held), [1, 0, 0], "what is held may not be refused");
        assert_eq!(apart(&held.refused(3_000 * MS..3_100 * MS)), [1, 1, 0]);
        assert_eq!(apart(&Excuses::default().gone(0, 4_900 * MS..5_100 * MS)), [0, 0, 1]);
        assert_eq!(apart(&Excuses::default().away(0, 4_900 * MS..5_100 * MS)), [0, 0, 0], "its sockets stand");
        assert_eq!(apart(&Excuses::default().held(4_000 * MS..9_000 * MS)), [0, 0, 0], "well before");
    }
}
