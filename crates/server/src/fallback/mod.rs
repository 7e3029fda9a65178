//! The HTTP fallback transports of pusher-js: XHR streaming and XHR polling.
//!
//! A session over HTTP is a session like any other: its worker writes to a [`line`] where a socket would be, receive
//! requests read from it, and send requests reach the engine as messages. Here are the addresses and the answers; nothing
//! here knows what a message means. `sockjs` is not spoken.
//!
//! Reading order: [`Address`] (what a path asks for), [`frames`] (the text), [`line`] (worker and requests), [`sessions`]
//! (which there are), [`answer`] (streams and polls), [`elsewhere`] (sessions of other nodes), `requests` (how they come
//! together), `own` (sessions of the node itself).

pub(crate) mod answer;
pub(crate) mod elsewhere;
pub(crate) mod frames;
pub(crate) mod line;
mod own;
mod requests;
pub(crate) mod sessions;

#[cfg(test)]
mod tests;

/// The path in front of `/app` that pusher-js uses unless `httpPath` says otherwise.
const DEFAULT_BASE: &str = "/pusher";
/// Characters that the key, the number and the name of a session may have in a path; theirs are 20, 3 and 8.
const SEGMENT_BYTES_MAX: usize = 128;

/// What a path of a fallback transport asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address<'a> {
    /// The app's key, still escaped.
    pub(crate) key: &'a str,
    /// `KEY/NUMBER/NAME`: what names the session.
    pub(crate) session: &'a str,
    pub(crate) verb: Verb,
}

/// What is to be done with the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Receive, in an answer that does not end.
    Stream,
    /// Receive what there is, or what comes next.
    Poll,
    /// Send.
    Send,
}

impl<'a> Address<'a> {
    /// Reads `/app/KEY/NUMBER/NAME/VERB` behind the configured prefix, or without it where a proxy cuts it off, and
    /// behind `/pusher` or nothing.
    pub(crate) fn of(path: &'a str, prefix: &str) -> Option<Self> {
        let path = path.strip_prefix(prefix).filter(|rest| rest.starts_with('/')).unwrap_or(path);
        let path = path.strip_prefix(DEFAULT_BASE).filter(|rest| rest.starts_with('/')).unwrap_or(path);
        let rest = path.strip_prefix("/app/")?;
        let (session, verb) = rest.rsplit_once('/')?;
        let mut segments = session.split('/');
        let (key, number, name) = (segments.next()?, segments.next()?, segments.next()?);
        let is_sound = |segment: &str| (1..=SEGMENT_BYTES_MAX).contains(&segment.len());
        if segments.next().is_some() || ![key, number, name].into_iter().all(is_sound) {
            return None;
        }
        let verb = match verb {
            "xhr_streaming" => Verb::Stream,
            "xhr" => Verb::Poll,
            "xhr_send" => Verb::Send,
            _ => return None,
        };
        Some(Self { key, session, verb })
    }
}

#[cfg(test)]
mod address_tests {
    use super::*;

    /// FB-1
    #[test]
    fn the_addresses_of_pusher_js_are_read_with_and_without_prefixes() {
        for path in
            ["/pusher/app/KEY/123/a1b2c3d4/xhr", "/app/KEY/123/a1b2c3d4/xhr", "/rt/pusher/app/KEY/123/a1b2c3d4/xhr"]
        {
            let address = Address::of(path, "/rt").expect(path);
            assert_eq!(address, Address { key: "KEY", session: "KEY/123/a1b2c3d4", verb: Verb::Poll });
        }
        let verb = |verb: &str| Address::of(&format!("/pusher/app/k/0/s/{verb}"), "").map(|address| address.verb);
        assert_eq!(verb("xhr_streaming"), Some(Verb::Stream));
        assert_eq!(verb("xhr_send"), Some(Verb::Send));
    }

    /// FB-1, FB-20
    #[test]
    fn other_paths_are_none_of_them() {
        let long = format!("/pusher/app/k/0/{}/xhr", "s".repeat(SEGMENT_BYTES_MAX + 1));
        for path in [
            "/app/k",
            "/app/k/suffix",
            "/pusher",
            "/pusher/info",
            "/pusher/app/k/0/s/websocket",
            "/pusher/app/k/0/s/xhr/",
            "/pusher/app/k/s/xhr",
            "/pusher/app//0/s/xhr",
            "/pusher/app/k/0//xhr",
            "/pusher/app/k/0/s/x/xhr",
            "/pusher/pusher/app/k/0/s/xhr",
            "/pusherx/app/k/0/s/xhr",
            "/apps/1/events",
            &long,
        ] {
            assert_eq!(Address::of(path, ""), None, "{path}");
        }
    }
}
