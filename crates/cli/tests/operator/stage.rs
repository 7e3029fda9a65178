//! A group with its Sentinels, and the binary run against it.

use std::process::{Command, Stdio};
use std::time::Duration;

use fulmar_rig::{Folder, SentinelDeployment, SentinelOptions, is_available};
use serde_json::Value;

/// Within what anything that is expected must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A deployment, and a folder in which the verbs keep their log.
pub struct Stage {
    pub redis: SentinelDeployment,
    pub folder: Folder,
    config: String,
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
        Self::set_with(replicas, capacity, &SentinelOptions::default())
    }

    pub fn set_with(replicas: usize, capacity: &str, options: &SentinelOptions) -> Option<Self> {
        if !is_available() {
            return None;
        }
        let redis = SentinelDeployment::start(&[("g1", replicas)], 3, options).unwrap();
        let folder = Folder::make("operator").unwrap();
        let sentinels: Vec<String> =
            redis.sentinels().iter().map(|sentinel| format!("{:?}", sentinel.redis.addr().to_string())).collect();
        let config = format!(
            "[storage]\npath = {:?}\n[backbone]\nkind = \"redis\"\nsentinels = [{}]\ngroups = [\"g1\"]\n{capacity}",
            folder.path().display().to_string(),
            sentinels.join(", ")
        );
        let stage = Self { redis, folder, config };
        std::fs::write(stage.file(), &stage.config).unwrap();
        // The identity that nodes write when they first meet the group.
        let primary = stage.redis.primary_of("g1").unwrap();
        primary.redis.call(&["HSET", "fulmar:group", "id", "fulmar/g1", "epoch", "1"]).unwrap();
        Some(stage)
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

    pub fn primary(&self) -> String {
        self.redis.primary_of("g1").unwrap().addr().to_string()
    }
}
