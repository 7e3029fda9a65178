//! Giving a part back what the node remembers that worked it, where the store lost everything or went back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, LazyLock};

use fulmar_protocol::app::AppId;
use fulmar_protocol::webhook::Subject;
use redis::Value;

use super::{EntryId, GIVEN_UP_MAX, GroupOutbox, Operation, OutboxError, Script, Stand};

static RECALL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&[
        include_str!("../scripts/outbox_done.lua"),
        include_str!("../scripts/outbox_operations.lua"),
        include_str!("../scripts/outbox_recall.lua"),
    ])
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
    /// Requests that were given up last, the oldest first.
    pub given_up: VecDeque<Vec<u8>>,
}

/// What became of giving back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recalled {
    /// It is there.
    Done,
    /// The part was written more often than this node knows: whoever did that knows better.
    Needless,
    /// The store is another once more: the next turn says how it stands.
    LostAgain,
}

impl Had {
    /// As operations of the script: a letter and its values.
    fn operations(&self) -> impl Iterator<Item = Vec<Vec<u8>>> {
        let announced = self.announced.iter();
        let announced = announced.map(|((app, subject), at)| Operation::Announce(app.clone(), subject.clone(), *at));
        let sealed = self.sealed.iter().map(|(id, request)| Operation::Seal(*id, request.clone()));
        let partly = self.partly.iter().map(|(at, urls)| Operation::Partly(*at, urls.clone()));
        let given_up = self.given_up.iter().map(|request| Operation::GiveUp(request.clone()));
        let written = announced.chain(sealed).chain(partly).chain(given_up).map(|operation| {
            let mut words = Vec::new();
            operation.put(&mut words);
            words
        });
        // Whose entries are not known any more.
        let done = self.done.iter().map(|id| vec![b"E".to_vec(), id.to_string().into_bytes()]);
        written.chain(done)
    }
}

impl GroupOutbox {
    /// Gives a part back what it had when the store lost everything or went back; `stand` is how it was seen to stand after that, and
    /// `writes` how often it had been written.
    ///
    /// # Errors
    /// When the group cannot be asked now.
    pub async fn recall(&mut self, part: u16, stand: Stand, writes: u64, had: &Had) -> Result<Recalled, OutboxError> {
        let mut left = had.operations().peekable();
        let (mut is_first, connections) = (true, self.connections);
        while is_first || left.peek().is_some() {
            let (mut count, mut bytes) = (0, 0);
            let some = std::iter::from_fn(|| {
                let has_room = count < RECALLED_MAX && bytes < RECALLED_BYTES_MAX;
                let words = left.next_if(|_| has_room)?;
                (count, bytes) = (count + 1, bytes + words.iter().map(Vec::len).sum::<usize>());
                Some(words)
            });
            let some: Vec<Vec<u8>> = some.flatten().collect();
            let head = [u64::from(part), stand.born].map(|number| number.to_string());
            let (first, last) = (u64::from(is_first), u64::from(left.peek().is_none()));
            let tail = [stand.writes, writes, first, last, GIVEN_UP_MAX].map(|number| number.to_string());
            let head = head.into_iter().chain([self.node.clone()]).chain(tail).map(String::into_bytes);
            let reply = self.call(&RECALL, head.chain(some)).await?;
            match reply.get(1) {
                // What was given back before went to another connection, and maybe to another server.
                Some(Value::Int(1)) if is_first || self.connections == connections => {}
                Some(Value::Int(2)) => return Ok(Recalled::Needless),
                _ => return Ok(Recalled::LostAgain),
            }
            is_first = false;
        }
        Ok(Recalled::Done)
    }
}
