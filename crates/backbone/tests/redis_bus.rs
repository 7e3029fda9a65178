//! What the bus carries while a primary is away: so much in a second, and who is refused when more is published. Two nodes over real
//! servers.

mod ears;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ears::Ears;
use fulmar_backbone::redis::RedisBackbone;
use fulmar_backbone::redis::settings::{Credentials, Limits, Settings, Topology};
use fulmar_backbone::{Backbone, PublishError, Terms};
use fulmar_protocol::app::{AppId, Durability};
use fulmar_protocol::exchange::{Join, Publication, Question, Ticket};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::ChannelName;
use fulmar_rig::{SentinelDeployment, SentinelOptions, eventually};

const GROUP: &str = "g1";
const PATIENCE: Duration = Duration::from_secs(40);
/// What a node may send over the bus in a second here.
const BYTES_PER_S: u64 = 4 << 20;
/// Bytes of each of the loud app's events.
const LOUD_BYTES: usize = 4_096;
/// The last batch is not waited for, and a little may be ahead.
const ROUGHLY_MS: u64 = 250;

fn settings(topology: &Topology) -> Settings {
    let limits = Limits { bus_bytes_per_s: BYTES_PER_S, ..Limits::default() };
    Settings { limits, ..Settings::new("bus", topology.clone()) }
}

fn node(settings: Settings, origin: u64) -> RedisBackbone {
    RedisBackbone::start(settings, origin, None).expect("a node starts")
}

/// Listens on the app's room.
fn listen(node: &RedisBackbone, app: &str) -> Receiver<String> {
    let (say, heard) = channel();
    let worker = node.attach(Arc::new(Ears(say)));
    let channel = ChannelName::parse("room", 200).expect("a valid name");
    let ticket = Ticket { session: 1, number: 1 };
    let join = Join { ticket, app: AppId::new(app), channel, member: None, members_max: 0, counted: false };
    assert!(node.ask(worker, Question::Join(join)).is_none());
    assert_eq!(heard.recv_timeout(PATIENCE).as_deref(), Ok(""), "it is subscribed");
    heard
}

/// Publishes something that is answered at once.
fn publish(node: &RedisBackbone, app: &str, text: &str) -> Result<(), PublishError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (app, channel) = (AppId::new(app), ChannelName::parse("room", 200).expect("a valid name"));
    let publication = Publication { app, channel, frame: Frame::new(text), except: None, cache_for: None };
    runtime.block_on(node.publish(vec![publication], Terms { durability: Durability::Memory, once: None }))
}

fn uses_the_bus(node: &RedisBackbone) -> bool {
    node.figures().groups.iter().any(|group| group.over_the_bus)
}

/// Two nodes' servers: a primary and a replica under one Sentinel that takes its time.
fn servers() -> Option<(SentinelDeployment, Topology)> {
    if !fulmar_rig::is_available() {
        eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
        return None;
    }
    let options = SentinelOptions { wants_replica: false, down_after_ms: 600_000, ..SentinelOptions::default() };
    let servers = SentinelDeployment::start(&[(GROUP, 1)], 1, &options).expect("the servers start");
    let sentinels = servers.sentinels().iter().map(|sentinel| sentinel.redis.addr().to_string()).collect();
    Some((servers, Topology::Sentinel { sentinels, groups: vec![GROUP.to_owned()] }))
}

/// RED-37
#[test]
fn the_bus_carries_so_much_a_second_and_an_app_that_publishes_more_is_refused_while_others_are_not() {
    let Some((servers, topology)) = servers() else { return };
    let nodes = [1, 2].map(|origin| node(settings(&topology), origin));
    let are_whole = || {
        let is_whole = |node: &RedisBackbone| {
            let groups = node.figures().groups;
            node.leases().len() == 2 && !groups.is_empty() && groups.iter().all(|group| group.hears)
        };
        nodes.iter().all(is_whole).then_some(())
    };
    eventually("the nodes find each other", PATIENCE, are_whole).expect("they do");
    let (loud, quiet) = (listen(&nodes[1], "loud"), listen(&nodes[1], "quiet"));
    let primary = servers.primary_of(GROUP).expect("there is one");
    primary.redis.stop();
    // The first of them are too few to count.
    let trouble = || {
        assert_eq!(publish(&nodes[0], "trouble", "."), Ok(()));
        uses_the_bus(&nodes[0]).then_some(())
    };
    eventually("the bus is in use", PATIENCE, trouble).expect("it is");

    let (begun, mut sent) = (Instant::now(), Vec::new());
    let refused = loop {
        let text = format!("{:0>LOUD_BYTES$}", sent.len());
        match publish(&nodes[0], "loud", &text) {
            Ok(()) => sent.push(text),
            Err(error) => break error,
        }
        assert!(begun.elapsed() < PATIENCE, "nothing is refused");
    };
    assert_eq!(refused, PublishError::NotAccepted);
    let bytes = (sent.len() * LOUD_BYTES) as u64;
    assert!(bytes >= BYTES_PER_S / 3, "half a second's worth may wait of whomever, but {bytes} bytes were taken");
    assert_eq!(publish(&nodes[0], "quiet", "quiet"), Ok(()), "nothing waits of this one");

    for text in &sent {
        assert_eq!(loud.recv_timeout(PATIENCE).as_ref(), Ok(text), "all that was accepted is heard once, in its order");
    }
    let least = Duration::from_millis((bytes * 1_000 / BYTES_PER_S).saturating_sub(ROUGHLY_MS));
    assert!(begun.elapsed() >= least, "{bytes} bytes in {:?}", begun.elapsed());
    assert_eq!(quiet.recv_timeout(PATIENCE).as_deref(), Ok("quiet"));
    let takes_again = || publish(&nodes[0], "loud", "again").ok();
    eventually("the app may publish again", PATIENCE, takes_again).expect("it may");
    assert_eq!(loud.recv_timeout(PATIENCE).as_deref(), Ok("again"));
    primary.redis.resume();
}

/// RED-16, RED-24: whoever is answered without a group is told what is published from then on.
#[test]
fn a_node_that_never_had_the_primary_hears_over_the_bus_what_others_publish() {
    let Some((servers, topology)) = servers() else { return };
    let healthy = node(settings(&topology), 1);
    let hears = || healthy.figures().groups.first().filter(|group| group.hears).map(|_| ());
    eventually("the first node is there", PATIENCE, hears).expect("it is");
    // One user, and only the replica lets it do what nodes do.
    let (user, password) = ("fulmar", "secret");
    let all = ["ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all"];
    let primary = servers.primary_of(GROUP).expect("there is one");
    primary.redis.call(&[&all[..], &["-@scripting"]].concat()).expect("a user without scripts");
    for replica in servers.replicas_of(GROUP).expect("there is one") {
        replica.redis.call(&all).expect("a user");
    }
    let credentials = Credentials { user: Some(user.to_owned()), password: Some(password.to_owned()) };
    let barred = node(Settings { credentials, ..settings(&topology) }, 2);
    let heard = listen(&barred, "app");
    assert!(!barred.figures().groups.iter().any(|group| group.hears), "it was answered without the group");
    let texts = ["first", "second", "third"];
    texts.iter().for_each(|text| assert_eq!(publish(&healthy, "app", text), Ok(())));
    for text in texts {
        assert_eq!(heard.recv_timeout(PATIENCE).as_deref(), Ok(text));
    }
}
