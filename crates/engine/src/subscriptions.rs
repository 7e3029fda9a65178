//! Who listens to what, on this worker.
//!
//! Invariant: a live subscription stands in exactly one place of its channel's list, and knows the index; so joining,
//! leaving and losing 5,000 subscribers cost the same per subscriber as one.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::Position;
use fulmar_protocol::name::{ChannelKind, ChannelName};
use hashbrown::HashTable;
use slab::Slab;

use crate::counts::CountThrottle;
use crate::effect::SessionKey;

/// Index of a channel in its worker.
pub(crate) type ChannelKey = u32;

/// A channel with at least one subscription here, live or waiting.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) app: AppId,
    pub(crate) name: ChannelName,
    pub(crate) kind: ChannelKind,
    /// Live subscriptions, in no particular order.
    pub(crate) subscribers: Vec<SessionKey>,
    /// The latest position at which one of them began. A delivery beyond it goes to all without looking.
    pub(crate) newest_from: Position,
    /// Tickets of subscriptions that wait for the backbone's answer.
    pub(crate) waiting: Vec<u64>,
    /// Only where subscribers are told how many they are.
    pub(crate) count: Option<Box<CountThrottle>>,
    /// Tells this use of the slot from a later one.
    pub(crate) generation: u64,
}

/// All channels of a worker.
#[derive(Debug)]
pub(crate) struct Channels {
    table: HashTable<ChannelKey>,
    slab: Slab<Channel>,
    hasher: RandomState,
    generation: u64,
}

impl Channels {
    pub(crate) fn new() -> Self {
        Self { table: HashTable::new(), slab: Slab::new(), hasher: RandomState::default(), generation: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn find(&self, app: &AppId, name: &str) -> Option<ChannelKey> {
        let hash = self.hasher.hash_one((app.as_str(), name));
        self.table
            .find(hash, |key| {
                let channel = &self.slab[*key as usize];
                channel.name.as_str() == name && channel.app == *app
            })
            .copied()
    }

    pub(crate) fn find_or_add(&mut self, app: &AppId, name: &ChannelName) -> ChannelKey {
        if let Some(key) = self.find(app, name.as_str()) {
            return key;
        }
        self.generation += 1;
        let key = self.slab.insert(Channel {
            app: app.clone(),
            name: name.clone(),
            kind: name.kind(),
            subscribers: Vec::new(),
            newest_from: Position::default(),
            waiting: Vec::new(),
            count: None,
            generation: self.generation,
        });
        let key = ChannelKey::try_from(key).expect("fewer than 2^32 channels fit into memory");
        let hash = self.hasher.hash_one((app.as_str(), name.as_str()));
        let (slab, hasher) = (&self.slab, &self.hasher);
        self.table.insert_unique(hash, key, |key| {
            let channel = &slab[*key as usize];
            hasher.hash_one((channel.app.as_str(), channel.name.as_str()))
        });
        key
    }

    pub(crate) fn get(&self, key: ChannelKey) -> &Channel {
        &self.slab[key as usize]
    }

    pub(crate) fn get_mut(&mut self, key: ChannelKey) -> &mut Channel {
        &mut self.slab[key as usize]
    }

    /// The channel, if the slot still belongs to that use of it.
    pub(crate) fn if_same(&mut self, key: ChannelKey, generation: u64) -> Option<&mut Channel> {
        self.slab.get_mut(key as usize).filter(|channel| channel.generation == generation)
    }

    /// Forgets the channel when nobody is left on it.
    pub(crate) fn drop_if_unused(&mut self, key: ChannelKey) {
        let channel = &self.slab[key as usize];
        if !channel.subscribers.is_empty() || !channel.waiting.is_empty() {
            return;
        }
        let hash = self.hasher.hash_one((channel.app.as_str(), channel.name.as_str()));
        if let Ok(entry) = self.table.find_entry(hash, |candidate| *candidate == key) {
            entry.remove();
        }
        self.slab.remove(key as usize);
    }
}

impl Channel {
    /// Adds a live subscriber; answers its index.
    pub(crate) fn add(&mut self, session: SessionKey, from: Position) -> u32 {
        self.newest_from = self.newest_from.max(from);
        self.subscribers.push(session);
        u32::try_from(self.subscribers.len() - 1).expect("fewer than 2^32 connections on one worker")
    }

    /// Removes the subscriber at `index`; answers the session that now stands there, if one was moved.
    pub(crate) fn remove(&mut self, index: u32) -> Option<SessionKey> {
        self.subscribers.swap_remove(index as usize);
        // A channel that was large once must not stay so for its last few subscribers.
        if self.subscribers.capacity() > 64 && self.subscribers.len() < self.subscribers.capacity() / 4 {
            self.subscribers.shrink_to(self.subscribers.len() * 2);
        }
        self.subscribers.get(index as usize).copied()
    }
}
