//! `Idempotency-Key` over two nodes: what the other one knows of a call, and what it does not.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use fulmar_rig::{Node, Ready, http};

use super::{PATIENCE, app, connect, next_event, node, one_redis, publish};

/// Publishes under a key; answers the status, and whether it was said to be a repeat.
fn publish_once(at: &Node, data: &str, key: &str) -> (u16, bool) {
    let body = http::publication("room", data);
    let mut stream = TcpStream::connect(at.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&http::request(&app(), "POST", "events", &[], &body, Some(key))).unwrap();
    let (mut read, mut piece) = (Vec::new(), [0; 1_024]);
    loop {
        if let Some((answer, _)) = http::Answer::read(&read) {
            let text = String::from_utf8_lossy(&read).to_ascii_lowercase();
            return (answer.status, text.contains("\r\nidempotent-replayed: true\r\n"));
        }
        let bytes = stream.read(&mut piece).unwrap();
        assert!(bytes > 0, "it ended before it answered");
        read.extend_from_slice(&piece[..bytes]);
    }
}

/// HTTP-48, HTTP-51, RED-15
#[test]
fn a_repeat_through_another_node_reaches_nobody_again_and_only_who_took_a_call_knows_it() {
    let Some((_redis, backbone)) = one_redis() else { return };
    let [one, other] = [(), ()].map(|()| node("", &backbone, Ready::ForTraffic));
    let mut subscriber = connect(&other);
    subscriber.subscribe("room", None).unwrap();
    assert_eq!(publish_once(&one, "first", "k"), (200, false));
    assert_eq!(publish_once(&other, "first", "k"), (200, false), "the other node has not answered it before");
    assert_eq!(publish_once(&one, "first", "k"), (200, true));
    assert_eq!(publish_once(&one, "a mistake", "k"), (422, false));
    assert_eq!(publish_once(&other, "a mistake", "k"), (422, false), "now it has");
    assert_eq!(publish_once(&one, "second", "k2"), (200, false));
    assert_eq!(publish_once(&other, "third", "k2"), (200, false), "a call of its own, to who knows nothing of the key");
    publish(&one, "room", "end");
    let heard = std::iter::from_fn(|| Some(next_event(&mut subscriber).1).filter(|data| data != "end"));
    assert_eq!(heard.collect::<Vec<_>>(), ["first", "second", "third"]);
}
