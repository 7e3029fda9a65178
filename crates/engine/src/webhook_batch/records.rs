//! What the book says and is told: things, requests, and what must be stored of them.

use std::sync::Arc;

use fulmar_protocol::app::AppId;
use fulmar_protocol::webhook::{Event, Subject};

use crate::time::Moment;

/// Something of an app that comes and goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Whose.
    pub app: AppId,
    /// What.
    pub subject: Subject,
}

/// An endpoint: an app has no URL twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Whose.
    pub app: AppId,
    /// Where.
    pub url: Arc<str>,
}

/// A finished request: its bytes never change again, however often it is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Rises; no two batches of a store have one.
    pub id: u64,
    /// When it was sealed, in milliseconds since 1970: the `time_ms` of its body.
    pub sealed_unix_ms: u64,
    /// The app's key.
    pub key: Arc<str>,
    /// Signature of the body.
    pub signature: Arc<str>,
    /// What is sent.
    pub body: Arc<str>,
    /// The identities of its events, in their order. One event has the same at every endpoint.
    pub event_ids: Vec<u64>,
    /// What must stay in order: the channels of its events, each once; empty text for events without one.
    pub lanes: Vec<Arc<str>>,
}

/// An event under its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The same at every endpoint and in every attempt.
    pub id: u64,
    /// The event.
    pub event: Event,
}

/// An edge that lies in a stream, as the book needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Identity of the event that comes of it: the same whoever reads the edge, and however often.
    pub id: u64,
    /// Its name between the book and its driver; no two edges have one.
    pub turn: u64,
    /// Where it is known: rises from edge to edge of one subject that one store decided.
    pub generation: Option<u64>,
    /// Whether it lies in the stream later than it happened, because it was appended again: then it is a repeat if it is older than what
    /// was taken. Any other follows what lies before it, though the clock of another store may have said otherwise of that.
    pub is_again: bool,
    /// When it happened, where that is known, by a clock of the stores.
    pub happened: Option<Moment>,
    /// URLs for which the event was sealed already.
    pub told_at: Vec<Arc<str>>,
}

impl Mark {
    /// The generation of what was appended again.
    pub(super) fn appended_again(&self) -> Option<u64> {
        self.generation.filter(|_| self.is_again)
    }
}

/// What must be stored before it has happened. A set of records that came out of one call is stored as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Announced as come.
    Came {
        /// What.
        place: Place,
        /// Identity of the coming; that of the going is one more.
        generation: u64,
    },
    /// No longer announced.
    Went {
        /// What.
        place: Place,
    },
    /// Waits in the open batches of all endpoints that take it. One record, however many those are.
    Queued {
        /// Whose.
        app: AppId,
        /// Its turn. Rises, which the identities of events do not.
        turn: u64,
        /// The event.
        told: Told,
    },
    /// A batch is closed.
    Sealed {
        /// For whom.
        to: Address,
        /// The batch.
        batch: Batch,
        /// The turns of its events, where these have some: nothing up to the last of them waits for this endpoint any more,
        /// unless it came with a [`Mark`].
        turns: Vec<u64>,
    },
    /// An event waits in no open batch any more; of an edge with a [`Mark`], that nothing more comes of it.
    Settled {
        /// Its turn.
        turn: u64,
    },
    /// Events that waited for an endpoint that is no longer configured.
    Dropped {
        /// For whom.
        to: Address,
        /// How many.
        events: usize,
    },
}

impl Record {
    /// What it says to have come or gone.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Came { place, .. } | Self::Went { place } => Some(place),
            _ => None,
        }
    }
}

/// What was stored when a node ended, in whatever way.
#[derive(Debug, Default)]
pub struct Restored {
    /// Announced and not taken back, with the generation.
    pub present: Vec<(Place, u64)>,
    /// Events that waited, in the order of their turns.
    pub queued: Vec<(AppId, u64, Told)>,
    /// By endpoint, the turn of the last event that was sealed.
    pub sealed_up_to: Vec<(Address, u64)>,
    /// The first identity that is free.
    pub next_id: u64,
}

/// The time, as the book needs it.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For waiting. Never goes back.
    pub moment: Moment,
    /// For `time_ms`: milliseconds since 1970.
    pub unix_ms: u64,
}
