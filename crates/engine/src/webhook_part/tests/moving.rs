//! What becomes of subjects whose slots move from one part to another.

use super::*;

/// An edge comes along with its slot: it has the place that it had first, and happened then.
fn arrives(new: &mut World, change: Change, generation: u64, happened_ms: u64) {
    new.append(change);
    let mut last = new.stream.last_entry().expect("it was appended");
    let last = last.get_mut();
    (last.generation, last.happened_ms, last.is_again) = (Some(generation), Some(happened_ms), true);
}

/// RED-11, HOOK-9, HOOK-35: the slot goes, comes back, and goes on.
#[test]
fn what_moves_to_another_part_is_told_by_that_part_and_by_no_other() {
    let (mut old, mut new) = (World::new(app(false)), World::new(app(false)));
    ["stays", "leaves", "returns"].into_iter().for_each(|name| old.append(came(name)));
    old.look();
    old.write();
    let mut going = Vec::new();
    for name in ["leaves", "returns"] {
        old.now_ms += 100;
        old.append(went(name));
        going.push((name, old.generations));
    }
    old.look();
    new.known("stays", 0, true);
    for (name, generation) in going {
        new.known(name, generation, true);
        arrives(&mut new, went(name), generation, old.now_ms);
    }
    ["stays", "leaves", "returns"].into_iter().for_each(|name| old.known(name, 0, false));
    new.append(came("returns"));
    new.generations = 100;
    for world in [&mut old, &mut new] {
        world.look();
        world.write();
        world.die();
        world.now_ms += HOLD_MS;
        world.look();
        world.write();
    }
    assert_eq!(old.texts(URLS[0]).len(), 3, "three comings, and nothing behind them");
    assert!(old.stream.is_empty() && old.announced.is_empty());
    assert_eq!(new.texts(URLS[0]), [r#"{"name":"channel_vacated","channel":"leaves"}"#]);
    assert_eq!(new.announced.len(), 2);
    old.append(came("stays"));
    new.append(went("stays"));
    new.now_ms += HOLD_MS;
    for world in [&mut old, &mut new] {
        world.look();
        world.write();
    }
    assert_eq!(
        (old.texts(URLS[0]).len(), new.texts(URLS[0]).len()),
        (4, 2),
        "what was given up is told when it comes back"
    );
}

/// RED-11, HOOK-42: where it came from the going may be told until it is said there that it has moved.
#[test]
fn a_going_that_moves_is_held_from_when_it_happened_and_a_little_less() {
    for (back_after_ms, told) in [(HOLD_MS - 1_001, 0), (HOLD_MS - 999, 2)] {
        let mut new = World::new(app(false));
        new.known("moves", 7, true);
        let went_ms = new.now_ms - 1_500;
        arrives(&mut new, went("moves"), 7, went_ms);
        new.look();
        new.write();
        new.generations = 100;
        new.now_ms = went_ms + back_after_ms;
        new.append(came("moves"));
        new.look();
        new.write();
        assert_eq!(new.texts(URLS[0]).len(), told, "back after {back_after_ms} ms");
        assert_eq!((new.announced.len(), new.stream.len()), (1, 0));
    }
}

/// RED-11, HOOK-42: the clock of the store that it came from was ahead.
#[test]
fn what_a_store_decides_itself_follows_what_came_to_it_whatever_another_clock_said_of_that() {
    for is_back in [true, false] {
        let mut new = World::new(app(false));
        new.known("moves", 1_000, true);
        let went_ms = new.now_ms;
        arrives(&mut new, went("moves"), 1_000, went_ms);
        new.look();
        new.now_ms += 100;
        new.append(came("moves"));
        if !is_back {
            new.append(went("moves"));
        }
        new.now_ms += HOLD_MS;
        new.look();
        new.write();
        let expected: &[&str] = if is_back { &[] } else { &[r#"{"name":"channel_vacated","channel":"moves"}"#] };
        assert_eq!(new.texts(URLS[0]), expected);
        assert_eq!((new.announced.len(), new.stream.len()), (usize::from(is_back), 0));
    }
}

/// RED-11, HOOK-35: the word that something has moved away comes while its coming waits in an open batch.
#[test]
fn what_has_moved_away_is_announced_by_nobody_who_reads_the_stream_anew() {
    for dies in [false, true] {
        let mut world = World::new(app(true));
        world.append(came("moves"));
        world.known("moves", 0, false);
        world.look();
        world.write();
        world.close_batch(dies);
        world.look();
        assert_eq!(world.texts(URLS[0]), [r#"{"name":"channel_occupied","channel":"moves"}"#]);
        assert!(world.stream.is_empty() && world.announced.is_empty(), "{:?}", world.announced);
        world.append(came("moves"));
        world.close_batch(false);
        assert_eq!(world.texts(URLS[0]).len(), 2, "it is back, and that is news");
    }
}
