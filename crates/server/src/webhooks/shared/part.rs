//! What is known of one part of a group's outbox while this node works it.

use std::collections::{BTreeMap, HashSet, VecDeque};

use fulmar_backbone::redis::outbox::{Entry, EntryId, Operation};
use fulmar_engine::webhook_part::WebhookPart;
use tokio::sync::oneshot;

use super::super::sender::Handed;
use super::wire;

/// Entries of a part that are known here and left in its stream. Beyond it no more are read until some are settled.
const ENTRIES_MAX: usize = 65_536;
/// For how long what was written is kept, to be written again after a change of primary.
pub(super) const REWRITE_MS: u64 = 10_000;
/// Operations that are kept for that. When there are more, the oldest are not written again.
const REWRITE_OPERATIONS_MAX: usize = 16_384;

/// A part that this node has.
pub(super) struct Part {
    pub(super) fence: String,
    /// `None` until it is read, and after everything that may have made it wrong.
    pub(super) book: Option<WebhookPart>,
    /// Not known to be written.
    pub(super) unwritten: Vec<Operation>,
    /// Sealed, and to be sent when it is written.
    pub(super) unhanded: Vec<Handed>,
    /// What the sender is through with, not known to be written.
    pub(super) ends: BTreeMap<u64, Vec<Operation>>,
    /// What was written last, and when.
    pub(super) written: VecDeque<(u64, Vec<Operation>)>,
    /// What the sender has. It is not handed over twice.
    pub(super) handed: HashSet<u64>,
    /// Generations of edges that were told before the store lost everything, and may be left there again.
    pub(super) done: HashSet<u64>,
    pub(super) leaving: Leaving,
}

/// Whether a part is to be let go.
pub(super) enum Leaving {
    No,
    /// Answered when nothing of it is under way.
    Asked(oneshot::Receiver<()>),
    /// Nothing is.
    Now,
}

impl Part {
    pub(super) fn new(fence: &str) -> Self {
        Self {
            fence: fence.to_owned(),
            book: None,
            unwritten: Vec::new(),
            unhanded: Vec::new(),
            ends: BTreeMap::new(),
            written: VecDeque::new(),
            handed: HashSet::new(),
            done: HashSet::new(),
            leaving: Leaving::No,
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        !matches!(self.leaving, Leaving::No)
    }

    pub(super) fn look_at_leaving(&mut self) {
        if let Leaving::Asked(done) = &mut self.leaving
            && done.try_recv() != Err(oneshot::error::TryRecvError::Empty)
        {
            self.leaving = Leaving::Now;
        }
    }

    /// Whether this entry is of an edge that was done with, left again.
    pub(super) fn is_done(&self, entry: &Entry) -> bool {
        let is_again = |generation: &u64| entry.at.generation() != Some(*generation);
        entry.generation.filter(is_again).is_some_and(|generation| self.done.contains(&generation))
    }

    pub(super) fn written_since(&self, since: u64) -> Vec<Operation> {
        let late = self.written.iter().filter(|(at, _)| *at >= since);
        late.flat_map(|(_, operations)| operations.clone()).collect()
    }

    /// It must be read again. What is not known to be written may be: it is decided again, or lies there sealed.
    pub(super) fn doubt(&mut self) {
        self.book = None;
        self.unwritten.clear();
        self.unhanded.clear();
    }

    pub(super) fn remember(&mut self, now: u64, operations: Vec<Operation>) {
        self.written.push_back((now, operations));
        let mut kept: usize = self.written.iter().map(|(_, operations)| operations.len()).sum();
        while let Some((at, operations)) = self.written.front() {
            if kept <= REWRITE_OPERATIONS_MAX && now < at + REWRITE_MS {
                break;
            }
            kept -= operations.len();
            self.written.pop_front();
        }
    }

    pub(super) fn after(&self) -> EntryId {
        wire::outside(self.book.as_ref().map(WebhookPart::after).unwrap_or_default())
    }

    pub(super) fn has_room(&self) -> bool {
        self.book.as_ref().is_some_and(|book| book.entries() < ENTRIES_MAX)
    }
}
