//! What the Redis backbone is told: where the servers are, who this node is, and every bound it keeps.
//!
//! Plain values that the node's configuration has checked. Nothing here opens anything.

use std::path::PathBuf;
use std::time::Duration;

use super::keys::Keys;
use super::topic::OUTBOX_PARTS;

/// How the Redis servers are arranged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server, by address (`host:port`). It is a group of its own, called `single`.
    Single(String),
    /// Groups of a primary and its replicas, watched by Sentinels.
    Sentinel {
        /// Addresses of all Sentinels.
        sentinels: Vec<String>,
        /// The names Sentinel knows the groups by.
        groups: Vec<String>,
    },
    /// Redis Cluster. Its groups are shares of the deployment, called by their numbers; where each lies is the product's own
    /// business.
    RedisCluster {
        /// Addresses of some of its servers, to ask for the others.
        seeds: Vec<String>,
        /// How many shares there are. Can never be changed.
        shares: u16,
    },
}

/// User and password of a server.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The ACL user; `None` for the default one.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How connections are encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encryption {
    /// Certificates of those who may vouch for a server, PEM; the system's own where there is none.
    pub ca: Option<PathBuf>,
    /// A certificate and its key, PEM, that this node shows.
    pub shown: Option<(PathBuf, PathBuf)>,
}

/// What a node does for others. All of it unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// It takes connections, and so has interest.
    pub websocket: bool,
    /// It takes publishes and queries.
    pub rest: bool,
    /// It claims and sends webhooks.
    pub webhooks: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self { websocket: true, rest: true, webhooks: true }
    }
}

/// Everything the Redis backbone is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Beginning of every key and channel, and the first part of every group's identity. Two deployments on the same
    /// servers differ in it.
    pub deployment: String,
    /// Where the servers are.
    pub topology: Topology,
    /// Number of the database; 0 unless told otherwise.
    pub database: i64,
    /// For the Redis servers.
    pub credentials: Credentials,
    /// For the Sentinels.
    pub sentinel_credentials: Credentials,
    /// Whether, and how, connections are encrypted. Sentinels' too.
    pub tls: Option<Encryption>,
    /// What this node does.
    pub roles: Roles,
    /// Where other nodes reach this one over HTTP (`host:port`), for sessions of fallback transports.
    pub advertise: Option<String>,
    /// Bounds and times.
    pub limits: Limits,
}

/// Bounds and times. The defaults are what the promises were tested with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of publications that the logs have not confirmed yet, over all groups, with 256 more for each; beyond it publishes
    /// are answered 503, and client events dropped.
    pub buffer_bytes_max: u64,
    /// Longest a publish waits before it is answered 503.
    pub publish_timeout: Duration,
    /// Silence of a script's answer after which a group's publications take the detour too.
    pub breaker: Duration,
    /// Silence of a connection on which a heartbeat is due every 100 ms after which it is deaf, whatever TCP says.
    pub silence: Duration,
    /// Longest a command waits for its answer before its connection is given up.
    pub command_timeout: Duration,
    /// Longest `WAIT` waits for a replica.
    pub wait: Duration,
    /// How long the log keeps an entry.
    pub log_age: Duration,
    /// Entries the log keeps at most; each holds one call's publications.
    pub log_entries_max: u64,
    /// Edges for webhooks that wait in each group's outbox at most. Beyond half of it, what only informs is dropped; beyond all of
    /// it, the oldest.
    pub outbox_entries_max: u64,
    /// How long a confirmed publication is kept for appending it again.
    pub reappend_age: Duration,
    /// How long a node's lease is good for after it was renewed last.
    pub lease: Duration,
    /// Subscriptions outlive the last local subscriber by this, so that a page that is loaded anew costs nothing.
    pub interest_linger: Duration,
    /// Most bytes per second that this node publishes over the bus for one group. What is beyond it waits.
    pub bus_bytes_per_s: u64,
    /// Publications that wait for a worker's turn on this node's loop; beyond it publishes are answered 503.
    pub queue_max: usize,
    /// Pushed messages of one connection that wait to be looked at; beyond it the connection is dropped and what it would
    /// have brought is read from the log.
    pub pushes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            buffer_bytes_max: 256 << 20,
            publish_timeout: Duration::from_millis(3_500),
            breaker: Duration::from_millis(100),
            silence: Duration::from_millis(350),
            command_timeout: Duration::from_millis(500),
            wait: Duration::from_millis(80),
            log_age: Duration::from_secs(60),
            log_entries_max: 200_000,
            outbox_entries_max: 1_000_000,
            reappend_age: Duration::from_secs(30),
            lease: Duration::from_secs(7),
            interest_linger: Duration::from_secs(10),
            bus_bytes_per_s: 128 << 20,
            queue_max: 65_536,
            pushes_max: 65_536,
        }
    }
}

impl Limits {
    /// What each part of a group's outbox has of [`Limits::outbox_entries_max`].
    #[must_use]
    pub fn outbox_part_max(&self) -> u64 {
        (self.outbox_entries_max / u64::from(OUTBOX_PARTS)).max(1)
    }
}

impl Topology {
    /// Names of the groups, sorted: what the first slot map is made of.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        match self {
            Self::Single(_) => vec!["single".to_owned()],
            Self::Sentinel { groups, .. } => {
                let mut groups = groups.clone();
                groups.sort_unstable();
                groups.dedup();
                groups
            }
            Self::RedisCluster { shares, .. } => {
                let mut groups: Vec<String> = (0..*shares).map(|share| share.to_string()).collect();
                groups.sort_unstable();
                groups
            }
        }
    }
}

impl Settings {
    /// A deployment of this name on these servers, and everything else as it is when nobody says otherwise.
    #[must_use]
    pub fn new(deployment: &str, topology: Topology) -> Self {
        Self {
            deployment: deployment.to_owned(),
            topology,
            database: 0,
            credentials: Credentials::default(),
            sentinel_credentials: Credentials::default(),
            tls: None,
            roles: Roles::default(),
            advertise: None,
            limits: Limits::default(),
        }
    }

    /// Whether there is one server in all, and so never a replica: what is to be replicated is done when that server has it.
    #[must_use]
    pub fn has_one_server(&self) -> bool {
        matches!(self.topology, Topology::Single(_))
    }

    /// How the names of a group's keys and channels are made.
    #[must_use]
    pub fn keys(&self, group: &str) -> Keys {
        match self.topology {
            Topology::RedisCluster { .. } => Keys::of_share(&self.deployment, group),
            _ => Keys::new(&self.deployment),
        }
    }
}
