//! What a receiver hears, whatever the churn and however often the node dies.

use std::collections::BTreeMap;

use fulmar_protocol::name::{SocketId, UserId};
use fulmar_protocol::server_message::client_event;
use fulmar_protocol::webhook::{Endpoint, EventKind, Kinds, Webhooks, events_of};
use proptest::prelude::*;

use super::informing::{MISS_QUIET_MS, MISSES_MAX};
use super::*;

const URL: &str = "http://receiver/";

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, 200).unwrap()
}

fn endpoint(url: &str, kinds: Kinds, prefix: &str) -> Endpoint {
    Endpoint { url: url.into(), kinds, channel_prefix: prefix.to_owned(), headers: Vec::new() }
}

fn app(endpoints: Vec<Endpoint>, batching: bool) -> Arc<App> {
    let webhooks = Webhooks { endpoints, batching, ..Webhooks::default() };
    Arc::new(App { webhooks, ..App::new("1", "key", "secret") })
}

fn everything(batching: bool) -> Arc<App> {
    app(vec![endpoint(URL, EventKind::ALL.into_iter().collect(), "")], batching)
}

/// A book, the store behind it, and what receivers were sent.
struct World {
    app: Arc<App>,
    book: WebhookBook,
    now: Now,
    present: BTreeMap<Place, u64>,
    queued: BTreeMap<u64, (AppId, Told)>,
    sealed_up_to: BTreeMap<Address, u64>,
    next_id: u64,
    sent: Vec<(Address, Batch)>,
}

impl World {
    fn new(app: Arc<App>) -> Self {
        let mut world = Self {
            app,
            book: WebhookBook::new(),
            now: Now { moment: Moment(0), unix_ms: 1_700_000_000_000 },
            present: BTreeMap::new(),
            queued: BTreeMap::new(),
            sealed_up_to: BTreeMap::new(),
            next_id: 1,
            sent: Vec::new(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        self.book = WebhookBook::new();
        let mut records = Vec::new();
        self.book.set_apps([self.app.clone()], &mut records);
        let restored = Restored {
            present: self.present.iter().map(|(place, generation)| (place.clone(), *generation)).collect(),
            queued: self.queued.iter().map(|(turn, (app, told))| (app.clone(), *turn, told.clone())).collect(),
            sealed_up_to: self.sealed_up_to.clone().into_iter().collect(),
            next_id: self.next_id,
        };
        self.book.restore(self.now, restored, &mut records);
        self.store(records);
    }

    /// Keeps what the records say, exactly as a store would.
    fn store(&mut self, records: Vec<Record>) {
        for record in records {
            match record {
                Record::Came { place, generation } => {
                    assert_eq!(self.present.insert(place, generation), None, "announced twice");
                }
                Record::Went { place } => {
                    assert!(self.present.remove(&place).is_some(), "never announced");
                }
                Record::Queued { app, turn, told } => assert_eq!(self.queued.insert(turn, (app, told)), None),
                Record::Sealed { to, batch, turns } => {
                    let up_to = turns.last().copied();
                    let before = up_to.and_then(|last| self.sealed_up_to.insert(to.clone(), last));
                    assert!(before < up_to || before.is_none(), "events are sealed in their turns");
                    self.sent.push((to, batch));
                }
                Record::Settled { turn } => assert!(self.queued.remove(&turn).is_some(), "it was queued"),
                Record::Dropped { .. } => {}
            }
        }
        self.next_id = self.book.next_id();
    }

    fn take(&mut self, change: Change) {
        let mut records = Vec::new();
        self.book.take(self.now, Edge { app: self.app.id.clone(), change }, &mut records);
        self.store(records);
    }

    fn wait(&mut self, ms: u64) {
        let end = self.now.moment.plus_ms(ms);
        while let Some(at) = self.book.next_deadline().filter(|at| *at <= end) {
            self.move_to(at);
        }
        self.move_to(end);
    }

    fn move_to(&mut self, at: Moment) {
        self.now.unix_ms += at.ms_since(self.now.moment);
        self.now.moment = self.now.moment.max(at);
        let mut records = Vec::new();
        self.book.pass(self.now, &mut records);
        self.store(records);
    }

    fn came(&mut self, name: &str) {
        self.take(Change::Came(Subject::Channel(channel(name))));
    }

    fn went(&mut self, name: &str) {
        self.take(Change::Went(Subject::Channel(channel(name))));
    }

    /// The events that `url` was sent, as `name channel[ user]`.
    fn heard(&self, url: &str) -> Vec<String> {
        let batches = self.sent.iter().filter(|(to, _)| *to.url == *url).map(|(_, batch)| batch);
        let mut heard = Vec::new();
        for batch in batches {
            for event in events_of(&batch.body) {
                let (name, channel, user) = (field(event, "name"), field(event, "channel"), field(event, "user_id"));
                heard.push([name, channel, user].join(" ").trim_end().to_owned());
            }
        }
        heard
    }
}

/// A text field of a flat JSON object without escapes.
fn field(json: &str, name: &str) -> String {
    let start = json.split_once(&format!("\"{name}\":\"")).map_or("", |(_, rest)| rest);
    start.split('"').next().unwrap_or_default().to_owned()
}

/// HOOK-8, HOOK-9, trap T-47
#[test]
fn a_page_that_is_loaded_anew_makes_no_event_and_one_that_is_left_makes_one_after_three_seconds() {
    let mut world = World::new(everything(true));
    world.came("room");
    world.wait(1_000);
    for _ in 0..5 {
        world.went("room");
        world.wait(HOLD_MS - 1);
        world.came("room");
        world.wait(1_000);
    }
    assert_eq!(world.heard(URL), ["channel_occupied room"]);
    world.went("room");
    world.wait(HOLD_MS - 1);
    assert_eq!(world.heard(URL).len(), 1, "not before the hold is over");
    world.wait(1 + BATCH_MS);
    assert_eq!(world.heard(URL), ["channel_occupied room", "channel_vacated room"]);
    assert!(world.present.is_empty() && world.queued.is_empty() && world.book.timers.is_empty());
}

/// HOOK-7
#[test]
fn a_batch_closes_after_twenty_events_or_250_milliseconds() {
    let mut world = World::new(everything(true));
    for n in 0..21 {
        world.came(&format!("c{n:02}"));
    }
    assert_eq!(world.sent.len(), 1);
    assert_eq!(world.sent[0].1.event_ids.len(), 20);
    world.wait(BATCH_MS - 1);
    assert_eq!(world.sent.len(), 1);
    world.wait(1);
    assert_eq!(world.sent[1].1.event_ids.len(), 1);
    assert_eq!(world.sent[1].1.sealed_unix_ms, 1_700_000_000_250);
    assert!(world.sent[1].1.body.starts_with(r#"{"time_ms":1700000000250,"#));
}

/// HOOK-7
#[test]
fn without_batching_every_event_is_a_request_of_its_own() {
    let mut world = World::new(everything(false));
    world.came("a");
    world.came("b");
    assert_eq!(world.sent.iter().map(|(_, batch)| batch.event_ids.len()).collect::<Vec<_>>(), [1, 1]);
    assert!(world.queued.is_empty());
}

/// HOOK-21, HOOK-18
#[test]
fn every_endpoint_gets_its_share_under_the_same_identities() {
    let existence = [EventKind::ChannelOccupied, EventKind::ChannelVacated].into_iter().collect();
    let all = EventKind::ALL.into_iter().collect();
    let endpoints = vec![endpoint("http://all/", all, ""), endpoint("http://some/", existence, "presence-")];
    let mut world = World::new(app(endpoints, false));
    let room = channel("presence-room");
    world.came("other");
    world.take(Change::Came(Subject::Channel(room.clone())));
    world.take(Change::Came(Subject::Member(room.clone(), UserId::parse("ana", 128).unwrap())));
    world.take(Change::Counted(room, 1));
    assert_eq!(world.heard("http://some/"), ["channel_occupied presence-room"]);
    assert_eq!(world.heard("http://all/").len(), 4);
    let ids = |url: &str| {
        let of = world.sent.iter().filter(|(to, _)| *to.url == *url);
        of.map(|(_, batch)| batch.event_ids[0]).collect::<Vec<_>>()
    };
    assert_eq!(ids("http://some/"), [ids("http://all/")[1]]);
    let mut batches: Vec<u64> = world.sent.iter().map(|(_, batch)| batch.id).collect();
    batches.dedup();
    assert_eq!(batches.len(), 5, "batches have identities of their own");
}

/// HOOK-10, HOOK-18
#[test]
fn a_crash_between_the_batches_of_two_endpoints_doubles_nothing_for_one_and_loses_nothing_for_the_other() {
    let all = EventKind::ALL.into_iter().collect();
    let counts = [EventKind::SubscriptionCount].into_iter().collect();
    let mut world = World::new(app(vec![endpoint("http://a/", all, ""), endpoint("http://b/", counts, "")], true));
    for n in 0..19 {
        world.came(&format!("c{n}"));
    }
    world.take(Change::Counted(channel("c0"), 1));
    let heard = |world: &World, url| world.heard(url).iter().filter(|e| e.starts_with("subscription_count")).count();
    assert_eq!((heard(&world, "http://a/"), heard(&world, "http://b/")), (1, 0), "one is full, the other waits");
    world.start();
    world.wait(BATCH_MS);
    assert_eq!((heard(&world, "http://a/"), heard(&world, "http://b/")), (1, 1));
    assert!(world.queued.is_empty() && world.book.waits_in.is_empty());
}

/// HOOK-10
#[test]
fn after_a_crash_who_does_not_come_back_is_told_to_be_gone_and_who_does_never_left() {
    let mut world = World::new(everything(true));
    world.came("stays");
    world.came("leaves");
    world.went("leaves");
    world.start();
    assert_eq!(world.heard(URL).len(), 0, "the batch was still open");
    world.came("stays");
    world.wait(HOLD_MS + BATCH_MS);
    let expected = ["channel_occupied stays", "channel_occupied leaves", "channel_vacated leaves"];
    assert_eq!(world.heard(URL), expected);
    world.start();
    world.wait(HOLD_MS + BATCH_MS);
    assert_eq!(world.heard(URL).last().unwrap(), "channel_vacated stays");
    assert!(world.present.is_empty());
}

/// HOOK-11
#[test]
fn misses_of_one_moment_are_one_event_and_a_later_one_is_another() {
    let mut world = World::new(everything(true));
    for _ in 0..100 {
        world.take(Change::CacheMissed(channel("cache-a")));
    }
    world.take(Change::CacheMissed(channel("cache-b")));
    world.wait(MISS_QUIET_MS);
    world.take(Change::CacheMissed(channel("cache-a")));
    world.wait(BATCH_MS);
    assert_eq!(world.heard(URL), ["cache_miss cache-a", "cache_miss cache-b", "cache_miss cache-a"]);
}

/// HOOK-11
#[test]
fn however_many_cache_channels_are_missed_what_is_remembered_of_them_is_bounded() {
    let mut world = World::new(everything(false));
    for n in 0..MISSES_MAX + 10 {
        world.take(Change::CacheMissed(channel(&format!("cache-{n}"))));
    }
    assert_eq!(world.book.misses.len(), MISSES_MAX);
    assert_eq!(world.sent.len(), MISSES_MAX + 10);
    world.wait(MISS_QUIET_MS);
    world.take(Change::CacheMissed(channel("cache-0")));
    assert_eq!(world.book.misses.len(), 1);
}

/// HOOK-12
#[test]
fn counts_of_large_channels_come_every_five_seconds_and_the_last_one_always() {
    let mut world = World::new(everything(false));
    for count in 99..=200 {
        world.take(Change::Counted(channel("c"), count));
        world.wait(10);
    }
    let counts = |world: &World| {
        let last =
            |batch: &Batch| batch.body.rsplit_once(':').unwrap().1.trim_end_matches("}]}").parse::<u64>().unwrap();
        world.sent.iter().map(|(_, batch)| last(batch)).collect::<Vec<_>>()
    };
    assert_eq!(counts(&world), [99, 100, 101]);
    world.wait(5_000);
    assert_eq!(counts(&world), [99, 100, 101, 200]);
    world.take(Change::Counted(channel("c"), 100));
    assert_eq!(counts(&world).last(), Some(&100));
    assert!(world.book.counts.is_empty());
}

/// HOOK-4
#[test]
fn what_a_client_said_is_told_with_who_said_it() {
    let mut world = World::new(everything(false));
    let room = channel("presence-room");
    let frame = client_event("client-typing", &room, r#"{"on":true}"#, Some("ana"));
    world.take(Change::ClientSaid { channel: room, frame, socket_id: SocketId::new(1, 2) });
    let body = &world.sent[0].1.body;
    assert!(
        body.contains(r#""event":"client-typing","data":"{\"on\":true}","socket_id":"1.2","user_id":"ana""#),
        "{body}"
    );
}

/// HOOK-23
#[test]
fn when_nobody_wants_to_hear_of_a_channel_any_more_it_is_forgotten_without_an_event() {
    let mut world = World::new(everything(true));
    world.came("a");
    world.went("a");
    world.came("b");
    let mut records = Vec::new();
    world.book.set_apps([], &mut records);
    world.store(records);
    assert!(world.present.is_empty() && world.queued.is_empty() && world.book.timers.is_empty());
    world.came("c");
    world.wait(HOLD_MS + BATCH_MS);
    assert_eq!(world.heard(URL), [""; 0]);
}

/// HOOK-6, trap T-46
#[test]
fn during_a_rotation_the_signature_is_made_with_the_secret_that_receivers_have_had_longest() {
    let secret = fulmar_protocol::app::Secret::new("before");
    let rotated = App { previous_secret: Some(secret.clone()), ..(*everything(false)).clone() };
    let mut world = World::new(Arc::new(rotated));
    world.came("a");
    let batch = &world.sent[0].1;
    assert_eq!(*batch.signature, sign_webhook(&secret, batch.body.as_bytes()));
}

/// HOOK-17
#[test]
fn what_is_sealed_again_says_the_same_at_another_time_under_the_same_identities() {
    let mut world = World::new(everything(true));
    world.came("a");
    world.wait(BATCH_MS);
    let (to, old) = world.sent[0].clone();
    world.wait(400_000);
    let new = world.book.seal_again(world.now, &to, &old).unwrap();
    assert_eq!(events_of(&new.body), events_of(&old.body));
    assert_eq!((&new.event_ids, &new.lanes), (&old.event_ids, &old.lanes));
    assert!(new.id != old.id && new.signature != old.signature);
    assert_eq!(new.sealed_unix_ms, world.now.unix_ms);
    let elsewhere = Address { url: "http://elsewhere/".into(), ..to };
    assert_eq!(world.book.seal_again(world.now, &elsewhere, &old), None);
}

#[derive(Debug, Clone)]
enum Step {
    Flip(usize),
    Wait(u64),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..SUBJECTS).prop_map(Step::Flip),
        3 => (0..4_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Crash),
    ]
}

const SUBJECTS: usize = 6;

fn subject(n: usize) -> Subject {
    match n {
        0..2 => Subject::Channel(channel(&format!("c{n}"))),
        2..4 => Subject::Member(channel("presence-a"), UserId::parse(&format!("u{n}"), 128).unwrap()),
        _ => Subject::User(UserId::parse(&format!("u{n}"), 128).unwrap()),
    }
}

proptest! {
    /// HOOK-8, HOOK-9, HOOK-10, HOOK-18: whatever comes, goes and dies.
    #[test]
    fn a_receiver_hears_comings_and_goings_in_turn_and_believes_the_truth_in_the_end(
        steps in prop::collection::vec(step(), 1..80),
        batching: bool,
    ) {
        let mut world = World::new(everything(batching));
        let mut here = [false; SUBJECTS];
        for step in steps {
            match step {
                Step::Flip(n) => {
                    here[n] = !here[n];
                    world.take(if here[n] { Change::Came(subject(n)) } else { Change::Went(subject(n)) });
                }
                Step::Wait(ms) => world.wait(ms),
                Step::Crash => {
                    here = [false; SUBJECTS];
                    world.start();
                }
            }
        }
        world.wait(HOLD_MS + BATCH_MS);
        let heard = world.heard(URL);
        for (n, here) in here.into_iter().enumerate() {
            let [came, went] = [true, false].map(|came| {
                let event = Event::of_subject(&subject(n), came);
                [field(&event.json, "name"), field(&event.json, "channel"), field(&event.json, "user_id")].join(" ")
            });
            let mine: Vec<&String> = heard.iter().filter(|e| e.trim() == came.trim() || e.trim() == went.trim()).collect();
            for (turn, event) in mine.iter().enumerate() {
                prop_assert_eq!(event.trim(), if turn % 2 == 0 { came.trim() } else { went.trim() });
            }
            prop_assert_eq!(mine.len() % 2 == 1, here, "{:?}", mine);
        }
        let mut ids: Vec<u64> = world.sent.iter().flat_map(|(_, batch)| batch.event_ids.clone()).collect();
        let events = ids.len();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), events, "an identity stands for one event");
        prop_assert!(world.queued.is_empty() && world.book.waits_in.is_empty());
    }
}
