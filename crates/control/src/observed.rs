//! What was seen of a group: of each Sentinel and each server, in its own words, with the moment it was seen.
//!
//! Plain values and sums of them. What they mean is [`crate::health`]'s business, what follows from them the planners'.

use std::time::Duration;

/// What is older than this is no sight of anything.
pub const FRESH: Duration = Duration::from_secs(3);
/// Samples of one server that are kept: with one look a second, those of the last half minute.
pub const TRAIL_MAX: usize = 32;

/// Samples closer to the last one than this are not kept.
const SAMPLE_EVERY: Duration = Duration::from_millis(450);

/// Something seen, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact<T> {
    /// What.
    pub value: T,
    /// When, by the observer's count.
    pub seen_at: Duration,
}

impl<T> Fact<T> {
    /// How old it is.
    #[must_use]
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.seen_at)
    }
}

/// What a group's machines and its operator grant it; `None` is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Outgoing bandwidth of the primary's machine, in megabits per second.
    pub link_mbit: Option<u64>,
    /// Replicas the group is meant to have.
    pub replicas: Option<usize>,
    /// Memory each server may use, in mebibytes.
    pub memory_mb: Option<u64>,
}

/// A group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupSeen {
    /// As the Sentinels know it.
    pub name: String,
    /// The identity that its data must show: `DEPLOYMENT/GROUP`.
    pub identity: String,
    /// What it is granted.
    pub capacity: Capacity,
    /// One for each Sentinel that is configured; empty where none watches.
    pub sentinels: Vec<SentinelSeen>,
    /// Every server that anybody named.
    pub servers: Vec<ServerSeen>,
}

/// A Sentinel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SentinelSeen {
    /// `host:port`.
    pub address: String,
    /// What it said last.
    pub view: Option<Fact<SentinelView>>,
    /// Why it said nothing the last time, if so.
    pub trouble: Option<String>,
}

/// What a Sentinel says of the group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SentinelView {
    /// The primary's address.
    pub primary: String,
    /// The configuration epoch under which it is the primary.
    pub epoch: u64,
    /// The replicas it knows.
    pub replicas: Vec<NamedReplica>,
    /// Other Sentinels it knows.
    pub others: usize,
    /// Sentinels that must agree that the primary is down.
    pub quorum: usize,
    /// Whether it sees the primary up.
    pub is_primary_up: bool,
    /// Whether it says that a failover is going on.
    pub is_failing_over: bool,
    /// For how long it has been in TILT, in which it watches and does nothing; `None` while it is not.
    pub tilted_for: Option<Duration>,
    /// Silence after which it calls a server down.
    pub down_after: Duration,
    /// How long a failover may take; the next is tried after twice that.
    pub failover_timeout: Duration,
    /// Replicas that are told to follow a new primary at once.
    pub parallel_syncs: usize,
}

/// A replica as a Sentinel knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedReplica {
    /// `host:port`.
    pub address: String,
    /// Its `replica-priority`, as far as the Sentinel knows.
    pub priority: u32,
    /// Whether the Sentinel reaches it and its link to the primary is up.
    pub is_up: bool,
}

/// A server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerSeen {
    /// `host:port`.
    pub address: String,
    /// What it said last of itself.
    pub state: Option<Fact<ServerState>>,
    /// Why it said nothing the last time, if so.
    pub trouble: Option<String>,
    /// Figures of the last looks, newest last; at most [`TRAIL_MAX`].
    pub trail: Vec<Fact<Sample>>,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// Its run id: another one after each start.
    pub run: String,
    /// Its version.
    pub version: String,
    /// What it is.
    pub role: Role,
    /// Its own replication offset: what it has written, or has taken from its primary.
    pub offset: u64,
    /// Identity of the group whose data it has; `None` where it has none.
    pub identity: Option<String>,
    /// Keys it holds.
    pub keys: u64,
    /// Its `replica-priority`; 0 is never promoted, and lower is preferred.
    pub priority: u32,
    /// Figures of the moment.
    pub figures: Figures,
    /// What it is configured to keep for its replicas.
    pub buffers: Buffers,
}

/// What a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It takes writes, and these follow it.
    Primary(Vec<Attached>),
    /// It follows another.
    Replica {
        /// Whom.
        of: String,
        /// How that goes.
        link: ReplicaLink,
    },
}

/// A replica as its primary lists it. Connected is not online: during a full sync it is connected and has nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Where it says it listens.
    pub address: String,
    /// Whether it has the data and follows the stream.
    pub is_online: bool,
}

/// How a replica's link to its primary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaLink {
    /// It follows the stream.
    Connected,
    /// It is being given all of the data.
    Syncing,
    /// It is cut off.
    Down,
}

/// Figures of a server at one moment; the first four in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Memory in use.
    pub used_bytes: u64,
    /// The most it may use; 0 is no limit.
    pub max_bytes: u64,
    /// Memory of the data alone.
    pub dataset_bytes: u64,
    /// What its replicas have not taken yet, beyond the backlog.
    pub waiting_bytes: u64,
    /// Bytes sent since its start. Rises.
    pub sent_bytes: u64,
    /// Full syncs given since its start. Rises.
    pub full_syncs: u64,
    /// Requests for a partial sync that it had to refuse. Rises.
    pub refused_partials: u64,
}

/// What a server keeps for its replicas, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Buffers {
    /// `repl-backlog-size`.
    pub backlog_bytes: u64,
    /// The hard limit of `client-output-buffer-limit replica`; 0 is none.
    pub output_bytes_max: u64,
}

/// Figures of one look, for rates and repetitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// See [`ServerState::offset`].
    pub offset: u64,
    /// See [`Figures`].
    pub figures: Figures,
    /// Whether it was a primary.
    pub is_primary: bool,
}

impl ServerState {
    /// Whether it takes writes.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary(_))
    }

    /// Its replicas that are online; none where it is a replica itself.
    pub fn online(&self) -> impl Iterator<Item = &str> {
        let attached = if let Role::Primary(attached) = &self.role { attached.as_slice() } else { &[] };
        attached.iter().filter(|replica| replica.is_online).map(|replica| replica.address.as_str())
    }
}

impl ServerSeen {
    /// What it says of itself, unless that is too old to mean anything.
    #[must_use]
    pub fn fresh(&self, now: Duration) -> Option<&ServerState> {
        self.state.as_ref().filter(|fact| fact.age(now) <= FRESH).map(|fact| &fact.value)
    }

    /// Adds a look to its trail and makes it its state.
    pub fn note(&mut self, now: Duration, state: ServerState) {
        let sample = Sample { offset: state.offset, figures: state.figures, is_primary: state.is_primary() };
        let is_same_run = self.state.as_ref().is_none_or(|before| before.value.run == state.run);
        if !is_same_run {
            self.trail.clear();
        }
        // Whoever waits for something looks far more often than rates need.
        if self.trail.last().is_none_or(|last| last.age(now) >= SAMPLE_EVERY) {
            self.trail.push(Fact { value: sample, seen_at: now });
        }
        let excess = self.trail.len().saturating_sub(TRAIL_MAX);
        self.trail.drain(..excess);
        self.state = Some(Fact { value: state, seen_at: now });
        self.trouble = None;
    }

    /// By how much something rose within the last `within`, and over how long a time that was seen.
    #[must_use]
    pub fn rise(&self, now: Duration, within: Duration, figure: fn(&Sample) -> u64) -> Option<(u64, Duration)> {
        let last = self.trail.last()?;
        let first = self.trail.iter().find(|sample| sample.age(now) <= within)?;
        let over = last.seen_at.checked_sub(first.seen_at).filter(|over| !over.is_zero())?;
        Some((figure(&last.value).saturating_sub(figure(&first.value)), over))
    }

    /// How fast something rises, per second, over the last `within`.
    #[must_use]
    pub fn rate(&self, now: Duration, within: Duration, figure: fn(&Sample) -> u64) -> Option<u64> {
        let (rise, over) = self.rise(now, within, figure)?;
        let per_second = u128::from(rise) * 1_000 / over.as_millis().max(1);
        Some(u64::try_from(per_second).unwrap_or(u64::MAX))
    }

    /// How long it has been watched without a gap.
    #[must_use]
    pub fn watched_for(&self, now: Duration) -> Duration {
        self.trail.first().map_or(Duration::ZERO, |sample| sample.age(now))
    }
}

impl SentinelSeen {
    /// What it says, unless that is too old.
    #[must_use]
    pub fn fresh(&self, now: Duration) -> Option<&SentinelView> {
        self.view.as_ref().filter(|fact| fact.age(now) <= FRESH).map(|fact| &fact.value)
    }
}

impl GroupSeen {
    /// A server by its address.
    #[must_use]
    pub fn server(&self, address: &str) -> Option<&ServerSeen> {
        self.servers.iter().find(|server| server.address == address)
    }

    /// The same, to be added where it is not known yet.
    pub fn server_mut(&mut self, address: &str) -> &mut ServerSeen {
        let at = self.servers.iter().position(|server| server.address == address).unwrap_or_else(|| {
            self.servers.push(ServerSeen { address: address.to_owned(), ..ServerSeen::default() });
            self.servers.len() - 1
        });
        &mut self.servers[at]
    }

    /// What is freshly known of the Sentinels.
    pub fn views(&self, now: Duration) -> impl Iterator<Item = (&str, &SentinelView)> {
        self.sentinels.iter().filter_map(move |seen| Some((seen.address.as_str(), seen.fresh(now)?)))
    }

    /// Sentinels that are in TILT, and for how long.
    #[must_use]
    pub fn tilted(&self, now: Duration) -> Vec<(&str, Duration)> {
        self.views(now).filter_map(|(who, view)| Some((who, view.tilted_for?))).collect()
    }

    /// Servers that say of themselves that they are primary, freshly.
    pub fn acting(&self, now: Duration) -> impl Iterator<Item = &ServerSeen> {
        self.servers.iter().filter(move |server| server.fresh(now).is_some_and(ServerState::is_primary))
    }

    /// Servers that take writes in the group's name beside `primary`: they have its data, or a Sentinel knows them. An empty one
    /// that somebody is about to add is nobody's primary.
    pub fn strays<'a>(&'a self, now: Duration, primary: &'a str) -> impl Iterator<Item = &'a str> {
        let knows = move |address: &str| {
            let mut replicas = self.views(now).flat_map(|(_, view)| &view.replicas);
            replicas.any(|replica| replica.address == address)
        };
        let is_own = move |server: &&ServerSeen| {
            let state = server.fresh(now);
            state.is_some_and(|state| state.identity.as_ref() == Some(&self.identity)) || knows(&server.address)
        };
        let others = self.acting(now).filter(move |server| server.address != primary);
        others.filter(is_own).map(|server| server.address.as_str())
    }

    /// Whom a majority of all Sentinels names; the one server where none watches.
    #[must_use]
    pub fn named(&self, now: Duration) -> Option<&str> {
        if self.sentinels.is_empty() {
            return self.servers.first().map(|server| server.address.as_str());
        }
        let votes = |address: &str| self.views(now).filter(|(_, view)| view.primary == address).count();
        let mut candidates = self.views(now).map(|(_, view)| view.primary.as_str());
        candidates.find(|address| 2 * votes(address) > self.sentinels.len())
    }

    /// The server that is named by a majority and says itself that it is the primary.
    #[must_use]
    pub fn primary(&self, now: Duration) -> Option<&ServerSeen> {
        let server = self.server(self.named(now)?)?;
        server.fresh(now).filter(|state| state.is_primary())?;
        Some(server)
    }

    /// Servers that follow `primary` or are listed by it or by a Sentinel that names it.
    #[must_use]
    pub fn replicas_of(&self, now: Duration, primary: &str) -> Vec<&ServerSeen> {
        let named = |address: &str| {
            let mut views = self.views(now).filter(|(_, view)| view.primary == primary);
            views.any(|(_, view)| view.replicas.iter().any(|replica| replica.address == address))
        };
        let follows = |server: &ServerSeen| match server.fresh(now).map(|state| &state.role) {
            Some(Role::Replica { of, .. }) => of == primary,
            Some(Role::Primary(_)) => false,
            None => named(&server.address),
        };
        let others = self.servers.iter().filter(|server| server.address != primary);
        others.filter(|server| follows(server)).collect()
    }

    /// Replicas the group is meant to have: those granted, else as many as a Sentinel knows.
    #[must_use]
    pub fn expected_replicas(&self, now: Duration) -> usize {
        let known = self.views(now).map(|(_, view)| view.replicas.len()).max();
        self.capacity.replicas.or(known).unwrap_or_default()
    }

    /// Complete copies: the primary and its replicas that are online and say themselves that they follow it.
    #[must_use]
    pub fn copies(&self, now: Duration) -> usize {
        let Some(primary) = self.primary(now) else { return 0 };
        let online: Vec<&str> = primary.fresh(now).map(|state| state.online().collect()).unwrap_or_default();
        let replicas = self.replicas_of(now, &primary.address);
        let is_copy = |server: &&&ServerSeen| {
            let link = server.fresh(now).map(|state| &state.role);
            online.contains(&server.address.as_str())
                && matches!(link, Some(Role::Replica { link: ReplicaLink::Connected, .. }))
        };
        1 + replicas.iter().filter(is_copy).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn state(offset: u64, run: &str) -> ServerState {
        ServerState {
            run: run.to_owned(),
            version: "7.0.15".to_owned(),
            role: Role::Primary(Vec::new()),
            offset,
            identity: None,
            keys: 0,
            priority: 100,
            figures: Figures::default(),
            buffers: Buffers::default(),
        }
    }

    /// OP-1
    #[test]
    fn a_rate_is_taken_over_the_time_that_was_really_seen_and_ends_with_the_run() {
        let mut server = ServerSeen::default();
        for (second, offset) in [(0, 0), (1, 500), (2, 1_500), (4, 3_500)] {
            server.note(S(second), state(offset, "a"));
        }
        assert_eq!(server.rate(S(4), S(10), |sample| sample.offset), Some(875));
        assert_eq!(server.rate(S(4), S(2), |sample| sample.offset), Some(1_000));
        assert_eq!(server.rise(S(4), S(1), |sample| sample.offset), None, "one look is no rate");
        server.note(S(5), state(0, "b"));
        assert_eq!(server.rate(S(5), S(10), |sample| sample.offset), None, "another process");
        for second in 6..100 {
            server.note(S(second), state(0, "b"));
        }
        assert_eq!(server.trail.len(), TRAIL_MAX);
    }

    /// OP-1
    #[test]
    fn what_is_old_is_not_seen() {
        let mut group = GroupSeen::default();
        group.server_mut("a:1").note(S(10), state(1, "a"));
        assert_eq!(group.named(S(11)), Some("a:1"), "nobody watches: the one server it is");
        assert!(group.primary(S(13)).is_some() && group.primary(S(14)).is_none());
        let views = ["a:1", "b:1", "a:1"].map(|primary| SentinelSeen {
            address: String::new(),
            view: Some(Fact {
                value: SentinelView { primary: primary.to_owned(), ..SentinelView::default() },
                seen_at: S(10),
            }),
            trouble: None,
        });
        group.sentinels = views.into();
        assert_eq!(group.named(S(10)), Some("a:1"));
        group.sentinels[0].view = None;
        assert_eq!(group.named(S(10)), None, "a majority of all, not of those that answer");
    }
}
