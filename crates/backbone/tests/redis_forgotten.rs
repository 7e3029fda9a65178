//! A node that stood still for so long that the others have not only buried but forgotten it: its marks are gone, and with them
//! the last numbers of its lanes, which alone could tell a repeat. It comes back with publications in its hands that it sent long
//! ago, and must not send them again.
//!
//! A node cannot be stopped within a test's own process, so the wire between it and the server is: from the other side that looks
//! the same. What takes an hour takes four seconds here.

use std::time::Duration;

use fulmar_backbone::redis::RedisBackbone;
use fulmar_backbone::redis::keys::Keys;
use fulmar_backbone::redis::settings::{Limits, Settings, Topology};
use fulmar_backbone::{Backbone, PublishError, Terms};
use fulmar_protocol::app::{AppId, Durability};
use fulmar_protocol::exchange::Publication;
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::ChannelName;
use fulmar_rig::{Link, Redis, RedisOptions, eventually};

const DEPLOYMENT: &str = "forgotten";
const PATIENCE: Duration = Duration::from_secs(40);
const MARKS_AGE: Duration = Duration::from_secs(4);
/// The node behind the wire, and its name in keys.
const ORIGIN: u64 = 7;
const NODE: &str = "0000000000000007";

/// A node behind a wire, and two that bury it. One of those goes in the end, and clears old marks.
struct World {
    far: RedisBackbone,
    near: RedisBackbone,
    leaving: RedisBackbone,
    wire: Link,
    server: Redis,
}

/// `patience` is how long the node behind the wire waits for answers before it gives its connections up.
fn world(patience: Duration) -> Option<World> {
    if !fulmar_rig::is_available() {
        eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
        return None;
    }
    let server = Redis::start(&RedisOptions::default()).expect("a server starts");
    let wire = Link::to(server.addr()).expect("a port is free");
    let start = |addr: std::net::SocketAddr, origin: u64, patience: Duration| {
        let limits = Limits {
            breaker: patience,
            command_timeout: patience,
            publish_timeout: Duration::from_secs(5),
            lease: Duration::from_secs(2),
            marks_age: MARKS_AGE,
            ..Limits::default()
        };
        let settings = Settings { limits, ..Settings::new(DEPLOYMENT, Topology::Single(addr.to_string())) };
        RedisBackbone::start(settings, origin, None).expect("a node starts")
    };
    let far = start(wire.addr(), ORIGIN, patience);
    let (near, leaving) =
        (start(server.addr(), 8, Duration::from_secs(2)), start(server.addr(), 9, Duration::from_secs(2)));
    let all = [&far, &near, &leaving];
    eventually("all nodes know each other", PATIENCE, || {
        all.iter().all(|node| node.leases().len() == all.len()).then_some(())
    })
    .expect("they do");
    Some(World { far, near, leaving, wire, server })
}

impl World {
    fn publish(&self, text: &str, durability: Durability) -> Result<(), PublishError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (app, channel) = (AppId::new("app"), ChannelName::parse("room", 200).expect("a valid name"));
        let publication = Publication { app, channel, frame: Frame::new(text), except: None, cache_for: None };
        runtime.block_on(self.far.publish(vec![publication], Terms { durability, once: None }))
    }

    /// How often each of these is in the log.
    fn logged<const N: usize>(&self, texts: [&str; N]) -> [usize; N] {
        let log = self.server.call(&["XRANGE", &Keys::new(DEPLOYMENT).log(), "-", "+"]).expect("a log");
        let mut messages = Vec::new();
        for entry in log.list() {
            messages.extend(entry.list()[1].list().chunks(2).map(|pair| pair[1].text()));
        }
        texts.map(|text| messages.iter().filter(|message| message.contains(text)).count())
    }

    fn numbers(&self) -> usize {
        let fields = self.server.call(&["HKEYS", &Keys::new(DEPLOYMENT).sequences()]).expect("numbers");
        fields.list().iter().filter(|field| field.text().starts_with(NODE)).count()
    }

    fn buried_at(&self) -> Option<i64> {
        let fence = self.server.call(&["HGET", &Keys::new(DEPLOYMENT).fence(), NODE]).ok()?;
        fence.text().strip_prefix("reaped ")?.parse().ok()
    }

    /// The node behind the wire is buried, and its marks become old and are cleared.
    fn forget(&self) {
        let buried = eventually("it is taken for dead", PATIENCE, || self.buried_at()).expect("it is");
        assert_eq!(self.numbers(), 1, "it may come back yet");
        let age = i64::try_from(MARKS_AGE.as_secs()).expect("it is small");
        eventually("its marks are old", PATIENCE, || {
            let now: i64 = self.server.call(&["TIME"]).ok()?.list().first()?.text().parse().ok()?;
            (now > buried + age).then_some(())
        })
        .expect("they are");
        self.leaving.stop();
        eventually("its numbers are gone", PATIENCE, || (self.numbers() == 0).then_some(())).expect("they are");
    }

    /// It is there again, publishes, and nothing that it sent before has come a second time.
    fn comes_back(&self) {
        self.wire.mend();
        let fence = || self.server.call(&["HGET", &Keys::new(DEPLOYMENT).fence(), NODE]).ok();
        let is_alive = || fence().is_some_and(|fence| fence.text().parse::<u64>().is_ok());
        eventually("it has a lease again", PATIENCE, || is_alive().then_some(())).expect("it has");
        eventually("it publishes", PATIENCE, || self.publish("after", Durability::Primary).ok()).expect("it does");
        let [before, after] = self.logged(["before", "after"]);
        assert_eq!(before, 1, "what it had sent before it was forgotten");
        assert!(after >= 1, "what it was asked since");
        assert_eq!(self.numbers(), 1);
        self.near.stop();
    }
}

/// RED-4
#[test]
fn a_node_that_was_cut_off_until_it_was_forgotten_appends_only_what_is_new() {
    let Some(world) = world(Duration::from_secs(2)) else { return };
    world.publish("before", Durability::Primary).expect("it is accepted");
    world.wire.cut();
    // What is sent into a wire that was just cut may have arrived, for all the node knows.
    let is_away = || world.far.figures().groups.iter().all(|group| !group.is_here);
    eventually("it knows that it is cut off", PATIENCE, || is_away().then_some(())).expect("it does");
    world.publish("meanwhile", Durability::Memory).expect("this node has it, and no other");
    world.forget();
    world.comes_back();
    eventually("what was never sent arrives", PATIENCE, || (world.logged(["meanwhile"]) == [1]).then_some(()))
        .expect("it does");
}

/// RED-4: its connections are as they were, and renewing its lease is the first that it does.
#[test]
fn a_node_that_stood_still_until_it_was_forgotten_appends_only_what_is_new() {
    let Some(world) = world(Duration::from_secs(120)) else { return };
    world.publish("before", Durability::Primary).expect("it is accepted");
    world.wire.fall_silent();
    world.forget();
    world.comes_back();
}

/// RED-4: the same with a batch on its way, which arrives when nobody remembers the one before it.
#[test]
fn a_batch_that_was_under_way_until_its_node_was_forgotten_is_refused() {
    let Some(world) = world(Duration::from_secs(120)) else { return };
    world.publish("before", Durability::Primary).expect("it is accepted");
    world.wire.fall_silent();
    let answered = world.publish("under way", Durability::Primary);
    assert!(matches!(answered, Err(PublishError::Unknown { .. })), "{answered:?}");
    world.forget();
    world.comes_back();
    assert_eq!(world.logged(["under way"]), [0]);
}
