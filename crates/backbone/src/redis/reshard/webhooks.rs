//! What webhooks know of slots that move. Apps' servers were told who is there by whoever works the outbox of the old group; the
//! goings will lie in that of the new one. So the new outbox is told first what is announced, and the old one to forget it. A
//! going that may still be held back goes along, as the same event.
//!
//! Requests and other edges stay where they are: they are sent from there. A group is left only when nothing is left in it.

use std::collections::BTreeMap;
use std::time::Instant;

use redis::{Cmd, Value};

use super::group::Group;
use super::state::{Contents, one};
use super::{Mover, PAUSE, ReshardError, TOLD_MAX};
use crate::redis::keys::Keys;
use crate::redis::map::SlotMap;
use crate::redis::outbox::{ABSENT, PRESENT};
use crate::redis::topic::{OUTBOX_PARTS, Slot, Topic};

/// Entries of an outbox read in one call.
const STEP: usize = 500;

/// A topic, and the user whose presence there is announced.
type Place = (String, Option<String>);
/// The going that may be held back: what it is called, and the place of its entry.
type Going = Option<(String, String)>;

/// Something announced.
pub(super) struct Announced {
    topic: String,
    user: Option<String>,
    going: Going,
}

impl Announced {
    /// As entries of both outboxes.
    pub(super) fn put(&self, outbox: &str, contents: &mut Contents) {
        let since = self.going.as_ref().map(|(_, at)| at.as_str());
        self.entry(outbox, PRESENT, since, &mut contents.words);
        if let Some((what, at)) = &self.going {
            self.entry(outbox, what, Some(at), &mut contents.words);
        }
        self.entry(outbox, ABSENT, None, &mut contents.left);
    }

    fn entry(&self, outbox: &str, what: &str, at: Option<&str>, words: &mut Vec<Vec<u8>>) {
        let mut fields = vec!["w", what, "t", &self.topic];
        fields.extend(self.user.iter().flat_map(|user| ["u", user]));
        fields.extend(at.iter().flat_map(|at| ["g", at]));
        words.extend([b"e".to_vec(), outbox.as_bytes().to_vec(), fields.len().to_string().into_bytes()]);
        words.extend(fields.into_iter().map(|field| field.as_bytes().to_vec()));
    }
}

/// What one part's entries make of what is announced.
#[derive(Default)]
struct Replay(BTreeMap<Place, Going>);

impl Replay {
    /// A name under which a coming is kept, behind the letter that says what it is.
    fn kept(&mut self, name: &str) {
        let Some((_, name)) = name.split_at_checked(1) else { return };
        let (topic, user) = name.split_once('\n').map_or((name, None), |(topic, user)| (topic, Some(user)));
        self.0.insert((topic.to_owned(), user.map(str::to_owned)), None);
    }

    /// The next entry.
    fn take(&mut self, at: String, fields: &BTreeMap<String, Vec<u8>>) {
        let field = |name: &str| fields.get(name).and_then(|text| String::from_utf8(text.clone()).ok());
        let (Some(what), Some(topic)) = (field("w"), field("t")) else { return };
        let of = (topic, field("u"));
        match what.as_str() {
            "co" | "ma" | "uo" | PRESENT => _ = self.0.insert(of, None),
            "cv" | "mr" | "uf" => {
                let at = field("g").unwrap_or(at);
                self.0.entry(of).and_modify(|going| *going = Some((what, at)));
            }
            ABSENT => _ = self.0.remove(&of),
            _ => {}
        }
    }

    fn announced(self) -> impl Iterator<Item = Announced> {
        self.0.into_iter().map(|((topic, user), going)| Announced { topic, user, going })
    }
}

type Entries = Vec<(String, BTreeMap<String, Vec<u8>>)>;

/// What lies in an outbox. To be read before what is announced: its worker goes on meanwhile, and what it takes out of the one it
/// writes into the other in one step, so that a coming is in one of them at least, and one that has gone in neither.
async fn entries(group: &mut Group, outbox: &String) -> Result<Entries, ReshardError> {
    let (mut all, mut after) = (Entries::new(), "-".to_owned());
    loop {
        let mut range = one("XRANGE", outbox);
        range.arg(&after).arg("+").arg("COUNT").arg(STEP);
        let entries: Entries = group.ask(&range).await?;
        let count = entries.len();
        if let Some((at, _)) = entries.last() {
            after = format!("({at}");
        }
        all.extend(entries);
        if count < STEP {
            return Ok(all);
        }
    }
}

/// What is announced of these slots, or will be by what lies in the outbox; each with its slot's place. Not before they are
/// frozen.
pub(super) async fn announced(
    group: &mut Group,
    keys: &Keys,
    slots: &[u16],
) -> Result<Vec<(usize, Announced)>, ReshardError> {
    let mut parts: Vec<u16> = slots.iter().map(|slot| Slot(*slot).outbox_part()).collect();
    parts.sort_unstable();
    parts.dedup();
    let mut found = Vec::new();
    for part in parts {
        let mut replay = Replay::default();
        let entries = entries(group, &keys.outbox(part)).await?;
        let names: Vec<String> = group.ask(&one("HKEYS", &keys.announced(part))).await?;
        names.iter().for_each(|name| replay.kept(name));
        entries.into_iter().for_each(|(at, fields)| replay.take(at, &fields));
        for announced in replay.announced() {
            let slot = Topic::parse(&announced.topic).map(|topic| topic.slot().0);
            let at = slots.iter().position(|of| slot == Some(*of));
            found.extend(at.map(|at| (at, announced)));
        }
    }
    Ok(found)
}

impl Mover<'_> {
    /// Waits until no webhook is left in groups that are about to be left.
    pub(super) async fn await_webhooks(&mut self, map: &SlotMap) -> Result<(), ReshardError> {
        let (began, keys, next) = (Instant::now(), self.keys.clone(), map.ended());
        let left: Vec<String> = map.groups.iter().filter(|name| !next.groups.contains(name)).cloned().collect();
        for name in left {
            while has_webhooks(self.group(&name)?, &keys).await? {
                if began.elapsed() >= TOLD_MAX {
                    return Err(ReshardError::Webhooks(name));
                }
                self.renew(self.groups.len()).await?;
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}

async fn has_webhooks(group: &mut Group, keys: &Keys) -> Result<bool, ReshardError> {
    let sealed: Vec<Cmd> = (0..OUTBOX_PARTS).map(|part| one("HLEN", &keys.sealed(part))).collect();
    let sealed: Vec<u64> = group.ask_all(&sealed).await?;
    let first = |part| {
        let mut first = one("XRANGE", &keys.outbox(part));
        first.arg("-").arg("+").arg("COUNT").arg(1);
        first
    };
    let entries: Vec<Vec<Value>> = group.ask_all(&(0..OUTBOX_PARTS).map(first).collect::<Vec<_>>()).await?;
    Ok(sealed.iter().any(|count| *count > 0) || entries.iter().any(|entries| !entries.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::redis::outbox::tests::Server;
    use crate::redis::settings::{Settings, Topology};
    use crate::redis::topic::SLOTS;

    const PART: u16 = 3;

    /// RED-11, HOOK-42
    #[tokio::test]
    async fn whatever_the_outbox_is_through_with_meanwhile_nothing_is_overlooked_and_no_going_is_left_behind() {
        let server = Server::start();
        let settings = Settings::new("t", Topology::Single(server.address()));
        let keys = settings.keys("single");
        let mut group = Group::of_one_server(&server.address(), &settings).await;
        let of_part = |name: &'static str| {
            let topics = (0..).map(move |n| format!("1:{name}-{n}"));
            topics.filter(|topic| Topic::parse(topic).unwrap().slot().outbox_part() == PART).take(1_000)
        };
        let (come, go): (Vec<String>, Vec<String>) = (of_part("comes").collect(), of_part("goes").collect());
        let (outbox, announced_key) = (keys.outbox(PART), keys.announced(PART));
        let leave = |what: &str, topic: &str| {
            server.ask::<String>(&["XADD", &outbox, "*", "w", what, "t", topic]).unwrap();
        };
        for (came, went) in come.iter().zip(&go) {
            leave("co", came);
            server.ask::<i64>(&["HSET", &announced_key, &format!("c{went}"), "1"]).unwrap();
            leave("cv", went);
        }
        // Whoever works it writes what comes of an entry with the end of the entry.
        let worker = {
            let (server, outbox, announced_key) = (server.clone(), outbox.clone(), announced_key.clone());
            thread::spawn(move || {
                let through = "for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 20)) do \
                               local name = 'c' .. entry[2][4] \
                               redis.call('XDEL', KEYS[1], entry[1]) \
                               if entry[2][2] == 'co' then redis.call('HSET', KEYS[2], name, '1') \
                               else redis.call('HDEL', KEYS[2], name) end end";
                while server.ask::<i64>(&["XLEN", &outbox]).unwrap() > 0 {
                    server.ask::<Option<i64>>(&["EVAL", through, "2", &outbox, &announced_key]).unwrap();
                }
            })
        };
        let slots: Vec<u16> = (0..SLOTS).filter(|slot| Slot(*slot).outbox_part() == PART).collect();
        let mut looks = 0;
        while looks == 0 || !worker.is_finished() {
            let found = announced(&mut group, &keys, &slots).await.unwrap();
            let (came, going): (Vec<_>, Vec<_>) = found.iter().partition(|(_, of)| of.topic.starts_with("1:comes"));
            assert_eq!(came.len(), come.len(), "none is overlooked");
            assert!(going.iter().all(|(_, of)| of.going.is_some()), "whoever has gone is not announced");
            looks += 1;
        }
        worker.join().unwrap();
        assert!(looks > 1, "it was looked while it was worked");
    }

    /// RED-11, RED-32
    #[test]
    fn what_is_announced_goes_along_and_so_does_a_going_that_may_be_held() {
        let mut replay = Replay::default();
        ["c1:a", "c1:b", "m1:presence-c\nana", "u1::ana", ""].into_iter().for_each(|name| replay.kept(name));
        let mut entry = |at: &str, fields: &[(&str, &str)]| {
            let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
            replay.take(at.to_owned(), &fields.collect());
        };
        entry("5-0", &[("w", "cv"), ("t", "1:a")]);
        entry("6-0", &[("w", "co"), ("t", "1:new")]);
        entry("7-0", &[("w", "mr"), ("t", "1:presence-c"), ("u", "ana"), ("g", "3-0")]);
        entry("8-0", &[("w", "cv"), ("t", "1:never-announced")]);
        entry("9-0", &[("w", "pg"), ("t", "1::ana")]);
        let mut contents = Contents::default();
        replay.announced().for_each(|announced| announced.put("outbox", &mut contents));
        let text = |words: &[Vec<u8>]| String::from_utf8(words.join(&b' ')).expect("text");
        let there = "e outbox 6 w pa t 1:a g 5-0 e outbox 6 w cv t 1:a g 5-0 e outbox 4 w pa t 1:b e outbox 4 w pa t 1:new \
                     e outbox 8 w pa t 1:presence-c u ana g 3-0 e outbox 8 w mr t 1:presence-c u ana g 3-0";
        assert_eq!(text(&contents.words), there);
        let left =
            "e outbox 4 w pg t 1:a e outbox 4 w pg t 1:b e outbox 4 w pg t 1:new e outbox 6 w pg t 1:presence-c u ana";
        assert_eq!(text(&contents.left), left);
    }
}
