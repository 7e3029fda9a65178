//! The world in memory as a stage.

use std::collections::BTreeMap;

use fulmar_protocol::app::{App, Secret};

use super::{AppWanted, Stage, Transcript, play};
use crate::world::{Connection, Heard, Setup, World};

/// Plays a transcript in a world of its own.
///
/// # Panics
/// At the first line that does not come true.
pub fn rehearse(transcript: &Transcript) {
    let apps = transcript.apps.iter().map(wanted).collect();
    let world = World::of(Setup { apps, ..Setup::default() });
    play(transcript, &mut Rehearsal { world, people: BTreeMap::new() });
}

struct Rehearsal {
    world: World,
    people: BTreeMap<String, Connection>,
}

impl Rehearsal {
    fn person(&self, who: &str) -> Connection {
        *self.people.get(who).unwrap_or_else(|| panic!("nobody is called {who}"))
    }
}

impl Stage for Rehearsal {
    fn app(&self, name: &str) -> App {
        self.world.app(name).as_ref().clone()
    }

    fn open(&mut self, who: &str, target: &str, origin: Option<&str>) {
        let connection = self.world.open(target, origin);
        self.people.insert(who.to_owned(), connection);
    }

    fn say(&mut self, who: &str, text: &str) {
        self.world.say(self.person(who), text);
    }

    fn hear(&mut self, who: &str) -> Option<Heard> {
        self.world.next_heard(self.person(who))
    }

    fn rest(&mut self) {}

    fn overheard(&mut self, who: &str) -> Option<Heard> {
        self.hear(who)
    }

    fn leave(&mut self, who: &str) {
        self.world.leave(self.person(who));
    }

    fn publish(&mut self, app: &str, channels: &[&str], event: &str, data: &str, except: Option<&str>) {
        let outcome = self.world.try_publish(app, channels, event, data, except);
        assert_eq!(outcome, Ok(()));
    }

    fn wait(&mut self, ms: u64) {
        self.world.wait(ms);
    }
}

/// The app with its settings, as the configuration would make it.
fn wanted(wanted: &AppWanted) -> App {
    let mut app = App::new(&wanted.name, &format!("key-{}", wanted.name), &format!("secret-{}", wanted.name));
    app.subscription_counts = false;
    app.watchlist = false;
    for (key, value) in &wanted.settings {
        set(&mut app, key, value);
    }
    app
}

fn set(app: &mut App, key: &str, value: &str) {
    let value: serde_json::Value = serde_json::from_str(value).expect("values are TOML that is also JSON");
    let switch = || value.as_bool().expect("true or false");
    let number = || usize::try_from(value.as_u64().expect("a number")).expect("a small number");
    let short = || u32::try_from(number()).expect("a small number");
    let limits = &mut app.limits;
    match key {
        "enabled" => app.enabled = switch(),
        "client_events" => app.client_events = switch(),
        "subscription_counts" => app.subscription_counts = switch(),
        "watchlist" => app.watchlist = switch(),
        "watchlist_max" => limits.watchlist_max = number(),
        "authorized_connections" => app.authorized_connections = switch(),
        "unauthorized_connections_max" => limits.unauthorized_connections_max = short(),
        "authorized_connections_timeout_s" => limits.authorized_connections_timeout_s = short(),
        "tls_only" => app.tls_only = switch(),
        "previous_secret" => app.previous_secret = Some(Secret::new(value.as_str().expect("text"))),
        "allowed_origins" => {
            app.allowed_origins = serde_json::from_value(value).expect("a list of texts");
        }
        "max_connections" => limits.max_connections = Some(short()),
        "channel_name_max" => limits.channel_name_max = number(),
        "event_name_max" => limits.event_name_max = number(),
        "event_data_bytes_max" => limits.event_data_bytes_max = number(),
        "presence_members_max" => limits.presence_members_max = number(),
        "presence_user_info_bytes_max" => limits.presence_user_info_bytes_max = number(),
        "user_id_max" => limits.user_id_max = number(),
        "client_events_per_s_max" => limits.client_events_per_s_max = short(),
        "cache_ttl_s" => limits.cache_ttl_s = short(),
        _ => panic!("no such setting: {key}"),
    }
}
