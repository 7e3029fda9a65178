//! `fulmar redis reshard`: moves slots between groups while nodes serve, and says how far it is.
//!
//! Exit codes beside the usual: 3 when it is refused because of how things are, and nothing was changed.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::process::ExitCode;

use fulmar_server::config::{Backbone, EXIT_CONFIG, Sources, load};
use fulmar_server::redis::map::{Plan, SlotMap};
use fulmar_server::redis::reshard::{Mover, Outlook, Progress, ReshardError};
use fulmar_server::redis::settings::Settings;
use serde_json::{Value, json};

use crate::args::{ReshardArgs, ReshardVerb};
use crate::client::print;

/// Exit code of a refusal.
const EXIT_REFUSED: u8 = 3;

pub fn reshard(verb: ReshardVerb) -> ExitCode {
    let (args, what) = match verb {
        ReshardVerb::Plan(args) => (args, What::Plan),
        ReshardVerb::Apply(args) => (args, What::Apply),
        ReshardVerb::Resume(args) => (args, What::Resume),
        ReshardVerb::Abort(args) => (args, What::Abort),
    };
    let sources = Sources::new().with_file(args.config.clone()).with_environment(std::env::vars_os());
    let config = match load(sources) {
        Ok(loaded) => loaded.config,
        Err(refused) => {
            refused.findings.iter().for_each(|finding| eprintln!("fulmar: {finding}"));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let Backbone::Redis(settings) = &config.backbone else {
        eprintln!("fulmar: this configuration has one node and no Redis: there are no slots to move");
        return ExitCode::from(2);
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("fulmar: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(settings, &args, what)) {
        Ok(said) => {
            print(&said);
            ExitCode::SUCCESS
        }
        Err(NotDone { error, has_begun }) => {
            if args.json {
                let said = json!({ "refused": !has_begun, "has_begun": has_begun, "why": error.to_string() });
                print(&format!("{said:#}\n"));
            }
            eprintln!("fulmar: {error}");
            if has_begun {
                eprintln!(
                    "fulmar: it had begun, and nodes serve meanwhile: `fulmar redis reshard resume` does what is left"
                );
            }
            ExitCode::from(if has_begun { 1 } else { EXIT_REFUSED })
        }
    }
}

/// What ended a verb, and whether it had changed anything before: if not, it was refused.
struct NotDone {
    error: ReshardError,
    has_begun: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Plan,
    Apply,
    Resume,
    Abort,
}

async fn run(settings: &Settings, args: &ReshardArgs, what: What) -> Result<String, NotDone> {
    let wanted = if args.groups.is_empty() { settings.topology.groups() } else { args.groups.clone() };
    let is_shown = !args.json;
    let mut watch = move |progress: &Progress| {
        if is_shown {
            let Progress { what, done, of } = progress;
            // Whoever does not look any more is told nothing.
            let _: std::io::Result<()> = writeln!(std::io::stderr(), "{done:>5} of {of} slots  {what}");
        }
        ControlFlow::Continue(())
    };
    let mut mover = Mover::new(settings, &mut watch).map_err(|error| NotDone { error, has_begun: false })?;
    let said = act(&mut mover, what, &wanted, args.json).await;
    said.map_err(|error| NotDone { error, has_begun: mover.has_begun() })
}

async fn act(mover: &mut Mover<'_>, what: What, wanted: &[String], is_json: bool) -> Result<String, ReshardError> {
    match what {
        What::Plan => return Ok(shown(&mover.plan(wanted).await?, is_json)),
        What::Apply => mover.apply(wanted).await?,
        What::Resume => mover.resume().await?,
        What::Abort => mover.abort().await?,
    }
    let map = mover.map().await?;
    Ok(if is_json { format!("{:#}\n", of_map(&map)) } else { format!("done\n{}", counts(&map)) })
}

fn shown(outlook: &Outlook, is_json: bool) -> String {
    let Outlook { map, plan, nodes } = outlook;
    if is_json {
        return format!("{:#}\n", json!({ "map": of_map(map), "moves": of_plan(plan), "nodes": nodes }));
    }
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
        let outlook = Outlook { map, plan, nodes: 3 };
        let said = shown(&outlook, false);
        assert!(said.contains("g1            512 slots") && said.contains("from g1 to g3"), "{said}");
        let said: Value = serde_json::from_str(&shown(&outlook, true)).expect("JSON");
        let moved: u64 = said["moves"].as_array().expect("a list").iter().filter_map(|m| m["slots"].as_u64()).sum();
        assert_eq!((moved, &said["nodes"]), (341, &json!(3)));
    }
}
