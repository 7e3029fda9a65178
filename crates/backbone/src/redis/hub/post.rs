//! What leaves for the workers of this node, and the one counter of positions.
//!
//! Decides nothing. Whatever goes out takes the next position first, so that all workers hear one rising order; one
//! delivery is shared by everybody who hears it.

use std::sync::Arc;

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Answer, Delivery, Happening, Identity, Position, UserChange, UserNotice};
use fulmar_protocol::name::{ChannelName, UserId};

use crate::followers::Followers;
use crate::{Inbox, WORKERS_MAX, WorkerId};

/// The inboxes, and the position given last.
pub(super) struct Post {
    inboxes: Vec<Option<Arc<dyn Inbox>>>,
    position: Position,
    /// Of what is told here and is no publication. Never the node's own number: that one's counters are publications'.
    origin: u64,
}

impl Post {
    pub(super) fn new(node: u64) -> Self {
        Self { inboxes: Vec::new(), position: Position(0), origin: !node }
    }

    pub(super) fn attach(&mut self, worker: WorkerId, inbox: Arc<dyn Inbox>) {
        let index = usize::from(worker.0);
        debug_assert!(index < WORKERS_MAX);
        if self.inboxes.len() <= index {
            self.inboxes.resize_with(index + 1, || None);
        }
        self.inboxes[index] = Some(inbox);
    }

    pub(super) fn is_attached(&self, worker: WorkerId) -> bool {
        self.inbox(worker).is_some()
    }

    /// Everything told so far is at or before this.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    pub(super) fn has_room(&self, followers: &Followers) -> bool {
        followers.all().iter().all(|f| self.inbox(f.worker).is_none_or(|inbox| inbox.has_room()))
    }

    /// Tells followers of a publication. Takes a position also when there are none: a kept event has its place.
    pub(super) fn deliver(
        &mut self,
        to: &Followers,
        (app, channel): (&AppId, &ChannelName),
        identity: Identity,
        happening: Happening,
    ) -> Position {
        self.position.0 += 1;
        let position = self.position;
        let Some((last, others)) = to.all().split_last() else { return position };
        let (app, channel) = (app.clone(), channel.clone());
        let delivery = Arc::new(Delivery { app, channel, identity, position, happening });
        for follower in others {
            if let Some(inbox) = self.inbox(follower.worker) {
                inbox.deliver(Arc::clone(&delivery));
            }
        }
        if let Some(inbox) = self.inbox(last.worker) {
            inbox.deliver(delivery);
        }
        position
    }

    /// Tells followers of a change that is no publication.
    pub(super) fn tell(&mut self, to: &Followers, on: (&AppId, &ChannelName), happening: Happening) {
        let identity = Identity { origin: self.origin, counter: self.position.0 + 1 };
        self.deliver(to, on, identity, happening);
    }

    /// Tells workers of a change of a user.
    pub(super) fn notice(&mut self, to: &Followers, (app, user): (&AppId, &UserId), change: UserChange) {
        if to.all().is_empty() {
            return;
        }
        self.position.0 += 1;
        let position = self.position;
        let notice = Arc::new(UserNotice { app: app.clone(), user_id: user.clone(), position, change });
        for follower in to.all() {
            if let Some(inbox) = self.inbox(follower.worker) {
                inbox.notice(Arc::clone(&notice));
            }
        }
    }

    pub(super) fn answer(&self, worker: WorkerId, answer: Answer) {
        if let Some(inbox) = self.inbox(worker) {
            inbox.answer(answer);
        }
    }

    fn inbox(&self, of: WorkerId) -> Option<&Arc<dyn Inbox>> {
        self.inboxes.get(usize::from(of.0))?.as_ref()
    }
}
