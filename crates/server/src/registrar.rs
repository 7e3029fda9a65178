//! The desk, and those on the node who must hear of what changed there.
//!
//! A change is over when every worker has taken it over: whoever is told that a new secret is good may use it at once,
//! on any connection.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::apps::{Apps, Change, Changes};
use crate::config::Config;
use crate::inbox::{Message, WorkerInbox};
use crate::registry::{Desk, StoredApps};
use crate::storage;
use crate::webhooks::WebhookDesk;

/// How long a change waits for a worker that does not come round. It has been made all the same.
const WORKERS_WITHIN: Duration = Duration::from_secs(5);

/// The node's storage folder and what was found in it.
pub(crate) struct Keeping {
    /// The folder, when it can be used and no other node has it.
    pub(crate) folder: Option<PathBuf>,
    /// The store in it, or why there is none.
    pub(crate) store: Result<StoredApps, String>,
}

/// A configured folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("storage.path: {folder}: {why}")]
pub(crate) struct StorageError {
    folder: PathBuf,
    why: String,
}

impl Keeping {
    /// Opens the folder. A node that was told of one does not start without it: apps that are kept there would be
    /// refused as unknown.
    ///
    /// # Errors
    /// When the configured one cannot be used.
    pub(crate) fn open(config: &Config) -> Result<Self, StorageError> {
        let Some(folder) = storage::folder(config.storage.as_deref(), |name| std::env::var_os(name)) else {
            return Ok(Self {
                folder: None,
                store: Err("no folder is known to keep them in: set storage.path".to_owned()),
            });
        };
        match open(&folder) {
            Ok(store) => Ok(Self { folder: Some(folder), store: Ok(store) }),
            Err(why) if config.storage.is_some() => Err(StorageError { folder, why }),
            Err(why) => {
                let why = format!("{}: {why}", folder.display());
                tracing::warn!("nothing is kept on this node: {why}");
                Ok(Self { folder: None, store: Err(why) })
            }
        }
    }
}

fn open(folder: &Path) -> Result<StoredApps, String> {
    storage::prepare(folder).map_err(|e: io::Error| e.to_string())?;
    StoredApps::open(folder).map_err(|e| e.to_string())
}

/// Shared by the admin API and the node.
pub(crate) struct Registrar {
    desk: Mutex<Desk>,
    apps: Arc<Apps>,
    inboxes: Vec<Arc<WorkerInbox>>,
    webhooks: Arc<WebhookDesk>,
}

impl Registrar {
    pub(crate) fn new(desk: Desk, inboxes: Vec<Arc<WorkerInbox>>, webhooks: Arc<WebhookDesk>) -> Self {
        let apps = desk.apps().clone();
        Self { desk: Mutex::new(desk), apps, inboxes, webhooks }
    }

    /// The desk, for one thing at a time.
    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        // A change that panicked half-way has not replaced the apps served: those are swapped as a whole.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The webhooks.
    pub(crate) fn webhooks(&self) -> &Arc<WebhookDesk> {
        &self.webhooks
    }

    /// Tells every worker what changed, and first of all the webhooks: whoever comes on account of a change must find
    /// them ready.
    pub(crate) fn tell(&self, changes: &Changes) {
        if let Err(error) = self.webhooks.set_apps(self.apps.snapshot().iter().cloned()) {
            tracing::error!("webhooks are not taken over: {error}");
        }
        let replaced = changes.added.iter().chain(changes.changed.iter().map(|Change { to, .. }| to));
        for app in replaced {
            for inbox in &self.inboxes {
                inbox.push(Message::AppReplaced(app.clone()));
            }
        }
        for app in &changes.removed {
            for inbox in &self.inboxes {
                inbox.push(Message::AppRemoved(app.id.clone()));
            }
        }
    }

    /// Waits until every worker has done what it was told so far.
    pub(crate) async fn settled(&self) {
        let (done, mut heard) = mpsc::unbounded_channel();
        for inbox in &self.inboxes {
            inbox.push(Message::Settle(done.clone()));
        }
        drop(done);
        // The channel ends with the last worker that has answered, or ended.
        let all = async { while heard.recv().await.is_some() {} };
        if tokio::time::timeout(WORKERS_WITHIN, all).await.is_err() {
            tracing::warn!("a worker has not taken a change of the apps over yet");
        }
    }

    /// Connections open on this node.
    pub(crate) fn connections(&self) -> usize {
        self.inboxes.iter().map(|inbox| inbox.connections.load(std::sync::atomic::Ordering::Relaxed)).sum()
    }
}
