//! What a node had put on the bus, while the group had no primary, and died before any log had it.

use fulmar_rig::{Node, Ready, SentinelDeployment, SentinelOptions, eventually};

use super::{PATIENCE, connect, next_event, node, publish, sight};

/// Whether a node hears its group's primary.
fn hears(node: &Node) -> Option<()> {
    sight(node).filter(|group| group["hears"] == true && group["over_the_bus"] == false).map(drop)
}

/// RED-14
#[test]
fn what_a_dead_node_had_put_on_the_bus_alone_is_there_for_who_comes_later_and_told_once() {
    if !fulmar_rig::is_available() {
        eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
        return;
    }
    let servers = SentinelDeployment::start(&[("g1", 2)], 3, &SentinelOptions::default()).unwrap();
    let named = servers.sentinels().iter().map(|sentinel| format!("\"{}\"", sentinel.redis.addr()));
    let backbone =
        format!("topology = \"sentinel\"\nsentinels = [{}]\ngroups = [\"g1\"]", named.collect::<Vec<_>>().join(", "));
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
