//! The page at `/` of a node with the demo app, and the button on it.
//!
//! The page never learns a secret: its button asks the node, which signs a call with the demo app's secret and sends it
//! through the same door as everybody's, signature check included. What was sent is shown on the page. No other page may
//! press the button.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fulmar_protocol::app::App;
use hyper::Method;
use hyper::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::http::request::Parts;
use serde_json::json;

use super::Api;
use super::own::{OwnAnswer, OwnCall};
use super::refusal::Refusal;
use super::reply::Reply;
use crate::apps::Apps;

const PAGE: &str = include_str!("demo.html");

/// Presses of the button answered in one second, from all pages together.
const PER_S_MAX: u32 = 10;

/// Bytes of the text one press sends.
const TEXT_BYTES_MAX: usize = 1_024;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The demo app and its page.
#[derive(Debug)]
pub(super) struct Demo {
    app: Arc<App>,
    page: Bytes,
    pace: Mutex<Pace>,
}

#[derive(Debug, Default)]
struct Pace {
    second: u64,
    presses: u32,
}

impl Demo {
    pub(super) fn new(app: Arc<App>) -> Self {
        let facts = json!({ "id": app.id.as_str(), "key": app.key.as_str() }).to_string();
        // Inside a script element, text cannot end the element without this character.
        let page = PAGE.replace("{{facts}}", &facts.replace('<', "\\u003c"));
        Self { app, page: page.into(), pace: Mutex::default() }
    }

    pub(super) fn page(&self) -> Reply {
        Reply::page(self.page.clone())
    }

    /// Whether the app is still there, and still the demo app.
    pub(super) fn is_served_by(&self, apps: &Apps) -> bool {
        apps.as_of_now(&self.app).is_some_and(|app| app.enabled && app.secret == self.app.secret)
    }

    fn keep_pace(&self, now_ms: u64) -> Result<(), Refusal> {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let second = now_ms / 1_000;
        if pace.second != second {
            *pace = Pace { second, presses: 0 };
        }
        pace.presses += 1;
        if pace.presses > PER_S_MAX { Err(Refusal::TooFast) } else { Ok(()) }
    }
}

impl Api {
    /// The page's button: publishes the text in the body, and tells how.
    pub(super) async fn demo_send(&self, head: &Parts, body: &Bytes) -> Result<Reply, Refusal> {
        let demo = self.demo().ok_or(Refusal::NotFound)?;
        if !is_same_origin(&head.headers) {
            return Err(Refusal::OtherOrigin);
        }
        demo.keep_pace(self.clock.elapsed_ms())?;
        if body.len() > TEXT_BYTES_MAX {
            return Err(Refusal::BodyTooLarge { max: TEXT_BYTES_MAX });
        }
        let data = json!(String::from_utf8_lossy(body));
        // Written out, because people read it and a map would sort it.
        let call = format!(r#"{{"name":"my-event","channels":["my-channel"],"data":{data}}}"#);
        let sent = Bytes::from(call);
        let call =
            OwnCall { method: Method::POST, below: "/events", params: &[], headers: &HeaderMap::new(), body: &sent };
        let OwnAnswer { status, body, path, query } = self.call_for(&demo.app, call).await;
        let (answer, sent) = (String::from_utf8_lossy(&body), String::from_utf8_lossy(&sent));
        let shown = json!({ "status": status.as_u16(), "answer": answer, "path": path, "query": query, "body": sent });
        Ok(Reply::json(shown.to_string()))
    }
}

/// Whether the page that sent this came from here. Browsers say so in one way or the other on every POST, and no page
/// can make them say something else.
fn is_same_origin(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site == "same-origin";
    }
    let text = |name| headers.get(name).and_then(|value: &hyper::header::HeaderValue| value.to_str().ok());
    let origin = text(ORIGIN).and_then(|origin| origin.split_once("://"));
    origin.zip(text(HOST)).is_some_and(|((_, origin), host)| origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a header"))).collect()
    }

    /// HTTP-57
    #[test]
    fn only_a_page_of_this_server_counts_as_same_origin() {
        let table = [
            (headers(&[]), false),
            (headers(&[(SEC_FETCH_SITE, "same-origin")]), true),
            (headers(&[(SEC_FETCH_SITE, "same-site"), (ORIGIN, "http://a"), (HOST, "a")]), false),
            (headers(&[(SEC_FETCH_SITE, "cross-site")]), false),
            (headers(&[(SEC_FETCH_SITE, "none")]), false),
            (headers(&[(ORIGIN, "http://localhost:6001"), (HOST, "localhost:6001")]), true),
            (headers(&[(ORIGIN, "http://LOCALHOST:6001"), (HOST, "localhost:6001")]), true),
            (headers(&[(ORIGIN, "http://localhost:6002"), (HOST, "localhost:6001")]), false),
            (headers(&[(ORIGIN, "null"), (HOST, "null")]), false),
            (headers(&[(ORIGIN, "http://localhost:6001")]), false),
            (headers(&[(HOST, "localhost:6001")]), false),
        ];
        for (headers, expected) in table {
            assert_eq!(is_same_origin(&headers), expected, "{headers:?}");
        }
    }

    /// HTTP-57
    #[test]
    fn the_page_holds_the_key_and_no_secret_and_loads_nothing_from_elsewhere() {
        let demo = Demo::new(Arc::new(App::new("7", "the-key", "the-secret")));
        let page = String::from_utf8(demo.page.to_vec()).expect("text");
        assert!(page.contains(r#"{"id":"7","key":"the-key"}"#) && !page.contains("the-secret") && !page.contains("{{"));
        for loading in ["src=", "<link", "@import", "url("] {
            assert!(!page.contains(loading), "{loading}");
        }
    }
}
