//! Fifty nodes at once: what a deployment does to Redis, and what each node costs there.

use std::thread;
use std::time::Duration;

use fulmar_rig::{Node, NodeOptions, Ready};

use super::scene::{Lab, rig};
use crate::project::Failure;

/// All of them together are given so long.
const READY_MAX: Duration = Duration::from_secs(40);
const LOOKS: usize = 6;
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
const NICENESS: u8 = 19;

/// The nodes.
pub struct Fifty {
    nodes: Vec<Node>,
}

impl Fifty {
    /// How many.
    pub const COUNT: usize = 50;

    /// Starts all, and waits until each wants traffic.
    pub fn start(lab: &Lab) -> Result<Self, Failure> {
        let options = NodeOptions { niceness: NICENESS, ..NodeOptions::default() };
        let start = |_| Node::start_with(lab.stage.program(), lab.stage.config(), Ready::Unseen, &options).map_err(rig);
        let nodes = (0..Self::COUNT).map(start).collect::<Result<Vec<_>, _>>()?;
        let begun = std::time::Instant::now();
        for node in &nodes {
            let left = READY_MAX.saturating_sub(begun.elapsed());
            node.await_ready(Ready::ForTraffic, left).map_err(rig)?;
        }
        Ok(Self { nodes })
    }

    /// Ends all, side by side: one after another the last of them would have the machine for a minute.
    pub fn end(self) {
        thread::scope(|scope| {
            for node in &self.nodes {
                scope.spawn(|| node.kill());
            }
        });
    }

    /// Connections of nodes to data servers, the fewest of several looks: one that was just given up is still listed for a while.
    pub fn connections(lab: &Lab) -> Result<usize, Failure> {
        let mut fewest = usize::MAX;
        for _ in 0..LOOKS {
            fewest = fewest.min(Self::connections_now(lab)?);
            lab.stage.wait(BETWEEN_LOOKS)?;
        }
        Ok(fewest)
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
