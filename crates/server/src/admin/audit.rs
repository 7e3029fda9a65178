//! The audit log: one line of JSON for each thing somebody did or tried, appended and never changed.
//!
//! Bounded by two files. It holds names of settings, never their values: those are in the history of the app.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::reply::Failed;
use super::routes::Call;
use crate::registry::desk::Done;

/// The file, within the storage folder; the one before it has `.1` at its end.
const FILE: &str = "audit.jsonl";
/// Size at which the next file is begun.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Entries one call answers.
const ENTRIES_MAX: usize = 1_000;
/// Bytes at the end of the file that are looked through for them.
const TAIL_BYTES_MAX: u64 = 1 << 20;
/// Refused callers are written down at most once in this time, with how many they were.
const REFUSED_EVERY_MS: u64 = 1_000;

/// The log.
pub(super) struct Audit {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: Option<File>,
    refused: u64,
    refused_written_ms: u64,
}

/// Who is at it.
pub(super) struct Entry {
    pub(super) at_ms: u64,
    pub(super) who: String,
    pub(super) peer: IpAddr,
    pub(super) call: Call,
    pub(super) id: String,
}

impl Entry {
    pub(super) fn done(&self, done: &Done) -> Value {
        let mut entry = self.json("done");
        entry["revision"] = done.revision.into();
        entry["changed"] = done.changed.clone().into();
        entry
    }

    pub(super) fn replayed(&self, requests: usize) -> Value {
        let mut entry = self.json("done");
        entry["times"] = requests.into();
        entry
    }

    /// Something was done on channels. What was said there is nobody's business here.
    pub(super) fn acted(&self, channels: &[String]) -> Value {
        let mut entry = self.json("done");
        entry["channels"] = channels.into();
        entry
    }

    pub(super) fn failed(&self, failed: &Failed) -> Value {
        let mut entry = self.json("failed");
        entry["error"] = failed.to_string().into();
        entry
    }

    fn json(&self, outcome: &str) -> Value {
        let call = match self.call {
            Call::Rotate => "keys-rotate".to_owned(),
            Call::Retire => "keys-retire".to_owned(),
            call => format!("{call:?}").to_lowercase(),
        };
        json!({
            "at_ms": self.at_ms,
            "who": self.who,
            "peer": self.peer.to_string(),
            "call": call,
            "app": self.id,
            "outcome": outcome,
        })
    }
}

impl Audit {
    pub(super) fn open(folder: Option<&Path>) -> Self {
        let path = folder.map(|folder| folder.join(FILE));
        Self { path, state: Mutex::default() }
    }

    /// Appends. What cannot be written is said in the node's own log, with the entry: it is the one copy then.
    pub(super) fn write(&self, entry: &Value) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_with(&mut state, entry);
    }

    /// Somebody came without the token.
    pub(super) fn refused(&self, peer: IpAddr, at_ms: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.refused += 1;
        if at_ms.saturating_sub(state.refused_written_ms) < REFUSED_EVERY_MS {
            return;
        }
        let times = std::mem::take(&mut state.refused);
        state.refused_written_ms = at_ms;
        let entry = json!({ "at_ms": at_ms, "peer": peer.to_string(), "outcome": "no-token", "times": times });
        self.write_with(&mut state, &entry);
    }

    /// The last entries, the newest last.
    pub(super) fn last(&self, limit: usize) -> Result<Vec<Value>, Failed> {
        let path = self.path.as_ref().ok_or(Failed::NoAudit)?;
        let text = tail(path).map_err(Failed::Audit)?;
        let entries: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let skipped = entries.len().saturating_sub(limit.min(ENTRIES_MAX));
        Ok(entries.into_iter().skip(skipped).collect())
    }

    fn write_with(&self, state: &mut State, entry: &Value) {
        let Some(path) = &self.path else { return tracing::info!(%entry, "admin") };
        if let Err(error) = append(path, &mut state.file, entry) {
            state.file = None;
            tracing::error!(%error, %entry, "the audit log cannot be written");
        }
    }
}

fn append(path: &Path, file: &mut Option<File>, entry: &Value) -> io::Result<()> {
    if file.as_ref().is_some_and(|file| file.metadata().is_ok_and(|meta| meta.len() >= FILE_BYTES_MAX)) {
        std::fs::rename(path, path.with_extension("jsonl.1"))?;
        *file = None;
    }
    let open = || OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let file = match file {
        Some(file) => file,
        None => file.insert(open()?),
    };
    // One write per line: a line is there whole or not at all.
    file.write_all(format!("{entry}\n").as_bytes())
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    // The first line may begin before what was read; it then does not parse, and is left out.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
