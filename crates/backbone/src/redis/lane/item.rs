//! A publication in a lane: its message with its age, what the script is told beside it, and how it is taken back.
//!
//! Pure.

use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashSet;

use super::super::envelope::Event;
use super::super::millis;
use super::super::topic::Topic;
use super::super::withdrawn::Withdrawn;

/// Younger than this a message goes as it is.
const FRESH_MS: u64 = 50;

/// What an item counts for beside its message, also once it was taken back and only its number is left.
pub(super) const ITEM_BYTES: u64 = 256;

/// A publication in a lane.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it goes.
    pub topic: Topic,
    /// The encoded message; empty when it was withdrawn and only its number is left.
    pub message: Bytes,
    /// What the script is told beside it; see `scripts/publish.lua`.
    pub spec: Spec,
    /// When it was accepted here.
    pub accepted_at: Duration,
    /// Who waits for it, until it counts as accepted.
    pub call: Option<u64>,
    /// Whether that takes a replica, and not only the log.
    pub needs_replica: bool,
    /// When the believed primary's log was known to have it.
    pub(super) logged_at: Option<Duration>,
    /// Bytes that the lane had taken before it.
    pub(super) behind: u64,
}

/// What the publish script does beside appending and publishing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spec {
    /// Keep it for later subscribers for this long.
    pub cache_for: Option<Duration>,
    /// Publish it only if nothing was published under this key before.
    pub once: Option<u64>,
    /// Leave it in the outbox as a client's event: what the script needs for that.
    pub hook: Option<String>,
}

impl Item {
    /// A publication that nobody waits for.
    #[must_use]
    pub fn new(now: Duration, topic: Topic, message: Bytes, spec: Spec) -> Self {
        Self { topic, message, spec, accepted_at: now, call: None, needs_replica: false, logged_at: None, behind: 0 }
    }

    /// How long ago it was accepted.
    fn age_ms(&self, now: Duration) -> u64 {
        millis(now.saturating_sub(self.accepted_at))
    }

    /// The message with its age in it: how long ago this node accepted it, so that no two clocks need to agree.
    #[must_use]
    pub fn aged(&self, now: Duration) -> Bytes {
        let age_ms = self.age_ms(now);
        if age_ms < FRESH_MS || self.message.is_empty() {
            return self.message.clone();
        }
        Event::with_age(&self.message, age_ms)
    }

    /// What it takes of the room for publications that no log has.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.message.len() as u64 + ITEM_BYTES
    }

    /// Its counter, if it is this origin's own publication.
    #[must_use]
    pub fn counter_of(&self, origin: u64) -> Option<u64> {
        let identity = Event::identity_of(&self.message)?;
        (identity.origin == origin).then_some(identity.counter)
    }

    /// What the script is told beside it, as `scripts/publish.lua` reads it.
    #[must_use]
    pub fn spec_text(&self, now: Duration) -> String {
        let mut text = String::new();
        if let Some(kept) = self.spec.cache_for {
            text.push_str(&format!("c={};", millis(kept)));
            let age_ms = self.age_ms(now);
            if age_ms >= FRESH_MS {
                text.push_str(&format!("a={age_ms};"));
            }
        }
        if let Some(once) = self.spec.once {
            text.push_str(&format!("k={once:x};"));
        }
        if let Some(hook) = &self.spec.hook {
            text.push_str(hook);
        }
        text
    }

    /// Whose it is, and its bytes.
    #[must_use]
    pub fn app_and_bytes(&self) -> (&str, usize) {
        (self.topic.app(), self.message.len())
    }

    /// Takes it back, where one of these calls waits for it. Its place stays: others are counted by theirs. Answers how many bytes
    /// became free.
    pub fn withdraw(&mut self, calls: &HashSet<u64>, withdrawn: &mut Withdrawn) -> u64 {
        let Some(call) = self.call.take_if(|call| calls.contains(call)) else { return 0 };
        withdrawn.leave(call, self.topic.clone());
        let message = std::mem::take(&mut self.message);
        if let Some((counter, previous)) = Event::follows(&message) {
            withdrawn.note(self.topic.clone(), counter, previous);
        }
        message.len() as u64
    }

    /// If it followed one that was taken back, it follows the one before that.
    pub fn pass(&mut self, withdrawn: &Withdrawn) {
        let Some((_, previous)) = Event::follows(&self.message) else { return };
        let passed = withdrawn.passed(previous);
        if passed != previous {
            self.message = Event::following(&self.message, passed);
        }
    }
}
