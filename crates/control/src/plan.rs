//! Plans: steps that are each begun when something holds and ended when something else has been observed.
//!
//! An accepted command proves nothing. A step is over when its `done_when` was seen on the process itself after the command,
//! and a step that does not get there in time is undone. Whoever carries a plan out decides nothing: what an observation means
//! for a check is decided by [`Check::judge`].

use std::fmt;
use std::time::Duration;

pub use crate::check::{Check, Sight, Verdict};
pub use crate::guards::{Guard, Guarded, Refusal};

/// A server in a plan: known, or whichever was promoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// This one.
    At(String),
    /// The one that a step before saw become primary.
    Successor,
}

impl Who {
    /// Its address, once that is known.
    #[must_use]
    pub fn address<'a>(&'a self, successor: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::At(address) => Some(address),
            Self::Successor => successor,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => f.write_str(address),
            Self::Successor => f.write_str("the new primary"),
        }
    }
}

impl From<&str> for Who {
    fn from(address: &str) -> Self {
        Self::At(address.to_owned())
    }
}

/// Something done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the step waits.
    Watch,
    /// Holds writes, on the server itself, for so long: they wait and are not refused. Ends by itself, whatever becomes of
    /// whoever asked for it, and is renewed while its step and the next last.
    Pause {
        /// Which.
        server: String,
        /// For how long.
        hold: Duration,
    },
    /// Ends that.
    Resume {
        /// Which.
        server: String,
    },
    /// Sets `replica-priority`.
    Prefer {
        /// Which.
        server: String,
        /// Lower is preferred; 0 is never promoted.
        priority: u32,
    },
    /// Asks a Sentinel for a failover.
    FailOver,
    /// Makes a primary follow its successor, cuts its connections, and ends its pause.
    Demote {
        /// Which.
        server: String,
        /// Whom it follows then.
        primary: Who,
    },
    /// Makes a server follow the primary, with the replication password of that.
    Attach {
        /// Which.
        server: String,
        /// Whom.
        primary: Who,
    },
    /// Takes a replica out of replication for good: it stays a replica, that takes no writes and gets no data, also when a
    /// Sentinel tells it to follow again.
    Detach {
        /// Which.
        server: String,
        /// From whom.
        primary: Who,
    },
    /// Makes a Sentinel forget what it knows beyond the primary and look anew.
    Relearn {
        /// Which.
        sentinel: String,
    },
    /// Makes a Sentinel watch this primary, with the settings of another.
    Monitor {
        /// Which.
        sentinel: String,
        /// The primary.
        primary: String,
        /// Whose settings.
        like: SentinelSettings,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watch => f.write_str("wait"),
            Self::Pause { server, hold } => {
                write!(f, "hold writes on {server} (CLIENT PAUSE {} WRITE, renewed meanwhile)", hold.as_millis())
            }
            Self::Resume { server } => write!(f, "let {server} take writes again (CLIENT UNPAUSE)"),
            Self::Prefer { server, priority } => write!(f, "set replica-priority of {server} to {priority}"),
            Self::FailOver => f.write_str("ask a Sentinel for the failover (SENTINEL FAILOVER)"),
            Self::Demote { server, primary } => {
                write!(f, "make {server} follow {primary} and cut its connections (REPLICAOF, CLIENT KILL TYPE normal)")
            }
            Self::Attach { server, primary } => write!(f, "make {server} follow {primary} (REPLICAOF)"),
            Self::Detach { server, primary } => {
                write!(f, "cut {server} off from {primary} (another masterauth, REPLICAOF anew)")
            }
            Self::Relearn { sentinel } => write!(f, "make the Sentinel {sentinel} look anew (SENTINEL RESET)"),
            Self::Monitor { sentinel, primary, .. } => {
                write!(f, "make the Sentinel {sentinel} watch {primary} (SENTINEL REMOVE, MONITOR, SET)")
            }
        }
    }
}

/// Settings of a Sentinel about a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentinelSettings {
    /// See [`crate::observed::SentinelView::quorum`].
    pub quorum: usize,
    /// See [`crate::observed::SentinelView::down_after`].
    pub down_after: Duration,
    /// See [`crate::observed::SentinelView::failover_timeout`].
    pub failover_timeout: Duration,
    /// See [`crate::observed::SentinelView::parallel_syncs`].
    pub parallel_syncs: usize,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Must hold, freshly seen, before anything is done.
    pub ready_when: Check,
    /// What is done.
    pub action: Action,
    /// What must be seen after it.
    pub done_when: Check,
    /// Within how long; then the step is undone.
    pub within: Duration,
    /// How it is undone, with all steps before it.
    pub undo: Vec<Action>,
    /// What was asked for cannot be taken back at once and may still come: after undoing, so long is watched until it is certain
    /// that it does not. If it comes, the plan goes on.
    pub lingers: Option<Duration>,
}

impl Step {
    /// Waits for something.
    #[must_use]
    pub fn watch(done_when: Check, within: Duration) -> Self {
        Self::act(Check::All(Vec::new()), Action::Watch, done_when, within)
    }

    /// Does something that needs no undoing.
    #[must_use]
    pub fn act(ready_when: Check, action: Action, done_when: Check, within: Duration) -> Self {
        Self { ready_when, action, done_when, within, undo: Vec::new(), lingers: None }
    }

    /// With the way it is undone.
    #[must_use]
    pub fn undone_by(mut self, undo: Vec<Action>) -> Self {
        self.undo = undo;
        self
    }
}

/// Steps in their order, and why they may be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What comes of it, in a sentence.
    pub aim: String,
    /// The primary, where whoever carries it out keeps the lease.
    pub primary: String,
    /// The steps.
    pub steps: Vec<Step>,
    /// Every guard that was asked, with its figures.
    pub guards: Vec<Guarded>,
    /// What the operator does when it is done; empty when nothing.
    pub afterwards: String,
}

/// What a planner answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This may be done.
    Go(Plan),
    /// It is so already, in a sentence.
    Nothing(String),
    /// A guard says no.
    Refused(Refusal),
}
