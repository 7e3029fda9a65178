//! What an operator does in an app's name: publish, and ask what stands on channels.
//!
//! The node signs the call with the app's own secret and makes it through the same door as everybody's, so that every
//! rule of the signed API holds here and in the same words.

use std::sync::Arc;

use bytes::Bytes;
use fulmar_protocol::app::App;
use fulmar_protocol::query::Query;
use hyper::Method;
use serde_json::Value;

use super::Admin;
use super::calls::Asked;
use super::reply::{Failed, Reply};
use super::routes::Call;
use crate::http::OwnCall;
use crate::registry::DeskError;

/// Names of channels that one entry of the audit log holds.
const NAMES_MAX: usize = 100;
/// Characters of each.
const NAME_CHARS_MAX: usize = 200;

impl Admin {
    /// A publish is on record whether it was accepted or not; its data is not.
    pub(super) async fn publish(&self, asked: &Asked<'_>) -> Result<Reply, Failed> {
        let called = match self.served(&asked.id) {
            Ok(app) => self.call(&app, asked, "/events").await,
            Err(failed) => Err(failed),
        };
        let entry = asked.entry();
        self.audit.write(&match &called {
            Ok(_) => entry.acted(&named(asked.body)),
            Err(failed) => entry.failed(failed),
        });
        called
    }

    pub(super) async fn look_up(&self, asked: &Asked<'_>) -> Result<Reply, Failed> {
        let app = self.served(&asked.id)?;
        let below = match asked.route.call {
            Call::Channels => "/channels".to_owned(),
            Call::Members => format!("/channels/{}/users", asked.name),
            _ => format!("/channels/{}", asked.name),
        };
        self.call(&app, asked, &below).await
    }

    /// The app, as it is served at this moment.
    pub(super) fn served(&self, id: &str) -> Result<Arc<App>, Failed> {
        self.edge.apps.by_id(id).ok_or_else(|| DeskError::NotFound(id.to_owned()).into())
    }

    async fn call(&self, app: &App, asked: &Asked<'_>, below: &str) -> Result<Reply, Failed> {
        let query = Query::parse(asked.head.uri.query().unwrap_or_default())
            .map_err(|_| Failed::Query("the query cannot be read"))?;
        let params: Vec<(&str, &str)> = query.iter().filter(|(name, _)| !is_signing(name)).collect();
        let method = if asked.route.method == "POST" { Method::POST } else { Method::GET };
        let call = OwnCall { method, below, params: &params, headers: &asked.head.headers, body: asked.body };
        let answer = self.edge.api.call_for(app, call).await;
        let text = || String::from_utf8_lossy(&answer.body).trim_end().to_owned();
        if !answer.status.is_success() {
            return Err(Failed::Call { status: answer.status.as_u16(), text: text() });
        }
        let unreadable = |_| Failed::Call { status: 503, text: text() };
        Ok(Reply::new(asked.route.status, serde_json::from_slice(&answer.body).map_err(unreadable)?))
    }
}

/// What the node itself puts into a call that it signs.
fn is_signing(name: &str) -> bool {
    name.starts_with("auth_") || name == "body_md5"
}

/// The channels that a publish names.
fn named(body: &Bytes) -> Vec<String> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let one = body.get("channel").and_then(Value::as_str);
    let several = body.get("channels").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let all = several.chain(one).take(NAMES_MAX);
    all.map(|name| name.chars().take(NAME_CHARS_MAX).collect()).collect()
}
