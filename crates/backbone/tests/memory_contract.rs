//! The embedded backbone keeps every promise of the suite.

use std::sync::Arc;
use std::time::Duration;

use fulmar_backbone::Backbone;
use fulmar_backbone::contract::{CASES, Fixture, Outage, run, run_clause};
use fulmar_backbone::memory::{CACHE_BYTES_MAX_DEFAULT, ManualClock, Memory};

fn fixture() -> Fixture {
    let clock = Arc::new(ManualClock::default());
    let memory = Memory::new(42, CACHE_BYTES_MAX_DEFAULT, Arc::clone(&clock) as _);
    Fixture {
        nodes: vec![Arc::new(memory) as Arc<dyn Backbone>],
        pass: Box::new(move |by: Duration| clock.pass(by)),
        waits: false,
        outage: Outage::never(),
    }
}

/// DEL-1
#[test]
fn what_is_accepted_reaches_every_subscription_once() {
    run_clause("DEL-1", fixture);
}

/// DEL-2, DEL-10
#[test]
fn there_is_one_order_for_all() {
    run_clause("DEL-2", fixture);
    run_clause("DEL-10", fixture);
}

/// DEL-3, DEL-5
#[test]
fn a_join_is_exact_while_others_publish_and_come_and_go() {
    run_clause("DEL-3", fixture);
    run_clause("DEL-5", fixture);
}

/// DEL-4, WS-81, WS-86
#[test]
fn members_are_users_and_their_edges_alternate() {
    for clause in ["DEL-4", "WS-81", "WS-86"] {
        run_clause(clause, fixture);
    }
}

/// DEL-6, DEL-9
#[test]
fn a_call_is_accepted_as_a_whole_or_not_at_all() {
    run_clause("DEL-6", fixture);
    run_clause("DEL-9", fixture);
}

/// DEL-13, DEL-14, DEL-15
#[test]
fn state_is_true_separate_and_gone_when_nobody_needs_it() {
    for clause in ["DEL-13", "DEL-14", "DEL-15"] {
        run_clause(clause, fixture);
    }
}

/// DEL-17, DEL-18, DEL-19
#[test]
fn users_come_and_go_in_one_order_and_are_ended_everywhere() {
    for clause in ["DEL-17", "DEL-18", "DEL-19"] {
        run_clause(clause, fixture);
    }
}

/// WS-93, WS-94
#[test]
fn cached_events_are_kept_for_their_time() {
    run_clause("WS-93", fixture);
    run_clause("WS-94", fixture);
}

/// HTTP-36, HTTP-44
#[test]
fn queries_see_what_is_occupied() {
    run_clause("HTTP-36", fixture);
    run_clause("HTTP-44", fixture);
}

/// RED-3, RED-17, RED-21, RED-24: there is no store that could be away.
#[test]
fn an_outage_of_the_store_loses_and_doubles_nothing() {
    for clause in ["RED-3", "RED-17", "RED-21", "RED-24"] {
        run_clause(clause, fixture);
    }
}

/// DEL-2
#[test]
fn the_suite_can_be_run_as_a_whole() {
    run(fixture);
    assert!(CASES.len() > 20);
}
