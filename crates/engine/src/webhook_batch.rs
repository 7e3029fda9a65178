//! Which edges become webhook events, and when a batch of them closes.
//!
//! The book knows what each receiver believes: what was announced as come and not yet as gone. A going is held for
//! [`HOLD_MS`], and one that comes back meanwhile was never away. So for every subject the events alternate, whatever the
//! churn, and they still do after a crash: what must survive one comes out as [`Record`]s, to be stored before anybody
//! acts on them, and goes in again through [`WebhookBook::restore`].
//!
//! Where edges lie in a stream until all that follows from them is sealed, they come with a [`Mark`]
//! ([`WebhookBook::take_marked`]): then nothing is [`Record::Queued`], each is [`Record::Settled`] once, and comings and
//! goings become records when their edge is settled, because until then the stream still has them.
//!
//! It sends nothing, stores nothing and reads no clock. A held going takes no record: what was announced stays announced
//! until its going is sealed or queued, in one record set with its removal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use fulmar_protocol::app::{App, AppId};
use fulmar_protocol::name::ChannelName;
use fulmar_protocol::signing::sign_webhook;
use fulmar_protocol::webhook::{self, BATCH_EVENTS_MAX, Change, Edge, Event, Subject};
use hashbrown::HashMap;

mod informing;
mod moving;
mod records;

pub use self::records::{Address, Batch, Mark, Now, Place, Record, Restored, Told};
use crate::counts::CountThrottle;
use crate::time::Moment;

/// How long a going is held, in milliseconds.
pub const HOLD_MS: u64 = 3_000;
/// How long a batch stays open after its first event, in milliseconds.
pub const BATCH_MS: u64 = 250;

/// The book of one node.
#[derive(Debug)]
pub struct WebhookBook {
    apps: HashMap<AppId, Arc<App>, RandomState>,
    present: HashMap<Place, Presence, RandomState>,
    open: BTreeMap<Address, Open>,
    /// What is not settled, by its turn.
    waits_in: HashMap<u64, Waits, RandomState>,
    /// The request sealed last: endpoints that are told the same at the same time share its text.
    last_sealed: Option<Batch>,
    counts: HashMap<(AppId, ChannelName), Counting, RandomState>,
    /// Until when further misses are not told.
    misses: HashMap<(AppId, ChannelName), Moment, RandomState>,
    misses_looked_at: usize,
    timers: BTreeMap<(Moment, u64), Wake>,
    next_timer: u64,
    next_id: u64,
}

/// Something announced as come.
#[derive(Debug)]
struct Presence {
    generation: u64,
    /// Generation of the last coming heard of. What is appended again after a loss comes in another order than it happened.
    heard: u64,
    /// While it is away.
    held: Option<Held>,
}

/// A going that is not told yet.
#[derive(Debug)]
struct Held {
    /// At whose end it is told.
    timer: (Moment, u64),
    mark: Option<Mark>,
}

/// An event in open batches.
#[derive(Debug)]
struct Waits {
    /// In how many.
    batches: usize,
    /// What becomes true for the stored book when it is in none any more.
    then: Option<Record>,
    /// Turns of entries of which nothing more comes then either.
    also: Vec<u64>,
}

/// The count of a large channel.
#[derive(Debug, Default)]
struct Counting {
    throttle: CountThrottle,
    /// Of the count that is kept back.
    mark: Option<Mark>,
}

#[derive(Debug)]
struct Open {
    closes: (Moment, u64),
    /// With their turns; without one, an event that never waited.
    events: Vec<(Option<u64>, Told)>,
}

#[derive(Debug)]
enum Wake {
    Gone(Place),
    Close(Address),
    Count(AppId, ChannelName),
}

impl Default for WebhookBook {
    fn default() -> Self {
        Self::new()
    }
}

impl WebhookBook {
    /// A book in which nothing is written.
    #[must_use]
    pub fn new() -> Self {
        Self {
            apps: HashMap::default(),
            present: HashMap::default(),
            open: BTreeMap::new(),
            waits_in: HashMap::default(),
            last_sealed: None,
            counts: HashMap::default(),
            misses: HashMap::default(),
            misses_looked_at: 0,
            timers: BTreeMap::new(),
            next_timer: 0,
            next_id: 0,
        }
    }

    /// Goes on where another node, or this one before a crash, had ended: nobody is here yet, so whatever was announced
    /// is away from now on, and is told to be gone unless it comes back within [`HOLD_MS`]. Call it once, after the first
    /// [`WebhookBook::set_apps`].
    pub fn restore(&mut self, now: Now, restored: Restored, records: &mut Vec<Record>) {
        self.next_id = restored.next_id;
        for (place, generation) in restored.present {
            if !self.is_wanted(&place) {
                records.push(Record::Went { place });
                continue;
            }
            let timer = self.wake_at(now.moment.plus_ms(HOLD_MS), Wake::Gone(place.clone()));
            self.present
                .insert(place, Presence { generation, heard: generation, held: Some(Held { timer, mark: None }) });
        }
        let sealed_up_to: HashMap<Address, u64, RandomState> = restored.sealed_up_to.into_iter().collect();
        for (app, turn, told) in restored.queued {
            let mut takers = self.takers(&app, &told.event);
            takers.retain(|to| sealed_up_to.get(to).is_none_or(|last| *last < turn));
            self.wait_for_all(now, takers, turn, &told, None, records);
        }
    }

    /// Gives out no identity below this one from now on.
    pub fn advance_to(&mut self, next_id: u64) {
        self.next_id = self.next_id.max(next_id);
    }

    /// These apps from now on. What is no longer for anybody is forgotten without a word.
    pub fn set_apps(&mut self, apps: impl IntoIterator<Item = Arc<App>>, records: &mut Vec<Record>) {
        let told = apps.into_iter().filter(|app| !app.webhooks.endpoints.is_empty());
        self.apps = told.map(|app| (app.id.clone(), app)).collect();
        // It was sealed with the secret of then.
        self.last_sealed = None;
        let apps = &self.apps;
        let uncounted = self.counts.extract_if(|(app, _), _| !apps.contains_key(app));
        uncounted.for_each(|(_, counting)| leave(counting.mark, records));
        let unwanted: Vec<Place> = self.present.keys().filter(|place| !self.is_wanted(place)).cloned().collect();
        for place in unwanted {
            if let Some(held) = self.present.remove(&place).and_then(|presence| presence.held) {
                self.timers.remove(&held.timer);
                leave(held.mark, records);
            }
            records.push(Record::Went { place });
        }
        let closed: Vec<Address> = self.open.keys().filter(|to| !self.knows(to)).cloned().collect();
        for to in closed {
            let Some(open) = self.open.remove(&to) else { continue };
            self.timers.remove(&open.closes);
            records.push(Record::Dropped { to, events: open.events.len() });
            self.settle(open.events.iter().filter_map(|(turn, _)| *turn), records);
        }
    }

    /// Takes what the backbone decided.
    pub fn take(&mut self, now: Now, edge: Edge, records: &mut Vec<Record>) {
        self.take_edge(now, edge, None, records);
    }

    /// Takes an edge that lies in a stream. `now` is its own time, or later.
    pub fn take_marked(&mut self, now: Now, edge: Edge, mark: Mark, records: &mut Vec<Record>) {
        self.take_edge(now, edge, Some(mark), records);
    }

    fn take_edge(&mut self, now: Now, edge: Edge, mark: Option<Mark>, records: &mut Vec<Record>) {
        let Edge { app, change } = edge;
        let Some(app) = self.apps.get(&app).cloned() else { return leave(mark, records) };
        match change {
            Change::Came(subject) => self.came(now, &app, subject, mark, records),
            Change::Went(subject) => self.went(now, Place { app: app.id.clone(), subject }, mark, records),
            Change::Counted(channel, count) => self.counted(now, &app, channel, count, mark, records),
            Change::CacheMissed(channel) => self.cache_missed(now, &app, channel, mark, records),
            Change::ClientSaid { channel, frame, socket_id } => {
                match Event::of_client_event(&channel, &frame, socket_id) {
                    Some(event) => self.tell(now, &app, event, mark, records),
                    None => leave(mark, records),
                }
            }
        }
    }

    /// Lets time pass: goings whose hold is over, batches whose time is over, counts that were kept back.
    pub fn pass(&mut self, now: Now, records: &mut Vec<Record>) {
        while let Some(due) = self.timers.first_entry().filter(|timer| timer.key().0 <= now.moment) {
            match due.remove() {
                Wake::Gone(place) => self.gone(now, place, records),
                Wake::Close(to) => {
                    if let Some(open) = self.open.remove(&to) {
                        self.seal(now, to, open.events, records);
                    }
                }
                Wake::Count(app, channel) => self.count_due(now, &app, channel, records),
            }
        }
    }

    /// When [`WebhookBook::pass`] is wanted, if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// The first identity that was not given out: to be stored with every set of records.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// A batch that says the same again with another time and signature, for whoever sends again what was given up.
    /// `None` when the app or the endpoint is no longer configured.
    pub fn seal_again(&mut self, now: Now, to: &Address, old: &Batch) -> Option<Batch> {
        let app = self.apps.get(&to.app).filter(|_| self.knows(to)).cloned()?;
        let id = self.identities(1);
        Some(sealed(now, &app, id, webhook::events_of(&old.body), old.event_ids.clone(), old.lanes.clone()))
    }

    fn came(&mut self, now: Now, app: &Arc<App>, subject: Subject, mark: Option<Mark>, records: &mut Vec<Record>) {
        let place = Place { app: app.id.clone(), subject };
        if !self.is_wanted(&place) {
            return leave(mark, records);
        }
        if let Some(presence) = self.present.get_mut(&place) {
            let going = presence.held.as_ref().and_then(|held| held.mark.as_ref()?.generation);
            let is_stale = |generation| generation < going.unwrap_or(presence.heard);
            let is_repeat = mark.as_ref().and_then(Mark::appended_again).is_some_and(is_stale);
            // An older going that comes later says nothing about this coming.
            let came_at = mark.as_ref().and_then(|mark| mark.generation);
            presence.heard = presence.heard.max(came_at.unwrap_or(0));
            if !is_repeat && let Some(held) = presence.held.take() {
                // Back within the hold: it never was away. (Or announced twice, which no backbone does.)
                self.timers.remove(&held.timer);
                leave(held.mark, records);
            }
            return leave(mark, records);
        }
        let event = Event::of_subject(&place.subject, true);
        let generation = match &mark {
            Some(mark) => mark.generation.unwrap_or(0),
            None => self.identities(2),
        };
        self.present.insert(place.clone(), Presence { generation, heard: generation, held: None });
        let id = mark.as_ref().map_or(generation, |mark| mark.id);
        self.tell_as(now, app, Told { id, event }, mark, Some(Record::Came { place, generation }), records);
    }

    fn went(&mut self, now: Now, place: Place, mark: Option<Mark>, records: &mut Vec<Record>) {
        // What was never announced came before anybody wanted to hear of it.
        let is_of_now = |presence: &Presence| {
            let happened = mark.as_ref().and_then(Mark::appended_again);
            presence.held.is_none() && happened.is_none_or(|generation| generation >= presence.heard)
        };
        if !self.present.get(&place).is_some_and(is_of_now) {
            return leave(mark, records);
        }
        let ends = self.end_of_moved_hold(&place, mark.as_ref()).unwrap_or(now.moment.plus_ms(HOLD_MS));
        let timer = self.wake_at(ends, Wake::Gone(place.clone()));
        if let Some(presence) = self.present.get_mut(&place) {
            presence.held = Some(Held { timer, mark });
        }
    }

    fn gone(&mut self, now: Now, place: Place, records: &mut Vec<Record>) {
        let Some(Presence { generation, held, .. }) = self.present.remove(&place) else { return };
        let mark = held.and_then(|held| held.mark);
        let went = Record::Went { place: place.clone() };
        let Some(app) = self.apps.get(&place.app).cloned() else {
            records.push(went);
            return leave(mark, records);
        };
        let id = mark.as_ref().map_or(generation + 1, |mark| mark.id);
        let event = Event::of_subject(&place.subject, false);
        self.tell_as(now, &app, Told { id, event }, mark, Some(went), records);
    }

    fn tell(&mut self, now: Now, app: &Arc<App>, event: Event, mark: Option<Mark>, records: &mut Vec<Record>) {
        let id = mark.as_ref().map_or_else(|| self.identities(1), |mark| mark.id);
        self.tell_as(now, app, Told { id, event }, mark, None, records);
    }

    /// Adds an event to the open batch of every endpoint that takes it, or makes it a batch of its own. `then` is what the
    /// stored book is to say: at once, or when a mark is settled.
    fn tell_as(
        &mut self,
        now: Now,
        app: &Arc<App>,
        told: Told,
        mark: Option<Mark>,
        then: Option<Record>,
        records: &mut Vec<Record>,
    ) {
        let mut takers = self.takers(&app.id, &told.event);
        if let Some(mark) = mark {
            takers.retain(|to| !mark.told_at.contains(&to.url));
            return self.wait_for_all(now, takers, mark.turn, &told, then, records);
        }
        records.extend(then);
        if !app.webhooks.batching {
            takers.into_iter().for_each(|to| self.seal(now, to, vec![(None, told.clone())], records));
        } else if !takers.is_empty() {
            let turn = self.identities(1);
            records.push(Record::Queued { app: app.id.clone(), turn, told: told.clone() });
            self.wait_for_all(now, takers, turn, &told, None, records);
        }
    }

    fn takers(&self, app: &AppId, event: &Event) -> Vec<Address> {
        let Some(app) = self.apps.get(app) else { return Vec::new() };
        let takers = app.webhooks.endpoints.iter().filter(|endpoint| endpoint.takes(event));
        takers.map(|endpoint| Address { app: app.id.clone(), url: endpoint.url.clone() }).collect()
    }

    fn wait_for_all(
        &mut self,
        now: Now,
        takers: Vec<Address>,
        turn: u64,
        told: &Told,
        then: Option<Record>,
        records: &mut Vec<Record>,
    ) {
        if takers.is_empty() {
            return self.settle_behind(turn, then, records);
        }
        self.waits_in.insert(turn, Waits { batches: takers.len(), then, also: Vec::new() });
        for to in takers {
            if self.apps.get(&to.app).is_some_and(|app| app.webhooks.batching) {
                self.wait(now, to, turn, told.clone(), records);
            } else {
                self.seal(now, to, vec![(Some(turn), told.clone())], records);
            }
        }
    }

    fn wait(&mut self, now: Now, to: Address, turn: u64, told: Told, records: &mut Vec<Record>) {
        if !self.open.contains_key(&to) {
            let closes = self.wake_at(now.moment.plus_ms(BATCH_MS), Wake::Close(to.clone()));
            self.open.insert(to.clone(), Open { closes, events: Vec::new() });
        }
        let open = self.open.get_mut(&to).expect("it was there or has just been made");
        open.events.push((Some(turn), told));
        if open.events.len() >= BATCH_EVENTS_MAX
            && let Some(open) = self.open.remove(&to)
        {
            self.timers.remove(&open.closes);
            self.seal(now, to, open.events, records);
        }
    }

    fn seal(&mut self, now: Now, to: Address, events: Vec<(Option<u64>, Told)>, records: &mut Vec<Record>) {
        let event_ids: Vec<u64> = events.iter().map(|(_, told)| told.id).collect();
        let Some(app) = self.apps.get(&to.app).cloned() else { return };
        let id = self.identities(1);
        let same = |last: &&Batch| last.sealed_unix_ms == now.unix_ms && last.event_ids == event_ids;
        let batch = match self.last_sealed.as_ref().filter(same) {
            Some(last) => Batch { id, ..last.clone() },
            None => {
                let lanes: BTreeSet<&str> = events
                    .iter()
                    .map(|(_, told)| told.event.channel.as_ref().map_or("", ChannelName::as_str))
                    .collect();
                let lanes = lanes.into_iter().map(Arc::from).collect();
                sealed(now, &app, id, events.iter().map(|(_, told)| &*told.event.json), event_ids, lanes)
            }
        };
        self.last_sealed = Some(batch.clone());
        let turns: Vec<u64> = events.iter().filter_map(|(turn, _)| *turn).collect();
        records.push(Record::Sealed { to, batch, turns: turns.clone() });
        self.settle(turns.into_iter(), records);
    }

    /// The events of these turns left one open batch.
    fn settle(&mut self, turns: impl Iterator<Item = u64>, records: &mut Vec<Record>) {
        for turn in turns {
            match self.waits_in.get_mut(&turn) {
                Some(waits) if waits.batches > 1 => waits.batches -= 1,
                _ => {
                    let (then, also) = self.waits_in.remove(&turn).map(|w| (w.then, w.also)).unwrap_or_default();
                    if let Some(going) = then.as_ref().and_then(|then| self.going_before(turn, then)) {
                        going.also.extend([turn].into_iter().chain(also));
                        continue;
                    }
                    records.extend([turn].into_iter().chain(also).map(|turn| Record::Settled { turn }));
                    let back = then.as_ref().and_then(|then| self.is_back(then));
                    records.extend(then.filter(|then| self.still_holds(then)).into_iter().chain(back));
                }
            }
        }
    }

    /// Whether a coming is still announced when its edge is settled: the apps may have changed meanwhile.
    fn still_holds(&self, then: &Record) -> bool {
        let Record::Came { place, generation } = then else { return true };
        self.present.get(place).is_some_and(|presence| presence.generation == *generation)
    }

    fn is_wanted(&self, place: &Place) -> bool {
        self.apps.get(&place.app).is_some_and(|app| app.webhooks.want(&place.subject))
    }

    fn knows(&self, to: &Address) -> bool {
        self.apps.get(&to.app).is_some_and(|app| app.webhooks.endpoints.iter().any(|e| e.url == to.url))
    }

    fn identities(&mut self, count: u64) -> u64 {
        let first = self.next_id;
        self.next_id += count;
        first
    }

    fn wake_at(&mut self, at: Moment, wake: Wake) -> (Moment, u64) {
        self.next_timer += 1;
        self.timers.insert((at, self.next_timer), wake);
        (at, self.next_timer)
    }
}

/// Nothing comes of the edge with this mark, or nothing more.
fn leave(mark: Option<Mark>, records: &mut Vec<Record>) {
    records.extend(mark.map(|mark| Record::Settled { turn: mark.turn }));
}

fn sealed<'a>(
    now: Now,
    app: &App,
    id: u64,
    events: impl IntoIterator<Item = &'a str>,
    event_ids: Vec<u64>,
    lanes: Vec<Arc<str>>,
) -> Batch {
    let body = webhook::envelope(now.unix_ms, events);
    Batch {
        id,
        sealed_unix_ms: now.unix_ms,
        key: app.key.as_str().into(),
        signature: sign_webhook(app.oldest_secret(), body.as_bytes()).into(),
        body: body.into(),
        event_ids,
        lanes,
    }
}

#[cfg(test)]
mod tests;
