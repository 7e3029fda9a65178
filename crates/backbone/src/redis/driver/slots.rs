//! Which group has which slot, as this node goes by it: read from the groups, taken in at a moment when nothing is on its way.
//!
//! A group whose slots have changed refuses whatever was asked in the belief that they have not (`OTHERSLOTS`). The node then
//! reads what the group says, waits until nothing that writes is under way anywhere, and moves what it has of the slot:
//! publications that no log has, changes that wait, and its records. A slot that no group has just now is *frozen*: what
//! concerns it waits here. Publications keep their identities and their order, so nothing of this can lose or double one.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashSet;

use super::frozen::FrozenBus;
use super::{Driver, hub, store};
use crate::redis::lane::{Item, lane_of};
use crate::redis::map::{Beside, SlotMap};
use crate::redis::records::{Call, Find, Found, Told};
use crate::redis::store::Moving;
use crate::redis::topic::{SLOTS, Slot, Topic};
use crate::redis::withdrawn::Withdrawn;

/// By slot, the group that has it, as its place among the driver's groups. Shared with whoever asks from another thread.
pub(in crate::redis) struct Routes {
    groups: Box<[AtomicU16]>,
    frozen: Box<[AtomicBool]>,
}

impl Routes {
    fn new(map: &SlotMap) -> Self {
        let frozen = map.owners.iter().map(|_| AtomicBool::new(false)).collect();
        Self { groups: map.owners.iter().map(|owner| AtomicU16::new(owner.group)).collect(), frozen }
    }

    pub(in crate::redis) fn get(&self, slot: Slot) -> usize {
        self.groups.get(usize::from(slot.0)).map_or(0, |group| group.load(Ordering::Relaxed).into())
    }

    /// Whether no group has it just now: the last one that had it is the one that is told.
    pub(super) fn is_frozen(&self, slot: Slot) -> bool {
        self.frozen.get(usize::from(slot.0)).is_some_and(|is_frozen| is_frozen.load(Ordering::Relaxed))
    }

    fn freeze(&self, slot: u16) {
        self.frozen[usize::from(slot)].store(true, Ordering::Relaxed);
    }

    fn open(&self, slot: u16, group: usize) {
        self.groups[usize::from(slot)].store(u16::try_from(group).unwrap_or(0), Ordering::Relaxed);
        self.frozen[usize::from(slot)].store(false, Ordering::Relaxed);
    }
}

/// What is known of one group's slots.
#[derive(Default)]
pub(super) struct Known {
    /// The state that calls carry.
    pub(super) state: u64,
    /// It was refused: nothing is sent before it is read.
    pub(super) is_wanted: bool,
    is_reading: bool,
    read_at: Option<Duration>,
    recalled_at: Option<Duration>,
}

impl Known {
    /// The connection that it was asked over is gone.
    pub(super) fn forget_question(&mut self) {
        (self.is_reading, self.read_at, self.recalled_at) = (false, None, None);
    }
}

/// A slot that no group has just now.
pub(super) struct Frozen {
    to: usize,
    pub(super) since: Duration,
    pub(super) items: Vec<Item>,
    /// How many of them every node has heard over the bus.
    pub(super) heard: usize,
    records: Moving,
}

/// What a group, or the map, says of a slot.
struct Said {
    slot: u16,
    /// Who has it, or will have it.
    group: usize,
    is_there: bool,
    epoch: u64,
}

/// See the head of this file.
pub(super) struct Slots {
    map: SlotMap,
    /// Places of the map's groups among the driver's.
    places: Vec<usize>,
    is_adopted: bool,
    routes: Arc<Routes>,
    epochs: Vec<u64>,
    pub(super) frozen: BTreeMap<u16, Frozen>,
    /// What the publications that wait for a group take of the room for what no log has.
    pub(super) weight: u64,
    pub(super) bus: FrozenBus,
    /// What is to be taken in, and states of groups that go with it.
    said: Vec<Said>,
    states: Vec<(usize, u64)>,
    /// By slot: groups on which its topics are listened to.
    heard: Vec<Vec<usize>>,
    /// Subscriptions that the map wants and nobody has confirmed.
    awaited: HashSet<(usize, Topic)>,
    told: u64,
}

impl Slots {
    pub(super) fn new(groups: &[String], bus_bytes_per_s: u64) -> Self {
        let map = SlotMap::first(groups);
        Self {
            places: (0..map.groups.len()).collect(),
            heard: map.owners.iter().map(|owner| vec![owner.group.into()]).collect(),
            routes: Arc::new(Routes::new(&map)),
            map,
            is_adopted: false,
            epochs: vec![0; usize::from(SLOTS)],
            frozen: BTreeMap::new(),
            weight: 0,
            bus: FrozenBus::new(bus_bytes_per_s),
            said: Vec::new(),
            states: Vec::new(),
            awaited: HashSet::new(),
            told: 0,
        }
    }

    pub(super) fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// Groups on which the topics of a slot are listened to.
    pub(super) fn heard(&self, slot: Slot) -> &[usize] {
        &self.heard[usize::from(slot.0)]
    }

    /// Whether nothing new is to be sent until what was read is taken in.
    pub(super) fn is_regrouping(&self) -> bool {
        !self.said.is_empty() || !self.states.is_empty()
    }

    pub(super) fn is_frozen(&self) -> bool {
        !self.frozen.is_empty()
    }

    /// Counts it anew, whenever something other than the next publication has changed it: each publish asks.
    fn weigh(&mut self) {
        self.weight = self.frozen.values().flat_map(|frozen| &frozen.items).map(Item::weight).sum();
    }

    /// Takes what is asked of the records of a slot that no group has; gives back what is not of that kind.
    pub(super) fn keep_call(&mut self, call: Call) -> Option<Call> {
        let slot = match &call {
            Call::Change(change) => change.topic.slot(),
            Call::Send { topic, .. } => topic.slot(),
            // The group that it left can still say how things stood.
            Call::Roster { .. } | Call::Find { .. } => return Some(call),
        };
        match self.frozen.get_mut(&slot.0) {
            Some(frozen) => frozen.records.ask(call),
            None => return Some(call),
        }
        None
    }

    /// These calls were answered as failed.
    pub(super) fn withdraw(&mut self, calls: &HashSet<u64>, withdrawn: &mut Withdrawn) {
        for item in self.frozen.values_mut().flat_map(|frozen| &mut frozen.items) {
            item.withdraw(calls, withdrawn);
        }
        self.weigh();
    }

    /// What followed one that was taken back follows the one before it.
    pub(super) fn pass(&mut self, withdrawn: &Withdrawn) {
        self.frozen.values_mut().flat_map(|frozen| &mut frozen.items).for_each(|item| item.pass(withdrawn));
        self.weigh();
    }

    pub(super) fn confirmed(&mut self, group: usize, topic: &Topic) {
        if !self.awaited.is_empty() {
            self.awaited.remove(&(group, topic.clone()));
        }
    }

    pub(super) fn forget(&mut self, topic: &Topic) {
        self.awaited.retain(|(_, awaited)| awaited != topic);
    }

    /// Whether the slot has gone from this group: what is heard of it there was before that.
    pub(super) fn has_left(&self, slot: Slot, group: usize) -> bool {
        let going = match self.map.beside.get(&slot.0) {
            Some(Beside::Coming(to)) => *to,
            Some(Beside::Leaving(_)) | None => self.map.owner(slot.0).group,
        };
        let frozen = self.frozen.get(&slot.0).map(|frozen| frozen.to);
        self.routes.get(slot) != group && self.places[usize::from(going)] != group && frozen != Some(group)
    }

    /// Where the topics of a slot are to be listened to.
    fn wanted(&self, slot: u16) -> Vec<usize> {
        let place = |group: u16| self.places[usize::from(group)];
        let beside = self.map.beside.get(&slot).map(|beside| place(beside.group()));
        let frozen = self.frozen.get(&slot).map(|frozen| frozen.to);
        let mut groups = vec![self.routes.get(Slot(slot)), place(self.map.owner(slot).group)];
        groups.extend(beside.into_iter().chain(frozen));
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

impl Driver {
    /// Which group has which slot, for other threads.
    pub(in crate::redis) fn routes(&self) -> Arc<Routes> {
        self.slots.routes().clone()
    }

    pub(super) fn group_of(&self, slot: Slot) -> usize {
        self.slots.routes().get(slot)
    }

    /// Asks the records, or lets what is asked wait with its slot.
    pub(super) fn call(&mut self, to: hub::To, call: Call) {
        let group = match to {
            hub::To::Slot(slot) => self.group_of(slot),
            hub::To::Group(group) => group,
        };
        let mut told = Vec::new();
        match self.slots.keep_call(call) {
            // It has no slot, so it knows nothing.
            Some(Call::Find { token, what: Find::Prefix(_) }) if self.groups[group].is_left => {
                told.push(store::Out::Told(Told::Found { token, found: Some(Found::Listed(Vec::new())) }));
            }
            Some(call) => self.groups[group].store.call(call, &mut told),
            None => {}
        }
        self.stored(group, told);
    }

    /// The place of a group, which is followed from now on if it was not.
    fn place_of(&mut self, name: &str) -> usize {
        if let Some(place) = self.groups.iter().position(|group| group.name == name) {
            self.groups[place].is_left = false;
            return place;
        }
        self.add_group(name);
        self.groups.len() - 1
    }

    /// Goes by a map from now on, if it is newer than the present one.
    pub(super) fn adopt(&mut self, map: SlotMap) {
        if map.version <= self.slots.map.version {
            return;
        }
        tracing::info!(version = map.version, groups = map.groups.join(","), "another slot map");
        self.slots.places = map.groups.iter().map(|name| self.place_of(name)).collect();
        let is_first = !std::mem::replace(&mut self.slots.is_adopted, true);
        for (slot, owner) in (0..SLOTS).zip(&map.owners) {
            let known = self.slots.epochs[usize::from(slot)];
            if owner.epoch > known || (is_first && known == 0) {
                let group = self.slots.places[usize::from(owner.group)];
                self.slots.said.push(Said { slot, group, is_there: true, epoch: owner.epoch });
            }
        }
        self.slots.map = map;
        self.listen_anew();
        self.leave_unwanted();
    }

    /// Takes in what was read, once nothing that writes is on its way.
    pub(super) fn regroup(&mut self) {
        if !self.slots.is_regrouping() {
            return;
        }
        self.groups.iter_mut().for_each(|group| group.store.hold(true));
        let is_still =
            |group: &super::Group| group.store.is_still() && !group.lanes.iter().any(super::LaneSide::is_asking);
        if !self.groups.iter().all(is_still) {
            return;
        }
        let (going, coming) = self.judge_said();
        self.freeze(&going);
        self.open_slots(&coming);
        for (group, state) in std::mem::take(&mut self.slots.states) {
            self.groups[group].slots.state = state;
        }
        self.groups.iter_mut().for_each(|group| group.store.hold(group.slots.is_wanted));
        self.listen_anew();
        self.leave_unwanted();
    }

    /// Which slots go, to which group, and which come.
    fn judge_said(&mut self) -> (BTreeMap<u16, usize>, BTreeMap<u16, usize>) {
        let (mut going, mut coming) = (BTreeMap::new(), BTreeMap::new());
        for Said { slot, group, is_there, epoch } in std::mem::take(&mut self.slots.said) {
            let known = self.slots.epochs[usize::from(slot)];
            if epoch < known || (epoch == known && !is_there) {
                continue;
            }
            self.slots.epochs[usize::from(slot)] = epoch;
            let is_frozen = self.slots.frozen.contains_key(&slot) || going.contains_key(&slot);
            if !is_there {
                coming.remove(&slot);
                going.insert(slot, group);
            } else if is_frozen || self.slots.routes.get(Slot(slot)) != group {
                going.entry(slot).or_insert(group);
                coming.insert(slot, group);
            }
        }
        (going, coming)
    }

    /// No group has these slots any more: what no log has of them, and what waits for the records, waits here.
    fn freeze(&mut self, going: &BTreeMap<u16, usize>) {
        let now_going: BTreeSet<u16> =
            going.keys().copied().filter(|slot| !self.slots.frozen.contains_key(slot)).collect();
        let since = self.now();
        for (slot, to) in going {
            let from = self.slots.routes.get(Slot(*slot));
            match self.slots.frozen.get_mut(slot) {
                Some(frozen) => frozen.to = *to,
                None => {
                    self.slots.routes.freeze(*slot);
                    let records = self.groups[from].store.take_slot(Slot(*slot));
                    self.slots.frozen.insert(*slot, Frozen { to: *to, since, items: Vec::new(), heard: 0, records });
                }
            }
        }
        let mut items = Vec::new();
        for side in self.groups.iter_mut().flat_map(|group| &mut group.lanes) {
            side.lane.take_slots(|slot| now_going.contains(&slot.0), &mut items);
        }
        for item in items {
            if let Some(frozen) = self.slots.frozen.get_mut(&item.topic.slot().0) {
                frozen.items.push(item);
            }
        }
        self.slots.weigh();
    }

    /// These groups have these slots: what waits here goes there, in its order and before anything newer.
    fn open_slots(&mut self, coming: &BTreeMap<u16, usize>) {
        for (slot, group) in coming {
            self.slots.routes.open(*slot, *group);
            let Some(frozen) = self.slots.frozen.remove(slot) else { continue };
            let lane = lane_of(Slot(*slot));
            for item in frozen.items {
                self.groups[*group].lanes[lane].lane.push(item);
            }
            let mut told = Vec::new();
            self.groups[*group].store.give_slot(Instant::now(), Slot(*slot), frozen.records, &mut told);
            self.stored(*group, told);
        }
        self.slots.weigh();
        if !coming.is_empty() {
            let moment = self.moment();
            let mut outs = std::mem::take(&mut self.outs);
            self.hub.moved(moment, |slot| coming.contains_key(&slot.0), &mut outs);
            self.outs = outs;
        }
    }

    /// Listens on other groups where the map, or what groups say, wants it.
    fn listen_anew(&mut self) {
        let mut changed: BTreeMap<u16, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for slot in 0..SLOTS {
            let wanted = self.slots.wanted(slot);
            let heard = &mut self.slots.heard[usize::from(slot)];
            if *heard != wanted {
                let more = wanted.iter().copied().filter(|group| !heard.contains(group)).collect();
                let less = heard.iter().copied().filter(|group| !wanted.contains(group)).collect();
                changed.insert(slot, (more, less));
                *heard = wanted;
            }
        }
        if changed.is_empty() {
            return;
        }
        let topics: Vec<Topic> =
            self.hub.interest().filter(|topic| changed.contains_key(&topic.slot().0)).cloned().collect();
        for topic in topics {
            let (more, less) = &changed[&topic.slot().0];
            for group in less {
                self.slots.awaited.remove(&(*group, topic.clone()));
                self.leave_unread(*group, &topic);
                self.ignore_topic(*group, &topic);
            }
            for group in more {
                self.slots.awaited.insert((*group, topic.clone()));
                self.hear_topic(*group, topic.clone());
            }
        }
    }

    /// The version of the map that this node can be said to go by: everything that it wants is listened to, and where slots
    /// have moved, this node knows.
    pub(super) fn map_told(&mut self) -> u64 {
        let slots = &self.slots;
        let is_here = |place: &usize| {
            let group = &self.groups[*place];
            group.attached.is_some() && group.store.has_lease() && self.hears(*place)
        };
        let has_arrived = |(slot, beside): (&u16, &Beside)| match beside {
            Beside::Coming(_) => true,
            Beside::Leaving(_) => {
                !slots.frozen.contains_key(slot)
                    && slots.routes.get(Slot(*slot)) == slots.places[usize::from(slots.map.owner(*slot).group)]
            }
        };
        let is_ready = slots.awaited.is_empty()
            && !slots.is_regrouping()
            && slots.places.iter().all(is_here)
            && slots.map.beside.iter().all(has_arrived);
        if is_ready {
            self.slots.told = self.slots.map.version;
        }
        self.slots.told
    }

    /// Groups that the map does not name are left.
    fn leave_unwanted(&mut self) {
        if !self.slots.is_adopted {
            return;
        }
        for group in 0..self.groups.len() {
            let is_used = (0..SLOTS).any(|slot| self.slots.routes.get(Slot(slot)) == group)
                || self.slots.frozen.values().any(|frozen| frozen.to == group);
            if !is_used && !self.slots.places.contains(&group) && !self.groups[group].is_left {
                self.leave_group(group);
            }
        }
    }
}
