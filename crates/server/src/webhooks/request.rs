//! One attempt to tell one endpoint: resolve, judge, connect, ask once, look at the status.
//!
//! A name is resolved once, and the connection goes to an address that was judged; redirects are answers like any other
//! and none of them is a success, so nothing can lead the node elsewhere afterwards. A connection that is kept from an
//! earlier attempt is used only when it leads to an address that was judged in this one. How often and when is decided
//! elsewhere.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fulmar_engine::webhook_batch::Batch;
use fulmar_protocol::webhook::{Endpoint, Webhooks};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Version};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::address::{Destination, destination, is_allowed};
use super::egress::{Egress, ProxyError, connect_through};
use super::pool::{Open, Place, Pool};

/// How long an attempt may take, from the name to the status.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long one of several addresses may take to answer before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;
/// Bytes of an answer's body that are read, so that a receiver does not see its answer cut off. Nobody looks at them.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long they may take.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Headers that are ours, or about the connection, and so nobody else's to set. In lower case.
pub const RESERVED_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-fulmar-event-ids",
    "x-fulmar-webhook-id",
    "x-pusher-key",
    "x-pusher-signature",
];

/// A name's addresses, some time later.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Whoever knows the addresses of names.
pub trait Resolve: Send + Sync {
    /// The addresses of `host`, which may be one itself.
    fn resolve(&self, host: &str) -> Resolving;
}

/// The machine's own resolver.
#[derive(Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str) -> Resolving {
        let host = host.to_owned();
        Box::pin(async move {
            // The port is given so that the host cannot smuggle one in.
            let addresses = tokio::net::lookup_host((host.as_str(), 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

/// Why an endpoint was not told.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The URL cannot be used.
    #[error("the URL {0}")]
    Url(&'static str),
    /// The name has no address, or nobody says.
    #[error("{host} cannot be resolved: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// None of the name's addresses may be spoken to.
    #[error("{host} is at {address}, which is not a public address (webhooks_allow_networks, webhooks_allow_private)")]
    Forbidden {
        /// The name.
        host: String,
        /// Its first address.
        address: IpAddr,
    },
    /// The operator does not let webhooks go to this port.
    #[error("port {0} is not among webhooks.ports")]
    Port(u16),
    /// The operator's proxy made no connection.
    #[error(transparent)]
    Proxy(ProxyError),
    /// Nobody accepts connections there.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No TLS with the right name and a trusted certificate.
    #[error("TLS with {host} failed: {source}")]
    Tls {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("no proper answer: {0}")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("no answer within {} s", ATTEMPT_TIMEOUT.as_secs())]
    Timeout,
    /// Answered, but not with success. Redirects are among these: they are not followed.
    #[error("answered {0}")]
    Status(u16),
}

impl AttemptError {
    /// Whether somebody was there and judged the request.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Status(_))
    }
}

/// Tells endpoints. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    resolver: Arc<dyn Resolve>,
    tls: Arc<ClientConfig>,
    pool: Arc<Pool>,
    egress: Arc<Egress>,
}

impl Caller {
    /// Trusts the certificates the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).
    #[must_use]
    pub fn new(resolver: Arc<dyn Resolve>) -> Self {
        let mut roots = RootCertStore::empty();
        // A store may hold entries we cannot read; what matters is whether the server's chain ends in one we can.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self::trusting(resolver, roots)
    }

    /// Trusts these certificates.
    #[must_use]
    pub fn trusting(resolver: Arc<dyn Resolve>, roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let versions = versions.expect("this provider has the versions that rustls takes for safe");
        let tls = versions.with_root_certificates(roots).with_no_client_auth();
        Self { resolver, tls: Arc::new(tls), pool: Arc::default(), egress: Arc::default() }
    }

    /// Goes no further than the operator allows.
    #[must_use]
    pub fn within(self, egress: Egress) -> Self {
        Self { egress: Arc::new(egress), ..self }
    }

    /// Makes one attempt. The answer is the status, which is a success.
    ///
    /// # Errors
    /// Why the endpoint was not told, or may not have been.
    pub async fn attempt(
        &self,
        webhooks: &Webhooks,
        endpoint: &Endpoint,
        batch: &Batch,
        stamp: u64,
    ) -> Result<u16, AttemptError> {
        let attempt = self.attempt_untimed(webhooks, endpoint, batch, stamp);
        timeout(ATTEMPT_TIMEOUT, attempt).await.unwrap_or(Err(AttemptError::Timeout))
    }

    async fn attempt_untimed(
        &self,
        webhooks: &Webhooks,
        endpoint: &Endpoint,
        batch: &Batch,
        stamp: u64,
    ) -> Result<u16, AttemptError> {
        let to = destination(&endpoint.url).map_err(AttemptError::Url)?;
        if !self.egress.allows_port(to.port) {
            return Err(AttemptError::Port(to.port));
        }
        let request = request(&to, endpoint, batch, stamp)?;
        let addresses = self.allowed_addresses(webhooks, &to).await?;
        let may_lead =
            |place: &Place| place.is_tls == to.is_tls && place.host == to.host && addresses.contains(&place.address);
        if let Some((place, open)) = self.pool.take(Instant::now(), may_lead) {
            match self.exchange(place, open, request.clone()).await {
                // The endpoint may have closed it while it was idle, which says nothing about the endpoint. Nobody knows
                // whether it heard the request, so that it may hear it twice: the same bytes under the same ids.
                Err(AttemptError::Http(_)) => {}
                outcome => return outcome,
            }
        }
        let (place, open) = self.open(&to, &addresses).await?;
        self.exchange(place, open, request).await
    }

    /// Closes connections that were kept for long enough.
    pub(super) fn sweep(&self) {
        self.pool.sweep(Instant::now());
    }

    async fn open(&self, to: &Destination, addresses: &[SocketAddr]) -> Result<(Place, Open), AttemptError> {
        let (address, socket) = connect(addresses, self.egress.proxy.as_deref()).await?;
        let place = Place { address, host: to.host.clone(), is_tls: to.is_tls };
        if !to.is_tls {
            return Ok((place, handshake(socket).await?));
        }
        let name = ServerName::try_from(to.host.clone()).map_err(|_| AttemptError::Url("has no proper host name"))?;
        let connector = TlsConnector::from(self.tls.clone());
        match connector.connect(name, socket).await {
            Ok(stream) => Ok((place, handshake(stream).await?)),
            Err(source) => Err(AttemptError::Tls { host: to.host.clone(), source }),
        }
    }

    /// Asks once, and keeps the connection when it can be used again.
    async fn exchange(&self, place: Place, mut open: Open, request: Request<Full<Bytes>>) -> Result<u16, AttemptError> {
        let answer = open.sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        let mut bytes = 0;
        let reading = async {
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > ANSWER_BYTES_MAX {
                    return false;
                }
            }
            open.sender.ready().await.is_ok()
        };
        // Whether the rest of the answer arrives matters to nobody but the next request.
        if timeout(ANSWER_TIMEOUT, reading).await.unwrap_or(false) {
            self.pool.put(Instant::now(), place, open);
        }
        if (200..300).contains(&status) { Ok(status) } else { Err(AttemptError::Status(status)) }
    }

    /// The addresses of a destination that may be spoken to.
    ///
    /// # Errors
    /// When it has none at all, or none of these.
    pub async fn allowed_addresses(
        &self,
        webhooks: &Webhooks,
        to: &Destination,
    ) -> Result<Vec<SocketAddr>, AttemptError> {
        let resolved = self.resolver.resolve(&to.host).await;
        let all = resolved.map_err(|source| AttemptError::Resolve { host: to.host.clone(), source })?;
        let Some(&first) = all.first() else {
            let source = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(AttemptError::Resolve { host: to.host.clone(), source });
        };
        let allowed = all.into_iter().filter(|address| is_allowed(*address, webhooks));
        let allowed: Vec<SocketAddr> = allowed.map(|ip| SocketAddr::new(ip, to.port)).take(ADDRESSES_MAX).collect();
        if allowed.is_empty() {
            return Err(AttemptError::Forbidden { host: to.host.clone(), address: first });
        }
        Ok(allowed)
    }
}

async fn connect(addresses: &[SocketAddr], proxy: Option<&str>) -> Result<(SocketAddr, TcpStream), AttemptError> {
    let mut last = None;
    for (n, &address) in addresses.iter().enumerate() {
        let patience = if n + 1 == addresses.len() { ATTEMPT_TIMEOUT } else { CONNECT_TIMEOUT };
        let connecting = async {
            match proxy {
                Some(proxy) => connect_through(proxy, address).await.map_err(AttemptError::Proxy),
                None => TcpStream::connect(address).await.map_err(|source| AttemptError::Connect { address, source }),
            }
        };
        match timeout(patience, connecting).await {
            Ok(Ok(socket)) => {
                // It only speeds things up.
                let _: io::Result<()> = socket.set_nodelay(true);
                return Ok((address, socket));
            }
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = Some(AttemptError::Timeout),
        }
    }
    Err(last.expect("whoever calls has an address at least"))
}

/// The name of a request, of the store with this stamp.
#[must_use]
pub fn webhook_id(stamp: u64, batch: &Batch) -> String {
    format!("{stamp:016x}-{:x}", batch.id)
}

/// The names of its events, in their order.
#[must_use]
pub fn event_ids(stamp: u64, batch: &Batch) -> String {
    let ids: Vec<String> = batch.event_ids.iter().map(|id| format!("{stamp:016x}-{id:x}")).collect();
    ids.join(",")
}

fn request(
    to: &Destination,
    endpoint: &Endpoint,
    batch: &Batch,
    stamp: u64,
) -> Result<Request<Full<Bytes>>, AttemptError> {
    let broken = |_| AttemptError::Url("or a header cannot be written");
    let mut request = Request::builder()
        .method("POST")
        .uri(to.path.as_str())
        .version(Version::HTTP_11)
        .header("Host", &to.authority)
        .header("Content-Type", "application/json")
        .header("X-Pusher-Key", &*batch.key)
        .header("X-Pusher-Signature", &*batch.signature)
        .header("X-Fulmar-Webhook-Id", webhook_id(stamp, batch))
        .header("X-Fulmar-Event-Ids", event_ids(stamp, batch))
        .header("User-Agent", concat!("fulmar/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::copy_from_slice(batch.body.as_bytes())))
        .map_err(broken)?;
    for (name, value) in &endpoint.headers {
        let pair = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()));
        if let (Ok(name), Ok(mut value)) = pair {
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
    }
    Ok(request)
}

async fn handshake<S>(stream: S) -> Result<Open, AttemptError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await?;
    Ok(Open { sender, driving: tokio::spawn(async move { drop(connection.await) }) })
}
