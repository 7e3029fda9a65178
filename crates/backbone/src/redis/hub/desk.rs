//! What is under way: changes asked of the records, alarms of topics, sign-ins that wait, rosters being compared.
//!
//! Everything here is about several topics or none; what concerns one is in its entry, which the hub hands in. It asks and
//! keeps time, and leaves what an answer means to [`super::joins`], [`super::members`] and [`super::users`].

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use foldhash::quality::RandomState;
use fulmar_protocol::name::UserId;
use fulmar_protocol::webhook::{EventKind, Kinds};
use hashbrown::{HashMap, HashSet};

use super::post::Post;
use super::queries::Queries;
use super::topics::{Entry, Members, NextAsk, Subject, User};
use super::users::SigningIn;
use super::{HubFigures, HubSettings, Moment, Out, To};
use crate::redis::millis;
use crate::redis::records::{Call, Change, Presence, Token};
use crate::redis::topic::Topic;

/// How long an answer is waited for before one is given from what is known here, while the group is away.
pub(super) const PATIENCE_MS: u64 = 1_000;

/// The same, whatever is said of the group: nobody is left waiting for a defect either.
pub(super) const PATIENCE_MAX_MS: u64 = 5_000;

/// How often it is looked at again whether somebody has waited long enough.
pub(super) const PATIENCE_AGAIN_MS: u64 = 100;

/// Joins and sign-ins that wait at once. Beyond it they are refused; that is more than a node has connections that could
/// all ask within [`PATIENCE_MS`].
pub(super) const WAITING_MAX: u64 = 262_144;

/// How long a lookup of totals may take before it is made again.
pub(super) const FIND_TIMEOUT_MS: u64 = 1_000;

/// One turn of the hub: when it is, and what comes of it.
pub(super) struct Turn<'a> {
    pub(super) now: Moment,
    pub(super) outs: &'a mut Vec<Out>,
}

/// A change on its way.
pub(super) struct Asked {
    pub(super) topic: Topic,
    /// Whose presence it says, and whether it says that the user is here.
    pub(super) user: Option<(UserId, bool)>,
    /// The answer holds how things stood.
    pub(super) is_reading: bool,
}

/// A termination on its way.
pub(super) struct Sending {
    pub(super) token: Token,
    pub(super) topic: Topic,
    /// It was heard already.
    pub(super) is_heard: bool,
}

pub(super) struct Desk {
    pub(super) settings: HubSettings,
    pub(super) post: Post,
    pub(super) changes: HashMap<Token, Asked, RandomState>,
    pub(super) sign_ins: HashMap<u64, SigningIn, RandomState>,
    /// Sign-ins that nothing holds up any more.
    pub(super) ready: Vec<u64>,
    /// Topics whose totals are to be looked up, gathered until the next tick.
    pub(super) to_find: Vec<Topic>,
    /// Lookups without an answer.
    pub(super) finding: HashSet<Token, RandomState>,
    pub(super) sending: VecDeque<Sending>,
    pub(super) checks: VecDeque<Topic>,
    pub(super) checks_in_flight: usize,
    pub(super) queries: Queries,
    /// By group; so is one that was never here.
    pub(super) is_away: Vec<bool>,
    pub(super) figures: HubFigures,
    /// See [`Hub::drain`](super::Hub::drain).
    pub(super) is_draining: bool,
    /// When nobody who left is on record any more.
    pub(super) leaving_until: u64,
    alarms: BinaryHeap<Reverse<(u64, Topic)>>,
    tokens: u64,
    last_since: u64,
}

impl Desk {
    pub(super) fn new(settings: HubSettings) -> Self {
        Self {
            post: Post::new(settings.origin),
            is_away: vec![true; settings.groups],
            settings,
            changes: HashMap::default(),
            sign_ins: HashMap::default(),
            ready: Vec::new(),
            to_find: Vec::new(),
            finding: HashSet::default(),
            sending: VecDeque::new(),
            checks: VecDeque::new(),
            checks_in_flight: 0,
            queries: Queries::default(),
            figures: HubFigures::default(),
            is_draining: false,
            leaving_until: 0,
            alarms: BinaryHeap::new(),
            tokens: 0,
            last_since: 0,
        }
    }

    pub(super) fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    pub(super) fn group_of(&self, topic: &Topic) -> usize {
        (self.settings.group_of)(topic.slot())
    }

    /// When a member came: rises with each, so that a roster has the order of coming also within a microsecond.
    pub(super) fn since(&mut self, now: Moment) -> u64 {
        self.last_since = now.wall_us.max(self.last_since + 1);
        self.last_since
    }

    /// Whether somebody who has waited since then is to be answered from what is known here.
    pub(super) fn is_patience_over(&self, topic: &Topic, since_ms: u64, now_ms: u64) -> bool {
        let waited = now_ms.saturating_sub(since_ms);
        let is_away = || {
            let is_group_away = self.is_away.get(self.group_of(topic)).copied().unwrap_or(false);
            is_group_away || (self.settings.is_frozen)(topic.slot())
        };
        waited >= PATIENCE_MAX_MS || (waited >= PATIENCE_MS && is_away())
    }

    /// Asks the records whatever is to be asked of them now.
    pub(super) fn pump(&mut self, turn: &mut Turn<'_>, entry: &mut Entry) {
        while let Some(next) = entry.next_ask() {
            match next {
                NextAsk::Joins => self.ask_for_all(turn, entry),
                NextAsk::Join => self.ask_for_one(turn, entry),
                NextAsk::Owed => self.ask_owed(turn, entry),
                NextAsk::Count => {
                    let count = entry.wanted(0);
                    self.ask(turn, entry, (None, None), (count, false));
                    entry.user_mut().into_iter().for_each(User::ask_for_all);
                }
            }
        }
    }

    fn ask_for_all(&mut self, turn: &mut Turn<'_>, entry: &mut Entry) {
        let count = entry.wanted(0);
        let is_asked_already = entry.is_read && entry.in_flight == 0 && entry.asked == count;
        if is_asked_already {
            // Somebody left and somebody came while another change was on its way: the records hold the number already.
            self.answer_unasked(turn, entry);
            return;
        }
        let token = self.ask(turn, entry, (None, None), (count, true));
        if let Some(waiting) = &mut entry.waiting {
            let first = waiting.joins.len() - waiting.unasked;
            waiting.joins.range_mut(first..).for_each(|wait| wait.token = Some(token));
            waiting.unasked = 0;
        }
    }

    fn ask_for_one(&mut self, turn: &mut Turn<'_>, entry: &mut Entry) {
        let Some(waiting) = &mut entry.waiting else { return };
        let later = waiting.unasked - 1;
        let Some(wait) = waiting.first_unasked() else { return };
        let (user, members_max) = (wait.user.clone(), wait.members_max as u64);
        let count = entry.wanted(later);
        let member = user.filter(|user| entry.is_unrecorded(user));
        let members_max = member.is_some().then_some(members_max);
        let token = self.ask(turn, entry, (member, members_max), (count, true));
        if let Some(waiting) = &mut entry.waiting {
            if let Some(wait) = waiting.first_unasked() {
                wait.token = Some(token);
            }
            waiting.unasked = later;
        }
    }

    /// Says how things stand with a user, without a limit: it is here already, or gone already.
    fn ask_owed(&mut self, turn: &mut Turn<'_>, entry: &mut Entry) {
        let count = entry.wanted(entry.waiting.as_ref().map_or(0, |waiting| waiting.unasked));
        let Some(members) = entry.members_mut() else { return };
        let Some(user) = members.owed.pop_first() else { return };
        let is_said = members.here.get(&user).is_some_and(|here| here.asked.is_some());
        if !is_said {
            self.ask(turn, entry, (Some(user), None), (count, false));
        }
    }

    /// One change. `user` is said to be here or gone, as the entry has it; a join has a limit, or has no need of one.
    fn ask(
        &mut self,
        turn: &mut Turn<'_>,
        entry: &mut Entry,
        (user, members_max): (Option<UserId>, Option<u64>),
        (subscriptions, is_join): (u32, bool),
    ) -> Token {
        let token = self.token();
        entry.asked = subscriptions;
        entry.in_flight += 1;
        let said = match (entry.members_mut(), &user) {
            (Some(members), Some(user)) => Some(say(members, user, token)),
            _ => None,
        };
        let user = said.as_ref().map(|(user, here)| (user.clone(), here.is_some()));
        self.changes.insert(token, Asked { topic: entry.topic.clone(), user, is_reading: !entry.is_read });
        let change = Change {
            token,
            topic: entry.topic.clone(),
            subscriptions,
            member: said,
            members_max,
            is_counted: entry.is_counted,
            wants_roster: !entry.is_read && entry.members().is_some(),
            wants_cached: !entry.is_read && entry.is_cache(),
            wants_logged: !entry.is_open && entry.channel().is_some(),
            hooks: if is_join { self.hooks(entry) } else { without_misses(self.hooks(entry)) },
        };
        turn.outs.push(Out::Call { to: To::Slot(entry.topic.slot()), call: Call::Change(change) });
        token
    }

    pub(super) fn hooks(&self, entry: &Entry) -> Kinds {
        let Some(outbox) = &self.settings.outbox else { return Kinds::NONE };
        match &entry.subject {
            Subject::Channel(name) | Subject::Presence(name, _) => outbox.wanted(&entry.app, name),
            Subject::User(..) => outbox.wanted_of_users(&entry.app),
        }
    }

    /// Sees to it that the hub looks at the entry when something of it is due. Called after whatever changed it.
    pub(super) fn set_alarm(&mut self, turn: &Turn<'_>, entry: &mut Entry) {
        let Some(due) = entry.due(self.linger_ms()) else { return };
        // What is overdue already was just looked at.
        let due = due.max(turn.now.ms + 1);
        if entry.alarm.is_none_or(|alarm| due < alarm) {
            entry.alarm = Some(due);
            self.alarms.push(Reverse((due, entry.topic.clone())));
        }
    }

    pub(super) fn linger_ms(&self) -> u64 {
        millis(self.settings.linger)
    }

    /// The next topic whose alarm is due.
    pub(super) fn next_alarm(&mut self, now_ms: u64) -> Option<(u64, Topic)> {
        let Reverse((due, _)) = self.alarms.peek()?;
        if *due > now_ms {
            return None;
        }
        self.alarms.pop().map(|Reverse(alarm)| alarm)
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        if !self.to_find.is_empty() {
            return Some(0);
        }
        self.alarms.peek().map(|Reverse((due, _))| *due)
    }

    /// The alarm of an entry rang: answers those who have waited long enough.
    pub(super) fn patience_due(&mut self, turn: &mut Turn<'_>, entry: &mut Entry) {
        let now_ms = turn.now.ms;
        let Some(waiting) = entry.waiting.as_ref().filter(|waiting| waiting.patience_ends <= now_ms) else { return };
        let Some(first) = waiting.joins.front() else { return };
        if self.is_patience_over(&entry.topic, first.asked_ms, now_ms) {
            self.answer_alone(turn, entry, now_ms.saturating_sub(PATIENCE_MS));
        }
        if let Some(waiting) = &mut entry.waiting {
            let oldest = waiting.joins.front().map(|wait| wait.asked_ms + PATIENCE_MS);
            waiting.patience_ends = oldest.map_or(u64::MAX, |ends| ends.max(now_ms + PATIENCE_AGAIN_MS));
        }
    }
}

/// Only who comes can miss a cached event.
fn without_misses(kinds: Kinds) -> Kinds {
    kinds.iter().filter(|kind| *kind != EventKind::CacheMiss).collect()
}

/// What the records are told of a user, and that it was asked.
fn say(members: &mut Members, user: &UserId, token: Token) -> (UserId, Option<Presence>) {
    let here = members.here.get_mut(user).map(|here| {
        here.asked.get_or_insert(token);
        Presence { user_info: here.user_info.clone(), since: here.since }
    });
    (user.clone(), here)
}

impl Entry {
    /// When something of it is due.
    fn due(&self, linger_ms: u64) -> Option<u64> {
        let mut due = None;
        let mut at = |when: u64| due = Some(due.map_or(when, |due: u64| due.min(when)));
        if self.is_idle() {
            at(self.idle_since.saturating_add(linger_ms));
        }
        let waiting = self.waiting.as_ref().filter(|waiting| !waiting.joins.is_empty());
        waiting.map(|waiting| waiting.patience_ends).into_iter().for_each(&mut at);
        match &self.subject {
            Subject::Channel(_) => {}
            Subject::Presence(_, members) => {
                members.check.and_then(|check| check.due()).into_iter().for_each(&mut at);
                members.leaving.values().copied().for_each(&mut at);
                let asked = self.waiting.iter().flat_map(|w| &w.joins).take_while(|wait| wait.token.is_some());
                asked.filter_map(|wait| wait.edge_until).for_each(&mut at);
            }
            Subject::User(_, user) => {
                user.leaves_at.into_iter().for_each(&mut at);
                user.waits_since.map(|_| user.patience_ends).into_iter().for_each(&mut at);
                user.finding.map(|since| since + FIND_TIMEOUT_MS).into_iter().for_each(&mut at);
                user.look_again.into_iter().for_each(&mut at);
            }
        }
        due
    }
}
