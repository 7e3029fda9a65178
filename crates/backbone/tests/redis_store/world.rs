//! A real server, and stores that share it as the nodes of a deployment. Time is moved by hand; commands are carried at once.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fulmar_backbone::redis::envelope::Message;
use fulmar_backbone::redis::keys::Keys;
use fulmar_backbone::redis::records::{Call, Change, Changed, Find, Found, MembersFull, Presence, Token, Told};
use fulmar_backbone::redis::store::{Facts, Out, Outgoing, Refusal, Store, StoreLimits};
use fulmar_backbone::redis::topic::Topic;
use fulmar_protocol::name::UserId;
use fulmar_protocol::webhook::{EventKind, Kinds};
use redis::{Connection, ConnectionLike as _, Value};

/// `REDIS_SERVER` names another program to be tested with.
fn program() -> String {
    std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// A server process, ended with the value.
pub struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// `None` where the program is not installed: whoever asks says so and goes home.
    pub fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let number = port.to_string();
        let arguments = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port", &number];
        let process = Command::new(program()).args(arguments).stdout(Stdio::null()).spawn();
        let Ok(process) = process else {
            eprintln!("SKIPPED: {} is not installed, nothing was tested", program());
            return None;
        };
        let server = Self { process, port };
        let until = Instant::now() + Duration::from_secs(20);
        while server.try_connect().is_none() {
            assert!(Instant::now() < until, "the server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    fn try_connect(&self) -> Option<Connection> {
        redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).ok()?.get_connection().ok()
    }

    pub fn connect(&self) -> Connection {
        self.try_connect().expect("a connection")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A node: a store and what it was told.
pub struct Node {
    pub store: Store,
    connection: Connection,
    pub facts: Facts,
    pub told: Vec<Told>,
    pub refused: Vec<Refusal>,
    pub was_reaped: bool,
    pub has_left: bool,
    /// Edges that the outbox had no room for, as the last beat said.
    pub edges_dropped: u64,
    /// It does nothing while this is set: stopped, or dead.
    pub is_stopped: bool,
    beats: u64,
    next_token: u64,
}

/// Everything together.
pub struct World {
    pub nodes: Vec<Node>,
    pub now: Instant,
    pub keys: Keys,
    pub admin: Connection,
    pulse: Connection,
    pub server: Server,
}

pub const DEPLOYMENT: &str = "dep";
pub const IDENTITY: &str = "dep/single";
/// Entries of a part of the outbox.
pub const OUTBOX_PART_MAX: u64 = 40;
/// Longest that damage may show.
pub const WITHIN: Duration = Duration::from_secs(3);

impl World {
    /// A group with so many nodes, all of which have looked after their records.
    pub fn new(nodes: usize) -> Option<Self> {
        let server = Server::start()?;
        let (mut admin, mut pulse) = (server.connect(), server.connect());
        let keys = Keys::new(DEPLOYMENT);
        identify(&mut admin, &keys, 1);
        pulse.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        redis::cmd("SUBSCRIBE").arg(keys.pulse()).exec(&mut pulse).unwrap();
        let mut world = Self { nodes: Vec::new(), now: Instant::now(), keys, admin, pulse, server };
        for number in 0..nodes {
            world.add(&format!("node{number}"));
        }
        world.run(Duration::from_secs(3));
        world.nodes.iter_mut().for_each(|node| node.told.clear());
        Some(world)
    }

    pub fn add(&mut self, name: &str) {
        let limits = StoreLimits {
            log_age: Duration::from_secs(60),
            log_entries_max: 10_000,
            outbox_part_max: OUTBOX_PART_MAX,
            lease: Duration::from_secs(7),
        };
        let run: String = info(&mut self.admin, "run_id");
        let mut node = Node {
            store: Store::new(self.now, self.keys.clone(), name.to_owned(), limits),
            connection: self.server.connect(),
            facts: Facts { identity: IDENTITY.to_owned(), run, epoch: 1, slots: 0 },
            told: Vec::new(),
            refused: Vec::new(),
            was_reaped: false,
            has_left: false,
            edges_dropped: 0,
            is_stopped: false,
            beats: 0,
            next_token: 1,
        };
        node.store.attached(self.now, 1);
        self.nodes.push(node);
    }

    /// Carries everything there is to carry now.
    pub fn settle(&mut self) {
        loop {
            let mut is_busy = false;
            for node in self.nodes.iter_mut().filter(|node| !node.is_stopped) {
                is_busy |= node.step(self.now);
            }
            if !is_busy {
                break;
            }
        }
        for node in self.nodes.iter().filter(|node| !node.is_stopped) {
            assert!(node.store.next_deadline().is_none_or(|at| at > self.now), "a driver would spin");
        }
        self.hear();
    }

    /// Passes on what was published about damage.
    fn hear(&mut self) {
        // What the server has executed is on its way before this answer is.
        let heard = self.keys.pulse();
        redis::cmd("PUBLISH").arg(&heard).arg("end").exec(&mut self.admin).unwrap();
        while let Ok(push) = self.pulse.recv_response() {
            let Value::Array(parts) = push else { continue };
            let Some(Value::BulkString(text)) = parts.get(2) else { continue };
            let text = String::from_utf8_lossy(text).into_owned();
            if text == "end" {
                break;
            }
            for node in self.nodes.iter_mut().filter(|node| !node.is_stopped) {
                let mut outs = Vec::new();
                node.store.doubt(self.now, &text, &mut outs);
                node.take(outs);
            }
        }
    }

    /// Moves time on, in tenths of a second.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        self.settle();
        while self.now < until {
            self.now += Duration::from_millis(100);
            self.settle();
        }
    }

    /// Asks for a change and waits for its answer.
    pub fn change(&mut self, node: usize, change: Change) -> Result<Changed, MembersFull> {
        let token = change.token;
        self.nodes[node].ask(Call::Change(change));
        self.settle();
        let told = std::mem::take(&mut self.nodes[node].told);
        let mut outcome = None;
        for told in told {
            match told {
                Told::Changed { token: of, outcome: this } if of == token => outcome = Some(this),
                other => self.nodes[node].told.push(other),
            }
        }
        outcome.expect("an answer")
    }

    pub fn find(&mut self, node: usize, what: Find) -> Found {
        let token = self.nodes[node].token();
        self.nodes[node].ask(Call::Find { token, what });
        self.settle();
        let found = self.nodes[node].told.iter().rev().find_map(|told| match told {
            Told::Found { token: of, found } if *of == token => Some(found.clone()),
            _ => None,
        });
        found.expect("an answer").expect("something found")
    }

    /// Users present, as readers see them.
    pub fn roster(&mut self, node: usize, topic: &Topic) -> (Vec<String>, bool) {
        let token = self.nodes[node].token();
        self.nodes[node].ask(Call::Roster { token, topic: topic.clone() });
        self.settle();
        let roster = self.nodes[node].told.iter().rev().find_map(|told| match told {
            Told::Roster { token: of, members, is_settled, .. } if *of == token => {
                let users = members.iter().map(|(member, _)| member.user_id.as_str().to_owned());
                Some((users.collect(), *is_settled))
            }
            _ => None,
        });
        roster.expect("an answer")
    }

    /// Subscriptions of a topic, as readers see them.
    pub fn total(&mut self, node: usize, topic: &Topic) -> u64 {
        self.settled_total(node, topic).0
    }

    /// The same, and whether all nodes have looked after their records.
    pub fn settled_total(&mut self, node: usize, topic: &Topic) -> (u64, bool) {
        let found = self.find(node, Find::Topics(vec![topic.clone()]));
        let Found::Totals { totals, is_settled } = found else { panic!("totals") };
        (totals[0].subscriptions, is_settled)
    }

    /// Messages in the log, as `TOPIC MESSAGE`.
    pub fn log(&mut self) -> Vec<String> {
        let entries: Value =
            redis::cmd("XRANGE").arg(self.keys.log()).arg("-").arg("+").query(&mut self.admin).unwrap();
        entries_of(&entries)
    }

    /// Entries of the outbox.
    pub fn outbox(&mut self, topic: &Topic) -> Vec<String> {
        let key = self.keys.outbox(topic.slot().outbox_part());
        let entries: Value = redis::cmd("XRANGE").arg(key).arg("-").arg("+").query(&mut self.admin).unwrap();
        let joined = entries_of(&entries).join(" ");
        joined.split("w ").filter(|entry| !entry.is_empty()).map(|entry| entry.trim().to_owned()).collect()
    }

    pub fn redis<T: redis::FromRedisValue>(&mut self, command: &[&str]) -> T {
        let mut cmd = redis::cmd(command[0]);
        cmd.arg(&command[1..]);
        cmd.query(&mut self.admin).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }
}

fn entries_of(entries: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("{other:?}"),
    };
    let Value::Array(entries) = entries else { panic!("{entries:?}") };
    let mut pairs = Vec::new();
    for entry in entries {
        let Value::Array(parts) = entry else { panic!("{entry:?}") };
        let Value::Array(fields) = &parts[1] else { panic!("{entry:?}") };
        pairs.extend(fields.chunks(2).map(|pair| format!("{} {}", text(&pair[0]), text(&pair[1]))));
    }
    pairs
}

/// Writes the group's identity, as the driver does.
pub fn identify(admin: &mut Connection, keys: &Keys, epoch: u64) {
    let run: String = info(admin, "run_id");
    let mut cmd = redis::cmd("HSET");
    cmd.arg(keys.identity()).arg("id").arg(IDENTITY).arg("run").arg(run).arg("epoch").arg(epoch);
    cmd.exec(admin).unwrap();
}

/// A line of INFO.
pub fn info(connection: &mut Connection, name: &str) -> String {
    let text: String = redis::cmd("INFO").arg("everything").query(connection).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

impl Node {
    pub fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    pub fn ask(&mut self, call: Call) {
        let mut outs = Vec::new();
        self.store.call(call, &mut outs);
        self.take(outs);
    }

    fn take(&mut self, outs: Vec<Out>) {
        for out in outs {
            match out {
                Out::Told(told) => self.told.push(told),
                Out::Refused(refusal) => self.refused.push(refusal),
                Out::Reaped => self.was_reaped = true,
                Out::Left => self.has_left = true,
                Out::Epoch(epoch) => self.facts.epoch = epoch,
                Out::Nodes(seen) => self.edges_dropped = seen.edges_dropped,
            }
        }
    }

    /// What it would send, without sending it.
    pub fn next(&mut self, now: Instant) -> Option<Outgoing> {
        self.beats += 1;
        self.store.set_lease(format!(r#"{{"beat":{}}}"#, self.beats));
        self.store.next(now, &self.facts)
    }

    pub fn carry(&mut self, outgoing: &Outgoing) -> Vec<Value> {
        let packed: Vec<u8> = outgoing.cmds.iter().flat_map(redis::Cmd::get_packed_command).collect();
        self.connection.req_packed_commands(&packed, 0, outgoing.cmds.len()).expect("answers")
    }

    fn step(&mut self, now: Instant) -> bool {
        let mut is_busy = false;
        while let Some(outgoing) = self.next(now) {
            is_busy = true;
            let replies = self.carry(&outgoing);
            let mut outs = Vec::new();
            self.store.replied(now, outgoing.ticket, replies, &mut outs);
            self.take(outs);
        }
        is_busy
    }

    /// The connection is gone.
    pub fn lose(&mut self) {
        let mut outs = Vec::new();
        self.store.lost(&mut outs);
        self.take(outs);
    }

    /// A change of this node with nothing special.
    pub fn plain(&mut self, topic: &Topic, subscriptions: u32) -> Change {
        Change {
            token: self.token(),
            topic: topic.clone(),
            subscriptions,
            member: None,
            members_max: None,
            is_counted: false,
            wants_roster: false,
            wants_cached: false,
            wants_logged: false,
            hooks: Kinds::NONE,
        }
    }

    /// A user comes.
    pub fn join(&mut self, topic: &Topic, subscriptions: u32, who: &str) -> Change {
        let presence = Presence { user_info: Some(format!(r#"{{"name":"{who}"}}"#).into()), since: 1_000 };
        Change { member: Some((user(who), Some(presence))), wants_roster: true, ..self.plain(topic, subscriptions) }
    }

    /// A user goes.
    pub fn part(&mut self, topic: &Topic, subscriptions: u32, who: &str) -> Change {
        Change { member: Some((user(who), None)), ..self.plain(topic, subscriptions) }
    }
}

pub fn user(name: &str) -> UserId {
    UserId::parse(name, 100).unwrap()
}

pub fn topic(text: &str) -> Topic {
    Topic::parse(text).unwrap()
}

/// All kinds there are.
pub fn all_hooks() -> Kinds {
    EventKind::ALL.into_iter().collect()
}

/// A message of the log, read.
pub fn read(line: &str) -> (String, Message) {
    let (topic, message) = line.split_once(' ').unwrap();
    (topic.to_owned(), Message::decode(message.as_bytes()).unwrap_or_else(|| panic!("{line}")))
}
