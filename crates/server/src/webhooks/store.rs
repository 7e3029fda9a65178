//! What of the webhooks survives the end of the node, however it comes: one file of an embedded store.
//!
//! Every call of [`Store::write`] is one transaction on disk before it returns. The store decides nothing: what is kept
//! and for how long stands in the records it is given.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fulmar_engine::webhook_batch::{Address, Batch, Place, Record, Restored, Told};
use fulmar_protocol::app::AppId;
use fulmar_protocol::name::{ChannelName, UserId};
use fulmar_protocol::webhook::{Event, EventKind, Subject};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition};
use serde::{Deserialize, Serialize};

/// The file's name within the storage folder.
pub const FILE: &str = "webhooks.redb";
/// Batches that were given up and are kept for whoever wants to send them again. The oldest go first.
pub const GIVEN_UP_MAX: u64 = 10_000;
/// Memory for the store's pages.
const CACHE_BYTES: usize = 16 << 20;
/// What is written is of this form.
const FORMAT: u64 = 1;

type Keyed = (&'static str, &'static str, u64);

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// What was announced: app, kind and channel, user.
const PRESENT: TableDefinition<(&str, &str, &str), u64> = TableDefinition::new("present");
/// Events in open batches, by their turns.
const QUEUED: TableDefinition<u64, &str> = TableDefinition::new("queued");
/// The turn of the last event that was sealed for an endpoint: app, URL.
const SEALED_UP_TO: TableDefinition<(&str, &str), u64> = TableDefinition::new("sealed_up_to");
/// Sealed batches: app, URL, identity.
const BATCHES: TableDefinition<Keyed, &[u8]> = TableDefinition::new("batches");
/// Batches that were given up, by identity.
const GIVEN_UP: TableDefinition<u64, &[u8]> = TableDefinition::new("given_up");

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made.
    #[error("cannot make the folder {path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{path} is in use: another node runs on this folder (storage.path)")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is of a later release.
    #[error("the webhook store was written by a later release (format {found}, this one knows {FORMAT})")]
    Format {
        /// What it says.
        found: u64,
    },
    /// Reading or writing failed.
    #[error("the webhook store: {0}")]
    Disk(#[from] Box<redb::Error>),
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Disk(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(
    redb::Error,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);

/// What became of batches since the last write.
#[derive(Debug, Clone)]
pub enum Ended {
    /// No longer to be kept.
    Over(Address, u64),
    /// Given up; kept aside.
    GivenUp(Address, Arc<Batch>, u64),
    /// One that was given up is sent again, or is not wanted any more.
    Taken(u64),
}

/// A batch that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Whom it was for.
    pub to: Address,
    /// The batch.
    pub batch: Batch,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
}

type Open = Box<dyn Fn() -> Result<Database, StoreError> + Send>;

/// The open store.
pub struct Store {
    /// `None` after a disk did not take something: then it must be opened again, which tells what is really there.
    database: Option<Database>,
    open: Open,
    /// Random; tells the identities of this store from those of any other.
    stamp: u64,
}

/// All that a store holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// For the book.
    pub restored: Restored,
    /// Sealed and not over, in the order of their identities.
    pub batches: Vec<(Address, Batch)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredBatch<'a> {
    sealed: u64,
    key: &'a str,
    signature: &'a str,
    body: std::borrow::Cow<'a, str>,
    events: Vec<u64>,
    lanes: Vec<std::borrow::Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredGivenUp<'a> {
    pub(super) app: &'a str,
    pub(super) url: std::borrow::Cow<'a, str>,
    pub(super) at: u64,
    #[serde(borrow)]
    pub(super) batch: StoredBatch<'a>,
}

impl Store {
    /// Opens the store in `folder`, making both when they are not there. After a crash this may take as long as reading
    /// the file does.
    ///
    /// # Errors
    /// When it cannot be opened; [`StoreError::InUse`] while a node has it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        make_private(folder).map_err(|source| StoreError::Folder { path: folder.to_owned(), source })?;
        Self::open_file(&folder.join(FILE))
    }

    /// Opens the store in `folder` if there is one.
    ///
    /// # Errors
    /// When it cannot be opened; [`StoreError::InUse`] while a node has it.
    pub fn open_existing(folder: &Path) -> Result<Option<Self>, StoreError> {
        let file = folder.join(FILE);
        if file.exists() { Self::open_file(&file).map(Some) } else { Ok(None) }
    }

    fn open_file(file: &Path) -> Result<Self, StoreError> {
        let path = file.to_owned();
        Self::open_with(Box::new(move || match Database::builder().set_cache_size(CACHE_BYTES).create(&path) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => Err(StoreError::InUse { path: path.clone() }),
            opened => opened.map_err(|error| StoreError::Disk(Box::new(error.into()))),
        }))
    }

    pub(super) fn open_with(open: Open) -> Result<Self, StoreError> {
        let database = open()?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|e| redb::Error::Io(e.into()))?;
        let write = database.begin_write()?;
        let stamp = {
            let mut meta = write.open_table(META)?;
            let format = read(&meta, "format")?.unwrap_or(FORMAT);
            if format != FORMAT {
                return Err(StoreError::Format { found: format });
            }
            meta.insert("format", FORMAT)?;
            let stamp = read(&meta, "stamp")?.unwrap_or(u64::from_ne_bytes(random));
            meta.insert("stamp", stamp)?;
            stamp
        };
        write.open_table(PRESENT)?;
        write.open_table(QUEUED)?;
        write.open_table(SEALED_UP_TO)?;
        write.open_table(BATCHES)?;
        write.open_table(GIVEN_UP)?;
        write.commit()?;
        Ok(Self { database: Some(database), open, stamp })
    }

    /// What tells this store's identities from those of others.
    #[must_use]
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Reads everything that is not over.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn contents(&mut self) -> Result<Contents, StoreError> {
        let reading = self.database()?.begin_read()?;
        let mut contents = Contents::default();
        contents.restored.next_id = read(&reading.open_table(META)?, "next_id")?.unwrap_or(1);
        for row in reading.open_table(PRESENT)?.iter()? {
            let (key, generation) = row?;
            contents.restored.present.extend(place_of(key.value()).map(|place| (place, generation.value())));
        }
        for row in reading.open_table(QUEUED)?.iter()? {
            let (turn, text) = row?;
            contents.restored.queued.extend(told_of(text.value()).map(|(app, told)| (app, turn.value(), told)));
        }
        for row in reading.open_table(SEALED_UP_TO)?.iter()? {
            let (key, last) = row?;
            let (app, url) = key.value();
            contents.restored.sealed_up_to.push((address(app, url), last.value()));
        }
        for row in reading.open_table(BATCHES)?.iter()? {
            let (key, batch) = row?;
            let (app, url, id) = key.value();
            contents.batches.extend(batch_of(id, batch.value()).map(|batch| (address(app, url), batch)));
        }
        contents.batches.sort_by_key(|(_, batch)| batch.id);
        Ok(contents)
    }

    /// The batches that were given up, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn given_up(&mut self) -> Result<Vec<GivenUp>, StoreError> {
        let reading = self.database()?.begin_read()?;
        let mut all = Vec::new();
        for row in reading.open_table(GIVEN_UP)?.iter()? {
            let (id, stored) = row?;
            all.extend(given_up_of(id.value(), stored.value()));
        }
        Ok(all)
    }

    /// Writes everything or nothing; it is on disk when this returns.
    ///
    /// # Errors
    /// When it is not known to be written. The same may be tried again, whether or not it was.
    pub fn write(&mut self, records: &[Record], ended: &[Ended], next_id: u64) -> Result<(), StoreError> {
        let written = self.try_write(records, ended, next_id);
        if written.is_err() {
            self.database = None;
        }
        written
    }

    fn database(&mut self) -> Result<&Database, StoreError> {
        match &mut self.database {
            Some(database) => Ok(database),
            closed => Ok(closed.insert((self.open)()?)),
        }
    }

    fn try_write(&mut self, records: &[Record], ended: &[Ended], next_id: u64) -> Result<(), StoreError> {
        let write = self.database()?.begin_write()?;
        {
            let mut tables = Tables {
                present: write.open_table(PRESENT)?,
                queued: write.open_table(QUEUED)?,
                sealed_up_to: write.open_table(SEALED_UP_TO)?,
                batches: write.open_table(BATCHES)?,
                given_up: write.open_table(GIVEN_UP)?,
            };
            for record in records {
                tables.record(record)?;
            }
            for end in ended {
                tables.end(end)?;
            }
            write.open_table(META)?.insert("next_id", next_id)?;
        }
        write.commit()?;
        Ok(())
    }
}

struct Tables<'t> {
    present: Table<'t, (&'static str, &'static str, &'static str), u64>,
    queued: Table<'t, u64, &'static str>,
    sealed_up_to: Table<'t, (&'static str, &'static str), u64>,
    batches: Table<'t, Keyed, &'static [u8]>,
    given_up: Table<'t, u64, &'static [u8]>,
}

impl Tables<'_> {
    fn record(&mut self, record: &Record) -> Result<(), StoreError> {
        match record {
            Record::Came { place, generation } => {
                let (subject, user) = place_key(place);
                self.present.insert((place.app.as_str(), subject.as_str(), user), generation)?;
            }
            Record::Went { place } => {
                let (subject, user) = place_key(place);
                self.present.remove((place.app.as_str(), subject.as_str(), user))?;
            }
            Record::Queued { app, turn, told: Told { id, event } } => {
                let channel = event.channel.as_ref().map_or("", ChannelName::as_str);
                let text = format!("{app}\n{id}\n{}\n{channel}\n{}", event.kind.name(), event.json);
                self.queued.insert(turn, text.as_str())?;
            }
            Record::Sealed { to, batch, turns } => {
                if let Some(turn) = turns.last() {
                    self.sealed_up_to.insert((to.app.as_str(), &*to.url), turn)?;
                }
                self.batches.insert((to.app.as_str(), &*to.url, batch.id), to_bytes(&stored(batch)).as_slice())?;
            }
            Record::Settled { turn } => {
                self.queued.remove(turn)?;
            }
            Record::Dropped { to, .. } => {
                self.sealed_up_to.remove((to.app.as_str(), &*to.url))?;
            }
        }
        Ok(())
    }

    fn end(&mut self, ended: &Ended) -> Result<(), StoreError> {
        match ended {
            Ended::Over(to, id) => {
                self.batches.remove((to.app.as_str(), &*to.url, *id))?;
            }
            Ended::GivenUp(to, batch, at) => {
                self.batches.remove((to.app.as_str(), &*to.url, batch.id))?;
                let kept =
                    StoredGivenUp { app: to.app.as_str(), url: (&*to.url).into(), at: *at, batch: stored(batch) };
                self.given_up.insert(batch.id, to_bytes(&kept).as_slice())?;
                while self.given_up.len()? > GIVEN_UP_MAX {
                    self.given_up.pop_first()?;
                }
            }
            Ended::Taken(id) => {
                self.given_up.remove(id)?;
            }
        }
        Ok(())
    }
}

/// A folder for its owner alone: webhooks tell who talks with whom.
fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn read(meta: &impl ReadableTable<&'static str, u64>, key: &str) -> Result<Option<u64>, StoreError> {
    Ok(meta.get(key)?.map(|value| value.value()))
}

pub(super) fn address(app: &str, url: &str) -> Address {
    Address { app: AppId::new(app), url: url.into() }
}

/// The two texts by which a place is stored: a letter for its kind with the channel, and the user.
fn place_key(place: &Place) -> (String, &str) {
    match &place.subject {
        Subject::Channel(channel) => (format!("c{channel}"), ""),
        Subject::Member(channel, user) => (format!("m{channel}"), user.as_str()),
        Subject::User(user) => ("u".to_owned(), user.as_str()),
    }
}

fn place_of((app, subject, user): (&str, &str, &str)) -> Option<Place> {
    let channel = |name: &str| ChannelName::parse(name, usize::MAX).ok();
    let user = || UserId::parse(user, usize::MAX).ok();
    let subject = match subject.split_at_checked(1)? {
        ("c", name) => Subject::Channel(channel(name)?),
        ("m", name) => Subject::Member(channel(name)?, user()?),
        _ => Subject::User(user()?),
    };
    Some(Place { app: AppId::new(app), subject })
}

fn told_of(text: &str) -> Option<(AppId, Told)> {
    let mut parts = text.splitn(5, '\n');
    let (app, id) = (AppId::new(parts.next()?), parts.next()?.parse().ok()?);
    let (kind, channel, json) = (EventKind::parse(parts.next()?)?, parts.next()?, parts.next()?);
    let channel = if channel.is_empty() { None } else { Some(ChannelName::parse(channel, usize::MAX).ok()?) };
    Some((app, Told { id, event: Event { kind, channel, json: json.into() } }))
}

pub(super) fn stored(batch: &Batch) -> StoredBatch<'_> {
    StoredBatch {
        sealed: batch.sealed_unix_ms,
        key: &batch.key,
        signature: &batch.signature,
        body: (&*batch.body).into(),
        events: batch.event_ids.clone(),
        lanes: batch.lanes.iter().map(|lane| (&**lane).into()).collect(),
    }
}

pub(super) fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers can always be written")
}

pub(super) fn batch_from(id: u64, stored: &StoredBatch<'_>) -> Batch {
    Batch {
        id,
        sealed_unix_ms: stored.sealed,
        key: stored.key.into(),
        signature: stored.signature.into(),
        body: (&*stored.body).into(),
        event_ids: stored.events.clone(),
        lanes: stored.lanes.iter().map(|lane| (&**lane).into()).collect(),
    }
}

fn batch_of(id: u64, bytes: &[u8]) -> Option<Batch> {
    Some(batch_from(id, &serde_json::from_slice(bytes).ok()?))
}

fn given_up_of(id: u64, bytes: &[u8]) -> Option<GivenUp> {
    let stored: StoredGivenUp<'_> = serde_json::from_slice(bytes).ok()?;
    let to = address(stored.app, &stored.url);
    Some(GivenUp { to, batch: batch_from(id, &stored.batch), at_unix_ms: stored.at })
}
