//! `fulmar import`: what another server of the protocol was told, in our words.
//!
//! Reads environment variables, `.env` files and JSON configuration of soketi, sockudo and Laravel Reverb, and prints a
//! configuration file. Whatever has no counterpart here is said, never dropped in silence. Nothing is written, nothing is
//! connected to.

mod app;
pub mod database;
mod dotenv;
mod env;
mod json;
mod plan;

use std::ffi::OsString;
use std::path::Path;

use serde_json::{Map, Value};

use self::plan::Plan;
use crate::args::ImportArgs;
use crate::client::{Failure, print};

pub fn import(args: &ImportArgs) -> Result<(), Failure> {
    let mut plan = Plan::default();
    if args.files.is_empty() {
        // A variable that is not text is none of theirs.
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        env::read(&mut plan, &std::env::vars_os().filter_map(text).collect(), "the environment");
    }
    for file in &args.files {
        read(&mut plan, file)?;
    }
    if plan.is_empty() {
        let text = "found nothing that soketi, sockudo or Reverb would have read; name a .env or JSON file, or set their \
                    variables (SOKETI_..., REVERB_..., SOCKUDO_...)";
        return Err(text.to_owned().into());
    }
    plan.finish();
    print(&plan.toml());
    for note in plan.notes() {
        eprintln!("note: {note}");
    }
    Ok(())
}

/// Apps of another server, and what there is to say of them.
pub struct Found {
    pub apps: Vec<Map<String, Value>>,
    pub notes: Vec<String>,
}

impl Found {
    /// Those in a configuration file.
    pub fn of_file(file: &Path) -> Result<Self, Failure> {
        let mut plan = Plan::default();
        read(&mut plan, file)?;
        Ok(Self::of(plan))
    }

    /// Those in the rows of a table.
    pub fn of_rows(rows: &[Map<String, Value>], table: &str) -> Self {
        let mut plan = Plan::default();
        let has = |name: &str| rows.first().is_some_and(|row| row.contains_key(name));
        if has("max_client_events_per_sec") {
            json::defaults(&mut plan, json::Product::Soketi);
        } else if has("max_client_events_per_second") {
            json::defaults(&mut plan, json::Product::Sockudo);
        }
        for (n, row) in rows.iter().enumerate() {
            let called = match &row.get("id") {
                Some(Value::String(id)) => format!("app {id}"),
                Some(Value::Number(id)) => format!("app {id}"),
                _ => format!("row {} of {table}", n + 1),
            };
            app::app(&mut plan, row, &called).into_iter().for_each(|app| plan.add(app));
        }
        Self::of(plan)
    }

    fn of(mut plan: Plan) -> Self {
        plan.finish();
        Self { apps: plan.apps().to_vec(), notes: plan.notes().to_vec() }
    }

    /// The apps, without their secrets.
    pub fn listed(&self) -> String {
        let text =
            |app: &Map<String, Value>, name: &str| app.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        let settings = |app: &Map<String, Value>| {
            let shown = app.iter().filter(|(name, _)| !["id", "key", "secret"].contains(&name.as_str()));
            shown.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        let line = |app| format!("would add {:<12} {:<24} {}\n", text(app, "id"), text(app, "key"), settings(app));
        self.apps.iter().map(line).collect()
    }
}

fn read(plan: &mut Plan, file: &Path) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if name.ends_with(".php") {
        let hint = "PHP is not read: give the application's .env file, whose variables config/reverb.php takes its values from";
        return Err(Failure::usage(format!("{}: {hint}", file.display())));
    }
    if text.trim_start().starts_with('{') {
        let config: Map<String, Value> =
            serde_json::from_str(&text).map_err(|e| format!("{}: not valid JSON: {e}", file.display()))?;
        json::read(plan, &config, &name);
    } else {
        env::read(plan, &dotenv::parse(&text), &name);
    }
    Ok(())
}
