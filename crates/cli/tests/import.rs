//! `fulmar import`: what other servers were told becomes a configuration that a node starts with.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use fulmar_server::config::{Config, Sources, load};

fn folder(test: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("import-{test}"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs the command; answers what the printed file means, and what was said beside it.
fn import(test: &str, name: &str, text: &str, variables: &[(&str, &str)]) -> (Config, String) {
    let folder = folder(test);
    let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
    command.arg("import").env_clear().envs(variables.iter().copied()).stdin(Stdio::null());
    if !name.is_empty() {
        std::fs::write(folder.join(name), text).unwrap();
        command.arg(folder.join(name));
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{said}");
    let file = folder.join("fulmar.toml");
    std::fs::write(&file, &stdout).unwrap();
    let loaded = load(Sources::new().with_file(Some(file))).unwrap_or_else(|refused| panic!("{refused}"));
    let printed = String::from_utf8(stdout).unwrap();
    assert_eq!(loaded.findings, [], "{printed}");
    for line in said.lines() {
        assert!(printed.contains(line), "what is said also stands in the file: {line}");
    }
    (loaded.config, said)
}

/// OPS-35
#[test]
fn soketi_s_variables_become_a_file_that_means_the_same() {
    let (config, said) = import(
        "soketi-env",
        "",
        "",
        &[
            ("SOKETI_PORT", "6100"),
            ("SOKETI_PATH_PREFIX", "/ws"),
            ("SOKETI_DEBUG", "1"),
            ("SOKETI_DEFAULT_APP_ID", "42"),
            ("SOKETI_DEFAULT_APP_KEY", "my-key"),
            ("SOKETI_DEFAULT_APP_SECRET", "my-secret"),
            ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "true"),
            ("SOKETI_DEFAULT_APP_MAX_CONNS", "200"),
            ("SOKETI_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC", "150"),
            ("SOKETI_DEFAULT_APP_MAX_READ_REQ_PER_SEC", "20"),
            ("SOKETI_DEFAULT_APP_USER_AUTHENTICATION", "1"),
            ("SOKETI_USER_AUTHENTICATION_TIMEOUT", "20000"),
            ("SOKETI_EVENT_MAX_SIZE_IN_KB", "50"),
            ("SOKETI_PRESENCE_MAX_MEMBERS", "300"),
            ("SOKETI_SHUTDOWN_GRACE_PERIOD", "3000"),
            ("SOKETI_ADAPTER_DRIVER", "redis"),
            ("SOKETI_DB_REDIS_HOST", "redis"),
            ("SOKETI_METRICS_ENABLED", "0"),
            ("SOKETI_SOMETHING_NEW", "5"),
        ],
    );
    assert_eq!(config.server.address().to_string(), "0.0.0.0:6100");
    assert_eq!((config.server.path_prefix.as_str(), config.shutdown.drain.as_secs()), ("/ws", 3));
    let app = &config.apps[0];
    assert_eq!((app.id.as_str(), app.key.as_str(), app.secret.expose()), ("42", "my-key", &b"my-secret"[..]));
    assert!(app.client_events && app.subscription_counts && app.authorized_connections);
    let limits = app.limits;
    assert_eq!(
        (limits.max_connections, limits.event_data_bytes_max, limits.presence_members_max),
        (Some(200), 51_200, 300)
    );
    assert_eq!((limits.channel_name_max, limits.authorized_connections_timeout_s), (200, 20));
    assert_eq!(limits.publishes_per_s_max, Some(150));
    for part in [
        "maxreadreqpersec",
        "maxbackendeventspersec becomes publishes_per_s_max",
        "settings of adapter",
        "settings of database",
        "SOKETI_SOMETHING_NEW",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("metrics") && !said.contains("my-secret"), "{said}");
}

/// OPS-35
#[test]
fn soketi_s_file_becomes_one_with_all_its_apps() {
    let text = r#"{
        "debug": false,
        "port": 6001,
        "appManager.array.apps": [
            { "id": "1", "key": "k1", "secret": "s1", "enabled": true, "maxConnections": -1, "webhooks": [],
              "maxBackendEventsPerSecond": -1 },
            { "id": "2", "key": "k2", "secret": "s2", "maxClientEventsPerSecond": 5, "enableClientMessages": true,
              "maxBackendEventsPerSecond": 40 }
        ],
        "eventLimits": { "maxBatchSize": 20 },
        "ssl": { "certPath": "", "keyPath": "" },
        "cors": { "origin": ["https://a.example"] },
        "metrics": { "enabled": true, "port": 9601 }
    }"#;
    let (config, said) = import("soketi-json", "soketi.json", text, &[]);
    let by_id = |id: &str| config.apps.iter().find(|app| app.id.as_str() == id).unwrap().clone();
    assert_eq!(config.apps.len(), 2);
    assert_eq!((by_id("1").limits.batch_events_max, by_id("1").limits.client_events_per_s_max), (20, 1_000_000));
    assert_eq!((by_id("2").client_events, by_id("2").limits.client_events_per_s_max), (true, 5));
    assert_eq!(["1", "2"].map(|id| by_id(id).limits.publishes_per_s_max), [None, Some(40)]);
    assert!(
        config.tls.is_none() && said.contains("settings of cors") && said.contains("settings of metrics"),
        "{said}"
    );
}

/// OPS-35
#[test]
fn a_laravel_application_s_env_file_becomes_one() {
    let text = "APP_NAME=Shop\nREVERB_APP_ID=256980\nREVERB_APP_KEY=\"reverb key\"\nREVERB_APP_KEY=kf0qxkjj6hqmzyqcwygb\n\
                REVERB_APP_SECRET='hush'\nREVERB_HOST=\"localhost\"\nREVERB_PORT=8080\nREVERB_SCHEME=http\n\
                REVERB_SERVER_PORT=8081\nREVERB_APP_MAX_MESSAGE_SIZE=20_000\nREVERB_SCALING_ENABLED=true\n\
                REVERB_ALLOWED_ORIGINS=shop.example,*.shop.example\nVITE_REVERB_APP_KEY=\"${REVERB_APP_KEY}\"\n";
    let (config, said) = import("reverb", ".env", text, &[]);
    assert_eq!(config.server.address().to_string(), "0.0.0.0:8081");
    assert_eq!(config.limits.message_bytes_max, 20_000);
    let app = &config.apps[0];
    assert_eq!((app.id.as_str(), app.secret.expose()), ("256980", &b"hush"[..]));
    assert!(app.client_events && app.allowed_origins == ["shop.example", "*.shop.example"]);
    assert!(said.contains("REVERB_SCALING") && said.contains("stay as they are"), "{said}");

    let output = Command::new(env!("CARGO_BIN_EXE_fulmar")).args(["import", "config/reverb.php"]).output().unwrap();
    assert!(!output.status.success());
}

/// OPS-35
#[test]
fn sockudo_s_variables_and_file_become_one() {
    let text = "HOST=127.0.0.1\nPORT=6002\nSOCKUDO_DEFAULT_APP_ID=demo-app\nSOCKUDO_DEFAULT_APP_KEY=demo-key-2\n\
                SOCKUDO_DEFAULT_APP_SECRET=hush\nSOCKUDO_ENABLE_CLIENT_MESSAGES=true\n\
                SOCKUDO_DEFAULT_APP_ENABLE_WATCHLIST_EVENTS=true\nSOCKUDO_DEFAULT_APP_MAX_EVENT_PAYLOAD_IN_KB=200\n\
                SHUTDOWN_GRACE_PERIOD=10\nADAPTER_DRIVER=redis\n";
    let (config, _) = import("sockudo-env", ".env", text, &[]);
    assert_eq!((config.server.address().to_string().as_str(), config.shutdown.drain.as_secs()), ("127.0.0.1:6002", 10));
    assert!(config.apps[0].client_events && config.apps[0].watchlist);
    assert_eq!(config.apps[0].limits.event_data_bytes_max, 204_800);

    let text = r#"{ "host": "::", "port": 6001, "app_manager": { "driver": "memory", "array": { "apps": [
        { "id": "a", "key": "k", "secret": "s", "max_connections": "1000", "enable_client_messages": false,
          "max_client_events_per_second": "100", "max_backend_events_per_second": null,
          "allowed_origins": ["*"] } ] } },
        "presence": { "max_member_size_in_kb": 4 }, "shutdown_grace_period": 20 }"#;
    let (config, said) = import("sockudo-json", "config.json", text, &[]);
    assert_eq!((config.shutdown.drain.as_secs(), config.apps[0].limits.presence_user_info_bytes_max), (20, 4_096));
    assert_eq!((config.apps[0].limits.client_events_per_s_max, said.as_str()), (100, ""));
}

/// OPS-35
#[test]
fn where_there_is_nothing_to_take_over_that_is_said() {
    let output = Command::new(env!("CARGO_BIN_EXE_fulmar")).arg("import").env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("SOKETI_"));
}
