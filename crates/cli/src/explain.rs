//! `fulmar config explain` and `fulmar config show`.

use std::process::ExitCode;

use fulmar_server::config::{KEYS, Key, Sources, key, load};

use crate::check;
use crate::client::print;

pub fn explain(what: Option<&str>) -> ExitCode {
    let Some(what) = what else {
        print(&overview());
        return ExitCode::SUCCESS;
    };
    let what = what.trim_matches(['[', ']']);
    let wanted: Vec<&Key> = match key(what) {
        Some(key) => vec![key],
        None => KEYS.iter().filter(|k| k.section() == what || k.variable().as_deref() == Some(what)).collect(),
    };
    if wanted.is_empty() {
        eprintln!("fulmar: no key or section is called {what}; `fulmar config explain` lists all");
        return ExitCode::FAILURE;
    }
    print(&wanted.iter().map(|k| k.explain()).collect::<Vec<_>>().join("\n"));
    ExitCode::SUCCESS
}

/// Every key with its default, by section.
fn overview() -> String {
    let mut out = String::from("Every key and its default. `fulmar config explain KEY` says more.\n");
    let mut section = "";
    for key in KEYS {
        if key.section() != section {
            section = key.section();
            out.push_str(&if section == "apps" { "\n[[apps]]\n".to_owned() } else { format!("\n[{section}]\n") });
        }
        let unit = if key.unit.is_empty() { String::new() } else { format!(" {}", key.unit) };
        out.push_str(&format!("  {:<30} {}{unit}\n", key.name(), key.preset_text()));
    }
    out
}

pub fn show(sources: Sources) -> ExitCode {
    match load(sources) {
        Ok(loaded) => {
            print(&loaded.show());
            check::report(&loaded.findings, false);
            ExitCode::SUCCESS
        }
        Err(refused) => {
            check::report(&refused.findings, false);
            ExitCode::from(fulmar_server::config::EXIT_CONFIG)
        }
    }
}
