//! One who is there all the time and keeps the list that any app keeps: the roster it was told, plus and minus every edge.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fulmar_rig::{RigError, Subscriber};
use serde_json::{Value, json};

use crate::faults::stage::app;

const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);

/// An observer, which is a member itself.
pub struct Observer {
    /// Number of its node.
    pub node: usize,
    /// Number of its channel.
    pub channel: usize,
    /// Its user.
    pub user: String,
    told: Arc<Mutex<Told>>,
    is_over: Arc<AtomicBool>,
}

#[derive(Default)]
struct Told {
    members: BTreeSet<String>,
    violations: Vec<String>,
    ended: Option<String>,
    edges: usize,
}

impl Observer {
    /// Joins and listens.
    pub fn start(addr: SocketAddr, node: usize, channel: usize, name: &str, user: String) -> Result<Self, RigError> {
        let mut connection = Subscriber::connect(addr, &app(), PATIENCE)?;
        let roster = connection.subscribe(name, Some((&user, &json!({}))))?;
        let told = Arc::new(Mutex::new(Told { members: ids(&roster), ..Told::default() }));
        let is_over = Arc::new(AtomicBool::new(false));
        let (writes, asked) = (Arc::clone(&told), Arc::clone(&is_over));
        thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                match connection.event_before(Instant::now() + LOOK) {
                    Ok(Some(event)) => lock(&writes).take(&event),
                    Ok(None) => {}
                    Err(error) => {
                        lock(&writes).ended = Some(error.to_string());
                        return;
                    }
                }
            }
        });
        Ok(Self { node, channel, user, told, is_over })
    }

    /// The list as it has been told, or why it is told nothing any more.
    pub fn members(&self) -> Result<BTreeSet<String>, String> {
        let told = lock(&self.told);
        told.ended.clone().map_or_else(|| Ok(told.members.clone()), Err)
    }

    /// Edges that said nothing new, since this was asked last.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.told).violations)
    }

    /// Edges heard.
    pub fn edges(&self) -> usize {
        lock(&self.told).edges
    }

    /// It leaves, soon.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Told {
    fn take(&mut self, event: &Value) {
        let data = event["data"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let user = data.as_ref().and_then(|data| data["user_id"].as_str()).unwrap_or_default().to_owned();
        let is_new = match event["event"].as_str() {
            Some("pusher_internal:member_added") => self.members.insert(user.clone()),
            Some("pusher_internal:member_removed") => self.members.remove(&user),
            _ => return,
        };
        self.edges += 1;
        if !is_new {
            self.violations.push(format!("{} of {user}, which changes nothing", event["event"]));
        }
    }
}

/// Users in the data of `subscription_succeeded`.
pub fn ids(data: &Value) -> BTreeSet<String> {
    let ids = data["presence"]["ids"].as_array().into_iter().flatten();
    ids.filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
