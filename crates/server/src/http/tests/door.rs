//! Who is let in, and what is said to requests that are not calls.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fulmar_protocol::app::App;
use fulmar_protocol::signing::Signer;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Given, KEY, Limits, NOW_S, World, request};

const A: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0";

/// Method, path, parameters, signature and body of the published examples, and spellings of them that libraries send.
const EXAMPLES: &[(&str, &str, &str, &str, &str)] = &[
    (
        "POST",
        "/apps/3/events",
        "body_md5=ec365a775a4cd0599faeb73354201b6f",
        "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c",
        r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#,
    ),
    (
        "GET",
        "/apps/3/channels",
        "filter_by_prefix=presence-&info=user_count",
        "16819168891cb5dfd72b5c7a5d3d602605b26c6ba1930033b5e2eeeb65010291",
        "",
    ),
    (
        "GET",
        "/apps/3/channels/presence-a=@,.;",
        "info=user_count,subscription_count",
        "065c4cf410c4d003494c641ed1e49788fb2d720e386629909ce076049de948c5",
        "",
    ),
    (
        "GET",
        "/apps/3/channels/presence-a=@,.;",
        "info=user_count%2Csubscription_count",
        "065c4cf410c4d003494c641ed1e49788fb2d720e386629909ce076049de948c5",
        "",
    ),
    (
        "GET",
        "/apps/3/channels/presence-a%3D%40%2C.%3B",
        "info=user_count%2Csubscription_count",
        "065c4cf410c4d003494c641ed1e49788fb2d720e386629909ce076049de948c5",
        "",
    ),
    (
        "GET",
        "/apps/3/channels/presence-x/users",
        "body_md5=d41d8cd98f00b204e9800998ecf8427e",
        "44f57ac744e18c0647b65a69a6b2bc1069c1780dd47aa768bd3b2242738df006",
        "",
    ),
    (
        "POST",
        "/apps/3/batch_events",
        "body_md5=250d930fed72f228ac05a4a8e70966c0",
        "38a09a2293bab66c112a508c9f2b1fb9ed7faba7d4a7a75dc0adbf0d0b8924ff",
        r#"{"batch":[{"channel":"a","name":"e1","data":"1"},{"channel":"presence-b","name":"e2","data":"{\"x\":2}","info":"user_count"}]}"#,
    ),
    (
        "POST",
        "/apps/3/events",
        "body_md5=f09d4aa74472a6fc4357555745bc63c8",
        "35f29a16ace77f4efd184c1417066a059768b470d95eb9104ece147ea1a375e2",
        r#"{"name":"e","channel":"c","data":"{\"t\":\"Zoë ☃\"}"}"#,
    ),
    (
        "GET",
        "/apps/3/channels",
        "Info=user_count&filter_by_prefix=presence-a+b",
        "dbb473d4e7637d5452e3620cbb07797ca370d24ee44a0105ab9ec057ec7300b7",
        "",
    ),
    (
        "POST",
        "/apps/3/events",
        "body_md5=b793d897377591cda5c279eee4c51ccf",
        "b93b8ce5c9ed30e5277ccd0c17fc6c6dc96fa73dc2ad2ffae623a4e7463bce40",
        r##"{"name":"hello","channels":["#server-to-user-u-42"],"data":"{}"}"##,
    ),
    (
        "POST",
        "/apps/3/events",
        "channels[]=a&channels[]=b&data=x+y%26z&name=foo",
        "e9197c758dae4ab8628d74705044e5706b39176519e6728f4b94e2687b9b3d4d",
        "",
    ),
];

/// HTTP-21, HTTP-10, HTTP-11, HTTP-12, HTTP-13, HTTP-15, HTTP-16, T-33, T-34
#[tokio::test]
async fn the_published_examples_are_let_in_however_they_are_written() {
    let world = World::new();
    for (method, path, params, signature, body) in EXAMPLES {
        let method: Method = method.parse().expect("a method");
        let target = format!("{path}?auth_signature={signature}&{params}&{A}");
        let said = world.plain(method.clone(), &target, body).await;
        assert_eq!(said.status, StatusCode::OK, "{target}: {}", said.body);
        let changed = target.replace("auth_timestamp=1353088179", "auth_timestamp=1353088178");
        assert_eq!(world.plain(method, &changed, body).await.status, StatusCode::UNAUTHORIZED, "{changed}");
    }
}

/// HTTP-14, HTTP-18, HTTP-19, HTTP-20
#[tokio::test]
async fn whoever_is_not_let_in_is_told_why() {
    let world = World::new();
    let md5 = "body_md5=ec365a775a4cd0599faeb73354201b6f";
    let signature = "auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
    let body = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    let table = [
        (String::new(), "Missing parameter: auth_key\n"),
        (A.replace(KEY, "nobody"), "Unknown auth_key\n"),
        (A.replace("auth_version=1.0", ""), "Version required\n"),
        (A.replace("auth_version=1.0", "auth_version=2.0"), "Version not supported\n"),
        (A.replace("auth_timestamp=1353088179", ""), "Timestamp required\n"),
        (A.replace(KEY, "other-key"), "The auth_key does not belong to the app of the path\n"),
        (A.to_owned(), "Missing parameter: auth_signature\n"),
        (
            format!("{A}&{md5}&auth_signature=00"),
            "Invalid signature: you should have sent HmacSHA256Hex(\"POST\\n/apps/3/events\\n\
             auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&\
             body_md5=ec365a775a4cd0599faeb73354201b6f\", your_secret_key), but you sent \"00\"\n",
        ),
    ];
    for (query, text) in table {
        world.plain(Method::POST, &format!("/apps/3/events?{query}"), body).await.expect(401, text);
    }
    let target = format!("/apps/3/events?{A}&{md5}&{signature}");
    let changed = world.plain(Method::POST, &target, &body.replace("foo", "fop")).await;
    assert_eq!(changed.status, StatusCode::UNAUTHORIZED);
    assert!(changed.body.starts_with("Invalid body_md5: "), "{}", changed.body);
    world.plain(Method::POST, &target, body).await.expect(200, "{}");
    assert_eq!(world.plain(Method::POST, "/apps/9/events", "").await.status, StatusCode::UNAUTHORIZED);
}

/// HTTP-17
#[tokio::test]
async fn a_signature_is_good_for_less_than_ten_minutes_either_way() {
    let world = World::new();
    let target = format!(
        "/apps/3/channels?{A}&filter_by_prefix=presence-&info=user_count\
         &auth_signature=16819168891cb5dfd72b5c7a5d3d602605b26c6ba1930033b5e2eeeb65010291"
    );
    for (now_s, status) in [(NOW_S + 599, 200), (NOW_S + 600, 401), (NOW_S - 599, 200), (NOW_S - 600, 401)] {
        world.dial.store(now_s * 1_000, std::sync::atomic::Ordering::Relaxed);
        let said = world.plain(Method::GET, &target, "").await;
        assert_eq!(said.status, status, "{}", said.body);
    }
}

/// HTTP-46
#[tokio::test]
async fn a_disabled_app_is_refused_after_its_signature_was_checked() {
    let world = World::new();
    let app = App::new("4", "disabled-key", "s");
    let query = Signer::of(&app).sign_request("GET", "/apps/4/channels", &[], b"", NOW_S);
    let said = world.plain(Method::GET, &format!("/apps/4/channels?{query}"), "").await;
    said.expect(403, "The app 4 is disabled\n");
    let forged = query.replace("auth_signature=", "auth_signature=0");
    assert_eq!(world.plain(Method::GET, &format!("/apps/4/channels?{forged}"), "").await.status, 401);
}

/// HTTP-5
#[tokio::test]
async fn no_path_is_answered_with_another_place_to_go() {
    let world = World::with(Given { path_prefix: "/ws", ..Given::default() });
    for path in [
        "/",
        "/ws",
        "/ws/",
        "/app",
        "/apps/3/channels/",
        "//apps/3/channels",
        "/apps/3/../3/channels",
        "/APPS/3/channels",
    ] {
        for method in [Method::GET, Method::POST, Method::HEAD] {
            let said = world.plain(method, path, "").await;
            assert!(!said.status.is_redirection(), "{path}: {}", said.status);
        }
    }
}

/// HTTP-64
#[tokio::test]
async fn a_prefix_may_be_signed_or_not_and_sent_or_not() {
    let world = World::with(Given { path_prefix: "/ws", ..Given::default() });
    for (sent, signed) in [
        ("/apps/3/channels", "/apps/3/channels"),
        ("/ws/apps/3/channels", "/ws/apps/3/channels"),
        ("/ws/apps/3/channels", "/apps/3/channels"),
        ("/apps/3/channels", "/ws/apps/3/channels"),
    ] {
        let query = Signer::of(&world.app).sign_request("GET", signed, &[], b"", NOW_S);
        let said = world.plain(Method::GET, &format!("{sent}?{query}"), "").await;
        said.expect(200, r#"{"channels":{}}"#);
        let others = query.replace(KEY, "other-key");
        assert_eq!(world.plain(Method::GET, &format!("{sent}?{others}"), "").await.status, 401);
    }
    world.plain(Method::GET, "/ws/livez", "").await.expect(200, "ok\n");
}

/// HTTP-6, HTTP-7
#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_told_apart() {
    let world = World::new();
    for path in ["/", "/apps", "/apps/3/event", "/demo/send", "/favicon.ico"] {
        let said = world.plain(Method::GET, path, "").await;
        assert_eq!(said.status, 404, "{path}");
        assert!(said.body.starts_with("There is nothing at this path. The API: ") && said.body.ends_with('\n'));
    }
    for (method, path, allow) in [
        (Method::GET, "/apps/3/events", "POST, OPTIONS"),
        (Method::PUT, "/apps/3/batch_events", "POST, OPTIONS"),
        (Method::POST, "/apps/3/channels", "GET, HEAD, OPTIONS"),
        (Method::GET, "/apps/3/users/u/terminate_connections", "POST, OPTIONS"),
        (Method::DELETE, "/users/u/terminate_connections", "POST, OPTIONS"),
        (Method::DELETE, "/livez", "GET, HEAD, OPTIONS"),
    ] {
        let said = world.plain(method, path, "").await;
        said.expect(405, &format!("This path takes {allow}\n"));
        assert_eq!(said.header("allow"), Some(allow));
        let options = world.plain(Method::OPTIONS, path, "").await;
        assert_eq!((options.status.as_u16(), options.header("allow")), (204, Some(allow)));
        assert!(options.headers.keys().all(|name| !name.as_str().starts_with("access-control")));
    }
}

/// HTTP-6
#[tokio::test]
async fn a_websocket_address_asked_for_by_plain_http_says_what_it_is() {
    let world = World::new();
    let said = world.plain(Method::GET, "/app/some-key?protocol=7", "").await;
    said.expect(426, "This is a WebSocket address: connect to it with a Pusher client library\n");
    assert_eq!(said.header("upgrade"), Some("websocket"));
}

/// HTTP-62
#[tokio::test]
async fn compressed_bodies_are_refused_and_say_so() {
    let world = World::new();
    for (encoding, status) in [("gzip", 415), ("identity", 200)] {
        let mut request = world.signed(Method::GET, "/apps/3/channels", &[], "");
        request.headers_mut().insert("content-encoding", encoding.parse().expect("a header"));
        assert_eq!(world.send(request).await.status, status, "{encoding}");
    }
}

/// HTTP-8
#[tokio::test]
async fn a_body_above_the_limit_is_refused_before_anything_else_is_looked_at() {
    let limits = Limits { request_body_bytes_max: 64, ..Limits::default() };
    let world = World::with(Given { limits, ..Given::default() });
    let said = world.plain(Method::POST, "/apps/3/events", &"x".repeat(65)).await;
    said.expect(413, "The request body exceeds the allowed maximum (64 bytes)\n");
    assert_eq!(said.header("connection"), Some("close"));
    assert_eq!(world.plain(Method::POST, "/apps/3/events", &"x".repeat(64)).await.status, 401);
    world.api.set_limits(Limits { request_body_bytes_max: 63, ..Limits::default() });
    assert_eq!(world.plain(Method::POST, "/apps/3/events", &"x".repeat(64)).await.status, 413);
}

/// HTTP-58
#[tokio::test]
async fn statistics_are_answered_and_no_receiver_can_smuggle_script() {
    let world = World::new();
    let said = world.plain(Method::GET, "/timeline/v2/jsonp/1?session=x", "").await;
    assert_eq!((said.status.as_u16(), said.body.as_str()), (200, "Pusher.ScriptReceivers[\"1\"](null, {});\n"));
    assert_eq!(said.header("content-type"), Some("application/javascript; charset=utf-8"));
    for bad in ["", "a-b", "a%22", "1](alert(1))", &"x".repeat(65)] {
        let said = world.plain(Method::GET, &format!("/timeline/v2/jsonp/{bad}"), "").await;
        said.expect(400, "The receiver must be a number or a plain word\n");
    }
    world.plain(Method::GET, "/timeline/v2/xhr/2?x=1", "").await.expect(200, "{}");
    world.plain(Method::POST, "/timeline/v2/xhr/2", "x").await.expect(200, "{}");
}

/// HTTP-55, HTTP-56
#[tokio::test]
async fn health_says_what_is_wrong() {
    let world = World::new();
    world.plain(Method::GET, "/livez", "").await.expect(200, "ok\n");
    world.plain(Method::GET, "/readyz", "").await.expect(503, "not ready: no configuration yet\n");
    world.readiness.configured();
    world.readiness.listening();
    world.readiness.tested();
    world.plain(Method::GET, "/readyz", "").await.expect(200, "ready\n");
    world.readiness.draining();
    world.plain(Method::GET, "/readyz", "").await.expect(503, "not ready: draining\n");
    world.pass(Duration::from_secs(6));
    world.pulses.beat(0, world.api.clock.elapsed_ms());
    world.plain(Method::GET, "/livez", "").await.expect(503, "worker 1 has not turned for 6000 ms\n");
}

/// NODE-10
#[tokio::test]
async fn a_node_without_the_role_rest_says_so_and_is_well() {
    let world = World::with(Given { takes_calls: false, ..Given::default() });
    let said = world.plain(Method::GET, "/apps/3/channels", "").await;
    assert_eq!((said.status.as_u16(), said.header("retry-after")), (503, Some("1")));
    assert!(said.body.contains("takes no REST calls"), "{}", said.body);
    world.plain(Method::GET, "/livez", "").await.expect(200, "ok\n");
    world.readiness.configured();
    world.readiness.listening();
    world.readiness.tested();
    world.plain(Method::GET, "/readyz", "").await.expect(200, "ready\n");
}

/// A connection to the node, in memory.
fn connect(world: &World) -> tokio::io::DuplexStream {
    let (near, far) = tokio::io::duplex(1 << 16);
    let api = Arc::clone(&world.api);
    tokio::spawn(async move {
        let service = service_fn(move |request| {
            let api = Arc::clone(&api);
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
        // How a connection ends is not what these tests look at.
        drop(serving.await);
    });
    near
}

async fn client(world: &World) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = handshake(TokioIo::new(connect(world))).await.expect("a connection");
    tokio::spawn(connection);
    sender
}

async fn status_and_body(sender: &mut SendRequest<Full<Bytes>>, mut request: Request<Full<Bytes>>) -> (u16, Bytes) {
    request.headers_mut().insert("host", "localhost".parse().expect("a header"));
    sender.ready().await.expect("the connection is still there");
    let response = sender.send_request(request).await.expect("an answer");
    (response.status().as_u16(), response.into_body().collect().await.expect("a body").to_bytes())
}

/// HTTP-1, HTTP-6
#[tokio::test]
async fn one_connection_carries_many_calls_also_after_refused_ones() {
    let world = World::new();
    let mut sender = client(&world).await;
    let event = r#"{"name":"e","channel":"a","data":"x"}"#;
    for _ in 0..3 {
        let good = world.signed(Method::POST, "/apps/3/events", &[], event);
        assert_eq!(status_and_body(&mut sender, good).await, (200, Bytes::from_static(b"{}")));
        for (method, path, body, status) in [
            (Method::POST, "/apps/3/events", event, 401),
            (Method::POST, "/nowhere", event, 404),
            (Method::POST, "/apps/3/channels", event, 405),
            (Method::GET, "/app/key", "", 426),
        ] {
            assert_eq!(status_and_body(&mut sender, request(method, path, body)).await.0, status, "{path}");
        }
        let head = world.signed(Method::HEAD, "/apps/3/channels", &[], "");
        assert_eq!(status_and_body(&mut sender, head).await, (200, Bytes::new()));
    }
}

/// HTTP-1
#[tokio::test]
async fn a_body_that_comes_after_its_head_is_waited_for() {
    let world = World::new();
    let body = r#"{"name":"e","channel":"a","data":"x"}"#;
    let query = Signer::of(&world.app).sign_request("POST", "/apps/3/events", &[], body.as_bytes(), NOW_S);
    let mut socket = connect(&world);
    let head = format!("POST /apps/3/events?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    for piece in [head.as_bytes(), &body.as_bytes()[..5], &body.as_bytes()[5..]] {
        socket.write_all(piece).await.expect("written");
        tokio::task::yield_now().await;
    }
    let mut answer = [0; 15];
    socket.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

/// HTTP-59
#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
    let world = World::new();
    let mut socket = connect(&world);
    let head = b"POST /apps/3/events HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234";
    socket.write_all(head).await.expect("written");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer and the end");
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"), "{answer}");
}
