//! Giving a part back what the node remembers that worked it, where the store lost everything or went back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, LazyLock};

use fulmar_protocol::app::AppId;
use fulmar_protocol::webhook::Subject;

use super::{EntryId, GroupOutbox, OutboxError, Script, Stand, entry};

static RECALL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&[include_str!("../scripts/outbox_done.lua"), include_str!("../scripts/outbox_recall.lua")])
});

/// What is given back in one call: so many operations,
const RECALLED_MAX: usize = 500;
/// and so many bytes, beside one operation of any size.
const RECALLED_BYTES_MAX: usize = 1 << 20;

/// What a part had, as the node remembers that worked it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Had {
    /// What was announced as come, with its generation.
    pub announced: HashMap<(AppId, Subject), u64>,
    /// Sealed requests, by their identities.
    pub sealed: BTreeMap<u64, Vec<u8>>,
    /// Entries whose event some endpoints have: their URLs.
    pub partly: BTreeMap<EntryId, Vec<Arc<str>>>,
    /// Identities of the events of entries that are done with, the oldest first.
    pub done: VecDeque<u64>,
}

impl Had {
    /// As operations of the script: a letter and its values.
    fn operations(&self) -> impl Iterator<Item = Vec<Vec<u8>>> {
        let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        let announced = self.announced.iter();
        let announced =
            announced.map(move |((app, subject), at)| words(&["A", &entry::place(app, subject), &at.to_string()]));
        let sealed = self.sealed.iter();
        let sealed = sealed.map(|(id, request)| vec![b"S".to_vec(), id.to_string().into_bytes(), request.clone()]);
        let partly = self.partly.iter().map(move |(at, urls)| words(&["P", &at.to_string(), &urls.join("\n")]));
        let done = self.done.iter().map(move |id| words(&["E", &id.to_string()]));
        announced.chain(sealed).chain(partly).chain(done)
    }
}

impl GroupOutbox {
    /// Gives a part back what it had when the store lost everything or went back; `stand` is how it was seen to stand after that, and
    /// `writes` how often it had been written.
    ///
    /// # Errors
    /// When the group cannot be asked now.
    pub async fn recall(&mut self, part: u16, stand: Stand, writes: u64, had: &Had) -> Result<(), OutboxError> {
        let mut left = had.operations().peekable();
        let mut is_first = true;
        while is_first || left.peek().is_some() {
            let (mut count, mut bytes) = (0, 0);
            let some = std::iter::from_fn(|| {
                let has_room = count < RECALLED_MAX && bytes < RECALLED_BYTES_MAX;
                let words = left.next_if(|_| has_room)?;
                (count, bytes) = (count + 1, bytes + words.iter().map(Vec::len).sum::<usize>());
                Some(words)
            });
            let head = [u64::from(part), stand.born].map(|number| number.to_string());
            let tail = [stand.writes, writes, u64::from(is_first)].map(|number| number.to_string());
            let head = head.into_iter().chain([self.node.clone()]).chain(tail).map(String::into_bytes);
            let words: Vec<Vec<u8>> = head.chain(some.flatten()).collect();
            self.call(&RECALL, words).await?;
            is_first = false;
        }
        Ok(())
    }
}
