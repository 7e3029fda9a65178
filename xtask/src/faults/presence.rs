//! The ledger of presence: who is really there, beside what every node answers and what every observer has been told.
//!
//! Members come and go on three nodes all the time. After each wound they go on for a second, then they hold still, and everything
//! must equal the truth within the time that is promised, and stay so: a list that is right at first and wrong later is wrong.

pub mod damage;
mod members;
mod observer;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use fulmar_rig::http::Rest;
use fulmar_rig::{Redis, RigError, Stall, Subscriber, Watch, eventually};
use members::Members;
use observer::Observer;
use serde_json::json;

use super::stage::{Done, GROUPS, Servers, Stage, app, failure};
use crate::project::Failure;

/// Within this of any damage all is right again,
pub const RIGHT_MAX: Duration = Duration::from_secs(3);
/// and within this of a node's death.
const RIGHT_AFTER_DEATH_MAX: Duration = Duration::from_secs(10);
/// Members come and go for so long after a wound.
const CHURN_AFTER: Duration = Duration::from_secs(1);
/// What is right must stay right for so long.
const STAYS: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(15);
const LOOK: Duration = Duration::from_millis(100);
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Everything of this case.
pub struct Scene {
    channels: Vec<String>,
    members: Members,
    observers: Vec<Observer>,
    /// Live nodes by number.
    nodes: Vec<(usize, SocketAddr)>,
    rest: Vec<Rest>,
    /// Between two looks.
    pub look_every: Duration,
}

/// All wounds, one after another.
pub fn run(stage: &mut Stage) -> Done {
    let mut scene = Scene::open(stage)?;
    scene.churn(stage, Duration::from_secs(2))?;
    scene.judge(stage, "nothing", RIGHT_MAX, |_, _| Ok(()))?;
    if matches!(stage.servers, Servers::Nothing) {
        scene.close(stage);
        return Ok(());
    }
    type Wound = fn(&[&Redis]) -> Result<(), RigError>;
    let wounds: [(&str, Wound); 5] = [
        ("half of the records deleted", damage::delete_half),
        ("10,000 ghosts", damage::invent_ghosts),
        ("records of a node that never was", damage::invent_node),
        ("records of the other group", damage::swap_groups),
        ("FLUSHALL", damage::flush),
    ];
    for (what, wound) in wounds {
        scene.judge(stage, what, RIGHT_MAX, |_, stage| wound(&stage.primaries()?).map_err(failure))?;
    }
    scene.judge(stage, "a primary killed and followed", RIGHT_MAX, Scene::kill_primary)?;
    scene.judge(stage, "a node killed", RIGHT_AFTER_DEATH_MAX, |scene, stage| {
        stage.nodes[2].kill();
        scene.forget_node(2);
        Ok(())
    })?;
    scene.close(stage);
    Ok(())
}

impl Scene {
    /// Observers are there; nobody comes or goes yet.
    pub fn open(stage: &Stage) -> Result<Self, Failure> {
        let count = if stage.is_quick { 4 } else { 12 };
        let channels: Vec<_> = (0..count).map(|number| format!("presence-faults-{number}")).collect();
        let nodes: Vec<_> = stage.addrs().into_iter().enumerate().collect();
        let mut observers = Vec::new();
        for (node, addr) in &nodes {
            for (number, channel) in channels.iter().enumerate() {
                let user = format!("observer-{node}-{number}");
                observers.push(Observer::start(*addr, *node, number, channel, user).map_err(failure)?);
            }
        }
        let rest = nodes.iter().map(|(_, addr)| Rest::new(*addr, &app())).collect();
        Ok(Self { members: Members::new(&channels), channels, observers, nodes, rest, look_every: LOOK })
    }

    /// Wounds, lets members come and go a little longer, and looks until well after all must be right.
    pub fn judge(
        &mut self,
        stage: &mut Stage,
        what: &str,
        right_max: Duration,
        wound: impl FnOnce(&mut Self, &Stage) -> Done,
    ) -> Done {
        self.churn(stage, Duration::from_secs(1))?;
        wound(self, stage)?;
        let wounded = Instant::now();
        let watch = Watch::start(wounded);
        self.churn(stage, CHURN_AFTER)?;
        let mut last_wrong = None;
        while wounded.elapsed() < right_max + STAYS {
            let looked = wounded.elapsed();
            if let Err(difference) = self.compare() {
                last_wrong = Some((looked, difference));
            }
            stage.wait(self.look_every)?;
        }
        // What the machine was away is nobody's fault.
        let stalls = watch.end();
        let last_wrong = last_wrong.map(|(at, difference)| (at.saturating_sub(away(&stalls, at)), difference));
        let right_ms = last_wrong.as_ref().map_or(0, |(at, _)| at.as_millis());
        stage.note(format!("{what}: all right after {right_ms} ms"));
        if let Some((at, difference)) = last_wrong.filter(|(at, _)| *at > right_max) {
            stage.wrong(format!("{what}: still wrong after {at:?}: {difference}"));
        }
        for difference in self.compare_snapshots() {
            stage.wrong(format!("{what}: a newcomer's roster: {difference}"));
        }
        for observer in self.observers.iter().filter(|observer| self.is_alive(observer.node)) {
            for violation in observer.take_violations() {
                stage.wrong(format!("{what}: observer on node {}: {violation}", observer.node));
            }
        }
        Ok(())
    }

    /// Members come and go.
    pub fn churn(&mut self, stage: &mut Stage, time: Duration) -> Done {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.members.step(&self.nodes, &mut stage.chance);
            stage.wait(STEP)?;
        }
        Ok(())
    }

    fn kill_primary(&mut self, stage: &Stage) -> Done {
        let old = stage.primary(GROUPS[0])?.addr();
        stage.primary(GROUPS[0])?.redis.kill();
        eventually("another primary takes writes", Duration::from_secs(20), || {
            let new = stage.primary(GROUPS[0]).ok().filter(|new| new.addr() != old)?;
            new.redis.replicas_online().ok().filter(|online| *online > 0)
        })
        .map_err(failure)?;
        Ok(())
    }

    fn is_alive(&self, node: usize) -> bool {
        self.nodes.iter().any(|(number, _)| *number == node)
    }

    fn forget_node(&mut self, node: usize) {
        self.members.forget_node(node);
        let at = self.nodes.iter().position(|(number, _)| *number == node);
        if let Some(at) = at {
            self.nodes.remove(at);
            self.rest.remove(at);
        }
    }

    /// Who is really there: members, and the observers of nodes that live.
    fn truth(&self, channel: usize) -> BTreeSet<String> {
        let mut users = self.members.users(channel);
        let observers = self.observers.iter().filter(|o| o.channel == channel && self.is_alive(o.node));
        users.extend(observers.map(|observer| observer.user.clone()));
        users
    }

    /// The first difference between the truth and anybody's word.
    fn compare(&mut self) -> Result<(), String> {
        for observer in self.observers.iter().filter(|observer| self.is_alive(observer.node)) {
            let who = || format!("observer on node {} of {}", observer.node, self.channels[observer.channel]);
            let told = observer.members().map_err(|ended| format!("{}: {ended}", who()))?;
            difference(&self.truth(observer.channel), &told).map_err(|words| format!("{}: {words}", who()))?;
        }
        let truths: Vec<_> = (0..self.channels.len()).map(|channel| self.truth(channel)).collect();
        for ((node, _), rest) in self.nodes.iter().zip(&mut self.rest) {
            compare_answers(rest, &self.channels, &truths).map_err(|words| format!("node {node}: {words}"))?;
        }
        Ok(())
    }

    /// One who comes now is told of all who are there. It comes as a user who is there already, which changes nothing.
    fn compare_snapshots(&self) -> Vec<String> {
        let mut differences = Vec::new();
        for (channel, name) in self.channels.iter().enumerate() {
            let truth = self.truth(channel);
            let (node, addr) = self.nodes[channel % self.nodes.len()];
            let Some(user) = truth.iter().next() else { continue };
            let joined = Subscriber::connect(addr, &app(), ANSWER_MAX)
                .and_then(|mut subscriber| subscriber.subscribe(name, Some((user, &json!({})))));
            let told = match joined {
                Ok(data) => observer::ids(&data),
                Err(error) => {
                    differences.push(format!("{name} on node {node}: {error}"));
                    continue;
                }
            };
            differences.extend(difference(&truth, &told).err().map(|words| format!("{name} on node {node}: {words}")));
        }
        differences
    }

    /// Everybody leaves.
    pub fn close(self, stage: &mut Stage) {
        let edges: usize = self.observers.iter().map(Observer::edges).sum();
        stage.note(format!("{} joins and leaves, {edges} edges heard", self.members.steps()));
        // Observers end side by side, each when it looks next.
        self.observers.iter().for_each(Observer::end);
        thread::sleep(LOOK);
    }
}

/// For how long the machine was away until then.
fn away(stalls: &[Stall], until: Duration) -> Duration {
    let until_ns = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
    let of = |stall: &Stall| stall.to_ns.min(until_ns).saturating_sub(stall.from_ns);
    Duration::from_nanos(stalls.iter().map(of).sum())
}

/// What one node answers over HTTP.
fn compare_answers(rest: &mut Rest, channels: &[String], truths: &[BTreeSet<String>]) -> Result<(), String> {
    let mut ask = |call: &str, params: &[(&str, &str)]| {
        let answer = rest.ask(call, params).map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer.json()) } else { Err(format!("{call} was answered {answer:?}")) }
    };
    let listing = ask("channels", &[("filter_by_prefix", "presence-"), ("info", "user_count")])?;
    let listed = listing["channels"].as_object().map_or(0, serde_json::Map::len);
    if listed != truths.iter().filter(|truth| !truth.is_empty()).count() {
        return Err(format!("{listed} channels are listed: {listing}"));
    }
    for (channel, truth) in channels.iter().zip(truths) {
        let count = listing["channels"][channel]["user_count"].as_u64().unwrap_or(0);
        if usize::try_from(count) != Ok(truth.len()) {
            return Err(format!("{channel} has {count} users, not {}", truth.len()));
        }
        let users = ask(&format!("channels/{channel}/users"), &[])?;
        let users = users["users"].as_array().into_iter().flatten();
        let told = users.filter_map(|user| user["id"].as_str().map(str::to_owned)).collect();
        difference(truth, &told).map_err(|words| format!("{channel}/users: {words}"))?;
    }
    Ok(())
}

fn difference(truth: &BTreeSet<String>, told: &BTreeSet<String>) -> Result<(), String> {
    if truth == told {
        return Ok(());
    }
    let some = |of: &BTreeSet<String>, without: &BTreeSet<String>| {
        let names: Vec<_> = of.difference(without).take(3).cloned().collect();
        format!("{} ({})", of.difference(without).count(), names.join(", "))
    };
    Err(format!("{} missing, {} too many", some(truth, told), some(told, truth)))
}
