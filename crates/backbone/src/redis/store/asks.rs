//! Questions about all nodes' records: what is sent for each, and what its answers say.

use std::collections::VecDeque;

use fulmar_protocol::exchange::Member;
use hashbrown::HashMap;
use redis::{Cmd, Value};

use super::super::keys::Keys;
use super::super::records::{Find, Found, Token, Told, Total};
use super::super::scripts::{self, Facts, Script};
use super::super::topic::{SLOTS, Topic};
use super::values;

/// Topics whose totals one call tells.
const TOTALS_MAX: usize = 128;
/// Calls of one listing that go out together: the server may run them all before it turns to anybody else.
const RANGES: u16 = 4;
/// Units of work (about two microseconds each) of one call of a listing: it stops there, and is asked to go on.
const LIST_UNITS: u32 = 400;

/// A question under way.
#[derive(Debug, Clone)]
pub enum Ask {
    Roster(Token, Topic),
    Members(Token, Topic),
    Cached(Token, Topic),
    Totals { token: Token, topics: Vec<Topic> },
    List { token: Token, prefix: String, ranges: Vec<(u16, u16)>, totals: Vec<Total> },
}

/// Questions that wait for their turn.
#[derive(Debug, Default)]
pub struct Asks {
    waiting: VecDeque<Ask>,
    /// Rosters among them, and the last who asked: each is read once, however often it is asked for.
    rosters: HashMap<Topic, Token>,
}

impl Asks {
    pub fn push(&mut self, ask: Ask) {
        let is_waiting =
            matches!(&ask, Ask::Roster(token, topic) if self.rosters.insert(topic.clone(), *token).is_some());
        if !is_waiting {
            self.waiting.push_back(ask);
        }
    }

    /// What was asked and not answered goes before everything else.
    pub fn put_back(&mut self, ask: Ask) {
        if let Ask::Roster(token, topic) = &ask {
            if self.rosters.contains_key(topic) {
                // Somebody has asked anew since.
                return;
            }
            self.rosters.insert(topic.clone(), *token);
        }
        self.waiting.push_front(ask);
    }

    pub fn pop(&mut self) -> Option<Ask> {
        let mut ask = self.waiting.pop_front()?;
        if let Ask::Roster(token, topic) = &mut ask {
            *token = self.rosters.remove(topic).unwrap_or(*token);
        }
        Some(ask)
    }

    /// Takes out all questions that came from outside.
    pub fn take_finds(&mut self) -> Vec<Token> {
        let tokens = self.waiting.iter().filter_map(Ask::token).collect();
        self.waiting.retain(|ask| ask.token().is_none());
        tokens
    }

    /// How many questions from outside wait.
    pub fn finds(&self) -> usize {
        self.waiting.len() - self.rosters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Ask {
    pub fn find(token: Token, what: Find) -> Self {
        match what {
            Find::Members(topic) => Self::Members(token, topic),
            Find::Cached(topic) => Self::Cached(token, topic),
            Find::Topics(topics) => Self::Totals { token, topics },
            Find::Prefix(prefix) => {
                let share = SLOTS / RANGES;
                let ranges = (0..RANGES).map(|range| (range * share, (range + 1) * share)).collect();
                Self::List { token, prefix, ranges, totals: Vec::new() }
            }
        }
    }

    /// Whose question it is; a roster is the hub's own and is asked again by itself.
    pub fn token(&self) -> Option<Token> {
        match self {
            Self::Roster(..) => None,
            Self::Members(token, _) | Self::Cached(token, _) => Some(*token),
            Self::Totals { token, .. } | Self::List { token, .. } => Some(*token),
        }
    }

    pub fn script(&self) -> &'static Script {
        match self {
            Self::Roster(..) | Self::Members(..) => &scripts::ROSTER,
            Self::Cached(..) => &scripts::CACHED,
            Self::Totals { .. } => &scripts::TOTALS,
            Self::List { .. } => &scripts::LIST,
        }
    }

    /// What to send.
    pub fn cmds(&self, keys: &Keys, facts: &Facts) -> Vec<Cmd> {
        let begin = || self.script().call(keys, facts);
        let with = |fill: &dyn for<'a> Fn(&'a mut Cmd) -> &'a mut Cmd| {
            let mut cmd = begin();
            fill(&mut cmd);
            cmd
        };
        match self {
            Self::Roster(_, topic) | Self::Members(_, topic) => {
                vec![with(&|cmd| cmd.arg(topic.as_str()).arg(topic.slot().0))]
            }
            Self::Cached(_, topic) => vec![with(&|cmd| cmd.arg(topic.as_str()))],
            Self::Totals { topics, .. } => {
                let call = |some: &[Topic]| {
                    let mut cmd = begin();
                    for topic in some {
                        cmd.arg(topic.as_str()).arg(topic.slot().0);
                    }
                    cmd
                };
                topics.chunks(TOTALS_MAX).map(call).collect()
            }
            Self::List { prefix, ranges, .. } => {
                let call = |(from, to): &(u16, u16)| with(&|cmd| cmd.arg(prefix).arg(*from).arg(*to).arg(LIST_UNITS));
                ranges.iter().map(call).collect()
            }
        }
    }

    /// Takes the answers, one for each command: what the hub is told, or the question as it goes on.
    /// Where the group knows of fewer nodes than are live, absence means nothing: it has lost what others have not said again yet.
    pub fn answered(self, replies: &[Value], live: u64) -> Result<Told, Self> {
        let item = |at: usize| replies.first().and_then(|reply| values::items(reply).get(at));
        match self {
            Self::Roster(token, topic) => Ok(Told::Roster {
                token,
                topic,
                at: values::log_id(item(1)),
                is_settled: values::count(item(2)) > live,
                members: item(3).map(values::roster).unwrap_or_default(),
            }),
            Self::Members(token, _) => {
                let roster = item(3).map(values::roster).unwrap_or_default();
                let members: Vec<Member> = roster.into_iter().map(|(member, _)| member).collect();
                Ok(Told::Found { token, found: Some(Found::Roster(members)) })
            }
            Self::Cached(token, _) => {
                Ok(Told::Found { token, found: Some(Found::Cached(values::kept(item(1), item(2)))) })
            }
            Self::Totals { token, topics } => Ok(totals(token, topics, replies, live)),
            Self::List { token, prefix, ranges, totals } => listed(token, prefix, &ranges, totals, replies),
        }
    }
}

fn totals(token: Token, topics: Vec<Topic>, replies: &[Value], live: u64) -> Told {
    let is_settled = replies.iter().all(|reply| values::count(values::items(reply).get(1)) > live);
    let mut numbers = replies.iter().flat_map(|reply| values::items(reply).iter().skip(2));
    let mut total =
        |topic| Total { topic, subscriptions: values::count(numbers.next()), members: values::count(numbers.next()) };
    let totals = topics.into_iter().map(&mut total).collect();
    Told::Found { token, found: Some(Found::Totals { totals, is_settled }) }
}

fn listed(
    token: Token,
    prefix: String,
    ranges: &[(u16, u16)],
    mut totals: Vec<Total>,
    replies: &[Value],
) -> Result<Told, Ask> {
    let mut left = Vec::new();
    for ((_, to), reply) in ranges.iter().zip(replies) {
        let items = values::items(reply);
        let from = u16::try_from(values::count(items.get(1))).unwrap_or(*to);
        if from < *to {
            left.push((from, *to));
        }
        for entry in items.get(2..).unwrap_or_default().chunks_exact(3) {
            // Anybody may have written into the store: what is no topic is nobody's.
            let Some(topic) = values::text(&entry[0]).and_then(|text| Topic::parse(&text)) else { continue };
            let (subscriptions, members) = (values::count(entry.get(1)), values::count(entry.get(2)));
            totals.push(Total { topic, subscriptions, members });
        }
    }
    if left.is_empty() {
        totals.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
        return Ok(Told::Found { token, found: Some(Found::Listed(totals)) });
    }
    Err(Ask::List { token, prefix, ranges: left, totals })
}
