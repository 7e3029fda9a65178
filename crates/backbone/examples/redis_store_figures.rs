//! What the records cost a real server, in microseconds of its time: `cargo run --example redis_store_figures`.
//! Prints; decides nothing. Calls longer than a millisecond are counted by the server's own slow log.

#![allow(clippy::unwrap_used, dead_code)] // The world is shared with the tests, which use all of it.

#[path = "../tests/redis_store/world.rs"]
mod world;

use std::time::{Duration, Instant};

use fulmar_backbone::redis::records::{Call, Change, Find};
use fulmar_backbone::redis::topic::Topic;
use world::{World, identify, info, topic};

const CHANNELS: usize = 5_000;
const MEMBERS: usize = 20;

fn room(number: usize) -> Topic {
    topic(&format!("7:presence-room-{number}"))
}

/// Server time spent in a command so far, and its calls.
fn spent(world: &mut World, command: &str) -> (u64, u64) {
    let line = info(&mut world.admin, &format!("cmdstat_{command}"));
    let number = |name: &str| {
        let field = line.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        field.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    (number("usec"), number("calls"))
}

/// Prints what `what` cost per item.
fn measure(world: &mut World, name: &str, items: usize, command: &str, what: impl FnOnce(&mut World)) {
    world.redis::<()>(&["CONFIG", "RESETSTAT"]);
    world.redis::<()>(&["SLOWLOG", "RESET"]);
    let began = Instant::now();
    what(world);
    let took = began.elapsed();
    let (micros, calls) = spent(world, command);
    let slow: u64 = world.redis(&["SLOWLOG", "LEN"]);
    let per_item = micros as f64 / items as f64;
    let per_call = micros as f64 / calls.max(1) as f64;
    if std::env::var("SHOW_SLOW").is_ok() {
        let entries: Vec<redis::Value> = world.redis(&["SLOWLOG", "GET", "3"]);
        entries.iter().for_each(|entry| println!("{:.300}", format!("{entry:?}")));
    }
    println!(
        "{name:58} {per_item:8.2} us/item {per_call:8.1} us/call {calls:7} calls, {slow:4} over 1 ms, {:6} ms in all",
        took.as_millis()
    );
}

/// Everybody joins; `batch` changes are queued before anything is sent.
fn join_all(world: &mut World, nodes: usize, batch: usize, channels: usize, members: usize) {
    let mut queued = 0;
    for number in 0..channels {
        for member in 0..members {
            let node = member % nodes;
            let count = (member / nodes + 1) as u32;
            let change = world.nodes[node].join(&room(number), count, &format!("user-{member}"));
            world.nodes[node].ask(Call::Change(Change { wants_roster: false, ..change }));
            queued += 1;
            if queued % (batch * nodes) == 0 {
                world.settle();
                world.nodes.iter_mut().for_each(|node| node.told.clear());
            }
        }
    }
    world.settle();
}

/// Changes of channels without users: two by each node on each channel.
fn plain_changes(world: &mut World, nodes: usize, batch: usize, channels: usize) {
    for subscriptions in [1, 2] {
        for number in 0..channels {
            for node in 0..nodes {
                let room = topic(&format!("7:room-{batch}-{number}"));
                let change = world.nodes[node].plain(&room, subscriptions);
                world.nodes[node].ask(Call::Change(change));
            }
            if number % batch == 0 {
                world.settle();
            }
        }
    }
    world.settle();
}

/// Everything is gone; the identity is written back as the driver does, and all nodes attach.
fn flush(world: &mut World) {
    world.redis::<()>(&["FLUSHALL"]);
    let keys = world.keys.clone();
    identify(&mut world.admin, &keys, 2);
    let now = world.now;
    for node in &mut world.nodes {
        node.facts.epoch = 2;
        node.lose();
        node.store.attached(now, 2);
    }
    world.settle();
}

fn upkeep(world: &mut World, nodes: usize) {
    measure(world, "a beat", 3 * nodes, "evalsha", |world| {
        let now = world.now;
        for second in 1..=3 {
            world.now = now + Duration::from_secs(second);
            world.settle();
        }
    });
    let passes = |world: &World| world.nodes.iter().map(|node| node.store.state().passes).sum::<u64>();
    let before = passes(world);
    measure(world, "audits of 60 s of moved time, per channel and node", CHANNELS * nodes, "hgetall", |world| {
        world.run(Duration::from_secs(60));
    });
    println!("   ({} passes)", passes(world) - before);
}

fn main() {
    for nodes in [1, 3, 10] {
        let Some(mut world) = World::new(nodes) else { return };
        world.redis::<()>(&["CONFIG", "SET", "slowlog-log-slower-than", "1000"]);
        println!("-- {nodes} nodes");
        for (batch, channels) in [(1, 300), (64, 1_000)] {
            let name = format!("plain changes, {batch} queued at a time");
            measure(&mut world, &name, channels * nodes * 2, "evalsha", |world| {
                plain_changes(world, nodes, batch, channels);
            });
        }
        let users = CHANNELS * MEMBERS;
        measure(&mut world, "joins of presence channels, 64 queued at a time", users, "evalsha", |world| {
            join_all(world, nodes, 64, CHANNELS, MEMBERS);
        });
        upkeep(&mut world, nodes);
        measure(&mut world, "listing of all channels with users, per channel", CHANNELS, "evalsha", |world| {
            world.find(0, Find::Prefix("7:presence-".to_owned()));
        });
        measure(&mut world, "a roster of 20", 1_000, "evalsha", |world| {
            (0..1_000).for_each(|number| {
                let (token, topic) = (world.nodes[0].token(), room(number));
                world.nodes[0].ask(Call::Roster { token, topic });
            });
            world.settle();
        });
        measure(&mut world, "everything flushed, made right, per user", users, "evalsha", flush);
        if nodes > 1 {
            world.nodes[nodes - 1].is_stopped = true;
            world.run(Duration::from_secs(12));
            let dead = format!("node{}", nodes - 1);
            measure(&mut world, "reaping of one node, per user", users / nodes, "evalsha", |world| {
                world.nodes[0].store.reap(&dead);
                world.settle();
            });
        }
    }
}
