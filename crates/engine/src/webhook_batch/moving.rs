//! What another book has announced: the same stream worked on by another node, and subjects that move to another stream. And what this
//! one has, for whoever compares it with the truth.

use super::{HOLD_MS, Mark, Place, Presence, Record, Waits, WebhookBook, leave};
use crate::time::Moment;

/// By so much less a going is held that moves here. Where it came from it may still be told for as long as nobody has said there
/// that it has moved, and clocks of two stores differ: whoever is back after that is told to have come again, which is true of both.
const MOVED_EARLIER_MS: u64 = 1_000;

impl WebhookBook {
    /// Goes on with what another node had announced whose edges go on to come: it is here until they say otherwise. Call
    /// it once, after the first [`WebhookBook::set_apps`].
    pub fn believe(&mut self, announced: impl IntoIterator<Item = (Place, u64)>, records: &mut Vec<Record>) {
        for (place, generation) in announced {
            if self.is_wanted(&place) {
                self.present.insert(place, Presence { generation, heard: generation, held: None });
            } else {
                records.push(Record::Went { place });
            }
        }
    }

    /// Everything that came and whose going is not settled, in no order; and whether a going of it waits, for the end of its hold or to be
    /// sealed.
    pub fn believed(&self) -> impl Iterator<Item = (&Place, bool)> {
        let here = self.present.iter().map(|(place, presence)| (place, presence.held.is_some()));
        let going = self.waits_in.values().filter_map(|waits| match &waits.then {
            Some(Record::Went { place }) if !self.present.contains_key(place) => Some((place, true)),
            _ => None,
        });
        here.chain(going)
    }

    /// Takes over what another book has announced, under this generation, or (`None`) leaves it to another: nobody is told, and no
    /// going is held any more. `turn` is that of the entry that says so; it is settled behind what came before it of the same place, so
    /// that whoever reads the stream anew does not believe that again.
    pub fn learn(&mut self, place: Place, generation: Option<u64>, turn: u64, records: &mut Vec<Record>) {
        if let Some(held) = self.present.remove(&place).and_then(|presence| presence.held) {
            self.timers.remove(&held.timer);
            leave(held.mark, records);
        }
        let then = match generation.filter(|_| self.is_wanted(&place)) {
            Some(generation) => {
                self.present.insert(place.clone(), Presence { generation, heard: generation, held: None });
                Record::Came { place: place.clone(), generation }
            }
            None => Record::Went { place: place.clone() },
        };
        self.settle_behind(turn, Some(then), records);
    }

    /// An entry of which nothing is to be told is settled behind what waits in open batches of the same place, so that whoever reads the
    /// stream anew takes all of them again, or none.
    pub(super) fn settle_behind(&mut self, turn: u64, then: Option<Record>, records: &mut Vec<Record>) {
        let place = then.as_ref().and_then(Record::place);
        let of_place = |waits: &Waits| place.is_some() && waits.then.as_ref().and_then(Record::place) == place;
        let before = self.waits_in.iter_mut().filter(|(_, waits)| of_place(waits));
        match before.max_by_key(|(turn, _)| **turn) {
            Some((_, waits)) => {
                // Behind the end of a going it is seen that its subject is back.
                if !matches!((&waits.then, &then), (Some(Record::Went { .. }), Some(Record::Came { .. }))) {
                    waits.then = then;
                }
                waits.also.push(turn);
            }
            None => {
                records.push(Record::Settled { turn });
                records.extend(then);
            }
        }
    }

    /// The going before this coming that waits in some batch still, where others take it: whoever reads the stream anew is to take both
    /// again, or none. Behind its end it is seen that its subject is back.
    pub(super) fn going_before(&mut self, coming: u64, then: &Record) -> Option<&mut Waits> {
        let Record::Came { place, .. } = then else { return None };
        let is_going = |waits: &Waits| matches!(&waits.then, Some(Record::Went { place: of }) if of == place);
        let before = self.waits_in.iter_mut().filter(|(turn, waits)| **turn < coming && is_going(waits));
        before.max_by_key(|(turn, _)| **turn).map(|(_, waits)| waits)
    }

    /// What is true behind the end of this going, where its subject has come back and what waits does not say so: batches of several
    /// endpoints close in any order.
    pub(super) fn is_back(&self, then: &Record) -> Option<Record> {
        let Record::Went { place } = then else { return None };
        let Presence { generation, .. } = self.present.get(place)?;
        let is_coming = |waits: &Waits| matches!(&waits.then, Some(Record::Came { place: of, .. }) if of == place);
        let waits = self.waits_in.values().any(is_coming);
        (!waits).then(|| Record::Came { place: place.clone(), generation: *generation })
    }

    /// When the hold of a going ends that moved here together with what was announced, of which it has the generation: it is timed by
    /// when it happened. `None` for any other.
    pub(super) fn end_of_moved_hold(&self, place: &Place, mark: Option<&Mark>) -> Option<Moment> {
        let mark = mark?;
        let has_moved = self.present.get(place).is_some_and(|presence| mark.generation == Some(presence.generation));
        mark.happened.filter(|_| has_moved).map(|happened| happened.plus_ms(HOLD_MS - MOVED_EARLIER_MS))
    }
}
