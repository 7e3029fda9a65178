//! The apps of all transcripts on one node, and who takes part in one of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fulmar_protocol::app::App;
use fulmar_sim::transcript::{AppWanted, Transcript};

/// Every transcript has apps of its own, so that one node serves them all.
fn apps_of(number: usize, transcript: &Transcript) -> Vec<(String, App)> {
    let app = |wanted: &AppWanted| {
        let id = format!("{number}-{}", wanted.name);
        (wanted.name.clone(), App::new(&id, &format!("key-{id}"), &format!("secret-{id}")))
    };
    transcript.apps.iter().map(app).collect()
}

/// The configuration with the apps of all transcripts.
pub fn config_of(transcripts: &[Transcript]) -> String {
    let mut config = String::new();
    for (number, transcript) in (0..).zip(transcripts) {
        for (wanted, (_, app)) in transcript.apps.iter().zip(apps_of(number, transcript)) {
            let secret = String::from_utf8_lossy(app.secret.expose());
            write!(config, "[[apps]]\nid = \"{}\"\nkey = \"{}\"\nsecret = \"{secret}\"\n", app.id, app.key).unwrap();
            for (key, value) in [("client_events", "true"), ("subscription_counts", "false")] {
                if !wanted.settings.iter().any(|(set, _)| set == key) {
                    writeln!(config, "{key} = {value}").unwrap();
                }
            }
            for (key, value) in &wanted.settings {
                writeln!(config, "{key} = {value}").unwrap();
            }
        }
    }
    config
}

/// Who takes part in one transcript, and for which apps.
pub struct Troupe<P> {
    apps: Vec<(String, App)>,
    pub people: BTreeMap<String, P>,
}

impl<P> Troupe<P> {
    /// Nobody yet, in the transcript with this number.
    pub fn of(number: usize, transcript: &Transcript) -> Self {
        Self { apps: apps_of(number, transcript), people: BTreeMap::new() }
    }

    pub fn person(&mut self, who: &str) -> &mut P {
        self.people.get_mut(who).unwrap_or_else(|| panic!("nobody is called {who}"))
    }

    pub fn app(&self, name: &str) -> App {
        let found = self.apps.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no app is called {name}")).1.clone()
    }
}
