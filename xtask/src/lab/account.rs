//! The reckoning of a day: the ledger's word on each step, against what the step allows, and on the whole.
//!
//! Nothing here is an opinion of the one who wrote a step: figures come from the ledger, and a step is kept or it is not.

use std::time::Duration;

use fulmar_rig::{Ledger, Verdict};

use super::day::{Allowed, Day, Step};
use super::report::ms;
use super::sdk::SdkAccount;
use super::timeline::{Entry, Voice};
use super::trace::Trace;

/// Sentinels take a server for down after a second, and nodes sooner.
const STALL_MAX: Duration = Duration::from_millis(500);

/// A step that has been done, before the ledger is known.
pub struct Done {
    /// The step.
    pub step: &'static Step,
    /// From and to, in the ledger's time.
    pub span_ns: [u64; 2],
    /// What went wrong beside the ledger.
    pub wrongs: Vec<String>,
    /// What this release cannot do yet.
    pub gaps: Vec<String>,
    /// Whether that is all of it.
    pub is_skipped: bool,
}

/// A step and its figures.
pub struct StepAccount {
    /// Which.
    pub step: &'static Step,
    /// Whether nothing of it could be done.
    pub is_skipped: bool,
    /// From and to, on the day's timeline.
    pub span: [Duration; 2],
    /// The ledger's word on what was sent meanwhile.
    pub figures: Verdict,
    /// Promises that were not kept.
    pub misses: Vec<String>,
    /// What this release cannot do yet.
    pub gaps: Vec<String>,
}

/// A day that is over.
pub struct Account {
    /// Which.
    pub day: &'static Day,
    /// Where chance began.
    pub seed: u64,
    /// Its steps.
    pub steps: Vec<StepAccount>,
    /// The ledger's word on all of it.
    pub whole: Verdict,
    /// What presence came to: every look at it.
    pub presence: Vec<String>,
    /// The machine's load average, before and after: where it is far above the number of cores, delays say little.
    pub machine: String,
    /// What capped its lines, where any were.
    pub lines: Option<String>,
    /// What official SDKs noted.
    pub sdk: Option<SdkAccount>,
    /// What no step can show.
    pub misses: Vec<String>,
    /// Everything that was said.
    pub entries: Vec<Entry>,
    /// Figures by second.
    pub trace: Trace,
    /// What was published and delivered, by second.
    pub seconds: Vec<Second>,
    /// When the ledger began, on the day's timeline.
    pub ledger_began: Duration,
    /// How long it took, setting up and ending included.
    pub took: Duration,
}

/// A second of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Second {
    /// Publishes begun.
    pub published: usize,
    /// Of these, answered otherwise than with 200.
    pub unanswered: usize,
    /// Receipts.
    pub delivered: usize,
    /// The longest delivery of what was published then.
    pub longest: Duration,
}

impl StepAccount {
    /// One word.
    pub fn verdict(&self) -> &'static str {
        match (self.misses.is_empty(), self.gaps.is_empty()) {
            (false, _) => "MISSED",
            (true, false) if self.is_skipped => "NOT COVERED",
            (true, false) => "KEPT IN PART",
            (true, true) => "KEPT",
        }
    }
}

impl Account {
    /// Promises that were not kept, all of them.
    pub fn all_misses(&self) -> Vec<String> {
        let of_steps =
            self.steps.iter().flat_map(|step| step.misses.iter().map(|miss| format!("{}: {miss}", step.step.name)));
        of_steps.chain(self.misses.iter().cloned()).collect()
    }

    /// What this release cannot do yet, all of it.
    pub fn all_gaps(&self) -> Vec<String> {
        let of_steps =
            self.steps.iter().flat_map(|step| step.gaps.iter().map(|gap| format!("{}: {gap}", step.step.name)));
        of_steps.chain(self.day.gaps.iter().map(|gap| (*gap).to_owned())).collect()
    }

    /// One word; a day of which a part cannot be replayed never counts as whole.
    pub fn verdict(&self) -> &'static str {
        match (self.all_misses().is_empty(), self.all_gaps().is_empty()) {
            (true, true) => "KEPT",
            (true, false) => "KEPT IN PART",
            (false, _) => "MISSED",
        }
    }

    /// Whether the machine itself stood still for so long that servers were taken for dead which nothing was done to.
    pub fn is_disturbed(&self) -> bool {
        self.whole.longest_stall > STALL_MAX
    }

    /// What stands in the tables of days, each figure under its heading.
    pub fn figures(&self) -> [(&'static str, String); 9] {
        let whole = &self.whole;
        [
            ("published", whole.publishes.to_string()),
            ("accepted", self.accepted().to_string()),
            ("delivered", (whole.receipts - whole.doubled).to_string()),
            ("late", whole.late.to_string()),
            ("lost", whole.lost.to_string()),
            ("doubled", whole.doubled.to_string()),
            ("failed", whole.failed.to_string()),
            ("503", whole.refused.to_string()),
            ("longest", ms(whole.longest)),
        ]
    }

    /// Publishes that were answered 200.
    pub fn accepted(&self) -> usize {
        self.whole.publishes - self.whole.failed - self.whole.refused
    }
}

/// A step's figures, and what of its promises was not kept.
pub fn of_step(done: Done, ledger: &Ledger, ledger_began: Duration) -> StepAccount {
    let [from_ns, to_ns] = done.span_ns;
    let figures = ledger.sent_between(from_ns, to_ns).verdict(&[]);
    let sockets = ledger.stood.iter().filter_map(|stood| stood.ended.as_ref());
    let closed = sockets.filter(|(at_ns, words)| {
        (from_ns..to_ns).contains(at_ns) && !(done.step.allowed.goes_away && words.contains("4200"))
    });
    let mut misses = done.wrongs;
    if !done.is_skipped {
        misses.extend(misses_of(done.step.allowed, &figures, closed.count()));
    }
    let at = |ns: u64| ledger_began + Duration::from_nanos(ns);
    StepAccount {
        step: done.step,
        is_skipped: done.is_skipped,
        span: [at(from_ns), at(to_ns.min(last_ns(ledger)))],
        figures,
        misses,
        gaps: done.gaps,
    }
}

fn misses_of(allowed: Allowed, figures: &Verdict, closed: usize) -> Vec<String> {
    let mut misses = Vec::new();
    let mut none = |count: usize, what: &str| {
        if count > 0 {
            misses.push(format!("{count} {what}"));
        }
    };
    none(figures.lost, "lost");
    none(figures.doubled, "doubled");
    none(figures.inversions, "out of order");
    none(figures.failed, "failed");
    none(figures.refused, "refused with 503");
    none(if allowed.holds { 0 } else { figures.late }, "late");
    none(closed, "sockets closed");
    none(usize::from(figures.publishes == 0), "load at all");
    misses
}

fn last_ns(ledger: &Ledger) -> u64 {
    let answered = ledger.published.iter().map(|publish| publish.answered_ns).max();
    answered.into_iter().chain(ledger.receipts.iter().map(|receipt| receipt.at_ns)).max().unwrap_or(0)
}

/// The ledger by second.
pub fn seconds(ledger: &Ledger) -> Vec<Second> {
    let second = |ns: u64| usize::try_from(ns / 1_000_000_000).unwrap_or(0);
    let mut seconds = vec![Second::default(); second(last_ns(ledger)) + 1];
    let mut sent = std::collections::HashMap::new();
    for publish in &ledger.published {
        let here = &mut seconds[second(publish.sent_ns)];
        here.published += 1;
        here.unanswered += usize::from(publish.status != Some(200));
        sent.insert((publish.lane, publish.seq), publish.sent_ns);
    }
    for receipt in &ledger.receipts {
        seconds[second(receipt.at_ns)].delivered += 1;
        if let Some(sent_ns) = sent.get(&(receipt.lane, receipt.seq)) {
            let here = &mut seconds[second(*sent_ns)];
            here.longest = here.longest.max(Duration::from_nanos(receipt.at_ns.saturating_sub(*sent_ns)));
        }
    }
    seconds
}

/// Whether an entry belongs into a short list: all but what nodes said.
pub fn is_outline(entry: &Entry) -> bool {
    entry.voice != Voice::Node
}

#[cfg(test)]
mod tests {
    use super::super::day::{GOES_AWAY, HELD, NOTHING};
    use super::*;

    #[test]
    fn a_loss_is_a_miss_whatever_is_allowed() {
        let lossy = Verdict { publishes: 5, lost: 1, ..Verdict::default() };
        for allowed in [NOTHING, HELD, GOES_AWAY] {
            assert_eq!(misses_of(allowed, &lossy, 0), ["1 lost"]);
        }
    }

    #[test]
    fn what_is_late_is_a_miss_unless_publications_may_wait() {
        let late = Verdict { publishes: 5, late: 2, ..Verdict::default() };
        assert_eq!(misses_of(NOTHING, &late, 0), ["2 late"]);
        assert!(misses_of(HELD, &late, 0).is_empty());
        assert_eq!(misses_of(HELD, &Verdict::default(), 1), ["1 sockets closed", "1 load at all"]);
    }
}
