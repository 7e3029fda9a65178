//! Sign-ins of this node, whom they watch, and who is online as far as the watchers were told.
//!
//! A user is a topic: its record is how many sign-ins there are, its edges are online and offline. A sign-in waits for its
//! own record and for every watched topic to open; then who is online is what was told, so that later changes alternate with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Answer, OFFLINE_AFTER, SignIn, SignOut, Ticket, UserChange};
use fulmar_protocol::name::UserId;

use super::desk::{Desk, FIND_TIMEOUT_MS, PATIENCE_AGAIN_MS, PATIENCE_MS, Sending, Turn, WAITING_MAX};
use super::heard::HELD_MAX;
use super::topics::{Entry, Subject, User, Waiting};
use super::{Hub, Out, To};
use crate::WorkerId;
use crate::redis::envelope::{LogId, Message};
use crate::redis::millis;
use crate::redis::records::{Call, Changed, Find, Found, Token, Total};
use crate::redis::topic::Topic;

/// Topics looked up with one call.
const FIND_MAX: usize = 256;

/// A total that is not settled is looked up again after this.
const LOOK_AGAIN_MS: u64 = 1_000;

/// A termination told here before it was heard is not told again when it is heard within this.
const ECHO_MS: u64 = 1_000;

/// Terminations on their way that are remembered. Beyond it the oldest is told once more when it is heard.
const SENDING_MAX: usize = 4_096;

/// What a termination is, as a message.
const TERMINATION: &[u8] = b"T";

/// A sign-in without an answer.
pub(super) struct SigningIn {
    ticket: Ticket,
    worker: WorkerId,
    app: AppId,
    watchlist: Arc<[UserId]>,
    /// Topics that hold it up.
    needs: usize,
}

impl Hub {
    pub(super) fn sign_in(&mut self, turn: &mut Turn<'_>, from: WorkerId, sign_in: SignIn) {
        let SignIn { ticket, app, user_id, watchlist } = sign_in;
        if self.desk.figures.waiting >= WAITING_MAX || !self.desk.post.is_attached(from) {
            self.desk.figures.refused += 1;
            self.desk.post.answer(from, Answer::SignInRefused { ticket });
            return;
        }
        self.desk.figures.waiting += 1;
        let id = self.desk.token().0;
        let signing_in = SigningIn { ticket, worker: from, app, watchlist, needs: 1 };
        let (app, watchlist) = (signing_in.app.clone(), Arc::clone(&signing_in.watchlist));
        self.desk.sign_ins.insert(id, signing_in);
        self.with_user(turn, &app, &user_id, |desk, turn, entry| desk.record(turn, entry, from, id));
        for watched in watchlist.iter() {
            self.with_user(turn, &app, watched, |desk, turn, entry| desk.watch(turn, entry, from, id));
        }
    }

    pub(super) fn sign_out(&mut self, turn: &mut Turn<'_>, from: WorkerId, sign_out: &SignOut) {
        let SignOut { app, user_id, watchlist } = sign_out;
        let topic = Topic::user(app, user_id);
        let known = self.topics.find_mut(topic.as_str()).filter(|entry| entry.followers.has(from));
        let Some(entry) = known else {
            self.desk.figures.leaves_ignored += 1;
            return;
        };
        self.desk.strike(turn, entry, from);
        self.desk.settle(turn, entry);
        for watched in watchlist.iter() {
            let Some(entry) = self.topics.find_mut(Topic::user(app, watched).as_str()) else { continue };
            if let Some(user) = entry.user_mut() {
                user.watchers.remove(from);
            }
            if entry.is_idle() {
                entry.idle_since = turn.now.ms;
            }
            self.desk.settle(turn, entry);
        }
    }

    fn with_user(
        &mut self,
        turn: &mut Turn<'_>,
        app: &AppId,
        user: &UserId,
        act: impl FnOnce(&mut Desk, &mut Turn<'_>, &mut Entry),
    ) {
        let topic = Topic::user(app, user);
        let (entry, is_new) = self.topics.occupy(&topic, turn.now.ms);
        if is_new {
            turn.outs.push(Out::Follow(topic));
        }
        act(&mut self.desk, turn, entry);
        self.desk.settle(turn, entry);
    }

    /// Answers the sign-ins that nothing holds up any more.
    pub(super) fn answer_ready(&mut self) {
        for id in std::mem::take(&mut self.desk.ready) {
            let Some(signing_in) = self.desk.sign_ins.remove(&id) else { continue };
            let SigningIn { ticket, worker, app, watchlist, .. } = signing_in;
            let is_online = |user: &&UserId| {
                let entry = self.topics.find(Topic::user(&app, user).as_str());
                entry.is_some_and(|entry| matches!(&entry.subject, Subject::User(_, user) if user.is_online))
            };
            let online = watchlist.iter().filter(is_online).cloned().collect();
            self.desk.figures.waiting -= 1;
            let position = self.desk.post.position();
            self.desk.post.answer(worker, Answer::SignedIn { ticket, position, online });
        }
    }

    /// Asks for the totals gathered, one call for each group.
    pub(super) fn find_gathered(&mut self, turn: &mut Turn<'_>) {
        let mut by_group = BTreeMap::<usize, Vec<Topic>>::new();
        for topic in std::mem::take(&mut self.desk.to_find) {
            by_group.entry(self.desk.group_of(&topic)).or_default().push(topic);
        }
        for topics in by_group.values().flat_map(|of_group| of_group.chunks(FIND_MAX)) {
            self.desk.find(turn, topics);
        }
    }

    /// Totals were looked up. True when it was this hub that asked.
    pub(super) fn found(&mut self, turn: &mut Turn<'_>, token: Token, found: Option<&Found>) -> bool {
        if !self.desk.finding.remove(&token) {
            return false;
        }
        // A group that cannot be asked is asked again when the alarm of each topic rings.
        let Some(Found::Totals { totals, is_settled }) = found else { return true };
        for Total { topic, subscriptions, .. } in totals {
            let Some(entry) = self.topics.find_mut(topic.as_str()) else { continue };
            self.desk.total_found(turn, entry, *subscriptions > 0, *is_settled);
            self.desk.settle(turn, entry);
        }
        true
    }

    pub(super) fn begin_termination(&mut self, turn: &mut Turn<'_>, topic: Topic) -> Token {
        let token = self.desk.token();
        let sending = &mut self.desk.sending;
        if sending.len() == SENDING_MAX {
            sending.pop_front();
        }
        sending.push_back(Sending { token, topic: topic.clone(), is_heard: false });
        let message = bytes::Bytes::from_static(TERMINATION);
        turn.outs.push(Out::Call { to: To::Slot(topic.slot()), call: Call::Send { token, topic, message } });
        token
    }

    /// A termination is in the log. Told here at once: who signs in after the caller has its answer is not meant.
    pub(super) fn terminated(&mut self, turn: &mut Turn<'_>, token: Token) {
        let sending = &mut self.desk.sending;
        let sent = sending.iter().position(|sending| sending.token == token).and_then(|at| sending.remove(at));
        if let Some(Sending { topic, is_heard: false, .. }) = sent
            && let Some(entry) = self.topics.find_mut(topic.as_str())
        {
            let until = turn.now.ms + ECHO_MS;
            entry.user_mut().into_iter().for_each(|user| user.echo_until = until);
            self.desk.tell_terminated(entry);
        }
        turn.outs.push(Out::Terminated(token));
    }
}

impl Desk {
    /// One more connection is signed in as the user.
    fn record(&mut self, turn: &Turn<'_>, entry: &mut Entry, from: WorkerId, id: u64) {
        entry.followers.add(from);
        let Some(user) = entry.user_mut() else { return };
        user.leaves_at = None;
        user.unrecorded.push(id);
        user.wait_from(turn.now.ms);
    }

    /// Lets sign-ins go on whose number the records hold already: somebody left and came back before it was told.
    fn go_on_with_recorded(&mut self, entry: &mut Entry) {
        let is_recorded = entry.is_read && entry.in_flight == 0 && entry.asked == entry.wanted(0);
        let Some(user) = entry.user_mut().filter(|_| is_recorded) else { return };
        for id in std::mem::take(&mut user.unrecorded) {
            self.need_less(id);
        }
        entry.user_mut().into_iter().for_each(User::wait_no_more);
    }

    /// One more connection watches the user.
    fn watch(&mut self, turn: &Turn<'_>, entry: &mut Entry, from: WorkerId, id: u64) {
        let is_open = entry.is_open;
        let Some(user) = entry.user_mut() else { return };
        user.watchers.add(from);
        if is_open {
            return;
        }
        user.opening.push(id);
        user.wait_from(turn.now.ms);
        if let Some(signing_in) = self.sign_ins.get_mut(&id) {
            signing_in.needs += 1;
        }
    }

    /// One connection less is signed in as the user.
    fn strike(&mut self, turn: &Turn<'_>, entry: &mut Entry, from: WorkerId) {
        entry.followers.remove(from);
        let is_last = entry.followers.all().is_empty();
        let leaves_at = turn.now.ms + millis(OFFLINE_AFTER);
        if let (true, Some(user)) = (is_last, entry.user_mut()) {
            user.leaves_at = Some(leaves_at);
            if self.is_draining {
                self.leaving_until = self.leaving_until.max(leaves_at);
            }
        }
    }

    fn need_less(&mut self, id: u64) {
        let Some(signing_in) = self.sign_ins.get_mut(&id) else { return };
        signing_in.needs -= 1;
        if signing_in.needs == 0 {
            self.ready.push(id);
        }
    }

    /// The records hold this node's sign-ins as they stood when the change was asked.
    pub(super) fn user_changed(&mut self, turn: &mut Turn<'_>, entry: &mut Entry, changed: &Changed) {
        entry.is_read = true;
        let is_online = changed.total > 0;
        if entry.is_open {
            self.user_edge(entry, is_online, changed.at);
        } else {
            entry.newest = changed.at;
            self.open_user(turn, entry, is_online);
        }
        let Some(user) = entry.user_mut() else { return };
        for id in std::mem::take(&mut user.recording) {
            self.need_less(id);
        }
        entry.user_mut().into_iter().for_each(User::wait_no_more);
    }

    fn open_user(&mut self, turn: &mut Turn<'_>, entry: &mut Entry, is_online: bool) {
        entry.is_open = true;
        let read = entry.newest;
        let Some(user) = entry.user_mut() else { return };
        user.is_online = is_online;
        for id in std::mem::take(&mut user.opening) {
            self.need_less(id);
        }
        self.replay(turn, entry, read);
        entry.user_mut().into_iter().for_each(User::wait_no_more);
    }

    /// The user came or went, at that place of the log.
    pub(super) fn user_edge(&mut self, entry: &mut Entry, is_online: bool, at: LogId) {
        if at > entry.newest {
            entry.newest = at;
            entry.user_mut().into_iter().for_each(|user| user.is_overtaken = true);
            self.tell_online(entry, is_online);
        }
    }

    fn tell_online(&mut self, entry: &mut Entry, is_online: bool) {
        let Subject::User(id, user) = &mut entry.subject else { return };
        if user.is_online != is_online {
            user.is_online = is_online;
            let change = if is_online { UserChange::Online } else { UserChange::Offline };
            self.post.notice(&user.watchers, (&entry.app, id), change);
        }
    }

    fn tell_terminated(&mut self, entry: &Entry) {
        if let Subject::User(id, _) = &entry.subject {
            self.post.notice(&entry.followers, (&entry.app, id), UserChange::Terminated);
        }
    }

    pub(super) fn heard_terminated(&mut self, turn: &Turn<'_>, entry: &mut Entry, at: Option<LogId>) {
        let topic = entry.topic.clone();
        let Some(user) = entry.user_mut() else { return };
        if at.is_some_and(|at| at <= user.terminated) {
            return;
        }
        user.terminated = at.unwrap_or(user.terminated);
        if turn.now.ms < std::mem::take(&mut user.echo_until) {
            return;
        }
        if let Some(sending) = self.sending.iter_mut().find(|s| s.topic == topic && !s.is_heard) {
            sending.is_heard = true;
        }
        self.tell_terminated(entry);
    }

    pub(super) fn hold_of_user(&mut self, turn: &mut Turn<'_>, entry: &mut Entry, at: Option<LogId>, message: Message) {
        // With nobody waiting nothing is missed: whoever comes looks up how things stand then.
        if !entry.user_mut().is_some_and(|user| user.is_waited_for()) {
            return;
        }
        let waiting = entry.waiting.get_or_insert_with(|| Box::new(Waiting::new(turn.now.ms)));
        waiting.held.push((at, message));
        if waiting.held.len() > HELD_MAX {
            self.sign_in_alone(turn, entry);
            self.settle(turn, entry);
        }
    }

    /// Lets everybody who waits for this topic go on with what is known here.
    fn sign_in_alone(&mut self, turn: &mut Turn<'_>, entry: &mut Entry) {
        let is_connected = !entry.followers.all().is_empty();
        let Some(user) = entry.user_mut() else { return };
        let recording = std::mem::take(&mut user.recording);
        let unrecorded = std::mem::take(&mut user.unrecorded);
        let is_online = is_connected || user.leaves_at.is_some();
        self.figures.answered_alone += (recording.len() + unrecorded.len()) as u64;
        for id in recording.into_iter().chain(unrecorded) {
            self.need_less(id);
        }
        if !entry.is_open {
            self.open_user(turn, entry, is_online);
        }
        if is_connected {
            self.tell_online(entry, true);
        }
        entry.user_mut().into_iter().for_each(User::wait_no_more);
    }

    /// Looks up the total of a user whom nobody here is signed in as; whoever is hears it with the change of the record.
    pub(super) fn seek(&mut self, turn: &Turn<'_>, entry: &mut Entry) {
        self.go_on_with_recorded(entry);
        let is_unread = !entry.is_read && entry.in_flight == 0 && entry.wanted(0) == entry.asked;
        let (is_followed, is_idle) = (entry.is_followed, entry.is_idle());
        let topic = entry.topic.clone();
        let Some(user) = entry.user_mut() else { return };
        if is_followed && !is_idle && user.finding.is_none() && (is_unread || user.must_find) {
            user.finding = Some(turn.now.ms);
            user.must_find = false;
            user.is_overtaken = false;
            self.to_find.push(topic);
        }
    }

    fn find(&mut self, turn: &mut Turn<'_>, topics: &[Topic]) {
        let token = self.token();
        self.finding.insert(token);
        let call = Call::Find { token, what: Find::Topics(topics.to_vec()) };
        turn.outs.push(Out::Call { to: To::Slot(topics[0].slot()), call });
    }

    fn total_found(&mut self, turn: &mut Turn<'_>, entry: &mut Entry, is_online: bool, is_settled: bool) {
        let is_here = !entry.followers.all().is_empty();
        let (was_open, was_read) = (entry.is_open, std::mem::replace(&mut entry.is_read, true));
        let Some(user) = entry.user_mut() else { return };
        user.finding = None;
        // Before all nodes have looked after their records it is no last word, and that nobody is there means nothing.
        let is_last_word = is_settled && was_read;
        if !was_open {
            self.open_user(turn, entry, is_online || is_here);
            return;
        }
        let may_be_gone = user.is_online && !is_online && !is_here;
        user.look_again = (may_be_gone && !is_last_word).then(|| turn.now.ms + LOOK_AGAIN_MS);
        let is_sure = is_online || (is_last_word && user.leaves_at.is_none() && !is_here);
        if user.is_online == is_online || !is_sure {
            return;
        }
        if user.is_overtaken {
            user.must_find = true;
            return;
        }
        self.figures.edges_mended += 1;
        self.tell_online(entry, is_online);
    }

    /// The alarm of an entry rang.
    pub(super) fn user_due(&mut self, turn: &mut Turn<'_>, entry: &mut Entry) {
        let now_ms = turn.now.ms;
        let topic = entry.topic.clone();
        let Some(user) = entry.user_mut() else { return };
        if user.leaves_at.is_some_and(|at| at <= now_ms) {
            user.leaves_at = None;
            entry.idle_since = now_ms;
        }
        let Some(user) = entry.user_mut() else { return };
        if user.finding.take_if(|since| now_ms >= *since + FIND_TIMEOUT_MS).is_some() {
            user.must_find = true;
        }
        if user.look_again.is_some_and(|at| at <= now_ms) {
            user.look_again = None;
            user.must_find = true;
        }
        let Some(since) = user.waits_since.filter(|_| user.patience_ends <= now_ms) else { return };
        user.patience_ends = now_ms + PATIENCE_AGAIN_MS;
        if self.is_patience_over(&topic, since, now_ms) {
            self.sign_in_alone(turn, entry);
        }
    }
}

impl User {
    fn wait_from(&mut self, now_ms: u64) {
        if self.waits_since.is_none() {
            self.waits_since = Some(now_ms);
            self.patience_ends = now_ms + PATIENCE_MS;
        }
    }

    fn is_waited_for(&self) -> bool {
        !(self.opening.is_empty() && self.recording.is_empty() && self.unrecorded.is_empty())
    }

    fn wait_no_more(&mut self) {
        if !self.is_waited_for() {
            self.waits_since = None;
        }
    }

    /// The change that is asked now holds all sign-ins so far.
    pub(super) fn ask_for_all(&mut self) {
        self.recording.append(&mut self.unrecorded);
    }

    /// What was told of the user may be wrong: it is looked up.
    pub(super) fn doubt(&mut self) {
        self.must_find = true;
        self.look_again = None;
    }
}
