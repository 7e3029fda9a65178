//! The verb `sim`: the random walk through a world in memory, by a seed that failed before or by new ones.

use crate::project::{self, Outcome};

/// Walks `seed`, or for a minute seeds that nobody has walked.
pub fn run(seed: Option<u64>) -> Outcome {
    let seed = seed.map(|seed| seed.to_string());
    let mut arguments = vec!["run", "--quiet", "--package", "fulmar-sim", "--example", "walk", "--"];
    arguments.extend(seed.as_deref());
    project::run(&mut project::cargo(&arguments))
}
