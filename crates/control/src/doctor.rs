//! What is wrong with a deployment, or will be: findings, each with its figures and what to do about it.
//!
//! [`facts`] is what was seen, [`ids`] what can be found, and each other file looks at one kind of fact. Nothing here asks
//! anybody: what could not be seen is a finding itself, and no finding is made of what was not seen.

mod buffers;
pub mod facts;
mod groups;
pub mod ids;
mod local;
mod memory;
mod nodes;
mod redis_cluster;
mod sentinels;
mod servers;

use std::fmt;
use std::time::Duration;

pub use facts::Deployment;
pub use ids::Id;
pub use servers::SLOW_MS;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Worth knowing; nothing is lost by leaving it.
    Advice,
    /// Something will fail that need not, or a fault will cost more than it should.
    Warning,
    /// Something fails now, or the next fault costs messages.
    Grave,
}

impl Weight {
    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Advice => "advice",
            Self::Warning => "warning",
            Self::Grave => "grave",
        }
    }
}

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// The machine that looks: configuration, files, certificates.
    Here,
    /// A group, its servers and what Sentinels say of it.
    Group(String),
    /// The nodes, by their leases.
    Nodes,
    /// Webhooks that wait.
    Webhooks,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("this machine"),
            Self::Group(name) => write!(f, "group {name}"),
            Self::Nodes => f.write_str("nodes"),
            Self::Webhooks => f.write_str("webhooks"),
        }
    }
}

/// Something that is wrong or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which kind.
    pub id: Id,
    /// How grave it is here.
    pub weight: Weight,
    /// What it is about.
    pub area: Area,
    /// Servers it is about, if it is about some alone.
    pub servers: Vec<String>,
    /// A sentence with the place and the figures.
    pub what: String,
    /// What to do: a sentence, or commands to copy.
    pub fix: String,
}

/// Findings as they are made.
struct Findings<'a> {
    area: Area,
    /// The server that is looked at, where it is one alone.
    server: Option<String>,
    made: &'a mut Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, id: Id, weight: Weight, what: impl Into<String>, fix: impl Into<String>) {
        let servers = self.server.iter().cloned().collect();
        self.made.push(Finding { id, weight, area: self.area.clone(), servers, what: what.into(), fix: fix.into() });
    }

    fn grave(&mut self, id: Id, what: impl Into<String>, fix: impl Into<String>) {
        self.add(id, Weight::Grave, what, fix);
    }

    fn warn(&mut self, id: Id, what: impl Into<String>, fix: impl Into<String>) {
        self.add(id, Weight::Warning, what, fix);
    }

    fn advise(&mut self, id: Id, what: impl Into<String>, fix: impl Into<String>) {
        self.add(id, Weight::Advice, what, fix);
    }
}

/// Names everything that is wrong, by area and the gravest first. `now` is by the observer's count, as in the facts.
#[must_use]
pub fn examine(now: Duration, deployment: &Deployment) -> Vec<Finding> {
    let mut made = Vec::new();
    local::examine(deployment, &mut made);
    for group in &deployment.groups {
        let mut findings = Findings { area: Area::Group(group.seen.name.clone()), server: None, made: &mut made };
        local::shown(deployment.local.unix_s, group, &mut findings);
        sentinels::examine(now, group, &mut findings);
        groups::examine(now, deployment, group, &mut findings);
        for server in &group.servers {
            findings.server = Some(server.address.clone());
            servers::examine(deployment, server, &mut findings);
            memory::examine(now, group, server, &mut findings);
            buffers::examine(now, deployment, group, server, &mut findings);
            redis_cluster::examine(deployment, server, &mut findings);
        }
    }
    redis_cluster::examine_shares(deployment, &mut made);
    nodes::examine(deployment, &mut made);
    said_once(&mut made);
    let mut made = alike(made);
    made.sort_by(|a, b| (&a.area, b.weight, a.id).cmp(&(&b.area, a.weight, b.id)));
    made
}

/// What is true of Sentinels themselves, or of all groups, is said of the first group only.
fn said_once(made: &mut Vec<Finding>) {
    let mut said: Vec<String> = Vec::new();
    made.retain(|finding| {
        let is_of_sentinels = matches!(finding.id, Id::SentinelsTooFew | Id::SentinelUnreachable | Id::SentinelTilt);
        let is_of_all = is_of_sentinels || matches!(finding.id, Id::GroupsDiffer | Id::MoveInterrupted);
        let is_again = is_of_all && said.contains(&finding.what);
        if is_of_all && !is_again {
            said.push(finding.what.clone());
        }
        !is_again
    });
}

/// What is true of several servers in the same words is one finding, with the fix for each.
fn alike(made: Vec<Finding>) -> Vec<Finding> {
    // Stands for the server where words are compared.
    const ANY: &str = "\u{0}";
    let mut merged: Vec<(String, Finding)> = Vec::new();
    for finding in made {
        let [server] = finding.servers.as_slice() else {
            merged.push((String::new(), finding));
            continue;
        };
        let what = finding.what.replacen(server, ANY, 1);
        let words = format!("{what}\n{}", finding.fix.replace(&facts::tool(server), ANY));
        let kind = |finding: &Finding| (finding.id, finding.weight, finding.area.clone());
        match merged.iter_mut().find(|(said, other)| *said == words && kind(other) == kind(&finding)) {
            None => merged.push((words, finding)),
            Some((_, other)) => {
                other.servers.extend(finding.servers);
                other.what = what.replacen(ANY, &format!("each of {}", other.servers.join(", ")), 1);
                other.fix = format!("{}\n{}", other.fix, finding.fix);
            }
        }
    }
    merged.into_iter().map(|(_, finding)| finding).collect()
}

#[cfg(test)]
mod tests;
