//! The project's own verbs, run as `cargo xtask VERB`.
//!
//! This file only reads the command line and hands over. A verb prints what it does while it does it and answers with its exit
//! code: 0 when all is well, 1 when something is wrong with the code, 2 when the command itself was wrong.

mod bench;
mod check;
mod conform;
mod deny;
mod faults;
mod fuzz;
mod lab;
mod project;
mod setup;
mod sim;
mod source;
mod spec;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own verbs. `cargo xtask test` is the one to know: it is what the README names and what the gate runs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Before a commit:   cargo xtask check && cargo xtask test --fast
One SDK only:      cargo xtask conform pusher-js
One fault only:    cargo xtask faults kill-primary --quick
Ten minutes each:  cargo xtask fuzz --all --seconds 600")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Formatting, clippy with warnings denied, tidy and spec: everything that can be said without running the product
    Check,
    /// Install what is missing, check, run every test, then the official SDKs against the real binary
    ///
    /// The last line is the sum over all of it: `N passed, N failed, N skipped`. An SDK whose toolchain is missing is
    /// skipped and said so; anything else that cannot run is a failure.
    Test {
        /// Only `cargo test --workspace`: no style checks, no installation, no SDKs
        #[arg(long)]
        fast: bool,
        /// Only the backbone's contract suite over Valkey
        #[arg(long, conflicts_with = "fast")]
        valkey: bool,
    },
    /// Install what the tests need from Debian and rustup, and stop; `test` does it by itself
    Setup,
    /// Run the official SDKs, as users install them, against the real binary
    Conform {
        /// Which ones; all when none is named
        sdk: Vec<String>,
    },
    /// Clauses of spec/ that no test cites, and citations of clauses that do not exist
    ///
    /// Either makes it fail; a clause marked `(not testable: why)` needs no test.
    Spec,
    /// Rules of this repository that clippy does not know: arrows between crates, words, sizes, opening comments
    Tidy {
        /// Write today's lengths down as the line that may not be passed; entries that got shorter are lowered
        #[arg(long)]
        bless: bool,
    },
    /// A random walk of many connections through a node in memory, every step checked
    ///
    /// With the seed that a failed run printed it walks the same way again; without one it tries new seeds for a minute.
    Sim {
        /// Which walk
        seed: Option<u64>,
    },
    /// Feed one parser, or each in turn, with generated input
    Fuzz {
        /// Which target; without it they are listed
        target: Option<String>,
        /// Every target in turn
        #[arg(long, conflicts_with = "target")]
        all: bool,
        /// How long each one runs
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Licences, banned crates and sources of the dependencies
    Deny,
    /// The figures, each taken beside a bare reference server in the same run
    Bench(bench::BenchArgs),
    /// Real Redis, Sentinels and nodes under load, hurt on purpose; every publish and receipt compared
    ///
    /// Ends with an error when something was lost, doubled, failed or late beyond what is promised for the fault.
    Faults(faults::FaultsArgs),
    /// Pusher's published outages, replayed step by step on real Redis, Sentinels and nodes, with a ledger and a report of each
    ///
    /// Ends with an error when a promise was not kept. What this release cannot replay yet is said, and not claimed.
    Lab(lab::LabArgs),
    /// The naive node that `faults --naive` starts, called as the real binary is
    #[command(hide = true)]
    Serve(faults::NaiveArgs),
    /// Whether the kernel caps lines in a network namespace, which `lab` asks before it enters one
    #[command(hide = true)]
    LabTrial {
        /// The namespace that was left
        #[arg(long)]
        left: String,
    },
    /// The bare server that `bench` starts
    #[command(hide = true)]
    BenchReference(bench::ReferenceArgs),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Check => check::run(),
        Verb::Test { fast, valkey } => test::run(fast, valkey),
        Verb::Setup => setup::run(),
        Verb::Conform { sdk } => conform::run(&sdk),
        Verb::Spec => spec::run(),
        Verb::Tidy { bless } => tidy::run(bless),
        Verb::Sim { seed } => sim::run(seed),
        Verb::Fuzz { target, all, seconds } => fuzz::run(target.as_deref(), all, seconds),
        Verb::Deny => deny::run(),
        Verb::Bench(args) => bench::run(&args).map_err(|e| project::Failure(e.to_string())),
        Verb::Faults(args) => faults::run(&args),
        Verb::Lab(args) => lab::run(&args),
        Verb::LabTrial { left } => lab::trial(&left),
        Verb::Serve(args) => faults::serve_naively(&args),
        Verb::BenchReference(args) => bench::run_reference(&args).map_err(|e| project::Failure(e.to_string())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // `test` has said all in its summary, whose last line stays the last.
            if !failure.0.is_empty() {
                eprintln!("{failure}");
            }
            ExitCode::FAILURE
        }
    }
}
