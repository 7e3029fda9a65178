//! What happened when, and who said it: one list that deeds, nodes' logs and verbs write into while a day is replayed.
//!
//! It judges nothing. Times count from the beginning of the day's replay.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whose word an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// The post-mortem: what happened at Pusher.
    Story,
    /// What the operator, a script or a fault does here.
    Deed,
    /// A line of a node's log.
    Node,
    /// A command of ours, and what it answered.
    Verb,
    /// What `fulmar redis status` says of a group, when it begins and ends.
    Alert,
    /// What the lab itself saw.
    Seen,
    /// What this release cannot do yet.
    Gap,
    /// A promise that was not kept.
    Miss,
}

impl Voice {
    /// As the list shows it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Story => "story",
            Self::Deed => "deed",
            Self::Node => "node",
            Self::Verb => "fulmar",
            Self::Alert => "status",
            Self::Seen => "seen",
            Self::Gap => "not covered",
            Self::Miss => "MISSED",
        }
    }
}

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Since the beginning.
    pub at: Duration,
    /// Whose.
    pub voice: Voice,
    /// What.
    pub words: String,
}

/// The list. Copies write into the same.
#[derive(Debug, Clone)]
pub struct Timeline {
    begun: Instant,
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl Timeline {
    /// An empty one that begins now.
    pub fn begin() -> Self {
        Self { begun: Instant::now(), entries: Arc::default() }
    }

    /// Since its beginning.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Something is said now.
    pub fn say(&self, voice: Voice, words: impl Into<String>) {
        self.say_at(Instant::now(), voice, words);
    }

    /// Something was said then.
    pub fn say_at(&self, at: Instant, voice: Voice, words: impl Into<String>) {
        let entry = Entry { at: at.saturating_duration_since(self.begun), voice, words: words.into() };
        println!("  {:>6.2} s  {:<11} {}", entry.at.as_secs_f64(), voice.word(), entry.words);
        self.lock().push(entry);
    }

    /// All of it, by time.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = self.lock().clone();
        entries.sort_by_key(|entry| entry.at);
        entries
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
