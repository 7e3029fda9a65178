//! What travels between nodes about a topic, as bytes: over a subscription, over the bus and in the log alike.
//!
//! The first byte says what it is. Publications are written by nodes alone; edges and counts are written by the script that
//! decided them, so their form is one that a script can write: decimal numbers, and texts with their lengths before them.
//!
//! | first byte | rest |
//! |---|---|
//! | `E` | a [`Publication`](Event), binary |
//! | `A` | `SINCE LENGTH:USER INFO`: a member came |
//! | `R` | `LENGTH:USER`: a member went |
//! | `C` | `TOTAL`: how many subscriptions there are |
//! | `O` / `F` / `T` | nothing: the user is online, offline, to be disconnected |

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use fulmar_protocol::exchange::{Identity, Member};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::{SocketId, UserId};

/// Place of a message in its group's log: the entry's milliseconds and counter, and the message's place within it, packed so
/// that it rises as the log does. Written `MS-COUNTER.PLACE`; without a place, the end of the entry is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LogId(u64);

/// Bits that hold the counter within a millisecond. Larger ones count as the largest: such ids tie.
const COUNTER_BITS: u32 = 12;
/// Bits that hold the place within an entry.
const PLACE_BITS: u32 = 10;
/// Milliseconds up to the year 2109.
const MS_MAX: u64 = (1 << (64 - COUNTER_BITS - PLACE_BITS)) - 1;
/// The end of an entry.
const PLACE_END: u64 = (1 << PLACE_BITS) - 1;

impl LogId {
    /// The end of the entry with these numbers.
    #[must_use]
    pub fn new(ms: u64, counter: u64) -> Self {
        let counter = counter.min((1 << COUNTER_BITS) - 1);
        Self((ms.min(MS_MAX) << (COUNTER_BITS + PLACE_BITS)) | (counter << PLACE_BITS) | PLACE_END)
    }

    /// This place within the same entry, from 0.
    #[must_use]
    pub fn place(self, place: u64) -> Self {
        Self((self.0 & !PLACE_END) | place.min(PLACE_END))
    }

    /// The place just before this one.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Reads `MS-COUNTER` or `MS-COUNTER.PLACE`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, rest) = text.split_once('-')?;
        let (counter, place) = rest.split_once('.').map_or((rest, None), |(counter, place)| (counter, Some(place)));
        let entry = Self::new(ms.parse().ok().filter(|ms| *ms <= MS_MAX)?, counter.parse().ok()?);
        place.map_or(Some(entry), |place| place.parse().ok().map(|place| entry.place(place)))
    }

    /// Milliseconds since 1970 by the clock of the server that appended it.
    #[must_use]
    pub fn ms(self) -> u64 {
        self.0 >> (COUNTER_BITS + PLACE_BITS)
    }
}

/// The entry alone, as Redis writes it.
impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms(), (self.0 >> PLACE_BITS) & ((1 << COUNTER_BITS) - 1))
    }
}

/// What is told about a topic.
#[derive(Debug, Clone)]
pub enum Message {
    /// An accepted publication.
    Event(Event),
    /// A user came. `since` orders a roster: milliseconds when the member's record was made.
    Added {
        /// Who, with what the first connection said.
        member: Member,
        /// Orders a roster.
        since: u64,
    },
    /// A user left.
    Removed(UserId),
    /// How many subscriptions there are.
    Count(u64),
    /// The user whose topic it is has come.
    Online,
    /// The user has gone.
    Offline,
    /// The user's connections are to be ended.
    Terminated,
}

/// An accepted publication on its way.
#[derive(Debug, Clone)]
pub struct Event {
    /// What makes a repeat a repeat.
    pub identity: Identity,
    /// The same origin's previous publication on this topic, if there was one within
    /// [`NAMED_WITHIN`](super::order::NAMED_WITHIN).
    pub previous: Option<Previous>,
    /// In bytes: for how many milliseconds its node had accepted it when it was sent this way, so that no two clocks need to
    /// agree. Once heard: when that was, by the hearing node's [`Moment::ms`](super::hub::Moment::ms).
    pub accepted_ms: u64,
    /// Hash of the call's idempotency key and the place in the call; 0 without one.
    pub repeat_of: u64,
    /// The one connection that does not receive it.
    pub except: Option<SocketId>,
    /// How long it is kept for later subscribers.
    pub cache_for: Option<Duration>,
    /// What subscribers receive.
    pub frame: Frame,
}

/// The publication before another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous {
    /// Its counter; below 2^48.
    pub counter: u64,
    /// How many milliseconds before the other it was accepted.
    pub ms_before: u16,
}

/// Bits of a counter where it stands beside something else.
const COUNTER_BESIDE_BITS: u32 = 48;

impl Previous {
    /// As one number; 0 is none.
    fn number(this: Option<Self>) -> u64 {
        this.map_or(0, |this| (u64::from(this.ms_before) << COUNTER_BESIDE_BITS) | this.counter)
    }

    fn from_number(number: u64) -> Option<Self> {
        let counter = number & ((1 << COUNTER_BESIDE_BITS) - 1);
        let ms_before = u16::try_from(number >> COUNTER_BESIDE_BITS).unwrap_or(u16::MAX);
        (counter > 0).then_some(Self { counter, ms_before })
    }
}

/// Bytes of an event before its frame.
const HEADER_BYTES: usize = 1 + 1 + 5 * 8 + 16 + 4;
/// Where in them its origin stands.
const ORIGIN_AT: usize = 2;
/// Where in them its counter stands.
const COUNTER_AT: usize = 10;
/// Where in them stands what it follows.
const PREVIOUS_AT: usize = 18;
/// Where in them its age stands.
const AGE_AT: usize = 26;
/// Its first byte, which tells a publication from other messages.
const EVENT: u8 = b'E';
const HAS_EXCEPT: u8 = 1;
const HAS_CACHE: u8 = 2;

impl Event {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let text = self.frame.text().as_bytes();
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + text.len());
        bytes.put_u8(EVENT);
        let flags = u8::from(self.except.is_some()) * HAS_EXCEPT + u8::from(self.cache_for.is_some()) * HAS_CACHE;
        bytes.put_u8(flags);
        let previous = Previous::number(self.previous);
        for number in [self.identity.origin, self.identity.counter, previous, self.accepted_ms, self.repeat_of] {
            bytes.put_u64(number);
        }
        let (first, second) = self.except.map_or((0, 0), SocketId::parts);
        bytes.put_u64(first);
        bytes.put_u64(second);
        let seconds = self.cache_for.map_or(0, |kept| kept.as_secs());
        bytes.put_u32(u32::try_from(seconds).unwrap_or(u32::MAX));
        bytes.put_slice(text);
        bytes.freeze()
    }

    /// The same bytes, saying that it was accepted so long ago. Bytes that are no event stay as they are.
    #[must_use]
    pub fn with_age(bytes: &Bytes, age_ms: u64) -> Bytes {
        Self::with_number(bytes, AGE_AT, age_ms)
    }

    /// Which of its node's publications these bytes are, and which one it follows; `None` for bytes that are no event.
    #[must_use]
    pub fn follows(bytes: &[u8]) -> Option<(u64, Option<Previous>)> {
        let counter = Self::number(bytes, COUNTER_AT)?;
        Some((counter, Previous::from_number(Self::number(bytes, PREVIOUS_AT)?)))
    }

    /// Whose publication these bytes are, and which one; `None` for bytes that are no event.
    #[must_use]
    pub fn identity_of(bytes: &[u8]) -> Option<Identity> {
        Some(Identity { origin: Self::number(bytes, ORIGIN_AT)?, counter: Self::number(bytes, COUNTER_AT)? })
    }

    fn number(bytes: &[u8], at: usize) -> Option<u64> {
        bytes.first().filter(|kind| **kind == EVENT)?;
        Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
    }

    /// The same bytes, saying that it follows this one. Bytes that are no event stay as they are.
    #[must_use]
    pub fn following(bytes: &Bytes, previous: Option<Previous>) -> Bytes {
        Self::with_number(bytes, PREVIOUS_AT, Previous::number(previous))
    }

    fn with_number(bytes: &Bytes, at: usize, number: u64) -> Bytes {
        let mut changed = bytes.to_vec();
        if let Some(place) = changed.get_mut(at..at + 8) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        Bytes::from(changed)
    }

    /// One that says nothing, for tests of what carries it.
    #[cfg(test)]
    pub(crate) fn bare(counter: u64, previous: Option<Previous>) -> Self {
        let (identity, frame) = (Identity { origin: 7, counter }, Frame::new("said"));
        Self { identity, previous, accepted_ms: 0, repeat_of: 0, except: None, cache_for: None, frame }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, text) = bytes.split_at_checked(HEADER_BYTES)?;
        let flags = header[1];
        let number = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let seconds = u32::from_be_bytes(header[58..62].try_into().expect("four bytes"));
        Some(Self {
            identity: Identity { origin: number(ORIGIN_AT), counter: number(COUNTER_AT) },
            previous: Previous::from_number(number(PREVIOUS_AT)),
            accepted_ms: number(AGE_AT),
            repeat_of: number(34),
            except: (flags & HAS_EXCEPT != 0).then(|| SocketId::new(number(42), number(50))),
            cache_for: (flags & HAS_CACHE != 0).then(|| Duration::from_secs(u64::from(seconds))),
            frame: Frame::new(std::str::from_utf8(text).ok()?),
        })
    }
}

impl Message {
    /// Whether it says that somebody came or went: what records read later say as well.
    #[must_use]
    pub fn is_edge(&self) -> bool {
        matches!(self, Self::Added { .. } | Self::Removed(_) | Self::Online | Self::Offline)
    }

    /// Whether these bytes are those of an accepted publication, if they are anything.
    #[must_use]
    pub fn is_event(bytes: &[u8]) -> bool {
        bytes.first() == Some(&EVENT)
    }

    /// Reads what another node or a script wrote; `None` for what no version of ours writes.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        if *kind == EVENT {
            return Event::decode(bytes).map(Self::Event);
        }
        let text = std::str::from_utf8(rest).ok()?;
        match kind {
            b'A' => {
                let (since, rest) = text.split_once(' ')?;
                let (user_id, info) = user(rest)?;
                let user_info = info.strip_prefix(' ').filter(|info| !info.is_empty()).map(Arc::from);
                Some(Self::Added { member: Member { user_id, user_info }, since: since.parse().ok()? })
            }
            b'R' => user(text).filter(|(_, rest)| rest.is_empty()).map(|(user, _)| Self::Removed(user)),
            b'C' => text.parse().ok().map(Self::Count),
            b'O' if text.is_empty() => Some(Self::Online),
            b'F' if text.is_empty() => Some(Self::Offline),
            b'T' if text.is_empty() => Some(Self::Terminated),
            _ => None,
        }
    }

    /// Splits `MS-COUNTER.PLACE|MESSAGE`, as scripts publish and keep messages, into both.
    #[must_use]
    pub fn with_id(bytes: &[u8]) -> Option<(LogId, &[u8])> {
        let at = bytes.iter().take(48).position(|byte| *byte == b'|')?;
        let id = LogId::parse(std::str::from_utf8(&bytes[..at]).ok()?)?;
        Some((id, &bytes[at + 1..]))
    }
}

/// Reads `LENGTH:USER`, and what stands behind it.
fn user(text: &str) -> Option<(UserId, &str)> {
    let (length, rest) = text.split_once(':')?;
    let (id, rest) = rest.split_at_checked(length.parse().ok()?)?;
    Some((UserId::parse(id, id.len()).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RED-1
    #[test]
    fn an_event_is_read_back_as_it_was_written() {
        let event = Event {
            identity: Identity { origin: u64::MAX, counter: 3 },
            previous: Some(Previous { counter: 2, ms_before: 4_999 }),
            accepted_ms: 1_700_000_000_000,
            repeat_of: 9,
            except: Some(SocketId::new(12, 34)),
            cache_for: Some(Duration::from_secs(1_800)),
            frame: Frame::new(r#"{"event":"e"}"#),
        };
        let bytes = event.encode();
        let Some(Message::Event(read)) = Message::decode(&bytes) else { panic!("an event") };
        assert_eq!(format!("{read:?}"), format!("{event:?}"));
        assert!(Message::decode(&bytes[..HEADER_BYTES - 1]).is_none());
        let Some(Message::Event(older)) = Message::decode(&Event::with_age(&bytes, 7)) else { panic!("an event") };
        assert_eq!((older.accepted_ms, older.repeat_of), (7, 9));
        let Some(Message::Event(first)) = Message::decode(&Event::following(&bytes, None)) else { panic!("an event") };
        assert_eq!((first.previous, first.accepted_ms), (None, event.accepted_ms));
        assert_eq!(Event::follows(&bytes), Some((3, event.previous)));
        assert_eq!(Event::identity_of(&bytes), Some(event.identity));
        assert_eq!(Event::follows(b"C12"), None);
        assert_eq!(Event::identity_of(&bytes[..COUNTER_AT]), None);
        let bare = Event { previous: None, except: None, cache_for: None, ..event };
        let Some(Message::Event(read)) = Message::decode(&bare.encode()) else { panic!("an event") };
        assert_eq!((read.previous, read.except, read.cache_for), (None, None, None));
    }

    /// RED-25
    #[test]
    fn what_scripts_write_is_understood() {
        let show = |text: &str| Message::decode(text.as_bytes()).map(|m| format!("{m:?}"));
        let has = |text: &str, part: &str| show(text).is_some_and(|shown| shown.contains(part));
        assert!(has(r#"A17 3:ana {"a":1}"#, r#"since: 17"#), "{:?}", show(r#"A17 3:ana {"a":1}"#));
        assert!(has("A17 3:ana ", "user_info: None"));
        assert!(has("A17 5:a na: {}", "a na:"), "a user id may hold anything");
        assert!(has("R3:ana", "ana"));
        assert!(has("C12", "Count(12)"));
        assert!(has("O", "Online") && has("F", "Offline") && has("T", "Terminated"));
        for broken in ["", "X", "A", "A1 9:ana", "R3:anabel", "C-1", "Cx", "O1", "A1 1:é"] {
            assert_eq!(show(broken), None, "{broken:?}");
        }
    }

    /// RED-20
    #[test]
    fn log_ids_rise_as_the_log_does() {
        let id = |text| LogId::parse(text).expect("a log id");
        assert!(id("1700000000000-9") < id("1700000000000-10"));
        assert!(id("1700000000000-10") < id("1700000000001-0"));
        assert!(id("1700000000000-9") < id("1700000000000-10.0"));
        assert!(id("1700000000000-10.0") < id("1700000000000-10.1"));
        assert!(id("1700000000000-10.1") < id("1700000000000-10"), "the end of the entry");
        assert_eq!(id("1700000000000-10.3").to_string(), "1700000000000-10");
        assert_eq!(Message::with_id(b"5-1|C3"), Some((id("5-1"), b"C3".as_slice())));
        for broken in ["", "5", "5-", "-1", "x-1", "99999999999999999-1", "1-1.x"] {
            assert_eq!(LogId::parse(broken), None, "{broken:?}");
        }
    }
}
