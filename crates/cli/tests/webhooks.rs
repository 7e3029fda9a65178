//! Webhooks of a real node that is killed again and again, as a receiver's ledger sees them.
//!
//! The ledger is the only witness: what a client was told must be in it, comings and goings must alternate, and whatever
//! arrives twice must be the same bytes.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fulmar_protocol::app::Secret;
use fulmar_protocol::name::{ChannelName, SocketId};
use fulmar_protocol::signing::{Signer, sign_webhook};
use serde_json::Value;
use tungstenite::Message;
use tungstenite::stream::MaybeTlsStream;

/// How long the churn lasts, unless `FULMAR_KILL_SECONDS` says otherwise.
const CHURN: Duration = Duration::from_secs(10);
/// From when a subscription was told to when its event was sealed: a batch's window, a dead node, a slow machine.
const SEALED_WITHIN_MS: u64 = 5_000;
const CLIENTS: u64 = 8;
/// Each is visited every few seconds: some within the hold of its last visit, some after it.
const CHANNELS: u64 = 2_000;
const KEY: &str = "the-key";
const SECRET: &str = "the-secret";

/// Held by tests that measure time or load the machine: each of them means to have it alone.
static MACHINE: Mutex<()> = Mutex::new(());

/// Random enough, and the same for the same seed.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

/// One request as it arrived.
#[derive(Debug, Clone)]
struct Heard {
    headers: HashMap<String, String>,
    body: String,
    was_taken: bool,
    at_unix_ms: u64,
}

/// A receiver that remembers everything and refuses some.
struct Receiver {
    port: u16,
    heard: Arc<(Mutex<Vec<Heard>>, Condvar)>,
}

impl Receiver {
    /// `refuses` is asked with the number of each request.
    fn start(refuses: impl Fn(u64) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard: Arc<(Mutex<Vec<Heard>>, Condvar)> = Arc::default();
        let (ledger, number, refuses) = (heard.clone(), Arc::new(AtomicU64::new(0)), Arc::new(refuses));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (ledger, number, refuses) = (ledger.clone(), number.clone(), refuses.clone());
                thread::spawn(move || {
                    let take = !refuses(number.fetch_add(1, Ordering::SeqCst));
                    // A node that is killed breaks off in the middle: then nothing was heard.
                    let _ = stream.ok().and_then(|stream| hear(stream, &ledger, take));
                });
            }
        });
        Self { port, heard }
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.0.lock().unwrap().clone()
    }

    /// Waits until the ledger satisfies something.
    fn wait_until(&self, what: &str, is_so: impl Fn(&[Heard]) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        let mut heard = self.heard.0.lock().unwrap();
        while !is_so(&heard) {
            let left = end.checked_duration_since(Instant::now());
            let Some(left) = left else { panic!("never: {what}; heard {} requests", heard.len()) };
            heard = self.heard.1.wait_timeout(heard, left).unwrap().0;
        }
    }
}

fn hear(mut stream: TcpStream, ledger: &(Mutex<Vec<Heard>>, Condvar), take: bool) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_owned(), value.to_owned()),
            None => break,
        };
    }
    let mut body = vec![0; headers.get("Content-Length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let heard = Heard { headers, body: String::from_utf8(body).ok()?, was_taken: take, at_unix_ms: unix_ms() };
    ledger.0.lock().unwrap().push(heard);
    ledger.1.notify_all();
    let status = if take { "200 OK" } else { "500 Not Today" };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").ok()
}

/// A node on one port and one folder, however often it dies.
struct Node {
    process: Child,
    config: PathBuf,
    port: u16,
}

impl Node {
    fn start(test: &str, receiver: &Receiver, endpoints: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("webhooks-{test}"));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = folder.join("fulmar.toml");
        let text = format!(
            "[server]\nport = {port}\nworkers = 2\n[storage]\npath = \"store\"\n[shutdown]\ndrain_s = 0\n\
             [[apps]]\nid = \"7\"\nkey = \"{KEY}\"\nsecret = \"{SECRET}\"\nclient_events = true\n\
             webhooks = [{{ url = \"http://127.0.0.1:{}/hook\" }}{endpoints}]\nwebhooks_allow_private = true\n",
            receiver.port
        );
        std::fs::write(&config, text).unwrap();
        Self { process: spawn(&config), config, port }
    }

    /// As a power cut would.
    fn kill_and_start_again(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = spawn(&self.config);
    }

    fn stop(&mut self) {
        let sent = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(self.process.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn fulmar(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

/// Starts a node and waits until it says where it listens.
fn spawn(config: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(config.with_file_name("node.log")).unwrap();
    let mut command = fulmar(&["serve", "--config", config.to_str().unwrap()]);
    let mut process = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("http://"), "the node did not start: {line:?}");
    process
}

type Socket = tungstenite::WebSocket<MaybeTlsStream<TcpStream>>;

/// A subscriber as simple as can be.
struct Client {
    socket: Socket,
    socket_id: SocketId,
}

impl Client {
    fn connect(port: u16) -> Option<Self> {
        let (mut socket, _) = tungstenite::connect(format!("ws://127.0.0.1:{port}/app/{KEY}?protocol=7")).ok()?;
        if let MaybeTlsStream::Plain(stream) = socket.get_mut() {
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        }
        let established = next_event(&mut socket)?;
        let inner: Value = serde_json::from_str(established["data"].as_str()?).ok()?;
        let socket_id = SocketId::parse(inner["socket_id"].as_str()?).ok()??;
        Some(Self { socket, socket_id })
    }

    /// Whether the node said that the subscription stands.
    fn subscribe(&mut self, channel: &str, user: &str) -> Option<()> {
        let name = ChannelName::parse(channel, 200).unwrap();
        let secret = Secret::new(SECRET);
        let signer = Signer::new(KEY, &secret);
        let data = format!("{{\"user_id\":\"{user}\"}}");
        let mut asked = serde_json::json!({"event": "pusher:subscribe", "data": {"channel": channel}});
        if channel.starts_with("presence-") {
            asked["data"]["auth"] = signer.sign_channel(self.socket_id, &name, Some(&data)).into();
            asked["data"]["channel_data"] = data.into();
        }
        self.socket.send(Message::text(asked.to_string())).ok()?;
        loop {
            let event = next_event(&mut self.socket)?;
            if event["event"] == "pusher_internal:subscription_succeeded" && event["channel"] == channel {
                return Some(());
            }
        }
    }

    fn unsubscribe(&mut self, channel: &str) -> Option<()> {
        let asked = serde_json::json!({"event": "pusher:unsubscribe", "data": {"channel": channel}});
        self.socket.send(Message::text(asked.to_string())).ok()
    }
}

fn next_event(socket: &mut Socket) -> Option<Value> {
    loop {
        if let Message::Text(text) = socket.read().ok()? {
            return serde_json::from_str(&text).ok();
        }
    }
}

/// When a client was told that it, or its user, is on a channel.
#[derive(Debug)]
struct Told {
    subject: String,
    at_unix_ms: u64,
}

/// Comes and goes until told to stop.
fn churn(port: u16, number: u64, mut dice: Dice, is_over: &AtomicBool, told: &Mutex<Vec<Told>>) {
    let mut client = None;
    while !is_over.load(Ordering::SeqCst) {
        let Some(mut here) = client.take().or_else(|| Client::connect(port)) else {
            // The node is being started; the kernel refuses at once, so that this would spin.
            thread::yield_now();
            continue;
        };
        let room = dice.roll(CHANNELS);
        let is_presence = room.is_multiple_of(3);
        let channel = if is_presence { format!("presence-{room}") } else { format!("room-{room}") };
        let user = format!("user-{}", number % 3);
        if here.subscribe(&channel, &user).is_none() {
            continue;
        }
        let at_unix_ms = unix_ms();
        let mut told = told.lock().unwrap();
        if is_presence {
            told.push(Told { subject: format!("{channel} {user}"), at_unix_ms });
        }
        told.push(Told { subject: channel.clone(), at_unix_ms });
        drop(told);
        // The pace is part of the experiment: without it every channel would be visited again within its hold.
        thread::sleep(Duration::from_millis(dice.roll(25)));
        // Most leave by themselves, some just go.
        if dice.roll(4) > 0 && here.unsubscribe(&channel).is_some() {
            client = Some(here);
        }
    }
}

/// One event of the ledger.
#[derive(Debug, Clone)]
struct Noted {
    came: bool,
    time_ms: u64,
}

/// Comings and goings by subject, each id once, in the order of their first arrival. Checks on the way what must hold
/// for each request.
fn ledger(heard: &[Heard]) -> BTreeMap<String, Vec<Noted>> {
    let mut by_webhook: HashMap<&str, (&str, &str)> = HashMap::new();
    let mut taken = BTreeSet::new();
    let mut seen: HashMap<String, String> = HashMap::new();
    let mut subjects: BTreeMap<String, Vec<Noted>> = BTreeMap::new();
    for request in heard {
        let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
        assert_eq!(header("Content-Type"), "application/json");
        assert_eq!(header("X-Pusher-Key"), KEY);
        let (webhook, signature) = (header("X-Fulmar-Webhook-Id"), header("X-Pusher-Signature"));
        assert_eq!(signature, sign_webhook(&Secret::new(SECRET), request.body.as_bytes()));
        let first = by_webhook.entry(webhook).or_insert((&request.body, signature));
        assert_eq!(*first, (request.body.as_str(), signature), "a repeated attempt differs");
        if request.was_taken {
            taken.insert(webhook);
        }
        let body: Value = serde_json::from_str(&request.body).unwrap();
        let events = body["events"].as_array().unwrap();
        let ids: Vec<&str> = header("X-Fulmar-Event-Ids").split(',').collect();
        assert_eq!(ids.len(), events.len());
        for (id, event) in ids.iter().zip(events) {
            let earlier = seen.insert((*id).to_owned(), format!("{webhook} {event}"));
            if let Some(earlier) = earlier {
                assert_eq!(earlier, format!("{webhook} {event}"), "an id stands for one event in one request");
                continue;
            }
            let name = event["name"].as_str().unwrap();
            let subject = [event["channel"].as_str(), event["user_id"].as_str()];
            let subject = subject.into_iter().flatten().collect::<Vec<_>>().join(" ");
            let came = matches!(name, "channel_occupied" | "member_added");
            assert!(came || matches!(name, "channel_vacated" | "member_removed"), "{name}");
            subjects.entry(subject).or_default().push(Noted { came, time_ms: body["time_ms"].as_u64().unwrap() });
        }
    }
    let lost: Vec<&&str> = by_webhook.keys().filter(|webhook| !taken.contains(**webhook)).collect();
    assert!(lost.is_empty(), "refused and never sent again: {lost:?}");
    subjects
}

fn is_quiet(heard: &[Heard]) -> bool {
    let mut taken: HashMap<&str, bool> = HashMap::new();
    let mut present: BTreeSet<String> = BTreeSet::new();
    for request in heard {
        *taken.entry(&request.headers["X-Fulmar-Webhook-Id"]).or_default() |= request.was_taken;
        let body: Value = serde_json::from_str(&request.body).unwrap();
        for event in body["events"].as_array().unwrap() {
            let subject = format!("{} {}", event["channel"], event["user_id"]);
            match event["name"].as_str().unwrap() {
                "channel_occupied" | "member_added" => _ = present.insert(subject),
                _ => _ = present.remove(&subject),
            }
        }
    }
    present.is_empty() && taken.values().all(|taken| *taken)
}

/// HOOK-8, HOOK-9, HOOK-10, HOOK-13, HOOK-14, HOOK-18, trap T-46: for a minute with FULMAR_KILL_SECONDS=60.
#[test]
fn a_node_killed_at_random_moments_loses_no_edge_and_doubles_none() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = std::env::var("FULMAR_KILL_SECONDS").ok().and_then(|text| text.parse().ok());
    let lasts = seconds.map_or(CHURN, Duration::from_secs);
    let seed = unix_ms() | 1;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let refusing = Mutex::new(dice.clone());
    let receiver = Receiver::start(move |_| refusing.lock().unwrap().roll(10) == 0);
    let mut node = Node::start("killed", &receiver, "");
    let (is_over, told) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (port, is_over, told) = (node.port, is_over.clone(), told.clone());
            let dice = Dice(seed.wrapping_mul(number + 3) | 1);
            thread::spawn(move || churn(port, number, dice, &is_over, &told))
        })
        .collect();
    let end = Instant::now() + lasts;
    let mut kills = 0;
    while Instant::now() < end {
        // The moment of the kill is the experiment; nothing is waited for.
        thread::sleep(Duration::from_millis(200 + dice.roll(1_300)));
        node.kill_and_start_again();
        kills += 1;
    }
    is_over.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    receiver.wait_until("everything that came is told to be gone", is_quiet);
    node.stop();

    let heard = receiver.heard();
    let subjects = ledger(&heard);
    for (subject, events) in &subjects {
        for (turn, event) in events.iter().enumerate() {
            assert_eq!(event.came, turn % 2 == 0, "{subject} does not alternate: {events:?}");
        }
        assert_eq!(events.len() % 2, 0, "{subject} is not told to be gone");
    }
    let told = told.lock().unwrap();
    for Told { subject, at_unix_ms } in told.iter() {
        let events = subjects.get(subject).unwrap_or_else(|| panic!("nothing was ever told of {subject}"));
        let covers = |pair: &[Noted]| {
            pair[0].time_ms <= at_unix_ms + SEALED_WITHIN_MS && pair[1].time_ms + SEALED_WITHIN_MS >= *at_unix_ms
        };
        assert!(events.chunks(2).any(covers), "{subject} at {at_unix_ms} is in no pair of {events:?}");
    }
    let edges: usize = subjects.values().map(Vec::len).sum();
    println!("{kills} kills, {} subscriptions, {} requests, {edges} edges", told.len(), heard.len());
    assert!(told.len() > 50 && kills >= 3 && edges > 50, "too little happened to prove anything");
}

/// HOOK-16, HOOK-31, HOOK-32
#[test]
fn a_thousand_dead_endpoints_leave_a_live_one_its_second() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let receiver = Receiver::start(|_| false);
    // It accepts what the kernel accepts for it and never says a word.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead_port = dead.local_addr().unwrap().port();
    let endpoints: String = (0..1_000)
        .map(|n| format!(", {{ url = \"http://127.0.0.1:{dead_port}/{n}\", events = [\"channel_occupied\"] }}"))
        .collect();
    let mut node = Node::start("dead", &receiver, &endpoints);
    let mut client = Client::connect(node.port).unwrap();
    let mut told = HashMap::new();
    for n in 0..120 {
        let channel = format!("room-{n}");
        client.subscribe(&channel, "ana").unwrap();
        told.insert(channel, unix_ms());
        // Over several seconds, so that dead requests begin, last, end and are tried again meanwhile.
        thread::sleep(Duration::from_millis(60));
    }
    let heard_of = |heard: &[Heard]| {
        let mut late = Vec::new();
        for request in heard {
            let body: Value = serde_json::from_str(&request.body).unwrap();
            for event in body["events"].as_array().unwrap() {
                let at = told[event["channel"].as_str().unwrap()];
                late.push(request.at_unix_ms.saturating_sub(at));
            }
        }
        late.sort_unstable();
        late
    };
    receiver.wait_until("every channel is heard of", |heard| heard_of(heard).len() == 120);
    let late = heard_of(&receiver.heard());
    println!("median {} ms, p99 {} ms, last {} ms", late[60], late[118], late[119]);
    assert!(late[118] < 1_000, "{late:?}");

    let storage = node.config.with_file_name("store");
    let mut list = fulmar(&["webhook", "list", "--json", "--storage", storage.to_str().unwrap()]);
    let output = list.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let waiting = listed["waiting"].as_array().unwrap();
    assert_eq!(waiting.len(), 1_000, "the dead ones, and they alone");
    assert!(waiting.iter().all(|line| line["url"].as_str().unwrap().contains(&format!(":{dead_port}/"))));
    let mut replay = fulmar(&["webhook", "replay", "--all", "--storage", storage.to_str().unwrap()]);
    assert_eq!(String::from_utf8(replay.output().unwrap().stdout).unwrap(), "0 to be sent again\n");
    node.stop();
}

/// HOOK-31
#[test]
fn an_endpoint_is_tried_by_hand_with_a_signed_sample_and_a_verdict_on_its_address() {
    let receiver = Receiver::start(|number| number > 0);
    let url = format!("http://127.0.0.1:{}/", receiver.port);
    let run = |more: &[&str]| {
        let app = format!("7:{KEY}:{SECRET}");
        let output = fulmar(&[&["webhook", "test", &url, "--app", &app], more].concat()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = run(&[]);
    assert!(code == Some(1) && said.contains("127.0.0.1, which is not public: refused"), "{said}");
    assert!(receiver.heard().is_empty());
    let (code, said) = run(&["--allow-private"]);
    assert!(code == Some(0) && said.contains("answered 200"), "{said}");
    let subjects = ledger(&receiver.heard());
    assert_eq!(subjects.keys().collect::<Vec<_>>(), ["fulmar-webhook-test"]);
    let (code, said) = run(&["--allow-private"]);
    assert!(code == Some(1) && said.contains("answered 500"), "{said}");
}
