//! How much an app may publish per second.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fulmar_backbone::PublishError;
use fulmar_protocol::app::App;
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use tokio::sync::Notify;

use super::super::OwnCall;
use super::{Gate, Given, KEY, SECRET, Said, World};

const EVENTS: &str = "/apps/3/events";
const BATCH: &str = "/apps/3/batch_events";
const ONE: &str = r#"{"name":"e","channel":"a","data":"x"}"#;

/// The app of the tests, which may publish so much.
fn app(per_s: Option<u32>) -> App {
    let mut app = App::new("3", KEY, SECRET);
    app.limits.publishes_per_s_max = per_s;
    app
}

fn world(per_s: u32) -> World {
    let world = World::with(Given { app: app(Some(per_s)), ..Given::default() });
    world.follow("a", None);
    world
}

/// An event to so many channels.
fn to_channels(count: usize) -> String {
    let names: Vec<String> = (0..count).map(|n| format!("\"c{n}\"")).collect();
    format!(r#"{{"name":"e","channels":[{}],"data":"x"}}"#, names.join(","))
}

/// How many calls pass of as many as one second might allow, and a few.
async fn passing(world: &World) -> usize {
    let mut passed = 0;
    for _ in 0..20 {
        passed += usize::from(world.post(EVENTS, ONE).await.status == StatusCode::OK);
    }
    passed
}

#[track_caller]
fn expect_over_rate(said: &Said, text: &str) {
    said.expect(503, text);
    assert_eq!(said.header("retry-after"), Some("1"));
}

/// HTTP-71, HTTP-46
#[tokio::test]
async fn as_many_events_as_an_app_may_publish_pass_and_the_next_is_refused_and_reaches_nobody() {
    let world = world(3);
    for _ in 0..3 {
        world.post(EVENTS, ONE).await.expect(200, "{}");
    }
    let text = "The app may publish 3 events per second (publishes_per_s_max), and has no room for those of this call now. None \
                of them was published: try it again in a second\n";
    expect_over_rate(&world.post(EVENTS, ONE).await, text);
    assert_eq!((world.heard().len(), world.backbone.publishes()), (3, 3));
    world.pass(Duration::from_millis(333));
    expect_over_rate(&world.post(EVENTS, ONE).await, text);
    world.pass(Duration::from_millis(1));
    world.post(EVENTS, ONE).await.expect(200, "{}");
    world.pass(Duration::from_secs(60));
    assert_eq!(passing(&world).await, 3, "what was not used is not saved up");
    assert_eq!(world.api.rates().refused(|_| true), [("3".to_owned(), 19)].into());
    assert!(world.api.rates().refused(|_| false).is_empty(), "an app that is gone has no figure");
}

/// HTTP-71, HTTP-33
#[tokio::test]
async fn an_event_counts_once_for_each_channel_and_a_call_goes_as_a_whole_or_not_at_all() {
    let world = world(10);
    let twice = r#"{"name":"e","channels":["a","b","a","c"],"data":"x"}"#;
    world.post(EVENTS, twice).await.expect(200, "{}");
    let batch = |count| {
        let events = vec![r#"{"channel":"a","name":"e","data":"x"}"#; count];
        format!(r#"{{"batch":[{}]}}"#, events.join(","))
    };
    world.post(BATCH, &batch(4)).await.expect(200, "{}");
    world.call(Method::POST, "/apps/3/channels/a/events", &[("name", "e")], "x").await.expect(202, "{}");
    let (heard, publishes) = (world.heard().len(), world.backbone.publishes());
    assert_eq!((heard, publishes), (6, 3));
    for (path, body) in [(EVENTS, to_channels(3)), (BATCH, batch(3))] {
        assert_eq!(world.post(path, &body).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!((world.heard().len(), world.backbone.publishes()), (0, 3));
    world.post(BATCH, &batch(2)).await.expect(200, "{}");
    assert_eq!(passing(&world).await, 0);
}

/// HTTP-71, OPS-37: an operator and the demo page publish through the same door.
#[tokio::test]
async fn what_is_published_in_the_app_s_name_counts_as_well() {
    let world = world(1);
    let (headers, body) = (HeaderMap::new(), Bytes::from_static(ONE.as_bytes()));
    let publish = || {
        let call = OwnCall { method: Method::POST, below: "/events", params: &[], headers: &headers, body: &body };
        world.api.call_for(&world.app, call)
    };
    assert_eq!(publish().await.status, StatusCode::OK);
    assert_eq!(publish().await.status, StatusCode::SERVICE_UNAVAILABLE);
}

/// HTTP-71
#[tokio::test]
async fn nothing_else_that_is_asked_counts_and_no_call_that_is_refused() {
    let world = world(1);
    world.get("/apps/3/channels", &[]).await.expect(200, r#"{"channels":{"a":{}}}"#);
    world.post("/apps/3/users/u/terminate_connections", "").await.expect(200, "{}");
    assert_eq!(world.post(EVENTS, r#"{"name":"e","channel":"a b","data":"x"}"#).await.status, StatusCode::BAD_REQUEST);
    world.post(EVENTS, ONE).await.expect(200, "{}");
    assert_eq!(world.post(EVENTS, ONE).await.status, StatusCode::SERVICE_UNAVAILABLE);
    world.get("/apps/3/channels", &[]).await.expect(200, r#"{"channels":{"a":{}}}"#);
}

/// HTTP-71
#[tokio::test]
async fn a_call_that_is_larger_than_the_limit_goes_when_nothing_is_used_and_is_paid_off_afterwards() {
    let world = world(5);
    world.post(EVENTS, ONE).await.expect(200, "{}");
    let large = to_channels(20);
    assert_eq!(world.post(EVENTS, &large).await.status, StatusCode::SERVICE_UNAVAILABLE);
    world.pass(Duration::from_millis(200));
    world.post(EVENTS, &large).await.expect(200, "{}");
    world.pass(Duration::from_millis(3_199));
    assert_eq!(passing(&world).await, 0, "15 are owed");
    world.pass(Duration::from_millis(1));
    assert_eq!(passing(&world).await, 1);
}

/// HTTP-71, HTTP-50, HTTP-48
#[tokio::test]
async fn a_key_whose_call_was_refused_is_free_and_a_repeat_that_publishes_nothing_takes_nothing() {
    let world = world(1);
    assert_eq!(world.keyed("first", "x").await.status, StatusCode::OK);
    let refused = world.keyed("second", "y").await;
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("1")));
    let replayed = world.keyed("first", "x").await;
    assert_eq!((replayed.status, replayed.header("idempotent-replayed")), (StatusCode::OK, Some("true")));
    world.pass(Duration::from_secs(1));
    let second = world.keyed("second", "y").await;
    assert_eq!((second.status, second.header("idempotent-replayed")), (StatusCode::OK, None));
    assert_eq!(world.heard().len(), 2);
}

/// HTTP-71
#[tokio::test]
async fn what_surely_reached_nobody_is_not_counted_and_what_may_have_reached_somebody_is() {
    let world = world(1);
    world.backbone.set(Gate::Broken);
    let telling = r#"{"name":"e","channel":"a","data":"x","info":"subscription_count"}"#;
    let text = "The server cannot take this now, try again\n";
    for body in [ONE, telling] {
        world.post(EVENTS, body).await.expect(503, text);
    }
    world.keyed("k", "x").await.expect(503, text);
    world.backbone.set(Gate::Open);
    world.post(EVENTS, ONE).await.expect(200, "{}");
    world.pass(Duration::from_secs(1));
    let opened = Arc::new(Notify::new());
    opened.notify_one();
    world.backbone.set(Gate::Closed(opened, Err(PublishError::Unknown { left: Vec::new() })));
    world.post(EVENTS, ONE).await.expect(503, text);
    world.backbone.set(Gate::Open);
    assert_eq!(passing(&world).await, 0);
}

/// HTTP-71, OPS-6
#[tokio::test]
async fn a_limit_that_is_changed_holds_from_the_next_call_on() {
    let world = world(1);
    assert_eq!(passing(&world).await, 1);
    world.apps.replace(vec![app(None)]);
    assert_eq!(passing(&world).await, 20);
    world.apps.replace(vec![app(Some(4))]);
    world.pass(Duration::from_secs(1));
    assert_eq!(passing(&world).await, 4);
    world.apps.replace(vec![app(Some(2))]);
    world.pass(Duration::from_secs(9));
    assert_eq!(passing(&world).await, 2);
}

/// NODE-22
#[tokio::test]
async fn a_node_admits_its_share_of_the_limit_and_says_how_many_divide_it() {
    let world = world(9);
    world.api.rates().divide_among(3);
    assert_eq!(passing(&world).await, 3);
    let text = "The app may publish 9 events per second (publishes_per_s_max), which 3 nodes divide among them, and has no room \
                for those of this call now. None of them was published: try it again in a second\n";
    expect_over_rate(&world.post(EVENTS, ONE).await, text);
    world.api.rates().divide_among(1);
    world.pass(Duration::from_secs(1));
    assert_eq!(passing(&world).await, 9, "the others are gone");
    world.api.rates().divide_among(100);
    world.pass(Duration::from_secs(1));
    assert_eq!(passing(&world).await, 1, "a node that refuses everything helps nobody");
}
