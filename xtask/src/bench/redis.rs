//! What nodes over Redis cost: their publications through a real group beside plain PUBLISH and SUBSCRIBE on the same servers.
//!
//! One group with two replicas and three Sentinels lives as long as the run; both sides of a pair use it in turn, and nodes are
//! there only while they are measured. Every publication is counted at its receiver on either side. It judges nothing.

pub(super) mod clients;
mod failover;
mod flow;
mod plain;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use fulmar_rig::{Node, Ready, Redis, RigError, SentinelDeployment, SentinelOptions};

use super::case::{Measure, RedisPlan};
use super::generator::{Feed, Generator, Tally};
use super::process::{Server, cpu_of, free_port};
use super::sample::Sample;
use super::wire::Signer;
use super::{APP_ID, BenchError, KEY, SECRET};
use clients::Clients;
use flow::Flow;
use plain::Plain;

/// The one group.
const GROUP: &str = "g1";
const REPLICAS: usize = 2;
const SENTINELS: usize = 3;
/// Connections under way at once.
const WINDOW: usize = 64;
const WARM_UP: Duration = Duration::from_millis(500);
/// Nodes find each other, and leave their first audits behind, in this time.
const ACQUAINTED: Duration = Duration::from_millis(2_500);
/// What was put off at the end of a phase is done within it.
const AFTERMATH: Duration = Duration::from_millis(50);

/// The servers of a run.
#[derive(Debug)]
pub struct Servers {
    deployment: SentinelDeployment,
    program: PathBuf,
}

/// What was used from the beginning of a phase to its end.
struct Meter<'a> {
    primary: &'a Redis,
    cpu: Duration,
    egress_bytes: i64,
    script_calls: i64,
}

impl Servers {
    /// Starts them. `program` is the node that is measured.
    ///
    /// # Errors
    /// Something does not come up.
    pub fn start(program: &Path) -> Result<Self, BenchError> {
        let deployment = SentinelDeployment::start(&[(GROUP, REPLICAS)], SENTINELS, &SentinelOptions::default());
        Ok(Self { deployment: deployment.map_err(wrong)?, program: program.to_owned() })
    }

    /// All processes, whose time is not that of others.
    pub fn pids(&self) -> Vec<u32> {
        let servers = self.deployment.group(GROUP).map(|group| group.servers.as_slice()).unwrap_or_default();
        let sentinels = self.deployment.sentinels().iter().map(|sentinel| sentinel.redis.pid());
        servers.iter().map(|server| server.redis.pid()).chain(sentinels).collect()
    }

    /// The work of a case by small programs that only PUBLISH and SUBSCRIBE.
    ///
    /// # Errors
    /// A server does not answer, or a message is lost.
    pub fn plain(&self, plan: &RedisPlan, length: Duration) -> Result<Sample, BenchError> {
        if plan.measure == Measure::Egress {
            return self.by_count(plan, |count| self.plain_flow(plan, count, length));
        }
        self.plain_flow(plan, 1, length)
    }

    /// The same by nodes of ours.
    ///
    /// # Errors
    /// A node does not come up, or a publication is lost, doubled or refused.
    pub fn nodes(&self, plan: &RedisPlan, length: Duration) -> Result<Sample, BenchError> {
        match plan.measure {
            Measure::Egress => self.by_count(plan, |count| self.flow(plan, count, length)),
            Measure::Connections => self.connections(plan),
            Measure::Failover => failover::take(&self.program, plan),
            Measure::PrimaryCpu | Measure::NodeCpu => self.flow(plan, 2, length),
            Measure::Delivery => self.delivery(plan, length),
        }
    }

    fn primary(&self) -> Result<&Redis, BenchError> {
        self.deployment.primary_of(GROUP).map(|server| &server.redis).map_err(wrong)
    }

    /// One figure for each count of nodes; the last by the first is what is judged.
    fn by_count(
        &self,
        plan: &RedisPlan,
        mut flow: impl FnMut(usize) -> Result<Sample, BenchError>,
    ) -> Result<Sample, BenchError> {
        let samples = plan.nodes.iter().map(|count| flow(*count)).collect::<Result<Vec<_>, _>>()?;
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
            return Err(BenchError::Usage("a case that compares counts of nodes must name them".to_owned()));
        };
        let each = plan.nodes.iter().zip(&samples).map(|(count, sample)| format!("{count}: {:.1}", sample.value));
        let note = format!("by nodes {}", each.collect::<Vec<_>>().join(", "));
        Ok(Sample { small: Some(first.value), note, ..last.clone() })
    }

    fn plain_flow(&self, plan: &RedisPlan, subscribers: usize, length: Duration) -> Result<Sample, BenchError> {
        let primary = self.primary()?;
        let mut plain = Plain::connect(primary, &names(plan.channels), subscribers)?;
        plain.publish(plan, WARM_UP)?;
        let meter = Meter::begin(primary)?;
        let flow = plain.publish(plan, length)?;
        let cpu = [meter.cpu()?, flow.subscriber_cpu];
        let sample = meter.sample(plan, flow.published, cpu, flow.took)?;
        Ok(of_flow(plan, &flow, sample))
    }

    /// From the publish on one node to the receipt of a connection on another.
    fn delivery(&self, plan: &RedisPlan, length: Duration) -> Result<Sample, BenchError> {
        let (primary, nodes) = (self.primary()?, start_nodes(&self.program, &self.deployment, 2)?);
        let signer = Signer::new(APP_ID, KEY, SECRET);
        let ends = [nodes[0].addr(), nodes[1].addr()];
        let mut clients = Clients::connect(ends, signer, names(plan.channels), plan.publishers)?;
        thread::sleep(ACQUAINTED);
        clients.publish(plan, WARM_UP)?;
        let meter = Meter::begin(primary)?;
        let before = cpu_of_all(&nodes[1..])?;
        let flow = clients.publish(plan, length)?;
        let node_cpu = cpu_of_all(&nodes[1..])?.saturating_sub(before);
        let sample = meter.sample(plan, flow.published, [meter.cpu()?, node_cpu], flow.took)?;
        Ok(of_flow(plan, &flow, sample))
    }

    /// The same between two bare servers, which publish with PUBLISH and hear with SUBSCRIBE, and do nothing beside.
    ///
    /// # Errors
    /// A server does not come up, or an event is lost.
    pub fn bare(&self, plan: &RedisPlan, length: Duration, logs: &Path) -> Result<Sample, BenchError> {
        if plan.batch > 1 {
            return Err(BenchError::Usage("bare servers answer each event of a request by itself".to_owned()));
        }
        let primary = self.primary()?;
        let start = |which: usize| {
            let port = free_port()?;
            // This very program, even when it was built anew since it started.
            let mut command = Command::new("/proc/self/exe");
            command.args(["bench-reference", "--port", &port.to_string(), "--over", &primary.addr().to_string()]);
            let log = logs.join(format!("bare-{which}.log"));
            Server::start(&mut command, SocketAddr::from(([127, 0, 0, 1], port)), &log)
        };
        let servers = [start(0)?, start(1)?];
        let ends = [servers[0].addr, servers[1].addr];
        let mut clients =
            Clients::connect(ends, Signer::new(APP_ID, KEY, SECRET), names(plan.channels), plan.publishers)?;
        clients.publish(plan, WARM_UP)?;
        let meter = Meter::begin(primary)?;
        let before = servers[1].cpu()?;
        let flow = clients.publish(plan, length)?;
        let listening_cpu = servers[1].cpu()?.saturating_sub(before);
        let sample = meter.sample(plan, flow.published, [meter.cpu()?, listening_cpu], flow.took)?;
        Ok(of_flow(plan, &flow, sample))
    }

    /// The first node takes what is published; the subscribers of the channels are spread over the others.
    fn flow(&self, plan: &RedisPlan, count: usize, length: Duration) -> Result<Sample, BenchError> {
        let (primary, nodes) = (self.primary()?, start_nodes(&self.program, &self.deployment, count)?);
        let listening: Vec<_> = nodes[1..].iter().map(Node::addr).collect();
        let signer = Signer::new(APP_ID, KEY, SECRET);
        let mut generator = Generator::new(nodes[0].addr(), signer, names(plan.channels))?;
        generator.spread_over(listening);
        generator.connect(&(0..plan.channels).collect::<Vec<_>>(), WINDOW)?;
        generator.open_lanes(plan.publishers)?;
        generator.listen(ACQUAINTED)?;
        let mut feed =
            Feed { channels: (0..plan.channels).collect(), batch: plan.batch, data_bytes: plan.data_bytes, taken: 0 };
        publish(&mut generator, &mut feed, plan, WARM_UP)?;
        let meter = Meter::begin(primary)?;
        let before = cpu_of_all(&nodes[1..])?;
        let tally = publish(&mut generator, &mut feed, plan, length)?;
        let node_cpu = cpu_of_all(&nodes[1..])?.saturating_sub(before);
        let published = tally.publishes * feed.batch as u64;
        let mut sample = meter.sample(plan, published, [meter.cpu()?, node_cpu], tally.took)?;
        sample.generator_busy = tally.own_cpu.as_secs_f64() / tally.took.as_secs_f64();
        Ok(sample)
    }

    /// Connections that each server has of nodes: as many per node however many there are, or it is an error.
    fn connections(&self, plan: &RedisPlan) -> Result<Sample, BenchError> {
        let servers = &self.deployment.group(GROUP).map_err(wrong)?.servers;
        let sentinels = self.deployment.sentinels().iter().map(|sentinel| &sentinel.redis);
        let all: Vec<&Redis> = servers.iter().map(|server| &server.redis).chain(sentinels).collect();
        let count = || all.iter().map(|redis| connections_of(redis)).collect::<Result<Vec<i64>, _>>();
        thread::sleep(ACQUAINTED);
        let before = count()?;
        let mut each = Vec::new();
        for nodes in &plan.nodes {
            let running = start_nodes(&self.program, &self.deployment, *nodes)?;
            thread::sleep(ACQUAINTED);
            let now = count()?;
            let wanted = i64::try_from(running.len()).unwrap_or(1);
            let more: Vec<i64> = now.iter().zip(&before).map(|(now, before)| now - before).collect();
            if more.iter().any(|more| more % wanted != 0) {
                return Err(BenchError::Peer(format!("{wanted} nodes have {more:?} connections to the servers")));
            }
            each.push(more.iter().map(|more| more / wanted).collect::<Vec<_>>());
            drop(running);
            thread::sleep(ACQUAINTED);
        }
        let Some(first) = each.first().filter(|first| each.iter().all(|more| more == *first)) else {
            return Err(BenchError::Peer(format!("connections per node, by nodes: {each:?}")));
        };
        let most = first.iter().max().copied().unwrap_or(0);
        let note = format!("per node to primary, replicas, Sentinels: {first:?}, with {:?} nodes", plan.nodes);
        #[allow(clippy::cast_precision_loss)]
        Ok(Sample { value: most as f64, counted: each.len() as u64, note, ..Sample::default() })
    }
}

impl<'a> Meter<'a> {
    fn begin(primary: &'a Redis) -> Result<Self, BenchError> {
        let mut meter = Self { primary, cpu: Duration::ZERO, egress_bytes: 0, script_calls: 0 };
        (meter.egress_bytes, meter.script_calls) = meter.counters()?;
        meter.cpu = meter.total_cpu()?;
        Ok(meter)
    }

    fn total_cpu(&self) -> Result<Duration, BenchError> {
        cpu_of(self.primary.pid()).map_err(|e| BenchError::io("reading the CPU time of the primary", e))
    }

    fn cpu(&self) -> Result<Duration, BenchError> {
        thread::sleep(AFTERMATH);
        Ok(self.total_cpu()?.saturating_sub(self.cpu))
    }

    /// Bytes sent, replication apart, and calls of scripts.
    fn counters(&self) -> Result<(i64, i64), BenchError> {
        let number = |section: &str, name: &str| -> Result<i64, BenchError> {
            let value = self.primary.info(section, name).map_err(wrong)?;
            Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0))
        };
        let all = number("stats", "total_net_output_bytes")?;
        let replication = number("stats", "total_net_repl_output_bytes")?;
        let calls = self.primary.info("commandstats", "cmdstat_evalsha").map_err(wrong)?.unwrap_or_default();
        let calls = calls.split(',').find_map(|part| part.strip_prefix("calls=")?.parse().ok());
        Ok((all - replication, calls.unwrap_or(0)))
    }

    /// The figure that the case is about, of so many publications. `cpu` is the primary's and that of those who listen.
    #[allow(clippy::cast_precision_loss)]
    fn sample(
        &self,
        plan: &RedisPlan,
        published: u64,
        cpu: [Duration; 2],
        took: Duration,
    ) -> Result<Sample, BenchError> {
        let (egress_bytes, script_calls) = self.counters()?;
        let count = published.max(1) as f64;
        let [primary_us, listening_us] = cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / count);
        let egress = (egress_bytes - self.egress_bytes) as f64 / count;
        let calls = script_calls - self.script_calls;
        let value = match plan.measure {
            Measure::NodeCpu => listening_us,
            Measure::Egress => egress,
            _ => primary_us,
        };
        let batches = if calls > 0 { format!(", {:.1} a script call", count / calls as f64) } else { String::new() };
        let per_s = count / took.as_secs_f64();
        let note = format!(
            "{per_s:.0}/s{batches}, primary {primary_us:.1} us and {egress:.0} B, listening {listening_us:.1} us each"
        );
        let server_busy = cpu[0].as_secs_f64() / took.as_secs_f64();
        Ok(Sample { value, counted: published, server_busy, note, ..Sample::default() })
    }
}

/// What a flow adds to the figures of its servers.
fn of_flow(plan: &RedisPlan, flow: &Flow, mut sample: Sample) -> Sample {
    sample.generator_busy = flow.own_cpu.as_secs_f64() / flow.took.as_secs_f64();
    if plan.measure == Measure::Delivery {
        let quantile = |share| flow.latency.quantile(share).as_secs_f64() * 1e3;
        (sample.value, sample.note) = (quantile(0.99), format!("median {:.2} ms, {}", quantile(0.5), sample.note));
    }
    sample
}

fn publish(
    generator: &mut Generator,
    feed: &mut Feed,
    plan: &RedisPlan,
    length: Duration,
) -> Result<Tally, BenchError> {
    if plan.messages_per_s == 0 {
        return generator.publish_closed(feed, length);
    }
    let calls_per_s = plan.messages_per_s / u32::try_from(plan.batch).unwrap_or(1).max(1);
    generator.publish_paced(feed, calls_per_s.max(1), length)
}

/// So many nodes over the group of `deployment`, started side by side.
fn start_nodes(program: &Path, deployment: &SentinelDeployment, count: usize) -> Result<Vec<Node>, BenchError> {
    let addrs = deployment.sentinels().iter().map(|sentinel| format!("\"{}\"", sentinel.redis.addr()));
    let config = format!(
        "[backbone]\nkind = \"redis\"\ntopology = \"sentinel\"\nsentinels = [{}]\ngroups = [\"{GROUP}\"]\n\
         [[apps]]\nid = \"{APP_ID}\"\nkey = \"{KEY}\"\nsecret = \"{SECRET}\"\n",
        addrs.collect::<Vec<_>>().join(", ")
    );
    let start = |_| Node::start(program, &config, Ready::Unseen);
    let nodes = (0..count).map(start).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    for node in &nodes {
        node.await_ready(Ready::ForTraffic, Duration::from_secs(30)).map_err(wrong)?;
    }
    Ok(nodes)
}

fn cpu_of_all(nodes: &[Node]) -> Result<Duration, BenchError> {
    let of = |node: &Node| cpu_of(node.pid()).map_err(|e| BenchError::io("reading the CPU time of a node", e));
    nodes.iter().map(of).sum()
}

/// Connections of neither replicas nor of the one that asks.
fn connections_of(redis: &Redis) -> Result<i64, BenchError> {
    let list = redis.call(&["CLIENT", "LIST"]).map_err(wrong)?.text();
    let is_counted = |line: &&str| !line.contains("flags=S") && !line.contains("cmd=client|list");
    Ok(i64::try_from(list.lines().filter(|line| !line.is_empty()).filter(is_counted).count()).unwrap_or(i64::MAX))
}

fn names(count: u32) -> Vec<String> {
    (0..count).map(|number| format!("bench-{number}")).collect()
}

fn wrong(error: RigError) -> BenchError {
    BenchError::Peer(error.to_string())
}
