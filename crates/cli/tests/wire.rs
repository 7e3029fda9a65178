//! What only a real socket shows: the upgrade, slow and hostile peers, who counts as whom.
//!
//! Bytes are written and read by hand where a WebSocket library would be too polite. Nothing here sleeps: what must end
//! by itself is waited for by reading until it ends.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use fulmar_protocol::app::App;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

use support::{Node, connect, post};

const APP: &str = "[[apps]]\nid = \"1\"\nkey = \"k1\"\nsecret = \"s1\"\n";

fn app() -> App {
    App::new("1", "k1", "s1")
}

fn node(test: &str, settings: &str) -> Node {
    Node::start(&format!("wire-{test}"), &format!("{settings}\n{APP}"))
}

/// The head of an upgrade, without its last empty line.
fn head(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    )
}

/// Sends a head and reads the head of the answer.
fn answer_to(stream: &mut TcpStream, head: &str) -> String {
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "the answer ends early: {}", String::from_utf8_lossy(&answer));
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap().to_lowercase()
}

/// A text frame as clients send it; the mask is zero, which masks nothing.
fn text_frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 126);
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// The next frame of a server: opcode and content.
fn frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut start = [0; 2];
    stream.read_exact(&mut start).unwrap();
    let length = match start[1] {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            usize::from(u16::from_be_bytes(length))
        }
        length => usize::from(length),
    };
    let mut content = vec![0; length];
    stream.read_exact(&mut content).unwrap();
    (start[0], content)
}

/// Reads until the other side ends the connection; answers how many bytes came.
fn drained(stream: &mut TcpStream) -> usize {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the connection is left open"),
        // A reset is an end as well.
        _ => rest.len(),
    }
}

fn opened(node: &Node, headers: &[(&'static str, &str)]) -> WebSocket<TcpStream> {
    let mut request = format!("ws://127.0.0.1:{}/app/k1?protocol=7", node.port).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    tungstenite::client(request, connect(node.port)).expect("every upgrade is accepted").0
}

/// The next text message.
fn heard(socket: &mut WebSocket<TcpStream>) -> Value {
    match socket.read().unwrap() {
        Message::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("no text: {other:?}"),
    }
}

fn is_established(socket: &mut WebSocket<TcpStream>) -> bool {
    let first = heard(socket);
    if first["event"] == "pusher:error" {
        assert_eq!(first["data"]["code"], 4100, "{first}");
        let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("an error and no close") };
        assert_eq!((u16::from(close.code), close.reason.as_str()), (4100, first["data"]["message"].as_str().unwrap()));
        return false;
    }
    assert_eq!(first["event"], "pusher:connection_established");
    true
}

fn subscribe(socket: &mut WebSocket<TcpStream>, channel: &str) {
    socket.send(Message::text(json!({"event": "pusher:subscribe", "data": {"channel": channel}}).to_string())).unwrap();
    assert_eq!(heard(socket)["event"], "pusher_internal:subscription_succeeded");
}

/// WS-14, WS-119
#[test]
fn exactly_one_of_the_offered_subprotocols_is_echoed_and_no_extension() {
    let node = node("subprotocol", "");
    for (offered, chosen) in [
        ("", None),
        ("Sec-WebSocket-Protocol: chat\r\n", Some("chat")),
        ("Sec-WebSocket-Protocol: chat, pusher-channels-protocol-7\r\n", Some("pusher-channels-protocol-7")),
        (
            "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: pusher-channels-protocol-5,x\r\n",
            Some("pusher-channels-protocol-5"),
        ),
        ("Sec-WebSocket-Extensions: permessage-deflate\r\n", None),
    ] {
        let answer = answer_to(&mut connect(node.port), &(head("/app/k1?protocol=7") + offered));
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        assert!(answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{answer}");
        let echoed: Vec<_> = answer.lines().filter_map(|line| line.strip_prefix("sec-websocket-protocol: ")).collect();
        assert_eq!(echoed, chosen.into_iter().collect::<Vec<_>>(), "{offered}");
        assert!(!answer.contains("extensions"), "{answer}");
    }
}

/// WS-15, WS-16
#[test]
fn a_request_that_is_no_upgrade_or_a_broken_one_is_answered_at_once() {
    let node = node("no-upgrade", "");
    let plain = "GET /app/k1?protocol=7 HTTP/1.1\r\nHost: x\r\n".to_owned();
    let good = head("/app/k1?protocol=7");
    for (request, status, header) in [
        (plain.clone(), "426", "upgrade: websocket"),
        (plain.replace("GET", "OPTIONS"), "", ""),
        (good.replace("Version: 13", "Version: 8"), "426", "sec-websocket-version: 13"),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), "400", ""),
        (good.replace("GET", "POST"), "400", ""),
    ] {
        let answer = answer_to(&mut connect(node.port), &request);
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{request}{answer}");
        assert!(answer.contains(header), "{request}{answer}");
    }
}

/// WS-17, WS-98
#[test]
fn what_came_together_with_the_upgrade_is_the_first_of_the_connection() {
    let node = node("together", "");
    let mut stream = connect(node.port);
    let first = text_frame(r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#);
    let second = text_frame(r#"{"event":"pusher:ping"}"#);
    let (begun, rest) = second.split_at(9);
    let start = [format!("{}\r\n", head("/app/k1?protocol=7")).as_bytes(), &first, begun].concat();
    stream.write_all(&start).unwrap();
    stream.write_all(rest).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    for event in ["connection_established", "subscription_succeeded", "pong"] {
        let (opcode, content) = frame(&mut stream);
        assert_eq!(opcode, 0x81);
        assert!(String::from_utf8(content).unwrap().contains(event), "{event} comes next");
    }
}

/// WS-43
#[test]
fn after_its_close_frame_the_node_sends_nothing_and_lets_go_of_the_socket() {
    let node = node("close", "");
    for is_answered in [true, false] {
        let mut stream = connect(node.port);
        answer_to(&mut stream, &head("/app/nobody?protocol=7"));
        assert_eq!(frame(&mut stream).0, 0x81);
        let (opcode, content) = frame(&mut stream);
        assert_eq!((opcode, &content[..2]), (0x88, &4001_u16.to_be_bytes()[..]));
        stream.write_all(&text_frame(r#"{"event":"pusher:ping"}"#)).unwrap();
        if is_answered {
            stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, content[0], content[1]]).unwrap();
        }
        assert_eq!(drained(&mut stream), 0);
    }
}

/// WS-42, WS-99, WS-100, WS-102, WS-103
#[test]
fn a_frame_that_breaks_the_rules_ends_its_own_connection_with_the_right_code() {
    let node = node("broken", "");
    let mut witness = opened(&node, &[]);
    assert!(is_established(&mut witness));
    let too_long = [&[0x81, 0xfe], &u16::MAX.to_be_bytes()[..], &[0; 4]].concat();
    let far_too_long = [&[0x81, 0xff], &u64::MAX.to_be_bytes()[..], &[0; 4]].concat();
    for (bytes, code) in [
        (vec![0x81, 0x01, b'x'], 1002),
        (vec![0x82, 0x81, 0, 0, 0, 0, b'x'], 1003),
        (vec![0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
        (vec![0xf1, 0x80, 0, 0, 0, 0], 1002),
        (vec![0x80, 0x80, 0, 0, 0, 0], 1002),
        (far_too_long, 1002),
        ([&[0x81, 0xff], &65_537_u64.to_be_bytes()[..], &[0; 4]].concat(), 1009),
        (vec![0x88, 0x82, 0, 0, 0, 0, 0x0f, 0xa1], 4001),
        (vec![0x88, 0x80, 0, 0, 0, 0], 0),
    ] {
        let mut stream = connect(node.port);
        answer_to(&mut stream, &head("/app/k1?protocol=7"));
        assert_eq!(frame(&mut stream).0, 0x81);
        stream.write_all(&bytes).unwrap();
        let (opcode, content) = frame(&mut stream);
        let given = content.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
        assert_eq!((opcode, given), (0x88, code), "{bytes:02x?}");
    }
    // Within the limit: no fault, the rest is waited for.
    let mut stream = connect(node.port);
    answer_to(&mut stream, &head("/app/k1?protocol=7"));
    frame(&mut stream);
    stream.write_all(&too_long).unwrap();
    subscribe(&mut witness, "news");
}

/// WS-109
#[test]
fn an_upgrade_that_is_slow_or_too_large_ends_its_connection_only() {
    let node = node("slow-head", "limits.handshake_timeout_ms = 300\nlimits.handshake_bytes_max = 2048\n");
    let mut witness = opened(&node, &[]);
    assert!(is_established(&mut witness));
    let mut silent = connect(node.port);
    let mut begun = connect(node.port);
    begun.write_all(head("/app/k1?protocol=7").as_bytes()).unwrap();
    let mut large = connect(node.port);
    let padding = format!("{}X-Padding: {}\r\n\r\n", head("/app/k1?protocol=7"), "x".repeat(200_000));
    // The node may hang up before it has all of it.
    let _ = large.write_all(padding.as_bytes());
    let mut answer = Vec::new();
    let _ = large.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    drained(&mut silent);
    drained(&mut begun);
    subscribe(&mut witness, "news");
}

/// WS-110
#[test]
fn a_frame_begun_and_not_finished_closes_its_connection() {
    let node = node("slow-frame", "[limits]\nframe_timeout_ms = 300");
    let mut stream = connect(node.port);
    answer_to(&mut stream, &head("/app/k1?protocol=7"));
    frame(&mut stream);
    stream.write_all(&[0x81, 0x85, 0, 0, 0, 0, b'h']).unwrap();
    assert_eq!(frame(&mut stream).0, 0x81, "why");
    let (opcode, content) = frame(&mut stream);
    assert_eq!((opcode, &content[..2]), (0x88, &4100_u16.to_be_bytes()[..]));
    drained(&mut stream);
}

/// WS-111, WS-112, WS-34, DEL-7, T-16
#[test]
fn a_connection_that_does_not_read_delays_nobody_and_is_closed_without_a_gap() {
    const EVENTS: usize = 2_000;
    const PER_CALL: usize = 10;
    let node = node("slow-reader", "limits.outbound_bytes_max = 262144\n");
    let (mut lazy, mut busy) = (opened(&node, &[]), opened(&node, &[]));
    for socket in [&mut lazy, &mut busy] {
        assert!(is_established(socket));
        subscribe(socket, "news");
    }
    lazy.send(Message::Ping("are you there".into())).unwrap();
    let filling = "x".repeat(10_000);
    for first in (0..EVENTS).step_by(PER_CALL) {
        let event = |number| json!({"channel": "news", "name": "e", "data": format!("{number} {filling}")});
        let batch: Vec<_> = (first..first + PER_CALL).map(event).collect();
        post(node.port, &app(), "batch_events", &json!({ "batch": batch }));
        for number in first..first + PER_CALL {
            let data = heard(&mut busy);
            assert!(data["data"].as_str().unwrap().starts_with(&format!("{number} ")), "the reader is delayed");
        }
    }
    let (mut next, mut has_ponged, mut told) = (0, false, None);
    loop {
        match lazy.read() {
            Ok(Message::Pong(bytes)) => has_ponged = bytes.as_ref() == b"are you there",
            Ok(Message::Text(text)) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["event"] == "pusher:error" {
                    told = message["data"]["code"].as_u64();
                    continue;
                }
                let data = message["data"].as_str().unwrap();
                assert!(data.starts_with(&format!("{next} ")), "a gap at {next}: {}", &data[..10]);
                next += 1;
            }
            Ok(Message::Close(frame)) => {
                assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(4100));
                break;
            }
            other => panic!("it ends without a close: {other:?}"),
        }
    }
    assert!(next < EVENTS && has_ponged, "{next} of {EVENTS} events");
    assert_eq!(told, Some(4100));
}

/// WS-114, T-21
#[test]
fn more_connections_of_one_address_than_allowed_are_closed_with_4100_and_harm_nobody() {
    let node = node("per-address", "limits.connections_per_ip_max = 2\n");
    let (mut first, mut second) = (opened(&node, &[]), opened(&node, &[]));
    assert!(is_established(&mut first) && is_established(&mut second));
    assert!(!is_established(&mut opened(&node, &[])));
    subscribe(&mut first, "news");
    second.close(None).unwrap();
    while second.read().is_ok() {}
    drop(second);
    // The seat is given back when the node has seen the end of the socket; each try is a conversation, so this does not spin.
    assert!((0..1_000).any(|_| is_established(&mut opened(&node, &[]))), "the seat of a closed connection is free");
}

/// WS-115
#[test]
fn a_forwarded_address_is_believed_from_trusted_proxies_alone() {
    let limit = "limits.connections_per_ip_max = 1\n";
    let forwarded = |address: &'static str| [("x-forwarded-for", address)];
    let stranger = node("untrusted", limit);
    let mut first = opened(&stranger, &forwarded("203.0.113.1"));
    assert!(is_established(&mut first));
    assert!(!is_established(&mut opened(&stranger, &forwarded("203.0.113.2"))), "both are from 127.0.0.1");

    let proxied = node("trusted", &format!("{limit}server.trusted_proxies = [\"127.0.0.0/8\"]\n"));
    let mut open: Vec<_> = ["203.0.113.1", "203.0.113.2", "evil, 203.0.113.3", "2001:db8:0:1::1", "2001:db8:0:2::1"]
        .map(|address| opened(&proxied, &forwarded(address)))
        .into();
    assert!(open.iter_mut().all(is_established));
    for again in ["203.0.113.1", "203.0.113.9, 203.0.113.3", "2001:db8:0:1::ffff"] {
        assert!(!is_established(&mut opened(&proxied, &forwarded(again))), "{again}");
    }
}
