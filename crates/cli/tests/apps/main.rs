//! Apps that are added and changed while a node runs: from the command line and through the admin API.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod lines;
mod node;
mod rotation;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use fulmar_protocol::app::App;
use serde_json::{Value, json};

use lines::{Lines, next};
use node::{Node, exchange, of};

/// OPS-29, OPS-33
#[test]
fn an_app_is_added_with_one_command_beside_a_node_that_was_told_nothing() {
    let node = Node::start("add", &[]);
    let said = node.run(&["app", "add"]).unwrap();
    let word = |name: &str| said.lines().find_map(|l| l.trim().strip_prefix(name)).unwrap().trim().to_owned();
    let app = App::new(&word("id"), &word("key"), &word("secret"));
    assert_eq!(node.publish(&app), 200);
    assert!(said.contains("not shown again"), "{said}");
    let listed = node.run(&["app", "list"]).unwrap();
    assert!(listed.contains(app.key.as_str()) && !listed.contains(&word("secret")), "{listed}");

    let id = app.id.as_str();
    assert!(node.run(&["app", "disable", id]).unwrap().contains("disable"));
    assert_eq!(node.publish(&app), 403);
    node.run(&["app", "enable", id]).unwrap();
    node.run(&["app", "limits", id, "event_data_bytes_max=1"]).unwrap();
    assert_eq!(node.publish(&app), 413);
    assert!(
        node.run(&["app", "limits", id]).unwrap().lines().any(|l| l == format!("{:<38} 1", "event_data_bytes_max"))
    );
    node.run(&["app", "edit", id, "event_data_bytes_max=", "allowed_origins=https://a.example, *.b.example"]).unwrap();
    assert_eq!(node.publish(&app), 200);
    let settings = &node.app(&["show", id])["settings"];
    assert_eq!(settings["allowed_origins"], json!(["https://a.example", "*.b.example"]));
    node.run(&["app", "remove", id]).unwrap();
    assert_eq!(node.publish(&app), 401);
    let history = node.run(&["app", "history", id]).unwrap();
    assert!(history.contains("ann") && history.lines().count() == 6, "{history}");
    node.run(&["app", "revert", id, "5"]).unwrap();
    assert_eq!(node.publish(&app), 200);

    for (wrong, said) in [
        (&["app", "edit", id, "client_events=maybe"][..], "apps.client_events must be true or false"),
        (&["app", "edit", id, "clientevents=true"], "did you mean apps.client_events?"),
        (&["app", "add", id], "is already used"),
        (&["app", "show", "none"], "there is no app none"),
        (&["app", "limits", id, "client_events=true"], "client_events is not a limit"),
        (&["app", "keys", "retire", id], "nothing to retire"),
        (&["app", "revert", id, "77"], "no revision 77"),
    ] {
        let error = node.run(wrong).unwrap_err();
        assert!(error.contains(said), "{wrong:?}: {error}");
    }
    let audit = node.run(&["audit"]).unwrap();
    for part in ["ann", "add", "keys-retire", "refused", "event_data_bytes_max"] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    let everything = node.log() + &audit + &history + &node.kept("audit.jsonl").unwrap();
    assert!(!everything.contains(&word("secret")), "a secret is shown once");
}

/// OPS-30
#[test]
fn a_change_that_was_answered_is_there_after_a_power_cut() {
    let node = Node::start("cut", &[]);
    let app = of(&node.app(&["add", "42", "client_events=true"]));
    let node = node.killed_and_started(&[]);
    assert_eq!(node.publish(&app), 200);
    assert_eq!(node.app(&["show", "42"])["settings"]["client_events"], true);
    assert_eq!(node.publish(&App::new("1", "demo-key", "demo-secret")), 401, "the demo app is off");
    // The same apps from the file go before those of the registry, and are not changed through it.
    let node = node.killed_and_started(&["--app", "42:other:other-secret"]);
    assert_eq!((node.publish(&app), node.publish(&App::new("42", "other", "other-secret"))), (401, 200));
    let error = node.run(&["app", "add", "42"]).unwrap_err();
    assert!(error.contains("the configuration"), "{error}");
    assert!(node.run(&["app", "list"]).unwrap().contains("NOT SERVED"));
}

/// OPS-26, OPS-33, OPS-34
#[test]
fn whoever_has_no_token_learns_and_changes_nothing() {
    let node = Node::start("token", &[]);
    let folder = node.home.join(".local/state/fulmar");
    let mode = |name: &str| std::fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
    node.run(&["app", "add"]).unwrap();
    assert_eq!(mode(""), 0o700);
    for file in ["admin-token", "apps.redb", "audit.jsonl"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    let token = node.kept("admin-token").unwrap();
    assert_eq!(token.trim().len(), 64);
    let almost = format!("Authorization: Bearer {}\r\n", &token.trim()[..63]);
    for headers in ["", "Authorization: Bearer \r\n", &almost, "Authorization: Basic YTpi\r\n", "Cookie: a=b\r\n"] {
        for (method, path) in [("GET", "/admin/v1/apps"), ("POST", "/admin/v1/apps"), ("GET", "/none")] {
            let (status, answer) = node.admin(method, path, headers, "");
            assert_eq!((status, answer.as_object().unwrap().len()), (401, 1), "{method} {path} {headers}: {answer}");
        }
    }
    assert_eq!(node.admin("GET", "/admin/v1/apps", &node.bearer(), "").0, 200);
    assert_eq!(
        exchange(
            &format!("127.0.0.1:{}", node.port),
            &format!("GET /admin/v1/apps HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}\r\n", node.bearer())
        )
        .0,
        404,
        "the public port knows nothing of it"
    );
    let audit = node.run(&["audit"]).unwrap();
    assert!(audit.contains("without the token"), "{audit}");
    let log = node.log();
    assert!(!log.contains(token.trim()));
}

/// OPS-28
#[test]
fn nothing_wrong_with_the_admin_section_stops_a_node() {
    let sections: [&[&str]; 4] = [
        &["--set", "admin.port=70000"],
        &["--set", "admin.host=everywhere"],
        &["--set", "admin.token=short"],
        &["--set", "admin.token_file=/none"],
    ];
    for (n, section) in sections.iter().enumerate() {
        let mut node = Node::start(
            &format!("soft-{n}"),
            &[section, &["--app", "7:k:s", "--set", "admin.port=0"][..]].concat()[..],
        );
        assert_eq!(node.publish(&App::new("7", "k", "s")), 200, "{section:?}");
        node.end();
    }
}

/// OPS-33
#[test]
fn every_route_is_described_and_every_described_route_exists() {
    let node = Node::start("openapi", &[]);
    let (status, description) = node.admin("GET", "/openapi.json", "", "");
    assert_eq!(status, 200);
    let mut described = 0;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let path = path.replace("{id}", "none").replace("{name}", "news");
            let (status, answer) = node.admin(&method.to_uppercase(), &path, &node.bearer(), "{}");
            let missing = answer["error"].as_str().unwrap_or_default().contains("at this path");
            assert!(status != 405 && !missing, "{method} {path}: {status} {answer}");
            described += 1;
            let schema = &operation["responses"].as_object().unwrap().values().next().unwrap();
            let content = schema["content"].as_object().unwrap().values().next().unwrap();
            let name = content["schema"]["$ref"].as_str().unwrap();
            assert!(description.pointer(name.trim_start_matches('#')).is_some(), "{name}");
        }
        let (status, _) = node.admin("PUT", &path.replace("{id}", "none").replace("{name}", "a"), &node.bearer(), "");
        assert_eq!(status, 405, "{path}");
    }
    assert_eq!(described, fulmar_server::admin::routes::ROUTES.len());
}

/// OPS-33
#[test]
fn answers_have_what_their_description_says() {
    let node = Node::start("answers", &[]);
    let description = node.admin("GET", "/openapi.json", "", "").1;
    let schema = |name: &str| description["components"]["schemas"][name].clone();
    let check = |name: &str, answer: &Value| {
        let schema = schema(name);
        for required in schema["required"].as_array().unwrap() {
            assert!(answer.get(required.as_str().unwrap()).is_some(), "{name} lacks {required}: {answer}");
        }
        for field in answer.as_object().unwrap().keys() {
            assert!(schema["properties"].get(field).is_some(), "{name} does not describe {field}");
        }
    };
    let call = |method: &str, path: &str, body: &str| node.admin(method, path, &node.bearer(), body).1;
    let added = call("POST", "/admin/v1/apps", r#"{"id":"7","client_events":true}"#);
    check("Changed", &added);
    check("App", &added["app"]);
    let settings = schema("Settings");
    for name in added["app"]["settings"].as_object().unwrap().keys() {
        assert!(settings["properties"].get(name).is_some(), "{name}");
    }
    check("Apps", &call("GET", "/admin/v1/apps", ""));
    check("Status", &call("GET", "/admin/v1/status", ""));
    check("History", &call("GET", "/admin/v1/apps/7/history", ""));
    check("Changed", &call("POST", "/admin/v1/apps/7/keys/rotate", ""));
    let event = r#"{"name":"e","channel":"cache-a","data":"1","info":"subscription_count"}"#;
    check("Published", &call("POST", "/admin/v1/apps/7/events", event));
    check("Channels", &call("GET", "/admin/v1/apps/7/channels", ""));
    check("Channel", &call("GET", "/admin/v1/apps/7/channels/cache-a?info=cache", ""));
    check("Members", &call("GET", "/admin/v1/apps/7/channels/presence-a/users", ""));
    check("Changed", &call("POST", "/admin/v1/apps/7/keys/retire", r#"{"secret":"previous"}"#));
    check("Audit", &call("GET", "/admin/v1/audit", ""));
    check("Error", &call("POST", "/admin/v1/apps/7/keys/retire", r#"{"secret":"both"}"#));
    let stale = format!("{}If-Match: 1\r\n", node.bearer());
    assert_eq!(node.admin("PATCH", "/admin/v1/apps/7", &stale, r#"{"enabled":false}"#).0, 412);
}

/// A stream of the admin API.
struct Stream(BufReader<TcpStream>);

impl Stream {
    /// Asks for `path` and reads the head, which must be that of a stream.
    fn open(node: &Node, path: &str) -> Self {
        let mut stream = TcpStream::connect(node.kept("admin-address").unwrap().trim()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nHost: a\r\n{}\r\n", node.bearer());
        stream.write_all(request.as_bytes()).unwrap();
        let mut stream = Self(BufReader::new(stream));
        let head: Vec<String> = std::iter::from_fn(|| Some(stream.line()).filter(|line| !line.is_empty())).collect();
        let head = head.join("\n");
        assert!(head.starts_with("HTTP/1.0 200 ") && head.contains("application/x-ndjson"), "{head}");
        stream
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
        line.trim_end().to_owned()
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Skips what comes before an event of this name.
    fn until(&mut self, event: &str) -> Value {
        loop {
            let message = self.next();
            if message["event"] == event {
                return message;
            }
        }
    }
}

/// OPS-37, OPS-34
#[test]
fn an_operator_publishes_and_asks_in_an_apps_name_by_the_rules_of_the_signed_api() {
    let node = Node::start("operator", &[]);
    let app = of(&node.app(&["add", "42", "subscription_counts=true"]));
    let call = |method: &str, below: &str, headers: &str, body: &str| {
        node.admin(method, &format!("/admin/v1/apps/42{below}"), &(node.bearer() + headers), body)
    };
    let mut lines = Lines::open(node.port, &app);
    assert!(lines.subscribe(&app, "private-a"));
    let event = r#"{"name":"e","channels":["private-a","b"],"data":"hush","info":"subscription_count"}"#;
    let (status, answer) = call("POST", "/events", "Idempotency-Key: once\r\n", event);
    let told = json!({ "channels": { "private-a": { "subscription_count": 1 }, "b": { "subscription_count": 0 } } });
    assert_eq!((status, &answer), (200, &told));
    let again = call("POST", "/events", "Idempotency-Key: once\r\n", event);
    assert_eq!(again, (200, told), "a repeat is answered as the first");
    assert_eq!(call("POST", "/events", "", r#"{"name":"last","channel":"private-a","data":""}"#), (200, json!({})));
    let heard: Vec<Value> = std::iter::from_fn(|| Some(next(&mut lines.socket)))
        .take_while(|message| message["event"] != "last")
        .filter(|message| message["event"] == "e")
        .collect();
    assert_eq!(heard, [json!({ "event": "e", "channel": "private-a", "data": "hush" })], "once, and as it was sent");

    let listed = json!({ "channels": { "private-a": {} } });
    assert_eq!(call("GET", "/channels", "", ""), (200, listed.clone()));
    assert_eq!(call("GET", "/channels?filter_by_prefix=private-&auth_key=x&body_md5=y", "", ""), (200, listed));
    let one = json!({ "occupied": true, "subscription_count": 1 });
    assert_eq!(call("GET", "/channels/private-a?info=subscription_count", "", ""), (200, one));
    assert_eq!(call("GET", "/channels/presence-a/users", "", ""), (200, json!({ "users": [] })));

    for (method, below, body, status, said) in [
        ("POST", "/events", r#"{"name":"e","channel":"a b","data":""}"#, 400, "a b"),
        ("POST", "/events", r#"{"name":"pusher:x","channel":"a","data":""}"#, 400, "pusher"),
        ("POST", "/events", "[", 400, ""),
        ("GET", "/channels/a/users", "", 400, "presence"),
        ("GET", "/channels?info=user_count", "", 400, "presence-"),
        ("POST", "/channels", "", 405, "GET"),
    ] {
        let (answered, answer) = call(method, below, "", body);
        let error = answer["error"].as_str().unwrap();
        assert!(answered == status && error.contains(said), "{method} {below} {body}: {answered} {answer}");
    }
    for below in ["/events", "/channels", "/channels/a", "/channels/a/events"] {
        let method = if below == "/events" { "POST" } else { "GET" };
        assert_eq!(node.admin(method, &format!("/admin/v1/apps/none{below}"), &node.bearer(), "{}").0, 404, "{below}");
        assert_eq!(node.admin(method, &format!("/admin/v1/apps/42{below}"), "", "{}").0, 401, "{below}");
    }
    node.run(&["app", "disable", "42"]).unwrap();
    assert_eq!(call("POST", "/events", "", event).0, 403);
    assert_eq!(call("GET", "/channels/a/events", "", "").0, 403);

    let audit = node.kept("audit.jsonl").unwrap();
    let entries: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let done = entries.iter().find(|entry| entry["call"] == "publish" && entry["outcome"] == "done").unwrap();
    assert_eq!((&done["channels"], &done["app"]), (&json!(["private-a", "b"]), &json!("42")));
    assert!(entries.iter().any(|entry| entry["call"] == "publish" && entry["outcome"] == "failed"));
    assert!(!audit.contains("hush"), "what was said is not in the log");
    assert!(entries.iter().all(|entry| entry["call"] != "channels"), "looking changes nothing");
}

/// HTTP-71, OPS-29, OPS-37, OPS-42
#[test]
fn what_an_app_may_publish_is_changed_while_it_runs_and_what_was_refused_is_told_by_app() {
    let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
    sink.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let address = sink.local_addr().unwrap().to_string();
    let node = Node::start("rate", &["--metrics-statsd", &address, "--set", "metrics.interval_s=1"]);
    let app = of(&node.app(&["add", "42", "publishes_per_s_max=1"]));
    let channels: Vec<String> = (0..90).map(|n| format!("c{n}")).collect();
    let event = json!({ "name": "e", "channels": channels, "data": "x" }).to_string();
    let publish = || node.admin("POST", "/admin/v1/apps/42/events", &node.bearer(), &event);
    assert_eq!(publish().0, 200, "larger than the limit, it goes when nothing is used");
    assert_eq!(node.publish(&app), 503, "and is paid off for a minute and a half");
    let (status, answer) = publish();
    assert!(status == 503 && answer["error"].as_str().unwrap().contains("publishes_per_s_max"), "{answer}");
    node.run(&["app", "limits", "42", "publishes_per_s_max=0"]).unwrap();
    assert_eq!(node.publish(&app), 200);
    assert!(node.run(&["app", "limits", "42"]).unwrap().contains(&format!("{:<38} 0\n", "publishes_per_s_max")));

    let (mut bytes, mut refused) = ([0; 2_000], 0);
    while refused < 2 {
        let length = sink.recv(&mut bytes).unwrap();
        let lines = std::str::from_utf8(&bytes[..length]).unwrap().lines();
        let told =
            lines.filter_map(|line| line.strip_prefix("fulmar.publishes_over_rate_total:")?.strip_suffix(",app:42"));
        refused += told.map(|line| line.split('|').next().unwrap().parse::<u64>().unwrap()).sum::<u64>();
    }
    assert_eq!(refused, 2);
}

/// OPS-38, OPS-34
#[test]
fn an_operator_sees_what_a_subscriber_sees() {
    let node = Node::start("watch", &[]);
    let limits = ["max_connections=0", "authorized_connections=true", "authorized_connections_timeout_s=1"];
    node.app(&[&["add", "42"][..], &limits].concat());
    let base = "/admin/v1/apps/42/channels";
    let path = format!("{base}/presence-a/events?also=news&user_id=ops&user_info=%7B%22name%22%3A%22Ann%22%7D");
    let mut stream = Stream::open(&node, &path);
    assert_eq!(stream.next()["event"], "pusher:connection_established");
    let roster = stream.until("pusher_internal:subscription_succeeded");
    assert!(roster["channel"] == "presence-a" && roster["data"].as_str().unwrap().contains(r#""ops":{"name":"Ann"}"#));
    assert_eq!(stream.next()["channel"], "news");

    let mut other = Stream::open(&node, &format!("{base}/presence-a/events"));
    let joined = stream.next();
    assert!(joined["event"] == "pusher_internal:member_added" && joined["data"].to_string().contains("fulmar-admin"));
    other.until("pusher_internal:subscription_succeeded");
    let users = node.admin("GET", &format!("{base}/presence-a/users"), &node.bearer(), "").1;
    assert_eq!(users["users"].as_array().unwrap().len(), 2, "it counts like any subscriber");
    node.run(&["trigger", "news", "e", "hello", "--app", "42"]).unwrap();
    assert_eq!(stream.next(), json!({ "event": "e", "channel": "news", "data": "hello" }));
    drop(other);
    assert_eq!(stream.next()["event"], "pusher_internal:member_removed", "who stops reading is no member any more");

    for bad in ["a%20b", "%23server-to-user-1", "a?also=b%20c", "a?user_info=x"] {
        let (path, query) =
            bad.split_once('?').map_or((bad, String::new()), |(path, query)| (path, format!("?{query}")));
        let (status, answer) = node.admin("GET", &format!("{base}/{path}/events{query}"), &node.bearer(), "");
        assert_eq!(status, 400, "{bad}: {answer}");
    }
    node.run(&["app", "remove", "42"]).unwrap();
    assert_eq!(stream.until("pusher:error")["data"]["code"], 4001);
    assert_eq!(stream.until("fulmar:closed")["data"]["code"], 4001);
    let audit = node.run(&["audit"]).unwrap();
    assert!(audit.contains("watch 42 on presence-a, news"), "{audit}");
}

/// OPS-39
#[test]
fn a_reader_of_a_stream_who_falls_behind_is_cut_off_and_others_have_room() {
    let node =
        Node::start("slow", &["--set", "limits.outbound_bytes_max=65536", "--set", "limits.outbound_age_max_s=1"]);
    node.app(&["add", "42"]);
    let path = "/admin/v1/apps/42/channels/news/events";
    let mut slow = Stream::open(&node, path);
    slow.until("pusher_internal:subscription_succeeded");
    let occupied = || node.admin("GET", "/admin/v1/apps/42/channels/news", &node.bearer(), "").1["occupied"] == true;
    let event = json!({ "name": "e", "channel": "news", "data": "x".repeat(10_000) }).to_string();
    // What sockets hold on the way is the system's to say; what the node holds is not.
    let cut = (0..10_000).any(|_| {
        assert_eq!(node.admin("POST", "/admin/v1/apps/42/events", &node.bearer(), &event).0, 200);
        !occupied()
    });
    assert!(cut, "nobody may leave so much unread");
    // It does not read its end either: then the node ends the connection, which whoever writes to it notices.
    let is_cut = (0..600).any(|_| {
        thread::sleep(Duration::from_millis(50));
        slow.0.get_mut().write_all(b"x").is_err()
    });
    assert!(is_cut, "who does not read its end is cut off");

    let mut streams: Vec<Stream> = (0..32).map(|_| Stream::open(&node, path)).collect();
    let (status, answer) = node.admin("GET", path, &node.bearer(), "");
    assert_eq!(status, 503, "{answer}");
    assert_eq!(node.admin("GET", "/admin/v1/status", &node.bearer(), "").0, 200, "there is room for calls");
    streams.pop();
    let has_room = (0..1_000).any(|_| {
        let mut stream = TcpStream::connect(node.kept("admin-address").unwrap().trim()).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n{}\r\n", node.bearer()).as_bytes()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        status.ends_with(b"200")
    });
    assert!(has_room, "a stream that ended gives its place back");
}

/// OPS-40
#[test]
fn an_id_alone_leads_the_client_commands_through_the_admin_api() {
    let node = Node::start("by-id", &[]);
    node.app(&["add", "42", "subscription_counts=true"]);
    let mut subscribe = Command::new(env!("CARGO_BIN_EXE_fulmar"));
    subscribe.args(["subscribe", "private-a", "news", "--count", "2", "--json", "--app", "42"]);
    subscribe.env_clear().env("HOME", &node.home).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut subscribe = subscribe.spawn().unwrap();
    let mut told = BufReader::new(subscribe.stderr.take().unwrap()).lines();
    assert!(told.any(|line| line.unwrap() == "subscribed to news"));
    let said =
        node.run(&["trigger", "private-a", "e", "1", "--also", "news", "--info", "subscription_count", "--app", "42"]);
    let said = said.unwrap();
    assert!(said.contains("private-a\tsubscription_count=1") && said.contains("news\tsubscription_count=1"), "{said}");
    let mut printed = String::new();
    subscribe.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert!(subscribe.wait().unwrap().success());
    let printed: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let event = |channel: &str| json!({ "event": "e", "channel": channel, "data": "1" });
    assert!(printed.len() == 2 && printed.contains(&event("private-a")) && printed.contains(&event("news")));

    let _watching = Stream::open(&node, "/admin/v1/apps/42/channels/presence-room/events?user_id=ann");
    assert_eq!(node.run(&["channels", "presence-room", "--users", "--app", "42"]).unwrap(), "ann\n");
    let listed = node.run(&["channels", "--prefix", "presence-", "--info", "user_count", "--app", "42"]).unwrap();
    assert_eq!(listed, "presence-room\tuser_count=1\n");

    for (wrong, said) in [
        (&["channels", "--app", "none"][..], "there is no app none"),
        (&["subscribe", "a", "--app", "none"], "there is no app none"),
        (&["trigger", "a", "pusher:x", "1", "--app", "42"], "pusher"),
        (&["channels", "--app", "4 2"], "ID or ID:KEY:SECRET"),
        (&["channels", "--admin", "http://127.0.0.1:1"], "go with --app ID"),
    ] {
        let error = node.run(wrong).unwrap_err();
        assert!(error.contains(said), "{wrong:?}: {error}");
    }
}
