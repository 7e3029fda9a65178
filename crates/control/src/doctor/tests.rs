//! Each kind of finding on a deployment that is right in everything else, which is made here. What causes them for real is tested with real
//! servers, beside the command.

use std::collections::BTreeMap;

use super::facts::*;
use super::*;
use crate::observed::*;

mod deployment;
mod redis;

const NOW: Duration = Duration::from_secs(100);
const PRIMARY: &str = "10.0.0.1:6379";
const REPLICAS: [&str; 2] = ["10.0.0.2:6379", "10.0.0.3:6379"];
const MB: u64 = 1 << 20;

fn state(role: Role) -> ServerState {
    ServerState {
        run: "run".to_owned(),
        version: "7.0.15".to_owned(),
        role,
        offset: 10_000 * MB,
        identity: Some("fulmar/g1".to_owned()),
        keys: 1,
        priority: 100,
        figures: Figures { used_bytes: 100 * MB, max_bytes: 1_000 * MB, dataset_bytes: 80 * MB, ..Figures::default() },
        buffers: Buffers { backlog_bytes: 64 * MB, output_bytes_max: 256 * MB },
    }
}

/// A server that was seen twice within ten seconds, writing `stream` bytes a second.
fn server(address: &str, role: Role, stream: u64) -> ServerSeen {
    let mut seen = ServerSeen { address: address.to_owned(), ..ServerSeen::default() };
    let last = state(role);
    for (ago, written) in [(2, 0), (0, 2 * stream)] {
        let offset = last.offset + written;
        seen.note(NOW - Duration::from_secs(ago), ServerState { offset, ..last.clone() });
    }
    seen
}

fn primary() -> Role {
    let online = |address: &&str| Attached { address: (*address).to_owned(), is_online: true };
    Role::Primary(REPLICAS.iter().map(online).collect())
}

fn replica() -> Role {
    Role::Replica { of: PRIMARY.to_owned(), link: ReplicaLink::Connected }
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(", ").filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn server_facts(address: &str, role: &str) -> ServerFacts {
    ServerFacts {
        address: address.to_owned(),
        info: pairs(&format!(
            "role={role}, redis_version=7.0.15, used_memory=104857600, maxmemory=1048576000, connected_clients=40, \
             maxclients=10000, pubsub_clients=6, rejected_connections=0, evicted_keys=0, min_slaves_good_slaves=2, aof_enabled=0, \
             rdb_last_bgsave_status=ok"
        )),
        settings: pairs(
            "maxmemory-policy=noeviction, client-output-buffer-limit=normal 0 0 0 slave 268435456 134217728 60 pubsub 16777216 \
             8388608 10, repl-backlog-size=67108864, min-replicas-to-write=1, min-replicas-max-lag=2, replica-read-only=yes, save=, \
             timeout=0, busy-reply-threshold=5000, stop-writes-on-bgsave-error=yes, appendfsync=everysec",
        ),
        clock: Some(ClockFact { ahead_ms: 3, error_ms: 2 }),
        ..ServerFacts::default()
    }
}

fn view() -> SentinelView {
    SentinelView {
        primary: PRIMARY.to_owned(),
        epoch: 1,
        replicas: { REPLICAS.iter() }
            .map(|address| NamedReplica { address: (*address).to_owned(), priority: 100, is_up: true })
            .collect(),
        others: 2,
        quorum: 2,
        is_primary_up: true,
        is_failing_over: false,
        tilted_for: None,
        down_after: Duration::from_millis(1_250),
        failover_timeout: Duration::from_secs(10),
        parallel_syncs: 1,
    }
}

fn node(name: &str) -> NodeFacts {
    NodeFacts {
        name: name.to_owned(),
        clock: Some(ClockFact { ahead_ms: -200, error_ms: 700 }),
        advertise: Some(format!("{name}:6001")),
        roles: vec!["websocket", "rest", "webhooks"],
        attached: vec![("g1".to_owned(), 4)],
        connections: 100,
        release: "0.1.0".to_owned(),
        apps: "aa".to_owned(),
        settings: "bb".to_owned(),
        open_files: 65_536,
        ..NodeFacts::default()
    }
}

/// As the documentation advises.
fn healthy() -> Deployment {
    let sentinel = |n: usize| SentinelSeen {
        address: format!("10.0.0.{n}:26379"),
        view: Some(Fact { value: view(), seen_at: NOW }),
        trouble: None,
    };
    let mut servers = vec![server(PRIMARY, primary(), 1_000)];
    servers.extend(REPLICAS.map(|address| server(address, replica(), 1_000)));
    let seen = GroupSeen {
        name: "g1".to_owned(),
        identity: "fulmar/g1".to_owned(),
        capacity: Capacity { link_mbit: Some(1_000), replicas: Some(2), memory_mb: Some(1_000) },
        sentinels: (1..=3).map(sentinel).collect(),
        servers,
    };
    let mut facts = vec![server_facts(PRIMARY, "master")];
    facts.extend(REPLICAS.map(|address| server_facts(address, "slave")));
    let data = DataFacts {
        epochs: vec![("g1".to_owned(), 4)],
        groups: Some("g1".to_owned()),
        claimants: vec!["n1".to_owned()],
        bus_listeners: 2,
        ..DataFacts::default()
    };
    Deployment {
        arrangement: Arrangement::Sentinel,
        shares_of_nobody: Vec::new(),
        groups_configured: "g1".to_owned(),
        groups: vec![GroupFacts {
            seen,
            servers: facts,
            unwatched_by: Vec::new(),
            certificates: Vec::new(),
            data: Some(data),
        }],
        nodes: vec![node("n1"), node("n2")],
        local: Local { unix_s: 1_800_000_000, ..Local::default() },
    }
}

/// What is found when this is changed, as id and weight.
fn found(change: impl FnOnce(&mut Deployment)) -> Vec<Finding> {
    let mut deployment = healthy();
    change(&mut deployment);
    examine(NOW, &deployment)
}

/// Exactly this is found, in these words.
fn finds(id: Id, weight: Weight, words: &[&str], change: impl FnOnce(&mut Deployment)) {
    let made = found(change);
    let ids: Vec<_> = made.iter().map(|finding| (finding.id, finding.weight)).collect();
    assert_eq!(ids, [(id, weight)], "{made:#?}");
    for part in words {
        assert!(made[0].what.contains(part) || made[0].fix.contains(part), "{part} is not in {:#?}", made[0]);
    }
    assert!(!made[0].fix.is_empty(), "{made:?}");
}

/// A setting of the primary.
fn set(deployment: &mut Deployment, name: &str, value: &str) {
    deployment.groups[0].servers[0].settings.insert(name.to_owned(), value.to_owned());
}

fn say(deployment: &mut Deployment, name: &str, value: &str) {
    deployment.groups[0].servers[0].info.insert(name.to_owned(), value.to_owned());
}

fn views(deployment: &mut Deployment, change: impl Fn(&mut SentinelView)) {
    for sentinel in &mut deployment.groups[0].seen.sentinels {
        change(&mut sentinel.view.as_mut().expect("it was seen").value);
    }
}
