//! What a run came to, as lines for the eye: a row at the end of each, and a table at the end of all.

use std::time::Duration;

use fulmar_rig::Verdict;

/// One run of one case.
pub struct Run {
    /// The case.
    pub name: &'static str,
    /// Its seed.
    pub seed: u64,
    /// The ledger's word; `None` where there was no load or no ledger.
    pub verdict: Option<Verdict>,
    /// Promises that were not kept.
    pub misses: Vec<String>,
    /// What the deed says.
    pub notes: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Run {
    /// The row, and beneath it what is worth saying.
    pub fn print(&self) {
        let word = if self.misses.is_empty() { "kept" } else { "MISSED" };
        print!("{:<24} seed {:<6} {word:<7}", self.name, self.seed);
        if let Some(verdict) = &self.verdict {
            print!(
                " {} publishes, {} receipts | lost {} doubled {} order {} failed {} refused {} apart {} late {} closed {} | \
                 delivery p50 {} p99 {} longest {} (raw {}), answer {}, machine away {} at most, {} in all",
                verdict.publishes,
                verdict.receipts,
                verdict.lost,
                verdict.doubled,
                verdict.inversions,
                verdict.failed,
                verdict.refused,
                verdict.failed_apart,
                verdict.late,
                verdict.closed,
                ms(verdict.p50),
                ms(verdict.p99),
                ms(verdict.longest),
                ms(verdict.longest_raw),
                ms(verdict.longest_answer),
                ms(verdict.longest_stall),
                ms(verdict.stalled),
            );
        }
        println!(" ({} s)", self.took.as_secs());
        self.notes.iter().for_each(|note| println!("    {note}"));
        self.misses.iter().for_each(|miss| println!("    MISSED: {miss}"));
        if !self.misses.is_empty() {
            let examples = self.verdict.iter().flat_map(|verdict| &verdict.examples);
            examples.for_each(|example| println!("      {example}"));
        }
    }
}

/// The table: sums and worst values over the seeds of each case.
pub fn print_table(runs: &[Run]) {
    println!("\n| fault | seeds | lost | doubled | failed | 503 | late | longest | longest answer | verdict |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut names: Vec<_> = runs.iter().map(|run| run.name).collect();
    names.dedup();
    for name in names {
        let of_case: Vec<_> = runs.iter().filter(|run| run.name == name).collect();
        let verdicts = || of_case.iter().filter_map(|run| run.verdict.as_ref());
        let sum = |count: fn(&Verdict) -> usize| verdicts().map(count).sum::<usize>();
        let worst = |time: fn(&Verdict) -> Duration| ms(verdicts().map(time).max().unwrap_or_default());
        let missed = of_case.iter().filter(|run| !run.misses.is_empty()).count();
        let word = if missed == 0 { "kept".to_owned() } else { format!("MISSED in {missed} of {}", of_case.len()) };
        println!(
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {word} |",
            of_case.len(),
            sum(|v| v.lost),
            sum(|v| v.doubled),
            sum(|v| v.failed),
            sum(|v| v.refused),
            sum(|v| v.late),
            worst(|v| v.longest),
            worst(|v| v.longest_answer),
        );
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
