//! Which ways a group's publications go: to the log of the primary, over the bus, or both.
//!
//! Whatever looks wrong opens the circuit at once: both ways are used, and the bus is wound back. It closes when the primary
//! has answered without trouble for [`CALM`], every live node is attached to it, and no node says that it is deaf. The count
//! closes it, not the clock alone: a node that is late in attaching would miss what goes to the log only. Pure.

use std::time::Duration;

/// How long the primary must have answered without trouble before the bus is left.
pub const CALM: Duration = Duration::from_secs(2);
/// How long the bus is used after the last word of a node that hears nothing from the primary.
pub const AFTER_DEAF: Duration = Duration::from_millis(600);

/// Whether the bus is in use for one group, and why.
#[derive(Debug, Default)]
pub struct Circuit {
    is_open: bool,
    troubled_at: Option<Duration>,
    deaf_until: Option<Duration>,
    openings: u64,
}

impl Circuit {
    /// Something is wrong with the primary or the way to it. True when that opens the circuit: the bus is then wound back.
    pub fn trouble(&mut self, now: Duration) -> bool {
        self.troubled_at = Some(now);
        self.open()
    }

    /// Another node hears nothing from the primary. True when that opens the circuit.
    pub fn deaf(&mut self, now: Duration) -> bool {
        self.deaf_until = Some(now + AFTER_DEAF);
        self.open()
    }

    fn open(&mut self) -> bool {
        let opens = !self.is_open;
        self.is_open = true;
        self.openings += u64::from(opens);
        opens
    }

    /// Closes it when all is well. True when that has just happened.
    pub fn close_if_well(&mut self, now: Duration, all_are_attached: bool) -> bool {
        let is_calm = self.troubled_at.is_none_or(|at| now >= at + CALM);
        let all_hear = self.deaf_until.is_none_or(|until| now >= until);
        let closes = self.is_open && is_calm && all_hear && all_are_attached;
        if closes {
            self.is_open = false;
        }
        closes
    }

    /// The primary is here for the first time and nothing was published before: nothing can be missing anywhere.
    pub fn begin(&mut self) {
        *self = Self { openings: self.openings, ..Self::default() };
    }

    /// Whether the bus is in use.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// How often it was opened.
    #[must_use]
    pub fn openings(&self) -> u64 {
        self.openings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// RED-19
    #[test]
    fn the_bus_is_left_by_count_and_not_by_clock() {
        let mut circuit = Circuit::default();
        assert!(circuit.trouble(MS(0)));
        assert!(!circuit.trouble(MS(100)), "it is open already");
        assert!(!circuit.close_if_well(MS(2_099), true), "too early");
        assert!(!circuit.close_if_well(MS(60_000), false), "somebody is not attached");
        assert!(circuit.close_if_well(MS(2_100), true));
        assert!(!circuit.is_open() && circuit.openings() == 1);
    }

    /// RED-16
    #[test]
    fn one_deaf_node_keeps_both_ways_in_use_for_all() {
        let mut circuit = Circuit::default();
        assert!(circuit.deaf(MS(0)));
        assert!(!circuit.deaf(MS(150)));
        assert!(!circuit.close_if_well(MS(749), true));
        assert!(circuit.close_if_well(MS(750), true));
    }
}
