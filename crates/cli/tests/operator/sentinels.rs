//! `fulmar sentinel` and `fulmar presence audit`.

use std::time::{Duration, Instant};

use fulmar_rig::eventually;

use super::stage::{PATIENCE, Stage};

/// OP-14 INC-2020-03-18
#[test]
fn a_sentinel_that_names_a_wrong_server_is_found_and_put_right_and_only_it() {
    let Some(stage) = Stage::set(2, "") else { return };
    stage.hurry();
    let stranger = stage.stranger();
    let primary = stage.primary();
    stage.redis.misname(1, "g1", stranger.addr()).unwrap();
    let verified = stage.run(&["sentinel", "verify"]);
    assert_eq!(verified.code, 1, "{}", verified.out);
    assert!(verified.out.contains("which has the data of fulmar/g2"), "{}", verified.out);
    let planned = stage.run(&["sentinel", "repair", "g1", "--dry-run"]);
    assert!(planned.code == 0 && planned.out.contains("SENTINEL REMOVE, MONITOR, SET"), "{}", planned.out);
    let repaired = stage.run(&["sentinel", "repair", "g1", "--json"]);
    assert_eq!(repaired.code, 0, "{} {}", repaired.out, repaired.err);
    for sentinel in stage.redis.sentinels() {
        assert_eq!(sentinel.primary_of("g1").unwrap().to_string(), primary);
    }
    let verified = stage.run(&["sentinel", "verify"]);
    assert_eq!(verified.code, 0, "{}", verified.out);
    assert_eq!(stage.run(&["sentinel", "repair", "g1"]).code, 4);
    let drawn = stage.run(&["sentinel", "status"]);
    assert!(drawn.code == 0 && drawn.out.matches(&format!("names {primary}")).count() == 3, "{}", drawn.out);
}

/// OP-14
#[test]
fn where_every_sentinel_is_wrong_the_operator_names_the_right_server_and_it_proves_itself() {
    let Some(stage) = Stage::set(2, "") else { return };
    stage.hurry();
    let stranger = stage.stranger();
    let primary = stage.primary();
    for number in 0..3 {
        stage.redis.misname(number, "g1", stranger.addr()).unwrap();
    }
    let blind = stage.run(&["sentinel", "repair", "g1", "--json"]);
    assert_eq!((blind.code, blind.json()["refusal"]["guard"].as_str()), (3, Some("sight")), "{}", blind.out);
    let wrong = stranger.addr().to_string();
    let wrong = stage.run(&["sentinel", "repair", "g1", "--primary", &wrong, "--json"]);
    assert_eq!((wrong.code, wrong.json()["refusal"]["guard"].as_str()), (3, Some("identity")), "{}", wrong.out);
    let repaired = stage.run(&["sentinel", "repair", "g1", "--primary", &primary, "--json"]);
    assert_eq!(repaired.code, 0, "{} {}", repaired.out, repaired.err);
    assert_eq!(stage.primary(), primary);
}

/// OP-19
#[test]
fn records_that_do_not_agree_with_themselves_are_found_and_nothing_is_changed() {
    let Some(stage) = Stage::set(1, "") else { return };
    let primary = stage.redis.primary_of("g1").unwrap();
    let call = |words: &[&str]| primary.redis.call(words).unwrap();
    // Slots of these channels of app 7 never change.
    call(&["HSET", "fulmar:nodes", "n1", "{}"]);
    call(&["HSET", "fulmar:rec:443:n1", "7:room", "3 0"]);
    call(&["HSET", "fulmar:rec:417:n1", "7:presence-room", "2 0"]);
    call(&["HSET", "fulmar:mem:417:n1:7:presence-room", "ana", "1 -", "bob", "2 -"]);
    call(&["HSET", "fulmar:rec:443:gone", "7:room", "9 0"]);
    let right = stage.run(&["presence", "audit", "--json"]);
    assert_eq!(right.code, 0, "{} {}", right.out, right.err);
    let group = &right.json()["groups"][0];
    let figures =
        ["nodes", "topics", "subscriptions", "members", "left_over"].map(|name| group[name].as_u64().unwrap());
    assert_eq!(figures, [1, 2, 5, 2, 1]);

    call(&["HSET", "fulmar:rec:443:n1", "7:presence-room", "1 0"]);
    call(&["HDEL", "fulmar:rec:417:n1", "7:presence-room"]);
    let wrong = stage.run(&["presence", "audit"]);
    assert_eq!(wrong.code, 1, "{}", wrong.out);
    for part in ["has 7:presence-room, which does not belong there", "2 members on 7:presence-room and no subscription"]
    {
        assert!(wrong.out.contains(part), "{part} is not in:\n{}", wrong.out);
    }
    assert_eq!(call(&["HLEN", "fulmar:mem:417:n1:7:presence-room"]).number(), Some(2));
}

/// OP-21 DOC-11: a Sentinel whose machine held still for more than two seconds.
#[test]
fn a_sentinel_in_tilt_refuses_what_needs_it_and_is_named_until_it_is_over() {
    let Some(stage) = Stage::set(2, "") else { return };
    let (before, sentinel) = (stage.primary(), &stage.redis.sentinels()[1].redis);
    let at = sentinel.addr().to_string();
    // For half a minute each time, which a busy machine may need for one verb.
    let tilt = || {
        sentinel.stop();
        // What it takes for a jump of time is what its own clock says: no other time can be moved for it.
        let held = Instant::now();
        let is_long = || (held.elapsed() > Duration::from_secs(3)).then_some(());
        eventually("it was held for three seconds", PATIENCE, is_long).unwrap();
        sentinel.resume();
        let is_told = || sentinel.call(&["INFO", "sentinel"]).ok()?.text().contains("sentinel_tilt:1").then_some(());
        eventually("it is in TILT", PATIENCE, is_told).unwrap();
    };
    tilt();
    let drawn = stage.run(&["sentinel", "status"]);
    assert!(drawn.code == 0 && drawn.out.matches("IN TILT for").count() == 1, "{}", drawn.out);
    let verified = stage.run(&["sentinel", "verify"]);
    assert!(verified.code == 1 && verified.out.contains(&format!("WRONG: {at} is in TILT")), "{}", verified.out);
    let found = stage.run(&["doctor", "--json"]);
    assert!(found.out.contains("sentinel-tilt") && found.out.contains(&at), "{}", found.out);
    for verb in [&["redis", "failover", "g1", "--json"][..], &["redis", "pre-stop", "--process", &before, "--json"]] {
        tilt();
        let ended = stage.run(verb);
        let refusal = &ended.json()["refusal"];
        assert_eq!((ended.code, refusal["guard"].as_str()), (3, Some("sentinel-tilt")), "{}", ended.out);
        assert!(refusal["figures"].as_str().unwrap().contains(&format!("1 of 3 ({at} for")), "{refusal}");
    }
    // Another Sentinel is asked than the one that does nothing.
    let forced = ["redis", "failover", "g1", "--override", "sentinel-tilt", "--reason", "the other two do", "--json"];
    let ended = stage.run(&forced);
    assert_eq!(ended.code, 0, "{} {}", ended.out, ended.err);
    assert_ne!(stage.primary(), before);
}
