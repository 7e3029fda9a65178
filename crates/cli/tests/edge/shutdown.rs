//! SIGTERM: everybody is told, nobody is cut off, and the process ends.

use std::time::{Duration, Instant};

use crate::harness::{Node, Rest, TARGET, command, eventually, masked};

use serde_json::json;

/// OPS-23, WS-117, WS-118, HTTP-56, HTTP-60, T-20
#[test]
fn a_node_told_to_end_spreads_its_sockets_over_the_drain_and_finishes_calls() {
    let mut node = Node::start("drain", "[shutdown]\ngrace_s = 1\ndrain_s = 2");
    let sockets: Vec<_> = (0..60).map(|_| node.open()).collect();
    let (mut health, mut idle) = (node.rest(), node.rest());
    assert_eq!([health.status("/readyz"), idle.status("/livez")], [200, 200]);
    let call = Rest::publication("news", "last", "");
    let publish = || {
        let mut wire = node.connect();
        wire.send(call.as_bytes());
        wire.response().0
    };
    assert!(!publish().contains("connection: close"), "before the signal");
    let (begun, rest_of_call) = call.split_at(call.len() - 3);
    let mut in_flight = node.connect();
    in_flight.send(begun.as_bytes());

    node.signal("-TERM");
    let since = Instant::now();
    eventually("it says so at once", || (health.status("/readyz") == 503).then_some(()));
    assert!(since.elapsed() < Duration::from_millis(900), "before the grace is over");
    assert_eq!(health.status("/livez"), 200);
    let head = publish();
    assert!(head.starts_with("http/1.1 200 ") && head.contains("connection: close"), "{head}");
    let mut during_grace = node.open();
    let ended: Vec<_> = std::thread::scope(|scope| {
        let reading = sockets.into_iter().map(|mut wire| {
            scope.spawn(move || {
                let until_close = wire.frames();
                assert_eq!(until_close.last().and_then(|frame| frame.close_code()), Some(4200));
                since.elapsed()
            })
        });
        let reading: Vec<_> = reading.collect();
        // Still a connection as ever.
        during_grace.subscribe("news");
        eventually("the grace ends", || {
            let mut newcomer = node.connect();
            newcomer.try_send(crate::harness::upgrade(TARGET, "").as_bytes()).ok()?;
            assert!(newcomer.head().starts_with("http/1.1 101 "));
            let first = newcomer.event();
            (first["data"]["code"] == 4100).then_some(())
        });
        assert_eq!(String::from_utf8(idle.wire.rest()).unwrap(), "", "an idle connection is closed");
        in_flight.send(rest_of_call.as_bytes());
        let (head, body) = in_flight.response();
        assert!(head.starts_with("http/1.1 200 ") && body == "{}", "{head}{body}");
        assert!(head.contains("connection: close"), "{head}");
        reading.into_iter().map(|reading| reading.join().unwrap()).collect()
    });
    assert_eq!(node.ended().code(), Some(0));
    // The moments are random: of sixty, fewer than a dozen in one half happen once in a million runs.
    let early = ended.iter().filter(|at| **at < Duration::from_millis(2_000)).count();
    assert!((12..=48).contains(&early), "{ended:?}");
    assert!(ended.iter().all(|at| *at > Duration::from_millis(900)), "nobody before the grace is over: {ended:?}");
    assert_eq!(during_grace.end(), Some(4200));
}

/// WS-34, WS-43, WS-118
#[test]
fn until_its_moment_comes_a_connection_of_a_draining_node_works_as_ever() {
    let mut node = Node::start("as-ever", "[shutdown]\ndrain_s = 3");
    let mut wires: Vec<_> = (0..10).map(|_| node.open()).collect();
    node.signal("-TERM");
    let mut answered = 0;
    for wire in &mut wires {
        let frames: Vec<_> = std::iter::from_fn(|| {
            // Fails once the node has closed it.
            let _: std::io::Result<()> = wire.try_send(&masked(0x89, b"?"));
            wire.frame()
        })
        .collect();
        answered += frames.iter().filter(|frame| frame.content == b"?").count();
        let at = frames.iter().position(|frame| frame.opcode == 0x88).expect("it is told to go");
        assert_eq!((frames[at].close_code(), frames.len()), (Some(4200), at + 1), "and nothing behind that");
    }
    assert!(answered > 0);
    assert_eq!(node.ended().code(), Some(0));
}

/// OPS-24
#[test]
fn a_second_signal_ends_it_at_once() {
    let mut node = Node::start("second", "[shutdown]\ndrain_s = 600");
    let mut wire = node.open();
    wire.subscribe("news");
    node.signal("-TERM");
    eventually("it has begun to end", || node.log().contains("told to end").then_some(()));
    let since = Instant::now();
    node.signal("-INT");
    assert_eq!(node.ended().code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    wire.end();
}

/// OPS-23
#[test]
fn with_nobody_there_the_end_is_immediate() {
    let mut node = Node::start("nobody", "[shutdown]\ndrain_s = 600");
    let mut wire = node.open();
    wire.send(&command("pusher:subscribe", json!({"channel": "news"})));
    wire.shut();
    let mut rest = node.rest();
    eventually("it is gone", || (rest.count("news") == 0).then_some(()));
    let since = Instant::now();
    node.signal("-TERM");
    assert_eq!(node.ended().code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
}
