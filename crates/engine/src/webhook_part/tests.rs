//! One part of an outbox, worked by nodes that die at any moment.

mod moving;

use std::collections::{BTreeMap, BTreeSet};

use fulmar_protocol::app::AppId;
use fulmar_protocol::name::{ChannelName, UserId};
use fulmar_protocol::webhook::{Change, Endpoint, Event, EventKind, Kinds, Subject, Webhooks, events_of};
use proptest::prelude::*;

use super::*;
use crate::webhook_batch::{BATCH_MS, HOLD_MS};

const URLS: [&str; 2] = ["http://all/", "http://counts/"];

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, 200).unwrap()
}

fn app(batching: bool) -> Arc<App> {
    let endpoint = |url: &str, kinds: Kinds| Endpoint {
        url: url.into(),
        kinds,
        channel_prefix: String::new(),
        headers: Vec::new(),
    };
    let all: Kinds = EventKind::ALL.into_iter().collect();
    // The second one's batches fill at other times than the first one's.
    let some = EventKind::ALL.into_iter().filter(|kind| *kind != EventKind::CacheMiss).collect();
    let webhooks =
        Webhooks { endpoints: vec![endpoint(URLS[0], all), endpoint(URLS[1], some)], batching, ..Webhooks::default() };
    Arc::new(App { webhooks, ..App::new("1", "key", "secret") })
}

fn subject(n: usize) -> Subject {
    match n {
        0..2 => Subject::Channel(channel(&format!("c{n}"))),
        2..4 => Subject::Member(channel("presence-a"), UserId::parse(&format!("u{n}"), 128).unwrap()),
        _ => Subject::User(UserId::parse(&format!("u{n}"), 128).unwrap()),
    }
}

/// A store with one part, and whoever works it.
struct World {
    app: Arc<App>,
    part: WebhookPart,
    now_ms: u64,
    stream: BTreeMap<EntryId, Entry>,
    announced: BTreeMap<Place, u64>,
    partly: BTreeMap<EntryId, Vec<Arc<str>>>,
    sealed: Vec<(Address, Arc<Batch>)>,
    last_id: EntryId,
    generations: u64,
}

impl World {
    fn new(app: Arc<App>) -> Self {
        let part = WebhookPart::new(Lane::new(3, 9), vec![app.clone()], Stored::default());
        Self {
            app,
            part,
            now_ms: 1_700_000_000_000,
            stream: BTreeMap::new(),
            announced: BTreeMap::new(),
            partly: BTreeMap::new(),
            sealed: Vec::new(),
            last_id: EntryId::default(),
            generations: 0,
        }
    }

    fn append(&mut self, change: Change) {
        let counter = if self.last_id.ms == self.now_ms { self.last_id.counter + 1 } else { 0 };
        let at = EntryId { ms: self.now_ms, counter };
        self.last_id = at;
        let generation = matches!(change, Change::Came(_) | Change::Went(_)).then(|| {
            self.generations += 1;
            self.generations
        });
        let edge = Edge { app: self.app.id.clone(), change };
        let id = at.ms << 8 | at.counter;
        let happened_ms = generation.map(|_| self.now_ms);
        self.stream.insert(at, Entry { at, id, generation, is_again: false, happened_ms, what: What::Edge(edge) });
    }

    /// Another part's business until now, or from now on.
    fn known(&mut self, name: &str, generation: u64, is_there: bool) {
        self.append(came(name));
        let place = Place { app: self.app.id.clone(), subject: Subject::Channel(channel(name)) };
        let mut last = self.stream.last_entry().expect("it was appended");
        (last.get_mut().generation, last.get_mut().what) = (Some(generation), What::Known(place, is_there));
    }

    /// Whoever works it reads the stream and decides; nothing is written yet.
    fn look(&mut self) {
        let after = self.part.after();
        let entries: Vec<Entry> = self.stream.values().filter(|entry| entry.at > after).cloned().collect();
        for entry in entries {
            self.part.take(self.now_ms, entry);
        }
        self.part.pass(self.now_ms, self.now_ms);
    }

    fn write(&mut self) {
        let changes = self.part.changes();
        for (at, _) in changes.settled {
            assert!(self.stream.remove(&at).is_some(), "settled twice");
        }
        for (place, generation) in changes.announced {
            match generation {
                Some(generation) => assert_eq!(self.announced.insert(place, generation), None, "announced twice"),
                None => _ = self.announced.remove(&place),
            }
        }
        self.partly.extend(changes.partly);
        for at in changes.whole {
            assert!(self.partly.remove(&at).is_some());
        }
        self.sealed.extend(changes.sealed);
    }

    /// An open batch closes, and what comes of it is written: by this node, or by the one that takes over where it `dies` before.
    fn close_batch(&mut self, dies: bool) {
        if dies {
            self.die();
        }
        self.now_ms += BATCH_MS;
        self.look();
        self.write();
    }

    /// The node dies; another one takes over what is stored.
    fn die(&mut self) {
        let stored = Stored {
            announced: self.announced.clone().into_iter().collect(),
            partly: self.partly.clone().into_iter().collect(),
            last_request: self.sealed.iter().map(|(_, batch)| batch.id).max().unwrap_or(0),
        };
        self.part = WebhookPart::new(Lane::new(3, 9), vec![self.app.clone()], stored);
    }

    fn heard(&self, url: &str) -> Vec<(u64, String)> {
        let mut heard = Vec::new();
        for (_, batch) in self.sealed.iter().filter(|(to, _)| *to.url == *url) {
            let events = events_of(&batch.body).into_iter().map(str::to_owned);
            heard.extend(batch.event_ids.iter().copied().zip(events));
        }
        heard
    }

    fn texts(&self, url: &str) -> Vec<String> {
        self.heard(url).into_iter().map(|(_, text)| text).collect()
    }
}

fn came(name: &str) -> Change {
    Change::Came(Subject::Channel(channel(name)))
}

fn went(name: &str) -> Change {
    Change::Went(Subject::Channel(channel(name)))
}

/// HOOK-35: a hold is counted from the edge, whoever waits for its end.
#[test]
fn a_going_is_held_for_three_seconds_however_often_its_part_changes_hands() {
    let mut world = World::new(app(false));
    world.append(came("a"));
    world.look();
    world.write();
    world.append(went("a"));
    for _ in 0..29 {
        world.now_ms += 100;
        world.die();
        world.look();
        world.write();
        assert_eq!(world.texts(URLS[0]).len(), 1);
    }
    world.now_ms += 100;
    world.look();
    world.write();
    assert_eq!(world.texts(URLS[0])[1], r#"{"name":"channel_vacated","channel":"a"}"#);
    assert!(world.stream.is_empty() && world.announced.is_empty());
}

/// HOOK-9, HOOK-35
#[test]
fn who_comes_back_within_the_hold_was_never_away_even_if_nobody_was_there_to_see_it() {
    let mut world = World::new(app(true));
    world.append(came("a"));
    world.now_ms += 10;
    world.append(went("a"));
    world.now_ms += HOLD_MS - 1;
    world.append(came("a"));
    world.now_ms += 60_000;
    world.look();
    world.write();
    assert_eq!(world.texts(URLS[0]).len(), 1);
    assert!(world.stream.is_empty(), "the pair that cancelled itself is gone with the rest");
    assert_eq!(world.announced.len(), 1);
}

/// HOOK-41
#[test]
fn whoever_asks_is_told_what_came_and_whether_a_going_of_it_waits_until_that_is_settled() {
    let mut world = World::new(app(true));
    let place = Place { app: world.app.id.clone(), subject: Subject::Channel(channel("a")) };
    let assert_believed = |world: &World, is: &[(&Place, bool)]| {
        assert_eq!(world.part.believed().collect::<Vec<_>>(), is);
    };
    for (change, is_going) in [(came("a"), false), (went("a"), true)] {
        world.append(change);
        world.look();
        // Though its batch is open.
        assert_believed(&world, &[(&place, is_going)]);
        world.now_ms += BATCH_MS + 1;
        world.look();
        world.write();
        assert_believed(&world, &[(&place, is_going)]);
    }
    world.now_ms += HOLD_MS - BATCH_MS;
    world.look();
    // Its hold is over, and its batch is open.
    assert_believed(&world, &[(&place, true)]);
    world.now_ms += BATCH_MS;
    world.look();
    assert_believed(&world, &[]);
}

/// HOOK-18, HOOK-35
#[test]
fn an_event_that_one_endpoint_has_is_told_to_the_other_after_a_death_and_to_the_first_no_more() {
    let mut world = World::new(app(true));
    for n in 0..19 {
        world.append(Change::CacheMissed(channel(&format!("cache-{n}"))));
    }
    world.append(came("a"));
    world.look();
    world.write();
    assert_eq!((world.texts(URLS[0]).len(), world.texts(URLS[1]).len()), (20, 0), "one is full, the other waits");
    assert_eq!((world.stream.len(), world.partly.len()), (1, 1));
    world.die();
    world.look();
    world.now_ms += BATCH_MS;
    world.look();
    world.write();
    assert_eq!((world.texts(URLS[0]).len(), world.texts(URLS[1]).len()), (20, 1));
    assert_eq!(world.heard(URLS[0])[19], world.heard(URLS[1])[0], "under the same identity");
    assert!(world.stream.is_empty() && world.partly.is_empty());
}

/// HOOK-36: what a store forgot and was told again is no new edge.
#[test]
fn an_edge_that_is_appended_again_is_told_once() {
    let mut world = World::new(app(false));
    for change in [came("a"), went("a")] {
        world.append(change);
        let first = world.stream.values().next_back().unwrap().clone();
        world.look();
        world.write();
        world.now_ms += 10;
        let at = EntryId { ms: world.now_ms, counter: 0 };
        world.last_id = at;
        world.stream.insert(at, Entry { at, is_again: true, ..first });
        world.look();
        world.write();
    }
    world.now_ms += HOLD_MS;
    world.look();
    world.write();
    assert_eq!(world.texts(URLS[0]).len(), 2, "{:?}", world.texts(URLS[0]));
    assert!(world.stream.is_empty());
}

/// HOOK-36: what several nodes append again after a loss comes in another order than it happened.
#[test]
fn a_going_that_comes_behind_a_later_coming_is_told_to_nobody() {
    let mut world = World::new(app(false));
    [came("a"), went("a"), came("a")].into_iter().for_each(|change| world.append(change));
    let entries: Vec<Entry> = world.stream.values().cloned().collect();
    let places = entries.iter().map(|entry| entry.at).zip([0, 2, 1]);
    world.stream = places.map(|(at, number)| (at, Entry { at, is_again: true, ..entries[number].clone() })).collect();
    world.look();
    world.write();
    world.now_ms += HOLD_MS;
    world.look();
    world.write();
    assert_eq!(world.texts(URLS[0]).len(), 1, "{:?}", world.texts(URLS[0]));
    assert!(world.stream.is_empty());
}

/// HOOK-17, HOOK-32
#[test]
fn a_request_that_was_given_up_comes_back_as_an_entry_and_goes_under_its_event_ids() {
    let mut world = World::new(app(false));
    world.append(came("a"));
    world.look();
    world.write();
    let (to, old) = world.sealed[0].clone();
    world.now_ms += 600_000;
    let at = EntryId { ms: world.now_ms, counter: 0 };
    let what = What::Again(to, (*old).clone());
    world.stream.insert(at, Entry { at, id: 0, generation: None, is_again: false, happened_ms: None, what });
    world.look();
    world.write();
    let (_, again) = world.sealed.last().unwrap();
    assert_eq!((&again.event_ids, events_of(&again.body)), (&old.event_ids, events_of(&old.body)));
    assert!(again.id > old.id && again.sealed_unix_ms == world.now_ms && world.stream.is_empty());
}

/// HOOK-8, HOOK-35: the end of a going waits in an open batch, and nobody is to hear of the coming behind it.
#[test]
fn what_is_back_before_its_going_was_sealed_is_announced() {
    for dies in [false, true] {
        let mut app = App::clone(&app(true));
        app.webhooks.endpoints.iter_mut().for_each(|endpoint| {
            endpoint.kinds = [EventKind::ChannelVacated].into_iter().collect();
        });
        let mut world = World::new(Arc::new(app));
        world.append(came("room"));
        world.look();
        world.write();
        world.append(went("room"));
        world.now_ms += HOLD_MS;
        world.look();
        world.now_ms += BATCH_MS / 2;
        world.append(came("room"));
        world.look();
        world.write();
        world.close_batch(dies);
        assert_eq!(world.texts(URLS[0]), [r#"{"name":"channel_vacated","channel":"room"}"#]);
        assert!(world.announced.len() == 1 && world.stream.is_empty(), "its next going is told");
    }
}

/// HOOK-23
#[test]
fn what_nobody_wants_any_more_leaves_nothing_in_the_store() {
    let mut world = World::new(app(true));
    world.append(came("a"));
    world.append(went("a"));
    world.append(came("b"));
    world.append(Change::Counted(channel("b"), 200));
    world.append(Change::Counted(channel("b"), 201));
    world.look();
    world.write();
    world.part.set_apps(Vec::new());
    world.append(came("c"));
    world.look();
    world.write();
    assert!(world.stream.is_empty() && world.announced.is_empty() && world.partly.is_empty());
    assert!(world.part.entries() == 0 && world.sealed.is_empty());
    assert_eq!(world.part.dropped().len(), 2);
}

/// HOOK-18
#[test]
fn identities_of_requests_rise_and_tell_their_lane() {
    let mut world = World::new(app(false));
    for n in 0..1_500 {
        world.append(came(&format!("c{n}")));
    }
    world.look();
    world.write();
    world.die();
    world.append(came("last"));
    world.look();
    world.write();
    let of_first: Vec<u64> = world.sealed.iter().map(|(_, batch)| batch.id).collect();
    assert!(of_first.is_sorted_by(|a, b| a < b));
    assert!(of_first.iter().all(|id| Lane::of_request(*id) == Lane::new(3, 9) && Lane::of_request(*id).part() == 9));
}

#[derive(Debug, Clone)]
enum Step {
    Flip(usize),
    Miss,
    Wait(u64),
    Look,
    Write,
    Die,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..SUBJECTS).prop_map(Step::Flip),
        2 => Just(Step::Miss),
        4 => (0..4_000_u64).prop_map(Step::Wait),
        5 => Just(Step::Look),
        3 => Just(Step::Write),
        2 => Just(Step::Die),
    ]
}

const SUBJECTS: usize = 6;

proptest! {
    /// RED-32, HOOK-8, HOOK-18, HOOK-35: whenever whoever dies.
    #[test]
    fn every_endpoint_hears_every_edge_in_turn_once_and_under_one_identity(
        steps in prop::collection::vec(step(), 1..120),
        batching: bool,
    ) {
        let mut world = World::new(app(batching));
        let mut here = [false; SUBJECTS];
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Flip(n) => {
                    here[n] = !here[n];
                    world.append(if here[n] { Change::Came(subject(n)) } else { Change::Went(subject(n)) });
                }
                Step::Miss => world.append(Change::CacheMissed(channel(&format!("cache-{n}")))),
                Step::Wait(ms) => world.now_ms += ms,
                Step::Look => world.look(),
                Step::Write => world.write(),
                Step::Die => world.die(),
            }
        }
        for _ in 0..2 {
            world.now_ms += HOLD_MS + BATCH_MS;
            world.look();
            world.write();
        }
        prop_assert!(world.stream.is_empty() && world.partly.is_empty());
        for url in URLS {
            let heard = world.heard(url);
            let ids: BTreeSet<u64> = heard.iter().map(|(id, _)| *id).collect();
            prop_assert_eq!(ids.len(), heard.len(), "each once");
            for (n, here) in here.iter().enumerate() {
                let [came, went] = [true, false].map(|came| Event::of_subject(&subject(n), came).json);
                let mine: Vec<&String> =
                    heard.iter().map(|(_, text)| text).filter(|text| ***text == *came || ***text == *went).collect();
                for (turn, text) in mine.iter().enumerate() {
                    prop_assert_eq!(text.as_str(), if turn % 2 == 0 { &*came } else { &*went });
                }
                prop_assert_eq!(mine.len() % 2 == 1, *here, "{:?}", mine);
            }
        }
        let place = |n: usize| Place { app: AppId::new("1"), subject: subject(n) };
        for (n, here) in here.iter().enumerate() {
            prop_assert_eq!(world.announced.contains_key(&place(n)), *here);
        }
    }
}

/// HOOK-8, HOOK-35: the batches of two endpoints that take different events close in another order than things happened.
#[test]
fn what_is_back_is_announced_although_its_going_waits_for_an_endpoint_that_takes_nothing_else() {
    let vacated = r#"{"name":"channel_vacated","channel":"room"}"#;
    for dies in [false, true] {
        let mut app = App::clone(&app(true));
        app.webhooks.endpoints[1].kinds = [EventKind::ChannelVacated].into_iter().collect();
        let mut world = World::new(Arc::new(app));
        let pass = |world: &mut World, ms: u64| {
            world.now_ms += ms;
            world.look();
            world.write();
        };
        world.append(came("room"));
        pass(&mut world, 0);
        pass(&mut world, 1_000);
        world.append(went("room"));
        pass(&mut world, HOLD_MS - 100);
        // Opens the batch of the first endpoint, so that it closes before that of the second.
        world.append(Change::CacheMissed(channel("cache-a")));
        pass(&mut world, 0);
        pass(&mut world, 100);
        pass(&mut world, 50);
        world.append(came("room"));
        pass(&mut world, 0);
        pass(&mut world, BATCH_MS - 150);
        assert_eq!((world.texts(URLS[0]).len(), world.texts(URLS[1]).len()), (4, 0), "{:?}", world.texts(URLS[0]));
        if dies {
            world.die();
        }
        pass(&mut world, 0);
        pass(&mut world, BATCH_MS);
        assert_eq!(world.texts(URLS[1]), [vacated]);
        assert!(world.announced.len() == 1 && world.stream.is_empty(), "{:?}", world.announced);
        world.append(went("room"));
        pass(&mut world, HOLD_MS);
        pass(&mut world, BATCH_MS);
        assert_eq!(world.texts(URLS[0]).last().map(String::as_str), Some(vacated));
        assert_eq!((world.texts(URLS[0]).len(), world.texts(URLS[1]).len()), (5, 2));
    }
}
