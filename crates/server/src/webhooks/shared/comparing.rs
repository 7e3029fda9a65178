//! When what a part announced as come is compared with the records, and in which steps.
//!
//! An edge is left once, by whoever made it, and there are damages that take it along, with all that its node remembers; and where a
//! store goes back, an edge may be none, because the records of then had it already. So each time that absence of a record means
//! something anew (see [`Turn::sight`]), whatever is announced and on no record is told to be gone, and then whatever is on record and was
//! never announced is told to have come.
//!
//! Pure. It is done once in each sight, whoever works the part, and from the beginning where the part changes hands in between.

use std::collections::BTreeMap;

use fulmar_backbone::redis::outbox::{Compared, Further, SearchFrom, Searched, Sighted, Turn};
use fulmar_protocol::app::AppId;
use fulmar_protocol::webhook::Subject;

/// For so long after a loss of everything nothing is compared: nodes come back within that, and are not known to the group before. A
/// going is then held for as long again, and taken back by whoever puts a record right.
const BACK_MS: u64 = 3_000;
/// Between two searches for the same: more than the store takes for being sure.
const AGAIN_MS: u64 = 3_500;
/// Subjects in one step. The store looks at fewer where there are many nodes.
const STEP_MAX: usize = 256;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Comparing {
    parts: BTreeMap<u16, Under>,
    /// By the store's clock, as the last turn said.
    now_ms: u64,
}

/// A part that is being compared.
#[derive(Debug)]
struct Under {
    of: Sighted,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    /// What was announced, and not looked at yet; `None` before the first step.
    Announced(Option<Vec<(AppId, Subject)>>),
    /// The records.
    Records(SearchFrom),
    /// The records once more, from then on: what is found again is no damage that is about to be mended.
    RecordsAgain(u64),
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// These were announced: are they on record?
    Compare(Sighted, Vec<(AppId, Subject)>),
    /// Was what is on record announced?
    Search(Sighted, SearchFrom),
}

impl Comparing {
    /// Looks at a turn for parts that are to be compared.
    pub(super) fn turned(&mut self, turn: &Turn) {
        self.now_ms = turn.now_ms;
        let mut before = std::mem::take(&mut self.parts);
        let Some(sight) = &turn.sight else { return };
        for (part, fence) in &turn.held {
            let born = turn.stand.get(usize::from(*part)).map_or(u64::MAX, |stand| stand.born);
            if turn.compared.get(part) == Some(sight) || turn.now_ms < born.saturating_add(BACK_MS) {
                continue;
            }
            let of = Sighted { part: *part, fence: fence.clone(), sight: sight.clone() };
            let known = before.remove(part).filter(|under| under.of == of);
            self.parts.insert(*part, known.unwrap_or(Under { of, rest: Rest::Announced(None) }));
        }
    }

    /// The next step: of the first part that `announced` knows anything of.
    pub(super) fn next(&mut self, announced: impl Fn(u16) -> Option<Vec<(AppId, Subject)>>) -> Option<Step> {
        for (part, Under { of, rest }) in &mut self.parts {
            if matches!(rest, Rest::RecordsAgain(at) if *at <= self.now_ms) {
                *rest = Rest::Records(SearchFrom::default());
            }
            match rest {
                Rest::RecordsAgain(_) => {}
                Rest::Announced(rest) => {
                    if rest.is_none() {
                        *rest = announced(*part);
                    }
                    let Some(rest) = rest else { continue };
                    return Some(Step::Compare(of.clone(), rest[..rest.len().min(STEP_MAX)].to_vec()));
                }
                Rest::Records(from) => return Some(Step::Search(of.clone(), from.clone())),
            }
        }
        None
    }

    /// What came of comparing; `None` when the sight is another, or the part another node's: the next turn says which.
    pub(super) fn compared(&mut self, of: &Sighted, outcome: Option<Compared>) {
        let Some(under) = self.parts.get_mut(&of.part) else { return };
        let Some(Compared { looked, .. }) = outcome else {
            self.parts.remove(&of.part);
            return;
        };
        if let Rest::Announced(Some(rest)) = &mut under.rest {
            rest.drain(..looked.min(rest.len()));
            if rest.is_empty() {
                under.rest = Rest::Records(SearchFrom::default());
            }
        }
    }

    /// What came of searching; `None` as with [`Comparing::compared`].
    pub(super) fn searched(&mut self, of: &Sighted, outcome: Option<Searched>) {
        match (self.parts.get_mut(&of.part), outcome.map(|searched| searched.next)) {
            (Some(under), Some(Further::From(next))) => under.rest = Rest::Records(next),
            (Some(under), Some(Further::Again)) => under.rest = Rest::RecordsAgain(self.now_ms + AGAIN_MS),
            _ => _ = self.parts.remove(&of.part),
        }
    }
}

#[cfg(test)]
mod tests {
    use fulmar_backbone::redis::outbox::Stand;
    use fulmar_protocol::name::UserId;

    use super::*;

    const NOW: u64 = 100_000;

    fn turn(held: &[u16], fence: &str, sight: Option<&str>) -> Turn {
        let held = held.iter().map(|part| (*part, fence.to_owned())).collect();
        Turn {
            now_ms: NOW,
            held,
            stand: vec![Stand::default(); 16],
            sight: sight.map(str::to_owned),
            ..Turn::default()
        }
    }

    fn users(count: usize) -> Option<Vec<(AppId, Subject)>> {
        let user = |number| Subject::User(UserId::parse(&format!("u{number}"), 10).expect("a name"));
        Some((0..count).map(|number| (AppId::new("1"), user(number))).collect())
    }

    /// The part of the next step, and of how many; of none where the records are searched.
    fn next(comparing: &mut Comparing) -> Option<(u16, Option<usize>)> {
        comparing.next(|_| users(300)).map(|step| match step {
            Step::Compare(of, announced) => (of.part, Some(announced.len())),
            Step::Search(of, _) => (of.part, None),
        })
    }

    fn looked(comparing: &mut Comparing, looked: usize) {
        let Some(Step::Compare(of, _)) = comparing.next(|_| users(300)) else { panic!("something to compare") };
        comparing.compared(&of, Some(Compared { looked, gone: 0 }));
    }

    fn searched(comparing: &mut Comparing, next: Further) {
        let Some(Step::Search(of, _)) = comparing.next(|_| users(300)) else { panic!("something to search") };
        comparing.searched(&of, Some(Searched { next, came: 0 }));
    }

    /// HOOK-41, HOOK-43
    #[test]
    fn a_part_is_compared_once_in_each_sight_and_not_before_nodes_are_back() {
        let mut comparing = Comparing::default();
        comparing.turned(&turn(&[3], "1", None));
        assert_eq!(next(&mut comparing), None);
        let of_now = turn(&[3], "1", Some("1 0 0"));
        comparing.turned(&Turn { stand: vec![Stand { born: NOW - BACK_MS + 1, writes: 0 }; 16], ..of_now.clone() });
        assert_eq!(next(&mut comparing), None);
        comparing.turned(&of_now);
        assert_eq!(comparing.next(|_| None), None, "it was not read yet");
        assert_eq!(next(&mut comparing), Some((3, Some(256))));
        looked(&mut comparing, 256);
        assert_eq!(next(&mut comparing), Some((3, Some(44))));
        looked(&mut comparing, 44);
        assert_eq!(next(&mut comparing), Some((3, None)));
        searched(&mut comparing, Further::From(SearchFrom::default()));
        assert_eq!(next(&mut comparing), Some((3, None)), "there is more");
        searched(&mut comparing, Further::Again);
        assert_eq!(next(&mut comparing), None);
        comparing.turned(&Turn { now_ms: NOW + AGAIN_MS - 1, ..of_now.clone() });
        assert_eq!(next(&mut comparing), None);
        comparing.turned(&Turn { now_ms: NOW + AGAIN_MS, ..of_now.clone() });
        assert_eq!(next(&mut comparing), Some((3, None)), "what was found is looked at once more");
        searched(&mut comparing, Further::Done);
        assert_eq!(next(&mut comparing), None);
        comparing.turned(&Turn { compared: [(3, "1 0 0".to_owned())].into(), ..of_now });
        assert_eq!(next(&mut comparing), None);
        comparing.turned(&Turn { compared: [(3, "1 0 0".to_owned())].into(), ..turn(&[3], "1", Some("1 1 0")) });
        assert_eq!(next(&mut comparing), Some((3, Some(256))));
    }

    /// HOOK-41
    #[test]
    fn what_the_store_did_not_look_at_comes_again_and_all_of_it_where_the_part_changed_hands() {
        let mut comparing = Comparing::default();
        comparing.turned(&turn(&[3, 4], "1", Some("1 0 0")));
        looked(&mut comparing, 200);
        comparing.turned(&turn(&[3, 4], "1", Some("1 0 0")));
        assert_eq!(next(&mut comparing), Some((3, Some(100))));
        looked(&mut comparing, 0);
        looked(&mut comparing, 99);
        assert_eq!(next(&mut comparing), Some((3, Some(1))));
        comparing.turned(&turn(&[3, 4], "2", Some("1 0 0")));
        assert_eq!(next(&mut comparing), Some((3, Some(256))));
        let Some(Step::Compare(of, _)) = comparing.next(|_| users(300)) else { panic!("something to compare") };
        comparing.compared(&of, None);
        assert_eq!(next(&mut comparing), Some((4, Some(256))));
        comparing.turned(&turn(&[], "2", Some("1 0 0")));
        assert_eq!(next(&mut comparing), None);
    }
}
