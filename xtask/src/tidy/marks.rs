//! Marks that a finished text does not carry: notes to self, paths of somebody's machine, a missing opening comment.
//!
//! It looks at lines and not at meaning.

use super::Finding;

/// Notes to self. Each is spelled in two halves here, so that this file is not a finding.
const NOTES: [[&str; 2]; 4] = [["TO", "DO"], ["FIX", "ME"], ["XX", "X:"], ["todo", "!("]];

/// Notes to self and private paths in any text of the project.
pub fn findings(file: &str, text: &str, private_paths: &[String]) -> Vec<Finding> {
    let is_generated = file.ends_with(".lock") || file.ends_with("package-lock.json") || file.contains("/corpus/");
    let is_rule = file.starts_with("xtask/src/tidy") || file == "LICENSE-APACHE";
    if is_generated || is_rule {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut find = |what: String| findings.push(Finding { file: file.to_owned(), line: at + 1, what });
        for note in NOTES.map(|halves| halves.concat()) {
            if contains_word(line, &note) {
                find(format!("`{note}`: finish it, or say in a sentence what is not promised"));
            }
        }
        if let Some(path) = private_paths.iter().find(|path| line.contains(path.as_str())) {
            find(format!("`{path}` is a path of one machine"));
        }
    }
    findings
}

/// Whether `line` contains `word`, not as part of a longer one.
fn contains_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let open_end = !word.ends_with(is_part);
        !before.is_some_and(is_part) && (open_end || !after.is_some_and(is_part))
    })
}

/// A Rust file opens with `//!`, after attributes that have to come first.
pub fn opening(file: &str, text: &str) -> Option<Finding> {
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    let missing = !first.is_some_and(|line| line.starts_with("//!"));
    let what = "opens with `//!`: its job, what it does not do, the invariant it keeps".to_owned();
    missing.then(|| Finding { file: file.to_owned(), line: 1, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> usize {
        findings("crates/a/src/lib.rs", line, &["/home/".to_owned()]).len()
    }

    #[test]
    fn notes_to_self_are_found_as_whole_words() {
        for note in NOTES.map(|halves| halves.concat()) {
            assert_eq!(check(&format!("    // {note} later")), 1, "{note}");
        }
        let longer = ["ME", "THODS"].concat();
        assert_eq!(check(&format!("FIX{longer} MASTODON")), 0);
    }

    #[test]
    fn private_paths_are_found_anywhere_but_in_what_is_generated() {
        assert_eq!(check("see /home/ana/notes"), 1);
        assert_eq!(findings("Cargo.lock", "/home/ana", &["/home/".to_owned()]).len(), 0);
    }

    #[test]
    fn a_file_opens_with_its_job() {
        assert_eq!(opening("a.rs", "//! Job.\n"), None);
        assert_eq!(opening("a.rs", "#![no_main]\n//! Job.\n"), None);
        assert!(opening("a.rs", "use b;\n//! Job.\n").is_some());
        assert!(opening("a.rs", "").is_some());
    }
}
