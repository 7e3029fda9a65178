//! What could be measured, once a second: figures of nodes and of Redis, kept as series that a test of alert rules can read.
//!
//! The notation is that of promtool's `input_series`: one line a series, a value a second, `_` where there was none, `2x9` for a
//! value that came ten times. It asks nobody: it is given values.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Series by name and labels, all of one length.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    series: BTreeMap<String, Vec<Option<i64>>>,
    seconds: usize,
}

impl Trace {
    /// One second more; a series that is not among the values has none for it.
    pub fn add(&mut self, values: Vec<(String, i64)>) {
        for (name, value) in values {
            let series = self.series.entry(name).or_default();
            series.resize(self.seconds, None);
            series.push(Some(value));
        }
        self.seconds += 1;
    }

    /// Values of one series, by second.
    pub fn values(&self, name: &str) -> Vec<Option<i64>> {
        let mut values = self.series.get(name).cloned().unwrap_or_default();
        values.resize(self.seconds, None);
        values
    }

    /// Names of the series that begin so.
    pub fn names(&self, beginning: &str) -> Vec<&str> {
        self.series.keys().map(String::as_str).filter(|name| name.starts_with(beginning)).collect()
    }

    /// The file. `heading` says where it comes from, a line each.
    pub fn write(&self, heading: &[String]) -> String {
        let mut text = String::new();
        for line in heading {
            let _ = writeln!(text, "# {line}");
        }
        for name in self.series.keys() {
            let _ = writeln!(text, "{name} {}", runs(&self.values(name)));
        }
        text
    }
}

fn runs(values: &[Option<i64>]) -> String {
    let mut words = Vec::new();
    for run in values.chunk_by(PartialEq::eq) {
        let value = run[0].map_or("_".to_owned(), |value| value.to_string());
        words.push(match (run.len(), run[0]) {
            (1, _) => value,
            // promtool counts what follows a value, and all of what is missing.
            (count, Some(_)) => format!("{value}x{}", count - 1),
            (count, None) => format!("{value}x{count}"),
        });
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_written_as_promtool_reads_them() {
        let mut trace = Trace::default();
        for second in 0..5 {
            let mut values = vec![("up".to_owned(), i64::from(second > 2))];
            if second == 3 {
                values.push(("late".to_owned(), 7));
            }
            trace.add(values);
        }
        assert_eq!(trace.write(&["x".to_owned()]), "# x\nlate _x3 7 _\nup 0x2 1x1\n");
        assert_eq!(trace.names("u"), ["up"]);
    }
}
