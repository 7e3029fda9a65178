//! What goes back: status, type and body, turned into a response in one place.
//!
//! Every header that does not depend on the request is a static value, so that an ordinary answer allocates nothing but
//! its header map.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, UPGRADE,
};
use hyper::{Response, StatusCode};

use super::idempotency::Answered;
use super::refusal::Refusal;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const SCRIPT: HeaderValue = HeaderValue::from_static("application/javascript; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Tells a repeated answer from a first one. The name other APIs with the same header already use.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The page runs its own script and talks to its own server, and nothing else.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
     connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// An answer that is not a refusal.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    body: Bytes,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    /// JSON that a first call was answered with.
    Replayed,
    Text,
    Script,
    Page,
    /// Only headers: which methods the path takes.
    Methods(&'static str),
}

impl Reply {
    /// 200 with a JSON object.
    pub(super) fn json(body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, body: body.into(), kind: Kind::Json }
    }

    /// An accepted publish.
    pub(super) fn answered(answered: Answered) -> Self {
        Self { status: answered.status, body: answered.body, kind: Kind::Json }
    }

    /// What the first of several equal calls was answered.
    pub(super) fn replayed(answered: Answered) -> Self {
        Self { status: answered.status, body: answered.body, kind: Kind::Replayed }
    }

    /// 200 with a line of text.
    pub(super) fn text(body: &'static str) -> Self {
        Self { status: StatusCode::OK, body: Bytes::from_static(body.as_bytes()), kind: Kind::Text }
    }

    /// 503 with a line of text for whoever watches the node.
    pub(super) fn unwell(why: &impl std::fmt::Display) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, body: format!("{why}\n").into(), kind: Kind::Text }
    }

    /// 200 with JavaScript.
    pub(super) fn script(body: Bytes) -> Self {
        Self { status: StatusCode::OK, body, kind: Kind::Script }
    }

    /// 200 with the demo page.
    pub(super) fn page(body: Bytes) -> Self {
        Self { status: StatusCode::OK, body, kind: Kind::Page }
    }

    /// 204 naming the methods of a path.
    pub(super) fn methods(allow: &'static str) -> Self {
        Self { status: StatusCode::NO_CONTENT, body: Bytes::new(), kind: Kind::Methods(allow) }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn body(&self) -> &Bytes {
        &self.body
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut headers = HeaderMap::with_capacity(4);
        match self.kind {
            Kind::Json => {
                headers.insert(CONTENT_TYPE, JSON);
            }
            Kind::Replayed => {
                headers.insert(CONTENT_TYPE, JSON);
                headers.insert(REPLAYED, HeaderValue::from_static("true"));
            }
            Kind::Text => {
                headers.insert(CONTENT_TYPE, TEXT);
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            }
            Kind::Script => {
                headers.insert(CONTENT_TYPE, SCRIPT);
            }
            Kind::Page => {
                headers.insert(CONTENT_TYPE, HTML);
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                headers.insert(HeaderName::from_static("content-security-policy"), PAGE_POLICY);
            }
            Kind::Methods(allow) => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
        }
        respond(self.status, headers, self.body)
    }
}

impl Refusal {
    /// A line of text. SDKs print it; one library needs more than nothing to read.
    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, TEXT);
        match self {
            Self::Unavailable | Self::Partly { .. } | Self::OverRate { .. } | Self::OtherRole | Self::TooFast => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Method { allow } => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            Self::UpgradeRequired => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            }
            // The rest of the body is not read, so nothing after it on this connection can be understood.
            Self::BodyTooLarge { .. } | Self::BodyLate | Self::BodyBroken => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        respond(self.status(), headers, format!("{self}\n").into())
    }
}

fn respond(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
