//! A random walk through a world, every step of it checked.
//!
//! People come, subscribe, talk, go, in any order and number, over several workers and a backbone whose pace changes.
//! Each of them is watched by an [`observer`](self::observer) who knows what an SDK knows and nothing more: it builds the
//! roster from the snapshot and the changes, and notes what it receives. The walk knows the truth. Whatever a client
//! could notice to be wrong panics at once, and at every rest what the clients believe must be what is true.
//!
//! Invariant: the same seed walks the same way.

mod observer;

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use fulmar_engine::Settings;
use fulmar_protocol::app::App;

use self::observer::Observer;
use crate::frames::quoted;
use crate::slow::Pace;
use crate::world::{Connection, Setup, World};

/// Steps of one walk.
pub const STEPS: usize = 1_500;
/// Steps between two rests, at most.
const REST_EVERY: usize = 120;
/// People at once, at most.
const PEOPLE_MAX: usize = 14;
const APPS: [&str; 2] = ["1", "2"];
const CHANNELS: [&str; 7] = [
    "news",
    "private-chat",
    "private-encrypted-vault",
    "cache-board",
    "private-cache-desk",
    "presence-room",
    "presence-cache-hall",
];
const USERS: [&str; 4] = ["ann", "bob", "7", "dé"];
const PACES: [Pace; 4] = [Pace::Prompt, Pace::SlowToAnswer, Pace::SlowToHear, Pace::Slow];
/// One fewer than there are users, so that somebody is refused now and then.
const MEMBERS_MAX: usize = 3;

/// Walks with this seed.
///
/// # Panics
/// At the first thing that a client could notice to be wrong; the message names the seed and the step.
pub fn walk(seed: u64, steps: usize) {
    let mut walk = Walk::new(seed);
    for step in 1..=steps {
        walk.step = step;
        walk.go();
        walk.listen();
        if walk.chance.usize(..REST_EVERY) == 0 {
            walk.rest();
        }
    }
    walk.rest();
    walk.end();
}

/// What one app's channel has carried, in the order of acceptance.
pub(crate) type Log = Vec<Accepted>;

/// A publication as the walk knows it.
pub(crate) struct Accepted {
    pub(crate) data: String,
    /// Whom it does not reach.
    pub(crate) except: Option<Connection>,
    /// Whether it came by HTTP: such as these are kept on cache channels.
    pub(crate) is_kept: bool,
}

struct Walk {
    seed: u64,
    step: usize,
    chance: Rng,
    world: World,
    /// Everybody connected.
    people: BTreeMap<Connection, Observer>,
    /// By app and channel: what was accepted.
    logs: BTreeMap<(usize, usize), Log>,
    published: usize,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut chance = Rng::with_seed(seed);
        let app = |id: &str| {
            let mut app = App::new(id, &format!("key-{id}"), &format!("secret-{id}"));
            app.limits.presence_members_max = MEMBERS_MAX;
            app.limits.client_events_per_s_max = 1_000_000;
            app
        };
        // Silence has its own tests; here nobody is to be closed for it.
        let engine = Settings { activity_timeout_ms: u64::MAX / 4, ..Settings::default() };
        let setup = Setup { workers: chance.usize(1..=3), apps: APPS.map(app).to_vec(), engine, ..Setup::default() };
        Self {
            seed,
            step: 0,
            chance,
            world: World::of(setup),
            people: BTreeMap::new(),
            logs: BTreeMap::new(),
            published: 0,
        }
    }

    fn at(&self) -> String {
        format!("seed {}, step {}", self.seed, self.step)
    }

    fn go(&mut self) {
        match self.chance.usize(..20) {
            0 => self.somebody_comes(),
            1 if self.chance.bool() => self.somebody_goes(),
            1..=5 => self.somebody_subscribes(),
            6..=7 => self.somebody_unsubscribes(),
            8..=10 => self.publish(),
            11..=12 => self.somebody_sends(),
            13 => self.world.set_pace(PACES[self.chance.usize(..PACES.len())]),
            14 => {
                let is_by_hand = self.chance.bool();
                self.world.deliver_by_hand(is_by_hand);
            }
            15..=16 => self.backbone_moves(),
            _ => {
                let worker = self.chance.usize(..self.world.workers());
                self.world.deliver_one(worker);
            }
        }
    }

    fn somebody(&mut self) -> Option<Connection> {
        let everybody: Vec<_> = self.people.keys().copied().collect();
        (!everybody.is_empty()).then(|| everybody[self.chance.usize(..everybody.len())])
    }

    fn somebody_comes(&mut self) {
        if self.people.len() < PEOPLE_MAX {
            let app = self.chance.usize(..APPS.len());
            let connection = self.world.open(&format!("/app/key-{}?protocol=7", APPS[app]), None);
            self.people.insert(connection, Observer::new(app));
        }
    }

    fn somebody_goes(&mut self) {
        if let Some(connection) = self.somebody() {
            self.people.remove(&connection);
            self.world.leave(connection);
        }
    }

    fn somebody_subscribes(&mut self) {
        let Some(connection) = self.somebody() else { return };
        let channel = self.chance.usize(..CHANNELS.len());
        let user = USERS[self.chance.usize(..USERS.len())];
        let app = self.people[&connection].app;
        let accepted = self.logs.get(&(app, channel)).map_or(0, Vec::len);
        self.people.get_mut(&connection).expect("chosen among them").asks(channel, user, accepted);
        if CHANNELS[channel].starts_with("presence-") {
            let channel_data = format!(r#"{{"user_id":{}}}"#, quoted(user));
            self.world.subscribe_as(connection, CHANNELS[channel], &channel_data);
        } else {
            self.world.subscribe(connection, CHANNELS[channel]);
        }
    }

    fn somebody_unsubscribes(&mut self) {
        let Some(connection) = self.somebody() else { return };
        let channel = self.chance.usize(..CHANNELS.len());
        // What was sent before belongs to the subscription that ends.
        self.listen();
        self.people.get_mut(&connection).expect("chosen among them").gives_up(channel);
        self.world.unsubscribe(connection, CHANNELS[channel]);
    }

    fn publish(&mut self) {
        let app = self.chance.usize(..APPS.len());
        let first = self.chance.usize(..CHANNELS.len());
        let second = self.chance.usize(..CHANNELS.len());
        let channels: BTreeSet<_> = [first, second].into();
        let except = if self.chance.u8(..4) == 0 { self.somebody() } else { None };
        self.published += 1;
        let data = format!("p{}", self.published);
        for channel in &channels {
            let accepted = Accepted { data: data.clone(), except, is_kept: true };
            self.logs.entry((app, *channel)).or_default().push(accepted);
        }
        let names: Vec<_> = channels.iter().map(|channel| CHANNELS[*channel]).collect();
        self.world.publish_except(APPS[app], &names, "e", &data, except);
    }

    /// Only while the backbone hears at once: when a client event is accepted is otherwise not for the walk to know.
    fn somebody_sends(&mut self) {
        let Some(connection) = self.somebody() else { return };
        let channel = self.chance.usize(..CHANNELS.len());
        let observer = &self.people[&connection];
        if self.world.held_back() != (0, 0) || !observer.may_send(channel) {
            return;
        }
        self.world.set_pace(Pace::Prompt);
        self.published += 1;
        let data = format!("c{}", self.published);
        let accepted = Accepted { data: data.clone(), except: Some(connection), is_kept: false };
        self.logs.entry((observer.app, channel)).or_default().push(accepted);
        self.world.trigger(connection, CHANNELS[channel], "client-x", &quoted(&data));
    }

    fn backbone_moves(&mut self) {
        let (questions, answers) = self.world.held_back();
        if questions > 0 && (answers == 0 || self.chance.bool()) {
            self.world.let_hear(self.chance.usize(..questions));
        } else if answers > 0 {
            self.world.let_answer(self.chance.usize(..answers));
        }
    }

    /// Everybody hears what has arrived.
    fn listen(&mut self) {
        let at = self.at();
        for (connection, observer) in &mut self.people {
            while let Some(heard) = self.world.next_heard(*connection) {
                observer.hears(*connection, &heard, &self.logs).unwrap_or_else(|why| {
                    panic!("{at}: {connection:?}: {why}, on hearing {heard:?}");
                });
            }
        }
    }

    /// Everything arrives, and what everybody believes must be so.
    fn rest(&mut self) {
        self.world.deliver_by_hand(false);
        self.world.let_all_through();
        self.world.wait(1);
        self.listen();
        let at = self.at();
        for (app, id) in APPS.iter().enumerate() {
            let mut believed = Vec::new();
            for (number, name) in CHANNELS.iter().enumerate() {
                let there: Vec<_> =
                    self.people.values().filter(|person| person.app == app && person.is_on(number)).collect();
                let users: BTreeSet<_> = there.iter().filter_map(|person| person.user_on(number)).collect();
                let count = there.len() as u64;
                for person in &there {
                    person.must_know(number, count, &users).unwrap_or_else(|why| panic!("{at}: {name}: {why}"));
                }
                if count > 0 {
                    believed.push(((*name).to_owned(), count, users.len() as u64));
                }
            }
            believed.sort();
            assert_eq!(self.world.channels(id), believed, "{at}: what the REST API lists of app {id}");
        }
        for (connection, observer) in &self.people {
            observer.must_have_all(*connection, &self.logs).unwrap_or_else(|why| panic!("{at}: {connection:?}: {why}"));
        }
        assert_eq!(self.world.backbone_figures().leaves_ignored, 0, "{at}");
        assert_eq!(self.world.load().0, self.people.len(), "{at}");
    }

    /// Everybody goes, and nothing is left.
    fn end(mut self) {
        for connection in std::mem::take(&mut self.people).into_keys() {
            self.world.leave(connection);
        }
        self.world.let_all_through();
        assert_eq!(self.world.load(), (0, 0), "{}: sessions and channels that are left", self.at());
        let figures = self.world.backbone_figures();
        assert_eq!((figures.channels, figures.leaves_ignored), (figures.cached_events, 0), "{}", self.at());
    }
}
