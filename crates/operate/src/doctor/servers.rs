//! One server: its figures, its settings, its clock, what it was slow at, and the disk it writes to.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use fulmar_backbone::redis::settings::Settings;
use fulmar_control::doctor::SLOW_MS;
use fulmar_control::doctor::facts::{ClockFact, Disk, ServerFacts, SlowCommand};
use redis::{Cmd, Value, cmd};

use super::data::{refusals, unix_ms};
use super::files;
use crate::doors::{Doors, Kind};
use crate::read::{list, text};

/// Settings that are asked for; none of them is a secret.
const SETTINGS: [&str; 20] = [
    "appendfsync",
    "busy-reply-threshold",
    "client-output-buffer-limit",
    "cluster-node-timeout",
    "cluster-require-full-coverage",
    "dir",
    "lua-time-limit",
    "maxclients",
    "maxmemory-clients",
    "maxmemory-policy",
    "min-replicas-max-lag",
    "min-replicas-to-write",
    "repl-backlog-size",
    "replica-priority",
    "replica-read-only",
    "save",
    "slowlog-log-slower-than",
    "stop-writes-on-bgsave-error",
    "tcp-keepalive",
    "timeout",
];
/// Slow commands that are looked at.
const SLOW_COMMANDS_MAX: usize = 128;
/// How long ago they may have been.
const SLOW_WITHIN_S: u64 = 3_600;

/// Asks a server everything, and answers it with the number of connections that listen on its bus.
pub(super) async fn look(doors: &Doors, settings: &Settings, address: &str) -> (ServerFacts, u64) {
    let mut facts = ServerFacts { address: address.to_owned(), ..ServerFacts::default() };
    let bus = settings.keys("").bus(address);
    let mut commands = vec![words_of("INFO everything"), words_of("CLUSTER INFO"), words_of("PUBSUB NUMSUB")];
    commands[2].arg(bus);
    commands.push(cmd("SLOWLOG"));
    commands[3].arg("GET").arg(SLOW_COMMANDS_MAX);
    commands.extend(SETTINGS.map(|name| words_of(&format!("CONFIG GET {name}"))));
    let answers = match doors.ask_all(Kind::Server, address, &commands).await {
        Ok(answers) => answers,
        Err(error) => {
            facts.refused.push(error.to_string());
            return (facts, 0);
        }
    };
    let [info, of_redis_cluster, listeners, slow, settings @ ..] = answers.as_slice() else { return (facts, 0) };
    facts.refused = refusals([info, listeners, slow].into_iter().chain(settings));
    facts.info = lines(&text(info));
    facts.info.extend(lines(&text(of_redis_cluster)));
    facts.settings = settings.iter().flat_map(crate::read::fields).collect();
    facts.clock = clock(doors, address).await;
    let now_s = unix_ms().saturating_add_signed(facts.clock.map(|clock| clock.ahead_ms).unwrap_or_default()) / 1_000;
    facts.slow = list(slow).iter().filter_map(|entry| slow_command(entry, now_s)).collect();
    facts.disk = disk(&facts);
    let listeners = list(listeners).get(1).map(text).and_then(|count| count.parse().ok()).unwrap_or_default();
    (facts, listeners)
}

fn words_of(text: &str) -> Cmd {
    let mut parts = text.split(' ');
    let mut command = cmd(parts.next().unwrap_or_default());
    parts.for_each(|part| {
        command.arg(part);
    });
    command
}

fn lines(text: &str) -> BTreeMap<String, String> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// Its clock beside ours, by one question on a connection that stands.
async fn clock(doors: &Doors, address: &str) -> Option<ClockFact> {
    let (asked_at, begun) = (unix_ms(), Instant::now());
    let answer = doors.ask(Kind::Server, address, &cmd("TIME")).await.ok()?;
    let took = u64::try_from(begun.elapsed().as_millis()).ok()?;
    let [seconds, micros] = list(&answer) else { return None };
    let its = text(seconds).parse::<i64>().ok()?.checked_mul(1_000)? + text(micros).parse::<i64>().ok()? / 1_000;
    let ours = i64::try_from(asked_at + took / 2).ok()?;
    Some(ClockFact { ahead_ms: its - ours, error_ms: took / 2 + 1 })
}

fn slow_command(entry: &Value, now_s: u64) -> Option<SlowCommand> {
    let [_, at, micros, arguments, ..] = list(entry) else { return None };
    let took = Duration::from_micros(text(micros).parse().ok()?);
    let is_recent = now_s.saturating_sub(text(at).parse().ok()?) <= SLOW_WITHIN_S;
    let name = text(list(arguments).first()?).to_uppercase();
    (is_recent && took >= Duration::from_millis(SLOW_MS)).then_some(SlowCommand { name, took })
}

/// The disk that its folder is on, if it runs on this machine: by its address, and by its process.
fn disk(facts: &ServerFacts) -> Option<Disk> {
    let host: IpAddr = facts.address.rsplit_once(':')?.0.trim_matches(['[', ']']).parse().ok()?;
    // An address of ours is one that can be bound.
    UdpSocket::bind((host, 0)).ok()?;
    let process = files::name_of_process(facts.figure("process_id")?)?;
    let is_server = ["redis", "valkey", "keydb"].iter().any(|name| process.starts_with(name));
    if !is_server {
        return None;
    }
    files::disk(std::path::Path::new(facts.setting("dir")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DOC-15
    #[test]
    fn only_commands_of_the_last_hour_that_held_others_up_are_slow() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let entry = |at, micros| {
            let arguments = Value::Array(vec![bulk("keys"), bulk("*")]);
            Value::Array(vec![Value::Int(7), Value::Int(at), Value::Int(micros), arguments, bulk("a:1"), bulk("")])
        };
        let found = slow_command(&entry(9_000, 100_000), 10_000).unwrap();
        assert_eq!((found.name.as_str(), found.took), ("KEYS", Duration::from_millis(100)));
        assert_eq!(slow_command(&entry(9_000, 99_999), 10_000), None);
        assert_eq!(slow_command(&entry(9_000, 100_000), 20_000), None);
        assert_eq!(slow_command(&Value::Nil, 10_000), None);
    }

    /// DOC-15
    #[test]
    fn a_server_that_is_not_on_this_machine_has_no_disk_here() {
        let facts = |address: &str, pid: u32| {
            let mut facts = ServerFacts { address: address.to_owned(), ..ServerFacts::default() };
            facts.info.insert("process_id".to_owned(), pid.to_string());
            facts.settings.insert("dir".to_owned(), "/".to_owned());
            facts
        };
        assert_eq!(disk(&facts("127.0.0.1:1", std::process::id())), None, "that process is no server of that kind");
        assert_eq!(disk(&facts("192.0.2.1:1", 1)), None, "that address is not ours");
        assert!(files::disk(std::path::Path::new("/")).is_some_and(|disk| disk.total_bytes > 0));
    }
}
