//! The lab's own minimal deployer: a new process beside the old one, and the old one goes only after a message went through the new.
//!
//! It is what a release must at least do. It keeps no lock and no record of its own; whoever dies in it leaves the old node serving.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fulmar_rig::http::Rest;
use fulmar_rig::{Node, NodeOptions, Ready, RigError, Seat, Subscriber};

use super::scene::{Lab, rig};
use super::timeline::Voice;
use crate::faults::stage::app;
use crate::project::Failure;

/// A new process is given so long to want traffic.
const READY_MAX: Duration = Duration::from_secs(8);
/// A message is given so long to come through.
const MESSAGE_MAX: Duration = Duration::from_secs(3);
/// An old process is given so long to leave.
const LEAVE_MAX: Duration = Duration::from_secs(12);
const CHANNEL: &str = "lab-deploy";

/// A binary with its configuration.
#[derive(Debug, Clone)]
pub struct Release {
    /// In a few words.
    pub name: &'static str,
    /// The binary.
    pub program: PathBuf,
    /// The configuration.
    pub config: String,
    /// Its environment.
    pub variables: Vec<(String, String)>,
}

/// Tries a release on the place of one node. `Ok(None)` when it took over, or why it did not; the old one serves on then.
pub fn roll(lab: &mut Lab, place: usize, release: &Release) -> Result<Option<String>, Failure> {
    let old = lab.stage.nodes[place].addr();
    lab.deed(format!("deployer: {} beside node {place}", release.name));
    let new = match start(release) {
        Ok(new) => new,
        Err(error) => return Ok(Some(error.to_string())),
    };
    lab.watch.add_node(&format!("new {place}"), &new);
    let tried = new.await_ready(Ready::ForTraffic, READY_MAX).and_then(|()| pass_message(old, new.addr()));
    if let Err(error) = tried {
        let why = in_one_line(&error);
        lab.seen(format!("deployer: it does not take over: {why}"));
        new.kill();
        lab.retired.push(new);
        return Ok(Some(why));
    }
    take_over(lab, place, new)?;
    Ok(None)
}

/// A process of this release on a port of its own, whatever becomes of it.
pub fn start(release: &Release) -> Result<Node, RigError> {
    let options = NodeOptions { variables: release.variables.clone(), ..NodeOptions::default() };
    Node::start_with(&release.program, &release.config, Ready::Unseen, &options)
}

/// One message from the new one to the old, and one back.
pub fn pass_message(old: SocketAddr, new: SocketAddr) -> Result<(), RigError> {
    for (from, to) in [(new, old), (old, new), (new, new)] {
        let mut subscriber = Subscriber::connect(to, &app(), MESSAGE_MAX)?;
        subscriber.subscribe(CHANNEL, None)?;
        let words = format!("{from}-{to}");
        let answer = Rest::new(from, &app()).publish(CHANNEL, &words)?;
        if answer.status != 200 {
            return Err(RigError::Peer(format!("a publish through {from} was answered {}", answer.status)));
        }
        let until = Instant::now() + MESSAGE_MAX;
        loop {
            let event = subscriber.event_before(until)?;
            let Some(event) = event else {
                return Err(RigError::Late { what: format!("a message from {from} to {to}"), waited: MESSAGE_MAX });
            };
            if event["data"] == words {
                break;
            }
        }
    }
    Ok(())
}

/// Newcomers are led to the new one, and the old one is told to go; its sockets come back.
fn take_over(lab: &mut Lab, place: usize, new: Node) -> Result<(), Failure> {
    lab.timeline.say(Voice::Seen, "deployer: a message went through it, it takes over");
    lab.own.balancers[place].redirect(new.addr());
    let old = std::mem::replace(&mut lab.stage.nodes[place], new);
    old.terminate();
    let addr = lab.own.balancers[place].addr();
    let size = lab.stage.size;
    let places = lab.stage.nodes.len();
    for number in (place..size.subscribers).step_by(places) {
        lab.stage.load().add_subscriber(Seat { addr, node: place, channel: number % size.channels });
    }
    let left = old.await_end(LEAVE_MAX).map_err(rig)?;
    if !left.is_some_and(|status| status.success()) {
        lab.wrong(format!("the old node {place} ended with {left:?}"));
    }
    lab.retired.push(old);
    Ok(())
}

fn in_one_line(error: &RigError) -> String {
    let text = error.to_string();
    let lines: Vec<_> = text.lines().collect();
    match lines.as_slice() {
        [only] => (*only).to_owned(),
        [first, .., last] => format!("{first} {}", last.trim()),
        [] => String::new(),
    }
}
