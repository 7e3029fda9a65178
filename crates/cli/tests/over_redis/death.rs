//! A node dies while a group is away that knew of it: it is found dead by the others.

use fulmar_rig::{Node, Ready, SentinelDeployment, SentinelOptions, eventually, http, is_available};
use serde_json::{Value, json};

use super::{PATIENCE, connect, next_event, node};

const GROUPS: [&str; 2] = ["g1", "g2"];
/// Presence channels; each group has some of them.
const ROOMS: usize = 8;

/// What a node shows of the others.
fn shown(node: &Node) -> Option<Value> {
    http::ask_admin(&node.storage(), "/admin/v1/backbone", PATIENCE).ok().map(|answer| answer.json())
}

/// RED-28
#[test]
fn a_node_that_dies_while_a_group_is_away_is_found_dead_in_the_others_and_its_members_are_told_to_be_gone() {
    if !is_available() {
        return;
    }
    let servers = SentinelDeployment::start(&GROUPS.map(|group| (group, 1)), 3, &SentinelOptions::default()).unwrap();
    let named: Vec<_> = servers.sentinels().iter().map(|sentinel| format!("\"{}\"", sentinel.redis.addr())).collect();
    let backbone = format!("topology = \"sentinel\"\nsentinels = [{}]\ngroups = [\"g1\", \"g2\"]", named.join(", "));
    let [stays, dies] = [(); 2].map(|()| node("", &backbone, Ready::ForTraffic));
    let hears = |node: &Node| {
        let value = shown(node)?;
        let hears_all = value["groups"].as_array()?.iter().all(|group| group["hears"] == true);
        (hears_all && value["live_nodes"] == 2).then_some(())
    };
    for node in [&stays, &dies] {
        eventually("they know each other in both groups", PATIENCE, || hears(node)).unwrap();
    }
    let (mut watcher, mut ana) = (connect(&stays), connect(&dies));
    for room in (0..ROOMS).map(|n| format!("presence-room-{n}")) {
        watcher.subscribe(&room, Some(("watcher", &json!({})))).unwrap();
        ana.subscribe(&room, Some(("ana", &json!({})))).unwrap();
        assert_eq!(next_event(&mut watcher).0, "pusher_internal:member_added");
    }

    servers.group("g1").unwrap().servers.iter().for_each(|server| server.redis.kill());
    let is_away = || (shown(&stays)?["groups"][0]["is_here"] == false).then_some(());
    eventually("the group is away", PATIENCE, is_away).unwrap();
    dies.kill();
    let (event, data) = next_event(&mut watcher);
    assert!(event == "pusher_internal:member_removed" && data.contains("ana"), "{event} {data}\n{}", stays.log());
    let is_alone = || (shown(&stays)?["live_nodes"] == 1).then_some(());
    eventually("one node is left", PATIENCE, is_alone).unwrap();
}
