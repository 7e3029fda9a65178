//! What the node is to do: read from a TOML file, from the environment and from flags.
//!
//! [`load`] turns what was written into what is meant in one pass and reports every mistake at once, each with its
//! place. A [`Config`] that exists has passed every check; nobody behind this module checks a setting again. An unknown
//! key never stops a node, so that a release starts on the file of a later one. Nothing here listens, and nothing here
//! prints a secret.
//!
//! Reading order: `keys` and `table` (what can be written), `raw`, `file` and `value` (what was written), `meaning` (what
//! is meant), `watch` (a file that changes while the node runs).

mod app;
mod backbone;
mod capacity;
mod file;
mod finding;
mod keys;
mod meaning;
mod raw;
mod rules;
mod show;
mod suggest;
mod table;
mod taken;
mod value;
mod watch;
mod webhooks;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use fulmar_backbone::redis::settings::Settings as RedisSettings;
use fulmar_backbone::redis::settings::{Roles, Settings};
use fulmar_control::observed::Capacity;
use fulmar_protocol::app::{App, Secret};
use ipnet::IpNet;

use crate::webhooks::egress::Egress;

pub use app::{WrittenApp, read_app};
pub use finding::{Finding, Place, Refused, Weight, What};
pub use keys::{Class, KEYS, Key, Kind, Preset, key};
pub use meaning::DEMO_APP;
pub use raw::{CLIENT_VARIABLES, Sources};
pub use watch::{ConfigWatch, Reload};

/// Exit code of a node that refuses its configuration (`EX_CONFIG` of sysexits).
pub const EXIT_CONFIG: u8 = 78;

/// Everything a node is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it listens and how it keeps time with its peers.
    pub server: Server,
    /// What one node gives to its peers together.
    pub limits: Limits,
    /// How it goes away.
    pub shutdown: Shutdown,
    /// Certificate and key; `None` is no TLS.
    pub tls: Option<Tls>,
    /// What it writes about itself.
    pub logging: Logging,
    /// Whom it tells its figures.
    pub metrics: Metrics,
    /// Where it keeps what must outlive it; `None` leaves the choice to the machine.
    pub storage: Option<PathBuf>,
    /// The admin API; `None` is off.
    pub admin: Option<Admin>,
    /// How it hears other nodes.
    pub backbone: Backbone,
    /// What the groups of Redis servers can bear, by name, for the operator's verbs.
    pub capacities: BTreeMap<String, Capacity>,
    /// How far webhooks may go, whatever apps say.
    pub webhooks: Egress,
    /// The demo app, when it is on. It is also among `apps`.
    pub demo: Option<App>,
    /// Whether the demo app is on or off by itself, and not because somebody wrote so.
    pub demo_is_default: bool,
    /// The apps served. Ids and keys are unique.
    pub apps: Vec<App>,
}

/// Where a node listens and how it keeps time with its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Beginning of every path: empty, or `/text` without a slash at its end.
    pub path_prefix: String,
    /// Event loops that own connections: 1 to 128.
    pub workers: usize,
    /// Threads for handshakes and REST: 1 to 128.
    pub http_threads: usize,
    /// Silence after which a connection is pinged; whole seconds, at least one.
    pub activity_timeout: Duration,
    /// How long a ping may stay unanswered.
    pub pong_timeout: Duration,
    /// Whose word about a peer's address is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections from trusted proxies begin with a PROXY header.
    pub proxy_protocol: bool,
    /// What it does for others.
    pub roles: Roles,
}

impl Server {
    /// Address and port to listen on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}

/// What one node gives to its peers together. The answer to each limit when it is reached stands in [`KEYS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once; `None` is as many as the open-file limit allows.
    pub connections_max: Option<u32>,
    /// Connections open at once from one IPv4 address or IPv6 /64; `None` is no limit.
    pub connections_per_ip_max: Option<u32>,
    /// WebSocket handshakes per second; `None` is no limit.
    pub handshakes_per_s_max: Option<u32>,
    /// How long a request head may take.
    pub handshake_timeout: Duration,
    /// Bytes of a request head.
    pub handshake_bytes_max: usize,
    /// Bytes of one message from a client, all fragments together.
    pub message_bytes_max: usize,
    /// How long one message may take, from its first byte to its last.
    pub frame_timeout: Duration,
    /// Subscriptions of one connection.
    pub channels_per_connection_max: usize,
    /// Subscribes of one connection per second, beyond a first [`Limits::channels_per_connection_max`] at once.
    pub subscribes_per_s_max: u32,
    /// Bytes that may wait unsent for one connection.
    pub outbound_bytes_max: usize,
    /// How long a frame may wait unsent.
    pub outbound_age_max: Duration,
    /// Bytes that may wait unsent for all connections together.
    pub outbound_total_bytes_max: usize,
    /// How long an HTTP connection may be idle.
    pub keep_alive_timeout: Duration,
    /// How long a caller may take nothing of its answer.
    pub answer_timeout: Duration,
    /// Bytes of one REST request body.
    pub request_body_bytes_max: usize,
    /// How long a REST request may take to arrive.
    pub request_timeout: Duration,
    /// Idempotency keys remembered per app.
    pub idempotency_keys_max: usize,
    /// Deliveries that may wait for one worker.
    pub inbox_deliveries_max: usize,
    /// Bytes of all cached events together.
    pub cache_bytes_max: usize,
}

/// How a node hears other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backbone {
    /// Not at all: it is the whole deployment.
    Embedded,
    /// Over Redis.
    Redis(Box<Settings>),
}

/// How a node goes away after SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// How long it keeps serving while it already says that it is not ready.
    pub grace: Duration,
    /// Over how long it then closes its sockets.
    pub drain: Duration,
}

/// A certificate and where it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// A port for TLS alone; `None` shares the server's port, told apart by the first byte.
    pub port: Option<u16>,
}

/// Where the admin API listens, and what it takes to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Address and port; port 0 takes a free one. Never anything but loopback without a token.
    pub address: SocketAddr,
    /// What callers must present; `None` is the one in the storage folder.
    pub token: Option<Secret>,
}

/// What a node writes about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logging {
    /// The least grave lines written.
    pub level: tracing::Level,
    /// For people or for machines.
    pub format: LogFormat,
}

/// Whom a node tells its figures, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// `host:port` of a statsd daemon; `None` is nobody.
    pub statsd: Option<String>,
    /// How often.
    pub interval: Duration,
    /// Beginning of every name, without the dot behind it; may be empty.
    pub prefix: String,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// A configuration that may be used, and where it came from.
#[derive(Debug)]
pub struct Loaded {
    /// What is meant.
    pub config: Config,
    /// What is to be said about it: warnings and advice, nothing fatal.
    pub findings: Vec<Finding>,
    sources: Sources,
    effective: meaning::Effective,
    files: Vec<PathBuf>,
    fingerprint: u64,
}

impl Loaded {
    /// The effective configuration as TOML, each value with its source and no secret among them.
    #[must_use]
    pub fn show(&self) -> String {
        show::show(&self.effective)
    }

    /// The apps as they were written, by id, without their secrets. The demo app was not written.
    #[must_use]
    pub fn shown_apps(&self) -> Vec<serde_json::Map<String, serde_json::Value>> {
        self.effective.apps.iter().map(app::shown).collect()
    }

    /// The configuration file, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&std::path::Path> {
        self.sources.file()
    }
}

/// Reads all sources and says what they mean.
///
/// # Errors
/// When a hard key has a bad value or keys contradict each other; all findings are in the error.
pub fn load(sources: Sources) -> Result<Loaded, Refused> {
    let raw::Reading { raw, mut findings, fingerprint, files } = raw::read(&sources);
    let effective = meaning::Effective::of(raw);
    let config = meaning::mean(&effective, &mut findings);
    let findings = sorted(findings);
    if findings.iter().any(|f| f.weight == Weight::Refuses) {
        return Err(Refused { findings });
    }
    Ok(Loaded { config, findings, sources, effective, files, fingerprint })
}

/// File first, from top to bottom, then environment, then flags: the order in which somebody goes and mends them.
fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|f| match &f.place {
        Place::File { line, .. } => (0, *line),
        Place::Variable(_) => (1, 0),
        Place::Flag(_) => (2, 0),
        Place::Default => (3, 0),
    });
    findings
}
