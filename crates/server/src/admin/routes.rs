//! The table of routes: what the admin API takes. The description at `/openapi.json` is made of it, so that neither can
//! know a route that the other does not.

use super::reply::Failed;

/// What a path and a method stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// The description of all this.
    Describe,
    /// How the node is.
    Status,
    /// How it hears the others.
    Backbone,
    /// All apps.
    List,
    /// A new app.
    Add,
    /// One app.
    Show,
    /// Other settings.
    Edit,
    /// Serve it no longer.
    Remove,
    /// A new secret.
    Rotate,
    /// One secret less.
    Retire,
    /// What was done to it.
    History,
    /// Back to an earlier revision.
    Revert,
    /// Who did what.
    Audit,
    /// Webhooks that wait or were given up.
    Webhooks,
    /// Send again what was given up.
    Replay,
    /// Publish in an app's name.
    Publish,
    /// The occupied channels of an app.
    Channels,
    /// How things stand on one channel.
    Channel,
    /// Who is on a presence channel.
    Members,
    /// What a subscriber sees, as it comes.
    Watch,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// In capitals.
    pub method: &'static str,
    /// With `{id}` for an app's id and `{name}` for a channel's name.
    pub path: &'static str,
    /// What it stands for.
    pub call: Call,
    /// In a few words.
    pub summary: &'static str,
    /// Name of the schema that a body follows; empty for no body.
    pub takes: &'static str,
    /// Status of success.
    pub status: u16,
    /// Name of the schema that the answer follows.
    pub answers: &'static str,
}

const fn route(
    method: &'static str,
    path: &'static str,
    call: Call,
    takes: &'static str,
    answers: &'static str,
    summary: &'static str,
) -> Route {
    Route { method, path, call, summary, takes, status: 200, answers }
}

/// Everything there is.
pub static ROUTES: &[Route] = &[
    route("GET", "/openapi.json", Call::Describe, "", "Description", "This description; needs no token"),
    route("GET", "/admin/v1/status", Call::Status, "", "Status", "How the node is"),
    route("GET", "/admin/v1/backbone", Call::Backbone, "", "Backbone", "How this node hears the others, as it sees it"),
    route("GET", "/admin/v1/apps", Call::List, "", "Apps", "All apps, wherever they are kept"),
    Route {
        status: 201,
        ..route(
            "POST",
            "/admin/v1/apps",
            Call::Add,
            "Settings",
            "Changed",
            "Add an app; id, key and secret are made where none are given, and a secret that was made is shown this once",
        )
    },
    route("GET", "/admin/v1/apps/{id}", Call::Show, "", "App", "One app"),
    route(
        "PATCH",
        "/admin/v1/apps/{id}",
        Call::Edit,
        "Settings",
        "Changed",
        "Change settings; null takes one back to its default. With If-Match: REVISION only if nobody was faster",
    ),
    route(
        "DELETE",
        "/admin/v1/apps/{id}",
        Call::Remove,
        "",
        "Changed",
        "Serve an app no longer; a revert brings it back",
    ),
    route(
        "POST",
        "/admin/v1/apps/{id}/keys/rotate",
        Call::Rotate,
        "Rotate",
        "Changed",
        "Make a new secret; the one from before verifies as well, until it is retired",
    ),
    route(
        "POST",
        "/admin/v1/apps/{id}/keys/retire",
        Call::Retire,
        "Retire",
        "Changed",
        "End a rotation: the secret from before verifies no longer (or, to undo one, the new secret)",
    ),
    route(
        "GET",
        "/admin/v1/apps/{id}/history",
        Call::History,
        "",
        "History",
        "What was done to an app, the newest last",
    ),
    route(
        "POST",
        "/admin/v1/apps/{id}/revert",
        Call::Revert,
        "Revert",
        "Changed",
        "Take the settings of an earlier revision; secrets stay as they are",
    ),
    route(
        "GET",
        "/admin/v1/audit",
        Call::Audit,
        "",
        "Audit",
        "Who did what, the newest last; limit=N for more than 100",
    ),
    route(
        "GET",
        "/admin/v1/webhooks",
        Call::Webhooks,
        "",
        "Webhooks",
        "Webhooks that wait, and those that were given up",
    ),
    route(
        "POST",
        "/admin/v1/webhooks/replay",
        Call::Replay,
        "Replay",
        "Replayed",
        "Send again what was given up: one request by its id, or all of them",
    ),
    route(
        "POST",
        "/admin/v1/apps/{id}/events",
        Call::Publish,
        "Event",
        "Published",
        "Publish an event, as POST /apps/ID/events of the signed API does; Idempotency-Key works",
    ),
    route("GET", "/admin/v1/apps/{id}/channels", Call::Channels, "", "Channels", "The occupied channels of an app"),
    route(
        "GET",
        "/admin/v1/apps/{id}/channels/{name}",
        Call::Channel,
        "",
        "Channel",
        "How things stand on one channel",
    ),
    route(
        "GET",
        "/admin/v1/apps/{id}/channels/{name}/users",
        Call::Members,
        "",
        "Members",
        "The users on a presence channel",
    ),
    route(
        "GET",
        "/admin/v1/apps/{id}/channels/{name}/events",
        Call::Watch,
        "",
        "Message",
        "Subscribe, and answer what a subscriber is sent, one JSON object per line, as it comes. The answer has no end of \
         its own; a reader that falls behind is told so (fulmar:closed, 4100) and cut off",
    ),
];

/// What varies in a path, still escaped; empty where the pattern has no such part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Varying<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
}

impl Route {
    /// The line for a request, and what varies in its path.
    pub(super) fn of<'a>(method: &str, path: &'a str) -> Result<(&'static Self, Varying<'a>), Failed> {
        let mut allow = Vec::new();
        for route in ROUTES {
            if let Some(varying) = matches(route.path, path) {
                if route.method == method {
                    return Ok((route, varying));
                }
                allow.push(route.method);
            }
        }
        if allow.is_empty() { Err(Failed::NoPath) } else { Err(Failed::Method { allow: allow.join(", ") }) }
    }
}

/// Whether a path is answered without a token.
pub(super) fn is_open(path: &str) -> bool {
    path == "/openapi.json"
}

/// What varies; `None` when the path is another.
fn matches<'a>(pattern: &str, path: &'a str) -> Option<Varying<'a>> {
    let mut varying = Varying::default();
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(varying),
            (Some("{id}"), Some(id)) if !id.is_empty() => varying.id = id,
            (Some("{name}"), Some(name)) if !name.is_empty() => varying.name = name,
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-33
    #[test]
    fn a_path_is_one_call_and_no_other() {
        for route in ROUTES {
            let path = route.path.replace("{id}", "a.b-7").replace("{name}", "presence-a;b");
            let (found, varying) = Route::of(route.method, &path).expect("is in the table");
            let expected = |part, value| if route.path.contains(part) { value } else { "" };
            assert_eq!(found.call, route.call, "{path}");
            assert_eq!(
                varying,
                Varying { id: expected("{id}", "a.b-7"), name: expected("{name}", "presence-a;b") },
                "{path}"
            );
        }
        for path in [
            "/",
            "/admin/v1/apps/",
            "/admin/v1/apps/a/b",
            "/admin/v1/apps//history",
            "/admin/v2/apps",
            "/admin/v1/apps/a/channels/",
            "/admin/v1/apps/a/channels//events",
            "/admin/v1/apps/a/channels/b/c",
            "/admin/v1/apps/a/channels/b/events/",
        ] {
            assert!(matches!(Route::of("GET", path), Err(Failed::NoPath)), "{path}");
        }
        let Err(Failed::Method { allow }) = Route::of("PUT", "/admin/v1/apps/7") else {
            panic!("PUT is no method here")
        };
        assert_eq!(allow, "GET, PATCH, DELETE");
    }
}
