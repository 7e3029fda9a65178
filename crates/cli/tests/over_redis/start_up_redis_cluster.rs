//! A Redis Cluster that is not there yet, or cannot be used: each case with real servers and a node that is started before they
//! are put right.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use fulmar_rig::{Folder, Node, Ready, Redis, RedisCluster, RedisOptions, eventually, http, is_available};
use serde_json::Value;

use super::start_up::{Trouble, check};
use super::{PATIENCE, app, connect, node, publish, rules_of_the_readme};

/// All in one share, so that the node has one group.
const LINES: &str = "topology = \"cluster\"\nshares = 1";

/// Three primaries; `None`, said loudly, where there is no program for one.
fn servers(options: &RedisOptions) -> Option<RedisCluster> {
    is_available().then(|| RedisCluster::start(3, 0, options).unwrap())
}

fn addresses(servers: &RedisCluster) -> Vec<SocketAddr> {
    servers.servers().iter().map(Redis::addr).collect()
}

fn tell_all(servers: &RedisCluster, words: &[&str]) {
    for server in servers.servers() {
        server.call(words).unwrap();
    }
}

/// The slot of the share called 0, and the server that has it.
pub fn slot_and_owner(servers: &RedisCluster) -> (i64, &Redis) {
    let slot = servers.servers()[0].call(&["CLUSTER", "KEYSLOT", "{fulmar.0}"]).unwrap().number().unwrap();
    (slot, servers.owner_of(slot).unwrap())
}

/// NODE-13, NODE-5, NODE-6, RED-34
#[test]
fn a_node_whose_seeds_are_all_down_names_each_and_takes_part_once_they_come() {
    let Some(servers) = servers(&RedisOptions::default()) else { return };
    servers.servers().iter().for_each(Redis::kill);
    check(&Trouble {
        at: &addresses(&servers),
        blamed: &addresses(&servers),
        lines: LINES,
        says: &["no connection to the server: Connection refused"],
        mend: &|| servers.servers().iter().for_each(|server| server.restart().unwrap()),
    });
}

/// NODE-13, NODE-5, NODE-6, NODE-2
#[test]
fn a_node_with_a_wrong_password_for_redis_cluster_says_so_and_takes_part_once_the_servers_know_it() {
    let options = RedisOptions { password: Some("of-the-servers".to_owned()), ..RedisOptions::default() };
    let Some(servers) = servers(&options) else { return };
    let seed = servers.servers()[0].addr();
    check(&Trouble {
        at: &[seed],
        blamed: &[seed],
        lines: &format!("{LINES}\npassword = \"of-the-node\""),
        says: &["no connection to the server: WRONGPASS", "backbone.user and backbone.password_file"],
        mend: &|| tell_all(&servers, &["CONFIG", "SET", "requirepass", "of-the-node"]),
    });
}

/// NODE-13, NODE-5, NODE-6, RED-34
#[test]
fn a_node_whose_share_s_slot_nobody_has_names_the_slot_and_takes_part_once_somebody_has_it() {
    let Some(servers) = servers(&RedisOptions::default()) else { return };
    let (slot, _) = slot_and_owner(&servers);
    let owner = servers.lose_slot(slot).unwrap();
    check(&Trouble {
        at: &[owner.addr()],
        blamed: &[],
        lines: LINES,
        says: &[&format!("no server of Redis Cluster has slot {slot}"), "redis-cli --cluster fix"],
        mend: &|| {
            owner.call(&["CLUSTER", "ADDSLOTS", &slot.to_string()]).unwrap();
        },
    });
}

/// NODE-13, NODE-5, NODE-6, RED-34
#[test]
fn a_node_whose_share_s_server_is_gone_names_it_and_takes_part_once_it_is_back() {
    let Some(servers) = servers(&RedisOptions::default()) else { return };
    let (_, owner) = slot_and_owner(&servers);
    let seed = servers.servers().iter().find(|server| server.port() != owner.port()).unwrap();
    owner.kill();
    eventually("it is given up", PATIENCE, || {
        let nodes = seed.call(&["CLUSTER", "NODES"]).ok()?.text();
        nodes.lines().any(|line| line.contains(" master,fail ")).then_some(())
    })
    .unwrap();
    check(&Trouble {
        at: &[seed.addr()],
        blamed: &[],
        lines: LINES,
        says: &[&format!("Redis Cluster names {} for this share, and it does not answer", owner.addr())],
        mend: &|| owner.restart().unwrap(),
    });
}

/// NODE-13, NODE-5, NODE-6, RED-33
#[test]
fn a_node_at_a_redis_cluster_that_stops_for_a_lost_part_says_so_and_takes_part_once_it_does_not() {
    let Some(servers) = servers(&RedisOptions::default()) else { return };
    tell_all(&servers, &["CONFIG", "SET", "cluster-require-full-coverage", "yes"]);
    // A part that no name of the node's lies in.
    let (_, owner) = slot_and_owner(&servers);
    servers.servers().iter().find(|server| server.port() != owner.port()).unwrap().kill();
    eventually("Redis Cluster stops", PATIENCE, || {
        let refusal = owner.call(&["GET", "{fulmar.0}:x"]).err()?;
        refusal.to_string().contains("CLUSTERDOWN").then_some(())
    })
    .unwrap();
    check(&Trouble {
        at: &[owner.addr()],
        blamed: &[owner.addr()],
        lines: LINES,
        says: &["the server cannot be used: CLUSTERDOWN", "CONFIG SET cluster-require-full-coverage no"],
        mend: &|| {
            for server in servers.servers().iter().filter(|server| server.is_running()) {
                server.call(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).unwrap();
            }
        },
    });
}

/// NODE-13, NODE-5, NODE-6
#[test]
fn a_node_whose_user_may_not_touch_the_share_says_so_and_takes_part_once_it_may() {
    let rules = rules_of_the_readme("+eval");
    let user = format!("fulmar on >secret {rules} +cluster|nodes +config|get +spublish +ssubscribe +sunsubscribe");
    let options = RedisOptions { users: vec![user], ..RedisOptions::default() };
    let Some(servers) = servers(&options) else { return };
    let (_, owner) = slot_and_owner(&servers);
    check(&Trouble {
        at: &[owner.addr()],
        blamed: &[owner.addr()],
        lines: &format!("{LINES}\nuser = \"fulmar\"\npassword = \"secret\""),
        says: &["the server cannot be used: NOPERM", "the README lists"],
        mend: &|| tell_all(&servers, &["ACL", "SETUSER", "fulmar", "~{fulmar.*", "&{fulmar.*"]),
    });
}

/// NODE-13, NODE-5, NODE-6
#[test]
fn a_seed_that_is_no_server_of_a_redis_cluster_is_named_and_the_node_takes_part_once_it_is_one() {
    if !is_available() {
        return;
    }
    // What a server is it is told only at its start.
    let folder = Folder::make("redis-cluster").unwrap();
    let file = folder.path().join("enabled.conf");
    fs::write(&file, "cluster-enabled no\n").unwrap();
    let redis = Redis::start(&RedisOptions::default().line(&format!("include {}", file.display()))).unwrap();
    check(&Trouble {
        at: &[redis.addr()],
        blamed: &[redis.addr()],
        lines: LINES,
        says: &["ERR This instance has cluster support disabled", "backbone.addresses", "backbone.topology"],
        mend: &|| {
            fs::write(&file, "cluster-enabled yes\n").unwrap();
            redis.restart().unwrap();
            redis.call(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).unwrap();
        },
    });
}

/// NODE-13, NODE-5, NODE-6, RED-33, RED-10
#[test]
fn a_node_with_another_number_of_shares_names_both_and_takes_part_once_they_are_the_same() {
    let Some(servers) = servers(&RedisOptions::default()) else { return };
    let (_, owner) = slot_and_owner(&servers);
    let groups = |names: &str| owner.call(&["HSET", "{fulmar.0}:group", "id", "fulmar/0", "groups", names]).unwrap();
    groups("0,1");
    check(&Trouble {
        at: &[owner.addr()],
        blamed: &[owner.addr()],
        lines: LINES,
        says: &[
            "REFUSED: the nodes of this deployment go by the groups 0,1, and this one by 0",
            "in Redis Cluster backbone.shares",
        ],
        mend: &|| {
            groups("0");
        },
    });
}

/// RED-33
#[test]
fn a_node_says_at_its_start_which_servers_would_stop_all_for_a_lost_part() {
    let Some(servers) = servers(&RedisOptions::default()) else { return };
    tell_all(&servers, &["CONFIG", "SET", "cluster-require-full-coverage", "yes"]);
    let [seed, other, good] = [0, 1, 2].map(|at| servers.servers()[at].addr());
    servers.servers()[2].call(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).unwrap();
    let node = node("", &format!("addresses = [\"{seed}\"]\n{LINES}"), Ready::ForTraffic);
    publish(&node, "room", "all is well");
    let is_named = |at: SocketAddr| {
        let says = ["WARN", "cluster-require-full-coverage is yes", &format!("address=\"{at}\"")];
        node.log().lines().any(|line| says.iter().all(|part| line.contains(part)))
    };
    eventually("both are named", PATIENCE, || (is_named(seed) && is_named(other)).then_some(())).unwrap();
    assert!(!is_named(good), "{}", node.log());
}

/// NODE-5, NODE-13, RED-21, RED-24: what belongs to the lost share goes over the bus, though no node has ever seen it.
#[test]
fn nodes_that_start_while_nobody_has_a_share_s_slot_serve_that_share_too_and_it_is_here_once_somebody_has_it() {
    let Some(servers) = servers(&RedisOptions::default()) else { return };
    let (slot, _) = slot_and_owner(&servers);
    let owner = servers.lose_slot(slot).unwrap();
    let seed = owner.addr();
    let backbone = format!("addresses = [\"{seed}\"]\ntopology = \"cluster\"\nshares = 4");
    let start = || node("", &backbone, Ready::Alive);
    let (takes, hears) = (start(), start());
    let groups_here = |node: &Node| {
        let answer = http::ask_admin(&node.storage(), "/admin/v1/backbone", PATIENCE).ok()?;
        let groups = answer.json()["groups"].as_array()?.clone();
        let is_here = |group: &&Value| group["is_here"] == true && group["hears"] == true;
        Some(groups.iter().filter(is_here).count())
    };
    let await_here = |count: usize| {
        for node in [&takes, &hears] {
            let here = || groups_here(node).filter(|here| *here == count);
            eventually("groups are here", PATIENCE, here).unwrap_or_else(|error| panic!("{error}\n{}", node.log()));
        }
    };
    await_here(3);
    let channels: Vec<String> = (0..16).map(|number| format!("room-{number}")).collect();
    let mut subscriber = connect(&hears);
    for channel in &channels {
        subscriber.subscribe(channel, None).unwrap();
    }
    let mut rest = http::Rest::new(takes.addr(), &app());
    let mut publish_all = |data: &str| {
        for channel in &channels {
            let answer = rest.publish(channel, data).unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let mut heard = BTreeSet::new();
        while heard.len() < channels.len() {
            let event = subscriber.event().unwrap();
            if event["data"] == data {
                assert!(heard.insert(event["channel"].as_str().unwrap().to_owned()), "twice: {event}");
            }
        }
    };
    publish_all("early");
    owner.call(&["CLUSTER", "ADDSLOTS", &slot.to_string()]).unwrap();
    await_here(4);
    publish_all("late");
}
