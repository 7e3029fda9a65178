//! Prints what the embedded backbone costs per call, so that growth with channels or subscribers would show.
//!
//! Single thread, nothing else to do: run it with `cargo run --release -p fulmar-backbone --example measure_memory`.
//! It measures calls, not deliveries to sockets: an inbox here counts and drops.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fulmar_backbone::memory::{CACHE_BYTES_MAX_DEFAULT, Memory, SystemClock};
use fulmar_backbone::{Backbone, Inbox, Query, Terms, WorkerId};
use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Answer, Delivery, Join, Leave, Member, Publication, Question, Ticket, UserNotice};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::{ChannelName, UserId};

#[derive(Default)]
struct Count(AtomicU64);

impl Inbox for Count {
    fn notice(&self, _: Arc<UserNotice>) {}

    fn has_room(&self) -> bool {
        true
    }
    fn deliver(&self, _: Arc<Delivery>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn answer(&self, _: Answer) {}
}

fn memory(workers: usize) -> Memory {
    let memory = Memory::new(1, CACHE_BYTES_MAX_DEFAULT, Arc::new(SystemClock::default()));
    for _ in 0..workers {
        memory.attach(Arc::new(Count::default()));
    }
    memory
}

fn names(kind: &str, count: usize) -> Vec<ChannelName> {
    let name = |n| ChannelName::parse(&format!("{kind}channel-{n}"), 200).expect("a valid name");
    (0..count).map(name).collect()
}

fn join(memory: &Memory, app: &AppId, worker: usize, channel: &ChannelName, member: Option<Member>) {
    let ticket = Ticket { session: 0, number: 0 };
    let (app, channel) = (app.clone(), channel.clone());
    let join = Join { ticket, app, channel, member, members_max: usize::MAX, counted: false };
    drop(memory.ask(WorkerId(worker as u8), Question::Join(join)));
}

fn leave(memory: &Memory, app: &AppId, worker: usize, channel: &ChannelName, user_id: Option<UserId>) {
    let leave = Leave { app: app.clone(), channel: channel.clone(), user_id, counted: false };
    drop(memory.ask(WorkerId(worker as u8), Question::Leave(leave)));
}

fn publish(memory: &Memory, app: &AppId, channel: &ChannelName, frame: &Frame, cache_for: Option<Duration>) {
    let (app, channel, frame) = (app.clone(), channel.clone(), frame.clone());
    drop(memory.publish(vec![Publication { app, channel, frame, except: None, cache_for }], Terms::default()));
}

/// Nanoseconds per call, the best of five rounds.
fn ns_per_call(calls: usize, mut round: impl FnMut()) -> f64 {
    let one = |_| {
        let start = Instant::now();
        round();
        start.elapsed()
    };
    let best = (0..5).map(one).min().unwrap_or_default();
    best.as_nanos() as f64 / calls as f64
}

const CALLS: usize = 100_000;

/// Joins, leaves and publishes going round over `channels` channels that each have `standing` subscriptions already.
fn calls(label: &str, workers: usize, channels: usize, standing: usize) {
    let memory = memory(workers);
    let app = AppId::new("app-1");
    let names = names("", channels);
    for (n, name) in names.iter().enumerate() {
        (0..standing).for_each(|s| join(&memory, &app, (n + s) % workers, name, None));
    }
    let frame = Frame::new(&"x".repeat(200));
    let publishing = ns_per_call(CALLS, || {
        (0..CALLS).for_each(|n| publish(&memory, &app, &names[n % channels], &frame, None));
    });
    let (mut joining, mut leaving) = (f64::MAX, f64::MAX);
    for _ in 0..5 {
        let joined = Instant::now();
        (0..CALLS).for_each(|n| join(&memory, &app, n % workers, &names[n % channels], None));
        joining = joining.min(joined.elapsed().as_nanos() as f64 / CALLS as f64);
        let left = Instant::now();
        (0..CALLS).for_each(|n| leave(&memory, &app, n % workers, &names[n % channels], None));
        leaving = leaving.min(left.elapsed().as_nanos() as f64 / CALLS as f64);
    }
    println!("{label:<58} join {joining:>6.0}  leave {leaving:>6.0}  publish {publishing:>6.0} ns");
}

/// A user comes to and goes from a presence channel that has `present` members.
fn presence(present: usize) {
    let memory = memory(2);
    let app = AppId::new("app-1");
    let name = &names("presence-", 1)[0];
    let member = |n: usize| {
        let user_id = UserId::parse(&format!("user-{n}"), 100).expect("a valid id");
        Member { user_id, user_info: None }
    };
    (0..present).for_each(|n| join(&memory, &app, n % 2, name, Some(member(n))));
    let new = member(present);
    let mut left = Duration::ZERO;
    let start = Instant::now();
    for _ in 0..1_000 {
        join(&memory, &app, 0, name, Some(new.clone()));
        let leaving = Instant::now();
        leave(&memory, &app, 0, name, Some(new.user_id.clone()));
        left += leaving.elapsed();
    }
    let (join, leave) = ((start.elapsed() - left).as_nanos() / 1_000, left.as_nanos() / 1_000);
    println!(
        "{:<58} join {join:>6}  leave {leave:>6} ns",
        format!("presence, {present} members (a join copies the roster)")
    );
}

fn cached() {
    let memory = memory(1);
    let app = AppId::new("app-1");
    let names = names("cache-", 10_000);
    let frame = Frame::new(&"x".repeat(200));
    let hour = Some(Duration::from_secs(3_600));
    let ns = ns_per_call(CALLS, || {
        (0..CALLS).for_each(|n| publish(&memory, &app, &names[n % names.len()], &frame, hour));
    });
    println!("{:<58} publish {ns:>6.0} ns", "10,000 cache channels, each event kept");
}

fn listing() {
    let memory = memory(1);
    let (app, other) = (AppId::new("app-1"), AppId::new("app-2"));
    let names = names("", 100_000);
    let before = resident_bytes();
    names.iter().for_each(|name| join(&memory, &app, 0, name, None));
    let bytes = resident_bytes().saturating_sub(before) / names.len();
    println!("100,000 channels, names not counted: {bytes} bytes each");
    for (label, app) in [("all of them", app), ("none: another app's", other)] {
        let query = || drop(memory.query(Query::Channels { app: app.clone(), prefix: String::new() }));
        println!("listing 100,000 channels, {label}: {:.1} ms", ns_per_call(1, query) / 1e6);
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * 4096
}

fn main() {
    calls("1 channel, 1 worker, 1 subscription", 1, 1, 1);
    calls("1 channel, 1 worker, 10,000 subscriptions", 1, 1, 10_000);
    calls("1 channel, 4 workers, 4 subscriptions", 4, 1, 4);
    calls("1 channel, 4 workers, 10,000 subscriptions", 4, 1, 10_000);
    calls("10,000 channels, 1 worker, 1 subscription each", 1, 10_000, 1);
    calls("10,000 channels, 4 workers, 4 subscriptions each", 4, 10_000, 4);
    calls("10,000 channels, 1 worker, nobody there before", 1, 10_000, 0);
    calls("100,000 channels, 1 worker, 1 subscription each", 1, 100_000, 1);
    presence(1);
    presence(100);
    presence(10_000);
    cached();
    listing();
}
