//! Publications that were taken back: their calls were answered as failed before any log had them (rule 4).
//!
//! They never come, so nobody may wait for one. What followed it follows the one before it instead: named as nobody's successor
//! it could be told before that one, where the two take different ways (rule 2). Pure.

use std::time::Duration;

use fulmar_protocol::name::ChannelName;
use hashbrown::HashMap;

use super::envelope::Previous;
use super::topic::{About, Topic};

/// Those of one moment.
#[derive(Debug, Default)]
pub struct Withdrawn {
    /// By the counter of each: its topic, and what it had followed.
    before: HashMap<u64, (Topic, Option<Previous>)>,
    /// What each call had left.
    left: HashMap<u64, Vec<Topic>>,
}

impl Withdrawn {
    /// One more.
    pub fn note(&mut self, topic: Topic, counter: u64, previous: Option<Previous>) {
        self.before.insert(counter, (topic, previous));
    }

    /// A publication to this topic did not count as accepted when its call was answered.
    pub fn leave(&mut self, call: u64, topic: Topic) {
        self.left.entry(call).or_default().push(topic);
    }

    /// Takes the channels that a call had left, sorted.
    pub fn take_left(&mut self, call: u64) -> Vec<ChannelName> {
        let channel = |topic: Topic| match topic.about() {
            About::Channel(_, channel) => Some(channel),
            About::User(..) => None,
        };
        let mut left: Vec<_> = self.left.remove(&call).unwrap_or_default().into_iter().filter_map(channel).collect();
        left.sort_unstable();
        left.dedup();
        left
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.before.is_empty()
    }

    /// What a publication follows that followed this one.
    #[must_use]
    pub fn passed(&self, mut previous: Option<Previous>) -> Option<Previous> {
        // Each step leads to a smaller counter, so there is an end.
        while let Some(this) = previous
            && let Some((_, before)) = self.before.get(&this.counter)
        {
            previous = before.filter(|before| before.counter < this.counter).map(|before| Previous {
                counter: before.counter,
                ms_before: this.ms_before.saturating_add(before.ms_before),
            });
        }
        previous
    }

    /// Puts right what is known as the last publication of each topic: its counter, and when it was made.
    pub fn pass(&self, last: &mut HashMap<Topic, (u64, Duration)>) {
        for (topic, _) in self.before.values() {
            let Some(&(counter, at)) = last.get(topic) else { continue };
            match self.passed(Some(Previous { counter, ms_before: 0 })) {
                Some(before) => {
                    let at = at.saturating_sub(Duration::from_millis(before.ms_before.into()));
                    last.insert(topic.clone(), (before.counter, at));
                }
                None => {
                    last.remove(topic);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fulmar_protocol::app::AppId;
    use fulmar_protocol::name::ChannelName;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn topic(name: &str) -> Topic {
        Topic::channel(&AppId::new("1"), &ChannelName::parse(name, 200).expect("a valid name"))
    }

    fn after(counter: u64, ms_before: u16) -> Option<Previous> {
        Some(Previous { counter, ms_before })
    }

    /// RED-4
    #[test]
    fn what_followed_one_that_was_taken_back_follows_the_one_before_it() {
        let mut withdrawn = Withdrawn::default();
        withdrawn.note(topic("room"), 5, after(3, 100));
        withdrawn.note(topic("room"), 8, after(5, 50));
        withdrawn.note(topic("hall"), 9, None);
        assert_eq!(withdrawn.passed(after(8, 7)), after(3, 157));
        assert_eq!(withdrawn.passed(after(9, 7)), None, "that was the first of all");
        assert_eq!(withdrawn.passed(after(4, 7)), after(4, 7), "nobody took that back");
        assert_eq!(withdrawn.passed(None), None);
    }

    /// RED-4
    #[test]
    fn the_next_publication_follows_the_last_that_stands() {
        let mut last = HashMap::from([
            (topic("room"), (8, MS(4_000))),
            (topic("hall"), (9, MS(4_000))),
            (topic("yard"), (10, MS(4_000))),
        ]);
        let mut withdrawn = Withdrawn::default();
        withdrawn.note(topic("room"), 5, after(3, 100));
        withdrawn.note(topic("room"), 8, after(5, 50));
        withdrawn.note(topic("hall"), 9, None);
        withdrawn.note(topic("yard"), 7, after(6, 10));
        withdrawn.pass(&mut last);
        assert_eq!(last.get(&topic("room")), Some(&(3, MS(3_850))));
        assert_eq!(last.get(&topic("hall")), None);
        assert_eq!(last.get(&topic("yard")), Some(&(10, MS(4_000))), "a later one stands");
    }

    /// RED-15
    #[test]
    fn what_a_call_had_left_is_named_once_and_sorted() {
        let mut withdrawn = Withdrawn::default();
        for (call, name) in [(7, "yard"), (7, "hall"), (8, "room"), (7, "yard")] {
            withdrawn.leave(call, topic(name));
        }
        let names = |left: Vec<ChannelName>| left.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(withdrawn.take_left(7)), ["hall", "yard"]);
        assert_eq!(names(withdrawn.take_left(7)), [""; 0]);
        assert_eq!(names(withdrawn.take_left(8)), ["room"]);
    }

    /// RED-4
    #[test]
    fn a_chain_that_leads_nowhere_ends() {
        let mut withdrawn = Withdrawn::default();
        withdrawn.note(topic("room"), 5, after(5, 1));
        withdrawn.note(topic("room"), 6, after(7, 1));
        withdrawn.note(topic("room"), 7, after(6, 1));
        assert_eq!(withdrawn.passed(after(5, 0)), None);
        assert_eq!(withdrawn.passed(after(7, 0)), None);
    }
}
