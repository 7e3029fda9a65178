//! Publishing: `events`, `batch_events` and the deprecated form that names one channel in its path.
//!
//! What was checked in full goes to the backbone in one call, all of it or none. Counts that the answer is to show are
//! asked for *before* that: were they asked for afterwards and not to be had, an accepted publish would be answered as
//! a failure and come a second time.

use std::sync::Arc;

use bytes::Bytes;
use fulmar_backbone::{Backbone, ChannelState, PublishError, Query, Terms};
use fulmar_protocol::app::App;
use fulmar_protocol::exchange::Publication;
use fulmar_protocol::name::ChannelName;
use fulmar_protocol::publish::{Info, Publish, parse_batch_events, parse_channel_event, parse_events};
use fulmar_protocol::signing::{Request, Signed};
use hyper::StatusCode;
use hyper::header::HeaderName;
use hyper::http::request::Parts;
use sha2::{Digest as _, Sha256};

use super::channels::{path_text, states, write_counts, write_named};
use super::idempotency::{Answered, Claim, KEY_BYTES_MAX, Known};
use super::rates::PublishRates;
use super::refusal::Refusal;
use super::reply::Reply;
use super::{ANSWER_WITHIN, Api, within};

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const NOTHING_TO_TELL: Bytes = Bytes::from_static(b"{}");

/// A publish that passed every check.
struct Checked {
    publications: Vec<Publication>,
    /// What the answer shows, if anything was asked for.
    tell: Option<Tell>,
    status: StatusCode,
}

/// What an answer shows: of each channel that which applies to it.
struct Tell {
    channels: Vec<(ChannelName, Info)>,
    form: Form,
}

enum Form {
    /// By name, for a call that named its channels.
    Named,
    /// One entry for each event, in order.
    Batch,
}

impl Api {
    pub(super) async fn events(
        &self,
        app: &Arc<App>,
        head: &Parts,
        signed: &Signed<Request<'_>>,
    ) -> Result<Reply, Refusal> {
        let checked = Checked::one_event(app, parse_events(signed)?, StatusCode::OK);
        self.accept(app, head, signed, checked).await
    }

    pub(super) async fn channel_events(
        &self,
        app: &Arc<App>,
        head: &Parts,
        signed: &Signed<Request<'_>>,
        name: &str,
    ) -> Result<Reply, Refusal> {
        let publish = parse_channel_event(signed, &path_text(name))?;
        self.accept(app, head, signed, Checked::one_event(app, publish, StatusCode::ACCEPTED)).await
    }

    pub(super) async fn batch_events(
        &self,
        app: &Arc<App>,
        head: &Parts,
        signed: &Signed<Request<'_>>,
    ) -> Result<Reply, Refusal> {
        let events = parse_batch_events(signed)?;
        let asks = events.iter().any(|event| !event.info.is_empty());
        let tell = asks.then(|| {
            let channels = events.iter().map(|event| told_of(app, &event.publication.channel, event.info));
            Tell { channels: channels.collect(), form: Form::Batch }
        });
        let publications = events.into_iter().map(|event| event.publication).collect();
        self.accept(app, head, signed, Checked { publications, tell, status: StatusCode::OK }).await
    }

    async fn accept(
        &self,
        app: &Arc<App>,
        head: &Parts,
        signed: &Signed<Request<'_>>,
        checked: Checked,
    ) -> Result<Reply, Refusal> {
        match head.headers.get(IDEMPOTENCY_KEY) {
            Some(key) if self.remembered.is_on() => {
                let key = key.as_bytes();
                if key.is_empty() || key.len() > KEY_BYTES_MAX {
                    return Err(Refusal::IdempotencyKey);
                }
                Box::pin(self.accept_once(app, key, fingerprint(signed), checked)).await
            }
            _ => {
                self.rates.admit(app, checked.publications.len(), &self.clock)?;
                checked.publish(&*self.backbone, &self.rates, app, None).await.map(Reply::answered)
            }
        }
    }

    async fn accept_once(
        &self,
        app: &Arc<App>,
        key: &[u8],
        fingerprint: u64,
        checked: Checked,
    ) -> Result<Reply, Refusal> {
        loop {
            match self.remembered.claim(&app.id, key, fingerprint, self.clock.elapsed_ms()) {
                Known::New(claim) => {
                    // Refused, it ends the claim: what was not published is not remembered.
                    self.rates.admit(app, checked.publications.len(), &self.clock)?;
                    let once = call_number(app, key, fingerprint);
                    return self.publish_claimed(app, checked, once, claim).await;
                }
                Known::Before(answered) => return Ok(Reply::replayed(answered)),
                Known::Different => return Err(Refusal::IdempotencyMismatch),
                Known::Full => return Err(Refusal::Unavailable),
                // The call ends by dropping the other half; nothing is ever sent.
                Known::InProgress(mut ended) => while ended.changed().await.is_ok() {},
            }
        }
    }

    /// Runs to its end even when the caller hangs up meanwhile: otherwise the key would be free although the events may
    /// have been accepted, and the caller's next try would publish them again.
    async fn publish_claimed(
        &self,
        app: &Arc<App>,
        checked: Checked,
        once: u64,
        claim: Claim,
    ) -> Result<Reply, Refusal> {
        let (app, backbone, clock) = (Arc::clone(app), Arc::clone(&self.backbone), self.clock.clone());
        let rates = Arc::clone(&self.rates);
        let publishing = tokio::spawn(async move {
            let publishing = checked.publish(&*backbone, &rates, &app, Some(once));
            let answered = within(ANSWER_WITHIN, publishing).await.unwrap_or(Err(Refusal::Unavailable))?;
            claim.finish(answered.clone(), clock.elapsed_ms());
            Ok(answered)
        });
        publishing.await.unwrap_or(Err(Refusal::Unavailable)).map(Reply::answered)
    }
}

/// What other nodes know a call with a key by: a repeat that reaches another node is accepted there and reaches nobody
/// again.
fn call_number(app: &App, key: &[u8], fingerprint: u64) -> u64 {
    let mut hash = Sha256::new();
    hash.update(app.id.as_str());
    hash.update([0]);
    hash.update(key);
    hash.update(fingerprint.to_be_bytes());
    first_number(&hash.finalize())
}

impl Checked {
    fn one_event(app: &App, publish: Publish, status: StatusCode) -> Self {
        let Publish { publications, info } = publish;
        let tell = (!info.is_empty()).then(|| {
            let channels = publications.iter().map(|publication| told_of(app, &publication.channel, info));
            Tell { channels: channels.collect(), form: Form::Named }
        });
        Self { publications, tell, status }
    }

    /// Publishes what the app's rate has admitted, which gets back what surely reaches nobody.
    async fn publish(
        self,
        backbone: &dyn Backbone,
        rates: &PublishRates,
        app: &App,
        once: Option<u64>,
    ) -> Result<Answered, Refusal> {
        let Self { publications, tell, status } = self;
        let (terms, count) = (Terms { durability: app.durability, once }, publications.len());
        let body = match tell {
            Some(tell) => Box::pin(tell.look(backbone, app)).await.inspect_err(|_| rates.give_back(app, count))?,
            None => NOTHING_TO_TELL,
        };
        if let Err(error) = backbone.publish(publications, terms).await {
            if error == PublishError::NotAccepted {
                rates.give_back(app, count);
            }
            return Err(refused(&error, count));
        }
        Ok(Answered { status, body })
    }
}

impl Tell {
    async fn look(self, backbone: &dyn Backbone, app: &App) -> Result<Bytes, Refusal> {
        let names = self.channels.iter().map(|(channel, _)| channel.clone()).collect();
        let states = states(backbone, Query::Named { app: app.id.clone(), channels: names }).await?;
        let entries = states.iter().zip(self.channels.iter().map(|(_, info)| *info));
        let mut body = Vec::with_capacity(16 + self.channels.len() * 64);
        match self.form {
            Form::Named => write_named(&mut body, entries),
            Form::Batch => write_in_order(&mut body, entries),
        }
        Ok(body.into())
    }
}

/// The answer to a call of so many publications. Whether it was surely or only maybe not accepted, the caller can do nothing but try
/// again; but not with what was accepted.
fn refused(error: &PublishError, publications: usize) -> Refusal {
    match error {
        PublishError::Unknown { left } if !left.is_empty() && left.len() < publications => {
            Refusal::Partly { channels: left.iter().map(ChannelName::as_str).collect::<Vec<_>>().join(", ") }
        }
        PublishError::Unknown { .. } | PublishError::NotAccepted => Refusal::Unavailable,
    }
}

/// What of `info` is told about a channel. What cannot be told is left out, and no reason to refuse the event.
fn told_of(app: &App, channel: &ChannelName, info: Info) -> (ChannelName, Info) {
    let info = info.on(channel.kind());
    let subscription_count = info.subscription_count && app.subscription_counts;
    (channel.clone(), Info { subscription_count, ..info })
}

fn write_in_order<'a>(out: &mut Vec<u8>, entries: impl Iterator<Item = (&'a ChannelState, Info)>) {
    let mut opening = br#"{"batch":["#.as_slice();
    for (state, info) in entries {
        out.extend_from_slice(opening);
        write_counts(out, state, info);
        opening = b",";
    }
    out.extend_from_slice(b"]}");
}

/// What makes a call another call: everything but when and by which key it was signed. The same number on every node, and
/// nobody can make two calls meet.
fn fingerprint(signed: &Signed<Request<'_>>) -> u64 {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    };
    add(signed.method.as_bytes());
    add(signed.path.as_bytes());
    add(signed.body);
    for (name, value) in signed.query.iter().filter(|(name, _)| !name.starts_with("auth_")) {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    first_number(&hash.finalize())
}

fn first_number(digest: &[u8]) -> u64 {
    digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}
