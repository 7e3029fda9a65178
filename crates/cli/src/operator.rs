//! The operator's verbs: they look at Redis groups, show what they see and what they would do, and do it.
//!
//! What is right is decided in `fulmar_control`, done in `fulmar_operate`; here are words, drawings and exit codes.

mod draw;
mod facts;

use std::collections::BTreeMap;
use std::process::ExitCode;

use fulmar_control::health::{Weight, judge};
use fulmar_control::observed::Capacity;
use fulmar_operate::watch::{LOOK_EVERY, Watcher};
use fulmar_server::config::{Backbone, EXIT_CONFIG, load};

use crate::args::{DeploymentArgs, RedisVerb};
use crate::check::report;
use crate::client::print;

/// Something failed, or is gravely wrong.
const FAILED: u8 = 1;
/// The command line asks for something that cannot be.
const USAGE: u8 = 2;

/// Ends a verb before it began: a sentence and an exit code.
struct Stop(u8, String);

pub fn redis(verb: RedisVerb) -> ExitCode {
    let ended = match verb {
        RedisVerb::Status { watch, deployment } => status(deployment, watch),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(Stop(code, why)) => {
            eprintln!("fulmar: {why}");
            ExitCode::from(code)
        }
    }
}

/// What the verbs know of the deployment before they look.
struct Deployment {
    settings: fulmar_server::config::RedisSettings,
    capacities: BTreeMap<String, Capacity>,
}

impl Deployment {
    fn of(args: DeploymentArgs) -> Result<Self, Stop> {
        let loaded = load(args.sources()).map_err(|refused| {
            report(&refused.findings, false);
            Stop(EXIT_CONFIG, "the configuration is not understood".to_owned())
        })?;
        match loaded.config.backbone {
            Backbone::Redis(settings) => Ok(Self { settings: *settings, capacities: loaded.config.capacities }),
            Backbone::Embedded => Err(Stop(
                USAGE,
                "no Redis is configured: name the nodes' configuration with --config, or the servers with --backbone redis \
                 and --backbone-sentinels or --backbone-addresses"
                    .to_owned(),
            )),
        }
    }

    fn watcher(&self) -> Result<Watcher, Stop> {
        let watcher = Watcher::new(&self.settings, &self.capacities);
        if watcher.groups().is_empty() {
            let why = "Redis Cluster fails over, adds and moves by itself: see redis-cli --cluster";
            return Err(Stop(USAGE, why.to_owned()));
        }
        Ok(watcher)
    }
}

/// Runs what waits for the network.
fn run<T>(work: impl Future<Output = T>) -> Result<T, Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Stop(FAILED, format!("the system gives no event loop: {error}")))?;
    Ok(runtime.block_on(work))
}

fn status(args: DeploymentArgs, watch: bool) -> Result<u8, Stop> {
    let json = args.json;
    let deployment = Deployment::of(args)?;
    let mut watcher = deployment.watcher()?;
    run(async {
        // One look has no rates.
        watcher.look().await;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            watcher.look().await;
            let now = watcher.now();
            print(&if json { facts::line(now, watcher.groups()) } else { draw::groups(now, watcher.groups()) });
            if !watch {
                let is_grave = |state: &fulmar_control::health::State| state.weight() == Weight::Grave;
                let any = watcher.groups().iter().any(|group| judge(now, group).iter().any(is_grave));
                return if any { FAILED } else { 0 };
            }
        }
    })
}
