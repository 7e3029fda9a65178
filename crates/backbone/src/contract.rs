//! The suite every backbone must pass.
//!
//! An implementation calls [`run`] from a test of its own with a way to make a fresh [`Fixture`]; each case gets a new
//! one. Cases panic with a sentence when a promise is broken, which is what a test wants and nothing else does: this
//! module is for tests, of this crate and of others, and needs nothing that a library does not have.
//!
//! Nothing here assumes that answers and deliveries come at once, that there is one node, or how positions are spaced;
//! and nothing sleeps. Where a case says that something was *not* heard, it first publishes a marker and waits for it:
//! a channel has one order, so whatever was to come before the marker has come. Random choices are seeded.

mod cases;
mod members;
mod outage;
mod promises;
mod users;
mod world;

use std::sync::Arc;
use std::time::Duration;

use crate::Backbone;

/// What a case runs against.
pub struct Fixture {
    /// The nodes of one deployment, at least one. Workers are spread over them in turn.
    pub nodes: Vec<Arc<dyn Backbone>>,
    /// Lets time pass for the backbone, by a clock that is moved or by waiting.
    pub pass: Box<dyn Fn(Duration) + Send + Sync>,
    /// Whether that is by waiting: cases then let it pass less often.
    pub waits: bool,
    /// Makes an outage, and ends it.
    pub outage: Outage,
}

/// One promise and how it is checked.
#[derive(Clone, Copy)]
pub struct Case {
    /// The clause of `spec/`.
    pub clause: &'static str,
    /// What is promised.
    pub promise: &'static str,
    /// Panics when the promise is broken.
    pub check: fn(&Fixture),
}

pub use self::outage::Outage;
pub use self::promises::CASES;

/// Checks every promise, each against a fixture of its own.
///
/// # Panics
/// When one is broken; which one is printed to standard error.
pub fn run(make: impl Fn() -> Fixture) {
    check_all(CASES, make);
}

/// Checks the promises of one clause.
///
/// # Panics
/// When one is broken, or when no case knows the clause.
pub fn run_clause(clause: &str, make: impl Fn() -> Fixture) {
    let cases: Vec<Case> = CASES.iter().copied().filter(|case| case.clause == clause).collect();
    assert!(!cases.is_empty(), "no case for {clause}");
    check_all(&cases, make);
}

fn check_all(cases: &[Case], make: impl Fn() -> Fixture) {
    for case in cases {
        let blame = Blame(case);
        (case.check)(&make());
        std::mem::forget(blame);
    }
}

/// Says which promise was broken when a check unwinds.
struct Blame<'a>(&'a Case);

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        eprintln!("broken: {} {}", self.0.clause, self.0.promise);
    }
}
