//! What was missed of a group is read from its log, and what came meanwhile is told behind it.
//!
//! Where the log has not kept all of it, whoever may have missed something is told so: never silence.

use std::time::Duration;

use redis::Value;

use super::listen::Stage;
use super::{Driver, Purpose};
use crate::redis::envelope::{LogId, Message};
use crate::redis::link::{Ask, Lost, is_wrong_server};
use crate::redis::records::Told;
use crate::redis::scripts;
use crate::redis::store;
use crate::redis::store::values::{count, text};
use crate::redis::topic::Topic;

/// How much of the time that an entry seems to have lain in the log may be the difference of two servers' clocks: who appended it
/// may be another than who is asked. By so much what is read seems younger; better heard a second too old than missed.
const CLOCKS_MS: u64 = 1_000;
/// How far before the last position a log is read whose server is another: its clock may be behind.
const OTHER_SERVER_MS: u64 = 3_000;
/// Entries of the log looked at in one call.
const FILL_ENTRIES: usize = 256;
/// Bytes of them, about: no call keeps the server from others for long, however large messages are.
const FILL_BYTES: usize = 1 << 20;
/// Topics up to which a fill names what it wants; beyond it everything is read.
const FILL_TOPICS_MAX: usize = 2_000;

/// How many entries a log was ever given, under an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    given: u64,
    epoch: u64,
}

impl Counted {
    /// Reads `GIVEN EPOCH`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (given, epoch) = text.split_once(' ')?;
        Some(Self { given: given.parse().ok()?, epoch: epoch.parse().ok()? })
    }
}

/// What a share of the log shows of what it has kept.
#[derive(Debug, Clone, Copy)]
struct Share {
    /// The entry that it was read from is there: so is whatever came after that.
    is_there: bool,
    /// It is read from where another share of the same reading ended.
    goes_on: bool,
    /// What the log was ever given.
    now: Counted,
    /// Entries that it has.
    kept: u64,
    /// What it had been given when the present epoch began.
    began: u64,
}

impl Share {
    /// Whether the log has everything that was not heard. Under another epoch its history may be another from where that began.
    fn has_all_since(&self, counted: Option<Counted>) -> bool {
        let heard = counted.map(|of| if of.epoch == self.now.epoch { of.given } else { of.given.min(self.began) });
        let is_kept = |heard: u64| self.now.given.saturating_sub(heard) <= self.kept;
        self.is_there || (!self.goes_on && heard.is_none_or(is_kept))
    }
}

/// Up to where what the log shows was heard already, by a node whose last place is `position`, on this server or another. Under the next
/// epoch both have one history until that began; of any other nothing is known.
fn heard_already(position: Option<(LogId, bool)>, counted: Option<Counted>, epoch: u64, began_at: LogId) -> LogId {
    match (position, counted) {
        (Some((at, true)), Some(of)) if of.epoch == epoch => at,
        (Some((at, _)), Some(of)) if of.epoch + 1 == epoch => at.min(began_at),
        _ => LogId::default(),
    }
}

impl Driver {
    pub(super) fn start_filling(&mut self, group: usize) {
        let this = &mut self.groups[group];
        let hearing = &mut this.hearing;
        let from = match (&hearing.position, &hearing.run) {
            (None, _) | (_, None) => None,
            (Some((of, at)), Some(run)) if of == run => Some(at.to_string()),
            (Some((_, at)), Some(_)) => Some(format!("{}-0", at.ms().saturating_sub(OTHER_SERVER_MS))),
        };
        match from {
            // Nothing was followed here before, so nothing can have been missed.
            None => self.heard_everything(group),
            Some(from) => {
                hearing.stage = Stage::Filling;
                hearing.fill_from = (from, false);
                hearing.reading += 1;
                self.ask_to_fill(group);
            }
        }
    }

    fn ask_to_fill(&mut self, group: usize) {
        let Some(facts) = self.groups[group].facts() else { return };
        let hearing = &self.groups[group].hearing;
        let mut command = scripts::FILL.call(&self.groups[group].keys, &facts);
        command.arg(&hearing.fill_from.0).arg(FILL_ENTRIES).arg(FILL_BYTES);
        if hearing.confirmed.len() <= FILL_TOPICS_MAX {
            for topic in &hearing.confirmed {
                command.arg(topic.as_str());
            }
            if hearing.confirmed.is_empty() {
                // No topics would mean all of them.
                command.arg("");
            }
        }
        let (link, reading) = (self.groups[group].command, hearing.reading);
        if !self.ask(link, Purpose::Fill { group, reading }, Ask::Command(command)) {
            self.detach(group);
        }
    }

    pub(super) fn filled(&mut self, group: usize, reading: u64, outcome: Result<Value, Lost>) {
        let hearing = &self.groups[group].hearing;
        if hearing.stage != Stage::Filling || hearing.reading != reading {
            return;
        }
        let parts = match outcome {
            Ok(Value::Array(parts)) if parts.len() >= 8 => parts,
            Ok(Value::ServerError(error)) if error.code() == "NOSCRIPT" => {
                self.load_scripts(self.groups[group].command);
                return self.ask_to_fill(group);
            }
            Ok(Value::ServerError(error)) if is_wrong_server(error.code()) || error.code() == "BUSY" => {
                // What was missed is read from the server that is attached next, or from this one when it has time.
                self.groups[group].hearing.stage = Stage::Away;
                return self.distrust(group, error.code());
            }
            Ok(other) => {
                let now = self.now();
                self.groups[group].complain(now, &format!("the log cannot be read: {other:?}"));
                self.missed(group);
                return self.heard_everything(group);
            }
            // The next connection begins anew.
            Err(Lost) => return,
        };
        let now = Counted { given: count(parts.get(4)), epoch: count(parts.first()) };
        let began_at = text(&parts[7]).and_then(|at| LogId::parse(&at)).unwrap_or_default();
        let hearing = &mut self.groups[group].hearing;
        if !hearing.fill_from.1 {
            let position = hearing.position.as_ref().map(|(of, at)| (*at, hearing.run.as_ref() == Some(of)));
            hearing.fill_heard = heard_already(position, hearing.counted, now.epoch, began_at);
        }
        if !self.accept_share(group, now, &parts) {
            return self.ask_to_fill(group);
        }
        let server_ms = count(parts.get(2));
        for entry in parts[8..].chunks_exact(3) {
            let id = text(&entry[0]).and_then(|id| LogId::parse(&id));
            let (Some(id), Some(topic), Value::BulkString(message)) = (id, text(&entry[1]), &entry[2]) else {
                continue;
            };
            // Publications are known by their identities, and some wait for others.
            if id <= self.groups[group].hearing.fill_heard && !Message::is_event(message) {
                continue;
            }
            self.groups[group].hearing.filled += 1;
            // The message says how old it was when it was appended.
            let lay_for = server_ms.saturating_sub(id.ms() + CLOCKS_MS);
            self.hear(&topic, Some((group, id)), message, Duration::from_millis(lay_for));
        }
        match text(&parts[1]).filter(|last| !last.is_empty() && *last != self.groups[group].hearing.fill_from.0) {
            Some(last) => {
                self.groups[group].hearing.fill_from = (last, true);
                self.ask_to_fill(group);
            }
            None => {
                self.groups[group].hearing.counted = Some(now);
                self.heard_everything(group);
            }
        }
    }

    /// Judges a share by what the log has kept. False when it is to be read from further back: under another epoch the log is read from
    /// where that began, if this node has followed another history beyond.
    fn accept_share(&mut self, group: usize, now: Counted, parts: &[Value]) -> bool {
        let hearing = &mut self.groups[group].hearing;
        let (from, goes_on) = hearing.fill_from.clone();
        let share = Share {
            is_there: count(parts.get(3)) == 1,
            goes_on,
            now,
            kept: count(parts.get(5)),
            began: count(parts.get(6)),
        };
        let counted = hearing.counted.filter(|of| !goes_on && of.epoch < share.now.epoch);
        let is_before =
            |at: &String| LogId::parse(at).is_some_and(|at| LogId::parse(&from).is_some_and(|from| at < from));
        if let Some((counted, began_at)) = counted.zip(text(&parts[7]).filter(is_before)) {
            // Not only where this reading goes on, but what was heard for certain: so it stays should the reading be cut short.
            hearing.position = hearing.run.clone().zip(LogId::parse(&began_at));
            hearing.fill_from = (began_at, false);
            hearing.counted = Some(Counted { given: counted.given.min(share.began), epoch: share.now.epoch });
            return false;
        }
        if !share.has_all_since(hearing.counted) {
            self.missed(group);
            // Who was told of a gap is not told of it again.
            self.groups[group].hearing.counted = Some(now);
        }
        true
    }

    /// The log is read: what came meanwhile is delivered behind it.
    pub(super) fn heard_everything(&mut self, group: usize) {
        let now = self.now();
        let this = &mut self.groups[group];
        this.hearing.begin_at_head();
        this.hearing.stage = Stage::Ready;
        this.hearing.was_ready = true;
        this.hearing.deaf_since = None;
        this.hearing.heard_at = now;
        self.deliver_held(group);
        // A notice of damage may have been among what was not heard.
        self.stored(group, vec![store::Out::Told(Told::Doubtful(None))]);
    }

    /// The log has not kept all that was not heard: who may have missed something comes back, and reads anew how things stand.
    fn missed(&mut self, group: usize) {
        self.groups[group].hearing.gaps += 1;
        let topics: Vec<Topic> = self.groups[group].hearing.confirmed.iter().cloned().collect();
        let channels = self.tell_missed(&topics);
        let group = &self.groups[group].name;
        tracing::warn!(group, channels, "the log has not kept all that was missed: subscribers are told to come back");
    }

    fn tell_missed(&mut self, topics: &[Topic]) -> usize {
        let moment = self.moment();
        let mut outs = std::mem::take(&mut self.outs);
        let channels = self.hub.missed(moment, topics, &mut outs);
        self.outs = outs;
        channels
    }

    /// A topic has moved from a group that this node has not heard for a while, and is not read there any more.
    pub(super) fn leave_unread(&mut self, group: usize, topic: &Topic) {
        if self.groups[group].hearing.was_ready && !self.hears(group) {
            self.tell_missed(std::slice::from_ref(topic));
        }
    }

    /// A heartbeat said how many entries the log was ever given.
    pub(super) fn has_counted(&mut self, group: usize, counted: Counted) {
        let now = self.now();
        let hearing = &mut self.groups[group].hearing;
        if hearing.stage == Stage::Ready {
            (hearing.counted, hearing.counted_at) = (Some(counted), now);
        }
    }

    pub(super) fn deliver_held(&mut self, group: usize) {
        for (topic, id, message) in std::mem::take(&mut self.groups[group].hearing.held) {
            self.hear(topic.as_str(), Some((group, id)), &message, Duration::ZERO);
            self.stands_at(group, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Share =
        Share { is_there: false, goes_on: false, now: Counted { given: 1_300, epoch: 3 }, kept: 200, began: 1_000 };

    fn counted(given: u64, epoch: u64) -> Option<Counted> {
        Some(Counted { given, epoch })
    }

    /// RED-20
    #[test]
    fn a_log_has_all_that_was_missed_if_it_has_as_many_entries_as_it_was_given_since() {
        assert!(SHARE.has_all_since(counted(1_100, 3)));
        assert!(!SHARE.has_all_since(counted(1_099, 3)), "the first of them is gone");
        assert!(SHARE.has_all_since(counted(1_300, 3)), "however little it has kept, nothing came");
        assert!(SHARE.has_all_since(None), "nothing was heard here before");
        assert!(Share { is_there: true, ..SHARE }.has_all_since(counted(0, 3)));
    }

    /// RED-20
    #[test]
    fn under_another_epoch_what_was_heard_counts_up_to_where_that_began() {
        assert!(!SHARE.has_all_since(counted(1_290, 2)), "the last 290 were heard of another history");
        assert!(Share { kept: 300, ..SHARE }.has_all_since(counted(1_290, 2)));
        let emptied = Share { now: Counted { given: 150, epoch: 4 }, kept: 150, began: 0, ..SHARE };
        assert!(emptied.has_all_since(counted(9_999, 3)), "it was emptied, and has kept what it was given since");
        assert!(!Share { kept: 100, ..emptied }.has_all_since(counted(9_999, 3)));
    }

    /// RED-20
    #[test]
    fn a_reading_that_the_trimming_overtakes_has_lost_something() {
        let share = Share { goes_on: true, kept: 1_000, ..SHARE };
        assert!(!share.has_all_since(counted(1_200, 3)));
        assert!(Share { is_there: true, ..share }.has_all_since(counted(1_200, 3)));
    }

    /// RED-20
    #[test]
    fn what_was_heard_is_known_as_far_as_both_histories_are_one() {
        let at = |ms| LogId::new(ms, 0);
        let heard = |position, counted, epoch, began| heard_already(position, counted, epoch, at(began));
        assert_eq!(heard(Some((at(70), true)), counted(9, 3), 3, 10), at(70));
        assert_eq!(heard(Some((at(70), false)), counted(9, 2), 3, 50), at(50), "it went on otherwise from there");
        assert_eq!(heard(Some((at(70), false)), counted(9, 2), 3, 90), at(70), "the rest was not heard");
        assert_eq!(heard(Some((at(70), true)), counted(9, 2), 3, 0), at(0), "it was emptied");
        let none = LogId::default();
        assert_eq!(heard(Some((at(70), false)), counted(9, 3), 3, 90), none, "a reading was broken off behind a gap");
        assert_eq!(heard(Some((at(70), false)), counted(9, 1), 3, 90), none);
        assert_eq!(heard(Some((at(70), false)), None, 3, 90), none);
        assert_eq!(heard(None, counted(9, 3), 3, 90), none);
    }

    #[test]
    fn a_count_is_read_as_it_is_written() {
        assert_eq!(Counted::parse("17 3"), counted(17, 3));
        assert!(["", "17", "17 ", "x 3", "17 3 1"].iter().all(|text| Counted::parse(text).is_none()));
    }
}
