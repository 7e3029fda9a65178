//! What the data plane and a backbone say to each other.
//!
//! The engine asks ([`Question`]) and is answered ([`Answer`]), at once or later; publications come back to every
//! interested worker as [`Delivery`], in one order per channel; changes of users as [`UserNotice`], in one order per app. Nothing here knows whether the backbone is a table in
//! memory or a fleet of Redis servers.

use std::sync::Arc;
use std::time::Duration;

use crate::app::AppId;
use crate::frame::Frame;
use crate::name::{ChannelName, SocketId, UserId};

/// The node and incarnation that accepted a publication, with that node's own counter: what makes a repeat a repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Random number of the accepting node's incarnation.
    pub origin: u64,
    /// Rises by one with each publication of that incarnation.
    pub counter: u64,
}

/// Place in the channel's log. Rises along a channel; says nothing across channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

/// An event accepted for one channel, its frame encoded.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The app the channel belongs to.
    pub app: AppId,
    /// Where it goes.
    pub channel: ChannelName,
    /// What subscribers receive.
    pub frame: Frame,
    /// The one connection that does not receive it.
    pub except: Option<SocketId>,
    /// How long it is to be replayed to later subscribers; `None` leaves the channel's cached event alone.
    pub cache_for: Option<Duration>,
}

/// A publication, or a change that subscribers must hear of, reaching a worker.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The app the channel belongs to.
    pub app: AppId,
    /// The channel it happened on.
    pub channel: ChannelName,
    /// What makes a repeat a repeat.
    pub identity: Identity,
    /// Its place: a subscription made at a position hears only what is later.
    pub position: Position,
    /// What happened.
    pub happening: Happening,
}

/// What a delivery tells subscribers.
#[derive(Debug, Clone)]
pub enum Happening {
    /// An event for every subscriber but one.
    Event {
        /// The finished frame.
        frame: Frame,
        /// The connection that does not receive it.
        except: Option<SocketId>,
    },
    /// A user came: the first connection of that user anywhere.
    MemberAdded(Member),
    /// A user left: the last connection of that user anywhere is gone.
    MemberRemoved(UserId),
    /// The number of subscribed connections changed.
    Count(u64),
    /// Something before this may have passed unheard, and cannot be told any more.
    Missed,
}

/// A user on a presence channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user_id: UserId,
    /// JSON text given with the first subscription of the user, passed through unchanged.
    pub user_info: Option<Arc<str>>,
}

/// A change that concerns one user and no channel, reaching a worker that has reason to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserNotice {
    /// The app the user belongs to.
    pub app: AppId,
    /// Who.
    pub user_id: UserId,
    /// Its place among all changes of the app's users: a sign-in made at a position concerns itself only with what is
    /// later.
    pub position: Position,
    /// What happened.
    pub change: UserChange,
}

/// What happened to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserChange {
    /// The first connection anywhere signed in as this user. For workers where somebody watches the user.
    Online,
    /// No connection anywhere has been signed in as this user for a while. For workers where somebody watches the user.
    Offline,
    /// The application ends all connections of this user. For workers where some are signed in as this user.
    Terminated,
    /// A change before this may have passed unheard, and cannot be told any more. For the same workers.
    Missed,
}

/// Names one pending subscription or sign-in of one session, so that an answer that comes late finds the right one or
/// nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Slot of the session in its worker.
    pub session: u32,
    /// Rises with every question of the worker; an answer with another number is stale.
    pub number: u64,
}

/// What a worker asks of the backbone.
#[derive(Debug, Clone)]
pub enum Question {
    /// One more connection subscribes. Answered by [`Answer::Joined`] or [`Answer::JoinRefused`].
    Join(Join),
    /// A connection's subscription ended. Not answered.
    Leave(Leave),
    /// An event from a client to the other members. Answered only when refused.
    Publish(Publication),
    /// One more connection signs in as a user. Answered by [`Answer::SignedIn`] or [`Answer::SignInRefused`].
    SignIn(SignIn),
    /// A connection that was signed in has ended. Answered by [`Answer::Absent`] or not at all.
    SignOut(SignOut),
    /// The time of an [`Answer::Absent`] is over. Answered by another one, when it is not, or not at all.
    SettleAbsence(Absence),
}

/// One more connection subscribes.
#[derive(Debug, Clone)]
pub struct Join {
    /// Comes back in the answer.
    pub ticket: Ticket,
    /// The app the channel belongs to.
    pub app: AppId,
    /// The channel.
    pub channel: ChannelName,
    /// Who joins, on presence channels.
    pub member: Option<Member>,
    /// Distinct users beyond which a new one is refused.
    pub members_max: usize,
    /// Whether subscribers of this channel are told how many they are.
    pub counted: bool,
}

/// A connection's subscription ended.
#[derive(Debug, Clone)]
pub struct Leave {
    /// The app the channel belongs to.
    pub app: AppId,
    /// The channel.
    pub channel: ChannelName,
    /// Who leaves, on presence channels.
    pub user_id: Option<UserId>,
    /// Whether subscribers of this channel are told how many they are.
    pub counted: bool,
}

/// One more connection signs in as a user.
#[derive(Debug, Clone)]
pub struct SignIn {
    /// Comes back in the answer.
    pub ticket: Ticket,
    /// The app the user belongs to.
    pub app: AppId,
    /// Who signs in.
    pub user_id: UserId,
    /// Whose coming and going the connection wants to hear of; no id twice. Bounded by the app's `watchlist_max`.
    pub watchlist: Arc<[UserId]>,
}

/// A connection that was signed in has ended. Undoes the [`SignIn`] with the same user and watchlist.
#[derive(Debug, Clone)]
pub struct SignOut {
    /// The app the user belongs to.
    pub app: AppId,
    /// Who was signed in.
    pub user_id: UserId,
    /// Whom the connection watched.
    pub watchlist: Arc<[UserId]>,
}

/// A user without connections who may be back in a moment, so that nobody was told yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absence {
    /// The app the user belongs to.
    pub app: AppId,
    /// Who is gone.
    pub user_id: UserId,
}

/// What the backbone answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The subscription stands; nothing later than `position` will be missed.
    Joined {
        /// From the question.
        ticket: Ticket,
        /// The subscription hears what is later than this.
        position: Position,
        /// Everybody present, the new member included; on presence channels.
        roster: Option<Roster>,
        /// On cache channels: the last event, or `None` when there is none.
        cached: Option<Frame>,
    },
    /// The subscription cannot be made.
    JoinRefused {
        /// From the question.
        ticket: Ticket,
        /// Why.
        why: JoinRefusal,
    },
    /// The sign-in stands; no change of a watched user later than `position` will be missed.
    SignedIn {
        /// From the question.
        ticket: Ticket,
        /// The sign-in concerns itself with what is later than this.
        position: Position,
        /// Those of the watchlist who are online, in its order.
        online: Vec<UserId>,
    },
    /// The backbone cannot take the sign-in now; trying again may help.
    SignInRefused {
        /// From the question.
        ticket: Ticket,
    },
    /// The user has no connection left. A backbone that keeps no time of its own answers so, and the worker asks
    /// [`Question::SettleAbsence`] when that time is over: only then, and only if the user is not back, is anybody told.
    Absent {
        /// Who.
        absence: Absence,
        /// When to ask, in milliseconds from now; at most [`OFFLINE_AFTER`].
        settle_in_ms: u64,
    },
}

/// How long a user stays online after the last connection has ended, so that a page that is loaded anew does not flap.
pub const OFFLINE_AFTER: Duration = Duration::from_secs(3);

/// All members of a presence channel, in the order they came.
pub type Roster = Vec<Member>;

/// Why a subscription cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinRefusal {
    /// The channel has as many users as it may have.
    MembersFull {
        /// The limit that applied.
        max: usize,
    },
    /// The backbone cannot say now; trying again may help.
    Unavailable,
}
