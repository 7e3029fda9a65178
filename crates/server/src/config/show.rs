//! The effective configuration as a person reads it: TOML, each line with its source, secrets masked.

use fulmar_control::observed::Capacity;
use fulmar_protocol::webhook::Endpoint;

use super::finding::Place;
use super::keys::KEYS;
use super::meaning::Effective;
use super::raw::Settings;
use super::value::Value;

pub(super) fn show(effective: &Effective) -> String {
    let mut out = String::new();
    let mut section = "";
    for key in KEYS.iter().filter(|k| k.section() != "apps") {
        if key.section() != section {
            section = key.section();
            out.push_str(&format!("{}[{section}]\n", if out.is_empty() { "" } else { "\n" }));
        }
        out.push_str(&line(&effective.settings, key.path, key.name()));
    }
    for app in &effective.apps {
        out.push_str(&format!("\n[[apps]] # {}\n", app.place));
        for key in KEYS.iter().filter(|k| k.section() == "apps") {
            out.push_str(&line(&app.settings, key.path, key.name()));
        }
    }
    out
}

fn line(settings: &Settings, path: &str, name: &str) -> String {
    let Some(written) = settings.get(path) else { return String::new() };
    match (&written.value, &written.place) {
        (Value::Unset, _) => format!("# {name} is not set\n"),
        (value, place) => {
            let text = format!("{name} = {}", toml_text(value));
            if *place == Place::Default { format!("{text:<40} # default\n") } else { format!("{text:<40} # {place}\n") }
        }
    }
}

fn toml_text(value: &Value) -> String {
    match value {
        Value::Unset => String::new(),
        Value::Integer(n) => n.to_string(),
        Value::Switch(on) => on.to_string(),
        Value::Text(text) => quoted(text),
        Value::Path(path) => quoted(&path.to_string_lossy()),
        Value::List(texts) => format!("[{}]", texts.iter().map(|t| quoted(t)).collect::<Vec<_>>().join(", ")),
        Value::Secret(_) => quoted("(not shown)"),
        Value::Webhooks(endpoints) => {
            format!("[{}]", endpoints.iter().map(endpoint_text).collect::<Vec<_>>().join(", "))
        }
        Value::Capacities(groups) => {
            let group = |(name, capacity): (&String, &Capacity)| {
                let fields = super::capacity::fields(capacity).into_iter();
                let fields: Vec<String> =
                    fields.filter_map(|(name, value)| Some(format!("{name} = {}", value?))).collect();
                format!("{} = {{ {} }}", quoted(name), fields.join(", "))
            };
            format!("{{ {} }}", groups.iter().map(group).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Values of headers are not shown: people put tokens there.
fn endpoint_text(endpoint: &Endpoint) -> String {
    let kinds: Vec<String> = endpoint.kinds.iter().map(|kind| quoted(kind.name())).collect();
    let headers = endpoint.headers.iter().map(|(name, _)| format!("{} = {}", quoted(name), quoted("(not shown)")));
    format!(
        "{{ url = {}, events = [{}], channel_prefix = {}, headers = {{ {} }} }}",
        quoted(&endpoint.url),
        kinds.join(", "),
        quoted(&endpoint.channel_prefix),
        headers.collect::<Vec<_>>().join(", ")
    )
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
