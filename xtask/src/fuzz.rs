//! The verb `fuzz`: generated input for one parser, or for each in turn.
//!
//! The targets and how they are built are in `fuzz/` (its README says more); this names them, bounds the time and
//! remembers which of them found something.

use crate::project::{self, Failure, Outcome};

/// Runs one target, or all; names them when told neither.
pub fn run(target: Option<&str>, all: bool, seconds: u64) -> Outcome {
    let targets = targets()?;
    let chosen: Vec<_> = match target {
        Some(name) if targets.iter().any(|known| known == name) => vec![name.to_owned()],
        Some(name) => return Err(Failure(format!("no target `{name}`; there are: {}", targets.join(", ")))),
        None if all => targets,
        None => {
            println!("{}", targets.join("\n"));
            return Ok(());
        }
    };
    let found: Vec<_> = chosen.iter().filter(|target| feed(target, seconds).is_err()).cloned().collect();
    println!("fuzz: {} targets, {} findings, {seconds} s each", chosen.len(), found.len());
    if found.is_empty() { Ok(()) } else { Err(Failure(format!("fuzz: look at {}", found.join(", ")))) }
}

fn feed(target: &str, seconds: u64) -> Outcome {
    project::announce(&format!("fuzz {target} for {seconds} s"));
    let corpus = format!("corpus/{target}");
    let limit = format!("-max_total_time={seconds}");
    let mut cargo = project::cargo(&["run", "--quiet", "--release", "--bin", target, "--", &corpus, &limit]);
    project::run(cargo.current_dir(project::root().join("fuzz")))
}

/// The binaries that `fuzz/Cargo.toml` names, without the canary, whose finding is its purpose.
fn targets() -> Result<Vec<String>, Failure> {
    let path = project::root().join("fuzz/Cargo.toml");
    let text = std::fs::read_to_string(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    binaries(&text).map_err(|error| Failure(format!("{}: {error}", path.display())))
}

fn binaries(manifest: &str) -> Result<Vec<String>, toml::de::Error> {
    let manifest: toml::Table = manifest.parse()?;
    let tables = manifest.get("bin").and_then(toml::Value::as_array).into_iter().flatten();
    let names = tables.filter_map(|table| table.get("name")?.as_str());
    Ok(names.filter(|name| *name != "canary").map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_targets_are_the_binaries_of_the_manifest_without_the_canary() {
        let manifest = "[[bin]]\nname = \"frame\"\npath = \"a.rs\"\n[[bin]]\nname = \"canary\"\npath = \"b.rs\"\n";
        assert_eq!(binaries(manifest), Ok(vec!["frame".to_owned()]));
    }
}
