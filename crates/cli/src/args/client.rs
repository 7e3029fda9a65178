//! The arguments of the client commands: `trigger`, `subscribe` and `channels`.

use std::path::PathBuf;

use clap::Args;

// Which server a client command talks to, and as which app. (Not a doc comment, for the same reason.)
#[derive(Args)]
pub struct TargetArgs {
    /// Host of the server
    #[arg(long, env = "FULMAR_HOST", default_value = "127.0.0.1", value_name = "HOST")]
    pub host: String,
    /// Port of the server
    #[arg(long, env = "FULMAR_PORT", default_value = "6001", value_name = "PORT")]
    pub port: String,
    /// Speak TLS
    #[arg(long, env = "FULMAR_TLS")]
    pub tls: bool,
    /// Trust the certificates in this PEM file instead of those of the system
    #[arg(long, env = "FULMAR_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The app to act for; the demo app without it. With an id alone, through the admin API of the node that this user runs
    /// on this machine, or that --admin names
    #[arg(long, env = "FULMAR_APP", hide_env_values = true, value_name = "ID[:KEY:SECRET]")]
    pub app: Option<String>,
    /// With --app ID: the admin API; the one noted in the storage folder without it [env: FULMAR_ADMIN_URL]
    #[arg(long, value_name = "http(s)://HOST:PORT")]
    pub admin: Option<String>,
    /// With --app ID: a file with the admin API's token; that in the storage folder without it [env:
    /// FULMAR_ADMIN_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// With --app ID: the node's storage folder; that of the configuration (FULMAR_CONFIG), or of this user, without it
    #[arg(long, value_name = "FOLDER")]
    pub storage: Option<PathBuf>,
    /// What the server has before /app and /apps (its server.path_prefix), such as /ws
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PATH")]
    pub path_prefix: String,
}

/// Publishes one event through the signed REST API, or with `--app ID` through the admin API.
#[derive(Args)]
#[command(after_help = "Examples:\n  fulmar trigger my-channel greeting '{\"text\":\"hello\"}'\n  \
                        fulmar trigger presence-room note hi --info user_count,subscription_count\n  \
                        fulmar trigger my-channel greeting hi --host ws.example.com --port 443 --tls\n  \
                        fulmar trigger my-channel greeting hi --app 42")]
pub struct TriggerArgs {
    /// Where to publish
    pub channel: String,
    /// Name of the event
    pub event: String,
    /// Its data, passed on as it is; SDKs parse JSON
    pub data: String,
    /// A further channel; may be repeated (names may hold commas, so none are split)
    #[arg(long = "also", value_name = "CHANNEL")]
    pub also: Vec<String>,
    /// The one connection that shall not receive it
    #[arg(long, value_name = "ID")]
    pub socket_id: Option<String>,
    /// What to tell of the channels: subscription_count, user_count, or both separated by a comma
    #[arg(long, value_name = "WHAT")]
    pub info: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: TargetArgs,
}

/// Without a name: all occupied channels. With one: how things stand there.
#[derive(Args)]
#[command(after_help = "Examples:\n  fulmar channels\n  fulmar channels --prefix presence- --info user_count\n  \
                        fulmar channels presence-room --users\n  fulmar channels cache-prices --info cache --json\n  \
                        fulmar channels --app 42")]
pub struct ChannelsArgs {
    /// One channel
    pub name: Option<String>,
    /// Only channels whose names begin so
    #[arg(long, value_name = "TEXT", conflicts_with = "name")]
    pub prefix: Option<String>,
    /// user_count, subscription_count or cache; several separated by commas
    #[arg(long, value_name = "WHAT")]
    pub info: Option<String>,
    /// The users on a presence channel
    #[arg(long, requires = "name", conflicts_with = "info")]
    pub users: bool,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: TargetArgs,
}

/// Connects like any SDK, signs private and presence channels with the app's secret, and comes back as the close code
/// asks when the connection ends. Prints one line per event: channel, event, data, separated by tabs. What else happens
/// (members, counts, the connection) goes to standard error. With `--app ID` the same comes through the admin API, and no
/// secret is needed.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  fulmar subscribe my-channel\n  fulmar subscribe private-a presence-room --user-id ann\n  \
                        fulmar subscribe my-channel --count 1 --json\n  fulmar subscribe private-a --app 42"
)]
pub struct SubscribeArgs {
    /// Channels to follow
    #[arg(required = true, value_name = "CHANNEL")]
    pub channels: Vec<String>,
    /// Who to be on presence channels
    #[arg(long, value_name = "ID", default_value = "fulmar-cli")]
    pub user_id: String,
    /// What the others shall know of that user, as JSON
    #[arg(long, value_name = "JSON")]
    pub user_info: Option<String>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Print each event as a JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: TargetArgs,
}
