//! Three nodes of one deployment, for suites over whatever servers: each fixture is a deployment of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fulmar_backbone::Backbone;
use fulmar_backbone::contract::Fixture;
use fulmar_backbone::redis::RedisBackbone;
use fulmar_backbone::redis::settings::{Limits, Settings, Topology};

/// Nodes of a fixture.
const NODES: u64 = 3;

/// Longest the nodes may take to find each other.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the nodes of a new deployment are told.
pub fn settings(topology: Topology) -> Settings {
    static DEPLOYMENTS: AtomicU64 = AtomicU64::new(0);
    let deployment = format!("contract-{}", DEPLOYMENTS.fetch_add(1, Ordering::Relaxed));
    // Servers and three nodes share a test machine with others: silence there is no sign of a lost primary, and order along a
    // channel is the log's only while the primary answers.
    let limits =
        Limits { breaker: Duration::from_millis(500), command_timeout: Duration::from_secs(2), ..Limits::default() };
    Settings { limits, ..Settings::new(&deployment, topology) }
}

/// Three nodes that have found each other, and of which each `is_whole`.
pub fn fixture(settings: &Settings, is_whole: impl Fn(&RedisBackbone) -> bool) -> Fixture {
    let nodes: Vec<Arc<RedisBackbone>> = (0..NODES)
        .map(|node| Arc::new(RedisBackbone::start(settings.clone(), 100 + node, None).expect("a node starts")))
        .collect();
    let deadline = Instant::now() + PATIENCE;
    while !nodes.iter().all(|node| node.leases().len() == nodes.len() && is_whole(node)) {
        assert!(Instant::now() < deadline, "the nodes do not find each other: {:?}", nodes[0].figures());
        std::thread::yield_now();
    }
    let nodes = nodes.into_iter().map(|node| node as Arc<dyn Backbone>).collect();
    Fixture { nodes, pass: Box::new(std::thread::sleep), waits: true }
}
