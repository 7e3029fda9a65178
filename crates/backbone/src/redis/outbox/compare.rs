//! What a part announced as come, held against the records: of what nobody has, a going is left, and of what was never announced, or is
//! about to be told to be gone, a coming.
//!
//! Only the store sees both at one moment. When it is time for that, and in which steps, is for whoever works the part to say.

use std::sync::LazyLock;

use fulmar_protocol::app::AppId;
use fulmar_protocol::webhook::Subject;
use redis::Value;

use super::{GroupOutbox, OutboxError, Script};
use crate::redis::store::values;
use crate::redis::topic::Topic;

/// Parts of both scripts before their own.
macro_rules! sighted {
    ($($file:literal),+) => {
        LazyLock::new(|| {
            Script::new(&[
                include_str!("../scripts/settled.lua"),
                include_str!("../scripts/sight.lua"),
                include_str!("../scripts/live.lua"),
                include_str!("../scripts/leave.lua"),
                include_str!("../scripts/outbox_held.lua"),
                $(include_str!($file)),+
            ])
        })
    };
}
static COMPARE: LazyLock<Script> = sighted!("../scripts/outbox_compare.lua");
static SEARCH: LazyLock<Script> = sighted!("../scripts/bits.lua", "../scripts/outbox_search.lua");

/// Which part is looked at, and what must hold for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighted {
    /// Of which part.
    pub part: u16,
    /// Under which fence.
    pub fence: String,
    /// In which [`super::Turn::sight`] it is done, from the first step to the last.
    pub sight: String,
}

/// Something that was, or is about to be, announced as come, and not yet as gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Believed {
    /// Whose.
    pub app: AppId,
    /// What.
    pub subject: Subject,
    /// Whether its going lies in the outbox.
    pub is_going: bool,
}

/// What came of a step of comparing what was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// How many were looked at, the first ones. Those behind them are for another step.
    pub looked: usize,
    /// How many of those nobody has: their goings lie in the outbox now.
    pub gone: usize,
    /// How many have a going there, and are on record: their comings lie behind it now.
    pub back: usize,
}

/// Where a search through the records goes on. The first notes what was never announced, the second leaves a coming of what it finds
/// again of that; from one to the other time must pass in which damage is found and mended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchFrom {
    /// Whether it is the second.
    pub is_second: bool,
    /// As the script says it: slot, node, place in its records, how many behind that are done, place in the next one's members.
    words: [String; 5],
}

impl SearchFrom {
    /// The beginning of the second.
    #[must_use]
    pub fn second() -> Self {
        Self { is_second: true, ..Self::default() }
    }
}

/// What came of a step of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Searched {
    /// Where it goes on; `None` where it is over.
    pub next: Option<SearchFrom>,
    /// How many were noted, or, of the second, how many comings lie in the outbox now.
    pub found: usize,
    /// Whether the outbox has room for more of them.
    pub has_room: bool,
}

impl GroupOutbox {
    /// Compares some of what is believed to be here, if the part is this node's under this fence. `None` when the sight is another now.
    ///
    /// # Errors
    /// [`OutboxError::NotClaimed`] when it is not this node's; anything else means that it may have been done.
    pub async fn compare(&mut self, of: &Sighted, believed: &[Believed]) -> Result<Option<Compared>, OutboxError> {
        let mut arguments = self.sighted(of);
        arguments.extend(believed.iter().flat_map(Believed::words));
        let reply = self.call(&COMPARE, arguments).await.map_err(|error| error.of_part(of.part))?;
        let number = |at: usize| reply.get(at).and_then(values::number).and_then(|number| usize::try_from(number).ok());
        let left = |at| number(at).unwrap_or(0);
        Ok(number(1).map(|looked| Compared { looked, gone: left(2), back: left(3) }))
    }

    /// Looks on through the records of the part's slots, if the part is this node's under this fence. `None` when the sight is another
    /// now.
    ///
    /// # Errors
    /// As [`GroupOutbox::compare`].
    pub async fn search(&mut self, of: &Sighted, from: &SearchFrom) -> Result<Option<Searched>, OutboxError> {
        let mut arguments = self.sighted(of);
        arguments.push(u8::from(from.is_second).to_string());
        arguments.extend(from.words.iter().cloned());
        let reply = self.call(&SEARCH, arguments).await.map_err(|error| error.of_part(of.part))?;
        let word = |at: usize| match reply.get(at) {
            Some(Value::Int(number)) => number.to_string(),
            other => other.and_then(values::text).unwrap_or_default(),
        };
        let state = reply.get(1).and_then(values::number);
        let next = match state {
            Some(1) => None,
            Some(0 | 2) => Some(SearchFrom { is_second: from.is_second, words: [3, 4, 5, 6, 7].map(word) }),
            _ => return Ok(None),
        };
        let found = usize::try_from(values::count(reply.get(2))).unwrap_or(0);
        Ok(Some(Searched { next, found, has_room: state != Some(2) }))
    }

    fn sighted(&self, of: &Sighted) -> Vec<String> {
        let max = self.settings.limits.outbox_part_max();
        vec![of.part.to_string(), self.node.clone(), of.fence.clone(), max.to_string(), of.sight.clone()]
    }
}

impl Believed {
    /// As the script wants it.
    fn words(&self) -> [String; 5] {
        let (coming, going, topic, user) = match &self.subject {
            Subject::Channel(channel) => ("co", "cv", Topic::channel(&self.app, channel), ""),
            Subject::Member(channel, user) => ("ma", "mr", Topic::channel(&self.app, channel), user.as_str()),
            Subject::User(user) => ("uo", "uf", Topic::user(&self.app, user), ""),
        };
        let left = if self.is_going { coming } else { going };
        let (is_going, slot) = (u8::from(self.is_going).to_string(), topic.slot().0.to_string());
        [is_going, left.to_owned(), topic.as_str().to_owned(), slot, user.to_owned()]
    }
}
