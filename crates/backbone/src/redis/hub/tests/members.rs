//! Who came and went, one edge at a time, and rosters that are in doubt.

use fulmar_protocol::exchange::{Answer, Happening, Member, Ticket};

use super::words::{as_user, topic, user};
use super::world::{Heard, World};
use crate::redis::envelope::{LogId, Message};
use crate::redis::records::{Call, Presence, Told};

const ROOM: &str = "presence-room";

fn edges(world: &World, node: usize) -> Vec<String> {
    let told = world.heard(node, 0).into_iter().filter_map(|heard| match heard {
        Heard::Delivery(delivery) => match &delivery.happening {
            Happening::MemberAdded(member) => Some(format!("+{}", member.user_id.as_str())),
            Happening::MemberRemoved(user) => Some(format!("-{}", user.as_str())),
            _ => None,
        },
        _ => None,
    });
    told.collect()
}

fn roster(world: &World, node: usize, ticket: Ticket) -> Vec<(String, String)> {
    let Some(Answer::Joined { roster: Some(roster), .. }) = world.answer_to(node, ticket) else {
        panic!("it was let in")
    };
    let shown = |m: Member| (m.user_id.as_str().to_owned(), m.user_info.as_deref().unwrap_or_default().to_owned());
    roster.into_iter().map(shown).collect()
}

fn hear(world: &mut World, at: u64, message: Message) {
    world.on(0, |hub, now, outs| hub.heard(now, topic(ROOM).as_str(), Some(LogId::new(at, 0)), message, outs));
}

fn added(id: &str) -> Message {
    Message::Added { member: Member { user_id: user(id), user_info: Some("1".into()) }, since: 1 }
}

fn rosters_asked(world: &World) -> usize {
    world.nodes[0].calls.iter().filter(|call| matches!(call, Call::Roster { .. })).count()
}

/// An answer to the question that was asked last.
fn answer(world: &World, at: u64, members: Vec<(Member, u64)>, is_settled: bool) -> Told {
    let token = world.nodes[0].roster_asked.expect("a roster was asked for");
    Told::Roster { token, topic: topic(ROOM), at: LogId::new(at, 0), members, is_settled }
}

/// What the roster of the store is, as an answer.
fn read(world: &World, at: u64, is_settled: bool) -> Told {
    answer(world, at, world.roster(&topic(ROOM)), is_settled)
}

fn here(world: &mut World) {
    world.join(0, 0, as_user(ROOM, "ana", "1"));
    world.drain();
}

/// RED-27
#[test]
fn an_edge_is_told_once_whether_the_answer_or_the_message_comes_first() {
    for is_answer_first in [true, false] {
        let mut world = World::new(1, 1, 1);
        here(&mut world);
        let bob = world.join(0, 0, as_user(ROOM, "bob", "1"));
        while world.step(0, 1) {}
        let order = if is_answer_first { [3, 2] } else { [2, 3] };
        order.iter().for_each(|kind| while world.step(0, *kind) {});
        assert_eq!(edges(&world, 0), ["+bob"]);
        assert_eq!(roster(&world, 0, bob).len(), 2);
        let heard = world.heard(0, 0);
        assert!(matches!(heard.last(), Some(Heard::Answer(_))), "told before the answer: it hears no edge of its own");
    }
}

/// RED-27, WS-81
#[test]
fn a_user_known_to_another_node_is_waited_for_because_of_what_that_connection_said() {
    let mut world = World::new(1, 2, 1);
    here(&mut world);
    world.join(1, 0, as_user(ROOM, "bob", "first"));
    while world.step(1, 0) || world.step(1, 1) || world.step(1, 2) {}
    let bob = world.join(0, 0, as_user(ROOM, "bob", "second"));
    while world.step(0, 1) || world.step(0, 3) {}
    assert!(world.answer_to(0, bob).is_none(), "bob is there already, but nobody here knows with what");
    while world.step(0, 2) {}
    assert_eq!(roster(&world, 0, bob)[1], ("bob".to_owned(), "first".to_owned()));
    assert_eq!(edges(&world, 0), ["+bob"]);
}

/// RED-27
#[test]
fn an_edge_that_does_not_come_is_not_waited_for_long() {
    let mut world = World::new(1, 2, 1);
    here(&mut world);
    world.nodes[0].subscribed.clear();
    world.join(1, 0, as_user(ROOM, "bob", "first"));
    while world.step(1, 0) || world.step(1, 1) || world.step(1, 2) {}
    let bob = world.join(0, 0, as_user(ROOM, "bob", "second"));
    while world.step(0, 1) || world.step(0, 3) {}
    world.pass(249);
    assert!(world.answer_to(0, bob).is_none());
    world.pass(1);
    assert_eq!(roster(&world, 0, bob)[1], ("bob".to_owned(), "second".to_owned()));
    assert_eq!(edges(&world, 0), ["+bob"]);
}

/// RED-27
#[test]
fn stale_and_repeated_edges_are_not_told() {
    let mut world = World::new(1, 1, 1);
    here(&mut world);
    let gone = || Message::Removed(user("bob"));
    for (at, message) in [(10, added("bob")), (10, added("bob")), (9, gone()), (12, gone()), (11, added("bob"))] {
        hear(&mut world, at, message);
    }
    hear(&mut world, 0, added("eve"));
    assert_eq!(edges(&world, 0), ["+bob", "-bob"], "what is older than the roster that was read is no news either");
}

/// RED-27
#[test]
fn a_roster_in_doubt_is_read_again_and_the_difference_told() {
    let mut world = World::new(1, 1, 1);
    here(&mut world);
    hear(&mut world, 5, added("bob"));
    let eve = Presence { user_info: None, since: 7 };
    world.records.get_mut(&topic(ROOM)).expect("it is there")[0].members.insert(user("eve"), eve);
    world.told(0, Told::Doubtful(Some(topic(ROOM))));
    assert_eq!(rosters_asked(&world), 1);
    world.told(0, Told::Doubtful(None));
    world.nodes[0].calls.clear();
    let unsettled = read(&world, 20, false);
    world.told(0, unsettled);
    assert_eq!(edges(&world, 0), ["+bob", "+eve"], "absence means nothing yet");
    world.pass(300);
    assert_eq!(rosters_asked(&world), 1, "asked again");
    let settled = read(&world, 21, true);
    world.told(0, settled);
    assert_eq!(edges(&world, 0), ["+bob", "+eve", "-bob"]);
    world.nodes[0].calls.clear();
    world.pass(5_000);
    assert_eq!(rosters_asked(&world), 0, "the doubt is over");
    assert_eq!(world.figures(0).edges_mended, 2);
}

/// RED-27: records were deleted, a roster was read, and they were put right, without a word in the log.
#[test]
fn who_was_missing_from_a_roster_and_is_in_the_next_one_comes_back_although_nothing_was_said_in_between() {
    let mut world = World::new(1, 1, 1);
    here(&mut world);
    let eve = Presence { user_info: None, since: 7 };
    hear(&mut world, 5, added("eve"));
    world.told(0, Told::Doubtful(Some(topic(ROOM))));
    let damaged = read(&world, 20, true);
    world.told(0, damaged);
    assert_eq!(edges(&world, 0), ["+eve", "-eve"]);
    world.records.get_mut(&topic(ROOM)).expect("it is there")[0].members.insert(user("eve"), eve);
    world.told(0, Told::Doubtful(Some(topic(ROOM))));
    let mended = read(&world, 20, true);
    world.told(0, mended);
    assert_eq!(edges(&world, 0), ["+eve", "-eve", "+eve"]);
}

/// RED-27
#[test]
fn what_changed_after_a_roster_was_read_and_who_is_connected_here_stay_as_they_are() {
    let mut world = World::new(1, 1, 1);
    here(&mut world);
    world.told(0, Told::Doubtful(Some(topic(ROOM))));
    hear(&mut world, 30, added("bob"));
    hear(&mut world, 31, added("eve"));
    hear(&mut world, 32, Message::Removed(user("eve")));
    let of_eve = Member { user_id: user("eve"), user_info: None };
    let old = answer(&world, 29, vec![(of_eve, 1)], true);
    world.told(0, old);
    assert_eq!(edges(&world, 0), ["+bob", "+eve", "-eve"], "ana is connected here, bob came later, eve went later");
}

/// RED-27: what is remembered of goings is forgotten with each doubt, since another log has other places.
#[test]
fn who_left_between_two_doubts_does_not_come_again_by_a_roster_that_was_asked_for_at_the_first() {
    let mut world = World::new(1, 1, 1);
    here(&mut world);
    hear(&mut world, 5, added("eve"));
    let eve = Presence { user_info: None, since: 7 };
    world.records.get_mut(&topic(ROOM)).expect("it is there")[0].members.insert(user("eve"), eve);
    world.told(0, Told::Doubtful(None));
    let old = read(&world, 20, true);
    world.records.get_mut(&topic(ROOM)).expect("it is there")[0].members.remove(&user("eve"));
    hear(&mut world, 21, Message::Removed(user("eve")));
    world.told(0, Told::Doubtful(None));
    let new = read(&world, 21, true);
    world.told(0, old);
    world.told(0, new);
    assert_eq!(edges(&world, 0), ["+eve", "-eve"]);
}

/// RED-11, RED-27
#[test]
fn what_a_group_says_of_members_whose_slot_is_another_s_is_not_listened_to() {
    let mut world = World::new(1, 1, 1);
    here(&mut world);
    world.told(0, Told::Doubtful(Some(topic(ROOM))));
    let of_eve = Member { user_id: user("eve"), user_info: None };
    let late = answer(&world, 99, vec![(of_eve, 1)], true);
    world.on(0, |hub, now, outs| hub.told(now, 1, late, outs));
    hear(&mut world, 50, added("bob"));
    assert_eq!(edges(&world, 0), ["+bob"], "whose place is another log's");
    let mended = read(&world, 60, true);
    world.told(0, mended);
    assert_eq!(edges(&world, 0), ["+bob", "-bob"], "the group that has it is still waited for");
}

/// RED-27
#[test]
fn rosters_are_read_a_few_at_a_time_and_only_where_somebody_would_hear_of_it() {
    let mut world = World::new(1, 1, 1);
    for n in 0..100 {
        world.join(0, 0, as_user(&format!("presence-{n}"), "ana", "1"));
    }
    world.join(0, 0, as_user("presence-left", "ana", "1"));
    world.drain();
    world.leave(0, 0, &as_user("presence-left", "ana", "1"));
    world.drain();
    world.told(0, Told::Doubtful(None));
    assert_eq!(rosters_asked(&world), 64);
    let mut asked = 64;
    while world.step(0, 1) {
        while world.step(0, 3) {}
        asked = asked.max(rosters_asked(&world));
    }
    assert_eq!((asked, world.figures(0).edges_mended), (64, 0));
    let back = world.join(0, 0, as_user("presence-left", "ana", "1"));
    let change = world.nodes[0].calls.back();
    assert!(matches!(change, Some(Call::Change(change)) if change.wants_roster), "read anew by whoever comes back");
    world.drain();
    assert_eq!(roster(&world, 0, back).len(), 1);
}

/// RED-27
#[test]
fn rooms_that_end_while_their_roster_is_awaited_leave_their_turns_to_others() {
    let mut world = World::new(1, 1, 1);
    let rooms: Vec<_> = (0..64).map(|n| as_user(&format!("presence-{n}"), "ana", "1")).collect();
    for room in &rooms {
        world.join(0, 0, room.clone());
    }
    here(&mut world);
    for room in &rooms {
        world.told(0, Told::Doubtful(Some(topic(room.channel.as_str()))));
    }
    let forget = |world: &mut World| world.nodes[0].calls.retain(|call| !matches!(call, Call::Roster { .. }));
    assert_eq!(rosters_asked(&world), 64);
    forget(&mut world);
    world.pass(3_000);
    for room in &rooms {
        world.leave(0, 0, room);
    }
    world.drain();
    // They are asked for again twice, and gone before the answers could come.
    for ms in [2_000, 5_000, 3_000] {
        world.pass(ms);
        forget(&mut world);
        world.drain();
    }
    assert_eq!(world.figures(0).topics, 1);
    world.told(0, Told::Doubtful(Some(topic(ROOM))));
    assert_eq!(rosters_asked(&world), 1);
}

/// RED-5, RED-27
#[test]
fn edges_of_a_new_primary_count_although_their_places_are_lower() {
    let mut world = World::new(1, 1, 1);
    here(&mut world);
    hear(&mut world, 1_000, added("bob"));
    world.told(0, Told::Doubtful(None));
    hear(&mut world, 900, Message::Removed(user("bob")));
    assert_eq!(edges(&world, 0), ["+bob", "-bob"]);
}

/// RED-27
#[test]
fn a_roster_that_is_never_answered_is_asked_for_again() {
    let mut world = World::new(1, 1, 1);
    here(&mut world);
    world.told(0, Told::Doubtful(Some(topic(ROOM))));
    world.nodes[0].calls.clear();
    world.pass(4_999);
    assert_eq!(rosters_asked(&world), 0);
    world.pass(1);
    world.on(0, |hub, now, outs| hub.tick(now, outs));
    assert_eq!(rosters_asked(&world), 1);
}

/// RED-31
#[test]
fn who_leaves_a_node_that_goes_away_is_gone_after_five_seconds_unless_it_is_here_or_elsewhere_by_then() {
    let mut world = World::new(1, 2, 1);
    world.join(1, 0, as_user(ROOM, "watcher", "1"));
    for id in ["ana", "bob", "cid"] {
        world.join(0, 0, as_user(ROOM, id, "1"));
    }
    world.drain();
    assert_eq!(edges(&world, 1), ["+ana", "+bob", "+cid"]);
    world.on(0, |hub, _, _| hub.drain());
    for id in ["ana", "bob", "cid"] {
        world.leave(0, 0, &as_user(ROOM, id, "1"));
    }
    world.drain();
    // One is back elsewhere, and one on the same node.
    world.join(1, 0, as_user(ROOM, "ana", "1"));
    world.join(0, 0, as_user(ROOM, "cid", "1"));
    world.pass(4_900);
    world.drain();
    assert_eq!(edges(&world, 1).len(), 3, "nobody is seen to move");
    assert_eq!(world.total(&topic(ROOM)), 5, "the watcher, cid, ana elsewhere, and two who are expected");
    assert!(world.on(0, |hub, now, _| hub.has_leaving(now)));
    world.pass(200);
    world.drain();
    assert_eq!(edges(&world, 1)[3..], ["-bob"]);
    assert_eq!(world.total(&topic(ROOM)), 3);
    assert!(!world.on(0, |hub, now, _| hub.has_leaving(now)));
}
