//! A real Redis, a receiver that writes down all it hears, and nodes that can be killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fulmar_backbone::redis::primaries::{Primaries, Primary};
use fulmar_backbone::redis::settings::{Roles, Settings, Topology};
use fulmar_backbone::redis::topic::Topic;
use fulmar_protocol::app::{App, AppId};
use fulmar_protocol::name::ChannelName;
use fulmar_protocol::webhook::{Endpoint, EventKind, Webhooks};

use crate::http::clock::Clock;
use crate::webhooks::request::SystemResolver;
use crate::webhooks::shared::Shared;
use crate::webhooks::{Egress, Setup, WebhookDesk};

const DEPLOYMENT: &str = "t";
const IDENTITY: &str = "t/single";

/// Waits until something is so.
pub(super) fn until(what: &str, longest: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < longest, "not within {longest:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    begun.elapsed()
}

/// An answer of Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Text(String),
    Number(i64),
    Nothing,
    Error(String),
    List(Vec<Said>),
}

impl Said {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Nothing => String::new(),
            other => panic!("{other:?}"),
        }
    }
}

/// A redis-server of our own.
pub(super) struct Redis {
    process: Mutex<Child>,
    pub(super) port: u16,
    folder: PathBuf,
    run: Mutex<String>,
    /// How many groups it is said to be, all of them the same.
    pub(super) groups: AtomicUsize,
    pub(super) is_left: AtomicBool,
}

/// Ends the server with its test, also where nodes that a failed test leaves behind still have it: it must not outlive the test, nor hold
/// what others read the test's words from.
pub(super) struct Running(Arc<Redis>);

impl std::ops::Deref for Running {
    type Target = Arc<Redis>;

    fn deref(&self) -> &Arc<Redis> {
        &self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = process.kill();
        let _ = process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Redis {
    pub(super) fn start() -> Running {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("fulmar-outbox-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let process = Mutex::new(Self::spawn(port, &folder));
        let redis =
            Arc::new(Self { process, port, folder, run: Mutex::default(), groups: 1.into(), is_left: false.into() });
        redis.wait();
        redis.identify();
        Running(redis)
    }

    fn spawn(port: u16, folder: &PathBuf) -> Child {
        let port = port.to_string();
        let mut redis = Process::new("redis-server");
        redis.args(["--port", &port, "--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always"]);
        redis.arg("--dir").arg(folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn wait(&self) {
        until("Redis answers", Duration::from_secs(20), || {
            let is_loaded = self.try_ask(&["PING"]) == Some(Said::Text("PONG".to_owned()));
            self.try_ask(&["INFO", "server"]).is_some_and(|said| match said {
                Said::Text(info) if is_loaded => {
                    let run = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default();
                    *self.run.lock().unwrap() = run.trim().to_owned();
                    true
                }
                _ => false,
            })
        });
    }

    /// Kills it and starts it again on what is on its disk.
    pub(super) fn restart(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        *process = Self::spawn(self.port, &self.folder);
        self.wait();
    }

    /// It loses everything, and whoever supervises it says anew which group it is.
    pub(super) fn flush(&self) {
        self.ask(&["FLUSHALL"]);
        self.identify();
    }

    /// Keeps all that it has now, for [`Redis::go_back`].
    pub(super) fn keep(&self) {
        self.ask(&[
            "EVAL",
            "for _, k in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', k, k, 'DB', 1) end",
            "0",
        ]);
    }

    /// Another server answers, which has what this one had a while ago: a replica that was behind, or a file.
    pub(super) fn go_back(&self) {
        let back = "redis.call('FLUSHDB') redis.call('SELECT', 1) \
                    for _, k in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', k, k, 'DB', 0) end";
        self.ask(&["EVAL", back, "0"]);
        self.run.lock().unwrap().push_str(" of another");
    }

    fn identify(&self) {
        let run = self.run.lock().unwrap().clone();
        self.ask(&["HSET", "t:group", "id", IDENTITY, "run", &run, "epoch", "1"]);
    }

    pub(super) fn ask(&self, words: &[&str]) -> Said {
        let said = self.try_ask(words).unwrap();
        assert!(!matches!(said, Said::Error(_)), "{words:?}: {said:?}");
        said
    }

    fn try_ask(&self, words: &[&str]) -> Option<Said> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let mut text = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| text.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        stream.write_all(text.as_bytes()).ok()?;
        said(&mut BufReader::new(stream))
    }

    /// Whose each part is.
    pub(super) fn claims(&self) -> BTreeMap<String, usize> {
        let mut claims = BTreeMap::new();
        for part in 0..16 {
            *claims.entry(self.ask(&["HGET", &format!("t:claim:{part}"), "node"]).text()).or_default() += 1;
        }
        claims
    }

    /// Leaves an edge of a channel as the scripts do, at this time.
    pub(super) fn edge(&self, what: &str, channel: &str, ms: u64) {
        let (topic, part) = topic(channel);
        let at = format!("{ms}-0");
        self.ask(&["XADD", &format!("t:outbox:{part}"), &at, "w", what, "t", &topic, "g", &at]);
    }

    /// Leaves it once more, as a node does after a loss: at another place, with the generation that it had.
    pub(super) fn edge_again(&self, what: &str, channel: &str, ms: u64) {
        let (topic, part) = topic(channel);
        self.ask(&["XADD", &format!("t:outbox:{part}"), "*", "w", what, "t", &topic, "g", &format!("{ms}-0")]);
    }

    /// A node that lives has a channel on record.
    pub(super) fn record(&self, channel: &str) {
        self.ask(&["HSET", "t:nodes", "lives", "x"]);
        self.ask(&["HSET", &records_of(channel), &topic(channel).0, "1 0"]);
    }

    /// It has it no more, and left no edge.
    pub(super) fn unrecord(&self, channel: &str) {
        self.ask(&["HDEL", &records_of(channel), &topic(channel).0]);
    }

    /// Leaves an entry that nobody understands: time passes with it.
    pub(super) fn nothing(&self, part: u16, ms: u64) {
        self.ask(&["XADD", &format!("t:outbox:{part}"), &format!("{ms}-0"), "w", "zz"]);
    }

    /// Whether everything is told and nothing left.
    pub(super) fn is_idle(&self) -> bool {
        (0..16).all(|part| {
            self.ask(&["XLEN", &format!("t:outbox:{part}")]) == Said::Number(0)
                && self.ask(&["HLEN", &format!("t:sealed:{part}")]) == Said::Number(0)
        })
    }
}

impl Primaries for Redis {
    fn groups(&self) -> usize {
        self.groups.load(Ordering::Relaxed)
    }

    fn is_left(&self, _: usize) -> bool {
        self.is_left.load(Ordering::Relaxed)
    }

    fn primary(&self, _: usize) -> Option<Primary> {
        let run = self.run.lock().unwrap().clone();
        Some(Primary { address: format!("127.0.0.1:{}", self.port), identity: IDENTITY.to_owned(), run, epoch: 1 })
    }
}

/// A Redis that another process started.
pub(super) struct Elsewhere(Primary);

impl Elsewhere {
    pub(super) fn at(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"HGET t:group run\r\n").unwrap();
        let run = said(&mut BufReader::new(stream)).unwrap().text();
        Self(Primary { address: format!("127.0.0.1:{port}"), identity: IDENTITY.to_owned(), run, epoch: 1 })
    }
}

impl Primaries for Elsewhere {
    fn groups(&self) -> usize {
        1
    }

    fn primary(&self, _: usize) -> Option<Primary> {
        Some(self.0.clone())
    }
}

fn said(reader: &mut impl BufRead) -> Option<Said> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (kind, rest) = line.trim_end().split_at_checked(1)?;
    Some(match kind {
        "+" => Said::Text(rest.to_owned()),
        "-" => Said::Error(rest.to_owned()),
        ":" => Said::Number(rest.parse().ok()?),
        "$" if rest == "-1" => Said::Nothing,
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>().ok()? + 2];
            reader.read_exact(&mut bytes).ok()?;
            bytes.truncate(bytes.len() - 2);
            Said::Text(String::from_utf8(bytes).ok()?)
        }
        "*" if rest == "-1" => Said::Nothing,
        _ => Said::List((0..rest.parse::<usize>().ok()?).map(|_| said(reader)).collect::<Option<_>>()?),
    })
}

pub(super) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// The text of a channel's topic, and its part.
pub(super) fn topic(channel: &str) -> (String, u16) {
    let topic = Topic::channel(&AppId::new("1"), &ChannelName::parse(channel, 200).unwrap());
    (topic.as_str().to_owned(), topic.slot().outbox_part())
}

fn records_of(channel: &str) -> String {
    let topic = Topic::channel(&AppId::new("1"), &ChannelName::parse(channel, 200).unwrap());
    format!("t:rec:{}:lives", topic.slot().0)
}

pub(super) fn told_at(url: &str) -> App {
    let kinds = EventKind::ALL.into_iter().collect();
    let endpoint = Endpoint { url: url.into(), kinds, channel_prefix: String::new(), headers: Vec::new() };
    let webhooks = Webhooks { endpoints: vec![endpoint], allow_private: true, ..Webhooks::default() };
    App { webhooks, ..App::new("1", "k", "s") }
}

/// A node's webhooks, or what it takes to have some.
pub(super) fn desk(primaries: Arc<dyn Primaries>, node: &str, webhooks: bool) -> WebhookDesk {
    let roles = Roles { webhooks, ..Roles::default() };
    let settings = Settings { roles, ..Settings::new(DEPLOYMENT, Topology::Single(String::new())) };
    WebhookDesk::new(Setup {
        folder: None,
        shared: Some(Shared { primaries, settings: Arc::new(settings), node: node.to_owned() }),
        clock: Clock::system(),
        resolver: Arc::new(SystemResolver),
        egress: Egress::default(),
        open_files: 1_024,
    })
}

/// A node at work.
pub(super) fn node(redis: &Arc<Redis>, name: &str, url: &str) -> WebhookDesk {
    let desk = desk(redis.clone(), name, true);
    desk.set_apps([Arc::new(told_at(url))]).unwrap();
    desk
}

/// A request as it was heard.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) webhook: String,
    pub(super) events: Vec<String>,
    pub(super) signature: String,
    pub(super) body: String,
    pub(super) taken: bool,
}

/// A receiver that refuses what it is told to refuse.
#[derive(Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Vec<Heard>>>);

impl Ledger {
    /// Answers the ledger and the URL; `takes` is asked with the number of the request.
    pub(super) fn open(takes: fn(usize) -> bool) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let ledger = Self::default();
        let own = ledger.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let own = own.clone();
                thread::spawn(move || own.hear(stream, takes));
            }
        });
        (ledger, url)
    }

    fn hear(&self, mut stream: TcpStream, takes: fn(usize) -> bool) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => _ = headers.insert(name.to_ascii_lowercase(), value.to_owned()),
                None if line.trim_end().is_empty() => break,
                None => {}
            }
        }
        let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        let mut heard = self.0.lock().unwrap();
        let taken = takes(heard.len());
        heard.push(Heard {
            webhook: headers.remove("x-fulmar-webhook-id")?,
            events: headers.remove("x-fulmar-event-ids")?.split(',').map(str::to_owned).collect(),
            signature: headers.remove("x-pusher-signature")?,
            body: String::from_utf8(body).ok()?,
            taken,
        });
        drop(heard);
        let status = if taken { "200 OK" } else { "503 No" };
        stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).ok()
    }

    pub(super) fn heard(&self) -> Vec<Heard> {
        self.0.lock().unwrap().clone()
    }

    /// Every event that was taken, once, in the order in which each was taken first: its name and its channel. Fails when
    /// an attempt differs from another one of the same request, an identity stands for two events, or an event is in two
    /// requests.
    pub(super) fn events(&self) -> Vec<(String, String)> {
        let mut requests: BTreeMap<String, Heard> = BTreeMap::new();
        let mut seen: BTreeMap<String, (String, String)> = BTreeMap::new();
        let mut events = Vec::new();
        for heard in self.heard() {
            let first = requests.entry(heard.webhook.clone()).or_insert_with(|| heard.clone());
            assert_eq!((&first.body, &first.signature, &first.events), (&heard.body, &heard.signature, &heard.events));
            let told: serde_json::Value = serde_json::from_str(&heard.body).unwrap();
            let told = told["events"].as_array().unwrap().clone();
            assert_eq!(told.len(), heard.events.len());
            for (id, event) in heard.events.iter().zip(told) {
                let known = seen.entry(id.clone()).or_insert((heard.webhook.clone(), event.to_string()));
                assert_eq!(*known, (heard.webhook.clone(), event.to_string()), "{id}");
            }
        }
        let mut taken = std::collections::BTreeSet::new();
        for heard in self.heard().into_iter().filter(|heard| heard.taken) {
            let told: serde_json::Value = serde_json::from_str(&heard.body).unwrap();
            for (id, event) in heard.events.iter().zip(told["events"].as_array().unwrap()) {
                if taken.insert(id.clone()) {
                    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
                    events.push((text("name"), text("channel")));
                }
            }
        }
        events
    }
}
