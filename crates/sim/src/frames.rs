//! The texts a node must send, written down a second time.
//!
//! On purpose without the server's own encoder: what is expected must not come from what is tested.

use crate::world::Heard;

/// `text` as a JSON string.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An RFC 6455 ping.
#[must_use]
pub fn ping() -> Heard {
    Heard::Ping
}

/// The answer to `pusher:ping`.
#[must_use]
pub fn pong() -> Heard {
    Heard::Text(r#"{"event":"pusher:pong","data":"{}"}"#.to_owned())
}

/// A published event, or any other on a channel.
#[must_use]
pub fn event(channel: &str, name: &str, data: &str) -> Heard {
    Heard::Text(format!(r#"{{"event":{},"channel":{},"data":{}}}"#, quoted(name), quoted(channel), quoted(data)))
}

/// A client event of a member of a presence channel.
#[must_use]
pub fn event_from(user: &str, channel: &str, name: &str, data: &str) -> Heard {
    let Heard::Text(text) = event(channel, name, data) else { unreachable!("events are text") };
    Heard::Text(format!(r#"{},"user_id":{}}}"#, &text[..text.len() - 1], quoted(user)))
}

/// A subscription that is not a presence channel's stands.
#[must_use]
pub fn succeeded(channel: &str) -> Heard {
    event(channel, "pusher_internal:subscription_succeeded", "{}")
}

/// A presence subscription stands; `members` are user ids with their `user_info` as JSON text.
#[must_use]
pub fn roster(channel: &str, members: &[(&str, &str)]) -> Heard {
    let ids: Vec<_> = members.iter().map(|(id, _)| quoted(id)).collect();
    let hash: Vec<_> = members.iter().map(|(id, info)| format!("{}:{info}", quoted(id))).collect();
    let data = format!(
        r#"{{"presence":{{"count":{},"ids":[{}],"hash":{{{}}}}}}}"#,
        members.len(),
        ids.join(","),
        hash.join(",")
    );
    event(channel, "pusher_internal:subscription_succeeded", &data)
}

/// A user came, of whom the application told nothing but the id.
#[must_use]
pub fn member_added(channel: &str, user: &str) -> Heard {
    event(channel, "pusher_internal:member_added", &format!(r#"{{"user_id":{}}}"#, quoted(user)))
}

/// A user left.
#[must_use]
pub fn member_removed(channel: &str, user: &str) -> Heard {
    event(channel, "pusher_internal:member_removed", &format!(r#"{{"user_id":{}}}"#, quoted(user)))
}

/// How many are subscribed.
#[must_use]
pub fn count(channel: &str, number: u64) -> Heard {
    event(channel, "pusher_internal:subscription_count", &format!(r#"{{"subscription_count":{number}}}"#))
}

/// Nothing is kept on a cache channel.
#[must_use]
pub fn cache_miss(channel: &str) -> Heard {
    event(channel, "pusher:cache_miss", "{}")
}

/// The connection is signed in.
#[must_use]
pub fn signed_in(user_data: &str) -> Heard {
    let data = format!(r#"{{"user_data":{}}}"#, quoted(user_data));
    Heard::Text(format!(r#"{{"event":"pusher:signin_success","data":{}}}"#, quoted(&data)))
}

/// Which watched users are online and which are not.
#[must_use]
pub fn watched(online: &[&str], offline: &[&str]) -> Heard {
    let list = |name: &str, ids: &[&str]| {
        let ids: Vec<_> = ids.iter().map(|id| quoted(id)).collect();
        (!ids.is_empty()).then(|| format!(r#"{{"name":"{name}","user_ids":[{}]}}"#, ids.join(",")))
    };
    let lists: Vec<_> = [list("online", online), list("offline", offline)].into_iter().flatten().collect();
    let data = format!(r#"{{"events":[{}]}}"#, lists.join(","));
    Heard::Text(format!(r#"{{"event":"pusher_internal:watchlist_events","data":{}}}"#, quoted(&data)))
}

/// Something went wrong on the connection; no code, as for most.
#[must_use]
pub fn error(message: &str) -> Heard {
    Heard::Text(format!(r#"{{"event":"pusher:error","data":{{"message":{},"code":null}}}}"#, quoted(message)))
}

/// The same with a code.
#[must_use]
pub fn error_with_code(code: u16, message: &str) -> Heard {
    Heard::Text(format!(r#"{{"event":"pusher:error","data":{{"message":{},"code":{code}}}}}"#, quoted(message)))
}

/// A channel's listeners are told that it was refused.
#[must_use]
pub fn subscription_error(channel: &str, message: &str) -> Heard {
    subscription_refused(channel, "AuthError", message, 401)
}

/// The same for a reason that is not the authorization.
#[must_use]
pub fn subscription_refused(channel: &str, kind: &str, message: &str, status: u16) -> Heard {
    let data = format!(r#"{{"type":"{kind}","error":{},"status":{status}}}"#, quoted(message));
    event(channel, "pusher:subscription_error", &data)
}
