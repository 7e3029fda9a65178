//! `cargo xtask bench`: the project's figures, each taken beside a bare reference server in the same run.
//!
//! A machine's absolute figures move by tens of percent from minute to minute, so only ratios are judged: reference and
//! ours alternate, pair by pair, and a case is met or not by the median of the pairs' ratios. Every delivery is counted
//! and checked; a server that loses one fails, however fast it is. Results are printed, never kept in the repository.

mod board;
mod case;
mod conn;
mod echo;
mod generator;
mod histogram;
mod process;
mod redis;
mod reference;
mod relay;
mod report;
mod sample;
mod wire;

use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use case::{Case, RedisPlan, Work};
use echo::{Echo, STALL_MAX};
use process::{Others, Server};
use report::{Outcome, Pairs, Row};
use sample::{Sample, Site};
use wire::Signer;

pub use process::raise_open_files;
pub use reference::{ReferenceArgs, run_reference};

const APP_ID: &str = "1";
const KEY: &str = "bench-key";
const SECRET: &str = "bench-secret";
/// A sample voided this often is given up, and its case with it.
const ATTEMPTS_MAX: u32 = 6;
const PAIRS_MAX: u32 = 50;
/// Channels of a node in the short form.
const QUICK_CHANNELS_MAX: u32 = 2_000;
/// Above this many cores of other work a sample waits, and is repeated, while there is patience left.
const OTHERS_MAX: f64 = 0.25;
const QUIET_LOOK: Duration = Duration::from_millis(400);
/// Below it the largest cases cannot have their connections.
const OPEN_FILES_MIN: u64 = 12_000;

/// Options of `cargo xtask bench`.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// Cases by name (folders of benches/cases); all when none is given
    cases: Vec<String>,
    /// A case by name, as above
    #[arg(long = "case", value_name = "NAME")]
    case: Vec<String>,
    /// Pairs of samples per case
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(PAIRS_MAX)))]
    pairs: u32,
    /// Length of each measured phase in milliseconds
    #[arg(long, default_value_t = 2500, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    sample_ms: u64,
    /// One pair of one second: shows that it works, not how fast
    #[arg(long)]
    quick: bool,
    /// Measure the reference alone
    #[arg(long)]
    reference_only: bool,
    /// Measure a server that already runs instead of ours; it must have the app 1 with key bench-key, secret bench-secret
    #[arg(long, value_name = "HOST:PORT,PID", conflicts_with = "reference_only")]
    against: Option<String>,
    /// Measure the server this command starts instead of ours; {port} stands for its port
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["reference_only", "against"])]
    against_command: Option<String>,
    /// Seconds to spend, in the whole run, on waiting for other work on the machine to end and on repeating samples it
    /// disturbed; then they are taken and marked
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(0..=3600))]
    patience_s: u64,
    /// Write all results to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// End with an error when a target is not met
    #[arg(long)]
    gate: bool,
    /// List the cases and why they exist
    #[arg(long)]
    list: bool,
}

/// What can end a bench, or one of its cases.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A case file is not understood.
    #[error("{file}: {source}")]
    Case {
        /// Which.
        file: String,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// No such case.
    #[error("there is no case {name}; there are {known}")]
    UnknownCase {
        /// As it was written.
        name: String,
        /// All there are.
        known: String,
    },
    /// The server lost, doubled, mixed up or refused something.
    #[error("{0}")]
    Peer(String),
    /// The echo beside the sample stalled every time.
    #[error("the machine stalled in each of {ATTEMPTS_MAX} attempts (last for {0:?}); nothing can be said")]
    Void(Duration),
    /// Something could not be built.
    #[error("cargo build of {0} failed")]
    Build(&'static str),
    /// An option cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// The summary of a run that showed something wrong.
    #[error("{failed} cases failed, {void} are void because the machine stalled, {missed} targets were not met")]
    Verdict {
        /// Cases with a wrong or lost delivery, or that could not run.
        failed: usize,
        /// Cases of which nothing can be said.
        void: usize,
        /// Cases that ran and were too dear.
        missed: usize,
    },
}

impl BenchError {
    fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io { doing: doing.into(), source }
    }
}

/// What stands in the place of ours.
enum Contender {
    Nobody,
    Ours(PathBuf),
    Running(SocketAddr, u32),
    Command(String),
}

/// Runs the cases, prints the table.
///
/// # Errors
/// Something could not be built or read, a case failed, or, with `--gate`, a target was not met.
pub fn run(args: &BenchArgs) -> Result<(), BenchError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let wanted: Vec<String> = args.cases.iter().chain(&args.case).cloned().collect();
    let cases = case::read_all(&root.join("benches/cases"), &wanted)?;
    if args.list {
        for case in &cases {
            println!("{}\n    {}", case.name, case.plan.why);
        }
        return Ok(());
    }
    if cfg!(debug_assertions) {
        return again_in_release(root);
    }
    let open_files = process::raise_open_files();
    if open_files < OPEN_FILES_MIN {
        println!("only {open_files} files may be open: cases with 10,000 connections will fail");
    }
    let mut bench = Bench {
        contender: contender(args, root)?,
        logs: target_folder()?.join("bench"),
        servers: None,
        echo: Echo::start().map_err(|e| BenchError::io("starting the echo", e))?,
        signer: Signer::new(APP_ID, KEY, SECRET),
        is_quick: args.quick,
        pairs: if args.quick { 1 } else { args.pairs },
        length: Duration::from_millis(if args.quick { 1000 } else { args.sample_ms }),
        patience: if args.quick { Duration::ZERO } else { Duration::from_secs(args.patience_s) },
    };
    fs::create_dir_all(&bench.logs).map_err(|e| BenchError::io("making the folder for logs", e))?;
    let rows: Vec<Row> = cases.iter().map(|case| bench.case(case)).collect();
    println!("\n{}", report::table(&rows));
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&rows).map_err(|e| BenchError::io("writing JSON", e.into()))?;
        fs::write(file, text).map_err(|e| BenchError::io(format!("writing {}", file.display()), e))?;
    }
    let failed = rows.iter().filter(|r| matches!(r.outcome, Outcome::Failed(_))).count();
    let void = rows.iter().filter(|r| r.outcome == Outcome::Void).count();
    let missed = rows.iter().filter(|r| r.outcome == Outcome::Done && r.met == Some(false)).count();
    if failed + void > 0 || (args.gate && missed > 0) {
        return Err(BenchError::Verdict { failed, void, missed });
    }
    Ok(())
}

/// A reference built without optimisation would be no floor, and such a generator no load.
fn again_in_release(root: &Path) -> Result<(), BenchError> {
    build(root, "xtask")?;
    let program = target_folder()?.join("release/xtask");
    let error = Command::new(&program).args(std::env::args_os().skip(1)).exec();
    Err(BenchError::io(format!("running {}", program.display()), error))
}

fn build(root: &Path, package: &'static str) -> Result<(), BenchError> {
    println!("building {package} (release)");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args(["build", "--release", "--quiet", "-p", package]);
    let status = command.status().map_err(|e| BenchError::io("running cargo", e))?;
    if status.success() { Ok(()) } else { Err(BenchError::Build(package)) }
}

/// Where cargo put this very program, less the profile.
fn target_folder() -> Result<PathBuf, BenchError> {
    let own = std::env::current_exe().map_err(|e| BenchError::io("finding this program", e))?;
    Ok(own.ancestors().nth(2).unwrap_or(Path::new("target")).to_owned())
}

fn contender(args: &BenchArgs, root: &Path) -> Result<Contender, BenchError> {
    if args.reference_only {
        return Ok(Contender::Nobody);
    }
    if let Some(command) = &args.against_command {
        return Ok(Contender::Command(command.clone()));
    }
    if let Some(running) = &args.against {
        let parts = running.split_once(',').and_then(|(addr, pid)| {
            let addr = addr.to_socket_addrs().ok()?.find(SocketAddr::is_ipv4)?;
            Some((addr, pid.parse().ok()?))
        });
        let (addr, pid) = parts.ok_or_else(|| BenchError::Usage(format!("{running} is not HOST:PORT,PID")))?;
        return Ok(Contender::Running(addr, pid));
    }
    build(root, "fulmar")?;
    Ok(Contender::Ours(target_folder()?.join("release/fulmar")))
}

/// A run under way.
struct Bench {
    contender: Contender,
    logs: PathBuf,
    /// Redis, from the first case on that needs it.
    servers: Option<redis::Servers>,
    echo: Echo,
    signer: Signer,
    is_quick: bool,
    pairs: u32,
    length: Duration,
    /// What is left of the time to wait for quiet.
    patience: Duration,
}

#[derive(Clone, Copy)]
enum Side {
    Reference,
    Second,
    Ours,
}

impl Bench {
    fn case(&mut self, case: &Case) -> Row {
        println!("{}", case.name);
        let mut pairs = Pairs::default();
        let outcome = self.prepare(case).and_then(|()| self.take_pairs(case, &mut pairs));
        let outcome = match outcome {
            Ok(()) => Outcome::Done,
            Err(BenchError::Void(_)) => Outcome::Void,
            Err(why) => Outcome::Failed(why.to_string()),
        };
        if let Outcome::Failed(why) = &outcome {
            println!("  FAILED: {why}");
        }
        report::judge(case, &pairs, outcome)
    }

    fn take_pairs(&mut self, case: &Case, pairs: &mut Pairs) -> Result<(), BenchError> {
        let count = self.pairs.min(case.plan.pairs_max.unwrap_or(PAIRS_MAX));
        let mut others = Vec::new();
        for _ in 0..count {
            if case.plan.work.has_reference() {
                let sample = self.sample(case, Side::Reference, pairs, &mut others)?;
                pairs.reference.push(sample);
            }
            if case.plan.show_second {
                let sample = self.sample(case, Side::Second, pairs, &mut others)?;
                pairs.second.push(sample);
            }
            if !matches!(self.contender, Contender::Nobody) {
                let sample = self.sample(case, Side::Ours, pairs, &mut others)?;
                pairs.ours.push(sample);
            }
            pairs.others_busy = others.iter().copied().fold(0.0, f64::max);
        }
        Ok(())
    }

    /// One sample, repeated when the machine stalled or, as long as there is patience, when it did other work.
    fn sample(
        &mut self,
        case: &Case,
        side: Side,
        pairs: &mut Pairs,
        others: &mut Vec<f64>,
    ) -> Result<Sample, BenchError> {
        let mut stalls = 0;
        loop {
            self.wait_for_quiet();
            self.echo.reset();
            let before = self.others();
            let taken = if let Work::Redis(plan) = &case.plan.work {
                self.over_redis(side, plan)
            } else {
                let mut start = || self.start(side, &case.name);
                let mut site = Site { start: &mut start, signer: self.signer.clone() };
                sample::take(&case.plan.work, self.length, &mut site)
            };
            let stall = self.echo.worst();
            let now = self.others();
            let (busy, took) = now.cores_since(&before);
            // A loss is a loss on a slow machine too.
            let taken = taken?;
            let stalled = stall > STALL_MAX;
            let disturbed = busy > OTHERS_MAX && self.patience > Duration::ZERO;
            say(side, case, &taken, busy, stall, disturbed);
            if !stalled && !disturbed {
                others.push(busy);
                return Ok(taken);
            }
            self.patience = self.patience.saturating_sub(took);
            if stalled {
                pairs.voided += 1;
                stalls += 1;
            }
            if stalls == ATTEMPTS_MAX {
                return Err(BenchError::Void(stall));
            }
        }
    }

    fn over_redis(&self, side: Side, plan: &RedisPlan) -> Result<Sample, BenchError> {
        let Some(servers) = &self.servers else {
            return Err(BenchError::Usage("there is no Redis here: cargo xtask setup".to_owned()));
        };
        match side {
            Side::Ours => servers.nodes(&self.shortened(plan), self.length),
            Side::Second => servers.bare(plan, self.length, &self.logs),
            Side::Reference => servers.plain(plan, self.length),
        }
    }

    /// The short form shows that it works: with fewer channels of nodes that have many.
    fn shortened(&self, plan: &RedisPlan) -> RedisPlan {
        let channels = if self.is_quick { plan.channels.min(QUICK_CHANNELS_MAX) } else { plan.channels };
        RedisPlan { channels, ..plan.clone() }
    }

    /// Redis is started before the machine is looked at: what that takes is nobody's.
    fn prepare(&mut self, case: &Case) -> Result<(), BenchError> {
        if !matches!(case.plan.work, Work::Redis(_)) || self.servers.is_some() || !fulmar_rig::is_available() {
            return Ok(());
        }
        let program = match &self.contender {
            Contender::Ours(program) => program.clone(),
            Contender::Nobody => PathBuf::new(),
            _ => return Err(BenchError::Usage("cases over Redis start nodes of ours only".to_owned())),
        };
        self.servers = Some(redis::Servers::start(&program)?);
        Ok(())
    }

    fn others(&self) -> Others {
        let mut known = self.servers.as_ref().map(redis::Servers::pids).unwrap_or_default();
        if let Contender::Running(_, pid) = self.contender {
            known.push(pid);
        }
        Others::now(&known)
    }

    fn wait_for_quiet(&mut self) {
        let mut said = false;
        while self.patience > Duration::ZERO {
            let before = self.others();
            thread::sleep(QUIET_LOOK);
            let (busy, took) = self.others().cores_since(&before);
            if busy <= OTHERS_MAX {
                return;
            }
            if !said {
                println!("  waiting for other work on this machine to end ({busy:.1} cores)");
                said = true;
            }
            self.patience = self.patience.saturating_sub(took);
        }
    }

    fn start(&self, side: Side, case: &str) -> Result<Server, BenchError> {
        if let (Side::Ours, Contender::Running(addr, pid)) = (side, &self.contender) {
            return Ok(Server::running(*addr, *pid));
        }
        let port = process::free_port()?;
        let mut command = self.command(side, port)?;
        let log = self.logs.join(format!("{case}-{}.log", side.name()));
        Server::start(&mut command, SocketAddr::from(([127, 0, 0, 1], port)), &log)
    }

    fn command(&self, side: Side, port: u16) -> Result<Command, BenchError> {
        let port = port.to_string();
        match (side, &self.contender) {
            (Side::Ours, Contender::Ours(program)) => {
                let mut command = Command::new(program);
                let app = format!("{APP_ID}:{KEY}:{SECRET}");
                command.args(["serve", "--host", "127.0.0.1", "--port", &port, "--app", &app]);
                Ok(command)
            }
            (Side::Ours, Contender::Command(line)) => {
                let line = line.replace("{port}", &port);
                let mut words = line.split_whitespace();
                let program = words.next().ok_or_else(|| BenchError::Usage("--against-command is empty".into()))?;
                let mut command = Command::new(program);
                command.args(words);
                Ok(command)
            }
            _ => {
                // This very program, even when it was built anew since it started.
                let mut command = Command::new("/proc/self/exe");
                command.args(["bench-reference", "--port", &port]);
                if matches!(side, Side::Second) {
                    command.arg("--gather");
                }
                Ok(command)
            }
        }
    }
}

/// The progress line of a sample.
fn say(side: Side, case: &Case, taken: &Sample, others: f64, stall: Duration, disturbed: bool) {
    let small = taken.small.map(|s| format!(" (small {s:.2})")).unwrap_or_default();
    let note = if taken.note.is_empty() { String::new() } else { format!("\n  {:>10} {}", "", taken.note) };
    let verdict = match (stall > STALL_MAX, disturbed) {
        (true, _) => "  VOID: the echo stalled",
        (_, true) => "  repeated: other work ran",
        _ => "",
    };
    println!(
        "  {:<10} {:>9.2} {}{small}  ({} counted; cores: server {:.2}, generator {:.2}, others {others:.2}; echo {:.1} ms){verdict}{note}",
        side.name(),
        taken.value,
        case.plan.work.unit(),
        taken.counted,
        taken.server_busy,
        taken.generator_busy,
        stall.as_secs_f64() * 1e3,
    );
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Second => "second",
            Self::Ours => "ours",
        }
    }
}
