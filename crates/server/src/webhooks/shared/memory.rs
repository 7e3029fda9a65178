//! What a node remembers of the parts that it works, for when the store loses everything (`FLUSHALL`, a server that kept nothing):
//! what was announced as come is given back, or nobody would be told that it has gone, and so is what was sealed and is not over, or
//! nobody would hear of it, and which edges are done with, since nodes leave those of the last half minute again.
//!
//! Pure. Each part has a birth in the store; another one than before is what tells such a loss. Only the node that worked the part
//! then knows what it had; whoever else takes it first leaves it alone for a moment.

use std::collections::BTreeMap;

use fulmar_backbone::redis::outbox::{EntryId, Had, Operation, Stored, Turn};
use fulmar_protocol::app::AppId;
use fulmar_protocol::webhook::Subject;

/// How long a part that another node worked is left alone after a loss: two turns at the claims and a little more.
const LEFT_ALONE_MS: u64 = 2_500;
/// Edges of a part that are known to be done with. A node leaves fewer than this again.
const DONE_MAX: usize = 16_384;
/// A node leaves edges again that are up to half a minute old; the clocks of servers may differ by as much.
const LEFT_AGAIN_MS: u64 = 60_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Memory {
    born: Vec<u64>,
    had: BTreeMap<u16, Had>,
    /// What is to be given back, and to which birth of the part.
    lost: BTreeMap<u16, (u64, Had)>,
    /// Parts of others that were lost, and until when they are left alone.
    others: BTreeMap<u16, u64>,
}

impl Memory {
    /// Looks at a turn for losses, before anything else is done about it.
    pub(super) fn turned(&mut self, now: u64, turn: &Turn) {
        self.others.retain(|_, until| now < *until);
        let before = std::mem::replace(&mut self.born, turn.born.clone());
        for (part, (was, is)) in (0..).zip(before.iter().zip(&turn.born)) {
            if was == is {
                continue;
            }
            if let Some(had) = self.had.remove(&part) {
                self.lost.insert(part, (*is, had));
            } else if let Some((born, _)) = self.lost.get_mut(&part) {
                // It was lost once more before it was given back.
                *born = *is;
            } else {
                self.others.insert(part, now + LEFT_ALONE_MS);
            }
        }
        // What is another node's now, that node knows better.
        self.had.retain(|part, _| turn.held.iter().any(|(held, _)| held == part));
    }

    /// What is to be given back next: the part, its birth, and what it had.
    pub(super) fn lost(&self) -> Option<(u16, u64, Had)> {
        let (part, (born, had)) = self.lost.first_key_value()?;
        Some((*part, *born, had.clone()))
    }

    /// It was given back.
    pub(super) fn given_back(&mut self, part: u16) {
        self.lost.remove(&part);
    }

    /// Whether a part may be read now.
    pub(super) fn may_read(&self, part: u16, now: u64) -> bool {
        !self.lost.contains_key(&part) && self.others.get(&part).is_none_or(|until| now >= *until)
    }

    /// What whoever works this part next has to know and the store does not say: the birth of the part, and which of the edges that may
    /// be left again are done with.
    pub(super) fn left_behind(&self, part: u16) -> Option<(u64, Had)> {
        let (born, had) = (self.born.get(usize::from(part))?, self.had.get(&part)?);
        let ms = |generation: &u64| EntryId::of_generation(*generation).0;
        let last_ms = had.done.iter().map(ms).max()?;
        let done = had.done.iter().filter(|generation| ms(generation) + LEFT_AGAIN_MS > last_ms).copied().collect();
        Some((*born, Had { done, ..Had::default() }))
    }

    /// What is announced of a part that was read.
    pub(super) fn announced(&self, part: u16) -> Option<Vec<(AppId, Subject)>> {
        let mut announced: Vec<_> = self.had.get(&part)?.announced.keys().cloned().collect();
        // Members before their channel, as those who leave are told.
        announced.sort_unstable_by(|a, b| b.cmp(a));
        Some(announced)
    }

    /// A part was read.
    pub(super) fn read(&mut self, part: u16, stored: &Stored) {
        let announced = stored.announced.iter().map(|(app, subject, at)| ((app.clone(), subject.clone()), *at));
        let had = self.had.entry(part).or_default();
        (had.announced, had.sealed) = (announced.collect(), stored.sealed.iter().cloned().collect());
        had.done.extend(&stored.done);
    }

    /// These were written.
    pub(super) fn wrote(&mut self, part: u16, operations: &[Operation]) {
        let had = self.had.entry(part).or_default();
        for operation in operations {
            match operation {
                Operation::Announce(app, subject, at) => _ = had.announced.insert((app.clone(), subject.clone()), *at),
                Operation::Forget(app, subject) => _ = had.announced.remove(&(app.clone(), subject.clone())),
                Operation::Seal(id, request) => _ = had.sealed.insert(*id, request.clone()),
                Operation::Over(id) => _ = had.sealed.remove(id),
                Operation::Settle(at) => had.done.extend(at.generation()),
                _ => {}
            }
        }
        had.done.drain(..had.done.len().saturating_sub(DONE_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(held: &[u16], born: u64) -> Turn {
        let held = held.iter().map(|part| (*part, "1".to_owned())).collect();
        Turn { claimants: 2, held, born: vec![born; 16], ..Turn::default() }
    }

    fn user(name: &str) -> (AppId, Subject) {
        (AppId::new("1"), Subject::User(fulmar_protocol::name::UserId::parse(name, 10).expect("a name")))
    }

    fn stored(name: &str, generation: u64) -> Stored {
        let (app, subject) = user(name);
        Stored { announced: vec![(app, subject, generation)], ..Stored::default() }
    }

    /// HOOK-40
    #[test]
    fn only_the_node_that_worked_a_part_gives_back_and_others_leave_it_alone_meanwhile() {
        let mut memory = Memory::default();
        memory.turned(0, &turn(&[3, 4], 10));
        memory.read(3, &stored("ana", 5));
        memory.read(4, &stored("bob", 6));
        let (app, cid) = user("cid");
        memory.wrote(3, &[Operation::Announce(app.clone(), cid.clone(), 7)]);
        memory.wrote(3, &[Operation::Forget(user("ana").0, user("ana").1)]);
        memory.wrote(3, &[Operation::Seal(8, vec![1]), Operation::Seal(9, vec![2]), Operation::Over(8)]);
        memory.wrote(3, &[Operation::Settle(EntryId(2, 1))]);
        // The part 4 changed hands before.
        memory.turned(1_000, &turn(&[3], 10));
        assert!(memory.lost().is_none() && memory.may_read(4, 1_000));
        memory.turned(2_000, &turn(&[4], 20));
        let had =
            Had { announced: [((app, cid), 7)].into(), sealed: [(9, vec![2])].into(), done: [(2 << 20) | 1].into() };
        assert_eq!(memory.lost(), Some((3, 20, had.clone())));
        assert!(!memory.may_read(3, 2_000) && !memory.may_read(4, 2_000) && memory.may_read(4, 4_500));
        // Lost once more before it was given back.
        memory.turned(3_000, &turn(&[4], 30));
        assert_eq!(memory.lost(), Some((3, 30, had)));
        memory.given_back(3);
        assert!(memory.lost().is_none() && memory.may_read(3, 3_000));
    }

    /// HOOK-40
    #[test]
    fn whoever_takes_a_part_is_told_which_edges_are_done_with_that_may_be_left_again() {
        let mut memory = Memory::default();
        memory.turned(0, &turn(&[3], 10));
        assert_eq!(memory.left_behind(3), None, "nothing is known of it yet");
        memory.read(3, &stored("ana", 5));
        assert_eq!(memory.left_behind(3), None, "nothing is done with");
        let done = [EntryId(1_000, 1), EntryId(70_000, 0), EntryId(100_000, 2)];
        memory.wrote(3, &done.map(Operation::Settle));
        let done = [(70_000 << 20), (100_000 << 20) | 2].into();
        assert_eq!(memory.left_behind(3), Some((10, Had { done, ..Had::default() })));
    }
}
