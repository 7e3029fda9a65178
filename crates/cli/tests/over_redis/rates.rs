//! Publish rates over all nodes, of which one comes and one dies.

use std::time::{Duration, Instant};

use fulmar_protocol::app::App;
use fulmar_rig::http::{Answer, Rest};
use fulmar_rig::{Node, Ready, eventually};

use super::{PATIENCE, app, node, one_redis};

/// Events per second that the first app may publish, all nodes together.
const LIMIT: usize = 12;
/// Events that are published to see how fast they go, and of each call of them.
const MANY: usize = 24;
const OF_A_CALL: usize = 2;

/// Another app of the same nodes, which may publish two events per second.
fn slow_app() -> App {
    App::new("2", "k2", "s")
}

/// One event to so many channels.
fn publish_to(node: &Node, app: &App, channels: usize) -> Answer {
    let names: Vec<String> = (0..channels).map(|n| format!("\"c{n}\"")).collect();
    let body = format!(r#"{{"name":"e","channels":[{}],"data":"x"}}"#, names.join(","));
    let answer = Rest::new(node.addr(), app).post("events", &body, None).unwrap();
    let is_over_rate = answer.status == 503 && answer.has_retry_after && answer.body.contains("publishes_per_s_max");
    assert!(answer.status == 200 || is_over_rate, "{answer:?}");
    answer
}

fn passes(node: &Node, app: &App, channels: usize) -> bool {
    publish_to(node, app, channels).status == 200
}

/// Waits until each of the nodes divides limits by so many: what it refuses, it refuses with that number.
fn all_divide_by(nodes: &[&Node], number: usize) {
    let text =
        if number > 1 { format!("which {number} nodes divide") } else { "(publishes_per_s_max), and".to_owned() };
    for node in nodes {
        // So many that the next call is refused however slow the machine is.
        let is_told = || publish_to(node, &app(), LIMIT).body.contains(&text).then_some(());
        eventually(&format!("a node divides limits by {number}"), PATIENCE, is_told).unwrap();
    }
}

/// How long [`MANY`] events take that are published at one node after the other, each again and again until it is taken.
fn time_of_many(nodes: &[&Node]) -> Duration {
    let begun = Instant::now();
    let mut taken = 0;
    eventually("many events are taken", PATIENCE, || {
        taken += nodes.iter().filter(|node| passes(node, &app(), OF_A_CALL)).count() * OF_A_CALL;
        (taken >= MANY).then_some(())
    })
    .unwrap();
    begun.elapsed()
}

/// What [`MANY`] events take at least where so many may be published per second, of which a second's worth goes at once.
fn least(per_s: usize) -> Duration {
    Duration::from_secs_f64((MANY - per_s) as f64 / per_s as f64)
}

/// Waits until these nodes let so many events per second through, and no more. Nodes that lost sight of each other for a moment,
/// as they do where everything waits for a processor, are asked again.
fn all_keep(nodes: &[&Node], per_s: usize) {
    let are_kept = || (time_of_many(nodes) >= least(per_s)).then_some(());
    eventually(&format!("{per_s} events per second and no more"), PATIENCE, are_kept).unwrap();
}

/// HTTP-71: a share of one event per second. A machine that is too slow to ask twice in less is asked again.
fn the_share_passes_and_one_more_is_refused(node: &Node) {
    let are_told_apart = || {
        let begun = Instant::now();
        let [first, second] = [(); 2].map(|()| passes(node, &slow_app(), 1));
        (first && !second && begun.elapsed() < Duration::from_millis(500)).then_some(())
    };
    eventually("the second of two calls is refused", PATIENCE, are_told_apart).unwrap();
    // Larger than the share: it goes when that is whole, and for a minute nothing does after it.
    let goes = || passes(node, &slow_app(), 60).then_some(());
    eventually("a large call goes", PATIENCE, goes).unwrap();
    assert!(!passes(node, &slow_app(), 1));
}

/// NODE-22, HTTP-71: rule 30 of the backbone. No time is held against a machine that is slow: a limit is kept where events take so
/// long at least, and a larger share is seen once they were faster than the smaller one allows.
#[test]
fn nodes_divide_what_an_app_may_publish_and_divide_it_anew_when_one_comes_or_dies() {
    let Some((_redis, backbone)) = one_redis() else { return };
    let apps = format!(
        "publishes_per_s_max = {LIMIT}\n[[apps]]\nid = \"2\"\nkey = \"k2\"\nsecret = \"s\"\npublishes_per_s_max = 2"
    );
    let start = || node(&apps, &backbone, Ready::ForTraffic);
    let [a, b] = [start(), start()];
    all_divide_by(&[&a, &b], 2);
    the_share_passes_and_one_more_is_refused(&a);
    all_keep(&[&a, &b], LIMIT);
    all_keep(&[&a], LIMIT / 2);

    let c = start();
    all_divide_by(&[&a, &b, &c], 3);
    all_keep(&[&a, &b, &c], LIMIT);
    all_keep(&[&a], LIMIT / 3);

    c.kill();
    b.kill();
    all_divide_by(&[&a], 1);
    let is_faster = || (time_of_many(&[&a]) < least(LIMIT / 2)).then_some(());
    eventually("the one that is left lets more than half of them through", PATIENCE, is_faster).unwrap();
    all_keep(&[&a], LIMIT);
}
