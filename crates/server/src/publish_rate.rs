//! Whether one more call may publish, by how many events per second its app may publish over all nodes.
//!
//! Pure: time is an argument, and so is how many nodes divide the limit. Each app has a bucket that holds what may be published in a
//! second and is refilled evenly. A call takes as much as it publishes, or nothing. One that is larger than the bucket goes when
//! the bucket is full and leaves a debt: it is not refused for ever, and the rate holds all the same. (The engine's bucket of a
//! connection knows neither debts nor parts of an event, and is much smaller for that.)

use fulmar_protocol::app::AppId;
use hashbrown::HashMap;

/// One event, as levels count it: a thousandth of an event per second makes one of these in each millisecond.
const EVENT: i64 = 1_000_000;

/// Buckets up to which nobody looks for full ones.
const ROOM_MIN: usize = 64;

/// What one node may admit of an app: thousandths of an event per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// Of `max` events per second that so many nodes divide. Never less than one event per second, because a node that refuses
    /// everything helps nobody: nodes that are more than `max` admit one each, and so more than `max` together.
    #[must_use]
    pub fn of(max: u32, nodes: u64) -> Self {
        Self((u64::from(max) * 1_000 / nodes.max(1)).max(1_000))
    }

    /// Level of a full bucket: what comes in a second.
    fn full(self) -> i64 {
        clamped(self.0.saturating_mul(1_000))
    }
}

/// The buckets of those apps that published of late. One that is full says nothing that its absence does not, and is dropped,
/// so that there are at most twice as many as are not full, and a few.
#[derive(Debug, Default)]
pub struct Buckets {
    by_app: HashMap<AppId, Bucket>,
    /// As many may be there before full ones are looked for.
    room: usize,
}

impl Buckets {
    /// Takes so many events, at least one, or nothing; answers which. The share may differ from call to call: limits are
    /// reloaded, and nodes come and go.
    pub fn take(&mut self, app: &AppId, share: Share, events: usize, now_ms: u64) -> bool {
        if !self.by_app.contains_key(app) {
            self.drop_full(now_ms);
        }
        let bucket = self.by_app.entry(app.clone()).or_insert_with(|| Bucket::full(share, now_ms));
        bucket.refill(share, now_ms);
        bucket.take(events)
    }

    /// Puts back what was taken by a call that surely published nothing.
    pub fn give_back(&mut self, app: &AppId, events: usize) {
        // One that is not there any more was full.
        if let Some(bucket) = self.by_app.get_mut(app) {
            bucket.level = bucket.level.saturating_add(weight(events));
        }
    }

    fn drop_full(&mut self, now_ms: u64) {
        if self.by_app.len() >= self.room {
            self.by_app.retain(|_, bucket| !bucket.is_full(now_ms));
            self.room = (2 * self.by_app.len()).max(ROOM_MIN);
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Parts of an [`EVENT`]; below zero after a call that was larger than the bucket.
    level: i64,
    share: Share,
    filled_ms: u64,
}

impl Bucket {
    fn full(share: Share, now_ms: u64) -> Self {
        Self { level: share.full(), share, filled_ms: now_ms }
    }

    /// What the share is now counts for all the time since the last call: whatever it was meanwhile, nobody asked.
    fn refill(&mut self, share: Share, now_ms: u64) {
        self.level = self.level_at(share, now_ms);
        self.share = share;
        // Threads read the clock before they come here, and may come in another order.
        self.filled_ms = self.filled_ms.max(now_ms);
    }

    fn level_at(&self, share: Share, now_ms: u64) -> i64 {
        let passed_ms = now_ms.saturating_sub(self.filled_ms);
        self.level.saturating_add(clamped(passed_ms.saturating_mul(share.0))).min(share.full())
    }

    fn is_full(&self, now_ms: u64) -> bool {
        self.level_at(self.share, now_ms) == self.share.full()
    }

    fn take(&mut self, events: usize) -> bool {
        let weight = weight(events);
        let fits = self.level >= weight.min(self.share.full());
        if fits {
            self.level = self.level.saturating_sub(weight);
        }
        fits
    }
}

fn weight(events: usize) -> i64 {
    i64::try_from(events).unwrap_or(i64::MAX).saturating_mul(EVENT)
}

fn clamped(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> AppId {
        AppId::new("1")
    }

    /// How many calls of one event pass at that moment.
    fn passing(buckets: &mut Buckets, share: Share, now_ms: u64) -> usize {
        (0..1_000).take_while(|_| buckets.take(&app(), share, 1, now_ms)).count()
    }

    /// HTTP-71
    #[test]
    fn a_second_s_events_may_go_at_once_and_come_back_evenly_and_no_faster() {
        let (mut buckets, share) = (Buckets::default(), Share::of(10, 1));
        assert_eq!(passing(&mut buckets, share, 5_000), 10);
        assert_eq!([5_099, 5_100, 5_101, 5_399].map(|now_ms| passing(&mut buckets, share, now_ms)), [0, 1, 0, 2]);
        assert_eq!(passing(&mut buckets, share, 60_000), 10, "silence saves nothing up");
        let calls = (60_001..=70_000).map(|now_ms| passing(&mut buckets, share, now_ms)).sum::<usize>();
        assert_eq!(calls, 100);
    }

    /// HTTP-71
    #[test]
    fn a_call_takes_all_it_publishes_or_nothing() {
        let (mut buckets, share) = (Buckets::default(), Share::of(10, 1));
        assert!(buckets.take(&app(), share, 7, 0) && !buckets.take(&app(), share, 4, 0));
        assert!(buckets.take(&app(), share, 3, 0), "what was refused took nothing");
        assert!(!buckets.take(&app(), share, 4, 399) && buckets.take(&app(), share, 4, 400));
    }

    /// HTTP-71
    #[test]
    fn a_call_that_is_larger_than_the_bucket_goes_when_that_is_full_and_leaves_a_debt() {
        let (mut buckets, share) = (Buckets::default(), Share::of(10, 1));
        assert!(buckets.take(&app(), share, 1, 0));
        assert!(!buckets.take(&app(), share, 25, 99) && buckets.take(&app(), share, 25, 100));
        assert!(!buckets.take(&app(), share, 1, 1_699) && buckets.take(&app(), share, 1, 1_700), "15 are owed, and 1");
        // However large calls are, the rate holds.
        let events = (2_000..102_000).filter(|now_ms| buckets.take(&app(), share, 25, *now_ms)).count() * 25;
        assert!((950..=1_025).contains(&events), "{events} in 100 s");
    }

    /// HTTP-71
    #[test]
    fn what_published_nothing_is_given_back_and_makes_no_bucket_fuller_than_full() {
        let (mut buckets, share) = (Buckets::default(), Share::of(10, 1));
        assert!(buckets.take(&app(), share, 100, 0) && !buckets.take(&app(), share, 1, 0));
        buckets.give_back(&app(), 100);
        assert_eq!(passing(&mut buckets, share, 0), 10);
        buckets.give_back(&app(), 100);
        assert_eq!(passing(&mut buckets, share, 0), 10);
        buckets.give_back(&AppId::new("of whom nothing is known"), 1);
    }

    /// HTTP-71
    #[test]
    fn apps_take_nothing_from_each_other() {
        let (mut buckets, share) = (Buckets::default(), Share::of(10, 1));
        assert!(buckets.take(&AppId::new("other"), share, 1_000, 0));
        assert_eq!(passing(&mut buckets, share, 0), 10);
    }

    /// NODE-22
    #[test]
    fn nodes_divide_a_limit_to_the_thousandth_and_each_admits_one_a_second_at_least() {
        let per_minute = |max, nodes| {
            let (mut buckets, share) = (Buckets::default(), Share::of(max, nodes));
            (1..=60_000).map(|now_ms| passing(&mut buckets, share, now_ms)).sum::<usize>()
        };
        assert_eq!([per_minute(10, 1), per_minute(10, 2), per_minute(10, 3)], [609, 304, 203]);
        assert_eq!([per_minute(3, 3), per_minute(2, 3), per_minute(1, 100)], [60; 3]);
        assert_eq!(Share::of(10, 0), Share::of(10, 1), "whoever asks is one");
    }

    /// NODE-22, HTTP-71
    #[test]
    fn another_share_holds_from_the_next_call_on() {
        let mut buckets = Buckets::default();
        assert_eq!(passing(&mut buckets, Share::of(12, 3), 0), 4);
        assert_eq!(passing(&mut buckets, Share::of(12, 3), 500), 2);
        assert_eq!(passing(&mut buckets, Share::of(12, 2), 1_000), 3, "a node went");
        assert_eq!(passing(&mut buckets, Share::of(12, 2), 9_000), 6);
        assert_eq!(passing(&mut buckets, Share::of(12, 4), 19_000), 3, "and two came");
        assert_eq!(passing(&mut buckets, Share::of(u32::MAX, 1), 19_000), 0);
        assert_eq!(passing(&mut buckets, Share::of(u32::MAX, 1), u64::MAX), 1_000, "no number is too large");
    }

    /// HTTP-71
    #[test]
    fn a_clock_that_is_read_before_another_call_s_refills_nothing_twice() {
        let (mut buckets, share) = (Buckets::default(), Share::of(10, 1));
        assert_eq!(passing(&mut buckets, share, 2_000), 10);
        assert_eq!([2_100, 2_000, 2_100].map(|now_ms| passing(&mut buckets, share, now_ms)), [1, 0, 0]);
    }

    /// HTTP-71
    #[test]
    fn buckets_that_are_full_again_are_dropped() {
        let (mut buckets, share) = (Buckets::default(), Share::of(1, 1));
        let owing = AppId::new("owing");
        assert!(buckets.take(&owing, share, 1_000_000, 0));
        for n in 0..10_000 {
            // Each is full again 40 others later.
            assert!(buckets.take(&AppId::new(&n.to_string()), share, 1, n * 25));
            assert!(buckets.by_app.len() <= 128, "{}", buckets.by_app.len());
        }
        assert!(!buckets.take(&owing, share, 1, 250_000), "debts are not forgotten");
    }
}
