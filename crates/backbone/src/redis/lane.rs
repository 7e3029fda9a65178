//! What this node has published to a group and may have to publish again.
//!
//! A lane numbers publications without a gap. Its items leave in order, one batch at a time, to the log of the believed
//! primary, and, while that is in doubt, also over the bus from a cursor that can be wound back. An item stays until the log
//! has had it for a while: when the primary changes, the new one's log says what is the last it has, and the rest goes
//! again. Pure: it sends nothing and looks at no clock.

mod item;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashSet;

use self::item::ITEM_BYTES;
pub use self::item::{Item, Spec};
use super::topic::Slot;
use super::withdrawn::Withdrawn;

/// Lanes of a node to a group. Two: what comes for one gathers while the other's batch is under way.
pub const LANES: usize = 2;

/// One slot always goes over the same lane, whatever group it is in: by the parity of its bits, since slots go round the groups.
#[must_use]
pub fn lane_of(slot: Slot) -> usize {
    usize::try_from(slot.0.count_ones()).unwrap_or(0) % LANES
}

/// What one batch carries at most.
#[derive(Debug, Clone, Copy)]
pub struct BatchMax {
    /// Items.
    pub items: usize,
    /// Bytes of their messages; the first item goes whatever it weighs.
    pub bytes: usize,
}

/// Publications of one node to one group, numbered from 1.
#[derive(Default)]
pub struct Lane {
    items: VecDeque<Item>,
    /// Number of the first item kept; one more than were ever dropped.
    first: u64,
    /// The believed primary's log has everything up to this.
    logged: u64,
    in_flight: Option<RangeInclusive<u64>>,
    /// Nobody waits for what no log has before this number.
    waits_from: u64,
    /// Next number that goes over the bus.
    bus_next: u64,
    unlogged_bytes: u64,
    /// Bytes that it ever took.
    taken: u64,
}

impl Lane {
    /// An empty lane.
    #[must_use]
    pub fn new() -> Self {
        Self { first: 1, bus_next: 1, ..Self::default() }
    }

    /// Number of the next item.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    /// Bytes of what no log has yet.
    #[must_use]
    pub fn unlogged_bytes(&self) -> u64 {
        self.unlogged_bytes
    }

    /// What that takes of the room for it: also what was taken back.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.unlogged_bytes + ITEM_BYTES * (self.next() - self.unlogged_from())
    }

    /// Takes a publication.
    pub fn push(&mut self, item: Item) -> &mut Item {
        let bytes = item.message.len() as u64;
        self.unlogged_bytes += bytes;
        self.items.push_back(Item { behind: self.taken, ..item });
        self.taken += bytes;
        self.items.back_mut().expect("it was pushed just now")
    }

    /// The item with this number, if it is still here.
    #[must_use]
    pub fn item(&self, number: u64) -> Option<&Item> {
        self.items.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn item_mut(&mut self, number: u64) -> Option<&mut Item> {
        self.items.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Whether the log must be told to accept a gap before this number, because what lay there was dropped long ago.
    #[must_use]
    pub fn begins(&self, number: u64) -> bool {
        number == self.first
    }

    /// Whether something is to be appended, and nothing is on its way.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.in_flight.is_none() && self.unlogged_from() < self.next()
    }

    /// The last number that the log is known to have.
    #[must_use]
    pub fn logged_to(&self) -> u64 {
        self.logged
    }

    /// When the first item was accepted that no log has.
    #[must_use]
    pub fn waits_since(&self) -> Option<Duration> {
        self.item(self.unlogged_from()).map(|item| item.accepted_at)
    }

    /// The first number that no log has.
    fn unlogged_from(&self) -> u64 {
        (self.logged + 1).max(self.first)
    }

    /// What is to be appended now, if nothing is on its way.
    pub fn take_batch(&mut self, max: BatchMax) -> Option<RangeInclusive<u64>> {
        if self.in_flight.is_some() {
            return None;
        }
        let batch = self.batch_from(self.unlogged_from(), max)?;
        self.in_flight = Some(batch.clone());
        Some(batch)
    }

    fn batch_from(&self, from: u64, max: BatchMax) -> Option<RangeInclusive<u64>> {
        let skipped = usize::try_from(from.checked_sub(self.first)?).ok()?;
        let mut bytes = 0;
        let fitting = self.items.range(skipped.min(self.items.len())..).take(max.items).take_while(|item| {
            let is_first = bytes == 0;
            bytes += item.message.len().max(1);
            is_first || bytes <= max.bytes
        });
        let count = fitting.count() as u64;
        (count > 0).then(|| from..=from + count - 1)
    }

    /// What is on its way to the log.
    #[must_use]
    pub fn in_flight(&self) -> Option<RangeInclusive<u64>> {
        self.in_flight.clone()
    }

    /// The log has everything up to `last`; the batch may still wait for a replica.
    pub fn logged(&mut self, now: Duration, last: u64) {
        let last = last.min(self.next() - 1);
        for number in self.unlogged_from()..=last {
            let Some(item) = self.item_mut(number) else { continue };
            item.logged_at = Some(now);
            self.unlogged_bytes = self.unlogged_bytes.saturating_sub(self.bytes_of(number));
        }
        self.logged = self.logged.max(last);
    }

    fn bytes_of(&self, number: u64) -> u64 {
        self.item(number).map_or(0, |item| item.message.len() as u64)
    }

    /// Nothing is on its way any more: it was answered, refused, or the connection is gone.
    pub fn settle(&mut self) {
        self.in_flight = None;
    }

    /// A primary is believed whose log has everything up to `last`. Says how many items that had been logged go again.
    pub fn attached(&mut self, now: Duration, last: u64) -> u64 {
        let last = last.clamp(self.first - 1, self.next() - 1);
        self.in_flight = None;
        // A batch whose answer was lost: what is never marked would never be dropped, nor anything behind it.
        self.logged(now, last);
        let again = self.logged.saturating_sub(last);
        for number in last + 1..=self.logged {
            if let Some(item) = self.item_mut(number) {
                item.logged_at = None;
            }
            self.unlogged_bytes += self.bytes_of(number);
        }
        self.logged = last;
        self.waits_from = self.waits_from.min(last + 1);
        again
    }

    /// Whether somebody waits until a replica has an item in this range.
    #[must_use]
    pub fn needs_replica(&self, range: RangeInclusive<u64>) -> bool {
        range.into_iter().filter_map(|number| self.item(number)).any(|item| item.needs_replica && item.call.is_some())
    }

    /// The highest counter below `below` among this origin's own publications in this range; 0 without any: what is there in place of a
    /// dead node is not its own.
    #[must_use]
    pub fn last_of(&self, origin: u64, range: RangeInclusive<u64>, below: u64) -> u64 {
        let counters = range.filter_map(|number| self.item(number)?.counter_of(origin));
        counters.filter(|counter| *counter < below).max().unwrap_or(0)
    }

    /// Those who wait for items in this range, which the log has, and a replica too if `has_replica`. Each is named once per
    /// item and waits no more for it. Answers how many of them need a replica.
    pub fn accept(&mut self, range: RangeInclusive<u64>, has_replica: bool, accepted: &mut Vec<u64>) -> u64 {
        let mut needing = 0;
        for number in range {
            let Some(item) = self.item_mut(number).filter(|item| has_replica || !item.needs_replica) else { continue };
            if let Some(call) = item.call.take() {
                accepted.push(call);
                needing += u64::from(item.needs_replica);
            }
        }
        needing
    }

    /// These calls were answered as failed: what no log has of them becomes empty entries.
    pub fn withdraw(&mut self, calls: &HashSet<u64>, withdrawn: &mut Withdrawn) {
        self.waits_from = self.waits_from.max(self.unlogged_from());
        // However long no log takes anything, only those are looked at again for whom somebody waits, and what came behind them.
        while self.item(self.waits_from).is_some_and(|item| item.call.is_none()) {
            self.waits_from += 1;
        }
        let freed: u64 = self.awaited_mut().map(|item| item.withdraw(calls, withdrawn)).sum();
        self.unlogged_bytes = self.unlogged_bytes.saturating_sub(freed);
    }

    /// What followed one of those that were just withdrawn follows the one before it.
    pub fn pass(&mut self, withdrawn: &Withdrawn) {
        self.awaited_mut().for_each(|item| item.pass(withdrawn));
    }

    fn awaited_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        let from = self.waits_from.max(self.unlogged_from());
        let skipped = usize::try_from(from - self.first).unwrap_or(usize::MAX).min(self.items.len());
        self.items.range_mut(skipped..)
    }

    /// Takes out what no log has of a slot, in its order; empty entries keep the numbers. Not while an answer is awaited that
    /// may say that the log has it.
    pub fn take_slots(&mut self, is_wanted: impl Fn(Slot) -> bool, taken: &mut Vec<Item>) {
        for number in self.unlogged_from()..self.next() {
            let Some(item) = self.item_mut(number) else { continue };
            if item.message.is_empty() || !is_wanted(item.topic.slot()) {
                continue;
            }
            let left = Item { message: Bytes::new(), call: None, spec: Spec::default(), ..item.clone() };
            let item = std::mem::replace(item, left);
            self.unlogged_bytes = self.unlogged_bytes.saturating_sub(item.message.len() as u64);
            taken.push(item);
        }
    }

    /// Drops what the log has had for `age`.
    pub fn trim(&mut self, now: Duration, age: Duration) {
        while self.first <= self.logged
            && self.items.front().is_some_and(|item| item.logged_at.is_some_and(|at| now >= at + age))
        {
            self.items.pop_front();
            self.first += 1;
        }
        self.bus_next = self.bus_next.max(self.first);
    }

    /// The bus carries everything from the first item that no log has, or that was accepted after `since`.
    pub fn wind_back(&mut self, since: Duration) {
        self.bus_back_to(since);
        self.bus_back(self.logged + 1);
    }

    /// The bus carries what was accepted after `since` once more.
    pub fn bus_back_to(&mut self, since: Duration) {
        let recent = self.items.iter().position(|item| item.accepted_at >= since);
        recent.into_iter().for_each(|at| self.bus_back(self.first + at as u64));
    }

    /// The bus goes back to this number, if it is beyond it.
    pub fn bus_back(&mut self, number: u64) {
        self.bus_next = self.bus_next.min(number).max(self.first);
    }

    /// Everything that is new from now on goes over the bus no more.
    pub fn leave_bus(&mut self) {
        self.bus_next = self.next();
    }

    /// What the bus has yet to carry and no log has, in its order.
    pub fn waiting_for_bus(&self) -> impl Iterator<Item = &Item> {
        let from = self.bus_next.max(self.unlogged_from());
        let skipped = usize::try_from(from - self.first).unwrap_or(usize::MAX).min(self.items.len());
        self.items.range(skipped..)
    }

    /// How many bytes that is, withdrawn ones among them.
    #[must_use]
    pub fn bytes_for_bus(&self) -> u64 {
        self.waiting_for_bus().next().map_or(0, |item| self.taken - item.behind)
    }

    /// What goes over the bus next.
    #[must_use]
    pub fn bus_batch(&self, max: BatchMax) -> Option<RangeInclusive<u64>> {
        self.batch_from(self.bus_next, max)
    }

    /// The bus goes on from this number.
    pub fn set_bus_next(&mut self, number: u64) {
        self.bus_next = number.max(self.first);
    }
}

#[cfg(test)]
mod tests {
    use fulmar_protocol::app::AppId;
    use fulmar_protocol::name::ChannelName;

    use super::*;
    use crate::redis::envelope::{Event, Message, Previous};
    use crate::redis::topic::Topic;

    const MAX: BatchMax = BatchMax { items: 3, bytes: 100 };
    const S: fn(u64) -> Duration = Duration::from_secs;

    fn item(now: Duration, bytes: usize, call: Option<u64>) -> Item {
        let topic = Topic::channel(&AppId::new("1"), &ChannelName::parse("room", 200).expect("a valid name"));
        Item { call, ..Item::new(now, topic, Bytes::from(vec![b'x'; bytes]), Spec::default()) }
    }

    fn lane(items: u64) -> Lane {
        let mut lane = Lane::new();
        for call in 1..=items {
            lane.push(item(S(call), 10, Some(call)));
        }
        lane
    }

    /// RED-12
    #[test]
    fn batches_leave_in_order_and_one_at_a_time() {
        let mut lane = lane(5);
        assert!(lane.is_due());
        assert_eq!(lane.take_batch(MAX), Some(1..=3));
        assert!(!lane.is_due());
        assert_eq!(lane.take_batch(MAX), None);
        lane.logged(S(9), 3);
        lane.settle();
        assert!(lane.is_due());
        assert_eq!(lane.take_batch(MAX), Some(4..=5));
        assert_eq!(lane.unlogged_bytes(), 20);
        lane.logged(S(9), 5);
        lane.settle();
        assert!(!lane.is_due(), "the log has all");
    }

    /// RED-17
    #[test]
    fn how_far_its_node_has_come_is_said_of_its_own_publications_and_stops_before_one_that_waits() {
        let said = |counter| Item { message: Event::bare(counter, None).encode(), ..item(S(0), 0, None) };
        let mut lane = Lane::new();
        // One with a lower number came over from another group, one was withdrawn, and one is no publication.
        [said(5), said(9), said(7), item(S(0), 0, None), item(S(0), 10, None)].into_iter().for_each(|item| {
            lane.push(item);
        });
        let own = Event::identity_of(&said(1).message).expect("an event").origin;
        assert_eq!(lane.last_of(own, 1..=5, u64::MAX), 9);
        assert_eq!(lane.last_of(own, 1..=5, 9), 7);
        assert_eq!(lane.last_of(own, 4..=5, u64::MAX), 0);
        assert_eq!(lane.last_of(own + 1, 1..=5, u64::MAX), 0, "what is there in place of another node");
    }

    /// RED-12
    #[test]
    fn a_batch_is_bounded_in_bytes_but_never_empty() {
        let mut lane = Lane::new();
        for bytes in [500, 60, 60] {
            lane.push(item(S(0), bytes, None));
        }
        assert_eq!(lane.take_batch(MAX), Some(1..=1));
        lane.logged(S(0), 1);
        lane.settle();
        assert_eq!(lane.take_batch(MAX), Some(2..=2));
    }

    /// RED-14
    #[test]
    fn what_a_new_primary_lacks_goes_again_however_long_it_was_logged() {
        let mut lane = lane(6);
        lane.take_batch(MAX);
        lane.logged(S(9), 3);
        lane.settle();
        lane.take_batch(MAX);
        assert_eq!(lane.attached(S(10), 1), 2, "two that the old log had");
        assert_eq!(lane.unlogged_bytes(), 50);
        assert_eq!(lane.take_batch(MAX), Some(2..=4));
        assert_eq!(lane.attached(S(11), 99), 0, "a log cannot have what was never sent");
        assert_eq!(lane.take_batch(MAX), None);
    }

    /// RED-14
    #[test]
    fn what_the_log_has_had_long_enough_is_dropped_and_nothing_else() {
        let mut lane = lane(4);
        lane.logged(S(10), 2);
        lane.trim(S(39), S(30));
        assert!(lane.item(1).is_some());
        lane.trim(S(1_000), S(30));
        assert!(lane.item(2).is_none() && lane.item(3).is_some(), "what is not logged is never dropped by age");
        assert_eq!(lane.take_batch(MAX), Some(3..=4));
        assert_eq!(lane.attached(S(1_000), 0), 0, "what was dropped cannot go again");
        assert_eq!(lane.take_batch(MAX), Some(3..=4));
        assert!(lane.begins(3));
    }

    /// RED-14
    #[test]
    fn what_the_log_has_though_its_answer_was_lost_is_dropped_like_the_rest() {
        let mut lane = lane(4);
        lane.take_batch(MAX);
        assert_eq!(lane.attached(S(10), 3), 0, "the batch had arrived");
        assert_eq!(lane.unlogged_bytes(), 10);
        assert_eq!(lane.take_batch(MAX), Some(4..=4));
        lane.logged(S(20), 4);
        lane.trim(S(39), S(30));
        assert!(lane.item(1).is_some());
        lane.trim(S(50), S(30));
        assert_eq!((lane.item(1).is_none(), lane.item(4).is_none()), (true, true));
    }

    /// RED-21
    #[test]
    fn the_bus_begins_with_what_is_unanswered_or_recent() {
        let mut lane = lane(6);
        lane.logged(S(6), 5);
        lane.leave_bus();
        assert_eq!(lane.bus_batch(MAX), None);
        lane.wind_back(S(4));
        assert_eq!(lane.bus_batch(MAX), Some(4..=6), "accepted at 4 s and later");
        lane.wind_back(S(100));
        assert_eq!(lane.bus_batch(MAX), Some(4..=6), "winding back never winds forward");
        lane.leave_bus();
        lane.wind_back(S(100));
        assert_eq!(lane.bus_batch(MAX), Some(6..=6), "unanswered");
        lane.set_bus_next(7);
        assert_eq!(lane.bus_batch(MAX), None);
        lane.push(item(S(7), 1, None));
        assert_eq!(lane.bus_batch(MAX), Some(7..=7));
    }

    /// RED-23
    #[test]
    fn for_those_who_have_just_come_the_bus_goes_back_a_moment_however_much_no_log_has() {
        let mut lane = lane(6);
        lane.set_bus_next(7);
        lane.bus_back_to(S(100));
        assert_eq!(lane.bus_batch(MAX), None, "all that is longer ago");
        lane.bus_back_to(S(5));
        assert_eq!(lane.bus_batch(MAX), Some(5..=6));
        lane.wind_back(S(5));
        assert_eq!(lane.bus_batch(MAX), Some(1..=3), "who was deaf may have heard none of it");
    }

    /// RED-13
    #[test]
    fn everybody_who_waits_is_named_once() {
        let mut lane = lane(3);
        let mut accepted = Vec::new();
        lane.push(Item { needs_replica: true, ..item(S(4), 1, Some(4)) });
        lane.accept(1..=2, false, &mut accepted);
        lane.accept(1..=4, false, &mut accepted);
        assert_eq!(accepted, [1, 2, 3], "the fourth waits for a replica");
        assert!(lane.needs_replica(1..=4) && !lane.needs_replica(1..=3));
        lane.accept(1..=4, true, &mut accepted);
        assert_eq!(accepted, [1, 2, 3, 4]);
    }

    /// RED-11
    #[test]
    fn a_slot_that_moves_takes_along_what_no_log_has() {
        let mut lane = Lane::new();
        (0..4).for_each(|number| _ = lane.push(item(S(0), 2, Some(number))));
        lane.logged(S(1), 1);
        let mut taken = Vec::new();
        lane.take_slots(|_| false, &mut taken);
        assert!(taken.is_empty());
        lane.take_slots(|_| true, &mut taken);
        assert_eq!(taken.iter().map(|item| item.call).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
        assert_eq!((lane.unlogged_bytes(), lane.next()), (0, 5));
        assert_eq!(lane.take_batch(MAX), Some(2..=4), "the numbers stay");
        assert!(lane.item(2).is_some_and(|item| item.message.is_empty() && item.call.is_none()));
        taken.clear();
        lane.take_slots(|_| true, &mut taken);
        assert!(taken.is_empty(), "once");
    }

    /// RED-4
    #[test]
    fn a_withdrawn_publication_leaves_its_number_behind() {
        let mut lane = lane(3);
        let mut withdrawn = Withdrawn::default();
        lane.withdraw(&HashSet::from([2]), &mut withdrawn);
        assert_eq!(lane.take_batch(MAX), Some(1..=3));
        assert!(lane.item(2).is_some_and(|item| item.message.is_empty() && item.call.is_none()));
        assert_eq!(lane.unlogged_bytes(), 20);
        lane.logged(S(9), 3);
        lane.withdraw(&HashSet::from([3]), &mut withdrawn);
        assert!(lane.item(3).is_some_and(|item| !item.message.is_empty()), "the log has it: it may have been heard");
    }

    /// RED-4, RED-14
    #[test]
    fn what_was_taken_back_takes_room_until_a_log_has_its_number() {
        let mut lane = lane(4);
        assert_eq!(lane.weight(), 40 + 4 * ITEM_BYTES);
        lane.withdraw(&HashSet::from([1, 2, 3]), &mut Withdrawn::default());
        assert_eq!((lane.unlogged_bytes(), lane.weight()), (10, 10 + 4 * ITEM_BYTES));
        lane.logged(S(9), 4);
        assert_eq!(lane.weight(), 0);
    }

    /// RED-4
    #[test]
    fn who_waits_is_found_behind_whom_nobody_waits_for_and_again_in_another_log() {
        let is_taken_back = |lane: &Lane, number| lane.item(number).is_some_and(|item| item.message.is_empty());
        let withdraw = |lane: &mut Lane, call| lane.withdraw(&HashSet::from([call]), &mut Withdrawn::default());
        let mut lane = lane(3);
        // A client's event.
        lane.push(item(S(4), 10, None));
        lane.push(item(S(5), 10, Some(5)));
        for call in [2, 1, 3, 5] {
            withdraw(&mut lane, call);
            assert!(is_taken_back(&lane, call));
        }
        assert!(!is_taken_back(&lane, 4));
        lane.push(item(S(6), 10, Some(6)));
        lane.push(item(S(7), 10, Some(7)));
        // Both wait for a replica; the server is lost, and the next one has neither.
        lane.logged(S(8), 7);
        withdraw(&mut lane, 0);
        lane.attached(S(9), 5);
        withdraw(&mut lane, 6);
        assert!(is_taken_back(&lane, 6) && !is_taken_back(&lane, 7));
    }

    /// RED-4
    #[test]
    fn what_followed_a_withdrawn_publication_says_that_it_follows_the_one_before() {
        let follows = |counter| Some(Previous { counter, ms_before: 10 });
        let mut lane = Lane::new();
        for counter in 1..=3 {
            let message = Event::bare(counter, follows(counter - 1)).encode();
            lane.push(Item { message, ..item(S(0), 0, Some(counter)) });
        }
        let mut withdrawn = Withdrawn::default();
        lane.withdraw(&HashSet::from([2]), &mut withdrawn);
        lane.pass(&withdrawn);
        let message = &lane.item(3).expect("it waits").message;
        let Some(Message::Event(event)) = Message::decode(message) else { panic!("an event") };
        assert_eq!(event.previous, Some(Previous { counter: 1, ms_before: 20 }));
        assert_eq!(event.identity.counter, 3);
        assert!(lane.item(2).is_some_and(|item| item.message.is_empty()), "what is taken back stays so");
    }
}
