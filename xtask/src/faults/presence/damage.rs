//! What a hand, a bug or another group's data can do to the records of presence.
//!
//! It knows their names (`DEPLOYMENT:rec:SLOT:NODE` and `DEPLOYMENT:mem:SLOT:NODE:TOPIC`) and nothing else of the product.

use fulmar_rig::{Redis, RigError, Value};

const GHOSTS: usize = 10_000;
const FIELDS_PER_CALL: usize = 500;

/// Half of the records, and half of the lists of members.
pub fn delete_half(primaries: &[&Redis]) -> Result<(), RigError> {
    for redis in primaries {
        for key in records(redis)?.iter().chain(&members(redis)?).step_by(2) {
            redis.call(&["DEL", key])?;
        }
    }
    Ok(())
}

/// Members that never were, in lists of nodes that live.
pub fn invent_ghosts(primaries: &[&Redis]) -> Result<(), RigError> {
    let lists = primaries.iter().map(|redis| members(redis)).collect::<Result<Vec<_>, _>>()?;
    let share = GHOSTS / lists.iter().map(Vec::len).sum::<usize>().max(1);
    for (redis, keys) in primaries.iter().zip(&lists) {
        for key in keys {
            crowd(redis, key, share)?;
        }
    }
    Ok(())
}

/// The same, all in one list of each group: it becomes a large one, which servers keep in another way than a small one.
pub fn crowd_a_list(primaries: &[&Redis]) -> Result<(), RigError> {
    for redis in primaries {
        if let Some(key) = members(redis)?.first() {
            crowd(redis, key, GHOSTS / primaries.len())?;
        }
    }
    Ok(())
}

fn crowd(redis: &Redis, key: &str, count: usize) -> Result<(), RigError> {
    let ghosts: Vec<_> = (0..count).map(|number| format!("ghost-{number}")).collect();
    for some in ghosts.chunks(FIELDS_PER_CALL) {
        let fields = some.iter().flat_map(|ghost| [ghost.as_str(), "1 {}"]);
        redis.call(&["HSET", key].into_iter().chain(fields).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// All records of a node, under the name of one that never had a lease.
pub fn invent_node(primaries: &[&Redis]) -> Result<(), RigError> {
    for redis in primaries {
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
pub fn swap_groups(primaries: &[&Redis]) -> Result<(), RigError> {
    let mut copies = Vec::new();
    for redis in primaries {
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
pub fn flush(primaries: &[&Redis]) -> Result<(), RigError> {
    primaries.iter().try_for_each(|redis| redis.call(&["FLUSHALL"]).map(|_| ()))
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

#[cfg(test)]
mod tests {
    use fulmar_rig::RedisOptions;

    use super::*;

    /// Two groups with two records and two lists each; nothing where there is no Redis.
    fn groups() -> Vec<Redis> {
        if !fulmar_rig::is_available() {
            return Vec::new();
        }
        let start = |slot: &str| {
            let redis = Redis::start(&RedisOptions::default()).unwrap();
            for node in ["aa", "bb"] {
                redis.call(&["HSET", &format!("d:rec:{slot}:{node}"), "1:presence-x", "2"]).unwrap();
                redis.call(&["HSET", &format!("d:mem:{slot}:{node}:1:presence-x"), "ana", "17 {}"]).unwrap();
            }
            redis
        };
        vec![start("3"), start("4")]
    }

    #[track_caller]
    fn check(damage: fn(&[&Redis]) -> Result<(), RigError>, expected: &[usize]) {
        let groups = groups();
        damage(&groups.iter().collect::<Vec<_>>()).unwrap();
        let count = |redis: &Redis| keys(redis, "rec").unwrap().len() + keys(redis, "mem").unwrap().len();
        if !groups.is_empty() {
            assert_eq!(groups.iter().map(count).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn every_damage_does_what_it_says() {
        check(delete_half, &[2, 2]);
        check(invent_node, &[8 - 2, 8 - 2]);
        check(swap_groups, &[8, 8]);
        check(flush, &[0, 0]);
    }

    #[test]
    fn ghosts_are_shared_out_among_the_lists() {
        let groups = groups();
        invent_ghosts(&groups.iter().collect::<Vec<_>>()).unwrap();
        for redis in &groups {
            for key in keys(redis, "mem").unwrap() {
                assert_eq!(redis.call(&["HLEN", &key]).unwrap().number(), Some(2_501));
            }
        }
    }
}
