//! The signed API as a customer's server sees it, over the embedded backbone.
//!
//! [`World`] holds one node's HTTP side, two apps and a worker that follows channels and writes down what it hears.

mod asking;
mod door;
mod page;
mod publishing;
mod rates;
mod repeats;
mod users;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fulmar_backbone::memory::{ManualClock, Memory};
use fulmar_backbone::{Backbone, Inbox, Pending, PublishError, Query, Reply as Told, Terms, Unavailable, WorkerId};
use fulmar_protocol::app::{App, AppId};
use fulmar_protocol::exchange::{
    Answer, Delivery, Happening, Join, Member, Publication, Question, SignIn, Ticket, UserNotice,
};
use fulmar_protocol::name::{ChannelName, UserId};
use fulmar_protocol::signing::Signer;
use http_body_util::{BodyExt, Full};
use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode};
use tokio::sync::Notify;

use super::clock::Clock;
use super::health::{Pulses, Readiness};
use super::{Api, Limits, Setup};
use crate::apps::Apps;

/// The time at which the published examples were signed.
const NOW_S: u64 = 1_353_088_179;

const KEY: &str = "278d425bdf160c739803";
const SECRET: &str = "7ad3773142a6692b25b8";

struct World {
    api: Arc<Api>,
    app: App,
    apps: Arc<Apps>,
    backbone: Arc<Gated>,
    heard: Arc<Heard>,
    worker: WorkerId,
    readiness: Arc<Readiness>,
    pulses: Arc<Pulses>,
    /// Milliseconds since 1970, for the HTTP side.
    dial: Arc<AtomicU64>,
    /// The same for the backbone.
    cache_time: Arc<ManualClock>,
}

/// What tests change about the node before it starts.
struct Given {
    app: App,
    limits: Limits,
    path_prefix: &'static str,
    idempotency_keys_max: usize,
    takes_calls: bool,
    demo: bool,
}

struct Said {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            app: App::new("3", KEY, SECRET),
            limits: Limits::default(),
            path_prefix: "",
            idempotency_keys_max: 100,
            takes_calls: true,
            demo: false,
        }
    }
}

impl World {
    fn new() -> Self {
        Self::with(Given::default())
    }

    fn with(given: Given) -> Self {
        let dial = Arc::new(AtomicU64::new(NOW_S * 1_000));
        let clock = Clock::Manual(Arc::clone(&dial));
        let cache_time = Arc::new(ManualClock::default());
        let memory = Memory::new(7, 1 << 20, Arc::<ManualClock>::clone(&cache_time));
        let backbone = Arc::new(Gated { memory, gate: Mutex::default(), publishes: AtomicU64::new(0) });
        let heard = Arc::new(Heard::default());
        let worker = backbone.attach(Arc::<Heard>::clone(&heard));
        let (readiness, pulses) = (Arc::new(Readiness::default()), Arc::new(Pulses::new(2, clock.clone())));
        let mut disabled = App::new("4", "disabled-key", "s");
        disabled.enabled = false;
        let apps = vec![given.app.clone(), App::new("5", "other-key", "other-secret"), disabled];
        let apps = Arc::new(Apps::new(apps));
        let api = Arc::new(Api::new(Setup {
            apps: apps.clone(),
            backbone: Arc::<Gated>::clone(&backbone),
            limits: given.limits,
            path_prefix: given.path_prefix.to_owned(),
            idempotency_keys_max: given.idempotency_keys_max,
            takes_calls: given.takes_calls,
            readiness: Arc::clone(&readiness),
            pulses: Arc::clone(&pulses),
            demo: given.demo.then(|| Arc::new(given.app.clone())),
            clock,
        }));
        Self { api, app: given.app, apps, backbone, heard, worker, readiness, pulses, dial, cache_time }
    }

    fn pass(&self, time: Duration) {
        self.dial.fetch_add(u64::try_from(time.as_millis()).expect("short"), Ordering::Relaxed);
        self.cache_time.pass(time);
    }

    fn now_s(&self) -> u64 {
        self.dial.load(Ordering::Relaxed) / 1_000
    }

    /// Sends a request as it is.
    async fn send(&self, request: Request<Full<Bytes>>) -> Said {
        let response = self.api.answer(request).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body in memory").to_bytes();
        let body = String::from_utf8(body.to_vec()).expect("text");
        Said { status: head.status, headers: head.headers, body }
    }

    /// A request that nobody signed.
    async fn plain(&self, method: Method, target: &str, body: &str) -> Said {
        self.send(request(method, target, body)).await
    }

    /// A signed call, as an SDK would send it.
    async fn call(&self, method: Method, path: &str, params: &[(&str, &str)], body: &str) -> Said {
        self.send(self.signed(method, path, params, body)).await
    }

    fn signed(&self, method: Method, path: &str, params: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
        let query = Signer::of(&self.app).sign_request(method.as_str(), path, params, body.as_bytes(), self.now_s());
        request(method, &format!("{path}?{query}"), body)
    }

    async fn get(&self, path: &str, params: &[(&str, &str)]) -> Said {
        self.call(Method::GET, path, params, "").await
    }

    async fn post(&self, path: &str, body: &str) -> Said {
        self.call(Method::POST, path, &[], body).await
    }

    /// Publishes `data` as event `e` with an idempotency key.
    async fn keyed(&self, key: &str, data: &str) -> Said {
        let body = format!(r#"{{"name":"e","channel":"a","data":"{data}"}}"#);
        let mut request = self.signed(Method::POST, "/apps/3/events", &[], &body);
        request.headers_mut().insert("idempotency-key", key.parse().expect("a header"));
        self.send(request).await
    }

    /// One more connection of `user` (presence) or of nobody follows a channel.
    fn follow(&self, channel: &str, user: Option<&str>) {
        let user = user.map(|id| UserId::parse(id, 128).expect("valid"));
        let join = Join {
            ticket: Ticket { session: 0, number: 0 },
            app: self.app.id.clone(),
            channel: channel_name(channel),
            member: user.map(|user_id| Member { user_id, user_info: None }),
            members_max: 100,
            counted: false,
        };
        let answer = self.backbone.ask(self.worker, Question::Join(join));
        assert!(matches!(answer, Some(Answer::Joined { .. })), "{answer:?}");
    }

    /// One more connection signs in as a user.
    fn sign_in(&self, user: &str) {
        let user_id = UserId::parse(user, 128).expect("valid");
        let ticket = Ticket { session: 0, number: 0 };
        let sign_in = SignIn { ticket, app: self.app.id.clone(), user_id, watchlist: Arc::default() };
        let answer = self.backbone.ask(self.worker, Question::SignIn(sign_in));
        assert!(matches!(answer, Some(Answer::SignedIn { .. })), "{answer:?}");
    }

    /// The texts of all events heard since the last look.
    fn heard(&self) -> Vec<String> {
        self.heard.0.lock().expect("unbroken").drain(..).collect()
    }
}

impl Said {
    #[track_caller]
    fn expect(&self, status: u16, body: &str) {
        assert_eq!((self.status.as_u16(), self.body.as_str()), (status, body));
        let json = body.starts_with('{');
        let expected = if json { "application/json" } else { "text/plain; charset=utf-8" };
        assert_eq!(self.header("content-type"), Some(expected), "{body}");
        assert!(json || body.ends_with('\n'), "a refusal is a line: {body:?}");
        assert_eq!(self.header("access-control-allow-origin"), None);
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }
}

fn request(method: Method, target: &str, body: &str) -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    Request::builder().method(method).uri(target).body(body).expect("a request")
}

fn channel_name(name: &str) -> ChannelName {
    ChannelName::parse(name, 164).expect("valid")
}

/// A worker's inbox that writes down events and changes of users.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Inbox for Heard {
    fn has_room(&self) -> bool {
        true
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        if let Happening::Event { frame, .. } = &delivery.happening {
            self.0.lock().expect("unbroken").push(frame.text().to_owned());
        }
    }

    fn notice(&self, notice: Arc<UserNotice>) {
        self.0.lock().expect("unbroken").push(format!("{:?} {}", notice.change, notice.user_id.as_str()));
    }

    fn answer(&self, _: Answer) {}
}

/// The embedded backbone behind a gate that tests can close or break.
struct Gated {
    memory: Memory,
    gate: Mutex<Gate>,
    publishes: AtomicU64,
}

#[derive(Clone, Default)]
enum Gate {
    #[default]
    Open,
    /// Publishing waits until it is told to go on, and then ends so.
    Closed(Arc<Notify>, Result<(), PublishError>),
    /// Neither publishing nor asking works.
    Broken,
}

impl Gated {
    fn set(&self, gate: Gate) {
        *self.gate.lock().expect("unbroken") = gate;
    }

    fn gate(&self) -> Gate {
        self.gate.lock().expect("unbroken").clone()
    }

    fn publishes(&self) -> u64 {
        self.publishes.load(Ordering::Relaxed)
    }
}

impl Backbone for Gated {
    fn attach(&self, inbox: Arc<dyn Inbox>) -> WorkerId {
        self.memory.attach(inbox)
    }

    fn ask(&self, from: WorkerId, question: Question) -> Option<Answer> {
        self.memory.ask(from, question)
    }

    fn publish(&self, publications: Vec<Publication>, terms: Terms) -> Pending<'_, Result<(), PublishError>> {
        self.publishes.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            match self.gate() {
                Gate::Open => {}
                Gate::Closed(opened, outcome) => {
                    opened.notified().await;
                    outcome?;
                }
                Gate::Broken => return Err(PublishError::NotAccepted),
            }
            self.memory.publish(publications, terms).await
        })
    }

    fn terminate(&self, app: AppId, user_id: UserId) -> Pending<'_, Result<(), Unavailable>> {
        match self.gate() {
            Gate::Broken => Box::pin(std::future::ready(Err(Unavailable))),
            _ => self.memory.terminate(app, user_id),
        }
    }

    fn query(&self, query: Query) -> Pending<'_, Result<Told, Unavailable>> {
        match self.gate() {
            Gate::Broken => Box::pin(std::future::ready(Err(Unavailable))),
            _ => self.memory.query(query),
        }
    }
}
