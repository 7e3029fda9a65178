//! A group as a whole: its primary, its copies, whose data they are, and what the health of it says.

use std::time::Duration;

use super::facts::{Arrangement, Deployment, GroupFacts, MapFacts, tool};
use super::{Findings, Id, Weight};
use crate::health::{self, State};

pub(super) fn examine(now: Duration, deployment: &Deployment, group: &GroupFacts, findings: &mut Findings<'_>) {
    for state in health::judge(now, &group.seen) {
        of_state(now, group, &state, findings);
    }
    copies(now, deployment, group, findings);
    promotable(now, group, findings);
    data(now, deployment, group, findings);
    versions(group, findings);
    capacity(deployment, group, findings);
}

fn weight(state: &State) -> Weight {
    if state.weight() == health::Weight::Grave { Weight::Grave } else { Weight::Warning }
}

fn of_state(now: Duration, group: &GroupFacts, state: &State, findings: &mut Findings<'_>) {
    let (id, fix) = match state {
        // Sentinels have a file of their own, and so has memory.
        State::InSync { .. } | State::SentinelsDisagree { .. } | State::NearMemoryLimit { .. } => return,
        State::Unseen { address, .. } if group.seen.server(address).is_none() => return,
        // The one server there is does not answer: that is all there is to say.
        State::NoPrimary if group.seen.sentinels.is_empty() && group.seen.servers.iter().all(|it| it.fresh(now).is_none()) => {
            return;
        }
        State::Unseen { address, .. } => (
            Id::ServerUnreachable,
            format!("start it, or see what keeps this machine from it: {} PING", tool(address)),
        ),
        State::NoPrimary => (
            Id::NoPrimary,
            "start a server of the group that has its data; if one runs, see what the Sentinels say of it".to_owned(),
        ),
        State::ReplicaMissing { .. } => {
            let listed = group.seen.primary(now).map_or_else(|| "redis-cli".to_owned(), |primary| tool(&primary.address));
            (Id::ReplicaMissing, format!("start the replica that is away, or add one; see who is online: {listed} INFO replication"))
        }
        State::ResyncLoop { .. } => (
            Id::ResyncLoop,
            match group.seen.primary(now) {
                Some(primary) => super::buffers::larger(&primary.address, None),
                None => "raise client-output-buffer-limit replica and repl-backlog-size with CONFIG SET".to_owned(),
            },
        ),
        State::LinkSaturated { .. } => (
            Id::LinkSaturated,
            "add nothing to this group; take a replica away, move channels to another group, or give the primary a faster line"
                .to_owned(),
        ),
        State::Lagging { address, .. } => {
            (Id::ReplicaLagging, format!("wait; if it does not catch up, its line or its processor is too slow: {} INFO", tool(address)))
        }
        State::StrayPrimary { address } => {
            let follow = group.seen.named(now).and_then(|primary| primary.rsplit_once(':'));
            let (host, port) = follow.unwrap_or(("HOST", "PORT"));
            (Id::StrayPrimary, format!("{} REPLICAOF {host} {port}", tool(address)))
        }
        State::WrongIdentity { .. } => (
            Id::WrongIdentity,
            "take it out of this group: name the right server to the Sentinels (SENTINEL REMOVE, then MONITOR), or correct \
             backbone.groups and backbone.deployment"
                .to_owned(),
        ),
    };
    let weight = match state {
        // A replica less is a copy less; the primary's absence is another finding.
        State::Unseen { address, .. } if group.seen.named(now) != Some(address) => Weight::Warning,
        State::Unseen { .. } | State::ReplicaMissing { online: 0, .. } => Weight::Grave,
        State::ReplicaMissing { .. } => Weight::Warning,
        state => weight(state),
    };
    findings.add(id, weight, state.to_string(), fix);
}

fn copies(now: Duration, deployment: &Deployment, group: &GroupFacts, findings: &mut Findings<'_>) {
    if deployment.arrangement == Arrangement::Single || group.seen.expected_replicas(now) > 0 {
        return;
    }
    if let Some(primary) = group.seen.primary(now)
        && primary.fresh(now).is_some_and(|state| state.online().count() == 0)
    {
        let (host, port) = primary.address.rsplit_once(':').unwrap_or(("HOST", "PORT"));
        findings.grave(
            Id::NoReplica,
            format!("{} is the only copy: nobody can take its place when it is lost", primary.address),
            format!("start two more servers with --replicaof \"{host} {port}\""),
        );
    }
}

fn promotable(now: Duration, group: &GroupFacts, findings: &mut Findings<'_>) {
    let Some(primary) = group.seen.primary(now) else { return };
    let replicas = group.seen.replicas_of(now, &primary.address);
    let priorities: Vec<(&str, u32)> = { replicas.iter() }
        .filter_map(|replica| Some((replica.address.as_str(), replica.fresh(now)?.priority)))
        .collect();
    if priorities.is_empty() || priorities.iter().any(|(_, priority)| *priority > 0) {
        return;
    }
    let fix = priorities.iter().map(|(address, _)| format!("{} CONFIG SET replica-priority 100", tool(address)));
    findings.grave(
        Id::NoPromotableReplica,
        format!(
            "replica-priority is 0 on every replica that answers ({}): there will be no failover",
            names(&priorities)
        ),
        fix.collect::<Vec<_>>().join("\n"),
    );
}

fn names(priorities: &[(&str, u32)]) -> String {
    priorities.iter().map(|(address, _)| *address).collect::<Vec<_>>().join(", ")
}

fn data(now: Duration, deployment: &Deployment, group: &GroupFacts, findings: &mut Findings<'_>) {
    let Some(primary) = group.seen.primary(now) else { return };
    let identity = primary.fresh(now).and_then(|state| state.identity.as_ref());
    if identity.is_none() && deployment.arrangement != Arrangement::RedisCluster {
        findings.advise(
            Id::NoIdentity,
            format!(
                "{} has no data of {}: no node has used it yet, or it was started empty",
                primary.address, group.seen.identity
            ),
            "start a node; if nodes run, read their logs for why they refuse this server",
        );
    }
    let Some(data) = &group.data else { return };
    match (&data.map, &data.groups) {
        (Some(map), _) => mapped(deployment, map, findings),
        (None, Some(stored)) if *stored != deployment.groups_configured => findings.grave(
            Id::GroupsDiffer,
            format!(
                "{} was taken into use with the groups {stored}, and here {} are configured: a node with this configuration \
                 is refused",
                primary.address, deployment.groups_configured
            ),
            format!("set backbone.groups to {stored} (backbone.shares in Redis Cluster), or move slots: fulmar redis reshard"),
        ),
        _ => {}
    }
}

fn mapped(deployment: &Deployment, map: &MapFacts, findings: &mut Findings<'_>) {
    let configured: Vec<&str> = deployment.groups_configured.split(',').collect();
    let further: Vec<&str> =
        { map.groups.iter() }.map(String::as_str).filter(|name| !configured.contains(name)).collect();
    if !further.is_empty() {
        findings.warn(
            Id::GroupsDiffer,
            format!(
                "the slot map names {}, which is not configured here: nodes follow it all the same, and it is not looked at",
                further.join(", ")
            ),
            "add it to backbone.groups",
        );
    }
    if map.moving > 0 && !map.is_worked_on {
        findings.warn(
            Id::MoveInterrupted,
            format!("{} slots are on their way from one group to another, and nobody moves them", map.moving),
            "fulmar redis reshard resume, or fulmar redis reshard abort",
        );
    }
}

fn versions(group: &GroupFacts, findings: &mut Findings<'_>) {
    let said =
        |server: &super::facts::ServerFacts| server.version().map(|(product, version)| format!("{product} {version}"));
    let mut versions: Vec<String> = group.servers.iter().filter_map(said).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        let each = group.servers.iter().filter_map(|server| Some(format!("{} runs {}", server.address, said(server)?)));
        findings.warn(
            Id::RedisVersionsDiffer,
            format!("{}: an older server cannot take the data of a newer one", each.collect::<Vec<_>>().join(", ")),
            "bring all to one version, the replicas first",
        );
    }
}

fn capacity(deployment: &Deployment, group: &GroupFacts, findings: &mut Findings<'_>) {
    if deployment.arrangement != Arrangement::Sentinel {
        return;
    }
    let granted = &group.seen.capacity;
    let name = &group.seen.name;
    let missing: Vec<&str> = [
        ("link_mbit", granted.link_mbit.is_none()),
        ("replicas", granted.replicas.is_none()),
        ("memory_mb", granted.memory_mb.is_none()),
    ]
    .into_iter()
    .filter_map(|(key, is_missing)| is_missing.then_some(key))
    .collect();
    if !missing.is_empty() {
        findings.advise(
            Id::CapacityUnknown,
            format!(
                "{} of {name} is not written: what follows from it is not judged here, and verbs that need it refuse",
                missing.join(", ")
            ),
            format!("[backbone.group.{name}]\nlink_mbit = 1000\nreplicas = 2\nmemory_mb = 2048"),
        );
    }
}
