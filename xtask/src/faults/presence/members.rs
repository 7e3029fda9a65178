//! Members that come and go: the truth, since each is a connection that we hold or have closed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use fulmar_rig::Subscriber;
use serde_json::json;

use crate::faults::stage::app;

/// Users per channel; each has none, one or two connections.
const USERS: usize = 20;
const CONNECTIONS_MAX: usize = 2;
const PATIENCE: Duration = Duration::from_secs(5);

struct Member {
    channel: usize,
    user: String,
    node: usize,
    /// Open as long as this is kept.
    connection: Subscriber,
}

/// All members of all channels.
pub struct Members {
    channels: Vec<String>,
    there: Vec<Member>,
    steps: usize,
}

impl Members {
    /// Nobody is there.
    pub fn new(channels: &[String]) -> Self {
        Self { channels: channels.to_vec(), there: Vec::new(), steps: 0 }
    }

    /// Joins and leaves so far.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Somebody comes or goes.
    pub fn step(&mut self, nodes: &[(usize, SocketAddr)], chance: &mut fastrand::Rng) {
        let channel = chance.usize(0..self.channels.len());
        let user = format!("user-{}", chance.usize(0..USERS));
        let is_theirs = |member: &Member| member.channel == channel && member.user == user;
        let count = self.there.iter().filter(|member| is_theirs(member)).count();
        self.steps += 1;
        self.hear();
        if count > 0 && (count == CONNECTIONS_MAX || chance.bool()) {
            let at = self.there.iter().position(is_theirs).expect("they were counted");
            self.there.swap_remove(at);
            return;
        }
        let (node, addr) = nodes[chance.usize(0..nodes.len())];
        let joined = Subscriber::connect(addr, &app(), PATIENCE).and_then(|mut connection| {
            connection.ask_to_subscribe(&self.channels[channel], Some((&user, &json!({}))))?;
            Ok(connection)
        });
        // Whoever cannot connect is not there.
        if let Ok(connection) = joined {
            self.there.push(Member { channel, user, node, connection });
        }
    }

    /// Reads what everybody was told: whoever does not read for half a minute is rightly closed.
    pub fn hear(&mut self) {
        for member in &mut self.there {
            // Whoever was closed is missed by the check.
            let _: Result<(), _> = member.connection.drop_heard();
        }
    }

    /// Users with at least one connection.
    pub fn users(&self, channel: usize) -> BTreeSet<String> {
        self.there.iter().filter(|member| member.channel == channel).map(|member| member.user.clone()).collect()
    }

    /// Everybody leaves.
    pub fn forget(&mut self) {
        self.there.clear();
    }

    /// A node and its connections are gone.
    pub fn forget_node(&mut self, node: usize) {
        self.there.retain(|member| member.node != node);
    }
}
