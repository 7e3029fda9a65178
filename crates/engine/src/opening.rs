//! Who may open a connection: one order of checks for everybody.

use std::sync::Arc;

use fulmar_protocol::app::App;
use fulmar_protocol::close::CloseCode;
use fulmar_protocol::name::SocketId;
use fulmar_protocol::opening::{ClientKind, ProtocolVersion};

use crate::refusal::Refusal;

/// Protocol numbers spoken here. Every Android and .NET application sends 5.
const PROTOCOLS: std::ops::RangeInclusive<u32> = 5..=7;

/// What a connection is told for which there is no place at the moment.
pub(crate) const OVER_CAPACITY: &str = "Over capacity, please reconnect";
/// What a connection is told for which the app has no place.
pub(crate) const OVER_QUOTA: &str = "The app is over its connection quota";

/// The facts about a connection that was just upgraded.
#[derive(Debug)]
pub struct Opening {
    /// What became of the path and the key in it.
    pub app: AppLookup,
    /// The protocol version it asked for.
    pub protocol: ProtocolVersion,
    /// Which SDK it is.
    pub client: ClientKind,
    /// The `Origin` header; browsers send it, native SDKs do not.
    pub origin: Option<String>,
    /// Whether it came over TLS, here or at a trusted proxy.
    pub secure: bool,
    /// Whether it must show an authorization of the application in time. The operator's own sessions need not.
    pub must_authorize: bool,
    /// Why newcomers may have to wait, if they do.
    pub load: Load,
    /// A fresh random id, never used before.
    pub socket_id: SocketId,
}

/// What became of the path and the key in it.
#[derive(Debug)]
pub enum AppLookup {
    /// The path is not `/app/KEY`.
    NoPath,
    /// No app has this key.
    NoApp {
        /// The key that was asked for.
        key: String,
    },
    /// The app.
    Found(Arc<App>),
}

/// Facts of the moment that can turn a newcomer away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    /// Taking connections is not among what the node does.
    pub elsewhere: bool,
    /// The node is going away and its grace is over.
    pub draining: bool,
    /// The app has as many connections as it may have.
    pub over_quota: bool,
    /// The node has as many connections as it can hold.
    pub overloaded: bool,
}

/// Judges the facts in the documented order; the first that fails decides.
pub(crate) fn judge(opening: &Opening) -> Result<&Arc<App>, Refusal> {
    if opening.load.elsewhere {
        let reason = "This node takes no connections (its roles are others), please reconnect";
        return Err(Refusal::closing(CloseCode::OVER_CAPACITY, reason));
    }
    if opening.load.draining {
        return Err(Refusal::closing(CloseCode::OVER_CAPACITY, "This node is shutting down, please reconnect"));
    }
    let app = match &opening.app {
        AppLookup::NoPath => {
            return Err(Refusal::closing(CloseCode::NO_SUCH_PATH, "Path not found: connect to /app/KEY"));
        }
        AppLookup::NoApp { key } => {
            let shown: String = key.chars().take(64).collect();
            return Err(Refusal::closing(
                CloseCode::NO_SUCH_APP,
                format!("App key {shown} does not exist on this server"),
            ));
        }
        AppLookup::Found(app) => app,
    };
    if !app.enabled {
        return Err(Refusal::closing(CloseCode::APP_DISABLED, "The app is disabled"));
    }
    if app.tls_only && !opening.secure {
        return Err(Refusal::closing(CloseCode::TLS_ONLY, "The app accepts only TLS connections: use wss://"));
    }
    match opening.protocol {
        ProtocolVersion::Number(number) if PROTOCOLS.contains(&number) => {}
        ProtocolVersion::Missing => {
            return Err(Refusal::closing(CloseCode::NO_PROTOCOL, "No protocol version supplied: add ?protocol=7"));
        }
        ProtocolVersion::Number(_) | ProtocolVersion::Malformed => {
            return Err(Refusal::closing(
                CloseCode::UNSUPPORTED_PROTOCOL,
                "Unsupported protocol version: 5, 6 and 7 are supported",
            ));
        }
    }
    if !origin_allowed(&app.allowed_origins, opening.origin.as_deref()) {
        return Err(Refusal::closing(CloseCode::UNAUTHORIZED, "This origin is not allowed to connect to the app"));
    }
    if opening.load.over_quota {
        return Err(Refusal::closing(CloseCode::OVER_QUOTA, OVER_QUOTA));
    }
    if opening.load.overloaded {
        return Err(Refusal::closing(CloseCode::OVER_CAPACITY, OVER_CAPACITY));
    }
    Ok(app)
}

/// Whether a connection with this `Origin` may use an app with this allow list. An empty list allows all. No origin is
/// allowed: only browsers send one, and the list is a protection of their users, not against programs.
/// Entries are `https://host[:port]` (exact), `host` (any scheme and port) or `*.host` (its subdomains).
#[must_use]
pub fn origin_allowed(allowed: &[String], origin: Option<&str>) -> bool {
    let Some(origin) = origin else { return true };
    if allowed.is_empty() {
        return true;
    }
    let host = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    allowed.iter().any(|entry| {
        if entry.contains("://") {
            return entry.trim_end_matches('/').eq_ignore_ascii_case(origin);
        }
        match entry.strip_prefix("*.") {
            Some(parent) => is_subdomain(host, parent),
            None => entry.eq_ignore_ascii_case(host),
        }
    })
}

fn is_subdomain(host: &str, parent: &str) -> bool {
    let Some(split) = host.len().checked_sub(parent.len() + 1) else { return false };
    match (host.get(..split), host.get(split..)) {
        (Some(label), Some(rest)) => {
            !label.is_empty() && rest.strip_prefix('.').is_some_and(|rest| rest.eq_ignore_ascii_case(parent))
        }
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn opening() -> Opening {
        Opening {
            app: AppLookup::Found(Arc::new(App::new("1", "k", "s"))),
            protocol: ProtocolVersion::Number(7),
            client: ClientKind::Other,
            origin: None,
            secure: false,
            must_authorize: false,
            load: Load::default(),
            socket_id: SocketId::new(1, 2),
        }
    }

    fn code(opening: &Opening) -> Option<u16> {
        judge(opening).err().and_then(|refusal| refusal.code())
    }

    #[test]
    fn the_first_check_that_fails_decides() {
        // Everything wrong at once, then mended one by one in the order of the checks.
        let mut app = App::new("1", "k", "s");
        app.enabled = false;
        app.tls_only = true;
        app.allowed_origins = vec!["good.example".into()];
        let mut o = opening();
        o.app = AppLookup::NoPath;
        o.protocol = ProtocolVersion::Missing;
        o.origin = Some("https://bad.example".into());
        o.load = Load { elsewhere: false, draining: true, over_quota: true, overloaded: true };
        assert_eq!(code(&o), Some(4100));
        o.load.draining = false;
        assert_eq!(code(&o), Some(4005));
        o.app = AppLookup::NoApp { key: "nope".into() };
        assert_eq!(code(&o), Some(4001));
        o.app = AppLookup::Found(Arc::new(app.clone()));
        assert_eq!(code(&o), Some(4003));
        app.enabled = true;
        o.app = AppLookup::Found(Arc::new(app));
        assert_eq!(code(&o), Some(4000));
        o.secure = true;
        assert_eq!(code(&o), Some(4008));
        o.protocol = ProtocolVersion::Number(4);
        assert_eq!(code(&o), Some(4007));
        o.protocol = ProtocolVersion::Malformed;
        assert_eq!(code(&o), Some(4007));
        o.protocol = ProtocolVersion::Number(5);
        assert_eq!(code(&o), Some(4009));
        o.origin = Some("https://good.example:8443".into());
        assert_eq!(code(&o), Some(4004));
        o.load.over_quota = false;
        assert_eq!(code(&o), Some(4100));
        o.load.overloaded = false;
        assert_eq!(code(&o), None);
    }

    #[test]
    fn an_origin_list_takes_exact_origins_hosts_and_subdomains() {
        let list: Vec<String> = ["https://a.example:8443", "b.example", "*.c.example"].map(Into::into).to_vec();
        for good in [
            "https://a.example:8443",
            "http://b.example",
            "https://B.example:99",
            "https://x.c.example",
            "https://x.y.c.example:1",
        ] {
            assert!(origin_allowed(&list, Some(good)), "{good}");
        }
        for bad in [
            "https://a.example",
            "http://a.example:8443",
            "https://c.example",
            "https://evilc.example",
            "null",
            "",
            "é",
        ] {
            assert!(!origin_allowed(&list, Some(bad)), "{bad}");
        }
        assert!(origin_allowed(&list, None));
        assert!(origin_allowed(&[], Some("https://any.example")));
    }
}
