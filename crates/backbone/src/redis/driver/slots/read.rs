//! What groups say of their slots: asked now and then, and said again to a group that has lost it.

use std::time::Duration;

use redis::Value;

use super::super::{Driver, Purpose};
use super::Said;
use crate::redis::link::{Ask, Lost};
use crate::redis::map::{Held, SlotMap};
use crate::redis::scripts;
use crate::redis::topic::{SLOTS, Slot};

/// How often a group is asked whether anything has changed.
const READ_EVERY: Duration = Duration::from_secs(1);
/// The same while slots are on their way.
const READ_EVERY_MOVING: Duration = Duration::from_millis(100);
/// The same for a group that is about to have a slot for which something waits here.
const READ_EVERY_FROZEN: Duration = Duration::from_millis(3);

/// Pause before a group that has not taken in what it had lost is told again.
const RECALL_EVERY: Duration = Duration::from_millis(100);

impl Driver {
    /// Asks a group what it says of slots, when it is time.
    pub(in crate::redis::driver) fn time_slots(&mut self, now: Duration, group: usize) {
        let Some(facts) = self.groups[group].facts() else { return };
        let known = &self.groups[group].slots;
        if self.sentinels.is_empty() && !known.is_wanted {
            // Nobody moves slots of a single server, and Redis Cluster moves its own.
            return;
        }
        let is_awaited = self.slots.frozen.values().any(|frozen| frozen.to == group);
        let every = match (known.is_wanted || is_awaited, self.slots.map.is_moving()) {
            (true, _) => READ_EVERY_FROZEN,
            (false, true) => READ_EVERY_MOVING,
            (false, false) => READ_EVERY,
        };
        if known.is_reading || known.read_at.is_some_and(|at| now < at + every) {
            return;
        }
        let mut command = scripts::SLOTS.call(&self.groups[group].keys, &facts);
        command.arg(self.slots.map.version).arg(known.state);
        let link = self.groups[group].command;
        let is_reading = self.ask(link, Purpose::Slots(group), Ask::Command(command));
        let known = &mut self.groups[group].slots;
        (known.is_reading, known.read_at) = (is_reading, Some(now));
    }

    pub(in crate::redis::driver) fn slots_answered(&mut self, group: usize, outcome: Result<Value, Lost>) {
        self.groups[group].slots.is_reading = false;
        let answer = match outcome {
            Ok(Value::Array(answer)) if answer.len() == 5 => answer,
            Ok(Value::ServerError(error)) if error.code() == "NOSCRIPT" => {
                return self.load_scripts(self.groups[group].command);
            }
            // Whatever is wrong with the server is noticed by others.
            _ => return,
        };
        if let Value::BulkString(text) = &answer[2]
            && let Some(map) = std::str::from_utf8(text).ok().and_then(SlotMap::parse)
        {
            self.adopt(map);
        }
        if self.groups[group].is_left {
            return;
        }
        let number = |at: usize| match &answer[at] {
            Value::Int(number) => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        };
        let (state, version) = (number(1), number(4));
        let has_lost = state < self.groups[group].slots.state;
        if has_lost || version < self.slots.map.version {
            self.recall(group);
        }
        // What it says of its slots is not taken in before it remembers them.
        self.groups[group].slots.is_wanted = has_lost;
        if has_lost {
            return;
        }
        if state == self.groups[group].slots.state {
            self.groups[group].store.hold(self.slots.is_regrouping());
            return;
        }
        for (slot, held) in pairs(&answer[3]) {
            let said = match held {
                Held::Own(epoch) => Said { slot, group, is_there: true, epoch },
                Held::To(name, epoch) => Said { slot, group: self.place_of(&name), is_there: false, epoch },
            };
            self.slots.said.push(said);
        }
        self.slots.states.push((group, state));
    }

    /// A group has lost what it said, with all its data or to a failover: it gets back what this node remembers.
    fn recall(&mut self, group: usize) {
        let now = self.now();
        let Some(facts) = self.groups[group].facts() else { return };
        let known = &mut self.groups[group].slots;
        if known.recalled_at.is_some_and(|at| now < at + RECALL_EVERY) {
            return;
        }
        known.recalled_at = Some(now);
        let (this, slots) = (&self.groups[group], &self.slots);
        let mut command = scripts::RECALL.call(&this.keys, &facts);
        command.arg(slots.map.version).arg(slots.map.text()).arg(this.slots.state);
        for (slot, epoch) in (0..SLOTS).zip(&slots.epochs).filter(|(_, epoch)| **epoch > 0) {
            let owner = slots.frozen.get(&slot).map_or_else(|| slots.routes.get(Slot(slot)), |frozen| frozen.to);
            let is_there = owner == group && !slots.frozen.contains_key(&slot);
            let held = if is_there { Held::Own(*epoch) } else { Held::To(self.groups[owner].name.clone(), *epoch) };
            command.arg(slot).arg(held.text());
        }
        let link = this.command;
        let _: bool = self.ask(link, Purpose::Ignored, Ask::Command(command));
    }
}

fn pairs(value: &Value) -> Vec<(u16, Held)> {
    let text = |value: &Value| match value {
        Value::BulkString(text) => String::from_utf8(text.clone()).ok(),
        _ => None,
    };
    let Value::Array(list) = value else { return Vec::new() };
    let pair = |pair: &[Value]| {
        let slot = text(&pair[0])?.parse().ok().filter(|slot| *slot < SLOTS)?;
        Some((slot, Held::parse(&text(&pair[1])?)?))
    };
    list.chunks_exact(2).filter_map(pair).collect()
}
