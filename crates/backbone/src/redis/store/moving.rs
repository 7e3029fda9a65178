//! Slots that come and go: what this node has of them in one group's store goes to another's, whole and without an edge.
//!
//! Only while nothing that writes is on its way: what an answer would still change cannot be taken along.

use std::time::Instant;

use hashbrown::HashMap;

use super::flight::Lane;
use super::queue::Waiting;
use super::truth::Record;
use super::{Out, Store};
use crate::redis::records::Call;
use crate::redis::topic::{Slot, Topic};

/// What a node has of a slot.
#[derive(Debug, Default)]
pub struct Moving {
    records: HashMap<Topic, Record>,
    waiting: Vec<Waiting>,
    calls: Vec<Call>,
}

impl Moving {
    /// Something was asked of the slot while no group has it.
    pub fn ask(&mut self, call: Call) {
        self.calls.push(call);
    }
}

impl Store {
    /// Sends nothing that writes until it is told otherwise.
    pub fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// Whether nothing that writes is on its way.
    #[must_use]
    pub fn is_still(&self) -> bool {
        self.is_free(Lane::Write)
    }

    /// Whether the group has this node's lease.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        self.has_lease
    }

    /// The group has given the slot away: what this node has of it is taken out, and the group no longer held to it.
    pub fn take_slot(&mut self, slot: Slot) -> Moving {
        self.given.insert(slot.0);
        let records = self.truth.take_slot(slot);
        let waiting = self.queue.take_slots(|of| of == slot);
        self.audit.abandon();
        Moving { records, waiting, calls: Vec::new() }
    }

    /// The group has the slot from now on.
    pub fn give_slot(&mut self, now: Instant, slot: Slot, moving: Moving, outs: &mut Vec<Out>) {
        self.given.remove(&slot.0);
        self.sweep.spare();
        self.truth.give_slot(slot, moving.records);
        moving.waiting.into_iter().for_each(|waiting| self.queue.give(waiting));
        moving.calls.into_iter().for_each(|call| self.call(call, outs));
        self.audit.abandon();
        self.audit.want(now);
    }
}
