//! Channels as a subscriber sees them, as lines of JSON for an operator.
//!
//! It is a session like any other, of the worker that has the fewest, and reads from a line where a client's socket would
//! be; so everything that holds for subscribers holds here, a reader that falls behind being closed included. It takes a
//! seat of the node and none of the app's quota. The channel counts it: an operator who looks is a subscriber, and is in
//! the audit log.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fulmar_protocol::app::App;
use fulmar_protocol::name::{ChannelKind, ChannelName, SocketId};
use fulmar_protocol::query::Query;
use fulmar_protocol::signing::Signer;
use http_body_util::{Either, Full};
use hyper::Response;
use hyper::body::{Body, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::Admin;
use super::calls::Asked;
use super::reply::Failed;
use crate::fallback::line::{Line, Receiver, Signal, Taken};

/// Streams at once.
pub(super) const WATCHES_MAX: usize = 32;
/// Channels of one stream.
const CHANNELS_MAX: usize = 100;
/// What is taken at once of what waits, in characters and the message that passes it.
const TAKEN_AT_ONCE: usize = 16 << 10;
/// How often a stream shows life, and its session is told that somebody reads.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(25);
const SIGN_OF_LIFE: &str = "{\"event\":\"pusher:ping\",\"data\":\"{}\"}\n";
/// Who an operator is on presence channels, who does not say.
const USER_ID: &str = "fulmar-admin";

/// The body of any answer of the admin API.
pub(super) type AnyBody = Either<Full<Bytes>, Watch>;

/// What is to be watched.
struct Wanted {
    channels: Vec<ChannelName>,
    channel_data: String,
}

impl Admin {
    /// Begins a stream, on record like everything that others can notice.
    pub(super) fn watch(&self, asked: &Asked<'_>) -> Result<Watch, Failed> {
        let entry = asked.entry();
        let begun = self.try_watch(asked);
        self.audit.write(&match &begun {
            Ok((_, names)) => entry.acted(names),
            Err(failed) => entry.failed(failed),
        });
        begun.map(|(watch, _)| watch)
    }

    fn try_watch(&self, asked: &Asked<'_>) -> Result<(Watch, Vec<String>), Failed> {
        let app = self.served(&asked.id)?;
        if !app.enabled {
            return Err(Failed::Disabled(asked.id.clone()));
        }
        let wanted = Wanted::of(asked, &app)?;
        let seat = self.watches.clone().try_acquire_owned().map_err(|_| Failed::NoSeat)?;
        let opened = self.edge.open_own_session(&app, asked.cut).ok_or(Failed::NoSeat)?;
        let (line, receiver, socket_id) = opened;
        let said = wanted.channels.iter().map(|channel| subscription(&app, socket_id, channel, &wanted.channel_data));
        // Nobody waits for them to be taken: what comes of them is in the stream.
        let (taken, _) = oneshot::channel();
        line.signal(Signal::Said(said.collect(), taken));
        let names = wanted.channels.iter().map(ToString::to_string).collect();
        Ok((Watch::new(line, receiver, seat), names))
    }
}

impl Wanted {
    fn of(asked: &Asked<'_>, app: &App) -> Result<Self, Failed> {
        let query = Query::parse(asked.head.uri.query().unwrap_or_default())
            .map_err(|_| Failed::Query("the query cannot be read"))?;
        let first = percent_decode_str(&asked.name).decode_utf8_lossy();
        let names = std::iter::once(&*first).chain(query.all("also"));
        let mut channels = names.map(|name| channel(name, app)).collect::<Result<Vec<_>, _>>()?;
        channels.dedup();
        if channels.len() > CHANNELS_MAX {
            return Err(Failed::Channel(format!("one call watches at most {CHANNELS_MAX} channels")));
        }
        let mut member = json!({ "user_id": query.get("user_id").unwrap_or(USER_ID) });
        if let Some(info) = query.get("user_info") {
            let info: &RawValue = serde_json::from_str(info).map_err(|_| Failed::Query("user_info must be JSON"))?;
            member["user_info"] = serde_json::to_value(info).unwrap_or_default();
        }
        Ok(Self { channels, channel_data: member.to_string() })
    }
}

fn channel(name: &str, app: &App) -> Result<ChannelName, Failed> {
    let channel = ChannelName::parse(name, app.limits.channel_name_max)
        .map_err(|why| Failed::Channel(format!("the channel name {name:?} {why}")))?;
    match channel.kind() {
        ChannelKind::ServerToUser => Err(Failed::Channel("channels of single users are theirs alone".to_owned())),
        _ => Ok(channel),
    }
}

/// What an SDK would say.
fn subscription(app: &App, socket_id: SocketId, channel: &ChannelName, member: &str) -> String {
    let mut data = json!({ "channel": channel.as_str() });
    if channel.kind().needs_auth() {
        let member = channel.kind().is_presence().then_some(member);
        data["auth"] = Signer::of(app).sign_channel(socket_id, channel, member).into();
        if let Some(member) = member {
            data["channel_data"] = member.into();
        }
    }
    json!({ "event": "pusher:subscribe", "data": data }).to_string()
}

/// A stream as an answer.
pub(super) fn watched(watch: Watch) -> Response<AnyBody> {
    let mut response = Response::new(Either::Right(watch));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// The body of a stream. Dropping it ends the session.
pub(super) struct Watch {
    line: Arc<Line>,
    receiver: Receiver,
    sign_of_life: Interval,
    is_done: bool,
    _seat: OwnedSemaphorePermit,
}

impl Watch {
    fn new(line: Arc<Line>, receiver: Receiver, seat: OwnedSemaphorePermit) -> Self {
        let first = tokio::time::Instant::now() + SIGN_OF_LIFE_EVERY;
        let mut sign_of_life = interval_at(first, SIGN_OF_LIFE_EVERY);
        sign_of_life.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { line, receiver, sign_of_life, is_done: false, _seat: seat }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match self.receiver.poll_take(context, TAKEN_AT_ONCE) {
                Poll::Ready(Taken::Frames(frames)) => {
                    let lines = lines_of(&frames);
                    if !lines.is_empty() {
                        return Poll::Ready(Some(lines.into()));
                    }
                }
                Poll::Ready(Taken::Replaced | Taken::Over) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        // Only asked for while the socket takes more: who does not read shows no life.
        self.sign_of_life.poll_tick(context).map(|_| {
            self.line.signal(Signal::Heard);
            Some(Bytes::from_static(SIGN_OF_LIFE.as_bytes()))
        })
    }
}

impl Body for Watch {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        let next = self.poll_next(context);
        self.is_done = matches!(next, Poll::Ready(None));
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The messages in frames of the fallback transports, each on a line of its own.
fn lines_of(frames: &[u8]) -> String {
    let mut lines = String::new();
    for frame in frames.split(|byte| *byte == b'\n') {
        match frame.split_first() {
            Some((b'a', messages)) => {
                for message in serde_json::from_slice::<Vec<String>>(messages).unwrap_or_default() {
                    // In JSON a line break can only be space between words.
                    lines.push_str(&message.replace(['\n', '\r'], " "));
                    lines.push('\n');
                }
            }
            Some((b'c', end)) => {
                let (code, reason): (u16, Value) = serde_json::from_slice(end).unwrap_or_default();
                let end = json!({ "event": "fulmar:closed", "data": { "code": code, "message": reason } });
                lines.push_str(&format!("{end}\n"));
            }
            // The engine's pings; this stream shows life at its own pace.
            _ => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fallback::frames;

    /// OPS-38
    #[test]
    fn every_message_is_one_line_and_the_end_is_one_too() {
        let texts = [r#"{"event":"e","data":"a\\nb"}"#, "{\"event\":\"f\",\n\"data\":\"\u{1f989}\"}"];
        let mut written: String = texts.iter().map(|text| frames::message(text)).collect();
        written.push_str(frames::HEARTBEAT);
        written.push_str(&frames::close(fulmar_protocol::close::CloseCode::OVER_CAPACITY, "too \"slow\""));
        let lines = lines_of(written.as_bytes());
        let parsed: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(parsed.len(), 3, "{lines}");
        assert_eq!(parsed[0], serde_json::from_str::<Value>(texts[0]).expect("JSON"));
        assert_eq!(parsed[1]["data"], "\u{1f989}");
        assert_eq!(parsed[2]["data"], json!({ "code": 4100, "message": "too \"slow\"" }));
        assert!(serde_json::from_str::<Value>(SIGN_OF_LIFE).is_ok());
    }
}
