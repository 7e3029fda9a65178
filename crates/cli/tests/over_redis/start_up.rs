//! A Redis that answers and cannot be used: each case with a real server and a node that is started before it is put right.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use fulmar_rig::{Folder, Ready, Redis, RedisOptions, eventually, http, is_available};
use serde_json::Value;

use super::{PATIENCE, app, connect, next_event, node, sight};

/// The same is said once in so many seconds.
const SAID_AGAIN_S: u64 = 30;

/// What is wrong.
pub struct Trouble<'a> {
    /// The servers that the node is given.
    pub at: &'a [SocketAddr],
    /// Those of them that the log blames; where there are none it says what is wrong without an address.
    pub blamed: &'a [SocketAddr],
    /// Further lines of `[backbone]`.
    pub lines: &'a str,
    /// What one line of the log says, beside the address: the server's own words, and what to do.
    pub says: &'a [&'a str],
    /// Puts it right without touching the node.
    pub mend: &'a dyn Fn(),
}

/// Reads what a node tells its metrics until this is among it.
fn await_metric(sink: &UdpSocket, beginning: &str) {
    let mut bytes = [0; 2_000];
    let mut is_told = || {
        let length = sink.recv(&mut bytes).unwrap();
        let said = String::from_utf8_lossy(&bytes[..length]).into_owned();
        said.lines().any(|line| line.starts_with(beginning)).then_some(())
    };
    eventually(beginning, PATIENCE, &mut is_told).unwrap();
}

pub fn check(trouble: &Trouble<'_>) {
    let begun = Instant::now();
    let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
    sink.set_read_timeout(Some(PATIENCE)).unwrap();
    let metrics = format!("[metrics]\nstatsd = \"{}\"\ninterval_s = 1\n", sink.local_addr().unwrap());
    let at: Vec<String> = trouble.at.iter().map(|at| format!("\"{at}\"")).collect();
    let backbone = format!("addresses = [{}]\npublish_timeout_ms = 300\n{}", at.join(", "), trouble.lines);
    let node = node(&metrics, &backbone, Ready::Alive);
    let blamed: Vec<String> = match trouble.blamed {
        [] => vec!["address=\"-\"".to_owned()],
        blamed => blamed.iter().map(|at| format!("address=\"{at}\"")).collect(),
    };
    let times_said = |of: &String| {
        let is_clear = |line: &&str| {
            line.contains("WARN") && line.contains(of) && trouble.says.iter().all(|part| line.contains(part))
        };
        node.log().lines().filter(is_clear).count() as u64
    };
    let is_said = || blamed.iter().all(|of| times_said(of) > 0).then_some(());
    let said = eventually("its log says what is wrong", PATIENCE, is_said);
    said.unwrap_or_else(|error| panic!("{error}:\n{}", node.log()));
    // It lets people in, and tells nobody that something is published which only this node would ever hear of.
    let mut subscriber = connect(&node);
    subscriber.subscribe("room", None).unwrap();
    let mut rest = http::Rest::new(node.addr(), &app());
    let refused = rest.publish("room", "too early").unwrap();
    assert!(refused.status == 503 && refused.has_retry_after, "{refused:?}\n{}", node.log());
    // Longer after its start than a message needs that comes back by whatever way.
    assert_eq!(http::status_of(node.addr(), "/readyz", PATIENCE).unwrap(), 503, "{}", node.log());
    assert_eq!(http::status_of(node.addr(), "/livez", PATIENCE).unwrap(), 200);
    let shown = eventually("it shows its sight", PATIENCE, || sight(&node)).unwrap();
    assert_eq!(shown["is_here"], false, "{shown}");
    let problem = shown["problem"].as_str().unwrap_or_default();
    assert!(trouble.says.iter().all(|part| problem.contains(part)), "{shown}");
    await_metric(&sink, "fulmar.group_here:0|g");
    // At each of its tries it would have been hundreds of times.
    let times_max = 1 + begun.elapsed().as_secs() / SAID_AGAIN_S;
    assert!(blamed.iter().all(|of| times_said(of) <= times_max), "{}", node.log());
    assert!(!node.log().contains("given up"), "what it does itself is no complaint: {}", node.log());

    (trouble.mend)();
    let is_taken = || rest.publish("room", "at last").is_ok_and(|answer| answer.status == 200).then_some(());
    eventually("it publishes", PATIENCE, is_taken).unwrap_or_else(|error| panic!("{error}:\n{}", node.log()));
    while next_event(&mut subscriber).1 != "at last" {}
    let is_here = || sight(&node).filter(|shown| shown["is_here"] == true && shown["problem"] == Value::Null);
    eventually("the group is here", PATIENCE, is_here).unwrap();
    await_metric(&sink, "fulmar.group_here:1|g");
    assert!(node.is_running());
}

/// NODE-13, NODE-5, NODE-6, NODE-2
#[test]
fn a_node_with_a_wrong_password_says_so_and_takes_part_once_the_server_knows_it() {
    if !is_available() {
        return;
    }
    let options = RedisOptions { password: Some("of-the-server".to_owned()), ..RedisOptions::default() };
    let redis = Redis::start(&options).unwrap();
    check(&Trouble {
        at: &[redis.addr()],
        blamed: &[redis.addr()],
        lines: "password = \"of-the-node\"",
        says: &["no connection to the server: WRONGPASS", "backbone.user and backbone.password_file"],
        mend: &|| {
            redis.call(&["CONFIG", "SET", "requirepass", "of-the-node"]).unwrap();
        },
    });
}

/// NODE-13, NODE-5, NODE-6
#[test]
fn a_node_without_a_password_says_that_one_is_wanted_and_takes_part_once_none_is() {
    if !is_available() {
        return;
    }
    let options = RedisOptions { password: Some("of-the-server".to_owned()), ..RedisOptions::default() };
    let redis = Redis::start(&options).unwrap();
    check(&Trouble {
        at: &[redis.addr()],
        blamed: &[redis.addr()],
        lines: "",
        says: &["no connection to the server: NOAUTH", "it wants a password: backbone.user and backbone.password_file"],
        mend: &|| {
            redis.call(&["CONFIG", "SET", "requirepass", ""]).unwrap();
        },
    });
}

/// NODE-13, NODE-5, NODE-6
#[test]
fn a_node_with_a_database_that_is_not_there_says_so_and_takes_part_once_it_is() {
    if !is_available() {
        return;
    }
    // A server is told how many it has only at its start.
    let folder = Folder::make("databases").unwrap();
    let file = folder.path().join("databases.conf");
    fs::write(&file, "databases 16\n").unwrap();
    let redis = Redis::start(&RedisOptions::default().line(&format!("include {}", file.display()))).unwrap();
    check(&Trouble {
        at: &[redis.addr()],
        blamed: &[redis.addr()],
        lines: "database = 99",
        says: &["DB index is out of range", "it has no database 99: lower backbone.database, or raise `databases`"],
        mend: &|| {
            fs::write(&file, "databases 100\n").unwrap();
            redis.restart().unwrap();
        },
    });
}

/// NODE-13, NODE-5, NODE-6, RED-6
#[test]
fn a_node_at_a_server_with_another_group_s_data_names_both_and_takes_part_once_it_is_its_own() {
    if !is_available() {
        return;
    }
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    let name = |identity: &str| redis.call(&["HSET", "fulmar:group", "id", identity, "groups", "single"]).unwrap();
    name("fulmar/g7");
    check(&Trouble {
        at: &[redis.addr()],
        blamed: &[redis.addr()],
        lines: "",
        says: &["REFUSED: this server has the data of fulmar/g7, and fulmar/single is looked for", "the right server"],
        mend: &|| {
            name("fulmar/single");
        },
    });
}

/// NODE-13, NODE-5, NODE-6, RED-10
#[test]
fn a_node_with_other_groups_than_the_rest_names_both_and_takes_part_once_they_are_the_same() {
    if !is_available() {
        return;
    }
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    let groups = |names: &str| redis.call(&["HSET", "fulmar:group", "id", "fulmar/single", "groups", names]).unwrap();
    groups("g1,g2");
    check(&Trouble {
        at: &[redis.addr()],
        blamed: &[redis.addr()],
        lines: "",
        says: &[
            "REFUSED: the nodes of this deployment go by the groups g1,g2, and this one by single",
            "backbone.groups",
        ],
        mend: &|| {
            groups("single");
        },
    });
}

/// NODE-13, NODE-5, NODE-6, RED-13: its bus carries messages, to this node alone.
#[test]
fn a_node_that_is_given_a_replica_says_so_and_takes_part_once_it_is_promoted() {
    if !is_available() {
        return;
    }
    let primary = Redis::start(&RedisOptions::default()).unwrap();
    let of = format!("replicaof 127.0.0.1 {}", primary.port());
    let replica = Redis::start(&RedisOptions::default().line(&of)).unwrap();
    check(&Trouble {
        at: &[replica.addr()],
        blamed: &[replica.addr()],
        lines: "",
        says: &["this server is a replica", "name its primary in backbone.addresses, or promote it (REPLICAOF NO ONE)"],
        mend: &|| {
            replica.call(&["REPLICAOF", "NO", "ONE"]).unwrap();
        },
    });
}
