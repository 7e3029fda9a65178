//! What holds for every message a node sends, whatever the conversation.
//!
//! Each rule was broken by some server and crashed or silenced some SDK. Checked on every frame of every test that hears
//! frames through this crate.

use serde_json::Value;

/// Events of the server's own on a channel whose `data` is always `{}`.
const EMPTY: [&str; 1] = ["pusher:cache_miss"];

/// Events that concern the connection and no channel.
const OF_CONNECTIONS: [&str; 4] =
    ["pusher:connection_established", "pusher:pong", "pusher:signin_success", "pusher_internal:watchlist_events"];

/// The server's own events on a channel.
const OF_CHANNELS: [&str; 6] = [
    "pusher:cache_miss",
    "pusher:subscription_error",
    "pusher_internal:subscription_succeeded",
    "pusher_internal:subscription_count",
    "pusher_internal:member_added",
    "pusher_internal:member_removed",
];

/// Panics, saying which rule of WS-23 to WS-27, WS-58, WS-68 and WS-97 `text` breaks.
#[track_caller]
pub fn check(text: &str) {
    if let Err(rule) = judge(text) {
        panic!("{rule}: {text}");
    }
}

fn judge(text: &str) -> Result<(), &'static str> {
    let Ok(Value::Object(message)) = serde_json::from_str::<Value>(text) else { return Err("not one JSON object") };
    let event = message.get("event").and_then(Value::as_str).ok_or("no event name")?;
    if message.keys().any(|key| !["event", "channel", "data", "user_id"].contains(&key.as_str())) {
        return Err("a field that the protocol does not have");
    }
    let data = message.get("data").ok_or("no data")?;
    let channel = message.get("channel");
    if event == "pusher:error" {
        let code = data.get("code").ok_or("an error without a code")?;
        let is_typed = data.get("message").is_some_and(Value::is_string) && (code.is_null() || code.is_u64());
        return match (is_typed, channel) {
            (false, _) => Err("an error whose data is not an object with a message and a code"),
            (true, Some(_)) => Err("an error with a channel"),
            (true, None) => Ok(()),
        };
    }
    let data = data.as_str().ok_or("data that is not a string")?;
    let is_of_connection = OF_CONNECTIONS.contains(&event);
    if is_of_connection != channel.is_none() || channel.is_some_and(|channel| !channel.is_string()) {
        return Err("a channel where none belongs, or none where one belongs");
    }
    let channel = channel.and_then(Value::as_str).unwrap_or_default();
    judge_of_channel(event, channel, data, message.get("user_id"))
}

fn judge_of_channel(event: &str, channel: &str, data: &str, user_id: Option<&Value>) -> Result<(), &'static str> {
    let is_presence = channel.starts_with("presence-");
    if user_id.is_some() != (is_presence && event.starts_with("client-")) || user_id.is_some_and(|id| !id.is_string()) {
        return Err("a user_id where none belongs, or none where one belongs");
    }
    if event.starts_with("pusher") && !OF_CONNECTIONS.contains(&event) && !OF_CHANNELS.contains(&event) {
        return Err("an event that the protocol does not have");
    }
    if !event.starts_with("pusher") {
        return Ok(());
    }
    if EMPTY.contains(&event) && data != "{}" {
        return Err("data that must be exactly {}");
    }
    if event.ends_with(":subscription_succeeded") && !is_presence && data != "{}" {
        return Err("data that must be exactly {}");
    }
    // Counts are kept from the one SDK that tries to decrypt them; here nobody knows who hears.
    if channel.starts_with("private-encrypted-") && data != "{}" && !event.ends_with(":subscription_count") {
        return Err("data on an encrypted channel that must be exactly {}");
    }
    match serde_json::from_str::<Value>(data) {
        Ok(Value::Object(_)) => Ok(()),
        _ => Err("data that does not hold an object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WS-23, WS-24, WS-25, WS-26, WS-27, WS-58, T-1, T-2, T-5: the typing of `data`
    #[test]
    fn every_broken_rule_is_seen() {
        for good in [
            r#"{"event":"pusher:pong","data":"{}"}"#,
            r#"{"event":"pusher:error","data":{"message":"no","code":null}}"#,
            r#"{"event":"any","channel":"a","data":""}"#,
            r#"{"event":"client-x","channel":"presence-a","data":"1","user_id":"u"}"#,
        ] {
            assert_eq!(judge(good), Ok(()), "{good}");
        }
        for bad in [
            "[]",
            r#"{"event":"any","channel":"a"}"#,
            r#"{"event":"any","channel":"a","data":{}}"#,
            r#"{"event":"any","data":"1"}"#,
            r#"{"event":"any","channel":"a","data":"1","id":"7"}"#,
            r#"{"event":"any","channel":"presence-a","data":"1","user_id":"u"}"#,
            r#"{"event":"client-x","channel":"presence-a","data":"1","user_id":7}"#,
            r#"{"event":"pusher:pong","channel":"a","data":"{}"}"#,
            r#"{"event":"pusher:error","data":"{}"}"#,
            r#"{"event":"pusher:error","channel":"a","data":{"message":"no","code":null}}"#,
            r#"{"event":"pusher_internal:subscription_error","channel":"a","data":"{}"}"#,
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"a","data":"{ }"}"#,
            r#"{"event":"pusher:subscription_error","channel":"private-encrypted-a","data":"{\"status\":401}"}"#,
        ] {
            assert!(judge(bad).is_err(), "{bad}");
        }
    }
}
