//! Quotas over all nodes, and a node that dies with a part of them.

use std::time::Instant;

use fulmar_rig::{Node, Ready, RigError, Subscriber, eventually};

use super::{PATIENCE, app, node, one_redis};

/// Connections of the app, all nodes together.
const QUOTA: usize = 40;
/// How many it has when a node dies: 95 in 100.
const BUSY: usize = 38;

/// How a newcomer fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    In,
    /// SDKs stop for good.
    OverQuota,
    /// SDKs come back in a moment.
    Later,
}

fn knock(at: &Node) -> (Fate, Option<Subscriber>) {
    match Subscriber::connect(at.addr(), &app(), PATIENCE) {
        Ok(subscriber) => (Fate::In, Some(subscriber)),
        Err(RigError::Peer(said)) if said.contains(":4004") => (Fate::OverQuota, None),
        Err(RigError::Peer(said)) if said.contains(":4100") => (Fate::Later, None),
        Err(error) => panic!("{error}"),
    }
}

/// Knocks until a newcomer fares so. Whoever gets in goes again.
fn knock_until(at: &Node, fate: Fate) {
    eventually(&format!("a newcomer fares {fate:?}"), PATIENCE * 2, || (knock(at).0 == fate).then_some(())).unwrap();
}

/// Knocks until somebody is in, at one node after the other as a balancer would; nobody may be told to stay away.
fn find_place(nodes: &[&Node]) -> Subscriber {
    let begun = Instant::now();
    for node in nodes.iter().cycle() {
        match knock(node) {
            (Fate::In, Some(subscriber)) => return subscriber,
            (fate, _) => assert_ne!(fate, Fate::OverQuota, "after {:?}", begun.elapsed()),
        }
        assert!(begun.elapsed() < PATIENCE, "it found no place");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    unreachable!("a cycle does not end")
}

/// NODE-20, NODE-21: rule 30 of the backbone. Takes the fifteen seconds of calm without which nobody is told 4004.
#[test]
fn sockets_of_a_killed_node_find_places_elsewhere_and_none_is_told_4004_although_a_full_app_s_newcomers_were() {
    let Some((_redis, backbone)) = one_redis() else { return };
    let start = || node(&format!("max_connections = {QUOTA}"), &backbone, Ready::ForTraffic);
    let [a, b, dies] = [start(), start(), start()];
    let mut seats: Vec<(usize, Subscriber)> = Vec::new();
    for n in 0..QUOTA {
        let (fate, seat) = knock([&a, &b, &dies][n % 3]);
        seats.push((n % 3, seat.unwrap_or_else(|| panic!("{n} of {QUOTA}: {fate:?}"))));
    }
    // Full, and everybody knows it for certain after a while: only then is a newcomer told to stay away.
    [&a, &b].into_iter().for_each(|node| knock_until(node, Fate::OverQuota));
    seats.truncate(BUSY);
    // Whoever lets somebody in knows of the places.
    [&a, &b].into_iter().for_each(|node| knock_until(node, Fate::In));
    dies.kill();
    let homeless = seats.iter().filter(|(at, _)| *at == 2).count();
    seats.retain(|(at, _)| *at != 2);
    assert!(homeless >= BUSY / 3);
    let both = [&a, &b, &a];
    seats.extend((0..homeless).map(|n| (n % 2, find_place(&both[n % 2..n % 2 + 2]))));
    assert_eq!(seats.len(), BUSY);
}
