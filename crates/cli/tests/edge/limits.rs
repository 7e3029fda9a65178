//! Peers that are slow to say what they want, and more peers than there is room for.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    CLOSE, Identity, Node, PING, PONG, Rest, TARGET, Wire, command, eventually, masked, plain_from, upgrade,
};

/// What a slow peer sends before it stops.
type Begin = fn(&mut Wire);

/// WS-109, OPS-21, HTTP-59: nobody else is delayed while they hang.
#[test]
fn whoever_stops_in_the_middle_of_a_beginning_is_dropped() {
    let identity = Identity::make("slow-beginnings");
    let settings = "[server]\ntrusted_proxies = [\"127.0.0.2\"]\nproxy_protocol = true\n\
                    [limits]\nhandshake_timeout_ms = 300\nrequest_timeout_ms = 300\nkeep_alive_timeout_s = 1\n";
    let node = Node::start("slow-beginnings", &format!("{settings}{}", identity.settings()));
    let cases: [(&str, &str, Begin); 8] = [
        ("nothing", "127.0.0.1", |_| {}),
        ("a head", "127.0.0.1", |wire| wire.send(&upgrade(TARGET, "").as_bytes()[..90])),
        ("a TLS hello", "127.0.0.1", |wire| wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")),
        ("a PROXY header", "127.0.0.2", |wire| wire.send(b"PROXY TCP4 198.51")),
        ("a PROXY header of version 2", "127.0.0.2", |wire| wire.send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c1234")),
        ("a PROXY header and no more", "127.0.0.2", |wire| wire.send(b"PROXY UNKNOWN\r\n")),
        ("a body", "127.0.0.1", |wire| {
            let call = Rest::publication("news", "late", "never whole");
            wire.send(&call.as_bytes()[..call.len() - 5]);
        }),
        ("a second head", "127.0.0.1", |wire| {
            wire.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(wire.response().0.starts_with("http/1.1 200 "));
            wire.send(b"GET /livez HTTP/1.1\r\nHos");
        }),
    ];
    let mut witness = node.open();
    witness.subscribe("news");
    let begun: Vec<_> = cases
        .map(|(what, from, begin)| {
            let mut wire = node.connect_from(from);
            begin(&mut wire);
            (what, wire, Instant::now())
        })
        .into();
    node.rest().publish("news", "meanwhile", "");
    assert_eq!(witness.event()["event"], "meanwhile");
    for (what, wire, since) in begun {
        let answer = String::from_utf8_lossy(&wire.rest()).into_owned();
        assert!(since.elapsed() < Duration::from_secs(5), "{what}: {:?}", since.elapsed());
        let is_refusal = answer.is_empty() || answer.starts_with("HTTP/1.1 408 ") || answer.starts_with("HTTP/1.1 4");
        assert!(is_refusal, "{what}: {answer}");
    }
    node.rest().publish("news", "afterwards", "");
    assert_eq!(witness.event()["event"], "afterwards");
}

/// WS-109
#[test]
fn a_head_above_its_limit_is_refused_whether_it_is_an_upgrade_or_not() {
    let node = Node::start("large-head", "[limits]\nhandshake_bytes_max = 1024");
    let padding = format!("X-Padding: {}\r\n", "x".repeat(8_200));
    for head in [upgrade(TARGET, &padding), format!("GET /livez HTTP/1.1\r\nHost: x\r\n{padding}\r\n")] {
        let mut wire = node.connect();
        // The node may stop reading before all of it was sent.
        let _: std::io::Result<()> = wire.try_send(head.as_bytes());
        let answer = String::from_utf8_lossy(&wire.rest()).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let mut wire = node.connect();
    wire.send(upgrade(TARGET, &format!("X-Padding: {}\r\n", "x".repeat(1_024))).as_bytes());
    assert!(wire.head().starts_with("http/1.1 431 "), "also when it came at once");
    node.open();
}

/// WS-110: the whole message counts, and signs of life in between do not prolong it.
#[test]
fn a_frame_or_message_begun_and_not_finished_is_closed_and_one_that_goes_on_is_not() {
    let node = Node::start("unfinished", "[limits]\nframe_timeout_ms = 400");
    let mut fine = node.open();
    for begin in [command("pusher:ping", json!({}))[..9].to_vec(), masked(0x01, b"{\"event\":"), vec![0x81]] {
        let mut wire = node.open();
        let mut alive = Wire::plain(wire.stream.tcp().try_clone().unwrap());
        let is_between_frames = begin.len() > 9;
        wire.send(&begin);
        let frames = std::thread::scope(|scope| {
            let reading = scope.spawn(move || wire.frames());
            while is_between_frames && !reading.is_finished() {
                // Fails once the node has closed.
                let _: std::io::Result<()> = alive.try_send(&masked(PING, b""));
                std::thread::park_timeout(Duration::from_millis(20));
            }
            reading.join().unwrap()
        });
        let close = frames.iter().find(|frame| frame.opcode == CLOSE).expect("a close frame");
        assert_eq!(close.close_code(), Some(4100));
        assert!(frames.iter().any(|frame| frame.opcode == PONG) == is_between_frames);
    }
    // Three messages with time between them are three beginnings, and not one that never ends.
    for _ in 0..3 {
        let text = command("pusher:ping", json!({}));
        fine.send(&text[..9]);
        fine.send(&text[9..]);
        assert_eq!(fine.event()["event"], "pusher:pong");
    }
}

/// WS-13, WS-114, HTTP-68, T-21
#[test]
fn a_full_node_tells_newcomers_so_and_goes_on_serving_everybody_else() {
    let node = Node::start("full", "[limits]\nconnections_max = 3");
    let mut inside: Vec<_> = (0..3).map(|_| node.open()).collect();
    inside.iter_mut().for_each(|wire| wire.subscribe("news"));
    for _ in 0..3 {
        let mut newcomer = node.connect();
        newcomer.upgrade(TARGET, "");
        newcomer.turned_away(4100);
    }
    let mut call = node.connect();
    call.send(Rest::publication("news", "hello", "").as_bytes());
    let (head, _) = call.response();
    assert!(head.starts_with("http/1.1 200 ") && head.contains("connection: close\r\n"), "{head}");
    assert_eq!(call.rest(), b"", "one call, since others want to be told as well");
    assert_eq!(node.rest().status("/livez"), 200);
    assert_eq!(node.rest().status("/readyz"), 200);
    for wire in &mut inside {
        assert_eq!(wire.event()["event"], "hello");
    }
    inside.pop();
    eventually("the place of the one who left is free", || {
        let mut newcomer = node.connect();
        newcomer.upgrade(TARGET, "");
        (newcomer.event()["event"] == "pusher:connection_established").then_some(())
    });
}

/// WS-114, WS-108
#[test]
fn beyond_those_who_can_be_told_newcomers_are_closed_at_once() {
    let node = Node::start("overflow", "[limits]\nconnections_max = 1\nhandshake_timeout_ms = 60000");
    let mut inside = node.open();
    inside.subscribe("news");
    // These are let in to be told, and say nothing.
    let waiting: Vec<_> = (0..256).map(|_| node.connect()).collect();
    for _ in 0..20 {
        assert_eq!(node.connect().rest(), b"");
    }
    drop(waiting);
    eventually("there is room again", || {
        let mut wire = node.connect();
        wire.try_send(Rest::publication("news", "hello", "").as_bytes()).ok()?;
        wire.rest().starts_with(b"HTTP/1.1 200 ").then_some(())
    });
    assert_eq!(inside.event()["event"], "hello");
}

/// WS-9, WS-39, T-19
#[test]
fn an_app_beyond_its_quota_is_closed_with_4004_and_every_way_to_leave_gives_the_place_back() {
    let node = Node::start("quota", "[app]\nmax_connections = 2");
    let _stays = node.open();
    let leave: [fn(Wire); 4] = [
        |mut wire| {
            wire.send(&masked(CLOSE, &1000_u16.to_be_bytes()));
            assert_eq!(wire.end(), Some(1000));
        },
        |mut wire| wire.shut(),
        |mut wire| {
            wire.send(b"\xff");
            assert_eq!(wire.end(), Some(1002));
        },
        drop,
    ];
    for leave in leave {
        let last = eventually("a place is free", || {
            let mut wire = node.connect();
            wire.upgrade(TARGET, "");
            (wire.event()["event"] == "pusher:connection_established").then_some(wire)
        });
        let mut newcomer = node.connect();
        newcomer.upgrade(TARGET, "");
        newcomer.turned_away(4004);
        leave(last);
    }
    // Whoever is refused for another reason takes no place.
    for target in ["/app/k1", "/app/k1?protocol=4", "/app/k2?protocol=7"] {
        let mut wire = node.connect();
        wire.upgrade(target, "");
        assert!((4001..4010).contains(&wire.end().unwrap()));
    }
    eventually("a place is free", || {
        let mut wire = node.connect();
        wire.upgrade(TARGET, "");
        (wire.event()["event"] == "pusher:connection_established").then_some(())
    });
}

/// WS-114
#[test]
fn more_handshakes_in_a_second_than_allowed_are_closed_with_4100_and_let_in_later() {
    let node = Node::start("rate", "[limits]\nhandshakes_per_s_max = 5");
    let mut results: Vec<_> = (0..30)
        .map(|_| {
            let mut wire = node.connect();
            wire.upgrade(TARGET, "");
            wire
        })
        .collect();
    let established = results.iter_mut().filter_map(|wire| {
        let first = wire.event();
        let is_in = first["event"] == "pusher:connection_established";
        assert!(is_in || first["data"]["code"] == 4100, "{first}");
        is_in.then_some(())
    });
    let established = established.count();
    // Thirty take far less than a second or two, in each of which five are let in.
    assert!((5..=15).contains(&established), "{established}");
    eventually("the next second", || {
        let mut wire = node.connect();
        wire.upgrade(TARGET, "");
        (wire.event()["event"] == "pusher:connection_established").then_some(())
    });
}

/// WS-114, WS-115: the limit holds for each address, counts nobody twice and gives places back.
#[test]
fn one_address_cannot_take_the_places_of_another() {
    let node = Node::start("addresses", "[limits]\nconnections_per_ip_max = 2");
    let open = |ip: &str| {
        let mut wire = Wire::plain(plain_from(ip, node.port));
        wire.upgrade(TARGET, "");
        let is_in = wire.event()["event"] == "pusher:connection_established";
        is_in.then_some(wire)
    };
    let mut held: Vec<_> = ["127.0.0.2", "127.0.0.2", "127.0.0.3"].map(|ip| open(ip).expect("there is room")).into();
    assert!(open("127.0.0.2").is_none());
    assert!(open("127.0.0.3").is_some());
    held.remove(0).shut();
    held.push(eventually("the place is free again", || open("127.0.0.2")));
    assert!(open("127.0.0.2").is_none());
}

/// OPS-16, OPS-17, WS-108
#[test]
fn without_descriptors_newcomers_are_refused_cleanly_and_everybody_inside_goes_on() {
    let node = Node::start_with_open_files("descriptors", "[limits]\nhandshake_timeout_ms = 60000", 100);
    let mut rest = node.rest();
    let mut inside = node.connect();
    // The one place of so small a node is taken by the calls: this one is told to go, but was there.
    inside.upgrade(TARGET, "");
    inside.turned_away(4100);
    drop(rest);
    rest = eventually("the place is free", || {
        let mut wire = node.connect();
        wire.upgrade(TARGET, "");
        if wire.event()["event"] != "pusher:connection_established" {
            return None;
        }
        inside = wire;
        Some(node.rest())
    });
    inside.subscribe("news");
    let mut waiting: Vec<_> = (0..150).map(|_| node.connect()).collect();
    let before = Instant::now();
    let mut last = node.connect();
    assert_eq!(last.frame(), None, "ended, not left waiting");
    assert!(before.elapsed() < Duration::from_secs(5));
    rest.publish("news", "hello", "");
    assert_eq!(inside.event()["event"], "hello", "whoever is inside does not notice");
    assert!(node.log().contains("open-file limit"), "{}", node.log());
    assert!(node.log().matches("cannot accept").count() < 5, "and it is not said over and over");
    waiting.clear();
    eventually("descriptors are free again", || {
        let mut wire = node.connect();
        wire.try_send(Rest::publication("news", "again", "").as_bytes()).ok()?;
        wire.rest().starts_with(b"HTTP/1.1 200 ").then_some(())
    });
    assert_eq!(inside.event()["event"], "again");
}
