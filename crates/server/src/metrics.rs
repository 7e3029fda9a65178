//! Every figure of a node that others may count and draw, with its name: the one list of them.
//!
//! [`Registry::read`] gathers what the parts count anyway. It decides nothing, and waits for nobody: it may be read from any
//! thread at any time. Whoever tells the figures to somebody (`sink`, in the words of `statsd`) reads them here, so that no two
//! of them can have different lists.

pub(crate) mod sink;
mod statsd;

use std::sync::Arc;

use fulmar_backbone::memory;
use fulmar_backbone::redis::{self, GroupFigures};
use fulmar_engine::Figures;

use crate::apps::Apps;
use crate::backbone::Hearing;
use crate::gate::Gate;
use crate::http::rates::PublishRates;
use crate::inbox::WorkerInbox;
use crate::webhooks::{WebhookDesk, WebhookFigures};

use self::sink::SinkState;

/// A figure at a moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Without the prefix. The name of what only rises ends in `_total`; units stand before that.
    pub(crate) name: &'static str,
    /// What it is of, where there are several.
    pub(crate) of: Option<(&'static str, String)>,
    pub(crate) figure: Figure,
}

/// How a figure is to be read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Figure {
    /// How often something happened since the node started. Rises.
    Counter(u64),
    /// How something stands.
    Gauge(f64),
}

/// Where the figures of a node come from.
pub(crate) struct Registry {
    pub(crate) inboxes: Vec<Arc<WorkerInbox>>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) apps: Arc<Apps>,
    pub(crate) rates: Arc<PublishRates>,
    pub(crate) hearing: Hearing,
    pub(crate) webhooks: Arc<WebhookDesk>,
    pub(crate) sink: Arc<SinkState>,
}

impl Registry {
    /// All figures as they are now.
    pub(crate) fn read(&self) -> Vec<Sample> {
        let mut samples =
            of_node(self.gate.open() as u64, self.apps.snapshot().len() as u64, self.sink.failures()).to_vec();
        let workers: Vec<Figures> = self.inboxes.iter().map(|inbox| inbox.figures()).collect();
        samples.extend(of_workers(&workers));
        let over_rate = self.rates.refused(|app| self.apps.by_id(app.as_str()).is_some());
        samples.extend(by_app(OVER_RATE, &over_rate));
        samples.extend(of_webhooks(&self.webhooks.figures()));
        if let Some(memory) = &self.hearing.memory {
            samples.extend(of_memory(&memory.figures()));
        }
        if let Some(redis) = &self.hearing.redis {
            let figures = redis.figures();
            samples.extend(of_redis(&figures));
            samples.extend(by_app(MISSED, &figures.hub.missed));
            samples.extend(figures.groups.iter().filter(|group| !group.is_left).flat_map(of_group));
        }
        samples
    }
}

/// Calls beyond an app's rate, by app.
const OVER_RATE: &str = "publishes_over_rate_total";
/// Channels whose subscribers were sent back, by app.
const MISSED: &str = "channels_missed_total";

/// What this machine is called, and the node on it that listens at `port`: what tells the figures of several apart.
pub(crate) fn name_of_node(port: u16) -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = if machine.trim().is_empty() { "localhost" } else { machine.trim() };
    format!("{machine}:{port}")
}

fn counter(name: &'static str, count: u64) -> Sample {
    Sample { name, of: None, figure: Figure::Counter(count) }
}

#[allow(clippy::cast_precision_loss)] // Beyond 2^53 nobody sees the difference.
fn gauge(name: &'static str, value: u64) -> Sample {
    Sample { name, of: None, figure: Figure::Gauge(value as f64) }
}

/// A time, which is told in seconds.
#[allow(clippy::cast_precision_loss)] // As above.
fn seconds(name: &'static str, ms: u64) -> Sample {
    Sample { name, of: None, figure: Figure::Gauge(ms as f64 / 1_000.0) }
}

fn of_node(connections: u64, apps: u64, sink_failures: u64) -> [Sample; 3] {
    [gauge("connections", connections), gauge("apps", apps), counter("metrics_sink_failures_total", sink_failures)]
}

fn of_workers(workers: &[Figures]) -> [Sample; 9] {
    let all = |name, of: fn(&Figures) -> u64| counter(name, workers.iter().map(of).sum());
    [
        all("sessions_opened_total", |figures| figures.opened),
        all("sessions_refused_total", |figures| figures.refused),
        all("sessions_unauthorized_total", |figures| figures.unauthorized),
        all("pongs_missed_total", |figures| figures.pongs_missed),
        all("sessions_sent_back_total", |figures| figures.sent_back),
        all("client_messages_total", |figures| figures.messages),
        all("subscriptions_refused_total", |figures| figures.refused_subscriptions),
        all("sign_ins_refused_total", |figures| figures.refused_sign_ins),
        all("client_events_refused_total", |figures| figures.refused_client_events),
    ]
}

fn of_webhooks(figures: &WebhookFigures) -> [Sample; 9] {
    [
        gauge("webhooks_pending", figures.pending),
        gauge("webhooks_pending_bytes", figures.pending_bytes),
        gauge("webhooks_in_flight", figures.in_flight),
        seconds("webhooks_oldest_pending_seconds", figures.oldest_pending_ms),
        counter("webhooks_delivered_total", figures.delivered),
        counter("webhooks_attempts_failed_total", figures.attempts_failed),
        counter("webhooks_given_up_total", figures.given_up),
        counter("webhooks_events_dropped_total", figures.events_dropped),
        counter("webhooks_store_failures_total", figures.store_failures),
    ]
}

fn of_memory(figures: &memory::Figures) -> [Sample; 7] {
    [
        gauge("channels", figures.channels),
        gauge("users", figures.users),
        gauge("cached_events", figures.cached_events),
        gauge("cached_bytes", figures.cached_bytes),
        counter("cache_evicted_total", figures.cache_evicted),
        counter("publishes_refused_total", figures.publishes_refused),
        counter("client_events_dropped_total", figures.client_events_refused),
    ]
}

fn of_redis(figures: &redis::Figures) -> [Sample; 8] {
    [
        gauge("live_nodes", figures.live_nodes),
        gauge("channels", figures.hub.topics),
        counter("publishes_accepted_total", figures.accepted),
        counter("publishes_refused_total", figures.refused),
        counter("publishes_timed_out_total", figures.timed_out),
        counter("publishes_without_replica_total", figures.without_replica),
        counter("deliveries_repeated_total", figures.repeats),
        counter("deliveries_with_hole_total", figures.holes),
    ]
}

fn by_app<'a>(
    name: &'static str,
    counts: impl IntoIterator<Item = (&'a String, &'a u64)>,
) -> impl Iterator<Item = Sample> {
    counts.into_iter().map(move |(app, count)| Sample { of: Some(("app", app.clone())), ..counter(name, *count) })
}

fn of_group(group: &GroupFigures) -> [Sample; 12] {
    let switch = u64::from;
    [
        gauge("group_here", switch(group.is_here)),
        gauge("group_heard", switch(group.hears)),
        gauge("group_over_the_bus", switch(group.over_the_bus)),
        gauge("group_unlogged_bytes", group.unlogged_bytes),
        seconds("group_bus_waits_seconds", group.bus_waits_ms),
        counter("group_circuit_openings_total", group.circuit_openings),
        counter("group_filled_total", group.filled),
        counter("group_gaps_total", group.gaps),
        counter("group_comparisons_total", group.comparisons),
        counter("group_records_mended_total", group.mended),
        counter("group_keys_removed_total", group.swept),
        counter("group_edges_dropped_total", group.edges_dropped),
    ]
    .map(|sample| Sample { of: Some(("group", group.name.clone())), ..sample })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-42
    #[test]
    fn what_workers_count_is_told_as_one() {
        let workers =
            [Figures { opened: 3, ..Figures::default() }, Figures { opened: 4, messages: 1, ..Figures::default() }];
        let figure = |name| of_workers(&workers).into_iter().find(|sample| sample.name == name).unwrap().figure;
        assert_eq!(figure("sessions_opened_total"), Figure::Counter(7));
        assert_eq!(figure("client_messages_total"), Figure::Counter(1));
    }

    fn all_names(of_backbone: &[Sample]) -> Vec<&'static str> {
        let samples = of_backbone.iter().cloned().chain(of_node(0, 0, 0));
        let samples = samples.chain(of_webhooks(&WebhookFigures::default())).chain(of_workers(&[]));
        let samples = samples.chain(of_group(&GroupFigures::default()));
        [OVER_RATE, MISSED].into_iter().chain(samples.map(|sample| sample.name)).collect()
    }

    /// OPS-44
    #[test]
    fn every_figure_is_explained_and_nothing_else_is() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../spec/operating.md");
        let text = std::fs::read_to_string(file).expect("the clauses are there");
        let (_, table) = text.split_once("### Figures").expect("the table is there");
        let table = table.split("\n## ").next().unwrap_or_default();
        let explained: std::collections::BTreeSet<&str> =
            table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let of_redis = all_names(&of_redis(&redis::Figures::default()));
        let names = all_names(&of_memory(&memory::Figures::default()));
        assert_eq!(explained, names.into_iter().chain(of_redis).collect());
    }

    /// OPS-42
    #[test]
    fn every_figure_has_a_name_of_its_own_that_says_whether_it_only_rises() {
        for figures in [of_memory(&memory::Figures::default()).to_vec(), of_redis(&redis::Figures::default()).to_vec()]
        {
            let mut samples = figures;
            samples.extend(of_webhooks(&WebhookFigures::default()));
            samples.extend(of_workers(&[]));
            samples.extend(of_group(&GroupFigures::default()));
            for (n, sample) in samples.iter().enumerate() {
                assert!(samples[..n].iter().all(|other| other.name != sample.name), "{} stands twice", sample.name);
                let rises = matches!(sample.figure, Figure::Counter(_));
                assert_eq!(sample.name.ends_with("_total"), rises, "{}", sample.name);
                assert!(!sample.name.ends_with("_ms"), "{}: the unit of time is the second", sample.name);
            }
        }
    }
}
