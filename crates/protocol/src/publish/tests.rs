//! Bodies as official libraries write them, boundaries, and bodies nobody should be able to hurt us with.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::query::Query;
use crate::signing::{Signer, verify_request};

fn app() -> App {
    App::new("3", "key", "secret")
}

/// Signs a call as a library does, verifies it, and lets `read` have it.
fn call<T>(
    app: &App,
    params: &[(&str, &str)],
    body: &[u8],
    read: impl FnOnce(&Signed<Request<'_>>) -> Result<T, PublishRefusal>,
) -> Result<T, PublishRefusal> {
    let (method, path) = ("POST", "/apps/3/events");
    let raw = Signer::of(app).sign_request(method, path, params, body, 1_000);
    let query = Query::parse(&raw).expect("a good query");
    let request = Request { app, method, path, query: &query, body };
    read(&verify_request(request, 1_000).expect("signed as it should be"))
}

fn events(body: impl AsRef<[u8]>) -> Result<Publish, PublishRefusal> {
    call(&app(), &[], body.as_ref(), parse_events)
}

fn batch(body: impl AsRef<[u8]>) -> Result<Vec<BatchEvent>, PublishRefusal> {
    call(&app(), &[], body.as_ref(), parse_batch_events)
}

fn refusal<T>(result: Result<T, PublishRefusal>) -> (u16, String) {
    let refusal = result.map(|_| ()).expect_err("this call must be refused");
    (refusal.status(), refusal.to_string())
}

fn channels(publish: &Publish) -> Vec<&str> {
    publish.publications.iter().map(|publication| publication.channel.as_str()).collect()
}

/// HTTP-22, HTTP-9, protocol section 13.11: each library's habits
#[test]
fn what_every_library_sends_becomes_the_same_event() {
    let table = [
        ("node", r#"{"name":"e","data":"plain","channels":["c"]}"#, r#"{"event":"e","channel":"c","data":"plain"}"#),
        (
            "python",
            r#"{"name": "e", "channels": ["c"], "data": "{\"t\": \"Zo\u00eb \u2603\"}"}"#,
            r#"{"event":"e","channel":"c","data":"{\"t\": \"Zo\u00eb \u2603\"}"}"#,
        ),
        (
            "php",
            r#"{"name":"App\\Events\\OrderShipped","data":"\"a\/b \u00eb\"","channel":"c"}"#,
            r#"{"event":"App\\Events\\OrderShipped","channel":"c","data":"\"a\/b \u00eb\""}"#,
        ),
        ("ruby", r#"{"name":"e","channels":["c"],"data":"Zoë"}"#, r#"{"event":"e","channel":"c","data":"Zoë"}"#),
        (
            "java",
            r#"{"channels":["c"],"name":"e","data":"\"plain\""}"#,
            r#"{"event":"e","channel":"c","data":"\"plain\""}"#,
        ),
        (
            "go",
            r#"{"name":"e","channels":["c"],"data":"\u003cb\u003e\u0026"}"#,
            r#"{"event":"e","channel":"c","data":"\u003cb\u003e\u0026"}"#,
        ),
        (
            "dotnet",
            r#"{"name":"e","data":"{}","channels":["c"],"socket_id":null,"info":null,"channel":null,"new":[{}]}"#,
            r#"{"event":"e","channel":"c","data":"{}"}"#,
        ),
    ];
    for (library, body, text) in table {
        let publish = events(body).expect(library);
        assert_eq!(publish.publications.len(), 1, "{library}");
        assert!(publish.info.is_empty(), "{library}");
        let publication = &publish.publications[0];
        assert_eq!(publication.frame.text(), text, "{library}");
        assert_eq!((publication.except, publication.cache_for), (None, None), "{library}");
        assert_eq!(publication.app.as_str(), "3", "{library}");
    }
}

/// HTTP-24, trap T-11
#[test]
fn data_reaches_the_frame_byte_for_byte() {
    for data in ["", " ", r"\u0000", r"\ud83d\ude00", r"\ud800", r"\/\b\f\n\r\t\\", "\u{2028}é☃😀", r#"{\"a\" : 1}"#]
    {
        let publish = events(format!(r#"{{ "data" : "{data}" , "name":"e", "channels" : [ "c" ] }}"#)).expect(data);
        let expected = format!(r#"{{"event":"e","channel":"c","data":"{data}"}}"#);
        assert_eq!(publish.publications[0].frame.text(), expected);
    }
}

/// HTTP-24
#[test]
fn event_names_mean_the_same_however_they_were_escaped() {
    for (written, name) in [(r#"a\u0062\"\\ü☃"#, r#"ab"\ü☃"#), (r"\u00e9\/", "é/"), ("client-x", "client-x")] {
        let publish = events(format!(r#"{{"name":"{written}","channel":"c","data":""}}"#)).expect(name);
        let frame: Value = serde_json::from_str(publish.publications[0].frame.text()).expect("JSON");
        assert_eq!(frame["event"], name);
    }
}

/// HTTP-26
#[test]
fn an_event_goes_to_each_distinct_channel_once_in_the_order_named() {
    let publish = events(
        r##"{"name":"e","data":"d","channels":["b","private-a","b","#server-to-user-u-42","c"],"socket_id":"1.2",
            "channel":"ignored","info":"user_count,subscription_count"}"##,
    )
    .expect("a good call");
    assert_eq!(channels(&publish), ["b", "private-a", "#server-to-user-u-42", "c"]);
    for publication in &publish.publications {
        assert_eq!(publication.except, Some(SocketId::new(1, 2)));
        let frame: Value = serde_json::from_str(publication.frame.text()).expect("JSON");
        assert_eq!(frame["channel"], publication.channel.as_str());
    }
    assert_eq!(publish.info, Info { subscription_count: true, user_count: true, cache: false });
    let encrypted = events(r#"{"name":"e","data":"{}","channels":["private-encrypted-a","private-encrypted-b"]}"#);
    assert_eq!(encrypted.expect("several encrypted channels").publications.len(), 2);
}

/// HTTP-28
#[test]
fn a_socket_id_that_nobody_can_have_excludes_nobody() {
    let publish = events(r#"{"name":"e","data":"","channel":"c","socket_id":"1.99999999999999999999999"}"#);
    assert_eq!(publish.expect("well-formed").publications[0].except, None);
}

/// WS-94
#[test]
fn events_on_cache_channels_are_kept_for_the_configured_time() {
    let publish =
        events(r#"{"name":"e","data":"","channels":["cache-a","private-cache-a","presence-cache-a","cache","a"]}"#)
            .expect("a good call");
    let kept: Vec<_> = publish.publications.iter().map(|publication| publication.cache_for).collect();
    let ttl = Some(Duration::from_secs(1_800));
    assert_eq!(kept, [ttl, ttl, ttl, None, None]);
}

/// HTTP-29
#[test]
fn a_call_that_breaks_a_rule_is_refused_in_whole_with_the_reason() {
    let object = "Expected the request body, and each event of a batch, to be a JSON object";
    let list = "Expected channels parameter to be an array of strings";
    let none = "Missing parameter: channels must name at least one channel";
    let table = [
        (r#"{"data":"","channel":"c"}"#, "Expected name parameter to be a string"),
        (r#"{"name":1,"data":"","channel":"c"}"#, "Expected name parameter to be a string"),
        (r#"{"name":["e"],"data":"","channel":"c"}"#, "Expected name parameter to be a string"),
        (r#"{"name":"","data":"","channel":"c"}"#, "Invalid event name: it must not be empty"),
        (
            r#"{"name":"pusher-notification","data":"","channel":"c"}"#,
            "The 'pusher' namespace is reserved for internal usage",
        ),
        (
            r#"{"name":"\u0070usher:x","data":"","channel":"c"}"#,
            "The 'pusher' namespace is reserved for internal usage",
        ),
        (r#"{"name":"e","channel":"c"}"#, "Expected data parameter to be a string"),
        (r#"{"name":"e","data":null,"channel":"c"}"#, "Expected data parameter to be a string"),
        (r#"{"name":"e","data":{"a":1},"channel":"c"}"#, "Expected data parameter to be a string"),
        (r#"{"name":"e","data":1.5,"channel":"c"}"#, "Expected data parameter to be a string"),
        (r#"{"name":"e","data":""}"#, none),
        (r#"{"name":"e","data":"","channels":[],"channel":"c"}"#, none),
        (r#"{"name":"e","data":"","channels":"c"}"#, list),
        (r#"{"name":"e","data":"","channels":{"0":"c"}}"#, list),
        (r#"{"name":"e","data":"","channels":["c",null]}"#, list),
        (r#"{"name":"e","data":"","channels":["c",-1]}"#, list),
        (r#"{"name":"e","data":"","channel":true}"#, "Expected channel parameter to be a string"),
        (
            r#"{"name":"e","data":"","channels":["c","a b"]}"#,
            "Invalid channel name \"a b\": it contains the character ' ', which is not allowed",
        ),
        (
            r#"{"name":"e","data":"","channel":"c","socket_id":"x"}"#,
            "Invalid socket_id: it must be two numbers joined by a dot",
        ),
        (r#"{"name":"e","data":"","channel":"c","socket_id":1.2}"#, "Expected socket_id parameter to be a string"),
        (
            r#"{"name":"e","data":"","channel":"c","info":"user_count,x"}"#,
            "Invalid info parameter: the attribute \"x\" is not available here",
        ),
        (
            r#"{"name":"e","data":"","channel":"c","info":"cache"}"#,
            "Invalid info parameter: the attribute \"cache\" is not available here",
        ),
        ("[]", object),
        (r#"["e","","c"]"#, object),
        ("null", object),
    ];
    for (body, text) in table {
        assert_eq!(refusal(events(body)), (400, text.to_owned()), "{body}");
    }
    for body in ["{", "{}\n x", "{\"data\":\"a\nb\"}", r#"{"data":"\x"}"#, r#"{"data":"\u12"}"#, r#"{"name":"\ud800"}"#]
    {
        let (status, text) = refusal(events(body));
        assert_eq!(status, 400, "{body}");
        assert!(text.starts_with("The request body is not valid JSON (line "), "{body}: {text}");
    }
    assert_eq!(refusal(events(b"{\"name\":\"\xff\"}")), (400, "The request body is not valid UTF-8".to_owned()));
}

/// HTTP-25, trap T-41
#[test]
fn data_is_measured_by_what_it_decodes_to_however_it_is_written() {
    // Each unit: as it is written, and the bytes it decodes to.
    let units = [
        ("a", 1),
        ("é", 2),
        (r"\u0061", 1),
        (r"\u00E9", 2),
        (r"\u2603", 3),
        (r"\ud83d\ude00", 4),
        (r"\ud800", 3),
        (r"\udc00", 3),
        (r"\n", 1),
        (r"\\", 1),
        (r#"\""#, 1),
        (r"\/", 1),
    ];
    let body = |data: &str| format!(r#"{{"name":"e","channel":"c","data":"{data}"}}"#);
    for (written, bytes) in units {
        let full = written.repeat(10_240 / bytes) + &"a".repeat(10_240 % bytes);
        assert!(events(body(&full)).is_ok(), "{written}");
        let over = "The data content of this event exceeds the allowed maximum (10240 bytes).";
        assert_eq!(refusal(events(body(&format!("{full}a")))), (413, over.to_owned()), "{written}");
        assert_eq!(refusal(events(body(&format!("{full}\\u0061")))), (413, over.to_owned()), "{written}");
    }
    assert!(data_exceeds(r#"{"a":"\u0061"}"#, 13) && !data_exceeds(r#"{"a":"\u0061"}"#, 14));
    assert_eq!(decoded_bytes(br"\ud83d\ud83d\ude00\ude00\ud83dx\\ud83d"), 3 + 4 + 3 + 3 + 1 + 1 + 5);
}

/// HTTP-26
#[test]
fn one_call_names_at_most_a_hundred_channels() {
    let body = |count: usize| {
        let names: Vec<_> = (0..count).map(|n| format!("c{n}")).collect();
        serde_json::json!({"name": "e", "data": "", "channels": names}).to_string()
    };
    assert_eq!(events(body(100)).expect("a hundred").publications.len(), 100);
    for count in [101, PUBLISH_CHANNELS_CEILING, PUBLISH_CHANNELS_CEILING + 1, 5_000] {
        let text = "The event names too many channels (at most 100 are allowed)";
        assert_eq!(refusal(events(body(count))), (400, text.to_owned()));
    }
    let mut generous = app();
    generous.limits.publish_channels_max = usize::MAX;
    let many = body(PUBLISH_CHANNELS_CEILING);
    assert!(call(&generous, &[], many.as_bytes(), parse_events).is_ok());
    let over = body(PUBLISH_CHANNELS_CEILING + 1);
    assert_eq!(refusal(call(&generous, &[], over.as_bytes(), parse_events)).0, 400);
}

/// HTTP-27
#[test]
fn names_are_limited_in_length_and_a_refusal_does_not_repeat_them_whole() {
    let long = "c".repeat(100_000);
    let (status, text) = refusal(events(format!(r#"{{"name":"e","data":"","channel":"{long}"}}"#)));
    assert_eq!(status, 400);
    assert!(text.len() < 300, "{text}");
    assert!(text.ends_with("it is longer than 164 characters"), "{text}");
    let (_, text) = refusal(events(format!(r#"{{"name":"{long}","data":"","channel":"c"}}"#)));
    assert_eq!(text, "Invalid event name: it is longer than 200 characters");
}

/// HTTP-4, vector V-H11
#[test]
fn with_an_empty_body_the_parameters_come_from_the_query() {
    let params =
        [("channels[]", "a"), ("channels[]", "b"), ("data", "x \"y&z\\\n"), ("name", "foo"), ("info", "user_count")];
    let publish = call(&app(), &params, b"", parse_events).expect("a good call");
    assert_eq!(channels(&publish), ["a", "b"]);
    assert_eq!(publish.publications[0].frame.text(), r#"{"event":"foo","channel":"a","data":"x \"y&z\\\n"}"#);
    assert!(publish.info.user_count);
    let single = [("channel", "a"), ("data", ""), ("name", "foo"), ("socket_id", "1.2")];
    let publish = call(&app(), &single, b"", parse_events).expect("a good call");
    assert_eq!(publish.publications[0].except, Some(SocketId::new(1, 2)));
    assert_eq!(refusal(events("")).1, "Expected name parameter to be a string");
}

/// HTTP-34
#[test]
fn a_batch_is_read_in_order_with_each_event_its_own() {
    let events = batch(
        r#"{"batch":[{"channel":"a","name":"e1","data":"1"},
            {"channel":"presence-b","name":"e2","data":"{\"x\":2}","info":"user_count","socket_id":"1.2"},
            {"channel":"a","name":"e3","data":"","socket_id":null,"info":null,"channels":["z"]}], "more": {}}"#,
    )
    .expect("a good batch");
    let seen: Vec<_> = events.iter().map(|e| (e.publication.frame.text(), e.publication.except, e.info)).collect();
    let none = Info::default();
    assert_eq!(
        seen,
        [
            (r#"{"event":"e1","channel":"a","data":"1"}"#, None, none),
            (
                r#"{"event":"e2","channel":"presence-b","data":"{\"x\":2}"}"#,
                Some(SocketId::new(1, 2)),
                Info { user_count: true, ..none }
            ),
            (r#"{"event":"e3","channel":"a","data":""}"#, None, none),
        ]
    );
}

/// HTTP-33, HTTP-32
#[test]
fn a_batch_is_refused_in_whole_and_says_which_event_is_at_fault() {
    let good = r#"{"channel":"a","name":"e","data":""}"#;
    let big = format!(r#"{{"channel":"a","name":"e","data":"{}"}}"#, "x".repeat(10_241));
    let table = [
        ("{}".to_owned(), 400, "Expected batch parameter to be an array"),
        (r#"{"batch":null}"#.to_owned(), 400, "Expected batch parameter to be an array"),
        (r#"{"batch":"x"}"#.to_owned(), 400, "Expected batch parameter to be an array"),
        (
            r#"{"batch":[1]}"#.to_owned(),
            400,
            "Expected the request body, and each event of a batch, to be a JSON object",
        ),
        (
            format!(r#"{{"batch":[{good},{{"channels":["a"],"name":"e","data":""}}]}}"#),
            400,
            "Expected channel parameter to be a string (event 2 of the batch)",
        ),
        (
            format!(r#"{{"batch":[{big},{good}]}}"#),
            413,
            "The data content of this event exceeds the allowed maximum (10240 bytes). (event 1 of the batch)",
        ),
        (
            format!(r#"{{"batch":[{}]}}"#, [good; 11].join(",")),
            400,
            "The batch has too many events (at most 10 are allowed)",
        ),
        (
            format!(r#"{{"batch":[{}]}}"#, [good; BATCH_EVENTS_CEILING + 1].join(",")),
            400,
            "The batch has too many events (at most 10 are allowed)",
        ),
    ];
    for (body, status, text) in table {
        assert_eq!(refusal(batch(&body)), (status, text.to_owned()));
    }
    assert_eq!(batch(format!(r#"{{"batch":[{}]}}"#, [good; 10].join(","))).expect("ten").len(), 10);
    assert_eq!(refusal(batch(r#"{"batch":[]}"#)), (400, "The batch must hold at least one event".to_owned()));
}

/// HTTP-53
#[test]
fn the_deprecated_form_takes_its_body_as_data() {
    let read = |body: &[u8], channel| {
        call(&app(), &[("name", "e"), ("socket_id", "1.2")], body, |request| parse_channel_event(request, channel))
    };
    let publish = read(b"{\"a\":\"\\n\"}", "c").expect("a good call");
    assert_eq!(publish.publications[0].frame.text(), r#"{"event":"e","channel":"c","data":"{\"a\":\"\\n\"}"}"#);
    assert_eq!(publish.publications[0].except, Some(SocketId::new(1, 2)));
    assert!(read(b"", "c").is_ok());
    assert!(read(&[b'\n'; 10_240], "c").is_ok());
    assert_eq!(refusal(read(&[b'\n'; 10_241], "c")).0, 413);
    assert_eq!(refusal(read(b"\xff", "c")).0, 400);
    assert_eq!(refusal(read(b"", "a/b")).0, 400);
}

/// HTTP-30, trap T-40
#[test]
fn info_is_a_list_of_known_attributes_and_each_applies_where_it_means_something() {
    assert_eq!(Info::parse(""), Ok(Info::default()));
    let all = Info::parse("user_count, subscription_count,cache,").expect("all known");
    assert_eq!(all, Info { subscription_count: true, user_count: true, cache: true });
    assert!(Info::parse("user_count;cache").is_err());
    assert_eq!(all.on(ChannelKind::Public), Info { subscription_count: true, ..Info::default() });
    assert_eq!(all.on(ChannelKind::Presence), Info { cache: false, ..all });
    assert_eq!(all.on(ChannelKind::PresenceCache), all);
    assert!(all.on(ChannelKind::ServerToUser).is_empty());
}

proptest! {
    /// HTTP-29
    #[test]
    fn arbitrary_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = events(&body);
        let _ = batch(&body);
    }

    /// HTTP-29
    #[test]
    fn bodies_that_look_like_json_never_panic(body in r#"[{}\[\]":,\\u0-9a-f namechlsdtbkip_\-#.\n]{0,120}"#) {
        let _ = events(&body);
        let _ = batch(format!(r#"{{"batch":[{body}]}}"#));
        let _ = events(format!(r#"{{"name":"e","channel":"c","data":"{body}"}}"#));
    }

    /// HTTP-24
    #[test]
    fn any_name_and_data_come_out_as_they_went_in(name in "[^\\p{Cc}p]\\P{Cc}{0,50}", data in any::<String>()) {
        let body = serde_json::json!({"name": name, "data": data, "channels": ["c"]}).to_string();
        let publish = events(body).expect("a good call");
        let frame: Value = serde_json::from_str(publish.publications[0].frame.text()).expect("JSON");
        prop_assert_eq!(frame["event"].as_str(), Some(name.as_str()));
        prop_assert_eq!(frame["data"].as_str(), Some(data.as_str()));
    }

    /// HTTP-25
    #[test]
    fn data_is_counted_as_a_decoder_counts_it(data in any::<String>(), every in any::<bool>()) {
        let written: String = if every {
            data.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect()
        } else {
            let json = to_json(&data);
            json[1..json.len() - 1].to_owned()
        };
        prop_assert_eq!(decoded_bytes(written.as_bytes()), data.len());
        let quoted = format!("\"{written}\"");
        prop_assert!(!data_exceeds(&quoted, data.len()));
        prop_assert!(data.is_empty() || data_exceeds(&quoted, data.len() - 1));
    }

    /// HTTP-25
    #[test]
    fn text_that_is_not_json_is_measured_without_a_panic(text in r#"[\\ud8cf"]{0,40}"#) {
        let _ = data_exceeds(&text, 0);
    }
}
