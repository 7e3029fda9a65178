//! What a primary keeps for those that are slow or away, against what that takes: the arithmetic of the resync loop.
//!
//! A full sync sends the whole dataset; what is written meanwhile must wait in the replica's output buffer. When the buffer's
//! limit is below (dataset / spare line) x write rate, the primary cuts the replica off, which starts over, for ever.

use std::time::Duration;

use super::facts::{Deployment, GroupFacts, ServerFacts, tool};
use super::{Findings, Id, Weight};
use crate::health::{LINK_PERCENT_MAX, bytes, line, rate};

/// Limits below these are not tried: hard, soft, and the seconds of the soft one.
const REPLICA_OUTPUT_MIN: [u64; 3] = [256 << 20, 128 << 20, 60];
/// For how long a replica may be away without needing everything.
const AWAY_S: u64 = 60;
/// A smaller backlog is not tried.
const BACKLOG_MIN: u64 = 64 << 20;
/// Room in a limit over what the arithmetic gives: rates of one look are not those of the next.
const ROOM: u64 = 2;
/// The least that a node may have waiting for it: a second of a lively group.
const PUBSUB_MIN: u64 = 8 << 20;
/// Connections of one node that wait for what a primary publishes: its topics, and the bus.
const SUBSCRIPTIONS: u64 = 2;
/// Share of its memory, in percent, that nodes which do not read may take.
const PUBSUB_PERCENT_MAX: u64 = 25;
/// What is written within this is the write rate.
const WINDOW: Duration = Duration::from_secs(10);

/// Replicas are held to the same: after a failover one of them is the primary.
pub(super) fn examine(
    now: Duration,
    deployment: &Deployment,
    group: &GroupFacts,
    server: &ServerFacts,
    findings: &mut Findings<'_>,
) {
    let Some(primary) = group.seen.primary(now) else { return };
    let written = primary.rate(now, WINDOW, |sample| sample.offset).unwrap_or_default();
    let dataset = primary.fresh(now).map(|state| state.figures.dataset_bytes).unwrap_or_default();
    let replicas = group.seen.expected_replicas(now);
    if replicas > 0 {
        replica_output(group, server, dataset, written, findings);
        backlog(server, written, findings);
        min_replicas(server, replicas, findings);
    } else {
        refuses_alone(server, findings);
    }
    pubsub(server, deployment.nodes.len().max(1) as u64, findings);
}

/// Bytes that are written during a full sync, and how long it takes; `None` when it would never end.
fn during_sync(group: &GroupFacts, dataset: u64, written: u64) -> Option<(u64, u64)> {
    let line = group.seen.capacity.link_mbit.map_or(line(1_000), line) / 100 * LINK_PERCENT_MAX;
    let replicas = group.seen.capacity.replicas.unwrap_or(2).max(1) as u64;
    let spare = line.checked_sub(written.saturating_mul(replicas)).filter(|spare| *spare > 0)?;
    // Milliseconds, because a second is a lot on a fast line.
    let takes_ms = dataset.saturating_mul(1_000) / spare;
    Some((takes_ms.saturating_mul(written) / 1_000, takes_ms))
}

fn replica_output(group: &GroupFacts, server: &ServerFacts, dataset: u64, written: u64, findings: &mut Findings<'_>) {
    let Some([hard, soft, soft_s]) = server.output_limit("replica") else { return };
    let address = &server.address;
    let assumed = if group.seen.capacity.link_mbit.is_none() { ", taking the line for 1,000 Mbit/s" } else { "" };
    let sum = format!("{} of data, {} written", bytes(dataset), rate(written));
    let Some((needed, takes_ms)) = during_sync(group, dataset, written) else {
        let what =
            format!("{address}: {sum}{assumed}: the streams alone fill the line, and a full sync would never end");
        return findings.grave(
            Id::ReplicaBufferTooSmall,
            what,
            "give the primary a faster line, or write less to this group: no buffer is large enough",
        );
    };
    let outlasts = |soft_s: u64| takes_ms / 1_000 >= soft_s;
    let is_below = |limit: u64, needed: u64| limit > 0 && limit < needed;
    let wanted = needed.saturating_mul(ROOM);
    let fix = larger(address, Some(wanted));
    if is_below(hard, wanted) || is_below(soft, wanted) && outlasts(soft_s) {
        let weight = if is_below(hard, needed) || is_below(soft, needed) && outlasts(soft_s) {
            Weight::Grave
        } else {
            Weight::Warning
        };
        let what = format!(
            "{address} lets {} wait for a replica ({} for {soft_s} s); {sum}{assumed}: a full sync takes {takes_ms} ms, in which \
             {} are written, and with room for twice that {} are needed: the replica would be cut off and synced again, for ever",
            bytes(hard),
            bytes(soft),
            bytes(needed),
            bytes(wanted)
        );
        return findings.add(Id::ReplicaBufferTooSmall, weight, what, fix);
    }
    let [hard_min, soft_min, seconds_min] = REPLICA_OUTPUT_MIN;
    if is_below(hard, hard_min) || is_below(soft, soft_min) || (soft > 0 && soft_s < seconds_min) {
        findings.warn(
            Id::ReplicaBufferTooSmall,
            format!(
                "{address} lets {} wait for a replica, {} for {soft_s} s: enough for now ({sum}), and less than the 256 MB, 128 MB \
                 for 60 s that an hour with more writes needs",
                bytes(hard),
                bytes(soft)
            ),
            fix,
        );
    }
}

/// Commands that raise what is kept for replicas, at once and without a restart.
pub(super) fn larger(address: &str, wanted: Option<u64>) -> String {
    let [hard, soft, seconds] = REPLICA_OUTPUT_MIN;
    let hard = hard.max(wanted.unwrap_or_default());
    format!(
        "{} CONFIG SET client-output-buffer-limit \"replica {hard} {} {seconds}\" repl-backlog-size {}",
        tool(address),
        soft.max(hard / 2),
        BACKLOG_MIN.max(wanted.unwrap_or_default())
    )
}

fn backlog(server: &ServerFacts, written: u64, findings: &mut Findings<'_>) {
    let Some(size) = server.number("repl-backlog-size") else { return };
    let needed = written.saturating_mul(AWAY_S);
    if size >= needed.max(BACKLOG_MIN) {
        return;
    }
    let weight = if size < needed { Weight::Grave } else { Weight::Warning };
    let lasts = match size.checked_div(written) {
        Some(seconds) => format!("at {} that is {seconds} s", rate(written)),
        None => "nothing is written now".to_owned(),
    };
    findings.add(
        Id::BacklogTooSmall,
        weight,
        format!(
            "{} keeps {} for replicas that come back: {lasts}; one that was away for longer, or a failover, takes a full sync",
            server.address,
            bytes(size)
        ),
        format!("{} CONFIG SET repl-backlog-size {}", server.tool(), needed.saturating_mul(ROOM).max(BACKLOG_MIN)),
    );
}

fn min_replicas(server: &ServerFacts, replicas: usize, findings: &mut Findings<'_>) {
    let (Some(to_write), Some(lag)) = (server.number("min-replicas-to-write"), server.number("min-replicas-max-lag"))
    else {
        return;
    };
    let address = &server.address;
    let fix =
        |to_write| format!("{} CONFIG SET min-replicas-to-write {to_write} min-replicas-max-lag 2", server.tool());
    let good = server.figure("min_slaves_good_slaves").filter(|_| server.is_primary());
    if let Some(good) = good.filter(|good| *good < to_write) {
        return findings.grave(
            Id::MinReplicas,
            format!("{address} wants {to_write} replicas that were heard from within {lag} s and has {good}: it refuses every write"),
            format!("bring replicas back; or, until then: {}", fix(good.min(1))),
        );
    }
    if (to_write == 0 || lag == 0) && replicas < 2 {
        return findings.advise(
            Id::MinReplicas,
            format!(
                "{address} takes writes without any replica, as it must with {replicas}: with two it could stop where it is cut off from \
                 its group, which bounds what must be appended again"
            ),
            format!("add a second replica, then: {}", fix(1)),
        );
    }
    if to_write == 0 || lag == 0 {
        return findings.warn(
            Id::MinReplicas,
            format!(
                "{address} takes writes without any replica: cut off from its group, as a primary that was hung wakes up, it goes \
                 on for as long as it is not told (10 s measured), and all of that must be appended again"
            ),
            fix(1),
        );
    }
    if lag > 2 {
        return findings.warn(
            Id::MinReplicas,
            format!("{address} has min-replicas-max-lag {lag}: cut off from its group it goes on taking writes for {lag} s; with 2 it was 2.3 s"),
            fix(1),
        );
    }
    if to_write >= replicas as u64 && to_write > 1 {
        findings.warn(
            Id::MinReplicas,
            format!("{address} wants {to_write} replicas of {replicas}: when one is lost it refuses every write"),
            fix(1),
        );
    }
}

/// Where there are no replicas, none may be wanted.
fn refuses_alone(server: &ServerFacts, findings: &mut Findings<'_>) {
    let wants = server.number("min-replicas-to-write").filter(|wants| *wants > 0);
    let lag = server.number("min-replicas-max-lag").filter(|lag| *lag > 0);
    if let (Some(wants), Some(_)) = (wants, lag)
        && server.figure("min_slaves_good_slaves").unwrap_or_default() < wants
    {
        findings.grave(
            Id::MinReplicas,
            format!("{} has no replica and wants {wants}: it refuses every write", server.address),
            format!("{} CONFIG SET min-replicas-to-write 0", server.tool()),
        );
    }
}

fn pubsub(server: &ServerFacts, nodes: u64, findings: &mut Findings<'_>) {
    let Some([hard, soft, soft_s]) = server.output_limit("pubsub") else { return };
    let (address, better) = (&server.address, "pubsub 16mb 8mb 10");
    let fix = format!("{} CONFIG SET client-output-buffer-limit \"{better}\"", server.tool());
    let least = [hard, soft].into_iter().filter(|limit| *limit > 0).min();
    if let Some(least) = least.filter(|least| *least < PUBSUB_MIN) {
        return findings.warn(
            Id::PubsubBufferTooSmall,
            format!(
                "{address} lets {} wait for a subscription ({soft_s} s for the soft limit): a node that is held up while publications \
                 are appended again is cut off, and must read the gap from the log",
                bytes(least)
            ),
            fix,
        );
    }
    let subscriptions = nodes * SUBSCRIPTIONS;
    let memory = server.figure("maxmemory").filter(|max| *max > 0);
    let at_most = hard.saturating_mul(subscriptions);
    if hard == 0 {
        return findings.warn(
            Id::PubsubBufferTooLarge,
            format!("{address} has no limit for what waits for a subscription: one that does not read fills the server, until publishers are refused"),
            fix,
        );
    }
    if let Some(memory) = memory.filter(|memory| at_most > memory / 100 * PUBSUB_PERCENT_MAX) {
        findings.warn(
            Id::PubsubBufferTooLarge,
            format!(
                "{address} lets {} wait for each of {subscriptions} subscriptions of {nodes} nodes, {} in all of a memory of {}: a few nodes that hang can \
                 take it down",
                bytes(hard),
                bytes(at_most),
                bytes(memory)
            ),
            format!("{fix}\n{} CONFIG SET maxmemory-clients 10%", server.tool()),
        );
    }
}
