//! `fulmar status`: how a node is and how it hears the others, in its own words.

use serde_json::{Value, json};

use crate::app::remote::Remote;
use crate::app::{rows, text};
use crate::args::AdminArgs;
use crate::client::{Failure, print};

/// What waits for the bus for longer than this is said to be behind.
const BUS_BEHIND_MS: u64 = 250;

pub fn status(admin: &AdminArgs) -> Result<(), Failure> {
    let remote = Remote::of(admin)?;
    let node = remote.call("GET", "/admin/v1/status", None, None)?;
    let backbone = remote.call("GET", "/admin/v1/backbone", None, None)?;
    print(&if admin.json {
        format!("{:#}\n", json!({ "node": node, "backbone": backbone }))
    } else {
        format!("{}{}", of_node(&node), of_backbone(&backbone))
    });
    Ok(())
}

fn of_node(node: &Value) -> String {
    let mut out = format!(
        "node      fulmar {} at {}, up for {} s, {} connections, {} apps\n",
        text(&node["version"]),
        text(&node["address"]),
        node["uptime_s"],
        node["connections"],
        node["apps"],
    );
    if let Some(problem) = node["registry_problem"].as_str() {
        out.push_str(&format!("apps      are not kept: {problem}\n"));
    }
    if let Some(problem) = node["metrics_problem"].as_str() {
        out.push_str(&format!("metrics   do not arrive at {problem}\n"));
    }
    for app in rows(node, "apps_not_served") {
        out.push_str(&format!("app       {} is not served: {}\n", text(&app["id"]), text(&app["problem"])));
    }
    out
}

fn of_backbone(backbone: &Value) -> String {
    if text(&backbone["kind"]) == "embedded" {
        return "backbone  embedded: this node is the whole deployment\n".to_owned();
    }
    let mut out = format!(
        "backbone  redis, as this node sees it: {} live nodes, {} publications accepted, {} refused, {} timed out\n",
        backbone["live_nodes"], backbone["accepted"], backbone["refused"], backbone["timed_out"],
    );
    for group in rows(backbone, "groups") {
        let is = |name: &str| group[name].as_bool().unwrap_or_default();
        let state = match (is("is_here"), is("hears")) {
            (true, true) => "here",
            (true, false) => "here, not yet heard",
            (false, _) => "AWAY",
        };
        let dropped = match group["edges_dropped"].as_u64() {
            None | Some(0) => String::new(),
            Some(count) => format!(", {count} EDGES FOR WEBHOOKS DROPPED"),
        };
        let mut detour = String::new();
        if is("over_the_bus") {
            detour.push_str(", publishing over the bus as well");
            let behind = group["bus_waits_ms"].as_u64().filter(|ms| *ms > BUS_BEHIND_MS);
            behind.into_iter().for_each(|ms| detour.push_str(&format!(", which is {ms} ms BEHIND")));
        }
        out.push_str(&format!(
            "group     {:<12} {:<21} {state}, epoch {}, {} bytes not in its log{detour}{dropped}\n",
            text(&group["name"]),
            group["server"].as_str().unwrap_or("no server known"),
            group["epoch"],
            group["unlogged_bytes"],
        ));
        if let Some(problem) = group["problem"].as_str() {
            out.push_str(&format!("          away because: {problem}\n"));
        }
    }
    for node in rows(backbone, "nodes") {
        let roles: Vec<&str> = rows(node, "roles").map(text).collect();
        out.push_str(&format!(
            "node      {} {:<21} {} connections, {}, release {}\n",
            text(&node["node"]),
            node["advertise"].as_str().unwrap_or("not reachable"),
            node["connections"],
            roles.join("+"),
            node["release"].as_str().unwrap_or("not said"),
        ));
    }
    for (what, name) in [("release", "releases"), ("apps", "apps"), ("settings", "settings")] {
        let mut said: Vec<&str> = rows(backbone, "nodes").filter_map(|node| node[what].as_str()).collect();
        said.sort_unstable();
        said.dedup();
        if said.len() > 1 {
            out.push_str(&format!("DIFFERENT the nodes' {name} are not alike: {}\n", said.join(", ")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NODE-8
    #[test]
    fn what_is_away_stands_out_and_what_is_not_known_is_said() {
        let backbone = json!({
            "kind": "redis", "live_nodes": 2, "accepted": 5, "refused": 0, "timed_out": 1,
            "groups": [
                { "name": "g1", "server": "10.0.0.1:6379", "is_here": true, "hears": true, "epoch": 3, "unlogged_bytes": 0 },
                { "name": "g2", "server": null, "is_here": false, "over_the_bus": true, "bus_waits_ms": 700, "epoch": 1, "unlogged_bytes": 9, "edges_dropped": 4,
                  "problem": "no connection to the server: Connection refused" },
            ],
            "nodes": [
                { "node": "00ff", "advertise": null, "roles": ["rest", "webhooks"], "connections": 0, "release": "0.2.0", "apps": "1f" },
                { "node": "0a", "advertise": "h:1", "roles": ["rest"], "connections": 0, "release": "0.2.0", "apps": "2f" },
            ],
        });
        let shown = of_backbone(&backbone);
        for part in [
            "2 live nodes",
            "g1           10.0.0.1:6379         here, epoch 3, 0 bytes",
            "g2           no server known       AWAY, epoch 1, 9 bytes not in its log, publishing over the bus as well, which is 700 ms BEHIND, 4 EDGES",
            "          away because: no connection to the server: Connection refused\n",
            "00ff not reachable         0 connections, rest+webhooks, release 0.2.0",
            "DIFFERENT the nodes' apps are not alike: 1f, 2f",
        ] {
            assert!(shown.contains(part), "{part} is not in:\n{shown}");
        }
        assert!(!shown.contains("releases are not alike"), "{shown}");
        assert!(of_backbone(&json!({ "kind": "embedded" })).contains("whole deployment"));
    }
}
