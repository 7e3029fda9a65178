//! What travels over the bus, the second path: publications of one group, words of deaf nodes, and signs of life.
//!
//! | first byte | rest |
//! |---|---|
//! | `M` | group (2 bytes), then per publication: length (2), topic, length (4), message |
//! | `D` | group (2 bytes): the sender hears nothing from that group's primary |
//! | `H` | the sender's incarnation (8 bytes): it is alive |

use bytes::{BufMut as _, Bytes, BytesMut};

use super::topic::Topic;

/// A message on the bus.
#[derive(Debug, PartialEq, Eq)]
pub enum Bus<'a> {
    /// Publications of a group, in the order accepted.
    Publications {
        /// Index of the group, in the order of names.
        group: usize,
        /// Topics and messages.
        items: Items<'a>,
    },
    /// A node is deaf for a group.
    Deaf {
        /// Index of the group.
        group: usize,
    },
    /// A node is alive.
    Alive {
        /// Its incarnation.
        origin: u64,
    },
}

/// Topics and messages, read one by one. Ends early where they are malformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Items<'a>(&'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk::<2>()?;
        let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (message, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        self.0 = rest;
        Some((std::str::from_utf8(topic).ok()?, message))
    }
}

impl<'a> Bus<'a> {
    /// Reads a message; `None` for what no version of ours sends.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match kind {
            b'M' => {
                let (group, items) = rest.split_first_chunk()?;
                Some(Self::Publications { group: u16::from_be_bytes(*group).into(), items: Items(items) })
            }
            b'D' => Some(Self::Deaf { group: u16::from_be_bytes(rest.try_into().ok()?).into() }),
            b'H' => Some(Self::Alive { origin: u64::from_be_bytes(rest.try_into().ok()?) }),
            _ => None,
        }
    }
}

/// Publications on their way.
pub struct Batch(BytesMut);

impl Batch {
    /// An empty batch of a group.
    #[must_use]
    pub fn new(group: usize) -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_u8(b'M');
        put_group(&mut bytes, group);
        Self(bytes)
    }

    /// One more publication. A topic has at most a few hundred bytes and a message at most what one frame may have.
    pub fn add(&mut self, topic: &Topic, message: &[u8]) {
        let topic = topic.as_str().as_bytes();
        let lengths = (u16::try_from(topic.len()), u32::try_from(message.len()));
        let (Ok(topic_length), Ok(length)) = lengths else { return };
        self.0.put_u16(topic_length);
        self.0.put_slice(topic);
        self.0.put_u32(length);
        self.0.put_slice(message);
    }

    /// As bytes.
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

/// A word of a deaf node.
#[must_use]
pub fn deaf(group: usize) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(b'D');
    put_group(&mut bytes, group);
    bytes.freeze()
}

/// A group's name in two bytes: nodes need not have their groups in the same order.
#[must_use]
pub fn tag(name: &str) -> usize {
    usize::from(
        name.bytes().fold(0x811c_u16, |hash, byte| (hash ^ u16::from(byte)).wrapping_mul(0x0193).rotate_left(5)),
    )
}

/// A sign of life.
#[must_use]
pub fn alive(origin: u64) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(b'H');
    bytes.put_u64(origin);
    bytes.freeze()
}

fn put_group(bytes: &mut BytesMut, group: usize) {
    bytes.put_u16(u16::try_from(group).expect("the configuration allows fewer groups than 2^16"));
}

#[cfg(test)]
mod tests {
    use fulmar_protocol::app::AppId;
    use fulmar_protocol::name::ChannelName;

    use super::*;

    /// RED-21
    #[test]
    fn what_is_sent_is_read_back_in_order() {
        let topic = |name| Topic::channel(&AppId::new("1"), &ChannelName::parse(name, 200).expect("a valid name"));
        let mut batch = Batch::new(3);
        batch.add(&topic("a"), b"first");
        batch.add(&topic("b"), b"");
        let bytes = batch.finish();
        let Some(Bus::Publications { group: 3, items }) = Bus::decode(&bytes) else { panic!("publications") };
        assert_eq!(items.collect::<Vec<_>>(), [("1:a", b"first".as_slice()), ("1:b", b"")]);
        assert_eq!(Bus::decode(&deaf(2)), Some(Bus::Deaf { group: 2 }));
        assert_eq!(Bus::decode(&alive(u64::MAX)), Some(Bus::Alive { origin: u64::MAX }));
    }

    /// RED-21
    #[test]
    fn what_is_cut_short_ends_early_and_harms_nobody() {
        let mut batch = Batch::new(0);
        batch.add(&Topic::parse("1:a").expect("a topic"), b"first");
        let bytes = batch.finish();
        for length in 0..bytes.len() {
            match Bus::decode(&bytes[..length]) {
                Some(Bus::Publications { items, .. }) => assert_eq!(items.count(), 0, "{length}"),
                other => assert!(other.is_none() && length < 3, "{length}"),
            }
        }
        for broken in [b"D".as_slice(), b"D123", b"H1", b"X"] {
            assert_eq!(Bus::decode(broken), None);
        }
    }
}
