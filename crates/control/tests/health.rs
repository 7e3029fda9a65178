//! What facts mean: one table, a wound per row, and the state that must be judged from it.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod world;

use std::time::Duration;

use fulmar_control::health::{State, Weight, judge};
use fulmar_control::observed::{GroupSeen, Role};
use world::{NOW, PRIMARY, change, last_sample, newcomer, replica, unsync, whole};

fn names(group: &GroupSeen) -> Vec<&'static str> {
    judge(NOW, group).iter().map(State::name).collect()
}

type Wound = fn(&mut GroupSeen);

/// OP-3
#[test]
fn each_wound_is_called_by_its_name() {
    let table: [(&str, Wound, &[&str]); 15] = [
        ("nothing", |_| {}, &["in-sync"]),
        ("connected and not online", |group| unsync(group, &replica(1)), &["replica-missing"]),
        ("two full syncs in ten seconds", |group| last_sample(group, |s| s.figures.full_syncs += 2), &["resync-loop"]),
        ("one full sync", |group| last_sample(group, |s| s.figures.full_syncs += 1), &["in-sync"]),
        (
            "buffers beyond the backlog",
            |group| change(group, PRIMARY, |s| s.figures.waiting_bytes = 2 << 20),
            &["link-saturated"],
        ),
        (
            "the line is full",
            |group| last_sample(group, |s| s.figures.sent_bytes += 1_000_000_000),
            &["link-saturated"],
        ),
        ("behind a slow stream", |group| change(group, &replica(0), |s| s.offset -= 90_000), &["lagging"]),
        (
            "as far behind a fast one",
            |group| {
                last_sample(group, |s| s.offset += 1_000_000);
                change(group, &replica(0), |s| s.offset -= 90_000);
            },
            &["in-sync"],
        ),
        (
            "memory runs out",
            |group| change(group, PRIMARY, |s| s.figures.max_bytes = 55_000_000),
            &["near-memory-limit"],
        ),
        (
            "memory as the operator grants it",
            |group| group.capacity.memory_mb = Some(60),
            // Every server of the group is there.
            &["near-memory-limit", "near-memory-limit", "near-memory-limit"],
        ),
        (
            "a second primary",
            |group| change(group, &replica(1), |s| s.role = Role::Primary(Vec::new())),
            &["stray-primary"],
        ),
        (
            "one Sentinel names another",
            |group| group.sentinels[2].view.as_mut().unwrap().value.primary = replica(0),
            &["sentinels-disagree"],
        ),
        ("a Sentinel is silent", |group| group.sentinels[0].view = None, &["unseen"]),
        (
            "another group's data",
            |group| change(group, &replica(0), |s| s.identity = Some("fulmar/g2".to_owned())),
            &["wrong-identity"],
        ),
        (
            "nobody is the primary",
            |group| group.sentinels.iter_mut().for_each(|s| s.view = None),
            &["no-primary", "unseen", "unseen", "unseen"],
        ),
    ];
    for (wound, hurt, expected) in table {
        let mut group = whole(2);
        hurt(&mut group);
        assert_eq!(names(&group), expected, "{wound}");
    }
}

/// OP-3: `connected_slaves` never falls in a resync loop; what is online does.
#[test]
fn a_loop_that_looks_alive_is_grave_and_says_its_figures() {
    let mut group = whole(5);
    unsync(&mut group, &replica(3));
    unsync(&mut group, &replica(4));
    last_sample(&mut group, |sample| sample.figures.full_syncs += 5);
    let states = judge(NOW, &group);
    assert!(states.iter().all(|state| state.weight() == Weight::Grave));
    let said: Vec<String> = states.iter().map(ToString::to_string).collect();
    assert_eq!(said[0], "3 of 5 replicas are online");
    assert_eq!(said[1], "replicas are synced again and again: 5 full syncs in 10 s");
}

/// OP-1
#[test]
fn what_was_seen_long_ago_is_no_sight() {
    let group = whole(2);
    let later = NOW + Duration::from_secs(4);
    let states = judge(later, &group);
    assert!(states.contains(&State::NoPrimary));
    assert_eq!(states.iter().filter(|state| matches!(state, State::Unseen { .. })).count(), 6);
    assert_eq!((group.copies(NOW), group.copies(later)), (3, 0));
}

/// OP-3
#[test]
fn an_empty_server_that_is_about_to_be_added_is_no_stray_of_the_group() {
    let mut group = whole(2);
    newcomer(&mut group, "10.0.0.9:6379");
    assert_eq!(names(&group), ["in-sync"]);
}
