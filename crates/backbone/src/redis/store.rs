//! The records of one group: turns what the hub asks into script calls on the group's command connection, and their answers
//! into what the hub is told.
//!
//! Pure: time comes in, commands go out, and whoever owns the connection carries them. What was said and not answered is said
//! again on the next connection; since everything said is absolute, that changes nothing the second time. The store keeps the
//! truth, which is what the scripts have acknowledged of this node's records, and holds the group to it: whatever else is
//! found there is damage, and mended without an edge.

mod again;
mod asks;
mod audit;
mod flight;
mod moving;
mod queue;
mod reap;
mod replies;
mod sweep;
mod truth;
pub(super) mod values;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashbrown::HashSet;
use redis::Cmd;

use self::again::Again;
use self::asks::{Ask, Asks};
use self::audit::Audit;
use self::flight::{Flight, Lane};
pub use self::moving::Moving;
use self::queue::{Message, Queue, Queued};
use self::reap::Leases;
use self::sweep::Sweep;
use self::truth::Truth;
use super::keys::Keys;
use super::records::{Call, Changed, Find, Found, Told};
pub use super::scripts::Facts;
use super::scripts::Script;
use super::topic::Topic;

/// A lease is renewed so often.
const BEAT: Duration = Duration::from_secs(1);
/// The same while nodes are looking after their records, so that everybody soon knows when they are done.
const BEAT_UNSETTLED: Duration = Duration::from_millis(300);
/// After a refusal, nothing is sent for so long.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// Questions from outside that wait for their turn; beyond it they are answered that the group cannot be asked now.
const FINDS_MAX: usize = 4_096;

/// Bounds and times of a store.
#[derive(Debug, Clone)]
pub struct StoreLimits {
    /// How long the log keeps an entry.
    pub log_age: Duration,
    /// Entries the log keeps at most.
    pub log_entries_max: u64,
    /// Entries that a part of the outbox keeps at most.
    pub outbox_part_max: u64,
    /// How long a lease is good for after it was seen to change.
    pub lease: Duration,
}

/// Commands to be sent on the command connection now, in this order, one behind the other.
#[derive(Debug)]
pub struct Outgoing {
    /// Names them in [`Store::replied`].
    pub ticket: u64,
    /// The commands.
    pub cmds: Vec<Cmd>,
}

/// What comes of an answer.
#[derive(Debug)]
pub enum Out {
    /// For the hub.
    Told(Told),
    /// The group is at this epoch, which is higher than the one it was attached at.
    Epoch(u64),
    /// The leases, once a second.
    Nodes(NodesSeen),
    /// The server would not do it. What was asked stays asked, and goes out again in 100 ms or on the next connection.
    Refused(Refusal),
    /// Others took this node for dead and removed its records. It has a lease again and joins everything anew, with edges.
    Reaped,
    /// This node has left in good order, see [`Store::leave`].
    Left,
}

/// Why a server did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It says something else of its slots than this node knows.
    OtherSlots,
    /// It does not know which group it is.
    NoIdentity,
    /// It is another group's.
    WrongGroup(String),
    /// It has not heard of the epoch we know: a primary of the past.
    StaleEpoch(u64),
    /// It is a replica.
    ReadOnly,
    /// It is loading its data.
    Loading,
    /// It is a replica without its primary.
    PrimaryDown,
    /// In Redis Cluster: the group's slot is not its own, or on the move.
    NotOwner,
    /// It is right, and lacks the replicas it wants for writing.
    NoReplicas,
    /// It is right, and full.
    Full,
    /// Anything else, by the first word of the error.
    Other(String),
}

/// The leases of a group.
#[derive(Debug, Clone)]
pub struct NodesSeen {
    /// The server's clock, in milliseconds since 1970.
    pub server_ms: u64,
    /// Every node with a lease, this one among them.
    pub nodes: Vec<NodeSeen>,
    /// Whether all of them have looked after their records since the epoch began and the last damage was found.
    pub is_settled: bool,
    /// Edges for webhooks that the group's outbox had no room for, since it exists.
    pub edges_dropped: u64,
}

/// A node as a group shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its name in keys.
    pub name: String,
    /// What it said of itself.
    pub lease: String,
    /// For how long that has not changed, by our own monotonic clock and only while the group was answering.
    pub unchanged_for: Duration,
}

/// How much a store has, and has done: for metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreState {
    /// Changes and messages that wait.
    pub queued: usize,
    /// Topics that the audit has found wrong, and mended.
    pub mended: u64,
    /// Times that the audit has compared everything.
    pub passes: u64,
    /// Keys that were nobody's, and removed.
    pub swept: u64,
    /// Edges for webhooks that a change of primary had lost, and that were left again.
    pub edges_again: u64,
}

/// How far an orderly end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// What waits is still done.
    Wanted,
    /// The records of slots below this have been taken away; -1 before the first.
    At(i64),
    Done,
}

/// A dead node whose records are being taken away.
#[derive(Debug)]
struct Reaping {
    node: String,
    /// The lease that was judged.
    lease: String,
    /// As in [`Leaving::At`].
    slot: i64,
}

/// What is sent and not answered.
#[derive(Debug)]
struct Sent {
    ticket: u64,
    at: Instant,
    flight: Flight,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Store {
    keys: Keys,
    node: String,
    limits: StoreLimits,
    lease: String,
    is_attached: bool,
    /// Raised with each connection, see `scripts/own.lua`.
    connection: u64,
    epoch: u64,
    /// Whether the group has our lease: what we say of ourselves counts only then.
    has_lease: bool,
    /// Whether anything has been heard since the group was attached: being without a lease is then nothing special.
    is_new: bool,
    is_settled: bool,
    /// Nodes that are known to live, this one among them.
    live: u64,
    beat_at: Option<Instant>,
    paused_until: Option<Instant>,
    next_ticket: u64,
    sent: Vec<Sent>,
    /// Scripts that the server does not know.
    unloaded: Vec<&'static Script>,
    queue: Queue,
    truth: Truth,
    again: Again,
    asks: Asks,
    audit: Audit,
    sweep: Sweep,
    leases: Leases,
    reapings: VecDeque<Reaping>,
    leaving: Leaving,
    /// Others have taken our records away: all is to be said anew.
    is_reaped: bool,
    /// What was sent last on a lane was upkeep: others first now.
    was_upkeep: [bool; 2],
    /// Nothing that writes is sent: slots are about to come or go.
    is_held: bool,
    /// Slots that this group has given away, or is about to: what lies there of them is none of our business.
    given: HashSet<u16>,
}

impl Store {
    /// A store of a node, by its name in keys, that is not attached to any server yet.
    #[must_use]
    pub fn new(now: Instant, keys: Keys, node: String, limits: StoreLimits) -> Self {
        Self {
            keys,
            node,
            limits,
            lease: String::new(),
            is_attached: false,
            connection: 0,
            epoch: 0,
            has_lease: false,
            is_new: true,
            is_settled: false,
            live: 1,
            beat_at: None,
            paused_until: None,
            next_ticket: 0,
            sent: Vec::new(),
            unloaded: Vec::new(),
            queue: Queue::new(),
            truth: Truth::new(),
            again: Again::new(),
            asks: Asks::default(),
            audit: Audit::new(now),
            sweep: Sweep::new(),
            leases: Leases::default(),
            reapings: VecDeque::new(),
            leaving: Leaving::No,
            is_reaped: false,
            was_upkeep: [false; 2],
            is_held: false,
            given: HashSet::new(),
        }
    }

    /// Takes what the hub asks. A [`Call::Find`] is answered at once while there is no server.
    pub fn call(&mut self, call: Call, outs: &mut Vec<Out>) {
        match call {
            Call::Change(change) if matches!(self.leaving, Leaving::At(_) | Leaving::Done) => {
                let outcome = Ok(Changed::default());
                outs.push(Out::Told(Told::Changed { token: change.token, outcome }));
            }
            Call::Change(change) => {
                self.audit.touch(&change.topic);
                self.queue.change(Queued::asked(change));
            }
            Call::Send { token, topic, message } => self.queue.send(Message { token, topic, message }),
            Call::Roster { token, topic } => self.asks.push(Ask::Roster(token, topic)),
            Call::Find { token, what } => {
                let is_nothing = matches!(&what, Find::Topics(topics) if topics.is_empty());
                if is_nothing {
                    let found = Some(Found::Totals { totals: Vec::new(), is_settled: false });
                    outs.push(Out::Told(Told::Found { token, found }));
                } else if !self.is_attached || self.asks.finds() >= FINDS_MAX {
                    outs.push(Out::Told(Told::Found { token, found: None }));
                } else {
                    self.asks.push(Ask::find(token, what));
                }
            }
        }
    }

    /// What this node's lease says from now on. Must differ each time: a lease that does not change is one that lapses.
    pub fn set_lease(&mut self, lease: String) {
        self.lease = lease;
    }

    /// Nodes that are known to live otherwise than by the group's leases, this one among them.
    pub fn set_live(&mut self, nodes: u64) {
        self.live = nodes;
    }

    /// The connection or the primary is gone. What was not answered is asked again after [`Store::attached`].
    pub fn lost(&mut self, outs: &mut Vec<Out>) {
        self.is_attached = false;
        let mut sent = std::mem::take(&mut self.sent);
        // Last sent, first put back: the order in the queue stays.
        while let Some(Sent { flight, .. }) = sent.pop() {
            self.put_back(flight);
        }
        let unanswered = self.asks.take_finds();
        outs.extend(unanswered.into_iter().map(|token| Out::Told(Told::Found { token, found: None })));
        self.leases.start_over();
        self.reapings.clear();
        if let Leaving::At(_) = self.leaving {
            self.leaving = Leaving::At(-1);
        }
    }

    /// A primary is believed from now on at this epoch; over a new connection, unless [`Store::lost`] was not called before.
    pub fn attached(&mut self, now: Instant, epoch: u64) {
        if !self.is_attached {
            self.is_attached = true;
            self.connection += 1;
            self.has_lease = false;
        }
        self.epoch = self.epoch.max(epoch);
        self.is_new = true;
        self.is_settled = false;
        self.beat_at = None;
        self.paused_until = None;
        self.leases.start_over();
        self.reapings.clear();
        self.sweep.start_over();
        self.audit.start_over(now);
        self.again.doubt(now);
    }

    /// A notice of damage that another node published on [`Keys::pulse`]: the whole text, which begins with `D`.
    pub fn doubt(&mut self, now: Instant, text: &str, outs: &mut Vec<Out>) {
        let Some((node, about)) = text.strip_prefix('D').and_then(|text| text.split_once(' ')) else { return };
        if node != self.node {
            self.audit.want(now);
            let topic = (about != "*").then(|| Topic::parse(about));
            match topic {
                Some(Some(topic)) => outs.push(Out::Told(Told::Doubtful(Some(topic)))),
                // A text that is no topic was nobody's.
                Some(None) => {}
                None => outs.push(Out::Told(Told::Doubtful(None))),
            }
        }
    }

    /// Nodes that are dead as far as this group can tell: their leases have lapsed while it was answering, and it has been for
    /// long enough. Whether they are alive elsewhere is for the caller to judge.
    #[must_use]
    pub fn lapsed(&self, now: Instant) -> Vec<String> {
        if !self.is_attached {
            return Vec::new();
        }
        self.leases.lapsed(now, &self.node, self.limits.lease)
    }

    /// Takes the records of a dead node away, in paced steps and with edges. Comes to nothing where it has renewed its lease.
    pub fn reap(&mut self, node: &str) {
        let is_known = self.reapings.iter().any(|reaping| reaping.node == node);
        if let Some(lease) = self.leases.text(node).filter(|_| !is_known && node != self.node) {
            self.reapings.push_back(Reaping { node: node.to_owned(), lease: lease.to_owned(), slot: -1 });
        }
    }

    /// An orderly end: does what waits, then takes this node's own records away, in steps and with edges, and then its lease.
    /// Changes that are asked later are answered and not made. Ends with [`Out::Left`].
    pub fn leave(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Wanted;
        }
    }

    /// How things are.
    #[must_use]
    pub fn state(&self) -> StoreState {
        let (mended, passes) = (self.audit.mended, self.audit.passes);
        StoreState { queued: self.queue.len(), mended, passes, swept: self.sweep.swept, edges_again: self.again.edges }
    }

    /// When [`Store::next`] may have something that it has not now.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.is_attached {
            return None;
        }
        if let Some(until) = self.paused_until {
            return Some(until);
        }
        let beat = self.beat_at.filter(|_| self.is_free(Lane::Beat) && self.is_beating());
        let is_looking = self.is_free(Lane::Read) && self.has_lease && self.is_beating();
        let audit = self.audit.deadline().filter(|_| is_looking);
        let sweep = self.sweep.due.filter(|_| is_looking && self.sweep.has_more());
        [beat, audit, sweep].into_iter().flatten().min()
    }

    /// Whether a lane has nothing on its way.
    fn is_free(&self, lane: Lane) -> bool {
        !self.sent.iter().any(|sent| sent.flight.lane() == lane)
    }

    /// Whether the lease is to be renewed.
    fn is_beating(&self) -> bool {
        matches!(self.leaving, Leaving::No | Leaving::Wanted) && !self.lease.is_empty()
    }
}
