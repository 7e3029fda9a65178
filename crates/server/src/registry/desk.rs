//! Where apps are changed: one desk per node, one change at a time.
//!
//! Everything the node serves passes here: the apps of the configuration and those of the store, checked against each
//! other. Of two apps with one id or one key that of the configuration is served, and the other shows with its problem:
//! a store must never stop a node. Answers name no secret but the one that a change has just made.

use std::io;
use std::sync::Arc;

use fulmar_protocol::app::App;
use serde_json::{Map, Value};

use super::generate;
use super::{
    Author, Change, FileApps, Kept, PutError, Registry, Revision, Settings, StoredApps, Verb, is_secret, names,
};
use crate::apps::{Apps, Changes};
use crate::config::{Config, KEYS, Weight, WrittenApp, read_app};

/// Tries for an id that no app has yet.
const ID_TRIES: usize = 20;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// No app of that id.
    #[error("there is no app {0}")]
    NotFound(String),
    /// Another app has it.
    #[error("{what} {value} is already used by an app of {place}")]
    Taken {
        /// `id` or `key`.
        what: &'static str,
        /// Which.
        value: String,
        /// Where that app is kept.
        place: String,
    },
    /// The configuration file would refuse it too.
    #[error("{0}")]
    Invalid(String),
    /// A setting that is not changed in this way.
    #[error("{key} is not edited: {instead}")]
    NotEdited {
        /// Which.
        key: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// Somebody else was faster.
    #[error("the app has been changed meanwhile: it is at revision {present}")]
    Stale {
        /// Where it is.
        present: u64,
    },
    /// A third secret would throw away one that is still in use.
    #[error("two secrets verify already: retire the one from before first (keys retire)")]
    RotationPending,
    /// There is one secret.
    #[error("only one secret verifies: there is nothing to retire")]
    NothingToRetire,
    /// The history does not go back that far, or not that far forward.
    #[error("there is no revision {revision} of app {id}")]
    NoRevision {
        /// The app.
        id: String,
        /// What was asked for.
        revision: u64,
    },
    /// The node has no store.
    #[error("this node cannot keep apps: {0}")]
    NoStore(String),
    /// The registry did not take it.
    #[error(transparent)]
    Put(#[from] PutError),
    /// No random numbers.
    #[error("the random source: {0}")]
    Random(#[from] io::Error),
}

/// An app as it shows.
#[derive(Debug, Clone)]
pub struct View {
    /// Its id.
    pub id: String,
    /// `configuration`, `demo` or `registry`.
    pub source: &'static str,
    /// How often it was changed, if that is counted.
    pub revision: Option<u64>,
    /// Why it is not served, although it is kept.
    pub problem: Option<String>,
    /// Secrets that verify today: 1, or 2 during a rotation.
    pub secrets: usize,
    /// Its settings in effect, or as written where they cannot be used. No secrets.
    pub settings: Map<String, Value>,
}

/// A change that was made.
#[derive(Debug)]
pub struct Done {
    /// The app concerned.
    pub id: String,
    /// What was done.
    pub verb: Verb,
    /// The revision it is at now.
    pub revision: u64,
    /// Names of the settings that are different; none when everything was so already.
    pub changed: Vec<String>,
    /// The secret that was made. It is shown this once.
    pub secret: Option<String>,
    /// What it changed for the node.
    pub changes: Changes,
}

/// The desk.
pub struct Desk {
    configured: FileApps,
    demo: Option<App>,
    demo_is_default: bool,
    store: Result<StoredApps, String>,
    apps: Arc<Apps>,
    problems: Vec<(String, String)>,
}

impl Desk {
    /// Serves the apps of a configuration and of a store, or why there is no store.
    #[must_use]
    pub fn new(config: &Config, shown: Vec<Map<String, Value>>, store: Result<StoredApps, String>) -> Self {
        let mut desk = Self {
            configured: FileApps::default(),
            demo: None,
            demo_is_default: true,
            store,
            apps: Arc::new(Apps::new(Vec::new())),
            problems: Vec::new(),
        };
        desk.configure(config, shown);
        desk
    }

    /// The apps served, for everybody on the node.
    #[must_use]
    pub fn apps(&self) -> &Arc<Apps> {
        &self.apps
    }

    /// The demo app, while it is on. Kept apps turn it off, as configured ones do, unless somebody asked for it.
    #[must_use]
    pub fn demo(&self) -> Option<&App> {
        self.demo.as_ref().filter(|_| !(self.demo_is_default && self.has_stored()))
    }

    /// Whether apps are kept that are not configured.
    #[must_use]
    pub fn has_stored(&self) -> bool {
        self.store.as_ref().is_ok_and(|store| !store.is_empty())
    }

    /// Why there is no store, if there is none.
    #[must_use]
    pub fn no_store(&self) -> Option<&str> {
        self.store.as_ref().err().map(String::as_str)
    }

    /// Apps that are kept and not served, each with the reason.
    #[must_use]
    pub fn problems(&self) -> &[(String, String)] {
        &self.problems
    }

    /// Takes over another configuration.
    pub fn configure(&mut self, config: &Config, shown: Vec<Map<String, Value>>) -> Changes {
        self.configured = FileApps::new(&config.apps, shown);
        (self.demo, self.demo_is_default) = (config.demo.clone(), config.demo_is_default);
        self.serve()
    }

    /// All apps, by id.
    #[must_use]
    pub fn list(&self) -> Vec<View> {
        let mut views: Vec<View> =
            self.configured.kept().into_iter().map(|kept| self.view(kept, "configuration")).collect();
        views.extend(self.demo().map(|demo| View {
            id: demo.id.to_string(),
            source: "demo",
            revision: None,
            problem: None,
            secrets: 1,
            settings: Map::from_iter([
                ("id".to_owned(), demo.id.as_str().into()),
                ("key".to_owned(), demo.key.as_str().into()),
                ("enabled".to_owned(), true.into()),
            ]),
        }));
        views.extend(self.stored().into_iter().map(|kept| self.view(kept, "registry")));
        views.sort_by(|a, b| (a.id.len(), &a.id).cmp(&(b.id.len(), &b.id)));
        views
    }

    /// One app. One that is served goes before one that is only kept.
    ///
    /// # Errors
    /// [`DeskError::NotFound`].
    pub fn show(&self, id: &str) -> Result<View, DeskError> {
        let mut found = self.list();
        found.retain(|view| view.id == id);
        found.sort_by_key(|view| view.problem.is_some());
        found.into_iter().next().ok_or_else(|| DeskError::NotFound(id.to_owned()))
    }

    /// What was done to an app, removed ones included; the newest last.
    ///
    /// # Errors
    /// When nothing was ever kept under this id, or it cannot be read.
    pub fn history(&self, id: &str) -> Result<Vec<Revision>, DeskError> {
        let revisions = self.store.as_ref().map_or_else(|_| Ok(Vec::new()), |store| store.history(id))?;
        if revisions.is_empty() {
            self.show(id)?;
        }
        Ok(revisions.into_iter().map(Revision::shown).collect())
    }

    /// A new app. Id, key and secret are made where none are given.
    ///
    /// # Errors
    /// When the configuration file would refuse it, or another app has its id or key.
    pub fn add(&mut self, mut settings: Map<String, Value>, author: Author) -> Result<Done, DeskError> {
        settings.retain(|_, value| !value.is_null());
        if !settings.contains_key("id") {
            settings.insert("id".to_owned(), self.free_id()?.into());
        }
        if !settings.contains_key("key") {
            settings.insert("key".to_owned(), generate::key()?.into());
        }
        let made = if settings.contains_key("secret") { None } else { Some(generate::secret()?) };
        settings.extend(made.clone().map(|secret| ("secret".to_owned(), secret.into())));
        let settings = Settings::from(settings);
        let id = self.judge(None, &settings)?.app.id.to_string();
        let store = self.store.as_ref().map_err(|why| DeskError::NoStore(why.clone()))?;
        let before = store.removed(&id).map_or(0, |(_, revision)| revision);
        let done = self.put(id, Verb::Add, before, &Settings::default(), Some(settings), author)?;
        Ok(Done { secret: made, ..done })
    }

    /// Other settings; `null` takes one back to its default. `expected` is the revision the caller has seen.
    ///
    /// # Errors
    /// When the configuration file would refuse the result, or the app has changed since.
    pub fn edit(
        &mut self,
        id: &str,
        patch: Map<String, Value>,
        expected: Option<u64>,
        author: Author,
    ) -> Result<Done, DeskError> {
        for (key, instead) in [
            ("id", "add another app and remove this one"),
            ("secret", "rotate it (keys rotate)"),
            ("previous_secret", "rotate and retire (keys rotate, keys retire)"),
        ] {
            if patch.contains_key(key) {
                return Err(DeskError::NotEdited { key, instead });
            }
        }
        let (before, revision) = self.changeable(id)?;
        if let Some(present) = expected.and(Some(revision)).filter(|present| Some(*present) != expected) {
            return Err(DeskError::Stale { present });
        }
        let mut after = before.0.clone();
        for (name, value) in patch {
            if value.is_null() {
                after.remove(&name);
            } else {
                after.insert(name, value);
            }
        }
        let is_enabled = |settings: &Map<String, Value>| settings.get("enabled") != Some(&Value::Bool(false));
        let verb = match (is_enabled(&before.0), is_enabled(&after)) {
            (true, false) => Verb::Disable,
            (false, true) => Verb::Enable,
            _ => Verb::Edit,
        };
        let after = Settings(after);
        self.judge(Some(id), &after)?;
        self.put(id.to_owned(), verb, revision, &before, Some(after), author)
    }

    /// Serves an app no longer. Until many others were removed after it, it can be reverted.
    ///
    /// # Errors
    /// When there is none that is changed here.
    pub fn remove(&mut self, id: &str, author: Author) -> Result<Done, DeskError> {
        let (before, revision) = self.changeable(id)?;
        self.put(id.to_owned(), Verb::Remove, revision, &before, None, author)
    }

    /// A new secret, made here unless one is given. The one from before verifies as well, until it is retired.
    ///
    /// # Errors
    /// While the last rotation is not over.
    pub fn rotate(&mut self, id: &str, given: Option<String>, author: Author) -> Result<Done, DeskError> {
        let (before, revision) = self.changeable(id)?;
        if before.0.contains_key("previous_secret") {
            return Err(DeskError::RotationPending);
        }
        let made = if given.is_none() { Some(generate::secret()?) } else { None };
        let secret = given.or_else(|| made.clone()).unwrap_or_default();
        let mut after = before.0.clone();
        if let Some(previous) = after.insert("secret".to_owned(), secret.into()) {
            after.insert("previous_secret".to_owned(), previous);
        }
        let after = Settings(after);
        self.judge(Some(id), &after)?;
        let done = self.put(id.to_owned(), Verb::KeysRotate, revision, &before, Some(after), author)?;
        Ok(Done { secret: made, ..done })
    }

    /// Ends a rotation: the secret from before verifies no longer. Or undoes one: then it is the new secret that goes.
    ///
    /// # Errors
    /// When there is no rotation to end.
    pub fn retire(&mut self, id: &str, the_new_one: bool, author: Author) -> Result<Done, DeskError> {
        let (before, revision) = self.changeable(id)?;
        let mut after = before.0.clone();
        let previous = after.remove("previous_secret").ok_or(DeskError::NothingToRetire)?;
        if the_new_one {
            after.insert("secret".to_owned(), previous);
        }
        self.put(id.to_owned(), Verb::KeysRetire, revision, &before, Some(Settings(after)), author)
    }

    /// The settings of an earlier revision, for a removed app too. Secrets stay as they are: one that was retired, for
    /// whatever reason, does not come back.
    ///
    /// # Errors
    /// When there is no such revision, or its settings are refused today.
    pub fn revert(&mut self, id: &str, to: u64, author: Author) -> Result<Done, DeskError> {
        let store = self.store.as_ref().map_err(|why| DeskError::NoStore(why.clone()))?;
        let removed = store.removed(id).map(|(settings, revision)| (settings.clone(), revision));
        let is_present = removed.is_none();
        let (before, revision) = removed.map_or_else(|| self.changeable(id), Ok)?;
        let missing = || DeskError::NoRevision { id: id.to_owned(), revision: to };
        let target = store.history(id)?.into_iter().find(|r| r.revision == to).ok_or_else(missing)?;
        let mut after = before.secrets();
        after.extend(target.settings);
        let after = Settings(after);
        self.judge(is_present.then_some(id), &after)?;
        self.put(id.to_owned(), Verb::Revert, revision, &before, Some(after), author)
    }

    fn stored(&self) -> Vec<Kept> {
        self.store.as_ref().map(Registry::kept).unwrap_or_default()
    }

    /// An app that can be changed here: its settings and its revision.
    fn changeable(&self, id: &str) -> Result<(Settings, u64), DeskError> {
        if let Some(kept) = self.stored().into_iter().find(|kept| kept.id == id) {
            return Ok((kept.settings, kept.revision.unwrap_or(0)));
        }
        let is_demo = self.demo().is_some_and(|demo| demo.id.as_str() == id);
        if is_demo || self.configured.kept().iter().any(|kept| kept.id == id) {
            return Err(PutError::ReadOnly(self.configured.name()).into());
        }
        Err(DeskError::NotFound(id.to_owned()))
    }

    /// Holds settings to the rules of the configuration file, and to those of one node: ids and keys are unique.
    fn judge(&self, own_id: Option<&str>, settings: &Settings) -> Result<WrittenApp, DeskError> {
        let (written, findings) = read_app(&settings.0);
        let bad: Vec<String> =
            findings.iter().filter(|f| f.weight != Weight::Advice).map(ToString::to_string).collect();
        let written = written.filter(|_| bad.is_empty()).ok_or_else(|| DeskError::Invalid(bad.join("; ")))?;
        let (id, key) = names(&written);
        let taken = |what, value: &str, place: String| DeskError::Taken { what, value: value.to_owned(), place };
        let configured = self.configured.kept();
        let configured = configured.iter().filter_map(|kept| kept.read.as_ref().ok()).map(names);
        let demo = self.demo.as_ref().filter(|_| !self.demo_is_default).map(|demo| (&demo.id, &demo.key));
        for (other_id, other_key) in configured.chain(demo) {
            if other_id == id {
                return Err(taken("id", id.as_str(), self.configured.name()));
            }
            if other_key == key {
                return Err(taken("key", key.as_str(), self.configured.name()));
            }
        }
        for other in self.stored().iter().filter(|other| Some(other.id.as_str()) != own_id) {
            let place = || self.store.as_ref().map(Registry::name).unwrap_or_default();
            if other.id == id.as_str() {
                return Err(taken("id", id.as_str(), place()));
            }
            if other.settings.text("key") == Some(key.as_str()) {
                return Err(taken("key", key.as_str(), place()));
            }
        }
        Ok(written)
    }

    fn put(
        &mut self,
        id: String,
        verb: Verb,
        revision: u64,
        before: &Settings,
        after: Option<Settings>,
        author: Author,
    ) -> Result<Done, DeskError> {
        let changed = after.as_ref().map(|after| differences(before, after)).unwrap_or_default();
        if changed.is_empty() && !matches!(verb, Verb::Remove | Verb::Revert) {
            return Ok(Done { id, verb, revision, changed, secret: None, changes: Changes::default() });
        }
        let revision = Revision {
            revision: revision + 1,
            at_ms: author.at_ms,
            who: author.who,
            verb,
            changed: changed.clone(),
            settings: after.as_ref().unwrap_or(before).public(),
        };
        let number = revision.revision;
        let change = Change { id: id.clone(), settings: after, revision };
        self.store.as_mut().map_err(|why| DeskError::NoStore(why.clone()))?.put(change)?;
        Ok(Done { id, verb, revision: number, changed, secret: None, changes: self.serve() })
    }

    /// Serves what there is now.
    fn serve(&mut self) -> Changes {
        let mut apps: Vec<App> =
            self.configured.kept().into_iter().filter_map(|kept| Some(kept.read.ok()?.app)).collect();
        apps.extend(self.demo().cloned());
        let mut problems = Vec::new();
        let mut taken: hashbrown::HashSet<String> =
            apps.iter().flat_map(|app| [format!("i{}", app.id), format!("k{}", app.key)]).collect();
        for kept in self.stored() {
            match kept.read {
                Err(why) => problems.push((kept.id, why)),
                Ok(WrittenApp { app, .. }) => {
                    let (id, key) = (format!("i{}", app.id), format!("k{}", app.key));
                    if taken.contains(&id) || taken.contains(&key) {
                        let what = if taken.contains(&id) { "id" } else { "key" };
                        problems.push((kept.id, format!("an app of {} has its {what}", self.configured.name())));
                        continue;
                    }
                    taken.extend([id, key]);
                    apps.push(app);
                }
            }
        }
        for (id, why) in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::error!(app = %id, "this app is kept in the registry and cannot be served: {why}");
        }
        self.problems = problems;
        self.apps.replace(apps)
    }

    fn view(&self, kept: Kept, source: &'static str) -> View {
        let is_stored = source == "registry";
        let problem = self.problems.iter().find(|(id, _)| is_stored && *id == kept.id).map(|(_, why)| why.clone());
        let (secrets, settings) = match kept.read {
            Ok(WrittenApp { app, shown }) => (app.secrets().count(), shown),
            Err(_) => (kept.settings.secrets().len(), kept.settings.shown()),
        };
        View { id: kept.id, source, revision: kept.revision, problem, secrets, settings }
    }

    fn free_id(&self) -> Result<String, DeskError> {
        let used = self.list();
        for _ in 0..ID_TRIES {
            let id = generate::id()?;
            let was_removed = self.store.as_ref().is_ok_and(|store| store.removed(&id).is_some());
            if !was_removed && used.iter().all(|view| view.id != id) {
                return Ok(id);
            }
        }
        Err(DeskError::Invalid("no free id was found; give one".to_owned()))
    }
}

/// Names of the settings that are not the same, in the order of the documentation.
fn differences(before: &Settings, after: &Settings) -> Vec<String> {
    let known = KEYS.iter().filter(|key| key.section() == "apps").map(|key| key.name());
    let mut names: Vec<String> =
        known.filter(|name| before.0.get(*name) != after.0.get(*name)).map(str::to_owned).collect();
    let others = before.0.keys().chain(after.0.keys()).filter(|name| is_secret(name) && !names.contains(name));
    let others: Vec<String> = others.filter(|name| before.0.get(*name) != after.0.get(*name)).cloned().collect();
    names.extend(others);
    names.dedup();
    names
}

#[cfg(test)]
mod tests;
