//! A Redis Cluster on loopback: primaries with their replicas, joined and covering every slot.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{Redis, RedisOptions, RigError, eventually, server_program};

const READY_MAX: Duration = Duration::from_secs(60);

/// The servers; which of them are primaries is theirs to say, and changes.
#[derive(Debug)]
pub struct RedisCluster {
    servers: Vec<Redis>,
}

impl RedisCluster {
    /// Starts so many primaries with so many replicas each. A part that is lost does not stop the rest
    /// (`cluster-require-full-coverage no`), and a primary counts as lost after two seconds.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(primaries: usize, replicas: usize, options: &RedisOptions) -> Result<Self, RigError> {
        let options = options.clone().line("cluster-enabled yes").line("cluster-config-file nodes.conf");
        let options = options.line("cluster-node-timeout 2000").line("cluster-require-full-coverage no");
        let options = options.line("cluster-announce-ip 127.0.0.1");
        let count = primaries * (1 + replicas);
        let servers = (0..count).map(|_| Redis::start(&options)).collect::<Result<Vec<_>, _>>()?;
        let mut command = Command::new(tool());
        command.args(["--cluster", "create"]).args(servers.iter().map(|server| server.addr().to_string()));
        command.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]).stdin(Stdio::null());
        if let Some(password) = &options.password {
            command.args(["-a", password]);
        }
        let output = command.output().map_err(|e| RigError::io("making a Redis Cluster", e))?;
        if !output.status.success() {
            return Err(RigError::Peer(String::from_utf8_lossy(&output.stdout).into_owned()));
        }
        let redis_cluster = Self { servers };
        redis_cluster.await_whole(replicas > 0)?;
        Ok(redis_cluster)
    }

    /// All servers.
    pub fn servers(&self) -> &[Redis] {
        &self.servers
    }

    /// The server that owns a slot, by what a server that runs says.
    ///
    /// # Errors
    /// Nobody says.
    pub fn owner_of(&self, slot: i64) -> Result<&Redis, RigError> {
        for server in self.servers.iter().filter(|server| server.is_running()) {
            let Ok(slots) = server.call(&["CLUSTER", "SLOTS"]) else { continue };
            let holds = |range: &&crate::Value| {
                let bound = |at: usize| range.list().get(at).and_then(crate::Value::number);
                bound(0).is_some_and(|from| from <= slot) && bound(1).is_some_and(|to| slot <= to)
            };
            let port = slots.list().iter().find(holds).and_then(|range| range.list().get(2)?.list().get(1)?.number());
            if let Some(owner) = self.servers.iter().find(|other| Some(i64::from(other.port())) == port) {
                return Ok(owner);
            }
        }
        Err(RigError::Peer(format!("nobody owns slot {slot}")))
    }

    /// A replica of a server, by its own word.
    ///
    /// # Errors
    /// There is none that runs.
    pub fn replica_of(&self, primary: &Redis) -> Result<&Redis, RigError> {
        let id = primary.call(&["CLUSTER", "MYID"])?.text();
        for server in self.servers.iter().filter(|server| server.is_running()) {
            let nodes = server.call(&["CLUSTER", "NODES"])?.text();
            let own = nodes.lines().find(|line| line.contains("myself"));
            if own.is_some_and(|line| line.split(' ').nth(3) == Some(id.as_str())) {
                return Ok(server);
            }
        }
        Err(RigError::Peer(format!("the primary at {} has no replica", primary.port())))
    }

    /// Moves a slot with all its keys to another primary while both serve, as the product's own tool does. Answers how many
    /// keys went.
    ///
    /// # Errors
    /// A server refuses a step.
    pub fn move_slot(&self, slot: i64, target: &Redis) -> Result<usize, RigError> {
        let (from, number) = (self.owner_of(slot)?, slot.to_string());
        let id = |server: &Redis| Ok::<_, RigError>(server.call(&["CLUSTER", "MYID"])?.text());
        target.call(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &id(from)?])?;
        from.call(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &id(target)?])?;
        let (host, port) = (target.addr().ip().to_string(), target.port().to_string());
        let mut moved = 0;
        loop {
            let keys = from.call(&["CLUSTER", "GETKEYSINSLOT", &number, "100"])?;
            let keys: Vec<String> = keys.list().iter().map(crate::Value::text).collect();
            if keys.is_empty() {
                break;
            }
            let mut command = vec!["MIGRATE", &host, &port, "", "0", "5000", "KEYS"];
            command.extend(keys.iter().map(String::as_str));
            from.call(&command)?;
            moved += keys.len();
        }
        for server in [target, from] {
            server.call(&["CLUSTER", "SETSLOT", &number, "NODE", &id(target)?])?;
        }
        Ok(moved)
    }

    /// Takes a slot from everybody, and answers who had it: first from that server, because what it said before may be on its way to
    /// the others.
    ///
    /// # Errors
    /// Nobody has it, or somebody keeps it.
    pub fn lose_slot(&self, slot: i64) -> Result<&Redis, RigError> {
        let owner = self.owner_of(slot)?;
        let words = ["CLUSTER", "DELSLOTS", &slot.to_string()];
        owner.call(&words)?;
        eventually("nobody has the slot", READY_MAX, || {
            // Who has forgotten already refuses to.
            self.servers.iter().all(|server| server.call(&words).is_err()).then_some(())
        })?;
        Ok(owner)
    }

    fn await_whole(&self, has_replicas: bool) -> Result<(), RigError> {
        eventually("every server of the Redis Cluster sees it whole", READY_MAX, || {
            let is_whole = |server: &Redis| {
                let state = server.info_of_redis_cluster("cluster_state").as_deref() == Some("ok");
                state && server.info_of_redis_cluster("cluster_known_nodes") == Some(self.servers.len().to_string())
            };
            let replicas = || self.servers.iter().any(|server| server.replicas_online().is_ok_and(|online| online > 0));
            (self.servers.iter().all(is_whole) && (!has_replicas || replicas())).then_some(())
        })
    }
}

impl Redis {
    fn info_of_redis_cluster(&self, name: &str) -> Option<String> {
        let text = self.call(&["CLUSTER", "INFO"]).ok()?.text();
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
    }
}

/// A command line that can join servers: the one beside the server program, or any that is installed.
fn tool() -> PathBuf {
    let beside = ["valkey-cli", "redis-cli"].map(|name| server_program().with_file_name(name));
    beside.into_iter().find(|tool| tool.is_file()).unwrap_or_else(|| "redis-cli".into())
}
