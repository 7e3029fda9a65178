//! Claims and writes against a real server, which is as wrong as it can be.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use super::*;
use crate::redis::settings::Topology;
use crate::redis::topic::Topic;

/// A redis-server of our own, and what is believed of it.
pub struct Server {
    process: Child,
    believed: Mutex<Option<Primary>>,
}

impl Server {
    pub fn start() -> Arc<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut process = Command::new("redis-server");
        process.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let process = process.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let primary = Primary {
            address: format!("127.0.0.1:{port}"),
            identity: "t/g".to_owned(),
            run: "r1".to_owned(),
            epoch: 1,
        };
        let server = Arc::new(Self { process, believed: Mutex::new(Some(primary)) });
        let begun = Instant::now();
        while server.ask::<String>(&["PING"]).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "Redis does not start");
            std::thread::yield_now();
        }
        server.ask::<i64>(&["HSET", "t:group", "id", "t/g", "run", "r1", "epoch", "1"]).unwrap();
        server
    }

    pub fn address(&self) -> String {
        self.believed.lock().unwrap().as_ref().unwrap().address.clone()
    }

    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut connection = redis::Client::open(format!("redis://{}", self.address()))?.get_connection()?;
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| _ = command.arg(word));
        command.query(&mut connection)
    }

    fn believe(&self, change: impl FnOnce(&mut Primary)) {
        change(self.believed.lock().unwrap().as_mut().unwrap());
    }

    fn outbox(self: &Arc<Self>, node: &str) -> GroupOutbox {
        let settings = Settings::new("t", Topology::Single(String::new()));
        GroupOutbox::new(self.clone(), Arc::new(settings), 0, node)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Primaries for Server {
    fn groups(&self) -> usize {
        1
    }

    fn primary(&self, _: usize) -> Option<Primary> {
        self.believed.lock().unwrap().clone()
    }
}

fn over() -> [Operation; 1] {
    [Operation::Over(1)]
}

/// RED-32, HOOK-37
#[tokio::test]
async fn whoever_takes_a_part_has_a_higher_fence_and_whoever_had_it_can_write_no_more() {
    let server = Server::start();
    let (mut a, mut b) = (server.outbox("a"), server.outbox("b"));
    let first = a.turn(5, true).await.unwrap();
    assert_eq!((first.held.len(), first.held[0].0, first.share()), (16, 5, 16));
    let again = b.turn(0, true).await.unwrap();
    assert_eq!((again.held.len(), again.claimants, again.share()), (0, 2, 8));
    let (part, fence) = first.held[0].clone();
    a.write(part, &fence, &over()).await.unwrap();
    a.leave(&[(part, fence.clone())], false).await.unwrap();
    assert!(matches!(a.write(part, &fence, &over()).await, Err(OutboxError::NotClaimed(5))));
    let taken = b.turn(0, true).await.unwrap();
    assert_eq!(taken.held.len(), 1);
    assert!(taken.held[0].1.parse::<u64>().unwrap() > fence.parse().unwrap());
    assert!(matches!(a.write(part, &taken.held[0].1, &over()).await, Err(OutboxError::NotClaimed(5))));
    // The lapse is told by the server's clock alone.
    server.ask::<i64>(&["HSET", "t:claim:6", "until", "1"]).unwrap();
    assert_eq!(b.turn(0, true).await.unwrap().held.len(), 2);
    assert_eq!(a.turn(0, true).await.unwrap().held.len(), 14);
}

/// RED-5, RED-6: nothing is written on a server that is not what it is taken for.
#[tokio::test]
async fn a_server_that_is_another_groups_or_older_or_nobodys_is_refused() {
    let server = Server::start();
    let mut outbox = server.outbox("a");
    server.believe(|primary| primary.identity = "t/other".to_owned());
    let refused = |error: OutboxError| error.to_string();
    assert!(refused(outbox.turn(0, true).await.unwrap_err()).contains("WRONGGROUP"));
    server.believe(|primary| primary.identity = "t/g".to_owned());
    server.believe(|primary| primary.epoch = 7);
    assert!(refused(outbox.turn(0, true).await.unwrap_err()).contains("STALEEPOCH"));
    server.believe(|primary| primary.epoch = 1);
    assert_eq!(server.ask::<i64>(&["EXISTS", "t:claimants", "t:claim:0"]).unwrap(), 0, "nothing was written");
    // Another server of the same group raises the epoch, and what is older is refused from then on.
    server.believe(|primary| primary.run = "r2".to_owned());
    outbox.turn(0, true).await.unwrap();
    assert_eq!(server.ask::<String>(&["HGET", "t:group", "epoch"]).unwrap(), "2");
    server.ask::<i64>(&["HSET", "t:group", "epoch", "1"]).unwrap();
    assert!(refused(outbox.turn(0, true).await.unwrap_err()).contains("STALEEPOCH"));
    server.ask::<i64>(&["DEL", "t:group"]).unwrap();
    assert!(refused(outbox.turn(0, true).await.unwrap_err()).contains("NOIDENTITY"));
    *server.believed.lock().unwrap() = None;
    assert!(matches!(outbox.turn(0, true).await, Err(OutboxError::NoPrimary(0))));
}

/// RED-32
#[tokio::test]
async fn what_is_written_is_what_whoever_comes_next_reads() {
    let server = Server::start();
    let mut outbox = server.outbox("a");
    // Damage: a key of another kind would stop every write.
    server.ask::<String>(&["SET", "t:sealed:3", "x"]).unwrap();
    let turn = outbox.turn(3, true).await.unwrap();
    let (part, fence) = turn.held[0].clone();
    server.ask::<String>(&["XADD", "t:outbox:3", "5-1", "w", "co", "t", "1:room", "g", "5-0"]).unwrap();
    server.ask::<String>(&["XADD", "t:outbox:3", "6-0", "w", "cm", "t", "1:cache-a", "g", "6-0"]).unwrap();
    let look = outbox.look(&[(3, EntryId::default()), (4, EntryId::default())]).await.unwrap();
    assert_eq!(look.entries[&3].iter().map(|entry| entry.at).collect::<Vec<_>>(), [EntryId(5, 1), EntryId(6, 0)]);
    assert!(look.now_ms > 1_700_000_000_000 && !look.entries.contains_key(&4));
    let (app, subject) = entry::subject("c1:room").unwrap();
    let operations = [
        Operation::Settle(EntryId(5, 1), 55),
        Operation::Partly(EntryId(6, 0), vec!["http://a/".into(), "http://b/".into()]),
        Operation::Announce(app, subject.clone(), 5 << 20),
        Operation::Seal(9, b"{}".to_vec()),
        Operation::GiveUp(b"old".to_vec()),
    ];
    for _ in 0..2 {
        outbox.write(part, &fence, &operations).await.unwrap();
    }
    let stored = outbox.stored(3).await.unwrap();
    assert_eq!(stored.sealed, [(9, b"{}".to_vec())]);
    assert_eq!(stored.partly, [(EntryId(6, 0), vec!["http://a/".into(), "http://b/".into()])]);
    assert_eq!((&stored.announced[0].1, stored.announced[0].2), (&subject, 5 << 20));
    assert_eq!(server.ask::<i64>(&["XLEN", "t:outbox:3"]).unwrap(), 1);
    assert_eq!(outbox.given_up(3).await.unwrap(), [b"old".to_vec()], "once, however often it is written");
    assert!(outbox.again(3, b"old").await.unwrap() && !outbox.again(3, b"old").await.unwrap());
    let look = outbox.look(&[(3, EntryId(6, 0))]).await.unwrap();
    assert!(matches!(&look.entries[&3][0].what, What::Again(request) if request == b"old"));
}

fn announced(names: &[&str], is_going: bool) -> Vec<Believed> {
    let subjects = names.iter().map(|name| entry::subject(name).unwrap());
    subjects.map(|(app, subject)| Believed { app, subject, is_going }).collect()
}

/// HOOK-41
#[tokio::test]
async fn of_what_was_announced_and_no_live_node_has_on_record_a_going_is_left_once_all_have_looked_after_theirs() {
    let server = Server::start();
    let hash = |key: &str, field: &str, value: &str| _ = server.ask::<i64>(&["HSET", key, field, value]).unwrap();
    let mut outbox = server.outbox("a");
    hash("t:nodes", "live", "x");
    let turn = outbox.turn(3, true).await.unwrap();
    assert_eq!((turn.sight, turn.compared[&3].as_str()), (None, ""), "it has not looked yet");
    hash("t:settled", "live", "1 0");
    let turn = outbox.turn(3, true).await.unwrap();
    assert_eq!(turn.sight.as_deref(), Some("1 0 0"));

    let slot = |topic: &str| Topic::parse(topic).unwrap().slot().0;
    let record = |topic: &str, node: &str| hash(&format!("t:rec:{}:{node}", slot(topic)), topic, "1 0");
    record("1:here", "live");
    record("1:gone", "dead");
    record("1:presence-a", "live");
    hash(&format!("t:mem:{}:live:1:presence-a", slot("1:presence-a")), "ana", "1 {}");
    record("1::eve", "live");
    hash("t:slots", &slot("1:moved").to_string(), "to:h:5");
    let names = ["c1:here", "c1:gone", "m1:presence-a\nana", "m1:presence-a\nbob", "u1::eve", "u1::zoe", "c1:moved"];
    let (part, fence) = turn.held[0].clone();
    let of = Sighted { part, fence, sight: "1 0 0".to_owned() };
    let told = announced(&names, false);
    assert_eq!(outbox.compare(&of, &told).await.unwrap(), Some(Compared { looked: 7, gone: 3, back: 0 }));
    let held = announced(&names, true);
    assert_eq!(outbox.compare(&of, &held).await.unwrap(), Some(Compared { looked: 7, gone: 0, back: 3 }));
    let look = outbox.look(&[(3, EntryId::default())]).await.unwrap();
    let left: Vec<String> = look.entries[&3].iter().map(|entry| format!("{:?}", entry.what)).collect();
    let says = |at: usize, words: [&str; 2]| words.iter().all(|word| left[at].contains(word));
    assert!(says(0, ["Went(Channel", "gone"]) && says(1, ["Went(Member", "bob"]) && says(2, ["Went(User", "zoe"]));
    assert!(says(3, ["Came(Channel", "here"]) && says(4, ["Came(Member", "ana"]) && says(5, ["Came(User", "eve"]));
    assert_eq!(left.len(), 6);

    let other = Sighted { fence: "1".to_owned(), ..of.clone() };
    assert!(matches!(outbox.compare(&other, &told).await, Err(OutboxError::NotClaimed(3))));
    assert!(matches!(outbox.search(&other, &SearchFrom::default()).await, Err(OutboxError::NotClaimed(3))));
    hash("t:group", "damage", "1");
    assert_eq!(outbox.compare(&of, &told).await.unwrap(), None, "damage was found since");
    assert_eq!(outbox.search(&of, &SearchFrom::default()).await.unwrap(), None);
}

/// HOOK-41, RED-36
#[tokio::test]
async fn where_a_full_part_dropped_edges_what_was_told_is_compared_once_it_has_room_again() {
    let server = Server::start();
    let mut outbox = server.outbox("a");
    let of = sighted(&server, &mut outbox).await;
    server.ask::<i64>(&["HSET", "t:group", "cut:5", "4"]).unwrap();
    for _ in 0..2 {
        server.ask::<String>(&["XADD", "t:outbox:5", "*", "w", "zz"]).unwrap();
    }
    let turn = outbox.turn(3, true).await.unwrap();
    assert_eq!(turn.sight.as_ref(), Some(&of.sight), "half of it waits: there is no room for what is said again");
    server.ask::<i64>(&["DEL", "t:outbox:5"]).unwrap();
    for _ in 0..2 {
        assert_eq!(outbox.turn(3, true).await.unwrap().sight.as_deref(), Some("1 0 1"), "once");
    }
}

/// A part in which all live nodes have looked after their records.
async fn sighted(server: &Server, outbox: &mut GroupOutbox) -> Sighted {
    server.ask::<i64>(&["HSET", "t:nodes", "live", "x"]).unwrap();
    server.ask::<i64>(&["HSET", "t:settled", "live", "1 0"]).unwrap();
    let turn = outbox.turn(3, true).await.unwrap();
    let (part, fence) = turn.held[0].clone();
    Sighted { part, fence, sight: "1 0 0".to_owned() }
}

/// Searches to the end; answers how many were found, and in how many steps.
async fn search(outbox: &mut GroupOutbox, of: &Sighted, from: SearchFrom) -> (usize, usize) {
    let (mut next, mut found, mut steps) = (Some(from), 0, 0);
    while let Some(from) = next {
        let searched = outbox.search(of, &from).await.unwrap().unwrap();
        (next, found, steps) = (searched.next, found + searched.found, steps + 1);
    }
    (found, steps)
}

/// HOOK-43
#[tokio::test]
async fn of_what_live_nodes_have_on_record_and_was_never_announced_a_coming_is_left_where_it_is_wanted() {
    let server = Server::start();
    let hash = |key: &str, field: &str, value: &str| _ = server.ask::<i64>(&["HSET", key, field, value]).unwrap();
    let mut outbox = server.outbox("a");
    for node in ["live", "other"] {
        hash("t:nodes", node, "x");
        hash("t:settled", node, "1 0");
    }
    let turn = outbox.turn(0, true).await.unwrap();
    let slot = |topic: &str| Topic::parse(topic).unwrap().slot();
    let record = |topic: &str, node: &str, text: &str| hash(&format!("t:rec:{}:{node}", slot(topic).0), topic, text);
    let all = 0b1_1000_1111;
    record("1:told", "live", &format!("1 {all}"));
    record("1:untold", "other", &format!("2 {all}"));
    record("1:nobody-asked", "live", "1 0");
    record("1:of-a-dead-node", "dead", &format!("1 {all}"));
    record("1:moved", "live", &format!("1 {all}"));
    record("1::eve", "live", &format!("1 {all}"));
    record("1:presence-a", "live", &format!("2 {all}"));
    for user in ["ana", "bob"] {
        hash(&format!("t:mem:{}:live:1:presence-a", slot("1:presence-a").0), user, "1 {}");
    }
    hash("t:slots", &slot("1:moved").0.to_string(), "to:h:5");
    let announced = |topic: &str, name: &str| hash(&format!("t:announced:{}", slot(topic).outbox_part()), name, "1");
    announced("1:told", "c1:told");
    announced("1:presence-a", "c1:presence-a");
    announced("1:presence-a", "m1:presence-a\nana");
    let mut came = Vec::new();
    for (part, fence) in turn.held {
        let of = Sighted { part, fence, sight: "1 0 0".to_owned() };
        let (noted, _) = search(&mut outbox, &of, SearchFrom::default()).await;
        assert!(outbox.look(&[(part, EntryId::default())]).await.unwrap().entries.is_empty(), "it may be damage");
        // Who comes in between has an edge of its own.
        record("1:in-between", "live", &format!("1 {all}"));
        let (left, _) = search(&mut outbox, &of, SearchFrom::second()).await;
        assert_eq!(left, noted);
        server.ask::<i64>(&["HDEL", &format!("t:rec:{}:live", slot("1:in-between").0), "1:in-between"]).unwrap();
        let entries = outbox.look(&[(part, EntryId::default())]).await.unwrap().entries;
        came.extend(entries.into_values().flatten().map(|entry| format!("{:?}", entry.what)));
    }
    came.sort_unstable();
    let names = |text: &String| ["untold", "eve", "bob"].into_iter().find(|name| text.contains(name));
    assert!(came.iter().all(|text| text.contains("Came(")), "{came:?}");
    assert_eq!(came.iter().map(names).collect::<Vec<_>>(), [Some("untold"), Some("bob"), Some("eve")], "{came:?}");
    let compared = outbox.turn(0, true).await.unwrap().compared;
    assert!(compared.values().all(|sight| sight == "1 0 0") && compared.len() == 16);
}

/// HOOK-43
#[tokio::test]
async fn a_search_through_many_records_goes_on_where_it_ended() {
    let server = Server::start();
    let mut outbox = server.outbox("a");
    let of = sighted(&server, &mut outbox).await;
    let part = of.part;
    let names: Vec<String> = (0..)
        .map(|n| format!("1:room-{n}"))
        .filter(|n| Topic::parse(n).unwrap().slot().outbox_part() == part)
        .take(1_500)
        .collect();
    for name in &names {
        let slot = Topic::parse(name).unwrap().slot().0;
        server.ask::<i64>(&["HSET", &format!("t:rec:{slot}:live"), name, "1 1"]).unwrap();
    }
    let (noted, _) = search(&mut outbox, &of, SearchFrom::default()).await;
    let (left, steps) = search(&mut outbox, &of, SearchFrom::second()).await;
    assert_eq!((noted, left), (names.len(), names.len()));
    assert!((4..=12).contains(&steps), "{steps}");

    // A crowd on one channel, and an outbox that has room for a part of it.
    let crowd = (0..).map(|n| format!("1:presence-{n}"));
    let crowd = crowd.into_iter().find(|n| Topic::parse(n).unwrap().slot().outbox_part() == part).unwrap();
    let slot = Topic::parse(&crowd).unwrap().slot().0;
    server.ask::<i64>(&["HSET", &format!("t:rec:{slot}:live"), &crowd, "1 4"]).unwrap();
    for user in 0..1_500 {
        server.ask::<i64>(&["HSET", &format!("t:mem:{slot}:live:{crowd}"), &format!("u{user}"), "1 {}"]).unwrap();
    }
    for name in &names {
        server.ask::<i64>(&["HSET", &format!("t:announced:{part}"), &format!("c{name}"), "1"]).unwrap();
    }
    let room =
        usize::try_from(Settings::new("t", Topology::Single(String::new())).limits.outbox_part_max()).unwrap() / 2;
    let filler = "for i = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'w', 'zz') end";
    let outbox_key = format!("t:outbox:{part}");
    server.ask::<i64>(&["DEL", &outbox_key]).unwrap();
    let waiting = (room - 600).to_string();
    server.ask::<Option<i64>>(&["EVAL", filler, "1", &outbox_key, &waiting]).unwrap();
    search(&mut outbox, &of, SearchFrom::default()).await;
    let (mut from, mut left, mut largest, mut has_room) = (SearchFrom::second(), 0, 0, true);
    for _ in 0..40 {
        let searched = outbox.search(&of, &from).await.unwrap().unwrap();
        (left, largest) = (left + searched.found, largest.max(searched.found));
        from = searched.next.expect("there is no room for all of them");
        has_room = searched.has_room;
    }
    assert!(!has_room, "others need not wait for it");
    assert_eq!((left, largest <= 700), (600, true), "{largest}");
    server.ask::<i64>(&["DEL", &outbox_key]).unwrap();
    let left = left + search(&mut outbox, &of, from).await.0;
    assert!((1_500..1_800).contains(&left), "{left}: every one, and some of a page twice");
}

/// HOOK-41
#[tokio::test]
async fn a_step_of_comparing_is_short_and_what_was_given_back_is_compared_anew() {
    let server = Server::start();
    let mut outbox = server.outbox("a");
    let of = sighted(&server, &mut outbox).await;
    let told = announced(&["c1:a"; 300], false);
    assert_eq!(outbox.compare(&of, &told).await.unwrap(), Some(Compared { looked: 250, gone: 250, back: 0 }));
    assert_eq!(outbox.compare(&of, &told[250..]).await.unwrap(), Some(Compared { looked: 50, gone: 50, back: 0 }));
    assert_eq!(outbox.turn(3, true).await.unwrap().compared[&3], "", "the records are to be searched");
    assert_eq!(search(&mut outbox, &of, SearchFrom::default()).await, (0, 1), "with nothing noted there is no second");
    assert_eq!(outbox.turn(3, true).await.unwrap().compared[&3], "1 0 0");
    let had = Had { announced: [(entry::subject("c1:b").unwrap(), 7)].into(), ..Had::default() };
    let stand = outbox.turn(3, true).await.unwrap().stand[3];
    assert_eq!(outbox.recall(3, stand, 0, &had).await.unwrap(), Recalled::Done);
    assert_eq!(outbox.turn(3, true).await.unwrap().compared[&3], "");
}
