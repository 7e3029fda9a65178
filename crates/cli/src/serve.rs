//! `fulmar serve`: reads the configuration and becomes a node.

use std::process::ExitCode;

use fulmar_server::config::{EXIT_CONFIG, Sources, Weight, load};

pub fn serve(sources: Sources) -> ExitCode {
    match load(sources) {
        Ok(loaded) => fulmar_server::run(loaded),
        Err(refused) => {
            for finding in &refused.findings {
                let word = if finding.weight == Weight::Refuses { "error" } else { "warning" };
                eprintln!("{word}: {finding}");
            }
            eprintln!("fulmar: the configuration cannot be used; `fulmar config explain KEY` says what a key takes");
            ExitCode::from(EXIT_CONFIG)
        }
    }
}
