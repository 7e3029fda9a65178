//! `cargo xtask lab`: the published outages, replayed step by step on real Redis, Sentinels and nodes, with a ledger of each.
//!
//! It builds on the stage of `faults` and promises nothing itself: what may happen in a step stands in the day's table, and what did
//! happen is the ledger's word. It ends everything it has started, also when it is interrupted, and every day is bounded in time.

mod account;
mod d1;
mod d2;
mod d3;
mod d4;
mod d5;
mod day;
mod deploy;
mod fifty;
mod html;
mod lines;
mod lookout;
mod namespace;
mod picture;
mod report;
mod resync;
mod scene;
mod sdk;
mod supervisor;
mod timeline;
mod trace;
mod verbs;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use account::Account;
use day::{DAYS, Day};
use lines::{Wanted, Way};
use scene::Lab;

use crate::faults::interrupt;
use crate::project::{self, Failure, Outcome};

/// A day that takes longer is ended, by force and without its account.
const DAY_MAX: Duration = Duration::from_secs(130);
const OPEN_FILES_MIN: u64 = 8_192;
/// Recorded figures for tests of alert rules.
const TRACES: &str = "tests/traces";

/// Options of `cargo xtask lab`.
#[derive(Debug, Clone, clap::Args)]
pub struct LabArgs {
    /// Which days (D1 to D5); all when none is named
    days: Vec<String>,
    /// The seed: it chooses victims
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// List the days and their steps
    #[arg(long)]
    list: bool,
    /// Run this binary instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where the report goes
    #[arg(long, value_name = "FOLDER", default_value = "target/lab")]
    out: PathBuf,
    /// Keep the figures of each day as test data as well (tests/traces)
    #[arg(long)]
    record: bool,
    /// What caps a line where a day wants it
    #[arg(long, value_enum, default_value_t = Wanted::Auto)]
    lines: Wanted,
    /// The network namespace that was left for one of the lab's own
    #[arg(long, hide = true)]
    left: Option<String>,
}

/// Runs what is asked for.
pub fn run(args: &LabArgs) -> Outcome {
    if args.list {
        for day in &DAYS {
            println!("{}  {}  {}", day.name, day.id, day.title);
            day.steps.iter().for_each(|step| println!("      {}", step.name));
        }
        return Ok(());
    }
    let days = chosen(&args.days)?;
    if !fulmar_rig::is_available() {
        return Err(Failure("there is no Redis here: cargo xtask setup".to_owned()));
    }
    let open_files = crate::bench::raise_open_files();
    if open_files < OPEN_FILES_MIN {
        return Err(Failure(format!("only {open_files} files may be open; {OPEN_FILES_MIN} are needed (ulimit -n)")));
    }
    let way = match &args.left {
        Some(left) => namespace::settle(left).map(|()| Way::Namespace)?,
        None => lines::decide(args.lines, days.iter().any(|day| day.caps_lines()), lines::obstacle)?,
    };
    let programs = Programs::build(args, days.iter().any(|day| day.name == "D1"))?;
    if way == Way::Namespace && args.left.is_none() {
        // Everything that needs the world has been fetched and built by now.
        return Err(namespace::enter());
    }
    let out = project::root().join(&args.out);
    let mut accounts = Vec::new();
    for day in days {
        println!("\n== {} {}: {}", day.name, day.id, day.title);
        interrupt::watch(DAY_MAX);
        let account = replay(day, args.seed, &programs, &way);
        interrupt::unwatch();
        let account = account?;
        report::print(&account);
        keep(&account, args, &out)?;
        accounts.push(account);
        write(&out.join("report.html"), &html::page(&accounts))?;
        if interrupt::is_interrupted() {
            return Err(Failure("interrupted".to_owned()));
        }
    }
    report::print_table(&accounts);
    println!("report: {}", out.join("report.html").display());
    let missed = accounts.iter().filter(|account| account.verdict() == "MISSED").count();
    println!("{} passed, {missed} failed, 0 skipped", accounts.len() - missed);
    if missed == 0 { Ok(()) } else { Err(Failure(String::new())) }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Day>, Failure> {
    if names.is_empty() {
        return Ok(DAYS.iter().collect());
    }
    let find = |name: &String| {
        let found = DAYS.iter().find(|day| day.name.eq_ignore_ascii_case(name) || day.id.eq_ignore_ascii_case(name));
        found.ok_or_else(|| Failure(format!("there is no day {name}; see --list")))
    };
    names.iter().map(find).collect()
}

/// The binary, and the one that can fail as it is told.
struct Programs {
    sound: PathBuf,
    faulty: Option<PathBuf>,
}

impl Programs {
    fn build(args: &LabArgs, needs_faulty: bool) -> Result<Self, Failure> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| project::root().join("target"), PathBuf::from);
        let built = target.join("debug/fulmar");
        let copy = target.join("lab/fulmar-new");
        let is_built = args.left.is_some();
        if needs_faulty && !is_built {
            project::announce("building the binary that can fail as it is told");
            project::run(&mut project::cargo(&[
                "build",
                "--quiet",
                "--package",
                "fulmar",
                "--features",
                "lab-faults",
            ]))?;
            fs::create_dir_all(target.join("lab"))
                .and_then(|()| fs::copy(&built, &copy))
                .map_err(|error| Failure(format!("copying {} to {}: {error}", built.display(), copy.display())))?;
        }
        if (needs_faulty || args.binary.is_none()) && !is_built {
            // The other build has taken its place.
            project::announce("building the binary");
            project::run(&mut project::cargo(&["build", "--quiet", "--package", "fulmar"]))?;
        }
        Ok(Self { sound: args.binary.clone().unwrap_or(built), faulty: needs_faulty.then_some(copy) })
    }
}

/// What the hidden verb `lab-trial` does.
pub fn trial(left: &str) -> Outcome {
    namespace::trial(left)
}

fn replay(day: &'static Day, seed: u64, programs: &Programs, way: &Way) -> Result<Account, Failure> {
    let mut lab = Lab::open(day, &programs.sound, seed, way)?;
    lab.own.faulty.clone_from(&programs.faulty);
    Ok(lab.play(day, seed))
}

/// The figures of a day, beside the report and on demand as test data.
fn keep(account: &Account, args: &LabArgs, out: &Path) -> Outcome {
    let heading = [
        format!("{} {}: {}", account.day.name, account.day.id, account.day.title),
        "one value a second, in promtool's notation; recorded by `cargo xtask lab --record`".to_owned(),
    ];
    let mut heading = heading.to_vec();
    for step in &account.steps {
        let [from, to] = step.span.map(|at| at.as_secs());
        heading.push(format!("{from}-{to} s: {}", step.step.name));
    }
    let text = account.trace.write(&heading);
    write(&out.join(format!("{}.series", account.day.id.to_lowercase())), &text)?;
    if args.record {
        write(&project::root().join(TRACES).join(format!("{}.series", account.day.id.to_lowercase())), &text)?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Outcome {
    let folder = file.parent().unwrap_or(file);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(file, text))
        .map_err(|error| Failure(format!("writing {}: {error}", file.display())))
}
