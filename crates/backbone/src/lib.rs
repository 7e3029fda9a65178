//! How nodes hear each other.
//!
//! [`Backbone`] is the promise; [`memory::Memory`] keeps it for a single node with nothing else installed. Workers ask
//! through [`Backbone::ask`] and hear through their [`Inbox`]; HTTP handlers publish and query with futures. Nothing in
//! this crate knows sockets, sessions or HTTP.

pub mod contract;
mod followers;
pub mod memory;
pub mod redis;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use fulmar_protocol::app::{AppId, Durability};
use fulmar_protocol::exchange::{Answer, Delivery, Member, Position, Publication, Question, UserNotice};
use fulmar_protocol::name::{ChannelName, UserId};
use fulmar_protocol::webhook::{Edge, Kinds};

/// A value that may take a round trip. Boxed: the price is paid once per call, never per subscriber.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Index of a worker within its node, as given by [`Backbone::attach`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerId(pub u8);

/// Most workers one node can have: what a [`WorkerId`] can name.
pub const WORKERS_MAX: usize = 256;

/// Where one worker hears. Implementations queue and wake; they never block, and they never call the backbone, which
/// may be holding a lock while it calls them.
pub trait Inbox: Send + Sync {
    /// Whether another delivery would still be within the inbox's bound. A publication is refused as a whole when an
    /// interested worker has no room, so that nothing accepted is dropped here. Member changes and counts come whatever
    /// this says.
    fn has_room(&self) -> bool;
    /// Takes a delivery. Deliveries of one channel arrive in the order of the calls.
    fn deliver(&self, delivery: Arc<Delivery>);
    /// Takes a change of a user. Changes of one app arrive in the order of the calls, and come whatever the room.
    fn notice(&self, notice: Arc<UserNotice>);
    /// Takes the answer to a question that was not answered at once.
    fn answer(&self, answer: Answer);
}

/// Where a backbone leaves what an app's own server wants to be told. Given to implementations at their making; they
/// decide edges where the transitions are seen, under their own locks. Implementations of this trait queue and wake: they
/// never block, and they never call the backbone, which may be holding a lock while it calls them.
pub trait Outbox: Send + Sync {
    /// What anybody wants to hear of this channel. Asked often; for apps without webhooks the answer costs next to
    /// nothing.
    fn wanted(&self, app: &AppId, channel: &ChannelName) -> Kinds;
    /// What anybody wants to hear of the app's users.
    fn wanted_of_users(&self, app: &AppId) -> Kinds;
    /// Whether another edge would still be within the outbox's bound. A subscription that may make one is refused for the
    /// moment when there is no room; leaving never is.
    fn has_room(&self) -> bool;
    /// Takes edges that nobody waits for, in this order and behind those that came before.
    fn take(&self, edges: Vec<Edge>);
    /// Takes edges, and the answer that must not be given before they, and those before them, will survive a crash. The
    /// answer comes back when that is so already; otherwise it goes to the inbox.
    fn take_before(&self, edges: Vec<Edge>, inbox: &Arc<dyn Inbox>, answer: Answer) -> Option<Answer>;
}

/// How nodes hear each other. The promises (`spec/delivery.md`):
///
/// - A publication accepted with `Ok` reaches every subscription that stood at that moment, once (DEL-1), and along one
///   channel in one order for all (DEL-2).
/// - A join answered at position P hears every later delivery of the channel and none at or before P; roster and cached
///   event in the answer are the state at P (DEL-3).
/// - Per channel and user, `MemberAdded` and `MemberRemoved` alternate (DEL-4).
/// - A sign-in answered at position P hears every later change of those it watches and none at or before P; who is
///   online in the answer is the state at P (DEL-17). Online and offline alternate, and offline waits (DEL-18).
pub trait Backbone: Send + Sync {
    /// Makes a worker known. Called once per worker, before it asks anything.
    ///
    /// # Panics
    /// When there are more than [`WORKERS_MAX`].
    fn attach(&self, inbox: Arc<dyn Inbox>) -> WorkerId;

    /// Answers at once with `Some`, or later through the worker's inbox.
    fn ask(&self, from: WorkerId, question: Question) -> Option<Answer>;

    /// Accepts all publications of one call or none of them, in the order given.
    ///
    /// # Errors
    /// See [`PublishError`]: `NotAccepted` may be tried again, `Unknown` may have happened.
    fn publish(&self, publications: Vec<Publication>, terms: Terms) -> Pending<'_, Result<(), PublishError>>;

    /// Ends all connections that are signed in as a user now: each worker that has some gets a
    /// [`Terminated`](fulmar_protocol::exchange::UserChange::Terminated) (DEL-19). A user whom nobody is signed in as is
    /// no error.
    ///
    /// # Errors
    /// When it may be that not all of them were reached.
    fn terminate(&self, app: AppId, user_id: UserId) -> Pending<'_, Result<(), Unavailable>>;

    /// Answers a question about the whole deployment.
    ///
    /// # Errors
    /// When part of the answer cannot be had; never a silent partial answer.
    fn query(&self, query: Query) -> Pending<'_, Result<Reply, Unavailable>>;
}

/// On what terms a call is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// When it counts as accepted. A single node has nothing to choose.
    pub durability: Durability,
    /// Names the call: what was published under the same number before, through whatever node, is accepted and reaches nobody
    /// again, for two minutes. A single node leaves that to whoever calls.
    pub once: Option<u64>,
}

/// Why a publication was not, or may not have been, accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It was not accepted and will reach nobody.
    #[error("not accepted")]
    NotAccepted,
    /// Some of it may or may not have been accepted.
    #[error("outcome unknown")]
    Unknown {
        /// The channels of which that is so, sorted; all others of the call are accepted. None where it is so of the whole call.
        left: Vec<ChannelName>,
    },
}

/// The backbone cannot answer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the backbone cannot answer now")]
pub struct Unavailable;

/// A question about the whole deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Occupied channels of an app whose names begin with `prefix`. Answered by [`Reply::Channels`].
    Channels {
        /// The app.
        app: AppId,
        /// Beginning of the names; empty for all.
        prefix: String,
    },
    /// As [`Query::Channels`], of those parts of the deployment that can be asked now; unavailable only when none can. Answered by
    /// [`Reply::Reachable`].
    Reachable {
        /// The app.
        app: AppId,
        /// Beginning of the names; empty for all.
        prefix: String,
    },
    /// Several channels by name, occupied or not, in the order asked. Answered by [`Reply::Channels`].
    Named {
        /// The app.
        app: AppId,
        /// Which channels.
        channels: Vec<ChannelName>,
    },
    /// Distinct users of a presence channel. Answered by [`Reply::Members`].
    Members {
        /// The app.
        app: AppId,
        /// The channel.
        channel: ChannelName,
    },
    /// The cached event of a cache channel. Answered by [`Reply::Cached`].
    Cached {
        /// The app.
        app: AppId,
        /// The channel.
        channel: ChannelName,
    },
}

/// What a query is answered with.
#[derive(Debug, Clone)]
pub enum Reply {
    /// See [`Query::Channels`] and [`Query::Named`].
    Channels(Vec<ChannelState>),
    /// See [`Query::Reachable`].
    Reachable {
        /// What was found.
        channels: Vec<ChannelState>,
        /// Whether some part could not be asked.
        is_partial: bool,
    },
    /// See [`Query::Members`].
    Members(Vec<Member>),
    /// See [`Query::Cached`].
    Cached(Option<CachedEvent>),
}

/// How things stand on one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelState {
    /// The channel.
    pub channel: ChannelName,
    /// Subscribed connections.
    pub subscriptions: u64,
    /// Distinct users; 0 unless it is a presence channel.
    pub members: u64,
}

/// The last event of a cache channel.
#[derive(Debug, Clone)]
pub struct CachedEvent {
    /// The frame subscribers receive.
    pub frame: fulmar_protocol::frame::Frame,
    /// Its place in the channel.
    pub position: Position,
    /// Whole seconds until it is forgotten.
    pub ttl_s: u64,
}
