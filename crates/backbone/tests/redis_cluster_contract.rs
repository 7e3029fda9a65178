//! The Redis backbone keeps every promise of the suite over a Redis Cluster of three primaries with a replica each.
//!
//! Every case gets a deployment of its own, and so shares of its own, on the same servers. One after the other: order along
//! a channel is the log's only while a primary answers, and six servers that wait for two processors do not always.

mod nodes;

use std::sync::{Mutex, OnceLock, PoisonError};

use fulmar_backbone::contract::{Fixture, Outage, run_clause};
use fulmar_backbone::redis::keys::Keys;
use fulmar_backbone::redis::redis_cluster::slot_of;
use fulmar_backbone::redis::scripts::SEND;
use fulmar_backbone::redis::settings::Topology;
use fulmar_rig::{Redis, RedisCluster, RedisOptions};

const SHARES: u16 = 4;

/// The servers of this process; `None`, said loudly, where there is no program for one.
fn servers() -> Option<&'static RedisCluster> {
    static SERVERS: OnceLock<Option<RedisCluster>> = OnceLock::new();
    SERVERS.get_or_init(start).as_ref()
}

/// Others, of which one is stopped now and then.
fn servers_for_outages() -> Option<&'static RedisCluster> {
    static SERVERS: OnceLock<Option<RedisCluster>> = OnceLock::new();
    let servers = SERVERS.get_or_init(|| {
        let servers = start()?;
        // A primary that hangs is to be gone round, and not to be succeeded.
        for server in servers.servers() {
            server.call(&["CONFIG", "SET", "cluster-node-timeout", "600000"]).expect("a server takes it");
        }
        Some(servers)
    });
    servers.as_ref()
}

fn start() -> Option<RedisCluster> {
    if !fulmar_rig::is_available() {
        eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
        return None;
    }
    Some(RedisCluster::start(3, 1, &RedisOptions::default()).expect("the servers start"))
}

fn topology(servers: &RedisCluster) -> Topology {
    Topology::RedisCluster { seeds: vec![servers.servers()[0].addr().to_string()], shares: SHARES }
}

fn fixture() -> Fixture {
    let servers = servers().expect("whoever asks has looked whether there are some");
    let settings = nodes::settings(topology(servers));
    nodes::fixture(&settings, Outage::never(), |node| nodes::hears_all(node, SHARES.into()))
}

/// One in whose outages the primary of two shares or more hangs. The others carry what is published there meanwhile.
fn fixture_for_outages() -> Fixture {
    let servers = servers_for_outages().expect("whoever asks has looked whether there are some");
    let settings = nodes::settings_for_outages(topology(servers));
    let owner = |share| servers.owner_of(slot_of(&format!("{}.{share}", settings.deployment)).into());
    let owners: Vec<&Redis> = (0..SHARES).map(|share| owner(share).expect("every share is somebody's")).collect();
    let shares_of = |server: &&Redis| owners.iter().filter(|owner| owner.port() == server.port()).count();
    let primary = *owners.iter().max_by_key(|server| shares_of(server)).expect("there are shares");
    let set_away = move |is_away| if is_away { primary.stop() } else { primary.resume() };
    let outage = Outage { set_away: Box::new(set_away), has_detour: true, patience: nodes::PATIENCE_WITH_OUTAGES };
    nodes::fixture(&settings, outage, |node| nodes::hears_all(node, SHARES.into()))
}

/// Checks these clauses, if there are servers.
fn check(clauses: &[&str]) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if servers().is_some() {
        clauses.iter().for_each(|clause| run_clause(clause, fixture));
    }
}

/// Checks clauses about outages, likewise, beside the others: servers that do not always answer at once are what they are about.
fn check_outages(clauses: &[&str]) {
    if servers_for_outages().is_some() {
        clauses.iter().for_each(|clause| run_clause(clause, fixture_for_outages));
    }
}

keeps_the_suite!(check, check_outages);

/// RED-33, RED-35
#[test]
fn a_slot_on_the_move_refuses_every_script_before_it_has_seen_anything() {
    let Some(servers) = servers() else { return };
    let keys = Keys::of_share("moving", "1");
    let slot = i64::from(slot_of("moving.1"));
    let owner = servers.owner_of(slot).unwrap();
    let other = servers.servers().iter().find(|server| {
        server.port() != owner.port() && server.role().is_ok_and(|role| role == fulmar_rig::Role::Primary)
    });
    let other = other.expect("there are three primaries");
    let call = |server: &Redis| {
        let declared = keys.declared();
        let (group, nothing) = (declared[0].as_str(), declared[1].as_str());
        server.call(&[
            "EVAL",
            SEND.text(),
            "2",
            group,
            nothing,
            "moving/1",
            "run",
            "0 0",
            "60000",
            "100",
            "7:room",
            "x",
        ])
    };
    owner.call(&["HSET", &keys.identity(), "id", "moving/1", "run", "run", "epoch", "1"]).unwrap();
    call(owner).unwrap();
    let (id, number) = (other.call(&["CLUSTER", "MYID"]).unwrap().text(), slot.to_string());
    owner.call(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &id]).unwrap();
    let refused = call(owner).unwrap_err().to_string();
    assert!(refused.contains("ASK") || refused.contains("TRYAGAIN"), "{refused}");
    owner.call(&["CLUSTER", "SETSLOT", &number, "STABLE"]).unwrap();
    assert_eq!(owner.call(&["XLEN", &keys.log()]).unwrap().number(), Some(1));
    servers.move_slot(slot, other).unwrap();
    call(other).unwrap();
    assert!(call(owner).unwrap_err().to_string().contains("MOVED"));
    assert_eq!(other.call(&["XLEN", &keys.log()]).unwrap().number(), Some(2));
}
