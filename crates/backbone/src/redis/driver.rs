//! The loop that owns everything of a node's Redis backbone.
//!
//! One thread, one loop, no locks: it takes what workers and HTTP threads ask and what connections say, lets the pure parts
//! decide (`hub`, `store`, `lane`, `circuit`, `round`, `belief`, `seen`), and hands commands to [`Link`]s. Nothing in here waits:
//! whatever takes time is a ticket whose answer comes back as an event. It decides nothing that could be decided in a pure
//! part; what is here is who is told what, and when.

mod attach;
mod bus;
mod calls;
mod complaints;
mod fill;
mod frozen;
mod hear;
mod listen;
mod nodes;
mod publish;
mod redis_cluster;
mod sentinels;
mod slots;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Publication, Question};
use fulmar_protocol::name::UserId;
use hashbrown::HashMap;
use redis::Value;
use tokio::sync::{mpsc, oneshot};

use self::attach::Group;
use self::bus::Server;
use self::calls::Calls;
use self::nodes::Nodes;
use self::publish::LaneSide;
use self::redis_cluster::MemberAsked;
use self::sentinels::Sentinel;
pub(super) use self::slots::Routes;
use self::slots::Slots;
use super::hub::{self, Hub, HubSettings, Moment};
use super::inheritance::Inheritance;
use super::keys::Keys;
use super::link::{Ask, Event, Greeting, Happening, Link, LinkId, Lost};
use super::order::Order;
use super::records::Token;
use super::seen::Seen;
use super::settings::{Settings, Topology};
use super::topic::Topic;
use super::{lease, millis, store};
use crate::{Inbox, Outbox, PublishError, Query, Reply, Terms, Unavailable, WorkerId};

/// Longest time between two looks at the clock.
const TICK: Duration = Duration::from_millis(20);
/// The same while an answer is awaited whose absence has consequences.
const TICK_BUSY: Duration = Duration::from_millis(5);
/// Events handled before the machines are pumped and time is looked at again.
const TURN_MAX: usize = 512;

/// What other threads want of the loop.
pub(super) enum Work {
    Attach(WorkerId, Arc<dyn Inbox>),
    Ask(WorkerId, Question),
    Publish { publications: Vec<Publication>, terms: Terms, reply: oneshot::Sender<Result<(), PublishError>> },
    Terminate { app: AppId, user: UserId, reply: oneshot::Sender<()> },
    Query { query: Query, reply: oneshot::Sender<Result<Reply, Unavailable>> },
    Drain,
    Stop(oneshot::Sender<()>),
}

/// What the loop shows to other threads.
#[derive(Default)]
pub(super) struct Shared {
    /// Publications that wait for the loop's turn.
    pub(super) queued: AtomicUsize,
    /// Live nodes as this one sees them.
    pub(super) live_nodes: AtomicU64,
    /// See [`super::Figures`].
    pub(super) figures: std::sync::Mutex<super::Figures>,
    /// Who is followed, per group; see [`super::primaries`].
    pub(super) primaries: std::sync::Mutex<Vec<Option<super::primaries::Primary>>>,
    /// What other nodes say of themselves, by name.
    pub(super) leases: std::sync::Mutex<Vec<super::lease::Lease>>,
    /// Connections of this node per app, for its lease.
    pub(super) connections: std::sync::Mutex<HashMap<String, u64>>,
    /// What this node says of itself, likewise.
    pub(super) about: std::sync::Mutex<super::lease::About>,
}

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Scripts of the records, fills and heartbeats of a group.
    Command(usize),
    /// Publishing to a group, by lane and pipe.
    Lane(usize, usize, usize),
    /// Subscriptions on a group's primary.
    Listen(usize),
    /// Subscriptions on the primary before this one.
    Old(usize),
    /// The bus of a server, and what it says of itself.
    Bus(usize),
    /// A Sentinel.
    Sentinel(usize),
}

/// What an answer is for.
enum Purpose {
    Attach(usize),
    Load,
    Script { group: usize, lane: usize, sent: u64 },
    Wait { group: usize, lane: usize, pipe: usize, sent: u64 },
    Store { group: usize, ticket: u64, at: usize },
    Followed { group: usize, topics: Vec<Topic>, is_pulse: bool },
    Ignored,
    Pulse(usize),
    Slots(usize),
    Fill { group: usize, reading: u64 },
    BusListening(usize),
    BusCount { group: usize },
    FrozenCount,
    Role(usize),
    Identity(usize),
    Primary { sentinel: usize, group: usize },
    Replicas { sentinel: usize, group: usize },
    Member(usize, MemberAsked),
}

pub(super) struct Driver {
    settings: Settings,
    keys: Keys,
    origin: u64,
    node: String,
    greeting: Greeting,
    sentinel_greeting: Greeting,
    started: Instant,
    events: mpsc::UnboundedReceiver<Event>,
    events_in: mpsc::UnboundedSender<Event>,
    links: HashMap<LinkId, (Link, Place)>,
    links_made: u32,
    /// What is asked, by ticket, and over which link.
    asked: HashMap<u64, (LinkId, Purpose)>,
    tickets: u64,
    groups: Vec<Group>,
    servers: Vec<Server>,
    sentinels: Vec<Sentinel>,
    nodes: Nodes,
    slots: Slots,
    hub: Hub,
    outs: Vec<hub::Out>,
    seen: Seen,
    order: Order,
    inheritance: Inheritance,
    calls: Calls,
    terminations: HashMap<Token, oneshot::Sender<()>>,
    queries: HashMap<Token, oneshot::Sender<Result<Reply, Unavailable>>>,
    outbox: Option<Arc<dyn Outbox>>,
    shared: Arc<Shared>,
    stopping: Option<(oneshot::Sender<()>, Duration)>,
    swept_at: Duration,
}

impl Driver {
    pub(super) fn new(
        settings: Settings,
        origin: u64,
        outbox: Option<Arc<dyn Outbox>>,
        greetings: (Greeting, Greeting),
        shared: Arc<Shared>,
    ) -> Self {
        let (events_in, events) = mpsc::unbounded_channel();
        let keys = Keys::new(&settings.deployment);
        let node = lease::name_of(origin);
        let names = settings.topology.groups();
        let count = names.len();
        let slots = Slots::new(&names, settings.limits.bus_bytes_per_s);
        let (routes, frozen) = (slots.routes().clone(), slots.routes().clone());
        let hub = Hub::new(HubSettings {
            origin,
            groups: count,
            group_of: Box::new(move |slot| routes.get(slot)),
            is_frozen: Box::new(move |slot| frozen.is_frozen(slot)),
            linger: settings.limits.interest_linger,
            outbox: outbox.clone(),
        });
        let groups = names.iter().map(|name| Group::new(name, &node, &settings)).collect();
        Self {
            keys,
            origin,
            node,
            greeting: greetings.0,
            sentinel_greeting: greetings.1,
            started: Instant::now(),
            events,
            events_in,
            links: HashMap::new(),
            links_made: 0,
            asked: HashMap::new(),
            tickets: 0,
            groups,
            servers: Vec::new(),
            sentinels: Vec::new(),
            nodes: Nodes::new(count),
            slots,
            hub,
            outs: Vec::new(),
            seen: Seen::default(),
            order: Order::default(),
            inheritance: Inheritance::new(origin),
            calls: Calls::default(),
            terminations: HashMap::new(),
            queries: HashMap::new(),
            outbox,
            shared,
            stopping: None,
            swept_at: Duration::ZERO,
            settings,
        }
    }

    /// Runs until it is told to stop.
    pub(super) async fn run(mut self, mut works: mpsc::UnboundedReceiver<Work>) {
        self.start();
        loop {
            let pause = if self.is_awaiting() { TICK_BUSY } else { TICK };
            tokio::select! {
                biased;
                event = self.events.recv() => if let Some(event) = event { self.happened(event) },
                work = works.recv() => match work {
                    Some(work) => self.take(work),
                    None => return,
                },
                () = tokio::time::sleep(pause) => {}
            }
            for _ in 0..TURN_MAX {
                let Ok(event) = self.events.try_recv() else { break };
                self.happened(event);
            }
            for _ in 0..TURN_MAX {
                let Ok(work) = works.try_recv() else { break };
                self.take(work);
            }
            self.turn();
            if self.has_stopped() {
                return;
            }
        }
    }

    fn start(&mut self) {
        match self.settings.topology.clone() {
            Topology::Single(address) => {
                self.serve(0, &address);
                self.follow(0, &address, true);
            }
            Topology::Sentinel { sentinels, .. } => self.watch(&sentinels),
            Topology::RedisCluster { seeds, .. } => self.meet_seeds(&seeds),
        }
    }

    /// The end of a turn: whatever has gathered leaves.
    fn turn(&mut self) {
        let now = self.now();
        self.tick(now);
        let moment = self.moment();
        if self.hub.next_deadline().is_some_and(|at| at <= moment.ms) {
            let mut outs = std::mem::take(&mut self.outs);
            self.hub.tick(moment, &mut outs);
            self.outs = outs;
        }
        self.perform();
        self.regroup();
        self.pump_frozen(now);
        for group in 0..self.groups.len() {
            self.pump(now, group);
        }
        self.perform();
    }

    /// Time passed.
    fn tick(&mut self, now: Duration) {
        self.time_calls(now);
        self.time_order(now);
        self.look_around(now);
        for group in 0..self.groups.len() {
            self.time_lanes(now, group);
            self.time_listening(now, group);
            self.time_attaching(now, group);
            self.time_slots(now, group);
        }
        self.time_nodes(now);
        if now >= self.swept_at + Duration::from_secs(2) {
            self.swept_at = now;
            self.seen.sweep(now);
            self.inheritance.sweep(now);
            self.calls.sweep(now);
            self.groups.iter_mut().for_each(|group| group.bus.allowance.sweep(now));
            self.slots.bus.allowance.sweep(now);
            self.show_figures();
        }
    }

    fn is_awaiting(&self) -> bool {
        self.slots.is_frozen() || !self.order.is_empty() || self.groups.iter().any(Group::is_awaiting)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn moment(&self) -> Moment {
        Moment { ms: millis(self.now()), wall_us: wall_us() }
    }

    fn take(&mut self, work: Work) {
        let moment = self.moment();
        let mut outs = std::mem::take(&mut self.outs);
        match work {
            Work::Attach(worker, inbox) => self.hub.attach(worker, inbox),
            Work::Ask(worker, question) => self.hub.ask(moment, worker, question, &mut outs),
            Work::Publish { publications, terms, reply } => {
                self.shared.queued.fetch_sub(publications.len(), Ordering::Relaxed);
                self.accept(publications, terms, Some(reply));
            }
            Work::Terminate { app, user, reply } => {
                let token = self.hub.terminate(moment, &app, &user, &mut outs);
                self.terminations.insert(token, reply);
            }
            Work::Query { query, reply } => {
                let token = self.hub.query(moment, query, &mut outs);
                self.queries.insert(token, reply);
            }
            Work::Drain => self.drain(),
            Work::Stop(done) => self.leave(done),
        }
        self.outs = outs;
    }

    /// Does what the hub wants done.
    fn perform(&mut self) {
        while !self.outs.is_empty() {
            for out in std::mem::take(&mut self.outs) {
                match out {
                    hub::Out::Follow(topic) => self.follow_topic(topic),
                    hub::Out::Unfollow(topic) => self.unfollow_topic(&topic),
                    hub::Out::Call { to, call } => self.call(to, call),
                    hub::Out::Publish(publication) => self.accept_client_event(publication),
                    hub::Out::Terminated(token) => {
                        if let Some(reply) = self.terminations.remove(&token) {
                            // Whoever asked may have gone.
                            let _: Result<(), ()> = reply.send(());
                        }
                    }
                    hub::Out::Reply(token, answer) => {
                        if let Some(reply) = self.queries.remove(&token) {
                            let _: Result<(), _> = reply.send(answer);
                        }
                    }
                }
            }
        }
    }

    /// What a group's records answered or found.
    fn stored(&mut self, group: usize, outs: Vec<store::Out>) {
        for out in outs {
            match out {
                store::Out::Told(told) => {
                    let moment = self.moment();
                    let mut outs = std::mem::take(&mut self.outs);
                    self.hub.told(moment, group, told, &mut outs);
                    self.outs = outs;
                }
                store::Out::Epoch(epoch) => self.learn_epoch(group, epoch),
                store::Out::Nodes(seen) => self.saw_nodes(group, seen),
                store::Out::Refused(refusal) => self.records_refused(group, &refusal),
                store::Out::Reaped => {
                    tracing::warn!(group = self.groups[group].name, "others took this node for dead; it joins anew");
                }
                store::Out::Left => self.groups[group].has_left = true,
            }
        }
    }

    fn happened(&mut self, (id, happening): Event) {
        let Some((link, place)) = self.links.get_mut(&id) else { return };
        link.note(&happening);
        let place = *place;
        match happening {
            Happening::Up { server, .. } => match place {
                Place::Command(group) => self.command_up(group, server),
                Place::Lane(group, lane, pipe) => self.lane_up(group, lane, pipe, server),
                Place::Listen(group) => self.listen_up(group, server),
                Place::Old(_) => {}
                Place::Bus(at) => self.bus_up(at, server),
                Place::Sentinel(at) => self.sentinel_up(at),
            },
            Happening::Down { why } => match place {
                Place::Command(group) => self.command_down(group, &why),
                Place::Lane(group, lane, pipe) => self.lane_down(group, lane, pipe),
                Place::Listen(group) => self.listen_down(group, &why),
                Place::Old(group) => self.close_old(group),
                Place::Bus(at) => self.bus_down(at, &why),
                Place::Sentinel(at) => self.sentinel_down(at, &why),
            },
            Happening::Reply { ticket, outcome } => {
                if let Some((_, purpose)) = self.asked.remove(&ticket) {
                    self.answered(purpose, outcome);
                }
            }
            Happening::Pushed { channel, message } => {
                let (Value::BulkString(channel), Value::BulkString(message)) = (channel, message) else { return };
                match place {
                    Place::Listen(group) => self.pushed(group, true, &channel, message),
                    Place::Old(group) => self.pushed(group, false, &channel, message),
                    Place::Bus(_) => self.bus_heard(&message),
                    Place::Sentinel(at) => self.hinted(at),
                    Place::Command(_) | Place::Lane(..) => {}
                }
            }
        }
    }

    fn answered(&mut self, purpose: Purpose, outcome: Result<Value, Lost>) {
        match purpose {
            Purpose::Attach(group) => self.attach_answered(group, outcome),
            Purpose::Load | Purpose::Ignored => {}
            Purpose::Script { group, lane, sent } => self.script_answered(group, lane, sent, outcome),
            Purpose::Wait { group, lane, pipe, sent } => self.wait_answered(group, lane, (pipe, sent), outcome),
            Purpose::Store { group, ticket, at } => self.store_answered(group, ticket, at, outcome),
            Purpose::Followed { group, topics, is_pulse } => self.followed(group, topics, is_pulse, outcome),
            Purpose::Slots(group) => self.slots_answered(group, outcome),
            Purpose::Pulse(group) => self.pulse_answered(group, outcome),
            Purpose::Fill { group, reading } => self.filled(group, reading, outcome),
            Purpose::BusListening(at) => self.bus_listening(at, outcome),
            Purpose::BusCount { group } => self.bus_counted(group, outcome),
            Purpose::FrozenCount => self.frozen_counted(outcome),
            Purpose::Role(at) => self.saw_role(at, outcome),
            Purpose::Identity(at) => self.saw_identity(at, outcome),
            Purpose::Primary { sentinel, group } => self.saw_primary(sentinel, group, outcome),
            Purpose::Replicas { sentinel, group } => self.saw_replicas(sentinel, group, outcome),
            Purpose::Member(at, asked) => self.member_answered(at, asked, outcome),
        }
    }

    /// Opens a link and remembers what it is for.
    fn open(&mut self, place: Place, address: &str) -> LinkId {
        self.links_made += 1;
        let id = LinkId(self.links_made);
        let greeting = match place {
            Place::Sentinel(_) => &self.sentinel_greeting,
            _ => &self.greeting,
        };
        let pushes_max = self.settings.limits.pushes_max;
        let link = Link::open(id, address, greeting, pushes_max, self.events_in.clone());
        self.links.insert(id, (link, place));
        id
    }

    /// Nobody answers what was asked over it any more.
    fn close(&mut self, id: Option<LinkId>) {
        if let Some(id) = id {
            self.links.remove(&id);
            self.asked.retain(|_, (over, _)| *over != id);
        }
    }

    fn is_up(&self, id: Option<LinkId>) -> bool {
        id.and_then(|id| self.links.get(&id)).is_some_and(|(link, _)| link.is_up())
    }

    fn reset(&self, id: Option<LinkId>) {
        if let Some((link, _)) = id.and_then(|id| self.links.get(&id)) {
            link.reset();
        }
    }

    /// Asks over a link; false when it is not up.
    fn ask(&mut self, id: Option<LinkId>, purpose: Purpose, ask: Ask) -> bool {
        let Some(id) = id else { return false };
        let Some((link, _)) = self.links.get(&id) else { return false };
        self.tickets += 1;
        let is_asked = link.ask(self.tickets, ask);
        if is_asked {
            self.asked.insert(self.tickets, (id, purpose));
        }
        is_asked
    }
}

fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
