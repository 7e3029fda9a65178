//! Short ways to say what tests ask, and their dice.

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Answer, Identity, Join, Member, Publication, Ticket};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::{ChannelName, UserId};

use crate::redis::envelope::{Event, Message};
use crate::redis::topic::Topic;

/// The app of all tests.
pub const APP: &str = "app";

pub fn ticket_of(answer: &Answer) -> Option<Ticket> {
    match answer {
        Answer::Joined { ticket, .. }
        | Answer::JoinRefused { ticket, .. }
        | Answer::SignedIn { ticket, .. }
        | Answer::SignInRefused { ticket } => Some(*ticket),
        Answer::Absent { .. } => None,
    }
}

pub fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, 200).expect("a valid name")
}

pub fn topic(name: &str) -> Topic {
    Topic::channel(&AppId::new(APP), &channel(name))
}

pub fn user_topic(id: &str) -> Topic {
    Topic::user(&AppId::new(APP), &user(id))
}

pub fn user(id: &str) -> UserId {
    UserId::parse(id, 100).expect("a valid id")
}

pub fn to(name: &str) -> Join {
    Join {
        ticket: Ticket { session: 0, number: 0 },
        app: AppId::new(APP),
        channel: channel(name),
        member: None,
        members_max: 100,
        counted: false,
    }
}

pub fn as_user(name: &str, id: &str, info: &str) -> Join {
    Join { member: Some(Member { user_id: user(id), user_info: Some(info.into()) }), ..to(name) }
}

pub fn bus_event(text: &str, accepted_ms: u64) -> Message {
    let identity = Identity { origin: 77, counter: accepted_ms };
    let frame = Frame::new(text);
    Message::Event(Event { identity, previous: None, accepted_ms, repeat_of: 0, except: None, cache_for: None, frame })
}

pub fn publication(name: &str) -> Publication {
    let (app, frame) = (AppId::new(APP), Frame::new("said"));
    Publication { app, channel: channel(name), frame, except: None, cache_for: None }
}

/// Numbers that look random and are the same in every run (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).expect("below the bound")
    }
}
