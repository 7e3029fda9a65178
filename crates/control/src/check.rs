//! Checks: what can be observed, and what an observation says of it.
//!
//! Only facts from after the command count, and none that are old. Servers answer for themselves; Sentinels only for what they
//! believe.

use std::fmt;
use std::time::Duration;

use crate::observed::{FRESH, GroupSeen, ReplicaLink, Role, SentinelView, ServerSeen, ServerState};
use crate::plan::Who;

/// Something that can be observed. Servers answer for themselves, Sentinels for what they believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// All of these. Empty always holds.
    All(Vec<Check>),
    /// The server says that it is a primary.
    Primary(Who),
    /// One of these says that it is a primary: it becomes [`Who::Successor`].
    Promoted(Vec<String>),
    /// The server says that it follows the primary's stream.
    Follows {
        /// Which.
        server: Who,
        /// Whom.
        primary: Who,
    },
    /// The primary lists so many replicas as online.
    Online {
        /// Which.
        primary: Who,
        /// At least.
        replicas: usize,
    },
    /// The primary lists this replica as online.
    Lists {
        /// Which.
        primary: Who,
        /// Whom.
        replica: String,
    },
    /// Each of the replicas has, by its own word, all that the primary has written.
    Level {
        /// Which.
        primary: String,
        /// Which.
        replicas: Vec<String>,
    },
    /// The server holds nothing of its primary any more: it is cut off, and not listed.
    Detached {
        /// Which.
        server: String,
        /// From whom.
        primary: Who,
    },
    /// Every Sentinel that answers knows this priority of the replica, and so does the replica.
    Priority {
        /// Which.
        server: String,
        /// Its `replica-priority`.
        priority: u32,
    },
    /// So many Sentinels name the server as the primary, and none that answers names another.
    Named {
        /// Which.
        server: Who,
        /// At least.
        by: usize,
    },
    /// This Sentinel names the primary, sees it up, and knows its replicas and its own siblings.
    Sees {
        /// Which Sentinel.
        sentinel: String,
        /// The primary.
        primary: Who,
        /// At least so many replicas that are up.
        replicas: usize,
        /// At least so many other Sentinels.
        others: usize,
    },
    /// No Sentinel that answers says that a failover is going on.
    Quiet,
}

/// What an observation says of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It does not, or nothing is seen that could say so; and why.
    Not(String),
}

/// Under what an observation is judged.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The moment.
    pub now: Duration,
    /// What was seen before does not count: the moment a command was accepted.
    pub since: Duration,
    /// Who was promoted, once that is known.
    pub successor: Option<&'a str>,
}

impl Check {
    /// Servers that must be looked at to judge it.
    pub fn servers<'a>(&'a self, successor: Option<&'a str>, into: &mut Vec<&'a str>) {
        let mut add = |who: &'a Who| into.extend(who.address(successor));
        match self {
            Self::All(checks) => checks.iter().for_each(|check| check.servers(successor, into)),
            Self::Primary(who) | Self::Online { primary: who, .. } | Self::Lists { primary: who, .. } => add(who),
            Self::Promoted(servers) => into.extend(servers.iter().map(String::as_str)),
            Self::Follows { server, .. } => add(server),
            Self::Detached { server, primary } => {
                add(primary);
                into.push(server);
            }
            Self::Level { primary, replicas } => {
                into.push(primary);
                into.extend(replicas.iter().map(String::as_str));
            }
            Self::Priority { server, .. } => into.push(server),
            Self::Named { .. } | Self::Sees { .. } | Self::Quiet => {}
        }
    }

    /// Whether Sentinels must be looked at to judge it.
    #[must_use]
    pub fn asks_sentinels(&self) -> bool {
        match self {
            Self::All(checks) => checks.iter().any(Self::asks_sentinels),
            Self::Priority { .. } | Self::Named { .. } | Self::Sees { .. } | Self::Quiet => true,
            _ => false,
        }
    }

    /// Judges what was seen.
    #[must_use]
    pub fn judge(&self, seen: &GroupSeen, sight: Sight<'_>) -> Verdict {
        let counts = Counts { seen, sight };
        match counts.fault(self) {
            None => Verdict::Holds,
            Some(why) => Verdict::Not(why),
        }
    }

    /// Who was promoted, when that is what this asks and it has happened.
    #[must_use]
    pub fn promoted<'a>(&self, seen: &'a GroupSeen, sight: Sight<'_>) -> Option<&'a str> {
        let Self::Promoted(servers) = self else { return None };
        let counts = Counts { seen, sight };
        let is_promoted = |server: &&ServerSeen| {
            servers.contains(&server.address) && counts.state(&server.address).is_ok_and(ServerState::is_primary)
        };
        seen.servers.iter().find(is_promoted).map(|server| server.address.as_str())
    }
}

/// What counts: facts that are neither old nor from before.
#[derive(Clone, Copy)]
struct Counts<'a> {
    seen: &'a GroupSeen,
    sight: Sight<'a>,
}

impl<'a> Counts<'a> {
    fn is_new(&self, seen_at: Duration) -> bool {
        seen_at >= self.sight.since && self.sight.now.saturating_sub(seen_at) <= FRESH
    }

    fn state(&self, address: &str) -> Result<&'a ServerState, String> {
        let server = self.seen.server(address).ok_or_else(|| format!("{address} was not looked at"))?;
        let fact = server.state.as_ref().filter(|fact| self.is_new(fact.seen_at));
        fact.map(|fact| &fact.value).ok_or_else(|| match &server.trouble {
            Some(why) => format!("{address} does not answer: {why}"),
            None => format!("{address} was not seen since"),
        })
    }

    fn at<'w>(&self, who: &'w Who) -> Result<&'w str, String>
    where
        'a: 'w,
    {
        who.address(self.sight.successor).ok_or_else(|| "nobody was promoted".to_owned())
    }

    fn views(&self) -> impl Iterator<Item = (&'a str, &'a SentinelView)> {
        let counts = *self;
        counts.seen.sentinels.iter().filter_map(move |sentinel| {
            let view = sentinel.view.as_ref().filter(|view| counts.is_new(view.seen_at))?;
            Some((sentinel.address.as_str(), &view.value))
        })
    }

    /// Why the check does not hold; `None` when it does.
    fn fault(&self, check: &Check) -> Option<String> {
        match check {
            Check::All(checks) => checks.iter().find_map(|check| self.fault(check)),
            Check::Promoted(servers) if check.promoted(self.seen, self.sight).is_none() => {
                Some(format!("none of {} says that it is the primary", servers.join(", ")))
            }
            Check::Promoted(_) => None,
            Check::Primary(who) => self.of_server(who, |address, state| {
                (!state.is_primary()).then(|| format!("{address} says that it is a replica"))
            }),
            Check::Follows { server, primary } => {
                let whom = match self.at(primary) {
                    Ok(whom) => whom,
                    Err(why) => return Some(why),
                };
                self.of_server(server, |address, state| follows(address, state, whom))
            }
            Check::Online { primary, replicas } => self.of_server(primary, |address, state| {
                let online = state.online().count();
                (online < *replicas).then(|| format!("{address} has {online} of {replicas} replicas online"))
            }),
            Check::Lists { primary, replica } => self.of_server(primary, |address, state| {
                let is_online = state.online().any(|online| online == replica);
                (!is_online).then(|| format!("{address} does not list {replica} as online"))
            }),
            Check::Level { primary, replicas } => self.level(primary, replicas),
            Check::Detached { server, primary } => self.detached(server, primary),
            Check::Priority { server, priority } => self.priority(server, *priority),
            Check::Named { server, by } => self.named(server, *by),
            Check::Sees { sentinel, primary, replicas, others } => self.sees(sentinel, primary, *replicas, *others),
            Check::Quiet => {
                let busy = self.views().find(|(_, view)| view.is_failing_over);
                let unseen = self.views().next().is_none().then(|| "no Sentinel answers".to_owned());
                busy.map(|(who, _)| format!("{who} says that a failover is going on")).or(unseen)
            }
        }
    }

    fn of_server(&self, who: &Who, fault: impl Fn(&str, &ServerState) -> Option<String>) -> Option<String> {
        let judged = self.at(who).and_then(|address| Ok(fault(address, self.state(address)?)));
        judged.unwrap_or_else(Some)
    }

    /// The primary's offset was seen before those of the replicas, or with them; it does not move while it is paused.
    fn level(&self, primary: &str, replicas: &[String]) -> Option<String> {
        let offset = match self.state(primary) {
            Ok(state) => state.offset,
            Err(why) => return Some(why),
        };
        replicas.iter().find_map(|replica| match self.state(replica) {
            Ok(state) if state.offset >= offset => None,
            Ok(state) => Some(format!("{replica} lacks {} bytes of {primary}", offset - state.offset)),
            Err(why) => Some(why),
        })
    }

    fn detached(&self, server: &str, primary: &Who) -> Option<String> {
        let listed = self.of_server(primary, |address, state| {
            let Role::Primary(attached) = &state.role else { return Some(format!("{address} is no primary")) };
            let is_listed = attached.iter().any(|replica| replica.address == server);
            is_listed.then(|| format!("{address} still lists {server}"))
        });
        let is_cut = |state: &ServerState| matches!(state.role, Role::Replica { link: ReplicaLink::Down, .. });
        // A process that is gone follows nobody.
        let linked = self.state(server).is_ok_and(|state| !is_cut(state));
        listed.or_else(|| linked.then(|| format!("{server} is not cut off yet")))
    }

    fn priority(&self, server: &str, priority: u32) -> Option<String> {
        let own = self.of_server(&Who::from(server), |_, state| {
            (state.priority != priority).then(|| format!("{server} has priority {}", state.priority))
        });
        let knows = |view: &SentinelView| {
            view.replicas.iter().any(|replica| replica.address == server && replica.priority == priority)
        };
        let behind = || self.views().find(|(_, view)| !knows(view));
        let unseen = || self.views().next().is_none().then(|| "no Sentinel answers".to_owned());
        own.or_else(|| behind().map(|(who, _)| format!("{who} has not noticed the priority of {server} yet")))
            .or_else(unseen)
    }

    fn named(&self, server: &Who, by: usize) -> Option<String> {
        let address = match self.at(server) {
            Ok(address) => address,
            Err(why) => return Some(why),
        };
        let names = self.views().filter(|(_, view)| view.primary == address).count();
        let other = self.views().find(|(_, view)| view.primary != address);
        let few = (names < by).then(|| format!("{names} of {by} Sentinels name {address}"));
        other.map(|(who, view)| format!("{who} still names {}", view.primary)).or(few)
    }

    fn sees(&self, sentinel: &str, primary: &Who, replicas: usize, others: usize) -> Option<String> {
        let primary = match self.at(primary) {
            Ok(primary) => primary,
            Err(why) => return Some(why),
        };
        let Some((_, view)) = self.views().find(|(who, _)| *who == sentinel) else {
            return Some(format!("{sentinel} does not answer"));
        };
        let up = view.replicas.iter().filter(|replica| replica.is_up).count();
        if view.primary != primary {
            return Some(format!("{sentinel} names {}", view.primary));
        }
        let is_whole = view.is_primary_up && up >= replicas && view.others >= others;
        (!is_whole).then(|| {
            let state = if view.is_primary_up { "up" } else { "down" };
            format!(
                "{sentinel} sees the primary {state}, {up} of {replicas} replicas and {} of {others} other Sentinels",
                view.others
            )
        })
    }
}

fn follows(address: &str, state: &ServerState, whom: &str) -> Option<String> {
    match &state.role {
        Role::Primary(_) => Some(format!("{address} still says that it is a primary")),
        Role::Replica { of, .. } if of != whom => Some(format!("{address} follows {of}")),
        Role::Replica { link: ReplicaLink::Connected, .. } => None,
        Role::Replica { link: ReplicaLink::Syncing, .. } => Some(format!("{address} is being synced")),
        Role::Replica { .. } => Some(format!("{address} is not connected to {whom} yet")),
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(checks) => {
                let said: Vec<String> = checks.iter().map(ToString::to_string).collect();
                f.write_str(&said.join(", "))
            }
            Self::Primary(who) => write!(f, "{who} says that it is the primary"),
            Self::Promoted(servers) => write!(f, "one of {} says that it is the primary", servers.join(", ")),
            Self::Follows { server, primary } => write!(f, "{server} follows {primary}"),
            Self::Online { primary, replicas } => write!(f, "{primary} has {replicas} replicas online"),
            Self::Lists { primary, replica } => write!(f, "{primary} lists {replica} as online"),
            Self::Level { primary, replicas } => write!(f, "{} have all that {primary} has", replicas.join(", ")),
            Self::Detached { server, primary } => write!(f, "{server} gets nothing of {primary} any more"),
            Self::Priority { server, priority } => {
                write!(f, "{server} has priority {priority} and every Sentinel knows it")
            }
            Self::Named { server, by } => write!(f, "{by} Sentinels name {server} and none another"),
            Self::Sees { sentinel, primary, replicas, others } => {
                write!(f, "{sentinel} sees {primary}, {replicas} replicas and {others} other Sentinels")
            }
            Self::Quiet => f.write_str("no failover is going on"),
        }
    }
}
