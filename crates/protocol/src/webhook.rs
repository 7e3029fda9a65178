//! Webhooks: what an app's own server is told, and the exact bytes it is told with.
//!
//! Here are the facts ([`Edge`]), who wants which of them ([`Webhooks`]), and how they are written ([`Event::json`],
//! [`envelope`]). Whether a fact becomes an event, when, and how often it is tried, is decided elsewhere.
//!
//! Every value but a count and the time is a JSON string: the libraries of Go and .NET refuse a whole request for one
//! number or object where they read text.

use std::fmt::Write as _;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::app::AppId;
use crate::frame::Frame;
use crate::name::{ChannelName, SocketId, UserId};

/// Most events of one request, by the hosted service's documentation.
pub const BATCH_EVENTS_MAX: usize = 20;

/// What can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// The first subscription of a channel.
    ChannelOccupied,
    /// The last one is gone, and none came back.
    ChannelVacated,
    /// The first connection of a user on a presence channel.
    MemberAdded,
    /// The last one is gone, and none came back.
    MemberRemoved,
    /// An accepted event of a client.
    ClientEvent,
    /// Somebody subscribed to a cache channel that has no event.
    CacheMiss,
    /// The number of subscriptions changed.
    SubscriptionCount,
    /// The first connection of a user signed in. Our own addition.
    UserOnline,
    /// The last one is gone, and none came back. Our own addition.
    UserOffline,
}

impl EventKind {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::ChannelOccupied,
        Self::ChannelVacated,
        Self::MemberAdded,
        Self::MemberRemoved,
        Self::ClientEvent,
        Self::CacheMiss,
        Self::SubscriptionCount,
        Self::UserOnline,
        Self::UserOffline,
    ];

    const OF_CHANNELS: [Self; 2] = [Self::ChannelOccupied, Self::ChannelVacated];
    const OF_MEMBERS: [Self; 2] = [Self::MemberAdded, Self::MemberRemoved];
    const OF_USERS: [Self; 2] = [Self::UserOnline, Self::UserOffline];

    /// Its name in requests and in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
            Self::ClientEvent => "client_event",
            Self::CacheMiss => "cache_miss",
            Self::SubscriptionCount => "subscription_count",
            Self::UserOnline => "user_online",
            Self::UserOffline => "user_offline",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A set of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Kinds(u16);

impl Kinds {
    /// None.
    pub const NONE: Self = Self(0);
    /// What an endpoint gets that names no kinds: all that the hosted service has, and nothing of our own.
    pub const HOSTED: Self = Self(0b0_0111_1111);

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `kind` is among them.
    #[must_use]
    pub fn has(self, kind: EventKind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }

    /// Whether the coming or the going of such a subject is among them.
    #[must_use]
    pub fn has_either(self, [came, went]: [EventKind; 2]) -> bool {
        self.has(came) || self.has(went)
    }

    /// Those of either.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// With each coming its going, and with each going its coming: the going of what was never announced is told to nobody, so that whoever
    /// decides what is told must hear of both.
    #[must_use]
    pub fn with_counterparts(self) -> Self {
        let pairs = [EventKind::OF_CHANNELS, EventKind::OF_MEMBERS, EventKind::OF_USERS];
        self.and(pairs.into_iter().filter(|pair| self.has_either(*pair)).flatten().collect())
    }

    /// The kinds, in the order of the documentation.
    pub fn iter(self) -> impl Iterator<Item = EventKind> {
        EventKind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }
}

impl FromIterator<EventKind> for Kinds {
    fn from_iter<I: IntoIterator<Item = EventKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |bits, kind| bits | 1 << kind as u16))
    }
}

/// What comes and goes, each coming followed by one going.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A channel: occupied and vacated.
    Channel(ChannelName),
    /// A user on a presence channel: added and removed.
    Member(ChannelName, UserId),
    /// A signed-in user: online and offline.
    User(UserId),
}

impl Subject {
    /// The channel concerned, if one is.
    #[must_use]
    pub fn channel(&self) -> Option<&ChannelName> {
        match self {
            Self::Channel(channel) | Self::Member(channel, _) => Some(channel),
            Self::User(_) => None,
        }
    }

    /// The kinds of its coming and of its going.
    #[must_use]
    pub fn kinds(&self) -> [EventKind; 2] {
        match self {
            Self::Channel(_) => EventKind::OF_CHANNELS,
            Self::Member(..) => EventKind::OF_MEMBERS,
            Self::User(_) => EventKind::OF_USERS,
        }
    }
}

/// A change as the backbone decides it, where the transition is seen.
#[derive(Debug, Clone)]
pub struct Edge {
    /// Whose.
    pub app: AppId,
    /// What happened.
    pub change: Change,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Change {
    /// The first of its kind came.
    Came(Subject),
    /// The last one went.
    Went(Subject),
    /// A channel has this many subscriptions now.
    Counted(ChannelName, u64),
    /// Somebody subscribed to this cache channel and there was nothing to replay.
    CacheMissed(ChannelName),
    /// A client said this to the others.
    ClientSaid {
        /// Where.
        channel: ChannelName,
        /// What they heard, made by [`crate::server_message::client_event`].
        frame: Frame,
        /// The connection it came from.
        socket_id: SocketId,
    },
}

/// One event of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it tells.
    pub kind: EventKind,
    /// The channel concerned, if one is: what prefixes are held against, and what is kept in order.
    pub channel: Option<ChannelName>,
    /// Its JSON text.
    pub json: Arc<str>,
}

impl Event {
    /// A subject came or went.
    #[must_use]
    pub fn of_subject(subject: &Subject, came: bool) -> Self {
        let [coming, going] = subject.kinds();
        let kind = if came { coming } else { going };
        let fields: &[(&str, &str)] = match subject {
            Subject::Channel(channel) => &[("channel", channel.as_str())],
            Subject::Member(channel, user) => &[("channel", channel.as_str()), ("user_id", user.as_str())],
            Subject::User(user) => &[("user_id", user.as_str())],
        };
        Self { kind, channel: subject.channel().cloned(), json: object(kind, fields, "") }
    }

    /// The number of subscriptions of a channel.
    #[must_use]
    pub fn of_count(channel: &ChannelName, count: u64) -> Self {
        let kind = EventKind::SubscriptionCount;
        let json = object(kind, &[("channel", channel.as_str())], &format!(",\"subscription_count\":{count}"));
        Self { kind, channel: Some(channel.clone()), json }
    }

    /// An empty cache channel.
    #[must_use]
    pub fn of_cache_miss(channel: &ChannelName) -> Self {
        let kind = EventKind::CacheMiss;
        Self { kind, channel: Some(channel.clone()), json: object(kind, &[("channel", channel.as_str())], "") }
    }

    /// What a client said, from the frame that the others heard. `None` for a frame that is none of a client event,
    /// which nobody makes.
    #[must_use]
    pub fn of_client_event(channel: &ChannelName, frame: &Frame, socket_id: SocketId) -> Option<Self> {
        // The texts are moved over as they are written: nothing is unescaped and escaped again.
        #[derive(Deserialize)]
        struct Heard<'a> {
            #[serde(borrow)]
            event: &'a RawValue,
            #[serde(borrow)]
            data: &'a RawValue,
            #[serde(borrow)]
            user_id: Option<&'a RawValue>,
        }
        let heard: Heard<'_> = serde_json::from_str(frame.text()).ok()?;
        let mut rest = format!(",\"event\":{},\"data\":{},\"socket_id\":\"{socket_id}\"", heard.event, heard.data);
        if let Some(user_id) = heard.user_id {
            write!(rest, ",\"user_id\":{user_id}").expect("a String takes any text");
        }
        let kind = EventKind::ClientEvent;
        Some(Self { kind, channel: Some(channel.clone()), json: object(kind, &[("channel", channel.as_str())], &rest) })
    }
}

fn object(kind: EventKind, fields: &[(&str, &str)], rest: &str) -> Arc<str> {
    let mut out = format!("{{\"name\":\"{}\"", kind.name()).into_bytes();
    for (name, value) in fields {
        out.extend_from_slice(format!(",\"{name}\":").as_bytes());
        crate::server_message::push_string(&mut out, value);
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'}');
    String::from_utf8(out).expect("built from text").into()
}

/// The body of a request: what is signed, and what is sent again unchanged when it has to be. `events` are JSON texts.
#[must_use]
pub fn envelope<'a>(time_unix_ms: u64, events: impl IntoIterator<Item = &'a str>) -> String {
    let mut body = format!("{{\"time_ms\":{time_unix_ms},\"events\":[");
    for (n, event) in events.into_iter().enumerate() {
        if n > 0 {
            body.push(',');
        }
        body.push_str(event);
    }
    body.push_str("]}");
    body
}

/// The JSON texts of the events in a body that [`envelope`] made; nothing for any other text.
#[must_use]
pub fn events_of(body: &str) -> Vec<&str> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        events: Vec<&'a RawValue>,
    }
    let events = serde_json::from_str::<Envelope<'_>>(body).map(|envelope| envelope.events).unwrap_or_default();
    events.into_iter().map(RawValue::get).collect()
}

/// Who is told, of one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhooks {
    /// Where to; no URL twice.
    pub endpoints: Vec<Endpoint>,
    /// Whether events are gathered into requests of up to [`BATCH_EVENTS_MAX`].
    pub batching: bool,
    /// Whether endpoints may be on any address at all, this machine's own included.
    pub allow_private: bool,
    /// Networks in which endpoints may be although they are not public.
    pub allow_networks: Vec<IpNet>,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self { endpoints: Vec::new(), batching: true, allow_private: false, allow_networks: Vec::new() }
    }
}

impl Webhooks {
    /// What anybody wants to hear of this channel.
    #[must_use]
    pub fn wanted(&self, channel: &ChannelName) -> Kinds {
        if !channel.kind().is_listed() {
            return Kinds::NONE;
        }
        let on_it = |endpoint: &&Endpoint| channel.as_str().starts_with(endpoint.channel_prefix.as_str());
        self.endpoints.iter().filter(on_it).fold(Kinds::NONE, |kinds, endpoint| kinds.and(endpoint.kinds))
    }

    /// What anybody wants to hear of users.
    #[must_use]
    pub fn wanted_of_users(&self) -> Kinds {
        let unfiltered = self.endpoints.iter().filter(|endpoint| endpoint.channel_prefix.is_empty());
        unfiltered.fold(Kinds::NONE, |kinds, endpoint| kinds.and(endpoint.kinds))
    }

    /// Whether the coming or the going of this subject is for anybody.
    #[must_use]
    pub fn want(&self, subject: &Subject) -> bool {
        let kinds = subject.channel().map_or_else(|| self.wanted_of_users(), |channel| self.wanted(channel));
        kinds.has_either(subject.kinds())
    }
}

/// One receiver.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `http://` or `https://`, with a host, without a user.
    pub url: Arc<str>,
    /// What it is told.
    pub kinds: Kinds,
    /// It is told only of channels whose names begin so.
    pub channel_prefix: String,
    /// Sent with each request. Values are never shown: people put tokens there.
    pub headers: Vec<(String, String)>,
}

impl Endpoint {
    /// Whether this event is for it.
    #[must_use]
    pub fn takes(&self, event: &Event) -> bool {
        let begins = |channel: &ChannelName| channel.as_str().starts_with(self.channel_prefix.as_str());
        self.kinds.has(event.kind) && event.channel.as_ref().map_or(self.channel_prefix.is_empty(), begins)
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Endpoint")
            .field("url", &self.url)
            .field("kinds", &self.kinds)
            .field("channel_prefix", &self.channel_prefix)
            .field("headers", &headers)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Secret;
    use crate::server_message::client_event;
    use crate::signing::sign_webhook;

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name, 200).unwrap()
    }

    fn user(id: &str) -> UserId {
        UserId::parse(id, 128).unwrap()
    }

    fn signed(body: &str, secret: &str) -> String {
        sign_webhook(&Secret::new(secret), body.as_bytes())
    }

    /// HOOK-3, HOOK-4, HOOK-5, vectors V-W1 to V-W4, trap T-44
    #[test]
    fn bodies_and_signatures_are_those_that_were_published() {
        let secret = "7ad3773142a6692b25b8";
        let occupied = Event::of_subject(&Subject::Channel(channel("my-channel")), true);
        let one = envelope(1_327_078_148_132, [&*occupied.json]);
        assert_eq!(one, r#"{"time_ms":1327078148132,"events":[{"name":"channel_occupied","channel":"my-channel"}]}"#);
        assert_eq!(signed(&one, secret), "c19001ae3963ccb13bf618e5b16ba9848e7e74df0993aa0689168e341c6833cf");

        let room = channel("presence-room");
        let frame = client_event("client-yolo", &room, r#"{"yolo":"woot"}"#, Some("u-42"));
        let socket = SocketId::parse("44610.7511910").unwrap().unwrap();
        let said = Event::of_client_event(&room, &frame, socket).unwrap();
        let two = envelope(1_427_233_518_933, [&*said.json]);
        assert_eq!(
            two,
            r#"{"time_ms":1427233518933,"events":[{"name":"client_event","channel":"presence-room","event":"client-yolo","data":"{\"yolo\":\"woot\"}","socket_id":"44610.7511910","user_id":"u-42"}]}"#
        );
        assert_eq!(signed(&two, secret), "419d4ee43ec19af1857aef34774552c65130857c002b41c46630f5207e79f852");

        let added = Event::of_subject(&Subject::Member(room, user("u-42")), true);
        let count = Event::of_count(&channel("my-channel"), 7);
        let miss = Event::of_cache_miss(&channel("cache-x"));
        let three = envelope(1_700_000_000_000, [&*added.json, &*count.json, &*miss.json]);
        assert_eq!(
            three,
            r#"{"time_ms":1700000000000,"events":[{"name":"member_added","channel":"presence-room","user_id":"u-42"},{"name":"subscription_count","channel":"my-channel","subscription_count":7},{"name":"cache_miss","channel":"cache-x"}]}"#
        );
        assert_eq!(signed(&three, secret), "a9da1a6a7a68fe405c02e4f9cb160419e0b5195c4ab5c330b320010d1a9177d4");
        assert_eq!(events_of(&three), [&*added.json, &*count.json, &*miss.json]);
        assert_eq!(
            signed(r#"{"hello":"world"}"#, "secret"),
            "2677ad3e7c090b2fa2c0fb13020d66d5420879b8316eb356a2d60fb9073bc778"
        );
    }

    /// HOOK-4, trap T-44
    #[test]
    fn every_value_but_the_count_is_a_string_whatever_a_client_sent() {
        let room = channel("private-room");
        let socket = SocketId::new(1, 2);
        for (data, expected) in
            [(r#"{"a":[1]}"#, r#""{\"a\":[1]}""#), ("7", r#""7""#), (r#""t\u00e9""#, r#""t\u00e9""#)]
        {
            let event = Event::of_client_event(&room, &client_event("client-e", &room, data, None), socket).unwrap();
            let expected = format!(
                r#"{{"name":"client_event","channel":"private-room","event":"client-e","data":{expected},"socket_id":"{socket}"}}"#
            );
            assert_eq!(*event.json, *expected);
        }
        let odd = Event::of_subject(&Subject::Member(channel("presence-a"), user("\"é")), false);
        let fields: serde_json::Value = serde_json::from_str(&odd.json).unwrap();
        assert_eq!(fields["user_id"], "\"é");
        assert_eq!(fields["name"], "member_removed");
    }

    fn endpoint(kinds: &[EventKind], prefix: &str) -> Endpoint {
        let kinds = kinds.iter().copied().collect();
        Endpoint { url: "http://a/".into(), kinds, channel_prefix: prefix.to_owned(), headers: Vec::new() }
    }

    /// HOOK-21
    #[test]
    fn an_endpoint_hears_what_it_names_of_the_channels_that_begin_as_it_says() {
        let kinds = [EventKind::ChannelOccupied, EventKind::ChannelVacated];
        let hooks = Webhooks {
            endpoints: vec![endpoint(&kinds, "presence-"), endpoint(&[EventKind::CacheMiss], "")],
            ..Webhooks::default()
        };
        let room = channel("presence-room");
        assert!(hooks.wanted(&room).has(EventKind::ChannelVacated) && hooks.wanted(&room).has(EventKind::CacheMiss));
        assert!(!hooks.wanted(&room).has(EventKind::MemberAdded));
        assert_eq!(hooks.wanted(&channel("other")), [EventKind::CacheMiss].into_iter().collect());
        assert!(!hooks.want(&Subject::Channel(channel("other"))) && hooks.want(&Subject::Channel(room.clone())));
        let [on_presence, misses] = [&hooks.endpoints[0], &hooks.endpoints[1]];
        let occupied = Event::of_subject(&Subject::Channel(room), true);
        assert!(on_presence.takes(&occupied) && !misses.takes(&occupied));
        assert!(!on_presence.takes(&Event::of_subject(&Subject::Channel(channel("other")), true)));
    }

    /// HOOK-21
    #[test]
    fn whoever_decides_what_is_told_hears_of_both_edges_where_one_is_wanted() {
        let of = |kinds: &[EventKind]| kinds.iter().copied().collect::<Kinds>();
        let wanted = of(&[EventKind::MemberRemoved, EventKind::CacheMiss, EventKind::UserOnline]).with_counterparts();
        let both = [
            EventKind::MemberAdded,
            EventKind::MemberRemoved,
            EventKind::CacheMiss,
            EventKind::UserOnline,
            EventKind::UserOffline,
        ];
        assert_eq!(wanted, of(&both));
    }

    /// HOOK-22
    #[test]
    fn an_endpoint_that_names_nothing_hears_what_the_hosted_service_has_and_no_more() {
        let names: Vec<&str> = Kinds::HOSTED.iter().map(EventKind::name).collect();
        let expected = "channel_occupied channel_vacated member_added member_removed client_event cache_miss \
                        subscription_count";
        assert_eq!(names.join(" "), expected);
        for kind in EventKind::ALL {
            assert_eq!(EventKind::parse(kind.name()), Some(kind));
        }
        assert_eq!(EventKind::parse("channel_existence"), None);
    }

    /// HOOK-21: what is for one user alone is nobody else's business.
    #[test]
    fn the_channels_of_single_users_are_in_no_webhook() {
        let hooks = Webhooks { endpoints: vec![endpoint(&EventKind::ALL, "")], ..Webhooks::default() };
        assert!(hooks.wanted(&channel("#server-to-user-7")).is_empty());
    }

    /// OPS-9
    #[test]
    fn the_values_of_headers_do_not_show() {
        let mut with_token = endpoint(&[], "");
        with_token.headers.push(("Authorization".to_owned(), "hush".to_owned()));
        let shown = format!("{with_token:?}");
        assert!(shown.contains("Authorization") && !shown.contains("hush"), "{shown}");
    }
}
