//! What a hand, a bug or another group's data can do to the records of presence.
//!
//! It knows their names (`DEPLOYMENT:rec:SLOT:NODE` and `DEPLOYMENT:mem:SLOT:NODE:TOPIC`) and nothing else of the product.

use fulmar_rig::{Redis, RigError, Value};

use crate::faults::stage::Stage;

const GHOSTS: usize = 10_000;
const FIELDS_PER_CALL: usize = 500;

/// Half of the records, and half of the lists of members.
pub fn delete_half(stage: &Stage) -> Result<(), RigError> {
    for redis in primaries(stage)? {
        for key in records(redis)?.iter().chain(&members(redis)?).step_by(2) {
            redis.call(&["DEL", key])?;
        }
    }
    Ok(())
}

/// Members that never were, in lists of nodes that live.
pub fn invent_ghosts(stage: &Stage) -> Result<(), RigError> {
    let primaries = primaries(stage)?;
    let lists = primaries.iter().map(|redis| members(redis)).collect::<Result<Vec<_>, _>>()?;
    let share = GHOSTS / lists.iter().map(Vec::len).sum::<usize>().max(1);
    for (redis, keys) in primaries.iter().zip(&lists) {
        for key in keys {
            let ghosts: Vec<_> = (0..share).map(|number| format!("ghost-{number}")).collect();
            for some in ghosts.chunks(FIELDS_PER_CALL) {
                let fields = some.iter().flat_map(|ghost| [ghost.as_str(), "1 {}"]);
                redis.call(&["HSET", key].into_iter().chain(fields).collect::<Vec<_>>())?;
            }
        }
    }
    Ok(())
}

/// All records of a node, under the name of one that never had a lease.
pub fn invent_node(stage: &Stage) -> Result<(), RigError> {
    for redis in primaries(stage)? {
        for key in records(redis)?.iter().chain(&members(redis)?) {
            let mut parts: Vec<_> = key.split(':').collect();
            // The node stands behind the slot, which stands behind the kind.
            if let Some(kind) = parts.iter().position(|part| matches!(*part, "rec" | "mem"))
                && let Some(node) = parts.get_mut(kind + 2)
            {
                *node = "feedfeedfeedfeed";
            }
            redis.call(&["COPY", key, &parts.join(":"), "REPLACE"])?;
        }
    }
    Ok(())
}

/// Each group gets the other's records beside its own.
pub fn swap_groups(stage: &Stage) -> Result<(), RigError> {
    let primaries = primaries(stage)?;
    let mut copies = Vec::new();
    for redis in &primaries {
        let mut of_group = Vec::new();
        for key in records(redis)?.into_iter().chain(members(redis)?) {
            // It may have gone meanwhile.
            if let Value::Bytes(dumped) = redis.call(&["DUMP", &key])? {
                of_group.push((key, dumped));
            }
        }
        copies.push(of_group);
    }
    for (redis, other) in primaries.iter().zip(copies.iter().rev()) {
        let mut connection = redis.connect()?;
        for (key, dumped) in other {
            connection.call(&[b"RESTORE".as_slice(), key.as_bytes(), b"0", dumped.as_slice(), b"REPLACE"])?;
        }
    }
    Ok(())
}

/// Everything, in every group.
pub fn flush(stage: &Stage) -> Result<(), RigError> {
    primaries(stage)?.iter().try_for_each(|redis| redis.call(&["FLUSHALL"]).map(|_| ()))
}

fn primaries(stage: &Stage) -> Result<Vec<&Redis>, RigError> {
    stage.primaries().map_err(|failure| RigError::Peer(failure.0))
}

fn records(redis: &Redis) -> Result<Vec<String>, RigError> {
    keys(redis, "rec")
}

fn members(redis: &Redis) -> Result<Vec<String>, RigError> {
    keys(redis, "mem")
}

fn keys(redis: &Redis, kind: &str) -> Result<Vec<String>, RigError> {
    Ok(redis.call(&["KEYS", &format!("*:{kind}:*")])?.list().iter().map(Value::text).collect())
}
