//! Where a fault happens: Redis servers, nodes, and the load on them.
//!
//! It knows how to set up and how to wait; what is done to it stands in `deeds`.

use std::fs;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use fulmar_protocol::app::App;
use fulmar_rig::{
    Excuses, Folder, Link, Load, Node, Process, Ready, Redis, RedisCluster, RedisOptions, RigError, Role,
    SentinelDeployment, SentinelOptions, Server, Size,
};

use super::interrupt;
use super::isolation::Bystanders;
use crate::project::Failure;

const NODES: usize = 3;
const LOOK: Duration = Duration::from_millis(20);
/// The groups of a Sentinel topology, each with two replicas.
pub const GROUPS: [&str; 2] = ["g1", "g2"];
/// Where replicas connect from in a setting that tells them so from everybody else.
pub const REPLICAS_FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The group that comes later.
pub const MORE: &str = "g3";

/// How the servers of a case are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// One node that needs no Redis.
    Embedded,
    /// One Redis, three nodes.
    Single,
    /// Two groups of three, three Sentinels, three nodes.
    Sentinel,
    /// The same, each server behind a wire.
    SentinelWithLinks,
    /// The same without wires; replicas connect from `REPLICAS_FROM`, by which the kernel can tell them.
    SentinelWithSources,
    /// Three primaries with a replica each as a Redis Cluster, three nodes.
    RedisCluster,
    /// The same as `Sentinel`, and a third group that nodes are not configured with.
    SentinelAndOneMore,
}

/// The servers.
pub enum Servers {
    /// None.
    Nothing,
    /// One.
    Single(Redis),
    /// Groups with their Sentinels.
    Sentinel(SentinelDeployment),
    /// Redis Cluster.
    RedisCluster(RedisCluster),
}

/// Everything of one run.
pub struct Stage {
    /// Redis.
    pub servers: Servers,
    /// Nodes by their number in the ledger.
    pub nodes: Vec<Node>,
    /// The load; taken at the end.
    pub load: Option<Load>,
    /// Chance, all of it.
    pub chance: fastrand::Rng,
    /// Whether the short form runs.
    pub is_quick: bool,
    /// How much load there is.
    pub size: Size,
    /// What must not have felt the fault.
    pub bystanders: Option<Bystanders>,
    /// What the deed excuses, and when.
    pub excuses: Excuses,
    /// How long `random` goes on.
    pub random_s: u64,
    /// Wires that a deed has laid.
    pub links: Vec<Link>,
    /// What the report says beside the figures, and since when.
    pub notes: Vec<(Instant, String)>,
    /// What went wrong beside the ledger.
    pub wrongs: Vec<String>,
    program: PathBuf,
    config: String,
}

/// What a deed answers.
pub type Done = Result<(), Failure>;

/// The app of every node.
pub fn app() -> App {
    App::new("1", "k1", "s1")
}

impl Stage {
    /// Servers, without nodes and load.
    pub fn set(setting: Setting, program: &Path, seed: u64, is_quick: bool) -> Result<Self, Failure> {
        let servers = match setting {
            Setting::Embedded => Servers::Nothing,
            Setting::Single => Servers::Single(Redis::start(&RedisOptions::default()).map_err(failure)?),
            Setting::Sentinel
            | Setting::SentinelWithLinks
            | Setting::SentinelWithSources
            | Setting::SentinelAndOneMore => {
                let has_links = setting == Setting::SentinelWithLinks;
                let has_sources = setting == Setting::SentinelWithSources;
                let options = SentinelOptions {
                    has_links,
                    replicas_from: has_sources.then_some(REPLICAS_FROM),
                    // It makes the epoch count; through wires it would only cost time, and without them all is as with them.
                    fails_over_first: !has_links && !has_sources,
                    ..SentinelOptions::default()
                };
                let more = (setting == Setting::SentinelAndOneMore).then_some(MORE);
                let groups: Vec<_> = GROUPS.into_iter().chain(more).map(|name| (name, 2)).collect();
                Servers::Sentinel(SentinelDeployment::start(&groups, 3, &options).map_err(failure)?)
            }
            Setting::RedisCluster => {
                Servers::RedisCluster(RedisCluster::start(3, 1, &RedisOptions::default()).map_err(failure)?)
            }
        };
        let config = configuration(&servers);
        let chance = fastrand::Rng::with_seed(seed);
        let program = program.to_owned();
        Ok(Self {
            servers,
            nodes: Vec::new(),
            load: None,
            chance,
            is_quick,
            size: if is_quick { Size::QUICK } else { Size::FULL },
            bystanders: None,
            excuses: Excuses::default(),
            random_s: 0,
            links: Vec::new(),
            notes: Vec::new(),
            wrongs: Vec::new(),
            program,
            config,
        })
    }

    /// Starts the nodes, side by side as a deployment's nodes are.
    pub fn start_nodes(&mut self, ready: Ready) -> Done {
        let count = if matches!(self.servers, Servers::Nothing) { 1 } else { NODES };
        for _ in 0..count {
            let node = Node::start(&self.program, &self.config, Ready::Unseen).map_err(failure)?;
            self.nodes.push(node);
        }
        for node in &self.nodes {
            node.await_ready(ready, Duration::from_secs(30)).map_err(failure)?;
        }
        Ok(())
    }

    /// One more node, ready for traffic.
    pub fn add_node(&mut self) -> Result<&Node, Failure> {
        let node = Node::start(&self.program, &self.config, Ready::ForTraffic).map_err(failure)?;
        self.nodes.push(node);
        Ok(self.nodes.last().expect("it was just added"))
    }

    /// Runs a verb of the program with the nodes' configuration.
    pub fn verb(&self, words: &[&str]) -> Result<std::process::Output, Failure> {
        let folder = std::env::temp_dir().join(format!("faults-{}.toml", std::process::id()));
        let write = || {
            fs::write(&folder, &self.config)?;
            let run = std::process::Command::new(&self.program).args(words).arg("--config").arg(&folder).output();
            fs::remove_file(&folder)?;
            run
        };
        write().map_err(|error| Failure(format!("{}: {error}", words.join(" "))))
    }

    /// Begins a verb of the program with the nodes' configuration.
    pub fn begin_verb(&self, words: &[&str]) -> Result<Verb, Failure> {
        let folder = Folder::make("verb").map_err(failure)?;
        let (config, said) = (folder.path().join("several.toml"), folder.path().join("said"));
        let prepare = || {
            fs::write(&config, &self.config)?;
            fs::File::create(&said)
        };
        let file = prepare().map_err(|error| Failure(format!("{}: {error}", words.join(" "))))?;
        let mut command = std::process::Command::new(&self.program);
        command.args(words).arg("--config").arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let process = Process::start(command, &words.join(" ")).map_err(failure)?;
        Ok(Verb { process, folder })
    }

    /// Where the nodes are.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::addr).collect()
    }

    /// The configuration of a node.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// More of it, for nodes that are started from now on.
    pub fn extend_config(&mut self, more: &str) {
        self.config.push_str(more);
    }

    /// The binary of a node.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Subscribes everybody and begins to publish.
    pub fn begin_load(&mut self) -> Done {
        self.begin_load_at(&self.addrs())
    }

    /// The same with nodes that are reached elsewhere, as behind a balancer.
    pub fn begin_load_at(&mut self, addrs: &[SocketAddr]) -> Done {
        let load = Load::start(&app(), addrs, self.size).map_err(failure)?;
        load.publish(addrs);
        self.load = Some(load);
        Ok(())
    }

    /// The load, which there is from the beginning of a deed to its end.
    pub fn load(&self) -> &Load {
        self.load.as_ref().expect("a deed is done under load")
    }

    /// The Sentinel topology, which the case asked for.
    pub fn deployment(&self) -> &SentinelDeployment {
        match &self.servers {
            Servers::Sentinel(deployment) => deployment,
            _ => panic!("the case says that it is about Sentinel groups"),
        }
    }

    /// The same, to add to it.
    pub fn deployment_mut(&mut self) -> &mut SentinelDeployment {
        match &mut self.servers {
            Servers::Sentinel(deployment) => deployment,
            _ => panic!("the case says that it is about Sentinel groups"),
        }
    }

    /// The single server, which the case asked for.
    pub fn single(&self) -> &Redis {
        match &self.servers {
            Servers::Single(redis) => redis,
            _ => panic!("the case says that it is about a single server"),
        }
    }

    /// The Redis Cluster, which the case asked for.
    pub fn redis_cluster(&self) -> &RedisCluster {
        match &self.servers {
            Servers::RedisCluster(redis_cluster) => redis_cluster,
            _ => panic!("the case says that it is about a Redis Cluster"),
        }
    }

    /// One of the groups.
    pub fn any_group(&mut self) -> &'static str {
        GROUPS[self.chance.usize(0..GROUPS.len())]
    }

    /// The primary of a group.
    pub fn primary(&self, group: &str) -> Result<&Server, Failure> {
        self.deployment().primary_of(group).map_err(failure)
    }

    /// Every server, whatever its role.
    pub fn all_servers(&self) -> Vec<&Redis> {
        match &self.servers {
            Servers::Nothing => Vec::new(),
            Servers::Single(redis) => vec![redis],
            Servers::RedisCluster(redis_cluster) => redis_cluster.servers().iter().collect(),
            Servers::Sentinel(deployment) => {
                let groups = deployment.names().into_iter().filter_map(|name| deployment.group(name).ok());
                groups.flat_map(|group| group.servers.iter().map(|server| &server.redis)).collect()
            }
        }
    }

    /// The primaries, one per group.
    pub fn primaries(&self) -> Result<Vec<&Redis>, Failure> {
        match &self.servers {
            Servers::Nothing => Ok(Vec::new()),
            Servers::Single(redis) => Ok(vec![redis]),
            Servers::RedisCluster(redis_cluster) => {
                let is_primary = |redis: &&Redis| redis.role().is_ok_and(|role| role == Role::Primary);
                Ok(redis_cluster.servers().iter().filter(is_primary).collect())
            }
            Servers::Sentinel(_) => GROUPS.iter().map(|group| Ok(&self.primary(group)?.redis)).collect(),
        }
    }

    /// Waits for a moment that the seed chooses, so that each seed hits another one.
    pub fn settle(&mut self) -> Done {
        let more = self.chance.u64(0..1_500);
        self.wait(Duration::from_millis(2_000 + more))
    }

    /// Waits, shorter in the short form.
    pub fn go_on(&self, full_s: u64, quick_s: u64) -> Done {
        self.wait(Duration::from_secs(if self.is_quick { quick_s } else { full_s }))
    }

    /// Waits, unless a signal comes.
    pub fn wait(&self, time: Duration) -> Done {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if interrupt::is_interrupted() {
                return Err(Failure("interrupted".to_owned()));
            }
            thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// Publishes may have been held since then: there was no path for some.
    pub fn excuse_held(&mut self, from_ns: u64) {
        let span_ns = from_ns..self.load().now_ns();
        self.excuses = mem::take(&mut self.excuses).held(span_ns);
    }

    /// Publishes may have been held and refused since then.
    pub fn excuse_refused(&mut self, from_ns: u64) {
        let span_ns = from_ns..self.load().now_ns();
        self.excuses = mem::take(&mut self.excuses).refused(span_ns);
    }

    /// Says something in the report.
    pub fn note(&mut self, words: String) {
        self.notes.push((Instant::now(), words));
    }

    /// Something is wrong that the ledger cannot see.
    pub fn wrong(&mut self, words: String) {
        self.wrongs.push(words);
    }

    /// Copies what nodes and servers wrote, for whoever looks into a failure.
    pub fn keep_logs(&self, folder: &Path) -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        for (number, node) in self.nodes.iter().enumerate() {
            fs::write(folder.join(format!("node-{number}.log")), node.log())?;
        }
        for redis in self.all_servers() {
            fs::write(folder.join(format!("redis-{}.log", redis.port())), redis.log())?;
        }
        if let Servers::Sentinel(deployment) = &self.servers {
            for (number, sentinel) in deployment.sentinels().iter().enumerate() {
                fs::write(folder.join(format!("sentinel-{number}.log")), sentinel.redis.log())?;
            }
        }
        Ok(())
    }
}

/// A verb that runs. It ends with this value.
pub struct Verb {
    process: Process,
    folder: Folder,
}

impl Verb {
    /// What it told people so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("said")).unwrap_or_default()
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Waits for its end; whether all was well.
    pub fn await_end(&self, patience: Duration) -> Result<bool, Failure> {
        let ended = self.process.ended(patience).map_err(failure)?;
        Ok(ended.is_some_and(|status| status.success()))
    }
}

/// A rig's error is a verb's.
pub fn failure(error: RigError) -> Failure {
    Failure(error.to_string())
}

fn configuration(servers: &Servers) -> String {
    let quoted = |addrs: &[SocketAddr]| addrs.iter().map(|addr| format!("\"{addr}\"")).collect::<Vec<_>>().join(", ");
    let backbone = match servers {
        Servers::Nothing => String::new(),
        Servers::Single(redis) => {
            format!("[backbone]\nkind = \"redis\"\ntopology = \"single\"\naddresses = [{}]\n", quoted(&[redis.addr()]))
        }
        Servers::RedisCluster(redis_cluster) => {
            let seeds: Vec<_> = redis_cluster.servers().iter().take(2).map(Redis::addr).collect();
            format!("[backbone]\nkind = \"redis\"\ntopology = \"cluster\"\naddresses = [{}]\n", quoted(&seeds))
        }
        Servers::Sentinel(deployment) => {
            let addrs: Vec<_> = deployment.sentinels().iter().map(|sentinel| sentinel.redis.addr()).collect();
            let groups = GROUPS.map(|name| format!("\"{name}\"")).join(", ");
            format!(
                "[backbone]\nkind = \"redis\"\ntopology = \"sentinel\"\nsentinels = [{}]\ngroups = [{groups}]\n",
                quoted(&addrs)
            )
        }
    };
    // Members of the presence case read only now and then: ten thousand ghosts are more than their buffers hold meanwhile, and a
    // slow reader would rightly be closed.
    let limits = "[limits]\noutbound_bytes_max = 67108864\noutbound_age_max_s = 3600\n";
    let app = "[[apps]]\nid = \"1\"\nkey = \"k1\"\nsecret = \"s1\"\npresence_members_max = 20000\n";
    format!("{backbone}{limits}{app}")
}
