//! Planned failover: the primary is paused, its replicas have everything, and only then another is promoted.
//!
//! A Sentinel's own failover leaves the old primary taking writes for ten seconds that are lost. Here it is held first and made
//! to follow by us, so that nothing is written that the successor has not.

use std::time::Duration;

use crate::guards::{Gate, Guard, Refusal};
use crate::health::{WAITING_BYTES_MAX, bytes, full_syncs, lag, rate};
use crate::observed::{GroupSeen, ServerSeen, ServerState};
use crate::plan::{Action, Check, Decision, Plan, Step, Who};

/// How long a pause lasts if nobody renews it. An operator that dies leaves writes waiting no longer than this.
pub const PAUSE: Duration = Duration::from_millis(1_000);
/// How long replicas may take to have everything: half of the silence after which Sentinels call a server down, and no more than
/// this. A Sentinel greets the others with PUBLISH, which waits on a paused server as any write, and its PING waits behind that:
/// who holds for longer has the Sentinels fail over by themselves.
const LEVEL_WITHIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(1_500)];
/// How long writes may be held until another is promoted, likewise: publishers wait 3.4 s before they are answered 503.
const PROMOTED_WITHIN: [Duration; 2] = [Duration::from_millis(750), Duration::from_millis(2_400)];
/// How long the old primary may take to follow.
const DEMOTED_WITHIN: Duration = Duration::from_secs(30);
/// How long the group may take to be whole again.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
/// How long the wanted server may take to be seen as the primary, when everything else is done.
const WISHED_WITHIN: Duration = Duration::from_secs(2);
/// Sentinels look at a replica's priority every ten seconds.
const PRIORITY_WITHIN: Duration = Duration::from_secs(25);
/// How long after its own time-out a Sentinel says that a failover is over.
const LINGERS_BEYOND: Duration = Duration::from_secs(3);

/// Plans to make another server the primary: `to`, or whichever the Sentinel takes.
#[must_use]
pub fn plan_failover(now: Duration, seen: &GroupSeen, to: Option<&str>, overridden: &[Guard]) -> Decision {
    plan_failover_with(now, seen, to, None, overridden)
}

/// The same with a server that will have `joined` the replicas by then.
pub(crate) fn plan_failover_with(
    now: Duration,
    seen: &GroupSeen,
    to: Option<&str>,
    joined: Option<&str>,
    overridden: &[Guard],
) -> Decision {
    let primary = match sight(now, seen, Gate::new(overridden)) {
        Ok(primary) => primary,
        Err(refusal) => return Decision::Refused(refusal),
    };
    if to == Some(primary.address.as_str()) {
        return Decision::Nothing(format!("{} is the primary of {} already", primary.address, seen.name));
    }
    let replicas = seen.replicas_of(now, &primary.address);
    if let Some(to) = to
        && replicas.iter().all(|replica| replica.address != to)
    {
        let known: Vec<&str> = replicas.iter().map(|replica| replica.address.as_str()).collect();
        let figures = format!("{to} is no replica of {}; these are: {}", seen.name, known.join(", "));
        return Decision::Refused(Gate::new(overridden).refuse(Guard::Sight, figures));
    }
    let mut gate = Gate::new(overridden);
    guard(now, seen, primary, to, &mut gate);
    match gate.pass() {
        Err(refusal) => Decision::Refused(refusal),
        Ok(guards) => {
            let whom = to.map_or_else(|| "another server".to_owned(), str::to_owned);
            let aim = format!("{whom} becomes the primary of {} in the place of {}", seen.name, primary.address);
            let steps = steps(now, seen, primary, to, joined);
            Decision::Go(Plan { aim, primary: primary.address.clone(), steps, guards, afterwards: String::new() })
        }
    }
}

/// The primary as freshly seen: named by a majority, and primary by its own word.
pub(crate) fn sight<'a>(now: Duration, seen: &'a GroupSeen, gate: Gate<'_>) -> Result<&'a ServerSeen, Refusal> {
    if let Some(primary) = seen.primary(now) {
        return Ok(primary);
    }
    let answering = seen.views(now).count();
    let figures = match seen.named(now) {
        Some(named) => format!("{named} is named as the primary of {} and was not seen to be it", seen.name),
        None => format!(
            "{answering} of {} Sentinels answer, and no majority of all names one primary of {}",
            seen.sentinels.len(),
            seen.name
        ),
    };
    Err(gate.refuse(Guard::Sight, figures))
}

/// Asks what must hold wherever a primary is changed.
fn guard(now: Duration, seen: &GroupSeen, primary: &ServerSeen, to: Option<&str>, gate: &mut Gate<'_>) {
    let replicas = seen.replicas_of(now, &primary.address);
    identity(now, seen, primary, gate);
    let unseen: Vec<&str> = replicas
        .iter()
        .filter(|replica| replica.fresh(now).is_none())
        .map(|replica| replica.address.as_str())
        .collect();
    gate.ask(
        Guard::Sight,
        unseen.len() < replicas.len().max(1) && to.is_none_or(|to| !unseen.contains(&to)),
        format!("{} of {} replicas were seen", replicas.len() - unseen.len(), replicas.len()),
    );
    sentinels(now, seen, &primary.address, gate);
    tilt(now, seen, gate);
    let strays: Vec<&str> = seen.strays(now, &primary.address).collect();
    gate.ask(
        Guard::StrayPrimary,
        strays.is_empty(),
        match strays.as_slice() {
            [] => "no other server takes writes".to_owned(),
            strays => format!("{} takes writes too", strays.join(", ")),
        },
    );
    online(now, seen, primary, gate);
    calm(now, primary, gate);
    let late = replicas.iter().find_map(|replica| Some((replica, lag(now, primary, replica)?)));
    gate.ask(
        Guard::Lag,
        late.is_none(),
        match late {
            None => "no replica is further behind than its stream explains".to_owned(),
            Some((replica, (behind, stream))) => {
                format!("{} is {} behind a stream of {}", replica.address, bytes(behind), rate(stream))
            }
        },
    );
    let may = |server: &&&ServerSeen| server.fresh(now).is_some_and(|state| state.priority > 0);
    let promotable = match to {
        None => replicas.iter().filter(may).count(),
        Some(to) => replicas.iter().filter(|replica| replica.address == to).filter(may).count(),
    };
    gate.ask(Guard::Promotable, promotable > 0, format!("{promotable} replicas have a priority above 0"));
}

pub(crate) fn identity(now: Duration, seen: &GroupSeen, primary: &ServerSeen, gate: &mut Gate<'_>) {
    let of_others = |server: &ServerSeen| {
        let found = server.fresh(now)?.identity.clone()?;
        (found != seen.identity).then(|| (server.address.clone(), found))
    };
    let group = std::iter::once(primary).chain(seen.replicas_of(now, &primary.address));
    let wrong = { group }.find_map(of_others);
    gate.ask(
        Guard::Identity,
        wrong.is_none(),
        match wrong {
            None => format!("no server has the data of another group than {}", seen.identity),
            Some((address, found)) => format!("{address} has the data of {found}, not of {}", seen.identity),
        },
    );
}

/// A Sentinel in TILT takes the command for a failover and does nothing with it, and the others lack its vote.
pub(crate) fn tilt(now: Duration, seen: &GroupSeen, gate: &mut Gate<'_>) {
    let tilted = seen.tilted(now);
    gate.ask(
        Guard::SentinelTilt,
        tilted.is_empty(),
        match tilted.as_slice() {
            [] => "no Sentinel says that it is in TILT".to_owned(),
            tilted => {
                let said = tilted.iter().map(|(who, lasts)| format!("{who} for {} s", lasts.as_secs()));
                format!(
                    "in TILT, in which a Sentinel fails nothing over: {} of {} ({})",
                    tilted.len(),
                    seen.sentinels.len(),
                    said.collect::<Vec<_>>().join(", ")
                )
            }
        },
    );
}

pub(crate) fn sentinels(now: Duration, seen: &GroupSeen, primary: &str, gate: &mut Gate<'_>) {
    let (all, answering) = (seen.sentinels.len(), seen.views(now).count());
    let naming = seen.views(now).filter(|(_, view)| view.primary == primary && view.is_primary_up).count();
    gate.ask(
        Guard::Sentinels,
        all > 0 && 2 * answering > all && naming == answering,
        format!("{answering} of {all} Sentinels answer, {naming} name {primary} and see it up"),
    );
    let busy: Vec<&str> = seen.views(now).filter(|(_, view)| view.is_failing_over).map(|(who, _)| who).collect();
    gate.ask(
        Guard::Quiet,
        busy.is_empty(),
        match busy.as_slice() {
            [] => "no Sentinel says that a failover is going on".to_owned(),
            busy => format!("{} says that a failover is going on", busy.join(", ")),
        },
    );
}

pub(crate) fn online(now: Duration, seen: &GroupSeen, primary: &ServerSeen, gate: &mut Gate<'_>) {
    let online = primary.fresh(now).map_or(0, |state| state.online().count());
    let answering = answering(now, seen, primary).len();
    let expected = seen.expected_replicas(now).max(1);
    let mut figures = format!("{online} of {expected} replicas are online");
    if answering < online {
        figures.push_str(&format!(", and {} of these do not answer", online - answering));
    }
    gate.ask(Guard::Replicas, answering >= expected, figures);
}

/// Replicas that the primary sees online and that say so themselves: one that hangs is online to its primary for as long as the
/// connection lasts.
fn answering(now: Duration, seen: &GroupSeen, primary: &ServerSeen) -> Vec<String> {
    let is_silent =
        |address: &str| seen.servers.iter().any(|server| server.address == address && server.fresh(now).is_none());
    let online = primary.fresh(now).into_iter().flat_map(|state| state.online());
    online.filter(|address| !is_silent(address)).map(str::to_owned).collect()
}

pub(crate) fn calm(now: Duration, primary: &ServerSeen, gate: &mut Gate<'_>) {
    let (syncs, over) = full_syncs(now, primary).unwrap_or_default();
    let waiting = primary.fresh(now).map_or(0, |state| state.figures.waiting_bytes);
    gate.ask(
        Guard::Resync,
        syncs == 0 && waiting <= WAITING_BYTES_MAX,
        format!(
            "{syncs} full syncs in the last {} s that were watched, {} wait for replicas beyond the backlog",
            over.as_secs(),
            bytes(waiting)
        ),
    );
}

fn steps(now: Duration, seen: &GroupSeen, primary: &ServerSeen, to: Option<&str>, joined: Option<&str>) -> Vec<Step> {
    let old = primary.address.as_str();
    let mut online = answering(now, seen, primary);
    online.extend(joined.map(str::to_owned));
    let preferences = to.map(|to| preferences(now, seen, old, to)).unwrap_or_default();
    let mut steps: Vec<Step> = Vec::new();
    let before = |changed: &[(String, u32, u32)]| -> Vec<Action> {
        changed.iter().map(|(server, was, _)| Action::Prefer { server: server.clone(), priority: *was }).collect()
    };
    for (at, (server, _, priority)) in preferences.iter().enumerate() {
        let action = Action::Prefer { server: server.clone(), priority: *priority };
        let done = Check::Priority { server: server.clone(), priority: *priority };
        let undo = before(&preferences[..=at]);
        steps.push(Step::act(Check::Primary(old.into()), action, done, PRIORITY_WITHIN).undone_by(undo));
    }
    steps.extend(hold_and_promote(seen, now, old, &online, &before(&preferences)));
    let follows = Check::Follows { server: old.into(), primary: Who::Successor };
    let demote = Action::Demote { server: old.to_owned(), primary: Who::Successor };
    let restore = before(&preferences);
    let demoted = Step::act(Check::Primary(Who::Successor), demote, follows.clone(), DEMOTED_WITHIN);
    steps.push(demoted.undone_by(restore.clone()));
    let by = seen.sentinels.len() / 2 + 1;
    let whole = Check::All(vec![
        follows,
        Check::Online { primary: Who::Successor, replicas: online.len() },
        Check::Named { server: Who::Successor, by },
    ]);
    steps.push(Step::watch(whole, WHOLE_WITHIN).undone_by(restore));
    for (server, was, _) in preferences {
        let done = Check::Priority { server: server.clone(), priority: was };
        let done = if Some(server.as_str()) == to { Check::All(Vec::new()) } else { done };
        steps.push(Step::act(Check::All(Vec::new()), Action::Prefer { server, priority: was }, done, PRIORITY_WITHIN));
    }
    steps.extend(to.map(|to| Step::watch(Check::Primary(to.into()), WISHED_WITHIN)));
    steps
}

/// Writes are held from the first of these to the one after them.
fn hold_and_promote(seen: &GroupSeen, now: Duration, old: &str, online: &[String], restore: &[Action]) -> [Step; 2] {
    let sound = Check::All(vec![
        Check::Primary(old.into()),
        Check::Online { primary: old.into(), replicas: online.len() },
        Check::Quiet,
    ]);
    let level = Check::Level { primary: old.to_owned(), replicas: online.to_vec() };
    let resume: Vec<Action> =
        std::iter::once(Action::Resume { server: old.to_owned() }).chain(restore.iter().cloned()).collect();
    let pause = Action::Pause { server: old.to_owned(), hold: PAUSE };
    let silence = seen.views(now).map(|(_, view)| view.down_after).min().unwrap_or_default();
    let within = |part: Duration, [least, most]: [Duration; 2]| part.clamp(least, most);
    let pause = Step::act(sound, pause, level.clone(), within(silence / 2, LEVEL_WITHIN)).undone_by(resume.clone());
    // Whoever it is: a primary that was promoted against the wish must be followed all the same.
    let candidates = online.to_vec();
    let timeout = seen.views(now).map(|(_, view)| view.failover_timeout).max().unwrap_or_default();
    let promoted = Step {
        lingers: Some(timeout + LINGERS_BEYOND),
        ..Step::act(level, Action::FailOver, Check::Promoted(candidates), within(silence * 3 / 2, PROMOTED_WITHIN))
            .undone_by(resume)
    };
    [pause, promoted]
}

/// Which priorities must change so that a Sentinel prefers `to`: server, what it is, what it becomes. None is ever made 0, so
/// that the group can fail over by itself however long they stay.
fn preferences(now: Duration, seen: &GroupSeen, old: &str, to: &str) -> Vec<(String, u32, u32)> {
    let priority = |server: &ServerSeen| server.fresh(now).map_or(0, |state: &ServerState| state.priority);
    let wanted = seen.server(to).map_or(0, priority);
    let replicas = seen.replicas_of(now, old);
    let others: Vec<(&str, u32)> = replicas
        .iter()
        .filter(|replica| replica.address != to)
        .map(|replica| (replica.address.as_str(), priority(replica)))
        .filter(|(_, priority)| *priority > 0)
        .collect();
    let Some(least) = others.iter().map(|(_, priority)| *priority).min() else { return Vec::new() };
    if wanted > 0 && wanted < least {
        return Vec::new();
    }
    if least > 1 {
        return vec![(to.to_owned(), wanted, least - 1)];
    }
    let mut changes: Vec<(String, u32, u32)> =
        others.iter().filter(|(_, was)| *was <= 1).map(|(server, was)| ((*server).to_owned(), *was, 2)).collect();
    if wanted != 1 {
        changes.push((to.to_owned(), wanted, 1));
    }
    changes
}
