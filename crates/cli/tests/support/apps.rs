//! The apps of all transcripts on one node.

use std::fmt::Write as _;

use fulmar_protocol::app::App;
use fulmar_sim::transcript::{AppWanted, Transcript};

/// Every transcript has apps of its own, so that one node serves them all.
pub fn apps_of(number: usize, transcript: &Transcript) -> Vec<(String, App)> {
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
