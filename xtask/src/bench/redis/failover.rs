//! Many nodes with many channels each, and a primary that is killed: every node subscribes to everything again.
//!
//! It looks from outside: the new primary says how many names are subscribed to, Sentinels say how often they changed their
//! minds, and subscribers of a sample of channels count what they hear. A lost or doubled publication, one that was refused, or
//! a second failover is an error.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fulmar_protocol::app::App;
use fulmar_rig::http::Rest;
use fulmar_rig::{Node, Redis, SentinelDeployment, SentinelOptions, Subscriber, eventually};

use super::{GROUP, REPLICAS, SENTINELS, start_nodes, wrong};
use crate::bench::case::RedisPlan;
use crate::bench::sample::Sample;
use crate::bench::{APP_ID, BenchError, KEY, SECRET};

/// Channels of one connection.
const CHANNELS_PER_CONNECTION: usize = 5_000;
/// Subscriptions under way at once on one connection.
const WINDOW: usize = 500;
/// Channels of each node whose receipts are counted.
const SAMPLE: usize = 25;
const ANSWER_MAX: Duration = Duration::from_secs(60);
const FAILOVER_MAX: Duration = Duration::from_secs(60);
/// What is published before the primary ends, and after all is well.
const AROUND: Duration = Duration::from_secs(2);
/// Sentinels that had lost sight of the new primary would have begun a second failover by then.
const SECOND_THOUGHTS: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(20);

/// What the new primary was seen to go through.
#[derive(Default)]
struct Seen {
    /// From the old one's end until Sentinels agreed on it.
    named: Duration,
    /// From the old one's end until every name was subscribed to.
    whole: Duration,
    /// The longest that it took to answer meanwhile.
    slowest: Duration,
    /// Names at most subscribed to in a second.
    names_per_s: f64,
}

/// Runs it once.
///
/// # Errors
/// Something was lost, doubled or refused, there was a second failover, or it does not come to an end.
pub fn take(program: &Path, plan: &RedisPlan) -> Result<Sample, BenchError> {
    let deployment = SentinelDeployment::start(&[(GROUP, REPLICAS)], SENTINELS, &SentinelOptions::default());
    let deployment = deployment.map_err(wrong)?;
    let app = App::new(APP_ID, KEY, SECRET);
    let nodes = start_nodes(program, &deployment, plan.nodes.first().copied().unwrap_or(2))?;
    let channels = plan.channels as usize;
    let begun = Instant::now();
    let crowds = nodes.iter().enumerate().map(|(number, node)| subscribe_all(node, &app, number, channels));
    let crowds = crowds.collect::<Result<Vec<_>, _>>()?;
    let subscribed = begun.elapsed();
    let over = Arc::new(AtomicBool::new(false));
    let listening: Vec<_> = crowds.into_iter().map(|crowd| listen(crowd, &over)).collect();
    let publishing = publish(&nodes, &app, plan.messages_per_s.max(1), &over);
    thread::sleep(AROUND);

    let before = failovers(&deployment);
    let seen = kill_and_watch(&deployment, channels * nodes.len())?;
    thread::sleep(AROUND + SECOND_THOUGHTS);
    over.store(true, Ordering::Relaxed);
    let (published, refused) = publishing.join().map_err(|_| BenchError::Peer("the publisher panicked".to_owned()))?;
    let mut heard: HashMap<String, u32> = HashMap::new();
    for thread in listening {
        let texts = thread.join().map_err(|_| BenchError::Peer("a subscriber panicked".to_owned()))??;
        texts.into_iter().for_each(|text| *heard.entry(text).or_default() += 1);
    }
    let lost = published.iter().filter(|data| !heard.contains_key(*data)).count();
    let doubled = heard.values().filter(|times| **times > 1).count();
    let failovers = failovers(&deployment) - before;
    if lost + doubled + refused > 0 || failovers != 1 {
        let count = published.len();
        return Err(BenchError::Peer(format!(
            "of {count} publications {lost} were lost, {doubled} doubled, {refused} refused; {failovers} failovers"
        )));
    }
    let note = format!(
        "{} nodes x {channels} channels, subscribed in {:.1} s; named after {:.1} s, slowest answer {:.0} ms, at most {:.0} \
         names/s; 1 failover, 0 of {} lost",
        nodes.len(),
        subscribed.as_secs_f64(),
        seen.named.as_secs_f64(),
        seen.slowest.as_secs_f64() * 1e3,
        seen.names_per_s,
        published.len(),
    );
    let counted = (channels * nodes.len()) as u64;
    Ok(Sample { value: seen.whole.as_secs_f64(), counted, note, ..Sample::default() })
}

/// The connections of one node; the last has the sample alone.
fn subscribe_all(node: &Node, app: &App, number: usize, channels: usize) -> Result<Vec<Subscriber>, BenchError> {
    let names: Vec<String> = (0..channels).map(|channel| name(number, channel)).collect();
    let (sample, rest) = names.split_at(SAMPLE.min(channels));
    let mut crowd = Vec::new();
    for own in rest.chunks(CHANNELS_PER_CONNECTION).chain([sample]) {
        let mut subscriber = Subscriber::connect(node.addr(), app, ANSWER_MAX).map_err(wrong)?;
        for window in own.chunks(WINDOW) {
            for name in window {
                subscriber.ask_to_subscribe(name, None).map_err(wrong)?;
            }
            let mut missing = window.len();
            while missing > 0 {
                let event = subscriber.event().map_err(wrong)?;
                missing -= usize::from(event["event"] == "pusher_internal:subscription_succeeded");
            }
        }
        crowd.push(subscriber);
    }
    Ok(crowd)
}

/// Hears the sample until it is over; the other connections only stay open.
fn listen(mut crowd: Vec<Subscriber>, over: &Arc<AtomicBool>) -> JoinHandle<Result<Vec<String>, BenchError>> {
    let over = Arc::clone(over);
    thread::spawn(move || {
        let mut heard = Vec::new();
        let mut sample = crowd.pop().ok_or_else(|| BenchError::Peer("nobody is subscribed".to_owned()))?;
        loop {
            // Looked at before the wait: what was published before the end is heard after it.
            let is_over = over.load(Ordering::Relaxed);
            let until = Instant::now() + if is_over { AROUND } else { LOOK * 10 };
            while let Some(event) = sample.event_before(until).map_err(wrong)? {
                heard.extend(event["data"].as_str().map(str::to_owned).filter(|_| event["event"] == "e"));
            }
            if is_over {
                return Ok(heard);
            }
        }
    })
}

/// Publishes to the sample in turn until it is over; answers what was accepted, and how many calls were not.
fn publish(nodes: &[Node], app: &App, per_s: u32, over: &Arc<AtomicBool>) -> JoinHandle<(Vec<String>, usize)> {
    let (over, count) = (Arc::clone(over), nodes.len());
    let mut rests: Vec<Rest> = nodes.iter().map(|node| Rest::new(node.addr(), app)).collect();
    thread::spawn(move || {
        let (mut accepted, mut refused) = (Vec::new(), 0);
        for number in 0.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let (data, channel) = (format!("number {number}"), name(number % count, number / count % SAMPLE));
            // Through another node than the one that hears it.
            match rests[(number + 1) % count].publish(&channel, &data) {
                Ok(answer) if answer.status == 200 => accepted.push(data),
                _ => refused += 1,
            }
            thread::sleep(Duration::from_secs(1) / per_s);
        }
        (accepted, refused)
    })
}

fn kill_and_watch(deployment: &SentinelDeployment, names: usize) -> Result<Seen, BenchError> {
    let old = deployment.primary_of(GROUP).map_err(wrong)?;
    let old_addr = old.addr();
    let killed = Instant::now();
    old.redis.kill();
    let new = eventually("Sentinels name another primary", FAILOVER_MAX, || {
        deployment.primary_of(GROUP).ok().filter(|server| server.addr() != old_addr)
    });
    let new = &new.map_err(wrong)?.redis;
    let mut seen = Seen { named: killed.elapsed(), ..Seen::default() };
    let (mut had, mut looked) = (subscribed_names(new)?, Instant::now());
    while had < names {
        if killed.elapsed() > FAILOVER_MAX {
            return Err(BenchError::Peer(format!("only {had} of {names} names are subscribed to again")));
        }
        thread::sleep(LOOK);
        let asked = Instant::now();
        let has = subscribed_names(new)?;
        seen.slowest = seen.slowest.max(asked.elapsed());
        #[allow(clippy::cast_precision_loss)]
        let rate = has.saturating_sub(had) as f64 / looked.elapsed().as_secs_f64();
        seen.names_per_s = seen.names_per_s.max(rate);
        (had, looked) = (has, Instant::now());
    }
    seen.whole = killed.elapsed();
    Ok(seen)
}

/// Names that somebody is subscribed to.
fn subscribed_names(redis: &Redis) -> Result<usize, BenchError> {
    let count = redis.info("stats", "pubsub_channels").map_err(wrong)?;
    Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
}

/// How often Sentinels changed the primary. Their config epoch says less: it also rises with a vote that nobody won.
fn failovers(deployment: &SentinelDeployment) -> usize {
    let of = |log: String| log.lines().filter(|line| line.contains(" +switch-master ")).count();
    deployment.sentinels().iter().map(|sentinel| of(sentinel.redis.log())).max().unwrap_or(0)
}

fn name(node: usize, channel: usize) -> String {
    format!("node-{node}-{channel}")
}
