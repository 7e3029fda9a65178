//! The watcher: every process of the groups, asked for what it says of itself and of others, as often as somebody looks.
//!
//! All of a group are asked at once, each within a bound, so that one that hangs delays a look and does not end it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fulmar_backbone::redis::settings::{Settings, Topology};
use fulmar_control::observed::{Capacity, Fact, GroupSeen, Role, SentinelSeen, SentinelView, ServerState};
use futures_util::future::join_all;
use redis::{Value, cmd};

use crate::doors::{AskError, Doors, Kind};
use crate::read::{self, Answers};

/// How often whoever watches looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks at groups, and remembers.
pub struct Watcher {
    doors: Doors,
    begun: Instant,
    groups: Vec<GroupSeen>,
    /// Servers that nobody has named yet, but the operator: (group, address).
    further: BTreeSet<(String, String)>,
}

impl Watcher {
    /// For the groups of these settings; `capacities` by group.
    #[must_use]
    pub fn new(settings: &Settings, capacities: &BTreeMap<String, Capacity>) -> Self {
        let seen = |name: String| {
            let mut group = GroupSeen {
                identity: format!("{}/{name}", settings.deployment),
                capacity: capacities.get(&name).copied().unwrap_or_default(),
                name,
                ..GroupSeen::default()
            };
            match &settings.topology {
                Topology::Single(address) => {
                    group.server_mut(address);
                }
                Topology::Sentinel { sentinels, .. } => {
                    let unseen =
                        |address: &String| SentinelSeen { address: address.clone(), ..SentinelSeen::default() };
                    group.sentinels = sentinels.iter().map(unseen).collect();
                }
                Topology::RedisCluster { .. } => {}
            }
            group
        };
        let groups = match settings.topology {
            Topology::RedisCluster { .. } => Vec::new(),
            _ => settings.topology.groups().into_iter().map(seen).collect(),
        };
        Self { doors: Doors::new(settings), begun: Instant::now(), groups, further: BTreeSet::new() }
    }

    /// The moment, as facts count it.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What was seen so far.
    #[must_use]
    pub fn groups(&self) -> &[GroupSeen] {
        &self.groups
    }

    /// What was seen of one group.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&GroupSeen> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The connections.
    #[must_use]
    pub fn doors(&self) -> &Doors {
        &self.doors
    }

    /// Adds a server that nobody names yet.
    pub fn add(&mut self, group: &str, address: &str) {
        self.further.insert((group.to_owned(), address.to_owned()));
    }

    /// Looks at everything.
    pub async fn look(&mut self) {
        for at in 0..self.groups.len() {
            self.look_whole(at).await;
        }
    }

    /// Looks at everything of one group.
    pub async fn look_group(&mut self, name: &str) {
        if let Some(at) = self.groups.iter().position(|group| group.name == name) {
            self.look_whole(at).await;
        }
    }

    /// Looks at these servers of a group, and at its Sentinels if `and_sentinels`.
    pub async fn look_at(&mut self, name: &str, servers: &[String], and_sentinels: bool) {
        let Some(at) = self.groups.iter().position(|group| group.name == name) else { return };
        let sentinels = async { if and_sentinels { self.ask_sentinels(at).await } else { Vec::new() } };
        let asked_at = self.now();
        let (views, states) = futures_util::future::join(sentinels, self.ask_servers(at, servers)).await;
        self.note_views(at, asked_at, views);
        self.note_states(at, asked_at, states);
    }

    async fn look_whole(&mut self, at: usize) {
        let asked_at = self.now();
        let views = self.ask_sentinels(at).await;
        self.note_views(at, asked_at, views);
        let mut asked: BTreeSet<String> = BTreeSet::new();
        // Whoever is named may name others: replicas that a Sentinel does not know, a primary that it has wrong.
        loop {
            let wanted: Vec<String> = self.known(at).into_iter().filter(|address| !asked.contains(address)).collect();
            if wanted.is_empty() {
                return;
            }
            let asked_at = self.now();
            let states = self.ask_servers(at, &wanted).await;
            self.note_states(at, asked_at, states);
            asked.extend(wanted);
        }
    }

    fn known(&self, at: usize) -> BTreeSet<String> {
        let group = &self.groups[at];
        let mut known: BTreeSet<String> = group.servers.iter().map(|server| server.address.clone()).collect();
        for view in group.sentinels.iter().filter_map(|sentinel| sentinel.view.as_ref()) {
            known.insert(view.value.primary.clone());
            known.extend(view.value.replicas.iter().map(|replica| replica.address.clone()));
        }
        for state in group.servers.iter().filter_map(|server| server.state.as_ref()) {
            match &state.value.role {
                Role::Primary(attached) => known.extend(attached.iter().map(|replica| replica.address.clone())),
                Role::Replica { of, .. } => {
                    known.insert(of.clone());
                }
            }
        }
        known.extend(self.further.iter().filter(|(name, _)| *name == group.name).map(|(_, address)| address.clone()));
        known
    }

    async fn ask_sentinels(&self, at: usize) -> Vec<Result<SentinelView, AskError>> {
        let group = &self.groups[at];
        let one = |sentinel: &SentinelSeen| {
            let (address, name) = (sentinel.address.clone(), group.name.clone());
            async move {
                let [named, primary, replicas] = ["GET-MASTER-ADDR-BY-NAME", "MASTER", "REPLICAS"].map(|about| {
                    let mut command = cmd("SENTINEL");
                    command.arg(about).arg(&name);
                    command
                });
                let mut info = cmd("INFO");
                info.arg("sentinel");
                let commands = [named, primary, replicas, info];
                let answers = self.doors.ask_all(Kind::Sentinel, &address, &commands).await?;
                let unknown = || AskError::Refused(format!("it does not watch {name}"));
                match answers.as_slice() {
                    [named, primary, replicas, info] => {
                        read::sentinel(named, primary, replicas, info).ok_or_else(unknown)
                    }
                    _ => Err(unknown()),
                }
            }
        };
        join_all(group.sentinels.iter().map(one)).await
    }

    async fn ask_servers(&self, at: usize, addresses: &[String]) -> Vec<(String, Result<ServerState, AskError>)> {
        let identity = self.doors.settings().keys(&self.groups[at].name).identity();
        let one = |address: &String| {
            let (address, identity) = (address.clone(), identity.clone());
            async move {
                let state = self.ask_server(&address, &identity).await;
                (address, state)
            }
        };
        join_all(addresses.iter().map(one)).await
    }

    /// Whose data a server has by its own word, and how many keys it holds. What it does not say is not taken for nothing.
    ///
    /// # Errors
    /// It does not answer, or may not.
    pub async fn holds(&self, address: &str) -> Result<(Option<String>, u64), AskError> {
        let group = self.groups.first().map(|group| group.name.as_str()).unwrap_or_default();
        let mut whose = cmd("HGET");
        whose.arg(self.doors.settings().keys(group).identity()).arg("id");
        let answers = self.doors.ask_all(Kind::Server, address, &[whose, cmd("DBSIZE")]).await?;
        match answers.as_slice() {
            [Value::ServerError(error), _] | [_, Value::ServerError(error)] => {
                Err(AskError::Refused(crate::doors::words(error)))
            }
            [whose, Value::Int(keys)] => {
                let whose = Some(read::text(whose)).filter(|whose| !whose.is_empty());
                Ok((whose, u64::try_from(*keys).unwrap_or_default()))
            }
            _ => Err(AskError::Refused("it does not answer as a Redis server does".to_owned())),
        }
    }

    async fn ask_server(&self, address: &str, identity: &str) -> Result<ServerState, AskError> {
        let config = |name: &str| {
            let mut command = cmd("CONFIG");
            command.arg("GET").arg(name);
            command
        };
        let mut whose = cmd("HGET");
        whose.arg(identity).arg("id");
        let commands = [
            cmd("ROLE"),
            cmd("INFO"),
            whose,
            cmd("DBSIZE"),
            config("replica-priority"),
            config("repl-backlog-size"),
            config("client-output-buffer-limit"),
        ];
        let answers = self.doors.ask_all(Kind::Server, address, &commands).await?;
        let [role, info, identity, keys, config @ ..] = answers.as_slice() else {
            return Err(AskError::Unreachable("it does not answer everything".to_owned()));
        };
        if let Value::ServerError(error) = role {
            return Err(AskError::Refused(crate::doors::words(error)));
        }
        let answers = Answers { role, info, identity, keys, config };
        read::server(&answers).ok_or_else(|| AskError::Refused("it does not answer as a Redis server does".to_owned()))
    }

    /// A fact is as old as its question.
    fn note_views(&mut self, at: usize, now: Duration, views: Vec<Result<SentinelView, AskError>>) {
        for (sentinel, view) in self.groups[at].sentinels.iter_mut().zip(views) {
            match view {
                Ok(value) => {
                    sentinel.view = Some(Fact { value, seen_at: now });
                    sentinel.trouble = None;
                }
                Err(error) => {
                    // One that answers and does not know the group has no view of it any more.
                    if matches!(error, AskError::Refused(_)) {
                        sentinel.view = None;
                    }
                    sentinel.trouble = Some(error.to_string());
                }
            }
        }
    }

    fn note_states(&mut self, at: usize, now: Duration, states: Vec<(String, Result<ServerState, AskError>)>) {
        for (address, state) in states {
            let server = self.groups[at].server_mut(&address);
            match state {
                Ok(state) => server.note(now, state),
                Err(error) => server.trouble = Some(error.to_string()),
            }
        }
    }
}
