//! What was missed of a group is read from its log, and what came meanwhile is told behind it.
//!
//! Where the log has not kept all of it, whoever may have missed something is told so: never silence.

use std::time::Duration;

use redis::Value;

use super::listen::Stage;
use super::{Driver, Purpose};
use crate::redis::envelope::LogId;
use crate::redis::link::{Ask, Lost, is_wrong_server};
use crate::redis::records::Told;
use crate::redis::scripts;
use crate::redis::store;

/// How much of the time that an entry seems to have lain in the log may be the difference of two servers' clocks: who appended it
/// may be another than who is asked. By so much what is read seems younger; better heard a second too old than missed.
const CLOCKS_MS: u64 = 1_000;
/// How far before the last position a log is read whose server is another: its clock may be behind.
const OTHER_SERVER_MS: u64 = 3_000;
/// Entries of the log looked at in one call.
const FILL_ENTRIES: usize = 256;
/// Topics up to which a fill names what it wants; beyond it everything is read.
const FILL_TOPICS_MAX: usize = 2_000;

/// What a share of the log shows of what it has kept.
struct Read {
    /// The entry that it was read from is there: so is whatever came after that.
    is_there: bool,
    /// It is read from where another share of the same reading ended.
    goes_on: bool,
    /// Entries that the log was ever given, and those it has.
    given: u64,
    kept: u64,
}

impl Read {
    /// Whether the log has everything that was not heard, where the first `counted` entries were. A log that was given fewer has lost
    /// its past: what it has lost nodes append again.
    fn has_all_since(&self, counted: Option<u64>) -> bool {
        self.is_there || (!self.goes_on && counted.is_none_or(|heard| self.given.saturating_sub(heard) <= self.kept))
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
            // Nothing was heard here before, so nothing can have been missed.
            None => self.heard_everything(group),
            Some(from) => {
                hearing.stage = Stage::Filling;
                hearing.fill_from = (from, false);
                self.ask_to_fill(group);
            }
        }
    }

    fn ask_to_fill(&mut self, group: usize) {
        let Some(facts) = self.groups[group].facts() else { return };
        let hearing = &self.groups[group].hearing;
        let mut command = scripts::FILL.call(&self.groups[group].keys, &facts);
        command.arg(&hearing.fill_from.0).arg(FILL_ENTRIES);
        if hearing.confirmed.len() <= FILL_TOPICS_MAX {
            for topic in &hearing.confirmed {
                command.arg(topic.as_str());
            }
            if hearing.confirmed.is_empty() {
                // No topics would mean all of them.
                command.arg("");
            }
        }
        let link = self.groups[group].command;
        if !self.ask(link, Purpose::Fill(group), Ask::Command(command)) {
            self.detach(group);
        }
    }

    pub(super) fn filled(&mut self, group: usize, outcome: Result<Value, Lost>) {
        if self.groups[group].hearing.stage != Stage::Filling {
            return;
        }
        let parts = match outcome {
            Ok(Value::Array(parts)) if parts.len() >= 6 => parts,
            Ok(Value::ServerError(error)) if error.code() == "NOSCRIPT" => {
                self.load_scripts(self.groups[group].command);
                return self.ask_to_fill(group);
            }
            Ok(Value::ServerError(error)) if is_wrong_server(error.code()) => {
                // What was missed is read from the server that is attached next.
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
        let text = |value: &Value| match value {
            Value::BulkString(text) => String::from_utf8(text.clone()).ok(),
            _ => None,
        };
        let number = |value: &Value| match value {
            Value::Int(number) => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        };
        let (server_ms, given) = (number(&parts[2]), number(&parts[4]));
        let hearing = &self.groups[group].hearing;
        let read =
            Read { is_there: number(&parts[3]) == 1, goes_on: hearing.fill_from.1, given, kept: number(&parts[5]) };
        if !read.has_all_since(hearing.counted) {
            self.missed(group);
            self.groups[group].hearing.counted = Some(given);
        }
        for entry in parts[6..].chunks_exact(3) {
            let (Some(id), Some(topic), Value::BulkString(message)) = (text(&entry[0]), text(&entry[1]), &entry[2])
            else {
                continue;
            };
            self.groups[group].hearing.filled += 1;
            let id = LogId::parse(&id);
            // The message says how old it was when it was appended.
            let lay_for = id.map_or(0, |id| server_ms.saturating_sub(id.ms() + CLOCKS_MS));
            self.hear(&topic, id, message, Duration::from_millis(lay_for));
        }
        match text(&parts[1]).filter(|last| !last.is_empty() && *last != self.groups[group].hearing.fill_from.0) {
            Some(last) => {
                self.groups[group].hearing.fill_from = (last, true);
                self.ask_to_fill(group);
            }
            None => self.heard_everything(group),
        }
    }

    /// The log is read: what came meanwhile is delivered behind it.
    pub(super) fn heard_everything(&mut self, group: usize) {
        let now = self.now();
        let this = &mut self.groups[group];
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
        let this = &mut self.groups[group];
        this.hearing.gaps += 1;
        let channels = self.hub.missed(&this.hearing.confirmed);
        tracing::warn!(
            group = this.name,
            channels,
            "the log has not kept all that was missed: subscribers are told to come back"
        );
    }

    /// A heartbeat said how many entries the log was ever given.
    pub(super) fn has_counted(&mut self, group: usize, given: Option<u64>) {
        let hearing = &mut self.groups[group].hearing;
        if hearing.stage == Stage::Ready {
            hearing.counted = given.or(hearing.counted);
        }
    }

    pub(super) fn deliver_held(&mut self, group: usize) {
        for (topic, id, message) in std::mem::take(&mut self.groups[group].hearing.held) {
            self.hear(topic.as_str(), Some(id), &message, Duration::ZERO);
            self.stands_at(group, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RED-20
    #[test]
    fn a_log_has_all_that_was_missed_if_it_has_as_many_entries_as_it_was_given_since() {
        let read = Read { is_there: false, goes_on: false, given: 1_300, kept: 200 };
        assert!(read.has_all_since(Some(1_100)));
        assert!(!read.has_all_since(Some(1_099)), "the first of them is gone");
        assert!(read.has_all_since(Some(1_300)), "however little it has kept, nothing came");
        assert!(read.has_all_since(Some(9_999)), "it was emptied, and is filled again by those who published");
        assert!(read.has_all_since(None), "nothing was heard here before");
        assert!(Read { is_there: true, ..read }.has_all_since(Some(0)));
    }

    /// RED-20
    #[test]
    fn a_reading_that_the_trimming_overtakes_has_lost_something() {
        let read = Read { is_there: false, goes_on: true, given: 1_300, kept: 1_000 };
        assert!(!read.has_all_since(Some(1_200)));
        assert!(Read { is_there: true, ..read }.has_all_since(Some(1_200)));
    }
}
