//! Sentinels, groups, servers.

use super::*;

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
    finds(Id::DownAfter, Warning, &["1000 ms", "fail over again", "down-after-milliseconds 1250"], |d| {
        views(d, |view| view.down_after = Duration::from_millis(1_000))
    });
    finds(Id::ParallelSyncs, Warning, &["2"], |d| views(d, |view| view.parallel_syncs = 2));
    finds(Id::ConfigEpochZero, Warning, &["fulmar redis failover g1"], |d| views(d, |view| view.epoch = 0));
    finds(Id::SentinelQuorum, Warning, &["1, which is no majority of 3"], |d| views(d, |view| view.quorum = 1));
    finds(Id::SentinelQuorum, Grave, &["never be a failover", "quorum 2"], |d| views(d, |view| view.quorum = 4));
    finds(Id::SentinelPeers, Warning, &["counts 5", "takes 3"], |d| {
        d.groups[0].seen.sentinels[0].view.as_mut().unwrap().value.others = 4;
    });
}

/// DOC-21
#[test]
fn certificates_that_servers_show_are_judged_as_those_of_files_are() {
    use Weight::{Grave, Warning};
    let shows = |d: &mut Deployment, at: &str, days: i64| {
        let ends = d.local.unix_s + days * 86_400 + 3_600;
        d.groups[0].certificates.push((at.to_owned(), ends));
    };
    let fix = "redis-cli -h 10.0.0.1 -p 6379 CONFIG SET tls-cert-file";
    finds(Id::CertificateExpiry, Warning, &[PRIMARY, "ends in 10 days", fix], |d| shows(d, PRIMARY, 10));
    finds(Id::CertificateExpiry, Grave, &["10.0.0.2:26379", "ended 4 days ago"], |d| shows(d, "10.0.0.2:26379", -5));
    // The same of several is one finding.
    finds(Id::CertificateExpiry, Grave, &["each of", PRIMARY, REPLICAS[0], "ends in 25 hours"], |d| {
        shows(d, PRIMARY, 1);
        shows(d, REPLICAS[0], 1);
    });
    assert!(found(|d| shows(d, PRIMARY, 14)).is_empty());
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
    let tilted = |d: &mut Deployment, at: usize| {
        let view = d.groups[0].seen.sentinels[at].view.as_mut().unwrap();
        view.value.tilted_for = Some(Duration::from_secs(7));
    };
    finds(Id::SentinelTilt, Warning, &["10.0.0.2:26379", "a vote less"], |d| tilted(d, 1));
    let made = found(|d| {
        tilted(d, 0);
        tilted(d, 2);
    });
    assert!(made.iter().all(|f| (f.id, f.weight) == (Id::SentinelTilt, Grave)) && made.len() == 2, "{made:?}");
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
    let map = |groups: &[&str], moving, is_worked_on| MapFacts {
        groups: groups.iter().map(|name| (*name).to_owned()).collect(),
        moving,
        is_worked_on,
    };
    finds(Id::GroupsDiffer, Warning, &["names g3", "backbone.groups"], |d| {
        d.groups[0].data.as_mut().unwrap().map = Some(map(&["g1", "g3"], 5, true));
    });
    finds(Id::MoveInterrupted, Warning, &["5 slots", "reshard resume"], |d| {
        let data = d.groups[0].data.as_mut().unwrap();
        (data.map, data.groups) = (Some(map(&["g1"], 5, false)), Some("old".to_owned()));
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
    use Weight::{Advice, Grave, Warning};
    finds(Id::MinReplicas, Warning, &["without any replica"], |d| set(d, "min-replicas-to-write", "0"));
    finds(Id::MinReplicas, Advice, &["as it must with 1", "second replica"], |d| {
        set(d, "min-replicas-to-write", "0");
        d.groups[0].seen.capacity.replicas = Some(1);
    });
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
    finds(Id::ClusterDisabled, Weight::Grave, &[PRIMARY, "backbone.addresses"], |d| {
        d.arrangement = Arrangement::RedisCluster;
        d.groups[0].servers[0].info.insert("cluster_enabled".to_owned(), "0".to_owned());
    });
    finds(Id::ClusterSlots, Weight::Grave, &["slot 93 (share 2)", PRIMARY], |d| {
        d.shares_of_nobody = vec![("2".to_owned(), 93)];
    });
    finds(Id::ClusterState, Weight::Grave, &["state fail", "5461 of 16384"], |d| {
        on(d, "cluster-node-timeout", "2000");
        say(d, "cluster_state", "fail");
        say(d, "cluster_slots_ok", "5461");
    });
}
