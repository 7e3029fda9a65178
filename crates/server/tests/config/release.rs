//! The file of release 0.1: it loads, means what it meant, and names every key.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fulmar_backbone::redis::{
    self,
    settings::{Credentials, Encryption, Roles, Settings, Topology},
};
use fulmar_protocol::app::{App, AppLimits, Durability, Secret};
use fulmar_protocol::webhook::{EventKind, Kinds};
use fulmar_server::config::{Backbone, Config, KEYS, Limits, LogFormat, Sources, load};

fn check_limits_of_0_1(limits: &Limits) {
    assert_eq!(limits.connections_max, Some(50_000));
    assert_eq!((limits.connections_per_ip_max, limits.handshakes_per_s_max), (Some(100), Some(2_000)));
    assert_eq!((limits.handshake_timeout.as_millis(), limits.handshake_bytes_max), (3_000, 4_096));
    assert_eq!((limits.message_bytes_max, limits.channels_per_connection_max), (131_072, 500));
    assert_eq!((limits.subscribes_per_s_max, limits.answer_timeout.as_secs()), (20, 7));
    assert_eq!((limits.frame_timeout.as_millis(), limits.keep_alive_timeout.as_secs()), (4_000, 30));
    assert_eq!(limits.outbound_total_bytes_max, 67_108_864);
    assert_eq!((limits.outbound_bytes_max, limits.outbound_age_max.as_secs()), (524_288, 5));
    assert_eq!((limits.request_body_bytes_max, limits.request_timeout.as_millis()), (2_097_152, 8_000));
    assert_eq!((limits.idempotency_keys_max, limits.inbox_deliveries_max), (500, 4_096));
    assert_eq!(limits.cache_bytes_max, 1_048_576);
}

/// OPS-4, OPS-25, INC-2019-12-06
#[test]
fn the_file_of_release_0_1_loads_and_means_what_it_meant() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs/0.1.toml");
    let loaded = load(Sources::new().with_file(Some(file.clone()))).unwrap();
    assert_eq!(loaded.findings, []);
    let Config {
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
    } = loaded.config;
    let granted = |name: &str| (capacities[name].link_mbit, capacities[name].memory_mb, capacities[name].replicas);
    assert_eq!(granted("g1"), (Some(1_000), Some(4_096), Some(2)));
    assert_eq!((granted("g2"), capacities.len()), ((Some(1_000), None, None), 2));
    assert_eq!((webhooks.ports, webhooks.proxy.as_deref()), (vec![443, 8443], Some("10.0.0.9:3128")));
    let admin = admin.unwrap();
    assert_eq!((storage, demo_is_default), (Some("/var/lib/fulmar".into()), false));
    assert_eq!(
        (admin.address.to_string(), admin.token),
        ("127.0.0.1:7003".to_owned(), Some(Secret::new("sixteen-or-longer")))
    );
    assert_eq!(server.address().to_string(), "[::1]:7001");
    assert_eq!((server.path_prefix.as_str(), server.workers, server.http_threads), ("/ws", 3, 2));
    assert_eq!((server.activity_timeout.as_secs(), server.pong_timeout.as_secs()), (60, 20));
    assert_eq!(server.roles, Roles { websocket: true, rest: true, webhooks: false });
    assert_eq!(backbone, Backbone::Redis(Box::new(redis_of_release_0_1(&file))));
    let inside: IpAddr = "192.0.2.7".parse().unwrap();
    assert!(server.proxy_protocol && server.trusted_proxies.iter().any(|n| n.contains(&inside)));
    assert_eq!(server.trusted_proxies.len(), 3);
    check_limits_of_0_1(&limits);
    assert_eq!((shutdown.grace.as_secs(), shutdown.drain.as_secs()), (5, 60));
    let tls = tls.unwrap();
    assert_eq!(tls.cert, file.with_file_name("certs/node.pem"), "relative to the file");
    assert_eq!((tls.key, tls.port), (PathBuf::from("/etc/fulmar/node.key"), Some(7002)));
    assert_eq!((logging.level, logging.format), (tracing::Level::DEBUG, LogFormat::Json));
    assert_eq!((metrics.statsd.as_deref(), metrics.interval.as_secs()), (Some("telegraf.example.com:8125"), 30));
    assert_eq!(metrics.prefix, "chat.fulmar");
    assert!(demo.is_some());
    let ids: Vec<&str> = apps.iter().map(|a| a.id.as_str()).collect();
    assert_eq!(ids, ["42", "43", "1"]);
    check_apps_of_release_0_1(&apps);
}

fn check_apps_of_release_0_1(apps: &[App]) {
    let first = &apps[0];
    assert!(!first.enabled && first.client_events && first.subscription_counts && first.tls_only);
    assert!(first.watchlist && first.authorized_connections);
    assert_eq!(first.secrets().map(|s| s.expose()).collect::<Vec<_>>(), [&b"app-secret"[..], b"secret-of-last-year"]);
    assert_eq!(first.durability, Durability::Primary);
    assert_eq!(first.allowed_origins, ["https://example.com", "*.example.org"]);
    let expected = AppLimits {
        max_connections: Some(1_000),
        publishes_per_s_max: Some(500),
        channel_name_max: 200,
        event_name_max: 100,
        event_data_bytes_max: 20_480,
        publish_channels_max: 50,
        batch_events_max: 20,
        presence_members_max: 500,
        presence_user_info_bytes_max: 2_048,
        user_id_max: 64,
        client_events_per_s_max: 5,
        cache_ttl_s: 600,
        watchlist_max: 10,
        unauthorized_connections_max: 50,
        authorized_connections_timeout_s: 15,
    };
    assert_eq!(first.limits, expected);
    let hooks = &first.webhooks;
    assert!(!hooks.batching && hooks.allow_private);
    let networks: Vec<String> = hooks.allow_networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.1.0.0/16", "fd00::7/128"]);
    let [all, some] = &hooks.endpoints[..] else { panic!("two endpoints: {hooks:?}") };
    assert_eq!((&*all.url, all.kinds, all.channel_prefix.as_str()), ("https://example.com/all", Kinds::HOSTED, ""));
    let kinds = [EventKind::MemberAdded, EventKind::MemberRemoved, EventKind::UserOnline].into_iter().collect();
    assert_eq!((&*some.url, some.kinds), ("http://10.1.2.3:8080/some?a=b", kinds));
    assert_eq!(some.channel_prefix, "presence-");
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(some.headers, [pair("Authorization", "Bearer token"), pair("X-Team", "a")]);
    let secrets: Vec<&[u8]> = apps[1].secrets().map(|s| s.expose()).collect();
    assert_eq!(secrets, [&b"secret-from-a-file"[..], b"secret-from-a-file-of-last-year"]);
}

fn redis_of_release_0_1(file: &Path) -> Settings {
    let text = |text: &str| Some(text.to_owned());
    Settings {
        deployment: "eu-1".to_owned(),
        topology: Topology::Sentinel {
            sentinels: ["10.0.0.1:26379", "sentinel-2.example.com:26379", "[fd00::3]:26379"].map(str::to_owned).into(),
            groups: ["g2", "g1"].map(str::to_owned).into(),
        },
        database: 2,
        credentials: Credentials { user: text("fulmar"), password: text("secret-from-a-file") },
        sentinel_credentials: Credentials { user: text("watcher"), password: text("of the Sentinels") },
        tls: Some(Encryption {
            ca: Some(file.with_file_name("certs/ca.pem")),
            shown: Some((file.with_file_name("certs/node.pem"), "/etc/fulmar/node.key".into())),
        }),
        roles: Roles { websocket: true, rest: true, webhooks: false },
        advertise: text("node-1.example.com:7001"),
        limits: redis::settings::Limits {
            buffer_bytes_max: 67_108_864,
            publish_timeout: Duration::from_millis(3_000),
            breaker: Duration::from_millis(200),
            bus_bytes_per_s: 10_000_000,
            command_timeout: Duration::from_millis(800),
            log_age: Duration::from_secs(120),
            log_entries_max: 50_000,
            outbox_entries_max: 500_000,
            ..redis::settings::Limits::default()
        },
    }
}

/// OPS-4: the file above is only worth something while it names every key.
#[test]
fn the_file_of_the_current_release_names_every_key() {
    let text = include_str!("../configs/0.1.toml");
    for key in KEYS {
        let named =
            text.lines().any(|l| l.split('=').next().is_some_and(|n| n.trim_start_matches("# ").trim() == key.name()));
        assert!(named, "{} is missing from tests/configs", key.path);
    }
}
