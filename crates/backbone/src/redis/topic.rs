//! What nodes listen to and keep records of: a channel of an app, or one of its users.
//!
//! Users are treated like channels of their own: whoever is signed in as a user or watches one has interest in its topic.
//! A topic belongs to one of [`SLOTS`] slots by a stable hash, and a slot to one group.

use std::sync::Arc;

use fulmar_protocol::app::AppId;
use fulmar_protocol::name::{CHANNEL_NAME_CEILING, ChannelName, UserId};

/// Shares of all topics. Never changes: it is part of what is stored.
pub const SLOTS: u16 = 1_024;

/// One of [`SLOTS`] shares of the topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u16);

/// Parts the webhook outbox of a group is claimed by: each holds the slots with the same remainder.
pub const OUTBOX_PARTS: u16 = 16;

impl Slot {
    /// The share of a topic, by its text: the low ten bits of the FNV-1a hash (64 bit).
    #[must_use]
    pub fn of(topic: &str) -> Self {
        let hash = topic
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        // The low bits of this hash mix poorly for short texts: fold the upper half in.
        let share = (hash ^ (hash >> 32)) % u64::from(SLOTS);
        Self(u16::try_from(share).unwrap_or_default())
    }

    /// The part of the outbox that edges of this slot go to.
    #[must_use]
    pub fn outbox_part(self) -> u16 {
        self.0 % OUTBOX_PARTS
    }
}

/// Most bytes of a user id in a topic; longer ones are not accepted on the wire either.
const USER_ID_CEILING: usize = 1_024;

/// A channel or a user of an app, as text: `APP:CHANNEL` or `APP::USER`. Neither an app's id nor a channel's name has a
/// colon in it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// What a topic means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A channel.
    Channel(AppId, ChannelName),
    /// A user.
    User(AppId, UserId),
}

impl Topic {
    /// The topic of a channel.
    #[must_use]
    pub fn channel(app: &AppId, channel: &ChannelName) -> Self {
        Self(format!("{}:{}", app.as_str(), channel.as_str()).into())
    }

    /// The topic of a user.
    #[must_use]
    pub fn user(app: &AppId, user: &UserId) -> Self {
        Self(format!("{}::{}", app.as_str(), user.as_str()).into())
    }

    /// Reads what [`Topic::as_str`] gave; `None` for anything else, since anybody may have written into a store.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        about(text)?;
        Some(Self(text.into()))
    }

    /// The text: what it is called in keys and records.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it means.
    ///
    /// # Panics
    /// Never: every topic was made from its parts, or parsed.
    #[must_use]
    pub fn about(&self) -> About {
        about(&self.0).expect("a topic is made of its parts")
    }

    /// The id of its app.
    #[must_use]
    pub fn app(&self) -> &str {
        self.0.split_once(':').map_or("", |(app, _)| app)
    }

    /// Its share.
    #[must_use]
    pub fn slot(&self) -> Slot {
        Slot::of(&self.0)
    }
}

fn about(text: &str) -> Option<About> {
    let (app, rest) = text.split_once(':')?;
    let app = AppId::new(app);
    match rest.strip_prefix(':') {
        Some(user) => Some(About::User(app, UserId::parse(user, USER_ID_CEILING).ok()?)),
        None => Some(About::Channel(app, ChannelName::parse(rest, CHANNEL_NAME_CEILING).ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> Topic {
        Topic::channel(&AppId::new("7"), &ChannelName::parse(name, 200).expect("a valid name"))
    }

    /// RED-9
    #[test]
    fn a_topic_is_read_back_as_what_it_was_made_of() {
        let user = Topic::user(&AppId::new("7"), &UserId::parse("ana", 100).expect("a valid id"));
        for topic in [channel("room"), channel("#server-to-user-ana"), user] {
            assert_eq!(Topic::parse(topic.as_str()).as_ref(), Some(&topic));
        }
        for text in ["", "7", "7:", "7:no spaces", "7::"] {
            assert_eq!(Topic::parse(text), None, "{text:?}");
        }
    }

    /// RED-9: stored data depends on these.
    #[test]
    fn slots_never_change() {
        let slots = ["room", "presence-room", "private-1"].map(|name| channel(name).slot().0);
        assert_eq!(slots, SEEN);
    }
    const SEEN: [u16; 3] = [443, 417, 520];

    /// RED-9
    #[test]
    fn slots_are_used_evenly() {
        let mut used = vec![0_u32; usize::from(SLOTS)];
        for number in 0..100 * u32::from(SLOTS) {
            used[usize::from(channel(&format!("room-{number}")).slot().0)] += 1;
        }
        assert!(used.iter().all(|count| (50..=160).contains(count)), "{:?}", (used.iter().min(), used.iter().max()));
    }
}
