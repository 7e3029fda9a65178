//! Configuration files of soketi and sockudo. Both are JSON; soketi takes dotted names as well as nested ones.

use serde_json::{Map, Value};

use super::app::{app, plain};
use super::plan::{Plan, within};

/// Which of the two: they count the same periods in other units, and differ in what applies when nothing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    Soketi,
    Sockudo,
}

pub fn read(plan: &mut Plan, config: &Map<String, Value>, from: &str) {
    let is_sockudo = config.keys().any(|name| name.contains('_'));
    let product = if is_sockudo { Product::Sockudo } else { Product::Soketi };
    let mut leaves = Vec::new();
    for (name, value) in config {
        collect(&mut leaves, &plain(name), name, value);
    }
    take(plan, product, &leaves, from);
}

/// A setting: its name without case and underscores, as it was written, and its value.
pub type Leaf = (String, String, Value);

fn collect(leaves: &mut Vec<Leaf>, name: &str, written: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (inner, value) in fields {
                collect(leaves, &format!("{name}.{}", plain(inner)), &format!("{written}.{inner}"), value);
            }
        }
        value => leaves.push((name.to_owned(), written.to_owned(), value.clone())),
    }
}

/// Takes settings over.
pub fn take(plan: &mut Plan, product: Product, leaves: &[Leaf], from: &str) {
    defaults(plan, product);
    // They listen everywhere unless told otherwise.
    plan.set("server.host", "0.0.0.0", "the other server's default");
    let mut single = std::collections::BTreeMap::<String, Map<String, Value>>::new();
    for (name, written, value) in leaves {
        if let Some(rest) = name.strip_prefix("appmanager.array.apps") {
            match (rest.strip_prefix('.').and_then(|rest| rest.split_once('.')), value) {
                (Some((index, field)), value) => {
                    single.entry(index.to_owned()).or_default().insert(field.to_owned(), value.clone());
                }
                (None, Value::Array(apps)) => {
                    for (n, fields) in apps.iter().enumerate() {
                        let called =
                            fields["id"].as_str().map_or_else(|| format!("{written}.{n}"), |id| format!("app {id}"));
                        let made = fields.as_object().and_then(|fields| app(plan, fields, &called));
                        made.into_iter().for_each(|app| plan.add(app));
                    }
                }
                (None, _) => {}
            }
        } else {
            setting(plan, product, name, written, value, from);
        }
    }
    for (index, fields) in single {
        let made = app(plan, &fields, &format!("app {index} of {from}"));
        made.into_iter().for_each(|app| plan.add(app));
    }
}

/// What applies there when nothing is written, where it differs from what applies here: whoever relied on it without
/// knowing would otherwise find events refused.
pub fn defaults(plan: &mut Plan, product: Product) {
    plan.of_each_app("channel_name_max", 200);
    plan.of_each_app("event_data_bytes_max", 100 * 1_024);
    plan.of_each_app("presence_user_info_bytes_max", 2 * 1_024);
    plan.of_each_app("subscription_counts", true);
    if product == Product::Soketi {
        plan.of_each_app("client_events_per_s_max", 1_000_000);
    }
}

fn setting(plan: &mut Plan, product: Product, name: &str, written: &str, value: &Value, from: &str) {
    let source = format!("{written} of {from}");
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let number = text.trim().replace('_', "").parse::<f64>().ok().filter(|n| *n > 0.0);
    let is_on = matches!(text.to_lowercase().as_str(), "true" | "1" | "yes" | "on");
    let milliseconds = if product == Product::Soketi { 1.0 } else { 1_000.0 };
    let of_every_app = |plan: &mut Plan, ours: &'static str, factor: f64| {
        if let Some(n) = number {
            let n = within(plan, &format!("apps.{ours}"), (n * factor).ceil() as u64, &source);
            plan.of_each_app(ours, n);
        }
    };
    let of_node = |plan: &mut Plan, path: &'static str, factor: f64| {
        if let Some(n) = number {
            let n = within(plan, path, (n * factor).ceil() as u64, &source);
            plan.set(path, n, &source);
        }
    };
    match name {
        "port" => of_node(plan, "server.port", 1.0),
        "host" => plan.set("server.host", text, &source),
        "pathprefix" => {
            if !text.trim_matches('/').is_empty() {
                plan.set("server.path_prefix", format!("/{}", text.trim_matches('/')), &source);
            }
        }
        "ssl.certpath" if !text.is_empty() => plan.set("tls.cert", text, &source),
        "ssl.keypath" if !text.is_empty() => plan.set("tls.key", text, &source),
        "ssl.enabled" | "ssl.certpath" | "ssl.keypath" => {}
        "debug" | "debugmode" => {
            if is_on {
                plan.set("logging.level", "debug", &source);
            }
        }
        "shutdowngraceperiod" => of_node(plan, "shutdown.drain_s", milliseconds / 1_000.0),
        "activitytimeout" => of_node(plan, "server.activity_timeout_s", 1.0),
        "httpapi.requestlimitinmb" => of_node(plan, "limits.request_body_bytes_max", 1_048_576.0),
        "websocketmaxpayloadkb" => of_node(plan, "limits.message_bytes_max", 1_024.0),
        "userauthenticationtimeout" => {
            of_every_app(plan, "authorized_connections_timeout_s", milliseconds / 1_000.0);
        }
        "channellimits.maxnamelength" => of_every_app(plan, "channel_name_max", 1.0),
        "channellimits.cachettl" => of_every_app(plan, "cache_ttl_s", 1.0),
        "eventlimits.maxbatchsize" => of_every_app(plan, "batch_events_max", 1.0),
        "eventlimits.maxchannelsatonce" => of_every_app(plan, "publish_channels_max", 1.0),
        "eventlimits.maxnamelength" => of_every_app(plan, "event_name_max", 1.0),
        "eventlimits.maxpayloadinkb" => of_every_app(plan, "event_data_bytes_max", 1_024.0),
        "presence.maxmembersperchannel" => of_every_app(plan, "presence_members_max", 1.0),
        "presence.maxmembersizeinkb" => of_every_app(plan, "presence_user_info_bytes_max", 1_024.0),
        "appmanager.driver" => match text.as_str() {
            "array" | "memory" => {}
            "mysql" | "postgres" | "pgsql" => {
                plan.note(format!("{source} is {text}: `fulmar app import` reads the apps from that database"));
            }
            _ => plan.lacks(&source, "apps are not read from there"),
        },
        _ => without_counterpart(plan, name, &source, &text),
    }
}

/// Says of a whole group, once, what becomes of it.
fn without_counterpart(plan: &mut Plan, name: &str, source: &str, text: &str) {
    let is_off = matches!(text, "" | "null" | "false" | "0" | "[]" | "{}" | "local" | "memory" | "sync" | "none");
    if is_off {
        return;
    }
    let group = name.split('.').next().unwrap_or(name);
    let why = match group {
        "adapter" | "cluster" => "one node needs no other to reach its subscribers",
        "cache" | "queue" | "ratelimiter" | "databasepooling" => "a node keeps this itself",
        "database" | "appmanager" => "apps come from this file or from `fulmar app`",
        "metrics" => "figures are not served in that form; metrics.statsd sends them",
        "cors" => "the API is for servers; which pages may connect stands in allowed_origins",
        "ssl" => "certificate and key are read as PEM without a passphrase",
        "webhooks" => "webhooks are batched always",
        _ => "there is no such setting here",
    };
    match group {
        "adapter" | "cluster" | "cache" | "queue" | "ratelimiter" | "database" | "databasepooling" | "metrics"
        | "cors" => {
            plan.note(format!("settings of {group} have no counterpart: {why}"));
        }
        _ => plan.lacks(source, why),
    }
}
