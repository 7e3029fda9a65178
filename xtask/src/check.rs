//! The verb `check`: what can be said of the code without running the product.
//!
//! All of it runs even when something fails early, so that one call shows everything.

use crate::project::{self, Failure, Outcome};
use crate::{spec, tidy};

/// One check: its name and what does it.
type Check = (&'static str, fn() -> Outcome);

/// The checks in the order in which they run.
pub const CHECKS: [Check; 4] =
    [("fmt", formatting), ("tidy", || tidy::run(false)), ("spec", spec::run), ("clippy", clippy)];

/// Runs every check.
pub fn run() -> Outcome {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        project::announce(name);
        if let Err(failure) = check() {
            println!("{failure}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        println!("check: all is well");
        return Ok(());
    }
    Err(Failure(format!("check: failed: {}", failed.join(", "))))
}

fn formatting() -> Outcome {
    project::run(&mut project::cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Outcome {
    project::run(&mut project::cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
}
