//! Asking all Sentinels, and following whom they name once the server itself has shown role and identity.

use std::time::Duration;

use redis::Value;

use super::complaints::{self, Complaints, Whose};
use super::{Driver, Place, Purpose};
use crate::redis::belief::{self, SentinelView, Verdict};
use crate::redis::link::{Ask, LinkId, Lost};

/// How often a Sentinel is asked.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// One Sentinel.
pub(super) struct Sentinel {
    pub(super) address: String,
    link: Option<LinkId>,
    asked_at: Option<Duration>,
    /// By group.
    views: Vec<Option<SentinelView>>,
    complaints: Complaints,
}

impl Sentinel {
    pub(super) fn add_group(&mut self) {
        self.views.push(None);
        self.asked_at = None;
    }

    /// Logs it unless the same was logged a short while ago.
    fn complain(&mut self, now: Duration, what: &str) {
        if self.complaints.is_due(now, what) {
            tracing::warn!(address = self.address, "{what}");
        }
    }
}

impl Driver {
    pub(super) fn watch(&mut self, addresses: &[String]) {
        for (at, address) in addresses.iter().enumerate() {
            let link = self.open(Place::Sentinel(at), address);
            let (views, complaints) = (vec![None; self.groups.len()], Complaints::default());
            let (address, link) = (address.clone(), Some(link));
            self.sentinels.push(Sentinel { address, link, asked_at: None, views, complaints });
        }
    }

    pub(super) fn sentinel_up(&mut self, at: usize) {
        let this = &mut self.sentinels[at];
        this.asked_at = None;
        let link = this.link;
        // A hint to ask at once; asking stays the truth.
        let _: bool = self.ask(link, Purpose::Ignored, Ask::Subscribe(vec!["+switch-master".to_owned()]));
    }

    pub(super) fn sentinel_down(&mut self, at: usize, why: &str) {
        let now = self.now();
        self.sentinels[at].complain(now, &complaints::no_connection(why, Whose::Sentinel));
    }

    /// A Sentinel says that something has changed: all are asked.
    pub(super) fn hinted(&mut self, _at: usize) {
        for sentinel in &mut self.sentinels {
            sentinel.asked_at = None;
        }
    }

    /// Asks those whose turn it is, and follows whom they name.
    pub(super) fn judge_sentinels(&mut self, now: Duration) {
        for at in 0..self.sentinels.len() {
            let link = self.sentinels[at].link;
            if self.sentinels[at].asked_at.is_some_and(|asked| now < asked + ASK_EVERY) || !self.is_up(link) {
                continue;
            }
            self.sentinels[at].asked_at = Some(now);
            for group in (0..self.groups.len()).filter(|group| !self.groups[*group].is_left).collect::<Vec<_>>() {
                let mut primary = redis::cmd("SENTINEL");
                primary.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.groups[group].name);
                let mut replicas = redis::cmd("SENTINEL");
                replicas.arg("REPLICAS").arg(&self.groups[group].name);
                let _: bool = self.ask(link, Purpose::Primary { sentinel: at, group }, Ask::Command(primary))
                    && self.ask(link, Purpose::Replicas { sentinel: at, group }, Ask::Command(replicas));
            }
        }
        if !self.sentinels.is_empty() {
            for group in 0..self.groups.len() {
                self.judge_group(now, group);
            }
        }
    }

    fn judge_group(&mut self, now: Duration, group: usize) {
        if self.groups[group].is_left {
            return;
        }
        let views: Vec<Option<SentinelView>> =
            self.sentinels.iter().map(|sentinel| sentinel.views[group].clone()).collect();
        let is_following = self.groups[group].address.is_some();
        let Some(named) = belief::named(now, &views, is_following) else {
            if !is_following {
                self.groups[group].complain(now, "the Sentinels do not name a primary yet, or disagree");
            }
            return;
        };
        if self.groups[group].address.as_deref() == Some(named.address.as_str()) {
            self.groups[group].may_claim = named.is_undisputed;
            return;
        }
        self.serve(group, &named.address);
        let view = self.servers.iter().find(|server| server.address == named.address).and_then(|s| s.view.as_ref());
        match belief::judge(now, view, &self.groups[group].identity, named.is_undisputed) {
            Verdict::Follow => self.follow(group, &named.address, named.is_undisputed),
            // Whoever is attached and has the data is not left for a server that has none.
            Verdict::Claim if self.groups[group].attached.is_none() => self.follow(group, &named.address, true),
            Verdict::Claim | Verdict::Unseen => {}
            Verdict::IsReplica => {
                self.groups[group].complain(now, &format!("the Sentinels name {}, which is a replica", named.address));
            }
            Verdict::WrongGroup { identity } => {
                let what = format!(
                    "REFUSED: the Sentinels name {}, which has the data of {identity}; run `SENTINEL REMOVE` and `MONITOR` \
                     with the right address on them",
                    named.address
                );
                self.groups[group].complain(now, &what);
            }
        }
    }

    pub(super) fn saw_primary(&mut self, sentinel: usize, group: usize, outcome: Result<Value, Lost>) {
        let now = self.now();
        let this = &mut self.sentinels[sentinel];
        let parts = match outcome {
            Ok(Value::Array(parts)) => parts,
            other => {
                this.views[group] = None;
                let what = match other {
                    Ok(Value::ServerError(error)) => {
                        complaints::sentinel_refuses(error.code(), error.details().unwrap_or_default())
                    }
                    Ok(_) => format!("this Sentinel watches no group called {}", self.groups[group].name),
                    Err(Lost) => return,
                };
                return this.complain(now, &what);
            }
        };
        let view = &mut this.views[group];
        let text = |at: usize| match parts.get(at) {
            Some(Value::BulkString(text)) => std::str::from_utf8(text).ok(),
            _ => None,
        };
        let (Some(host), Some(port)) = (text(0), text(1)) else { return };
        let primary = address(host, port);
        let replicas = view.take().map(|view| view.replicas).unwrap_or_default();
        *view = Some(SentinelView { primary: primary.clone(), replicas, seen_at: now });
        self.serve(group, &primary);
    }

    pub(super) fn saw_replicas(&mut self, sentinel: usize, group: usize, outcome: Result<Value, Lost>) {
        let Ok(Value::Array(replicas)) = outcome else { return };
        let addresses: Vec<String> = replicas
            .iter()
            .filter_map(|replica| {
                let (host, port) = (field(replica, "ip")?, field(replica, "port")?);
                Some(address(&host, &port))
            })
            .collect();
        for address in &addresses {
            self.serve(group, address);
        }
        if let Some(view) = &mut self.sentinels[sentinel].views[group] {
            view.replicas = addresses;
        }
    }
}

fn address(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A field of what Sentinel says of a server: a map in the newer protocol, a list of names and values in the older.
fn field(of: &Value, name: &str) -> Option<String> {
    let text = |value: &Value| match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok().map(str::to_owned),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    };
    match of {
        Value::Map(pairs) => {
            pairs.iter().find(|(key, _)| text(key).as_deref() == Some(name)).and_then(|(_, v)| text(v))
        }
        Value::Array(list) => {
            list.chunks_exact(2).find(|pair| text(&pair[0]).as_deref() == Some(name)).and_then(|pair| text(&pair[1]))
        }
        _ => None,
    }
}
