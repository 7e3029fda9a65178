//! What goes out: one beat, one thing that writes and one that reads at a time, so that batches form by themselves and no
//! server is ever asked for much at once.

use std::time::Instant;

use redis::Cmd;

use super::super::millis;
use super::super::scripts::{self, Facts, Script};
use super::asks::Ask;
use super::audit::{Look, Mend, Settle, Upkeep};
use super::queue::{Batch, Queued};
use super::sweep::Doomed;
use super::truth::{bits, presence_text};
use super::{Leaving, Outgoing, Sent, Store};

/// Changes, or members reaped, in one call: enough to share what a call costs, few enough to stay near a millisecond, and fewer
/// where each looks at the records of more nodes (a change takes about 7 us and 2.2 us for each node).
const CHANGES_MAX: usize = 64;
const CHANGES_MIN: usize = 8;
/// Commands of questions in one flight.
const ASKED_MAX: usize = 32;

/// Things that go out side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Load,
    Beat,
    Write,
    Read,
}

/// What a ticket stands for.
#[derive(Debug)]
pub enum Flight {
    Load,
    Beat,
    Write(Batch),
    /// Edges left again, of the calls up to this one.
    Again(Option<u64>),
    Mend(Vec<Mend>),
    Settle,
    /// The node.
    Reap(String),
    Ask(Vec<(Ask, usize)>),
    Looks(Vec<Look>),
    Scan,
    Sweep,
}

impl Flight {
    pub fn lane(&self) -> Lane {
        match self {
            Self::Load => Lane::Load,
            Self::Beat => Lane::Beat,
            Self::Write(_) | Self::Again(_) | Self::Mend(_) | Self::Settle | Self::Reap(_) => Lane::Write,
            Self::Ask(_) | Self::Looks(_) | Self::Scan | Self::Sweep => Lane::Read,
        }
    }

    /// The scripts that it calls.
    pub fn scripts(&self) -> Vec<&'static Script> {
        match self {
            Self::Beat => vec![&scripts::BEAT],
            Self::Write(Batch::Changes(_)) => vec![&scripts::CHANGE],
            Self::Write(Batch::Sends(_)) => vec![&scripts::SEND],
            Self::Again(_) => vec![&scripts::AGAIN],
            Self::Mend(_) => vec![&scripts::MEND],
            Self::Settle => vec![&scripts::SETTLE],
            Self::Reap(_) => vec![&scripts::REAP],
            Self::Ask(asks) => asks.iter().map(|(ask, _)| ask.script()).collect(),
            Self::Sweep => vec![&scripts::SWEEP],
            Self::Load | Self::Looks(_) | Self::Scan => Vec::new(),
        }
    }
}

impl Store {
    /// What to send now; to be called until it answers `None`, after every other call.
    pub fn next(&mut self, now: Instant, facts: &Facts) -> Option<Outgoing> {
        if !self.is_attached || self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        self.paused_until = None;
        let (flight, cmds) = self
            .load()
            .or_else(|| self.beat(now, facts))
            .or_else(|| self.write(facts))
            .or_else(|| self.read(now, facts))?;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.sent.push(Sent { ticket, at: now, flight });
        Some(Outgoing { ticket, cmds })
    }

    /// Scripts that the server does not know go before whatever calls them again.
    fn load(&mut self) -> Option<(Flight, Vec<Cmd>)> {
        let cmds: Vec<Cmd> = self.unloaded.drain(..).map(Script::load).collect();
        (!cmds.is_empty()).then_some((Flight::Load, cmds))
    }

    fn beat(&mut self, now: Instant, facts: &Facts) -> Option<(Flight, Vec<Cmd>)> {
        let is_due = self.beat_at.is_none_or(|at| now >= at) && self.is_beating();
        if !is_due || !self.is_free(Lane::Beat) {
            return None;
        }
        let mut cmd = scripts::BEAT.call(&self.keys, facts);
        cmd.arg(&self.node).arg(self.connection).arg(&self.lease).arg(u8::from(self.truth.is_empty()));
        Some((Flight::Beat, vec![cmd]))
    }

    /// Changes and upkeep take turns where there is both.
    fn write(&mut self, facts: &Facts) -> Option<(Flight, Vec<Cmd>)> {
        if self.is_held || !self.is_free(Lane::Write) {
            return None;
        }
        if self.has_lease && std::mem::take(&mut self.is_reaped) {
            self.join_anew();
        }
        if let Some(again) = self.again(facts) {
            return Some(again);
        }
        let is_upkeep_first = !self.was_upkeep[0];
        let found = if is_upkeep_first {
            self.upkeep(facts).or_else(|| self.batch(facts))
        } else {
            self.batch(facts).or_else(|| self.upkeep(facts))
        };
        let is_batch = matches!(found, Some((Flight::Write(_), _)));
        self.was_upkeep[0] = found.is_some() && !is_batch;
        found
    }

    fn again(&mut self, facts: &Facts) -> Option<(Flight, Vec<Cmd>)> {
        if !self.has_lease {
            return None;
        }
        let (keys, node, connection, max) = (&self.keys, &self.node, self.connection, self.limits.outbox_part_max);
        let (until, cmd) = self.again.next(|| {
            let mut cmd = scripts::AGAIN.call(keys, facts);
            cmd.arg(node).arg(connection).arg(max);
            cmd
        })?;
        Some((Flight::Again(until), vec![cmd]))
    }

    fn batch(&mut self, facts: &Facts) -> Option<(Flight, Vec<Cmd>)> {
        if !self.has_lease && self.is_beating() {
            return None;
        }
        let batch = self.queue.batch(self.changes_max())?;
        let cmd = match &batch {
            Batch::Changes(changes) => self.change_cmd(changes, facts),
            Batch::Sends(sends) => {
                let mut cmd = scripts::SEND.call(&self.keys, facts);
                cmd.arg(self.log_age_ms()).arg(self.limits.log_entries_max);
                for send in sends {
                    cmd.arg(send.topic.as_str()).arg(&send.message[..]);
                }
                cmd
            }
        };
        Some((Flight::Write(batch), vec![cmd]))
    }

    fn changes_max(&self) -> usize {
        (1_000 / (7 + 3 * self.leases.count())).clamp(CHANGES_MIN, CHANGES_MAX)
    }

    fn log_age_ms(&self) -> u64 {
        millis(self.limits.log_age)
    }

    fn change_cmd(&mut self, changes: &[Queued], facts: &Facts) -> Cmd {
        let mut cmd = scripts::CHANGE.call(&self.keys, facts);
        cmd.arg(&self.node).arg(self.connection).arg(self.log_age_ms()).arg(self.limits.log_entries_max);
        cmd.arg(self.limits.outbox_part_max).arg(self.again.call()).arg(self.again.last());
        for Queued { change, .. } in changes {
            let (user, presence) = match &change.member {
                None => ("", String::new()),
                Some((user, None)) => (user.as_str(), "-".to_owned()),
                Some((user, Some(presence))) => (user.as_str(), presence_text(presence)),
            };
            cmd.arg(change.topic.as_str()).arg(change.topic.slot().0).arg(change.subscriptions);
            cmd.arg(user).arg(presence).arg(change.members_max.map_or("-".to_owned(), |max| max.to_string()));
            let asked = [(1, change.wants_roster), (2, change.wants_cached), (4, change.wants_logged)];
            cmd.arg(asked.iter().filter(|(_, is_asked)| *is_asked).map(|(bit, _)| bit).sum::<u8>());
            cmd.arg(bits(change.hooks, change.is_counted));
        }
        cmd
    }

    /// What the audit, an end, or a death has to write.
    fn upkeep(&mut self, facts: &Facts) -> Option<(Flight, Vec<Cmd>)> {
        if self.leaving == Leaving::Wanted && self.queue.is_empty() && self.has_lease {
            self.leaving = Leaving::At(-1);
        }
        if let Leaving::At(slot) = self.leaving {
            let node = self.node.clone();
            return Some(self.reap_step(&node, "", slot, facts));
        }
        if !self.has_lease || self.leaving == Leaving::Done {
            return None;
        }
        let found = {
            let queue = &self.queue;
            self.audit.upkeep(|topic| queue.is_pending(topic))
        };
        match found {
            Some(Upkeep::Mend(mends, is_told)) => Some(self.mend(mends, is_told, facts)),
            Some(Upkeep::Settle(settle)) => Some((Flight::Settle, vec![self.settle_cmd(&settle, facts)])),
            None => {
                let reaping = self.reapings.front()?;
                let (node, lease, slot) = (reaping.node.clone(), reaping.lease.clone(), reaping.slot);
                Some(self.reap_step(&node, &lease, slot, facts))
            }
        }
    }

    fn mend(&self, mends: Vec<Mend>, is_told: bool, facts: &Facts) -> (Flight, Vec<Cmd>) {
        let mut cmd = scripts::MEND.call(&self.keys, facts);
        let notice = if is_told { format!("D{} ", self.node) } else { String::new() };
        cmd.arg(&self.node).arg(self.connection).arg(notice).arg(self.limits.outbox_part_max);
        for mend in &mends {
            cmd.arg(&mend.text[..]).arg(mend.slot.0).arg(&mend.record).arg(mend.gone.len()).arg(mend.here.len());
            for user in &mend.gone {
                cmd.arg(&user[..]);
            }
            for (user, presence) in &mend.here {
                cmd.arg(user.as_str()).arg(presence);
            }
        }
        (Flight::Mend(mends), vec![cmd])
    }

    fn settle_cmd(&self, settle: &Settle, facts: &Facts) -> Cmd {
        let mut cmd = scripts::SETTLE.call(&self.keys, facts);
        let notice = if settle.is_told { format!("D{} *", self.node) } else { String::new() };
        cmd.arg(&self.node).arg(self.connection).arg(&settle.damages).arg(u8::from(settle.has_found)).arg(notice);
        cmd
    }

    fn reap_step(&self, node: &str, lease: &str, slot: i64, facts: &Facts) -> (Flight, Vec<Cmd>) {
        let mut cmd = scripts::REAP.call(&self.keys, facts);
        cmd.arg(self.log_age_ms()).arg(self.limits.log_entries_max);
        cmd.arg(node).arg(lease).arg(slot).arg(self.changes_max()).arg(self.limits.outbox_part_max);
        (Flight::Reap(node.to_owned()), vec![cmd])
    }

    /// Questions and the audit's looks take turns where there is both.
    fn read(&mut self, now: Instant, facts: &Facts) -> Option<(Flight, Vec<Cmd>)> {
        if !self.is_free(Lane::Read) {
            return None;
        }
        let is_look_first = !self.was_upkeep[1];
        let found = if is_look_first {
            self.look(now).or_else(|| self.ask(facts))
        } else {
            self.ask(facts).or_else(|| self.look(now))
        };
        let found = found.or_else(|| self.sweep_step(now, facts));
        self.was_upkeep[1] = matches!(found, Some((Flight::Looks(_), _)));
        found
    }

    fn ask(&mut self, facts: &Facts) -> Option<(Flight, Vec<Cmd>)> {
        let (mut asks, mut cmds) = (Vec::new(), Vec::new());
        while cmds.len() < ASKED_MAX
            && let Some(ask) = self.asks.pop()
        {
            let some = ask.cmds(&self.keys, facts);
            asks.push((ask, some.len()));
            cmds.extend(some);
        }
        (!asks.is_empty()).then_some((Flight::Ask(asks), cmds))
    }

    fn look(&mut self, now: Instant) -> Option<(Flight, Vec<Cmd>)> {
        if !self.has_lease || !self.is_beating() {
            return None;
        }
        let looks = self.audit.looks(now, &self.truth)?;
        let cmd = |look: &Look| match look {
            Look::Damages => {
                let mut cmd = redis::cmd("HGET");
                cmd.arg(self.keys.identity()).arg("damage");
                cmd
            }
            Look::Records(slot) => {
                let mut cmd = redis::cmd("HGETALL");
                cmd.arg(self.keys.records(*slot, &self.node));
                cmd
            }
            Look::Members(topic) => {
                let mut cmd = redis::cmd("HGETALL");
                cmd.arg(self.keys.members(topic.slot(), &self.node, topic));
                cmd
            }
        };
        let cmds = looks.iter().map(cmd).collect();
        Some((Flight::Looks(looks), cmds))
    }

    fn sweep_step(&mut self, now: Instant, facts: &Facts) -> Option<(Flight, Vec<Cmd>)> {
        if !self.has_lease || !self.is_beating() {
            return None;
        }
        if let Some(doomed) = self.sweep.doomed() {
            let mut cmd = scripts::SWEEP.call(&self.keys, facts);
            let is_in_use = |doomed: &&Doomed| {
                let topic = doomed.topic.as_ref();
                topic.is_some_and(|topic| self.queue.is_pending(topic) || self.truth.record(topic).is_some())
            };
            for doomed in doomed.iter().filter(|doomed| !is_in_use(doomed)) {
                cmd.arg(&doomed.node).arg(&doomed.key[..]);
            }
            return Some((Flight::Sweep, vec![cmd]));
        }
        self.sweep.scan(now, &self.keys).map(|cmd| (Flight::Scan, vec![cmd]))
    }
}
