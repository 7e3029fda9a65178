//! The records of one group: turns what the hub asks into script calls on the group's command connection, and their answers
//! into what the hub is told.
//!
//! Pure: time comes in, commands go out, and whoever owns the connection carries them. What was said and not answered is said
//! again on the next connection; since everything said is absolute, that changes nothing the second time. The store keeps the
//! truth, which is what the scripts have acknowledged of this node's records, and holds the group to it: whatever else is
//! found there is damage, and mended without an edge.

use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::keys::Keys;
use super::records::{Call, Told};
pub use super::scripts::Facts;

/// Bounds and times of a store.
#[derive(Debug, Clone)]
pub struct StoreLimits {
    /// How long the log keeps an entry.
    pub log_age: Duration,
    /// Entries the log keeps at most.
    pub log_entries_max: u64,
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

/// See the head of this file.
#[derive(Debug)]
pub struct Store {
    keys: Keys,
    node: String,
    limits: StoreLimits,
}

impl Store {
    /// A store of a node, by its name in keys, that is not attached to any server yet.
    #[must_use]
    pub fn new(keys: Keys, node: String, limits: StoreLimits) -> Self {
        Self { keys, node, limits }
    }

    /// Takes what the hub asks. A [`Call::Find`] is answered at once while there is no server.
    pub fn call(&mut self, now: Instant, call: Call, outs: &mut Vec<Out>) {
        let _ = (now, call, outs);
    }

    /// What this node's lease says from now on. Must differ each time: a lease that does not change is one that lapses.
    pub fn set_lease(&mut self, lease: String) {
        let _ = lease;
    }

    /// What to send now; to be called until it answers `None`, after every other call.
    pub fn next(&mut self, now: Instant, facts: &Facts) -> Option<Outgoing> {
        let _ = (now, facts, &self.keys, &self.node, &self.limits);
        None
    }

    /// Takes the answers to commands, one for each, errors as [`Value::ServerError`].
    pub fn replied(&mut self, now: Instant, ticket: u64, replies: Vec<Value>, outs: &mut Vec<Out>) {
        let _ = (now, ticket, replies, outs);
    }

    /// The connection or the primary is gone. What was not answered is asked again after [`Store::attached`].
    pub fn lost(&mut self, now: Instant, outs: &mut Vec<Out>) {
        let _ = (now, outs);
    }

    /// A primary is believed from now on, over a new connection, at this epoch.
    pub fn attached(&mut self, now: Instant, epoch: u64, outs: &mut Vec<Out>) {
        let _ = (now, epoch, outs);
    }

    /// A notice of damage that another node published on [`Keys::pulse`]: the whole text, which begins with `D`.
    pub fn doubt(&mut self, now: Instant, text: &str, outs: &mut Vec<Out>) {
        let _ = (now, text, outs);
    }

    /// Nodes that are dead as far as this group can tell: their leases have lapsed while it was answering, and it has been for
    /// long enough. Whether they are alive elsewhere is for the caller to judge.
    #[must_use]
    pub fn lapsed(&self, now: Instant) -> Vec<String> {
        let _ = now;
        Vec::new()
    }

    /// Takes the records of a dead node away, in paced steps and with edges. Comes to nothing where it has renewed its lease.
    pub fn reap(&mut self, now: Instant, node: &str) {
        let _ = (now, node);
    }

    /// Takes this node's own records away, in paced steps and with edges, and then its lease: an orderly end. Nothing but
    /// sends is done afterwards. Ends with [`Out::Left`].
    pub fn leave(&mut self, now: Instant) {
        let _ = now;
    }

    /// When [`Store::next`] may have something that it has not now.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }
}
