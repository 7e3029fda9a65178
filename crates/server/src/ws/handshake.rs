//! The head of a connection's first request: is it a WebSocket handshake, and what is answered?
//!
//! Most connections are upgrades, and their head comes in one piece: it is read here, without the machinery of a whole
//! HTTP server. Anything else is handed on, untouched. Upgrades that come later on a kept-alive connection are read by
//! hyper and judged by the same [`Upgrade::of`].

use fulmar_protocol::websocket::{accept_key, is_handshake_key};

/// Headers a request may have.
const HEADERS_MAX: usize = 64;
/// The subprotocol that the Swift SDK offers begins so.
const OUR_SUBPROTOCOL: &str = "pusher-channels-protocol-";

/// What the first bytes of a connection are.
#[derive(Debug)]
pub(crate) enum Head {
    /// The head has not ended yet.
    Incomplete,
    /// Not an upgrade to WebSocket, or not HTTP at all: somebody else answers.
    Other,
    /// A WebSocket handshake.
    Upgrade {
        /// What it asks for, or why it cannot be had.
        upgrade: Result<Upgrade, BadHandshake>,
        /// Bytes that the head took.
        head_bytes: usize,
    },
}

/// A valid WebSocket handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upgrade {
    pub(crate) asked: Asked,
    /// Answer to the client's key.
    accept: String,
    /// The one that is echoed, if any was offered.
    subprotocol: Option<String>,
}

/// What a request to open a session asks for, and what it says of whoever asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Path and query.
    pub(crate) target: String,
    pub(crate) origin: Option<String>,
    /// All of `X-Forwarded-For`, joined; for whoever trusts the peer.
    pub(crate) forwarded_for: Option<String>,
    /// Whether `X-Forwarded-Proto` says that the client spoke TLS.
    pub(crate) is_forwarded_tls: bool,
}

/// Why a request that wants to be a WebSocket handshake is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHandshake {
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
    #[error("a WebSocket handshake is a GET request of HTTP/1.1")]
    Method,
    #[error("a WebSocket handshake has the header Connection: Upgrade")]
    Connection,
    #[error("the head of the request is too large")]
    TooLarge,
}

impl BadHandshake {
    /// The HTTP status that says so.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Version => 426,
            Self::TooLarge => 431,
            Self::Key | Self::Method | Self::Connection => 400,
        }
    }

    /// What the answer says beyond the status.
    pub(crate) fn headers(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        (self == Self::Version).then_some(("sec-websocket-version", "13")).into_iter()
    }

    /// The whole answer.
    pub(crate) fn response(self) -> Vec<u8> {
        let status = match self.status() {
            426 => "426 Upgrade Required",
            431 => "431 Request Header Fields Too Large",
            _ => "400 Bad Request",
        };
        let extra: String = self.headers().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let body = format!("{self}\n");
        format!(
            "HTTP/1.1 {status}\r\n{extra}Content-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// Looks at the first bytes of a connection.
pub(crate) fn look(bytes: &[u8]) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Head::Incomplete,
        // hyper finds the same fault and has the words for it.
        Err(_) => return Head::Other,
    };
    let find = |name: &str| {
        let values = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        values.map(|header| header.value).collect::<Vec<_>>()
    };
    if !wants_websocket(&find("upgrade")) {
        return Head::Other;
    }
    let is_get = request.method == Some("GET") && request.version == Some(1);
    Head::Upgrade { upgrade: Upgrade::of(request.path.unwrap_or("/"), is_get, find), head_bytes }
}

/// Whether these values of the `Upgrade` header ask for a WebSocket.
pub(crate) fn wants_websocket(values: &[&[u8]]) -> bool {
    names_token(values, b"websocket")
}

/// Whether one of these values, each a list, has this token.
fn names_token(values: &[&[u8]], token: &[u8]) -> bool {
    let mut tokens = values.iter().flat_map(|value| value.split(|byte| *byte == b','));
    tokens.any(|found| found.trim_ascii().eq_ignore_ascii_case(token))
}

impl Upgrade {
    /// Judges a handshake. `find` gives all values of a header.
    pub(crate) fn of<'a>(
        target: &str,
        is_get: bool,
        find: impl Fn(&str) -> Vec<&'a [u8]>,
    ) -> Result<Self, BadHandshake> {
        let text = |name: &str| joined(&find, name);
        if !is_get {
            return Err(BadHandshake::Method);
        }
        if !names_token(&find("connection"), b"upgrade") {
            return Err(BadHandshake::Connection);
        }
        if text("sec-websocket-version").as_deref() != Some("13") {
            return Err(BadHandshake::Version);
        }
        let key = text("sec-websocket-key").filter(|key| is_handshake_key(key)).ok_or(BadHandshake::Key)?;
        let offered = text("sec-websocket-protocol");
        Ok(Self {
            asked: Asked::of(target.to_owned(), &find),
            accept: accept_key(&key),
            subprotocol: offered.as_deref().and_then(choose_subprotocol).map(str::to_owned),
        })
    }

    /// The headers of the answer beyond `Upgrade` and `Connection`.
    pub(crate) fn answer_headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let accept = std::iter::once(("sec-websocket-accept", self.accept.as_str()));
        accept.chain(self.subprotocol.as_deref().map(|chosen| ("sec-websocket-protocol", chosen)))
    }

    /// The whole 101 answer.
    pub(crate) fn response(&self) -> Vec<u8> {
        let mut response = Vec::with_capacity(192);
        response
            .extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        for (name, value) in self.answer_headers() {
            for part in [name, ": ", value, "\r\n"] {
                response.extend_from_slice(part.as_bytes());
            }
        }
        response.extend_from_slice(b"\r\n");
        response
    }
}

impl Asked {
    /// Collects it. `find` gives all values of a header.
    pub(crate) fn of<'a>(target: String, find: impl Fn(&str) -> Vec<&'a [u8]>) -> Self {
        let text = |name: &str| joined(&find, name);
        Self {
            target,
            origin: text("origin"),
            forwarded_for: text("x-forwarded-for"),
            is_forwarded_tls: text("x-forwarded-proto").is_some_and(|proto| {
                let first = proto.split(',').next().unwrap_or_default().trim();
                first.eq_ignore_ascii_case("https") || first.eq_ignore_ascii_case("wss")
            }),
        }
    }
}

/// All values of a header as one list.
fn joined<'a>(find: impl Fn(&str) -> Vec<&'a [u8]>, name: &str) -> Option<String> {
    let values: Vec<&str> = find(name).into_iter().filter_map(|v| str::from_utf8(v).ok()).map(str::trim).collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// Browsers drop a connection when they offered subprotocols and none is echoed, and when one is echoed that they did
/// not offer: so exactly one of those offered, ours if it is among them.
fn choose_subprotocol(offered: &str) -> Option<&str> {
    let is_token = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?={}".contains(c);
    let mut valid = offered.split(',').map(str::trim).filter(|p| !p.is_empty() && p.chars().all(is_token));
    let first = valid.clone().next();
    valid.find(|protocol| protocol.starts_with(OUR_SUBPROTOCOL)).or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(extra: &str) -> String {
        format!(
            "GET /app/k?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
        )
    }

    fn upgrade(text: &str) -> Result<Upgrade, BadHandshake> {
        match look(text.as_bytes()) {
            Head::Upgrade { upgrade, head_bytes } => {
                assert_eq!(head_bytes, text.len());
                upgrade
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_answer_is_the_one_of_the_rfc_and_a_head_may_come_in_pieces() {
        let text = request("");
        for cut in 0..text.len() {
            assert!(matches!(look(&text.as_bytes()[..cut]), Head::Incomplete), "{cut}");
        }
        let response = String::from_utf8(upgrade(&text).expect("valid").response()).expect("text");
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        assert!(response.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{response}");
        assert!(!response.contains("protocol"), "none was offered, so none is answered: {response}");
        assert!(response.ends_with("\r\n\r\n"));
    }

    #[test]
    fn one_offered_subprotocol_is_echoed_and_ours_is_preferred() {
        for (offered, chosen) in [
            ("pusher-channels-protocol-7", Some("pusher-channels-protocol-7")),
            ("chat, pusher-channels-protocol-7", Some("pusher-channels-protocol-7")),
            ("chat, superchat", Some("chat")),
            ("a b", None),
            ("", None),
        ] {
            let text = request(&format!("Sec-WebSocket-Protocol: {offered}\r\n"));
            assert_eq!(upgrade(&text).expect("valid").subprotocol.as_deref(), chosen, "{offered}");
        }
    }

    #[test]
    fn what_is_no_handshake_is_handed_on_or_refused_with_the_reason() {
        assert!(matches!(look(b"POST /apps/1/events HTTP/1.1\r\nHost: x\r\n\r\n"), Head::Other));
        assert!(matches!(look(b"GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n"), Head::Other));
        assert!(matches!(look(b"\x16\x03\x01nonsense"), Head::Other));
        let post = request("").replace("GET", "POST");
        assert_eq!(upgrade(&post), Err(BadHandshake::Method));
        let connection = request("").replace("Connection: Upgrade", "Connection: keep-alive");
        assert_eq!(upgrade(&connection), Err(BadHandshake::Connection));
        assert!(upgrade(&request("").replace("Connection: Upgrade", "connection: keep-alive, upgrade")).is_ok());
        let version = request("").replace("Version: 13", "Version: 8");
        assert_eq!(upgrade(&version), Err(BadHandshake::Version));
        let key = request("").replace("dGhlIHNhbXBsZSBub25jZQ==", "short");
        assert_eq!(upgrade(&key), Err(BadHandshake::Key));
        let refusal = String::from_utf8(BadHandshake::Version.response()).expect("text");
        assert!(refusal.starts_with("HTTP/1.1 426 ") && refusal.contains("sec-websocket-version: 13"), "{refusal}");
    }
}
