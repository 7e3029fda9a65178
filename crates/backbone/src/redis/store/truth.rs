//! What the scripts have acknowledged of this node's records: the truth that a group is held to.

use fulmar_protocol::name::UserId;
use fulmar_protocol::webhook::Kinds;
use hashbrown::HashMap;

use super::super::records::{Change, Presence};
use super::super::topic::{SLOTS, Slot, Topic};

/// Bit of a record that says that subscribers are told the count. The lower ones are [`Kinds`].
const COUNTED: u16 = 1 << 15;

/// What a record says beside its count: which edges an app's server wants to hear of, and whether counts are told. Kept with the
/// record for whoever must take it away when its node is dead.
pub fn bits(hooks: Kinds, is_counted: bool) -> u16 {
    hooks.iter().fold(u16::from(is_counted) * COUNTED, |bits, kind| bits | 1 << kind as u16)
}

/// A member as it is stored.
pub fn presence_text(presence: &Presence) -> String {
    format!("{} {}", presence.since, presence.user_info.as_deref().unwrap_or_default())
}

/// This node's record of one topic.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Subscriptions.
    pub count: u32,
    /// See [`bits`].
    pub bits: u16,
    /// What the changes said about edges: for joining anew.
    pub hooks: Kinds,
    /// Likewise.
    pub is_counted: bool,
    /// Users on it.
    pub members: HashMap<UserId, Presence>,
}

impl Record {
    /// As it is stored.
    pub fn text(&self) -> String {
        format!("{} {}", self.count, self.bits)
    }
}

/// All records of this node, by slot.
#[derive(Debug)]
pub struct Truth {
    slots: Vec<HashMap<Topic, Record>>,
}

impl Truth {
    pub fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| HashMap::new()).collect() }
    }

    /// The records of a slot.
    pub fn slot(&self, slot: Slot) -> &HashMap<Topic, Record> {
        &self.slots[usize::from(slot.0)]
    }

    /// The record of a topic.
    pub fn record(&self, topic: &Topic) -> Option<&Record> {
        self.slot(topic.slot()).get(topic)
    }

    /// Takes in a change that a script has made.
    pub fn apply(&mut self, change: &Change) {
        let slot = &mut self.slots[usize::from(change.topic.slot().0)];
        if change.subscriptions == 0 {
            slot.remove(&change.topic);
            return;
        }
        let record = slot.entry(change.topic.clone()).or_default();
        record.count = change.subscriptions;
        record.bits = bits(change.hooks, change.is_counted);
        record.hooks = change.hooks;
        record.is_counted = change.is_counted;
        match &change.member {
            Some((user, Some(presence))) => drop(record.members.insert(user.clone(), presence.clone())),
            Some((user, None)) => drop(record.members.remove(user)),
            None => {}
        }
    }

    /// Takes the records of a slot out.
    pub fn take_slot(&mut self, slot: Slot) -> HashMap<Topic, Record> {
        std::mem::take(&mut self.slots[usize::from(slot.0)])
    }

    /// Takes in records that another group has had.
    pub fn give_slot(&mut self, slot: Slot, records: HashMap<Topic, Record>) {
        self.slots[usize::from(slot.0)].extend(records);
    }

    /// Whether this node has no records.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(HashMap::is_empty)
    }

    /// Takes everything out: it is to be said anew.
    pub fn take(&mut self) -> Vec<(Topic, Record)> {
        self.slots.iter_mut().flat_map(std::mem::take).collect()
    }
}
