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
use crate::followers::Followers;
use crate::{ChannelState, WorkerId};

/// A channel with a subscription or a cached event. One cache line; what most channels lack is boxed.
pub(super) struct Channel {
    pub(super) app: AppId,
    pub(super) name: ChannelName,
    pub(super) followers: Followers,
    pub(super) members: Option<Box<Members>>,
    pub(super) cached: Option<Box<Cached>>,
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
        let follows = self.followers.has(from);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// DEL-15
    #[test]
    fn the_record_of_a_channel_is_one_cache_line() {
        assert!(size_of::<Channel>() <= 64, "{}", size_of::<Channel>());
    }
}
