//! Who is believed to be the primary of each group, and how whoever has connections of its own makes one to it.
//!
//! Believing is somebody else's business; here is only the question. Whoever asks drops a connection that was lost or
//! refused something, and asks again after a pause that is not the same for everybody.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError};

use super::RedisBackbone;
use super::link::{Certificates, Greeting, maker};
use super::settings::Settings;

/// A server that is believed to be its group's primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Primary {
    /// `host:port`.
    pub address: String,
    /// The group's identity, `DEPLOYMENT/GROUP`.
    pub identity: String,
    /// Run id of the server, whose role was verified.
    pub run: String,
    /// The highest epoch known of the group.
    pub epoch: u64,
}

/// Whoever knows the primaries.
pub trait Primaries: Send + Sync {
    /// How many groups there are.
    fn groups(&self) -> usize;
    /// The primary of a group by its place among [`super::Figures::groups`]; `None` while nobody is believed to be it.
    fn primary(&self, group: usize) -> Option<Primary>;
    /// Whether nobody goes to this group any more, because it has no slots.
    fn is_left(&self, _group: usize) -> bool {
        false
    }
}

impl Primaries for RedisBackbone {
    fn groups(&self) -> usize {
        self.groups.max(self.primaries().len())
    }

    fn primary(&self, group: usize) -> Option<Primary> {
        self.primaries().into_iter().nth(group).flatten()
    }

    fn is_left(&self, group: usize) -> bool {
        let figures = self.shared.figures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        figures.groups.get(group).is_some_and(|group| group.is_left)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A certificate cannot be read.
    #[error("cannot read a certificate: {0}")]
    Certificate(#[from] std::io::Error),
    /// The server, or the way there.
    #[error(transparent)]
    Redis(#[from] RedisError),
}

/// Opens a connection to a server, with the credentials and the encryption of the settings.
///
/// # Errors
/// When there is none within `patience`.
pub async fn open(address: &str, settings: &Settings, patience: Duration) -> Result<MultiplexedConnection, OpenError> {
    let greeting = Greeting {
        credentials: settings.credentials.clone(),
        database: settings.database,
        tls: settings.tls.as_ref().map(Certificates::read).transpose()?.map(Arc::new),
        asks_who: false,
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(patience))
        .set_response_timeout(Some(settings.limits.command_timeout));
    Ok(maker(address, &greeting)?.get_multiplexed_async_connection_with_config(&config).await?)
}
