//! A node that was cut off reads what it missed from the log; what the log has not kept it says so, never silence.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use fulmar_backbone::redis::RedisBackbone;
use fulmar_backbone::redis::keys::Keys;
use fulmar_backbone::redis::scripts::FILL;
use fulmar_backbone::redis::settings::{Limits, Settings, Topology};
use fulmar_backbone::redis::topic::Topic;
use fulmar_backbone::{Backbone, Inbox, Terms};
use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Answer, Delivery, Happening, Join, Publication, Question, Ticket, UserNotice};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::ChannelName;
use fulmar_rig::{Link, Redis, RedisOptions, Resp, Value};

const DEPLOYMENT: &str = "gaps";
const PATIENCE: Duration = Duration::from_secs(20);
/// Entries that the log keeps at least; a server trims in steps of a hundred.
const KEPT: u64 = 100;
/// Entries that one call removes for their age, at most.
const TRIMMED_MAX: u64 = 10_000;
/// Bytes of the log that one call reads, about, when it is told so.
const SHARE_BYTES: usize = 100_000;
/// Entries that it may read beyond.
const BEYOND: usize = 2;
/// Bytes of the largest of them, which is more than a share.
const LARGEST: usize = 150_000;
/// Fills the log with entries of long ago, and counts them as given to it.
const FILL_WITH_OLD: &str = "redis.call('DEL', KEYS[1])
    for number = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], number .. '-0', 'topic', 'message') end
    return redis.call('HINCRBY', KEYS[2], 'count', ARGV[1])";

/// What a worker hears.
#[derive(Debug, PartialEq)]
enum Heard {
    Subscribed,
    Event(String),
    Missed,
}

struct Ears(Sender<Heard>);

impl Inbox for Ears {
    fn has_room(&self) -> bool {
        true
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        let heard = match &delivery.happening {
            Happening::Event { frame, .. } => Heard::Event(frame.text().to_owned()),
            Happening::Missed => Heard::Missed,
            _ => return,
        };
        // A test that has ended hears nothing.
        let _: Result<(), _> = self.0.send(heard);
    }

    fn notice(&self, _notice: Arc<UserNotice>) {}

    fn answer(&self, _answer: Answer) {
        let _: Result<(), _> = self.0.send(Heard::Subscribed);
    }
}

/// A node that publishes, and one behind a wire that has a subscriber.
struct World {
    publisher: RedisBackbone,
    subscribed: RedisBackbone,
    wire: Link,
    pulses: Resp,
    heard: Receiver<Heard>,
    app: AppId,
    room: ChannelName,
    server: Redis,
}

fn subscribe(node: &RedisBackbone, app: &AppId, room: &ChannelName, counted: bool, say: Sender<Heard>) {
    let worker = node.attach(Arc::new(Ears(say)));
    let ticket = Ticket { session: 1, number: 1 };
    let (member, members_max) = (None, 0);
    let join = Join { ticket, app: app.clone(), channel: room.clone(), member, members_max, counted };
    assert!(node.ask(worker, Question::Join(join)).is_none());
}

impl World {
    fn new(limits: &Limits) -> Option<Self> {
        if !fulmar_rig::is_available() {
            eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
            return None;
        }
        let server = Redis::start(&RedisOptions::default()).expect("a server starts");
        let wire = Link::to(server.addr()).expect("a port is free");
        let to = |addr: std::net::SocketAddr| {
            // Other tests run beside: silence is no sign of a lost server here.
            let (breaker, command_timeout) = (Duration::from_millis(500), Duration::from_secs(2));
            let limits = Limits { breaker, command_timeout, ..limits.clone() };
            Settings { limits, ..Settings::new(DEPLOYMENT, Topology::Single(addr.to_string())) }
        };
        let publisher = RedisBackbone::start(to(server.addr()), 1, None).expect("a node starts");
        let subscribed = RedisBackbone::start(to(wire.addr()), 2, None).expect("a node starts");
        let (app, room) = (AppId::new("app"), ChannelName::parse("room", 200).expect("a valid name"));
        let (say, heard) = channel();
        subscribe(&subscribed, &app, &room, false, say);
        let mut pulses = Resp::connect(server.addr(), PATIENCE).expect("a connection");
        pulses.send(&["SUBSCRIBE", &Keys::new(DEPLOYMENT).pulse()]).expect("it is sent");
        pulses.answer().expect("it is subscribed");
        let world = Self { publisher, subscribed, wire, pulses, heard, app, room, server };
        assert_eq!(world.next(), Heard::Subscribed);
        Some(world)
    }

    fn next(&self) -> Heard {
        self.heard.recv_timeout(PATIENCE).expect("something is heard")
    }

    /// Publishes one after the other: each is an entry of the log.
    fn publish(&self, texts: impl IntoIterator<Item = String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for text in texts {
            let (frame, except, cache_for) = (Frame::new(text.as_str()), None, None);
            let (app, channel) = (self.app.clone(), self.room.clone());
            let publication = Publication { app, channel, frame, except, cache_for };
            assert_eq!(runtime.block_on(self.publisher.publish(vec![publication], Terms::default())), Ok(()), "{text}");
        }
    }

    /// One more subscription that all are told the count of: an entry of the log that no publication is in.
    fn come_counted(&self) {
        let (say, heard) = channel();
        let room = ChannelName::parse("counted", 200).expect("a valid name");
        subscribe(&self.publisher, &self.app, &room, true, say);
        assert_eq!(heard.recv_timeout(PATIENCE), Ok(Heard::Subscribed));
    }

    fn length(&self) -> u64 {
        let answer = self.server.call(&["XLEN", &Keys::new(DEPLOYMENT).log()]).expect("an answer");
        answer.number().and_then(|length| u64::try_from(length).ok()).expect("a length")
    }

    /// Whoever listens has heard a heartbeat from after this moment: the next but one is published when the next was heard.
    fn await_heartbeats(&mut self) {
        let mut pulses = Resp::connect(self.server.addr(), PATIENCE).expect("a connection");
        pulses.send(&["SUBSCRIBE", &Keys::new(DEPLOYMENT).pulse()]).expect("it is sent");
        // The confirmation, and two heartbeats of two messages each.
        for _ in 0..5 {
            pulses.answer().expect("a heartbeat");
        }
    }
}

/// RED-20
#[test]
fn who_was_cut_off_hears_what_was_missed_and_is_told_where_the_log_has_not_kept_it() {
    let limits = Limits { log_entries_max: KEPT, ..Limits::default() };
    let Some(mut world) = World::new(&limits) else { return };
    world.await_heartbeats();

    world.wire.cut();
    world.publish((0..KEPT / 2).map(|number| format!("kept {number}")));
    world.wire.mend();
    for number in 0..KEPT / 2 {
        assert_eq!(world.next(), Heard::Event(format!("kept {number}")));
    }
    world.publish(["well".to_owned()]);
    assert_eq!(world.next(), Heard::Event("well".to_owned()), "nothing was missed");
    world.await_heartbeats();

    world.wire.cut();
    world.publish((0..10 * KEPT).map(|number| format!("lost {number}")));
    world.wire.mend();
    let last = Heard::Event(format!("lost {}", 10 * KEPT - 1));
    let heard: Vec<Heard> = std::iter::from_fn(|| Some(world.next()).filter(|heard| *heard != last)).collect();
    assert_eq!(heard.first(), Some(&Heard::Missed), "before what the log has kept");
    assert_eq!(heard.iter().filter(|heard| **heard == Heard::Missed).count(), 1, "once");
    assert!(heard.len() < 5 * usize::try_from(KEPT).expect("small"), "it has kept no more than it had to");
    world.publish(["end".to_owned()]);
    assert_eq!(world.next(), Heard::Event("end".to_owned()));

    let (counted, begun) = (|| world.subscribed.figures(), Instant::now());
    while counted().hub.missed.is_empty() && begun.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    assert_eq!(counted().hub.missed, [("app".to_owned(), 1)].into());
    assert_eq!(counted().groups[0].gaps, 1);
}

/// RED-20
#[test]
fn a_break_before_anything_was_heard_is_filled_from_where_hearing_began() {
    let Some(world) = World::new(&Limits::default()) else { return };
    // Within the tenth of a second in which no heartbeat is due.
    world.wire.cut();
    world.publish((0..10).map(|number| format!("early {number}")));
    world.wire.mend();
    for number in 0..10 {
        assert_eq!(world.next(), Heard::Event(format!("early {number}")));
    }
}

/// RED-16, RED-20
#[test]
fn a_busy_group_hears_how_much_its_log_was_given() {
    let Some(mut world) = World::new(&Limits::default()) else { return };
    // A node that hears nothing else sends heartbeats: here both hear everything.
    let (say, heard) = channel();
    subscribe(&world.publisher, &world.app, &world.room, false, say);
    assert_eq!(heard.recv_timeout(PATIENCE), Ok(Heard::Subscribed));
    let busy = Keys::new(DEPLOYMENT).channel(&Topic::channel(&world.app, &world.room));
    world.pulses.send(&["SUBSCRIBE", &busy]).expect("it is sent");
    let begun = Instant::now();
    // Longer than a count may be old, and without a moment of silence.
    while begun.elapsed() < Duration::from_millis(2_500) {
        world.publish(["busy".to_owned()]);
    }
    world.publish(["last".to_owned()]);
    let mut counts = 0;
    let mut is_busy = false;
    loop {
        let text = world.pulses.answer().expect("something comes").list().get(2).map(Value::text).unwrap_or_default();
        match text {
            text if text.ends_with("last") => break,
            text if text.ends_with("busy") => is_busy = true,
            text => counts += u32::from(is_busy && text.starts_with('N')),
        }
    }
    assert!(counts > 0, "nobody would know what was missed");
}

/// RED-20
#[test]
fn a_sixteenth_of_the_log_stays_whatever_its_age() {
    let limits = Limits { log_entries_max: 32 * KEPT, log_age: Duration::from_millis(1), ..Limits::default() };
    let Some(world) = World::new(&limits) else { return };
    world.publish((0..6 * KEPT).map(|number| number.to_string()));
    // Age is looked at by whole seconds.
    let begun = Instant::now();
    while world.length() >= 6 * KEPT && begun.elapsed() < PATIENCE {
        world.publish(["one more".to_owned()]);
    }
    assert!((2 * KEPT..6 * KEPT).contains(&world.length()), "{} entries are left", world.length());
}

/// RED-20
#[test]
fn what_is_old_goes_a_share_at_a_time_and_a_sixteenth_of_the_log_stays() {
    let limits = Limits::default();
    let Some(world) = World::new(&limits) else { return };
    let (old, stays) = (3 * TRIMMED_MAX, limits.log_entries_max / 16);
    let keys = Keys::new(DEPLOYMENT);
    let ways: [(&str, &dyn Fn()); 2] =
        [("a publication", &|| world.publish(["news".to_owned()])), ("a count", &|| world.come_counted())];
    for (way, append) in ways {
        let fill = ["EVAL", FILL_WITH_OLD, "2", &keys.log(), &keys.identity(), &old.to_string()];
        world.server.call(&fill).expect("the log is filled");
        append();
        let left = world.length();
        assert!((old - TRIMMED_MAX..old).contains(&left), "{way} leaves {left} of {old}");
        // A server trims in steps of a hundred, and what is appended stays.
        let begun = Instant::now();
        while world.length() > stays + 200 && begun.elapsed() < PATIENCE {
            append();
        }
        (0..5).for_each(|_| append());
        let left = world.length();
        assert!((stays..stays + 300).contains(&left), "{way} and more leave {left}");
    }
}

/// RED-20
#[test]
fn a_log_is_read_in_shares_that_are_bounded_in_entries_and_in_bytes() {
    if !fulmar_rig::is_available() {
        return;
    }
    let (server, keys) = (Redis::start(&RedisOptions::default()).expect("a server starts"), Keys::new("shares"));
    server.call(&["HSET", &keys.identity(), "id", "shares/1", "run", "run", "epoch", "1"]).expect("it answers");
    let sizes = (1..=60).map(|n| match n {
        1 | 50 => LARGEST,
        41.. => 1,
        _ => 30_000,
    });
    for (n, size) in sizes.enumerate() {
        let id = format!("{}-0", n + 1);
        server.call(&["XADD", &keys.log(), &id, "1:room", &"x".repeat(size)]).expect("it answers");
    }
    let (mut from, mut found, mut shares) = ("0-1".to_owned(), Vec::new(), 0);
    while !from.is_empty() {
        let (group, bytes) = (keys.identity(), SHARE_BYTES.to_string());
        let words = ["EVAL", FILL.text(), "1", &group, "shares/1", "run", "0 0", &from, "16", &bytes];
        let answer = server.call(&words).expect("it answers");
        let answer = answer.list();
        let entries = answer[8..].chunks_exact(3);
        assert!(entries.len() <= 16, "{}", entries.len());
        let read: usize = entries.clone().map(|entry| entry[2].text().len()).sum();
        assert!(read < SHARE_BYTES + BEYOND * LARGEST, "{read}");
        assert_eq!(
            answer[3].number(),
            Some(i64::from(shares > 0)),
            "the first is read from nowhere, the others from the one before"
        );
        // Each share begins with the last of the one before it.
        found.extend(entries.map(|entry| entry[0].text()).skip(usize::from(shares > 0)));
        (from, shares) = (answer[1].text(), shares + 1);
        assert!(shares < 60, "each comes further");
    }
    let all: Vec<String> = (1..=60).map(|n| format!("{n}-0.0")).collect();
    assert_eq!((found, shares > 4), (all, true));
}
