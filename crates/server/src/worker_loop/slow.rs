//! Connections with something unfinished: readers that do not read, frames that never end, closes that nobody answers.
//!
//! They are on a list and looked at from time to time; a connection with nothing unfinished is never visited.

use fulmar_engine::{Input, Moment, SessionKey};
use fulmar_protocol::close::CloseCode;

use super::WorkerLoop;
use crate::ws::connection::{Connection, Stage};

impl WorkerLoop {
    /// Closes a connection whose reader is too slow. Nothing is skipped on it: it ends, and the client comes back.
    pub(super) fn cut(&mut self, now: Moment, key: SessionKey) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        connection.outbox.cut();
        if connection.stage == Stage::Open {
            let reason = "Too slow: more data waits for this connection than it may";
            self.handle(now, Input::Evict { session: key, code: CloseCode::OVER_CAPACITY, reason });
        }
        self.watch_if_needed(key);
    }

    pub(super) fn watch_if_needed(&mut self, key: SessionKey) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        if !connection.is_watched && connection.needs_watching() {
            connection.is_watched = true;
            self.watched.push(key);
        }
    }

    /// Looks at connections with something unfinished: frames that never end, readers that do not read, closes that
    /// are not answered.
    pub(super) fn watch(&mut self, now: Moment) {
        let mut keys = std::mem::take(&mut self.watched);
        // A key stands here twice when its connection ended and the next one is to be watched as well.
        let is_first = |c: &mut Connection| std::mem::take(&mut c.is_watched);
        keys.retain(|key| self.connections.get_mut(*key as usize).is_some_and(is_first));
        let mut waiting = Vec::new();
        for key in keys {
            let Some(connection) = self.connections.get(key as usize) else { continue };
            match connection.stage {
                Stage::Closing { until, .. } if now >= until => self.end(now, key),
                Stage::Open if connection.is_stalled(now, self.settings.frame_timeout_ms) => {
                    let reason = "A frame was begun and not finished in time";
                    self.handle(now, Input::Evict { session: key, code: CloseCode::OVER_CAPACITY, reason });
                }
                Stage::Open if connection.outbox.is_too_old(now, &self.settings.budget) => self.cut(now, key),
                _ if connection.outbox.is_waiting() => waiting.push((connection.outbox.waiting_bytes(), key)),
                _ => {}
            }
            self.watch_if_needed(key);
        }
        self.shed(now, waiting);
    }

    /// Closes those that are furthest behind, until what waits for the others is within the limit.
    fn shed(&mut self, now: Moment, mut waiting: Vec<(usize, SessionKey)>) {
        let mut total: usize = waiting.iter().map(|(bytes, _)| bytes).sum();
        if total <= self.settings.backlog_bytes_max {
            return;
        }
        waiting.sort_unstable();
        while total > self.settings.backlog_bytes_max
            && let Some((bytes, key)) = waiting.pop()
        {
            total -= bytes;
            self.cut(now, key);
        }
    }
}
