//! What one client knows, learnt from its frames alone; and what it would notice to be wrong.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Accepted, CHANNELS, Log};
use crate::envelope;
use crate::world::{Connection, Heard};

type Verdict<T = ()> = Result<T, String>;

/// One client.
pub(crate) struct Observer {
    pub(crate) app: usize,
    is_established: bool,
    on: BTreeMap<usize, Subscription>,
}

struct Subscription {
    /// As whom, on presence channels.
    user: &'static str,
    is_confirmed: bool,
    /// Whether the kept event, or that there is none, was heard; on cache channels.
    has_heard_kept: bool,
    roster: BTreeSet<String>,
    count: Option<u64>,
    /// Index in the channel's log behind the last one that was for it; none until the first is known.
    next: Option<usize>,
    /// What had been accepted when the confirmation was heard, at the latest: everything behind it is for it.
    known_from: usize,
}

impl Observer {
    pub(crate) fn new(app: usize) -> Self {
        Self { app, is_established: false, on: BTreeMap::new() }
    }

    /// It says that it wants the channel; a second time changes nothing.
    pub(crate) fn asks(&mut self, channel: usize, user: &'static str, accepted: usize) {
        self.on.entry(channel).or_insert(Subscription {
            user,
            is_confirmed: false,
            has_heard_kept: false,
            roster: BTreeSet::new(),
            count: None,
            next: None,
            known_from: accepted,
        });
    }

    pub(crate) fn gives_up(&mut self, channel: usize) {
        self.on.remove(&channel);
    }

    pub(crate) fn is_on(&self, channel: usize) -> bool {
        self.on.contains_key(&channel)
    }

    pub(crate) fn may_send(&self, channel: usize) -> bool {
        let name = CHANNELS[channel];
        let takes =
            (name.starts_with("private-") && !name.starts_with("private-encrypted-")) || name.starts_with("presence-");
        takes && self.on.get(&channel).is_some_and(|subscription| subscription.is_confirmed)
    }

    pub(crate) fn user_on(&self, channel: usize) -> Option<String> {
        let is_presence = CHANNELS[channel].starts_with("presence-");
        self.on.get(&channel).filter(|_| is_presence).map(|subscription| subscription.user.to_owned())
    }

    pub(crate) fn hears(&mut self, me: Connection, heard: &Heard, logs: &BTreeMap<(usize, usize), Log>) -> Verdict {
        let Heard::Text(text) = heard else { return Err("nobody is pinged or closed here".to_owned()) };
        envelope::check(text);
        let message: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let event = message["event"].as_str().unwrap_or_default();
        if self.is_established != (event != "pusher:connection_established") {
            return Err("established once, and first of all".to_owned());
        }
        self.is_established = true;
        let Some(name) = message["channel"].as_str() else { return Ok(()) };
        let channel = CHANNELS.iter().position(|known| *known == name).ok_or("a channel that does not exist")?;
        let data = message["data"].as_str().unwrap_or_default();
        if event == "pusher:subscription_error" {
            // Only because the channel is full; then it stands no longer.
            let subscription = self.on.remove(&channel).ok_or("a refusal of what it never asked for")?;
            return is(!subscription.is_confirmed && data.contains("is full"), "a refusal of what stands");
        }
        let subscription = self.on.get_mut(&channel).ok_or("an event of a channel that it is not on")?;
        let log = logs.get(&(self.app, channel)).map_or(&[][..], Vec::as_slice);
        if event == "pusher_internal:subscription_succeeded" {
            return subscription.confirmed(name, data, log);
        }
        is(subscription.is_confirmed, "an event before the confirmation")?;
        subscription.hears(me, event, name, data, log)
    }

    /// At rest: the count and the roster that it has must be these.
    pub(crate) fn must_know(&self, channel: usize, count: u64, users: &BTreeSet<String>) -> Verdict {
        let Some(subscription) = self.on.get(&channel) else { return Err("it is not there".to_owned()) };
        is(subscription.is_confirmed, "never answered")?;
        if CHANNELS[channel].starts_with("presence-") {
            let known = &subscription.roster;
            return is(known == users, &format!("it believes in {known:?}, and there are {users:?}"));
        }
        is(subscription.count == Some(count), &format!("it believes in {:?} of {count}", subscription.count))
    }

    /// At rest: it has received everything that was for it.
    pub(crate) fn must_have_all(&self, me: Connection, logs: &BTreeMap<(usize, usize), Log>) -> Verdict {
        for (channel, subscription) in &self.on {
            let log = logs.get(&(self.app, *channel)).map_or(&[][..], Vec::as_slice);
            let from = subscription.next.unwrap_or(subscription.known_from);
            if let Some(missed) = log.iter().skip(from).find(|accepted| accepted.except != Some(me)) {
                return Err(format!("{} never arrived on {}", missed.data, CHANNELS[*channel]));
            }
        }
        Ok(())
    }
}

impl Subscription {
    fn confirmed(&mut self, name: &str, data: &str, log: &[Accepted]) -> Verdict {
        is(!self.is_confirmed, "confirmed twice")?;
        self.is_confirmed = true;
        self.known_from = log.len();
        self.has_heard_kept = !name.contains("cache-");
        if name.starts_with("presence-") {
            let data: Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
            let ids: Vec<_> = data["presence"]["ids"].as_array().ok_or("no ids")?.iter().collect();
            self.roster = ids.iter().filter_map(|id| id.as_str()).map(str::to_owned).collect();
            let hash = data["presence"]["hash"].as_object().ok_or("no hash")?;
            let is_sound = self.roster.len() == ids.len()
                && data["presence"]["count"] == ids.len()
                && hash.keys().cloned().collect::<BTreeSet<_>>() == self.roster;
            is(is_sound, "count, ids and hash do not agree")?;
            is(self.roster.contains(self.user), "it is not among the members itself")?;
        }
        Ok(())
    }

    fn hears(&mut self, me: Connection, event: &str, name: &str, data: &str, log: &[Accepted]) -> Verdict {
        let inner = || serde_json::from_str::<Value>(data).unwrap_or_default();
        let user = || inner()["user_id"].as_str().unwrap_or_default().to_owned();
        match event {
            "pusher:cache_miss" => {
                is(!self.has_heard_kept, "a miss behind an event")?;
                self.has_heard_kept = true;
                // Whatever was kept later is live.
                self.follows(log, None)
            }
            "pusher_internal:subscription_count" => {
                is(self.has_heard_kept, "a count before the kept event")?;
                self.count = inner()["subscription_count"].as_u64();
                is(!name.starts_with("presence-") && self.count.is_some(), "a count of a presence channel")
            }
            "pusher_internal:member_added" => is(self.roster.insert(user()), "a member who was there already"),
            "pusher_internal:member_removed" => {
                let user = user();
                is(user != self.user, "its own removal")?;
                is(self.roster.remove(&user), "the removal of nobody it knows")
            }
            _ => self.receives(me, data, log),
        }
    }

    fn receives(&mut self, me: Connection, data: &str, log: &[Accepted]) -> Verdict {
        let at = log.iter().position(|accepted| accepted.data == data).ok_or("what was never accepted here")?;
        if !self.has_heard_kept {
            self.has_heard_kept = true;
            is(log[at].is_kept, "a client event that was kept")?;
            return self.follows(log, Some(at));
        }
        is(log[at].except != Some(me), "what excludes it")?;
        let skipped = match self.next {
            Some(next) if at < next => return Err(format!("{data} again, or out of order")),
            Some(next) => &log[next..at],
            // Not before it was told that it is subscribed, perhaps; but nothing since.
            None => log.get(self.known_from..at).unwrap_or_default(),
        };
        if let Some(missed) = skipped.iter().find(|accepted| accepted.except != Some(me)) {
            return Err(format!("{} was skipped", missed.data));
        }
        self.next = Some(at + 1);
        Ok(())
    }

    /// After the kept event at `kept` (none: there was none) every later one that can be kept comes live. Client events
    /// between the two may lie before the subscription, so the place is certain only up to them.
    fn follows(&mut self, log: &[Accepted], kept: Option<usize>) -> Verdict {
        let behind = kept.map_or(0, |at| at + 1);
        let next_kept = log.iter().skip(behind).position(|accepted| accepted.is_kept).map(|at| behind + at);
        self.known_from = next_kept.map_or(self.known_from, |at| at.min(self.known_from));
        Ok(())
    }
}

fn is(so: bool, else_wrong: &str) -> Verdict {
    if so { Ok(()) } else { Err(else_wrong.to_owned()) }
}
