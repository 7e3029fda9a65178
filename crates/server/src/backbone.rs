//! Which backbone a node has: the embedded one, or one over Redis, with what only the latter has.
//!
//! Starting never waits for Redis. What it hears of the other nodes is passed on from here; what follows from it is decided
//! in [`crate::quota`] and [`crate::fallback`].

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fulmar_backbone::memory::{Memory, SystemClock};
use fulmar_backbone::redis::RedisBackbone;
use fulmar_backbone::redis::lease::About;
use fulmar_backbone::redis::primaries::{Primaries, Primary};
use fulmar_backbone::redis::settings::{Settings, Topology};
use fulmar_backbone::{Backbone, Outbox};
use fulmar_protocol::name::ChannelName;

use crate::alike;
use crate::config::{self, Config};
use crate::edge::Edge;
use crate::fallback::elsewhere::Elsewhere;
use crate::metrics::sink::SinkState;
use crate::quota::Census;
use crate::self_test::{self, Errand};
use crate::webhooks::shared::Shared;

/// What a node of this configuration says of itself; of its apps, as soon as it serves them, and of its metrics, once they are
/// known not to arrive.
pub(crate) fn about(config: &Config, open_files: u64) -> About {
    let release = env!("CARGO_PKG_VERSION").to_owned();
    About { release, settings: alike::of_settings(config), open_files, ..About::default() }
}

/// How often the leases of the others are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A node's backbone.
#[derive(Clone)]
pub(crate) struct Hearing {
    /// What everybody else on the node knows it as.
    pub(crate) backbone: Arc<dyn Backbone>,
    /// The same when it is over Redis.
    pub(crate) redis: Option<Arc<RedisBackbone>>,
    /// The same when it is embedded.
    pub(crate) memory: Option<Arc<Memory>>,
    groups: Vec<String>,
    origin: u64,
}

/// The number of this incarnation of a node: what tells it from others, and from itself before a restart.
///
/// # Errors
/// When the system gives no random number.
pub(crate) fn new_origin() -> io::Result<u64> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::from)?;
    Ok(u64::from_ne_bytes(random))
}

/// Knows the primaries from the moment there is a backbone: webhooks are there before it, because it asks them what is wanted.
struct Later {
    groups: usize,
    redis: OnceLock<Arc<RedisBackbone>>,
}

impl Primaries for Later {
    fn groups(&self) -> usize {
        self.redis.get().map_or(self.groups, |redis| redis.groups())
    }

    fn primary(&self, group: usize) -> Option<Primary> {
        self.redis.get()?.primary(group)
    }

    fn is_left(&self, group: usize) -> bool {
        self.redis.get().is_some_and(|redis| redis.is_left(group))
    }
}

/// What webhooks and the backbone need of each other, before either is there.
pub(crate) struct Bond {
    origin: u64,
    later: Arc<Later>,
    /// Where webhooks find the outbox; `None` for a node alone, whose webhooks are its own.
    pub(crate) shared: Option<Shared>,
}

impl Bond {
    /// For a node of this configuration and incarnation.
    pub(crate) fn new(config: &Config, origin: u64) -> Self {
        let groups = match &config.backbone {
            config::Backbone::Embedded => 0,
            config::Backbone::Redis(settings) => settings.topology.groups().len(),
        };
        let later = Arc::new(Later { groups, redis: OnceLock::new() });
        let shared = match &config.backbone {
            config::Backbone::Embedded => None,
            config::Backbone::Redis(settings) => Some(Shared {
                primaries: later.clone(),
                settings: Arc::new((**settings).clone()),
                node: format!("{origin:016x}"),
            }),
        };
        Self { origin, later, shared }
    }
}

impl Hearing {
    /// Starts what the configuration says. `listens_at` is where the node's HTTP port really is.
    ///
    /// # Errors
    /// When the system gives no thread, or a certificate cannot be read. Never because of a server.
    pub(crate) fn start(
        config: &Config,
        bond: &Bond,
        outbox: Arc<dyn Outbox>,
        listens_at: SocketAddr,
    ) -> io::Result<Self> {
        let origin = bond.origin;
        match &config.backbone {
            config::Backbone::Embedded => {
                let cache_bytes_max = config.limits.cache_bytes_max as u64;
                let memory = Memory::new(origin, cache_bytes_max, Arc::new(SystemClock::default()));
                let memory = Arc::new(memory.with_outbox(outbox));
                Ok(Self { backbone: memory.clone(), redis: None, memory: Some(memory), groups: Vec::new(), origin })
            }
            config::Backbone::Redis(settings) => {
                let settings = Settings { advertise: advertised(settings, listens_at), ..(**settings).clone() };
                let groups = settings.topology.groups();
                say_hello(&settings, origin);
                let redis = Arc::new(RedisBackbone::start(settings, origin, Some(outbox))?);
                // It is set nowhere else.
                let _: Result<(), _> = bond.later.redis.set(redis.clone());
                Ok(Self { backbone: redis.clone(), redis: Some(redis), memory: None, groups, origin })
            }
        }
    }

    /// Sends a message through each group and waits until it is back, for a while. Nothing to do for a node alone.
    pub(crate) async fn test(&self) {
        let Some(redis) = &self.redis else { return };
        let errands = self.groups.iter().enumerate().filter_map(|(at, group)| {
            let names = (0..1_000_000).filter_map(|n| {
                ChannelName::parse(&format!("self-test-{}-{n}", self.name()), self_test::CHANNEL_NAME_MAX).ok()
            });
            let channel = { names }.find(|channel| redis.group_of(&self_test::app(), channel) == at)?;
            Some(Errand { number: at, group: group.clone(), channel })
        });
        let is_here = |group| redis.primary(group).is_some();
        let missing = self_test::run(self.backbone.clone(), errands.collect(), self_test::WITHIN, is_here).await;
        if missing.is_empty() {
            tracing::info!(
                groups = self.groups.len(),
                "self-test done: a message went through each group and came back"
            );
        } else {
            tracing::warn!(
                missing = missing.join(","),
                "no message came back through these groups; this node serves all the same, and delivers when they are there"
            );
        }
    }

    /// Where sessions are that are not on this node.
    pub(crate) fn elsewhere(&self) -> Option<Elsewhere> {
        let redis = self.redis.clone()?;
        Some(Elsewhere::new(self.name(), move || redis.leases()))
    }

    /// Tells the others of this node's connections and of itself, and the gate and the publish rates of theirs, for as long as the
    /// node lives.
    pub(crate) async fn watch(self, edge: Arc<Edge>, mut about: About, sink: Arc<SinkState>) {
        let Some(redis) = &self.redis else { return };
        let Edge { api, apps, gate, clock, .. } = &*edge;
        let mut served = None;
        let mut census = Census::new(&self.name(), clock.elapsed_ms());
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            look.tick().await;
            redis.set_connections(gate.connections());
            let serves = apps.snapshot();
            let metrics_trouble = sink.trouble();
            let is_known = about.metrics_trouble == metrics_trouble;
            if !is_known || served.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &serves)) {
                about.apps = alike::of_apps(&serves);
                about.metrics_trouble = metrics_trouble;
                redis.set_about(about.clone());
                served = Some(serves);
            }
            let sight = census.look(clock.elapsed_ms(), &redis.leases());
            api.rates().divide_among(sight.publishers());
            gate.see(sight, |app| apps.by_id(app.as_str())?.limits.max_connections);
        }
    }

    fn name(&self) -> String {
        format!("{:016x}", self.origin)
    }

    /// The node goes away, and its users will be on others in a moment.
    pub(crate) fn drain(&self) {
        if let Some(redis) = &self.redis {
            redis.drain();
        }
    }

    /// Takes this node's records away, when nobody is left who could add some.
    pub(crate) fn stop(&self) {
        if let Some(redis) = &self.redis {
            redis.stop();
        }
    }
}

/// Where other nodes reach this one: what was written, or the address it listens on where that is one.
fn advertised(settings: &Settings, listens_at: SocketAddr) -> Option<String> {
    let own = (!listens_at.ip().is_unspecified()).then(|| listens_at.to_string());
    settings.advertise.clone().or(own)
}

fn say_hello(settings: &Settings, origin: u64) {
    let (topology, servers) = match &settings.topology {
        Topology::Single(address) => ("single", address.clone()),
        Topology::Sentinel { sentinels, .. } => ("sentinel", sentinels.join(",")),
        Topology::RedisCluster { seeds, .. } => ("cluster", seeds.join(",")),
    };
    tracing::info!(
        topology,
        servers,
        groups = settings.topology.groups().join(","),
        deployment = settings.deployment,
        node = format!("{origin:016x}"),
        advertise = settings.advertise,
        "hearing other nodes over Redis"
    );
    if settings.advertise.is_none() {
        tracing::info!(
            "other nodes do not know where this one is, since it listens on every address: sessions of HTTP fallback \
             transports need a balancer that keeps them on one node, or backbone.advertise"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NODE-4
    #[test]
    fn a_node_advertises_what_was_written_or_the_address_it_really_listens_on_or_nothing() {
        let mut settings =
            match crate::config::load(crate::config::Sources::new().with_set(vec!["backbone.kind=redis".to_owned()])) {
                Ok(loaded) => match loaded.config.backbone {
                    config::Backbone::Redis(settings) => *settings,
                    config::Backbone::Embedded => panic!("redis was written"),
                },
                Err(refused) => panic!("{refused}"),
            };
        let at = |text: &str| text.parse().expect("an address");
        assert_eq!(advertised(&settings, at("10.0.0.7:7001")).as_deref(), Some("10.0.0.7:7001"));
        assert_eq!(advertised(&settings, at("[fd00::7]:7001")).as_deref(), Some("[fd00::7]:7001"));
        assert_eq!(advertised(&settings, at("0.0.0.0:7001")), None);
        assert_eq!(advertised(&settings, at("[::]:7001")), None);
        settings.advertise = Some("node-1:80".to_owned());
        assert_eq!(advertised(&settings, at("0.0.0.0:7001")).as_deref(), Some("node-1:80"));
    }
}
