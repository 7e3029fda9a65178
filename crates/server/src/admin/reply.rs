//! Answers: JSON, always, and never from a cache.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::watch::{AnyBody, WATCHES_MAX};
use crate::registry::{DeskError, PutError};
use crate::webhooks::WebhookError;

/// An answer.
pub(super) struct Reply {
    status: u16,
    body: Value,
    allow: Option<String>,
}

/// Why a call was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("the token is missing or wrong: Authorization: Bearer TOKEN")]
    Token,
    #[error("there is nothing at this path; /openapi.json lists what there is")]
    NoPath,
    #[error("this path takes {allow}")]
    Method { allow: String },
    #[error("the body did not arrive in time")]
    Late,
    #[error("the body could not be read, or is larger than 1 MiB")]
    Body,
    #[error("the body is not {0}")]
    Json(&'static str),
    #[error("{0}")]
    Query(&'static str),
    #[error("the audit log cannot be read: {0}")]
    Audit(std::io::Error),
    #[error("this node keeps no audit log: it has no storage folder")]
    NoAudit,
    /// What the signed API said, when it was called in an app's name.
    #[error("{text}")]
    Call { status: u16, text: String },
    #[error("{0}")]
    Channel(String),
    #[error("app {0} is disabled")]
    Disabled(String),
    #[error("as much is being watched as may be at once ({WATCHES_MAX}), or the node is full: try again later")]
    NoSeat,
    #[error(transparent)]
    Desk(#[from] DeskError),
    #[error(transparent)]
    Webhooks(#[from] WebhookError),
}

impl Failed {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Token => 401,
            Self::NoPath => 404,
            Self::Method { .. } => 405,
            Self::Late => 408,
            Self::Body => 413,
            Self::Json(_) | Self::Query(_) | Self::Channel(_) => 400,
            Self::Disabled(_) => 403,
            Self::Call { status, .. } => *status,
            Self::Audit(_) | Self::NoAudit | Self::NoSeat | Self::Webhooks(_) => 503,
            Self::Desk(error) => match error {
                DeskError::NotFound(_) | DeskError::NoRevision { .. } => 404,
                DeskError::Invalid(_) | DeskError::NotEdited { .. } => 422,
                DeskError::Stale { .. } => 412,
                DeskError::Taken { .. }
                | DeskError::RotationPending
                | DeskError::NothingToRetire
                | DeskError::Put(PutError::ReadOnly(_)) => 409,
                DeskError::NoStore(_) | DeskError::Put(_) | DeskError::Random(_) => 503,
            },
        }
    }
}

impl From<Failed> for Reply {
    fn from(failed: Failed) -> Self {
        let body = json!({ "error": failed.to_string() });
        let allow = if let Failed::Method { allow } = &failed { Some(allow.clone()) } else { None };
        Self { status: failed.status(), body, allow }
    }
}

impl Reply {
    pub(super) fn new(status: u16, body: Value) -> Self {
        Self { status, body, allow: None }
    }

    pub(super) fn into_response(self) -> Response<AnyBody> {
        let mut response = Response::new(Either::Left(Full::new(Bytes::from(format!("{:#}\n", self.body)))));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == 401 {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        response
    }
}
