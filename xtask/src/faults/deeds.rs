//! What is done to a stage under load, one function a fault.
//!
//! Each waits for a moment that the seed chooses, does its deed, and goes on until the last consequence of it is past: a stray
//! primary takes writes for eleven seconds after a planned failover.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use fulmar_rig::http::Rest;
use fulmar_rig::{LaneSpec, Link, Ready, Redis, Seat, Server};

use super::isolation::Bystanders;
use super::stage::{Done, GROUPS, Stage, app, failure};
use crate::project::Failure;

/// In the ledger: publishers that try again elsewhere, so that no node excuses what they are not answered.
const NO_NODE: usize = usize::MAX;
/// Until nodes have found a server that was away, and publishers have heard so.
const FOUND_AGAIN: Duration = Duration::from_secs(2);

/// Nodes, then subscribers, then publishers.
pub fn begin(stage: &mut Stage) -> Done {
    stage.start_nodes(Ready::ForTraffic)?;
    stage.begin_load()
}

/// Nothing yet: the deed itself starts nodes, and brings what they serve.
pub fn begin_later(_stage: &mut Stage) -> Done {
    Ok(())
}

/// Nodes live and refuse in clear words while Redis is down; it comes, and all is well.
pub fn begin_before_redis(stage: &mut Stage) -> Done {
    stage.single().kill();
    stage.start_nodes(Ready::Alive)?;
    // Side by side: each waits as long as a publisher does.
    let ask = |addr| {
        let begun = Instant::now();
        (Rest::new(addr, &app()).publish("early", "x"), begun.elapsed())
    };
    let addrs = stage.addrs();
    let answers: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = addrs.iter().map(|addr| scope.spawn(move || ask(*addr))).collect();
        asked.into_iter().map(|asked| asked.join().expect("asking does not panic")).collect()
    });
    for (answer, took) in answers {
        let answer = answer.map_err(failure)?;
        if answer.status != 503 || !answer.has_retry_after || took > Duration::from_secs(4) {
            stage.wrong(format!("without Redis a publish was answered {answer:?} after {took:?}"));
        }
    }
    stage.go_on(5, 2)?;
    stage.single().restart().map_err(failure)?;
    let begun = Instant::now();
    for node in &stage.nodes {
        node.await_ready(Ready::ForTraffic, Duration::from_secs(30)).map_err(failure)?;
    }
    stage.note(format!("ready {} ms after Redis", begun.elapsed().as_millis()));
    stage.begin_load()
}

/// Nothing at all.
pub fn nothing(stage: &mut Stage) -> Done {
    stage.settle()?;
    stage.go_on(10, 4)
}

/// Subscribers behind a wire that swallows what it should carry.
pub fn lossy_wire(stage: &mut Stage) -> Done {
    stage.settle()?;
    let wire = Link::to(stage.nodes[0].addr()).map_err(failure)?;
    let (addr, before) = (wire.addr(), stage.load().live());
    for channel in 0..20 {
        stage.load().add_subscriber(Seat { addr, node: 0, channel });
    }
    stage.load().await_subscribed(before + 20).map_err(failure)?;
    wire.lose_one_in(10);
    stage.links.push(wire);
    stage.go_on(4, 4)
}

/// SIGKILL; later the old primary comes back as a replica.
pub fn kill_primary(stage: &mut Stage) -> Done {
    stage.settle()?;
    let group = stage.any_group();
    let port = stage.primary(group)?.redis.port();
    server_at(stage, port)?.kill();
    stage.note(format!("killed the primary of {group}"));
    stage.go_on(14, 8)?;
    server_at(stage, port)?.restart().map_err(failure)?;
    stage.go_on(14, 3)
}

/// It hangs for five seconds with all its sockets open, then believes itself primary beside its successor.
pub fn hang_primary(stage: &mut Stage) -> Done {
    stage.settle()?;
    let group = stage.any_group();
    let port = stage.primary(group)?.redis.port();
    server_at(stage, port)?.stop();
    stage.note(format!("stopped the primary of {group}"));
    let waited = stage.wait(Duration::from_secs(5));
    server_at(stage, port)?.resume();
    waited?;
    stage.go_on(18, 8)
}

/// The replicas fall behind, then the primary's host is gone without a word.
pub fn lagging_replica(stage: &mut Stage) -> Done {
    lose_lagging_host(stage).map(|_| ())
}

/// The same, and answers the port of the server that is gone.
pub fn lose_lagging_host(stage: &mut Stage) -> Result<u16, Failure> {
    stage.settle()?;
    let group = stage.any_group();
    let primary = stage.primary(group)?;
    let link = primary.link.as_ref().ok_or_else(|| Failure("the case says that there are links".to_owned()))?;
    link.limit_replication(if stage.is_quick { 30_000 } else { 150_000 });
    stage.wait(Duration::from_secs(3))?;
    let primary = stage.primary(group)?;
    let (port, lag_bytes) = (primary.redis.port(), lag_bytes(stage, primary, group)?);
    primary.link.iter().for_each(Link::fall_silent);
    primary.redis.kill();
    stage.note(format!("lost the host of {group}'s primary; its replicas were {lag_bytes} bytes behind"));
    if lag_bytes < 20_000 {
        stage.wrong("the replication links were not saturated: nothing was tried".to_owned());
    }
    stage.go_on(20, 10)?;
    Ok(port)
}

/// How far the best replica of a group is behind.
pub fn lag_bytes(stage: &Stage, primary: &Server, group: &str) -> Result<u64, Failure> {
    let offset = |redis: &Redis, name: &str| -> Result<u64, Failure> {
        let text = redis.info("replication", name).map_err(failure)?;
        Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
    };
    let ahead = offset(&primary.redis, "master_repl_offset")?;
    let mut behind = u64::MAX;
    for replica in stage.deployment().replicas_of(group).map_err(failure)? {
        behind = behind.min(ahead.saturating_sub(offset(&replica.redis, "slave_repl_offset")?));
    }
    Ok(behind)
}

/// As an operator's hand does it.
pub fn planned_failover(stage: &mut Stage) -> Done {
    stage.settle()?;
    let group = stage.any_group();
    stage.deployment().failover(group).map_err(failure)?;
    stage.note(format!("failed {group} over"));
    stage.go_on(18, 14)
}

/// All Sentinels lie, and connections are ended so that the lie is heard.
pub fn wrong_sentinels(stage: &mut Stage) -> Done {
    stage.settle()?;
    let right = stage.primary(GROUPS[0])?.addr();
    let wrong = stage.primary(GROUPS[1])?.addr();
    let port = stage.primary(GROUPS[0])?.redis.port();
    for sentinel in 0..stage.deployment().sentinels().len() {
        stage.deployment().misname(sentinel, GROUPS[0], wrong).map_err(failure)?;
    }
    stage.wait(Duration::from_secs(1))?;
    end_connections(server_at(stage, port)?);
    stage.go_on(4, 2)?;
    for sentinel in 0..stage.deployment().sentinels().len() {
        stage.deployment().misname(sentinel, GROUPS[0], right).map_err(failure)?;
    }
    stage.note("all three Sentinels lied, then spoke the truth".to_owned());
    stage.go_on(12, 6)?;
    compare_logs(stage)
}

/// No channel may be in the log of two groups.
pub fn compare_logs(stage: &mut Stage) -> Done {
    let [first, second] = GROUPS;
    let (first, second) = (topics(&stage.primary(first)?.redis)?, topics(&stage.primary(second)?.redis)?);
    let in_both = first.intersection(&second).count();
    stage.note(format!("{} and {} channels in the logs, {in_both} in both", first.len(), second.len()));
    if in_both > 0 || first.is_empty() || second.is_empty() {
        stage.wrong(format!(
            "{in_both} channels are in the logs of two groups, of {} and {}",
            first.len(),
            second.len()
        ));
    }
    Ok(())
}

fn topics(redis: &Redis) -> Result<BTreeSet<String>, Failure> {
    let keys = redis.call(&["KEYS", "*:log"]).map_err(failure)?;
    let mut topics = BTreeSet::new();
    for key in keys.list() {
        let entries = redis.call(&["XRANGE", &key.text(), "-", "+"]).map_err(failure)?;
        for entry in entries.list() {
            let fields = entry.list().get(1).map(|fields| fields.list()).unwrap_or_default();
            topics.extend(fields.iter().step_by(2).map(|field| field.text()).filter(|name| name.contains("faults-")));
        }
    }
    Ok(topics)
}

/// One Sentinel of three lies, and connections are ended so that the lie is heard.
pub fn sentinel_names_replica(stage: &mut Stage) -> Done {
    stage.settle()?;
    let group = stage.any_group();
    let right = stage.primary(group)?.addr();
    let replicas = stage.deployment().replicas_of(group).map_err(failure)?;
    let replica = replicas.first().ok_or_else(|| Failure(format!("{group} has no replica")))?.addr();
    let liar = stage.chance.usize(0..stage.deployment().sentinels().len());
    stage.deployment().misname(liar, group, replica).map_err(failure)?;
    stage.wait(Duration::from_secs(1))?;
    end_connections(server_at(stage, right.port())?);
    stage.go_on(5, 3)?;
    stage.deployment().misname(liar, group, right).map_err(failure)?;
    stage.note(format!("Sentinel {liar} named a replica of {group}"));
    stage.go_on(10, 4)
}

/// All three processes at once; they come back with nothing in them. The other group's channels are watched before, meanwhile and after.
pub fn group_lost(stage: &mut Stage) -> Done {
    stage.settle()?;
    let group = stage.any_group();
    let other = GROUPS.iter().find(|other| **other != group).expect("there are two");
    let names = topics(&stage.primary(other)?.redis)?;
    let is_theirs = |name: &str| names.iter().any(|topic| topic.ends_with(&format!(":{name}")));
    let names = stage.load().names().iter().enumerate();
    let channels = names.filter(|(_, name)| is_theirs(name)).map(|(number, _)| number).collect();
    let begun_ns = stage.load().now_ns();
    stage.go_on(30, 7)?;
    let lost_ns = stage.load().now_ns();
    kill_group(stage, group)?;
    stage.note(format!("lost {group}"));
    stage.go_on(30, 7)?;
    let back_ns = stage.load().now_ns();
    restart_group(stage, group)?;
    stage.go_on(20, 10)?;
    let well_ns = stage.load().now_ns();
    stage.go_on(30, 7)?;
    let after_ns = well_ns..stage.load().now_ns();
    let (before_ns, meanwhile_ns) = (begun_ns..lost_ns, lost_ns..back_ns);
    stage.bystanders = Some(Bystanders { channels, before_ns, meanwhile_ns, after_ns });
    Ok(())
}

/// SIGKILL of all servers of a group.
pub fn kill_group(stage: &Stage, group: &str) -> Done {
    stage.deployment().group(group).map_err(failure)?.servers.iter().for_each(|server| server.redis.kill());
    Ok(())
}

/// They come back, each with nothing in it.
pub fn restart_group(stage: &Stage, group: &str) -> Done {
    let group = stage.deployment().group(group).map_err(failure)?;
    group.servers.iter().try_for_each(|server| server.redis.restart()).map_err(failure)
}

/// Away for two seconds: publishers wait.
pub fn single_restart(stage: &mut Stage) -> Done {
    let from_ns = away(stage, 2)?;
    stage.excuse_held(from_ns);
    stage.go_on(10, 6)
}

/// Away for longer than a publisher waits.
pub fn single_away(stage: &mut Stage) -> Done {
    let from_ns = away(stage, 8)?;
    stage.excuse_refused(from_ns);
    stage.go_on(10, 6)
}

/// Answers since when, and returns when that is over.
fn away(stage: &mut Stage, seconds: u64) -> Result<u64, Failure> {
    stage.settle()?;
    let from_ns = stage.load().now_ns();
    stage.single().kill();
    stage.wait(Duration::from_secs(seconds))?;
    stage.single().restart().map_err(failure)?;
    stage.wait(FOUND_AGAIN)?;
    Ok(from_ns)
}

/// One of ours is gone; ten publishers of its go elsewhere with their keys.
pub fn node_killed(stage: &mut Stage) -> Done {
    add_persistent_publishers(stage, Duration::from_millis(20));
    stage.settle()?;
    stage.nodes[2].kill();
    stage.go_on(16, 12)
}

/// Ten publishers that begin at the last node and, unanswered or refused, try again at another with an `Idempotency-Key`.
pub fn add_persistent_publishers(stage: &Stage, every: Duration) {
    let through: Vec<(usize, SocketAddr)> = stage.addrs().into_iter().enumerate().rev().collect();
    for channel in 0..10 {
        let first = Duration::from_millis(channel as u64);
        let through = through.clone();
        let lane = LaneSpec { through, node: NO_NODE, channel, every, first, tries_again: true };
        stage.load().add_publisher(lane);
    }
}

/// It publishes the moment it says that it is ready.
pub fn fresh_node(stage: &mut Stage) -> Done {
    stage.settle()?;
    let begun = Instant::now();
    let addr = stage.add_node()?.addr();
    let node = stage.nodes.len() - 1;
    stage.note(format!("ready after {} ms", begun.elapsed().as_millis()));
    for channel in 0..10 {
        let (every, first) = (Duration::from_millis(50), Duration::ZERO);
        let lane = LaneSpec { through: vec![(node, addr)], node, channel, every, first, tries_again: false };
        stage.load().add_publisher(lane);
    }
    let before = stage.load().live();
    for channel in 0..20 {
        stage.load().add_subscriber(Seat { addr, node, channel });
    }
    stage.load().await_subscribed(before + 20).map_err(failure)?;
    stage.go_on(10, 5)
}

/// A primary has no room for anything.
pub fn maxmemory(stage: &mut Stage) -> Done {
    stage.settle()?;
    fill_primary(stage)?;
    stage.go_on(10, 5)
}

/// For four seconds. It refuses whoever writes without making room first, which is asked of it.
pub fn fill_primary(stage: &mut Stage) -> Done {
    let group = stage.any_group();
    let port = stage.primary(group)?.redis.port();
    server_at(stage, port)?.call(&["CONFIG", "SET", "maxmemory", "1"]).map_err(failure)?;
    let is_taken = server_at(stage, port)?.call(&["SET", "faults:full", "1", "PX", "1000"]).is_ok();
    let waited = stage.wait(Duration::from_secs(4));
    server_at(stage, port)?.call(&["CONFIG", "SET", "maxmemory", "0"]).map_err(failure)?;
    waited?;
    if is_taken {
        stage.wrong(format!("the primary of {group} was not full: nothing was tried"));
    }
    stage.note(format!("the primary of {group} was full"));
    Ok(())
}

/// `SCRIPT FLUSH` everywhere.
pub fn script_flush(stage: &mut Stage) -> Done {
    stage.settle()?;
    for _ in 0..5 {
        for redis in stage.all_servers() {
            redis.call(&["SCRIPT", "FLUSH"]).map_err(failure)?;
        }
        let pause = stage.chance.u64(200..800);
        stage.wait(Duration::from_millis(pause))?;
    }
    stage.go_on(6, 3)
}

/// One of ours hangs; what its sockets missed they get.
pub fn slow_node(stage: &mut Stage) -> Done {
    stage.settle()?;
    stage.nodes[2].stop();
    let waited = stage.wait(Duration::from_secs(5));
    stage.nodes[2].resume();
    waited?;
    stage.go_on(14, 10)
}

/// A server by its own port.
pub fn server_at(stage: &Stage, port: u16) -> Result<&Redis, Failure> {
    let found = stage.all_servers().into_iter().find(|redis| redis.port() == port);
    found.ok_or_else(|| Failure(format!("no server has port {port}")))
}

/// Whoever is connected to it has to find it anew.
pub fn end_connections(redis: &Redis) {
    for kind in ["normal", "pubsub"] {
        // It may be gone, which ends them as well.
        let _ = redis.call(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
    }
}

#[cfg(test)]
mod tests {
    use fulmar_rig::RedisOptions;

    use super::*;

    #[test]
    fn channels_are_read_from_the_log_of_a_group() {
        if !fulmar_rig::is_available() {
            return;
        }
        let redis = Redis::start(&RedisOptions::default()).unwrap();
        redis.call(&["XADD", "d:log", "*", "1:faults-1", "E..", "1:faults-2", "E.."]).unwrap();
        redis.call(&["XADD", "d:log", "*", "1:faults-1", "faults-9", "", ""]).unwrap();
        assert_eq!(topics(&redis).unwrap().into_iter().collect::<Vec<_>>(), ["1:faults-1", "1:faults-2"]);
    }
}
