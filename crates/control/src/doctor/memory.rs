//! Memory of a group's servers: that there is a limit, that nothing is thrown away, and that it does not run out.

use std::time::Duration;

use super::facts::{GroupFacts, ServerFacts, tool};
use super::{Findings, Id, Weight};
use crate::health::{MEMORY_PERCENT, bytes};

pub(super) fn examine(now: Duration, group: &GroupFacts, server: &ServerFacts, findings: &mut Findings<'_>) {
    policy(server, findings);
    limit(now, group, server, findings);
}

fn policy(server: &ServerFacts, findings: &mut Findings<'_>) {
    let Some(policy) = server.setting("maxmemory-policy").or_else(|| server.word("maxmemory_policy")) else { return };
    if policy == "noeviction" {
        return;
    }
    let evicted = server.figure("evicted_keys").unwrap_or_default();
    let limited = server.figure("maxmemory").unwrap_or_default() > 0;
    let so_far = if evicted > 0 { format!("; {evicted} keys went that way since its start") } else { String::new() };
    let (weight, when) = if limited || evicted > 0 {
        (Weight::Grave, "when memory is full")
    } else {
        (Weight::Warning, "as soon as it gets a maxmemory")
    };
    findings.add(
        Id::MaxmemoryPolicy,
        weight,
        format!(
            "{} has maxmemory-policy {policy}: {when} it throws logs, leases and presence away{so_far}",
            server.address
        ),
        format!("{} CONFIG SET maxmemory-policy noeviction", server.tool()),
    );
}

fn limit(now: Duration, group: &GroupFacts, server: &ServerFacts, findings: &mut Findings<'_>) {
    let Some(max) = server.figure("maxmemory") else { return };
    let (used, machine) = (server.figure("used_memory").unwrap_or_default(), server.figure("total_system_memory"));
    let granted = group.seen.capacity.memory_mb.map(|mb| mb << 20);
    if max == 0 {
        let better = granted.or(machine.map(|all| all / 2)).unwrap_or(1 << 30);
        findings.warn(
            Id::MaxmemoryUnset,
            format!(
                "{} has no maxmemory and uses {}: slow readers and a full log can take the whole machine, and the system ends it",
                server.address,
                bytes(used)
            ),
            format!("{} CONFIG SET maxmemory {}mb", server.tool(), better >> 20),
        );
    }
    let Some(limit) = Some(max).filter(|max| *max > 0).or(granted).filter(|limit| *limit > 0) else { return };
    let percent = used.saturating_mul(100) / limit;
    let [warn, grave] = MEMORY_PERCENT;
    if percent < warn {
        return;
    }
    let role = if group.seen.primary(now).is_some_and(|primary| primary.address == server.address) {
        "when it is full publishes are answered 503"
    } else {
        "when it is full it cannot follow, and cannot take the primary's place"
    };
    findings.add(
        Id::MemoryNearLimit,
        if percent >= grave { Weight::Grave } else { Weight::Warning },
        format!("{} uses {} of {} ({percent}%): {role}", server.address, bytes(used), bytes(limit)),
        format!(
            "{} CONFIG SET maxmemory {}mb, if the machine has it; or shorten backbone.log_age_s, or add a group",
            tool(&server.address),
            (limit / 2 * 3) >> 20
        ),
    );
}
