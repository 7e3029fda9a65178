//! Faults one after another for as long as one likes, drawn from the seed: each when everything is whole again.
//!
//! Each is a row of the table, and what is promised for the row holds here as well. What a row allows (a node's sockets end with it, a
//! full server may refuse) is allowed for exactly as long as the deed lasts; nothing is excused of the rest of the run.
//!
//! Not drawn are: what has one Redis or a Redis Cluster, which are other topologies; a node that is started fresh, which each node that
//! was killed is; and slots that move (`reshard`, `reshard-kill`), because a move leaves the deployment other than it was.

use std::mem;
use std::time::{Duration, Instant};

use fulmar_rig::{Link, Ready};

use super::stage::{Done, Stage, failure};
use super::{deeds, output_limit};

type Deed = (&'static str, fn(&mut Stage) -> Done);

const DEEDS: [Deed; 11] = [
    ("a primary is killed", deeds::kill_primary),
    ("a primary hangs", deeds::hang_primary),
    ("SENTINEL FAILOVER by hand", deeds::planned_failover),
    ("a primary ends its subscribers", output_limit::drop_subscribers),
    ("every server forgets its scripts", deeds::script_flush),
    ("a Sentinel names a replica", deeds::sentinel_names_replica),
    ("all Sentinels name another group's primary", deeds::wrong_sentinels),
    ("a group is lost, and comes back empty", lose_group),
    ("a primary is full", fill_primary),
    ("a node is killed, and started again", kill_node),
    ("a node is stopped for 5 s", stop_node),
];

/// Where each server is behind a wire, replicas can fall behind. Sentinels do not lie there: until a failover has made the epoch count,
/// nobody corrects one that does, and a deployment behind wires begins without one.
const DEEDS_ON_WIRES: [Deed; 7] = [
    ("a host is lost while its replicas are behind", lose_lagging_host),
    ("a primary is killed", deeds::kill_primary),
    ("a primary hangs", deeds::hang_primary),
    ("SENTINEL FAILOVER by hand", deeds::planned_failover),
    ("a group is lost, and comes back empty", lose_group),
    ("a node is killed, and started again", kill_node),
    ("a node is stopped for 5 s", stop_node),
];

/// The one of ours that is hurt.
const NODE: usize = 2;
/// Until a node that was stopped has told everybody what they missed.
const CAUGHT_UP: Duration = Duration::from_secs(4);
/// Until the last publish that a full server held is answered: a publisher waits for three and a half.
const ANSWERED: Duration = Duration::from_secs(4);

/// On groups under Sentinel.
pub fn run(stage: &mut Stage) -> Done {
    go_on_with(stage, &DEEDS)
}

/// The same behind wires.
pub fn run_on_wires(stage: &mut Stage) -> Done {
    go_on_with(stage, &DEEDS_ON_WIRES)
}

fn go_on_with(stage: &mut Stage, deeds: &[Deed]) -> Done {
    deeds::add_persistent_publishers(stage, Duration::from_millis(200));
    let (begun, length) = (Instant::now(), Duration::from_secs(stage.random_s));
    let mut counts = vec![0; deeds.len()];
    let mut all_done = Ok(());
    while all_done.is_ok() && begun.elapsed() < length {
        let drawn = stage.chance.usize(0..deeds.len());
        let (name, deed) = deeds[drawn];
        println!("{:>6} of {} s  {name}", begun.elapsed().as_secs(), length.as_secs());
        counts[drawn] += 1;
        all_done = deed(stage).and_then(|()| await_whole(stage));
    }
    for ((name, _), count) in deeds.iter().zip(counts) {
        stage.note(format!("{count:>4} times {name}"));
    }
    all_done
}

fn await_whole(stage: &Stage) -> Done {
    stage.deployment().await_whole().map_err(failure)?;
    stage
        .nodes
        .iter()
        .try_for_each(|node| node.await_ready(Ready::ForTraffic, Duration::from_secs(30)))
        .map_err(failure)
}

fn lose_group(stage: &mut Stage) -> Done {
    stage.settle()?;
    let group = stage.any_group();
    deeds::kill_group(stage, group)?;
    stage.note(format!("lost {group}"));
    stage.go_on(12, 5)?;
    deeds::restart_group(stage, group)?;
    stage.go_on(20, 12)
}

/// It may refuse in clear words while it is full.
fn fill_primary(stage: &mut Stage) -> Done {
    stage.settle()?;
    let from_ns = stage.load().now_ns();
    deeds::fill_primary(stage)?;
    stage.wait(ANSWERED)?;
    stage.excuse_refused(from_ns);
    stage.go_on(6, 2)
}

/// What was in flight on it is counted apart, and its sockets end; others subscribe there when it is back.
pub fn kill_node(stage: &mut Stage) -> Done {
    stage.settle()?;
    let from_ns = stage.load().now_ns();
    stage.nodes[NODE].kill();
    let waited = stage.go_on(8, 4);
    stage.nodes[NODE].restart(Ready::ForTraffic).map_err(failure)?;
    let span_ns = from_ns..stage.load().now_ns();
    stage.excuses = mem::take(&mut stage.excuses).gone(NODE, span_ns);
    waited?;
    let addrs = stage.addrs();
    let before = stage.load().live();
    let seats = stage.load().seats_of(NODE, &addrs);
    let wanted = before + seats.len();
    seats.into_iter().for_each(|seat| stage.load().add_subscriber(seat));
    stage.load().await_subscribed(wanted).map_err(failure)?;
    // Until its first life is known to be over, and what that left is looked after.
    stage.go_on(12, 8)
}

/// What passes over it is late.
fn stop_node(stage: &mut Stage) -> Done {
    stage.settle()?;
    let from_ns = stage.load().now_ns();
    stage.nodes[NODE].stop();
    let waited = stage.wait(Duration::from_secs(5));
    stage.nodes[NODE].resume();
    waited?;
    stage.wait(CAUGHT_UP)?;
    let span_ns = from_ns..stage.load().now_ns();
    stage.excuses = mem::take(&mut stage.excuses).away(NODE, span_ns);
    stage.go_on(8, 6)
}

/// The host comes back with its wire whole, and follows.
fn lose_lagging_host(stage: &mut Stage) -> Done {
    let port = deeds::lose_lagging_host(stage)?;
    let groups = stage.deployment().names();
    let mut servers = groups.iter().filter_map(|name| stage.deployment().group(name).ok()).flat_map(|g| &g.servers);
    if let Some(link) = servers.find(|server| server.redis.port() == port).and_then(|server| server.link.as_ref()) {
        link.limit_replication(0);
        Link::mend(link);
    }
    deeds::server_at(stage, port)?.restart().map_err(failure)?;
    stage.go_on(14, 6)
}
