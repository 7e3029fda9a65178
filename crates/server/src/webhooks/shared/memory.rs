//! What a node remembers of the parts that it works, for when the store loses everything (`FLUSHALL`, a server that kept nothing) or
//! goes back (a replica that was behind, a file of some time ago): what was announced as come is given back, or nobody would be told
//! that it has gone, and so is what was sealed and is not over, or nobody would hear of it, and which edges are done with, since they
//! come back with the store, or nodes leave them again.
//!
//! Pure. Each part has a birth in the store, and a number of writes; another one than before, or fewer, is what tells such a loss. Only
//! the node that worked the part then knows what it had; whoever else takes it first leaves it alone for a moment.

use std::collections::{BTreeMap, HashSet};

use fulmar_backbone::redis::outbox::{Had, Operation, Stand, Stored, Turn};

/// How long a part that another node worked is left alone after a loss, or where there may have been one: two turns at the claims and a
/// little more.
const LEFT_ALONE_MS: u64 = 2_500;
/// Edges of a part that are remembered to be done with. A node leaves half as many again.
const DONE_MAX: usize = 32_768;
/// Requests of a part that were given up and are remembered.
const GIVEN_UP_REMEMBERED_MAX: usize = 64;

/// What is to be given back of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) part: u16,
    /// How the part stands since.
    pub(super) stand: Stand,
    /// How often it had been written.
    pub(super) writes: u64,
    pub(super) had: Had,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// How each part stood when it was last seen, or written here.
    stand: Vec<Stand>,
    had: BTreeMap<u16, Had>,
    lost: BTreeMap<u16, Lost>,
    /// Parts of others that are left alone, and until when.
    others: BTreeMap<u16, u64>,
}

impl Memory {
    /// Looks at a turn for losses, before anything else is done about it. With `is_elsewhere` another server answers than before.
    pub(super) fn turned(&mut self, now: u64, turn: &Turn, is_elsewhere: bool) {
        self.others.retain(|_, until| now < *until);
        let before = std::mem::replace(&mut self.stand, turn.stand.clone());
        for (part, (was, is)) in (0..).zip(before.into_iter().zip(&turn.stand)) {
            let has_lost = was.born != is.born || was.writes > is.writes;
            if let Some(lost) = self.lost.get_mut(&part) {
                // Maybe lost once more before it was given back.
                lost.stand = *is;
            } else if has_lost && let Some(had) = self.had.remove(&part) {
                self.lost.insert(part, Lost { part, stand: *is, writes: was.writes, had });
            } else if has_lost || (is_elsewhere && !self.had.contains_key(&part)) {
                self.others.entry(part).or_insert(now + LEFT_ALONE_MS);
            }
        }
        // What is another node's now, that node knows better.
        self.had.retain(|part, _| turn.held.iter().any(|(held, _)| held == part));
    }

    /// What is to be given back next.
    pub(super) fn lost(&self) -> Option<Lost> {
        self.lost.first_key_value().map(|(_, lost)| lost.clone())
    }

    /// It was given back.
    pub(super) fn given_back(&mut self, part: u16) {
        let Some(lost) = self.lost.remove(&part) else { return };
        if let Some(stand) = self.stand.get_mut(usize::from(part)) {
            stand.writes = stand.writes.max(lost.writes);
        }
    }

    /// Whether a part may be read now.
    pub(super) fn may_read(&self, part: u16, now: u64) -> bool {
        !self.lost.contains_key(&part) && self.others.get(&part).is_none_or(|until| now >= *until)
    }

    /// A part was read.
    pub(super) fn read(&mut self, part: u16, stored: &Stored) {
        let announced = stored.announced.iter().map(|(app, subject, at)| ((app.clone(), subject.clone()), *at));
        let had = self.had.entry(part).or_default();
        (had.announced, had.sealed) = (announced.collect(), stored.sealed.iter().cloned().collect());
        had.partly = stored.partly.iter().cloned().collect();
        // What was written here last is the newest.
        let known: HashSet<u64> = had.done.iter().copied().collect();
        let older = stored.done.iter().filter(|id| !known.contains(id)).copied();
        had.done = older.chain(had.done.iter().copied()).collect();
        had.done.drain(..had.done.len().saturating_sub(DONE_MAX));
    }

    /// These were written, and the part as often as that since its birth. False where that is no more than it was before: the store has
    /// gone back in between, which the next turn finds.
    pub(super) fn wrote(&mut self, part: u16, operations: &[Operation], writes: u64) -> bool {
        let mut has_risen = true;
        if let Some(stand) = self.stand.get_mut(usize::from(part)) {
            has_risen = writes > stand.writes;
            stand.writes = if has_risen { writes } else { stand.writes + 1 };
        }
        // Of a part that was not read nobody here knows what it has.
        let Some(had) = self.had.get_mut(&part) else { return has_risen };
        for operation in operations {
            match operation {
                Operation::Announce(app, subject, at) => _ = had.announced.insert((app.clone(), subject.clone()), *at),
                Operation::Forget(app, subject) => _ = had.announced.remove(&(app.clone(), subject.clone())),
                Operation::Seal(id, request) => _ = had.sealed.insert(*id, request.clone()),
                Operation::Over(id) => _ = had.sealed.remove(id),
                Operation::Partly(at, urls) => _ = had.partly.insert(*at, urls.clone()),
                Operation::Whole(at) => _ = had.partly.remove(at),
                Operation::Settle(_, id) => had.done.push_back(*id),
                Operation::GiveUp(request) => give_up(had, request),
            }
        }
        had.done.drain(..had.done.len().saturating_sub(DONE_MAX));
        has_risen
    }

    /// The sender is through with a request, whether or not that can be written: it is not given back as one that waits.
    pub(super) fn ended(&mut self, part: u16, id: u64, operations: &[Operation]) {
        let lost = self.lost.get_mut(&part).map(|lost| &mut lost.had);
        for had in self.had.get_mut(&part).into_iter().chain(lost) {
            if had.sealed.remove(&id).is_none() {
                continue;
            }
            for operation in operations {
                if let Operation::GiveUp(request) = operation {
                    give_up(had, request);
                }
            }
        }
    }
}

fn give_up(had: &mut Had, request: &Vec<u8>) {
    if !had.given_up.contains(request) {
        had.given_up.push_back(request.clone());
    }
    had.given_up.drain(..had.given_up.len().saturating_sub(GIVEN_UP_REMEMBERED_MAX));
}

#[cfg(test)]
mod tests {
    use fulmar_backbone::redis::outbox::EntryId;
    use fulmar_protocol::app::AppId;
    use fulmar_protocol::webhook::Subject;

    use super::*;

    fn turn(held: &[u16], born: u64, writes: u64) -> Turn {
        let held = held.iter().map(|part| (*part, "1".to_owned())).collect();
        Turn { claimants: 2, held, stand: vec![Stand { born, writes }; 16], ..Turn::default() }
    }

    fn user(name: &str) -> (AppId, Subject) {
        (AppId::new("1"), Subject::User(fulmar_protocol::name::UserId::parse(name, 10).expect("a name")))
    }

    fn stored(name: &str, generation: u64) -> Stored {
        let (app, subject) = user(name);
        Stored { announced: vec![(app, subject, generation)], ..Stored::default() }
    }

    fn lost(memory: &Memory) -> Option<(u16, u64, u64)> {
        memory.lost().map(|lost| (lost.part, lost.stand.born, lost.writes))
    }

    /// HOOK-18, HOOK-40
    #[test]
    fn what_endpoints_took_while_the_store_was_lost_is_not_given_back_to_be_sent() {
        for is_noticed_before in [true, false] {
            let mut memory = Memory::default();
            memory.turned(0, &turn(&[3], 10, 0), false);
            memory.read(3, &Stored::default());
            memory.wrote(3, &[7, 8, 9].map(|id| Operation::Seal(id, vec![7])), 1);
            let end = |memory: &mut Memory| {
                memory.ended(3, 8, &[Operation::Over(8)]);
                memory.ended(3, 9, &[Operation::Over(9), Operation::GiveUp(vec![9])]);
            };
            if is_noticed_before {
                memory.turned(1_000, &turn(&[], 20, 0), false);
                end(&mut memory);
            } else {
                end(&mut memory);
                memory.turned(1_000, &turn(&[], 20, 0), false);
            }
            let had = memory.lost().expect("it is to be given back").had;
            assert_eq!((had.sealed.into_keys().collect::<Vec<_>>(), had.given_up), (vec![7], [vec![9]].into()));
        }
    }

    /// HOOK-40
    #[test]
    fn only_the_node_that_worked_a_part_gives_back_and_others_leave_it_alone_meanwhile() {
        let mut memory = Memory::default();
        memory.turned(0, &turn(&[3, 4], 10, 0), false);
        memory.read(3, &stored("ana", 5));
        memory.read(4, &stored("bob", 6));
        let (app, cid) = user("cid");
        let urls: Vec<std::sync::Arc<str>> = vec!["http://a/".into()];
        let partly = |at, urls: &[_]| Operation::Partly(at, urls.to_vec());
        let writes: [&[Operation]; 5] = [
            &[Operation::Announce(app.clone(), cid.clone(), 7)],
            &[Operation::Forget(user("ana").0, user("ana").1)],
            &[Operation::Seal(8, vec![1]), Operation::Seal(9, vec![2]), Operation::Over(8)],
            &[Operation::Settle(EntryId(2, 1), 77), Operation::GiveUp(vec![3])],
            &[partly(EntryId(3, 0), &urls), partly(EntryId(4, 0), &urls), Operation::Whole(EntryId(4, 0))],
        ];
        assert!((1..).zip(writes).all(|(count, operations)| memory.wrote(3, operations, count)));
        // The part 4 changed hands before.
        memory.turned(1_000, &turn(&[3], 10, 5), false);
        assert!(lost(&memory).is_none() && memory.may_read(4, 1_000));
        memory.turned(2_000, &turn(&[4], 20, 0), false);
        let had = Had {
            announced: [((app, cid), 7)].into(),
            sealed: [(9, vec![2])].into(),
            partly: [(EntryId(3, 0), urls)].into(),
            done: [77].into(),
            given_up: [vec![3]].into(),
        };
        assert_eq!((lost(&memory), memory.lost().map(|lost| lost.had)), (Some((3, 20, 5)), Some(had)));
        assert!(!memory.may_read(3, 2_000) && !memory.may_read(4, 2_000) && memory.may_read(4, 4_500));
        // Lost once more before it was given back.
        memory.turned(3_000, &turn(&[4], 30, 0), false);
        assert_eq!(lost(&memory), Some((3, 30, 5)));
        memory.given_back(3);
        assert!(lost(&memory).is_none() && memory.may_read(3, 3_000));
    }

    /// HOOK-40
    #[test]
    fn a_store_that_went_back_has_lost_what_was_written_since() {
        let mut memory = Memory::default();
        memory.turned(0, &turn(&[3], 10, 5), false);
        memory.read(3, &stored("ana", 5));
        assert!(memory.wrote(3, &[Operation::Settle(EntryId(2, 1), 77)], 6));
        memory.turned(1_000, &turn(&[3], 10, 6), false);
        assert_eq!(lost(&memory), None);
        memory.turned(2_000, &turn(&[3], 10, 5), true);
        assert_eq!(lost(&memory), Some((3, 10, 6)));
        assert!(!memory.may_read(3, 9_000) && !memory.may_read(4, 2_000));
        memory.given_back(3);
        memory.turned(3_000, &turn(&[3], 10, 6), false);
        assert_eq!(lost(&memory), None, "it stands where it stood");
    }

    /// HOOK-40
    #[test]
    fn a_write_that_goes_where_one_before_it_is_missing_shows_that_the_store_went_back() {
        let mut memory = Memory::default();
        memory.turned(0, &turn(&[3], 10, 5), false);
        assert!(memory.wrote(3, &[Operation::Settle(EntryId(1, 1), 76)], 6));
        assert!(memory.had.is_empty(), "it was not read: nobody knows what it has");
        memory.read(3, &stored("ana", 5));
        assert!(memory.wrote(3, &[Operation::Settle(EntryId(2, 1), 77)], 7));
        assert!(!memory.wrote(3, &[Operation::Settle(EntryId(3, 1), 78)], 7));
        memory.turned(1_000, &turn(&[3], 10, 7), true);
        assert_eq!(lost(&memory), Some((3, 10, 8)));
        assert_eq!(memory.lost().map(|lost| lost.had.done), Some([77, 78].into()));
    }

    /// HOOK-40: who has not worked a part cannot say what it had, nor whether all of that is there.
    #[test]
    fn where_another_server_answers_parts_of_others_are_left_alone_for_a_moment() {
        let mut memory = Memory::default();
        memory.turned(0, &turn(&[3], 10, 5), false);
        memory.read(3, &stored("ana", 5));
        memory.turned(1_000, &turn(&[3, 4], 10, 5), true);
        assert!(memory.may_read(3, 1_000) && !memory.may_read(4, 1_000) && memory.may_read(4, 3_500));
    }
}
