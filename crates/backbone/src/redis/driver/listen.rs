//! Subscriptions on the believed primary: made in chunks, confirmed, filled from the log, watched by heartbeats.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashSet;
use redis::Value;

use super::fill::Counted;
use super::{Driver, Place, Purpose};
use crate::redis::envelope::{LogId, Message};
use crate::redis::link::{Ask, LinkId, Lost, Server, is_wrong_server};
use crate::redis::scripts;
use crate::redis::topic::Topic;

/// Names in one SUBSCRIBE.
const CHUNK: usize = 256;
/// Shortest and longest pause behind a chunk; see [`pause_after`].
const CHUNK_PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));
/// A heartbeat is sent when none was heard for this long.
const PULSE_EVERY: Duration = Duration::from_millis(100);
/// And however much is heard, one that says how many entries the log was given, this often.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How long a subscription may be missing before the node says that it is deaf.
const DEAF_AFTER: Duration = Duration::from_millis(50);
/// The same at a start, where connections take their time: sooner than anybody here is answered without the group, so that the bus,
/// which is wound back, has all that is published from then on.
const NEW_DEAF_AFTER: Duration = Duration::from_millis(500);
/// How often a deaf node says so.
const SAY_DEAF_EVERY: Duration = Duration::from_millis(150);
/// How long the subscriptions on the primary before stay open.
const OLD_FOR: Duration = Duration::from_secs(3);
/// Messages held while the log is read; beyond it they are delivered, and the fill's come late.
const HELD_MAX: usize = 65_536;

/// What this node hears from a group's primary.
#[derive(Default)]
pub(super) struct Hearing {
    pub(super) link: Option<LinkId>,
    /// Run id of the server that the link leads to.
    pub(super) run: Option<String>,
    /// Names that are to be subscribed to.
    queue: VecDeque<Topic>,
    /// The same, to be left.
    leaving: Vec<Topic>,
    /// Confirmed on the present connection.
    pub(super) confirmed: HashSet<Topic>,
    is_asking: bool,
    asked_at: Duration,
    /// When the next chunk is due.
    next_at: Duration,
    pub(super) stage: Stage,
    /// The last entry heard on a believed connection, and its server.
    pub(super) position: Option<(String, LogId)>,
    /// Where the log stood when the group was first attached: nothing before that can be missed here.
    pub(super) head: Option<(String, LogId)>,
    /// What was heard for certain, by number, and when it was heard how many that is.
    pub(super) counted: Option<Counted>,
    pub(super) counted_at: Duration,
    /// Where the log is read from next, and whether that is where the last share of it ended.
    pub(super) fill_from: (String, bool),
    /// Up to here what is read was heard already.
    pub(super) fill_heard: LogId,
    /// Number of the present reading: what a reading before it still answers is not taken for this one's.
    pub(super) reading: u64,
    pub(super) held: VecDeque<(Topic, LogId, Bytes)>,
    pub(super) heard_at: Duration,
    pulsed_at: Duration,
    pub(super) is_pulsing: bool,
    pub(super) deaf_since: Option<Duration>,
    /// It has heard everything once: before that nobody here could miss anything.
    pub(super) was_ready: bool,
    said_deaf_at: Option<Duration>,
    old: Option<(LinkId, Duration)>,
    pub(super) filled: u64,
    /// Gaps that the log could not fill.
    pub(super) gaps: u64,
}

impl Hearing {
    /// Nothing was heard yet, and from now on something may be missed: it is where hearing began.
    pub(super) fn begin_at_head(&mut self) {
        if self.position.is_none() {
            self.position = self.head.take();
        }
    }

    /// Whether there are names that it should be hearing and is not.
    fn is_wanted(&self) -> bool {
        !self.queue.is_empty() || self.stage == Stage::Subscribing
    }

    /// Whether what is heard must wait for what the log has from before it.
    fn is_holding(&self) -> bool {
        match self.stage {
            Stage::Filling => true,
            Stage::Subscribing => self.position.is_some(),
            Stage::Away | Stage::Ready => false,
        }
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The connection, or its server, is not the believed primary's.
    #[default]
    Away,
    /// Names are being subscribed to that were followed before.
    Subscribing,
    /// The log is being read.
    Filling,
    /// Everything is heard.
    Ready,
}

impl Driver {
    pub(super) fn follow_topic(&mut self, topic: Topic) {
        for group in self.slots.heard(topic.slot()).to_vec() {
            self.hear_topic(group, topic.clone());
        }
    }

    pub(super) fn hear_topic(&mut self, group: usize, topic: Topic) {
        let hearing = &mut self.groups[group].hearing;
        hearing.leaving.retain(|leaving| *leaving != topic);
        hearing.queue.push_back(topic);
    }

    pub(super) fn unfollow_topic(&mut self, topic: &Topic) {
        self.slots.forget(topic);
        for group in self.slots.heard(topic.slot()).to_vec() {
            self.ignore_topic(group, topic);
        }
    }

    pub(super) fn ignore_topic(&mut self, group: usize, topic: &Topic) {
        let hearing = &mut self.groups[group].hearing;
        let queued = hearing.queue.len();
        hearing.queue.retain(|queued| queued != topic);
        // What waits to be subscribed to again may be subscribed on this connection still; ending what is not harms nobody.
        if hearing.confirmed.remove(topic) || hearing.queue.len() < queued {
            hearing.leaving.push(topic.clone());
        }
    }

    /// The connection to the primary before stays open beside the new one.
    pub(super) fn retire_listening(&mut self, group: usize) {
        let until = self.now() + OLD_FOR;
        let hearing = &mut self.groups[group].hearing;
        hearing.begin_at_head();
        hearing.stage = Stage::Away;
        hearing.run = None;
        let retired = hearing.link.take();
        let before = hearing.old.take().map(|(link, _)| link);
        self.close(before);
        if let Some(link) = retired {
            if let Some((_, place)) = self.links.get_mut(&link) {
                *place = Place::Old(group);
            }
            self.groups[group].hearing.old = Some((link, until));
        }
    }

    pub(super) fn close_old(&mut self, group: usize) {
        let old = self.groups[group].hearing.old.take().map(|(link, _)| link);
        self.close(old);
    }

    pub(super) fn listen_up(&mut self, group: usize, server: Option<Server>) {
        let hearing = &mut self.groups[group].hearing;
        hearing.run = server.map(|server| server.run);
        hearing.stage = Stage::Away;
        (hearing.is_asking, hearing.next_at) = (false, Duration::ZERO);
        self.start_listening(group);
    }

    pub(super) fn listen_down(&mut self, group: usize, why: &str) {
        let hearing = &mut self.groups[group].hearing;
        tracing::debug!(group, why, "no subscriptions on the primary");
        hearing.begin_at_head();
        hearing.run = None;
        hearing.stage = Stage::Away;
        hearing.is_asking = false;
        self.ask_around();
    }

    /// Subscribes to everything that is followed, once the connection leads to the attached server.
    pub(super) fn start_listening(&mut self, group: usize) {
        let now = self.now();
        let this = &mut self.groups[group];
        let is_believed = this.attached.as_ref().is_some_and(|at| Some(&at.run) == this.hearing.run.as_ref());
        if !is_believed {
            return;
        }
        let hearing = &mut this.hearing;
        hearing.stage = Stage::Subscribing;
        (hearing.is_asking, hearing.heard_at) = (false, now);
        hearing.confirmed.clear();
        hearing.leaving.clear();
        let mut topics: Vec<Topic> =
            self.hub.interest().filter(|t| self.slots.heard(t.slot()).contains(&group)).cloned().collect();
        topics.sort_by_cached_key(|topic| std::cmp::Reverse(self.hub.subscriptions(topic.as_str())));
        let hearing = &mut self.groups[group].hearing;
        hearing.queue = topics.into();
        let link = hearing.link;
        let pulse = self.subscribing(group, vec![self.groups[group].keys.pulse()]);
        let purpose = Purpose::Followed { group, topics: Vec::new(), is_pulse: true };
        self.groups[group].hearing.is_asking = self.ask(link, purpose, pulse);
    }

    /// How channels of a group are subscribed to.
    fn subscribing(&self, group: usize, channels: Vec<String>) -> Ask {
        let is_share = self.groups[group].keys.is_share();
        if is_share { Ask::SubscribeInShare(channels) } else { Ask::Subscribe(channels) }
    }

    /// Subscribes to and leaves what waits for it.
    pub(super) fn pump_listening(&mut self, now: Duration, group: usize) {
        let hearing = &mut self.groups[group].hearing;
        if hearing.stage == Stage::Away || hearing.is_asking {
            return;
        }
        if hearing.queue.is_empty() {
            if hearing.stage == Stage::Subscribing {
                self.start_filling(group);
            }
        } else if hearing.stage == Stage::Ready || now >= hearing.next_at {
            let count = hearing.queue.len().min(CHUNK);
            let topics: Vec<Topic> = hearing.queue.drain(..count).collect();
            hearing.asked_at = now;
            let link = hearing.link;
            let keys = &self.groups[group].keys;
            let ask = self.subscribing(group, topics.iter().map(|topic| keys.channel(topic)).collect());
            let purpose = Purpose::Followed { group, topics, is_pulse: false };
            self.groups[group].hearing.is_asking = self.ask(link, purpose, ask);
        }
        let hearing = &mut self.groups[group].hearing;
        if !hearing.leaving.is_empty() {
            let (leaving, link) = (std::mem::take(&mut hearing.leaving), hearing.link);
            let keys = &self.groups[group].keys;
            let channels = leaving.iter().map(|topic| keys.channel(topic)).collect();
            let leave = if keys.is_share() { Ask::UnsubscribeInShare(channels) } else { Ask::Unsubscribe(channels) };
            let _: bool = self.ask(link, Purpose::Ignored, leave);
        }
    }

    pub(super) fn followed(&mut self, group: usize, topics: Vec<Topic>, is_pulse: bool, outcome: Result<Value, Lost>) {
        let now = self.now();
        let hearing = &mut self.groups[group].hearing;
        if outcome.is_err() || hearing.stage == Stage::Away {
            // The connection is gone, and with it all subscriptions: everything is subscribed to on the next one.
            return;
        }
        if let Ok(Value::ServerError(error)) = &outcome {
            // In Redis Cluster: the slot is another's. Once it is known whose, everything is subscribed to there.
            hearing.stage = Stage::Away;
            return self.distrust(group, &format!("subscribing: {}", error.code()));
        }
        hearing.is_asking = false;
        if is_pulse {
            return;
        }
        hearing.next_at = now + pause_after(now.saturating_sub(hearing.asked_at));
        let moment = self.moment();
        let mut outs = std::mem::take(&mut self.outs);
        for topic in topics {
            let heard = self.slots.heard(topic.slot());
            if self.hub.follows(topic.as_str()) && heard.contains(&group) {
                // While the slot moves it may be published on either group.
                let is_heard = |other: &usize| {
                    *other == group || !self.hears(*other) || self.groups[*other].hearing.confirmed.contains(&topic)
                };
                if heard.iter().all(is_heard) {
                    self.hub.followed(moment, topic.as_str(), &mut outs);
                }
                self.slots.confirmed(group, &topic);
                self.groups[group].hearing.confirmed.insert(topic);
            } else {
                self.groups[group].hearing.leaving.push(topic);
            }
        }
        self.outs = outs;
    }

    /// Whether everything that is followed is heard from the attached server.
    pub(super) fn hears(&self, group: usize) -> bool {
        let this = &self.groups[group];
        this.hearing.stage == Stage::Ready
            && this.attached.as_ref().is_some_and(|attached| Some(&attached.run) == this.hearing.run.as_ref())
    }

    /// A message on a subscription. Only the connection that is believed moves the position.
    pub(super) fn pushed(&mut self, group: usize, is_believed: bool, channel: &[u8], message: Vec<u8>) {
        let now = self.now();
        if is_believed {
            self.groups[group].hearing.heard_at = now;
        }
        let Ok(channel) = std::str::from_utf8(channel) else { return };
        let Some(topic) = self.groups[group].keys.topic_of(channel) else {
            return self.pulsed(group, is_believed, &message);
        };
        let Some((id, rest)) = Message::with_id(&message) else { return };
        if !is_believed || !self.groups[group].hearing.is_holding() {
            if is_believed {
                self.stands_at(group, id);
            }
            return self.hear(topic, Some((group, id)), rest, Duration::ZERO);
        }
        let Some(topic) = Topic::parse(topic) else { return };
        let at = message.len() - rest.len();
        let message = Bytes::from(message);
        self.groups[group].hearing.held.push_back((topic, id, message.slice(at..)));
        if self.groups[group].hearing.held.len() >= HELD_MAX {
            self.deliver_held(group);
        }
    }

    fn pulsed(&mut self, group: usize, is_believed: bool, message: &[u8]) {
        let Ok(text) = std::str::from_utf8(message) else { return };
        if let Some(id) = text.strip_prefix('P') {
            if let Some(id) = LogId::parse(id).filter(|_| is_believed) {
                self.stands_at(group, id);
            }
        } else if let Some(counted) = text.strip_prefix('N') {
            if let Some(counted) = Counted::parse(counted).filter(|_| is_believed) {
                self.has_counted(group, counted);
            }
        } else if text.starts_with('D') {
            let mut told = Vec::new();
            self.groups[group].store.doubt(std::time::Instant::now(), text, &mut told);
            self.stored(group, told);
        }
    }

    /// Everything up to this entry was heard. While names are being subscribed to, or the log is being read, it was not: a
    /// connection that breaks then is filled from where the last whole one stood.
    pub(super) fn stands_at(&mut self, group: usize, id: LogId) {
        let hearing = &mut self.groups[group].hearing;
        if hearing.stage != Stage::Ready {
            return;
        }
        let Some(run) = &hearing.run else { return };
        match &mut hearing.position {
            Some((of, at)) if of == run => *at = (*at).max(id),
            position => *position = Some((run.clone(), id)),
        }
    }

    pub(super) fn pulse_answered(&mut self, group: usize, outcome: Result<Value, Lost>) {
        self.groups[group].hearing.is_pulsing = false;
        match outcome {
            Ok(Value::Array(parts)) => {
                if let Some(Value::Int(epoch)) = parts.first() {
                    self.learn_epoch(group, u64::try_from(*epoch).unwrap_or(0));
                }
            }
            Ok(Value::ServerError(error)) => match error.code() {
                "NOSCRIPT" => self.load_scripts(self.groups[group].command),
                code if is_wrong_server(code) => {
                    let why = format!("{} {}", error.code(), error.details().unwrap_or(""));
                    self.distrust(group, &why);
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// Sends a heartbeat when none was heard, and says so when nothing is heard at all.
    pub(super) fn time_listening(&mut self, now: Duration, group: usize) {
        if self.groups[group].hearing.old.as_ref().is_some_and(|(_, until)| now >= *until) {
            self.close_old(group);
        }
        self.time_pulse(now, group);
        let is_ready = {
            let hearing = &self.groups[group].hearing;
            hearing.stage == Stage::Ready && now < hearing.heard_at + self.settings.limits.silence
        };
        let hearing = &mut self.groups[group].hearing;
        if is_ready {
            hearing.deaf_since = None;
            return;
        }
        let is_silent = hearing.stage == Stage::Ready;
        let since = *hearing.deaf_since.get_or_insert(now);
        let after = if hearing.was_ready { DEAF_AFTER } else { NEW_DEAF_AFTER };
        if !(hearing.was_ready || hearing.is_wanted())
            || now < since + after
            || hearing.said_deaf_at.is_some_and(|at| now < at + SAY_DEAF_EVERY)
        {
            return;
        }
        hearing.said_deaf_at = Some(now);
        let link = hearing.link;
        if is_silent {
            // The connection is of no use: on the next one everything is subscribed to and filled.
            hearing.stage = Stage::Away;
            self.reset(link);
        }
        self.somebody_is_deaf(now, group);
        self.say_deaf(group);
    }

    fn time_pulse(&mut self, now: Duration, group: usize) {
        let Some(facts) = self.groups[group].facts() else { return };
        let jitter = PULSE_EVERY / 8 * u32::try_from(self.origin % 4).expect("below four");
        let hearing = &mut self.groups[group].hearing;
        let due = hearing.heard_at.max(hearing.pulsed_at) + PULSE_EVERY + jitter;
        let count_due = hearing.counted_at.max(hearing.pulsed_at) + COUNT_EVERY + jitter;
        if now < due.min(count_due) || hearing.is_pulsing {
            return;
        }
        hearing.pulsed_at = now;
        let command = scripts::PULSE.call(&self.groups[group].keys, &facts);
        let link = self.groups[group].command;
        self.groups[group].hearing.is_pulsing = self.ask(link, Purpose::Pulse(group), Ask::Command(command));
    }
}

/// How long a server is left to others behind a chunk that took so long: one node has a fifth of its time, and less the more there are
/// who subscribe, since a chunk then waits for theirs. Where a server is far away the pause has an end.
fn pause_after(took: Duration) -> Duration {
    (took * 4).clamp(CHUNK_PAUSE.0, CHUNK_PAUSE.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RED-19
    #[test]
    fn a_server_has_four_times_as_long_for_others_as_a_chunk_took() {
        let pauses = [0, 1, 5, 40].map(|ms| pause_after(Duration::from_millis(ms)).as_millis());
        assert_eq!(pauses, [2, 4, 20, 50]);
    }
}
