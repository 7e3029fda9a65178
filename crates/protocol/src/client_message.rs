//! What a client may say over its connection, parsed.
//!
//! JSON is parsed properly, never searched by substring: SDKs differ in key order and white space. `data` of the
//! commands may be an object or a string holding one. This file knows shapes, not permissions: who may do what is the
//! session's business.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use serde_json::value::RawValue;

use crate::app::{App, AppLimits};
use crate::exchange::Member;
use crate::name::{NameError, UserId};

/// One message of a client.
#[derive(Debug)]
pub enum ClientMessage<'a> {
    /// `pusher:subscribe`.
    Subscribe(Subscribe<'a>),
    /// `pusher:unsubscribe`.
    Unsubscribe {
        /// The channel's name, unchecked.
        channel: Cow<'a, str>,
    },
    /// `pusher:ping`: to be answered.
    Ping,
    /// `pusher:pong`: a sign of life.
    Pong,
    /// `pusher:signin`.
    SignIn(SignIn<'a>),
    /// An event for the other members of a channel; its name begins with `client-`.
    ClientEvent(ClientEvent<'a>),
    /// A well-formed message that means nothing here.
    Unsupported {
        /// What it called itself.
        event: Cow<'a, str>,
    },
}

/// `pusher:subscribe`, its fields unchecked.
#[derive(Debug)]
pub struct Subscribe<'a> {
    /// The channel's name.
    pub channel: Cow<'a, str>,
    /// `KEY:HEX`, as the application's auth endpoint returned it; empty counts as absent.
    pub auth: Option<Cow<'a, str>>,
    /// The signed text, exactly as received after decoding the outer JSON string.
    pub channel_data: Option<Cow<'a, str>>,
}

/// `pusher:signin`, its fields unchecked.
#[derive(Debug)]
pub struct SignIn<'a> {
    /// `KEY:HEX`, as the application's auth endpoint returned it.
    pub auth: Cow<'a, str>,
    /// The signed text, exactly as received after decoding the outer JSON string.
    pub user_data: Cow<'a, str>,
}

/// An event for the other members of a channel.
#[derive(Debug)]
pub struct ClientEvent<'a> {
    /// The event's name.
    pub event: Cow<'a, str>,
    /// The channel's name, unchecked.
    pub channel: Option<Cow<'a, str>>,
    /// JSON source text of the data, untouched; `null` counts as given, missing does not.
    pub data: Option<&'a str>,
}

/// Why a text is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not a JSON object with a string `event`.
    #[error("Invalid message: expected a JSON object with a string 'event'")]
    NotAMessage,
    /// A command lacks a field or has it in another type.
    #[error("Missing parameter: data.{0}")]
    MissingField(&'static str),
}

/// A JSON string, borrowed from the input where it holds no escapes.
#[derive(Debug, Default)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(v.to_owned())))
            }
            fn visit_string<E>(self, v: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(v)))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow, default, deserialize_with = "given")]
    channel: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "given")]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CommandData<'a> {
    #[serde(borrow, default)]
    channel: Option<&'a RawValue>,
    #[serde(borrow, default)]
    auth: Option<&'a RawValue>,
    #[serde(borrow, default)]
    channel_data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    user_data: Option<&'a RawValue>,
}

/// Tells `null`, which was given, from a field that was not.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads an object. Derived code takes a list in its place as well, in the order of the fields; here it is none.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    let is_object = text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{');
    if is_object { serde_json::from_str(text).ok() } else { None }
}

/// The text of a JSON string; nothing for any other value.
fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

impl<'a> ClientMessage<'a> {
    /// Parses one text message.
    ///
    /// # Errors
    /// [`Malformed`], whose text is fit for the client; the connection stays open.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let envelope: Envelope<'a> = object(text).ok_or(Malformed::NotAMessage)?;
        let event = envelope.event.0;
        match &*event {
            "pusher:ping" => Ok(Self::Ping),
            "pusher:pong" => Ok(Self::Pong),
            "pusher:subscribe" => {
                let Fields { channel, auth, channel_data, .. } = command_fields(envelope.data, "channel")?;
                let channel = channel.ok_or(Malformed::MissingField("channel"))?;
                Ok(Self::Subscribe(Subscribe { channel, auth: auth.filter(|auth| !auth.is_empty()), channel_data }))
            }
            "pusher:unsubscribe" => {
                let fields = command_fields(envelope.data, "channel")?;
                Ok(Self::Unsubscribe { channel: fields.channel.ok_or(Malformed::MissingField("channel"))? })
            }
            "pusher:signin" => {
                let fields = command_fields(envelope.data, "auth")?;
                let auth = fields.auth.ok_or(Malformed::MissingField("auth"))?;
                let user_data = fields.user_data.ok_or(Malformed::MissingField("user_data"))?;
                Ok(Self::SignIn(SignIn { auth, user_data }))
            }
            name if name.starts_with("client-") => Ok(Self::ClientEvent(ClientEvent {
                event,
                channel: envelope.channel.and_then(text_of),
                data: envelope.data.map(RawValue::get),
            })),
            _ => Ok(Self::Unsupported { event }),
        }
    }
}

/// The fields of a command, whose `data` is an object or a string that holds one.
#[derive(Default)]
struct Fields<'a> {
    channel: Option<Cow<'a, str>>,
    auth: Option<Cow<'a, str>>,
    channel_data: Option<Cow<'a, str>>,
    user_data: Option<Cow<'a, str>>,
}

/// `needed` is what the client is told to be missing when there is no object to look into.
fn command_fields<'a>(data: Option<&'a RawValue>, needed: &'static str) -> Result<Fields<'a>, Malformed> {
    let Some(raw) = data else { return Ok(Fields::default()) };
    let Some(inner) = text_of(raw) else { return Fields::read(raw.get(), needed) };
    let fields = Fields::read(&inner, needed)?;
    let owned = |text: Option<Cow<'_, str>>| text.map(|text| Cow::Owned(text.into_owned()));
    Ok(Fields {
        channel: owned(fields.channel),
        auth: owned(fields.auth),
        channel_data: owned(fields.channel_data),
        user_data: owned(fields.user_data),
    })
}

impl<'a> Fields<'a> {
    fn read(text: &'a str, needed: &'static str) -> Result<Self, Malformed> {
        let data: CommandData<'a> = object(text).ok_or(Malformed::MissingField(needed))?;
        let text = |field: Option<&'a RawValue>, name| {
            field.map(|raw| text_of(raw).ok_or(Malformed::MissingField(name))).transpose()
        };
        Ok(Self {
            channel: text(data.channel, "channel")?,
            auth: text(data.auth, "auth")?,
            channel_data: text(data.channel_data, "channel_data")?,
            user_data: text(data.user_data, "user_data")?,
        })
    }
}

/// Why `channel_data` does not name a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Not a JSON object.
    #[error("channel_data must be a JSON object with a user_id")]
    NotAnObject,
    /// No `user_id`, or neither a string nor a number.
    #[error("channel_data must contain a user_id that is a string or a number")]
    NoUserId,
    /// The id breaks the rules for user ids.
    #[error("user_id {0}")]
    UserId(NameError),
    /// `user_info` is larger than the app allows.
    #[error("user_info is larger than {max} bytes")]
    UserInfoTooLarge {
        /// The limit that applied.
        max: usize,
    },
}

#[derive(Deserialize)]
struct ChannelData<'a> {
    #[serde(borrow, default)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    user_info: Option<&'a RawValue>,
}

/// Reads who joins a presence channel. A numeric `user_id` becomes its literal text, digits unchanged; `user_info` is
/// kept as JSON source text.
///
/// # Errors
/// See [`MemberError`].
pub fn parse_member(channel_data: &str, limits: &AppLimits) -> Result<Member, MemberError> {
    let data: ChannelData<'_> = object(channel_data).ok_or(MemberError::NotAnObject)?;
    let raw_id = data.user_id.map(RawValue::get).ok_or(MemberError::NoUserId)?;
    let id: Cow<'_, str> = match raw_id.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<Text<'_>>(raw_id).map_err(|_| MemberError::NoUserId)?.0,
        Some(b'-' | b'0'..=b'9') => Cow::Borrowed(raw_id),
        _ => return Err(MemberError::NoUserId),
    };
    let user_id = UserId::parse(&id, limits.user_id_max).map_err(MemberError::UserId)?;
    let user_info = data.user_info.map(RawValue::get).filter(|info| *info != "null");
    let max = limits.presence_user_info_bytes_max;
    if user_info.is_some_and(|info| info.len() > max) {
        return Err(MemberError::UserInfoTooLarge { max });
    }
    Ok(Member { user_id, user_info: user_info.map(Arc::from) })
}

/// Who signs in, as the application says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserData {
    /// Who.
    pub user_id: UserId,
    /// JSON text about the user, for presence channels; passed through unchanged.
    pub user_info: Option<Arc<str>>,
    /// Whom the user watches: the first of the list, no id twice, at most the app's `watchlist_max`. Empty where the app
    /// has no watchlists.
    pub watchlist: Vec<UserId>,
    /// Whether the list was longer than that.
    pub is_watchlist_cut: bool,
}

/// Why `user_data` does not name a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserDataError {
    /// Not a JSON object.
    #[error("user_data must be a JSON object with an id")]
    NotAnObject,
    /// No `id`, or not a string: SDKs accept nothing else.
    #[error("user_data must contain an id that is a string")]
    NoId,
    /// The id breaks the rules for user ids.
    #[error("id {0}")]
    UserId(NameError),
    /// Not a list of strings, or an entry that breaks the rules for user ids.
    #[error("watchlist must be a list of user ids")]
    Watchlist,
}

#[derive(Deserialize)]
struct RawUserData<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    user_info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    watchlist: Option<&'a RawValue>,
}

/// Reads who signs in. Fields that mean nothing here are left alone. The size of `user_info` is judged where it is used.
///
/// # Errors
/// See [`UserDataError`].
pub fn parse_user_data(user_data: &str, app: &App) -> Result<UserData, UserDataError> {
    if !user_data.trim_start().starts_with('{') {
        return Err(UserDataError::NotAnObject);
    }
    let data: RawUserData<'_> = object(user_data).ok_or(UserDataError::NotAnObject)?;
    let id = data.id.ok_or(UserDataError::NoId)?;
    let id = serde_json::from_str::<Text<'_>>(id.get()).map_err(|_| UserDataError::NoId)?.0;
    let user_id = UserId::parse(&id, app.limits.user_id_max).map_err(UserDataError::UserId)?;
    let user_info = data.user_info.map(RawValue::get).filter(|info| *info != "null").map(Arc::from);
    let (watchlist, is_watchlist_cut) = match data.watchlist.map(RawValue::get).filter(|list| *list != "null") {
        Some(list) if app.watchlist => parse_watchlist(list, &app.limits)?,
        _ => (Vec::new(), false),
    };
    Ok(UserData { user_id, user_info, watchlist, is_watchlist_cut })
}

/// The first ids of the list, and whether there were more. Bounded by the size of a message until it is cut.
fn parse_watchlist(list: &str, limits: &AppLimits) -> Result<(Vec<UserId>, bool), UserDataError> {
    let given: Vec<Text<'_>> = serde_json::from_str(list).map_err(|_| UserDataError::Watchlist)?;
    let mut watched: Vec<UserId> = Vec::with_capacity(given.len().min(limits.watchlist_max));
    let mut seen = HashSet::new();
    for id in &given {
        if !seen.insert(id.0.as_ref()) {
            continue;
        }
        if watched.len() >= limits.watchlist_max {
            return Ok((watched, true));
        }
        watched.push(UserId::parse(&id.0, limits.user_id_max).map_err(|_| UserDataError::Watchlist)?);
    }
    Ok((watched, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribe(text: &str) -> Subscribe<'_> {
        match ClientMessage::parse(text) {
            Ok(ClientMessage::Subscribe(subscribe)) => subscribe,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_subscribe_is_understood_in_every_shape_sdks_send() {
        let js = subscribe(r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"my-channel"}}"#);
        assert_eq!((js.channel.as_ref(), js.auth.is_none()), ("my-channel", true));
        let java = subscribe(
            r#"{"event": "pusher:subscribe", "data": {"channel_data":"{\"user_id\":\"7\"}","auth":"k:s","channel":"presence-a"}}"#,
        );
        assert_eq!(java.channel_data.as_deref(), Some(r#"{"user_id":"7"}"#));
        let stringified = subscribe(r#"{"event":"pusher:subscribe","data":"{\"channel\":\"a\",\"auth\":\"k:s\"}"}"#);
        assert_eq!((stringified.channel.as_ref(), stringified.auth.as_deref()), ("a", Some("k:s")));
        let nulls = subscribe(r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":null,"channel_data":null}}"#);
        assert!(nulls.auth.is_none() && nulls.channel_data.is_none());
    }

    #[test]
    fn pings_are_recognised_with_and_without_data() {
        for ping in [
            r#"{"event":"pusher:ping","data":{}}"#,
            r#"{"event": "pusher:ping"}"#,
            r#"{"data":"{}","event":"pusher:ping"}"#,
            r#"{"event":"\u0070usher:ping"}"#,
        ] {
            assert!(matches!(ClientMessage::parse(ping), Ok(ClientMessage::Ping)), "{ping}");
        }
    }

    #[test]
    fn client_event_data_stays_the_source_text() {
        let text = r#"{"event":"client-x","channel":"private-a","data":{"b": [1, 2.50]}}"#;
        let Ok(ClientMessage::ClientEvent(event)) = ClientMessage::parse(text) else { panic!() };
        assert_eq!(event.data, Some(r#"{"b": [1, 2.50]}"#));
        let Ok(ClientMessage::ClientEvent(event)) = ClientMessage::parse(r#"{"event":"client-x"}"#) else { panic!() };
        assert!(event.data.is_none() && event.channel.is_none());
        let odd = r#"{"event":"client-x","channel":7,"data":null}"#;
        let Ok(ClientMessage::ClientEvent(event)) = ClientMessage::parse(odd) else { panic!() };
        assert_eq!((event.data, event.channel), (Some("null"), None));
    }

    #[test]
    fn what_is_no_message_is_refused_with_a_text_for_the_client() {
        let list = r#"["pusher:ping"]"#;
        for bad in
            ["", "nonsense", "[]", list, "5", "{}", r#"{"event":5}"#, r#"{"event":null}"#, "{\"event\":\"a\"", "\"x\""]
        {
            assert_eq!(ClientMessage::parse(bad).err(), Some(Malformed::NotAMessage), "{bad}");
        }
        for bad in [
            r#"{"event":"pusher:subscribe"}"#,
            r#"{"event":"pusher:subscribe","data":{}}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":5}}"#,
            r#"{"event":"pusher:unsubscribe","data":[]}"#,
            r#"{"event":"pusher:subscribe","data":"x"}"#,
            r#"{"event":"pusher:subscribe","data":["a"]}"#,
        ] {
            assert_eq!(ClientMessage::parse(bad).err(), Some(Malformed::MissingField("channel")), "{bad}");
        }
        let bad = r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":7}}"#;
        assert_eq!(ClientMessage::parse(bad).err(), Some(Malformed::MissingField("auth")));
        let foreign = r#"{"event":"hello"}"#;
        assert!(matches!(ClientMessage::parse(foreign), Ok(ClientMessage::Unsupported { .. })));
    }

    #[test]
    fn a_numeric_user_id_becomes_its_literal_text() {
        let limits = AppLimits::default();
        for (given, id) in [
            (r#"{"user_id":10}"#, "10"),
            (r#"{"user_id":12345678901234567890123}"#, "12345678901234567890123"),
            (r#"{"user_id":"u-1"}"#, "u-1"),
            (r#"{"user_id": "\u00e9-1"}"#, "é-1"),
        ] {
            assert_eq!(parse_member(given, &limits).map(|m| m.user_id.as_str().to_owned()), Ok(id.to_owned()));
        }
        let member = parse_member(r#"{"user_id":1,"user_info":{"name": "Ana"}}"#, &limits).expect("valid");
        assert_eq!(member.user_info.as_deref(), Some(r#"{"name": "Ana"}"#));
    }

    #[test]
    fn a_member_without_a_usable_id_or_with_too_much_info_is_refused() {
        let limits = AppLimits::default();
        for bad in ["x", r#"["ann"]"#, r#""ann""#, "7"] {
            assert_eq!(parse_member(bad, &limits), Err(MemberError::NotAnObject), "{bad}");
        }
        for bad in ["{}", r#"{"user_id":null}"#, r#"{"user_id":[1]}"#, r#"{"user_id":true}"#] {
            assert_eq!(parse_member(bad, &limits), Err(MemberError::NoUserId), "{bad}");
        }
        assert_eq!(parse_member(r#"{"user_id":""}"#, &limits), Err(MemberError::UserId(NameError::Empty)));
        let long = format!(r#"{{"user_id":"{}"}}"#, "u".repeat(129));
        assert!(matches!(parse_member(&long, &limits), Err(MemberError::UserId(_))));
        let fits = format!(r#"{{"user_id":1,"user_info":"{}"}}"#, "i".repeat(1_022));
        assert!(parse_member(&fits, &limits).is_ok());
        let large = format!(r#"{{"user_id":1,"user_info":"{}"}}"#, "i".repeat(1_023));
        assert_eq!(parse_member(&large, &limits), Err(MemberError::UserInfoTooLarge { max: 1_024 }));
    }

    fn user_data(text: &str, app: &App) -> Result<(String, Option<String>, Vec<String>, bool), UserDataError> {
        let data = parse_user_data(text, app)?;
        let watchlist = data.watchlist.iter().map(|id| id.as_str().to_owned()).collect();
        let user_info = data.user_info.map(|info| info.as_ref().to_owned());
        Ok((data.user_id.as_str().to_owned(), user_info, watchlist, data.is_watchlist_cut))
    }

    /// WS-125
    #[test]
    fn a_sign_in_is_understood_with_data_as_an_object_and_as_a_string() {
        for text in [
            r#"{"event":"pusher:signin","data":{"auth":"k:s","user_data":"{\"id\":\"u\"}"}}"#,
            r#"{"event": "pusher:signin", "data": "{\"user_data\":\"{\\\"id\\\":\\\"u\\\"}\",\"auth\":\"k:s\"}"}"#,
        ] {
            let Ok(ClientMessage::SignIn(signin)) = ClientMessage::parse(text) else { panic!("{text}") };
            assert_eq!((signin.auth.as_ref(), signin.user_data.as_ref()), ("k:s", r#"{"id":"u"}"#));
        }
        for (bad, field) in [
            (r#"{"event":"pusher:signin"}"#, "auth"),
            (r#"{"event":"pusher:signin","data":[]}"#, "auth"),
            (r#"{"event":"pusher:signin","data":{"auth":"k:s"}}"#, "user_data"),
        ] {
            assert_eq!(ClientMessage::parse(bad).err(), Some(Malformed::MissingField(field)), "{bad}");
        }
    }

    /// WS-125, WS-132, WS-134
    #[test]
    fn user_data_names_a_user_and_whom_the_user_watches() {
        let mut app = App::new("1", "k", "s");
        app.limits.watchlist_max = 3;
        let text = r#"{"id":"u","user_info":{"name": "Ana"},"watchlist":["a","b","a"],"role":[1]}"#;
        let watched = vec!["a".to_owned(), "b".to_owned()];
        let info = Some(r#"{"name": "Ana"}"#.to_owned());
        assert_eq!(user_data(text, &app), Ok(("u".to_owned(), info, watched, false)));
        let long = r#"{"watchlist":["a","b","c","c","d","e"],"id":"u"}"#;
        let first = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(user_data(long, &app), Ok(("u".to_owned(), None, first, true)));
        app.watchlist = false;
        assert_eq!(user_data(long, &app), Ok(("u".to_owned(), None, Vec::new(), false)));
    }

    /// WS-126
    #[test]
    fn user_data_without_a_usable_id_or_list_is_refused() {
        let app = App::new("1", "k", "s");
        for (bad, why) in [
            ("x", UserDataError::NotAnObject),
            (r#"["u"]"#, UserDataError::NotAnObject),
            ("{}", UserDataError::NoId),
            (r#"{"id":7}"#, UserDataError::NoId),
            (r#"{"id":""}"#, UserDataError::UserId(NameError::Empty)),
            (r#"{"id":"u","watchlist":"a"}"#, UserDataError::Watchlist),
            (r#"{"id":"u","watchlist":["a",7]}"#, UserDataError::Watchlist),
            (r#"{"id":"u","watchlist":[""]}"#, UserDataError::Watchlist),
        ] {
            assert_eq!(user_data(bad, &app), Err(why), "{bad}");
        }
        assert!(user_data(r#"{"id":"u","user_info":null,"watchlist":null}"#, &app).is_ok());
    }
}
