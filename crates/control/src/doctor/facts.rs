//! What was seen of a deployment. Plain values; what they mean is for the other files.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observed::GroupSeen;

/// How the Redis servers are arranged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Arrangement {
    /// There is none: one node is the whole deployment.
    #[default]
    Embedded,
    /// One server.
    Single,
    /// Groups, watched by Sentinels.
    Sentinel,
    /// Redis Cluster.
    RedisCluster,
}

/// A deployment.
#[derive(Debug, Clone, Default)]
pub struct Deployment {
    /// How its Redis servers are arranged.
    pub arrangement: Arrangement,
    /// Names of its groups as they are configured, sorted and joined by commas.
    pub groups_configured: String,
    /// Its groups; in Redis Cluster one, with all servers.
    pub groups: Vec<GroupFacts>,
    /// Shares whose slot no server of Redis Cluster has, each with that slot.
    pub shares_of_nobody: Vec<(String, u16)>,
    /// Its nodes, each once.
    pub nodes: Vec<NodeFacts>,
    /// The machine that looks.
    pub local: Local,
}

/// A group, beyond what every verb looks at.
#[derive(Debug, Clone, Default)]
pub struct GroupFacts {
    /// What every verb looks at.
    pub seen: GroupSeen,
    /// What each server that answered said beyond that.
    pub servers: Vec<ServerFacts>,
    /// Sentinels that answer and do not watch it.
    pub unwatched_by: Vec<String>,
    /// Of servers and Sentinels that show certificates: when the first of them ends, in seconds since 1970.
    pub certificates: Vec<(String, i64)>,
    /// What its primaries hold; `None` where they could not be read.
    pub data: Option<DataFacts>,
}

/// A server, in its own words.
#[derive(Debug, Clone, Default)]
pub struct ServerFacts {
    /// `host:port`.
    pub address: String,
    /// Fields of `INFO`.
    pub info: BTreeMap<String, String>,
    /// What `CONFIG GET` answered; empty where it was refused.
    pub settings: BTreeMap<String, String>,
    /// How far its clock is ahead of this machine's.
    pub clock: Option<ClockFact>,
    /// Commands of the last hour that took long, as `SLOWLOG GET` lists them.
    pub slow: Vec<SlowCommand>,
    /// What it refused to answer, in its words.
    pub refused: Vec<String>,
    /// The disk that its data folder is on, where that is this machine's.
    pub disk: Option<Disk>,
}

/// How far a clock is ahead of this machine's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockFact {
    /// In milliseconds; below 0 it is behind.
    pub ahead_ms: i64,
    /// By how much that may be wrong either way.
    pub error_ms: u64,
}

/// A command that took long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlowCommand {
    /// Its first word.
    pub name: String,
    /// How long it took.
    pub took: Duration,
}

/// A disk, or what else has a limited room for files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    /// A folder on it.
    pub folder: String,
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// All of it; 0 where the system does not say.
    pub total_bytes: u64,
}

/// What the primaries of a group hold of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataFacts {
    /// Epochs by the name nodes have for the group, or for each share of a Redis Cluster that lies there.
    pub epochs: Vec<(String, u64)>,
    /// Names of all groups as the first node stored them; `None` where no node did.
    pub groups: Option<String>,
    /// The slot map, if one was written: then nodes go by it.
    pub map: Option<MapFacts>,
    /// Nodes that share the work on webhooks now.
    pub claimants: Vec<String>,
    /// Connections that listen on the bus of the server with the most of them: every node listens on each once.
    pub bus_listeners: u64,
    /// Webhooks.
    pub outbox: OutboxFacts,
}

/// A slot map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MapFacts {
    /// The groups that it names.
    pub groups: Vec<String>,
    /// Slots that are on their way.
    pub moving: usize,
    /// Whether somebody moves them now.
    pub is_worked_on: bool,
}

/// Webhooks of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboxFacts {
    /// Edges that no request was made of, and requests that were not answered yet.
    pub waiting: u64,
    /// How long the oldest of them waits.
    pub oldest: Duration,
    /// Requests that were given up and are kept.
    pub given_up: u64,
    /// Edges that were dropped because too many waited. Rises.
    pub dropped: u64,
}

/// A node, by its lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// For how long the lease was watched without being renewed.
    pub silent_for: Duration,
    /// How far its clock is ahead of this machine's, if it says.
    pub clock: Option<ClockFact>,
    /// Where others reach it.
    pub advertise: Option<String>,
    /// What it does: `websocket`, `rest`, `webhooks`.
    pub roles: Vec<&'static str>,
    /// By group: the epoch in which it hears everything that it follows.
    pub attached: Vec<(String, u64)>,
    /// Its connections.
    pub connections: u64,
    /// What it runs; empty where it does not say.
    pub release: String,
    /// A digest of its apps.
    pub apps: String,
    /// A digest of its settings.
    pub settings: String,
    /// Files it may open; 0 where it does not say.
    pub open_files: u64,
    /// Where its metrics do not arrive, and why.
    pub metrics_trouble: Option<String>,
}

/// The machine that looks.
#[derive(Debug, Clone, Default)]
pub struct Local {
    /// Now, in seconds since 1970.
    pub unix_s: i64,
    /// What the configuration's own checks say.
    pub config: Vec<ConfigFact>,
    /// Certificates that the configuration names.
    pub certificates: Vec<CertificateFact>,
    /// The storage folder; `None` where nothing is kept.
    pub storage: Option<StorageFact>,
    /// Connections that are allowed, and the files they need with everything else.
    pub connections_max: Option<(u64, u64)>,
    /// Files that a process of this user may open here.
    pub open_files: Option<u64>,
    /// Where the metrics of the node alone that runs here do not arrive, and why, by its own word.
    pub metrics_trouble: Option<String>,
}

/// Something the configuration's own checks say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFact {
    /// In their words, with the place.
    pub text: String,
    /// Whether a value is not applied that was written.
    pub is_ignored: bool,
}

/// A certificate file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFact {
    /// The key that names it.
    pub key: &'static str,
    /// The file.
    pub path: String,
    /// The earliest end of those in it, in seconds since 1970, or why there is none.
    pub ends: Result<i64, String>,
}

/// The storage folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageFact {
    /// Where it is.
    pub folder: String,
    /// Whether it is written in the configuration.
    pub is_configured: bool,
    /// Why it cannot be used, if so.
    pub trouble: Option<String>,
    /// Files in it that others than their owner may read.
    pub open_to_others: Vec<String>,
    /// The disk it is on.
    pub disk: Option<Disk>,
}

impl ServerFacts {
    /// A setting, as `CONFIG GET` answers it.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// A setting that is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.setting(name)?.parse().ok()
    }

    /// A field of `INFO` that is a number.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<u64> {
        self.info.get(name)?.parse().ok()
    }

    /// A field of `INFO`.
    #[must_use]
    pub fn word(&self, name: &str) -> Option<&str> {
        self.info.get(name).map(String::as_str)
    }

    /// Whether it says that it takes writes.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.word("role") == Some("master")
    }

    /// Its version: as a Valkey server its own, and not that of the Redis it stands for.
    #[must_use]
    pub fn version(&self) -> Option<(&'static str, &str)> {
        let valkey = self.word("valkey_version").map(|version| ("Valkey", version));
        valkey.or_else(|| self.word("redis_version").map(|version| ("Redis", version)))
    }

    /// Hard and soft limit, and the soft one's seconds, of a class of output buffers; 0 is none.
    #[must_use]
    pub fn output_limit(&self, class: &str) -> Option<[u64; 3]> {
        let words: Vec<&str> = self.setting("client-output-buffer-limit")?.split_whitespace().collect();
        let alias = if class == "replica" { "slave" } else { class };
        let of = words.chunks_exact(4).find(|of| of[0] == class || of[0] == alias)?;
        Some([of[1].parse().ok()?, of[2].parse().ok()?, of[3].parse().ok()?])
    }

    /// Host and port, as its own tool takes them.
    #[must_use]
    pub fn tool(&self) -> String {
        tool(&self.address)
    }
}

/// How a person speaks to the server at this address.
#[must_use]
pub fn tool(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((host, port)) => format!("redis-cli -h {} -p {port}", host.trim_matches(['[', ']'])),
        None => format!("redis-cli -h {address}"),
    }
}

impl GroupFacts {
    /// What a server said beyond what every verb looks at.
    #[must_use]
    pub fn server(&self, address: &str) -> Option<&ServerFacts> {
        self.servers.iter().find(|server| server.address == address)
    }
}
