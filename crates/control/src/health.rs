//! What the facts mean: a group is in sync, or what exactly is wrong with it.
//!
//! The signals are those that were found to rise first when real groups were hurt: replicas *online* and not connected, full
//! syncs that repeat, what waits for replicas beyond the backlog, a lag measured against the stream of the moment.

use std::fmt;
use std::time::Duration;

use crate::observed::{GroupSeen, ReplicaLink, Role, ServerSeen, ServerState};

/// Over how long repetitions are counted.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Full syncs within [`WINDOW`] that are no coincidence.
pub const FULL_SYNCS_MAX: u64 = 2;
/// Share of the line that streams may take, in percent: beyond it a full sync cannot keep up.
pub const LINK_PERCENT_MAX: u64 = 70;
/// What may wait for replicas beyond the backlog.
pub const WAITING_BYTES_MAX: u64 = 1 << 20;
/// A healthy replica acknowledges once a second, so that it seems up to one second behind.
pub const LAG: Duration = Duration::from_millis(2_500);
/// Below this a lag means nothing, however slow the stream.
pub const LAG_BYTES_FLOOR: u64 = 64 << 10;
/// Memory in use, in percent, from which on it is said, and from which on it is grave.
pub const MEMORY_PERCENT: [u64; 2] = [70, 85];

/// Whether somebody must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// As it should be.
    Fine,
    /// It will become worse.
    Warning,
    /// It is no longer safe, or no longer works.
    Grave,
}

/// What is the matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Everything is as it should be.
    InSync {
        /// Complete copies.
        copies: usize,
    },
    /// No server is named by a majority and says itself that it is the primary.
    NoPrimary,
    /// A server or Sentinel does not answer.
    Unseen {
        /// Which.
        address: String,
        /// What the last attempt came to.
        why: String,
    },
    /// Fewer replicas are online than there should be.
    ReplicaMissing {
        /// That many should be.
        expected: usize,
        /// That many are.
        online: usize,
    },
    /// Replicas are given all of the data again and again.
    ResyncLoop {
        /// Full syncs.
        full_syncs: u64,
        /// In how long.
        over: Duration,
    },
    /// The primary cannot send as fast as it should.
    LinkSaturated {
        /// Bytes per second that leave it.
        sent: u64,
        /// Bytes per second that its line carries, if that is known.
        line: Option<u64>,
        /// Bytes that wait for replicas, beyond the backlog.
        waiting: u64,
    },
    /// A replica is further behind than the stream explains.
    Lagging {
        /// Which.
        address: String,
        /// By how many bytes.
        behind: u64,
        /// Bytes per second that are written.
        stream: u64,
    },
    /// Memory runs out.
    NearMemoryLimit {
        /// Where.
        address: String,
        /// In use, in percent of the limit.
        percent: u64,
    },
    /// A server that is not the group's primary takes writes.
    StrayPrimary {
        /// Which.
        address: String,
    },
    /// Sentinels name different servers.
    SentinelsDisagree {
        /// Each Sentinel and whom it names.
        named: Vec<(String, String)>,
    },
    /// A server has the data of another group.
    WrongIdentity {
        /// Which.
        address: String,
        /// Whose data.
        found: String,
    },
}

impl State {
    /// Its name in JSON and in scripts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::InSync { .. } => "in-sync",
            Self::NoPrimary => "no-primary",
            Self::Unseen { .. } => "unseen",
            Self::ReplicaMissing { .. } => "replica-missing",
            Self::ResyncLoop { .. } => "resync-loop",
            Self::LinkSaturated { .. } => "link-saturated",
            Self::Lagging { .. } => "lagging",
            Self::NearMemoryLimit { .. } => "near-memory-limit",
            Self::StrayPrimary { .. } => "stray-primary",
            Self::SentinelsDisagree { .. } => "sentinels-disagree",
            Self::WrongIdentity { .. } => "wrong-identity",
        }
    }

    /// Whether somebody must act.
    #[must_use]
    pub fn weight(&self) -> Weight {
        match self {
            Self::InSync { .. } => Weight::Fine,
            Self::Unseen { .. } | Self::LinkSaturated { .. } | Self::Lagging { .. } => Weight::Warning,
            Self::NearMemoryLimit { percent, .. } if *percent < MEMORY_PERCENT[1] => Weight::Warning,
            _ => Weight::Grave,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InSync { copies } => write!(f, "in sync: {copies} complete copies"),
            Self::NoPrimary => f.write_str("no server is named by most Sentinels and says that it is the primary"),
            Self::Unseen { address, why } => write!(f, "{address} does not answer: {why}"),
            Self::ReplicaMissing { expected, online } => write!(f, "{online} of {expected} replicas are online"),
            Self::ResyncLoop { full_syncs, over } => {
                write!(f, "replicas are synced again and again: {full_syncs} full syncs in {} s", over.as_secs())
            }
            Self::LinkSaturated { sent, line, waiting } => {
                write!(f, "the primary's line is full: {} leave it", rate(*sent))?;
                if let Some(line) = line {
                    write!(f, " of {}", rate(*line))?;
                }
                write!(f, ", {} wait for replicas beyond the backlog", bytes(*waiting))
            }
            Self::Lagging { address, behind, stream } => {
                write!(f, "{address} is {} behind a stream of {}", bytes(*behind), rate(*stream))
            }
            Self::NearMemoryLimit { address, percent } => write!(f, "{address} uses {percent}% of its memory"),
            Self::StrayPrimary { address } => {
                write!(f, "{address} takes writes and is not the group's primary: make it follow, or stop it")
            }
            Self::SentinelsDisagree { named } => {
                let said: Vec<String> = named.iter().map(|(who, whom)| format!("{who} names {whom}")).collect();
                write!(f, "Sentinels disagree: {}", said.join(", "))
            }
            Self::WrongIdentity { address, found } => write!(f, "{address} has the data of {found}"),
        }
    }
}

/// Bytes, as people read them.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10),
    }
}

/// Bytes per second, as people read them.
#[must_use]
pub fn rate(per_second: u64) -> String {
    format!("{}/s", bytes(per_second))
}

/// Says how a group is: what is wrong, gravest first, or that nothing is.
#[must_use]
pub fn judge(now: Duration, group: &GroupSeen) -> Vec<State> {
    let mut states = Vec::new();
    sentinels(now, group, &mut states);
    for server in &group.servers {
        of_server(now, group, server, &mut states);
    }
    match group.primary(now) {
        None => states.push(State::NoPrimary),
        Some(primary) => of_primary(now, group, primary, &mut states),
    }
    states.sort_by_key(|state| std::cmp::Reverse(state.weight()));
    if states.is_empty() {
        states.push(State::InSync { copies: group.copies(now) });
    }
    states
}

fn sentinels(now: Duration, group: &GroupSeen, states: &mut Vec<State>) {
    for sentinel in group.sentinels.iter().filter(|sentinel| sentinel.fresh(now).is_none()) {
        let why = sentinel.trouble.clone().unwrap_or_else(|| "not seen yet".to_owned());
        states.push(State::Unseen { address: sentinel.address.clone(), why });
    }
    let named: Vec<(String, String)> =
        group.views(now).map(|(who, view)| (who.to_owned(), view.primary.clone())).collect();
    if named.iter().any(|(_, whom)| Some(whom) != named.first().map(|(_, whom)| whom)) {
        states.push(State::SentinelsDisagree { named });
    }
}

fn of_server(now: Duration, group: &GroupSeen, server: &ServerSeen, states: &mut Vec<State>) {
    let address = server.address.clone();
    let Some(state) = server.fresh(now) else {
        let why = server.trouble.clone().unwrap_or_else(|| "not seen yet".to_owned());
        return states.push(State::Unseen { address, why });
    };
    match &state.identity {
        Some(found) if *found != group.identity => {
            return states.push(State::WrongIdentity { address, found: found.clone() });
        }
        _ => {}
    }
    if group.named(now).is_some_and(|named| group.strays(now, named).any(|stray| stray == server.address)) {
        states.push(State::StrayPrimary { address: address.clone() });
    }
    let granted = group.capacity.memory_mb.map(|mb| mb << 20);
    let limit = Some(state.figures.max_bytes).filter(|max| *max > 0).or(granted).filter(|max| *max > 0);
    if let Some(percent) = limit.map(|limit| state.figures.used_bytes.saturating_mul(100) / limit)
        && percent >= MEMORY_PERCENT[0]
    {
        states.push(State::NearMemoryLimit { address, percent });
    }
}

fn of_primary(now: Duration, group: &GroupSeen, primary: &ServerSeen, states: &mut Vec<State>) {
    let Some(state) = primary.fresh(now) else { return };
    let (expected, online) = (group.expected_replicas(now), state.online().count());
    if online < expected {
        states.push(State::ReplicaMissing { expected, online });
    }
    if let Some((full_syncs, over)) = full_syncs(now, primary)
        && full_syncs >= FULL_SYNCS_MAX
    {
        states.push(State::ResyncLoop { full_syncs, over });
    }
    let line = group.capacity.link_mbit.map(line);
    let sent = primary.rate(now, WINDOW, |sample| sample.figures.sent_bytes).unwrap_or_default();
    let is_full = line.is_some_and(|line| sent > line / 100 * LINK_PERCENT_MAX);
    let waiting = state.figures.waiting_bytes;
    if is_full || waiting > WAITING_BYTES_MAX {
        states.push(State::LinkSaturated { sent, line, waiting });
    }
    for replica in group.replicas_of(now, &primary.address) {
        if let Some((behind, stream)) = lag(now, primary, replica) {
            states.push(State::Lagging { address: replica.address.clone(), behind, stream });
        }
    }
}

/// Bytes per second of a line of so many megabits.
#[must_use]
pub fn line(mbit: u64) -> u64 {
    mbit.saturating_mul(125_000)
}

/// Full syncs that a primary gave within [`WINDOW`], and over how long a time that was seen.
#[must_use]
pub fn full_syncs(now: Duration, primary: &ServerSeen) -> Option<(u64, Duration)> {
    primary.rise(now, WINDOW, |sample| sample.figures.full_syncs)
}

/// How far a replica that follows is behind, by its own word, and the stream; `None` when that is no more than usual. A
/// replica that is being synced is not late but missing.
#[must_use]
pub fn lag(now: Duration, primary: &ServerSeen, replica: &ServerSeen) -> Option<(u64, u64)> {
    let (ahead, state) = (primary.fresh(now)?, replica.fresh(now)?);
    let follows = |state: &ServerState| matches!(state.role, Role::Replica { link: ReplicaLink::Connected, .. });
    let behind = ahead.offset.saturating_sub(state.offset);
    let stream = primary.rate(now, WINDOW, |sample| sample.offset).unwrap_or_default();
    let allowed = u128::from(stream) * LAG.as_millis() / 1_000;
    let is_late = u128::from(behind) > allowed.max(u128::from(LAG_BYTES_FLOOR));
    (is_late && follows(state)).then_some((behind, stream))
}
