//! Groups drawn for people: who says what, and how long ago.

use std::time::Duration;

use fulmar_control::health::{WINDOW, Weight, bytes, judge, rate};
use fulmar_control::observed::{GroupSeen, ReplicaLink, Role, SentinelSeen, ServerSeen, ServerState};

/// All groups.
pub fn groups(now: Duration, groups: &[GroupSeen]) -> String {
    groups.iter().map(|seen| group(now, seen)).collect::<Vec<_>>().join("\n")
}

/// What the Sentinels say of all groups.
pub fn sentinels(now: Duration, groups: &[GroupSeen]) -> String {
    let one = |seen: &GroupSeen| {
        let said: String = seen.sentinels.iter().map(|watching| sentinel(now, watching)).collect();
        format!("group {}\n{said}", seen.name)
    };
    groups.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn group(now: Duration, seen: &GroupSeen) -> String {
    let mut out = format!("group {}\n", seen.name);
    for state in judge(now, seen) {
        let mark = match state.weight() {
            Weight::Fine => "ok",
            Weight::Warning => "warning",
            Weight::Grave => "GRAVE",
        };
        out.push_str(&format!("  {mark:<9} {state}\n"));
    }
    let primary = seen.primary(now);
    if let Some(primary) = primary {
        out.push_str(&server("primary", now, primary, None));
    }
    let is_primary = |server: &&ServerSeen| primary.is_some_and(|primary| primary.address == server.address);
    for other in seen.servers.iter().filter(|server| !is_primary(server)) {
        let word = match other.state.as_ref().map(|state| &state.value.role) {
            Some(Role::Primary(_)) => "primary?",
            Some(Role::Replica { .. }) => "replica",
            None => "server",
        };
        out.push_str(&server(word, now, other, primary));
    }
    for watching in &seen.sentinels {
        out.push_str(&sentinel(now, watching));
    }
    out
}

/// One line of a server, in its own words.
fn server(word: &str, now: Duration, seen: &ServerSeen, primary: Option<&ServerSeen>) -> String {
    let said = match &seen.state {
        None => format!("not seen: {}", seen.trouble.as_deref().unwrap_or("not asked yet")),
        Some(fact) => {
            let mut said = format!("{}, {} old", state(now, seen, &fact.value, primary), age(fact.age(now)));
            if let Some(trouble) = &seen.trouble {
                said.push_str(&format!("; now: {trouble}"));
            }
            said
        }
    };
    format!("  {word:<9} {:<21} {said}\n", seen.address)
}

fn state(now: Duration, seen: &ServerSeen, state: &ServerState, primary: Option<&ServerSeen>) -> String {
    let figures = &state.figures;
    let memory = match figures.max_bytes {
        0 => bytes(figures.used_bytes),
        max => format!("{} of {}", bytes(figures.used_bytes), bytes(max)),
    };
    match &state.role {
        Role::Primary(attached) => {
            let online = state.online().count();
            let mut said = format!("{online} of {} replicas online, {memory}", attached.len());
            if let Some(written) = seen.rate(now, WINDOW, |sample| sample.offset) {
                said.push_str(&format!(", writes {}", rate(written)));
            }
            if let Some(sent) = seen.rate(now, WINDOW, |sample| sample.figures.sent_bytes) {
                said.push_str(&format!(", sends {}", rate(sent)));
            }
            said + &format!(
                ", {} full syncs, {} waiting beyond the backlog",
                figures.full_syncs,
                bytes(figures.waiting_bytes)
            )
        }
        Role::Replica { of, link } => {
            let how = match link {
                ReplicaLink::Connected => "in sync with",
                ReplicaLink::Syncing => "BEING SYNCED from",
                ReplicaLink::Down => "CUT OFF from",
            };
            let ahead = primary.and_then(|primary| Some(primary.state.as_ref()?.value.offset));
            let behind = ahead.map(|ahead| ahead.saturating_sub(state.offset)).map(bytes);
            let behind = behind.map(|behind| format!(", {behind} behind")).unwrap_or_default();
            format!("{how} {of}{behind}, {memory}, priority {}", state.priority)
        }
    }
}

fn sentinel(now: Duration, seen: &SentinelSeen) -> String {
    let said = match &seen.view {
        None => format!("not seen: {}", seen.trouble.as_deref().unwrap_or("not asked yet")),
        Some(fact) => {
            let view = &fact.value;
            let up = view.replicas.iter().filter(|replica| replica.is_up).count();
            let mut said = format!(
                "names {} ({}, epoch {}), {up} of {} replicas up, {} other Sentinels",
                view.primary,
                if view.is_primary_up { "up" } else { "DOWN" },
                view.epoch,
                view.replicas.len(),
                view.others
            );
            if view.is_failing_over {
                said.push_str(", FAILING OVER");
            }
            if let Some(lasts) = view.tilted_for {
                said.push_str(&format!(", IN TILT for {} s", lasts.as_secs()));
            }
            said.push_str(&format!(", {} old", age(fact.age(now))));
            if let Some(trouble) = &seen.trouble {
                said.push_str(&format!("; now: {trouble}"));
            }
            said
        }
    };
    format!("  {:<9} {:<21} {said}\n", "Sentinel", seen.address)
}

fn age(age: Duration) -> String {
    match age.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        ms => format!("{}.{} s", ms / 1_000, ms / 100 % 10),
    }
}
