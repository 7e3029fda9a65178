//! Webhooks of a node: neither lost nor doubled, and nobody's trouble but their own.
//!
//! ```text
//!   backbone --edge--> Desk --> keeper --transaction--> store
//!                                  |                      | then, and only then
//!                                  +--> waiting answers   +--> sender --> lines --> endpoints
//! ```
//!
//! The backbone decides edges under its own locks and leaves them here without waiting; a subscription whose edge must
//! be on disk first is answered through its worker's inbox. Two threads: the keeper (book and disk) and the sender
//! (sockets). Neither exists, and no file is made, before an app has webhooks.

pub mod address;
pub mod egress;
pub mod request;
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
use self::sender::{Command, Sender, Sending};
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
    /// The folder of the store, if there is one.
    pub folder: Option<PathBuf>,
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
    keeper: JoinHandle<()>,
    sender: JoinHandle<()>,
    sending: Sending,
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
        if threads.is_some() {
            // Before the backbone sees them: an edge for an app that the keeper does not know yet would be lost.
            self.desk.put(Message::Apps(told.clone()));
        } else if !told.is_empty() {
            *threads = Some(self.start(told.clone())?);
        }
        self.has_apps.store(!told.is_empty(), Ordering::Release);
        self.apps.store(Arc::new(told.into_iter().map(|app| (app.id.clone(), app)).collect()));
        Ok(())
    }

    fn start(&self, apps: Vec<Arc<App>>) -> Result<Threads, WebhookError> {
        let store = Store::open(self.setup.folder.as_deref().ok_or(WebhookError::NoFolder)?)?;
        let clock = WebhookClock(self.setup.clock.clone());
        let (send, commands) = mpsc::unbounded_channel();
        let sending = Sending(send);
        let own = Sender {
            caller: Caller::new(self.setup.resolver.clone()).within(self.setup.egress.clone()),
            desk: self.desk.clone(),
            clock: clock.clone(),
            counters: self.counters.clone(),
            stamp: store.stamp(),
            sockets: sockets(self.setup.open_files),
        };
        let counters = self.counters.clone();
        let keeper = Keeper::start(self.desk.clone(), store, apps.clone(), sending.clone(), clock, counters)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let sender = thread::Builder::new().name("webhook-sender".to_owned());
        let sender = sender.spawn(move || runtime.block_on(own.run(apps, commands)))?;
        let keeper_thread = thread::Builder::new().name("webhook-keeper".to_owned());
        let keeper = keeper_thread.spawn(move || keeper.run())?;
        Ok(Threads { keeper, sender, sending })
    }

    /// Makes the end, when it comes, one that waits for nobody.
    pub fn hurry(&self) {
        self.is_hurried.store(true, Ordering::Release);
    }

    /// Ends in order: what is under way is waited for, within the time of an attempt, and what is known is written.
    pub fn stop(&self) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Threads { keeper, sender, sending }) = threads else { return };
        sending.send(Command::Stop { at_once: self.is_hurried.load(Ordering::Acquire) });
        let mut has_failed = sender.join().is_err();
        self.desk.put(Message::Stop);
        has_failed |= keeper.join().is_err();
        if has_failed {
            tracing::error!("a webhook thread panicked");
        }
    }

    /// How it is going.
    #[must_use]
    pub fn figures(&self) -> WebhookFigures {
        self.counters.figures()
    }

    /// The endpoints for which something waits.
    ///
    /// # Errors
    /// When nothing runs.
    pub async fn waiting(&self) -> Result<Vec<WaitingLine>, WebhookError> {
        let (tell, told) = oneshot::channel();
        self.sending()?.send(Command::Lines(tell));
        told.await.map_err(|_| WebhookError::NotRunning)
    }

    /// The requests that were given up, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn given_up(&self) -> Result<Vec<GivenUp>, WebhookError> {
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
        let (tell, told) = oneshot::channel();
        self.ask(Message::Replay(id, tell))?;
        Ok(told.await.map_err(|_| WebhookError::NotRunning)??)
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
        self.apps.load().get(app).map_or(Kinds::NONE, |app| app.webhooks.wanted(channel))
    }

    fn wanted_of_users(&self, app: &AppId) -> Kinds {
        if !self.has_apps.load(Ordering::Acquire) {
            return Kinds::NONE;
        }
        self.apps.load().get(app).map_or(Kinds::NONE, |app| app.webhooks.wanted_of_users())
    }

    fn has_room(&self) -> bool {
        self.desk.has_room()
    }

    fn take(&self, mut edges: Vec<Edge>) {
        if !self.desk.has_room() {
            // A coming or going cannot be left out; what only informs can.
            let before = edges.len();
            edges.retain(|edge| matches!(edge.change, Change::Came(_) | Change::Went(_)));
            (edges.len()..before).for_each(|_| self.counters.event_dropped());
        }
        self.desk.put_edges(edges, None);
    }

    fn take_before(&self, edges: Vec<Edge>, inbox: &Arc<dyn Inbox>, answer: Answer) -> Option<Answer> {
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
