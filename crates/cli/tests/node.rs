//! The client commands against a real node, as a person uses them together.
//!
//! What a node does in detail is tested elsewhere; here the two halves of the one binary meet.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::io::{BufRead, BufReader, Lines};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn fulmar(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
    // Nothing of the environment of the test run may reach the command under test.
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

/// Runs a command to its end; answers whether it succeeded, and what it printed.
fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let printed = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(printed).unwrap())
}

/// A node on a port of its own, ended with the test.
struct Node {
    process: Child,
    port: String,
}

impl Node {
    fn start(args: &[&str]) -> Self {
        let mut command = fulmar(&["serve", "--port", "0", "--workers", "2", "--set", "shutdown.drain_s=0"]);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next().expect("a node says where it listens").unwrap();
        let address = first.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
        let port = address.rsplit_once(':').unwrap().1.to_owned();
        Self { process, port }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = fulmar(args);
        command.env("FULMAR_PORT", &self.port);
        command
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// A `fulmar subscribe` that is subscribed to all its channels.
    fn subscribe(&self, channels: &[&str], options: &[&str]) -> Listener {
        let mut command = self.command(&["subscribe"]);
        command.args(channels).args(options).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let out = BufReader::new(process.stdout.take().unwrap()).lines();
        let said = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut listener = Listener { process, out, said };
        for _ in channels {
            listener.wait_until_said("subscribed to ");
        }
        listener
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Listener {
    process: Child,
    out: Lines<BufReader<ChildStdout>>,
    said: Lines<BufReader<ChildStderr>>,
}

impl Listener {
    fn wait_until_said(&mut self, text: &str) -> String {
        let mut before = Vec::new();
        for line in self.said.by_ref() {
            let line = line.unwrap();
            if line.contains(text) {
                return line;
            }
            before.push(line);
        }
        panic!("ended without saying {text:?}, but: {before:#?}");
    }

    fn event(&mut self) -> String {
        self.out.next().expect("an event comes before the end").unwrap()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("node-{test}"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// OPS-1, OPS-12, OPS-14
#[test]
fn what_is_triggered_is_what_a_subscriber_prints() {
    let node = Node::start(&[]);
    let mut listener = node.subscribe(&["news", "private-orders", "presence-room"], &["--user-id", "ann"]);
    for (channel, data) in [("news", "{\"a\":1}"), ("private-orders", "pl\u{e4}in"), ("presence-room", "")] {
        let (ok, said) = run(&mut node.command(&["trigger", channel, "greeting", data]));
        assert!(ok, "{said}");
        assert_eq!(listener.event(), format!("{channel}\tgreeting\t{data}"));
    }
    let (_, answer) = run(&mut node.command(&["trigger", "news", "e", "d", "--info", "subscription_count"]));
    assert_eq!(answer, "news\tsubscription_count=1\n");
    let (_, listing) = run(&mut node.command(&["channels", "--prefix", "presence-", "--info", "user_count"]));
    assert_eq!(listing, "presence-room\tuser_count=1\n");
    assert_eq!(run(&mut node.command(&["channels", "presence-room", "--users"])).1, "ann\n");
    let (_, state) = run(&mut node.command(&["channels", "news", "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&state).unwrap()["occupied"], true);
}

/// OPS-12
#[test]
fn a_wrong_secret_is_refused_in_words() {
    let node = Node::start(&["--app", "7:k7:right"]);
    let wrong = |args: &[&str]| run(node.command(args).env("FULMAR_APP", "7:k7:wrong"));
    let (ok, said) = wrong(&["trigger", "a", "b", "c"]);
    assert!(!ok && said.contains("401: Invalid signature"), "{said}");
    let (ok, said) = run(&mut node.command(&["subscribe", "a"]));
    assert!(!ok && said.contains("closed: 4001") && said.contains("--app ID:KEY:SECRET"), "{said}");
}

/// OPS-6, OPS-7
#[test]
fn an_app_added_to_the_file_works_without_a_restart_and_a_broken_file_takes_nothing_away() {
    let file = folder("reload").join("fulmar.toml");
    let app = |id: &str| format!("[[apps]]\nid = \"{id}\"\nkey = \"k{id}\"\nsecret = \"s{id}\"\n");
    std::fs::write(&file, app("1")).unwrap();
    let node = Node::start(&["--config", file.to_str().unwrap()]);
    let knows = |id: &str| run(&mut node.command(&["channels", "--app", &format!("{id}:k{id}:s{id}")])).0;
    assert!(knows("1") && !knows("2"));
    let mut listener = node.subscribe(&["news"], &["--app", "1:k1:s1"]);

    std::fs::write(&file, "[[apps]]\nid = ").unwrap();
    node.signal("-HUP");
    std::fs::write(&file, app("1") + &app("2")).unwrap();
    node.signal("-HUP");
    // Each try is a process of its own, so this does not spin; the file would also be noticed without the signal.
    assert!((0..2_000).any(|_| knows("2")), "the new app never worked");
    assert!(knows("1"));
    let (ok, said) = run(&mut node.command(&["trigger", "news", "e", "d", "--app", "1:k1:s1"]));
    assert!(ok, "{said}");
    assert_eq!(listener.event(), "news\te\td", "a connection of an unchanged app does not notice");
}

/// OPS-19
#[test]
fn everything_works_over_tls_on_the_same_port() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder("tls").join("cert.pem"), folder("tls").join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let node = Node::start(&["--tls-cert", cert, "--tls-key", key]);
    let mut listener = node.subscribe(&["private-a"], &["--tls", "--ca", cert, "--host", "localhost"]);
    let (ok, said) = run(&mut node.command(&["trigger", "private-a", "plain", "1"]));
    assert!(ok, "{said}");
    let secure = ["trigger", "private-a", "secure", "2", "--tls", "--ca", cert, "--host", "localhost"];
    let (ok, said) = run(&mut node.command(&secure));
    assert!(ok, "{said}");
    assert_eq!([listener.event(), listener.event()], ["private-a\tplain\t1", "private-a\tsecure\t2"]);
    let (ok, said) = run(&mut node.command(&["channels", "--tls", "--host", "localhost"]));
    assert!(!ok && said.contains("--ca FILE"), "{said}");
}

/// OPS-18
#[test]
fn an_address_in_use_is_named() {
    let node = Node::start(&[]);
    let output = fulmar(&["serve", "--port", &node.port]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("127.0.0.1:{}", node.port)) && said.contains("--port"), "{said}");
}

/// OPS-23
#[test]
fn a_node_told_to_end_sends_its_subscribers_away_to_come_back_and_exits_with_0() {
    let mut node = Node::start(&[]);
    let mut listener = node.subscribe(&["news"], &[]);
    node.signal("-TERM");
    listener.wait_until_said("closed: 4200");
    assert_eq!(node.process.wait().unwrap().code(), Some(0));
}

/// OPS-42
#[test]
fn a_node_tells_a_statsd_daemon_its_figures() {
    let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
    sink.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let address = sink.local_addr().unwrap().to_string();
    let node =
        Node::start(&["--metrics-statsd", &address, "--set", "metrics.interval_s=1", "--set", "metrics.prefix=x.y"]);
    let _listener = node.subscribe(&["my-channel"], &[]);
    let (mut bytes, mut lines) = ([0; 2_000], Vec::new());
    // A round may fall between the connection and its subscription.
    let is_told = |lines: &[String], told: &str| lines.iter().any(|line| line.starts_with(told));
    while !is_told(&lines, "x.y.connections:1|g|#node:") || !is_told(&lines, "x.y.channels:1|g|#") {
        let length = sink.recv(&mut bytes).unwrap();
        assert!(length <= 1_432);
        lines.extend(std::str::from_utf8(&bytes[..length]).unwrap().lines().map(str::to_owned));
    }
    let tag = format!(":{}", node.port);
    for line in &lines {
        assert!(line.starts_with("x.y.") && line.ends_with(&tag) && line.contains("|#node:"), "{line}");
    }
    for told in ["apps:1|g|#", "channels:1|g|#", "webhooks_delivered_total:0|c|#", "metrics_sink_failures_total:0|c|#"]
    {
        assert!(is_told(&lines, &format!("x.y.{told}")), "{told}: {lines:?}");
    }
}

/// OPS-43 DOC-10: a node alone has no lease to say it in.
#[test]
fn a_node_whose_metrics_sink_is_away_serves_and_says_so_when_it_is_asked() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("metrics-sink");
    let storage = format!("storage.path={}", folder.display());
    let node = Node::start(&["--metrics-statsd", &closed, "--set", &storage, "--set", "admin.port=0"]);
    let said = format!("metrics   do not arrive at {closed}: nothing listens there");
    let status = || run(node.command(&["status", "--storage"]).arg(&folder));
    let until = Instant::now() + Duration::from_secs(20);
    while !status().1.contains(&said) {
        assert!(Instant::now() < until, "{said} is not in {:?}", status());
    }
    let found = run(node.command(&["doctor", "--json", "--metrics-statsd", &closed, "--set"]).arg(&storage)).1;
    assert!(found.contains("metrics-sink-unreachable") && found.contains(&closed), "{found}");
    assert!(run(&mut node.command(&["trigger", "my-channel", "greeting", "hello"])).0, "it serves");
}
