//! From an accepted socket to the one who serves it: a worker for WebSockets, hyper for everything else.
//!
//! Runs on the HTTP threads. Nothing here outlives the opening of a WebSocket: its socket, its seat and the bytes that
//! came early are handed over as they are.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fulmar_engine::{AppLookup, Load, Opening};
use fulmar_protocol::opening::OpenRequest;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::apps::Apps;
use crate::fallback::Address;
use crate::fallback::elsewhere::Elsewhere;
use crate::fallback::sessions::Sessions;
use crate::gate::{Gate, Seat, Verdict};
use crate::http::Api;
use crate::http::clock::Clock;
use crate::inbox::WorkerInbox;
use crate::patient::Patient;
use crate::peer::{client_ip, is_trusted, read_proxy_header};
use crate::quota::NoSeat;
use crate::rewind::Rewind;
use crate::socket_ids::SocketIds;
use crate::tls::Certificate;
use crate::ws::handover::{Handover, Socket};
use crate::ws::handshake::{Asked, BadHandshake, Head, Upgrade, look, wants_websocket};

/// Wait after an accept that failed because the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// What most heads fit into, so that they are read and looked at once.
const HEAD_BYTES: usize = 1_024;
/// How often it is said that there is none.
const SAY_AGAIN_AFTER_MS: u64 = 10_000;
/// The first byte of a TLS handshake; no HTTP request and no PROXY header begins with it.
const TLS_FIRST_BYTE: u8 = 0x16;

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Plain,
    Tls,
    /// Either, told apart by the first byte.
    Both,
}

/// How far the node has come with going away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Everything goes on, but every call's answer closes its connection: whoever publishes all the time is elsewhere by the time
    /// idle connections are closed, and has no call on its way then.
    Leaving,
    /// Sockets are moved away; newcomers are told to try elsewhere.
    Draining,
    /// No more accepting.
    Closed,
}

/// Everything the edge needs.
pub(crate) struct Edge {
    pub(crate) api: Api,
    pub(crate) apps: Arc<Apps>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) inboxes: Vec<Arc<WorkerInbox>>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) certificate: Option<Arc<Certificate>>,
    pub(crate) clock: Clock,
    pub(crate) socket_ids: SocketIds,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) path_prefix: String,
    /// Whether it takes WebSockets and sessions at all.
    pub(crate) takes_connections: bool,
    /// Where sessions are that are not here; `None` while there are no other nodes.
    pub(crate) elsewhere: Option<Elsewhere>,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) expects_proxy_header: bool,
    pub(crate) handshake_timeout: Duration,
    pub(crate) handshake_bytes_max: usize,
    pub(crate) message_bytes_max: usize,
    pub(crate) request_timeout: Duration,
    /// How long an HTTP connection may be idle.
    pub(crate) keep_alive_timeout: Duration,
    /// How long a caller may take nothing of its answer.
    pub(crate) answer_timeout: Duration,
}

/// A connection that may become either.
struct Arrival<S> {
    stream: S,
    /// Bytes read so far.
    start: BytesMut,
    came: Came,
    seat: Seat,
}

/// How a connection came here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Came {
    /// The peer, or who a PROXY header says it is.
    pub(crate) ip: IpAddr,
    /// The socket's own peer is one of our proxies, whoever it speaks for: its word about TLS counts.
    pub(crate) by_proxy: bool,
    /// It speaks TLS to us.
    pub(crate) is_secure: bool,
    /// It is let in only to be told that there is no room.
    pub(crate) is_full: bool,
}

/// A stream that can be taken apart into what a worker owns.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn into_socket(self) -> io::Result<Socket>;
}

impl Stream for TcpStream {
    fn into_socket(self) -> io::Result<Socket> {
        Ok(Socket::plain(self.into_std()?))
    }
}

impl Stream for TlsStream<TcpStream> {
    fn into_socket(self) -> io::Result<Socket> {
        let (tcp, tls): (TcpStream, ServerConnection) = self.into_inner();
        Ok(Socket::tls(tcp.into_std()?, tls))
    }
}

impl Edge {
    /// Accepts until the node closes.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener, speaks: Speaks) {
        let mut phase = self.phase.clone();
        let mut spare = Spare::of(&listener);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = reach(&mut phase, |phase| phase == Phase::Closed) => return,
            };
            match accepted {
                Ok((tcp, address)) => self.arrived(tcp, address.ip().to_canonical(), speaks),
                Err(error) => spare.turn_one_away(&listener, &error, self.clock.elapsed_ms()).await,
            }
        }
    }

    fn arrived(self: &Arc<Self>, tcp: TcpStream, ip: IpAddr, speaks: Speaks) {
        let by_proxy = is_trusted(ip, &self.trusted_proxies);
        let verdict = if by_proxy { self.gate.enter_for_others() } else { self.gate.enter(ip) };
        let (seat, is_full) = match verdict {
            Verdict::Welcome(seat) => (seat, false),
            Verdict::Full(seat) => (seat, true),
            Verdict::Gone => return,
        };
        let came = Came { ip, by_proxy, is_secure: false, is_full };
        let arrival = Arrival { stream: tcp, start: BytesMut::with_capacity(HEAD_BYTES), came, seat };
        let edge = self.clone();
        tokio::spawn(async move {
            // Whatever a peer does in its first seconds concerns nobody else: errors end its connection, no more.
            let _: io::Result<()> = edge.open(arrival, speaks).await;
        });
    }

    async fn open(self: Arc<Self>, mut arrival: Arrival<TcpStream>, speaks: Speaks) -> io::Result<()> {
        let limit = self.handshake_timeout;
        let is_tls = within(limit, async {
            if self.expects_proxy_header
                && arrival.came.by_proxy
                && let Some(ip) = read_proxy_header(&mut arrival.stream).await?
            {
                arrival.came.ip = ip.to_canonical();
                arrival.came.is_full |= !arrival.seat.move_to(arrival.came.ip);
            }
            Ok(match speaks {
                Speaks::Plain => false,
                Speaks::Tls => true,
                Speaks::Both => {
                    let mut first = [0];
                    arrival.stream.peek(&mut first).await? == 1 && first[0] == TLS_FIRST_BYTE
                }
            })
        })
        .await?;
        let Some(certificate) = self.certificate.as_ref().filter(|_| is_tls) else {
            return self.first_request(arrival).await;
        };
        let acceptor = TlsAcceptor::from(certificate.config());
        let Arrival { stream, start, came, seat } = arrival;
        let stream = within(limit, acceptor.accept(stream)).await?;
        self.first_request(Arrival { stream, start, came: Came { is_secure: true, ..came }, seat }).await
    }

    /// Reads the first head. An upgrade goes to a worker at once, everything else to hyper.
    async fn first_request<S: Stream>(self: Arc<Self>, mut arrival: Arrival<S>) -> io::Result<()> {
        let head = within(self.handshake_timeout, async {
            loop {
                if arrival.stream.read_buf(&mut arrival.start).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                match look(&arrival.start) {
                    Head::Incomplete if arrival.start.len() < self.handshake_bytes_max => {}
                    head => return Ok(head),
                }
            }
        })
        .await?;
        match head {
            Head::Upgrade { head_bytes, .. } if head_bytes > self.handshake_bytes_max => {
                arrival.stream.write_all(&BadHandshake::TooLarge.response()).await?;
                arrival.stream.shutdown().await
            }
            Head::Upgrade { upgrade: Ok(upgrade), head_bytes } => {
                let leftover = arrival.start.split_off(head_bytes).to_vec();
                let socket = arrival.stream.into_socket()?;
                let (opening, app_seat, seat) = self.opening(&upgrade.asked, arrival.came, arrival.seat);
                let (response, seat) = (upgrade.response(), Some(seat));
                self.least_loaded().adopt(Handover { socket, response, leftover, opening, seat, app_seat });
                Ok(())
            }
            Head::Upgrade { upgrade: Err(bad), .. } => {
                arrival.stream.write_all(&bad.response()).await?;
                arrival.stream.shutdown().await
            }
            Head::Incomplete => {
                arrival.stream.write_all(&BadHandshake::TooLarge.response()).await?;
                arrival.stream.shutdown().await
            }
            Head::Other => self.serve_http(arrival).await,
        }
    }

    /// Collects the facts about a handshake.
    pub(crate) fn opening(
        &self,
        asked: &Asked,
        came: Came,
        mut seat: Seat,
    ) -> (Opening, Option<crate::gate::AppSeat>, Seat) {
        let client = client_ip(came.ip, asked.forwarded_for.as_deref(), &self.trusted_proxies);
        let has_place = client == came.ip || seat.move_to(client);
        let request = OpenRequest::parse(&asked.target, &self.path_prefix);
        let app = match request.key {
            None => AppLookup::NoPath,
            Some(key) => match self.apps.by_key(&key) {
                Some(app) => AppLookup::Found(app),
                None => AppLookup::NoApp { key },
            },
        };
        let must_authorize = matches!(&app, AppLookup::Found(app) if app.authorized_connections);
        let now_ms = self.clock.elapsed_ms();
        let app_seat = match &app {
            // That many are yet to show an authorization passes.
            AppLookup::Found(app) if must_authorize => Some(self.gate.stand_in_app(app).ok_or(NoSeat::Later)),
            AppLookup::Found(app) => Some(self.gate.enter_app(app, now_ms)),
            _ => None,
        };
        let load = Load {
            elsewhere: !self.takes_connections,
            draining: *self.phase.borrow() >= Phase::Draining,
            over_quota: matches!(app_seat, Some(Err(NoSeat::OverQuota))),
            overloaded: came.is_full
                || !has_place
                || matches!(app_seat, Some(Err(NoSeat::Later)))
                || !self.gate.admits_handshake(now_ms),
        };
        let opening = Opening {
            app,
            must_authorize,
            protocol: request.protocol,
            client: request.client,
            origin: asked.origin.clone(),
            secure: came.is_secure || (came.by_proxy && asked.is_forwarded_tls),
            load,
            socket_id: self.socket_ids.next(),
        };
        (opening, app_seat.and_then(Result::ok), seat)
    }

    pub(crate) fn least_loaded(&self) -> &Arc<WorkerInbox> {
        let load = |inbox: &&Arc<WorkerInbox>| inbox.connections.load(Ordering::Relaxed);
        self.inboxes.iter().min_by_key(load).expect("a node has at least one worker")
    }

    async fn serve_http<S: Stream>(self: Arc<Self>, arrival: Arrival<S>) -> io::Result<()> {
        let Arrival { stream, start, came, seat } = arrival;
        let cut = Arc::new(Notify::new());
        let guest = Arc::new(Guest { came, seat: Mutex::new(Some(seat)), cut: cut.clone(), streams: Arc::default() });
        let stream = Patient::new(stream, self.answer_timeout, guest.streams.clone());
        let io = TokioIo::new(Rewind::new(start.freeze(), stream));
        let edge = self.clone();
        let service = service_fn(move |request| {
            let (edge, guest) = (edge.clone(), guest.clone());
            async move {
                // Before anything is refused for lack of room: the sessions that there are go on.
                Ok::<_, Infallible>(match Address::of(request.uri().path(), &edge.path_prefix) {
                    Some(_) => Box::pin(edge.fallback(request, &guest)).await,
                    None => edge.request::<S>(request, &guest).await.map(Either::Left),
                })
            }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.keep_alive_timeout)
            .max_buf_size(self.handshake_bytes_max.max(8_192))
            .half_close(false);
        let mut connection = std::pin::pin!(builder.serve_connection(io, service).with_upgrades());
        let mut phase = self.phase.clone();
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = reach(&mut phase, |phase| phase >= Phase::Draining) => {
                // The request under way is finished, and its answer says that the connection closes.
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    served = connection => served,
                    () = cut.notified() => return Ok(()),
                }
            }
            () = cut.notified() => return Ok(()),
        };
        served.map_err(io::Error::other)
    }

    async fn request<S: Stream>(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        guest: &Arc<Guest>,
    ) -> Response<Full<Bytes>> {
        let headers = request.headers();
        let values = |name: &str| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
        if !headers.contains_key(hyper::header::UPGRADE) || !wants_websocket(&values("upgrade")) {
            let is_call = request.uri().path().starts_with("/apps/");
            let mut response = self.api.answer(request).await;
            // A full node goes on publishing and saying that it is well; but this place is for others to be told.
            if guest.came.is_full || (is_call && *self.phase.borrow() == Phase::Leaving) {
                response.headers_mut().insert(hyper::header::CONNECTION, HeaderValue::from_static("close"));
            }
            return response;
        }
        let is_get = request.method() == Method::GET && request.version() == Version::HTTP_11;
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let upgrade = match Upgrade::of(target, is_get, values) {
            Ok(upgrade) => upgrade,
            Err(bad) => return refused(bad),
        };
        let mut response = text(101, String::new());
        let own = [("upgrade", "websocket"), ("connection", "Upgrade")];
        for (name, value) in own.into_iter().chain(upgrade.answer_headers()) {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        let upgraded = hyper::upgrade::on(&mut request);
        let (edge, guest) = (self.clone(), guest.clone());
        tokio::spawn(async move {
            if let Ok(upgraded) = upgraded.await {
                // The peer is gone if this fails.
                let _: io::Result<()> = edge.hand_over_upgraded::<S>(upgraded, &upgrade, &guest);
            }
        });
        response
    }

    /// The same for a handshake that hyper has answered: the socket is taken out of its hands again.
    fn hand_over_upgraded<S: Stream>(
        &self,
        upgraded: hyper::upgrade::Upgraded,
        upgrade: &Upgrade,
        guest: &Guest,
    ) -> io::Result<()> {
        let parts = upgraded
            .downcast::<TokioIo<Rewind<Patient<S>>>>()
            .map_err(|_| io::Error::other("the upgraded stream is not the one that was served"))?;
        let (start, stream) = parts.io.into_inner().into_parts();
        let leftover = [start, parts.read_buf].concat();
        let seat = guest.seat.lock().unwrap_or_else(PoisonError::into_inner).take();
        let seat = seat.ok_or_else(|| io::Error::other("a connection is upgraded once"))?;
        let (opening, app_seat, seat) = self.opening(&upgrade.asked, guest.came, seat);
        let (socket, seat) = (stream.into_inner().into_socket()?, Some(seat));
        self.least_loaded().adopt(Handover { socket, response: Vec::new(), leftover, opening, seat, app_seat });
        Ok(())
    }
}

/// A connection that speaks HTTP.
pub(crate) struct Guest {
    pub(crate) came: Came,
    seat: Mutex<Option<Seat>>,
    /// Ends the connection, for whoever gives up on a peer that does not read.
    pub(crate) cut: Arc<Notify>,
    /// It carries a stream, which has rules of its own for slow readers.
    pub(crate) streams: Arc<AtomicBool>,
}

/// A descriptor kept for the moment when there is no other: then a newcomer can still be accepted and turned away, where
/// it would otherwise wait for an answer that nobody gives.
struct Spare {
    descriptor: Option<OwnedFd>,
    said_at_ms: Option<u64>,
}

impl Spare {
    fn of(listener: &TcpListener) -> Self {
        Self { descriptor: listener.as_fd().try_clone_to_owned().ok(), said_at_ms: None }
    }

    async fn turn_one_away(&mut self, listener: &TcpListener, error: &io::Error, now_ms: u64) {
        if self.said_at_ms.is_none_or(|at| now_ms.saturating_sub(at) >= SAY_AGAIN_AFTER_MS) {
            self.said_at_ms = Some(now_ms);
            tracing::warn!(%error, "cannot accept connections, newcomers are turned away; is the open-file limit too low?");
        }
        let is_out = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
        let was_free = is_out && self.descriptor.take().is_some();
        // Nobody may be waiting any more, or somebody else may have taken the descriptor: both are no harm.
        let turned_away =
            was_free && tokio::time::timeout(ACCEPT_PAUSE, listener.accept()).await.is_ok_and(|a| a.is_ok());
        if !turned_away {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        self.descriptor = listener.as_fd().try_clone_to_owned().ok();
    }
}

/// Waits for a phase of the node.
async fn reach(phase: &mut watch::Receiver<Phase>, wanted: impl Fn(Phase) -> bool) {
    // A node that is gone without having said so has reached every phase.
    let _reached = phase.wait_for(|phase| wanted(*phase)).await.is_ok();
}

async fn within<T>(limit: Duration, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn refused(bad: BadHandshake) -> Response<Full<Bytes>> {
    let mut response = text(bad.status(), format!("{bad}\n"));
    for (name, value) in bad.headers() {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

fn text(status: u16, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    response
}
