//! Slots move between groups under load: to a group that no node is configured with, and back. Nothing else happens, or a primary
//! dies meanwhile.

use std::time::{Duration, Instant};

use super::deeds::server_at;
use super::stage::{Done, GROUPS, MORE, Stage, failure};

/// Lines that a move tells people, or a few less.
const LINES: usize = 68;
/// Pause between two looks at them: a step takes longer.
const LOOK: Duration = Duration::from_millis(1);
/// Longest that a move may take, in which a primary dies.
const MOVE_MAX: Duration = Duration::from_secs(90);

/// Two groups become three, and two again.
pub fn run(stage: &mut Stage) -> Done {
    stage.settle()?;
    let [first, second] = GROUPS;
    for groups in [format!("{first},{second},{MORE}"), format!("{first},{second}")] {
        let begun = Instant::now();
        let done = stage.verb(&["redis", "reshard", "apply", "--groups", &groups])?;
        stage.note(format!("to {groups} in {:.1} s", begun.elapsed().as_secs_f64()));
        if !done.status.success() {
            stage.wrong(format!("reshard to {groups}: {}", String::from_utf8_lossy(&done.stderr)));
        }
        stage.go_on(6, 3)?;
    }
    Ok(())
}

/// The same; in the middle of each move the primary of one of the three groups is killed, and later comes back as a replica.
pub fn kill_primary(stage: &mut Stage) -> Done {
    stage.settle()?;
    let [first, second] = GROUPS;
    for groups in [format!("{first},{second},{MORE}"), format!("{first},{second}")] {
        let victim = [first, second, MORE][stage.chance.usize(0..3)];
        let line = stage.chance.usize(1..=LINES);
        let port = stage.primary(victim)?.redis.port();
        let begun = Instant::now();
        let verb = stage.begin_verb(&["redis", "reshard", "apply", "--groups", &groups])?;
        while verb.said().lines().count() < line && verb.is_running() {
            stage.wait(LOOK)?;
        }
        let is_in_time = verb.is_running();
        server_at(stage, port)?.kill();
        let at = verb.said().lines().last().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let is_done = verb.await_end(MOVE_MAX)?;
        let took = begun.elapsed().as_secs_f64();
        stage.note(format!("to {groups} in {took:.1} s; killed the primary of {victim} at {at:?}"));
        if !is_in_time || !is_done {
            stage.wrong(format!("reshard to {groups}, killed in time: {is_in_time}: {}", verb.said()));
        }
        stage.go_on(8, 5)?;
        server_at(stage, port)?.restart().map_err(failure)?;
        stage.deployment().await_whole().map_err(failure)?;
        stage.go_on(6, 3)?;
    }
    Ok(())
}
