//! Edges for webhooks that a primary acknowledged and its successor never had.

use std::time::Duration;

use fulmar_backbone::redis::outbox::{Entry, EntryId};
use fulmar_backbone::redis::records::{Call, Change};
use fulmar_backbone::redis::topic::Topic;

use crate::world::{IDENTITY, World, all_hooks, info, topic};

/// Everything a server has, as a replica of that moment has it.
type Copy = Vec<(Vec<u8>, Vec<u8>)>;

impl World {
    fn copy(&mut self) -> Copy {
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut self.admin).unwrap();
        let dump = |key: Vec<u8>| {
            let dumped = redis::cmd("DUMP").arg(&key).query(&mut self.admin).unwrap();
            (key, dumped)
        };
        keys.into_iter().map(dump).collect()
    }

    /// The replica of then is the primary now.
    fn fail_over(&mut self, to: &Copy, epoch: u64) {
        self.redis::<()>(&["FLUSHALL"]);
        for (key, dumped) in to {
            redis::cmd("RESTORE").arg(key).arg(0).arg(&dumped[..]).exec(&mut self.admin).unwrap();
        }
        let group = self.keys.identity();
        self.redis::<()>(&["HSET", &group, "epoch", &epoch.to_string()]);
        for node in &mut self.nodes {
            node.lose();
            node.facts.epoch = epoch;
            node.facts.run = info(&mut self.admin, "run_id");
            node.store.attached(self.now, epoch);
        }
    }

    fn hooked(&mut self, node: usize, room: &Topic, who: &str, is_coming: bool) {
        let person = if is_coming { self.nodes[node].join(room, 1, who) } else { self.nodes[node].part(room, 0, who) };
        self.change(node, Change { hooks: all_hooks(), ..person }).unwrap();
    }

    /// What a worker makes of a room's entries: their words and identities.
    fn entries(&mut self, room: &Topic) -> Vec<(String, u64)> {
        type Read = Vec<(String, Vec<Vec<u8>>)>;
        let part = room.slot().outbox_part();
        let read: Read =
            redis::cmd("XRANGE").arg(self.keys.outbox(part)).arg("-").arg("+").query(&mut self.admin).unwrap();
        let entry = |(at, fields): (String, Vec<Vec<u8>>)| {
            let entry = Entry::read(EntryId::parse(&at).unwrap(), &fields, IDENTITY, part);
            (String::from_utf8(fields[1].clone()).unwrap(), entry.id)
        };
        read.into_iter().map(entry).collect()
    }
}

/// RED-32, HOOK-36
#[test]
fn edges_that_a_change_of_primary_lost_are_left_again_under_their_identity_before_anything_else() {
    let Some(mut world) = World::new(2) else { return };
    let room = topic("7:presence-room");
    world.hooked(0, &room, "ana", true);
    let lagging = world.copy();
    world.hooked(1, &room, "bob", true);
    world.hooked(0, &room, "cid", true);
    world.hooked(1, &room, "bob", false);
    let before = world.entries(&room);
    assert_eq!(before.iter().map(|(what, _)| what.as_str()).collect::<Vec<_>>(), ["co", "ma", "ma", "ma", "mr"]);
    // Asked while the group was away: its edge follows those that were lost.
    let change = Change { hooks: all_hooks(), ..world.nodes[1].join(&room, 1, "eve") };
    world.fail_over(&lagging, 2);
    world.nodes[1].ask(Call::Change(change));
    world.run(Duration::from_secs(2));
    let after = world.entries(&room);
    // Each node leaves its own again; among those of one node nothing changes places.
    let (mut again, new): (Vec<_>, Vec<_>) = after.iter().cloned().partition(|entry| before.contains(entry));
    let new: Vec<_> = new.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(new, ["ma", "ma"], "eve came, and cid is told again when his record is put right: {after:?}");
    again.sort();
    let mut expected = before.clone();
    expected.sort();
    assert_eq!(again, expected);
    assert_eq!(world.roster(0, &room).0, ["ana", "cid", "eve"], "records are mended");
    assert_eq!([0, 1].map(|node| world.nodes[node].store.state().edges_again), [1, 2]);
    // Nothing is lost now, and what was taken out of the outbox meanwhile does not come back.
    let outbox = world.keys.outbox(room.slot().outbox_part());
    world.redis::<()>(&["XTRIM", &outbox, "MAXLEN", "0"]);
    let whole = world.copy();
    world.fail_over(&whole, 3);
    world.run(Duration::from_secs(2));
    assert_eq!(world.entries(&room), []);
}

/// RED-32: what was acknowledged half a minute ago has been copied.
#[test]
fn edges_are_kept_for_half_a_minute_and_forgotten_with_a_node_that_others_took_for_dead() {
    let Some(mut world) = World::new(1) else { return };
    let room = topic("7:presence-room");
    let empty = world.copy();
    world.hooked(0, &room, "ana", true);
    world.run(Duration::from_secs(31));
    world.hooked(0, &room, "ana", false);
    world.fail_over(&empty, 2);
    world.run(Duration::from_secs(2));
    let words: Vec<String> = world.entries(&room).into_iter().map(|(what, _)| what).collect();
    assert_eq!(words, ["mr", "cv"]);
    world.redis::<()>(&["HSET", "dep:fence", "node0", "reaped 1"]);
    world.fail_over(&empty, 3);
    world.redis::<()>(&["HSET", "dep:fence", "node0", "reaped 1"]);
    world.run(Duration::from_secs(2));
    assert!(world.nodes[0].was_reaped && world.entries(&room).is_empty());
}
