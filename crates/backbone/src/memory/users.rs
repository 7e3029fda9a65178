//! Who is signed in on the embedded backbone, and who watches whom.
//!
//! Plain data under one lock for the whole node; whom to tell is handed to the caller's `tell` while that lock is held,
//! so that all changes of users have one order. It looks at no clock: the caller says what time it is. A user has a
//! record while it is signed in, while its absence is not settled, or while somebody watches it; so there are at most as
//! many records as connections and entries of their watchlists.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use foldhash::quality::RandomState;
use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Absence, Answer, OFFLINE_AFTER, Position, SignIn, SignOut, UserChange, UserNotice};
use fulmar_protocol::name::UserId;
use fulmar_protocol::webhook::Subject;
use hashbrown::HashTable;

use super::edges::Edges;
use super::{Memory, locked};
use crate::WorkerId;
use crate::followers::Followers;

/// All users of a node.
#[derive(Default)]
pub(super) struct Users {
    /// The position given last. One counter for all apps.
    position: Position,
    table: HashTable<User>,
    hasher: RandomState,
}

struct User {
    app: AppId,
    id: UserId,
    /// Workers with connections signed in as the user.
    connections: Followers,
    /// Workers with connections that watch the user.
    watchers: Followers,
    /// When the user counts as offline; given when the last connection ends, taken back when one comes.
    leaves_at: Option<Duration>,
}

impl User {
    fn is(&self, app: &AppId, id: &UserId) -> bool {
        self.id == *id && self.app == *app
    }

    fn is_connected(&self) -> bool {
        !self.connections.all().is_empty()
    }

    /// As far as anybody was told.
    fn is_online(&self) -> bool {
        self.is_connected() || self.leaves_at.is_some()
    }

    fn is_over(&self) -> bool {
        !self.is_online() && self.watchers.all().is_empty()
    }
}

/// What the end of a sign-in meant.
#[derive(Debug, PartialEq, Eq)]
enum Parting {
    /// There was no such sign-in.
    Stranger,
    /// The user has other connections.
    OthersRemain,
    /// It was the user's last connection.
    Last,
}

impl Users {
    /// Records of users.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether anybody is signed in as the user.
    pub(super) fn is_connected(&mut self, app: &AppId, id: &UserId) -> bool {
        self.find(app, id).is_some_and(|user| user.is_connected())
    }

    /// Counts one more connection of a user. Answers its position and who of its watchlist is online.
    fn sign_in(
        &mut self,
        from: WorkerId,
        sign_in: &SignIn,
        mut tell: impl FnMut(WorkerId, Arc<UserNotice>),
    ) -> (Position, Vec<UserId>) {
        let next = Position(self.position.0 + 1);
        let user = self.occupy(&sign_in.app, &sign_in.user_id);
        let was_online = user.is_online();
        user.leaves_at = None;
        user.connections.add(from);
        if !was_online {
            tell_all(user, &user.watchers, next, UserChange::Online, &mut tell);
            self.position = next;
        }
        let mut online = Vec::new();
        for id in sign_in.watchlist.iter() {
            let watched = self.occupy(&sign_in.app, id);
            watched.watchers.add(from);
            if watched.is_online() {
                online.push(id.clone());
            }
        }
        (self.position, online)
    }

    /// Takes a sign-in back.
    fn sign_out(&mut self, from: WorkerId, sign_out: &SignOut, now: Duration) -> Parting {
        let SignOut { app, user_id, watchlist } = sign_out;
        let Some(user) = self.find(app, user_id).filter(|u| u.connections.has(from)) else {
            return Parting::Stranger;
        };
        user.connections.remove(from);
        let parting = if user.is_connected() { Parting::OthersRemain } else { Parting::Last };
        if parting == Parting::Last {
            user.leaves_at = Some(now.saturating_add(OFFLINE_AFTER));
        }
        for id in watchlist.iter() {
            if let Some(watched) = self.find(app, id) {
                watched.watchers.remove(from);
                self.drop_if_over(app, id);
            }
        }
        parting
    }

    /// Tells that a user is gone whose time is over. Answers how long that time still is, if it is not.
    fn settle(
        &mut self,
        absence: &Absence,
        now: Duration,
        mut tell: impl FnMut(WorkerId, Arc<UserNotice>),
    ) -> Option<Duration> {
        let next = Position(self.position.0 + 1);
        let user = self.find(&absence.app, &absence.user_id)?;
        let left = user.leaves_at?.saturating_sub(now);
        if !left.is_zero() {
            return Some(left);
        }
        user.leaves_at = None;
        tell_all(user, &user.watchers, next, UserChange::Offline, &mut tell);
        self.position = next;
        self.drop_if_over(&absence.app, &absence.user_id);
        None
    }

    /// Tells the workers of a user's connections to end them.
    fn terminate(&mut self, app: &AppId, id: &UserId, mut tell: impl FnMut(WorkerId, Arc<UserNotice>)) {
        let next = Position(self.position.0 + 1);
        if let Some(user) = self.find(app, id) {
            tell_all(user, &user.connections, next, UserChange::Terminated, &mut tell);
            self.position = next;
        }
    }

    fn find(&mut self, app: &AppId, id: &UserId) -> Option<&mut User> {
        let hash = self.hasher.hash_one((app.as_str(), id.as_str()));
        self.table.find_mut(hash, |user| user.is(app, id))
    }

    /// The user's record, made when there is none.
    fn occupy(&mut self, app: &AppId, id: &UserId) -> &mut User {
        let Self { table, hasher, .. } = self;
        let hash_of = |app: &AppId, id: &UserId| hasher.hash_one((app.as_str(), id.as_str()));
        let entry = table.entry(hash_of(app, id), |user| user.is(app, id), |user| hash_of(&user.app, &user.id));
        let new = || User {
            app: app.clone(),
            id: id.clone(),
            connections: Followers::default(),
            watchers: Followers::default(),
            leaves_at: None,
        };
        entry.or_insert_with(new).into_mut()
    }

    fn drop_if_over(&mut self, app: &AppId, id: &UserId) {
        let hash = self.hasher.hash_one((app.as_str(), id.as_str()));
        let Ok(entry) = self.table.find_entry(hash, |user| user.is(app, id)) else { return };
        if !entry.get().is_over() {
            return;
        }
        entry.remove();
        if self.table.capacity() > super::SHRINK_BELOW * (self.table.len() + super::SHRINK_BELOW) {
            let hasher = &self.hasher;
            self.table.shrink_to(self.table.len() * 2, |u| hasher.hash_one((u.app.as_str(), u.id.as_str())));
        }
    }
}

impl Memory {
    /// Answers at once, or through the inbox when an edge must be safe first.
    pub(super) fn sign_in(&self, from: WorkerId, sign_in: &SignIn) -> Option<Answer> {
        let ticket = sign_in.ticket;
        let mut edges = Edges::wanted_of_users(self.outbox.as_deref(), &sign_in.app);
        let inbox = self.inbox(from).filter(|_| edges.has_room());
        let Some(inbox) = inbox else { return Some(Answer::SignInRefused { ticket }) };
        let mut users = locked(&self.users);
        if !users.is_connected(&sign_in.app, &sign_in.user_id) {
            edges.came(|| Subject::User(sign_in.user_id.clone()));
        }
        let (position, online) = users.sign_in(from, sign_in, |to, notice| self.notify(to, notice));
        // With the users still locked, so that edges of one user stand in the outbox as they happened.
        edges.leave_before(inbox, Answer::SignedIn { ticket, position, online })
    }

    pub(super) fn sign_out(&self, from: WorkerId, sign_out: SignOut) -> Option<Answer> {
        let mut users = locked(&self.users);
        match users.sign_out(from, &sign_out, self.clock.now()) {
            Parting::Last => {
                // The outbox holds goings back for itself.
                let mut edges = Edges::wanted_of_users(self.outbox.as_deref(), &sign_out.app);
                edges.went(|| Subject::User(sign_out.user_id.clone()));
                edges.leave();
                let absence = Absence { app: sign_out.app, user_id: sign_out.user_id };
                Some(Answer::Absent { absence, settle_in_ms: millis_up(OFFLINE_AFTER) })
            }
            Parting::OthersRemain => None,
            Parting::Stranger => {
                self.counts.leaves_ignored.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    pub(super) fn settle(&self, absence: Absence) -> Option<Answer> {
        let mut users = locked(&self.users);
        // Read under the lock: a moment from before it could lie before a departure that it is compared with.
        let left = users.settle(&absence, self.clock.now(), |to, notice| self.notify(to, notice))?;
        Some(Answer::Absent { absence, settle_in_ms: millis_up(left) })
    }

    pub(super) fn terminate_user(&self, app: &AppId, id: &UserId) {
        locked(&self.users).terminate(app, id, |to, notice| self.notify(to, notice));
    }

    fn notify(&self, to: WorkerId, notice: Arc<UserNotice>) {
        if let Some(inbox) = self.inbox(to) {
            inbox.notice(notice);
        }
    }
}

fn tell_all(
    user: &User,
    workers: &Followers,
    position: Position,
    change: UserChange,
    tell: &mut impl FnMut(WorkerId, Arc<UserNotice>),
) {
    if workers.all().is_empty() {
        return;
    }
    let notice = Arc::new(UserNotice { app: user.app.clone(), user_id: user.id.clone(), position, change });
    for follower in workers.all() {
        tell(follower.worker, Arc::clone(&notice));
    }
}

/// Whole milliseconds, rounded up: whoever comes back after them is not early.
fn millis_up(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
