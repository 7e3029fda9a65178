//! Several nodes over one Redis, and whatever can happen to either.

mod rig;

use std::collections::BTreeMap;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fulmar_engine::webhook_batch::{Address, Batch};
use fulmar_protocol::app::AppId;

use self::rig::{Ledger, Redis, desk, node, now_ms, told_at, topic, until};
use super::wire;
use crate::webhooks::WebhookDesk;

const LONG: Duration = Duration::from_secs(60);
/// Between two edges of one channel, in the time of the outbox: each is told.
const APART_MS: u64 = 4_000;

/// Chance that can be had again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Channels that come and go in times ahead of the clock, which the outbox then follows: nobody has to wait for what is
/// held.
struct Churn {
    channels: Vec<String>,
    here: Vec<bool>,
    ms: u64,
    expected: BTreeMap<String, Vec<&'static str>>,
}

impl Churn {
    fn new(channels: usize) -> Self {
        let channels: Vec<String> = (0..channels).map(|n| format!("room-{n}")).collect();
        Self { here: vec![false; channels.len()], ms: now_ms(), expected: BTreeMap::new(), channels }
    }

    /// Every channel flips once.
    fn flip(&mut self, redis: &Redis) {
        for (n, channel) in self.channels.iter().enumerate() {
            self.ms += APART_MS / self.channels.len() as u64 + 1;
            self.here[n] = !self.here[n];
            redis.edge(if self.here[n] { "co" } else { "cv" }, channel, self.ms);
            let name = if self.here[n] { "channel_occupied" } else { "channel_vacated" };
            self.expected.entry(channel.clone()).or_default().push(name);
        }
    }

    /// Moves the time of every part behind all that is held, and waits until all is told.
    fn end(&mut self, redis: &Redis) {
        // Once for what is held, and once for the batches that it opens.
        for _ in 0..2 {
            self.ms += 2 * APART_MS;
            (0..16).for_each(|part| redis.nothing(part, self.ms));
        }
        until("all is told", LONG, || redis.is_idle());
    }

    fn check(&self, ledger: &Ledger) {
        let mut heard: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, channel) in ledger.events() {
            heard.entry(channel).or_default().push(name);
        }
        for (channel, expected) in &self.expected {
            assert_eq!(heard.get(channel).map_or(&[][..], Vec::as_slice), expected, "{channel}");
        }
        assert_eq!(heard.len(), self.expected.len());
    }
}

fn all(nodes: &[(&str, usize)]) -> BTreeMap<String, usize> {
    nodes.iter().map(|(name, parts)| ((*name).to_owned(), *parts)).collect()
}

/// Two that share the parts evenly.
fn two_nodes(redis: &Arc<Redis>, url: &str) -> [WebhookDesk; 2] {
    let nodes = ["a", "b"].map(|name| node(redis, name, url));
    until("each has half", LONG, || redis.claims() == all(&[("a", 8), ("b", 8)]));
    nodes
}

/// RED-32, HOOK-35, HOOK-37
#[test]
fn nodes_share_the_parts_evenly_and_nothing_is_told_twice_while_parts_change_hands() {
    let redis = Redis::start();
    let (ledger, url) = Ledger::open(|_| true);
    let mut churn = Churn::new(32);
    let first = node(&redis, "a", &url);
    until("one has all", LONG, || redis.claims() == all(&[("a", 16)]));
    churn.flip(&redis);
    let second = node(&redis, "b", &url);
    until("each has half", LONG, || {
        churn.flip(&redis);
        std::thread::sleep(Duration::from_millis(200));
        redis.claims() == all(&[("a", 8), ("b", 8)])
    });
    second.stop();
    until("one has all again", Duration::from_secs(4), || redis.claims() == all(&[("a", 16)]));
    churn.flip(&redis);
    churn.end(&redis);
    churn.check(&ledger);
    let heard = ledger.heard();
    let requests: std::collections::BTreeSet<_> = heard.iter().map(|heard| &heard.webhook).collect();
    assert_eq!(requests.len(), heard.len(), "each request was made once");
    first.stop();
    assert_eq!(redis.claims(), all(&[("", 16)]), "an orderly end lets everything go");
}

/// RED-32, HOOK-37
#[test]
fn the_parts_of_a_dead_node_are_another_ones_within_six_seconds() {
    let redis = Redis::start();
    let (ledger, url) = Ledger::open(|_| true);
    let mut churn = Churn::new(32);
    let [dies, lives] = two_nodes(&redis, &url);
    churn.flip(&redis);
    dies.crash();
    churn.flip(&redis);
    let took = until("one has all", LONG, || redis.claims() == all(&[("b", 16)]));
    assert!(took < Duration::from_millis(6_500), "{took:?}");
    churn.end(&redis);
    churn.check(&ledger);
    lives.stop();
}

/// RED-11, RED-32
#[test]
fn a_group_that_comes_while_a_node_runs_is_worked_and_one_that_is_left_is_let_alone() {
    let redis = Redis::start();
    let (ledger, url) = Ledger::open(|_| true);
    redis.groups.store(0, Ordering::Relaxed);
    let node = node(&redis, "a", &url);
    let mut churn = Churn::new(32);
    churn.flip(&redis);
    redis.groups.store(1, Ordering::Relaxed);
    until("the group is worked", Duration::from_secs(10), || redis.claims() == all(&[("a", 16)]));
    churn.end(&redis);
    churn.check(&ledger);
    redis.is_left.store(true, Ordering::Relaxed);
    let renewed = || redis.ask(&["HGET", "t:claimants", "a"]);
    std::thread::sleep(Duration::from_millis(200));
    let before = renewed();
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(renewed(), before, "nobody goes there any more");
    node.stop();
}

/// A node of the test below.
enum Node {
    Here(Box<WebhookDesk>),
    Process(std::process::Child),
}

const CHILD: &str = "FULMAR_OUTBOX_CHILD";

fn child(redis: &Redis, name: &str, url: &str) -> Node {
    let mut process = Process::new(std::env::current_exe().unwrap());
    process.args(["webhooks::shared::tests::a_node_in_a_process_of_its_own_works_until_it_is_killed", "--exact"]);
    process.env(CHILD, format!("{} {name} {url}", redis.port)).stdout(Stdio::null()).stderr(Stdio::null());
    Node::Process(process.spawn().unwrap())
}

/// A node that can be killed as only a process can. Does nothing unless the test below started it.
#[test]
fn a_node_in_a_process_of_its_own_works_until_it_is_killed() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let [port, name, url] = told.split(' ').collect::<Vec<_>>()[..] else { panic!("{told}") };
    let desk = desk(Arc::new(rig::Elsewhere::at(port.parse().unwrap())), name, true);
    desk.set_apps([Arc::new(told_at(url))]).unwrap();
    // Whoever started it kills it; should nobody be left to do so, it ends by itself.
    std::thread::sleep(Duration::from_secs(300));
}

/// RED-32, HOOK-18, HOOK-35: whoever dies, and whenever.
#[test]
fn with_nodes_dying_at_any_moment_every_edge_is_told_in_turn_and_under_one_identity() {
    let seed = std::env::var("FULMAR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(now_ms);
    eprintln!("FULMAR_SEED={seed}");
    let mut chance = Chance(seed);
    let redis = Redis::start();
    // One in six is refused.
    let (ledger, url) = Ledger::open(|number| number % 6 != 5);
    let mut churn = Churn::new(24);
    let mut nodes = vec![
        Node::Here(Box::new(node(&redis, "n0", &url))),
        Node::Here(Box::new(node(&redis, "n1", &url))),
        child(&redis, "n2", &url),
    ];
    for round in 0..6 {
        for _ in 0..3 {
            churn.flip(&redis);
            std::thread::sleep(Duration::from_millis(chance.below(400)));
        }
        let turn = usize::try_from(chance.below(3)).unwrap();
        let name = format!("n{}", round + 3);
        let next = if turn == 2 { child(&redis, &name, &url) } else { Node::Here(Box::new(node(&redis, &name, &url))) };
        match std::mem::replace(&mut nodes[turn], next) {
            Node::Here(desk) => desk.crash(),
            Node::Process(mut process) => {
                process.kill().unwrap();
                process.wait().unwrap();
            }
        }
    }
    churn.end(&redis);
    churn.check(&ledger);
    for node in nodes {
        match node {
            Node::Here(desk) => desk.stop(),
            Node::Process(mut process) => {
                process.kill().unwrap();
                process.wait().unwrap();
            }
        }
    }
}

/// RED-32, RED-8, HOOK-39
#[test]
fn redis_forgets_its_scripts_or_starts_again_and_every_edge_is_told_once() {
    let redis = Redis::start();
    let (ledger, url) = Ledger::open(|_| true);
    let mut churn = Churn::new(24);
    let node = node(&redis, "a", &url);
    for _ in 0..3 {
        churn.flip(&redis);
        redis.ask(&["SCRIPT", "FLUSH"]);
        churn.flip(&redis);
        redis.restart();
    }
    churn.flip(&redis);
    churn.end(&redis);
    churn.check(&ledger);
    node.stop();
}

/// HOOK-40
#[test]
fn redis_loses_everything_and_what_was_told_to_have_come_is_told_to_be_gone_once() {
    let redis = Redis::start();
    let (ledger, url) = Ledger::open(|_| true);
    let mut churn = Churn::new(32);
    let nodes = two_nodes(&redis, &url);
    churn.flip(&redis);
    churn.end(&redis);
    let announced = || {
        let of_part = |part| redis.ask(&["HLEN", &format!("t:announced:{part}")]).text().parse::<usize>().unwrap();
        (0..16).map(of_part).sum::<usize>()
    };
    assert_eq!(announced(), 32);
    redis.flush();
    churn.flip(&redis);
    until("what was told is known again", LONG, || announced() == 32);
    churn.end(&redis);
    churn.check(&ledger);
    for node in nodes {
        node.stop();
    }
}

/// HOOK-40
#[test]
fn what_was_done_with_before_a_part_changed_hands_is_not_told_again_after_a_loss() {
    let redis = Redis::start();
    let (ledger, url) = Ledger::open(|_| true);
    let ms = now_ms() - 10_000;
    let channels: Vec<_> = (0..32).map(|n| (format!("room-{n}"), ms + n)).collect();
    let first = node(&redis, "a", &url);
    channels.iter().for_each(|(channel, ms)| redis.edge("co", channel, *ms));
    until("all is told", LONG, || ledger.events().len() == 32 && redis.is_idle());
    let second = node(&redis, "b", &url);
    until("each has half", LONG, || redis.claims() == all(&[("a", 8), ("b", 8)]));
    // Whoever tells something of a part has read it.
    let later_ms = now_ms();
    (0..32).for_each(|n| redis.edge("co", &format!("later-{n}"), later_ms + n));
    until("what came later is told", LONG, || ledger.events().len() == 64 && redis.is_idle());
    redis.flush();
    channels.iter().for_each(|(channel, ms)| redis.edge_again("co", channel, *ms));
    until("nothing is left to tell", LONG, || redis.is_idle());
    assert_eq!(ledger.events().len(), 64);
    first.stop();
    second.stop();
}

/// HOOK-40: nobody who died could say what was done with.
#[test]
fn what_a_dead_node_was_done_with_is_not_told_again_after_a_loss() {
    let redis = Redis::start();
    let (ledger, url) = Ledger::open(|_| true);
    let ms = now_ms() - 10_000;
    let dies = node(&redis, "a", &url);
    (0..16).for_each(|n| redis.edge("co", &format!("room-{n}"), ms + n));
    (0..16).for_each(|n| redis.edge("cv", &format!("room-{n}"), ms + 5_000 + n));
    until("all is told", LONG, || ledger.events().len() == 32 && redis.is_idle());
    dies.crash();
    let lives = node(&redis, "b", &url);
    until("one has all", LONG, || redis.claims() == all(&[("b", 16)]));
    let later_ms = now_ms();
    (0..16).for_each(|n| redis.edge("co", &format!("later-{n}"), later_ms + n));
    until("what came later is told", LONG, || ledger.events().len() == 48 && redis.is_idle());
    redis.flush();
    for (what, after) in [("co", 0), ("cv", 5_000)] {
        (0..16).for_each(|n| redis.edge_again(what, &format!("room-{n}"), ms + after + n));
    }
    until("nothing is left to tell", LONG, || redis.is_idle());
    assert_eq!(ledger.events().len(), 48);
    lives.stop();
}

/// HOOK-40: what is back was told before, and what is not back is announced.
#[test]
fn a_store_goes_back_to_what_it_had_before_and_every_edge_is_told_in_turn() {
    let redis = Redis::start();
    let (ledger, url) = Ledger::open(|_| true);
    let mut churn = Churn::new(24);
    let nodes = two_nodes(&redis, &url);
    for _ in 0..2 {
        churn.flip(&redis);
        churn.end(&redis);
        // Of some nothing was told yet, of others the going is held.
        churn.flip(&redis);
        redis.keep();
        churn.end(&redis);
        churn.flip(&redis);
        churn.end(&redis);
        redis.go_back();
        churn.flip(&redis);
        churn.end(&redis);
        redis.ask(&["EVAL", "redis.call('SELECT', 1) redis.call('FLUSHDB')", "0"]);
    }
    churn.check(&ledger);
    let ids: Vec<String> = ledger.heard().into_iter().flat_map(|heard| heard.events).collect();
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "nothing was told again");
    for node in nodes {
        node.stop();
    }
}

/// HOOK-41
#[test]
fn what_came_and_is_on_no_record_is_told_to_be_gone_although_nobody_left_a_going() {
    let redis = Redis::start();
    let (ledger, url) = Ledger::open(|_| true);
    let node = node(&redis, "a", &url);
    for channel in ["here", "gone"] {
        redis.edge("co", channel, now_ms() - 10_000);
    }
    until("both are told", LONG, || ledger.events().len() == 2);
    redis.record("here");
    redis.ask(&["HSET", "t:settled", "lives", "1 0"]);
    until("one is told to be gone", LONG, || ledger.events().len() == 3);
    assert_eq!(ledger.events()[2], ("channel_vacated".to_owned(), "gone".to_owned()));
    let (_, part) = topic("here");
    let compared = || redis.ask(&["HGET", &format!("t:claim:{part}"), "compared"]).text();
    until("the other was compared", LONG, || !compared().is_empty());
    until("all is told", LONG, || redis.is_idle());
    assert_eq!(ledger.events().len(), 3);
    node.stop();
}

/// HOOK-43: its coming made no edge, since the records of then had it already.
#[test]
fn what_is_on_record_and_about_to_be_told_to_be_gone_is_not() {
    let redis = Redis::start();
    let (ledger, url) = Ledger::open(|_| true);
    let node = node(&redis, "a", &url);
    redis.edge("co", "back", now_ms() - 10_000);
    redis.edge("co", "gone", now_ms() - 10_000);
    redis.record("back");
    redis.record("gone");
    redis.ask(&["HSET", "t:settled", "lives", "1 0"]);
    let compared = |name: &str| redis.ask(&["HGET", &format!("t:claim:{}", topic(name).1), "compared"]).text();
    until("both are told and compared", LONG, || {
        ledger.events().len() == 2 && ["back", "gone"].iter().all(|name| compared(name) == "1 0 0")
    });
    redis.unrecord("gone");
    // From so far ahead they are held for as much longer, however slow this machine is.
    redis.edge("cv", "back", now_ms() + 5_000);
    redis.edge("cv", "gone", now_ms() + 5_000);
    redis.ask(&["HSET", "t:group", "damage", "1"]);
    redis.ask(&["HSET", "t:settled", "lives", "1 1"]);
    until("one is told to be gone", LONG, || !ledger.events()[2..].is_empty());
    until("all is told", LONG, || redis.is_idle());
    assert_eq!(ledger.events()[2..], [("channel_vacated".to_owned(), "gone".to_owned())]);
    node.stop();
}

/// RED-32
#[test]
fn a_node_that_lost_a_part_without_noticing_writes_and_sends_nothing_of_it() {
    let redis = Redis::start();
    let (ledger, url) = Ledger::open(|_| true);
    let node = node(&redis, "a", &url);
    until("one has all", LONG, || redis.claims() == all(&[("a", 16)]));
    let (_, part) = topic("room");
    let claim = format!("t:claim:{part}");
    let ends = (now_ms() + 2_000).to_string();
    redis.ask(&["HSET", &claim, "node", "other", "fence", "99999999999999", "until", &ends]);
    redis.edge("co", "room", now_ms() - 10_000);
    until("the claim of the other lapses", LONG, || {
        let is_its_again = redis.ask(&["HGET", &claim, "node"]).text() == "a";
        assert!(is_its_again || ledger.heard().is_empty());
        is_its_again
    });
    until("it is told", LONG, || !ledger.heard().is_empty());
    until("all is told", LONG, || redis.is_idle());
    assert_eq!(ledger.heard().len(), 1);
    node.stop();
}

/// HOOK-9, HOOK-35
#[test]
fn a_going_is_told_three_seconds_after_its_edge_although_its_node_died_meanwhile() {
    let redis = Redis::start();
    let (ledger, url) = Ledger::open(|_| true);
    let dies = node(&redis, "a", &url);
    redis.edge("co", "room", now_ms() - 10_000);
    until("occupied is told", LONG, || ledger.events().len() == 1);
    redis.edge("cv", "room", now_ms());
    dies.crash();
    let lives = node(&redis, "b", &url);
    let took = until("vacated is told", LONG, || ledger.events().len() == 2);
    // The claim lapsed after five seconds; the hold did not begin anew then.
    assert!(took > Duration::from_secs(3) && took < Duration::from_millis(7_500), "{took:?}");
    lives.stop();
}

/// HOOK-17, HOOK-32, HOOK-38
#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_is_listed_on_any_node_and_sent_again_by_whoever_works_its_part() {
    let redis = Redis::start();
    let (ledger, url) = Ledger::open(|_| true);
    let app = told_at(&url);
    let to = Address { app: AppId::new("1"), url: url.as_str().into() };
    let old = Batch {
        id: 77,
        sealed_unix_ms: 1,
        key: "k".into(),
        signature: "s".into(),
        body: r#"{"time_ms":1,"events":[{"name":"channel_occupied","channel":"a"}]}"#.into(),
        event_ids: vec![9],
        lanes: vec!["a".into()],
    };
    let kept = String::from_utf8(wire::request(&to, &old, 5)).unwrap();
    redis.ask(&["LPUSH", "t:givenup:3", &kept]);
    redis.ask(&["HSET", "t:sealed:4", "78", &String::from_utf8(wire::request(&to, &old, 0)).unwrap()]);
    // It has another role, and claims nothing.
    let idle = desk(redis.clone(), "idle", false);
    idle.set_apps([Arc::new(app)]).unwrap();
    let listed = idle.given_up().await.unwrap();
    assert_eq!((listed.len(), listed[0].batch.id, listed[0].at_unix_ms), (1, 77, 5));
    let waiting = idle.waiting().await.unwrap();
    assert_eq!((waiting.len(), waiting[0].pending), (1, 1));
    assert_eq!(idle.replay(Some(8)).await.unwrap(), 0);
    assert_eq!(idle.replay(None).await.unwrap(), 1);
    assert_eq!(idle.given_up().await.unwrap(), []);
    assert_eq!(redis.claims(), all(&[("", 16)]));
    redis.ask(&["DEL", "t:sealed:4"]);
    let works = node(&redis, "works", &url);
    tokio::task::spawn_blocking(move || {
        until("it is told", LONG, || !ledger.heard().is_empty() && redis.is_idle());
        let heard = &ledger.heard()[0];
        assert!(heard.events[0].ends_with("-9") && !heard.body.contains(r#""time_ms":1,"#), "{heard:?}");
        works.stop();
        idle.stop();
    })
    .await
    .unwrap();
}
