//! What this node knows of one topic, and the table of all of them.
//!
//! Plain data: nothing here is told to anybody. There are as many entries as topics with interest, so what few of them
//! have is boxed.

use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;
use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Identity, Position, Ticket};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::{ChannelName, UserId};
use hashbrown::{HashMap, HashTable};

use super::roster::{Here, Present};
use crate::WorkerId;
use crate::followers::Followers;
use crate::redis::envelope::{Event, LogId, Message};
use crate::redis::records::Token;
use crate::redis::topic::{About, Topic};

/// A table this much larger than what it holds gives memory back.
const SHRINK_BELOW: usize = 8;

/// Changes of one topic on their way to the records where each is one edge of its own. The rest waits here and is asked
/// as it then stands, so that a store that is away finds a short list when it is back.
const CHANGES_MAX: u32 = 64;

/// How long who leaves a node that goes away stays on record: long enough to connect elsewhere.
pub(super) const LEAVING_MS: u64 = 5_000;

/// One topic with interest.
pub(super) struct Entry {
    pub(super) topic: Topic,
    pub(super) app: AppId,
    pub(super) subject: Subject,
    /// Workers with subscriptions, or with connections signed in as the user.
    pub(super) followers: Followers,
    /// Subscriptions that the records were last asked to hold.
    pub(super) asked: u32,
    /// Changes without an answer.
    pub(super) in_flight: u32,
    /// The primary confirmed the interest.
    pub(super) is_followed: bool,
    /// How things stand in the store was read.
    pub(super) is_read: bool,
    /// Something was missed since the changes under way were asked: what they read may be from before.
    pub(super) is_overtaken: bool,
    /// What is heard is told. Until then it is held.
    pub(super) is_open: bool,
    /// Subscribers are told how many they are.
    pub(super) is_counted: bool,
    /// An app's own server is told of each subscriber whom no cached event awaits.
    pub(super) is_miss_told: bool,
    /// Where it was opened with what had been read: events up to there are older than everybody here, cached ones included.
    pub(super) opened_at: LogId,
    /// The last publications that the log had when it was opened, and the kept event that was given: what their nodes accepted before
    /// them is older than everybody here, too, by whatever way it comes.
    pub(super) opened_with: Arc<[Identity]>,
    /// When the interest began that it was opened for: what was accepted before is not for it. Ages leave out what a message was on
    /// its way, so that it seems younger.
    pub(super) since_ms: u64,
    /// Place of the last count told, or of the last edge of a user.
    pub(super) newest: LogId,
    /// Whether the count at exactly that place was told.
    pub(super) is_newest_told: bool,
    /// When the hub looks at it next.
    pub(super) alarm: Option<u64>,
    /// When the last subscriber went.
    pub(super) idle_since: u64,
    pub(super) waiting: Option<Box<Waiting>>,
    pub(super) cached: Option<Box<Cached>>,
    /// An event of a cache channel that is older than the interest here, though what was given may lack it: told if the store keeps it.
    pub(super) passed_over: Option<Box<Identity>>,
}

/// What the topic is.
pub(super) enum Subject {
    Channel(ChannelName),
    /// A channel whose members see each other.
    Presence(ChannelName, Box<Members>),
    User(UserId, Box<User>),
}

/// Who waits for an answer, and what waits for them.
pub(super) struct Waiting {
    /// In the order they came. Those whose change was not asked yet are the last [`Waiting::unasked`].
    pub(super) joins: VecDeque<Wait>,
    pub(super) unasked: usize,
    /// Heard before the topic was open.
    pub(super) held: Vec<(Option<LogId>, Message)>,
    /// Counts that must not be told before the newcomers whose own they may be.
    pub(super) counts: Vec<(LogId, u64)>,
    /// When the first of them asked: publications accepted earlier are not theirs.
    pub(super) since_ms: u64,
    /// When it is looked at whether somebody has waited long enough.
    pub(super) patience_ends: u64,
}

/// A join without an answer.
pub(super) struct Wait {
    pub(super) ticket: Ticket,
    pub(super) worker: WorkerId,
    pub(super) user: Option<UserId>,
    pub(super) members_max: usize,
    pub(super) counted: bool,
    pub(super) asked_ms: u64,
    /// The change that holds it, once asked.
    pub(super) token: Option<Token>,
    /// The change was made, but the edge of the user is still on its way from another node: waited for until then.
    pub(super) edge_until: Option<u64>,
    /// Place of the change.
    pub(super) at: LogId,
}

/// The members' part of a topic.
#[derive(Default)]
pub(super) struct Members {
    pub(super) told: Present,
    /// Users connected to this node.
    pub(super) here: HashMap<UserId, Here, RandomState>,
    /// Users of whom the records must be told how things stand.
    pub(super) owed: BTreeSet<UserId>,
    /// Users who left while the node goes away, and until when they stay on record.
    pub(super) leaving: HashMap<UserId, u64, RandomState>,
    /// Everything up to here is in `told` already.
    pub(super) floor: LogId,
    /// What was told must be compared once the topic is open.
    pub(super) is_doubtful: bool,
    pub(super) check: Option<Check>,
}

/// A comparison of what was told with what the records hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check {
    /// When the doubt came.
    pub(super) began: u64,
    pub(super) stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// In line.
    Queued,
    /// Asked at, under this token.
    Asked(u64, Token),
    /// To be asked again at.
    Again(u64),
}

impl Check {
    pub(super) fn due(&self) -> Option<u64> {
        match self.stage {
            Stage::Queued => None,
            Stage::Asked(at, _) => Some(at + super::members::ROSTER_TIMEOUT_MS),
            Stage::Again(at) => Some(at),
        }
    }
}

/// A user's part of a topic.
#[derive(Default)]
pub(super) struct User {
    /// Workers with connections that watch the user.
    pub(super) watchers: Followers,
    /// As the watchers were told.
    pub(super) is_online: bool,
    /// When the user counts as gone from this node.
    pub(super) leaves_at: Option<u64>,
    /// Sign-ins whose change was not asked yet.
    pub(super) unrecorded: Vec<u64>,
    /// Sign-ins whose change was asked.
    pub(super) recording: Vec<u64>,
    /// Sign-ins that wait for the topic to open.
    pub(super) opening: Vec<u64>,
    /// The total is being looked up, since then.
    pub(super) finding: Option<u64>,
    /// Whoever waits here has waited since then.
    pub(super) waits_since: Option<u64>,
    /// When it is looked at whether that is long enough.
    pub(super) patience_ends: u64,
    /// The total is to be looked up whatever was read before.
    pub(super) must_find: bool,
    /// An edge came while the total was being looked up, so that nobody can say which of them is newer.
    pub(super) is_overtaken: bool,
    /// When it is looked up again, the total found last being no last word.
    pub(super) look_again: Option<u64>,
    /// A termination told here already is heard once more until then.
    pub(super) echo_until: u64,
    /// Place of the last termination.
    pub(super) terminated: LogId,
}

/// The last event of a cache channel.
pub(super) struct Cached {
    pub(super) frame: Frame,
    pub(super) identity: Identity,
    pub(super) position: Position,
    pub(super) at: Option<LogId>,
    pub(super) lapses: u64,
}

/// What is to be asked of the records next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextAsk {
    /// All joins not asked yet, at once.
    Joins,
    /// The first of them alone: it may make an edge that is only its own.
    Join,
    /// A user owed.
    Owed,
    /// The number of subscriptions alone.
    Count,
}

impl Entry {
    /// Whether a publication was accepted before there was interest here: such things are heard over the bus, which is wound back, from
    /// a log that is read again, or when they are appended a second time. Places belong to one log, and ages are told.
    pub(super) fn is_older_than_interest(&self, at: Option<LogId>, event: &Event) -> bool {
        self.was_given(at, event) || event.accepted_ms < self.since_ms
    }

    /// Whether a publication was there when it was read how things stand: by its place, or by how far its node had come, unless it lies
    /// behind (slots that move overtake each other). What was given as the cached event is that wherever it comes.
    pub(super) fn was_given(&self, at: Option<LogId>, event: &Event) -> bool {
        let is_behind = self.opened_at != LogId::default() && at.is_some_and(|at| at > self.opened_at);
        let is_covered = |given: &Identity| {
            let is_before = given.origin == event.identity.origin && event.identity.counter <= given.counter;
            is_before && !(is_behind && given.counter != event.identity.counter)
        };
        at.is_some_and(|at| at <= self.opened_at) || self.opened_with.iter().any(is_covered)
    }

    pub(super) fn new(topic: &Topic, now_ms: u64) -> Self {
        let (app, subject) = match topic.about() {
            About::Channel(app, name) if name.kind().is_presence() => (app, Subject::Presence(name, Box::default())),
            About::Channel(app, name) => (app, Subject::Channel(name)),
            About::User(app, user) => (app, Subject::User(user, Box::default())),
        };
        Self {
            topic: topic.clone(),
            app,
            subject,
            followers: Followers::default(),
            asked: 0,
            in_flight: 0,
            is_followed: false,
            is_read: false,
            is_overtaken: false,
            is_open: false,
            is_counted: false,
            is_miss_told: false,
            opened_at: LogId::default(),
            opened_with: Arc::default(),
            since_ms: 0,
            newest: LogId::default(),
            is_newest_told: false,
            alarm: None,
            idle_since: now_ms,
            waiting: None,
            cached: None,
            passed_over: None,
        }
    }

    /// The channel's name; nothing for a user.
    pub(super) fn channel(&self) -> Option<&ChannelName> {
        match &self.subject {
            Subject::Channel(name) | Subject::Presence(name, _) => Some(name),
            Subject::User(..) => None,
        }
    }

    pub(super) fn members(&self) -> Option<&Members> {
        match &self.subject {
            Subject::Presence(_, members) => Some(members),
            _ => None,
        }
    }

    pub(super) fn members_mut(&mut self) -> Option<&mut Members> {
        match &mut self.subject {
            Subject::Presence(_, members) => Some(members),
            _ => None,
        }
    }

    pub(super) fn user_mut(&mut self) -> Option<&mut User> {
        match &mut self.subject {
            Subject::User(_, user) => Some(user),
            _ => None,
        }
    }

    pub(super) fn is_cache(&self) -> bool {
        self.channel().is_some_and(|name| name.kind().is_cache())
    }

    /// Whether each join and leave is an edge that somebody must hear.
    fn is_each_its_own(&self) -> bool {
        self.is_counted || self.is_miss_told || matches!(self.subject, Subject::Presence(..))
    }

    fn unasked(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.unasked)
    }

    /// Subscriptions that the records should hold, `later` joins not counted.
    pub(super) fn wanted(&self, later: usize) -> u32 {
        let total = self.followers.total();
        // Who left as the last one stays on record for a while.
        let stays = matches!(&self.subject, Subject::User(_, user) if total == 0 && user.leaves_at.is_some());
        let leaving = self.members().map_or(0, |members| members.leaving.len());
        let total = if stays { 1 } else { total + leaving as u64 };
        u32::try_from(total.saturating_sub(later as u64)).unwrap_or(u32::MAX)
    }

    pub(super) fn next_ask(&self) -> Option<NextAsk> {
        let changes_max = if self.is_read && self.is_each_its_own() { CHANGES_MAX } else { 1 };
        if !self.is_followed || self.in_flight >= changes_max {
            return None;
        }
        if self.unasked() > 0 {
            return Some(if self.is_each_its_own() { NextAsk::Join } else { NextAsk::Joins });
        }
        if self.members().is_some_and(|members| !members.owed.is_empty()) {
            return Some(NextAsk::Owed);
        }
        let must_read = !self.is_read && self.in_flight == 0 && self.channel().is_some() && self.wanted(0) > 0;
        (self.wanted(0) != self.asked || must_read).then_some(NextAsk::Count)
    }

    /// Whether nobody here needs it.
    pub(super) fn is_idle(&self) -> bool {
        let is_unused = match &self.subject {
            Subject::User(_, user) => {
                user.watchers.all().is_empty() && user.leaves_at.is_none() && user.opening.is_empty()
            }
            _ => true,
        };
        is_unused && self.followers.all().is_empty()
    }

    /// Whether nobody needs it and nothing is under way.
    pub(super) fn is_over(&self) -> bool {
        self.is_idle() && self.in_flight == 0 && (self.asked == 0 || !self.is_followed)
    }

    /// The cached event unless its time is over.
    pub(super) fn live(&self, now_ms: u64) -> Option<&Cached> {
        self.cached.as_deref().filter(|cached| now_ms < cached.lapses)
    }

    /// Keeps the event unless a later one is kept already.
    pub(super) fn keep(&mut self, new: Cached) {
        let is_later = |known: &Cached| new.at.zip(known.at).is_none_or(|(new, known)| new > known);
        if self.cached.as_deref().is_none_or(is_later) {
            self.cached = Some(Box::new(new));
        }
    }

    /// The event kept of a cache channel may not be the last any more: it is read anew, at once or for whoever comes next, and nobody
    /// is answered before.
    pub(super) fn doubt_cached(&mut self) {
        if !self.is_cache() {
            return;
        }
        (self.cached, self.is_read) = (None, false);
        self.is_overtaken = self.in_flight > 0;
        // The roster is read with it, and has those whose edge was waited for.
        let waits = self.waiting.iter_mut().flat_map(|waiting| &mut waiting.joins);
        waits.for_each(|wait| wait.edge_until = None);
    }

    /// Forgets what was told, with nobody here who was told it. Whoever comes reads anew how things stand.
    pub(super) fn close(&mut self) {
        (self.is_open, self.is_read) = (false, false);
        (self.cached, self.passed_over) = (None, None);
        match &mut self.subject {
            Subject::Channel(_) => {}
            Subject::Presence(_, members) => {
                members.told = Present::default();
                members.is_doubtful = false;
            }
            Subject::User(_, user) => user.is_online = false,
        }
    }

    /// The log is another: its places cannot be compared with those before.
    pub(super) fn forget_log(&mut self) {
        self.opened_at = LogId::default();
        self.forget_places();
    }

    /// Forgets which places of the log were told of: what was told may be wrong.
    pub(super) fn forget_places(&mut self) {
        self.newest = LogId::default();
        match &mut self.subject {
            Subject::Channel(_) => {}
            Subject::Presence(_, members) => {
                members.floor = LogId::default();
                members.told.forget_places();
            }
            Subject::User(_, user) => user.terminated = LogId::default(),
        }
        if let Some(cached) = &mut self.cached {
            cached.at = None;
        }
    }

    /// Frees the record of who waits when nobody does.
    pub(super) fn stop_waiting(&mut self) {
        let is_needed = |w: &Waiting| !w.joins.is_empty() || !w.held.is_empty() || !w.counts.is_empty();
        if self.waiting.as_deref().is_some_and(|waiting| !is_needed(waiting)) {
            self.waiting = None;
        }
    }
}

impl Waiting {
    pub(super) fn new(since_ms: u64) -> Self {
        Self {
            joins: VecDeque::new(),
            unasked: 0,
            held: Vec::new(),
            counts: Vec::new(),
            since_ms,
            patience_ends: u64::MAX,
        }
    }

    /// Whether somebody waits whose coming is counted.
    pub(super) fn is_counting(&self) -> bool {
        self.joins.iter().any(|wait| wait.counted)
    }

    pub(super) fn first_unasked(&mut self) -> Option<&mut Wait> {
        let at = self.joins.len() - self.unasked;
        self.joins.get_mut(at)
    }

    /// Takes out a join by its place.
    pub(super) fn take(&mut self, at: usize) -> Wait {
        if at >= self.joins.len() - self.unasked {
            self.unasked -= 1;
        }
        self.joins.remove(at).expect("the caller has found it there")
    }
}

/// All topics with interest.
#[derive(Default)]
pub(super) struct Topics {
    table: HashTable<Entry>,
    hasher: RandomState,
}

impl Topics {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn find(&self, topic: &str) -> Option<&Entry> {
        self.table.find(self.hasher.hash_one(topic), |entry| entry.topic.as_str() == topic)
    }

    pub(super) fn find_mut(&mut self, topic: &str) -> Option<&mut Entry> {
        self.table.find_mut(self.hasher.hash_one(topic), |entry| entry.topic.as_str() == topic)
    }

    /// The entry, made when there is none; true when it was.
    pub(super) fn occupy(&mut self, topic: &Topic, now_ms: u64) -> (&mut Entry, bool) {
        let Self { table, hasher } = self;
        let hash = hasher.hash_one(topic.as_str());
        let entry = table.entry(hash, |e| e.topic == *topic, |e| hasher.hash_one(e.topic.as_str()));
        let is_new = matches!(entry, hashbrown::hash_table::Entry::Vacant(_));
        (entry.or_insert_with(|| Entry::new(topic, now_ms)).into_mut(), is_new)
    }

    pub(super) fn remove(&mut self, topic: &str) {
        let hash = self.hasher.hash_one(topic);
        if let Ok(found) = self.table.find_entry(hash, |entry| entry.topic.as_str() == topic) {
            found.remove();
        }
        if self.table.capacity() > SHRINK_BELOW * (self.table.len() + SHRINK_BELOW) {
            let hasher = &self.hasher;
            self.table.shrink_to(self.table.len() * 2, |e| hasher.hash_one(e.topic.as_str()));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.table.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.table.iter_mut()
    }
}
