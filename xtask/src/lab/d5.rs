//! 2022-04-11: a termination script asked for a failover, did not wait, and the primary died in the middle of it.

use super::day::{Day, NOTHING, Step};
use super::scene::Lab;
use super::supervisor::{Script, bring_back, stop_primary};
use crate::faults::stage::{Done, GROUPS, Setting};

/// The day.
pub const DAY: Day = Day {
    name: "D5",
    id: "INC-2022-04-11",
    title: "a primary terminated during its failover",
    story: "A machine was to be replaced. The termination script of its Redis primary asked for a failover and did not wait; the \
            primary died in the middle of it, and two primaries contended for 11 minutes.",
    setting: Setting::Sentinel,
    begin,
    steps: &[
        Step {
            name: "the naive script: a failover is asked for, the process ended at once",
            story: "the script issued a failover and did not wait",
            deed: |lab| naive(lab, GROUPS[0], Script::AsksAndLeaves),
            allowed: NOTHING,
        },
        Step {
            name: "the naive script that waits a second",
            story: "two primaries contended: the old one went on taking writes",
            deed: |lab| naive(lab, GROUPS[1], Script::AsksAndWaits),
            allowed: NOTHING,
        },
        Step { name: "who is there", story: "", deed: presence, allowed: NOTHING },
    ],
    gaps: &[],
};

fn begin(lab: &mut Lab) -> Done {
    lab.begin()?;
    lab.open_presence()
}

fn naive(lab: &mut Lab, group: &str, script: Script) -> Done {
    let port = stop_primary(lab, group, script)?;
    lab.stage.go_on(4, 4)?;
    bring_back(lab, group, port)?;
    lab.stage.go_on(1, 1)
}

fn presence(lab: &mut Lab) -> Done {
    lab.judge_presence("after both terminations", |_| Ok(()))
}
