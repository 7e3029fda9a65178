//! What the embedded backbone knows of one channel.
//!
//! Plain data under its stripe's lock: it tells nobody and looks at no clock. A record exists as long as somebody
//! follows the channel or an event of it is cached, and is kept as small as one cache line, because there are as many
//! of these as channels.

use std::time::Duration;

use foldhash::quality::RandomState;
use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Leave, Position};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::ChannelName;

use super::members::Members;
use crate::{ChannelState, WorkerId};

/// A channel with a subscription or a cached event. One cache line; what most channels lack is boxed.
pub(super) struct Channel {
    pub(super) app: AppId,
    pub(super) name: ChannelName,
    pub(super) followers: Followers,
    pub(super) members: Option<Box<Members>>,
    pub(super) cached: Option<Box<Cached>>,
}

/// A worker with subscriptions on a channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Follower {
    pub(super) worker: WorkerId,
    subscriptions: u32,
}

/// All workers with subscriptions on a channel; most channels have one.
pub(super) enum Followers {
    One(Follower),
    /// None, or more than one.
    Several(Box<[Follower]>),
}

pub(super) struct Cached {
    pub(super) frame: Frame,
    pub(super) position: Position,
    pub(super) counter: u64,
    pub(super) lapses: Duration,
}

impl Channel {
    pub(super) fn new(app: AppId, name: ChannelName) -> Self {
        Self { app, name, followers: Followers::default(), members: None, cached: None }
    }

    pub(super) fn is(&self, app: &AppId, name: &ChannelName) -> bool {
        self.name == *name && self.app == *app
    }

    pub(super) fn is_occupied(&self) -> bool {
        !self.followers.all().is_empty()
    }

    /// Nobody follows and nothing is remembered: the record must go.
    pub(super) fn is_over(&self) -> bool {
        !self.is_occupied() && self.cached.is_none()
    }

    /// Whether a subscription such as is being left can exist here.
    pub(super) fn can_leave(&self, hasher: &RandomState, from: WorkerId, leave: &Leave) -> bool {
        let follows = self.followers.all().iter().any(|f| f.worker == from);
        let is_member = match (&leave.user_id, &self.members) {
            (Some(user), Some(members)) => members.is_present(hasher, user),
            (user, members) => user.is_none() && members.is_none(),
        };
        follows && is_member
    }

    pub(super) fn state(&self, channel: ChannelName) -> ChannelState {
        let members = self.members.as_ref().map_or(0, |m| m.len() as u64);
        ChannelState { channel, subscriptions: self.followers.total(), members }
    }
}

impl Default for Followers {
    fn default() -> Self {
        Self::Several(Box::default())
    }
}

impl Followers {
    pub(super) fn all(&self) -> &[Follower] {
        match self {
            Self::One(follower) => std::slice::from_ref(follower),
            Self::Several(followers) => followers,
        }
    }

    fn all_mut(&mut self) -> &mut [Follower] {
        match self {
            Self::One(follower) => std::slice::from_mut(follower),
            Self::Several(followers) => followers,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.all().iter().map(|f| u64::from(f.subscriptions)).sum()
    }

    pub(super) fn add(&mut self, worker: WorkerId) {
        if let Some(follower) = self.all_mut().iter_mut().find(|f| f.worker == worker) {
            follower.subscriptions += 1;
            return;
        }
        let new = Follower { worker, subscriptions: 1 };
        *self = match self.all() {
            [] => Self::One(new),
            others => Self::Several(others.iter().copied().chain([new]).collect()),
        };
    }

    pub(super) fn remove(&mut self, worker: WorkerId) {
        let Some(follower) = self.all_mut().iter_mut().find(|f| f.worker == worker) else { return };
        follower.subscriptions -= 1;
        if follower.subscriptions > 0 {
            return;
        }
        let mut others = self.all().iter().copied().filter(|f| f.worker != worker);
        *self = match (others.next(), others.next()) {
            (Some(only), None) => Self::One(only),
            _ => Self::Several(self.all().iter().copied().filter(|f| f.worker != worker).collect()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DEL-15
    #[test]
    fn the_record_of_a_channel_is_one_cache_line() {
        assert!(size_of::<Channel>() <= 64, "{}", size_of::<Channel>());
    }

    /// DEL-1
    #[test]
    fn followers_are_the_workers_with_subscriptions_left() {
        let mut followers = Followers::default();
        let workers = |f: &Followers| f.all().iter().map(|f| (f.worker.0, f.subscriptions)).collect::<Vec<_>>();
        for worker in [5, 3, 5, 9] {
            followers.add(WorkerId(worker));
        }
        assert_eq!((workers(&followers), followers.total()), (vec![(5, 2), (3, 1), (9, 1)], 4));
        for worker in [3, 5, 9, 9, 1] {
            followers.remove(WorkerId(worker));
        }
        assert_eq!(workers(&followers), [(5, 1)]);
        followers.remove(WorkerId(5));
        assert_eq!((workers(&followers), followers.total()), (vec![], 0));
    }
}
