//! Edges that a change of primary may lose: what a script has left in the outbox is kept here for half a minute, and left again on
//! a primary that does not have it (rule 32).
//!
//! Whether it has is known for certain: each call writes its number beside its edges, and a replica has either both or neither. One
//! that loses everything may have been taken into use again by another node before this one asks for anything: so it is asked also
//! when it has lost this node's lease, and no change is made where the edges before it are not.
//! So nothing that was told and taken out of the outbox comes back; and what does come back keeps its place as its generation,
//! by which receivers know it. Before all is left again no other change is made: it would write a higher number.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::values;

/// How long an edge is kept. A primary that is promoted lacks less than that.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// Edges that are kept at most. When there are more, the oldest are not left again.
const KEPT_MAX: usize = 16_384;
/// Edges in one call, about: those of one call of then are never divided.
const CALL_MAX: usize = 100;

/// An edge as it lay in the outbox.
#[derive(Debug)]
struct Kept {
    since: Instant,
    call: u64,
    part: u64,
    place: String,
    informs: bool,
    fields: Vec<Vec<u8>>,
}

/// What is known of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// It has all edges.
    Whole,
    /// It is to be asked.
    Unknown,
    /// It has those of the calls up to this one.
    Until(u64),
}

/// See the head of this file.
#[derive(Debug)]
pub struct Again {
    kept: VecDeque<Kept>,
    calls: u64,
    sight: Sight,
    /// Edges that were left again.
    pub edges: u64,
}

impl Again {
    pub fn new() -> Self {
        Self { kept: VecDeque::new(), calls: 0, sight: Sight::Whole, edges: 0 }
    }

    /// The number of the next call.
    pub fn call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    /// Takes what a call has left, as its script says it.
    pub fn keep(&mut self, now: Instant, call: u64, left: &[Value]) {
        for entry in left.iter().map(values::items) {
            let [part, place, informs, fields @ ..] = entry else { continue };
            let (Some(part), Some(place)) = (values::number(part), values::text(place)) else { continue };
            self.kept.push_back(Kept {
                since: now,
                call,
                part: part.unsigned_abs(),
                place,
                informs: values::number(informs) == Some(1),
                fields: fields.iter().filter_map(values::bytes).map(<[u8]>::to_vec).collect(),
            });
        }
        self.trim(now);
    }

    fn trim(&mut self, now: Instant) {
        let is_over = |kept: &Kept| now.saturating_duration_since(kept.since) > KEPT_FOR;
        while self.kept.len() > KEPT_MAX || self.kept.front().is_some_and(is_over) {
            self.kept.pop_front();
        }
    }

    /// The last call whose edges are kept; 0 when there is none.
    pub fn last(&self) -> u64 {
        self.kept.back().map_or(0, |kept| kept.call)
    }

    /// Another connection, another primary, or one that has lost something: it is to be asked what it has.
    pub fn doubt(&mut self, now: Instant) {
        self.trim(now);
        self.sight = if self.kept.is_empty() { Sight::Whole } else { Sight::Unknown };
    }

    /// Others have taken this node for dead, and its numbers away.
    pub fn forget(&mut self) {
        self.kept.clear();
        self.sight = Sight::Whole;
    }

    /// Adds what is to be said next to a call of the script, and answers the last call whose edges that are, if any; `None` when the
    /// primary has everything.
    pub fn next(&mut self, call: impl FnOnce() -> Cmd) -> Option<(Option<u64>, Cmd)> {
        let last = match self.sight {
            Sight::Whole => return None,
            Sight::Unknown => {
                let mut cmd = call();
                cmd.arg("");
                return Some((None, cmd));
            }
            Sight::Until(last) => last,
        };
        let first = self.kept.partition_point(|kept| kept.call <= last);
        let Some(until) = self.kept.iter().skip(first).take(CALL_MAX).next_back().map(|kept| kept.call) else {
            self.sight = Sight::Whole;
            return None;
        };
        let lost: Vec<&Kept> = self.kept.iter().skip(first).take_while(|kept| kept.call <= until).collect();
        self.edges += lost.len() as u64;
        let mut cmd = call();
        cmd.arg(until);
        for kept in lost {
            cmd.arg(kept.call).arg(kept.part).arg(&kept.place).arg(u8::from(kept.informs)).arg(kept.fields.len());
            kept.fields.iter().for_each(|field| _ = cmd.arg(&field[..]));
        }
        Some((Some(until), cmd))
    }

    /// The script has answered: it knew calls up to `last` before, and has those up to `until` now.
    pub fn answered(&mut self, last: u64, until: Option<u64>) {
        self.sight = Sight::Until(until.unwrap_or(last));
    }
}
