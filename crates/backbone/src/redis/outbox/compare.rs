//! What a part announced as come, held against the records: of what nobody has, a going is left.
//!
//! Only the store sees both at one moment. When it is time for that, and in which steps, is for whoever works the part to say.

use std::sync::LazyLock;

use fulmar_protocol::app::AppId;
use fulmar_protocol::webhook::Subject;
use redis::Value;

use super::{GroupOutbox, OutboxError, Script};
use crate::redis::topic::Topic;

static COMPARE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&[
        include_str!("../scripts/settled.lua"),
        include_str!("../scripts/sight.lua"),
        include_str!("../scripts/live.lua"),
        include_str!("../scripts/leave.lua"),
        include_str!("../scripts/outbox_held.lua"),
        include_str!("../scripts/outbox_compare.lua"),
    ])
});

/// A step of comparing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Of which part.
    pub part: u16,
    /// Under which fence.
    pub fence: String,
    /// In which [`super::Turn::sight`] it is done, from the first step to the last.
    pub sight: String,
    /// What was announced as come, some of it.
    pub announced: Vec<(AppId, Subject)>,
    /// Whether this is the rest.
    pub is_rest: bool,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// How many were looked at, the first ones. Those behind them are for another step.
    pub looked: usize,
    /// How many of those nobody has: their goings lie in the outbox now.
    pub gone: usize,
}

impl GroupOutbox {
    /// Compares, if the part is this node's under this fence. `None` when the sight is another now.
    ///
    /// # Errors
    /// [`OutboxError::NotClaimed`] when it is not this node's; anything else means that it may have been done.
    pub async fn compare(&mut self, of: &Comparison) -> Result<Option<Compared>, OutboxError> {
        let max = self.settings.limits.outbox_part_max();
        let rest = u8::from(of.is_rest).to_string();
        let mut arguments =
            vec![of.part.to_string(), self.node.clone(), of.fence.clone(), max.to_string(), of.sight.clone(), rest];
        arguments.extend(of.announced.iter().flat_map(|(app, subject)| going(app, subject)));
        let reply = self.call(&COMPARE, arguments).await.map_err(|error| error.of_part(of.part))?;
        let number = |at: usize| match reply.get(at) {
            Some(Value::Int(number)) => usize::try_from(*number).ok(),
            _ => None,
        };
        Ok(number(1).map(|looked| Compared { looked, gone: number(2).unwrap_or(0) }))
    }
}

/// What its going is called, its topic, that one's slot, and the user.
fn going(app: &AppId, subject: &Subject) -> [String; 4] {
    let (what, topic, user) = match subject {
        Subject::Channel(channel) => ("cv", Topic::channel(app, channel), ""),
        Subject::Member(channel, user) => ("mr", Topic::channel(app, channel), user.as_str()),
        Subject::User(user) => ("uf", Topic::user(app, user), ""),
    };
    [what.to_owned(), topic.as_str().to_owned(), topic.slot().0.to_string(), user.to_owned()]
}
