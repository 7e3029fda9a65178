//! Over which server's bus a group's publications go, and when that counts as heard.
//!
//! Every PUBLISH on a bus answers how many connections heard it. Fewer than the live nodes, no answer or a lost connection:
//! the batch and all behind it go again over the next path, for one round; then the highest count is believed for a while,
//! because a node that died but still counts as live must not multiply the traffic. Pure: paths are numbers.

use std::time::Duration;

use super::lane::LANES;

/// How long an answer may take before the path counts as failed.
pub const ANSWER_MAX: Duration = Duration::from_millis(100);
/// How long a count below the live nodes is believed after all paths were tried.
const BELIEVED: Duration = Duration::from_secs(1);

/// The round of paths that a batch makes.
#[derive(Debug, Default)]
pub struct Round {
    /// Paths tried for the present batch, in the order tried.
    tried: Vec<usize>,
    /// Highest count of the present round, and its path.
    best: Option<(u64, usize)>,
    /// A count that is believed although it is below the live nodes, and until when.
    believed: Option<(u64, Duration)>,
    /// Stays on the path that worked last.
    favourite: Option<usize>,
}

/// A server whose bus could carry a group's publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Its number.
    pub at: usize,
    /// Whether it is the group's primary as it is followed now, which is what publications go round.
    pub is_own: bool,
    /// Whether it says that it is a primary: it has a group's whole load already.
    pub is_primary: bool,
    /// Whether it is of the group.
    pub is_of_group: bool,
}

/// Paths by number, best first: replicas of the group, replicas of others, primaries of others, and the group's own last.
#[must_use]
pub fn best_first(mut paths: Vec<Path>) -> Vec<usize> {
    paths.sort_by_key(|path| (path.is_own, path.is_primary, !path.is_of_group, path.at));
    paths.into_iter().map(|path| path.at).collect()
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every live node has heard it, as far as can be known, and so many in all: accepted, go on.
    Heard(u64),
    /// Send the same again, by the next path.
    Again,
}

impl Round {
    /// The path to take now, out of those that are up, best first. `None` when there is none.
    #[must_use]
    pub fn path(&self, usable: &[usize]) -> Option<usize> {
        let untried = |path: &&usize| !self.tried.contains(path);
        let favourite = self.favourite.filter(|path| usable.contains(path) && untried(&path));
        favourite.or_else(|| usable.iter().find(untried).copied()).or_else(|| usable.first().copied())
    }

    /// So many connections heard it over this path.
    pub fn counted(&mut self, now: Duration, path: usize, count: u64, live: u64, usable: &[usize]) -> Outcome {
        let is_believed = self.believed.is_some_and(|(believed, until)| now < until && count >= believed);
        if count >= live || is_believed {
            return self.heard(path, count);
        }
        if self.best.is_none_or(|(best, _)| count > best) {
            self.best = Some((count, path));
        }
        self.tried.push(path);
        if usable.iter().any(|path| !self.tried.contains(path)) {
            return Outcome::Again;
        }
        let (count, path) = self.best.unwrap_or((count, path));
        if count < live.min(2) {
            // Nobody else has it. The next round begins at once; its pace is that of the answers.
            self.tried.clear();
            self.best = None;
            return Outcome::Again;
        }
        self.believed = Some((count, now + BELIEVED));
        self.heard(path, count)
    }

    /// This path is lost, or does not answer.
    pub fn failed(&mut self, path: usize, usable: &[usize]) {
        self.tried.push(path);
        if self.favourite == Some(path) {
            self.favourite = None;
        }
        if usable.iter().all(|path| self.tried.contains(path)) {
            self.tried.clear();
        }
    }

    fn heard(&mut self, path: usize, count: u64) -> Outcome {
        self.tried.clear();
        self.best = None;
        self.favourite = Some(path);
        Outcome::Heard(count)
    }
}

/// What a node may have missed that was not on the bus yet: batches that passed though fewer than the live nodes heard them.
#[derive(Debug, Default)]
pub struct Missed {
    /// How many heard the first of them, or fewer since; 0 when there is none.
    count: u64,
    since: Duration,
    /// Where the first of them began in each lane.
    from: [Option<u64>; LANES],
}

/// How far the bus goes back for somebody who has come to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// To these numbers.
    To([Option<u64>; LANES]),
    /// It is longer than [`MISSED_MAX`]: as far as is usual.
    Recent,
}

/// How long ago a batch may have been that is sent again because more hear the bus now.
pub const MISSED_MAX: Duration = Duration::from_secs(1);

impl Missed {
    /// A batch that begins at these numbers was heard by so many and passed. Tells how far to go back when more hear it than heard
    /// one before: the one who came, or came back, has what follows and not what went before, which would reach it by another way,
    /// and later.
    pub fn passed(&mut self, now: Duration, count: u64, live: u64, starts: [Option<u64>; LANES]) -> Option<Back> {
        let mut back = None;
        if self.count > 0 && (count > self.count || count >= live) {
            let before = std::mem::take(self);
            let is_recent = now <= before.since + MISSED_MAX;
            back = (count > before.count).then_some(if is_recent { Back::To(before.from) } else { Back::Recent });
        }
        if count < live {
            if self.count == 0 {
                (self.count, self.since) = (count, now);
            }
            self.count = self.count.min(count);
            for (from, start) in self.from.iter_mut().zip(starts) {
                // The bus may have gone back meanwhile.
                *from = from.iter().chain(&start).min().copied();
            }
        }
        back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// RED-23
    #[test]
    fn a_low_count_sends_the_batch_over_the_next_path() {
        let mut round = Round::default();
        let usable = [4, 5, 6];
        assert_eq!(round.path(&usable), Some(4));
        assert_eq!(round.counted(MS(0), 4, 2, 3, &usable), Outcome::Again);
        assert_eq!(round.path(&usable), Some(5));
        assert_eq!(round.counted(MS(1), 5, 3, 3, &usable), Outcome::Heard(3));
        assert_eq!(round.path(&usable), Some(5), "the path that worked stays");
    }

    /// RED-23
    #[test]
    fn after_one_round_the_highest_count_is_believed_for_a_second() {
        let mut round = Round::default();
        let usable = [1, 2];
        assert_eq!(round.counted(MS(0), 1, 2, 3, &usable), Outcome::Again);
        assert_eq!(round.counted(MS(1), 2, 1, 3, &usable), Outcome::Heard(2));
        assert_eq!(round.path(&usable), Some(1), "where most heard it");
        assert_eq!(round.counted(MS(500), 1, 2, 3, &usable), Outcome::Heard(2), "without another round");
        assert_eq!(round.counted(MS(1_100), 1, 2, 3, &usable), Outcome::Again, "then it is tried anew");
    }

    /// RED-13
    #[test]
    fn what_no_other_process_heard_is_never_accepted() {
        let mut round = Round::default();
        for now in 0..10 {
            assert_eq!(round.counted(MS(now), 1, 1, 3, &[1]), Outcome::Again);
        }
        assert_eq!(round.counted(MS(20), 1, 1, 1, &[1]), Outcome::Heard(1), "a node that is alone");
    }

    /// RED-22
    #[test]
    fn replicas_of_the_group_come_first_and_its_own_primary_last() {
        let path = |at, is_own, is_primary, is_of_group| Path { at, is_own, is_primary, is_of_group };
        let own_primary = path(0, true, true, true);
        let other_primary = path(1, false, true, false);
        let other_replica = path(2, false, false, false);
        let replicas = [path(3, false, false, true), path(4, false, false, true)];
        let primary_of_before = path(5, false, true, true);
        let mut paths = vec![own_primary, other_primary, other_replica, replicas[0], replicas[1], primary_of_before];
        let expected = [3, 4, 2, 5, 1, 0];
        assert_eq!(best_first(paths.clone()), expected);
        paths.reverse();
        assert_eq!(best_first(paths), expected, "in whatever order they became known");
        // One that has not said yet that it was promoted.
        assert_eq!(best_first(vec![path(0, true, false, true), other_primary]), [1, 0]);
        assert_eq!(best_first(Vec::new()), [0; 0]);
    }

    /// RED-22
    #[test]
    fn a_failed_path_is_left_until_all_have_failed() {
        let mut round = Round::default();
        let usable = [1, 2];
        round.failed(1, &usable);
        assert_eq!(round.path(&usable), Some(2));
        round.failed(2, &usable);
        assert_eq!(round.path(&usable), Some(1));
        assert_eq!(round.path(&[]), None);
    }

    /// RED-23
    #[test]
    fn whoever_comes_to_the_bus_has_what_went_over_it_a_moment_before() {
        let mut missed = Missed::default();
        assert_eq!(missed.passed(MS(0), 3, 3, [Some(1), Some(1)]), None, "all heard it");
        assert_eq!(missed.passed(MS(10), 2, 3, [Some(5), None]), None);
        assert_eq!(missed.passed(MS(20), 2, 3, [Some(8), Some(4)]), None);
        assert_eq!(missed.passed(MS(30), 3, 3, [Some(9), Some(6)]), Some(Back::To([Some(5), Some(4)])));
        assert_eq!(missed.passed(MS(40), 3, 3, [Some(5), Some(4)]), None, "once");
    }

    /// RED-23
    #[test]
    fn the_bus_goes_back_again_for_each_who_comes() {
        let mut missed = Missed::default();
        assert_eq!(missed.passed(MS(0), 2, 4, [Some(5), None]), None);
        assert_eq!(missed.passed(MS(10), 3, 4, [Some(9), None]), Some(Back::To([Some(5), None])));
        assert_eq!(missed.passed(MS(20), 3, 4, [Some(5), None]), None);
        assert_eq!(missed.passed(MS(30), 4, 4, [Some(7), None]), Some(Back::To([Some(5), None])));
    }

    /// RED-23
    #[test]
    fn nobody_is_waited_for_who_does_not_come_and_the_way_back_has_an_end() {
        let mut missed = Missed::default();
        assert_eq!(missed.passed(MS(0), 2, 3, [Some(5), None]), None);
        assert_eq!(missed.passed(MS(10), 2, 2, [Some(9), None]), None, "the third is known to be dead");
        assert_eq!(missed.passed(MS(20), 3, 3, [Some(9), None]), None, "and was not there before");
        assert_eq!(missed.passed(MS(30), 2, 3, [Some(12), None]), None);
        assert_eq!(missed.passed(MS(1_031), 3, 3, [Some(90), None]), Some(Back::Recent));
    }
}
