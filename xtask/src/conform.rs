//! The verb `conform`: official SDKs, as users install them, against the real binary.
//!
//! What is tested and how the SDKs get here is the business of `tests/sdk/run`; this builds the binary and passes it on.

use std::env;
use std::path::PathBuf;

use crate::project::{self, Failure, Outcome};
use crate::test::Totals;

const SUITES: &str = "tests/sdk/run";

/// Runs the named suites, or all.
pub fn run(sdks: &[String]) -> Outcome {
    counted(sdks).1
}

/// The same, with what the suites counted.
pub fn counted(sdks: &[String]) -> (Totals, Outcome) {
    let mut totals = Totals::default();
    let outcome = build().and_then(|binary| {
        project::announce("official SDKs");
        let mut command = project::command(SUITES, &["--binary", &binary.display().to_string()]);
        project::run_and_read(command.args(sdks), |line| {
            if let Some(read) = Totals::of_summary(line) {
                totals = read;
            }
        })
    });
    (totals, outcome)
}

fn build() -> Result<PathBuf, Failure> {
    project::announce("building the binary");
    project::run(&mut project::cargo(&["build", "--quiet", "--package", "fulmar"]))?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| project::root().join("target"), PathBuf::from);
    Ok(target.join("debug/fulmar"))
}
