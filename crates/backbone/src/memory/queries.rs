//! What is asked about the channels of the embedded backbone. Changes nothing.

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::Member;
use fulmar_protocol::name::ChannelName;

use super::{Memory, locked};
use crate::{CachedEvent, ChannelState, Query, Reply};

impl Memory {
    pub(super) fn answer(&self, query: Query) -> Reply {
        match query {
            Query::Channels { app, prefix } => Reply::Channels(self.channels(&app, &prefix)),
            Query::Reachable { app, prefix } => {
                Reply::Reachable { channels: self.channels(&app, &prefix), is_partial: false }
            }
            Query::Named { app, channels } => {
                Reply::Channels(channels.into_iter().map(|name| self.state_of(&app, name)).collect())
            }
            Query::Members { app, channel } => Reply::Members(self.members(&app, &channel)),
            Query::Cached { app, channel } => Reply::Cached(self.cached(&app, &channel)),
        }
    }

    fn channels(&self, app: &AppId, prefix: &str) -> Vec<ChannelState> {
        let mut states = Vec::new();
        for stripe in &self.stripes {
            let table = locked(&stripe.0);
            let asked = table.channels.iter().filter(|c| c.app == *app && c.name.as_str().starts_with(prefix));
            let shown = asked.filter(|c| c.is_occupied() && c.name.kind().is_listed());
            states.extend(shown.map(|c| c.state(c.name.clone())));
        }
        states
    }

    fn state_of(&self, app: &AppId, name: ChannelName) -> ChannelState {
        let hash = self.hash(app, &name);
        match self.table(hash).channels.find(hash, |c| c.is(app, &name)) {
            Some(channel) => channel.state(name),
            None => ChannelState { channel: name, subscriptions: 0, members: 0 },
        }
    }

    fn members(&self, app: &AppId, name: &ChannelName) -> Vec<Member> {
        let hash = self.hash(app, name);
        let table = self.table(hash);
        let members = table.channels.find(hash, |c| c.is(app, name)).and_then(|c| c.members.as_ref());
        members.map(|m| m.roster()).unwrap_or_default()
    }

    pub(super) fn cached(&self, app: &AppId, name: &ChannelName) -> Option<CachedEvent> {
        let hash = self.hash(app, name);
        let table = self.table(hash);
        let cached = self.live(table.channels.find(hash, |c| c.is(app, name))?)?;
        let left = cached.lapses.saturating_sub(self.clock.now());
        let ttl_s = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Some(CachedEvent { frame: cached.frame.clone(), position: cached.position, ttl_s: ttl_s.max(1) })
    }
}
