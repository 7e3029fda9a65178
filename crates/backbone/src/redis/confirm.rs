//! Which publications of a lane a replica is asked for, and over which of its connections.
//!
//! `WAIT` speaks of what its connection wrote last, and so of everything that the server took before that, whichever way it
//! came. One is enough for many batches, and it blocks the connection it is asked on: so one is out at a time, behind the
//! batch that left last, and the other connection carries batches meanwhile. What leaves while it is out is asked for by
//! the next. Pure: it asks nobody.

use std::ops::RangeInclusive;

/// Connections of a lane.
pub const PIPES: usize = 2;

/// What a lane has asked of replicas, and has yet to ask.
#[derive(Debug, Default)]
pub struct Confirmation {
    /// Items in the log, or on their way to it, that no replica was asked for.
    open: Option<RangeInclusive<u64>>,
    /// The batch that left last, while its connection lives.
    last: Option<Carried>,
    out: Option<Out>,
}

/// A batch, and what carried it.
#[derive(Debug, Clone, Copy)]
struct Carried {
    pipe: usize,
    /// Its number among all batches of the lane.
    sent: u64,
    /// Number of its first item.
    first: u64,
}

/// A `WAIT` that has no answer yet.
#[derive(Debug)]
struct Out {
    behind: Carried,
    /// What its answer is about; nothing, once that was refused or goes to another log.
    items: Option<RangeInclusive<u64>>,
}

impl Confirmation {
    /// A batch left over a connection; `is_wanted` if somebody waits until a replica has it.
    pub fn carried(&mut self, pipe: usize, sent: u64, batch: &RangeInclusive<u64>, is_wanted: bool) {
        self.last = Some(Carried { pipe, sent, first: *batch.start() });
        if is_wanted {
            self.reopen(Some(batch.clone()));
        }
    }

    /// The connection to ask on now, and the batch it is asked behind.
    pub fn ask(&mut self) -> Option<(usize, u64)> {
        if self.out.is_some() {
            return None;
        }
        let behind = self.last?;
        let items = Some(self.open.take()?);
        self.out = Some(Out { behind, items });
        Some((behind.pipe, behind.sent))
    }

    /// What was asked for behind this batch is answered: says what that was about.
    pub fn answered(&mut self, pipe: usize, sent: u64) -> Option<RangeInclusive<u64>> {
        self.out.take_if(|out| (out.behind.pipe, out.behind.sent) == (pipe, sent))?.items
    }

    /// A batch was not appended: what is asked behind it speaks of an older one, and it goes again.
    pub fn refused(&mut self, sent: u64) {
        let Some(batch) = self.last.take_if(|last| last.sent == sent) else { return };
        if let Some(out) = self.out.as_mut().filter(|out| out.behind.sent == sent) {
            let items = out.items.take();
            self.reopen(items);
        }
        self.open = self.open.take().map(|open| *open.start()..=(*open.end()).min(batch.first - 1));
        self.open.take_if(|open| open.is_empty());
    }

    /// What was asked for behind this batch was refused, or its answer is lost: it is asked for behind what is written next.
    pub fn unanswered(&mut self, pipe: usize, sent: u64) {
        let items = self.answered(pipe, sent);
        self.reopen(items);
    }

    /// A connection is gone, or new: a word behind what was written over it would say nothing.
    pub fn lost(&mut self, pipe: usize) {
        self.last.take_if(|last| last.pipe == pipe);
        if let Some(out) = self.out.take_if(|out| out.behind.pipe == pipe) {
            self.reopen(out.items);
        }
    }

    /// Another log is written now, or this one from another place: what it lacks comes as batches again.
    pub fn forget(&mut self) {
        (self.open, self.last) = (None, None);
        if let Some(out) = &mut self.out {
            out.items = None;
        }
    }

    /// Whether somebody waits for a replica to have this item.
    #[must_use]
    pub fn is_awaited(&self, item: u64) -> bool {
        let asked = self.out.as_ref().and_then(|out| out.items.as_ref());
        [asked, self.open.as_ref()].into_iter().flatten().any(|items| items.contains(&item))
    }

    /// Whether an answer is due.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// Whether a connection takes nothing else until it has answered.
    #[must_use]
    pub fn blocks(&self, pipe: usize) -> bool {
        self.out.as_ref().is_some_and(|out| out.behind.pipe == pipe)
    }

    /// Items are in one order, and each is asked for from some batch on: what lies between was asked for before.
    fn reopen(&mut self, items: Option<RangeInclusive<u64>>) {
        let Some(items) = items else { return };
        self.open = Some(match self.open.take() {
            Some(open) => *open.start().min(items.start())..=*open.end().max(items.end()),
            None => items,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lane whose first batch, of these items, left over the first connection and is asked for.
    fn one_that_asks(items: RangeInclusive<u64>) -> Confirmation {
        let mut lane = Confirmation::default();
        lane.carried(0, 1, &items, true);
        assert_eq!(lane.ask(), Some((0, 1)));
        lane
    }

    /// RED-12
    #[test]
    fn one_wait_is_out_and_the_next_is_about_all_that_left_meanwhile() {
        let mut lane = one_that_asks(1..=1);
        assert!(lane.blocks(0) && !lane.blocks(1), "the other connection carries batches meanwhile");
        for sent in 2..=4 {
            lane.carried(1, sent, &(sent..=sent), true);
            assert_eq!(lane.ask(), None);
        }
        assert_eq!(lane.answered(0, 1), Some(1..=1));
        assert_eq!(lane.ask(), Some((1, 4)), "behind the one that left last");
        assert!(lane.is_awaited(2) && lane.is_awaited(4) && !lane.is_awaited(1));
        assert_eq!(lane.answered(1, 4), Some(2..=4));
        assert!(lane.ask().is_none() && !lane.is_out());
    }

    /// RED-13
    #[test]
    fn nothing_is_asked_where_nobody_waits_but_what_others_wait_for_is_asked_behind_it() {
        let mut lane = Confirmation::default();
        lane.carried(0, 1, &(1..=3), false);
        assert_eq!(lane.ask(), None);
        lane.carried(0, 2, &(4..=4), true);
        lane.carried(1, 3, &(5..=6), false);
        assert_eq!(lane.ask(), Some((1, 3)));
        assert_eq!(lane.answered(1, 3), Some(4..=4));
    }

    /// RED-13
    #[test]
    fn what_was_refused_is_in_no_answer() {
        let mut lane = one_that_asks(1..=1);
        lane.carried(1, 2, &(2..=2), true);
        lane.answered(0, 1);
        lane.carried(0, 3, &(3..=5), true);
        assert_eq!(lane.ask(), Some((0, 3)), "about 2 to 5");
        lane.refused(3);
        assert_eq!(lane.ask(), None, "its connection is asked still, about something older");
        assert!(lane.blocks(0) && lane.is_awaited(2) && !lane.is_awaited(3));
        assert_eq!(lane.answered(0, 3), None);
        assert_eq!(lane.ask(), None, "nothing left over a connection that is known to be behind 2");
        lane.carried(0, 4, &(3..=4), true);
        assert_eq!(lane.ask(), Some((0, 4)));
        assert_eq!(lane.answered(0, 4), Some(2..=4));
    }

    /// RED-13
    #[test]
    fn a_batch_refused_before_it_was_asked_for_leaves_what_came_before_it() {
        let mut lane = one_that_asks(1..=1);
        lane.carried(1, 2, &(2..=2), true);
        lane.carried(1, 3, &(3..=3), true);
        lane.refused(3);
        assert!(lane.is_awaited(2) && !lane.is_awaited(3));
        assert_eq!(lane.answered(0, 1), Some(1..=1));
        assert_eq!(lane.ask(), None);
        lane.refused(2);
        assert!(lane.is_awaited(2), "only what left last can be refused");
    }

    /// RED-13
    #[test]
    fn what_a_lost_connection_wrote_is_asked_for_behind_what_is_written_next() {
        let mut lane = one_that_asks(1..=1);
        lane.carried(1, 2, &(2..=2), true);
        lane.lost(0);
        assert_eq!(lane.ask(), Some((1, 2)));
        lane.lost(1);
        assert_eq!(lane.answered(1, 2), None, "a late word of a connection that is gone");
        assert_eq!(lane.ask(), None, "a new connection has written nothing: all replicas have that");
        lane.carried(1, 3, &(3..=3), false);
        assert_eq!(lane.ask(), Some((1, 3)));
        assert_eq!(lane.answered(1, 3), Some(1..=2));
    }

    /// RED-13
    #[test]
    fn what_had_no_answer_is_asked_for_again() {
        let mut lane = one_that_asks(1..=2);
        lane.unanswered(0, 9);
        assert!(lane.is_out(), "that was another question");
        // The answer is lost before the connection is known to be.
        lane.unanswered(0, 1);
        lane.lost(0);
        assert!(lane.is_awaited(1) && lane.ask().is_none());
        lane.carried(1, 2, &(3..=3), true);
        assert_eq!(lane.ask(), Some((1, 2)));
        assert_eq!(lane.answered(1, 2), Some(1..=3));
    }

    /// RED-14
    #[test]
    fn on_another_log_only_what_is_appended_there_is_asked_for() {
        let mut lane = one_that_asks(1..=9);
        lane.carried(1, 2, &(10..=12), true);
        lane.forget();
        assert!(lane.is_out() && !lane.is_awaited(1) && !lane.is_awaited(12));
        lane.carried(1, 3, &(4..=6), true);
        assert_eq!(lane.answered(0, 1), None);
        assert_eq!(lane.ask(), Some((1, 3)));
        assert_eq!(lane.answered(1, 3), Some(4..=6));
    }
}
