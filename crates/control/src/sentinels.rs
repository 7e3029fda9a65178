//! Whether the Sentinels of a group are as they must be: what they name, know of each other, and would do.

use std::time::Duration;

use crate::observed::{GroupSeen, SentinelView};

/// The longest failover-timeout that is sensible: a failover that fails is tried again after twice that.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Something about the Sentinels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is wrong, and not only unwise.
    pub is_wrong: bool,
    /// What, in a sentence that says what to do.
    pub what: String,
}

fn wrong(what: String) -> Finding {
    Finding { is_wrong: true, what }
}

fn unwise(what: String) -> Finding {
    Finding { is_wrong: false, what }
}

/// Looks for everything that is wrong or unwise.
#[must_use]
pub fn verify(now: Duration, seen: &GroupSeen) -> Vec<Finding> {
    let mut findings = Vec::new();
    for sentinel in seen.sentinels.iter().filter(|sentinel| sentinel.fresh(now).is_none()) {
        let why = sentinel.trouble.as_deref().unwrap_or("it was not seen");
        findings.push(wrong(format!("{} does not answer for {}: {why}", sentinel.address, seen.name)));
    }
    named(now, seen, &mut findings);
    let count = seen.sentinels.len();
    if count < 3 {
        findings.push(unwise(format!("{count} Sentinels: with fewer than three the loss of one ends every failover")));
    }
    for (who, view) in seen.views(now) {
        one(now, seen, who, view, &mut findings);
    }
    alike(now, seen, &mut findings);
    findings
}

fn named(now: Duration, seen: &GroupSeen, findings: &mut Vec<Finding>) {
    for (who, view) in seen.views(now) {
        let state = seen.server(&view.primary).and_then(|server| server.fresh(now));
        let fault = match state {
            None => Some("does not answer".to_owned()),
            Some(state) => match &state.identity {
                Some(found) if *found != seen.identity => {
                    Some(format!("has the data of {found}, not of {}", seen.identity))
                }
                _ if !state.is_primary() => Some("says that it is a replica".to_owned()),
                _ => None,
            },
        };
        if let Some(fault) = fault {
            findings.push(wrong(format!("{who} names {}, which {fault}: see `fulmar sentinel repair`", view.primary)));
        }
    }
    let mut names: Vec<&str> = seen.views(now).map(|(_, view)| view.primary.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() > 1 {
        findings.push(wrong(format!("the Sentinels name different primaries: {}", names.join(", "))));
    }
    if seen.views(now).count() > 0 && seen.views(now).all(|(_, view)| view.epoch == 0) {
        findings.push(unwise(format!(
            "the config epoch is 0: a Sentinel that names a wrong server is corrected by the others only after a first failover; run \
             `fulmar redis failover {}` once",
            seen.name
        )));
    }
}

fn one(now: Duration, seen: &GroupSeen, who: &str, view: &SentinelView, findings: &mut Vec<Finding>) {
    let others = seen.sentinels.len().saturating_sub(1);
    if view.others != others {
        findings.push(wrong(format!("{who} knows {} other Sentinels, and {others} are configured", view.others)));
    }
    if let Some(lasts) = view.tilted_for {
        findings.push(wrong(format!(
            "{who} is in TILT for {} s: its clock or its machine held still, and until 30 s after that it fails nothing over",
            lasts.as_secs()
        )));
    }
    if !view.is_primary_up {
        findings.push(wrong(format!("{who} says that the primary {} is down", view.primary)));
    }
    for replica in view.replicas.iter().filter(|replica| !replica.is_up) {
        let answers = seen.server(&replica.address).is_some_and(|server| server.fresh(now).is_some());
        let state = if answers { "is cut off from its primary" } else { "does not answer" };
        findings.push(wrong(format!(
            "{who} remembers the replica {}, which {state}: mend it, or forget it with `fulmar sentinel repair {}`",
            replica.address, seen.name
        )));
    }
    if view.quorum > seen.sentinels.len() || view.quorum == 0 {
        let all = seen.sentinels.len();
        findings
            .push(wrong(format!("{who} wants {} of {all} Sentinels to agree: none will ever fail over", view.quorum)));
    }
    if view.failover_timeout > TIMEOUT_MAX {
        findings.push(unwise(format!(
            "{who} has a failover-timeout of {} s: a failover that fails is tried again after twice that; 10 s is enough",
            view.failover_timeout.as_secs()
        )));
    }
}

fn alike(now: Duration, seen: &GroupSeen, findings: &mut Vec<Finding>) {
    let mut views = seen.views(now);
    let Some((first, like)) = views.next() else { return };
    for (who, view) in views {
        let differs = [
            ("quorum", view.quorum != like.quorum),
            ("down-after-milliseconds", view.down_after != like.down_after),
            ("failover-timeout", view.failover_timeout != like.failover_timeout),
        ];
        for (name, _) in differs.into_iter().filter(|(_, differs)| *differs) {
            findings.push(wrong(format!("{name} of {who} is not that of {first}")));
        }
    }
}
