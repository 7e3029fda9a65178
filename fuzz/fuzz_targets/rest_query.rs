//! Query strings of the HTTP API: what is parsed stands as it is signed, nothing passes without the secret, and what is
//! signed passes however odd its parameters.
//!
//! The first line of the input is a path, the rest a query string.
#![no_main]

use fulmar_protocol::app::App;
use fulmar_protocol::publish::Info;
use fulmar_protocol::query::{QUERY_PARAMETERS_MAX, Query};
use fulmar_protocol::signing::{Request, Signer, verify_request};
use libfuzzer_sys::fuzz_target;

const NOW_UNIX_S: u64 = 1_700_000_000;
const AUTH_PARAMETERS: usize = 5;

fuzz_target!(|text: &str| {
    let (path, raw) = text.split_once('\n').unwrap_or(("/apps/1/channels", text));
    let _ = Info::parse(raw);
    let Ok(query) = Query::parse(raw) else { return };
    let parameters: Vec<_> = query.iter().collect();
    assert!(parameters.len() <= QUERY_PARAMETERS_MAX);
    assert!(parameters.iter().all(|(name, _)| !name.contains(|c: char| c.is_ascii_uppercase())));
    assert!(parameters.iter().all(|(name, _)| query.get(name).is_some()));

    let app = App::new("1", "key", "secret");
    let request = Request { app: &app, method: "GET", path, query: &query, body: b"" };
    assert!(verify_request(request, NOW_UNIX_S).is_err(), "nobody can guess a signature");
    if !path.starts_with("/apps/") {
        sign_and_verify(&app, path, &parameters);
    }
});

fn sign_and_verify(app: &App, path: &str, parameters: &[(&str, &str)]) {
    let is_ours = |(name, _): &&(&str, &str)| name.starts_with("auth_") || *name == "body_md5";
    let theirs: Vec<_> = parameters.iter().filter(|parameter| !is_ours(parameter)).copied().collect();
    if theirs.len() > QUERY_PARAMETERS_MAX - AUTH_PARAMETERS {
        return;
    }
    let raw = Signer::of(app).sign_request("POST", path, &theirs, b"body", NOW_UNIX_S);
    let query = Query::parse(&raw).expect("what we write, we can read");
    let request = Request { app, method: "POST", path, query: &query, body: b"body" };
    verify_request(request, NOW_UNIX_S).expect("what we sign, we accept");
    let other_body = Request { body: b"other", ..request };
    assert!(verify_request(other_body, NOW_UNIX_S).is_err(), "the signature covers the body");
}
