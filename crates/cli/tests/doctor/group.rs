//! A group with its Sentinels and a node, set up as advised; then everything is made wrong that can be there.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use fulmar_rig::{
    Node, Ready, Redis, SentinelDeployment, SentinelOptions, is_available, server_program, valkey_program,
};

use super::other::Other;
use super::patient::{Again, PATIENCE, Patient, WITHIN, has, says, split, unix_ms};

const APP: &str = "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n";

struct Stage {
    redis: SentinelDeployment,
    patient: Patient,
    node: Node,
}

impl Stage {
    /// As the documentation advises: nothing is wrong.
    fn set() -> Self {
        let mut options = SentinelOptions { fails_over_first: true, ..SentinelOptions::default() };
        options.redis.lines =
            ["maxmemory 4gb", "client-output-buffer-limit pubsub 16mb 8mb 10", "enable-debug-command yes"]
                .map(str::to_owned)
                .into();
        let redis = SentinelDeployment::start(&[("g1", 2)], 3, &options).unwrap();
        let sentinels: Vec<String> =
            redis.sentinels().iter().map(|sentinel| format!("{:?}", sentinel.redis.addr().to_string())).collect();
        let backbone =
            format!("[backbone]\nkind = \"redis\"\nsentinels = [{}]\ngroups = [\"g1\"]\n", sentinels.join(", "));
        let capacity = "[backbone.group.g1]\nlink_mbit = 10000\nreplicas = 2\nmemory_mb = 4096\n";
        let config = format!("{APP}{backbone}{capacity}");
        let node = Node::start(Path::new(env!("CARGO_BIN_EXE_fulmar")), &config, Ready::ForTraffic).unwrap();
        let patient = Patient::new(&format!("{config}[storage]\npath = \"STORAGE\"\n"));
        Self { redis, patient, node }
    }

    fn primary(&self) -> &Redis {
        &self.redis.primary_of("g1").unwrap().redis
    }

    fn sentinel(&self, at: usize, words: &str) {
        let words = split(words);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.redis.sentinels()[at].redis.call(&words).unwrap();
    }
}

fn tell(redis: &Redis, settings: &[(&str, &str)]) {
    for (name, value) in settings {
        redis.call(&["CONFIG", "SET", name, value]).unwrap();
    }
}

/// DOC-1 DOC-2 DOC-4 DOC-11 DOC-12 DOC-13 DOC-14 DOC-15 DOC-17 DOC-18 DOC-20
#[test]
fn everything_that_is_made_wrong_with_a_group_is_found_and_nothing_else() {
    if !is_available() {
        return;
    }
    let stage = Stage::set();
    let whole = stage.patient.await_findings(&[]);
    assert!(whole.is_empty());
    assert_eq!(stage.patient.run(&[]).code, 0);

    sparse_configuration(&stage);
    settings_of_servers(&stage);
    settings_of_sentinels(&stage);
    nodes(&stage);
    metrics(&stage);
    copies(&stage);
    stage.patient.await_findings(&[]);
    belief(&stage);
    losses(&stage);
    versions(&stage);
}

/// A second node, whose figures go where nobody listens: it complains once, serves, and says so in its lease.
fn metrics(stage: &Stage) {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = std::fs::read_to_string(stage.patient.file()).unwrap();
    let (config, _) = config.split_once("[storage]").unwrap();
    let config = format!("{config}[metrics]\nstatsd = \"{closed}\"\ninterval_s = 1\n");
    let node = Node::start(Path::new(env!("CARGO_BIN_EXE_fulmar")), &config, Ready::ForTraffic).unwrap();
    let found = stage.patient.await_findings(&["metrics-sink-unreachable"]);
    let (at, sink) = (node.addr().to_string(), format!("{closed}: nothing listens there"));
    says(&found, "metrics-sink-unreachable", "warning", &[&at, &sink]);
    // Whatever it tried meanwhile.
    assert_eq!(node.log().matches("metrics do not arrive").count(), 1, "{}", node.log());
    node.terminate();
    assert!(node.await_end(PATIENCE).unwrap().is_some_and(|status| status.success()), "{}", node.log());
    stage.patient.await_findings(&[]);
}

/// The same deployment, described by somebody who leaves out a Sentinel and what the machines can bear.
fn sparse_configuration(stage: &Stage) {
    let two: Vec<String> = stage.redis.sentinels()[..2]
        .iter()
        .map(|sentinel| format!("{:?}", sentinel.redis.addr().to_string()))
        .collect();
    let described = Patient::new(&format!(
        "{APP}[storage]\npath = \"STORAGE\"\n[backbone]\nkind = \"redis\"\nsentinels = [{}]\ngroups = [\"g1\"]\n",
        two.join(", ")
    ));
    let found = described.await_findings(&["capacity-unknown", "sentinel-peers", "sentinels-too-few"]);
    says(&found, "sentinel-peers", "warning", &["counts 3 Sentinels", "2 are configured"]);
    says(&found, "capacity-unknown", "advice", &["link_mbit, replicas, memory_mb", "[backbone.group.g1]"]);
}

/// What `CONFIG SET` can do to a healthy group, all at once; and back.
fn settings_of_servers(stage: &Stage) {
    let primary = stage.primary();
    let replica = &stage.redis.replicas_of("g1").unwrap()[0].redis;
    let wrong = [
        ("maxmemory-policy", "allkeys-lru"),
        ("repl-backlog-size", "1mb"),
        ("client-output-buffer-limit", "replica 64mb 32mb 10 pubsub 1mb 512kb 5"),
        ("min-replicas-max-lag", "10"),
        ("timeout", "300"),
        ("busy-reply-threshold", "50"),
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("maxclients", "40"),
    ];
    let right = [
        ("maxmemory-policy", "noeviction"),
        ("repl-backlog-size", "64mb"),
        ("client-output-buffer-limit", "replica 256mb 128mb 60 pubsub 16mb 8mb 10"),
        ("min-replicas-max-lag", "2"),
        ("timeout", "0"),
        ("busy-reply-threshold", "5000"),
        ("appendonly", "no"),
        ("maxclients", "10000"),
    ];
    tell(primary, &wrong);
    tell(replica, &[("replica-read-only", "no"), ("maxmemory", "0")]);
    // As many as bring it to 40 with those of the node and of the others.
    let idle: Vec<_> = (0..14).map(|_| primary.connect().unwrap()).collect();
    primary.call(&["DEBUG", "SLEEP", "0.2"]).unwrap();
    let found = stage.patient.await_findings(&[
        "appendfsync-always",
        "backlog-too-small",
        "busy-reply-threshold",
        "idle-timeout",
        "maxclients",
        "maxmemory-policy",
        "maxmemory-unset",
        "min-replicas",
        "pubsub-buffer-too-small",
        "replica-buffer-too-small",
        "replica-writable",
        "slow-commands",
    ]);
    says(&found, "maxmemory-policy", "grave", &["allkeys-lru", "CONFIG SET maxmemory-policy noeviction"]);
    says(&found, "min-replicas", "warning", &["min-replicas-max-lag 10"]);
    says(&found, "slow-commands", "warning", &["DEBUG"]);
    says(&found, "replica-writable", "warning", &[&replica.addr().to_string()]);
    says(&found, "maxclients", "warning", &["of 40"]);
    drop(idle);
    tell(primary, &right);
    tell(replica, &[("replica-read-only", "yes"), ("maxmemory", "4gb")]);
}

/// What `SENTINEL SET` can do.
fn settings_of_sentinels(stage: &Stage) {
    let wrong = [
        ("failover-timeout", "180000"),
        ("down-after-milliseconds", "30000"),
        ("parallel-syncs", "2"),
        ("quorum", "4"),
    ];
    for at in 0..3 {
        wrong.iter().for_each(|(name, value)| stage.sentinel(at, &format!("SENTINEL SET g1 {name} {value}")));
    }
    let found = stage.patient.await_findings(&["down-after", "failover-timeout", "parallel-syncs", "sentinel-quorum"]);
    let first = stage.redis.sentinels()[0].redis.addr();
    let fix = format!("redis-cli -h 127.0.0.1 -p {} SENTINEL SET g1 failover-timeout 10000", first.port());
    says(&found, "failover-timeout", "grave", &["180 s", "360 s", &fix]);
    says(&found, "sentinel-quorum", "grave", &["never be a failover"]);
    let right =
        [("failover-timeout", "10000"), ("down-after-milliseconds", "1250"), ("parallel-syncs", "1"), ("quorum", "2")];
    for at in 0..3 {
        right.iter().for_each(|(name, value)| stage.sentinel(at, &format!("SENTINEL SET g1 {name} {value}")));
    }
}

/// A node that says other things than the one there is, with a clock that is behind; one that shares webhooks and has no
/// lease; and one whose lease stands.
fn nodes(stage: &Stage) {
    let primary = stage.primary();
    let stranger = Again::say(primary, |round| {
        let hour_ago = unix_ms() - 3_600_000;
        let lease = format!(
            "counter {round}\nrole websocket\nrelease 9.9.9\napps ffff\nsettings ffff\nfiles 1024\nclock {hour_ago}\nattached 0 g2\n"
        );
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        vec![
            words(&["HSET", "fulmar:nodes", "00aa", &lease]),
            words(&["HSET", "fulmar:claimants", "00bb", &(unix_ms() + 5_000).to_string()]),
        ]
    });
    let found = stage.patient.await_findings(&[
        "apps-differ",
        "clock-skew",
        "node-files-few",
        "node-not-attached",
        "node-not-reachable",
        "node-without-lease",
        "releases-differ",
        "settings-differ",
    ]);
    says(&found, "clock-skew", "grave", &["00aa", "behind"]);
    says(&found, "node-without-lease", "grave", &["00bb", "webhooks"]);
    says(&found, "node-not-attached", "grave", &["00aa", "nothing of it"]);
    says(&found, "releases-differ", "warning", &["9.9.9: 00aa"]);
    says(&found, "node-files-few", "warning", &["1024 files"]);
    drop(stranger);
    primary.call(&["HDEL", "fulmar:nodes", "00aa"]).unwrap();
    primary.call(&["HDEL", "fulmar:claimants", "00bb"]).unwrap();

    // Two that listen and say nothing, as a node does that was taken for dead.
    let bus = format!("fulmar:bus:{}", primary.addr());
    let deaf: Vec<_> = (0..2)
        .map(|_| {
            let mut connection = primary.connect().unwrap();
            connection.call(&["SUBSCRIBE", &bus]).unwrap();
            connection
        })
        .collect();
    let found = stage.patient.await_findings(&["node-without-lease"]);
    says(&found, "node-without-lease", "warning", &["3 connections", "1 have a lease"]);
    drop(deaf);
}

/// Fewer copies than there should be, and none that may be promoted; what a replica says of itself is what counts.
fn copies(stage: &Stage) {
    let replicas = stage.redis.replicas_of("g1").unwrap();
    let [first, second] = replicas.as_slice() else { panic!("two replicas") };
    tell(&first.redis, &[("replica-priority", "0")]);
    second.redis.call(&["REPLICAOF", "NO", "ONE"]).unwrap();
    // Sentinels would put it right within ten seconds; who is paused does not hear of that.
    let found = stage.patient.findings();
    let expected = ["no-promotable-replica", "replica-missing", "stray-primary"];
    assert!(has(&found, &expected), "{found:#?}");
    says(&found, "replica-missing", "warning", &["1 of 2 replicas"]);
    says(&found, "stray-primary", "grave", &[&second.addr().to_string(), "REPLICAOF"]);
    tell(&first.redis, &[("replica-priority", "100")]);
    let primary = stage.primary().addr();
    second.redis.call(&["REPLICAOF", &primary.ip().to_string(), &primary.port().to_string()]).unwrap();
    stage.redis.await_whole().unwrap();
}

/// Sentinels of another mind, and data of another group.
fn belief(stage: &Stage) {
    // From epoch 1 on the others put it right within a second, so that it must be told again and again.
    let wrong = stage.redis.replicas_of("g1").unwrap()[0].addr();
    let lying = Again::say(&stage.redis.sentinels()[2].redis, move |_| {
        let monitor = format!("SENTINEL MONITOR g1 {} {} 2", wrong.ip(), wrong.port());
        vec![split("SENTINEL REMOVE g1"), split(&monitor)]
    });
    let found = stage.patient.await_some(&["config-epoch-zero", "sentinels-disagree"]);
    let liar = stage.redis.sentinels()[2].redis.addr();
    says(&found, "sentinels-disagree", "grave", &[&format!("{liar} names {wrong}"), "SENTINEL MONITOR g1"]);
    drop(lying);
    stage.redis.misname(2, "g1", stage.primary_by_role()).unwrap();

    stage.sentinel(1, "SENTINEL REMOVE g1");
    let found = stage.patient.await_some(&["sentinel-does-not-know-group", "sentinel-peers"]);
    let unknowing = stage.redis.sentinels()[1].redis.addr().to_string();
    says(&found, "sentinel-does-not-know-group", "grave", &[&unknowing, "SENTINEL MONITOR g1"]);

    let right = stage.primary_by_role();
    for at in [1, 2] {
        stage.redis.misname(at, "g1", right).unwrap();
    }
    let primary = &stage.redis.group("g1").unwrap().acting_primaries()[0].redis;
    primary.call(&["HSET", "fulmar:group", "id", "other/g1", "groups", "g1,g2"]).unwrap();
    let found = stage.patient.await_some(&["groups-differ", "wrong-identity"]);
    says(&found, "wrong-identity", "grave", &["other/g1"]);
    says(&found, "groups-differ", "grave", &["g1,g2"]);
    primary.call(&["HSET", "fulmar:group", "id", "fulmar/g1", "groups", "g1"]).unwrap();
}

/// What is gone or hangs is a finding, and does not keep the rest from being looked at, nor the command for long.
fn losses(stage: &Stage) {
    for at in 0..3 {
        // No failover meanwhile.
        stage.sentinel(at, "SENTINEL SET g1 down-after-milliseconds 60000");
    }
    let primary = stage.redis.group("g1").unwrap().acting_primaries()[0];
    stage.redis.sentinels()[0].redis.stop();
    primary.redis.stop();
    let said = stage.patient.run(&["--json"]);
    assert!(said.took < WITHIN + PATIENCE / 6, "it took {:?}", said.took);
    let found = serde_json::from_str::<serde_json::Value>(&said.out).unwrap()["findings"].as_array().unwrap().clone();
    let expected = ["down-after", "no-primary", "sentinel-unreachable", "server-unreachable"];
    assert!(has(&found, &expected), "{found:#?}");
    assert_eq!(said.code, 3);
    says(&found, "server-unreachable", "grave", &[&primary.addr().to_string()]);
    primary.redis.resume();
    stage.redis.sentinels()[0].redis.resume();
    assert!(stage.node.is_running());
}

/// A server of another make follows the primary. The last of all: Sentinels remember it.
fn versions(stage: &Stage) {
    let Some(program) = valkey_program() else {
        eprintln!("!! SKIPPED: servers of different versions, since there is no Valkey (cargo xtask setup fetches it)");
        return;
    };
    let primary = stage.primary_by_role();
    let following = ["--replicaof", &primary.ip().to_string(), &primary.port().to_string()];
    let other = Other::start(Command::new(program), &following);
    let found = stage.patient.await_some(&["redis-versions-differ"]);
    let product = if stage.is_valkey() { "runs Valkey" } else { "runs Redis" };
    says(&found, "redis-versions-differ", "warning", &[&format!("127.0.0.1:{} runs Valkey", other.port), product]);
}

impl Stage {
    fn is_valkey(&self) -> bool {
        server_program().file_name().is_some_and(|name| name == "valkey-server")
    }

    fn primary_by_role(&self) -> std::net::SocketAddr {
        self.redis.group("g1").unwrap().acting_primaries()[0].addr()
    }
}
