//! One app that does not stand in the configuration file, held to the very rules of that file.

use std::path::Path;
use std::sync::Arc;

use fulmar_protocol::app::App;
use serde_json::{Map, Value as Json};

use super::file::FileReader;
use super::finding::{Finding, Place, Weight, What};
use super::keys::KEYS;
use super::meaning::{Effective, mean_app};
use super::raw::{RawApp, Reader};

/// One app: what it means, and how it shows.
#[derive(Debug, Clone)]
pub struct WrittenApp {
    /// What is meant.
    pub app: App,
    /// Every key in effect that is not a secret, under its name in `[[apps]]`.
    pub shown: Map<String, Json>,
}

/// Reads settings by the names they have in `[[apps]]`. The app is there unless a finding refuses it.
#[must_use]
pub fn read_app(settings: &Map<String, Json>) -> (Option<WrittenApp>, Vec<Finding>) {
    let refused = |key: &str, what| (None, vec![Finding::refuses(Place::Default, key, what)]);
    for (file_key, instead) in [("secret_file", "secret"), ("previous_secret_file", "previous_secret")] {
        if settings.contains_key(file_key) {
            return refused(&format!("apps.{file_key}"), What::FileOnly { instead });
        }
    }
    // By way of TOML, so that no rule is written twice: what the file refuses is refused here, in the same words.
    let table = toml::Value::try_from(settings).and_then(|app| {
        let apps = toml::Value::Array(vec![app]);
        toml::to_string(&toml::Table::from_iter([("apps".to_owned(), apps)]))
    });
    let text = match table {
        Ok(text) => text,
        Err(error) => return refused("", What::Syntax(error.to_string())),
    };
    let mut reader = Reader::default();
    FileReader { reader: &mut reader, text: &text, path: Arc::from(Path::new("")) }.read();
    let mut findings: Vec<Finding> = reader.findings;
    let mut effective = Effective::of(reader.raw);
    let written = match effective.apps.pop() {
        Some(raw) => {
            let raw = RawApp { place: Place::Default, ..raw };
            mean_app(&raw, &mut findings).map(|app| WrittenApp { app, shown: shown(&raw) })
        }
        None => None,
    };
    // Lines of a text that nobody wrote would lead nowhere.
    findings.iter_mut().for_each(|finding| finding.place = Place::Default);
    let refuses = findings.iter().any(|f| f.weight == Weight::Refuses);
    (written.filter(|_| !refuses), findings)
}

/// The settings of an app without its secrets.
pub(super) fn shown(app: &RawApp) -> Map<String, Json> {
    let apps = KEYS.iter().filter(|key| key.section() == "apps");
    apps.filter_map(|key| Some((key.name().to_owned(), app.settings.get(key.path)?.value.json()?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(settings: Json) -> Result<WrittenApp, Vec<String>> {
        let (app, findings) = read_app(settings.as_object().expect("an object"));
        app.ok_or_else(|| findings.iter().map(ToString::to_string).collect())
    }

    /// OPS-29
    #[test]
    fn an_app_from_elsewhere_means_what_the_same_lines_in_the_file_mean() {
        let read = read(json!({
            "id": "7", "key": "k", "secret": "s", "client_events": true, "max_connections": 5,
            "allowed_origins": ["*.example.org"],
        }))
        .unwrap();
        let file = crate::config::load(crate::config::Sources::new().with_apps(vec!["7:k:s".to_owned()])).unwrap();
        let mut expected = App { subscription_counts: false, watchlist: false, ..file.config.apps[0].clone() };
        expected.allowed_origins = vec!["*.example.org".to_owned()];
        expected.limits.max_connections = Some(5);
        assert_eq!(read.app, expected);
        assert_eq!(read.shown["max_connections"], 5);
        assert!(read.shown["enabled"] == true && !read.shown.contains_key("secret"));
    }

    /// OPS-29
    #[test]
    fn what_the_file_refuses_is_refused_in_the_same_words() {
        let base = json!({ "id": "7", "key": "k", "secret": "hush-hush" });
        for (key, value, said) in [
            ("id", json!("a b"), "apps.id must be 1 to 128 letters"),
            ("key", json!(null), "not valid"),
            ("max_connections", json!(-1), "apps.max_connections must be between 0 and"),
            ("max_connections", json!(1.5), "apps.max_connections must be a whole number"),
            ("client_events", json!("yes"), "apps.client_events must be true or false"),
            ("allowed_origins", json!(["ftp://x"]), "apps.allowed_origins must hold origins"),
            ("secret", json!(""), "apps.secret must not be empty"),
            ("secret", json!(12), "apps.secret must be text that is never shown"),
            ("secret_file", json!("/etc/passwd"), "belongs to the configuration file"),
        ] {
            let mut app = base.clone();
            app[key] = value;
            let findings = read(app).unwrap_err();
            assert!(findings.iter().any(|f| f.contains(said)), "{key}: {findings:?}");
            assert!(!findings.concat().contains("hush-hush"));
        }
        let (app, findings) = read_app(json!({ "key": "k", "secret": "s" }).as_object().unwrap());
        assert!(app.is_none() && findings[0].to_string() == "apps.id is missing", "{findings:?}");
        let (app, findings) =
            read_app(json!({ "id": "1", "key": "k", "secret": "s", "clientevents": 1 }).as_object().unwrap());
        assert!(app.is_some() && findings[0].weight == Weight::Unknown, "an unknown key is for the caller to judge");
    }
}
