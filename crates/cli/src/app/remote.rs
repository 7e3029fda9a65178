//! Finds a node's admin API and calls it.

use std::path::{Path, PathBuf};

use fulmar_server::config::{Config, DEMO_APP, Sources, load};
use fulmar_server::storage::{ADMIN_ADDRESS, ADMIN_TOKEN, folder};
use serde_json::Value;

use crate::args::AdminArgs;
use crate::client::rest::exchange;
use crate::client::{Failure, Target};

/// An admin API, and the token for it.
pub struct Remote {
    target: Target,
    token: String,
}

impl Remote {
    pub fn of(args: &AdminArgs) -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let config = configuration(args);
        let configured = args.storage.as_deref().or_else(|| config.as_ref()?.storage.as_deref());
        let kept = folder(configured, |name| std::env::var_os(name));
        let admin = config.as_ref().and_then(|config| config.admin.as_ref());

        let noted = || std::fs::read_to_string(kept.as_ref()?.join(ADMIN_ADDRESS)).ok();
        let by_config = || admin.map(|admin| admin.address.to_string());
        let url = args.admin.clone().or_else(|| variable("FULMAR_ADMIN_URL")).or_else(noted).or_else(by_config);
        let url = url.ok_or_else(|| Failure::usage("where is the admin API? Name it with --admin http://HOST:PORT"))?;
        let target = target(args, url.trim())?;

        let named = args.token_file.clone().or_else(|| variable("FULMAR_ADMIN_TOKEN_FILE").map(PathBuf::from));
        let token = match (variable("FULMAR_ADMIN_TOKEN"), named, admin.and_then(|admin| admin.token.as_ref())) {
            (Some(token), ..) => token,
            (None, Some(file), _) => read_token(&file)?,
            (None, None, Some(token)) => String::from_utf8_lossy(token.expose()).into_owned(),
            (None, None, None) => {
                let kept = kept.ok_or_else(|| {
                    Failure::usage("where is the token? Name its file with --token-file, or set FULMAR_ADMIN_TOKEN")
                })?;
                read_token(&kept.join(ADMIN_TOKEN))?
            }
        };
        let token = token.trim_end_matches(['\r', '\n']).to_owned();
        if token.bytes().any(|b| b.is_ascii_control()) {
            return Err(Failure::usage("the token must not contain control characters, such as line breaks"));
        }
        Ok(Self { target, token })
    }

    /// One call; answers the JSON of a success, or the node's own words.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>, seen: Option<u64>) -> Result<Value, Failure> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let seen = seen.map(|revision| format!("If-Match: {revision}\r\n")).unwrap_or_default();
        self.call_with(method, path, &body, &seen)
    }

    /// The same with a body that is text already, and more headers, each with its line's end.
    pub fn call_with(&self, method: &str, path: &str, body: &str, headers: &str) -> Result<Value, Failure> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{}{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.head(),
            body.len(),
        );
        let (status, body) = exchange(&self.target, request.as_bytes())?;
        let answer: Option<Value> = serde_json::from_slice(&body).ok();
        match answer {
            Some(answer) if (200..300).contains(&status) => Ok(answer),
            Some(answer) if answer["error"].is_string() => {
                Err(answer["error"].as_str().unwrap_or_default().to_owned().into())
            }
            _ => Err(format!("{} does not answer as an admin API does ({status})", self.target.authority()).into()),
        }
    }
}

impl Remote {
    /// The node.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The headers of every call.
    pub fn head(&self) -> String {
        format!(
            "Host: {}\r\nConnection: close\r\nAuthorization: Bearer {}\r\nX-Fulmar-Actor: {}\r\nUser-Agent: fulmar/{}\r\n",
            self.target.authority(),
            self.token,
            actor(),
            env!("CARGO_PKG_VERSION"),
        )
    }
}

/// What the node was told, as far as this user may read it. A mistake in it is the node's to report.
fn configuration(args: &AdminArgs) -> Option<Config> {
    let sources = Sources::new().with_file(args.config.clone()).with_environment(std::env::vars_os());
    load(sources).ok().map(|loaded| loaded.config)
}

fn target(args: &AdminArgs, url: &str) -> Result<Target, Failure> {
    let wrong = || Failure::usage(format!("{url:?} must be http://HOST:PORT or https://HOST:PORT"));
    let (tls, rest) = match url.split_once("://") {
        None => (false, url),
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(_) => return Err(wrong()),
    };
    let rest = rest.trim_end_matches('/');
    let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let app = fulmar_protocol::app::App::new(DEMO_APP.0, DEMO_APP.1, DEMO_APP.2);
    Ok(Target {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: port.parse().map_err(|_| wrong())?,
        tls,
        ca: args.ca.clone(),
        app,
        app_named: true,
        path_prefix: String::new(),
        named_with: "--admin, or its folder with --storage",
    })
}

fn read_token(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| {
        let hint = "a node that runs as this user writes it; else name its folder with --storage, or a token with \
                    --token-file or FULMAR_ADMIN_TOKEN";
        format!("{}: {error}; {hint}", file.display()).into()
    })
}

/// For the audit log.
pub fn actor() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default();
    let plain: String = user.chars().filter(char::is_ascii_graphic).collect();
    if plain.is_empty() { "fulmar-cli".to_owned() } else { plain }
}
