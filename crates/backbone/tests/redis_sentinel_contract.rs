//! The Redis backbone keeps every promise of the suite over two groups of a primary and a replica under Sentinels.
//!
//! Every case gets a deployment of its own on the same servers.

mod nodes;

use std::sync::OnceLock;

use fulmar_backbone::contract::{Fixture, Outage, run_clause};
use fulmar_backbone::redis::settings::Topology;
use fulmar_rig::{SentinelDeployment, SentinelOptions};

const GROUPS: [&str; 2] = ["g1", "g2"];

/// The servers of this process; `None`, said loudly, where there is no program for one.
fn servers() -> Option<&'static SentinelDeployment> {
    static SERVERS: OnceLock<Option<SentinelDeployment>> = OnceLock::new();
    // On a busy machine a healthy server may be silent for a while, and nothing is to fail over here.
    SERVERS.get_or_init(|| start(30_000)).as_ref()
}

/// Others, of which some are stopped now and then.
fn servers_for_outages() -> Option<&'static SentinelDeployment> {
    static SERVERS: OnceLock<Option<SentinelDeployment>> = OnceLock::new();
    // A primary that hangs is to be gone round, and not to be succeeded.
    SERVERS.get_or_init(|| start(600_000)).as_ref()
}

fn start(down_after_ms: u64) -> Option<SentinelDeployment> {
    if !fulmar_rig::is_available() {
        eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
        return None;
    }
    let options = SentinelOptions { down_after_ms, ..SentinelOptions::default() };
    Some(SentinelDeployment::start(&GROUPS.map(|group| (group, 1)), 3, &options).expect("the servers start"))
}

fn topology(servers: &SentinelDeployment) -> Topology {
    let sentinels = servers.sentinels().iter().map(|sentinel| sentinel.redis.addr().to_string()).collect();
    Topology::Sentinel { sentinels, groups: GROUPS.map(str::to_owned).into() }
}

fn fixture() -> Fixture {
    let servers = servers().expect("whoever asks has looked whether there are some");
    let settings = nodes::settings(topology(servers));
    nodes::fixture(&settings, Outage::never(), |node| nodes::hears_all(node, GROUPS.len()))
}

/// One in whose outages the primaries of both groups hang. Their replicas carry what is published meanwhile.
fn fixture_for_outages() -> Fixture {
    let servers = servers_for_outages().expect("whoever asks has looked whether there are some");
    servers.await_whole().expect("the servers recover from the outage before");
    let set_away = |is_away| {
        for group in GROUPS {
            let primary = &servers.primary_of(group).expect("nothing fails over").redis;
            if is_away { primary.stop() } else { primary.resume() }
        }
    };
    let outage = Outage { set_away: Box::new(set_away), has_detour: true, patience: nodes::PATIENCE_WITH_OUTAGES };
    let settings = nodes::settings_for_outages(topology(servers));
    nodes::fixture(&settings, outage, |node| nodes::hears_all(node, GROUPS.len()))
}

/// Checks these clauses, if there are servers.
fn check(clauses: &[&str]) {
    if servers().is_some() {
        clauses.iter().for_each(|clause| run_clause(clause, fixture));
    }
}

/// Checks clauses about outages, likewise.
fn check_outages(clauses: &[&str]) {
    if servers_for_outages().is_some() {
        clauses.iter().for_each(|clause| run_clause(clause, fixture_for_outages));
    }
}

keeps_the_suite!(check, check_outages);
