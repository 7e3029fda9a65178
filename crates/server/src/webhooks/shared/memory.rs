//! What a node remembers of the parts that it works, for when the store loses everything (`FLUSHALL`, a server that kept nothing):
//! what was announced as come is given back, or nobody would be told that it has gone.
//!
//! Pure. Each part has a birth in the store; another one than before is what tells such a loss. Only the node that worked the part
//! then knows what was announced; whoever else takes it first leaves it alone for a moment.

use std::collections::{BTreeMap, HashMap};

use fulmar_backbone::redis::outbox::{Operation, Turn};
use fulmar_protocol::app::AppId;
use fulmar_protocol::webhook::Subject;

/// How long a part that another node worked is left alone after a loss: two turns at the claims and a little more.
const LEFT_ALONE_MS: u64 = 2_500;

/// What is to be given back: the part, its birth, and what was announced.
type Lost = (u16, u64, Vec<(AppId, Subject, u64)>);

/// What is announced as come, with generations.
type Announced = HashMap<(AppId, Subject), u64>;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Memory {
    born: Vec<u64>,
    announced: BTreeMap<u16, Announced>,
    /// What is to be given back, and to which birth of the part.
    lost: BTreeMap<u16, (u64, Announced)>,
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
            if let Some(announced) = self.announced.remove(&part) {
                self.lost.insert(part, (*is, announced));
            } else if let Some((born, _)) = self.lost.get_mut(&part) {
                // It was lost once more before it was given back.
                *born = *is;
            } else {
                self.others.insert(part, now + LEFT_ALONE_MS);
            }
        }
        // What is another node's now, that node knows better.
        self.announced.retain(|part, _| turn.held.iter().any(|(held, _)| held == part));
    }

    /// What is to be given back next.
    pub(super) fn lost(&self) -> Option<Lost> {
        let (part, (born, announced)) = self.lost.first_key_value()?;
        let announced = announced.iter().map(|((app, subject), at)| (app.clone(), subject.clone(), *at));
        Some((*part, *born, announced.collect()))
    }

    /// It was given back.
    pub(super) fn given_back(&mut self, part: u16) {
        self.lost.remove(&part);
    }

    /// Whether a part may be read now.
    pub(super) fn may_read(&self, part: u16, now: u64) -> bool {
        !self.lost.contains_key(&part) && self.others.get(&part).is_none_or(|until| now >= *until)
    }

    /// A part was read: this is announced.
    pub(super) fn read(&mut self, part: u16, announced: &[(AppId, Subject, u64)]) {
        let announced = announced.iter().map(|(app, subject, at)| ((app.clone(), subject.clone()), *at));
        self.announced.insert(part, announced.collect());
    }

    /// These were written.
    pub(super) fn wrote(&mut self, part: u16, operations: &[Operation]) {
        let announced = self.announced.entry(part).or_default();
        for operation in operations {
            match operation {
                Operation::Announce(app, subject, at) => _ = announced.insert((app.clone(), subject.clone()), *at),
                Operation::Forget(app, subject) => _ = announced.remove(&(app.clone(), subject.clone())),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(held: &[u16], born: u64) -> Turn {
        let held = held.iter().map(|part| (*part, "1".to_owned())).collect();
        Turn { claimants: 2, held, born: vec![born; 16] }
    }

    fn user(name: &str) -> (AppId, Subject) {
        (AppId::new("1"), Subject::User(fulmar_protocol::name::UserId::parse(name, 10).expect("a name")))
    }

    /// HOOK-40
    #[test]
    fn only_the_node_that_worked_a_part_gives_back_and_others_leave_it_alone_meanwhile() {
        let mut memory = Memory::default();
        memory.turned(0, &turn(&[3, 4], 10));
        memory.read(3, &[(user("ana").0, user("ana").1, 5)]);
        memory.read(4, &[(user("bob").0, user("bob").1, 6)]);
        let (app, cid) = user("cid");
        memory.wrote(3, &[Operation::Announce(app.clone(), cid.clone(), 7)]);
        memory.wrote(3, &[Operation::Forget(user("ana").0, user("ana").1)]);
        // The part 4 changed hands before.
        memory.turned(1_000, &turn(&[3], 10));
        assert!(memory.lost().is_none() && memory.may_read(4, 1_000));
        memory.turned(2_000, &turn(&[4], 20));
        assert_eq!(memory.lost(), Some((3, 20, vec![(app.clone(), cid.clone(), 7)])));
        assert!(!memory.may_read(3, 2_000) && !memory.may_read(4, 2_000) && memory.may_read(4, 4_500));
        // Lost once more before it was given back.
        memory.turned(3_000, &turn(&[4], 30));
        assert_eq!(memory.lost(), Some((3, 30, vec![(app, cid, 7)])));
        memory.given_back(3);
        assert!(memory.lost().is_none() && memory.may_read(3, 3_000));
    }
}
