//! What stops a Redis server here: a supervisor that was told to, with the script that its operator gave it to run before.
//!
//! The naive scripts are those of the published outage. Ours is `fulmar redis pre-stop`, and its supervisor ends the process only
//! when it answers 0. Whatever a script did, `check_fit` asks the servers themselves what is true afterwards.

use std::time::{Duration, Instant};

use fulmar_rig::{Role, eventually};

use super::resync;
use super::scene::{Lab, rig};
use super::verbs::{Answer, Call};
use crate::faults::deeds;
use crate::faults::stage::Done;
use crate::project::Failure;

const ENDS_MAX: Duration = Duration::from_secs(12);
/// A primary that takes no write for so long is paused, or none.
const WRITES_MAX: Duration = Duration::from_secs(14);
/// A hook that has not begun to act by then is not sabotaged.
const BEGINS_MAX: Duration = Duration::from_secs(15);

/// A script that nobody should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// `SENTINEL FAILOVER`, and done.
    AsksAndLeaves,
    /// The same, and a second of waiting that looks like care.
    AsksAndWaits,
}

/// SIGTERM to the supervisor of a group's primary, with a naive script. Answers the server's port when the process is gone.
pub fn stop_naively(lab: &mut Lab, group: &str, script: Script) -> Result<u16, Failure> {
    let port = lab.stage.primary(group)?.redis.port();
    lab.deed(format!("SIGTERM to the supervisor of {group}'s primary; its script says SENTINEL FAILOVER {group}"));
    lab.stage.deployment().failover(group).map_err(rig)?;
    if script == Script::AsksAndWaits {
        lab.deed("the script waits for a second and is content");
        lab.stage.wait(Duration::from_secs(1))?;
    }
    end_process(lab, port)?;
    Ok(port)
}

/// The same with our hook. Answers what it said, and the port.
pub fn stop_with_hook(lab: &mut Lab, group: &str) -> Result<(Answer, u16), Failure> {
    let primary = lab.stage.primary(group)?;
    let (port, addr) = (primary.redis.port(), primary.addr().to_string());
    lab.deed(format!("SIGTERM to the supervisor of {group}'s primary; its script is fulmar redis pre-stop"));
    let answer = lab.verbs.call(&["redis", "pre-stop", "--process", &addr])?;
    obey(lab, group, port, &answer)?;
    Ok((answer, port))
}

/// Somebody who interferes with the hook.
pub struct Saboteur {
    /// What the hook says when it is time, such as `step 2:`.
    pub when: &'static str,
    /// What is done, in words.
    pub what: &'static str,
    /// What is done.
    pub interferes: fn(&Lab, &str, &Call) -> Done,
}

/// The same, and somebody interferes.
pub fn stop_sabotaged(lab: &mut Lab, group: &str, saboteur: &Saboteur) -> Result<(Answer, u16), Failure> {
    let primary = lab.stage.primary(group)?;
    let (port, addr) = (primary.redis.port(), primary.addr().to_string());
    lab.deed(format!("SIGTERM to the supervisor of {group}'s primary; its script is fulmar redis pre-stop"));
    let call = lab.verbs.start(&["redis", "pre-stop", "--process", &addr])?;
    let when = saboteur.when;
    let is_there = || (call.says(when) || !call.is_running()).then_some(());
    let there = eventually(&format!("the hook says {when}"), BEGINS_MAX, is_there);
    let was_running = call.is_running();
    lab.deed(format!("when the hook says `{when}`: {}", saboteur.what));
    let interfered = there.map_err(rig).and_then(|()| (saboteur.interferes)(lab, group, &call));
    let answer = lab.verbs.wait(call);
    interfered?;
    let answer = answer?;
    if !was_running {
        lab.wrong(format!("the hook had ended before it said {when}: nothing was sabotaged"));
    }
    obey(lab, group, port, &answer)?;
    Ok((answer, port))
}

/// The supervisor ends the process if the hook says so, and then it must have been true.
fn obey(lab: &mut Lab, group: &str, port: u16, answer: &Answer) -> Done {
    if answer.code == 0 {
        check_fit(lab, group, port)?;
        return end_process(lab, port);
    }
    lab.seen(format!("the hook ended with {}: the supervisor lets the process live", answer.code));
    let redis = deeds::server_at(&lab.stage, port)?;
    let begun = Instant::now();
    let state = || match redis.role() {
        Ok(Role::Replica) => Some("is a replica"),
        Ok(_) => redis.call(&["SET", "lab:probe", "1", "PX", "1000"]).is_ok().then_some("takes writes"),
        Err(_) => None,
    };
    match eventually("the server takes writes or follows another", WRITES_MAX, state) {
        Ok(state) => lab.seen(format!("the server {state} after {:.1} s", begun.elapsed().as_secs_f64())),
        Err(error) => lab.wrong(error.to_string()),
    }
    Ok(())
}

/// The server is no primary, another is, and that one is complete.
fn check_fit(lab: &mut Lab, group: &str, port: u16) -> Done {
    let role = deeds::server_at(&lab.stage, port)?.role().map_err(rig)?;
    let successor = lab.stage.primary(group)?;
    let now = resync::replication(&successor.redis)?;
    let (is_other, successor) = (successor.redis.port() != port, successor.redis.port());
    lab.seen(format!(
        "the hook ended with 0: the server is a {role:?}, its successor {successor} has {} replicas online",
        now.online
    ));
    if role != Role::Replica || !is_other || now.online < 2 {
        lab.wrong(format!("the hook answered 0, but the server is a {role:?} and {} replicas are online", now.online));
    }
    Ok(())
}

fn end_process(lab: &mut Lab, port: u16) -> Done {
    lab.deed("the supervisor ends the process (SIGTERM)");
    let redis = deeds::server_at(&lab.stage, port)?;
    redis.terminate();
    // Redis waits for its replicas, up to ten seconds.
    eventually("the server's process ends", ENDS_MAX, || (!redis.is_running()).then_some(())).map_err(rig)?;
    lab.seen("the process has ended");
    Ok(())
}

/// The machine comes back, and its server with it: empty, and told to follow.
pub fn start_again(lab: &Lab, group: &str, port: u16) -> Done {
    let redis = deeds::server_at(&lab.stage, port)?;
    if redis.is_running() {
        return Ok(());
    }
    redis.restart().map_err(rig)?;
    let servers = &lab.stage.deployment().group(group).map_err(rig)?.servers;
    if let Some(number) = servers.iter().position(|server| server.redis.port() == port) {
        lab.stage.deployment().attach(group, number).map_err(rig)?;
    }
    lab.deed("its server is started again, as a replica");
    Ok(())
}

/// The same, and the group is whole again.
pub fn bring_back(lab: &mut Lab, group: &str, port: u16) -> Done {
    start_again(lab, group, port)?;
    lab.stage.deployment().await_whole().map_err(rig)?;
    lab.seen("the group is whole: all replicas online, all Sentinels agree");
    Ok(())
}
