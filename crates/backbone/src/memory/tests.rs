//! What of this backbone the suite of all does not show: that everything is done when a call returns, and what is kept in memory.

use fulmar_protocol::exchange::{Ticket, UserNotice};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::UserId;

use super::*;
use crate::CachedEvent;

/// An inbox that keeps everything and can be told to have no room.
#[derive(Default)]
struct Heard {
    deliveries: Mutex<Vec<Arc<Delivery>>>,
    notices: Mutex<Vec<Arc<UserNotice>>>,
    is_full: std::sync::atomic::AtomicBool,
}

impl Inbox for Heard {
    fn has_room(&self) -> bool {
        !self.is_full.load(Ordering::SeqCst)
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        locked(&self.deliveries).push(delivery);
    }

    fn notice(&self, notice: Arc<UserNotice>) {
        locked(&self.notices).push(notice);
    }

    fn answer(&self, answer: Answer) {
        panic!("everything is answered at once, but {answer:?} came later");
    }
}

struct Node {
    memory: Memory,
    clock: Arc<ManualClock>,
    inboxes: Vec<Arc<Heard>>,
}

impl Node {
    fn new(workers: usize, cache_bytes_max: u64) -> Self {
        let clock = Arc::new(ManualClock::default());
        let memory = Memory::new(7, cache_bytes_max, Arc::clone(&clock) as _);
        let inboxes: Vec<Arc<Heard>> = (0..workers).map(|_| Arc::default()).collect();
        for (index, inbox) in inboxes.iter().enumerate() {
            assert_eq!(usize::from(memory.attach(Arc::clone(inbox) as _).0), index);
        }
        Self { memory, clock, inboxes }
    }

    fn heard(&self, worker: usize) -> Vec<Arc<Delivery>> {
        locked(&self.inboxes[worker].deliveries).clone()
    }

    fn join(&self, worker: u8, name: &str) -> Answer {
        self.memory.ask(WorkerId(worker), Question::Join(join(name, None))).expect("answered at once")
    }

    fn leave(&self, worker: u8, name: &str) {
        let leave = Leave { app: AppId::new("a"), channel: channel(name), user_id: None, counted: false };
        assert!(self.memory.ask(WorkerId(worker), Question::Leave(leave)).is_none());
    }

    /// Publishes without ever looking at the future.
    fn publish(&self, name: &str, text: &str, cache_for: Option<Duration>) {
        drop(self.memory.publish(vec![event(name, text, cache_for)], Terms::default()));
    }

    fn cached(&self, name: &str) -> Option<CachedEvent> {
        self.memory.cached(&AppId::new("a"), &channel(name))
    }
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, 200).expect("a valid name")
}

fn event(name: &str, text: &str, cache_for: Option<Duration>) -> Publication {
    let frame = Frame::new(text);
    Publication { app: AppId::new("a"), channel: channel(name), frame, except: None, cache_for }
}

fn join(name: &str, user: Option<&str>) -> Join {
    let member = |id| Member { user_id: UserId::parse(id, 100).expect("a valid id"), user_info: None };
    Join {
        ticket: Ticket { session: 1, number: 2 },
        app: AppId::new("a"),
        channel: channel(name),
        member: user.map(member),
        members_max: 10,
        counted: false,
    }
}

const LONG: Option<Duration> = Some(Duration::from_secs(60));

/// DEL-1
#[test]
fn publishing_has_happened_when_the_call_returns_and_all_workers_share_one_delivery() {
    let node = Node::new(3, 1 << 20);
    node.join(0, "room");
    node.join(2, "room");
    node.publish("room", "hello", None);
    let (first, third) = (node.heard(0), node.heard(2));
    assert!(Arc::ptr_eq(&first[0], &third[0]));
    assert_eq!((first.len(), third.len(), node.heard(1).len()), (1, 1, 0));
    assert_eq!(first[0].identity.origin, 7);
}

/// DEL-15
#[test]
fn an_empty_channel_takes_no_memory_and_its_worker_hears_nothing_more() {
    let node = Node::new(2, 1 << 20);
    for n in 0..10_000 {
        node.join(n as u8 % 2, &format!("room-{n}"));
    }
    assert_eq!(node.memory.figures().channels, 10_000);
    for n in 0..10_000 {
        node.leave(n as u8 % 2, &format!("room-{n}"));
    }
    assert_eq!(node.memory.figures(), Figures::default());
    node.publish("room-0", "to nobody", None);
    assert_eq!(node.heard(0).len(), 0);
    let capacity: usize = node.memory.stripes.iter().map(|s| locked(&s.0).channels.capacity()).sum();
    assert!(capacity <= STRIPES * SHRINK_BELOW * SHRINK_BELOW, "tables shrink: {capacity}");
}

/// DEL-3
#[test]
fn positions_go_on_rising_when_a_channel_was_empty_in_between() {
    let node = Node::new(1, 1 << 20);
    let position = |answer| match answer {
        Answer::Joined { position, .. } => position,
        other => panic!("it is accepted, but {other:?}"),
    };
    node.join(0, "room");
    node.publish("room", "one", None);
    node.leave(0, "room");
    let again = position(node.join(0, "room"));
    assert_eq!(again, node.heard(0)[0].position, "what was heard before is not later than the new subscription");
    node.publish("room", "two", None);
    assert!(node.heard(0)[1].position > again);
}

/// WS-108
#[test]
fn the_oldest_cached_events_go_when_all_of_them_weigh_too_much() {
    let text = "x".repeat(1_000);
    let node = Node::new(1, 4 * weight(1_004, 7));
    for n in 1..=4 {
        node.publish(&format!("cache-{n}"), &text, LONG);
    }
    node.publish("cache-1", &text, LONG);
    assert_eq!(node.memory.figures().cache_evicted, 0, "replacing an event takes its room");
    node.publish("cache-5", &text, LONG);
    let kept: Vec<bool> = (1..=5).map(|n| node.cached(&format!("cache-{n}")).is_some()).collect();
    assert_eq!(kept, [true, false, true, true, true], "cache-1 was renewed, so cache-2 was the oldest");
    let figures = node.memory.figures();
    assert_eq!((figures.cache_evicted, figures.cached_events, figures.channels), (1, 4, 4));
    node.publish("cache-6", &"x".repeat(10_000), LONG);
    let figures = node.memory.figures();
    assert_eq!((figures.cached_events, figures.cached_bytes), (0, 0), "what cannot fit is not kept at all");
}

/// WS-94
#[test]
fn lapsed_events_are_cleared_away_by_whatever_happens_next() {
    let node = Node::new(1, 1 << 20);
    for n in 0..20 {
        node.publish(&format!("cache-{n}"), "kept", LONG);
    }
    node.join(0, "cache-0");
    node.clock.pass(Duration::from_secs(60));
    assert!(node.cached("cache-0").is_none());
    for _ in 0..3 {
        node.publish("elsewhere", "anything", None);
    }
    let figures = node.memory.figures();
    assert_eq!((figures.cached_events, figures.cached_bytes, figures.cache_evicted), (0, 0, 0));
    assert_eq!(figures.channels, 1, "the one with a subscriber");
    node.publish("cache-0", "gone at once", Some(Duration::ZERO));
    assert!(node.cached("cache-0").is_none());
}

/// DEL-9
#[test]
fn refusals_and_leaves_of_strangers_are_counted() {
    let node = Node::new(2, 1 << 20);
    node.join(0, "room");
    node.inboxes[0].is_full.store(true, Ordering::SeqCst);
    node.publish("room", "refused", None);
    let said = node.memory.ask(WorkerId(1), Question::Publish(event("room", "refused", None)));
    assert!(said.is_none());
    node.leave(1, "room");
    let figures = node.memory.figures();
    assert_eq!((figures.publishes_refused, figures.client_events_refused, figures.leaves_ignored), (1, 1, 1));
    assert_eq!(node.heard(0).len(), 0);
}

/// DEL-9
#[test]
fn member_changes_come_whatever_the_room() {
    let node = Node::new(1, 1 << 20);
    node.inboxes[0].is_full.store(true, Ordering::SeqCst);
    let joined = node.memory.ask(WorkerId(0), Question::Join(join("presence-room", Some("ana"))));
    assert!(matches!(joined, Some(Answer::Joined { .. })));
    assert!(matches!(node.heard(0)[0].happening, Happening::MemberAdded(_)));
}

/// DEL-8
#[test]
fn a_worker_nobody_attached_is_refused() {
    let node = Node::new(1, 1 << 20);
    let refused = node.join(9, "room");
    assert!(matches!(refused, Answer::JoinRefused { why: JoinRefusal::Unavailable, .. }));
    assert_eq!(node.memory.figures().channels, 0);
}

/// DEL-2
#[test]
fn a_worker_that_panics_while_it_listens_does_not_stop_the_others() {
    struct Broken;
    impl Inbox for Broken {
        fn has_room(&self) -> bool {
            true
        }
        fn deliver(&self, _: Arc<Delivery>) {
            panic!("a defect of this worker");
        }
        fn notice(&self, _: Arc<UserNotice>) {}
        fn answer(&self, _: Answer) {}
    }
    let node = Node::new(1, 1 << 20);
    let broken = node.memory.attach(Arc::new(Broken));
    node.join(0, "room");
    node.join(broken.0, "room");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| node.publish("room", "one", None)));
    assert!(caught.is_err());
    node.leave(broken.0, "room");
    node.publish("room", "two", None);
    assert_eq!(node.heard(0).len(), 2);
}
