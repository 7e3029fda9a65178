//! `fulmar webhook`: what waits, what was given up, and whether an endpoint takes what it is told.

use std::sync::Arc;

use fulmar_protocol::app::App;
use fulmar_protocol::webhook::{Endpoint, Kinds};
use fulmar_server::config::DEMO_APP;
use fulmar_server::webhooks::request::SystemResolver;
use fulmar_server::webhooks::trial::{Trial, trial};
use serde_json::{Value, json};

use crate::app::remote::Remote;
use crate::app::{date, rows, text};
use crate::args::{WebhookArgs, WebhookVerb};
use crate::client::{Failure, print};

pub fn webhook(args: WebhookArgs) -> Result<(), Failure> {
    match args.verb {
        WebhookVerb::List { admin } => {
            let answer = Remote::of(&admin)?.call("GET", "/admin/v1/webhooks", None, None)?;
            print(&if admin.json { format!("{answer:#}\n") } else { list(&answer) });
            Ok(())
        }
        WebhookVerb::Replay { id, admin, .. } => {
            let body = json!({ "id": id });
            let answer = Remote::of(&admin)?.call("POST", "/admin/v1/webhooks/replay", Some(&body), None)?;
            print(&if admin.json {
                format!("{answer:#}\n")
            } else {
                format!("{} to be sent again\n", answer["replayed"])
            });
            match (id, answer["replayed"].as_u64()) {
                (Some(id), Some(0)) => Err(format!("no request {id} was given up; see `fulmar webhook list`").into()),
                _ => Ok(()),
            }
        }
        WebhookVerb::Test { url, app, allow_private } => test(&url, app.as_deref(), allow_private),
    }
}

fn list(answer: &Value) -> String {
    let mut out = String::new();
    for line in rows(answer, "waiting") {
        let seconds = line["oldest_ms"].as_u64().unwrap_or_default() / 1_000;
        let state = match line["error"].as_str() {
            Some(error) => format!("failed {} time(s): {error}", line["failures"]),
            None => "on its way".to_owned(),
        };
        out.push_str(&format!(
            "waiting   app {:<8} {} ({} requests, the oldest for {seconds} s): {state}\n",
            text(&line["app"]),
            text(&line["url"]),
            line["pending"],
        ));
    }
    for old in rows(answer, "given_up") {
        out.push_str(&format!(
            "given up  app {:<8} {} ({} events, {}): fulmar webhook replay {}\n",
            text(&old["app"]),
            text(&old["url"]),
            old["events"],
            date(&old["at_ms"]),
            text(&old["id"]),
        ));
    }
    if out.is_empty() { format!("nothing waits; {} delivered since the start\n", answer["delivered"]) } else { out }
}

fn test(url: &str, app: Option<&str>, allow_private: bool) -> Result<(), Failure> {
    let mut app = match app.filter(|text| !text.is_empty()).map(|text| text.splitn(3, ':').collect::<Vec<_>>()) {
        None => App::new(DEMO_APP.0, DEMO_APP.1, DEMO_APP.2),
        Some(parts) => match parts[..] {
            [id, key, secret] => App::new(id, key, secret),
            _ => return Err(Failure::usage("the app must be ID:KEY:SECRET (--app or FULMAR_APP)")),
        },
    };
    app.webhooks.allow_private = allow_private;
    app.webhooks.endpoints =
        vec![Endpoint { url: url.into(), kinds: Kinds::HOSTED, channel_prefix: String::new(), headers: Vec::new() }];
    let Trial { destination, addresses, body, signature, outcome, took } =
        trial(&app, Arc::new(SystemResolver)).map_err(Failure::usage)?;
    let mut out =
        format!("{}\nX-Pusher-Key: {}\nX-Pusher-Signature: {signature}\n{body}\n", destination.authority, app.key);
    for (address, allowed) in addresses {
        let verdict = if allowed { "may be spoken to" } else { "is not public: refused" };
        out.push_str(&format!("{} is at {address}, which {verdict}\n", destination.host));
    }
    print(&out);
    match outcome {
        Ok(status) => {
            print(&format!("answered {status} after {} ms\n", took.as_millis()));
            Ok(())
        }
        Err(error) => Err(error.to_string().into()),
    }
}
