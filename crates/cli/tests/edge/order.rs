//! Every publication once and in one order, whoever listens where.

use std::collections::HashMap;

use crate::harness::{Identity, Node, Wire, plain};

const PUBLISHERS: usize = 4;
const CHANNELS: usize = 3;
const EACH: usize = 400;

/// DEL-1, DEL-2, DEL-10, WS-112: over plain sockets and TLS, on two workers, while they fall asleep and wake.
#[test]
fn what_several_publish_at_once_reaches_everybody_once_and_in_one_order() {
    let identity = Identity::make("order");
    let node = Node::start("order", &identity.settings());
    let mut listeners: Vec<_> = (0..12)
        .map(|n| {
            let mut wire = if n % 3 == 0 { identity.secure(plain(node.port)) } else { node.connect() };
            wire.establish();
            (0..CHANNELS).for_each(|channel| wire.subscribe(&format!("c{channel}")));
            wire
        })
        .collect();
    let heard: Vec<_> = std::thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let mut rest = node.rest();
            scope.spawn(move || {
                for n in 0..EACH {
                    // Sizes from nothing to what no single read takes.
                    let padding = "x".repeat(if n % 50 == 0 { 9_000 } else { n % 200 });
                    rest.publish(&format!("c{}", n % CHANNELS), &publisher.to_string(), &format!("{n} {padding}"));
                }
            });
        }
        let hearing: Vec<_> = listeners.iter_mut().map(|wire| scope.spawn(|| hear(wire))).collect();
        hearing.into_iter().map(|heard| heard.join().unwrap()).collect()
    });
    let first = &heard[0];
    assert!(heard.iter().all(|heard| heard == first), "one order for all");
    for channel in first.values() {
        for publisher in 0..PUBLISHERS {
            let numbers: Vec<_> = channel.iter().filter(|(by, _)| *by == publisher).map(|(_, n)| *n).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "each publisher's own order, and nothing twice");
        }
    }
    assert_eq!(first.values().map(Vec::len).sum::<usize>(), PUBLISHERS * EACH, "nothing is missing");
}

type Heard = HashMap<String, Vec<(usize, usize)>>;

/// By channel, who published what.
fn hear(wire: &mut Wire) -> Heard {
    let mut heard = Heard::new();
    for _ in 0..PUBLISHERS * EACH {
        let event = wire.event();
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        let number = text("data").split(' ').next().unwrap().parse().unwrap();
        heard.entry(text("channel")).or_default().push((text("event").parse().unwrap(), number));
    }
    heard
}
