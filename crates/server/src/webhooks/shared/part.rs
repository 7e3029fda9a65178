//! What is known of one part of a group's outbox while this node works it.

use std::collections::{BTreeMap, HashSet};

use fulmar_backbone::redis::outbox::{Entry, EntryId, Operation};
use fulmar_engine::webhook_part::WebhookPart;
use tokio::sync::oneshot;

use super::super::sender::Handed;
use super::wire;

/// Entries of a part that are known here and left in its stream. Beyond it no more are read until some are settled.
const ENTRIES_MAX: usize = 65_536;

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
    /// What the sender has. It is not handed over twice.
    pub(super) handed: HashSet<u64>,
    /// Identities of the events of entries that were done with before it was read: they may be left again, or have come back.
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

    /// Whether this entry was done with, and is left again or has come back.
    pub(super) fn is_done(&self, entry: &Entry) -> bool {
        self.done.contains(&entry.id)
    }

    /// It must be read again. What is not known to be written may be: it is decided again, or lies there sealed.
    pub(super) fn doubt(&mut self) {
        self.book = None;
        self.unwritten.clear();
        self.unhanded.clear();
    }

    pub(super) fn after(&self) -> EntryId {
        wire::outside(self.book.as_ref().map(WebhookPart::after).unwrap_or_default())
    }

    pub(super) fn has_room(&self) -> bool {
        self.book.as_ref().is_some_and(|book| book.entries() < ENTRIES_MAX)
    }
}
