//! The nodes of the deployment as this one sees them: by their leases in every group, and by signs of life on the bus.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use tokio::sync::oneshot;

use super::Driver;
use super::attach::Group;
use crate::redis::lease::{self, Lease};
use crate::redis::millis;
use crate::redis::store::NodesSeen;

/// How often a lease is renewed; the store beats once a second by itself.
const LEASE_EVERY: Duration = Duration::from_millis(500);
/// How often a sign of life is given on the bus.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// Longest an orderly end waits for the records to be taken away.
const LEAVE_MAX: Duration = Duration::from_secs(3);
/// Longest it waits before, for users to be elsewhere.
const LEAVING: Duration = Duration::from_secs(5);

/// Who is there.
pub(super) struct Nodes {
    /// By group: leases that had changed within the lease's time when the group was last looked at.
    leases: Vec<Vec<Lease>>,
    alive: HashMap<u64, Duration>,
    live: u64,
    /// Leases were read, so that `live` is more than this node's word about itself.
    is_known: bool,
    counter: u64,
    renewed_at: Option<Duration>,
    said_alive_at: Option<Duration>,
    reaping: HashMap<String, Duration>,
    /// Those that said that they go, and when.
    going: HashMap<u64, Duration>,
}

impl Nodes {
    pub(super) fn new(groups: usize) -> Self {
        Self {
            leases: vec![Vec::new(); groups],
            alive: HashMap::new(),
            live: 1,
            is_known: false,
            counter: 0,
            renewed_at: None,
            said_alive_at: None,
            reaping: HashMap::new(),
            going: HashMap::new(),
        }
    }

    pub(super) fn add_group(&mut self) {
        self.leases.push(Vec::new());
    }

    pub(super) fn leave_group(&mut self, group: usize) {
        self.leases[group].clear();
    }

    /// Nodes that may hear the bus; at least this one.
    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// How many must have heard the bus before what went over it counts as heard by all. A node that has read no lease knows of
    /// nobody, and does not take itself for the only one: it may have been given the wrong server, with everybody else elsewhere.
    pub(super) fn live_on_the_bus(&self) -> u64 {
        if self.is_known { self.live } else { self.live.max(2) }
    }

    pub(super) fn alive(&mut self, now: Duration, origin: u64) {
        self.alive.insert(origin, now);
    }

    /// It has said that it goes.
    pub(super) fn gone(&mut self, now: Duration, origin: u64) {
        self.alive.remove(&origin);
        self.going.entry(origin).or_insert(now);
    }
}

impl Driver {
    pub(super) fn saw_nodes(&mut self, group: usize, seen: NodesSeen) {
        self.saw_edges_dropped(group, seen.edges_dropped);
        let lease = self.settings.limits.lease;
        let live = seen.nodes.iter().filter(|node| node.unchanged_for < lease);
        self.nodes.leases[group] = live.filter_map(|node| Lease::parse(&node.name, &node.lease)).collect();
        let mut names: Vec<&str> = self.leases().map(|lease| lease.node.as_str()).collect();
        names.push(&self.node);
        names.sort_unstable();
        names.dedup();
        (self.nodes.live, self.nodes.is_known) = (names.len() as u64, true);
        self.shared.live_nodes.store(self.nodes.live, Ordering::Relaxed);
        self.show_leases();
    }

    /// Leases in the groups that answer; another's are from before it went away. Where none answers, those that were read last.
    fn leases(&self) -> impl Iterator<Item = &Lease> {
        let is_here = |group: &Group| group.attached.is_some();
        let any_is_here = self.groups.iter().any(is_here);
        let known = self.nodes.leases.iter().zip(&self.groups);
        known.filter(move |(_, group)| is_here(group) || !any_is_here).flat_map(|(leases, _)| leases)
    }

    fn saw_edges_dropped(&mut self, group: usize, dropped: u64) {
        let now = self.now();
        let this = &mut self.groups[group];
        if dropped > std::mem::replace(&mut this.edges_dropped, dropped) {
            this.complain(
                now,
                "the outbox has no room: webhooks are dropped, since no node with the role webhooks works it or its \
                 endpoints take less than happens (backbone.outbox_entries_max; how many, shows `fulmar status`)",
            );
        }
    }

    /// Whether every live node hears the group's primary in this epoch.
    pub(super) fn all_are_attached(&self, group: usize) -> bool {
        let this = &self.groups[group];
        let others = self.nodes.leases[group].iter().filter(|lease| lease.node != self.node);
        self.hears(group) && others.map(|lease| lease.attached(&this.name)).all(|epoch| epoch >= this.epoch)
    }

    pub(super) fn time_nodes(&mut self, now: Duration) {
        self.leave_groups();
        if self.nodes.renewed_at.is_none_or(|at| now >= at + LEASE_EVERY) {
            self.nodes.renewed_at = Some(now);
            self.renew();
        }
        if self.nodes.said_alive_at.is_none_or(|at| now >= at + ALIVE_EVERY) {
            self.nodes.said_alive_at = Some(now);
            if self.stopping.is_none() {
                self.say_alive();
            }
            self.look_for_dead(now);
        }
    }

    fn renew(&mut self) {
        self.nodes.counter += 1;
        let attached = (0..self.groups.len())
            .filter(|group| self.hears(*group))
            .map(|group| (self.groups[group].name.clone(), self.groups[group].epoch))
            .collect();
        let connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lease = Lease {
            node: self.node.clone(),
            counter: self.nodes.counter,
            advertise: self.settings.advertise.clone(),
            roles: self.settings.roles,
            attached,
            map: self.map_told(),
            connections: connections.into_iter().collect(),
            about: self.shared.about.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            clock_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        };
        let text = lease.text();
        for group in &mut self.groups {
            group.store.set_lease(text.clone());
        }
    }

    /// A node is dead when its lease has lapsed in every group that answers, and nothing was heard of it on the bus.
    fn look_for_dead(&mut self, now: Duration) {
        let lease = self.settings.limits.lease;
        self.nodes.alive.retain(|_, at| now < *at + lease);
        let others = self.nodes.alive.keys().filter(|origin| **origin != self.origin).count() as u64;
        for group in &mut self.groups {
            group.store.set_live(1 + others);
        }
        self.nodes.reaping.retain(|_, at| now < *at + lease);
        // By then it has ended, and what it could not append before that is left.
        let ended = self.nodes.going.extract_if(|_, at| now >= *at + LEAVING + LEAVE_MAX).collect::<Vec<_>>();
        for (origin, _) in ended {
            self.inherit(&lease::name_of(origin), origin);
        }
        let answering: Vec<usize> =
            (0..self.groups.len()).filter(|group| self.groups[*group].attached.is_some()).collect();
        let of_group = |group: &usize| self.groups[*group].store.lapsed(Instant::now());
        let lapsed: BTreeSet<String> = answering.iter().flat_map(of_group).collect();
        for node in lapsed {
            let origin = lease::origin(&node).unwrap_or(0);
            let lives_elsewhere = self.leases().any(|lease| lease.node == node);
            if lives_elsewhere || self.nodes.alive.contains_key(&origin) || self.nodes.reaping.contains_key(&node) {
                continue;
            }
            tracing::warn!(
                node,
                "this node is dead: its lease lapsed and nothing is heard of it; its presence is taken away"
            );
            self.nodes.reaping.insert(node.clone(), now);
            self.inherit(&node, origin);
            for group in &answering {
                self.groups[*group].store.reap(&node);
            }
        }
    }

    /// The node's sockets are about to go to others, if there are any.
    pub(super) fn drain(&mut self) {
        if self.nodes.live() > 1 {
            self.hub.drain();
        }
    }

    /// Takes this node's records away, once nobody is expected elsewhere any more, and ends.
    pub(super) fn leave(&mut self, done: oneshot::Sender<()>) {
        self.say_gone();
        self.stopping = Some((done, self.now() + LEAVING + LEAVE_MAX));
        self.leave_groups();
    }

    fn leave_groups(&mut self) {
        if self.stopping.is_none() || self.hub.has_leaving(self.moment()) {
            return;
        }
        for group in self.groups.iter_mut().filter(|group| !group.is_leaving) {
            group.is_leaving = true;
            group.store.leave();
        }
    }

    fn show_leases(&self) {
        let mut leases: Vec<Lease> = Vec::new();
        for lease in self.leases() {
            match leases.iter_mut().find(|known| known.node == lease.node) {
                Some(known) if known.counter >= lease.counter => {}
                Some(known) => *known = lease.clone(),
                None => leases.push(lease.clone()),
            }
        }
        *self.shared.leases.lock().unwrap_or_else(PoisonError::into_inner) = leases;
    }

    pub(super) fn show_figures(&self) {
        let groups = self.groups.iter().enumerate().map(|(at, group)| {
            let state = group.store.state();
            crate::redis::GroupFigures {
                name: group.name.clone(),
                address: group.address.clone(),
                is_here: group.attached.is_some(),
                problem: group.problem.clone().filter(|_| group.attached.is_none()),
                is_left: group.is_left,
                hears: self.hears(at),
                epoch: group.epoch,
                over_the_bus: group.circuit.is_open(),
                circuit_openings: group.circuit.openings(),
                bus_waits_ms: millis(group.bus_age(self.now())),
                unlogged_bytes: group.lanes.iter().map(|side| side.lane.unlogged_bytes()).sum(),
                filled: group.hearing.filled,
                gaps: group.hearing.gaps,
                comparisons: state.passes,
                mended: state.mended,
                swept: state.swept,
                edges_dropped: group.edges_dropped,
            }
        });
        let figures = crate::redis::Figures {
            live_nodes: self.nodes.live(),
            accepted: self.calls.accepted,
            refused: self.calls.refused,
            timed_out: self.calls.timed_out,
            without_replica: self.calls.unwaited,
            repeats: self.seen.repeats(),
            holes: self.order.holes(),
            hub: self.hub.figures(),
            groups: groups.collect(),
        };
        *self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }
}
