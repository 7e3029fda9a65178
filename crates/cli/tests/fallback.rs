//! The HTTP fallback transports against a real node, by hand-written requests.
//!
//! What time decides is tested beside the code; here are the bytes on the wire, TLS, limits and the end of a node.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

/// Within what anything that is expected must come.
const PATIENCE: Duration = Duration::from_secs(20);
const OPENING: &str = "?protocol=7&client=js&version=8.6.0&t=1&n=1";

/// A node with the app `1:k:s` on a port of its own, ended with the test.
struct Node {
    process: Child,
    port: u16,
}

impl Node {
    fn start(args: &[&str]) -> Self {
        // Without subscription counts, which come between everything else.
        static CONFIG: LazyLock<PathBuf> = LazyLock::new(|| {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fallback.toml");
            std::fs::write(&file, "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n").unwrap();
            file
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        command.env_clear().args(["serve", "--port", "0", "--workers", "2", "--config"]).arg(&*CONFIG);
        command.args(["--set", "shutdown.grace_s=0", "--set", "shutdown.drain_s=0"]).args(args);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let first = BufReader::new(process.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        let address = first.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        Self { process, port }
    }

    /// Sends a request on a connection of its own and reads the head of the answer.
    fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{headers}\r\n");
        socket.write_all((head + body).as_bytes()).unwrap();
        Answer::read(BufReader::new(socket))
    }

    fn receive(&self, session: &str, verb: &str) -> Answer {
        self.request("POST", &format!("/pusher/app/k/7/{session}/{verb}{OPENING}"), "Origin: http://a.example\r\n", "")
    }

    /// A poll's whole answer.
    fn poll(&self, session: &str) -> String {
        let mut answer = self.receive(session, "xhr");
        assert_eq!(answer.status, 200);
        answer.rest()
    }

    fn send(&self, session: &str, body: &str) -> u16 {
        self.request("POST", &format!("/pusher/app/k/7/{session}/xhr_send?t=1&n=2"), "", body).status
    }

    fn say(&self, session: &str, message: &Value) {
        assert_eq!(self.send(session, &Value::from(vec![message.to_string()]).to_string()), 204);
    }

    fn subscribe(&self, session: &str, channel: &str) {
        self.say(session, &serde_json::json!({"event": "pusher:subscribe", "data": {"channel": channel}}));
    }

    fn trigger(&self, channel: &str, data: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        command.env_clear().env("FULMAR_PORT", self.port.to_string()).args(["trigger", "--app", "1:k:s"]);
        let done = command.args([channel, "event", data]).stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An answer whose head was read.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    source: BufReader<TcpStream>,
    /// What was read of a body in chunks and not yet taken.
    read: String,
}

impl Answer {
    fn read(mut source: BufReader<TcpStream>) -> Self {
        let mut line = || {
            let mut line = String::new();
            source.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let status = line().split(' ').nth(1).expect("a status line").parse().unwrap();
        let headers = std::iter::from_fn(|| {
            let line = line();
            line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        });
        let headers = headers.collect();
        Self { status, headers, source, read: String::new() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body of an answer that says how long it is.
    fn rest(&mut self) -> String {
        let mut body = vec![0; self.header("content-length").map_or(0, |length| length.parse().unwrap())];
        self.source.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    /// The next line of a body in chunks, `None` at its end.
    fn line(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.read.split_once('\n') {
                let (line, rest) = (line.to_owned(), rest.to_owned());
                self.read = rest;
                return Some(line);
            }
            let mut size = String::new();
            self.source.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim_end(), 16).expect("the size of a chunk");
            let mut chunk = vec![0; size + 2];
            self.source.read_exact(&mut chunk).unwrap();
            if size == 0 {
                assert!(self.read.is_empty(), "only whole lines");
                return None;
            }
            self.read.push_str(str::from_utf8(&chunk[..size]).unwrap());
        }
    }

    /// The message in the next line.
    fn message(&mut self) -> Value {
        message(&self.line().expect("the stream goes on"))
    }
}

fn message(line: &str) -> Value {
    let texts: Vec<String> = serde_json::from_str(line.strip_prefix('a').expect(line)).unwrap();
    assert_eq!(texts.len(), 1);
    serde_json::from_str(&texts[0]).unwrap()
}

/// A stream that was just opened, read up to the established message.
fn open_stream(node: &Node, session: &str) -> Answer {
    let mut stream = node.receive(session, "xhr_streaming");
    assert_eq!(stream.line().unwrap(), "h".repeat(2_048));
    assert_eq!(stream.line().unwrap(), "o");
    assert_eq!(stream.message()["event"], "pusher:connection_established");
    stream
}

/// FB-1, FB-4, FB-5, FB-6, FB-8
#[test]
fn a_stream_carries_a_whole_conversation() {
    let node = Node::start(&[]);
    let mut stream = open_stream(&node, "streaming");
    assert_eq!(stream.status, 200);
    assert_eq!(stream.header("content-type"), Some("application/javascript; charset=UTF-8"));
    assert_eq!(stream.header("access-control-allow-origin"), Some("*"));
    assert_eq!((stream.header("content-length"), stream.header("content-encoding")), (None, None));
    node.subscribe("streaming", "news");
    assert_eq!(stream.message()["event"], "pusher_internal:subscription_succeeded");
    assert_eq!(node.send("streaming", "[]"), 204);
    node.trigger("news", "{\"a\":\"\u{e9}\"}");
    let event = stream.message();
    assert_eq!((&event["channel"], &event["data"]), (&"news".into(), &"{\"a\":\"\u{e9}\"}".into()));
    node.say("streaming", &serde_json::json!({"event": "pusher:ping", "data": {}}));
    assert_eq!(stream.message()["event"], "pusher:pong");
    assert_eq!(node.send("streaming", "nonsense"), 400);
    node.say("streaming", &serde_json::json!({"event": "nonsense"}));
    assert_eq!(stream.message()["event"], "pusher:error", "a message that is none is answered as ever");
}

/// FB-1, FB-11
#[test]
fn polls_carry_the_same() {
    let node = Node::start(&["--set", "server.path_prefix=/rt"]);
    assert_eq!(node.poll("polling"), "o\n");
    assert_eq!(message(node.poll("polling").trim_end())["event"], "pusher:connection_established");
    node.subscribe("polling", "news");
    assert_eq!(message(node.poll("polling").trim_end())["event"], "pusher_internal:subscription_succeeded");
    node.trigger("news", "one");
    node.trigger("news", "two");
    let answers = node.poll("polling");
    let read: Vec<_> = answers.lines().map(|line| message(line)["data"].clone()).collect();
    assert_eq!(read, ["one", "two"]);
    let other_path = node.request("POST", &format!("/rt/app/k/7/other/xhr{OPENING}"), "", "").rest();
    assert_eq!(other_path, "o\n");
}

/// FB-2
#[test]
fn refusals_are_spoken_inside_the_session() {
    let node = Node::start(&[]);
    for (key, query, code) in [("nobody", "?protocol=7", 4001), ("k", "?protocol=4", 4007), ("k", "", 4008)] {
        let mut stream = node.request("POST", &format!("/pusher/app/{key}/7/{code}/xhr_streaming{query}"), "", "");
        assert_eq!((stream.status, stream.line().unwrap().len()), (200, 2_048));
        assert_eq!(stream.line().unwrap(), "o");
        assert_eq!(stream.message()["data"]["code"], code);
        let close = stream.line().unwrap();
        assert!(close.starts_with(&format!("c[{code},\"")), "{close}");
        assert_eq!(stream.line(), None);
    }
    let polled = |path: &str| node.request("POST", path, "", "").rest();
    assert_eq!(polled("/pusher/app/nobody/7/p/xhr?protocol=7"), "o\n");
    let answer = polled("/pusher/app/nobody/7/p/xhr?protocol=7");
    assert!(answer.starts_with("a[") && answer.contains("\nc[4001,"), "{answer}");
}

/// FB-4, FB-7, FB-20
#[test]
fn every_answer_may_be_read_by_any_origin() {
    let node = Node::start(&[]);
    let path = "/pusher/app/k/7/stranger/xhr_send?t=1&n=1";
    let preflight = node.request("OPTIONS", path, "Origin: http://a.example\r\n", "");
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-methods"), Some("POST, OPTIONS"));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("content-type"));
    assert_eq!(preflight.header("access-control-max-age"), Some("86400"));
    for (method, status) in [("OPTIONS", 204), ("POST", 404), ("GET", 405), ("PUT", 405)] {
        let answer = node.request(method, path, "", "");
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, Some("*")), "{method}");
    }
    assert_eq!(node.request("GET", "/pusher/info", "", "").status, 404);
}

/// FB-8, FB-13, FB-17
#[test]
fn a_session_whose_stream_was_broken_off_has_ended() {
    let node = Node::start(&[]);
    let mut witness = open_stream(&node, "witness");
    let room = serde_json::json!({"event": "pusher:subscribe", "data": {"channel": "counted"}});
    node.say("witness", &room);
    assert_eq!(witness.message()["event"], "pusher_internal:subscription_succeeded");
    let stream = open_stream(&node, "leaving");
    node.say("leaving", &room);
    drop(stream);
    // Noticed at once, but by another thread.
    assert!((0..100_000).any(|_| node.send("leaving", "[]") == 404), "the session never ended");
    assert_eq!(node.receive("leaving", "xhr").rest(), "c[4200,\"The session has ended, please reconnect\"]\n");
    assert_eq!(node.send("witness", "[]"), 204, "another session does not notice");
}

/// FB-12
#[test]
fn a_second_stream_of_a_session_takes_over_without_a_second_o() {
    let node = Node::start(&[]);
    let mut first = open_stream(&node, "twice");
    node.subscribe("twice", "news");
    first.message();
    let mut second = node.receive("twice", "xhr_streaming");
    assert_eq!(second.line().unwrap().len(), 2_048);
    assert_eq!(first.line(), None);
    node.trigger("news", "one");
    assert_eq!(second.message()["data"], "one");
}

/// FB-10
#[test]
fn a_stream_as_long_as_a_client_reads_it_is_continued_by_the_next_without_loss() {
    let node = Node::start(&[]);
    let mut stream = open_stream(&node, "flood");
    let mut length = 2_049 + 2;
    node.subscribe("flood", "news");
    stream.message();
    let text = "\u{e9}xxx\"".repeat(1_600);
    for _ in 0..35 {
        node.trigger("news", &text);
    }
    let mut read = 0;
    while length <= 256 * 1024 {
        let line = stream.line().expect("the stream goes on");
        length += line.encode_utf16().count() + 1;
        read += usize::from(message(&line)["data"] == text);
    }
    let mut next = node.receive("flood", "xhr_streaming");
    assert_eq!(stream.line(), None, "nothing comes behind the limit");
    assert_eq!(next.line().unwrap().len(), 2_048);
    for _ in read..35 {
        assert_eq!(next.message()["data"], text);
    }
    node.trigger("news", "end");
    assert_eq!(next.message()["data"], "end");
}

/// FB-16
#[test]
fn a_session_that_is_not_read_is_closed_with_4100_when_its_budget_is_used_up() {
    let node = Node::start(&["--set", "limits.outbound_bytes_max=65536"]);
    assert_eq!(node.poll("slow"), "o\n");
    node.subscribe("slow", "news");
    for _ in 0..30 {
        node.trigger("news", &"x".repeat(10_000));
    }
    let answer = node.poll("slow");
    let close = answer.lines().last().unwrap();
    assert!(close.starts_with("c[4100,"), "{close}");
    let events = answer.lines().filter(|line| line.starts_with("a[")).map(message);
    assert!(events.filter(|event| event["event"] == "event").count() < 20);
}

/// FB-19
#[test]
fn a_message_that_is_too_large_closes_the_session_with_1009() {
    let node = Node::start(&["--set", "limits.message_bytes_max=2000"]);
    for (session, length) in [("message", 2_001), ("body", 6_001)] {
        let mut stream = open_stream(&node, session);
        assert_eq!(node.send(session, &format!("[\"{}\"]", "x".repeat(length))), 413);
        assert!(stream.line().unwrap().starts_with("c[1009,"), "{session}");
        assert_eq!(stream.line(), None);
    }
    let mut stream = open_stream(&node, "large");
    assert_eq!(node.send("large", &format!("[\"{}\"]", "\\u0078".repeat(900))), 204, "escapes do not count");
    assert_eq!(stream.message()["event"], "pusher:error");
}

/// FB-3, FB-18
#[test]
fn a_session_counts_against_the_node_and_those_inside_are_served_when_it_is_full() {
    let node = Node::start(&["--set", "limits.connections_max=3"]);
    // Two places: the session, and the connection of its stream.
    let mut stream = open_stream(&node, "first");
    assert_eq!(node.poll("second"), "o\n");
    // The second session has the last place; a third is told so, by a connection that is beyond the limit as well.
    assert_eq!(node.poll("third"), "o\n");
    let refused = node.poll("third");
    assert!(refused.contains("\nc[4100,"), "{refused}");
    node.subscribe("first", "news");
    assert_eq!(stream.message()["event"], "pusher_internal:subscription_succeeded", "those inside are served");
}

/// FB-21
#[test]
fn a_node_that_goes_away_sends_its_sessions_away_to_come_back() {
    let mut node = Node::start(&[]);
    let mut stream = open_stream(&node, "draining");
    let told = Command::new("kill").args(["-TERM", &node.process.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(stream.message()["data"]["code"], 4200);
    assert!(stream.line().unwrap().starts_with("c[4200,"));
    assert_eq!(stream.line(), None);
    assert_eq!(node.process.wait().unwrap().code(), Some(0));
}
