//! What lies in a group of slots that are about to leave it: records and members of nodes with a lease, and cached events. What
//! webhooks have announced goes along too; see [`super::webhooks`].
//!
//! Publications of the past stay in the log where they are. Keys of idempotent publications stay too: whoever hears one of
//! these again drops it by the key, which travels in it.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use redis::Cmd;

use super::ReshardError;
use super::group::Group;
use super::webhooks;
use crate::redis::keys::Keys;
use crate::redis::topic::{About, Slot, Topic};

/// Keys looked at per step of a scan.
const SCAN_STEP: usize = 1_000;
/// Entries of the log read in one call.
const LOG_STEP: usize = 500;

/// Topics that may have a cached event, by slot, and up to where the log has been looked through for more.
pub(super) struct Cached {
    topics: HashMap<u16, BTreeSet<Topic>>,
    at: String,
}

/// A slot's keys, each as the step `fill` takes it.
#[derive(Default)]
pub(super) struct Contents {
    /// What is put down where the slot goes to.
    pub(super) words: Vec<Vec<u8>>,
    /// What is done where it comes from, as the step `close` takes it.
    pub(super) left: Vec<Vec<u8>>,
}

impl Contents {
    fn hash(&mut self, key: String, fields: Vec<(Vec<u8>, Vec<u8>)>) {
        self.left.extend([b"k".to_vec(), key.clone().into_bytes()]);
        self.words.extend([b"h".to_vec(), key.into_bytes(), (2 * fields.len()).to_string().into_bytes()]);
        self.words.extend(fields.into_iter().flat_map(|(name, value)| [name, value]));
    }

    fn text(&mut self, key: String, ttl_ms: i64, value: Vec<u8>) {
        self.left.extend([b"k".to_vec(), key.clone().into_bytes()]);
        self.words.extend([b"s".to_vec(), key.into_bytes(), ttl_ms.to_string().into_bytes(), value]);
    }
}

impl Cached {
    /// Looks through all keys, once for each move; what comes later is in the log.
    pub(super) async fn find(group: &mut Group, keys: &Keys) -> Result<Self, ReshardError> {
        let mut head = redis::cmd("HGET");
        head.arg(keys.identity()).arg("head");
        let head: Option<String> = group.ask(&head).await?;
        let mut found = Self { topics: HashMap::new(), at: head.unwrap_or_else(|| "0-0".to_owned()) };
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(keys.cached_pattern()).arg("COUNT").arg(SCAN_STEP);
            let (next, some): (String, Vec<Vec<u8>>) = group.ask(&scan).await?;
            for key in some.iter().filter_map(|key| std::str::from_utf8(key).ok()) {
                found.note(keys.topic_of_cached(key).and_then(Topic::parse));
            }
            if next == "0" {
                return Ok(found);
            }
            cursor = next;
        }
    }

    /// The same of a group to which the slot goes, where it can only be old: it goes before the rest is put down.
    pub(super) fn gone(&self, slot: u16, keys: &Keys) -> Vec<Vec<u8>> {
        let topics = self.topics.get(&slot).into_iter().flatten();
        topics.flat_map(|topic| [b"k".to_vec(), keys.cached(topic).into_bytes()]).collect()
    }

    fn note(&mut self, topic: Option<Topic>) {
        if let Some(topic) = topic {
            self.topics.entry(topic.slot().0).or_default().insert(topic);
        }
    }

    /// Takes in what was published since.
    pub(super) async fn read_on(&mut self, group: &mut Group, keys: &Keys) -> Result<(), ReshardError> {
        loop {
            let mut range = redis::cmd("XRANGE");
            range.arg(keys.log()).arg(&self.at).arg("+").arg("COUNT").arg(LOG_STEP);
            let entries: Vec<(String, Vec<Vec<u8>>)> = group.ask(&range).await?;
            let count = entries.len();
            for (id, fields) in entries {
                let texts = fields.iter().step_by(2).filter_map(|text| std::str::from_utf8(text).ok());
                let topics = texts.filter_map(Topic::parse);
                let cached = topics
                    .filter(|topic| matches!(topic.about(), About::Channel(_, channel) if channel.kind().is_cache()));
                cached.collect::<Vec<_>>().into_iter().for_each(|topic| self.note(Some(topic)));
                self.at = id;
            }
            if count < LOG_STEP {
                return Ok(());
            }
        }
    }
}

/// Everything that goes along with these slots, in their order. Not before they are frozen.
pub(super) async fn contents(
    group: &mut Group,
    keys: &Keys,
    slots: &[u16],
    cached: &Cached,
) -> Result<Vec<Contents>, ReshardError> {
    let mut found: Vec<Contents> = slots.iter().map(|_| Contents::default()).collect();
    let mut nodes = redis::cmd("HKEYS");
    nodes.arg(keys.nodes());
    let nodes: Vec<String> = group.ask(&nodes).await?;
    let owners: Vec<(usize, &String)> =
        (0..slots.len()).flat_map(|at| nodes.iter().map(move |node| (at, node))).collect();
    let get = |key: &String| hgetall(key);
    let names: Vec<String> = owners.iter().map(|(at, node)| keys.records(Slot(slots[*at]), node)).collect();
    let records: Vec<Vec<(Vec<u8>, Vec<u8>)>> = group.ask_all(&names.iter().map(get).collect::<Vec<_>>()).await?;
    let mut members = Vec::new();
    for (((at, node), key), fields) in owners.into_iter().zip(names).zip(records) {
        let topics = fields.iter().filter_map(|(topic, _)| Topic::parse(std::str::from_utf8(topic).ok()?));
        let present =
            topics.filter(|topic| matches!(topic.about(), About::Channel(_, channel) if channel.kind().is_presence()));
        members.extend(present.map(|topic| (at, keys.members(Slot(slots[at]), node, &topic))));
        if !fields.is_empty() {
            found[at].hash(key, fields);
        }
    }
    let asks: Vec<Cmd> = members.iter().map(|(_, key)| hgetall(key)).collect();
    let fields: Vec<Vec<(Vec<u8>, Vec<u8>)>> = group.ask_all(&asks).await?;
    for ((at, key), fields) in members.into_iter().zip(fields).filter(|(_, fields)| !fields.is_empty()) {
        found[at].hash(key, fields);
    }
    let events: Vec<(usize, String)> = (0..slots.len())
        .flat_map(|at| cached.topics.get(&slots[at]).into_iter().flatten().map(move |topic| (at, keys.cached(topic))))
        .collect();
    let texts: Vec<Option<Vec<u8>>> =
        group.ask_all(&events.iter().map(|(_, key)| one("GET", key)).collect::<Vec<_>>()).await?;
    let times: Vec<i64> = group.ask_all(&events.iter().map(|(_, key)| one("PTTL", key)).collect::<Vec<_>>()).await?;
    for (((at, key), text), ttl_ms) in events.into_iter().zip(texts).zip(times) {
        if let Some(text) = text.filter(|_| ttl_ms > 0) {
            found[at].text(key, ttl_ms, text);
        }
    }
    for (at, announced) in webhooks::announced(group, keys, slots).await? {
        announced.put(&keys.outbox(Slot(slots[at]).outbox_part()), &mut found[at]);
    }
    Ok(found)
}

fn hgetall(key: &String) -> Cmd {
    one("HGETALL", key)
}

pub(super) fn one(word: &str, key: &String) -> Cmd {
    let mut command = redis::cmd(word);
    command.arg(key);
    command
}
