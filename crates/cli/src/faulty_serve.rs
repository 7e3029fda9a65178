//! `fulmar serve` of a release that is bad: it fails as `FULMAR_LAB_FAULT` tells it, and otherwise serves as any other.
//!
//! It stands in for `serve` only in builds with the feature `lab-faults`, which the outage lab makes for itself.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use fulmar_server::config::{EXIT_CONFIG, Sources};

#[path = "serve.rs"]
mod sound;

pub fn serve(sources: Sources) -> ExitCode {
    match std::env::var("FULMAR_LAB_FAULT").as_deref() {
        Ok("exit") => {
            eprintln!("error: lab fault: this release ends at once");
            ExitCode::FAILURE
        }
        Ok("refuse") => {
            eprintln!("error: lab fault: this release refuses its configuration");
            ExitCode::from(EXIT_CONFIG)
        }
        Ok("hang") => {
            eprintln!("lab fault: this release never listens");
            loop {
                thread::sleep(Duration::from_secs(3_600));
            }
        }
        _ => sound::serve(sources),
    }
}
