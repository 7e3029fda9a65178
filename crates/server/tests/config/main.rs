//! Configuration as an operator meets it: what loads, what is refused and in which words, and what shows.
//!
//! Runs against files in a folder of its own per test, never against the environment of the test process.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod backbone;
mod release;
mod reload;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fulmar_protocol::app::{App, Secret};
use fulmar_server::config::{
    CLIENT_VARIABLES, Config, ConfigWatch, DEMO_APP, KEYS, Loaded, Refused, Sources, Weight, load,
};

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{name}"));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect()
}

fn load_text(test: &str, text: &str) -> Result<Loaded, Refused> {
    let folder = Folder::new(test);
    load(Sources::new().with_file(Some(folder.write("fulmar.toml", text))))
}

/// What there is to say about `text`, each with the file's folder cut off.
fn findings(test: &str, text: &str) -> Vec<String> {
    let findings = match load_text(test, text) {
        Ok(loaded) => loaded.findings,
        Err(refused) => refused.findings,
    };
    let short = |text: String| text.replace(&format!("{}/config-{test}/", env!("CARGO_TARGET_TMPDIR")), "");
    findings.iter().map(|f| short(f.to_string())).collect()
}

fn defaults() -> Config {
    load(Sources::new()).unwrap().config
}

/// OPS-1
#[test]
fn a_node_needs_no_configuration_at_all() {
    let loaded = load(Sources::new()).unwrap();
    assert_eq!(loaded.findings, []);
    let config = loaded.config;
    assert_eq!(config.server.address().to_string(), "127.0.0.1:6001");
    assert!(config.server.workers >= 1 && config.server.http_threads >= 1);
    assert_eq!(config.server.activity_timeout, Duration::from_secs(120));
    assert_eq!(config.limits.connections_max, None);
    assert_eq!(config.limits.message_bytes_max, 65_536);
    assert_eq!(config.limits.outbound_total_bytes_max, 512 << 20);
    assert_eq!(config.tls, None);
    let demo = App::new(DEMO_APP.0, DEMO_APP.1, DEMO_APP.2);
    assert_eq!((config.demo, config.apps), (Some(demo.clone()), vec![demo]));
}

/// OPS-8: the defaults that are explained are those that apply.
#[test]
fn a_file_that_spells_out_every_explained_default_changes_nothing() {
    let mut text = String::new();
    let mut section = "";
    let written = KEYS.iter().filter(|k| !k.preset_text().starts_with("not set"));
    for key in written.clone().filter(|k| k.section() != "apps") {
        if section != key.section() {
            section = key.section();
            text.push_str(&format!("[{section}]\n"));
        }
        text.push_str(&format!("{} = {}\n", key.name(), key.preset_text()));
    }
    assert_eq!(load_text("spelt-out", &text).unwrap().config, defaults());

    text.push_str("[[apps]]\nid = \"7\"\nkey = \"k\"\nsecret = \"s\"\n");
    let implicit = load_text("implicit", &text).unwrap().config;
    for key in written.filter(|k| k.section() == "apps") {
        text.push_str(&format!("{} = {}\n", key.name(), key.preset_text()));
    }
    let config = load_text("explicit", &text).unwrap().config;
    assert_eq!(config, implicit);
    let off = App { client_events: false, subscription_counts: false, watchlist: false, ..App::new("7", "k", "s") };
    assert_eq!(config.apps, [off]);
}

/// OPS-5
#[test]
fn an_app_from_a_flag_or_variable_has_every_feature_on_and_wins_over_the_file() {
    let folder = Folder::new("flag-app");
    let file = folder.write(
        "fulmar.toml",
        "[[apps]]\nid = \"1\"\nkey = \"file-key\"\nsecret = \"s\"\n[[apps]]\nid = \"2\"\nkey = \"kept\"\nsecret = \"s\"\n",
    );
    let sources = Sources::new()
        .with_file(Some(file))
        .with_environment(environment(&[("FULMAR_APPS", "3:k3:s3 4:k4:s:4")]))
        .with_apps(vec!["1:flag-key:with:colons".to_owned()]);
    let config = load(sources).unwrap().config;
    assert_eq!(config.demo, None);
    let find = |id: &str| config.apps.iter().find(|a| a.id.as_str() == id).unwrap().clone();
    assert_eq!(config.apps.len(), 4);
    assert_eq!(find("1"), App::new("1", "flag-key", "with:colons"));
    assert_eq!(find("2").key.as_str(), "kept");
    assert_eq!(find("3"), App::new("3", "k3", "s3"));
    assert_eq!(find("4"), App::new("4", "k4", "s:4"));
}

/// OPS-1
#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let folder = Folder::new("precedence");
    let file = folder.write("fulmar.toml", "[server]\nport = 1001\nhost = \"10.0.0.1\"\nworkers = 1\n");
    let variables = environment(&[
        ("FULMAR_CONFIG", file.to_str().unwrap()),
        ("FULMAR_SERVER__PORT", "1002"),
        ("FULMAR_SERVER__WORKERS", "2"),
        ("FULMAR_SERVER__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
        ("FULMAR_SERVER__PATH_PREFIX", ""),
        ("FULMAR_APPS", "1:k:s"),
    ]);
    let sources = Sources::new()
        .with_environment(variables)
        .with_flag("server.port", Some("1003".to_owned()))
        .with_set(vec!["limits.connections_max=9".to_owned()]);
    let loaded = load(sources).unwrap();
    assert_eq!(loaded.findings, []);
    let server = &loaded.config.server;
    assert_eq!((server.host.to_string().as_str(), server.workers, server.port), ("10.0.0.1", 2, 1003));
    assert_eq!(server.trusted_proxies.len(), 2);
    assert_eq!(loaded.config.limits.connections_max, Some(9));
    let shown = loaded.show();
    for line in ["port = 1003", "flag --port", "FULMAR_SERVER__WORKERS", "fulmar.toml:3", "drain_s = 10", "flag --set"]
    {
        assert!(shown.contains(line), "{line} is not in:\n{shown}");
    }
}

/// OPS-3
#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let text = r#"[server]
host = "example.com"
port = 70000
path_prefix = "ws/"
activity_timeout_s = 0
trusted_proxies = [
    "10.0.0.0/8",
    "10.0.0.0/99",
    7,
]
proxy_protocol = "yes"

[limits]
message_bytes_max = -1
request_timeout_ms = 1.5

[tls]
cert = "cert.pem"

[[apps]]
id = "1"
key = "has:colon"
secret = ""

[[apps]]
id = "1"
channel_name_max = 201
allowed_origins = ["https://example.com/path"]

[[apps]]
id = ""
key = "k"
secret = "s"
secret_file = "s"
cache_ttl_s = 0
"#;
    let text_of = "must hold networks such as 10.0.0.0/8 or fd00::/8, or single addresses";
    let name_of = "must be 1 to 128 letters, digits, or any of - _ . ~";
    let expected = [
        "fulmar.toml:2: server.host must be an IP address to listen on, such as 127.0.0.1, 0.0.0.0 or ::, or localhost",
        "fulmar.toml:3: server.port must be between 0 and 65535, not 70000",
        "fulmar.toml:4: server.path_prefix must be empty, or begin with / and not end with it, such as /ws",
        "fulmar.toml:5: server.activity_timeout_s must be between 1 and 86400, not 0",
        &format!("fulmar.toml:8: server.trusted_proxies {text_of}"),
        "fulmar.toml:9: server.trusted_proxies must be a list of texts, not a TOML integer",
        "fulmar.toml:11: server.proxy_protocol must be true or false, not \"yes\"",
        "fulmar.toml:14: limits.message_bytes_max must be between 1024 and 67108864, not -1",
        "fulmar.toml:15: limits.request_timeout_ms must be a whole number from 100 to 600000, not a TOML float",
        "fulmar.toml:18: tls.cert needs tls.key as well",
        "fulmar.toml:22: apps.key must not contain ':', which separates the key from the signature in every auth string",
        "fulmar.toml:23: apps.secret must not be empty: anybody could sign with it",
        "fulmar.toml:25: apps.key is missing",
        "fulmar.toml:25: apps.secret is missing",
        "fulmar.toml:26: apps.id is already used by the app at fulmar.toml:21",
        "fulmar.toml:27: apps.channel_name_max must be between 1 and 200, not 201",
        "fulmar.toml:28: apps.allowed_origins must hold origins such as https://example.com, https://example.com:8443, \
         example.com or *.example.com",
        &format!("fulmar.toml:31: apps.id {name_of}"),
        "fulmar.toml:34: apps.secret_file cannot be given together with secret",
        "fulmar.toml:35: apps.cache_ttl_s must be between 1 and 86400, not 0",
    ];
    assert!(load_text("all-at-once", text).is_err());
    assert_eq!(findings("all-at-once", text), expected);
}

/// OPS-3
#[test]
fn each_kind_of_mistake_is_named_where_it_stands() {
    let app = "[[apps]]\nid = \"9\"\nkey = \"k9\"\nsecret = \"s\"\n";
    let table: &[(&str, &str)] = &[
        ("port = 1\nport = 2", "fulmar.toml:2: not valid TOML: duplicate key"),
        ("[server]\nport = \n[limits]\nconnections_max = x", "fulmar.toml:4: not valid TOML: "),
        ("server = 1", "fulmar.toml:1: server must be a table"),
        ("[apps]\nid = \"1\"", "fulmar.toml:1: apps must be tables, each under a line [[apps]]"),
        ("[tls]\nport = 443", "fulmar.toml:2: tls.port needs tls.cert and tls.key as well"),
        ("[tls]\ncert = \"c\"\nkey = \"k\"\nport = 6001", "fulmar.toml:4: tls.port must differ from server.port"),
        ("[tls]\nkey = \"k\"\n", "fulmar.toml:2: tls.key needs tls.cert as well"),
        (
            "[demo]\nenabled = true\n[[apps]]\nid = \"1\"\nkey = \"a\"\nsecret = \"s\"",
            "fulmar.toml:2: demo.enabled is already used by the app at fulmar.toml:4",
        ),
        (
            "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n[[apps]]\nid = \"2\"\nkey = \"k\"\nsecret = \"s\"",
            "fulmar.toml:7: apps.key is already used by the app at fulmar.toml:3",
        ),
        (
            "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret_file = \"no-such\"",
            "fulmar.toml:4: apps.secret_file cannot be read",
        ),
        (&format!("{app}secret = 5"), "fulmar.toml:5: not valid TOML: duplicate key"),
        (&format!("{app}client_events_per_s_max = 0"), "fulmar.toml:5: apps.client_events_per_s_max must be between 1"),
        (&format!("{app}presence_members_max = 0"), "fulmar.toml:5: apps.presence_members_max must be between 1"),
        (&format!("{app}previous_secret = \"\""), "fulmar.toml:5: apps.previous_secret must not be empty"),
    ];
    for (text, expected) in table {
        let found = findings("each-kind", text);
        assert!(load_text("each-kind", text).is_err(), "{text}");
        assert!(found.iter().any(|f| f.starts_with(expected)), "{text}\n{found:#?}");
        assert!(!found.iter().any(|f| f.contains("is missing")), "said twice: {found:#?}");
    }
}

/// HOOK-22, HOOK-24, OPS-3
#[test]
fn every_mistake_in_a_webhook_is_named_where_it_stands() {
    let text = "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\nwebhooks = [\n  { url = \"https://a.example/\" },\n  \
                { url = \"https://a.example/\", events = [\"member_added\"] },\n  { url = \"ftp://a.example\" },\n  \
                { events = [] },\n  { url = \"https://b/\", events = [\"member_aded\"] },\n  \
                { url = \"https://c/\", headers = { \"X-Pusher-Key\" = \"x\", \"b ad\" = \"x\", Ok = \"a\\nb\" } },\n  \
                { url = \"https://d/\", chanel_prefix = \"a\" },\n  7,\n]\nwebhooks_allow_networks = [\"10.0\"]\n";
    let expected = [
        "fulmar.toml:7: apps.webhooks must not name one URL twice: put all its events into one table",
        "fulmar.toml:8: apps.webhooks must begin with http:// or https://",
        "fulmar.toml:9: apps.webhooks must have a url in each table",
        "fulmar.toml:10: apps.webhooks.events: member_aded is not known; did you mean member_added?",
        "fulmar.toml:11: apps.webhooks headers must not hold a header that the node sets itself",
        "fulmar.toml:11: apps.webhooks headers has a bad name",
        "fulmar.toml:11: apps.webhooks headers has a value that no header can have",
        "fulmar.toml:12: apps.webhooks.chanel_prefix is not known; did you mean apps.webhooks.channel_prefix?",
        "fulmar.toml:13: apps.webhooks must be a list of tables, such as { url = \"https://example.com/webhooks\" }",
        "fulmar.toml:15: apps.webhooks_allow_networks must hold networks such as 10.0.0.0/8 or fd00::/8, or single \
         addresses",
    ];
    let mut found = findings("webhooks", text);
    found.sort_by_key(|line| line.split(':').nth(1).and_then(|n| n.parse::<u32>().ok()));
    found[4..7].sort();
    let mut expected = expected.map(str::to_owned);
    expected[4..7].sort();
    assert_eq!(found, expected);
}

/// OPS-3
#[test]
fn mistakes_in_variables_and_flags_are_named_by_variable_and_flag() {
    let variables = environment(&[
        ("FULMAR_SERVER__PORT", "seven"),
        ("FULMAR_LIMITS__CONNECTIONS_MAX", "99999999999"),
        ("FULMAR_SERVER__PROXY_PROTOCOL", "maybe"),
        ("FULMAR_APPS", "only-an-id"),
    ]);
    let refused = load(
        Sources::new()
            .with_environment(variables)
            .with_flag("server.host", Some("nowhere".to_owned()))
            .with_apps(vec!["1:k".to_owned(), ":k:s".to_owned()])
            .with_set(vec!["server.prot=1".to_owned(), "nonsense".to_owned()]),
    )
    .unwrap_err();
    let lines: Vec<String> = refused.findings.iter().map(ToString::to_string).collect();
    let expected = [
        "environment FULMAR_APPS: must be ID:KEY:SECRET",
        "environment FULMAR_LIMITS__CONNECTIONS_MAX: must be between 0 and 4294967295, not 99999999999",
        "environment FULMAR_SERVER__PORT: must be a whole number from 0 to 65535, not \"seven\"",
        "environment FULMAR_SERVER__PROXY_PROTOCOL: must be true or false, not \"maybe\"",
        "flag --host: server.host must be an IP address",
        "flag --set: server.prot is not known; did you mean server.port?",
        "flag --set: must be SECTION.KEY=VALUE",
        "flag --app: must be ID:KEY:SECRET",
        "flag --app: apps.id must be 1 to 128 letters",
    ];
    for expected in expected {
        assert!(lines.iter().any(|l| l.starts_with(expected)), "{expected}\nis not among {lines:#?}");
    }
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
}

/// OPS-2, INC-2019-12-06
#[test]
fn an_unknown_key_starts_the_node_with_a_warning_and_fails_a_strict_check() {
    let text = "[server]\nprot = 1\nconnections_max = 5\n[tracing]\nsink = \"x\"\n[sever]\nport = 1\n";
    let loaded = load_text("unknown", text).unwrap();
    assert_eq!(loaded.config, defaults());
    assert!(loaded.findings.iter().all(|f| f.fails_check(true) && !f.fails_check(false)));
    let expected = [
        "fulmar.toml:2: server.prot is not known; did you mean server.port?",
        "fulmar.toml:3: server.connections_max is not known; did you mean limits.connections_max?",
        "fulmar.toml:4: tracing is not known",
        "fulmar.toml:6: sever is not known; did you mean [server]?",
    ];
    assert_eq!(findings("unknown", text), expected);
}

/// OPS-2
#[test]
fn an_unknown_variable_is_a_warning_and_those_of_others_are_none() {
    let mut variables = environment(&[
        ("FULMAR_SERVER_PORT", "7000"),
        ("FULMAR_LIMITS__CONNECTION_MAX", "7"),
        // What Kubernetes sets for a service called fulmar.
        ("FULMAR_PORT", "tcp://10.0.0.1:6001"),
        ("FULMAR_SERVICE_HOST", "10.0.0.1"),
        ("FULMAR_SERVICE_PORT", "6001"),
        ("FULMAR_SERVICE_PORT_WS", "6001"),
        ("FULMAR_PORT_6001_TCP", "tcp://10.0.0.1:6001"),
        ("FULMAR_PORT_6001_TCP_ADDR", "10.0.0.1"),
        ("PATH", "/bin"),
    ]);
    let client: Vec<(&str, &str)> = CLIENT_VARIABLES.iter().map(|n| (*n, "127.0.0.1")).collect();
    variables.extend(environment(&client).into_iter().filter(|(n, _)| n != "FULMAR_PORT" && n != "FULMAR_APP"));
    let loaded = load(Sources::new().with_environment(variables)).unwrap();
    let lines: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
    let expected = [
        "environment FULMAR_LIMITS__CONNECTION_MAX: is not known; did you mean FULMAR_LIMITS__CONNECTIONS_MAX?",
        "environment FULMAR_SERVER_PORT: is not known; did you mean FULMAR_SERVER__PORT?",
    ];
    assert_eq!(lines, expected);
}

/// OPS-2
#[test]
fn a_client_variable_that_seems_meant_for_the_node_is_pointed_out() {
    let variables = environment(&[("FULMAR_PORT", "7000"), ("FULMAR_HOST", "0.0.0.0"), ("FULMAR_APP", "1:k:s")]);
    let loaded = load(Sources::new().with_environment(variables.clone())).unwrap();
    let lines: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
    let text = "is read by trigger, subscribe and channels only; this node takes";
    let expected = ["APP: {} FULMAR_APPS", "HOST: {} FULMAR_SERVER__HOST", "PORT: {} FULMAR_SERVER__PORT"];
    assert_eq!(lines, expected.map(|e| format!("environment FULMAR_{}", e.replace("{}", text))));
    let said = Sources::new()
        .with_environment(variables)
        .with_apps(vec!["1:k:s".to_owned()])
        .with_flag("server.port", Some("7000".to_owned()))
        .with_flag("server.host", Some("127.0.0.1".to_owned()));
    assert_eq!(load(said).unwrap().findings, []);
}

/// OPS-2: what only observes never stops what serves.
#[test]
fn a_bad_logging_setting_falls_back_and_still_fails_a_check() {
    let loaded = load_text("soft", "[logging]\nlevel = \"loud\"\nformat = 5\n").unwrap();
    assert_eq!(loaded.config, defaults());
    assert!(loaded.findings.iter().all(|f| f.weight == Weight::FallsBack && f.fails_check(false)));
    let expected = [
        "fulmar.toml:2: logging.level must be one of error, warn, info, debug, trace, not \"loud\" (a node falls back to \
         the default)",
        "fulmar.toml:3: logging.format must be one of text, json, not a TOML integer (a node falls back to the default)",
    ];
    assert_eq!(findings("soft", "[logging]\nlevel = \"loud\"\nformat = 5\n"), expected);
}

/// OPS-43, INC-2019-12-06
#[test]
fn whatever_is_wrong_with_the_metrics_section_the_node_starts_without_it() {
    let text = "[metrics]\nstatsd = \"telegraf\"\ninterval_s = 0\nprefix = \"a:b\"\naddress = 9\n";
    assert_eq!(load_text("metrics", text).unwrap().config, defaults());
    let expected = [
        "fulmar.toml:2: metrics.statsd must be host:port, such as 127.0.0.1:8125 or telegraf.example.com:8125 (a node falls back \
         to the default)",
        "fulmar.toml:3: metrics.interval_s must be between 1 and 3600, not 0 (a node falls back to the default)",
        "fulmar.toml:4: metrics.prefix must be at most 64 letters, digits, _ and dots, the latter not at an end (a node falls back \
         to the default)",
    ];
    let found = findings("metrics", text);
    assert_eq!(found[..3], expected);
    assert!(found[3].contains("metrics.address") && found.len() == 4, "{found:?}");
}

/// OPS-15
#[test]
fn a_demo_app_that_others_can_reach_is_warned_of() {
    let exposed = findings("exposed", "[server]\nhost = \"0.0.0.0\"\n");
    assert_eq!(exposed.len(), 1);
    assert!(
        exposed[0].starts_with("fulmar.toml:2: no app is configured, so the demo app is on, and its secret is public")
    );
    assert_eq!(findings("wanted", "[server]\nhost = \"0.0.0.0\"\n[demo]\nenabled = true\n"), [""; 0]);
    let none = findings("none", "[demo]\nenabled = false\n");
    assert_eq!(none.len(), 1, "{none:?}");
    assert!(none[0].contains("every connection will be refused with 4001"), "{none:?}");
}

/// OPS-3
#[test]
fn settings_that_defeat_each_other_are_pointed_out() {
    let text = "[server]\nproxy_protocol = true\n[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\ntls_only = true\n\
                event_data_bytes_max = 2000000\n";
    let found = findings("defeat", text);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("fulmar.toml:2: server.proxy_protocol has no effect"));
    assert!(found[1].starts_with("fulmar.toml:7: apps.tls_only refuses every connection with 4000"));
    assert!(found[2].starts_with("fulmar.toml:8: apps.event_data_bytes_max is 2000000, but limits.request_body"));
}

/// OPS-9
#[test]
fn no_secret_shows_in_anything_that_prints() {
    let folder = Folder::new("secrets");
    folder.write("secret.txt", "hush-file\n");
    let apps = "[[apps]]\nid = \"1\"\nkey = \"k1\"\nsecret = \"hush-one\"\nprevious_secret = \"hush-old\"\n\
                webhooks = [{ url = \"https://a/\", headers = { Authorization = \"hush-token\" } }]\n\
                [[apps]]\nid = \"2\"\nkey = \"k2\"\nsecret_file = \"secret.txt\"\n";
    let file = folder.write("fulmar.toml", apps);
    let sources = Sources::new()
        .with_file(Some(file))
        .with_environment(environment(&[("FULMAR_APPS", "3:k3:hush-variable")]))
        .with_apps(vec!["4:k4:hush-flag".to_owned()]);
    let loaded = load(sources.clone()).unwrap();
    let watch = ConfigWatch::new(&loaded);
    for printed in [format!("{loaded:?}"), loaded.show(), format!("{sources:?}"), format!("{watch:?}")] {
        assert!(!printed.contains("hush"), "{printed}");
    }
    assert!(loaded.show().contains("(not shown)"));

    let bad = "[[apps]]\nid = \"1\"\nkey = \"k:1\"\nsecret = \"hush-one\nhush\"\nprevious_secret = [\"hush\"]\n";
    let file = folder.write("bad.toml", bad);
    let sources = sources.with_file(Some(file)).with_apps(vec!["hush:hush".to_owned(), "5:hu:\nhush".to_owned()]);
    let refused = load(sources).unwrap_err();
    for printed in [refused.to_string(), format!("{refused:?}")] {
        assert!(!printed.contains("hush"), "{printed}");
    }
}

/// OPS-28
#[test]
fn whatever_is_wrong_with_the_admin_section_the_node_starts_and_its_admin_api_is_not_open() {
    let of = |text: &str| load_text("admin", text).unwrap().config.admin.map(|a| (a.address.to_string(), a.token));
    let own = Some(("127.0.0.1:6002".to_owned(), None));
    let token = Some(Secret::new("0123456789abcdef"));
    assert_eq!(of(""), own);
    assert_eq!(of("[admin]\nenabled = false\n"), None);
    assert_eq!(of("[admin]\nhost = 5\nport = 99999\ntoken = 1\nnonsense = 2\n"), own);
    assert_eq!(of("[admin]\ntoken = \"short\"\n"), own);
    assert_eq!(of("[admin]\ntoken_file = \"none-such\"\n"), own);
    for exposed in ["host = \"0.0.0.0\"", "host = \"::\"", "host = \"10.1.2.3\""] {
        assert_eq!(of(&format!("[admin]\n{exposed}\n")), None, "{exposed}");
        for bad in ["token = \"short\"", "token = \"\"", "token_file = \"none-such\"", "token = 7"] {
            assert_eq!(of(&format!("[admin]\n{exposed}\n{bad}\n")), None, "{exposed} {bad}");
        }
        let (_, with_token) = of(&format!("[admin]\n{exposed}\ntoken = \"0123456789abcdef\"\n")).unwrap();
        assert_eq!(with_token, token);
    }
    let said = findings("admin-said", "[admin]\nhost = \"0.0.0.0\"\n");
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("fulmar.toml:2") && said[0].contains("admin.token_file"), "{said:?}");
}
