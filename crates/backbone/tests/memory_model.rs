//! The embedded backbone against a model too simple to be wrong: lists, searched from the beginning, on one thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fulmar_backbone::memory::{CACHE_BYTES_MAX_DEFAULT, Clock, ManualClock, Memory};
use fulmar_backbone::{Backbone, CachedEvent, ChannelState, Inbox, Query, Reply, Terms, WorkerId};
use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{
    Answer, Delivery, Happening, Join, Leave, Member, Publication, Question, Ticket, UserNotice,
};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::{ChannelName, UserId};
use proptest::prelude::*;

const WORKERS: u8 = 3;
const MEMBERS_MAX: usize = 2;
/// App and channel.
const PLACES: [(&str, &str); 5] =
    [("a", "room"), ("a", "cache-room"), ("a", "presence-room"), ("a", "presence-cache-room"), ("b", "presence-room")];

#[derive(Debug, Clone)]
enum Op {
    Join { worker: u8, place: usize, user: u8, counted: bool },
    Leave { worker: u8, place: usize, user: u8, counted: bool },
    Publish(Vec<(usize, Option<u8>)>),
    Say { worker: u8, place: usize },
    Pass(u8),
    Fill { worker: u8, is_full: bool },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let place = 0..PLACES.len();
    let who = (0..WORKERS, place.clone(), 0..4u8, any::<bool>());
    let published = (place.clone(), proptest::option::of(1..20u8));
    let op = prop_oneof![
        5 => who.clone().prop_map(|(worker, place, user, counted)| Op::Join { worker, place, user, counted }),
        5 => who.prop_map(|(worker, place, user, counted)| Op::Leave { worker, place, user, counted }),
        4 => proptest::collection::vec(published, 1..4).prop_map(Op::Publish),
        1 => (0..WORKERS, place).prop_map(|(worker, place)| Op::Say { worker, place }),
        1 => (1..10u8).prop_map(Op::Pass),
        1 => (0..WORKERS, any::<bool>()).prop_map(|(worker, is_full)| Op::Fill { worker, is_full }),
    ];
    proptest::collection::vec(op, 1..80)
}

#[derive(Default)]
struct Recorder {
    heard: Mutex<Vec<Arc<Delivery>>>,
    is_full: AtomicBool,
}

impl Inbox for Recorder {
    fn has_room(&self) -> bool {
        !self.is_full.load(Ordering::SeqCst)
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
    }

    fn notice(&self, _: Arc<UserNotice>) {}

    fn answer(&self, _: Answer) {}
}

/// What a worker hears, as text: place and happening.
type Line = (usize, String);

/// The simple truth.
#[derive(Default)]
struct Model {
    /// Worker, place and user of every subscription, in the order they were made.
    subscriptions: Vec<(u8, usize, Option<String>)>,
    /// Per place: user and first info, in order of coming.
    rosters: BTreeMap<usize, Vec<(String, String)>>,
    cached: BTreeMap<usize, (String, Duration)>,
    full: Vec<u8>,
    heard: BTreeMap<u8, Vec<Line>>,
}

impl Model {
    fn followers(&self, place: usize) -> Vec<u8> {
        let mut workers: Vec<u8> = self.subscriptions.iter().filter(|s| s.1 == place).map(|s| s.0).collect();
        workers.sort_unstable();
        workers.dedup();
        workers
    }

    fn count(&self, place: usize) -> usize {
        self.subscriptions.iter().filter(|s| s.1 == place).count()
    }

    fn tell(&mut self, place: usize, what: &str) {
        for worker in self.followers(place) {
            self.heard.entry(worker).or_default().push((place, what.to_owned()));
        }
    }

    /// The roster and the cached text of the answer, or nothing when it is refused.
    fn join(&mut self, by: (u8, usize, Option<String>), counted: bool, info: &str, now: Duration) -> Option<String> {
        let place = by.1;
        let user = by.2.clone();
        let roster = self.rosters.entry(place).or_default();
        let is_new = user.as_ref().is_some_and(|user| !roster.iter().any(|(present, _)| present == user));
        if is_new && roster.len() >= MEMBERS_MAX {
            return None;
        }
        self.subscriptions.push(by);
        if let Some(user) = user.filter(|_| is_new) {
            self.rosters.entry(place).or_default().push((user.clone(), info.to_owned()));
            self.tell(place, &format!("+{user} {info}"));
        }
        if counted {
            self.tell(place, &format!("={}", self.count(place)));
        }
        let roster = &self.rosters[&place];
        let cached = self.cached.get(&place).filter(|(_, lapses)| now < *lapses && PLACES[place].1.contains("cache-"));
        Some(format!("{roster:?} {:?}", cached.map(|(text, _)| text)))
    }

    fn leave(&mut self, by: &(u8, usize, Option<String>), counted: bool) {
        let follows = |s: &(u8, usize, Option<String>)| s.0 == by.0 && s.1 == by.1;
        // A backbone counts the connections of a user over all workers, so any of them can be the one that ends.
        let is_present = |s: &(u8, usize, Option<String>)| s.1 == by.1 && s.2 == by.2;
        if !self.subscriptions.iter().any(follows) || !self.subscriptions.iter().any(is_present) {
            return;
        }
        let own = self.subscriptions.iter().position(|s| s == by);
        let Some(own) = own else { panic!("the operations leave only what the worker has, or strangers") };
        self.subscriptions.remove(own);
        let is_last = !self.subscriptions.iter().any(is_present);
        if let Some(user) = by.2.as_ref().filter(|_| is_last) {
            self.rosters.entry(by.1).or_default().retain(|(present, _)| present != user);
            self.tell(by.1, &format!("-{user}"));
        }
        if counted && self.count(by.1) > 0 {
            self.tell(by.1, &format!("={}", self.count(by.1)));
        }
    }

    fn publish(&mut self, call: &[(usize, Option<Duration>, String)], now: Duration) -> bool {
        if call.iter().any(|(place, ..)| self.followers(*place).iter().any(|w| self.full.contains(w))) {
            return false;
        }
        for (place, cache_for, text) in call {
            self.tell(*place, text);
            if let Some(cache_for) = cache_for {
                self.cached.insert(*place, (text.clone(), now + *cache_for));
            }
        }
        true
    }
}

struct Pair {
    memory: Memory,
    clock: Arc<ManualClock>,
    inboxes: Vec<Arc<Recorder>>,
    model: Model,
    events: usize,
}

impl Pair {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let memory = Memory::new(1, CACHE_BYTES_MAX_DEFAULT, Arc::clone(&clock) as _);
        let inboxes: Vec<Arc<Recorder>> = (0..WORKERS).map(|_| Arc::default()).collect();
        for inbox in &inboxes {
            memory.attach(Arc::clone(inbox) as _);
        }
        Self { memory, clock, inboxes, model: Model::default(), events: 0 }
    }

    fn perform(&mut self, op: Op) {
        match op {
            Op::Join { worker, place, user, counted } => self.join((worker, place, user_at(place, user)), counted),
            Op::Leave { worker, place, user, counted } => self.leave(&(worker, place, user_at(place, user)), counted),
            Op::Publish(events) => {
                let call: Vec<_> = events.iter().map(|(place, ttl)| (*place, ttl.map(seconds), self.text())).collect();
                let accepted = self.model.publish(&call, self.clock.now());
                let publications = call.iter().map(|(place, ttl, text)| publication(*place, *ttl, text)).collect();
                assert_eq!(ready(self.memory.publish(publications, Terms::default())).is_ok(), accepted);
            }
            Op::Say { worker, place } => {
                let text = self.text();
                self.model.publish(&[(place, None, text.clone())], self.clock.now());
                let said = Question::Publish(publication(place, None, &text));
                assert!(self.memory.ask(WorkerId(worker), said).is_none());
            }
            Op::Pass(s) => self.clock.pass(seconds(s)),
            Op::Fill { worker, is_full } => {
                self.inboxes[usize::from(worker)].is_full.store(is_full, Ordering::SeqCst);
                self.model.full.retain(|w| *w != worker);
                self.model.full.extend(is_full.then_some(worker));
            }
        }
    }

    fn text(&mut self) -> String {
        self.events += 1;
        format!("event {}", self.events)
    }

    fn join(&mut self, by: (u8, usize, Option<String>), counted: bool) {
        let info = self.text();
        let expected = self.model.join(by.clone(), counted, &info, self.clock.now());
        let (worker, place, user) = by;
        let (app, channel) = at(place);
        let member = user.map(|user| Member { user_id: user_id(&user), user_info: Some(info.as_str().into()) });
        let ticket = Ticket { session: 0, number: 0 };
        let join = Join { ticket, app, channel, member, members_max: MEMBERS_MAX, counted };
        let answer = self.memory.ask(WorkerId(worker), Question::Join(join)).expect("answered at once");
        let answer = match answer {
            Answer::Joined { roster, cached, .. } => {
                let roster = roster.unwrap_or_default();
                Some(format!("{:?} {:?}", flat(&roster), cached.map(|frame| frame.text().to_owned()).as_ref()))
            }
            Answer::JoinRefused { .. } => None,
            other => panic!("a join is not answered with {other:?}"),
        };
        assert_eq!(answer, expected);
    }

    fn leave(&mut self, by: &(u8, usize, Option<String>), counted: bool) {
        // A worker that follows the channel never names a user it did not bring: that is the caller's promise.
        let follows = self.model.subscriptions.iter().any(|s| s.0 == by.0 && s.1 == by.1);
        if follows && !self.model.subscriptions.contains(by) {
            return;
        }
        self.model.leave(by, counted);
        let (app, channel) = at(by.1);
        let leave = Leave { app, channel, user_id: by.2.as_deref().map(user_id), counted };
        assert!(self.memory.ask(WorkerId(by.0), Question::Leave(leave)).is_none());
    }

    fn check(&self) {
        for worker in 0..WORKERS {
            let heard = self.inboxes[usize::from(worker)].heard.lock().unwrap_or_else(PoisonError::into_inner);
            let lines: Vec<Line> = heard.iter().map(|d| line(d)).collect();
            assert_eq!(lines, self.model.heard.get(&worker).cloned().unwrap_or_default(), "worker {worker}");
            for place in 0..PLACES.len() {
                let along: Vec<_> = heard.iter().filter(|d| line(d).0 == place).map(|d| d.position).collect();
                assert!(along.windows(2).all(|pair| pair[0] < pair[1]), "positions rise");
            }
        }
        for place in 0..PLACES.len() {
            self.check_place(place);
        }
        for app in ["a", "b"] {
            let occupied = (0..PLACES.len()).filter(|p| PLACES[*p].0 == app && self.model.count(*p) > 0).count();
            let query = Query::Channels { app: AppId::new(app), prefix: String::new() };
            assert_eq!(states(ready(self.memory.query(query))).len(), occupied);
        }
    }

    fn check_place(&self, place: usize) {
        let (app, channel) = at(place);
        let named = Query::Named { app: app.clone(), channels: vec![channel.clone()] };
        let state = states(ready(self.memory.query(named)));
        let roster = self.model.rosters.get(&place).cloned().unwrap_or_default();
        let (subscriptions, members) = (self.model.count(place) as u64, roster.len() as u64);
        assert_eq!(state, [ChannelState { channel: channel.clone(), subscriptions, members }]);
        let present = ready(self.memory.query(Query::Members { app: app.clone(), channel: channel.clone() }));
        assert!(matches!(present, Ok(Reply::Members(present)) if flat(&present) == roster));
        let cached = match ready(self.memory.query(Query::Cached { app, channel })) {
            Ok(Reply::Cached(cached)) => {
                cached.map(|CachedEvent { frame, ttl_s, .. }| (frame.text().to_owned(), ttl_s))
            }
            other => panic!("a cached event is answered with one, not {other:?}"),
        };
        let now = self.clock.now();
        let live = self.model.cached.get(&place).filter(|(_, lapses)| now < *lapses);
        assert_eq!(cached, live.map(|(text, lapses)| (text.clone(), (*lapses - now).as_secs())));
    }
}

fn seconds(s: u8) -> Duration {
    Duration::from_secs(s.into())
}

fn at(place: usize) -> (AppId, ChannelName) {
    (AppId::new(PLACES[place].0), ChannelName::parse(PLACES[place].1, 200).expect("a valid name"))
}

fn user_at(place: usize, user: u8) -> Option<String> {
    PLACES[place].1.starts_with("presence-").then(|| format!("u{user}"))
}

fn user_id(user: &str) -> UserId {
    UserId::parse(user, 100).expect("a valid id")
}

fn flat(roster: &[Member]) -> Vec<(String, String)> {
    let info = |m: &Member| m.user_info.as_deref().unwrap_or_default().to_owned();
    roster.iter().map(|m| (m.user_id.as_str().to_owned(), info(m))).collect()
}

fn publication(place: usize, cache_for: Option<Duration>, text: &str) -> Publication {
    let (app, channel) = at(place);
    Publication { app, channel, frame: Frame::new(text), except: None, cache_for }
}

fn line(delivery: &Delivery) -> Line {
    let is_at = |&(app, channel): &(&str, &str)| app == delivery.app.as_str() && channel == delivery.channel.as_str();
    let place = PLACES.iter().position(is_at).expect("only known places are used");
    let text = match &delivery.happening {
        Happening::Event { frame, .. } => frame.text().to_owned(),
        Happening::MemberAdded(m) => format!("+{} {}", m.user_id.as_str(), m.user_info.as_deref().unwrap_or_default()),
        Happening::MemberRemoved(user) => format!("-{}", user.as_str()),
        Happening::Count(count) => format!("={count}"),
        Happening::Missed => panic!("memory misses nothing"),
    };
    (place, text)
}

fn states<E: std::fmt::Debug>(reply: Result<Reply, E>) -> Vec<ChannelState> {
    match reply {
        Ok(Reply::Channels(states)) => states,
        other => panic!("channels are answered with channels, not {other:?}"),
    }
}

/// The value of a future that is ready.
fn ready<T>(mut future: fulmar_backbone::Pending<'_, T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("the embedded backbone never lets anybody wait"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// DEL-1, DEL-2, DEL-3, DEL-4, DEL-6, DEL-13, DEL-14, DEL-15
    #[test]
    fn whatever_is_done_in_whatever_order_the_backbone_agrees_with_the_model(ops in ops()) {
        let mut pair = Pair::new();
        for op in ops {
            pair.perform(op);
            pair.check();
        }
    }
}
