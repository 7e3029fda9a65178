//! What a node says of itself in its lease. Written and read by nodes of different releases: unknown lines are skipped.

use std::fmt::Write as _;

use super::settings::Roles;

/// A node's dated claim: who it is, what it hears, and how many connections it has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lease {
    /// Its name in keys: its incarnation in hexadecimal.
    pub node: String,
    /// Rises with every renewal.
    pub counter: u64,
    /// Where other nodes reach it over HTTP.
    pub advertise: Option<String>,
    /// What it does.
    pub roles: Roles,
    /// By group: the epoch in which everything that it follows is subscribed to and filled.
    pub attached: Vec<(String, u64)>,
    /// Version of the slot map that it goes by, with everything subscribed to that the map wants; 0 before.
    pub map: u64,
    /// Connections per app.
    pub connections: Vec<(String, u64)>,
    /// What should be alike on every node.
    pub about: About,
    /// Its clock when it renewed the lease, in milliseconds since 1970; 0 when it does not say.
    pub clock_ms: u64,
}

/// What a node says of itself so that differences between nodes can be found. Nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// The release it runs; empty when it does not say.
    pub release: String,
    /// A short digest of the apps that it serves, secrets included.
    pub apps: String,
    /// A short digest of the settings that should be alike on every node.
    pub settings: String,
    /// Files it may open, which bounds its connections; 0 when it does not say.
    pub open_files: u64,
    /// Where its metrics do not arrive, and why; `None` while it knows of nothing wrong. One line.
    pub metrics_trouble: Option<String>,
}

/// The name in keys of a node with this incarnation.
#[must_use]
pub fn name_of(origin: u64) -> String {
    format!("{origin:016x}")
}

/// The number of a node's incarnation, from its name in keys; `None` for what names no node of ours.
#[must_use]
pub fn origin(node: &str) -> Option<u64> {
    u64::from_str_radix(node, 16).ok()
}

impl Lease {
    /// As text: a word and its values on each line.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("counter {}\nmap {}\n", self.counter, self.map);
        if let Some(advertise) = &self.advertise {
            text.push_str(&format!("advertise {advertise}\n"));
        }
        let Roles { websocket, rest, webhooks } = self.roles;
        for (name, has) in [("websocket", websocket), ("rest", rest), ("webhooks", webhooks)] {
            if has {
                text.push_str(&format!("role {name}\n"));
            }
        }
        let About { release, apps, settings, open_files, metrics_trouble } = &self.about;
        let metrics_trouble = metrics_trouble.as_deref().unwrap_or_default().replace(['\r', '\n'], " ");
        let texts =
            [("release", release), ("apps", apps), ("settings", settings), ("metrics-trouble", &metrics_trouble)];
        for (word, value) in texts {
            if !value.is_empty() {
                writeln!(text, "{word} {value}").expect("text takes text");
            }
        }
        for (word, value) in [("files", *open_files), ("clock", self.clock_ms)] {
            if value > 0 {
                writeln!(text, "{word} {value}").expect("text takes text");
            }
        }
        for (word, counts) in [("attached", &self.attached), ("connections", &self.connections)] {
            for (of, count) in counts {
                writeln!(text, "{word} {count} {of}").expect("text takes text");
            }
        }
        text
    }

    /// Reads what a node says.
    #[must_use]
    pub fn parse(node: &str, text: &str) -> Option<Self> {
        let mut lease = Self {
            node: node.to_owned(),
            roles: Roles { websocket: false, rest: false, webhooks: false },
            ..Self::default()
        };
        let count = |rest: &str| {
            let (count, of) = rest.split_once(' ')?;
            Some((of.to_owned(), count.parse().ok()?))
        };
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "counter" => lease.counter = rest.parse().ok()?,
                "map" => lease.map = rest.parse().ok()?,
                "advertise" => lease.advertise = Some(rest.to_owned()),
                "role" => match rest {
                    "websocket" => lease.roles.websocket = true,
                    "rest" => lease.roles.rest = true,
                    "webhooks" => lease.roles.webhooks = true,
                    _ => {}
                },
                "attached" => lease.attached.push(count(rest)?),
                "connections" => lease.connections.push(count(rest)?),
                "release" => lease.about.release = rest.to_owned(),
                "apps" => lease.about.apps = rest.to_owned(),
                "settings" => lease.about.settings = rest.to_owned(),
                "metrics-trouble" => lease.about.metrics_trouble = Some(rest.to_owned()),
                "files" => lease.about.open_files = rest.parse().ok()?,
                "clock" => lease.clock_ms = rest.parse().ok()?,
                _ => {}
            }
        }
        Some(lease)
    }

    /// The epoch in which it hears this group; 0 when it does not.
    #[must_use]
    pub fn attached(&self, group: &str) -> u64 {
        self.attached.iter().find(|(name, _)| name == group).map_or(0, |(_, epoch)| *epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RED-28
    #[test]
    fn a_lease_is_read_back_as_it_was_written_and_new_words_are_skipped() {
        let lease = Lease {
            node: "00ff".to_owned(),
            counter: 7,
            advertise: Some("10.0.0.1:6001".to_owned()),
            roles: Roles { websocket: true, rest: false, webhooks: true },
            map: 4,
            attached: vec![("g1".to_owned(), 3)],
            connections: vec![("app".to_owned(), 12)],
            about: About {
                release: "0.2.0".to_owned(),
                apps: "1f".to_owned(),
                settings: "2e".to_owned(),
                open_files: 1_024,
                metrics_trouble: Some("sink:8125: nothing listens there".to_owned()),
            },
            clock_ms: 1_700_000_000_123,
        };
        let text = format!("{}invented later\nalone\n", lease.text());
        assert_eq!(Lease::parse("00ff", &text), Some(lease.clone()));
        assert_eq!((lease.attached("g1"), lease.attached("g2")), (3, 0));
        for broken in ["counter", "counter x", "connections app", "attached x g", "clock noon"] {
            assert_eq!(Lease::parse("00ff", broken), None, "{broken}");
        }
    }
}
