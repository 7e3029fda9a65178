//! What the system says of its Redis groups while a day runs: `fulmar redis status --watch`, read as it is written.
//!
//! Whoever watches a deployment sees no more than this. A state that begins or ends is an entry of the timeline; a step can ask
//! when one began.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::timeline::{Timeline, Voice};
use super::verbs::{Call, Verbs};
use crate::project::Failure;

const LOOK: Duration = Duration::from_millis(50);

/// A state of a group that was said.
#[derive(Debug, Clone)]
pub struct Said {
    /// When it was first said.
    pub at: Instant,
    /// Of which group.
    pub group: String,
    /// Its name, such as `resync-loop`.
    pub state: String,
    /// In words.
    pub what: String,
    /// When it was not said any more.
    pub until: Option<Instant>,
}

/// The watcher's process, and what it said.
pub struct Lookout {
    said: Arc<Mutex<Vec<Said>>>,
    is_over: Arc<AtomicBool>,
    call: Call,
    worker: Option<JoinHandle<()>>,
}

impl Lookout {
    /// Begins to watch.
    pub fn start(verbs: &Verbs, timeline: &Timeline) -> Result<Self, Failure> {
        let call = verbs.start(&["redis", "status", "--watch", "--json"])?;
        let (said, is_over) = (Arc::<Mutex<Vec<Said>>>::default(), Arc::new(AtomicBool::new(false)));
        let (file, notes, ended, timeline) =
            (call.out_file(), Arc::clone(&said), Arc::clone(&is_over), timeline.clone());
        let worker = thread::spawn(move || read(&file, &notes, &ended, &timeline));
        Ok(Self { said, is_over, call, worker: Some(worker) })
    }

    /// The first of these states that was said of a group since a moment, and still is or was at that time.
    pub fn first_since(&self, since: Instant, group: &str, states: &[&str]) -> Option<Said> {
        let is_meant = |said: &&Said| said.group == group && states.contains(&said.state.as_str());
        lock(&self.said).iter().find(|said| is_meant(said) && said.until.is_none_or(|until| until > since)).cloned()
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.call.kill();
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

fn lock(said: &Mutex<Vec<Said>>) -> MutexGuard<'_, Vec<Said>> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(file: &PathBuf, said: &Mutex<Vec<Said>>, is_over: &AtomicBool, timeline: &Timeline) {
    let mut read_bytes = 0;
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
        let text = fs::read_to_string(file).unwrap_or_default();
        // The file may be gone already, where the day is ended by the clock.
        while let Some((line, _)) = text.get(read_bytes..).and_then(|rest| rest.split_once('\n')) {
            read_bytes += line.len() + 1;
            if let Ok(seen) = serde_json::from_str(line) {
                note(&states(&seen), &mut lock(said), Instant::now(), timeline);
            }
        }
    }
}

/// Group and state, with words, of all that is not well.
fn states(seen: &Value) -> BTreeMap<(String, String), String> {
    let mut states = BTreeMap::new();
    for group in seen["groups"].as_array().into_iter().flatten() {
        for state in group["states"].as_array().into_iter().flatten().filter(|state| state["weight"] != "fine") {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            states.insert((text(&group["name"]), text(&state["state"])), text(&state["what"]));
        }
    }
    states
}

fn note(now: &BTreeMap<(String, String), String>, said: &mut Vec<Said>, at: Instant, timeline: &Timeline) {
    for open in said.iter_mut().filter(|open| open.until.is_none()) {
        if !now.contains_key(&(open.group.clone(), open.state.clone())) {
            open.until = Some(at);
            timeline.say_at(at, Voice::Alert, format!("{}: no longer {}", open.group, open.state));
        }
    }
    for ((group, state), what) in now {
        let is_open = said.iter().any(|open| open.until.is_none() && open.group == *group && open.state == *state);
        if !is_open {
            timeline.say_at(at, Voice::Alert, format!("{group}: {state}: {what}"));
            let (group, state, what) = (group.clone(), state.clone(), what.clone());
            said.push(Said { at, group, state, what, until: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_is_said_once_when_it_begins_and_once_when_it_ends() {
        let timeline = Timeline::begin();
        let mut said = Vec::new();
        let looped = json!({ "groups": [{ "name": "g1", "states": [
            { "state": "resync-loop", "weight": "grave", "what": "again and again" },
            { "state": "in-sync", "weight": "fine", "what": "" },
        ] }] });
        for seen in [&looped, &looped, &json!({ "groups": [] })] {
            note(&states(seen), &mut said, Instant::now(), &timeline);
        }
        assert_eq!((said.len(), said[0].until.is_some()), (1, true));
        let words: Vec<_> = timeline.entries().into_iter().map(|entry| entry.words).collect();
        assert_eq!(words, ["g1: resync-loop: again and again", "g1: no longer resync-loop"]);
    }
}
