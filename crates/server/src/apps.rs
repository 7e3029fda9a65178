//! The apps a node serves, as everybody on the node sees them at this moment.
//!
//! Readers take a snapshot without waiting; a reload replaces it as a whole, so nobody ever sees half of a change. It
//! holds apps and nothing about them: no counts, no connections. Ids and keys are unique, which the configuration has
//! checked.

use std::sync::Arc;

use arc_swap::ArcSwap;
use fulmar_protocol::app::{App, AppId, AppKey};
use hashbrown::HashMap;

/// The registry. Shared by all threads.
#[derive(Debug)]
pub struct Apps {
    current: ArcSwap<Snapshot>,
}

/// All apps at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    by_id: HashMap<AppId, Arc<App>>,
    by_key: HashMap<AppKey, Arc<App>>,
}

/// What a reload changed. An app that did not change keeps its `Arc`.
#[derive(Debug, Default)]
pub struct Changes {
    /// Apps whose id was not served before.
    pub added: Vec<Arc<App>>,
    /// Apps whose id is no longer served.
    pub removed: Vec<Arc<App>>,
    /// Apps that differ in anything.
    pub changed: Vec<Change>,
}

/// One app before and after.
#[derive(Debug)]
pub struct Change {
    /// Before.
    pub from: Arc<App>,
    /// After.
    pub to: Arc<App>,
}

impl Changes {
    /// Whether everything is as it was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl Apps {
    /// Serves these apps.
    #[must_use]
    pub fn new(apps: Vec<App>) -> Self {
        let (snapshot, _) = Snapshot::default().followed_by(apps);
        Self { current: ArcSwap::from_pointee(snapshot) }
    }

    /// The app that clients connect to with `key`.
    #[must_use]
    pub fn by_key(&self, key: &str) -> Option<Arc<App>> {
        self.current.load().by_key.get(key).cloned()
    }

    /// The app with this id.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<Arc<App>> {
        self.current.load().by_id.get(id).cloned()
    }

    /// The app as it is served now, if it still is: whoever found it a moment ago may have been overtaken by a change.
    #[must_use]
    pub fn as_of_now(&self, app: &App) -> Option<Arc<App>> {
        self.by_key(app.key.as_str()).filter(|current| current.id == app.id)
    }

    /// All apps as they are now; later changes do not show in it.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Serves these apps from now on and says what that changed. Calls do not overlap: one thread reloads.
    pub fn replace(&self, apps: Vec<App>) -> Changes {
        let (next, changes) = self.current.load().followed_by(apps);
        self.current.store(Arc::new(next));
        changes
    }
}

impl Snapshot {
    /// The apps, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<App>> {
        self.by_id.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn followed_by(&self, apps: Vec<App>) -> (Self, Changes) {
        let (mut next, mut changes) = (Self::default(), Changes::default());
        for app in apps {
            let app = match self.by_id.get(&app.id) {
                Some(before) if **before == app => before.clone(),
                Some(before) => {
                    let to = Arc::new(app);
                    changes.changed.push(Change { from: before.clone(), to: to.clone() });
                    to
                }
                None => {
                    let added = Arc::new(app);
                    changes.added.push(added.clone());
                    added
                }
            };
            next.by_key.insert(app.key.clone(), app.clone());
            next.by_id.insert(app.id.clone(), app);
        }
        changes.removed = self.by_id.values().filter(|app| !next.by_id.contains_key(&app.id)).cloned().collect();
        (next, changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-6
    #[test]
    fn an_app_that_did_not_change_is_not_replaced() {
        let apps = Apps::new(vec![App::new("1", "k1", "s1"), App::new("2", "k2", "s2"), App::new("3", "k3", "s3")]);
        let before = apps.by_id("1").unwrap();
        let disabled = App { enabled: false, ..App::new("2", "k2", "s2") };
        let changes = apps.replace(vec![App::new("1", "k1", "s1"), disabled, App::new("4", "k4", "s4")]);
        assert!(Arc::ptr_eq(&before, &apps.by_id("1").unwrap()));
        let ids = |apps: &[Arc<App>]| apps.iter().map(|a| a.id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(&changes.added), ["4"]);
        assert_eq!(ids(&changes.removed), ["3"]);
        assert_eq!(changes.changed.len(), 1);
        assert!(changes.changed[0].from.enabled && !changes.changed[0].to.enabled);
    }

    /// OPS-41
    #[test]
    fn who_found_an_app_a_moment_ago_is_told_what_became_of_it() {
        let apps = Apps::new(vec![App::new("1", "k1", "s1"), App::new("2", "k2", "s2")]);
        let [one, two] = ["1", "2"].map(|id| apps.by_id(id).unwrap());
        assert!(Arc::ptr_eq(&apps.as_of_now(&one).unwrap(), &one));
        apps.replace(vec![App { enabled: false, ..App::new("1", "k1", "s1") }, App::new("3", "k2", "s3")]);
        assert!(!apps.as_of_now(&one).unwrap().enabled);
        assert!(apps.as_of_now(&two).is_none(), "its key is another's now");
        apps.replace(Vec::new());
        assert!(apps.as_of_now(&one).is_none());
    }

    /// OPS-6
    #[test]
    fn an_app_is_found_by_its_id_and_by_its_key_and_never_by_an_old_key() {
        let apps = Apps::new(vec![App::new("1", "old", "s")]);
        assert_eq!(apps.by_key("old").unwrap().id.as_str(), "1");
        let snapshot = apps.snapshot();
        let changes = apps.replace(vec![App::new("1", "new", "s")]);
        assert_eq!(changes.changed.len(), 1);
        assert!(apps.by_key("old").is_none() && apps.by_key("new").is_some() && apps.by_id("1").is_some());
        assert!(apps.by_id("old").is_none());
        assert_eq!(snapshot.iter().next().unwrap().key.as_str(), "old", "a snapshot does not move");
        assert!(apps.replace(vec![App::new("1", "new", "s")]).is_empty());
    }
}
