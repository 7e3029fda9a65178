//! The audit of presence and counts: whether what is stored agrees with itself. It changes nothing: nodes put it right by
//! themselves, within seconds, and what is still wrong after that is what an operator wants to know.

use std::collections::{BTreeMap, BTreeSet};

use fulmar_backbone::redis::keys::Keys;
use fulmar_backbone::redis::topic::{Slot, Topic};
use redis::{Cmd, cmd};

use crate::doors::{AskError, Doors, Kind};
use crate::read::{fields, list, text};

/// Keys asked for at once.
const COUNT: usize = 500;
/// Findings of a group that are kept; the rest is counted.
pub const FINDINGS_MAX: usize = 100;

/// What stands in a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Nodes with a lease.
    pub nodes: usize,
    /// Topics of which a live node has a record.
    pub topics: usize,
    /// Subscriptions on all of them.
    pub subscriptions: u64,
    /// Members that live nodes have on presence channels.
    pub members: u64,
    /// Records of nodes without a lease: nobody reads them, and a sweep takes them away.
    pub left_over: usize,
    /// What is wrong, in sentences.
    pub findings: BTreeSet<String>,
}

/// Reads a group's records on its primary.
///
/// # Errors
/// The server cannot be asked.
pub async fn audit(doors: &Doors, server: &str, keys: &Keys) -> Result<Audit, AskError> {
    let ask = async |command: Cmd| doors.ask(Kind::Server, server, &command).await;
    let mut question = cmd("HKEYS");
    question.arg(keys.nodes());
    let live: BTreeSet<String> = list(&ask(question).await?).iter().map(text).collect();
    let mut audit = Audit { nodes: live.len(), ..Audit::default() };
    let mut records: BTreeMap<(u16, String), BTreeMap<String, u64>> = BTreeMap::new();
    let mut rosters: Vec<(u16, String, String, String)> = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(&cursor).arg("MATCH").arg(keys.pattern()).arg("COUNT").arg(COUNT);
        let page = ask(scan).await?;
        let [next, found] = list(&page) else { return Err(AskError::Refused("SCAN has no answer".to_owned())) };
        for name in list(found).iter().map(text) {
            match place(keys, &name) {
                Some(Place { node, .. }) if !live.contains(node) => audit.left_over += 1,
                Some(Place { slot, node, topic: None }) => {
                    let read = record(doors, server, (&name, slot), &mut audit).await?;
                    records.insert((slot, node.to_owned()), read);
                }
                Some(Place { slot, node, topic: Some(topic) }) => {
                    rosters.push((slot, node.to_owned(), topic.to_owned(), name.clone()));
                }
                None => audit.find(format!("{name} is no record's name")),
            }
        }
        cursor = text(next);
        if cursor == "0" {
            break;
        }
    }
    let topics: BTreeSet<&String> = records.values().flat_map(BTreeMap::keys).collect();
    audit.topics = topics.len();
    audit.subscriptions = records.values().flat_map(BTreeMap::values).sum();
    for (slot, node, topic, name) in rosters {
        let mut question = cmd("HLEN");
        question.arg(&name);
        let members: u64 = text(&ask(question).await?).parse().unwrap_or_default();
        let subscriptions = records.get(&(slot, node.clone())).and_then(|record| record.get(&topic)).copied();
        match subscriptions {
            None => audit.find(format!("node {node} has {members} members on {topic} and no subscription there")),
            Some(subscriptions) if members > subscriptions => {
                audit.find(format!("node {node} has {members} members on {topic} and {subscriptions} subscriptions"));
            }
            Some(_) => audit.members += members,
        }
    }
    Ok(audit)
}

impl Audit {
    fn find(&mut self, what: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.insert(what);
        }
    }
}

struct Place<'a> {
    slot: u16,
    node: &'a str,
    topic: Option<&'a str>,
}

/// `PREFIX:rec:SLOT:NODE` or `PREFIX:mem:SLOT:NODE:TOPIC`.
fn place<'a>(keys: &Keys, name: &'a str) -> Option<Place<'a>> {
    let rest = name.strip_prefix(keys.prefix())?.strip_prefix(':')?;
    let (kind, rest) = rest.split_once(':')?;
    let (slot, rest) = rest.split_once(':')?;
    let slot = slot.parse().ok()?;
    match kind {
        "rec" => Some(Place { slot, node: rest, topic: None }),
        "mem" => rest.split_once(':').map(|(node, topic)| Place { slot, node, topic: Some(topic) }),
        _ => None,
    }
}

async fn record(
    doors: &Doors,
    server: &str,
    (name, slot): (&str, u16),
    audit: &mut Audit,
) -> Result<BTreeMap<String, u64>, AskError> {
    let mut question = cmd("HGETALL");
    question.arg(name);
    let read = match doors.ask(Kind::Server, server, &question).await {
        Ok(read) => fields(&read),
        Err(AskError::Refused(why)) => {
            audit.find(format!("{name}: {why}"));
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(error),
    };
    let mut record = BTreeMap::new();
    for (topic, said) in read {
        let count = said.split(' ').next().and_then(|count| count.parse::<u64>().ok()).filter(|count| *count > 0);
        let is_here = Topic::parse(&topic).is_some_and(|topic| topic.slot() == Slot(slot));
        match count {
            Some(count) if is_here => {
                record.insert(topic, count);
            }
            Some(_) => audit.find(format!("{name} has {topic}, which does not belong there")),
            None => audit.find(format!("{name} says {said:?} of {topic}")),
        }
    }
    Ok(record)
}
