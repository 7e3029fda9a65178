//! Calls that the node itself makes in an app's name: for the demo page's button, and for an operator.
//!
//! They are signed with the app's secret and go through the same door as everybody's, signature check included.

use bytes::Bytes;
use fulmar_protocol::app::App;
use fulmar_protocol::signing::Signer;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request, StatusCode};

use super::Api;
use super::events::IDEMPOTENCY_KEY;
use super::refusal::Refusal;
use super::routes::Route;

/// A call below `/apps/ID`.
pub(crate) struct OwnCall<'a> {
    pub(crate) method: Method,
    /// Such as `/events`.
    pub(crate) below: &'a str,
    /// Not escaped.
    pub(crate) params: &'a [(&'a str, &'a str)],
    /// Those of whoever asked; only what a call may repeat is passed on.
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a Bytes,
}

/// What came of it, and what was sent.
pub(crate) struct OwnAnswer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    pub(super) path: String,
    pub(super) query: String,
}

impl Api {
    /// Makes the call. Never fails: a refusal is an answer.
    pub(crate) async fn call_for(&self, app: &App, call: OwnCall<'_>) -> OwnAnswer {
        let OwnCall { method, below, params, headers, body } = call;
        let path = format!("/apps/{}{below}", app.id);
        let query = Signer::of(app).sign_request(method.as_str(), &path, params, body, self.clock.unix_s());
        let mut request = Request::builder().method(method).uri(format!("{path}?{query}"));
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(key) = headers.get(IDEMPOTENCY_KEY) {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        let performed = match request.body(()) {
            Ok(request) => {
                let (head, ()) = request.into_parts();
                self.perform(&head, Route::of(&path), body).await
            }
            // What makes no valid address names nothing here.
            Err(_) => Err(Refusal::NotFound),
        };
        let (status, body) = match performed {
            Ok(reply) => (reply.status(), reply.body().clone()),
            Err(refusal) => (refusal.status(), refusal.to_string().into()),
        };
        OwnAnswer { status, body, path, query }
    }
}
