//! What servers of a Redis Cluster say about who has which slot of the product's, read; and in which of them a name lies. Pure.
//!
//! Not to be confused with the slots of [`super::topic`]: a share of the deployment has one tag in all its names, the tag lies in
//! one of the product's 16,384 slots, and whoever owns that slot is the primary of the share.

use std::time::Duration;

/// Slots of a Redis Cluster.
const SLOTS: u16 = 16_384;

/// Who owns a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The server's address.
    pub address: String,
    /// The configuration under which it got the slot: the higher one is right.
    pub epoch: u64,
}

/// What one server says of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// The address by which others know the server that was asked.
    pub own: String,
    /// Whose replica it is, by its own word.
    pub of: Option<String>,
    /// All servers that are not given up.
    pub servers: Vec<String>,
    /// The owner of each slot that was asked for.
    pub owners: Vec<Option<Owner>>,
    /// When it said so.
    pub seen_at: Duration,
}

/// The slot in which a name lies whose part in braces is `tag`.
#[must_use]
pub fn slot_of(tag: &str) -> u16 {
    let step = |crc: u16, byte: u8| {
        let shift = |crc: u16, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        (0..8).fold(crc ^ (u16::from(byte) << 8), shift)
    };
    tag.bytes().fold(0, step) % SLOTS
}

/// One server's line.
struct Line<'a> {
    id: &'a str,
    address: String,
    flags: Vec<&'a str>,
    of: &'a str,
    epoch: u64,
    ranges: Vec<(u16, u16)>,
}

impl<'a> Line<'a> {
    fn read(text: &'a str, asked: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (id, place, flags, of) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let epoch = words.nth(2)?.parse().ok()?;
        let flags: Vec<&str> = flags.split(',').collect();
        let (host, port) = place.split('@').next()?.rsplit_once(':')?;
        let address = match host {
            // It has not been told yet how others reach it.
            "" if flags.contains(&"myself") => asked.to_owned(),
            "" => return None,
            host if host.contains(':') => format!("[{host}]:{port}"),
            host => format!("{host}:{port}"),
        };
        let is_none = port == "0" || flags.contains(&"noaddr") || flags.contains(&"handshake");
        let range = |word: &str| {
            let (from, to) = word.split_once('-').unwrap_or((word, word));
            Some((from.parse().ok()?, to.parse().ok()?))
        };
        // Slots on the move stand in brackets beside those that are owned.
        let ranges = words.skip(1).filter_map(range).collect();
        (!is_none).then_some(Self { id, address, flags, of, epoch, ranges })
    }
}

/// Reads the answer to `CLUSTER NODES` of the server at the address `asked`; `None` when it is none.
#[must_use]
pub fn read(text: &str, asked: &str, slots: &[u16], now: Duration) -> Option<Sight> {
    let lines: Vec<Line<'_>> = text.lines().filter_map(|line| Line::read(line, asked)).collect();
    let own = lines.iter().find(|line| line.flags.contains(&"myself"))?;
    let of = lines.iter().find(|line| line.id == own.of).map(|line| line.address.clone());
    let owner = |slot: &u16| {
        let has = |line: &&Line<'_>| line.ranges.iter().any(|(from, to)| from <= slot && slot <= to);
        lines.iter().find(has).map(|line| Owner { address: line.address.clone(), epoch: line.epoch })
    };
    let is_there = |line: &&Line<'_>| !line.flags.contains(&"fail");
    Some(Sight {
        own: own.address.clone(),
        of,
        servers: lines.iter().filter(is_there).map(|line| line.address.clone()).collect(),
        owners: slots.iter().map(owner).collect(),
        seen_at: now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(7);
    const SAID: &str = "\
07c3 127.0.0.1:30004@31004 slave 67ed 0 1426238317239 4 connected
67ed 127.0.0.1:30002@31002,host-2 master,fail? - 0 1426238316232 2 connected 5461-10922
2929 ::1:30003@31003 master - 0 1426238318243 3 connected 10923-16383
6ec2 :0@0 master,noaddr - 0 1426238316232 9 disconnected 7
824f 127.0.0.1:30005@31005 slave,fail 2929 0 1426238316232 5 disconnected
e7d1 :30001@31001 myself,master - 0 0 1 connected 0-5459 5460 [93-<-67ed]
";

    /// RED-33
    #[test]
    fn names_lie_where_redis_cluster_has_them() {
        for (tag, slot) in [("123456789", 0x31c3), ("foo", 12_182), ("user1000", 3_443), ("", 0)] {
            assert_eq!(slot_of(tag), slot, "{tag}");
        }
    }

    /// RED-34
    #[test]
    fn what_a_server_says_of_all_is_read() {
        let sight = read(SAID, "seed:30001", &[93, 5_460, 6_000, 16_383], NOW).unwrap();
        let owners: Vec<_> = sight.owners.iter().flatten().map(|owner| (owner.address.as_str(), owner.epoch)).collect();
        assert_eq!(owners, [("seed:30001", 1), ("seed:30001", 1), ("127.0.0.1:30002", 2), ("[::1]:30003", 3)]);
        assert_eq!((sight.own.as_str(), sight.of), ("seed:30001", None));
        assert_eq!(sight.servers, ["127.0.0.1:30004", "127.0.0.1:30002", "[::1]:30003", "seed:30001"]);
        let replica = SAID.replace("myself,", "").replace("30004@31004 slave", "30004@31004 myself,slave");
        assert_eq!(read(&replica, "a:1", &[], NOW).unwrap().of.as_deref(), Some("127.0.0.1:30002"));
    }

    /// RED-34
    #[test]
    fn what_is_no_sight_names_nobody() {
        assert_eq!(read("", "a:1", &[1], NOW), None);
        assert_eq!(read("ERR This instance has cluster support disabled", "a:1", &[1], NOW), None);
        assert_eq!(read(SAID, "a:1", &[], NOW).unwrap().owners, []);
    }
}
