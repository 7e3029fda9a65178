//! Official SDKs beside our own load: a publisher and a subscriber, each a process, and a small ledger of what they noted.
//!
//! They know nothing of the lab but an address. Where Node or the SDKs are not installed they are missing, which is said loudly
//! and is no failure.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use fulmar_rig::{Folder, LATE, Process, RigError, eventually};
use serde_json::{Value, json};

use crate::faults::stage::{app, failure};
use crate::project::{self, Failure};

const SCRIPT: &str = "tests/sdk/node/support/lab.js";
const CHANNEL: &str = "lab-sdk";
const UP_MAX: Duration = Duration::from_secs(15);
const END_MAX: Duration = Duration::from_secs(8);
/// Longest that what is under way may take at the end.
const HEARD_MAX: Duration = Duration::from_secs(3);
/// What was sent so shortly before a connection ended may not have reached it.
const ENDING_MS: i64 = 1_000;

/// The processes.
pub struct Sdk {
    publisher: Process,
    subscribers: Vec<Process>,
    folder: Folder,
}

/// What they came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SdkAccount {
    /// Calls of `trigger`.
    pub published: usize,
    /// Of these, answered 200.
    pub accepted: usize,
    /// Of these, what subscribers who were there received.
    pub delivered: usize,
    /// What they did not.
    pub lost: usize,
    /// Received again on one connection.
    pub doubled: usize,
    /// Received again behind a break: on the new connection, while publications are made up for.
    pub again: usize,
    /// Later than 900 ms.
    pub late: usize,
    /// The longest delivery.
    pub longest_ms: i64,
    /// When that was published, since the first publish.
    pub longest_sent_ms: i64,
    /// Times a subscriber was without connection.
    pub breaks: usize,
}

impl SdkAccount {
    /// In a line.
    pub fn words(&self) -> String {
        let Self { published, accepted, delivered, lost, doubled, again, late, longest_ms, longest_sent_ms, breaks } =
            self;
        let sent_s = longest_sent_ms / 1_000;
        format!(
            "{published} published, {accepted} accepted, {delivered} delivered, {lost} lost, {doubled} doubled, {late} late, longest \
             {longest_ms} ms (of what was published {sent_s} s after the first), {breaks} times without connection, {again} heard again behind that"
        )
    }
}

/// Why there are none; `None` when there can be.
pub fn is_missing() -> Option<String> {
    let modules = project::root().join("tests/sdk/node/node_modules");
    if !project::is_installed("node") {
        return Some("node is not installed".to_owned());
    }
    let has_all = ["pusher", "pusher-js"].iter().all(|name| modules.join(name).is_dir());
    (!has_all).then(|| "the SDKs are not installed (cargo xtask conform pusher-js installs them)".to_owned())
}

impl Sdk {
    /// A publisher at the first address, and a subscriber at each.
    pub fn start(addrs: &[SocketAddr]) -> Result<Self, Failure> {
        let folder = Folder::make("sdk").map_err(failure)?;
        let publisher = launch(&folder, "publisher", addrs[0])?;
        let names = (0..addrs.len()).map(|number| format!("subscriber-{number}"));
        let subscribers =
            names.zip(addrs).map(|(name, addr)| launch(&folder, &name, *addr)).collect::<Result<_, _>>()?;
        let sdk = Self { publisher, subscribers, folder };
        let is_up = || {
            (0..addrs.len())
                .all(|number| sdk.notes(&format!("subscriber-{number}")).iter().any(|note| note["up"].is_i64()))
        };
        eventually("every official SDK is subscribed", UP_MAX, || is_up().then_some(())).map_err(failure)?;
        Ok(sdk)
    }

    /// Lets the publisher end, waits for what is under way, and reckons.
    pub fn end(self) -> Result<SdkAccount, Failure> {
        self.publisher.terminate();
        self.publisher.ended(END_MAX).map_err(failure)?;
        let account = || {
            let names = (0..self.subscribers.len()).map(|number| format!("subscriber-{number}"));
            reckon(&self.notes("publisher"), &names.map(|name| self.notes(&name)).collect::<Vec<_>>())
        };
        // What does not come within this time is lost, and counted.
        let _: Result<(), _> = eventually("all is heard", HEARD_MAX, || (account().lost == 0).then_some(()));
        self.subscribers.iter().for_each(Process::kill);
        Ok(account())
    }

    fn notes(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.file(name)).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn launch(folder: &Folder, name: &str, addr: SocketAddr) -> Result<Process, Failure> {
    let file = File::create(folder.path().join(name)).map_err(|e| failure(RigError::io("writing notes", e)))?;
    let app = app();
    let about = json!({
        "role": name.split('-').next(), "host": addr.ip().to_string(), "port": addr.port(), "channel": CHANNEL,
        "id": app.id.as_str(), "key": app.key.as_str(), "secret": "s1",
    });
    let mut command = Command::new("node");
    command.arg(project::root().join(SCRIPT)).arg(about.to_string());
    command.stdin(Stdio::null()).stdout(file).stderr(Stdio::null());
    Process::start(command, name).map_err(failure)
}

/// Compares what was answered 200 with what each subscriber heard while it was connected.
fn reckon(published: &[Value], heard: &[Vec<Value>]) -> SdkAccount {
    let mut account = SdkAccount { published: published.len(), ..SdkAccount::default() };
    let accepted: Vec<_> = published.iter().filter(|note| note["status"] == 200).collect();
    account.accepted = accepted.len();
    let first = accepted.first().and_then(|note| note["at"].as_i64()).unwrap_or(0);
    for notes in heard {
        // When each number was heard, and on which connection.
        let mut times: HashMap<i64, Vec<(usize, i64)>> = HashMap::new();
        let mut connection = 0;
        for note in notes {
            connection += usize::from(note["up"].is_i64());
            if let (Some(number), Some(at)) = (note["got"].as_i64(), note["at"].as_i64()) {
                let heard = times.entry(number).or_default();
                let is_same = heard.iter().any(|(other, _)| *other == connection);
                account.doubled += usize::from(is_same);
                account.again += usize::from(!is_same && !heard.is_empty());
                heard.push((connection, at));
            }
        }
        account.breaks += notes.iter().filter(|note| note["down"].is_i64()).count();
        for note in &accepted {
            let (number, sent) = (note["sent"].as_i64().unwrap_or(-1), note["at"].as_i64().unwrap_or(0));
            match times.get(&number).and_then(|heard| heard.first()) {
                Some((_, at)) => {
                    account.delivered += 1;
                    if at - sent > account.longest_ms {
                        (account.longest_ms, account.longest_sent_ms) = (at - sent, sent - first);
                    }
                    account.late += usize::from(at - sent > i64::try_from(LATE.as_millis()).unwrap_or(i64::MAX));
                }
                None => account.lost += usize::from(was_there(notes, sent)),
            }
        }
    }
    account
}

/// Whether this subscriber was connected at a moment, and for a while after it.
fn was_there(notes: &[Value], at: i64) -> bool {
    let last =
        |what: &str, until: i64| notes.iter().filter_map(|note| note[what].as_i64()).filter(|t| *t <= until).max();
    let up = last("up", at);
    up.is_some() && last("down", at + ENDING_MS).is_none_or(|down| Some(down) < up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(numbers: &[i64]) -> Vec<Value> {
        numbers.iter().map(|n| json!({ "sent": n, "at": n * 1_000, "status": 200 })).collect()
    }

    #[test]
    fn what_a_connected_subscriber_did_not_hear_is_lost_and_what_passed_a_break_is_not() {
        let heard = vec![
            json!({ "up": 500 }),
            json!({ "got": 1, "at": 1_020 }),
            json!({ "got": 1, "at": 1_030 }),
            json!({ "got": 2, "at": 3_000 }),
            json!({ "down": 4_500 }),
            json!({ "up": 6_500 }),
            json!({ "got": 2, "at": 6_600 }),
        ];
        let account = reckon(&published(&[1, 2, 3, 4, 5, 7]), &[heard]);
        assert_eq!((account.accepted, account.delivered, account.doubled, account.late), (6, 2, 1, 1));
        assert_eq!((account.lost, account.breaks, account.longest_ms), (2, 1, 1_000), "numbers 3 and 7");
        assert_eq!(account.again, 1);
    }
}
