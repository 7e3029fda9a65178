//! Text of a client's message, and the `channel_data` of a member: no panic, and what is lent out is the very source.
#![no_main]

use fulmar_protocol::app::AppLimits;
use fulmar_protocol::client_message::{ClientMessage, parse_member};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    message(text);
    member(text);
});

fn message(text: &str) {
    match ClientMessage::parse(text) {
        Ok(ClientMessage::Subscribe(subscribe)) => {
            assert!(subscribe.auth.as_deref() != Some(""), "an empty auth counts as none");
            if let Some(channel_data) = subscribe.channel_data {
                member(&channel_data);
            }
        }
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
