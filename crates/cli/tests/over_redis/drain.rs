//! A node goes away in order, and its members are elsewhere in a moment.

use fulmar_rig::{Ready, RigError, Subscriber};
use serde_json::{Value, json};

use super::{PATIENCE, connect, next_event, node, one_redis, publish};

const ROOM: &str = "presence-room";

fn join(subscriber: &mut Subscriber, who: &str) -> Value {
    subscriber.subscribe(ROOM, Some((who, &json!({})))).unwrap()
}

/// Hears until the connection is closed.
fn await_close(subscriber: &mut Subscriber) {
    loop {
        match subscriber.event() {
            Ok(_) => {}
            Err(RigError::Peer(said)) => return assert!(said.contains("4200"), "{said}"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// RED-31
#[test]
fn members_of_a_drained_node_who_come_back_on_another_one_do_not_flicker_and_others_are_gone() {
    let Some((redis, backbone)) = one_redis() else { return };
    // Whoever comes second knows the other from its first beat on.
    let stays = node("", &backbone, Ready::ForTraffic);
    let goes = node("", &backbone, Ready::ForTraffic);
    let mut watcher = connect(&stays);
    join(&mut watcher, "watcher");
    let mut people = ["ana", "ben", "cid"].map(|who| (who, connect(&goes)));
    for (who, subscriber) in &mut people {
        join(subscriber, who);
        let (event, data) = next_event(&mut watcher);
        assert!(event == "pusher_internal:member_added" && data.contains(*who), "{event} {data}");
    }
    goes.terminate();
    people.iter_mut().for_each(|(_, subscriber)| await_close(subscriber));
    // Two of them are back as fast as SDKs are; the third has closed its page.
    let back = ["ana", "ben"].map(|who| {
        let mut subscriber = connect(&stays);
        let roster = join(&mut subscriber, who);
        (subscriber, roster["presence"]["count"].clone())
    });
    assert!(back.iter().all(|(_, count)| *count == 4), "who is expected elsewhere is present: {back:?}");
    let (event, data) = next_event(&mut watcher);
    assert!(event == "pusher_internal:member_removed" && data.contains("cid"), "{event} {data}");
    goes.await_end(PATIENCE).unwrap();
    assert_eq!(redis.call(&["HLEN", "fulmar:nodes"]).unwrap().number(), Some(1));
    publish(&stays, ROOM, "still here");
    assert_eq!(next_event(&mut watcher), ("e".to_owned(), "still here".to_owned()));
    let mut late = connect(&stays);
    assert_eq!(join(&mut late, "dan")["presence"]["count"], 4);
}
