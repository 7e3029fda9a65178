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
            let (word, rest) = line.split_once(' ')?;
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
        };
        let text = format!("{}invented later\n", lease.text());
        assert_eq!(Lease::parse("00ff", &text), Some(lease.clone()));
        assert_eq!((lease.attached("g1"), lease.attached("g2")), (3, 0));
        for broken in ["counter", "counter x", "connections app", "attached x g"] {
            assert_eq!(Lease::parse("00ff", broken), None, "{broken}");
        }
    }
}
