//! What the hub asks of a group's records, and what it is told: the words between [`super::hub`] and [`super::store`].
//!
//! A record is what one node says of one topic: how many subscriptions it has there and, on presence channels, which users.
//! Everything asked is absolute ("this node has 3 here, ana is among them"), so asking twice changes nothing the second
//! time: whatever was not answered is asked again. Edges are decided, published and left in the outbox by the script that
//! changes the record.

use std::sync::Arc;

use bytes::Bytes;
use fulmar_protocol::exchange::{Identity, Member};
use fulmar_protocol::name::UserId;
use fulmar_protocol::webhook::Kinds;

use super::envelope::LogId;
use super::topic::Topic;

/// Chosen by whoever asks; comes back with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What this node says of a user on a presence channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// JSON text that the user's first connection on this node gave.
    pub user_info: Option<Arc<str>>,
    /// When it came, in microseconds since 1970 by this node's clock: orders rosters.
    pub since: u64,
}

/// How this node's record of a topic stands from now on.
#[derive(Debug, Clone)]
pub struct Change {
    /// Comes back in [`Told::Changed`].
    pub token: Token,
    /// Whose record.
    pub topic: Topic,
    /// This node's subscriptions on it (or sign-ins as it), after the change.
    pub subscriptions: u32,
    /// The one user whose presence on this node changed: here with this, or gone.
    pub member: Option<(UserId, Option<Presence>)>,
    /// Distinct users of all live nodes beyond which one who is not there yet is refused.
    pub members_max: Option<u64>,
    /// Whether the total is published to subscribers.
    pub is_counted: bool,
    /// Whether the answer is to hold the whole roster.
    pub wants_roster: bool,
    /// Whether the answer is to hold the cached event.
    pub wants_cached: bool,
    /// Whether the answer is to say which publications the log has.
    pub wants_logged: bool,
    /// Edges of these kinds go to the outbox.
    pub hooks: Kinds,
}

/// What the hub asks.
#[derive(Debug, Clone)]
pub enum Call {
    /// Changes this node's record. Answered by [`Told::Changed`]. Changes are made in the order asked.
    Change(Change),
    /// The roster of a presence channel. Answered by [`Told::Roster`].
    Roster {
        /// Comes back. Where a roster is asked for that waits to be asked for already, it is asked for once, under the later token.
        token: Token,
        /// The channel.
        topic: Topic,
    },
    /// Publishes a message that no record belongs to (a termination), and appends it to the log.
    /// Answered by [`Told::Sent`].
    Send {
        /// Comes back.
        token: Token,
        /// Where.
        topic: Topic,
        /// What; see [`super::envelope::Message`].
        message: Bytes,
    },
    /// Answered by [`Told::Found`].
    Find {
        /// Comes back.
        token: Token,
        /// What.
        what: Find,
    },
}

/// A question about the topics of one group, answered in one round trip.
#[derive(Debug, Clone)]
pub enum Find {
    /// Occupied topics whose text begins with this; answered by [`Found::Listed`].
    Prefix(String),
    /// Totals of these, in this order, with 0 where there is nothing; answered by [`Found::Totals`].
    Topics(Vec<Topic>),
    /// Answered by [`Found::Roster`].
    Members(Topic),
    /// Answered by [`Found::Cached`].
    Cached(Topic),
}

/// How things stand on a topic, over all live nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Total {
    /// The topic.
    pub topic: Topic,
    /// Subscriptions or sign-ins.
    pub subscriptions: u64,
    /// Distinct users; 0 unless it is a presence channel.
    pub members: u64,
}

/// What was found.
#[derive(Debug, Clone)]
pub enum Found {
    /// See [`Find::Prefix`].
    Listed(Vec<Total>),
    /// See [`Find::Topics`].
    Totals {
        /// How things stand, topic by topic.
        totals: Vec<Total>,
        /// Whether nobody's being there means that nobody is: all live nodes have looked after their records.
        is_settled: bool,
    },
    /// See [`Find::Members`].
    Roster(Vec<Member>),
    /// See [`Find::Cached`].
    Cached(Option<Kept>),
}

/// The cached event of a cache channel.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its place in the log.
    pub at: LogId,
    /// The encoded [`super::envelope::Event`].
    pub message: Bytes,
    /// Milliseconds until it is forgotten.
    pub ttl_ms: u64,
}

/// What a change did.
#[derive(Debug, Clone, Default)]
pub struct Changed {
    /// Place of the last edge that it made, or the log's head when it made none. Whatever this says was published at or
    /// before it.
    pub at: LogId,
    /// The topic had no subscriptions before.
    pub is_occupied: bool,
    /// It has none any more.
    pub is_vacated: bool,
    /// The user was not there before.
    pub is_added: bool,
    /// The user is not there any more.
    pub is_removed: bool,
    /// Subscriptions of all live nodes, after it.
    pub total: u64,
    /// Everybody present, in the order they came, when asked for. The first info given by a user is the one shown.
    pub roster: Option<Vec<(Member, u64)>>,
    /// The cached event, when asked for and there.
    pub cached: Option<Kept>,
    /// When asked for: of each live node, and of the topic's lane, the last publication that the log has. Whatever that node numbered
    /// up to it was accepted before the change was made.
    pub logged: Arc<[Identity]>,
}

/// What the hub is told.
#[derive(Debug, Clone)]
pub enum Told {
    /// See [`Call::Change`].
    Changed {
        /// From the call.
        token: Token,
        /// What it did, or that there are too many users already and nothing was changed.
        outcome: Result<Changed, MembersFull>,
    },
    /// See [`Call::Roster`].
    Roster {
        /// From the call.
        token: Token,
        /// Likewise.
        topic: Topic,
        /// The roster is the edges up to here, added up.
        at: LogId,
        /// Everybody present, in the order they came, each with its `since`.
        members: Vec<(Member, u64)>,
        /// Whether every live node has looked after its records since the group changed its primary or was damaged: only then
        /// does absence mean anything.
        is_settled: bool,
    },
    /// See [`Call::Send`].
    Sent {
        /// From the call.
        token: Token,
    },
    /// See [`Call::Find`].
    Found {
        /// From the call.
        token: Token,
        /// `None` when the group cannot be asked now.
        found: Option<Found>,
    },
    /// Records of the group were found wrong and are being mended, or its primary has changed: what was told of these topics
    /// must be compared with [`Call::Roster`]. `None` means all of the group.
    Doubtful(Option<Topic>),
}

/// A presence channel has as many users as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MembersFull;
