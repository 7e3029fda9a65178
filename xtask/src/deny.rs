//! The verb `deny`: whether what comes in from outside may (licences, bans, sources; see `deny.toml`).

use std::time::Instant;

use crate::project::{self, Outcome};

/// Installs cargo-deny when it is missing, then asks it.
pub fn run() -> Outcome {
    if !project::is_installed("cargo-deny") {
        project::announce("installing cargo-deny (once; two to ten minutes)");
        let begun = Instant::now();
        project::run(&mut project::cargo(&["install", "cargo-deny", "--locked", "--quiet"]))?;
        println!("installed in {} s", begun.elapsed().as_secs());
    }
    project::announce("deny");
    project::run(&mut project::cargo(&["deny", "--all-features", "check", "licenses", "bans", "sources"]))
}
