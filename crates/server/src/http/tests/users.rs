//! Ending the connections of a user.

use fulmar_protocol::app::App;
use hyper::Method;

use super::{Gate, KEY, NOW_S, Signer, World};

/// MD5 of `{}`.
const BODY_MD5: &str = "99914b932bd37a50b983c5e7c90ae93b";

/// Path and signature of published calls.
const PUBLISHED: [(&str, &str); 2] = [
    ("/apps/3/users/u-42/terminate_connections", "da483652dc1680a43d03eb4788c17f443fc698dc38bf07dfe7da73d95485043a"),
    ("/users/u-42/terminate_connections", "5fef25eb11b5e240af92a59668270cfc87ca1916f14d2f81eb05e7793682fd4c"),
];

fn path_of(user: &str) -> String {
    format!("/apps/3/users/{user}/terminate_connections")
}

/// HTTP-65
#[tokio::test]
async fn ending_a_users_connections_reaches_their_worker_each_time_it_is_asked() {
    let world = World::new();
    world.sign_in("u-42");
    for _ in 0..2 {
        world.post(&path_of("u-42"), "{}").await.expect(200, "{}");
        assert_eq!(world.heard(), ["Terminated u-42"]);
    }
    world.post(&path_of("somebody-else"), "{}").await.expect(200, "{}");
    assert_eq!(world.heard(), [] as [&str; 0]);
}

/// HTTP-66
#[tokio::test]
async fn the_user_of_the_path_is_unescaped() {
    let world = World::new();
    world.sign_in("ana/b @é");
    world.post(&path_of("ana%2Fb%20%40%C3%A9"), "{}").await.expect(200, "{}");
    assert_eq!(world.heard(), ["Terminated ana/b @é"]);
    let refused = "The user id in the path is not UTF-8 once its escapes are undone\n";
    world.post(&path_of("%FF"), "{}").await.expect(400, refused);
    world
        .post(&path_of("a%0Ab"), "{}")
        .await
        .expect(400, "Invalid user id \"a\\nb\": it contains the character '\\n', which is not allowed\n");
    let long = "u".repeat(129);
    assert_eq!(world.post(&path_of(&long), "{}").await.status, 400);
}

/// HTTP-67
#[tokio::test]
async fn without_an_app_in_the_path_the_key_names_it() {
    let world = World::new();
    world.sign_in("u-42");
    world.post("/users/u-42/terminate_connections", "{}").await.expect(200, "{}");
    assert_eq!(world.heard(), ["Terminated u-42"]);

    let path = "/users/u-42/terminate_connections";
    let other = App::new("5", "other-key", "other-secret");
    let query = Signer::of(&other).sign_request("POST", path, &[], b"{}", NOW_S);
    world.plain(Method::POST, &format!("{path}?{query}"), "{}").await.expect(200, "{}");
    assert_eq!(world.heard(), [] as [&str; 0], "the user of the other app is another user");
    let disabled = App::new("4", "disabled-key", "s");
    let query = Signer::of(&disabled).sign_request("POST", path, &[], b"{}", NOW_S);
    world.plain(Method::POST, &format!("{path}?{query}"), "{}").await.expect(403, "The app 4 is disabled\n");
}

/// HTTP-65, HTTP-67
#[tokio::test]
async fn both_forms_are_let_in_as_libraries_sign_them() {
    let world = World::new();
    world.sign_in("u-42");
    for (path, signature) in PUBLISHED {
        let query = format!(
            "auth_key={KEY}&auth_signature={signature}&auth_timestamp={NOW_S}&auth_version=1.0&body_md5={BODY_MD5}"
        );
        world.plain(Method::POST, &format!("{path}?{query}"), "{}").await.expect(200, "{}");
        assert_eq!(world.heard(), ["Terminated u-42"], "{path}");
    }
}

/// HTTP-65
#[tokio::test]
async fn what_may_not_have_reached_everybody_is_not_called_done() {
    let world = World::new();
    world.backbone.set(Gate::Broken);
    let said = world.post(&path_of("u-42"), "{}").await;
    assert_eq!((said.status.as_u16(), said.header("retry-after").is_some()), (503, true));
    let unsigned = world.plain(Method::POST, &path_of("u-42"), "{}").await;
    assert_eq!(unsigned.status, 401);
}
