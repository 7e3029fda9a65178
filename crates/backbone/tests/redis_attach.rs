//! What the script that takes a server into use refuses, on a real server; and what is published under one key through two
//! nodes.

use fulmar_backbone::redis::keys::Keys;
use fulmar_backbone::redis::scripts::{ATTACH, Facts, PUBLISH};
use fulmar_rig::{Redis, RedisOptions};
use redis::Value;

/// A node's call: the group it believes in, the server's run id, the highest epoch it knows, whether it may claim.
struct Ask<'a> {
    identity: &'a str,
    run: &'a str,
    epoch: u64,
    may_claim: bool,
    groups: &'a str,
}

const ASK: Ask<'static> = Ask { identity: "f/g1", run: "run-1", epoch: 0, may_claim: true, groups: "g1,g2" };

fn attach(connection: &mut redis::Connection, ask: &Ask<'_>) -> Result<i64, String> {
    let mut call = redis::cmd("EVAL");
    call.arg(ATTACH.text()).arg(1).arg(Keys::new("f").identity());
    call.arg(ask.identity).arg(ask.run).arg(ask.epoch).arg(u8::from(ask.may_claim)).arg(ask.groups);
    call.arg("node").arg("").arg("lane");
    match call.query::<Value>(connection) {
        Ok(Value::Array(answer)) => match answer.first() {
            Some(Value::Int(epoch)) => Ok(*epoch),
            other => panic!("an epoch, not {other:?}"),
        },
        Ok(other) => panic!("an answer, not {other:?}"),
        Err(error) => Err(error.code().unwrap_or("?").to_owned()),
    }
}

fn server() -> Option<(Redis, redis::Connection)> {
    if !fulmar_rig::is_available() {
        eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
        return None;
    }
    let server = Redis::start(&RedisOptions::default()).expect("a server starts");
    let open = redis::Client::open(format!("redis://{}", server.addr())).expect("an address");
    let connection = open.get_connection().expect("a connection");
    Some((server, connection))
}

/// RED-6
#[test]
fn a_server_without_data_is_taken_only_by_who_may_and_one_of_another_group_by_nobody() {
    let Some((_server, mut connection)) = server() else { return };
    assert_eq!(attach(&mut connection, &Ask { may_claim: false, ..ASK }), Err("NOIDENTITY".to_owned()));
    assert_eq!(attach(&mut connection, &Ask { epoch: 7, ..ASK }), Ok(8), "above any that was known");
    assert_eq!(attach(&mut connection, &Ask { epoch: 8, may_claim: false, ..ASK }), Ok(8), "it is the group's now");
    assert_eq!(attach(&mut connection, &Ask { identity: "f/g2", epoch: 8, ..ASK }), Err("WRONGGROUP".to_owned()));
}

/// RED-5
#[test]
fn another_run_raises_the_epoch_and_a_run_that_is_behind_is_refused() {
    let Some((_server, mut connection)) = server() else { return };
    assert_eq!(attach(&mut connection, &ASK), Ok(1));
    assert_eq!(attach(&mut connection, &Ask { run: "run-2", epoch: 1, ..ASK }), Ok(2), "it was started again");
    assert_eq!(attach(&mut connection, &Ask { run: "run-3", epoch: 6, ..ASK }), Ok(7), "above what the node knows");
    assert_eq!(attach(&mut connection, &Ask { run: "run-3", epoch: 9, ..ASK }), Err("STALEEPOCH".to_owned()));
}

/// RED-10
#[test]
fn a_node_that_was_told_of_other_groups_is_refused() {
    let Some((_server, mut connection)) = server() else { return };
    assert_eq!(attach(&mut connection, &ASK), Ok(1));
    assert_eq!(attach(&mut connection, &Ask { groups: "g1,g2,g3", ..ASK }), Err("OTHERGROUPS".to_owned()));
}

const NODE: &str = "node";
const LANE: &str = "node.0";

/// Seconds of the server's clock, so many before or after now.
fn second(connection: &mut redis::Connection, away: i64) -> String {
    let (now, _): (i64, i64) = redis::cmd("TIME").query(connection).expect("a clock");
    (now + away).to_string()
}

/// The last number of the lane, as a node is told it that attaches and was known until then.
fn number_told(connection: &mut redis::Connection, known_until: &str) -> i64 {
    let mut call = redis::cmd("EVAL");
    call.arg(ATTACH.text()).arg(1).arg(Keys::new("f").identity());
    call.arg(ASK.identity).arg(ASK.run).arg(0).arg(0).arg(ASK.groups).arg(NODE).arg(known_until).arg(LANE);
    let answer: Value = call.query(connection).expect("it attaches");
    let Value::Array(parts) = answer else { panic!("{answer:?}") };
    match parts.last() {
        Some(Value::Int(number)) => *number,
        other => panic!("a number, not {other:?}"),
    }
}

/// Appends one publication under this number: its new last number, or the refusal.
fn publish(
    connection: &mut redis::Connection,
    known_until: &str,
    number: u64,
    is_gap_meant: bool,
) -> Result<i64, String> {
    let facts = Facts { identity: ASK.identity.to_owned(), run: ASK.run.to_owned(), epoch: 1, slots: 0 };
    PUBLISH.load().exec(connection).expect("it is loaded");
    let mut call = PUBLISH.call(&Keys::new("f"), &facts);
    call.arg(LANE).arg(number).arg(u8::from(is_gap_meant)).arg(100).arg(60_000).arg(known_until);
    call.arg("7:room").arg("message").arg("");
    match call.query::<(i64, i64, String)>(connection) {
        Ok((_, last, _)) => Ok(last),
        Err(error) => Err(error.code().unwrap_or("?").to_owned()),
    }
}

/// RED-4
#[test]
fn a_number_that_was_lost_is_told_from_one_that_was_removed() {
    let Some((_server, mut connection)) = server() else { return };
    assert_eq!(attach(&mut connection, &ASK), Ok(1));
    let (before, after) = (second(&mut connection, -1), second(&mut connection, 600));
    assert_eq!(number_told(&mut connection, ""), 0, "a node that is here for the first time");
    assert_eq!(number_told(&mut connection, &after), 0, "it was here a while ago: the group has lost its data");
    assert_eq!(number_told(&mut connection, &before), -1, "it was not, and may have been forgotten");

    let refused = Err("FORGOTTEN".to_owned());
    assert_eq!(publish(&mut connection, &before, 3, false), refused);
    assert_eq!(publish(&mut connection, &before, 3, true), refused, "a gap that is meant is no proof either");
    assert_eq!(publish(&mut connection, &after, 3, false), Err("SEQGAP".to_owned()), "all that it has comes again");
    assert_eq!(publish(&mut connection, &after, 3, true), Ok(3));
    assert_eq!(publish(&mut connection, &before, 4, false), Ok(4), "a number that is there is right whatever the time");
    assert_eq!(number_told(&mut connection, &before), 4);
    let entries: u64 = redis::cmd("XLEN").arg(Keys::new("f").log()).query(&mut connection).expect("a log");
    assert_eq!(entries, 2, "what was refused is not in it");
}

/// RED-4
#[test]
fn marks_of_a_dead_node_that_attaches_stay_for_their_whole_time_again() {
    let Some((_server, mut connection)) = server() else { return };
    assert_eq!(attach(&mut connection, &ASK), Ok(1));
    let mut marks = |own: &str| -> (String, String) {
        let (fence, other) = (Keys::new("f").fence(), "reaped 5");
        redis::cmd("HSET").arg(&fence).arg(NODE).arg(own).arg("other").arg(other).exec(&mut connection).expect("set");
        number_told(&mut connection, "");
        redis::cmd("HMGET").arg(&fence).arg(NODE).arg("other").query(&mut connection).expect("marks")
    };
    let (own, other) = marks("reaped 5");
    let since = own.strip_prefix("reaped ").and_then(|since| since.parse::<u64>().ok());
    assert!(since.is_some_and(|since| since > 1_000_000_000), "{own}");
    assert_eq!(other, "reaped 5", "only its own");
    assert_eq!(marks("7").0, "7", "one that is alive has a number");
}
