//! What lies in the outbox, as values: entries of its streams, and the names under which comings are kept.

use fulmar_protocol::app::AppId;
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::{ChannelName, SocketId, UserId};
use fulmar_protocol::webhook::{Change, Edge, Subject};

use crate::redis::topic::{About, Topic};

/// Bits of a generation that hold its counter.
const COUNTER_BITS: u32 = 20;

/// What an entry is called that says that something is announced already.
pub const PRESENT: &str = "pa";
/// The same, no longer.
pub const ABSENT: &str = "pg";

/// Place of an entry in its stream: milliseconds by the server's clock, and a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EntryId(pub u64, pub u64);

impl EntryId {
    /// Reads Redis's own text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, counter) = text.split_once('-')?;
        Some(Self(ms.parse().ok()?, counter.parse().ok()?))
    }

    /// As one number that rises as places do: the generation of an edge that lies where it was left first.
    #[must_use]
    pub fn generation(self) -> Option<u64> {
        Some(self.0.checked_shl(COUNTER_BITS)? | self.1.min((1 << COUNTER_BITS) - 1))
    }

    /// The place whose generation this is.
    #[must_use]
    pub fn of_generation(generation: u64) -> Self {
        Self(generation >> COUNTER_BITS, generation & ((1 << COUNTER_BITS) - 1))
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// An entry of the outbox.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place.
    pub at: EntryId,
    /// Identity of what comes of it. Of a coming or going it is made of what came or went and of the generation, so that
    /// an edge that has to be appended again keeps it; of a client's event, of the publication's identity; of anything else, of the
    /// place that it had first.
    pub id: u64,
    /// The place in the outbox that the edge had first: rises from edge to edge of one subject, by the clock of the store that it was in.
    pub generation: Option<u64>,
    /// Whether it had another place before, maybe in another store: it was appended again, or came with its slot.
    pub is_again: bool,
    /// What it says.
    pub what: What,
}

/// What an entry says.
#[derive(Debug, Clone)]
pub enum What {
    /// Something happened.
    Edge(Edge),
    /// A request that was given up is to be sent again: as it was kept.
    Again(Vec<u8>),
    /// This is announced by the work of another group, whose slot has come here; or no longer here, because it has gone.
    Known(AppId, Subject, bool),
    /// Nothing that this release understands.
    Unknown,
}

/// The fields of an entry, before they are understood.
#[derive(Default)]
struct Fields<'a> {
    what: &'a str,
    topic: &'a str,
    user: Option<&'a str>,
    count: Option<&'a str>,
    generation: Option<&'a str>,
    frame: Option<&'a str>,
    socket: Option<&'a str>,
    request: Option<&'a [u8]>,
    /// Of the publication that it was: what is appended again is the same event.
    identity: Option<&'a [u8]>,
}

impl Entry {
    /// Reads the fields of an entry of this stream of this group.
    #[must_use]
    pub fn read(at: EntryId, fields: &[Vec<u8>], identity: &str, part: u16) -> Self {
        let read = Fields::of(fields);
        // Without one it is the entry's own place: a coming and the next coming of a channel are two events, also where nothing
        // was said in the log between them.
        let own = at.to_string();
        let text = read.generation.unwrap_or(&own);
        let generation = EntryId::parse(text).and_then(EntryId::generation);
        let what = match (read.request, read.change()) {
            (Some(request), _) if read.what == "rp" => What::Again(request.to_vec()),
            (_, Some(edge)) => What::Edge(edge),
            _ => read.known().unwrap_or(What::Unknown),
        };
        let is_edge = matches!(&what, What::Edge(Edge { change: Change::Came(_) | Change::Went(_), .. }));
        let id = if is_edge {
            hash(&[read.what, read.topic, read.user.unwrap_or_default(), text])
        } else if let Some(identity) = read.identity {
            let identity: String = identity.iter().map(|byte| format!("{byte:02x}")).collect();
            hash(&[read.what, read.topic, &identity])
        } else {
            hash(&[identity, &part.to_string(), text])
        };
        Self { at, id, generation, is_again: read.generation.is_some(), what }
    }
}

impl<'a> Fields<'a> {
    fn of(fields: &'a [Vec<u8>]) -> Self {
        let mut read = Self::default();
        for pair in fields.chunks_exact(2) {
            let text = std::str::from_utf8(&pair[1]);
            match (&pair[0][..], text) {
                (b"w", Ok(text)) => read.what = text,
                (b"t", Ok(text)) => read.topic = text,
                (b"u", Ok(text)) => read.user = Some(text),
                (b"n", Ok(text)) => read.count = Some(text),
                (b"g", Ok(text)) => read.generation = Some(text),
                (b"f", Ok(text)) => read.frame = Some(text),
                (b"s", Ok(text)) => read.socket = Some(text),
                (b"j", _) => read.request = Some(&pair[1]),
                (b"i", _) => read.identity = Some(&pair[1]),
                _ => {}
            }
        }
        read
    }

    fn known(&self) -> Option<What> {
        let is_there = match self.what {
            PRESENT => true,
            ABSENT => false,
            _ => return None,
        };
        let (app, subject) = match (Topic::parse(self.topic)?.about(), self.user) {
            (About::User(app, user), _) => (app, Subject::User(user)),
            (About::Channel(app, channel), Some(member)) => (app, Subject::Member(channel, user(member)?)),
            (About::Channel(app, channel), None) => (app, Subject::Channel(channel)),
        };
        Some(What::Known(app, subject, is_there))
    }

    fn change(&self) -> Option<Edge> {
        let came = |subject| Some(Change::Came(subject));
        let went = |subject| Some(Change::Went(subject));
        let (app, change) = match Topic::parse(self.topic)?.about() {
            About::User(app, user) => (
                app,
                match self.what {
                    "uo" => came(Subject::User(user)),
                    "uf" => went(Subject::User(user)),
                    _ => None,
                },
            ),
            About::Channel(app, channel) => (
                app,
                match self.what {
                    "co" => came(Subject::Channel(channel)),
                    "cv" => went(Subject::Channel(channel)),
                    "ma" => came(Subject::Member(channel, user(self.user?)?)),
                    "mr" => went(Subject::Member(channel, user(self.user?)?)),
                    "sc" => Some(Change::Counted(channel, self.count?.parse().ok()?)),
                    "cm" => Some(Change::CacheMissed(channel)),
                    "ce" => {
                        let socket_id = SocketId::parse(self.socket?).ok().flatten()?;
                        Some(Change::ClientSaid { channel, frame: Frame::new(self.frame?), socket_id })
                    }
                    _ => None,
                },
            ),
        };
        Some(Edge { app, change: change? })
    }
}

fn user(text: &str) -> Option<UserId> {
    UserId::parse(text, text.len()).ok()
}

/// Sixty-four bits of a hash over texts. Two events of a deployment share one with the chance of 2^-64.
pub(super) fn hash(texts: &[&str]) -> u64 {
    let bytes = sha1_smol::Sha1::from(texts.join("\n")).digest().bytes();
    u64::from_be_bytes(bytes[..8].try_into().expect("twenty bytes"))
}

/// The name under which a coming is kept.
pub(super) fn place(app: &AppId, subject: &Subject) -> String {
    match subject {
        Subject::Channel(channel) => format!("c{}", Topic::channel(app, channel).as_str()),
        Subject::Member(channel, user) => format!("m{}\n{}", Topic::channel(app, channel).as_str(), user.as_str()),
        Subject::User(user) => format!("u{}", Topic::user(app, user).as_str()),
    }
}

/// What is kept under a name; `None` for what no release of ours wrote.
pub(super) fn subject(name: &str) -> Option<(AppId, Subject)> {
    let (kind, rest) = name.split_at_checked(1)?;
    let (topic, member) = match rest.split_once('\n') {
        Some((topic, member)) if kind == "m" => (topic, Some(member)),
        _ => (rest, None),
    };
    let of_channel = |channel: ChannelName| match (kind, member) {
        ("c", None) => Some(Subject::Channel(channel)),
        ("m", Some(member)) => Some(Subject::Member(channel, user(member)?)),
        _ => None,
    };
    match Topic::parse(topic)?.about() {
        About::Channel(app, channel) => Some((app, of_channel(channel)?)),
        About::User(app, user) => (kind == "u").then_some((app, Subject::User(user))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[&str]) -> Entry {
        let fields: Vec<Vec<u8>> = fields.iter().map(|text| text.as_bytes().to_vec()).collect();
        Entry::read(EntryId(5, 1), &fields, "d/g", 3)
    }

    /// RED-32
    #[test]
    fn what_scripts_append_is_understood() {
        for (fields, expected) in [
            (vec!["w", "co", "t", "1:room", "g", "7-0"], "Came(Channel("),
            (vec!["w", "cv", "t", "1:room", "g", "7-0"], "Went(Channel("),
            (vec!["w", "ma", "t", "1:presence-a", "u", "ana", "g", "7-0"], "Came(Member("),
            (vec!["w", "mr", "t", "1:presence-a", "u", "ana", "g", "7-0"], "Went(Member("),
            (vec!["w", "uo", "t", "1::ana", "g", "7-0"], "Came(User("),
            (vec!["w", "uf", "t", "1::ana", "g", "7-0"], "Went(User("),
            (vec!["w", "sc", "t", "1:room", "n", "12", "g", "7-0"], "Counted("),
            (vec!["w", "cm", "t", "1:cache-a", "g", "7-0"], "CacheMissed("),
            (vec!["w", "ce", "t", "1:private-a", "f", "{}", "s", "1.2"], "ClientSaid"),
        ] {
            let shown = format!("{:?}", read(&fields).what);
            assert!(shown.contains(expected), "{fields:?}: {shown}");
        }
        for fields in [
            vec![],
            vec!["w", "co"],
            vec!["w", "co", "t", "1::ana"],
            vec!["w", "ma", "t", "1:presence-a"],
            vec!["w", "sc", "t", "1:room", "n", "many"],
            vec!["w", "ce", "t", "1:a", "f", "{}"],
            vec!["w", "zz", "t", "1:room"],
        ] {
            assert!(matches!(read(&fields).what, What::Unknown), "{fields:?}");
        }
        assert!(matches!(read(&["w", "rp", "j", "{}"]).what, What::Again(request) if request == b"{}"));
    }

    /// RED-11, RED-32
    #[test]
    fn what_moves_to_another_group_says_what_is_announced_and_a_going_on_its_way_stays_the_same_event() {
        let known = |fields: &[&str]| format!("{:?}", read(fields).what);
        assert!(
            known(&["w", PRESENT, "t", "1:room", "g", "7-0"]).contains("Channel(")
                && known(&["w", ABSENT, "t", "1::ana"]).contains("User(")
        );
        assert!(known(&["w", ABSENT, "t", "1:presence-a", "u", "ana"]).ends_with("false)"));
        assert!(matches!(read(&["w", PRESENT]).what, What::Unknown));
        let there = read(&["w", "cv", "t", "1:room"]);
        let here = Entry::read(
            EntryId(99, 0),
            &["w", "cv", "t", "1:room", "g", "5-1"].map(|t| t.as_bytes().to_vec()),
            "d/h",
            3,
        );
        assert_eq!((there.id, there.generation), (here.id, here.generation));
    }

    /// RED-32: what scripts append names no generation.
    #[test]
    fn a_channel_that_is_occupied_twice_makes_two_events() {
        let fields: Vec<Vec<u8>> = ["w", "co", "t", "1:room"].map(|t| t.as_bytes().to_vec()).to_vec();
        let [first, second] = [EntryId(5, 1), EntryId(5, 2)].map(|at| Entry::read(at, &fields, "d/g", 3));
        assert_ne!(first.id, second.id);
        assert!(first.generation < second.generation && first.generation.is_some());
    }

    /// RED-25, RED-32
    #[test]
    fn what_is_appended_again_keeps_its_identity() {
        let fields: Vec<Vec<u8>> = ["w", "co", "t", "1:room", "g", "7-0"].map(|t| t.as_bytes().to_vec()).to_vec();
        let id = |at, fields: &[Vec<u8>]| Entry::read(at, fields, "d/g", 3).id;
        assert_eq!(id(EntryId(1, 1), &fields), id(EntryId(2, 1), &fields));
        assert_ne!(id(EntryId(1, 1), &fields), read(&["w", "cv", "t", "1:room", "g", "7-0"]).id);
        assert_ne!(id(EntryId(1, 1), &fields), read(&["w", "co", "t", "1:room", "g", "7-1"]).id);
        let said: Vec<Vec<u8>> =
            ["w", "ce", "t", "1:private-a", "f", "{}", "i", "0123456789abcdef", "s", "1.2"].map(Vec::from).to_vec();
        assert_eq!(id(EntryId(1, 1), &said), id(EntryId(2, 1), &said));
        let miss: Vec<Vec<u8>> = ["w", "cm", "t", "1:cache-a"].map(|t| t.as_bytes().to_vec()).to_vec();
        assert_ne!(id(EntryId(1, 1), &miss), id(EntryId(2, 1), &miss));
        let again = [&miss[..], &[b"g".to_vec(), b"1-1".to_vec()]].concat();
        assert_eq!(id(EntryId(1, 1), &miss), id(EntryId(9, 1), &again));
        let generation = |text: &str| EntryId::parse(text).and_then(EntryId::generation);
        assert!(generation("7-9") < generation("7-10") && generation("7-10") < generation("8-0"));
    }

    /// RED-32
    #[test]
    fn names_of_comings_are_read_back() {
        let channel = ChannelName::parse("presence-a", 200).unwrap();
        let odd = UserId::parse("a b:c", 200).unwrap();
        for of in [Subject::Channel(channel.clone()), Subject::Member(channel, odd.clone()), Subject::User(odd)] {
            let app = AppId::new("7");
            assert_eq!(subject(&place(&app, &of)), Some((app, of)));
        }
        for broken in ["", "c", "c7", "x7:room", "m7:room", "u7:room", "c7::ana"] {
            assert_eq!(subject(broken), None, "{broken:?}");
        }
    }
}
