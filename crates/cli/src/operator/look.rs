//! The verbs that only look.

use std::time::Duration;

use fulmar_control::health::{State, Weight, judge};
use fulmar_control::sentinels::verify;
use fulmar_operate::presence::{Audit, audit};
use fulmar_operate::watch::{LOOK_EVERY, Watcher};
use serde_json::{Value, json};

use super::{Deployment, FAILED, Stop, draw, facts, run};
use crate::args::DeploymentArgs;
use crate::client::print;

/// How long nodes are given to put records right before they are read again: they compare every two seconds.
const MENDED_WITHIN: Duration = Duration::from_secs(3);

/// `fulmar redis status`
pub fn status(args: DeploymentArgs, watch: bool) -> Result<u8, Stop> {
    let json = args.json;
    let deployment = Deployment::of(args)?;
    let mut watcher = deployment.watcher()?;
    run(async {
        // One look has no rates.
        watcher.look().await;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            watcher.look().await;
            let now = watcher.now();
            print(&if json { facts::line(now, watcher.groups()) } else { draw::groups(now, watcher.groups()) });
            if !watch {
                let is_grave = |state: &State| state.weight() == Weight::Grave;
                let any = watcher.groups().iter().any(|group| judge(now, group).iter().any(is_grave));
                return if any { FAILED } else { 0 };
            }
        }
    })
}

/// One look, and no more: connections end with it.
fn looked(args: DeploymentArgs) -> Result<Watcher, Stop> {
    let mut watcher = Deployment::of(args)?.watcher()?;
    run(watcher.look())?;
    Ok(watcher)
}

/// `fulmar redis verify-identity`
pub fn verify_identity(args: DeploymentArgs) -> Result<u8, Stop> {
    let json = args.json;
    let watcher = looked(args)?;
    let now = watcher.now();
    let (mut text, mut rows, mut code) = (String::new(), Vec::new(), 0);
    for group in watcher.groups() {
        let primary = group.primary(now).map(|primary| primary.address.as_str());
        for server in &group.servers {
            let (state, said) = match server.fresh(now) {
                None => ("unseen", format!("not seen: {}", server.trouble.as_deref().unwrap_or("no answer"))),
                Some(state) => match &state.identity {
                    Some(found) if *found == group.identity => ("right", format!("has the data of {found}")),
                    Some(found) => ("wrong", format!("HAS THE DATA OF {found}, not of {}", group.identity)),
                    None if primary == Some(server.address.as_str()) => {
                        ("none", "has no group's data yet: the first node will take it for this group's".to_owned())
                    }
                    None => ("none", "has no group's data".to_owned()),
                },
            };
            if matches!(state, "unseen" | "wrong") {
                code = FAILED;
            }
            text.push_str(&format!("{:<12} {:<21} {said}\n", group.name, server.address));
            rows.push(json!({ "group": group.name, "server": server.address, "identity": state, "what": said }));
        }
    }
    print(&if json { format!("{}\n", json!({ "servers": rows })) } else { text });
    Ok(code)
}

/// `fulmar sentinel status`
pub fn sentinels(args: DeploymentArgs) -> Result<u8, Stop> {
    let json = args.json;
    let watcher = looked(args)?;
    let now = watcher.now();
    print(&if json { facts::line(now, watcher.groups()) } else { draw::sentinels(now, watcher.groups()) });
    Ok(0)
}

/// `fulmar sentinel verify`
pub fn verify_sentinels(args: DeploymentArgs) -> Result<u8, Stop> {
    let json = args.json;
    let watcher = looked(args)?;
    let now = watcher.now();
    let (mut text, mut rows, mut code) = (String::new(), Vec::new(), 0);
    for group in watcher.groups() {
        let findings = verify(now, group);
        if findings.is_empty() {
            text.push_str(&format!("{:<12} ok: {} Sentinels agree\n", group.name, group.sentinels.len()));
        }
        for finding in findings {
            if finding.is_wrong {
                code = FAILED;
            }
            let word = if finding.is_wrong { "WRONG" } else { "unwise" };
            text.push_str(&format!("{:<12} {word}: {}\n", group.name, finding.what));
            rows.push(json!({ "group": group.name, "is_wrong": finding.is_wrong, "what": finding.what }));
        }
    }
    print(&if json { format!("{}\n", json!({ "findings": rows })) } else { text });
    Ok(code)
}

/// `fulmar presence audit`
pub fn presence(args: DeploymentArgs) -> Result<u8, Stop> {
    let json = args.json;
    let deployment = Deployment::of(args)?;
    let mut watcher = deployment.watcher()?;
    run(async {
        watcher.look().await;
        let mut audits = all(&deployment, &watcher).await;
        if audits.iter().any(|(_, audit)| audit.as_ref().is_ok_and(|audit| !audit.findings.is_empty())) {
            // What changes while it is read looks wrong for a moment, and what is wrong is put right.
            tokio::time::sleep(MENDED_WITHIN).await;
            watcher.look().await;
            let again = all(&deployment, &watcher).await;
            for ((_, audit), (_, again)) in audits.iter_mut().zip(again) {
                if let (Ok(audit), Ok(again)) = (&mut *audit, again) {
                    let kept = audit.findings.intersection(&again.findings).cloned().collect();
                    *audit = Audit { findings: kept, ..again };
                }
            }
        }
        let is_right = |audit: &Result<Audit, String>| audit.as_ref().is_ok_and(|audit| audit.findings.is_empty());
        let code = if audits.iter().all(|(_, audit)| is_right(audit)) { 0 } else { FAILED };
        let rows: Vec<Value> = audits.iter().map(|(group, audit)| row(group, audit)).collect();
        let text: String = audits.iter().map(|(group, audit)| words(group, audit)).collect();
        print(&if json { format!("{}\n", json!({ "groups": rows })) } else { text });
        code
    })
}

async fn all(deployment: &Deployment, watcher: &Watcher) -> Vec<(String, Result<Audit, String>)> {
    let now = watcher.now();
    let mut audits = Vec::new();
    for group in watcher.groups() {
        let found = match group.primary(now) {
            None => Err("no primary was seen".to_owned()),
            Some(primary) => match primary.fresh(now).and_then(|state| state.identity.as_ref()) {
                Some(found) if *found != group.identity => Err(format!("{} has the data of {found}", primary.address)),
                _ => {
                    let keys = deployment.settings.keys(&group.name);
                    audit(watcher.doors(), &primary.address, &keys).await.map_err(|error| error.to_string())
                }
            },
        };
        audits.push((group.name.clone(), found));
    }
    audits
}

fn words(group: &str, audit: &Result<Audit, String>) -> String {
    match audit {
        Err(why) => format!("{group:<12} not read: {why}\n"),
        Ok(audit) => {
            let mut out = format!(
                "{group:<12} {} nodes, {} topics, {} subscriptions, {} members, {} records left over by nodes that are gone\n",
                audit.nodes, audit.topics, audit.subscriptions, audit.members, audit.left_over
            );
            for finding in &audit.findings {
                out.push_str(&format!("{group:<12} WRONG: {finding}\n"));
            }
            out
        }
    }
}

fn row(group: &str, audit: &Result<Audit, String>) -> Value {
    match audit {
        Err(why) => json!({ "group": group, "error": why }),
        Ok(audit) => json!({
            "group": group, "nodes": audit.nodes, "topics": audit.topics, "subscriptions": audit.subscriptions,
            "members": audit.members, "left_over": audit.left_over, "findings": audit.findings,
        }),
    }
}
