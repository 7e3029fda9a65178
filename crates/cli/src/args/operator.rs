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
}
