//! What is done to a Redis Cluster under load.

use std::time::{Duration, Instant};

use fulmar_rig::{Redis, Role};

use super::stage::{Done, Stage, failure};
use crate::project::Failure;

/// Shares of a deployment, unless it says otherwise.
const SHARES: usize = 8;

/// One of the shares: its slot, and the port of the server that has it.
pub fn any_share(stage: &mut Stage) -> Result<(usize, i64, u16), Failure> {
    let share = stage.chance.usize(0..SHARES);
    let name = format!("{{fulmar.{share}}}:group");
    let slot = stage.redis_cluster().servers()[0].call(&["CLUSTER", "KEYSLOT", &name]).map_err(failure)?;
    let slot = slot.number().ok_or_else(|| Failure(format!("{name} lies nowhere")))?;
    let owner = stage.redis_cluster().owner_of(slot).map_err(failure)?.port();
    Ok((share, slot, owner))
}

/// A server by its port.
pub fn server_at(stage: &Stage, port: u16) -> Result<&Redis, Failure> {
    let mut servers = stage.redis_cluster().servers().iter();
    servers.find(|redis| redis.port() == port).ok_or_else(|| Failure(format!("no server has port {port}")))
}

/// As an operator's hand does it.
pub fn planned_failover(stage: &mut Stage) -> Done {
    stage.settle()?;
    let (share, _, owner) = any_share(stage)?;
    let replica = stage.redis_cluster().replica_of(server_at(stage, owner)?).map_err(failure)?;
    replica.call(&["CLUSTER", "FAILOVER"]).map_err(failure)?;
    stage.note(format!("failed the primary of share {share} over"));
    stage.go_on(12, 6)?;
    if server_at(stage, owner)?.role().map_err(failure)? == Role::Primary {
        stage.wrong("the failover did not happen: nothing was tried".to_owned());
    }
    Ok(())
}

/// SIGKILL; later the old primary comes back as a replica.
pub fn kill_primary(stage: &mut Stage) -> Done {
    stage.settle()?;
    let (share, slot, owner) = any_share(stage)?;
    server_at(stage, owner)?.kill();
    let begun = Instant::now();
    while stage.redis_cluster().owner_of(slot).is_ok_and(|redis| redis.port() == owner) {
        stage.wait(Duration::from_millis(20))?;
        if begun.elapsed() > Duration::from_secs(20) {
            return Err(Failure("nobody took the slot over".to_owned()));
        }
    }
    let away = begun.elapsed().as_millis();
    stage.note(format!("killed the primary of share {share}; another had its slot after {away} ms"));
    stage.go_on(10, 6)?;
    server_at(stage, owner)?.restart().map_err(failure)?;
    stage.go_on(12, 4)
}

/// As the product's own tool does it, key by key under load.
pub fn move_share(stage: &mut Stage) -> Done {
    stage.settle()?;
    let (share, slot, owner) = any_share(stage)?;
    let target = stage.primaries()?.into_iter().map(Redis::port).find(|port| *port != owner);
    let target = target.ok_or_else(|| Failure("there is one primary".to_owned()))?;
    let begun = Instant::now();
    let keys = stage.redis_cluster().move_slot(slot, server_at(stage, target)?).map_err(failure)?;
    stage.note(format!("moved share {share} with {keys} keys in {} ms", begun.elapsed().as_millis()));
    stage.go_on(12, 6)?;
    if stage.redis_cluster().owner_of(slot).map_err(failure)?.port() != target {
        stage.wrong("the slot is where it was: nothing was tried".to_owned());
    }
    Ok(())
}
