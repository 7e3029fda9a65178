//! A configuration file with anything in it: no panic, all mistakes reported together with their place, and what is shown
//! of an accepted one tells no secret.
//!
//! Files named by the input are not read: a device would answer for ever, and whoever writes the configuration may do that.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use fulmar_server::config::{Sources, load};
use libfuzzer_sys::fuzz_target;

/// In memory where the system has such a directory: it is written once per input.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let shared_memory = PathBuf::from("/dev/shm");
    let directory = if shared_memory.is_dir() { shared_memory } else { std::env::temp_dir() };
    directory.join(format!("fulmar-fuzz-config-{}.toml", std::process::id()))
});

fuzz_target!(|text: &str| {
    if text.contains("_file") {
        return;
    }
    fs::write(&*FILE, text).expect("a directory for temporary files");
    match load(Sources::new().with_file(Some(FILE.clone()))) {
        Ok(loaded) => {
            let shown = loaded.show();
            for app in &loaded.config.apps {
                let secret = std::str::from_utf8(app.secret.expose()).expect("secrets are text");
                assert!(secret.len() < 12 || text.matches(secret).count() > 1 || !shown.contains(secret));
            }
        }
        Err(refused) => assert!(!refused.findings.is_empty()),
    }
});
