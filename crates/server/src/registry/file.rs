//! The apps of the configuration file, of variables and of flags: read only.

use fulmar_protocol::app::App;
use serde_json::{Map, Value};

use super::{Change, Kept, PutError, Registry, Revision, Settings};
use crate::config::WrittenApp;

/// The apps that the configuration holds at this moment. Replaced as a whole when the file changes.
#[derive(Debug, Default)]
pub struct FileApps {
    apps: Vec<WrittenApp>,
}

impl FileApps {
    /// Takes what a configuration means and how it shows. An app that shows nowhere (the demo app) is left out.
    #[must_use]
    pub fn new(apps: &[App], shown: Vec<Map<String, Value>>) -> Self {
        let find = |id: &str| shown.iter().find(|map| map.get("id").and_then(Value::as_str) == Some(id));
        let both = apps.iter().filter_map(|app| Some((app.clone(), find(app.id.as_str())?.clone())));
        Self { apps: both.map(|(app, shown)| WrittenApp { app, shown }).collect() }
    }
}

impl Registry for FileApps {
    fn name(&self) -> String {
        "the configuration".to_owned()
    }

    fn kept(&self) -> Vec<Kept> {
        let kept = |app: &WrittenApp| Kept {
            id: app.app.id.to_string(),
            revision: None,
            settings: Settings::default(),
            read: Ok(app.clone()),
        };
        self.apps.iter().map(kept).collect()
    }

    fn put(&mut self, _: Change) -> Result<(), PutError> {
        Err(PutError::ReadOnly(self.name()))
    }

    fn history(&self, _: &str) -> Result<Vec<Revision>, PutError> {
        Ok(Vec::new())
    }
}
