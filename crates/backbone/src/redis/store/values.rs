//! Reading what Redis answers.

use std::sync::Arc;

use fulmar_protocol::exchange::{Identity, Member};
use fulmar_protocol::name::UserId;
use hashbrown::HashMap;
use redis::Value;

use super::super::envelope::{LogId, Message};
use super::super::lane::LANES;
use super::super::lease;
use super::super::records::Kept;

/// Fields and values of a hash, however the protocol's version writes them; `None` for anything else.
pub fn pairs(value: &Value) -> Option<Vec<(&[u8], &[u8])>> {
    match value {
        Value::Array(items) => items.chunks_exact(2).map(|pair| Some((bytes(&pair[0])?, bytes(&pair[1])?))).collect(),
        Value::Map(entries) => entries.iter().map(|(field, value)| Some((bytes(field)?, bytes(value)?))).collect(),
        _ => None,
    }
}

/// The bytes of a string.
pub fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// The text of a string, with whatever is no text replaced.
pub fn text(value: &Value) -> Option<String> {
    bytes(value).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// A number, also where it is written as text.
pub fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        other => text(other)?.parse().ok(),
    }
}

/// A number that cannot be negative.
pub fn count(value: Option<&Value>) -> u64 {
    value.and_then(number).and_then(|number| u64::try_from(number).ok()).unwrap_or_default()
}

/// The items of an array.
pub fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

/// The place in the log at `value`.
pub fn log_id(value: Option<&Value>) -> LogId {
    value.and_then(text).and_then(|text| LogId::parse(&text)).unwrap_or_default()
}

/// For each lane, the last publication of every node that has any there: from the node's name and its counters, node after node.
pub fn logged(value: &[Value]) -> [Arc<[Identity]>; LANES] {
    std::array::from_fn(|lane| {
        let last = |of_node: &[Value]| {
            let (origin, counter) = (lease::origin(&text(&of_node[0])?)?, count(of_node.get(1 + lane)));
            (counter > 0).then_some(Identity { origin, counter })
        };
        value.chunks_exact(1 + LANES).filter_map(last).collect()
    })
}

/// Users and `SINCE INFO` of several nodes as one roster, in the order they came. The earliest record of a user says who it is.
pub fn roster(value: &Value) -> Vec<(Member, u64)> {
    let mut users: HashMap<UserId, (u64, Option<Arc<str>>)> = HashMap::new();
    for (user, presence) in pairs(value).unwrap_or_default() {
        let read = || {
            let user = std::str::from_utf8(user).ok()?;
            let (since, info) = std::str::from_utf8(presence).ok()?.split_once(' ')?;
            let info = (!info.is_empty()).then(|| Arc::from(info));
            Some((UserId::parse(user, user.len()).ok()?, since.parse::<u64>().ok()?, info))
        };
        // What cannot be read is nobody of ours: its node will mend it.
        let Some((user, since, info)) = read() else { continue };
        let is_later = users.get(&user).is_some_and(|(first, _)| *first <= since);
        if !is_later {
            users.insert(user, (since, info));
        }
    }
    let mut roster: Vec<(Member, u64)> =
        users.into_iter().map(|(user_id, (since, user_info))| (Member { user_id, user_info }, since)).collect();
    roster.sort_unstable_by(|(a, first), (b, second)| (first, a.user_id.as_str()).cmp(&(second, b.user_id.as_str())));
    roster
}

/// A cached event, from `ID|MESSAGE` and the time it is still kept.
pub fn kept(event: Option<&Value>, ttl_ms: Option<&Value>) -> Option<Kept> {
    let (at, message) = Message::with_id(bytes(event?)?)?;
    Some(Kept { at, message: ::bytes::Bytes::copy_from_slice(message), ttl_ms: count(ttl_ms) })
}
