//! The five published outages as far as an operator's decisions have a part in them: what is judged at each turn of the day, and
//! what is refused or planned. The outage lab replays the same days on real processes.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod world;

use fulmar_control::doctor::facts::{Arrangement, Deployment, NodeFacts};
use fulmar_control::doctor::{Id, examine};
use fulmar_control::failover::plan_failover;
use fulmar_control::health::{State, judge};
use fulmar_control::migrate::plan_add_replica;
use fulmar_control::observed::{GroupSeen, Role};
use fulmar_control::plan::{Action, Decision, Guard};
use fulmar_control::reconcile::{plan_pre_stop, plan_repair};
use world::{NOW, PRIMARY, change, last_sample, newcomer, replica, state, unsync, whole};

const STRANGER: &str = "10.7.7.7:6379";

fn judged(group: &GroupSeen) -> Vec<&'static str> {
    judge(NOW, group).iter().map(State::name).collect()
}

fn refused_by(decision: Decision) -> Guard {
    match decision {
        Decision::Refused(refusal) => refusal.guard,
        other => panic!("not refused: {other:?}"),
    }
}

fn actions(decision: Decision) -> Vec<Action> {
    match decision {
        Decision::Go(plan) => plan.steps.into_iter().map(|step| step.action).collect(),
        other => panic!("not a plan: {other:?}"),
    }
}

/// A primary on a line of 40 Mbit/s that writes ever more, with buffers that were made for less.
fn on_a_narrow_line(replicas: usize) -> GroupSeen {
    let mut group = whole(replicas);
    group.capacity.link_mbit = Some(40);
    change(&mut group, PRIMARY, |s| (s.buffers.output_bytes_max, s.buffers.backlog_bytes) = (4 << 20, 1 << 20));
    last_sample(&mut group, |sample| {
        sample.offset += 10_000_000;
        sample.figures.sent_bytes += 20_000_000;
    });
    group
}

/// Three more replicas ask for everything at once, and none of them comes online.
fn in_a_loop() -> GroupSeen {
    let mut group = on_a_narrow_line(5);
    (2..5).for_each(|number| unsync(&mut group, &replica(number)));
    last_sample(&mut group, |sample| sample.figures.full_syncs += 5);
    change(&mut group, PRIMARY, |s| s.figures.waiting_bytes = 3 << 20);
    group
}

/// DOC-17 INC-2019-12-06: the binary went back and the configuration did not.
#[test]
fn a_roll_back_of_one_half_is_seen_on_the_nodes_while_it_goes_on() {
    let node = |name: &str, release: &str, settings: &str| NodeFacts {
        name: name.to_owned(),
        release: release.to_owned(),
        settings: settings.to_owned(),
        ..NodeFacts::default()
    };
    let found = |nodes: Vec<NodeFacts>| {
        let findings = examine(NOW, &Deployment { arrangement: Arrangement::Sentinel, nodes, ..Deployment::default() });
        let is_of_the_day = |id: &Id| [Id::ReleasesDiffer, Id::SettingsDiffer].contains(id);
        findings.into_iter().map(|finding| finding.id).filter(is_of_the_day).collect::<Vec<_>>()
    };
    let (old, new) = (|name| node(name, "1.0.0", "aa"), |name| node(name, "1.1.0", "bb"));
    assert_eq!(found(vec![old("a"), old("b")]), []);
    assert_eq!(found(vec![old("a"), new("b")]), [Id::ReleasesDiffer, Id::SettingsDiffer], "the release goes out");
    assert_eq!(found(vec![node("a", "1.0.0", "bb"), new("b")]), [Id::ReleasesDiffer], "the binary alone goes back");
}

/// OP-3 OP-14 INC-2020-03-18: a Sentinel names another group's primary, then a replica.
#[test]
fn a_sentinel_that_is_wrong_changes_nothing_and_is_put_right_by_who_the_server_is() {
    let mut group = whole(2);
    let mut stranger = state(Role::Primary(Vec::new()), 5);
    stranger.identity = Some("fulmar/g2".to_owned());
    group.server_mut(STRANGER).note(NOW, stranger);
    group.sentinels[0].view.as_mut().unwrap().value.primary = STRANGER.to_owned();
    assert!(judged(&group).contains(&"sentinels-disagree") && judged(&group).contains(&"wrong-identity"));
    assert_eq!(group.named(NOW), Some(PRIMARY), "the others decide");
    assert_eq!(refused_by(plan_failover(NOW, &group, None, &[])), Guard::Sentinels);
    for sentinel in &mut group.sentinels {
        sentinel.view.as_mut().unwrap().value.primary = STRANGER.to_owned();
    }
    let repair = actions(plan_repair(NOW, &group, Some(PRIMARY), &[]));
    let monitors = repair.iter().filter(|action| matches!(action, Action::Monitor { .. })).count();
    assert_eq!(monitors, 3, "{repair:?}");
    assert_eq!(refused_by(plan_repair(NOW, &group, Some(STRANGER), &Guard::ALL)), Guard::Identity, "whoever says so");
}

/// OP-3 OP-10 OP-11 INC-2021-11-11: three replicas more at once, and a failover issued without looking.
#[test]
fn one_more_replica_is_refused_before_the_loop_and_a_failover_in_it() {
    const MORE: &str = "10.0.0.99:6379";
    let mut group = on_a_narrow_line(2);
    newcomer(&mut group, MORE);
    assert_eq!(refused_by(plan_add_replica(NOW, &group, MORE, &[])), Guard::Buffers);
    let mut group = in_a_loop();
    for state in ["replica-missing", "resync-loop", "link-saturated"] {
        assert!(judged(&group).contains(&state), "{state}: {:?}", judged(&group));
    }
    newcomer(&mut group, MORE);
    assert_eq!(refused_by(plan_add_replica(NOW, &group, MORE, &[])), Guard::Resync);
    assert_eq!(refused_by(plan_failover(NOW, &group, None, &[])), Guard::Replicas);
    assert_eq!(refused_by(plan_failover(NOW, &group, None, &[Guard::Replicas])), Guard::Resync);
    let mut lagging = whole(2);
    change(&mut lagging, &replica(0), |state| state.offset -= 900_000);
    assert_eq!(refused_by(plan_failover(NOW, &lagging, None, &[])), Guard::Lag, "it would lose what that one lacks");
}

/// OP-3 OP-10 INC-2022-03-21: the line is full, a failover is forced.
#[test]
fn a_full_line_is_named_with_its_figures_and_a_forced_failover_still_holds_writes_first() {
    let mut group = on_a_narrow_line(2);
    last_sample(&mut group, |sample| sample.figures.sent_bytes += 40_000_000);
    let states = judge(NOW, &group);
    let full = states.iter().find(|state| state.name() == "link-saturated").expect("it is named").to_string();
    assert!(full.contains("of 5000 kB/s"), "{full}");
    let group = in_a_loop();
    let forced = actions(plan_failover(NOW, &group, None, &[Guard::Replicas, Guard::Resync, Guard::Lag]));
    assert!(matches!(forced[..], [Action::Pause { .. }, Action::FailOver, Action::Demote { .. }, Action::Watch]));
}

/// OP-9 OP-13 INC-2022-04-11: a termination script that asks for a failover and does not wait.
#[test]
fn a_primary_is_stopped_only_behind_a_plan_that_ends_with_its_successor_whole() {
    let mut group = whole(2);
    let Decision::Go(plan) = plan_pre_stop(NOW, &group, PRIMARY, &[]) else { panic!("a plan") };
    let last = plan.steps.last().unwrap();
    assert!(matches!(last.action, Action::Watch) && last.done_when.to_string().contains("online"), "{last:?}");
    let undone_until_promoted = plan.steps.iter().take_while(|step| !matches!(step.action, Action::Demote { .. }));
    assert!(undone_until_promoted.into_iter().all(|step| step.undo.iter().any(|a| matches!(a, Action::Resume { .. }))));
    group.sentinels[1].view.as_mut().unwrap().value.is_failing_over = true;
    assert_eq!(refused_by(plan_pre_stop(NOW, &group, PRIMARY, &[])), Guard::Quiet, "another failover is going on");
    let mut contended = whole(2);
    change(&mut contended, &replica(0), |state| state.role = Role::Primary(Vec::new()));
    contended.capacity.replicas = Some(1);
    assert!(judged(&contended).contains(&"stray-primary"));
    assert_eq!(refused_by(plan_pre_stop(NOW, &contended, PRIMARY, &[])), Guard::StrayPrimary);
}
