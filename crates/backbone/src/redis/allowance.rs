//! How much of the bus one node takes for one group, and how much of that one app (rule 22).
//!
//! The bus runs over servers that have other things to do, those of healthy groups among them. Bytes beyond what it may carry in a
//! second wait in the lane, in their order, with all that follows. So that one app does not make all others wait, an app that has had
//! more than its share of a second while the bus is behind is refused what it publishes next. Pure.

use std::time::Duration;

use fulmar_protocol::app::AppId;
use hashbrown::HashMap;

/// So far ahead of its pace the bus may be: small batches leave as they come.
const AHEAD_MAX: Duration = Duration::from_millis(50);
/// How long the next publication must have waited for the bus to be behind.
const BEHIND: Duration = Duration::from_millis(100);
/// So much of its share an app may take at once.
const APP_AHEAD_MAX: Duration = Duration::from_secs(1);

/// What may go over the bus now, and of whom.
#[derive(Debug)]
pub struct Allowance {
    bytes_per_s: u64,
    app_bytes_per_s: u64,
    /// When what has left would have left at its pace.
    left_until: Duration,
    /// Likewise of what each app published since the bus is in use.
    apps: HashMap<AppId, Duration>,
}

impl Allowance {
    /// Of `bytes_per_s`, one app has `app_percent`.
    #[must_use]
    pub fn new(bytes_per_s: u64, app_percent: u64) -> Self {
        let app_bytes_per_s =
            u64::try_from(u128::from(bytes_per_s) * u128::from(app_percent) / 100).unwrap_or(u64::MAX);
        let (left_until, apps) = Default::default();
        Self { bytes_per_s, app_bytes_per_s, left_until, apps }
    }

    /// Whether a batch may leave.
    #[must_use]
    pub fn may_send(&self, now: Duration) -> bool {
        self.left_until <= now + AHEAD_MAX
    }

    /// A batch has left. However large it was, what follows waits the longer.
    pub fn sent(&mut self, now: Duration, bytes: usize) {
        self.left_until = self.left_until.max(now) + takes(bytes, self.bytes_per_s);
    }

    /// Whether the app may publish something that will take the bus, where the next publication has waited for `waits`.
    #[must_use]
    pub fn has_room(&self, now: Duration, app: &AppId, waits: Duration) -> bool {
        waits < BEHIND || self.apps.get(app).is_none_or(|until| *until <= now + APP_AHEAD_MAX)
    }

    /// The app published something that will take the bus.
    pub fn took(&mut self, now: Duration, app: &AppId, bytes: usize) {
        let takes = takes(bytes, self.app_bytes_per_s);
        match self.apps.get_mut(app) {
            Some(until) => *until = (*until).max(now) + takes,
            None => drop(self.apps.insert(app.clone(), now + takes)),
        }
    }

    /// Forgets the apps that have had no more than they may.
    pub fn sweep(&mut self, now: Duration) {
        self.apps.retain(|_, until| *until > now);
    }
}

/// How long so many bytes take.
fn takes(bytes: usize, per_s: u64) -> Duration {
    let nanos = (bytes as u128).saturating_mul(1_000_000_000) / u128::from(per_s.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// RED-37
    #[test]
    fn in_a_second_leaves_what_may_leave_however_it_is_batched() {
        for batch in [1_000_usize, 64_000, 512_000] {
            let mut allowance = Allowance::new(1_000_000, 50);
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
        let mut allowance = Allowance::new(1_000_000, 50);
        for now in (0..10_000).step_by(2).map(MS) {
            assert!(allowance.may_send(now));
            allowance.sent(now, 1_900);
        }
    }

    /// RED-37
    #[test]
    fn who_has_had_its_share_is_refused_only_while_others_wait_and_nobody_else_is() {
        let (loud, quiet) = (AppId::new("loud"), AppId::new("quiet"));
        let mut allowance = Allowance::new(1_000_000, 50);
        allowance.took(MS(0), &loud, 500_000);
        assert!(allowance.has_room(MS(0), &loud, MS(500)), "a second's share is its own");
        allowance.took(MS(0), &loud, 500);
        assert!(!allowance.has_room(MS(0), &loud, MS(100)));
        assert!(allowance.has_room(MS(0), &loud, MS(99)), "the bus keeps up");
        assert!(allowance.has_room(MS(0), &quiet, MS(3_000)));
        assert!(allowance.has_room(MS(1), &loud, MS(100)), "what it has had is paid for with time");
    }

    /// RED-37
    #[test]
    fn only_those_are_remembered_who_are_ahead_of_their_share() {
        let mut allowance = Allowance::new(1_000_000, 50);
        for app in 0..100_u64 {
            allowance.took(MS(0), &AppId::new(&app.to_string()), 500);
        }
        allowance.took(MS(0), &AppId::new("loud"), 900_000);
        allowance.sweep(MS(1));
        assert_eq!(allowance.apps.len(), 1);
        allowance.sweep(MS(1_800));
        assert!(allowance.apps.is_empty());
    }

    /// RED-37
    #[test]
    fn no_sum_is_too_large() {
        let mut allowance = Allowance::new(u64::MAX, 100);
        allowance.took(MS(0), &AppId::new("1"), usize::MAX >> 1);
        allowance.sent(MS(0), usize::MAX >> 1);
        assert!(allowance.may_send(MS(500)));
        let mut slow = Allowance::new(1, 1);
        slow.sent(MS(0), usize::MAX >> 1);
        assert!(!slow.may_send(MS(0)));
    }
}
