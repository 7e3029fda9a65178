//! Messages about topics, from whatever way they come: repeats are dropped, and each publication is told behind the one it
//! follows.

use std::time::Duration;

use fulmar_protocol::exchange::Identity;

use super::Driver;
use crate::redis::envelope::{LogId, Message};
use crate::redis::millis;
use crate::redis::order::Held;
use crate::redis::topic::Slot;

impl Driver {
    /// A message about a topic: from the log of a group, where it has this place, or over the bus. `lay_for` is how long it has lain
    /// somewhere since its age was written.
    pub(super) fn hear(&mut self, topic: &str, from: Option<(usize, LogId)>, message: &[u8], lay_for: Duration) {
        if !self.hub.follows(topic) {
            return;
        }
        let Some(mut message) = Message::decode(message) else {
            tracing::debug!(topic, "a message that no version of ours sends");
            return;
        };
        let at = from.map(|(_, at)| at);
        let Message::Event(event) = &mut message else {
            // How things stand was read anew where the slot is now. This was before, and would seem to be after it.
            let is_past = from.is_some_and(|(group, _)| self.slots.has_left(Slot::of(topic), group));
            if !(is_past && message.is_edge()) {
                self.tell(topic, at, message);
            }
            return;
        };
        if from.is_some() {
            self.inheritance.logged(event.identity);
        }
        let now = self.now();
        let at = self.own_place(topic, from);
        if !self.seen.note(now, event.identity) || self.calls.is_repeat(now, event) {
            if from.is_some() && event.cache_for.is_some() {
                self.logged_again(topic, event.identity, at);
            }
            return;
        }
        // On the way it says how old it is; here it says since when.
        event.accepted_ms = self.moment().ms.saturating_sub(event.accepted_ms.saturating_add(millis(lay_for)));
        let identity = event.identity;
        let missing = self.order.missing(&self.seen, event, || self.hub.listened_since(topic));
        match (missing, message) {
            (Some(before), Message::Event(event)) => {
                let held = Held { topic: topic.to_owned(), at, event };
                if let Some(Held { topic, at, event }) = self.order.hold(now, before, held) {
                    self.tell(&topic, at, Message::Event(event));
                    self.tell_after(identity);
                }
            }
            (_, message) => {
                self.tell(topic, at, message);
                self.tell_after(identity);
            }
        }
    }

    /// The place of a publication, if it is in the log that this node goes by. While a slot moves two are heard, and places of the other
    /// cannot be compared with what was read.
    pub(super) fn own_place(&self, topic: &str, from: Option<(usize, LogId)>) -> Option<LogId> {
        let (_, at) = from.filter(|(group, _)| *group == self.group_of(Slot::of(topic)))?;
        Some(at)
    }

    /// What was heard before is in a log, which may keep it for later subscribers.
    fn logged_again(&mut self, topic: &str, identity: Identity, at: Option<LogId>) {
        let moment = self.moment();
        let mut outs = std::mem::take(&mut self.outs);
        self.hub.logged(moment, topic, (identity, at), &mut outs);
        self.outs = outs;
    }

    /// What has waited for long enough is told without what it follows.
    pub(super) fn time_order(&mut self, now: Duration) {
        while let Some(Held { topic, at, event }) = self.order.overdue(now) {
            let identity = event.identity;
            tracing::debug!(topic, previous = ?event.previous, "a publication came without the one before it");
            self.tell(&topic, at, Message::Event(event));
            self.tell_after(identity);
        }
    }

    /// Tells what has waited for this one.
    fn tell_after(&mut self, mut told: Identity) {
        while let Some(Held { topic, at, event }) = self.order.after(told) {
            told = event.identity;
            self.tell(&topic, at, Message::Event(event));
        }
    }

    fn tell(&mut self, topic: &str, at: Option<LogId>, message: Message) {
        let moment = self.moment();
        let mut outs = std::mem::take(&mut self.outs);
        self.hub.heard(moment, topic, at, message, &mut outs);
        self.outs = outs;
    }
}
