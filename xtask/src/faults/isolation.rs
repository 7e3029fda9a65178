//! Whether a group that nothing was done to notices that another one is away: its channels' p99 before, meanwhile and afterwards.
//!
//! The windows are equally long and under the same steady load. Each second has a p99 of its own. The middle one of a window is what
//! its deliveries are like; the one that nine in ten seconds do not pass shows a harm of a few seconds, which a middle hides. One
//! second that the machine had other things to do decides neither; seconds in which it is known to have been away are left out.
//! What is the same in both windows without a fault is what the machine can do now: the slower of them is what `meanwhile` is held
//! against.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use fulmar_rig::Ledger;

/// More than this times what it was is a change,
const RATIO_MAX: f64 = 1.2;
/// if it is also this much longer. A delivery passes five processes, which share two cores with nine more: whoever waits for one turn
/// of another waits for a slice of the scheduler, 3 to 4 ms. Two neighbouring windows in which nothing happens differ by as much.
const FLOOR: Duration = Duration::from_millis(4);
const SECOND: Duration = Duration::from_secs(1);
/// A window with fewer seconds than this says nothing: the machine was away in most of it.
const SECONDS_MIN: usize = 5;

/// The channels of a group that nothing was done to, and when the other group was well and when not.
pub struct Bystanders {
    /// Numbers of the channels.
    pub channels: HashSet<usize>,
    /// While all was well, in nanoseconds as in the ledger.
    pub before_ns: Range<u64>,
    /// While the other group was away.
    pub meanwhile_ns: Range<u64>,
    /// When all was well again.
    pub after_ns: Range<u64>,
}

/// The p99 of a window's seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    /// Half of the seconds were not slower,
    middle: Duration,
    /// and nine in ten not than this.
    ninth: Duration,
}

/// What came of it.
pub struct Comparison {
    channels: usize,
    /// Seconds of each window that say something.
    seconds: [usize; 3],
    /// Before, meanwhile, and after; `None` where there was too little to say anything.
    windows: Option<[Window; 3]>,
}

impl Bystanders {
    /// Compares the windows.
    pub fn compare(&self, ledger: &Ledger) -> Comparison {
        let p99s = |span: &Range<u64>| ledger.p99s(&self.channels, span.clone(), SECOND);
        Comparison::of(self.channels.len(), [&self.before_ns, &self.meanwhile_ns, &self.after_ns].map(p99s))
    }
}

impl Window {
    fn of(mut p99s: Vec<Duration>) -> Option<Self> {
        p99s.sort_unstable();
        let last = p99s.len().checked_sub(1).filter(|_| p99s.len() >= SECONDS_MIN)?;
        Some(Self { middle: p99s[last / 2], ninth: p99s[last * 9 / 10] })
    }
}

impl Comparison {
    fn of(channels: usize, p99s: [Vec<Duration>; 3]) -> Self {
        let seconds = [&p99s[0], &p99s[1], &p99s[2]].map(Vec::len);
        let [before, meanwhile, after] = p99s.map(Window::of);
        let windows = before.zip(meanwhile).zip(after).map(|((before, meanwhile), after)| [before, meanwhile, after]);
        Self { channels, seconds, windows }
    }

    /// Why isolation was not kept, if it was not. What could not be judged was not kept either, but in the short form, whose windows are
    /// so short that a busy machine is away in most of one: there the report says it.
    pub fn miss(&self, is_quick: bool) -> Option<String> {
        let [before, meanwhile, after] = match self.windows {
            Some(windows) => windows,
            None if self.channels == 0 => return Some("no channels of the other group: nothing was tried".to_owned()),
            None => return (!is_quick).then(|| "isolation could not be judged".to_owned()),
        };
        let is_changed = |of: fn(&Window) -> Duration| {
            let (well, meanwhile) = (of(&before).max(of(&after)), of(&meanwhile));
            meanwhile > well.mul_f64(RATIO_MAX) && meanwhile > well + FLOOR
        };
        let is_missed = is_changed(|window| window.middle) || is_changed(|window| window.ninth);
        is_missed.then(|| "channels of the other group were slower meanwhile".to_owned())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some([before, meanwhile, after]) = self.windows else {
            let [before, meanwhile, after] = self.seconds;
            return write!(
                f,
                "other group: COULD NOT BE JUDGED, the machine was away in too many seconds: of {before} before, {meanwhile} meanwhile and \
                 {after} after there is something to say, and {SECONDS_MIN} are needed of each"
            );
        };
        let row = |of: fn(&Window) -> Duration| {
            let [before, meanwhile, after] = [&before, &meanwhile, &after].map(|window| of(window).as_secs_f64() * 1e3);
            let ratio = meanwhile / before.max(after).max(0.001);
            format!("{before:.1} ms before, {meanwhile:.1} ms meanwhile, {after:.1} ms after (x {ratio:.2})")
        };
        let noise = |of: fn(&Window) -> Duration| of(&before).abs_diff(of(&after)).as_secs_f64() * 1e3;
        let (middle, ninth) = (row(|window| window.middle), row(|window| window.ninth));
        write!(
            f,
            "{} channels of the other group, p99 of a second: middle {middle}; nine in ten {ninth}; a change is more than x {RATIO_MAX} and \
             {} ms, a slice of the scheduler on two cores (before and after, when nothing is done, differ by {:.1} and {:.1} ms)",
            self.channels,
            FLOOR.as_millis(),
            noise(|window| window.middle),
            noise(|window| window.ninth),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(before_ms: &[u64], meanwhile_ms: &[u64], after_ms: &[u64]) -> Comparison {
        let p99s = |all: &[u64]| all.iter().map(|ms| Duration::from_millis(*ms)).collect();
        Comparison::of(100, [before_ms, meanwhile_ms, after_ms].map(p99s))
    }

    #[test]
    fn what_is_a_fifth_slower_and_longer_than_noise_is_a_miss() {
        let is_missed =
            |before, meanwhile| compared(&[before; 30], &[meanwhile; 30], &[before; 30]).miss(false).is_some();
        assert!(!is_missed(3, 7), "noise of two cores");
        assert!(is_missed(3, 8));
        assert!(!is_missed(40, 48), "a fifth");
        assert!(is_missed(40, 49));
        let words = compared(&[40; 30], &[49; 30], &[39; 30]).to_string();
        assert!(words.contains("40.0 ms before, 49.0 ms meanwhile, 39.0 ms after (x 1.23)"), "{words}");
        assert!(words.contains("more than x 1.2 and 4 ms"), "{words}");
        assert!(words.contains("differ by 1.0 and 1.0 ms"), "{words}");
    }

    #[test]
    fn a_machine_that_is_slow_afterwards_as_well_is_no_miss() {
        assert_eq!(compared(&[3; 30], &[30; 30], &[30; 30]).miss(false), None);
    }

    #[test]
    fn one_bad_second_is_no_miss_and_a_few_are() {
        let mut meanwhile = [3; 30];
        meanwhile[0] = 200;
        assert_eq!(compared(&[3; 30], &meanwhile, &[3; 30]).miss(false), None);
        meanwhile[..5].fill(200);
        assert!(compared(&[3; 30], &meanwhile, &[3; 30]).miss(false).is_some());
    }

    #[test]
    fn what_could_not_be_judged_is_said_and_a_miss_but_in_the_short_form() {
        let short = compared(&[3; 30], &[3; 4], &[3; 30]);
        assert_eq!((short.miss(true), short.miss(false).as_deref()), (None, Some("isolation could not be judged")));
        let words = short.to_string();
        assert!(words.contains("COULD NOT BE JUDGED") && words.contains("of 30 before, 4 meanwhile"), "{words}");
        let nothing = Comparison { channels: 0, ..short };
        assert!(nothing.miss(true).is_some(), "nothing was tried");
    }
}
