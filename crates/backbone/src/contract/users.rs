//! The promises about users: who is online, who hears of it, and whom a termination means.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fulmar_protocol::exchange::{OFFLINE_AFTER, Position, UserChange};

use super::Fixture;
use super::world::{APP, Dice, START, Worker};

/// The changes that a sign-in at `after` hears of these users; true is online.
pub(super) fn heard(worker: &Worker, after: Position, users: &[&str]) -> Vec<(String, bool)> {
    let notices = worker.notices();
    assert!(notices.windows(2).all(|pair| pair[0].position < pair[1].position), "positions of one app rise");
    let edges = notices.iter().filter(|notice| notice.position > after && notice.app.as_str() == APP);
    let edges = edges.filter_map(|notice| match notice.change {
        UserChange::Online => Some((notice.user_id.as_str().to_owned(), true)),
        UserChange::Offline => Some((notice.user_id.as_str().to_owned(), false)),
        UserChange::Terminated | UserChange::Missed => None,
    });
    edges.filter(|(user, _)| users.contains(&user.as_str())).collect()
}

pub(super) fn edges(of: &[(&str, bool)]) -> Vec<(String, bool)> {
    of.iter().map(|(user, is_online)| ((*user).to_owned(), *is_online)).collect()
}

/// Waits until these workers, which must watch the user `fence`, have heard all that was told before.
pub(super) fn fence(fixture: &Fixture, by: &Worker, workers: &[&Worker]) {
    static FENCES: AtomicU64 = AtomicU64::new(0);
    let number = FENCES.fetch_add(1, Relaxed);
    let user = format!("fence-{number}");
    // Watching it is what makes the workers hear it.
    for worker in workers {
        worker.sign_in("watcher-of-fences", &[&user]);
    }
    by.sign_in(&user, &[]);
    for worker in workers {
        fixture.eventually("the fence is heard", || !heard(worker, START, &[&user]).is_empty());
    }
}

/// Lets time pass until an absence of now counts, whoever keeps that time.
pub(super) fn pass_absence(fixture: &Fixture, workers: &[&Worker]) {
    (fixture.pass)(OFFLINE_AFTER);
    for worker in workers {
        worker.settle();
    }
}

pub(super) fn signs_in_at_a_position(fixture: &Fixture) {
    let [watching, other, away] = fixture.workers();
    away.sign_in("ana", &[]);
    let (position, online) = watching.sign_in("bob", &["eve", "ana", "bob"]);
    assert_eq!(online, ["ana", "bob"], "those online, in the order of the watchlist, the user itself too");
    other.sign_in("fay", &["ida"]);
    away.sign_in("eve", &[]);
    away.sign_in("eve", &[]);
    away.sign_in("joe", &[]);
    fence(fixture, &away, &[&watching, &other]);
    assert_eq!(heard(&watching, position, &["ana", "bob", "eve", "joe"]), edges(&[("eve", true)]), "once");
    assert_eq!(heard(&other, START, &["ana", "bob", "eve", "joe"]), [], "who watches nobody of them hears nothing");
    let (later, online) = watching.sign_in("gil", &["eve"]);
    assert_eq!(online, ["eve"]);
    fence(fixture, &away, &[&watching]);
    assert_eq!(heard(&watching, later, &["eve"]), [], "what the answer held is not told again");
}

pub(super) fn adds_up_to_who_is_online(fixture: &Fixture) {
    const LOOKS_MAX: usize = 200;
    const USERS: [&str; 3] = ["ana", "bob", "eve"];
    let [watching, first, second] = fixture.workers();
    let is_over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let churning = [(1, &first), (2, &second)].map(|(seed, worker)| {
            scope.spawn(move || {
                let mut dice = Dice(seed);
                let (rounds, pass_one_in) = if fixture.waits { (100, 25) } else { (500, 4) };
                for _ in 0..rounds {
                    let user = USERS[dice.roll(3)];
                    worker.sign_in(user, &[]);
                    std::thread::yield_now();
                    worker.sign_out(user, &[]);
                    if dice.roll(pass_one_in) == 0 {
                        pass_absence(fixture, &[worker]);
                    }
                }
            })
        });
        let looking = scope.spawn(|| {
            let mut seen = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                if seen.len() < LOOKS_MAX {
                    seen.push(watching.sign_in("watcher", &USERS));
                }
                std::thread::yield_now();
            }
            seen
        });
        let churned: Vec<_> = churning.into_iter().map(|thread| thread.join()).collect();
        // Said before anything can fail, or whoever looks would look for ever.
        is_over.store(true, Ordering::SeqCst);
        for outcome in churned {
            outcome.expect("churning does not panic");
        }
        looking.join().expect("looking does not panic")
    });
    pass_absence(fixture, &[&first, &second, &watching]);
    fence(fixture, &first, &[&watching]);
    // Users of other groups than the fence's are told of by others. One that was online at the first look may have been told of by
    // nothing else yet.
    let has_left = |user: &&str, (position, online): &(_, Vec<String>)| {
        let last = heard(&watching, *position, &[user]).last().map(|(_, is_online)| *is_online);
        !last.unwrap_or_else(|| online.iter().any(|id| id == user))
    };
    let all_left = || USERS.iter().all(|user| seen.iter().all(|look| has_left(user, look)));
    fixture.eventually("all are heard to have left", all_left);
    for user in USERS {
        let all = heard(&watching, START, &[user]);
        assert!(all.windows(2).all(|pair| pair[0].1 != pair[1].1), "{user}: online and offline alternate");
        for (position, online) in &seen {
            let mut state = online.iter().any(|id| id == user);
            for (_, is_online) in heard(&watching, *position, &[user]) {
                assert_ne!(state, is_online, "{user}: each change changes what was known at {position:?}");
                state = is_online;
            }
            assert!(!state, "{user}: all have left");
        }
    }
}

pub(super) fn is_online_on_any_connection(fixture: &Fixture) {
    let [watching, first, second] = fixture.workers();
    let (start, online) = watching.sign_in("watcher", &["ana"]);
    assert_eq!(online, [] as [&str; 0]);
    first.sign_in("ana", &[]);
    second.sign_in("ana", &[]);
    second.sign_in("ana", &[]);
    first.sign_out("ana", &[]);
    second.sign_out("ana", &[]);
    pass_absence(fixture, &[&first, &second]);
    fence(fixture, &first, &[&watching]);
    assert_eq!(heard(&watching, start, &["ana"]), edges(&[("ana", true)]), "one connection is left");
    second.sign_out("ana", &[]);
    pass_absence(fixture, &[&first, &second]);
    fixture.eventually("the end is told", || heard(&watching, start, &["ana"]).len() == 2);
    assert_eq!(watching.sign_in("late", &["ana"]).1, [] as [&str; 0]);
    first.sign_in("ana", &[]);
    fence(fixture, &first, &[&watching]);
    assert_eq!(heard(&watching, start, &["ana"]), edges(&[("ana", true), ("ana", false), ("ana", true)]));
}

pub(super) fn waits_before_offline(fixture: &Fixture) {
    let short = Duration::from_millis(2_000);
    let [watching, home] = fixture.workers();
    home.sign_in("ana", &[]);
    let (start, _) = watching.sign_in("watcher", &["ana"]);
    home.sign_out("ana", &[]);
    (fixture.pass)(short);
    home.settle();
    assert_eq!(watching.sign_in("late", &["ana"]).1, ["ana"], "nobody was told, so nobody is offline");
    home.sign_in("ana", &[]);
    pass_absence(fixture, &[&home]);
    fence(fixture, &home, &[&watching]);
    assert_eq!(heard(&watching, start, &["ana"]), [], "back in time: nothing is told at all");
    home.sign_out("ana", &[]);
    (fixture.pass)(short);
    home.sign_in("ana", &[]);
    home.sign_out("ana", &[]);
    (fixture.pass)(short);
    home.settle();
    fence(fixture, &home, &[&watching]);
    assert_eq!(heard(&watching, start, &["ana"]), [], "the time begins anew with each absence");
    (fixture.pass)(OFFLINE_AFTER - short);
    home.settle();
    fixture.eventually("it is told", || heard(&watching, start, &["ana"]) == edges(&[("ana", false)]));
}

fn terminations(worker: &Worker, after: Position) -> Vec<String> {
    let notices = worker.notices();
    let meant = notices.iter().filter(|n| n.change == UserChange::Terminated && n.position > after);
    meant.map(|n| n.user_id.as_str().to_owned()).collect()
}

pub(super) fn terminates_everywhere(fixture: &Fixture) {
    let [first, second, other] = fixture.workers();
    let (start, _) = first.sign_in("ana", &[]);
    second.sign_in("ana", &[]);
    other.sign_in("bob", &["ana"]);
    fixture.terminate("ana");
    fixture.terminate("nobody");
    for worker in [&first, &second] {
        fixture.eventually("it is told", || terminations(worker, start) == ["ana"]);
    }
    fence(fixture, &first, &[&other]);
    assert_eq!(terminations(&other, START), [] as [&str; 0], "to watch somebody is not to be somebody");
    first.sign_out("ana", &[]);
    pass_absence(fixture, &[&first]);
    fixture.terminate("ana");
    fixture.eventually("again where one is left", || terminations(&second, start).len() == 2);
    fence(fixture, &second, &[&first]);
    assert_eq!(terminations(&first, start).len(), 1);
}

pub(super) fn spares_later_sign_ins(fixture: &Fixture) {
    let worker = fixture.worker(0);
    let (before, _) = worker.sign_in("ana", &[]);
    fixture.terminate("ana");
    let (after, _) = worker.sign_in("ana", &[]);
    fixture.eventually("it is told", || terminations(&worker, before) == ["ana"]);
    assert_eq!(terminations(&worker, after), [] as [&str; 0]);
}

pub(super) fn keeps_apps_apart(fixture: &Fixture) {
    let [ours, theirs] = fixture.workers();
    theirs.sign_in_to("other", "ana", &[]);
    let (start, online) = ours.sign_in("watcher", &["ana"]);
    assert_eq!(online, [] as [&str; 0]);
    fixture.terminate("ana");
    ours.sign_in("ana", &[]);
    fence(fixture, &ours, &[&ours]);
    assert_eq!(heard(&ours, start, &["ana"]), edges(&[("ana", true)]));
    assert_eq!(theirs.notices(), []);
}

pub(super) fn survives_stray_sign_outs(fixture: &Fixture) {
    let [home, stranger, watching] = fixture.workers();
    stranger.sign_out("ana", &["bob"]);
    home.sign_in("ana", &[]);
    let (start, _) = watching.sign_in("watcher", &["ana"]);
    stranger.sign_out("ana", &[]);
    stranger.sign_out("watcher", &["ana"]);
    pass_absence(fixture, &[&stranger]);
    fence(fixture, &home, &[&watching]);
    assert_eq!(heard(&watching, start, &["ana"]), []);
    home.sign_out("ana", &[]);
    home.sign_out("ana", &[]);
    pass_absence(fixture, &[&home]);
    fixture.eventually("the end is told", || heard(&watching, start, &["ana"]) == edges(&[("ana", false)]));
}
