//! The second path: one connection to every server, on which this node listens to that server's bus, sends over it, and asks
//! the server who it is.

use std::ops::RangeInclusive;
use std::time::Duration;

use fulmar_protocol::exchange::Publication;
use redis::Value;

use super::attach::Group;
use super::complaints::{self, Complaints, Whose};
use super::publish::{REWIND, Replica};
use super::redis_cluster::Member;
use super::{Driver, Place, Purpose};
use crate::redis::allowance::Allowance;
use crate::redis::belief::ServerView;
use crate::redis::bus::{self, Batch, Bus};
use crate::redis::lane::{BatchMax, Item, LANES};
use crate::redis::link::{Ask, LinkId, Lost, Server as Answered, is_primary};
use crate::redis::round::{ANSWER_MAX, Back, Missed, Outcome, Path, Round, best_first};
use crate::redis::topic::Topic;

/// What one bus message carries at most, per lane.
const BATCH_MAX: BatchMax = BatchMax { items: 256, bytes: 256 << 10 };
/// How often a server is asked who it is.
pub(super) const VIEW_EVERY: Duration = Duration::from_millis(250);
/// Pause after a batch that no path took.
const AGAIN: Duration = Duration::from_millis(20);
/// A server that nobody has named for this long is left.
const UNNAMED: Duration = Duration::from_secs(60);

/// A server of any group.
pub(super) struct Server {
    pub(super) address: String,
    /// The group it was last named for.
    pub(super) group: usize,
    pub(super) link: Option<LinkId>,
    /// The subscription to its bus is confirmed.
    pub(super) is_listening: bool,
    pub(super) view: Option<ServerView>,
    pub(super) is_primary: bool,
    pub(super) view_asked_at: Option<Duration>,
    named_at: Duration,
    complaints: Complaints,
    pub(super) member: Member,
}

impl Server {
    /// Whether it is of this group, whose primary is `own`.
    fn is_of(&self, group: usize, own: Option<&str>) -> bool {
        self.group == group || (own.is_some() && self.member.primary() == own)
    }
}

/// The bus as far as one group's publications take it.
pub(super) struct GroupBus {
    round: Round,
    pub(super) missed: Missed,
    pub(super) flight: Option<Flight>,
    pub(super) allowance: Allowance,
    /// Nothing leaves before that.
    again_at: Option<Duration>,
    complaints: Complaints,
}

impl GroupBus {
    pub(super) fn new(bytes_per_s: u64) -> Self {
        let (round, missed, flight, again_at, complaints) = Default::default();
        Self { round, missed, flight, allowance: Allowance::new(bytes_per_s), again_at, complaints }
    }
}

impl Group {
    /// For how long what the bus carries next, and no log has, has been here; nothing while the bus is not in use.
    pub(super) fn bus_age(&self, now: Duration) -> Duration {
        let lanes = self.lanes.iter().filter(|_| self.circuit.is_open());
        let first = lanes.filter_map(|side| side.lane.waiting_for_bus().next()).map(|item| item.accepted_at).min();
        first.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    fn bus_has_room(&mut self, now: Duration, app: &str) -> bool {
        if !self.circuit.is_open() {
            return true;
        }
        let (age, lanes) = (self.bus_age(now), &self.lanes);
        let bytes = lanes.iter().map(|side| side.lane.bytes_for_bus()).sum();
        let waiting = || lanes.iter().flat_map(|side| side.lane.waiting_for_bus()).map(Item::app_and_bytes);
        self.bus.allowance.admits(now, app, bytes, age, waiting)
    }
}

/// A batch on the bus whose count has not come.
pub(super) struct Flight {
    path: usize,
    ranges: [Option<RangeInclusive<u64>>; LANES],
    sent_at: Duration,
}

impl Driver {
    /// A server was named for a group: it is connected from now on.
    pub(super) fn serve(&mut self, group: usize, address: &str) {
        let now = self.now();
        if let Some(server) = self.servers.iter_mut().find(|server| server.address == address) {
            server.named_at = now;
            return;
        }
        let at = self.servers.len();
        let link = self.open(Place::Bus(at), address);
        self.servers.push(Server {
            address: address.to_owned(),
            group,
            link: Some(link),
            is_listening: false,
            view: None,
            is_primary: false,
            view_asked_at: None,
            named_at: now,
            complaints: Complaints::default(),
            member: Member::default(),
        });
    }

    pub(super) fn bus_up(&mut self, at: usize, server: Option<Answered>) {
        let Some(answered) = server else { return };
        let this = &mut self.servers[at];
        (this.is_primary, this.is_listening, this.view_asked_at) = (answered.is_primary, false, None);
        let (channel, link) = (self.keys.bus(&this.address), this.link);
        let _: bool = self.ask(link, Purpose::BusListening(at), Ask::Subscribe(vec![channel]));
        if self.is_redis_cluster() {
            self.member_up(at);
        }
    }

    pub(super) fn bus_down(&mut self, at: usize, why: &str) {
        let this = &mut self.servers[at];
        let was_listening = std::mem::take(&mut this.is_listening);
        this.view = None;
        tracing::debug!(address = this.address, why, "no connection to this server's bus");
        if !was_listening {
            let whose = Whose::Server { database: self.settings.database };
            self.complain_of(at, &complaints::no_connection(why, whose));
        }
        for group in 0..self.groups.len() {
            if self.groups[group].bus.flight.as_ref().is_some_and(|flight| flight.path == at) {
                self.bus_failed(group);
            }
        }
    }

    /// Logs it of this server unless the same was logged a short while ago. Of one that is followed its group says it.
    pub(super) fn complain_of(&mut self, at: usize, what: &str) {
        let now = self.now();
        let server = &mut self.servers[at];
        if self.groups.iter().any(|group| group.address.as_deref() == Some(server.address.as_str())) {
            return;
        }
        if server.complaints.is_due(now, what) {
            tracing::warn!(address = server.address, "{what}");
        }
        // Where nobody is followed yet, it is the reason.
        let (of, what) = (server.group, format!("{}: {what}", server.address));
        let is_of_all = self.is_redis_cluster() && !self.has_sight(now);
        let groups = self.groups.iter_mut().enumerate().filter(|(group, _)| is_of_all || *group == of);
        groups.for_each(|(_, group)| group.show_problem(&what));
    }

    pub(super) fn bus_listening(&mut self, at: usize, outcome: Result<Value, Lost>) {
        self.servers[at].is_listening = outcome.is_ok();
    }

    /// Servers whose bus can carry a group's publications, best first.
    pub(super) fn paths(&self, group: usize) -> Vec<usize> {
        let own = self.groups[group].address.as_deref();
        let can_carry = |server: &Server| server.is_listening && self.is_up(server.link) && !server.member.is_alias;
        let usable = self.servers.iter().enumerate().filter(|(_, server)| can_carry(server));
        let path = |(at, server): (usize, &Server)| Path {
            at,
            is_own: Some(server.address.as_str()) == own,
            is_primary: server.is_primary,
            is_of_group: server.is_of(group, own),
        };
        best_first(usable.map(path).collect())
    }

    /// Whether the group has a replica that is connected.
    pub(super) fn has_replicas(&self, group: usize) -> bool {
        let own = self.groups[group].address.as_deref();
        self.servers.iter().any(|server| {
            server.is_of(group, own)
                && Some(server.address.as_str()) != own
                && server.view.as_ref().is_some_and(|view| !view.is_primary)
        })
    }

    /// Sends what waits for the bus, one batch at a time.
    pub(super) fn pump_bus(&mut self, now: Duration, group: usize) {
        let this = &self.groups[group];
        let may = this.circuit.is_open()
            && this.bus.flight.is_none()
            && this.bus.again_at.is_none_or(|at| now >= at)
            && this.bus.allowance.may_send(now);
        if !may {
            return;
        }
        let ranges: [Option<RangeInclusive<u64>>; LANES] =
            std::array::from_fn(|lane| this.lanes[lane].lane.bus_batch(BATCH_MAX));
        if ranges.iter().all(Option::is_none) {
            return;
        }
        let paths = self.paths(group);
        let Some(path) = self.groups[group].bus.round.path(&paths) else {
            self.groups[group].bus.again_at = Some(now + AGAIN);
            return;
        };
        let mut batch = Batch::new(group);
        for (lane, range) in ranges.iter().enumerate() {
            let lane = &self.groups[group].lanes[lane].lane;
            for item in range.iter().flat_map(|range| range.clone()).filter_map(|number| lane.item(number)) {
                if !item.message.is_empty() {
                    batch.add(&item.topic, &item.aged(now));
                }
            }
        }
        let message = batch.finish();
        if self.publish_on_bus(path, Purpose::BusCount { group }, &message) {
            self.groups[group].bus.allowance.sent(now, message.len());
            self.groups[group].bus.flight = Some(Flight { path, ranges, sent_at: now });
        } else {
            self.groups[group].bus.round.failed(path, &paths);
            self.groups[group].bus.again_at = Some(now + AGAIN);
        }
    }

    /// Whether these may be published as far as the bus is concerned: see [`Allowance::has_room`].
    pub(super) fn bus_has_room(&mut self, now: Duration, publications: &[Publication], topics: &[Topic]) -> bool {
        if !self.slots.is_frozen() && self.groups.iter().all(|group| !group.circuit.is_open()) {
            return true;
        }
        for (publication, topic) in publications.iter().zip(topics) {
            let (app, slot) = (publication.app.as_str(), topic.slot());
            let group = self.group_of(slot);
            let group = &mut self.groups[group];
            if self.slots.bus_has_room(now, app, slot).unwrap_or_else(|| group.bus_has_room(now, app)) {
                continue;
            }
            // One fact, whichever app it is about: there may be many.
            const REFUSED: &str = "more is published than the bus carries: this app, of which much is waiting, is answered 503 \
                                   (backbone.bus_bytes_per_s)";
            if group.bus.complaints.is_due(now, REFUSED) {
                tracing::warn!(group = group.name, app, "{REFUSED}");
            }
            return false;
        }
        true
    }

    pub(super) fn bus_counted(&mut self, group: usize, outcome: Result<Value, Lost>) {
        let now = self.now();
        let Some(flight) = self.groups[group].bus.flight.take() else { return };
        let Ok(Value::Int(count)) = outcome else {
            self.groups[group].bus.flight = Some(flight);
            return self.bus_failed(group);
        };
        let (count, live) = (u64::try_from(count).unwrap_or(0), self.nodes.live_on_the_bus());
        let paths = self.paths(group);
        match self.groups[group].bus.round.counted(now, flight.path, count, live, &paths) {
            Outcome::Heard(count) => {
                self.groups[group].bus.again_at = None;
                self.groups[group].bus.allowance.heard(now);
                let starts = std::array::from_fn(|lane| flight.ranges[lane].as_ref().map(|range| *range.start()));
                for (lane, range) in flight.ranges.into_iter().enumerate() {
                    let Some(range) = range else { continue };
                    self.groups[group].lanes[lane].lane.set_bus_next(range.end() + 1);
                    self.accepted(group, lane, range, Replica::Has);
                }
                self.go_back(now, group, count, starts);
            }
            Outcome::Again if paths.len() < 2 => self.groups[group].bus.again_at = Some(now + AGAIN),
            Outcome::Again => {}
        }
    }

    /// When more hear the bus than a moment ago, they hear what went over it since then as well.
    fn go_back(&mut self, now: Duration, group: usize, count: u64, starts: [Option<u64>; LANES]) {
        let live = self.nodes.live_on_the_bus();
        let this = &mut self.groups[group];
        match this.bus.missed.passed(now, count, live, starts) {
            None => {}
            Some(Back::Recent) => {
                for side in &mut this.lanes {
                    side.lane.bus_back_to(now.saturating_sub(REWIND));
                }
            }
            Some(Back::To(numbers)) => {
                for (side, number) in this.lanes.iter_mut().zip(numbers) {
                    number.into_iter().for_each(|number| side.lane.bus_back(number));
                }
            }
        }
    }

    /// The path of the batch that is on its way has failed: it goes again over another.
    fn bus_failed(&mut self, group: usize) {
        let Some(flight) = self.groups[group].bus.flight.take() else { return };
        let paths = self.paths(group);
        self.groups[group].bus.round.failed(flight.path, &paths);
    }

    /// A message on some server's bus.
    pub(super) fn bus_heard(&mut self, message: &[u8]) {
        let now = self.now();
        match Bus::decode(message) {
            Some(Bus::Publications { items, .. }) => {
                for (topic, message) in items {
                    self.inheritance.heard(now, topic, message);
                    self.hear(topic, None, message, Duration::ZERO);
                }
            }
            Some(Bus::Deaf { group: tag }) => {
                let named = self.groups.iter().position(|group| bus::tag(&group.name) == tag);
                named.into_iter().for_each(|group| self.somebody_is_deaf(now, group));
            }
            Some(Bus::Alive { origin }) => self.nodes.alive(now, origin),
            Some(Bus::Gone { origin }) => self.nodes.gone(now, origin),
            None => tracing::debug!("a bus message that no version of ours sends"),
        }
    }

    pub(super) fn somebody_is_deaf(&mut self, now: Duration, group: usize) {
        if self.groups[group].circuit.deaf(now) {
            self.wind_back(now, group);
        }
    }

    /// Sends a message over a server's bus, whose answer says how many heard it. False where there is no connection.
    pub(super) fn publish_on_bus(&mut self, at: usize, purpose: Purpose, message: &[u8]) -> bool {
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.keys.bus(&self.servers[at].address)).arg(message);
        self.ask(self.servers[at].link, purpose, Ask::Command(command))
    }

    /// Says something to every node, over every server's bus.
    pub(super) fn say_on_bus(&mut self, message: &[u8]) {
        for at in 0..self.servers.len() {
            if !self.servers[at].is_listening || self.servers[at].member.is_alias {
                continue;
            }
            // A server that is gone is not the only one.
            let _: bool = self.publish_on_bus(at, Purpose::Ignored, message);
        }
    }

    pub(super) fn say_deaf(&mut self, group: usize) {
        self.say_on_bus(&bus::deaf(bus::tag(&self.groups[group].name)));
    }

    pub(super) fn say_gone(&mut self) {
        self.say_on_bus(&bus::gone(self.origin));
    }

    pub(super) fn say_alive(&mut self) {
        self.say_on_bus(&bus::alive(self.origin));
    }

    /// Asks every server who it is, and gives batches up that nobody counts.
    pub(super) fn look_around(&mut self, now: Duration) {
        for group in 0..self.groups.len() {
            if self.groups[group].bus.flight.as_ref().is_some_and(|flight| now >= flight.sent_at + ANSWER_MAX) {
                self.bus_failed(group);
            }
        }
        for at in 0..self.servers.len() {
            let server = &self.servers[at];
            let is_unnamed = now >= server.named_at + UNNAMED
                && self.groups.iter().all(|group| group.address.as_deref() != Some(server.address.as_str()));
            let may_leave = !self.sentinels.is_empty() || (self.is_redis_cluster() && !server.member.is_seed);
            if is_unnamed && server.link.is_some() && may_leave {
                let link = self.servers[at].link.take();
                self.close(link);
                self.servers[at].is_listening = false;
                self.servers[at].address.clear();
                continue;
            }
            let link = server.link;
            if server.view_asked_at.is_some_and(|asked| now < asked + self.view_every()) || !self.is_up(link) {
                continue;
            }
            self.servers[at].view_asked_at = Some(now);
            let is_asked = self.ask(link, Purpose::Role(at), Ask::Command(redis::cmd("ROLE")));
            if self.is_redis_cluster() {
                self.ask_view(at);
            } else if is_asked {
                let mut identity = redis::cmd("HMGET");
                identity.arg(self.keys.identity()).arg("id").arg("epoch");
                let _: bool = self.ask(link, Purpose::Identity(at), Ask::Command(identity));
            }
        }
        self.judge_sentinels(now);
        self.judge_owners(now);
    }

    pub(super) fn saw_role(&mut self, at: usize, outcome: Result<Value, Lost>) {
        if let Some(is_primary) = outcome.ok().as_ref().and_then(is_primary) {
            self.servers[at].is_primary = is_primary;
        }
    }

    pub(super) fn saw_identity(&mut self, at: usize, outcome: Result<Value, Lost>) {
        let now = self.now();
        let parts = match outcome {
            Ok(Value::Array(parts)) => parts,
            other => {
                self.servers[at].view = None;
                // What loads or has no primary says so for a while, and is no cause for alarm.
                if let Ok(Value::ServerError(error)) = other
                    && error.code() == "NOPERM"
                {
                    self.complain_of(at, &complaints::unusable("NOPERM", error.details().unwrap_or_default()));
                }
                return;
            }
        };
        let is_primary = self.servers[at].is_primary;
        self.servers[at].view = Some(ServerView { is_primary, identity: identity(&parts), seen_at: now });
    }
}

/// Identity and epoch, as a group's hash has them.
pub(super) fn identity(parts: &[Value]) -> Option<(String, u64)> {
    let text = |at: usize| match parts.get(at) {
        Some(Value::BulkString(text)) => std::str::from_utf8(text).ok(),
        _ => None,
    };
    let epoch = text(1).and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    text(0).map(|id| (id.to_owned(), epoch))
}
