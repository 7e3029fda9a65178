//! The Redis backbone keeps every promise of the suite over two groups of a primary and a replica under Sentinels.
//!
//! Every case gets a deployment of its own on the same servers.

mod nodes;

use std::sync::OnceLock;

use fulmar_backbone::contract::{Fixture, run_clause};
use fulmar_backbone::redis::settings::Topology;
use fulmar_rig::{SentinelDeployment, SentinelOptions};

const GROUPS: [&str; 2] = ["g1", "g2"];

/// The servers of this process; `None`, said loudly, where there is no program for one.
fn servers() -> Option<&'static SentinelDeployment> {
    static SERVERS: OnceLock<Option<SentinelDeployment>> = OnceLock::new();
    let servers = SERVERS.get_or_init(|| {
        if !fulmar_rig::is_available() {
            eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
            return None;
        }
        // On a busy machine a healthy server may be silent for a while, and nothing is to fail over here.
        let options = SentinelOptions { down_after_ms: 30_000, ..SentinelOptions::default() };
        Some(SentinelDeployment::start(&GROUPS.map(|group| (group, 1)), 3, &options).expect("the servers start"))
    });
    servers.as_ref()
}

fn fixture() -> Fixture {
    let servers = servers().expect("whoever asks has looked whether there are some");
    let sentinels = servers.sentinels().iter().map(|sentinel| sentinel.redis.addr().to_string()).collect();
    let groups = GROUPS.map(str::to_owned).into();
    nodes::fixture(&nodes::settings(Topology::Sentinel { sentinels, groups }), |node| {
        let figures = node.figures();
        figures.groups.len() == GROUPS.len() && figures.groups.iter().all(|group| group.hears && !group.over_the_bus)
    })
}

/// Checks these clauses, if there are servers.
fn check(clauses: &[&str]) {
    if servers().is_some() {
        clauses.iter().for_each(|clause| run_clause(clause, fixture));
    }
}

keeps_the_suite!(check);
