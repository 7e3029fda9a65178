//! Signatures against published vectors, refusals, and what nobody should be able to make us do.

use proptest::prelude::*;

use super::*;

const SIGNED_AT: u64 = 1_353_088_179;
const AUTH: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0";

fn app() -> App {
    App::new("3", "278d425bdf160c739803", "7ad3773142a6692b25b8")
}

fn socket(text: &str) -> SocketId {
    SocketId::parse(text).expect("two numbers").expect("one of ours")
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, 164).expect("a good name")
}

/// Vectors V-P: socket, channel, channel_data, signature.
const CHANNELS: [(&str, &str, Option<&str>, &str); 11] = [
    ("1234.1234", "private-foobar", None, "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"),
    (
        "1234.1234",
        "presence-foobar",
        Some(r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#),
        "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
    ),
    (
        "1234.1234",
        "presence-foobar",
        Some(r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#),
        "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c",
    ),
    (
        "52.7",
        "presence-chat",
        Some(r#"{"user_id":"é-1","user_info":{"name":"Zoë ☃"}}"#),
        "b2fe24252b4ed0945101d96a9bab91468e249a27aaf742b85eacab12986fb97a",
    ),
    (
        "52.7",
        "presence-chat",
        Some(r#"{"user_id": "\u00e9-1"}"#),
        "a6f8aa1dbf83b0dff183b6cb71c9ec56907fa24369c337d55b8d3004b874eb60",
    ),
    ("123456.7890123", "private-room-1", None, "7a7dfb533e747a709f831aaa1fcc77a15d57422fcd485afb656905033fbc9094"),
    ("1234.1234", "private-encrypted-demo", None, "4321394a71bfd551647c69affe675131df818171a34841f29ef01ee2d9919dad"),
    ("1234.1234", "presence-foobar", None, "71506e66e7fdca106571b8999a849ad34245bc653772e51e0026c1a2475b92ba"),
    (
        "1234.1234",
        "private-foobar",
        Some(r#"{"user_id":"9"}"#),
        "12d78ca5f011888284b31730747e6783dc007580a78993381d7797a4ce5b6955",
    ),
    ("1234.1234", "private-cache-foo", None, "a62de12ce80893ec63e0af7f4628cbf23565b09a27d563cd6dee8c15fe130426"),
    (
        "1234.1234",
        "private-encrypted-cache-foo",
        None,
        "c1ef3984ea072288040b891e1c96ea5b5db0f0b2a397b0699a358904c1aa11e6",
    ),
];

/// WS-50, WS-52, HTTP-21, vectors V-P1 to V-P9
#[test]
fn a_subscription_is_allowed_by_the_digest_of_socket_channel_and_data_as_received() {
    let app = app();
    for (socket_id, name, data, hex) in CHANNELS {
        let (socket_id, channel) = (socket(socket_id), channel(name));
        let auth = format!("{}:{hex}", app.key);
        assert_eq!(Signer::of(&app).sign_channel(socket_id, &channel, data), auth);
        let signed = check_channel_auth(&app, socket_id, &channel, data, &auth).expect(name);
        assert_eq!(signed.into_inner(), ChannelAuth { socket_id, channel: &channel, channel_data: data });
        let shouting = format!("{}:{}", app.key, hex.to_uppercase());
        assert!(check_channel_auth(&app, socket_id, &channel, data, &shouting).is_ok());
    }
}

/// WS-54
#[test]
fn a_signature_holds_for_nothing_but_what_was_signed() {
    let app = app();
    let (id, room, data) = (socket("1.2"), channel("private-a"), Some("{}"));
    let auth = Signer::of(&app).sign_channel(id, &room, data);
    assert!(check_channel_auth(&app, id, &room, data, &auth).is_ok());
    assert!(check_channel_auth(&app, socket("1.3"), &room, data, &auth).is_err());
    assert!(check_channel_auth(&app, id, &channel("private-b"), data, &auth).is_err());
    assert!(check_channel_auth(&app, id, &room, Some("{} "), &auth).is_err());
    assert!(check_channel_auth(&app, id, &room, None, &auth).is_err());
    assert!(check_user_auth(&app, id, "{}", &auth).is_err());
    for cut in 1..=64 {
        assert!(check_channel_auth(&app, id, &room, data, &auth[..auth.len() - cut]).is_err());
    }
    assert!(check_channel_auth(&app, id, &room, data, &format!("{auth}0")).is_err());
}

/// WS-55
#[test]
fn a_refused_subscription_is_told_why_in_the_words_of_the_hosted_service() {
    let app = app();
    let table = [
        ("", "Auth info required to subscribe to private-a"),
        ("nonsense", "Auth value for subscription to private-a is invalid: should be of format 'key:signature'"),
        ("other:00", "Invalid key in subscription auth data: 'other'"),
        ("278D425BDF160C739803:00", "Invalid key in subscription auth data: '278D425BDF160C739803'"),
        (
            "278d425bdf160c739803:zz",
            "Invalid signature: Expected HMAC SHA256 hex digest of 1.2:private-a:{}, but got zz",
        ),
        ("278d425bdf160c739803:", "Invalid signature: Expected HMAC SHA256 hex digest of 1.2:private-a:{}, but got "),
    ];
    for (auth, text) in table {
        let room = channel("private-a");
        let refusal = check_channel_auth(&app, socket("1.2"), &room, Some("{}"), auth);
        assert_eq!(refusal.expect_err(auth).to_string(), text);
    }
}

/// HTTP-21, vectors V-U1 and V-U2
#[test]
fn a_sign_in_is_allowed_by_the_digest_of_socket_and_user_data() {
    let app = app();
    let table = [
        ("1234.1234", r#"{"id":"12345"}"#, "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"),
        (
            "123456.7890123",
            r#"{"id":"u-42","user_info":{"name":"Ana"},"watchlist":["u-1","u-2"]}"#,
            "26010d3f766eb8a27d4eda0ee1cc84a3701118c40f723c87126796d6e9abed26",
        ),
    ];
    for (socket_id, user_data, hex) in table {
        let socket_id = socket(socket_id);
        let auth = format!("{}:{hex}", app.key);
        assert_eq!(Signer::of(&app).sign_user(socket_id, user_data), auth);
        let signed = check_user_auth(&app, socket_id, user_data, &auth).expect(user_data);
        assert_eq!(signed.user_data, user_data);
        let refusal = check_user_auth(&app, socket_id, "{}", &auth).expect_err("other data");
        assert!(refusal.to_string().contains(&format!("{socket_id}::user::{{}}, but got {hex}")));
    }
    for malformed in ["", "nonsense"] {
        let refusal = check_user_auth(&app, socket("1.2"), "{}", malformed).expect_err(malformed);
        assert_eq!(refusal.to_string(), "Invalid format: auth must have the format key:signature");
    }
}

/// WS-53, HTTP-18
#[test]
fn while_a_secret_is_rotated_both_the_new_and_the_old_one_verify() {
    let (old, mut rotated) = (app(), app());
    rotated.previous_secret = Some(std::mem::replace(&mut rotated.secret, Secret::new("new")));
    let mut retired = rotated.clone();
    retired.previous_secret = None;
    let (id, room) = (socket("1.2"), channel("private-a"));
    for signer in [Signer::of(&old), Signer::of(&rotated)] {
        let auth = signer.sign_channel(id, &room, None);
        assert!(check_channel_auth(&rotated, id, &room, None, &auth).is_ok());
        let query = signer.sign_request("GET", "/apps/3/channels", &[], b"", SIGNED_AT);
        assert_eq!(verify(&rotated, "GET", "/apps/3/channels", &query, b"", SIGNED_AT), Ok(()));
    }
    let auth = Signer::of(&old).sign_channel(id, &room, None);
    assert!(check_channel_auth(&retired, id, &room, None, &auth).is_err());
}

fn verify(
    app: &App,
    method: &str,
    path: &str,
    query: &str,
    body: &[u8],
    now_unix_s: u64,
) -> Result<(), RequestAuthError> {
    let query = Query::parse(query).expect("a good query");
    verify_request(Request { app, method, path, query: &query, body }, now_unix_s).map(|_| ())
}

const EVENT_BODY: &str = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
const BATCH_BODY: &str = concat!(
    r#"{"batch":[{"channel":"a","name":"e1","data":"1"},"#,
    r#"{"channel":"presence-b","name":"e2","data":"{\"x\":2}","info":"user_count"}]}"#
);

/// A vector V-H: what was called, the parameters beside `AUTH` as they are on the wire, and the signature.
struct Call {
    method: &'static str,
    path: &'static str,
    body: &'static str,
    wire: &'static str,
    signature: &'static str,
}

const fn call(
    method: &'static str,
    path: &'static str,
    body: &'static str,
    wire: &'static str,
    signature: &'static str,
) -> Call {
    Call { method, path, body, wire, signature }
}

const CALLS: [Call; 15] = [
    call(
        "POST",
        "/apps/3/events",
        EVENT_BODY,
        "body_md5=ec365a775a4cd0599faeb73354201b6f",
        "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c",
    ),
    call(
        "GET",
        "/apps/3/channels",
        "",
        "filter_by_prefix=presence-&info=user_count",
        "16819168891cb5dfd72b5c7a5d3d602605b26c6ba1930033b5e2eeeb65010291",
    ),
    call(
        "GET",
        "/apps/3/channels/presence-a=@,.;",
        "",
        "info=user_count,subscription_count",
        "065c4cf410c4d003494c641ed1e49788fb2d720e386629909ce076049de948c5",
    ),
    // The same as PHP, Ruby and Java put it on the wire.
    call(
        "GET",
        "/apps/3/channels/presence-a=@,.;",
        "",
        "info=user_count%2Csubscription_count",
        "065c4cf410c4d003494c641ed1e49788fb2d720e386629909ce076049de948c5",
    ),
    // The same behind a proxy that escapes paths.
    call(
        "GET",
        "/apps/3/channels/presence-a%3D%40%2c.%3B",
        "",
        "info=user_count,subscription_count",
        "065c4cf410c4d003494c641ed1e49788fb2d720e386629909ce076049de948c5",
    ),
    // Python digests the empty body of a GET.
    call(
        "GET",
        "/apps/3/channels/presence-x/users",
        "",
        "body_md5=d41d8cd98f00b204e9800998ecf8427e",
        "44f57ac744e18c0647b65a69a6b2bc1069c1780dd47aa768bd3b2242738df006",
    ),
    call(
        "POST",
        "/apps/3/users/u-42/terminate_connections",
        "{}",
        "body_md5=99914b932bd37a50b983c5e7c90ae93b",
        "da483652dc1680a43d03eb4788c17f443fc698dc38bf07dfe7da73d95485043a",
    ),
    call(
        "POST",
        "/apps/3/batch_events",
        BATCH_BODY,
        "body_md5=250d930fed72f228ac05a4a8e70966c0",
        "38a09a2293bab66c112a508c9f2b1fb9ed7faba7d4a7a75dc0adbf0d0b8924ff",
    ),
    // Python leaves the app out of this path.
    call(
        "POST",
        "/users/u-42/terminate_connections",
        "{}",
        "body_md5=99914b932bd37a50b983c5e7c90ae93b",
        "5fef25eb11b5e240af92a59668270cfc87ca1916f14d2f81eb05e7793682fd4c",
    ),
    call(
        "POST",
        "/apps/3/events",
        r#"{"name":"e","channel":"c","data":"{\"t\":\"Zoë ☃\"}"}"#,
        "body_md5=f09d4aa74472a6fc4357555745bc63c8",
        "35f29a16ace77f4efd184c1417066a059768b470d95eb9104ece147ea1a375e2",
    ),
    call(
        "GET",
        "/apps/3/channels",
        "",
        "Info=user_count&filter_by_prefix=presence-a%20b",
        "dbb473d4e7637d5452e3620cbb07797ca370d24ee44a0105ab9ec057ec7300b7",
    ),
    call(
        "GET",
        "/apps/3/channels",
        "",
        "filter_by_prefix=presence-a+b&info=user_count",
        "dbb473d4e7637d5452e3620cbb07797ca370d24ee44a0105ab9ec057ec7300b7",
    ),
    call(
        "POST",
        "/apps/3/events",
        r##"{"name":"hello","channels":["#server-to-user-u-42"],"data":"{}"}"##,
        "body_md5=b793d897377591cda5c279eee4c51ccf",
        "b93b8ce5c9ed30e5277ccd0c17fc6c6dc96fa73dc2ad2ffae623a4e7463bce40",
    ),
    call(
        "POST",
        "/apps/3/events",
        "",
        "channels[]=a&channels[]=b&data=x%20y%26z&name=foo",
        "e9197c758dae4ab8628d74705044e5706b39176519e6728f4b94e2687b9b3d4d",
    ),
    call(
        "POST",
        "/apps/3/events",
        "",
        "name=foo&data=x+y%26z&channels%5B%5D=a&channels%5B%5D=b",
        "e9197c758dae4ab8628d74705044e5706b39176519e6728f4b94e2687b9b3d4d",
    ),
];

/// HTTP-10, HTTP-12, HTTP-13, HTTP-15, HTTP-21, vectors V-H1 to V-H11, traps T-33, T-34 and T-39
#[test]
fn calls_of_every_library_verify_wherever_it_puts_the_signature() {
    let app = app();
    for Call { method, path, body, wire, signature } in CALLS {
        let orders = [
            format!("{AUTH}&{wire}&auth_signature={signature}"),
            format!("auth_signature={signature}&{wire}&{AUTH}"),
            format!("{wire}&{AUTH}&auth_signature={}", signature.to_uppercase()),
        ];
        for query in orders {
            assert_eq!(verify(&app, method, path, &query, body.as_bytes(), SIGNED_AT), Ok(()), "{path} {query}");
            assert_eq!(
                verify(&app, &method.to_lowercase(), path, &query, body.as_bytes(), SIGNED_AT),
                Ok(()),
                "{path}"
            );
        }
    }
}

/// HTTP-21
#[test]
fn a_published_example_with_one_digit_changed_verifies_nothing() {
    let app = app();
    let changed = |hex: &str| format!("{}{}", &hex[..63], if hex.ends_with('0') { '1' } else { '0' });
    for (socket_id, name, data, hex) in CHANNELS {
        let (channel, auth) = (channel(name), format!("{}:{}", app.key, changed(hex)));
        assert!(check_channel_auth(&app, socket(socket_id), &channel, data, &auth).is_err());
    }
    for Call { method, path, body, wire, signature } in CALLS {
        let query = format!("{AUTH}&{wire}&auth_signature={}", changed(signature));
        let refused = verify(&app, method, path, &query, body.as_bytes(), SIGNED_AT);
        assert!(matches!(refused, Err(RequestAuthError::BadSignature { .. })), "{path} {refused:?}");
    }
}

/// HTTP-13
#[test]
fn a_parameter_without_a_value_is_signed_with_an_empty_one() {
    let app = app();
    let query = Signer::of(&app).sign_request("GET", "/apps/3/channels", &[("z", "")], b"", SIGNED_AT);
    for sent in [query.replace("z=&", "z&"), query] {
        assert_eq!(verify(&app, "GET", "/apps/3/channels", &sent, b"", SIGNED_AT), Ok(()));
    }
}

/// HTTP-21, vectors V-H
#[test]
fn what_we_sign_ourselves_is_what_the_libraries_sign() {
    let app = app();
    for Call { method, path, body, wire, signature } in CALLS {
        if path.contains('%') || (body.is_empty() && wire.starts_with("body_md5")) {
            continue; // Signed unescaped, or with the digest of nothing: others do, we do not.
        }
        let given = Query::parse(wire).expect("a good query");
        let params: Vec<_> = given.iter().filter(|(name, _)| *name != "body_md5").collect();
        let query = Signer::of(&app).sign_request(method, path, &params, body.as_bytes(), SIGNED_AT);
        assert!(query.ends_with(&format!("&auth_signature={signature}")), "{path} {query}");
        assert_eq!(verify(&app, method, path, &query, body.as_bytes(), SIGNED_AT), Ok(()));
    }
}

/// HTTP-17
#[test]
fn a_call_is_good_for_less_than_600_seconds_on_either_side() {
    let app = app();
    let query = Signer::of(&app).sign_request("GET", "/apps/3/channels", &[], b"", SIGNED_AT);
    let at = |now| verify(&app, "GET", "/apps/3/channels", &query, b"", now);
    assert_eq!(at(SIGNED_AT + 599), Ok(()));
    assert_eq!(at(SIGNED_AT - 599), Ok(()));
    for now_unix_s in [SIGNED_AT + 600, SIGNED_AT - 600, 0, u64::MAX] {
        assert_eq!(at(now_unix_s), Err(RequestAuthError::TimestampExpired { given_unix_s: SIGNED_AT, now_unix_s }));
    }
}

/// HTTP-14
#[test]
fn a_changed_call_is_refused() {
    let app = app();
    let Call { method, path, body, wire, signature } = CALLS[0];
    let query = format!("{AUTH}&{wire}&auth_signature={signature}");
    let changed = body.replace("foo", "fop");
    assert_eq!(
        verify(&app, method, path, &query, changed.as_bytes(), SIGNED_AT),
        Err(RequestAuthError::BodyChanged {
            received: to_hex(&Md5::digest(changed.as_bytes())),
            given: "ec365a775a4cd0599faeb73354201b6f".to_owned()
        })
    );
    assert!(verify(&app, "GET", path, &query, body.as_bytes(), SIGNED_AT).is_err());
    assert!(verify(&app, method, "/apps/3/event", &query, body.as_bytes(), SIGNED_AT).is_err());
    assert!(verify(&app, method, path, &format!("{query}&info=user_count"), body.as_bytes(), SIGNED_AT).is_err());
    assert!(verify(&app, method, path, &query, b"", SIGNED_AT).is_err());

    let without_info = format!("{AUTH}&filter_by_prefix=presence-&auth_signature={}", CALLS[1].signature);
    assert!(verify(&app, "GET", "/apps/3/channels", &without_info, b"", SIGNED_AT).is_err());

    let unsigned_body = Signer::of(&app).sign_request(method, path, &[], b"", SIGNED_AT);
    assert_eq!(
        verify(&app, method, path, &unsigned_body, body.as_bytes(), SIGNED_AT),
        Err(RequestAuthError::Missing("body_md5"))
    );
}

/// HTTP-16
#[test]
fn a_path_signed_before_it_was_escaped_verifies_too() {
    let app = app();
    let signer = Signer::of(&app);
    for signed_path in ["/apps/3/users/a b/terminate_connections", "/apps/3/users/a%20b/terminate_connections"] {
        let query = signer.sign_request("POST", signed_path, &[], b"{}", SIGNED_AT);
        let sent = "/apps/3/users/a%20b/terminate_connections";
        assert_eq!(verify(&app, "POST", sent, &query, b"{}", SIGNED_AT), Ok(()));
    }
    let query = signer.sign_request("GET", "/apps/3/channels/%ff", &[], b"", SIGNED_AT);
    assert_eq!(verify(&app, "GET", "/apps/3/channels/%ff", &query, b"", SIGNED_AT), Ok(()));
}

/// HTTP-19
#[test]
fn a_refused_call_is_told_why_in_the_words_of_the_reference_verifier() {
    let app = app();
    let table = [
        ("info=x", "Missing parameter: auth_key"),
        ("auth_key=other", "Unknown auth_key"),
        ("auth_key=278d425bdf160c739803", "Version required"),
        ("auth_key=278d425bdf160c739803&auth_version=2.0", "Version not supported"),
        ("auth_key=278d425bdf160c739803&auth_version=1.0", "Timestamp required"),
        ("auth_key=278d425bdf160c739803&auth_version=1.0&auth_timestamp=soon", "Timestamp required"),
        ("auth_key=278d425bdf160c739803&auth_version=1.0&auth_timestamp=-5", "Timestamp required"),
        (
            "auth_key=278d425bdf160c739803&auth_version=1.0&auth_timestamp=1380444393",
            "Timestamp expired: Given timestamp (2013-09-29T08:46:33Z) not within 600s of server time \
             (2013-09-29T08:36:32Z)",
        ),
        (
            "auth_key=278d425bdf160c739803&auth_version=1.0&auth_timestamp=1380443792",
            "Missing parameter: auth_signature",
        ),
        (
            "auth_key=278d425bdf160c739803&auth_version=1.0&auth_timestamp=1380443792&auth_signature=no\"",
            "Invalid signature: you should have sent HmacSHA256Hex(\"POST\\n/apps/3/events\\n\
             auth_key=278d425bdf160c739803&auth_timestamp=1380443792&auth_version=1.0\", your_secret_key), \
             but you sent \"no\\\"\"",
        ),
    ];
    for (query, text) in table {
        let refusal = verify(&app, "POST", "/apps/3/events", query, b"", 1_380_443_792).expect_err(query);
        assert_eq!(refusal.to_string(), text);
    }
}

/// HTTP-18
#[test]
fn the_key_of_one_app_opens_no_path_of_another() {
    let app = app();
    for path in ["/apps/4/events", "/apps/33/events", "/apps/", "/apps/4"] {
        let query = Signer::of(&app).sign_request("POST", path, &[], b"{}", SIGNED_AT);
        assert_eq!(verify(&app, "POST", path, &query, b"{}", SIGNED_AT), Err(RequestAuthError::OtherApp), "{path}");
    }
}

/// WS-56, HTTP-20
#[test]
fn no_refusal_shows_a_secret_or_the_digest_that_would_have_been_right() {
    let app = app();
    let (id, room) = (socket("1.2"), channel("private-a"));
    let right = Signer::of(&app).sign_channel(id, &room, None);
    let refusal = check_channel_auth(&app, id, &room, None, &format!("{}:00", app.key)).expect_err("a bad signature");
    for shown in [refusal.to_string(), format!("{refusal:?}"), format!("{:?}", Signer::of(&app))] {
        assert!(!shown.contains("7ad3773142a6692b25b8"));
        assert!(!shown.contains(right.split_once(':').expect("key:signature").1));
    }
}

/// HTTP-19
#[test]
fn dates_are_right_around_leap_days_and_far_away() {
    let table = [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (951_868_800, "2000-03-01T00:00:00Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
        (1_735_689_599, "2024-12-31T23:59:59Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
    ];
    for (seconds, text) in table {
        assert_eq!(Utc(seconds).to_string(), text);
    }
    assert!(Utc(u64::MAX).to_string().ends_with('Z'));
}

proptest! {
    /// HTTP-10
    #[test]
    fn whatever_is_signed_verifies_after_it_was_escaped(
        params in prop::collection::vec(("[a-zA-Z_\\[\\]é &=%+]{1,12}", "\\PC{0,20}"), 0..8),
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let app = app();
        let params: Vec<_> = params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let query = Signer::of(&app).sign_request("POST", "/apps/3/events", &params, &body, SIGNED_AT);
        prop_assert_eq!(verify(&app, "POST", "/apps/3/events", &query, &body, SIGNED_AT), Ok(()));
    }

    /// HTTP-14
    #[test]
    fn arbitrary_calls_are_refused_without_a_panic(method in "\\PC{0,6}", path in "\\PC{0,30}", query in "\\PC{0,60}") {
        let query = format!("{AUTH}&{query}");
        if let Ok(query) = Query::parse(&query) {
            let request = Request { app: &app(), method: &method, path: &path, query: &query, body: b"" };
            prop_assert!(verify_request(request, SIGNED_AT).is_err());
        }
    }

    /// WS-54
    #[test]
    fn arbitrary_auth_is_refused_without_a_panic(auth in "(278d425bdf160c739803:)?\\PC{0,70}", data in "\\PC{0,20}") {
        let app = app();
        prop_assert!(check_channel_auth(&app, socket("1.2"), &channel("private-a"), Some(&data), &auth).is_err());
        prop_assert!(check_user_auth(&app, socket("1.2"), &data, &auth).is_err());
    }
}
