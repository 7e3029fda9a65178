//! The answers to receive and send requests: headers, streams and polls.
//!
//! A streaming answer ends only when its session does or another request takes its place; when it has grown as long as
//! pusher-js reads it, it falls silent, and what comes meanwhile waits for the next request. A poll is answered with what
//! there is, or with the first thing to come.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fulmar_protocol::close::CloseCode;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue,
};
use hyper::{Response, StatusCode};
use tokio::time::{Interval, MissedTickBehavior, interval_at, timeout};

use super::elsewhere::PassedOn;
use super::frames::{self, HEARTBEAT, OPEN, STREAM_UNITS_MAX};
use super::line::{Receiver, Taken};

/// How often a stream shows life, and how long a poll is held: less than the 30 seconds after which pusher-js doubts.
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_secs(25);
/// What a client is told whose session has ended; it opens another at once.
const SESSION_ENDED: &str = "The session has ended, please reconnect";

/// The body of any answer of the edge.
pub(crate) type AnyBody = Either<Full<Bytes>, Either<Stream, PassedOn>>;

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<AnyBody> {
    respond(status, Full::default())
}

/// An answer to a browser that asks whether it may ask.
pub(crate) fn preflight() -> Response<AnyBody> {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, OPTIONS"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// A refusal in words, which scripts of any origin may read.
pub(crate) fn refusal(status: StatusCode, words: &'static str) -> Response<AnyBody> {
    let mut response = respond(status, Full::from(words));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    }
    response
}

/// A receive request for a session that has ended.
pub(crate) fn ended() -> Response<AnyBody> {
    received(Either::Left(Full::from(frames::close(CloseCode::RECONNECT, SESSION_ENDED))))
}

/// A streaming answer.
pub(crate) fn stream(receiver: Receiver) -> Response<AnyBody> {
    let first = tokio::time::Instant::now() + HEARTBEAT_EVERY;
    let mut heartbeat = interval_at(first, HEARTBEAT_EVERY);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    received(Either::Right(Either::Left(Stream { receiver, heartbeat, has_begun: false, is_done: false, units: 0 })))
}

/// The answer to a poll, once there is one.
pub(crate) async fn poll(mut receiver: Receiver) -> Response<AnyBody> {
    let body = if receiver.opens() {
        Bytes::from_static(OPEN.as_bytes())
    } else {
        let taking = poll_fn(|context| receiver.poll_take(context, usize::MAX));
        match timeout(HEARTBEAT_EVERY, taking).await {
            Ok(Taken::Frames(frames)) => frames,
            Ok(Taken::Replaced) | Err(_) => Bytes::from_static(HEARTBEAT.as_bytes()),
            Ok(Taken::Over) => frames::close(CloseCode::RECONNECT, SESSION_ENDED).into(),
        }
    };
    receiver.finish();
    received(Either::Left(Full::from(body)))
}

fn received(body: AnyBody) -> Response<AnyBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/javascript; charset=UTF-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // nginx would collect a stream before it passes it on.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn respond(status: StatusCode, body: Full<Bytes>) -> Response<AnyBody> {
    let mut response = Response::new(Either::Left(body));
    *response.status_mut() = status;
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// The body of a streaming answer.
pub(crate) struct Stream {
    receiver: Receiver,
    heartbeat: Interval,
    has_begun: bool,
    is_done: bool,
    /// Its length so far, as JavaScript counts.
    units: usize,
}

impl Stream {
    fn begin(&mut self) -> Bytes {
        self.has_begun = true;
        let mut start = frames::prelude();
        if self.receiver.opens() {
            start.push_str(OPEN);
        }
        start.into()
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.has_begun {
            return Poll::Ready(Some(self.begin()));
        }
        // pusher-js goes on to the next answer when this one is longer than the limit.
        let units_left = (STREAM_UNITS_MAX + 1).saturating_sub(self.units);
        match self.receiver.poll_take(context, units_left) {
            Poll::Ready(Taken::Frames(frames)) => Poll::Ready(Some(frames)),
            Poll::Ready(Taken::Replaced | Taken::Over) => Poll::Ready(None),
            Poll::Pending if units_left == 0 => Poll::Pending,
            Poll::Pending => self.heartbeat.poll_tick(context).map(|_| Some(Bytes::from_static(HEARTBEAT.as_bytes()))),
        }
    }
}

impl Body for Stream {
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
        match &next {
            Poll::Ready(None) => self.is_done = true,
            Poll::Ready(Some(bytes)) => {
                let was_read_out = self.units > STREAM_UNITS_MAX;
                self.units += frames::units(bytes);
                if self.units > STREAM_UNITS_MAX && !was_read_out {
                    self.receiver.pause();
                }
            }
            Poll::Pending => {}
        }
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
