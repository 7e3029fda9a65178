//! What comes back: what each answer changes here, and what the hub and the driver are told of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{ServerError, Value};

use super::super::envelope::LogId;
use super::super::lane::lane_of;
use super::super::records::{Change, Changed, MembersFull, Token, Told};
use super::asks::Ask;
use super::audit::{Look, Mend};
use super::flight::{Flight, Lane};
use super::queue::{Batch, Message, Queued};
use super::sweep::STEP;
use super::truth::Record;
use super::{BEAT, BEAT_UNSETTLED, Leaving, NodesSeen, Out, REFUSED_PAUSE, Refusal, Sent, Store, values};
use crate::redis::topic::{SLOTS, Topic};

/// What a change did, as its script says it in bits.
const OCCUPIED: u64 = 1;
const VACATED: u64 = 2;
const ADDED: u64 = 4;
const REMOVED: u64 = 8;
const REFUSED: u64 = 16;

impl Store {
    /// Takes the answers to commands, one for each, errors as [`Value::ServerError`].
    pub fn replied(&mut self, now: Instant, ticket: u64, replies: Vec<Value>, outs: &mut Vec<Out>) {
        let Some(at) = self.sent.iter().position(|sent| sent.ticket == ticket) else { return };
        let Sent { at: sent_at, flight, .. } = self.sent.remove(at);
        if let Some(error) = replies.iter().find_map(|reply| failure(&flight, reply)) {
            self.failed(now, flight, error, outs);
            return;
        }
        // Looks and scans are plain commands; everything else begins its answer with the epoch.
        if !matches!(flight, Flight::Load | Flight::Looks(_) | Flight::Scan) {
            let epochs = replies.iter().filter_map(|reply| values::items(reply).first());
            let epoch = epochs.map(|epoch| values::count(Some(epoch))).max().unwrap_or_default();
            if epoch > self.epoch {
                self.epoch = epoch;
                outs.push(Out::Epoch(epoch));
            }
        }
        self.take(now, now.saturating_duration_since(sent_at), flight, &replies, outs);
    }

    fn take(&mut self, now: Instant, took: Duration, flight: Flight, replies: &[Value], outs: &mut Vec<Out>) {
        let first = replies.first().unwrap_or(&Value::Nil);
        match flight {
            Flight::Load => {}
            Flight::Beat => self.beaten(now, first, outs),
            Flight::Write(Batch::Changes(changes)) => self.changed(now, changes, first, outs),
            Flight::Write(Batch::Sends(sends)) => {
                outs.extend(sends.into_iter().map(|Message { token, .. }| Out::Told(Told::Sent { token })));
            }
            Flight::Again(until) => self.again.answered(values::count(values::items(first).get(1)), until),
            Flight::Mend(mends) => self.mended(now, &mends, outs),
            Flight::Settle => {
                self.audit.settled(now);
                self.sweep.start();
                if std::mem::take(&mut self.is_new) {
                    outs.push(Out::Told(Told::Doubtful(None)));
                }
            }
            Flight::Reap(node) => self.reaped(&node, first, outs),
            Flight::Ask(asks) => self.answered(asks, replies, outs),
            Flight::Looks(looks) => self.looked(now, took, &looks, replies),
            Flight::Scan => self.scanned(now, took, first),
            Flight::Sweep => self.sweep.swept += values::count(values::items(first).get(1)),
        }
    }

    /// What was not done waits again.
    pub(super) fn put_back(&mut self, flight: Flight) {
        match flight {
            Flight::Write(batch) => self.queue.put_back(batch),
            Flight::Ask(asks) => asks.into_iter().rev().for_each(|(ask, _)| self.asks.put_back(ask)),
            Flight::Mend(_) | Flight::Settle | Flight::Looks(_) => self.audit.abandon(),
            Flight::Beat => self.beat_at = None,
            // These begin again by themselves.
            Flight::Load | Flight::Again(_) | Flight::Reap(_) | Flight::Scan | Flight::Sweep => {}
        }
    }

    fn failed(&mut self, now: Instant, flight: Flight, error: &ServerError, outs: &mut Vec<Out>) {
        let (scripts, is_write) = (flight.scripts(), matches!(flight, Flight::Write(_)));
        let is_ask = matches!(flight, Flight::Ask(_));
        self.put_back(flight);
        let number = || error.details().and_then(|text| text.split_whitespace().next()?.parse().ok());
        match error.code() {
            "NOSCRIPT" => self.unloaded.extend(scripts),
            "NOLEASE" => {
                self.has_lease = false;
                self.beat_at = None;
            }
            // Somebody has written a larger number than we ever reached.
            "STALECALL" => self.connection = self.connection.max(number().unwrap_or_default()) + 1,
            // Nothing of it was done; the edges before it are left again first.
            "LOSTEDGES" => self.again.doubt(now),
            // Nothing of it was done, and nobody is to blame: it goes again once the node knows better.
            "OTHERSLOTS" => {
                self.is_held = true;
                outs.push(Out::Refused(Refusal::OtherSlots));
            }
            code => {
                if code == "ERR" && is_write {
                    self.queue.one_by_one();
                }
                if is_ask {
                    // Whoever asked from outside does not wait for better times, nor asks for ever what fails of itself.
                    let tokens = self.asks.take_finds().into_iter();
                    outs.extend(tokens.map(|token| Out::Told(Told::Found { token, found: None })));
                }
                self.paused_until = Some(now + REFUSED_PAUSE);
                outs.push(Out::Refused(Refusal::of(error, number().unwrap_or_default())));
            }
        }
    }

    fn beaten(&mut self, now: Instant, reply: &Value, outs: &mut Vec<Out>) {
        let items = values::items(reply);
        let (seconds, micros) = (values::count(items.get(1)), values::count(items.get(2)));
        let (found, settled) = (values::count(items.get(3)), values::count(items.get(4)));
        let leases = items.get(5).and_then(values::pairs).unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.leases.look(now, leases.into_iter().map(|(name, lease)| (text(name), text(lease))).collect());
        let had_lease = std::mem::replace(&mut self.has_lease, true);
        match found {
            2 => {
                self.is_reaped = true;
                self.again.forget();
                outs.push(Out::Reaped);
            }
            1 => {
                // Without a word before, it may have lost everything, and another node have taken it into use again.
                self.again.doubt(now);
                if had_lease {
                    self.audit.want(now);
                }
            }
            _ => {}
        }
        if settled == 0 && !self.audit.is_looking() {
            self.audit.want(now);
        }
        let is_settled = settled >= 2;
        if is_settled && !std::mem::replace(&mut self.is_settled, is_settled) {
            // Absence means something again: whoever waited for that may look now.
            outs.push(Out::Told(Told::Doubtful(None)));
        }
        self.is_settled = is_settled;
        self.beat_at = Some(now + if is_settled { BEAT } else { BEAT_UNSETTLED });
        let nodes = self.leases.nodes(now);
        let (server_ms, edges_dropped) = (seconds * 1_000 + micros / 1_000, values::count(items.get(6)));
        outs.push(Out::Nodes(NodesSeen { server_ms, nodes, is_settled, edges_dropped }));
    }

    /// Our records were taken away, with edges: they are made again, with edges. Only while no change is on its way, since
    /// what is said anew must come before whatever is newer.
    pub(super) fn join_anew(&mut self) {
        let mut changes = Vec::new();
        for (topic, record) in self.truth.take() {
            changes.extend(joins(&topic, &record));
        }
        self.queue.put_before(changes);
        self.audit.abandon();
    }

    fn changed(&mut self, now: Instant, changes: Vec<Queued>, reply: &Value, outs: &mut Vec<Out>) {
        let items = values::items(reply);
        let at = values::log_id(items.get(1));
        let has_said = values::count(items.get(3)) > 0;
        self.again.keep(now, values::count(items.get(4)), items.get(5).map(values::items).unwrap_or_default());
        let answers = items.get(2).map(values::items).unwrap_or_default();
        let logged = values::logged(items.get(6).map(values::items).unwrap_or_default());
        for (index, Queued { change, is_asked, superseded }) in changes.into_iter().enumerate() {
            let answer = answers.get(index).map(values::items).unwrap_or_default();
            let did = values::count(answer.first());
            self.queue.done(&change.topic);
            self.audit.touch(&change.topic);
            if did & REFUSED == 0 {
                self.truth.apply(&change);
            }
            let mut outcome = outcome(did, (at, has_said), answer, &change);
            if let (Ok(changed), true) = (&mut outcome, change.wants_logged) {
                changed.logged = Arc::clone(&logged[lane_of(change.topic.slot())]);
            }
            let told = |token: Token, outcome| Out::Told(Told::Changed { token, outcome });
            let bare = |outcome: &Result<Changed, MembersFull>| match outcome {
                // The edges were the last one's.
                Ok(changed) => Ok(Changed {
                    is_occupied: false,
                    is_vacated: false,
                    is_added: false,
                    is_removed: false,
                    ..changed.clone()
                }),
                Err(full) => Err(*full),
            };
            outs.extend(superseded.into_iter().map(|token| told(token, bare(&outcome))));
            if is_asked {
                outs.push(told(change.token, outcome));
            }
        }
    }

    fn mended(&mut self, now: Instant, mends: &[Mend], outs: &mut Vec<Out>) {
        self.audit.mended += mends.len() as u64;
        let mut told: Vec<&Topic> = Vec::new();
        for topic in mends.iter().filter_map(|mend| mend.topic.as_ref()) {
            if !told.contains(&topic) && told.len() < super::audit::TOLD_MAX {
                told.push(topic);
            }
        }
        let is_mass = mends.len() > super::audit::TOLD_MAX;
        if is_mass {
            outs.push(Out::Told(Told::Doubtful(None)));
        } else {
            outs.extend(told.into_iter().map(|topic| Out::Told(Told::Doubtful(Some(topic.clone())))));
        }
        self.is_settled = false;
        // The others are looking too: soon known when all are done.
        self.beat_at = self.beat_at.map(|at| at.min(now + BEAT_UNSETTLED));
    }

    fn reaped(&mut self, node: &str, reply: &Value, outs: &mut Vec<Out>) {
        let slot = values::items(reply).get(1).and_then(values::number).unwrap_or(-2);
        let is_over = slot < 0 || slot >= i64::from(SLOTS);
        if node == self.node {
            self.leaving = if is_over { Leaving::Done } else { Leaving::At(slot) };
            if is_over {
                outs.push(Out::Left);
            }
        } else if is_over {
            self.reapings.retain(|reaping| reaping.node != node);
        } else if let Some(reaping) = self.reapings.iter_mut().find(|reaping| reaping.node == node) {
            reaping.slot = slot;
        }
    }

    fn answered(&mut self, asks: Vec<(Ask, usize)>, replies: &[Value], outs: &mut Vec<Out>) {
        let mut replies = replies;
        for (ask, count) in asks {
            let (mine, rest) = replies.split_at(count.min(replies.len()));
            replies = rest;
            match ask.answered(mine, self.live) {
                Ok(Told::Roster { token, topic, at, is_settled, members }) => {
                    // Where the slot has gone from, absence means nothing.
                    let is_settled = is_settled && !self.given.contains(&topic.slot().0);
                    outs.push(Out::Told(Told::Roster { token, topic, at, is_settled, members }));
                }
                Ok(told) => outs.push(Out::Told(told)),
                // Behind the others: a long listing lets short questions pass.
                Err(ask) => self.asks.push(ask),
            }
        }
    }

    fn looked(&mut self, now: Instant, took: Duration, looks: &[Look], replies: &[Value]) {
        let (queue, given) = (&self.queue, &self.given);
        let is_pending = |topic: &Topic| given.contains(&topic.slot().0) || queue.is_pending(topic);
        self.audit.compare(looks, replies, &self.truth, is_pending);
        self.audit.pace(now, took, self.leases.count());
    }

    fn scanned(&mut self, now: Instant, took: Duration, reply: &Value) {
        let items = values::items(reply);
        let cursor = items.first().and_then(values::text).unwrap_or_else(|| "0".to_owned());
        let found = items.get(1).map(values::items).unwrap_or_default();
        let found = found.iter().filter_map(|key| values::bytes(key).map(<[u8]>::to_vec)).collect();
        let (leases, truth, queue, given) = (&self.leases, &self.truth, &self.queue, &self.given);
        let is_of_use =
            |topic: &Topic| given.contains(&topic.slot().0) || truth.record(topic).is_some() || queue.is_pending(topic);
        self.sweep.scanned(now, (cursor, found), &self.keys, &self.node, |node| leases.has(node), is_of_use);
        self.sweep.due = Some(now + self.audit.pause(took, STEP, self.leases.count()));
    }

    /// Whether nothing is on its way and nothing waits: for tests and for an orderly end.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.asks.is_empty() && self.is_free(Lane::Write) && self.is_free(Lane::Read)
    }
}

/// Everything a record says, as changes that join anew. Its count comes with each member, since each is absolute.
fn joins(topic: &Topic, record: &Record) -> Vec<Queued> {
    let change = |member| Queued {
        change: Change {
            token: Token(0),
            topic: topic.clone(),
            subscriptions: record.count,
            member,
            members_max: None,
            is_counted: record.is_counted,
            wants_roster: false,
            wants_cached: false,
            wants_logged: false,
            hooks: record.hooks,
        },
        is_asked: false,
        superseded: Vec::new(),
    };
    if record.members.is_empty() {
        return vec![change(None)];
    }
    record.members.iter().map(|(user, presence)| change(Some((user.clone(), Some(presence.clone()))))).collect()
}

fn outcome(did: u64, (at, has_said): (LogId, bool), answer: &[Value], change: &Change) -> Result<Changed, MembersFull> {
    if did & REFUSED != 0 {
        return Err(MembersFull);
    }
    // Behind what this call had said until then; where it said nothing at all, behind all that was there before.
    let at = if has_said { at.place(values::count(answer.get(5))).before() } else { at };
    let roster = answer.get(2).map(values::roster).unwrap_or_default();
    Ok(Changed {
        at,
        is_occupied: did & OCCUPIED != 0,
        is_vacated: did & VACATED != 0,
        is_added: did & ADDED != 0,
        is_removed: did & REMOVED != 0,
        total: values::count(answer.get(1)),
        roster: change.wants_roster.then_some(roster),
        cached: if change.wants_cached { values::kept(answer.get(3), answer.get(4)) } else { None },
        logged: Arc::default(),
    })
}

/// An error among answers. A key of the wrong type is what the audit looks for.
fn failure<'a>(flight: &Flight, reply: &'a Value) -> Option<&'a ServerError> {
    match reply {
        Value::ServerError(error) if matches!(flight, Flight::Looks(_)) && error.code() == "WRONGTYPE" => None,
        Value::ServerError(error) => Some(error),
        _ => None,
    }
}

impl Refusal {
    fn of(error: &ServerError, number: u64) -> Self {
        let details = || error.details().unwrap_or_default();
        match error.code() {
            "OTHERSLOTS" => Self::OtherSlots,
            "NOIDENTITY" => Self::NoIdentity,
            "WRONGGROUP" => Self::WrongGroup(details().to_owned()),
            "STALEEPOCH" => Self::StaleEpoch(number),
            "READONLY" => Self::ReadOnly,
            "LOADING" => Self::Loading,
            "MASTERDOWN" => Self::PrimaryDown,
            "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" => Self::NotOwner,
            "NOREPLICAS" => Self::NoReplicas,
            "OOM" => Self::Full,
            code => Self::Other(format!("{code} {}", details())),
        }
    }
}
