//! The loop as connections and answers reach it, in an order that no network would keep to.
//!
//! Nothing is connected: links are opened on a runtime that never runs, so all that happens is what a test says.

use std::collections::BTreeMap;
use std::time::Duration;

use fulmar_protocol::app::Durability;
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::ChannelName;
use redis::Value;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::redis::belief::ServerView;
use crate::redis::envelope::LogId;
use crate::redis::link::Server as Who;
use crate::redis::settings::{Credentials, Limits};

/// Milliseconds on the clock of the servers, as the log's ids have them.
const T: u64 = 1_700_000_000_000;
/// Before that, no absence of an answer means anything.
const LONG: Duration = Duration::from_secs(3_600);

/// A node with one group. It ends with this value.
struct World {
    driver: Driver,
    generations: BTreeMap<LinkId, u32>,
    runtime: Runtime,
}

/// What a reading of the log answers.
struct Share<'a> {
    epoch: u64,
    given: u64,
    /// What the log had been given when the epoch began, and where.
    began: (u64, &'a str),
    /// Places and messages.
    entries: &'a [(&'a str, &'a str)],
}

impl World {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let limits = Limits { silence: LONG, command_timeout: LONG, ..Limits::default() };
        let settings = Settings { limits, ..Settings::new("fulmar", Topology::Single("first:1".to_owned())) };
        let greeting = Greeting { credentials: Credentials::default(), database: 0, tls: None, asks_who: true };
        let driver = Driver::new(settings, 4, None, (greeting.clone(), greeting), Arc::default());
        let mut world = Self { driver, generations: BTreeMap::new(), runtime };
        world.within(Driver::start);
        world
    }

    /// A node that follows the server `a`, and has heard its log up to the sixtieth second.
    fn that_has_heard() -> Self {
        let mut world = Self::new();
        world.attaches("a", 4, &at(0));
        world.hears(700, 4, &at(60));
        world
    }

    /// Does it, and whatever follows from it.
    fn within(&mut self, act: impl FnOnce(&mut Driver)) {
        let _runtime = self.runtime.enter();
        act(&mut self.driver);
        self.driver.turn();
    }

    fn happens(&mut self, link: LinkId, happening: Happening) {
        self.within(|driver| driver.happened((link, happening)));
    }

    fn commands(&self) -> LinkId {
        self.driver.groups[0].command.expect("a server is followed")
    }

    fn subscriptions(&self) -> LinkId {
        self.driver.groups[0].hearing.link.expect("a server is followed")
    }

    /// The link is connected to the server that was started as `run`.
    fn connects(&mut self, link: LinkId, run: &str) {
        let generation = self.generations.entry(link).or_default();
        *generation += 1;
        let server = Some(Who { run: run.to_owned(), is_primary: true });
        let generation = *generation;
        self.happens(link, Happening::Up { generation, server });
    }

    fn breaks(&mut self, link: LinkId) {
        self.happens(link, Happening::Down { why: "cut".to_owned() });
    }

    /// Tickets of what is asked and not answered, the oldest first.
    fn asked(&self, is_it: impl Fn(&Purpose) -> bool) -> Vec<u64> {
        let asked = self.driver.asked.iter().filter(|(_, (_, purpose))| is_it(purpose));
        let mut tickets: Vec<u64> = asked.map(|(ticket, _)| *ticket).collect();
        tickets.sort_unstable();
        tickets
    }

    fn readings(&self) -> Vec<u64> {
        self.asked(|purpose| matches!(purpose, Purpose::Fill { .. }))
    }

    fn heartbeats(&self) -> Vec<u64> {
        self.asked(|purpose| matches!(purpose, Purpose::Pulse(0)))
    }

    fn answers(&mut self, ticket: u64, value: Value) {
        let (link, _) = self.driver.asked[&ticket];
        self.happens(link, Happening::Reply { ticket, outcome: Ok(value) });
    }

    fn answers_reading(&mut self, ticket: u64, share: &Share<'_>) {
        let (given, began) = (int(share.given), int(share.began.0));
        let mut parts = vec![int(share.epoch), text(""), int(T + 60_000), int(0), given.clone(), given, began];
        parts.push(text(share.began.1));
        for (id, message) in share.entries {
            parts.extend([text(id), text("1:room"), text(message)]);
        }
        self.answers(ticket, Value::Array(parts));
    }

    /// Both connections lead to this server, which takes the node and stands at `head`.
    fn attaches(&mut self, run: &str, epoch: u64, head: &str) {
        self.connects(self.commands(), run);
        let asked = self.asked(|purpose| matches!(purpose, Purpose::Attach(0)))[0];
        let answer = vec![int(epoch), text(head), text(""), int(0), int(0)];
        self.answers(asked, Value::Array(answer));
        self.subscribes(run);
    }

    /// The connection for subscriptions is made, and all are confirmed.
    fn subscribes(&mut self, run: &str) {
        self.connects(self.subscriptions(), run);
        for ticket in self.asked(|purpose| matches!(purpose, Purpose::Followed { .. })) {
            self.answers(ticket, Value::Okay);
        }
    }

    /// The connection for subscriptions breaks, and is made again.
    fn listens_anew(&mut self, run: &str) {
        self.breaks(self.subscriptions());
        self.subscribes(run);
    }

    /// Neither connection is left.
    fn loses_server(&mut self) {
        [self.commands(), self.subscriptions()].into_iter().for_each(|link| self.breaks(link));
    }

    /// A heartbeat says how much the log was given, and where it stands.
    fn hears(&mut self, given: u64, epoch: u64, at: &str) {
        for message in [format!("N{given} {epoch}"), format!("P{at}")] {
            let channel = text(&self.driver.groups[0].keys.pulse());
            self.happens(self.subscriptions(), Happening::Pushed { channel, message: text(&message) });
        }
    }

    /// Where the present reading begins; `None` when there is none.
    fn reads_from(&self) -> Option<String> {
        let hearing = &self.driver.groups[0].hearing;
        (!self.readings().is_empty() && !self.driver.hears(0)).then(|| hearing.fill_from.0.clone())
    }

    /// The clock goes on.
    fn passes(&mut self, time: Duration) {
        self.driver.started -= time;
        self.within(|_| ());
    }
}

fn int(number: u64) -> Value {
    Value::Int(i64::try_from(number).expect("a small number"))
}

fn text(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

fn at(seconds: u64) -> String {
    format!("{}-0", T + 1_000 * seconds)
}

/// RED-20
#[test]
fn a_reading_that_went_back_to_where_an_epoch_began_goes_back_there_again_after_a_break() {
    let mut world = World::that_has_heard();
    assert!(world.driver.hears(0));
    // Another server, whose own history goes on from where this node was long past.
    world.loses_server();
    world.attaches("b", 5, &at(50));
    assert_eq!(world.reads_from(), Some(at(57)), "another server's clock may be behind by three seconds");
    let began = at(40);
    let share = Share { epoch: 5, given: 720, began: (600, &began), entries: &[] };
    world.answers_reading(world.readings()[0], &share);
    assert_eq!(world.reads_from().as_ref(), Some(&began));

    world.listens_anew("b");
    assert_eq!(world.reads_from().as_ref(), Some(&began), "what lies between was never heard");
}

/// RED-20
#[test]
fn the_answer_to_a_reading_that_was_broken_off_is_not_taken_for_that_of_the_present_one() {
    let mut world = World::that_has_heard();
    let again = |world: &mut World| {
        world.listens_anew("a");
        *world.readings().last().expect("the log is read")
    };
    let (before, present) = (again(&mut world), again(&mut world));
    // The log had nothing then, and has something by now.
    let share = |given| Share { epoch: 4, given, began: (0, "0-0"), entries: &[] };
    world.answers_reading(before, &share(700));
    assert!(!world.driver.hears(0), "what came between the two readings would never be read");
    let entry = format!("{}.0", at(61));
    world.answers_reading(present, &Share { entries: &[(&entry, "")], ..share(701) });
    assert!(world.driver.hears(0));
    assert_eq!(world.driver.groups[0].hearing.filled, 1);
}

/// RED-20
#[test]
fn what_was_heard_is_not_heard_again_but_for_publications() {
    let mut world = World::that_has_heard();
    world.listens_anew("a");
    let entries = [59, 60, 60, 61].map(|seconds| format!("{}.0", at(seconds)));
    let entries = [(&*entries[0], "T"), (&*entries[1], "T"), (&*entries[2], "E"), (&*entries[3], "T")];
    let share = Share { epoch: 4, given: 701, began: (0, "0-0"), entries: &entries };
    world.answers_reading(world.readings()[0], &share);
    assert!(world.driver.hears(0));
    assert_eq!(world.driver.groups[0].hearing.filled, 2, "the publication, and what is behind");

    // Another server has the same history up to where its epoch began.
    world.hears(702, 4, &at(70));
    world.loses_server();
    world.attaches("b", 5, &at(69));
    let entries = [67, 68, 69].map(|seconds| format!("{}.0", at(seconds)));
    let entries = [(&*entries[0], "T"), (&*entries[1], "T"), (&*entries[2], "T")];
    let began = at(68);
    world
        .answers_reading(world.readings()[0], &Share { epoch: 5, given: 703, began: (702, &began), entries: &entries });
    assert!(world.driver.hears(0));
    assert_eq!(world.driver.groups[0].hearing.filled, 3);
}

/// RED-16
#[test]
fn heartbeats_go_on_although_one_was_on_its_way_as_another_server_was_followed() {
    let mut world = World::new();
    world.attaches("a", 4, &at(0));
    world.passes(Duration::from_secs(2));
    assert_eq!(world.heartbeats().len(), 1);
    let commands = world.commands();

    world.within(|driver| driver.follow(0, "second:1", true));
    let is_of_before = |(link, _): &&(LinkId, Purpose)| *link == commands;
    assert_eq!(world.driver.asked.values().filter(is_of_before).count(), 0, "nobody answers it any more");
    world.attaches("b", 5, &at(0));
    world.passes(Duration::from_secs(2));
    assert_eq!(world.heartbeats().len(), 1);
}

/// RED-20: the fixture itself.
#[test]
fn who_was_cut_off_reads_on_from_where_it_heard_last() {
    let mut world = World::that_has_heard();
    world.listens_anew("a");
    assert_eq!(world.reads_from().as_deref().and_then(LogId::parse), LogId::parse(&at(60)));
}

/// RED-13
#[test]
fn what_a_replica_was_asked_for_over_a_connection_that_broke_is_asked_for_behind_what_is_written_next() {
    let mut world = World::new();
    world.attaches("a", 4, &at(0));
    world.within(|driver| driver.serve(0, "replica:1"));
    let view = ServerView { is_primary: false, identity: None, seen_at: Duration::ZERO };
    world.driver.servers.last_mut().expect("it is served").view = Some(view);
    for link in world.driver.groups[0]
        .lanes
        .iter()
        .flat_map(|side| &side.pipes)
        .filter_map(|pipe| pipe.link)
        .collect::<Vec<_>>()
    {
        world.connects(link, "a");
    }
    let publish = |world: &mut World, number: u64| {
        let channel = ChannelName::parse("room", 200).expect("a valid name");
        let publication =
            Publication { app: AppId::new("app"), channel, frame: Frame::new("said"), except: None, cache_for: None };
        let (reply, answered) = oneshot::channel();
        let terms = Terms { durability: Durability::Replicated, once: None };
        world.within(|driver| driver.accept(vec![publication], terms, Some(reply)));
        let script = world.asked(|purpose| matches!(purpose, Purpose::Script { .. }))[0];
        world.answers(script, Value::Array(vec![int(4), int(number), text(&at(number))]));
        answered
    };
    let waits = |world: &World| world.asked(|purpose| matches!(purpose, Purpose::Wait { .. }));
    let mut first = publish(&mut world, 1);
    let ticket = waits(&world)[0];
    let (link, _) = world.driver.asked[&ticket];
    world.happens(link, Happening::Reply { ticket, outcome: Err(Lost) });
    world.breaks(link);
    assert!(waits(&world).is_empty() && first.try_recv().is_err(), "no replica is known to have it");
    let mut second = publish(&mut world, 2);
    world.answers(waits(&world)[0], int(1));
    assert_eq!([first.try_recv(), second.try_recv()], [Ok(Ok(())), Ok(Ok(()))]);
}

/// RED-14: nobody waits for it, and nobody refuses it in another place.
#[test]
fn a_client_event_for_which_there_is_no_room_is_dropped_and_counted() {
    let mut world = World::new();
    let say = |world: &mut World, text: &str| {
        let channel = ChannelName::parse("private-room", 200).expect("a valid name");
        let (app, frame) = (AppId::new("app"), Frame::new(text));
        world.within(|driver| {
            driver.accept_client_event(Publication { app, channel, frame, except: None, cache_for: None });
        });
        (world.driver.calls.accepted, world.driver.calls.refused)
    };
    world.driver.settings.limits.buffer_bytes_max = 1_000;
    assert_eq!(say(&mut world, &"a".repeat(900)), (1, 0));
    assert_eq!(say(&mut world, &"b".repeat(900)), (1, 1));
}

/// RED-11, RED-17: the clock of the group that a slot comes from may be ahead, or behind.
#[test]
fn a_place_counts_only_in_the_log_that_the_node_goes_by() {
    let world = World::that_has_heard();
    let at = LogId::parse(&at(61)).expect("a place");
    assert_eq!(world.driver.own_place("1:room", Some((0, at))), Some(at));
    assert_eq!(world.driver.own_place("1:room", Some((1, at))), None, "the slot is on its way there, or was there");
    assert_eq!(world.driver.own_place("1:room", None), None, "it came over the bus");
}
