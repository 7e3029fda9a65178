//! The rig itself, against real servers: what a test believes of it must be so.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::time::{Duration, Instant};

use fulmar_rig::{
    Folder, Link, Redis, RedisCluster, RedisOptions, Resp, Role, SentinelDeployment, SentinelOptions, Tls, eventually,
    is_available,
};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_server_is_empty_after_a_kill_and_keeps_its_port() {
    if !is_available() {
        return;
    }
    let redis = Redis::start(&RedisOptions::default().line("maxmemory 100mb")).unwrap();
    assert_eq!(redis.call(&["CONFIG", "GET", "maxmemory"]).unwrap().text(), "maxmemory 104857600");
    redis.call(&["SET", "a", "1"]).unwrap();
    redis.kill();
    assert!(!redis.is_running() && redis.call(&["PING"]).is_err());
    let port = redis.port();
    redis.restart().unwrap();
    assert_eq!((redis.port(), redis.call(&["GET", "a"]).unwrap().text()), (port, String::new()));
}

#[test]
fn a_durable_server_keeps_what_it_was_told() {
    if !is_available() {
        return;
    }
    let redis = Redis::start(&RedisOptions { is_durable: true, ..Default::default() }).unwrap();
    redis.call(&["SET", "a", "1"]).unwrap();
    redis.restart().unwrap();
    assert_eq!(redis.call(&["GET", "a"]).unwrap().text(), "1");
}

#[test]
fn a_stopped_server_is_silent_until_it_is_resumed() {
    if !is_available() {
        return;
    }
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    redis.stop();
    let mut connection = Resp::connect(redis.addr(), Duration::from_millis(200)).unwrap();
    assert!(connection.call(&["PING"]).is_err(), "its port is open and nobody answers");
    redis.resume();
    assert_eq!(redis.call(&["PING"]).unwrap().text(), "PONG");
}

#[test]
fn passwords_and_users_are_asked_for() {
    if !is_available() {
        return;
    }
    let options = RedisOptions {
        password: Some("p".to_owned()),
        users: vec!["fulmar on >secret ~f:* &* +@all -@dangerous".to_owned()],
        ..Default::default()
    };
    let redis = Redis::start(&options).unwrap();
    let mut stranger = Resp::connect(redis.addr(), PATIENCE).unwrap();
    assert!(stranger.call(&["PING"]).unwrap_err().to_string().contains("NOAUTH"));
    stranger.call(&["AUTH", "fulmar", "secret"]).unwrap();
    stranger.call(&["SET", "f:a", "1"]).unwrap();
    assert!(stranger.call(&["SET", "g:a", "1"]).unwrap_err().to_string().contains("NOPERM"));
}

#[test]
fn processes_and_folders_end_with_their_guard() {
    if !is_available() {
        return;
    }
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    let folder = redis.call(&["CONFIG", "GET", "dir"]).unwrap().list()[1].text();
    let process = format!("/proc/{}", redis.pid());
    assert!(std::path::Path::new(&folder).exists() && std::path::Path::new(&process).exists());
    drop(redis);
    assert!(!std::path::Path::new(&folder).exists() && !std::path::Path::new(&process).exists());
}

/// RED-8
#[test]
fn a_group_has_a_new_primary_after_a_kill_and_the_old_one_comes_back_as_a_replica() {
    if !is_available() {
        return;
    }
    let deployment = SentinelDeployment::start(&[("g1", 2), ("g2", 1)], 3, &SentinelOptions::default()).unwrap();
    assert_eq!(deployment.replicas_of("g1").unwrap().len(), 2);
    let old = deployment.primary_of("g1").unwrap();
    let other = deployment.primary_of("g2").unwrap().addr();
    old.redis.kill();
    let new = eventually("another primary", PATIENCE, || {
        deployment.primary_of("g1").ok().filter(|new| new.addr() != old.addr())
    });
    let new = new.unwrap();
    eventually("it takes writes", PATIENCE, || new.redis.call(&["SET", "a", "1"]).ok()).unwrap();
    assert_eq!(deployment.primary_of("g2").unwrap().addr(), other);
    old.redis.restart().unwrap();
    eventually("the old one follows", Duration::from_secs(30), || {
        (old.redis.role().ok()? == Role::Replica).then_some(())
    })
    .unwrap();
    deployment.await_whole().unwrap();
}

#[test]
fn groups_and_sentinels_may_ask_for_passwords() {
    if !is_available() {
        return;
    }
    let redis = RedisOptions { password: Some("p1".to_owned()), ..Default::default() };
    let options = SentinelOptions { redis, password: Some("p2".to_owned()), ..Default::default() };
    let deployment = SentinelDeployment::start(&[("g1", 1)], 3, &options).unwrap();
    deployment.fail_over_wholly("g1").unwrap();
    let mut stranger = Resp::connect(deployment.sentinels()[0].redis.addr(), PATIENCE).unwrap();
    assert!(stranger.call(&["SENTINEL", "MASTERS"]).unwrap_err().to_string().contains("NOAUTH"));
}

/// RED-5, RED-8
#[test]
fn a_planned_failover_raises_the_epoch_and_a_lying_sentinel_is_then_corrected_by_the_others() {
    if !is_available() {
        return;
    }
    let options = SentinelOptions { fails_over_first: true, ..Default::default() };
    let deployment = SentinelDeployment::start(&[("g1", 1), ("g2", 1)], 3, &options).unwrap();
    let right = deployment.primary_of("g1").unwrap().addr();
    assert_ne!(right, deployment.group("g1").unwrap().servers[0].addr());
    let wrong = deployment.primary_of("g2").unwrap().addr();
    deployment.misname(0, "g1", wrong).unwrap();
    eventually("the others correct it", PATIENCE, || {
        (deployment.sentinels()[0].primary_of("g1").ok()? == right).then_some(())
    })
    .unwrap();
}

/// RED-8
#[test]
fn a_link_slows_replication_alone_and_can_fall_silent() {
    if !is_available() {
        return;
    }
    let options = SentinelOptions { has_links: true, ..Default::default() };
    let deployment = SentinelDeployment::start(&[("g1", 2)], 3, &options).unwrap();
    let primary = deployment.primary_of("g1").unwrap();
    let link = primary.link.as_ref().unwrap();
    link.limit_replication(20_000);
    let mut connection = Resp::connect(primary.addr(), PATIENCE).unwrap();
    let begun = Instant::now();
    let value = "x".repeat(1_000_000);
    for _ in 0..20 {
        connection.call(&["SET", "a", &value]).unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "publishers are not slowed: {:?}", begun.elapsed());
    let offset = |redis: &Redis, name: &str| redis.info("replication", name).unwrap().unwrap().parse::<u64>().unwrap();
    let ahead = offset(&primary.redis, "master_repl_offset");
    let behind = offset(&deployment.replicas_of("g1").unwrap()[0].redis, "slave_repl_offset");
    assert!(ahead - behind > 1_000_000, "{ahead} {behind}");
    link.fall_silent();
    primary.redis.kill();
    let old = primary.addr();
    eventually("a replica that lags is promoted", PATIENCE, || {
        deployment.primary_of("g1").ok().filter(|new| new.addr() != old).map(|_| ())
    })
    .unwrap();
}

#[test]
fn replicas_connect_from_their_own_address_and_are_known_by_the_common_one() {
    if !is_available() {
        return;
    }
    let options = SentinelOptions { replicas_from: Some([127, 0, 0, 3].into()), ..Default::default() };
    let deployment = SentinelDeployment::start(&[("g1", 2)], 3, &options).unwrap();
    // Whoever is promoted is followed from there as well.
    deployment.fail_over_wholly("g1").unwrap();
    let primary = &deployment.primary_of("g1").unwrap().redis;
    let connected = primary.call(&["CLIENT", "LIST", "TYPE", "replica"]).unwrap().text();
    assert_eq!(connected.matches(" addr=127.0.0.3:").count(), 2, "{connected}");
    let others = primary.call(&["CLIENT", "LIST", "TYPE", "pubsub"]).unwrap().text();
    assert!(others.contains(" addr=127.0.0.1:") && !others.contains(" addr=127.0.0.3:"), "{others}");
    for number in 0..2 {
        let said = primary.info("replication", &format!("slave{number}")).unwrap().unwrap();
        assert!(said.starts_with("ip=127.0.0.1,"), "{said}");
    }
}

#[test]
fn a_link_can_be_cut_and_mended() {
    if !is_available() {
        return;
    }
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    let link = Link::to(redis.addr()).unwrap();
    let mut through = Resp::connect(link.addr(), Duration::from_secs(1)).unwrap();
    through.call(&["PING"]).unwrap();
    link.cut();
    assert!(through.call(&["PING"]).is_err());
    let refused = Resp::connect(link.addr(), Duration::from_secs(1)).and_then(|mut new| new.call(&["PING"]));
    assert!(refused.is_err());
    link.mend();
    Resp::connect(link.addr(), Duration::from_secs(1)).unwrap().call(&["PING"]).unwrap();
}

/// RED-33
#[test]
fn a_redis_cluster_covers_every_slot_and_answers() {
    if !is_available() {
        return;
    }
    let redis_cluster = RedisCluster::start(3, 1, &RedisOptions::default()).unwrap();
    let owner = redis_cluster.owner_of(12_182).unwrap();
    owner.call(&["SET", "foo", "1"]).unwrap();
    assert_eq!(redis_cluster.servers().len(), 6);
}

#[test]
fn a_server_speaks_tls_on_a_port_of_its_own() {
    if !is_available() {
        return;
    }
    let folder = Folder::make("tls").unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(&cert, made.cert.pem()).unwrap();
    let tls = Tls { ca: cert.clone(), cert: cert.clone(), key, wants_certificate: false };
    let redis = match Redis::start(&RedisOptions { tls: Some(tls), ..Default::default() }) {
        Ok(redis) => redis,
        Err(error) if error.to_string().contains("TLS support") => {
            eprintln!("!! SKIPPED: {} was built without TLS", fulmar_rig::server_program().display());
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let port = redis.tls_addr().unwrap().port().to_string();
    let mut asked = std::process::Command::new("redis-cli");
    asked.args(["--tls", "--sni", "localhost", "-p", &port, "--cacert"]).arg(&cert).arg("PING");
    assert_eq!(String::from_utf8(asked.output().unwrap().stdout).unwrap(), "PONG\n");
}
