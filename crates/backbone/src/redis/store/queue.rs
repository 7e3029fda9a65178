//! What is to be written and not answered yet: changes of records and messages, in the order they were asked.

use std::collections::VecDeque;

use bytes::Bytes;
use fulmar_protocol::name::UserId;
use hashbrown::HashMap;

use super::super::records::{Change, Token};
use super::super::topic::{Slot, Topic};

/// Messages in one call.
const SENDS_MAX: usize = 64;
/// From this many on, what waits is looked through for changes that a later one of the same topic and user makes needless. The
/// number then no longer grows with time but with what there is to say.
const COALESCED_FROM: usize = 4_096;

/// A change on its way.
#[derive(Debug, Clone)]
pub struct Queued {
    /// What is to be said. Its token counts only where `is_asked`.
    pub change: Change,
    /// Whether anybody waits for the answer: not where the node joins anew.
    pub is_asked: bool,
    /// Earlier changes that this one made needless. Their askers are answered with it.
    pub superseded: Vec<Token>,
}

/// A message on its way.
#[derive(Debug, Clone)]
pub struct Message {
    pub token: Token,
    pub topic: Topic,
    pub message: Bytes,
}

#[derive(Debug)]
enum Item {
    Change(Queued),
    Send(Message),
}

/// Something that waits, on its way to the queue of another group.
#[derive(Debug)]
pub struct Waiting(Item);

/// What one call takes.
#[derive(Debug)]
pub enum Batch {
    Changes(Vec<Queued>),
    Sends(Vec<Message>),
}

/// See the head of this file.
#[derive(Debug)]
pub struct Queue {
    items: VecDeque<Item>,
    /// Topics of changes that wait or are on their way, and how many.
    pending: HashMap<Topic, u32>,
    coalesce_at: usize,
    /// One change at a time, after a batch has failed for a reason of its own.
    is_one_by_one: bool,
}

impl Queue {
    pub fn new() -> Self {
        Self { items: VecDeque::new(), pending: HashMap::new(), coalesce_at: COALESCED_FROM, is_one_by_one: false }
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether a change of the topic waits or is on its way.
    pub fn is_pending(&self, topic: &Topic) -> bool {
        self.pending.contains_key(topic)
    }

    pub fn change(&mut self, queued: Queued) {
        *self.pending.entry(queued.change.topic.clone()).or_default() += 1;
        self.items.push_back(Item::Change(queued));
        if self.items.len() >= self.coalesce_at {
            self.coalesce();
            self.coalesce_at = COALESCED_FROM.max(self.items.len() * 2);
        }
    }

    pub fn send(&mut self, message: Message) {
        self.items.push_back(Item::Send(message));
    }

    /// Takes what the next call says: things of one kind, in their order. They stay pending until [`Queue::done`] or
    /// [`Queue::put_back`].
    pub fn batch(&mut self, changes_max: usize) -> Option<Batch> {
        let is_change = |item: &Item| matches!(item, Item::Change(_));
        let kind = is_change(self.items.front()?);
        let changes_max = if self.is_one_by_one { 1 } else { changes_max };
        let max = if kind { changes_max } else { SENDS_MAX };
        let count = self.items.iter().take(max).take_while(|item| is_change(item) == kind).count();
        let (mut changes, mut sends) = (Vec::new(), Vec::new());
        for item in self.items.drain(..count) {
            match item {
                Item::Change(queued) => changes.push(queued),
                Item::Send(message) => sends.push(message),
            }
        }
        Some(if kind { Batch::Changes(changes) } else { Batch::Sends(sends) })
    }

    /// A change has been answered.
    pub fn done(&mut self, topic: &Topic) {
        self.is_one_by_one = false;
        if let Some(count) = self.pending.get_mut(topic) {
            *count -= 1;
            if *count == 0 {
                self.pending.remove(topic);
            }
        }
    }

    /// What was not answered waits again, before everything else.
    pub fn put_back(&mut self, batch: Batch) {
        match batch {
            Batch::Changes(changes) => {
                changes.into_iter().rev().for_each(|queued| self.items.push_front(Item::Change(queued)));
            }
            Batch::Sends(sends) => sends.into_iter().rev().for_each(|send| self.items.push_front(Item::Send(send))),
        }
    }

    /// Changes that come before everything that waits.
    pub fn put_before(&mut self, changes: Vec<Queued>) {
        for queued in &changes {
            *self.pending.entry(queued.change.topic.clone()).or_default() += 1;
        }
        self.put_back(Batch::Changes(changes));
    }

    /// Takes out what waits for these slots, in its order.
    pub fn take_slots(&mut self, is_wanted: impl Fn(Slot) -> bool) -> Vec<Waiting> {
        let (mut taken, mut kept) = (Vec::new(), VecDeque::with_capacity(self.items.len()));
        for item in std::mem::take(&mut self.items) {
            match item {
                Item::Change(queued) if is_wanted(queued.change.topic.slot()) => {
                    self.done(&queued.change.topic);
                    taken.push(Waiting(Item::Change(queued)));
                }
                Item::Send(message) if is_wanted(message.topic.slot()) => taken.push(Waiting(Item::Send(message))),
                item => kept.push_back(item),
            }
        }
        self.items = kept;
        taken
    }

    /// What waited elsewhere waits here now.
    pub fn give(&mut self, waiting: Waiting) {
        match waiting.0 {
            Item::Change(queued) => self.change(queued),
            Item::Send(message) => self.send(message),
        }
    }

    /// A batch failed and nobody knows which of its changes made it: they go one by one, so that one bad apple is alone.
    pub fn one_by_one(&mut self) {
        self.is_one_by_one = true;
    }

    /// Drops every change that a later one of the same topic and user makes needless.
    fn coalesce(&mut self) {
        let mut later: HashMap<(Topic, Option<UserId>), usize> = HashMap::new();
        let mut kept: Vec<Item> = Vec::with_capacity(self.items.len());
        for item in std::mem::take(&mut self.items).into_iter().rev() {
            let Item::Change(queued) = item else {
                kept.push(item);
                continue;
            };
            let user = queued.change.member.as_ref().map(|(user, _)| user.clone());
            let key = (queued.change.topic.clone(), user);
            match later.get(&key) {
                Some(at) => {
                    let Item::Change(last) = &mut kept[*at] else { unreachable!("only changes are remembered") };
                    last.supersede(queued);
                    self.done(&key.0);
                }
                None => {
                    later.insert(key, kept.len());
                    kept.push(Item::Change(queued));
                }
            }
        }
        self.items = kept.into_iter().rev().collect();
    }
}

impl Queued {
    pub fn asked(change: Change) -> Self {
        Self { change, is_asked: true, superseded: Vec::new() }
    }

    /// Answers for `earlier` too.
    fn supersede(&mut self, earlier: Self) {
        if earlier.is_asked {
            self.superseded.push(earlier.change.token);
        }
        self.superseded.extend(earlier.superseded);
        self.change.wants_roster |= earlier.change.wants_roster;
        self.change.wants_cached |= earlier.change.wants_cached;
        self.change.wants_logged |= earlier.change.wants_logged;
    }
}

#[cfg(test)]
mod tests {
    use fulmar_protocol::webhook::Kinds;

    use super::super::super::records::Presence;
    use super::*;

    fn change(number: u64, topic: &str, subscriptions: u32, member: Option<(&str, bool)>) -> Queued {
        let presence = |here: bool| here.then_some(Presence { user_info: None, since: 1 });
        Queued::asked(Change {
            token: Token(number),
            topic: Topic::parse(topic).unwrap(),
            subscriptions,
            member: member.map(|(user, here)| (UserId::parse(user, 10).unwrap(), presence(here))),
            members_max: None,
            is_counted: false,
            wants_roster: false,
            wants_cached: false,
            wants_logged: false,
            hooks: Kinds::NONE,
        })
    }

    /// RED-26
    #[test]
    fn while_nobody_answers_only_the_last_word_on_each_topic_and_user_is_kept() {
        let mut queue = Queue::new();
        let rounds = COALESCED_FROM as u64 * 3;
        for number in 0..rounds {
            let user = if number % 3 == 0 { "ana" } else { "bob" };
            queue.change(change(number, "7:presence-a", 1, Some((user, number % 2 == 0))));
        }
        assert!(queue.len() <= COALESCED_FROM, "{}", queue.len());
        queue.coalesce();
        let Some(Batch::Changes(left)) = queue.batch(64) else { panic!("changes") };
        let last: Vec<u64> = left.iter().map(|queued| queued.change.token.0).collect();
        assert_eq!(last, [rounds - 3, rounds - 1]);
        let answered: usize = left.iter().map(|queued| 1 + queued.superseded.len()).sum();
        assert_eq!(answered as u64, rounds, "everybody is answered");
        assert!(queue.is_pending(&left[0].change.topic));
        left.iter().for_each(|queued| queue.done(&queued.change.topic));
        assert!(!queue.is_pending(&left[0].change.topic));
    }

    /// RED-26
    #[test]
    fn what_was_not_answered_goes_first_again() {
        let mut queue = Queue::new();
        for number in 0..100 {
            queue.change(change(number, "7:a", 1, None));
        }
        let first = queue.batch(64).unwrap();
        queue.put_back(first);
        let Some(Batch::Changes(again)) = queue.batch(64) else { panic!("changes") };
        assert_eq!((again.len(), again[0].change.token), (64, Token(0)));
        queue.one_by_one();
        let Some(Batch::Changes(next)) = queue.batch(64) else { panic!("changes") };
        assert_eq!((next.len(), next[0].change.token), (1, Token(64)));
    }
}
