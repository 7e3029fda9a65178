//! Workers that write down what they hear, and short ways to say what they ask.
//!
//! Judges nothing beyond what every answer must look like; that is for the cases.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{
    Absence, Answer, Delivery, Happening, Join, JoinRefusal, Leave, Member, OFFLINE_AFTER, Position, Publication,
    Question, Roster, SignIn, SignOut, Ticket, UserNotice,
};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::{CHANNEL_NAME_CEILING, ChannelName, SocketId, UserId};

use super::Fixture;
use crate::{Backbone, CachedEvent, ChannelState, Inbox, PublishError, Query, Reply, Terms, WorkerId};

/// A future is polled again after this though nobody woke it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The app of cases that need one only.
pub(super) const APP: &str = "app";

/// Before everything.
pub(super) const START: Position = Position(0);

/// A worker of the fixture, with an inbox that remembers.
pub(super) struct Worker {
    pub(super) backbone: Arc<dyn Backbone>,
    id: WorkerId,
    inbox: Arc<Recorder>,
    tickets: AtomicU64,
}

/// An [`Answer::Joined`], taken apart.
#[derive(Debug, Clone)]
pub(super) struct Joined {
    pub(super) position: Position,
    pub(super) roster: Option<Roster>,
    pub(super) cached: Option<String>,
}

struct Recorder {
    patience: Duration,
    is_full: AtomicBool,
    calls: AtomicU64,
    heard: Mutex<Heard>,
    news: Condvar,
}

#[derive(Default)]
struct Heard {
    deliveries: Vec<Arc<Delivery>>,
    notices: Vec<Arc<UserNotice>>,
    answers: Vec<Answer>,
}

impl Inbox for Recorder {
    fn has_room(&self) -> bool {
        !self.is_full.load(Ordering::SeqCst)
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        // Lets others run just now and then: whatever was not made one step by the backbone comes apart here.
        if self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            std::thread::yield_now();
        }
        self.change(|heard| heard.deliveries.push(delivery));
    }

    fn notice(&self, notice: Arc<UserNotice>) {
        self.change(|heard| heard.notices.push(notice));
    }

    fn answer(&self, answer: Answer) {
        self.change(|heard| heard.answers.push(answer));
    }
}

impl Recorder {
    fn new(patience: Duration) -> Self {
        let (is_full, calls, heard, news) = Default::default();
        Self { patience, is_full, calls, heard, news }
    }

    fn change(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        self.news.notify_all();
    }

    /// Waits until `pick` finds what it looks for.
    fn wait<T>(&self, what: &str, mut pick: impl FnMut(&mut Heard) -> Option<T>) -> T {
        let deadline = Instant::now() + self.patience;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = pick(&mut heard) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what}");
            heard = self.news.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Fixture {
    /// The worker with this index, on the node whose turn it is. The first is always on the first node.
    pub(super) fn worker(&self, index: usize) -> Worker {
        let backbone = Arc::clone(&self.nodes[index % self.nodes.len()]);
        let inbox = Arc::new(Recorder::new(self.outage.patience));
        let id = backbone.attach(Arc::clone(&inbox) as Arc<dyn Inbox>);
        Worker { backbone, id, inbox, tickets: AtomicU64::new(0) }
    }

    pub(super) fn workers<const N: usize>(&self) -> [Worker; N] {
        std::array::from_fn(|index| self.worker(index))
    }

    /// Publishes through the first node.
    pub(super) fn publish(&self, publications: Vec<Publication>) -> Result<(), PublishError> {
        wait_for(self.nodes[0].publish(publications, Terms::default()))
    }

    /// Publishes one event that must be accepted.
    pub(super) fn event(&self, channel: &str, text: &str) {
        assert_eq!(self.publish(vec![publication(channel, text)]), Ok(()));
    }

    /// Publishes one event that must be accepted and is kept for later subscribers.
    pub(super) fn cached_event(&self, channel: &str, text: &str, cache_for: Duration) {
        let kept = Publication { cache_for: Some(cache_for), ..publication(channel, text) };
        assert_eq!(self.publish(vec![kept]), Ok(()));
    }

    pub(super) fn channels(&self, app: &str, prefix: &str) -> Vec<ChannelState> {
        let query = Query::Channels { app: AppId::new(app), prefix: prefix.to_owned() };
        let Reply::Channels(mut states) = self.query(query) else { panic!("channels are answered with channels") };
        states.sort_by(|a, b| a.channel.cmp(&b.channel));
        states
    }

    /// Subscriptions and distinct users of channels, in the order asked.
    pub(super) fn named(&self, channels: &[&str]) -> Vec<(u64, u64)> {
        self.named_by(0, channels).expect("the backbone of a fixture is available")
    }

    /// What one of the nodes says of them; nothing while it cannot.
    pub(super) fn named_by(&self, node: usize, channels: &[&str]) -> Option<Vec<(u64, u64)>> {
        let names: Vec<_> = channels.iter().map(|name| channel(name)).collect();
        let query = Query::Named { app: AppId::new(APP), channels: names.clone() };
        let Reply::Channels(states) = self.query_by(node, query)? else {
            panic!("channels are answered with channels")
        };
        assert_eq!(states.iter().map(|s| s.channel.clone()).collect::<Vec<_>>(), names, "in the order asked");
        Some(states.iter().map(|s| (s.subscriptions, s.members)).collect())
    }

    pub(super) fn members(&self, name: &str) -> Vec<String> {
        self.members_by(0, name).expect("the backbone of a fixture is available")
    }

    /// What one of the nodes says of it; nothing while it cannot.
    pub(super) fn members_by(&self, node: usize, name: &str) -> Option<Vec<String>> {
        let query = Query::Members { app: AppId::new(APP), channel: channel(name) };
        let Reply::Members(members) = self.query_by(node, query)? else { panic!("members are answered with members") };
        Some(ids(&members))
    }

    pub(super) fn cached(&self, name: &str) -> Option<CachedEvent> {
        let Reply::Cached(cached) = self.query(Query::Cached { app: AppId::new(APP), channel: channel(name) }) else {
            panic!("a cached event is answered with one")
        };
        cached
    }

    /// Ends all connections of a user.
    pub(super) fn terminate(&self, user: &str) {
        wait_for(self.nodes[0].terminate(AppId::new(APP), user_id(user))).expect("a fixture's backbone is available");
    }

    fn query(&self, query: Query) -> Reply {
        self.query_by(0, query).expect("the backbone of a fixture is available")
    }

    fn query_by(&self, node: usize, query: Query) -> Option<Reply> {
        wait_for(self.nodes[node].query(query)).ok()
    }

    /// Publishes a marker and waits until all of these have heard it: what came before it on the channel has come.
    pub(super) fn fence(&self, channel: &str, workers: &[&Worker]) {
        static FENCES: AtomicU64 = AtomicU64::new(0);
        let marker = format!("fence {}", FENCES.fetch_add(1, Ordering::Relaxed));
        self.event(channel, &marker);
        for worker in workers {
            worker.await_text(channel, &marker);
        }
    }

    /// Waits until the deployment agrees; for what a backbone of several nodes may take a moment to tell.
    pub(super) fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + self.outage.patience;
        while !holds() {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            std::thread::yield_now();
        }
    }
}

impl Worker {
    /// Subscribes and must succeed.
    pub(super) fn join(&self, join: Join) -> Joined {
        self.try_join(join).expect("the join is within its limits")
    }

    pub(super) fn try_join(&self, join: Join) -> Result<Joined, JoinRefusal> {
        let ticket = Ticket { session: 7, number: self.tickets.fetch_add(1, Ordering::Relaxed) };
        let asked = Question::Join(Join { ticket, ..join });
        match self.ask(asked, ticket) {
            Answer::Joined { position, roster, cached, .. } => {
                Ok(Joined { position, roster, cached: cached.map(|frame| frame.text().to_owned()) })
            }
            Answer::JoinRefused { why, .. } => Err(why),
            other => panic!("a join is not answered with {other:?}"),
        }
    }

    fn ask(&self, question: Question, ticket: Ticket) -> Answer {
        let answer = self.backbone.ask(self.id, question).unwrap_or_else(|| {
            self.inbox.wait("an answer", |heard| {
                let found = heard.answers.iter().position(|answer| ticket_of(answer) == Some(ticket))?;
                Some(heard.answers.swap_remove(found))
            })
        });
        assert_eq!(ticket_of(&answer), Some(ticket), "an answer carries the ticket of its question");
        answer
    }

    /// Signs a connection in. Answers its position and who of the watchlist is online.
    pub(super) fn sign_in(&self, user: &str, watchlist: &[&str]) -> (Position, Vec<String>) {
        self.sign_in_to(APP, user, watchlist)
    }

    pub(super) fn sign_in_to(&self, app: &str, user: &str, watchlist: &[&str]) -> (Position, Vec<String>) {
        let ticket = Ticket { session: 7, number: self.tickets.fetch_add(1, Ordering::Relaxed) };
        let watchlist = watchlist.iter().map(|id| user_id(id)).collect();
        let asked = SignIn { ticket, app: AppId::new(app), user_id: user_id(user), watchlist };
        match self.ask(Question::SignIn(asked), ticket) {
            Answer::SignedIn { position, online, .. } => {
                (position, online.iter().map(|id| id.as_str().to_owned()).collect())
            }
            other => panic!("a sign-in is accepted, but {other:?}"),
        }
    }

    /// Ends a sign-in that was made with these.
    pub(super) fn sign_out(&self, user: &str, watchlist: &[&str]) {
        let watchlist = watchlist.iter().map(|id| user_id(id)).collect();
        let asked = SignOut { app: AppId::new(APP), user_id: user_id(user), watchlist };
        let answer = self.backbone.ask(self.id, Question::SignOut(asked));
        self.inbox.change(|heard| heard.answers.extend(answer));
    }

    /// Asks about every absence that the backbone left to this worker. Those whose time is not over are left again.
    pub(super) fn settle(&self) {
        let mut left: Vec<Absence> = Vec::new();
        self.inbox.change(|heard| {
            heard.answers.retain(|answer| match answer {
                Answer::Absent { absence, settle_in_ms } => {
                    assert!(u128::from(*settle_in_ms) <= OFFLINE_AFTER.as_millis(), "{settle_in_ms}");
                    left.push(absence.clone());
                    false
                }
                _ => true,
            });
        });
        for absence in left {
            let answer = self.backbone.ask(self.id, Question::SettleAbsence(absence));
            self.inbox.change(|heard| heard.answers.extend(answer));
        }
    }

    /// All changes of users so far, in the order they came.
    pub(super) fn notices(&self) -> Vec<Arc<UserNotice>> {
        self.inbox.heard.lock().unwrap_or_else(PoisonError::into_inner).notices.clone()
    }

    /// Ends a subscription that was made with `join`.
    pub(super) fn leave(&self, join: &Join) {
        let leave = Leave {
            app: join.app.clone(),
            channel: join.channel.clone(),
            user_id: join.member.as_ref().map(|m| m.user_id.clone()),
            counted: join.counted,
        };
        let answer = self.backbone.ask(self.id, Question::Leave(leave));
        assert!(answer.is_none(), "leaving is not answered");
    }

    /// Sends a client event.
    pub(super) fn say(&self, publication: Publication) {
        let answer = self.backbone.ask(self.id, Question::Publish(publication));
        assert!(answer.is_none(), "a client event that was accepted is not answered");
    }

    pub(super) fn fill(&self, is_full: bool) {
        self.inbox.is_full.store(is_full, Ordering::SeqCst);
    }

    /// Waits until this event was heard on a channel.
    pub(super) fn await_text(&self, channel: &str, text: &str) {
        self.inbox.wait(&format!("{text:?} on {channel}"), |heard| {
            let is_it = |d: &Arc<Delivery>| event_text(d) == Some(text) && d.channel.as_str() == channel;
            heard.deliveries.iter().rev().any(is_it).then_some(())
        });
    }

    /// Nothing was found to be missing that could not be told any more.
    pub(super) fn missed_nothing(&self) {
        assert!(self.heard().iter().all(|d| !matches!(d.happening, Happening::Missed)), "something is missing");
    }

    /// All deliveries so far, in the order they came.
    pub(super) fn heard(&self) -> Vec<Arc<Delivery>> {
        self.inbox.heard.lock().unwrap_or_else(PoisonError::into_inner).deliveries.clone()
    }

    /// All deliveries of a channel that a subscription made at `after` hears.
    pub(super) fn heard_on(&self, channel: &str, after: Position) -> Vec<Arc<Delivery>> {
        let mut heard = self.heard();
        heard.retain(|d| d.channel.as_str() == channel && d.position > after);
        heard
    }

    /// The texts of the events among them, markers left out.
    pub(super) fn texts(&self, channel: &str, after: Position) -> Vec<String> {
        let heard = self.heard_on(channel, after);
        let events = heard.iter().filter_map(|d| event_text(d)).filter(|text| !text.starts_with("fence"));
        events.map(str::to_owned).collect()
    }

    /// Forgets what was heard and answers it.
    pub(super) fn take_heard(&self) -> Vec<Arc<Delivery>> {
        std::mem::take(&mut self.inbox.heard.lock().unwrap_or_else(PoisonError::into_inner).deliveries)
    }
}

fn ticket_of(answer: &Answer) -> Option<Ticket> {
    match answer {
        Answer::Joined { ticket, .. }
        | Answer::JoinRefused { ticket, .. }
        | Answer::SignedIn { ticket, .. }
        | Answer::SignInRefused { ticket } => Some(*ticket),
        Answer::Absent { .. } => None,
    }
}

/// The text of an event; `None` for other happenings.
pub(super) fn event_text(delivery: &Delivery) -> Option<&str> {
    match &delivery.happening {
        Happening::Event { frame, .. } => Some(frame.text()),
        Happening::MemberAdded(_) | Happening::MemberRemoved(_) | Happening::Count(_) | Happening::Missed => None,
    }
}

pub(super) fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, CHANNEL_NAME_CEILING).expect("cases use valid names")
}

pub(super) fn publication(name: &str, text: &str) -> Publication {
    let app = AppId::new(APP);
    Publication { app, channel: channel(name), frame: Frame::new(text), except: None, cache_for: None }
}

pub(super) fn excluding(socket: SocketId, publication: Publication) -> Publication {
    Publication { except: Some(socket), ..publication }
}

/// A subscription without a user and without counts.
pub(super) fn to(name: &str) -> Join {
    Join {
        ticket: Ticket { session: 0, number: 0 },
        app: AppId::new(APP),
        channel: channel(name),
        member: None,
        members_max: 100,
        counted: false,
    }
}

/// A subscription that is counted.
pub(super) fn counted(name: &str) -> Join {
    Join { counted: true, ..to(name) }
}

/// A subscription of a user to a presence channel.
pub(super) fn as_user(name: &str, user: &str, info: &str) -> Join {
    Join { member: Some(Member { user_id: user_id(user), user_info: Some(info.into()) }), ..to(name) }
}

pub(super) fn user_id(id: &str) -> UserId {
    UserId::parse(id, 100).expect("cases use valid ids")
}

pub(super) fn ids(members: &[Member]) -> Vec<String> {
    members.iter().map(|m| m.user_id.as_str().to_owned()).collect()
}

/// Numbers that look random and are the same in every run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// A number below `bound` (splitmix64).
    pub(super) fn roll(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 33) as usize % bound
    }
}

/// Runs a future to its end on this thread.
pub(super) fn wait_for<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park_timeout(LOOK_AGAIN),
        }
    }
}
