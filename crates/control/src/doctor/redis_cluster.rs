//! What only Redis Cluster has.

use super::facts::{Arrangement, Deployment, ServerFacts};
use super::{Area, Finding, Findings, Id};

/// A primary that is dead is replaced after this and a little; 2 s was measured to take 3.2 to 4.5 s in all.
const NODE_TIMEOUT_MAX_MS: u64 = 5_000;

/// What no server has belongs to no group.
pub(super) fn examine_shares(deployment: &Deployment, made: &mut Vec<Finding>) {
    let of_nobody: Vec<String> =
        { deployment.shares_of_nobody.iter() }.map(|(share, slot)| format!("slot {slot} (share {share})")).collect();
    if !of_nobody.is_empty() {
        let server = deployment.groups.iter().flat_map(|group| &group.servers).next();
        let fix = server.map_or_else(String::new, |server| format!(": redis-cli --cluster fix {}", server.address));
        let mut findings = Findings { area: Area::Group("of nobody".to_owned()), server: None, made };
        findings.grave(
            Id::ClusterSlots,
            format!("no server of Redis Cluster has {}: those shares are away", of_nobody.join(", ")),
            format!("bring back the server that had it, or give it to another{fix}"),
        );
    }
}

pub(super) fn examine(deployment: &Deployment, server: &ServerFacts, findings: &mut Findings<'_>) {
    if deployment.arrangement == Arrangement::RedisCluster && server.word("cluster_enabled") == Some("0") {
        findings.grave(
            Id::ClusterDisabled,
            format!("{} is no server of a Redis Cluster (cluster-enabled no)", server.address),
            "name servers of one in backbone.addresses, or set backbone.topology",
        );
    }
    if server.word("cluster_enabled") == Some("1") {
        let address = &server.address;
        if let Some(state) = server.word("cluster_state").filter(|state| *state != "ok") {
            let covered = server.word("cluster_slots_ok").unwrap_or("?");
            findings.grave(
                Id::ClusterState,
                format!(
                    "{address} says that Redis Cluster is in state {state}, with {covered} of 16384 slots in order"
                ),
                format!("bring back the primary that is missing, or a replica of it: {} CLUSTER NODES", server.tool()),
            );
        }
        if server.setting("cluster-require-full-coverage") == Some("yes") {
            findings.warn(
                Id::ClusterFullCoverage,
                format!("{address} stops serving all slots when one is lost: one share's fault becomes everybody's"),
                format!("{} CONFIG SET cluster-require-full-coverage no", server.tool()),
            );
        }
        if let Some(timeout) = server.number("cluster-node-timeout").filter(|timeout| *timeout > NODE_TIMEOUT_MAX_MS) {
            findings.warn(
                Id::ClusterNodeTimeout,
                format!("{address} waits {timeout} ms before it calls another dead: a failover takes that and about two seconds"),
                format!("{} CONFIG SET cluster-node-timeout 2000", server.tool()),
            );
        }
    }
}
