//! One node: its threads, what they share, and its life from start to end.
//!
//! Threads: one per worker loop, the HTTP threads, and this one, which waits for signals and changed files. The parts
//! are wired here and nowhere else.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fulmar_engine::Settings;
use mio::{Poll, Waker};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admin::Admin;
use crate::backbone::{self, Bond, Hearing, new_origin};
use crate::banner::banner;
use crate::config::{Config, ConfigWatch, Finding, Loaded, Reload, What};
use crate::edge::{Edge, Phase, Speaks};
use crate::fallback::sessions::Sessions;
use crate::gate::{Gate, GateLimits};
use crate::http::clock::Clock;
use crate::http::health::{Pulses, Readiness};
use crate::http::{Api, Limits as HttpLimits, Setup};
use crate::inbox::{Message, WorkerInbox};
use crate::listen::{DESCRIPTORS_RESERVED, listen, open_file_limit};
use crate::metrics::sink::SinkState;
use crate::metrics::{self, Registry};
use crate::registrar::{Keeping, Registrar, StorageError};
use crate::registry::Desk;
use crate::shutdown::{Drain, EndSignals};
use crate::socket_ids::SocketIds;
use crate::telemetry;
use crate::tls::{Certificate, CertificateError};
use crate::webhooks::egress::Egress;
use crate::webhooks::request::SystemResolver;
use crate::webhooks::{Setup as WebhookSetup, WebhookDesk, WebhookError};
use crate::worker_loop::{LoopSettings, Shared, WAKE, WorkerLoop};
use crate::ws::outbox::Budget;

/// How often the configuration and certificate files are looked at.
const LOOK_AT_FILES_EVERY: Duration = Duration::from_secs(2);
/// Why a node could not start, or ended otherwise than it was told to.
#[derive(Debug, thiserror::Error)]
enum NodeError {
    #[error("cannot listen on {address}: {source}{hint}")]
    Listen { address: SocketAddr, source: io::Error, hint: &'static str },
    #[error("TLS: {0}")]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Webhooks(#[from] WebhookError),
    #[error("cannot start {what}: {source}")]
    System { what: &'static str, source: io::Error },
    #[error("a {what} panicked; please report what stands above this line")]
    Panicked { what: &'static str },
}

fn system(what: &'static str) -> impl Fn(io::Error) -> NodeError {
    move |source| NodeError::System { what, source }
}

/// Runs a node until it is told to end by SIGTERM or SIGINT. Exit code 0 after an orderly end, 1 when it could not
/// start or a worker failed.
#[must_use]
pub fn run(loaded: Loaded) -> ExitCode {
    telemetry::start(loaded.config.logging);
    match start(&loaded).and_then(|node| node.serve(&loaded)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A worker's thread; ends with an error when the operating system no longer polls.
type WorkerThread = JoinHandle<io::Result<()>>;

/// A started node.
struct Node {
    registrar: Arc<Registrar>,
    storage: Option<PathBuf>,
    edge: Arc<Edge>,
    gate: Arc<Gate>,
    inboxes: Vec<Arc<WorkerInbox>>,
    workers: Vec<WorkerThread>,
    readiness: Arc<Readiness>,
    webhooks: Arc<WebhookDesk>,
    hearing: Hearing,
    phase: watch::Sender<Phase>,
    listeners: Vec<(TcpListener, Speaks)>,
}

fn start(loaded: &Loaded) -> Result<Node, NodeError> {
    let config = &loaded.config;
    let keeping = Keeping::open(config).inspect_err(|_| report(&loaded.findings))?;
    let desk = Desk::new(config, loaded.shown_apps(), keeping.store);
    let is_about_no_apps = |finding: &&Finding| matches!(finding.what, What::DemoExposed { .. } | What::NoApps);
    report(loaded.findings.iter().filter(|finding| !(desk.has_stored() && is_about_no_apps(finding))));
    let gate = Gate::new(gate_limits(config)?);
    let certificate = match &config.tls {
        Some(tls) => Some(Arc::new(Certificate::load(&tls.cert, &tls.key)?)),
        None => None,
    };
    let listeners = open_listeners(config)?;
    let clock = Clock::system();
    let apps = desk.apps().clone();
    let pulses = Arc::new(Pulses::new(config.server.workers, clock.clone()));
    let readiness = Arc::new(Readiness::default());
    readiness.configured();
    let bond = Bond::new(config, new_origin().map_err(system("the random source"))?);
    let webhooks = start_webhooks(keeping.folder.clone(), bond.shared.clone(), config.webhooks.clone(), &apps, &clock)?;
    let listens_at = listeners[0].0.local_addr().map_err(system("a listening socket"))?;
    // Over Redis the desk says what is wanted, and nothing is left with it: edges go to the outbox in Redis.
    let hearing = Hearing::start(config, &bond, webhooks.clone(), listens_at).map_err(system("the backbone"))?;
    let backbone = hearing.backbone.clone();
    let (inboxes, workers) = start_workers(
        config,
        &Shared { backbone: backbone.clone(), apps: apps.clone(), clock: clock.clone(), pulses: pulses.clone() },
    )?;
    let (phase, seen_phase) = watch::channel(Phase::Serving);
    let api = Api::new(Setup {
        apps: apps.clone(),
        backbone,
        limits: http_limits(config),
        path_prefix: config.server.path_prefix.clone(),
        idempotency_keys_max: config.limits.idempotency_keys_max,
        takes_calls: config.server.roles.rest,
        readiness: readiness.clone(),
        pulses,
        demo: desk.demo().cloned().map(Arc::new),
        clock: clock.clone(),
    });
    let edge = Arc::new(Edge {
        api,
        apps: apps.clone(),
        gate: gate.clone(),
        inboxes: inboxes.clone(),
        sessions: Sessions::new(clock.clone()),
        certificate,
        clock,
        socket_ids: SocketIds::new(),
        phase: seen_phase,
        path_prefix: config.server.path_prefix.clone(),
        takes_connections: config.server.roles.websocket,
        elsewhere: hearing.elsewhere(),
        trusted_proxies: config.server.trusted_proxies.clone(),
        expects_proxy_header: config.server.proxy_protocol,
        handshake_timeout: config.limits.handshake_timeout,
        handshake_bytes_max: config.limits.handshake_bytes_max,
        message_bytes_max: config.limits.message_bytes_max,
        request_timeout: config.limits.request_timeout,
        keep_alive_timeout: config.limits.keep_alive_timeout,
        answer_timeout: config.limits.answer_timeout,
    });
    let registrar = Arc::new(Registrar::new(desk, inboxes.clone(), webhooks.clone()));
    let storage = keeping.folder;
    Ok(Node { registrar, storage, edge, gate, inboxes, workers, readiness, webhooks, hearing, phase, listeners })
}

impl Node {
    fn serve(self, loaded: &Loaded) -> Result<(), NodeError> {
        let edges = self.start_edges(loaded.config.server.http_threads)?;
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(system("the control thread's runtime"))?;
        let is_orderly = runtime.block_on(self.control(loaded)).map_err(system("signal handling"))?;
        for inbox in &self.inboxes {
            inbox.push(Message::Stop);
        }
        for worker in self.workers {
            match worker.join() {
                Ok(ended) => ended.map_err(system("polling in a worker"))?,
                Err(_) => return Err(NodeError::Panicked { what: "worker" }),
            }
        }
        // When nobody is left who could make an edge.
        self.webhooks.stop();
        for edge in edges {
            edge.join().map_err(|_| NodeError::Panicked { what: "HTTP thread" })?;
        }
        // When nobody is left who could ask it anything.
        if is_orderly {
            self.hearing.stop();
        }
        tracing::info!("ended");
        Ok(())
    }

    /// Waits for signals and changed files; returns when the node has been drained, and whether it was.
    async fn control(&self, loaded: &Loaded) -> io::Result<bool> {
        let mut end = EndSignals::new()?;
        let _sweeping = tokio::spawn(self.edge.sessions.clone().sweep());
        let about = backbone::about(&loaded.config, open_file_limit().unwrap_or(0));
        let sink = self.start_metrics(&loaded.config);
        let _watching = tokio::spawn(self.hearing.clone().watch(self.edge.clone(), about, sink.clone()));
        let _testing = tokio::spawn(test(self.hearing.clone(), self.readiness.clone()));
        let mut reload = signal(SignalKind::hangup())?;
        let mut watch = ConfigWatch::new(loaded);
        self.start_admin(&loaded.config, sink);
        // Last, because whoever reads it may send a signal at once.
        self.readiness.listening();
        self.say_hello(&loaded.config);
        let mut look = tokio::time::interval(LOOK_AT_FILES_EVERY);
        let mut refused_certificate = None;
        let received = loop {
            tokio::select! {
                name = end.next() => break name,
                _ = reload.recv() => match self.looking(&mut watch).reload() {
                    Ok(reload) => self.take_over(reload),
                    Err(refused) => tracing::error!("the new configuration is not taken over: {refused}"),
                },
                _ = look.tick() => {
                    match self.looking(&mut watch).look() {
                        Some(Ok(reload)) => self.take_over(reload),
                        Some(Err(refused)) => {
                            tracing::error!("the changed configuration is not taken over: {refused}");
                        }
                        None => {}
                    }
                    self.look_at_certificate(&mut refused_certificate);
                }
            }
        };
        tracing::info!(signal = received, "told to end; a second signal ends at once");
        self.hearing.drain();
        let drain = Drain {
            settings: loaded.config.shutdown,
            readiness: self.readiness.clone(),
            gate: self.gate.clone(),
            inboxes: self.inboxes.clone(),
            phase: self.phase.clone(),
        };
        tokio::select! {
            () = drain.run() => Ok(true),
            name = end.next() => {
                tracing::warn!(signal = name, "ending at once");
                self.webhooks.hurry();
                self.phase.send_replace(Phase::Closed);
                Ok(false)
            }
        }
    }

    fn take_over(&self, reload: Reload) {
        report(&reload.findings);
        for key in &reload.needs_restart {
            tracing::warn!(key, "this setting was changed and needs a restart");
        }
        let changes = self.registrar.desk().configure(&reload.config, reload.shown_apps);
        self.registrar.tell(&changes);
        self.edge.api.set_limits(http_limits(&reload.config));
        tracing::info!(
            changed = ?reload.changed,
            apps_added = changes.added.len(),
            apps_changed = changes.changed.len(),
            apps_removed = changes.removed.len(),
            "configuration taken over"
        );
    }

    /// An emptied file leaves the apps of the registry, where there are some.
    fn looking<'a>(&self, watch: &'a mut ConfigWatch) -> &'a mut ConfigWatch {
        watch.set_other_apps(self.registrar.desk().has_stored());
        watch
    }

    /// Whatever keeps the admin API from starting, the node serves.
    fn start_admin(&self, config: &Config, sink: Arc<SinkState>) {
        let Some(admin) = &config.admin else { return };
        let (registrar, redis, edge) = (self.registrar.clone(), self.hearing.redis.clone(), self.edge.clone());
        match Admin::start(admin, self.storage.as_deref(), registrar, (redis, sink), edge, self.address(config)) {
            Ok((admin, listener)) => drop(tokio::spawn(admin.accept(listener))),
            Err(error) => tracing::warn!("the admin API is off: {error}"),
        }
    }

    /// Answers how the sink is doing, which is well as long as there is none.
    fn start_metrics(&self, config: &Config) -> Arc<SinkState> {
        let sink = Arc::new(SinkState::default());
        let registry = Registry {
            inboxes: self.inboxes.clone(),
            gate: self.gate.clone(),
            apps: self.edge.apps.clone(),
            rates: self.edge.api.rates().clone(),
            hearing: self.hearing.clone(),
            webhooks: self.webhooks.clone(),
            sink: sink.clone(),
        };
        let node = metrics::name_of_node(self.address(config).port());
        metrics::sink::start(&config.metrics, &node, registry);
        sink
    }

    fn address(&self, config: &Config) -> SocketAddr {
        let first = self.listeners.first().and_then(|(listener, _)| listener.local_addr().ok());
        first.unwrap_or_else(|| config.server.address())
    }

    /// Says what is wrong with new files once, and not at every look.
    fn look_at_certificate(&self, refused: &mut Option<String>) {
        match self.edge.certificate.as_ref().map(|certificate| certificate.reload()) {
            None => {}
            Some(Ok(is_new)) => {
                *refused = None;
                if is_new {
                    tracing::info!("new TLS certificate in use; open connections keep the old one");
                }
            }
            Some(Err(error)) => {
                let error = Some(error.to_string());
                if *refused != error {
                    tracing::error!(
                        "the changed TLS certificate is not taken over: {}",
                        error.as_deref().unwrap_or("")
                    );
                    *refused = error;
                }
            }
        }
    }

    fn start_edges(&self, threads: usize) -> Result<Vec<JoinHandle<()>>, NodeError> {
        let mut handles = Vec::with_capacity(threads);
        for index in 0..threads {
            let mut listeners = Vec::with_capacity(self.listeners.len());
            for (listener, speaks) in &self.listeners {
                listeners.push((listener.try_clone().map_err(system("an HTTP thread"))?, *speaks));
            }
            let edge = self.edge.clone();
            let runtime = Builder::new_current_thread().enable_all().build().map_err(system("an HTTP thread"))?;
            let body = move || runtime.block_on(serve_listeners(edge, listeners));
            let named = thread::Builder::new().name(format!("http-{index}"));
            handles.push(named.spawn(body).map_err(system("an HTTP thread"))?);
        }
        Ok(handles)
    }

    fn say_hello(&self, config: &Config) {
        let address = |at: usize| self.listeners.get(at).and_then(|(listener, _)| listener.local_addr().ok());
        let plain = address(0).unwrap_or_else(|| config.server.address());
        let is_tls_shared = self.listeners.iter().any(|(_, speaks)| *speaks == Speaks::Both);
        print!("{}", banner(plain, address(1), is_tls_shared, self.registrar.desk().demo()));
        // Whoever waits for this text behind a pipe must see it now. A closed pipe is no reason not to serve.
        let _: io::Result<()> = io::Write::flush(&mut io::stdout());
        tracing::info!(
            address = %plain,
            apps = self.edge.apps.snapshot().len(),
            workers = config.server.workers,
            http_threads = config.server.http_threads,
            "serving"
        );
    }
}

/// The node serves meanwhile; only balancers wait.
async fn test(hearing: Hearing, readiness: Arc<Readiness>) {
    hearing.test().await;
    readiness.tested();
}

async fn serve_listeners(edge: Arc<Edge>, listeners: Vec<(TcpListener, Speaks)>) {
    let mut accepting = tokio::task::JoinSet::new();
    for (listener, speaks) in listeners {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => drop(accepting.spawn(edge.clone().accept(listener, speaks))),
            Err(error) => tracing::error!(%error, "cannot accept on a listening socket"),
        }
    }
    while accepting.join_next().await.is_some() {}
}

fn start_workers(config: &Config, shared: &Shared) -> Result<(Vec<Arc<WorkerInbox>>, Vec<WorkerThread>), NodeError> {
    let failed = system("a worker");
    let mut inboxes = Vec::new();
    let mut workers = Vec::new();
    for index in 0..config.server.workers {
        let poll = Poll::new().map_err(&failed)?;
        let waker = Waker::new(poll.registry(), WAKE).map_err(&failed)?;
        let inbox = Arc::new(WorkerInbox::new(waker, config.limits.inbox_deliveries_max));
        let settings = loop_settings(config);
        let worker = WorkerLoop::new(index, poll, inbox.clone(), shared.clone(), settings);
        let named = thread::Builder::new().name(format!("worker-{index}"));
        workers.push(named.spawn(move || worker.run()).map_err(&failed)?);
        inboxes.push(inbox);
    }
    Ok((inboxes, workers))
}

fn start_webhooks(
    folder: Option<PathBuf>,
    shared: Option<crate::webhooks::shared::Shared>,
    egress: Egress,
    apps: &crate::apps::Apps,
    clock: &Clock,
) -> Result<Arc<WebhookDesk>, NodeError> {
    let webhooks = WebhookDesk::new(WebhookSetup {
        folder,
        shared,
        clock: clock.clone(),
        resolver: Arc::new(SystemResolver),
        egress,
        open_files: open_file_limit().map_err(system("reading the open-file limit"))?,
    });
    webhooks.set_apps(apps.snapshot().iter().cloned())?;
    Ok(Arc::new(webhooks))
}

fn open_listeners(config: &Config) -> Result<Vec<(TcpListener, Speaks)>, NodeError> {
    let open = |address: SocketAddr, speaks| match listen(address) {
        Ok(listener) => Ok((listener, speaks)),
        Err(source) => {
            let hint = match source.kind() {
                io::ErrorKind::AddrInUse => "; another process listens there: end it, or choose a port with --port",
                io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: choose another with --port",
                io::ErrorKind::AddrNotAvailable => "; this machine has no such address: see --host",
                _ => "",
            };
            Err(NodeError::Listen { address, source, hint })
        }
    };
    let own_tls_port = config.tls.as_ref().and_then(|tls| tls.port);
    let speaks = if config.tls.is_some() && own_tls_port.is_none() { Speaks::Both } else { Speaks::Plain };
    let mut listeners = vec![open(config.server.address(), speaks)?];
    if let Some(port) = own_tls_port {
        listeners.push(open(SocketAddr::new(config.server.host, port), Speaks::Tls)?);
    }
    Ok(listeners)
}

/// As many connections as configured, or as there are descriptors for.
fn gate_limits(config: &Config) -> Result<GateLimits, NodeError> {
    let open_files = open_file_limit().map_err(system("reading the open-file limit"))?;
    let possible = usize::try_from(open_files.saturating_sub(DESCRIPTORS_RESERVED)).unwrap_or(usize::MAX).max(1);
    let wanted = config.limits.connections_max.map_or(possible, |max| max as usize);
    if wanted > possible {
        tracing::warn!(
            wanted,
            possible,
            open_files,
            "limits.connections_max is more than the open-file limit allows; raise it (ulimit -n, LimitNOFILE)"
        );
    }
    Ok(GateLimits {
        connections_max: wanted.min(possible),
        connections_per_ip_max: config.limits.connections_per_ip_max,
        handshakes_per_s_max: config.limits.handshakes_per_s_max,
    })
}

fn loop_settings(config: &Config) -> LoopSettings {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let limits = &config.limits;
    LoopSettings {
        engine: Settings {
            activity_timeout_ms: ms(config.server.activity_timeout),
            pong_timeout_ms: ms(config.server.pong_timeout),
            channels_per_connection_max: limits.channels_per_connection_max,
            subscribes_per_s_max: limits.subscribes_per_s_max,
            ..Settings::default()
        },
        budget: Budget { bytes_max: limits.outbound_bytes_max, age_max_ms: ms(limits.outbound_age_max) },
        backlog_bytes_max: limits.outbound_total_bytes_max / config.server.workers,
        message_bytes_max: limits.message_bytes_max,
        frame_timeout_ms: ms(limits.frame_timeout),
    }
}

fn http_limits(config: &Config) -> HttpLimits {
    HttpLimits {
        request_body_bytes_max: config.limits.request_body_bytes_max,
        request_timeout: config.limits.request_timeout,
        ..HttpLimits::default()
    }
}

fn report<'a>(findings: impl IntoIterator<Item = &'a Finding>) {
    for finding in findings {
        tracing::warn!("{finding}");
    }
}
