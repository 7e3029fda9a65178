//! What one change on a channel means to an app's own server: gathered while the stripe is held, left in the outbox once.
//!
//! Without an outbox, and for channels that nobody wants to hear of, nothing here allocates or makes a name.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Answer, Publication};
use fulmar_protocol::name::ChannelName;
use fulmar_protocol::webhook::{Change, Edge, EventKind, Kinds, Subject};

use super::Memory;
use crate::{Inbox, Outbox};

/// The edges of one call.
pub(super) struct Edges<'o> {
    /// Whom they are for; `None` when nobody wants any.
    to: Option<(&'o dyn Outbox, AppId)>,
    wanted: Kinds,
    edges: Vec<Edge>,
}

impl<'o> Edges<'o> {
    pub(super) fn wanted(outbox: Option<&'o dyn Outbox>, app: &AppId, channel: &ChannelName) -> Self {
        Self::of(outbox, app, outbox.map_or(Kinds::NONE, |outbox| outbox.wanted(app, channel)))
    }

    pub(super) fn wanted_of_users(outbox: Option<&'o dyn Outbox>, app: &AppId) -> Self {
        Self::of(outbox, app, outbox.map_or(Kinds::NONE, |outbox| outbox.wanted_of_users(app)))
    }

    fn of(outbox: Option<&'o dyn Outbox>, app: &AppId, wanted: Kinds) -> Self {
        let to = outbox.filter(|_| !wanted.is_empty()).map(|outbox| (outbox, app.clone()));
        Self { to, wanted, edges: Vec::new() }
    }

    /// Whether the outbox can take what comes of it.
    pub(super) fn has_room(&self) -> bool {
        self.to.as_ref().is_none_or(|(outbox, _)| outbox.has_room())
    }

    pub(super) fn came(&mut self, subject: impl FnOnce() -> Subject) {
        self.moved(subject, Change::Came);
    }

    pub(super) fn went(&mut self, subject: impl FnOnce() -> Subject) {
        self.moved(subject, Change::Went);
    }

    pub(super) fn counted(&mut self, channel: &ChannelName, count: u64) {
        if self.wanted.has(EventKind::SubscriptionCount) {
            self.push(Change::Counted(channel.clone(), count));
        }
    }

    pub(super) fn cache_missed(&mut self, channel: &ChannelName) {
        if self.wanted.has(EventKind::CacheMiss) {
            self.push(Change::CacheMissed(channel.clone()));
        }
    }

    pub(super) fn client_said(&mut self, said: &Publication) {
        if let Some(socket_id) = said.except.filter(|_| self.wanted.has(EventKind::ClientEvent)) {
            self.push(Change::ClientSaid { channel: said.channel.clone(), frame: said.frame.clone(), socket_id });
        }
    }

    /// Leaves them; nobody waits for it.
    pub(super) fn leave(self) {
        if let (Some((outbox, _)), false) = (self.to, self.edges.is_empty()) {
            outbox.take(self.edges);
        }
    }

    /// Leaves them, with the answer that they must be safe before. Also without any: others of the channel may still be
    /// on their way, and whoever is told that a channel is there must not outlive what tells of it.
    pub(super) fn leave_before(self, inbox: &Arc<dyn Inbox>, answer: Answer) -> Option<Answer> {
        match self.to {
            Some((outbox, _)) => outbox.take_before(self.edges, inbox, answer),
            None => Some(answer),
        }
    }

    fn moved(&mut self, subject: impl FnOnce() -> Subject, change: fn(Subject) -> Change) {
        if self.wanted.is_empty() {
            return;
        }
        let subject = subject();
        if self.wanted.has_either(subject.kinds()) {
            self.push(change(subject));
        }
    }

    fn push(&mut self, change: Change) {
        if let Some((_, app)) = &self.to {
            self.edges.push(Edge { app: app.clone(), change });
        }
    }
}

impl Memory {
    /// Accepts what a client says to the others, or not.
    pub(super) fn client_event(&self, publication: Publication) {
        let mut edges = Edges::wanted(self.outbox.as_deref(), &publication.app, &publication.channel);
        edges.client_said(&publication);
        if self.accept_one(publication) {
            edges.leave();
        } else {
            self.counts.client_events_refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}
