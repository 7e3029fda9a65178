//! One connection's conversation: who it is, what it listens to, and whether it is alive.
//!
//! Holds no socket. What the conversation does to the worker's tables is in the sibling files; here is its own state.

use std::sync::Arc;

use foldhash::fast::RandomState;
use fulmar_protocol::app::App;
use fulmar_protocol::exchange::Position;
use fulmar_protocol::name::{SocketId, UserId};
use fulmar_protocol::opening::ClientKind;
use hashbrown::HashMap;

use crate::limits::TokenBucket;
use crate::opening::Opening;
use crate::subscriptions::ChannelKey;
use crate::time::Moment;
use crate::worker::Settings;

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) socket_id: SocketId,
    pub(crate) app: Arc<App>,
    pub(crate) client: ClientKind,
    pub(crate) subscriptions: HashMap<ChannelKey, Subscription, RandomState>,
    pub(crate) client_events: TokenBucket,
    pub(crate) subscribes: TokenBucket,
    /// Who signed in, or is signing in.
    pub(crate) user: Option<Box<SignedIn>>,
    /// By when it must show an authorization of the application; none when it has, or need not.
    pub(crate) authorize_by: Option<Moment>,
    /// Whether it counts towards the app's quota. Where an authorization is asked for, it does only once it has shown one.
    pub(crate) is_seated: bool,
    /// When the peer was last heard, in whatever form.
    pub(crate) heard_at: Moment,
    /// When a ping went out, if nothing was heard since.
    pub(crate) pinged_at: Option<Moment>,
    /// When this session is to be moved away: the node drains, or something passed unheard.
    pub(crate) leave_at: Option<Moment>,
    /// The one timer entry that counts; others are left over.
    pub(crate) armed_for: Moment,
}

/// The user that a session is.
#[derive(Debug)]
pub(crate) struct SignedIn {
    pub(crate) user_id: UserId,
    /// JSON text; what members of a presence channel see when the application said nothing for that channel.
    pub(crate) user_info: Option<Arc<str>>,
    /// Whose coming and going it hears of.
    pub(crate) watchlist: Arc<[UserId]>,
    pub(crate) standing: Standing,
}

/// Where a sign-in stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The backbone has not answered the ticket with this number yet.
    Waiting(u64),
    /// It concerns itself with what is later than this.
    Live(Position),
}

/// One session on one channel.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) place: Place,
    /// It hears what is later than this.
    pub(crate) from: Position,
    /// Who this is to the other members, on presence channels.
    pub(crate) user_id: Option<UserId>,
}

/// Where a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The backbone has not answered yet.
    Waiting,
    /// At this index of the channel's subscribers.
    Live(u32),
}

/// What a timer finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// Nothing to do until then.
    Fine(Moment),
    /// Silent: ask whether anybody is there, and look again then.
    Ping(Moment),
    /// Asked and not answered.
    Dead,
    /// It is to come back, here or on another node, and its moment has come.
    TimeToLeave,
    /// The app asks for an authorization, and none came in time.
    NotAuthorized,
}

impl Session {
    pub(crate) fn new(opening: &Opening, app: Arc<App>, settings: &Settings, now: Moment) -> Self {
        let per_s = app.limits.client_events_per_s_max;
        let authorize_within_ms = u64::from(app.limits.authorized_connections_timeout_s) * 1_000;
        Self {
            user: None,
            authorize_by: opening.must_authorize.then(|| now.plus_ms(authorize_within_ms)),
            is_seated: !opening.must_authorize,
            socket_id: opening.socket_id,
            app,
            client: opening.client,
            subscriptions: HashMap::with_hasher(RandomState::default()),
            client_events: TokenBucket::full(per_s, now),
            subscribes: TokenBucket::full(settings.subscribes_at_once(), now),
            heard_at: now,
            pinged_at: None,
            leave_at: None,
            armed_for: now,
        }
    }

    /// Any frame is a sign of life.
    pub(crate) fn hear(&mut self, now: Moment) {
        self.heard_at = now;
        self.pinged_at = None;
    }

    /// That moment, or an earlier one at which the session must be looked at anyway.
    pub(crate) fn sooner(&self, at: Moment) -> Moment {
        [self.leave_at, self.authorize_by].into_iter().flatten().fold(at, Moment::min)
    }

    /// Judges the silence. Changes nothing but noting the ping that it asks for.
    pub(crate) fn liveness(&mut self, now: Moment, settings: &Settings) -> Liveness {
        if self.leave_at.is_some_and(|at| at <= now) {
            return Liveness::TimeToLeave;
        }
        if self.authorize_by.is_some_and(|at| at <= now) {
            self.authorize_by = None;
            // The switch may have been turned off since.
            if self.app.authorized_connections {
                return Liveness::NotAuthorized;
            }
        }
        match self.pinged_at {
            Some(at) => match at.plus_ms(settings.pong_timeout_ms) {
                dead_at if now >= dead_at => Liveness::Dead,
                dead_at => Liveness::Fine(self.sooner(dead_at)),
            },
            None => match self.heard_at.plus_ms(settings.activity_timeout_ms) {
                ping_at if now >= ping_at => {
                    self.pinged_at = Some(now);
                    Liveness::Ping(self.sooner(now.plus_ms(settings.pong_timeout_ms)))
                }
                ping_at => Liveness::Fine(self.sooner(ping_at)),
            },
        }
    }
}
