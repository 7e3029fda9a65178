//! `fulmar check`: says of a configuration what `serve` would say, and of what it names what can be known beforehand.

use std::process::ExitCode;

use fulmar_server::config::{Config, EXIT_CONFIG, Finding, load};
use fulmar_server::tls::Certificate;
use fulmar_server::{DESCRIPTORS_RESERVED, open_file_limit};

use crate::args::CheckArgs;

pub fn check(args: CheckArgs) -> ExitCode {
    let strict = args.strict;
    let loaded = match load(args.config.sources()) {
        Ok(loaded) => loaded,
        Err(refused) => {
            let failed = report(&refused.findings, strict);
            eprintln!("{failed} to mend");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let mut failed = report(&loaded.findings, strict);
    if let Some(Err(what)) = loaded.config.tls.as_ref().map(|tls| Certificate::load(&tls.cert, &tls.key)) {
        eprintln!("error: [tls]: {what}");
        failed += 1;
    }
    if let Some(warning) = too_few_files(&loaded.config, open_file_limit().ok()) {
        eprintln!("warning: {warning}");
    }
    if failed > 0 {
        eprintln!("{failed} to mend");
        return ExitCode::from(EXIT_CONFIG);
    }
    let from = loaded.file().map_or_else(|| "the defaults".to_owned(), |f| f.display().to_string());
    let apps = match (loaded.config.apps.len(), &loaded.config.demo) {
        (1, Some(_)) => "the demo app".to_owned(),
        (1, None) => "1 app".to_owned(),
        (n, _) => format!("{n} apps"),
    };
    println!("ok: {from}: would listen on {} with {apps}", loaded.config.server.address());
    ExitCode::SUCCESS
}

/// Prints findings; answers how many of them fail the check.
pub fn report(findings: &[Finding], strict: bool) -> usize {
    for finding in findings {
        let word = if finding.fails_check(strict) { "error" } else { "warning" };
        eprintln!("{word}: {finding}");
    }
    findings.iter().filter(|f| f.fails_check(strict)).count()
}

fn too_few_files(config: &Config, allowed: Option<u64>) -> Option<String> {
    let (wanted, allowed) = (u64::from(config.limits.connections_max?), allowed?);
    let needed = wanted + DESCRIPTORS_RESERVED;
    (needed > allowed).then(|| {
        format!(
            "limits.connections_max is {wanted}, which needs about {needed} open files; here a process may open \
             {allowed} (ulimit -Hn)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-16
    #[test]
    fn more_connections_than_open_files_are_pointed_out_with_the_numbers() {
        let mut config = load(fulmar_server::config::Sources::new()).expect("defaults load").config;
        assert_eq!(too_few_files(&config, Some(10)), None, "0 derives the limit from the files");
        config.limits.connections_max = Some(10_000);
        assert_eq!(too_few_files(&config, Some(20_000)), None);
        assert_eq!(too_few_files(&config, None), None);
        let said = too_few_files(&config, Some(1_024)).expect("1,024 is too few");
        assert!(said.contains("10000") && said.contains("10320") && said.contains("1024"), "{said}");
    }
}
