//! Each kind of finding on a deployment that is right in everything else. What causes them for real is tested with real
//! servers, beside the command.

use std::collections::BTreeMap;

use super::facts::*;
use super::*;
use crate::observed::*;

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
        down_after: Duration::from_secs(1),
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
        groups_configured: "g1".to_owned(),
        groups: vec![GroupFacts { seen, servers: facts, unwatched_by: Vec::new(), data: Some(data) }],
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

/// DOC-20
#[test]
fn a_deployment_as_advised_has_no_finding() {
    assert_eq!(found(|_| {}), []);
}

/// DOC-3
#[test]
fn what_several_servers_have_alike_is_said_once_with_a_fix_for_each() {
    let made = found(|d| {
        for server in &mut d.groups[0].servers {
            server.settings.insert("timeout".to_owned(), "60".to_owned());
        }
        set(d, "timeout", "61");
    });
    assert_eq!(made.iter().map(|finding| finding.id).collect::<Vec<_>>(), [Id::IdleTimeout, Id::IdleTimeout]);
    assert!(made[0].what.starts_with("10.0.0.1:6379 closes"), "{made:?}");
    assert!(made[1].what.starts_with("each of 10.0.0.2:6379, 10.0.0.3:6379 closes"), "{made:?}");
    assert_eq!(
        made[1].fix,
        "redis-cli -h 10.0.0.2 -p 6379 CONFIG SET timeout 0\nredis-cli -h 10.0.0.3 -p 6379 CONFIG SET timeout 0"
    );
    let made = found(|d| {
        d.groups[0].servers.iter_mut().for_each(|s| drop(s.settings.insert("timeout".to_owned(), "60".to_owned())));
    });
    assert!(made.len() == 1 && made[0].servers.len() == 3, "{made:?}");
}

/// DOC-11
#[test]
fn what_sentinels_are_told_is_judged() {
    use Weight::{Grave, Warning};
    finds(
        Id::FailoverTimeout,
        Grave,
        &["180 s", "360 s", "10.0.0.2:26379", "SENTINEL SET g1 failover-timeout 10000"],
        |d| {
            views(d, |view| view.failover_timeout = Duration::from_secs(180));
        },
    );
    finds(Id::FailoverTimeout, Warning, &["20 s", "at 10.0.0.3:26379"], |d| {
        d.groups[0].seen.sentinels[2].view.as_mut().unwrap().value.failover_timeout = Duration::from_secs(20);
    });
    finds(Id::DownAfter, Warning, &["30000 ms"], |d| views(d, |view| view.down_after = Duration::from_secs(30)));
    finds(Id::DownAfter, Warning, &["100 ms", "busy"], |d| {
        views(d, |view| view.down_after = Duration::from_millis(100))
    });
    finds(Id::ParallelSyncs, Warning, &["2"], |d| views(d, |view| view.parallel_syncs = 2));
    finds(Id::ConfigEpochZero, Warning, &["fulmar redis failover g1"], |d| views(d, |view| view.epoch = 0));
    finds(Id::SentinelQuorum, Warning, &["1, which is no majority of 3"], |d| views(d, |view| view.quorum = 1));
    finds(Id::SentinelQuorum, Grave, &["never be a failover", "quorum 2"], |d| views(d, |view| view.quorum = 4));
    finds(Id::SentinelPeers, Warning, &["counts 5", "takes 3"], |d| {
        d.groups[0].seen.sentinels[0].view.as_mut().unwrap().value.others = 4;
    });
}

/// DOC-11
#[test]
fn sentinels_that_are_few_gone_or_of_another_mind_are_named() {
    use Weight::{Grave, Warning};
    finds(Id::SentinelsTooFew, Warning, &["2 Sentinels"], |d| {
        d.groups[0].seen.sentinels.truncate(2);
        views(d, |view| view.others = 1);
    });
    let gone = |d: &mut Deployment, at: usize| {
        d.groups[0].seen.sentinels[at].view = None;
        d.groups[0].seen.sentinels[at].trouble = Some("refused".to_owned());
    };
    finds(Id::SentinelUnreachable, Warning, &["10.0.0.1:26379", "refused"], |d| gone(d, 0));
    let made = found(|d| {
        gone(d, 0);
        gone(d, 1);
    });
    assert!(made.iter().filter(|f| f.id == Id::SentinelUnreachable).all(|f| f.weight == Grave), "{made:?}");
    finds(Id::SentinelDoesNotKnowGroup, Grave, &["SENTINEL MONITOR g1 10.0.0.1 6379 2"], |d| {
        gone(d, 1);
        d.groups[0].unwatched_by.push("10.0.0.2:26379".to_owned());
    });
    let made = found(|d| {
        d.groups[0].seen.sentinels[2].view.as_mut().unwrap().value.primary = REPLICAS[0].to_owned();
    });
    let disagree = made.iter().find(|f| f.id == Id::SentinelsDisagree).unwrap();
    assert!(disagree.what.contains("10.0.0.3:26379 names 10.0.0.2:6379") && disagree.weight == Grave, "{disagree:?}");
    assert!(disagree.fix.contains("-h 10.0.0.3 -p 26379 SENTINEL MONITOR g1 10.0.0.1 6379 2"), "{disagree:?}");
}

/// DOC-12
#[test]
fn copies_and_whose_data_they_are_is_judged() {
    use Weight::{Advice, Grave, Warning};
    finds(Id::ReplicaMissing, Warning, &["1 of 2"], |d| {
        let lost = Attached { address: REPLICAS[0].to_owned(), is_online: true };
        d.groups[0].seen.servers[0] = server(PRIMARY, Role::Primary(vec![lost]), 1_000);
    });
    finds(Id::ReplicaMissing, Grave, &["0 of 2"], |d| {
        d.groups[0].seen.servers[0] = server(PRIMARY, Role::Primary(Vec::new()), 1_000);
    });
    finds(Id::NoPromotableReplica, Grave, &["CONFIG SET replica-priority 100", REPLICAS[1]], |d| {
        for server in &mut d.groups[0].seen.servers {
            server.state.as_mut().unwrap().value.priority = 0;
        }
    });
    finds(Id::StrayPrimary, Grave, &["-h 10.0.0.2 -p 6379 REPLICAOF 10.0.0.1 6379"], |d| {
        d.groups[0].seen.servers[1] = server(REPLICAS[0], Role::Primary(Vec::new()), 0);
    });
    finds(Id::WrongIdentity, Grave, &["10.0.0.3", "other/g1"], |d| {
        d.groups[0].seen.servers[2].state.as_mut().unwrap().value.identity = Some("other/g1".to_owned());
    });
    finds(Id::NoIdentity, Advice, &["fulmar/g1"], |d| {
        d.groups[0].seen.servers[0].state.as_mut().unwrap().value.identity = None;
    });
    finds(Id::GroupsDiffer, Grave, &["g1,g2"], |d| {
        d.groups[0].data.as_mut().unwrap().groups = Some("g1,g2".to_owned())
    });
    finds(Id::ServerUnreachable, Warning, &["10.0.0.3:6379", "refused"], |d| {
        let server = &mut d.groups[0].seen.servers[2];
        (server.state, server.trouble) = (None, Some("refused".to_owned()));
    });
    finds(Id::CapacityUnknown, Advice, &["link_mbit, memory_mb", "[backbone.group.g1]"], |d| {
        d.groups[0].seen.capacity = Capacity { replicas: Some(2), ..Capacity::default() };
    });
    finds(Id::RedisVersionsDiffer, Warning, &["Redis 7.2.4"], |d| say(d, "redis_version", "7.2.4"));
    let made = found(|d| d.groups[0].seen.servers[0].state = None);
    assert!(made.iter().any(|f| f.id == Id::NoPrimary && f.weight == Grave), "{made:?}");
    assert!(made.iter().any(|f| f.id == Id::ServerUnreachable && f.weight == Grave), "{made:?}");
}

/// DOC-12
#[test]
fn a_group_without_replicas_has_one_copy_and_a_single_server_is_not_blamed_for_that() {
    let alone = |d: &mut Deployment| {
        let group = &mut d.groups[0];
        group.seen.servers = vec![server(PRIMARY, Role::Primary(Vec::new()), 0)];
        group.seen.capacity.replicas = Some(0);
        group.servers.truncate(1);
        set(d, "min-replicas-to-write", "0");
    };
    finds(Id::NoReplica, Weight::Grave, &["only copy", "--replicaof"], alone);
    let made = found(|d| {
        alone(d);
        d.arrangement = Arrangement::Single;
        d.groups[0].seen.sentinels.clear();
    });
    assert_eq!(made, []);
}

/// DOC-13
#[test]
fn buffers_are_held_against_the_dataset_the_line_and_what_is_written() {
    use Weight::{Grave, Warning};
    // 80 MB over what 70 Mbit/s leave beside two streams of 1 MB/s: 12.4 s, in which 12.4 MB are written.
    let busy = |d: &mut Deployment, limit: &str| {
        let group = &mut d.groups[0];
        group.seen.capacity.link_mbit = Some(100);
        group.seen.servers[0] = server(PRIMARY, primary(), MB);
        for (at, address) in REPLICAS.iter().enumerate() {
            group.seen.servers[at + 1] = server(address, replica(), MB);
        }
        set(d, "client-output-buffer-limit", limit);
    };
    finds(Id::ReplicaBufferTooSmall, Grave, &["83.8 MB of data", "1048 kB/s", "cut off", "CONFIG SET"], |d| {
        busy(d, "normal 0 0 0 slave 8388608 4194304 5 pubsub 16777216 8388608 10");
    });
    finds(Id::ReplicaBufferTooSmall, Warning, &["room for twice"], |d| {
        busy(d, "normal 0 0 0 slave 20000000 0 0 pubsub 16777216 8388608 10");
    });
    finds(Id::ReplicaBufferTooSmall, Warning, &["enough for now", "replica 268435456 134217728 60"], |d| {
        set(d, "client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 16777216 8388608 10");
    });
    let made = found(|d| {
        busy(d, "normal 0 0 0 slave 268435456 134217728 60 pubsub 16777216 8388608 10");
        d.groups[0].seen.capacity.link_mbit = Some(20);
    });
    assert!(made.iter().any(|f| f.id == Id::ReplicaBufferTooSmall && f.what.contains("never end")), "{made:?}");
    finds(Id::BacklogTooSmall, Warning, &["1048 kB for", "1000 B/s", "repl-backlog-size 67108864"], |d| {
        set(d, "repl-backlog-size", "1048576");
    });
    finds(Id::BacklogTooSmall, Grave, &["1048 kB/s", "repl-backlog-size 125829120"], |d| {
        busy(d, "normal 0 0 0 slave 268435456 134217728 60 pubsub 16777216 8388608 10");
        set(d, "repl-backlog-size", "50000000");
    });
}

/// DOC-13
#[test]
fn what_may_wait_for_a_node_is_neither_too_little_nor_too_much() {
    let limit = |pubsub: &str| format!("normal 0 0 0 slave 268435456 134217728 60 pubsub {pubsub}");
    for (pubsub, id, words) in [
        ("1048576 524288 5", Id::PubsubBufferTooSmall, "524 kB"),
        ("0 0 0", Id::PubsubBufferTooLarge, "no limit"),
        (
            "134217728 33554432 60",
            Id::PubsubBufferTooLarge,
            "each of 4 subscriptions of 2 nodes, 536.8 MB in all of a memory of 1048.5 MB",
        ),
    ] {
        finds(id, Weight::Warning, &[words, "pubsub 16mb 8mb 10"], |d| {
            set(d, "client-output-buffer-limit", &limit(pubsub))
        });
    }
}

/// DOC-13
#[test]
fn a_primary_that_is_cut_off_must_stop_and_one_that_is_not_must_not() {
    use Weight::{Grave, Warning};
    finds(Id::MinReplicas, Warning, &["without any replica"], |d| set(d, "min-replicas-to-write", "0"));
    finds(Id::MinReplicas, Warning, &["min-replicas-max-lag 10"], |d| set(d, "min-replicas-max-lag", "10"));
    finds(Id::MinReplicas, Warning, &["wants 2 replicas of 2"], |d| set(d, "min-replicas-to-write", "2"));
    finds(Id::MinReplicas, Grave, &["refuses every write"], |d| say(d, "min_slaves_good_slaves", "0"));
    finds(Id::MinReplicas, Grave, &["has no replica and wants 1"], |d| {
        d.arrangement = Arrangement::Single;
        let group = &mut d.groups[0];
        group.seen.sentinels.clear();
        group.seen.capacity.replicas = None;
        group.seen.servers = vec![server(PRIMARY, Role::Primary(Vec::new()), 0)];
        group.servers.truncate(1);
        say(d, "min_slaves_good_slaves", "0");
    });
}

/// DOC-14
#[test]
fn memory_has_a_limit_that_is_far_and_nothing_is_thrown_away() {
    use Weight::{Grave, Warning};
    finds(Id::MaxmemoryPolicy, Grave, &["allkeys-lru", "noeviction"], |d| set(d, "maxmemory-policy", "allkeys-lru"));
    finds(Id::MaxmemoryPolicy, Grave, &["4742 keys"], |d| {
        set(d, "maxmemory-policy", "volatile-ttl");
        say(d, "evicted_keys", "4742");
    });
    finds(Id::MaxmemoryUnset, Warning, &["CONFIG SET maxmemory 1000mb"], |d| say(d, "maxmemory", "0"));
    finds(Id::MemoryNearLimit, Warning, &["75%", "503"], |d| say(d, "used_memory", "786432000"));
    finds(Id::MemoryNearLimit, Grave, &["90%"], |d| say(d, "used_memory", "943718400"));
}

/// DOC-15
#[test]
fn a_server_by_itself_is_judged() {
    use Weight::{Advice, Grave, Warning};
    finds(Id::PersistenceFailing, Grave, &["snapshot failed", "refuses every write"], |d| {
        set(d, "save", "3600 1");
        say(d, "rdb_last_bgsave_status", "err");
    });
    finds(Id::PersistenceFailing, Warning, &["snapshot failed"], |d| say(d, "rdb_last_bgsave_status", "err"));
    finds(Id::PersistenceFailing, Grave, &["append-only"], |d| {
        say(d, "aof_enabled", "1");
        say(d, "aof_last_write_status", "err");
    });
    let disk = Disk { folder: "/data".to_owned(), free_bytes: 50 * MB, total_bytes: 1_000 * MB };
    finds(Id::PersistenceDiskSpace, Grave, &["/data", "52.4 MB are free"], |d| {
        set(d, "save", "3600 1");
        d.groups[0].servers[0].disk = Some(disk.clone());
    });
    assert_eq!(found(|d| d.groups[0].servers[0].disk = Some(disk)), [], "nothing is written there");
    finds(Id::AppendfsyncAlways, Advice, &["everysec"], |d| {
        say(d, "aof_enabled", "1");
        set(d, "appendfsync", "always");
    });
    finds(Id::Maxclients, Warning, &["60 connections of 100 (60%)", "2 nodes"], |d| {
        say(d, "connected_clients", "60");
        say(d, "maxclients", "100");
    });
    finds(Id::Maxclients, Grave, &["90%"], |d| {
        say(d, "connected_clients", "90");
        say(d, "maxclients", "100");
    });
    finds(Id::Maxclients, Warning, &["has refused 7"], |d| say(d, "rejected_connections", "7"));
    finds(Id::IdleTimeout, Warning, &["300 s"], |d| set(d, "timeout", "300"));
    finds(Id::BusyReplyThreshold, Warning, &["100 ms"], |d| set(d, "busy-reply-threshold", "100"));
    finds(Id::RedisTooOld, Grave, &["Redis 6.2.14"], |d| {
        d.groups[0].servers.truncate(1);
        say(d, "redis_version", "6.2.14");
    });
    finds(Id::ReplicaWritable, Warning, &["10.0.0.2:6379 is a replica"], |d| {
        d.groups[0].servers[1].settings.insert("replica-read-only".to_owned(), "no".to_owned());
    });
    finds(Id::SlowCommands, Warning, &["2 commands", "(EVAL, KEYS)", "slowest 900 ms"], |d| {
        d.groups[0].servers[0].slow = [("KEYS", 900), ("EVAL", 100)]
            .map(|(name, ms)| SlowCommand { name: name.to_owned(), took: Duration::from_millis(ms) })
            .into();
    });
    finds(Id::LookIncomplete, Advice, &["NOPERM", "+config|get"], |d| {
        d.groups[0].servers[0].refused.push("NOPERM this user may not".to_owned());
    });
    let valkey = found(|d| {
        d.groups[0].servers.iter_mut().for_each(|s| {
            s.info.insert("valkey_version".to_owned(), "8.0.1".to_owned());
            s.info.insert("redis_version".to_owned(), "7.2.4".to_owned());
        });
    });
    assert_eq!(valkey, []);
}

/// DOC-16
#[test]
fn redis_cluster_must_not_stop_as_a_whole_nor_be_slow_to_notice() {
    let on = |d: &mut Deployment, name: &str, value: &str| {
        say(d, "cluster_enabled", "1");
        set(d, name, value);
    };
    finds(Id::ClusterFullCoverage, Weight::Warning, &["coverage no"], |d| {
        on(d, "cluster-require-full-coverage", "yes")
    });
    finds(Id::ClusterNodeTimeout, Weight::Warning, &["15000 ms"], |d| on(d, "cluster-node-timeout", "15000"));
    finds(Id::ClusterState, Weight::Grave, &["state fail", "5461 of 16384"], |d| {
        on(d, "cluster-node-timeout", "2000");
        say(d, "cluster_state", "fail");
        say(d, "cluster_slots_ok", "5461");
    });
}

/// DOC-17
#[test]
fn nodes_that_differ_are_silent_or_do_not_hear_are_named() {
    use Weight::{Advice, Grave, Warning};
    finds(Id::ReleasesDiffer, Warning, &["0.1.0: n1 (n1:6001); 0.2.0: n2"], |d| {
        d.nodes[1].release = "0.2.0".to_owned()
    });
    finds(Id::AppsDiffer, Grave, &["aa: n1", "cc: n2"], |d| d.nodes[1].apps = "cc".to_owned());
    finds(Id::SettingsDiffer, Warning, &["bb: n1", "cc: n2"], |d| d.nodes[1].settings = "cc".to_owned());
    finds(Id::NodeSilent, Warning, &["n2 (n2:6001)", "5 s"], |d| {
        d.nodes[1] = NodeFacts { silent_for: Duration::from_secs(5), release: "0.0.1".to_owned(), ..node("n2") };
    });
    finds(Id::NodeNotAttached, Grave, &["n2", "in epoch 3", "in epoch 4"], |d| d.nodes[1].attached[0].1 = 3);
    finds(Id::NodeNotAttached, Grave, &["n2", "nothing of it"], |d| d.nodes[1].attached.clear());
    finds(Id::NodeWithoutLease, Grave, &["n9", "webhooks"], |d| {
        d.groups[0].data.as_mut().unwrap().claimants.push("n9".to_owned());
    });
    finds(Id::NodeWithoutLease, Warning, &["3 connections", "2 have a lease"], |d| {
        d.groups[0].data.as_mut().unwrap().bus_listeners = 3;
    });
    finds(Id::NodeFilesFew, Warning, &["1024 files"], |d| d.nodes[0].open_files = 1_024);
    finds(Id::NodeFilesFew, Grave, &["(91%)"], |d| d.nodes[0].connections = 60_000);
    finds(Id::NodeNotReachable, Advice, &["n1", "backbone.advertise"], |d| d.nodes[0].advertise = None);
    finds(Id::RoleMissing, Grave, &["rest", "503"], |d| {
        d.nodes.iter_mut().for_each(|node| node.roles.retain(|role| *role != "rest"));
    });
    finds(Id::NoNodes, Advice, &["fulmar serve"], |d| {
        d.nodes.clear();
        let data = d.groups[0].data.as_mut().unwrap();
        data.claimants.clear();
        data.bus_listeners = 0;
    });
}

/// DOC-18
#[test]
fn a_clock_that_is_not_like_most_is_named_whoever_has_it() {
    use Weight::{Grave, Warning};
    let clock = |ahead_ms| Some(ClockFact { ahead_ms, error_ms: 700 });
    finds(Id::ClockSkew, Warning, &["node n1", "3.2 s behind"], |d| d.nodes[0].clock = clock(-3_200));
    assert_eq!(found(|d| d.nodes[0].clock = clock(-1_600)), [], "within what a lease's age explains");
    finds(Id::ClockSkew, Grave, &["the server 10.0.0.3:6379", "3600.0 s ahead"], |d| {
        d.groups[0].servers[2].clock = clock(3_600_003);
    });
    let made = found(|d| {
        d.nodes.iter_mut().for_each(|node| node.clock = clock(120_000));
        d.groups[0].servers.iter_mut().for_each(|server| server.clock = clock(120_000));
    });
    assert!(made.len() == 1 && made[0].what.contains("this machine"), "{made:?}");
}

/// DOC-19
#[test]
fn webhooks_that_wait_or_were_given_up_are_counted() {
    use Weight::{Advice, Grave, Warning};
    for (oldest, weight) in [(61, Warning), (601, Grave)] {
        finds(Id::WebhookBacklog, weight, &["12 webhook", &format!("{oldest} s")], |d| {
            let outbox = OutboxFacts { waiting: 12, oldest: Duration::from_secs(oldest), given_up: 0 };
            d.groups[0].data.as_mut().unwrap().outbox = outbox;
        });
    }
    finds(Id::WebhooksGivenUp, Advice, &["4 webhook requests", "replay"], |d| {
        d.groups[0].data.as_mut().unwrap().outbox.given_up = 4;
    });
}

/// DOC-10
#[test]
fn this_machine_is_judged_with_or_without_redis() {
    use Weight::{Grave, Warning};
    let certificate = |ends: Result<i64, &str>| CertificateFact {
        key: "tls.cert",
        path: "/cert.pem".to_owned(),
        ends: ends.map_err(str::to_owned),
    };
    let now = healthy().local.unix_s;
    for (days, weight, words) in
        [(10, Warning, "ends in 10 days"), (1, Grave, "ends in 24 hours"), (-2, Grave, "ended 2 days ago")]
    {
        finds(Id::CertificateExpiry, weight, &[words, "/cert.pem"], |d| {
            d.local.certificates.push(certificate(Ok(now + days * 86_400)));
        });
    }
    assert_eq!(found(|d| d.local.certificates.push(certificate(Ok(now + 15 * 86_400)))), []);
    finds(Id::CertificateUnusable, Grave, &["no PEM"], |d| d.local.certificates.push(certificate(Err("no PEM"))));
    finds(Id::Config, Warning, &["port"], |d| {
        d.local.config.push(ConfigFact { text: "server.port is wrong".to_owned(), is_ignored: true });
    });
    let storage = |change: fn(&mut StorageFact)| {
        move |d: &mut Deployment| {
            let mut storage = StorageFact { folder: "/s".to_owned(), ..StorageFact::default() };
            change(&mut storage);
            d.arrangement = Arrangement::Embedded;
            d.groups.clear();
            d.nodes.clear();
            d.local.storage = Some(storage);
        }
    };
    finds(Id::StorageUnusable, Warning, &["denied", "outlive"], storage(|s| s.trouble = Some("denied".to_owned())));
    finds(
        Id::StorageUnusable,
        Grave,
        &["does not start"],
        storage(|s| (s.is_configured, s.trouble) = (true, Some("no".to_owned()))),
    );
    finds(
        Id::StorageUnusable,
        Grave,
        &["chmod 600 admin-token"],
        storage(|s| s.open_to_others.push("admin-token".to_owned())),
    );
    finds(
        Id::StorageSpace,
        Warning,
        &["10.4 MB are free"],
        storage(|s| {
            s.disk = Some(Disk { folder: "/s".to_owned(), free_bytes: 10 * MB, total_bytes: 100 * MB });
        }),
    );
    finds(Id::FilesFew, Warning, &["needs 10320", "may open 1024"], |d| {
        (d.local.connections_max, d.local.open_files) = (Some((10_000, 10_320)), Some(1_024));
    });
}

/// DOC-3
#[test]
fn every_kind_has_a_name_of_its_own_that_is_written_alike_everywhere() {
    let mut names: Vec<&str> = Id::ALL.iter().map(|id| id.name()).collect();
    for name in &names {
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}");
        assert_eq!(Id::parse(name).map(Id::name), Some(*name));
    }
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert_eq!(Id::parse("unheard-of"), None);
}

/// DOC-3
#[test]
fn every_kind_is_written_down_with_its_thresholds() {
    let table = include_str!("../../../../spec/doctor.md");
    for id in Id::ALL {
        assert!(table.contains(&format!("\n| `{}` | ", id.name())), "{} is not in spec/doctor.md", id.name());
        assert!(id.about().ends_with('.'), "{id:?}");
    }
    let rows = table.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, Id::ALL.len(), "and nothing else is");
}

/// DOC-2
#[test]
fn nothing_is_concluded_from_what_was_not_seen() {
    let made = found(|d| {
        for group in &mut d.groups {
            group.servers.clear();
            group.data = None;
            for server in &mut group.seen.servers {
                (server.state, server.trouble) = (None, Some("silent".to_owned()));
            }
        }
        d.nodes.clear();
    });
    let mut ids: Vec<_> = made.iter().map(|finding| finding.id).collect();
    ids.dedup();
    assert_eq!(ids, [Id::ServerUnreachable, Id::NoPrimary, Id::ServerUnreachable], "{made:#?}");
}
