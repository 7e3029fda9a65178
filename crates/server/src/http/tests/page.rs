//! The demo page and its button.

use bytes::Bytes;
use fulmar_protocol::app::App;
use http_body_util::Full;
use hyper::{Method, Request};

use super::{Given, SECRET, Said, World};

fn world() -> World {
    World::with(Given { demo: true, ..Given::default() })
}

async fn press(world: &World, text: &str) -> Said {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes()));
    let request = Request::post("/demo/send").header("sec-fetch-site", "same-origin").body(body).expect("a request");
    world.send(request).await
}

/// HTTP-57
#[tokio::test]
async fn the_page_is_there_with_the_demo_app_and_only_then() {
    let said = world().plain(Method::GET, "/", "").await;
    assert_eq!((said.status.as_u16(), said.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(said.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'")));
    assert!(!said.body.contains(SECRET));
    assert_eq!(World::new().plain(Method::GET, "/", "").await.status, 404);
    assert_eq!(press(&World::new(), "x").await.status, 404);
}

/// HTTP-57
#[tokio::test]
async fn the_page_goes_when_a_reload_switches_its_app_off_and_comes_back_with_it() {
    let world = world();
    world.apps.replace(vec![App::new("9", "k", "s")]);
    for said in [world.plain(Method::GET, "/", "").await, press(&world, "x").await] {
        assert_eq!(said.status, 404);
    }
    world.apps.replace(vec![App { enabled: false, ..world.app.clone() }]);
    assert_eq!(world.plain(Method::GET, "/", "").await.status, 404);
    world.apps.replace(vec![world.app.clone()]);
    assert_eq!(world.plain(Method::GET, "/", "").await.status, 200);
}

/// HTTP-57
#[tokio::test]
async fn the_button_goes_through_the_signed_api_and_shows_the_very_call() {
    let world = world();
    world.follow("my-channel", None);
    let said = press(&world, r#"{"message":"hi"}"#).await;
    let shown: serde_json::Value = serde_json::from_str(&said.body).expect("JSON");
    assert_eq!((shown["status"].as_u64(), shown["answer"].as_str()), (Some(200), Some("{}")));
    assert_eq!(world.heard(), [r#"{"event":"my-event","channel":"my-channel","data":"{\"message\":\"hi\"}"}"#]);
    assert!(!said.body.contains(SECRET));
    // What is shown can be sent again by hand: it is the call itself and not a description.
    let text = |name: &str| shown[name].as_str().expect("text").to_owned();
    let target = format!("{}?{}", text("path"), text("query"));
    world.plain(Method::POST, &target, &text("body")).await.expect(200, "{}");
    assert_eq!(world.heard().len(), 1);
}

/// HTTP-57
#[tokio::test]
async fn no_other_page_and_no_machine_can_press_the_button() {
    let world = world();
    for site in [None, Some("cross-site"), Some("same-site"), Some("none")] {
        let mut request = Request::post("/demo/send");
        if let Some(site) = site {
            request = request.header("sec-fetch-site", site);
        }
        let said = world.send(request.body(Full::default()).expect("a request")).await;
        said.expect(403, "Only the page of this server may use this\n");
    }
    for _ in 0..10 {
        assert_eq!(press(&world, "x").await.status, 200);
    }
    press(&world, "x").await.expect(503, "That was too fast, try again in a second\n");
    world.pass(std::time::Duration::from_secs(1));
    assert_eq!(press(&world, "x").await.status, 200);
    assert_eq!(press(&world, &"x".repeat(1_025)).await.status, 413);
    assert_eq!(world.backbone.publishes(), 11);
}

/// HTTP-57
#[tokio::test]
async fn a_refusal_of_the_signed_api_is_shown_as_it_is() {
    let world = world();
    world.pass(std::time::Duration::from_secs(5));
    world.backbone.set(super::Gate::Broken);
    let said = press(&world, "x").await;
    let shown: serde_json::Value = serde_json::from_str(&said.body).expect("JSON");
    assert_eq!(shown["status"].as_u64(), Some(503));
}
