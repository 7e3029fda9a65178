//! Three nodes of one deployment, for suites over whatever servers: each fixture is a deployment of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fulmar_backbone::Backbone;
use fulmar_backbone::contract::{Fixture, Outage};
use fulmar_backbone::redis::RedisBackbone;
use fulmar_backbone::redis::settings::{Limits, Settings, Topology};

/// Nodes of a fixture.
const NODES: u64 = 3;

/// Longest a machine may stand still.
const BUSY: Duration = Duration::from_secs(20);

/// Longest the nodes may take to find each other.
const PATIENCE: Duration = Duration::from_secs(20);

/// The patience of cases in which servers hang for seconds, and nodes then find their way back.
pub const PATIENCE_WITH_OUTAGES: Duration = Duration::from_secs(40);

/// What the nodes of a new deployment are told when nothing is to go wrong.
pub fn settings(topology: Topology) -> Settings {
    // Servers and three nodes share a test machine with others: silence there is no sign of a lost primary, and order along a
    // channel is the log's only while the primary answers.
    let limits = Limits { breaker: BUSY, silence: BUSY, command_timeout: BUSY, ..Limits::default() };
    Settings { limits, ..settings_for_outages(topology) }
}

/// The same for outages: with the limits that everybody has, by which nodes find out and go round.
pub fn settings_for_outages(topology: Topology) -> Settings {
    static DEPLOYMENTS: AtomicU64 = AtomicU64::new(0);
    let deployment = format!("contract-{}", DEPLOYMENTS.fetch_add(1, Ordering::Relaxed));
    Settings::new(&deployment, topology)
}

/// Whether a node hears every group of a deployment that has so many, and needs no other way.
pub fn hears_all(node: &RedisBackbone, groups: usize) -> bool {
    let figures = node.figures();
    figures.groups.len() == groups && figures.groups.iter().all(|group| group.hears && !group.over_the_bus)
}

/// Three nodes that have found each other, and of which each `is_whole`.
pub fn fixture(settings: &Settings, outage: Outage, is_whole: impl Fn(&RedisBackbone) -> bool) -> Fixture {
    let nodes: Vec<Arc<RedisBackbone>> = (0..NODES)
        .map(|node| Arc::new(RedisBackbone::start(settings.clone(), 100 + node, None).expect("a node starts")))
        .collect();
    let deadline = Instant::now() + PATIENCE.max(outage.patience);
    while !nodes.iter().all(|node| node.leases().len() == nodes.len() && is_whole(node)) {
        assert!(Instant::now() < deadline, "the nodes do not find each other: {:?}", nodes[0].figures());
        std::thread::yield_now();
    }
    let nodes = nodes.into_iter().map(|node| node as Arc<dyn Backbone>).collect();
    Fixture { nodes, pass: Box::new(std::thread::sleep), waits: true, outage }
}

/// The whole suite as tests of a topology, in parts that can run side by side: `check` is given the clauses of one, and
/// `check_outages` those that need servers of their own, which are stopped.
#[macro_export]
macro_rules! keeps_the_suite {
    ($check:path, $check_outages:path) => {
        /// DEL-1
        #[test]
        fn what_is_accepted_reaches_every_subscription_once() {
            $check(&["DEL-1"]);
        }

        /// DEL-2, DEL-10, RED-3
        #[test]
        fn there_is_one_order_for_all() {
            $check(&["DEL-2", "DEL-10"]);
        }

        /// DEL-3, DEL-5
        #[test]
        fn a_join_is_exact_while_others_publish_and_come_and_go() {
            $check(&["DEL-3", "DEL-5"]);
        }

        /// DEL-4, WS-81, WS-86
        #[test]
        fn members_are_users_and_their_edges_alternate() {
            $check(&["DEL-4", "WS-81", "WS-86"]);
        }

        /// DEL-6, DEL-9
        #[test]
        fn a_call_is_accepted_as_a_whole_or_not_at_all() {
            $check(&["DEL-6", "DEL-9"]);
        }

        /// DEL-13, DEL-14, DEL-15
        #[test]
        fn state_is_true_separate_and_gone_when_nobody_needs_it() {
            $check(&["DEL-13", "DEL-14", "DEL-15"]);
        }

        /// DEL-17, DEL-18, DEL-19
        #[test]
        fn users_come_and_go_in_one_order_and_are_ended_everywhere() {
            $check(&["DEL-17", "DEL-18", "DEL-19"]);
        }

        /// WS-93, WS-94
        #[test]
        fn cached_events_are_kept_for_their_time() {
            $check(&["WS-93", "WS-94"]);
        }

        /// HTTP-36, HTTP-44
        #[test]
        fn queries_see_what_is_occupied() {
            $check(&["HTTP-36", "HTTP-44"]);
        }

        /// RED-3, RED-17, RED-21, RED-24
        #[test]
        fn an_outage_of_the_store_loses_and_doubles_nothing() {
            $check_outages(&["RED-3", "RED-17", "RED-21", "RED-24"]);
        }

        /// DEL-2
        #[test]
        fn no_case_of_the_suite_is_left_out() {
            let checked = [
                "DEL-1", "DEL-2", "DEL-10", "DEL-3", "DEL-5", "DEL-4", "WS-81", "WS-86", "DEL-6", "DEL-9", "DEL-13",
                "DEL-14", "DEL-15", "DEL-17", "DEL-18", "DEL-19", "WS-93", "WS-94", "HTTP-36", "HTTP-44", "RED-3",
                "RED-17", "RED-21", "RED-24",
            ];
            let left_out = |case: &&fulmar_backbone::contract::Case| !checked.contains(&case.clause);
            assert!(!fulmar_backbone::contract::CASES.iter().any(|case| left_out(&case)));
        }
    };
}
