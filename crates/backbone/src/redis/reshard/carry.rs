//! Carrying slots over: what lies of them goes from the group that gives them away to the one that has them then, a few at a time.
//!
//! Every server that may answer for the new group has what lies of a slot before any says that the slot is there: nodes that read it
//! say it again to a successor that lacks it, and all that lay of the slot must then be found.
//!
//! What lies of a slot is found in [`super::state`] and [`super::webhooks`]; when slots may go is for whoever moves them to say.

use std::time::Duration;

use super::state::{self, Cached};
use super::{Mover, ReshardError, text};
use crate::redis::map::{Beside, Held, SlotMap};
use crate::redis::topic::Slot;

/// Slots that no group has at the same time: few enough that nobody notices.
const CHUNK: usize = 16;

impl Mover<'_> {
    /// Takes slots from group to group, a few at a time.
    pub(super) async fn carry(&mut self, map: &SlotMap) -> Result<(), ReshardError> {
        let keys = self.keys.clone();
        let all = map.beside.len();
        let mut done = 0;
        for (from, to, mut slots) in coming(map) {
            // What webhooks have announced is read once for each part of the outbox that has any of a chunk of these.
            slots.sort_by_key(|slot| (Slot(*slot).outbox_part(), *slot));
            let mut cached = Cached::find(self.group(&from)?, &keys).await?;
            // A primary that died may have kept its successor from hearing that slots had left, at another time.
            let left_over = Cached::find(self.group(&to)?, &keys).await?;
            // Where there are many keys that took longer than a mover is believed.
            self.hold(Duration::ZERO).await?;
            for slots in slots.chunks(CHUNK) {
                let words = [to.clone(), map.version.to_string()];
                cached.read_on(self.group(&from)?, &keys).await?;
                self.step(&from, "freeze", &words, slots).await?;
                let held = self.group(&from)?.held(&keys, slots).await?;
                // Where it was opened before a mover died, it says so no longer than until it moves on.
                let gone = Some(Held::To(to.clone(), map.version));
                if held.iter().any(|held| *held != gone) {
                    return Err(ReshardError::Unreachable(
                        from,
                        "it does not give slots away that it should".to_owned(),
                    ));
                }
                self.say("frozen", done, all)?;
                cached.read_on(self.group(&from)?, &keys).await?;
                let contents = state::contents(self.group(&from)?, &keys, slots, &cached).await?;
                let (mut words, mut left) = (vec![text("fill"), text(map.version)], vec![text("close")]);
                for (slot, contents) in slots.iter().zip(contents) {
                    let lies = [left_over.gone(*slot, &keys), contents.words].concat();
                    words.extend([text(slot), text(lies.len())]);
                    words.extend(lies);
                    left.extend(contents.left);
                }
                self.put(&to, &words).await?;
                self.say("filled", done, all)?;
                self.step(&to, "open", &[map.version.to_string()], slots).await?;
                self.say("opened", done, all)?;
                self.put(&from, &left).await?;
                done += slots.len();
                self.renew(self.groups.len()).await?;
                self.say("moved", done, all)?;
            }
        }
        Ok(())
    }
}

/// Slots that are to move, by where from and where to.
pub(super) fn coming(map: &SlotMap) -> Vec<(String, String, Vec<u16>)> {
    let mut coming: Vec<(String, String, Vec<u16>)> = Vec::new();
    for (slot, beside) in &map.beside {
        let Beside::Coming(to) = beside else { continue };
        let (from, to) = (map.name(map.owner(*slot).group), map.name(*to));
        match coming.iter_mut().find(|(known, towards, _)| known == from && towards == to) {
            Some((.., slots)) => slots.push(*slot),
            None => coming.push((from.to_owned(), to.to_owned(), vec![*slot])),
        }
    }
    coming
}
