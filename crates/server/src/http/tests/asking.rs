//! `channels`, `channels/NAME`, `channels/NAME/users`, `channels/NAME/stats`.

use std::time::Duration;

use super::{Gate, Given, World};

const CHANNELS: &str = "/apps/3/channels";

/// HTTP-36, HTTP-37, HTTP-38, HTTP-44, T-9, T-40
#[tokio::test]
async fn the_listing_shows_occupied_channels_and_what_was_asked_of_them() {
    let world = World::new();
    world.get(CHANNELS, &[]).await.expect(200, r#"{"channels":{}}"#);
    for user in ["ana", "ana", "bob"] {
        world.follow("presence-a", Some(user));
    }
    world.follow("#server-to-user-u", None);
    let presence = ("filter_by_prefix", "presence-");
    world.get(CHANNELS, &[]).await.expect(200, r#"{"channels":{"presence-a":{}}}"#);
    world
        .get(CHANNELS, &[presence, ("info", "user_count")])
        .await
        .expect(200, r#"{"channels":{"presence-a":{"user_count":2}}}"#);
    world
        .get(CHANNELS, &[("info", "subscription_count")])
        .await
        .expect(200, r#"{"channels":{"presence-a":{"subscription_count":3}}}"#);
    world.get(CHANNELS, &[("filter_by_prefix", "private-")]).await.expect(200, r#"{"channels":{}}"#);
}

/// HTTP-70
#[tokio::test]
async fn a_listing_that_may_be_partial_says_whether_it_is() {
    let world = World::new();
    world.follow("a", None);
    world.get(CHANNELS, &[("partial", "true")]).await.expect(200, r#"{"channels":{"a":{}},"partial":false}"#);
    world.get(CHANNELS, &[("partial", "false")]).await.expect(200, r#"{"channels":{"a":{}}}"#);
    let text = "The parameter partial must be true or false\n";
    world.get(CHANNELS, &[("partial", "yes")]).await.expect(400, text);
}

/// HTTP-36
#[tokio::test]
async fn several_channels_stand_in_one_object() {
    let world = World::new();
    for channel in ["a=1", "b;2", "c,3"] {
        world.follow(channel, None);
    }
    let said = world.get(CHANNELS, &[]).await;
    let listed: serde_json::Value = serde_json::from_str(&said.body).expect("JSON");
    assert_eq!(listed, serde_json::json!({ "channels": { "a=1": {}, "b;2": {}, "c,3": {} } }));
}

/// HTTP-37
#[tokio::test]
async fn users_are_counted_only_where_all_channels_have_them() {
    let world = World::new();
    let text =
        "user_count can only be asked for presence channels: give a filter_by_prefix that begins with presence-\n";
    world.get(CHANNELS, &[("info", "user_count")]).await.expect(400, text);
    world.get(CHANNELS, &[("info", "user_count"), ("filter_by_prefix", "pres")]).await.expect(400, text);
    for attribute in ["cache", "colour"] {
        let text = format!("Invalid info parameter: the attribute \"{attribute}\" is not available here\n");
        world.get(CHANNELS, &[("info", attribute)]).await.expect(400, &text);
    }
}

/// HTTP-39, HTTP-43
#[tokio::test]
async fn one_channel_is_told_of_whether_or_not_anybody_uses_it() {
    let world = World::new();
    world.follow("presence-a", Some("ana"));
    world.follow("presence-a", Some("ana"));
    let both = [("info", "user_count,subscription_count")];
    let of = |name: &str| format!("{CHANNELS}/{name}");
    world.get(&of("presence-a"), &[]).await.expect(200, r#"{"occupied":true}"#);
    world.get(&of("presence-a"), &both).await.expect(200, r#"{"occupied":true,"user_count":1,"subscription_count":2}"#);
    world
        .get(&of("presence-b"), &both)
        .await
        .expect(200, r#"{"occupied":false,"user_count":0,"subscription_count":0}"#);
    world.get(&of("never"), &[]).await.expect(200, r#"{"occupied":false}"#);
}

/// HTTP-39
#[tokio::test]
async fn an_attribute_that_the_channel_does_not_have_is_refused() {
    let world = World::new();
    let of = |name: &str| format!("{CHANNELS}/{name}");
    let table = [
        ("a", "user_count", "user_count can only be asked for presence channels\n"),
        ("a", "cache", "cache can only be asked for cache channels\n"),
        ("a", "size", "Invalid info parameter: the attribute \"size\" is not available here\n"),
        ("a%20b", "", "Invalid channel name \"a b\": it contains the character ' ', which is not allowed\n"),
        ("%23server-to-user-u", "", "Channels of single users cannot be queried\n"),
        ("%ff", "", "Invalid channel name \"\u{fffd}\": it contains the character '\u{fffd}', which is not allowed\n"),
    ];
    for (name, info, text) in table {
        world.get(&of(name), &[("info", info)]).await.expect(400, text);
    }
    let mut given = Given::default();
    given.app.subscription_counts = false;
    let world = World::with(given);
    let text = "subscription_count is not enabled for this app\n";
    world.get(&of("a"), &[("info", "subscription_count")]).await.expect(400, text);
    world.get(CHANNELS, &[("info", "subscription_count")]).await.expect(400, text);
}

/// HTTP-40
#[tokio::test]
async fn the_cached_event_is_the_published_string_with_the_seconds_it_has_left() {
    let world = World::new();
    let path = format!("{CHANNELS}/cache-a");
    let cache = [("info", "cache,subscription_count")];
    world.get(&path, &cache).await.expect(200, r#"{"occupied":false,"subscription_count":0,"cache":null}"#);
    let data = r#"{\"a\": [1, 2.0],\"b\":\"\u00fc\\/\"}"#;
    let body = format!(r#"{{"name":"e","channel":"cache-a","data":"{data}"}}"#);
    world.post("/apps/3/events", &body).await.expect(200, "{}");
    world.pass(Duration::from_secs(30));
    let expected = format!(r#"{{"occupied":false,"subscription_count":0,"cache":{{"data":"{data}","ttl":1770}}}}"#);
    world.get(&path, &cache).await.expect(200, &expected);
    world.pass(Duration::from_secs(1_770));
    world.get(&path, &[("info", "cache")]).await.expect(200, r#"{"occupied":false,"cache":null}"#);
}

/// HTTP-41, T-8
#[tokio::test]
async fn users_are_distinct_and_their_ids_are_strings() {
    let world = World::new();
    for user in ["7", "ana \"x\"", "7"] {
        world.follow("presence-a", Some(user));
    }
    let of = |name: &str| format!("{CHANNELS}/{name}/users");
    world.get(&of("presence-a"), &[]).await.expect(200, r#"{"users":[{"id":"7"},{"id":"ana \"x\""}]}"#);
    world.get(&of("presence-b"), &[]).await.expect(200, r#"{"users":[]}"#);
    world.get(&of("a"), &[]).await.expect(400, "Users can only be listed for presence channels\n");
}

/// HTTP-42
#[tokio::test]
async fn parameters_that_mean_nothing_to_the_users_call_are_named() {
    let world = World::new();
    let path = format!("{CHANNELS}/presence-a/users");
    world
        .get(&path, &[("info", "user_count")])
        .await
        .expect(400, "The following query string parameters are extraneous: info\n");
    world
        .get(&path, &[("info", "x"), ("filter_by_prefix", "y")])
        .await
        .expect(400, "The following query string parameters are extraneous: filter_by_prefix, info\n");
}

/// HTTP-54
#[tokio::test]
async fn the_deprecated_stats_count_connections_and_users() {
    let world = World::new();
    world.follow("presence-a", Some("ana"));
    world.follow("presence-a", Some("ana"));
    let of = |name: &str| format!("{CHANNELS}/{name}/stats");
    world.get(&of("presence-a"), &[]).await.expect(200, r#"{"occupied":true,"user_count":1,"connection_count":2}"#);
    world.get(&of("a"), &[]).await.expect(200, r#"{"occupied":false,"connection_count":0}"#);
}

/// HTTP-46
#[tokio::test]
async fn what_cannot_be_known_now_is_503_and_never_a_guess() {
    let world = World::new();
    world.backbone.set(Gate::Broken);
    for path in ["", "/a", "/a/stats", "/presence-a/users"] {
        let said = world.get(&format!("{CHANNELS}{path}"), &[]).await;
        said.expect(503, "The server cannot take this now, try again\n");
        assert_eq!(said.header("retry-after"), Some("1"));
    }
}
