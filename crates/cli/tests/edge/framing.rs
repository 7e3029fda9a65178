//! RFC 6455 and the head before it, over the wire.

use serde_json::json;

use crate::harness::{CLOSE, Node, PING, PONG, Rest, TARGET, TEXT, command, header, masked, upgrade};

/// WS-98, WS-34, WS-107
#[test]
fn a_message_in_fragments_is_heard_and_pings_between_them_are_answered_first() {
    let node = Node::start("fragments", "");
    let mut wire = node.open();
    let text = json!({"event": "pusher:subscribe", "data": {"channel": "news"}}).to_string();
    let (first, last) = text.split_at(20);
    wire.send(&masked(0x01, first.as_bytes()));
    wire.send(&masked(PING, b"between"));
    wire.send(&masked(0x00, b""));
    wire.send(&masked(PONG, b"nobody asked"));
    wire.send(&masked(0x80, last.as_bytes()));
    let pong = wire.frame().unwrap();
    assert_eq!((pong.opcode, pong.content.as_slice()), (PONG, &b"between"[..]));
    assert_eq!(wire.event()["event"], "pusher_internal:subscription_succeeded");
}

/// WS-31, WS-106
#[test]
fn many_frames_in_one_segment_are_answered_in_their_order() {
    let node = Node::start("segment", "");
    let mut wire = node.open();
    let mut segment = Vec::new();
    for n in 0..40_u8 {
        segment.extend(command("pusher:subscribe", json!({"channel": format!("c{n}")})));
        segment.extend(masked(PING, &[n]));
    }
    wire.send(&segment);
    let mut frames: Vec<_> = (0..80).map(|_| wire.frame().unwrap()).collect();
    let pongs: Vec<_> = frames.extract_if(.., |frame| frame.opcode == PONG).flat_map(|pong| pong.content).collect();
    assert_eq!(pongs, (0..40).collect::<Vec<_>>());
    let channels: Vec<_> = frames.iter().map(|frame| frame.json()["channel"].clone()).collect();
    assert_eq!(channels, (0..40).map(|n| json!(format!("c{n}"))).collect::<Vec<_>>());
}

/// WS-17, WS-106
#[test]
fn head_and_frames_may_come_byte_by_byte() {
    let node = Node::start("bytewise", "");
    let mut wire = node.connect();
    let subscribe = command("pusher:subscribe", json!({"channel": "news", "padding": "x".repeat(300)}));
    for byte in upgrade(TARGET, "").bytes().chain(subscribe).chain(masked(PING, b"p")) {
        wire.send(&[byte]);
    }
    assert!(wire.head().starts_with("http/1.1 101 "));
    wire.established();
    assert_eq!(wire.event()["event"], "pusher_internal:subscription_succeeded");
    assert_eq!(wire.frame().unwrap().content, b"p");
}

/// WS-1, WS-17, HTTP-1
#[test]
fn a_kept_alive_connection_may_become_a_websocket_and_loses_no_byte() {
    let node = Node::start("kept-alive", "");
    let mut rest = node.rest();
    rest.publish("news", "before", "");
    assert_eq!(rest.count("news"), 0);
    let mut wire = rest.wire;
    let text = command("pusher:subscribe", json!({"channel": "news"}));
    let (begun, end) = text.split_at(7);
    wire.send(&[upgrade(TARGET, "Sec-WebSocket-Protocol: chat\r\n").as_bytes(), &masked(PING, b"1"), begun].concat());
    let head = wire.head();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("sec-websocket-protocol: chat\r\n"), "{head}");
    wire.established();
    assert_eq!(wire.frame().unwrap().content, b"1");
    wire.send(end);
    assert_eq!(wire.event()["event"], "pusher_internal:subscription_succeeded");
    node.rest().publish("news", "after", "1");
    assert_eq!(wire.event()["event"], "after");
}

/// WS-42
#[test]
fn a_close_is_answered_with_the_same_code_and_the_end() {
    let node = Node::start("close", "");
    for (content, code) in
        [(&1000_u16.to_be_bytes()[..], Some(1000)), (&4321_u16.to_be_bytes(), Some(4321)), (&[], None)]
    {
        let mut wire = node.open();
        // What follows a close is not read.
        wire.send(&[masked(CLOSE, content), masked(PING, b"too late")].concat());
        let frames = wire.frames();
        assert_eq!(frames.len(), 1, "{frames:?}");
        assert_eq!(frames[0].close_code(), code);
        assert_eq!(frames[0].content, content);
    }
}

/// WS-101, WS-104, WS-100
#[test]
fn text_and_close_frames_that_make_no_sense_end_with_the_code_that_says_so() {
    let node = Node::start("nonsense", "");
    let not_utf8 = |first| masked(first, b"\xff\xfe");
    for (bytes, code) in [
        (not_utf8(TEXT), 1007),
        ([masked(0x01, "\u{e9}".as_bytes()), masked(0x00, b"\xc3\xc3")].concat(), 1007),
        (masked(CLOSE, &[3]), 1002),
        (masked(CLOSE, &1005_u16.to_be_bytes()), 1002),
        (masked(CLOSE, b"\x03\xe8\xff"), 1007),
        (masked(0x80, b"of nothing"), 1002),
        (masked(0x09, b"in pieces"), 1002),
        (masked(PING, &[0; 126]), 1002),
        (b"\x89\x00".to_vec(), 1002),
        (masked(0xc1, b"{}"), 1002),
        (masked(0x83, b""), 1002),
    ] {
        let mut wire = node.open();
        wire.send(&bytes);
        assert_eq!(wire.end(), Some(code), "{bytes:?}");
    }
}

/// WS-99: a mistake is seen in the byte that makes it, also when bytes come one at a time.
#[test]
fn a_missing_mask_is_seen_as_soon_as_it_is_missing() {
    let node = Node::start("mask", "");
    let mut wire = node.open();
    wire.send(&[TEXT]);
    wire.send(&[0x05]);
    assert_eq!(wire.end(), Some(1002));
}

/// WS-103
#[test]
fn a_message_too_large_is_refused_by_its_header_alone_or_with_the_others_by_the_header_that_goes_beyond() {
    let node = Node::start("too-big", "[limits]\nmessage_bytes_max = 2000");
    let mut wire = node.open();
    wire.send(&[header(TEXT, 2_001), vec![0; 4]].concat());
    assert_eq!(wire.end(), Some(1009));
    let mut wire = node.open();
    wire.send(&[masked(0x01, &[b' '; 1_500]), header(0x80, 501), vec![0; 4]].concat());
    assert_eq!(wire.end(), Some(1009));
    let mut wire = node.open();
    let text = format!("{:<2000}", r#"{"event":"pusher:ping"}"#);
    wire.send(&masked(TEXT, text.as_bytes()));
    assert_eq!(wire.event()["event"], "pusher:pong", "as much as is allowed is allowed");
}

/// HTTP-1, HTTP-47
#[test]
fn requests_sent_in_a_row_are_answered_in_a_row_and_garbage_ends_its_connection_only() {
    let node = Node::start("pipelining", "");
    let mut wire = node.connect();
    let calls = ["first", "second"].map(|event| Rest::publication("news", event, ""));
    wire.send(
        format!("{}{}GET /livez HTTP/1.1\r\nHost: x\r\n\r\n\0\x01garbage\r\n\r\n", calls[0], calls[1]).as_bytes(),
    );
    for _ in 0..3 {
        let (head, _) = wire.response();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
    }
    let end = String::from_utf8(wire.rest()).unwrap();
    assert!(end.starts_with("HTTP/1.1 400 "), "{end}");
    assert_eq!(node.rest().status("/livez"), 200);
}

/// WS-15, WS-16: on a new connection and on one that was kept alive.
#[test]
fn a_handshake_that_lacks_something_is_refused_by_http_at_once() {
    let node = Node::start("handshake", "");
    let good = upgrade(TARGET, "");
    for (head, status) in [
        (good.replace("Connection: Upgrade\r\n", ""), "400"),
        (good.replace("Connection: Upgrade", "Connection: keep-alive"), "400"),
        (good.replace("Sec-WebSocket-Version: 13\r\n", ""), "426"),
        (good.replace("Sec-WebSocket-Key", "X-Key"), "400"),
        (good.replace("HTTP/1.1", "HTTP/1.0"), "400"),
        (good.replace("Upgrade: websocket\r\n", ""), "426"),
    ] {
        let mut rest = node.rest();
        assert_eq!(rest.status("/livez"), 200);
        for mut wire in [node.connect(), rest.wire] {
            wire.send(head.as_bytes());
            let (answer, _) = wire.response();
            assert!(
                answer.starts_with(&format!("http/1.1 {status} ")) || answer.starts_with("http/1.0"),
                "{head}{answer}"
            );
            assert_eq!(status == "426" && !head.contains("Version"), answer.contains("sec-websocket-version: 13"));
        }
    }
}
