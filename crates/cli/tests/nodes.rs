//! Several real nodes over one real Redis: what they do for each other at their HTTP ports.
//!
//! How messages travel between nodes is tested with the backbone; skipped, loudly, where there is no `redis-server`.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fulmar_rig::{Folder, Redis, RedisOptions, eventually, is_available};
use serde_json::{Value, json};

/// Within what anything that is expected must come.
const PATIENCE: Duration = Duration::from_secs(30);
const OPENING: &str = "?protocol=7&client=js&version=8.6.0&t=1&n=1";

struct Node {
    process: Child,
    port: u16,
    folder: Folder,
}

impl Node {
    fn start_at_once(redis: &Redis, args: &[&str]) -> Self {
        let folder = Folder::make("node").unwrap();
        let config = folder.path().join("fulmar.toml");
        let app = "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\nmax_connections = 2\n";
        std::fs::write(&config, format!("{app}[[apps]]\nid = \"2\"\nkey = \"k2\"\nsecret = \"s\"\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        command
            .env_clear()
            .args(["serve", "--port", "0", "--workers", "1", "--backbone", "redis", "--config"])
            .arg(&config);
        command.args(["--backbone-addresses", &redis.addr().to_string(), "--set", "admin.port=0"]);
        command.args(["--set", "shutdown.drain_s=0", "--set"]).arg(format!("storage.path={}", folder.path().display()));
        let mut process =
            command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let first = BufReader::new(process.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        let address = first.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        Self { process, port, folder }
    }

    fn start(redis: &Redis, args: &[&str]) -> Self {
        let node = Self::start_at_once(redis, args);
        eventually("the node is ready", PATIENCE, || {
            node.ask("GET", "/readyz", "", "").starts_with("200").then_some(())
        })
        .unwrap();
        node
    }

    fn open(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{headers}\r\n");
        socket.write_all((head + body).as_bytes()).unwrap();
        socket
    }

    /// The status and the body.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let mut answer = String::new();
        self.open(method, path, &format!("Connection: close\r\n{headers}"), body).read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        format!("{} {body}", head.split(' ').nth(1).unwrap())
    }

    fn poll(&self, key: &str, session: &str) -> String {
        self.ask("POST", &format!("/pusher/app/{key}/7/{session}/xhr{OPENING}"), "", "")
    }

    fn say(&self, session: &str, event: &str, data: &Value) -> String {
        let body = Value::from(vec![json!({ "event": event, "data": data }).to_string()]).to_string();
        self.ask("POST", &format!("/pusher/app/k2/7/{session}/xhr_send?t=1&n=2"), "", &body)
    }

    fn run(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        let done = command.env_clear().args(args).stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    fn trigger(&self, channel: &str, data: &str) {
        let port = self.port.to_string();
        self.run(&["trigger", "--app", "2:k2:s", "--port", &port, channel, "event", data]);
    }

    fn status(&self) -> Value {
        let folder: &Path = self.folder.path();
        serde_json::from_str(&self.run(&["status", "--json", "--storage", folder.to_str().unwrap()])).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads an answer until `text` has come.
fn await_text(socket: &mut TcpStream, text: &str) {
    await_any(socket, &[text]);
}

/// Reads an answer until one of the texts has come; answers all that came.
fn await_any(socket: &mut TcpStream, texts: &[&str]) -> String {
    let (mut read, mut piece) = (String::new(), [0; 4_096]);
    while !texts.iter().any(|text| read.contains(text)) {
        let bytes = socket.read(&mut piece).unwrap_or_else(|error| panic!("{error} instead of {texts:?}: {read}"));
        assert!(bytes > 0, "it ended before {texts:?}: {read}");
        read.push_str(&String::from_utf8_lossy(&piece[..bytes]));
    }
    read
}

fn redis() -> Option<Redis> {
    if !is_available() {
        eprintln!("SKIPPED: there is no redis-server on this machine");
        return None;
    }
    Some(Redis::start(&RedisOptions::default()).unwrap())
}

/// NODE-30, NODE-31, NODE-32, NODE-33, NODE-6
#[test]
fn a_session_over_http_lives_on_whatever_node_its_requests_reach() {
    let Some(redis) = redis() else { return };
    let (mut a, b) = (Node::start(&redis, &[]), Node::start(&redis, &[]));
    eventually("they know each other", PATIENCE, || {
        let known = [&a, &b].map(|node| node.status()["backbone"]["nodes"].as_array().map_or(0, Vec::len));
        (known == [2, 2]).then_some(())
    })
    .unwrap();
    // A session that streams from one node, and is sent to and published to through the other.
    let mut stream = a.open("POST", &format!("/pusher/app/k2/7/streams00/xhr_streaming{OPENING}"), "", "");
    await_text(&mut stream, "connection_established");
    let subscribe = json!({ "channel": "room" });
    assert_eq!(b.say("streams00", "pusher:subscribe", &subscribe), "204 ");
    await_text(&mut stream, "subscription_succeeded");
    b.trigger("room", "hello");
    await_text(&mut stream, "hello");
    // A client that goes to the other node for its next answers takes them along.
    let mut elsewhere = b.open("POST", &format!("/pusher/app/k2/7/streams00/xhr_streaming{OPENING}"), "", "");
    a.trigger("room", "again");
    await_text(&mut elsewhere, "again");
    // Polls go round.
    assert_eq!(a.poll("k2", "polls0000"), "200 o\n");
    assert!(b.poll("k2", "polls0000").contains("connection_established"));
    // Whoever claims to come from a node learns nothing and opens nothing.
    let path = format!("/pusher/app/k2/7/unknown00/xhr{OPENING}");
    assert_eq!(a.ask("POST", &path, "X-Fulmar-Passed-On: x\r\n", ""), "421 ");
    assert_eq!(a.ask("POST", &path, "X-Fulmar-Asks: x\r\n", ""), "421 ");
    // The node of the sessions dies: both clients are told to come back, which they do at once.
    a.process.kill().unwrap();
    a.process.wait().unwrap();
    assert!(b.poll("k2", "polls0000").starts_with("200 c[4200,"), "the session has ended");
    assert_eq!(b.say("polls0000", "pusher:ping", &json!({})).split(' ').next(), Some("404"));
    await_text(&mut elsewhere, "0\r\n\r\n");
}

/// NODE-10, NODE-11, NODE-8
#[test]
fn a_node_does_what_its_roles_say_and_sends_everybody_else_to_others() {
    let Some(redis) = redis() else { return };
    let (rest, websocket) = (Node::start(&redis, &["--roles", "rest"]), Node::start(&redis, &["--roles", "websocket"]));
    assert_eq!(rest.poll("k2", "refused00"), "200 o\n");
    assert!(rest.poll("k2", "refused00").starts_with("200 "));
    let said = rest.poll("k2", "refused01") + &rest.poll("k2", "refused01") + &rest.poll("k2", "refused01");
    assert!(said.contains("c[4100,") && said.contains("takes no connections"), "{said}");
    let refused = websocket.ask("GET", "/apps/2/channels", "", "");
    assert!(refused.starts_with("503 This node takes no REST calls"), "{refused}");
    let mut stream = websocket.open("POST", &format!("/pusher/app/k2/7/streams00/xhr_streaming{OPENING}"), "", "");
    await_text(&mut stream, "connection_established");
    assert_eq!(websocket.say("streams00", "pusher:subscribe", &json!({ "channel": "room" })), "204 ");
    await_text(&mut stream, "subscription_succeeded");
    rest.trigger("room", "through another");
    await_text(&mut stream, "through another");
}

/// NODE-20, NODE-21
#[test]
fn connections_are_counted_over_all_nodes_and_a_node_that_just_started_tells_nobody_to_stay_away() {
    let Some(redis) = redis() else { return };
    let (a, b) = (Node::start(&redis, &[]), Node::start(&redis, &[]));
    let sessions = [(&a, "first0000"), (&b, "second000")];
    let _streams = sessions.map(|(node, session)| {
        let mut stream = node.open("POST", &format!("/pusher/app/k/7/{session}/xhr_streaming{OPENING}"), "", "");
        await_text(&mut stream, "connection_established");
        stream
    });
    eventually("the first knows of the second's connection", PATIENCE, || {
        let status = a.status();
        let nodes = status["backbone"]["nodes"].as_array().cloned().unwrap_or_default();
        (nodes.len() == 2 && nodes.iter().all(|node| node["connections"] == 1)).then_some(())
    })
    .unwrap();
    let mut number = 0;
    eventually("a newcomer is told to come back", PATIENCE, || {
        number += 1;
        let path = format!("/pusher/app/k/7/third{number}/xhr_streaming{OPENING}");
        // Until the node has looked at what the other says, it lets people in; they leave again here.
        let said = await_any(&mut a.open("POST", &path, "", ""), &["connection_established", "c[4"]);
        assert!(!said.contains("c[4004"), "{said}");
        said.contains("c[4100,").then_some(())
    })
    .unwrap();
}

/// NODE-5
#[test]
fn a_node_serves_before_redis_is_there_and_delivers_once_it_is() {
    let Some(redis) = redis() else { return };
    redis.kill();
    let node = Node::start_at_once(&redis, &[]);
    assert_eq!(node.ask("GET", "/readyz", "", ""), "503 not ready: the self-test is not done yet\n");
    assert_eq!(node.ask("GET", "/livez", "", ""), "200 ok\n");
    let mut stream = node.open("POST", &format!("/pusher/app/k2/7/streams00/xhr_streaming{OPENING}"), "", "");
    await_text(&mut stream, "connection_established");
    assert_eq!(node.say("streams00", "pusher:subscribe", &json!({ "channel": "room" })), "204 ");
    redis.restart().unwrap();
    await_text(&mut stream, "subscription_succeeded");
    node.trigger("room", "after all");
    await_text(&mut stream, "after all");
}

/// NODE-7
#[test]
fn a_node_that_is_told_to_end_takes_its_lease_along() {
    let Some(redis) = redis() else { return };
    let (mut ending, staying) = (Node::start(&redis, &[]), Node::start(&redis, &[]));
    let leases = || {
        let keys = redis.call(&["KEYS", "fulmar*nodes"]).unwrap();
        let key = keys.list().first().expect("nodes have leases").text();
        redis.call(&["HLEN", &key]).unwrap().number()
    };
    assert_eq!(leases(), Some(2));
    assert!(Command::new("kill").arg(ending.process.id().to_string()).status().unwrap().success());
    assert!(ending.process.wait().unwrap().success());
    assert_eq!(leases(), Some(1));
    staying.trigger("room", "goes on");
}
