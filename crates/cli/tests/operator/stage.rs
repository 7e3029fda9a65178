//! A group with its Sentinels, and the binary run against it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use fulmar_rig::{Folder, Node, Ready, Redis, RedisOptions, SentinelDeployment, SentinelOptions, is_available};
use serde_json::Value;

/// Within what anything that is expected must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A deployment, and a folder in which the verbs keep their log.
pub struct Stage {
    pub redis: SentinelDeployment,
    pub folder: Folder,
    config: String,
}

/// A verb that runs.
pub struct Running {
    pub process: Child,
    err: BufReader<ChildStderr>,
}

impl Running {
    /// Waits until it says something with this in it.
    pub fn await_words(&mut self, words: &str) {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(self.err.read_line(&mut line).unwrap() > 0, "it ended before it said {words:?}");
        }
    }

    /// Its exit code and what it printed.
    pub fn end(mut self) -> Ended {
        let mut err = String::new();
        self.err.read_to_string(&mut err).unwrap();
        let done = self.process.wait_with_output().unwrap();
        Ended { code: done.status.code().unwrap_or(-1), out: String::from_utf8(done.stdout).unwrap(), err }
    }
}

/// How a verb ended.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Its one JSON object.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {:?} {:?}", self.out, self.err))
    }
}

impl Stage {
    /// One group `g1` of a primary and so many replicas, three Sentinels; `None` where there is no server program.
    pub fn set(replicas: usize, capacity: &str) -> Option<Self> {
        Self::set_with(replicas, capacity, None)
    }

    /// The same with a password on servers and Sentinels.
    pub fn set_with(replicas: usize, capacity: &str, password: Option<&str>) -> Option<Self> {
        Self::set_groups(&[("g1", replicas)], capacity, password)
    }

    /// The same with further groups beside `g1`, which is the one that is configured: Sentinels watch them, and no node has met
    /// them.
    pub fn set_groups(groups: &[(&str, usize)], capacity: &str, password: Option<&str>) -> Option<Self> {
        if !is_available() {
            return None;
        }
        // On a busy machine a healthy server may be silent for a second or two, and Sentinels must not interfere.
        let owned = || password.map(str::to_owned);
        let redis = RedisOptions { password: owned(), ..RedisOptions::default() };
        let options = SentinelOptions { down_after_ms: 5_000, redis, password: owned(), ..SentinelOptions::default() };
        let redis = SentinelDeployment::start(groups, 3, &options).unwrap();
        let folder = Folder::make("operator").unwrap();
        let sentinels: Vec<String> =
            redis.sentinels().iter().map(|sentinel| format!("{:?}", sentinel.redis.addr().to_string())).collect();
        let secrets = password.map(|password| format!("password = {password:?}\nsentinel_password = {password:?}\n"));
        let capacity = secrets.unwrap_or_default() + capacity;
        let config = format!(
            "[storage]\npath = {:?}\n[backbone]\nkind = \"redis\"\nsentinels = [{}]\ngroups = [\"g1\"]\n{capacity}",
            folder.path().display().to_string(),
            sentinels.join(", ")
        );
        let stage = Self { redis, folder, config };
        std::fs::write(stage.file(), &stage.config).unwrap();
        // The identity that nodes write when they first meet the group.
        let primary = stage.redis.primary_of("g1").unwrap();
        primary.redis.call(&["HSET", "fulmar:group", "id", "fulmar/g1", "epoch", "1", "groups", "g1"]).unwrap();
        Some(stage)
    }

    /// The Sentinels' addresses, as a flag takes them.
    pub fn sentinels(&self) -> String {
        let addresses = self.redis.sentinels().iter().map(|sentinel| sentinel.redis.addr().to_string());
        addresses.collect::<Vec<_>>().join(",")
    }

    /// A node with this configuration.
    pub fn node(&self) -> Node {
        // It keeps what it keeps in a folder of its own.
        let (_, config) = self.config.split_once("[backbone]").unwrap();
        let config = format!("[backbone]{config}[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n");
        Node::start(Path::new(env!("CARGO_BIN_EXE_fulmar")), &config, Ready::ForTraffic).unwrap()
    }

    pub fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("fulmar.toml")
    }

    /// The verb's process, to be started by whoever wants it otherwise than at once.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        command.env_clear().args(words).arg("--config").arg(self.file());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, words: &[&str]) -> Ended {
        let done = self.command(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ended { code: done.status.code().unwrap_or(-1), out: text(done.stdout), err: text(done.stderr) }
    }

    /// A server of nobody's, with the settings of the others.
    pub fn newcomer(&self) -> fulmar_rig::Redis {
        let options = RedisOptions::default().line("min-replicas-to-write 1").line("min-replicas-max-lag 2");
        fulmar_rig::Redis::start(&options).unwrap()
    }

    /// A server that takes writes alone and has the data of another group.
    pub fn stranger(&self) -> fulmar_rig::Redis {
        let stranger = self.newcomer();
        stranger.call(&["CONFIG", "SET", "min-replicas-to-write", "0"]).unwrap();
        stranger.call(&["HSET", "fulmar:group", "id", "fulmar/g2"]).unwrap();
        stranger
    }

    /// Sentinels look at servers every ten seconds; here three times a second, so that nobody waits for them.
    pub fn hurry(&self) {
        for sentinel in self.redis.sentinels() {
            let words = ["SENTINEL", "DEBUG", "info-period", "300", "publish-period", "300"];
            // One that does not know the command only takes longer.
            let _ = sentinel.redis.call(&words);
        }
    }

    /// The servers of the group that run.
    pub fn servers(&self) -> impl Iterator<Item = &Redis> {
        self.redis.group("g1").unwrap().servers.iter().map(|server| &server.redis).filter(|redis| redis.is_running())
    }

    /// A write that some server of the group took, and which.
    pub fn write(&self, name: &str, value: &str) -> Option<SocketAddr> {
        self.servers().find(|redis| redis.call(&["SET", name, value]).is_ok()).map(Redis::addr)
    }

    /// What was written down of the verbs.
    pub fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("audit.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs a verb and hears what it says of its progress, line by line.
    pub fn begin(&self, words: &[&str]) -> Running {
        let mut process = self.command(words).spawn().unwrap();
        let err = BufReader::new(process.stderr.take().unwrap());
        Running { process, err }
    }

    pub fn primary(&self) -> String {
        self.redis.primary_of("g1").unwrap().addr().to_string()
    }
}
