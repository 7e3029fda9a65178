//! Plans, refusals and reports: for people, and as JSON.

use std::time::Duration;

use fulmar_control::plan::{Check, Guarded, Plan, Refusal};
use fulmar_operate::execute::{Progress, Report};
use serde_json::{Value, json};

use super::facts::millis;

/// A plan, as printed before it is carried out.
pub fn plan(plan: &Plan) -> String {
    let mut out = format!("plan: {}\n", plan.aim);
    for asked in &plan.guards {
        out.push_str(&guard(asked));
    }
    for (at, step) in plan.steps.iter().enumerate() {
        out.push_str(&format!("  step {}  {}\n", at + 1, step.action));
        if step.ready_when != Check::All(Vec::new()) {
            out.push_str(&format!("          when {}\n", step.ready_when));
        }
        out.push_str(&format!("          until {}, within {}\n", until(&step.done_when), time(step.within)));
        for undo in &step.undo {
            out.push_str(&format!("          else {undo}\n"));
        }
    }
    out
}

fn until(check: &Check) -> String {
    if *check == Check::All(Vec::new()) { "it is accepted".to_owned() } else { check.to_string() }
}

/// A guard that was asked, as a line.
pub fn guard(asked: &Guarded) -> String {
    let mark = match (asked.holds, asked.is_overridden) {
        (true, _) => "ok",
        (false, true) => "OVERRIDDEN",
        (false, false) => "NO",
    };
    format!("  guard   {:<13} {mark:<10} {}\n", asked.guard.name(), asked.figures)
}

/// A refusal, with every guard that was asked.
pub fn refusal(refusal: &Refusal) -> String {
    let guards: String = refusal.guards.iter().map(guard).collect();
    format!("{guards}{refusal}\n")
}

/// What is said on standard error while a plan is carried out.
pub fn progress(said: Progress<'_>) {
    match said {
        Progress::Begins { number, step } => eprintln!("step {number}: {}", step.action),
        Progress::Waits(why) => eprintln!("        {why}"),
        Progress::Done(took) => eprintln!("        done in {}", time(took)),
        Progress::Undoes(why) => eprintln!("        failed: {why}; undoing"),
        Progress::Lingers(most) => {
            eprintln!(
                "        undone; the Sentinel may still promote one: watching until it has given up, {} at most",
                time(most)
            );
        }
    }
}

/// How it ended.
pub fn report(plan: &Plan, report: &Report) -> String {
    let mut out = String::new();
    if let Some(successor) = &report.successor {
        out.push_str(&format!("{successor} is the primary\n"));
    }
    if let Some(held) = report.held {
        out.push_str(&format!("writes were held for {} ms\n", held.as_millis()));
    }
    match &report.failed {
        None => {
            out.push_str(&format!("done: {}\n", plan.aim));
            if !plan.afterwards.is_empty() {
                out.push_str(&format!("{}\n", plan.afterwards));
            }
        }
        Some(failed) => {
            out.push_str(&format!("failed at step {}: {}\n", failed.number, failed.why));
            out.push_str(&match &failed.left {
                Ok(()) if report.successor.is_none() => {
                    "what this step and those before it held is undone\n".to_owned()
                }
                Ok(()) => "the new primary stays; see `fulmar redis status` for what is still missing\n".to_owned(),
                Err(left) => format!("NOT UNDONE: {left}\n"),
            });
        }
    }
    out
}

fn time(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..10_000 => format!("{ms} ms"),
        ms => format!("{} s", ms / 1_000),
    }
}

/// Guards as JSON.
pub fn guards_json(guards: &[Guarded]) -> Value {
    let one = |asked: &Guarded| {
        json!({
            "guard": asked.guard.name(), "holds": asked.holds, "figures": asked.figures,
            "is_overridden": asked.is_overridden,
        })
    };
    guards.iter().map(one).collect()
}

/// A plan as JSON.
pub fn plan_json(plan: &Plan) -> Value {
    let steps: Vec<Value> = plan
        .steps
        .iter()
        .map(|step| {
            json!({
                "ready_when": step.ready_when.to_string(), "action": step.action.to_string(),
                "done_when": until(&step.done_when), "within_ms": millis(step.within),
                "undo": step.undo.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "aim": plan.aim, "primary": plan.primary, "guards": guards_json(&plan.guards), "steps": steps })
}

/// A refusal as JSON.
pub fn refusal_json(refusal: &Refusal) -> Value {
    json!({
        "guard": refusal.guard.name(), "figures": refusal.figures, "advice": refusal.guard.advice(),
        "guards": guards_json(&refusal.guards),
    })
}

/// How it ended, as JSON.
pub fn report_json(report: &Report) -> Value {
    let failed = report.failed.as_ref().map(|failed| {
        json!({ "step": failed.number, "why": failed.why, "is_undone": failed.left.is_ok(), "left": failed.left.as_ref().err() })
    });
    json!({
        "took_ms": report.took.iter().map(|took| millis(*took)).collect::<Vec<_>>(),
        "held_ms": report.held.map(millis),
        "new_primary": report.successor,
        "failed": failed,
    })
}
