//! The command line of the operator's verbs: `redis`, `sentinel` and `presence`.
//!
//! The deployment is described as for `serve`: the same file, variables and flags of `[backbone]`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fulmar_server::config::Sources;

use super::backbone::BackboneArgs;

// The deployment. (Not a doc comment: it would become the help of every verb.)
#[derive(Args, Default)]
pub struct DeploymentArgs {
    /// The nodes' configuration file (TOML) [env: FULMAR_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    backbone: BackboneArgs,
    /// Any other key of the configuration, such as backbone.user=admin; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

impl DeploymentArgs {
    /// These flags over the environment of this process.
    pub fn sources(self) -> Sources {
        let sources = Sources::new().with_file(self.config).with_environment(std::env::vars_os());
        self.backbone.over(sources).with_set(self.set)
    }
}

// What every verb takes that changes something.
#[derive(Args, Default)]
pub struct ActArgs {
    /// Print the plan and its guards with their figures, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Act although this guard says no; may be repeated, and needs --reason
    #[arg(long = "override", value_name = "GUARD", requires = "reason")]
    pub overridden: Vec<String>,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub deployment: DeploymentArgs,
}

// Where slots are to go.
#[derive(Args, Default)]
pub struct ToGroupsArgs {
    /// The groups at the end, by the names Sentinel has for them; those of the configuration without it
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub groups: Vec<String>,
}

// What every verb takes that moves slots. No guard of theirs can be overridden, and their dry run is a verb of its own.
#[derive(Args, Default)]
pub struct MoveArgs {
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub deployment: DeploymentArgs,
}

pub const REDIS_EXAMPLES: &str = "\
Examples:
  fulmar redis status --config fulmar.toml
  fulmar redis failover g1 --dry-run
  fulmar redis reshard plan --groups g1,g2,g3";

pub const SENTINEL_EXAMPLES: &str = "\
Examples:
  fulmar sentinel verify --config fulmar.toml
  fulmar sentinel repair g1 --dry-run";

const CODES: &str = "Exits with 0 when it is done, 1 when it failed (and is undone, as far as it says), 2 for a mistake in the command \
                     line, 3 when a guard refuses, 4 when there is nothing to do.";

fn examples(lines: &str) -> String {
    format!("Examples:\n{lines}\n\n{CODES}")
}

const MOVE_CODES: &str = "Exits with 0 when it is done, 1 when it failed on the way (`resume` goes on), 2 for a mistake in the command \
                          line, 3 when it is refused because of how things are (a group that is away, a replica or a right that is \
                          missing, another who moves slots) and nothing was changed, 4 when there is nothing to do.";

fn move_examples(lines: &str) -> String {
    format!("Examples:\n{lines}\n\n{MOVE_CODES}")
}

#[derive(Subcommand)]
pub enum RedisVerb {
    /// Draw every group as its own processes say it is, with the age of each fact
    #[command(after_help = "Examples:\n  fulmar redis status --config fulmar.toml\n  fulmar redis status --json\n  \
                            fulmar redis status --watch\n\nExits with 1 when something is gravely wrong.")]
    Status {
        /// Look again every second, until interrupted
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        deployment: DeploymentArgs,
    },
    /// Make another server the primary, without losing a write and without an error to a publisher
    ///
    /// Writes are held (not refused) until every replica has everything, then another is promoted: about a quarter of a second.
    /// Whatever goes wrong before that is undone.
    #[command(after_help = examples("  fulmar redis failover g1 --dry-run\n  fulmar redis failover g1\n  fulmar redis failover g1 --to 10.0.0.2:6379"))]
    Failover {
        group: String,
        /// Which replica is to be promoted; whichever the Sentinel takes without it
        #[arg(long, value_name = "HOST:PORT")]
        to: Option<String>,
        #[command(flatten)]
        act: ActArgs,
    },
    /// Before a Redis process is stopped: exits with 0 only when it is no primary and its successor is complete
    ///
    /// For a container's preStop hook, or ExecStop of systemd before the process is told to go. Else it undoes what it began and exits
    /// with another code: do not stop the process then.
    #[command(after_help = examples("  fulmar redis pre-stop\n  fulmar redis pre-stop --process 10.0.0.1:6379"))]
    PreStop {
        /// The process; the one server of the deployment on this machine without it
        #[arg(long, value_name = "HOST:PORT")]
        process: Option<String>,
        #[command(flatten)]
        act: ActArgs,
    },
    /// Make an empty server a replica, if the primary's line, buffers and memory can bear it
    #[command(after_help = examples("  fulmar redis add-replica g1 10.0.0.4:6379"))]
    AddReplica {
        group: String,
        /// The new server: it runs, and holds nothing
        #[arg(value_name = "HOST:PORT")]
        server: String,
        #[command(flatten)]
        act: ActArgs,
    },
    /// Put a new server in the place of an old one, which may be the primary
    #[command(after_help = examples("  fulmar redis replace g1 10.0.0.1:6379 10.0.0.4:6379"))]
    Replace {
        group: String,
        /// The server that goes
        #[arg(value_name = "OLD")]
        old: String,
        /// The server that comes: it runs, and holds nothing
        #[arg(value_name = "NEW")]
        new: String,
        #[command(flatten)]
        act: ActArgs,
    },
    /// Move shares of the channels between groups while nodes serve
    #[command(subcommand, after_help = move_examples("  fulmar redis reshard plan --groups g1,g2,g3\n  fulmar redis reshard apply --groups g1,g2,g3"))]
    Reshard(ReshardVerb),
    /// Say whose data each server has
    #[command(
        after_help = "Example:\n  fulmar redis verify-identity\n\nExits with 1 when one has another group's, or cannot be seen."
    )]
    VerifyIdentity {
        #[command(flatten)]
        deployment: DeploymentArgs,
    },
}

#[derive(Subcommand)]
pub enum ReshardVerb {
    /// Say what `apply` would move or why it would be refused, and change nothing
    #[command(after_help = move_examples("  fulmar redis reshard plan --groups g1,g2,g3\n  fulmar redis reshard plan --groups g1,g2 --json\n      g3 is emptied"))]
    Plan {
        #[command(flatten)]
        to: ToGroupsArgs,
        #[command(flatten)]
        deployment: DeploymentArgs,
    },
    /// Move until every group that is named has its share, and no other has any
    #[command(after_help = move_examples("  fulmar redis reshard apply --groups g1,g2,g3\n  fulmar redis reshard apply --groups g1,g2 --reason 'g3 goes'"))]
    Apply {
        #[command(flatten)]
        to: ToGroupsArgs,
        #[command(flatten)]
        how: MoveArgs,
    },
    /// Go on with a move that was interrupted
    #[command(after_help = move_examples("  fulmar redis reshard resume --config fulmar.toml"))]
    Resume {
        #[command(flatten)]
        how: MoveArgs,
    },
    /// Undo a move of which nothing has arrived
    #[command(after_help = move_examples("  fulmar redis reshard abort --config fulmar.toml"))]
    Abort {
        #[command(flatten)]
        how: MoveArgs,
    },
}

#[derive(Subcommand)]
pub enum SentinelVerb {
    /// Draw what each Sentinel says
    #[command(after_help = "Example:\n  fulmar sentinel status")]
    Status {
        #[command(flatten)]
        deployment: DeploymentArgs,
    },
    /// Say what is wrong with the Sentinels, and what is unwise
    #[command(after_help = "Example:\n  fulmar sentinel verify\n\nExits with 1 when something is wrong.")]
    Verify {
        #[command(flatten)]
        deployment: DeploymentArgs,
    },
    /// Make every Sentinel name the right primary and know the right replicas
    #[command(after_help = examples("  fulmar sentinel repair g1 --dry-run\n  fulmar sentinel repair g1 --primary 10.0.0.1:6379"))]
    Repair {
        group: String,
        /// Which server is right, where none of those that are seen shows it; it must show role and identity
        #[arg(long, value_name = "HOST:PORT")]
        primary: Option<String>,
        #[command(flatten)]
        act: ActArgs,
    },
}

#[derive(Subcommand)]
pub enum PresenceVerb {
    /// Read what is stored of presence and counts, and say where it does not agree with itself
    #[command(
        after_help = "Example:\n  fulmar presence audit\n\nChanges nothing: nodes put it right within seconds. Exits with 1 \
                            when something is wrong twice, three seconds apart."
    )]
    Audit {
        #[command(flatten)]
        deployment: DeploymentArgs,
    },
}
