//! Environment variables of soketi (`SOKETI_...`), sockudo (`SOCKUDO_...`) and Laravel Reverb (`REVERB_...`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::app::app;
use super::json::{Leaf, Product, take};
use super::plan::{Plan, within};

/// soketi's variables, without their prefix, and the settings they stand for, where the name alone does not say it.
const SOKETI: &[(&str, &str)] = &[
    ("DEFAULT_APP_MAX_CONNS", "appmanager.array.apps.0.maxconns"),
    ("CHANNEL_LIMITS_MAX_NAME_LENGTH", "channellimits.maxnamelength"),
    ("CHANNEL_CACHE_TTL", "channellimits.cachettl"),
    ("EVENT_MAX_BATCH_SIZE", "eventlimits.maxbatchsize"),
    ("EVENT_MAX_CHANNELS_AT_ONCE", "eventlimits.maxchannelsatonce"),
    ("EVENT_MAX_NAME_LENGTH", "eventlimits.maxnamelength"),
    ("EVENT_MAX_SIZE_IN_KB", "eventlimits.maxpayloadinkb"),
    ("PRESENCE_MAX_MEMBER_SIZE", "presence.maxmembersizeinkb"),
    ("PRESENCE_MAX_MEMBERS", "presence.maxmembersperchannel"),
    ("HTTP_MAX_REQUEST_SIZE", "httpapi.requestlimitinmb"),
    ("SSL_CERT", "ssl.certpath"),
    ("SSL_KEY", "ssl.keypath"),
    ("SSL_PASS", "ssl.passphrase"),
    ("SSL_CA", "ssl.capath"),
    ("APP_MANAGER_DRIVER", "appmanager.driver"),
    ("ADAPTER_DRIVER", "adapter.driver"),
    ("METRICS_SERVER_PORT", "metrics.port"),
];
/// Beginnings of variables whose settings are groups of their own.
const GROUPS: &[(&str, &str)] = &[
    ("DEFAULT_APP_", "appmanager.array.apps.0."),
    ("ADAPTER_", "adapter."),
    ("APP_MANAGER_", "appmanager."),
    ("CACHE_", "cache."),
    ("CLUSTER_", "cluster."),
    ("DB_POOLING_", "databasepooling."),
    ("DB_", "database."),
    ("DATABASE_", "database."),
    ("REDIS_", "database."),
    ("NATS_", "adapter."),
    ("METRICS_", "metrics."),
    ("QUEUE_", "queue."),
    ("RATE_LIMITER_", "ratelimiter."),
    ("WEBHOOKS_", "webhooks."),
    ("WEBHOOK_", "webhooks."),
    ("CORS_", "cors."),
];
/// sockudo's variables without a prefix of its own. Other programs have some of these too, so they count only beside one
/// that has it.
const SOCKUDO: &[(&str, &str)] = &[
    ("HOST", "host"),
    ("PORT", "port"),
    ("DEBUG_MODE", "debugmode"),
    ("SSL_CERT_PATH", "ssl.certpath"),
    ("SSL_KEY_PATH", "ssl.keypath"),
    ("SHUTDOWN_GRACE_PERIOD", "shutdowngraceperiod"),
    ("USER_AUTHENTICATION_TIMEOUT", "userauthenticationtimeout"),
    ("ACTIVITY_TIMEOUT", "activitytimeout"),
    ("WEBSOCKET_MAX_PAYLOAD_KB", "websocketmaxpayloadkb"),
    ("ADAPTER_DRIVER", "adapter.driver"),
    ("APP_MANAGER_DRIVER", "appmanager.driver"),
    ("QUEUE_DRIVER", "queue.driver"),
    ("CACHE_DRIVER", "cache.driver"),
    ("RATE_LIMITER_ENABLED", "ratelimiter.enabled"),
];

pub fn read(plan: &mut Plan, variables: &BTreeMap<String, String>, from: &str) {
    let set: BTreeMap<&str, &str> =
        variables.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let has = |prefix: &str| set.keys().any(|name| name.starts_with(prefix));
    if has("SOKETI_") {
        take(plan, Product::Soketi, &prefixed(&set, "SOKETI_"), from);
    }
    if has("SOCKUDO_") {
        let mut leaves = prefixed(&set, "SOCKUDO_");
        let bare = SOCKUDO.iter().filter_map(|(name, ours)| Some((name, ours, set.get(name)?)));
        leaves.extend(bare.map(|(name, ours, value)| ((*ours).to_owned(), (*name).to_owned(), as_json(value))));
        take(plan, Product::Sockudo, &leaves, from);
    }
    if has("REVERB_") {
        reverb(plan, &set, from);
    }
    // What a Laravel application publishes with is what its server must know.
    if plan.apps().is_empty() && set.contains_key("PUSHER_APP_SECRET") {
        let field = |ours: &str, name: &str| Some((ours.to_owned(), Value::from(*set.get(name)?)));
        let fields = [("id", "PUSHER_APP_ID"), ("key", "PUSHER_APP_KEY"), ("secret", "PUSHER_APP_SECRET")];
        let fields: Map<String, Value> = fields.iter().filter_map(|(ours, name)| field(ours, name)).collect();
        app(plan, &fields, &format!("PUSHER_APP_... of {from}")).into_iter().for_each(|app| plan.add(app));
    }
}

fn prefixed(set: &BTreeMap<&str, &str>, prefix: &str) -> Vec<Leaf> {
    let own = set.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, name, value)));
    own.map(|(rest, name, value)| (setting_of(rest), (*name).to_owned(), as_json(value))).collect()
}

fn setting_of(name: &str) -> String {
    // One switch of sockudo lacks the words the others have.
    let name = if name == "ENABLE_CLIENT_MESSAGES" { "DEFAULT_APP_ENABLE_CLIENT_MESSAGES" } else { name };
    if let Some((_, ours)) = SOKETI.iter().find(|(theirs, _)| *theirs == name) {
        return (*ours).to_owned();
    }
    let group = GROUPS.iter().find_map(|(begins, ours)| Some((name.strip_prefix(begins)?, ours)));
    group.map_or_else(|| super::app::plain(name), |(rest, ours)| format!("{ours}{}", super::app::plain(rest)))
}

/// Lists are written as JSON; everything else stays the text it is: an id of digits is no number.
fn as_json(text: &str) -> Value {
    let is_list = text.starts_with('[') || text.starts_with('{');
    let parsed = if is_list { serde_json::from_str(text).ok() } else { None };
    parsed.unwrap_or_else(|| text.into())
}

fn reverb(plan: &mut Plan, set: &BTreeMap<&str, &str>, from: &str) {
    let number = |name: &str| set.get(name).and_then(|text| text.replace('_', "").parse::<u64>().ok());
    plan.set("server.host", "0.0.0.0", "Reverb's default");
    plan.set("server.port", 8_080, "Reverb's default");
    // Whoever is told of a client's silence after 30 s there should not wait for 120 s here.
    plan.set("server.activity_timeout_s", 30, "Reverb's default");
    let mut fields = Map::new();
    for (name, value) in set.iter().filter(|(name, _)| name.starts_with("REVERB_")) {
        let source = format!("{name} of {from}");
        let mut of_node = |path: &'static str| {
            if let Some(n) = number(name) {
                let n = within(plan, path, n, &source);
                plan.set(path, n, &source);
            }
        };
        let mut of_app = |ours: &str| drop(fields.insert(ours.to_owned(), as_json(value)));
        match *name {
            "REVERB_SERVER_HOST" => plan.set("server.host", *value, &source),
            "REVERB_SERVER_PORT" => of_node("server.port"),
            "REVERB_SERVER_PATH" => {
                plan.set("server.path_prefix", format!("/{}", value.trim_matches('/')), &source);
            }
            "REVERB_MAX_REQUEST_SIZE" => of_node("limits.request_body_bytes_max"),
            "REVERB_APP_MAX_MESSAGE_SIZE" => of_node("limits.message_bytes_max"),
            "REVERB_APP_ACTIVITY_TIMEOUT" => of_node("server.activity_timeout_s"),
            "REVERB_APP_ID" => of_app("id"),
            "REVERB_APP_KEY" => of_app("key"),
            "REVERB_APP_SECRET" => of_app("secret"),
            "REVERB_APP_MAX_CONNECTIONS" => of_app("maxconnections"),
            "REVERB_ALLOWED_ORIGINS" | "REVERB_APP_ALLOWED_ORIGINS" => of_app("allowedorigins"),
            "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM" => {
                fields.insert("enableclientmessages".to_owned(), (*value != "none").into());
            }
            "REVERB_HOST" | "REVERB_PORT" | "REVERB_SCHEME" => {
                plan.note("REVERB_HOST, REVERB_PORT and REVERB_SCHEME say where clients find the server: they stay as they are");
            }
            "REVERB_SERVER" => {}
            "REVERB_APP_PING_INTERVAL" => {
                plan.lacks(&source, "a silent connection is pinged after its activity time-out")
            }
            _ if name.starts_with("REVERB_SCALING") => {
                plan.note(
                    "settings of REVERB_SCALING have no counterpart: one node needs no other to reach its subscribers",
                );
            }
            _ if value.is_empty() || *value == "false" => {}
            _ => plan.lacks(&source, "there is no such setting here"),
        }
    }
    if fields.contains_key("id") || fields.contains_key("key") {
        fields.entry("enableclientmessages").or_insert(Value::Bool(true));
        app(plan, &fields, &format!("the app of {from}")).into_iter().for_each(|app| plan.add(app));
    }
}
