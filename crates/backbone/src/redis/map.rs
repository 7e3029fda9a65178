//! Which group has which slot: the map that lies in every group and in every node, and how it is changed.
//!
//! Pure. The map says where to go and where to listen; who may write is said by each group's own slots, which every call is
//! checked against. A slot that moves is heard from both groups before it goes and for a while after.

mod plan;

use std::collections::BTreeMap;
use std::fmt::Write as _;

pub use self::plan::{Move, Plan, plan};
use super::topic::SLOTS;

/// A slot's owner, as somebody knows it. The one with the highest epoch is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// Its place among [`SlotMap::groups`].
    pub group: u16,
    /// Version of the map with which the slot began to move there; 0 where it has never moved.
    pub epoch: u64,
}

/// Where else a slot that moves is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// It will move to this group.
    Coming(u16),
    /// It has moved away from this group.
    Leaving(u16),
}

impl Beside {
    /// The group, by its place.
    #[must_use]
    pub fn group(self) -> u16 {
        match self {
            Self::Coming(group) | Self::Leaving(group) => group,
        }
    }
}

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotMap {
    /// Rises with every change; 0 is the first map, which nobody has written.
    pub version: u64,
    /// Names of the groups.
    pub groups: Vec<String>,
    /// The groups that remain when what moves has moved: others have no slot then, and are left.
    pub wanted: Vec<String>,
    /// By slot.
    pub owners: Vec<Owner>,
    /// Slots that move.
    pub beside: BTreeMap<u16, Beside>,
}

impl SlotMap {
    /// The first map: slots go round the groups, in the order of their names.
    #[must_use]
    pub fn first(groups: &[String]) -> Self {
        let mut groups = groups.to_vec();
        groups.sort_unstable();
        groups.dedup();
        let count = u16::try_from(groups.len().max(1)).unwrap_or(u16::MAX);
        let owners = (0..SLOTS).map(|slot| Owner { group: slot % count, epoch: 0 }).collect();
        Self { version: 0, wanted: groups.clone(), groups, owners, beside: BTreeMap::new() }
    }

    /// As text: a word and its values on each line.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("version {}\n", self.version);
        for (word, names) in [("group", &self.groups), ("wanted", &self.wanted)] {
            names.iter().for_each(|name| writeln!(text, "{word} {name}").expect("text takes text"));
        }
        let owner = |Owner { group, epoch }: &Owner| match epoch {
            0 => group.to_string(),
            epoch => format!("{group}.{epoch}"),
        };
        let owners: Vec<String> = self.owners.iter().map(owner).collect();
        writeln!(text, "owners {}", owners.join(",")).expect("text takes text");
        for (slot, beside) in &self.beside {
            let word = match beside {
                Beside::Coming(_) => "coming",
                Beside::Leaving(_) => "leaving",
            };
            writeln!(text, "{word} {slot} {}", beside.group()).expect("text takes text");
        }
        text
    }

    /// Reads a map; `None` for what is none. Unknown lines are skipped.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut map =
            Self { version: 0, groups: Vec::new(), wanted: Vec::new(), owners: Vec::new(), beside: BTreeMap::new() };
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "version" => map.version = rest.parse().ok()?,
                "group" => map.groups.push(rest.to_owned()),
                "wanted" => map.wanted.push(rest.to_owned()),
                "owners" => map.owners = rest.split(',').map(owner).collect::<Option<_>>()?,
                "coming" | "leaving" => {
                    let (slot, group) = rest.split_once(' ')?;
                    let (slot, group) = (slot.parse().ok()?, group.parse().ok()?);
                    let beside = if word == "coming" { Beside::Coming(group) } else { Beside::Leaving(group) };
                    map.beside.insert(slot, beside);
                }
                _ => {}
            }
        }
        map.is_sound().then_some(map)
    }

    fn is_sound(&self) -> bool {
        let is_group = |group: u16| usize::from(group) < self.groups.len();
        self.owners.len() == usize::from(SLOTS)
            && self.owners.iter().all(|owner| is_group(owner.group))
            && self.beside.iter().all(|(slot, beside)| *slot < SLOTS && is_group(beside.group()))
            && self.wanted.iter().all(|name| self.groups.contains(name))
    }

    /// The owner of a slot, by its place.
    #[must_use]
    pub fn owner(&self, slot: u16) -> Owner {
        self.owners.get(usize::from(slot)).copied().unwrap_or_default()
    }

    /// Name of a group by its place.
    #[must_use]
    pub fn name(&self, group: u16) -> &str {
        self.groups.get(usize::from(group)).map_or("", String::as_str)
    }

    /// How many slots each group has.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, usize)> {
        let count = |at: usize| self.owners.iter().filter(|owner| usize::from(owner.group) == at).count();
        self.groups.iter().enumerate().map(|(at, name)| (name.clone(), count(at))).collect()
    }

    /// Whether slots are on their way.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        !self.beside.is_empty() || self.groups.len() != self.wanted.len()
    }

    /// The next version with these moves begun: their slots are listened to on both groups.
    #[must_use]
    pub fn begun(&self, plan: &Plan) -> Self {
        let mut map = Self { version: self.version + 1, wanted: plan.wanted.clone(), ..self.clone() };
        for name in &plan.wanted {
            if !map.groups.contains(name) {
                map.groups.push(name.clone());
            }
        }
        for Move { slot, to, .. } in &plan.moves {
            let at = map.groups.iter().position(|name| name == to).and_then(|at| u16::try_from(at).ok());
            map.beside.extend(at.map(|at| (*slot, Beside::Coming(at))));
        }
        map
    }

    /// The next version, in which what came has come. `epoch` is the one that the slots were opened under.
    #[must_use]
    pub fn arrived(&self, epoch: u64) -> Self {
        let mut map = Self { version: self.version + 1, ..self.clone() };
        for (slot, beside) in &mut map.beside {
            let Beside::Coming(to) = *beside else { continue };
            let owner = &mut map.owners[usize::from(*slot)];
            *beside = Beside::Leaving(owner.group);
            *owner = Owner { group: to, epoch };
        }
        map
    }

    /// The next version, in which nothing is listened to twice and groups that are not wanted are gone.
    #[must_use]
    pub fn ended(&self) -> Self {
        let mut map = Self { version: self.version + 1, beside: BTreeMap::new(), ..self.clone() };
        let is_owner = |at: usize| map.owners.iter().any(|owner| usize::from(owner.group) == at);
        let kept: Vec<usize> =
            (0..map.groups.len()).filter(|at| is_owner(*at) || map.wanted.contains(&map.groups[*at])).collect();
        let place = |group: u16| kept.iter().position(|at| *at == usize::from(group)).unwrap_or(0);
        for owner in &mut map.owners {
            owner.group = u16::try_from(place(owner.group)).unwrap_or(0);
        }
        map.groups = kept.iter().map(|at| self.groups[*at].clone()).collect();
        map.wanted.clone_from(&map.groups);
        map
    }

    /// The next version, in which these slots do not move after all.
    #[must_use]
    pub fn abandoned(&self) -> Self {
        let mut map = self.clone();
        let owned = |name: &String| self.counts().iter().any(|(known, count)| known == name && *count > 0);
        map.wanted = self.groups.iter().filter(|name| owned(name)).cloned().collect();
        map.ended()
    }
}

fn owner(text: &str) -> Option<Owner> {
    let (group, epoch) = text.split_once('.').unwrap_or((text, "0"));
    Some(Owner { group: group.parse().ok()?, epoch: epoch.parse().ok()? })
}

/// What a group says of a slot itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// It has the slot, since this epoch.
    Own(u64),
    /// It gave the slot to this group, in this epoch.
    To(String, u64),
}

impl Held {
    /// Reads what [`Held::text`] gave.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("own", epoch) => Some(Self::Own(epoch.parse().ok()?)),
            ("to", rest) => {
                let (group, epoch) = rest.rsplit_once(':')?;
                Some(Self::To(group.to_owned(), epoch.parse().ok()?))
            }
            _ => None,
        }
    }

    /// As it is stored.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Own(epoch) => format!("own:{epoch}"),
            Self::To(group, epoch) => format!("to:{group}:{epoch}"),
        }
    }

    /// Since when it is so.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        match self {
            Self::Own(epoch) | Self::To(_, epoch) => *epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// RED-10
    #[test]
    fn the_first_map_goes_round_the_groups_in_the_order_of_their_names() {
        let map = SlotMap::first(&names(&["g2", "g1"]));
        assert_eq!((map.version, map.name(map.owner(0).group), map.name(map.owner(1).group)), (0, "g1", "g2"));
        assert_eq!(map, SlotMap::first(&names(&["g1", "g2", "g1"])));
    }

    /// RED-10
    #[test]
    fn a_map_is_read_back_as_it_was_written_at_every_step_of_a_move() {
        let first = SlotMap::first(&names(&["g1", "g2"]));
        let begun = first.begun(&plan(&first, &names(&["g1", "g2", "g3"])).expect("a plan"));
        let arrived = begun.arrived(begun.version);
        for map in [&first, &begun, &arrived, &arrived.ended(), &begun.abandoned()] {
            assert_eq!(SlotMap::parse(&map.text()).as_ref(), Some(map));
            assert_eq!(SlotMap::parse(&format!("{}invented later\nalone\n", map.text())).as_ref(), Some(map));
        }
        for broken in ["", "version x\n", "version 1\ngroup g1\nowners 0,1\n", "version"] {
            assert_eq!(SlotMap::parse(broken), None, "{broken}");
        }
        let foreign = first.text().replace("owners 0,1", "owners 0,9");
        assert_eq!(SlotMap::parse(&foreign), None, "an owner that is no group");
    }

    /// RED-11
    #[test]
    fn a_slot_is_listened_to_on_both_groups_until_the_end_of_its_move() {
        let first = SlotMap::first(&names(&["g1", "g2"]));
        let plan = plan(&first, &names(&["g1", "g2", "g3"])).expect("a plan");
        let slot = plan.moves[0].slot;
        let begun = first.begun(&plan);
        assert_eq!((begun.owner(slot), begun.beside[&slot]), (first.owner(slot), Beside::Coming(2)));
        let arrived = begun.arrived(begun.version);
        assert_eq!(arrived.owner(slot), Owner { group: 2, epoch: 1 });
        assert_eq!(arrived.beside[&slot], Beside::Leaving(first.owner(slot).group));
        let ended = arrived.ended();
        assert!(!ended.is_moving() && ended.version == 3);
        assert_eq!(ended.counts().iter().map(|(_, count)| *count).sum::<usize>(), usize::from(SLOTS));
        assert_eq!(begun.abandoned().groups, first.groups, "a group that was to come and got nothing is gone");
    }

    /// RED-11
    #[test]
    fn what_a_group_says_of_a_slot_is_read_back() {
        for held in [Held::Own(3), Held::To("a:b".to_owned(), 7)] {
            assert_eq!(Held::parse(&held.text()), Some(held));
        }
        for broken in ["", "own", "own:x", "to:g1", "to:g1:x", "gone:1"] {
            assert_eq!(Held::parse(broken), None, "{broken}");
        }
    }
}
