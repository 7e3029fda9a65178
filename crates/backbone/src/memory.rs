//! The embedded backbone: one node, no network, nothing installed.
//!
//! Channels are spread over [`STRIPES`] stripes by a hash of app and name; a stripe is a mutex around a table. Whatever
//! happens on a channel (a publication, a member, a count) takes its position and goes to the inboxes of all interested
//! workers while that one mutex is held: this is the invariant that makes one order for everybody and a join exact. A
//! publication costs one allocation that all workers share; nothing here is done per subscriber, because subscribers
//! are known to their worker alone.
//!
//! It does not know sessions, limits of apps or who excludes whom, and it never waits for anything but a stripe.
//! Inboxes are called with a stripe held and must not call back.

mod channel;
mod clock;
mod edges;
mod ledger;
mod members;
mod queries;
#[cfg(test)]
mod tests;
mod users;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;
use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{
    Answer, Delivery, Happening, Identity, Join, JoinRefusal, Leave, Member, Position, Publication, Question,
};
use fulmar_protocol::name::{ChannelName, UserId};
use fulmar_protocol::webhook::Subject;
use hashbrown::HashTable;

use self::channel::{Cached, Channel};
pub use self::clock::{Clock, ManualClock, SystemClock};
use self::edges::Edges;
use self::ledger::{Entry, Ledger, Struck, weight};
use self::members::Departure;
use self::users::Users;
use crate::{Backbone, Inbox, Outbox, Pending, PublishError, Query, Reply, Terms, Unavailable, WORKERS_MAX, WorkerId};

/// Locks the channels are spread over. Many times the cores of a large machine, so that two rarely want the same.
pub const STRIPES: usize = 64;

/// What all cached events of a node may weigh unless told otherwise: 256 MiB.
pub const CACHE_BYTES_MAX_DEFAULT: u64 = 256 << 20;

/// Lapsed cached events one call clears away, so that no single call pays for all of them.
const SWEEP_MAX: usize = 8;

/// A table this much larger than what it holds gives memory back.
const SHRINK_BELOW: usize = 8;

/// The embedded backbone of a single node.
///
/// Every question is answered at once, unless the answer must wait for the outbox ([`Memory::with_outbox`]); and futures
/// it returns are ready: publishing has happened when the call returns.
///
/// **Room.** A call is refused as a whole when a worker interested in one of its channels has no room. Room is looked
/// at first and taken afterwards, so an inbox may overshoot its bound by what one call carries for it and by what other
/// threads were being accepted for at that moment; that is bounded by the size of a call times the threads that publish.
/// Member changes and counts are delivered whatever the room, because a change that was made cannot be refused.
///
/// **Listing** ([`Query::Channels`]) looks at every channel of the node, whichever app asks, one stripe at a time:
/// about 10 ms for 100,000 listed channels and half a millisecond where they are all another app's, and never longer
/// than a 64th of that in anybody's way.
///
/// **Cached events** are forgotten when their time is over (each call clears away a few) and, oldest first, when all of
/// them together weigh more than the limit given to [`Memory::new`].
pub struct Memory {
    stripes: Box<[Stripe]>,
    inboxes: Box<[OnceLock<Arc<dyn Inbox>>]>,
    /// Workers attached so far.
    attached: AtomicU64,
    hasher: RandomState,
    origin: u64,
    /// Counter of the next identity.
    counter: AtomicU64,
    clock: Arc<dyn Clock>,
    outbox: Option<Arc<dyn Outbox>>,
    cache_bytes_max: u64,
    /// Locked alone. One for all apps: a sign-in costs about what a subscription costs, and there are fewer.
    users: Mutex<Users>,
    /// Locked after a stripe, or alone; never before one.
    ledger: Mutex<Ledger>,
    /// When the next cached event lapses, in nanoseconds; `u64::MAX` when nothing is cached. Spares calls the ledger.
    soonest_lapse_ns: AtomicU64,
    counts: Counts,
}

/// What happened so far and how full the node is, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Channels with a subscription or a cached event.
    pub channels: u64,
    /// Users who are signed in, were a moment ago, or are watched.
    pub users: u64,
    /// Cached events.
    pub cached_events: u64,
    /// What they weigh, records included.
    pub cached_bytes: u64,
    /// Cached events that were forgotten before their time because of the limit. Rises.
    pub cache_evicted: u64,
    /// Calls of [`Backbone::publish`] refused because a worker had no room. Rises.
    pub publishes_refused: u64,
    /// Client events that reached nobody because a worker had no room. Rises.
    pub client_events_refused: u64,
    /// Ends of subscriptions and sign-ins that had never been made. Anything but 0 is a defect of the caller. Rises.
    pub leaves_ignored: u64,
}

#[derive(Default)]
struct Counts {
    cache_evicted: AtomicU64,
    publishes_refused: AtomicU64,
    client_events_refused: AtomicU64,
    leaves_ignored: AtomicU64,
}

/// On cache lines of its own, so that neighbours do not slow each other down.
#[repr(align(128))]
#[derive(Default)]
struct Stripe(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// The position given last. One counter for all channels here: it outlives each of them, so that a channel that
    /// empties and comes back goes on rising.
    position: Position,
    channels: HashTable<Channel>,
}

impl Memory {
    /// Makes an empty backbone. `origin` is the random number of this incarnation of the node; all cached events
    /// together may weigh `cache_bytes_max`.
    #[must_use]
    pub fn new(origin: u64, cache_bytes_max: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Stripe::default()).collect(),
            inboxes: (0..WORKERS_MAX).map(|_| OnceLock::new()).collect(),
            attached: AtomicU64::new(0),
            hasher: RandomState::default(),
            origin,
            counter: AtomicU64::new(0),
            clock,
            outbox: None,
            cache_bytes_max,
            users: Mutex::default(),
            ledger: Mutex::default(),
            soonest_lapse_ns: AtomicU64::new(u64::MAX),
            counts: Counts::default(),
        }
    }

    /// Leaves there what apps' own servers want to be told.
    #[must_use]
    pub fn with_outbox(mut self, outbox: Arc<dyn Outbox>) -> Self {
        self.outbox = Some(outbox);
        self
    }

    /// How full it is and what happened so far. Counts channels stripe by stripe; meant for a metrics scrape.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let channels = self.stripes.iter().map(|stripe| locked(&stripe.0).channels.len() as u64).sum();
        let users = locked(&self.users).len() as u64;
        let ledger = locked(&self.ledger);
        Figures {
            channels,
            users,
            cached_events: ledger.len() as u64,
            cached_bytes: ledger.bytes(),
            cache_evicted: self.counts.cache_evicted.load(Ordering::Relaxed),
            publishes_refused: self.counts.publishes_refused.load(Ordering::Relaxed),
            client_events_refused: self.counts.client_events_refused.load(Ordering::Relaxed),
            leaves_ignored: self.counts.leaves_ignored.load(Ordering::Relaxed),
        }
    }

    /// Answers at once, or through the inbox when an edge must be safe first.
    fn join(&self, from: WorkerId, join: Join) -> Option<Answer> {
        let Join { ticket, app, channel: name, member, members_max, counted } = join;
        let Some(inbox) = self.inbox(from) else {
            return Some(Answer::JoinRefused { ticket, why: JoinRefusal::Unavailable });
        };
        let mut edges = Edges::wanted(self.outbox.as_deref(), &app, &name);
        if !edges.has_room() {
            return Some(Answer::JoinRefused { ticket, why: JoinRefusal::Unavailable });
        }
        let hash = self.hash(&app, &name);
        let mut table = self.table(hash);
        let Table { position, channels } = &mut *table;
        let known = channels.find(hash, |c| c.is(&app, &name));
        if member.as_ref().is_some_and(|m| self.is_full_for(known, m, members_max)) {
            return Some(Answer::JoinRefused { ticket, why: JoinRefusal::MembersFull { max: members_max } });
        }
        let channel = self.occupy(channels, hash, &app, &name);
        if !channel.is_occupied() {
            edges.came(|| Subject::Channel(name.clone()));
        }
        channel.followers.add(from);
        let roster = member.map(|member| {
            let members = channel.members.get_or_insert_default();
            let is_first = members.arrive(&self.hasher, &member);
            let roster = members.roster();
            if is_first {
                edges.came(|| Subject::Member(name.clone(), member.user_id.clone()));
                self.tell(position, channel, Happening::MemberAdded(member));
            }
            roster
        });
        let joined = *position;
        if counted {
            // After the position of the answer: the newcomer hears this one as well.
            edges.counted(&name, channel.followers.total());
            self.tell(position, channel, Happening::Count(channel.followers.total()));
        }
        let cached = if name.kind().is_cache() { self.live(channel).map(|c| c.frame.clone()) } else { None };
        if name.kind().is_cache() && cached.is_none() {
            edges.cache_missed(&name);
        }
        // With the stripe still held, so that edges of one channel stand in the outbox as they happened.
        edges.leave_before(inbox, Answer::Joined { ticket, position: joined, roster, cached })
    }

    fn leave(&self, from: WorkerId, leave: &Leave) {
        let hash = self.hash(&leave.app, &leave.channel);
        let mut table = self.table(hash);
        let Table { position, channels } = &mut *table;
        let found = channels.find_entry(hash, |c| c.is(&leave.app, &leave.channel)).ok();
        let Some(mut entry) = found.filter(|entry| entry.get().can_leave(&self.hasher, from, leave)) else {
            self.counts.leaves_ignored.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut edges = Edges::wanted(self.outbox.as_deref(), &leave.app, &leave.channel);
        let channel = entry.get_mut();
        channel.followers.remove(from);
        if let (Some(user), Some(members)) = (&leave.user_id, &mut channel.members) {
            let departure = members.depart(&self.hasher, user);
            if members.len() == 0 {
                channel.members = None;
            }
            if departure == Some(Departure::Last) {
                edges.went(|| Subject::Member(leave.channel.clone(), user.clone()));
                self.tell(position, channel, Happening::MemberRemoved(user.clone()));
            }
        }
        if !channel.is_occupied() {
            edges.went(|| Subject::Channel(leave.channel.clone()));
        } else if leave.counted {
            edges.counted(&leave.channel, channel.followers.total());
            self.tell(position, channel, Happening::Count(channel.followers.total()));
        }
        if channel.is_over() {
            entry.remove();
            self.shrink(channels);
        }
        edges.leave();
    }

    /// Accepts all of them and says true, or none.
    fn accept(&self, mut publications: Vec<Publication>) -> bool {
        if publications.len() == 1 {
            return publications.pop().is_none_or(|only| self.accept_one(only));
        }
        let has_room = |p: &Publication| {
            let hash = self.hash(&p.app, &p.channel);
            self.has_room(&self.table(hash), hash, p)
        };
        if !publications.iter().all(has_room) {
            return false;
        }
        for publication in publications {
            let hash = self.hash(&publication.app, &publication.channel);
            let over = self.put(&mut self.table(hash), hash, publication);
            self.forget_evicted(&over);
        }
        true
    }

    /// The same for a single one, which nearly all calls carry: looks and puts under one lock.
    fn accept_one(&self, publication: Publication) -> bool {
        let hash = self.hash(&publication.app, &publication.channel);
        let mut table = self.table(hash);
        if !self.has_room(&table, hash, &publication) {
            return false;
        }
        let over = self.put(&mut table, hash, publication);
        drop(table);
        self.forget_evicted(&over);
        true
    }

    fn has_room(&self, table: &Table, hash: u64, publication: &Publication) -> bool {
        let Some(channel) = table.channels.find(hash, |c| c.is(&publication.app, &publication.channel)) else {
            return true;
        };
        channel.followers.all().iter().all(|f| self.inbox(f.worker).is_none_or(|inbox| inbox.has_room()))
    }

    /// Gives a publication its place, its deliveries and its time in the cache. Answers which cached events are now
    /// too many; they are to be forgotten without this table's lock.
    #[must_use]
    fn put(&self, table: &mut Table, hash: u64, publication: Publication) -> Vec<Struck> {
        let Publication { app, channel: name, frame, except, cache_for } = publication;
        let Table { position, channels } = table;
        let Some(cache_for) = cache_for else {
            if let Some(channel) = channels.find(hash, |c| c.is(&app, &name)) {
                self.tell(position, channel, Happening::Event { frame, except });
            }
            return Vec::new();
        };
        let channel = self.occupy(channels, hash, &app, &name);
        let counter = self.tell(position, channel, Happening::Event { frame: frame.clone(), except });
        let lapses = self.clock.now().saturating_add(cache_for);
        let entry = Entry { hash, bytes: weight(frame.len(), name.as_str().len()), lapses };
        let replaced = channel.cached.replace(Box::new(Cached { frame, position: *position, counter, lapses }));
        self.account(|ledger| {
            if let Some(replaced) = replaced {
                ledger.strike(replaced.counter);
            }
            ledger.enter(counter, entry);
            ledger.strike_oldest(self.cache_bytes_max)
        })
    }

    /// The next position of a channel, heard by all who follow it. Answers the counter of its identity.
    fn tell(&self, position: &mut Position, channel: &Channel, happening: Happening) -> u64 {
        position.0 += 1;
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        if let Some((last, others)) = channel.followers.all().split_last() {
            let delivery = Arc::new(Delivery {
                app: channel.app.clone(),
                channel: channel.name.clone(),
                identity: Identity { origin: self.origin, counter },
                position: *position,
                happening,
            });
            for follower in others {
                self.deliver(follower.worker, Arc::clone(&delivery));
            }
            self.deliver(last.worker, delivery);
        }
        counter
    }

    fn deliver(&self, to: WorkerId, delivery: Arc<Delivery>) {
        if let Some(inbox) = self.inbox(to) {
            inbox.deliver(delivery);
        }
    }

    fn inbox(&self, of: WorkerId) -> Option<&Arc<dyn Inbox>> {
        self.inboxes[usize::from(of.0)].get()
    }

    /// The channel's record, made when there is none.
    fn occupy<'t>(
        &self,
        channels: &'t mut HashTable<Channel>,
        hash: u64,
        app: &AppId,
        name: &ChannelName,
    ) -> &'t mut Channel {
        let entry = channels.entry(hash, |c| c.is(app, name), |c| self.hash(&c.app, &c.name));
        entry.or_insert_with(|| Channel::new(app.clone(), name.clone())).into_mut()
    }

    fn is_full_for(&self, channel: Option<&Channel>, member: &Member, max: usize) -> bool {
        match channel.and_then(|c| c.members.as_ref()) {
            Some(members) => members.len() >= max && !members.is_present(&self.hasher, &member.user_id),
            None => max == 0,
        }
    }

    /// The cached event of a channel unless its time is over.
    fn live<'t>(&self, channel: &'t Channel) -> Option<&'t Cached> {
        channel.cached.as_deref().filter(|cached| self.clock.now() < cached.lapses)
    }

    /// Forgets a few cached events whose time is over. Nearly always one load.
    fn sweep(&self) {
        let soonest = self.soonest_lapse_ns.load(Ordering::Relaxed);
        if soonest == u64::MAX {
            return;
        }
        let now = self.clock.now();
        if soonest <= nanos(now) {
            let lapsed = self.account(|ledger| ledger.strike_lapsed(now, SWEEP_MAX));
            self.forget(&lapsed);
        }
    }

    fn forget_evicted(&self, evicted: &[Struck]) {
        if !evicted.is_empty() {
            self.counts.cache_evicted.fetch_add(evicted.len() as u64, Ordering::Relaxed);
            self.forget(evicted);
        }
    }

    /// Drops cached events that have left the account, unless newer ones have taken their places.
    fn forget(&self, struck: &[Struck]) {
        for &Struck { hash, counter } in struck {
            let mut table = self.table(hash);
            let caches = |c: &Channel| c.cached.as_ref().is_some_and(|cached| cached.counter == counter);
            let Ok(mut entry) = table.channels.find_entry(hash, caches) else { continue };
            entry.get_mut().cached = None;
            if entry.get().is_over() {
                entry.remove();
                self.shrink(&mut table.channels);
            }
        }
    }

    fn account<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = locked(&self.ledger);
        let result = change(&mut ledger);
        self.soonest_lapse_ns.store(ledger.soonest().map_or(u64::MAX, nanos), Ordering::Relaxed);
        result
    }

    /// Gives memory back when a table has become nearly empty. Halving at most, so it is paid for by the removals.
    fn shrink(&self, channels: &mut HashTable<Channel>) {
        if channels.capacity() > SHRINK_BELOW * (channels.len() + SHRINK_BELOW) {
            channels.shrink_to(channels.len() * 2, |c| self.hash(&c.app, &c.name));
        }
    }

    fn hash(&self, app: &AppId, name: &ChannelName) -> u64 {
        self.hasher.hash_one((app.as_str(), name.as_str()))
    }

    fn table(&self, hash: u64) -> MutexGuard<'_, Table> {
        // Bits that the table itself uses neither for its buckets (low) nor for its tags (the top seven).
        locked(&self.stripes[(hash >> 48) as usize % STRIPES].0)
    }
}

impl Backbone for Memory {
    fn attach(&self, inbox: Arc<dyn Inbox>) -> WorkerId {
        let index = usize::try_from(self.attached.fetch_add(1, Ordering::Relaxed)).unwrap_or(WORKERS_MAX);
        let slot =
            self.inboxes.get(index).expect("a node has at most WORKERS_MAX workers, which its configuration keeps");
        assert!(slot.set(inbox).is_ok(), "each index is given out once");
        WorkerId(u8::try_from(index).expect("WORKERS_MAX is what an index can name"))
    }

    fn ask(&self, from: WorkerId, question: Question) -> Option<Answer> {
        self.sweep();
        match question {
            Question::Join(join) => return self.join(from, join),
            Question::Leave(leave) => self.leave(from, &leave),
            Question::Publish(publication) => self.client_event(publication),
            Question::SignIn(sign_in) => return self.sign_in(from, &sign_in),
            Question::SignOut(sign_out) => return self.sign_out(from, sign_out),
            Question::SettleAbsence(absence) => return self.settle(absence),
        }
        None
    }

    fn publish(&self, publications: Vec<Publication>, _terms: Terms) -> Pending<'_, Result<(), PublishError>> {
        self.sweep();
        let outcome = if self.accept(publications) {
            Ok(())
        } else {
            self.counts.publishes_refused.fetch_add(1, Ordering::Relaxed);
            Err(PublishError::NotAccepted)
        };
        Box::pin(std::future::ready(outcome))
    }

    fn terminate(&self, app: AppId, user_id: UserId) -> Pending<'_, Result<(), Unavailable>> {
        self.terminate_user(&app, &user_id);
        Box::pin(std::future::ready(Ok(())))
    }

    fn query(&self, query: Query) -> Pending<'_, Result<Reply, Unavailable>> {
        self.sweep();
        Box::pin(std::future::ready(Ok(self.answer(query))))
    }
}

/// Locks also what a panic left locked: were an inbox to panic while it takes a delivery, everybody else on the channels
/// of that stripe must still be served, and the panic itself has reported the defect.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
