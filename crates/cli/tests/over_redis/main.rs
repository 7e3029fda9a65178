//! Whole nodes over real Redis, as clients and apps' servers see them: what one node takes and another one gives.
//!
//! What nodes do for each other at their HTTP ports is tested in `nodes.rs`; how messages travel, with the backbone. Skipped,
//! loudly, where there is no `redis-server`.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod bus;
mod death;
mod drain;
mod quota;
mod rates;
mod repeats;
mod sentinels;
mod start_up;
mod start_up_redis_cluster;
mod tls;
mod webhooks;

use std::fs;
use std::path::Path;
use std::time::Duration;

use fulmar_protocol::app::App;
use fulmar_rig::{Node, NodeOptions, Ready, Redis, RedisOptions, Subscriber, http, is_available};
use serde_json::Value;

/// Within what anything that is expected must come.
const PATIENCE: Duration = Duration::from_secs(30);

fn app() -> App {
    App::new("1", "k", "s")
}

/// The rules of the user that the README gives nodes, less name and password: of those lists that one with this rule. What they
/// allow must be enough.
fn rules_of_the_readme(rule: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let mut lists = text.lines().filter_map(|line| line.strip_prefix("user fulmar on >PASSWORD "));
    let found = lists.find(|list| list.split(' ').any(|word| word.starts_with(rule)));
    found.expect("the README has it").to_owned()
}

/// What it says that Redis Cluster asks for as well.
fn rules_of_the_readme_for_redis_cluster() -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Redis Cluster asks for ")).expect("the README says so");
    let quoted = line.split('`').skip(1).step_by(2);
    format!("{} {}", rules_of_the_readme("+eval"), quoted.collect::<Vec<_>>().join(" "))
}

/// One Redis, and the lines by which nodes find it; `None`, said loudly, where there is no program for one.
fn one_redis() -> Option<(Redis, String)> {
    if !is_available() {
        return None;
    }
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    let lines = format!("addresses = [\"{}\"]", redis.addr());
    Some((redis, lines))
}

/// A node of the real binary with `app` and these further lines of configuration, of which `[backbone]` comes last.
fn node(of_app: &str, backbone: &str, ready: Ready) -> Node {
    node_with(of_app, backbone, ready, &NodeOptions::default())
}

/// The same, with more to say.
fn node_with(of_app: &str, backbone: &str, ready: Ready, options: &NodeOptions) -> Node {
    let config = format!(
        "[server]\nworkers = 1\n[shutdown]\ndrain_s = 0\n[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n{of_app}\n\
         [backbone]\nkind = \"redis\"\n{backbone}\n"
    );
    Node::start_with(Path::new(env!("CARGO_BIN_EXE_fulmar")), &config, ready, options).unwrap()
}

/// A connection to a node.
fn connect(node: &Node) -> Subscriber {
    Subscriber::connect(node.addr(), &app(), PATIENCE).unwrap()
}

/// A node's own sight of its only group.
fn sight(node: &Node) -> Option<Value> {
    let answer = http::ask_admin(&node.storage(), "/admin/v1/backbone", PATIENCE).ok()?;
    answer.json()["groups"].get(0).cloned()
}

/// Publishes through a node, which must take it.
fn publish(node: &Node, channel: &str, data: &str) {
    let answer = http::Rest::new(node.addr(), &app()).publish(channel, data).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// The next event that is not about the protocol itself.
fn next_event(subscriber: &mut Subscriber) -> (String, String) {
    let event = subscriber.event().unwrap();
    (event["event"].as_str().unwrap_or_default().to_owned(), event["data"].as_str().unwrap_or_default().to_owned())
}
