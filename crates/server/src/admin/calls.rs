//! What each call does.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::Response;
use hyper::header::IF_MATCH;
use hyper::http::request::Parts;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::audit::Entry;
use super::reply::{Failed, Reply};
use super::routes::{Call, Route};
use super::watch::{AnyBody, watched};
use super::{Admin, hearing, openapi};
use crate::registry::desk::Done;
use crate::registry::desk::View;
use crate::registry::{Author, Desk, DeskError};
use crate::webhooks::store::GivenUp;
use crate::webhooks::{WaitingLine, WebhookError};

/// A call by somebody who may make it.
pub(super) struct Asked<'a> {
    pub(super) route: &'static Route,
    pub(super) id: String,
    /// The channel's name in the path, still escaped.
    pub(super) name: String,
    pub(super) head: &'a Parts,
    pub(super) body: &'a Bytes,
    pub(super) author: Author,
    pub(super) peer: IpAddr,
    /// Ends the connection.
    pub(super) cut: &'a Arc<Notify>,
}

impl Asked<'_> {
    /// For the audit log.
    pub(super) fn entry(&self) -> Entry {
        let Author { at_ms, who } = self.author.clone();
        Entry { at_ms, who, peer: self.peer, call: self.route.call, id: self.id.clone() }
    }
}

impl Admin {
    pub(super) async fn perform(&self, asked: Asked<'_>) -> Result<Response<AnyBody>, Failed> {
        match asked.route.call {
            Call::Watch => self.watch(&asked).map(watched),
            _ => self.reply(asked).await.map(Reply::into_response),
        }
    }

    async fn reply(&self, asked: Asked<'_>) -> Result<Reply, Failed> {
        let Asked { route, ref id, head, .. } = asked;
        let answer = match route.call {
            Call::Describe => openapi::description(),
            Call::Status => self.status(),
            Call::Backbone => hearing::shown(self.redis.as_deref()),
            Call::List => json!({ "apps": self.registrar.desk().list().iter().map(shown).collect::<Vec<_>>() }),
            Call::Show => shown(&self.registrar.desk().show(id)?),
            Call::History => json!({ "id": id, "revisions": self.registrar.desk().history(id)? }),
            Call::Audit => json!({ "entries": self.audit.last(limit(head)?)? }),
            Call::Webhooks => self.webhooks().await?,
            Call::Replay => return self.replay(asked).await,
            Call::Publish => return self.publish(&asked).await,
            Call::Channels | Call::Channel | Call::Members => return self.look_up(&asked).await,
            Call::Watch => return Err(Failed::NoPath),
            Call::Add | Call::Edit | Call::Remove | Call::Rotate | Call::Retire | Call::Revert => {
                return self.change(asked).await;
            }
        };
        Ok(Reply::new(route.status, answer))
    }

    /// A change is on record whether it was made or not.
    async fn change(&self, asked: Asked<'_>) -> Result<Reply, Failed> {
        let mut entry = asked.entry();
        let Asked { route, id, head, body, author, .. } = asked;
        let made =
            object(body).and_then(|body| change(&mut self.registrar.desk(), route.call, &id, body, head, author));
        let done = match made {
            Ok(done) => done,
            Err(failed) => {
                self.audit.write(&entry.failed(&failed));
                return Err(failed);
            }
        };
        self.registrar.tell(&done.changes);
        entry.id.clone_from(&done.id);
        self.audit.write(&entry.done(&done));
        self.registrar.settled().await;
        let mut answer =
            json!({ "id": done.id, "verb": done.verb, "revision": done.revision, "changed": done.changed });
        if let Some(secret) = done.secret {
            answer["secret"] = secret.into();
        }
        if let Ok(view) = self.registrar.desk().show(&done.id) {
            answer["app"] = shown(&view);
        }
        Ok(Reply::new(route.status, answer))
    }

    async fn webhooks(&self) -> Result<Value, Failed> {
        let webhooks = self.registrar.webhooks();
        let figures = webhooks.figures();
        let (waiting, given_up) = match webhooks.waiting().await {
            Err(WebhookError::NotRunning) => (Vec::new(), Vec::new()),
            waiting => (waiting?, webhooks.given_up().await?),
        };
        let line = |line: &WaitingLine| {
            json!({
                "app": line.to.app.as_str(), "url": &*line.to.url, "pending": line.pending, "oldest_ms": line.oldest_ms,
                "failures": line.failures, "error": line.error,
            })
        };
        let old = |old: &GivenUp| {
            json!({
                "id": format!("{:x}", old.batch.id), "app": old.to.app.as_str(), "url": &*old.to.url,
                "events": old.batch.event_ids.len(), "sealed_ms": old.batch.sealed_unix_ms, "at_ms": old.at_unix_ms,
            })
        };
        Ok(json!({
            "pending": figures.pending,
            "oldest_pending_ms": figures.oldest_pending_ms,
            "delivered": figures.delivered,
            "attempts_failed": figures.attempts_failed,
            "given_up_since_start": figures.given_up,
            "waiting": waiting.iter().map(line).collect::<Vec<_>>(),
            "given_up": given_up.iter().map(old).collect::<Vec<_>>(),
        }))
    }

    async fn replay(&self, asked: Asked<'_>) -> Result<Reply, Failed> {
        let (route, entry) = (asked.route, asked.entry());
        let body = object(asked.body)?;
        only(&body, &["id"])?;
        let wrong = || Failed::Json("an object whose id is that of a request that was given up");
        let id = match body.get("id") {
            None | Some(Value::Null) => None,
            Some(id) => {
                let digits = id.as_str().map(|text| text.rsplit('-').next().unwrap_or(text));
                Some(digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or_else(wrong)?)
            }
        };
        match self.registrar.webhooks().replay(id).await {
            Ok(replayed) => {
                self.audit.write(&entry.replayed(replayed));
                Ok(Reply::new(route.status, json!({ "replayed": replayed })))
            }
            Err(error) => {
                let failed = Failed::from(error);
                self.audit.write(&entry.failed(&failed));
                Err(failed)
            }
        }
    }

    fn status(&self) -> Value {
        let desk = self.registrar.desk();
        let not_served: Vec<Value> =
            desk.problems().iter().map(|(id, problem)| json!({ "id": id, "problem": problem })).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "address": self.serves_at.to_string(),
            "uptime_s": self.started.elapsed().as_secs(),
            "connections": self.registrar.connections(),
            "apps": desk.apps().snapshot().len(),
            "apps_not_served": not_served,
            "registry_problem": desk.no_store(),
            "metrics_problem": self.sink.trouble(),
        })
    }
}

fn change(
    desk: &mut Desk,
    call: Call,
    id: &str,
    body: Map<String, Value>,
    head: &Parts,
    author: Author,
) -> Result<Done, Failed> {
    Ok(match call {
        Call::Add => desk.add(body, author)?,
        Call::Edit => desk.edit(id, body, expected(head)?, author)?,
        Call::Remove => desk.remove(id, author)?,
        Call::Rotate => {
            only(&body, &["secret"])?;
            let given = match body.get("secret") {
                None | Some(Value::Null) => None,
                Some(Value::String(secret)) => Some(secret.clone()),
                Some(_) => return Err(Failed::Json("an object whose secret is a text")),
            };
            desk.rotate(id, given, author)?
        }
        Call::Retire => {
            only(&body, &["secret"])?;
            let the_new_one = match body.get("secret").map(Value::as_str) {
                None | Some(Some("previous")) => false,
                Some(Some("new")) => true,
                Some(_) => return Err(Failed::Json("an object whose secret is previous or new")),
            };
            desk.retire(id, the_new_one, author)?
        }
        Call::Revert => {
            only(&body, &["revision"])?;
            let revision = body.get("revision").and_then(Value::as_u64);
            desk.revert(
                id,
                revision.ok_or(Failed::Json("an object with a revision, such as {\"revision\":1}"))?,
                author,
            )?
        }
        Call::Describe
        | Call::Status
        | Call::Backbone
        | Call::List
        | Call::Show
        | Call::History
        | Call::Audit
        | Call::Webhooks
        | Call::Replay
        | Call::Publish
        | Call::Channels
        | Call::Channel
        | Call::Members
        | Call::Watch => {
            return Err(Failed::NoPath);
        }
    })
}

/// A word that is not understood may be the one that mattered.
fn only(body: &Map<String, Value>, names: &[&str]) -> Result<(), Failed> {
    match body.keys().all(|name| names.contains(&name.as_str())) {
        true => Ok(()),
        false => Err(DeskError::Invalid(format!("the body takes {} and nothing else", names.join(", "))).into()),
    }
}

/// The body; none is the same as one that says nothing.
fn object(body: &Bytes) -> Result<Map<String, Value>, Failed> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    serde_json::from_slice(body).map_err(|_| Failed::Json("a JSON object"))
}

fn expected(head: &Parts) -> Result<Option<u64>, Failed> {
    let Some(value) = head.headers.get(IF_MATCH) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().trim_matches('"').parse().ok());
    number.map(Some).ok_or(Failed::Query("If-Match must be a revision"))
}

fn limit(head: &Parts) -> Result<usize, Failed> {
    let given = head.uri.query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("limit="));
    given.map_or(Ok(100), |text| text.parse().map_err(|_| Failed::Query("limit must be a number")))
}

fn shown(view: &View) -> Value {
    json!({
        "id": view.id,
        "source": view.source,
        "revision": view.revision,
        "problem": view.problem,
        "secrets": view.secrets,
        "settings": view.settings,
    })
}
