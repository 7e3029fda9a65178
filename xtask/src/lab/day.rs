//! What a day is: the story of an outage as steps, each with what may happen in it without a promise being broken.
//!
//! The table of all days, as data. How a step is done stands in the day's own file.

use super::scene::Lab;
use super::{d1, d2, d3, d4, d5};
use crate::faults::stage::{Done, Setting};

/// A published outage.
pub struct Day {
    /// As it is called on the command line.
    pub name: &'static str,
    /// As `spec/incidents.md` calls it.
    pub id: &'static str,
    /// In a few words.
    pub title: &'static str,
    /// What happened at Pusher.
    pub story: &'static str,
    /// The servers it happens to.
    pub setting: Setting,
    /// Starts nodes and load.
    pub begin: fn(&mut Lab) -> Done,
    /// Its steps in order.
    pub steps: &'static [Step],
    /// Parts of the outage that nothing here can replay yet, and what they wait for.
    pub gaps: &'static [&'static str],
}

/// A step of a day.
pub struct Step {
    /// In a few words.
    pub name: &'static str,
    /// What happened at Pusher, where it did.
    pub story: &'static str,
    /// What is done here; it returns when the consequences are past.
    pub deed: fn(&mut Lab) -> Done,
    /// What may happen all the same.
    pub allowed: Allowed,
}

impl Day {
    /// Whether a step of it caps what a server's host may send.
    pub fn caps_lines(&self) -> bool {
        self.setting == Setting::SentinelWithLinks
    }
}

/// What may happen in a step without a promise being broken. Nothing is ever lost, doubled, out of order or refused without a clear 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// Deliveries later than 900 ms: held while there was no way.
    pub holds: bool,
    /// Sockets closed with 4200, by a node that goes away.
    pub goes_away: bool,
}

/// Nobody notices anything.
pub const NOTHING: Allowed = Allowed { holds: false, goes_away: false };
/// Publications may wait.
pub const HELD: Allowed = Allowed { holds: true, goes_away: false };
/// Nodes are replaced, and tell their sockets to come back.
pub const GOES_AWAY: Allowed = Allowed { holds: false, goes_away: true };

/// All of them.
pub const DAYS: [Day; 5] = [d1::DAY, d2::DAY, d3::DAY, d4::DAY, d5::DAY];

#[cfg(test)]
mod tests {
    use super::*;

    /// Every published outage of the specification has its day here.
    #[test]
    fn days_are_those_of_the_specification() {
        let spec = crate::project::text(std::path::Path::new("spec/incidents.md")).expect("it is there");
        let ids: Vec<_> = spec.lines().filter_map(|line| line.strip_prefix("| INC-")?.split(' ').next()).collect();
        assert_eq!(ids, DAYS.iter().map(|day| &day.id[4..]).collect::<Vec<_>>());
        assert!(DAYS.iter().all(|day| !day.steps.is_empty()));
    }
}
