//! The description of the admin API (OpenAPI 3.1), made of the tables that the API itself works from: the routes, and the
//! keys of `[[apps]]`.

use fulmar_protocol::webhook::EventKind;
use serde_json::{Map, Value, json};

use super::routes::{Call, ROUTES, Route};
use crate::config::{KEYS, Kind};

/// The description.
#[must_use]
pub fn description() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let mut operation = json!({
            "operationId": format!("{:?}", route.call).to_lowercase(),
            "summary": route.summary,
            "responses": {
                route.status.to_string(): { "description": "Done", "content": answered(route) },
                "default": { "description": "Not done; the error says why", "content": content("Error") },
            },
        });
        let parameters = parameters(route);
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if !route.takes.is_empty() {
            operation["requestBody"] = json!({ "content": content(route.takes) });
        }
        if super::routes::is_open(route.path) {
            operation["security"] = json!([]);
        }
        let entry = paths.entry(route.path).or_insert_with(|| json!({}));
        entry[route.method.to_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Fulmar admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Apps of one node, and their channels. Every call carries Authorization: Bearer TOKEN; X-Fulmar-Actor names who \
                            calls, for the audit log.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:6002" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
    })
}

/// What varies in the path, and what may stand in the query or the head.
fn parameters(route: &Route) -> Vec<Value> {
    let mut parameters = Vec::new();
    for name in ["id", "name"] {
        if route.path.contains(&format!("{{{name}}}")) {
            parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": text() }));
        }
    }
    let mut query = |name: &str, schema: Value, description: &str| {
        parameters.push(json!({ "name": name, "in": "query", "schema": schema, "description": description }));
    };
    match route.call {
        Call::Audit => {
            query("limit", json!({ "type": "integer", "default": 100, "maximum": 1000 }), "How many entries");
        }
        Call::Channels => {
            query("filter_by_prefix", text(), "Only channels whose names begin so");
            query(
                "partial",
                json!({ "type": "boolean" }),
                "Whether it may lack what cannot be asked now, and then says so",
            );
            query("info", text(), "user_count, subscription_count; several separated by commas");
        }
        Call::Channel => query("info", text(), "user_count, subscription_count, cache; several separated by commas"),
        Call::Watch => {
            query("also", list(text()), "A further channel; may be repeated");
            query("user_id", text(), "Who to be on presence channels");
            query("user_info", text(), "What the others shall know of that user, as JSON");
        }
        _ => {}
    }
    match route.call {
        Call::Edit => parameters.push(json!({
            "name": "If-Match", "in": "header", "schema": text(),
            "description": "The revision that was seen; 412 when the app is at another",
        })),
        Call::Publish => parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "schema": text(),
            "description": "The same key with the same call within 120 seconds publishes nothing twice",
        })),
        _ => {}
    }
    parameters
}

fn answered(route: &Route) -> Value {
    match route.call {
        Call::Watch => json!({ "application/x-ndjson": { "schema": reference(route.answers) } }),
        _ => content(route.answers),
    }
}

fn content(schema: &str) -> Value {
    json!({ "application/json": { "schema": reference(schema) } })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn number() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn maybe(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn object(properties: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required })
}

fn schemas() -> Value {
    let mut all = taken();
    for more in [of_apps(), of_channels(), of_the_node()] {
        all.extend(more);
    }
    all.into()
}

/// What calls take.
fn taken() -> Map<String, Value> {
    let made = json!({ "type": "string", "description": "Made when none is given." });
    let which = json!({ "enum": ["previous", "new"], "default": "previous" });
    Map::from_iter([
        ("Settings".to_owned(), settings()),
        ("Rotate".to_owned(), object(json!({ "secret": made }), &[])),
        ("Retire".to_owned(), object(json!({ "secret": which }), &[])),
        ("Revert".to_owned(), object(json!({ "revision": number() }), &["revision"])),
        ("Replay".to_owned(), object(json!({ "id": { "type": "string", "description": "All, without it." } }), &[])),
    ])
}

/// What is answered about apps.
fn of_apps() -> Map<String, Value> {
    let app = json!({
        "id": text(),
        "source": { "enum": ["configuration", "demo", "registry"] },
        "revision": maybe("integer"),
        "problem": maybe("string"),
        "secrets": number(),
        "settings": reference("Settings"),
    });
    let changed = json!({
        "id": text(),
        "verb": reference("Verb"),
        "revision": number(),
        "changed": list(text()),
        "secret": { "type": "string", "description": "A secret that was made. It is never shown again." },
        "app": reference("App"),
    });
    let revision = json!({
        "revision": number(),
        "at_ms": number(),
        "who": text(),
        "verb": reference("Verb"),
        "changed": list(text()),
        "settings": { "type": "object" },
    });
    let revision = object(revision, &["revision", "at_ms", "who", "verb", "changed", "settings"]);
    let verbs = ["add", "edit", "disable", "enable", "remove", "keys-rotate", "keys-retire", "revert"];
    Map::from_iter([
        ("App".to_owned(), object(app, &["id", "source", "revision", "problem", "secrets", "settings"])),
        ("Apps".to_owned(), object(json!({ "apps": list(reference("App")) }), &["apps"])),
        ("Changed".to_owned(), object(changed, &["id", "verb", "revision", "changed"])),
        ("Verb".to_owned(), json!({ "enum": verbs })),
        ("History".to_owned(), object(json!({ "id": text(), "revisions": list(revision) }), &["id", "revisions"])),
    ])
}

/// What is taken and answered where somebody acts in an app's name.
fn of_channels() -> Map<String, Value> {
    let event = json!({
        "name": text(),
        "data": { "type": "string", "description": "Passed on as it is; SDKs parse JSON." },
        "channels": list(text()),
        "channel": { "type": "string", "description": "Instead of channels." },
        "socket_id": { "type": "string", "description": "The one connection that shall not receive it." },
        "info": { "type": "string", "description": "What to tell of the channels: user_count, subscription_count." },
    });
    let counts = json!({ "user_count": number(), "subscription_count": number() });
    let by_name = json!({ "type": "object", "additionalProperties": object(counts, &[]) });
    let cached = json!({ "type": ["object", "null"], "properties": { "data": text(), "ttl": number() } });
    let channel = json!({
        "occupied": { "type": "boolean" }, "user_count": number(), "subscription_count": number(), "cache": cached,
    });
    let message = json!({
        "event": { "type": "string", "description": "As on a WebSocket; fulmar:closed, with code and message in data, \
                                                     is the last one." },
        "channel": text(),
        "data": { "type": ["string", "object"] },
        "user_id": text(),
    });
    let users = list(object(json!({ "id": text() }), &["id"]));
    Map::from_iter([
        ("Event".to_owned(), object(event, &["name", "data"])),
        ("Published".to_owned(), object(json!({ "channels": by_name }), &[])),
        ("Channels".to_owned(), object(json!({ "channels": by_name }), &["channels"])),
        ("Channel".to_owned(), object(channel, &["occupied"])),
        ("Members".to_owned(), object(json!({ "users": users }), &["users"])),
        ("Message".to_owned(), object(message, &["event", "data"])),
    ])
}

/// What is answered about the node, and about calls that were not done.
fn of_the_node() -> Map<String, Value> {
    let entry = json!({
        "at_ms": number(),
        "who": text(),
        "peer": text(),
        "call": text(),
        "app": text(),
        "outcome": { "enum": ["done", "failed", "no-token"] },
        "revision": number(),
        "changed": list(text()),
        "error": text(),
        "times": number(),
        "channels": list(text()),
    });
    let status = json!({
        "version": text(),
        "address": text(),
        "uptime_s": number(),
        "connections": number(),
        "apps": number(),
        "apps_not_served": list(object(json!({ "id": text(), "problem": text() }), &["id", "problem"])),
        "registry_problem": maybe("string"),
        "metrics_problem": maybe("string"),
    });
    let told = [
        "version",
        "address",
        "uptime_s",
        "connections",
        "apps",
        "apps_not_served",
        "registry_problem",
        "metrics_problem",
    ];
    let entries = list(object(entry, &["at_ms", "peer", "outcome"]));
    Map::from_iter([
        ("Audit".to_owned(), object(json!({ "entries": entries }), &["entries"])),
        ("Status".to_owned(), object(status, &told)),
        ("Backbone".to_owned(), backbone()),
        ("Webhook".to_owned(), webhook()),
        ("Webhooks".to_owned(), webhooks()),
        ("Replayed".to_owned(), object(json!({ "replayed": number() }), &["replayed"])),
        ("Description".to_owned(), json!({ "type": "object" })),
        ("Error".to_owned(), object(json!({ "error": text() }), &["error"])),
    ])
}

/// How a node hears the others; only `kind` where it hears nobody.
fn backbone() -> Value {
    let switch = json!({ "type": "boolean" });
    let group = json!({
        "name": text(),
        "server": maybe("string"),
        "is_here": switch,
        "problem": maybe("string"),
        "hears": switch,
        "epoch": number(),
        "over_the_bus": switch,
        "circuit_openings": number(),
        "bus_waits_ms": number(),
        "unlogged_bytes": number(),
        "filled": number(),
        "gaps": number(),
        "edges_dropped": number(),
    });
    let group = object(group, &["name", "server", "is_here", "hears", "epoch", "over_the_bus", "unlogged_bytes"]);
    let node = json!({
        "node": text(),
        "advertise": maybe("string"),
        "roles": list(text()),
        "attached": { "type": "object", "additionalProperties": { "type": "integer" }, "description": "Epoch by group." },
        "connections": number(),
        "release": text(),
        "apps": text(),
        "settings": text(),
        "open_files": number(),
    });
    let node = object(node, &["node", "advertise", "roles", "attached", "connections"]);
    let all = json!({
        "kind": { "enum": ["embedded", "redis"] },
        "live_nodes": number(),
        "accepted": number(),
        "refused": number(),
        "timed_out": number(),
        "without_replica": number(),
        "repeats": number(),
        "holes": number(),
        "groups": list(group),
        "nodes": list(node),
    });
    object(all, &["kind"])
}

/// One endpoint of `webhooks`.
fn webhook() -> Value {
    let kinds = EventKind::ALL.map(EventKind::name);
    let properties = json!({
        "url": { "type": "string", "format": "uri" },
        "events": { "type": "array", "items": { "enum": kinds } },
        "channel_prefix": { "type": "string" },
        "headers": { "type": "object", "additionalProperties": { "type": "string" }, "description": "Values never show." },
    });
    json!({ "type": "object", "properties": properties, "required": ["url"] })
}

/// What waits and what was given up.
fn webhooks() -> Value {
    let line = json!({
        "app": text(), "url": text(), "pending": number(), "oldest_ms": number(), "failures": number(),
        "error": maybe("string"),
    });
    let old = json!({
        "id": text(), "app": text(), "url": text(), "events": number(), "sealed_ms": number(), "at_ms": number(),
    });
    let properties = json!({
        "pending": number(),
        "oldest_pending_ms": number(),
        "delivered": number(),
        "attempts_failed": number(),
        "given_up_since_start": number(),
        "waiting": list(object(line, &["app", "url", "pending", "oldest_ms", "failures", "error"])),
        "given_up": list(object(old, &["id", "app", "url", "events", "sealed_ms", "at_ms"])),
    });
    object(properties, &["pending", "oldest_pending_ms", "delivered", "attempts_failed", "waiting", "given_up"])
}

/// The keys of `[[apps]]`, as `fulmar config explain` has them.
fn settings() -> Value {
    let mut properties = Map::new();
    for key in KEYS.iter().filter(|key| key.section() == "apps" && !matches!(key.kind, Kind::Path)) {
        let mut schema = match key.kind {
            Kind::Integer { min, max: u64::MAX } => json!({ "type": ["integer", "null"], "minimum": min }),
            Kind::Integer { min, max } => json!({ "type": ["integer", "null"], "minimum": min, "maximum": max }),
            Kind::Switch => json!({ "type": ["boolean", "null"] }),
            Kind::OneOf(words) => json!({ "enum": words }),
            Kind::List(_) => json!({ "type": ["array", "null"], "items": { "type": "string" } }),
            Kind::Text(_) | Kind::Path => json!({ "type": ["string", "null"] }),
            Kind::Secret => json!({ "type": ["string", "null"], "writeOnly": true }),
            Kind::Webhooks => json!({ "type": ["array", "null"], "items": { "$ref": "#/components/schemas/Webhook" } }),
            Kind::Capacities => json!({ "type": ["object", "null"] }),
        };
        schema["description"] = format!("{} Default: {}.", key.meaning, key.preset_text()).into();
        properties.insert(key.name().to_owned(), schema);
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}
