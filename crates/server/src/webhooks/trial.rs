//! One sample event to one endpoint, by hand: what `fulmar webhook test` does. Nothing of a running node is touched.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fulmar_engine::Moment;
use fulmar_engine::webhook_batch::{BATCH_MS, Now, Record, WebhookBook};
use fulmar_protocol::app::App;
use fulmar_protocol::name::ChannelName;
use fulmar_protocol::webhook::{Change, Edge, EventKind, Subject};
use tokio::runtime::Builder;

use super::address::{Destination, destination, is_allowed};
use super::request::{AttemptError, Caller, Resolve};
use crate::http::clock::Clock;

/// The channel of the sample.
const CHANNEL: &str = "fulmar-webhook-test";

/// What came of it.
#[derive(Debug)]
pub struct Trial {
    /// The URL taken apart.
    pub destination: Destination,
    /// Where its name leads, and whether a node would go there.
    pub addresses: Vec<(IpAddr, bool)>,
    /// What was sent.
    pub body: Arc<str>,
    /// Its signature.
    pub signature: Arc<str>,
    /// The status of success, or why it was none.
    pub outcome: Result<u16, AttemptError>,
    /// How long it took.
    pub took: Duration,
}

/// Sends a sample to the first endpoint of `app`, signed as the app signs.
///
/// # Errors
/// What is wrong with the URL, or that no event loop can be had.
pub fn trial(app: &App, resolver: Arc<dyn Resolve>) -> Result<Trial, String> {
    let endpoint = app.webhooks.endpoints.first().ok_or("there is no endpoint to try")?;
    let destination = destination(&endpoint.url).map_err(|rule| format!("the URL {rule}"))?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let clock = Clock::system();
    let mut records = Vec::new();
    let mut book = WebhookBook::new();
    let mut told = app.clone();
    told.webhooks.endpoints[0].kinds = [EventKind::ChannelOccupied].into_iter().collect();
    told.webhooks.endpoints[0].channel_prefix.clear();
    book.set_apps([Arc::new(told)], &mut records);
    let now = |ms| Now { moment: Moment(ms), unix_ms: clock.unix_ms() };
    let channel = ChannelName::parse(CHANNEL, CHANNEL.len()).map_err(|error| error.to_string())?;
    book.take(now(0), Edge { app: app.id.clone(), change: Change::Came(Subject::Channel(channel)) }, &mut records);
    book.pass(now(BATCH_MS), &mut records);
    let sealed =
        records.into_iter().find_map(|r| if let Record::Sealed { batch, .. } = r { Some(batch) } else { None });
    let batch = sealed.ok_or("no request came of it")?;
    let (addresses, outcome, took) = runtime.block_on(async {
        let resolved = resolver.resolve(&destination.host).await.unwrap_or_default();
        let judged = resolved.into_iter().map(|address| (address, is_allowed(address, &app.webhooks))).collect();
        let begun = Instant::now();
        let outcome = Caller::new(resolver).attempt(&app.webhooks, endpoint, &batch, 0).await;
        (judged, outcome, begun.elapsed())
    });
    Ok(Trial { destination, addresses, body: batch.body, signature: batch.signature, outcome, took })
}
