//! The webhook outbox of one group: claims on its parts, what lies in them, and what becomes of it.
//!
//! The scripts that decide edges append them to sixteen streams ([`Keys::outbox`]). Each is worked by one node at a time:
//! whoever holds its claim, under a fence that rises with every change of hands and that every write proves. A claim
//! lapses by itself. Nothing is decided here of what edges become.
//!
//! A call that fails drops the connection, and the next one asks who the primary is now. Whether a failed write was done is
//! not known; every operation may be done twice.

mod compare;
mod entry;
mod recall;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use fulmar_protocol::app::AppId;
use fulmar_protocol::webhook::Subject;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};

pub use self::compare::{Believed, Compared, SearchFrom, Searched, Sighted};
pub use self::entry::{ABSENT, Entry, EntryId, PRESENT, What};
pub use self::recall::{Had, Recalled};
use super::keys::Keys;
use super::millis;
use super::primaries::{OpenError, Primaries, Primary, open};
use super::settings::Settings;
use super::topic::OUTBOX_PARTS;

/// How long a claim is good for after it was renewed last.
pub const CLAIM_LEASE: Duration = Duration::from_secs(5);
/// Requests that were given up and are kept, for each part. The oldest go first.
pub const GIVEN_UP_MAX: u64 = 600;
/// Entries of a part that are read at once.
pub const READ_MAX: usize = 500;
/// Fields of a hash that are asked for at once.
const SCAN_COUNT: u64 = 1_000;

/// A script's text and the name it is called by. It runs on a server that is at its `maxmemory`: most of what it does frees
/// some.
struct Script {
    text: String,
    sha: String,
}

impl Script {
    /// Of these parts, behind the prelude.
    fn new(parts: &[&str]) -> Self {
        let text = ["#!lua flags=allow-oom\n", include_str!("scripts/prelude.lua"), &parts.concat()].concat();
        Self { sha: sha1_smol::Sha1::from(&text).digest().to_string(), text }
    }
}

macro_rules! script {
    ($name:ident, $($file:literal),+) => {
        static $name: LazyLock<Script> = LazyLock::new(|| Script::new(&[$(include_str!($file)),+]));
    };
}
script!(TURN, "scripts/settled.lua", "scripts/sight.lua", "scripts/outbox_turn.lua");
script!(
    WRITE,
    "scripts/outbox_held.lua",
    "scripts/outbox_done.lua",
    "scripts/outbox_operations.lua",
    "scripts/outbox_write.lua"
);
script!(LEAVE, "scripts/outbox_leave.lua");
script!(AGAIN, "scripts/outbox_again.lua");

/// Why the outbox did not do something.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// Nobody is believed to be the group's primary.
    #[error("group {0} has no primary now")]
    NoPrimary(usize),
    /// It cannot be reached.
    #[error("cannot reach {address}: {source}")]
    Open {
        /// Where it should be.
        address: String,
        /// Why.
        source: OpenError,
    },
    /// It did not answer, or refused.
    #[error("the primary of group {group}: {source}")]
    Redis {
        /// Which group.
        group: usize,
        /// Why.
        source: RedisError,
    },
    /// The part is not this node's any more.
    #[error("part {0} was claimed by another node")]
    NotClaimed(u16),
}

impl OutboxError {
    /// The same, where the claim is not this node's.
    fn of_part(self, part: u16) -> Self {
        match self {
            Self::Redis { source, .. } if source.code() == Some("NOTCLAIMED") => Self::NotClaimed(part),
            other => other,
        }
    }
}

/// By what it is known whether the store has all of a part that it had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stand {
    /// When it was first seen, by the server's clock: another time than before means that the store has lost everything.
    pub born: u64,
    /// How often it was written. Fewer times than before means that the store has gone back: to what a replica had that was behind, or
    /// to what lay on a disk.
    pub writes: u64,
}

/// What a node has after its turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// The server's time in milliseconds since 1970.
    pub now_ms: u64,
    /// Nodes that share the work.
    pub claimants: usize,
    /// Parts and their fences.
    pub held: Vec<(u16, String)>,
    /// How each part stands.
    pub stand: Vec<Stand>,
    /// What the absence of a record can be trusted for: another text after each damage, change of primary, death, move of slots and loss
    /// of edges, once all nodes have looked after their records; `None` before.
    pub sight: Option<String>,
    /// The sight in which what a part announced was compared with the records last, where it was.
    pub compared: HashMap<u16, String>,
}

impl Turn {
    /// What each of those who share the work has at most.
    #[must_use]
    pub fn share(&self) -> usize {
        usize::from(OUTBOX_PARTS).div_ceil(self.claimants.max(1))
    }
}

/// What is stored of a part beside its stream.
#[derive(Debug, Default)]
pub struct Stored {
    /// What was announced as come, with its generation.
    pub announced: Vec<(AppId, Subject, u64)>,
    /// Entries of the stream whose event some URLs have.
    pub partly: Vec<(EntryId, Vec<Arc<str>>)>,
    /// Sealed requests, by their identities.
    pub sealed: Vec<(u64, Vec<u8>)>,
    /// Identities of the events of entries that were settled in the last half minute and a little more.
    pub done: HashSet<u64>,
}

/// What a look at several parts showed.
#[derive(Debug, Default)]
pub struct Look {
    /// The server's time in milliseconds since 1970, before it was asked for entries.
    pub now_ms: u64,
    /// New entries by part. [`READ_MAX`] of them mean that there may be more.
    pub entries: HashMap<u16, Vec<Entry>>,
}

/// One operation of a write.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Nothing more comes of this entry, whose event has this identity.
    Settle(EntryId, u64),
    /// This request is over.
    Over(u64),
    /// This is no longer announced.
    Forget(AppId, Subject),
    /// All endpoints have the event of this entry.
    Whole(EntryId),
    /// A request is sealed.
    Seal(u64, Vec<u8>),
    /// This is announced, with its generation.
    Announce(AppId, Subject, u64),
    /// These URLs have the event of this entry.
    Partly(EntryId, Vec<Arc<str>>),
    /// This request was given up; kept aside.
    GiveUp(Vec<u8>),
}

/// Fields of a hash with their values.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

struct Open {
    connection: MultiplexedConnection,
    primary: Primary,
}

/// The outbox of one group.
pub struct GroupOutbox {
    primaries: Arc<dyn Primaries>,
    settings: Arc<Settings>,
    keys: Keys,
    group: usize,
    node: String,
    open: Option<Open>,
    /// The highest epoch that was seen of the group.
    epoch: u64,
    /// Connections that were made.
    connections: u64,
}

/// What tells the identities of a deployment's requests and events from those of others.
#[must_use]
pub fn stamp(settings: &Settings) -> u64 {
    entry::hash(&["webhooks of", &settings.deployment])
}

impl GroupOutbox {
    /// Nothing is opened yet. `node` is this node's incarnation.
    #[must_use]
    pub fn new(primaries: Arc<dyn Primaries>, settings: Arc<Settings>, group: usize, node: &str) -> Self {
        let name = settings.topology.groups().into_iter().nth(group).unwrap_or_default();
        let keys = settings.keys(&name);
        Self { primaries, settings, keys, group, node: node.to_owned(), open: None, epoch: 0, connections: 0 }
    }

    /// How many connections were made: whoever sees another number than before knows that what it knew may be wrong.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// The run id of the server that answers; `None` before one does.
    #[must_use]
    pub fn run(&self) -> Option<&str> {
        self.open.as_ref().map(|open| open.primary.run.as_str())
    }

    /// Whether nobody goes to this group any more.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.primaries.is_left(self.group)
    }

    /// Renews what this node has, and takes what is free up to its share, beginning with the part `first`. Without `takes`
    /// it does not share the work.
    ///
    /// # Errors
    /// When the group cannot be asked now.
    pub async fn turn(&mut self, first: u16, takes: bool) -> Result<Turn, OutboxError> {
        let args =
            [millis(CLAIM_LEASE).to_string(), OUTBOX_PARTS.to_string(), first.to_string(), u8::from(takes).to_string()];
        let node = self.node.clone();
        let reply = self.call(&TURN, std::iter::once(node).chain(args)).await?;
        let mut values = reply.into_iter().skip(1);
        let now_ms = values.next().and_then(|value| u64::from_redis_value(value).ok()).unwrap_or(0);
        let claimants = values.next().and_then(|value| usize::from_redis_value(value).ok()).unwrap_or(1);
        let sight = values.next().and_then(|value| String::from_redis_value(value).ok());
        let mut stand = Vec::with_capacity(usize::from(OUTBOX_PARTS));
        while stand.len() < usize::from(OUTBOX_PARTS) {
            let mut number = || values.next().and_then(|value| u64::from_redis_value(value).ok()).unwrap_or(0);
            stand.push(Stand { born: number(), writes: number() });
        }
        let (mut held, mut compared) = (Vec::new(), HashMap::new());
        while let (Some(part), Some(fence), Some(sight)) = (values.next(), values.next(), values.next()) {
            let Ok(part) = u16::from_redis_value(part) else { continue };
            held.extend(String::from_redis_value(fence).ok().map(|fence| (part, fence)));
            compared.extend(String::from_redis_value(sight).ok().map(|sight| (part, sight)));
        }
        let sight = sight.filter(|sight| !sight.is_empty());
        Ok(Turn { now_ms, claimants, held, stand, sight, compared })
    }

    /// Lets parts go, and with `for_good` the work.
    ///
    /// # Errors
    /// When the group cannot be asked now; the claims then lapse.
    pub async fn leave(&mut self, parts: &[(u16, String)], for_good: bool) -> Result<(), OutboxError> {
        let head = [self.node.clone(), u8::from(for_good).to_string()];
        let parts = parts.iter().flat_map(|(part, fence)| [part.to_string(), fence.clone()]);
        self.call(&LEAVE, head.into_iter().chain(parts)).await.map(drop)
    }

    /// What is stored of a part.
    ///
    /// # Errors
    /// When the group cannot be asked now.
    pub async fn stored(&mut self, part: u16) -> Result<Stored, OutboxError> {
        let announced = self.scan(&self.keys.announced(part)).await?;
        let partly = self.scan(&self.keys.partly(part)).await?;
        let sealed = self.sealed(part).await?;
        let mut done = HashMap::new();
        for turn in self.keys.done(part) {
            done.extend(self.scan(&turn).await?);
        }
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
        let number = |bytes: Vec<u8>| text(bytes)?.parse().ok();
        let coming = |(place, generation): (Vec<u8>, Vec<u8>)| {
            let (app, subject) = entry::subject(&text(place)?)?;
            Some((app, subject, number(generation)?))
        };
        let urls = |urls: Vec<u8>| Some(text(urls)?.lines().map(Arc::from).collect());
        Ok(Stored {
            announced: announced.into_iter().filter_map(coming).collect(),
            partly: partly.into_iter().filter_map(|(at, of)| Some((EntryId::parse(&text(at)?)?, urls(of)?))).collect(),
            sealed,
            done: done.into_keys().filter_map(number).collect(),
        })
    }

    /// The sealed requests of a part, in the order of their identities.
    ///
    /// # Errors
    /// When the group cannot be asked now.
    pub async fn sealed(&mut self, part: u16) -> Result<Vec<(u64, Vec<u8>)>, OutboxError> {
        let sealed = self.scan(&self.keys.sealed(part)).await?;
        let id = |id: Vec<u8>| String::from_utf8(id).ok()?.parse().ok();
        let mut sealed: Vec<_> = sealed.into_iter().filter_map(|(name, request)| Some((id(name)?, request))).collect();
        sealed.sort_unstable_by_key(|(id, _)| *id);
        Ok(sealed)
    }

    /// Reads on in several parts, each behind the entry given.
    ///
    /// # Errors
    /// When the group cannot be asked now.
    pub async fn look(&mut self, parts: &[(u16, EntryId)]) -> Result<Look, OutboxError> {
        type Streams = Option<Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>>;
        let mut pipe = redis::pipe();
        pipe.cmd("TIME");
        if !parts.is_empty() {
            pipe.cmd("XREAD").arg("COUNT").arg(READ_MAX).arg("STREAMS");
            parts.iter().for_each(|(part, _)| _ = pipe.arg(self.keys.outbox(*part)));
            parts.iter().for_each(|(_, after)| _ = pipe.arg(after.to_string()));
        }
        let group = self.group;
        let open = self.opened().await?;
        let identity = open.primary.identity.clone();
        let values: Result<Vec<Value>, RedisError> = pipe.query_async(&mut open.connection).await;
        let understood = values.and_then(|values| {
            let mut values = values.into_iter();
            let (s, us) = <(u64, u64)>::from_redis_value(values.next().unwrap_or(Value::Nil))?;
            let streams = Streams::from_redis_value(values.next().unwrap_or(Value::Nil))?;
            Ok((s * 1_000 + us / 1_000, streams.unwrap_or_default()))
        });
        let (now_ms, streams) = understood.map_err(|source| self.failed(group, source))?;
        let mut look = Look { now_ms, entries: HashMap::new() };
        for (key, entries) in streams {
            let Some((part, _)) = parts.iter().find(|(part, _)| self.keys.outbox(*part) == key) else { continue };
            let read = entries
                .into_iter()
                .filter_map(|(at, fields)| Some(Entry::read(EntryId::parse(&at)?, &fields, &identity, *part)));
            look.entries.insert(*part, read.collect());
        }
        Ok(look)
    }

    /// Writes all of this or nothing, if the part is this node's under this fence. Answers how often the part was written since its birth.
    ///
    /// # Errors
    /// [`OutboxError::NotClaimed`] when it is not; anything else means that it may have been written.
    pub async fn write(&mut self, part: u16, fence: &str, operations: &[Operation]) -> Result<u64, OutboxError> {
        let head = [part.to_string(), self.node.clone(), fence.to_owned(), GIVEN_UP_MAX.to_string()];
        let mut arguments: Vec<Vec<u8>> = head.into_iter().map(String::into_bytes).collect();
        operations.iter().for_each(|operation| operation.put(&mut arguments));
        let reply = self.call(&WRITE, arguments).await.map_err(|error| error.of_part(part))?;
        Ok(reply.into_iter().nth(1).and_then(|writes| u64::from_redis_value(writes).ok()).unwrap_or(0))
    }

    /// The requests of a part that were given up, newest first, as they were kept.
    ///
    /// # Errors
    /// When the group cannot be asked now.
    pub async fn given_up(&mut self, part: u16) -> Result<Vec<Vec<u8>>, OutboxError> {
        let (group, key) = (self.group, self.keys.given_up(part));
        let open = self.opened().await?;
        let range = redis::cmd("LRANGE").arg(key).arg(0).arg(-1).query_async(&mut open.connection).await;
        range.map_err(|source| self.failed(group, source))
    }

    /// Sends a request that was given up back to whoever works its part. Answers whether it was still there.
    ///
    /// # Errors
    /// When the group cannot be asked now.
    pub async fn again(&mut self, part: u16, request: &[u8]) -> Result<bool, OutboxError> {
        let reply = self.call(&AGAIN, [part.to_string().into_bytes(), request.to_vec()]).await?;
        Ok(reply.get(1) == Some(&Value::Int(1)))
    }

    async fn scan(&mut self, key: &str) -> Result<HashMap<Vec<u8>, Vec<u8>>, OutboxError> {
        let group = self.group;
        let mut cursor = 0_u64;
        let mut found = HashMap::new();
        loop {
            let open = self.opened().await?;
            let mut scan = redis::cmd("HSCAN");
            scan.arg(key).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
            let page: Result<(u64, Pairs), RedisError> = scan.query_async(&mut open.connection).await;
            let (next, page) = page.map_err(|source| self.failed(group, source))?;
            found.extend(page);
            if next == 0 {
                return Ok(found);
            }
            cursor = next;
        }
    }

    async fn call<A: redis::ToRedisArgs>(
        &mut self,
        script: &Script,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Vec<Value>, OutboxError> {
        let arguments: Vec<A> = arguments.into_iter().collect();
        let (group, declared, epoch) = (self.group, self.keys.declared(), self.epoch);
        let open = self.opened().await?;
        let epoch = epoch.max(open.primary.epoch);
        let call = |name: &str, script: &str| {
            let mut call = redis::cmd(name);
            call.arg(script).arg(declared.len()).arg(&declared);
            call.arg(&open.primary.identity).arg(&open.primary.run).arg(epoch).arg(&arguments);
            call
        };
        let mut reply: Result<Vec<Value>, RedisError> =
            call("EVALSHA", &script.sha).query_async(&mut open.connection).await;
        if reply.as_ref().is_err_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)) {
            reply = call("EVAL", &script.text).query_async(&mut open.connection).await;
        }
        let reply = reply.map_err(|source| self.failed(group, source))?;
        if let Some(Value::Int(epoch)) = reply.first() {
            self.epoch = self.epoch.max(u64::try_from(*epoch).unwrap_or(0));
        }
        Ok(reply)
    }

    async fn opened(&mut self) -> Result<&mut Open, OutboxError> {
        let believed = self.primaries.primary(self.group).ok_or(OutboxError::NoPrimary(self.group))?;
        let is_same = |open: &Open| {
            (&open.primary.address, &open.primary.run, &open.primary.identity)
                == (&believed.address, &believed.run, &believed.identity)
        };
        if !self.open.as_ref().is_some_and(is_same) {
            self.open = None;
            let opened = open(&believed.address, &self.settings, self.settings.limits.command_timeout).await;
            let connection =
                opened.map_err(|source| OutboxError::Open { address: believed.address.clone(), source })?;
            self.connections += 1;
            self.open = Some(Open { connection, primary: believed });
        }
        Ok(self.open.as_mut().expect("it has just been opened"))
    }

    fn failed(&mut self, group: usize, source: RedisError) -> OutboxError {
        // An answer that was refused says that another node is at work, not that the server is the wrong one.
        if source.code() != Some("NOTCLAIMED") {
            self.open = None;
        }
        OutboxError::Redis { group, source }
    }
}

impl Operation {
    fn put(&self, arguments: &mut Vec<Vec<u8>>) {
        let mut put = |letter: &str, values: &[&[u8]]| {
            arguments.push(letter.as_bytes().to_vec());
            arguments.extend(values.iter().map(|value| value.to_vec()));
        };
        match self {
            Self::Settle(at, id) => put("D", &[at.to_string().as_bytes(), id.to_string().as_bytes()]),
            Self::Over(id) => put("O", &[id.to_string().as_bytes()]),
            Self::Forget(app, subject) => put("F", &[entry::place(app, subject).as_bytes()]),
            Self::Whole(at) => put("Q", &[at.to_string().as_bytes()]),
            Self::Seal(id, request) => put("S", &[id.to_string().as_bytes(), request]),
            Self::Announce(app, subject, generation) => {
                put("A", &[entry::place(app, subject).as_bytes(), generation.to_string().as_bytes()]);
            }
            Self::Partly(at, urls) => put("P", &[at.to_string().as_bytes(), urls.join("\n").as_bytes()]),
            Self::GiveUp(request) => put("G", &[request]),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
