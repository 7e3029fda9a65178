//! The Redis backbone keeps every promise of the suite over a Redis Cluster of three primaries with a replica each.
//!
//! Every case gets a deployment of its own, and so shares of its own, on the same servers. One after the other: order along
//! a channel is the log's only while a primary answers, and six servers that wait for two processors do not always.

mod nodes;

use std::sync::{Mutex, OnceLock, PoisonError};

use fulmar_backbone::contract::{Fixture, run_clause};
use fulmar_backbone::redis::keys::Keys;
use fulmar_backbone::redis::redis_cluster::slot_of;
use fulmar_backbone::redis::scripts::SEND;
use fulmar_backbone::redis::settings::Topology;
use fulmar_rig::{Redis, RedisCluster, RedisOptions};

const SHARES: u16 = 4;

/// The servers of this process; `None`, said loudly, where there is no program for one.
fn servers() -> Option<&'static RedisCluster> {
    static SERVERS: OnceLock<Option<RedisCluster>> = OnceLock::new();
    let servers = SERVERS.get_or_init(|| {
        if !fulmar_rig::is_available() {
            eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
            return None;
        }
        Some(RedisCluster::start(3, 1, &RedisOptions::default()).expect("the servers start"))
    });
    servers.as_ref()
}

fn fixture() -> Fixture {
    let servers = servers().expect("whoever asks has looked whether there are some");
    let seeds = vec![servers.servers()[0].addr().to_string()];
    let settings = nodes::settings(Topology::RedisCluster { seeds, shares: SHARES });
    nodes::fixture(&settings, |node| {
        let figures = node.figures();
        figures.groups.len() == usize::from(SHARES)
            && figures.groups.iter().all(|group| group.hears && !group.over_the_bus)
    })
}

/// Checks these clauses, if there are servers.
fn check(clauses: &[&str]) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if servers().is_some() {
        clauses.iter().for_each(|clause| run_clause(clause, fixture));
    }
}

keeps_the_suite!(check);

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
