//! Slots move between groups under load: to a group that no node is configured with, and back.

use std::time::Instant;

use super::stage::{Done, GROUPS, MORE, Stage};

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
