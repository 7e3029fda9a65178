//! Where apps come from: the configuration file, and a store that is written to while the node runs.
//!
//! [`Registry`] is what both are; [`Desk`] puts them together, lets nothing through that the configuration file would
//! refuse, and hands the result to everybody on the node. Secrets go in here and come out once: in the answer to the
//! change that made them. Reading order: this file, [`stored`], [`desk`].

pub mod desk;
pub mod file;
pub mod stored;

mod generate;

use std::fmt;

use fulmar_protocol::app::{AppId, AppKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{KEYS, WrittenApp, read_app};

pub use desk::{Desk, DeskError};
pub use file::FileApps;
pub use stored::StoredApps;

pub(crate) use generate::hex as random_hex;

/// One place where apps are kept.
pub trait Registry: Send {
    /// What people call it.
    fn name(&self) -> String;

    /// The apps it keeps, each as it stands.
    fn kept(&self) -> Vec<Kept>;

    /// Puts a change in place, durably, with its revision. All or nothing.
    ///
    /// # Errors
    /// When this place is not written to, or the change cannot be kept; then everything is as before.
    fn put(&mut self, change: Change) -> Result<(), PutError>;

    /// What was done to an app, the newest last; empty where no history is kept.
    ///
    /// # Errors
    /// When it cannot be read.
    fn history(&self, id: &str) -> Result<Vec<Revision>, PutError>;
}

/// An app in a registry.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// How often it was changed; `None` where nobody counts.
    pub revision: Option<u64>,
    /// The settings as written, where they can be changed.
    pub settings: Settings,
    /// What they mean, or why they cannot be used.
    pub read: Result<WrittenApp, String>,
}

/// Settings as they were written, by their names in `[[apps]]`. Never prints the secrets among them.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(Map<String, Value>);

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown().fmt(f)
    }
}

impl From<Map<String, Value>> for Settings {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

impl Settings {
    /// All but the secrets.
    #[must_use]
    pub fn public(&self) -> Map<String, Value> {
        self.0.iter().filter(|(name, _)| !is_secret(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    /// All that people may see: no secrets, and no values of webhook headers, where people put tokens.
    #[must_use]
    pub fn shown(&self) -> Map<String, Value> {
        let mut shown = self.public();
        hide_headers(&mut shown);
        shown
    }

    /// The secrets and nothing else.
    #[must_use]
    fn secrets(&self) -> Map<String, Value> {
        self.0.iter().filter(|(name, _)| is_secret(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    /// What they mean.
    ///
    /// # Errors
    /// Everything that is wrong with them, in the words of the configuration file.
    pub fn read(&self) -> Result<WrittenApp, String> {
        let (written, findings) = read_app(&self.0);
        let said = || findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        written.ok_or_else(said)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }
}

/// Takes the values of webhook headers out of what is shown.
fn hide_headers(settings: &mut Map<String, Value>) {
    let endpoints = settings.get_mut("webhooks").and_then(Value::as_array_mut);
    let headers = endpoints.into_iter().flatten().filter_map(|endpoint| endpoint.get_mut("headers")?.as_object_mut());
    for value in headers.flat_map(Map::values_mut) {
        *value = "(not shown)".into();
    }
}

/// Whether a key of `[[apps]]` holds a secret. One that is not known here may come from a later release, so it counts as
/// one: it is kept, and not shown.
fn is_secret(name: &str) -> bool {
    KEYS.iter().find(|key| key.section() == "apps" && key.name() == name).is_none_or(|key| key.is_secret())
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// A new app.
    Add,
    /// Other settings.
    Edit,
    /// Switched off.
    Disable,
    /// Switched on.
    Enable,
    /// Gone; can be reverted.
    Remove,
    /// A new secret beside the one from before.
    KeysRotate,
    /// One of two secrets is gone.
    KeysRetire,
    /// Settings of an earlier revision.
    Revert,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Edit => "edit",
            Self::Disable => "disable",
            Self::Enable => "enable",
            Self::Remove => "remove",
            Self::KeysRotate => "keys-rotate",
            Self::KeysRetire => "keys-retire",
            Self::Revert => "revert",
        })
    }
}

/// Who does something, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// As they call themselves.
    pub who: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// A change to one app.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which app.
    pub id: String,
    /// The settings from now on; `None` removes the app.
    pub settings: Option<Settings>,
    /// What it is to be remembered as.
    pub revision: Revision,
}

/// One line of an app's history. Holds no secret of the app: what was retired once never comes back.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Counted from 1 for each id.
    pub revision: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Who did it.
    pub who: String,
    /// What was done.
    pub verb: Verb,
    /// Names of the settings that are different from before.
    pub changed: Vec<String>,
    /// The settings after it; those of a removed app are the last it had.
    pub settings: Map<String, Value>,
}

impl Revision {
    /// As people may see it.
    #[must_use]
    pub fn shown(mut self) -> Self {
        hide_headers(&mut self.settings);
        self
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({} {} {:?} by {:?})", self.revision, self.verb, self.changed, self.who)
    }
}

/// Why a registry did not take a change.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// It is not written to from here.
    #[error("apps of {0} are changed there; a running node takes the change over by itself")]
    ReadOnly(String),
    /// There are as many apps as may be.
    #[error("the registry holds {max} apps, which is as many as it may")]
    Full {
        /// The limit.
        max: usize,
    },
    /// The disk, or the file.
    #[error("the registry cannot be used: {0}")]
    Broken(#[from] stored::StoreError),
}

/// Id and key by which apps must differ.
pub(crate) fn names(app: &WrittenApp) -> (&AppId, &AppKey) {
    (&app.app.id, &app.app.key)
}
