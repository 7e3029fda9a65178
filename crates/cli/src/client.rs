//! What the client commands share: whom they talk to, and how they end.
//!
//! With an app's credentials they speak the public protocol and nothing else, so they work against any server of it; with
//! its id alone they speak to the admin API of a node. One connection at a time, blocking: a command line needs no more.

pub mod channels;
mod connect;
pub mod rest;
pub mod subscribe;
pub mod trigger;
mod watch;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use fulmar_protocol::app::App;
use fulmar_server::config::DEMO_APP;
use serde_json::Value;

use crate::app::remote::Remote;
use crate::args::{AdminArgs, TargetArgs};

/// Why a client command failed, in words for the person who gave it.
#[derive(Debug)]
pub struct Failure {
    text: String,
    /// Whether the command line itself is at fault.
    usage: bool,
}

impl Failure {
    /// The command line asks for something that cannot be.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), usage: true }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { text, usage: false }
    }
}

/// Ends a client command.
pub fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fulmar: {failure}");
            ExitCode::from(if failure.usage { 2 } else { 1 })
        }
    }
}

/// Prints to standard output. Whoever reads it may stop at any time (`| head`): then there is nothing left to do.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Whom to talk to, and how.
pub enum Door {
    /// A server of the protocol, as an app.
    Public(Box<Target>),
    /// A node's operator, about an app.
    Admin {
        /// The node.
        remote: Box<Remote>,
        /// The app's id.
        app: String,
    },
}

impl Door {
    pub fn of(args: &TargetArgs) -> Result<Self, Failure> {
        let named = args.app.as_deref().filter(|text| !text.is_empty());
        let Some(app) = named.filter(|text| !text.contains(':')) else {
            let flags = [args.admin.is_some(), args.token_file.is_some(), args.storage.is_some()];
            if flags.contains(&true) {
                return Err(Failure::usage(
                    "--admin, --token-file and --storage go with --app ID, without key and secret",
                ));
            }
            return Ok(Self::Public(Box::new(Target::of(args)?)));
        };
        let app = checked_id(app)?.to_owned();
        let admin = AdminArgs {
            config: None,
            storage: args.storage.clone(),
            admin: args.admin.clone(),
            token_file: args.token_file.clone(),
            ca: args.ca.clone(),
            json: false,
        };
        Ok(Self::Admin { remote: Box::new(Remote::of(&admin)?), app })
    }

    /// Makes a call below `/apps/ID`, through whichever.
    pub fn call(&self, method: &str, path: &str, params: &[(&str, &str)], body: &str) -> Result<Value, Failure> {
        match self {
            Self::Public(target) => rest::call(target, method, path, params, body.as_bytes()),
            Self::Admin { remote, app } => {
                let query = rest::query(params);
                remote.call_with(method, &format!("/admin/v1/apps/{app}{path}{query}"), body, "")
            }
        }
    }
}

/// An id becomes part of a path; what cannot be an id is not asked for.
pub fn checked_id(id: &str) -> Result<&str, Failure> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    if id.is_empty() || !id.bytes().all(is_plain) {
        return Err(Failure::usage("the app must be ID or ID:KEY:SECRET (--app or FULMAR_APP)"));
    }
    Ok(id)
}

/// A server of the protocol.
pub struct Target {
    pub host: String,
    pub port: u16,
    pub tls: bool,
    pub ca: Option<PathBuf>,
    pub app: App,
    /// Whether the app was named, or is the demo app for want of a name.
    pub app_named: bool,
    pub path_prefix: String,
    /// The flags that name another server.
    pub named_with: &'static str,
}

impl Target {
    pub fn of(args: &TargetArgs) -> Result<Self, Failure> {
        // An empty variable counts as not set. And Kubernetes sets FULMAR_PORT=tcp://... for a service called fulmar,
        // which is not for us.
        let port = if args.port.is_empty() || args.port.contains("://") { "6001" } else { &args.port };
        let port = port.parse().map_err(|_| Failure::usage(format!("{port:?} is not a port")))?;
        let host = if args.host.is_empty() { "127.0.0.1" } else { args.host.trim_matches(['[', ']']) };
        let named = args.app.as_deref().filter(|text| !text.is_empty());
        let app = match named.map(|text| text.splitn(3, ':').collect::<Vec<_>>()) {
            None => App::new(DEMO_APP.0, DEMO_APP.1, DEMO_APP.2),
            Some(parts) => match parts[..] {
                [id, key, secret] => App::new(id, key, secret),
                _ => return Err(Failure::usage("the app must be ID:KEY:SECRET (--app or FULMAR_APP)")),
            },
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            tls: args.tls,
            ca: args.ca.clone(),
            app,
            app_named: named.is_some(),
            path_prefix: args.path_prefix.trim_end_matches('/').to_owned(),
            named_with: "--host and --port",
        })
    }

    /// Host and port as a URL and a `Host` header have them.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }

    /// What to try when the server does not know the app.
    pub fn app_hint(&self) -> &'static str {
        if self.app_named { "" } else { "; name the app with --app ID:KEY:SECRET or FULMAR_APP" }
    }
}
