//! Whose word about an address is believed.

use crate::harness::{Identity, Node, Rest, TARGET, Wire, plain_from, upgrade};

const PROXY: &str = "127.0.0.2";

fn v2(command: u8, source: [u8; 4]) -> Vec<u8> {
    let addresses = [&source[..], &[127, 0, 0, 1], &[0x15, 0xb3, 0x17, 0x71]].concat();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, 0x11, 0, 12][..], &addresses].concat()
}

/// OPS-22, WS-115
#[test]
fn a_proxy_header_of_either_version_says_who_the_client_is() {
    let settings = "[server]\ntrusted_proxies = [\"127.0.0.2\"]\nproxy_protocol = true\n\
                    [limits]\nconnections_per_ip_max = 1";
    let node = Node::start("proxy-header", settings);
    let open = |header: &[u8]| {
        let mut wire = Wire::plain(plain_from(PROXY, node.port));
        // Byte by byte: the header ends where it says and nowhere else.
        header.iter().for_each(|byte| wire.send(&[*byte]));
        wire.upgrade(TARGET, "");
        (wire.event()["event"] == "pusher:connection_established").then_some(wire)
    };
    let v1 = |ip: &str| format!("PROXY TCP4 {ip} 127.0.0.1 5555 6001\r\n").into_bytes();
    let held = [v1("198.51.100.1"), v2(1, [198, 51, 100, 2]), v1("198.51.100.3")].map(|header| open(&header).unwrap());
    for again in [v2(1, [198, 51, 100, 1]), v1("198.51.100.2"), v1("198.51.100.3")] {
        assert!(open(&again).is_none(), "an address counts as one however it is told");
    }
    // A health check of the balancer itself: no address, and not counted against anybody's.
    let checks = [v2(0, [198, 51, 100, 1]), b"PROXY UNKNOWN\r\n".to_vec(), v2(0, [0; 4])].map(|header| open(&header));
    assert!(checks.iter().all(Option::is_some));
    let six = b"PROXY TCP6 2001:db8::1 ::1 5555 6001\r\n";
    let host = open(six).unwrap();
    assert!(open(b"PROXY TCP6 2001:db8::2 ::1 5555 6001\r\n").is_none(), "a /64 is one address");
    drop((held, host));
}

/// OPS-22
#[test]
fn a_proxy_header_is_taken_from_proxies_alone_and_demanded_of_them() {
    let identity = Identity::make("proxy-trust");
    let settings = "[server]\ntrusted_proxies = [\"127.0.0.2\"]\nproxy_protocol = true\n";
    let node = Node::start("proxy-trust", &format!("{settings}{}", identity.settings()));
    let mut stranger = node.connect();
    stranger.send(b"PROXY TCP4 198.51.100.1 127.0.0.1 5555 6001\r\n");
    // The node may have ended it before this is sent.
    let _: std::io::Result<()> = stranger.try_send(upgrade(TARGET, "").as_bytes());
    let answer = String::from_utf8(stranger.rest()).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    node.open();
    for start in [upgrade(TARGET, "").into_bytes(), [&b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c"[..], &[0; 12]].concat()] {
        let mut proxy = node.connect_from(PROXY);
        proxy.send(&start);
        assert_eq!(proxy.rest(), b"");
    }
    let mut stream = plain_from(PROXY, node.port);
    std::io::Write::write_all(&mut stream, &v2(1, [198, 51, 100, 1])).unwrap();
    identity.secure(stream).establish();
}

/// WS-114, WS-115: a proxy speaks for many, and its own address is nobody's.
#[test]
fn a_proxy_is_not_held_to_the_limit_of_one_address_but_those_behind_it_are() {
    let settings = "[server]\ntrusted_proxies = [\"127.0.0.2\"]\n[limits]\nconnections_per_ip_max = 1";
    let node = Node::start("proxy-limit", settings);
    let mut calls: Vec<_> = (0..3).map(|_| Rest { wire: node.connect_from(PROXY) }).collect();
    calls.iter_mut().for_each(|rest| rest.publish("news", "hello", ""));
    let open = |from: &str, forwarded: &str| {
        let mut wire = node.connect_from(from);
        wire.upgrade(TARGET, &format!("X-Forwarded-For: {forwarded}\r\n"));
        (wire.event()["event"] == "pusher:connection_established").then_some(wire)
    };
    let _held = ["198.51.100.1", "198.51.100.2", "198.51.100.3"].map(|ip| open(PROXY, ip).unwrap());
    assert!(open(PROXY, "198.51.100.2").is_none());
    assert!(open(PROXY, "198.51.100.9, 198.51.100.2").is_none(), "the last that is no proxy counts");
    let _stranger = open("127.0.0.3", "198.51.100.200").unwrap();
    assert!(open("127.0.0.3", "198.51.100.201").is_none(), "a stranger's word counts for nothing");
}

/// WS-7, WS-115
#[test]
fn that_a_client_spoke_tls_is_believed_from_proxies_alone() {
    let node = Node::start("proxy-tls", "[server]\ntrusted_proxies = [\"127.0.0.2\"]\n[app]\ntls_only = true");
    for (from, header, is_in) in [
        (PROXY, "X-Forwarded-Proto: https\r\n", true),
        (PROXY, "X-Forwarded-Proto: wss\r\n", true),
        (PROXY, "X-Forwarded-Proto: http\r\n", false),
        (PROXY, "", false),
        ("127.0.0.1", "X-Forwarded-Proto: https\r\n", false),
    ] {
        let mut wire = node.connect_from(from);
        wire.upgrade(TARGET, header);
        if is_in {
            wire.established();
        } else {
            wire.turned_away(4000);
        }
    }
}

/// WS-7, OPS-22
#[test]
fn a_proxy_that_names_the_client_in_a_header_of_its_own_is_believed_about_tls_as_well() {
    let settings = "[server]\ntrusted_proxies = [\"127.0.0.2\"]\nproxy_protocol = true\n[app]\ntls_only = true";
    let node = Node::start("proxy-header-tls", settings);
    for (header, is_in) in [("X-Forwarded-Proto: https\r\n", true), ("X-Forwarded-Proto: http\r\n", false), ("", false)]
    {
        let mut wire = node.connect_from(PROXY);
        wire.send(b"PROXY TCP4 198.51.100.1 127.0.0.1 5555 6001\r\n");
        wire.upgrade(TARGET, header);
        if is_in {
            wire.established();
        } else {
            wire.turned_away(4000);
        }
    }
    let mut stranger = node.connect();
    stranger.upgrade(TARGET, "X-Forwarded-Proto: https\r\n");
    stranger.turned_away(4000);
}
