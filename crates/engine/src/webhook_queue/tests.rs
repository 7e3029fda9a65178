//! Order, fairness and giving up, in time that is moved by hand.

use std::collections::BTreeMap;

use fulmar_protocol::app::AppId;

use super::*;

const SOCKETS: Sockets = Sockets { fast: 4, slow: 8 };
const TIMEOUT_MS: u64 = 4_000;
const PATIENCE_MS: u64 = 285_000;

fn address(name: &str) -> Address {
    Address { app: AppId::new("1"), url: name.into() }
}

fn waiting(id: u64, now: Moment, lanes: &[&str]) -> Waiting {
    let lanes = lanes.iter().map(|lane| Arc::from(*lane)).collect();
    Waiting { id, bytes: 100, lanes, since: now, last_try: now.plus_ms(PATIENCE_MS) }
}

/// Lines, a clock, and endpoints that answer as `answer` says, after as long as it says.
struct World {
    queues: WebhookQueues,
    now: Moment,
    under_way: Vec<(Moment, Attempt, Outcome)>,
    /// Every attempt, with its time and outcome, in the order of their ends.
    log: Vec<(u64, Attempt, Outcome)>,
    over: Vec<(u64, u64, Fate)>,
}

type Answer<'a> = &'a dyn Fn(&Attempt, Moment) -> (u64, Outcome);

impl World {
    fn new(sockets: Sockets) -> Self {
        let queues = WebhookQueues::new(sockets);
        Self { queues, now: Moment(0), under_way: Vec::new(), log: Vec::new(), over: Vec::new() }
    }

    fn add(&mut self, to: &str, id: u64, lanes: &[&str]) -> Vec<u64> {
        let given_up = self.queues.add(self.now, &address(to), waiting(id, self.now, lanes));
        given_up.into_iter().map(|attempt| attempt.id).collect()
    }

    fn start(&mut self, answer: Answer<'_>) {
        while let Some(attempt) = self.queues.next_attempt(self.now) {
            let (after_ms, outcome) = answer(&attempt, self.now);
            self.under_way.push((self.now.plus_ms(after_ms), attempt, outcome));
        }
    }

    /// Lets time pass in steps of ten milliseconds.
    fn wait(&mut self, ms: u64, answer: Answer<'_>) {
        let end = self.now.plus_ms(ms);
        self.start(answer);
        while self.now < end {
            self.now = self.now.plus_ms(10);
            let now = self.now;
            let (ended, running): (Vec<_>, Vec<_>) = self.under_way.drain(..).partition(|(at, ..)| *at <= now);
            self.under_way = running;
            for (_, attempt, outcome) in ended {
                let fate = self.queues.finish(now, &attempt, outcome, u32::MAX / 2);
                self.log.push((now.0, attempt.clone(), outcome));
                if fate != Fate::Kept {
                    self.over.push((now.0, attempt.id, fate));
                }
            }
            if now.0.is_multiple_of(LINGER_MS) {
                for (_, attempt, _) in &self.under_way {
                    self.queues.linger(attempt);
                }
            }
            if now.0.is_multiple_of(1_000) {
                let expired = self.queues.expire(now);
                self.over.extend(expired.into_iter().map(|attempt| (now.0, attempt.id, Fate::GivenUp)));
            }
            self.start(answer);
        }
    }

    fn delivered(&self) -> Vec<u64> {
        self.over.iter().filter(|(_, _, fate)| *fate == Fate::Delivered).map(|(_, id, _)| *id).collect()
    }
}

fn takes(_: &Attempt, _: Moment) -> (u64, Outcome) {
    (20, Outcome::Delivered)
}

/// HOOK-14, trap T-45, trap T-46
#[test]
fn a_dead_endpoint_is_tried_ever_more_rarely_and_for_the_last_time_before_290_seconds() {
    let mut world = World::new(SOCKETS);
    world.add("dead", 1, &["a"]);
    world.wait(400_000, &|_, _| (TIMEOUT_MS, Outcome::Unreachable));
    let begun: Vec<u64> = world.log.iter().map(|(end, ..)| (end - TIMEOUT_MS) / 1_000).collect();
    assert_eq!(begun, [0, 5, 11, 19, 31, 51, 87, 155, 223, 285]);
    assert_eq!(world.over, [(PATIENCE_MS + TIMEOUT_MS, 1, Fate::GivenUp)]);
    assert_eq!(world.queues.pending(), (0, 0));
    assert_eq!(world.queues.in_flight(), 0);
}

/// HOOK-15
#[test]
fn what_concerns_one_channel_is_delivered_in_order_through_an_outage() {
    let mut world = World::new(SOCKETS);
    for id in 1..=20 {
        world.add("receiver", id, &[["a", "b", "c"][id as usize % 3]]);
    }
    let is_down = |_: &Attempt, now: Moment| match now.0 {
        0..70_000 => (10, Outcome::Unreachable),
        _ => (20, Outcome::Delivered),
    };
    world.wait(140_000, &is_down);
    let delivered = world.delivered();
    assert_eq!(delivered.len(), 20);
    for lane in 0..3 {
        let of_lane: Vec<u64> = delivered.iter().copied().filter(|id| id % 3 == lane).collect();
        assert!(of_lane.is_sorted(), "{of_lane:?}");
    }
    let last = world.over.last().unwrap().0;
    assert!(last < 70_000 + PAUSE_MAX_MS * 6 / 5 + 1_000, "once it is back everything follows at once: {last}");
}

/// HOOK-15
#[test]
fn a_batch_that_alone_is_refused_delays_others_of_its_channel_for_a_bounded_time_and_nobody_else() {
    let mut world = World::new(SOCKETS);
    let poison = |attempt: &Attempt, _: Moment| match attempt.id {
        1 => (10, Outcome::Refused),
        _ => (10, Outcome::Delivered),
    };
    world.add("receiver", 1, &["a"]);
    world.add("receiver", 2, &["a"]);
    world.add("receiver", 3, &["b"]);
    world.wait(1_000, &poison);
    assert_eq!(world.delivered(), [3]);
    for id in 4..40 {
        world.add("receiver", id, &["b"]);
        world.wait(1_000, &poison);
    }
    let at = |id| world.over.iter().find(|(_, other, _)| *other == id).map(|(at, ..)| *at);
    assert!(at(2).is_some_and(|at| (OVERTAKE_AFTER_MS..OVERTAKE_AFTER_MS + 3_000).contains(&at)), "{:?}", at(2));
    assert_eq!(world.delivered().len(), 38);
    world.wait(300_000, &poison);
    assert_eq!(world.over.last().map(|(_, id, fate)| (*id, *fate)), Some((1, Fate::GivenUp)));
}

/// HOOK-16
#[test]
fn a_thousand_dead_endpoints_delay_a_live_one_by_less_than_a_second() {
    let mut world = World::new(Sockets { fast: 256, slow: 1_024 });
    let dead = |attempt: &Attempt, _: Moment| match &*attempt.to.url {
        "live" => (20, Outcome::Delivered),
        _ => (TIMEOUT_MS, Outcome::Unreachable),
    };
    let mut added = BTreeMap::new();
    let mut id = 0;
    for round in 0..60 {
        for n in 0..1_000 {
            id += 1;
            world.add(&format!("dead-{n}"), id, &["a"]);
        }
        id += 1;
        added.insert(id, world.now.0);
        world.add("live", id, &["a"]);
        world.wait(if round < 10 { 50 } else { 500 }, &dead);
    }
    world.wait(1_000, &dead);
    let mut late: Vec<u64> =
        world.over.iter().filter(|(_, _, f)| *f == Fate::Delivered).map(|(at, id, _)| at - added[id]).collect();
    late.sort_unstable();
    assert_eq!(late.len(), 60);
    assert!(late[59] < 1_000, "{late:?}");
    assert!(late[50] <= 100, "{late:?}");
}

/// HOOK-16
#[test]
fn more_dead_endpoints_than_sockets_still_leave_some_for_one_that_answers() {
    let mut world = World::new(Sockets { fast: 8, slow: 16 });
    let dead = |attempt: &Attempt, _: Moment| match &*attempt.to.url {
        "live" => (20, Outcome::Delivered),
        _ => (TIMEOUT_MS, Outcome::Unreachable),
    };
    world.add("live", 1, &["a"]);
    world.wait(100, &dead);
    for n in 0..500 {
        world.add(&format!("dead-{n}"), 10 + n, &["a"]);
    }
    for id in 1_000..1_040 {
        world.add("live", id, &["a"]);
        world.wait(250, &dead);
    }
    let delivered: Vec<u64> = world.over.iter().map(|(at, ..)| *at).collect();
    assert_eq!(delivered.len(), 41);
    assert!(delivered.windows(2).all(|pair| pair[1] - pair[0] < 500), "{delivered:?}");
}

/// HOOK-19
#[test]
fn a_full_line_gives_up_its_oldest() {
    let mut world = World::new(SOCKETS);
    for id in 0..LINE_BATCHES_MAX as u64 {
        assert_eq!(world.add("a", id, &[]), [0; 0]);
    }
    assert_eq!(world.add("a", 1_000_000, &[]), [0]);
    let large = Waiting { bytes: LINE_BYTES_MAX - 500, ..waiting(1_000_001, world.now, &[]) };
    assert_eq!(world.queues.add(world.now, &address("a"), large).len(), LINE_BATCHES_MAX - 5);
    assert_eq!(world.queues.pending().0, 6);
}

/// HOOK-19
#[test]
fn where_too_much_waits_in_all_the_longest_line_gives_up_its_oldest() {
    let mut world = World::new(SOCKETS);
    world.queues.bytes_max = 1_000;
    world.add("short", 1, &[]);
    for id in 2..=10 {
        assert_eq!(world.add("long", id, &[]), [0; 0]);
    }
    assert_eq!(world.add("short", 11, &[]), [2]);
    assert_eq!(world.queues.pending(), (10, 1_000));
}

/// HOOK-15
#[test]
fn different_channels_go_side_by_side_and_one_channel_does_not() {
    let mut world = World::new(Sockets { fast: 100, slow: 100 });
    for id in 0..20 {
        let lane = id.to_string();
        world.add("a", id, &[&lane]);
        world.add("b", 100 + id, &["same"]);
    }
    world.start(&takes);
    let of = |url: &str| world.under_way.iter().filter(|(_, attempt, _)| *attempt.to.url == *url).count();
    assert_eq!((of("a"), of("b")), (IN_FLIGHT_MAX, 1));
}

/// HOOK-23
#[test]
fn an_endpoint_that_is_no_longer_configured_leaves_nothing_behind() {
    let mut world = World::new(SOCKETS);
    world.add("goes", 1, &["a"]);
    world.add("goes", 2, &["a"]);
    world.add("stays", 3, &["a"]);
    world.start(&takes);
    assert_eq!(world.queues.in_flight(), 2);
    let dropped: Vec<u64> = world.queues.retain(|to| &*to.url == "stays").iter().map(|a| a.id).collect();
    assert_eq!(dropped, [1, 2]);
    world.wait(100, &takes);
    assert_eq!(
        world.over.iter().map(|(_, id, fate)| (*id, *fate)).collect::<Vec<_>>(),
        [(1, Fate::Unknown), (3, Fate::Delivered)]
    );
    assert_eq!(world.queues.in_flight(), 0);
    assert_eq!(world.queues.oldest(), None);
}

/// HOOK-20
#[test]
fn the_oldest_batch_that_waits_is_known() {
    let mut world = World::new(SOCKETS);
    world.add("late", 1, &["a"]);
    world.wait(50_000, &|_, _| (10, Outcome::Unreachable));
    world.add("new", 2, &["a"]);
    let (to, since) = world.queues.oldest().unwrap();
    assert_eq!((&*to.url, world.now.ms_since(since)), ("late", 50_000));
}
