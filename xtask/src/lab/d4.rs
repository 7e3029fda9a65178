//! 2022-03-21: a primary at its network's limit, a forced failover, and capacity that could not be added.

use std::time::{Duration, Instant};

use super::day::{Day, NOTHING, Step};
use super::fifty::Fifty;
use super::resync;
use super::scene::{Lab, rig};
use crate::faults::stage::{Done, GROUPS, Setting};
use crate::project::Failure;

const GROUP: &str = GROUPS[0];
/// The group that comes later.
const MORE: &str = "g3";

/// The day.
pub const DAY: Day = Day {
    name: "D4",
    id: "INC-2022-03-21",
    title: "a primary at its network's limit",
    story: "A primary reached its network's limit and fell into a resync loop. A failover was forced, took long, and publishing failed \
            meanwhile. Adding shards needed a deployment, whose start overloaded the Kubernetes API, and publishing failed again.",
    setting: Setting::SentinelWithLinks,
    begin,
    steps: &[
        Step {
            name: "a resync loop at the network's limit",
            story: "memory grew, replicas fell out and began anew",
            deed: resync_loop,
            allowed: NOTHING,
        },
        Step {
            name: "larger buffers, live",
            story: "buffers were enlarged by a restart with new configuration",
            deed: larger_buffers,
            allowed: NOTHING,
        },
        Step {
            name: "a forced failover",
            story: "publishing failed during the forced failover",
            deed: fail_over,
            allowed: NOTHING,
        },
        Step {
            name: "a third group is added under load",
            story: "more shards needed a deployment",
            deed: third_group,
            allowed: NOTHING,
        },
        Step {
            name: "fifty nodes start at once",
            story: "the deployment for more shards overloaded the Kubernetes API",
            deed: fifty_nodes,
            allowed: NOTHING,
        },
    ],
    gaps: &[
        "fifty nodes against a limited Kubernetes API: nodes make no call to one, which is all that can be said without one",
    ],
};

fn begin(lab: &mut Lab) -> Done {
    resync::begin(lab, GROUP)
}

fn resync_loop(lab: &mut Lab) -> Done {
    resync::cap(lab, GROUP)?;
    resync::raise_traffic(lab)?;
    let before = resync::replication(&lab.stage.primary(GROUP)?.redis)?;
    let began = Instant::now();
    resync::attach(lab, GROUP, 1)?;
    lab.expect_alert(began, GROUP, &["replica-missing", "link-saturated", "resync-loop"])?;
    resync::await_loop(lab, GROUP, before, 1, Duration::from_secs(30))?;
    lab.expect_alert(Instant::now(), GROUP, &["resync-loop"])
}

fn larger_buffers(lab: &mut Lab) -> Done {
    resync::raise_buffers(lab, GROUP)?;
    resync::await_online(lab, GROUP, 3, Duration::from_secs(20))
}

fn fail_over(lab: &mut Lab) -> Done {
    lab.deed(format!("SENTINEL FAILOVER {GROUP} by hand"));
    lab.stage.deployment().failover(GROUP).map_err(rig)?;
    lab.stage.wait(Duration::from_secs(12))?;
    resync::mend(lab, GROUP)?;
    lab.stage.deployment().await_whole().map_err(rig)
}

/// No node is started again, and none is configured with it.
fn third_group(lab: &mut Lab) -> Done {
    if !lab.verbs.has(&["redis", "reshard", "apply"]) {
        lab.skip("this binary has no `fulmar redis reshard`");
        return Ok(());
    }
    lab.stage.deployment_mut().add_group(MORE, 2).map_err(rig)?;
    lab.watch.add_stage(&lab.stage);
    lab.deed(format!("{MORE} is set up: a primary, two replicas, and all Sentinels watch it"));
    let groups = format!("{},{},{MORE}", GROUPS[0], GROUPS[1]);
    let moved = lab.verbs.call(&["redis", "reshard", "apply", "--groups", &groups])?;
    if moved.code != 0 {
        lab.wrong(format!("reshard ended with {}", moved.code));
    }
    lab.stage.go_on(4, 4)?;
    lab.judge_presence("after the move", |_| Ok(()))
}

fn fifty_nodes(lab: &mut Lab) -> Done {
    let primaries = primaries(lab)?;
    let before = Fifty::cost(lab)?;
    let begun = Instant::now();
    lab.deed("fifty nodes start at once, behind everything else (nice 19)");
    let fifty = Fifty::start(lab)?;
    let ready = fifty.await_ready();
    lab.seen(format!("{ready} of fifty nodes are ready after {:.1} s", begun.elapsed().as_secs_f64()));
    if let Some(why) = fifty.ended() {
        lab.wrong(format!("a node ended: {why}"));
    }
    let after = Fifty::cost(lab)?;
    let loaded = before.connections.div_ceil(lab.stage.nodes.len());
    let more = after.connections.saturating_sub(before.connections);
    let each = more as f64 / Fifty::COUNT as f64;
    lab.seen(format!(
        "connections to Redis: {loaded} for each of 3 nodes under load, {each:.1} more for each of fifty idle ones"
    ));
    let [kb_before, kb_after] = [&before, &after].map(|cost| cost.sends_bytes_per_s / 1e3);
    lab.seen(format!("all primaries send {kb_before:.0} kB/s to 3 nodes and their replicas, {kb_after:.0} kB/s to 53"));
    if more > loaded * Fifty::COUNT || each < 1.0 {
        lab.wrong(format!("fifty nodes have {more} connections, more than {loaded} each"));
    }
    fifty.end(lab);
    lab.deed("the fifty nodes are ended (SIGKILL)");
    lab.stage.go_on(2, 2)?;
    if self::primaries(lab)? != primaries {
        lab.wrong("there was a failover".to_owned());
    }
    Ok(())
}

fn primaries(lab: &Lab) -> Result<Vec<u16>, Failure> {
    Ok(lab.stage.primaries()?.iter().map(|redis| redis.port()).collect())
}
