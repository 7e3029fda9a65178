//! Publications of slots that no group has for longer than a moment, because whoever moved them has died: they go over the bus
//! meanwhile, and count as accepted once every live node has heard them. The log gets them when a group has the slot.

use std::time::Duration;

use redis::Value;

use super::publish::aged;
use super::{Driver, Purpose};
use crate::redis::allowance::Allowance;
use crate::redis::bus::Batch;
use crate::redis::link::{Ask, Lost};
use crate::redis::round::ANSWER_MAX;

/// How long a slot is nobody's before its publications take the bus.
const FROZEN_MAX: Duration = Duration::from_millis(100);
/// Pause after a batch that not everybody heard.
const AGAIN: Duration = Duration::from_millis(20);
/// Bytes in one batch, about.
const BYTES_MAX: usize = 256 << 10;

/// What is on its way.
pub(super) struct FrozenBus {
    pub(super) allowance: Allowance,
    /// Slots, and up to where their publications are in the batch.
    flight: Option<(Vec<(u16, usize)>, Duration)>,
    again_at: Duration,
    /// Which path is taken next.
    path: usize,
}

impl FrozenBus {
    pub(super) fn new(allowance: Allowance) -> Self {
        let (flight, again_at, path) = Default::default();
        Self { allowance, flight, again_at, path }
    }
}

impl Driver {
    /// Sends what has waited for too long, one batch at a time.
    pub(super) fn pump_frozen(&mut self, now: Duration) {
        if !self.slots.is_frozen() {
            return;
        }
        if self.slots.bus.flight.as_ref().is_some_and(|(_, sent_at)| now >= *sent_at + ANSWER_MAX) {
            self.frozen_failed(now);
        }
        let bus = &self.slots.bus;
        if bus.flight.is_some() || now < bus.again_at || !bus.allowance.may_send(now) {
            return;
        }
        let (mut batch, mut parts, mut bytes) = (Batch::new(0), Vec::new(), 0);
        for (slot, frozen) in &self.slots.frozen {
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
                    batch.add(&item.topic, &aged(&item.message, now.saturating_sub(item.accepted_at)));
                }
            }
            parts.push((*slot, end));
        }
        let paths = self.paths(0);
        if parts.is_empty() || paths.is_empty() {
            return;
        }
        let path = paths[self.slots.bus.path % paths.len()];
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.keys.bus(&self.servers[path].address)).arg(batch.finish().as_ref());
        let link = self.servers[path].link;
        if self.ask(link, Purpose::FrozenCount, Ask::Command(command)) {
            self.slots.bus.allowance.sent(now, bytes);
            self.slots.bus.flight = Some((parts, now));
        } else {
            self.frozen_failed(now);
        }
    }

    fn frozen_failed(&mut self, now: Duration) {
        let bus = &mut self.slots.bus;
        (bus.flight, bus.again_at, bus.path) = (None, now + AGAIN, bus.path.wrapping_add(1));
    }

    /// A batch was heard by so many.
    pub(super) fn frozen_counted(&mut self, outcome: Result<Value, Lost>) {
        let now = self.now();
        let Some((parts, sent_at)) = self.slots.bus.flight.take() else { return };
        let live = self.nodes.live();
        if !matches!(outcome, Ok(Value::Int(count)) if u64::try_from(count).unwrap_or(0) >= live) {
            return self.frozen_failed(now);
        }
        let mut calls = Vec::new();
        for (slot, end) in parts {
            // One that was opened and frozen again meanwhile is not the one that was sent.
            let frozen = self.slots.frozen.get_mut(&slot).filter(|frozen| frozen.since <= sent_at);
            let Some(frozen) = frozen else { continue };
            calls.extend(frozen.items[frozen.heard..end].iter_mut().filter_map(|item| item.call.take()));
            frozen.heard = end;
        }
        self.answer_accepted(calls);
    }
}
