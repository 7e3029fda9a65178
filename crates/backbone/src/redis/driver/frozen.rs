//! Publications of slots that no group has for longer than a moment, because whoever moved them has died: they go over the bus
//! meanwhile, and count as accepted once every live node has heard them. The log gets them when a group has the slot.

use std::time::Duration;

use redis::Value;

use super::slots::Slots;
use super::{Driver, Purpose};
use crate::redis::allowance::Allowance;
use crate::redis::bus::Batch;
use crate::redis::lane::{Item, lane_of};
use crate::redis::link::Lost;
use crate::redis::round::{ANSWER_MAX, Outcome, Round};
use crate::redis::topic::Slot;

/// How long a slot is nobody's before its publications take the bus.
const FROZEN_MAX: Duration = Duration::from_millis(100);
/// Pause after a batch that not everybody heard.
const AGAIN: Duration = Duration::from_millis(20);
/// Bytes in one batch, about.
const BYTES_MAX: usize = 256 << 10;

/// The bus as far as slots that no group has take it.
pub(super) struct FrozenBus {
    pub(super) allowance: Allowance,
    round: Round,
    flight: Option<Flight>,
    again_at: Duration,
    /// The slot that the next batch begins with, so that none waits for all before it.
    begins_with: u16,
}

/// What is on its way.
struct Flight {
    path: usize,
    /// Slots, and up to where their publications are in the batch.
    parts: Vec<(u16, usize)>,
    sent_at: Duration,
}

impl FrozenBus {
    pub(super) fn new(bytes_per_s: u64) -> Self {
        let (round, flight, again_at, begins_with) = Default::default();
        Self { allowance: Allowance::new(bytes_per_s), round, flight, again_at, begins_with }
    }
}

impl Slots {
    /// The first of this node's publications that wait until slots of this lane are opened: it is appended behind others that were
    /// accepted later. None is above the largest number.
    pub(super) fn first_frozen(&self, origin: u64, lane: usize) -> u64 {
        let of_lane = self.frozen.iter().filter(|(slot, _)| lane_of(Slot(**slot)) == lane);
        let first = of_lane.filter_map(|(_, frozen)| frozen.items.iter().find_map(|item| item.counter_of(origin)));
        first.min().unwrap_or(u64::MAX)
    }

    /// Whether the app may publish something of this slot; `None` for a slot of some group.
    pub(super) fn bus_has_room(&mut self, now: Duration, app: &str, slot: Slot) -> Option<bool> {
        self.frozen.get(&slot.0)?;
        let waiting = || self.frozen.values().flat_map(|frozen| &frozen.items[frozen.heard..]);
        let first = waiting().map(|item| item.accepted_at).min();
        let age = first.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let bytes = waiting().map(|item| item.message.len() as u64).sum();
        Some(self.bus.allowance.admits(now, app, bytes, age, || waiting().map(Item::app_and_bytes)))
    }

    /// Up to so many bytes of what has waited for too long, and where that ends in each slot.
    fn batch(&self, now: Duration) -> (Batch, Vec<(u16, usize)>) {
        let (mut batch, mut parts, mut bytes) = (Batch::new(0), Vec::new(), 0);
        let begins_with = self.bus.begins_with;
        for (slot, frozen) in self.frozen.range(begins_with..).chain(self.frozen.range(..begins_with)) {
            if now < frozen.since + FROZEN_MAX || bytes >= BYTES_MAX || frozen.heard >= frozen.items.len() {
                continue;
            }
            let mut end = frozen.heard;
            for item in &frozen.items[frozen.heard..] {
                if bytes >= BYTES_MAX {
                    break;
                }
                end += 1;
                bytes += item.message.len();
                if !item.message.is_empty() {
                    batch.add(&item.topic, &item.aged(now));
                }
            }
            parts.push((*slot, end));
        }
        (batch, parts)
    }
}

impl Driver {
    /// Sends what has waited for too long, one batch at a time.
    pub(super) fn pump_frozen(&mut self, now: Duration) {
        if !self.slots.is_frozen() {
            return;
        }
        let paths = self.paths(0);
        let bus = &mut self.slots.bus;
        if let Some(flight) = bus.flight.take_if(|flight| now >= flight.sent_at + ANSWER_MAX) {
            bus.round.failed(flight.path, &paths);
        }
        if bus.flight.is_some() || now < bus.again_at || !bus.allowance.may_send(now) {
            return;
        }
        let (batch, parts) = self.slots.batch(now);
        let Some((last, _)) = parts.last() else { return };
        self.slots.bus.begins_with = last + 1;
        let Some(path) = self.slots.bus.round.path(&paths) else {
            self.slots.bus.again_at = now + AGAIN;
            return;
        };
        let message = batch.finish();
        if self.publish_on_bus(path, Purpose::FrozenCount, &message) {
            self.slots.bus.allowance.sent(now, message.len());
            self.slots.bus.flight = Some(Flight { path, parts, sent_at: now });
        } else {
            self.slots.bus.round.failed(path, &paths);
            self.slots.bus.again_at = now + AGAIN;
        }
    }

    /// A batch was heard by so many.
    pub(super) fn frozen_counted(&mut self, outcome: Result<Value, Lost>) {
        let now = self.now();
        let Some(flight) = self.slots.bus.flight.take() else { return };
        let (paths, live) = (self.paths(0), self.nodes.live_on_the_bus());
        let bus = &mut self.slots.bus;
        let Ok(Value::Int(count)) = outcome else {
            return bus.round.failed(flight.path, &paths);
        };
        if bus.round.counted(now, flight.path, u64::try_from(count).unwrap_or(0), live, &paths) == Outcome::Again {
            bus.again_at = if paths.len() < 2 { now + AGAIN } else { now };
            return;
        }
        bus.allowance.heard(now);
        let mut calls = Vec::new();
        for (slot, end) in flight.parts {
            // One that was opened and frozen again meanwhile is not the one that was sent.
            let frozen = self.slots.frozen.get_mut(&slot).filter(|frozen| frozen.since <= flight.sent_at);
            let Some(frozen) = frozen else { continue };
            calls.extend(frozen.items[frozen.heard..end].iter_mut().filter_map(|item| item.call.take()));
            frozen.heard = end;
        }
        self.answer_accepted(calls);
    }
}
