//! The ledger of presence: who is really there, beside what every node answers and what every observer has been told.
//!
//! Members come and go on three nodes all the time. After each wound they go on for a second, then they hold still, and everything
//! must equal the truth within the time that is promised, and stay so: a list that is right at first and wrong later is wrong. What an
//! app's own server is told by webhooks follows when goings need no longer be held. Memory that damage took must be free again.

pub mod damage;
mod endpoint;
mod hooks;
mod members;
mod observer;
pub mod rows;
mod weight;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use endpoint::Endpoint;
use fulmar_rig::http::Rest;
use fulmar_rig::{Ready, Redis, RigError, Stall, Subscriber, Watch};
use members::Members;
use observer::Observer;
use serde_json::json;
use weight::Weight;

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
/// Webhooks may be behind by this: a going is held for three seconds, a batch for a quarter, one request in ten is not answered and
/// comes again after a second or two, and what a group has lost is left alone for two and a half.
const HOOKS_BEHIND_MAX: Duration = Duration::from_millis(7_500);
/// Within this of any damage the memory it took is free again,
const FREE_MAX: Duration = Duration::from_secs(60);
/// and stays so for this long.
const FREE_STAYS: Duration = Duration::from_secs(3);
const WEIGH_EVERY: Duration = Duration::from_millis(500);
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
    /// The app's own server, where it is told.
    endpoint: Option<Endpoint>,
    /// Between two looks.
    pub look_every: Duration,
}

/// A wound of the stores.
type Wound = fn(&[&Redis]) -> Result<(), RigError>;

/// All wounds, one after another, on nodes that tell an app's own server.
pub fn run(stage: &mut Stage) -> Done {
    let mut scene = Scene::begin(stage)?;
    if matches!(stage.servers, Servers::Nothing) {
        return scene.close(stage);
    }
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
    scene.judge_memory(
        stage,
        &[damage::crowd_a_list, damage::invent_ghosts, damage::invent_node, damage::swap_groups],
    )?;
    scene.judge(stage, "a primary killed and followed", RIGHT_MAX, Scene::kill_primary)?;
    scene.judge(stage, "a node killed", RIGHT_AFTER_DEATH_MAX, |scene, stage| {
        stage.nodes[2].kill();
        scene.forget_node(2);
        Ok(())
    })?;
    scene.close(stage)
}

impl Scene {
    /// Nodes that tell an app's own server, with members that come and go, and all is right.
    fn begin(stage: &mut Stage) -> Result<Self, Failure> {
        let endpoint = Endpoint::open().map_err(|error| Failure(format!("no endpoint for webhooks: {error}")))?;
        stage.extend_config(&endpoint.config());
        stage.start_nodes(Ready::ForTraffic)?;
        let mut scene = Self { endpoint: Some(endpoint), ..Self::open(stage)? };
        scene.churn(stage, Duration::from_secs(2))?;
        scene.judge(stage, "nothing", RIGHT_MAX, |_, _| Ok(()))?;
        Ok(scene)
    }

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
        let members = Members::new(&channels);
        Ok(Self { members, channels, observers, nodes, rest, endpoint: None, look_every: LOOK })
    }

    /// Wounds, lets members come and go a little longer, and looks until well after all must be right. The time counts from when
    /// `wound` returns: from the damage itself, or from when a fault is over as `rows` says it.
    pub fn judge(
        &mut self,
        stage: &mut Stage,
        what: &str,
        right_max: Duration,
        wound: impl FnOnce(&mut Self, &mut Stage) -> Done,
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
        self.judge_hooks(stage, what, wounded, right_max + HOOKS_BEHIND_MAX)
    }

    /// Waits until webhooks have told the truth, and looks whether they did it in a valid order, each edge under one id.
    fn judge_hooks(&self, stage: &mut Stage, what: &str, since: Instant, right_max: Duration) -> Done {
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        let truths =
            self.channels.iter().cloned().enumerate().map(|(number, name)| (name, self.truth(number))).collect();
        let look = || endpoint.hooks().compare(&truths);
        let mut difference = look();
        while difference.is_err() && since.elapsed() < right_max {
            stage.wait(LOOK)?;
            difference = look();
        }
        match difference {
            Ok(()) => stage.note(format!("{what}: webhooks right after {} ms at most", since.elapsed().as_millis())),
            Err(words) => stage.wrong(format!("{what}: webhooks still wrong after {:?}: {words}", since.elapsed())),
        }
        for violation in endpoint.hooks().take_violations() {
            stage.wrong(format!("{what}: webhooks: {violation}"));
        }
        Ok(())
    }

    /// Holds still, wounds, and weighs until what the wounds brought is gone for good.
    fn judge_memory(&mut self, stage: &mut Stage, wounds: &[Wound]) -> Done {
        stage.wait(STAYS)?;
        let weigh = |stage: &Stage| Weight::of(&stage.primaries()?).map_err(failure);
        let before = weigh(stage)?;
        let mut most = before.clone();
        for wound in wounds {
            wound(&stage.primaries()?).map_err(failure)?;
            // Some of it is mended while the next is done.
            let now = weigh(stage)?;
            most = if now.keys_bytes > most.keys_bytes { now } else { most };
        }
        let wounded = Instant::now();
        let (mut last, mut last_wrong) = (most.clone(), Duration::ZERO);
        while wounded.elapsed() < (last_wrong + FREE_STAYS).min(FREE_MAX + FREE_STAYS) {
            stage.wait(WEIGH_EVERY)?;
            self.members.hear();
            last = weigh(stage)?;
            if !last.is_near(&before) {
                last_wrong = wounded.elapsed();
            }
        }
        let seconds = last_wrong.as_secs_f64();
        stage.note(format!("memory: {before}; damaged {most}; within a tenth again after {seconds:.1} s: {last}"));
        if last_wrong > FREE_MAX {
            stage.wrong(format!(
                "memory is not within a tenth of what it was after {seconds:.1} s: bytes of {}",
                last.growth(&before)
            ));
        }
        if most.keys_bytes < before.keys_bytes * 2 {
            stage.wrong("damage took no memory: nothing was tried".to_owned());
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

    fn kill_primary(&mut self, stage: &mut Stage) -> Done {
        let old = &stage.primary(GROUPS[0])?.redis;
        old.kill();
        rows::await_another_primary(stage, GROUPS[0], Some(old.port()))
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

    /// Everybody leaves, and webhooks say so.
    pub fn close(mut self, stage: &mut Stage) -> Done {
        let edges: usize = self.observers.iter().map(Observer::edges).sum();
        stage.note(format!("{} joins and leaves, {edges} edges heard", self.members.steps()));
        // Observers end side by side, each when it looks next.
        self.observers.iter().for_each(Observer::end);
        thread::sleep(LOOK);
        self.observers.clear();
        self.members.forget();
        self.judge_hooks(stage, "everybody gone", Instant::now(), RIGHT_MAX + HOOKS_BEHIND_MAX)?;
        if let Some(endpoint) = &self.endpoint {
            let (edges, repeats) = endpoint.hooks().count();
            stage.note(format!("{edges} edges told by webhooks, {repeats} of them again"));
        }
        Ok(())
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
