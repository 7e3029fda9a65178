//! The command line. What a flag of `serve` may hold is decided by the configuration, together with file and
//! environment, so that all mistakes come out at once: here such values are plain text.

mod backbone;
mod client;
mod operator;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use fulmar_control::doctor::Id;
use fulmar_server::config::Sources;

use self::backbone::BackboneArgs;
pub use client::{ChannelsArgs, SubscribeArgs, TargetArgs, TriggerArgs};
pub use operator::{ActArgs, DeploymentArgs, PresenceVerb, RedisVerb, ReshardVerb, SentinelVerb};

/// Realtime messages over WebSocket, spoken as Pusher Channels speaks them.
///
/// Any official Pusher SDK works against a node of this program, and the client commands here work against any server
/// that speaks the protocol.
#[derive(Parser)]
#[command(name = "fulmar", version, after_help = MAIN_EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

const MAIN_EXAMPLES: &str = "\
Try it, each in a terminal of its own:
  fulmar serve
  fulmar subscribe my-channel
  fulmar trigger my-channel greeting '{\"text\":\"hello\"}'";

#[derive(Subcommand)]
pub enum Verb {
    /// Run a node
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ConfigArgs),
    /// Say what `serve` would say of a configuration, and start nothing
    Check(CheckArgs),
    /// Explain or show the configuration
    #[command(
        subcommand,
        after_help = "Examples:\n  fulmar config explain server.port\n  fulmar config show --config fulmar.toml"
    )]
    Config(ConfigVerb),
    /// Add, change and list the apps of a running node
    App(AppArgs),
    /// Print how a running node is, and how it hears the others
    #[command(after_help = "Examples:\n  fulmar status\n  fulmar status --json")]
    Status(AdminArgs),
    /// Print who changed what on a running node
    Audit(AuditArgs),
    /// Name what is wrong with a deployment, or will be, with the fix
    Doctor(Box<DoctorArgs>),
    /// See how the Redis groups are, and operate on them
    #[command(subcommand, after_help = operator::REDIS_EXAMPLES)]
    Redis(RedisVerb),
    /// See what Sentinels say, and put them right
    #[command(subcommand, after_help = operator::SENTINEL_EXAMPLES)]
    Sentinel(SentinelVerb),
    /// Compare what is stored of presence and counts
    #[command(subcommand, after_help = "Example:\n  fulmar presence audit --config fulmar.toml")]
    Presence(PresenceVerb),
    /// Turn the configuration of soketi, sockudo or Laravel Reverb into one of this program
    Import(ImportArgs),
    /// See webhooks that wait or were given up, send them again, try an endpoint
    Webhook(WebhookArgs),
    /// Publish an event
    Trigger(TriggerArgs),
    /// Print the events of channels as they come
    Subscribe(SubscribeArgs),
    /// List occupied channels, or look at one
    Channels(ChannelsArgs),
    /// Print the version
    #[command(after_help = "Example:\n  fulmar version")]
    Version,
}

#[derive(Subcommand)]
pub enum ConfigVerb {
    /// Say what a key does, what it takes and what applies without it
    #[command(after_help = "Examples:\n  fulmar config explain\n  fulmar config explain server.port\n  \
                            fulmar config explain limits")]
    Explain {
        /// A key, or a section; all keys in short without it
        key: Option<String>,
    },
    /// Print the configuration that would apply, with the source of each value and without secrets
    #[command(after_help = "Example:\n  FULMAR_SERVER__PORT=7000 fulmar config show --config fulmar.toml")]
    Show(Box<ConfigArgs>),
}

const SERVE_EXAMPLES: &str = "\
Settings come from four places; each wins over those before it:
  1. the defaults             fulmar config explain
  2. a TOML file              --config FILE, or FULMAR_CONFIG=FILE
  3. environment variables    FULMAR_SECTION__KEY, for every key but those of apps:
                              FULMAR_SERVER__PORT=7000 is port under [server].
                              FULMAR_APPS='ID:KEY:SECRET ID:KEY:SECRET' works like --app.
                              An empty variable counts as not set.
  4. flags                    those above; --set SECTION.KEY=VALUE for every other key
FULMAR_HOST, FULMAR_PORT, FULMAR_TLS, FULMAR_CA and FULMAR_APP belong to trigger, subscribe and channels.

Examples:
  fulmar serve
      on 127.0.0.1:6001 with the demo app (id 1, key demo-key, secret demo-secret)
  fulmar serve --host 0.0.0.0 --app 42:my-key:my-secret
      for other machines, with an app of your own that has every feature on
  fulmar serve --config fulmar.toml --set limits.connections_max=50000
      a file with its [[apps]], which are taken over when the file changes

A file to start from:
  [server]
  host = \"0.0.0.0\"
  [[apps]]
  id = \"42\"
  key = \"my-key\"
  secret_file = \"my-secret.txt\"
  client_events = true";

// A doc comment here would become the help of every verb that takes these flags.
#[derive(Args, Default)]
pub struct ConfigArgs {
    /// Configuration file (TOML) [env: FULMAR_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1] [env: FULMAR_SERVER__HOST]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on, 0 for a free one [default: 6001] [env: FULMAR_SERVER__PORT]
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// An app with every feature on; may be repeated [env: FULMAR_APPS]
    #[arg(long, value_name = "ID:KEY:SECRET")]
    app: Vec<String>,
    /// Certificate chain, PEM [env: FULMAR_TLS__CERT]
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// Private key, PEM [env: FULMAR_TLS__KEY]
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// A port for TLS alone; without it the port takes both [env: FULMAR_TLS__PORT]
    #[arg(long, value_name = "PORT")]
    tls_port: Option<String>,
    /// Event loops that own connections, 0 for one per core [env: FULMAR_SERVER__WORKERS]
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// What the node does: websocket, rest, webhooks, separated by commas [default: all] [env: FULMAR_SERVER__ROLES]
    #[arg(long, value_name = "ROLES")]
    roles: Option<String>,
    #[command(flatten)]
    backbone: BackboneArgs,
    /// A statsd daemon that is told the figures of the node, over UDP [env: FULMAR_METRICS__STATSD]
    #[arg(long, value_name = "HOST:PORT")]
    metrics_statsd: Option<String>,
    /// error, warn, info, debug or trace [default: info] [env: FULMAR_LOGGING__LEVEL]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json [default: text] [env: FULMAR_LOGGING__FORMAT]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Any other key of the configuration; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    /// These flags over the environment of this process.
    pub fn sources(self) -> Sources {
        let sources = Sources::new().with_file(self.config).with_environment(std::env::vars_os());
        self.backbone
            .over(sources)
            .with_flag("server.roles", self.roles)
            .with_flag("server.host", self.host)
            .with_flag("server.port", self.port)
            .with_flag("server.workers", self.workers)
            .with_flag("tls.cert", self.tls_cert)
            .with_flag("tls.key", self.tls_key)
            .with_flag("tls.port", self.tls_port)
            .with_flag("metrics.statsd", self.metrics_statsd)
            .with_flag("logging.level", self.log_level)
            .with_flag("logging.format", self.log_format)
            .with_apps(self.app)
            .with_set(self.set)
    }
}

/// Prints every mistake at once, with file and line. Exits with 0 when a node would start, with 78 when not.
///
/// Also reads the certificate and its key, and compares the limit of connections with that of open files.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  fulmar check --config fulmar.toml\n  fulmar check --strict --config fulmar.toml\n      \
                        unknown keys and variables are errors too: for a pipeline, before a release"
)]
pub struct CheckArgs {
    /// Fail on unknown keys and variables as well
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `list` and `replay` speak to the admin API of a node, by default the one that this user runs on this machine. `test`
/// speaks to the endpoint itself and needs no node.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  fulmar webhook list\n  fulmar webhook replay 1f\n  fulmar webhook replay --all\n  \
                        fulmar webhook test https://example.com/webhooks --app 42:my-key:my-secret"
)]
pub struct WebhookArgs {
    #[command(subcommand)]
    pub verb: WebhookVerb,
}

#[derive(Subcommand)]
pub enum WebhookVerb {
    /// Endpoints for which something waits, and requests that were given up
    #[command(after_help = "Example:\n  fulmar webhook list")]
    List {
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Send again what was given up
    #[command(after_help = "Examples:\n  fulmar webhook replay 1f\n  fulmar webhook replay --all")]
    Replay {
        /// The request, as `list` names it
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// Every request that was given up
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Send one signed sample event to a URL and say what came of it
    #[command(after_help = "Example:\n  fulmar webhook test https://example.com/webhooks --app 42:my-key:my-secret")]
    Test {
        /// The endpoint
        url: String,
        /// The app to sign for; the demo app without it
        #[arg(long, env = "FULMAR_APP", hide_env_values = true, value_name = "ID:KEY:SECRET")]
        app: Option<String>,
        /// Also where webhooks do not go by default: this machine and private networks
        #[arg(long)]
        allow_private: bool,
    },
}

/// Looks at the configuration, at the files it names, at every Redis server and Sentinel, and at what nodes say of themselves.
/// Changes nothing, and ends within ten seconds whatever hangs.
#[derive(Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub struct DoctorArgs {
    /// Leave out findings of this id; may be repeated
    #[arg(long, value_name = "ID", value_parser = crate::doctor::id)]
    pub ignore: Vec<Id>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub config: ConfigArgs,
}

const DOCTOR_EXAMPLES: &str = "\
Exits with 0 when nothing is gravely wrong, with 3 when something is.

Examples:
  fulmar doctor --config fulmar.toml
  fulmar doctor --config fulmar.toml --set backbone.user=admin --ignore appendfsync-always
      as a user who may ask Redis more than nodes may
  fulmar doctor --json | jq '.findings[] | select(.weight == \"grave\")'";

// The node whose admin API is spoken to. (Not a doc comment, for the same reason.)
#[derive(Args)]
pub struct AdminArgs {
    /// The node's configuration file, to find its storage folder and token [env: FULMAR_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// The node's storage folder; that of the configuration, or of this user, without it
    #[arg(long, value_name = "FOLDER", global = true)]
    pub storage: Option<PathBuf>,
    /// The admin API; the one noted in the storage folder without it [env: FULMAR_ADMIN_URL]
    #[arg(long, value_name = "http(s)://HOST:PORT", global = true)]
    pub admin: Option<String>,
    /// A file with the token; the one in the storage folder without it [env: FULMAR_ADMIN_TOKEN_FILE]
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// Trust the certificates in this PEM file instead of those of the system
    #[arg(long, value_name = "FILE", global = true)]
    pub ca: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// Speaks to the admin API of a node, by default the one that this user runs on this machine. Every change is checked
/// by the rules of the configuration file, remembered, and taken over at once by every connection. Apps that stand in the
/// configuration file are changed there.
#[derive(Args)]
#[command(after_help = APP_EXAMPLES)]
pub struct AppArgs {
    #[command(subcommand)]
    pub verb: AppVerb,
    #[command(flatten)]
    pub admin: AdminArgs,
}

const APP_EXAMPLES: &str = "\
Examples:
  fulmar app add
      id, key and secret are made; the secret is shown this once
  fulmar app add 42 --key my-key client_events=true max_connections=1000
  fulmar app edit 42 allowed_origins=https://example.com,*.example.org
  fulmar app keys rotate 42
  fulmar app keys retire 42
  fulmar app history 42
  fulmar app revert 42 3

`fulmar config explain apps` lists the settings.
The token is taken from FULMAR_ADMIN_TOKEN, from --token-file, or from the storage folder.";

const IMPORT_EXAMPLES: &str = "\
Reads tables of soketi (apps), sockudo (applications) and Laravel WebSockets (websockets_apps), with the database's own
client (psql, mariadb or mysql), which must be there. Apps that the node has already are left as they are.

Examples:
  fulmar app import postgres://soketi:secret@db.example/soketi --dry-run
  fulmar app import mysql://root:secret@127.0.0.1:3306/sockudo --table applications
  fulmar app import soketi.json
  ssh db \"psql soketi -At -c 'SELECT row_to_json(apps) FROM apps'\" | fulmar app import -";

#[derive(Subcommand)]
pub enum AppVerb {
    /// All apps, wherever they are kept
    #[command(after_help = "Example:\n  fulmar app list")]
    List,
    /// One app with its settings in effect
    #[command(after_help = "Example:\n  fulmar app show 42")]
    Show { id: String },
    /// A new app
    #[command(after_help = "Examples:\n  fulmar app add\n  fulmar app add 42 --key my-key client_events=true")]
    Add {
        /// Digits only where the Python or Go SDK is used; made without it
        id: Option<String>,
        /// The public key; made without it
        #[arg(long)]
        key: Option<String>,
        /// A file with the secret; made without it
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        #[arg(value_name = "SETTING=VALUE")]
        settings: Vec<String>,
    },
    /// Change settings; SETTING= takes one back to its default
    #[command(after_help = "Examples:\n  fulmar app edit 42 client_events=true\n  fulmar app edit 42 allowed_origins=")]
    Edit {
        id: String,
        /// Only if the app is still at this revision
        #[arg(long, value_name = "REVISION")]
        at: Option<u64>,
        #[arg(required = true, value_name = "SETTING=VALUE")]
        settings: Vec<String>,
    },
    /// Refuse its connections and calls until it is enabled again
    #[command(after_help = "Example:\n  fulmar app disable 42")]
    Disable { id: String },
    /// Undo disable
    #[command(after_help = "Example:\n  fulmar app enable 42")]
    Enable { id: String },
    /// Serve it no longer; revert brings it back
    #[command(after_help = "Example:\n  fulmar app remove 42")]
    Remove { id: String },
    /// Show the limits of an app, or change some
    #[command(after_help = "Examples:\n  fulmar app limits 42\n  fulmar app limits 42 max_connections=1000")]
    Limits {
        id: String,
        #[arg(value_name = "LIMIT=NUMBER")]
        settings: Vec<String>,
    },
    /// Change the secret without a moment in which one is refused that was good
    #[command(subcommand, after_help = "Examples:\n  fulmar app keys rotate 42\n  fulmar app keys retire 42")]
    Keys(KeysVerb),
    /// Add the apps of another server: from its database, or from its configuration
    #[command(after_help = IMPORT_EXAMPLES)]
    Import {
        /// postgres://USER:PASSWORD@HOST:PORT/DATABASE, mysql://..., a .env or JSON file, or - for rows as JSON
        source: String,
        /// The table; apps, applications or websockets_apps without it, whichever is there
        #[arg(long)]
        table: Option<String>,
        /// Print what would be added, without secrets, and add nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// What was done to an app
    #[command(after_help = "Example:\n  fulmar app history 42")]
    History { id: String },
    /// Take the settings of an earlier revision; secrets stay as they are
    #[command(after_help = "Example:\n  fulmar app revert 42 3")]
    Revert { id: String, revision: u64 },
}

#[derive(Subcommand)]
pub enum KeysVerb {
    /// A new secret, shown this once; the one from before verifies as well until it is retired
    #[command(after_help = "Example:\n  fulmar app keys rotate 42")]
    Rotate {
        id: String,
        /// A file with the new secret; made without it
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// The secret from before verifies no longer. It never comes back
    #[command(after_help = "Examples:\n  fulmar app keys retire 42\n  fulmar app keys retire 42 --new\n      \
                            undo the rotation: the new secret goes instead")]
    Retire {
        id: String,
        /// Retire the new secret and go on with the one from before
        #[arg(long)]
        new: bool,
    },
}

/// Prints a configuration file (secrets included) to standard output, and what has no counterpart to standard error. Reads
/// the environment unless files are named; nothing is written or contacted.
#[derive(Args)]
#[command(after_help = "Examples:\n  fulmar import .env > fulmar.toml\n  fulmar import soketi.json > fulmar.toml\n  \
                        SOKETI_PORT=6001 fulmar import\n\nThe variables are SOKETI_..., SOCKUDO_... and REVERB_...; of a \
                        Laravel application give its .env.")]
pub struct ImportArgs {
    /// .env files, or JSON files of soketi or sockudo
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Prints the audit log of a node, the newest entry last.
#[derive(Args)]
#[command(after_help = "Example:\n  fulmar audit --limit 20")]
pub struct AuditArgs {
    /// How many entries
    #[arg(long, default_value_t = 100)]
    pub limit: u32,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use fulmar_server::config::KEYS;

    use super::*;

    /// OPS-10
    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// OPS-8
    #[test]
    fn every_flag_that_a_key_is_explained_with_exists() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").expect("serve is a verb");
        for flag in KEYS.iter().filter_map(|key| key.flag) {
            let name = flag.trim_start_matches("--");
            assert!(serve.get_arguments().any(|arg| arg.get_long() == Some(name)), "{flag}");
        }
    }
}
