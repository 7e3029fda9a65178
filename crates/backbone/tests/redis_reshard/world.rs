//! Groups under a Sentinel, two nodes over them, publishers that never stop, and a ledger of what was heard.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fulmar_backbone::redis::RedisBackbone;
use fulmar_backbone::redis::map::Plan;
use fulmar_backbone::redis::reshard::{Mover, Progress, ReshardError};
use fulmar_backbone::redis::settings::{Settings, Topology};
use fulmar_backbone::redis::topic::Topic;
use fulmar_backbone::{Backbone, Inbox, Query, Reply, Terms, WorkerId};
use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{
    Answer, Delivery, Happening, Join, Leave, Member, Publication, Question, Ticket, UserNotice,
};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::{ChannelName, UserId};
use fulmar_rig::{Redis, SentinelDeployment, SentinelOptions, Watch};
use tokio::runtime::Runtime;

/// Channels that are published to all the time.
pub const CHANNELS: usize = 60;
/// Presence channels, with a user of each node and one that both have.
const ROOMS: usize = 12;
const NODES: u64 = 2;
/// Nodes are configured with the first two.
pub const GROUPS: [&str; 3] = ["g1", "g2", "g3"];
/// No delivery takes longer; beyond it, what this machine stood still is allowed for: several processes have a part in one.
const LATE: Duration = Duration::from_millis(900);

pub fn name(name: &str) -> ChannelName {
    ChannelName::parse(name, 200).expect("a valid name")
}

pub fn topic_of(channel: &str) -> Topic {
    Topic::channel(&AppId::new("app"), &name(channel))
}

pub fn slot_of(channel: &str) -> u16 {
    topic_of(channel).slot().0
}

fn user(id: &str) -> UserId {
    UserId::parse(id, 100).expect("a valid id")
}

pub fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub fn run<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

/// Of the deployment of these tests.
pub fn settings(topology: Topology) -> Settings {
    Settings::new("reshard", topology)
}

#[derive(Default)]
struct Recorder {
    heard: Mutex<Vec<(Instant, Arc<Delivery>)>>,
    answers: Mutex<Vec<Answer>>,
}

impl Inbox for Recorder {
    fn has_room(&self) -> bool {
        true
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), delivery));
    }

    fn notice(&self, _: Arc<UserNotice>) {}

    fn answer(&self, answer: Answer) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
    }
}

pub struct World {
    pub servers: SentinelDeployment,
    pub settings: Settings,
    pub nodes: Vec<Arc<RedisBackbone>>,
    inboxes: Vec<(WorkerId, Arc<Recorder>)>,
    tickets: AtomicU64,
    publishers: Vec<(JoinHandle<u64>, Arc<AtomicU64>)>,
    is_over: Arc<AtomicBool>,
    watch: Option<Watch>,
    began: Instant,
    _alone: MutexGuard<'static, ()>,
}

/// One world at a time: how long a delivery takes is looked at.
static ALONE: Mutex<()> = Mutex::new(());

impl World {
    /// Two nodes over g1 and g2, and g3 beside them; `None`, said loudly, where there is no program for servers.
    pub fn start() -> Option<Self> {
        Self::start_over(0, 1, &SentinelOptions::default())
    }

    /// The same over groups that survive their primaries: two replicas each, and three Sentinels.
    pub fn start_replicated() -> Option<Self> {
        // An election without a winner is repeated after twice this; a successor that shows itself later is given up.
        let options = SentinelOptions { failover_timeout_ms: 5_000, ..SentinelOptions::default() };
        Self::start_over(2, 3, &options)
    }

    fn start_over(replicas: usize, sentinels: usize, options: &SentinelOptions) -> Option<Self> {
        if !fulmar_rig::is_available() {
            eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = SentinelDeployment::start(&GROUPS.map(|group| (group, replicas)), sentinels, options);
        let servers = servers.expect("servers start");
        let sentinels = servers.sentinels().iter().map(|sentinel| sentinel.redis.addr().to_string()).collect();
        let settings = settings(Topology::Sentinel { sentinels, groups: names(&["g1", "g2"]) });
        let mut world = Self {
            servers,
            settings,
            nodes: Vec::new(),
            inboxes: Vec::new(),
            tickets: AtomicU64::new(0),
            publishers: Vec::new(),
            is_over: Arc::default(),
            watch: None,
            began: Instant::now(),
            _alone: alone,
        };
        (0..NODES).for_each(|_| world.add_node(&["g1", "g2"]));
        world.eventually("the nodes find each other", |world| {
            world.nodes.iter().all(|node| node.leases().len() == usize::try_from(NODES).expect("a small number"))
        });
        Some(world)
    }

    /// One more node, configured with these groups.
    pub fn add_node(&mut self, groups: &[&str]) {
        let mut settings = self.settings.clone();
        if let Topology::Sentinel { groups: configured, .. } = &mut settings.topology {
            *configured = names(groups);
        }
        let origin = 0xa0 + self.nodes.len() as u64;
        let node = Arc::new(RedisBackbone::start(settings, origin, None).expect("a node starts"));
        let inbox = Arc::new(Recorder::default());
        let worker = node.attach(inbox.clone());
        self.nodes.push(node);
        self.inboxes.push((worker, inbox));
    }

    pub fn eventually(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while !holds(self) {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The server that Sentinels call the primary of a group.
    pub fn primary(&self, group: &str) -> &Redis {
        &self.servers.primary_of(group).expect("most Sentinels agree").redis
    }

    /// Subscribes and waits for the answer.
    pub fn join(&self, node: usize, channel: &str, member: Option<&str>) -> Answer {
        let ticket = self.begin_to_join(node, channel, member);
        self.await_joined(node, ticket)
    }

    /// Subscribes; answered later.
    pub fn begin_to_join(&self, node: usize, channel: &str, member: Option<&str>) -> Ticket {
        let (worker, _) = &self.inboxes[node];
        let number = self.tickets.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket { session: 7, number };
        let member = member.map(|id| Member { user_id: user(id), user_info: None });
        let app = AppId::new("app");
        let join = Join { ticket, app, channel: name(channel), member, members_max: 100, counted: false };
        self.nodes[node].ask(*worker, Question::Join(join));
        ticket
    }

    /// Ends a user's subscription.
    pub fn leave(&self, node: usize, channel: &str, member: &str) {
        let (app, channel, user_id) = (AppId::new("app"), name(channel), Some(user(member)));
        self.nodes[node].ask(self.inboxes[node].0, Question::Leave(Leave { app, channel, user_id, counted: false }));
    }

    pub fn await_joined(&self, node: usize, ticket: Ticket) -> Answer {
        let (_, inbox) = &self.inboxes[node];
        let mut found = None;
        let is_mine = |answer: &Answer| matches!(answer, Answer::Joined { ticket: of, .. } if *of == ticket);
        self.eventually("a join is answered", |_| {
            found = inbox
                .answers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .find(|answer| is_mine(answer))
                .cloned();
            found.is_some()
        });
        found.expect("it was found")
    }

    /// Everybody subscribes, and publishers begin: two per node, each waiting for each answer.
    pub fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            (0..CHANNELS).for_each(|channel| _ = self.join(node, &format!("c{channel}"), None));
            for room in 0..ROOMS {
                let channel = format!("presence-{room}");
                self.join(node, &channel, Some(&format!("user-of-{node}")));
                self.join(node, &channel, Some("both"));
            }
        }
        self.watch = Some(Watch::start(self.began));
        for publisher in 0..2 * self.nodes.len() {
            let (node, is_over, began) =
                (self.nodes[publisher % self.nodes.len()].clone(), self.is_over.clone(), self.began);
            let accepted = Arc::new(AtomicU64::new(0));
            let count = accepted.clone();
            let publishing = std::thread::spawn(move || publish(publisher, &node, &is_over, &count, began));
            self.publishers.push((publishing, accepted));
        }
        self.await_rounds(1);
    }

    /// Waits until every publisher has had so many answers on every channel from now on.
    pub fn await_rounds(&self, rounds: u64) {
        let accepted = |(_, accepted): &(_, Arc<AtomicU64>)| accepted.load(Ordering::Relaxed);
        let before: Vec<u64> = self.publishers.iter().map(accepted).collect();
        let wanted = rounds * CHANNELS as u64;
        self.eventually("every channel was published to", |world| {
            world.publishers.iter().zip(&before).all(|(publisher, before)| accepted(publisher) >= before + wanted)
        });
    }

    /// Ends publishing and holds everybody to the ledger.
    pub fn judge(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let mut rounds: Vec<u64> =
            self.publishers.drain(..).map(|(thread, _)| thread.join().expect("no publish fails")).collect();
        let sent: u64 = rounds.iter().sum();
        assert!(sent > 100, "{sent} publications are no load");
        self.eventually("all is heard", |world| world.inboxes[..2].iter().all(|(_, inbox)| events(inbox) >= sent));
        // What would come twice comes before what is published behind it.
        let runtime = runtime();
        let last = rounds.len();
        (0..CHANNELS).for_each(|channel| say(&runtime, &self.nodes[0], (last, 0), channel, self.began));
        rounds.push(CHANNELS as u64);
        let sent = sent + CHANNELS as u64;
        self.eventually("the last is heard", |world| world.inboxes[..2].iter().all(|(_, inbox)| events(inbox) >= sent));
        let stalls = self.watch.take().map(Watch::end).unwrap_or_default();
        let longest = stalls.iter().map(|stall| stall.to_ns - stall.from_ns).max().unwrap_or(0);
        for (_, inbox) in &self.inboxes[..2] {
            self.judge_inbox(inbox, &rounds, Duration::from_nanos(longest));
        }
        self.judge_presence();
        for node in &self.nodes {
            node.stop();
        }
    }

    fn judge_inbox(&self, inbox: &Recorder, rounds: &[u64], stall: Duration) {
        let mut next: BTreeMap<(u64, String), u64> = BTreeMap::new();
        let mut counts = vec![0_u64; rounds.len()];
        let mut longest = Duration::ZERO;
        for (at, delivery) in inbox.heard.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let Happening::Event { frame, .. } = &delivery.happening else { continue };
            let mut numbers = frame.text().split(' ').map(|number| number.parse::<u64>().expect("a number"));
            let mut number = || numbers.next().expect("a number");
            let (publisher, count, sent_us) = (number(), number(), number());
            let expected = next.entry((publisher, delivery.channel.as_str().to_owned())).or_insert(0);
            assert_eq!(count, *expected, "{publisher} on {}: lost, doubled or out of order", delivery.channel.as_str());
            *expected += 1;
            counts[usize::try_from(publisher).expect("a small number")] += 1;
            longest = longest.max((*at - self.began).saturating_sub(Duration::from_micros(sent_us)));
        }
        assert_eq!(counts, rounds, "every publication once");
        eprintln!("{} publications, the longest took {longest:?}, stall {stall:?}", rounds.iter().sum::<u64>());
        assert!(longest < LATE + 4 * stall, "{longest:?}, and this machine stood still for {stall:?} at most");
    }

    /// Members are told of once, at the beginning, and are all there at the end.
    fn judge_presence(&self) {
        for (node, (_, inbox)) in self.inboxes[..2].iter().enumerate() {
            let heard = inbox.heard.lock().unwrap_or_else(PoisonError::into_inner);
            for room in 0..ROOMS {
                let room = name(&format!("presence-{room}"));
                let is_removed = |d: &Delivery| d.channel == room && matches!(d.happening, Happening::MemberRemoved(_));
                assert!(!heard.iter().any(|(_, delivery)| is_removed(delivery)), "nobody left {}", room.as_str());
                let is_added = |d: &Delivery| d.channel == room && matches!(d.happening, Happening::MemberAdded(_));
                let added = heard.iter().filter(|(_, delivery)| is_added(delivery)).count();
                assert!(added <= 3, "node {node} heard of {added} members of {}", room.as_str());
            }
        }
        for room in 0..ROOMS {
            let members = self.members(0, &format!("presence-{room}"));
            assert_eq!(members, ["both", "user-of-0", "user-of-1"]);
        }
        let query = Query::Channels { app: AppId::new("app"), prefix: String::new() };
        let Reply::Channels(states) = self.query(1, &query) else { panic!("channels") };
        let is_one = |name: &str| name.strip_prefix('c').is_some_and(|rest| rest.parse::<usize>().is_ok());
        let counted: Vec<_> = states.iter().filter(|state| is_one(state.channel.as_str())).collect();
        assert_eq!(counted.len(), CHANNELS);
        assert!(counted.iter().all(|state| state.subscriptions == 2), "{counted:?}");
    }

    /// Who the records say is present.
    pub fn members(&self, node: usize, room: &str) -> Vec<String> {
        let query = Query::Members { app: AppId::new("app"), channel: name(room) };
        let Reply::Members(members) = self.query(node, &query) else { panic!("members") };
        let mut members: Vec<String> = members.iter().map(|member| member.user_id.as_str().to_owned()).collect();
        members.sort_unstable();
        members
    }

    /// The event that the records have of a cache channel.
    pub fn cached(&self, node: usize, channel: &str) -> Option<String> {
        let query = Query::Cached { app: AppId::new("app"), channel: name(channel) };
        let Reply::Cached(cached) = self.query(node, &query) else { panic!("a cached event") };
        cached.map(|cached| cached.frame.text().to_owned())
    }

    /// How often a node heard that this user came to a room, and went.
    pub fn edges(&self, node: usize, room: &str, of: &str) -> (usize, usize) {
        let (room, of) = (name(room), user(of));
        let heard = self.inboxes[node].1.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |is_one: fn(&Happening, &UserId) -> bool| {
            heard.iter().filter(|(_, d)| d.channel == room && is_one(&d.happening, &of)).count()
        };
        let added = count(|happening, of| matches!(happening, Happening::MemberAdded(one) if one.user_id == *of));
        let removed = count(|happening, of| matches!(happening, Happening::MemberRemoved(one) if one == of));
        (added, removed)
    }

    /// Asks until it is answered: a machine that others use may be too slow for one answer.
    fn query(&self, node: usize, query: &Query) -> Reply {
        let mut found = None;
        self.eventually("a query is answered", |world| {
            found = run(world.nodes[node].query(query.clone())).ok();
            found.is_some()
        });
        found.expect("it was found")
    }

    /// Publishes an event that is kept.
    pub fn keep(&self, node: usize, channel: &str, text: &str) {
        let cache_for = Some(Duration::from_secs(300));
        let app = AppId::new("app");
        let kept = Publication { app, channel: name(channel), frame: Frame::new(text), except: None, cache_for };
        run(self.nodes[node].publish(vec![kept], Terms::default())).expect("it is accepted");
    }

    /// Moves slots; stopped at the step `stop`, as if it had died there. Its lease is taken away so that nobody waits for it to
    /// lapse.
    pub fn apply(&self, groups: &[&str], stop: Option<&str>) -> Result<(), ReshardError> {
        let mut watch = |progress: &Progress| {
            if stop == Some(progress.what) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut mover = Mover::new(&self.settings, &mut watch)?;
        let done = run(mover.apply(&names(groups)));
        if done.is_err() {
            assert_eq!(
                mover.has_begun(),
                stop.is_some(),
                "a refusal has changed nothing, and what was stopped has: {done:?}"
            );
        }
        if stop.is_some() {
            for group in GROUPS {
                self.primary(group).call(&["DEL", "reshard:mover"]).expect("it is there");
            }
        }
        done
    }

    /// Moves slots; what is done at a step is done by `at`.
    pub fn apply_and(&self, groups: &[&str], mut at: impl FnMut(&Progress) + Send) -> Result<(), ReshardError> {
        self.apply_until(groups, |progress| {
            at(progress);
            ControlFlow::Continue(())
        })
    }

    /// Moves slots until `at` ends it, as if it had died there.
    pub fn apply_until(
        &self,
        groups: &[&str],
        mut at: impl FnMut(&Progress) -> ControlFlow<()> + Send,
    ) -> Result<(), ReshardError> {
        run(Mover::new(&self.settings, &mut at)?.apply(&names(groups)))
    }

    /// The group that a node sends what concerns this channel to.
    pub fn group_of(&self, node: usize, channel: &str) -> &'static str {
        GROUPS[self.nodes[node].group_of(&AppId::new("app"), &name(channel))]
    }

    /// What moving to these groups would do.
    pub fn plan(&self, groups: &[&str]) -> Plan {
        let mut watch = |_: &Progress| ControlFlow::Continue(());
        let mut mover = Mover::new(&self.settings, &mut watch).expect("there are groups");
        run(mover.plan(&names(groups))).expect("everything is whole").plan
    }

    /// What lies in a group of the map, and of what it says of its slots.
    pub fn said(&self, group: &str) -> (String, BTreeMap<String, String>) {
        let primary = self.primary(group);
        let map = primary.call(&["GET", "reshard:map"]).expect("it is there").text();
        let said = primary.call(&["HGETALL", "reshard:slots"]).expect("it is there");
        (map, said.list().chunks_exact(2).map(|pair| (pair[0].text(), pair[1].text())).collect())
    }

    pub fn resume(&self) -> Result<(), ReshardError> {
        run(Mover::new(&self.settings, &mut |_| ControlFlow::Continue(()))?.resume())
    }

    pub fn abort(&self) -> Result<(), ReshardError> {
        run(Mover::new(&self.settings, &mut |_| ControlFlow::Continue(()))?.abort())
    }
}

fn events(inbox: &Recorder) -> u64 {
    let heard = inbox.heard.lock().unwrap_or_else(PoisonError::into_inner);
    heard.iter().filter(|(_, delivery)| matches!(delivery.happening, Happening::Event { .. })).count() as u64
}

fn publish(publisher: usize, node: &RedisBackbone, is_over: &AtomicBool, accepted: &AtomicU64, began: Instant) -> u64 {
    let runtime = runtime();
    for count in 0.. {
        for channel in 0..CHANNELS {
            if is_over.load(Ordering::Relaxed) {
                return accepted.load(Ordering::Relaxed);
            }
            say(&runtime, node, (publisher, count), channel, began);
            accepted.fetch_add(1, Ordering::Relaxed);
            // A pace, not a wait: what is looked at is the longest delivery on a machine that others use too.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    unreachable!("it counts for ever")
}

/// Publishes once, and says by whom, the how-manieth of its own on the channel it is, and when.
fn say(runtime: &Runtime, node: &RedisBackbone, (publisher, count): (usize, u64), channel: usize, began: Instant) {
    let text = format!("{publisher} {count} {}", began.elapsed().as_micros());
    let (app, channel) = (AppId::new("app"), name(&format!("c{channel}")));
    let publication = Publication { app, channel, frame: Frame::new(&text), except: None, cache_for: None };
    let accepted = runtime.block_on(node.publish(vec![publication], Terms::default()));
    accepted.expect("every publication is accepted");
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
