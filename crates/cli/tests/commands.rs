//! The commands as a person types them: what they print, how they end.
//!
//! Client commands meet a pretend server here, which can say things a healthy node does not; `node.rs` has them meet a
//! real one.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use serde_json::{Value, json};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

fn fulmar(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
    // Nothing of the environment of the test run may reach the command under test.
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

fn run(command: &mut Command) -> Said {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
}

fn file(test: &str, name: &str, text: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("commands-{test}"));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// The verbs that a help lists.
fn listed(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What is said of a verb may go on in a line that is indented further.
    let first = |line: &str| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')).map(first_word);
    lines.filter_map(first).filter(|verb| verb != "help").collect()
}

fn first_word(line: &str) -> String {
    line.split_whitespace().next().unwrap_or_default().to_owned()
}

/// Whether one of the lines is this command, with variables before it or words after it.
fn has_example(help: &str, command: &str) -> bool {
    help.lines().filter_map(|line| line.strip_prefix("  ")).any(|line| {
        let Some((before, after)) = line.split_once(command) else { return false };
        before.split_whitespace().all(|word| word.contains('=')) && (after.is_empty() || after.starts_with(' '))
    })
}

/// OPS-10
#[test]
fn every_verb_and_every_verb_of_it_helps_with_an_example() {
    let all = listed(&run(&mut fulmar(&["--help"])).out);
    let promised = [
        "serve",
        "check",
        "config",
        "app",
        "status",
        "audit",
        "doctor",
        "redis",
        "sentinel",
        "presence",
        "import",
        "webhook",
        "trigger",
        "subscribe",
        "channels",
        "version",
    ];
    assert_eq!(all, promised);
    let mut left = vec![Vec::new()];
    let mut seen = Vec::new();
    while let Some(verb) = left.pop() {
        let words: Vec<&str> = verb.iter().map(String::as_str).collect();
        let said = run(fulmar(&words).arg("--help"));
        assert_eq!(said.code, 0, "{verb:?}: {}", said.err);
        let command = ["fulmar"].iter().chain(&words).copied().collect::<Vec<_>>().join(" ");
        assert!(has_example(&said.out, &command), "no example of `{command}` in its help:\n{}", said.out);
        left.extend(listed(&said.out).into_iter().map(|further| [verb.clone(), vec![further]].concat()));
        seen.push(command);
    }
    // What is looked at is what is listed: this is to notice a list that is not read any more.
    for deep in ["fulmar app keys retire", "fulmar webhook replay", "fulmar redis reshard abort", "fulmar config show"]
    {
        assert!(seen.iter().any(|command| command == deep), "{deep} is not among {seen:?}");
    }
    let help = run(&mut fulmar(&["serve", "--help"])).out;
    for part in ["FULMAR_SERVER__PORT=7000", "FULMAR_CONFIG", "FULMAR_APPS", "--set", "[[apps]]"] {
        assert!(help.contains(part), "{part}");
    }
}

/// OPS-11
#[test]
fn version_prints_it_and_wrong_usage_ends_with_2() {
    let said = run(&mut fulmar(&["version"]));
    assert_eq!((said.code, said.out.as_str()), (0, concat!("fulmar ", env!("CARGO_PKG_VERSION"), "\n")));
    for wrong in [&["serf"][..], &["trigger", "a"], &["trigger", "a", "b", "c", "--port", "x"], &["subscribe", "a b"]] {
        assert_eq!(run(&mut fulmar(wrong)).code, 2, "{wrong:?}");
    }
    let said = run(fulmar(&["channels"]).env("FULMAR_APP", "hush"));
    assert!(said.code == 2 && !said.err.contains("hush"), "{}", said.err);
}

/// OPS-13
#[test]
fn check_ends_with_0_or_78_and_says_everything_at_once() {
    let said = run(&mut fulmar(&["check"]));
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out.contains("127.0.0.1:6001") && said.out.contains("demo app"), "{}", said.out);

    let bad = file("check", "bad.toml", "[server]\nport = 99999\n[[apps]]\nid = \"1\"\nkey = \"k\"\n");
    let said = run(fulmar(&["check", "--config"]).arg(&bad));
    assert_eq!((said.code, said.out.as_str()), (78, ""));
    assert!(said.err.contains("bad.toml:2: server.port must be between 0 and 65535, not 99999"), "{}", said.err);
    assert!(said.err.contains("bad.toml:3: apps.secret is missing"), "{}", said.err);
    assert_eq!(run(fulmar(&["serve", "--config"]).arg(&bad)).code, 78);

    let unknown = file("check", "unknown.toml", "[server]\nprot = 1\n");
    let said = run(fulmar(&["check", "--config"]).arg(&unknown));
    assert_eq!(said.code, 0);
    assert!(said.err.starts_with("warning: ") && said.err.contains("did you mean server.port?"), "{}", said.err);
    let said = run(fulmar(&["check", "--strict"]).env("FULMAR_CONFIG", &unknown));
    assert_eq!(said.code, 78);
    assert!(said.err.starts_with("error: "), "{}", said.err);
}

/// OPS-13, OPS-19
#[test]
fn check_reads_the_certificate_and_its_key() {
    let made = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (one, other) = (made(), made());
    let cert = file("tls", "cert.pem", &one.cert.pem());
    let key = file("tls", "key.pem", &one.signing_key.serialize_pem());
    let other_key = file("tls", "other.pem", &other.signing_key.serialize_pem());
    let missing = key.with_file_name("missing.pem");
    let check =
        |cert: &PathBuf, key: &PathBuf| run(fulmar(&["check", "--tls-cert"]).arg(cert).arg("--tls-key").arg(key));
    let said = check(&cert, &key);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    for (cert, key, expected) in [
        (&cert, &other_key, "cannot be used together"),
        (&key, &key, "no usable PEM certificate"),
        (&cert, &cert, "no usable PEM private key"),
        (&cert, &missing, "missing.pem"),
    ] {
        let said = check(cert, key);
        assert_eq!(said.code, 78);
        assert!(said.err.contains(expected), "{}", said.err);
    }
}

/// OPS-8
#[test]
fn config_explain_says_all_about_a_key() {
    let said = run(&mut fulmar(&["config", "explain", "server.port"]));
    for part in ["server.port", "6001", "FULMAR_SERVER__PORT", "--port", "restart"] {
        assert!(said.out.contains(part), "{part} is not in {}", said.out);
    }
    let section = run(&mut fulmar(&["config", "explain", "apps"])).out;
    assert!(section.contains("apps.secret_file") && !section.contains("server.port"));
    let all = run(&mut fulmar(&["config", "explain"])).out;
    assert!(all.contains("[[apps]]") && all.contains("outbound_age_max_s"));
    let said = run(&mut fulmar(&["config", "explain", "no.such"]));
    assert!(said.code == 1 && said.err.contains("no.such"));
}

/// OPS-9
#[test]
fn config_show_names_each_source_and_no_secret() {
    let command = &mut fulmar(&["config", "show", "--app", "7:k7:hush", "--port", "7000"]);
    let said = run(command.env("FULMAR_SERVER__WORKERS", "2").env("FULMAR_APPS", "8:k8:hush"));
    assert_eq!(said.code, 0);
    for part in ["port = 7000", "# flag --port", "# environment FULMAR_SERVER__WORKERS", "id = \"7\"", "(not shown)"] {
        assert!(said.out.contains(part), "{part} is not in {}", said.out);
    }
    assert!(!said.out.contains("hush") && !said.err.contains("hush"));
}

/// OPS-12
#[test]
fn a_server_that_is_not_there_is_named_together_with_what_to_try() {
    let port = fulmar_rig::free_port().unwrap().to_string();
    for verb in [&["trigger", "a", "b", "c"][..], &["channels"], &["subscribe", "a"]] {
        let said = run(fulmar(verb).env("FULMAR_PORT", &port));
        assert_eq!(said.code, 1, "{verb:?}");
        let expected = format!("connection refused: is a node listening on 127.0.0.1:{port}? Try `fulmar serve`");
        assert!(said.err.contains(&expected), "{}", said.err);
    }
}

/// Answers one REST call with `answer`; returns the request it got.
fn answer_once(answer: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(socket.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0);
        }
        let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).map_or(0, |n| n.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        socket.write_all(answer.as_bytes()).unwrap();
        head + &String::from_utf8(body).unwrap()
    });
    (port, server)
}

/// OPS-12
#[test]
fn trigger_signs_one_call_and_prints_what_came_of_it() {
    let (port, server) = answer_once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    let command = &mut fulmar(&["trigger", "my-channel", "greeting", "{\"a\":1}", "--app", "42:key:secret"]);
    let said = run(command.args(["--port", &port, "--also", "b,c", "--path-prefix", "/ws", "--socket-id", "1.2"]));
    assert_eq!((said.code, said.out.as_str()), (0, "published greeting on my-channel and b,c\n"), "{}", said.err);
    let request = server.join().unwrap();
    assert!(request.starts_with("POST /ws/apps/42/events?auth_key=key&auth_timestamp="), "{request}");
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    let expected =
        json!({"name": "greeting", "data": "{\"a\":1}", "channels": ["my-channel", "b,c"], "socket_id": "1.2"});
    assert_eq!(body, expected);

    let (port, server) = answer_once("HTTP/1.1 200 OK\r\n\r\n{\"channels\":{\"a\":{\"subscription_count\":3}}}");
    let said = run(fulmar(&["trigger", "a", "e", "d", "--info", "subscription_count"]).env("FULMAR_PORT", &port));
    assert_eq!(said.out, "a\tsubscription_count=3\n");
    server.join().unwrap();
}

/// OPS-12
#[test]
fn a_refused_call_shows_the_answer_and_hints_at_the_app() {
    let answer = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 17\r\n\r\nUnknown auth_key\n";
    let (port, server) = answer_once(answer);
    let said = run(fulmar(&["channels"]).env("FULMAR_PORT", &port));
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert_eq!(said.err, "fulmar: 401: Unknown auth_key; name the app with --app ID:KEY:SECRET or FULMAR_APP\n");
    server.join().unwrap();
    let (port, server) = answer_once(answer);
    let said = run(fulmar(&["channels"]).env("FULMAR_PORT", &port).env("FULMAR_APP", "1:k:hush"));
    assert_eq!(said.err, "fulmar: 401: Unknown auth_key\n");
    server.join().unwrap();
}

/// OPS-12
#[test]
fn channels_prints_one_line_each_or_json() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n37\r\n\
                  {\"channels\":{\"presence-a\":{\"user_count\":2},\"other\":{}}}\r\n0\r\n\r\n";
    let (port, server) = answer_once(answer);
    let said = run(&mut fulmar(&["channels", "--port", &port, "--prefix", "p", "--info", "user_count"]));
    assert_eq!((said.code, said.out.as_str()), (0, "other\npresence-a\tuser_count=2\n"), "{}", said.err);
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /apps/1/channels?") && request.contains("filter_by_prefix=p"), "{request}");

    let (port, server) = answer_once("HTTP/1.1 200 OK\r\n\r\n{\"users\":[{\"id\":\"ann\"},{\"id\":\"bo\"}]}");
    let said = run(&mut fulmar(&["channels", "presence-a", "--users", "--port", &port]));
    assert_eq!(said.out, "ann\nbo\n");
    assert!(server.join().unwrap().starts_with("GET /apps/1/channels/presence-a/users?"));

    let (port, server) = answer_once("HTTP/1.1 200 OK\r\n\r\n{\"occupied\":false}");
    assert_eq!(run(&mut fulmar(&["channels", "a", "--json", "--port", &port])).out, "{\"occupied\":false}\n");
    server.join().unwrap();
}

/// A `fulmar subscribe` and the server it talks to, one connection at a time.
struct Rig {
    listener: TcpListener,
    command: Child,
}

impl Rig {
    fn new(args: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let mut command = fulmar(&["subscribe"]);
        command.args(args).args(["--port", &port]).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command: command.spawn().unwrap(), listener }
    }

    /// Takes the next connection, greets it and reads its subscriptions.
    fn accept(&self, subscriptions: usize) -> (WebSocket<TcpStream>, Vec<Value>) {
        let (socket, _) = self.listener.accept().unwrap();
        let mut socket = tungstenite::accept(socket).unwrap();
        let data = json!({"socket_id": "1234.1234", "activity_timeout": 1}).to_string();
        say(&mut socket, &json!({"event": "pusher:connection_established", "data": data}));
        let heard = (0..subscriptions).map(|_| hear(&mut socket)).collect();
        (socket, heard)
    }

    fn end(self) -> Said {
        let Output { status, stdout, stderr } = self.command.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
    }
}

fn say(socket: &mut WebSocket<TcpStream>, message: &Value) {
    socket.send(Message::text(message.to_string())).unwrap();
}

fn hear(socket: &mut WebSocket<TcpStream>) -> Value {
    serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap()
}

/// Waits for an event of this name, whatever comes before it: on a busy machine that may be a ping.
fn hear_of(socket: &mut WebSocket<TcpStream>, event: &str) {
    while hear(socket)["event"] != event {}
}

fn close(mut socket: WebSocket<TcpStream>, code: u16) {
    socket.close(Some(CloseFrame { code: code.into(), reason: "for a test".into() })).unwrap();
    while socket.read().is_ok() {}
}

/// OPS-12
#[test]
fn subscribe_prints_events_as_lines_and_ends_after_so_many() {
    let rig = Rig::new(&["news", "private-a", "presence-b", "--user-id", "ann", "--user-info", "[1]", "--count", "2"]);
    let (mut socket, asked) = rig.accept(3);
    assert_eq!(asked[0]["data"], json!({"channel": "news"}));
    assert!(asked[1]["data"]["auth"].as_str().unwrap().starts_with("demo-key:"));
    assert_eq!(asked[2]["data"]["channel_data"], json!({"user_id": "ann", "user_info": [1]}).to_string());
    say(&mut socket, &json!({"event": "pusher_internal:subscription_succeeded", "channel": "news", "data": "{}"}));
    say(
        &mut socket,
        &json!({"event": "pusher_internal:member_added", "channel": "presence-b", "data": "{\"user_id\":\"bo\"}"}),
    );
    say(&mut socket, &json!({"event": "pusher:ping", "data": "{}"}));
    hear_of(&mut socket, "pusher:pong");
    say(&mut socket, &json!({"event": "e", "channel": "news", "data": "{\"a\":1}"}));
    hear_of(&mut socket, "pusher:ping"); // Silence makes it ask whether the server is still there.
    say(&mut socket, &json!({"event": "pusher:pong", "data": "{}"}));
    say(&mut socket, &json!({"event": "client-e", "channel": "private-a", "data": "plain"}));
    let said = rig.end();
    assert_eq!((said.code, said.out.as_str()), (0, "news\te\t{\"a\":1}\nprivate-a\tclient-e\tplain\n"), "{}", said.err);
    assert!(said.err.contains("as 1234.1234") && said.err.contains("subscribed to news"), "{}", said.err);
    assert!(said.err.contains("presence-b: member_added {\"user_id\":\"bo\"}"), "{}", said.err);
}

/// OPS-12, WS-CLOSE-1
#[test]
fn subscribe_comes_back_as_the_close_code_advises() {
    let rig = Rig::new(&["news", "--json"]);
    let (socket, _) = rig.accept(1);
    close(socket, 4200);
    let (mut socket, asked) = rig.accept(1);
    assert_eq!(asked[0]["data"]["channel"], "news", "it subscribes again");
    let event = json!({"event": "e", "channel": "news", "data": "d", "user_id": "u"});
    say(&mut socket, &event);
    drop(socket);
    let (socket, _) = rig.accept(1);
    close(socket, 4001);
    let said = rig.end();
    assert_eq!(said.code, 1);
    assert_eq!(serde_json::from_str::<Value>(&said.out).unwrap(), event);
    assert!(said.err.contains("closed: 4200") && said.err.contains("closed: 4001 for a test"), "{}", said.err);
    assert!(said.err.contains("asks not to come back; name the app with --app"), "{}", said.err);
}
