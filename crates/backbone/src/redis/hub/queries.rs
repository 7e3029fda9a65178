//! Questions about the whole deployment: one call for each group that knows part of the answer, and the answer put together.
//!
//! Knows nothing of what this node follows. A part that cannot be had makes the whole unavailable, unless a part was asked for, and
//! then the answer says so: never a silent partial answer.

use std::collections::BTreeMap;

use foldhash::quality::RandomState;
use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::Position;
use fulmar_protocol::name::ChannelName;
use hashbrown::HashMap;

use super::desk::Turn;
use super::topics::Topics;
use super::{Hub, Out, To};
use crate::redis::envelope::Message;
use crate::redis::records::{Call, Find, Found, Kept, Token, Total};
use crate::redis::topic::{About, Topic};
use crate::{CachedEvent, ChannelState, Query, Reply, Unavailable};

/// All questions without an answer.
#[derive(Default)]
pub(super) struct Queries {
    asked: HashMap<Token, Asked, RandomState>,
    /// The calls, each with its question.
    calls: HashMap<Token, Token, RandomState>,
}

/// One question.
struct Asked {
    /// Calls without an answer.
    pending: usize,
    /// The answer so far.
    so_far: SoFar,
}

enum SoFar {
    /// Whatever is found.
    Listed(BTreeMap<ChannelName, ChannelState>),
    /// Whatever is found where anybody answers.
    Reachable {
        states: BTreeMap<ChannelName, ChannelState>,
        /// Groups that answered, and that did not.
        answered: usize,
        missing: usize,
    },
    /// These, in this order.
    Named(Vec<ChannelName>, BTreeMap<ChannelName, ChannelState>),
    /// Members of a channel, or its cached event.
    One(Topic, Option<Reply>),
}

impl Hub {
    pub(super) fn begin_query(&mut self, turn: &mut Turn<'_>, query: Query) -> Token {
        let token = self.desk.token();
        let (so_far, calls) = match query {
            Query::Channels { app, prefix } => (SoFar::Listed(BTreeMap::new()), self.everywhere(&app, &prefix)),
            Query::Reachable { app, prefix } => {
                let so_far = SoFar::Reachable { states: BTreeMap::new(), answered: 0, missing: 0 };
                (so_far, self.everywhere(&app, &prefix))
            }
            Query::Named { app, channels } => {
                let calls = self.by_group(&app, &channels);
                (SoFar::Named(channels, BTreeMap::new()), calls)
            }
            Query::Members { app, channel } => one(Topic::channel(&app, &channel), Find::Members),
            Query::Cached { app, channel } => one(Topic::channel(&app, &channel), Find::Cached),
        };
        let asked = Asked { pending: calls.len(), so_far };
        if calls.is_empty() {
            turn.outs.push(Out::Reply(token, Ok(asked.so_far.reply())));
            return token;
        }
        self.desk.queries.asked.insert(token, asked);
        for (to, what) in calls {
            let call = self.desk.token();
            self.desk.queries.calls.insert(call, token);
            turn.outs.push(Out::Call { to, call: Call::Find { token: call, what } });
        }
        token
    }

    fn everywhere(&self, app: &AppId, prefix: &str) -> Vec<(To, Find)> {
        let text = format!("{}:{prefix}", app.as_str());
        (0..self.desk.settings.groups).map(|group| (To::Group(group), Find::Prefix(text.clone()))).collect()
    }

    fn by_group(&self, app: &AppId, channels: &[ChannelName]) -> Vec<(To, Find)> {
        let mut topics = BTreeMap::<usize, Vec<Topic>>::new();
        for topic in channels.iter().map(|channel| Topic::channel(app, channel)) {
            topics.entry(self.desk.group_of(&topic)).or_default().push(topic);
        }
        topics.into_iter().map(|(group, topics)| (To::Group(group), Find::Topics(topics))).collect()
    }

    /// A group answered.
    pub(super) fn query_found(&mut self, turn: &mut Turn<'_>, call: Token, found: Option<Found>) {
        let queries = &mut self.desk.queries;
        let Some(token) = queries.calls.remove(&call) else { return };
        // Another part may have been missing already.
        let Some(asked) = queries.asked.get_mut(&token) else { return };
        let is_last = asked.pending == 1;
        let is_answer = match found {
            Some(found) => asked.so_far.add(&self.topics, found),
            None => asked.so_far.can_lack(is_last),
        };
        if !is_answer {
            queries.asked.remove(&token);
            turn.outs.push(Out::Reply(token, Err(Unavailable)));
            return;
        }
        asked.pending -= 1;
        if asked.pending == 0
            && let Some(asked) = queries.asked.remove(&token)
        {
            turn.outs.push(Out::Reply(token, Ok(asked.so_far.reply())));
        }
    }
}

fn one(topic: Topic, what: fn(Topic) -> Find) -> (SoFar, Vec<(To, Find)>) {
    let call = (To::Slot(topic.slot()), what(topic.clone()));
    (SoFar::One(topic, None), vec![call])
}

impl SoFar {
    /// Takes in a part; false when it is none.
    fn add(&mut self, topics: &Topics, found: Found) -> bool {
        if let Self::Reachable { answered, .. } = self {
            *answered += 1;
        }
        match (self, found) {
            (Self::Listed(states) | Self::Reachable { states, .. }, Found::Listed(totals)) => {
                let listed = totals.into_iter().filter(|total| total.subscriptions > 0).filter_map(state);
                add_states(states, listed.filter(|state| state.channel.kind().is_listed()));
            }
            (Self::Named(_, states), Found::Totals { totals, .. }) => {
                add_states(states, totals.into_iter().filter_map(state));
            }
            (Self::One(_, reply), Found::Roster(members)) => *reply = Some(Reply::Members(members)),
            (Self::One(topic, reply), Found::Cached(kept)) => {
                *reply = Some(Reply::Cached(kept.and_then(|kept| cached(topics, topic, &kept))));
            }
            _ => return false,
        }
        true
    }

    /// Takes note of a part that cannot be had; false when that leaves nothing to answer with.
    fn can_lack(&mut self, is_last: bool) -> bool {
        let Self::Reachable { answered, missing, .. } = self else { return false };
        *missing += 1;
        !is_last || *answered > 0
    }

    fn reply(self) -> Reply {
        match self {
            Self::Reachable { states, missing, .. } => {
                Reply::Reachable { channels: states.into_values().collect(), is_partial: missing > 0 }
            }
            Self::Listed(states) => Reply::Channels(states.into_values().collect()),
            Self::Named(names, states) => {
                let unoccupied = |channel| ChannelState { channel, subscriptions: 0, members: 0 };
                let state = |name: ChannelName| states.get(&name).cloned().unwrap_or_else(|| unoccupied(name));
                Reply::Channels(names.into_iter().map(state).collect())
            }
            Self::One(_, reply) => reply.unwrap_or(Reply::Cached(None)),
        }
    }
}

/// While a slot moves two groups may know a channel: the one that knows more is believed.
fn add_states(states: &mut BTreeMap<ChannelName, ChannelState>, found: impl Iterator<Item = ChannelState>) {
    for state in found {
        let known = states.entry(state.channel.clone()).or_insert_with(|| state.clone());
        if known.subscriptions < state.subscriptions {
            *known = state;
        }
    }
}

/// Nothing for what is no channel: users begin with the same app.
fn state(total: Total) -> Option<ChannelState> {
    let Total { topic, subscriptions, members } = total;
    match topic.about() {
        About::Channel(_, channel) => Some(ChannelState { channel, subscriptions, members }),
        About::User(..) => None,
    }
}

fn cached(topics: &Topics, topic: &Topic, kept: &Kept) -> Option<CachedEvent> {
    let Some(Message::Event(event)) = Message::decode(&kept.message) else { return None };
    // Places are this node's own: only what it heard has one.
    let own = topics.find(topic.as_str()).and_then(|entry| entry.cached.as_ref());
    let position = own.filter(|own| own.identity == event.identity).map_or(Position(0), |own| own.position);
    Some(CachedEvent { frame: event.frame, position, ttl_s: kept.ttl_ms.div_ceil(1_000).max(1) })
}
