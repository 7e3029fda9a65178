//! Settings from which every key is taken once, so that none is accepted, explained and without effect.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fulmar_control::observed::Capacity;

use super::finding::Place;
use super::raw::{Settings, Written};
use super::value::Value;

/// Settings from which every key is taken once. The table has given each its type and range, so taking cannot fail.
pub(super) struct Taken {
    pub(super) settings: Settings,
}

const IN_TABLE: &str = "the table has this key, and no other part takes it";
const OF_TYPE: &str = "the table gives this key this type and range";

impl Taken {
    pub(super) fn take(&mut self, path: &str) -> Written {
        self.settings.remove(path).expect(IN_TABLE)
    }

    pub(super) fn peek(&self, path: &str) -> Value {
        self.settings.get(path).expect(IN_TABLE).value.clone()
    }

    pub(super) fn place(&self, path: &str) -> Place {
        self.settings.get(path).expect(IN_TABLE).place.clone()
    }

    pub(super) fn optional_number<N: TryFrom<u64>>(&mut self, path: &str) -> Option<N> {
        match self.take(path).value {
            Value::Integer(n) => Some(N::try_from(n).ok().expect(OF_TYPE)),
            _ => None,
        }
    }

    pub(super) fn number<N: TryFrom<u64>>(&mut self, path: &str) -> N {
        self.optional_number(path).expect(OF_TYPE)
    }

    /// A number of which 0 means none.
    pub(super) fn limit(&mut self, path: &str) -> Option<u32> {
        Some(self.number(path)).filter(|n| *n > 0)
    }

    pub(super) fn seconds(&mut self, path: &str) -> Duration {
        Duration::from_secs(self.number(path))
    }

    pub(super) fn millis(&mut self, path: &str) -> Duration {
        Duration::from_millis(self.number(path))
    }

    pub(super) fn optional_switch(&mut self, path: &str) -> Option<bool> {
        match self.take(path).value {
            Value::Switch(on) => Some(on),
            _ => None,
        }
    }

    pub(super) fn switch(&mut self, path: &str) -> bool {
        self.optional_switch(path).expect(OF_TYPE)
    }

    pub(super) fn text(&mut self, path: &str) -> String {
        match self.take(path).value {
            Value::Text(text) => text,
            _ => unreachable!("{OF_TYPE}: {path}"),
        }
    }

    pub(super) fn list(&mut self, path: &str) -> Vec<String> {
        match self.take(path).value {
            Value::List(texts) => texts,
            _ => Vec::new(),
        }
    }

    pub(super) fn optional_text(&mut self, path: &str) -> Option<String> {
        match self.take(path).value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn secret(&mut self, path: &str) -> Option<String> {
        match self.take(path).value {
            Value::Secret(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn path(&mut self, path: &str) -> Option<PathBuf> {
        match self.take(path).value {
            Value::Path(file) => Some(file),
            _ => None,
        }
    }

    pub(super) fn capacities(&mut self, path: &str) -> BTreeMap<String, Capacity> {
        match self.take(path).value {
            Value::Capacities(groups) => groups,
            _ => BTreeMap::new(),
        }
    }

    /// A key that nothing took would be one that is accepted, explained and without effect.
    pub(super) fn assert_empty(&self) {
        debug_assert!(self.settings.is_empty(), "keys without a meaning: {:?}", self.settings.keys());
    }
}
