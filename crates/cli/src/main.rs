//! The one binary: reads the command line and hands over to the verb.
//!
//! Verbs print what was asked for to standard output and what is to be said about it to standard error. Exit codes:
//! 0 done, 1 failed, 2 wrong usage, 3 refused because of how things are (of `doctor`: something is gravely wrong), 78 bad configuration.

mod app;
mod args;
mod check;
mod client;
mod doctor;
mod explain;
mod import;
mod operator;
#[cfg_attr(feature = "lab-faults", path = "faulty_serve.rs")]
mod serve;
mod status;
mod webhook;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, ConfigVerb, Verb};

/// Frames are made on one thread and freed on another, which this allocator takes without a lock.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Serve(args) => serve::serve(args.sources()),
        Verb::Check(args) => check::check(args),
        Verb::Config(ConfigVerb::Explain { key }) => explain::explain(key.as_deref()),
        Verb::Config(ConfigVerb::Show(args)) => explain::show(args.sources()),
        Verb::App(args) => client::finish(app::app(args)),
        Verb::Audit(args) => client::finish(app::audit(&args)),
        Verb::Status(args) => client::finish(status::status(&args)),
        Verb::Doctor(args) => doctor::doctor(*args),
        Verb::Redis(verb) => operator::redis(verb),
        Verb::Sentinel(verb) => operator::sentinel(verb),
        Verb::Presence(verb) => operator::presence(verb),
        Verb::Import(args) => client::finish(import::import(&args)),
        Verb::Webhook(args) => client::finish(webhook::webhook(args)),
        Verb::Trigger(args) => client::finish(client::trigger::trigger(&args)),
        Verb::Channels(args) => client::finish(client::channels::channels(&args)),
        Verb::Subscribe(args) => client::finish(client::subscribe::subscribe(&args)),
        Verb::Version => {
            println!("fulmar {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}
