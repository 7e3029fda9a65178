//! When what a part announced as come is compared with the records, and in which steps.
//!
//! An edge is left once, by whoever made it, and there are damages that take it along, with all that its node remembers. So each
//! time that absence of a record means something anew (see [`Turn::sight`]), whatever is announced and on no record is told to be gone.
//!
//! Pure. It is done once in each sight, whoever works the part, and from the beginning where the part changes hands in between.

use std::collections::BTreeMap;

use fulmar_backbone::redis::outbox::{Compared, Comparison, Turn};
use fulmar_protocol::app::AppId;
use fulmar_protocol::webhook::Subject;

/// For so long after a loss of everything nothing is compared: nodes come back within that, and are not known to the group before. A
/// going is then held for as long again, and taken back by whoever puts a record right.
const BACK_MS: u64 = 3_000;
/// Subjects in one step. The store looks at fewer where there are many nodes.
const STEP_MAX: usize = 256;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Comparing(BTreeMap<u16, Under>);

/// A part that is being compared.
#[derive(Debug)]
struct Under {
    fence: String,
    sight: String,
    /// What was not looked at yet; `None` before the first step.
    rest: Option<Vec<(AppId, Subject)>>,
}

impl Comparing {
    /// Looks at a turn for parts that are to be compared.
    pub(super) fn turned(&mut self, turn: &Turn) {
        let mut before = std::mem::take(&mut self.0);
        let Some(sight) = &turn.sight else { return };
        for (part, fence) in &turn.held {
            let born = turn.stand.get(usize::from(*part)).map_or(u64::MAX, |stand| stand.born);
            if turn.compared.get(part) == Some(sight) || turn.now_ms < born.saturating_add(BACK_MS) {
                continue;
            }
            let is_same = |under: &Under| under.fence == *fence && under.sight == *sight;
            let anew = || Under { fence: fence.clone(), sight: sight.clone(), rest: None };
            self.0.insert(*part, before.remove(part).filter(is_same).unwrap_or_else(anew));
        }
    }

    /// The next step: of the first part that `announced` knows anything of.
    pub(super) fn next(&mut self, announced: impl Fn(u16) -> Option<Vec<(AppId, Subject)>>) -> Option<Comparison> {
        for (part, under) in &mut self.0 {
            if under.rest.is_none() {
                under.rest = announced(*part);
            }
            let Some(rest) = &under.rest else { continue };
            let some = rest.len().min(STEP_MAX);
            return Some(Comparison {
                part: *part,
                fence: under.fence.clone(),
                sight: under.sight.clone(),
                announced: rest[..some].to_vec(),
                is_rest: some == rest.len(),
            });
        }
        None
    }

    /// What came of that step; `None` when the sight is another: the next turn says which.
    pub(super) fn compared(&mut self, step: &Comparison, outcome: Option<Compared>) {
        let Some(under) = self.0.get_mut(&step.part) else { return };
        let looked = outcome.map_or(0, |compared| compared.looked);
        if let Some(rest) = &mut under.rest {
            rest.drain(..looked.min(rest.len()));
        }
        if outcome.is_none() || step.is_rest && looked == step.announced.len() {
            self.0.remove(&step.part);
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

    fn next(comparing: &mut Comparing) -> Option<(u16, usize, bool)> {
        comparing.next(|_| users(300)).map(|step| (step.part, step.announced.len(), step.is_rest))
    }

    fn looked(comparing: &mut Comparing, looked: usize) {
        let step = comparing.next(|_| users(300)).expect("a step");
        comparing.compared(&step, Some(Compared { looked, gone: 0 }));
    }

    /// HOOK-41
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
        assert_eq!(next(&mut comparing), Some((3, 256, false)));
        looked(&mut comparing, 256);
        assert_eq!(next(&mut comparing), Some((3, 44, true)));
        looked(&mut comparing, 44);
        assert_eq!(next(&mut comparing), None);
        comparing.turned(&Turn { compared: [(3, "1 0 0".to_owned())].into(), ..of_now });
        assert_eq!(next(&mut comparing), None);
        comparing.turned(&Turn { compared: [(3, "1 0 0".to_owned())].into(), ..turn(&[3], "1", Some("1 1 0")) });
        assert_eq!(next(&mut comparing), Some((3, 256, false)));
    }

    /// HOOK-41
    #[test]
    fn what_the_store_did_not_look_at_comes_again_and_all_of_it_where_the_part_changed_hands() {
        let mut comparing = Comparing::default();
        comparing.turned(&turn(&[3, 4], "1", Some("1 0 0")));
        looked(&mut comparing, 200);
        comparing.turned(&turn(&[3, 4], "1", Some("1 0 0")));
        assert_eq!(next(&mut comparing), Some((3, 100, true)));
        looked(&mut comparing, 0);
        looked(&mut comparing, 99);
        assert_eq!(next(&mut comparing), Some((3, 1, true)));
        comparing.turned(&turn(&[3, 4], "2", Some("1 0 0")));
        assert_eq!(next(&mut comparing), Some((3, 256, false)));
        let step = comparing.next(|_| users(300)).expect("a step");
        comparing.compared(&step, None);
        assert_eq!(next(&mut comparing), Some((4, 256, false)));
        comparing.turned(&turn(&[], "2", Some("1 0 0")));
        assert_eq!(next(&mut comparing), None);
    }
}
