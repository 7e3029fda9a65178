//! Everything the node says over plain HTTP: the signed API, health, the demo page and statistics.
//!
//! [`Api::answer`] takes a request and returns its response; it accepts no sockets, speaks no WebSocket and keeps nothing
//! about a connection. The order of the checks is fixed: size, path and method, signature, the app's switch, the call's
//! own rules, and only then anything that others can see. Reading order: [`routes`] (what there is), [`events`]
//! (publishing), [`rates`] (how much of it), [`channels`] and [`users`] (asking), [`idempotency`] (repeats), [`own`] (calls of the node
//! itself), [`refusal`] (every no).

pub mod clock;
pub mod health;
pub mod idempotency;
pub mod rates;

mod body;
mod channels;
mod demo;
mod events;
mod own;
mod refusal;
mod reply;
mod routes;
mod stats;
mod users;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use fulmar_backbone::Backbone;
use fulmar_protocol::app::App;
use fulmar_protocol::query::Query;
use fulmar_protocol::signing::{self, RequestAuthError, Signed, verify_request};
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::CONTENT_ENCODING;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};

use self::body::{Budget, Whole, read_whole};
use self::clock::Clock;
use self::health::{Pulses, Readiness};
use self::idempotency::Remembered;
pub(crate) use self::own::OwnCall;
use self::rates::PublishRates;
use self::refusal::Refusal;
use self::reply::Reply;
use self::routes::{Call, Route, takes, without_prefix};
use crate::apps::Apps;

/// Within what a call is answered once it has arrived, be it with 503: most SDKs give up at 4 seconds.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(3_500);

/// Bounds on what is read. May be changed while the node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request's body; beyond it 413.
    pub request_body_bytes_max: usize,
    /// How long a body may take to arrive.
    pub request_timeout: Duration,
    /// Bytes of all bodies together that arrive in pieces; beyond it 503.
    pub bodies_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request_body_bytes_max: 1 << 20, request_timeout: Duration::from_secs(10), bodies_bytes_max: 128 << 20 }
    }
}

/// What an [`Api`] is made of.
pub struct Setup {
    /// Who may call.
    pub apps: Arc<Apps>,
    /// Where publications go and counts come from.
    pub backbone: Arc<dyn Backbone>,
    /// Bounds on what is read.
    pub limits: Limits,
    /// What stands before every path, such as `/ws`; empty for nothing.
    pub path_prefix: String,
    /// Idempotency keys remembered per app; 0 ignores the header.
    pub idempotency_keys_max: usize,
    /// Whether the signed API is among what the node does.
    pub takes_calls: bool,
    /// Whether the node wants traffic.
    pub readiness: Arc<Readiness>,
    /// Whether the workers' loops turn.
    pub pulses: Arc<Pulses>,
    /// The app of the page at `/`; without one there is no page.
    pub demo: Option<Arc<App>>,
    /// What time it is.
    pub clock: Clock,
}

/// The node's HTTP side. Shared by all connections.
pub struct Api {
    apps: Arc<Apps>,
    backbone: Arc<dyn Backbone>,
    limits: ArcSwap<Limits>,
    path_prefix: String,
    remembered: Arc<Remembered>,
    rates: Arc<PublishRates>,
    takes_calls: bool,
    readiness: Arc<Readiness>,
    pulses: Arc<Pulses>,
    demo: Option<demo::Demo>,
    clock: Clock,
    bodies: Budget,
}

impl Api {
    /// Puts the parts together.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self {
            apps: setup.apps,
            backbone: setup.backbone,
            limits: ArcSwap::from_pointee(setup.limits),
            path_prefix: setup.path_prefix,
            remembered: Arc::new(Remembered::new(setup.idempotency_keys_max)),
            rates: Arc::default(),
            takes_calls: setup.takes_calls,
            readiness: setup.readiness,
            pulses: setup.pulses,
            demo: setup.demo.map(demo::Demo::new),
            clock: setup.clock,
            bodies: Budget::default(),
        }
    }

    /// Changes the bounds for requests that come from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// Idempotent calls forgotten before their 120 seconds were over, because the memory was full.
    #[must_use]
    pub fn idempotency_forgotten_early(&self) -> u64 {
        self.remembered.forgotten_early()
    }

    /// How much the node's apps publish, for whoever knows how many nodes divide their limits, or tells what was refused.
    #[must_use]
    pub fn rates(&self) -> &Arc<PublishRates> {
        &self.rates
    }

    /// Answers one request. Never fails: whatever is wrong becomes a response.
    pub async fn answer<B: Body<Data = Bytes>>(&self, request: Request<B>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        match self.try_answer(&head, pin!(body)).await {
            Ok(reply) => reply.into_response(),
            Err(refusal) => refusal.into_response(),
        }
    }

    async fn try_answer<B>(&self, head: &Parts, body: Pin<&mut B>) -> Result<Reply, Refusal>
    where
        B: Body<Data = Bytes>,
    {
        // Also for requests that are refused below: only what was read to its end leaves the connection usable.
        let body = if body.is_end_stream() { Whole::default() } else { self.read(body).await? };
        match Route::of(without_prefix(head.uri.path(), &self.path_prefix)) {
            Route::DemoSend if head.method == Method::POST => Box::pin(self.demo_send(head, body.bytes())).await,
            route => self.perform(head, route, body.bytes()).await,
        }
    }

    async fn read<B: Body<Data = Bytes>>(&self, body: Pin<&mut B>) -> Result<Whole<'_>, Refusal> {
        let limits = **self.limits.load();
        let reading = read_whole(body, &self.bodies, &limits);
        within(limits.request_timeout, reading).await.unwrap_or(Err(Refusal::BodyLate))
    }

    /// Does what a path stands for, once the request is there in full.
    async fn perform(&self, head: &Parts, route: Route<'_>, body: &Bytes) -> Result<Reply, Refusal> {
        if !self.exists(route) {
            return Err(Refusal::NotFound);
        }
        let allow = route.methods().ok_or(Refusal::NotFound)?;
        if !takes(allow, &head.method) {
            return Err(Refusal::Method { allow });
        }
        if head.method == Method::OPTIONS {
            return Ok(Reply::methods(allow));
        }
        match route {
            Route::Api { .. } if !self.takes_calls => Err(Refusal::OtherRole),
            Route::Api { app, call } => {
                let answering = self.call(head, app, call, body);
                within(ANSWER_WITHIN, answering).await.unwrap_or(Err(Refusal::Unavailable))
            }
            Route::WebSocket => Err(Refusal::UpgradeRequired),
            Route::StatsJsonp { receiver } => stats::jsonp(receiver),
            Route::Stats => Ok(Reply::json(Bytes::from_static(b"{}"))),
            Route::Live => Ok(self.pulses.stuck().map_or_else(|| Reply::text("ok\n"), |stuck| Reply::unwell(&stuck))),
            Route::Ready => Ok(self.readiness.missing().map_or_else(
                || Reply::text("ready\n"),
                |missing| Reply::unwell(&format_args!("not ready: {missing}")),
            )),
            Route::Page => self.demo().map(demo::Demo::page).ok_or(Refusal::NotFound),
            Route::DemoSend | Route::Unknown => Err(Refusal::NotFound),
        }
    }

    /// The demo page, for as long as its app is served: a reload may have switched it off.
    fn demo(&self) -> Option<&demo::Demo> {
        self.demo.as_ref().filter(|demo| demo.is_served_by(&self.apps))
    }

    fn exists(&self, route: Route<'_>) -> bool {
        match route {
            Route::Page | Route::DemoSend => self.demo().is_some(),
            Route::Unknown => false,
            _ => true,
        }
    }

    /// A call of the signed API.
    async fn call(&self, head: &Parts, app_id: Option<&str>, call: Call<'_>, body: &Bytes) -> Result<Reply, Refusal> {
        let encoding = head.headers.get(CONTENT_ENCODING).map(|value| value.as_bytes());
        if encoding.is_some_and(|name| !name.eq_ignore_ascii_case(b"identity")) {
            return Err(Refusal::Encoding);
        }
        let query = Query::parse(head.uri.query().unwrap_or_default())?;
        let app = self.app_of(&query, app_id)?;
        let path = head.uri.path();
        let other_path = self.other_path(path);
        let request = signing::Request { app: &app, method: head.method.as_str(), path, query: &query, body };
        let signed = self.verify(request, other_path.as_deref())?;
        if !app.enabled {
            return Err(Refusal::AppDisabled { id: app.id.to_string() });
        }
        match call {
            Call::Events => self.events(&app, head, &signed).await,
            Call::Batch => self.batch_events(&app, head, &signed).await,
            Call::ChannelEvents(name) => self.channel_events(&app, head, &signed, name).await,
            // Boxed like everything rare here: otherwise every publish would carry the room they need.
            Call::Channels => Box::pin(self.channels(&app, &signed)).await,
            Call::Channel(name) => Box::pin(self.channel(&app, &signed, name)).await,
            Call::ChannelStats(name) => Box::pin(self.channel_stats(&app, name)).await,
            Call::Members(name) => Box::pin(self.users(&app, &signed, name)).await,
            Call::Terminate(user) => Box::pin(self.terminate_connections(&app, user)).await,
        }
    }

    /// The app that the key names, which is the app of the path where that names one.
    fn app_of(&self, query: &Query<'_>, app_id: Option<&str>) -> Result<Arc<App>, RequestAuthError> {
        let key = query.get("auth_key").ok_or(RequestAuthError::Missing("auth_key"))?;
        let app = self.apps.by_key(key).ok_or(RequestAuthError::UnknownKey)?;
        if app_id.is_none_or(|id| app.id.as_str() == id) { Ok(app) } else { Err(RequestAuthError::OtherApp) }
    }

    /// SDKs sign the path they were told. Where a proxy adds or cuts a prefix that is not what arrives here, so the
    /// other form is tried when the first fails.
    fn verify<'a>(
        &self,
        request: signing::Request<'a>,
        other_path: Option<&'a str>,
    ) -> Result<Signed<signing::Request<'a>>, RequestAuthError> {
        let now_unix_s = self.clock.unix_s();
        match (verify_request(request, now_unix_s), other_path) {
            (Err(refused @ RequestAuthError::BadSignature { .. }), Some(path)) => {
                verify_request(signing::Request { path, ..request }, now_unix_s).map_err(|_| refused)
            }
            (outcome, _) => outcome,
        }
    }

    /// The path with the configured prefix if it came without, and without if it came with it.
    fn other_path<'a>(&self, path: &'a str) -> Option<Cow<'a, str>> {
        let prefix = self.path_prefix.as_str();
        let cut = without_prefix(path, prefix);
        match cut.len() < path.len() {
            _ if prefix.is_empty() => None,
            true => Some(Cow::Borrowed(cut)),
            false => Some(Cow::Owned(format!("{prefix}{path}"))),
        }
    }
}

/// The outcome of `future`, or nothing when it takes longer than `limit`.
async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    // Most work here is done when first looked at, and then a timer would be a good part of its price.
    if let Poll::Ready(outcome) = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        return Some(outcome);
    }
    tokio::time::timeout(limit, future).await.ok()
}
