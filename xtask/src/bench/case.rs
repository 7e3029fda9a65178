//! What a case file says: the work, how it is judged, and why it exists.
//!
//! Cases are data (`benches/cases/<name>/case.toml`); a new kind of work is a new variant here and in `sample`.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::BenchError;

/// One case, read from its file.
#[derive(Debug, Clone)]
pub struct Case {
    /// The folder's name.
    pub name: String,
    /// What the folder's file says.
    pub plan: Plan,
}

/// The content of a `case.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Place in the table.
    pub order: u32,
    /// Why the case exists, in a sentence.
    pub why: String,
    /// When it is met.
    pub target: Target,
    /// Pairs of samples are cut to this where the figure does not vary.
    pub pairs_max: Option<u32>,
    /// Whether the second reference is shown as well ([`Work::second`]).
    #[serde(default)]
    pub show_second: bool,
    /// What is done.
    pub work: Work,
}

/// When a case is met.
#[derive(Debug, Clone, Copy, Deserialize)]
pub enum Target {
    /// Ours divided by the reference of the same pair, at most.
    #[serde(rename = "ratio_max")]
    Ratio(f64),
    /// Our figure itself, at most.
    #[serde(rename = "value_max")]
    Value(f64),
    /// How much more our cost grows than the reference's from small to large, as a share, at most.
    #[serde(rename = "growth_max")]
    Growth(f64),
    /// Whatever it is: the figure is shown beside the reference's.
    #[serde(rename = "shown")]
    Shown,
}

/// How connections spread over channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// All on one channel.
    OneChannel,
    /// Each on a channel of its own.
    OwnChannels,
}

/// What grows in a growth case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Growth {
    /// A delivery to a fixed audience while ever more connections idle beside it.
    DeliveryByConnections,
    /// A publish with one delivery while it takes turns over ever more channels, connections being equal.
    DeliveryByChannels,
    /// Connecting and subscribing more to one channel that has ever more subscribers.
    SubscribeByConnections,
    /// Connecting and subscribing to new channels while there are ever more channels.
    SubscribeByChannels,
}

/// What is measured of nodes over Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// CPU of the primary per publication.
    PrimaryCpu,
    /// CPU of the node that has the subscribers, per publication it receives.
    NodeCpu,
    /// 99th percentile from the publish on one node to the receipt on another.
    Delivery,
    /// Bytes that leave the primary per publication, replication apart, with ever more nodes.
    Egress,
    /// Connections that a node has to one server.
    Connections,
    /// Seconds from a primary's end until every node hears everything again.
    Failover,
}

/// A case about nodes over Redis. Not every number means something to every [`Measure`].
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct RedisPlan {
    /// What is measured.
    pub measure: Measure,
    /// How many nodes, where that is compared.
    #[serde(default)]
    pub nodes: Vec<usize>,
    /// Channels, each with one subscriber; of each node where nodes have their own.
    #[serde(default)]
    pub channels: u32,
    /// Publications a second; 0 is as many as there can be.
    #[serde(default)]
    pub messages_per_s: u32,
    /// Connections that publish.
    #[serde(default)]
    pub publishers: usize,
    /// Events in one call of a node.
    #[serde(default)]
    pub batch: usize,
    /// Commands in one write of the reference.
    #[serde(default)]
    pub plain_batch: usize,
    /// Size of an event's data.
    #[serde(default)]
    pub data_bytes: usize,
}

/// What is done, and with how many.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// Resident bytes per idle connection.
    Memory { connections: u32, layout: Layout },
    /// CPU per connection opened and subscribed.
    Connect { connections: u32, layout: Layout, window: usize },
    /// CPU per delivery on one channel.
    Fanout { subscribers: u32, in_flight: usize, data_bytes: usize },
    /// CPU per event published over HTTP to many channels.
    Publish { channels: u32, subscribers_per_channel: u32, publishers: usize, batch: usize, data_bytes: usize },
    /// CPU per delivery of client events.
    ClientEvents { channels: u32, members: u32, per_member_per_s: u32, data_bytes: usize },
    /// Seconds until all connections are back after all were dropped.
    Reconnect { connections: u32, rounds: u32 },
    /// 99th percentile in milliseconds from publisher's write to each receipt.
    Paced { subscribers: u32, messages_per_s: u32, data_bytes: usize },
    /// What nodes over Redis cost, beside plain PUBLISH and SUBSCRIBE.
    Redis(RedisPlan),
    /// The same cost measured small and large.
    Growth { of: Growth, small: u32, large: u32, step: u32, data_bytes: usize },
}

impl Work {
    /// Whether there is something to compare with.
    pub fn has_reference(&self) -> bool {
        !matches!(self, Self::Redis(plan) if matches!(plan.measure, Measure::Connections | Measure::Failover))
    }

    /// What the second reference is: one that writes once per turn and subscriber or, over Redis, two bare servers in place of
    /// nodes.
    pub fn second(&self) -> &'static str {
        if matches!(self, Self::Redis(_)) { "bare servers" } else { "gathering reference" }
    }

    /// The unit of the figure.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Memory { .. } => "B",
            Self::Redis(plan) => match plan.measure {
                Measure::PrimaryCpu | Measure::NodeCpu => "us",
                Measure::Delivery => "ms",
                Measure::Egress => "B",
                Measure::Connections => "conn",
                Measure::Failover => "s",
            },
            Self::Reconnect { .. } => "s",
            Self::Paced { .. } => "ms",
            _ => "us",
        }
    }
}

/// Reads the cases of `folder`, in their order; all of them, or those named.
///
/// # Errors
/// A file cannot be read or understood, or a name is unknown.
pub fn read_all(folder: &Path, wanted: &[String]) -> Result<Vec<Case>, BenchError> {
    let doing = || format!("reading {}", folder.display());
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| BenchError::io(doing(), e))? {
        let path = entry.map_err(|e| BenchError::io(doing(), e))?.path();
        if path.is_dir() {
            cases.push(read(&path)?);
        }
    }
    if let Some(unknown) = wanted.iter().find(|w| !cases.iter().any(|c| c.name == **w)) {
        let mut known: Vec<_> = cases.iter().map(|c| c.name.as_str()).collect();
        known.sort_unstable();
        return Err(BenchError::UnknownCase { name: unknown.clone(), known: known.join(", ") });
    }
    cases.retain(|c| wanted.is_empty() || wanted.contains(&c.name));
    cases.sort_by_key(|c| c.plan.order);
    Ok(cases)
}

fn read(folder: &Path) -> Result<Case, BenchError> {
    let file = folder.join("case.toml");
    let text = fs::read_to_string(&file).map_err(|e| BenchError::io(format!("reading {}", file.display()), e))?;
    let plan = toml::from_str(&text)
        .map_err(|source| BenchError::Case { file: file.display().to_string(), source: Box::new(source) })?;
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Case { name, plan })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_in_the_repository_reads_and_says_why_it_exists() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/cases");
        let cases = read_all(&folder, &[]).unwrap_or_else(|e| panic!("{e}"));
        assert!(!cases.is_empty());
        for pair in cases.windows(2) {
            assert_ne!(pair[0].plan.order, pair[1].plan.order, "{} and {}", pair[0].name, pair[1].name);
        }
        assert!(cases.iter().all(|c| c.plan.why.len() > 20));
    }

    #[test]
    fn an_unknown_name_says_which_there_are() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/cases");
        let error = read_all(&folder, &["nothing".into()]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("idle-memory"), "{error}");
    }
}
