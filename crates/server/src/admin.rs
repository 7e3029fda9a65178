//! The admin API: its own listener, a token on every call, everything that changes something on record.
//!
//! It runs on the node's control thread, beside signals and reloads, and never on those that serve: whatever it does, no
//! subscriber waits for it. Nothing here decides what an app may be; that is [`crate::registry`]. Reading order:
//! [`routes`] (what there is), this file (who may), `calls` (what happens), `relay` and `watch` (what happens in an app's
//! name), `audit` (what is remembered).

mod audit;
mod calls;
mod hearing;
pub mod openapi;
mod relay;
mod reply;
pub mod routes;
mod watch;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fulmar_backbone::redis::RedisBackbone;
use fulmar_protocol::app::Secret;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

use self::audit::Audit;
use self::reply::{Failed, Reply};
use self::routes::Route;
use self::watch::{AnyBody, WATCHES_MAX};
use crate::config;
use crate::edge::Edge;
use crate::metrics::sink::SinkState;
use crate::registrar::Registrar;
use crate::registry::Author;
use crate::storage;

/// Connections at once; more wait.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a body; an app with all its settings takes a few thousand.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of one connection that wait to be sent, and of a head.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long a head or a body may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How long a caller without the token waits for its answer: with [`CONNECTIONS_MAX`], what guessing is worth.
const REFUSED_AFTER: Duration = Duration::from_millis(250);
/// Bytes of a token that is made here.
const TOKEN_BYTES: usize = 32;
/// Characters of a caller's name that are kept.
const WHO_MAX: usize = 64;
/// The caller's own word about who it is.
const ACTOR: &str = "x-fulmar-actor";

/// The admin API of a node.
pub(crate) struct Admin {
    registrar: Arc<Registrar>,
    redis: Option<Arc<RedisBackbone>>,
    sink: Arc<SinkState>,
    /// Where an operator publishes, asks and listens in an app's name.
    edge: Arc<Edge>,
    /// For streams under way: they must not take every connection there may be.
    watches: Arc<Semaphore>,
    audit: Audit,
    token: Secret,
    serves_at: SocketAddr,
    started: Instant,
}

/// Why there is no admin API.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("no admin.token is configured, and there is no storage folder to keep one in")]
    NoToken,
    #[error("{what} in the storage folder: {source}")]
    File { what: &'static str, source: io::Error },
}

impl Admin {
    /// Listens, and makes a token if there is none. `serves_at` is where the node's public port is.
    ///
    /// # Errors
    /// Anything; a node goes on without its admin API.
    pub(crate) fn start(
        config: &config::Admin,
        folder: Option<&Path>,
        registrar: Arc<Registrar>,
        (redis, sink): (Option<Arc<RedisBackbone>>, Arc<SinkState>),
        edge: Arc<Edge>,
        serves_at: SocketAddr,
    ) -> Result<(Arc<Self>, std::net::TcpListener), AdminError> {
        let token = match (&config.token, folder) {
            (Some(token), _) => token.clone(),
            (None, Some(folder)) => {
                own_token(&folder.join(storage::ADMIN_TOKEN)).map_err(in_folder(storage::ADMIN_TOKEN))?
            }
            (None, None) => return Err(AdminError::NoToken),
        };
        let address = config.address;
        let listener = crate::listen::listen(address).map_err(|source| AdminError::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| AdminError::Listen { address, source })?;
        if let Some(folder) = folder {
            let text = format!("{address}\n");
            let written = storage::write_private(&folder.join(storage::ADMIN_ADDRESS), text.as_bytes());
            written.map_err(in_folder(storage::ADMIN_ADDRESS))?;
        }
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "the admin API is reachable from other machines and does not speak TLS: put it behind a proxy that does");
        }
        tracing::info!(%address, "admin API");
        let audit = Audit::open(folder);
        let watches = Arc::new(Semaphore::new(WATCHES_MAX));
        let started = Instant::now();
        Ok((Arc::new(Self { registrar, redis, sink, edge, watches, audit, token, serves_at, started }), listener))
    }

    /// Accepts for as long as the node lives.
    pub(crate) async fn accept(self: Arc<Self>, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "cannot accept on the admin API's socket"),
        };
        let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Ok(seat) = seats.clone().acquire_owned().await {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the admin API");
                    tokio::time::sleep(REFUSED_AFTER).await;
                    continue;
                }
            };
            let admin = self.clone();
            tokio::spawn(async move {
                let cut = Arc::new(Notify::new());
                let by_admin = cut.clone();
                let service = service_fn(move |request| {
                    let (admin, cut) = (admin.clone(), by_admin.clone());
                    async move { Ok::<_, Infallible>(admin.answer(request, peer.ip().to_canonical(), &cut).await) }
                });
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(REQUEST_WITHIN).half_close(false);
                http.max_buf_size(BUFFER_BYTES_MAX);
                // A peer that breaks off concerns nobody else.
                tokio::select! {
                    _ = http.serve_connection(TokioIo::new(stream), service) => {}
                    () = cut.notified() => {}
                }
                drop(seat);
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: IpAddr, cut: &Arc<Notify>) -> Response<AnyBody> {
        self.try_answer(request, peer, cut).await.unwrap_or_else(|failed| Reply::from(failed).into_response())
    }

    async fn try_answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        cut: &Arc<Notify>,
    ) -> Result<Response<AnyBody>, Failed> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        if !self.admits(&head) && !routes::is_open(&path) {
            self.audit.refused(peer, now_ms());
            tokio::time::sleep(REFUSED_AFTER).await;
            return Err(Failed::Token);
        }
        let (route, varying) = Route::of(head.method.as_str(), &path)?;
        let (id, name) = (varying.id.to_owned(), varying.name.to_owned());
        let body = tokio::time::timeout(REQUEST_WITHIN, Limited::new(body, BODY_BYTES_MAX).collect()).await;
        let body = body.map_err(|_| Failed::Late)?.map_err(|_| Failed::Body)?.to_bytes();
        let author = Author { who: who(&head), at_ms: now_ms() };
        self.perform(calls::Asked { route, id, name, head: &head, body: &body, author, peer, cut }).await
    }

    /// In constant time: how much of a guess is right must not show.
    fn admits(&self, head: &hyper::http::request::Parts) -> bool {
        let given = head.headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let token = given.and_then(|v| v.strip_prefix(b"Bearer ").or_else(|| v.strip_prefix(b"bearer ")));
        token.is_some_and(|token| token.ct_eq(self.token.expose()).into())
    }
}

/// The token in the storage folder, made when there is none.
fn own_token(path: &Path) -> io::Result<Secret> {
    match storage::open_private(path).and_then(io::read_to_string) {
        Ok(text) if text.trim().len() >= TOKEN_BYTES => return Ok(Secret::new(text.trim())),
        // New, or emptied by somebody: then it must not become a token that is easily guessed.
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    let token = crate::registry::random_hex::<TOKEN_BYTES>()?;
    storage::write_private(path, format!("{token}\n").as_bytes())?;
    Ok(Secret::new(&token))
}

fn in_folder(what: &'static str) -> impl Fn(io::Error) -> AdminError {
    move |source| AdminError::File { what, source }
}

/// Whoever has the token may call itself what it likes; the name is for people who look back.
fn who(head: &hyper::http::request::Parts) -> String {
    let said = head.headers.get(ACTOR).and_then(|value| value.to_str().ok()).map(str::trim).unwrap_or_default();
    if said.is_empty() { "unnamed".to_owned() } else { said.chars().take(WHO_MAX).collect() }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
