//! Groups of a primary and its replicas, watched by Sentinels: set up as our documentation advises, and hurt on purpose.
//!
//! Everything is observed before it is believed: a deployment is ready when every replica is online and every Sentinel sees
//! every server and every other Sentinel.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use crate::{Link, Redis, RedisOptions, RigError, Role, Value, eventually};

const READY_MAX: Duration = Duration::from_secs(40);
const FAILOVER_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
const MISNAMES_MAX: usize = 3;

/// How a deployment is set up.
#[derive(Debug, Clone)]
pub struct SentinelOptions {
    /// For every server. With TLS, servers and Sentinels reach each other by it alone, and name each other's ports for it; a test
    /// itself asks them in plain text.
    pub redis: RedisOptions,
    /// What Sentinels themselves ask for.
    pub password: Option<String>,
    /// Silence after which a Sentinel calls a server down.
    pub down_after_ms: u64,
    /// How long a failover may take before it is tried anew (which it is after twice that).
    pub failover_timeout_ms: u64,
    /// A primary refuses writes with no replica that was heard from within 2 s.
    pub wants_replica: bool,
    /// Every server is reached, announced and replicated from through a [`Link`].
    pub has_links: bool,
    /// Servers connect to the primary that they follow from this address of loopback, by which their connections can be told from
    /// all others; they are announced as if they did not. Needs Redis 7 or Valkey.
    pub replicas_from: Option<Ipv4Addr>,
    /// One planned failover of every group at the beginning: only then is the config epoch above 0, and one Sentinel that
    /// lies is corrected by the others.
    pub fails_over_first: bool,
}

impl Default for SentinelOptions {
    fn default() -> Self {
        Self {
            redis: RedisOptions::default(),
            password: None,
            down_after_ms: 1_250,
            failover_timeout_ms: 10_000,
            wants_replica: true,
            has_links: false,
            replicas_from: None,
            fails_over_first: false,
        }
    }
}

/// A server of a group.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub redis: Redis,
    /// The wire that everybody reaches it through, where there is one.
    pub link: Option<Link>,
}

impl Server {
    /// Where everybody reaches it.
    pub fn addr(&self) -> SocketAddr {
        let own = || self.redis.tls_addr().unwrap_or_else(|| self.redis.addr());
        self.link.as_ref().map_or_else(own, Link::addr)
    }
}

impl Server {
    /// A server on its own, reached as its deployment's servers are.
    fn start(options: &SentinelOptions, has_replicas: bool) -> Result<Self, RigError> {
        let mut redis = options.redis.clone();
        if options.wants_replica && has_replicas {
            redis.lines.splice(0..0, ["min-replicas-to-write 1".to_owned(), "min-replicas-max-lag 2".to_owned()]);
        }
        if let Some(from) = options.replicas_from {
            redis.lines.extend([format!("bind-source-addr {from}"), "replica-announce-ip 127.0.0.1".to_owned()]);
        }
        if redis.tls.is_some() {
            redis.lines.push("tls-replication yes".to_owned());
        }
        let redis = Redis::start(&redis)?;
        let link = if options.has_links { Some(Link::to(redis.addr())?) } else { None };
        if let Some(link) = &link {
            let port = link.port().to_string();
            redis.call(&["CONFIG", "SET", "replica-announce-ip", "127.0.0.1", "replica-announce-port", &port])?;
        }
        Ok(Self { redis, link })
    }
}

/// A primary and its replicas.
#[derive(Debug)]
pub struct Group {
    /// As Sentinel knows it.
    pub name: String,
    /// The first was the primary at the beginning.
    pub servers: Vec<Server>,
}

/// A Sentinel.
#[derive(Debug)]
pub struct Sentinel {
    /// The process; it answers as a Redis server does.
    pub redis: Redis,
}

/// Groups and their Sentinels.
#[derive(Debug)]
pub struct SentinelDeployment {
    groups: Vec<Group>,
    sentinels: Vec<Sentinel>,
    options: SentinelOptions,
}

impl SentinelDeployment {
    /// Starts `groups` (name, replicas) and so many Sentinels, and waits until all see all.
    ///
    /// # Errors
    /// Something does not come up.
    pub fn start(groups: &[(&str, usize)], sentinels: usize, options: &SentinelOptions) -> Result<Self, RigError> {
        let options = options.clone();
        let groups = groups.iter().map(|(name, replicas)| Group::start(name, *replicas, &options));
        let groups = groups.collect::<Result<Vec<_>, _>>()?;
        let mut deployment = Self { groups, sentinels: Vec::new(), options };
        for group in &deployment.groups {
            group.await_replicas()?;
        }
        for _ in 0..sentinels {
            let sentinel = deployment.start_sentinel(sentinels / 2 + 1)?;
            deployment.sentinels.push(sentinel);
        }
        deployment.hurry(true);
        deployment.await_sight()?;
        if deployment.options.fails_over_first {
            for name in deployment.groups.iter().map(|group| group.name.clone()).collect::<Vec<_>>() {
                deployment.fail_over_wholly(&name)?;
            }
        }
        deployment.hurry(false);
        Ok(deployment)
    }

    /// Sentinels look at servers every ten seconds and greet each other every two: too slow to wait for, and put back before
    /// anything is tried. Where a Sentinel does not know the command, it only takes longer.
    fn hurry(&self, is_hurried: bool) {
        let (info, publish) = if is_hurried { ("300", "300") } else { ("10000", "2000") };
        for sentinel in &self.sentinels {
            let _ = sentinel.redis.call(&["SENTINEL", "DEBUG", "info-period", info, "publish-period", publish]);
        }
    }

    /// Names of the groups.
    pub fn names(&self) -> Vec<&str> {
        self.groups.iter().map(|group| group.name.as_str()).collect()
    }

    /// The Sentinels.
    pub fn sentinels(&self) -> &[Sentinel] {
        &self.sentinels
    }

    /// A group by its name.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn group(&self, name: &str) -> Result<&Group, RigError> {
        let found = self.groups.iter().find(|group| group.name == name);
        found.ok_or_else(|| RigError::Peer(format!("no group is called {name}")))
    }

    /// The server that most Sentinels call the group's primary.
    ///
    /// # Errors
    /// There is no majority for any server of the group.
    pub fn primary_of(&self, group: &str) -> Result<&Server, RigError> {
        let group = self.group(group)?;
        let named: Vec<_> = self.sentinels.iter().filter_map(|s| s.primary_of(&group.name).ok()).collect();
        let has_majority =
            |server: &&Server| 2 * named.iter().filter(|addr| **addr == server.addr()).count() > self.sentinels.len();
        let found = group.servers.iter().find(has_majority);
        found.ok_or_else(|| RigError::Peer(format!("no majority for a primary of {}: {named:?}", group.name)))
    }

    /// The others of the group.
    ///
    /// # Errors
    /// As [`Self::primary_of`].
    pub fn replicas_of(&self, group: &str) -> Result<Vec<&Server>, RigError> {
        let primary = self.primary_of(group)?.addr();
        Ok(self.group(group)?.servers.iter().filter(|server| server.addr() != primary).collect())
    }

    /// `SENTINEL FAILOVER`, as an operator does it by hand. Answers once a Sentinel has accepted it.
    ///
    /// # Errors
    /// No Sentinel accepts it for a long time.
    pub fn failover(&self, group: &str) -> Result<(), RigError> {
        eventually(&format!("a Sentinel accepts a failover of {group}"), FAILOVER_MAX, || {
            let ask = |sentinel: &Sentinel| sentinel.redis.call(&["SENTINEL", "FAILOVER", group]).is_ok();
            let accepted = self.sentinels.iter().any(ask);
            if !accepted {
                thread::sleep(PAUSE);
            }
            accepted.then_some(())
        })
    }

    /// A failover, and then waits until another server is primary, all Sentinels say so and all replicas follow it. The old
    /// primary is told by us to follow; Sentinels leave it alone for ten seconds.
    ///
    /// # Errors
    /// It does not come to that.
    pub fn fail_over_wholly(&self, group: &str) -> Result<(), RigError> {
        let old = self.primary_of(group)?.addr();
        self.failover(group)?;
        let what = format!("all Sentinels name another primary of {group}");
        eventually(&what, FAILOVER_MAX, || {
            let mut named = self.sentinels.iter().map(|sentinel| sentinel.primary_of(group).ok());
            let first = named.next()??;
            (first != old && named.all(|other| other == Some(first))).then_some(())
        })?;
        let new = self.primary_of(group)?;
        let stray = self.group(group)?.servers.iter().find(|server| server.addr() == old);
        if let Some(stray) = stray {
            follow(&stray.redis, new.addr())?;
        }
        self.group(group)?.await_replicas()?;
        self.await_sight()
    }

    /// One more server for `group`, empty and without anybody to follow: what an operator brings along. Answers its number there.
    ///
    /// # Errors
    /// It does not come up.
    pub fn add_server(&mut self, group: &str) -> Result<usize, RigError> {
        let server = Server::start(&self.options, true)?;
        let group = self.groups.iter_mut().find(|known| known.name == group);
        let group = group.ok_or_else(|| RigError::Peer("no group is called so".to_owned()))?;
        group.servers.push(server);
        Ok(group.servers.len() - 1)
    }

    /// Makes a server of `group` (by number) follow the group's primary. Whether it ever comes online shows later.
    ///
    /// # Errors
    /// It does not answer, or nobody knows the primary.
    pub fn attach(&self, group: &str, server: usize) -> Result<(), RigError> {
        let redis = &self.group(group)?.servers[server].redis;
        // One that has just started reads its files before it answers, and machines that run tests are busy.
        let told = || follow(redis, self.primary_of(group).ok()?.addr()).ok();
        eventually("a server follows its primary", READY_MAX, told)
    }

    /// One more group, watched by all Sentinels.
    ///
    /// # Errors
    /// It does not come up.
    pub fn add_group(&mut self, name: &str, replicas: usize) -> Result<(), RigError> {
        let group = Group::start(name, replicas, &self.options)?;
        group.await_replicas()?;
        let addr = group.servers[0].addr();
        self.groups.push(group);
        for sentinel in 0..self.sentinels.len() {
            self.misname(sentinel, name, addr)?;
        }
        self.hurry(true);
        let seen = self.await_sight();
        self.hurry(false);
        seen
    }

    /// Makes a Sentinel (by number) believe that the primary of `group` is at `addr`: removes the group and adds it anew.
    ///
    /// # Errors
    /// The Sentinel refuses.
    pub fn misname(&self, sentinel: usize, group: &str, addr: SocketAddr) -> Result<(), RigError> {
        // A Sentinel writes its file at each of these, and a busy disk may keep it for longer than a call waits.
        let mut tries = (0..MISNAMES_MAX).map(|_| self.try_to_misname(sentinel, group, addr));
        let first = tries.next().unwrap_or(Ok(()));
        first.or_else(|error| tries.find(Result::is_ok).unwrap_or(Err(error)))
    }

    fn try_to_misname(&self, sentinel: usize, group: &str, addr: SocketAddr) -> Result<(), RigError> {
        let redis = &self.sentinels[sentinel].redis;
        // It may have been removed before.
        let _ = redis.call(&["SENTINEL", "REMOVE", group]);
        let (ip, port) = (addr.ip().to_string(), addr.port().to_string());
        let quorum = (self.sentinels.len() / 2 + 1).to_string();
        redis.call(&["SENTINEL", "MONITOR", group, &ip, &port, &quorum])?;
        for (name, value) in self.settings() {
            redis.call(&["SENTINEL", "SET", group, name, &value])?;
        }
        Ok(())
    }

    /// Waits until every replica that runs is online and every Sentinel sees everything: what a group is after its wounds.
    ///
    /// # Errors
    /// It does not come to that.
    pub fn await_whole(&self) -> Result<(), RigError> {
        for group in &self.groups {
            group.await_replicas()?;
        }
        self.hurry(true);
        let seen = self.await_sight();
        self.hurry(false);
        seen
    }

    fn start_sentinel(&self, quorum: usize) -> Result<Sentinel, RigError> {
        let tls = self.options.redis.tls.as_ref();
        let write = |port: u16, tls_port: Option<u16>, folder: &crate::Folder| {
            let dir = folder.path().display();
            let mut text = format!(
                "port {port}\nbind 127.0.0.1\nprotected-mode no\ndir {dir}\nlogfile {dir}/server.log\n\
                 sentinel resolve-hostnames no\nsentinel deny-scripts-reconfig yes\n"
            );
            if let Some((tls, port)) = tls.zip(tls_port) {
                let _ = writeln!(text, "{}\ntls-replication yes", tls.lines(port));
            }
            if let Some(password) = &self.options.password {
                let _ = writeln!(text, "requirepass {password}\nsentinel sentinel-pass {password}");
            }
            for group in &self.groups {
                let (name, port) = (&group.name, group.servers[0].addr().port());
                let _ = writeln!(text, "sentinel monitor {name} 127.0.0.1 {port} {quorum}");
                for (setting, value) in self.settings() {
                    let _ = writeln!(text, "sentinel {setting} {name} {value}");
                }
            }
            text
        };
        let password = self.options.password.as_deref();
        Ok(Sentinel { redis: Redis::start_with(&["--sentinel"], password, write, tls.is_some())? })
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("down-after-milliseconds", self.options.down_after_ms.to_string()),
            ("failover-timeout", self.options.failover_timeout_ms.to_string()),
            ("parallel-syncs", "1".to_owned()),
        ];
        settings.extend(self.options.redis.password.clone().map(|password| ("auth-pass", password)));
        settings
    }

    fn await_sight(&self) -> Result<(), RigError> {
        for (number, sentinel) in self.sentinels.iter().enumerate() {
            for group in &self.groups {
                let what = format!("Sentinel {number} sees all of {}", group.name);
                let sees = || sentinel.sees(group, self.sentinels.len() - 1).unwrap_or(false);
                eventually(&what, READY_MAX, || sees().then_some(()))?;
            }
        }
        Ok(())
    }
}

impl Sentinel {
    /// Where it says the primary of `group` is.
    ///
    /// # Errors
    /// It is not reachable or does not know the group.
    pub fn primary_of(&self, group: &str) -> Result<SocketAddr, RigError> {
        let answer = self.redis.call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", group])?;
        let said = answer.list().iter().map(Value::text).collect::<Vec<_>>().join(":");
        said.parse().map_err(|_| RigError::Peer(format!("not an address: {said:?}")))
    }

    fn sees(&self, group: &Group, others: usize) -> Result<bool, RigError> {
        let about = self.redis.call(&["SENTINEL", "MASTER", &group.name])?;
        let field = |name| about.field(name).map(Value::text).unwrap_or_default();
        let running = group.servers.iter().filter(|server| server.redis.is_running()).count();
        let replicas = self.redis.call(&["SENTINEL", "REPLICAS", &group.name])?;
        let is_up = |replica: &&Value| {
            let flags = replica.field("flags").map(Value::text);
            let link = replica.field("master-link-status").map(Value::text);
            flags.as_deref() == Some("slave") && link.as_deref() == Some("ok")
        };
        let replicas_up = replicas.list().iter().filter(is_up).count();
        Ok(field("flags") == "master"
            && field("num-other-sentinels") == others.to_string()
            && replicas_up + 1 >= running)
    }
}

impl Group {
    fn start(name: &str, replicas: usize, options: &SentinelOptions) -> Result<Self, RigError> {
        let mut group = Self { name: name.to_owned(), servers: Vec::new() };
        for _ in 0..=replicas {
            group.servers.push(Server::start(options, replicas > 0)?);
        }
        let (primary, replicas) = group.servers.split_first().expect("at least the primary");
        for replica in replicas {
            follow(&replica.redis, primary.addr())?;
        }
        Ok(group)
    }

    /// The servers that say they are primary: none, one, or for a while two.
    pub fn acting_primaries(&self) -> Vec<&Server> {
        self.servers.iter().filter(|server| matches!(server.redis.role(), Ok(Role::Primary))).collect()
    }

    fn await_replicas(&self) -> Result<(), RigError> {
        let wanted = self.servers.iter().filter(|server| server.redis.is_running()).count().saturating_sub(1);
        eventually(&format!("{wanted} replicas of {} are online", self.name), READY_MAX, || {
            let primaries = self.acting_primaries();
            let [primary] = primaries.as_slice() else { return None };
            primary.redis.replicas_online().is_ok_and(|online| online == wanted).then_some(())
        })
    }
}

fn follow(redis: &Redis, primary: SocketAddr) -> Result<(), RigError> {
    let (ip, port) = (primary.ip().to_string(), primary.port().to_string());
    redis.call(&["REPLICAOF", &ip, &port])?;
    // It is started again as what it was.
    redis.call(&["CONFIG", "REWRITE"]).map(|_| ())
}
