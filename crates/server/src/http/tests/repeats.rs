//! `Idempotency-Key`.

use std::sync::Arc;
use std::time::Duration;

use fulmar_backbone::PublishError;
use hyper::{Method, StatusCode};
use tokio::sync::Notify;

use super::{Gate, Given, World};

/// HTTP-48
#[tokio::test]
async fn a_repeated_call_is_answered_as_the_first_and_publishes_nothing() {
    let world = World::new();
    world.follow("a", None);
    let body = r#"{"name":"e","channel":"a","data":"x","info":"subscription_count"}"#;
    let keyed = || {
        let mut request = world.signed(Method::POST, "/apps/3/events", &[], body);
        request.headers_mut().insert("idempotency-key", "k".parse().expect("a header"));
        request
    };
    let first = world.send(keyed()).await;
    first.expect(200, r#"{"channels":{"a":{"subscription_count":1}}}"#);
    assert_eq!(first.header("idempotent-replayed"), None);
    world.follow("a", None);
    // Signed anew, as a retry is: that alone makes it no other call.
    world.pass(Duration::from_secs(119));
    let again = world.send(keyed()).await;
    again.expect(200, r#"{"channels":{"a":{"subscription_count":1}}}"#);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(world.heard().len(), 1);
    world.pass(Duration::from_secs(1));
    world.send(keyed()).await.expect(200, r#"{"channels":{"a":{"subscription_count":2}}}"#);
    assert_eq!(world.heard().len(), 1);
}

/// HTTP-48
#[tokio::test]
async fn batches_and_the_deprecated_form_are_remembered_too() {
    let world = World::new();
    let batch = r#"{"batch":[{"channel":"a","name":"e","data":"x"}]}"#;
    for (path, params, body, status) in
        [("/apps/3/batch_events", &[][..], batch, 200), ("/apps/3/channels/a/events", &[("name", "e")], "x", 202)]
    {
        let before = world.backbone.publishes();
        for replayed in [None, Some("true")] {
            let mut request = world.signed(Method::POST, path, params, body);
            request.headers_mut().insert("idempotency-key", path.parse().expect("a header"));
            let said = world.send(request).await;
            said.expect(status, "{}");
            assert_eq!(said.header("idempotent-replayed"), replayed);
        }
        assert_eq!(world.backbone.publishes(), before + 1);
    }
}

/// HTTP-49
#[tokio::test]
async fn a_key_has_1_to_128_bytes() {
    let world = World::new();
    assert_eq!(world.keyed(&"k".repeat(128), "x").await.status, StatusCode::OK);
    for bad in [String::new(), "k".repeat(129)] {
        world.keyed(&bad, "x").await.expect(400, "The Idempotency-Key header must be 1 to 128 bytes\n");
    }
    assert_eq!(world.backbone.publishes(), 1);
}

/// HTTP-50
#[tokio::test]
async fn a_refused_call_frees_its_key_at_once() {
    let world = World::new();
    world.backbone.set(Gate::Broken);
    assert_eq!(world.keyed("k", "x").await.status, StatusCode::SERVICE_UNAVAILABLE);
    world.backbone.set(Gate::Open);
    assert_eq!(world.keyed("k", &"x".repeat(10_241)).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let said = world.keyed("k", "x").await;
    assert_eq!((said.status, said.header("idempotent-replayed")), (StatusCode::OK, None));
}

/// HTTP-50
#[tokio::test]
async fn calls_that_arrive_while_the_first_is_in_progress_share_its_answer() {
    let world = Arc::new(World::new());
    world.follow("a", None);
    let opened = Arc::new(Notify::new());
    world.backbone.set(Gate::Closed(Arc::clone(&opened), Ok(())));
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.keyed("k", "x").await })
        })
        .collect();
    while world.backbone.publishes() == 0 {
        tokio::task::yield_now().await;
    }
    let other = world.keyed("k", "y").await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    opened.notify_one();
    let mut replayed = 0;
    for call in calls {
        let said = call.await.expect("no panic");
        said.expect(200, "{}");
        replayed += usize::from(said.header("idempotent-replayed").is_some());
    }
    assert_eq!((replayed, world.backbone.publishes(), world.heard().len()), (19, 1, 1));
}

/// HTTP-50
#[tokio::test]
async fn when_the_first_call_fails_one_of_those_waiting_takes_its_place() {
    let world = Arc::new(World::new());
    world.follow("a", None);
    let opened = Arc::new(Notify::new());
    world.backbone.set(Gate::Closed(Arc::clone(&opened), Err(PublishError::NotAccepted)));
    let call = |world: &Arc<World>| {
        let world = Arc::clone(world);
        tokio::spawn(async move { world.keyed("k", "x").await })
    };
    let calls = [call(&world), call(&world), call(&world)];
    while world.backbone.publishes() == 0 {
        tokio::task::yield_now().await;
    }
    world.backbone.set(Gate::Open);
    opened.notify_one();
    let mut said = Vec::new();
    for call in calls {
        let answer = call.await.expect("no panic");
        said.push((answer.status.as_u16(), answer.header("idempotent-replayed").is_some()));
    }
    said.sort_unstable();
    assert_eq!(said, [(200, false), (200, true), (503, false)]);
    assert_eq!((world.backbone.publishes(), world.heard().len()), (2, 1));
}

/// HTTP-50
#[tokio::test]
async fn a_caller_that_hangs_up_does_not_free_the_key_of_what_is_being_published() {
    let world = Arc::new(World::new());
    world.follow("a", None);
    let opened = Arc::new(Notify::new());
    world.backbone.set(Gate::Closed(Arc::clone(&opened), Ok(())));
    let first = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.keyed("k", "x").await }
    });
    while world.backbone.publishes() == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.is_err());
    opened.notify_one();
    let said = world.keyed("k", "x").await;
    assert_eq!((said.status, said.header("idempotent-replayed")), (StatusCode::OK, Some("true")));
    assert_eq!(world.heard().len(), 1);
}

/// HTTP-51
#[tokio::test]
async fn a_key_is_good_for_one_call_only() {
    let world = World::new();
    assert_eq!(world.keyed("k", "x").await.status, StatusCode::OK);
    world.keyed("k", "y").await.expect(
        422,
        "This Idempotency-Key was used for a different call in the last 120 seconds; give each call a key of its own\n",
    );
    assert_eq!(world.backbone.publishes(), 1);
}

/// HTTP-52
#[tokio::test]
async fn the_oldest_key_is_forgotten_first_and_that_is_counted() {
    let world = World::with(Given { idempotency_keys_max: 2, ..Given::default() });
    for key in ["a", "b", "c"] {
        assert_eq!(world.keyed(key, "x").await.status, StatusCode::OK);
    }
    assert_eq!(world.api.idempotency_forgotten_early(), 1);
    assert_eq!(world.keyed("b", "x").await.header("idempotent-replayed"), Some("true"));
    assert_eq!(world.keyed("a", "x").await.header("idempotent-replayed"), None);
}

/// HTTP-52
#[tokio::test]
async fn with_no_room_for_keys_the_header_means_nothing() {
    let world = World::with(Given { idempotency_keys_max: 0, ..Given::default() });
    for _ in 0..2 {
        assert_eq!(world.keyed("k", "x").await.header("idempotent-replayed"), None);
    }
    assert_eq!(world.backbone.publishes(), 2);
}
