//! The load and its ledger against one real node: all zero when all is well, and not when something is lost.
//!
//! The node's binary belongs to another package; where it is not built, this says so and is skipped.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use fulmar_protocol::app::App;
use fulmar_rig::{LaneSpec, Link, Load, Node, Ready, Size, Subscriber};
use serde_json::json;

const CONFIG: &str = "[[apps]]\nid = \"1\"\nkey = \"k1\"\nsecret = \"s1\"\n";
const SIZE: Size = Size { channels: 10, subscribers: 30, publishes_per_s: 200 };

/// Beside the folder of this test's own binary.
fn program() -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let program = own.ancestors().nth(2).unwrap().join("fulmar");
    if !program.is_file() {
        eprintln!("!! SKIPPED: {} is not built (cargo build -p fulmar)", program.display());
        return None;
    }
    Some(program)
}

fn app() -> App {
    App::new("1", "k1", "s1")
}

/// DEL-1
#[test]
fn a_node_under_load_loses_nothing_and_the_ledger_says_so() {
    let Some(program) = program() else { return };
    let node = Node::start(&program, CONFIG, Ready::ForTraffic).unwrap();
    let load = Load::start(&app(), &[node.addr()], SIZE).unwrap();
    load.publish(&[node.addr()]);
    thread::sleep(Duration::from_secs(2));
    let verdict = load.end().unwrap().verdict(&[]);
    assert!(verdict.is_clean() && verdict.closed == 0, "{verdict:#?}");
    assert!(verdict.publishes > 200 && verdict.receipts == 3 * verdict.publishes, "{verdict:#?}");
}

/// DEL-1
#[test]
fn what_a_lossy_wire_swallows_is_missed_by_the_ledger() {
    let Some(program) = program() else { return };
    let node = Node::start(&program, CONFIG, Ready::ForTraffic).unwrap();
    let wire = Link::to(node.addr()).unwrap();
    let load = Load::open(&app(), SIZE);
    load.subscribe(&[wire.addr()]);
    load.await_subscribed(SIZE.subscribers).unwrap();
    load.publish(&[node.addr()]);
    thread::sleep(Duration::from_millis(500));
    wire.lose_one_in(10);
    thread::sleep(Duration::from_millis(1_500));
    let verdict = load.end().unwrap().verdict(&[]);
    assert!(verdict.lost > 5 && !verdict.is_clean(), "{verdict:#?}");
}

/// DEL-1
#[test]
fn a_node_that_is_killed_fails_publishes_and_closes_sockets_and_both_are_counted() {
    let Some(program) = program() else { return };
    let node = Node::start(&program, CONFIG, Ready::ForTraffic).unwrap();
    let load = Load::start(&app(), &[node.addr()], SIZE).unwrap();
    load.publish(&[node.addr()]);
    thread::sleep(Duration::from_secs(1));
    node.kill();
    let verdict = load.end().unwrap().verdict(&[]);
    assert_eq!((verdict.closed, verdict.lost), (SIZE.subscribers, 0), "{verdict:#?}");
}

/// DEL-1
#[test]
fn a_node_that_hangs_makes_what_passes_over_it_late_and_loses_nothing() {
    let Some(program) = program() else { return };
    let node = Node::start(&program, CONFIG, Ready::ForTraffic).unwrap();
    let load = Load::start(&app(), &[node.addr()], SIZE).unwrap();
    load.publish(&[node.addr()]);
    thread::sleep(Duration::from_secs(1));
    node.stop();
    thread::sleep(Duration::from_millis(1_500));
    node.resume();
    thread::sleep(Duration::from_secs(1));
    let ledger = load.end().unwrap();
    let (strict, excused) = (ledger.verdict(&[]), ledger.verdict(&[0]));
    assert!(
        strict.is_clean() && strict.late >= SIZE.channels && strict.longest_raw > Duration::from_secs(1),
        "{strict:#?}"
    );
    assert!(excused.is_clean() && excused.late == 0, "{excused:#?}");
}

#[test]
fn a_publisher_that_tries_again_elsewhere_fails_nothing_when_its_node_is_killed() {
    let Some(program) = program() else { return };
    let nodes = [(); 2].map(|()| Node::start(&program, CONFIG, Ready::ForTraffic).unwrap());
    let load = Load::start(&app(), &[nodes[1].addr()], SIZE).unwrap();
    for channel in 0..SIZE.channels {
        let through = nodes.iter().map(Node::addr).enumerate().collect();
        let (every, first) = (Duration::from_millis(5), Duration::ZERO);
        load.add_publisher(LaneSpec { through, node: 0, channel, every, first, tries_again: true });
    }
    thread::sleep(Duration::from_secs(1));
    nodes[0].kill();
    thread::sleep(Duration::from_secs(1));
    let killed_ns = load.now_ns() - 900_000_000;
    let mut ledger = load.end().unwrap();
    // These are two deployments: what the first accepted is not heard on the second, and is left out.
    ledger.published.retain(|publish| publish.sent_ns > killed_ns);
    let verdict = ledger.verdict(&[]);
    assert_eq!((verdict.lost, verdict.failed, verdict.doubled, verdict.inversions), (0, 0, 0, 0), "{verdict:#?}");
    assert!(verdict.publishes > 100, "{verdict:#?}");
}

#[test]
fn a_subscriber_joins_a_presence_channel_and_hears_of_another() {
    let Some(program) = program() else { return };
    let node = Node::start(&program, CONFIG, Ready::ForTraffic).unwrap();
    let patience = Duration::from_secs(10);
    let mut ana = Subscriber::connect(node.addr(), &app(), patience).unwrap();
    let roster = ana.subscribe("presence-room", Some(("ana", &json!({"a": 1})))).unwrap();
    assert_eq!(roster["presence"]["ids"], json!(["ana"]));
    let mut ben = Subscriber::connect(node.addr(), &app(), patience).unwrap();
    ben.subscribe("presence-room", Some(("ben", &json!(null)))).unwrap();
    let added = ana.event().unwrap();
    assert_eq!(added["event"], "pusher_internal:member_added", "{added}");
}
