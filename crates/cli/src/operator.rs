//! The operator's verbs: they look at Redis groups, show what they see and what they would do, and do it.
//!
//! What is right is decided in `fulmar_control`, done in `fulmar_operate`; here are words, drawings and exit codes. `look` has
//! the verbs that only look, `act` those that change something, `reshard` those that move slots between groups.

mod act;
mod draw;
mod facts;
mod look;
mod reshard;
mod show;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use fulmar_control::observed::Capacity;
use fulmar_operate::audit;
use fulmar_operate::watch::Watcher;
use fulmar_server::config::{Backbone, EXIT_CONFIG, RedisSettings, load};
use fulmar_server::storage;
use serde_json::{Value, json};

use self::act::Aim;
use crate::app::remote::actor;
use crate::args::{DeploymentArgs, PresenceVerb, RedisVerb, SentinelVerb};
use crate::check::report;

/// Something failed, or is gravely wrong.
const FAILED: u8 = 1;
/// The command line asks for something that cannot be.
const USAGE: u8 = 2;
/// A guard said no.
const REFUSED: u8 = 3;
/// It is so already.
const NOTHING: u8 = 4;

/// Ends a verb before it began: an exit code and a sentence.
struct Stop(u8, String);

pub fn redis(verb: RedisVerb) -> ExitCode {
    end(match verb {
        RedisVerb::Reshard(verb) => reshard::reshard(verb),
        RedisVerb::Status { watch, deployment } => look::status(deployment, watch),
        RedisVerb::VerifyIdentity { deployment } => look::verify_identity(deployment),
        RedisVerb::Failover { group, to, act } => act::act(act, "redis failover", Aim::Failover { group, to }),
        RedisVerb::PreStop { process, act } => act::act(act, "redis pre-stop", Aim::PreStop { process }),
        RedisVerb::AddReplica { group, server, act } => {
            act::act(act, "redis add-replica", Aim::AddReplica { group, server })
        }
        RedisVerb::Replace { group, old, new, act } => act::act(act, "redis replace", Aim::Replace { group, old, new }),
    })
}

pub fn sentinel(verb: SentinelVerb) -> ExitCode {
    end(match verb {
        SentinelVerb::Status { deployment } => look::sentinels(deployment),
        SentinelVerb::Verify { deployment } => look::verify_sentinels(deployment),
        SentinelVerb::Repair { group, primary, act } => {
            act::act(act, "sentinel repair", Aim::Repair { group, primary })
        }
    })
}

pub fn presence(verb: PresenceVerb) -> ExitCode {
    let PresenceVerb::Audit { deployment } = verb;
    end(look::presence(deployment))
}

fn end(ended: Result<u8, Stop>) -> ExitCode {
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
    settings: RedisSettings,
    capacities: BTreeMap<String, Capacity>,
    /// Where the audit log is kept, if anywhere.
    folder: Option<PathBuf>,
}

impl Deployment {
    fn of(args: DeploymentArgs) -> Result<Self, Stop> {
        let loaded = load(args.sources()).map_err(|refused| {
            report(&refused.findings, false);
            Stop(EXIT_CONFIG, "the configuration is not understood".to_owned())
        })?;
        let folder = storage::folder(loaded.config.storage.as_deref(), |name| std::env::var_os(name));
        match loaded.config.backbone {
            Backbone::Redis(settings) => Ok(Self { settings: *settings, capacities: loaded.config.capacities, folder }),
            Backbone::Embedded => Err(Stop(
                USAGE,
                "no Redis is configured: name the nodes' configuration with --config, or the servers with --backbone redis \
                 and --backbone-sentinels or --backbone-addresses"
                    .to_owned(),
            )),
        }
    }

    /// Writes down what `who` did with the verb. What cannot be written is said, and stops nothing: a process must come to its
    /// end without a disk, too.
    fn note(&self, who: &str, verb: &str, what: &[&Value]) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut entry = json!({ "at_ms": facts::millis(since), "who": who, "peer": "operator", "call": verb });
        if let Some(entry) = entry.as_object_mut() {
            what.iter().filter_map(|what| what.as_object()).for_each(|what| entry.extend(what.clone()));
        }
        let written = match &self.folder {
            Some(folder) => audit::append(folder, &entry).map_err(|error| format!("{}: {error}", folder.display())),
            None => Err("there is no storage folder (storage.path)".to_owned()),
        };
        if let Err(why) = written {
            eprintln!("fulmar: not in the audit log, {why}: {entry}");
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

/// Whoever runs this, as others are told.
fn who() -> String {
    format!("{} (process {})", actor(), std::process::id())
}

/// Runs what waits for the network.
fn run<T>(work: impl Future<Output = T>) -> Result<T, Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Stop(FAILED, format!("the system gives no event loop: {error}")))?;
    Ok(runtime.block_on(work))
}
