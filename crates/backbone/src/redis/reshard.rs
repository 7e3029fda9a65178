//! Moving slots between groups while everything goes on: planned, done, gone on with, or undone.
//!
//! Whoever moves holds a lease in every group, and writes nothing without it. Every step is done when the replicas that are
//! online have it, and may be done again: what has died half-way is gone on with from what the groups show. First every
//! node listens to a slot's topics on both groups and says so in its lease; then, a few slots at a time, the old group gives
//! them away, what lies there is copied and waits on the new group, and that has them; then nobody listens twice any more.

mod carry;
mod error;
mod group;
mod state;
mod webhooks;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use self::carry::coming;
pub use self::error::ReshardError;
use self::group::Group;
use super::keys::Keys;
use super::map::{Held, Plan, SlotMap, plan};
use super::settings::{Settings, Topology};
use super::topic::Slot;

/// How long a mover that says nothing is believed to live.
const MOVER_MS: u64 = 10_000;
/// How long nodes have to take a map in.
const TOLD_MAX: Duration = Duration::from_secs(60);
/// How long a group that fails is tried again.
const TRY_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for an answer: longer than a node waits, since nobody is kept by it and a `WAIT` for replicas has a second.
const ANSWER_MAX: Duration = Duration::from_millis(1_500);

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What was done, or `"waiting"`.
    pub what: &'static str,
    /// What is waited for: a group that fails is tried again for a minute.
    pub trouble: Option<String>,
    /// Slots that have arrived.
    pub done: usize,
    /// Slots that move.
    pub of: usize,
}

/// Told of each step; ends the move where it stands with [`ControlFlow::Break`].
pub type Watch<'a> = &'a mut (dyn FnMut(&Progress) -> ControlFlow<()> + Send);

/// How things are, for people.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// The map.
    pub map: SlotMap,
    /// What `apply` would do.
    pub plan: Plan,
    /// Nodes with a lease.
    pub nodes: usize,
}

impl Outlook {
    /// Whether everything is as it is wanted already.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        let Self { map, plan, .. } = self;
        // A group without slots is still followed, and one that is new is not yet.
        let is_same = plan.wanted.iter().all(|name| map.groups.contains(name)) && map.groups.len() == plan.wanted.len();
        is_same && plan.moves.is_empty()
    }
}

/// Whoever moves slots.
pub struct Mover<'a> {
    settings: Settings,
    keys: Keys,
    name: String,
    groups: Vec<Group>,
    /// Whether servers are taken into use for their groups as they are met. Whoever only looks leaves them as they are.
    may_write: bool,
    has_begun: bool,
    /// The last step that was told.
    at: (usize, usize),
    watch: Watch<'a>,
}

impl<'a> Mover<'a> {
    /// One that has done nothing yet.
    ///
    /// # Errors
    /// When the topology has no groups under Sentinel.
    pub fn new(settings: &Settings, watch: Watch<'a>) -> Result<Self, ReshardError> {
        match settings.topology {
            Topology::Sentinel { .. } => {}
            Topology::Single(_) => return Err(ReshardError::OneServer),
            Topology::RedisCluster { .. } => return Err(ReshardError::RedisCluster),
        }
        let name = format!("{:016x}", fastrand::u64(..));
        let mut settings = settings.clone();
        settings.limits.command_timeout = settings.limits.command_timeout.max(ANSWER_MAX);
        let keys = Keys::new(&settings.deployment);
        Ok(Self { settings, keys, name, groups: Vec::new(), may_write: false, has_begun: false, at: (0, 0), watch })
    }

    /// Whether it has changed anything but its own lease: what fails before that is a refusal.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Says what [`Mover::apply`] would do, and changes nothing.
    ///
    /// # Errors
    /// What `apply` would refuse.
    pub async fn plan(&mut self, wanted: &[String]) -> Result<Outlook, ReshardError> {
        self.may_write = false;
        self.outlook(wanted).await
    }

    async fn outlook(&mut self, wanted: &[String]) -> Result<Outlook, ReshardError> {
        let map = self.look().await?;
        if map.is_moving() {
            return Err(ReshardError::UnderWay(map.beside.len()));
        }
        let plan = plan(&map, wanted).ok_or(ReshardError::Groups)?;
        for name in wanted {
            self.open(name).await?;
        }
        for group in &mut self.groups {
            let (online, known) = (group.replicas_online().await?, group.replicas_known);
            if online < known {
                return Err(ReshardError::Replicas { group: group.name.clone(), online, known });
            }
            let mut mover = redis::cmd("GET");
            mover.arg(self.keys.mover());
            let mover: Option<String> = group.ask(&mover).await?;
            if let Some(mover) = mover {
                return Err(ReshardError::Busy(format!("another moves slots: {mover}")));
            }
        }
        let nodes = self.told().await?.len();
        Ok(Outlook { map, plan, nodes })
    }

    /// Moves slots until every group that is wanted has its share and no other has any.
    ///
    /// # Errors
    /// When it is refused, or fails on the way: [`Mover::resume`] goes on then.
    pub async fn apply(&mut self, wanted: &[String]) -> Result<(), ReshardError> {
        self.may_write = true;
        let outlook = self.outlook(wanted).await?;
        self.hold(Duration::ZERO).await?;
        if !outlook.is_nothing() {
            let Outlook { map, plan, .. } = outlook;
            self.write(&map.begun(&plan)).await?;
            self.say("begun", 0, plan.moves.len())?;
            self.go_on().await?;
        }
        self.let_go().await
    }

    /// Goes on with a move whose mover has died.
    ///
    /// # Errors
    /// When there is none, another is at it, or it fails again.
    pub async fn resume(&mut self) -> Result<(), ReshardError> {
        self.may_write = true;
        if !self.look().await?.is_moving() {
            return Err(ReshardError::Nothing);
        }
        self.hold(Duration::from_millis(MOVER_MS + 2_000)).await?;
        self.go_on().await?;
        self.let_go().await
    }

    /// Undoes a move of which no slot has arrived.
    ///
    /// # Errors
    /// When there is none, another is at it, or it is too late.
    pub async fn abort(&mut self) -> Result<(), ReshardError> {
        self.may_write = true;
        if !self.look().await?.is_moving() {
            return Err(ReshardError::Nothing);
        }
        self.hold(Duration::from_millis(MOVER_MS + 2_000)).await?;
        let map = self.look().await?;
        let coming = coming(&map);
        let mut arrived = map.beside.len() - coming.iter().map(|(.., slots)| slots.len()).sum::<usize>();
        let keys = self.keys.clone();
        for (_, to, slots) in &coming {
            let held = self.group(to)?.held(&keys, slots).await?;
            arrived += held.iter().filter(|held| **held == Some(Held::Own(map.version))).count();
        }
        if arrived > 0 {
            self.let_go().await?;
            return Err(ReshardError::TooLate { arrived, all: map.beside.len() });
        }
        let next = map.abandoned();
        for (from, to, slots) in &coming {
            let filled = slots.iter().flat_map(|slot| [text("k"), text(keys.filled(Slot(*slot)))]);
            let words: Vec<Vec<u8>> = std::iter::once(text("close")).chain(filled).collect();
            self.put(to, &words).await?;
            let held = self.group(from)?.held(&keys, slots).await?;
            let frozen = slots.iter().zip(held).filter(|(_, held)| matches!(held, Some(Held::To(..))));
            let frozen: Vec<u16> = frozen.map(|(slot, _)| *slot).collect();
            self.step(from, "own", &[next.version.to_string()], &frozen).await?;
        }
        self.write(&next).await?;
        self.say("undone", 0, map.beside.len())?;
        self.let_go().await
    }

    /// The map as it is now. Changes nothing.
    ///
    /// # Errors
    /// When a group cannot be asked.
    pub async fn map(&mut self) -> Result<SlotMap, ReshardError> {
        self.may_write = false;
        self.look().await
    }

    /// Opens connections to all groups, and reads the newest map of any.
    async fn look(&mut self) -> Result<SlotMap, ReshardError> {
        let before = std::mem::take(&mut self.groups);
        for name in self.settings.topology.groups() {
            self.open(&name).await?;
        }
        let mut newest = SlotMap::first(&self.settings.topology.groups());
        let mut at = 0;
        while at < self.groups.len() {
            let keys = self.keys.clone();
            if let Some(map) = self.groups[at].map(&keys).await?.filter(|map| map.version > newest.version) {
                newest = map;
                for name in newest.groups.clone() {
                    self.open(&name).await?;
                }
            }
            at += 1;
        }
        let is_gone = |group: &Group| !self.groups.iter().any(|known| known.name == group.name);
        for mut group in before.into_iter().filter(is_gone).collect::<Vec<_>>() {
            // Where this does not arrive, it lapses.
            let _: Result<(), ReshardError> = group.step(&self.keys, &self.name, &[b"end".to_vec()]).await;
        }
        Ok(newest)
    }

    async fn open(&mut self, name: &str) -> Result<(), ReshardError> {
        if !self.groups.iter().any(|group| group.name == name) {
            self.groups.push(Group::open(name, &self.settings, &self.keys, self.may_write).await?);
        }
        Ok(())
    }

    fn group(&mut self, name: &str) -> Result<&mut Group, ReshardError> {
        let unknown = || ReshardError::Unreachable(name.to_owned(), "it is not connected".to_owned());
        self.groups.iter_mut().find(|group| group.name == name).ok_or_else(unknown)
    }

    /// Becomes the one who moves, in every group.
    async fn hold(&mut self, patience: Duration) -> Result<(), ReshardError> {
        let began = Instant::now();
        self.groups.sort_by(|a, b| a.name.cmp(&b.name));
        for at in 0..self.groups.len() {
            loop {
                let mut take = redis::cmd("SET");
                take.arg(self.keys.mover()).arg(&self.name).arg("NX").arg("GET").arg("PX").arg(MOVER_MS);
                let there: Option<String> = self.groups[at].ask(&take).await?;
                match there.filter(|there| *there != self.name) {
                    None => break,
                    Some(other) if began.elapsed() >= patience => {
                        return Err(ReshardError::Busy(format!("another moves slots: {other}")));
                    }
                    Some(_) => tokio::time::sleep(PAUSE).await,
                }
            }
            // Whoever waits for one group must not lose those before it.
            self.renew(at + 1).await?;
        }
        Ok(())
    }

    async fn renew(&mut self, first: usize) -> Result<(), ReshardError> {
        for group in self.groups.iter_mut().take(first) {
            group.step(&self.keys, &self.name, &[b"renew".to_vec()]).await?;
        }
        Ok(())
    }

    async fn let_go(&mut self) -> Result<(), ReshardError> {
        for group in &mut self.groups {
            group.step(&self.keys, &self.name, &[b"end".to_vec()]).await?;
        }
        Ok(())
    }

    async fn step(&mut self, group: &str, what: &str, words: &[String], slots: &[u16]) -> Result<(), ReshardError> {
        if slots.is_empty() {
            return Ok(());
        }
        let words = words.iter().cloned().chain(slots.iter().map(u16::to_string));
        let words: Vec<Vec<u8>> = std::iter::once(text(what)).chain(words.map(String::into_bytes)).collect();
        self.put(group, &words).await
    }

    /// One step, done once the replicas have it.
    async fn put(&mut self, group: &str, words: &[Vec<u8>]) -> Result<(), ReshardError> {
        self.has_begun = true;
        let (keys, name) = (self.keys.clone(), self.name.clone());
        let group = self.group(group)?;
        group.step(&keys, &name, words).await?;
        group.settle().await
    }

    /// The map lies in every group, those that are left among them: whoever reads it anywhere learns of it.
    async fn write(&mut self, map: &SlotMap) -> Result<(), ReshardError> {
        self.has_begun = true;
        let words = [b"map".to_vec(), map.version.to_string().into_bytes(), map.text().into_bytes()];
        for group in &mut self.groups {
            group.step(&self.keys, &self.name, &words).await?;
            group.settle().await?;
        }
        Ok(())
    }

    fn say(&mut self, what: &'static str, done: usize, of: usize) -> Result<(), ReshardError> {
        self.at = (done, of);
        self.tell(&Progress { what, trouble: None, done, of })
    }

    fn tell(&mut self, progress: &Progress) -> Result<(), ReshardError> {
        match (self.watch)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ReshardError::Stopped),
        }
    }

    /// Does what is left to do, from what the groups show. A group that fails on the way (its primary may have changed) is
    /// connected anew, and everything looked at again.
    async fn go_on(&mut self) -> Result<(), ReshardError> {
        let mut failing_since: Option<Instant> = None;
        loop {
            let advanced = match failing_since {
                Some(_) => self.advance_again().await,
                None => self.advance().await,
            };
            match advanced {
                Ok(true) => return Ok(()),
                Ok(false) => failing_since = None,
                Err(error @ ReshardError::Unreachable(..)) => {
                    if failing_since.is_none() {
                        let (done, of) = self.at;
                        self.tell(&Progress { what: "waiting", trouble: Some(error.to_string()), done, of })?;
                    }
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= TRY_MAX {
                        return Err(error);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One stage, after a group was away: for longer, maybe, than leases last. Whoever has taken one meanwhile moves now.
    async fn advance_again(&mut self) -> Result<bool, ReshardError> {
        self.look().await?;
        self.hold(Duration::ZERO).await?;
        self.advance().await
    }

    /// One stage. Whether that was the last.
    async fn advance(&mut self) -> Result<bool, ReshardError> {
        let map = self.look().await?;
        self.write(&map).await?;
        self.await_told(&map).await?;
        let all = map.beside.len();
        if !coming(&map).is_empty() {
            self.say("listened to twice", 0, all)?;
            self.carry(&map).await?;
            self.write(&map.arrived(map.version)).await?;
            self.say("arrived", all, all)?;
            return Ok(false);
        }
        if map.is_moving() {
            self.await_webhooks(&map).await?;
            self.write(&map.ended()).await?;
            self.say("listened to once", all, all)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// By node, the version of the map that it goes by.
    async fn told(&mut self) -> Result<Vec<(String, u64)>, ReshardError> {
        let mut told: Vec<(String, u64)> = Vec::new();
        for group in &mut self.groups {
            for lease in group.leases(&self.keys).await? {
                match told.iter_mut().find(|(node, _)| *node == lease.node) {
                    Some((_, version)) => *version = (*version).max(lease.map),
                    None => told.push((lease.node, lease.map)),
                }
            }
        }
        Ok(told)
    }

    /// Waits until every node with a lease goes by this map. One that is dead has none before long.
    async fn await_told(&mut self, map: &SlotMap) -> Result<(), ReshardError> {
        let began = Instant::now();
        // Where nobody goes any more, leases are of the past.
        self.groups.sort_by_key(|group| !map.groups.contains(&group.name));
        loop {
            let mut told = Vec::new();
            let all = std::mem::take(&mut self.groups);
            let (followed, left): (Vec<Group>, Vec<Group>) =
                all.into_iter().partition(|group| map.groups.contains(&group.name));
            self.groups = followed;
            let answer = self.told().await;
            self.groups.extend(left);
            told.extend(answer?);
            told.retain(|(_, version)| *version < map.version);
            if told.is_empty() {
                return Ok(());
            }
            if began.elapsed() >= TOLD_MAX {
                let nodes: Vec<String> = told.into_iter().map(|(node, _)| node).collect();
                return Err(ReshardError::Deaf { version: map.version, nodes: nodes.join(", ") });
            }
            self.renew(self.groups.len()).await?;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn text(word: impl ToString) -> Vec<u8> {
    word.to_string().into_bytes()
}
