//! Properties of every plan, against a group that does what it is told: whatever it looks like at first, and wherever the plan is
//! abandoned.

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use fulmar_control::failover::{PAUSE, plan_failover};
use fulmar_control::migrate::{plan_add_replica, plan_replace};
use fulmar_control::observed::GroupSeen;
use fulmar_control::plan::{Action, Decision, Guard, Plan, Step, Who};
use fulmar_control::reconcile::{plan_pre_stop, plan_repair};
use proptest::prelude::*;
use world::{NOW, PRIMARY, change, last_sample, newcomer, replica, unsync, whole};

const NEW: &str = "10.0.0.99:6379";

/// What a group holds, when every command does what it says.
#[derive(Clone)]
struct Truth {
    primary: String,
    /// Servers that have everything, the primary among them.
    complete: Vec<String>,
    /// Replicas by address, with priorities.
    priorities: BTreeMap<String, u32>,
    paused: Vec<(String, Duration)>,
}

impl Truth {
    fn of(group: &GroupSeen) -> Self {
        let state = group.primary(NOW).and_then(|primary| primary.fresh(NOW)).expect("the test sees a primary");
        let mut complete: Vec<String> = state.online().map(str::to_owned).collect();
        complete.push(PRIMARY.to_owned());
        let priorities = group.servers.iter().filter_map(|server| {
            let state = server.fresh(NOW)?;
            Some((server.address.clone(), state.priority))
        });
        Self { primary: PRIMARY.to_owned(), complete, priorities: priorities.collect(), paused: Vec::new() }
    }

    fn act(&mut self, step: &Step) {
        match &step.action {
            Action::Pause { server, hold } => self.paused.push((server.clone(), *hold)),
            Action::FailOver => {
                // Whom the Sentinel takes: never one without the data where the plan has waited for all of it.
                let waits = matches!(step.ready_when, fulmar_control::plan::Check::Level { .. });
                assert!(waits, "a failover waits until the replicas have everything");
                let held = self.paused.iter().any(|(server, _)| *server == self.primary);
                assert!(held, "writes are held before another is promoted");
                let chosen = self.complete.iter().find(|server| **server != self.primary).cloned();
                self.primary = chosen.expect("the step before saw a level replica");
            }
            Action::Demote { server, primary } => {
                assert_eq!(*primary, Who::Successor);
                self.paused.retain(|(paused, _)| paused != server);
            }
            Action::Attach { server, .. } => self.complete.push(server.clone()),
            Action::Detach { server, .. } => {
                assert_ne!(*server, self.primary, "a primary is never cut off");
                self.complete.retain(|complete| complete != server);
            }
            Action::Prefer { server, priority } => {
                self.priorities.insert(server.clone(), *priority);
            }
            Action::Resume { .. } | Action::Relearn { .. } | Action::Monitor { .. } | Action::Watch => {}
        }
    }
}

/// Every prefix of the plan leaves a group that needs nobody to come back.
fn is_safe(group: &GroupSeen, plan: &Plan) {
    let mut truth = Truth::of(group);
    let copies = truth.complete.len();
    let could_promote = truth.priorities.values().any(|priority| *priority > 0);
    for step in &plan.steps {
        truth.act(step);
        assert!(truth.complete.contains(&truth.primary), "the primary has everything: {plan:#?}");
        assert!(truth.complete.len() >= copies.min(2), "two copies where there were two: {plan:#?}");
        assert!(truth.paused.iter().all(|(_, hold)| *hold <= PAUSE), "a pause ends by itself");
        let can_promote = truth.priorities.values().any(|priority| *priority > 0);
        assert!(!could_promote || can_promote, "somebody can be promoted at every moment");
        assert!(step.within <= Duration::from_secs(600), "every step has an end");
        let holds = matches!(step.action, Action::Pause { .. } | Action::FailOver);
        let resumes = step.undo.iter().any(|undo| matches!(undo, Action::Resume { .. }));
        assert_eq!(holds, resumes, "who holds writes lets them go: {step:#?}");
    }
    assert!(truth.paused.is_empty(), "no pause is left");
}

fn decisions(group: &GroupSeen, now: Duration, overridden: &[Guard]) -> Vec<Decision> {
    vec![
        plan_failover(now, group, None, overridden),
        plan_failover(now, group, Some(&replica(0)), overridden),
        plan_add_replica(now, group, NEW, overridden),
        plan_replace(now, group, PRIMARY, NEW, overridden),
        plan_replace(now, group, &replica(0), NEW, overridden),
        plan_pre_stop(now, group, PRIMARY, overridden),
        plan_pre_stop(now, group, &replica(0), overridden),
        plan_repair(now, group, None, overridden),
    ]
}

/// Something that a group can be like.
#[derive(Debug, Clone)]
struct Wounds {
    replicas: usize,
    unsynced: Vec<bool>,
    priorities: Vec<u32>,
    lags: Vec<u64>,
    syncs: u64,
    sent: u64,
    dead_sentinels: usize,
    lost_sight: Vec<bool>,
}

fn wounds() -> impl Strategy<Value = Wounds> {
    (1_usize..5).prop_flat_map(|replicas| {
        let some = |p: f64| prop::collection::vec(prop::bool::weighted(p), replicas);
        (
            Just(replicas),
            some(0.2),
            prop::collection::vec(prop_oneof![Just(100_u32), Just(1), Just(0), 1_u32..4], replicas),
            prop::collection::vec(prop_oneof![9 => Just(0_u64), 1 => 0_u64..2_000_000], replicas),
            prop_oneof![5 => Just(0_u64), 1 => 0_u64..4],
            prop_oneof![5 => Just(0_u64), 1 => 0_u64..2_000_000_000],
            0_usize..3,
            some(0.1),
        )
            .prop_map(|(replicas, unsynced, priorities, lags, syncs, sent, dead_sentinels, lost_sight)| {
                Wounds { replicas, unsynced, priorities, lags, syncs, sent, dead_sentinels, lost_sight }
            })
    })
}

fn hurt(wounds: &Wounds) -> GroupSeen {
    let mut group = whole(wounds.replicas);
    newcomer(&mut group, NEW);
    for number in 0..wounds.replicas {
        let address = replica(number);
        if wounds.unsynced[number] {
            unsync(&mut group, &address);
        }
        change(&mut group, &address, |state| {
            state.priority = wounds.priorities[number];
            state.offset = state.offset.saturating_sub(wounds.lags[number]);
        });
        if wounds.lost_sight[number] {
            group.server_mut(&address).state = None;
        }
    }
    last_sample(&mut group, |sample| {
        sample.figures.full_syncs += wounds.syncs;
        sample.figures.sent_bytes += wounds.sent;
    });
    group.sentinels.iter_mut().take(wounds.dead_sentinels).for_each(|sentinel| sentinel.view = None);
    group
}

proptest! {
    /// OP-5 OP-6
    #[test]
    fn no_plan_leaves_fewer_than_two_copies_and_each_can_be_abandoned_anywhere(wounds in wounds()) {
        let group = hurt(&wounds);
        if group.primary(NOW).is_none() {
            return Ok(());
        }
        for decision in decisions(&group, NOW, &[]) {
            if let Decision::Go(plan) = decision {
                is_safe(&group, &plan);
            }
        }
    }

    /// OP-7
    #[test]
    fn whatever_is_overridden_stale_sight_refuses(wounds in wounds(), late in 4_u64..1_000, all in any::<bool>()) {
        let group = hurt(&wounds);
        let overridden: &[Guard] = if all { &Guard::ALL } else { &[] };
        for decision in decisions(&group, NOW + Duration::from_secs(late), overridden) {
            prop_assert!(matches!(&decision, Decision::Refused(refusal) if refusal.guard == Guard::Sight), "{decision:?}");
        }
    }

    /// OP-8
    #[test]
    fn another_group_s_data_refuses_whatever_is_overridden(wounds in wounds()) {
        let mut group = hurt(&wounds);
        prop_assume!(group.primary(NOW).is_some());
        change(&mut group, PRIMARY, |state| state.identity = Some("fulmar/g2".to_owned()));
        for decision in decisions(&group, NOW, &Guard::ALL) {
            let is_safe = match &decision {
                Decision::Refused(refusal) => matches!(refusal.guard, Guard::Identity | Guard::Sight),
                // Stopping a replica touches nobody's data.
                Decision::Go(plan) => plan.steps.iter().all(|step| step.action == Action::Watch),
                Decision::Nothing(_) => true,
            };
            prop_assert!(is_safe, "{decision:?}");
        }
    }
}
