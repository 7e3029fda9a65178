//! Text of a client's message, the `channel_data` of a member and the `user_data` of a sign-in: no panic, and what is lent out is the very source.
#![no_main]

use std::collections::HashSet;

use fulmar_protocol::app::{App, AppLimits};
use fulmar_protocol::client_message::{ClientMessage, parse_member, parse_user_data};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    message(text);
    member(text);
    user(text);
});

fn message(text: &str) {
    match ClientMessage::parse(text) {
        Ok(ClientMessage::Subscribe(subscribe)) => {
            assert!(subscribe.auth.as_deref() != Some(""), "an empty auth counts as none");
            if let Some(channel_data) = subscribe.channel_data {
                member(&channel_data);
            }
        }
        Ok(ClientMessage::SignIn(sign_in)) => user(&sign_in.user_data),
        Ok(ClientMessage::ClientEvent(event)) => {
            assert!(event.event.starts_with("client-"));
            if let Some(data) = event.data {
                assert!(text.contains(data), "data is a slice of the source");
            }
        }
        Ok(ClientMessage::Unsupported { event }) => assert!(!event.starts_with("client-")),
        Ok(ClientMessage::Unsubscribe { .. } | ClientMessage::Ping | ClientMessage::Pong) => {}
        Err(malformed) => assert!(!malformed.to_string().is_empty()),
    }
}

fn member(channel_data: &str) {
    let limits = AppLimits::default();
    let Ok(member) = parse_member(channel_data, &limits) else { return };
    let id = member.user_id.as_str();
    assert!(!id.is_empty() && id.chars().count() <= limits.user_id_max);
    if let Some(info) = member.user_info {
        assert!(info.len() <= limits.presence_user_info_bytes_max && channel_data.contains(&*info));
        // Goes into a roster as it is: must stay one value there.
        assert!(serde_json::from_str::<&serde_json::value::RawValue>(&info).is_ok());
        assert_ne!(serde_json::from_str::<Value>(&info).ok(), Some(Value::Null));
    }
}

fn user(user_data: &str) {
    let mut app = App::new("1", "key", "secret");
    app.limits.watchlist_max = 3;
    let Ok(user) = parse_user_data(user_data, &app) else { return };
    let id = user.user_id.as_str();
    assert!(!id.is_empty() && id.chars().count() <= app.limits.user_id_max);
    assert!(user.user_info.is_none_or(|info| user_data.contains(&*info)));
    let distinct: HashSet<_> = user.watchlist.iter().collect();
    assert!(distinct.len() == user.watchlist.len() && distinct.len() <= app.limits.watchlist_max);
    assert!(!user.is_watchlist_cut || distinct.len() == app.limits.watchlist_max);
}
