//! `cargo xtask faults`: real Redis, Sentinels and nodes under load, hurt on purpose, and every publish and receipt compared.
//!
//! It promises nothing itself: what is promised for each fault stands in `case`. It ends everything it has started, also when it
//! is interrupted, and every run is bounded in time.

mod case;
pub mod deeds;
pub mod interrupt;
mod isolation;
mod naive;
mod output_limit;
pub mod presence;
mod random;
mod redis_cluster;
mod report;
mod reshard;
pub mod stage;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use naive::{NaiveArgs, serve as serve_naively};

use case::{CASES, Case};
use report::Run;
use stage::{Setting, Stage, failure};

use crate::project::{self, Failure, Outcome};

/// A run that takes longer is ended, over what `random` is asked for.
const RUN_MAX: Duration = Duration::from_secs(300);
const OPEN_FILES_MIN: u64 = 4_096;

/// Options of `cargo xtask faults`.
#[derive(Debug, Clone, clap::Args)]
pub struct FaultsArgs {
    /// Which faults; all but those of `random` when none is named
    cases: Vec<String>,
    /// The first seed: it chooses the moment and the victim
    #[arg(long)]
    seed: Option<u64>,
    /// Seeds per case; 3, or 1 with --seed or --quick
    #[arg(long)]
    seeds: Option<u64>,
    /// Less load and shorter waits: shows that it works
    #[arg(long)]
    quick: bool,
    /// List the cases
    #[arg(long)]
    list: bool,
    /// How long `random` and `random-wires` go on
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Run this binary instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Run nodes that only PUBLISH and SUBSCRIBE instead of ours: shows that a fault is felt
    #[arg(long, conflicts_with = "binary")]
    naive: bool,
}

/// Runs what is asked for.
pub fn run(args: &FaultsArgs) -> Outcome {
    if args.list {
        CASES.iter().for_each(|case| println!("{:<24} {}", case.name, case.what));
        return Ok(());
    }
    let cases = chosen(&args.cases)?;
    if cases.iter().any(|case| case.setting != Setting::Embedded) && !fulmar_rig::is_available() {
        return Err(Failure("there is no Redis here: cargo xtask setup".to_owned()));
    }
    let open_files = crate::bench::raise_open_files();
    if open_files < OPEN_FILES_MIN {
        return Err(Failure(format!("only {open_files} files may be open; {OPEN_FILES_MIN} are needed (ulimit -n)")));
    }
    let program = program(args)?;
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs() % 100_000);
    let first = args.seed.unwrap_or_else(clock);
    let seeds = args.seeds.unwrap_or(if args.quick || args.seed.is_some() { 1 } else { 3 });
    let mut runs = Vec::new();
    for case in cases {
        for seed in first..first + seeds {
            let run = run_one(case, seed, args, &program);
            run.print();
            runs.push(run);
            if interrupt::is_interrupted() {
                return Err(Failure("interrupted".to_owned()));
            }
        }
    }
    report::print_table(&runs);
    let missed = runs.iter().filter(|run| !run.misses.is_empty()).count();
    println!("{} passed, {missed} failed, 0 skipped", runs.len() - missed);
    if missed == 0 { Ok(()) } else { Err(Failure(String::new())) }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Case>, Failure> {
    if names.is_empty() {
        return Ok(CASES.iter().filter(|case| !case.is_endless()).collect());
    }
    let find = |name: &String| {
        let found = CASES.iter().find(|case| case.name == name);
        found.ok_or_else(|| Failure(format!("there is no case {name}; see --list")))
    };
    names.iter().map(find).collect()
}

/// The binary as users have it.
fn program(args: &FaultsArgs) -> Result<PathBuf, Failure> {
    if let Some(program) = &args.binary {
        return Ok(program.clone());
    }
    if args.naive {
        return std::env::current_exe().map_err(|error| Failure(format!("cannot find myself: {error}")));
    }
    project::run(&mut project::cargo(&["build", "--release", "--quiet", "--package", "fulmar"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| project::root().join("target"), PathBuf::from);
    Ok(target.join("release/fulmar"))
}

fn run_one(case: &'static Case, seed: u64, args: &FaultsArgs, program: &Path) -> Run {
    let more = if case.is_endless() { args.seconds } else { 0 };
    interrupt::watch(RUN_MAX + Duration::from_secs(more));
    let begun = Instant::now();
    let mut run =
        Run { name: case.name, seed, verdict: None, misses: Vec::new(), notes: Vec::new(), took: Duration::ZERO };
    match Stage::set(case.setting, program, seed, args.quick) {
        Ok(mut stage) => {
            stage.random_s = args.seconds;
            if let Err(failure) = perform(case, &mut stage, &mut run) {
                run.misses.push(failure.0);
            }
            run.notes.extend(stage.notes.drain(..).map(|(_, words)| words));
            run.misses.append(&mut stage.wrongs);
            let folder = project::root().join(format!("target/faults/{}-{seed}", case.name));
            if !run.misses.is_empty() && stage.keep_logs(&folder).is_ok() {
                run.notes.push(format!("what they wrote is in {}", folder.display()));
            }
        }
        Err(failure) => run.misses.push(failure.0),
    }
    interrupt::unwatch();
    run.took = begun.elapsed();
    run
}

/// Begins, does the deed, and judges. A deed that breaks off is judged as well.
fn perform(case: &Case, stage: &mut Stage, run: &mut Run) -> Outcome {
    (case.begin)(stage)?;
    let done = (case.deed)(stage);
    if let Some(load) = stage.load.take() {
        let ledger = load.end().map_err(failure)?;
        let excused = case.allowed.excused.iter();
        let excuses = excused.fold(stage.excuses.clone(), |excuses, node| excuses.gone(*node, 0..u64::MAX));
        let verdict = ledger.verdict_but_for(&excuses);
        run.misses = case::misses(&case.allowed, &verdict);
        let throughput = ledger.throughput(&excuses);
        run.notes.push(throughput.to_string());
        run.misses.extend(throughput.miss().filter(|_| !case.allowed.must_fail));
        if let Some(compared) = stage.bystanders.as_ref().map(|bystanders| bystanders.compare(&ledger)) {
            run.notes.push(compared.to_string());
            run.misses.extend(compared.miss(stage.is_quick));
        }
        run.verdict = Some(verdict);
    }
    for (number, node) in stage.nodes.iter().enumerate() {
        if node.log().contains("panicked") {
            run.misses.push(format!("node {number} panicked"));
        }
    }
    done
}
