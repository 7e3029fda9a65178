//! The promises about outages: what is lost, doubled or told wrongly when a store does not answer for a while. Nothing is.
//!
//! How late anything may be is judged elsewhere (`cargo xtask faults`): here everything has the whole patience of a case. An
//! implementation that has no store to lose keeps these promises as it keeps the others.

pub(super) mod members;
pub(super) mod publications;

use std::time::Duration;

use super::Fixture;

/// How a case takes away what a backbone keeps its state in.
pub struct Outage {
    /// Makes it silent (`true`), all of it or a part that matters, and lets it answer again.
    pub set_away: Box<dyn Fn(bool) + Send + Sync>,
    /// Whether what is published meanwhile is heard meanwhile all the same.
    pub has_detour: bool,
    /// How long anything may take before a case gives up. Never waited for when all is well.
    pub patience: Duration,
}

/// The patience of a case in which nothing is away.
const PATIENCE: Duration = Duration::from_secs(10);

impl Outage {
    /// Of a backbone that has nothing which could be away.
    #[must_use]
    pub fn never() -> Self {
        Self { set_away: Box::new(|_| ()), has_detour: true, patience: PATIENCE }
    }
}

/// Ends the outage, also where a case panics: other cases need the same servers.
struct Away<'a>(&'a Outage);

impl Drop for Away<'_> {
    fn drop(&mut self) {
        (self.0.set_away)(false);
    }
}

impl Fixture {
    /// Does something while the store is away.
    fn while_away<T>(&self, act: impl FnOnce() -> T) -> T {
        let _away = Away(&self.outage);
        (self.outage.set_away)(true);
        act()
    }
}
