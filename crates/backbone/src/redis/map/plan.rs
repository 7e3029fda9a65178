//! From a map and the groups that are wanted to the fewest moves that leave every group its share.

use super::SlotMap;
use crate::redis::topic::SLOTS;

/// One slot that moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub slot: u16,
    /// From this group,
    pub from: String,
    /// to this.
    pub to: String,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Names of the groups at the end.
    pub wanted: Vec<String>,
    /// In the order of the slots.
    pub moves: Vec<Move>,
}

impl Plan {
    /// How many slots go from where to where.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, String, usize)> {
        let mut counts: Vec<(String, String, usize)> = Vec::new();
        for Move { from, to, .. } in &self.moves {
            match counts.iter_mut().find(|(known, towards, _)| known == from && towards == to) {
                Some((.., count)) => *count += 1,
                None => counts.push((from.clone(), to.clone(), 1)),
            }
        }
        counts.sort_unstable();
        counts
    }
}

/// Plans the way to these groups: afterwards no group has two slots more than another, and no slot moves that need not.
/// `None` without groups, with more than there are slots, or while slots are on their way.
#[must_use]
pub fn plan(map: &SlotMap, wanted: &[String]) -> Option<Plan> {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() || wanted.len() > usize::from(SLOTS) || map.is_moving() {
        return None;
    }
    let count = |name: &String| map.counts().iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count);
    let mut groups: Vec<(String, usize)> = wanted.iter().map(|name| (name.clone(), count(name))).collect();
    // Those with most slots keep the one that does not divide.
    groups.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let (share, rest) = (usize::from(SLOTS) / groups.len(), usize::from(SLOTS) % groups.len());
    let mut left: Vec<(String, usize)> =
        groups.into_iter().enumerate().map(|(at, (name, _))| (name, share + usize::from(at < rest))).collect();
    // First every slot stays that may.
    let mut homeless = Vec::new();
    for slot in 0..SLOTS {
        let from = map.name(map.owner(slot).group);
        match left.iter_mut().find(|(name, room)| name == from && *room > 0) {
            Some((_, room)) => *room -= 1,
            None => homeless.push((slot, from.to_owned())),
        }
    }
    left.sort_unstable();
    let mut moves = Vec::new();
    let mut at = 0;
    for (slot, from) in homeless {
        // Round those with room, so that each takes from everybody.
        for _ in 0..left.len() {
            at = (at + 1) % left.len();
            if left[at].1 > 0 {
                break;
            }
        }
        left[at].1 -= 1;
        moves.push(Move { slot, from, to: left[at].0.clone() });
    }
    Some(Plan { wanted, moves })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("g{number:02}")).collect()
    }

    fn done(map: &SlotMap, plan: &Plan) -> SlotMap {
        let begun = map.begun(plan);
        begun.arrived(begun.version).ended()
    }

    proptest! {
        /// RED-11
        #[test]
        fn a_plan_ends_balanced_and_moves_no_slot_that_need_not(steps in prop::collection::vec(1_usize..12, 1..6)) {
            let mut map = SlotMap::first(&names(steps[0]));
            for groups in &steps[1..] {
                let found = plan(&map, &names(*groups)).expect("a plan");
                let before = map.clone();
                map = done(&map, &found);
                let counts: Vec<usize> = map.counts().iter().map(|(_, count)| *count).collect();
                let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
                prop_assert!(most <= least.map(|least| least + 1), "{counts:?}");
                prop_assert_eq!(&map.groups.len(), groups);
                let lost = before.counts().iter().map(|(name, count)| {
                    let after = map.counts().iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count);
                    count.saturating_sub(after)
                }).sum::<usize>();
                prop_assert_eq!(found.moves.len(), lost, "only surplus moves");
                prop_assert!(plan(&map, &names(*groups)).expect("a plan").moves.is_empty());
            }
        }
    }

    /// RED-11
    #[test]
    fn two_groups_give_a_third_of_their_slots_to_a_new_one_and_get_them_back() {
        let map = SlotMap::first(&names(2));
        let more = plan(&map, &names(3)).expect("a plan");
        assert_eq!(more.moves.len(), 341);
        let map = done(&map, &more);
        let fewer = plan(&map, &names(2)).expect("a plan");
        assert_eq!(fewer.moves.len(), 341);
        assert_eq!(done(&map, &fewer).groups, names(2));
    }

    /// RED-11
    #[test]
    fn there_is_no_plan_without_groups_or_while_slots_are_on_their_way() {
        let map = SlotMap::first(&names(2));
        assert_eq!(plan(&map, &[]), None);
        let begun = map.begun(&plan(&map, &names(3)).expect("a plan"));
        assert_eq!(plan(&begun, &names(2)), None);
    }
}
