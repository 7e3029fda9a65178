//! Giving a part back what the node remembers that worked it, where the store lost everything.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::LazyLock;

use fulmar_protocol::app::AppId;
use fulmar_protocol::webhook::Subject;

use super::{GroupOutbox, OutboxError, Script, entry};

static RECALL: LazyLock<Script> = LazyLock::new(|| Script::new(&[include_str!("../scripts/outbox_recall.lua")]));

/// What is given back in one call: so many fields,
const RECALLED_MAX: usize = 500;
/// and so many bytes, beside one field of any size.
const RECALLED_BYTES_MAX: usize = 1 << 20;

/// What a part had, as the node remembers that worked it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Had {
    /// What was announced as come, with its generation.
    pub announced: HashMap<(AppId, Subject), u64>,
    /// Sealed requests, by their identities.
    pub sealed: BTreeMap<u64, Vec<u8>>,
    /// Generations of edges that are done with, the oldest first.
    pub done: VecDeque<u64>,
}

impl GroupOutbox {
    /// Gives a part back what it had when the store lost everything; `born` is the part's birth as seen after that.
    ///
    /// # Errors
    /// When the group cannot be asked now.
    pub async fn recall(&mut self, part: u16, born: u64, had: &Had) -> Result<(), OutboxError> {
        let announced = had.announced.iter();
        let announced = announced.map(|((app, subject), at)| (entry::place(app, subject), at.to_string().into_bytes()));
        self.recall_into("announced", part, born, announced.collect()).await?;
        let sealed = had.sealed.iter().map(|(id, request)| (id.to_string(), request.clone()));
        self.recall_into("sealed", part, born, sealed.collect()).await?;
        let done = had.done.iter().map(|generation| (generation.to_string(), b"1".to_vec()));
        self.recall_into("done", part, born, done.collect()).await
    }

    async fn recall_into(
        &mut self,
        hash: &str,
        part: u16,
        born: u64,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> Result<(), OutboxError> {
        let mut left = pairs.into_iter().peekable();
        while left.peek().is_some() {
            let (mut fields, mut bytes) = (0, 0);
            let some = std::iter::from_fn(|| {
                let has_room = fields < RECALLED_MAX && bytes < RECALLED_BYTES_MAX;
                let (field, value) = left.next_if(|_| has_room)?;
                (fields, bytes) = (fields + 1, bytes + value.len());
                Some([field.into_bytes(), value])
            });
            let head = [part.to_string(), born.to_string(), self.node.clone(), hash.to_owned()];
            let words: Vec<_> = head.into_iter().map(String::into_bytes).chain(some.flatten()).collect();
            self.call(&RECALL, words).await?;
        }
        Ok(())
    }
}
