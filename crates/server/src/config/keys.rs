//! The table of keys: the one place that says what can be written, what it means and what applies when it is not.
//!
//! Reading, `fulmar config explain` and `fulmar config show` all work from this table, so that none of them can know a
//! key the others do not. Turning values into [`super::Config`] takes every key out of it; a test checks that none is
//! left over.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A whole number within bounds, both included.
    Integer {
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// `true` or `false`.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Text that passes a check; the text of the error finishes the sentence "KEY ...".
    Text(Check),
    /// Several texts, each passing the check.
    List(Check),
    /// A file. A relative path in the configuration file starts at that file's folder.
    Path,
    /// Text that is never shown.
    Secret,
}

type Check = fn(&str) -> Result<(), &'static str>;

/// What applies when nothing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Nothing; the text says what that means.
    Unset(&'static str),
    /// A number.
    Integer(u64),
    /// A switch.
    Switch(bool),
    /// A text.
    Text(&'static str),
    /// No entries.
    EmptyList,
}

/// What a bad value does to a node that starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It refuses to start.
    Hard,
    /// It starts with the default and warns: what only observes must never stop what serves.
    Soft,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// `section.key`; the section `apps` is the one written as `[[apps]]`.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What applies when it is not written.
    pub preset: Preset,
    /// Unit of a number; empty when it has none.
    pub unit: &'static str,
    /// What it does, in full sentences.
    pub meaning: &'static str,
    /// What a bad value does.
    pub class: Class,
    /// Whether a change in the file takes effect while the node runs.
    pub reloadable: bool,
    /// The flag of `fulmar serve` with the same effect.
    pub flag: Option<&'static str>,
}

impl Key {
    /// The section.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(section, _)| section)
    }

    /// The key within its section.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The environment variable with the same effect. Keys of `[[apps]]` have none: see `FULMAR_APPS`.
    #[must_use]
    pub fn variable(&self) -> Option<String> {
        (self.section() != "apps").then(|| format!("FULMAR_{}", self.path.replace('.', "__").to_uppercase()))
    }

    /// Whether its value must not be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret)
    }

    /// What it takes, as a person reads it.
    #[must_use]
    pub fn kind_text(&self) -> String {
        match self.kind {
            Kind::Integer { min, max: u64::MAX } => format!("a whole number from {min}"),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Switch => "true or false".to_owned(),
            Kind::OneOf(words) => format!("one of {}", words.join(", ")),
            Kind::Text(_) => "text".to_owned(),
            Kind::List(_) => "a list of texts".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Secret => "text that is never shown".to_owned(),
        }
    }

    /// The default, as it would be written in TOML, or what no value means.
    #[must_use]
    pub fn preset_text(&self) -> String {
        match self.preset {
            Preset::Unset(meaning) => format!("not set: {meaning}"),
            Preset::Integer(n) => n.to_string(),
            Preset::Switch(on) => on.to_string(),
            Preset::Text(text) => format!("{text:?}"),
            Preset::EmptyList => "[]".to_owned(),
        }
    }

    /// All there is to say about the key: what `fulmar config explain KEY` prints.
    #[must_use]
    pub fn explain(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" ({})", self.unit) };
        let mut out = format!("{}\n  {}\n", self.path, self.meaning);
        let mut line = |name: &str, text: &str| out.push_str(&format!("  {name:<9} {text}\n"));
        line("takes", &format!("{}{unit}", self.kind_text()));
        line("default", &self.preset_text());
        match self.variable() {
            Some(variable) => line("variable", &variable),
            None => line("variable", "none; FULMAR_APPS adds whole apps (fulmar serve --help)"),
        }
        if let Some(flag) = self.flag {
            line("flag", flag);
        }
        line(
            "if wrong",
            match self.class {
                Class::Hard => "hard: the node does not start (exit code 78)",
                Class::Soft => "soft: the node warns and uses the default",
            },
        );
        line("change", if self.reloadable { "taken over while the node runs" } else { "needs a restart" });
        out
    }
}

/// The key at `path`.
#[must_use]
pub fn key(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.path == path)
}

const fn integer(
    path: &'static str,
    (min, max): (u64, u64),
    preset: u64,
    unit: &'static str,
    meaning: &'static str,
) -> Key {
    hard(path, Kind::Integer { min, max }, Preset::Integer(preset), meaning).in_unit(unit)
}

const fn hard(path: &'static str, kind: Kind, preset: Preset, meaning: &'static str) -> Key {
    Key { path, kind, preset, unit: "", meaning, class: Class::Hard, reloadable: false, flag: None }
}

impl Key {
    const fn in_unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    const fn unset(mut self, meaning: &'static str) -> Self {
        self.preset = Preset::Unset(meaning);
        self
    }

    const fn soft(mut self) -> Self {
        self.class = Class::Soft;
        self
    }

    const fn reloadable(mut self) -> Self {
        self.reloadable = true;
        self
    }

    const fn flag(mut self, flag: &'static str) -> Self {
        self.flag = Some(flag);
        self
    }
}

const U32_MAX: u64 = u32::MAX as u64;
const GIB: u64 = 1 << 30;

/// Every key, in the order of the documentation.
pub static KEYS: &[Key] = &[
    hard(
        "server.host",
        Kind::Text(check_host),
        Preset::Text("127.0.0.1"),
        "The address to listen on. 127.0.0.1 reaches this machine only; 0.0.0.0 (IPv4) or :: (IPv6 and IPv4) reaches \
         every network it is in.",
    )
    .flag("--host"),
    integer(
        "server.port",
        (0, 65_535),
        6001,
        "",
        "The TCP port for WebSocket and HTTP alike. 0 takes a free port, which is printed at start.",
    )
    .flag("--port"),
    hard(
        "server.path_prefix",
        Kind::Text(check_path_prefix),
        Preset::Text(""),
        "What stands before /app and /apps in every path, for proxies that do not cut it off: with /ws the node answers \
         at /ws/app/KEY. Signatures cover the path without it.",
    ),
    integer(
        "server.workers",
        (0, 128),
        0,
        "workers",
        "Event loops that own connections. 0 makes one per core.",
    )
    .flag("--workers"),
    integer(
        "server.http_threads",
        (0, 128),
        0,
        "threads",
        "Threads that serve handshakes and the REST API. 0 makes one per two cores, at least one.",
    ),
    integer(
        "server.activity_timeout_s",
        (1, 86_400),
        120,
        "seconds",
        "Silence after which a connection is pinged; clients are told the same number. 30 to 60 where proxies cut idle \
         connections.",
    ),
    integer(
        "server.pong_timeout_s",
        (1, 3_600),
        30,
        "seconds",
        "How long a ping may stay unanswered before the connection is closed with 4201.",
    ),
    hard(
        "server.trusted_proxies",
        Kind::List(check_network),
        Preset::EmptyList,
        "Networks (10.0.0.0/8) or addresses of the proxies in front of the node. From them alone PROXY headers, \
         X-Forwarded-For and X-Forwarded-Proto are believed.",
    ),
    hard(
        "server.proxy_protocol",
        Kind::Switch,
        Preset::Switch(false),
        "Whether connections from trusted proxies begin with a PROXY protocol header, version 1 or 2.",
    ),
    integer(
        "limits.connections_max",
        (0, U32_MAX),
        0,
        "connections",
        "Connections open at once on this node; newcomers beyond it are closed with 4100. 0 derives it from the \
         open-file limit.",
    )
    .reloadable(),
    integer(
        "limits.connections_per_ip_max",
        (0, U32_MAX),
        0,
        "connections",
        "Connections open at once from one IPv4 address or one IPv6 /64. 0 is no limit.",
    )
    .reloadable(),
    integer(
        "limits.handshakes_per_s_max",
        (0, U32_MAX),
        0,
        "handshakes per second",
        "WebSocket handshakes this node accepts per second; newcomers beyond it are closed with 4100. 0 is no limit.",
    )
    .reloadable(),
    integer(
        "limits.handshake_timeout_ms",
        (100, 600_000),
        5_000,
        "milliseconds",
        "How long a new connection may take to send a whole request head (TLS and PROXY header included).",
    ),
    integer(
        "limits.handshake_bytes_max",
        (1_024, 1 << 20),
        8_192,
        "bytes",
        "Size of a request head.",
    ),
    integer(
        "limits.message_bytes_max",
        (1_024, 64 << 20),
        65_536,
        "bytes",
        "Size of one WebSocket message from a client, all fragments together. Beyond it the connection is closed with \
         1009.",
    ),
    integer(
        "limits.channels_per_connection_max",
        (1, U32_MAX),
        10_000,
        "channels",
        "Channels one connection may be subscribed to at once.",
    ),
    integer(
        "limits.outbound_bytes_max",
        (65_536, 4 * GIB),
        1 << 20,
        "bytes",
        "What may wait unsent for one connection. A reader that falls further behind is closed with 4100.",
    ),
    integer(
        "limits.outbound_age_max_s",
        (1, 3_600),
        10,
        "seconds",
        "How long a frame may wait unsent. A reader that falls further behind is closed with 4100.",
    ),
    integer(
        "limits.request_body_bytes_max",
        (1_024, GIB),
        1 << 20,
        "bytes",
        "Size of one REST request body; beyond it 413. Escaping can make a legal batch six times as large as its events.",
    )
    .reloadable(),
    integer(
        "limits.request_timeout_ms",
        (100, 600_000),
        10_000,
        "milliseconds",
        "How long a REST request may take to arrive in full.",
    )
    .reloadable(),
    integer(
        "limits.idempotency_keys_max",
        (0, 10_000_000),
        10_000,
        "keys per app",
        "Idempotency keys remembered per app for 120 seconds, the oldest forgotten first. 0 ignores the header.",
    ),
    integer(
        "limits.inbox_deliveries_max",
        (64, U32_MAX),
        65_536,
        "deliveries per worker",
        "Deliveries that may wait for one worker. While one is full, publishing to channels it follows is answered 503.",
    ),
    integer(
        "limits.cache_bytes_max",
        (0, u64::MAX),
        256 << 20,
        "bytes",
        "Memory for the last events of cache channels; beyond it the oldest are forgotten, which costs a cache miss.",
    ),
    integer(
        "shutdown.grace_s",
        (0, 3_600),
        0,
        "seconds",
        "How long the node keeps serving after SIGTERM while /readyz already says no, so that balancers turn away first.",
    ),
    integer(
        "shutdown.drain_s",
        (0, 3_600),
        10,
        "seconds",
        "Over how long the sockets are then closed with 4200, evenly: clients come back at once, so the pace is the \
         node's to set.",
    ),
    hard(
        "tls.cert",
        Kind::Path,
        Preset::Unset("no TLS"),
        "The certificate chain as PEM. Read again when it changes; connections stay open.",
    )
    .flag("--tls-cert"),
    hard("tls.key", Kind::Path, Preset::Unset("no TLS"), "The certificate's private key as PEM.").flag("--tls-key"),
    integer(
        "tls.port",
        (1, 65_535),
        0,
        "",
        "A second port that speaks TLS only, while server.port stays plain.",
    )
    .unset("server.port takes both, told apart by the first byte")
    .flag("--tls-port"),
    hard(
        "logging.level",
        Kind::OneOf(&["error", "warn", "info", "debug", "trace"]),
        Preset::Text("info"),
        "The least grave log lines to write.",
    )
    .soft()
    .flag("--log-level"),
    hard(
        "logging.format",
        Kind::OneOf(&["text", "json"]),
        Preset::Text("text"),
        "text for people, json (one object per line) for machines.",
    )
    .soft()
    .flag("--log-format"),
    hard(
        "demo.enabled",
        Kind::Switch,
        Preset::Unset("on only while no app is configured"),
        "Whether the demo app (id 1, key demo-key, secret demo-secret) and its page at / exist.",
    )
    .reloadable(),
    hard(
        "apps.id",
        Kind::Text(check_id),
        Preset::Unset("must be given"),
        "The app's id in REST paths. Digits only where the Python or Go SDK is used: they refuse anything else.",
    )
    .reloadable(),
    hard(
        "apps.key",
        Kind::Text(check_key),
        Preset::Unset("must be given"),
        "The app's public key, which clients connect with.",
    )
    .reloadable(),
    hard(
        "apps.secret",
        Kind::Secret,
        Preset::Unset("must be given, here or in secret_file"),
        "Signs everything of the app. Whoever has it can publish and let anybody into any channel.",
    )
    .reloadable(),
    hard(
        "apps.secret_file",
        Kind::Path,
        Preset::Unset("the secret stands in the file itself"),
        "A file that holds the secret and nothing else (a line break at its end is not part of it).",
    )
    .reloadable(),
    hard(
        "apps.previous_secret",
        Kind::Secret,
        Preset::Unset("only secret verifies"),
        "The secret before a rotation. Either verifies until this one is removed.",
    )
    .reloadable(),
    hard(
        "apps.previous_secret_file",
        Kind::Path,
        Preset::Unset("only secret verifies"),
        "A file that holds the secret before a rotation.",
    )
    .reloadable(),
    hard(
        "apps.enabled",
        Kind::Switch,
        Preset::Switch(true),
        "A disabled app refuses connections with 4003 and REST calls with 403.",
    )
    .reloadable(),
    hard(
        "apps.client_events",
        Kind::Switch,
        Preset::Switch(false),
        "Whether members of private and presence channels may send client- events to each other.",
    )
    .reloadable(),
    hard(
        "apps.subscription_counts",
        Kind::Switch,
        Preset::Switch(false),
        "Whether subscribers are told how many they are.",
    )
    .reloadable(),
    hard("apps.tls_only", Kind::Switch, Preset::Switch(false), "Whether connections without TLS are refused with 4000.")
        .reloadable(),
    hard(
        "apps.allowed_origins",
        Kind::List(check_origin),
        Preset::EmptyList,
        "Web pages that may connect: https://host, https://host:port, host, or *.host for its subdomains. Empty is any. \
         Whoever sends no Origin is not a browser and is not held to it.",
    )
    .reloadable(),
    integer(
        "apps.max_connections",
        (0, U32_MAX),
        0,
        "connections",
        "Connections of the app open at once; beyond it 4004, which makes SDKs give up. 0 is no limit.",
    )
    .reloadable(),
    integer("apps.channel_name_max", (1, 200), 164, "characters", "Length of a channel name, prefix included.")
        .reloadable(),
    integer("apps.event_name_max", (1, 4_096), 200, "characters", "Length of an event name.").reloadable(),
    integer(
        "apps.event_data_bytes_max",
        (1, 64 << 20),
        10_240,
        "bytes",
        "Size of one event's data, decoded; beyond it 413, or pusher:error for client events.",
    )
    .reloadable(),
    integer("apps.publish_channels_max", (1, 10_000), 100, "channels", "Channels one events call may name.")
        .reloadable(),
    integer("apps.batch_events_max", (1, 10_000), 10, "events", "Events one batch_events call may carry.")
        .reloadable(),
    integer("apps.presence_members_max", (1, 1_000_000), 100, "users", "Distinct users on one presence channel.")
        .reloadable(),
    integer(
        "apps.presence_user_info_bytes_max",
        (2, 1 << 20),
        1_024,
        "bytes",
        "Size of one member's user_info as JSON.",
    )
    .reloadable(),
    integer("apps.user_id_max", (1, 4_096), 128, "characters", "Length of a user id.").reloadable(),
    integer(
        "apps.client_events_per_s_max",
        (1, 1_000_000),
        10,
        "events per second and connection",
        "Client events one connection may send; beyond it they are refused with 4301.",
    )
    .reloadable(),
    integer(
        "apps.cache_ttl_s",
        (1, 86_400),
        1_800,
        "seconds",
        "How long the last event of a cache channel is kept for those who subscribe later.",
    )
    .reloadable(),
];

/// The address a host key means. `localhost` is the one name: listening needs an address.
pub(super) fn address(host: &str) -> Option<IpAddr> {
    if host == "localhost" {
        return Some(IpAddr::from([127, 0, 0, 1]));
    }
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// The network a `trusted_proxies` entry means; a bare address is a network of one.
pub(super) fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().map(|n| n.trunc()).or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn check_host(text: &str) -> Result<(), &'static str> {
    address(text)
        .map(|_| ())
        .ok_or("must be an IP address to listen on, such as 127.0.0.1, 0.0.0.0 or ::, or localhost")
}

fn check_network(text: &str) -> Result<(), &'static str> {
    network(text).map(|_| ()).ok_or("must hold networks such as 10.0.0.0/8 or fd00::/8, or single addresses")
}

fn check_path_prefix(text: &str) -> Result<(), &'static str> {
    let plain = text.bytes().all(|b| is_unreserved(b) || b == b'/');
    let framed = text.starts_with('/') && !text.ends_with('/') && !text.contains("//");
    if text.is_empty() || (plain && framed) {
        return Ok(());
    }
    Err("must be empty, or begin with / and not end with it, such as /ws")
}

fn check_id(text: &str) -> Result<(), &'static str> {
    if !text.is_empty() && text.len() <= 128 && text.bytes().all(is_unreserved) {
        return Ok(());
    }
    Err("must be 1 to 128 letters, digits, or any of - _ . ~")
}

fn check_key(text: &str) -> Result<(), &'static str> {
    if text.contains(':') {
        return Err("must not contain ':', which separates the key from the signature in every auth string");
    }
    check_id(text)
}

/// What may stand in a URL's path without being escaped: then nobody can disagree on how it is written.
fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~')
}

fn check_origin(text: &str) -> Result<(), &'static str> {
    let plain = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    let ok = match text.split_once("://") {
        // Only an origin with its scheme can have a port: without one, any port of the host is meant.
        Some(("http" | "https", rest)) => {
            let (host, port) = match rest.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
                _ => (rest, None),
            };
            let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            let host_ok = bracketed.map_or_else(|| plain(host), |h| h.parse::<Ipv6Addr>().is_ok());
            host_ok && port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0))
        }
        Some(_) => false,
        None => plain(text.strip_prefix("*.").unwrap_or(text)),
    };
    if ok {
        return Ok(());
    }
    Err("must hold origins such as https://example.com, https://example.com:8443, example.com or *.example.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-8
    #[test]
    fn every_key_is_explained_once_and_completely() {
        for (n, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..n].iter().all(|other| other.path != key.path), "{} stands twice", key.path);
            assert!(key.path.contains('.'), "{}", key.path);
            assert!(key.meaning.ends_with('.') && key.meaning.len() > 15, "{} has no meaning", key.path);
            assert!(!key.meaning.contains("  "), "{} has a gap", key.path);
            let text = key.explain();
            for part in [key.path, "takes", "default", "variable", "if wrong", "change"] {
                assert!(text.contains(part), "{text}");
            }
            let (Kind::Integer { min, max }, Preset::Integer(preset)) = (key.kind, key.preset) else { continue };
            assert!(min <= preset && preset <= max, "{}: the default is outside the range", key.path);
            let named = ["port", "s", "ms", "bytes", "max"];
            assert!(!key.unit.is_empty() || named.iter().any(|n| key.path.ends_with(n)), "{} has no unit", key.path);
        }
    }

    /// WS-8
    #[test]
    fn origins_are_schemes_and_hosts_and_nothing_else() {
        for good in ["https://a.example", "http://a:8080", "a.example", "*.a.example", "localhost", "https://[::1]:1"] {
            assert_eq!(check_origin(good), Ok(()), "{good}");
        }
        for bad in ["", "*", "https://", "ftp://a", "https://a/b", "a b", "a:80", "https://a:0", "https://*.a", "*."] {
            assert!(check_origin(bad).is_err(), "{bad}");
        }
    }
}
