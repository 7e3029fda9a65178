//! A primary at the limit of its network: data, a capped line, buffers that are too small for it, and replicas that never come online.
//!
//! The arithmetic is that of the published outages in small: (data / what is left of the line) x writes exceeds the buffer.

use std::time::{Duration, Instant};

use fulmar_rig::{LaneSpec, Redis};

use super::scene::{Lab, rig};
use crate::faults::stage::Done;
use crate::project::Failure;

/// Data of a group that is nobody's, in pieces.
const PIECES: usize = 16;
const PIECE_BYTES: usize = 1 << 20;
/// What the primary's line carries.
pub const LINE_BYTES_PER_S: u64 = 3_000_000;
/// Buffers that the shipped configuration of old had, in small.
const SMALL: [(&str, &str); 2] =
    [("repl-backlog-size", "512kb"), ("client-output-buffer-limit", "replica 1mb 384kb 2")];
/// What our documentation advises.
const LARGE: [(&str, &str); 2] =
    [("repl-backlog-size", "64mb"), ("client-output-buffer-limit", "replica 256mb 128mb 60")];
/// Publishers that come when traffic rises, and how often each publishes.
const RISE: usize = 20;
const RISE_EVERY: Duration = Duration::from_millis(100);

/// How replication of a group is, in its primary's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replication {
    /// Replicas attached.
    pub connected: usize,
    /// Replicas online.
    pub online: usize,
    /// Full synchronisations since the beginning.
    pub full_syncs: u64,
}

/// What the operator wrote down of a group's machines.
fn capacity(group: &str) -> String {
    format!("[backbone.group.{group}]\nlink_mbit = {}\nmemory_mb = 512\n", LINE_BYTES_PER_S * 8 / 1_000_000)
}

/// A day on a group whose machines are known and whose data a new replica must be given.
pub fn begin(lab: &mut Lab, group: &str) -> Done {
    fill(lab, group)?;
    lab.stage.deployment().await_whole().map_err(rig)?;
    lab.stage.extend_config(&capacity(group));
    lab.begin()?;
    lab.open_presence()
}

/// Data for a group, that a new replica must be given.
fn fill(lab: &mut Lab, group: &str) -> Done {
    let mut connection = lab.stage.primary(group)?.redis.connect().map_err(rig)?;
    for piece in 0..PIECES {
        let random = |_| lab.stage.chance.alphanumeric();
        let data: String = (0..PIECE_BYTES).map(random).collect();
        connection.call(&["SET", &format!("lab:filler:{piece}"), &data]).map_err(rig)?;
    }
    lab.seen(format!("{group} holds {PIECES} MB"));
    Ok(())
}

/// The primary's host has so much uplink and no more; its buffers are small.
pub fn cap(lab: &mut Lab, group: &str) -> Done {
    let primary = lab.stage.primary(group)?;
    configure(&primary.redis, &SMALL)?;
    lab.lines.cap(primary, LINE_BYTES_PER_S)?;
    lab.deed(format!(
        "{group}'s primary has an uplink of {} Mbit/s and small buffers",
        LINE_BYTES_PER_S * 8 / 1_000_000
    ));
    Ok(())
}

/// Larger buffers, without a restart.
pub fn raise_buffers(lab: &mut Lab, group: &str) -> Done {
    configure(&lab.stage.primary(group)?.redis, &LARGE)?;
    lab.deed(format!("{group}: CONFIG SET of larger buffers, without a restart"));
    Ok(())
}

/// More is published.
pub fn raise_traffic(lab: &mut Lab) -> Done {
    let addrs = lab.stage.addrs();
    for number in 0..RISE {
        let node = number % addrs.len();
        let channel = number % lab.stage.size.channels;
        let first = RISE_EVERY.mul_f64(number as f64 / RISE as f64);
        let through = vec![(node, addrs[node])];
        let lane = LaneSpec { through, node, channel, every: RISE_EVERY, first, tries_again: false };
        lab.stage.load().add_publisher(lane);
    }
    let more = u128::try_from(RISE).unwrap_or(0) * 1_000 / RISE_EVERY.as_millis();
    lab.deed(format!("traffic rises by {more} publishes a second"));
    Ok(())
}

/// Servers that follow a group's primary, all at once.
pub fn attach(lab: &mut Lab, group: &str, count: usize) -> Done {
    for _ in 0..count {
        let server = lab.stage.deployment_mut().add_server(group).map_err(rig)?;
        lab.stage.deployment().attach(group, server).map_err(rig)?;
    }
    lab.watch.add_stage(&lab.stage);
    lab.deed(format!("{count} more servers follow {group}'s primary"));
    Ok(())
}

/// Servers that were added are taken away again: the last ones of the group.
pub fn end_added(lab: &mut Lab, group: &str) -> Done {
    let primary = lab.stage.primary(group)?.addr();
    let servers = &lab.stage.deployment().group(group).map_err(rig)?.servers;
    for server in servers.iter().skip(3).filter(|server| server.addr() != primary) {
        server.redis.kill();
    }
    lab.deed("the servers that were added are taken away");
    Ok(())
}

/// The limit is gone.
pub fn mend(lab: &mut Lab, group: &str) -> Done {
    lab.lines.free(&lab.stage.deployment().group(group).map_err(rig)?.servers)?;
    lab.deed("the uplink is free again");
    Ok(())
}

/// How replication is.
pub fn replication(redis: &Redis) -> Result<Replication, Failure> {
    let text = redis.call(&["INFO"]).map_err(rig)?.text();
    let lines = || text.lines().filter(|line| line.starts_with("slave") && line.contains("state="));
    let full_syncs = text.lines().find_map(|line| line.strip_prefix("sync_full:")?.trim().parse().ok());
    Ok(Replication {
        connected: lines().count(),
        online: lines().filter(|line| line.contains("state=online")).count(),
        full_syncs: full_syncs.unwrap_or(0),
    })
}

/// Watches until the loop shows: so many full synchronisations more than there are new replicas to explain them.
pub fn await_loop(lab: &mut Lab, group: &str, before: Replication, added: usize, patience: Duration) -> Done {
    let begun = Instant::now();
    let explained = before.full_syncs + added as u64;
    loop {
        let now = replication(&lab.stage.primary(group)?.redis)?;
        if now.full_syncs >= explained + 2 && now.online < now.connected.max(before.online + added) {
            lab.seen(format!(
                "a resync loop after {:.1} s: {} full synchronisations where {added} are explained, {} of {} replicas online",
                begun.elapsed().as_secs_f64(),
                now.full_syncs - before.full_syncs,
                now.online,
                before.online + added,
            ));
            return Ok(());
        }
        if begun.elapsed() > patience {
            return Err(Failure(format!("no resync loop within {patience:?}: {before:?}, then {now:?}")));
        }
        lab.stage.wait(Duration::from_millis(250))?;
    }
}

/// Waits until so many replicas are online.
pub fn await_online(lab: &mut Lab, group: &str, wanted: usize, patience: Duration) -> Done {
    let begun = Instant::now();
    loop {
        let now = replication(&lab.stage.primary(group)?.redis)?;
        if now.online >= wanted {
            lab.seen(format!("{wanted} replicas of {group} are online after {:.1} s", begun.elapsed().as_secs_f64()));
            return Ok(());
        }
        if begun.elapsed() > patience {
            return Err(Failure(format!(
                "{} of {wanted} replicas of {group} are online after {patience:?}",
                now.online
            )));
        }
        lab.stage.wait(Duration::from_millis(250))?;
    }
}

fn configure(redis: &Redis, settings: &[(&str, &str)]) -> Done {
    for (name, value) in settings {
        redis.call(&["CONFIG", "SET", name, value]).map_err(rig)?;
    }
    Ok(())
}
