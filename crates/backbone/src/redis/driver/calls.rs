//! Calls that wait until their publications count as accepted, and what is remembered of publications made and heard.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use tokio::sync::oneshot;

use super::Driver;
use super::attach::Group;
use super::complaints::Complaints;
use crate::PublishError;
use crate::redis::envelope::{Event, Previous};
use crate::redis::order::NAMED_WITHIN;
use crate::redis::topic::Topic;
use crate::redis::withdrawn::Withdrawn;

/// What is said where there is no room.
const FULL: &str = "publications that no log has yet fill their room: publishing is answered 503 until a group's log takes them \
                    (backbone.buffer_bytes_max; `fulmar status` says which group is away)";
/// How long a publication's key is remembered: as long as the script does.
const ONCE: Duration = Duration::from_secs(120);

/// Calls that wait, and what is remembered so that nothing is published twice.
#[derive(Default)]
pub(super) struct Calls {
    pub(super) waiting: HashMap<u64, Call>,
    pub(super) deadlines: VecDeque<(Duration, u64)>,
    pub(super) made: u64,
    /// Counter of the next identity.
    pub(super) counter: u64,
    /// Counter of the last publication by topic, and when it was.
    previous: HashMap<Topic, (u64, Duration)>,
    /// Keys of publications that were heard here.
    heard_once: HashMap<u64, Duration>,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) timed_out: u64,
    pub(super) unwaited: u64,
    pub(super) again: u64,
    complaints: Complaints,
}

/// A call that waits.
pub(super) struct Call {
    /// Publications of it that do not count as accepted yet.
    pub(super) left: usize,
    pub(super) reply: Option<oneshot::Sender<Result<(), PublishError>>>,
}

impl Calls {
    /// Whether a publication with the same key was heard here before. Its own copies were dropped by identity already.
    pub(super) fn is_repeat(&mut self, now: Duration, event: &Event) -> bool {
        event.repeat_of != 0 && self.heard_once.insert(event.repeat_of, now).is_some_and(|at| now < at + ONCE)
    }

    /// The publication of the topic before this one, if that was not long ago. One with a key is nobody's predecessor:
    /// where another node published the same, it never comes.
    pub(super) fn before(&mut self, now: Duration, topic: &Topic, counter: u64, has_key: bool) -> Option<Previous> {
        let before = match (self.previous.get_mut(topic), has_key) {
            (Some(known), true) => Some(*known),
            (Some(known), false) => Some(std::mem::replace(known, (counter, now))),
            (None, true) => None,
            (None, false) => self.previous.insert(topic.clone(), (counter, now)),
        };
        let (counter, at) = before.filter(|(_, at)| now < *at + NAMED_WITHIN)?;
        let ms_before = u16::try_from(now.saturating_sub(at).as_millis()).unwrap_or(u16::MAX);
        Some(Previous { counter, ms_before })
    }

    pub(super) fn sweep(&mut self, now: Duration) {
        self.previous.retain(|_, (_, at)| now < *at + NAMED_WITHIN);
        self.heard_once.retain(|_, at| now < *at + ONCE);
    }
}

impl Driver {
    /// Whether so many bytes more may be kept until logs have them.
    pub(super) fn buffer_has_room(&mut self, now: Duration, bytes: u64) -> bool {
        let unlogged = |group: &Group| group.lanes.iter().map(|side| side.lane.weight()).sum::<u64>();
        let kept = self.slots.weight + self.groups.iter().map(unlogged).sum::<u64>();
        let max = self.settings.limits.buffer_bytes_max;
        let has_room = kept + bytes <= max;
        if !has_room && self.calls.complaints.is_due(now, FULL) {
            tracing::error!(kept, max, "{FULL}");
        }
        has_room
    }

    /// A publication of each of these calls counts as accepted.
    pub(super) fn answer_accepted(&mut self, calls: Vec<u64>) {
        for call in calls {
            let Some(waiting) = self.calls.waiting.get_mut(&call) else { continue };
            waiting.left -= 1;
            if waiting.left == 0
                && let Some(reply) = self.calls.waiting.remove(&call).and_then(|call| call.reply)
            {
                let _: Result<(), Result<(), PublishError>> = reply.send(Ok(()));
            }
        }
    }

    /// Calls whose time is over are answered: what they had left may have happened (rule 15).
    pub(super) fn time_calls(&mut self, now: Duration) {
        let mut expired = HashSet::new();
        let mut replies = Vec::new();
        while let Some(&(_, call)) = self.calls.deadlines.front().filter(|(at, _)| now >= *at) {
            self.calls.deadlines.pop_front();
            let Some(waiting) = self.calls.waiting.remove(&call) else { continue };
            expired.insert(call);
            replies.extend(waiting.reply.map(|reply| (call, reply)));
        }
        if expired.is_empty() {
            return;
        }
        self.calls.timed_out += expired.len() as u64;
        let mut withdrawn = Withdrawn::default();
        let mut lanes: Vec<_> = self.groups.iter_mut().flat_map(|group| &mut group.lanes).collect();
        self.slots.withdraw(&expired, &mut withdrawn);
        lanes.iter_mut().for_each(|side| side.lane.withdraw(&expired, &mut withdrawn));
        if !withdrawn.is_empty() {
            // What is withdrawn never comes: nothing may be held for it.
            self.slots.pass(&withdrawn);
            lanes.iter_mut().for_each(|side| side.lane.pass(&withdrawn));
            withdrawn.pass(&mut self.calls.previous);
        }
        for (call, reply) in replies {
            let left = withdrawn.take_left(call);
            let _: Result<(), Result<(), PublishError>> = reply.send(Err(PublishError::Unknown { left }));
        }
    }
}
