//! Primaries die in the middle of a move, on either side and at each step: it goes on by itself, and nobody notices.

use std::collections::BTreeMap;
use std::mem::replace;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use fulmar_backbone::redis::map::{Held, SlotMap};
use fulmar_backbone::redis::reshard::{Progress, ReshardError};
use fulmar_backbone::redis::topic::{SLOTS, Slot};
use fulmar_protocol::exchange::Ticket;
use fulmar_rig::Value;

use crate::world::{CHANNELS, GROUPS, World, slot_of, topic_of};

const STEPS: [&str; 8] =
    ["begun", "listened to twice", "frozen", "filled", "opened", "moved", "arrived", "listened to once"];
/// Slots that the mover takes at a time.
const CHUNK: usize = 16;
/// In each round the target's primary dies so many steps later than the source's, seen in a circle: both die once at each step.
const APART: usize = 3;
/// More than sockets of a replica that does not read take in, and less than what it is cut off for.
const BALLAST: usize = 96 << 20;
/// Sentinels on a machine that stood still for two seconds do nothing for thirty.
const FAILOVER_MAX: Duration = Duration::from_secs(60);

/// Slots that are on their way together, and what they have: a channel that is published to all the time, a kept event, and a
/// room in which somebody comes and goes meanwhile.
struct Chunk {
    from: String,
    to: String,
    number: usize,
    slots: Vec<u16>,
    kept: String,
    room: String,
}

impl Chunk {
    fn of(world: &World, groups: &[&str], round: usize) -> Self {
        let moves = world.plan(groups).moves;
        let first = moves.first().expect("something moves").clone();
        let of_pair = moves.iter().filter(|other| other.from == first.from && other.to == first.to);
        let mut slots: Vec<u16> = of_pair.map(|other| other.slot).collect();
        slots.sort_by_key(|slot| (Slot(*slot).outbox_part(), *slot));
        let published: Vec<u16> = (0..CHANNELS).map(|channel| slot_of(&format!("c{channel}"))).collect();
        let mut chunks = slots.chunks(CHUNK).enumerate();
        let found = chunks.find(|(_, slots)| slots.iter().any(|slot| published.contains(slot)));
        let (number, slots) = found.expect("some of the channels are among those that move");
        let among = |prefix: &str| {
            let mut names = (0..).map(|number| format!("{prefix}-{round}-{number}"));
            names.find(|name| slots.contains(&slot_of(name))).expect("there are enough numbers")
        };
        let (kept, room) = (among("cache-of"), among("presence-of"));
        Self { from: first.from, to: first.to, number, slots: slots.to_vec(), kept, room }
    }

    /// Whether this step is about these slots, or about all.
    fn is_at(&self, progress: &Progress) -> bool {
        match progress.what {
            "frozen" | "filled" | "opened" => progress.done == self.number * CHUNK,
            "moved" => progress.done == self.number * CHUNK + self.slots.len(),
            _ => true,
        }
    }

    /// Both sides show what a step says was done: otherwise the step would be missed, and nothing tried.
    fn assert_shown(&self, world: &World, step: &str) {
        let (from, to) = (world.said(&self.from).1, world.said(&self.to).1);
        let says = |said: &BTreeMap<String, String>, slot: &u16, what: &str| {
            said.get(&slot.to_string()).is_some_and(|held| held.starts_with(what))
        };
        let is_gone = self.slots.iter().all(|slot| says(&from, slot, &format!("to:{}:", self.to)));
        let is_there = self.slots.iter().all(|slot| says(&to, slot, "own:"));
        let expected = match step {
            "begun" | "listened to twice" => (false, false),
            "frozen" | "filled" => (true, false),
            _ => (true, true),
        };
        // What has gone to and fro before says so of older times.
        assert!((is_gone, is_there) >= expected, "{step}: {from:?} {to:?}");
    }

    /// There before the move.
    fn fill(&self, world: &World) {
        world.keep(0, &self.kept, "kept before");
        world.join(0, &self.room, Some("goes"));
        world.join(0, &self.room, Some("stays"));
        world.join(1, &self.room, Some("stays"));
    }

    /// Changes that are under way while a primary is missing.
    fn stir(&self, world: &World) -> Ticket {
        world.leave(0, &self.room, "goes");
        world.begin_to_join(1, &self.room, Some("comes"))
    }

    fn judge(&self, world: &World, ticket: Ticket, kept: &str) {
        world.await_joined(1, ticket);
        world.eventually("who came is there, and who went is not", |world| {
            world.members(0, &self.room) == ["comes", "stays"]
        });
        assert_eq!(world.cached(1, &self.kept).as_deref(), Some(kept));
        world.eventually("node 0 heard of both", |world| {
            world.edges(0, &self.room, "comes").0 > 0 && world.edges(0, &self.room, "goes").1 > 0
        });
        assert_eq!(world.edges(0, &self.room, "comes"), (1, 0), "{}", self.room);
        // Whoever opens a room need not hear of it.
        let (added, removed) = world.edges(0, &self.room, "goes");
        assert!(added <= 1 && removed == 1, "{added} {removed} in {}", self.room);
        assert_eq!(world.edges(0, &self.room, "stays").1, 0, "{}", self.room);
        // Where it lies now it is written to.
        world.keep(0, &self.kept, "kept after");
        world.eventually("it is kept", |world| world.cached(1, &self.kept).as_deref() == Some("kept after"));
    }
}

/// SIGKILL of the primary of a group; answers where it was.
fn kill(world: &World, group: &str) -> (String, u16) {
    let primary = world.primary(group);
    primary.kill();
    (group.to_owned(), primary.port())
}

/// Waits until all Sentinels know of another primary of this group, and one replica of the two follows it.
fn await_successor(world: &World, group: &str, port: u16) {
    let is_another = |at: SocketAddr| at.port() != port;
    fulmar_rig::eventually(&format!("another is primary of {group}"), FAILOVER_MAX, || {
        let primary = &world.servers.primary_of(group).ok()?.redis;
        let mut named = world.servers.sentinels().iter().map(|sentinel| sentinel.primary_of(group));
        (named.all(|at| at.is_ok_and(is_another)) && primary.replicas_online().ok()? > 0).then_some(())
    })
    .unwrap_or_else(|late| panic!("{late}; {}", sentinels_say(world)));
}

/// The end of what Sentinels wrote: on a busy machine they may trust their own clocks no more, and do nothing for a while.
fn sentinels_say(world: &World) -> String {
    let last = |log: String| log.lines().rev().take(12).map(str::to_owned).collect::<Vec<_>>().join("\n  ");
    world.servers.sentinels().iter().map(|sentinel| format!("\n- {}", last(sentinel.redis.log()))).collect()
}

/// Makes these groups whole again.
fn heal(world: &World, gone: &[(String, u16)]) {
    for (group, port) in gone {
        // Started before another is primary, it would be primary itself, and empty.
        await_successor(world, group, *port);
        let servers = &world.servers.group(group).expect("a group").servers;
        let server = servers.iter().position(|server| server.redis.port() == *port).expect("it is of the group");
        if !servers[server].redis.is_running() {
            servers[server].redis.restart().expect("it starts");
        }
        world.servers.attach(group, server).expect("it follows");
    }
    world.servers.await_whole().expect("all are whole again");
}

/// All groups have one map, by which nothing moves; of a slot that has moved its owner says that it has it, and one other that it
/// went there; and all nodes go by that.
fn assert_agreed(world: &World, groups: &[&str]) {
    let said: Vec<(&str, String, BTreeMap<String, String>)> = GROUPS
        .map(|group| world.said(group))
        .into_iter()
        .zip(GROUPS)
        .map(|((map, said), of)| (of, map, said))
        .collect();
    let text = &said[0].1;
    assert!(said.iter().all(|(_, map, _)| map == text), "{said:?}");
    let map = SlotMap::parse(text).expect("a map");
    assert!(!map.is_moving() && map.groups == groups, "{text}");
    for slot in 0..SLOTS {
        let (owner, epoch) = (map.name(map.owner(slot).group), map.owner(slot).epoch);
        let of_slot: Vec<(&str, Held)> = said
            .iter()
            .filter_map(|(group, _, said)| Some((*group, Held::parse(said.get(&slot.to_string())?)?)))
            .collect();
        if epoch == 0 {
            assert!(of_slot.is_empty(), "slot {slot} has never moved: {of_slot:?}");
            continue;
        }
        let newest: Vec<_> = of_slot.iter().filter(|(_, held)| held.epoch() >= epoch).collect();
        assert_eq!(newest.len(), 2, "slot {slot} is {owner}'s since {epoch}: {of_slot:?}");
        for (group, held) in newest {
            let expected = if *group == owner { Held::Own(epoch) } else { Held::To(owner.to_owned(), epoch) };
            assert_eq!(*held, expected, "slot {slot} is {owner}'s since {epoch}: {of_slot:?}");
        }
        let claims = of_slot.iter().filter(|(_, held)| matches!(held, Held::Own(_))).count();
        assert_eq!(claims, 1, "one has slot {slot}: {of_slot:?}");
    }
    world.eventually("all nodes go by the map", |world| {
        world.nodes.iter().all(|node| node.leases().iter().all(|lease| lease.map == map.version))
    });
}

/// RED-11
#[test]
fn a_move_goes_on_by_itself_when_the_primary_of_either_side_dies_at_any_step() {
    let Some(mut world) = World::start_replicated() else { return };
    world.begin();
    for (round, of_source) in STEPS.into_iter().enumerate() {
        let of_target = STEPS[(round + APART) % STEPS.len()];
        let groups: &[&str] = if round % 2 == 0 { &GROUPS } else { &GROUPS[..2] };
        let chunk = Chunk::of(&world, groups, round);
        chunk.fill(&world);
        let (mut killed, mut tickets) = (Vec::new(), Vec::new());
        let began = Instant::now();
        let done = world.apply_and(groups, |progress| {
            for (step, group) in [(of_source, &chunk.from), (of_target, &chunk.to)] {
                if progress.what != step || !chunk.is_at(progress) || killed.iter().any(|(known, _)| known == group) {
                    continue;
                }
                chunk.assert_shown(&world, step);
                killed.push(kill(&world, group));
                // Not before: a leave that dies with a server may be seen to come again before it is made again.
                if tickets.is_empty() {
                    tickets.push(chunk.stir(&world));
                }
            }
        });
        let took = began.elapsed();
        let is_done = done.is_ok() && killed.len() == 2;
        assert!(is_done, "{of_source}, {of_target}: {done:?} after {took:?}, {killed:?}; {}", sentinels_say(&world));
        heal(&world, &killed);
        for group in GROUPS {
            let left = world.primary(group).call(&["GETDEL", "reshard:mover"]).expect("it is there").text();
            // One that nobody goes to any more is not waited for: there the lease lapses by itself.
            assert!(left.is_empty() || !groups.contains(&group), "{group} is held by {left}");
        }
        assert_agreed(&world, groups);
        chunk.judge(&world, tickets[0], "kept before");
        world.await_rounds(1);
        let whole = began.elapsed();
        eprintln!("source's at {of_source:?}, target's at {of_target:?}: {took:.1?}, all is whole after {whole:.1?}");
    }
    world.judge();
}

/// RED-10, RED-11
#[test]
fn a_successor_that_only_nodes_tell_that_it_has_slots_has_all_that_lay_of_them() {
    let Some(mut world) = World::start_replicated() else { return };
    world.begin();
    let chunk = Chunk::of(&world, &GROUPS, 0);
    chunk.fill(&world);
    let (outbox, room) =
        (format!("reshard:outbox:{}", Slot(slot_of(&chunk.room)).outbox_part()), topic_of(&chunk.room));
    let source = world.primary(&chunk.from);
    source.call(&["XADD", &outbox, "*", "w", "co", "t", room.as_str()]).expect("it is there");
    let target = world.primary(&chunk.to);
    let replicas = world.servers.replicas_of(&chunk.to).expect("most Sentinels agree");
    let mut is_cut = false;
    let stopped = world.apply_until(&GROUPS, |progress| {
        if progress.what == "filled" && chunk.is_at(progress) {
            // Whatever the sockets still take of this, a part of it stays with the primary, and so does all that is behind it.
            replicas.iter().for_each(|replica| replica.redis.stop());
            target.call(&["CONFIG", "SET", "min-replicas-to-write", "0"]).expect("it is there");
            target.call(&["SET", "ballast", &"x".repeat(BALLAST)]).expect("it is there");
            is_cut = true;
        }
        if progress.what != "waiting" || !is_cut {
            return ControlFlow::Continue(());
        }
        chunk.assert_shown(&world, "opened");
        world.eventually("both nodes know", |world| (0..2).all(|node| world.group_of(node, &chunk.kept) == chunk.to));
        target.kill();
        ControlFlow::Break(())
    });
    assert!(is_cut && matches!(stopped, Err(ReshardError::Stopped)), "{stopped:?}");
    replicas.iter().for_each(|replica| replica.redis.resume());
    let ticket = chunk.stir(&world);
    await_successor(&world, &chunk.to, target.port());
    let successor = world.primary(&chunk.to);
    let has_ballast = successor.call(&["EXISTS", "ballast"]).expect("it is there").number();
    assert_eq!(has_ballast, Some(0), "it has nothing of what came later either");
    world.eventually("nodes have told it", |world| {
        let said = world.said(&chunk.to).1;
        chunk.slots.iter().all(|slot| said.get(&slot.to_string()).is_some_and(|held| held.starts_with("own:")))
    });
    assert_eq!(world.cached(1, &chunk.kept).as_deref(), Some("kept before"));
    let left = successor.call(&["XRANGE", &outbox, "-", "+"]).expect("it is there");
    let fields = |entry: &Value| entry.list()[1].list().iter().map(Value::text).collect::<Vec<_>>();
    let of_room = left.list().iter().map(fields).filter(|fields| fields.contains(&room.as_str().to_owned()));
    let of_room: Vec<_> = of_room.collect();
    assert_eq!(of_room, [["w", "pa", "t", room.as_str()]], "what webhooks announced, once");
    heal(&world, &[(chunk.to.clone(), target.port())]);
    world.resume().expect("it is gone on with");
    assert_agreed(&world, &GROUPS);
    chunk.judge(&world, ticket, "kept before");
    world.judge();
}

/// RED-11
#[test]
fn a_primary_that_hung_and_has_a_successor_is_not_moved_from() {
    let Some(mut world) = World::start_replicated() else { return };
    world.begin();
    let chunk = Chunk::of(&world, &GROUPS, 0);
    chunk.fill(&world);
    let mut hung = Vec::new();
    let mut tickets = Vec::new();
    let done = world.apply_and(&GROUPS, |progress| {
        if progress.what != "listened to twice" || !hung.is_empty() {
            return;
        }
        let primary = world.primary(&chunk.from);
        // Set up against our advice: it takes writes that no replica has.
        primary.call(&["CONFIG", "SET", "min-replicas-to-write", "0"]).expect("it is there");
        primary.stop();
        hung.push((chunk.from.clone(), primary.port()));
        await_successor(&world, &chunk.from, primary.port());
        tickets.push(chunk.stir(&world));
        // The mover's runtime must not be asked for another's work.
        let change = || {
            world.keep(0, &chunk.kept, "kept meanwhile");
            world.eventually("its successor has it", |world| {
                world.cached(1, &chunk.kept).as_deref() == Some("kept meanwhile")
            });
        };
        std::thread::scope(|scope| scope.spawn(change).join()).expect("it is kept");
        primary.resume();
    });
    done.expect("it goes on");
    heal(&world, &hung);
    assert_agreed(&world, &GROUPS);
    chunk.judge(&world, tickets[0], "kept meanwhile");
    world.judge();
}

/// RED-11
#[test]
fn a_mover_whose_lease_has_lapsed_takes_it_again_unless_another_has_it() {
    let Some(mut world) = World::start() else { return };
    world.begin();
    let (out, back) = (&GROUPS[..], &GROUPS[..2]);
    // A group that hangs is away for longer than the mover waits for an answer; else it is the mover that was too slow.
    for (groups, hangs, another) in [(out, true, None), (back, false, None), (out, true, Some("somebody"))] {
        let chunk = Chunk::of(&world, groups, 0);
        let (mut is_hit, mut has_waited) = (false, false);
        let away = world.primary(&chunk.from);
        let done = world.apply_and(groups, |progress| {
            if progress.what == "waiting" {
                has_waited = true;
                let is_of_it = progress.trouble.as_ref().is_some_and(|why| why.contains(&chunk.from));
                assert!(is_of_it || !hangs, "{progress:?}");
                away.resume();
            }
            if progress.what != "frozen" || !chunk.is_at(progress) || replace(&mut is_hit, true) {
                return;
            }
            for group in GROUPS.into_iter().filter(|group| *group != chunk.from || !hangs) {
                let lease: &[&str] = match another {
                    Some(name) => &["SET", "reshard:mover", name, "PX", "60000"],
                    None => &["DEL", "reshard:mover"],
                };
                world.primary(group).call(lease).expect("it is there");
            }
            if hangs {
                away.stop();
            }
        });
        assert!(is_hit && has_waited >= hangs, "there was a moment to do it");
        match another {
            None => done.expect("it goes on"),
            Some(name) => {
                assert!(matches!(&done, Err(ReshardError::Busy(by)) if by.contains(name)), "{done:?}");
                GROUPS.iter().for_each(|group| _ = world.primary(group).call(&["DEL", "reshard:mover"]));
                world.resume().expect("it is gone on with");
            }
        }
        assert_agreed(&world, groups);
    }
    world.judge();
}
