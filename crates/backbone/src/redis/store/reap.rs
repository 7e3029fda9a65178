//! Who is dead, as far as one group can tell (rules 25 and 28).
//!
//! Silence of the store is never silence of a node: a lease counts as unchanged only while this group was answering us, and
//! nobody is judged before the group has been doing so, without a change of primary or epoch, for a lease and two seconds.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::NodeSeen;

/// What a group must add to a lease before it may show that one has lapsed: time for the others to attach and to renew.
const GRACE: Duration = Duration::from_secs(2);
/// Looks further apart than this are no continuous look: we, or the group, may have stood still in between.
const GAP_MAX: Duration = Duration::from_millis(3_500);

/// What was seen of the leases.
#[derive(Debug, Default)]
pub struct Leases {
    /// Since when the group has been answering without a change; `None` before it has.
    stable_since: Option<Instant>,
    looked_at: Option<Instant>,
    seen: HashMap<String, (String, Instant)>,
}

impl Leases {
    /// The group has returned, or changed its primary or epoch: everybody has all the time of a lease again.
    pub fn start_over(&mut self) {
        *self = Self::default();
    }

    /// Takes in all leases as the group showed them.
    pub fn look(&mut self, now: Instant, leases: Vec<(String, String)>) {
        let is_continuous = self.looked_at.is_some_and(|at| now.saturating_duration_since(at) <= GAP_MAX);
        if !is_continuous {
            self.stable_since = Some(now);
            self.seen.clear();
        }
        self.looked_at = Some(now);
        let mut before = std::mem::take(&mut self.seen);
        for (name, lease) in leases {
            let since = before.remove(&name).filter(|(text, _)| *text == lease).map_or(now, |(_, since)| since);
            self.seen.insert(name, (lease, since));
        }
    }

    /// Whether the node has a lease, lapsed or not.
    pub fn has(&self, node: &str) -> bool {
        self.seen.contains_key(node)
    }

    /// The lease of a node, as it was seen last.
    pub fn text(&self, node: &str) -> Option<&str> {
        self.seen.get(node).map(|(text, _)| text.as_str())
    }

    /// How many nodes there are.
    pub fn count(&self) -> usize {
        self.seen.len()
    }

    /// For how long the group has been answering without a change.
    pub fn stable_for(&self, now: Instant) -> Duration {
        self.stable_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// All nodes.
    pub fn nodes(&self, now: Instant) -> Vec<NodeSeen> {
        let mut nodes: Vec<NodeSeen> = self
            .seen
            .iter()
            .map(|(name, (lease, since))| NodeSeen {
                name: name.clone(),
                lease: lease.clone(),
                unchanged_for: now.saturating_duration_since(*since),
            })
            .collect();
        nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        nodes
    }

    /// Nodes whose leases have lapsed here, `own` excepted.
    pub fn lapsed(&self, now: Instant, own: &str, lease: Duration) -> Vec<String> {
        // A look that is old says nothing about now: the group may have stopped answering.
        let is_fresh = self.looked_at.is_some_and(|at| now.saturating_duration_since(at) <= GAP_MAX);
        if !is_fresh || self.stable_for(now) < lease + GRACE {
            return Vec::new();
        }
        let mut lapsed: Vec<String> = self
            .nodes(now)
            .into_iter()
            .filter(|node| node.name != own && node.unchanged_for >= lease)
            .map(|node| node.name)
            .collect();
        lapsed.sort_unstable();
        lapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(7);

    fn look(leases: &mut Leases, now: Instant, ana: u64, bob: u64) {
        leases.look(now, vec![("ana".to_owned(), ana.to_string()), ("bob".to_owned(), bob.to_string())]);
    }

    /// Seconds, once a second, in which `ana` renews and `bob` does not; the second in which bob is first called dead.
    fn seconds_until_bob_is_dead(leases: &mut Leases, from: Instant) -> Option<u64> {
        for second in 0..30 {
            let now = from + Duration::from_secs(second);
            look(leases, now, second, 0);
            let lapsed = leases.lapsed(now, "ana", LEASE);
            if !lapsed.is_empty() {
                assert_eq!(lapsed, ["bob"]);
                return Some(second);
            }
        }
        None
    }

    /// RED-28
    #[test]
    fn a_lease_that_did_not_change_for_seven_seconds_has_lapsed() {
        let mut leases = Leases::default();
        let start = Instant::now();
        for second in 0..20 {
            look(&mut leases, start + Duration::from_secs(second), second, second);
            assert!(leases.lapsed(start + Duration::from_secs(second), "ana", LEASE).is_empty());
        }
        assert_eq!(seconds_until_bob_is_dead(&mut leases, start + Duration::from_secs(20)), Some(7));
    }

    /// RED-28
    #[test]
    fn nobody_is_called_dead_within_a_lease_and_two_seconds_after_the_group_returned() {
        let mut leases = Leases::default();
        let start = Instant::now();
        assert_eq!(seconds_until_bob_is_dead(&mut leases, start), Some(9));
        leases.start_over();
        assert!(leases.lapsed(start + Duration::from_secs(9), "ana", LEASE).is_empty());
        assert_eq!(seconds_until_bob_is_dead(&mut leases, start + Duration::from_secs(9)), Some(9));
    }

    /// RED-28: we may have been stopped for a minute ourselves.
    #[test]
    fn a_gap_between_looks_counts_for_nobody() {
        let mut leases = Leases::default();
        let start = Instant::now();
        for second in 0..15 {
            look(&mut leases, start + Duration::from_secs(second), second, second);
        }
        let later = start + Duration::from_secs(90);
        assert!(leases.lapsed(later, "ana", LEASE).is_empty(), "the last look is too old");
        assert_eq!(seconds_until_bob_is_dead(&mut leases, later), Some(9));
    }
}
