//! Bytes without sense, and everybody gone at once.

use std::time::{Duration, Instant};

use fulmar_protocol::name::{ChannelName, SocketId};
use fulmar_protocol::signing::Signer;
use serde_json::json;

use crate::harness::{
    Identity, Node, PING, Rest, TARGET, TEXT, Wire, app, command, eventually, header, masked, plain, upgrade,
};

/// Numbers that are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, max: usize) -> usize {
        usize::try_from(self.roll() % max as u64).unwrap()
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        (0..self.below(max)).map(|_| self.roll().to_le_bytes()[3]).collect()
    }
}

/// Something that was right, with a few bytes changed, cut off or put in.
fn spoilt(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len().max(1)).min(bytes.len());
        match dice.below(3) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, dice.roll().to_le_bytes()[0]),
            _ if at < bytes.len() => bytes[at] = dice.roll().to_le_bytes()[0],
            _ => {}
        }
    }
    bytes
}

/// WS-108, HTTP-47
#[test]
fn no_bytes_bring_a_node_down_or_stay_behind() {
    let identity = Identity::make("garbage");
    let settings = "[limits]\nhandshake_timeout_ms = 500\nrequest_timeout_ms = 500\nframe_timeout_ms = 500\n\
                    keep_alive_timeout_s = 1\n";
    let node = Node::start("garbage", &format!("{settings}{}", identity.settings()));
    let mut witness = node.open();
    witness.subscribe("news");
    assert_eq!(node.rest().status("/livez"), 200);
    let (files, kib) = eventually("only the witness is there", || {
        (node.rest().count("news") == 1).then(|| (node.open_files(), node.resident_kib()))
    });
    let seed = std::process::id().into();
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let until = Instant::now() + Duration::from_secs(3);
    let mut connections = 0;
    while Instant::now() < until {
        connections += 1;
        let (mut tls, mut wire) = (None, Wire::plain(plain(node.port)));
        if dice.below(8) == 0 {
            tls = identity.try_secure(plain(node.port), &[&rustls::version::TLS13]).ok();
        }
        let wire = tls.as_mut().unwrap_or(&mut wire);
        let bytes = match dice.below(7) {
            0 => dice.bytes(2_000),
            1 => spoilt(&mut dice, upgrade(TARGET, "").into_bytes()),
            2 => spoilt(&mut dice, Rest::publication("news", "never", "x").into_bytes()),
            3 => [b"\x16\x03\x01\x02".to_vec(), dice.bytes(600)].concat(),
            _ => {
                let mut bytes = upgrade(TARGET, "").into_bytes();
                for _ in 0..dice.below(12) {
                    let content = dice.bytes(200);
                    let frame = match dice.below(5) {
                        0 => command("pusher:subscribe", json!({"channel": "presence-x", "channel_data": "{}"})),
                        1 => masked(PING, &content),
                        2 => [header(TEXT, dice.roll()), content].concat(),
                        3 => masked(dice.roll().to_le_bytes()[0], &content),
                        _ => command("client-x", json!({"a": String::from_utf8_lossy(&content)})),
                    };
                    bytes.extend(if dice.below(3) == 0 { spoilt(&mut dice, frame) } else { frame });
                }
                bytes
            }
        };
        // It may have closed already, and be gone without a word: what it does is its own business, as long as it lives.
        for piece in bytes.chunks(1 + dice.below(700)) {
            if wire.try_send(piece).is_err() {
                break;
            }
        }
        if dice.below(2) == 0 {
            wire.shut();
        }
    }
    assert!(connections > 100, "{connections}");
    node.rest().publish("news", "still here", "");
    // One or the other was not spoilt after all.
    while witness.event()["event"] != "still here" {}
    eventually("every descriptor is given back", || (node.open_files() <= files + 1).then_some(()));
    let now = node.resident_kib();
    assert!(now < kib + 32 * 1024, "{kib} KiB before, {now} KiB after {connections} connections");
}

/// WS-39, WS-83, DEL-15, T-27
#[test]
fn two_thousand_that_vanish_at_once_are_gone_from_everywhere() {
    let node = Node::start("vanish", "[app]\npresence_members_max = 1000");
    let mut rest = node.rest();
    assert_eq!(rest.count("news"), 0);
    let files = node.open_files();
    let mut witness = join(&node, "witness");
    let members: Vec<_> = (0..150).map(|n| join(&node, &format!("m{n}"))).collect();
    let listeners: Vec<_> = (0..1_850)
        .map(|_| {
            let mut wire = node.open();
            wire.subscribe("news");
            wire
        })
        .collect();
    assert_eq!(rest.count("news"), 1_850);
    assert_eq!(rest.get("channels/presence-room", &[("info", "user_count")])["user_count"], 151);
    let since = Instant::now();
    drop((members, listeners));
    eventually("nobody listens", || (rest.count("news") == 0).then_some(()));
    eventually("only the witness is a member", || {
        (rest.get("channels/presence-room", &[("info", "user_count")])["user_count"] == 1).then_some(())
    });
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!(rest.get("channels", &[])["channels"], json!({"presence-room": {}}));
    let mut present = 150;
    while present > 0 {
        match witness.event()["event"].as_str().unwrap() {
            "pusher_internal:member_removed" => present -= 1,
            "pusher_internal:member_added" => {}
            other => panic!("{other}"),
        }
    }
    eventually("every descriptor is given back", || (node.open_files() <= files + 1).then_some(()));
}

fn join(node: &Node, user: &str) -> Wire {
    let mut wire = node.connect();
    let socket_id = SocketId::parse(&wire.establish()).unwrap().unwrap();
    let channel_data = json!({"user_id": user}).to_string();
    let app = app();
    let channel = ChannelName::parse("presence-room", 200).unwrap();
    let auth = Signer::of(&app).sign_channel(socket_id, &channel, Some(&channel_data));
    let data = json!({"channel": "presence-room", "channel_data": channel_data, "auth": auth});
    wire.send(&command("pusher:subscribe", data));
    assert_eq!(wire.event()["event"], "pusher_internal:subscription_succeeded");
    wire
}
