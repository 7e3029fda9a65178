//! What only informs: counts, which are told as subscribers are told them, and misses, which come in crowds.

use std::sync::Arc;

use fulmar_protocol::app::{App, AppId};
use fulmar_protocol::name::ChannelName;
use fulmar_protocol::webhook::Event;

use super::{Mark, Now, Record, Wake, WebhookBook, leave};
use crate::counts::{self, TOLD_AT_ONCE_MAX};

/// After a cache miss was told, further ones of that channel are not, for so many milliseconds.
pub(super) const MISS_QUIET_MS: u64 = 3_000;
/// Channels whose last miss is remembered. When there are more, a miss may be told twice.
pub(super) const MISSES_MAX: usize = 65_536;

impl WebhookBook {
    pub(super) fn counted(
        &mut self,
        now: Now,
        app: &Arc<App>,
        channel: ChannelName,
        count: u64,
        mark: Option<Mark>,
        records: &mut Vec<Record>,
    ) {
        let key = (app.id.clone(), channel);
        if count <= TOLD_AT_ONCE_MAX {
            // Only large channels have anything to remember, and every large one was small before it is empty.
            leave(self.counts.remove(&key).and_then(|counting| counting.mark), records);
            return self.tell(now, app, Event::of_count(&key.1, count), mark, records);
        }
        let counting = self.counts.entry(key.clone()).or_default();
        match counting.throttle.changed(count, now.moment) {
            counts::Told::Now => {
                leave(counting.mark.take(), records);
                self.tell(now, app, Event::of_count(&key.1, count), mark, records);
            }
            counts::Told::At(at) => {
                leave(std::mem::replace(&mut counting.mark, mark), records);
                self.wake_at(at, Wake::Count(key.0, key.1));
            }
            counts::Told::AlreadyHeld => leave(std::mem::replace(&mut counting.mark, mark), records),
        }
    }

    pub(super) fn count_due(&mut self, now: Now, app: &AppId, channel: ChannelName, records: &mut Vec<Record>) {
        let key = (app.clone(), channel);
        let Some(counting) = self.counts.get_mut(&key) else { return };
        let Some(count) = counting.throttle.due(now.moment) else { return };
        let mark = counting.mark.take();
        match self.apps.get(app).cloned() {
            Some(app) => self.tell(now, &app, Event::of_count(&key.1, count), mark, records),
            None => leave(mark, records),
        }
    }

    pub(super) fn cache_missed(
        &mut self,
        now: Now,
        app: &Arc<App>,
        channel: ChannelName,
        mark: Option<Mark>,
        records: &mut Vec<Record>,
    ) {
        let key = (app.id.clone(), channel);
        if self.misses.get(&key).is_some_and(|until| now.moment < *until) {
            return leave(mark, records);
        }
        if self.misses.len() >= self.misses_looked_at.max(MISSES_MAX / 64) {
            self.misses.retain(|_, until| now.moment < *until);
            self.misses_looked_at = (self.misses.len() * 2).min(MISSES_MAX);
        }
        self.tell(now, app, Event::of_cache_miss(&key.1), mark, records);
        if self.misses.len() < MISSES_MAX {
            self.misses.insert(key, now.moment.plus_ms(MISS_QUIET_MS));
        }
    }
}
