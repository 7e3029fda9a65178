//! `fulmar redis reshard`: moves slots between groups while nodes serve, and says how far it is.
//!
//! What moves and in which steps is the mover's business, which has a lease of its own. Here are what the verbs of the operator have in
//! common: the deployment, rights that are asked for first, exit codes, the log. Nothing is undone on the way: a move that fails is
//! gone on with (`resume`), or undone by whoever says so (`abort`).

use std::io::Write as _;
use std::ops::ControlFlow;

use fulmar_control::plan::{Guard, Guarded, Refusal};
use fulmar_operate::rights;
use fulmar_operate::watch::Watcher;
use fulmar_server::redis::map::{Plan, SlotMap};
use fulmar_server::redis::reshard::{Mover, Outlook, Progress, ReshardError};
use fulmar_server::redis::settings::Topology;
use serde_json::{Value, json};

use super::{Deployment, FAILED, NOTHING, REFUSED, Stop, run, show, who};
use crate::args::ReshardVerb;
use crate::client::print;

pub fn reshard(verb: ReshardVerb) -> Result<u8, Stop> {
    let (what, groups, reason, args) = match verb {
        ReshardVerb::Plan { to, deployment } => (What::Plan, to.groups, None, deployment),
        ReshardVerb::Apply { to, how } => (What::Apply, to.groups, how.reason, how.deployment),
        ReshardVerb::Resume { how } => (What::Resume, Vec::new(), how.reason, how.deployment),
        ReshardVerb::Abort { how } => (What::Abort, Vec::new(), how.reason, how.deployment),
    };
    let json = args.json;
    let deployment = Deployment::of(args)?;
    let wanted = if groups.is_empty() { deployment.settings.topology.groups() } else { groups };
    let errand = Errand { what, wanted, reason, who: who(), json };
    let ended = run(errand.run(&deployment))?;
    errand.note(&deployment, &ended.outcome());
    Ok(errand.tell(&ended))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Plan,
    Apply,
    Resume,
    Abort,
}

impl What {
    fn verb(self) -> &'static str {
        match self {
            Self::Plan => "redis reshard plan",
            Self::Apply => "redis reshard apply",
            Self::Resume => "redis reshard resume",
            Self::Abort => "redis reshard abort",
        }
    }
}

/// What is to be done, and for whom.
struct Errand {
    what: What,
    /// The groups at the end, where that is for whoever asks to say; those of the configuration else.
    wanted: Vec<String>,
    reason: Option<String>,
    who: String,
    json: bool,
}

/// How it ended.
enum Ended {
    Planned(Outlook, Guarded),
    Nothing(String),
    /// By a guard, where it is one that other verbs have as well.
    Refused(Option<Guard>, String),
    Done(SlotMap),
    Failed(String),
}

impl Errand {
    async fn run(&self, deployment: &Deployment) -> Ended {
        let is_shown = !self.json;
        let mut watch = move |progress: &Progress| {
            if is_shown {
                let Progress { what, trouble, done, of } = progress;
                let why = trouble.iter().map(|trouble| format!(": {trouble}")).collect::<String>();
                // Whoever does not look any more is told nothing.
                let _: std::io::Result<()> = writeln!(std::io::stderr(), "{done:>5} of {of} slots  {what}{why}");
            }
            ControlFlow::Continue(())
        };
        let mut mover = match Mover::new(&deployment.settings, &mut watch) {
            Ok(mover) => mover,
            Err(error) => return Ended::of(&error, false),
        };
        let ended = self.act(deployment, &mut mover).await;
        ended.unwrap_or_else(|error| Ended::of(&error, mover.has_begun()))
    }

    async fn act(&self, deployment: &Deployment, mover: &mut Mover<'_>) -> Result<Ended, ReshardError> {
        let (aim, groups, outlook) = match self.what {
            What::Plan | What::Apply => {
                let outlook = mover.plan(&self.wanted).await?;
                if outlook.is_nothing() {
                    return Ok(Ended::Nothing(format!("every group has its share already\n{}", counts(&outlook.map))));
                }
                let aim = format!(
                    "{} slots move; the groups then: {}",
                    outlook.plan.moves.len(),
                    outlook.plan.wanted.join(", ")
                );
                let further = outlook.plan.wanted.iter().filter(|name| !outlook.map.groups.contains(name));
                let groups: Vec<String> = outlook.map.groups.iter().chain(further).cloned().collect();
                (aim, groups, Some(outlook))
            }
            What::Resume | What::Abort => {
                let map = mover.map().await?;
                if !map.is_moving() {
                    return Err(ReshardError::Nothing);
                }
                (format!("{} slots were on their way", map.beside.len()), map.groups, None)
            }
        };
        // Before anything is written: a right that is missing half-way would leave slots to nobody.
        let asked = rights(deployment, groups).await;
        if !asked.holds {
            return Ok(Ended::Refused(Some(asked.guard), asked.figures));
        }
        if !self.json && self.what != What::Plan {
            print(&outlook.as_ref().map(shown).unwrap_or_default());
            print(&show::guard(&asked));
        }
        match (self.what, outlook) {
            (What::Plan, Some(outlook)) => return Ok(Ended::Planned(outlook, asked)),
            _ => self.note(deployment, &json!({ "outcome": "begun", "aim": aim })),
        }
        match self.what {
            What::Resume => mover.resume().await?,
            What::Abort => mover.abort().await?,
            What::Plan | What::Apply => mover.apply(&self.wanted).await?,
        }
        Ok(Ended::Done(mover.map().await?))
    }

    /// Says how it ended; the exit code.
    fn tell(&self, ended: &Ended) -> u8 {
        let (code, word, text) = match ended {
            Ended::Planned(outlook, asked) => (0, "planned", shown(outlook) + &show::guard(asked)),
            Ended::Nothing(why) => (NOTHING, "nothing", format!("nothing to do: {}\n", why.trim_end())),
            Ended::Refused(guard, why) => (REFUSED, "refused", refused(*guard, why)),
            Ended::Done(map) => (0, "done", format!("done\n{}", counts(map))),
            Ended::Failed(why) => (
                FAILED,
                "failed",
                format!(
                    "failed: {why}\nit had begun, and nodes serve meanwhile: `fulmar redis reshard resume` does what is left\n"
                ),
            ),
        };
        if self.json {
            let mut object = json!({ "verb": self.what.verb(), "outcome": word, "exit": code });
            match ended {
                Ended::Planned(Outlook { map, plan, nodes }, asked) => {
                    object["map"] = of_map(map);
                    object["moves"] = of_plan(plan).into();
                    object["nodes"] = (*nodes).into();
                    object["guards"] = show::guards_json(std::slice::from_ref(asked));
                }
                Ended::Done(map) => object["map"] = of_map(map),
                Ended::Refused(guard, why) => {
                    object["refusal"] = json!({ "guard": guard.map(Guard::name), "figures": why });
                }
                Ended::Nothing(why) | Ended::Failed(why) => object["why"] = why.as_str().into(),
            }
            print(&format!("{object}\n"));
        } else if code == 0 || code == NOTHING {
            print(&text);
        } else {
            eprint!("{text}");
        }
        code
    }

    /// Writes it down, as the other verbs are; whoever only plans changes nothing.
    fn note(&self, deployment: &Deployment, what: &Value) {
        if self.what == What::Plan {
            return;
        }
        let about = json!({ "group": self.wanted.join(","), "reason": self.reason });
        deployment.note(&self.who, self.what.verb(), &[&about, what]);
    }
}

/// Whether the operator's user may do all of it on whatever server of these groups.
async fn rights(deployment: &Deployment, of: Vec<String>) -> Guarded {
    let mut settings = deployment.settings.clone();
    if let Topology::Sentinel { groups, .. } = &mut settings.topology {
        // A group that comes is in no configuration yet.
        *groups = of;
    }
    let mut watcher = Watcher::new(&settings, &deployment.capacities);
    watcher.look().await;
    rights::look_for_slots(&watcher).await
}

impl Ended {
    fn of(error: &ReshardError, has_begun: bool) -> Self {
        let guard = match error {
            ReshardError::Nothing => return Self::Nothing(error.to_string()),
            _ if has_begun => return Self::Failed(error.to_string()),
            ReshardError::Replicas { .. } => Some(Guard::Replicas),
            ReshardError::Busy(_) => Some(Guard::Lease),
            _ => None,
        };
        Self::Refused(guard, error.to_string())
    }

    fn outcome(&self) -> Value {
        match self {
            Self::Planned(..) => json!({ "outcome": "planned" }),
            Self::Nothing(why) => json!({ "outcome": "nothing", "why": why.lines().next() }),
            Self::Refused(guard, why) => {
                json!({ "outcome": "refused", "guard": guard.map(Guard::name), "error": why })
            }
            Self::Done(map) => {
                let shares: Vec<String> =
                    map.counts().into_iter().map(|(name, slots)| format!("{name} has {slots} slots")).collect();
                json!({ "outcome": "done", "aim": shares.join(", "), "map": of_map(map) })
            }
            Self::Failed(why) => json!({ "outcome": "failed", "error": why }),
        }
    }
}

fn refused(guard: Option<Guard>, why: &str) -> String {
    match guard {
        Some(guard) => format!("{}\n", Refusal { guard, figures: why.to_owned(), guards: Vec::new() }),
        None => format!("refused: {why}\n"),
    }
}

fn shown(outlook: &Outlook) -> String {
    let Outlook { map, plan, nodes } = outlook;
    let mut out = counts(map);
    if plan.moves.is_empty() {
        out.push_str("nothing moves\n");
    }
    for (from, to, count) in plan.counts() {
        out.push_str(&format!("move      {count:>4} slots from {from} to {to}\n"));
    }
    out.push_str(&format!("nodes     {nodes} follow\n"));
    out
}

fn counts(map: &SlotMap) -> String {
    let line = |(name, count): (String, usize)| format!("group     {name:<12} {count:>4} slots\n");
    map.counts().into_iter().map(line).collect()
}

fn of_map(map: &SlotMap) -> Value {
    let groups: Vec<Value> =
        map.counts().into_iter().map(|(name, slots)| json!({ "name": name, "slots": slots })).collect();
    json!({ "version": map.version, "groups": groups, "on_their_way": map.beside.len() })
}

fn of_plan(plan: &Plan) -> Vec<Value> {
    plan.counts().into_iter().map(|(from, to, slots)| json!({ "from": from, "to": to, "slots": slots })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RED-11
    #[test]
    fn a_plan_says_how_many_slots_go_from_where_to_where() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let map = SlotMap::first(&names(&["g1", "g2"]));
        let plan = fulmar_server::redis::map::plan(&map, &names(&["g1", "g2", "g3"])).expect("a plan");
        let moved: u64 = of_plan(&plan).iter().filter_map(|moved| moved["slots"].as_u64()).sum();
        assert_eq!(moved, 341);
        let said = shown(&Outlook { map, plan, nodes: 3 });
        for part in ["g1            512 slots", "from g1 to g3", "nodes     3 follow"] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }

    /// OP-10, OP-23
    #[test]
    fn what_ended_before_anything_was_changed_is_a_refusal_and_what_ended_later_a_failure() {
        let replicas = ReshardError::Replicas { group: "g2".to_owned(), online: 0, known: 1 };
        let Ended::Refused(guard, why) = Ended::of(&replicas, false) else { panic!("a refusal") };
        let said = refused(guard, &why);
        assert!(said.starts_with("refused by the guard replicas: group g2: 0 of 1 replicas are online. "), "{said}");
        assert!(matches!(Ended::of(&replicas, true), Ended::Failed(_)));
        assert!(matches!(Ended::of(&ReshardError::Busy(String::new()), false), Ended::Refused(Some(Guard::Lease), _)));
        assert!(matches!(Ended::of(&ReshardError::UnderWay(7), false), Ended::Refused(None, _)));
        assert!(matches!(Ended::of(&ReshardError::Nothing, false), Ended::Nothing(_)));
    }
}
