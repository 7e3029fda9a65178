//! One sample: a fresh server, the work of a case, one figure.
//!
//! CPU is read only while the server rests, before the work and after the last delivery arrived, so that it belongs to
//! exactly the deliveries that were counted.

use std::time::{Duration, Instant};

use super::BenchError;
use super::case::{Growth, Layout, Work};
use super::generator::{Feed, Generator, Tally};
use super::process::{Server, own_cpu};
use super::wire::Signer;

/// Connections under way at once where the storm itself is not the subject.
const WINDOW: usize = 128;
/// Paced publishing has this many publishers to choose an idle one from.
const PACED_LANES: usize = 8;
const WARM_UP: Duration = Duration::from_millis(300);
/// Work that a server puts off after subscriptions, such as throttled counts, is waited for this long.
const AFTERMATH: Duration = Duration::from_millis(1000);

/// What one run of a case came to.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// The figure, in the unit of the work; for growth, the figure when large.
    pub value: f64,
    /// The figure when small, for growth.
    pub small: Option<f64>,
    /// Deliveries or subscriptions that were counted.
    pub counted: u64,
    /// CPU of the server by time passed; 1 is one core.
    pub server_busy: f64,
    /// The same of the generator, which has one thread.
    pub generator_busy: f64,
    /// Counts and pings that came beside.
    pub extras: u64,
    /// What else is worth saying, for the progress line.
    pub note: String,
}

/// The server to measure, and in whose name to speak to it.
pub struct Site<'a> {
    /// Starts a fresh one.
    pub start: &'a mut dyn FnMut() -> Result<Server, BenchError>,
    /// The application's credentials.
    pub signer: Signer,
}

impl Site<'_> {
    fn open(&mut self, names: Vec<String>) -> Result<(Server, Generator), BenchError> {
        let server = (self.start)()?;
        let generator = Generator::new(server.addr, self.signer.clone(), names)?;
        Ok((server, generator))
    }
}

/// Does the work once; phases of publishing last `length`.
///
/// # Errors
/// The server could not be started, or said or forgot something it must not.
pub fn take(work: &Work, length: Duration, site: &mut Site<'_>) -> Result<Sample, BenchError> {
    match *work {
        Work::Memory { connections, layout } => memory(site, connections, layout),
        Work::Connect { connections, layout, window } => connect(site, connections, layout, window),
        Work::Fanout { subscribers, in_flight, data_bytes } => {
            let (server, mut generator) = site.open(names(1, ""))?;
            generator.connect(&vec![0; subscribers as usize], WINDOW)?;
            generator.open_lanes(in_flight)?;
            let mut feed = Feed { channels: vec![0], batch: 1, data_bytes, taken: 0 };
            let (tally, cpu) = closed(&server, &mut generator, &mut feed, length)?;
            Ok(per(cpu, tally.deliveries, &tally, &generator))
        }
        Work::Publish { channels, subscribers_per_channel, publishers, batch, data_bytes } => {
            let (server, mut generator) = site.open(names(channels, ""))?;
            let plan: Vec<u32> = (0..channels * subscribers_per_channel).map(|i| i % channels).collect();
            generator.connect(&plan, WINDOW)?;
            generator.open_lanes(publishers)?;
            let mut feed = Feed { channels: (0..channels).collect(), batch, data_bytes, taken: 0 };
            let (tally, cpu) = closed(&server, &mut generator, &mut feed, length)?;
            Ok(per(cpu, tally.publishes * batch as u64, &tally, &generator))
        }
        Work::ClientEvents { channels, members, per_member_per_s, data_bytes } => {
            let (server, mut generator) = site.open(names(channels, "private-"))?;
            let plan: Vec<u32> = (0..channels * members).map(|i| i % channels).collect();
            generator.connect(&plan, WINDOW)?;
            generator.client_events(data_bytes, per_member_per_s, WARM_UP)?;
            // Whatever window a server counts a member's rate in has then passed.
            generator.listen(Duration::from_millis(1100))?;
            server.settle()?;
            let before = server.cpu()?;
            let tally = generator.client_events(data_bytes, per_member_per_s, length)?;
            server.settle()?;
            Ok(per(server.cpu()? - before, tally.deliveries, &tally, &generator))
        }
        Work::Reconnect { connections, rounds } => reconnect(site, connections, rounds),
        Work::Paced { subscribers, messages_per_s, data_bytes } => {
            let (server, mut generator) = site.open(names(1, ""))?;
            generator.connect(&vec![0; subscribers as usize], WINDOW)?;
            generator.open_lanes(PACED_LANES)?;
            let mut feed = Feed { channels: vec![0], batch: 1, data_bytes, taken: 0 };
            generator.publish_paced(&mut feed, messages_per_s, WARM_UP)?;
            let before = server.cpu()?;
            let tally = generator.publish_paced(&mut feed, messages_per_s, length)?;
            let cpu = server.cpu()? - before;
            let p99 = tally.latency.quantile(0.99);
            Ok(Sample { value: p99.as_secs_f64() * 1e3, ..per(cpu, tally.deliveries, &tally, &generator) })
        }
        Work::Redis(_) => Err(BenchError::Usage("this work needs Redis, not one server".to_owned())),
        Work::Growth { of, small, large, step, data_bytes } => {
            let mut at = |size| growth(site, of, size, large, step, data_bytes, length);
            let (small, large) = (at(small)?, at(large)?);
            Ok(Sample { small: Some(small.value), ..large })
        }
    }
}

fn names(count: u32, prefix: &str) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}bench-{i}")).collect()
}

fn spread(connections: u32, layout: Layout) -> Vec<u32> {
    match layout {
        Layout::OneChannel => vec![0; connections as usize],
        Layout::OwnChannels => (0..connections).collect(),
    }
}

/// Publishes after a warm-up; CPU from rest to rest.
fn closed(
    server: &Server,
    generator: &mut Generator,
    feed: &mut Feed,
    length: Duration,
) -> Result<(Tally, Duration), BenchError> {
    generator.publish_closed(feed, WARM_UP)?;
    server.settle()?;
    let before = server.cpu()?;
    let tally = generator.publish_closed(feed, length)?;
    server.settle()?;
    Ok((tally, server.cpu()? - before))
}

#[allow(clippy::cast_precision_loss)]
fn per(cpu: Duration, count: u64, tally: &Tally, generator: &Generator) -> Sample {
    Sample {
        value: cpu.as_secs_f64() * 1e6 / count.max(1) as f64,
        small: None,
        counted: count,
        server_busy: cpu.as_secs_f64() / tally.took.as_secs_f64(),
        generator_busy: tally.own_cpu.as_secs_f64() / tally.took.as_secs_f64(),
        extras: generator.extras(),
        note: String::new(),
    }
}

#[allow(clippy::cast_precision_loss)]
fn memory(site: &mut Site<'_>, connections: u32, layout: Layout) -> Result<Sample, BenchError> {
    const WARM_CONNECTIONS: usize = 50;
    let (server, mut generator) = site.open(names(connections, ""))?;
    let plan = spread(connections, layout);
    // Code and tables that one connection needs as well as ten thousand do are not a connection's.
    generator.connect(&plan[..WARM_CONNECTIONS], WINDOW)?;
    generator.drop_from(0);
    server.settle()?;
    let before = server.resident_bytes()?;
    let start = (Instant::now(), own_cpu(), server.cpu()?);
    generator.connect(&plan, WINDOW)?;
    let took = start.0.elapsed().as_secs_f64();
    generator.listen(AFTERMATH)?;
    server.settle()?;
    let grown = server.resident_bytes()?.saturating_sub(before);
    Ok(Sample {
        value: grown as f64 / f64::from(connections),
        small: None,
        counted: u64::from(connections),
        server_busy: (server.cpu()? - start.2).as_secs_f64() / took,
        generator_busy: (own_cpu() - start.1).as_secs_f64() / took,
        extras: generator.extras(),
        note: String::new(),
    })
}

fn connect(site: &mut Site<'_>, connections: u32, layout: Layout, window: usize) -> Result<Sample, BenchError> {
    let (server, mut generator) = site.open(names(connections, ""))?;
    server.settle()?;
    let before = server.cpu()?;
    let own = own_cpu();
    let took = generator.connect(&spread(connections, layout), window)?;
    let own_cpu = own_cpu() - own;
    generator.listen(AFTERMATH)?;
    server.settle()?;
    let cpu = server.cpu()? - before;
    Ok(Sample {
        value: cpu.as_secs_f64() * 1e6 / f64::from(connections),
        small: None,
        counted: u64::from(connections),
        server_busy: cpu.as_secs_f64() / took.as_secs_f64(),
        generator_busy: own_cpu.as_secs_f64() / took.as_secs_f64(),
        extras: generator.extras(),
        note: String::new(),
    })
}

/// The median over the rounds, from the first close to the last confirmation.
fn reconnect(site: &mut Site<'_>, connections: u32, rounds: u32) -> Result<Sample, BenchError> {
    let (server, mut generator) = site.open(names(1, ""))?;
    let plan = spread(connections, Layout::OneChannel);
    generator.connect(&plan, WINDOW)?;
    let mut times = Vec::new();
    let mut sample = Sample::default();
    for _ in 0..rounds {
        generator.listen(AFTERMATH)?;
        server.settle()?;
        let start = (Instant::now(), own_cpu(), server.cpu()?);
        generator.drop_from(0);
        generator.connect(&plan, usize::MAX)?;
        let took = start.0.elapsed().as_secs_f64();
        times.push(took);
        sample.generator_busy = (own_cpu() - start.1).as_secs_f64() / took;
        sample.server_busy = (server.cpu()? - start.2).as_secs_f64() / took;
    }
    times.sort_by(f64::total_cmp);
    let counted = u64::from(connections) * u64::from(rounds);
    Ok(Sample { value: times[times.len() / 2], counted, extras: generator.extras(), ..sample })
}

fn growth(
    site: &mut Site<'_>,
    of: Growth,
    size: u32,
    large: u32,
    step: u32,
    data_bytes: usize,
    length: Duration,
) -> Result<Sample, BenchError> {
    const ROUNDS: u32 = 8;
    let (server, mut generator) = site.open(names(large + step, ""))?;
    match of {
        Growth::DeliveryByConnections | Growth::DeliveryByChannels => {
            let by_channels = of == Growth::DeliveryByChannels;
            let mut feed = if by_channels {
                // As many connections either way; those beyond `size` crowd one channel nobody publishes to.
                let plan: Vec<u32> = (0..large).map(|i| if i < size { i } else { large }).collect();
                generator.connect(&plan, WINDOW)?;
                Feed { channels: (0..size).collect(), batch: 1, data_bytes, taken: 0 }
            } else {
                // `step` is the audience; whoever is beyond it has a channel of its own and nothing to hear.
                let plan: Vec<u32> = (0..size).map(|i| i.saturating_sub(step - 1)).collect();
                generator.connect(&plan, WINDOW)?;
                Feed { channels: vec![0], batch: 1, data_bytes, taken: 0 }
            };
            generator.open_lanes(if by_channels { 4 } else { 1 })?;
            let (tally, cpu) = closed(&server, &mut generator, &mut feed, length)?;
            Ok(per(cpu, tally.deliveries, &tally, &generator))
        }
        Growth::SubscribeByConnections | Growth::SubscribeByChannels => {
            let own = of == Growth::SubscribeByChannels;
            let plan = |from: u32, to: u32| (from..to).map(|i| if own { i } else { 0 }).collect::<Vec<u32>>();
            generator.connect(&plan(0, size), WINDOW)?;
            let mut cpu = Duration::ZERO;
            for _ in 0..ROUNDS {
                generator.listen(AFTERMATH / 4)?;
                server.settle()?;
                let before = server.cpu()?;
                generator.connect(&plan(large, large + step), WINDOW)?;
                server.settle()?;
                cpu += server.cpu()? - before;
                generator.drop_from(size as usize);
            }
            let counted = u64::from(step * ROUNDS);
            let value = cpu.as_secs_f64() * 1e6 / f64::from(step * ROUNDS);
            Ok(Sample { value, counted, extras: generator.extras(), ..Sample::default() })
        }
    }
}
