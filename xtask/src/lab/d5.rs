//! 2022-04-11: a termination script asked for a failover, did not wait, and the primary died in the middle of it.

use std::time::Duration;

use fulmar_rig::eventually;

use super::day::{Day, NOTHING, Step};
use super::scene::{Lab, rig};
use super::supervisor::{Saboteur, Script, bring_back, start_again, stop_naively, stop_sabotaged, stop_with_hook};
use crate::faults::deeds;
use crate::faults::stage::{Done, GROUPS, Setting};
use crate::project::Failure;

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
        Step { name: "our hook: fulmar redis pre-stop", story: "", deed: hook, allowed: NOTHING },
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
        Step {
            name: "our hook, while all Sentinels are gone",
            story: "",
            deed: |lab| sabotage(lab, GROUPS[0], &SENTINELS),
            allowed: NOTHING,
        },
        Step {
            name: "our hook, while the primary hangs",
            story: "",
            deed: |lab| sabotage(lab, GROUPS[0], &PRIMARY),
            allowed: NOTHING,
        },
        Step {
            name: "our hook, while its successor's replica hangs",
            story: "",
            deed: |lab| sabotage(lab, GROUPS[1], &SUCCESSOR),
            allowed: NOTHING,
        },
        Step {
            name: "our hook, while a replica hangs that its first step waits for",
            story: "",
            deed: |lab| sabotage(lab, GROUPS[0], &LEVEL),
            allowed: NOTHING,
        },
        Step {
            name: "our hook, while a replica dies",
            story: "",
            deed: |lab| sabotage_late(lab, GROUPS[1], &REPLICA),
            allowed: NOTHING,
        },
        Step {
            name: "our hook is killed itself",
            story: "",
            deed: |lab| sabotage_late(lab, GROUPS[0], &HOOK),
            allowed: NOTHING,
        },
        Step { name: "who is there", story: "", deed: presence, allowed: NOTHING },
    ],
    gaps: &[],
};

/// The hook watches the group for six seconds before it plans.
const HANGS_AFTER: Duration = Duration::from_millis(5_200);
/// Looking at a server that hangs takes its time, twice.
const UNDONE_MAX: Duration = Duration::from_secs(20);
/// Sentinels give a failover up after this, and the hook waits for it; the least that our documentation advises.
const FAILOVER_TIMEOUT_MS: &str = "6000";

fn begin(lab: &mut Lab) -> Done {
    for sentinel in lab.stage.deployment().sentinels() {
        for group in GROUPS {
            let set = ["SENTINEL", "SET", group, "failover-timeout", FAILOVER_TIMEOUT_MS];
            sentinel.redis.call(&set).map_err(rig)?;
        }
    }
    lab.begin()?;
    lab.open_presence()
}

/// Whether there is a hook; says so where there is none.
fn has_hook(lab: &mut Lab) -> bool {
    let has = lab.verbs.has(&["redis", "pre-stop"]);
    if !has {
        lab.skip("this binary has no `fulmar redis pre-stop`");
    }
    has
}

fn hook(lab: &mut Lab) -> Done {
    if !has_hook(lab) {
        return Ok(());
    }
    let (answer, port) = stop_with_hook(lab, GROUPS[0])?;
    if answer.code != 0 {
        lab.wrong(format!("nothing was in the way, and the hook ended with {}", answer.code));
    }
    lab.stage.go_on(1, 1)?;
    bring_back(lab, GROUPS[0], port)
}

fn naive(lab: &mut Lab, group: &str, script: Script) -> Done {
    let port = stop_naively(lab, group, script)?;
    lab.stage.go_on(3, 3)?;
    bring_back(lab, group, port)?;
    lab.stage.go_on(1, 1)
}

const SENTINELS: Saboteur = Saboteur {
    when: "watching",
    what: "all Sentinels are killed, and started again after 8 s",
    // Sentinels that were stopped and go on do nothing for half a minute (TILT), which would be felt in the steps behind this one.
    interferes: |lab, _, _| {
        let sentinels = lab.stage.deployment().sentinels();
        sentinels.iter().for_each(|sentinel| sentinel.redis.kill());
        let waited = lab.stage.wait(Duration::from_secs(8));
        sentinels.iter().try_for_each(|sentinel| sentinel.redis.restart()).map_err(rig)?;
        waited
    },
};

/// Its first step holds writes until every replica has all there is. That takes milliseconds, too few to interfere in: what it waits for is
/// taken away just before, so late that the replica was freshly seen when it was planned.
const LEVEL: Saboteur = Saboteur {
    when: "watching",
    what: "in the last second of that a replica hangs, until the hook has refused or undone step 1",
    interferes: |lab, group, call| {
        let replicas = lab.stage.deployment().replicas_of(group).map_err(rig)?;
        let Some(port) = replicas.first().map(|replica| replica.redis.port()) else { return Ok(()) };
        lab.stage.wait(HANGS_AFTER)?;
        let replica = deeds::server_at(&lab.stage, port)?;
        replica.stop();
        let is_over = || (call.says("undoing") || call.says("refused by the guard")).then_some(());
        let over = eventually("step 1 is refused or undone", UNDONE_MAX, is_over);
        replica.resume();
        over.map_err(rig)?;
        if call.says("step 2:") {
            return Err(Failure("step 1 ended although a replica could not say that it has everything".to_owned()));
        }
        // Which of the two is a matter of tenths of a second: whoever was silent for longer counts as unseen.
        lab.seen(if call.says("undoing") { "step 1 was undone" } else { "it was refused before anything was held" });
        Ok(())
    },
};

const REPLICA: Saboteur = Saboteur {
    when: "step 2:",
    what: "a replica is killed, and started again after 6 s",
    // Whether it is the one that was to be promoted is the Sentinel's choice: the hook must be right either way.
    interferes: |lab, group, _| {
        let replicas = lab.stage.deployment().replicas_of(group).map_err(rig)?;
        let Some(port) = replicas.first().map(|replica| replica.redis.port()) else { return Ok(()) };
        deeds::server_at(&lab.stage, port)?.kill();
        lab.stage.wait(Duration::from_secs(6))?;
        start_again(lab, group, port)
    },
};

const PRIMARY: Saboteur = Saboteur {
    when: "step 3:",
    what: "the primary that is to follow hangs for 2 s",
    interferes: |lab, group, _| {
        let servers = &lab.stage.deployment().group(group).map_err(rig)?.servers;
        // Sentinels name the new one by now, or will; the old one is whoever is primary besides.
        let new = lab.stage.primary(group)?.addr();
        let primaries = lab.stage.deployment().group(group).map_err(rig)?.acting_primaries();
        let old = primaries.iter().find(|server| server.addr() != new).or(primaries.first());
        let Some(old) = old.and_then(|old| servers.iter().find(|server| server.addr() == old.addr())) else {
            return Ok(());
        };
        old.redis.stop();
        let waited = lab.stage.wait(Duration::from_secs(2));
        old.redis.resume();
        waited
    },
};

const SUCCESSOR: Saboteur = Saboteur {
    when: "step 4:",
    what: "the successor's own replica hangs for 3 s",
    interferes: |lab, group, _| {
        let primaries = lab.stage.deployment().group(group).map_err(rig)?.acting_primaries();
        let servers = &lab.stage.deployment().group(group).map_err(rig)?.servers;
        let is_primary = |addr| primaries.iter().any(|primary| primary.addr() == addr);
        let Some(replica) = servers.iter().find(|server| !is_primary(server.addr())) else { return Ok(()) };
        replica.redis.stop();
        let waited = lab.stage.wait(Duration::from_secs(3));
        replica.redis.resume();
        waited
    },
};

const HOOK: Saboteur = Saboteur {
    when: "step 2:",
    what: "the hook is killed (SIGKILL)",
    interferes: |_, _, call| {
        call.kill();
        Ok(())
    },
};

fn sabotage(lab: &mut Lab, group: &'static str, saboteur: &Saboteur) -> Done {
    if !has_hook(lab) {
        return Ok(());
    }
    let (_, port) = stop_sabotaged(lab, group, saboteur)?;
    bring_back(lab, group, port)
}

/// What is left behind here takes ten seconds and more to be well again, which the day does not wait for: a failover whose replica died
/// is given up by Sentinels, an old primary nobody told is made to follow.
fn sabotage_late(lab: &mut Lab, group: &'static str, saboteur: &Saboteur) -> Done {
    if !has_hook(lab) {
        return Ok(());
    }
    let (_, port) = stop_sabotaged(lab, group, saboteur)?;
    start_again(lab, group, port)
}

fn presence(lab: &mut Lab) -> Done {
    lab.judge_presence("after all terminations", |_| Ok(()))
}
