//! What an app's own server is told, over Redis Cluster, and over one Redis that loses everything meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use fulmar_rig::{Node, NodeOptions, Ready, RedisCluster, RedisOptions, Subscriber, eventually, is_available};
use serde_json::{Value, json};

use super::{PATIENCE, connect, node, node_with, one_redis};

/// Channels: enough to lie in several shares.
const CHANNELS: usize = 6;

/// An app's server that takes everything: each event's id with its text, in the order they came.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Vec<(String, Value)>>>);

impl Ledger {
    fn open() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let ledger = Self::default();
        let own = ledger.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let own = own.clone();
                std::thread::spawn(move || while own.hear(&stream).is_some() {});
            }
        });
        (ledger, url)
    }

    fn hear(&self, mut stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let (mut length, mut ids) = (0, String::new());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
                Some((name, value)) if name.eq_ignore_ascii_case("x-fulmar-event-ids") => ids = value.to_owned(),
                Some(_) => {}
                None if line.trim_end().is_empty() => break,
                None => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body: Value = serde_json::from_slice(&body).ok()?;
        let events = body["events"].as_array()?.iter().cloned();
        self.0.lock().unwrap().extend(ids.split(',').map(str::to_owned).zip(events));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()
    }

    /// What was told; an id that stands for two events fails, and a repeated one counts once.
    fn events(&self) -> Vec<Value> {
        let mut seen: BTreeMap<String, Value> = BTreeMap::new();
        for (id, event) in self.0.lock().unwrap().iter() {
            assert_eq!(seen.entry(id.clone()).or_insert_with(|| event.clone()), event, "{id}");
        }
        let whole: BTreeSet<String> = seen.values().map(Value::to_string).collect();
        assert_eq!(whole.len(), seen.len(), "nothing is told under two ids: {seen:?}");
        seen.into_values().collect()
    }

    /// How much was told of each kind.
    fn told(&self) -> BTreeMap<String, usize> {
        let mut told = BTreeMap::new();
        for event in self.events() {
            *told.entry(event["name"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        told
    }

    /// Waits until this, sorted, is all that was told to be gone: each channel that is vacated, and each member with the channel.
    fn await_gone(&self, expected: &[&str]) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let gone = || {
            let events = self
                .events()
                .into_iter()
                .filter(|event| matches!(event["name"].as_str(), Some("channel_vacated" | "member_removed")));
            let mut gone: Vec<String> =
                events.map(|event| format!("{} {}", text(&event["channel"]), text(&event["user_id"]))).collect();
            gone.sort_unstable();
            gone
        };
        eventually(&format!("{expected:?} are told to be gone"), PATIENCE, || (gone() == expected).then_some(()))
            .unwrap_or_else(|error| panic!("{error}; it is {:?}", gone()));
    }

    fn await_told(&self, expected: &[(&str, usize)]) {
        let expected: BTreeMap<String, usize> = expected.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        eventually(&format!("{expected:?} is told"), PATIENCE, || (self.told() == expected).then_some(()))
            .unwrap_or_else(|error| panic!("{error}; it is {:?}", self.told()));
    }
}

fn channels() -> impl Iterator<Item = String> {
    (0..CHANNELS).map(|n| format!("presence-room-{n}"))
}

/// Ana and ben are on every channel, each on a node of their own.
fn come(nodes: &[Node; 2]) -> [Subscriber; 2] {
    let people = [("ana", &nodes[0]), ("ben", &nodes[1])];
    people.map(|(who, node)| {
        let mut subscriber = connect(node);
        for channel in channels() {
            subscriber.subscribe(&channel, Some((who, &json!({})))).unwrap();
        }
        subscriber
    })
}

/// Lines of an app that tells a server at `url` everything.
fn telling(url: &str) -> String {
    format!("webhooks_allow_private = true\n[[apps.webhooks]]\nurl = \"{url}\"")
}

fn start(backbone: &str) -> (Ledger, [Node; 2]) {
    let (ledger, url) = Ledger::open();
    let start = || node(&telling(&url), backbone, Ready::ForTraffic);
    let nodes = [start(), start()];
    (ledger, nodes)
}

const CAME: [(&str, usize); 2] = [("channel_occupied", CHANNELS), ("member_added", 2 * CHANNELS)];
const ALL: [(&str, usize); 4] = [
    ("channel_occupied", CHANNELS),
    ("member_added", 2 * CHANNELS),
    ("channel_vacated", CHANNELS),
    ("member_removed", 2 * CHANNELS),
];

/// RED-33, RED-32, HOOK-18
#[test]
fn every_edge_over_redis_cluster_is_told_once_under_an_id_of_its_own() {
    if !is_available() {
        return;
    }
    let servers = RedisCluster::start(3, 0, &RedisOptions::default()).unwrap();
    let seed = servers.servers()[0].addr();
    let (ledger, nodes) = start(&format!("topology = \"cluster\"\naddresses = [\"{seed}\"]\nshares = 4"));
    let people = come(&nodes);
    ledger.await_told(&CAME);
    drop(people);
    ledger.await_told(&ALL);
}

/// HOOK-40, RED-32
#[test]
fn what_was_told_to_have_come_is_told_to_be_gone_although_redis_lost_everything_meanwhile() {
    let Some((redis, backbone)) = one_redis() else { return };
    let (ledger, nodes) = start(&backbone);
    let people = come(&nodes);
    ledger.await_told(&CAME);
    redis.call(&["FLUSHALL"]).unwrap();
    eventually("what was told is known again", PATIENCE, || {
        let count = |part| redis.call(&["HLEN", &format!("fulmar:announced:{part}")]).ok()?.number();
        ((0..16).filter_map(count).sum::<i64>() == 3 * CHANNELS as i64).then_some(())
    })
    .unwrap();
    drop(people);
    ledger.await_told(&ALL);
}

/// HOOK-41, HOOK-18: ana's going is made by nobody, because her node has died and with all records hers are gone that would make it.
#[test]
fn who_was_on_a_node_that_died_as_redis_lost_everything_is_told_to_be_gone_once_and_nobody_else_is() {
    let Some((redis, backbone)) = one_redis() else { return };
    let (ledger, url) = Ledger::open();
    let app = telling(&url);
    let lives = node(&app, &backbone, Ready::ForTraffic);
    // What it has told dies with a node that tells.
    let roles = ("FULMAR_SERVER__ROLES".to_owned(), "websocket,rest".to_owned());
    let options = NodeOptions { variables: vec![roles], ..NodeOptions::default() };
    let dies = node_with(&app, &backbone, Ready::ForTraffic, &options);
    let come = |node: &Node, who: &str, channels: &[&str]| {
        let mut subscriber = connect(node);
        for channel in channels {
            subscriber.subscribe(channel, Some((who, &json!({})))).unwrap();
        }
        subscriber
    };
    let ben = come(&lives, "ben", &["presence-both"]);
    let _ana = come(&dies, "ana", &["presence-both", "presence-hers"]);
    ledger.await_told(&[("channel_occupied", 2), ("member_added", 3)]);
    dies.kill();
    redis.call(&["FLUSHALL"]).unwrap();
    ledger.await_gone(&["presence-both ana", "presence-hers ", "presence-hers ana"]);
    drop(ben);
    ledger.await_gone(&[
        "presence-both ",
        "presence-both ana",
        "presence-both ben",
        "presence-hers ",
        "presence-hers ana",
    ]);
    ledger.await_told(&[("channel_occupied", 2), ("member_added", 3), ("channel_vacated", 2), ("member_removed", 3)]);
}

/// HOOK-21
#[test]
fn an_endpoint_that_names_goings_alone_is_told_of_them() {
    let Some((_redis, backbone)) = one_redis() else { return };
    let (ledger, url) = Ledger::open();
    let app = format!("{}\nevents = [\"channel_vacated\", \"member_removed\"]", telling(&url));
    let nodes = [node(&app, &backbone, Ready::ForTraffic), node(&app, &backbone, Ready::ForTraffic)];
    drop(come(&nodes));
    ledger.await_told(&[("channel_vacated", CHANNELS), ("member_removed", 2 * CHANNELS)]);
}
