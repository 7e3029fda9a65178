//! From samples to a verdict: medians, the table, the JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::case::{Case, Target};
use super::sample::Sample;

/// Above this many cores of other work the table warns: ratios get wider, and waits longer.
const OTHERS_MAX: f64 = 0.3;

/// Samples of one case, taken in turns.
#[derive(Debug, Clone, Default)]
pub struct Pairs {
    /// Of the reference, one per pair.
    pub reference: Vec<Sample>,
    /// Of the server in question, one per pair; none when only the reference ran.
    pub ours: Vec<Sample>,
    /// Of the second reference.
    pub second: Vec<Sample>,
    /// Samples thrown away because the echo stalled.
    pub voided: u32,
    /// CPU that neither server nor generator used, in cores.
    pub others_busy: f64,
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All samples were taken.
    Done,
    /// The machine stalled in too many of them.
    Void,
    /// The server did wrong, or could not run; why.
    Failed(String),
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The case.
    pub case: String,
    /// Of all figures but ratios.
    pub unit: &'static str,
    /// Median of ours.
    pub ours: Option<f64>,
    /// Median of the reference.
    pub reference: Option<f64>,
    /// Medians when small, for growth.
    pub small: Option<[Option<f64>; 2]>,
    /// Median of the ratios pair by pair; for growth, of (ours large by small) by (reference large by small).
    pub ratio: Option<f64>,
    /// The smallest and largest of these ratios.
    pub ratio_range: Option<[f64; 2]>,
    /// What the second reference is.
    pub second: &'static str,
    /// The second reference by the first.
    pub second_ratio: Option<f64>,
    /// What is asked, in words.
    pub target: String,
    /// Whether it is met; none when it could not be judged.
    pub met: Option<bool>,
    /// How it ended.
    pub outcome: Outcome,
    /// How busy server and generator were, ours or else the reference's, in cores.
    pub busy: [f64; 2],
    /// CPU of everybody else, in cores.
    pub others_busy: f64,
    /// Samples thrown away.
    pub voided: u32,
    /// Counts and pings beside the deliveries, in ours.
    pub extras: u64,
    /// All values, for whoever wants to look closer.
    pub samples: Samples,
}

/// All values as they were taken.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Samples {
    ours: Vec<f64>,
    reference: Vec<f64>,
    second: Vec<f64>,
}

/// Judges a case.
pub fn judge(case: &Case, pairs: &Pairs, outcome: Outcome) -> Row {
    let values = |samples: &[Sample]| samples.iter().map(|s| s.value).collect::<Vec<_>>();
    let small = |samples: &[Sample]| median(&samples.iter().filter_map(|s| s.small).collect::<Vec<_>>());
    let ratios = ratios(&pairs.ours, &pairs.reference);
    let ours = median(&values(&pairs.ours));
    let ratio = median(&ratios);
    let (target, met) = match case.plan.target {
        Target::Ratio(max) => (format!("<= {max}x"), ratio.map(|r| r <= max)),
        Target::Value(max) => (format!("<= {max} {}", case.plan.work.unit()), ours.map(|o| o <= max)),
        Target::Shown => ("shown".to_owned(), None),
        Target::Growth(max) => (format!("grows <= {:.0}%", max * 100.0), ratio.map(|r| r - 1.0 <= max)),
    };
    let shown = pairs.ours.last().or(pairs.reference.last()).cloned().unwrap_or_default();
    Row {
        case: case.name.clone(),
        unit: case.plan.work.unit(),
        ours,
        reference: median(&values(&pairs.reference)),
        small: small(&pairs.reference).map(|r| [small(&pairs.ours), Some(r)]),
        ratio,
        ratio_range: ratios
            .iter()
            .copied()
            .reduce(f64::min)
            .zip(ratios.iter().copied().reduce(f64::max))
            .map(Into::into),
        second: case.plan.work.second(),
        second_ratio: median(&self::ratios(&pairs.second, &pairs.reference)),
        target,
        met: met.filter(|_| outcome == Outcome::Done),
        outcome,
        busy: [shown.server_busy, shown.generator_busy],
        others_busy: pairs.others_busy,
        voided: pairs.voided,
        extras: pairs.ours.iter().map(|s| s.extras).sum(),
        samples: Samples {
            ours: values(&pairs.ours),
            reference: values(&pairs.reference),
            second: values(&pairs.second),
        },
    }
}

fn ratios(ours: &[Sample], reference: &[Sample]) -> Vec<f64> {
    let own = |s: &Sample| s.value / s.small.unwrap_or(1.0);
    ours.iter().zip(reference).map(|(o, r)| own(o) / own(r)).filter(|r| r.is_finite()).collect()
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The table for people.
pub fn table(rows: &[Row]) -> String {
    let head = ["case", "ours", "reference", "ratio (range)", "target", "met", "busy srv/gen/other", "notes"];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let widths: Vec<usize> = (0..head.len()).map(|c| lines.iter().map(|l| l[c].len()).max().unwrap_or(0)).collect();
    lines.iter().fold(String::new(), |mut text, line| {
        for (cell, width) in line.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    })
}

fn cells(row: &Row) -> [String; 8] {
    let side = |value: Option<f64>, small: Option<f64>| match (value, small) {
        (Some(v), Some(s)) => format!("{s:.2} -> {v:.2} {} ({:+.0}%)", row.unit, (v / s - 1.0) * 100.0),
        (Some(v), None) => format!("{v:.2} {}", row.unit),
        _ => "-".into(),
    };
    let [small_ours, small_reference] = row.small.unwrap_or_default();
    let ratio = match (row.ratio, row.ratio_range) {
        (Some(ratio), Some([low, high])) => format!("{ratio:.2} ({low:.2}-{high:.2})"),
        _ => "-".into(),
    };
    let met = match (&row.outcome, row.met) {
        (Outcome::Failed(_), _) => "FAILED",
        (Outcome::Void, _) => "VOID",
        (Outcome::Done, Some(true)) => "met",
        (Outcome::Done, Some(false)) => "NOT MET",
        (Outcome::Done, None) => "-",
    };
    let mut notes = Vec::new();
    if row.others_busy > OTHERS_MAX {
        notes.push("other work ran beside: repeat when the machine is quiet".to_owned());
    }
    if let Outcome::Failed(why) = &row.outcome {
        notes.push(why.clone());
    }
    if let Some(ratio) = row.second_ratio {
        notes.push(format!("{} {ratio:.2}x", row.second));
    }
    if row.voided > 0 {
        notes.push(format!("{} voided and repeated", row.voided));
    }
    if row.extras > 0 {
        notes.push(format!("{} counts and pings", row.extras));
    }
    [
        row.case.clone(),
        side(row.ours, small_ours),
        side(row.reference, small_reference),
        ratio,
        row.target.clone(),
        met.into(),
        format!("{:.2}/{:.2}/{:.2}", row.busy[0], row.busy[1], row.others_busy),
        notes.join("; "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::case::{Layout, Plan, Work};

    fn case(target: Target) -> Case {
        let work = Work::Memory { connections: 1, layout: Layout::OneChannel };
        let plan = Plan { order: 1, why: String::new(), target, pairs_max: None, show_second: false, work };
        Case { name: "a".into(), plan }
    }

    fn samples(values: &[f64], small: Option<f64>) -> Vec<Sample> {
        values.iter().map(|value| Sample { value: *value, small, ..Sample::default() }).collect()
    }

    #[test]
    fn the_verdict_is_about_the_median_of_ratios_pair_by_pair() {
        // The second pair was taken while the machine was twice as slow: its ratio is as good as any.
        let pairs = Pairs {
            reference: samples(&[10.0, 20.0, 10.0], None),
            ours: samples(&[11.0, 22.0, 15.0], None),
            ..Pairs::default()
        };
        let row = judge(&case(Target::Ratio(1.15)), &pairs, Outcome::Done);
        assert_eq!((row.ratio, row.ratio_range, row.met), (Some(1.1), Some([1.1, 1.5]), Some(true)));
        assert_eq!(judge(&case(Target::Value(14.0)), &pairs, Outcome::Done).met, Some(false));
        assert_eq!(judge(&case(Target::Ratio(1.15)), &pairs, Outcome::Failed("lost".into())).met, None);
        assert!(table(&[row]).contains("1.10 (1.10-1.50)"));
    }

    #[test]
    fn growth_that_the_reference_shares_is_the_machines() {
        let pairs =
            Pairs { reference: samples(&[15.0], Some(10.0)), ours: samples(&[33.0], Some(20.0)), ..Pairs::default() };
        let row = judge(&case(Target::Growth(0.15)), &pairs, Outcome::Done);
        assert_eq!(row.met, Some(true));
        assert!(table(&[row]).contains("20.00 -> 33.00 B (+65%)"));
    }

    #[test]
    fn without_ours_nothing_is_judged() {
        let pairs = Pairs { reference: samples(&[1.0], None), ..Pairs::default() };
        assert_eq!(judge(&case(Target::Ratio(1.0)), &pairs, Outcome::Done).met, None);
    }
}
