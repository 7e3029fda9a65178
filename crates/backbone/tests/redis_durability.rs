//! What an app's `durability` changes: what a call waits for, on real servers of which some are stopped.
//!
//! Machines that run tests are busy: what was waited for is read from the servers' and the node's counters, and a clock is
//! asked only where whatever else the machine does cannot matter.

use std::time::{Duration, Instant};

use fulmar_backbone::redis::keys::Keys;
use fulmar_backbone::redis::settings::{Limits, Settings, Topology};
use fulmar_backbone::redis::{Figures, RedisBackbone};
use fulmar_backbone::{Backbone, PublishError, Terms};
use fulmar_protocol::app::{AppId, Durability};
use fulmar_protocol::exchange::Publication;
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::ChannelName;
use fulmar_rig::{Redis, RedisOptions, SentinelDeployment, SentinelOptions, Server, eventually};

const DEPLOYMENT: &str = "durability";
const GROUP: &str = "g1";
const PATIENCE: Duration = Duration::from_secs(40);
/// How long a call waits that is to be answered, however busy the machine is.
const LONG: Duration = Duration::from_secs(20);
/// How long one waits that cannot be.
const SHORT: Duration = Duration::from_secs(2);
/// Nearly what `WAIT` waits at most, which is 80 ms as documented.
const ALMOST_WAIT: Duration = Duration::from_millis(72);

/// One node.
struct World {
    node: RedisBackbone,
    published: u64,
}

impl World {
    fn new(topology: Topology, publish_timeout: Duration) -> Self {
        Self::waiting(topology, publish_timeout, Limits::default().wait)
    }

    /// One that waits for replicas so long.
    fn waiting(topology: Topology, publish_timeout: Duration, wait: Duration) -> Self {
        let limits = Limits {
            wait,
            // However slow a server that runs is here, it is not gone: nothing is answered over the bus instead.
            breaker: Duration::from_secs(20),
            silence: Duration::from_secs(20),
            command_timeout: Duration::from_secs(20),
            publish_timeout,
            ..Limits::default()
        };
        let settings = Settings { limits, ..Settings::new(DEPLOYMENT, topology) };
        let node = RedisBackbone::start(settings, 7, None).expect("a node starts");
        let is_whole = || {
            let figures = node.figures();
            let is_ready = figures.groups.iter().all(|group| group.hears && !group.over_the_bus);
            (!figures.groups.is_empty() && is_ready).then_some(())
        };
        eventually("the node hears its group", PATIENCE, is_whole).expect("it does");
        Self { node, published: 0 }
    }

    fn publish(&mut self, text: &str, durability: Durability) -> Result<(), PublishError> {
        self.published += 1;
        publish(&self.node, text, durability)
    }

    /// How long the answer took of a publication that must be accepted.
    fn time(&mut self, text: &str, durability: Durability) -> Duration {
        let begun = Instant::now();
        self.publish(text, durability).expect("it is accepted");
        begun.elapsed()
    }

    /// Figures that have all in them that was answered before: they are shown every two seconds, and one more publication, which
    /// waits for nobody, tells the new from the old.
    fn figures(&mut self) -> Figures {
        self.publish("for the figures", Durability::Memory).expect("the node has it");
        let are_new = || Some(self.node.figures()).filter(|figures| figures.accepted == self.published);
        eventually("figures are shown", PATIENCE, are_new).expect("they are")
    }
}

fn publish(node: &RedisBackbone, text: &str, durability: Durability) -> Result<(), PublishError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (app, channel) = (AppId::new("app"), ChannelName::parse("room", 200).expect("a valid name"));
    let publication = Publication { app, channel, frame: Frame::new(text), except: None, cache_for: None };
    runtime.block_on(node.publish(vec![publication], Terms { durability, once: None }))
}

/// A primary with two replicas that does not mind being without, and does not fail over while a test stops it.
fn servers() -> Option<SentinelDeployment> {
    if !fulmar_rig::is_available() {
        eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
        return None;
    }
    let options = SentinelOptions { wants_replica: false, down_after_ms: 120_000, ..SentinelOptions::default() };
    Some(SentinelDeployment::start(&[(GROUP, 2)], 1, &options).expect("the servers start"))
}

fn topology(servers: &SentinelDeployment) -> Topology {
    let sentinels = servers.sentinels().iter().map(|sentinel| sentinel.redis.addr().to_string()).collect();
    Topology::Sentinel { sentinels, groups: vec![GROUP.to_owned()] }
}

/// How often a server was asked to wait for replicas.
fn waits(server: &Redis) -> u64 {
    let line = server.info("commandstats", "cmdstat_wait").expect("it answers").unwrap_or_default();
    let calls = line.split(',').find_map(|part| part.strip_prefix("calls="));
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

/// The node knows of the replicas: it asks for one.
fn await_waiting(world: &mut World, primary: &Redis) {
    eventually("a replica is waited for", PATIENCE, || {
        let before = waits(primary);
        world.publish("replicated", Durability::Replicated).expect("it is accepted");
        (waits(primary) > before).then_some(())
    })
    .expect("it is");
}

/// Stops replicas that have confirmed everything so far: what is published just then waits for them as long as may be.
fn stop(world: &mut World, replicas: &[&Server]) {
    replicas.iter().for_each(|replica| replica.redis.stop());
    // The signal takes its time.
    let mut before = world.figures();
    let took = eventually("the replicas have stopped", PATIENCE, || {
        let took = world.time("replicated", Durability::Replicated);
        let counted = std::mem::replace(&mut before, world.figures()).without_replica;
        (before.without_replica > counted).then_some(took)
    })
    .expect("they have");
    assert!(took >= ALMOST_WAIT, "{took:?}");
}

/// RED-13
#[test]
fn only_what_is_to_be_replicated_waits_for_replicas_and_it_is_answered_without_them_and_counted() {
    let Some(servers) = servers() else { return };
    let primary = &servers.primary_of(GROUP).expect("there is one").redis;
    let mut world = World::new(topology(&servers), LONG);
    await_waiting(&mut world, primary);
    let replicas = servers.replicas_of(GROUP).expect("there are two");
    stop(&mut world, &replicas);

    let before = world.figures();
    let asked = waits(primary);
    let fastest = (0..20).map(|_| world.time("primary", Durability::Primary)).min();
    assert_eq!(waits(primary), asked, "nobody waits for a replica");
    assert!(fastest < Some(ALMOST_WAIT), "{fastest:?}");
    assert_eq!(world.figures().without_replica, before.without_replica);

    // One after the other goes on asking, each for as long as it may; and nobody waits for that.
    const MORE: u64 = 200;
    let (asked, begun) = (waits(primary), Instant::now());
    let fastest = (0..MORE).map(|_| world.time("replicated", Durability::Replicated)).min();
    assert!(fastest < Some(ALMOST_WAIT), "{fastest:?}");
    let asked = f64::from(u32::try_from(waits(primary) - asked).expect("a few"));
    let most = 2.0 + begun.elapsed().div_duration_f64(ALMOST_WAIT);
    assert!(asked <= most, "{asked}, and at most {most} of them have room one after the other");
    let are_counted = || (world.figures().without_replica >= before.without_replica + MORE).then_some(());
    eventually("each is counted", PATIENCE, are_counted).expect("none had a replica");

    replicas.iter().for_each(|replica| replica.redis.resume());
    let mut before = world.figures();
    eventually("a replica is waited for again, and has it", PATIENCE, || {
        let asked = waits(primary);
        world.publish("replicated", Durability::Replicated).expect("it is accepted");
        let counted = std::mem::replace(&mut before, world.figures()).without_replica;
        (waits(primary) > asked && before.without_replica == counted).then_some(())
    })
    .expect("they are back");
    stop(&mut world, &replicas);
    replicas.iter().for_each(|replica| replica.redis.resume());
    assert_eq!(world.figures().timed_out, 0);
}

/// RED-13
#[test]
fn what_waits_for_a_replica_keeps_nothing_behind_it_from_the_log() {
    let Some(servers) = servers() else { return };
    let primary = &servers.primary_of(GROUP).expect("there is one").redis;
    // Longer than the test may take: whatever waits for a replica does so until they are back.
    let mut world = World::waiting(topology(&servers), 3 * LONG, 3 * LONG);
    await_waiting(&mut world, primary);
    let replicas = servers.replicas_of(GROUP).expect("there are two");
    replicas.iter().for_each(|replica| replica.redis.stop());
    let (log, node) = (Keys::new(DEPLOYMENT).log(), &world.node);
    let is_logged = |text: &str| primary.call(&["XRANGE", &log, "-", "+"]).is_ok_and(|all| all.text().contains(text));
    let asked = waits(primary);
    std::thread::scope(|scope| {
        let mut calls = Vec::new();
        for text in ["first", "second", "third", "fourth", "fifth"] {
            calls.push(scope.spawn(move || publish(node, text, Durability::Replicated)));
            eventually("the log has it", LONG, || is_logged(text).then_some(())).expect("nothing is in its way");
        }
        // The signal takes its time: the first may have found a replica that still ran.
        let answered = calls.iter().filter(|call| call.is_finished()).count();
        assert!(answered <= 1, "{answered} were answered with no replica");
        replicas.iter().for_each(|replica| replica.redis.resume());
        for call in calls {
            assert_eq!(call.join().expect("it is answered"), Ok(()));
        }
    });
    world.published += 5;
    let asked = waits(primary) - asked;
    assert!(asked <= 3, "{asked} for five: what left meanwhile is asked for at once");
    assert_eq!((world.figures().timed_out, world.figures().without_replica), (0, 0));
}

/// RED-13
#[test]
fn what_need_only_be_in_memory_is_answered_while_every_server_is_stopped() {
    let Some(servers) = servers() else { return };
    let primary = &servers.primary_of(GROUP).expect("there is one").redis;
    let mut world = World::new(topology(&servers), SHORT);
    let all = &servers.group(GROUP).expect("there is one").servers;
    all.iter().for_each(|server| server.redis.stop());
    // The signal takes its time: until it has come, this is accepted.
    eventually("nobody answers", PATIENCE, || world.publish("primary", Durability::Primary).err())
        .expect("nobody does");

    assert_eq!(world.publish("memory", Durability::Memory), Ok(()), "this node has it, and no other process can");
    for (text, durability) in [("primary", Durability::Primary), ("replicated", Durability::Replicated)] {
        let answered = world.publish(text, durability);
        assert!(matches!(answered, Err(PublishError::Unknown { .. })), "{text}: {answered:?}");
    }

    all.iter().for_each(|server| server.redis.resume());
    let log = Keys::new(DEPLOYMENT).log();
    eventually("what the node had in memory is in the log", PATIENCE, || {
        primary.call(&["XRANGE", &log, "-", "+"]).ok().filter(|entries| entries.text().contains("memory")).map(drop)
    })
    .expect("it is");
}

/// RED-13
#[test]
fn what_is_answered_while_a_group_has_no_replica_is_counted_too() {
    let Some(servers) = servers() else { return };
    let primary = &servers.primary_of(GROUP).expect("there is one").redis;
    let mut world = World::new(topology(&servers), LONG);
    await_waiting(&mut world, primary);
    for replica in servers.replicas_of(GROUP).expect("there are two") {
        replica.redis.kill();
    }
    // Until the node has noticed, it waits for them.
    let mut before = world.figures();
    eventually("what no replica is asked for is counted", PATIENCE, || {
        let asked = waits(primary);
        world.publish("replicated", Durability::Replicated).expect("it is answered all the same");
        let counted = std::mem::replace(&mut before, world.figures()).without_replica;
        (waits(primary) == asked && before.without_replica == counted + 1).then_some(())
    })
    .expect("it is");
}

/// RED-13
#[test]
fn over_a_single_server_replicated_means_primary() {
    if !fulmar_rig::is_available() {
        eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
        return;
    }
    let server = Redis::start(&RedisOptions::default()).expect("a server starts");
    let mut world = World::new(Topology::Single(server.addr().to_string()), LONG);
    for durability in [Durability::Replicated, Durability::Primary, Durability::Replicated] {
        world.publish("text", durability).expect("the server has it");
    }
    assert_eq!(waits(&server), 0, "there is nobody to wait for");
    assert_eq!(world.figures().without_replica, 0, "and nothing amiss");
}
