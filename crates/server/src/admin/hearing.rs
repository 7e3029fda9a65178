//! How this node hears the others: its own sight of the groups and of the nodes, as JSON.

use fulmar_backbone::redis::lease::Lease;
use fulmar_backbone::redis::{Figures, GroupFigures, RedisBackbone};
use serde_json::{Map, Value, json};

/// What stands behind `GET /admin/v1/backbone`.
pub(super) fn shown(redis: Option<&RedisBackbone>) -> Value {
    match redis {
        None => json!({ "kind": "embedded" }),
        Some(redis) => over_redis(&redis.figures(), &redis.leases()),
    }
}

fn over_redis(figures: &Figures, leases: &[Lease]) -> Value {
    let mut nodes: Vec<Value> = leases.iter().map(node).collect();
    nodes.sort_by_key(|node| node["node"].to_string());
    json!({
        "kind": "redis",
        "live_nodes": figures.live_nodes,
        "accepted": figures.accepted,
        "refused": figures.refused,
        "timed_out": figures.timed_out,
        "without_replica": figures.without_replica,
        "repeats": figures.repeats,
        "holes": figures.holes,
        "groups": figures.groups.iter().filter(|group| !group.is_left).map(group).collect::<Vec<_>>(),
        "nodes": nodes,
    })
}

fn group(group: &GroupFigures) -> Value {
    json!({
        "name": group.name,
        "server": group.address,
        "is_here": group.is_here,
        "problem": group.problem,
        "hears": group.hears,
        "epoch": group.epoch,
        "over_the_bus": group.over_the_bus,
        "circuit_openings": group.circuit_openings,
        "bus_waits_ms": group.bus_waits_ms,
        "unlogged_bytes": group.unlogged_bytes,
        "filled": group.filled,
        "gaps": group.gaps,
        "edges_dropped": group.edges_dropped,
    })
}

fn node(lease: &Lease) -> Value {
    let roles = [("websocket", lease.roles.websocket), ("rest", lease.roles.rest), ("webhooks", lease.roles.webhooks)];
    let roles: Vec<&str> = roles.into_iter().filter_map(|(name, has)| has.then_some(name)).collect();
    let attached: Map<String, Value> =
        lease.attached.iter().map(|(name, epoch)| (name.clone(), (*epoch).into())).collect();
    json!({
        "node": lease.node,
        "advertise": lease.advertise,
        "roles": roles,
        "attached": attached,
        "connections": lease.connections.iter().map(|(_, count)| count).sum::<u64>(),
        "release": lease.about.release,
        "apps": lease.about.apps,
        "settings": lease.about.settings,
        "open_files": lease.about.open_files,
    })
}

#[cfg(test)]
mod tests {
    use fulmar_backbone::redis::lease::About;
    use fulmar_backbone::redis::settings::Roles;

    use super::*;

    /// NODE-8
    #[test]
    fn the_sight_of_groups_and_nodes_is_shown_as_it_is() {
        assert_eq!(shown(None), json!({ "kind": "embedded" }));
        let here = GroupFigures {
            name: "g1".into(),
            address: Some("h:1".into()),
            is_here: true,
            epoch: 3,
            ..GroupFigures::default()
        };
        let away = GroupFigures {
            name: "g2".into(),
            unlogged_bytes: 7,
            over_the_bus: true,
            problem: Some("WRONGPASS".into()),
            ..GroupFigures::default()
        };
        let left = GroupFigures { name: "g0".into(), is_left: true, ..GroupFigures::default() };
        let figures = Figures { live_nodes: 2, groups: vec![here, left, away], ..Figures::default() };
        let lease = Lease {
            node: "00ff".into(),
            advertise: Some("h:6001".into()),
            roles: Roles { websocket: true, rest: false, webhooks: true },
            attached: vec![("g1".into(), 3)],
            connections: vec![("a".into(), 2), ("b".into(), 3)],
            about: About {
                release: "0.2.0".into(),
                apps: "1f".into(),
                settings: "2e".into(),
                open_files: 9,
                ..About::default()
            },
            ..Lease::default()
        };
        let value = over_redis(&figures, &[lease]);
        assert_eq!((&value["live_nodes"], &value["groups"][0]["server"]), (&json!(2), &json!("h:1")));
        assert_eq!(value["groups"][1]["server"], Value::Null);
        assert_eq!(value["groups"][1]["unlogged_bytes"], 7);
        assert_eq!(
            [&value["groups"][0]["problem"], &value["groups"][1]["problem"]],
            [&Value::Null, &json!("WRONGPASS")]
        );
        assert_eq!(
            value["nodes"][0],
            json!({
                "node": "00ff", "advertise": "h:6001", "roles": ["websocket", "webhooks"], "attached": { "g1": 3 },
                "connections": 5, "release": "0.2.0", "apps": "1f", "settings": "2e", "open_files": 9,
            })
        );
    }
}
