//! Between what Redis keeps and what the engine decides about: the same things in two crates' words.

use std::sync::Arc;

use fulmar_backbone::redis::outbox::{self, Believed, Operation};
use fulmar_engine::webhook_batch::{Address, Batch, Place};
use fulmar_engine::webhook_part::{Changes, Entry, EntryId, Stored, WebhookPart, What};
use serde::{Deserialize, Serialize};

use super::super::sender::Handed;
use super::super::store::{GivenUp, StoredGivenUp, address, batch_from, stored, to_bytes};

/// A request as Redis keeps it, sealed or given up.
#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    id: u64,
    #[serde(borrow)]
    of: StoredGivenUp<'a>,
}

/// A request as it is kept; `at_unix_ms` is when it was given up, 0 before.
pub(super) fn request(to: &Address, batch: &Batch, at_unix_ms: u64) -> Vec<u8> {
    let of = StoredGivenUp { app: to.app.as_str(), url: (&*to.url).into(), at: at_unix_ms, batch: stored(batch) };
    to_bytes(&Kept { id: batch.id, of })
}

/// Reads a request; `None` for what no release of ours wrote.
pub(super) fn kept(bytes: &[u8]) -> Option<GivenUp> {
    let Kept { id, of } = serde_json::from_slice(bytes).ok()?;
    let to = address(of.app, &of.url);
    Some(GivenUp { to, batch: batch_from(id, &of.batch), at_unix_ms: of.at })
}

/// An entry for the book.
pub(super) fn entry(read: outbox::Entry) -> Entry {
    let what = match read.what {
        outbox::What::Edge(edge) => What::Edge(edge),
        outbox::What::Again(bytes) => kept(&bytes).map_or(What::Unknown, |old| What::Again(old.to, old.batch)),
        outbox::What::Known(app, subject, is_there) => What::Known(Place { app, subject }, is_there),
        outbox::What::Unknown => What::Unknown,
    };
    let happened_ms = read.generation.map(|generation| outbox::EntryId::of_generation(generation).0);
    let outbox::Entry { at, id, generation, is_again, .. } = read;
    Entry { at: inside(at), id, generation, is_again, happened_ms, what }
}

pub(super) fn inside(outbox::EntryId(ms, counter): outbox::EntryId) -> EntryId {
    EntryId { ms, counter }
}

pub(super) fn outside(EntryId { ms, counter }: EntryId) -> outbox::EntryId {
    outbox::EntryId(ms, counter)
}

/// What is stored of a part, for the book, and its sealed requests as they are kept.
pub(super) fn taken_over(stored: outbox::Stored) -> (Stored, Vec<(u64, Vec<u8>)>) {
    let announced = stored.announced.into_iter();
    let announced = announced.map(|(app, subject, generation)| (Place { app, subject }, generation)).collect();
    let partly = stored.partly.into_iter().map(|(at, urls)| (inside(at), urls)).collect();
    let last_request = stored.sealed.last().map_or(0, |(id, _)| *id);
    (Stored { announced, partly, last_request }, stored.sealed)
}

/// What a book believes to be here; members before their channel, as those who leave are told.
pub(super) fn believed(book: &WebhookPart) -> Vec<Believed> {
    let mut all: Vec<_> = book.believed().collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    let all = all.into_iter().map(|(place, is_going)| (place.clone(), is_going));
    all.map(|(Place { app, subject }, is_going)| Believed { app, subject, is_going }).collect()
}

/// Appends what must be written, in an order in which the last word on anything stands last; and what may be sent then.
pub(super) fn operations(changes: Changes, operations: &mut Vec<Operation>, handed: &mut Vec<Handed>) {
    let Changes { sealed, settled, announced, partly, whole } = changes;
    operations.extend(settled.into_iter().map(|(at, id)| Operation::Settle(outside(at), id)));
    operations.extend(partly.into_iter().map(|(at, urls)| Operation::Partly(outside(at), urls)));
    operations.extend(whole.into_iter().map(|at| Operation::Whole(outside(at))));
    operations.extend(announced.into_iter().map(|(Place { app, subject }, generation)| match generation {
        Some(generation) => Operation::Announce(app, subject, generation),
        None => Operation::Forget(app, subject),
    }));
    for (to, batch) in sealed {
        operations.push(Operation::Seal(batch.id, request(&to, &batch, 0)));
        handed.push(Handed { to, batch: Arc::clone(&batch) });
    }
}
