//! What `fulmar doctor` looks at beyond what every verb does. It asks and changes nothing.
//!
//! Every group has a watcher of its own, all at once, so that one that hangs delays no other. There are two looks, because one
//! has no rates and cannot tell a lease that stands from one that lives. Every question has a bound, and so has the whole.

mod data;
pub mod files;
mod redis_cluster;
mod servers;
mod shown;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fulmar_backbone::redis::settings::{Settings, Topology};
use fulmar_control::doctor::facts::{Arrangement, Deployment, GroupFacts, ServerFacts};
use fulmar_control::observed::{Capacity, GroupSeen};
use futures_util::future::join_all;
use redis::{Value, cmd};

use crate::doors::Kind;
use crate::watch::Watcher;

/// Between the beginnings of two looks: three renewals of a lease.
const BETWEEN: Duration = Duration::from_millis(1_500);
/// Before the third look: with the time between the first two, longer than any node is silent.
const ONCE_MORE: Duration = Duration::from_secs(2);
/// A third look at leases that seem to stand does not begin later than this.
const THIRD_BEFORE: Duration = Duration::from_secs(6);

/// One group while it is looked at.
struct Patient {
    watcher: Watcher,
    /// What it is called; in Redis Cluster after its primary.
    name: String,
    /// The groups whose records lie there: itself, or shares of a Redis Cluster.
    shares: Vec<String>,
    leases: data::Leases,
    data: Option<data::Read>,
}

/// Looks at everything that these settings name. Answers the facts, and the moment to judge them by.
pub async fn look(settings: &Settings, capacities: &BTreeMap<String, Capacity>) -> (Duration, Deployment) {
    let begun = Instant::now();
    let (mut patients, shares_of_nobody) = patients(settings, capacities).await;
    let looks = patients.iter_mut().map(|patient| patient.first_look(settings));
    join_all(looks).await;
    tokio::time::sleep(BETWEEN.saturating_sub(begun.elapsed())).await;
    // What is asked from here on is fresh; a server that hangs must not make the others look old.
    let now = patients.first().map(|patient| patient.watcher.now()).unwrap_or_default();
    let looks = patients.iter_mut().map(|patient| patient.second_look(settings));
    let groups = join_all(looks).await;
    if patients.iter().any(|patient| patient.leases.any_stands()) && begun.elapsed() < THIRD_BEFORE {
        tokio::time::sleep(ONCE_MORE).await;
        join_all(patients.iter_mut().map(|patient| patient.look_at_leases(settings, now))).await;
    }
    let nodes = data::nodes(patients.iter().map(|patient| &patient.leases));
    let arrangement = match settings.topology {
        Topology::Single(_) => Arrangement::Single,
        Topology::Sentinel { .. } => Arrangement::Sentinel,
        Topology::RedisCluster { .. } => Arrangement::RedisCluster,
    };
    let groups_configured = settings.topology.groups().join(",");
    (now, Deployment { arrangement, groups_configured, groups, shares_of_nobody, nodes, ..Deployment::default() })
}

/// Whom to look at, and shares of a Redis Cluster that lie with none of them.
async fn patients(settings: &Settings, capacities: &BTreeMap<String, Capacity>) -> (Vec<Patient>, Vec<(String, u16)>) {
    let patient = |topology: Topology, name: String, shares: Vec<String>| Patient {
        watcher: Watcher::new(&Settings { topology, ..settings.clone() }, capacities),
        name,
        shares,
        leases: data::Leases::default(),
        data: None,
    };
    let mut of_nobody = Vec::new();
    let patients = match &settings.topology {
        Topology::Single(address) => {
            vec![patient(Topology::Single(address.clone()), "single".to_owned(), settings.topology.groups())]
        }
        Topology::Sentinel { sentinels, .. } => {
            let group = |name: String| {
                let topology = Topology::Sentinel { sentinels: sentinels.clone(), groups: vec![name.clone()] };
                patient(topology, name.clone(), vec![name])
            };
            settings.topology.groups().into_iter().map(group).collect()
        }
        Topology::RedisCluster { seeds, shares } => {
            let owners = redis_cluster::owners(settings, seeds, *shares).await;
            let group = |(address, shares): (String, Vec<String>)| {
                patient(Topology::Single(address.clone()), format!("of {address}"), shares)
            };
            of_nobody = owners.of_nobody;
            owners.shares.into_iter().map(group).collect()
        }
    };
    (patients, of_nobody)
}

/// What everybody of a group shows, those who do not answer included: a certificate that has ended is why they do not.
async fn shown(settings: &Settings, group: &GroupSeen) -> Vec<(String, i64)> {
    if settings.tls.is_none() {
        return Vec::new();
    }
    let servers = group.servers.iter().map(|server| server.address.clone());
    let sentinels = group.sentinels.iter().map(|sentinel| sentinel.address.clone());
    shown::look(&servers.chain(sentinels).collect::<Vec<_>>()).await
}

impl Patient {
    async fn first_look(&mut self, settings: &Settings) {
        self.watcher.look().await;
        let now = self.watcher.now();
        self.look_at_data(settings, now).await;
    }

    async fn second_look(&mut self, settings: &Settings) -> GroupFacts {
        let now = self.watcher.now();
        self.watcher.look().await;
        let before = self.data.take();
        let watcher = &self.watcher;
        let Some(group) = watcher.groups().first() else { return GroupFacts::default() };
        let answering: Vec<String> = { group.servers.iter() }
            .filter(|server| server.fresh(now).is_some())
            .map(|server| server.address.clone())
            .collect();
        let servers = answering.iter().map(|address| servers::look(watcher.doors(), settings, address));
        let (servers, unwatched_by, certificates) =
            futures_util::future::join3(join_all(servers), self.unwatched_by(), shown(settings, group)).await;
        self.look_at_data(settings, now).await;
        let listeners = servers.iter().map(|(_, listeners)| *listeners).max().unwrap_or_default();
        let mut seen = self.watcher.groups().first().cloned().unwrap_or_default();
        seen.name.clone_from(&self.name);
        let mut servers: Vec<ServerFacts> = servers.into_iter().map(|(server, _)| server).collect();
        if let (Some(read), Some(primary)) = (&self.data, seen.primary(now)) {
            let refused = read.refused.iter().cloned();
            { servers.iter_mut() }.filter(|server| server.address == primary.address).for_each(|server| {
                server.refused.extend(refused.clone());
            });
        }
        GroupFacts {
            seen,
            servers,
            unwatched_by,
            certificates,
            data: self.data.take().map(|read| read.facts(before, listeners)),
        }
    }

    async fn look_at_leases(&mut self, settings: &Settings, now: Duration) {
        let data = self.data.take();
        self.look_at_data(settings, now).await;
        self.data = data;
    }

    async fn look_at_data(&mut self, settings: &Settings, now: Duration) {
        let Some(group) = self.watcher.groups().first() else { return };
        let Some(primary) = group.primary(now).map(|primary| primary.address.clone()) else { return };
        let mut all: Option<data::Read> = None;
        for share in &self.shares {
            let keys = settings.keys(share);
            let Some((read, leases)) = data::read(self.watcher.doors(), &primary, (share, &keys)).await else {
                continue;
            };
            self.leases.note(leases);
            all = Some(match all {
                None => read,
                Some(before) => before.and(read),
            });
        }
        self.data = all;
    }

    /// Sentinels that answer and do not watch the group.
    async fn unwatched_by(&self) -> Vec<String> {
        let Some(group) = self.watcher.groups().first() else { return Vec::new() };
        let silent = group.sentinels.iter().filter(|sentinel| sentinel.trouble.is_some());
        let asked = silent.map(|sentinel| async {
            let mut command = cmd("SENTINEL");
            command.arg("GET-MASTER-ADDR-BY-NAME").arg(&group.name);
            let answer = self.watcher.doors().ask(Kind::Sentinel, &sentinel.address, &command).await;
            matches!(answer, Ok(Value::Nil)).then(|| sentinel.address.clone())
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}
