//! Why a request is not answered with what it asked for: one closed list with its statuses and texts.
//!
//! SDKs print these texts to their users verbatim, so each says what was wrong and what would be right. A text never
//! holds a secret or a digest made with one.

use fulmar_protocol::name::NameError;
use fulmar_protocol::publish::{PublishRefusal, UnknownAttribute};
use fulmar_protocol::query::QueryError;
use fulmar_protocol::signing::RequestAuthError;
use hyper::StatusCode;

use super::idempotency::KEY_BYTES_MAX;

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The query string cannot be read.
    #[error("{0}")]
    Query(#[from] QueryError),
    /// The call is not signed as it must be.
    #[error("{0}")]
    Auth(#[from] RequestAuthError),
    /// The app exists and is switched off.
    #[error("The app {id} is disabled")]
    AppDisabled {
        /// Which.
        id: String,
    },
    /// What was to be published is not valid.
    #[error("{0}")]
    Publish(#[from] PublishRefusal),
    /// The channel of the path.
    #[error("Invalid channel name {name:?}: it {why}")]
    ChannelName {
        /// As it was given, unescaped.
        name: String,
        /// The rule it breaks.
        why: NameError,
    },
    /// The user of the path.
    #[error("Invalid user id {id:?}: it {why}")]
    UserId {
        /// As it was given, unescaped.
        id: String,
        /// The rule it breaks.
        why: NameError,
    },
    /// The user of the path is not text.
    #[error("The user id in the path is not UTF-8 once its escapes are undone")]
    UserIdNotText,
    /// Events for one user have no subscribers to show.
    #[error("Channels of single users cannot be queried")]
    UserChannel,
    /// An attribute that nothing here has.
    #[error("{0}")]
    Attribute(#[from] UnknownAttribute),
    /// Users are known on presence channels alone.
    #[error("user_count can only be asked for presence channels")]
    UserCountElsewhere,
    /// The same for a listing.
    #[error("user_count can only be asked for presence channels: give a filter_by_prefix that begins with presence-")]
    UserCountUnfiltered,
    /// `partial` is neither true nor false.
    #[error("The parameter partial must be true or false")]
    Partial,
    /// The app's switch is off.
    #[error("subscription_count is not enabled for this app")]
    SubscriptionCountsOff,
    /// Events are kept on cache channels alone.
    #[error("cache can only be asked for cache channels")]
    CacheElsewhere,
    /// There are no members to list.
    #[error("Users can only be listed for presence channels")]
    UsersElsewhere,
    /// Hosted wording.
    #[error("The following query string parameters are extraneous: {names}")]
    Extraneous {
        /// Joined by commas.
        names: String,
    },
    /// Not a usable key.
    #[error("The Idempotency-Key header must be 1 to {KEY_BYTES_MAX} bytes")]
    IdempotencyKey,
    /// The key stands for another call.
    #[error(
        "This Idempotency-Key was used for a different call in the last 120 seconds; give each call a key of its own"
    )]
    IdempotencyMismatch,
    /// The body is larger than any call needs.
    #[error("The request body exceeds the allowed maximum ({max} bytes)")]
    BodyTooLarge {
        /// The limit that applied.
        max: usize,
    },
    /// The body did not arrive.
    #[error("The request body did not arrive in time")]
    BodyLate,
    /// The connection broke, or the body's own framing is wrong.
    #[error("The request body could not be read")]
    BodyBroken,
    /// Nobody sends compressed calls.
    #[error("Compressed request bodies are not supported: send it without Content-Encoding")]
    Encoding,
    /// A word that would become part of a script.
    #[error("The receiver must be a number or a plain word")]
    Receiver,
    /// Momentary.
    #[error("The server cannot take this now, try again")]
    Unavailable,
    /// A part of the deployment had no way until the time was over, and the others took theirs.
    #[error(
        "Not accepted in time for: {channels}. Whatever else the call names was accepted. Publish to these again, or repeat \
         the call as it was if it has an Idempotency-Key: then only these are published"
    )]
    Partly {
        /// Joined by commas.
        channels: String,
    },
    /// The app publishes faster than it may.
    #[error(
        "The app may publish {max} events per second (publishes_per_s_max){}, and has no room for those of this call now. \
         None of them was published: try it again in a second",
        divided(*.nodes)
    )]
    OverRate {
        /// Its limit.
        max: u32,
        /// That divide it.
        nodes: u64,
    },
    /// Calls are not among what the node does.
    #[error("This node takes no REST calls: its server.roles are others. Send them to a node with the role rest")]
    OtherRole,
    /// The demo's own pace.
    #[error("That was too fast, try again in a second")]
    TooFast,
    /// Another page, or no page at all, tried to use the demo.
    #[error("Only the page of this server may use this")]
    OtherOrigin,
    /// No such path.
    #[error(
        "There is nothing at this path. The API: POST /apps/APP_ID/events, POST /apps/APP_ID/batch_events, \
         GET /apps/APP_ID/channels, GET /apps/APP_ID/channels/NAME, GET /apps/APP_ID/channels/NAME/users, \
         POST /apps/APP_ID/users/ID/terminate_connections. \
         WebSocket clients connect to /app/KEY"
    )]
    NotFound,
    /// The path exists for other methods.
    #[error("This path takes {allow}")]
    Method {
        /// For the `Allow` header too.
        allow: &'static str,
    },
    /// A WebSocket path without a WebSocket request.
    #[error("This is a WebSocket address: connect to it with a Pusher client library")]
    UpgradeRequired,
}

impl Refusal {
    /// The status it is answered with.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Query(_)
            | Self::ChannelName { .. }
            | Self::UserId { .. }
            | Self::UserIdNotText
            | Self::UserChannel
            | Self::Attribute(_)
            | Self::UserCountElsewhere
            | Self::UserCountUnfiltered
            | Self::Partial
            | Self::SubscriptionCountsOff
            | Self::CacheElsewhere
            | Self::UsersElsewhere
            | Self::Extraneous { .. }
            | Self::IdempotencyKey
            | Self::BodyBroken
            | Self::Receiver => StatusCode::BAD_REQUEST,
            Self::Auth(_) => StatusCode::UNAUTHORIZED,
            Self::AppDisabled { .. } | Self::OtherOrigin => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyLate => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::Unavailable | Self::Partly { .. } | Self::OverRate { .. } | Self::OtherRole | Self::TooFast => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            // The protocol crate knows no HTTP types; its numbers are those of the specification.
            Self::Publish(refusal) => StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST),
        }
    }
}

/// Whoever reads that a limit is reached which the app alone has not reached on this node must learn why.
fn divided(nodes: u64) -> String {
    if nodes > 1 { format!(", which {nodes} nodes divide among them") } else { String::new() }
}
