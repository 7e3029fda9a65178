//! Planners: what they plan for a whole group, and which guard refuses, with which figures, for each wound.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod world;

use std::time::Duration;

use fulmar_control::failover::plan_failover;
use fulmar_control::migrate::{plan_add_replica, plan_replace};
use fulmar_control::observed::{Fact, GroupSeen, Role, ServerState};
use fulmar_control::plan::{Action, Check, Decision, Guard, Plan, Sight, Verdict, Who};
use fulmar_control::reconcile::{plan_pre_stop, plan_repair};
use fulmar_control::sentinels::verify;
use world::{NOW, PRIMARY, change, last_sample, newcomer, replica, unsync, whole};

const NEW: &str = "10.0.0.99:6379";

fn go(decision: Decision) -> Plan {
    match decision {
        Decision::Go(plan) => plan,
        other => panic!("not a plan: {other:?}"),
    }
}

fn refused(decision: Decision) -> (Guard, String) {
    match decision {
        Decision::Refused(refusal) => (refusal.guard, refusal.figures),
        other => panic!("not refused: {other:?}"),
    }
}

fn actions(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| format!("{:?}", step.action).split([' ', '{']).next().unwrap().to_owned()).collect()
}

/// OP-9
#[test]
fn a_failover_holds_writes_first_and_ends_when_the_group_is_whole() {
    let plan = go(plan_failover(NOW, &whole(2), None, &[]));
    assert_eq!(actions(&plan), ["Pause", "FailOver", "Demote", "Watch"]);
    assert!(plan.guards.iter().all(|guard| guard.holds && !guard.figures.is_empty()));
    assert_eq!(plan.steps[1].done_when, Check::Promoted(vec![replica(0), replica(1)]));
}

/// OP-9
#[test]
fn a_wanted_replica_is_preferred_only_if_it_is_not_already_and_never_by_forbidding_another() {
    let to = |group: &GroupSeen| {
        let plan = go(plan_failover(NOW, group, Some(&replica(1)), &[]));
        let prefer = |action: &Action| match action {
            Action::Prefer { server, priority } => Some((server.clone(), *priority)),
            _ => None,
        };
        plan.steps.iter().filter_map(|step| prefer(&step.action)).collect::<Vec<_>>()
    };
    let mut group = whole(2);
    assert_eq!(to(&group), [(replica(1), 99), (replica(1), 100)]);
    change(&mut group, &replica(1), |state| state.priority = 10);
    assert_eq!(to(&group), []);
    change(&mut group, &replica(0), |state| state.priority = 1);
    assert_eq!(to(&group), [(replica(0), 2), (replica(1), 1), (replica(0), 1), (replica(1), 10)]);
    let already = plan_failover(NOW, &group, Some(PRIMARY), &[]);
    assert!(matches!(already, Decision::Nothing(_)), "{already:?}");
}

type Wound = fn(&mut GroupSeen);

/// OP-10
#[test]
fn each_guard_refuses_a_failover_with_its_figures_and_can_be_overridden_by_name() {
    let table: [(Guard, Wound, &str); 10] = [
        (Guard::Replicas, |group| unsync(group, &replica(1)), "1 of 2 replicas are online"),
        (
            Guard::Replicas,
            |group| group.server_mut(&replica(1)).state = None,
            "2 of 2 replicas are online, and 1 of these do not answer",
        ),
        (Guard::Resync, |group| last_sample(group, |s| s.figures.full_syncs += 1), "1 full syncs in the last 10 s"),
        (
            Guard::Resync,
            |group| change(group, PRIMARY, |s| s.figures.waiting_bytes = 3 << 20),
            "3145 kB wait for replicas beyond the backlog",
        ),
        (Guard::Lag, |group| change(group, &replica(0), |s| s.offset -= 90_000), "90 kB behind a stream of 1000 B/s"),
        (
            Guard::Sentinels,
            |group| group.sentinels[0].view.as_mut().unwrap().value.is_primary_up = false,
            "3 of 3 Sentinels answer, 2 name 10.0.0.1:6379 and see it up",
        ),
        (
            Guard::Quiet,
            |group| group.sentinels[1].view.as_mut().unwrap().value.is_failing_over = true,
            "10.0.1.2:26379 says that a failover is going on",
        ),
        (
            Guard::SentinelTilt,
            |group| group.sentinels[2].view.as_mut().unwrap().value.tilted_for = Some(Duration::from_secs(4)),
            "in TILT, in which a Sentinel fails nothing over: 1 of 3 (10.0.1.3:26379 for 4 s)",
        ),
        (
            Guard::StrayPrimary,
            |group| {
                change(group, &replica(1), |s| s.role = Role::Primary(Vec::new()));
                group.capacity.replicas = Some(1);
            },
            "10.0.0.3:6379 takes writes too",
        ),
        (
            Guard::Promotable,
            |group| (0..2).for_each(|number| change(group, &replica(number), |s| s.priority = 0)),
            "0 replicas have a priority above 0",
        ),
    ];
    for (guard, hurt, figures) in table {
        let mut group = whole(2);
        hurt(&mut group);
        let (no, said) = refused(plan_failover(NOW, &group, None, &[]));
        assert_eq!(no, guard);
        assert!(said.contains(figures), "{guard:?}: {said}");
        let plan = go(plan_failover(NOW, &group, None, &[guard]));
        assert!(plan.guards.iter().any(|asked| asked.guard == guard && !asked.holds && asked.is_overridden));
    }
}

/// OP-10 OP-11
#[test]
fn one_more_replica_is_admitted_or_refused_by_arithmetic() {
    let table: [(Guard, Wound, &str); 7] = [
        (Guard::Capacity, |group| group.capacity.link_mbit = None, "link_mbit is not known"),
        (Guard::Capacity, |group| group.capacity.memory_mb = None, "memory_mb is not known"),
        // 3 MB/s leave already, 1 kB/s is written: 70% of 32 Mbit/s are 2.8 MB/s.
        (
            Guard::Bandwidth,
            |group| {
                last_sample(group, |s| s.figures.sent_bytes += 30_000_000);
                group.capacity.link_mbit = Some(32);
            },
            "one more stream is 1000 B/s: 3003 kB/s of the 2800 kB/s",
        ),
        // 20 MB over what is left of 40 Mbit/s take 6.6 s, in which 1 MB/s is written.
        (
            Guard::Buffers,
            |group| {
                group.capacity.link_mbit = Some(40);
                last_sample(group, |s| s.offset += 10_000_000);
                change(group, PRIMARY, |s| (s.buffers.output_bytes_max, s.buffers.backlog_bytes) = (4 << 20, 1 << 20));
            },
            "20.0 MB of data take 5.0 s, in which 5008 kB are written, against the half of 4194 kB",
        ),
        (Guard::Memory, |group| group.capacity.memory_mb = Some(50), "10.0.0.1:6379 would use 50.0 MB of 44.5 MB"),
        (Guard::NotEmpty, |group| change(group, NEW, |s| s.keys = 7), "holds 7 keys"),
        (Guard::Resync, |group| last_sample(group, |s| s.figures.full_syncs += 2), "2 full syncs"),
    ];
    let mut group = whole(2);
    newcomer(&mut group, NEW);
    assert_eq!(actions(&go(plan_add_replica(NOW, &group, NEW, &[]))), ["Attach"]);
    for (guard, hurt, figures) in table {
        let mut group = whole(2);
        newcomer(&mut group, NEW);
        hurt(&mut group);
        let (no, said) = refused(plan_add_replica(NOW, &group, NEW, &[]));
        assert_eq!(no, guard, "{said}");
        assert!(said.contains(figures), "{guard:?}: {said}");
        go(plan_add_replica(NOW, &group, NEW, &[guard]));
    }
    let again = plan_add_replica(NOW, &group, &replica(0), &[]);
    assert!(matches!(again, Decision::Nothing(_)), "{again:?}");
    change(&mut group, NEW, |state| state.identity = Some("fulmar/g2".to_owned()));
    assert_eq!(refused(plan_add_replica(NOW, &group, NEW, &Guard::ALL)).0, Guard::Identity);
}

/// OP-12
#[test]
fn a_replacement_adds_first_and_removes_last() {
    let mut group = whole(2);
    newcomer(&mut group, NEW);
    let plan = go(plan_replace(NOW, &group, &replica(0), NEW, &[]));
    assert_eq!(actions(&plan), ["Attach", "Detach", "Relearn", "Relearn", "Relearn"]);
    let plan = go(plan_replace(NOW, &group, PRIMARY, NEW, &[]));
    let all = ["Attach", "Pause", "FailOver", "Demote", "Watch", "Detach", "Relearn", "Relearn", "Relearn"];
    assert_eq!(actions(&plan), all);
    assert!(plan.afterwards.contains("stop it"));
    assert!(plan.steps[2].done_when.to_string().contains(NEW), "the new one may be promoted as well");
    assert_eq!(refused(plan_replace(NOW, &group, "10.9.9.9:1", NEW, &[])).0, Guard::Sight);
    // Two servers, of which one goes and none comes.
    let mut pair = whole(1);
    newcomer(&mut pair, NEW);
    unsync(&mut pair, &replica(0));
    assert_eq!(refused(plan_replace(NOW, &pair, PRIMARY, NEW, &[])).0, Guard::Replicas);
}

/// OP-13
#[test]
fn a_process_may_be_stopped_when_it_is_no_primary_and_enough_copies_are_left() {
    let mut group = whole(2);
    assert_eq!(actions(&go(plan_pre_stop(NOW, &group, PRIMARY, &[]))), ["Pause", "FailOver", "Demote", "Watch"]);
    assert_eq!(actions(&go(plan_pre_stop(NOW, &group, &replica(0), &[]))), ["Watch"]);
    unsync(&mut group, &replica(1));
    let (guard, figures) = refused(plan_pre_stop(NOW, &group, &replica(0), &[]));
    assert_eq!(
        (guard, figures.as_str()),
        (Guard::Copies, "1 complete copies are left without 10.0.0.2:6379; 2 must be")
    );
    change(&mut group, &replica(0), |state| state.role = Role::Primary(Vec::new()));
    assert_eq!(refused(plan_pre_stop(NOW, &group, &replica(0), &[])).0, Guard::StrayPrimary);
}

/// OP-21
#[test]
fn nothing_is_taken_from_a_group_while_a_sentinel_is_in_tilt() {
    let mut group = whole(2);
    newcomer(&mut group, NEW);
    group.sentinels[0].view.as_mut().unwrap().value.tilted_for = Some(Duration::ZERO);
    let tilt = [Guard::SentinelTilt];
    let all: [fn(&GroupSeen, &[Guard]) -> Decision; 5] = [
        |group, overridden| plan_failover(NOW, group, None, overridden),
        |group, overridden| plan_pre_stop(NOW, group, PRIMARY, overridden),
        |group, overridden| plan_pre_stop(NOW, group, &replica(0), overridden),
        |group, overridden| plan_replace(NOW, group, PRIMARY, NEW, overridden),
        |group, overridden| plan_replace(NOW, group, &replica(0), NEW, overridden),
    ];
    for plan in all {
        assert_eq!(refused(plan(&group, &[])).0, Guard::SentinelTilt);
        let asked = go(plan(&group, &tilt)).guards;
        assert_eq!(asked.iter().filter(|asked| asked.guard == Guard::SentinelTilt && asked.is_overridden).count(), 1);
    }
    // A copy more is no risk.
    go(plan_add_replica(NOW, &group, NEW, &[]));
}

/// OP-14
#[test]
fn sentinels_are_put_right_by_role_and_identity_and_not_by_vote() {
    let mut group = whole(2);
    assert!(matches!(plan_repair(NOW, &group, None, &[]), Decision::Nothing(_)));
    assert!(verify(NOW, &group).is_empty());
    let mut stranger = world::state(Role::Primary(Vec::new()), 5);
    stranger.identity = Some("fulmar/g2".to_owned());
    group.server_mut("10.7.7.7:6379").note(NOW, stranger);
    for number in [0, 1] {
        group.sentinels[number].view.as_mut().unwrap().value.primary = "10.7.7.7:6379".to_owned();
    }
    let plan = go(plan_repair(NOW, &group, None, &[]));
    assert_eq!(actions(&plan), ["Monitor", "Monitor", "Watch", "Watch"]);
    assert_eq!(plan.primary, PRIMARY);
    assert!(
        verify(NOW, &group)
            .iter()
            .any(|finding| finding.is_wrong && finding.what.contains("has the data of fulmar/g2"))
    );
    // Nobody that was seen is right, and the operator knows who is.
    change(&mut group, PRIMARY, |state| state.identity = None);
    assert_eq!(refused(plan_repair(NOW, &group, None, &[])).0, Guard::Sight);
    assert_eq!(refused(plan_repair(NOW, &group, Some("10.7.7.7:6379"), &Guard::ALL)).0, Guard::Identity);
}

/// OP-15
#[test]
fn only_what_was_seen_after_the_command_ends_a_step() {
    let group = whole(2);
    let check = Check::Primary(Who::from(PRIMARY));
    let judged = |since: Duration| check.judge(&group, Sight { now: NOW, since, successor: None });
    assert_eq!(judged(NOW), Verdict::Holds);
    assert_eq!(judged(NOW + Duration::from_millis(1)), Verdict::Not(format!("{PRIMARY} was not seen since")));
    let mut group = whole(2);
    let level = Check::Level { primary: PRIMARY.to_owned(), replicas: vec![replica(0)] };
    let sight = Sight { now: NOW, since: NOW, successor: None };
    assert_eq!(level.judge(&group, sight), Verdict::Holds);
    change(&mut group, &replica(0), |state: &mut ServerState| state.offset -= 5);
    assert_eq!(level.judge(&group, sight), Verdict::Not(format!("{} lacks 5 bytes of {PRIMARY}", replica(0))));
    let mut view = group.sentinels[0].view.clone().unwrap();
    view.value.is_failing_over = true;
    group.sentinels[0].view = Some(Fact { ..view });
    assert!(matches!(Check::Quiet.judge(&group, sight), Verdict::Not(_)));
}
