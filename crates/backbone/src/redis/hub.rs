//! One node's own tables: who follows which topic here, what its sockets were told, and whoever waits for an answer.
//!
//! Pure: no lock, no IO, no clock. One loop owns it, tells it what happened with the time as an argument, and does what
//! comes out as [`Out`]. What workers must know goes straight to their inboxes, which only queue and wake. It does not
//! know servers, connections, logs or repeats of events: the transport has dropped those, and hears each topic in order.
//!
//! Invariant: positions are this hub's own, one counter for everything. What a worker was answered is what it was told up
//! to that position, so a join is exact whatever comes out of order from the store: nothing is ever compared across nodes.

mod desk;
mod heard;
mod joins;
mod members;
mod post;
mod queries;
mod roster;
#[cfg(test)]
mod tests;
mod topics;
mod users;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Identity, Publication, Question};
use fulmar_protocol::name::UserId;

use self::desk::{Desk, Turn};
use self::topics::{Subject, Topics};
use super::envelope::{LogId, Message};
use super::records::{Call, Token, Told};
use super::topic::{Slot, Topic};
use crate::{Inbox, Outbox, Query, Reply, Unavailable, WorkerId};

/// When something happens, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// Milliseconds of a clock that never goes back. Everything is timed by it.
    pub ms: u64,
    /// Microseconds since 1970: orders rosters, also among those who come through several nodes within a millisecond.
    pub wall_us: u64,
}

/// Says which group answers for a slot now. Asked anew each time, because slots move.
pub type GroupOf = Box<dyn Fn(Slot) -> usize + Send>;

/// What a hub is told at its making.
pub struct HubSettings {
    /// Random number of this incarnation of the node.
    pub origin: u64,
    /// How many groups there are.
    pub groups: usize,
    /// Which group answers for a slot.
    pub group_of: GroupOf,
    /// Whether no group answers for a slot just now.
    pub is_frozen: Box<dyn Fn(Slot) -> bool + Send>,
    /// Interest outlives the last local subscriber by this.
    pub linger: Duration,
    /// Knows which edges an app's own server wants to be told. Never given any: the scripts do that.
    pub outbox: Option<Arc<dyn Outbox>>,
}

/// Whom a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// The group that answers for this slot when the call leaves.
    Slot(Slot),
    /// That group, by its index.
    Group(usize),
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Out {
    /// Interest begins. Answered by [`Hub::followed`], each time when it was lost and is there again.
    Follow(Topic),
    /// Interest ends.
    Unfollow(Topic),
    /// Ask the records. Answered by [`Hub::told`].
    Call {
        /// Whom.
        to: To,
        /// What.
        call: Call,
    },
    /// A client event, to be accepted like any other publication.
    Publish(Publication),
    /// [`Hub::terminate`] with this token is done.
    Terminated(Token),
    /// [`Hub::query`] with this token is answered.
    Reply(Token, Result<Reply, Unavailable>),
}

/// How full the hub is, and what happened so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HubFigures {
    /// Topics with interest, lingering ones included.
    pub topics: u64,
    /// Joins and sign-ins that wait for their answers.
    pub waiting: u64,
    /// Joins and sign-ins answered from what was known here, because a group was away. Rises.
    pub answered_alone: u64,
    /// Joins and sign-ins refused because too many waited. Rises.
    pub refused: u64,
    /// Ends of subscriptions and sign-ins that had never been made. Anything but 0 is a defect of the caller. Rises.
    pub leaves_ignored: u64,
    /// Edges that rosters read anew had and nobody had heard, or the other way round. Rises.
    pub edges_mended: u64,
    /// By app: how often subscribers of a channel were told that they may have missed something. Rise.
    pub missed: BTreeMap<String, u64>,
}

/// The tables of one node.
pub struct Hub {
    topics: Topics,
    desk: Desk,
}

impl Hub {
    /// An empty hub.
    #[must_use]
    pub fn new(settings: HubSettings) -> Self {
        Self { topics: Topics::default(), desk: Desk::new(settings) }
    }

    /// Makes a worker known, before it asks anything.
    pub fn attach(&mut self, worker: WorkerId, inbox: Arc<dyn Inbox>) {
        self.desk.post.attach(worker, inbox);
    }

    /// A worker asks. Answered through its inbox.
    pub fn ask(&mut self, now: Moment, from: WorkerId, question: Question, outs: &mut Vec<Out>) {
        let turn = &mut Turn { now, outs };
        match question {
            Question::Join(join) => self.join(turn, from, join),
            Question::Leave(leave) => self.leave(turn, from, &leave),
            Question::Publish(publication) => turn.outs.push(Out::Publish(publication)),
            Question::SignIn(sign_in) => self.sign_in(turn, from, sign_in),
            Question::SignOut(sign_out) => self.sign_out(turn, from, &sign_out),
            // This backbone keeps the time of absences itself, so nobody was ever told to ask.
            Question::SettleAbsence(_) => {}
        }
        self.answer_ready();
    }

    /// A message about a topic came: in the topic's order, events never twice. `at` is its place in the log, `None` over
    /// the bus. What nobody here follows is ignored.
    pub fn heard(&mut self, now: Moment, topic: &str, at: Option<LogId>, message: Message, outs: &mut Vec<Out>) {
        let Some(entry) = self.topics.find_mut(topic) else { return };
        let turn = &mut Turn { now, outs };
        if !entry.is_open {
            self.desk.hold(turn, entry, at, message);
        } else if let Message::Event(_) = message {
            self.desk.apply(turn, entry, at, message);
            if entry.passed_over.is_none() {
                return;
            }
            self.desk.settle(turn, entry);
        } else {
            self.desk.apply(turn, entry, at, message);
            self.desk.settle(turn, entry);
        }
        self.answer_ready();
    }

    /// An event of a cache channel that was heard before is in the log now, at this place if it is the topic's own log, and may be kept.
    pub fn logged(&mut self, now: Moment, topic: &str, (identity, at): (Identity, Option<LogId>), outs: &mut Vec<Out>) {
        let Some(entry) = self.topics.find_mut(topic) else { return };
        self.desk.logged(&mut Turn { now, outs }, entry, identity, at);
        self.answer_ready();
    }

    /// The believed primary confirmed the interest: from now on everything about the topic is heard. Only for the last
    /// [`Out::Follow`] of the topic: the confirmation of one that was taken back in between must not come here.
    pub fn followed(&mut self, now: Moment, topic: &str, outs: &mut Vec<Out>) {
        let Some(entry) = self.topics.find_mut(topic) else { return };
        entry.is_followed = true;
        self.desk.settle(&mut Turn { now, outs }, entry);
        self.answer_ready();
    }

    /// Something of these topics may have passed unheard: their subscribers are told. Says of how many channels there were any.
    pub fn missed(&mut self, now: Moment, topics: &[Topic], outs: &mut Vec<Out>) -> usize {
        let Self { topics: known, desk } = self;
        let turn = &mut Turn { now, outs };
        let told = topics.iter().filter(|topic| known.find_mut(topic.as_str()).is_some_and(|e| desk.missed(turn, e)));
        let channels = told.count();
        self.answer_ready();
        channels
    }

    /// The records answered, or spoke up.
    pub fn told(&mut self, now: Moment, group: usize, told: Told, outs: &mut Vec<Out>) {
        let turn = &mut Turn { now, outs };
        match told {
            Told::Changed { token, outcome } => self.changed(turn, token, outcome),
            // One that was asked before its slot moved on: it is asked anew where that is now.
            Told::Roster { topic, .. } if self.desk.group_of(&topic) != group => {}
            Told::Roster { token, topic, at, members, is_settled } => {
                self.roster(turn, (token, &topic), (at, is_settled), &members);
            }
            Told::Sent { token } => self.terminated(turn, token),
            Told::Found { token, found } => {
                if !self.found(turn, token, found.as_ref()) {
                    self.query_found(turn, token, found);
                }
            }
            Told::Doubtful(topic) => self.doubt(turn, group, topic.as_ref()),
        }
        self.answer_ready();
    }

    /// Another group has come, behind the others.
    pub fn add_group(&mut self) {
        self.desk.settings.groups += 1;
        self.desk.is_away.push(true);
    }

    /// Slots have moved to other groups: places of their topics are those of another log, and rosters are looked at there.
    pub fn moved(&mut self, now: Moment, has_moved: impl Fn(Slot) -> bool, outs: &mut Vec<Out>) {
        self.doubt_moved(&mut Turn { now, outs }, has_moved);
        self.answer_ready();
    }

    /// The group's primary does not answer, or does again; until the first word every group is away. Whoever has waited too long
    /// meanwhile is answered with the next ticks.
    pub fn group_is_away(&mut self, now: Moment, group: usize, is_away: bool, outs: &mut Vec<Out>) {
        if let Some(known) = self.desk.is_away.get_mut(group) {
            *known = is_away;
        }
        self.tick(now, outs);
    }

    /// Ends all connections of a user. [`Out::Terminated`] says when that is certain.
    pub fn terminate(&mut self, now: Moment, app: &AppId, user: &UserId, outs: &mut Vec<Out>) -> Token {
        self.begin_termination(&mut Turn { now, outs }, Topic::user(app, user))
    }

    /// Asks about the whole deployment. [`Out::Reply`] is the answer; it may be among `outs` at once.
    pub fn query(&mut self, now: Moment, query: Query, outs: &mut Vec<Out>) -> Token {
        self.begin_query(&mut Turn { now, outs }, query)
    }

    /// Time passed.
    pub fn tick(&mut self, now: Moment, outs: &mut Vec<Out>) {
        let turn = &mut Turn { now, outs };
        while let Some((due, topic)) = self.desk.next_alarm(now.ms) {
            self.ring(turn, due, &topic);
        }
        self.answer_ready();
        self.ask_rosters(turn);
        self.find_gathered(turn);
    }

    /// The alarm of a topic rang, unless a nearer one was set since.
    fn ring(&mut self, turn: &mut Turn<'_>, due: u64, topic: &Topic) {
        let Self { topics, desk } = self;
        let Some(entry) = topics.find_mut(topic.as_str()).filter(|entry| entry.alarm == Some(due)) else { return };
        entry.alarm = None;
        match entry.subject {
            Subject::User(..) => desk.user_due(turn, entry),
            Subject::Channel(_) | Subject::Presence(..) => {
                desk.patience_due(turn, entry);
                desk.members_due(turn, entry);
            }
        }
        desk.settle(turn, entry);
        if entry.is_idle() && entry.idle_since.saturating_add(desk.linger_ms()) <= turn.now.ms {
            if entry.is_over() {
                desk.end_check(entry);
                topics.remove(topic.as_str());
                turn.outs.push(Out::Unfollow(topic.clone()));
                return;
            }
            // Something is still under way: the records have not confirmed that nobody is left.
            entry.idle_since = turn.now.ms;
            desk.set_alarm(turn, entry);
        }
    }

    /// The node goes away, and its users will be elsewhere in a moment: from now on who leaves stays on record for five seconds, so
    /// that others see neither a going nor a coming of those who are.
    pub fn drain(&mut self) {
        self.desk.is_draining = true;
    }

    /// Whether somebody who left may still be on record.
    #[must_use]
    pub fn has_leaving(&self, now: Moment) -> bool {
        now.ms < self.desk.leaving_until
    }

    /// When [`Hub::tick`] is wanted at the latest, by [`Moment::ms`]. In the past when something was gathered: tick after
    /// all that is there to be heard has been heard.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.desk.next_deadline()
    }

    /// Whether all workers here that follow the topic have room for one more delivery.
    #[must_use]
    pub fn has_room(&self, topic: &str) -> bool {
        self.topics.find(topic).is_none_or(|entry| self.desk.post.has_room(&entry.followers))
    }

    /// Whether there is interest in the topic: what else comes over the bus is not worth reading.
    #[must_use]
    pub fn follows(&self, topic: &str) -> bool {
        self.topics.find(topic).is_some()
    }

    /// Since when everything about the topic is heard, by [`Moment::ms`]; `None` while something is waited for.
    #[must_use]
    pub fn listened_since(&self, topic: &str) -> Option<u64> {
        self.topics.find(topic).filter(|entry| entry.is_open).map(|entry| entry.since_ms)
    }

    /// Every topic with interest; for following them again elsewhere.
    pub fn interest(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter().map(|entry| &entry.topic)
    }

    /// Subscriptions and sign-ins on the topic here: busiest topics are followed again first.
    #[must_use]
    pub fn subscriptions(&self, topic: &str) -> u64 {
        self.topics.find(topic).map_or(0, |entry| entry.followers.total())
    }

    /// How full it is and what happened so far.
    #[must_use]
    pub fn figures(&self) -> HubFigures {
        HubFigures { topics: self.topics.len() as u64, ..self.desk.figures.clone() }
    }
}
