//! The verb `test`: everything that tells whether the product works, in one go.
//!
//! No step stops the next: one run shows all that is wrong. The last line is the sum, in the words test runners use.

mod binaries;

use std::ops::AddAssign;
use std::process::Command;
use std::time::Instant;

use crate::project::{self, Failure, Outcome};
use crate::{check, conform, setup};
use binaries::Binary;

/// How many tests did what.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Totals {
    /// Reads `3 passed, 1 failed, 0 skipped`, which is how the suites of ours end.
    pub fn of_summary(line: &str) -> Option<Self> {
        let mut parts = line.split(", ");
        let mut part = |word: &str| parts.next()?.strip_suffix(word)?.trim_end().parse().ok();
        let read = Self { passed: part("passed")?, failed: part("failed")?, skipped: part("skipped")? };
        parts.next().is_none().then_some(read)
    }

    /// Reads the closing line of a Rust test binary.
    fn of_cargo(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |word: &str| {
            let part = counts.split("; ").find_map(|part| part.strip_suffix(word));
            part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        Some(Self { passed: count("passed"), failed: count("failed"), skipped: count("ignored") })
    }

    /// Adds what the closing line of a Rust test binary says, if it is one.
    fn take_in(&mut self, line: &str) {
        if let Some(read) = Self::of_cargo(line) {
            *self += read;
        }
    }

    /// A step that is either right or wrong.
    fn of_step(outcome: &Outcome) -> Self {
        let failed = u64::from(outcome.is_err());
        Self { passed: 1 - failed, failed, skipped: 0 }
    }

    fn line(self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Runs everything, with `fast` only the Rust tests, and with `valkey` only the suite over Valkey.
pub fn run(fast: bool, valkey: bool) -> Outcome {
    let begun = Instant::now();
    let mut steps = Steps::default();
    if !fast && !valkey {
        project::announce("what is installed");
        setup::run()?;
        for (name, check) in check::CHECKS {
            steps.run(name, || {
                let outcome = check();
                (Totals::of_step(&outcome), outcome)
            });
        }
    }
    let mut built = Vec::new();
    steps.run("build of tests", || match binaries::build() {
        Ok(binaries) => {
            built = binaries;
            (Totals::default(), Ok(()))
        }
        Err(failure) => (Totals::default(), Err(failure)),
    });
    if !valkey && !built.is_empty() {
        steps.run("Rust tests", || binaries::run(&built));
        steps.run("examples", examples);
    }
    if !fast && !built.is_empty() {
        steps.run("over Valkey", || suite_over_valkey(&built));
    }
    if !fast && !valkey {
        steps.run("faults, short", faults_in_short);
        steps.run("official SDKs", || conform::counted(&[]));
    }
    steps.finish(begun)
}

/// The examples in the documentation.
fn examples() -> (Totals, Outcome) {
    let mut totals = Totals::default();
    let mut command = project::cargo(&["test", "--workspace", "--doc", "--no-fail-fast"]);
    let outcome = project::run_and_read(&mut command, |line| totals.take_in(line));
    (totals, outcome)
}

/// The backbone's contract suite again, over every topology of Valkey: the tests before it ran over Redis where there is one.
fn suite_over_valkey(built: &[Binary]) -> (Totals, Outcome) {
    const SUITES: [&str; 3] = ["redis_contract", "redis_sentinel_contract", "redis_cluster_contract"];
    let Some(program) = fulmar_rig::valkey_program() else {
        println!("!! SKIPPED: there is no Valkey here (`cargo xtask setup` says why): {}", SUITES.join(", "));
        return (Totals { skipped: SUITES.len() as u64, ..Totals::default() }, Ok(()));
    };
    let said = Command::new(&program).arg("--version").output();
    let product =
        said.map_or_else(|error| error.to_string(), |said| String::from_utf8_lossy(&said.stdout).into_owned());
    println!("{} ({})", product.trim_end(), program.display());
    binaries::run_over(&program, &SUITES, built)
}

/// Rows of the table of `cargo xtask faults`, each in its short form. They run one after another: on two cores several deployments at
/// once would wait for each other, and what is late would say nothing.
///
/// Not here, but in `cargo xtask faults`, are:
/// - slots that move (`reshard`, `reshard-kill`), which the Rust tests `redis_reshard` and `operator` have;
/// - `presence` and its further cases: all that they judge they judge by three seconds, which a busy machine does not always leave them;
/// - `group-lost`: in windows of seven seconds another process's load looks like harm done to the other group;
/// - `single-restart`: a server that a busy machine starts slowly is back too late for a publisher that waits for three and a half
///   seconds, and a clear 503 is then right.
const ROWS: [&str; 17] = [
    "kill-primary",
    "hang-primary",
    "planned-failover",
    "lagging-replica",
    "wrong-sentinels",
    "sentinel-names-replica",
    "maxmemory",
    "subscriber-output-limit",
    "script-flush",
    "slow-node",
    "node-killed",
    "node-restarted",
    "fresh-node",
    "redis-late",
    "cluster-failover",
    "cluster-kill",
    "cluster-move",
];

/// Three nodes under load, hurt on purpose: the short form of `faults`, with the binary that the tests before it were run with.
fn faults_in_short() -> (Totals, Outcome) {
    let mut totals = Totals::default();
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return (totals, Err(Failure(format!("this program cannot be found: {error}")))),
    };
    let mut command = Command::new(own);
    command.arg("faults").args(ROWS).args(["--quick", "--seeds", "1"]);
    command.args(["--binary", "target/debug/fulmar"]);
    let outcome = project::run_and_read(&mut command, |line| {
        if let Some(read) = Totals::of_summary(line) {
            totals += read;
        }
    });
    (totals, outcome)
}

/// What the steps came to.
#[derive(Default)]
struct Steps {
    totals: Totals,
    lines: Vec<String>,
    failed: Vec<&'static str>,
    /// Why, to be said again at the end: between there and here lie thousands of lines.
    reports: Vec<String>,
}

impl Steps {
    fn run(&mut self, name: &'static str, step: impl FnOnce() -> (Totals, Outcome)) {
        project::announce(name);
        let begun = Instant::now();
        let (mut totals, outcome) = step();
        if let Err(failure) = &outcome {
            println!("{failure}");
            self.failed.push(name);
            self.reports.push(format!("{name}: {failure}"));
            // A step that broke before it could count (a compile error, a crash) is a failure all the same.
            totals.failed = totals.failed.max(1);
        }
        self.lines.push(format!("{name:<14} {:>4} s   {}", begun.elapsed().as_secs(), totals.line()));
        self.totals += totals;
    }

    fn finish(self, begun: Instant) -> Outcome {
        self.reports.iter().for_each(|report| println!("\n==> {report}"));
        println!("\n==> summary after {} s", begun.elapsed().as_secs());
        self.lines.iter().for_each(|line| println!("{line}"));
        let failed = !self.failed.is_empty() || self.totals.failed > 0;
        if failed {
            println!("failed: {}", self.failed.join(", "));
        }
        println!("{}", self.totals.line());
        if failed { Err(Failure(String::new())) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(passed: u64, failed: u64, skipped: u64) -> Totals {
        Totals { passed, failed, skipped }
    }

    #[test]
    fn closing_lines_of_rust_tests_are_understood() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.10s";
        assert_eq!(Totals::of_cargo(line), Some(totals(12, 2, 1)));
        assert_eq!(Totals::of_cargo("test a::b ... ok"), None);
    }

    #[test]
    fn closing_lines_of_our_suites_are_understood_and_look_like_ours() {
        let line = totals(3, 1, 2).line();
        assert_eq!(Totals::of_summary(&line), Some(totals(3, 1, 2)));
        for other in
            ["3 passed", "3 passed, 1 failed", "x passed, 1 failed, 2 skipped", "1 passed, 1 failed, 1 skipped, 1"]
        {
            assert_eq!(Totals::of_summary(other), None, "{other}");
        }
    }

    #[test]
    fn a_step_that_breaks_without_counting_is_one_failure() {
        let mut steps = Steps::default();
        steps.run("broken", || (Totals::default(), Err(Failure("did not compile".to_owned()))));
        steps.run("fine", || (totals(5, 0, 0), Ok(())));
        assert_eq!(steps.totals, totals(5, 1, 0));
        assert!(steps.finish(Instant::now()).is_err());
    }
}
