//! Adding and replacing a replica, with the arithmetic that tells a full sync that ends from one that begins again for ever.
//!
//! While a new replica is given the data, everything written waits for it in the primary's buffers. If that is more than they
//! hold, the connection is closed and the sync begins anew: a loop, in which the group looks alive and saves nothing.

use std::time::Duration;

use crate::failover::{calm, identity, plan_failover_with, sentinels, sight, tilt};
use crate::guards::{Gate, Guard, Refusal};
use crate::health::{LINK_PERCENT_MAX, MEMORY_PERCENT, bytes, line, rate};
use crate::observed::{GroupSeen, ServerSeen, ServerState};
use crate::plan::{Action, Check, Decision, Plan, Step, Who};

/// For how long a primary is watched before its rates are believed, and that it is calm: a resync loop goes round in four seconds.
pub const WATCHED: Duration = Duration::from_secs(5);
/// The longest a sync may take beyond what the arithmetic says, in multiples of it.
const SYNC_PATIENCE: u32 = 5;
/// The shortest a sync is given.
const SYNC_WITHIN_MIN: Duration = Duration::from_secs(60);
/// How long a detached server may take to be gone from its primary.
const DETACHED_WITHIN: Duration = Duration::from_secs(30);
/// How long a Sentinel may take to see everything anew: it looks every ten seconds.
const RELEARNED_WITHIN: Duration = Duration::from_secs(40);

/// What one more replica costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Bytes per second that leave the primary now.
    pub sent: u64,
    /// Bytes per second that are written: what each replica takes.
    pub stream: u64,
    /// Bytes per second that its line carries.
    pub line: u64,
    /// Bytes to be given.
    pub dataset: u64,
    /// How long that takes beside everything else.
    pub sync: Duration,
    /// What is written meanwhile, and waits.
    pub waiting: u64,
}

impl Cost {
    /// Reckons. `None` where nothing is left of the line.
    #[must_use]
    pub fn of(now: Duration, primary: &ServerSeen, link_mbit: u64) -> Option<Self> {
        let state = primary.fresh(now)?;
        let stream = primary.rate(now, WATCHED * 2, |sample| sample.offset)?;
        let sent = primary.rate(now, WATCHED * 2, |sample| sample.figures.sent_bytes)?;
        let (line, dataset) = (line(link_mbit), state.figures.dataset_bytes);
        let spare = line.checked_sub(sent.saturating_add(stream)).filter(|spare| *spare > 0)?;
        let sync = Duration::from_millis(u64::try_from(u128::from(dataset) * 1_000 / u128::from(spare)).ok()?);
        let waiting = u64::try_from(u128::from(stream) * sync.as_millis() / 1_000).ok()?;
        Some(Self { sent, stream, line, dataset, sync, waiting })
    }
}

/// Plans to add a server that holds nothing as a replica.
#[must_use]
pub fn plan_add_replica(now: Duration, seen: &GroupSeen, server: &str, overridden: &[Guard]) -> Decision {
    let primary = match sight(now, seen, Gate::new(overridden)) {
        Ok(primary) => primary,
        Err(refusal) => return Decision::Refused(refusal),
    };
    if is_replica(now, primary, server) {
        return Decision::Nothing(format!("{server} is a replica of {} already, and online", seen.name));
    }
    let mut gate = Gate::new(overridden);
    let cost = match guard_addition(now, seen, primary, server, &mut gate) {
        Ok(cost) => cost,
        Err((guard, figures)) => return Decision::Refused(gate.refuse(guard, figures)),
    };
    match gate.pass() {
        Err(refusal) => Decision::Refused(refusal),
        Ok(guards) => Decision::Go(Plan {
            aim: format!("{server} becomes a replica of {}", seen.name),
            primary: primary.address.clone(),
            steps: addition(now, primary, server, cost),
            guards,
            afterwards: String::new(),
        }),
    }
}

/// Plans to put `new` in the place of `old`, which may be the primary: first the new one is complete, then the old one goes.
#[must_use]
pub fn plan_replace(now: Duration, seen: &GroupSeen, old: &str, new: &str, overridden: &[Guard]) -> Decision {
    let primary = match sight(now, seen, Gate::new(overridden)) {
        Ok(primary) => primary,
        Err(refusal) => return Decision::Refused(refusal),
    };
    let is_member = old == primary.address || seen.replicas_of(now, &primary.address).iter().any(|r| r.address == old);
    let is_attached = is_replica(now, primary, new) || primary.address == new;
    if !is_member && is_attached {
        return Decision::Nothing(format!("{new} is in {} and {old} is not", seen.name));
    }
    if !is_member {
        let figures = format!("{old} is neither primary nor replica of {}", seen.name);
        return Decision::Refused(Gate::new(overridden).refuse(Guard::Sight, figures));
    }
    let mut parts = Vec::new();
    if !is_attached {
        parts.push(plan_add_replica(now, seen, new, overridden));
    }
    if old == primary.address {
        let joined = (!is_attached).then_some(new);
        parts.push(plan_failover_with(now, seen, None, joined, overridden));
    }
    let (mut steps, mut guards) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Decision::Go(plan) => {
                steps.extend(plan.steps);
                guards.extend(plan.guards);
            }
            other => return other,
        }
    }
    let replicas = primary.fresh(now).map_or(0, |state| state.online().count()) + usize::from(!is_attached);
    match removal(now, seen, old, primary, replicas, overridden) {
        Err(refusal) => return Decision::Refused(refusal),
        Ok((last, asked)) => {
            steps.extend(last);
            guards.extend(asked);
        }
    }
    let afterwards = format!("{old} takes no writes and gets no data any more: stop it");
    let aim = format!("{new} takes the place of {old} in {}", seen.name);
    Decision::Go(Plan { aim, primary: primary.address.clone(), steps, guards, afterwards })
}

fn is_replica(now: Duration, primary: &ServerSeen, server: &str) -> bool {
    primary.fresh(now).is_some_and(|state| state.online().any(|online| online == server))
}

fn guard_addition(
    now: Duration,
    seen: &GroupSeen,
    primary: &ServerSeen,
    server: &str,
    gate: &mut Gate<'_>,
) -> Result<Option<Cost>, (Guard, String)> {
    let Some(newcomer) = seen.server(server).and_then(|seen| seen.fresh(now)) else {
        let why = seen.server(server).and_then(|seen| seen.trouble.clone()).unwrap_or_default();
        return Err((Guard::Sight, format!("{server} was not seen: {why}")));
    };
    if let Some(found) = newcomer.identity.as_ref().filter(|found| **found != seen.identity) {
        return Err((Guard::Identity, format!("{server} has the data of {found}, not of {}", seen.identity)));
    }
    let watched = primary.watched_for(now);
    if watched < WATCHED {
        let figures = format!("{} was watched for {} of {} s", primary.address, watched.as_secs(), WATCHED.as_secs());
        return Err((Guard::Sight, figures));
    }
    identity(now, seen, primary, gate);
    // One that follows the group already, or did, is overwritten with what it had.
    let is_own = newcomer.identity.is_some() && !newcomer.is_primary();
    gate.ask(Guard::NotEmpty, newcomer.keys == 0 || is_own, format!("{server} holds {} keys", newcomer.keys));
    sentinels(now, seen, &primary.address, gate);
    calm(now, primary, gate);
    arithmetic(now, seen, primary, newcomer, gate)
}

fn arithmetic(
    now: Duration,
    seen: &GroupSeen,
    primary: &ServerSeen,
    newcomer: &ServerState,
    gate: &mut Gate<'_>,
) -> Result<Option<Cost>, (Guard, String)> {
    let (link, memory) = (seen.capacity.link_mbit, seen.capacity.memory_mb);
    let said = |name: &str, value: Option<u64>| {
        value.map_or_else(|| format!("{name} is not known"), |v| format!("{name} is {v}"))
    };
    let figures = format!("{}, {}", said("link_mbit", link), said("memory_mb", memory));
    gate.ask(Guard::Capacity, link.is_some() && memory.is_some(), figures);
    let (Some(link), Some(state)) = (link, primary.fresh(now)) else { return Ok(None) };
    let Some(cost) = Cost::of(now, primary, link) else {
        gate.ask(Guard::Bandwidth, false, format!("nothing is left of a line of {link} Mbit/s"));
        return Ok(None);
    };
    let (with_one_more, allowed) = (cost.sent + cost.stream, cost.line / 100 * LINK_PERCENT_MAX);
    gate.ask(
        Guard::Bandwidth,
        with_one_more <= allowed,
        format!(
            "{} leave {} and one more stream is {}: {} of the {} that {LINK_PERCENT_MAX}% of the line carry",
            rate(cost.sent),
            primary.address,
            rate(cost.stream),
            rate(with_one_more),
            rate(allowed)
        ),
    );
    let held = match state.buffers.output_bytes_max {
        0 => u64::MAX,
        max => max.max(state.buffers.backlog_bytes),
    };
    let limit = if held == u64::MAX { "no limit".to_owned() } else { format!("the half of {}", bytes(held)) };
    gate.ask(
        Guard::Buffers,
        cost.waiting < held / 2,
        format!(
            "{} of data take {}.{} s, in which {} are written, against {limit} for a replica",
            bytes(cost.dataset),
            cost.sync.as_secs(),
            cost.sync.subsec_millis() / 100,
            bytes(cost.waiting)
        ),
    );
    if let Some(memory) = memory {
        fits(seen, primary, newcomer, (memory << 20, state, cost), gate);
    }
    Ok(Some(cost))
}

fn fits(
    seen: &GroupSeen,
    primary: &ServerSeen,
    newcomer: &ServerState,
    (granted, state, cost): (u64, &ServerState, Cost),
    gate: &mut Gate<'_>,
) {
    let limit = |figures: &crate::observed::Figures| match figures.max_bytes {
        0 => granted,
        max => max.min(granted),
    };
    let (here, there) = (state.figures.used_bytes + cost.waiting, cost.dataset);
    let most = |limit: u64| limit / 100 * MEMORY_PERCENT[1];
    let (here_max, there_max) = (most(limit(&state.figures)), most(limit(&newcomer.figures)));
    gate.ask(
        Guard::Memory,
        here <= here_max && there <= there_max,
        format!(
            "{} would use {} of {}, the new replica of {} {} of {}",
            primary.address,
            bytes(here),
            bytes(here_max),
            seen.name,
            bytes(there),
            bytes(there_max)
        ),
    );
}

fn addition(now: Duration, primary: &ServerSeen, server: &str, cost: Option<Cost>) -> Vec<Step> {
    let who = Who::from(primary.address.as_str());
    let others = primary.fresh(now).map_or(0, |state| state.online().count());
    let ready = Check::All(vec![Check::Primary(who.clone()), Check::Online { primary: who.clone(), replicas: others }]);
    let done = Check::All(vec![
        Check::Follows { server: server.into(), primary: who.clone() },
        Check::Lists { primary: who.clone(), replica: server.to_owned() },
        Check::Online { primary: who.clone(), replicas: others + 1 },
    ]);
    let within = cost.map_or(SYNC_WITHIN_MIN, |cost| (cost.sync * SYNC_PATIENCE).max(SYNC_WITHIN_MIN));
    let attach = Action::Attach { server: server.to_owned(), primary: who.clone() };
    let detach = Action::Detach { server: server.to_owned(), primary: who };
    vec![Step::act(ready, attach, done, within).undone_by(vec![detach])]
}

type Removal = (Vec<Step>, Vec<crate::guards::Guarded>);

/// The last part of a replacement: the old server is a replica by now.
fn removal(
    now: Duration,
    seen: &GroupSeen,
    old: &str,
    primary: &ServerSeen,
    replicas: usize,
    overridden: &[Guard],
) -> Result<Removal, Refusal> {
    let was_primary = primary.address == old;
    let who = if was_primary { Who::Successor } else { Who::from(primary.address.as_str()) };
    let is_online = was_primary || is_replica(now, primary, old);
    let left = replicas + 1 - usize::from(is_online);
    let mut gate = Gate::new(overridden);
    // Of a primary the failover has asked already.
    if !was_primary {
        tilt(now, seen, &mut gate);
    }
    gate.ask(Guard::Copies, left >= 2, format!("{left} complete copies are left without {old}"));
    let kept = left.saturating_sub(1);
    let wanted = seen.capacity.replicas.unwrap_or_else(|| seen.expected_replicas(now).min(2));
    gate.ask(Guard::Replicas, kept >= wanted, format!("{kept} of {wanted} replicas are left without {old}"));
    let guards = gate.pass()?;
    let enough = Check::Online { primary: who.clone(), replicas: kept + usize::from(is_online) };
    let ready = Check::All(vec![Check::Primary(who.clone()), enough]);
    let gone = Check::All(vec![
        Check::Detached { server: old.to_owned(), primary: who.clone() },
        Check::Online { primary: who.clone(), replicas: kept },
    ]);
    let detach = Action::Detach { server: old.to_owned(), primary: who.clone() };
    let back = Action::Attach { server: old.to_owned(), primary: who.clone() };
    let mut steps = vec![Step::act(ready, detach, gone, DETACHED_WITHIN).undone_by(vec![back])];
    steps.extend(relearning(now, seen, &who, kept));
    Ok((steps, guards))
}

/// Sentinels forget a server only when they are told to look anew: one at a time, each ended when it sees everything again, so
/// that a majority can fail over at every moment.
pub(crate) fn relearning(now: Duration, seen: &GroupSeen, primary: &Who, replicas: usize) -> Vec<Step> {
    let others = seen.sentinels.len().saturating_sub(1);
    let answering: Vec<&str> = seen.views(now).map(|(who, _)| who).collect();
    let steps = answering.iter().map(|sentinel| {
        let sees = Check::Sees {
            sentinel: (*sentinel).to_owned(),
            primary: primary.clone(),
            replicas,
            others: others.min(answering.len().saturating_sub(1)),
        };
        let ready = Check::All(vec![Check::Quiet, Check::Named { server: primary.clone(), by: answering.len() }]);
        Step::act(ready, Action::Relearn { sentinel: (*sentinel).to_owned() }, sees, RELEARNED_WITHIN)
    });
    steps.collect()
}
