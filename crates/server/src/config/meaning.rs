//! What is meant: settings with their defaults become a [`Config`].
//!
//! Values arrive with the right type and range (see [`super::raw`]); here stands what concerns several of them
//! together. Every key is taken out of the settings exactly once, so a key without a meaning is caught by a test.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use fulmar_protocol::app::{App, AppId, AppKey, AppLimits, Durability, Secret};
use fulmar_protocol::webhook::Webhooks;

use super::backbone::{backbone, capacities, roles};
use super::finding::{Finding, Place, What};
use super::keys::{KEYS, Key, Preset};
use super::raw::{RawApp, RawConfig, Settings, Written};
use super::rules::{address, network, proxy};
use super::taken::Taken;
use super::value::Value;
use super::{Admin, Config, Limits, LogFormat, Logging, Metrics, Server, Shutdown, Tls};
use crate::webhooks::egress::Egress;

/// Id, key and secret of the demo app. They are public, and printed at start.
pub const DEMO_APP: (&str, &str, &str) = ("1", "demo-key", "demo-secret");

/// Fewer characters can be guessed.
const TOKEN_CHARACTERS_MIN: usize = 16;

/// What may wait on all connections together unless it is configured, as a multiple of one connection's budget. Real
/// memory is far lower, since frames are shared; but the sum is what must be bounded.
const OUTBOUND_BUDGETS: usize = 512;

/// Every key with a value: the written one, or the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Effective {
    pub settings: Settings,
    pub apps: Vec<RawApp>,
}

impl Effective {
    /// Puts the default where nothing was written.
    pub fn of(raw: RawConfig) -> Self {
        let apps = raw.apps.into_iter().map(|app| RawApp { settings: complete("apps", app.settings, true), ..app });
        Self { apps: apps.collect(), settings: complete("apps", raw.settings, false) }
    }
}

/// Adds the defaults of the keys that are in `section`, or of those that are not.
fn complete(section: &str, mut settings: Settings, inside: bool) -> Settings {
    for key in KEYS.iter().filter(|k| (k.section() == section) == inside) {
        settings.entry(key.path).or_insert_with(|| Written { value: preset(key), place: Place::Default });
    }
    settings
}

fn preset(key: &Key) -> Value {
    match key.preset {
        Preset::Unset(_) => Value::Unset,
        Preset::Integer(n) => Value::Integer(n),
        Preset::Switch(on) => Value::Switch(on),
        Preset::Text(text) => Value::Text(text.to_owned()),
        Preset::EmptyList => Value::List(Vec::new()),
        Preset::List(texts) => Value::List(texts.iter().map(|text| (*text).to_owned()).collect()),
    }
}

/// What the settings mean. Always answers a configuration; whether it may be used is decided by the findings.
pub(super) fn mean(effective: &Effective, findings: &mut Vec<Finding>) -> Config {
    let mut taken = Taken { settings: effective.settings.clone() };
    let server = server(&mut taken, findings);
    let limits = limits(&mut taken);
    let shutdown = Shutdown { grace: taken.seconds("shutdown.grace_s"), drain: taken.seconds("shutdown.drain_s") };
    let tls = tls(&mut taken, findings);
    let logging = Logging {
        level: taken.text("logging.level").parse().expect("the table allows only names of levels"),
        format: if taken.text("logging.format") == "json" { LogFormat::Json } else { LogFormat::Text },
    };
    let metrics = Metrics {
        statsd: taken.optional_text("metrics.statsd"),
        interval: taken.seconds("metrics.interval_s"),
        prefix: taken.text("metrics.prefix"),
    };
    let storage = taken.path("storage.path");
    let admin = admin(&mut taken, findings);
    let backbone = backbone(&mut taken, server.roles, findings);
    let capacities = capacities(&mut taken, &backbone, findings);
    let webhooks = Egress {
        ports: taken.list("webhooks.ports").iter().filter_map(|text| text.parse().ok()).collect(),
        proxy: proxy(&taken.text("webhooks.proxy")).map(str::to_owned),
    };
    let demo_wanted = taken.optional_switch("demo.enabled");
    taken.assert_empty();

    check_duplicates(&effective.apps, findings);
    let mut apps: Vec<App> = effective.apps.iter().filter_map(|app| mean_app(app, findings)).collect();
    let demo = demo_wanted.unwrap_or(effective.apps.is_empty()).then(|| App::new(DEMO_APP.0, DEMO_APP.1, DEMO_APP.2));
    check_demo(effective, demo_wanted, server.host, findings);
    apps.extend(demo.clone());
    let demo_is_default = demo_wanted.is_none();
    let config = Config {
        server,
        limits,
        shutdown,
        tls,
        logging,
        metrics,
        storage,
        admin,
        backbone,
        capacities,
        webhooks,
        demo,
        demo_is_default,
        apps,
    };
    check_together(effective, &config, findings);
    config
}

fn server(taken: &mut Taken, findings: &mut Vec<Finding>) -> Server {
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let or_cores = |n: usize, instead: usize| if n == 0 { instead.clamp(1, 128) } else { n };
    // As many threads as cores: a worker more than that does not add speed, it takes the processor from its siblings.
    let http_threads = or_cores(taken.number("server.http_threads"), cores / 4);
    let workers = or_cores(taken.number("server.workers"), cores.saturating_sub(http_threads));
    let networks = taken.peek("server.trusted_proxies");
    let proxy_protocol = taken.take("server.proxy_protocol");
    let server = Server {
        host: address(&taken.text("server.host")).expect("the table allows only addresses"),
        port: taken.number("server.port"),
        path_prefix: taken.text("server.path_prefix"),
        workers,
        http_threads,
        activity_timeout: taken.seconds("server.activity_timeout_s"),
        pong_timeout: taken.seconds("server.pong_timeout_s"),
        trusted_proxies: taken.list("server.trusted_proxies").iter().filter_map(|n| network(n)).collect(),
        proxy_protocol: proxy_protocol.value == Value::Switch(true),
        roles: roles(taken, findings),
    };
    if server.proxy_protocol && networks == Value::List(Vec::new()) {
        findings.push(Finding::advice(proxy_protocol.place, "server.proxy_protocol", What::NobodyTrusted));
    }
    server
}

fn limits(taken: &mut Taken) -> Limits {
    let mut limits = Limits {
        connections_max: taken.limit("limits.connections_max"),
        connections_per_ip_max: taken.limit("limits.connections_per_ip_max"),
        handshakes_per_s_max: taken.limit("limits.handshakes_per_s_max"),
        handshake_timeout: taken.millis("limits.handshake_timeout_ms"),
        handshake_bytes_max: taken.number("limits.handshake_bytes_max"),
        message_bytes_max: taken.number("limits.message_bytes_max"),
        frame_timeout: taken.millis("limits.frame_timeout_ms"),
        channels_per_connection_max: taken.number("limits.channels_per_connection_max"),
        subscribes_per_s_max: taken.number("limits.subscribes_per_s_max"),
        outbound_bytes_max: taken.number("limits.outbound_bytes_max"),
        outbound_age_max: taken.seconds("limits.outbound_age_max_s"),
        outbound_total_bytes_max: taken.number("limits.outbound_total_bytes_max"),
        keep_alive_timeout: taken.seconds("limits.keep_alive_timeout_s"),
        answer_timeout: taken.seconds("limits.answer_timeout_s"),
        request_body_bytes_max: taken.number("limits.request_body_bytes_max"),
        request_timeout: taken.millis("limits.request_timeout_ms"),
        idempotency_keys_max: taken.number("limits.idempotency_keys_max"),
        inbox_deliveries_max: taken.number("limits.inbox_deliveries_max"),
        cache_bytes_max: taken.number("limits.cache_bytes_max"),
    };
    if limits.outbound_total_bytes_max == 0 {
        limits.outbound_total_bytes_max = limits.outbound_bytes_max.saturating_mul(OUTBOUND_BUDGETS);
    }
    limits
}

fn tls(taken: &mut Taken, findings: &mut Vec<Finding>) -> Option<Tls> {
    let (cert_at, key_at, port_at) = (taken.place("tls.cert"), taken.place("tls.key"), taken.place("tls.port"));
    let cert = taken.path("tls.cert");
    let key = taken.path("tls.key");
    let port = taken.optional_number("tls.port");
    match (cert, key) {
        (Some(cert), Some(key)) => return Some(Tls { cert, key, port }),
        (Some(_), None) => findings.push(Finding::refuses(cert_at, "tls.cert", What::Needs("tls.key"))),
        (None, Some(_)) => findings.push(Finding::refuses(key_at, "tls.key", What::Needs("tls.cert"))),
        (None, None) if port.is_some() => {
            findings.push(Finding::refuses(port_at, "tls.port", What::Needs("tls.cert and tls.key")));
        }
        (None, None) => {}
    }
    None
}

/// The admin API, or nothing when it is off. It must never stop a node, and it must never be open either: what is wrong
/// about its token leaves it on this machine, or off.
fn admin(taken: &mut Taken, findings: &mut Vec<Finding>) -> Option<Admin> {
    let is_enabled = taken.switch("admin.enabled");
    let (host_at, token_at) = (taken.place("admin.host"), taken.place("admin.token"));
    let host = address(&taken.text("admin.host")).expect("the table allows only addresses");
    let port = taken.number("admin.port");
    taken.take("admin.token_file");
    let token = match taken.take("admin.token").value {
        Value::Secret(text) if text.chars().count() >= TOKEN_CHARACTERS_MIN => Some(Secret::new(&text)),
        Value::Secret(_) => {
            let what = What::Breaks("must have at least 16 characters");
            findings.push(Finding::falls_back(token_at, "admin.token", what));
            None
        }
        _ => None,
    };
    if is_enabled && !host.is_loopback() && token.is_none() {
        findings.push(Finding::falls_back(host_at, "admin.host", What::AdminExposed { host: host.to_string() }));
        return None;
    }
    is_enabled.then_some(Admin { address: SocketAddr::new(host, port), token })
}

/// An app, or nothing when what every app needs is missing (which is then a finding).
pub(super) fn mean_app(raw: &RawApp, findings: &mut Vec<Finding>) -> Option<App> {
    let mut taken = Taken { settings: raw.settings.clone() };
    let mut need = |path: &str| {
        let written = taken.take(path);
        // A place other than the app's own means that something was written there and was refused already.
        if written.value == Value::Unset && written.place == Place::Default {
            findings.push(Finding::refuses(raw.place.clone(), path, What::Missing));
        }
        match written.value {
            Value::Text(text) | Value::Secret(text) => Some(text),
            _ => None,
        }
    };
    let (id, key, secret) = (need("apps.id"), need("apps.key"), need("apps.secret"));
    let previous_secret = match taken.take("apps.previous_secret").value {
        Value::Secret(text) => Some(Secret::new(&text)),
        _ => None,
    };
    taken.take("apps.secret_file");
    taken.take("apps.previous_secret_file");
    let limits = AppLimits {
        max_connections: taken.limit("apps.max_connections"),
        publishes_per_s_max: taken.limit("apps.publishes_per_s_max"),
        channel_name_max: taken.number("apps.channel_name_max"),
        event_name_max: taken.number("apps.event_name_max"),
        event_data_bytes_max: taken.number("apps.event_data_bytes_max"),
        publish_channels_max: taken.number("apps.publish_channels_max"),
        batch_events_max: taken.number("apps.batch_events_max"),
        presence_members_max: taken.number("apps.presence_members_max"),
        presence_user_info_bytes_max: taken.number("apps.presence_user_info_bytes_max"),
        user_id_max: taken.number("apps.user_id_max"),
        client_events_per_s_max: taken.number("apps.client_events_per_s_max"),
        cache_ttl_s: taken.number("apps.cache_ttl_s"),
        watchlist_max: taken.number("apps.watchlist_max"),
        unauthorized_connections_max: taken.number("apps.unauthorized_connections_max"),
        authorized_connections_timeout_s: taken.number("apps.authorized_connections_timeout_s"),
    };
    let (enabled, client_events) = (taken.switch("apps.enabled"), taken.switch("apps.client_events"));
    let subscription_counts = taken.switch("apps.subscription_counts");
    let (watchlist, authorized_connections) =
        (taken.switch("apps.watchlist"), taken.switch("apps.authorized_connections"));
    let tls_only = taken.switch("apps.tls_only");
    let webhooks = webhooks(&mut taken);
    let allowed_origins = taken.list("apps.allowed_origins");
    let durability = match taken.text("apps.durability").as_str() {
        "memory" => Durability::Memory,
        "primary" => Durability::Primary,
        _ => Durability::Replicated,
    };
    taken.assert_empty();
    Some(App {
        id: AppId::new(&id?),
        key: AppKey::new(&key?),
        secret: Secret::new(&secret?),
        previous_secret,
        enabled,
        client_events,
        subscription_counts,
        watchlist,
        authorized_connections,
        tls_only,
        allowed_origins,
        durability,
        webhooks,
        limits,
    })
}

fn webhooks(taken: &mut Taken) -> Webhooks {
    let endpoints = match taken.take("apps.webhooks").value {
        Value::Webhooks(endpoints) => endpoints,
        _ => Vec::new(),
    };
    let networks = taken.list("apps.webhooks_allow_networks");
    Webhooks {
        endpoints,
        batching: taken.switch("apps.webhook_batching"),
        allow_private: taken.switch("apps.webhooks_allow_private"),
        allow_networks: networks.iter().filter_map(|text| network(text)).collect(),
    }
}

fn check_duplicates(apps: &[RawApp], findings: &mut Vec<Finding>) {
    for path in ["apps.id", "apps.key"] {
        let mut seen: HashMap<&str, &Place> = HashMap::new();
        for app in apps {
            let Some(Written { value: Value::Text(text), place }) = app.settings.get(path) else { continue };
            match seen.get(text.as_str()) {
                Some(first) => {
                    let what = What::Duplicate { first: (*first).clone() };
                    findings.push(Finding::refuses(place.clone(), path, what));
                }
                None => {
                    seen.insert(text, place);
                }
            }
        }
    }
}

fn check_demo(effective: &Effective, wanted: Option<bool>, host: IpAddr, findings: &mut Vec<Finding>) {
    let written = &effective.settings["demo.enabled"];
    match wanted {
        None if effective.apps.is_empty() && !host.is_loopback() => {
            let what = What::DemoExposed { host: host.to_string() };
            findings.push(Finding::advice(effective.settings["server.host"].place.clone(), "", what));
        }
        Some(false) if effective.apps.is_empty() => {
            findings.push(Finding::advice(written.place.clone(), "demo.enabled", What::NoApps));
        }
        Some(true) => {
            for (path, taken) in [("apps.id", DEMO_APP.0), ("apps.key", DEMO_APP.1)] {
                let same = |app: &&RawApp| app.settings[path].value == Value::Text(taken.to_owned());
                if let Some(app) = effective.apps.iter().find(same) {
                    let first = app.settings[path].place.clone();
                    findings.push(Finding::refuses(written.place.clone(), "demo.enabled", What::Duplicate { first }));
                }
            }
        }
        _ => {}
    }
}

/// What is legal by itself and pointless together.
fn check_together(effective: &Effective, config: &Config, findings: &mut Vec<Finding>) {
    let port = &effective.settings["tls.port"];
    if config.tls.as_ref().and_then(|t| t.port) == Some(config.server.port) {
        let rule = "must differ from server.port; without it server.port takes TLS and plain alike";
        findings.push(Finding::refuses(port.place.clone(), "tls.port", What::Breaks(rule)));
    }
    for app in &effective.apps {
        let tls_only = &app.settings["apps.tls_only"];
        if tls_only.value == Value::Switch(true) && config.tls.is_none() && config.server.trusted_proxies.is_empty() {
            findings.push(Finding::advice(tls_only.place.clone(), "apps.tls_only", What::TlsNeverUsed));
        }
        let data = &app.settings["apps.event_data_bytes_max"];
        let Value::Integer(inner) = data.value else { continue };
        let outer = config.limits.request_body_bytes_max as u64;
        if inner > outer {
            let what = What::Unreachable { inner, outer_key: "limits.request_body_bytes_max", outer };
            findings.push(Finding::advice(data.place.clone(), "apps.event_data_bytes_max", what));
        }
    }
}
