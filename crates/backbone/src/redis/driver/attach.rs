//! A group as this node follows it: which server, whether it is attached, and how that begins and ends.
//!
//! Following is choosing an address; attached is when that server has said that it is a primary and the attach script has
//! found the group's identity there. Until then, and whenever it is over, the group is away: the circuit is open, joins are
//! answered from what is known here, and publications wait or take the bus.

use std::time::{Duration, Instant};

use redis::Value;

use super::bus::GroupBus;
use super::complaints::{self, Complaints, Whose};
use super::listen::Hearing;
use super::publish::LaneSide;
use super::slots::Known;
use super::{Driver, Place, Purpose};
use crate::redis::circuit::Circuit;
use crate::redis::confirm::PIPES;
use crate::redis::keys::Keys;
use crate::redis::lane::LANES;
use crate::redis::link::{Ask, GIVEN_UP, LinkId, Lost, Server};
use crate::redis::map::SlotMap;
use crate::redis::primaries::Primary;
use crate::redis::records::Told;
use crate::redis::redis_cluster;
use crate::redis::scripts::{self, Facts};
use crate::redis::settings::{Settings, Topology};
use crate::redis::store::values::{log_id, text};
use crate::redis::store::{self, Refusal, Store, StoreLimits};

/// Pause before a server that refused to be attached is asked again.
const ATTACH_AGAIN: Duration = Duration::from_millis(250);

/// One group.
pub(super) struct Group {
    pub(super) name: String,
    /// `DEPLOYMENT/GROUP`.
    pub(super) identity: String,
    pub(super) keys: Keys,
    /// The highest epoch known.
    pub(super) epoch: u64,
    /// The server that is followed.
    pub(super) address: Option<String>,
    /// Whether a server without data may be taken for the group's.
    pub(super) may_claim: bool,
    pub(super) attached: Option<Attached>,
    pub(super) command: Option<LinkId>,
    /// Run id of the server that the command link leads to.
    command_run: Option<String>,
    attach_at: Option<Duration>,
    is_attaching: bool,
    pub(super) lanes: [LaneSide; LANES],
    pub(super) hearing: Hearing,
    pub(super) store: Store,
    pub(super) circuit: Circuit,
    pub(super) bus: GroupBus,
    pub(super) asked_store: Vec<StoreAsked>,
    pub(super) has_left: bool,
    pub(super) is_leaving: bool,
    pub(super) slots: Known,
    /// The map names it no more: nothing goes there, and it is not followed.
    pub(super) is_left: bool,
    /// Edges that its outbox had no room for.
    pub(super) edges_dropped: u64,
    complaints: Complaints,
    /// What was last complained of while the group was away.
    pub(super) problem: Option<String>,
    /// Run id of the server whose log was read last.
    log_of: Option<String>,
}

/// What is known of the server while it is attached.
pub(super) struct Attached {
    pub(super) run: String,
    /// No replica confirmed in time what it was last asked to.
    pub(super) lags: bool,
}

/// Commands of the store on their way.
pub(super) struct StoreAsked {
    pub(super) ticket: u64,
    pub(super) replies: Vec<Option<Value>>,
    pub(super) sent_at: Duration,
}

impl Group {
    pub(super) fn new(name: &str, node: &str, settings: &Settings) -> Self {
        let keys = settings.keys(name);
        let limits = StoreLimits {
            log_age: settings.limits.log_age,
            log_entries_max: settings.limits.log_entries_max,
            outbox_part_max: settings.limits.outbox_part_max(),
            lease: settings.limits.lease,
        };
        Self {
            name: name.to_owned(),
            identity: format!("{}/{name}", keys.deployment()),
            epoch: 0,
            address: None,
            may_claim: false,
            attached: None,
            command: None,
            command_run: None,
            attach_at: None,
            is_attaching: false,
            lanes: std::array::from_fn(|at| LaneSide::new(format!("{node}.{at}"))),
            hearing: Hearing::default(),
            store: Store::new(Instant::now(), keys.clone(), node.to_owned(), limits),
            keys,
            circuit: Circuit::default(),
            bus: GroupBus::new(settings.limits.bus_bytes_per_s),
            asked_store: Vec::new(),
            has_left: false,
            is_leaving: false,
            slots: Known::default(),
            is_left: false,
            edges_dropped: 0,
            complaints: Complaints::default(),
            problem: None,
            log_of: None,
        }
    }

    pub(super) fn facts(&self) -> Option<Facts> {
        let run = self.attached.as_ref()?.run.clone();
        Some(Facts { identity: self.identity.clone(), run, epoch: self.epoch, slots: self.slots.state })
    }

    /// The slot of Redis Cluster that all its names lie in.
    pub(super) fn redis_cluster_slot(&self) -> u16 {
        redis_cluster::slot_of(self.keys.prefix().trim_start_matches('{').trim_end_matches('}'))
    }

    pub(super) fn is_awaiting(&self) -> bool {
        self.circuit.is_open()
            || self.bus.flight.is_some()
            || !self.asked_store.is_empty()
            || self.lanes.iter().any(LaneSide::is_awaiting)
    }

    /// Says why nobody is followed, whoever logs it.
    pub(super) fn show_problem(&mut self, what: &str) {
        if self.address.is_none() && self.problem.as_deref() != Some(what) {
            self.problem = Some(what.to_owned());
        }
    }

    /// Logs it unless the same was logged a short while ago. Of a group that is away it is shown as well.
    pub(super) fn complain(&mut self, now: Duration, what: &str) {
        if self.complaints.is_due(now, what) {
            tracing::warn!(group = self.name, address = self.address.as_deref().unwrap_or("-"), "{what}");
        }
        if self.attached.is_none() && self.problem.as_deref() != Some(what) {
            self.problem = Some(what.to_owned());
        }
    }
}

impl Driver {
    /// Follows a server from now on. The subscriptions on the one before stay open beside the new ones for a while.
    pub(super) fn follow(&mut self, group: usize, address: &str, may_claim: bool) {
        self.groups[group].may_claim = may_claim;
        if self.groups[group].address.as_deref() == Some(address) {
            return;
        }
        let is_change = self.groups[group].address.is_some();
        tracing::info!(group = self.groups[group].name, address, is_change, "following this server");
        self.detach(group);
        let this = &mut self.groups[group];
        this.address = Some(address.to_owned());
        let mut before = vec![this.command.take()];
        before.extend(this.lanes.iter_mut().flat_map(|side| &mut side.pipes).map(|pipe| pipe.link.take()));
        before.into_iter().for_each(|link| self.close(link));
        self.retire_listening(group);
        let command = self.open(Place::Command(group), address);
        let listen = self.open(Place::Listen(group), address);
        for (lane, pipe) in (0..LANES).flat_map(|lane| (0..PIPES).map(move |pipe| (lane, pipe))) {
            let link = self.open(Place::Lane(group, lane, pipe), address);
            self.groups[group].lanes[lane].pipes[pipe].link = Some(link);
        }
        let this = &mut self.groups[group];
        this.command = Some(command);
        this.hearing.link = Some(listen);
    }

    /// A group that the map names and the configuration does not: Sentinels know where it is.
    pub(super) fn add_group(&mut self, name: &str) {
        tracing::info!(group = name, "a group has come");
        let mut group = Group::new(name, &self.node, &self.settings);
        if self.stopping.is_some() {
            group.is_leaving = true;
            group.store.leave();
        }
        self.groups.push(group);
        self.nodes.add_group();
        self.hub.add_group();
        for sentinel in &mut self.sentinels {
            sentinel.add_group();
        }
    }

    /// A group that has no slots any more.
    pub(super) fn leave_group(&mut self, group: usize) {
        tracing::info!(group = self.groups[group].name, "a group has gone");
        self.groups[group].is_left = true;
        self.detach(group);
        let this = &mut self.groups[group];
        (this.address, this.attach_at) = (None, None);
        let mut links = vec![this.command.take(), this.hearing.link.take()];
        links.extend(this.lanes.iter_mut().flat_map(|side| &mut side.pipes).map(|pipe| pipe.link.take()));
        this.circuit = Circuit::default();
        links.into_iter().for_each(|link| self.close(link));
        self.close_old(group);
        self.groups[group].hearing = Hearing::default();
        self.nodes.leave_group(group);
        self.show_figures();
    }

    /// The followed server can no longer be used, or not yet again.
    pub(super) fn detach(&mut self, group: usize) {
        let now = self.now();
        let this = &mut self.groups[group];
        this.is_attaching = false;
        this.slots.forget_question();
        this.hearing.is_pulsing = false;
        this.asked_store.clear();
        let was_attached = this.attached.take().is_some();
        let mut told = Vec::new();
        if was_attached {
            this.store.lost(&mut told);
        }
        for side in &mut this.lanes {
            side.lane.settle();
        }
        self.stored(group, told);
        self.open_circuit(now, group);
        if was_attached {
            if !self.groups[group].is_left {
                tracing::warn!(group = self.groups[group].name, "the group is away");
            }
            self.set_away(group, true);
        }
    }

    fn set_away(&mut self, group: usize, is_away: bool) {
        let moment = self.moment();
        let mut outs = std::mem::take(&mut self.outs);
        self.hub.group_is_away(moment, group, is_away, &mut outs);
        self.outs = outs;
        self.show_primaries();
    }

    pub(super) fn command_up(&mut self, group: usize, server: Option<Server>) {
        let now = self.now();
        let Some(server) = server else { return };
        let advice = match self.settings.topology {
            Topology::Single(_) => ": name its primary in backbone.addresses, or promote it (REPLICAOF NO ONE)",
            _ => "",
        };
        let this = &mut self.groups[group];
        if server.is_primary {
            this.command_run = Some(server.run);
            this.attach_at = Some(now);
            self.load_scripts(self.groups[group].command);
        } else {
            this.command_run = None;
            this.complain(now, &format!("this server is a replica; waiting for one that is a primary{advice}"));
            this.attach_at = Some(now + ATTACH_AGAIN);
        }
    }

    pub(super) fn command_down(&mut self, group: usize, why: &str) {
        let now = self.now();
        self.groups[group].command_run = None;
        self.detach(group);
        if why != GIVEN_UP {
            let whose = Whose::Server { database: self.settings.database };
            self.groups[group].complain(now, &complaints::no_connection(why, whose));
        }
        self.ask_around();
    }

    /// Asks to be attached when it is time.
    pub(super) fn time_attaching(&mut self, now: Duration, group: usize) {
        let this = &self.groups[group];
        let is_due = this.attach_at.is_some_and(|at| now >= at);
        if !is_due || this.is_attaching || this.attached.is_some() {
            return self.time_records(now, group);
        }
        let Some(run) = this.command_run.clone() else {
            // It was a replica, or there is no connection. A new one asks who it is now.
            self.groups[group].attach_at = None;
            return self.reset(self.groups[group].command);
        };
        let names = self.settings.topology.groups().join(",");
        let mut command = redis::cmd("EVAL");
        let declared = this.keys.declared();
        command.arg(scripts::ATTACH.text()).arg(declared.len()).arg(declared);
        command.arg(&this.identity).arg(run).arg(this.epoch).arg(u8::from(this.may_claim)).arg(names);
        for side in &this.lanes {
            command.arg(&side.name);
        }
        let command_link = this.command;
        let is_asked = self.ask(command_link, Purpose::Attach(group), Ask::Command(command));
        self.groups[group].is_attaching = is_asked;
    }

    pub(super) fn attach_answered(&mut self, group: usize, outcome: Result<Value, Lost>) {
        let now = self.now();
        self.groups[group].is_attaching = false;
        let Ok(value) = outcome else { return };
        let this = &mut self.groups[group];
        let Some(run) = this.command_run.clone() else { return };
        let answer: Vec<Value> = match value {
            Value::Array(answer) if answer.len() == 3 + LANES => answer,
            Value::ServerError(error) => {
                let groups = self.settings.topology.groups().join(",");
                let details = error.details().unwrap_or_default();
                let what = complaints::not_attached(error.code(), details, &this.identity, &groups);
                this.complain(now, &what);
                this.attach_at = Some(now + ATTACH_AGAIN);
                return self.ask_around();
            }
            other => {
                this.complain(now, &format!("the server answers what no version of ours would: {other:?}"));
                this.attach_at = Some(now + ATTACH_AGAIN);
                return;
            }
        };
        let number = |at: usize| match &answer[at] {
            Value::Int(number) => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        };
        let map = text(&answer[2]).as_deref().and_then(SlotMap::parse);
        this.epoch = this.epoch.max(number(0));
        this.attach_at = None;
        let is_other_log = this.log_of.as_ref() != Some(&run);
        this.log_of = Some(run.clone());
        if this.hearing.position.is_none() && this.hearing.head.is_none() {
            this.hearing.head = Some((run.clone(), log_id(answer.get(1))));
        }
        this.attached = Some(Attached { run, lags: false });
        this.problem = None;
        if this.lanes.iter().all(|side| side.lane.next() == 1) {
            this.circuit.begin();
        }
        let mut again = 0;
        for (at, side) in this.lanes.iter_mut().enumerate() {
            again += side.attached(now, number(3 + at));
            side.held_until = None;
        }
        tracing::info!(
            group = this.name,
            address = this.address.as_deref(),
            epoch = this.epoch,
            again,
            "the group is here"
        );
        this.store.attached(Instant::now(), this.epoch);
        if is_other_log {
            self.hub.other_log(group);
        }
        let told = store::Out::Told(Told::Doubtful(None));
        if let Some(map) = map {
            self.adopt(map);
        }
        if self.groups[group].is_left {
            return;
        }
        // Before anything that this server says: places in its log may be lower than those of another.
        self.stored(group, vec![told]);
        self.set_away(group, false);
        self.start_listening(group);
    }

    /// A higher epoch than was known: the group has changed hands.
    pub(super) fn learn_epoch(&mut self, group: usize, epoch: u64) {
        let this = &mut self.groups[group];
        this.epoch = this.epoch.max(epoch);
    }

    pub(super) fn records_refused(&mut self, group: usize, refusal: &Refusal) {
        let now = self.now();
        match refusal {
            // Somebody moves slots.
            Refusal::OtherSlots => self.groups[group].slots.is_wanted = true,
            // The server is right, only unwritable: it is tried again.
            Refusal::NoReplicas | Refusal::Full | Refusal::Other(_) => {
                self.groups[group].complain(now, &format!("the server does not take changes: {refusal:?}"));
                self.open_circuit(now, group);
            }
            _ => self.distrust(group, &format!("{refusal:?}")),
        }
    }

    /// The server is not what it was taken for: everything about it is asked anew.
    pub(super) fn distrust(&mut self, group: usize, why: &str) {
        let now = self.now();
        self.detach(group);
        let this = &mut self.groups[group];
        this.complain(now, &format!("the server refuses: {why}"));
        this.attach_at = Some(now + ATTACH_AGAIN);
        self.reset(self.groups[group].command);
        self.ask_around();
    }

    /// Makes the server know every script.
    pub(super) fn load_scripts(&mut self, link: Option<LinkId>) {
        for script in scripts::ALL {
            // Without a connection there is nothing to load them over.
            let _: bool = self.ask(link, Purpose::Load, Ask::Command(script.load()));
        }
    }

    /// Sends what the store has to say, and gives a connection up that does not answer.
    fn time_records(&mut self, now: Duration, group: usize) {
        let this = &self.groups[group];
        let oldest = this.asked_store.iter().map(|asked| asked.sent_at).min();
        if oldest.is_some_and(|at| now >= at + self.settings.limits.command_timeout) {
            self.detach(group);
            self.groups[group].complain(now, "the server does not answer in time");
            self.reset(self.groups[group].command);
            return;
        }
        if oldest.is_some_and(|at| now >= at + self.settings.limits.breaker) {
            self.open_circuit(now, group);
        }
    }

    /// Sends what the store has to say.
    pub(super) fn pump_records(&mut self, now: Duration, group: usize) {
        loop {
            let Some(facts) = self.groups[group].facts() else { return };
            let Some(outgoing) = self.groups[group].store.next(Instant::now(), &facts) else { return };
            let replies = outgoing.cmds.iter().map(|_| None).collect();
            self.groups[group].asked_store.push(StoreAsked { ticket: outgoing.ticket, replies, sent_at: now });
            let command = self.groups[group].command;
            for (at, cmd) in outgoing.cmds.into_iter().enumerate() {
                let purpose = Purpose::Store { group, ticket: outgoing.ticket, at };
                if !self.ask(command, purpose, Ask::Command(cmd)) {
                    return self.detach(group);
                }
            }
        }
    }

    pub(super) fn store_answered(&mut self, group: usize, ticket: u64, at: usize, outcome: Result<Value, Lost>) {
        let this = &mut self.groups[group];
        let Some(asked) = this.asked_store.iter().position(|asked| asked.ticket == ticket) else { return };
        let Ok(value) = outcome else { return };
        if matches!(&value, Value::ServerError(error) if error.code() == "NOSCRIPT") {
            self.load_scripts(self.groups[group].command);
        }
        let this = &mut self.groups[group];
        this.asked_store[asked].replies[at] = Some(value);
        if this.asked_store[asked].replies.iter().any(Option::is_none) {
            return;
        }
        let asked = this.asked_store.swap_remove(asked);
        let mut told = Vec::new();
        this.store.replied(Instant::now(), ticket, asked.replies.into_iter().flatten().collect(), &mut told);
        self.stored(group, told);
    }

    /// Shows other threads who is followed.
    pub(super) fn show_primaries(&self) {
        let primaries = self.groups.iter().map(|group| {
            let run = group.attached.as_ref()?.run.clone();
            let address = group.address.clone()?;
            Some(Primary { address, identity: group.identity.clone(), run, epoch: group.epoch })
        });
        let primaries = primaries.collect();
        *self.shared.primaries.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = primaries;
    }

    pub(super) fn has_stopped(&mut self) -> bool {
        let now = self.now();
        let has_left = self.groups.iter().all(|group| group.has_left || group.attached.is_none());
        match &self.stopping {
            Some((_, until)) => {
                let is_over = has_left || now >= *until;
                if is_over && let Some((done, _)) = self.stopping.take() {
                    // Whoever waited may have given up.
                    let _: Result<(), ()> = done.send(());
                }
                is_over
            }
            None => false,
        }
    }
}
