//! Who is looked at: a configuration, the command run on it, and leases of nodes that there are not.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fulmar_rig::{Folder, Redis, eventually};
use serde_json::Value;

/// Within what anything that is expected must come.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long the command may take, whatever hangs; the rest is for a machine that has other work.
pub const WITHIN: Duration = Duration::from_secs(10);

/// What a machine that has other work makes of any command.
const BUSY: &str = "slow-commands";

/// A configuration in a folder of its own.
pub struct Patient {
    pub folder: Folder,
    /// Further words of the command line.
    pub words: Vec<String>,
    /// All of the command's environment.
    pub environment: Vec<(&'static str, String)>,
}

/// What the command said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

impl Patient {
    /// With this configuration; `STORAGE` stands for a folder of its own.
    pub fn new(config: &str) -> Self {
        let folder = Folder::make("doctor").unwrap();
        let storage = folder.path().join("storage").display().to_string();
        std::fs::write(folder.path().join("fulmar.toml"), config.replace("STORAGE", &storage)).unwrap();
        Self { folder, words: Vec::new(), environment: Vec::new() }
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("fulmar.toml")
    }

    pub fn run(&self, words: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        // Nothing of the environment of the test run may reach the command under test.
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("doctor").args(words).args(&self.words).arg("--config").arg(self.file());
        let begun = Instant::now();
        let done = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let took = begun.elapsed();
        Said { code: done.status.code().unwrap_or(-1), out: text(done.stdout), err: text(done.stderr), took }
    }

    /// Everything that is found.
    pub fn findings(&self) -> Vec<Value> {
        let said = self.run(&["--json"]);
        let answer: Value =
            serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {} {}", said.out, said.err));
        answer["findings"].as_array().unwrap().clone()
    }

    /// Looks until exactly these ids are found, each once or more; answers the findings. A machine that has other work may need
    /// more than one look.
    pub fn await_findings(&self, expected: &[&str]) -> Vec<Value> {
        let mut expected: Vec<&str> = expected.to_vec();
        expected.sort_unstable();
        let mut last = Vec::new();
        let waited = eventually("exactly the expected is found", PATIENCE, || {
            last = self.findings();
            if !expected.contains(&BUSY) {
                last.retain(|finding| finding["id"] != BUSY);
            }
            (ids(&last) == expected).then_some(())
        });
        if waited.is_err() {
            panic!("expected {expected:?}, not {:?}:\n{last:#?}", ids(&last));
        }
        last
    }

    /// Looks until all of these are found, whatever else is.
    pub fn await_some(&self, expected: &[&str]) -> Vec<Value> {
        let mut last = Vec::new();
        let waited = eventually("all of it is found", PATIENCE, || {
            last = self.findings();
            has(&last, expected).then_some(())
        });
        assert!(waited.is_ok(), "{expected:?} are not all in {last:#?}");
        last
    }
}

/// Whether all of these are found.
pub fn has(findings: &[Value], expected: &[&str]) -> bool {
    expected.iter().all(|id| ids(findings).contains(id))
}

/// The ids, sorted, each once.
pub fn ids(findings: &[Value]) -> Vec<&str> {
    let mut ids: Vec<&str> = findings.iter().map(|finding| finding["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The finding of this id says all of these words.
pub fn says(findings: &[Value], id: &str, weight: &str, words: &[&str]) {
    let said: Vec<String> = findings
        .iter()
        .filter(|finding| finding["id"] == id && finding["weight"] == weight)
        .map(|finding| format!("{} {}", finding["what"].as_str().unwrap(), finding["fix"].as_str().unwrap()))
        .collect();
    let has_all = |text: &String| words.iter().all(|word| text.contains(word));
    assert!(said.iter().any(has_all), "no {weight} {id} says {words:?}: {said:?} in {findings:#?}");
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Something that is said to a server again and again, as a node says its lease, until it is dropped.
pub struct Again {
    over: Arc<AtomicBool>,
    saying: Option<JoinHandle<()>>,
}

impl Again {
    /// `words` makes the commands of each round.
    pub fn say(redis: &Redis, words: impl Fn(u64) -> Vec<Vec<String>> + Send + 'static) -> Self {
        let mut connection = redis.connect().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let saying = std::thread::spawn(move || {
            let mut round = 0;
            while !is_over.load(Ordering::Relaxed) {
                round += 1;
                for words in words(round) {
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    // A server that is gone ends it.
                    if connection.call(&words).is_err() {
                        return;
                    }
                }
                std::thread::sleep(Duration::from_millis(150));
            }
        });
        Self { over, saying: Some(saying) }
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(saying) = self.saying.take() {
            let _ = saying.join();
        }
    }
}

/// Words of a command that has none with spaces.
pub fn split(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
