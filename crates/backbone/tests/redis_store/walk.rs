//! Random walks: nodes that change, lose connections and are slow to hear, against a model that knows what they said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use fulmar_backbone::redis::envelope::Message;
use fulmar_backbone::redis::records::{Call, Change};
use fulmar_backbone::redis::topic::Topic;
use redis::Value;

use crate::world::{World, all_hooks, read, topic};

/// What the nodes last said: (node, topic) -> subscriptions by user.
type Model = BTreeMap<(usize, String), BTreeMap<String, u32>>;

/// Small, reproducible, good enough.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A random user comes to or leaves a random room on a random node.
fn act(world: &mut World, model: &mut Model, dice: &mut Dice) {
    let node = dice.below(3) as usize;
    let room = topic(&format!("7:presence-room-{}", dice.below(5)));
    let who = format!("user-{}", dice.below(4));
    let users = model.entry((node, room.as_str().to_owned())).or_default();
    let is_coming = dice.below(2) == 0;
    let sockets = users.entry(who.clone()).or_default();
    if !is_coming && *sockets == 0 {
        return;
    }
    *sockets = if is_coming { *sockets + 1 } else { *sockets - 1 };
    let is_edge = if is_coming { *sockets == 1 } else { *sockets == 0 };
    users.retain(|_, sockets| *sockets > 0);
    let total = users.values().sum();
    let node = &mut world.nodes[node];
    let change = match (is_edge, is_coming) {
        (false, _) => node.plain(&room, total),
        (true, true) => node.join(&room, total, &who),
        (true, false) => node.part(&room, total, &who),
    };
    node.ask(Call::Change(Change { hooks: all_hooks(), is_counted: true, ..change }));
}

/// Answers on their way to each node.
type Answers = Vec<VecDeque<(u64, Vec<Value>)>>;

/// Something happens with one node's connection.
fn carry(world: &mut World, answers: &mut Answers, dice: &mut Dice) {
    let index = dice.below(3) as usize;
    let now = world.now;
    let node = &mut world.nodes[index];
    match dice.below(40) {
        0 => {
            // Lost, with or without having been executed.
            if dice.below(2) == 0
                && let Some(outgoing) = node.next(now)
            {
                drop(node.carry(&outgoing));
            }
            drop(node.next(now));
            answers[index].clear();
            node.lose();
            node.store.attached(now, 1);
        }
        1..=20 => {
            if let Some(outgoing) = node.next(now) {
                let replies = node.carry(&outgoing);
                answers[index].push_back((outgoing.ticket, replies));
            }
        }
        _ => {
            if let Some((ticket, replies)) = answers[index].pop_front() {
                node.store.replied(now, ticket, replies, &mut Vec::new());
            }
        }
    }
}

/// Adds the edges up: who is there now. Each edge must change something.
fn added_up(log: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let mut rosters: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (number, line) in log.iter().enumerate() {
        let (topic, message) = read(line);
        let is_new = match message {
            Message::Added { member, .. } => {
                rosters.entry(topic).or_default().insert(member.user_id.as_str().to_owned())
            }
            Message::Removed(user) => rosters.entry(topic).or_default().remove(user.as_str()),
            _ => true,
        };
        assert!(is_new, "an edge that was none: {line}, number {number} of {log:#?}");
    }
    rosters.retain(|_, users| !users.is_empty());
    rosters
}

fn walk(seed: u64, is_damaged: bool) {
    let Some(mut world) = World::new(3) else { return };
    let (mut dice, mut model, mut answers) = (Dice(seed), Model::new(), Answers::new());
    answers.resize_with(3, VecDeque::new);
    for step in 0..6_000 {
        if dice.below(4) == 0 {
            act(&mut world, &mut model, &mut dice);
        }
        carry(&mut world, &mut answers, &mut dice);
        if is_damaged && dice.below(50) == 0 {
            damage(&mut world, &mut dice);
        }
        if step % 10 == 0 {
            world.now += Duration::from_millis(20);
        }
    }
    for (index, answers) in answers.iter_mut().enumerate() {
        for (ticket, replies) in answers.drain(..) {
            world.nodes[index].store.replied(world.now, ticket, replies, &mut Vec::new());
        }
    }
    let passes = world.nodes[0].store.state().passes;
    world.run(Duration::from_secs(4));
    assert!(passes > 0 && world.nodes[0].store.state().passes > passes);
    if is_damaged {
        assert!(mended(&world) > 0, "nothing was damaged (seed {seed})");
    } else {
        assert_eq!(mended(&world), 0, "what was on its way was never taken for damage (seed {seed})");
        check_edges(&mut world, &model, seed);
    }
    check(&mut world, &model, seed);
}

fn mended(world: &World) -> u64 {
    world.nodes.iter().map(|node| node.store.state().mended).sum()
}

/// Deletes a key of records or members, or writes a ghost into it.
fn damage(world: &mut World, dice: &mut Dice) {
    let mut keys: Vec<String> = world.redis(&["KEYS", "dep:[rm]e[cm]:*"]);
    keys.sort();
    if keys.is_empty() {
        return;
    }
    let key = &keys[dice.below(keys.len() as u64) as usize];
    match dice.below(4) {
        0 => world.redis::<()>(&["DEL", key]),
        1 if world.redis::<String>(&["TYPE", key]) == "hash" => {
            world.redis::<()>(&["HSET", key, "7:presence-room-3", "4 0"])
        }
        _ => world.redis::<()>(&["SET", key, "x"]),
    }
}

/// What readers should see of each room: subscriptions and users.
fn expected(model: &Model) -> BTreeMap<String, (u64, BTreeSet<String>)> {
    let mut expected: BTreeMap<String, (u64, BTreeSet<String>)> = BTreeMap::new();
    for ((_, room), users) in model {
        let entry = expected.entry(room.clone()).or_default();
        entry.0 += users.values().map(|sockets| u64::from(*sockets)).sum::<u64>();
        entry.1.extend(users.iter().filter(|(_, sockets)| **sockets > 0).map(|(who, _)| who.clone()));
    }
    expected
}

/// What readers see is what the nodes said.
fn check(world: &mut World, model: &Model, seed: u64) {
    for (room, (total, users)) in expected(model) {
        let topic: Topic = topic(&room);
        let (seen, is_settled) = world.roster(0, &topic);
        let seen: BTreeSet<String> = seen.into_iter().collect();
        assert_eq!((world.total(0, &topic), seen), (total, users), "{room}, seed {seed}");
        assert!(is_settled, "seed {seed}");
    }
}

/// What the edges add up to is what the nodes said.
fn check_edges(world: &mut World, model: &Model, seed: u64) {
    let log = world.log();
    let rosters = added_up(&log);
    for (room, (total, users)) in expected(model) {
        assert_eq!(rosters.get(&room).cloned().unwrap_or_default(), users, "{room}, seed {seed}");
        let counted = log.iter().rev().find(|line| line.starts_with(&format!("{room} C")));
        if let Some(line) = counted.filter(|_| total > 0) {
            assert_eq!(line, &format!("{room} C{total}"), "seed {seed}");
        }
    }
}

/// `STORE_SEED` walks one of your own.
fn seeds() -> Vec<u64> {
    let own = std::env::var("STORE_SEED").ok().and_then(|seed| seed.parse().ok());
    own.map_or_else(|| vec![1, 2], |seed| vec![seed])
}

/// RED-25, RED-26
#[test]
fn whatever_happens_to_connections_the_records_say_what_the_nodes_said_and_the_edges_add_up() {
    for seed in seeds() {
        println!("seed {seed}");
        walk(seed * 0x9e37_79b9, false);
    }
}

/// RED-29
#[test]
fn whatever_is_damaged_meanwhile_the_records_say_in_the_end_what_the_nodes_said() {
    for seed in seeds() {
        println!("seed {seed}");
        walk(seed * 0x9e37_79b9, true);
    }
}
