//! Every script that runs on a group, in one table.
//!
//! A script is made of parts from `scripts/`, the prelude first: it refuses to run on a server that is not the one the node
//! takes it for (`NOIDENTITY`, `WRONGGROUP`, `STALEEPOCH`), and its answer begins with the group's epoch. Keys other than the
//! group's hash are made inside, from what its name begins with: they all lie in one group, and in one slot of Redis Cluster.

use std::sync::OnceLock;

use redis::Cmd;

use super::keys::Keys;

/// What a call tells a group about itself before anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `DEPLOYMENT/GROUP`.
    pub identity: String,
    /// Run id of the server that the connection leads to, whose role was verified.
    pub run: String,
    /// The highest epoch that the node knows of the group.
    pub epoch: u64,
    /// The state of the group's slots that the node knows: scripts that write refuse another (`OTHERSLOTS`).
    pub slots: u64,
}

/// Whether a script runs on a server that is at its `maxmemory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    /// It runs: nobody is refused for a dependency's memory. The first line says so, as Redis 7 and Valkey understand it.
    Runs,
    /// Its first writing command is refused, unless something was written before; reading goes on. So does reading on a
    /// primary that lacks replicas, where scripts of the other kind are refused as a whole.
    Reads,
}

/// A script.
#[derive(Debug)]
pub struct Script {
    /// For people.
    pub name: &'static str,
    when_full: WhenFull,
    parts: &'static [&'static str],
    made: OnceLock<(String, String)>,
}

const PRELUDE: &str = include_str!("scripts/prelude.lua");
const TRIM: &str = include_str!("scripts/trim.lua");
const LOG: &str = concat!(include_str!("scripts/trim.lua"), include_str!("scripts/log.lua"));
const LIVE: &str = include_str!("scripts/live.lua");
const EDGES: &str =
    concat!(include_str!("scripts/leave.lua"), include_str!("scripts/bits.lua"), include_str!("scripts/edges.lua"));
const OWN: &str = include_str!("scripts/own.lua");
const OWNED: &str = include_str!("scripts/owned.lua");
const LEAVE: &str = include_str!("scripts/leave.lua");
const FILLED: &str = include_str!("scripts/filled.lua");
const SETTLED: &str = include_str!("scripts/settled.lua");

/// Changes records and decides edges.
pub static CHANGE: Script =
    Script::new("change", WhenFull::Runs, &[PRELUDE, OWNED, LOG, LIVE, EDGES, OWN, include_str!("scripts/change.lua")]);
/// Makes records what their node says, without edges for subscribers.
pub static MEND: Script =
    Script::new("mend", WhenFull::Runs, &[PRELUDE, OWNED, LIVE, EDGES, OWN, include_str!("scripts/mend.lua")]);
/// A node has compared all its records.
pub static SETTLE: Script = Script::new("settle", WhenFull::Runs, &[PRELUDE, OWN, include_str!("scripts/settle.lua")]);
/// Renews a lease.
pub static BEAT: Script = Script::new("beat", WhenFull::Runs, &[PRELUDE, SETTLED, include_str!("scripts/beat.lua")]);
/// Takes the records of a node away that is gone.
pub static REAP: Script =
    Script::new("reap", WhenFull::Runs, &[PRELUDE, LOG, LIVE, EDGES, include_str!("scripts/reap.lua")]);
/// Leaves edges in the outbox again that a change of primary has lost.
pub static AGAIN: Script =
    Script::new("again", WhenFull::Runs, &[PRELUDE, LEAVE, OWN, include_str!("scripts/again.lua")]);
/// Publishes messages that no record belongs to.
pub static SEND: Script = Script::new("send", WhenFull::Runs, &[PRELUDE, OWNED, LOG, include_str!("scripts/send.lua")]);
/// The roster of a channel.
pub static ROSTER: Script =
    Script::new("roster", WhenFull::Reads, &[PRELUDE, LIVE, SETTLED, include_str!("scripts/roster.lua")]);
/// How things stand on some topics.
pub static TOTALS: Script =
    Script::new("totals", WhenFull::Reads, &[PRELUDE, LIVE, SETTLED, include_str!("scripts/totals.lua")]);
/// Occupied topics of some slots.
pub static LIST: Script = Script::new("list", WhenFull::Reads, &[PRELUDE, LIVE, include_str!("scripts/list.lua")]);
/// The cached event of a channel.
pub static CACHED: Script = Script::new("cached", WhenFull::Reads, &[PRELUDE, include_str!("scripts/cached.lua")]);

/// Removes keys of nodes that are nobody.
pub static SWEEP: Script = Script::new("sweep", WhenFull::Runs, &[PRELUDE, OWNED, include_str!("scripts/sweep.lua")]);

/// Appends and publishes a batch of a lane. Not told to run when full: it trims first, and what has written may go on.
pub static PUBLISH: Script =
    Script::new("publish", WhenFull::Reads, &[PRELUDE, OWNED, LEAVE, TRIM, include_str!("scripts/publish.lua")]);
/// A heartbeat.
pub static PULSE: Script = Script::new("pulse", WhenFull::Reads, &[PRELUDE, LOG, include_str!("scripts/pulse.lua")]);
/// The map, and what the group says of its slots.
pub static SLOTS: Script = Script::new("slots", WhenFull::Reads, &[PRELUDE, include_str!("scripts/slots.lua")]);
/// Gives a group that lost its data its map back, and what it said of its slots.
pub static RECALL: Script =
    Script::new("recall", WhenFull::Runs, &[PRELUDE, FILLED, include_str!("scripts/recall.lua")]);
/// A step of moving slots. Only who moves them loads it.
pub static RESHARD: Script =
    Script::new("reshard", WhenFull::Runs, &[PRELUDE, FILLED, include_str!("scripts/reshard.lua")]);
/// Reads a share of the log.
pub static FILL: Script = Script::new("fill", WhenFull::Reads, &[PRELUDE, include_str!("scripts/fill.lua")]);
/// Takes a server into use. Stands apart: it has no prelude, since it is what makes the prelude's checks come true.
pub static ATTACH: Script = Script::new("attach", WhenFull::Runs, &[include_str!("scripts/attach.lua")]);

/// All of them: but [`ATTACH`]: what a node loads on a new primary.
pub static ALL: [&Script; 17] = [
    &PUBLISH, &PULSE, &FILL, &SLOTS, &RECALL, &CHANGE, &AGAIN, &MEND, &SETTLE, &BEAT, &REAP, &SEND, &ROSTER, &TOTALS,
    &LIST, &CACHED, &SWEEP,
];

impl Script {
    const fn new(name: &'static str, when_full: WhenFull, parts: &'static [&'static str]) -> Self {
        Self { name, when_full, parts, made: OnceLock::new() }
    }

    fn made(&self) -> &(String, String) {
        self.made.get_or_init(|| {
            let first = match self.when_full {
                WhenFull::Runs => "#!lua flags=allow-oom\n",
                WhenFull::Reads => "",
            };
            let text = format!("{first}{}", self.parts.concat());
            let sha = sha1_smol::Sha1::from(&text).digest().to_string();
            (text, sha)
        })
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.made().0
    }

    /// The name it is called by once it is loaded.
    #[must_use]
    pub fn sha(&self) -> &str {
        &self.made().1
    }

    /// A call, to which the script's own arguments are added: they begin with `ARGV[4]`.
    #[must_use]
    pub fn call(&self, keys: &Keys, facts: &Facts) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        let declared = keys.declared();
        cmd.arg(self.sha()).arg(declared.len()).arg(declared);
        cmd.arg(&facts.identity).arg(&facts.run).arg(format!("{} {}", facts.epoch, facts.slots));
        cmd
    }

    /// What makes the server know it: the answer to `NOSCRIPT`. Never part of a pipeline with calls that must not run twice.
    #[must_use]
    pub fn load(&self) -> Cmd {
        let mut cmd = redis::cmd("SCRIPT");
        cmd.arg("LOAD").arg(self.text());
        cmd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RED-5
    #[test]
    fn every_script_first_looks_where_it_is() {
        for script in ALL {
            let text = script.text().strip_prefix("#!lua flags=allow-oom\n").unwrap_or(script.text());
            assert!(text.starts_with(PRELUDE), "{}", script.name);
            assert_eq!(script.sha().len(), 40);
        }
    }

    /// Whoever follows the README gives nodes a user that may do all that scripts do.
    #[test]
    fn every_command_of_every_script_is_one_that_the_readme_gives_nodes() {
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
        let given = readme.lines().find_map(|line| line.strip_prefix("user fulmar on ")).expect("the README has it");
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/redis/scripts");
        let mut looked = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            for command in text.split("call('").skip(1).filter_map(|rest| rest.split('\'').next()) {
                let rule = format!("+{}", command.to_lowercase());
                let is_given = given.split(' ').any(|word| word == rule);
                assert!(is_given || ["+spublish"].contains(&rule.as_str()), "{rule} of {}", path.display());
                looked += 1;
            }
        }
        assert!(looked > 50, "{looked}");
    }
}
