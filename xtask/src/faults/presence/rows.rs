//! The rows of the table as presence sees them: the same faults, on members instead of publishes, each a step with a word of its own.
//!
//! The time that is promised counts from when the fault is over, which is:
//! - for a primary that is killed, lost or failed over, when another takes writes (in groups: and a replica follows it, without which
//!   it would refuse them);
//! - for a primary that hangs, and for a node that is stopped, when it goes on (SIGCONT);
//! - for a group that is lost, when its servers are back, one takes writes and a replica follows it;
//! - for a single Redis, when it answers again;
//! - for slots that move, when the verb has ended.
//!
//! Members come and go during a fault as before and after it, but for a store that is away altogether: nobody can be told who is there
//! while the only ones who know are gone.

use std::time::{Duration, Instant};

use fulmar_rig::{Link, Redis, Role, Server, eventually};

use super::{RIGHT_MAX, Scene, damage};
use crate::faults::stage::{Done, GROUPS, MORE, Stage, failure};
use crate::faults::{deeds, redis_cluster};
use crate::project::Failure;

/// Until somebody takes over.
const TAKEN_OVER_MAX: Duration = Duration::from_secs(40);
/// How long something hangs.
const HANGS: Duration = Duration::from_secs(5);
/// Longest that slots may be on their way.
const MOVE_MAX: Duration = Duration::from_secs(90);
/// What a replica is sent at most per second while it falls behind: less than members alone cause.
const LINK_BYTES_PER_S: u64 = 2_000;
const LAG_BYTES_MIN: u64 = 5_000;
const LOOK: Duration = Duration::from_millis(100);

/// What happens to a scene; over when it returns.
type Fault = fn(&mut Scene, &mut Stage) -> Done;

/// On groups under Sentinel, and one more that slots can move to.
pub fn on_groups(stage: &mut Stage) -> Done {
    let faults: [(&str, Fault); 6] = [
        ("a primary hung for 5 s", hang_primary),
        ("SENTINEL FAILOVER by hand", fail_over),
        ("a node stopped for 5 s", stop_node),
        ("a group lost, and back empty", lose_group),
        ("slots moved to a third group", |scene, stage| move_slots(scene, stage, &[GROUPS[0], GROUPS[1], MORE])),
        ("slots moved back", |scene, stage| move_slots(scene, stage, &GROUPS)),
    ];
    one_after_another(stage, &faults, |stage| stage.deployment().await_whole().map_err(failure))
}

/// On groups behind wires, which can be saturated.
pub fn on_wires(stage: &mut Stage) -> Done {
    one_after_another(stage, &[("a host lost while its replicas were behind", lose_lagging_host)], |_| Ok(()))
}

/// On one Redis.
pub fn on_single(stage: &mut Stage) -> Done {
    let faults: [(&str, Fault); 2] = [("the only Redis restarted", restart_single), ("FLUSHALL", flush)];
    one_after_another(stage, &faults, |_| Ok(()))
}

/// On a Redis Cluster.
pub fn on_redis_cluster(stage: &mut Stage) -> Done {
    let faults: [(&str, Fault); 3] = [
        ("CLUSTER FAILOVER", fail_over_share),
        ("a primary of a Redis Cluster killed", kill_primary_of_share),
        ("FLUSHALL", flush),
    ];
    one_after_another(stage, &faults, |_| Ok(()))
}

fn one_after_another(stage: &mut Stage, faults: &[(&str, Fault)], await_whole: fn(&Stage) -> Done) -> Done {
    let mut scene = Scene::begin(stage)?;
    for (what, fault) in faults {
        await_whole(stage)?;
        scene.judge(stage, what, RIGHT_MAX, fault)?;
    }
    scene.close(stage)
}

fn hang_primary(scene: &mut Scene, stage: &mut Stage) -> Done {
    let group = stage.any_group();
    let port = stage.primary(group)?.redis.port();
    deeds::server_at(stage, port)?.stop();
    let churned = scene.churn(stage, HANGS);
    deeds::server_at(stage, port)?.resume();
    churned
}

fn fail_over(scene: &mut Scene, stage: &mut Stage) -> Done {
    let group = stage.any_group();
    let port = stage.primary(group)?.redis.port();
    stage.deployment().failover(group).map_err(failure)?;
    scene.churn(stage, LOOK)?;
    await_another_primary(stage, group, Some(port))
}

fn stop_node(scene: &mut Scene, stage: &mut Stage) -> Done {
    let all = scene.nodes.clone();
    let (stopped, _) = scene.nodes.pop().ok_or_else(|| Failure("there are no nodes".to_owned()))?;
    stage.nodes[stopped].stop();
    // Nobody can come to it meanwhile; whoever leaves it is heard of when it goes on.
    let churned = scene.churn(stage, HANGS);
    stage.nodes[stopped].resume();
    scene.nodes = all;
    churned
}

fn lose_group(_: &mut Scene, stage: &mut Stage) -> Done {
    let group = stage.any_group();
    deeds::kill_group(stage, group)?;
    stage.go_on(10, 5)?;
    deeds::restart_group(stage, group)?;
    await_another_primary(stage, group, None)
}

fn move_slots(scene: &mut Scene, stage: &mut Stage, groups: &[&str]) -> Done {
    let verb = stage.begin_verb(&["redis", "reshard", "apply", "--groups", &groups.join(",")])?;
    let begun = Instant::now();
    let mut is_done = None;
    // How it ended is told once, to whoever waits for the end.
    while is_done.is_none() && begun.elapsed() < MOVE_MAX {
        scene.churn(stage, LOOK)?;
        is_done = verb.await_end(Duration::from_millis(1)).ok();
    }
    if is_done != Some(true) {
        stage.wrong(format!("reshard to {}: {}", groups.join(","), verb.said()));
    }
    Ok(())
}

fn lose_lagging_host(scene: &mut Scene, stage: &mut Stage) -> Done {
    let group = stage.any_group();
    let port = stage.primary(group)?.redis.port();
    stage.primary(group)?.link.iter().for_each(|link| link.limit_replication(LINK_BYTES_PER_S));
    scene.churn(stage, Duration::from_secs(5))?;
    let primary = stage.primary(group)?;
    let lag_bytes = deeds::lag_bytes(stage, primary, group)?;
    primary.link.iter().for_each(Link::fall_silent);
    primary.redis.kill();
    stage.note(format!("lost the host of {group}'s primary; its replicas were {lag_bytes} bytes behind"));
    if lag_bytes < LAG_BYTES_MIN {
        stage.wrong("the replication links were not saturated: nothing was tried".to_owned());
    }
    await_another_primary(stage, group, Some(port))
}

fn restart_single(_: &mut Scene, stage: &mut Stage) -> Done {
    stage.single().kill();
    stage.wait(Duration::from_secs(2))?;
    stage.single().restart().map_err(failure)
}

fn flush(_: &mut Scene, stage: &mut Stage) -> Done {
    damage::flush(&stage.primaries()?).map_err(failure)
}

fn fail_over_share(scene: &mut Scene, stage: &mut Stage) -> Done {
    let (share, slot, owner) = redis_cluster::any_share(stage)?;
    let old = redis_cluster::server_at(stage, owner)?;
    stage.redis_cluster().replica_of(old).and_then(|new| new.call(&["CLUSTER", "FAILOVER"])).map_err(failure)?;
    stage.note(format!("failed the primary of share {share} over"));
    await_another_owner(scene, stage, slot, owner)
}

fn kill_primary_of_share(scene: &mut Scene, stage: &mut Stage) -> Done {
    let (share, slot, owner) = redis_cluster::any_share(stage)?;
    redis_cluster::server_at(stage, owner)?.kill();
    stage.note(format!("killed the primary of share {share}"));
    await_another_owner(scene, stage, slot, owner)
}

/// Waits until a server of the group, and not the one at this port, takes writes.
pub fn await_another_primary(stage: &Stage, group: &str, old_port: Option<u16>) -> Done {
    let takes_writes = |server: &&Server| {
        let redis = &server.redis;
        Some(redis.port()) != old_port
            && redis.role().is_ok_and(|role| role == Role::Primary)
            && redis.replicas_online().is_ok_and(|online| online > 0)
    };
    let group = stage.deployment().group(group).map_err(failure)?;
    let found = || group.servers.iter().any(|server| takes_writes(&server)).then_some(());
    eventually("another primary takes writes", TAKEN_OVER_MAX, found).map_err(failure)
}

/// Members come and go until another server has the slot and takes writes.
fn await_another_owner(scene: &mut Scene, stage: &mut Stage, slot: i64, old: u16) -> Done {
    let is_another = |redis: &Redis| redis.port() != old && redis.role().is_ok_and(|role| role == Role::Primary);
    let begun = Instant::now();
    while !stage.redis_cluster().owner_of(slot).is_ok_and(is_another) {
        if begun.elapsed() > TAKEN_OVER_MAX {
            return Err(Failure("nobody took the slot over".to_owned()));
        }
        scene.churn(stage, LOOK)?;
    }
    Ok(())
}
