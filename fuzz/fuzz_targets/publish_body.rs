//! Bodies of the publishing calls: whatever a customer with the right secret sends, what reaches subscribers is one JSON
//! object whose `data` is a string within the limit, on a channel whose name was checked.
//!
//! The first byte of the input chooses the call.
#![no_main]

use fulmar_protocol::app::App;
use fulmar_protocol::exchange::Publication;
use fulmar_protocol::publish::{parse_batch_events, parse_channel_event, parse_events};
use fulmar_protocol::query::Query;
use fulmar_protocol::signing::{Request, Signer, verify_request};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const NOW_UNIX_S: u64 = 1_700_000_000;
const PATH: &str = "/apps/1/events";

fuzz_target!(|bytes: &[u8]| {
    let Some((call, body)) = bytes.split_first() else { return };
    let app = App::new("1", "key", "secret");
    let params = [("name", "greeting"), ("channel", "room"), ("socket_id", "1.2")];
    let params = if call % 4 == 2 { &params[..] } else { &[] };
    let query = Signer::of(&app).sign_request("POST", PATH, params, body, NOW_UNIX_S);
    let query = Query::parse(&query).expect("we wrote it");
    let request = Request { app: &app, method: "POST", path: PATH, query: &query, body };
    let signed = verify_request(request, NOW_UNIX_S).expect("we signed it");
    let publications = match call % 4 {
        0 => parse_events(&signed).map(|publish| publish.publications),
        1 => parse_batch_events(&signed).map(|events| events.into_iter().map(|event| event.publication).collect()),
        2 => parse_channel_event(&signed, "room").map(|publish| publish.publications),
        _ => parse_channel_event(&signed, &String::from_utf8_lossy(body)).map(|publish| publish.publications),
    };
    match publications {
        Ok(publications) => {
            let max = app.limits.publish_channels_max.max(app.limits.batch_events_max);
            assert!(publications.len() <= max);
            publications.iter().for_each(|publication| check(publication, &app));
        }
        Err(refusal) => assert!((400..500).contains(&refusal.status()) && !refusal.to_string().is_empty()),
    }
});

fn check(publication: &Publication, app: &App) {
    assert!(publication.channel.as_str().len() <= app.limits.channel_name_max);
    let text = with_whole_characters(publication.frame.text());
    let frame: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let fields = frame.as_object().expect("an object");
    assert_eq!(fields["channel"], publication.channel.as_str());
    assert!(fields["event"].as_str().is_some_and(|event| !event.is_empty() && !event.starts_with("pusher")));
    assert!(fields["data"].as_str().is_some_and(|data| data.len() <= app.limits.event_data_bytes_max));
}

/// `data` is passed on unread, and JSON's grammar lets a string name half a character (`\ud800` alone), which the parser
/// of this check does not take: puts a shorter `?` in the place of every escaped surrogate.
fn with_whole_characters(json: &str) -> String {
    let mut whole = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        let escape_bytes = if escape.as_bytes().get(1) == Some(&b'u') { 6 } else { 2 };
        let Some((escape, after)) = escape.split_at_checked(escape_bytes) else { break };
        let is_surrogate =
            escape.get(2..).is_some_and(|hex| matches!(u16::from_str_radix(hex, 16), Ok(0xd800..0xe000)));
        whole += before;
        whole += if is_surrogate { "?" } else { escape };
        rest = after;
    }
    whole + rest
}
