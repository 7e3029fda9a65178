//! Sentinels and servers that let nobody in but the users that the README gives nodes.

use std::fs;
use std::net::SocketAddr;

use fulmar_rig::{Folder, Node, Ready, Redis, RedisOptions, SentinelDeployment, SentinelOptions, eventually, http};
use serde_json::json;

use super::{PATIENCE, app, connect, next_event, node, publish, rules_of_the_readme, sight};

const OF_SERVERS: &str = "correct-horse";
const OF_SENTINELS: &str = "battery-staple";

/// Groups of one name whose servers and Sentinels have passwords of their own, and a user of the README's.
fn deployment(replicas: usize, sentinels: usize) -> SentinelDeployment {
    let rules = rules_of_the_readme("+eval");
    let options = SentinelOptions {
        redis: RedisOptions {
            password: Some("of-the-default-user".to_owned()),
            users: vec![format!("fulmar on >{OF_SERVERS} {rules}")],
            ..RedisOptions::default()
        },
        password: Some("of-the-sentinels-themselves".to_owned()),
        ..SentinelOptions::default()
    };
    SentinelDeployment::start(&[("g1", replicas)], sentinels, &options).unwrap()
}

/// What Sentinels let nodes do from now on.
pub fn allow(deployment: &SentinelDeployment, password: &str, rules: &str) {
    let password = format!(">{password}");
    let words = ["ACL", "SETUSER", "fulmar", "reset", "on", &password].into_iter().chain(rules.split(' '));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    for sentinel in deployment.sentinels() {
        sentinel.redis.call(&words).unwrap();
    }
}

fn start(deployment: &SentinelDeployment, folder: &Folder, ready: Ready) -> Node {
    let [of_servers, of_sentinels] = [("servers", OF_SERVERS), ("sentinels", OF_SENTINELS)].map(|(name, password)| {
        let file = folder.path().join(name);
        fs::write(&file, format!("{password}\n")).unwrap();
        file.display().to_string()
    });
    let at = deployment.sentinels().iter().map(|sentinel| sentinel.redis.addr());
    let watched = watched_by(at, &of_sentinels);
    node("", &format!("{watched}\nuser = \"fulmar\"\npassword_file = \"{of_servers}\""), ready)
}

/// Lines for the group of the deployment, whose Sentinels are at these addresses.
pub fn watched_by(at: impl Iterator<Item = SocketAddr>, password_file: &str) -> String {
    let at: Vec<String> = at.map(|at| format!("\"{at}\"")).collect();
    format!(
        "sentinels = [{}]\ngroups = [\"g1\"]\nsentinel_user = \"fulmar\"\nsentinel_password_file = \"{password_file}\"",
        at.join(", ")
    )
}

/// Kills the primary, and waits until nodes follow the one that Sentinels make of a replica.
pub fn follow_another(deployment: &SentinelDeployment, nodes: &[&Node]) {
    let old = deployment.primary_of("g1").unwrap();
    let gone = old.addr().to_string();
    old.redis.kill();
    for node in nodes {
        let new = || followed(node).filter(|server| *server != gone);
        let new = eventually("it follows another", PATIENCE, new).unwrap_or_else(|e| panic!("{e}\n{}", node.log()));
        assert_eq!(new, deployment.primary_of("g1").unwrap().addr().to_string());
    }
}

/// What was refused to the nodes' user there.
fn refused(redis: &Redis) -> Vec<String> {
    let log = redis.call(&["ACL", "LOG"]).unwrap();
    let is_of_nodes = |entry: &&fulmar_rig::Value| entry.field("username").is_some_and(|name| name.text() == "fulmar");
    log.list().iter().filter(is_of_nodes).map(fulmar_rig::Value::text).collect()
}

/// Whom a node follows, once everything is heard from there.
fn followed(node: &Node) -> Option<String> {
    sight(node).filter(|group| group["hears"] == true)?["server"].as_str().map(str::to_owned)
}

/// NODE-9, NODE-2, RED-7
#[test]
fn nodes_hear_each_other_and_follow_a_failover_with_only_the_rights_that_the_readme_names() {
    if !fulmar_rig::is_available() {
        return;
    }
    let (deployment, folder) = (deployment(2, 3), Folder::make("passwords").unwrap());
    allow(&deployment, OF_SENTINELS, &rules_of_the_readme("+sentinel"));
    let (hears, takes) =
        (start(&deployment, &folder, Ready::ForTraffic), start(&deployment, &folder, Ready::ForTraffic));
    let mut subscriber = connect(&hears);
    subscriber.subscribe("presence-room", Some(("ana", &json!({})))).unwrap();
    publish(&takes, "presence-room", "before");
    assert_eq!(next_event(&mut subscriber).1, "before");

    let all = || deployment.group("g1").unwrap().servers.iter().map(|server| &server.redis);
    let all = || all().chain(deployment.sentinels().iter().map(|sentinel| &sentinel.redis));
    for redis in all() {
        assert_eq!(refused(redis), [""; 0]);
    }
    follow_another(&deployment, &[&hears, &takes]);
    publish(&takes, "presence-room", "after");
    assert_eq!(next_event(&mut subscriber).1, "after");
    let mut other = connect(&takes);
    let roster = other.subscribe("presence-room", Some(("ben", &json!({})))).unwrap();
    assert_eq!(roster["presence"]["count"], 2);
    for redis in all().filter(|redis| redis.is_running()) {
        assert_eq!(refused(redis), [""; 0]);
    }
    for node in [&hears, &takes] {
        let said = node.log();
        let is_quiet = [OF_SERVERS, OF_SENTINELS, "NOPERM"].iter().all(|word| !said.contains(word));
        assert!(is_quiet, "{said}");
    }
}

/// NODE-13, NODE-5
#[test]
fn a_sentinel_that_refuses_is_named_with_its_words_and_heard_once_it_answers() {
    if !fulmar_rig::is_available() {
        return;
    }
    let (deployment, folder) = (deployment(0, 1), Folder::make("passwords").unwrap());
    allow(&deployment, "another", "-@all");
    let server = &deployment.group("g1").unwrap().servers[0];
    server.redis.call(&["ACL", "SETUSER", "fulmar", "resetpass", ">another"]).unwrap();
    let node = start(&deployment, &folder, Ready::Alive);
    let [at, at_server] = [deployment.sentinels()[0].redis.addr(), server.addr()].map(|at| format!("address=\"{at}\""));
    let await_words_at = |at: &str, words: &[&str]| {
        let is_said = |line: &str| line.contains(at) && words.iter().all(|word| line.contains(word));
        let said = eventually(words[0], PATIENCE, || node.log().lines().any(is_said).then_some(()));
        said.unwrap_or_else(|error| panic!("{error}\n{}", node.log()));
    };
    let await_words = |words: &[&str]| await_words_at(&at, words);
    await_words(&[
        "no connection to this Sentinel: WRONGPASS",
        "backbone.sentinel_user and backbone.sentinel_password",
    ]);
    allow(&deployment, OF_SENTINELS, "-@all");
    await_words(&["no connection to this Sentinel: NOPERM", "'subscribe'", "the README lists"]);
    allow(&deployment, OF_SENTINELS, "&+switch-master -@all +subscribe");
    await_words(&["this Sentinel does not say who is primary: NOPERM", "the README lists"]);
    let sentinel = &deployment.sentinels()[0].redis;
    sentinel.call(&["SENTINEL", "REMOVE", "g1"]).unwrap();
    allow(&deployment, OF_SENTINELS, &rules_of_the_readme("+sentinel"));
    await_words(&["this Sentinel watches no group called g1"]);
    assert!(node.is_running() && http::status_of(node.addr(), "/livez", PATIENCE).unwrap() == 200);
    deployment.misname(0, "g1", server.addr()).unwrap();
    // Whom it names lets nobody in either.
    await_words_at(&at_server, &["no connection to the server: WRONGPASS", "backbone.user and backbone.password_file"]);
    let is_shown =
        || sight(&node).filter(|group| group["problem"].as_str().is_some_and(|why| why.contains("WRONGPASS")));
    assert_eq!(eventually("it shows why", PATIENCE, is_shown).unwrap()["is_here"], false);
    server.redis.call(&["ACL", "SETUSER", "fulmar", "resetpass", &format!(">{OF_SERVERS}"), "-@all"]).unwrap();
    await_words_at(&at_server, &["no connection to the server: NOPERM", "the README lists"]);
    let rules = rules_of_the_readme("+eval");
    let words = ["ACL", "SETUSER", "fulmar"].into_iter().chain(rules.split(' ')).collect::<Vec<_>>();
    server.redis.call(&[words.as_slice(), &["resetkeys"]].concat()).unwrap();
    await_words_at(&at_server, &["the server cannot be used: NOPERM", "the README lists"]);
    server.redis.call(&words).unwrap();
    let mut rest = http::Rest::new(node.addr(), &app());
    let is_taken = || rest.publish("room", "at last").is_ok_and(|answer| answer.status == 200).then_some(());
    eventually("it publishes", PATIENCE, is_taken).unwrap_or_else(|error| panic!("{error}\n{}", node.log()));
}
