//! What one node sends over the bus for one group, and who is refused while that is too much (rule 22).
//!
//! The bus runs over servers that have other things to do, those of healthy groups among them. Bytes beyond what it may carry in a
//! second wait, in their order, with all that follows. So that nobody waits for long because others publish very much, apps of
//! which most is waiting are refused what they publish next: the longer the wait is, the less may be waiting of an app. Of whom
//! nothing waits is never refused. Pure.

use std::time::Duration;

use hashbrown::HashMap;

use super::topic::Topic;

/// So far ahead of its pace the bus may be: small batches leave as they come.
const AHEAD_MAX: Duration = Duration::from_millis(50);
/// Up to this wait everybody is accepted. A failover that takes its time is no reason to refuse anybody.
const WAIT_FREE: Duration = Duration::from_millis(500);
/// From this wait on only those are accepted of whom nothing waits.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// The bus moves while batches are heard no further apart. Where it does not, what waits is held as it is without it: more would not
/// leave if others were refused.
const MOVING: Duration = Duration::from_millis(500);
/// Up to so many bytes leave with the next two batches: that they have waited for long says that something stood still, and not that they
/// are too many.
const BATCHES: u64 = 1 << 20;
/// How long it is believed what waits of whom.
const COUNTED_FOR: Duration = Duration::from_millis(50);

/// What may leave, what waits of whom, and who is refused.
#[derive(Debug)]
pub struct Allowance {
    bytes_per_s: u64,
    /// When what has left would have left at its pace.
    left_until: Duration,
    /// When a batch was last heard by all.
    heard_at: Option<Duration>,
    waiting: Waiting,
}

/// Bytes that wait, by app, as they were counted last.
#[derive(Debug, Default)]
struct Waiting {
    counted_at: Option<Duration>,
    all: u64,
    apps: HashMap<String, u64>,
}

impl Waiting {
    fn add(&mut self, app: &str, bytes: usize) {
        let bytes = bytes as u64;
        self.all += bytes;
        match self.apps.get_mut(app) {
            Some(known) => *known += bytes,
            None => drop(self.apps.insert(app.to_owned(), bytes)),
        }
    }
}

impl Allowance {
    /// Nothing has left.
    #[must_use]
    pub fn new(bytes_per_s: u64) -> Self {
        let (left_until, heard_at, waiting) = Default::default();
        Self { bytes_per_s, left_until, heard_at, waiting }
    }

    /// Whether a batch may leave.
    #[must_use]
    pub fn may_send(&self, now: Duration) -> bool {
        self.left_until <= now + AHEAD_MAX
    }

    /// A batch has left. However large it was, what follows waits the longer.
    pub fn sent(&mut self, now: Duration, bytes: usize) {
        self.left_until = self.left_until.max(now) + self.takes(bytes as u64);
    }

    /// A batch was heard.
    pub fn heard(&mut self, now: Duration) {
        self.heard_at = Some(now);
    }

    /// How long so many bytes take at least.
    fn takes(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Whether an app may publish what the bus will carry, where so many bytes wait for it, the first of them for `age`; `waiting` tells
    /// app and bytes of each, and is asked now and then while the wait is long. What may be waiting of an app is an equal part of all that
    /// waits, half of it at most, and less the longer the wait is.
    pub fn admits<'a, W>(
        &mut self,
        now: Duration,
        app: &str,
        bytes: u64,
        age: Duration,
        waiting: impl FnOnce() -> W,
    ) -> bool
    where
        W: Iterator<Item = (&'a str, usize)>,
    {
        let wait = self.wait(now, bytes, age);
        if self.wants_count(now, wait) {
            self.waiting = Waiting { counted_at: Some(now), ..Waiting::default() };
            waiting().for_each(|(app, bytes)| self.waiting.add(app, bytes));
        }
        self.has_room(app, wait)
    }

    /// How long one waits that is published now. Nothing while the bus does not move.
    fn wait(&self, now: Duration, bytes: u64, age: Duration) -> Duration {
        let is_moving = self.heard_at.is_some_and(|at| now < at + MOVING);
        let waited = if bytes > BATCHES { age } else { Duration::ZERO };
        if is_moving { waited.max(self.takes(bytes)) } else { Duration::ZERO }
    }

    fn wants_count(&self, now: Duration, wait: Duration) -> bool {
        wait > WAIT_FREE && self.waiting.counted_at.is_none_or(|at| now >= at + COUNTED_FOR)
    }

    /// Something waits from now on. Costs nothing while nobody counts.
    pub fn took(&mut self, topic: &Topic, bytes: usize) {
        if self.waiting.counted_at.is_some() {
            self.waiting.add(topic.app(), bytes);
        }
    }

    fn has_room(&self, app: &str, wait: Duration) -> bool {
        let Some(own) = self.waiting.apps.get(app).filter(|own| **own > 0 && wait > WAIT_FREE) else { return true };
        let left = WAIT_MAX.saturating_sub(wait).as_millis();
        let parts = self.waiting.apps.len().max(2) as u128;
        u128::from(*own) * parts * (WAIT_MAX - WAIT_FREE).as_millis() <= u128::from(self.waiting.all) * left
    }

    /// Forgets who waits, once that is long ago.
    pub fn sweep(&mut self, now: Duration) {
        if self.waiting.counted_at.is_some_and(|at| now >= at + COUNTED_FOR) {
            self.waiting = Waiting::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// RED-37
    #[test]
    fn in_a_second_leaves_what_may_leave_however_it_is_batched() {
        for batch in [1_000_usize, 64_000, 512_000] {
            let mut allowance = Allowance::new(1_000_000);
            let (mut left, mut longest, mut waits_since) = (0, MS(0), MS(0));
            for now in (0..10_000).map(MS) {
                while allowance.may_send(now) {
                    allowance.sent(now, batch);
                    left += batch;
                    longest = longest.max(now - waits_since);
                    waits_since = now;
                }
            }
            let may = 10_000_000 + 50_000 + batch;
            assert!((9_990_000..=may).contains(&left), "{batch}: {left}");
            assert!(
                longest <= MS(batch as u64 / 1_000 + 1),
                "{batch}: no pause is longer than it must be: {longest:?}"
            );
        }
    }

    /// RED-37
    #[test]
    fn what_is_little_never_waits() {
        let mut allowance = Allowance::new(1_000_000);
        for now in (0..10_000).step_by(2).map(MS) {
            assert!(allowance.may_send(now));
            allowance.sent(now, 1_900);
        }
    }

    /// RED-37
    #[test]
    fn a_wait_is_what_has_been_waited_or_what_all_that_waits_will_take_and_none_while_nothing_moves() {
        let mut allowance = Allowance::new(10_000_000);
        assert_eq!(allowance.wait(MS(0), 9_000_000, MS(9_000)), MS(0), "nothing was heard yet");
        allowance.heard(MS(0));
        assert_eq!(allowance.wait(MS(499), 7_000_000, MS(100)), MS(700));
        assert_eq!(allowance.wait(MS(499), 7_000_000, MS(900)), MS(900), "the path carries less than it may");
        assert_eq!(
            allowance.wait(MS(499), 700_000, MS(900)),
            MS(70),
            "the machine stood still: the next batches take all of it"
        );
        assert_eq!(allowance.wait(MS(500), 7_000_000, MS(900)), MS(0), "nothing was heard for a while");
    }

    fn waiting(apps: &[(&str, usize)]) -> Allowance {
        let mut allowance = Allowance::new(1_000_000);
        allowance.heard(MS(0));
        assert!(allowance.admits(MS(0), "nobody", 600_000, MS(0), || apps.iter().copied()));
        allowance
    }

    /// RED-37
    #[test]
    fn the_longer_the_wait_the_less_may_be_waiting_of_an_app_and_of_whom_nothing_waits_is_accepted() {
        let allowance = waiting(&[("loud", 900), ("some", 90), ("some", 9), ("little", 1)]);
        let accepted = |ms| ["loud", "some", "little", "nobody"].map(|app| allowance.has_room(app, MS(ms)));
        assert_eq!(accepted(500), [true; 4]);
        assert_eq!(accepted(501), [false, true, true, true]);
        assert_eq!(accepted(1_900), [false, false, true, true]);
        assert_eq!(accepted(2_000), [false, false, false, true]);
        assert_eq!(accepted(9_000), [false, false, false, true]);
    }

    /// RED-37
    #[test]
    fn whoever_is_alone_has_no_more_than_waits_for_half_a_second() {
        let allowance = waiting(&[("alone", 1)]);
        assert_eq!([500, 501].map(|ms| allowance.has_room("alone", MS(ms))), [true, false]);
    }

    /// RED-37: whatever they publish, and however many they are.
    #[test]
    fn nobody_waits_for_much_longer_than_is_allowed() {
        for apps in [1_usize, 2, 3, 20] {
            let topics: Vec<Topic> = (0..apps).filter_map(|app| Topic::parse(&format!("{app}:room"))).collect();
            let (mut allowance, mut lane) = (Allowance::new(1_000_000), std::collections::VecDeque::new());
            let (mut bytes, mut longest) = (0_u64, MS(0));
            for now in (0..20_000).map(MS) {
                // Together they publish ten times of what leaves.
                for topic in &topics {
                    let age = lane.front().map_or(MS(0), |(_, since, _)| now - *since);
                    let waiting = || lane.iter().map(|(topic, _, bytes): &(&Topic, _, usize)| (topic.app(), *bytes));
                    if allowance.admits(now, topic.app(), bytes, age, waiting) {
                        let size = 10_000 / apps;
                        allowance.took(topic, size);
                        lane.push_back((topic, now, size));
                        bytes += size as u64;
                    }
                }
                while let Some((_, since, size)) = lane.front().copied().filter(|_| allowance.may_send(now)) {
                    longest = longest.max(now - since);
                    lane.pop_front();
                    bytes -= size as u64;
                    allowance.sent(now, size);
                    allowance.heard(now);
                }
            }
            assert!((MS(400)..MS(2_200)).contains(&longest), "{apps}: {longest:?}");
        }
    }

    /// RED-37
    #[test]
    fn no_sum_is_too_large_and_what_is_long_ago_is_forgotten() {
        let mut allowance = Allowance::new(u64::MAX);
        allowance.heard(MS(0));
        assert!(!allowance.admits(MS(0), "1", u64::MAX, MS(600), || [("1", usize::MAX >> 1)].into_iter()));
        allowance.sent(MS(0), usize::MAX >> 1);
        assert!(allowance.may_send(MS(500)));
        allowance.sweep(MS(50));
        assert!(allowance.has_room("1", MS(600)));
        let mut slow = Allowance::new(1);
        slow.sent(MS(0), usize::MAX >> 1);
        assert!(!slow.may_send(MS(0)));
    }
}
