//! `fulmar doctor`: looks at a deployment and names what is wrong or will be, with the fix. It changes nothing.
//!
//! What is found is decided in `fulmar_control`, what is seen of Redis is asked in `fulmar_operate`; here is what is seen of this
//! machine, and how findings are printed.

mod here;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use fulmar_control::doctor::{Deployment, Finding, Id, Weight, examine};
use fulmar_operate::doctor::look;
use fulmar_server::config::{Backbone, Config, EXIT_CONFIG, load};
use serde_json::{Value, json};

use crate::args::DoctorArgs;
use crate::check::report;
use crate::client::print;

/// It could not look.
const FAILED: u8 = 1;
/// Something is gravely wrong.
const GRAVE: u8 = 3;

pub fn doctor(args: DoctorArgs) -> ExitCode {
    let begun = Instant::now();
    let loaded = match load(args.config.sources()) {
        Ok(loaded) => loaded,
        Err(refused) => {
            report(&refused.findings, false);
            eprintln!("fulmar: no node starts with this configuration");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let (now, mut deployment) = match redis(&loaded.config) {
        Ok(seen) => seen,
        Err(error) => {
            eprintln!("fulmar: the system gives no event loop: {error}");
            return ExitCode::from(FAILED);
        }
    };
    deployment.local = here::look(&loaded);
    let (ignored, findings): (Vec<Finding>, Vec<Finding>) =
        examine(now, &deployment).into_iter().partition(|finding| args.ignore.contains(&finding.id));
    let seen = Seen { deployment: &deployment, took: begun.elapsed(), ignored: ignored.len() };
    print(&if args.json { format!("{:#}\n", seen.json(&findings)) } else { seen.text(&findings) });
    let is_grave = findings.iter().any(|finding| finding.weight == Weight::Grave);
    if is_grave { ExitCode::from(GRAVE) } else { ExitCode::SUCCESS }
}

/// What is seen of Redis; nothing where the deployment is one node.
fn redis(config: &Config) -> std::io::Result<(Duration, Deployment)> {
    let Backbone::Redis(settings) = &config.backbone else { return Ok(Default::default()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = runtime.block_on(look(settings, &config.capacities));
    // A name that is still being resolved is not waited for.
    runtime.shutdown_background();
    Ok(seen)
}

/// What was looked at, beside what was found.
struct Seen<'a> {
    deployment: &'a Deployment,
    took: Duration,
    ignored: usize,
}

impl Seen<'_> {
    /// By area, the gravest first, each with its fix under it.
    fn text(&self, findings: &[Finding]) -> String {
        let mut out = String::new();
        for (at, finding) in findings.iter().enumerate() {
            if at == 0 || findings[at - 1].area != finding.area {
                out.push_str(&format!("{}{}\n", if at == 0 { "" } else { "\n" }, finding.area));
            }
            let word = if finding.weight == Weight::Grave { "GRAVE" } else { finding.weight.name() };
            out.push_str(&format!("  {word:<8} {}\n", finding.id.name()));
            out.push_str(&wrapped(&finding.what, "           "));
            for (line, text) in finding.fix.lines().enumerate() {
                out.push_str(&format!("      {} {text}\n", if line == 0 { "fix:" } else { "    " }));
            }
        }
        if !findings.is_empty() {
            out.push('\n');
        }
        out + &self.sum(findings)
    }

    fn sum(&self, findings: &[Finding]) -> String {
        let count = |weight| findings.iter().filter(|finding| finding.weight == weight).count();
        let found = if findings.is_empty() {
            "nothing is wrong".to_owned()
        } else {
            let [grave, warning, advice] = [Weight::Grave, Weight::Warning, Weight::Advice].map(count);
            format!("{}: {grave} grave, {warning} warning, {advice} advice", some(findings.len(), "finding"))
        };
        let ignored = if self.ignored > 0 { format!(", {} ignored", self.ignored) } else { String::new() };
        format!(
            "{found}{ignored}; looked at {} in {}.{} s\n",
            self.looked_at(),
            self.took.as_secs(),
            self.took.subsec_millis() / 100
        )
    }

    fn looked_at(&self) -> String {
        let (groups, servers, sentinels) = self.counts();
        if groups == 0 {
            return "this machine".to_owned();
        }
        let nodes = self.deployment.nodes.len();
        let redis = [some(groups, "group"), some(servers, "server"), some(sentinels, "Sentinel")].join(", ");
        format!("this machine, {redis} and {}", some(nodes, "node"))
    }

    fn counts(&self) -> (usize, usize, usize) {
        let groups = &self.deployment.groups;
        let servers = groups.iter().map(|group| group.seen.servers.len()).sum();
        let sentinels = groups.iter().map(|group| group.seen.sentinels.len()).max().unwrap_or_default();
        (groups.len(), servers, sentinels)
    }

    fn json(&self, findings: &[Finding]) -> Value {
        let (groups, servers, sentinels) = self.counts();
        let findings: Vec<Value> = findings
            .iter()
            .map(|finding| {
                json!({
                    "id": finding.id.name(),
                    "weight": finding.weight.name(),
                    "area": finding.area.to_string(),
                    "servers": finding.servers,
                    "what": finding.what,
                    "fix": finding.fix,
                })
            })
            .collect();
        json!({
            "findings": findings,
            "ignored": self.ignored,
            "looked_at": {
                "groups": groups, "servers": servers, "sentinels": sentinels, "nodes": self.deployment.nodes.len(),
            },
            "took_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

fn some(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Text in lines of at most 120 letters, each behind `margin`.
fn wrapped(text: &str, margin: &str) -> String {
    let (mut out, mut line) = (String::new(), String::from(margin));
    for word in text.split(' ') {
        if line.len() > margin.len() && line.len() + word.len() >= 120 {
            out.push_str(line.trim_end());
            out.push('\n');
            line = margin.to_owned();
        }
        line.push_str(word);
        line.push(' ');
    }
    out + line.trim_end() + "\n"
}

/// For `--ignore`.
pub fn id(text: &str) -> Result<Id, String> {
    Id::parse(text).ok_or_else(|| "no finding has that id: spec/doctor.md lists them".to_owned())
}

#[cfg(test)]
mod tests {
    use fulmar_control::doctor::Area;

    use super::*;

    /// DOC-3
    #[test]
    fn findings_are_printed_by_area_with_every_line_of_the_fix_to_copy() {
        let finding = |id, weight, area, fix: &str| Finding {
            id,
            weight,
            area,
            servers: Vec::new(),
            what: "a b".repeat(60),
            fix: fix.to_owned(),
        };
        let findings = [
            finding(Id::StorageSpace, Weight::Warning, Area::Here, "make room"),
            finding(Id::DownAfter, Weight::Grave, Area::Group("g1".to_owned()), "one\ntwo"),
        ];
        let deployment = Deployment::default();
        let seen = Seen { deployment: &deployment, took: Duration::from_millis(2_345), ignored: 1 };
        let text = seen.text(&findings);
        assert!(text.starts_with("this machine\n  warning  storage-space\n"), "{text}");
        assert!(text.contains("\n\ngroup g1\n  GRAVE    down-after\n"), "{text}");
        assert!(text.contains("      fix: one\n           two\n"), "{text}");
        assert!(
            text.ends_with("2 findings: 1 grave, 1 warning, 0 advice, 1 ignored; looked at this machine in 2.3 s\n"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
        assert_eq!(Seen { ignored: 0, ..seen }.text(&[]), "nothing is wrong; looked at this machine in 2.3 s\n");
    }
}
