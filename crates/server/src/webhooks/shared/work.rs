//! What a node does with the outbox of one group: a turn at the claims each second, and in between rounds of reading,
//! deciding and writing.
//!
//! A round reads all parts at once, lets their books decide, and writes what each decided in one script; only then are
//! sealed requests handed to the sender. After any failure the group is asked anew who its primary is, and every part is
//! read again from what is stored: nothing is taken for granted but what the sender says has ended, and what [`Memory`] gives back where
//! the store has lost it.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use fulmar_backbone::redis::outbox::{Compared, GroupOutbox, Operation, OutboxError, READ_MAX, Recalled, Turn};
use fulmar_backbone::redis::topic::OUTBOX_PARTS;
use fulmar_engine::webhook_batch::Address;
use fulmar_engine::webhook_part::{EntryId, Lane, WebhookPart};
use fulmar_protocol::app::App;
use tokio::sync::mpsc;

use super::super::clock::WebhookClock;
use super::super::figures::Counters;
use super::super::keeper::{RESEAL_AFTER_MS, age_ms, note_dropped};
use super::super::sender::{Command, Handed, Sending};
use super::super::store::{Ended, GivenUp};
use super::comparing::{Comparing, Step};
use super::memory::{Lost, Memory};
use super::part::{Leaving, Part};
use super::{Sealed, Start, Told, wire, withdraw};

/// Pause between two rounds while there is nothing more to read.
const ROUND: Duration = Duration::from_millis(50);
/// Steps of comparing in one round, each of which takes the primary a millisecond at most.
const COMPARING_STEPS: u32 = 5;
/// Between two turns at the claims.
const TURN_MS: u64 = 1_000;
/// Pause after a failure, and as much again by chance.
const RETRY_MS: u64 = 100;
/// What is over within this time is nothing to complain about: a primary that has just been looked for, or just changed.
const COMPLAIN_AFTER_MS: u64 = 5_000;
/// At most one complaint about a group in this many milliseconds.
const COMPLAIN_EVERY_MS: u64 = 60_000;

/// The task of one group.
pub(super) struct GroupWork {
    outbox: GroupOutbox,
    group: usize,
    claims: bool,
    apps: Vec<Arc<App>>,
    sending: Sending,
    clock: WebhookClock,
    counters: Arc<Counters>,
    told: mpsc::UnboundedReceiver<Told>,
    parts: BTreeMap<u16, Part>,
    memory: Memory,
    comparing: Comparing,
    turn_at: u64,
    retry_at: u64,
    /// Of the connection by which the books were read.
    connection: u64,
    /// Run id of the server that answered last.
    run: Option<String>,
    failing_since: Option<u64>,
    complained_at: Option<u64>,
}

impl GroupWork {
    pub(super) fn new(
        outbox: GroupOutbox,
        group: usize,
        claims: bool,
        start: &Start,
        told: mpsc::UnboundedReceiver<Told>,
    ) -> Self {
        Self {
            outbox,
            group,
            claims,
            apps: start.apps.clone(),
            sending: start.sending.clone(),
            clock: start.clock.clone(),
            counters: start.counters.clone(),
            told,
            parts: BTreeMap::new(),
            memory: Memory::default(),
            comparing: Comparing::default(),
            turn_at: 0,
            retry_at: 0,
            connection: 0,
            run: None,
            failing_since: None,
            complained_at: None,
        }
    }

    /// Until it is told to stop.
    pub(super) async fn run(mut self) {
        let mut pause = Duration::ZERO;
        loop {
            let told = tokio::time::timeout(pause, self.told.recv()).await;
            // First this, then the rest of what was said: what the sender is through with came before its word that it is.
            self.parts.values_mut().for_each(Part::look_at_leaving);
            let mut next = told.ok();
            while let Some(told) = next {
                match told {
                    Some(Told::Stop) | None => return self.stop().await,
                    Some(told) => self.hear(told).await,
                }
                next = self.told.try_recv().ok().map(Some);
            }
            pause = ROUND;
            if self.outbox.is_left() {
                self.parts.keys().copied().collect::<Vec<_>>().into_iter().for_each(|part| self.lose(part));
                continue;
            }
            let now = self.now_ms();
            if !self.claims || now < self.retry_at {
                continue;
            }
            match self.round(now).await {
                Ok(true) => pause = Duration::ZERO,
                Ok(false) => {}
                Err(error) => self.failed(&error),
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.clock.now().moment.0
    }

    async fn hear(&mut self, told: Told) {
        match told {
            Told::Apps(apps) => {
                self.apps = apps;
                for part in self.parts.values_mut() {
                    part.book.iter_mut().for_each(|book| book.set_apps(self.apps.clone()));
                }
            }
            Told::Ended(ended) => self.note_end(ended),
            // Nobody waits for these answers any more when they cannot be given.
            Told::Waiting(tell) => drop(tell.send(self.waiting().await)),
            Told::GivenUp(tell) => drop(tell.send(self.given_up().await)),
            Told::Replay(id, tell) => drop(tell.send(self.replay(id).await)),
            Told::Stop => {}
        }
    }

    /// One round. Answers whether there is more to do at once.
    async fn round(&mut self, now: u64) -> Result<bool, OutboxError> {
        if now >= self.turn_at {
            let first = getrandom::u32().map_or(0, |n| n % u32::from(OUTBOX_PARTS));
            let turn = self.outbox.turn(u16::try_from(first).unwrap_or(0), true).await?;
            self.turn_at = now + TURN_MS;
            let run = self.outbox.run().map(str::to_owned);
            let before = mem::replace(&mut self.run, run);
            self.memory.turned(now, &turn, before.is_some() && before != self.run);
            self.comparing.turned(&turn);
            self.after_turn(&turn);
        }
        while let Some(Lost { part, stand, writes, had }) = self.memory.lost() {
            match self.outbox.recall(part, stand, writes, &had).await? {
                Recalled::Done => self.memory.given_back(part),
                Recalled::Needless => {
                    self.memory.given_back(part);
                    continue;
                }
                Recalled::LostAgain => {
                    self.turn_at = now;
                    return Ok(true);
                }
            }
            let (announced, sealed) = (had.announced.len(), had.sealed.len());
            let gone = writes.saturating_sub(stand.writes);
            tracing::warn!(
                group = self.group,
                part,
                writes = gone,
                announced,
                sealed,
                "the store lost writes to the outbox: gave back what was told, and what was to be sent"
            );
        }
        let is_reading = self.read_one().await?;
        let has_more = self.look().await?;
        if self.outbox.connections() != self.connection {
            // Another server answers: what the books were read from may not be what it has.
            self.turn_at = now;
            self.parts.values_mut().for_each(Part::doubt);
            return Ok(true);
        }
        self.write_all().await?;
        self.let_go().await?;
        if !is_reading && !has_more {
            let mut steps = 0;
            while steps < COMPARING_STEPS && self.compare().await? {
                steps += 1;
            }
        }
        Ok(is_reading || has_more)
    }

    /// Compares a little more of what is announced with the records. Answers whether there was anything to do.
    async fn compare(&mut self) -> Result<bool, OutboxError> {
        let parts = &self.parts;
        let believed = |part: u16| {
            let book = parts.get(&part).filter(|part| !part.is_leaving())?.book.as_ref()?;
            Some(wire::believed(book))
        };
        let Some(step) = self.comparing.next(believed) else { return Ok(false) };
        let group = self.group;
        match step {
            Step::Compare(of, believed) => {
                let outcome = self.outbox.compare(&of, &believed).await;
                let outcome = self.unless_lost(of.part, outcome)?;
                self.comparing.compared(&of, outcome);
                if let Some(Compared { gone, back, .. }) = outcome.filter(|outcome| outcome.gone + outcome.back > 0) {
                    let part = of.part;
                    tracing::info!(group, part, gone, back, "left goings of what is on no record, comings of what is");
                }
            }
            Step::Search(of, from) => {
                let outcome = self.outbox.search(&of, &from).await;
                let outcome = self.unless_lost(of.part, outcome)?;
                let found = outcome.as_ref().map_or(0, |searched| searched.found);
                if let (true, came @ 1..) = (from.is_second, found) {
                    tracing::info!(
                        group,
                        part = of.part,
                        came,
                        "left comings of what is on record and was never announced"
                    );
                }
                self.comparing.searched(&of, outcome);
            }
        }
        Ok(true)
    }

    /// What was answered; nothing where the part is another node's, which is no failure.
    fn unless_lost<T>(&mut self, part: u16, outcome: Result<Option<T>, OutboxError>) -> Result<Option<T>, OutboxError> {
        match outcome {
            Err(OutboxError::NotClaimed(_)) => {
                self.lose(part);
                Ok(None)
            }
            other => other,
        }
    }

    /// Takes note of what is this node's now, and begins to let go what is more than its share.
    fn after_turn(&mut self, turn: &Turn) {
        self.failing_since = None;
        let lost: Vec<u16> =
            self.parts.keys().filter(|part| !turn.held.iter().any(|(p, _)| p == *part)).copied().collect();
        lost.into_iter().for_each(|part| self.lose(part));
        let is_new_connection = mem::replace(&mut self.connection, self.outbox.connections()) != self.connection;
        for (part, fence) in &turn.held {
            let known = self.parts.entry(*part).or_insert_with(|| Part::new(fence));
            if known.fence != *fence {
                *known = Part::new(fence);
            } else if is_new_connection {
                known.doubt();
            }
        }
        let leaving = self.parts.values().filter(|part| part.is_leaving()).count();
        let surplus = (self.parts.len() - leaving).saturating_sub(turn.share());
        let staying = self.parts.iter_mut().rev().filter(|(_, part)| !part.is_leaving());
        for (number, part) in staying.take(surplus) {
            part.leaving = Leaving::Asked(withdraw(&self.sending, Lane::new(self.group, *number)));
        }
    }

    /// Reads one part that was taken over, from what is stored.
    async fn read_one(&mut self) -> Result<bool, OutboxError> {
        let now = self.now_ms();
        let is_unread = |part: &Part| part.book.is_none() && !part.is_leaving();
        let unread = self.parts.iter().find(|(number, part)| is_unread(part) && self.memory.may_read(**number, now));
        let Some(number) = unread.map(|(number, _)| *number) else { return Ok(false) };
        let stored = self.outbox.stored(number).await?;
        if self.outbox.connections() != self.connection {
            // Another server may have answered, which has something else: a turn comes first.
            return Ok(true);
        }
        self.memory.read(number, &stored);
        let Some(part) = self.parts.get_mut(&number) else { return Ok(false) };
        part.done.clone_from(&stored.done);
        let (stored, sealed) = wire::taken_over(stored);
        let mut book = WebhookPart::new(Lane::new(self.group, number), self.apps.clone(), stored);
        let now = self.clock.now();
        let mut handed = Vec::new();
        for (id, request) in sealed {
            if part.ends.contains_key(&id) || part.handed.contains(&id) {
                continue;
            }
            let Some(GivenUp { to, batch, .. }) = wire::kept(&request).filter(|kept| kept.batch.id == id) else {
                part.unwritten.push(Operation::Over(id));
                continue;
            };
            if !is_configured(&self.apps, &to) {
                part.unwritten.push(Operation::Over(id));
            } else if age_ms(now, &batch) < RESEAL_AFTER_MS {
                handed.push(Handed { to, batch: Arc::new(batch) });
            } else if book.seal_again(now.unix_ms, &to, &batch).is_some() {
                // Nobody was there to try it, and its receiver would refuse it now.
                part.unwritten.push(Operation::Over(id));
            }
        }
        part.book = Some(book);
        part.handed.extend(handed.iter().map(|handed| handed.batch.id));
        if !handed.is_empty() {
            self.sending.send(Command::Batches(handed));
        }
        Ok(true)
    }

    /// Reads on in all parts. Answers whether there may be more.
    async fn look(&mut self) -> Result<bool, OutboxError> {
        if self.parts.is_empty() {
            return Ok(false);
        }
        let with_room = self.parts.iter().filter(|(_, part)| !part.is_leaving() && part.has_room());
        let asked: Vec<_> = with_room.map(|(number, part)| (*number, part.after())).collect();
        let mut look = self.outbox.look(&asked).await?;
        let unix_ms = self.clock.now().unix_ms;
        let mut has_more = false;
        for (number, part) in self.parts.iter_mut().filter(|(_, part)| !part.is_leaving()) {
            let entries = look.entries.remove(number).unwrap_or_default();
            let is_full = entries.len() >= READ_MAX;
            let (done, entries): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| part.is_done(entry));
            let Some(book) = &mut part.book else { continue };
            part.unwritten.extend(done.into_iter().map(|entry| Operation::Settle(entry.at, entry.id)));
            entries.into_iter().for_each(|entry| book.take(unix_ms, wire::entry(entry)));
            has_more |= is_full;
            // Of what was not read to its end nothing is known behind the last entry.
            let EntryId { ms: last, .. } = book.after();
            book.pass(unix_ms, if is_full { last } else { look.now_ms });
            let changes = book.changes();
            wire::operations(changes, &mut part.unwritten, &mut part.unhanded);
            book.dropped().iter().for_each(|(to, events)| note_dropped(to, *events));
        }
        Ok(has_more)
    }

    async fn write_all(&mut self) -> Result<(), OutboxError> {
        let numbers: Vec<u16> = self.parts.keys().copied().collect();
        for number in numbers {
            let Some(part) = self.parts.get(&number) else { continue };
            if part.unwritten.is_empty() && part.ends.is_empty() {
                continue;
            }
            let mut operations = part.unwritten.clone();
            let ended: Vec<u64> = part.ends.keys().copied().collect();
            operations.extend(part.ends.values().flatten().cloned());
            let fence = part.fence.clone();
            self.write(number, &fence, &operations).await?;
            let Some(part) = self.parts.get_mut(&number) else { continue };
            part.unwritten.clear();
            part.ends.retain(|id, _| !ended.contains(id));
            let handed = mem::take(&mut part.unhanded);
            // What is leaving is sent by whoever takes it.
            if !handed.is_empty() && !part.is_leaving() {
                part.handed.extend(handed.iter().map(|handed| handed.batch.id));
                self.sending.send(Command::Batches(handed));
            }
        }
        Ok(())
    }

    /// Writes; a part that turns out to be another node's is given up, which is no failure.
    async fn write(&mut self, number: u16, fence: &str, operations: &[Operation]) -> Result<(), OutboxError> {
        match self.outbox.write(number, fence, operations).await {
            Err(OutboxError::NotClaimed(_)) => {
                self.lose(number);
                Ok(())
            }
            Ok(writes) => {
                if !self.memory.wrote(number, operations, writes) {
                    self.turn_at = 0;
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Lets go of what is leaving and has nothing under way.
    async fn let_go(&mut self) -> Result<(), OutboxError> {
        let leaving = self.parts.iter().filter(|(_, part)| matches!(part.leaving, Leaving::Now));
        let gone: Vec<(u16, String)> = leaving.map(|(number, part)| (*number, part.fence.clone())).collect();
        if !gone.is_empty() {
            self.outbox.leave(&gone, false).await?;
            gone.iter().for_each(|(number, _)| _ = self.parts.remove(number));
        }
        Ok(())
    }

    fn note_end(&mut self, ended: Ended) {
        let (id, operations) = match ended {
            Ended::Over(_, id) => (id, vec![Operation::Over(id)]),
            Ended::GivenUp(to, batch, at) => {
                (batch.id, vec![Operation::Over(batch.id), Operation::GiveUp(wire::request(&to, &batch, at))])
            }
            Ended::Taken(_) => return,
        };
        let lane = Lane::of_request(id);
        self.memory.ended(lane.part(), id, &operations);
        // Of a part that is another node's by now, that node will find out by itself.
        if let Some(part) = self.parts.get_mut(&lane.part())
            && (part.handed.remove(&id) || lane.group() == self.group)
        {
            part.ends.insert(id, operations);
        }
    }

    fn lose(&mut self, number: u16) {
        if self.parts.remove(&number).is_some() {
            // Whoever has it now sends what is left of it.
            drop(withdraw(&self.sending, Lane::new(self.group, number)));
        }
    }

    fn failed(&mut self, error: &OutboxError) {
        let now = self.now_ms();
        let jitter = getrandom::u32().map_or(RETRY_MS / 2, |n| u64::from(n) % RETRY_MS);
        self.retry_at = now + RETRY_MS + jitter;
        self.turn_at = now;
        self.parts.values_mut().for_each(Part::doubt);
        self.counters.store_failed();
        let fails_for = now.saturating_sub(*self.failing_since.get_or_insert(now));
        if fails_for >= COMPLAIN_AFTER_MS && self.complained_at.is_none_or(|at| now >= at + COMPLAIN_EVERY_MS) {
            self.complained_at = Some(now);
            tracing::error!(%error, "webhooks of a group wait until its primary answers");
        }
    }

    /// None of a group where nobody goes any more.
    fn all_parts(&self) -> std::ops::Range<u16> {
        0..if self.outbox.is_left() { 0 } else { OUTBOX_PARTS }
    }

    async fn waiting(&mut self) -> Result<BTreeMap<Address, Sealed>, OutboxError> {
        let mut waiting: BTreeMap<Address, Sealed> = BTreeMap::new();
        for part in self.all_parts() {
            let sealed = self.outbox.sealed(part).await?;
            for GivenUp { to, batch, .. } in sealed.iter().filter_map(|(_, request)| wire::kept(request)) {
                let sum = waiting.entry(to).or_insert(Sealed { requests: 0, oldest_unix_ms: u64::MAX });
                sum.requests += 1;
                sum.oldest_unix_ms = sum.oldest_unix_ms.min(batch.sealed_unix_ms);
            }
        }
        Ok(waiting)
    }

    async fn given_up(&mut self) -> Result<Vec<GivenUp>, OutboxError> {
        let mut all = Vec::new();
        for part in self.all_parts() {
            all.extend(self.outbox.given_up(part).await?.iter().filter_map(|request| wire::kept(request)));
        }
        Ok(all)
    }

    /// Whoever works the part seals it anew.
    async fn replay(&mut self, id: Option<u64>) -> Result<usize, OutboxError> {
        let mut count = 0;
        for part in self.all_parts() {
            for request in self.outbox.given_up(part).await?.into_iter().rev() {
                let is_asked = wire::kept(&request)
                    .is_some_and(|old| id.is_none_or(|id| old.batch.id == id) && is_configured(&self.apps, &old.to));
                if is_asked && self.outbox.again(part, &request).await? {
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    async fn stop(&mut self) {
        if !self.claims || self.outbox.is_left() {
            return;
        }
        let flushed = self.write_all().await;
        let fences: Vec<_> = self.parts.iter().map(|(number, part)| (*number, part.fence.clone())).collect();
        let left = match flushed {
            Ok(()) => self.outbox.leave(&fences, true).await,
            failed => failed,
        };
        if let Err(error) = left {
            tracing::warn!(%error, "the webhooks of a group are let go when their claims lapse");
        }
    }
}

fn is_configured(apps: &[Arc<App>], to: &Address) -> bool {
    let app = apps.iter().find(|app| app.id == to.app);
    app.is_some_and(|app| app.webhooks.endpoints.iter().any(|endpoint| endpoint.url == to.url))
}
