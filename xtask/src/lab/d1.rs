//! 2019-12-06: a release with a new configuration, a roll-back of one half of it, and no version that ran.
//!
//! Old and new are this checkout's binary, built twice: the new one with the feature that lets it fail as it is told.

use std::path::PathBuf;

use fulmar_rig::{Link, Ready};

use super::day::{Day, GOES_AWAY, NOTHING, Step};
use super::deploy::{self, Release};
use super::scene::{Lab, rig};
use crate::faults::stage::{Done, Setting};
use crate::project::Failure;

/// The day.
pub const DAY: Day = Day {
    name: "D1",
    id: "INC-2019-12-06",
    title: "a release and its roll-back",
    story: "A release brought a new binary and a new configuration. It was bad, and the roll-back restored only the binary. The old \
            binary refused a key of the new configuration (it was about metrics), so no version ran; a stale lock of the deployment \
            blocked the repair. Publishing was down for up to 80 minutes.",
    setting: Setting::Sentinel,
    begin,
    steps: &[
        Step {
            name: "old binary, new configuration",
            story: "the roll-back restored the binary alone, and it refused the key that it did not know",
            deed: old_binary,
            allowed: NOTHING,
        },
        Step { name: "new binary, old configuration", story: "the other half", deed: new_binary, allowed: NOTHING },
        Step {
            name: "a new binary that ends at once",
            story: "",
            deed: |lab| bad_release(lab, "exit"),
            allowed: NOTHING,
        },
        Step { name: "a new binary that hangs", story: "", deed: |lab| bad_release(lab, "hang"), allowed: NOTHING },
        Step {
            name: "a new binary that refuses its configuration",
            story: "no version of the application was running",
            deed: |lab| bad_release(lab, "refuse"),
            allowed: NOTHING,
        },
        Step {
            name: "the release goes out, node by node",
            story: "",
            deed: |lab| roll_all(lab, true).and_then(|()| find_sink(lab)),
            allowed: GOES_AWAY,
        },
        Step {
            name: "the binary alone goes back, node by node",
            story: "35 minutes of logging in to each machine",
            deed: |lab| roll_all(lab, false),
            allowed: GOES_AWAY,
        },
        Step { name: "who is there", story: "", deed: presence, allowed: NOTHING },
    ],
    gaps: &[
        "a new binary that runs and never delivers, or is slow by 2 s: needs releases as one object, on trial until confirmed",
        "the deployer killed in the middle, and its stale lock: needs releases",
    ],
};

/// What the day needs for itself.
#[derive(Default)]
pub struct Own {
    /// In front of each node's place.
    pub balancers: Vec<Link>,
    /// The binary that can fail as it is told.
    pub faulty: Option<PathBuf>,
}

/// What tells a binary that was built for it to fail.
const FAULT: &str = "FULMAR_LAB_FAULT";
const SHUTDOWN: &str = "[shutdown]\ngrace_s = 1\ndrain_s = 2\n";
/// A sink where nobody listens, and keys that this release does not know.
const NEXT_KEYS: &str =
    "[metrics]\nstatsd = \"127.0.0.1:9\"\ninterval_s = 1\nhistograms = \"native\"\n[release]\nlabel = \"next\"\n";
/// What a node says of that sink, once.
const NO_SINK: &str = "metrics do not arrive";

fn begin(lab: &mut Lab) -> Done {
    lab.stage.extend_config(SHUTDOWN);
    // Every connection passes a balancer, which takes two threads for it.
    lab.stage.size.channels = 20;
    lab.stage.size.subscribers = 60;
    lab.stage.start_nodes(Ready::ForTraffic)?;
    for addr in lab.stage.addrs() {
        lab.own.balancers.push(Link::to(addr).map_err(rig)?);
    }
    let addrs: Vec<_> = lab.own.balancers.iter().map(Link::addr).collect();
    lab.begin_load_at(&addrs)
}

fn release(lab: &Lab, is_new: bool, has_new_config: bool) -> Result<Release, Failure> {
    let faulty = || lab.own.faulty.clone().ok_or_else(|| Failure("the new binary was not built".to_owned()));
    let program = if is_new { faulty()? } else { lab.stage.program().to_owned() };
    let more = if has_new_config { NEXT_KEYS } else { "" };
    let name = match (is_new, has_new_config) {
        (true, true) => "the new release",
        (true, false) => "the new binary with the old configuration",
        (false, true) => "the old binary with the new configuration",
        (false, false) => "the old release",
    };
    Ok(Release { name, program, config: format!("{}{more}", lab.stage.config()), variables: Vec::new() })
}

/// It starts, says what it does not know, and serves.
fn old_binary(lab: &mut Lab) -> Done {
    let mut release = release(lab, false, true)?;
    // A default build does not know how to fail: what the lab tells its own is an unknown variable to it.
    release.variables.push((FAULT.to_owned(), "exit".to_owned()));
    let said = serve_beside(lab, &release)?;
    for key in ["metrics.histograms", "release"] {
        if !said.lines().any(|line| line.contains("WARN") && line.contains(key)) {
            lab.wrong(format!("no warning names {key}"));
        }
    }
    complains_once(lab, &said);
    Ok(())
}

fn complains_once(lab: &mut Lab, said: &str) {
    let complaints = said.matches(NO_SINK).count();
    if complaints == 1 {
        lab.seen("its metrics sink is away, which it says once, and serves");
    } else {
        lab.wrong(format!("a node whose metrics sink is away says so {complaints} times"));
    }
}

/// All of them have that sink by now, and the doctor says so.
fn find_sink(lab: &mut Lab) -> Done {
    let logs: Vec<String> = lab.stage.nodes.iter().map(fulmar_rig::Node::log).collect();
    logs.iter().for_each(|log| complains_once(lab, log));
    let answer = lab.verbs.call(&["doctor", "--json"])?;
    if answer.out.contains("metrics-sink-unreachable") {
        lab.seen("the doctor names the metrics sink that is away");
    } else {
        lab.wrong("the doctor does not find that the metrics sink is unreachable");
    }
    Ok(())
}

fn new_binary(lab: &mut Lab) -> Done {
    let release = release(lab, true, false)?;
    serve_beside(lab, &release).map(|_| ())
}

/// A further process serves beside the three for a moment. Answers what it wrote.
fn serve_beside(lab: &mut Lab, release: &Release) -> Result<String, Failure> {
    lab.deed(format!("{} is started beside the three nodes", release.name));
    let node = deploy::start(release).map_err(rig)?;
    lab.watch.add_node("beside", &node);
    node.await_ready(Ready::ForTraffic, std::time::Duration::from_secs(15)).map_err(rig)?;
    deploy::pass_message(lab.stage.nodes[0].addr(), node.addr()).map_err(rig)?;
    lab.seen("it is ready, and messages go through it to another node and back");
    node.terminate();
    node.await_end(std::time::Duration::from_secs(12)).map_err(rig)?;
    // Not before: what it says of the sink comes when the first figures are refused.
    let said = node.log();
    lab.retired.push(node);
    Ok(said)
}

/// The deployer tries a bad release on node 0, which must serve on.
fn bad_release(lab: &mut Lab, fault: &str) -> Done {
    let mut release = release(lab, true, true)?;
    release.variables.push((FAULT.to_owned(), fault.to_owned()));
    let pid = lab.stage.nodes[0].pid();
    match deploy::roll(lab, 0, &release)? {
        None => lab.wrong(format!("a release that is told to {fault} took over")),
        Some(_) if lab.stage.nodes[0].pid() != pid || !lab.stage.nodes[0].is_running() => {
            lab.wrong("the old node does not serve any more".to_owned());
        }
        Some(_) => lab.seen("the old node serves on"),
    }
    lab.stage.go_on(1, 1)
}

fn roll_all(lab: &mut Lab, is_new: bool) -> Done {
    let release = release(lab, is_new, true)?;
    for place in 0..lab.stage.nodes.len() {
        if let Some(why) = deploy::roll(lab, place, &release)? {
            lab.wrong(format!("place {place} was not taken over: {why}"));
        }
    }
    lab.stage.go_on(1, 1)
}

fn presence(lab: &mut Lab) -> Done {
    lab.open_presence()?;
    lab.judge_presence("after both rolls", |_| Ok(()))
}
