//! Apps in a file of their own, changed while the node runs.
//!
//! Every change is one transaction: the app and its revision are there together or not at all, and on the disk before
//! anybody is told. What means nothing to this release is kept as it is for the one that wrote it.

use std::collections::BTreeMap;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};

use super::{Change, Kept, PutError, Registry, Revision, Settings};
use crate::config::WrittenApp;
use crate::storage::open_private;

/// The file, within the storage folder.
pub const FILE: &str = "apps.redb";
/// Revisions kept of one app; the oldest go first.
pub const REVISIONS_MAX: usize = 100;
/// Apps kept at once.
pub const APPS_MAX: usize = 100_000;
/// Removed apps that can be brought back; the one removed first goes first.
pub const REMOVED_MAX: usize = 100;

/// Memory for pages of the file: apps are read once, at the start.
const CACHE_BYTES: usize = 1 << 20;
/// By id.
const APPS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("apps");
/// By id and revision.
const REVISIONS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("revisions");

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another node has it.
    #[error("another process has it open; each node needs a folder of its own ([storage] path)")]
    InUse,
    /// The database, or the disk below it.
    #[error("{0}")]
    Database(Box<redb::Error>),
    /// The file was found damaged, in a way that its own check does not see.
    #[error("the entry of app {id} is not readable: {source}")]
    Entry {
        /// Which.
        id: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            error => Self::Database(Box::new(error)),
        }
    }
}

impl<E: Into<redb::Error>> From<E> for PutError {
    fn from(error: E) -> Self {
        Self::Broken(StoreError::from(error))
    }
}

/// An app as it lies in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    revision: u64,
    /// When it was removed, in milliseconds since 1970; the settings are kept so that it can come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removed_at_ms: Option<u64>,
    settings: Settings,
}

/// An app as it lies in the file, and what it means, which takes longer to find out than to keep.
#[derive(Debug)]
struct Entry {
    record: Record,
    read: Result<WrittenApp, String>,
}

impl From<Record> for Entry {
    fn from(record: Record) -> Self {
        Self { read: record.settings.read(), record }
    }
}

/// The store.
#[derive(Debug)]
pub struct StoredApps {
    database: Database,
    apps: BTreeMap<String, Entry>,
}

impl StoredApps {
    /// Opens the store in a folder, and makes it if there is none.
    ///
    /// # Errors
    /// When it cannot be read or written, or another process has it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let file = open_private(&folder.join(FILE)).map_err(redb::Error::from)?;
        let database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(FileBackend::new(file)?)?;
        let write = database.begin_write()?;
        write.open_table(APPS)?;
        write.open_table(REVISIONS)?;
        write.commit()?;
        let mut apps = BTreeMap::new();
        for entry in database.begin_read()?.open_table(APPS)?.iter()? {
            let (id, bytes) = entry?;
            let id = id.value().to_owned();
            let record: Result<Record, _> = serde_json::from_slice(bytes.value());
            let record = record.map_err(|source| StoreError::Entry { id: id.clone(), source })?;
            apps.insert(id, record.into());
        }
        Ok(Self { database, apps })
    }

    /// Whether no app is kept; removed ones do not count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.apps.values().all(|entry| entry.record.removed_at_ms.is_some())
    }

    /// The settings an app had when it was removed, and its last revision.
    #[must_use]
    pub fn removed(&self, id: &str) -> Option<(&Settings, u64)> {
        let record = self.apps.get(id).map(|entry| &entry.record).filter(|record| record.removed_at_ms.is_some())?;
        Some((&record.settings, record.revision))
    }

    /// The removed app that has been so the longest, when there are more than may be.
    fn forgotten(&self) -> Option<String> {
        let removed = || self.apps.iter().filter_map(|(id, entry)| Some((entry.record.removed_at_ms?, id)));
        if removed().count() <= REMOVED_MAX {
            return None;
        }
        removed().min().map(|(_, id)| id.clone())
    }
}

impl Registry for StoredApps {
    fn name(&self) -> String {
        "the registry".to_owned()
    }

    fn kept(&self) -> Vec<Kept> {
        let present = self.apps.iter().filter(|(_, entry)| entry.record.removed_at_ms.is_none());
        let kept = present.map(|(id, Entry { record, read })| Kept {
            id: id.clone(),
            revision: Some(record.revision),
            settings: record.settings.clone(),
            read: read.clone(),
        });
        kept.collect()
    }

    fn put(&mut self, change: Change) -> Result<(), PutError> {
        let Change { id, settings, revision } = change;
        let before = self.apps.get(&id);
        if before.is_none() && self.apps.len() >= APPS_MAX {
            return Err(PutError::Full { max: APPS_MAX });
        }
        let record = match settings {
            Some(settings) => Record { revision: revision.revision, removed_at_ms: None, settings },
            None => Record {
                revision: revision.revision,
                removed_at_ms: Some(revision.at_ms),
                settings: before.map(|entry| entry.record.settings.clone()).unwrap_or_default(),
            },
        };
        let write = self.database.begin_write()?;
        {
            write.open_table(APPS)?.insert(id.as_str(), encoded(&id, &record)?.as_slice())?;
            let mut revisions = write.open_table(REVISIONS)?;
            revisions.insert((id.as_str(), revision.revision), encoded(&id, &revision)?.as_slice())?;
            let oldest = (revision.revision + 1).saturating_sub(REVISIONS_MAX as u64);
            revisions.retain_in((id.as_str(), 0)..(id.as_str(), oldest), |_, _| false)?;
        }
        write.commit()?;
        self.apps.insert(id, record.into());
        if let Some(id) = self.forgotten() {
            let write = self.database.begin_write()?;
            write.open_table(APPS)?.remove(id.as_str())?;
            write.open_table(REVISIONS)?.retain_in((id.as_str(), 0)..=(id.as_str(), u64::MAX), |_, _| false)?;
            write.commit()?;
            self.apps.remove(&id);
        }
        Ok(())
    }

    fn history(&self, id: &str) -> Result<Vec<Revision>, PutError> {
        let table = self.database.begin_read()?.open_table(REVISIONS)?;
        let mut revisions = Vec::new();
        for entry in table.range((id, 0)..=(id, u64::MAX))? {
            let (_, bytes) = entry?;
            let revision = serde_json::from_slice(bytes.value());
            revisions.push(revision.map_err(|source| StoreError::Entry { id: id.to_owned(), source })?);
        }
        Ok(revisions)
    }
}

fn encoded(id: &str, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|source| StoreError::Entry { id: id.to_owned(), source })
}
