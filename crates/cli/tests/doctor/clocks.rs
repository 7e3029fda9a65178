//! Clocks that are wrong: a server's, and that of the machine that looks.
//!
//! libfaketime tells another time to those processes that are started with it, and to nobody else: the clock of whatever machine
//! runs the tests is never set. Skipped, loudly, where it is not installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use fulmar_rig::{Redis, RedisOptions, eventually, is_available, server_program};
use serde_json::Value;

use super::other::Other;
use super::patient::{PATIENCE, Patient, says};

/// More than the minute from which on a clock is grave, whatever the error of reading it on a machine that has other work.
const FAR: &str = "90s";

/// The library, if both it and a server program are here.
fn library() -> Option<PathBuf> {
    if !is_available() {
        return None;
    }
    // Each architecture has a folder of its own.
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    let mut files = folders.map_while(Result::ok).map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    let found = files.find(|file| file.is_file());
    if found.is_none() {
        eprintln!("!! SKIPPED: wrong clocks, since there is no libfaketime (cargo xtask setup installs it)");
    }
    found
}

/// The environment of a process whose clock is off by so much.
fn off(library: &Path, by: &str) -> Vec<(&'static str, String)> {
    vec![
        // The C library before the program's own jemalloc: that asks for the time while it is being set up, libfaketime for memory
        // when it is first asked for the time, and so neither would ever begin.
        ("LD_PRELOAD", format!("{}:libc.so.6", library.display())),
        ("FAKETIME", by.to_owned()),
        // Only the date is wrong: timers go on as they do on a machine whose clock is.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

fn primary() -> Redis {
    Redis::start(&RedisOptions::default().line("maxmemory 4gb")).unwrap()
}

fn patient_of(primary: &Redis) -> Patient {
    Patient::new(&format!(
        "[demo]\nenabled = true\n[storage]\npath = \"STORAGE\"\n[backbone]\nkind = \"redis\"\naddresses = [\"{}\"]\n",
        primary.addr()
    ))
}

fn await_replica(primary: &Redis) {
    eventually("the replica is online", PATIENCE, || primary.replicas_online().is_ok_and(|n| n == 1).then_some(()))
        .unwrap();
}

/// One clock is named, grave, with these words, and no other.
fn only_says(found: &[Value], words: &[&str]) {
    says(found, "clock-skew", "grave", words);
    let named = found.iter().filter(|finding| finding["id"] == "clock-skew").count();
    assert_eq!(named, 1, "{found:#?}");
}

/// DOC-18
#[test]
fn a_server_whose_clock_is_wrong_is_named() {
    let Some(library) = library() else { return };
    let primary = primary();
    let patient = patient_of(&primary);
    for (sign, way) in [("+", "ahead of"), ("-", "behind")] {
        let mut command = Command::new(server_program());
        command.envs(off(&library, &format!("{sign}{FAR}")));
        let port = primary.port().to_string();
        let other = Other::start(command, &["--replicaof", "127.0.0.1", &port, "--maxmemory", "4gb"]);
        await_replica(&primary);
        let found = patient.await_some(&["clock-skew"]);
        let whose = format!("the clock of the server 127.0.0.1:{} is ", other.port);
        only_says(&found, &[&whose, &format!("s {way} most others"), "chrony"]);
        assert_eq!(patient.run(&[]).code, 3, "what is grave tells a script");
    }
}

/// DOC-18
#[test]
fn this_machine_is_named_where_its_own_clock_is_the_wrong_one() {
    let Some(library) = library() else { return };
    let primary = primary();
    let replica = self::primary();
    replica.call(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).unwrap();
    await_replica(&primary);
    let mut patient = patient_of(&primary);
    let found = patient.findings();
    assert!(found.iter().all(|finding| finding["id"] != "clock-skew"), "all are alike: {found:#?}");
    for (sign, way) in [("+", "ahead of"), ("-", "behind")] {
        patient.environment = off(&library, &format!("{sign}{FAR}"));
        let found = patient.await_some(&["clock-skew"]);
        only_says(&found, &["the clock of this machine is ", &format!("s {way} most others"), "chrony"]);
    }
}
