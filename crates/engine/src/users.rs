//! Signing in, watching who else is online, and being ended by the application.
//!
//! A sign-in is told to the client once the backbone has taken it, so that whatever names the user from then on finds
//! the connection; changes that come before the answer are held. A session is one user until it ends: signing in again
//! as the same one is confirmed and changes nothing, as another one it is refused. Invariant: a session with a user
//! stands in the table under that user and under everybody it watches, and nowhere else.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use fulmar_protocol::app::AppId;
use fulmar_protocol::client_message::{self, UserData, parse_user_data};
use fulmar_protocol::close::CloseCode;
use fulmar_protocol::exchange::{Absence, Position, Question, SignIn, SignOut, Ticket, UserChange, UserNotice};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::UserId;
use fulmar_protocol::server_message;
use fulmar_protocol::signing::check_user_auth;
use hashbrown::{Equivalent, HashMap};

use crate::deliver::SENT_BACK_OVER_MS;
use crate::effect::{Effects, SessionKey};
use crate::refusal::{Refusal, WATCHLIST_CUT};
use crate::session::{Session, SignedIn, Standing};
use crate::time::Moment;
use crate::worker::{Wake, Worker};

/// Changes held for one sign-in that waits for the backbone. When there are more, its session is closed with 4200:
/// coming back is cheaper than an unbounded queue, and nothing is skipped in silence.
const HELD_NOTICES_MAX: usize = 1_024;

/// Who is signed in and watched on this worker.
#[derive(Debug, Default)]
pub(crate) struct Users {
    table: HashMap<UserKey, Entry, RandomState>,
    /// Sign-ins that the backbone has not answered, by ticket number.
    signing_in: HashMap<u64, SigningIn, RandomState>,
    /// Users whose absence this worker is to settle, by the number of the timer. One timer per user.
    absences: HashMap<u64, Absence, RandomState>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct UserKey {
    app: AppId,
    id: UserId,
}

/// A [`UserKey`] that is not owned; hashes like one.
#[derive(Hash)]
struct UserRef<'a> {
    app: &'a AppId,
    id: &'a UserId,
}

impl Equivalent<UserKey> for UserRef<'_> {
    fn equivalent(&self, key: &UserKey) -> bool {
        *self.id == key.id && *self.app == key.app
    }
}

#[derive(Debug, Default)]
struct Entry {
    /// Sessions signed in as the user.
    sessions: BTreeSet<SessionKey>,
    /// Sessions that watch the user.
    watchers: BTreeSet<SessionKey>,
    /// A timer is set to settle the user's absence.
    is_settling: bool,
}

impl Entry {
    fn is_over(&self) -> bool {
        self.sessions.is_empty() && self.watchers.is_empty() && !self.is_settling
    }
}

/// A sign-in that the backbone has not answered yet.
#[derive(Debug)]
struct SigningIn {
    session: SessionKey,
    /// What the client is told when it succeeds.
    succeeded: Vec<Frame>,
    /// Changes that came meanwhile.
    held: Vec<Arc<UserNotice>>,
    /// What to take back when the answer comes, because the session left meanwhile.
    cancelled: Option<SignOut>,
}

impl Users {
    fn occupy(&mut self, app: &AppId, id: &UserId) -> &mut Entry {
        self.table.entry(UserKey { app: app.clone(), id: id.clone() }).or_default()
    }

    fn change(&mut self, app: &AppId, id: &UserId, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.table.get_mut(&UserRef { app, id }) else { return };
        change(entry);
        if entry.is_over() {
            self.table.remove(&UserRef { app, id });
        }
    }

    fn enter(&mut self, key: SessionKey, app: &AppId, user: &SignedIn) {
        self.occupy(app, &user.user_id).sessions.insert(key);
        for id in user.watchlist.iter() {
            self.occupy(app, id).watchers.insert(key);
        }
    }

    fn strike(&mut self, key: SessionKey, app: &AppId, user: &SignedIn) {
        self.change(app, &user.user_id, |entry| {
            entry.sessions.remove(&key);
        });
        for id in user.watchlist.iter() {
            self.change(app, id, |entry| {
                entry.watchers.remove(&key);
            });
        }
    }
}

impl Worker {
    pub(crate) fn sign_in(
        &mut self,
        key: SessionKey,
        request: &client_message::SignIn<'_>,
        text: &str,
        effects: &mut Effects,
    ) {
        if let Err(refusal) = self.try_sign_in(key, request, text, effects) {
            self.figures.refused_sign_ins += 1;
            effects.send(key, refusal.frame());
        }
    }

    fn try_sign_in(
        &mut self,
        key: SessionKey,
        request: &client_message::SignIn<'_>,
        text: &str,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get(key) else { return Ok(()) };
        let app = session.app.clone();
        let signed = check_user_auth(&app, session.socket_id, &request.user_data, &request.auth)
            .map_err(|why| Refusal::of_command(why.to_string()))?;
        let data = parse_user_data(signed.user_data, &app)
            .map_err(|why| Refusal::of_command(format!("Invalid user_data: {why}")))?;
        if !self.is_seated(key, text, effects) {
            return Ok(());
        }
        let session = self.sessions.expect_mut(key);
        let succeeded = server_message::signin_success(signed.user_data);
        if let Some(user) = &session.user {
            if user.user_id != data.user_id {
                return Err(Refusal::of_command("This connection is signed in as another user already"));
            }
            if let Standing::Waiting(_) = user.standing {
                return Err(Refusal::of_command("Signing in is in progress"));
            }
            effects.send(key, succeeded);
            return Ok(());
        }

        let mut told = vec![succeeded];
        told.extend(data.is_watchlist_cut.then(|| watchlist_cut(&data).frame()));
        self.next_ticket += 1;
        let number = self.next_ticket;
        let UserData { user_id, user_info, watchlist, .. } = data;
        let user = SignedIn { user_id, user_info, watchlist: watchlist.into(), standing: Standing::Waiting(number) };
        self.users.enter(key, &app.id, &user);
        let waiting = SigningIn { session: key, succeeded: told, held: Vec::new(), cancelled: None };
        self.users.signing_in.insert(number, waiting);
        effects.ask(Question::SignIn(SignIn {
            ticket: Ticket { session: key, number },
            app: app.id.clone(),
            user_id: user.user_id.clone(),
            watchlist: user.watchlist.clone(),
        }));
        session.user = Some(Box::new(user));
        Ok(())
    }

    pub(crate) fn signed_in(&mut self, ticket: Ticket, position: Position, online: &[UserId], effects: &mut Effects) {
        let Some(waiting) = self.users.signing_in.remove(&ticket.number) else { return };
        if let Some(sign_out) = waiting.cancelled {
            effects.ask(Question::SignOut(sign_out));
            return;
        }
        let key = waiting.session;
        let user = self.sessions.expect_mut(key).user.as_mut().expect("a waiting sign-in is in its session");
        user.standing = Standing::Live(position);
        for frame in waiting.succeeded {
            effects.send(key, frame);
        }
        if !user.watchlist.is_empty() {
            let is_online = |id: &&UserId| online.contains(id);
            let (online, offline): (Vec<_>, Vec<_>) = user.watchlist.iter().partition(is_online);
            effects.send(key, server_message::watchlist_events(&online, &offline));
        }
        for notice in waiting.held {
            self.notice_to(key, &notice, effects);
        }
    }

    pub(crate) fn sign_in_refused(&mut self, ticket: Ticket, effects: &mut Effects) {
        let Some(waiting) = self.users.signing_in.remove(&ticket.number) else { return };
        if waiting.cancelled.is_some() {
            return;
        }
        let session = self.sessions.expect_mut(waiting.session);
        let user = session.user.take().expect("a waiting sign-in is in its session");
        self.users.strike(waiting.session, &session.app.id, &user);
        self.figures.refused_sign_ins += 1;
        effects.send(waiting.session, Refusal::of_command("Signing in is not possible now, try again").frame());
    }

    /// Ends the sign-in of a session that is ending.
    pub(crate) fn sign_out(&mut self, key: SessionKey, session: &mut Session, effects: &mut Effects) {
        let Some(user) = session.user.take() else { return };
        self.users.strike(key, &session.app.id, &user);
        let SignedIn { user_id, watchlist, standing, .. } = *user;
        let sign_out = SignOut { app: session.app.id.clone(), user_id, watchlist };
        match standing {
            Standing::Live(_) => effects.ask(Question::SignOut(sign_out)),
            Standing::Waiting(number) => {
                if let Some(waiting) = self.users.signing_in.get_mut(&number) {
                    waiting.held = Vec::new();
                    waiting.cancelled = Some(sign_out);
                }
            }
        }
    }

    /// A change of a user that somebody here watches or is.
    pub(crate) fn noticed(&mut self, now: Moment, notice: &Arc<UserNotice>, effects: &mut Effects) {
        let Users { table, signing_in, .. } = &mut self.users;
        let Some(entry) = table.get(&UserRef { app: &notice.app, id: &notice.user_id }) else { return };
        let concerned = match notice.change {
            UserChange::Online | UserChange::Offline => &entry.watchers,
            UserChange::Terminated | UserChange::Missed => &entry.sessions,
        };
        let (mut live, mut overflowing) = (Vec::new(), Vec::new());
        for &key in concerned {
            let Some(user) = self.sessions.get(key).and_then(|session| session.user.as_ref()) else { continue };
            match user.standing {
                Standing::Live(from) if from < notice.position => live.push(key),
                Standing::Live(_) => {}
                // It is told only now how things stand.
                Standing::Waiting(_) if notice.change == UserChange::Missed => {}
                Standing::Waiting(number) => match signing_in.get_mut(&number) {
                    Some(waiting) if waiting.held.len() < HELD_NOTICES_MAX => waiting.held.push(notice.clone()),
                    _ => overflowing.push(key),
                },
            }
        }
        match status_frame(notice) {
            Some(frame) => effects.fan_out(&frame, |targets| targets.append(&mut live)),
            None if notice.change == UserChange::Missed => {
                live.into_iter().for_each(|key| self.leave_within(now, key, SENT_BACK_OVER_MS));
            }
            None => live.into_iter().for_each(|key| self.end(key, terminated(), effects)),
        }
        for key in overflowing {
            let refusal = Refusal::closing(CloseCode::RECONNECT, "Signing in took too long, please reconnect");
            self.end(key, refusal, effects);
        }
    }

    /// Tells one session what was held for it.
    fn notice_to(&mut self, key: SessionKey, notice: &UserNotice, effects: &mut Effects) {
        let standing = self.sessions.get(key).and_then(|session| session.user.as_ref()).map(|user| user.standing);
        if standing.is_none_or(|standing| !matches!(standing, Standing::Live(from) if from < notice.position)) {
            return;
        }
        match status_frame(notice) {
            Some(frame) => effects.send(key, frame),
            None => self.end(key, terminated(), effects),
        }
    }

    /// The backbone leaves it to this worker to ask whether a user stays away.
    pub(crate) fn absent(&mut self, now: Moment, absence: Absence, settle_in_ms: u64) {
        let entry = self.users.occupy(&absence.app, &absence.user_id);
        if std::mem::replace(&mut entry.is_settling, true) {
            // The timer that is set comes earlier, asks, and is told how long it still is.
            return;
        }
        self.next_ticket += 1;
        let number = self.next_ticket;
        self.users.absences.insert(number, absence);
        self.wake_at(now.plus_ms(settle_in_ms), Wake::Absence { number });
    }

    pub(crate) fn absence_due(&mut self, number: u64, effects: &mut Effects) {
        let Some(absence) = self.users.absences.remove(&number) else { return };
        self.users.change(&absence.app, &absence.user_id, |entry| entry.is_settling = false);
        effects.ask(Question::SettleAbsence(absence));
    }
}

/// What watchers are told; nothing for a termination.
fn status_frame(notice: &UserNotice) -> Option<Frame> {
    match notice.change {
        UserChange::Online => Some(server_message::watchlist_events(&[&notice.user_id], &[])),
        UserChange::Offline => Some(server_message::watchlist_events(&[], &[&notice.user_id])),
        UserChange::Terminated | UserChange::Missed => None,
    }
}

fn terminated() -> Refusal {
    Refusal::closing(CloseCode::UNAUTHORIZED, "You got disconnected by the app")
}

fn watchlist_cut(data: &UserData) -> Refusal {
    let ids: Vec<&str> = data.watchlist.iter().map(UserId::as_str).collect();
    let text = format!("The watchlist is longer than {}; only these users are watched: {}", ids.len(), ids.join(", "));
    Refusal::with_code(WATCHLIST_CUT, text)
}
