//! The verb `spec`: which clauses no test cites, and which citations point nowhere.
//!
//! A clause is a list item of `spec/*.md` that opens with its id in bold. A test cites it by naming the id in a comment or a
//! string, where [`source::tests_begin`] says that tests are, or in anything under `tests/`. Comments elsewhere may name clauses
//! too; that proves nothing, but the clause must exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::project::{self, Failure, Outcome};
use crate::source;

/// A promise.
#[derive(Debug, PartialEq, Eq)]
struct Clause {
    id: String,
    text: String,
    /// Why no test can cite it, if so.
    not_testable: Option<String>,
}

/// An id named somewhere.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Citation {
    id: String,
    line: usize,
    /// Whether it stands in a test.
    by_test: bool,
}

/// What is wrong between promises and tests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Gaps {
    /// Clauses that no test cites though one could.
    uncited: Vec<String>,
    /// `file:line` and id of citations of clauses that do not exist.
    unknown: Vec<String>,
    /// Ids given to two clauses.
    doubled: Vec<String>,
}

/// Prints what is missing; fails when anything is.
pub fn run() -> Outcome {
    let (mut clauses, mut incidents) = (Vec::new(), BTreeSet::new());
    let mut citations = BTreeMap::new();
    for path in project::files()? {
        let Some(text) = is_read(&path).then(|| project::text(&path)).flatten() else { continue };
        if path.starts_with("spec") {
            clauses.extend(clauses_of(&text));
            incidents.extend(incidents_of(&text));
        }
        citations.insert(path.display().to_string(), citations_of(&path, &text));
    }
    let gaps = gaps(&clauses, &incidents, &citations);
    report(&clauses, &gaps)
}

/// The verbs' own examples and the product's prose outside `spec/` are no citations.
fn is_read(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let text =
        ["rs", "md", "txt", "js", "mjs", "cjs", "ts", "py", "go", "java", "html", "toml", "sh"].contains(&ending);
    let product = ["spec", "crates", "tests", "fuzz"].iter().any(|folder| path.starts_with(folder));
    text && product && !path.components().any(|part| part.as_os_str() == "corpus")
}

fn report(clauses: &[Clause], gaps: &Gaps) -> Outcome {
    for (what, lines) in [
        ("clauses that no test cites", &gaps.uncited),
        ("citations of clauses that do not exist", &gaps.unknown),
        ("ids given twice", &gaps.doubled),
    ] {
        if !lines.is_empty() {
            println!("{what} ({}):", lines.len());
            lines.iter().for_each(|line| println!("  {line}"));
        }
    }
    let excused = clauses.iter().filter(|clause| clause.not_testable.is_some()).count();
    println!("spec: {} clauses, {} without a test, {excused} that need none", clauses.len(), gaps.uncited.len());
    if *gaps == Gaps::default() { Ok(()) } else { Err(Failure("spec: promises and tests do not meet".to_owned())) }
}

fn gaps(clauses: &[Clause], incidents: &BTreeSet<String>, citations: &BTreeMap<String, Vec<Citation>>) -> Gaps {
    let mut gaps = Gaps::default();
    let mut known = incidents.clone();
    for clause in clauses {
        if !known.insert(clause.id.clone()) {
            gaps.doubled.push(clause.id.clone());
        }
    }
    let cited: BTreeSet<_> = citations.values().flatten().filter(|c| c.by_test).map(|c| c.id.as_str()).collect();
    let is_bare = |clause: &&Clause| clause.not_testable.is_none() && !cited.contains(clause.id.as_str());
    gaps.uncited = clauses.iter().filter(is_bare).map(|c| format!("{:<8} {}", c.id, beginning(&c.text))).collect();
    for (file, found) in citations {
        let unknown = found.iter().filter(|citation| !known.contains(&citation.id));
        gaps.unknown.extend(unknown.map(|citation| format!("{file}:{} {}", citation.line, citation.id)));
    }
    gaps
}

fn beginning(text: &str) -> String {
    let short: String = text.chars().take(90).collect();
    if short.len() < text.len() { short + "…" } else { short }
}

/// The clauses of one file of `spec/`, in order.
fn clauses_of(text: &str) -> Vec<Clause> {
    let mut clauses: Vec<Clause> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        if let Some((id, rest)) = line.strip_prefix("- **").and_then(|rest| rest.split_once("**")) {
            clauses.push(Clause { id: id.to_owned(), text: rest.trim().to_owned(), not_testable: None });
            open = true;
        } else if line.starts_with("  ") && open {
            let clause = clauses.last_mut().expect("a clause is open");
            clause.text.push(' ');
            clause.text.push_str(line.trim());
        } else {
            open = false;
        }
    }
    clauses.retain(|clause| ids_in(&clause.id).next().is_some_and(|id| id == clause.id));
    for clause in &mut clauses {
        clause.not_testable = mark(&clause.text);
    }
    clauses
}

/// The reason in `(not testable: reason)`.
fn mark(text: &str) -> Option<String> {
    let (_, after) = text.split_once("(not testable: ")?;
    after.split_once(')').map(|(why, _)| why.to_owned())
}

/// Incidents are rows of a table; a test may name one beside the clause it cites.
fn incidents_of(text: &str) -> BTreeSet<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| INC-")?.split_once(" |"));
    rows.map(|(date, _)| format!("INC-{date}")).collect()
}

/// Every id named in a file, with where it stands.
fn citations_of(path: &Path, text: &str) -> Vec<Citation> {
    let is_rust = path.extension().is_some_and(|ending| ending == "rs");
    let in_tests = path.starts_with("tests");
    let first_test_line = match (in_tests, is_rust) {
        (true, _) => 1,
        (false, true) => source::tests_begin(path, text),
        (false, false) => usize::MAX,
    };
    let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    numbered
        .flat_map(|(line, words)| ids_in(words).map(move |id| (line, id)))
        .map(|(line, id)| Citation { id: id.to_owned(), line, by_test: line >= first_test_line })
        .collect()
}

/// Ids such as `WS-17` or `INC-2022-04-11` in a line. Letters or digits around them make another word of it.
fn ids_in(line: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    line.split(move |c| !is_part(c)).map(|word| word.trim_matches('-')).filter(|word| is_id(word))
}

fn is_id(word: &str) -> bool {
    let Some((family, number)) = word.split_once('-') else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match family {
        "WS" | "FB" | "HTTP" | "DEL" | "OPS" | "OP" | "DOC" | "NODE" | "RED" => digits(number),
        "INC" => number.split('-').count() == 3 && number.split('-').all(digits),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clause(id: &str, text: &str, not_testable: Option<&str>) -> Clause {
        Clause { id: id.to_owned(), text: text.to_owned(), not_testable: not_testable.map(str::to_owned) }
    }

    #[test]
    fn a_clause_runs_from_its_bold_id_to_the_next_item_heading_or_gap() {
        let text = "# Title\n\n- **WS-1** One\n  and more.\n- **WS-2** Two (not testable: it is\n  silence).\n\n  no\n- **Note** x\n";
        let expected = [
            clause("WS-1", "One and more.", None),
            clause("WS-2", "Two (not testable: it is silence).", Some("it is silence")),
        ];
        assert_eq!(clauses_of(text), expected);
    }

    #[test]
    fn an_id_is_a_whole_word() {
        let found: Vec<_> = ids_in("/// WS-17, (HTTP-3) aWS-1 WS-1x WS-CH-1 INC-2022-04-11 UTF-8 DEL-4.").collect();
        assert_eq!(found, ["WS-17", "HTTP-3", "INC-2022-04-11", "DEL-4"]);
    }

    #[test]
    fn only_what_stands_in_tests_counts_as_a_citation_by_a_test() {
        let text = "/// WS-1\nfn a() {}\n#[cfg(test)]\nmod tests {\n/// WS-2\n}\n";
        let by_test = |path: &str| -> Vec<_> {
            citations_of(Path::new(path), text).into_iter().map(|c| (c.line, c.by_test)).collect()
        };
        assert_eq!(by_test("crates/a/src/b.rs"), [(1, false), (5, true)]);
        assert_eq!(by_test("crates/a/tests/b.rs"), [(1, true), (5, true)]);
        assert_eq!(by_test("tests/sdk/node/a.mjs"), [(1, true), (5, true)]);
        assert_eq!(by_test("spec/a.md"), [(1, false), (5, false)]);
    }

    #[test]
    fn gaps_are_clauses_without_a_test_and_citations_without_a_clause() {
        let clauses = [
            clause("WS-1", "cited", None),
            clause("WS-2", "not cited", None),
            clause("WS-3", "silence", Some("why")),
            clause("WS-3", "twice", Some("why")),
        ];
        let cite = |id: &str, by_test| Citation { id: id.to_owned(), line: 7, by_test };
        let inc = "INC-2019-12-06".to_owned();
        let found = vec![cite("WS-1", true), cite("WS-2", false), cite("WS-9", false), cite(&inc, true)];
        let gaps = gaps(&clauses, &BTreeSet::from([inc.clone()]), &BTreeMap::from([("f.rs".to_owned(), found)]));
        assert_eq!(gaps.uncited, ["WS-2     not cited"]);
        assert_eq!(gaps.unknown, ["f.rs:7 WS-9"]);
        assert_eq!(gaps.doubled, ["WS-3"]);
    }

    #[test]
    fn incidents_are_the_rows_of_their_table() {
        let date = "INC-2020-03-18".to_owned();
        assert_eq!(incidents_of(&format!("| id | what |\n|---|---|\n| {date} | x |\n")), BTreeSet::from([date]));
    }
}
