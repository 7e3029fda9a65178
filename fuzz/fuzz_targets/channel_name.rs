//! Names from outside: what is accepted keeps the rules that everyone above trusts, and means the same when read again.
//!
//! The first byte of the input is the limit.
#![no_main]

use fulmar_protocol::name::{ChannelName, SocketId, UserId, check_event_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((max, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let max = usize::from(*max);
    channel(text, max);
    if check_event_name(text, max).is_ok() {
        assert!(!text.is_empty() && text.chars().count() <= max);
        assert!(!text.starts_with("pusher") && !text.contains(char::is_control));
    }
    if let Ok(user) = UserId::parse(text, max) {
        assert_eq!(user.as_str(), text);
        assert!(!text.is_empty() && text.chars().count() <= max && !text.contains(char::is_control));
    }
    if let Ok(Some(socket_id)) = SocketId::parse(text) {
        assert_eq!(socket_id.to_string(), text);
    }
});

fn channel(text: &str, max: usize) {
    let Ok(name) = ChannelName::parse(text, max) else { return };
    assert_eq!(name.as_str(), text);
    assert!(!text.is_empty() && text.len() <= max);
    let body = match name.server_to_user() {
        Some(user) => {
            assert!(!name.kind().is_listed() && !name.kind().takes_client_events());
            user
        }
        None => text,
    };
    assert!(body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte)) && !body.is_empty());
    let kind = name.kind();
    assert_eq!(kind.is_presence(), text.starts_with("presence-"));
    assert_eq!(kind.needs_auth(), text.starts_with("presence-") || text.starts_with("private-"));
    assert_eq!(kind.is_encrypted(), text.starts_with("private-encrypted-"));
    assert!(!kind.takes_client_events() || (kind.needs_auth() && !kind.is_encrypted()));
}
