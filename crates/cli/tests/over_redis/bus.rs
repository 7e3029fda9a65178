//! What nodes take while a group has no primary: they tell it to each other over another server.

use fulmar_rig::{Node, Ready, SentinelDeployment, SentinelOptions, eventually, http};

use super::{PATIENCE, app, connect, next_event, node, publish, sight};

/// A group with two replicas, and the lines by which nodes find it.
fn deployment(options: &SentinelOptions) -> Option<(SentinelDeployment, String)> {
    if !fulmar_rig::is_available() {
        eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
        return None;
    }
    let servers = SentinelDeployment::start(&[("g1", 2)], 3, options).unwrap();
    let named: Vec<_> = servers.sentinels().iter().map(|sentinel| format!("\"{}\"", sentinel.redis.addr())).collect();
    let lines = format!("topology = \"sentinel\"\nsentinels = [{}]\ngroups = [\"g1\"]", named.join(", "));
    Some((servers, lines))
}

/// Whether a node hears its group's primary.
fn hears(node: &Node) -> Option<()> {
    sight(node).filter(|group| group["hears"] == true && group["over_the_bus"] == false).map(drop)
}

/// RED-14
#[test]
fn what_a_dead_node_had_put_on_the_bus_alone_is_there_for_who_comes_later_and_told_once() {
    let Some((servers, backbone)) = deployment(&SentinelOptions::default()) else { return };
    let start = || node("", &backbone, Ready::ForTraffic);
    let (dies, lives) = (start(), start());
    let mut here = connect(&lives);
    here.subscribe("cache-room", None).unwrap();
    assert_eq!(next_event(&mut here).0, "pusher:cache_miss");
    for node in [&dies, &lives] {
        eventually("it hears its group", PATIENCE, || hears(node)).unwrap();
    }

    // Nobody makes another primary until the node is dead.
    let primary = servers.primary_of("g1").unwrap();
    servers.sentinels().iter().for_each(|sentinel| sentinel.redis.stop());
    primary.redis.kill();
    publish(&dies, "cache-room", "only on the bus");
    assert_eq!(next_event(&mut here).1, "only on the bus", "who was there has heard it");
    dies.kill();
    servers.sentinels().iter().for_each(|sentinel| sentinel.redis.resume());

    let key = "fulmar:cache:1:cache-room";
    eventually("the store has it", PATIENCE, || {
        let primary = &servers.primary_of("g1").ok()?.redis;
        primary.call(&["GET", key]).ok().filter(|kept| kept.text().contains("only on the bus")).map(drop)
    })
    .unwrap_or_else(|e| panic!("{e}\n{}", lives.log()));
    let fresh = start();
    let mut late = connect(&fresh);
    late.subscribe("cache-room", None).unwrap();
    assert_eq!(next_event(&mut late).1, "only on the bus");
    publish(&fresh, "cache-room", "after it");
    for who in [&mut here, &mut late] {
        assert_eq!(next_event(who).1, "after it", "and once");
    }
}

/// RED-21, NODE-5
#[test]
fn a_node_that_starts_while_a_group_has_no_primary_publishes_all_the_same() {
    let options = SentinelOptions { down_after_ms: 120_000, ..SentinelOptions::default() };
    let Some((servers, backbone)) = deployment(&options) else { return };
    let lives = node("", &backbone, Ready::ForTraffic);
    let mut here = connect(&lives);
    here.subscribe("room", None).unwrap();
    eventually("it hears its group", PATIENCE, || hears(&lives)).unwrap();
    servers.primary_of("g1").unwrap().redis.kill();
    let starts = node("", &backbone, Ready::Alive);
    let mut rest = http::Rest::new(starts.addr(), &app());
    // It has yet to find servers that are there.
    let is_taken = || rest.publish("room", "taken").is_ok_and(|answer| answer.status == 200).then_some(());
    eventually("it takes a publication", PATIENCE, is_taken).unwrap_or_else(|e| panic!("{e}\n{}", starts.log()));
    let shown = eventually("it shows its sight", PATIENCE, || sight(&starts)).unwrap();
    assert_eq!(shown["is_here"], false, "{shown}");
    publish(&starts, "room", "the next");
    let heard = [next_event(&mut here).1, next_event(&mut here).1];
    assert_eq!(heard, ["taken", "the next"], "each once");
}
