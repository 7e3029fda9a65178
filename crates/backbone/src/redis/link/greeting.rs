//! How a server is reached and greeted: certificates, user, password and database, as the driver's client takes them.
//!
//! Nothing is opened here.

use std::sync::Arc;
use std::time::Duration;

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo, RedisError,
    TlsCertificates,
};

use crate::redis::settings::{Credentials, Encryption};

/// How to reach and greet a server.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// User and password.
    pub credentials: Credentials,
    /// Number of the database.
    pub database: i64,
    /// Whether, and how, it is encrypted.
    pub tls: Option<Arc<Certificates>>,
    /// Whether the server is asked who it is ([`Server`](super::Server)); Sentinels are not.
    pub asks_who: bool,
}

/// Certificates, read once.
pub struct Certificates {
    root: Option<Vec<u8>>,
    shown: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(encryption: &Encryption) -> std::io::Result<Self> {
        let root = encryption.ca.as_ref().map(std::fs::read).transpose()?;
        let shown = match &encryption.shown {
            Some((cert, key)) => Some((std::fs::read(cert)?, std::fs::read(key)?)),
            None => None,
        };
        Ok(Self { root, shown })
    }
}

/// What makes connections to `address` (`host:port`).
///
/// # Errors
/// When the address is none, or a certificate is.
pub fn maker(address: &str, greeting: &Greeting) -> Result<Client, RedisError> {
    let malformed = || RedisError::from((redis::ErrorKind::InvalidClientConfig, "an address is host:port"));
    let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = port.parse().map_err(|_| malformed())?;
    let mut redis = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(greeting.database);
    if let Some(user) = &greeting.credentials.user {
        redis = redis.set_username(user);
    }
    if let Some(password) = &greeting.credentials.password {
        redis = redis.set_password(password);
    }
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(2))
        .with_retries(3);
    let tcp = redis::io::tcp::TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive)
        .set_user_timeout(Duration::from_secs(5));
    let address = match &greeting.tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
    };
    let info = address.into_connection_info()?.set_redis_settings(redis).set_tcp_settings(tcp);
    match &greeting.tls {
        None => Client::open(info),
        Some(certificates) => {
            let client_tls = certificates.shown.as_ref().map(|(client_cert, client_key)| ClientTlsConfig {
                client_cert: client_cert.clone(),
                client_key: client_key.clone(),
            });
            Client::build_with_tls(info, TlsCertificates { client_tls, root_cert: certificates.root.clone() })
        }
    }
}
