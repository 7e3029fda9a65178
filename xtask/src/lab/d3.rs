//! 2021-11-11: three more replicas on every primary, a saturated network, and a failover that nobody looked before.

use std::time::{Duration, Instant};

use super::day::{Day, NOTHING, Step};
use super::resync;
use super::scene::{Lab, rig};
use crate::faults::deeds;
use crate::faults::stage::{Done, GROUPS, Setting};

const GROUP: &str = GROUPS[0];
const ADDED: usize = 3;
/// What each replica gets of the stream while all of them are to lag.
const LAGGING_BYTES_PER_S: u64 = 30_000;

/// The day.
pub const DAY: Day = Day {
    name: "D3",
    id: "INC-2021-11-11",
    title: "a migration that saturated its primaries",
    story: "Three new replicas were attached to every primary to move to new machines. One primary's network was full; replicas fell \
            out and began anew, over and over. A failover was issued without looking at how far they were. Messages failed, were late \
            or were lost for 41 minutes.",
    setting: Setting::SentinelWithLinks,
    begin,
    steps: &[
        Step { name: "the operator asks before adding a replica", story: "", deed: ask_first, allowed: NOTHING },
        Step {
            name: "three replicas at once, forced",
            story: "three more replicas per primary, all at once, while traffic rose",
            deed: force,
            allowed: NOTHING,
        },
        Step {
            name: "a failover by hand onto a lagging replica",
            story: "a failover was issued without looking at the replicas",
            deed: fail_over,
            allowed: NOTHING,
        },
        Step { name: "the group is made whole", story: "", deed: heal, allowed: NOTHING },
    ],
    gaps: &[],
};

fn begin(lab: &mut Lab) -> Done {
    resync::begin(lab, GROUP)
}

/// The line is capped, traffic has risen, and the arithmetic says no.
fn ask_first(lab: &mut Lab) -> Done {
    resync::cap(lab, GROUP)?;
    resync::raise_traffic(lab)?;
    lab.stage.go_on(5, 5)?;
    if !lab.verbs.has(&["redis", "add-replica"]) {
        lab.gap("whether one more replica fits: this binary has no `fulmar redis add-replica`");
        return Ok(());
    }
    let server = lab.stage.deployment_mut().add_server(GROUP).map_err(rig)?;
    let addr = lab.stage.deployment().group(GROUP).map_err(rig)?.servers[server].addr();
    lab.must_refuse(&["redis", "add-replica", GROUP, &addr.to_string()], &["bandwidth", "buffers"])
}

fn force(lab: &mut Lab) -> Done {
    let before = resync::replication(&lab.stage.primary(GROUP)?.redis)?;
    let began = Instant::now();
    resync::attach(lab, GROUP, ADDED)?;
    lab.expect_alert(began, GROUP, &["replica-missing", "link-saturated", "resync-loop"])?;
    resync::await_loop(lab, GROUP, before, ADDED, Duration::from_secs(25))?;
    lab.expect_alert(Instant::now(), GROUP, &["resync-loop"])?;
    lab.stage.go_on(5, 5)
}

fn fail_over(lab: &mut Lab) -> Done {
    if lab.verbs.has(&["redis", "failover"]) {
        lab.must_refuse(&["redis", "failover", GROUP], &["replicas", "resync", "lag"])?;
    } else {
        lab.gap("whether a failover would be refused: this binary has no `fulmar redis failover`");
    }
    let primary = lab.stage.primary(GROUP)?;
    let replicas = resync::replication(&primary.redis)?.connected;
    lab.lines.cap_replication(primary, LAGGING_BYTES_PER_S, replicas as u64)?;
    lab.stage.wait(Duration::from_secs(3))?;
    let lag_bytes = deeds::lag_bytes(&lab.stage, lab.stage.primary(GROUP)?, GROUP)?;
    lab.deed(format!("SENTINEL FAILOVER {GROUP} by hand; the best replica is {lag_bytes} bytes behind"));
    lab.stage.deployment().failover(GROUP).map_err(rig)?;
    if lag_bytes < 20_000 {
        lab.wrong("no replica lagged: nothing was tried".to_owned());
    }
    lab.stage.wait(Duration::from_secs(14))
}

fn heal(lab: &mut Lab) -> Done {
    lab.lines.free(&lab.stage.deployment().group(GROUP).map_err(rig)?.servers)?;
    resync::end_added(lab, GROUP)?;
    lab.stage.deployment().await_whole().map_err(rig)?;
    lab.seen("the group is whole");
    lab.judge_presence("after all of it", |_| Ok(()))
}
