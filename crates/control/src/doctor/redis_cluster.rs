//! What only Redis Cluster has.

use super::facts::ServerFacts;
use super::{Findings, Id};

/// A primary that is dead is replaced after this and a little; 2 s was measured to take 3.2 to 4.5 s in all.
const NODE_TIMEOUT_MAX_MS: u64 = 5_000;

pub(super) fn examine(server: &ServerFacts, findings: &mut Findings<'_>) {
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
