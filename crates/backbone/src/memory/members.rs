//! Who is present on one channel of the embedded backbone.
//!
//! Members are users, not connections: a user has one seat however many connections it has, and the seat keeps what
//! the first of them said. Holds no lock and tells nobody; the caller turns the answers into deliveries. The roster
//! is always in the order in which the seats were taken. A change costs the same among few and among many (leaving
//! moves nobody: it leaves a hole, and holes are cleared out when they are as many as the seats).

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use fulmar_protocol::exchange::{Member, Roster};
use fulmar_protocol::name::UserId;
use hashbrown::HashTable;

/// Holes a roster may have before they can outnumber its members.
const HOLES_FREE: usize = 8;

/// The users of one presence channel.
#[derive(Default)]
pub(super) struct Members {
    /// In order of coming, with holes where somebody left.
    seats: Vec<Option<Seat>>,
    /// Indices of `seats`, by user.
    index: HashTable<u32>,
}

struct Seat {
    member: Member,
    connections: u32,
}

/// What the end of a connection meant for its user.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// It was the user's last connection.
    Last,
    /// The user has others.
    OthersRemain,
}

impl Members {
    /// Distinct users.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn is_present(&self, hasher: &RandomState, user: &UserId) -> bool {
        self.seat_of(hasher, user).is_some()
    }

    /// Counts one more connection of a user; true when it is the first.
    pub(super) fn arrive(&mut self, hasher: &RandomState, member: &Member) -> bool {
        if let Some(seat) = self.seat_of(hasher, &member.user_id) {
            self.seats[seat].as_mut().expect(INDEXED).connections += 1;
            return false;
        }
        if self.seats.is_empty() {
            // Most rosters that stay small have one member; a vector would begin with room for four.
            self.seats.reserve_exact(1);
        }
        let at = u32::try_from(self.seats.len()).expect("members are connections, and those are fewer than 2^32");
        self.seats.push(Some(Seat { member: member.clone(), connections: 1 }));
        self.enter(hasher, at);
        true
    }

    /// Counts one connection of a user less; `None` when the user is not here.
    pub(super) fn depart(&mut self, hasher: &RandomState, user: &UserId) -> Option<Departure> {
        let at = self.seat_of(hasher, user)?;
        let seat = self.seats[at].as_mut().expect(INDEXED);
        seat.connections -= 1;
        if seat.connections > 0 {
            return Some(Departure::OthersRemain);
        }
        let hash = hasher.hash_one(user.as_str());
        if let Ok(entry) = self.index.find_entry(hash, |&i| i as usize == at) {
            entry.remove();
        }
        self.seats[at] = None;
        self.close_holes(hasher);
        Some(Departure::Last)
    }

    /// Everybody, in the order they came.
    pub(super) fn roster(&self) -> Roster {
        let mut roster = Vec::with_capacity(self.len());
        roster.extend(self.seats.iter().flatten().map(|seat| seat.member.clone()));
        roster
    }

    fn seat_of(&self, hasher: &RandomState, user: &UserId) -> Option<usize> {
        let sits = |&i: &u32| self.seats[i as usize].as_ref().is_some_and(|seat| seat.member.user_id == *user);
        self.index.find(hasher.hash_one(user.as_str()), sits).map(|&i| i as usize)
    }

    fn enter(&mut self, hasher: &RandomState, at: u32) {
        let Self { seats, index } = self;
        let hash_of = |i: &u32| hasher.hash_one(seats[*i as usize].as_ref().expect(INDEXED).member.user_id.as_str());
        index.insert_unique(hash_of(&at), at, hash_of);
    }

    fn close_holes(&mut self, hasher: &RandomState) {
        if self.seats.len() <= 2 * self.len() + HOLES_FREE {
            return;
        }
        self.seats.retain(Option::is_some);
        self.seats.shrink_to(2 * self.seats.len());
        self.index = HashTable::with_capacity(self.seats.len());
        for at in 0..self.seats.len() {
            self.enter(hasher, u32::try_from(at).expect("it was an index before"));
        }
    }
}

const INDEXED: &str = "the index names occupied seats only";

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: usize) -> Member {
        let user_id = UserId::parse(&format!("u{n}"), 100).expect("a valid id");
        Member { user_id, user_info: Some(format!("{n}").into()) }
    }

    /// DEL-4
    #[test]
    fn a_roster_keeps_the_order_of_coming_through_any_number_of_departures() {
        let hasher = RandomState::default();
        let mut members = Members::default();
        let mut expected = Vec::new();
        for n in 0..500 {
            assert!(members.arrive(&hasher, &user(n)));
            expected.push(user(n));
            // Everybody but each tenth leaves two turns later, so that holes are closed many times.
            if let Some(gone) = n.checked_sub(2).filter(|g| g % 10 != 0) {
                assert_eq!(members.depart(&hasher, &user(gone).user_id), Some(Departure::Last));
                expected.retain(|m| *m != user(gone));
            }
            assert_eq!(members.roster(), expected);
            assert_eq!(members.len(), expected.len());
            assert!(members.seats.len() <= 2 * expected.len() + HOLES_FREE);
        }
    }

    /// DEL-4
    #[test]
    fn a_user_is_present_until_the_last_connection_is_gone() {
        let hasher = RandomState::default();
        let mut members = Members::default();
        assert_eq!(members.depart(&hasher, &user(1).user_id), None);
        assert!(members.arrive(&hasher, &user(1)));
        assert!(!members.arrive(&hasher, &Member { user_info: None, ..user(1) }));
        assert_eq!(members.depart(&hasher, &user(1).user_id), Some(Departure::OthersRemain));
        assert_eq!(members.roster(), [user(1)], "what the first connection said stays");
        assert_eq!(members.depart(&hasher, &user(1).user_id), Some(Departure::Last));
        assert!(!members.is_present(&hasher, &user(1).user_id));
        assert_eq!(members.depart(&hasher, &user(1).user_id), None);
    }
}
