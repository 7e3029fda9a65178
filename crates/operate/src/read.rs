//! What servers and Sentinels answer, read into facts. Pure: no question is asked here.
//!
//! What is missing or unknown is left at its default, so that an older server, or a user that may not ask for its configuration,
//! still gives the rest.

use std::collections::HashMap;
use std::time::Duration;

use fulmar_control::observed::{
    Attached, Buffers, Figures, NamedReplica, ReplicaLink, Role, SentinelView, ServerState,
};
use redis::Value;

/// Text of an answer; empty for what is none.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Okay => "OK".to_owned(),
        _ => String::new(),
    }
}

/// Parts of a list.
pub(crate) fn list(value: &Value) -> &[Value] {
    match value {
        Value::Array(parts) | Value::Set(parts) => parts,
        _ => &[],
    }
}

/// Names and values, however they are put.
pub(crate) fn fields(value: &Value) -> HashMap<String, String> {
    match value {
        Value::Map(pairs) => pairs.iter().map(|(name, value)| (text(name), text(value))).collect(),
        Value::Array(parts) => parts.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
        _ => HashMap::new(),
    }
}

/// Host and port as one address.
pub(crate) fn address(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Host and port of an address.
pub(crate) fn host_and_port(address: &str) -> (String, String) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    (host.trim_matches(['[', ']']).to_owned(), port.to_owned())
}

/// A server's answers, in the order they are asked by [`crate::watch`].
pub(crate) struct Answers<'a> {
    pub(crate) role: &'a Value,
    pub(crate) info: &'a Value,
    pub(crate) identity: &'a Value,
    pub(crate) keys: &'a Value,
    pub(crate) config: &'a [Value],
}

/// What a server says of itself; `None` when it is none.
pub(crate) fn server(answers: &Answers<'_>) -> Option<ServerState> {
    let info_text = text(answers.info);
    let info: HashMap<&str, &str> = info_text.lines().filter_map(|line| line.split_once(':')).collect();
    let number = |name: &str| info.get(name).and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or_default();
    let config: HashMap<String, String> = answers.config.iter().flat_map(fields).collect();
    let configured = |name: &str| config.get(name).and_then(|value| value.parse::<u64>().ok());
    let role = role(answers.role, &info)?;
    let offset = if matches!(role, Role::Primary(_)) { "master_repl_offset" } else { "slave_repl_offset" };
    let priority = configured("replica-priority").or_else(|| info.get("slave_priority")?.trim().parse().ok());
    let waiting = match info.contains_key("mem_total_replication_buffers") {
        true => number("mem_total_replication_buffers").saturating_sub(number("mem_replication_backlog")),
        false => number("mem_clients_slaves"),
    };
    Some(ServerState {
        run: info.get("run_id").map(|run| run.trim().to_owned())?,
        version: info.get("redis_version").map(|version| version.trim().to_owned()).unwrap_or_default(),
        role,
        offset: number(offset),
        identity: Some(text(answers.identity)).filter(|identity| !identity.is_empty()),
        keys: text(answers.keys).parse().unwrap_or_default(),
        priority: priority.and_then(|priority| u32::try_from(priority).ok()).unwrap_or(100),
        figures: Figures {
            used_bytes: number("used_memory"),
            max_bytes: number("maxmemory"),
            dataset_bytes: number("used_memory_dataset"),
            waiting_bytes: waiting,
            sent_bytes: number("total_net_output_bytes"),
            full_syncs: number("sync_full"),
            refused_partials: number("sync_partial_err"),
        },
        buffers: Buffers {
            backlog_bytes: configured("repl-backlog-size").unwrap_or_else(|| number("repl_backlog_size")),
            output_bytes_max: output_limit(config.get("client-output-buffer-limit").map_or("", String::as_str)),
        },
    })
}

fn role(answer: &Value, info: &HashMap<&str, &str>) -> Option<Role> {
    let parts: Vec<String> = list(answer).iter().map(text).collect();
    match parts.first().map(String::as_str)? {
        "master" => Some(Role::Primary(attached(info))),
        "slave" => {
            let is_syncing = info.get("master_sync_in_progress").is_some_and(|value| value.trim() == "1");
            let link = match parts.get(3).map(String::as_str) {
                Some("connected") => ReplicaLink::Connected,
                Some("sync") => ReplicaLink::Syncing,
                _ if is_syncing => ReplicaLink::Syncing,
                _ => ReplicaLink::Down,
            };
            Some(Role::Replica { of: address(parts.get(1)?, parts.get(2)?), link })
        }
        _ => None,
    }
}

/// `slave0:ip=10.0.0.2,port=6379,state=online,offset=1,lag=0`
fn attached(info: &HashMap<&str, &str>) -> Vec<Attached> {
    let is_replica =
        |name: &str| name.strip_prefix("slave").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let mut replicas: Vec<Attached> = info
        .iter()
        .filter(|(name, _)| is_replica(name))
        .filter_map(|(_, line)| {
            let parts: HashMap<&str, &str> = line.trim().split(',').filter_map(|part| part.split_once('=')).collect();
            let address = address(parts.get("ip")?, parts.get("port")?);
            Some(Attached { address, is_online: parts.get("state") == Some(&"online") })
        })
        .collect();
    replicas.sort_by(|one, other| one.address.cmp(&other.address));
    replicas
}

/// The hard limit for replicas in `normal 0 0 0 slave 268435456 67108864 60 pubsub ...`.
fn output_limit(text: &str) -> u64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    let of_replicas = words.windows(2).find(|pair| pair[0] == "slave" || pair[0] == "replica");
    of_replicas.and_then(|pair| pair[1].parse().ok()).unwrap_or_default()
}

/// What a Sentinel says; `None` when it does not know the group.
pub(crate) fn sentinel(named: &Value, primary: &Value, replicas: &Value, info: &Value) -> Option<SentinelView> {
    let named: Vec<String> = list(named).iter().map(text).collect();
    let [host, port] = named.as_slice() else { return None };
    let about = fields(primary);
    let number = |name: &str| about.get(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or_default();
    let small = |name: &str| usize::try_from(number(name)).unwrap_or_default();
    let flags: Vec<&str> = about.get("flags").map(|flags| flags.split(',').collect()).unwrap_or_default();
    Some(SentinelView {
        primary: address(host, port),
        epoch: number("config-epoch"),
        replicas: list(replicas).iter().filter_map(|replica| named_replica(&fields(replica))).collect(),
        others: small("num-other-sentinels"),
        quorum: small("quorum"),
        is_primary_up: !flags.iter().any(|flag| matches!(*flag, "s_down" | "o_down" | "disconnected")),
        is_failing_over: flags.contains(&"failover_in_progress"),
        tilted_for: tilted_for(&text(info)),
        down_after: Duration::from_millis(number("down-after-milliseconds")),
        failover_timeout: Duration::from_millis(number("failover-timeout")),
        parallel_syncs: small("parallel-syncs"),
    })
}

/// Since when is told from Redis 7 on, whether by all.
fn tilted_for(info: &str) -> Option<Duration> {
    let number = |name: &str| {
        let said = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        said.and_then(|value| value.trim().parse::<u64>().ok())
    };
    (number("sentinel_tilt")? > 0)
        .then(|| Duration::from_secs(number("sentinel_tilt_since_seconds").unwrap_or_default()))
}

fn named_replica(about: &HashMap<String, String>) -> Option<NamedReplica> {
    let flags: Vec<&str> = about.get("flags")?.split(',').collect();
    let is_reached = !flags.iter().any(|flag| matches!(*flag, "s_down" | "o_down" | "disconnected"));
    Some(NamedReplica {
        address: address(about.get("ip")?, about.get("port")?),
        priority: about.get("slave-priority").and_then(|value| value.parse().ok()).unwrap_or(100),
        is_up: is_reached && about.get("master-link-status").is_some_and(|status| status == "ok"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    /// OP-1
    #[test]
    fn a_primary_is_read_with_its_replicas_that_are_online_and_those_that_are_not() {
        let info = "run_id:abc\r\nredis_version:7.0.15\r\nmaster_repl_offset:900\r\nused_memory:5000\r\nmaxmemory:0\r\n\
                    slave0:ip=10.0.0.2,port=6379,state=online,offset=880,lag=0\r\n\
                    slave1:ip=fd00::3,port=6379,state=wait_bgsave,offset=0,lag=0\r\nslave_priority:100\r\n\
                    mem_total_replication_buffers:3000\r\nmem_replication_backlog:1000\r\nsync_full:2\r\n";
        let config = [
            Value::Array(vec![bulk("replica-priority"), bulk("7")]),
            Value::Map(vec![(
                bulk("client-output-buffer-limit"),
                bulk("normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"),
            )]),
        ];
        let state = server(&Answers {
            role: &Value::Array(vec![bulk("master"), Value::Int(900), Value::Array(Vec::new())]),
            info: &bulk(info),
            identity: &bulk("fulmar/g1"),
            keys: &Value::Int(3),
            config: &config,
        })
        .unwrap();
        assert_eq!(state.online().collect::<Vec<_>>(), ["10.0.0.2:6379"]);
        let Role::Primary(attached) = &state.role else { panic!("it is a primary") };
        assert_eq!(attached[1].address, "[fd00::3]:6379");
        assert_eq!((state.offset, state.priority, state.keys), (900, 7, 3));
        assert_eq!((state.figures.waiting_bytes, state.figures.full_syncs), (2_000, 2));
        assert_eq!(state.buffers.output_bytes_max, 268_435_456);
        assert_eq!(state.identity.as_deref(), Some("fulmar/g1"));
    }

    /// OP-21
    #[test]
    fn a_sentinel_says_that_it_is_in_tilt_and_an_old_one_not_for_how_long() {
        let check = |info: &str, expected: Option<u64>| {
            assert_eq!(tilted_for(info), expected.map(Duration::from_secs), "{info}");
        };
        check("# Sentinel\r\nsentinel_tilt:0\r\nsentinel_tilt_since_seconds:-1\r\n", None);
        check("# Sentinel\r\nsentinel_tilt:1\r\nsentinel_tilt_since_seconds:12\r\n", Some(12));
        check("sentinel_masters:1\r\nsentinel_tilt:1\r\n", Some(0));
        check("", None);
    }

    /// OP-1
    #[test]
    fn a_replica_answers_for_itself_and_less_than_everything_is_enough() {
        let parts = |state: &str| {
            let words = ["slave", "10.0.0.1", "6379", state].map(bulk);
            Value::Array(words.into_iter().chain([Value::Int(5)]).collect())
        };
        let read = |role: &Value, info: &str| {
            let denied = Value::Nil;
            server(&Answers { role, info: &bulk(info), identity: &denied, keys: &denied, config: &[] })
        };
        let state = read(&parts("connected"), "run_id:b\r\nslave_repl_offset:70\r\nslave_priority:10\r\n").unwrap();
        assert_eq!(state.role, Role::Replica { of: "10.0.0.1:6379".to_owned(), link: ReplicaLink::Connected });
        assert_eq!((state.offset, state.priority, state.identity), (70, 10, None));
        let state = read(&parts("connect"), "run_id:b\r\nmaster_sync_in_progress:1\r\n").unwrap();
        assert_eq!(state.role, Role::Replica { of: "10.0.0.1:6379".to_owned(), link: ReplicaLink::Syncing });
        assert!(read(&Value::Array(vec![bulk("sentinel")]), "run_id:c\r\n").is_none(), "a Sentinel is no server");
    }
}
