//! Webhooks of a node: neither lost nor doubled, and nobody's trouble but their own.
//!
//! ```text
//!   backbone --edge--> Desk --> keeper --transaction--> store
//!                                  |                      | then, and only then
//!                                  +--> waiting answers   +--> sender --> lines --> endpoints
//! ```
//!
//! That is one node with the embedded backbone. Where edges are decided in Redis they lie there, and so does what is
//! sealed; see [`shared`].
//!
//! The backbone decides edges under its own locks and leaves them here without waiting; a subscription whose edge must
//! be on disk first is answered through its worker's inbox. Two threads: the keeper (book and disk) and the sender
//! (sockets). Neither exists, and no file is made, before an app has webhooks.

pub mod address;
pub mod egress;
pub mod request;
pub mod shared;
pub mod store;
pub mod trial;

mod clock;
mod figures;
mod keeper;
mod pool;
mod sender;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use arc_swap::ArcSwap;
use fulmar_backbone::redis::outbox::OutboxError;
use fulmar_backbone::{Inbox, Outbox};
use fulmar_engine::webhook_queue::Sockets;
use fulmar_protocol::app::{App, AppId};
use fulmar_protocol::exchange::Answer;
use fulmar_protocol::name::ChannelName;
use fulmar_protocol::webhook::{Change, Edge, Kinds};
use hashbrown::HashMap;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

pub use self::figures::WebhookFigures;
pub use self::sender::WaitingLine;

use self::clock::WebhookClock;
use self::egress::Egress;
use self::figures::Counters;
use self::keeper::{Desk, Keeper, Message};
use self::request::{Caller, Resolve};
use self::sender::{Command, Ends, Sender, Sending};
use self::shared::{Shared, SharedKeeper, Start, Tasks};
use self::store::{GivenUp, Store, StoreError};
use crate::http::clock::Clock;

/// Sockets webhooks may use when descriptors are plenty.
const SOCKETS: Sockets = Sockets { fast: 256, slow: 1_024 };
/// They take no more than this share of the open-file limit.
const DESCRIPTORS_SHARE: u64 = 8;

/// Why webhooks cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The outbox in Redis.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// Nobody says where webhooks that wait are to be kept.
    #[error("webhooks need a folder that outlives the node: set storage.path")]
    NoFolder,
    /// A thread, or its event loop.
    #[error("cannot start a thread for webhooks: {0}")]
    Thread(#[from] std::io::Error),
    /// The node has no webhooks, or is ending.
    #[error("the node has no webhooks, or is ending")]
    NotRunning,
}

/// What webhooks are started with.
pub struct Setup {
    /// The folder of the store, if there is one. Not used where the outbox is shared.
    pub folder: Option<PathBuf>,
    /// Where edges are decided in Redis: the outbox that all nodes share.
    pub shared: Option<Shared>,
    /// What time it is.
    pub clock: Clock,
    /// Who knows the addresses of names.
    pub resolver: Arc<dyn Resolve>,
    /// How far the operator lets them go.
    pub egress: Egress,
    /// Files this process may open.
    pub open_files: u64,
}

/// The webhooks of a node. Shared with the backbone, as its [`Outbox`].
pub struct WebhookDesk {
    desk: Arc<Desk>,
    counters: Arc<Counters>,
    /// Apps with webhooks, once the threads run.
    apps: ArcSwap<HashMap<AppId, Arc<App>>>,
    has_apps: AtomicBool,
    is_hurried: AtomicBool,
    setup: Setup,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    keeping: Keeping,
    sender: JoinHandle<()>,
    sending: Sending,
}

/// Who keeps what must survive.
enum Keeping {
    /// A thread with a file.
    Own(JoinHandle<()>),
    /// Redis.
    Shared(SharedKeeper),
}

impl WebhookDesk {
    /// Nothing runs yet; see [`WebhookDesk::set_apps`].
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self {
            desk: Arc::default(),
            counters: Arc::default(),
            apps: ArcSwap::default(),
            has_apps: AtomicBool::new(false),
            is_hurried: AtomicBool::new(false),
            setup,
            threads: Mutex::new(None),
        }
    }

    /// These apps from now on. The first that has webhooks makes the store open and the threads start.
    ///
    /// # Errors
    /// When they cannot be started; the webhooks of apps then stay as they were.
    pub fn set_apps(&self, apps: impl IntoIterator<Item = Arc<App>>) -> Result<(), WebhookError> {
        let told: Vec<Arc<App>> = apps.into_iter().filter(|app| !app.webhooks.endpoints.is_empty()).collect();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Threads { keeping, sending, .. }) = &*threads {
            // Before the backbone sees them: an edge for an app that the keeper does not know yet would be lost.
            match keeping {
                Keeping::Own(_) => self.desk.put(Message::Apps(told.clone())),
                Keeping::Shared(keeper) => {
                    sending.send(Command::Apps(told.clone()));
                    keeper.tasks.set_apps(&told);
                }
            }
        } else if !told.is_empty() {
            *threads = Some(self.start(told.clone())?);
        }
        self.has_apps.store(!told.is_empty(), Ordering::Release);
        self.apps.store(Arc::new(told.into_iter().map(|app| (app.id.clone(), app)).collect()));
        Ok(())
    }

    fn start(&self, apps: Vec<Arc<App>>) -> Result<Threads, WebhookError> {
        let (send, commands) = mpsc::unbounded_channel();
        let sending = Sending(send);
        if let Some(shared) = &self.setup.shared {
            let (counters, clock) = (self.counters.clone(), WebhookClock(self.setup.clock.clone()));
            let start = Start { apps: apps.clone(), sending: sending.clone(), clock, counters };
            let keeper = SharedKeeper::start(shared, start)?;
            let sender = self.start_sender(shared.stamp(), keeper.tasks.ends(), apps, commands)?;
            return Ok(Threads { keeping: Keeping::Shared(keeper), sender, sending });
        }
        let store = Store::open(self.setup.folder.as_deref().ok_or(WebhookError::NoFolder)?)?;
        let (stamp, desk) = (store.stamp(), self.desk.clone());
        let (counters, clock) = (self.counters.clone(), WebhookClock(self.setup.clock.clone()));
        let keeper = Keeper::start(self.desk.clone(), store, apps.clone(), sending.clone(), clock, counters)?;
        let ends = Box::new(move |ended| desk.put(Message::Ended(ended)));
        let sender = self.start_sender(stamp, ends, apps, commands)?;
        let keeper_thread = thread::Builder::new().name("webhook-keeper".to_owned());
        let keeping = Keeping::Own(keeper_thread.spawn(move || keeper.run())?);
        Ok(Threads { keeping, sender, sending })
    }

    fn start_sender(
        &self,
        stamp: u64,
        ends: Ends,
        apps: Vec<Arc<App>>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Result<JoinHandle<()>, WebhookError> {
        let own = Sender {
            caller: Caller::new(self.setup.resolver.clone()).within(self.setup.egress.clone()),
            ends,
            clock: WebhookClock(self.setup.clock.clone()),
            counters: self.counters.clone(),
            stamp,
            sockets: sockets(self.setup.open_files),
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let sender = thread::Builder::new().name("webhook-sender".to_owned());
        Ok(sender.spawn(move || runtime.block_on(own.run(apps, commands)))?)
    }

    /// Makes the end, when it comes, one that waits for nobody.
    pub fn hurry(&self) {
        self.is_hurried.store(true, Ordering::Release);
    }

    /// Ends in order: what is under way is waited for, within the time of an attempt, and what is known is written.
    pub fn stop(&self) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Threads { keeping, sender, sending }) = threads else { return };
        sending.send(Command::Stop { at_once: self.is_hurried.load(Ordering::Acquire) });
        let mut has_failed = sender.join().is_err();
        has_failed |= match keeping {
            Keeping::Own(keeper) => {
                self.desk.put(Message::Stop);
                keeper.join().is_err()
            }
            Keeping::Shared(keeper) => {
                keeper.tasks.stop();
                keeper.thread.join().is_err()
            }
        };
        if has_failed {
            tracing::error!("a webhook thread panicked");
        }
    }

    /// Ends as a crash does: nothing is written, nothing is let go.
    #[cfg(test)]
    fn crash(&self) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Threads { keeping: Keeping::Shared(keeper), sender, sending }) = threads {
            let _ = keeper.crash.send(());
            sending.send(Command::Stop { at_once: true });
            keeper.thread.join().unwrap();
            sender.join().unwrap();
        }
    }

    /// How it is going.
    #[must_use]
    pub fn figures(&self) -> WebhookFigures {
        self.counters.figures()
    }

    /// The endpoints for which something waits: of the whole deployment, where the outbox is shared.
    ///
    /// # Errors
    /// When nothing runs, or it cannot be read.
    pub async fn waiting(&self) -> Result<Vec<WaitingLine>, WebhookError> {
        let (tell, told) = oneshot::channel();
        self.sending()?.send(Command::Lines(tell));
        let own = told.await.map_err(|_| WebhookError::NotRunning)?;
        let Some(tasks) = self.tasks() else { return Ok(own) };
        Ok(tasks.waiting(self.setup.clock.unix_ms(), own).await.ok_or(WebhookError::NotRunning)??)
    }

    /// The requests that were given up, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn given_up(&self) -> Result<Vec<GivenUp>, WebhookError> {
        if let Some(tasks) = self.tasks() {
            return Ok(tasks.given_up().await.ok_or(WebhookError::NotRunning)??);
        }
        let (tell, told) = oneshot::channel();
        self.ask(Message::GivenUp(tell))?;
        Ok(told.await.map_err(|_| WebhookError::NotRunning)??)
    }

    /// Sends again what was given up: one request, or all of them. Answers how many that are. Each is sealed anew, with
    /// the time of now and the same event ids.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn replay(&self, id: Option<u64>) -> Result<usize, WebhookError> {
        if let Some(tasks) = self.tasks() {
            return Ok(tasks.replay(id).await.ok_or(WebhookError::NotRunning)??);
        }
        let (tell, told) = oneshot::channel();
        self.ask(Message::Replay(id, tell))?;
        Ok(told.await.map_err(|_| WebhookError::NotRunning)??)
    }

    /// The ways to Redis, where the outbox is shared and something runs.
    fn tasks(&self) -> Option<Tasks> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        match &threads.as_ref()?.keeping {
            Keeping::Own(_) => None,
            Keeping::Shared(keeper) => Some(keeper.tasks.clone()),
        }
    }

    fn sending(&self) -> Result<Sending, WebhookError> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.as_ref().map(|threads| threads.sending.clone()).ok_or(WebhookError::NotRunning)
    }

    fn ask(&self, message: Message) -> Result<(), WebhookError> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.is_none() {
            return Err(WebhookError::NotRunning);
        }
        self.desk.put(message);
        Ok(())
    }
}

impl Outbox for WebhookDesk {
    fn wanted(&self, app: &AppId, channel: &ChannelName) -> Kinds {
        if !self.has_apps.load(Ordering::Acquire) {
            return Kinds::NONE;
        }
        self.apps.load().get(app).map_or(Kinds::NONE, |app| app.webhooks.wanted(channel).with_counterparts())
    }

    fn wanted_of_users(&self, app: &AppId) -> Kinds {
        if !self.has_apps.load(Ordering::Acquire) {
            return Kinds::NONE;
        }
        self.apps.load().get(app).map_or(Kinds::NONE, |app| app.webhooks.wanted_of_users().with_counterparts())
    }

    fn has_room(&self) -> bool {
        self.desk.has_room()
    }

    fn take(&self, mut edges: Vec<Edge>) {
        if self.setup.shared.is_some() {
            return;
        }
        if !self.desk.has_room() {
            // A coming or going cannot be left out; what only informs can.
            let before = edges.len();
            edges.retain(|edge| matches!(edge.change, Change::Came(_) | Change::Went(_)));
            (edges.len()..before).for_each(|_| self.counters.event_dropped());
        }
        self.desk.put_edges(edges, None);
    }

    fn take_before(&self, edges: Vec<Edge>, inbox: &Arc<dyn Inbox>, answer: Answer) -> Option<Answer> {
        if self.setup.shared.is_some() {
            // The script that decided the edge has left it in the outbox.
            return Some(answer);
        }
        self.desk.put_edges(edges, Some((inbox.clone(), answer)))
    }
}

/// As many as planned, or as few as descriptors allow.
fn sockets(open_files: u64) -> Sockets {
    let share = usize::try_from(open_files / DESCRIPTORS_SHARE).unwrap_or(usize::MAX).max(5);
    Sockets { fast: SOCKETS.fast.min(share / 5).max(1), slow: SOCKETS.slow.min(share * 4 / 5).max(1) }
}

#[cfg(test)]
mod tests;
