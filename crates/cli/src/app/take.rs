//! `fulmar app import`: apps of another server become apps of a running node.
//!
//! Apps that are there already are left as they are, so that it can be run again. Nothing is added before everything was
//! read.

use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::remote::Remote;
use crate::args::AdminArgs;
use crate::client::{Failure, print};
use crate::import::{Found, database::Database};

/// Most bytes that are read from a pipe.
const INPUT_BYTES_MAX: u64 = 256 << 20;

pub fn take(admin: &AdminArgs, source: &str, table: Option<&str>, dry_run: bool) -> Result<(), Failure> {
    let found = found(source, table)?;
    for note in &found.notes {
        eprintln!("note: {note}");
    }
    if found.apps.is_empty() {
        return Err(format!("{}: no app was found", name_of(source)).into());
    }
    if dry_run {
        let ids: Vec<_> = found.apps.iter().map(|app| json!({ "id": app.get("id"), "key": app.get("key") })).collect();
        print(&if admin.json { format!("{:#}\n", json!({ "would_add": ids })) } else { found.listed() });
        return Ok(());
    }
    let remote = Remote::of(admin)?;
    let there = remote.call("GET", "/admin/v1/apps", None, None)?;
    let is_there =
        |app: &Map<String, Value>| there["apps"].as_array().into_iter().flatten().any(|a| a["id"] == app["id"]);
    let (mut added, mut kept, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for app in &found.apps {
        let id = app.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        if is_there(app) {
            kept.push(id);
            continue;
        }
        match remote.call("POST", "/admin/v1/apps", Some(&Value::Object(app.clone())), None) {
            Ok(_) => added.push(id),
            Err(failure) => failed.push((id, failure.to_string())),
        }
    }
    if admin.json {
        let failed: Vec<_> = failed.iter().map(|(id, why)| json!({ "id": id, "error": why })).collect();
        print(&format!("{:#}\n", json!({ "added": added, "there_already": kept, "failed": failed })));
    } else {
        print(&format!("added {}, left as they are {}, refused {}\n", added.len(), kept.len(), failed.len()));
    }
    for (id, why) in &failed {
        eprintln!("app {id}: {why}");
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("{} of {} apps were refused", failed.len(), found.apps.len()).into())
    }
}

fn found(source: &str, table: Option<&str>) -> Result<Found, Failure> {
    if let Some(database) = Database::of(source)? {
        let (table, rows) = database.rows(table)?;
        return Ok(Found::of_rows(&rows, &table));
    }
    if table.is_some() {
        return Err(Failure::usage("--table belongs to a database"));
    }
    if source != "-" {
        return Found::of_file(Path::new(source));
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().take(INPUT_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|e| format!("standard input: {e}"))?;
    let rows: Vec<Map<String, Value>> = if text.trim_start().starts_with('[') {
        serde_json::from_str(&text).map_err(|e| format!("standard input: {e}"))?
    } else {
        let lines = text.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str);
        lines.collect::<Result<_, _>>().map_err(|e| format!("standard input: {e}"))?
    };
    Ok(Found::of_rows(&rows, "standard input"))
}

/// A source without what may be a password.
fn name_of(source: &str) -> &str {
    source.split_once("://").map_or(source, |(kind, _)| kind)
}
