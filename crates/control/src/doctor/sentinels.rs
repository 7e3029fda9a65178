//! What the Sentinels of a group are told and what they say: their number, their settings, their agreement.

use std::time::Duration;

use super::facts::{GroupFacts, tool};
use super::{Findings, Id, Weight};
use crate::observed::SentinelView;
use crate::reconcile::ADVISED;

/// Sentinels of which one may be lost and a majority is left.
const SENTINELS_MIN: usize = 3;
/// A failover that fails is repeated after twice this; 10 s was measured to do.
const FAILOVER_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// From here on the group is without a primary for two minutes when its failover fails.
const FAILOVER_TIMEOUT_GRAVE: Duration = Duration::from_secs(60);
/// A Sentinel tries a lost connection again once a second, and goes on counting so when its group has a new primary: it reaches
/// that one up to 1.1 s after its promotion. With less patience it calls the new primary dead before it has asked it anything, and
/// two of them so fail over once more. Measured over 30 kills each: seven second failovers at 500 ms, two at 1,000 ms, none at 1,250.
const DOWN_AFTER_MIN: Duration = Duration::from_millis(1_200);
/// Longer ones are time without a primary.
const DOWN_AFTER_MAX: Duration = Duration::from_secs(2);

pub(super) fn examine(now: Duration, group: &GroupFacts, findings: &mut Findings<'_>) {
    let sentinels = &group.seen.sentinels;
    if sentinels.is_empty() {
        return;
    }
    if sentinels.len() < SENTINELS_MIN {
        let what = format!(
            "{} Sentinels are configured: when {} is lost there is no majority, and no failover",
            sentinels.len(),
            if sentinels.len() == 1 { "it" } else { "one" }
        );
        findings.warn(
            Id::SentinelsTooFew,
            what,
            "run three Sentinels on three machines and name all of them in backbone.sentinels",
        );
    }
    unreachable(now, group, findings);
    tilt(now, group, findings);
    disagreement(now, group, findings);
    let views: Vec<(&str, &SentinelView)> = group.seen.views(now).collect();
    peers(group, &views, findings);
    quorum(group, &views, findings);
    settings(group, &views, findings);
    epoch(group, &views, findings);
}

fn unreachable(now: Duration, group: &GroupFacts, findings: &mut Findings<'_>) {
    let (name, all) = (&group.seen.name, group.seen.sentinels.len());
    let silent = group.seen.sentinels.iter().filter(|sentinel| sentinel.fresh(now).is_none());
    let (unknown, silent): (Vec<_>, Vec<_>) = silent
        .map(|sentinel| (&sentinel.address, sentinel.trouble.as_deref().unwrap_or("it was not asked")))
        .partition(|(address, _)| group.unwatched_by.contains(address));
    for (address, _) in &unknown {
        let at = group.seen.named(now).and_then(|primary| primary.rsplit_once(':')).unwrap_or(("HOST", "PORT"));
        findings.grave(
            Id::SentinelDoesNotKnowGroup,
            format!("the Sentinel {address} does not watch {name}: it has no say in its failover"),
            format!("{} SENTINEL MONITOR {name} {} {} {}", tool(address), at.0, at.1, all / 2 + 1),
        );
    }
    let has_majority = 2 * (all - silent.len() - unknown.len()) > all;
    for (address, why) in silent {
        let (weight, so) = if has_majority {
            (Weight::Warning, "one more may be lost than seems")
        } else {
            (Weight::Grave, "no majority is left, and there is no failover")
        };
        findings.add(
            Id::SentinelUnreachable,
            weight,
            format!("the Sentinel {address} does not answer ({why}): {so}"),
            format!("start it, or see what keeps this machine from it: {} PING", tool(address)),
        );
    }
}

/// It answers as ever, which is why nobody notices.
fn tilt(now: Duration, group: &GroupFacts, findings: &mut Findings<'_>) {
    let tilted = group.seen.tilted(now);
    let acting = group.seen.views(now).count() - tilted.len();
    let has_majority = 2 * acting > group.seen.sentinels.len();
    for (address, _) in tilted {
        let (weight, so) = if has_majority {
            (Weight::Warning, "a failover has a vote less")
        } else {
            (Weight::Grave, "no majority acts, and there is no failover")
        };
        findings.add(
            Id::SentinelTilt,
            weight,
            format!("the Sentinel {address} is in TILT, because its clock jumped or its machine held it up for over 2 s: {so}"),
            "wait: it ends 30 s after it was held up last; if it comes again, give that machine more air or a steady clock",
        );
    }
}

fn disagreement(now: Duration, group: &GroupFacts, findings: &mut Findings<'_>) {
    let views: Vec<_> = group.seen.views(now).collect();
    let first = views.first().map(|(_, view)| &view.primary);
    if views.iter().all(|(_, view)| Some(&view.primary) == first) {
        return;
    }
    let said: Vec<String> =
        views.iter().map(|(who, view)| format!("{who} names {} (epoch {})", view.primary, view.epoch)).collect();
    let fix = match group.seen.named(now) {
        Some(right) => {
            let (host, port) = right.rsplit_once(':').unwrap_or((right, "6379"));
            let name = &group.seen.name;
            let wrong = views.iter().filter(|(_, view)| view.primary != right).map(|(who, view)| {
                let tool = tool(who);
                format!("{tool} SENTINEL REMOVE {name}; {tool} SENTINEL MONITOR {name} {host} {port} {}", view.quorum)
            });
            std::iter::once(format!("fulmar sentinel repair {name}, or by hand:"))
                .chain(wrong)
                .collect::<Vec<_>>()
                .join("\n")
        }
        None => {
            "wait for ten seconds in case a failover is going on; then make the ones that are wrong forget the group \
                 (SENTINEL REMOVE) and watch the right primary (SENTINEL MONITOR)"
                .to_owned()
        }
    };
    findings.grave(Id::SentinelsDisagree, format!("Sentinels disagree: {}", said.join(", ")), fix);
}

fn peers(group: &GroupFacts, views: &[(&str, &SentinelView)], findings: &mut Findings<'_>) {
    let all = group.seen.sentinels.len();
    for (address, view) in views.iter().filter(|(_, view)| view.others + 1 != all) {
        let known = view.others + 1;
        let (so, fix) = if known > all {
            let so = format!("a failover takes {} of them, and those that are gone cannot vote", known / 2 + 1);
            let fix = format!(
                "name all of them in backbone.sentinels; if some are gone for good: {} SENTINEL RESET {}",
                tool(address),
                group.seen.name
            );
            (so, fix)
        } else {
            (
                "it cannot ask the others for their votes".to_owned(),
                format!("see whether it reaches the others: {} SENTINEL SENTINELS {}", tool(address), group.seen.name),
            )
        };
        findings.warn(
            Id::SentinelPeers,
            format!("the Sentinel {address} counts {known} Sentinels for this group and {all} are configured: {so}"),
            fix,
        );
    }
}

fn quorum(group: &GroupFacts, views: &[(&str, &SentinelView)], findings: &mut Findings<'_>) {
    let all = group.seen.sentinels.len();
    let majority = all / 2 + 1;
    let too_many = views.iter().filter(|(_, view)| view.quorum > all);
    say_setting(
        group,
        findings,
        Id::SentinelQuorum,
        Weight::Grave,
        "quorum",
        &majority.to_string(),
        too_many,
        |view| format!("{}, and there are {all} Sentinels: there will never be a failover", view.quorum),
    );
    let too_few = views.iter().filter(|(_, view)| view.quorum < majority);
    say_setting(
        group,
        findings,
        Id::SentinelQuorum,
        Weight::Warning,
        "quorum",
        &majority.to_string(),
        too_few,
        |view| {
            format!(
                "{}, which is no majority of {all}: a few that are cut off call a healthy primary down",
                view.quorum
            )
        },
    );
}

fn settings(group: &GroupFacts, views: &[(&str, &SentinelView)], findings: &mut Findings<'_>) {
    for (weight, from, to) in [
        (Weight::Grave, FAILOVER_TIMEOUT_GRAVE, Duration::MAX),
        (Weight::Warning, FAILOVER_TIMEOUT_MAX, FAILOVER_TIMEOUT_GRAVE),
    ] {
        let late = views.iter().filter(|(_, view)| view.failover_timeout > from && view.failover_timeout <= to);
        say_setting(group, findings, Id::FailoverTimeout, weight, "failover-timeout", "10000", late, |view| {
            let (timeout, again) = (view.failover_timeout.as_secs(), 2 * view.failover_timeout.as_secs());
            format!("{timeout} s: a failover that fails is tried again after twice that, {again} s")
        });
    }
    let patience = ADVISED.down_after.as_millis().to_string();
    let late = views.iter().filter(|(_, view)| view.down_after > DOWN_AFTER_MAX);
    say_setting(group, findings, Id::DownAfter, Weight::Warning, "down-after-milliseconds", &patience, late, |view| {
        format!("{} ms: a dead primary is in its place for that long before anybody acts", view.down_after.as_millis())
    });
    let hasty = views.iter().filter(|(_, view)| view.down_after < DOWN_AFTER_MIN);
    say_setting(group, findings, Id::DownAfter, Weight::Warning, "down-after-milliseconds", &patience, hasty, |view| {
        format!(
            "{} ms: Sentinels reach a promoted primary up to 1.1 s late, call it dead and fail over again",
            view.down_after.as_millis()
        )
    });
    let many = views.iter().filter(|(_, view)| view.parallel_syncs > 1);
    say_setting(group, findings, Id::ParallelSyncs, Weight::Warning, "parallel-syncs", "1", many, |view| {
        format!("{}: after a failover so many replicas may be synced at once, over one line", view.parallel_syncs)
    });
}

fn epoch(group: &GroupFacts, views: &[(&str, &SentinelView)], findings: &mut Findings<'_>) {
    let at_zero: Vec<&str> = views.iter().filter(|(_, view)| view.epoch == 0).map(|(who, _)| *who).collect();
    if at_zero.is_empty() {
        return;
    }
    let name = &group.seen.name;
    findings.warn(
        Id::ConfigEpochZero,
        format!(
            "the configuration epoch of {name} is 0 at {}: a Sentinel that is made to name a wrong server is never put right by \
             the others, which it is from epoch 1 on",
            at_zero.join(", ")
        ),
        format!("one planned failover raises it: fulmar redis failover {name}"),
    );
}

/// One finding about a setting that several Sentinels may have alike; says it by values.
#[expect(clippy::too_many_arguments, reason = "one call reads as one row of a table")]
fn say_setting<'v>(
    group: &GroupFacts,
    findings: &mut Findings<'_>,
    id: Id,
    weight: Weight,
    setting: &str,
    better: &str,
    concerned: impl Iterator<Item = &'v (&'v str, &'v SentinelView)>,
    say: impl Fn(&SentinelView) -> String,
) {
    let (mut who, mut said) = (Vec::new(), Vec::new());
    for (address, view) in concerned {
        who.push(*address);
        let sentence = say(view);
        if !said.contains(&sentence) {
            said.push(sentence);
        }
    }
    if who.is_empty() {
        return;
    }
    let name = &group.seen.name;
    let fix = who.iter().map(|address| format!("{} SENTINEL SET {name} {setting} {better}", tool(address)));
    findings.add(
        id,
        weight,
        format!("{setting} of {name} is {} (at {})", said.join("; "), who.join(", ")),
        fix.collect::<Vec<_>>().join("\n"),
    );
}
