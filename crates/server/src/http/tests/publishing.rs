//! `events`, `batch_events` and the deprecated form.

use std::sync::Arc;
use std::time::Duration;

use fulmar_backbone::PublishError;
use fulmar_protocol::name::ChannelName;
use hyper::Method;
use tokio::sync::Notify;

use super::{Gate, Given, World};

const EVENTS: &str = "/apps/3/events";
const BATCH: &str = "/apps/3/batch_events";

/// HTTP-22, HTTP-2
#[tokio::test]
async fn an_event_reaches_its_channels_and_is_answered_with_an_empty_object() {
    let world = World::new();
    world.follow("a", None);
    world.follow("b", None);
    world.post(EVENTS, r#"{"name":"e","channels":["a","b","a"],"data":"{\"x\":1}"}"#).await.expect(200, "{}");
    assert_eq!(
        world.heard(),
        [r#"{"event":"e","channel":"a","data":"{\"x\":1}"}"#, r#"{"event":"e","channel":"b","data":"{\"x\":1}"}"#,]
    );
}

/// HTTP-22, HTTP-23, HTTP-24, HTTP-27, T-36, T-37, T-38
#[tokio::test]
async fn what_real_libraries_send_is_taken() {
    let world = World::new();
    for channel in ["a", "#server-to-user-u-42", "private-encrypted-x"] {
        world.follow(channel, None);
    }
    let table = [
        (r#"{"name":"e","channel":"a","data":"x"}"#, r#"{"event":"e","channel":"a","data":"x"}"#),
        (r#"{"name":"e","channels":["a"],"data":""}"#, r#"{"event":"e","channel":"a","data":""}"#),
        (
            r#"{"name":"App\\Events\\OrderShipped","channels":["a"],"data":"x"}"#,
            r#"{"event":"App\\Events\\OrderShipped","channel":"a","data":"x"}"#,
        ),
        (
            r##"{"name":"hello","channels":["#server-to-user-u-42"],"data":"{}"}"##,
            r##"{"event":"hello","channel":"#server-to-user-u-42","data":"{}"}"##,
        ),
        (
            r##"{"name":"hello","channel":"#server-to-user-u-42","data":"{}"}"##,
            r##"{"event":"hello","channel":"#server-to-user-u-42","data":"{}"}"##,
        ),
        (
            r#"{"name": "e", "channels": ["a"], "data": "\u00fc \u2603", "socket_id": null, "info": null}"#,
            r#"{"event":"e","channel":"a","data":"\u00fc \u2603"}"#,
        ),
        (
            r#"{"name":"e","channels":["private-encrypted-x"],"data":"not JSON"}"#,
            r#"{"event":"e","channel":"private-encrypted-x","data":"not JSON"}"#,
        ),
        (
            r#"{"name":"e","channel":"a","data":"x","socket_id":"1.2","unknown":[1]}"#,
            r#"{"event":"e","channel":"a","data":"x"}"#,
        ),
    ];
    for (body, frame) in table {
        world.post(EVENTS, body).await.expect(200, "{}");
        assert_eq!(world.heard(), [frame], "{body}");
    }
}

/// HTTP-4
#[tokio::test]
async fn parameters_may_stand_in_the_query() {
    let world = World::new();
    world.follow("a", None);
    let params = [("name", "foo"), ("data", "x y&z"), ("channels[]", "a"), ("channels[]", "b")];
    world.call(Method::POST, EVENTS, &params, "").await.expect(200, "{}");
    assert_eq!(world.heard(), [r#"{"event":"foo","channel":"a","data":"x y&z"}"#]);
}

/// HTTP-3, HTTP-23, HTTP-24, HTTP-26, HTTP-27, HTTP-28, HTTP-29
#[tokio::test]
async fn a_bad_call_is_refused_with_a_sentence_and_reaches_nobody() {
    let world = World::new();
    world.follow("a", None);
    let many = format!(r#"{{"name":"e","data":"x","channels":[{}]}}"#, vec![r#""a""#; 101].join(","));
    let table = [
        (r#"{"channel":"a","data":"x"}"#, "Expected name parameter to be a string\n"),
        (r#"{"name":"e","channel":"a","data":{"x":1}}"#, "Expected data parameter to be a string\n"),
        (r#"{"name":"e","channel":"a"}"#, "Expected data parameter to be a string\n"),
        (
            r#"{"name":"pusher-notification","channel":"a","data":"x"}"#,
            "The 'pusher' namespace is reserved for internal usage\n",
        ),
        (
            r#"{"name":"e","channel":"a","data":"x","socket_id":"no"}"#,
            "Invalid socket_id: it must be two numbers joined by a dot\n",
        ),
        (r#"{"name":"e","data":"x"}"#, "Missing parameter: channels must name at least one channel\n"),
        (
            r#"{"name":"e","channels":["a","b c"],"data":"x"}"#,
            "Invalid channel name \"b c\": it contains the character ' ', which is not allowed\n",
        ),
        (&many, "The event names too many channels (at most 100 are allowed)\n"),
        ("[]", "Expected the request body, and each event of a batch, to be a JSON object\n"),
    ];
    for (body, text) in table {
        world.post(EVENTS, body).await.expect(400, text);
    }
    assert_eq!((world.heard().len(), world.backbone.publishes()), (0, 0));
}

/// HTTP-25, HTTP-8, T-41
#[tokio::test]
async fn data_is_measured_decoded_and_in_bytes() {
    let world = World::new();
    world.follow("a", None);
    let event = |data: &str| format!(r#"{{"name":"e","channel":"a","data":"{data}"}}"#);
    world.post(EVENTS, &event(&"\\u00fc".repeat(5_120))).await.expect(200, "{}");
    let text = "The data content of this event exceeds the allowed maximum (10240 bytes).\n";
    world.post(EVENTS, &event(&"x".repeat(10_241))).await.expect(413, text);
    world.post(EVENTS, &event(&"\\u00fc".repeat(5_121))).await.expect(413, text);
    assert_eq!(world.heard().len(), 1);
}

/// HTTP-30, HTTP-43, T-40, T-26
#[tokio::test]
async fn info_tells_of_each_channel_what_applies_to_it() {
    let world = World::new();
    for user in ["ana", "ana", "bob"] {
        world.follow("presence-a", Some(user));
    }
    world.follow("b", None);
    let body =
        |info: &str| format!(r#"{{"name":"e","channels":["presence-a","b","c","b"],"data":"x","info":"{info}"}}"#);
    let both = body("user_count,subscription_count");
    world.post(EVENTS, &both).await.expect(
        200,
        r#"{"channels":{"presence-a":{"user_count":2,"subscription_count":3},"b":{"subscription_count":1},"c":{"subscription_count":0}}}"#,
    );
    let users = body("user_count");
    world.post(EVENTS, &users).await.expect(200, r#"{"channels":{"presence-a":{"user_count":2},"b":{},"c":{}}}"#);
    world.post(EVENTS, &body("")).await.expect(200, "{}");
    let unknown = "Invalid info parameter: the attribute \"cache\" is not available here\n";
    world.post(EVENTS, &body("cache")).await.expect(400, unknown);
}

/// HTTP-30
#[tokio::test]
async fn a_count_that_the_app_does_not_show_is_left_out_of_a_publish() {
    let mut given = Given::default();
    given.app.subscription_counts = false;
    let world = World::with(given);
    let body = r#"{"name":"e","channels":["a"],"data":"x","info":"subscription_count"}"#;
    world.post(EVENTS, body).await.expect(200, r#"{"channels":{"a":{}}}"#);
}

/// HTTP-32, HTTP-34, HTTP-35
#[tokio::test]
async fn a_batch_is_delivered_in_order_and_told_of_in_order() {
    let world = World::new();
    world.follow("a", None);
    world.follow("presence-b", Some("ana"));
    let plain = r#"{"batch":[{"channel":"a","name":"1","data":"x"},{"channel":"a","name":"2","data":"y"}]}"#;
    world.post(BATCH, plain).await.expect(200, "{}");
    assert_eq!(
        world.heard(),
        [r#"{"event":"1","channel":"a","data":"x"}"#, r#"{"event":"2","channel":"a","data":"y"}"#]
    );
    let telling = r#"{"batch":[{"channel":"presence-b","name":"1","data":"x","info":"user_count"},
        {"channel":"a","name":"2","data":"y","socket_id":null,"info":null},
        {"channel":"a","name":"3","data":"y","info":"subscription_count"}]}"#;
    let told = r#"{"batch":[{"user_count":1},{},{"subscription_count":1}]}"#;
    world.post(BATCH, telling).await.expect(200, told);
}

/// HTTP-32, HTTP-33
#[tokio::test]
async fn one_bad_event_refuses_the_whole_batch() {
    let world = World::new();
    world.follow("a", None);
    let good = r#"{"channel":"a","name":"e","data":"x"}"#;
    let batch = |events: &[&str]| format!(r#"{{"batch":[{}]}}"#, events.join(","));
    let large = format!(r#"{{"channel":"a","name":"e","data":"{}"}}"#, "x".repeat(10_241));
    for (events, status) in [
        (vec![good; 11], 400),
        (vec![good, r#"{"channel":"a b","name":"e","data":"x"}"#], 400),
        (vec![good, r#"{"channels":["a"],"name":"e","data":"x"}"#], 400),
        (vec![good, &large], 413),
    ] {
        assert_eq!(world.post(BATCH, &batch(&events)).await.status, status);
    }
    assert!(world.heard().is_empty());
    world.post(BATCH, &batch(&[good; 10])).await.expect(200, "{}");
    assert_eq!(world.heard().len(), 10);
}

/// HTTP-53
#[tokio::test]
async fn the_deprecated_form_publishes_its_body_and_answers_202() {
    let world = World::new();
    world.follow("a@b", None);
    let path = "/apps/3/channels/a@b/events";
    world.call(Method::POST, path, &[("name", "e")], "not \"JSON\"").await.expect(202, "{}");
    assert_eq!(world.heard(), [r#"{"event":"e","channel":"a@b","data":"not \"JSON\""}"#]);
    let refused = world.call(Method::POST, path, &[], "x").await;
    refused.expect(400, "Expected name parameter to be a string\n");
}

/// HTTP-46, HTTP-31
#[tokio::test]
async fn while_nothing_can_be_accepted_the_answer_is_503_with_retry_after() {
    let world = World::new();
    world.backbone.set(Gate::Broken);
    for body in [
        r#"{"name":"e","channel":"a","data":"x"}"#,
        r#"{"name":"e","channel":"a","data":"x","info":"subscription_count"}"#,
    ] {
        let said = world.post(EVENTS, body).await;
        said.expect(503, "The server cannot take this now, try again\n");
        assert_eq!(said.header("retry-after"), Some("1"));
    }
    assert_eq!(world.backbone.publishes(), 1, "what cannot be counted is not published either");
}

/// RED-15
#[tokio::test]
async fn a_call_that_was_accepted_in_part_is_answered_503_with_the_channels_that_were_not() {
    let world = World::new();
    let name = |text| ChannelName::parse(text, 200).expect("a valid name");
    let body = r#"{"name":"e","channels":["a","b","c"],"data":"x"}"#;
    for (left, text) in [
        (vec![name("a"), name("c")], "Not accepted in time for: a, c. Whatever else the call names was accepted."),
        (vec![name("a"), name("b"), name("c")], "The server cannot take this now, try again\n"),
        (Vec::new(), "The server cannot take this now, try again\n"),
    ] {
        let opened = Arc::new(Notify::new());
        opened.notify_one();
        world.backbone.set(Gate::Closed(opened, Err(PublishError::Unknown { left })));
        let said = world.post(EVENTS, body).await;
        assert_eq!((said.status.as_u16(), said.header("retry-after")), (503, Some("1")));
        assert!(said.body.starts_with(text), "{}", said.body);
    }
}

/// HTTP-31, T-42
#[tokio::test(start_paused = true)]
async fn a_backbone_that_never_answers_costs_a_publisher_less_than_four_seconds() {
    let world = World::new();
    world.backbone.set(Gate::Closed(Arc::new(Notify::new()), Ok(())));
    let started = tokio::time::Instant::now();
    let said = world.post(EVENTS, r#"{"name":"e","channel":"a","data":"x"}"#).await;
    assert_eq!(said.status, 503);
    assert!(started.elapsed() < Duration::from_secs(4));
}
