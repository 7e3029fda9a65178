//! From one delivery to the list of those who receive it.
//!
//! The usual case is a copy of the channel's subscriber list: no look at any session, no allocation, no encoding per
//! receiver. Only a delivery that is not later than the newest subscription is checked one by one.

use std::sync::Arc;

use fulmar_protocol::exchange::{Delivery, Happening, Position};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::opening::ClientKind;
use fulmar_protocol::server_message;

use crate::counts::Told;
use crate::effect::{Effects, SessionKey};
use crate::session::{Place, Session};
use crate::subscriptions::{Channel, ChannelKey};
use crate::time::Moment;
use crate::worker::{Wake, Worker};

/// Over how long those who missed something are closed: SDKs come back at once, all together if they were closed so.
pub(crate) const SENT_BACK_OVER_MS: u64 = 10_000;

impl Worker {
    pub(crate) fn delivered(&mut self, now: Moment, delivery: &Arc<Delivery>, effects: &mut Effects) {
        let Some(channel) = self.channels.find(&delivery.app, delivery.channel.as_str()) else { return };
        if !self.channels.get(channel).waiting.is_empty() {
            self.hold(channel, delivery, effects);
            // Closing an overflowing session can end the channel.
            if self.channels.find(&delivery.app, delivery.channel.as_str()) != Some(channel) {
                return;
            }
        }
        match &delivery.happening {
            Happening::Event { frame, except } => {
                let except = except.and_then(|id| self.by_socket.get(&id).copied());
                self.fan_out(channel, frame, Some(delivery.position), except, effects);
            }
            Happening::MemberAdded(member) => {
                let frame = server_message::member_added(&delivery.channel, member);
                self.fan_out(channel, &frame, Some(delivery.position), None, effects);
            }
            Happening::MemberRemoved(user_id) => {
                let frame = server_message::member_removed(&delivery.channel, user_id.as_str());
                self.fan_out(channel, &frame, Some(delivery.position), None, effects);
            }
            Happening::Count(count) => self.count_changed(now, channel, *count, delivery.position, effects),
            Happening::Missed => self.send_back(now, channel, delivery.position),
        }
    }

    /// Subscribers from before this come back, each in its own moment (DEL-20).
    fn send_back(&mut self, now: Moment, channel: ChannelKey, position: Position) {
        let sessions = &self.sessions;
        let is_older = |key: &SessionKey| {
            let subscription = sessions.get(*key).and_then(|session| session.subscriptions.get(&channel));
            subscription.is_some_and(|subscription| subscription.from < position)
        };
        let concerned: Vec<_> = self.channels.get(channel).subscribers.iter().copied().filter(is_older).collect();
        for key in concerned {
            self.leave_within(now, key, SENT_BACK_OVER_MS);
        }
    }

    /// Delivers to one subscription what was held for it.
    pub(crate) fn deliver_to(
        &mut self,
        session: SessionKey,
        channel: ChannelKey,
        delivery: &Delivery,
        effects: &mut Effects,
    ) {
        let Some(receiver) = self.sessions.get(session) else { return };
        if receiver.subscriptions.get(&channel).is_none_or(|s| delivery.position <= s.from) {
            return;
        }
        match &delivery.happening {
            Happening::Event { except, .. } if *except == Some(receiver.socket_id) => {}
            Happening::Event { frame, .. } => effects.send(session, frame.clone()),
            Happening::MemberAdded(member) => {
                effects.send(session, server_message::member_added(&delivery.channel, member));
            }
            Happening::MemberRemoved(user_id) => {
                effects.send(session, server_message::member_removed(&delivery.channel, user_id.as_str()));
            }
            // The others have heard it already, or will when it is due; and then this one with them.
            Happening::Count(count) => {
                let record = self.channels.get(channel);
                let is_due_later = record.count.as_ref().is_some_and(|throttle| throttle.holds_one());
                if !is_due_later && survives_count(record, receiver) {
                    effects.send(session, server_message::subscription_count(&record.name, *count));
                }
            }
            // It is told only now that it has succeeded: what was missed lies before.
            Happening::Missed => {}
        }
    }

    /// Queues `frame` for every subscriber that hears `position` (for all, without one), except one session.
    fn fan_out(
        &mut self,
        channel: ChannelKey,
        frame: &Frame,
        position: Option<Position>,
        except: Option<SessionKey>,
        effects: &mut Effects,
    ) {
        let record = self.channels.get(channel);
        let late = position.filter(|position| *position <= record.newest_from);
        let sessions = &self.sessions;
        effects.fan_out(frame, |targets| {
            if let Some(position) = late {
                let hears = |key: &SessionKey| {
                    Some(*key) != except
                        && sessions
                            .get(*key)
                            .and_then(|session| session.subscriptions.get(&channel))
                            .is_some_and(|subscription| subscription.from < position)
                };
                targets.extend(record.subscribers.iter().copied().filter(hears));
                return;
            }
            let left_out = except
                .and_then(|key| sessions.get(key))
                .and_then(|session| session.subscriptions.get(&channel))
                .and_then(|subscription| match subscription.place {
                    Place::Live(index) => Some(index as usize),
                    Place::Waiting => None,
                });
            match left_out {
                Some(index) => {
                    targets.extend_from_slice(&record.subscribers[..index]);
                    targets.extend_from_slice(&record.subscribers[index + 1..]);
                }
                None => targets.extend_from_slice(&record.subscribers),
            }
        });
    }

    fn count_changed(
        &mut self,
        now: Moment,
        channel: ChannelKey,
        count: u64,
        position: Position,
        effects: &mut Effects,
    ) {
        let record = self.channels.get_mut(channel);
        let generation = record.generation;
        match record.count.get_or_insert_default().changed(count, now) {
            Told::Now => self.tell_count(channel, count, Some(position), effects),
            Told::At(at) => self.wake_at(at, Wake::Count { channel, generation }),
            Told::AlreadyHeld => {}
        }
    }

    pub(crate) fn count_due(&mut self, now: Moment, channel: ChannelKey, generation: u64, effects: &mut Effects) {
        let record = self.channels.if_same(channel, generation);
        let due = record.and_then(|record| record.count.as_mut()).and_then(|throttle| throttle.due(now));
        if let Some(count) = due {
            self.tell_count(channel, count, None, effects);
        }
    }

    fn tell_count(&mut self, channel: ChannelKey, count: u64, position: Option<Position>, effects: &mut Effects) {
        let record = self.channels.get(channel);
        let frame = server_message::subscription_count(&record.name, count);
        if !record.kind.is_encrypted() {
            self.fan_out(channel, &frame, position, None, effects);
            return;
        }
        let sessions = &self.sessions;
        effects.fan_out(&frame, |targets| {
            let hears = |key: &SessionKey| {
                let Some(session) = sessions.get(*key).filter(|session| survives_count(record, session)) else {
                    return false;
                };
                let from = session.subscriptions.get(&channel).map(|subscription| subscription.from);
                from.is_some_and(|from| position.is_none_or(|position| from < position))
            };
            targets.extend(record.subscribers.iter().copied().filter(hears));
        });
    }
}

/// The Java client tries to decrypt every event of an encrypted channel and dies of a count.
fn survives_count(channel: &Channel, session: &Session) -> bool {
    !channel.kind.is_encrypted() || session.client != ClientKind::Java
}
