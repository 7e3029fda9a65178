//! Who is present on a channel as far as this node's sockets were told.
//!
//! An edge becomes a frame only where it changes this, so stale and repeated edges are harmless: an edge at or before the
//! last one of the same user is ignored, and who left is remembered for [`TOMBSTONE_MS`]. Tells nobody itself.
//!
//! The order is the order of being told: what an observer adds up from the edges it heard.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::quality::RandomState;
use fulmar_protocol::exchange::{Member, Roster};
use fulmar_protocol::name::UserId;
use hashbrown::{HashMap, HashSet};

use crate::redis::envelope::LogId;

/// How long it is remembered that somebody left. An edge on its way longer than this is found by the next comparison.
pub(super) const TOMBSTONE_MS: u64 = 10_000;

/// Most of them on one channel; beyond it the oldest are forgotten early.
pub(super) const TOMBSTONES_MAX: usize = 1_024;

/// Holes a roster may have before they can outnumber its members.
const HOLES_FREE: usize = 8;

/// What was told about one presence channel.
#[derive(Default)]
pub(super) struct Present {
    /// In the order told, with holes where somebody left.
    seats: Vec<Option<Seat>>,
    /// Indices of `seats`.
    index: HashMap<UserId, u32, RandomState>,
    /// Edges that made somebody absent; boxed because most channels have none.
    gone: Option<Box<Gone>>,
}

struct Seat {
    member: Member,
    /// The last edge known of the user; the default when it was told without one.
    edge: LogId,
}

#[derive(Default)]
struct Gone {
    edges: HashMap<UserId, LogId, RandomState>,
    /// Oldest first.
    order: VecDeque<(u64, UserId, LogId)>,
}

impl Present {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn has(&self, user: &UserId) -> bool {
        self.index.contains_key(user)
    }

    /// Everybody, in the order told.
    pub(super) fn roster(&self) -> Roster {
        let mut roster = Vec::with_capacity(self.len());
        roster.extend(self.seats.iter().flatten().map(|seat| seat.member.clone()));
        roster
    }

    /// Whether the user was told to be here without an edge: nothing in the store says so yet.
    pub(super) fn is_told_alone(&self, user: &UserId) -> bool {
        self.seat(user).is_some_and(|seat| seat.edge == LogId::default())
    }

    /// An edge says that the user is here; true when that is new.
    pub(super) fn add(&mut self, member: &Member, edge: LogId) -> bool {
        if let Some(seat) = self.seat_mut(&member.user_id) {
            seat.edge = seat.edge.max(edge);
            return false;
        }
        if self.went(&member.user_id).is_some_and(|went| edge <= went) {
            return false;
        }
        self.take_seat(member, edge);
        true
    }

    /// The user is here, whatever edges say: it is connected to this very node. True when that is new.
    pub(super) fn add_alone(&mut self, member: &Member) -> bool {
        let is_new = !self.has(&member.user_id);
        if is_new {
            self.take_seat(member, LogId::default());
        }
        is_new
    }

    /// An edge says that the user is gone; true when that is new.
    pub(super) fn remove(&mut self, user: &UserId, edge: LogId, now_ms: u64) -> bool {
        if self.seat(user).is_some_and(|seat| edge <= seat.edge) {
            return false;
        }
        if self.went(user).is_none_or(|went| went < edge) {
            self.bury(user, edge, now_ms);
        }
        self.give_up_seat(user)
    }

    /// The user is not here any more, and no edge will say so.
    pub(super) fn remove_alone(&mut self, user: &UserId) -> bool {
        self.give_up_seat(user)
    }

    /// Forgets where in the log everybody was told of, but not that edges told of them.
    pub(super) fn forget_places(&mut self) {
        self.gone = None;
        for seat in self.seats.iter_mut().flatten().filter(|seat| seat.edge != LogId::default()) {
            seat.edge = LogId::new(0, 1);
        }
    }

    /// Those told to be here who are not among `others` and of whom nothing is known after `at`.
    pub(super) fn missing_from(&self, others: &[(Member, u64)], at: LogId) -> Vec<UserId> {
        let others: HashSet<&UserId, RandomState> = others.iter().map(|(member, _)| &member.user_id).collect();
        let seats = self.seats.iter().flatten().filter(|seat| seat.edge <= at);
        seats.map(|seat| &seat.member.user_id).filter(|user| !others.contains(user)).cloned().collect()
    }

    fn seat(&self, user: &UserId) -> Option<&Seat> {
        self.seats[*self.index.get(user)? as usize].as_ref()
    }

    fn seat_mut(&mut self, user: &UserId) -> Option<&mut Seat> {
        self.seats[*self.index.get(user)? as usize].as_mut()
    }

    fn take_seat(&mut self, member: &Member, edge: LogId) {
        let at = u32::try_from(self.seats.len()).expect("members are connections, and those are fewer than 2^32");
        self.index.insert(member.user_id.clone(), at);
        self.seats.push(Some(Seat { member: member.clone(), edge }));
    }

    fn give_up_seat(&mut self, user: &UserId) -> bool {
        let Some(at) = self.index.remove(user) else { return false };
        self.seats[at as usize] = None;
        if self.seats.len() > 2 * self.index.len() + HOLES_FREE {
            self.close_holes();
        }
        true
    }

    fn close_holes(&mut self) {
        self.seats.retain(Option::is_some);
        self.seats.shrink_to(2 * self.seats.len());
        self.index = HashMap::with_capacity_and_hasher(self.seats.len(), RandomState::default());
        for (at, seat) in self.seats.iter().flatten().enumerate() {
            self.index.insert(seat.member.user_id.clone(), u32::try_from(at).expect("it was an index before"));
        }
    }

    fn went(&self, user: &UserId) -> Option<LogId> {
        self.gone.as_ref()?.edges.get(user).copied()
    }

    fn bury(&mut self, user: &UserId, edge: LogId, now_ms: u64) {
        let gone = self.gone.get_or_insert_default();
        gone.edges.insert(user.clone(), edge);
        gone.order.push_back((now_ms, user.clone(), edge));
        let is_over = |at: u64, count: usize| at + TOMBSTONE_MS <= now_ms || count > TOMBSTONES_MAX;
        while let Some((at, ..)) = gone.order.front()
            && is_over(*at, gone.order.len())
        {
            let (_, user, edge) = gone.order.pop_front().expect("it has a front");
            if gone.edges.get(&user) == Some(&edge) {
                gone.edges.remove(&user);
            }
        }
    }
}

/// A user connected to this node.
pub(super) struct Here {
    pub(super) connections: u32,
    pub(super) user_info: Option<Arc<str>>,
    pub(super) since: u64,
    /// The first change that says so, once asked.
    pub(super) asked: Option<crate::redis::records::Token>,
    /// Whether the records say so.
    pub(super) is_recorded: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str) -> Member {
        Member { user_id: UserId::parse(id, 100).expect("a valid id"), user_info: Some(format!("of {id}").into()) }
    }

    fn at(ms: u64) -> LogId {
        LogId::new(ms, 0)
    }

    /// RED-27
    #[test]
    fn stale_and_repeated_edges_change_nothing() {
        let mut told = Present::default();
        let ana = member("ana");
        assert!(told.add(&ana, at(5)));
        assert!(!told.add(&ana, at(5)), "a repeat");
        assert!(!told.remove(&ana.user_id, at(4), 0), "older than what is known");
        assert!(told.remove(&ana.user_id, at(7), 0));
        assert!(!told.add(&ana, at(6)), "an edge that was overtaken by the one after it");
        assert!(!told.remove(&ana.user_id, at(8), 0), "gone already");
        assert!(!told.add(&ana, at(8)));
        assert!(told.add(&ana, at(9)));
        assert_eq!(told.roster(), [ana]);
    }

    /// RED-27
    #[test]
    fn who_was_told_alone_is_so_until_an_edge_says_it() {
        let mut told = Present::default();
        let ana = member("ana");
        assert!(told.add_alone(&ana));
        assert!(!told.add_alone(&ana));
        assert!(told.is_told_alone(&ana.user_id));
        assert!(!told.add(&ana, at(3)));
        assert!(!told.is_told_alone(&ana.user_id));
        told.forget_places();
        assert!(!told.is_told_alone(&ana.user_id), "that an edge told of it is not forgotten");
        assert!(told.remove(&ana.user_id, at(2), 0), "the places of another primary may be lower");
    }

    /// RED-27
    #[test]
    fn the_order_of_coming_survives_any_number_of_departures() {
        let mut told = Present::default();
        let mut expected = Vec::new();
        for n in 0..500_u64 {
            let new = member(&format!("u{n}"));
            assert!(told.add(&new, at(2 * n + 1)));
            expected.push(new);
            if let Some(gone) = n.checked_sub(2).filter(|gone| gone % 10 != 0) {
                let gone = member(&format!("u{gone}"));
                assert!(told.remove(&gone.user_id, at(2 * n + 2), n));
                expected.retain(|member| *member != gone);
            }
            assert_eq!(told.roster(), expected);
            assert!(told.seats.len() <= 2 * expected.len() + HOLES_FREE);
        }
    }

    /// RED-27
    #[test]
    fn tombstones_are_few_and_do_not_last() {
        let mut told = Present::default();
        let count = |told: &Present| told.gone.as_ref().map_or(0, |gone| gone.edges.len());
        for n in 1..=2 * TOMBSTONES_MAX as u64 {
            told.remove(&member(&format!("u{n}")).user_id, at(n), 0);
        }
        assert_eq!(count(&told), TOMBSTONES_MAX);
        told.remove(&member("last").user_id, at(9_999), TOMBSTONE_MS);
        assert_eq!(count(&told), 1);
    }
}
