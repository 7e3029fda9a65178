//! One worker: owns its sessions and tables, and turns every input into effects.
//!
//! The enum [`Input`] is closed, so that the one `match` in [`Worker::handle`] shows everything that can wake the
//! system.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use fulmar_protocol::app::{App, AppId};
use fulmar_protocol::client_message::ClientMessage;
use fulmar_protocol::close::CloseCode;
use fulmar_protocol::exchange::{Answer, Delivery, UserNotice};
use fulmar_protocol::name::SocketId;
use fulmar_protocol::server_message;
use hashbrown::HashMap;

use crate::effect::{Effects, Seating, SessionKey};
use crate::opening::{OVER_CAPACITY, OVER_QUOTA, Opening, judge};
use crate::refusal::Refusal;
use crate::session::{Liveness, Session};
use crate::sessions::Sessions;
use crate::subscribe::Waiting;
use crate::subscriptions::{ChannelKey, Channels};
use crate::time::Moment;
use crate::users::Users;

/// So many timers are never looked through for those that have become meaningless.
const TIMERS_UNSWEPT_MAX: usize = 4_096;

/// What a worker is told once, at its start.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Inbound silence after which a connection is pinged, in milliseconds; also what clients are told, in seconds.
    pub activity_timeout_ms: u64,
    /// How long an answer to that ping may take, in milliseconds.
    pub pong_timeout_ms: u64,
    /// Channels one connection may be subscribed to.
    pub channels_per_connection_max: usize,
    /// Subscribes one connection may send per second, beyond a first [`Settings::channels_per_connection_max`] at once.
    pub subscribes_per_s_max: u32,
    /// Whether a refused subscription is also told to the channel's listeners (`pusher:subscription_error`).
    pub subscription_error_events: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            activity_timeout_ms: 120_000,
            pong_timeout_ms: 30_000,
            channels_per_connection_max: 10_000,
            subscribes_per_s_max: 100,
            subscription_error_events: true,
        }
    }
}

impl Settings {
    /// SDKs that reconnect ask for everything they had at once.
    pub(crate) fn subscribes_at_once(&self) -> u32 {
        u32::try_from(self.channels_per_connection_max).unwrap_or(u32::MAX).max(self.subscribes_per_s_max)
    }
}

/// Everything that can wake a worker.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection was upgraded. Whether it may stay is in the effects; [`Worker::is_open`] tells afterwards.
    Opened {
        /// The key that the driver gives it.
        session: SessionKey,
        /// What is known of it.
        opening: Opening,
    },
    /// A text message came.
    Said {
        /// From whom.
        session: SessionKey,
        /// The message.
        text: &'a str,
    },
    /// A control frame came: nothing to do, but a sign of life.
    Heard {
        /// From whom.
        session: SessionKey,
    },
    /// A publication, or a change, reached this worker.
    Delivered(&'a Arc<Delivery>),
    /// A change of a user reached this worker.
    Noticed(&'a Arc<UserNotice>),
    /// The backbone answers a question.
    Answered(Answer),
    /// What came of [`crate::Effect::TakeSeat`].
    Seated {
        /// Whose.
        session: SessionKey,
        /// The outcome.
        seating: Seating,
    },
    /// The moment of [`Worker::next_deadline`] has come.
    Deadline,
    /// The socket has ended.
    Gone {
        /// Whose.
        session: SessionKey,
    },
    /// The connection must end for a reason that lies in its bytes or its speed.
    Evict {
        /// Whose.
        session: SessionKey,
        /// What it is told.
        code: CloseCode,
        /// What it is told, in words.
        reason: &'static str,
    },
    /// An app's settings changed, or it is new.
    AppReplaced(&'a Arc<App>),
    /// An app is no longer served.
    AppRemoved(&'a AppId),
    /// The node goes away: move all sessions, spread over this many milliseconds.
    Drain {
        /// The span.
        over_ms: u64,
    },
}

/// Counters since the start, for metrics. Plain numbers: a worker is one thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Sessions opened.
    pub opened: u64,
    /// Connections refused at opening.
    pub refused: u64,
    /// Messages received from clients.
    pub messages: u64,
    /// Subscriptions refused.
    pub refused_subscriptions: u64,
    /// Sign-ins refused.
    pub refused_sign_ins: u64,
    /// Sessions ended because they showed no authorization in time.
    pub unauthorized: u64,
    /// Client events refused.
    pub refused_client_events: u64,
    /// Sessions ended because a ping was not answered.
    pub pongs_missed: u64,
    /// Sessions told to come back: the node drains, or something passed unheard.
    pub sent_back: u64,
}

/// Why a timer was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wake {
    Session { session: SessionKey },
    Count { channel: ChannelKey, generation: u64 },
    Absence { number: u64 },
}

/// One worker's sessions and tables.
#[derive(Debug)]
pub struct Worker {
    pub(crate) settings: Settings,
    pub(crate) sessions: Sessions,
    pub(crate) by_socket: HashMap<SocketId, SessionKey, RandomState>,
    pub(crate) channels: Channels,
    /// Subscriptions that the backbone has not answered, by ticket number.
    pub(crate) waiting: HashMap<u64, Waiting, RandomState>,
    pub(crate) next_ticket: u64,
    pub(crate) users: Users,
    /// Messages that showed an authorization and are taken up again once their session has a seat.
    parked: HashMap<SessionKey, Box<str>, RandomState>,
    pub(crate) figures: Figures,
    timers: BinaryHeap<Reverse<(Moment, Wake)>>,
    /// Timers at which those of ended sessions are looked for.
    sweep_at: usize,
    /// By when the last session is to have gone, once the node drains.
    drained_by: Option<Moment>,
}

impl Worker {
    /// A worker without sessions.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            sessions: Sessions::default(),
            by_socket: HashMap::with_hasher(RandomState::default()),
            channels: Channels::new(),
            waiting: HashMap::with_hasher(RandomState::default()),
            next_ticket: 0,
            users: Users::default(),
            parked: HashMap::with_hasher(RandomState::default()),
            figures: Figures::default(),
            timers: BinaryHeap::new(),
            sweep_at: TIMERS_UNSWEPT_MAX,
            drained_by: None,
        }
    }

    /// Takes one input and appends what must be done about it.
    pub fn handle(&mut self, now: Moment, input: Input<'_>, effects: &mut Effects) {
        match input {
            Input::Opened { session, opening } => self.opened(now, session, &opening, effects),
            Input::Said { session, text } => self.said(now, session, text, effects),
            Input::Heard { session } => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.hear(now);
                }
            }
            Input::Delivered(delivery) => self.delivered(now, delivery, effects),
            Input::Noticed(notice) => self.noticed(now, notice, effects),
            Input::Answered(answer) => self.answered(now, answer, effects),
            Input::Seated { session, seating } => self.seated(now, session, seating, effects),
            Input::Deadline => self.deadline(now, effects),
            Input::Gone { session } => self.detach(session, effects),
            Input::Evict { session, code, reason } => self.evict(session, code, reason, effects),
            Input::AppReplaced(app) => self.app_replaced(app, effects),
            Input::AppRemoved(app) => {
                let refusal = Refusal::closing(CloseCode::NO_SUCH_APP, "The app is no longer served here");
                self.end_sessions_of(app, &refusal, effects);
            }
            Input::Drain { over_ms } => self.drain(now, over_ms),
        }
    }

    /// When [`Input::Deadline`] is wanted, if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Whether this key names an open session.
    #[must_use]
    pub fn is_open(&self, session: SessionKey) -> bool {
        self.sessions.get(session).is_some()
    }

    /// Open sessions.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.by_socket.len()
    }

    /// Channels with at least one subscription here.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// Counters since the start.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.figures
    }

    fn opened(&mut self, now: Moment, key: SessionKey, opening: &Opening, effects: &mut Effects) {
        match judge(opening) {
            Ok(app) => {
                let mut session = Session::new(opening, app.clone(), &self.settings, now);
                // Judged before the drain began and handed over after it: it leaves with the others.
                session.leave_at = self.drained_by.map(|by| now.plus_ms(opening.socket_id.spread(by.ms_since(now))));
                let first_look = session.sooner(now.plus_ms(self.settings.activity_timeout_ms));
                // Registered before it is told its id, so that whatever names the id from then on finds it.
                self.sessions.insert(key, session);
                self.by_socket.insert(opening.socket_id, key);
                self.figures.opened += 1;
                let seconds = u32::try_from(self.settings.activity_timeout_ms / 1_000).unwrap_or(u32::MAX);
                effects.send(key, server_message::established(opening.socket_id, seconds.max(1)));
                self.arm(key, first_look);
            }
            Err(refusal) => {
                self.figures.refused += 1;
                close(key, refusal, effects);
            }
        }
    }

    fn said(&mut self, now: Moment, key: SessionKey, text: &str, effects: &mut Effects) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.hear(now);
        self.figures.messages += 1;
        self.understand(now, key, text, effects);
    }

    fn understand(&mut self, now: Moment, key: SessionKey, text: &str, effects: &mut Effects) {
        match ClientMessage::parse(text) {
            Ok(ClientMessage::Subscribe(request)) => self.subscribe(now, key, &request, text, effects),
            Ok(ClientMessage::Unsubscribe { channel }) => self.unsubscribe(key, &channel, effects),
            Ok(ClientMessage::Ping) => effects.send(key, server_message::pong()),
            Ok(ClientMessage::Pong) => {}
            Ok(ClientMessage::SignIn(request)) => self.sign_in(key, &request, text, effects),
            Ok(ClientMessage::ClientEvent(event)) => self.client_event(now, key, &event, effects),
            Ok(ClientMessage::Unsupported { event }) => {
                let shown: String = event.chars().take(200).collect();
                let refusal = Refusal::of_command(format!("Unsupported event received on socket: {shown}"));
                effects.send(key, refusal.frame());
            }
            Err(malformed) => effects.send(key, Refusal::of_command(malformed.to_string()).frame()),
        }
    }

    /// Whether a session that has just shown an authorization counts towards the quota. If not, it asks for a seat, and
    /// `text`, the message that showed it, is taken up again when it has one: nothing of a session that must go is seen
    /// by anybody.
    pub(crate) fn is_seated(&mut self, key: SessionKey, text: &str, effects: &mut Effects) -> bool {
        let session = self.sessions.expect_mut(key);
        if !session.is_seated {
            effects.take_seat(key, session.app.limits.max_connections);
            self.parked.insert(key, text.into());
            return false;
        }
        session.authorize_by = None;
        true
    }

    fn seated(&mut self, now: Moment, key: SessionKey, seating: Seating, effects: &mut Effects) {
        let parked = self.parked.remove(&key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        match seating {
            Seating::Seated => {}
            Seating::OverQuota => return self.end(key, Refusal::closing(CloseCode::OVER_QUOTA, OVER_QUOTA), effects),
            Seating::Later => return self.end(key, Refusal::closing(CloseCode::OVER_CAPACITY, OVER_CAPACITY), effects),
        }
        session.is_seated = true;
        if let Some(text) = parked {
            self.understand(now, key, &text, effects);
        }
    }

    fn evict(&mut self, key: SessionKey, code: CloseCode, reason: &'static str, effects: &mut Effects) {
        // Codes below 4000 are RFC 6455's own; `pusher:error` does not speak of them.
        if code.0 >= 4_000 {
            self.end(key, Refusal::closing(code, reason), effects);
            return;
        }
        self.detach(key, effects);
        effects.close(key, code, Cow::Borrowed(reason));
    }

    /// Ends a session in two steps: first it stops being anywhere, then it is told.
    pub(crate) fn end(&mut self, key: SessionKey, refusal: Refusal, effects: &mut Effects) {
        if self.is_open(key) {
            self.detach(key, effects);
            close(key, refusal, effects);
        }
    }

    /// Takes a session out of every table, as if it had unsubscribed from everything.
    fn detach(&mut self, key: SessionKey, effects: &mut Effects) {
        let Some(mut session) = self.sessions.remove(key) else { return };
        self.by_socket.remove(&session.socket_id);
        if !session.is_seated {
            self.parked.remove(&key);
        }
        self.leave_all(key, &mut session, effects);
        self.sign_out(key, &mut session, effects);
    }

    fn deadline(&mut self, now: Moment, effects: &mut Effects) {
        while let Some(Reverse((at, wake))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            match wake {
                Wake::Session { session } => self.session_due(now, session, at, effects),
                Wake::Absence { number } => self.absence_due(number, effects),
                Wake::Count { channel, generation } => self.count_due(now, channel, generation, effects),
            }
        }
    }

    fn session_due(&mut self, now: Moment, key: SessionKey, armed_for: Moment, effects: &mut Effects) {
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.armed_for == armed_for) else {
            return;
        };
        match session.liveness(now, &self.settings) {
            Liveness::Fine(until) => self.arm(key, until),
            Liveness::Ping(until) => {
                effects.ping(key);
                self.arm(key, until);
            }
            Liveness::Dead => {
                self.figures.pongs_missed += 1;
                let text = "Pong reply not received: the connection was silent and did not answer a ping";
                self.end(key, Refusal::closing(CloseCode::PONG_MISSED, text), effects);
            }
            Liveness::NotAuthorized => {
                self.figures.unauthorized += 1;
                self.end(
                    key,
                    Refusal::closing(CloseCode::UNAUTHORIZED, "Connection not authorized within timeout"),
                    effects,
                );
            }
            Liveness::TimeToLeave => {
                self.figures.sent_back += 1;
                self.end(key, Refusal::closing(CloseCode::RECONNECT, "Please reconnect immediately"), effects);
            }
        }
    }

    fn arm(&mut self, key: SessionKey, at: Moment) {
        self.sessions.expect_mut(key).armed_for = at;
        self.wake_at(at, Wake::Session { session: key });
    }

    pub(crate) fn wake_at(&mut self, at: Moment, wake: Wake) {
        if self.timers.len() >= self.sweep_at {
            self.sweep_timers();
        }
        self.timers.push(Reverse((at, wake)));
    }

    /// Drops the timers of sessions that have ended. Left alone each stays until its time, and where clients come and go
    /// all day and the activity timeout is long, that is more memory than the sessions there are.
    fn sweep_timers(&mut self) {
        let sessions = &self.sessions;
        self.timers.retain(|Reverse((at, wake))| match wake {
            Wake::Session { session } => sessions.get(*session).is_some_and(|session| session.armed_for == *at),
            _ => true,
        });
        self.sweep_at = (2 * self.timers.len()).max(TIMERS_UNSWEPT_MAX);
    }

    fn app_replaced(&mut self, app: &Arc<App>, effects: &mut Effects) {
        if !app.enabled {
            let refusal = Refusal::closing(CloseCode::APP_DISABLED, "The app was disabled");
            self.end_sessions_of(&app.id, &refusal, effects);
            return;
        }
        for key in self.sessions.keys_where(|session| session.app.id == app.id) {
            let session = self.sessions.expect_mut(key);
            session.app = app.clone();
            // Nothing is asked of it any more, so it will never show anything: it counts from now on.
            if !session.is_seated && !app.authorized_connections {
                effects.take_seat(key, app.limits.max_connections);
            }
        }
    }

    fn end_sessions_of(&mut self, app: &AppId, refusal: &Refusal, effects: &mut Effects) {
        for key in self.sessions.keys_where(|session| session.app.id == *app) {
            self.end(key, refusal.clone(), effects);
        }
    }

    /// Gives every session its own moment within the span. SDKs come back at once and without jitter, so the spread
    /// is ours to make; the socket id is random, which is all the randomness this needs.
    fn drain(&mut self, now: Moment, over_ms: u64) {
        self.drained_by = Some(now.plus_ms(over_ms));
        for key in self.sessions.keys_where(|_| true) {
            self.leave_within(now, key, over_ms);
        }
    }

    /// Gives a session its own moment within the span, unless it has an earlier one.
    pub(crate) fn leave_within(&mut self, now: Moment, key: SessionKey, over_ms: u64) {
        let session = self.sessions.expect_mut(key);
        let at = now.plus_ms(session.socket_id.spread(over_ms));
        if session.leave_at.is_some_and(|known| known <= at) {
            return;
        }
        session.leave_at = Some(at);
        // Where it is looked at before that anyway, it is looked at then as well.
        if at < session.armed_for {
            self.arm(key, at);
        }
    }
}

/// The error frame first and then the close frame: Java and .NET need the former to report a reason.
fn close(key: SessionKey, refusal: Refusal, effects: &mut Effects) {
    effects.send(key, refusal.frame());
    let code = CloseCode(refusal.code().unwrap_or(CloseCode::RECONNECT.0));
    effects.close(key, code, refusal.into_message());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opening::tests::opening;

    /// WS-108
    #[test]
    fn sessions_that_come_and_go_leave_no_growing_heap_of_timers_and_those_that_stay_keep_theirs() {
        let mut worker = Worker::new(Settings::default());
        let mut effects = Effects::default();
        let mut handle = |at, input| {
            worker.handle(Moment(at), input, &mut effects);
            while effects.next_effect().is_some() {}
            worker.timers.len()
        };
        handle(0, Input::Opened { session: 0, opening: opening() });
        for n in 1..50_000 {
            let socket_id = SocketId::new(n, n);
            let timers = handle(n, Input::Opened { session: 1, opening: Opening { socket_id, ..opening() } });
            assert!(timers <= TIMERS_UNSWEPT_MAX + 1, "{timers}");
            handle(n, Input::Gone { session: 1 });
        }
        worker.sweep_timers();
        let left: Vec<_> = worker.timers.iter().map(|Reverse((_, wake))| *wake).collect();
        assert_eq!(left, [Wake::Session { session: 0 }]);
    }
}
