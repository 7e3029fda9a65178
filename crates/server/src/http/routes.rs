//! The table of paths: what each one is and which methods it takes.
//!
//! Works on the raw path and allocates nothing; escapes are undone by whoever needs a name. A path that a proxy in front
//! has given a prefix is looked up without it.

use hyper::Method;

const GET: &str = "GET, HEAD, OPTIONS";
const POST: &str = "POST, OPTIONS";

/// What a path names. Names are still escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// A call of the signed API. Where the path names no app, the key does.
    Api { app: Option<&'a str>, call: Call<'a> },
    /// A WebSocket address, asked for by plain HTTP.
    WebSocket,
    /// Statistics that end in a script.
    StatsJsonp { receiver: &'a str },
    /// Statistics that end in JSON.
    Stats,
    /// Whether the loops turn.
    Live,
    /// Whether traffic is wanted.
    Ready,
    /// The demo page.
    Page,
    /// The demo page's button.
    DemoSend,
    /// Nothing.
    Unknown,
}

/// A call of the signed API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call<'a> {
    Events,
    Batch,
    Channels,
    Channel(&'a str),
    Members(&'a str),
    /// End the connections of a user.
    Terminate(&'a str),
    /// Deprecated: the body is the event's data.
    ChannelEvents(&'a str),
    /// Deprecated: counts under older names.
    ChannelStats(&'a str),
}

impl<'a> Route<'a> {
    /// Looks a path up.
    pub(super) fn of(path: &'a str) -> Self {
        let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
        let first = segments.next().unwrap_or_default();
        // No path has more than five further segments, and a longer one must not pass for its beginning.
        let rest: [Option<&str>; 5] = std::array::from_fn(|_| segments.next());
        match (first, rest) {
            ("apps", [Some(app), Some(what), r2, r3, None]) if !app.is_empty() => Self::in_app(app, what, r2, r3),
            ("app", [Some(key), None, ..]) if !key.is_empty() => Self::WebSocket,
            // The Python library leaves the app out of this one path.
            ("users", [Some(user), Some("terminate_connections"), None, ..]) if !user.is_empty() => {
                Self::Api { app: None, call: Call::Terminate(user) }
            }
            ("timeline", [Some("v2"), Some("jsonp"), Some(receiver), None, _]) => Self::StatsJsonp { receiver },
            ("timeline", [Some("v2"), Some("xhr"), _, None, _]) => Self::Stats,
            ("livez", [None, ..]) => Self::Live,
            ("readyz", [None, ..]) => Self::Ready,
            ("", [None, ..]) => Self::Page,
            ("demo", [Some("send"), None, ..]) => Self::DemoSend,
            _ => Self::Unknown,
        }
    }

    fn in_app(app: &'a str, what: &'a str, name: Option<&'a str>, of_it: Option<&'a str>) -> Self {
        let call = match (what, name, of_it) {
            ("events", None, _) => Call::Events,
            ("batch_events", None, _) => Call::Batch,
            ("channels", None, _) => Call::Channels,
            ("channels", Some(""), _) => return Self::Unknown,
            ("channels", Some(name), None) => Call::Channel(name),
            ("channels", Some(name), Some("users")) => Call::Members(name),
            ("channels", Some(name), Some("events")) => Call::ChannelEvents(name),
            ("channels", Some(name), Some("stats")) => Call::ChannelStats(name),
            ("users", Some(""), _) => return Self::Unknown,
            ("users", Some(user), Some("terminate_connections")) => Call::Terminate(user),
            _ => return Self::Unknown,
        };
        Self::Api { app: Some(app), call }
    }

    /// The methods of a path that has any, as the `Allow` header lists them.
    pub(super) fn methods(&self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::DemoSend => Some(POST),
            Self::Api { call: Call::Events | Call::Batch | Call::ChannelEvents(_) | Call::Terminate(_), .. } => {
                Some(POST)
            }
            // Browsers send statistics either way.
            Self::Stats => Some("GET, HEAD, POST, OPTIONS"),
            _ => Some(GET),
        }
    }
}

/// Whether `allow`, a list such as [`Route::methods`] gives, names `method`.
pub(super) fn takes(allow: &str, method: &Method) -> bool {
    allow.split(", ").any(|name| name == method.as_str())
}

/// The path without the configured prefix, or as it is when a proxy has cut it off already.
pub(super) fn without_prefix<'a>(path: &'a str, prefix: &str) -> &'a str {
    match path.strip_prefix(prefix) {
        Some(rest) if rest.starts_with('/') => rest,
        Some("") => "/",
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HTTP-6
    #[test]
    fn every_path_has_one_meaning_and_longer_or_shorter_ones_have_none() {
        let api = |call| Route::Api { app: Some("3"), call };
        let table = [
            ("/apps/3/events", api(Call::Events)),
            ("/apps/3/batch_events", api(Call::Batch)),
            ("/apps/3/channels", api(Call::Channels)),
            ("/apps/3/channels/a%20b", api(Call::Channel("a%20b"))),
            ("/apps/3/channels/a/users", api(Call::Members("a"))),
            ("/apps/3/channels/a/events", api(Call::ChannelEvents("a"))),
            ("/apps/3/channels/a/stats", api(Call::ChannelStats("a"))),
            ("/apps/3/users/u/terminate_connections", api(Call::Terminate("u"))),
            ("/users/u%40b/terminate_connections", Route::Api { app: None, call: Call::Terminate("u%40b") }),
            ("/app/key", Route::WebSocket),
            ("/timeline/v2/jsonp/1", Route::StatsJsonp { receiver: "1" }),
            ("/timeline/v2/xhr/2", Route::Stats),
            ("/timeline/v2/xhr", Route::Stats),
            ("/livez", Route::Live),
            ("/readyz", Route::Ready),
            ("/", Route::Page),
            ("/demo/send", Route::DemoSend),
        ];
        for (path, route) in table {
            assert_eq!(Route::of(path), route, "{path}");
        }
        for nothing in [
            "/apps",
            "/apps/",
            "/apps/3",
            "/apps//events",
            "/apps/3/events/",
            "/apps/3/events/x",
            "/apps/3/channels/",
            "/apps/3/users//terminate_connections",
            "/apps/3/users/u",
            "/users//terminate_connections",
            "/users/u/terminate_connections/x",
            "/apps/3/channels/a/",
            "/apps/3/channels/a/users/x",
            "/apps/3/channels/a/users/x/y/z",
            "/Apps/3/events",
            "//apps/3/events",
            "/app",
            "/app/",
            "/app/key/x",
            "/livez/",
            "/timeline/v2/jsonp",
            "/favicon.ico",
            "*",
        ] {
            assert_eq!(Route::of(nothing), Route::Unknown, "{nothing}");
        }
    }

    /// HTTP-6
    #[test]
    fn head_goes_where_get_goes_and_post_stays_apart() {
        assert!(takes(GET, &Method::HEAD) && takes(GET, &Method::GET) && !takes(GET, &Method::POST));
        assert!(takes(POST, &Method::POST) && !takes(POST, &Method::GET) && !takes(POST, &Method::PUT));
        let odd = Method::from_bytes(b"GE").expect("a token");
        assert!(!takes(GET, &odd));
    }

    /// HTTP-64
    #[test]
    fn a_prefix_is_cut_off_where_it_stands_and_nowhere_else() {
        assert_eq!(without_prefix("/ws/apps/3/events", "/ws"), "/apps/3/events");
        assert_eq!(without_prefix("/apps/3/events", "/ws"), "/apps/3/events");
        assert_eq!(without_prefix("/wsx/apps", "/ws"), "/wsx/apps");
        assert_eq!(without_prefix("/ws", "/ws"), "/");
        assert_eq!(without_prefix("/apps", ""), "/apps");
    }
}
