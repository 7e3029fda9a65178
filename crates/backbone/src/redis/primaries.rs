//! Who is believed to be the primary of each group, and how a connection to it is made.
//!
//! Believing is somebody else's business; here is only the question. Whoever asks drops a connection that was lost or
//! refused something, and asks again after a pause that is not the same for everybody.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError};

use super::settings::{Credentials, Encryption, Settings};

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
    /// The primary of a group by its place among the sorted names; `None` while nobody is believed to be it.
    fn primary(&self, group: usize) -> Option<Primary>;
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is none.
    #[error("{0} is not HOST:PORT")]
    Address(String),
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
    let client = client(address, settings.tls.as_ref(), &settings.credentials, settings.database)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(patience))
        .set_response_timeout(Some(settings.limits.command_timeout));
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

fn client(
    address: &str,
    tls: Option<&Encryption>,
    credentials: &Credentials,
    database: i64,
) -> Result<Client, OpenError> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = parts.ok_or_else(|| OpenError::Address(address.to_owned()))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let mut asked = RedisConnectionInfo::default().set_db(database).set_skip_set_lib_name();
    if let Some(user) = &credentials.user {
        asked = asked.set_username(user);
    }
    if let Some(password) = &credentials.password {
        asked = asked.set_password(password);
    }
    let addr = match tls {
        Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        None => ConnectionAddr::Tcp(host, port),
    };
    let info = addr.into_connection_info()?.set_redis_settings(asked);
    let Some(tls) = tls else { return Ok(Client::open(info)?) };
    let client_tls = match &tls.client {
        Some((cert, key)) => {
            Some(redis::ClientTlsConfig { client_cert: std::fs::read(cert)?, client_key: std::fs::read(key)? })
        }
        None => None,
    };
    let root_cert = tls.ca.as_ref().map(std::fs::read).transpose()?;
    Ok(Client::build_with_tls(info, redis::TlsCertificates { client_tls, root_cert })?)
}
