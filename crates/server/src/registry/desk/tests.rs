//! The desk over a real store in a folder of its own.

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::config::{Sources, load};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fulmar-desk-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A desk of a node that was started with these flags.
    fn desk(&self, apps: &[&str]) -> Desk {
        let loaded = load(Sources::new().with_apps(apps.iter().map(|a| (*a).to_owned()).collect())).unwrap();
        let store = StoredApps::open(&self.0).map_err(|e| e.to_string());
        Desk::new(&loaded.config, loaded.shown_apps(), store)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ann() -> Author {
    Author { who: "ann".to_owned(), at_ms: 1_000 }
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// OPS-29, OPS-30
#[test]
fn a_new_app_has_an_id_a_key_and_a_secret_of_its_own_and_is_served_at_once_and_after_a_restart() {
    let folder = Folder::new("add");
    let mut desk = folder.desk(&[]);
    assert!(desk.demo().is_some());
    let done = desk.add(map(json!({ "client_events": true })), ann()).unwrap();
    assert_eq!((done.verb, done.revision), (Verb::Add, 1));
    assert!(done.id.len() == 7 && done.id.bytes().all(|b| b.is_ascii_digit()), "{}", done.id);
    let secret = done.secret.unwrap();
    let app = desk.apps().by_id(&done.id).unwrap();
    assert_eq!((app.secret.expose(), app.client_events), (secret.as_bytes(), true));
    assert!(secret.len() == 40 && app.key.as_str().len() == 20);
    assert!(desk.demo().is_none() && desk.apps().by_id("1").is_none(), "the demo app is for nodes without any other");
    drop(desk);
    let desk = folder.desk(&[]);
    assert_eq!(desk.apps().by_id(&done.id).as_deref(), Some(&*app));
    assert!(desk.demo().is_none());
    let shown = desk.show(&done.id).unwrap();
    assert!(!format!("{shown:?} {:?}", desk.history(&done.id).unwrap()).contains(&secret));
}

/// OPS-29
#[test]
fn what_the_file_would_refuse_is_refused_and_changes_nothing() {
    let folder = Folder::new("refuse");
    let mut desk = folder.desk(&["5:k5:s"]);
    desk.add(map(json!({ "id": "7", "key": "k7" })), ann()).unwrap();
    for (settings, said) in [
        (json!({ "id": "a b" }), "apps.id must be"),
        (json!({ "id": "8", "max_connections": -4 }), "apps.max_connections must be between"),
        (json!({ "id": "8", "clientevents": true }), "did you mean apps.client_events"),
        (json!({ "id": "8", "secret_file": "/etc/passwd" }), "belongs to the configuration file"),
        (json!({ "id": "7" }), "id 7 is already used by an app of the registry"),
        (json!({ "id": "5" }), "id 5 is already used by an app of the configuration"),
        (json!({ "key": "k7" }), "key k7 is already used"),
        (json!({ "key": "k5" }), "key k5 is already used"),
    ] {
        let error = desk.add(map(settings.clone()), ann()).unwrap_err().to_string();
        assert!(error.contains(said), "{settings}: {error}");
    }
    assert!(desk.edit("7", map(json!({ "key": "k5" })), None, ann()).is_err());
    assert!(desk.edit("7", map(json!({ "secret": "s" })), None, ann()).unwrap_err().to_string().contains("rotate"));
    assert!(matches!(desk.edit("6", Map::new(), None, ann()), Err(DeskError::NotFound(_))));
    for result in [desk.edit("5", map(json!({ "enabled": false })), None, ann()), desk.remove("5", ann())] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("the configuration are changed there"), "{error}");
    }
    assert_eq!((desk.list().len(), desk.history("7").unwrap().len()), (2, 1));
}

/// OPS-30
#[test]
fn every_change_is_remembered_with_who_and_what_and_can_be_reverted() {
    let folder = Folder::new("revert");
    let mut desk = folder.desk(&[]);
    let secret = desk.add(map(json!({ "id": "7" })), ann()).unwrap().secret.unwrap();
    desk.edit("7", map(json!({ "max_connections": 10, "client_events": true })), Some(1), ann()).unwrap();
    let done = desk.edit("7", map(json!({ "enabled": false })), None, ann()).unwrap();
    assert_eq!((done.verb, done.revision, done.changed), (Verb::Disable, 3, vec!["enabled".to_owned()]));
    let same = desk.edit("7", map(json!({ "enabled": false })), None, ann()).unwrap();
    assert_eq!((same.revision, same.changed.len()), (3, 0), "what is so already is no change");
    assert!(matches!(desk.edit("7", Map::new(), Some(2), ann()), Err(DeskError::Stale { present: 3 })));

    let history = desk.history("7").unwrap();
    let lines: Vec<_> = history.iter().map(|r| (r.revision, r.verb.to_string(), r.changed.join(" "))).collect();
    let line = |n, verb: &str, changed: &str| (n, verb.to_owned(), changed.to_owned());
    let expected = [
        line(1, "add", "id key secret"),
        line(2, "edit", "client_events max_connections"),
        line(3, "disable", "enabled"),
    ];
    assert_eq!(lines, expected);
    assert!(history.iter().all(|r| r.who == "ann" && r.at_ms == 1_000));

    desk.revert("7", 1, ann()).unwrap();
    let app = desk.apps().by_id("7").unwrap();
    assert!(app.enabled && !app.client_events && app.limits.max_connections.is_none());
    desk.remove("7", ann()).unwrap();
    assert!(desk.apps().by_id("7").is_none());
    assert!(matches!(desk.revert("7", 99, ann()), Err(DeskError::NoRevision { .. })));
    desk.revert("7", 2, ann()).unwrap();
    let app = desk.apps().by_id("7").unwrap();
    assert_eq!((app.limits.max_connections, app.secret.expose()), (Some(10), secret.as_bytes()));
    assert_eq!(desk.history("7").unwrap().last().unwrap().revision, 6);
}

/// OPS-31
#[test]
fn a_rotation_keeps_two_secrets_until_one_is_retired_and_a_retired_one_never_comes_back() {
    let folder = Folder::new("rotate");
    let mut desk = folder.desk(&[]);
    let first = desk.add(map(json!({ "id": "7" })), ann()).unwrap().secret.unwrap();
    let second = desk.rotate("7", None, ann()).unwrap().secret.unwrap();
    let secrets = |desk: &Desk| {
        let app = desk.apps().by_id("7").unwrap();
        app.secrets().map(|s| String::from_utf8(s.expose().to_vec()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(secrets(&desk), [second.clone(), first.clone()]);
    assert!(matches!(desk.rotate("7", None, ann()), Err(DeskError::RotationPending)));
    desk.retire("7", true, ann()).unwrap();
    assert_eq!(secrets(&desk), std::slice::from_ref(&first), "undone");
    desk.rotate("7", Some("given-by-somebody".to_owned()), ann()).unwrap();
    desk.retire("7", false, ann()).unwrap();
    assert!(matches!(desk.retire("7", false, ann()), Err(DeskError::NothingToRetire)));
    desk.revert("7", 1, ann()).unwrap();
    assert_eq!(secrets(&desk), ["given-by-somebody"]);
    let kept = format!("{:?}", desk.history("7").unwrap());
    assert!([&first, &second, "given-by-somebody"].iter().all(|secret| !kept.contains(*secret)), "{kept}");
}

/// OPS-30, OPS-34
#[test]
fn values_of_webhook_headers_are_kept_and_reverted_to_and_not_shown() {
    let folder = Folder::new("headers");
    let mut desk = folder.desk(&[]);
    let hook = |token: &str| json!([{ "url": "https://a.example/", "headers": { "Authorization": token } }]);
    desk.add(map(json!({ "id": "7", "webhooks": hook("hush-1") })), ann()).unwrap();
    desk.edit("7", map(json!({ "webhooks": hook("hush-2") })), None, ann()).unwrap();
    let before = desk.apps().by_id("7").unwrap();
    desk.edit("7", map(json!({ "webhooks": null })), None, ann()).unwrap();
    let shown = serde_json::to_string(&desk.history("7").unwrap()).unwrap();
    assert!(!format!("{shown}{:?}{:?}", desk.list(), desk.history("7")).contains("hush"), "{shown}");
    assert!(shown.contains("(not shown)"));
    desk.revert("7", 2, ann()).unwrap();
    assert_eq!(desk.apps().by_id("7").unwrap().webhooks, before.webhooks);
}

/// OPS-32
#[test]
fn of_two_apps_with_one_name_the_configured_one_is_served_and_the_other_says_why_not() {
    let folder = Folder::new("clash");
    folder.desk(&[]).add(map(json!({ "id": "7", "key": "k" })), ann()).unwrap();
    let mut desk = folder.desk(&["7:other:s"]);
    assert_eq!(desk.apps().by_id("7").unwrap().key.as_str(), "other");
    assert_eq!(desk.problems().len(), 1);
    assert_eq!(desk.show("7").unwrap().source, "configuration");
    assert!(desk.list().iter().any(|v| v.source == "registry" && v.problem.as_ref().unwrap().contains("id")));
    desk.remove("7", ann()).unwrap();
    assert_eq!(desk.problems(), []);
    assert_eq!(desk.apps().by_id("7").unwrap().key.as_str(), "other");
}

/// OPS-32
#[test]
fn a_store_that_another_node_has_is_said_and_the_configured_apps_are_served() {
    let folder = Folder::new("in-use");
    let _first = folder.desk(&[]);
    let mut second = folder.desk(&["7:k:s"]);
    assert!(second.apps().by_id("7").is_some());
    let error = second.add(Map::new(), ann()).unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
}

/// OPS-30
#[test]
fn the_history_of_an_app_is_bounded_and_the_newest_stay() {
    let folder = Folder::new("bounded");
    let mut desk = folder.desk(&[]);
    desk.add(map(json!({ "id": "7" })), ann()).unwrap();
    for n in 1..=120 {
        desk.edit("7", map(json!({ "max_connections": n })), None, ann()).unwrap();
    }
    let history = desk.history("7").unwrap();
    assert_eq!(history.len(), crate::registry::stored::REVISIONS_MAX);
    assert_eq!(history.last().unwrap().revision, 121);
    drop(desk);
    let desk = folder.desk(&[]);
    assert_eq!(desk.apps().by_id("7").unwrap().limits.max_connections, Some(120));
}
