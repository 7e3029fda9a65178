//! Apps that are added and changed while a node runs: from the command line, through the admin API, and by everybody who
//! signs with their secrets meanwhile.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fulmar_protocol::app::App;
use fulmar_protocol::name::{ChannelName, SocketId};
use fulmar_protocol::signing::Signer;
use serde_json::{Value, json};
use tungstenite::{Message, connect};

/// A node with a home of its own, ended with the test.
struct Node {
    process: Child,
    port: u16,
    home: PathBuf,
}

impl Node {
    fn start(test: &str, args: &[&str]) -> Self {
        let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("apps-{test}"));
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).unwrap();
        Self::start_in(home, args)
    }

    fn start_in(home: PathBuf, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        command.args(["serve", "--port", "0", "--workers", "2", "--set", "shutdown.drain_s=0"]).args(args);
        command.env_clear().env("HOME", &home).env("FULMAR_ADMIN__PORT", "0");
        let log = std::fs::File::create(home.join("log")).unwrap();
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next().expect("a node says where it listens").unwrap();
        let address = first.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        // The rest of the banner must have a reader.
        thread::spawn(move || lines.for_each(drop));
        let node = Self { process, port, home };
        // The admin API comes up right after the public port.
        let up = (0..1_000).any(|_| {
            node.kept("admin-address").is_some_and(|text| {
                let is_up = TcpStream::connect(text.trim()).is_ok();
                if !is_up {
                    thread::yield_now();
                }
                is_up
            }) || {
                thread::sleep(Duration::from_millis(5));
                false
            }
        });
        assert!(up || args.iter().any(|arg| arg.contains("admin.enabled=false")), "{}", node.log());
        node
    }

    /// Ends it at once, as a power cut does, and starts another in the same home.
    fn killed_and_started(mut self, args: &[&str]) -> Self {
        self.end();
        std::fs::remove_file(self.home.join(".local/state/fulmar/admin-address")).unwrap();
        Self::start_in(self.home.clone(), args)
    }

    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn kept(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.home.join(".local/state/fulmar").join(name)).ok()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log")).unwrap()
    }

    /// Runs `fulmar ARGS` as the user who runs the node; what it printed, or what it complained of.
    fn run(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        command.args(args).env_clear().env("HOME", &self.home).env("USER", "ann");
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    fn app(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = ["app", "--json"].iter().chain(args).copied().collect();
        serde_json::from_str(&self.run(&args).unwrap()).unwrap()
    }

    /// One call of the admin API, with the head as given.
    fn admin(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
        let address = self.kept("admin-address").unwrap();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}");
        exchange(address.trim(), &format!("{head}Content-Length: {length}\r\n\r\n{body}"))
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.kept("admin-token").unwrap().trim())
    }

    fn publish(&self, app: &App) -> u16 {
        publish(self.port, app)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

fn exchange(address: &str, request: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

fn publish(port: u16, app: &App) -> u16 {
    let body = br#"{"name":"e","channel":"news","data":"{}"}"#;
    let path = format!("/apps/{}/events", app.id);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let query = Signer::of(app).sign_request("POST", &path, &[], body, now);
    let length = body.len();
    let head =
        format!("POST {path}?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json");
    let body = String::from_utf8_lossy(body);
    exchange(&format!("127.0.0.1:{port}"), &format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}")).0
}

fn of(added: &Value) -> App {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    App::new(&text(&added["id"]), &text(&added["app"]["settings"]["key"]), &text(&added["secret"]))
}

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
            let path = path.replace("{id}", "none");
            let (status, answer) = node.admin(&method.to_uppercase(), &path, &node.bearer(), "{}");
            let missing = answer["error"].as_str().unwrap_or_default().contains("at this path");
            assert!(status != 405 && !missing, "{method} {path}: {status} {answer}");
            described += 1;
            let schema = &operation["responses"].as_object().unwrap().values().next().unwrap();
            let name = schema["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
            assert!(description.pointer(name.trim_start_matches('#')).is_some(), "{name}");
        }
        let (status, _) = node.admin("PUT", &path.replace("{id}", "none"), &node.bearer(), "");
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
    check("Changed", &call("POST", "/admin/v1/apps/7/keys/retire", r#"{"secret":"previous"}"#));
    check("Audit", &call("GET", "/admin/v1/audit", ""));
    check("Error", &call("POST", "/admin/v1/apps/7/keys/retire", r#"{"secret":"both"}"#));
    let stale = format!("{}If-Match: 1\r\n", node.bearer());
    assert_eq!(node.admin("PATCH", "/admin/v1/apps/7", &stale, r#"{"enabled":false}"#).0, 412);
}

/// OPS-31: everybody who signs moves from one secret to the next while calls and subscriptions go on.
#[test]
fn a_rotation_under_load_refuses_nobody() {
    const ROTATIONS: usize = 6;
    let node = Node::start("rotation", &[]);
    let first = of(&node.app(&["add", "42"]));
    // What the customer's servers sign with. Each of them holds it for reading from signing to the answer, so that who
    // waits for writing knows that nobody is under way with a secret that was taken out.
    let in_use = Arc::new(RwLock::new(vec![first]));
    let stop = Arc::new(AtomicBool::new(false));
    let [published, subscribed, refused] = [0; 3].map(|_| Arc::new(AtomicU64::new(0)));
    let mut load = Vec::new();
    let port = node.port;
    for turn in 0..4 {
        let (in_use, stop, published, refused) = (in_use.clone(), stop.clone(), published.clone(), refused.clone());
        load.push(thread::spawn(move || {
            for n in turn.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let apps = in_use.read().unwrap();
                let status = publish(port, &apps[n % apps.len()]);
                published.fetch_add(u64::from(status == 200), Ordering::Relaxed);
                refused.fetch_add(u64::from(status != 200), Ordering::Relaxed);
            }
        }));
    }
    for turn in 0..4 {
        let (in_use, stop, subscribed, refused) = (in_use.clone(), stop.clone(), subscribed.clone(), refused.clone());
        load.push(thread::spawn(move || {
            let mut lines = Lines::open(port, &in_use.read().unwrap()[0]);
            for n in turn.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let apps = in_use.read().unwrap();
                // New connections and ones that have seen several secrets take turns.
                if n % 10 == 0 {
                    lines = Lines::open(port, &apps[0]);
                }
                let done = lines.subscribe(&apps[n % apps.len()], &format!("private-{turn}-{n}"));
                let counter = if done { &subscribed } else { &refused };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let some_more = || {
        let now = || (published.load(Ordering::Relaxed), subscribed.load(Ordering::Relaxed));
        let before = now();
        let came = (0..6_000).any(|_| {
            thread::sleep(Duration::from_millis(5));
            let now = now();
            now.0 >= before.0 + 40 && now.1 >= before.1 + 40
        });
        assert!(came, "the load has come to rest: {before:?} to {:?}", now());
    };
    for _ in 0..ROTATIONS {
        some_more();
        let next = of(&node.app(&["keys", "rotate", "42"]));
        in_use.write().unwrap().push(next);
        some_more();
        let old = in_use.write().unwrap().remove(0);
        node.run(&["app", "keys", "retire", "42"]).unwrap();
        assert_eq!(node.publish(&old), 401, "a retired secret is refused from the moment of the answer");
    }
    some_more();
    stop.store(true, Ordering::Relaxed);
    load.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(refused.load(Ordering::Relaxed), 0, "{published:?} published, {subscribed:?} subscribed");
}

/// A connection that subscribes to one private channel after the other.
struct Lines {
    socket: tungstenite::WebSocket<tungstenite::stream::MaybeTlsStream<TcpStream>>,
    socket_id: SocketId,
}

impl Lines {
    fn open(port: u16, app: &App) -> Self {
        let url = format!("ws://127.0.0.1:{port}/app/{}?protocol=7&client=test&version=1", app.key);
        let (mut socket, _) = connect(url).unwrap();
        let hello = next(&mut socket);
        let data: Value = serde_json::from_str(hello["data"].as_str().unwrap()).unwrap();
        let socket_id = SocketId::parse(data["socket_id"].as_str().unwrap()).unwrap().unwrap();
        Self { socket, socket_id }
    }

    fn subscribe(&mut self, app: &App, channel: &str) -> bool {
        let name = ChannelName::parse(channel, 164).unwrap();
        let auth = Signer::of(app).sign_channel(self.socket_id, &name, None);
        let said = json!({ "event": "pusher:subscribe", "data": { "channel": channel, "auth": auth } });
        self.socket.send(Message::text(said.to_string())).unwrap();
        loop {
            let answer = next(&mut self.socket);
            if answer["channel"] == channel || answer["event"] == "pusher:error" {
                return answer["event"] == "pusher_internal:subscription_succeeded";
            }
        }
    }
}

fn next(socket: &mut tungstenite::WebSocket<tungstenite::stream::MaybeTlsStream<TcpStream>>) -> Value {
    loop {
        if let Message::Text(text) = socket.read().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}
