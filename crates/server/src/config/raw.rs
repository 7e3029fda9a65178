//! What was written: file, environment and flags, read into one map of values that remember where they stand.
//!
//! Every value in a [`RawConfig`] has the type and range of its key; what had not is a finding instead, and reading
//! goes on, so that all mistakes come out at once. What the values mean together is not decided here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::FileReader;
use super::finding::{Finding, Place, Weight, What};
use super::keys::{Class, KEYS, Key, key};
use super::suggest::nearest;
use super::value::{Value, from_text};

/// Variables of the client commands. A node does not read them and does not call them unknown.
pub const CLIENT_VARIABLES: &[&str] = &[
    "FULMAR_APP",
    "FULMAR_HOST",
    "FULMAR_PORT",
    "FULMAR_TLS",
    "FULMAR_CA",
    "FULMAR_ADMIN_URL",
    "FULMAR_ADMIN_TOKEN",
    "FULMAR_ADMIN_TOKEN_FILE",
];

const CONFIG_VARIABLE: &str = "FULMAR_CONFIG";
const APPS_VARIABLE: &str = "FULMAR_APPS";
const APP_FLAG: &str = "--app";
const SET_FLAG: &str = "--set";

/// Where a configuration is read from. Kept, so that a changed file is read again under the same flags and variables.
#[derive(Clone, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    environment: Vec<(String, OsString)>,
    flags: Vec<(&'static Key, String)>,
    apps: Vec<String>,
    set: Vec<String>,
}

impl Sources {
    /// Nothing written anywhere: the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The configuration file. Wins over `FULMAR_CONFIG`.
    #[must_use]
    pub fn with_file(mut self, file: Option<PathBuf>) -> Self {
        self.file = file.or(self.file);
        self
    }

    /// Takes the variables that begin with `FULMAR_`. An empty variable counts as not set: that is what container
    /// tools make of a missing value.
    #[must_use]
    pub fn with_environment(mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let ours = variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        self.environment = ours.filter(|(n, v)| n.starts_with("FULMAR_") && !v.is_empty()).collect();
        self.environment.sort();
        let named = self.environment.iter().find(|(n, _)| n == CONFIG_VARIABLE).map(|(_, v)| PathBuf::from(v));
        self.file = self.file.or(named);
        self
    }

    /// A flag with the effect of the key at `path`.
    ///
    /// # Panics
    /// When the table has no such key, or the key has no flag: a mistake of the caller, not of a user.
    #[must_use]
    pub fn with_flag(mut self, path: &str, value: Option<String>) -> Self {
        let key = key(path).filter(|k| k.flag.is_some()).expect("the caller names a key that has a flag");
        self.flags.extend(value.map(|v| (key, v)));
        self
    }

    /// Values of `--app`, each `ID:KEY:SECRET`.
    #[must_use]
    pub fn with_apps(mut self, apps: Vec<String>) -> Self {
        self.apps = apps;
        self
    }

    /// Values of `--set`, each `SECTION.KEY=VALUE`.
    #[must_use]
    pub fn with_set(mut self, set: Vec<String>) -> Self {
        self.set = set;
        self
    }

    /// The configuration file that is read, if any.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

impl fmt::Debug for Sources {
    /// Names only: values can be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("environment", &self.environment.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("flags", &self.flags.iter().map(|(key, _)| key.flag).collect::<Vec<_>>())
            .field("apps", &self.apps.len())
            .field("set", &self.set.len())
            .finish()
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub value: Value,
    pub place: Place,
}

/// The keys of one section or app that were written.
pub(super) type Settings = BTreeMap<&'static str, Written>;

/// One app as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawApp {
    pub place: Place,
    pub settings: Settings,
}

/// What was written, checked value by value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RawConfig {
    /// By path; keys that were not written are absent.
    pub settings: Settings,
    pub apps: Vec<RawApp>,
}

/// A reading of all sources.
pub(super) struct Reading {
    pub raw: RawConfig,
    pub findings: Vec<Finding>,
    /// Changes with the content of any file that was read.
    pub fingerprint: u64,
    /// The files whose content matters: the configuration file and those it takes secrets from.
    pub files: Vec<PathBuf>,
}

/// Reads all sources: the file, over it the environment, over that the flags.
pub(super) fn read(sources: &Sources) -> Reading {
    let mut reader = Reader::default();
    if let Some(path) = &sources.file {
        reader.file(path);
    }
    for (name, value) in &sources.environment {
        reader.variable(name, value);
    }
    for (key, value) in &sources.flags {
        let flag = key.flag.expect("Sources takes only keys that have a flag");
        reader.text(key, value, Place::Flag(flag), key.path);
    }
    for assignment in &sources.set {
        reader.assignment(assignment);
    }
    for app in &sources.apps {
        reader.whole_app(app, Place::Flag(APP_FLAG));
    }
    reader.secret_files();
    reader.misplaced_variables(&sources.environment);
    Reading { raw: reader.raw, findings: reader.findings, fingerprint: reader.hasher.finish(), files: reader.files }
}

/// The fingerprint that [`read`] would find if it read these files now.
pub(super) fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in files {
        add_to_fingerprint(&mut hasher, &std::fs::read(path));
    }
    hasher.finish()
}

fn add_to_fingerprint(hasher: &mut DefaultHasher, content: &io::Result<Vec<u8>>) {
    match content {
        Ok(bytes) => bytes.hash(hasher),
        Err(e) => e.kind().hash(hasher),
    }
}

#[derive(Default)]
pub(super) struct Reader {
    pub raw: RawConfig,
    pub findings: Vec<Finding>,
    hasher: DefaultHasher,
    files: Vec<PathBuf>,
}

impl Reader {
    fn file(&mut self, path: &Path) {
        let content = std::fs::read(path);
        self.files.push(path.to_owned());
        add_to_fingerprint(&mut self.hasher, &content);
        let shared: Arc<Path> = path.into();
        let whole = Place::File { path: shared.clone(), line: 0 };
        let text = content.map_err(|e| e.to_string()).and_then(|c| String::from_utf8(c).map_err(|e| e.to_string()));
        match text {
            Ok(text) => FileReader { reader: self, text: &text, path: shared }.read(),
            Err(why) => self.findings.push(Finding::refuses(whole, "", What::Unreadable(why))),
        }
    }

    fn variable(&mut self, name: &str, value: &OsString) {
        let place = Place::Variable(name.to_owned());
        let Some(text) = value.to_str() else {
            let what = What::Breaks("is not valid UTF-8");
            return self.findings.push(Finding::refuses(place, name, what));
        };
        if let Some(key) = KEYS.iter().find(|k| k.variable().is_some_and(|v| v == name)) {
            return self.text(key, text, place, name);
        }
        match name {
            APPS_VARIABLE => text.split_whitespace().for_each(|app| self.whole_app(app, place.clone())),
            CONFIG_VARIABLE => {}
            _ if CLIENT_VARIABLES.contains(&name) || is_service_link(name, text) => {}
            _ => {
                let known: Vec<String> = KEYS.iter().filter_map(Key::variable).collect();
                let also = [CONFIG_VARIABLE, APPS_VARIABLE];
                let meant = nearest(name, known.iter().map(String::as_str).chain(also)).map(str::to_owned);
                self.findings.push(Finding::unknown(place, name, meant));
            }
        }
    }

    fn assignment(&mut self, assignment: &str) {
        let place = Place::Flag(SET_FLAG);
        let Some((path, value)) = assignment.split_once('=') else {
            let what = What::Breaks("must be SECTION.KEY=VALUE");
            return self.findings.push(Finding::refuses(place, "", what));
        };
        match key(path).filter(|k| k.section() != "apps") {
            Some(key) => self.text(key, value, place, path),
            // Unlike a file, a command line is never that of another release: a key that is not known is a slip.
            None => {
                let known = KEYS.iter().filter(|k| k.section() != "apps").map(|k| k.path);
                let what = What::Unknown { nearest: nearest(path, known).map(str::to_owned) };
                self.findings.push(Finding::refuses(place, path, what));
            }
        }
    }

    /// A value given as text. `called` is what its author calls the key: a variable's name, or the path.
    fn text(&mut self, key: &'static Key, text: &str, place: Place, called: &str) {
        match from_text(key, text) {
            Ok(value) => {
                self.raw.settings.insert(key.path, Written { value, place });
            }
            Err(what) => self.findings.push(bad_value(key, place, called, what)),
        }
    }

    /// An app in one word, with every feature on. Replaces an app of the same id from the file.
    fn whole_app(&mut self, text: &str, place: Place) {
        let parts: Vec<&str> = text.splitn(3, ':').collect();
        let &[id, key, secret] = parts.as_slice() else {
            // The text is not repeated: what is malformed may still be a secret.
            let what = What::Breaks("must be ID:KEY:SECRET");
            return self.findings.push(Finding::refuses(place, "", what));
        };
        let mut settings = Settings::new();
        for (path, text) in [
            ("apps.id", id),
            ("apps.key", key),
            ("apps.secret", secret),
            ("apps.client_events", "true"),
            ("apps.subscription_counts", "true"),
            ("apps.watchlist", "true"),
        ] {
            let key = self::key(path).expect("the table has the keys of an app");
            match from_text(key, text) {
                Ok(value) => {
                    settings.insert(path, Written { value, place: place.clone() });
                }
                Err(what) => {
                    self.findings.push(bad_value(key, place.clone(), path, what));
                    settings.insert(path, refused(place.clone()));
                }
            }
        }
        self.raw.apps.retain(|app| app.settings.get("apps.id").is_none_or(|w| w.value != Value::Text(id.to_owned())));
        self.raw.apps.push(RawApp { place, settings });
    }

    /// Somebody who sets `FULMAR_PORT` for a node means well, and would look for the reason for a long time.
    fn misplaced_variables(&mut self, environment: &[(String, OsString)]) {
        let no_app = self.raw.apps.is_empty();
        let unwritten = |path, text: &OsString| {
            !self.raw.settings.contains_key(path)
                && key(path).is_some_and(|k| *text != *k.preset_text().trim_matches('"'))
        };
        for (name, text) in environment {
            let (misplaced, instead) = match name.as_str() {
                "FULMAR_HOST" => (unwritten("server.host", text), "FULMAR_SERVER__HOST"),
                "FULMAR_PORT" => (unwritten("server.port", text), "FULMAR_SERVER__PORT"),
                "FULMAR_APP" => (no_app, APPS_VARIABLE),
                _ => continue,
            };
            if misplaced && !is_service_link(name, &text.to_string_lossy()) {
                let place = Place::Variable(name.clone());
                self.findings.push(Finding::advice(place, name, What::ClientVariable(instead)));
            }
        }
    }

    /// Puts the content of `secret_file` where a written `secret` would be.
    fn secret_files(&mut self) {
        let mut apps = std::mem::take(&mut self.raw.apps);
        for app in &mut apps {
            self.secret_file(&mut app.settings, "apps.secret_file", "apps.secret");
            self.secret_file(&mut app.settings, "apps.previous_secret_file", "apps.previous_secret");
        }
        self.raw.apps = apps;
        let mut settings = std::mem::take(&mut self.raw.settings);
        for secret in ["admin.token", "backbone.password", "backbone.sentinel_password"] {
            self.secret_file(&mut settings, &format!("{secret}_file"), secret);
        }
        self.raw.settings = settings;
    }

    fn secret_file(&mut self, settings: &mut Settings, file_path: &str, secret_path: &str) {
        let Some(Written { value: Value::Path(path), place }) = settings.get(file_path).cloned() else { return };
        let (file_key, secret_key) =
            (key(file_path).expect("the table has it"), key(secret_path).expect("the table has it"));
        if settings.contains_key(secret_path) {
            return self.findings.push(bad_value(file_key, place, file_path, What::Excludes(secret_key.name())));
        }
        let content = std::fs::read(&path);
        add_to_fingerprint(&mut self.hasher, &content);
        self.files.push(path.clone());
        let what = match content.map(String::from_utf8) {
            Ok(Ok(text)) if !text.trim_end_matches(['\r', '\n']).is_empty() => {
                let value = Value::Secret(text.trim_end_matches(['\r', '\n']).to_owned());
                settings.insert(secret_key.path, Written { value, place });
                return;
            }
            Ok(Ok(_)) => What::Breaks("names a file that is empty"),
            Ok(Err(_)) => What::Breaks("names a file that is not text"),
            Err(e) => What::Unreadable(format!("{}: {e}", path.display())),
        };
        self.findings.push(bad_value(file_key, place.clone(), file_path, what));
        settings.insert(secret_key.path, refused(place));
    }
}

/// Stands where a value was refused that every app needs, so that it is not reported as missing as well.
pub(super) fn refused(place: Place) -> Written {
    Written { value: Value::Unset, place }
}

/// Kubernetes tells every container about every service of its namespace in variables of these forms; a service called
/// `fulmar` must not make a node complain about its own environment.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let with_protocol = || {
        let (_, rest) = name.rsplit_once("_PORT_")?;
        let (port, protocol) = rest.split_once('_')?;
        let protocol = protocol.split('_').next()?;
        Some(port.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].contains(&protocol))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && is_url)
        || with_protocol().unwrap_or(false)
}

pub(super) fn bad_value(key: &Key, place: Place, called: &str, what: What) -> Finding {
    let weight = if key.class == Class::Soft { Weight::FallsBack } else { Weight::Refuses };
    Finding { place, key: called.to_owned(), what, weight }
}
