//! Webhooks whose edges lie in Redis, worked by all nodes that have the role.
//!
//! ```text
//!   scripts --edge--> outbox (Redis) --> keeper: a task per group --one script--> sealed (Redis)
//!                                                                       | then, and only then
//!                                                                       +--> sender --> lines --> endpoints
//! ```
//!
//! Here is the thread and the ways to it; what a group's task does stands in `work`. Groups do not wait for each other.

mod memory;
mod wire;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

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

/// The ways to the tasks, one per group.
#[derive(Clone)]
pub(super) struct Tasks(Arc<[mpsc::UnboundedSender<Told>]>);

/// What a thread of tasks is started with.
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
        let (mut ways, mut works) = (Vec::new(), Vec::new());
        for group in 0..shared.primaries.groups() {
            let (way, told) = mpsc::unbounded_channel();
            let outbox = GroupOutbox::new(shared.primaries.clone(), shared.settings.clone(), group, &shared.node);
            ways.push(way);
            works.push(GroupWork::new(outbox, group, shared.settings.roles.webhooks, &start, told));
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (crash, crashed) = oneshot::channel();
        let run = async move {
            let mut tasks: JoinSet<()> = works.into_iter().map(GroupWork::run).collect();
            tokio::select! {
                () = async { while tasks.join_next().await.is_some() {} } => {}
                Ok(()) = crashed => {}
            }
        };
        let thread = thread::Builder::new().name("webhook-keeper".to_owned());
        let thread = thread.spawn(move || runtime.block_on(run))?;
        #[cfg(not(test))]
        drop(crash);
        Ok(Self {
            tasks: Tasks(ways.into()),
            thread,
            #[cfg(test)]
            crash,
        })
    }
}

impl Tasks {
    /// Tells every group.
    pub(super) fn tell(&self, told: impl Fn() -> Told) {
        // One that has ended is told nothing any more.
        self.0.iter().for_each(|way| drop(way.send(told())));
    }

    /// Where the sender says what became of requests.
    pub(super) fn ends(&self) -> Ends {
        let ways = self.0.clone();
        Box::new(move |ended| {
            let (Ended::Over(_, id) | Ended::Taken(id)) = &ended else {
                let Ended::GivenUp(_, batch, _) = &ended else { return };
                let way = ways.get(Lane::of_request(batch.id).group());
                return drop(way.map(|way| way.send(Told::Ended(ended))));
            };
            let way = ways.get(Lane::of_request(*id).group());
            drop(way.map(|way| way.send(Told::Ended(ended))));
        })
    }

    /// Asks every group and waits for all answers: a part of them would pass for the whole.
    async fn ask<T>(&self, question: impl Fn(oneshot::Sender<Result<T, OutboxError>>) -> Told) -> Asked<Vec<T>> {
        let asked: Vec<_> = self
            .0
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
