//! The verb `fuzz`: generated input for one parser, or for each in turn.
//!
//! The targets and how they are built are in `fuzz/` (its README says more); this names them, bounds the time and
//! remembers which of them found something.

use std::fs;

use serde::Deserialize;

use crate::project::{self, Failure, Outcome};

/// Longest input that is tried, in bytes: room for every structure these parsers know, and many tries per second.
const INPUT_BYTES_MAX: usize = 4_096;

/// Runs one target, or all; names them when told neither.
pub fn run(target: Option<&str>, all: bool, seconds: u64) -> Outcome {
    let targets = targets()?;
    let chosen: Vec<&Target> = match target {
        Some(name) => targets.iter().filter(|known| known.name == name).collect(),
        None if all => targets.iter().collect(),
        None => {
            targets.iter().for_each(|target| println!("{}", target.name));
            return Ok(());
        }
    };
    if chosen.is_empty() {
        return Err(Failure("no such target; `cargo xtask fuzz` lists them".to_owned()));
    }
    let mut found = Vec::new();
    for target in &chosen {
        if let Err(failure) = feed(target, seconds) {
            println!("{failure}");
            found.push(target.name.as_str());
        }
    }
    println!("fuzz: {} targets, {} findings, {seconds} s each", chosen.len(), found.len());
    if found.is_empty() { Ok(()) } else { Err(Failure(format!("fuzz: look at {}", found.join(", ")))) }
}

/// What is found goes to `fuzz/artifacts`. New inputs that reach new code stay under `fuzz/target`, so that a run leaves the
/// committed corpus as it is.
fn feed(target: &Target, seconds: u64) -> Outcome {
    let name = &target.name;
    project::announce(&format!("fuzz {name} for {seconds} s"));
    let folder = project::root().join("fuzz");
    let [found, corpus, artifacts] = ["target/found", "corpus", "artifacts"].map(|place| format!("{place}/{name}/"));
    for place in [&found, &corpus, &artifacts] {
        fs::create_dir_all(folder.join(place)).map_err(|error| Failure(format!("fuzz/{place}: {error}")))?;
    }
    let mut cargo = project::cargo(&["run", "--quiet", "--release", "--bin", name]);
    if !target.features.is_empty() {
        cargo.args(["--features", &target.features.join(",")]);
    }
    cargo.args([
        "--",
        &found,
        &corpus,
        &format!("-max_total_time={seconds}"),
        &format!("-artifact_prefix={artifacts}"),
    ]);
    cargo.args([format!("-max_len={INPUT_BYTES_MAX}").as_str(), "-timeout=10", "-print_final_stats=1"]);
    project::run(cargo.current_dir(folder))
}

/// The binaries that `fuzz/Cargo.toml` names, without the canary, whose finding is its purpose.
fn targets() -> Result<Vec<Target>, Failure> {
    let path = project::root().join("fuzz/Cargo.toml");
    let text = fs::read_to_string(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    let manifest: Manifest = toml::from_str(&text).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    Ok(manifest.bin.into_iter().filter(|target| target.name != "canary").collect())
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    bin: Vec<Target>,
}

/// One parser that is fed.
#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    /// What cargo must switch on to build it.
    #[serde(default, rename = "required-features")]
    features: Vec<String>,
}
