//! A server by itself: settings and figures that need no other to be judged.

use super::facts::{Deployment, ServerFacts};
use super::{Findings, Id, Weight};
use crate::health::bytes;

/// The oldest release with what the scripts need: functions of `#!lua` scripts and ids that count by themselves.
const REDIS_MIN: (u64, u64) = (7, 0);
/// The oldest release of Valkey that was tried.
const VALKEY_MIN: (u64, u64) = (8, 0);
/// Share of the connections in use, in percent, from which on it is said, and from which on it is grave.
const CONNECTIONS_PERCENT: [u64; 2] = [50, 85];
/// Nodes close nothing that is quiet; anything above an hour is as good as none.
const IDLE_TIMEOUT_MAX: u64 = 3_600;
/// Below this an ordinary moment of a busy machine makes a script seem stuck.
const BUSY_MIN_MS: u64 = 1_000;
/// A command of so long holds up a heartbeat; publications take the bus meanwhile.
pub const SLOW_MS: u64 = 100;

pub(super) fn examine(deployment: &Deployment, server: &ServerFacts, findings: &mut Findings<'_>) {
    if !server.refused.is_empty() {
        findings.advise(
            Id::LookIncomplete,
            format!("{} does not answer everything: {}", server.address, server.refused.join("; ")),
            "take a user who may, for this look (--set backbone.user=NAME): +config|get +slowlog|get +pubsub|numsub +cluster|info \
             +cluster|nodes +dbsize +xlen +llen",
        );
    }
    age(server, findings);
    writable(server, findings);
    persistence(server, findings);
    connections(deployment, server, findings);
    if let Some(idle) = server.number("timeout").filter(|idle| (1..IDLE_TIMEOUT_MAX).contains(idle)) {
        findings.warn(
            Id::IdleTimeout,
            format!(
                "{} closes connections that are quiet for {idle} s, and nodes make them anew when they are needed most",
                server.address
            ),
            format!("{} CONFIG SET timeout 0", server.tool()),
        );
    }
    let busy = server.number("busy-reply-threshold").or_else(|| server.number("lua-time-limit"));
    if let Some(busy) = busy.filter(|busy| (1..BUSY_MIN_MS).contains(busy)) {
        findings.warn(
            Id::BusyReplyThreshold,
            format!(
                "{} answers BUSY to everybody when a script takes {busy} ms, which on a busy machine one may",
                server.address
            ),
            format!("{} CONFIG SET busy-reply-threshold 5000", server.tool()),
        );
    }
    slow(server, findings);
}

fn age(server: &ServerFacts, findings: &mut Findings<'_>) {
    let Some((product, version)) = server.version() else { return };
    let mut parts = version.split('.').map_while(|part| part.parse::<u64>().ok());
    let (Some(major), minor) = (parts.next(), parts.next().unwrap_or_default()) else { return };
    let least = if product == "Valkey" { VALKEY_MIN } else { REDIS_MIN };
    if (major, minor) < least {
        findings.grave(
            Id::RedisTooOld,
            format!(
                "{} runs {product} {version}: nodes need {product} {}.{} at least",
                server.address, least.0, least.1
            ),
            "replace it by a newer one, replicas first",
        );
    }
}

fn writable(server: &ServerFacts, findings: &mut Findings<'_>) {
    if !server.is_primary() && server.setting("replica-read-only") == Some("no") {
        findings.warn(
            Id::ReplicaWritable,
            format!("{} is a replica and takes writes of its own: what is written there is nowhere else, and differs from then on", server.address),
            format!("{} CONFIG SET replica-read-only yes", server.tool()),
        );
    }
}

fn persistence(server: &ServerFacts, findings: &mut Findings<'_>) {
    let address = &server.address;
    let has_aof = server.word("aof_enabled") == Some("1");
    let snapshots = server.setting("save").is_some_and(|save| !save.is_empty());
    let failed = |name: &str| server.word(name).is_some_and(|status| status != "ok");
    let stops = snapshots && server.setting("stop-writes-on-bgsave-error") == Some("yes");
    let mut what = Vec::new();
    if failed("rdb_last_bgsave_status") {
        what.push("its last snapshot failed");
    }
    if has_aof && failed("aof_last_write_status") {
        what.push("it could not write its append-only file");
    }
    if has_aof && failed("aof_last_bgrewrite_status") {
        what.push("it could not rewrite its append-only file");
    }
    if !what.is_empty() {
        let refuses = stops && failed("rdb_last_bgsave_status") || has_aof && failed("aof_last_write_status");
        let (weight, so) =
            if refuses { (Weight::Grave, ", and until it can it refuses every write") } else { (Weight::Warning, "") };
        let folder = server.setting("dir").unwrap_or("its folder");
        findings.add(
            Id::PersistenceFailing,
            weight,
            format!("{address}: {}{so}", what.join(", and ")),
            format!("make room in {folder}, or mend who may write there, then: {} BGSAVE", server.tool()),
        );
    }
    if let Some(disk) = server.disk.as_ref().filter(|disk| disk.total_bytes > 0 && (snapshots || has_aof)) {
        let needed = server.figure("used_memory").unwrap_or_default();
        if disk.free_bytes < needed {
            let so = if stops { "; when that fails it refuses every write" } else { "" };
            findings.add(
                Id::PersistenceDiskSpace,
                if stops { Weight::Grave } else { Weight::Warning },
                format!(
                    "{address} writes its data ({}) to {}, where {} are free: the next snapshot or rewrite may not fit{so}",
                    bytes(needed),
                    disk.folder,
                    bytes(disk.free_bytes)
                ),
                format!("make room there; or keep nothing on disk: {} CONFIG SET save \"\" appendonly no", server.tool()),
            );
        }
    }
    if has_aof && server.setting("appendfsync") == Some("always") {
        findings.advise(
            Id::AppendfsyncAlways,
            format!("{address} waits for its disk at every write; nodes keep what they published for 30 s and need no more than everysec"),
            format!("{} CONFIG SET appendfsync everysec", server.tool()),
        );
    }
}

fn connections(deployment: &Deployment, server: &ServerFacts, findings: &mut Findings<'_>) {
    let (Some(used), Some(max)) = (server.figure("connected_clients"), server.figure("maxclients")) else { return };
    let rejected = server.figure("rejected_connections").unwrap_or_default();
    let percent = used.saturating_mul(100) / max.max(1);
    let [warn, grave] = CONNECTIONS_PERCENT;
    if percent < warn && rejected == 0 {
        return;
    }
    let mut what = format!(
        "{} has {used} connections of {max} ({percent}%), with {} nodes",
        server.address,
        deployment.nodes.len()
    );
    if rejected > 0 {
        what.push_str(&format!(", and has refused {rejected} since its start"));
    }
    what.push_str("; after a failover old and new ones are open at once");
    let better = used.saturating_mul(4).max(10_000);
    findings.add(
        Id::Maxclients,
        if percent >= grave { Weight::Grave } else { Weight::Warning },
        what,
        format!(
            "{} CONFIG SET maxclients {better}; if it refuses, raise its limit of open files (ulimit -n) first",
            server.tool()
        ),
    );
}

fn slow(server: &ServerFacts, findings: &mut Findings<'_>) {
    let Some(worst) = server.slow.iter().max_by_key(|command| command.took) else { return };
    let mut names: Vec<&str> = server.slow.iter().map(|command| command.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    findings.warn(
        Id::SlowCommands,
        format!(
            "{}: {} commands of the last hour took {SLOW_MS} ms or more ({}), the slowest {} ms: everybody waits meanwhile",
            server.address,
            server.slow.len(),
            names.join(", "),
            worst.took.as_millis()
        ),
        format!("see who asks that: {} SLOWLOG GET 32; an EVALSHA is a node's, and means a slow machine", server.tool()),
    );
}
