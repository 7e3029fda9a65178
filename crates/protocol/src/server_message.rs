//! What the server may say, encoded once into a [`Frame`].
//!
//! One rule covers every SDK: `data` is a JSON **string**, except in `pusher:error`, where it is an object. `data` is
//! always present (Java dies without it) and, where there is nothing to say, exactly the text `{}`.

use std::fmt::Write as _;

use crate::exchange::Member;
use crate::frame::Frame;
use crate::name::{ChannelName, SocketId, UserId};

/// The first frame of every connection: its id, and after how many silent seconds the client should ping.
#[must_use]
pub fn established(socket_id: SocketId, activity_timeout_s: u32) -> Frame {
    let inner = format!(r#"{{"socket_id":"{socket_id}","activity_timeout":{activity_timeout_s}}}"#);
    connection_level("pusher:connection_established", &inner)
}

/// Answer to `pusher:ping`.
#[must_use]
pub fn pong() -> Frame {
    connection_level("pusher:pong", "{}")
}

/// Something went wrong; on the connection as a whole, hence never with a channel. `code` is `null` for most.
#[must_use]
pub fn error(message: &str, code: Option<u16>) -> Frame {
    Frame::build(message.len() + 64, |out| {
        out.extend_from_slice(br#"{"event":"pusher:error","data":{"message":"#);
        push_string(out, message);
        out.extend_from_slice(br#","code":"#);
        match code {
            Some(code) => out.extend_from_slice(code.to_string().as_bytes()),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b"}}");
    })
}

/// The subscription stands; on every channel kind but presence.
#[must_use]
pub fn subscription_succeeded(channel: &ChannelName) -> Frame {
    on_channel("pusher_internal:subscription_succeeded", channel, "{}")
}

/// The presence subscription stands, and who is there: one consistent snapshot, the joiner included.
#[must_use]
pub fn presence_succeeded(channel: &ChannelName, roster: &[Member]) -> Frame {
    let mut inner = Vec::with_capacity(64 + roster.len() * 64);
    inner.extend_from_slice(format!(r#"{{"presence":{{"count":{},"ids":["#, roster.len()).as_bytes());
    separated(&mut inner, roster, |out, member| push_string(out, member.user_id.as_str()));
    inner.extend_from_slice(br#"],"hash":{"#);
    separated(&mut inner, roster, |out, member| {
        push_string(out, member.user_id.as_str());
        out.push(b':');
        out.extend_from_slice(member.user_info.as_deref().unwrap_or("null").as_bytes());
    });
    inner.extend_from_slice(b"}}}");
    let inner = String::from_utf8(inner).expect("built from text");
    on_channel("pusher_internal:subscription_succeeded", channel, &inner)
}

/// Tells a channel's own listeners that the subscription was refused, in the shape pusher-js makes itself when the
/// application's auth endpoint refuses.
#[must_use]
pub fn subscription_error(channel: &str, kind: &str, message: &str, status: u16) -> Frame {
    let mut inner = br#"{"type":"#.to_vec();
    push_string(&mut inner, kind);
    inner.extend_from_slice(br#","error":"#);
    push_string(&mut inner, message);
    inner.extend_from_slice(format!(r#","status":{status}}}"#).as_bytes());
    let inner = String::from_utf8(inner).expect("built from text");
    channel_level("pusher:subscription_error", channel, &inner)
}

/// A user came to a presence channel.
#[must_use]
pub fn member_added(channel: &ChannelName, member: &Member) -> Frame {
    let mut inner = br#"{"user_id":"#.to_vec();
    push_string(&mut inner, member.user_id.as_str());
    if let Some(info) = &member.user_info {
        inner.extend_from_slice(br#","user_info":"#);
        inner.extend_from_slice(info.as_bytes());
    }
    inner.push(b'}');
    let inner = String::from_utf8(inner).expect("built from text");
    on_channel("pusher_internal:member_added", channel, &inner)
}

/// A user left a presence channel.
#[must_use]
pub fn member_removed(channel: &ChannelName, user_id: &str) -> Frame {
    let mut inner = br#"{"user_id":"#.to_vec();
    push_string(&mut inner, user_id);
    inner.push(b'}');
    let inner = String::from_utf8(inner).expect("built from text");
    on_channel("pusher_internal:member_removed", channel, &inner)
}

/// How many connections are subscribed.
#[must_use]
pub fn subscription_count(channel: &ChannelName, count: u64) -> Frame {
    let mut inner = String::with_capacity(40);
    write!(inner, r#"{{"subscription_count":{count}}}"#).expect("writing to a String cannot fail");
    on_channel("pusher_internal:subscription_count", channel, &inner)
}

/// The cache channel has no event to replay.
#[must_use]
pub fn cache_miss(channel: &ChannelName) -> Frame {
    on_channel("pusher:cache_miss", channel, "{}")
}

/// The connection is signed in; `user_data` is the text that was signed.
#[must_use]
pub fn signin_success(user_data: &str) -> Frame {
    let mut inner = br#"{"user_data":"#.to_vec();
    push_string(&mut inner, user_data);
    inner.push(b'}');
    let inner = String::from_utf8(inner).expect("built from text");
    connection_level("pusher:signin_success", &inner)
}

/// Which watched users are online and which are not; an empty list is left out.
#[must_use]
pub fn watchlist_events(online: &[&UserId], offline: &[&UserId]) -> Frame {
    let mut inner = br#"{"events":["#.to_vec();
    let lists = [("online", online), ("offline", offline)];
    let lists: Vec<_> = lists.into_iter().filter(|(_, ids)| !ids.is_empty()).collect();
    separated(&mut inner, &lists, |out, (name, ids)| {
        out.extend_from_slice(format!(r#"{{"name":"{name}","user_ids":["#).as_bytes());
        separated(out, ids, |out, id| push_string(out, id.as_str()));
        out.extend_from_slice(b"]}");
    });
    inner.extend_from_slice(b"]}");
    let inner = String::from_utf8(inner).expect("built from text");
    connection_level("pusher_internal:watchlist_events", &inner)
}

/// An event of one member for the others. `data` is JSON source text: a string is passed through unchanged, anything
/// else becomes the content of a string. `user_id` is given on presence channels only, where it is trusted.
#[must_use]
pub fn client_event(event: &str, channel: &ChannelName, data: &str, user_id: Option<&str>) -> Frame {
    Frame::build(event.len() + channel.as_str().len() + data.len() + 96, |out| {
        out.extend_from_slice(br#"{"event":"#);
        push_string(out, event);
        out.extend_from_slice(br#","channel":""#);
        out.extend_from_slice(channel.as_str().as_bytes());
        out.extend_from_slice(br#"","data":"#);
        if data.starts_with('"') {
            out.extend_from_slice(data.as_bytes());
        } else {
            push_string(out, data);
        }
        if let Some(user_id) = user_id {
            out.extend_from_slice(br#","user_id":"#);
            push_string(out, user_id);
        }
        out.push(b'}');
    })
}

fn connection_level(event: &str, inner: &str) -> Frame {
    Frame::build(event.len() + inner.len() * 2 + 32, |out| {
        out.extend_from_slice(br#"{"event":""#);
        out.extend_from_slice(event.as_bytes());
        out.extend_from_slice(br#"","data":"#);
        push_string(out, inner);
        out.push(b'}');
    })
}

fn on_channel(event: &str, channel: &ChannelName, inner: &str) -> Frame {
    channel_level(event, channel.as_str(), inner)
}

fn channel_level(event: &str, channel: &str, inner: &str) -> Frame {
    Frame::build(event.len() + channel.len() + inner.len() * 2 + 48, |out| {
        out.extend_from_slice(br#"{"event":""#);
        out.extend_from_slice(event.as_bytes());
        out.extend_from_slice(br#"","channel":"#);
        push_string(out, channel);
        out.extend_from_slice(br#","data":"#);
        push_string(out, inner);
        out.push(b'}');
    })
}

/// Appends `text` as a JSON string.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a str into a Vec cannot fail");
}

fn separated<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name, 164).expect("valid")
    }

    fn user(id: &str) -> UserId {
        UserId::parse(id, 128).expect("valid")
    }

    fn member(id: &str, info: Option<&str>) -> Member {
        Member { user_id: user(id), user_info: info.map(Into::into) }
    }

    #[test]
    fn every_frame_has_the_exact_text_sdks_were_measured_with() {
        let c = channel("presence-room");
        let table: Vec<(Frame, &str)> = vec![
            (
                established(SocketId::new(123_456, 7_890_123), 120),
                r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"123456.7890123\",\"activity_timeout\":120}"}"#,
            ),
            (pong(), r#"{"event":"pusher:pong","data":"{}"}"#),
            (error("no \"x\"", Some(4301)), r#"{"event":"pusher:error","data":{"message":"no \"x\"","code":4301}}"#),
            (error("no", None), r#"{"event":"pusher:error","data":{"message":"no","code":null}}"#),
            (
                subscription_succeeded(&channel("a")),
                r#"{"event":"pusher_internal:subscription_succeeded","channel":"a","data":"{}"}"#,
            ),
            (
                presence_succeeded(&c, &[member("u1", Some(r#"{"name":"Ana"}"#)), member("7", None)]),
                r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-room","data":"{\"presence\":{\"count\":2,\"ids\":[\"u1\",\"7\"],\"hash\":{\"u1\":{\"name\":\"Ana\"},\"7\":null}}}"}"#,
            ),
            (
                member_added(&c, &member("u1", Some(r#"{"a":1}"#))),
                r#"{"event":"pusher_internal:member_added","channel":"presence-room","data":"{\"user_id\":\"u1\",\"user_info\":{\"a\":1}}"}"#,
            ),
            (
                member_added(&c, &member("u1", None)),
                r#"{"event":"pusher_internal:member_added","channel":"presence-room","data":"{\"user_id\":\"u1\"}"}"#,
            ),
            (
                member_removed(&c, "u1"),
                r#"{"event":"pusher_internal:member_removed","channel":"presence-room","data":"{\"user_id\":\"u1\"}"}"#,
            ),
            (
                subscription_count(&channel("c"), 3),
                r#"{"event":"pusher_internal:subscription_count","channel":"c","data":"{\"subscription_count\":3}"}"#,
            ),
            (
                signin_success(r#"{"id":"u1"}"#),
                r#"{"event":"pusher:signin_success","data":"{\"user_data\":\"{\\\"id\\\":\\\"u1\\\"}\"}"}"#,
            ),
            (
                watchlist_events(&[&user("a"), &user("b")], &[&user("7")]),
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"a\",\"b\"]},{\"name\":\"offline\",\"user_ids\":[\"7\"]}]}"}"#,
            ),
            (
                watchlist_events(&[], &[&user("a")]),
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"offline\",\"user_ids\":[\"a\"]}]}"}"#,
            ),
            (cache_miss(&channel("cache-x")), r#"{"event":"pusher:cache_miss","channel":"cache-x","data":"{}"}"#),
            (
                subscription_error("private-a", "AuthError", "no", 401),
                r#"{"event":"pusher:subscription_error","channel":"private-a","data":"{\"type\":\"AuthError\",\"error\":\"no\",\"status\":401}"}"#,
            ),
        ];
        for (frame, text) in table {
            assert_eq!(frame.text(), text);
        }
    }

    #[test]
    fn client_event_data_leaves_as_a_string_and_a_string_stays_the_same_string() {
        let c = channel("presence-chat");
        assert_eq!(
            client_event("client-typing", &c, r#"{"x":1}"#, Some("u1")).text(),
            r#"{"event":"client-typing","channel":"presence-chat","data":"{\"x\":1}","user_id":"u1"}"#
        );
        assert_eq!(
            client_event("client-typing", &c, r#""{\"x\":1}""#, None).text(),
            r#"{"event":"client-typing","channel":"presence-chat","data":"{\"x\":1}"}"#
        );
    }

    #[test]
    fn an_empty_roster_is_an_object_and_never_an_array() {
        let text = presence_succeeded(&channel("presence-a"), &[]).text().to_owned();
        assert!(text.contains(r#"\"hash\":{}"#) && text.contains(r#"\"ids\":[]"#), "{text}");
    }
}
