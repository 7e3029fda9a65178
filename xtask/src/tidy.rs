//! The verb `tidy`: rules of this repository that clippy does not know.
//!
//! Each rule is a function from texts to findings; this file reads the project's files, applies the rules and prints what they
//! found. It changes nothing, except that `--bless` writes the ratchet of lengths.

mod arrows;
mod marks;
mod ratchet;
mod words;

use std::path::Path;

use crate::project::{self, Failure, Outcome};

/// Something against a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where, relative to the root.
    pub file: String,
    /// Counted from 1; 0 when it concerns the file as a whole.
    pub line: usize,
    /// What is wrong, and what to do.
    pub what: String,
}

/// Checks every rule; with `bless` the lengths of today become the line that may not be passed.
pub fn run(bless: bool) -> Outcome {
    let mut findings = Vec::new();
    let mut lengths = ratchet::Lengths::default();
    let mut manifests = Vec::new();
    let mut count = 0;
    for path in project::files()? {
        let Some(text) = project::text(&path) else { continue };
        let file = path.display().to_string();
        count += 1;
        findings.extend(marks::findings(&file, &text, &private_paths()));
        if file.starts_with("crates/") && file.ends_with("/Cargo.toml") {
            manifests.push((file, text));
        } else if file.ends_with(".rs") {
            findings.extend(marks::opening(&file, &text));
            findings.extend(words::findings(&file, &text));
            lengths.measure(&file, &text);
        }
    }
    findings.extend(arrows::findings(&manifests, |crate_folder| {
        project::root().join(crate_folder).join("clippy.toml").is_file()
    }));
    findings.extend(check_ratchet(&lengths, bless)?);
    report(findings, count)
}

fn check_ratchet(lengths: &ratchet::Lengths, bless: bool) -> Result<Vec<Finding>, Failure> {
    let path = Path::new(ratchet::FILE);
    let text = project::text(path).unwrap_or_default();
    let allowed =
        ratchet::Allowed::parse(&text).map_err(|line| Failure(format!("{}: not understood: {line}", ratchet::FILE)))?;
    if !bless {
        return Ok(lengths.findings(&allowed));
    }
    std::fs::write(project::root().join(path), lengths.written(&allowed))
        .map_err(|error| Failure(format!("{} cannot be written: {error}", ratchet::FILE)))?;
    println!("tidy: wrote {}; give each new line its reason", ratchet::FILE);
    Ok(Vec::new())
}

fn report(mut findings: Vec<Finding>, files: usize) -> Outcome {
    findings.sort();
    for finding in &findings {
        println!("{}:{}: {}", finding.file, finding.line, finding.what);
    }
    println!("tidy: {files} files, {} findings", findings.len());
    if findings.is_empty() { Ok(()) } else { Err(Failure(format!("tidy: {} findings", findings.len()))) }
}

/// Paths that say on which machine somebody works. The checkout's own is only telling when it is not as short as `/src`.
fn private_paths() -> Vec<String> {
    let root = project::root();
    let mut paths = Vec::from(["/home/", "/root/", "/Users/"].map(str::to_owned));
    if root.components().count() > 2 {
        paths.push(root.display().to_string());
    }
    paths
}
