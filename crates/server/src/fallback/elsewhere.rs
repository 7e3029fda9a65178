//! Sessions that are on another node: finding that node, and passing a request on to it.
//!
//! Clients name their sessions themselves, so a name says nothing of the node; whoever meets one that it does not know asks the
//! others, and remembers. Only addresses from leases are ever called. Both questions and requests that are passed on say so in
//! a header, and whoever gets one looks at its own sessions alone: nothing goes round.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fulmar_backbone::redis::lease::Lease;
use hashbrown::HashMap;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HOST, HeaderName, TRANSFER_ENCODING};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::answer::{AnyBody, HEARTBEAT_EVERY};
use super::{Address, Verb};

/// Asks whether a session is here.
pub(crate) const ASKS: HeaderName = HeaderName::from_static("x-fulmar-asks");
/// Comes from a node that does not have the session.
pub(crate) const PASSED_ON: HeaderName = HeaderName::from_static("x-fulmar-passed-on");

/// How long the others have to say whether a session is theirs.
const SAID_WITHIN: Duration = Duration::from_millis(500);
/// How long a connection to another node may take.
const CONNECTED_WITHIN: Duration = Duration::from_millis(500);
/// How long the head of an answer may take that need not wait for anything.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// Sessions whose node is remembered; beyond it the oldest are asked for again.
const KNOWN_MAX: usize = 10_000;

/// Where the other nodes are, and which sessions are there.
pub(crate) struct Elsewhere {
    own: String,
    leases: Box<dyn Fn() -> Vec<Lease> + Send + Sync>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    node_of: HashMap<String, String>,
    order: VecDeque<String>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Other {
    node: String,
    address: String,
}

/// Who has a session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// No node that answers.
    Nobody,
    /// This one.
    There(Other),
    /// It was on a node that is not there any more.
    Gone,
}

/// The node of a session could not be spoken to.
#[derive(Debug)]
pub(crate) struct Unreached;

impl Elsewhere {
    /// `leases` are those of all nodes at the moment it is called.
    pub(crate) fn new(own: String, leases: impl Fn() -> Vec<Lease> + Send + Sync + 'static) -> Self {
        Self { own, leases: Box::new(leases), known: Mutex::default() }
    }

    /// Finds the node of a session that is not here.
    pub(crate) async fn find(&self, session: &str) -> Owner {
        let others = others(&(self.leases)(), &self.own);
        let known = self.locked().node_of.get(session).cloned();
        if let Some(node) = known {
            let there = others.into_iter().find(|other| other.node == node);
            return there.map_or(Owner::Gone, Owner::There);
        }
        let mut asking = JoinSet::new();
        for other in others {
            let (own, path) = (self.own.clone(), path(session, Verb::Send));
            asking.spawn(async move {
                let asked = call(&other.address, &path, (ASKS, &own), Bytes::new(), SAID_WITHIN).await;
                asked.is_ok_and(|(response, _)| response.status() == StatusCode::NO_CONTENT).then_some(other)
            });
        }
        while let Some(answered) = asking.join_next().await {
            if let Ok(Some(other)) = answered {
                self.locked().remember(session, &other.node);
                return Owner::There(other);
            }
        }
        Owner::Nobody
    }

    /// Passes a request on; its answer comes through as it arrives.
    ///
    /// # Errors
    /// When the node cannot be reached in time or no longer knows the session; then it is asked for again next time.
    pub(crate) async fn pass_on(
        &self,
        to: &Other,
        address: Address<'_>,
        body: Bytes,
    ) -> Result<Response<AnyBody>, Unreached> {
        let patience = match address.verb {
            Verb::Poll => HEARTBEAT_EVERY + ANSWERED_WITHIN,
            Verb::Stream | Verb::Send => ANSWERED_WITHIN,
        };
        let path = path(address.session, address.verb);
        match call(&to.address, &path, (PASSED_ON, &self.own), body, patience).await {
            Ok((response, connection)) if response.status() != StatusCode::MISDIRECTED_REQUEST => {
                let mut response =
                    response.map(|body| Either::Right(Either::Right(PassedOn { body: Some(body), connection })));
                for own in [CONNECTION, TRANSFER_ENCODING, HeaderName::from_static("keep-alive")] {
                    response.headers_mut().remove(own);
                }
                Ok(response)
            }
            _ => {
                self.locked().forget(address.session);
                Err(Unreached)
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Known> {
        // Nothing that can panic on a peer's input runs under this lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn remember(&mut self, session: &str, node: &str) {
        if self.node_of.insert(session.to_owned(), node.to_owned()).is_none() {
            self.order.push_back(session.to_owned());
        }
        while self.order.len() > KNOWN_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.node_of.remove(&oldest);
        }
    }

    fn forget(&mut self, session: &str) {
        if self.node_of.remove(session).is_some() {
            self.order.retain(|known| known != session);
        }
    }
}

/// The nodes that may have sessions and can be reached.
fn others(leases: &[Lease], own: &str) -> Vec<Other> {
    let others = leases.iter().filter(|lease| lease.node != own && lease.roles.websocket);
    others.filter_map(|lease| Some(Other { node: lease.node.clone(), address: lease.advertise.clone()? })).collect()
}

/// The path of a session as every node reads it, whatever stands before it elsewhere.
fn path(session: &str, verb: Verb) -> String {
    let verb = match verb {
        Verb::Stream => "xhr_streaming",
        Verb::Poll => "xhr",
        Verb::Send => "xhr_send",
    };
    format!("/app/{session}/{verb}")
}

/// Calls another node once.
async fn call(
    address: &str,
    path: &str,
    (header, own): (HeaderName, &str),
    body: Bytes,
    patience: Duration,
) -> io::Result<(Response<Incoming>, Connection)> {
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let stream = timeout(CONNECTED_WITHIN.min(patience), TcpStream::connect(address)).await.map_err(|_| late())??;
    stream.set_nodelay(true)?;
    let request = Request::post(path).header(HOST, address).header(header, own).body(Full::new(body));
    let request = request.map_err(io::Error::other)?;
    let calling = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // What goes wrong on the way shows in the answer.
        let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        Ok((response, connection))
    };
    timeout(patience, calling).await.map_err(|_| late())?
}

/// A connection to another node: it ends when nobody wants what it brings.
pub(crate) struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of an answer that another node gives.
pub(crate) struct PassedOn {
    body: Option<Incoming>,
    #[expect(dead_code, reason = "held so that it lives as long as the body")]
    connection: Connection,
}

impl Body for PassedOn {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
            // A node that goes away ends its answers; clients then ask again and are told.
            Poll::Ready(Some(Err(_)) | None) => {
                self.body = None;
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fulmar_backbone::redis::settings::Roles;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    const SESSION: &str = "k/7/abcdefgh";

    fn lease(node: &str, advertise: Option<String>) -> Lease {
        Lease { node: node.into(), advertise, ..Lease::default() }
    }

    /// A node by its wire: answers every connection with these pieces, and tells what it was asked.
    async fn node(pieces: Vec<&'static str>) -> (String, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let (say, said) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = vec![0; 4_096];
                let read = stream.read(&mut asked).await.unwrap_or(0);
                if say.send(String::from_utf8_lossy(&asked[..read]).into_owned()).is_err() {
                    return;
                }
                for piece in &pieces {
                    if stream.write_all(piece.as_bytes()).await.is_err() {
                        return;
                    }
                }
                // Stays open, as a stream does, until the other side ends it.
                let _: io::Result<usize> = stream.read(&mut asked).await;
                if say.send("ended".to_owned()).is_err() {
                    return;
                }
            }
        });
        (address, said)
    }

    fn address(verb: Verb) -> Address<'static> {
        Address { key: "k", session: SESSION, verb }
    }

    const HAS: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    const HAS_NOT: &str = "HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n";

    /// NODE-30, NODE-31
    #[test]
    fn only_nodes_that_take_connections_and_say_where_they_are_are_ever_called() {
        let rest_only =
            Lease { roles: Roles { websocket: false, rest: true, webhooks: true }, ..lease("c", Some("c:1".into())) };
        let leases = [lease("own", Some("own:1".into())), lease("b", Some("b:1".into())), rest_only, lease("d", None)];
        assert_eq!(others(&leases, "own"), [Other { node: "b".into(), address: "b:1".into() }]);
    }

    /// NODE-30
    #[tokio::test]
    async fn the_node_of_a_session_is_asked_for_once_and_then_known() {
        let ((has, mut has_said), (has_not, mut has_not_said)) = (node(vec![HAS]).await, node(vec![HAS_NOT]).await);
        let leases = vec![lease("own", None), lease("b", Some(has_not)), lease("c", Some(has.clone()))];
        let elsewhere = Elsewhere::new("own".into(), move || leases.clone());
        let there = Owner::There(Other { node: "c".into(), address: has });
        assert_eq!(elsewhere.find(SESSION).await, there);
        assert_eq!(elsewhere.find(SESSION).await, there);
        let asked = has_said.recv().await.expect("it was asked");
        assert!(
            asked.starts_with("POST /app/k/7/abcdefgh/xhr_send HTTP/1.1") && asked.contains("x-fulmar-asks: own"),
            "{asked}"
        );
        has_not_said.recv().await.expect("it was asked");
        let again = [has_said.try_recv(), has_not_said.try_recv()].into_iter().flatten();
        assert!(again.filter(|said| said != "ended").count() == 0, "nobody is asked twice");
    }

    /// NODE-32
    #[tokio::test]
    async fn an_answer_comes_through_piece_by_piece_and_ends_on_both_sides() {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (there, mut said) = node(vec![head, "2\r\no\n\r\n"]).await;
        let elsewhere = Elsewhere::new("own".into(), Vec::new);
        let other = Other { node: "b".into(), address: there };
        let passing = elsewhere.pass_on(&other, address(Verb::Stream), Bytes::new());
        let mut response = passing.await.expect("it answers");
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::OK, &"text/x".parse().expect("a value"))
        );
        assert!(!response.headers().contains_key(TRANSFER_ENCODING));
        let piece = response.body_mut().frame().await.expect("a piece").expect("it never fails");
        assert_eq!(piece.into_data().expect("no trailers"), "o\n");
        let asked = said.recv().await.expect("it was asked");
        assert!(
            asked.starts_with("POST /app/k/7/abcdefgh/xhr_streaming ") && asked.contains("x-fulmar-passed-on: own")
        );
        drop(response);
        assert_eq!(said.recv().await.as_deref(), Some("ended"), "whoever has the session learns that the client left");
    }

    /// NODE-33
    #[tokio::test]
    async fn a_node_that_has_gone_or_forgot_the_session_is_not_asked_for_ever() {
        let (there, _said) = node(vec![HAS]).await;
        let leases = Arc::new(Mutex::new(vec![lease("b", Some(there.clone()))]));
        let seen = leases.clone();
        let elsewhere = Elsewhere::new("own".into(), move || seen.lock().expect("no panic").clone());
        assert!(matches!(elsewhere.find(SESSION).await, Owner::There(_)));
        leases.lock().expect("no panic").clear();
        assert_eq!(elsewhere.find(SESSION).await, Owner::Gone);
        let (forgot, _said) = node(vec![HAS_NOT]).await;
        for other in [forgot, "127.0.0.1:1".to_owned()] {
            let other = Other { node: "b".into(), address: other };
            assert!(elsewhere.pass_on(&other, address(Verb::Send), Bytes::new()).await.is_err());
        }
        assert_eq!(elsewhere.find(SESSION).await, Owner::Nobody, "it is asked for again");
    }

    /// NODE-30
    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = Known::default();
        for number in 0..=KNOWN_MAX {
            known.remember(&number.to_string(), "b");
        }
        assert_eq!((known.node_of.len(), known.node_of.contains_key("0")), (KNOWN_MAX, false));
    }
}
