//! Guards: what must hold before anything is planned, each with a name, figures, and what to do when it does not.

use std::fmt;

/// A guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// What is planned about was seen, freshly.
    Sight,
    /// Data is of the group it is believed to be of.
    Identity,
    /// The Sentinels answer and agree.
    Sentinels,
    /// No Sentinel is in TILT.
    SentinelTilt,
    /// No failover is going on.
    Quiet,
    /// One server alone takes writes.
    StrayPrimary,
    /// All replicas are online.
    Replicas,
    /// No replica is far behind.
    Lag,
    /// No full sync was given of late.
    Resync,
    /// Whom to promote may be promoted.
    Promotable,
    /// Enough complete copies are left.
    Copies,
    /// What the machines can bear is known.
    Capacity,
    /// One more stream fits on the primary's line.
    Bandwidth,
    /// What is written during a sync fits into the primary's buffers.
    Buffers,
    /// Data and buffers fit into memory.
    Memory,
    /// A server that is to be overwritten holds nothing.
    NotEmpty,
    /// The operator's user may do all of it.
    Rights,
    /// Nobody else operates on the group.
    Lease,
}

impl Guard {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Sight,
        Self::Identity,
        Self::Sentinels,
        Self::SentinelTilt,
        Self::Quiet,
        Self::StrayPrimary,
        Self::Replicas,
        Self::Lag,
        Self::Resync,
        Self::Promotable,
        Self::Copies,
        Self::Capacity,
        Self::Bandwidth,
        Self::Buffers,
        Self::Memory,
        Self::NotEmpty,
        Self::Rights,
        Self::Lease,
    ];

    /// Its name, for `--override` and for JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sight => "sight",
            Self::Identity => "identity",
            Self::Sentinels => "sentinels",
            Self::SentinelTilt => "sentinel-tilt",
            Self::Quiet => "quiet",
            Self::StrayPrimary => "stray-primary",
            Self::Replicas => "replicas",
            Self::Lag => "lag",
            Self::Resync => "resync",
            Self::Promotable => "promotable",
            Self::Copies => "copies",
            Self::Capacity => "capacity",
            Self::Bandwidth => "bandwidth",
            Self::Buffers => "buffers",
            Self::Memory => "memory",
            Self::NotEmpty => "not-empty",
            Self::Rights => "rights",
            Self::Lease => "lease",
        }
    }

    /// The guard of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|guard| guard.name() == name)
    }

    /// Whether an operator may decide against it. Never against another group's data; and about what is not seen nothing can
    /// be planned.
    #[must_use]
    pub fn may_be_overridden(self) -> bool {
        !matches!(self, Self::Sight | Self::Identity)
    }

    /// What to do when it says no.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Sight => "see why it does not answer (`fulmar redis status`), then try again",
            Self::Identity => "name the right server, or empty this one if its data is not needed",
            Self::Sentinels => "see `fulmar sentinel verify` and mend it with `fulmar sentinel repair`",
            Self::SentinelTilt => {
                "wait until it is over, 30 seconds after its clock or its machine last held still; if it comes again and again, see what \
                 holds that machine up"
            }
            Self::Quiet => "wait until it is over: twice the failover-timeout at most",
            Self::StrayPrimary => "stop that server, or make it follow, first",
            Self::Replicas => "wait until they are online, or add one (`fulmar redis add-replica`)",
            Self::Lag => "wait until they have caught up; if they do not, the line or the buffers are too small",
            Self::Resync => {
                "wait for ten quiet seconds; if it goes on, raise client-output-buffer-limit replica and repl-backlog-size \
                 with CONFIG SET on the primary, which ends a loop without a restart"
            }
            Self::Promotable => "choose another with --to, or give it a replica-priority above 0",
            Self::Copies => "add a replica first (`fulmar redis add-replica`)",
            Self::Capacity => "say what the machines can bear: link_mbit and memory_mb under [backbone.group.NAME]",
            Self::Bandwidth => "wait for a quieter hour, or give the primary a faster line",
            Self::Buffers => {
                "raise client-output-buffer-limit replica and repl-backlog-size with CONFIG SET on the primary, or wait for a \
                 quieter hour"
            }
            Self::Memory => "give the servers more memory, or let less be written",
            Self::NotEmpty => "empty it first, if its data is not needed: it would be overwritten",
            Self::Rights => {
                "give the user these rights (and keep them: ACL SAVE, or CONFIG REWRITE), or act as another"
            }
            Self::Lease => {
                "wait until the other is done; the lease of one that died lapses by itself within 30 seconds"
            }
        }
    }
}

/// A guard that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    /// Which.
    pub guard: Guard,
    /// Whether it has nothing against the plan.
    pub holds: bool,
    /// What was seen, with figures.
    pub figures: String,
    /// Whether the operator decided against it.
    pub is_overridden: bool,
}

/// A guard said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which.
    pub guard: Guard,
    /// What was seen, with figures.
    pub figures: String,
    /// All that were asked.
    pub guards: Vec<Guarded>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused by the guard {}: {}. {}", self.guard.name(), self.figures, capital(self.guard.advice()))
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Asks guards one after the other and remembers what they said.
#[derive(Debug, Default)]
pub(crate) struct Gate<'a> {
    overridden: &'a [Guard],
    asked: Vec<Guarded>,
}

impl<'a> Gate<'a> {
    pub(crate) fn new(overridden: &'a [Guard]) -> Self {
        Self { overridden, asked: Vec::new() }
    }

    /// Notes what a guard says.
    pub(crate) fn ask(&mut self, guard: Guard, holds: bool, figures: impl Into<String>) {
        let is_overridden = !holds && guard.may_be_overridden() && self.overridden.contains(&guard);
        self.asked.push(Guarded { guard, holds, figures: figures.into(), is_overridden });
    }

    /// What all said: the guards, or the first that refuses.
    pub(crate) fn pass(self) -> Result<Vec<Guarded>, Refusal> {
        match self.asked.iter().find(|asked| !asked.holds && !asked.is_overridden) {
            None => Ok(self.asked),
            Some(no) => Err(Refusal { guard: no.guard, figures: no.figures.clone(), guards: self.asked.clone() }),
        }
    }

    /// Refuses at once: nothing further can be asked.
    pub(crate) fn refuse(mut self, guard: Guard, figures: impl Into<String>) -> Refusal {
        let figures = figures.into();
        self.asked.push(Guarded { guard, holds: false, figures: figures.clone(), is_overridden: false });
        Refusal { guard, figures, guards: self.asked }
    }
}
