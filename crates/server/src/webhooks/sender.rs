//! The thread that sends: takes batches that are on disk, makes the attempts the lines ask for, and says what became of
//! them.
//!
//! Which batch is tried when is decided by [`WebhookQueues`]; here are the sockets. What is under way when the node is
//! told to end gets the time of one attempt, so that nothing is sent twice for want of waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fulmar_engine::Moment;
use fulmar_engine::webhook_batch::{Address, Batch};
use fulmar_engine::webhook_part::Lane;
use fulmar_engine::webhook_queue::{Attempt, Fate, LINGER_MS, LineFigures, Outcome, Sockets, Waiting, WebhookQueues};
use fulmar_protocol::app::{App, AppId};
use fulmar_protocol::webhook::Endpoint;
use hashbrown::HashMap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::clock::WebhookClock;
use super::figures::Counters;
use super::keeper::age_ms;
use super::request::{ATTEMPT_TIMEOUT, AttemptError, Caller, webhook_id};
use super::store::Ended;

/// No attempt begins later after its batch was sealed: with the time-out it ends before 290 seconds, and receivers that
/// refuse what is 300 seconds old still take it.
const LAST_TRY_AFTER_MS: u64 = 285_000;
/// How often figures are brought up to date and batches looked at whose time is over.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A batch that has waited so long is worth a line in the log.
const SLOW_AFTER_MS: u64 = 60_000;
/// At most one such line in this many milliseconds.
const COMPLAIN_EVERY_MS: u64 = 60_000;

/// A batch that is on disk.
pub(super) struct Handed {
    pub(super) to: Address,
    pub(super) batch: Arc<Batch>,
}

/// An endpoint for which something waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingLine {
    /// Which.
    pub to: Address,
    /// Requests that wait or are under way.
    pub pending: usize,
    /// How long the oldest has waited, in milliseconds.
    pub oldest_ms: u64,
    /// Failures since the last success.
    pub failures: u32,
    /// Why it failed last, while it does.
    pub error: Option<String>,
}

/// What the sender is told.
pub(super) enum Command {
    /// To be sent.
    Batches(Vec<Handed>),
    /// These apps from now on.
    Apps(Vec<Arc<App>>),
    /// Leave alone what was sealed in this lane, and say when nothing of it is under way any more.
    Withdraw(Lane, oneshot::Sender<()>),
    /// Every endpoint for which something waits.
    Lines(oneshot::Sender<Vec<WaitingLine>>),
    /// Begin nothing more, and end with what is under way, or without it.
    Stop {
        /// Whether what is under way is left alone. It will be sent again after the next start.
        at_once: bool,
    },
}

/// The way to the sender. Its queue is emptied at once into the lines, which are bounded.
#[derive(Clone)]
pub(super) struct Sending(pub(super) UnboundedSender<Command>);

impl Sending {
    pub(super) fn send(&self, command: Command) {
        // It ends after everybody else; then nobody is left to be told.
        let _ = self.0.send(command);
    }
}

/// Whoever keeps what is sealed, and wants to know when it need not be kept any more.
pub(super) type Ends = Box<dyn Fn(Ended) + Send>;

/// How an attempt ended.
struct Ending {
    attempt: Attempt,
    result: Result<u16, AttemptError>,
}

/// The sender's own things.
pub(super) struct Sender {
    pub(super) caller: Caller,
    /// Told what became of batches.
    pub(super) ends: Ends,
    pub(super) clock: WebhookClock,
    pub(super) counters: Arc<Counters>,
    pub(super) stamp: u64,
    pub(super) sockets: Sockets,
}

struct Lines {
    own: Sender,
    queues: WebhookQueues,
    apps: HashMap<AppId, Arc<App>>,
    batches: HashMap<(Address, u64), Arc<Batch>>,
    under_way: JoinSet<Ending>,
    /// Attempts on fast sockets, in the order of their beginnings.
    lingering: VecDeque<(Moment, Attempt)>,
    complained_at: Option<Moment>,
    /// Why endpoints failed last, while they fail.
    errors: HashMap<Address, String>,
    /// Lanes that are another node's business from now on.
    withdrawn: HashMap<Lane, oneshot::Sender<()>>,
}

impl Sender {
    /// Until it is told to stop.
    pub(super) async fn run(self, apps: Vec<Arc<App>>, mut commands: UnboundedReceiver<Command>) {
        let queues = WebhookQueues::new(self.sockets);
        let mut lines = Lines {
            queues,
            own: self,
            apps: HashMap::new(),
            batches: HashMap::new(),
            under_way: JoinSet::new(),
            lingering: VecDeque::new(),
            complained_at: None,
            errors: HashMap::new(),
            withdrawn: HashMap::new(),
        };
        lines.set_apps(apps);
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            lines.begin();
            let sleep = tokio::time::sleep(lines.patience());
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Batches(handed)) => handed.into_iter().for_each(|h| lines.add(h)),
                    Some(Command::Apps(apps)) => lines.set_apps(apps),
                    Some(Command::Withdraw(lane, tell)) => lines.withdraw(lane, tell),
                    // Whoever asked may have gone.
                    Some(Command::Lines(tell)) => drop(tell.send(lines.waiting())),
                    Some(Command::Stop { at_once: true }) => return,
                    Some(Command::Stop { .. }) | None => break,
                },
                Some(Ok(ending)) = lines.under_way.join_next(), if !lines.under_way.is_empty() => lines.finish(ending),
                _ = look.tick() => lines.look(),
                () = sleep => lines.linger(),
            }
        }
        let rest = async {
            while let Some(ending) = lines.under_way.join_next().await {
                ending.into_iter().for_each(|ending| lines.finish(ending));
            }
        };
        // Every attempt has a time-out of its own; this one is for what should not happen.
        let _ = tokio::time::timeout(ATTEMPT_TIMEOUT * 2, rest).await;
    }
}

impl Lines {
    fn now(&self) -> Moment {
        self.own.clock.now().moment
    }

    fn set_apps(&mut self, apps: Vec<Arc<App>>) {
        self.apps = apps.into_iter().map(|app| (app.id.clone(), app)).collect();
        let apps = &self.apps;
        let dropped = self.queues.retain(|to| endpoint(apps, to).is_some());
        if !dropped.is_empty() {
            tracing::warn!(requests = dropped.len(), "webhooks to endpoints that are no longer configured are dropped");
        }
        self.errors.retain(|to, _| endpoint(apps, to).is_some());
        for Attempt { to, id } in dropped {
            self.batches.remove(&(to.clone(), id));
            (self.own.ends)(Ended::Over(to, id));
        }
    }

    /// What waits in the lane is forgotten; what is under way ends in its own time.
    fn withdraw(&mut self, lane: Lane, tell: oneshot::Sender<()>) {
        let now = self.now();
        let queues = &mut self.queues;
        self.batches.retain(|(to, id), _| {
            let attempt = Attempt { to: to.clone(), id: *id };
            Lane::of_request(*id) != lane || !queues.withdraw(now, &attempt)
        });
        self.withdrawn.insert(lane, tell);
        self.look_at_withdrawn(lane);
    }

    fn look_at_withdrawn(&mut self, lane: Lane) {
        if self.withdrawn.contains_key(&lane) && !self.batches.keys().any(|(_, id)| Lane::of_request(*id) == lane) {
            // Whoever asked may have gone.
            self.withdrawn.remove(&lane).map(|tell| tell.send(()));
        }
    }

    fn add(&mut self, handed: Handed) {
        let Handed { to, batch } = handed;
        if endpoint(&self.apps, &to).is_none() {
            // The apps changed while it was on its way here.
            return (self.own.ends)(Ended::Over(to, batch.id));
        }
        // It came back before it had quite gone.
        self.withdrawn.remove(&Lane::of_request(batch.id));
        if self.batches.contains_key(&(to.clone(), batch.id)) {
            return;
        }
        let now = self.own.clock.now();
        let age_ms = age_ms(now, &batch);
        let waiting = Waiting {
            id: batch.id,
            bytes: batch.body.len(),
            lanes: batch.lanes.clone(),
            since: Moment(now.moment.0.saturating_sub(age_ms)),
            last_try: now.moment.plus_ms(LAST_TRY_AFTER_MS.saturating_sub(age_ms)),
        };
        self.batches.insert((to.clone(), batch.id), batch);
        for given_up in self.queues.add(now.moment, &to, waiting) {
            self.give_up(given_up, "too much waits");
        }
    }

    fn begin(&mut self) {
        let now = self.now();
        while let Some(attempt) = self.queues.next_attempt(now) {
            let app = self.apps.get(&attempt.to.app).cloned();
            let batch = self.batches.get(&(attempt.to.clone(), attempt.id)).cloned();
            let (Some(app), Some(batch)) = (app, batch) else {
                self.queues.finish(now, &attempt, Outcome::Delivered, 0);
                continue;
            };
            let (caller, stamp) = (self.own.caller.clone(), self.own.stamp);
            self.lingering.push_back((now.plus_ms(LINGER_MS), attempt.clone()));
            self.under_way.spawn(async move {
                let endpoint = app.webhooks.endpoints.iter().find(|endpoint| endpoint.url == attempt.to.url);
                let result = match endpoint {
                    Some(endpoint) => caller.attempt(&app.webhooks, endpoint, &batch, stamp).await,
                    None => Err(AttemptError::Url("is no longer configured")),
                };
                Ending { attempt, result }
            });
        }
    }

    fn finish(&mut self, ending: Ending) {
        let Ending { attempt, result } = ending;
        let outcome = match &result {
            Ok(_) => Outcome::Delivered,
            Err(error) if error.is_refusal() => Outcome::Refused,
            Err(_) => Outcome::Unreachable,
        };
        match &result {
            Ok(_) => _ = self.errors.remove(&attempt.to),
            Err(error) => _ = self.errors.insert(attempt.to.clone(), error.to_string()),
        }
        if let Err(error) = &result {
            self.own.counters.attempt_failed();
            tracing::debug!(app = %attempt.to.app, url = %attempt.to.url, id = attempt.id, %error, "webhook attempt failed");
        }
        let now = self.now();
        // Without a source of chance the pauses are even; that is all it is for.
        let jitter = getrandom::u32().unwrap_or(u32::MAX / 2);
        match self.queues.finish(now, &attempt, outcome, jitter) {
            Fate::Delivered => {
                self.own.counters.delivered();
                self.batches.remove(&(attempt.to.clone(), attempt.id));
                let lane = Lane::of_request(attempt.id);
                (self.own.ends)(Ended::Over(attempt.to, attempt.id));
                self.look_at_withdrawn(lane);
            }
            Fate::GivenUp => {
                let why = result.err().map(|error| error.to_string()).unwrap_or_default();
                let lane = Lane::of_request(attempt.id);
                self.give_up(attempt, &why);
                self.look_at_withdrawn(lane);
            }
            Fate::Kept if self.withdrawn.contains_key(&Lane::of_request(attempt.id)) => {
                self.queues.withdraw(now, &attempt);
                let lane = Lane::of_request(attempt.id);
                self.batches.remove(&(attempt.to, attempt.id));
                self.look_at_withdrawn(lane);
            }
            Fate::Kept | Fate::Unknown => {}
        }
    }

    fn give_up(&mut self, attempt: Attempt, why: &str) {
        let Attempt { to, id } = attempt;
        self.own.counters.given_up();
        let Some(batch) = self.batches.remove(&(to.clone(), id)) else { return };
        let webhook = webhook_id(self.own.stamp, &batch);
        tracing::warn!(
            app = %to.app, url = %to.url, webhook, events = batch.event_ids.len(), why,
            "webhook given up; `fulmar webhook replay` sends it again"
        );
        let at = self.own.clock.now().unix_ms;
        (self.own.ends)(Ended::GivenUp(to, batch, at));
    }

    /// Requests that last give their fast sockets to others.
    fn linger(&mut self) {
        let now = self.now();
        while self.lingering.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, attempt)) = self.lingering.pop_front() else { return };
            if self.queues.linger(&attempt) {
                self.lingering.push_back((now.plus_ms(LINGER_MS), attempt));
            }
        }
    }

    fn patience(&self) -> Duration {
        let now = self.now();
        let linger = self.lingering.front().map(|(at, _)| *at);
        let next = [linger, self.queues.next_deadline()].into_iter().flatten().min();
        next.map_or(LOOK_EVERY, |at| Duration::from_millis(at.ms_since(now)))
    }

    fn waiting(&self) -> Vec<WaitingLine> {
        let now = self.now();
        let line = |line: LineFigures| WaitingLine {
            pending: line.batches,
            oldest_ms: now.ms_since(line.since),
            failures: line.failures,
            error: self.errors.get(&line.to).cloned(),
            to: line.to,
        };
        self.queues.lines().map(line).collect()
    }

    fn look(&mut self) {
        self.own.caller.sweep();
        let now = self.now();
        for attempt in self.queues.expire(now) {
            self.give_up(attempt, "its time was over before its turn came");
        }
        let oldest = self.queues.oldest().map(|(to, since)| (to.clone(), now.ms_since(since)));
        let oldest_ms = oldest.as_ref().map_or(0, |(_, ms)| *ms);
        self.own.counters.waiting(self.queues.pending(), self.queues.in_flight(), oldest_ms);
        let may_complain = self.complained_at.is_none_or(|at| now.ms_since(at) >= COMPLAIN_EVERY_MS);
        if let Some((to, ms)) = oldest.filter(|(_, ms)| *ms >= SLOW_AFTER_MS && may_complain) {
            self.complained_at = Some(now);
            let (requests, _) = self.queues.pending();
            tracing::warn!(app = %to.app, url = %to.url, oldest_s = ms / 1_000, requests, "webhooks are late");
        }
    }
}

fn endpoint<'a>(apps: &'a HashMap<AppId, Arc<App>>, to: &Address) -> Option<&'a Endpoint> {
    apps.get(&to.app)?.webhooks.endpoints.iter().find(|endpoint| endpoint.url == to.url)
}
