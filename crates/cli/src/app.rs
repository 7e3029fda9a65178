//! `fulmar app` and `fulmar audit`: the admin API from the command line.
//!
//! What a setting may hold is decided by the node. A secret is printed in the answer to the command that made it, and
//! nowhere else.

pub mod remote;
mod take;

use std::path::Path;

use fulmar_server::config::{KEYS, Kind, key};
use serde_json::{Map, Value, json};

use self::remote::Remote;
use crate::args::{AppArgs, AppVerb, AuditArgs, KeysVerb};
use crate::client::{Failure, checked_id, print};

pub fn app(args: AppArgs) -> Result<(), Failure> {
    let AppArgs { verb, admin } = args;
    let at = |id: &str, rest: &str| format!("/admin/v1/apps/{id}{rest}");
    let post = |path: &str, body: Value| Remote::of(&admin)?.call("POST", path, Some(&body), None);
    let patch = |id: &str, body: Map<String, Value>, seen: Option<u64>| {
        checked_id(id)?;
        Remote::of(&admin)?.call("PATCH", &at(id, ""), Some(&Value::Object(body)), seen)
    };
    let get = |path: &str| Remote::of(&admin)?.call("GET", path, None, None);
    let (answer, text): (Value, fn(&Value) -> String) = match verb {
        AppVerb::List => (get("/admin/v1/apps")?, list),
        AppVerb::Show { id } => (get(&at(checked_id(&id)?, ""))?, show),
        AppVerb::Add { id, key, secret_file, settings } => {
            let mut body = assignments(&settings, |_| true)?;
            body.extend(id.map(|id| ("id".to_owned(), id.into())));
            body.extend(key.map(|key| ("key".to_owned(), key.into())));
            body.extend(secret(secret_file.as_deref())?.map(|secret| ("secret".to_owned(), secret.into())));
            (post("/admin/v1/apps", Value::Object(body))?, added)
        }
        AppVerb::Edit { id, at, settings } => (patch(&id, assignments(&settings, |_| true)?, at)?, changed),
        AppVerb::Disable { id } => (patch(&id, Map::from_iter([("enabled".to_owned(), false.into())]), None)?, changed),
        AppVerb::Enable { id } => (patch(&id, Map::from_iter([("enabled".to_owned(), true.into())]), None)?, changed),
        AppVerb::Remove { id } => (Remote::of(&admin)?.call("DELETE", &at(checked_id(&id)?, ""), None, None)?, changed),
        AppVerb::Limits { id, settings } if settings.is_empty() => (get(&at(checked_id(&id)?, ""))?, limits),
        AppVerb::Limits { id, settings } => (patch(&id, assignments(&settings, is_limit)?, None)?, changed),
        AppVerb::Keys(KeysVerb::Rotate { id, secret_file }) => {
            let given = secret(secret_file.as_deref())?;
            let body = given.map_or_else(|| json!({}), |secret| json!({ "secret": secret }));
            (post(&at(checked_id(&id)?, "/keys/rotate"), body)?, rotated)
        }
        AppVerb::Keys(KeysVerb::Retire { id, new }) => {
            let body = json!({ "secret": if new { "new" } else { "previous" } });
            (post(&at(checked_id(&id)?, "/keys/retire"), body)?, changed)
        }
        AppVerb::Import { source, table, dry_run } => {
            return take::take(&admin, &source, table.as_deref(), dry_run);
        }
        AppVerb::History { id } => (get(&at(checked_id(&id)?, "/history"))?, history),
        AppVerb::Revert { id, revision } => {
            (post(&at(checked_id(&id)?, "/revert"), json!({ "revision": revision }))?, changed)
        }
    };
    print(&if admin.json { format!("{answer:#}\n") } else { text(&answer) });
    Ok(())
}

pub fn audit(args: &AuditArgs) -> Result<(), Failure> {
    let answer = Remote::of(&args.admin)?.call("GET", &format!("/admin/v1/audit?limit={}", args.limit), None, None)?;
    if args.admin.json {
        print(&format!("{answer:#}\n"));
        return Ok(());
    }
    print(&rows(&answer, "entries").map(of_audit).collect::<String>());
    Ok(())
}

/// One line for one entry of the audit log.
fn of_audit(entry: &Value) -> String {
    let word = |name: &str| entry[name].as_str().unwrap_or_default();
    let what = match word("outcome") {
        "no-token" => format!("{} call(s) without the token", entry["times"]),
        outcome if entry["group"].is_string() => {
            let why: Vec<&str> =
                ["aim", "guard", "error", "why"].map(word).into_iter().filter(|part| !part.is_empty()).collect();
            format!("{} {}: {outcome}: {}", word("call"), word("group"), why.join(": "))
        }
        "failed" => format!("{} {}: refused: {}", word("call"), word("app"), word("error")),
        _ if entry["channels"].is_array() => {
            format!("{} {} on {}", word("call"), word("app"), names(&entry["channels"]))
        }
        _ => format!("{} {} ({})", word("call"), word("app"), names(&entry["changed"])),
    };
    format!("{}  {:<20} {:<15} {what}\n", date(&entry["at_ms"]), word("who"), word("peer"))
}

/// `SETTING=VALUE`, each as the JSON its setting takes. What it may be is judged by the node.
fn assignments(texts: &[String], takes: fn(&str) -> bool) -> Result<Map<String, Value>, Failure> {
    let mut settings = Map::new();
    for text in texts {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("{text:?} must be SETTING=VALUE, such as client_events=true")))?;
        if !takes(name) {
            return Err(Failure::usage(format!("{name} is not a limit: see `fulmar app edit`")));
        }
        settings.insert(name.to_owned(), json_of(name, value));
    }
    Ok(settings)
}

fn json_of(name: &str, text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    let as_text = || Value::String(text.to_owned());
    match key(&format!("apps.{name}")).map(|key| key.kind) {
        Some(Kind::Integer { .. }) => text.parse::<i64>().map_or_else(|_| as_text(), Value::from),
        Some(Kind::Switch) => match text {
            "true" | "yes" | "on" | "1" => true.into(),
            "false" | "no" | "off" | "0" => false.into(),
            _ => as_text(),
        },
        Some(Kind::List(_)) => text.split(',').map(str::trim).filter(|t| !t.is_empty()).collect(),
        Some(Kind::Text(_) | Kind::Secret | Kind::Path | Kind::OneOf(_)) => as_text(),
        // What has a form of its own is written as JSON.
        _ => serde_json::from_str(text).unwrap_or_else(|_| as_text()),
    }
}

fn is_limit(name: &str) -> bool {
    key(&format!("apps.{name}")).is_some_and(|key| matches!(key.kind, Kind::Integer { .. }))
}

fn secret(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(file) = file else { return Ok(None) };
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn list(answer: &Value) -> String {
    let mut out = format!("{:<12} {:<24} {:<8} {:<14} {}\n", "ID", "KEY", "STATE", "SOURCE", "REVISION");
    for app in rows(answer, "apps") {
        let settings = &app["settings"];
        let state = if settings["enabled"] == false { "disabled" } else { "enabled" };
        let revision = app["revision"].as_u64().map(|n| n.to_string()).unwrap_or_default();
        let line = format!(
            "{:<12} {:<24} {state:<8} {:<14} {revision}",
            text(&app["id"]),
            text(&settings["key"]),
            text(&app["source"]),
        );
        out.push_str(line.trim_end());
        if app["secrets"] == 2 {
            out.push_str("  two secrets verify: `fulmar app keys retire` ends the rotation");
        }
        if let Some(problem) = app["problem"].as_str() {
            out.push_str(&format!("  NOT SERVED: {problem}"));
        }
        out.push('\n');
    }
    out
}

fn show(app: &Value) -> String {
    let mut out = format!("app {} of the {}", text(&app["id"]), text(&app["source"]));
    if let Some(revision) = app["revision"].as_u64() {
        out.push_str(&format!(", revision {revision}"));
    }
    out.push('\n');
    if let Some(problem) = app["problem"].as_str() {
        out.push_str(&format!("NOT SERVED: {problem}\n"));
    }
    out + &settings(app, |_| true) + &format!("{:<38} {}\n", "secrets that verify", app["secrets"])
}

fn limits(app: &Value) -> String {
    settings(app, is_limit)
}

fn settings(app: &Value, wanted: fn(&str) -> bool) -> String {
    let names = KEYS.iter().filter(|key| key.section() == "apps").map(|key| key.name()).filter(|name| wanted(name));
    let line = |name| Some(format!("{name:<38} {}\n", plain(app["settings"].get(name)?)));
    names.filter_map(line).collect()
}

fn added(answer: &Value) -> String {
    let mut out = format!("added app {}\n", text(&answer["id"]));
    out.push_str(&format!("  id      {}\n", text(&answer["id"])));
    out.push_str(&format!("  key     {}\n", text(&answer["app"]["settings"]["key"])));
    out + &secret_line(answer)
}

fn rotated(answer: &Value) -> String {
    let id = text(&answer["id"]);
    format!("rotated the secret of app {id}; both verify until `fulmar app keys retire {id}`\n") + &secret_line(answer)
}

fn secret_line(answer: &Value) -> String {
    let secret = answer["secret"].as_str();
    secret.map(|s| format!("  secret  {s}\n  This secret is not shown again.\n")).unwrap_or_default()
}

fn changed(answer: &Value) -> String {
    let (id, revision, names) = (text(&answer["id"]), &answer["revision"], names(&answer["changed"]));
    match text(&answer["verb"]) {
        "remove" => format!("removed app {id}; `fulmar app history {id}` lists what it can be reverted to\n"),
        _ if names.is_empty() => format!("app {id} is so already (revision {revision})\n"),
        verb => format!("{verb}: app {id} is at revision {revision}: {names}\n"),
    }
}

fn history(answer: &Value) -> String {
    let mut out = String::new();
    for line in rows(answer, "revisions") {
        let (revision, verb, who) =
            (line["revision"].as_u64().unwrap_or_default(), text(&line["verb"]), text(&line["who"]));
        let (at, names) = (date(&line["at_ms"]), names(&line["changed"]));
        out.push_str(format!("{revision:>5}  {at}  {who:<20} {verb:<12} {names}").trim_end());
        out.push('\n');
    }
    if out.is_empty() { "no history is kept of this app: it is not in the registry\n".to_owned() } else { out }
}

pub fn rows<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    answer[name].as_array().into_iter().flatten()
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

fn names(value: &Value) -> String {
    value.as_array().map(|names| names.iter().map(text).collect::<Vec<_>>().join(", ")).unwrap_or_default()
}

/// To the second, UTC.
pub fn date(at_ms: &Value) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(at_ms.as_u64().unwrap_or_default());
    httpdate::fmt_http_date(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OP-20
    #[test]
    fn the_audit_log_shows_the_operator_s_verbs_beside_the_calls_of_the_admin_api() {
        let entries = [
            json!({ "at_ms": 0, "who": "ann", "peer": "operator", "call": "redis failover", "group": "g1",
                    "outcome": "refused", "guard": "lag", "error": "10.0.0.2:6379 is 9 MB behind" }),
            json!({ "at_ms": 0, "who": "ann", "peer": "operator", "call": "redis failover", "group": "g1",
                    "outcome": "done", "aim": "another server becomes the primary" }),
            json!({ "at_ms": 0, "who": "ann", "peer": "::1", "call": "edit", "app": "42", "outcome": "done",
                    "changed": ["limits"] }),
        ];
        let shown = entries.map(|entry| of_audit(&entry));
        let said = ["refused: lag: 10.0.0.2:6379 is 9 MB behind\n", "done: another server becomes", "edit 42 (limits)"];
        for (line, said) in shown.iter().zip(said) {
            assert!(line.contains(said) && line.contains("ann"), "{said} is not in: {line}");
        }
        assert!(shown[0].contains("redis failover g1: "));
    }
}
