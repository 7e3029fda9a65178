//! Who came and went on presence channels: edges of this node and of others, and rosters read anew when they are in doubt.
//!
//! An edge becomes a delivery only where it changes what was told ([`super::roster`]). Who is connected to this node is
//! never told to be gone by a comparison: the records are mended from here, not the other way round.

use fulmar_protocol::exchange::{Happening, Member};
use fulmar_protocol::name::UserId;

use super::desk::{Desk, Turn};
use super::topics::{Check, Entry, Stage, Subject, Wait};
use super::{Hub, Out, To};
use crate::redis::envelope::LogId;
use crate::redis::records::{Call, Changed, Token};
use crate::redis::topic::{Slot, Topic};

/// How long a join waits for the edge of a user who is present through another node, for what that connection said.
pub(super) const EDGE_WAIT_MS: u64 = 250;

/// Rosters read at once: a store that has just come back has better things to do.
const CHECKS_MAX: usize = 64;

/// A roster that is not settled is read again after this.
const CHECK_AGAIN_MS: u64 = 300;

/// Beyond this the doubt is dropped; the next audit brings it back.
const CHECK_FOR_MS: u64 = 3_000;

/// A roster that was not answered until then is asked for again.
pub(super) const ROSTER_TIMEOUT_MS: u64 = 5_000;

impl Hub {
    /// What was told of a topic, or of everything in the group, may be wrong.
    pub(super) fn doubt(&mut self, turn: &mut Turn<'_>, group: usize, topic: Option<&Topic>) {
        let Self { topics, desk } = self;
        let Some(topic) = topic else {
            let mut concerned = Vec::new();
            for entry in topics.iter_mut().filter(|entry| desk.group_of(&entry.topic) == group) {
                entry.forget_places();
                if !matches!(entry.subject, Subject::Channel(_)) {
                    concerned.push(entry.topic.clone());
                }
            }
            return concerned.iter().for_each(|topic| self.doubt(turn, group, Some(topic)));
        };
        let Some(entry) = topics.find_mut(topic.as_str()) else { return };
        let is_idle = entry.is_idle();
        match &mut entry.subject {
            // Nobody would hear the difference. Whoever comes back reads how things stand.
            Subject::Presence(..) | Subject::User(..) if is_idle => entry.close(),
            Subject::Channel(_) => return,
            Subject::Presence(_, members) => {
                members.is_doubtful = true;
                desk.check_if_doubtful(turn, entry);
            }
            Subject::User(_, user) => user.doubt(),
        }
        desk.settle(turn, entry);
        self.ask_rosters(turn);
    }

    /// The group's log is another server's from now on.
    pub fn other_log(&mut self, group: usize) {
        let Self { topics, desk } = self;
        topics.iter_mut().filter(|entry| desk.group_of(&entry.topic) == group).for_each(Entry::forget_log);
    }

    /// The same for whatever has moved to another group.
    pub(super) fn doubt_moved(&mut self, turn: &mut Turn<'_>, has_moved: impl Fn(Slot) -> bool) {
        let mut concerned = Vec::new();
        for entry in self.topics.iter_mut().filter(|entry| has_moved(entry.topic.slot())) {
            entry.forget_log();
            if !matches!(entry.subject, Subject::Channel(_)) {
                concerned.push(entry.topic.clone());
            }
        }
        concerned.iter().for_each(|topic| self.doubt(turn, 0, Some(topic)));
    }

    /// Reads rosters, a few at a time.
    pub(super) fn ask_rosters(&mut self, turn: &mut Turn<'_>) {
        while self.desk.checks_in_flight < CHECKS_MAX
            && let Some(topic) = self.desk.checks.pop_front()
        {
            let Some(entry) = self.topics.find_mut(topic.as_str()) else { continue };
            let Some(check) = entry.members_mut().and_then(|members| members.check.as_mut()) else { continue };
            if check.stage != Stage::Queued {
                continue;
            }
            let token = self.desk.token();
            check.stage = Stage::Asked(turn.now.ms, token);
            self.desk.checks_in_flight += 1;
            turn.outs.push(Out::Call { to: To::Slot(topic.slot()), call: Call::Roster { token, topic } });
            self.desk.set_alarm(turn, entry);
        }
    }

    /// A roster was read. One that was asked for before the doubt that stands now tells of nobody: what was remembered of edges since is
    /// forgotten with each doubt, and who left meanwhile would come once more.
    pub(super) fn roster(
        &mut self,
        turn: &mut Turn<'_>,
        (token, topic): (Token, &Topic),
        (at, is_settled): (LogId, bool),
        roster: &[(Member, u64)],
    ) {
        let Some(entry) = self.topics.find_mut(topic.as_str()) else { return };
        let Some(members) = entry.members_mut() else { return };
        let asked = members.check.take_if(|check| matches!(check.stage, Stage::Asked(_, asked) if asked == token));
        let Some(Check { began, .. }) = asked else { return };
        self.desk.checks_in_flight = self.desk.checks_in_flight.saturating_sub(1);
        let again = turn.now.ms + CHECK_AGAIN_MS;
        let is_over = is_settled || again > began + CHECK_FOR_MS;
        members.check = (!is_over).then_some(Check { began, stage: Stage::Again(again) });
        if entry.is_open {
            self.desk.compare(turn, entry, (at, is_settled), roster);
        }
        self.desk.settle(turn, entry);
        self.ask_rosters(turn);
    }
}

impl Desk {
    /// An edge was heard.
    pub(super) fn heard_added(&mut self, turn: &Turn<'_>, entry: &mut Entry, member: Member, at: LogId) {
        let Some(members) = entry.members_mut().filter(|members| at > members.floor) else { return };
        if members.told.add(&member, at) {
            self.tell_added(entry, member);
        }
        self.conclude_known(turn, entry);
    }

    /// An edge was heard.
    pub(super) fn heard_removed(&mut self, turn: &Turn<'_>, entry: &mut Entry, user: UserId, at: LogId) {
        let Some(members) = entry.members_mut().filter(|members| at > members.floor) else { return };
        if members.told.remove(&user, at, turn.now.ms) {
            self.tell_removed(entry, user);
        }
    }

    /// A change of this node was made. Told at once, so that a newcomer is in its own roster whenever the edge is heard.
    pub(super) fn own_edge(
        &mut self,
        turn: &Turn<'_>,
        entry: &mut Entry,
        (user, is_here, token): (&UserId, bool, Token),
        changed: &Changed,
    ) {
        let Some(members) = entry.members_mut() else { return };
        if !is_here {
            if changed.is_removed && members.told.remove(user, changed.at, turn.now.ms) {
                self.tell_removed(entry, user.clone());
            }
            return;
        }
        // Who has left in the meantime is told of by the edges themselves, when they are heard.
        let Some(here) = members.here.get_mut(user).filter(|h| h.asked.is_some_and(|first| first <= token)) else {
            return;
        };
        here.is_recorded = true;
        let member = Member { user_id: user.clone(), user_info: here.user_info.clone() };
        let is_known = changed.is_added || members.told.has(user);
        if is_known && members.told.add(&member, changed.at) {
            self.tell_added(entry, member);
        }
    }

    /// Everybody of a roster read is present. Answers how many had not been told.
    pub(super) fn add_all(&mut self, entry: &mut Entry, roster: &[(Member, u64)], at: LogId) -> u64 {
        let mut added = 0;
        for (member, _) in roster {
            if entry.members_mut().is_some_and(|members| members.told.add(member, at)) {
                added += 1;
                self.tell_added(entry, member.clone());
            }
        }
        added
    }

    fn compare(
        &mut self,
        turn: &Turn<'_>,
        entry: &mut Entry,
        (at, is_settled): (LogId, bool),
        roster: &[(Member, u64)],
    ) {
        self.figures.edges_mended += self.add_all(entry, roster, at);
        self.conclude_known(turn, entry);
        let Some(members) = entry.members_mut().filter(|_| is_settled) else { return };
        // Edges up to here are in it, coming and going alike: those still on their way are no news. So nobody needs to be
        // remembered as gone; and whoever is found there again, with nothing said in between, must come back.
        members.floor = members.floor.max(at);
        let mut gone = members.told.missing_from(roster, at);
        gone.retain(|user| !members.here.contains_key(user));
        for user in gone {
            let is_new = entry.members_mut().is_some_and(|members| members.told.remove_alone(&user));
            if is_new {
                self.figures.edges_mended += 1;
                self.tell_removed(entry, user);
            }
        }
    }

    /// Begins a comparison where one is due and somebody here would hear of it.
    pub(super) fn check_if_doubtful(&mut self, turn: &Turn<'_>, entry: &mut Entry) {
        if !entry.is_open {
            return;
        }
        let Some(members) = entry.members_mut().filter(|members| members.is_doubtful) else { return };
        members.is_doubtful = false;
        let is_queued = members.check.is_some_and(|check| check.stage == Stage::Queued);
        self.begin_check(entry, turn.now.ms, is_queued);
    }

    /// Nobody waits for this roster any more.
    pub(super) fn end_check(&mut self, entry: &mut Entry) {
        let check = entry.members_mut().and_then(|members| members.check.take());
        if check.is_some_and(|check| matches!(check.stage, Stage::Asked(..))) {
            self.checks_in_flight = self.checks_in_flight.saturating_sub(1);
        }
    }

    fn begin_check(&mut self, entry: &mut Entry, began: u64, is_queued: bool) {
        let topic = entry.topic.clone();
        // What comes back may be older than the doubt.
        self.end_check(entry);
        let Some(members) = entry.members_mut() else { return };
        members.check = Some(Check { began, stage: Stage::Queued });
        if !is_queued {
            self.checks.push_back(topic);
        }
    }

    /// The alarm of an entry rang: asks again, and gives up waiting for edges.
    pub(super) fn members_due(&mut self, turn: &Turn<'_>, entry: &mut Entry) {
        let now_ms = turn.now.ms;
        let Some(members) = entry.members_mut() else { return };
        for user in members.leaving.extract_if(|_, until| *until <= now_ms).map(|(user, _)| user) {
            members.owed.insert(user);
        }
        let overdue = members.check.filter(|check| check.due().is_some_and(|due| due <= now_ms));
        if let Some(check) = overdue {
            self.begin_check(entry, check.began, false);
        }
        let is_over = |wait: &Wait| wait.edge_until.is_some_and(|until| until <= now_ms);
        self.conclude_where(turn, entry, |_, wait| is_over(wait));
    }

    /// Answers joins that waited for an edge that has come.
    fn conclude_known(&mut self, turn: &Turn<'_>, entry: &mut Entry) {
        self.conclude_where(turn, entry, |entry, wait| {
            let is_told = |user| entry.members().is_some_and(|members| members.told.has(user));
            wait.edge_until.is_some() && wait.user.as_ref().is_some_and(is_told)
        });
    }

    fn conclude_where(&mut self, turn: &Turn<'_>, entry: &mut Entry, is_due: impl Fn(&Entry, &Wait) -> bool) {
        loop {
            // Those who wait for an edge are among the first: behind them are those whose change is under way or not asked.
            let waits = entry.waiting.iter().flat_map(|w| &w.joins).take_while(|wait| wait.token.is_some());
            let Some(place) = waits.into_iter().position(|wait| is_due(entry, wait)) else { return };
            let Some(waiting) = &mut entry.waiting else { return };
            let wait = waiting.take(place);
            self.conclude(turn, entry, wait);
            self.release_counts(entry);
        }
    }

    pub(super) fn tell_added(&mut self, entry: &Entry, member: Member) {
        self.tell(entry, Happening::MemberAdded(member));
    }

    pub(super) fn tell_removed(&mut self, entry: &Entry, user: UserId) {
        self.tell(entry, Happening::MemberRemoved(user));
    }

    /// Tells subscribers of a change, once there can be any.
    pub(super) fn tell(&mut self, entry: &Entry, happening: Happening) {
        if let (true, Some(name)) = (entry.is_open, entry.channel()) {
            self.post.tell(&entry.followers, (&entry.app, name), happening);
        }
    }
}
