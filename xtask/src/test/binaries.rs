//! The binaries of all Rust tests: built once, then run, those that mostly wait side by side.
//!
//! `cargo test` runs one binary after the other. Tests over real Redis spend their time on leases, holds and failovers, with both
//! cores idle, so together they would be two thirds of the suite; here they wait together.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use serde::Deserialize;

use super::Totals;
use crate::project::{self, Failure, Outcome};

/// So many wait side by side. More would make them late, and what they judge is mostly time.
const SIDE_BY_SIDE: usize = 3;

/// So much of what a failed binary says is said again at the end.
const REPORT_LINES_MAX: usize = 400;

/// Those that mostly wait, the longest first, so that none is left over when the others have ended.
const WAITING: [&str; 11] = [
    "redis_reshard",
    "operator",
    "redis_cluster_contract",
    "redis_contract",
    "redis_sentinel_contract",
    "doctor",
    "webhooks",
    "redis",
    "over_redis",
    "redis_durability",
    "redis_bus",
];

/// One binary of tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// The package it belongs to.
    pub package: String,
    /// The name that `cargo test --test` knows it by, or the crate's own for the tests within it.
    pub name: String,
    /// The program.
    pub file: PathBuf,
    /// Where it is to be run: its package's folder.
    pub folder: PathBuf,
}

/// A line of what cargo says in JSON, as far as it is about something built.
#[derive(Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

impl Binary {
    /// Reads a line of cargo's; `None` when it is about anything but a binary of tests.
    fn of_line(line: &str) -> Option<Self> {
        // Other lines have other fields: they are not artifacts.
        let artifact: Artifact = serde_json::from_str(line).ok()?;
        let file = artifact.executable.filter(|_| artifact.profile.test)?;
        let folder = artifact.manifest_path.parent()?.to_path_buf();
        let package = folder.file_name()?.to_string_lossy().into_owned();
        Some(Self { package, name: artifact.target.name, file, folder })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.file);
        command.current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    fn title(&self) -> String {
        format!("{}/{}", self.package, self.name)
    }
}

/// Builds all of them.
///
/// # Errors
/// Something does not compile.
pub fn build() -> Result<Vec<Binary>, Failure> {
    let mut command = project::cargo(&["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    let mut binaries = Vec::new();
    project::read(&mut command, |line| binaries.extend(Binary::of_line(line)))?;
    binaries.sort_by_key(Binary::title);
    Ok(binaries)
}

/// Runs them all, to the end, whatever fails.
pub fn run(binaries: &[Binary]) -> (Totals, Outcome) {
    if let Some(gone) = WAITING.iter().find(|name| binaries.iter().all(|binary| binary.name != **name)) {
        return (
            Totals::default(),
            Err(Failure(format!("no test is called {gone}: correct the list of those that wait"))),
        );
    }
    let place = |binary: &Binary| WAITING.iter().position(|name| *name == binary.name);
    let mut all = Sum::default();
    for binary in binaries.iter().filter(|binary| place(binary).is_none()) {
        println!("     Running {}", binary.title());
        let mut said = String::new();
        let outcome = project::run_and_read(&mut binary.command(), |line| {
            said.push_str(line);
            said.push('\n');
        });
        all.add(&binary.title(), &said, outcome.is_ok());
    }
    let mut waiting: Vec<_> = binaries.iter().filter_map(|binary| Some((place(binary)?, binary))).collect();
    waiting.sort_by_key(|(place, _)| *place);
    let commands = waiting.into_iter().map(|(_, binary)| (binary.title(), binary.command()));
    all.merge(side_by_side(commands.collect()));
    all.finish()
}

/// Runs those called `names` with `program` as the Redis they start.
pub fn run_over(program: &Path, names: &[&str], binaries: &[Binary]) -> (Totals, Outcome) {
    let is_wanted = |binary: &&Binary| names.contains(&binary.name.as_str());
    let commands = binaries.iter().filter(is_wanted).map(|binary| {
        let mut command = binary.command();
        command.env("FULMAR_TEST_REDIS", program);
        (binary.title(), command)
    });
    side_by_side(commands.collect()).finish()
}

/// What the binaries came to.
#[derive(Default)]
struct Sum {
    totals: Totals,
    failed: Vec<String>,
    /// What those say about it.
    reports: String,
}

impl Sum {
    fn add(&mut self, title: &str, said: &str, is_well: bool) {
        let mut totals = Totals::default();
        said.lines().for_each(|line| totals.take_in(line));
        if !is_well {
            // One that broke before it could count has failed all the same.
            totals.failed = totals.failed.max(1);
            self.failed.push(title.to_owned());
            self.reports.push_str(&report(said));
        }
        self.totals += totals;
    }

    fn merge(&mut self, other: Self) {
        self.totals += other.totals;
        self.failed.extend(other.failed);
        self.reports.push_str(&other.reports);
    }

    fn finish(self) -> (Totals, Outcome) {
        let Self { totals, failed, reports } = self;
        if failed.is_empty() {
            return (totals, Ok(()));
        }
        (totals, Err(Failure(format!("failed: {}\n{}", failed.join(", "), reports.trim_end()))))
    }
}

/// What a binary of tests says of those that failed, without backtraces: they stand where the binary ran.
fn report(said: &str) -> String {
    let mut report = String::new();
    let mut is_trace = false;
    let of_failures = said.lines().skip_while(|line| *line != "failures:").skip(1);
    for line in of_failures.take_while(|line| *line != "failures:").take(REPORT_LINES_MAX) {
        is_trace = line == "stack backtrace:" || (is_trace && !line.is_empty());
        if !is_trace && !line.is_empty() {
            report.push_str(line);
            report.push('\n');
        }
    }
    report
}

/// Runs these a few at a time. What one says is shown as a whole when it has ended.
fn side_by_side(commands: VecDeque<(String, Command)>) -> Sum {
    let (left, sum) = (Mutex::new(commands), Mutex::new(Sum::default()));
    let next = || left.lock().ok()?.pop_front();
    let work = || {
        while let Some((title, mut command)) = next() {
            println!("     Started {title}");
            let begun = Instant::now();
            let output = command.stderr(Stdio::piped()).output();
            // A thread that panicked left the sum whole: it is added to at the very end.
            let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            println!("     Running {title} took {} s", begun.elapsed().as_secs());
            match output {
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stdout);
                    print!("{said}{}", String::from_utf8_lossy(&output.stderr));
                    sum.add(&title, &said, output.status.success());
                }
                Err(error) => {
                    println!("{title} did not start: {error}");
                    sum.add(&title, "", false);
                }
            }
        }
    };
    thread::scope(|scope| (0..SIDE_BY_SIDE).for_each(|_| drop(scope.spawn(work))));
    sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_that_cargo_says_only_binaries_of_tests_are_taken() {
        let line = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"x","manifest_path":"/w/crates/cli/Cargo.toml",
                "target":{{"kind":["test"],"name":"operator"}},"profile":{{"opt_level":"0","test":{test}}},
                "features":[],"executable":{executable},"fresh":true}}"#
            )
        };
        let read = Binary::of_line(&line(true, r#""/w/target/debug/deps/operator-1""#));
        let (file, folder) = ("/w/target/debug/deps/operator-1".into(), "/w/crates/cli".into());
        assert_eq!(read, Some(Binary { package: "cli".to_owned(), name: "operator".to_owned(), file, folder }));
        assert_eq!(Binary::of_line(&line(false, r#""/w/target/debug/fulmar""#)), None);
        assert_eq!(Binary::of_line(&line(true, "null")), None);
        assert_eq!(Binary::of_line(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(Binary::of_line("   Compiling fulmar"), None);
    }

    #[test]
    fn what_waits_side_by_side_is_counted_as_a_whole_and_named_when_it_fails() {
        let shell = |name: &str, script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            (name.to_owned(), command)
        };
        let well =
            "echo 'test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s'";
        let bad = "echo 'test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s'; exit 101";
        let commands = [shell("one", well), shell("two", bad), shell("three", "exit 1"), shell("four", well)];
        let (totals, outcome) = side_by_side(commands.into()).finish();
        assert_eq!(totals, Totals { passed: 5, failed: 3, skipped: 2 });
        let said = outcome.err().map(|failure| failure.to_string()).unwrap_or_default();
        assert!(said.contains("two") && said.contains("three") && !said.contains("four"), "{said}");
    }

    #[test]
    fn what_failed_is_said_again_without_backtraces_and_without_what_passed() {
        let said = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\n\nthread 'b' panicked\n\
                    left: 1\nstack backtrace:\n   0: panic\n             at x.rs\nnote: some\n\nthread 'c' panicked\n\n\n\
                    failures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored";
        assert_eq!(report(said), "---- b stdout ----\nthread 'b' panicked\nleft: 1\nthread 'c' panicked\n");
        let mut sum = Sum::default();
        sum.add("one", said, false);
        sum.add("two", "", false);
        let (totals, outcome) = sum.finish();
        assert_eq!(totals, Totals { passed: 1, failed: 2, skipped: 0 });
        let said = outcome.err().map(|failure| failure.to_string()).unwrap_or_default();
        assert!(said.starts_with("failed: one, two\n---- b stdout ----"), "{said}");
    }

    #[test]
    fn a_list_that_names_what_is_not_there_is_a_failure() {
        let (totals, outcome) = run(&[]);
        assert_eq!(totals, Totals::default());
        assert!(outcome.is_err());
    }
}
