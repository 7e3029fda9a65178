//! Whether one more connection of an app fits, over all nodes; and how many of these divide what an app may publish.
//!
//! Pure: time and leases are arguments. SDKs stop for good on 4004, so it is said only when every node that counts has spoken
//! since the app was full and none has gone of late; while that is not known, 4100 is, and they come back.

use std::collections::HashMap;

use fulmar_backbone::redis::lease::Lease;
use fulmar_protocol::app::AppId;

/// A node that was not seen to renew its lease for longer does not count: two seconds, and what a renewal takes to be seen,
/// since leases are read once a second and looked at four times. With less, two nodes whose seconds happen to meet would lose
/// sight of each other now and then, and the app that is full for certain would never be known to be.
const RENEWED_WITHIN_MS: u64 = 2_000 + 1_250;
/// How long after a node went, or was not seen, nobody is told 4004.
const CALM_AFTER_MS: u64 = 15_000;
/// What was seen so much later than something happened was also said later: leases are written and read once a second.
const SEEN_WITHIN_MS: u64 = 1_500;

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSeat {
    /// The app has as many connections as it may have, for certain: 4004.
    OverQuota,
    /// It seems so: 4100.
    Later,
}

/// What a decision is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The app's limit.
    pub max: u32,
    /// Its connections on this node, without the newcomer.
    pub own: u32,
    /// Its connections on other nodes.
    pub others: u64,
    /// No node went, or was not to be seen, for a while.
    pub is_calm: bool,
    /// Every node that is counted has spoken since the app was first found full.
    pub is_confirmed: bool,
}

/// Decides about one newcomer.
///
/// # Errors
/// When it has to go.
pub fn admit(facts: Facts) -> Result<(), NoSeat> {
    let Facts { max, own, others, is_calm, is_confirmed } = facts;
    let (max, all) = (u64::from(max), u64::from(own).saturating_add(others));
    match all {
        _ if all < max => Ok(()),
        _ if is_calm && is_confirmed => Err(NoSeat::OverQuota),
        _ if all < max + max / 10 => Ok(()),
        _ => Err(NoSeat::Later),
    }
}

/// What this node sees of the others at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    others: HashMap<String, u64>,
    /// Other nodes that take REST calls.
    other_publishers: u64,
    is_calm: bool,
    /// When each node that is counted had been seen to renew, at least.
    all_renewed_ms: u64,
}

impl Sight {
    /// Of a node that is the whole deployment.
    #[must_use]
    pub fn alone() -> Self {
        Self { is_calm: true, all_renewed_ms: u64::MAX, ..Self::default() }
    }

    /// Connections of an app on the other nodes.
    #[must_use]
    pub fn others(&self, app: &AppId) -> u64 {
        self.others.get(app.as_str()).copied().unwrap_or(0)
    }

    /// Nodes that take REST calls, and so divide what apps may publish: this one, which takes those that it asks for, and those others
    /// that are seen.
    #[must_use]
    pub fn publishers(&self) -> u64 {
        self.other_publishers.saturating_add(1)
    }

    /// The facts about an app that has been full since a moment, if it has.
    #[must_use]
    pub fn facts(&self, app: &AppId, max: u32, own: u32, full_since_ms: u64) -> Facts {
        let is_confirmed = self.all_renewed_ms > full_since_ms.saturating_add(SEEN_WITHIN_MS);
        Facts { max, own, others: self.others(app), is_calm: self.is_calm, is_confirmed }
    }
}

/// Follows the leases of all nodes.
#[derive(Debug)]
pub struct Census {
    own: String,
    nodes: HashMap<String, Node>,
    disturbed_ms: u64,
}

#[derive(Debug)]
struct Node {
    counter: u64,
    renewed_ms: u64,
    connections: Vec<(String, u64)>,
    takes_calls: bool,
}

impl Census {
    /// Of a node that starts now and cannot know who went just before.
    #[must_use]
    pub fn new(own: &str, now_ms: u64) -> Self {
        Self { own: own.to_owned(), nodes: HashMap::new(), disturbed_ms: now_ms }
    }

    /// Looks at the leases of this moment; to be done several times a second.
    pub fn look(&mut self, now_ms: u64, leases: &[Lease]) -> Sight {
        let before = self.nodes.len();
        self.nodes.retain(|name, _| leases.iter().any(|lease| lease.node == *name));
        let has_gone = self.nodes.len() < before;
        for lease in leases {
            let known = self.nodes.get(&lease.node);
            if known.is_none_or(|known| known.counter != lease.counter) {
                let connections = lease.connections.clone();
                let takes_calls = lease.roles.rest;
                let node = Node { counter: lease.counter, renewed_ms: now_ms, connections, takes_calls };
                self.nodes.insert(lease.node.clone(), node);
            }
        }
        let is_fresh = |node: &Node| now_ms.saturating_sub(node.renewed_ms) <= RENEWED_WITHIN_MS;
        // Whoever does not see itself sees nobody: then what was known last is the best there is.
        let is_blind = !self.nodes.get(&self.own).is_some_and(is_fresh);
        let mut sight = Sight { all_renewed_ms: u64::MAX, ..Sight::default() };
        let mut is_missing = false;
        for node in self.nodes.iter().filter(|(name, _)| **name != self.own).map(|(_, node)| node) {
            is_missing |= !is_fresh(node);
            if is_fresh(node) || is_blind {
                sight.all_renewed_ms = sight.all_renewed_ms.min(node.renewed_ms);
                sight.other_publishers += u64::from(node.takes_calls);
                for (app, count) in &node.connections {
                    let all = sight.others.entry(app.clone()).or_default();
                    *all = all.saturating_add(*count);
                }
            }
        }
        if has_gone || is_blind || is_missing {
            self.disturbed_ms = now_ms;
        }
        sight.is_calm = now_ms.saturating_sub(self.disturbed_ms) >= CALM_AFTER_MS;
        sight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NODE-20, NODE-21
    #[test]
    fn a_newcomer_is_told_4004_only_when_it_is_certain() {
        use NoSeat::{Later, OverQuota};
        let table = [
            // own, others, calm, confirmed
            (0, 0, false, false, Ok(())),
            (40, 59, true, true, Ok(())),
            (40, 60, true, true, Err(OverQuota)),
            (100, 0, true, true, Err(OverQuota)),
            (40, 60, true, false, Ok(())),
            (40, 60, false, true, Ok(())),
            (40, 69, false, false, Ok(())),
            (40, 70, false, true, Err(Later)),
            (40, 70, true, false, Err(Later)),
            (40, u64::MAX, true, true, Err(OverQuota)),
        ];
        for (own, others, is_calm, is_confirmed, expected) in table {
            let facts = Facts { max: 100, own, others, is_calm, is_confirmed };
            assert_eq!(admit(facts), expected, "{facts:?}");
        }
        let small = Facts { max: 9, own: 9, others: 0, is_calm: false, is_confirmed: false };
        assert_eq!(admit(small), Err(Later), "a tenth of less than ten is none");
    }

    fn lease(node: &str, counter: u64, connections: u64) -> Lease {
        Lease { node: node.into(), counter, connections: vec![("a".into(), connections)], ..Lease::default() }
    }

    /// Three nodes that renew once a second from 0 s on, looked at four times a second from `from_ms` until `until_ms`.
    fn watch(census: &mut Census, from_ms: u64, until_ms: u64, nodes: &[(&str, u64)]) -> Sight {
        let mut sight = Sight::default();
        for now_ms in (from_ms..=until_ms).step_by(250) {
            let leases: Vec<Lease> = nodes.iter().map(|(node, count)| lease(node, now_ms / 1_000, *count)).collect();
            sight = census.look(now_ms, &leases);
        }
        sight
    }

    /// NODE-21: each node is read just before it renews, and a renewal that is a moment late is seen a second later.
    #[test]
    fn nodes_whose_seconds_meet_do_not_lose_sight_of_each_other() {
        let mut census = Census::new("own", 0);
        let mut counter = 0;
        let mut sight = Sight::default();
        for now_ms in (0..20_000).step_by(250) {
            // What is seen of the other lies that far apart at worst: two seconds missed by a moment, and a look late.
            if now_ms % 2_750 == 0 {
                counter += 1;
            }
            sight = census.look(now_ms + 100, &[lease("own", now_ms / 1_000, 30), lease("b", counter, 31)]);
        }
        assert!(sight.is_calm && sight.others(&AppId::new("a")) == 31);
    }

    /// NODE-21
    #[test]
    fn a_node_counts_for_two_seconds_and_what_a_renewal_takes_to_be_seen() {
        let mut census = Census::new("own", 0);
        let mut others =
            |now_ms: u64| census.look(now_ms, &[lease("own", now_ms, 30), lease("b", 0, 31)]).others(&AppId::new("a"));
        assert_eq!([0, 3_250, 3_251].map(&mut others), [31, 31, 0]);
    }

    const ALL: [(&str, u64); 3] = [("own", 30), ("b", 31), ("c", 32)];

    /// NODE-20
    #[test]
    fn the_others_are_counted_and_this_node_s_own_lease_is_not() {
        let mut census = Census::new("own", 0);
        let app = AppId::new("a");
        assert_eq!(watch(&mut census, 0, 1_000, &ALL).others(&app), 63);
        let sight = watch(&mut census, 1_250, 15_000, &ALL);
        assert!(sight.is_calm && !watch(&mut Census::new("own", 0), 0, 14_750, &ALL).is_calm, "a start is no calm");
        assert!(sight.facts(&app, 93, 30, 13_000).is_confirmed && !sight.facts(&app, 93, 30, 14_500).is_confirmed);
        assert!(Sight::alone().facts(&app, 1, 1, 14_500).is_confirmed);
    }

    /// NODE-21: at 95% of its quota.
    #[test]
    fn sockets_of_a_killed_node_are_never_told_4004_by_the_others() {
        let mut census = Census::new("own", 0);
        let (app, max) = (AppId::new("a"), 98);
        let mut sight = watch(&mut census, 0, 60_000, &ALL);
        assert!(sight.is_calm);
        // The node c dies right after it renewed; its 32 come to the others, which know of it late.
        let (mut own, mut full_since_ms, mut counter) = (30, None, 60);
        let mut leases: Vec<Lease> = ALL.iter().map(|(node, count)| lease(node, 61, *count)).collect();
        for now_ms in (60_250..90_000).step_by(250) {
            if now_ms % 1_000 == 0 {
                counter += 1;
                leases[0].counter = counter;
                leases[1].counter = counter;
            }
            if now_ms == 67_500 {
                leases.pop();
            }
            sight = census.look(now_ms, &leases);
            if u64::from(own) + sight.others(&app) >= u64::from(max) {
                full_since_ms.get_or_insert(now_ms);
            }
            let facts = sight.facts(&app, max, own, full_since_ms.unwrap_or(now_ms));
            let verdict = admit(facts);
            assert_ne!(verdict, Err(NoSeat::OverQuota), "{now_ms} {facts:?}");
            if verdict.is_ok() && own < 62 {
                own += 1;
            }
        }
        assert_eq!(own, 62, "all of them found a place");
    }

    /// NODE-22
    #[test]
    fn what_apps_publish_is_divided_by_the_nodes_that_take_calls_and_are_seen() {
        let mut census = Census::new("own", 0);
        let sees = |census: &mut Census, now_ms, leases: &[Lease]| census.look(now_ms, leases).publishers();
        assert_eq!(Sight::alone().publishers(), 1);
        assert_eq!(sees(&mut census, 0, &[]), 1, "nothing was read yet");
        let without_calls = |counter| {
            let mut lease = lease("b", counter, 0);
            lease.roles.rest = false;
            lease
        };
        let all = |counter| [lease("own", counter, 0), without_calls(counter), lease("c", counter, 0)];
        assert_eq!(sees(&mut census, 250, &all(1)[1..]), 2, "its own lease is yet to be read");
        assert_eq!(sees(&mut census, 500, &all(1)), 2);
        let come = |counter| [all(counter).as_slice(), &[lease("d", counter, 0)]].concat();
        assert_eq!(sees(&mut census, 1_000, &come(2)), 3);
        // One node dies, and its lease stays for a while.
        let dead = |counter| [&all(counter)[..], &[lease("d", 2, 0)]].concat();
        assert_eq!(sees(&mut census, 4_250, &dead(3)), 3);
        assert_eq!(sees(&mut census, 4_251, &dead(3)), 2);
        assert_eq!(sees(&mut census, 5_000, &all(4)), 2);
        // Redis is away: nobody is to be seen, and none of them is known to be gone.
        assert_eq!(sees(&mut census, 60_000, &all(4)), 2);
        assert_eq!(sees(&mut census, 61_000, &[lease("own", 5, 0)]), 1, "one that ends takes its lease away");
    }

    /// NODE-21
    #[test]
    fn a_node_that_sees_nobody_goes_by_what_it_knew_and_says_nothing_final() {
        let mut census = Census::new("own", 0);
        let app = AppId::new("a");
        watch(&mut census, 0, 60_000, &ALL);
        let stale: Vec<Lease> = ALL.iter().map(|(node, count)| lease(node, 60, *count)).collect();
        let sight = census.look(70_000, &stale);
        assert_eq!(sight.others(&app), 63);
        assert_eq!(admit(sight.facts(&app, 93, 30, 0)), Ok(()), "a tenth above");
        assert_eq!(admit(sight.facts(&app, 93, 39, 0)), Err(NoSeat::Later));
        // One that alone is not to be seen is not counted.
        let one_stale = [lease("own", 71, 30), lease("b", 71, 31), lease("c", 60, 32)];
        assert_eq!(census.look(71_000, &one_stale).others(&app), 31);
        let sight = watch(&mut census, 72_000, 87_000, &ALL);
        assert!(sight.is_calm && sight.others(&app) == 63);
    }
}
