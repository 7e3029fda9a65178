//! Two pairs of eyes on a running day: one reads what nodes write, the other asks nodes and Redis for figures once a second.
//!
//! Neither changes anything. A server that hangs costs the second pair a fifth of a second, and its figures are missing then,
//! which is what a real watcher sees.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fulmar_rig::{Node, Resp, http};
use serde_json::Value;

use super::timeline::{Timeline, Voice};
use super::trace::Trace;
use crate::faults::stage::Stage;

const LOOK: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_millis(200);
/// The same line of the same node is shown again after this.
const AGAIN: Duration = Duration::from_secs(10);
/// Lines of a node that are shown; the rest are counted.
const LINES_MAX: usize = 60;

/// Who is watched.
#[derive(Debug, Default)]
struct Watched {
    nodes: Vec<(String, PathBuf, PathBuf)>,
    servers: Vec<(String, usize, SocketAddr)>,
}

/// The eyes. Dropping them closes them.
#[derive(Debug)]
pub struct Watch {
    watched: Arc<Mutex<Watched>>,
    trace: Arc<Mutex<Trace>>,
    is_over: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Nobody is watched yet.
    pub fn start(timeline: &Timeline) -> Self {
        let (watched, trace) = (Arc::<Mutex<Watched>>::default(), Arc::<Mutex<Trace>>::default());
        let is_over = Arc::new(AtomicBool::new(false));
        let (of_logs, ended, timeline) = (Arc::clone(&watched), Arc::clone(&is_over), timeline.clone());
        let reads = thread::spawn(move || read_logs(&of_logs, &ended, &timeline));
        let (of_figures, ended, kept) = (Arc::clone(&watched), Arc::clone(&is_over), Arc::clone(&trace));
        let asks = thread::spawn(move || take_figures(&of_figures, &ended, &kept));
        Self { watched, trace, is_over, workers: vec![reads, asks] }
    }

    /// A node of its own, beside those of the stage.
    pub fn add_node(&self, name: &str, node: &Node) {
        let mut watched = lock(&self.watched);
        if !watched.nodes.iter().any(|(_, log, _)| *log == node.log_file()) {
            watched.nodes.push((name.to_owned(), node.log_file(), node.storage()));
        }
    }

    /// All servers of the stage, and its nodes.
    pub fn add_stage(&self, stage: &Stage) {
        for (number, node) in stage.nodes.iter().enumerate() {
            self.add_node(&format!("node {number}"), node);
        }
        let deployment = stage.deployment();
        let mut servers = Vec::new();
        for group in deployment.names().into_iter().filter_map(|name| deployment.group(name).ok()) {
            let addrs = group.servers.iter().map(|server| server.redis.addr()).enumerate();
            servers.extend(addrs.map(|(number, addr)| (group.name.clone(), number, addr)));
        }
        lock(&self.watched).servers = servers;
    }

    /// Closes the eyes; answers the figures.
    pub fn end(mut self) -> Trace {
        self.is_over.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        lock(&self.trace).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One log as far as it has been read.
#[derive(Default)]
struct Reader {
    read_bytes: u64,
    rest: String,
    shown: usize,
    before: HashMap<String, Instant>,
}

fn read_logs(watched: &Mutex<Watched>, is_over: &AtomicBool, timeline: &Timeline) {
    let mut readers: HashMap<PathBuf, Reader> = HashMap::new();
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        let nodes: Vec<_> = lock(watched).nodes.iter().map(|(name, log, _)| (name.clone(), log.clone())).collect();
        for (name, log) in nodes {
            readers.entry(log.clone()).or_default().read(&name, &log, timeline);
        }
        if is_last {
            return;
        }
        thread::sleep(LOOK);
    }
}

impl Reader {
    fn read(&mut self, name: &str, log: &PathBuf, timeline: &Timeline) {
        // A log that is gone belongs to a node that is gone.
        let Ok(mut file) = File::open(log) else { return };
        let mut fresh = Vec::new();
        if file.seek(SeekFrom::Start(self.read_bytes)).is_err() || file.read_to_end(&mut fresh).is_err() {
            return;
        }
        self.read_bytes += fresh.len() as u64;
        self.rest.push_str(&String::from_utf8_lossy(&fresh));
        while let Some(end) = self.rest.find('\n') {
            let line: String = self.rest.drain(..=end).collect();
            let Some(words) = spoken(&line) else { continue };
            let is_news = self.before.get(&words).is_none_or(|before| before.elapsed() > AGAIN);
            if is_news && self.shown < LINES_MAX {
                self.shown += 1;
                timeline.say(Voice::Node, format!("{name}: {words}"));
                self.before.insert(words, Instant::now());
            }
        }
    }
}

/// What a line of a log says, without its time; nothing for lines of the start and of everyday life.
pub fn spoken(line: &str) -> Option<String> {
    let mut plain = String::new();
    let mut is_colour = false;
    for c in line.trim_end().chars() {
        match c {
            '\u{1b}' => is_colour = true,
            'm' if is_colour => is_colour = false,
            c if !is_colour => plain.push(c),
            _ => {}
        }
    }
    let words: Vec<_> = plain.split_whitespace().collect();
    let level = words.iter().take(3).position(|word| ["INFO", "WARN", "ERROR"].contains(word));
    let said = match level {
        Some(at) if words[at] == "INFO" => {
            let said = words[at + 1..].join(" ");
            let is_news = ["following", "primary alone again", "going away", "ended", "told to end", "joins anew"];
            return is_news.iter().any(|news| said.contains(news)).then_some(said);
        }
        Some(at) => format!("{}: {}", words[at].to_lowercase(), words[at + 1..].join(" ")),
        None if plain.contains("panicked") || plain.starts_with("warning:") || plain.starts_with("error:") => plain,
        None => return None,
    };
    Some(said)
}

fn take_figures(watched: &Mutex<Watched>, is_over: &AtomicBool, trace: &Mutex<Trace>) {
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let (nodes, servers) = {
            let watched = lock(watched);
            (watched.nodes.clone(), watched.servers.clone())
        };
        let mut values = Vec::new();
        for (name, _, storage) in nodes {
            let answer = http::ask_admin(&storage, "/admin/v1/backbone", PATIENCE);
            of_node(&name, &answer.map_or(Value::Null, |answer| answer.json()), &mut values);
        }
        for (group, number, addr) in servers {
            let info = Resp::connect(addr, PATIENCE).and_then(|mut redis| redis.call(&["INFO"]));
            if let Ok(info) = info {
                of_server(&format!("{{group=\"{group}\",server=\"{number}\"}}"), &info.text(), &mut values);
            }
        }
        lock(trace).add(values);
        while begun.elapsed() < SECOND && !is_over.load(Ordering::Relaxed) {
            thread::sleep(LOOK.min(SECOND.saturating_sub(begun.elapsed())));
        }
    }
}

/// What a node says of itself.
fn of_node(name: &str, said: &Value, values: &mut Vec<(String, i64)>) {
    let node = name.replace("node ", "");
    values.push((format!("up{{node=\"{node}\"}}"), i64::from(!said.is_null())));
    for field in ["accepted", "refused", "timed_out", "without_replica", "repeats"] {
        let value = said[field].as_i64();
        values.extend(value.map(|value| (format!("fulmar_publish_{field}{{node=\"{node}\"}}"), value)));
    }
    for group in said["groups"].as_array().into_iter().flatten() {
        let labels = format!("{{node=\"{node}\",group=\"{}\"}}", group["name"].as_str().unwrap_or_default());
        for field in ["is_here", "hears", "epoch", "over_the_bus", "circuit_openings", "unlogged_bytes", "filled"] {
            let value = group[field].as_i64().or_else(|| group[field].as_bool().map(i64::from));
            values.extend(value.map(|value| (format!("fulmar_group_{field}{labels}"), value)));
        }
    }
}

/// What a Redis server says of itself.
fn of_server(labels: &str, info: &str, values: &mut Vec<(String, i64)>) {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let number = |name: &str| field(name).and_then(|text| text.parse::<i64>().ok());
    let is_primary = field("role") == Some("master");
    values.push((format!("redis_is_primary{labels}"), i64::from(is_primary)));
    values.extend(number("used_memory").map(|bytes| (format!("redis_used_memory_bytes{labels}"), bytes >> 10 << 10)));
    if !is_primary {
        let is_up = field("master_link_status") == Some("up");
        values.push((format!("redis_link_up{labels}"), i64::from(is_up)));
        return;
    }
    let replicas = || info.lines().filter(|line| line.starts_with("slave") && line.contains("state="));
    let online = replicas().filter(|line| line.contains("state=online")).count();
    let ahead = number("master_repl_offset").unwrap_or(0);
    let offset = |line: &str| line.split("offset=").nth(1)?.split(',').next()?.parse::<i64>().ok();
    let online_lines = replicas().filter(|line| line.contains("state=online"));
    let behind = online_lines.filter_map(offset).map(|offset| ahead - offset).max().unwrap_or(0);
    let buffers = number("mem_total_replication_buffers").unwrap_or(0) - number("mem_replication_backlog").unwrap_or(0);
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    for (name, value) in [
        ("redis_replicas_connected", count(replicas().count())),
        ("redis_replicas_online", count(online)),
        ("redis_replica_behind_bytes", behind),
        ("redis_replica_buffer_bytes", buffers.max(0)),
        ("redis_full_syncs_total", number("sync_full").unwrap_or(0)),
        ("redis_partial_sync_errors_total", number("sync_partial_err").unwrap_or(0)),
        ("redis_output_bytes_total", number("total_net_output_bytes").unwrap_or(0)),
        ("redis_offset_bytes", ahead),
    ] {
        values.push((format!("{name}{labels}"), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_what_matters_is_shown_without_colours_and_times() {
        let line = "\u{1b}[2m2026-11-29T15:00:00.1Z\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m the group is away group=\"g1\"\n";
        assert_eq!(spoken(line).as_deref(), Some("warn: the group is away group=\"g1\""));
        assert_eq!(spoken("2026-11-29T15:00:00Z  INFO listening address=1"), None);
        assert_eq!(spoken("node 1 listens"), None);
    }

    #[test]
    fn replicas_that_are_not_online_are_told_apart() {
        let info = "role:master\r\nmaster_repl_offset:100\r\nslave0:ip=a,state=online,offset=90,lag=0\r\n\
                    slave1:ip=a,state=wait_bgsave,offset=0,lag=0\r\nsync_full:4\r\n";
        let mut values = Vec::new();
        of_server("{}", info, &mut values);
        let value = |name: &str| values.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        assert_eq!(value("redis_replicas_connected{}"), Some(2));
        assert_eq!(value("redis_replicas_online{}"), Some(1));
        assert_eq!(value("redis_replica_behind_bytes{}"), Some(10));
        assert_eq!(value("redis_full_syncs_total{}"), Some(4));
    }
}
