//! Lines, streams and polls, with a clock that the tests move and nobody behind the inbox.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use fulmar_protocol::close::CloseCode;
use fulmar_protocol::frame::Frame;
use fulmar_protocol::websocket;
use http_body_util::BodyExt;
use hyper::Response;
use mio::{Token, Waker};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use super::answer::{AnyBody, poll, stream};
use super::frames::{PRELUDE_BYTES, STREAM_UNITS_MAX, message};
use super::line::{Line, Receiver, Signal, WorkerEnd};
use super::sessions::{Found, Sessions};
use crate::http::clock::Clock;
use crate::inbox::{Message, WorkerInbox};

/// One session, its worker's end, and what the worker would be told.
struct World {
    now_ms: Arc<AtomicU64>,
    sessions: Arc<Sessions>,
    inbox: Arc<WorkerInbox>,
    line: Arc<Line>,
    worker: WorkerEnd,
    first: Option<Receiver>,
    cut: Arc<Notify>,
    _poll: mio::Poll,
}

const NAME: &str = "key/1/abcdefgh";

impl World {
    fn new() -> Self {
        let now_ms = Arc::new(AtomicU64::new(1_000_000));
        let clock = Clock::Manual(now_ms.clone());
        let poll = mio::Poll::new().expect("the system polls");
        let inbox = Arc::new(WorkerInbox::new(Waker::new(poll.registry(), Token(0)).expect("a waker"), 1));
        let (sessions, cut) = (Sessions::new(clock.clone()), Arc::new(Notify::new()));
        let open = || Ok::<_, ()>((Line::new(inbox.clone(), clock.clone()), ()));
        let Ok(Found::New(line, first, ())) = sessions.receive(NAME, &cut, open) else {
            panic!("nobody used the name")
        };
        let worker = WorkerEnd::new(line.clone());
        Self { now_ms, sessions, inbox, line, worker, first: Some(first), cut, _poll: poll }
    }

    fn wait(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
        self.sessions.sweep_once();
    }

    /// The first receive request, then others.
    fn receive(&mut self) -> Receiver {
        let first = self.first.take();
        first.or_else(|| self.line.receive(&self.cut)).expect("the session goes on")
    }

    /// Whether a receive request by name finds that the session has ended.
    fn has_ended(&self) -> bool {
        let open = || Err::<(Arc<Line>, ()), ()>(());
        matches!(self.sessions.receive(NAME, &self.cut, open), Ok(Found::Ended))
    }

    fn say(&mut self, text: &str) {
        let frame = Frame::new(text);
        assert_eq!(self.worker.write(frame.bytes()).expect("the line has room"), frame.len());
    }

    fn close(&mut self) {
        self.worker.write(&websocket::close(CloseCode::RECONNECT, "later")).expect("a close has room");
    }

    fn told(&self) -> Vec<&'static str> {
        let mut messages = Default::default();
        self.inbox.take(&mut messages);
        let name = |message: &Message| match message {
            Message::Fallback(_, Signal::Gone) => "gone",
            Message::Fallback(_, Signal::Room) => "room",
            Message::Fallback(..) => "other",
            _ => panic!("only the session speaks"),
        };
        messages.iter().map(name).collect()
    }
}

/// The next piece of a body, `None` at its end.
async fn next(answer: &mut Response<AnyBody>) -> Option<String> {
    let piece = answer.body_mut().frame().await?.expect("these bodies never fail");
    Some(String::from_utf8(piece.into_data().expect("no trailers").to_vec()).expect("text"))
}

/// Whether there is nothing yet.
async fn is_silent(answer: &mut Response<AnyBody>) -> bool {
    let mut piece = pin!(answer.body_mut().frame());
    poll_fn(|context| Poll::Ready(piece.as_mut().poll(context).is_pending())).await
}

async fn whole(answer: Response<AnyBody>) -> String {
    assert_eq!(answer.status(), 200);
    let bytes = answer.into_body().collect().await.expect("these bodies never fail").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn prelude() -> String {
    "h".repeat(PRELUDE_BYTES) + "\n"
}

/// FB-8
#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_a_prelude_and_o_and_ends_with_its_session() {
    let mut world = World::new();
    let mut answer = stream(world.receive());
    assert_eq!(answer.headers()["content-type"], "application/javascript; charset=UTF-8");
    assert_eq!(next(&mut answer).await, Some(prelude() + "o\n"));
    assert!(is_silent(&mut answer).await);
    world.say("one");
    world.say("two");
    assert_eq!(next(&mut answer).await, Some(message("one") + &message("two")));
    world.close();
    assert_eq!(next(&mut answer).await.as_deref(), Some("c[4200,\"later\"]\n"));
    assert_eq!(next(&mut answer).await, None);
    drop(answer);
    assert!(world.told().is_empty(), "nobody broke anything off");
}

/// FB-9
#[tokio::test(start_paused = true)]
async fn a_stream_carries_a_heartbeat_every_25_seconds() {
    let mut world = World::new();
    let mut answer = stream(world.receive());
    next(&mut answer).await;
    let start = Instant::now();
    for beats in 1..=3 {
        assert_eq!(next(&mut answer).await.as_deref(), Some("h\n"));
        assert_eq!(start.elapsed().as_secs(), 25 * beats);
    }
}

/// FB-10, FB-12
#[tokio::test(start_paused = true)]
async fn a_stream_falls_silent_where_the_client_breaks_it_off_and_the_next_goes_on_without_loss() {
    let mut world = World::new();
    let mut answer = stream(world.receive());
    let mut read = next(&mut answer).await.expect("the start");
    // Two bytes but one unit each, and four bytes for two.
    let text = "\u{e9}\u{1f989}".repeat(500);
    let mut said = 0;
    while !is_silent_after(&mut world, &mut answer, &mut read, &format!("{said} {text}")).await {
        said += 1;
    }
    let length = read.encode_utf16().count();
    let last = message(&format!("{} {text}", said - 1));
    assert!(length > STREAM_UNITS_MAX && length - last.encode_utf16().count() <= STREAM_UNITS_MAX, "{length}");
    assert!(read.ends_with(&last), "what was said last is still waiting, and what was said before is there");
    tokio::time::advance(Duration::from_secs(50)).await;
    assert!(is_silent(&mut answer).await, "a heartbeat could be lost with the rest");

    let mut second = stream(world.receive());
    assert_eq!(next(&mut answer).await, None, "the older one ends");
    drop(answer);
    assert_eq!(next(&mut second).await, Some(prelude()), "no second o");
    assert_eq!(next(&mut second).await, Some(message(&format!("{said} {text}"))));
    assert!(world.told().iter().all(|told| *told == "room"));
}

/// Says `text` and reads on; answers whether it is not there.
async fn is_silent_after(world: &mut World, answer: &mut Response<AnyBody>, read: &mut String, text: &str) -> bool {
    world.say(text);
    let is_silent = is_silent(answer).await;
    if !is_silent {
        // It was taken by the look: say how it must have been.
        read.push_str(&message(text));
    }
    is_silent
}

/// FB-11
#[tokio::test(start_paused = true)]
async fn a_poll_brings_o_then_what_waits_then_what_comes_and_h_when_nothing_does() {
    let mut world = World::new();
    assert_eq!(whole(poll(world.receive()).await).await, "o\n");
    world.say("one");
    world.say("two");
    assert_eq!(whole(poll(world.receive()).await).await, message("one") + &message("two"));
    let start = Instant::now();
    assert_eq!(whole(poll(world.receive()).await).await, "h\n");
    assert_eq!(start.elapsed().as_secs(), 25);
    let receiver = world.receive();
    let held = async { whole(poll(receiver).await).await };
    let (answer, ()) = tokio::join!(held, async { world.say("three") });
    assert_eq!(answer, message("three"));
    world.close();
    assert_eq!(whole(poll(world.receive()).await).await, "c[4200,\"later\"]\n");
    assert!(world.line.receive(&world.cut).is_none() && world.told().is_empty());
}

/// FB-12
#[tokio::test(start_paused = true)]
async fn of_two_polls_the_older_one_is_answered_h_and_the_newer_one_receives() {
    let mut world = World::new();
    assert_eq!(whole(poll(world.receive()).await).await, "o\n");
    let (older, newer) = (world.receive(), world.receive());
    world.say("one");
    let start = Instant::now();
    assert_eq!(whole(poll(older).await).await, "h\n");
    assert_eq!(whole(poll(newer).await).await, message("one"));
    assert!(start.elapsed().is_zero() && world.told().is_empty());
}

/// FB-13, FB-17
#[tokio::test(start_paused = true)]
async fn a_stream_or_poll_that_is_broken_off_ends_the_session_at_once() {
    for is_stream in [true, false] {
        let mut world = World::new();
        if is_stream {
            let mut answer = stream(world.receive());
            next(&mut answer).await;
        } else {
            assert_eq!(whole(poll(world.receive()).await).await, "o\n");
            assert!(world.told().is_empty(), "an answer that was complete is no end");
            drop(world.receive());
        }
        assert_eq!(world.told(), ["gone"]);
        assert!(world.has_ended());
        world.wait(1_000);
        assert!(world.has_ended(), "also when the line is forgotten");
        assert!(world.sessions.find(NAME).is_none());
        world.wait(121_000);
        assert!(!world.has_ended(), "the name is not remembered for ever");
    }
}

/// FB-14
#[tokio::test(start_paused = true)]
async fn a_session_ends_30_seconds_after_its_last_poll() {
    let mut world = World::new();
    assert_eq!(whole(poll(world.receive()).await).await, "o\n");
    world.wait(29_999);
    assert!(world.told().is_empty());
    world.say("one");
    assert_eq!(whole(poll(world.receive()).await).await, message("one"));
    world.wait(29_999);
    assert!(world.told().is_empty());
    world.line.receive(&world.cut).expect("the session goes on").finish();
    world.wait(30_000);
    assert_eq!(world.told(), ["gone"]);
    assert!(world.has_ended());
}

/// FB-10, FB-14
#[tokio::test(start_paused = true)]
async fn a_client_that_never_asks_for_the_next_stream_is_given_up() {
    let mut world = World::new();
    let mut answer = stream(world.receive());
    next(&mut answer).await;
    world.say(&"x".repeat(STREAM_UNITS_MAX));
    next(&mut answer).await;
    world.wait(59_999);
    assert!(world.told().is_empty());
    world.wait(1);
    assert_eq!(world.told(), ["gone"]);
    assert_eq!(next(&mut answer).await, None);
    // Whoever serves the connection is told, because the peer may never read what was written.
    world.cut.notified().await;
}

/// FB-14
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_the_end_of_its_session_is_given_up() {
    let mut world = World::new();
    let mut answer = stream(world.receive());
    next(&mut answer).await;
    world.close();
    world.wait(0);
    world.wait(9_999);
    assert!(world.sessions.find(NAME).is_some());
    world.wait(1);
    assert!(world.sessions.find(NAME).is_none() && world.has_ended());
    world.cut.notified().await;
}

/// FB-16
#[tokio::test(start_paused = true)]
async fn a_full_line_takes_no_more_until_it_is_read_but_always_a_close() {
    let mut world = World::new();
    let mut answer = stream(world.receive());
    next(&mut answer).await;
    let frame = Frame::new(&"x".repeat(10_000));
    let taken = (0..100).take_while(|_| world.worker.write(frame.bytes()).is_ok()).count();
    assert!((6..10).contains(&taken), "{taken}");
    assert!(world.told().is_empty());
    assert_eq!(next(&mut answer).await.map(|read| read.len() / 10_000), Some(taken));
    assert_eq!(world.told(), ["room"]);
    while world.worker.write(frame.bytes()).is_ok() {}
    world.worker.begin_close();
    world.say("the reason");
    world.close();
    let read = next(&mut answer).await.expect("what waits");
    assert!(read.ends_with(&(message("the reason") + "c[4200,\"later\"]\n")));
    assert_eq!(next(&mut answer).await, None);
}

/// FB-5
#[tokio::test(start_paused = true)]
async fn a_worker_that_ends_without_a_word_sends_the_client_elsewhere() {
    let mut world = World::new();
    let mut answer = stream(world.receive());
    next(&mut answer).await;
    let World { worker, .. } = world;
    drop(worker);
    assert!(next(&mut answer).await.expect("a close").starts_with("c[4200,"));
    assert_eq!(next(&mut answer).await, None);
}
