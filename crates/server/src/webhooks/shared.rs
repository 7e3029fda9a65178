//! Webhooks whose edges lie in Redis, worked by all nodes that have the role.
//!
//! ```text
//!   scripts --edge--> outbox (Redis) --> keeper: a task per group --one script--> sealed (Redis)
//!                                                                       | then, and only then
//!                                                                       +--> sender --> lines --> endpoints
//! ```
//!
//! Here is the thread and the ways to it; what a group's task does stands in `work`. Groups do not wait for each other, and
//! may come and go while slots are moved.

mod comparing;
mod memory;
mod part;
mod wire;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fulmar_backbone::redis::outbox::{GroupOutbox, OutboxError, stamp};
use fulmar_backbone::redis::primaries::Primaries;
use fulmar_backbone::redis::settings::Settings;
use fulmar_engine::webhook_batch::Address;
use fulmar_engine::webhook_part::Lane;
use fulmar_protocol::app::App;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use self::work::GroupWork;
use super::clock::WebhookClock;
use super::figures::Counters;
use super::sender::{Command, Ends, Sending, WaitingLine};
use super::store::{Ended, GivenUp};

/// How often it is looked whether there are more groups than before.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the outbox is, and who this node is there.
#[derive(Clone)]
pub struct Shared {
    /// Whoever knows the primaries.
    pub primaries: Arc<dyn Primaries>,
    /// As the backbone has them. Without the role `webhooks` this node never claims anything.
    pub settings: Arc<Settings>,
    /// This node's incarnation: its name in the claims.
    pub node: String,
}

impl Shared {
    /// What tells the identities of this deployment from those of others.
    pub(super) fn stamp(&self) -> u64 {
        stamp(&self.settings)
    }
}

/// What waits for an endpoint, as Redis has it.
pub(super) struct Sealed {
    requests: usize,
    oldest_unix_ms: u64,
}

/// What a group's task is told.
pub(super) enum Told {
    /// These apps from now on.
    Apps(Vec<Arc<App>>),
    /// From the sender.
    Ended(Ended),
    /// What waits, by endpoint.
    Waiting(oneshot::Sender<Result<BTreeMap<Address, Sealed>, OutboxError>>),
    /// What was given up.
    GivenUp(oneshot::Sender<Result<Vec<GivenUp>, OutboxError>>),
    /// Send again what was given up; answers how many that are.
    Replay(Option<u64>, oneshot::Sender<Result<usize, OutboxError>>),
    /// Write what is known, let everything go and end.
    Stop,
}

/// The ways to the tasks, one per group. Groups come while slots are moved; each gets a task within [`LOOK_EVERY`].
#[derive(Clone)]
pub(super) struct Tasks(Arc<Mutex<Ways>>);

struct Ways {
    open: Vec<mpsc::UnboundedSender<Told>>,
    /// What the next task is started with.
    start: Start,
    has_ended: bool,
}

/// What a task is started with.
pub(super) struct Start {
    pub(super) apps: Vec<Arc<App>>,
    pub(super) sending: Sending,
    pub(super) clock: WebhookClock,
    pub(super) counters: Arc<Counters>,
}

/// The running keeper.
pub(super) struct SharedKeeper {
    pub(super) tasks: Tasks,
    pub(super) thread: JoinHandle<()>,
    /// Ends it as a crash does.
    #[cfg(test)]
    pub(super) crash: oneshot::Sender<()>,
}

impl SharedKeeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is none to be had.
    pub(super) fn start(shared: &Shared, start: Start) -> std::io::Result<Self> {
        let tasks = Tasks(Arc::new(Mutex::new(Ways { open: Vec::new(), start, has_ended: false })));
        let works = tasks.newcomers(shared);
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (crash, crashed) = oneshot::channel();
        let (shared, all) = (shared.clone(), tasks.clone());
        let run = async move {
            tokio::select! {
                () = all.run(&shared, works) => {}
                Ok(()) = crashed => {}
            }
        };
        let thread = thread::Builder::new().name("webhook-keeper".to_owned());
        let thread = thread.spawn(move || runtime.block_on(run))?;
        #[cfg(not(test))]
        drop(crash);
        Ok(Self {
            tasks,
            thread,
            #[cfg(test)]
            crash,
        })
    }
}

impl Tasks {
    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tasks of groups that have none yet.
    fn newcomers(&self, shared: &Shared) -> Vec<GroupWork> {
        let mut ways = self.ways();
        let groups = if ways.has_ended { 0 } else { shared.primaries.groups() };
        let known = ways.open.len();
        let newcomer = |group| {
            let (way, told) = mpsc::unbounded_channel();
            let outbox = GroupOutbox::new(shared.primaries.clone(), shared.settings.clone(), group, &shared.node);
            ways.open.push(way);
            GroupWork::new(outbox, group, shared.settings.roles.webhooks, &ways.start, told)
        };
        (known..groups).map(newcomer).collect()
    }

    /// Runs the tasks until they are told to end.
    async fn run(&self, shared: &Shared, works: Vec<GroupWork>) {
        let mut running: JoinSet<()> = works.into_iter().map(GroupWork::run).collect();
        let mut look = tokio::time::interval(LOOK_EVERY);
        while !(running.is_empty() && self.ways().has_ended) {
            tokio::select! {
                Some(_) = running.join_next() => {}
                _ = look.tick() => {
                    for work in self.newcomers(shared) {
                        running.spawn(work.run());
                    }
                }
            }
        }
    }

    /// These apps from now on.
    pub(super) fn set_apps(&self, apps: &[Arc<App>]) {
        self.ways().start.apps = apps.to_vec();
        self.tell(|| Told::Apps(apps.to_vec()));
    }

    /// Ends all tasks, when they have written what is known.
    pub(super) fn stop(&self) {
        self.ways().has_ended = true;
        self.tell(|| Told::Stop);
    }

    fn tell(&self, told: impl Fn() -> Told) {
        // One that has ended is told nothing any more.
        self.ways().open.iter().for_each(|way| drop(way.send(told())));
    }

    /// Where the sender says what became of requests. Every group is told: another node, which sealed the request, may know the
    /// group by another number.
    pub(super) fn ends(&self) -> Ends {
        let tasks = self.clone();
        Box::new(move |ended| tasks.tell(|| Told::Ended(ended.clone())))
    }

    /// Asks every group and waits for all answers: a part of them would pass for the whole.
    async fn ask<T>(&self, question: impl Fn(oneshot::Sender<Result<T, OutboxError>>) -> Told) -> Asked<Vec<T>> {
        let asked: Vec<_> = self
            .ways()
            .open
            .iter()
            .map(|way| {
                let (tell, answer) = oneshot::channel();
                drop(way.send(question(tell)));
                answer
            })
            .collect();
        let mut answers = Vec::new();
        for answer in asked {
            answers.push(answer.await.ok()?);
        }
        Some(answers.into_iter().collect())
    }

    /// The requests that were given up, oldest first.
    pub(super) async fn given_up(&self) -> Asked<Vec<GivenUp>> {
        let all = self.ask(Told::GivenUp).await?;
        Some(all.map(|groups| {
            let mut all: Vec<GivenUp> = groups.into_iter().flatten().collect();
            all.sort_by_key(|old| (old.at_unix_ms, old.batch.id));
            all
        }))
    }

    /// Sends again what was given up.
    pub(super) async fn replay(&self, id: Option<u64>) -> Asked<usize> {
        let counts = self.ask(|tell| Told::Replay(id, tell)).await?;
        Some(counts.map(|counts| counts.into_iter().sum()))
    }

    /// What waits in the whole deployment; what this node knows of endpoints that fail is added from `own`.
    pub(super) async fn waiting(&self, now_unix_ms: u64, own: Vec<WaitingLine>) -> Asked<Vec<WaitingLine>> {
        let mut own: BTreeMap<Address, WaitingLine> = own.into_iter().map(|line| (line.to.clone(), line)).collect();
        let groups = match self.ask(Told::Waiting).await? {
            Ok(groups) => groups,
            Err(error) => return Some(Err(error)),
        };
        let mut all: BTreeMap<Address, Sealed> = BTreeMap::new();
        for (to, sealed) in groups.into_iter().flatten() {
            let sum = all.entry(to).or_insert(Sealed { requests: 0, oldest_unix_ms: u64::MAX });
            sum.requests += sealed.requests;
            sum.oldest_unix_ms = sum.oldest_unix_ms.min(sealed.oldest_unix_ms);
        }
        let line = |(to, sealed): (Address, Sealed)| {
            let here = own.remove(&to);
            WaitingLine {
                pending: sealed.requests,
                oldest_ms: now_unix_ms.saturating_sub(sealed.oldest_unix_ms),
                failures: here.as_ref().map_or(0, |line| line.failures),
                error: here.and_then(|line| line.error),
                to,
            }
        };
        Some(Ok(all.into_iter().map(line).collect()))
    }
}

/// An answer of all groups; `None` when they have ended.
type Asked<T> = Option<Result<T, OutboxError>>;

/// Asks the sender to leave a lane alone; answers when nothing of it is under way.
fn withdraw(sending: &Sending, lane: Lane) -> oneshot::Receiver<()> {
    let (tell, done) = oneshot::channel();
    sending.send(Command::Withdraw(lane, tell));
    done
}

#[cfg(test)]
mod tests;
