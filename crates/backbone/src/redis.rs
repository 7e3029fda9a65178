//! How nodes hear each other over Redis: sharded, replicated, and none of its faults anybody's.
//!
//! [`RedisBackbone`] is the handle that workers and HTTP threads share; behind it one thread runs the `driver`, which owns
//! everything. `spec/redis.md` has the rules, clause by clause.

pub mod allowance;
pub mod belief;
pub mod bus;
pub mod circuit;
pub mod confirm;
mod driver;
pub mod envelope;
pub mod hub;
pub mod inheritance;
pub mod keys;
pub mod lane;
pub mod lease;
pub mod link;
pub mod map;
pub mod order;
pub mod outbox;
pub mod primaries;
pub mod records;
pub mod redis_cluster;
pub mod reshard;
pub mod round;
pub mod scripts;
pub mod seen;
pub mod settings;
pub mod store;
pub mod topic;
pub mod withdrawn;

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Answer, Publication, Question};
use fulmar_protocol::name::{ChannelName, UserId};
use hashbrown::HashMap;
use tokio::sync::{mpsc, oneshot};

use self::driver::{Driver, Routes, Shared, Work};
use self::hub::HubFigures;
use self::lease::{About, Lease};
use self::link::{Certificates, Greeting};
use self::primaries::Primary;
use self::settings::Settings;
use self::topic::Topic;
use crate::{Backbone, Inbox, Outbox, Pending, PublishError, Query, Reply, Terms, Unavailable, WorkerId};

/// In whole milliseconds.
fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What happened so far and how things stand, for metrics and for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Nodes with a lease, this one among them.
    pub live_nodes: u64,
    /// Publications accepted by this node. Rises.
    pub accepted: u64,
    /// Calls refused because a buffer was full. Rises.
    pub refused: u64,
    /// Calls answered 503 because neither a log nor every node had them in time. Rises.
    pub timed_out: u64,
    /// Publications that no replica had in time, or that no replica could have; they were answered all the same. Rises. Not over a
    /// single server.
    pub without_replica: u64,
    /// Publications that came more than once and were dropped. Rises.
    pub repeats: u64,
    /// Publications that were told without the one before them, which did not come in time.
    pub holes: u64,
    /// The node's own tables.
    pub hub: HubFigures,
    /// By group: those of the configuration in the order of their names, then those that came since.
    pub groups: Vec<GroupFigures>,
}

/// How a group stands, as this node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupFigures {
    /// Its name.
    pub name: String,
    /// The server that is followed.
    pub address: Option<String>,
    /// Whether it has shown role and identity, and answers.
    pub is_here: bool,
    /// What was last found wrong with it, while it is not here.
    pub problem: Option<String>,
    /// Whether it has no slots any more, and nobody goes there.
    pub is_left: bool,
    /// Whether everything that this node follows is heard from it.
    pub hears: bool,
    /// Its epoch.
    pub epoch: u64,
    /// Whether publications take the bus as well.
    pub over_the_bus: bool,
    /// How often that began. Rises.
    pub circuit_openings: u64,
    /// How long what goes over the bus next has waited for it, in milliseconds; 0 while nothing does.
    pub bus_waits_ms: u64,
    /// Bytes of publications that its log has not confirmed.
    pub unlogged_bytes: u64,
    /// Messages read from the log to fill gaps. Rises.
    pub filled: u64,
    /// How often its log had not kept all that was to be read. Rises.
    pub gaps: u64,
    /// How often all of this node's records in it were compared with the truth. Rises, every two seconds unless the group has too much
    /// else to do.
    pub comparisons: u64,
    /// Topics whose records were found wrong there, and put right. Rises.
    pub mended: u64,
    /// Keys of nobody that were removed there. Rises.
    pub swept: u64,
    /// Edges for webhooks that its outbox had no room for, on whatever node they were made. Rises.
    pub edges_dropped: u64,
}

/// The Redis backbone of one node. Cheap to share; ends with [`RedisBackbone::stop`].
pub struct RedisBackbone {
    works: mpsc::UnboundedSender<Work>,
    shared: Arc<Shared>,
    workers: AtomicU8,
    queue_max: usize,
    groups: usize,
    routes: Arc<Routes>,
    driving: Mutex<Option<JoinHandle<()>>>,
}

impl RedisBackbone {
    /// Starts the thread. Servers need not be there: what needs them waits, and the rest is served. `origin` is the random
    /// number of this incarnation of the node.
    ///
    /// # Errors
    /// When a certificate cannot be read or the thread cannot be started.
    pub fn start(settings: Settings, origin: u64, outbox: Option<Arc<dyn Outbox>>) -> io::Result<Self> {
        let tls = settings.tls.as_ref().map(Certificates::read).transpose()?.map(Arc::new);
        let greeting = Greeting {
            credentials: settings.credentials.clone(),
            database: settings.database,
            tls: tls.clone(),
            asks_who: true,
        };
        let sentinel_greeting =
            Greeting { credentials: settings.sentinel_credentials.clone(), database: 0, tls, asks_who: false };
        let shared = Arc::new(Shared::default());
        let (queue_max, groups) = (settings.limits.queue_max, settings.topology.groups().len());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (works, wanted) = mpsc::unbounded_channel();
        let driver = {
            // Links are tasks of the driver's own runtime.
            let _guard = runtime.enter();
            Driver::new(settings, origin, outbox, (greeting, sentinel_greeting), shared.clone())
        };
        let routes = driver.routes();
        let named = std::thread::Builder::new().name("backbone".to_owned());
        let driving = named.spawn(move || runtime.block_on(driver.run(wanted)))?;
        Ok(Self {
            works,
            shared,
            workers: AtomicU8::new(0),
            queue_max,
            groups,
            routes,
            driving: Mutex::new(Some(driving)),
        })
    }

    /// The group that has this channel, as its place among [`Figures::groups`].
    #[must_use]
    pub fn group_of(&self, app: &AppId, channel: &ChannelName) -> usize {
        self.routes.get(Topic::channel(app, channel).slot())
    }

    /// How things stand, at most two seconds ago.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What live nodes say of themselves, this one among them.
    #[must_use]
    pub fn leases(&self) -> Vec<Lease> {
        self.shared.leases.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who is believed to be the primary of each group now.
    #[must_use]
    pub fn primaries(&self) -> Vec<Option<Primary>> {
        self.shared.primaries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections of this node per app, which its lease tells the others.
    pub fn set_connections(&self, connections: HashMap<String, u64>) {
        *self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner) = connections;
    }

    /// What this node says of itself in its lease.
    pub fn set_about(&self, about: About) {
        *self.shared.about.lock().unwrap_or_else(PoisonError::into_inner) = about;
    }

    /// The node goes away, and its users will be on others in a moment: from now on members who leave stay on record for five seconds,
    /// so that nobody is told of a going and a coming back. Nothing for the only node.
    pub fn drain(&self) {
        // A thread that has ended has no records.
        let _: Result<(), _> = self.works.send(Work::Drain);
    }

    /// Takes this node's records away, so that nobody waits for its lease to lapse, and ends the thread. Takes a few seconds
    /// at most.
    pub fn stop(&self) {
        let (done, is_done) = oneshot::channel();
        if self.works.send(Work::Stop(done)).is_ok() {
            // A thread that has ended already has nothing to take away.
            let _: Result<(), _> = is_done.blocking_recv();
        }
        if let Some(driving) = self.driving.lock().unwrap_or_else(PoisonError::into_inner).take()
            && driving.join().is_err()
        {
            tracing::error!("the backbone's thread panicked");
        }
    }
}

impl Backbone for RedisBackbone {
    fn attach(&self, inbox: Arc<dyn Inbox>) -> WorkerId {
        let worker = WorkerId(self.workers.fetch_add(1, Ordering::Relaxed));
        assert!(worker.0 < u8::MAX, "a node has fewer than 256 workers");
        // A backbone that has ended answers nobody.
        let _: Result<(), _> = self.works.send(Work::Attach(worker, inbox));
        worker
    }

    fn ask(&self, from: WorkerId, question: Question) -> Option<Answer> {
        let _: Result<(), _> = self.works.send(Work::Ask(from, question));
        None
    }

    fn publish(&self, publications: Vec<Publication>, terms: Terms) -> Pending<'_, Result<(), PublishError>> {
        Box::pin(async move {
            let count = publications.len();
            if self.shared.queued.fetch_add(count, Ordering::Relaxed) + count > self.queue_max {
                self.shared.queued.fetch_sub(count, Ordering::Relaxed);
                return Err(PublishError::NotAccepted);
            }
            let (reply, answer) = oneshot::channel();
            if self.works.send(Work::Publish { publications, terms, reply }).is_err() {
                return Err(PublishError::NotAccepted);
            }
            answer.await.unwrap_or(Err(PublishError::Unknown { left: Vec::new() }))
        })
    }

    fn terminate(&self, app: AppId, user: UserId) -> Pending<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.works.send(Work::Terminate { app, user, reply }).map_err(|_| Unavailable)?;
            answer.await.map_err(|_| Unavailable)
        })
    }

    fn query(&self, query: Query) -> Pending<'_, Result<Reply, Unavailable>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.works.send(Work::Query { query, reply }).map_err(|_| Unavailable)?;
            answer.await.unwrap_or(Err(Unavailable))
        })
    }
}
