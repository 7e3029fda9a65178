//! Channels of a bare server, by name and by number.

use std::collections::HashMap;

#[derive(Default)]
pub(super) struct Channels {
    by_name: HashMap<Box<[u8]>, u32>,
    pub(super) subscribers: Vec<Vec<u32>>,
}

impl Channels {
    pub(super) fn named(&mut self, name: &[u8]) -> u32 {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = u32::try_from(self.subscribers.len()).expect("a bench has fewer than 2^32 channels");
        self.by_name.insert(name.into(), index);
        self.subscribers.push(Vec::new());
        index
    }
}
