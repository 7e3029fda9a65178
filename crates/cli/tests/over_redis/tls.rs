//! Redis, and Sentinels, behind TLS, a password and the rules that the README gives its user.

use std::fs;
use std::path::{Path, PathBuf};

use fulmar_rig::{
    Folder, Node, Ready, Redis, RedisCluster, RedisOptions, RigError, SentinelDeployment, SentinelOptions, Tls,
    eventually, http, is_available,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::sentinels::{allow, follow_another, watched_by};
use super::start_up_redis_cluster::slot_and_owner;
use super::{PATIENCE, connect, next_event, node, publish, rules_of_the_readme, rules_of_the_readme_for_redis_cluster};

const PASSWORD: &str = "correct-horse";

/// Somebody who vouches for certificates, with one for a server at 127.0.0.1 and one for a node.
struct Authority {
    folder: Folder,
}

impl Authority {
    fn make(name: &str) -> Self {
        let folder = Folder::make("ca").unwrap();
        let mut of_ca = CertificateParams::new(Vec::new()).unwrap();
        of_ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        of_ca.distinguished_name.push(DnType::CommonName, name);
        let ca = CertifiedIssuer::self_signed(of_ca, KeyPair::generate().unwrap()).unwrap();
        let this = Self { folder };
        fs::write(this.path("ca.pem"), ca.pem()).unwrap();
        for (name, whose) in [("server", "127.0.0.1"), ("node", "node")] {
            let key = KeyPair::generate().unwrap();
            let shown = CertificateParams::new(vec![whose.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
            fs::write(this.path(&format!("{name}.pem")), shown.pem()).unwrap();
            fs::write(this.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        this
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}

/// Servers that ask for certificates.
fn of_servers(authority: &Authority) -> RedisOptions {
    let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|file| authority.path(file));
    RedisOptions {
        tls: Some(Tls { cert, key, ca, wants_certificate: true }),
        users: vec![format!("fulmar on >{PASSWORD} {}", rules_of_the_readme("+eval"))],
        // Nobody gets in by another name.
        password: Some("of-the-default-user".to_owned()),
        ..RedisOptions::default()
    }
}

/// What was started; `None`, said loudly, where servers were built without TLS.
fn unless_without_tls<T>(started: Result<T, RigError>) -> Option<T> {
    match started {
        Ok(started) => Some(started),
        Err(error) if error.to_string().contains("TLS support") => {
            eprintln!("!! SKIPPED: {} was built without TLS", fulmar_rig::server_program().display());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A node that reaches `servers`, as configured, by TLS.
fn secured(servers: &str, ca: &Path, own: &Authority, ready: Ready) -> Node {
    let shown = ["node.pem", "node.key"].map(|file| own.path(file));
    let password = own.path("password");
    fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let lines = format!(
        "{servers}\nuser = \"fulmar\"\npassword_file = \"{}\"\ntls = true\ntls_ca = \"{}\"\n\
         tls_cert = \"{}\"\ntls_key = \"{}\"",
        password.display(),
        ca.display(),
        shown[0].display(),
        shown[1].display()
    );
    // An endpoint that does not answer: what is for it must be written all the same.
    let endpoint = "webhooks_allow_private = true\n[[apps.webhooks]]\nurl = \"http://127.0.0.1:1/\"";
    node(endpoint, &lines, ready)
}

/// NODE-2, NODE-5, NODE-9
#[test]
fn nodes_hear_each_other_through_tls_with_a_password_and_only_the_rights_that_the_readme_names() {
    if !is_available() {
        return;
    }
    let (authority, stranger) = (Authority::make("ours"), Authority::make("theirs"));
    let Some(redis) = unless_without_tls(Redis::start(&of_servers(&authority))) else { return };
    let at = format!("addresses = [\"{}\"]", redis.tls_addr().unwrap());
    let start = || secured(&at, &authority.path("ca.pem"), &authority, Ready::ForTraffic);
    let (hears, takes) = (start(), start());
    let mut subscriber = connect(&hears);
    let member = serde_json::json!({});
    subscriber.subscribe("presence-room", Some(("ana", &member))).unwrap();
    publish(&takes, "presence-room", "sealed");
    assert_eq!(next_event(&mut subscriber), ("e".to_owned(), "sealed".to_owned()));
    let mut other = connect(&takes);
    let roster = other.subscribe("presence-room", Some(("ben", &member))).unwrap();
    assert_eq!(roster["presence"]["count"], 2);
    assert_eq!(next_event(&mut subscriber).0, "pusher_internal:member_added");
    let is_sealed = || (!redis.call(&["KEYS", "fulmar:sealed:*"]).unwrap().list().is_empty()).then_some(());
    eventually("the outbox is worked", PATIENCE, is_sealed).unwrap();
    for node in [&hears, &takes] {
        let said = node.log();
        assert!(!said.contains("NOPERM") && !said.contains(PASSWORD), "{said}");
    }
    // One that trusts somebody else says so, serves what it can and goes on.
    let lost = secured(&at, &stranger.path("ca.pem"), &authority, Ready::Alive);
    let says_so = |line: &str| line.contains("no connection to the server") && line.contains("certificate");
    eventually("it says what is wrong", PATIENCE, || lost.log().lines().any(says_so).then_some(())).unwrap();
    assert!(lost.is_running() && http::status_of(lost.addr(), "/livez", PATIENCE).unwrap() == 200);
    let unheard = http::status_of(lost.addr(), "/readyz", PATIENCE).unwrap();
    assert_eq!(unheard, 503, "it was not heard through its group");
}

/// NODE-2, NODE-5, RED-7
#[test]
fn nodes_follow_sentinels_from_server_to_server_through_tls() {
    if !is_available() {
        return;
    }
    let authority = Authority::make("ours");
    let options = SentinelOptions { redis: of_servers(&authority), ..SentinelOptions::default() };
    let started = SentinelDeployment::start(&[("g1", 2)], 3, &options);
    let Some(deployment) = unless_without_tls(started) else { return };
    allow(&deployment, PASSWORD, &rules_of_the_readme("+sentinel"));
    let at = deployment.sentinels().iter().map(|sentinel| sentinel.redis.tls_addr().unwrap());
    let servers = watched_by(at, &authority.path("password").display().to_string());
    let start = || secured(&servers, &authority.path("ca.pem"), &authority, Ready::ForTraffic);
    let (hears, takes) = (start(), start());
    let mut subscriber = connect(&hears);
    subscriber.subscribe("room", None).unwrap();
    publish(&takes, "room", "before");
    assert_eq!(next_event(&mut subscriber).1, "before");
    follow_another(&deployment, &[&hears, &takes]);
    publish(&takes, "room", "after");
    assert_eq!(next_event(&mut subscriber).1, "after");
}

/// NODE-2, NODE-5, RED-35
#[test]
fn nodes_find_the_servers_of_a_redis_cluster_through_tls_and_stay_with_a_share_whose_server_is_lost() {
    if !is_available() {
        return;
    }
    let authority = Authority::make("ours");
    let mut options = of_servers(&authority).line("tls-cluster yes").line("tls-replication yes");
    options.users = vec![format!("fulmar on >{PASSWORD} {}", rules_of_the_readme_for_redis_cluster())];
    let Some(servers) = unless_without_tls(RedisCluster::start(3, 1, &options)) else { return };
    let seeds: Vec<String> =
        servers.servers().iter().map(|server| format!("\"{}\"", server.tls_addr().unwrap())).collect();
    let at = format!("topology = \"cluster\"\nshares = 4\naddresses = [{}]", seeds[..2].join(", "));
    let start = || secured(&at, &authority.path("ca.pem"), &authority, Ready::ForTraffic);
    let (hears, takes) = (start(), start());
    let rooms: Vec<String> = (0..16).map(|n| format!("room-{n}")).collect();
    let mut subscriber = connect(&hears);
    for room in &rooms {
        subscriber.subscribe(room, None).unwrap();
        publish(&takes, room, room);
        assert_eq!(next_event(&mut subscriber).1, *room);
    }
    slot_and_owner(&servers).1.kill();
    for room in &rooms {
        publish(&takes, room, "after");
        assert_eq!(next_event(&mut subscriber).1, "after");
    }
    for node in [&hears, &takes] {
        let said = node.log();
        assert!(!said.contains("NOPERM") && !said.contains(PASSWORD), "{said}");
    }
}
