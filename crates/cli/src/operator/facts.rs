//! Groups as JSON: every fact with its age, and what it means.

use std::time::Duration;

use fulmar_control::health::{WINDOW, Weight, judge};
use fulmar_control::observed::{GroupSeen, ReplicaLink, Role, SentinelSeen, ServerSeen};
use serde_json::{Value, json};

/// One line with all groups.
pub fn line(now: Duration, groups: &[GroupSeen]) -> String {
    let groups: Vec<Value> = groups.iter().map(|seen| group(now, seen)).collect();
    format!("{}\n", json!({ "groups": groups }))
}

/// One group.
pub fn group(now: Duration, seen: &GroupSeen) -> Value {
    let states: Vec<Value> = judge(now, seen)
        .iter()
        .map(|state| {
            let weight = match state.weight() {
                Weight::Fine => "fine",
                Weight::Warning => "warning",
                Weight::Grave => "grave",
            };
            json!({ "state": state.name(), "weight": weight, "what": state.to_string() })
        })
        .collect();
    json!({
        "name": seen.name,
        "identity": seen.identity,
        "primary": seen.primary(now).map(|primary| primary.address.as_str()),
        "copies": seen.copies(now),
        "expected_replicas": seen.expected_replicas(now),
        "states": states,
        "servers": seen.servers.iter().map(|server| of_server(now, server)).collect::<Vec<_>>(),
        "sentinels": seen.sentinels.iter().map(|sentinel| of_sentinel(now, sentinel)).collect::<Vec<_>>(),
    })
}

fn of_server(now: Duration, seen: &ServerSeen) -> Value {
    let mut out = json!({ "address": seen.address, "trouble": seen.trouble });
    let Some(fact) = &seen.state else { return out };
    let (state, figures) = (&fact.value, &fact.value.figures);
    out["age_ms"] = millis(fact.age(now));
    out["role"] = if state.is_primary() { "primary" } else { "replica" }.into();
    match &state.role {
        Role::Primary(attached) => {
            out["replicas_connected"] = attached.len().into();
            out["replicas_online"] = state.online().collect::<Vec<_>>().into();
        }
        Role::Replica { of, link } => {
            out["follows"] = of.as_str().into();
            out["link"] = match link {
                ReplicaLink::Connected => "connected",
                ReplicaLink::Syncing => "syncing",
                ReplicaLink::Down => "down",
            }
            .into();
        }
    }
    out["run"] = state.run.as_str().into();
    out["version"] = state.version.as_str().into();
    out["identity"] = state.identity.as_deref().into();
    out["offset"] = state.offset.into();
    out["priority"] = state.priority.into();
    out["used_bytes"] = figures.used_bytes.into();
    out["max_bytes"] = figures.max_bytes.into();
    out["full_syncs"] = figures.full_syncs.into();
    out["waiting_bytes"] = figures.waiting_bytes.into();
    out["writes_bytes_per_s"] = seen.rate(now, WINDOW, |sample| sample.offset).into();
    out["sends_bytes_per_s"] = seen.rate(now, WINDOW, |sample| sample.figures.sent_bytes).into();
    out
}

fn of_sentinel(now: Duration, seen: &SentinelSeen) -> Value {
    let mut out = json!({ "address": seen.address, "trouble": seen.trouble });
    let Some(fact) = &seen.view else { return out };
    let view = &fact.value;
    out["age_ms"] = millis(fact.age(now));
    out["names"] = view.primary.as_str().into();
    out["sees_primary_up"] = view.is_primary_up.into();
    out["is_failing_over"] = view.is_failing_over.into();
    out["in_tilt_ms"] = view.tilted_for.map(millis).into();
    out["epoch"] = view.epoch.into();
    out["quorum"] = view.quorum.into();
    out["other_sentinels"] = view.others.into();
    out["replicas_up"] = view.replicas.iter().filter(|replica| replica.is_up).count().into();
    out["replicas"] = view.replicas.iter().map(|replica| replica.address.as_str()).collect::<Vec<_>>().into();
    out["down_after_ms"] = millis(view.down_after);
    out["failover_timeout_ms"] = millis(view.failover_timeout);
    out
}

/// Milliseconds as a number of JSON.
pub fn millis(time: Duration) -> Value {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into()
}
