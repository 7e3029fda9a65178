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
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// In capitals.
    pub method: &'static str,
    /// With `{id}` for the one part that varies.
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
];

impl Route {
    /// The line for a request, and what stands for `{id}`.
    pub(super) fn of(method: &str, path: &str) -> Result<(&'static Self, String), Failed> {
        let mut allow = Vec::new();
        for route in ROUTES {
            if let Some(id) = matches(route.path, path) {
                if route.method == method {
                    return Ok((route, id.to_owned()));
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

/// What stands for `{id}`, empty where the pattern has none; `None` when the path is another.
fn matches<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, after)) = pattern.split_once("{id}") else { return (pattern == path).then_some("") };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-33
    #[test]
    fn a_path_is_one_call_and_no_other() {
        for route in ROUTES {
            let (found, id) = Route::of(route.method, &route.path.replace("{id}", "a.b-7")).expect("is in the table");
            assert_eq!((found.call, id.as_str()), (route.call, if route.path.contains("{id}") { "a.b-7" } else { "" }));
        }
        for path in ["/", "/admin/v1/apps/", "/admin/v1/apps/a/b", "/admin/v1/apps//history", "/admin/v2/apps"] {
            assert!(matches!(Route::of("GET", path), Err(Failed::NoPath)), "{path}");
        }
        let Err(Failed::Method { allow }) = Route::of("PUT", "/admin/v1/apps/7") else {
            panic!("PUT is no method here")
        };
        assert_eq!(allow, "GET, PATCH, DELETE");
    }
}
