//! Request targets of WebSocket upgrades: no panic, and a key only where the path has one.
#![no_main]

use fulmar_protocol::opening::OpenRequest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|target: &str| {
    for prefix in ["", "/ws"] {
        let opening = OpenRequest::parse(target, prefix);
        if let Some(key) = opening.key {
            assert!(!key.is_empty() && target.starts_with(&format!("{prefix}/app/")));
        }
    }
});
