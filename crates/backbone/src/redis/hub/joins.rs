//! Subscriptions of this node: how they begin, what the records said of them, and how they end.
//!
//! A join is answered when its change was made, or alone (from what is known here) when a group is away for too long.
//! Whatever is told before the answer has a smaller or equal position, whatever comes later a larger one.

use std::sync::Arc;

use fulmar_protocol::exchange::{Answer, Happening, Identity, Join, JoinRefusal, Leave, Member};
use fulmar_protocol::name::UserId;
use fulmar_protocol::webhook::EventKind;

use super::desk::{Asked, Desk, PATIENCE_MS, Turn, WAITING_MAX};
use super::members::EDGE_WAIT_MS;
use super::roster::Here;
use super::topics::{Cached, Entry, LEAVING_MS, Wait, Waiting};
use super::{Hub, Out};
use crate::WorkerId;
use crate::redis::envelope::{Event, LogId, Message};
use crate::redis::records::{Changed, Kept, MembersFull, Token};
use crate::redis::topic::Topic;

impl Hub {
    pub(super) fn join(&mut self, turn: &mut Turn<'_>, from: WorkerId, join: Join) {
        if self.desk.figures.waiting >= WAITING_MAX || !self.desk.post.is_attached(from) {
            self.desk.figures.refused += 1;
            let refused = Answer::JoinRefused { ticket: join.ticket, why: JoinRefusal::Unavailable };
            self.desk.post.answer(from, refused);
            return;
        }
        let topic = Topic::channel(&join.app, &join.channel);
        let (entry, is_new) = self.topics.occupy(&topic, turn.now.ms);
        if is_new {
            turn.outs.push(Out::Follow(topic));
        }
        self.desk.join(turn, entry, from, join);
        self.desk.settle(turn, entry);
    }

    pub(super) fn leave(&mut self, turn: &mut Turn<'_>, from: WorkerId, leave: &Leave) {
        let topic = Topic::channel(&leave.app, &leave.channel);
        let left = self.topics.find_mut(topic.as_str()).filter(|entry| entry.can_leave(from, leave));
        let Some(entry) = left else {
            self.desk.figures.leaves_ignored += 1;
            return;
        };
        self.desk.leave(turn, entry, from, leave);
        self.desk.settle(turn, entry);
    }

    pub(super) fn changed(&mut self, turn: &mut Turn<'_>, token: Token, outcome: Result<Changed, MembersFull>) {
        let Some(asked) = self.desk.changes.remove(&token) else { return };
        let Some(entry) = self.topics.find_mut(asked.topic.as_str()) else { return };
        entry.in_flight = entry.in_flight.saturating_sub(1);
        match outcome {
            Ok(changed) if entry.channel().is_none() => self.desk.user_changed(turn, entry, &changed),
            Ok(changed) => self.desk.change_made(turn, entry, (token, &asked), changed),
            Err(MembersFull) => self.desk.change_refused(turn, entry, token, &asked),
        }
        entry.is_overtaken &= entry.in_flight > 0;
        self.desk.settle(turn, entry);
    }
}

impl Desk {
    /// What follows every change of an entry: asks what is to be asked, and sets the alarm.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>, entry: &mut Entry) {
        self.pump(turn, entry);
        self.seek(turn, entry);
        entry.stop_waiting();
        self.set_alarm(turn, entry);
    }

    fn join(&mut self, turn: &mut Turn<'_>, entry: &mut Entry, from: WorkerId, join: Join) {
        let now = turn.now;
        entry.followers.add(from);
        entry.is_counted = join.counted;
        entry.is_miss_told = entry.is_cache() && self.hooks(entry).has(EventKind::CacheMiss);
        let since = self.since(now);
        let user = join.member.and_then(|member| {
            let members = entry.members_mut()?;
            let Member { user_id, user_info } = member;
            let new = Here { connections: 0, user_info, since, asked: None, is_recorded: false };
            members.here.entry(user_id.clone()).or_insert(new).connections += 1;
            members.leaving.remove(&user_id);
            Some(user_id)
        });
        let waiting = entry.waiting.get_or_insert_with(|| Box::new(Waiting::new(now.ms)));
        if waiting.joins.is_empty() {
            waiting.patience_ends = now.ms + PATIENCE_MS;
            waiting.since_ms = now.ms;
        }
        waiting.unasked += 1;
        waiting.joins.push_back(Wait {
            ticket: join.ticket,
            worker: from,
            user,
            members_max: join.members_max,
            counted: join.counted,
            asked_ms: now.ms,
            token: None,
            edge_until: None,
            at: LogId::default(),
        });
        self.figures.waiting += 1;
    }

    fn leave(&mut self, turn: &mut Turn<'_>, entry: &mut Entry, from: WorkerId, leave: &Leave) {
        entry.followers.remove(from);
        entry.is_counted = leave.counted;
        if let Some(user) = &leave.user_id {
            self.disconnect(turn, entry, user);
        }
        if entry.followers.all().is_empty() {
            entry.idle_since = turn.now.ms;
        }
    }

    /// One connection of a user less.
    fn disconnect(&mut self, turn: &Turn<'_>, entry: &mut Entry, user: &UserId) {
        let Some(members) = entry.members_mut() else { return };
        let Some(here) = members.here.get_mut(user) else { return };
        here.connections -= 1;
        if here.connections > 0 {
            return;
        }
        let was_asked = here.asked.is_some();
        members.here.remove(user);
        if was_asked && self.is_draining {
            let until = turn.now.ms + LEAVING_MS;
            members.leaving.insert(user.clone(), until);
            self.leaving_until = self.leaving_until.max(until);
        } else if was_asked {
            members.owed.insert(user.clone());
        }
        if members.told.is_told_alone(user) && members.told.remove_alone(user) {
            // The store never said that the user is here, so it will not say that it is gone.
            self.tell_removed(entry, user.clone());
        }
    }

    fn change_made(
        &mut self,
        turn: &mut Turn<'_>,
        entry: &mut Entry,
        (token, asked): (Token, &Asked),
        mut changed: Changed,
    ) {
        let is_reading = asked.is_reading && !entry.is_read && !entry.is_overtaken;
        if is_reading {
            self.read(turn, entry, &mut changed);
        }
        if let Some((user, is_here)) = &asked.user {
            self.own_edge(turn, entry, (user, *is_here, token), &changed);
        }
        self.answer_changed(turn, entry, token, changed.at, is_reading);
        if is_reading && !entry.is_open {
            (entry.is_open, entry.opened_at) = (true, changed.at);
            entry.opened_with = entry.given_at_opening(changed.logged);
            self.replay(turn, entry, changed.at);
            self.check_if_doubtful(turn, entry);
        }
    }

    /// Takes in how things stand in the store.
    fn read(&mut self, turn: &mut Turn<'_>, entry: &mut Entry, changed: &mut Changed) {
        entry.is_read = true;
        // Where counts and edges are told already, those on their way are news: a newcomer's own count, or that somebody went.
        let is_first = !entry.is_open;
        if is_first && entry.newest < changed.at {
            (entry.newest, entry.is_newest_told) = (changed.at, false);
        }
        if let Some(kept) = &changed.cached {
            self.take_kept(turn, entry, kept);
        }
        // Told by now, or no longer what is kept.
        entry.passed_over = None;
        if let Some(roster) = changed.roster.take() {
            self.add_all(entry, &roster, changed.at);
            if let Some(members) = entry.members_mut().filter(|_| is_first) {
                members.floor = members.floor.max(changed.at);
            }
        }
    }

    fn take_kept(&mut self, turn: &Turn<'_>, entry: &mut Entry, kept: &Kept) {
        // What came over the bus is newer: it is on its way to the log.
        let is_older = entry.cached.as_ref().is_some_and(|own| own.at.is_none_or(|at| at >= kept.at));
        if let (Some(Message::Event(event)), false) = (Message::decode(&kept.message), is_older) {
            let Event { identity, frame, except, .. } = event;
            let is_owed = entry.passed_over.take().as_deref() == Some(&identity);
            let position = match entry.channel().filter(|_| is_owed) {
                Some(name) => {
                    let happening = Happening::Event { frame: frame.clone(), except };
                    self.post.deliver(&entry.followers, (&entry.app, name), identity, happening)
                }
                None => self.post.position(),
            };
            let (at, lapses) = (Some(kept.at), turn.now.ms.saturating_add(kept.ttl_ms));
            entry.keep(Cached { frame, identity, position, at, lapses });
        }
    }

    fn change_refused(&mut self, turn: &mut Turn<'_>, entry: &mut Entry, token: Token, asked: &Asked) {
        let waiting = entry.waiting.as_mut();
        let refused = waiting.and_then(|w| Some(w.take(w.joins.iter().position(|wait| wait.token == Some(token))?)));
        if let (Some((user, _)), Some(members)) = (&asked.user, entry.members_mut())
            && let Some(here) = members.here.get_mut(user)
        {
            here.asked = here.asked.filter(|first| *first != token);
            if refused.is_none() && here.asked.is_none() {
                // It was let in while nobody could say how many there are; that is not taken back.
                members.owed.insert(user.clone());
            }
        }
        if let Some(wait) = refused {
            entry.followers.remove(wait.worker);
            if let Some(user) = &wait.user {
                self.disconnect(turn, entry, user);
            }
            if entry.followers.all().is_empty() {
                entry.idle_since = turn.now.ms;
            }
            self.figures.waiting -= 1;
            let why = JoinRefusal::MembersFull { max: wait.members_max };
            self.post.answer(wait.worker, Answer::JoinRefused { ticket: wait.ticket, why });
        }
        // Changes behind this one hold a number that is one too high.
        let later = entry.waiting.as_ref().map_or(0, |waiting| waiting.unasked);
        entry.asked = if entry.in_flight == 0 { entry.wanted(later) } else { u32::MAX };
        self.release_counts(entry);
    }

    /// Answers the joins that this change holds. Where the cached event is to be read anew they wait on for that: it is asked for once
    /// nothing else is under way, so that whoever reads it answers all whose change was asked.
    fn answer_changed(&mut self, turn: &Turn<'_>, entry: &mut Entry, token: Token, at: LogId, is_reading: bool) {
        let Some(waiting) = &mut entry.waiting else { return };
        let asked = waiting.joins.iter_mut().take_while(|wait| wait.token.is_some());
        asked.filter(|wait| wait.token == Some(token)).for_each(|wait| wait.at = at);
        if entry.is_cache() && !entry.is_read {
            return;
        }
        let is_held = |wait: &Wait| {
            let is_made = if is_reading { wait.token.is_some() } else { wait.token == Some(token) };
            is_made && wait.edge_until.is_none()
        };
        loop {
            let Some(waiting) = &mut entry.waiting else { return };
            let Some(place) = waiting.joins.iter().position(is_held) else { break };
            let user = waiting.joins[place].user.clone();
            let is_unknown = user.is_some_and(|user| entry.members().is_some_and(|m| !m.told.has(&user)));
            let Some(waiting) = &mut entry.waiting else { return };
            if is_unknown && !is_reading {
                // Present through another node already; its edge, with what that connection said, is on its way.
                waiting.joins[place].edge_until = Some(turn.now.ms + EDGE_WAIT_MS);
                continue;
            }
            let wait = waiting.take(place);
            self.conclude(turn, entry, wait);
        }
        self.release_counts(entry);
    }

    /// Answers a join whose change was made, between the counts before it and its own.
    pub(super) fn conclude(&mut self, turn: &Turn<'_>, entry: &mut Entry, wait: Wait) {
        self.make_present(entry, &wait);
        if wait.counted {
            self.tell_counts(entry, |count| count < wait.at);
        }
        let at = wait.at;
        self.answer_join(turn, entry, wait);
        self.tell_counts(entry, |count| count <= at);
    }

    /// Answers from what is known here.
    pub(super) fn answer_join(&mut self, turn: &Turn<'_>, entry: &Entry, wait: Wait) {
        let roster = wait.user.and(entry.members()).map(|members| members.told.roster());
        let cached = if entry.is_cache() { entry.live(turn.now.ms).map(|cached| cached.frame.clone()) } else { None };
        self.figures.waiting -= 1;
        let position = self.post.position();
        self.post.answer(wait.worker, Answer::Joined { ticket: wait.ticket, position, roster, cached });
    }

    /// Answers all joins whose number the records hold already.
    pub(super) fn answer_unasked(&mut self, turn: &Turn<'_>, entry: &mut Entry) {
        while let Some(waiting) = &mut entry.waiting
            && waiting.unasked > 0
        {
            let wait = waiting.take(waiting.joins.len() - waiting.unasked);
            self.answer_join(turn, entry, wait);
        }
    }

    /// Answers those who have waited since `until` or longer although the records did not: nobody is refused because a store
    /// is away.
    pub(super) fn answer_alone(&mut self, turn: &mut Turn<'_>, entry: &mut Entry, until: u64) {
        let was_open = std::mem::replace(&mut entry.is_open, true);
        let mut place = 0;
        while let Some(waiting) = &mut entry.waiting
            && let Some(wait) = waiting.joins.get(place)
        {
            if wait.asked_ms > until {
                place += 1;
                continue;
            }
            let wait = waiting.take(place);
            self.make_present(entry, &wait);
            if let (None, Some(user), Some(members)) = (wait.token, &wait.user, entry.members_mut()) {
                members.owed.insert(user.clone());
            }
            self.figures.answered_alone += 1;
            self.answer_join(turn, entry, wait);
        }
        if !was_open {
            entry.opened_with = entry.given_at_opening(Arc::default());
            self.replay(turn, entry, LogId::default());
            // What was accepted until now and was not heard is in a log that is not, and would come behind what followed it.
            entry.since_ms = turn.now.ms;
        }
        self.release_counts(entry);
    }

    /// Whoever is answered is in its own roster, unless it has left meanwhile: nobody would say again that it is gone.
    fn make_present(&mut self, entry: &mut Entry, wait: &Wait) {
        let Some(user) = &wait.user else { return };
        let Some(members) = entry.members_mut().filter(|members| members.here.contains_key(user)) else { return };
        if members.told.has(user) {
            return;
        }
        let user_info = members.here.get(user).and_then(|here| here.user_info.clone());
        let member = Member { user_id: user.clone(), user_info };
        if wait.at == LogId::default() || !members.told.add(&member, wait.at) {
            members.told.add_alone(&member);
        }
        self.tell_added(entry, member);
    }
}

impl Entry {
    /// The last publications that were before everybody here: those that the log had, and the kept one, which may be on the bus still, or
    /// of a node that is not live any more.
    fn given_at_opening(&self, logged: Arc<[Identity]>) -> Arc<[Identity]> {
        let kept = self.cached.as_ref().map(|cached| cached.identity);
        let is_covered =
            |kept: &Identity| logged.iter().any(|of| of.origin == kept.origin && of.counter >= kept.counter);
        match kept.filter(|kept| !is_covered(kept)) {
            Some(kept) => logged.iter().copied().chain([kept]).collect(),
            None => logged,
        }
    }

    /// Whether a subscription such as is being left can exist here.
    fn can_leave(&self, from: WorkerId, leave: &Leave) -> bool {
        let is_member = match (&leave.user_id, self.members()) {
            (Some(user), Some(members)) => members.here.contains_key(user),
            (user, members) => user.is_none() && members.is_none(),
        };
        self.followers.has(from) && is_member
    }

    /// Whether the user is connected here and the records may not know it.
    pub(super) fn is_unrecorded(&self, user: &UserId) -> bool {
        self.members().is_some_and(|members| members.here.get(user).is_some_and(|here| !here.is_recorded))
    }
}
