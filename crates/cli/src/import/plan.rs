//! What was found, in our words: settings of the node, apps, and what there is to say.

use std::collections::BTreeMap;

use fulmar_server::config::{KEYS, Kind, Weight, key, read_app};
use serde_json::{Map, Value};

/// A configuration in the making.
#[derive(Debug, Default)]
pub struct Plan {
    /// By path, with where it comes from.
    settings: BTreeMap<&'static str, (Value, String)>,
    /// What every app gets that does not say otherwise.
    defaults: Map<String, Value>,
    apps: Vec<Map<String, Value>>,
    notes: Vec<String>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.apps.is_empty()
    }

    pub fn apps(&self) -> &[Map<String, Value>] {
        &self.apps
    }

    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub fn set(&mut self, path: &'static str, value: impl Into<Value>, from: &str) {
        self.settings.insert(path, (value.into(), from.to_owned()));
    }

    /// A limit that is the server's there and each app's here.
    pub fn of_each_app(&mut self, name: &str, value: impl Into<Value>) {
        self.defaults.insert(name.to_owned(), value.into());
    }

    pub fn add(&mut self, app: Map<String, Value>) {
        self.apps.retain(|other| other.get("id") != app.get("id"));
        self.apps.push(app);
    }

    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// A setting that has no counterpart.
    pub fn lacks(&mut self, from: &str, why: &str) {
        self.note(format!("{from} has no counterpart: {why}"));
    }

    /// Gives every app what is the same for all, and says what the node would refuse.
    pub fn finish(&mut self) {
        let defaults = std::mem::take(&mut self.defaults);
        for app in &mut self.apps {
            for (name, value) in &defaults {
                app.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        for app in self.apps.clone() {
            let id = app.get("id").and_then(Value::as_str).unwrap_or("without an id").to_owned();
            for finding in read_app(&app).1.iter().filter(|finding| finding.weight != Weight::Advice) {
                self.note(format!("app {id} needs a hand: {finding}"));
            }
        }
        if self.apps.is_empty() {
            self.note("no app was found: add [[apps]], or use `fulmar app add` on the running node");
        }
    }

    /// The configuration file.
    pub fn toml(&self) -> String {
        let mut out =
            "# Made by `fulmar import`; `fulmar check --config FILE` says what a node makes of it.\n".to_owned();
        for note in &self.notes {
            out.push_str(&format!("# note: {}\n", note.replace('\n', " ")));
        }
        let mut section = "";
        for key in KEYS.iter().filter(|key| key.section() != "apps") {
            let Some((value, from)) = self.settings.get(key.path) else { continue };
            if key.section() != section {
                section = key.section();
                out.push_str(&format!("\n[{section}]\n"));
            }
            out.push_str(&format!("{} = {} # {from}\n", key.name(), toml_of(value)));
        }
        for app in &self.apps {
            out.push_str("\n[[apps]]\n");
            let known = KEYS.iter().filter(|key| key.section() == "apps").map(|key| key.name());
            for name in known {
                if let Some(value) = app.get(name) {
                    out.push_str(&format!("{name} = {}\n", toml_of(value)));
                }
            }
        }
        out
    }
}

/// JSON as TOML writes it within a line.
fn toml_of(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().map(|(n, v)| format!("{} = {}", quoted(n), toml_of(v))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// A JSON text is a TOML text, but for two characters that TOML wants escaped otherwise or not at all.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string().replace('\u{7f}', "\\u007f")
}

/// The number as our key takes it: within its bounds, or the nearest bound, which is then said.
pub fn within(plan: &mut Plan, path: &str, wanted: u64, from: &str) -> u64 {
    let Some(Kind::Integer { min, max }) = key(path).map(|key| key.kind) else { return wanted };
    let taken = wanted.clamp(min, max);
    if taken != wanted {
        plan.note(format!("{from} is {wanted}; {path} takes {min} to {max}, so {taken} is used"));
    }
    taken
}
