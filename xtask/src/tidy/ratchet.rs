//! Lengths of files and functions, and a ratchet: what is long may stay, what is short may not quietly grow past the line.
//!
//! `xtask/ratchet.txt` lists what is beyond the lines, how long it may be, and why. Tests at the foot of a file and files of tests
//! do not count towards a file's length; a test's own length counts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::Finding;
use crate::source;

/// Where the allowances stand.
pub const FILE: &str = "xtask/ratchet.txt";

/// Beyond it a function is split at a seam that has a name, or says why not.
const FUNCTION_LINES_MAX: usize = 70;
/// Beyond it a file probably has a second noun.
const FILE_LINES_MAX: usize = 500;

const HEADING: &str = "\
# What is longer than the lines tidy draws (70 for a function, 500 for a file without its tests), how long it may be, and why.
# An entry may shrink and vanish; to let one grow or come is a decision, made by editing this file.
# `cargo xtask tidy --bless` lowers what got shorter, removes what is short again and adds what is new.
";

/// How long things are.
#[derive(Debug, Default)]
pub struct Lengths {
    /// By `path` or `path function`: the line it begins on and its length.
    measured: BTreeMap<String, (usize, usize)>,
}

/// How long things may be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    entries: BTreeMap<String, (usize, String)>,
}

impl Allowed {
    /// Reads lines of the form `length path [function] # why`.
    ///
    /// # Errors
    /// The first line that has another form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut entries = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            let (fact, why) = line.split_once('#').unwrap_or((line, ""));
            let (length, what) = fact.trim().split_once(' ').ok_or(line)?;
            let length = length.parse().map_err(|_| line)?;
            entries.insert(what.trim().to_owned(), (length, why.trim().to_owned()));
        }
        Ok(Self { entries })
    }
}

impl Lengths {
    /// Measures one Rust file and its functions.
    pub fn measure(&mut self, file: &str, text: &str) {
        self.note(file.to_owned(), 1, source::tests_begin(Path::new(file), text) - 1, FILE_LINES_MAX);
        for function in source::functions(text) {
            self.note(format!("{file} {}", function.name), function.line, function.lines, FUNCTION_LINES_MAX);
        }
    }

    /// Of several functions with one name the longest counts.
    fn note(&mut self, what: String, line: usize, length: usize, max: usize) {
        if length > max && self.measured.get(&what).is_none_or(|(_, known)| *known < length) {
            self.measured.insert(what, (line, length));
        }
    }

    /// What is longer than allowed, and allowances that could be lowered.
    pub fn findings(&self, allowed: &Allowed) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (what, (line, length)) in &self.measured {
            let file = what.split(' ').next().unwrap_or(what).to_owned();
            let (may, why) = allowed.entries.get(what).map_or((0, ""), |(may, why)| (*may, why.as_str()));
            let said = match may {
                0 => format!(
                    "`{what}` has {length} lines: split it at a seam that has a name, or give it a line with its reason in {FILE}"
                ),
                may if may < *length => format!("`{what}` has grown from {may} to {length} lines"),
                _ if why.is_empty() => format!("`{what}` is allowed its length without a reason: say why in {FILE}"),
                _ => continue,
            };
            findings.push(Finding { file, line: *line, what: said });
        }
        findings
    }

    /// The file as it should be: today's lengths, no entry higher than before, reasons kept.
    pub fn written(&self, allowed: &Allowed) -> String {
        let mut text = HEADING.to_owned();
        for (what, (_, length)) in &self.measured {
            let (may, why) = allowed.entries.get(what).cloned().unwrap_or((*length, String::new()));
            writeln!(text, "{} {what} # {why}", may.min(*length)).expect("a string takes everything");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long_function(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    work();\n".repeat(lines - 2))
    }

    fn check(text: &str, allowed: &str) -> Vec<String> {
        let mut lengths = Lengths::default();
        lengths.measure("crates/a/src/b.rs", text);
        let allowed = Allowed::parse(allowed).unwrap();
        lengths.findings(&allowed).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_function_may_be_as_long_as_the_line_and_no_longer() {
        assert!(check(&long_function(70), "").is_empty());
        assert_eq!(check(&long_function(71), "").len(), 1);
    }

    #[test]
    fn what_is_listed_with_a_reason_may_stay_and_shrink_but_not_grow() {
        let listed = "80 crates/a/src/b.rs long # one table\n";
        assert!(check(&long_function(80), listed).is_empty());
        assert!(check(&long_function(75), listed).is_empty());
        assert_eq!(check(&long_function(81), listed), ["`crates/a/src/b.rs long` has grown from 80 to 81 lines"]);
        assert_eq!(check(&long_function(80), "80 crates/a/src/b.rs long #\n").len(), 1);
    }

    #[test]
    fn tests_at_the_foot_do_not_make_a_file_long() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "// x\n".repeat(600));
        assert!(check(&tests, "").is_empty());
        assert_eq!(check(&"// x\n".repeat(501), "").len(), 1);
    }

    #[test]
    fn blessing_keeps_reasons_lowers_entries_and_never_raises_one() {
        let mut lengths = Lengths::default();
        lengths.measure("a.rs", &long_function(75));
        let before = Allowed::parse("80 a.rs long # one table\n90 gone.rs # was long\n").unwrap();
        let written = Allowed::parse(&lengths.written(&before)).unwrap();
        assert_eq!(written, Allowed::parse("75 a.rs long # one table\n").unwrap());
        let lower = Allowed::parse("72 a.rs long # one table\n").unwrap();
        assert_eq!(Allowed::parse(&lengths.written(&lower)).unwrap(), lower);
    }

    #[test]
    fn a_line_of_another_form_is_reported() {
        assert_eq!(Allowed::parse("long a.rs"), Err("long a.rs".to_owned()));
    }
}
