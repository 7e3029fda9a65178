//! Several hubs over one pretend store that keeps records, decides edges and hands everything out in any interleaving.
//!
//! The store is what scripts promise to be: absolute changes, one log, edges published where they are decided. Each node
//! has one push stream and one stream of answers; nothing relates the two.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{
    Answer, Delivery, Identity, Join, Leave, Member, Question, SignIn, SignOut, Ticket, UserNotice,
};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::{SocketId, UserId};

use super::words::{APP, Dice, ticket_of, user};
use crate::redis::envelope::{Event, LogId, Message};
use crate::redis::hub::{Hub, HubFigures, HubSettings, Moment, Out};
use crate::redis::records::{Call, Change, Changed, Find, Found, Kept, MembersFull, Presence, Token, Told, Total};
use crate::redis::topic::Topic;
use crate::{Inbox, Outbox, WorkerId};

/// Whose the events of the pretend store are.
pub const ORIGIN: u64 = 99;
const WALL_US: u64 = 1_700_000_000_000_000;

/// What one worker was told, in order.
#[derive(Debug, Clone)]
pub enum Heard {
    Delivery(Arc<Delivery>),
    Notice(Arc<UserNotice>),
    Answer(Answer),
}

#[derive(Default)]
pub struct Recorder {
    heard: Mutex<Vec<Heard>>,
    pub is_full: AtomicBool,
}

impl Recorder {
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn answer_to(&self, ticket: Ticket) -> Option<Answer> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().find_map(|heard| match heard {
            Heard::Answer(answer) if ticket_of(answer) == Some(ticket) => Some(answer.clone()),
            _ => None,
        })
    }

    fn push(&self, heard: Heard) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
    }
}

impl Inbox for Recorder {
    fn has_room(&self) -> bool {
        !self.is_full.load(Ordering::SeqCst)
    }
    fn deliver(&self, delivery: Arc<Delivery>) {
        self.push(Heard::Delivery(delivery));
    }
    fn notice(&self, notice: Arc<UserNotice>) {
        self.push(Heard::Notice(notice));
    }
    fn answer(&self, answer: Answer) {
        self.push(Heard::Answer(answer));
    }
}

/// What one node says of one topic.
#[derive(Default, Clone)]
pub struct Record {
    pub subscriptions: u32,
    pub members: BTreeMap<UserId, Presence>,
}

enum Push {
    Confirmed(Topic),
    Message(Topic, LogId, Message),
}

pub struct Node {
    pub hub: Hub,
    pub inboxes: Vec<Arc<Recorder>>,
    /// Whether slots are on their way to another group.
    is_frozen: Arc<AtomicBool>,
    /// Interest to be confirmed, calls to be made, what was pushed and what was answered: each in order.
    follows: VecDeque<Topic>,
    pub calls: VecDeque<Call>,
    /// Under which token a roster was asked for last.
    pub roster_asked: Option<Token>,
    pushes: VecDeque<Push>,
    answers: VecDeque<Told>,
    pub subscribed: BTreeSet<Topic>,
    /// What the driver would do.
    pub done: Vec<Out>,
}

pub struct World {
    pub now: Moment,
    pub dice: Dice,
    pub nodes: Vec<Node>,
    pub records: BTreeMap<Topic, Vec<Record>>,
    pub log: BTreeMap<Topic, Vec<String>>,
    /// Each with when it lapses.
    cached: BTreeMap<Topic, (Kept, u64)>,
    head: u64,
    events: u64,
    tickets: u64,
    /// The store answers nothing and pushes nothing.
    pub is_away: bool,
    /// All nodes have looked after their records: totals say so.
    pub is_settled: bool,
}

impl World {
    pub fn new(seed: u64, nodes: usize, workers: usize) -> Self {
        Self::with_outbox(seed, nodes, workers, None)
    }

    pub fn with_outbox(seed: u64, nodes: usize, workers: usize, outbox: Option<Arc<dyn Outbox>>) -> Self {
        let mut world = Self::at_its_start(seed, nodes, workers, outbox);
        world.set_away(false);
        world
    }

    /// No node has found the group yet.
    pub fn at_its_start(seed: u64, nodes: usize, workers: usize, outbox: Option<Arc<dyn Outbox>>) -> Self {
        let nodes = (0..nodes).map(|n| Node::new(n as u64 + 1, workers, outbox.clone())).collect();
        Self {
            now: Moment { ms: 1_000, wall_us: WALL_US },
            dice: Dice(seed),
            nodes,
            records: BTreeMap::new(),
            log: BTreeMap::new(),
            cached: BTreeMap::new(),
            head: 0,
            events: 0,
            tickets: 0,
            is_away: true,
            is_settled: true,
        }
    }

    // What workers ask.

    pub fn join(&mut self, node: usize, worker: u8, join: Join) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket { session: u32::from(worker), number: self.tickets };
        self.ask(node, worker, Question::Join(Join { ticket, ..join }));
        ticket
    }

    pub fn leave(&mut self, node: usize, worker: u8, join: &Join) {
        let user_id = join.member.as_ref().map(|member| member.user_id.clone());
        let (app, channel, counted) = (join.app.clone(), join.channel.clone(), join.counted);
        self.ask(node, worker, Question::Leave(Leave { app, channel, user_id, counted }));
    }

    pub fn sign_in(&mut self, node: usize, worker: u8, id: &str, watchlist: &[&str]) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket { session: u32::from(worker), number: self.tickets };
        let watchlist = watchlist.iter().map(|id| user(id)).collect();
        let sign_in = SignIn { ticket, app: AppId::new(APP), user_id: user(id), watchlist };
        self.ask(node, worker, Question::SignIn(sign_in));
        ticket
    }

    pub fn sign_out(&mut self, node: usize, worker: u8, id: &str, watchlist: &[&str]) {
        let watchlist = watchlist.iter().map(|id| user(id)).collect();
        let sign_out = SignOut { app: AppId::new(APP), user_id: user(id), watchlist };
        self.ask(node, worker, Question::SignOut(sign_out));
    }

    pub fn ask(&mut self, node: usize, worker: u8, question: Question) {
        self.on(node, |hub, now, outs| hub.ask(now, WorkerId(worker), question, outs));
    }

    /// Does something with a hub, and what comes of it.
    pub fn on<T>(&mut self, node: usize, act: impl FnOnce(&mut Hub, Moment, &mut Vec<Out>) -> T) -> T {
        let mut outs = Vec::new();
        let node = &mut self.nodes[node];
        let result = act(&mut node.hub, self.now, &mut outs);
        for out in outs {
            match out {
                Out::Follow(topic) => node.follows.push_back(topic),
                Out::Unfollow(topic) => {
                    node.subscribed.remove(&topic);
                    node.follows.retain(|waiting| *waiting != topic);
                }
                Out::Call { call, .. } => {
                    if let Call::Roster { token, .. } = call {
                        node.roster_asked = Some(token);
                    }
                    node.calls.push_back(call);
                }
                other => node.done.push(other),
            }
        }
        result
    }

    // What the store does.

    /// Publishes an event through the log. Answers its text.
    pub fn event(&mut self, topic: &Topic, cache_for: Option<Duration>) -> String {
        let text = format!("event {}", self.events + 1);
        self.log.entry(topic.clone()).or_default().push(text.clone());
        self.publish(topic, Frame::new(&text), None, cache_for);
        text
    }

    pub fn publish(&mut self, topic: &Topic, frame: Frame, except: Option<SocketId>, cache_for: Option<Duration>) {
        self.events += 1;
        let identity = Identity { origin: ORIGIN, counter: self.events };
        let accepted_ms = self.now.ms;
        self.append(topic, Event { identity, previous: None, accepted_ms, repeat_of: 0, except, cache_for, frame });
    }

    /// Appends and publishes what some node accepted, maybe a while ago.
    pub fn append(&mut self, topic: &Topic, event: Event) {
        let at = self.keep(topic, event.clone());
        self.push(topic, at, &Message::Event(event));
    }

    /// Appends what some node accepted, and keeps it for later subscribers if it is to be kept.
    pub fn keep(&mut self, topic: &Topic, event: Event) -> LogId {
        let at = self.next_id();
        if let Some(kept) = event.cache_for {
            let lapses = self.now.ms + u64::try_from(kept.as_millis()).expect("a short time");
            self.cached.insert(topic.clone(), (Kept { at, message: event.encode(), ttl_ms: 0 }, lapses));
        }
        at
    }

    fn kept(&self, topic: &Topic) -> Option<Kept> {
        let (kept, lapses) = self.cached.get(topic).filter(|(_, lapses)| *lapses > self.now.ms)?;
        Some(Kept { ttl_ms: lapses - self.now.ms, ..kept.clone() })
    }

    pub fn push(&mut self, topic: &Topic, at: LogId, message: &Message) {
        for node in self.nodes.iter_mut().filter(|node| node.subscribed.contains(topic)) {
            node.pushes.push_back(Push::Message(topic.clone(), at, message.clone()));
        }
    }

    pub fn next_id(&mut self) -> LogId {
        self.head += 1;
        LogId::new(self.head, 0)
    }

    pub fn total(&self, topic: &Topic) -> u64 {
        self.records.get(topic).into_iter().flatten().map(|record| u64::from(record.subscriptions)).sum()
    }

    /// Everybody present, in the order of coming.
    pub fn roster(&self, topic: &Topic) -> Vec<(Member, u64)> {
        let mut first = BTreeMap::<UserId, Presence>::new();
        for (id, presence) in self.records.get(topic).into_iter().flatten().flat_map(|record| &record.members) {
            let known = first.entry(id.clone()).or_insert_with(|| presence.clone());
            if presence.since < known.since {
                *known = presence.clone();
            }
        }
        let member = |(user_id, p): (UserId, Presence)| (Member { user_id, user_info: p.user_info }, p.since);
        let mut roster: Vec<_> = first.into_iter().map(member).collect();
        roster.sort_by(|a, b| (a.1, a.0.user_id.as_str()).cmp(&(b.1, b.0.user_id.as_str())));
        roster
    }

    fn change(&mut self, node: usize, change: Change) -> Result<Changed, MembersFull> {
        let Change { topic, subscriptions, member, members_max, is_counted, .. } = change;
        let (total, users) = (self.total(&topic), self.roster(&topic));
        let was_present = |id: &UserId| users.iter().any(|(member, _)| member.user_id == *id);
        if let (Some((id, Some(_))), Some(max)) = (&member, members_max)
            && !was_present(id)
            && users.len() as u64 >= max
        {
            return Err(MembersFull);
        }
        let nodes = self.nodes.len();
        let record = &mut self.records.entry(topic.clone()).or_insert_with(|| vec![Record::default(); nodes])[node];
        record.subscriptions = subscriptions;
        if let Some((id, presence)) = &member {
            match presence {
                Some(presence) => drop(record.members.entry(id.clone()).or_insert_with(|| presence.clone())),
                None => drop(record.members.remove(id)),
            }
        }
        let mut changed = Changed { total: self.total(&topic), ..Changed::default() };
        changed.is_occupied = total == 0 && changed.total > 0;
        changed.is_vacated = total > 0 && changed.total == 0;
        let mut messages = Vec::new();
        if let Some((id, presence)) = &member {
            let is_present = self.roster(&topic).iter().any(|(member, _)| member.user_id == *id);
            changed.is_added = is_present && !was_present(id);
            changed.is_removed = !is_present && was_present(id);
            if let (true, Some(presence)) = (changed.is_added, presence) {
                let member = Member { user_id: id.clone(), user_info: presence.user_info.clone() };
                messages.push(Message::Added { member, since: presence.since });
            }
            if changed.is_removed {
                messages.push(Message::Removed(id.clone()));
            }
        }
        let is_user = topic.as_str().contains("::");
        if is_user && (changed.is_occupied || changed.is_vacated) {
            messages.push(if changed.is_occupied { Message::Online } else { Message::Offline });
        }
        if is_counted && changed.total != total {
            messages.push(Message::Count(changed.total));
        }
        if !messages.is_empty() {
            self.next_id();
        }
        changed.at = LogId::new(self.head, 0);
        messages.iter().for_each(|message| self.push(&topic, changed.at, message));
        changed.roster = change.wants_roster.then(|| self.roster(&topic));
        changed.cached = self.kept(&topic).filter(|_| change.wants_cached);
        if change.wants_logged {
            changed.logged = Arc::new([Identity { origin: ORIGIN, counter: self.events }]);
        }
        Ok(changed)
    }

    fn answer(&mut self, node: usize, call: Call) -> Told {
        match call {
            Call::Change(change) => {
                let token = change.token;
                Told::Changed { token, outcome: self.change(node, change) }
            }
            Call::Roster { token, topic } => {
                let (at, members) = (LogId::new(self.head, 0), self.roster(&topic));
                Told::Roster { token, topic, at, members, is_settled: true }
            }
            Call::Send { token, topic, message } => {
                let at = self.next_id();
                self.push(&topic, at, &Message::decode(&message).expect("hubs write messages"));
                Told::Sent { token }
            }
            Call::Find { token, what } => Told::Found { token, found: Some(self.find(what)) },
        }
    }

    fn find(&self, what: Find) -> Found {
        let total = |topic: Topic| {
            let (subscriptions, members) = (self.total(&topic), self.roster(&topic).len() as u64);
            Total { topic, subscriptions, members }
        };
        match what {
            Find::Prefix(prefix) => {
                let known = self.records.keys().filter(|topic| topic.as_str().starts_with(&prefix));
                Found::Listed(known.cloned().map(total).filter(|total| total.subscriptions > 0).collect())
            }
            Find::Topics(topics) => {
                Found::Totals { totals: topics.into_iter().map(total).collect(), is_settled: self.is_settled }
            }
            Find::Members(topic) => Found::Roster(self.roster(&topic).into_iter().map(|(member, _)| member).collect()),
            Find::Cached(topic) => Found::Cached(self.kept(&topic)),
        }
    }

    // One thing at a time, or everything.

    /// Lets one thing happen on a node that could; false when there was nothing of this kind.
    pub fn step(&mut self, node: usize, kind: usize) -> bool {
        match kind % 4 {
            0 if !self.is_away => {
                let Some(topic) = self.nodes[node].follows.pop_front() else { return false };
                self.nodes[node].subscribed.insert(topic.clone());
                self.nodes[node].pushes.push_back(Push::Confirmed(topic));
            }
            1 if !self.is_away => {
                let Some(call) = self.nodes[node].calls.pop_front() else { return false };
                let told = self.answer(node, call);
                self.nodes[node].answers.push_back(told);
            }
            2 => match self.nodes[node].pushes.pop_front() {
                Some(Push::Confirmed(topic)) => self.on(node, |hub, now, outs| hub.followed(now, topic.as_str(), outs)),
                Some(Push::Message(topic, at, message)) => {
                    self.on(node, |hub, now, outs| hub.heard(now, topic.as_str(), Some(at), message, outs));
                }
                None => return false,
            },
            3 => {
                let Some(told) = self.nodes[node].answers.pop_front() else { return false };
                self.on(node, |hub, now, outs| hub.told(now, 0, told, outs));
            }
            _ => return false,
        }
        true
    }

    /// Lets everything under way come to its end, in a random order.
    pub fn drain(&mut self) {
        loop {
            let count = 4 * self.nodes.len();
            let start = self.dice.roll(count);
            let happened = (start..start + count).map(|n| n % count).any(|n| self.step(n / 4, n % 4));
            if !happened && !self.tick() {
                return;
            }
        }
    }

    /// Ticks every hub that wants it now; true when that made calls.
    pub fn tick(&mut self) -> bool {
        let mut has_calls = false;
        for node in 0..self.nodes.len() {
            if self.nodes[node].hub.next_deadline().is_some_and(|due| due <= self.now.ms) {
                self.on(node, |hub, now, outs| hub.tick(now, outs));
                has_calls |= !self.nodes[node].calls.is_empty() && !self.is_away;
            }
        }
        has_calls
    }

    pub fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.wall_us += ms * 1_000;
        self.tick();
    }

    /// Lets time pass in small steps, with everything happening in between.
    pub fn live(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(50) {
            self.pass(50);
            self.drain();
        }
    }

    /// Tells all hubs that the group's primary answers no more, or again.
    pub fn set_away(&mut self, is_away: bool) {
        self.is_away = is_away;
        for node in 0..self.nodes.len() {
            self.on(node, |hub, now, outs| hub.group_is_away(now, 0, is_away, outs));
        }
    }

    /// The store answers nobody, though the group is there; because its slots are on their way to another, or just so.
    pub fn answers_nobody(&mut self, is_frozen: bool) {
        self.is_away = true;
        self.nodes.iter().for_each(|node| node.is_frozen.store(is_frozen, Ordering::SeqCst));
    }

    pub fn told(&mut self, node: usize, told: Told) {
        self.on(node, |hub, now, outs| hub.told(now, 0, told, outs));
    }

    // What was heard.

    pub fn heard(&self, node: usize, worker: u8) -> Vec<Heard> {
        self.nodes[node].inboxes[usize::from(worker)].heard()
    }

    /// The answer to a question.
    pub fn answer_to(&self, node: usize, ticket: Ticket) -> Option<Answer> {
        let worker = u8::try_from(ticket.session).expect("sessions are workers here");
        self.nodes[node].inboxes[usize::from(worker)].answer_to(ticket)
    }

    pub fn figures(&self, node: usize) -> HubFigures {
        self.nodes[node].hub.figures()
    }
}

impl Node {
    fn new(origin: u64, workers: usize, outbox: Option<Arc<dyn Outbox>>) -> Self {
        let is_frozen = Arc::new(AtomicBool::new(false));
        let frozen = is_frozen.clone();
        let settings = HubSettings {
            origin,
            groups: 1,
            group_of: Box::new(|_| 0),
            is_frozen: Box::new(move |_| frozen.load(Ordering::SeqCst)),
            linger: Duration::from_secs(10),
            outbox,
        };
        let mut hub = Hub::new(settings);
        let inboxes: Vec<Arc<Recorder>> = (0..workers).map(|_| Arc::default()).collect();
        for (worker, inbox) in inboxes.iter().enumerate() {
            hub.attach(WorkerId(u8::try_from(worker).expect("few workers")), Arc::clone(inbox) as _);
        }
        Self {
            hub,
            is_frozen,
            inboxes,
            follows: VecDeque::new(),
            calls: VecDeque::new(),
            roster_asked: None,
            pushes: VecDeque::new(),
            answers: VecDeque::new(),
            subscribed: BTreeSet::new(),
            done: Vec::new(),
        }
    }
}
