//! Random walks: several nodes, everything under way in any order, and every subscription held to what it was promised.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fulmar_protocol::exchange::{Answer, Delivery, Happening, Join, Position, Ticket, UserChange};

use super::words::{as_user, ticket_of, to, topic, user_topic};
use super::world::{Heard, World};
use crate::redis::records::Told;

/// A subscription, from its question to its end.
struct Socket {
    node: usize,
    worker: u8,
    join: Join,
    ticket: Ticket,
    /// Events published when it was answered, and what its worker had heard by then and at the end.
    answered: Option<usize>,
    ended: Option<usize>,
}

impl Socket {
    fn room(&self) -> &str {
        self.join.channel.as_str()
    }

    fn is_live(&self) -> bool {
        self.answered.is_some() && self.ended.is_none()
    }
}

struct Walk {
    world: World,
    sockets: Vec<Socket>,
    /// Nodes were told that they missed something.
    has_gaps: bool,
}

/// Each with whether its events are kept.
const ROOMS: [(&str, bool); 5] = [
    ("room", false),
    ("cache-room", true),
    ("presence-room", false),
    ("presence-cache-room", true),
    ("counted", false),
];

const USERS: [&str; 4] = ["ana", "bob", "eve", "gil"];

impl Walk {
    fn new(seed: u64) -> Self {
        Self { world: World::new(seed, 3, 2), sockets: Vec::new(), has_gaps: false }
    }

    fn roll(&mut self, bound: usize) -> usize {
        self.world.dice.roll(bound)
    }

    fn join(&mut self, rooms: &[(&str, bool)], members_max: usize) {
        let room = rooms[self.roll(rooms.len())].0;
        let join = if room.starts_with("presence") {
            let id = USERS[self.roll(USERS.len())];
            Join { counted: room == "presence-room", members_max, ..as_user(room, id, "{}") }
        } else {
            Join { counted: room == "counted", ..to(room) }
        };
        let (node, worker) = (self.roll(3), u8::from(self.roll(2) == 0));
        let ticket = self.world.join(node, worker, join.clone());
        self.sockets.push(Socket { node, worker, join, ticket, answered: None, ended: None });
    }

    fn leave(&mut self) {
        let live: Vec<usize> = (0..self.sockets.len()).filter(|n| self.sockets[*n].is_live()).collect();
        if live.is_empty() {
            return;
        }
        let socket = &mut self.sockets[live[self.world.dice.roll(live.len())]];
        socket.ended = Some(self.world.heard(socket.node, socket.worker).len());
        self.world.leave(socket.node, socket.worker, &socket.join);
    }

    fn event(&mut self, rooms: &[(&str, bool)]) {
        let (room, is_kept) = rooms[self.roll(rooms.len())];
        self.world.event(&topic(room), is_kept.then_some(Duration::from_secs(3_600)));
    }

    /// Notes which questions have been answered since the last look. Refused ones are forgotten.
    fn look(&mut self) {
        let mut refused = Vec::new();
        for (index, socket) in self.sockets.iter_mut().enumerate().filter(|(_, socket)| socket.answered.is_none()) {
            match self.world.answer_to(socket.node, socket.ticket) {
                Some(Answer::Joined { .. }) => {
                    socket.answered = Some(self.world.log.get(&topic(socket.room())).map_or(0, Vec::len));
                }
                Some(_) => refused.push(index),
                None => {}
            }
        }
        for index in refused.into_iter().rev() {
            self.sockets.swap_remove(index);
        }
    }

    fn go(&mut self, steps: usize, rooms: &[(&str, bool)], members_max: usize) {
        for _ in 0..steps {
            match self.roll(16) {
                0 | 1 => self.join(rooms, members_max),
                2 => self.leave(),
                3 | 4 => self.event(rooms),
                5 => {
                    let ms = self.roll(40) as u64;
                    self.world.pass(ms);
                }
                _ => {
                    let (node, kind) = (self.roll(3), self.roll(4));
                    self.world.step(node, kind);
                }
            }
            self.look();
        }
    }

    fn finish(&mut self) {
        self.world.drain();
        self.world.live(2_000);
        self.look();
        for socket in &self.sockets {
            assert!(socket.answered.is_some(), "everybody is answered: {:?}", socket.ticket);
            self.check(socket);
        }
    }

    fn check(&self, socket: &Socket) {
        let heard = self.world.heard(socket.node, socket.worker);
        let heard = &heard[..socket.ended.unwrap_or(heard.len())];
        let answered = heard.iter().position(|h| matches!(h, Heard::Answer(a) if ticket_of(a) == Some(socket.ticket)));
        let answered = answered.expect("it was answered");
        let Heard::Answer(Answer::Joined { position, roster, cached, .. }) = &heard[answered] else {
            panic!("it was let in")
        };
        let (before, after) = (of(&heard[..answered], socket.room()), of(&heard[answered..], socket.room()));
        assert!(before.iter().all(|d| d.position <= *position), "nothing later than an answer comes before it");
        assert!(after.iter().all(|d| d.position > *position), "what comes later is later");
        let start = self.check_events(socket, &after);
        if let (true, Some(start)) = (socket.join.channel.kind().is_cache(), start) {
            let log = self.world.log.get(&topic(socket.room())).map_or(&[][..], Vec::as_slice);
            let place =
                cached.as_ref().map(|frame| log.iter().position(|text| text == frame.text()).expect("published"));
            // What is read anew can be ahead of what is on its way here, and those who were here before are to hear that.
            let is_ahead = self.has_gaps && place >= Some(start);
            assert!(
                place == start.checked_sub(1) || is_ahead,
                "cached or live, never both, never neither: {place:?} {start}"
            );
        }
        if let Some(roster) = roster {
            let mut present: BTreeSet<String> = roster.iter().map(|m| m.user_id.as_str().to_owned()).collect();
            assert_eq!(present.len(), roster.len(), "nobody is in a roster twice");
            let own = socket.join.member.as_ref().expect("it is a member");
            assert!(present.contains(own.user_id.as_str()), "the newcomer is in its roster");
            self.check_edges(socket, &mut present, &after);
        }
        if socket.join.counted {
            self.check_counts(socket, &after);
        }
    }

    /// Neither missed nor doubled. Answers where in the log it began, if that can be said.
    fn check_events(&self, socket: &Socket, after: &[Arc<Delivery>]) -> Option<usize> {
        let texts: Vec<&str> = after.iter().filter_map(|d| text(d)).collect();
        let log = self.world.log.get(&topic(socket.room())).map_or(&[][..], Vec::as_slice);
        let published = socket.answered.expect("it was answered");
        let start = match texts.first() {
            Some(first) => log.iter().position(|text| text == first).expect("it was published"),
            None if socket.ended.is_some() => return None,
            None => log.len(),
        };
        assert!(start <= published, "what was published after the answer is heard: {start} {published}");
        assert_eq!(&log[start..start + texts.len()], texts, "in order, without a hole");
        if socket.ended.is_none() {
            assert_eq!(start + texts.len(), log.len(), "to the last");
        }
        Some(start)
    }

    fn check_edges(&self, socket: &Socket, present: &mut BTreeSet<String>, after: &[Arc<Delivery>]) {
        for delivery in after {
            match &delivery.happening {
                Happening::MemberAdded(member) => {
                    assert!(present.insert(member.user_id.as_str().to_owned()), "added once: {member:?}");
                }
                Happening::MemberRemoved(user) => assert!(present.remove(user.as_str()), "removed once: {user:?}"),
                _ => {}
            }
        }
        if socket.ended.is_none() {
            let truth = self.world.roster(&topic(socket.room()));
            let truth: BTreeSet<String> = truth.iter().map(|(m, _)| m.user_id.as_str().to_owned()).collect();
            assert_eq!(*present, truth, "what was told adds up to the truth");
        }
    }

    fn check_counts(&self, socket: &Socket, after: &[Arc<Delivery>]) {
        let counts: Vec<u64> = after.iter().filter_map(|d| count(d)).collect();
        if socket.ended.is_none() {
            assert_eq!(counts.last(), Some(&self.world.total(&topic(socket.room()))), "the last count is the truth");
        }
        if socket.join.channel.as_str() == "counted" {
            assert!(counts.windows(2).all(|pair| pair[0].abs_diff(pair[1]) == 1), "each change once: {counts:?}");
        }
    }
}

fn of(heard: &[Heard], room: &str) -> Vec<Arc<Delivery>> {
    let deliveries = heard.iter().filter_map(|heard| match heard {
        Heard::Delivery(delivery) if delivery.channel.as_str() == room => Some(Arc::clone(delivery)),
        _ => None,
    });
    deliveries.collect()
}

pub fn text(delivery: &Delivery) -> Option<&str> {
    match &delivery.happening {
        Happening::Event { frame, .. } => Some(frame.text()),
        _ => None,
    }
}

pub fn count(delivery: &Delivery) -> Option<u64> {
    match delivery.happening {
        Happening::Count(count) => Some(count),
        _ => None,
    }
}

const SEEDS: u64 = 60;

/// Runs a walk for many seeds and says which of them failed.
fn for_all_seeds(walk: impl Fn(u64) + std::panic::RefUnwindSafe) {
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| walk(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

/// RED-17, RED-27
#[test]
fn whatever_the_order_of_things_no_subscription_misses_or_doubles_anything() {
    for_all_seeds(|seed| {
        let mut walk = Walk::new(seed);
        walk.go(600, &ROOMS, 100);
        walk.finish();
    });
}

/// RED-27
#[test]
fn one_crowded_presence_channel_adds_up_for_everybody_and_limits_leave_no_trace() {
    for_all_seeds(|seed| {
        let mut walk = Walk::new(seed);
        walk.go(600, &ROOMS[2..3], 2 + usize::try_from(seed % 3).expect("small"));
        walk.finish();
        let held: u32 = walk.sockets.iter().map(|socket| u32::from(socket.is_live())).sum();
        assert_eq!(walk.world.total(&topic("presence-room")), u64::from(held), "refused ones are not counted");
    });
}

/// RED-27: doubts come at any moment, and the store has lost and invented nothing.
#[test]
fn doubts_change_nothing_where_nothing_is_wrong() {
    for_all_seeds(|seed| {
        let mut walk = Walk::new(seed);
        for _ in 0..30 {
            walk.go(20, &ROOMS[2..3], 100);
            let node = walk.roll(3);
            let of = (walk.roll(2) == 0).then(|| topic(ROOMS[2].0));
            walk.world.told(node, Told::Doubtful(of));
        }
        walk.finish();
    });
}

/// DEL-20: gaps are found at any moment, and it turns out that nothing was missed.
#[test]
fn whoever_comes_when_a_gap_is_found_is_given_the_last_event() {
    for_all_seeds(|seed| {
        let mut walk = Walk::new(seed);
        walk.has_gaps = true;
        for _ in 0..30 {
            walk.go(20, &ROOMS, 100);
            let node = walk.roll(3);
            let topics = ROOMS.map(|(room, _)| topic(room));
            walk.world.on(node, |hub, now, outs| hub.missed(now, &topics, outs));
        }
        walk.finish();
    });
}

/// RED-24: what was answered while the store was away adds up when it is back.
#[test]
fn an_absence_of_the_store_loses_nothing_and_doubles_nothing() {
    for_all_seeds(|seed| {
        let mut walk = Walk::new(seed);
        let rooms = &ROOMS[2..3];
        walk.go(200, rooms, 100);
        walk.world.set_away(true);
        walk.go(300, rooms, 100);
        for _ in 0..40 {
            walk.world.pass(100);
            let kind = walk.roll(4);
            let node = walk.roll(3);
            walk.world.step(node, kind);
            walk.look();
        }
        walk.world.set_away(false);
        walk.go(200, rooms, 100);
        walk.world.drain();
        for node in 0..3 {
            walk.world.told(node, Told::Doubtful(None));
        }
        walk.world.drain();
        walk.finish_members();
    });
}

impl Walk {
    /// Only what was told of members, and that everybody was answered.
    fn finish_members(&mut self) {
        self.world.live(2_000);
        self.look();
        for socket in &self.sockets {
            assert!(socket.answered.is_some(), "everybody is answered: {:?}", socket.ticket);
            let heard = self.world.heard(socket.node, socket.worker);
            let heard = &heard[..socket.ended.unwrap_or(heard.len())];
            let answered =
                heard.iter().position(|h| matches!(h, Heard::Answer(a) if ticket_of(a) == Some(socket.ticket)));
            let Heard::Answer(Answer::Joined { roster: Some(roster), .. }) = &heard[answered.expect("answered")] else {
                panic!("it was let in")
            };
            let mut present = roster.iter().map(|m| m.user_id.as_str().to_owned()).collect();
            self.check_edges(socket, &mut present, &of(&heard[answered.expect("answered")..], socket.room()));
        }
        let held: u64 = self.sockets.iter().map(|socket| u64::from(socket.is_live())).sum();
        assert_eq!(self.world.total(&topic("presence-room")), held, "the records hold what is there");
    }
}

/// A connection that is signed in and watches everybody.
struct Watcher {
    node: usize,
    worker: u8,
    user: &'static str,
    ticket: Ticket,
    is_over: bool,
}

/// RED-25, DEL-17, DEL-18
#[test]
fn whoever_watches_hears_each_change_once_and_ends_with_the_truth() {
    for_all_seeds(|seed| {
        let mut world = World::new(seed, 3, 2);
        let mut watchers: Vec<Watcher> = Vec::new();
        for _ in 0..500 {
            match world.dice.roll(12) {
                0 => {
                    let (node, worker) = (world.dice.roll(3), u8::from(world.dice.roll(2) == 0));
                    let user = USERS[world.dice.roll(3)];
                    let ticket = world.sign_in(node, worker, user, &USERS);
                    watchers.push(Watcher { node, worker, user, ticket, is_over: false });
                }
                1 => {
                    let is_live = |w: &Watcher| !w.is_over && world.answer_to(w.node, w.ticket).is_some();
                    let live: Vec<usize> = (0..watchers.len()).filter(|n| is_live(&watchers[*n])).collect();
                    if !live.is_empty() {
                        let gone = &mut watchers[live[world.dice.roll(live.len())]];
                        gone.is_over = true;
                        let (node, worker, user) = (gone.node, gone.worker, gone.user);
                        world.sign_out(node, worker, user, &USERS);
                    }
                }
                2 => {
                    let ms = world.dice.roll(1_500) as u64;
                    world.pass(ms);
                }
                _ => {
                    let (node, kind) = (world.dice.roll(3), world.dice.roll(4));
                    world.step(node, kind);
                }
            }
        }
        world.live(4_000);
        watchers.iter().for_each(|watcher| check_watcher(&world, watcher));
    });
}

fn check_watcher(world: &World, watcher: &Watcher) {
    let answer = world.answer_to(watcher.node, watcher.ticket);
    let Some(Answer::SignedIn { position, online, .. }) = answer else { panic!("a sign-in is answered: {answer:?}") };
    let notices: Vec<_> = world.heard(watcher.node, watcher.worker).into_iter().filter_map(notice).collect();
    assert!(notices.windows(2).all(|pair| pair[0].0 < pair[1].0), "positions rise");
    if watcher.is_over {
        return;
    }
    for id in USERS {
        let mut is_online = online.iter().any(|user| user.as_str() == id);
        for (_, _, change) in notices.iter().filter(|(at, user, _)| *at > position && user == id) {
            assert_ne!(is_online, *change, "{id}: each change changes what was known");
            is_online = *change;
        }
        assert_eq!(is_online, world.total(&user_topic(id)) > 0, "{id}: the truth in the end");
    }
}

/// Where, who, and whether online now.
fn notice(heard: Heard) -> Option<(Position, String, bool)> {
    let Heard::Notice(notice) = heard else { return None };
    let is_online = match notice.change {
        UserChange::Online => true,
        UserChange::Offline => false,
        UserChange::Terminated | UserChange::Missed => return None,
    };
    Some((notice.position, notice.user_id.as_str().to_owned(), is_online))
}
