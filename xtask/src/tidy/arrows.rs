//! Which crate may use which: the arrows of the architecture, all of them.
//!
//! It reads manifests, not code: what is not listed as a dependency cannot be used. A new arrow is a change of design; it is made
//! here and in ARCHITECTURE.md, in a commit that says so.

use super::Finding;

/// Crate folder, and the folders it may use. What `sim` may use is not restricted: it is built for tests alone.
const ARROWS: [(&str, &[&str]); 8] = [
    ("protocol", &[]),
    ("engine", &["protocol"]),
    ("control", &[]),
    ("backbone", &["protocol"]),
    ("server", &["protocol", "engine", "control", "backbone"]),
    ("operate", &["control", "backbone"]),
    // `protocol` for the words and signatures of `trigger`, `subscribe` and `channels`; `control` for what its verbs draw.
    ("cli", &["server", "operate", "control", "protocol"]),
    // Real processes and load for tests: signatures alone, so that a mistake of ours shows there. Nothing that is delivered uses it.
    ("rig", &["protocol"]),
];

/// Arrows for tests alone: the binary is held to the conversations that `sim` reads, and meets real Redis processes.
const ARROWS_FOR_TESTS: [(&str, &str); 5] =
    [("cli", "sim"), ("backbone", "rig"), ("server", "rig"), ("cli", "rig"), ("operate", "rig")];

/// Crates whose decisions are pure: no IO, no clock, no chance, nothing to await.
const PURE: [&str; 3] = ["protocol", "engine", "control"];

/// Beginnings of names of crates that do IO, await, draw lots or log. None of them belongs into a pure crate.
const IMPURE: [&str; 19] = [
    "tokio",
    "async-",
    "futures",
    "mio",
    "hyper",
    "http-body",
    "socket2",
    "rustls",
    "reqwest",
    "ureq",
    "redis",
    "libc",
    "nix",
    "rand",
    "fastrand",
    "getrandom",
    "tracing",
    "log",
    "crossbeam",
];

/// Dependencies that are no arrow of ours, by manifest (path, text). `is_fenced` says whether a crate has its own clippy.toml.
pub fn findings(manifests: &[(String, String)], is_fenced: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, text) in manifests {
        let folder = file.trim_start_matches("crates/").trim_end_matches("/Cargo.toml");
        let mut find = |what: String| findings.push(Finding { file: file.clone(), line: 0, what });
        let used = match dependencies(text) {
            Ok(used) => used,
            Err(error) => {
                find(format!("not a manifest: {error}"));
                continue;
            }
        };
        let allowed = ARROWS.iter().find(|(name, _)| *name == folder).map(|(_, allowed)| *allowed);
        if allowed.is_none() && folder != "sim" {
            find(format!("the crate `{folder}` is not in the list of arrows"));
        }
        for (name, is_for_tests) in used {
            if let (Some(used), Some(allowed)) = (own_crate(&name), allowed)
                && !allowed.contains(&used)
                && !(is_for_tests && ARROWS_FOR_TESTS.contains(&(folder, used)))
            {
                find(format!("`{folder}` may not use `{used}`: {folder} -> {}", allowed.join(", ")));
            }
            if PURE.contains(&folder) && !is_for_tests && IMPURE.iter().any(|impure| name.starts_with(impure)) {
                find(format!("`{folder}` is pure and may not use `{name}`"));
            }
        }
        if PURE.contains(&folder) && !is_fenced(&format!("crates/{folder}")) {
            find(format!("`{folder}` is pure and needs a clippy.toml that says so"));
        }
    }
    findings
}

/// Folder of a crate of ours by its package name.
fn own_crate(package: &str) -> Option<&str> {
    if package == "fulmar" { Some("cli") } else { package.strip_prefix("fulmar-") }
}

/// Package names a manifest depends on, and whether only for tests.
fn dependencies(manifest: &str) -> Result<Vec<(String, bool)>, toml::de::Error> {
    let manifest: toml::Table = manifest.parse()?;
    let mut found = names(&manifest);
    for target in manifest.get("target").and_then(toml::Value::as_table).into_iter().flatten() {
        found.extend(target.1.as_table().map(names).unwrap_or_default());
    }
    Ok(found)
}

fn names(table: &toml::Table) -> Vec<(String, bool)> {
    let sections = [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)];
    let of = |(section, for_tests): (&str, bool)| -> Vec<_> {
        let entries = table.get(section).and_then(toml::Value::as_table).into_iter().flatten();
        entries.map(|(name, how)| (package(name, how).to_owned(), for_tests)).collect()
    };
    sections.into_iter().flat_map(of).collect()
}

/// A dependency may be renamed; its package is what counts.
fn package<'a>(name: &'a str, how: &'a toml::Value) -> &'a str {
    how.get("package").and_then(toml::Value::as_str).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(folder: &str, manifest: &str) -> Vec<String> {
        let manifests = [(format!("crates/{folder}/Cargo.toml"), manifest.to_owned())];
        findings(&manifests, |_| true).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn an_arrow_of_the_list_is_silent_and_any_other_is_named() {
        assert!(check("server", "[dependencies]\nfulmar-engine.workspace = true\ntokio = \"1\"\n").is_empty());
        let against =
            check("engine", "[dependencies]\nfulmar-protocol.workspace = true\nfulmar-server.workspace = true\n");
        assert_eq!(against, ["`engine` may not use `server`: engine -> protocol"]);
    }

    #[test]
    fn arrows_hold_for_renamed_target_and_test_dependencies_too() {
        let renamed = "[dependencies]\nx = { path = \"../server\", package = \"fulmar-server\" }\n";
        let on_unix = "[target.'cfg(unix)'.dependencies]\nfulmar-server = \"*\"\n";
        let for_tests = "[dev-dependencies]\nfulmar-sim.workspace = true\n";
        for manifest in [renamed, on_unix, for_tests] {
            assert_eq!(check("engine", manifest).len(), 1, "{manifest}");
        }
        assert!(check("cli", for_tests).is_empty());
        assert!(check("backbone", "[dev-dependencies]\nfulmar-rig.workspace = true\n").is_empty());
        assert_eq!(check("backbone", "[dependencies]\nfulmar-rig.workspace = true\n").len(), 1);
        assert_eq!(check("cli", "[dependencies]\nfulmar-sim.workspace = true\n").len(), 1);
    }

    #[test]
    fn a_pure_crate_uses_nothing_that_acts_except_in_its_tests() {
        assert_eq!(check("protocol", "[dependencies]\ntokio.workspace = true\nbytes = \"1\"\n").len(), 1);
        assert!(check("protocol", "[dev-dependencies]\nrand = \"1\"\n").is_empty());
    }

    #[test]
    fn a_crate_nobody_listed_and_a_pure_one_without_a_fence_are_named() {
        assert_eq!(check("gateway", "[dependencies]\n"), ["the crate `gateway` is not in the list of arrows"]);
        assert!(check("sim", "[dependencies]\nfulmar-engine.workspace = true\n").is_empty());
        let bare = findings(&[("crates/engine/Cargo.toml".to_owned(), String::new())], |_| false);
        assert_eq!(bare.len(), 1);
    }
}
