//! The verbs that change something: look, plan or refuse, take the lease, look again, do, say how it ended, write it down.

use std::collections::BTreeSet;
use std::net::{ToSocketAddrs as _, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fulmar_control::failover::plan_failover;
use fulmar_control::migrate::{WATCHED, plan_add_replica, plan_replace};
use fulmar_control::plan::{Decision, Guard, Guarded, Plan, Refusal};
use fulmar_control::reconcile::{plan_pre_stop, plan_repair};
use fulmar_operate::execute::{Executor, Report};
use fulmar_operate::lease::{Lease, LeaseError};
use fulmar_operate::rights;
use fulmar_operate::watch::{LOOK_EVERY, Watcher};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::{Deployment, FAILED, NOTHING, REFUSED, Stop, USAGE, run, show, who};
use crate::args::ActArgs;
use crate::client::print;

/// What is to be brought about.
pub enum Aim {
    Failover { group: String, to: Option<String> },
    PreStop { process: Option<String> },
    AddReplica { group: String, server: String },
    Replace { group: String, old: String, new: String },
    Repair { group: String, primary: Option<String> },
}

/// What the verb is called, what it is about, and how it is to be done.
struct Errand {
    verb: &'static str,
    group: String,
    /// The process that is to be stopped, where that is the verb.
    process: String,
    overridden: Vec<Guard>,
    reason: Option<String>,
    who: String,
    dry_run: bool,
    json: bool,
}

/// How it ended.
enum Ended {
    Planned(Plan),
    Nothing(String),
    Refused(Refusal),
    Done(Plan, Report),
}

pub fn act(args: ActArgs, verb: &'static str, aim: Aim) -> Result<u8, Stop> {
    let overridden = guards(&args.overridden)?;
    let json = args.deployment.json;
    let deployment = Deployment::of(args.deployment)?;
    let mut watcher = deployment.watcher()?;
    run(async {
        watcher.look().await;
        let (group, process) = place(&aim, &mut watcher).await?;
        let (reason, dry_run) = (args.reason, args.dry_run);
        let errand = Errand { verb, group, process, overridden, reason, who: who(), dry_run, json };
        let ended = errand.run(&deployment, &mut watcher, &aim).await?;
        errand.note(&deployment, &outcome(&ended));
        Ok(errand.tell(&ended))
    })?
}

fn guards(names: &[String]) -> Result<Vec<Guard>, Stop> {
    let one = |name: &String| {
        let guard = Guard::parse(name);
        let may: Vec<&str> = Guard::ALL.into_iter().filter(|g| g.may_be_overridden()).map(Guard::name).collect();
        guard.filter(|guard| guard.may_be_overridden()).ok_or_else(|| {
            let what = if guard.is_some() { "cannot be overridden" } else { "is no guard" };
            Stop(USAGE, format!("{name} {what}; these can be: {}", may.join(", ")))
        })
    };
    names.iter().map(one).collect()
}

/// The group it is about, and the process where it is about one.
async fn place(aim: &Aim, watcher: &mut Watcher) -> Result<(String, String), Stop> {
    let known: Vec<String> = watcher.groups().iter().map(|group| group.name.clone()).collect();
    let group = match aim {
        Aim::PreStop { process } => return stopping(process.as_deref(), watcher).await,
        Aim::Failover { group, .. }
        | Aim::AddReplica { group, .. }
        | Aim::Replace { group, .. }
        | Aim::Repair { group, .. } => group,
    };
    if !known.contains(group) {
        return Err(Stop(USAGE, format!("no group is called {group}; these are configured: {}", known.join(", "))));
    }
    match aim {
        Aim::AddReplica { server: further, .. }
        | Aim::Replace { new: further, .. }
        | Aim::Repair { primary: Some(further), .. } => watcher.add(group, further),
        _ => {}
    }
    Ok((group.clone(), String::new()))
}

/// The process that is to be stopped, and its group.
async fn stopping(named: Option<&str>, watcher: &mut Watcher) -> Result<(String, String), Stop> {
    let all =
        || watcher.groups().iter().flat_map(|group| group.servers.iter().map(|server| (&group.name, &server.address)));
    let found: Vec<(String, String)> = match named {
        Some(process) => all().filter(|(_, address)| *address == process).map(owned).collect(),
        None => all().filter(|(_, address)| is_local(address)).map(owned).collect(),
    };
    match (found.as_slice(), named) {
        ([one], _) => Ok(one.clone()),
        ([], Some(process)) => of_nobody(process, watcher).await,
        ([], None) => {
            let servers: BTreeSet<&str> = all().map(|(_, address)| address.as_str()).collect();
            let servers: Vec<&str> = servers.into_iter().collect();
            let why = format!(
                "no server of the deployment is on this machine; name the process with --process (seen: {})",
                servers.join(", ")
            );
            Err(Stop(USAGE, why))
        }
        (several, _) => {
            let names: Vec<&str> = several.iter().map(|(_, address)| address.as_str()).collect();
            let why = format!("{} are all on this machine: name one with --process", names.join(", "));
            Err(Stop(USAGE, why))
        }
    }
}

fn owned((group, address): (&String, &String)) -> (String, String) {
    (group.clone(), address.clone())
}

/// A process that nobody names: it may still have a group's data, and then it is that group's business. One that is not configured here
/// (it was added later) cannot be judged.
async fn of_nobody(process: &str, watcher: &mut Watcher) -> Result<(String, String), Stop> {
    let groups: Vec<String> = watcher.groups().iter().map(|group| group.name.clone()).collect();
    for group in &groups {
        watcher.look_at(group, &[process.to_owned()], false).await;
    }
    let now = watcher.now();
    for group in watcher.groups() {
        let server = group.server(process);
        let Some(state) = server.and_then(|server| server.fresh(now)) else {
            let why = server.and_then(|server| server.trouble.clone()).unwrap_or_default();
            return Err(Stop(FAILED, format!("{process} is no server that anybody names, and does not answer: {why}")));
        };
        if state.identity.as_ref() == Some(&group.identity) {
            return Ok((group.name.clone(), process.to_owned()));
        }
    }
    let unsaid = |error| {
        Stop(FAILED, format!("{process} is no server that anybody names, and does not say what it holds: {error}"))
    };
    Err(match watcher.holds(process).await.map_err(unsaid)? {
        (Some(of), _) => Stop(
            FAILED,
            format!(
                "{process} has data of {of}, which is none of the configured groups ({}): name its group in backbone.groups, so \
                 that it can be said whether anything is lost without it",
                groups.join(", ")
            ),
        ),
        (None, 0) => Stop(0, format!("{process} is in no group and holds nothing: it may be stopped")),
        (None, keys) => Stop(
            FAILED,
            format!(
                "{process} is in no group of this deployment and holds {keys} keys: whether they are wanted is not known here"
            ),
        ),
    })
}

/// Whether an address is one of this machine: only such a one can be bound.
fn is_local(address: &str) -> bool {
    let Ok(mut found) = address.to_socket_addrs() else { return false };
    found.any(|address| UdpSocket::bind((address.ip(), 0)).is_ok())
}

impl Errand {
    async fn run(&self, deployment: &Deployment, watcher: &mut Watcher, aim: &Aim) -> Result<Ended, Stop> {
        self.watch(watcher, aim).await;
        let plan = match self.decide(watcher, aim) {
            Decision::Go(plan) => plan,
            Decision::Nothing(why) => return Ok(Ended::Nothing(why)),
            Decision::Refused(refusal) => return Ok(Ended::Refused(refusal)),
        };
        // Before anything is written: a right that is missing half-way would leave writes held for nothing.
        let rights = self.rights(watcher, &plan).await;
        let plan = match Self::with(plan, &rights) {
            Ok(plan) => plan,
            Err(refusal) => return Ok(Ended::Refused(refusal)),
        };
        if self.dry_run {
            return Ok(Ended::Planned(plan));
        }
        let keys = deployment.settings.keys(&self.group);
        let lease = match Lease::take(watcher.doors(), &plan.primary, &keys, &self.who).await {
            Ok(lease) => Some(lease),
            Err(_) if self.overridden.contains(&Guard::Lease) => None,
            Err(error @ (LeaseError::Held(_) | LeaseError::Lost(_))) => {
                return Ok(Ended::Refused(Refusal {
                    guard: Guard::Lease,
                    figures: error.to_string(),
                    guards: plan.guards,
                }));
            }
            Err(error @ LeaseError::Unknown(_)) => {
                let figures = format!("{error}; --override lease goes without");
                return Ok(Ended::Refused(Refusal { guard: Guard::Lease, figures, guards: plan.guards }));
            }
        };
        // What held when it was planned must hold now that nobody else is at it.
        watcher.look_group(&self.group).await;
        let plan = match self.decide(watcher, aim) {
            Decision::Go(mut plan) => {
                plan.guards.push(rights);
                plan
            }
            other => {
                if let Some(lease) = lease {
                    lease.release(watcher.doors(), &plan.primary).await;
                }
                return Ok(match other {
                    Decision::Nothing(why) => Ended::Nothing(why),
                    Decision::Refused(refusal) => Ended::Refused(refusal),
                    Decision::Go(plan) => Ended::Planned(plan),
                });
            }
        };
        if !self.json {
            print(&show::plan(&plan));
        }
        let fence = lease.as_ref().map(|lease| lease.fence().to_owned());
        self.note(
            deployment,
            &json!({ "outcome": "begun", "aim": plan.aim, "fence": fence, "guards": overridden(&plan) }),
        );
        let is_interrupted = Arc::new(AtomicBool::new(false));
        interruptible(is_interrupted.clone())?;
        let mut tell = show::progress;
        let executor = Executor::new(watcher, &self.group, (lease, &plan.primary), &is_interrupted, &mut tell);
        let report = executor.run(&plan).await;
        Ok(Ended::Done(plan, report))
    }

    /// Whether the operator's user may do all that the plan asks for.
    async fn rights(&self, watcher: &Watcher, plan: &Plan) -> Guarded {
        let asked = rights::look(watcher, &self.group, plan).await;
        let is_overridden = !asked.holds && self.overridden.contains(&Guard::Rights);
        Guarded { is_overridden, ..asked }
    }

    fn with(mut plan: Plan, asked: &Guarded) -> Result<Plan, Refusal> {
        plan.guards.push(asked.clone());
        if asked.holds || asked.is_overridden {
            return Ok(plan);
        }
        Err(Refusal { guard: asked.guard, figures: asked.figures.clone(), guards: plan.guards })
    }

    /// Rates and repetitions are only known of what was watched for a while.
    async fn watch(&self, watcher: &mut Watcher, aim: &Aim) {
        let needed = match aim {
            Aim::Repair { .. } => Duration::ZERO,
            _ => WATCHED + LOOK_EVERY,
        };
        if !needed.is_zero() {
            eprintln!("watching {} for {} s", self.group, needed.as_secs());
        }
        let begun = watcher.now();
        loop {
            watcher.look_group(&self.group).await;
            if watcher.now() >= begun + needed {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn decide(&self, watcher: &Watcher, aim: &Aim) -> Decision {
        let now = watcher.now();
        let seen = watcher.group(&self.group).expect("the group was found among those that are watched");
        let overridden = self.overridden.as_slice();
        match aim {
            Aim::Failover { to, .. } => plan_failover(now, seen, to.as_deref(), overridden),
            Aim::PreStop { .. } => plan_pre_stop(now, seen, &self.process, overridden),
            Aim::AddReplica { server, .. } => plan_add_replica(now, seen, server, overridden),
            Aim::Replace { old, new, .. } => plan_replace(now, seen, old, new, overridden),
            Aim::Repair { primary, .. } => plan_repair(now, seen, primary.as_deref(), overridden),
        }
    }

    /// Says how it ended; the exit code.
    fn tell(&self, ended: &Ended) -> u8 {
        let (code, word, text) = match ended {
            Ended::Planned(plan) => (0, "planned", show::plan(plan)),
            Ended::Nothing(why) => (NOTHING, "nothing", format!("nothing to do: {why}\n")),
            Ended::Refused(refusal) => (REFUSED, "refused", show::refusal(refusal)),
            Ended::Done(plan, report) if report.failed.is_none() => (0, "done", show::report(plan, report)),
            Ended::Done(plan, report) => (FAILED, "failed", show::report(plan, report)),
        };
        if self.json {
            let mut object = json!({ "verb": self.verb, "group": self.group, "outcome": word, "exit": code });
            match ended {
                Ended::Planned(plan) => object["plan"] = show::plan_json(plan),
                Ended::Nothing(why) => object["why"] = why.as_str().into(),
                Ended::Refused(refusal) => object["refusal"] = show::refusal_json(refusal),
                Ended::Done(plan, report) => {
                    object["plan"] = show::plan_json(plan);
                    object["report"] = show::report_json(report);
                    object["afterwards"] = plan.afterwards.as_str().into();
                }
            }
            print(&format!("{object}\n"));
        } else if code == 0 || matches!(ended, Ended::Nothing(_)) {
            print(&text);
        } else {
            eprint!("{text}");
        }
        code
    }

    /// Writes it down.
    fn note(&self, deployment: &Deployment, what: &Value) {
        if self.dry_run {
            return;
        }
        let about = json!({
            "group": self.group, "overridden": self.overridden.iter().map(|guard| guard.name()).collect::<Vec<_>>(),
            "reason": self.reason,
        });
        deployment.note(&self.who, self.verb, &[&about, what]);
    }
}

fn overridden(plan: &Plan) -> Value {
    let overridden: Vec<_> = plan.guards.iter().filter(|asked| asked.is_overridden).cloned().collect();
    show::guards_json(&overridden)
}

fn outcome(ended: &Ended) -> Value {
    match ended {
        Ended::Planned(plan) => json!({ "outcome": "planned", "aim": plan.aim }),
        Ended::Nothing(why) => json!({ "outcome": "nothing", "why": why }),
        Ended::Refused(refusal) => {
            json!({ "outcome": "refused", "guard": refusal.guard.name(), "error": refusal.figures })
        }
        Ended::Done(plan, report) => match &report.failed {
            None => json!({ "outcome": "done", "aim": plan.aim, "held_ms": report.held.map(super::facts::millis) }),
            Some(failed) => {
                json!({ "outcome": "failed", "aim": plan.aim, "error": failed.why, "left": failed.left.as_ref().err() })
            }
        },
    }
}

/// Whoever is told to stop undoes first what it has begun.
fn interruptible(is_interrupted: Arc<AtomicBool>) -> Result<(), Stop> {
    let none = |error: std::io::Error| Stop(FAILED, format!("the system gives no signals: {error}"));
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signals = signal(kind).map_err(none)?;
        let is_interrupted = is_interrupted.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                is_interrupted.store(true, Ordering::Relaxed);
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OP-13
    #[test]
    fn a_server_is_on_this_machine_when_its_address_can_be_bound() {
        assert!(is_local("127.0.0.1:6379") && is_local("[::1]:6379") == UdpSocket::bind("[::1]:0").is_ok());
        // Addresses that are kept for documentation are nobody's.
        assert!(!is_local("192.0.2.7:6379") && !is_local("nowhere") && !is_local("127.0.0.1"));
    }

    /// OP-10
    #[test]
    fn a_guard_is_overridden_by_its_name_and_two_never_are() {
        let named = |names: &[&str]| guards(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).ok();
        assert_eq!(named(&["lag", "buffers"]), Some(vec![Guard::Lag, Guard::Buffers]));
        for name in ["identity", "sight", "Lag", ""] {
            assert_eq!(named(&["lag", name]), None, "{name}");
        }
    }
}
