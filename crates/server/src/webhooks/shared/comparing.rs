//! When what a part announced as come is compared with the records, and in which steps.
//!
//! An edge is left once, by whoever made it, and there are damages that take it along, with all that its node remembers; and where a
//! store goes back, an edge may be none, because the records of then had it already. So each time that absence of a record means
//! something anew (see [`Turn::sight`]), whatever is announced and on no record is told to be gone, whatever is on record and about to be
//! told to be gone is not, and then whatever is on record and was never announced is told to have come.
//!
//! What is about to be told to be gone comes first, of all parts, since it does not wait.
//!
//! Pure. It is done once in each sight, whoever works the part, and from the beginning where the part changes hands in between.

use std::collections::BTreeMap;

use fulmar_backbone::redis::outbox::{Believed, Compared, SearchFrom, Searched, Sighted, Turn};

/// For so long after a loss of everything nothing is compared: nodes come back within that, and are not known to the group before. A
/// going is then held for as long again, and taken back by whoever puts a record right.
const BACK_MS: u64 = 3_000;
/// From what was found on record to the search that believes it: what damage invented is found and mended within three seconds, and the
/// sight is another then. By the time of the last turn, which is a second old at most.
const BELIEVED_AFTER_MS: u64 = 4_100;
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
    /// Its outbox had no room for what is said again, when it was asked last since the turn: others are not kept waiting for it.
    has_no_room: bool,
}

impl Under {
    /// The next that are to be compared, as long as they are such.
    fn compare(&self, is_such: impl Fn(&Believed) -> bool) -> Option<(Sighted, Vec<Believed>)> {
        let Rest::Believed(Some(rest)) = &self.rest else { return None };
        if self.has_no_room {
            return None;
        }
        let some = rest.iter().take_while(|of| is_such(of)).take(STEP_MAX);
        Some((self.of.clone(), some.cloned().collect()))
    }

    fn search(&self) -> Option<Step> {
        let Rest::Records(from, _) = &self.rest else { return None };
        (!self.has_no_room).then(|| Step::Search(self.of.clone(), from.clone()))
    }
}

#[derive(Debug)]
enum Rest {
    /// What is believed to be here, and not looked at yet; `None` before the first step.
    Believed(Option<Vec<Believed>>),
    /// The records, and whether anything was found there so far.
    Records(SearchFrom, bool),
    /// The records for the second time, from then on.
    Waits(u64),
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// These are believed to be here: are they on record?
    Compare(Sighted, Vec<Believed>),
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
            let rest = known.map_or(Rest::Believed(None), |under| under.rest);
            self.parts.insert(*part, Under { of, rest, has_no_room: false });
        }
    }

    /// The next step. `believed` is what a part that was read believes to be here.
    pub(super) fn next(&mut self, believed: impl Fn(u16) -> Option<Vec<Believed>>) -> Option<Step> {
        for (part, Under { rest, .. }) in &mut self.parts {
            if matches!(rest, Rest::Waits(until) if *until <= self.now_ms) {
                *rest = Rest::Records(SearchFrom::second(), false);
            }
            if let Rest::Believed(all @ None) = rest {
                *all = believed(*part);
                all.iter_mut().for_each(|all| all.sort_by_key(|of| !of.is_going));
            }
        }
        let parts = || self.parts.values();
        let going = parts().find_map(|part| part.compare(|of| of.is_going).filter(|(_, some)| !some.is_empty()));
        let compare = going.or_else(|| parts().find_map(|part| part.compare(|_| true)));
        let compare = compare.map(|(of, some)| Step::Compare(of, some));
        compare.or_else(|| parts().find_map(Under::search))
    }

    /// What came of comparing; `None` when the sight is another, or the part another node's: the next turn says which.
    pub(super) fn compared(&mut self, of: &Sighted, outcome: Option<Compared>) {
        let Some(under) = self.parts.get_mut(&of.part) else { return };
        let Some(Compared { looked, .. }) = outcome else {
            self.parts.remove(&of.part);
            return;
        };
        if let Rest::Believed(Some(rest)) = &mut under.rest {
            under.has_no_room = looked == 0 && !rest.is_empty();
            rest.drain(..looked.min(rest.len()));
            if rest.is_empty() {
                under.rest = Rest::Records(SearchFrom::default(), false);
            }
        }
    }

    /// What came of searching; `None` as with [`Comparing::compared`].
    pub(super) fn searched(&mut self, of: &Sighted, outcome: Option<Searched>) {
        let Some(Under { rest, has_no_room, .. }) = self.parts.get_mut(&of.part) else { return };
        match (&*rest, outcome) {
            (Rest::Records(_, has_found), Some(Searched { next: Some(next), found, has_room })) => {
                *has_no_room = !has_room;
                *rest = Rest::Records(next, *has_found || found > 0);
            }
            (Rest::Records(from, has_found), Some(Searched { next: None, found, .. }))
                if !from.is_second && (*has_found || found > 0) =>
            {
                *rest = Rest::Waits(self.now_ms + BELIEVED_AFTER_MS);
            }
            _ => _ = self.parts.remove(&of.part),
        }
    }
}

#[cfg(test)]
mod tests {
    use fulmar_backbone::redis::outbox::Stand;
    use fulmar_protocol::app::AppId;
    use fulmar_protocol::name::UserId;
    use fulmar_protocol::webhook::Subject;

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

    fn users(count: usize) -> Option<Vec<Believed>> {
        let user = |number| Subject::User(UserId::parse(&format!("u{number}"), 10).expect("a name"));
        let announced = |number| Believed { app: AppId::new("1"), subject: user(number), is_going: false };
        Some((0..count).map(announced).collect())
    }

    /// The part of the next step that compares, and of how many.
    fn next(comparing: &mut Comparing) -> Option<(u16, usize)> {
        match comparing.next(|_| users(300))? {
            Step::Compare(of, announced) => Some((of.part, announced.len())),
            Step::Search(..) => panic!("the records are searched"),
        }
    }

    /// Whether the next step searches, and whether for the second time.
    fn searches(comparing: &mut Comparing) -> Option<bool> {
        match comparing.next(|_| users(300))? {
            Step::Search(_, from) => Some(from.is_second),
            Step::Compare(..) => panic!("something is compared"),
        }
    }

    fn looked(comparing: &mut Comparing, looked: usize) {
        let Some(Step::Compare(of, _)) = comparing.next(|_| users(300)) else { panic!("something to compare") };
        comparing.compared(&of, Some(Compared { looked, gone: 0, back: 0 }));
    }

    fn searched(comparing: &mut Comparing, is_over: bool, found: usize) {
        let Some(Step::Search(of, from)) = comparing.next(|_| users(300)) else { panic!("something to search") };
        let next = (!is_over).then_some(from);
        comparing.searched(&of, Some(Searched { next, found, has_room: true }));
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
        assert_eq!(next(&mut comparing), Some((3, 256)));
        looked(&mut comparing, 256);
        assert_eq!(next(&mut comparing), Some((3, 44)));
        looked(&mut comparing, 44);
        assert_eq!(searches(&mut comparing), Some(false));
        searched(&mut comparing, false, 2);
        searched(&mut comparing, true, 0);
        assert_eq!(searches(&mut comparing), None, "what was found may be damage");
        let later = |ms| Turn { now_ms: NOW + ms, ..of_now.clone() };
        comparing.turned(&later(BELIEVED_AFTER_MS - 1));
        assert_eq!(searches(&mut comparing), None);
        comparing.turned(&later(BELIEVED_AFTER_MS));
        assert_eq!(searches(&mut comparing), Some(true));
        searched(&mut comparing, false, 0);
        searched(&mut comparing, true, 2);
        assert_eq!(searches(&mut comparing), None, "whatever comes meanwhile, there is no third");
        comparing.turned(&Turn { compared: [(3, "1 0 0".to_owned())].into(), ..of_now });
        assert_eq!(next(&mut comparing), None);
        comparing.turned(&Turn { compared: [(3, "1 0 0".to_owned())].into(), ..turn(&[3], "1", Some("1 1 0")) });
        assert_eq!(next(&mut comparing), Some((3, 256)));
    }

    /// HOOK-43
    #[test]
    fn what_is_about_to_be_told_to_be_gone_comes_before_everything_else_of_any_part() {
        let mut comparing = Comparing::default();
        comparing.turned(&turn(&[3, 4], "1", Some("1 0 0")));
        let believed = |part: u16| {
            let mut all = users(5)?;
            all[usize::from(part)].is_going = true;
            Some(all)
        };
        let mut steps = Vec::new();
        while let Some(Step::Compare(of, some)) = comparing.next(believed) {
            steps.push((of.part, some.len(), some[0].is_going));
            comparing.compared(&of, Some(Compared { looked: some.len(), gone: 0, back: 0 }));
        }
        assert_eq!(steps, [(3, 1, true), (4, 1, true), (3, 4, false), (4, 4, false)]);
        assert_eq!(searches(&mut comparing), Some(false));
    }

    /// HOOK-43
    #[test]
    fn records_in_which_nothing_is_found_are_searched_once() {
        let mut comparing = Comparing::default();
        comparing.turned(&turn(&[3], "1", Some("1 0 0")));
        looked(&mut comparing, 256);
        looked(&mut comparing, 44);
        searched(&mut comparing, true, 0);
        comparing.turned(&Turn { compared: [(3, "1 0 0".to_owned())].into(), ..turn(&[3], "1", Some("1 0 0")) });
        assert_eq!(searches(&mut comparing), None);
    }

    /// HOOK-41
    #[test]
    fn what_the_store_did_not_look_at_comes_again_and_all_of_it_where_the_part_changed_hands() {
        let mut comparing = Comparing::default();
        comparing.turned(&turn(&[3, 4], "1", Some("1 0 0")));
        looked(&mut comparing, 200);
        comparing.turned(&turn(&[3, 4], "1", Some("1 0 0")));
        assert_eq!(next(&mut comparing), Some((3, 100)));
        looked(&mut comparing, 0);
        assert_eq!(next(&mut comparing), Some((4, 256)), "where there is no room now, there is in a second");
        comparing.turned(&turn(&[3, 4], "1", Some("1 0 0")));
        looked(&mut comparing, 99);
        assert_eq!(next(&mut comparing), Some((3, 1)));
        comparing.turned(&turn(&[3, 4], "2", Some("1 0 0")));
        assert_eq!(next(&mut comparing), Some((3, 256)));
        let Some(Step::Compare(of, _)) = comparing.next(|_| users(300)) else { panic!("something to compare") };
        comparing.compared(&of, None);
        assert_eq!(next(&mut comparing), Some((4, 256)));
        comparing.turned(&turn(&[], "2", Some("1 0 0")));
        assert_eq!(next(&mut comparing), None);
    }
}
