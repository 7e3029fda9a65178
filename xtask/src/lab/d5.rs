//! 2022-04-11: a termination script asked for a failover, did not wait, and the primary died in the middle of it.

use std::time::Duration;

use super::day::{Day, NOTHING, Step};
use super::scene::{Lab, rig};
use super::supervisor::{Script, bring_back, stop_naively, stop_sabotaged, stop_with_hook};
use super::verbs::Call;
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
            name: "our hook, while all Sentinels hang",
            story: "",
            deed: |lab| sabotage(lab, GROUPS[0], "all Sentinels hang (SIGSTOP)", stop_sentinels, resume_sentinels),
            allowed: NOTHING,
        },
        Step {
            name: "our hook, while a replica dies",
            story: "",
            deed: |lab| sabotage(lab, GROUPS[1], "a replica is killed", kill_replica, |_| Ok(())),
            allowed: NOTHING,
        },
        Step {
            name: "our hook is killed itself",
            story: "",
            deed: |lab| sabotage(lab, GROUPS[0], "the hook is killed (SIGKILL)", kill_hook, |_| Ok(())),
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
    lab.stage.go_on(4, 4)?;
    bring_back(lab, group, port)?;
    lab.stage.go_on(1, 1)
}

fn sabotage(
    lab: &mut Lab,
    group: &'static str,
    what: &str,
    interferes: fn(&Lab, &'static str, &Call) -> Done,
    undone: fn(&Lab) -> Done,
) -> Done {
    if !has_hook(lab) {
        return Ok(());
    }
    let (_, port) = stop_sabotaged(lab, group, what, |lab, call| interferes(lab, group, call), undone)?;
    for server in &lab.stage.deployment().group(group).map_err(rig)?.servers {
        if !server.redis.is_running() && server.redis.port() != port {
            server.redis.restart().map_err(rig)?;
        }
    }
    bring_back(lab, group, port)
}

fn stop_sentinels(lab: &Lab, _: &'static str, _: &Call) -> Done {
    lab.stage.deployment().sentinels().iter().for_each(|sentinel| sentinel.redis.stop());
    Ok(())
}

fn resume_sentinels(lab: &Lab) -> Done {
    lab.stage.deployment().sentinels().iter().for_each(|sentinel| sentinel.redis.resume());
    // They look around before they believe anything again.
    lab.stage.wait(Duration::from_secs(2))
}

fn kill_replica(lab: &Lab, group: &'static str, _: &Call) -> Done {
    let replicas = lab.stage.deployment().replicas_of(group).map_err(rig)?;
    replicas.iter().take(1).for_each(|replica| replica.redis.kill());
    Ok(())
}

fn kill_hook(_: &Lab, _: &'static str, call: &Call) -> Done {
    call.kill();
    Ok(())
}

fn presence(lab: &mut Lab) -> Done {
    lab.judge_presence("after all terminations", |_| Ok(()))
}
