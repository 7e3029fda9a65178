//! TLS: on the same port, on another, with certificates that change.

use std::fs;

use fulmar_rig::free_port;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use crate::harness::{
    Identity, Node, PING, Rest, Stream, TARGET, TEXT, Wire, command, eventually, masked, plain, upgrade,
};

/// OPS-19, HTTP-1, WS-17
#[test]
fn sockets_calls_and_calls_that_become_sockets_work_over_tls_on_either_port() {
    let identity = Identity::make("ports");
    let own_port = free_port().unwrap();
    for port in [None, Some(own_port)] {
        let setting = port.map_or_else(String::new, |port| format!("port = {port}\n"));
        let node = Node::start("ports", &format!("{}{setting}", identity.settings()));
        let port = port.unwrap_or(node.port);
        let mut witness = node.open();
        witness.subscribe("news");
        for version in [&TLS12, &TLS13] {
            let connect = || identity.try_secure(plain(port), &[version]).unwrap();
            let mut wire = connect();
            wire.establish();
            wire.subscribe("news");
            let mut rest = Rest { wire: connect() };
            rest.publish("news", "secure", &"x".repeat(9_000));
            assert_eq!([wire.event(), witness.event()].map(|event| event["event"].clone()), ["secure", "secure"]);
            assert_eq!(rest.count("news"), 2);
            let mut upgraded = rest.wire;
            let subscribe = command("pusher:subscribe", json!({"channel": "other"}));
            upgraded.send(&[upgrade(TARGET, "").as_bytes(), &subscribe].concat());
            assert!(upgraded.head().starts_with("http/1.1 101 "));
            upgraded.established();
            assert_eq!(upgraded.event()["event"], "pusher_internal:subscription_succeeded");
            wire.shut();
            let mut rest = node.rest();
            eventually("the socket is gone", || (rest.count("news") == 1).then_some(()));
        }
    }
}

/// OPS-19, WS-106: what is decrypted and not read yet raises no event of its own.
#[test]
fn many_and_large_messages_over_tls_are_all_heard() {
    let identity = Identity::make("large");
    let node = Node::start("large", &identity.settings());
    let mut wire = identity.secure(plain(node.port));
    let large = format!("{}{}", r#"{"event":"pusher:ping"}"#, " ".repeat(65_536 - 23));
    let mut all = upgrade(TARGET, "").into_bytes();
    for n in 0..20 {
        all.extend(masked(TEXT, large.as_bytes()));
        all.extend(masked(PING, &[n]));
    }
    let mut writer = match &wire.stream {
        Stream::Tls(stream) => stream.sock.try_clone().unwrap(),
        Stream::Plain(_) => unreachable!("it was made with TLS"),
    };
    // Nothing reads meanwhile: the answers are few and small.
    writer.set_nonblocking(false).unwrap();
    wire.send(&all);
    std::io::Write::flush(&mut writer).unwrap();
    assert!(wire.head().starts_with("http/1.1 101 "));
    wire.established();
    for n in 0..20 {
        assert_eq!(wire.event()["event"], "pusher:pong");
        assert_eq!(wire.frame().unwrap().content, [n]);
    }
}

/// OPS-21
#[test]
fn a_hello_that_comes_byte_by_byte_is_as_good_as_any() {
    let identity = Identity::make("bytewise-tls");
    let node = Node::start("bytewise-tls", &identity.settings());
    // A proxy that passes on each byte by itself.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let inner = plain(node.port);
    std::thread::spawn(move || {
        let (mut outer, _) = listener.accept().unwrap();
        let (mut from, mut to) = (inner.try_clone().unwrap(), outer.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let mut byte = [0];
        while std::io::Read::read(&mut outer, &mut byte).is_ok_and(|count| count == 1) {
            if std::io::Write::write_all(&mut &inner, &byte).is_err() {
                return;
            }
        }
    });
    let mut wire = identity.secure(plain(port));
    wire.establish();
    wire.subscribe("news");
}

/// OPS-20
#[test]
fn a_new_certificate_serves_newcomers_drops_nobody_and_a_broken_one_changes_nothing() {
    let identity = Identity::make("renewal");
    let node = Node::start("renewal", &identity.settings());
    let mut held = identity.secure(plain(node.port));
    held.establish();
    held.subscribe("news");
    let mut rest = Rest { wire: identity.secure(plain(node.port)) };
    rest.publish("news", "before", "");
    identity.renew();
    // Only the new certificate is believed by those who come now.
    let newcomer = || identity.try_secure(plain(node.port), &[&TLS13]).ok();
    let mut second = eventually("the new certificate is in use", newcomer);
    second.establish();
    second.subscribe("news");
    rest.publish("news", "after", "");
    assert_eq!([held.event(), held.event()].map(|event| event["event"].clone()), ["before", "after"]);
    assert_eq!(second.event()["event"], "after");

    let good = [&identity.cert, &identity.key].map(|path| fs::read(path).unwrap());
    let said_before = node.log().matches("not taken over").count();
    fs::write(&identity.cert, "-----BEGIN CERTIFICATE-----\nnonsense\n").unwrap();
    eventually("it is said", || (node.log().matches("not taken over").count() > said_before).then_some(()));
    assert!(node.log().contains("cert.pem"), "and names the file: {}", node.log());
    fs::write(&identity.cert, &good[0]).unwrap();
    fs::write(&identity.key, &good[1]).unwrap();
    newcomer().expect("the last good certificate is still in use").establish();
    rest.publish("news", "still", "");
    assert_eq!([held.event(), second.event()].map(|event| event["event"].clone()), ["still", "still"]);
}

/// OPS-21, WS-108
#[test]
fn what_is_no_tls_ends_its_connection_on_a_port_of_tls_alone() {
    let identity = Identity::make("no-tls");
    let port = free_port().unwrap();
    let node = Node::start("no-tls", &format!("{}port = {port}\n", identity.settings()));
    for bytes in [upgrade(TARGET, "").as_bytes(), b"\x16\x03\x01\x00\x05hello", b"\x15\x03\x03\x00\x02\x02\x28"] {
        let mut wire = Wire::plain(plain(port));
        wire.send(bytes);
        let answer = wire.rest();
        assert!(answer.len() < 32 && !answer.starts_with(b"HTTP"), "at most an alert: {answer:?}");
    }
    identity.secure(plain(port)).establish();
    node.open();
}
