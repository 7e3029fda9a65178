//! Putting right what should not be: Sentinels that name the wrong server or remember a dead one, and a process that is about
//! to be stopped while it is the primary.

use std::time::Duration;

use crate::failover::{plan_failover, sight, tilt};
use crate::guards::{Gate, Guard};
use crate::migrate::relearning;
use crate::observed::{GroupSeen, ReplicaLink, Role, SentinelView, ServerSeen, ServerState};
use crate::plan::{Action, Check, Decision, Plan, SentinelSettings, Step, Who};

/// How long a Sentinel that was told anew may take to see everything.
const MONITORED_WITHIN: Duration = Duration::from_secs(40);
/// How long a group may take to be complete without the process.
const COMPLETE_WITHIN: Duration = Duration::from_secs(20);
/// What our documentation and the doctor advise, also for a group of which no Sentinel is right. Why a silence of this length is
/// told by the doctor's `DOWN_AFTER_MIN`.
pub(crate) const ADVISED: SentinelSettings = SentinelSettings {
    quorum: 2,
    down_after: Duration::from_millis(1_250),
    failover_timeout: Duration::from_millis(10_000),
    parallel_syncs: 1,
};

/// Plans what must be before `process` may be stopped: it is no primary, and whoever is has all its other replicas.
#[must_use]
pub fn plan_pre_stop(now: Duration, seen: &GroupSeen, process: &str, overridden: &[Guard]) -> Decision {
    let primary = match sight(now, seen, Gate::new(overridden)) {
        Ok(primary) => primary,
        Err(refusal) => return Decision::Refused(refusal),
    };
    if primary.address == process {
        return match plan_failover(now, seen, None, overridden) {
            Decision::Go(plan) => Decision::Go(Plan { aim: format!("{process} may be stopped: {}", plan.aim), ..plan }),
            other => other,
        };
    }
    let mut gate = Gate::new(overridden);
    // The group has one copy less from here on, and nobody would fail it over.
    tilt(now, seen, &mut gate);
    let state = seen.server(process).and_then(|server| server.fresh(now));
    // One that says it is a primary though another is named is the very thing that must not just go on.
    let is_stray = state.is_some_and(ServerState::is_primary);
    gate.ask(
        Guard::StrayPrimary,
        !is_stray,
        format!("{process} is not named as the primary; it takes writes: {is_stray}"),
    );
    let online: Vec<&str> = primary.fresh(now).map(|state| state.online().collect()).unwrap_or_default();
    let left = 1 + online.iter().filter(|replica| **replica != process).count();
    let wanted = seen.expected_replicas(now).clamp(1, 2);
    gate.ask(
        Guard::Copies,
        left >= wanted,
        format!("{left} complete copies are left without {process}; {wanted} must be"),
    );
    match gate.pass() {
        Err(refusal) => Decision::Refused(refusal),
        Ok(guards) => {
            let who = Who::from(primary.address.as_str());
            let keeps = usize::from(online.contains(&process));
            let check = Check::All(vec![
                Check::Primary(who.clone()),
                Check::Online { primary: who, replicas: left - 1 + keeps },
            ]);
            Decision::Go(Plan {
                aim: format!("{process} may be stopped: {} is the primary", primary.address),
                primary: primary.address.clone(),
                steps: vec![Step::watch(check, COMPLETE_WITHIN)],
                guards,
                afterwards: String::new(),
            })
        }
    }
}

/// Plans to make every Sentinel name the right primary and know the right replicas. Who is right is decided by role and
/// identity, and by `primary` where the operator names it; a vote of Sentinels proves nothing here.
#[must_use]
pub fn plan_repair(now: Duration, seen: &GroupSeen, primary: Option<&str>, overridden: &[Guard]) -> Decision {
    let right = match truth(now, seen, primary) {
        Ok(right) => right,
        Err((guard, figures)) => return Decision::Refused(Gate::new(overridden).refuse(guard, figures)),
    };
    let who = Who::from(right.address.as_str());
    let replicas = right.fresh(now).map_or(0, |state| state.online().count());
    let answering = seen.views(now).count();
    let others = seen.sentinels.len().min(answering).saturating_sub(1);
    let like =
        seen.views(now).find(|(_, view)| view.primary == right.address).map_or(ADVISED, |(_, view)| settings(view));
    let like = SentinelSettings { quorum: like.quorum.clamp(1, seen.sentinels.len().max(1)), ..like };
    let mut gate = Gate::new(overridden);
    let (all, half) = (seen.sentinels.len(), seen.sentinels.len() / 2);
    gate.ask(Guard::Sentinels, answering > half, format!("{answering} of {all} Sentinels answer"));
    let busy = seen.views(now).any(|(_, view)| view.is_failing_over);
    gate.ask(Guard::Quiet, !busy, format!("a failover is going on: {busy}"));
    let guards = match gate.pass() {
        Ok(guards) => guards,
        Err(refusal) => return Decision::Refused(refusal),
    };
    let wrong: Vec<&str> =
        seen.views(now).filter(|(_, view)| view.primary != right.address).map(|(sentinel, _)| sentinel).collect();
    let mut steps: Vec<Step> = wrong
        .iter()
        .map(|sentinel| {
            let primary = right.address.clone();
            let monitor = Action::Monitor { sentinel: (*sentinel).to_owned(), primary, like };
            let named = Check::Sees { sentinel: (*sentinel).to_owned(), primary: who.clone(), replicas, others: 0 };
            Step::act(Check::Primary(who.clone()), monitor, named, MONITORED_WITHIN)
        })
        .collect();
    // A Sentinel that was told anew counts its siblings again once they have greeted it.
    for sentinel in &wrong {
        let sees = Check::Sees { sentinel: (*sentinel).to_owned(), primary: who.clone(), replicas, others };
        steps.push(Step::watch(sees, MONITORED_WITHIN));
    }
    let remembers = |view: &SentinelView| {
        let listed =
            |replica: &str| right.fresh(now).is_some_and(|state| state.online().any(|online| online == replica));
        view.replicas
            .iter()
            .any(|replica| !replica.is_up && !listed(&replica.address) && is_gone(now, seen, &replica.address, right))
    };
    if seen.views(now).any(|(_, view)| view.primary == right.address && remembers(view)) {
        steps.extend(relearning(now, seen, &who, replicas));
    }
    if steps.is_empty() {
        return Decision::Nothing(format!(
            "every Sentinel that answers names {} and knows its replicas",
            right.address
        ));
    }
    let aim = format!("every Sentinel names {} as the primary of {}", right.address, seen.name);
    Decision::Go(Plan { aim, primary: right.address.clone(), steps, guards, afterwards: String::new() })
}

/// Whether a server that a Sentinel remembers is none of the group's: it does not answer, follows another, or is cut off.
fn is_gone(now: Duration, seen: &GroupSeen, address: &str, primary: &ServerSeen) -> bool {
    let state = seen.server(address).and_then(|server| server.fresh(now));
    state.is_none_or(|state| match &state.role {
        Role::Primary(_) => false,
        Role::Replica { of, link } => *of != primary.address || *link == ReplicaLink::Down,
    })
}

fn truth<'a>(now: Duration, seen: &'a GroupSeen, named: Option<&str>) -> Result<&'a ServerSeen, (Guard, String)> {
    let is_right = |server: &&ServerSeen| {
        let state = server.fresh(now);
        state.is_some_and(|state| state.is_primary() && state.identity.as_ref() == Some(&seen.identity))
    };
    if let Some(named) = named {
        let server = seen.server(named).ok_or((Guard::Sight, format!("{named} was not seen")))?;
        let state = server.fresh(now).ok_or((Guard::Sight, format!("{named} does not answer")))?;
        return match &state.identity {
            Some(found) if *found == seen.identity && state.is_primary() => Ok(server),
            Some(found) if *found != seen.identity => {
                Err((Guard::Identity, format!("{named} has the data of {found}, not of {}", seen.identity)))
            }
            None => Err((Guard::Identity, format!("{named} has no data of {}", seen.identity))),
            Some(_) => Err((Guard::Sight, format!("{named} is a replica"))),
        };
    }
    let right: Vec<&ServerSeen> = seen.servers.iter().filter(is_right).collect();
    match right.as_slice() {
        [one] => Ok(one),
        [] => Err((
            Guard::Sight,
            format!("no server that was seen is a primary with the data of {}; name it with --primary", seen.identity),
        )),
        several => {
            let names: Vec<&str> = several.iter().map(|server| server.address.as_str()).collect();
            let figures =
                format!("{} all say that they are the primary; name the right one with --primary", names.join(", "));
            Err((Guard::Sight, figures))
        }
    }
}

fn settings(view: &SentinelView) -> SentinelSettings {
    SentinelSettings {
        quorum: view.quorum,
        down_after: view.down_after,
        failover_timeout: view.failover_timeout,
        parallel_syncs: view.parallel_syncs,
    }
}
