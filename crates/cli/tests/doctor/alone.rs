//! One server without nodes: what they would leave behind, and what a server suffers by itself.

use std::path::Path;
use std::process::{Command, Stdio};

use fulmar_rig::{
    Folder, Link, Redis, RedisOptions, Tls, eventually, free_port, is_available, old_redis_program, server_program,
};
use fulmar_server::redis::map::SlotMap;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::here::ending;
use super::other::Other;
use super::patient::{Again, PATIENCE, Patient, has, says, split, unix_ms};

fn start(options: &RedisOptions) -> (Redis, Patient) {
    let redis = Redis::start(options).unwrap();
    let config = format!(
        "[demo]\nenabled = true\n[storage]\npath = \"STORAGE\"\n[backbone]\nkind = \"redis\"\naddresses = [\"{}\"]\n",
        redis.addr()
    );
    (redis, Patient::new(&config))
}

fn options() -> RedisOptions {
    RedisOptions::default().line("maxmemory 4gb").line("client-output-buffer-limit pubsub 16mb 8mb 10")
}

/// DOC-2 DOC-12 DOC-14 DOC-15
#[test]
fn what_a_server_suffers_by_itself_is_found() {
    if !is_available() {
        return;
    }
    let (redis, patient) = start(&options());
    patient.await_findings(&["no-identity", "no-nodes"]);

    let folder = redis.call(&["CONFIG", "GET", "dir"]).unwrap().list()[1].text();
    // Where its snapshot should be, something else is.
    std::fs::create_dir(std::path::Path::new(&folder).join("dump.rdb")).unwrap();
    redis.call(&["SET", "x", &"x".repeat(2 << 20)]).unwrap();
    assert!(redis.call(&["SAVE"]).is_err() || redis.call(&["BGSAVE"]).is_ok());
    let used: u64 = redis.info("memory", "used_memory").unwrap().unwrap().parse().unwrap();
    for (name, value) in [
        ("min-replicas-to-write", "1"),
        ("maxmemory", &(used * 5 / 4).to_string()),
        ("client-output-buffer-limit", "pubsub 0 0 0"),
        ("save", "3600 1"),
    ] {
        redis.call(&["CONFIG", "SET", name, value]).unwrap();
    }
    let _ = redis.call(&["BGSAVE"]);
    let found = patient.await_findings(&[
        "memory-near-limit",
        "min-replicas",
        "no-identity",
        "no-nodes",
        "persistence-failing",
        "pubsub-buffer-too-large",
    ]);
    says(&found, "min-replicas", "grave", &["has no replica and wants 1", "refuses every write"]);
    says(&found, "persistence-failing", "grave", &["snapshot failed", &folder]);
    says(&found, "pubsub-buffer-too-large", "warning", &["no limit"]);

    redis.kill();
    let found = patient.await_findings(&["server-unreachable"]);
    says(&found, "server-unreachable", "grave", &[&redis.addr().to_string()]);
}

/// DOC-2 DOC-15
#[test]
fn a_server_that_is_older_than_what_nodes_need_is_found() {
    let Some(program) = old_redis_program() else {
        eprintln!("!! SKIPPED: a server that is too old, since there is no old Redis (cargo xtask setup fetches it)");
        return;
    };
    let limits = "--maxmemory 4gb --client-output-buffer-limit pubsub 16mb 8mb 10";
    let other = Other::start(Command::new(program), &limits.split(' ').collect::<Vec<_>>());
    let at = format!("127.0.0.1:{}", other.port);
    let patient = Patient::new(&format!(
        "[demo]\nenabled = true\n[storage]\npath = \"STORAGE\"\n[backbone]\nkind = \"redis\"\naddresses = [{at:?}]\n"
    ));
    // Nothing else is: what the old release does not know is not held against it.
    let found = patient.await_findings(&["no-identity", "no-nodes", "redis-too-old"]);
    let words = [&format!("{at} runs Redis 6.2."), "Redis 7.0 at least", "replace it by a newer one, replicas first"];
    says(&found, "redis-too-old", "grave", &words);
    assert_eq!(patient.run(&[]).code, 3, "what is grave tells a script");
}

/// DOC-17 DOC-19
#[test]
fn what_nodes_leave_behind_is_found() {
    if !is_available() {
        return;
    }
    let (redis, patient) = start(&options());
    let call = |words: &[&str]| redis.call(words).unwrap();
    call(&["HSET", "fulmar:group", "id", "fulmar/single", "groups", "single", "epoch", "1", "dropped", "9"]);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let first = SlotMap::first(&names(&["single"]));
    let plan = fulmar_server::redis::map::plan(&first, &names(&["other", "single"])).unwrap();
    call(&["SET", "fulmar:map", &first.begun(&plan).text()]);
    let twelve_minutes_ago = (unix_ms() - 720_000).to_string();
    call(&["XADD", "fulmar:outbox:3", &format!("{twelve_minutes_ago}-0"), "w", "oc"]);
    let request =
        format!(r#"{{"id":7,"of":{{"app":"1","url":"http://x/","at":0,"batch":{{"sealed":{twelve_minutes_ago}}}}}}}"#);
    call(&["HSET", "fulmar:sealed:4", "7", &request]);
    call(&["LPUSH", "fulmar:givenup:5", "x", "y"]);
    call(&["HSET", "fulmar:nodes", "00cc", "counter 1\nrole websocket\nadvertise h:1\n"]);
    let living = Again::say(&redis, |round| {
        let lease = format!(
            "counter {round}\nrole rest\nclock {}\nconnections 2000 1\nfiles 2048\nattached 1 single\n",
            unix_ms()
        );
        vec![["HSET", "fulmar:nodes", "00dd", &lease].map(str::to_owned).into()]
    });
    let found = patient.await_findings(&[
        "groups-differ",
        "move-interrupted",
        "webhooks-dropped",
        "node-files-few",
        "node-silent",
        "role-missing",
        "webhook-backlog",
        "webhooks-given-up",
    ]);
    says(&found, "node-silent", "warning", &["00cc (h:1)"]);
    says(&found, "role-missing", "grave", &["websocket"]);
    says(&found, "node-files-few", "grave", &["(97%)"]);
    says(&found, "webhook-backlog", "grave", &["2 webhook", "oldest for 72"]);
    says(&found, "groups-differ", "warning", &["names other"]);
    says(&found, "move-interrupted", "warning", &["512 slots"]);
    says(&found, "webhooks-dropped", "warning", &["9 edges"]);
    says(&found, "webhooks-given-up", "advice", &["2 webhook requests"]);
    drop(living);
}

/// DOC-2
#[test]
fn what_a_user_may_not_ask_is_said_and_the_rest_is_looked_at() {
    if !is_available() {
        return;
    }
    let user = "fulmar on >secret ~* &* +@all -config -xlen";
    let (_redis, mut patient) = start(&RedisOptions { users: vec![user.to_owned()], ..options() });
    patient.words = ["--set", "backbone.user=fulmar", "--set", "backbone.password=secret"].map(str::to_owned).into();
    let found = patient.await_findings(&["look-incomplete", "no-identity", "no-nodes"]);
    says(&found, "look-incomplete", "advice", &["NOPERM", "config|get", "xlen"]);
}

/// DOC-12 DOC-14
#[test]
fn a_resync_loop_and_evictions_are_found_while_they_happen() {
    if !is_available() {
        return;
    }
    let lines = RedisOptions::default().line("enable-debug-command yes");
    let (primary, patient) = start(&lines.clone().line("maxmemory 4gb"));
    let replica = Redis::start(&lines).unwrap();
    replica.call(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).unwrap();
    primary.call(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).unwrap();
    // The replica is cut off, and what it knows of the stream is worth nothing: it needs everything again.
    let hurt = Again::say(&primary, |_| ["DEBUG CHANGE-REPL-ID", "CLIENT KILL TYPE replica"].map(split).into());
    let found = patient.await_some(&["resync-loop"]);
    says(&found, "resync-loop", "grave", &["full syncs", "CONFIG SET client-output-buffer-limit"]);
    drop(hurt);
    let used: u64 = primary.info("memory", "used_memory").unwrap().unwrap().parse().unwrap();
    primary.call(&["DEBUG", "POPULATE", "2000", "key", "1000"]).unwrap();
    primary.call(&["CONFIG", "SET", "maxmemory", &(used + 500_000).to_string()]).unwrap();
    let _ = primary.call(&["SET", "y", &"y".repeat(100_000)]);
    let found = patient.findings();
    says(&found, "maxmemory-policy", "grave", &["keys went that way"]);
}

/// DOC-12 DOC-13
#[test]
fn a_line_that_is_full_and_a_replica_that_falls_behind_are_found() {
    if !is_available() {
        return;
    }
    let primary = Redis::start(&options()).unwrap();
    let replica = Redis::start(&options()).unwrap();
    let wire = Link::to(primary.addr()).unwrap();
    let patient = Patient::new(&format!(
        "[demo]\nenabled = true\n[storage]\npath = \"STORAGE\"\n[backbone]\nkind = \"redis\"\naddresses = [\"{}\"]\n\
         [backbone.group.single]\nlink_mbit = 1\nreplicas = 1\n",
        wire.addr()
    ));
    replica.call(&["REPLICAOF", "127.0.0.1", &wire.port().to_string()]).unwrap();
    eventually("the replica is online", PATIENCE, || primary.replicas_online().is_ok_and(|n| n == 1).then_some(()))
        .unwrap();
    wire.limit_replication(20_000);
    let written = "x".repeat(100_000);
    let writing = Again::say(&primary, move |_| vec![["SET", "x", &written].map(str::to_owned).into()]);
    let found = patient.await_some(&["link-saturated", "replica-buffer-too-small", "replica-lagging"]);
    says(&found, "replica-lagging", "warning", &[&replica.addr().to_string(), "behind a stream of"]);
    says(&found, "replica-buffer-too-small", "grave", &["never end"]);
    says(&found, "link-saturated", "warning", &["of 125 kB/s"]);
    drop(writing);
}

/// DOC-10 DOC-15
#[test]
fn a_disk_without_room_for_a_snapshot_is_found() {
    if !is_available() {
        return;
    }
    let port = free_port().unwrap();
    let patient = Patient::new(&format!(
        "[demo]\nenabled = true\n[backbone]\nkind = \"redis\"\naddresses = [\"127.0.0.1:{port}\"]\n[storage]\npath = \"disk\"\n"
    ));
    let disk = patient.folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    // A disk of eight megabytes in a namespace of the test's own, where the kernel gives one.
    let script = "mount -t tmpfs -o size=8m none \"$DISK\" || exit 77\n\
                  \"$SERVER\" --port $PORT --bind 127.0.0.1 --dir \"$DISK\" --save '3600 1' --maxmemory 4gb >/dev/null &\n\
                  server=$!; trap 'kill -9 $server; wait' EXIT\n\
                  head -c 7500000 /dev/zero > \"$DISK/full\"\n\
                  for n in 1 2 3 4 5 6 7 8 9 10; do\n\
                  \"$DOCTOR\" doctor --json --config \"$CONFIG\" > \"$OUT\"\n\
                  grep -q persistence-disk-space \"$OUT\" && break\ndone\n";
    let out = patient.folder.path().join("out.json");
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script]).stdin(Stdio::null()).stderr(Stdio::null());
    command.env("DISK", &disk).env("SERVER", server_program()).env("PORT", port.to_string()).env("OUT", &out);
    command.env("DOCTOR", env!("CARGO_BIN_EXE_fulmar")).env("CONFIG", patient.file());
    let ended = command.status();
    if !ended.is_ok_and(|status| ![Some(77), Some(1), Some(127)].contains(&status.code())) {
        eprintln!("!! SKIPPED: no namespace with a disk of its own can be had here");
        return;
    }
    let said: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    let found = said["findings"].as_array().unwrap();
    assert!(has(found, &["persistence-disk-space", "storage-space"]), "{found:#?}");
    says(found, "persistence-disk-space", "grave", &[&disk.display().to_string(), "are free", "refuses every write"]);
    says(found, "storage-space", "warning", &["storage.path"]);
}

/// A certificate for a server of this machine that ends so many days from now, its key, and who vouches for it.
fn vouched(folder: &Path, days: i64) -> Tls {
    let mut of_ca = CertificateParams::new(Vec::new()).unwrap();
    of_ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    of_ca.distinguished_name.push(DnType::CommonName, "ours");
    let authority = CertifiedIssuer::self_signed(of_ca, KeyPair::generate().unwrap()).unwrap();
    let own = KeyPair::generate().unwrap();
    let shown = ending("127.0.0.1", days).signed_by(&own, &authority).unwrap();
    let [ca, cert, key] = ["ca.pem", "server.pem", "server.key"].map(|file| folder.join(file));
    std::fs::write(&ca, authority.pem()).unwrap();
    std::fs::write(&cert, shown.pem()).unwrap();
    std::fs::write(&key, own.serialize_pem()).unwrap();
    Tls { cert, key, ca, wants_certificate: false }
}

/// DOC-21
#[test]
fn a_certificate_that_a_server_shows_is_found_before_it_ends_and_after() {
    if !is_available() {
        return;
    }
    let cases = [(10, "warning", "ends in 10 days", true), (-2, "grave", "ended 1 days ago", false)];
    for (days, weight, when, is_reached) in cases {
        let files = Folder::make("shown").unwrap();
        let tls = vouched(files.path(), days);
        let ca = tls.ca.display().to_string();
        let redis = match Redis::start(&RedisOptions { tls: Some(tls), ..options() }) {
            Ok(redis) => redis,
            Err(error) if error.to_string().contains("TLS support") => {
                return eprintln!("!! SKIPPED: {} was built without TLS", server_program().display());
            }
            Err(error) => panic!("{error}"),
        };
        let at = redis.tls_addr().unwrap().to_string();
        let patient = Patient::new(&format!(
            "[demo]\nenabled = true\n[storage]\npath = \"STORAGE\"\n[backbone]\nkind = \"redis\"\naddresses = [{at:?}]\n\
             tls = true\ntls_ca = {ca:?}\n"
        ));
        let found = patient.await_some(&["certificate-expiry"]);
        says(&found, "certificate-expiry", weight, &[&at, when, "CONFIG SET tls-cert-file"]);
        assert_eq!(has(&found, &["server-unreachable"]), !is_reached, "{found:#?}");
    }
}
