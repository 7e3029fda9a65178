//! One request of a fallback transport, from its address to its answer.
//!
//! Opens a session by the same facts and through the same gate as a WebSocket handshake; refusals are spoken by the engine,
//! inside the session, because a client that is refused by an HTTP status learns nothing from it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::answer::{self, AnyBody};
use super::elsewhere::{ASKS, Elsewhere, Other, Owner, PASSED_ON, Unreached};
use super::frames;
use super::line::{Line, Signal, WorkerEnd};
use super::sessions::Found;
use super::{Address, Verb};
use crate::edge::{Came, Edge, Guest};
use crate::gate::{Seat, Verdict};
use crate::peer::{client_ip, is_trusted};
use crate::ws::handover::{Handover, Socket};
use crate::ws::handshake::Asked;

/// How long the worker of a session may take to notice a send.
const TAKEN_WITHIN: Duration = Duration::from_millis(3_500);
/// Bytes of a send per byte of the largest message: what escaping and the array around it add at most in practice.
const SEND_BYTES_PER_MESSAGE_BYTE: usize = 3;

const BAD_BODY: &str = "The request's body is too large, too late or broken off\n";

/// The answer to a request for a session that there is no more; the client opens another.
fn gone(verb: Verb) -> Response<AnyBody> {
    match verb {
        Verb::Send => answer::refusal(StatusCode::NOT_FOUND, "There is no such session\n"),
        Verb::Stream | Verb::Poll => answer::ended(),
    }
}

/// The gate lets nobody in, not even to be told so.
struct NoSeat;

impl Edge {
    /// Answers a request whose path is an [`Address`].
    pub(crate) async fn fallback(&self, request: Request<Incoming>, guest: &Guest) -> Response<AnyBody> {
        let (head, body) = request.into_parts();
        let Some(address) = Address::of(head.uri.path(), &self.path_prefix) else {
            return answer::refusal(StatusCode::NOT_FOUND, "Not found\n");
        };
        match head.method {
            Method::POST => {}
            Method::OPTIONS => return answer::preflight(),
            _ => return answer::refusal(StatusCode::METHOD_NOT_ALLOWED, "Sessions are spoken to by POST\n"),
        }
        let is_here = self.sessions.knows(address.session);
        if head.headers.contains_key(ASKS) {
            return answer::empty(if is_here { StatusCode::NO_CONTENT } else { StatusCode::MISDIRECTED_REQUEST });
        }
        if !is_here && head.headers.contains_key(PASSED_ON) {
            return answer::empty(StatusCode::MISDIRECTED_REQUEST);
        }
        if !is_here && let Some(elsewhere) = &self.elsewhere {
            match elsewhere.find(address.session).await {
                Owner::Nobody => {}
                Owner::Gone => return gone(address.verb),
                Owner::There(other) => return self.pass_on(elsewhere, &other, address, body).await,
            }
        }
        match address.verb {
            Verb::Send => self.send(address, body).await,
            Verb::Stream | Verb::Poll => self.receive(address, &head, guest).await,
        }
    }

    async fn pass_on(
        &self,
        elsewhere: &Elsewhere,
        other: &Other,
        address: Address<'_>,
        body: Incoming,
    ) -> Response<AnyBody> {
        let body = match self.read_send(body).await {
            Ok(body) => body,
            Err(status) => return answer::refusal(status, BAD_BODY),
        };
        elsewhere.pass_on(other, address, body).await.unwrap_or_else(|Unreached| gone(address.verb))
    }

    async fn receive(&self, address: Address<'_>, head: &Parts, guest: &Guest) -> Response<AnyBody> {
        let asked = self.asked(address, head);
        let open = || {
            let (seat, is_full) = self.seat(&asked, guest)?;
            Ok((Line::new(self.least_loaded().clone(), self.clock.clone()), (seat, is_full)))
        };
        let found = match self.sessions.receive(address.session, &guest.cut, open) {
            Err(NoSeat) => return answer::refusal(StatusCode::SERVICE_UNAVAILABLE, "Over capacity\n"),
            Ok(found) => found,
        };
        let receiver = match found {
            Found::Ended => return answer::ended(),
            Found::Open(line, receiver) => {
                line.signal(Signal::Heard);
                receiver
            }
            Found::New(line, receiver, (seat, is_full)) => {
                self.open_session(&line, &asked, guest, seat, is_full);
                receiver
            }
        };
        guest.streams.store(address.verb == Verb::Stream, Ordering::Relaxed);
        match address.verb {
            Verb::Stream => answer::stream(receiver),
            Verb::Poll | Verb::Send => answer::poll(receiver).await,
        }
    }

    /// The request as a WebSocket handshake would have been.
    fn asked(&self, address: Address<'_>, head: &Parts) -> Asked {
        let query = head.uri.query().unwrap_or_default();
        let target = format!("{}/app/{}?{query}", self.path_prefix, address.key);
        Asked::of(target, |name| head.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect())
    }

    /// A session takes a seat of its own: its requests come and go, by one connection or several.
    fn seat(&self, asked: &Asked, guest: &Guest) -> Result<(Seat, bool), NoSeat> {
        let peer_is_trusted = is_trusted(guest.came.ip, &self.trusted_proxies);
        let forwarded_for = asked.forwarded_for.as_deref().filter(|_| peer_is_trusted);
        match self.gate.enter(client_ip(guest.came.ip, forwarded_for, &self.trusted_proxies)) {
            Verdict::Welcome(seat) => Ok((seat, false)),
            Verdict::Full(seat) => Ok((seat, true)),
            Verdict::Gone => Err(NoSeat),
        }
    }

    fn open_session(&self, line: &Arc<Line>, asked: &Asked, guest: &Guest, seat: Seat, is_full: bool) {
        let (opening, app_seat, seat) = self.opening(asked, Came { is_full, ..guest.came }, seat);
        line.take_seat(seat);
        let socket = Socket::Fallback(WorkerEnd::new(line.clone()));
        let (response, leftover) = (Vec::new(), Vec::new());
        line.inbox().adopt(Handover { socket, response, leftover, opening, seat: None, app_seat });
    }

    async fn send(&self, address: Address<'_>, body: Incoming) -> Response<AnyBody> {
        let not_found = || gone(Verb::Send);
        let Some(line) = self.sessions.find(address.session) else { return not_found() };
        let body = match self.read_send(body).await {
            Ok(body) => body,
            Err(status) => {
                if status == StatusCode::PAYLOAD_TOO_LARGE {
                    line.signal(Signal::TooBig);
                }
                return answer::refusal(status, BAD_BODY);
            }
        };
        let Some(texts) = frames::sent(&body) else {
            return answer::refusal(StatusCode::BAD_REQUEST, "The request's body must be an array of strings\n");
        };
        if texts.iter().any(|text| text.len() > self.message_bytes_max) {
            line.signal(Signal::TooBig);
            return answer::refusal(StatusCode::PAYLOAD_TOO_LARGE, "A message is too large\n");
        }
        let (taken, is_taken) = oneshot::channel();
        line.signal(Signal::Said(texts, taken));
        match timeout(TAKEN_WITHIN, is_taken).await {
            Ok(Ok(())) => answer::empty(StatusCode::NO_CONTENT),
            Ok(Err(_)) => not_found(),
            Err(_) => answer::refusal(StatusCode::SERVICE_UNAVAILABLE, "The message was not taken in time\n"),
        }
    }

    async fn read_send(&self, body: Incoming) -> Result<Bytes, StatusCode> {
        let limit = self.message_bytes_max.saturating_mul(SEND_BYTES_PER_MESSAGE_BYTE);
        let reading = Limited::new(body, limit).collect();
        match timeout(self.request_timeout, reading).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
            Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
            Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
        }
    }
}
