//! 2020-03-18: a Sentinel that names the wrong server, and presence that stayed wrong for hours.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fulmar_rig::Redis;

use super::day::{Day, HELD, NOTHING, Step};
use super::scene::{Lab, rig};
use crate::faults::deeds;
use crate::faults::presence::damage;
use crate::faults::stage::{Done, GROUPS, Setting, failure};
use crate::project::Failure;

/// The day.
pub const DAY: Day = Day {
    name: "D2",
    id: "INC-2020-03-18",
    title: "a Sentinel that names the wrong server",
    story: "A Sentinel was broken and sent some nodes to a replica: what they published was lost. The repair then led one shard's \
            writes to another shard. Presence and counts were wrong for 8 hours, until the last of the damage was found and removed.",
    setting: Setting::Sentinel,
    begin,
    steps: &[
        Step {
            name: "one Sentinel names a replica",
            story: "a broken Sentinel sent some nodes to a replica",
            deed: one_names_replica,
            allowed: NOTHING,
        },
        Step {
            name: "one Sentinel names another group's primary",
            story: "",
            deed: one_names_other_group,
            allowed: NOTHING,
        },
        Step {
            name: "all Sentinels name another group's primary",
            story: "the repair led one shard's writes to another",
            deed: all_name_other_group,
            allowed: HELD,
        },
        Step {
            name: "another group's keys are copied in",
            story: "presence of one shard lay in another",
            deed: |lab| hurt(lab, "another group's keys", damage::swap_groups),
            allowed: NOTHING,
        },
        Step {
            name: "10,000 ghosts",
            story: "members that had long left were still there",
            deed: |lab| hurt(lab, "10,000 ghosts", damage::invent_ghosts),
            allowed: NOTHING,
        },
        Step {
            name: "FLUSHALL",
            story: "the last resort of a repair by hand",
            deed: |lab| hurt(lab, "FLUSHALL", damage::flush),
            allowed: HELD,
        },
    ],
    gaps: &[],
};

fn begin(lab: &mut Lab) -> Done {
    lab.begin()?;
    lab.open_presence()
}

fn one_names_replica(lab: &mut Lab) -> Done {
    let right = lab.stage.primary(GROUPS[0])?.addr();
    let replicas = lab.stage.deployment().replicas_of(GROUPS[0]).map_err(rig)?;
    let replica = replicas.first().ok_or_else(|| Failure("g1 has no replica".to_owned()))?.addr();
    let liar = lab.stage.chance.usize(0..lab.stage.deployment().sentinels().len());
    lab.deed(format!(
        "Sentinel {liar}: SENTINEL REMOVE g1, MONITOR g1 at {replica}, a replica; all connections are ended"
    ));
    // The two others put it right within a second, which nobody who looks once a second need have seen.
    lie(lab, &[liar], replica, right.port(), &[])?;
    lab.stage.deployment().misname(liar, GROUPS[0], right).map_err(rig)?;
    lab.deed(format!("Sentinel {liar} is put right"));
    lab.stage.go_on(3, 3)
}

fn one_names_other_group(lab: &mut Lab) -> Done {
    let (right, wrong) = (lab.stage.primary(GROUPS[0])?.addr(), lab.stage.primary(GROUPS[1])?.addr());
    let liar = lab.stage.chance.usize(0..lab.stage.deployment().sentinels().len());
    lab.deed(format!("Sentinel {liar} names g2's primary {wrong} as g1's; all connections are ended"));
    lie(lab, &[liar], wrong, right.port(), &["sentinels-disagree", "wrong-identity"])?;
    verify(lab)?;
    lab.stage.deployment().misname(liar, GROUPS[0], right).map_err(rig)?;
    lab.deed(format!("Sentinel {liar} is put right"));
    lab.stage.go_on(3, 3)?;
    deeds::compare_logs(&mut lab.stage)
}

fn all_name_other_group(lab: &mut Lab) -> Done {
    let (right, wrong) = (lab.stage.primary(GROUPS[0])?.addr(), lab.stage.primary(GROUPS[1])?.addr());
    let all: Vec<_> = (0..lab.stage.deployment().sentinels().len()).collect();
    lab.deed(format!("all Sentinels name g2's primary {wrong} as g1's; all connections are ended"));
    lie(lab, &all, wrong, right.port(), &["wrong-identity", "stray-primary", "no-primary"])?;
    if lab.verbs.has(&["sentinel", "repair"]) {
        let repaired = lab.verbs.call(&["sentinel", "repair", GROUPS[0], "--primary", &right.to_string()])?;
        if repaired.code != 0 {
            lab.wrong(format!("sentinel repair ended with {}", repaired.code));
        }
    } else {
        lab.gap("the repair is done by hand: this binary has no `fulmar sentinel repair`");
    }
    for sentinel in all {
        let named = lab.stage.deployment().sentinels()[sentinel].primary_of(GROUPS[0]).map_err(rig)?;
        if named != right {
            lab.stage.deployment().misname(sentinel, GROUPS[0], right).map_err(rig)?;
            lab.deed(format!("Sentinel {sentinel} is put right by hand"));
        }
    }
    lab.stage.go_on(6, 6)?;
    deeds::compare_logs(&mut lab.stage)
}

/// These Sentinels lie, and connections to the right server are ended so that the lie is heard.
fn lie(lab: &mut Lab, liars: &[usize], to: SocketAddr, right_port: u16, states: &[&str]) -> Done {
    let began = Instant::now();
    for liar in liars {
        lab.stage.deployment().misname(*liar, GROUPS[0], to).map_err(rig)?;
    }
    lab.stage.wait(Duration::from_secs(1))?;
    deeds::end_connections(deeds::server_at(&lab.stage, right_port)?);
    if !states.is_empty() {
        lab.expect_alert(began, GROUPS[0], states)?;
    }
    lab.stage.wait(Duration::from_secs(3))
}

/// The verb must name what is wrong.
fn verify(lab: &mut Lab) -> Done {
    if !lab.verbs.has(&["sentinel", "verify"]) {
        lab.gap("who lies: this binary has no `fulmar sentinel verify`");
        return Ok(());
    }
    let answer = lab.verbs.call(&["sentinel", "verify"])?;
    if answer.code != 1 {
        lab.wrong(format!("sentinel verify ended with {} while a Sentinel lied", answer.code));
    }
    Ok(())
}

fn hurt(lab: &mut Lab, what: &str, damage: fn(&[&Redis]) -> Result<(), fulmar_rig::RigError>) -> Done {
    lab.deed(format!("in both groups: {what}"));
    lab.judge_presence(what, |stage| damage(&stage.primaries()?).map_err(failure))
}
