//! What the script that takes a server into use refuses, on a real server; and what is published under one key through two
//! nodes.

use fulmar_backbone::redis::keys::Keys;
use fulmar_backbone::redis::scripts::ATTACH;
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
    call.arg(ask.identity).arg(ask.run).arg(ask.epoch).arg(u8::from(ask.may_claim)).arg(ask.groups).arg("lane");
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
