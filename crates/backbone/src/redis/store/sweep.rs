//! Finds keys that are nobody's: records and members of nodes that have no lease, and members of channels that this node is
//! not on. Readers do not see them; they take memory, and a name may be used again.

use std::time::{Duration, Instant};

use hashbrown::HashMap;
use redis::Cmd;

use super::super::keys::Keys;
use super::super::topic::{SLOTS, Topic};

/// Keys looked at per step, about.
pub const STEP: usize = 500;
/// Keys removed per call.
const DOOMED_MAX: usize = 200;
/// How long a node has had no lease before its keys are removed: it may be taking one.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);

/// Whose a key is.
enum Owner {
    /// Of a node that has no lease now.
    Unknown(String),
    /// Of this node, and of no use; the topic where it is one.
    Useless(Option<Topic>),
    /// In good order, or none of our business.
    Fine,
}

/// A key to be removed.
#[derive(Debug, Clone)]
pub struct Doomed {
    /// The node that must have no lease; empty for this one.
    pub node: String,
    pub key: Vec<u8>,
    /// Not while this is being changed.
    pub topic: Option<Topic>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Sweep {
    cursor: String,
    is_running: bool,
    /// When the next step may be taken.
    pub due: Option<Instant>,
    /// Nodes without a lease, and since when we know of them.
    unknown: HashMap<String, Instant>,
    doomed: Vec<Doomed>,
    /// Keys removed so far.
    pub swept: u64,
}

impl Sweep {
    pub fn new() -> Self {
        Self {
            cursor: "0".to_owned(),
            is_running: false,
            due: None,
            unknown: HashMap::new(),
            doomed: Vec::new(),
            swept: 0,
        }
    }

    /// Begins at the first key, unless it is under way.
    pub fn start(&mut self) {
        self.is_running = true;
    }

    pub fn start_over(&mut self) {
        *self = Self { swept: self.swept, ..Self::new() };
    }

    /// The next keys to be looked at.
    pub fn scan(&self, now: Instant, keys: &Keys) -> Option<Cmd> {
        if self.due.is_some_and(|due| now < due) {
            return None;
        }
        let mut cmd = redis::cmd("SCAN");
        cmd.arg(&self.cursor).arg("MATCH").arg(keys.pattern()).arg("COUNT").arg(STEP);
        self.is_running.then_some(cmd)
    }

    /// Takes in a step. `has_lease` and `is_of_use` know this node's side of it.
    pub fn scanned(
        &mut self,
        now: Instant,
        (cursor, found): (String, Vec<Vec<u8>>),
        keys: &Keys,
        own: &str,
        has_lease: impl Fn(&str) -> bool,
        is_of_use: impl Fn(&Topic) -> bool,
    ) {
        self.is_running = cursor != "0";
        self.cursor = cursor;
        self.unknown.retain(|node, _| !has_lease(node));
        for key in found {
            match owner(&key, keys, own, &has_lease, &is_of_use) {
                Owner::Fine => {}
                Owner::Useless(topic) => self.doomed.push(Doomed { node: String::new(), key, topic }),
                Owner::Unknown(node) => {
                    let since = *self.unknown.entry(node.clone()).or_insert(now);
                    if now.saturating_duration_since(since) >= UNKNOWN_FOR {
                        self.doomed.push(Doomed { node, key, topic: None });
                    }
                }
            }
        }
    }

    /// What to remove now.
    pub fn doomed(&mut self) -> Option<Vec<Doomed>> {
        let first = self.doomed.len().min(DOOMED_MAX);
        (first > 0).then(|| self.doomed.drain(..first).collect())
    }

    /// What was found useless may be of use by now.
    pub fn spare(&mut self) {
        self.doomed.clear();
    }

    pub fn has_more(&self) -> bool {
        self.is_running || !self.doomed.is_empty()
    }
}

fn owner(
    key: &[u8],
    keys: &Keys,
    own: &str,
    has_lease: impl Fn(&str) -> bool,
    is_of_use: impl Fn(&Topic) -> bool,
) -> Owner {
    let Some(rest) = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(keys.prefix())) else {
        return Owner::Fine;
    };
    let (rest, has_topic) = match (rest.strip_prefix(":rec:"), rest.strip_prefix(":mem:")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => return Owner::Fine,
    };
    let mut parts = rest.splitn(3, ':');
    let (slot, node, topic) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
    if node != own {
        return if has_lease(node) { Owner::Fine } else { Owner::Unknown(node.to_owned()) };
    }
    let is_slot = |number: &u16| *number < SLOTS && number.to_string() == slot;
    let Some(slot) = slot.parse().ok().filter(is_slot) else { return Owner::Useless(None) };
    match (has_topic, topic.and_then(Topic::parse)) {
        (false, _) if topic.is_none() => Owner::Fine,
        (true, Some(topic)) if topic.slot().0 == slot && is_of_use(&topic) => Owner::Fine,
        (true, Some(topic)) if topic.slot().0 == slot => Owner::Useless(Some(topic)),
        _ => Owner::Useless(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(key: &str) -> &'static str {
        let useful = |topic: &Topic| topic.as_str() == "7:presence-room";
        match owner(key.as_bytes(), &Keys::new("dep"), "me", |node| node == "ana", useful) {
            Owner::Fine => "fine",
            Owner::Useless(_) => "useless",
            Owner::Unknown(_) => "unknown",
        }
    }

    /// RED-29
    #[test]
    fn a_key_is_swept_only_where_it_is_surely_nobodys() {
        for (key, expected) in [
            ("dep:rec:5:me", "fine"),
            ("dep:rec:5:ana", "fine"),
            ("dep:rec:5:bob", "unknown"),
            ("dep:rec:1024:me", "useless"),
            ("dep:rec:05:me", "useless"),
            ("dep:mem:417:me:7:presence-room", "fine"),
            ("dep:mem:418:me:7:presence-room", "useless"),
            ("dep:mem:417:bob:7:presence-room", "unknown"),
            ("dep:mem:5:me:7:room", "useless"),
            ("dep:log", "fine"),
            ("other:rec:5:bob", "fine"),
        ] {
            assert_eq!(verdict(key), expected, "{key}");
        }
    }
}
