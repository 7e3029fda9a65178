//! The sessions of a worker, by the driver's keys.

use crate::effect::SessionKey;
use crate::session::Session;

/// Sessions by the driver's keys.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Vec<Option<Box<Session>>>);

impl Sessions {
    pub(crate) fn get(&self, key: SessionKey) -> Option<&Session> {
        self.0.get(key as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.0.get_mut(key as usize)?.as_deref_mut()
    }

    /// For keys that came out of the worker's own tables.
    pub(crate) fn expect_mut(&mut self, key: SessionKey) -> &mut Session {
        self.get_mut(key).expect("the worker's tables name only open sessions")
    }

    pub(crate) fn insert(&mut self, key: SessionKey, session: Session) {
        let index = key as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(Box::new(session));
    }

    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<Box<Session>> {
        self.0.get_mut(key as usize)?.take()
    }

    pub(crate) fn keys_where(&self, wanted: impl Fn(&Session) -> bool) -> Vec<SessionKey> {
        (0..).zip(&self.0).filter(|(_, slot)| slot.as_deref().is_some_and(&wanted)).map(|(key, _)| key).collect()
    }
}
