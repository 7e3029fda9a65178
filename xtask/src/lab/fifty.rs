//! Fifty nodes at once: what a deployment does to Redis, and what each node costs there.

use std::time::{Duration, Instant};

use fulmar_rig::{Node, NodeOptions, Ready, Role};

use super::scene::{Lab, rig};
use crate::project::Failure;

/// All of them together are given so long.
const READY_MAX: Duration = Duration::from_secs(22);
/// When that is over, each of the rest is asked for so long.
const ASK_MAX: Duration = Duration::from_millis(50);
const LOOKS: usize = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
const NICENESS: u8 = 19;

/// The nodes.
pub struct Fifty {
    nodes: Vec<Node>,
}

/// What nodes cost Redis.
pub struct Cost {
    /// Connections to data servers.
    pub connections: usize,
    /// What leaves all primaries together.
    pub sends_bytes_per_s: f64,
}

impl Fifty {
    /// How many.
    pub const COUNT: usize = 50;

    /// Starts all.
    pub fn start(lab: &Lab) -> Result<Self, Failure> {
        let options = NodeOptions { niceness: NICENESS, ..NodeOptions::default() };
        let start = |_| Node::start_with(lab.stage.program(), lab.stage.config(), Ready::Unseen, &options).map_err(rig);
        Ok(Self { nodes: (0..Self::COUNT).map(start).collect::<Result<Vec<_>, _>>()? })
    }

    /// Waits until each wants traffic, or there is no more time; answers how many do.
    pub fn await_ready(&self) -> usize {
        let begun = Instant::now();
        let is_ready = |node: &&Node| {
            let left = READY_MAX.saturating_sub(begun.elapsed()).max(ASK_MAX);
            node.await_ready(Ready::ForTraffic, left).is_ok()
        };
        self.nodes.iter().filter(is_ready).count()
    }

    /// The last word of one that has ended, where one has.
    pub fn ended(&self) -> Option<String> {
        let ended = self.nodes.iter().find(|node| !node.is_running())?;
        Some(ended.log().lines().last().unwrap_or_default().to_owned())
    }

    /// Ends all. Ending is work too, which at this niceness may take a minute beside the day's load: they are waited for when the
    /// day is over, among those that have retired.
    pub fn end(self, lab: &mut Lab) {
        self.nodes.iter().for_each(Node::begin_to_kill);
        lab.retired.extend(self.nodes);
    }

    /// What nodes cost Redis now. Of several looks the fewest connections: one that was just given up is still listed for a while.
    pub fn cost(lab: &Lab) -> Result<Cost, Failure> {
        let (begun, sent_before) = (Instant::now(), sent_bytes(lab)?);
        let mut connections = usize::MAX;
        for _ in 0..LOOKS {
            connections = connections.min(Self::connections_now(lab)?);
            lab.stage.wait(BETWEEN_LOOKS)?;
        }
        let sent = sent_bytes(lab)?.saturating_sub(sent_before);
        Ok(Cost { connections, sends_bytes_per_s: sent as f64 / begun.elapsed().as_secs_f64() })
    }

    /// Neither Sentinels', nor replicas', nor ours.
    fn connections_now(lab: &Lab) -> Result<usize, Failure> {
        let is_a_nodes = |line: &&str| {
            let has = |part: &str| line.split(' ').any(|word| word.starts_with(part));
            !(has("name=sentinel-") || has("flags=S") || has("flags=M") || has("cmd=client|list") || has("cmd=info"))
        };
        let mut count = 0;
        for redis in lab.stage.all_servers().into_iter().filter(|redis| redis.is_running()) {
            let list = redis.call(&["CLIENT", "LIST"]).map_err(rig)?.text();
            count += list.lines().filter(|line| !line.is_empty()).filter(is_a_nodes).count();
        }
        Ok(count)
    }
}

fn sent_bytes(lab: &Lab) -> Result<u64, Failure> {
    let mut sum = 0;
    for redis in lab.stage.all_servers().into_iter().filter(|redis| redis.is_running()) {
        if redis.role().map_err(rig)? == Role::Primary {
            let sent = redis.info("stats", "total_net_output_bytes").map_err(rig)?;
            sum += sent.and_then(|sent| sent.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(sum)
}
