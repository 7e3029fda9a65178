//! Which workers have subscriptions, and how many each. Most of what is followed is followed by one worker, so that one takes
//! no allocation.
//!
//! Knows neither what is followed nor who hears of it.

use crate::WorkerId;

/// A worker with subscriptions on one thing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Follower {
    pub(crate) worker: WorkerId,
    subscriptions: u32,
}

/// All workers with subscriptions on one thing; most channels have one.
pub(crate) enum Followers {
    One(Follower),
    /// None, or more than one.
    Several(Box<[Follower]>),
}

impl Default for Followers {
    fn default() -> Self {
        Self::Several(Box::default())
    }
}

impl Followers {
    pub(crate) fn all(&self) -> &[Follower] {
        match self {
            Self::One(follower) => std::slice::from_ref(follower),
            Self::Several(followers) => followers,
        }
    }

    pub(crate) fn has(&self, worker: WorkerId) -> bool {
        self.all().iter().any(|follower| follower.worker == worker)
    }

    fn all_mut(&mut self) -> &mut [Follower] {
        match self {
            Self::One(follower) => std::slice::from_mut(follower),
            Self::Several(followers) => followers,
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.all().iter().map(|f| u64::from(f.subscriptions)).sum()
    }

    pub(crate) fn add(&mut self, worker: WorkerId) {
        if let Some(follower) = self.all_mut().iter_mut().find(|f| f.worker == worker) {
            follower.subscriptions += 1;
            return;
        }
        let new = Follower { worker, subscriptions: 1 };
        *self = match self.all() {
            [] => Self::One(new),
            others => Self::Several(others.iter().copied().chain([new]).collect()),
        };
    }

    pub(crate) fn remove(&mut self, worker: WorkerId) {
        let Some(follower) = self.all_mut().iter_mut().find(|f| f.worker == worker) else { return };
        follower.subscriptions -= 1;
        if follower.subscriptions > 0 {
            return;
        }
        let mut others = self.all().iter().copied().filter(|f| f.worker != worker);
        *self = match (others.next(), others.next()) {
            (Some(only), None) => Self::One(only),
            _ => Self::Several(self.all().iter().copied().filter(|f| f.worker != worker).collect()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DEL-1
    #[test]
    fn followers_are_the_workers_with_subscriptions_left() {
        let mut followers = Followers::default();
        let workers = |f: &Followers| f.all().iter().map(|f| (f.worker.0, f.subscriptions)).collect::<Vec<_>>();
        for worker in [5, 3, 5, 9] {
            followers.add(WorkerId(worker));
        }
        assert_eq!((workers(&followers), followers.total()), (vec![(5, 2), (3, 1), (9, 1)], 4));
        for worker in [3, 5, 9, 9, 1] {
            followers.remove(WorkerId(worker));
        }
        assert_eq!(workers(&followers), [(5, 1)]);
        followers.remove(WorkerId(5));
        assert_eq!((workers(&followers), followers.total()), (vec![], 0));
    }
}
