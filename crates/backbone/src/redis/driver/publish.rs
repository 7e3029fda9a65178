//! Publications: accepted here, appended to logs, answered when they count as accepted.

use std::ops::RangeInclusive;
use std::slice;
use std::time::Duration;

use fulmar_protocol::app::Durability;
use fulmar_protocol::exchange::{Identity, Publication};
use fulmar_protocol::webhook::EventKind;
use redis::Value;
use tokio::sync::oneshot;

use super::calls::Call;
use super::{Driver, Purpose};
use crate::redis::confirm::{Confirmation, PIPES};
use crate::redis::envelope::Event;
use crate::redis::lane::{BatchMax, Item, LANES, Lane, Spec, lane_of};
use crate::redis::link::{Ask, LinkId, Lost, Server, is_wrong_server};
use crate::redis::millis;
use crate::redis::round::Missed;
use crate::redis::scripts;
use crate::redis::settings::Limits;
use crate::redis::topic::Topic;
use crate::{PublishError, Terms};

/// What one script call carries at most.
const BATCH_MAX: BatchMax = BatchMax { items: 128, bytes: 512 << 10 };
/// Pause before a server that is right but takes no writes is tried again.
const HELD: Duration = Duration::from_millis(100);
/// How far back the bus is wound when the circuit opens.
pub(super) const REWIND: Duration = Duration::from_secs(1);

/// Whether another process has what a node published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replica {
    /// A replica has it, or every live node.
    Has,
    /// One is asked for it.
    Awaited,
    /// None has it, and none is waited for.
    Lacking,
}

/// One lane of this node to a group, and its connections.
pub(super) struct LaneSide {
    /// Its name in the group.
    pub(super) name: String,
    pub(super) lane: Lane,
    pub(super) pipes: [Pipe; PIPES],
    confirmation: Confirmation,
    /// The pipe that the batch on its way took.
    taken: usize,
    /// Batches sent so far.
    sent: u64,
    sent_at: Option<Duration>,
    pub(super) held_until: Option<Duration>,
}

/// One connection of a lane.
#[derive(Default)]
pub(super) struct Pipe {
    pub(super) link: Option<LinkId>,
    /// Run id of the server that the link leads to.
    run: Option<String>,
}

impl LaneSide {
    /// Whether a script's answer is out on either connection. A `WAIT` that is out asks about what is in the log already.
    pub(super) fn is_asking(&self) -> bool {
        self.sent_at.is_some() || self.lane.in_flight().is_some()
    }

    pub(super) fn new(name: String) -> Self {
        let pipes = std::array::from_fn(|_| Pipe::default());
        let (confirmation, sent_at, held_until) = Default::default();
        Self { name, lane: Lane::new(), pipes, confirmation, taken: 0, sent: 0, sent_at, held_until }
    }

    /// Whether an answer is awaited on one of its connections.
    pub(super) fn is_awaiting(&self) -> bool {
        self.lane.in_flight().is_some() || self.confirmation.is_out()
    }

    /// A primary is believed whose log has everything up to `last`. Says how many items go again that were logged.
    pub(super) fn attached(&mut self, now: Duration, last: u64) -> u64 {
        self.confirmation.forget();
        self.lane.attached(now, last)
    }

    /// Nothing is on its way any more by this connection, which is new or gone.
    fn clear(&mut self, pipe: usize) {
        self.confirmation.lost(pipe);
        if self.taken == pipe {
            self.lane.settle();
            self.sent_at = None;
        }
    }
}

impl Driver {
    /// Takes all publications of a call or none.
    pub(super) fn accept(
        &mut self,
        publications: Vec<Publication>,
        terms: Terms,
        reply: Option<oneshot::Sender<Result<(), PublishError>>>,
    ) {
        let answer = |reply: Option<oneshot::Sender<_>>, result| {
            if let Some(reply) = reply {
                // Whoever asked may have gone.
                let _: Result<(), Result<(), PublishError>> = reply.send(result);
            }
        };
        let topics: Vec<Topic> = publications.iter().map(|p| Topic::channel(&p.app, &p.channel)).collect();
        let bytes: u64 = publications.iter().map(|p| p.frame.len() as u64).sum();
        let now = self.now();
        let has_room = self.buffer_has_room(now, bytes)
            && topics.iter().all(|topic| self.hub.has_room(topic.as_str()))
            && self.bus_has_room(now, &publications, &topics);
        if !has_room {
            self.calls.refused += 1;
            return answer(reply, Err(PublishError::NotAccepted));
        }
        if publications.is_empty() {
            return answer(reply, Ok(()));
        }
        self.calls.made += 1;
        self.calls.accepted += publications.len() as u64;
        let call = self.calls.made;
        let waits = terms.durability != Durability::Memory && reply.is_some();
        let call_of_item = waits.then_some(call);
        let count = publications.len();
        for (at, (publication, topic)) in publications.into_iter().zip(topics).enumerate() {
            let once = terms.once.map(|key| key.wrapping_add(at as u64).max(1));
            let item = self.put(now, publication, topic, once, None);
            (item.call, item.needs_replica) = (call_of_item, terms.durability == Durability::Replicated);
        }
        if waits {
            self.calls.waiting.insert(call, Call { left: count, reply });
            self.calls.deadlines.push_back((now + self.settings.limits.publish_timeout, call));
        } else {
            answer(reply, Ok(()));
        }
    }

    /// An event from a client: nobody waits for it.
    pub(super) fn accept_client_event(&mut self, publication: Publication) {
        let topic = Topic::channel(&publication.app, &publication.channel);
        let now = self.now();
        let has_room = self.buffer_has_room(now, publication.frame.len() as u64)
            && self.hub.has_room(topic.as_str())
            && self.bus_has_room(now, slice::from_ref(&publication), slice::from_ref(&topic));
        if !has_room {
            self.calls.refused += 1;
            return;
        }
        let wants = self
            .outbox
            .as_ref()
            .is_some_and(|outbox| outbox.wanted(&publication.app, &publication.channel).has(EventKind::ClientEvent));
        let max = self.settings.limits.outbox_part_max();
        let hook = publication
            .except
            .filter(|_| wants)
            .map(|socket| format!("o={};m={max};s={socket};", topic.slot().outbox_part()));
        self.calls.accepted += 1;
        self.put(now, publication, topic, None, hook);
    }

    fn put(
        &mut self,
        now: Duration,
        publication: Publication,
        topic: Topic,
        once: Option<u64>,
        hook: Option<String>,
    ) -> &mut Item {
        self.calls.counter += 1;
        let counter = self.calls.counter;
        let previous = self.calls.before(now, &topic, counter, once.is_some());
        let event = Event {
            identity: Identity { origin: self.origin, counter },
            previous,
            accepted_ms: 0,
            repeat_of: once.unwrap_or(0),
            except: publication.except,
            cache_for: publication.cache_for,
            frame: publication.frame,
        };
        let spec = Spec { cache_for: publication.cache_for, once, hook };
        self.queue(Item::new(now, topic, event.encode(), spec))
    }

    fn queue(&mut self, item: Item) -> &mut Item {
        let slot = item.topic.slot();
        let group = self.group_of(slot);
        match self.slots.frozen.get_mut(&slot.0) {
            Some(frozen) => {
                self.slots.bus.allowance.took(&item.topic, item.message.len());
                self.slots.weight += item.weight();
                frozen.items.push(item);
                frozen.items.last_mut().expect("it was pushed just now")
            }
            None => {
                let group = &mut self.groups[group];
                group.bus.allowance.took(&item.topic, item.message.len());
                group.lanes[lane_of(slot)].lane.push(item)
            }
        }
    }

    /// A node is dead: what it had put on the bus, and no log was heard to have, is appended in its place.
    pub(super) fn inherit(&mut self, node: &str, origin: u64) {
        let left = self.inheritance.take(origin);
        if !left.is_empty() {
            tracing::info!(node, publications = left.len(), "what it put on the bus is appended, where no log has it");
        }
        for item in left {
            self.queue(item);
        }
    }

    /// Everything that can leave for this group leaves.
    pub(super) fn pump(&mut self, now: Duration, group: usize) {
        for lane in 0..LANES {
            self.pump_lane(now, group, lane);
        }
        self.pump_bus(now, group);
        self.pump_records(now, group);
        self.pump_listening(now, group);
    }

    /// A connection to the attached server on which no replica is waited for.
    fn free_pipe(&self, group: usize, lane: usize) -> Option<usize> {
        let this = &self.groups[group];
        let run = &this.attached.as_ref()?.run;
        let side = &this.lanes[lane];
        let is_free = |&at: &usize| {
            let pipe = &side.pipes[at];
            !side.confirmation.blocks(at) && pipe.run.as_ref() == Some(run) && self.is_up(pipe.link)
        };
        (0..PIPES).find(is_free)
    }

    fn pump_lane(&mut self, now: Duration, group: usize, lane: usize) {
        let side = &self.groups[group].lanes[lane];
        let must_read = self.slots.is_regrouping() || self.groups[group].slots.is_wanted;
        if must_read || !side.lane.is_due() || side.held_until.is_some_and(|until| now < until) {
            return;
        }
        let Some(pipe) = self.free_pipe(group, lane) else { return };
        let waits_from = self.slots.first_frozen(self.origin, lane);
        let has_replicas = self.has_replicas(group);
        let Some(facts) = self.groups[group].facts() else { return };
        let this = &mut self.groups[group];
        let side = &mut this.lanes[lane];
        let Some(batch) = side.lane.take_batch(BATCH_MAX) else { return };
        let limits = &self.settings.limits;
        let mut command = scripts::PUBLISH.call(&this.keys, &facts);
        command.arg(&side.name).arg(*batch.start()).arg(u8::from(side.lane.begins(*batch.start())));
        command.arg(limits.log_entries_max).arg(limits.log_age.as_millis().to_string());
        command.arg(side.lane.last_of(self.origin, batch.clone(), waits_from));
        let waits = has_replicas && side.lane.needs_replica(batch.clone());
        for number in batch.clone() {
            let item = side.lane.item(number).expect("a batch is made of items that are kept");
            command.arg(item.topic.as_str()).arg(item.aged(now).as_ref()).arg(item.spec_text(now));
        }
        side.sent += 1;
        let sent = side.sent;
        (side.sent_at, side.taken) = (Some(now), pipe);
        let link = side.pipes[pipe].link;
        if !self.ask(link, Purpose::Script { group, lane, sent }, Ask::Command(command)) {
            self.groups[group].lanes[lane].clear(pipe);
            return;
        }
        self.groups[group].lanes[lane].confirmation.carried(pipe, sent, &batch, waits);
        self.ask_replicas(group, lane);
    }

    /// Asks whether a replica has what left since that was asked last, if it is not being asked now.
    fn ask_replicas(&mut self, group: usize, lane: usize) {
        let side = &mut self.groups[group].lanes[lane];
        let Some((pipe, sent)) = side.confirmation.ask() else { return };
        let link = side.pipes[pipe].link;
        let mut wait = redis::cmd("WAIT");
        wait.arg(1).arg(millis(self.settings.limits.wait));
        if !self.ask(link, Purpose::Wait { group, lane, pipe, sent }, Ask::Command(wait)) {
            self.groups[group].lanes[lane].clear(pipe);
        }
    }

    pub(super) fn script_answered(&mut self, group: usize, lane: usize, sent: u64, outcome: Result<Value, Lost>) {
        let now = self.now();
        let side = &mut self.groups[group].lanes[lane];
        if !matches!(outcome, Ok(Value::Array(_))) {
            // Of what was not appended no replica can say anything.
            side.confirmation.refused(sent);
        }
        if side.sent == sent {
            // Also where the server was given up meanwhile: the connection is not silent.
            side.sent_at = None;
        }
        let Some(batch) = side.lane.in_flight().filter(|_| side.sent == sent) else { return };
        side.lane.settle();
        let Ok(value) = outcome else {
            return self.open_circuit(now, group);
        };
        match &value {
            Value::Array(answer) => {
                let number = |at: usize| match answer.get(at) {
                    Some(Value::Int(number)) => u64::try_from(*number).unwrap_or(0),
                    _ => 0,
                };
                let (epoch, last) = (number(0), number(1));
                side.lane.logged(now, last);
                // Without somebody who asks for one there is no replica, or nobody who needs it.
                let is_awaited = side.confirmation.is_awaited(*batch.end()) && !self.lags(group);
                let replica = if is_awaited { Replica::Awaited } else { Replica::Lacking };
                self.accepted(group, lane, batch, replica);
                self.learn_epoch(group, epoch);
            }
            Value::ServerError(error) => {
                let code = error.code().to_owned();
                let details = error.details().unwrap_or("").to_owned();
                self.publish_refused(now, group, lane, &code, &details);
            }
            _ => {}
        }
    }

    fn publish_refused(&mut self, now: Duration, group: usize, lane: usize, code: &str, details: &str) {
        match code {
            "NOSCRIPT" => {
                let side = &self.groups[group].lanes[lane];
                self.load_scripts(side.pipes[side.taken].link);
            }
            // Somebody moves slots: nothing of the batch was done.
            "OTHERSLOTS" => self.groups[group].slots.is_wanted = true,
            "SEQGAP" => {
                let last = details.parse().unwrap_or(0);
                let again = self.groups[group].lanes[lane].attached(now, last);
                self.calls.again += again;
            }
            _ if is_wrong_server(code) => self.distrust(group, &format!("{code} {details}")),
            // NOREPLICAS, OOM, MISCONF, NOPERM and whatever else: the server is right, only unwritable.
            _ => {
                let this = &mut self.groups[group];
                this.complain(now, &format!("the server does not take publications: {code} {details}"));
                this.lanes[lane].held_until = Some(now + HELD);
                self.open_circuit(now, group);
            }
        }
    }

    pub(super) fn wait_answered(
        &mut self,
        group: usize,
        lane: usize,
        (pipe, sent): (usize, u64),
        outcome: Result<Value, Lost>,
    ) {
        let side = &mut self.groups[group].lanes[lane];
        let Ok(Value::Int(replicas)) = outcome else {
            side.confirmation.unanswered(pipe, sent);
            return self.open_circuit(self.now(), group);
        };
        if let Some(items) = side.confirmation.answered(pipe, sent) {
            let (lags, logged) = (replicas < 1, side.lane.logged_to());
            self.replicas_lag(group, lags);
            if lags {
                // Too few in time: it is answered all the same, with what came since, because this node keeps it; and it is counted.
                let items = *items.start()..=logged.max(*items.end());
                self.accepted(group, lane, items, Replica::Lacking);
            } else {
                self.accepted(group, lane, items, Replica::Has);
            }
        }
        self.ask_replicas(group, lane);
    }

    /// Whether no replica confirms what is published in time.
    fn lags(&self, group: usize) -> bool {
        self.groups[group].attached.as_ref().is_some_and(|attached| attached.lags)
    }

    fn replicas_lag(&mut self, group: usize, lags: bool) {
        let (now, wait_ms) = (self.now(), millis(self.settings.limits.wait));
        let this = &mut self.groups[group];
        let Some(attached) = &mut this.attached else { return };
        attached.lags = lags;
        if lags {
            this.complain(
                now,
                &format!("no replica has what is published within {wait_ms} ms: it is answered without"),
            );
        }
    }

    /// These are in the log, or were heard: whoever waits for no more than that is told.
    pub(super) fn accepted(&mut self, group: usize, lane: usize, range: RangeInclusive<u64>, replica: Replica) {
        let mut calls = Vec::new();
        let is_awaited = replica == Replica::Awaited;
        let needing = self.groups[group].lanes[lane].lane.accept(range, !is_awaited, &mut calls);
        // Whoever has one server wants no replica; who has lost all of them is to see it.
        if replica == Replica::Lacking && !self.settings.has_one_server() {
            self.calls.unwaited += needing;
        }
        self.answer_accepted(calls);
    }

    /// Silence has consequences: first both ways are used, then the connection is given up.
    pub(super) fn time_lanes(&mut self, now: Duration, group: usize) {
        for lane in 0..LANES {
            let Limits { reappend_age, breaker, .. } = self.settings.limits;
            let this = &mut self.groups[group];
            this.lanes[lane].lane.trim(now, reappend_age);
            // A node that starts while nobody can be followed has no connection whose end would open it.
            let is_away = this.attached.is_none() && !this.is_left;
            if is_away && this.lanes[lane].lane.waits_since().is_some_and(|since| now >= since + breaker) {
                self.open_circuit(now, group);
            }
            let Some(silent) = self.groups[group].lanes[lane].sent_at.map(|at| now.saturating_sub(at)) else {
                continue;
            };
            if silent >= breaker {
                self.open_circuit(now, group);
            }
            if silent >= self.settings.limits.command_timeout {
                let side = &mut self.groups[group].lanes[lane];
                side.sent_at = None;
                side.lane.settle();
                let link = side.pipes[side.taken].link;
                self.reset(link);
            }
        }
        let all_attached = self.all_are_attached(group);
        if self.groups[group].attached.is_some() && self.groups[group].circuit.close_if_well(now, all_attached) {
            tracing::info!(group = self.groups[group].name, "publications go over the primary alone again");
            self.groups[group].bus.missed = Missed::default();
            for side in &mut self.groups[group].lanes {
                side.lane.leave_bus();
            }
        }
    }

    /// Something is wrong with the primary: publications take the bus as well, beginning with those of a moment ago.
    pub(super) fn open_circuit(&mut self, now: Duration, group: usize) {
        if self.groups[group].circuit.trouble(now) {
            self.wind_back(now, group);
        }
    }

    pub(super) fn wind_back(&mut self, now: Duration, group: usize) {
        for side in &mut self.groups[group].lanes {
            side.lane.wind_back(now.saturating_sub(REWIND));
        }
    }

    pub(super) fn lane_up(&mut self, group: usize, lane: usize, pipe: usize, server: Option<Server>) {
        let side = &mut self.groups[group].lanes[lane];
        side.clear(pipe);
        side.pipes[pipe].run = server.map(|server| server.run);
    }

    pub(super) fn lane_down(&mut self, group: usize, lane: usize, pipe: usize) {
        let side = &mut self.groups[group].lanes[lane];
        side.clear(pipe);
        side.pipes[pipe].run = None;
        self.open_circuit(self.now(), group);
    }
}
