//! What is heard about topics: events and counts to subscribers, edges to where they are judged.
//!
//! The hot path of the node: an event costs one lookup, one shared delivery and one push per interested worker. Until a
//! topic is open everything is held, in order, and told when it is known what came before.

use fulmar_protocol::exchange::{Happening, Identity, UserChange};

use super::desk::{Desk, Turn};
use super::topics::{Cached, Entry, Subject};
use crate::redis::envelope::{Event, LogId, Message};
use crate::redis::millis;

/// Messages held for one topic that is not open yet; beyond it whoever waits is answered from what is known here.
pub(super) const HELD_MAX: usize = 1_024;

/// Counts held back for newcomers; beyond it they are told before them.
pub(super) const COUNTS_HELD_MAX: usize = 1_024;

impl Desk {
    pub(super) fn hold(&mut self, turn: &mut Turn<'_>, entry: &mut Entry, at: Option<LogId>, message: Message) {
        if entry.channel().is_none() {
            self.hold_of_user(turn, entry, at, message);
            return;
        }
        // With nobody waiting nothing is missed: whoever comes reads how things stand then.
        let Some(waiting) = entry.waiting.as_mut().filter(|waiting| !waiting.joins.is_empty()) else { return };
        waiting.held.push((at, message));
        if waiting.held.len() > HELD_MAX {
            self.answer_alone(turn, entry, u64::MAX);
            self.settle(turn, entry);
        }
    }

    /// What was held is told, if it is later than `read`: up to there the answers hold it.
    pub(super) fn replay(&mut self, turn: &mut Turn<'_>, entry: &mut Entry, read: LogId) {
        let Some(waiting) = &mut entry.waiting else { return };
        entry.since_ms = waiting.since_ms;
        for (at, message) in std::mem::take(&mut waiting.held) {
            let is_news = match (at, &message) {
                // The newcomer hears its own count.
                (Some(at), Message::Count(_)) => at >= read,
                (Some(at), _) => at > read,
                (None, _) => true,
            };
            if is_news {
                self.apply(turn, entry, at, message);
            }
        }
    }

    /// Takes in what was heard of an open topic.
    pub(super) fn apply(&mut self, turn: &mut Turn<'_>, entry: &mut Entry, at: Option<LogId>, message: Message) {
        match (message, at) {
            (Message::Event(event), at) => self.event(turn, entry, at, event),
            (Message::Terminated, at) => self.heard_terminated(turn, entry, at),
            (Message::Count(count), Some(at)) => self.heard_count(entry, at, count),
            (Message::Added { member, .. }, Some(at)) => self.heard_added(turn, entry, member, at),
            (Message::Removed(user), Some(at)) => self.heard_removed(turn, entry, user, at),
            (Message::Online, Some(at)) => self.user_edge(entry, true, at),
            (Message::Offline, Some(at)) => self.user_edge(entry, false, at),
            // What has no place in the log cannot be compared with what was told; the script that decided it gave it one.
            (_, None) => {}
        }
    }

    fn event(&mut self, turn: &Turn<'_>, entry: &mut Entry, at: Option<LogId>, event: Event) {
        if entry.is_older_than_interest(at, &event) {
            if event.cache_for.is_some() {
                self.pass_over(entry, at, &event);
            }
            return;
        }
        let Some(name) = entry.channel() else { return };
        let Event { identity, except, cache_for, frame, .. } = event;
        let kept = cache_for.filter(|_| name.kind().is_cache()).map(|kept_for| (kept_for, frame.clone()));
        let happening = Happening::Event { frame, except };
        let position = self.post.deliver(&entry.followers, (&entry.app, name), identity, happening);
        if let Some((kept_for, frame)) = kept {
            let lapses = turn.now.ms.saturating_add(millis(kept_for));
            entry.passed_over = None;
            entry.keep(Cached { frame, identity, position, at, lapses });
        }
    }

    /// An event of a cache channel is not for those who are here. By its age alone that is no reason for them to have neither it nor what
    /// replaced it: who was read for may have lacked it.
    fn pass_over(&self, entry: &mut Entry, at: Option<LogId>, event: &Event) {
        if !entry.was_given(at, event) {
            entry.passed_over = Some(Box::new(event.identity));
        }
        if at.is_some_and(|at| at > entry.opened_at) {
            // It was appended since the kept one was read, which may lie behind it: the script compared them.
            entry.doubt_cached();
        }
    }

    /// An event of a cache channel that had come by another way is in the log now, there.
    pub(super) fn logged(&mut self, turn: &mut Turn<'_>, entry: &mut Entry, identity: Identity, at: Option<LogId>) {
        let held = entry.waiting.iter_mut().flat_map(|waiting| &mut waiting.held);
        let is_it = |message: &Message| matches!(message, Message::Event(event) if event.identity == identity);
        held.filter(|(place, message)| place.is_none() && is_it(message)).for_each(|(place, _)| *place = at);
        if entry.passed_over.as_deref() == Some(&identity) {
            entry.doubt_cached();
            self.settle(turn, entry);
        }
    }

    /// Tells subscribers, or who is signed in, that they may have missed something; false where it is no channel with any.
    pub(super) fn missed(&mut self, turn: &mut Turn<'_>, entry: &mut Entry) -> bool {
        // Who comes back is not to be given what was kept here before; nor is the first to come, where nobody is subscribed now.
        entry.doubt_cached();
        if entry.followers.total() == 0 {
            return false;
        }
        if let Subject::User(user, _) = &entry.subject {
            self.post.notice(&entry.followers, (&entry.app, user), UserChange::Missed);
            return false;
        }
        let Some(name) = entry.channel() else { return false };
        self.post.tell(&entry.followers, (&entry.app, name), Happening::Missed);
        *self.figures.missed.entry(entry.app.as_str().to_owned()).or_default() += 1;
        self.settle(turn, entry);
        true
    }

    fn heard_count(&mut self, entry: &mut Entry, at: LogId, count: u64) {
        if let Some(waiting) = entry.waiting.as_mut().filter(|waiting| waiting.is_counting()) {
            waiting.counts.push((at, count));
            if waiting.counts.len() > COUNTS_HELD_MAX {
                self.tell_counts(entry, |_| true);
            }
            return;
        }
        self.tell_count(entry, at, count);
    }

    /// Tells the counts held back that nobody waits for any more.
    pub(super) fn release_counts(&mut self, entry: &mut Entry) {
        if entry.waiting.as_ref().is_some_and(|waiting| !waiting.is_counting()) {
            self.tell_counts(entry, |_| true);
        }
    }

    /// Tells counts held back whose place says so.
    pub(super) fn tell_counts(&mut self, entry: &mut Entry, is_due: impl Fn(LogId) -> bool) {
        let Some(waiting) = entry.waiting.as_mut().filter(|waiting| !waiting.counts.is_empty()) else { return };
        let due = waiting.counts.iter().take_while(|(at, _)| is_due(*at)).count();
        for (at, count) in waiting.counts.drain(..due).collect::<Vec<_>>() {
            self.tell_count(entry, at, count);
        }
    }

    fn tell_count(&mut self, entry: &mut Entry, at: LogId, count: u64) {
        if at > entry.newest || (at == entry.newest && !entry.is_newest_told) {
            (entry.newest, entry.is_newest_told) = (at, true);
            self.tell(entry, Happening::Count(count));
        }
    }
}
