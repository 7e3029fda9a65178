//! What stands on channels: all of them, one of them, and the deprecated form of the latter.
//!
//! Answers are written by hand: the names of channels hold nothing that JSON escapes, and everything else is a number.
//! `channels` is an object even when empty, and a channel that nobody uses is an answer, not an error.

use std::borrow::Cow;
use std::io::Write as _;

use fulmar_backbone::{Backbone, CachedEvent, ChannelState, Query, Reply as Told};
use fulmar_protocol::app::App;
use fulmar_protocol::name::{ChannelKind, ChannelName};
use fulmar_protocol::publish::{Info, UnknownAttribute};
use fulmar_protocol::query::Query as Parameters;
use fulmar_protocol::signing::{Request, Signed};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Api;
use super::refusal::Refusal;
use super::reply::Reply;

impl Api {
    /// `GET …/channels`: those that are occupied.
    pub(super) async fn channels(&self, app: &App, signed: &Signed<Request<'_>>) -> Result<Reply, Refusal> {
        let prefix = signed.query.get("filter_by_prefix").unwrap_or_default();
        let info = asked(signed.query)?;
        if info.cache {
            return Err(UnknownAttribute { attribute: "cache".to_owned() }.into());
        }
        if info.user_count && !prefix.starts_with("presence-") {
            return Err(Refusal::UserCountUnfiltered);
        }
        check_counts_on(app, info)?;
        let (id, prefix) = (app.id.clone(), prefix.to_owned());
        let (states, is_partial) = match signed.query.get("partial") {
            None | Some("false") => (states(&*self.backbone, Query::Channels { app: id, prefix }).await?, None),
            Some("true") => match ask(&*self.backbone, Query::Reachable { app: id, prefix }).await? {
                Told::Reachable { channels, is_partial } => (channels, Some(is_partial)),
                _ => return Err(Refusal::Unavailable),
            },
            Some(_) => return Err(Refusal::Partial),
        };
        let mut body = Vec::with_capacity(48 + states.len() * 48);
        let listed = states.iter().filter(|state| state.channel.kind().is_listed());
        write_named(&mut body, listed.map(|state| (state, info)));
        if let Some(is_partial) = is_partial {
            body.pop();
            write!(body, r#","partial":{is_partial}}}"#).expect("memory takes any text");
        }
        Ok(Reply::json(body))
    }

    /// `GET …/channels/NAME`.
    pub(super) async fn channel(&self, app: &App, signed: &Signed<Request<'_>>, name: &str) -> Result<Reply, Refusal> {
        let channel = listed_channel(app, name)?;
        let info = asked(signed.query)?;
        check_available(app, channel.kind(), info)?;
        let state = one_state(&*self.backbone, app, &channel).await?;
        let mut body = Vec::with_capacity(96);
        write!(body, r#"{{"occupied":{}"#, state.subscriptions > 0).expect("memory takes any text");
        write_fields(&mut body, &state, info, b",");
        if info.cache {
            let cached = cached(&*self.backbone, app, channel).await?;
            body.extend_from_slice(br#","cache":"#);
            write_cached(&mut body, cached.as_ref());
        }
        body.push(b'}');
        Ok(Reply::json(body))
    }

    /// `GET …/channels/NAME/stats`, deprecated.
    pub(super) async fn channel_stats(&self, app: &App, name: &str) -> Result<Reply, Refusal> {
        let channel = listed_channel(app, name)?;
        let state = one_state(&*self.backbone, app, &channel).await?;
        let (occupied, connections) = (state.subscriptions > 0, state.subscriptions);
        let mut body = Vec::with_capacity(96);
        write!(body, r#"{{"occupied":{occupied}"#).expect("memory takes any text");
        write_fields(&mut body, &state, Info { user_count: channel.kind().is_presence(), ..Info::default() }, b",");
        write!(body, r#","connection_count":{connections}}}"#).expect("memory takes any text");
        Ok(Reply::json(body))
    }
}

/// A channel's name as it stands in a path, unescaped. What is no text then is no channel's name either.
pub(super) fn path_text(segment: &str) -> Cow<'_, str> {
    percent_decode_str(segment).decode_utf8_lossy()
}

/// The channel a path names, if it is of a kind that can be asked about.
///
/// # Errors
/// The name is not valid, or the channel belongs to a single user.
pub(super) fn listed_channel(app: &App, segment: &str) -> Result<ChannelName, Refusal> {
    let name = path_text(segment);
    let channel = ChannelName::parse(&name, app.limits.channel_name_max)
        .map_err(|why| Refusal::ChannelName { name: name.chars().take(app.limits.channel_name_max).collect(), why })?;
    if channel.kind().is_listed() { Ok(channel) } else { Err(Refusal::UserChannel) }
}

fn asked(query: &Parameters<'_>) -> Result<Info, UnknownAttribute> {
    // Libraries join with commas; by hand people write info[]=a&info[]=b.
    let lists = query.all("info").chain(query.all("info[]"));
    lists.map(Info::parse).try_fold(Info::default(), |all, list| {
        list.map(|list| Info {
            subscription_count: all.subscription_count || list.subscription_count,
            user_count: all.user_count || list.user_count,
            cache: all.cache || list.cache,
        })
    })
}

fn check_available(app: &App, kind: ChannelKind, info: Info) -> Result<(), Refusal> {
    if info.user_count && !kind.is_presence() {
        return Err(Refusal::UserCountElsewhere);
    }
    if info.cache && !kind.is_cache() {
        return Err(Refusal::CacheElsewhere);
    }
    check_counts_on(app, info)
}

fn check_counts_on(app: &App, info: Info) -> Result<(), Refusal> {
    if info.subscription_count && !app.subscription_counts { Err(Refusal::SubscriptionCountsOff) } else { Ok(()) }
}

/// Asks the backbone for the states of channels.
///
/// # Errors
/// It cannot say now.
pub(super) async fn states(backbone: &dyn Backbone, query: Query) -> Result<Vec<ChannelState>, Refusal> {
    match ask(backbone, query).await? {
        Told::Channels(states) => Ok(states),
        _ => Err(Refusal::Unavailable),
    }
}

async fn one_state(backbone: &dyn Backbone, app: &App, channel: &ChannelName) -> Result<ChannelState, Refusal> {
    let query = Query::Named { app: app.id.clone(), channels: vec![channel.clone()] };
    states(backbone, query).await?.pop().ok_or(Refusal::Unavailable)
}

async fn cached(backbone: &dyn Backbone, app: &App, channel: ChannelName) -> Result<Option<CachedEvent>, Refusal> {
    match ask(backbone, Query::Cached { app: app.id.clone(), channel }).await? {
        Told::Cached(cached) => Ok(cached),
        _ => Err(Refusal::Unavailable),
    }
}

/// Asks the backbone.
///
/// # Errors
/// It cannot say now.
pub(super) async fn ask(backbone: &dyn Backbone, query: Query) -> Result<Told, Refusal> {
    backbone.query(query).await.map_err(|_| Refusal::Unavailable)
}

/// `{"channels":{NAME:{…},…}}`
pub(super) fn write_named<'a>(out: &mut Vec<u8>, entries: impl Iterator<Item = (&'a ChannelState, Info)>) {
    out.extend_from_slice(br#"{"channels":{"#);
    for (index, (state, info)) in entries.enumerate() {
        let opening: &[u8] = if index == 0 { b"\"" } else { b",\"" };
        for part in [opening, state.channel.as_str().as_bytes(), b"\":"] {
            out.extend_from_slice(part);
        }
        write_counts(out, state, info);
    }
    out.extend_from_slice(b"}}");
}

/// `{"user_count":2,"subscription_count":3}`, or less of it.
pub(super) fn write_counts(out: &mut Vec<u8>, state: &ChannelState, info: Info) {
    out.push(b'{');
    write_fields(out, state, info, b"");
    out.push(b'}');
}

fn write_fields(out: &mut Vec<u8>, state: &ChannelState, info: Info, mut separator: &'static [u8]) {
    let fields = [
        (info.user_count, "user_count", state.members),
        (info.subscription_count, "subscription_count", state.subscriptions),
    ];
    for (_, name, count) in fields.iter().filter(|(wanted, ..)| *wanted) {
        out.extend_from_slice(separator);
        write!(out, r#""{name}":{count}"#).expect("memory takes any text");
        separator = b",";
    }
}

#[derive(Deserialize)]
struct CachedText<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The published string itself, taken out of the frame that subscribers receive: never decoded, hence never changed.
fn write_cached(out: &mut Vec<u8>, cached: Option<&CachedEvent>) {
    let Some(CachedEvent { frame, ttl_s, .. }) = cached else {
        out.extend_from_slice(b"null");
        return;
    };
    let event: CachedText<'_> =
        serde_json::from_str(frame.text()).expect("frames of events are made as JSON with data");
    write!(out, r#"{{"data":{},"ttl":{ttl_s}}}"#, event.data.get()).expect("memory takes any text");
}
