//! Files that change while a node runs.

use std::fs;

use fulmar_protocol::app::App;
use fulmar_server::config::{ConfigWatch, Refused, Sources, load};

use crate::Folder;

const ONE_APP: &str = "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n";

/// Looks until the watch has seen the new content twice.
fn take_over(watch: &mut ConfigWatch) -> Result<fulmar_server::config::Reload, Refused> {
    assert!(watch.look().is_none(), "content that may still be being written was taken");
    watch.look().expect("changed content is taken at the second look")
}

/// OPS-6
#[test]
fn a_changed_file_changes_apps_and_reloadable_limits_and_nothing_else() {
    let folder = Folder::new("reload");
    let text = format!("[server]\nport = 7001\n[limits]\nrequest_timeout_ms = 500\n{ONE_APP}");
    let file = folder.write("fulmar.toml", &text);
    let sources = Sources::new().with_file(Some(file)).with_apps(vec!["9:k9:s9".to_owned()]);
    let loaded = load(sources.with_flag("tls.port", None)).unwrap();
    let mut watch = ConfigWatch::new(&loaded);
    assert!(watch.look().is_none() && watch.look().is_none(), "nothing has changed");

    let changed = text.replace("7001", "7002").replace("= 500", "= 600") + "client_events = true\nunknown = 1\n";
    folder.write("fulmar.toml", &changed);
    let reload = take_over(&mut watch).unwrap();
    assert_eq!(reload.changed, ["limits.request_timeout_ms", "apps"]);
    assert_eq!(reload.needs_restart, ["server.port"]);
    assert_eq!(reload.findings.len(), 1, "the unknown key");
    assert_eq!(reload.config.server, loaded.config.server);
    assert_eq!(reload.config.limits.request_timeout.as_millis(), 600);
    assert!(reload.config.apps[0].client_events);
    assert_eq!(reload.config.apps[1], App::new("9", "k9", "s9"), "flags still apply");
    assert!(watch.look().is_none() && watch.look().is_none(), "once is enough");

    let again = watch.reload().unwrap();
    assert_eq!(again.changed, [""; 0]);
    assert_eq!(again.needs_restart, ["server.port"], "still waiting");
}

/// OPS-7
#[test]
fn a_broken_file_changes_nothing_and_is_reported_once() {
    let folder = Folder::new("broken");
    let file = folder.write("fulmar.toml", ONE_APP);
    let loaded = load(Sources::new().with_file(Some(file.clone()))).unwrap();
    let mut watch = ConfigWatch::new(&loaded);
    folder.write("fulmar.toml", &format!("{ONE_APP}channel_name_max = 999\n[server]\nport = \"x\"\n"));
    let refused = take_over(&mut watch).unwrap_err();
    assert_eq!(refused.findings.len(), 2, "also what would only matter after a restart: {refused}");
    assert!(watch.look().is_none() && watch.look().is_none(), "not said again");
    fs::remove_file(&file).unwrap();
    assert!(take_over(&mut watch).unwrap_err().to_string().contains("cannot be read"));
    folder.write("fulmar.toml", ONE_APP);
    let reload = take_over(&mut watch).unwrap();
    assert_eq!((reload.changed, reload.config.apps), (vec![], loaded.config.apps));
}

/// OPS-7
#[test]
fn an_emptied_file_does_not_put_the_demo_app_in_the_place_of_the_apps() {
    let folder = Folder::new("emptied");
    let file = folder.write("fulmar.toml", ONE_APP);
    let mut watch = ConfigWatch::new(&load(Sources::new().with_file(Some(file))).unwrap());
    folder.write("fulmar.toml", "");
    let refused = take_over(&mut watch).unwrap_err();
    assert!(refused.to_string().contains("leaves no app at all"), "{refused}");
    folder.write("fulmar.toml", "[demo]\nenabled = false\n");
    assert_eq!(take_over(&mut watch).unwrap().config.apps, []);
}

/// OPS-6, OPS-25
#[test]
fn a_secret_file_that_changes_is_a_change_too() {
    let folder = Folder::new("rotate");
    folder.write("secret", "before\n");
    let file = folder.write("fulmar.toml", "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret_file = \"secret\"\n");
    let mut watch = ConfigWatch::new(&load(Sources::new().with_file(Some(file))).unwrap());
    folder.write("secret", "after\n");
    let reload = take_over(&mut watch).unwrap();
    assert_eq!(reload.changed, ["apps"]);
    assert_eq!(reload.config.apps[0].secret.expose(), b"after");
}
