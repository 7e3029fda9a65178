//! What stops a Redis server here: a supervisor that was told to, with the script that its operator gave it to run before.
//!
//! As systemd and Kubernetes do: the script runs first, and what it answers does not keep them from ending the process, unless
//! it never ends. Whether a script holds the end up is its own affair.

use std::time::Duration;

use super::scene::{Lab, rig};
use crate::faults::deeds;
use crate::faults::stage::Done;

/// The script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// `SENTINEL FAILOVER`, and done.
    AsksAndLeaves,
    /// The same, and a second of waiting that looks like care.
    AsksAndWaits,
}

/// SIGTERM to the supervisor of a group's primary. Answers when the process is gone.
pub fn stop_primary(lab: &mut Lab, group: &str, script: Script) -> Result<u16, crate::project::Failure> {
    let port = lab.stage.primary(group)?.redis.port();
    lab.deed(format!("SIGTERM to the supervisor of {group}'s primary; its script says SENTINEL FAILOVER {group}"));
    lab.stage.deployment().failover(group).map_err(rig)?;
    if script == Script::AsksAndWaits {
        lab.deed("the script waits for a second and is content");
        lab.stage.wait(Duration::from_secs(1))?;
    }
    lab.deed("the supervisor ends the process (SIGTERM)");
    let redis = deeds::server_at(&lab.stage, port)?;
    redis.terminate();
    // Redis waits for its replicas, up to ten seconds.
    fulmar_rig::eventually("the old primary's process ends", Duration::from_secs(12), || {
        (!redis.is_running()).then_some(())
    })
    .map_err(rig)?;
    lab.seen("the process has ended");
    Ok(port)
}

/// The machine comes back, and its server with it: empty, and told to follow.
pub fn bring_back(lab: &mut Lab, group: &str, port: u16) -> Done {
    deeds::server_at(&lab.stage, port)?.restart().map_err(rig)?;
    let servers = &lab.stage.deployment().group(group).map_err(rig)?.servers;
    if let Some(number) = servers.iter().position(|server| server.redis.port() == port) {
        lab.stage.deployment().attach(group, number).map_err(rig)?;
    }
    lab.deed("its server is started again, as a replica");
    lab.stage.deployment().await_whole().map_err(rig)?;
    lab.seen("the group is whole: all replicas online, all Sentinels agree");
    Ok(())
}
