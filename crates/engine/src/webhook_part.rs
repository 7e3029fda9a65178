//! What a node makes of one part of an outbox that all nodes share.
//!
//! The part is a stream of edges in a store. Whoever works it reads the stream from its first entry on and leaves every
//! entry there until all that follows from it is sealed, or nothing does. So what is stored (what was announced, and
//! which endpoints have the event of an entry already) and the entries that are left are the whole truth, and whoever
//! takes the part over comes to the same decisions: all of them are made by the times of the entries, and time passes
//! only as far as the stream is known.
//!
//! It reads and writes nothing: what must be written, in one piece and before anything is sent, comes out as
//! [`Changes`].

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use fulmar_protocol::app::App;
use fulmar_protocol::webhook::Edge;
use hashbrown::HashMap;

use crate::time::Moment;
use crate::webhook_batch::{Address, Batch, Mark, Now, Place, Record, WebhookBook};

/// Bits of a request's identity that count within a millisecond.
const COUNTER_BITS: u32 = 10;
/// Bits that say whose part it is.
const LANE_BITS: u32 = 12;

/// Which part of which group, as a number: two that are worked at the same time differ in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane(u16);

impl Lane {
    /// Of a part (below 16) of a group. Groups beyond 256 share numbers with others: their requests could then have the
    /// same identity if sealed in the same moment.
    #[must_use]
    pub fn new(group: usize, part: u16) -> Self {
        let group = u16::try_from(group % (1 << (LANE_BITS - 4))).expect("less than 256");
        Self(group << 4 | part & 15)
    }

    /// The lane in which the request with this identity was sealed.
    #[must_use]
    pub fn of_request(id: u64) -> Self {
        Self(u16::try_from(id >> COUNTER_BITS & ((1 << LANE_BITS) - 1)).expect("twelve bits"))
    }

    /// The group.
    #[must_use]
    pub fn group(self) -> usize {
        usize::from(self.0 >> 4)
    }

    /// The part.
    #[must_use]
    pub fn part(self) -> u16 {
        self.0 & 15
    }

    /// The identity of a request: milliseconds, lane, counter. So identities of one lane rise, and all of them rise with
    /// time, which is what an endpoint's line is ordered by.
    fn request(self, tick: u64) -> u64 {
        let ms = tick >> COUNTER_BITS;
        ms << (COUNTER_BITS + LANE_BITS) | u64::from(self.0) << COUNTER_BITS | tick & ((1 << COUNTER_BITS) - 1)
    }

    fn tick(id: u64) -> u64 {
        id >> (COUNTER_BITS + LANE_BITS) << COUNTER_BITS | id & ((1 << COUNTER_BITS) - 1)
    }
}

/// Place of an entry in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EntryId {
    /// When it was appended: milliseconds since 1970 by the store's clock.
    pub ms: u64,
    /// Counts within a millisecond.
    pub counter: u64,
}

/// An entry of the stream.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place.
    pub at: EntryId,
    /// Identity of the event that comes of it.
    pub id: u64,
    /// See [`Mark::generation`].
    pub generation: Option<u64>,
    /// See [`Mark::is_again`].
    pub is_again: bool,
    /// See [`Mark::happened`]: milliseconds since 1970.
    pub happened_ms: Option<u64>,
    /// What it says.
    pub what: What,
}

/// What an entry says.
#[derive(Debug, Clone)]
pub enum What {
    /// Something happened.
    Edge(Edge),
    /// A request that was given up is to be sent again.
    Again(Address, Batch),
    /// This is announced by another part, whose subjects come here (`true`); or is another part's business from now on.
    Known(Place, bool),
    /// Nothing that this release understands.
    Unknown,
}

/// What is stored of a part beside its stream.
#[derive(Debug, Default)]
pub struct Stored {
    /// What was announced as come by entries that are gone, with generations.
    pub announced: Vec<(Place, u64)>,
    /// Entries whose event some endpoints have: their URLs.
    pub partly: Vec<(EntryId, Vec<Arc<str>>)>,
    /// The highest identity of a request that is stored.
    pub last_request: u64,
}

/// What must be written, in one piece.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Requests to be stored; to be sent afterwards.
    pub sealed: Vec<(Address, Arc<Batch>)>,
    /// Entries of which nothing more comes, each with the identity of its event.
    pub settled: Vec<(EntryId, u64)>,
    /// What is announced from now on (with its generation) or no longer, in this order.
    pub announced: Vec<(Place, Option<u64>)>,
    /// Entries that stay, and the endpoints that have their event.
    pub partly: Vec<(EntryId, Vec<Arc<str>>)>,
    /// Those that no longer need to be said of.
    pub whole: Vec<EntryId>,
}

impl Changes {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { sealed, settled, announced, partly, whole } = self;
        sealed.is_empty() && settled.is_empty() && announced.is_empty() && partly.is_empty() && whole.is_empty()
    }

    /// Puts later ones behind these.
    pub fn append(&mut self, mut later: Self) {
        self.sealed.append(&mut later.sealed);
        self.settled.append(&mut later.settled);
        self.announced.append(&mut later.announced);
        self.partly.append(&mut later.partly);
        self.whole.append(&mut later.whole);
    }
}

/// Endpoints that have the event of an entry, while others do not.
#[derive(Debug, Default)]
struct Partly {
    urls: Vec<Arc<str>>,
    is_stored: bool,
}

/// The book of one part.
#[derive(Debug)]
pub struct WebhookPart {
    lane: Lane,
    book: WebhookBook,
    /// Up to here the stream is known.
    known: Moment,
    /// The last entry that was taken.
    after: EntryId,
    /// Entries that are left, by their turns, with the identities of their events.
    entries: HashMap<u64, (EntryId, u64), RandomState>,
    next_turn: u64,
    partly: HashMap<u64, Partly, RandomState>,
    /// Of entries that were not read again yet.
    partly_before: HashMap<EntryId, Vec<Arc<str>>, RandomState>,
    /// Turns whose partly changed since the last [`WebhookPart::changes`].
    touched: BTreeSet<u64>,
    changes: Changes,
    /// Events that waited for endpoints that are no longer configured.
    dropped: Vec<(Address, usize)>,
}

impl WebhookPart {
    /// Goes on where another node, or this one, had ended. The stream is to be read from its first entry.
    #[must_use]
    pub fn new(lane: Lane, apps: Vec<Arc<App>>, stored: Stored) -> Self {
        let mut part = Self {
            lane,
            book: WebhookBook::new(),
            known: Moment::default(),
            after: EntryId::default(),
            entries: HashMap::default(),
            next_turn: 0,
            partly: HashMap::default(),
            partly_before: stored.partly.into_iter().collect(),
            touched: BTreeSet::new(),
            changes: Changes::default(),
            dropped: Vec::new(),
        };
        let mut records = Vec::new();
        part.book.set_apps(apps, &mut records);
        part.book.believe(stored.announced, &mut records);
        part.book.advance_to(Lane::tick(stored.last_request) + 1);
        part.absorb(records);
        part
    }

    /// These apps from now on.
    pub fn set_apps(&mut self, apps: Vec<Arc<App>>) {
        let mut records = Vec::new();
        self.book.set_apps(apps, &mut records);
        self.absorb(records);
    }

    /// Takes the next entry of the stream. `unix_ms` is the date by this node's own clock, for receivers.
    pub fn take(&mut self, unix_ms: u64, entry: Entry) {
        let Entry { at, id, generation, is_again, happened_ms, what } = entry;
        if at <= self.after {
            return;
        }
        self.after = at;
        self.pass(unix_ms, at.ms);
        let now = self.now(unix_ms);
        self.next_turn += 1;
        let turn = self.next_turn;
        self.entries.insert(turn, (at, id));
        let told_at = self.partly_before.remove(&at).unwrap_or_default();
        if !told_at.is_empty() {
            self.partly.insert(turn, Partly { urls: told_at.clone(), is_stored: true });
        }
        let mut records = Vec::new();
        match what {
            What::Edge(edge) => {
                let happened = happened_ms.map(Moment);
                let mark = Mark { id, turn, generation, is_again, happened, told_at };
                self.book.take_marked(now, edge, mark, &mut records);
            }
            What::Again(to, old) => {
                let again = self.book.seal_again(now, &to, &old);
                records.extend(again.map(|batch| Record::Sealed { to, batch, turns: Vec::new() }));
                records.push(Record::Settled { turn });
            }
            What::Known(place, is_there) => {
                self.book.learn(place, is_there.then(|| generation.unwrap_or(0)), turn, &mut records);
            }
            What::Unknown => records.push(Record::Settled { turn }),
        }
        self.absorb(records);
    }

    /// The stream is known up to this time of the store: no entry before it is still to come.
    pub fn pass(&mut self, unix_ms: u64, known_ms: u64) {
        self.known = self.known.max(Moment(known_ms));
        let now = self.now(unix_ms);
        let mut records = Vec::new();
        self.book.pass(now, &mut records);
        self.absorb(records);
    }

    /// A stored request is too old for its receiver: the same again, with the date of now. `None` when its endpoint is no
    /// longer configured. The new one is among the next changes.
    pub fn seal_again(&mut self, unix_ms: u64, to: &Address, old: &Batch) -> Option<()> {
        let now = self.now(unix_ms);
        let batch = self.book.seal_again(now, to, old)?;
        self.absorb(vec![Record::Sealed { to: to.clone(), batch, turns: Vec::new() }]);
        Some(())
    }

    /// What must be written since the last call.
    pub fn changes(&mut self) -> Changes {
        for turn in std::mem::take(&mut self.touched) {
            if let (Some((at, _)), Some(partly)) = (self.entries.get(&turn), self.partly.get_mut(&turn)) {
                partly.is_stored = true;
                self.changes.partly.push((*at, partly.urls.clone()));
            }
        }
        std::mem::take(&mut self.changes)
    }

    /// Events that waited for endpoints that are no longer configured, since the last call.
    pub fn dropped(&mut self) -> Vec<(Address, usize)> {
        std::mem::take(&mut self.dropped)
    }

    /// The last entry that was taken: the stream is read on behind it.
    #[must_use]
    pub fn after(&self) -> EntryId {
        self.after
    }

    /// Entries that are left in the stream and known here.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// See [`WebhookBook::believed`].
    pub fn believed(&self) -> impl Iterator<Item = (&Place, bool)> {
        self.book.believed()
    }

    /// When [`WebhookPart::pass`] is wanted, by the store's clock.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.book.next_deadline().map(|at| at.0)
    }

    fn now(&mut self, unix_ms: u64) -> Now {
        self.book.advance_to(self.known.0 << COUNTER_BITS);
        Now { moment: self.known, unix_ms }
    }

    fn absorb(&mut self, records: Vec<Record>) {
        for record in records {
            match record {
                Record::Sealed { to, mut batch, turns } => {
                    for turn in turns {
                        self.partly.entry(turn).or_default().urls.push(to.url.clone());
                        self.touched.insert(turn);
                    }
                    batch.id = self.lane.request(batch.id);
                    self.changes.sealed.push((to, Arc::new(batch)));
                }
                Record::Settled { turn } => {
                    let partly = self.partly.remove(&turn);
                    let Some((at, id)) = self.entries.remove(&turn) else { continue };
                    self.changes.settled.push((at, id));
                    if partly.is_some_and(|partly| partly.is_stored) {
                        self.changes.whole.push(at);
                    }
                }
                Record::Came { place, generation } => self.changes.announced.push((place, Some(generation))),
                Record::Went { place } => self.changes.announced.push((place, None)),
                Record::Dropped { to, events } => self.dropped.push((to, events)),
                // Nothing with a mark is queued: it is in the stream.
                Record::Queued { .. } => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
