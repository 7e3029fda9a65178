//! The promises about members: who is present, who hears of it, and how many they are.

use fulmar_protocol::exchange::{Happening, Join, JoinRefusal, Position};

use super::Fixture;
use super::world::{APP, Dice, Joined, START, Worker, as_user, counted, ids, to};

pub(super) fn tells_of_users_not_connections(fixture: &Fixture) {
    const ROOM: &str = "presence-room";
    let [witness, other] = fixture.workers();
    let ana = || as_user(ROOM, "ana", "1");
    let start = witness.join(as_user(ROOM, "witness", "0"));
    assert_eq!(start.roster.as_deref().map(ids), Some(vec!["witness".to_owned()]));
    other.join(ana());
    let second = witness.join(ana());
    assert_eq!(ids(&second.roster.expect("presence channels have rosters")), ["witness", "ana"]);
    assert_eq!(fixture.named(&[ROOM]), [(3, 2)], "three connections of two users");
    witness.leave(&ana());
    other.leave(&ana());
    fixture.eventually("the end is told", || edges(&witness, ROOM, start.position).len() == 2);
    let again = other.join(ana());
    fixture.eventually("the return is told", || edges(&witness, ROOM, start.position).len() == 3);
    fixture.fence(ROOM, &[&witness, &other]);
    let told = edges(&witness, ROOM, start.position);
    assert_eq!(who(&told), [("ana", true), ("ana", false), ("ana", true)]);
    assert_eq!(edges(&other, ROOM, again.position), [], "a join hears no edge of its own");
}

/// Who came (true) or went (false), and where.
pub(super) type Edges = Vec<(Position, String, bool)>;

pub(super) fn edges(worker: &Worker, room: &str, after: Position) -> Edges {
    let heard = worker.heard_on(room, after);
    let edges = heard.iter().filter_map(|d| match &d.happening {
        Happening::MemberAdded(member) => Some((d.position, member.user_id.as_str().to_owned(), true)),
        Happening::MemberRemoved(user) => Some((d.position, user.as_str().to_owned(), false)),
        Happening::Event { .. } | Happening::Count(_) | Happening::Missed => None,
    });
    edges.collect()
}

fn who(edges: &[(Position, String, bool)]) -> Vec<(&str, bool)> {
    edges.iter().map(|(_, user, is_added)| (user.as_str(), *is_added)).collect()
}

/// What a churn leaves to be judged.
struct Churned {
    start: Joined,
    /// Where each join stood and whom it saw.
    rosters: Vec<(Position, Vec<String>)>,
    edges: Edges,
}

const CHURNED: &str = "presence-churn";

/// Three users come and go on four workers at once, with up to three connections per worker, until all have left.
fn churn(fixture: &Fixture, witness: &Worker) -> Churned {
    let start = witness.join(Join { counted: true, ..as_user(CHURNED, "witness", "0") });
    let threads = [1, 2, 3, 4].map(|index| (index as u64, fixture.worker(index)));
    let rosters = std::thread::scope(|scope| {
        let churning = threads.each_ref().map(|(seed, worker)| scope.spawn(|| churn_one(*seed, worker)));
        churning.map(|thread| thread.join().expect("churning does not panic"))
    });
    // Positions are a node's own: what another node's joins saw cannot be held against what the witness heard.
    let is_near = |(seed, _): &(&(u64, Worker), _)| seed.0 % fixture.nodes.len() as u64 == 0;
    let rosters = threads.iter().zip(rosters).filter(is_near).map(|(_, rosters)| rosters);
    fixture.eventually("all have left", || fixture.named(&[CHURNED]) == [(1, 1)]);
    fixture.fence(CHURNED, &[witness]);
    let edges = edges(witness, CHURNED, start.position);
    Churned { start, rosters: rosters.flatten().collect(), edges }
}

fn churn_one(seed: u64, worker: &Worker) -> Vec<(Position, Vec<String>)> {
    let mut dice = Dice(seed);
    let mut held: Vec<Join> = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..300 {
        if held.len() < 3 && dice.roll(2) == 0 {
            let user = ["ana", "bob", "eve"][dice.roll(3)];
            let join = Join { counted: true, ..as_user(CHURNED, user, "1") };
            let joined = worker.join(join.clone());
            let roster = ids(&joined.roster.expect("presence channels have rosters"));
            assert!(roster.iter().any(|present| present == user), "the newcomer is in its roster");
            seen.push((joined.position, roster));
            held.push(join);
        } else if !held.is_empty() {
            worker.leave(&held.swap_remove(dice.roll(held.len())));
        }
    }
    for join in held {
        worker.leave(&join);
    }
    seen
}

pub(super) fn alternates_edges(fixture: &Fixture) {
    let witness = fixture.worker(0);
    let churned = churn(fixture, &witness);
    for user in ["ana", "bob", "eve"] {
        let own: Vec<bool> = churned.edges.iter().filter(|e| e.1 == user).map(|e| e.2).collect();
        assert!(own.len() > 1, "{user} was seen");
        assert!(own.iter().enumerate().all(|(n, is_added)| *is_added == (n % 2 == 0)), "{user}: {own:?}");
        assert_eq!(own.last(), Some(&false), "{user} has left");
    }
    assert_eq!(fixture.members(CHURNED), ["witness"]);
}

pub(super) fn adds_up_to_the_roster(fixture: &Fixture) {
    let witness = fixture.worker(0);
    let churned = churn(fixture, &witness);
    let at_start = ids(&churned.start.roster.expect("presence channels have rosters"));
    assert!(!churned.rosters.is_empty());
    for (position, roster) in churned.rosters {
        let mut replayed = at_start.clone();
        for (_, user, is_added) in churned.edges.iter().take_while(|(at, ..)| *at <= position) {
            if *is_added {
                replayed.push(user.clone());
            } else {
                replayed.retain(|present| present != user);
            }
        }
        assert_eq!(roster, replayed, "in the order they came, at {position:?}");
    }
}

pub(super) fn counts(worker: &Worker, room: &str, after: Position) -> Vec<u64> {
    let heard = worker.heard_on(room, after);
    let counts = heard.iter().filter_map(|d| match d.happening {
        Happening::Count(count) => Some(count),
        _ => None,
    });
    counts.collect()
}

pub(super) fn counts_every_change(fixture: &Fixture) {
    let [first, second] = fixture.workers();
    let a = first.join(counted("room"));
    let b = second.join(counted("room"));
    second.join(counted("room"));
    let is_one_node = fixture.nodes.len() == 1;
    if !is_one_node {
        // Of changes that are made at once only the outcome is told: they are made one by one.
        fixture.eventually("the third is told", || counts(&first, "room", a.position).len() == 3);
    }
    second.leave(&counted("room"));
    fixture.eventually("all changes are told", || counts(&first, "room", a.position).len() == 4);
    // Also where they are heard a moment later: who has left hears no more of it.
    fixture.eventually("the leaver heard them too", || counts(&second, "room", b.position).len() == 3);
    second.leave(&counted("room"));
    fixture.eventually("the last change is told", || counts(&first, "room", a.position).len() == 5);
    fixture.fence("room", &[&first]);
    assert_eq!(counts(&first, "room", a.position), [1, 2, 3, 2, 1]);
    assert_eq!(counts(&second, "room", b.position), [2, 3, 2], "the newcomer hears its own");
    first.join(to("uncounted"));
    fixture.fence("uncounted", &[&first]);
    assert_eq!(counts(&first, "uncounted", START), [] as [u64; 0]);
}

pub(super) fn counts_the_truth(fixture: &Fixture) {
    let witness = fixture.worker(0);
    let churned = churn(fixture, &witness);
    let told = counts(&witness, CHURNED, churned.start.position);
    assert_eq!(told.last(), Some(&1), "only the witness is left");
    let is_one_node = fixture.nodes.len() == 1;
    assert!(told.windows(2).all(|pair| pair[0].abs_diff(pair[1]) == 1) || !is_one_node, "one connection at a time");
}

pub(super) fn limits_members(fixture: &Fixture) {
    const ROOM: &str = "presence-room";
    let [witness, other] = fixture.workers();
    let limited = |user: &str| Join { members_max: 2, ..as_user(ROOM, user, "1") };
    let full = Some(JoinRefusal::MembersFull { max: 2 });
    let start = witness.join(limited("ana"));
    other.join(limited("bob"));
    assert_eq!(other.try_join(limited("eve")).err(), full);
    assert_eq!(fixture.named(&[ROOM]), [(2, 2)], "a refused join is not counted");
    other.join(limited("ana"));
    assert_eq!(fixture.named(&[ROOM]), [(3, 2)], "one more connection of a present user is accepted");
    other.leave(&limited("bob"));
    fixture.eventually("a seat is free", || other.try_join(limited("eve")).is_ok());
    fixture.eventually("eve is told", || edges(&witness, ROOM, start.position).len() == 3);
    fixture.fence(ROOM, &[&witness]);
    let told = edges(&witness, ROOM, start.position);
    assert_eq!(who(&told), [("bob", true), ("bob", false), ("eve", true)]);
    let refused = other.try_join(Join { members_max: 0, ..as_user("presence-none", "ana", "1") });
    assert_eq!(refused.err(), Some(JoinRefusal::MembersFull { max: 0 }));
    assert_eq!(fixture.channels(APP, "presence-none"), [], "nor does it occupy the channel");
}

pub(super) fn keeps_the_first_info(fixture: &Fixture) {
    const ROOM: &str = "presence-room";
    let [witness, other] = fixture.workers();
    let start = witness.join(as_user(ROOM, "witness", "0"));
    let info = |joined: Joined| {
        let roster = joined.roster.expect("presence channels have rosters");
        roster.last().and_then(|member| member.user_info.as_deref().map(str::to_owned))
    };
    assert_eq!(info(other.join(as_user(ROOM, "ana", "1"))).as_deref(), Some("1"));
    assert_eq!(info(witness.join(as_user(ROOM, "ana", "2"))).as_deref(), Some("1"));
    other.leave(&as_user(ROOM, "ana", "1"));
    assert_eq!(info(other.join(as_user(ROOM, "ana", "3"))).as_deref(), Some("1"), "also when that one has left");
    fixture.fence(ROOM, &[&witness]);
    let told: Vec<_> = witness.heard_on(ROOM, start.position);
    let told = told.iter().filter_map(|d| match &d.happening {
        Happening::MemberAdded(member) => member.user_info.as_deref(),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), ["1"]);
}
