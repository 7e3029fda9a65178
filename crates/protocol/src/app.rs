//! An application: who may use the node, and within which limits.

use std::fmt;
use std::sync::Arc;

use crate::webhook::Webhooks;

/// The id an application has in HTTP paths. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppId(Arc<str>);

/// The public key that clients connect with. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppKey(Arc<str>);

macro_rules! text_newtype {
    ($name:ident) => {
        impl $name {
            /// Wraps text that the configuration has checked.
            #[must_use]
            pub fn new(text: &str) -> Self {
                Self(text.into())
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}
text_newtype!(AppId);
text_newtype!(AppKey);

/// The HMAC key of an application. It never shows in any output: not in `Debug`, not in logs, not in errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The raw bytes, for computing signatures and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// One application with its switches and limits, as the registry hands it out. Replaced as a whole on reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// Id in HTTP paths.
    pub id: AppId,
    /// Key in the WebSocket path and in signatures.
    pub key: AppKey,
    /// Signs everything; shown to nobody.
    pub secret: Secret,
    /// The secret before a rotation. Either verifies; webhooks are signed with this one until it is retired.
    pub previous_secret: Option<Secret>,
    /// A disabled app refuses connections with 4003 and HTTP calls with 403.
    pub enabled: bool,
    /// Whether members of private and presence channels may send `client-` events.
    pub client_events: bool,
    /// Whether subscribers are told how many they are.
    pub subscription_counts: bool,
    /// Whether signed-in users may watch who else is online.
    pub watchlist: bool,
    /// Whether a connection must sign in or enter a private channel within
    /// [`AppLimits::authorized_connections_timeout_s`].
    pub authorized_connections: bool,
    /// Whether plain `ws://` is refused with 4000.
    pub tls_only: bool,
    /// Origins a browser may connect from; empty means any. Entries are `https://host[:port]`, `host`, or `*.host`.
    pub allowed_origins: Vec<String>,
    /// When its publications count as accepted.
    pub durability: Durability,
    /// Who is told what happens.
    pub webhooks: Webhooks,
    /// Sizes and rates.
    pub limits: AppLimits,
}

/// When a publication counts as accepted, and its call is answered. Means something to several nodes over Redis only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A replica has it too, or every live node has heard it and this one keeps it until the log has it.
    #[default]
    Replicated,
    /// The primary's log has it.
    Primary,
    /// This node has it in its buffer.
    Memory,
}

/// What one application may use. Every value has a default and can be set per app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppLimits {
    /// Connections open at once over the whole deployment; `None` is no limit. Beyond it: 4004.
    pub max_connections: Option<u32>,
    /// Events per second that the app's servers may publish over REST, all nodes together, each counted once for each channel it goes to;
    /// `None` is no limit. Beyond it: HTTP 503.
    pub publishes_per_s_max: Option<u32>,
    /// Characters of a channel name, prefix included; at most 200.
    pub channel_name_max: usize,
    /// Characters of an event name.
    pub event_name_max: usize,
    /// Bytes of one event's `data`, decoded. Beyond it: HTTP 413, or a `pusher:error` for client events.
    pub event_data_bytes_max: usize,
    /// Channels one `events` call may name.
    pub publish_channels_max: usize,
    /// Events one `batch_events` call may carry.
    pub batch_events_max: usize,
    /// Distinct users on one presence channel.
    pub presence_members_max: usize,
    /// Bytes of one member's `user_info`, as JSON text.
    pub presence_user_info_bytes_max: usize,
    /// Characters of a user id.
    pub user_id_max: usize,
    /// Client events one connection may send per second. Beyond it: 4301.
    pub client_events_per_s_max: u32,
    /// Seconds the last event of a cache channel is kept.
    pub cache_ttl_s: u32,
    /// Users one connection may watch; the rest of a longer list is left out and the client told so (4302).
    pub watchlist_max: usize,
    /// Connections on one node that are yet to show an authorization, where the app asks for one. They do not count towards
    /// `max_connections`. Beyond it: 4100.
    pub unauthorized_connections_max: u32,
    /// Seconds a connection may stay that shows no authorization, where the app asks for one. Beyond it: 4009.
    pub authorized_connections_timeout_s: u32,
}

impl Default for AppLimits {
    fn default() -> Self {
        Self {
            max_connections: None,
            publishes_per_s_max: None,
            channel_name_max: 164,
            event_name_max: 200,
            event_data_bytes_max: 10_240,
            publish_channels_max: 100,
            batch_events_max: 10,
            presence_members_max: 100,
            presence_user_info_bytes_max: 1_024,
            user_id_max: 128,
            client_events_per_s_max: 10,
            cache_ttl_s: 1_800,
            watchlist_max: 100,
            unauthorized_connections_max: 5_000,
            authorized_connections_timeout_s: 30,
        }
    }
}

impl App {
    /// An app with every feature on and default limits: what `--app ID:KEY:SECRET` makes. Nothing that turns clients
    /// away is on: neither TLS nor an authorization is asked for.
    #[must_use]
    pub fn new(id: &str, key: &str, secret: &str) -> Self {
        Self {
            id: AppId::new(id),
            key: AppKey::new(key),
            secret: Secret::new(secret),
            previous_secret: None,
            enabled: true,
            client_events: true,
            subscription_counts: true,
            watchlist: true,
            authorized_connections: false,
            tls_only: false,
            allowed_origins: Vec::new(),
            durability: Durability::default(),
            webhooks: Webhooks::default(),
            limits: AppLimits::default(),
        }
    }

    /// The secret that webhooks are signed with: the oldest that verifies, which receivers have had the longest.
    #[must_use]
    pub fn oldest_secret(&self) -> &Secret {
        self.previous_secret.as_ref().unwrap_or(&self.secret)
    }

    /// The secrets that verify today, newest first.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.secret).chain(&self.previous_secret)
    }
}
