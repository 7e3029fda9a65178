//! How many are subscribed, and how often they are told.

use fulmar_sim::frames::{count, event, succeeded};
use fulmar_sim::{Connection, Pace, Setup, World};

fn counted() -> World {
    World::with_app(|app| app.subscription_counts = true)
}

/// `number` connections on the channel, and the first of them, which has heard nothing yet.
fn crowd(world: &mut World, number: usize) -> (Connection, Vec<Connection>) {
    let first = world.connect("app-1");
    world.subscribe(first, "news");
    let others = (1..number).map(|_| world.connect("app-1")).collect::<Vec<_>>();
    for other in &others {
        world.subscribe(*other, "news");
        world.forget_heard(*other);
    }
    world.forget_heard(first);
    (first, others)
}

/// WS-88, WS-90
#[test]
fn up_to_a_hundred_every_change_is_told() {
    let mut world = counted();
    let (witness, others) = crowd(&mut world, 99);
    let ana = world.connect("app-1");
    world.join(ana, "news");
    world.expect(ana, count("news", 100));
    world.expect(witness, count("news", 100));
    world.unsubscribe(ana, "news");
    world.expect_nothing(ana);
    world.leave(others[0]);
    world.expect(witness, count("news", 99));
    world.expect(witness, count("news", 98));
    world.expect_nothing(witness);
}

/// WS-90, DEL-14
#[test]
fn above_a_hundred_the_last_count_of_every_five_seconds_is_told_and_none_without_a_change() {
    let mut world = counted();
    let (witness, _) = crowd(&mut world, 100);
    let late: Vec<_> = (0..50).map(|_| world.connect("app-1")).collect();
    world.wait(5_000);
    for (before, connection) in late.iter().enumerate() {
        world.join(*connection, "news");
        if before == 0 {
            world.expect(witness, count("news", 101));
        }
    }
    world.expect_nothing(witness);
    world.wait(4_999);
    world.expect_nothing(witness);
    world.wait(1);
    // On each of the two workers, once.
    world.expect(witness, count("news", 150));
    world.expect(late[49], count("news", 150));
    world.wait(60_000);
    world.expect_nothing(witness);
    world.leave(late[0]);
    world.expect(witness, count("news", 149));
    world.expect_nothing(witness);
}

/// WS-90: back below the line everybody is told at once again, and nothing old follows.
#[test]
fn a_count_held_back_is_not_told_after_a_newer_one() {
    let mut world = counted();
    let (witness, others) = crowd(&mut world, 102);
    world.wait(10_000);
    world.forget_heard(witness);
    world.leave(others[0]);
    world.expect(witness, count("news", 101));
    world.leave(others[1]);
    world.expect(witness, count("news", 100));
    world.leave(others[2]);
    world.expect(witness, count("news", 99));
    world.wait(10_000);
    world.expect_nothing(witness);
}

/// WS-89, DEL-3: a count from before a subscription is not for it.
#[test]
fn a_newcomer_hears_its_own_confirmation_first_and_no_count_from_before() {
    let mut world = World::of(Setup {
        workers: 1,
        apps: vec![fulmar_protocol::app::App::new("app-1", "key-1", "s")],
        ..Setup::default()
    });
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.deliver_by_hand(true);
    world.subscribe(ana, "news");
    world.subscribe(bob, "news");
    world.deliver_by_hand(false);
    world.expect(ana, succeeded("news"));
    world.expect(ana, count("news", 1));
    world.expect(ana, count("news", 2));
    world.expect(bob, succeeded("news"));
    world.expect(bob, count("news", 2));
    world.expect_nothing(bob);
}

/// DEL-14, WS-88: what is held for one subscription is news to that one alone.
#[test]
fn counts_held_for_a_newcomer_are_not_told_to_the_others_again() {
    let mut world = World::of(Setup {
        workers: 1,
        apps: vec![fulmar_protocol::app::App::new("app-1", "key-1", "s")],
        ..Setup::default()
    });
    let (ana, bob) = (world.connect("app-1"), world.connect("app-1"));
    world.subscribe(ana, "news");
    world.forget_heard(ana);
    world.set_pace(Pace::SlowToAnswer);
    world.subscribe(bob, "news");
    let others: Vec<_> = (0..2).map(|_| world.connect("app-1")).collect();
    for other in others {
        world.subscribe(other, "news");
    }
    for number in [2, 3, 4] {
        world.expect(ana, count("news", number));
    }
    world.publish("app-1", "news", "e", "x");
    world.expect(ana, event("news", "e", "x"));
    world.let_answer(0);
    world.expect(bob, succeeded("news"));
    for number in [2, 3, 4] {
        world.expect(bob, count("news", number));
    }
    world.expect(bob, event("news", "e", "x"));
    world.expect_nothing(bob);
    world.expect_nothing(ana);
}

/// WS-91, T-6: held back or not.
#[test]
fn the_java_client_hears_no_count_on_an_encrypted_channel_and_the_others_do() {
    for pace in [Pace::Prompt, Pace::SlowToAnswer] {
        let mut world = counted();
        let (java, js) = (world.connect_as("app-1", "java-client"), world.connect("app-1"));
        world.set_pace(pace);
        for channel in ["private-encrypted-a", "private-encrypted-b"] {
            world.subscribe(java, channel);
            world.subscribe(js, channel);
        }
        world.let_all_through();
        for channel in ["private-encrypted-a", "private-encrypted-b"] {
            world.expect(java, succeeded(channel));
            world.expect(js, succeeded(channel));
            world.expect(js, count(channel, 2));
        }
        world.expect_nothing(java);
        world.expect_nothing(js);
    }
}
