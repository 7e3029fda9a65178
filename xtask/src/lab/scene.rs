//! A running day: the stage of `faults` with its load, and beside it timeline, watch, official SDKs and the ledger of presence.
//!
//! It knows how to do a step and how to reckon; what a step does stands in the day's file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fulmar_rig::{Folder, Node, Size};

use super::account::{self, Account};
use super::day::{Day, Step};
use super::lines::{Lines, Way};
use super::lookout::Lookout;
use super::sdk::{self, Sdk};
use super::timeline::{Timeline, Voice};
use super::verbs::{REFUSED, Verbs};
use super::watch::Watch;
use crate::faults::presence::{RIGHT_MAX, Scene as Presence};
use crate::faults::stage::{self, Done, Stage, failure};
use crate::project::Failure;

/// How much load a day has: moderate, since nodes, servers and load share a small machine.
const SIZE: Size = Size { channels: 40, subscribers: 80, publishes_per_s: 300 };
/// What is wrong must be said within this.
const ALERT_MAX: Duration = Duration::from_secs(10);
/// Between two looks at who is there: each asks every node for every channel, on a machine that has its nodes to run beside.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// After this no further step begins: the day is over in time, whatever happens.
const STEPS_MAX: Duration = Duration::from_secs(94);

/// Everything of a running day.
pub struct Lab {
    /// Servers, nodes, load, chance.
    pub stage: Stage,
    /// What happened when.
    pub timeline: Timeline,
    /// Eyes on nodes and servers.
    pub watch: Watch,
    /// The binary's verbs, called as an operator calls them.
    pub verbs: Verbs,
    /// What the system says of its groups, where the binary can.
    pub lookout: Option<Lookout>,
    /// What servers' hosts may send.
    pub lines: Lines,
    /// Official SDKs, where they are installed.
    pub sdk: Option<Sdk>,
    /// The ledger of presence, where the day has one open.
    pub presence: Option<Presence>,
    /// Nodes that are no longer part of the deployment, and those that never were.
    pub retired: Vec<Node>,
    /// Servers, wires and programs of the day's own.
    pub own: super::d1::Own,
    gaps: Vec<String>,
    is_skipped: bool,
    looks: Vec<String>,
    folder: Folder,
    ledger_began: Duration,
    busy_before: String,
    said_of_lines: Option<String>,
}

impl Lab {
    /// Servers, without nodes and load.
    pub fn open(day: &Day, program: &Path, seed: u64, way: &Way) -> Result<Self, Failure> {
        let timeline = Timeline::begin();
        let lines = Lines::lay(way)?;
        let setting = if day.caps_lines() { way.setting() } else { day.setting };
        let mut stage = Stage::set(setting, program, seed, true)?;
        stage.size = SIZE;
        let folder = Folder::make("lab").map_err(failure)?;
        let config = folder.path().join("fulmar.toml");
        fs::write(&config, stage.config())
            .map_err(|error| Failure(format!("writing {}: {error}", config.display())))?;
        let watch = Watch::start(&timeline);
        timeline.say(Voice::Seen, "Redis groups and Sentinels are up");
        let said_of_lines = day.caps_lines().then(|| way.words());
        said_of_lines.iter().for_each(|words| timeline.say(Voice::Seen, words.clone()));
        Ok(Self {
            verbs: Verbs::of(program, &config, &timeline),
            stage,
            timeline,
            watch,
            lookout: None,
            lines,
            sdk: None,
            presence: None,
            retired: Vec::new(),
            own: super::d1::Own::default(),
            gaps: Vec::new(),
            is_skipped: false,
            looks: Vec::new(),
            folder,
            ledger_began: Duration::ZERO,
            busy_before: load_average(),
            said_of_lines,
        })
    }

    /// Three nodes, official SDKs and our own load.
    pub fn begin(&mut self) -> Done {
        self.stage.start_nodes(fulmar_rig::Ready::ForTraffic)?;
        self.begin_load_at(&self.stage.addrs())
    }

    /// Official SDKs and our own load, with nodes that are reached at these addresses.
    pub fn begin_load_at(&mut self, addrs: &[std::net::SocketAddr]) -> Done {
        self.watch.add_stage(&self.stage);
        self.begin_lookout()?;
        match sdk::is_missing() {
            Some(why) => {
                eprintln!("!! SKIPPED: no official SDK takes part: {why}");
                self.timeline.say(Voice::Gap, format!("no official SDK takes part: {why}"));
            }
            None => self.sdk = Some(Sdk::start(addrs)?),
        }
        self.ledger_began = self.timeline.now();
        self.stage.begin_load_at(addrs)?;
        // The load's own beginning is what the ledger counts from.
        let since = Duration::from_nanos(self.stage.load().now_ns());
        self.ledger_began = self.timeline.now().saturating_sub(since);
        let Size { channels, subscribers, publishes_per_s } = self.stage.size;
        let words = format!("{publishes_per_s} publishes a second on {channels} channels, {subscribers} subscribers");
        self.timeline.say(Voice::Seen, words);
        self.stage.go_on(2, 2)
    }

    /// The system begins to say how its groups are.
    fn begin_lookout(&mut self) -> Done {
        let config = self.folder.path().join("fulmar.toml");
        // Verbs write down what they did, as on an operator's machine.
        let storage = self.folder.path().join("operator");
        let text = format!("{}[storage]\npath = \"{}\"\n", self.stage.config(), storage.display());
        let written = fs::write(&config, text);
        written.map_err(|error| Failure(format!("writing {}: {error}", config.display())))?;
        if self.verbs.has(&["redis", "status"]) {
            self.lookout = Some(Lookout::start(&self.verbs, &self.timeline)?);
        }
        Ok(())
    }

    /// Within ten seconds of `since` the system must say one of these states of a group.
    pub fn expect_alert(&mut self, since: Instant, group: &str, states: &[&str]) -> Done {
        let Some(lookout) = &self.lookout else {
            self.gap(format!(
                "an alert ({}) for {group}: this binary has no `fulmar redis status`",
                states.join(" or ")
            ));
            return Ok(());
        };
        loop {
            if let Some(said) = lookout.first_since(since, group, states) {
                let after = said.at.saturating_duration_since(since).as_secs_f64();
                let words =
                    format!("{after:.1} s after it began the system says of {group}: {}: {}", said.state, said.what);
                self.seen(words);
                return Ok(());
            }
            if since.elapsed() > ALERT_MAX {
                let words = format!("within {ALERT_MAX:?} the system did not say of {group}: {}", states.join(" or "));
                self.wrong(words);
                return Ok(());
            }
            self.stage.wait(Duration::from_millis(50))?;
        }
    }

    /// A verb must be refused by one of these guards, which names itself and its figures.
    pub fn must_refuse(&mut self, words: &[&str], guards: &[&str]) -> Done {
        let answer = self.verbs.call(words)?;
        let names = |guard: &&&str| answer.said.contains(&format!("refused by the guard {guard}"));
        let by = guards.iter().find(names);
        if answer.code != REFUSED || by.is_none() {
            let (words, code, guards) = (words.join(" "), answer.code, guards.join(" or "));
            self.wrong(format!("`fulmar {words}` ended with {code} and not with {REFUSED} by the guard {guards}"));
        }
        Ok(())
    }

    /// Somebody does something to the deployment.
    pub fn deed(&self, words: impl Into<String>) {
        self.timeline.say(Voice::Deed, words);
    }

    /// The lab sees something.
    pub fn seen(&self, words: impl Into<String>) {
        self.timeline.say(Voice::Seen, words);
    }

    /// A promise is not kept.
    pub fn wrong(&mut self, words: impl Into<String>) {
        self.stage.wrong(words.into());
    }

    /// This part of the step cannot be done with this release.
    pub fn gap(&mut self, words: impl Into<String>) {
        let words = words.into();
        self.timeline.say(Voice::Gap, words.clone());
        self.gaps.push(words);
    }

    /// Nothing of the step can be done with this release.
    pub fn skip(&mut self, words: impl Into<String>) {
        self.gap(words);
        self.is_skipped = true;
    }

    /// Opens the ledger of presence: members begin to be there.
    pub fn open_presence(&mut self) -> Done {
        let mut presence = Presence::open(&self.stage)?;
        presence.look_every = LOOK_EVERY;
        presence.churn(&mut self.stage, Duration::from_secs(1))?;
        self.presence = Some(presence);
        Ok(())
    }

    /// Compares who is there with every answer, after a wound.
    pub fn judge_presence(&mut self, what: &str, wound: impl FnOnce(&Stage) -> Done) -> Done {
        let Some(mut presence) = self.presence.take() else { return Ok(()) };
        let judged = presence.judge(&mut self.stage, what, RIGHT_MAX, |_, stage| wound(stage));
        self.presence = Some(presence);
        for (at, words) in self.stage.notes.drain(..) {
            self.timeline.say_at(at, Voice::Seen, format!("presence: {words}"));
            self.looks.push(words);
        }
        judged
    }

    /// Closes the ledger of presence: its members leave.
    pub fn close_presence(&mut self) -> Done {
        self.presence.take().map_or(Ok(()), |presence| presence.close(&mut self.stage))
    }

    /// All steps, and the reckoning.
    pub fn play(mut self, day: &'static Day, seed: u64) -> Account {
        let begun = self.timeline.clone();
        let mut done = Vec::new();
        let mut misses = Vec::new();
        match (day.begin)(&mut self) {
            Ok(()) => self.steps(day, &mut done),
            Err(Failure(why)) => misses.push(format!("the day did not begin: {why}")),
        }
        if let Err(Failure(why)) = self.close_presence() {
            misses.push(why);
        }
        self.reckon(day, seed, done, misses, &begun)
    }

    fn steps(&mut self, day: &'static Day, done: &mut Vec<account::Done>) {
        for step in day.steps {
            let is_late = self.timeline.now() > STEPS_MAX;
            let from_ns = self.stage.load().now_ns();
            println!("  -- {}", step.name);
            if !step.story.is_empty() {
                self.timeline.say(Voice::Story, step.story);
            }
            let outcome = if is_late { Err(Failure("no time was left for it".to_owned())) } else { self.step(step) };
            let mut wrongs: Vec<String> = self.stage.wrongs.drain(..).collect();
            let is_over = outcome.is_err();
            wrongs.extend(outcome.err().map(|Failure(why)| why));
            for wrong in &wrongs {
                self.timeline.say(Voice::Miss, wrong.clone());
            }
            let span_ns = [from_ns, self.stage.load().now_ns()];
            let (gaps, is_skipped) = (std::mem::take(&mut self.gaps), std::mem::take(&mut self.is_skipped));
            done.push(account::Done { step, span_ns, wrongs, gaps, is_skipped });
            if is_over && crate::faults::interrupt::is_interrupted() {
                return;
            }
        }
    }

    fn step(&mut self, step: &Step) -> Done {
        let done = (step.deed)(self);
        for (at, words) in self.stage.notes.drain(..) {
            self.timeline.say_at(at, Voice::Seen, words);
        }
        self.watch.add_stage(&self.stage);
        done
    }

    fn reckon(
        mut self,
        day: &'static Day,
        seed: u64,
        mut done: Vec<account::Done>,
        mut misses: Vec<String>,
        begun: &Timeline,
    ) -> Account {
        let sdk = self.sdk.take().and_then(|sdk| sdk.end().map_err(|Failure(why)| misses.push(why)).ok());
        let may_hold = day.steps.iter().any(|step| step.allowed.holds);
        let is_wrong = |account: &&sdk::SdkAccount| {
            account.lost + account.doubled > 0 || account.accepted == 0 || (account.late > 0 && !may_hold)
        };
        if let Some(account) = sdk.as_ref().filter(is_wrong) {
            misses.push(format!("official SDKs: {}", account.words()));
        }
        let ledger = self.stage.load.take().map(fulmar_rig::Load::end).transpose();
        let ledger = ledger.unwrap_or_else(|error| {
            misses.push(error.to_string());
            None
        });
        let ledger = ledger.unwrap_or_default();
        // What comes behind the last step belongs to it.
        if let Some(last) = done.last_mut() {
            last.span_ns[1] = u64::MAX;
        }
        let whole = ledger.verdict(&[]);
        if whole.strange > 0 {
            misses.push(format!("{} strange receipts", whole.strange));
        }
        for node in self.stage.nodes.iter().chain(&self.retired).filter(|node| node.log().contains("panicked")) {
            misses.push(format!("a node at port {} panicked", node.port()));
        }
        let steps = done.into_iter().map(|done| account::of_step(done, &ledger, self.ledger_began)).collect();
        let mut account = Account {
            day,
            seed,
            steps,
            whole,
            presence: std::mem::take(&mut self.looks),
            lines: self.said_of_lines.take(),
            machine: format!("{} before, {} after", self.busy_before, load_average()),
            sdk,
            misses,
            entries: Vec::new(),
            trace: super::trace::Trace::default(),
            seconds: account::seconds(&ledger),
            ledger_began: self.ledger_began,
            took: Duration::ZERO,
        };
        if !account.all_misses().is_empty() {
            self.keep_logs(day, seed, begun);
        }
        let Self { stage, watch, timeline, .. } = self;
        account.trace = watch.end();
        account.entries = timeline.entries();
        let ending = Instant::now();
        drop(stage);
        account.took = begun.now();
        println!("  ended within {} ms", ending.elapsed().as_millis());
        account
    }

    fn keep_logs(&self, day: &Day, seed: u64, timeline: &Timeline) {
        let folder: PathBuf = crate::project::root().join(format!("target/lab/{}-{seed}-logs", day.name));
        let kept = self.stage.keep_logs(&folder).and_then(|()| {
            for (number, node) in self.retired.iter().enumerate() {
                fs::write(folder.join(format!("retired-{number}.log")), node.log())?;
            }
            Ok(())
        });
        if kept.is_ok() {
            timeline.say(Voice::Seen, format!("what they wrote is in {}", folder.display()));
        }
    }
}

/// How busy the machine is, with everything that runs on it.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// An error of a rig, in a deed.
pub fn rig(error: fulmar_rig::RigError) -> Failure {
    stage::failure(error)
}
