//! One app of another server, whatever it was written in: variables, JSON or the row of a table.
//!
//! soketi, sockudo and Laravel's packages share their vocabulary but not its spelling, so names are compared without case
//! and underscores.

use fulmar_server::config::{key, read_app};
use serde_json::{Map, Value, json};

use super::plan::{Plan, within};

/// Events per second that no connection reaches: what "no limit" becomes.
const CLIENT_EVENTS_UNLIMITED: u64 = 1_000_000;
/// Names of events that webhooks can be about, there and here.
const WEBHOOK_EVENTS: [&str; 7] = [
    "channel_occupied",
    "channel_vacated",
    "member_added",
    "member_removed",
    "client_event",
    "cache_miss",
    "subscription_count",
];

/// Reads one app. `None` when it has no id, key or secret.
pub fn app(plan: &mut Plan, fields: &Map<String, Value>, from: &str) -> Option<Map<String, Value>> {
    let mut app = Map::new();
    let mut unnamed = Vec::new();
    for (name, value) in flattened(fields) {
        if !value.is_null() && !field(plan, &mut app, &plain(&name), &value, from) {
            unnamed.push(name);
        }
    }
    for name in unnamed {
        plan.lacks(&format!("{name} of {from}"), "it is not taken over");
    }
    let missing: Vec<&str> = ["id", "key", "secret"].into_iter().filter(|name| !app.contains_key(*name)).collect();
    if missing.is_empty() {
        return Some(app);
    }
    plan.note(format!("{from} is left out: it has no {}", missing.join(", no ")));
    None
}

/// A name without what its spellings differ in.
pub fn plain(name: &str) -> String {
    name.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}

/// Later releases of sockudo put limits and switches one level deeper. What stands deeper is newer, and wins.
fn flattened(fields: &Map<String, Value>) -> Vec<(String, Value)> {
    let mut all: Vec<(String, Value)> = Vec::new();
    for (name, value) in fields {
        let inner = match (plain(name).as_str(), value) {
            ("policy" | "limits" | "features" | "channels", Value::Object(inner)) => Some(inner.clone()),
            ("policy", Value::String(text)) => serde_json::from_str(text).ok(),
            _ => None,
        };
        match inner {
            Some(inner) => all.extend(flattened(&inner)),
            None => all.insert(0, (name.clone(), value.clone())),
        }
    }
    all
}

/// Takes one field over; answers whether it is known.
fn field(plan: &mut Plan, app: &mut Map<String, Value>, name: &str, value: &Value, from: &str) -> bool {
    let mut number = |ours: &str, factor: f64| {
        if let Some(n) = positive(value) {
            let n = within(plan, &format!("apps.{ours}"), (n * factor) as u64, &format!("{name} of {from}"));
            app.insert(ours.to_owned(), n.into());
        }
    };
    match name {
        "maxconnections" | "maxconns" | "capacity" => number("max_connections", 1.0),
        "maxpresencememberschannel" | "maxpresencemembersperchannel" | "presencemaxmembersperchannel" => {
            number("presence_members_max", 1.0);
        }
        "maxpresencemembersizeinkb" | "presencemaxmembersizeinkb" => number("presence_user_info_bytes_max", 1_024.0),
        "maxchannelnamelength" => number("channel_name_max", 1.0),
        "maxeventchannelsatonce" => number("publish_channels_max", 1.0),
        "maxeventnamelength" => number("event_name_max", 1.0),
        "maxeventpayloadinkb" => number("event_data_bytes_max", 1_024.0),
        "maxeventbatchsize" => number("batch_events_max", 1.0),
        "maxclienteventspersec" | "maxclienteventspersecond" => {
            if positive(value).is_none() && !is_empty(value) {
                app.insert("client_events_per_s_max".to_owned(), CLIENT_EVENTS_UNLIMITED.into());
            } else {
                number("client_events_per_s_max", 1.0);
            }
        }
        "maxbackendeventspersec" | "maxbackendeventspersecond" => {
            number("publishes_per_s_max", 1.0);
            if positive(value).is_some() {
                plan.note(format!(
                    "{name} becomes publishes_per_s_max, which is for all nodes together: there every node counts for itself, unless \
                     its rate limiter is in Redis"
                ));
            }
        }
        "id" | "appid" => return text(app, "id", value),
        "key" | "appkey" => return text(app, "key", value),
        "secret" | "appsecret" => return text(app, "secret", value),
        "enableclientmessages" => return switch(app, "client_events", value),
        "enabled" => return switch(app, "enabled", value),
        "enableuserauthentication" | "userauthentication" => return switch(app, "authorized_connections", value),
        "enablewatchlistevents" => return switch(app, "watchlist", value),
        "allowedorigins" => origins(plan, app, value, from),
        "webhooks" => webhooks(plan, app, value, from),
        "maxreadreqpersec" | "maxreadrequestspersecond" => {
            if positive(value).is_some() {
                plan.lacks(&format!("{name} of {from}"), "queries of the REST API are not limited in number");
            }
        }
        // What people call it, and when it was made.
        "name" | "createdat" | "updatedat" | "deletedat" => {}
        "path" | "host" | "enablestatistics" if is_empty(value) || *value == "/" => {}
        _ => return is_empty(value),
    }
    true
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || *value == "" || *value == json!([]) || *value == json!({}) || *value == "[]" || *value == "null"
}

/// A number above zero, in whatever it was written. Everything else means "no limit" or "not set" there.
fn positive(value: &Value) -> Option<f64> {
    let number = match value {
        Value::String(text) => text.trim().replace('_', "").parse().ok()?,
        other => other.as_f64()?,
    };
    (number > 0.0).then_some(number)
}

fn text(app: &mut Map<String, Value>, ours: &str, value: &Value) -> bool {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if !text.is_empty() {
        app.insert(ours.to_owned(), text.into());
    }
    true
}

fn switch(app: &mut Map<String, Value>, ours: &str, value: &Value) -> bool {
    let on = match value {
        Value::Bool(on) => *on,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(text) => matches!(text.to_lowercase().as_str(), "true" | "1" | "t" | "yes" | "on"),
        _ => return false,
    };
    app.insert(ours.to_owned(), on.into());
    true
}

/// A list, written as one, as JSON text or with commas. `*` is any page, which is no list here.
fn origins(plan: &mut Plan, app: &mut Map<String, Value>, value: &Value, from: &str) {
    let parsed = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let items: Vec<String> = match (value, &parsed) {
        (Value::Array(items), _) | (_, Some(Value::Array(items))) => {
            items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        (Value::String(text), _) => text.split(',').map(|t| t.trim().to_owned()).collect(),
        _ => return,
    };
    let items: Vec<String> = items.into_iter().filter(|item| !item.is_empty()).collect();
    if items.is_empty() || items.iter().any(|item| item == "*") {
        return;
    }
    // Held to the node's own rule, one by one.
    let is_taken = |item: &String| {
        let app = json!({ "id": "1", "key": "k", "secret": "s", "allowed_origins": [item] });
        app.as_object().is_some_and(|app| read_app(app).1.is_empty())
    };
    let (taken, left): (Vec<String>, Vec<String>) = items.into_iter().partition(is_taken);
    for item in left {
        plan.lacks(&format!("the allowed origin {item} of {from}"), "it is none that a browser sends");
    }
    // Nothing left would mean any page.
    let taken = if taken.is_empty() { vec!["nobody.invalid".to_owned()] } else { taken };
    app.insert("allowed_origins".to_owned(), taken.into());
}

fn webhooks(plan: &mut Plan, app: &mut Map<String, Value>, value: &Value, from: &str) {
    let parsed = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let hooks = match parsed.as_ref().unwrap_or(value) {
        Value::Array(hooks) => hooks.clone(),
        _ => return,
    };
    if key("apps.webhooks").is_none() && !hooks.is_empty() {
        return plan.lacks(&format!("webhooks of {from}"), "this release sends none");
    }
    let taken: Vec<Value> = hooks.iter().filter_map(|hook| webhook(plan, hook, from)).collect();
    if !taken.is_empty() {
        app.insert("webhooks".to_owned(), taken.into());
    }
}

fn webhook(plan: &mut Plan, hook: &Value, from: &str) -> Option<Value> {
    let Some(url) = hook["url"].as_str() else {
        plan.lacks(&format!("a webhook of {from}"), "it calls a function of a cloud, and here it needs a URL");
        return None;
    };
    let mut ours = Map::from_iter([("url".to_owned(), url.into())]);
    let events: Vec<&str> = hook["event_types"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for event in events.iter().filter(|event| !WEBHOOK_EVENTS.contains(event)) {
        plan.lacks(&format!("the webhook event {event} of {from}"), "no such event is sent");
    }
    let events: Vec<&str> = events.into_iter().filter(|event| WEBHOOK_EVENTS.contains(event)).collect();
    if !events.is_empty() {
        ours.insert("events".to_owned(), events.into());
    }
    let filter = &hook["filter"];
    if let Some(prefix) = filter["channel_name_starts_with"].as_str().or(filter["channel_prefix"].as_str()) {
        ours.insert("channel_prefix".to_owned(), prefix.into());
    }
    if filter["channel_name_ends_with"].is_string() {
        plan.lacks(&format!("channel_name_ends_with of {url}"), "webhooks are told apart by how a channel begins");
    }
    if let Some(headers) = hook["headers"].as_object().filter(|headers| !headers.is_empty()) {
        ours.insert("headers".to_owned(), headers.clone().into());
    }
    Some(ours.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-35
    #[test]
    fn an_app_means_the_same_however_it_is_spelt() {
        let of = |fields: Value| {
            let mut plan = Plan::default();
            (app(&mut plan, fields.as_object().unwrap(), "an app").map(Value::from), plan.notes().to_vec())
        };
        let expected = json!({
            "id": "7", "key": "k", "secret": "s", "max_connections": 5, "client_events": true, "enabled": false,
            "client_events_per_s_max": 1_000_000, "event_data_bytes_max": 2_048, "authorized_connections": true,
        });
        for spelt in [
            json!({ "id": 7, "key": "k", "secret": "s", "maxConnections": 5, "enableClientMessages": true, "enabled": false,
                    "maxClientEventsPerSecond": -1, "maxEventPayloadInKb": 2, "enableUserAuthentication": true,
                    "maxReadRequestsPerSecond": -1, "maxBackendEventsPerSecond": -1, "webhooks": [] }),
            json!({ "AppId": "7", "AppKey": "k", "AppSecret": "s", "MaxConnections": "5", "EnableClientMessages": "true",
                    "Enabled": "false", "MaxClientEventsPerSecond": "-1", "max_event_payload_in_kb": "2",
                    "enable_user_authentication": 1, "Webhooks": "[]" }),
            json!({ "id": "7", "key": "k", "secret": "s", "enabled": 0, "max_connections": 9, "webhooks": null,
                    "policy": { "limits": { "max_connections": 5, "max_client_events_per_second": 0,
                    "max_backend_events_per_second": null, "max_event_payload_in_kb": 2.0 }, "features": { "enable_client_messages": true,
                    "enable_user_authentication": true }, "channels": { "allowed_origins": ["*"] } } }),
        ] {
            assert_eq!(of(spelt.clone()), (Some(expected.clone()), Vec::<String>::new()), "{spelt}");
        }
    }

    /// OPS-35, HTTP-71
    #[test]
    fn what_servers_may_publish_is_taken_over_with_a_word_about_nodes_and_no_limit_stays_none() {
        let of = |name: &str, value: Value| {
            let mut plan = Plan::default();
            let fields = json!({ "id": "7", "key": "k", "secret": "s", name: value });
            let made = app(&mut plan, fields.as_object().unwrap(), "app 7").unwrap();
            (made.get("publishes_per_s_max").cloned(), plan.notes().len())
        };
        for name in ["maxBackendEventsPerSecond", "max_backend_events_per_sec", "max_backend_events_per_second"] {
            assert_eq!(of(name, json!(250)), (Some(json!(250)), 1), "{name}");
            assert_eq!(of(name, json!("250")), (Some(json!(250)), 1), "{name}");
            assert_eq!(of(name, json!(-1)), (None, 0), "{name}");
        }
    }

    /// OPS-35
    #[test]
    fn what_has_no_counterpart_is_said() {
        let mut plan = Plan::default();
        let fields = json!({
            "id": "7", "key": "k", "secret": "s", "max_read_req_per_sec": 5, "channel_delta_compression": { "a": 1 },
            "max_channel_name_length": 500, "allowed_origins": ["app.example", "https://a/b"],
        });
        let made = app(&mut plan, fields.as_object().unwrap(), "app 7").unwrap();
        assert_eq!(made["channel_name_max"], 200);
        assert_eq!(made["allowed_origins"], json!(["app.example"]));
        let said = plan.notes().join("\n");
        for part in ["maxreadreqpersec", "channel_delta_compression", "500", "https://a/b"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(app(&mut plan, json!({ "id": "8" }).as_object().unwrap(), "app 8").is_none());
        assert!(plan.notes().iter().any(|note| note == "app 8 is left out: it has no key, no secret"));
        let closed = json!({ "id": "9", "key": "k", "secret": "s", "allowed_origins": "https://a/b" });
        let made = app(&mut plan, closed.as_object().unwrap(), "app 9").unwrap();
        assert_eq!(made["allowed_origins"], json!(["nobody.invalid"]), "a closed app does not become an open one");
    }
}
