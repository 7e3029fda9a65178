//! Holds a group to the truth (rules 26 and 29): what it has of this node's records is read with plain commands, compared in
//! full, and made right without an edge.
//!
//! A pass looks at every slot, in chunks, and at the members of every presence channel. Topics that are just being changed are
//! left to the change; but a change puts right its own user alone, so where there is a reason to hurry the members of such a channel are
//! looked at again before the pass is over, and only where it goes on being changed left to the next one. When all is compared and mended, the node says so in the group ("settled"), so that
//! readers know when absence means something. A pass is paced to a share of the server's time, except where there is a reason
//! to hurry: a new primary, or damage that somebody found.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fulmar_protocol::name::UserId;
use hashbrown::{HashMap, HashSet};
use redis::Value;

use super::super::topic::{SLOTS, Slot, Topic};
use super::truth::{Record, Truth, presence_text};
use super::values::pairs;

/// From the beginning of one pass to that of the next, where its share of the server's time allows it.
const PERIOD: Duration = Duration::from_secs(2);
/// The same where there is a reason to hurry.
const PERIOD_HURRIED: Duration = Duration::from_millis(250);
/// How often the members of channels that are just being changed are looked at again in a pass, and after which pause.
const BUSY_AGAIN_MAX: u32 = 4;
const BUSY_AGAIN: Duration = Duration::from_millis(50);
/// One in so many parts of the server's time is for all nodes' audits together.
const ONE_IN: u32 = 20;
/// What a step costs at least, however fast it was answered.
const COST_MIN: Duration = Duration::from_micros(20);
/// Fields read in one chunk, and commands: both keep it below a millisecond.
const FIELDS_MAX: usize = 1_000;
const LOOKS_MAX: usize = 128;
/// Members and topics written in one call.
const MENDED_MAX: usize = 400;
/// Damaged topics that other nodes are told of one by one; beyond it they are told once, of all.
pub const TOLD_MAX: usize = 16;
/// What reading one field or key takes at most, on a slow and busy server. An answer that took longer was waiting for something
/// else: for that the audit need not pause, or one hiccup would let damage stand.
const READ_MAX: Duration = Duration::from_micros(4);
/// Longest pause between two chunks, whatever the share.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// One thing to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// The number of damages found so far.
    Damages,
    /// This node's records in a slot.
    Records(Slot),
    /// This node's members of a channel.
    Members(Topic),
}

/// One topic to be made right.
#[derive(Debug, Clone)]
pub struct Mend {
    pub slot: Slot,
    /// Its text, which may be anything; empty where the key of the slot itself is unsound.
    pub text: Vec<u8>,
    /// Where the text is a topic's.
    pub topic: Option<Topic>,
    /// The record; empty where there is none.
    pub record: String,
    /// Users to be deleted.
    pub gone: Vec<Vec<u8>>,
    /// Users to be written.
    pub here: Vec<(UserId, String)>,
}

/// What a pass has to write.
#[derive(Debug)]
pub enum Upkeep {
    /// These, and whether other nodes are told of each.
    Mend(Vec<Mend>, bool),
    /// All is compared.
    Settle(Settle),
}

/// The end of a pass.
#[derive(Debug)]
pub struct Settle {
    /// Damages known when it began.
    pub damages: String,
    /// Whether it found another.
    pub has_found: bool,
    /// Whether others must look at everything.
    pub is_told: bool,
}

#[derive(Debug)]
struct Pass {
    /// Next slot to be listed.
    slot: u16,
    looks: VecDeque<Look>,
    /// Channels whose members were being changed when they were read, and how often such are looked at again.
    busy: Vec<Topic>,
    busy_again: u32,
    /// Fields in the chunk that was sent last, about.
    fields: usize,
    damages: String,
    mends: VecDeque<Mend>,
    /// Topics found wrong.
    wrong: usize,
    is_hurried: bool,
    /// A chunk is on its way.
    is_reading: bool,
    is_settling: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Audit {
    pass: Option<Pass>,
    /// When the next pass or chunk may begin.
    due: Instant,
    began: Instant,
    /// Somebody found damage: another pass, soon.
    is_wanted: bool,
    /// Topics whose changes were queued or answered since the last chunk was sent.
    touched: HashSet<Topic>,
    /// What a chunk takes when the server has nothing else to do and there is nothing in it.
    fastest: Duration,
    /// Passes whose end was acknowledged.
    pub passes: u64,
    /// Topics mended so far.
    pub mended: u64,
}

impl Audit {
    pub fn new(now: Instant) -> Self {
        Self {
            pass: None,
            due: now,
            began: now,
            is_wanted: true,
            touched: HashSet::new(),
            fastest: Duration::MAX,
            passes: 0,
            mended: 0,
        }
    }

    /// A new primary: whatever was under way is worth nothing, and there is a reason to hurry.
    pub fn start_over(&mut self, now: Instant) {
        self.pass = None;
        self.due = now;
        self.is_wanted = true;
    }

    /// Somebody found damage: what is under way hurries, and another pass follows.
    pub fn want(&mut self, now: Instant) {
        self.is_wanted = true;
        if let Some(pass) = &mut self.pass {
            pass.is_hurried = true;
            self.due = self.due.min(now);
        }
    }

    /// A change of the topic was queued, or answered.
    pub fn touch(&mut self, topic: &Topic) {
        if self.pass.is_some() && !self.touched.contains(topic) {
            self.touched.insert(topic.clone());
        }
    }

    /// When there is something to read next, as far as time decides it.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.pass {
            None if self.is_wanted => Some(self.due.min(self.began + PERIOD_HURRIED)),
            Some(pass) if !pass.mends.is_empty() || pass.is_over() => None,
            _ => Some(self.due),
        }
    }

    /// What to read now. Nothing while something found is still to be written: what was compared would be old by then.
    pub fn looks(&mut self, now: Instant, truth: &Truth) -> Option<Vec<Look>> {
        if self.deadline().is_none_or(|at| now < at) {
            return None;
        }
        if self.pass.is_none() {
            self.begin(now);
        }
        let pass = self.pass.as_mut()?;
        let looks = pass.chunk(truth);
        self.touched.clear();
        pass.is_reading = true;
        (!looks.is_empty()).then_some(looks)
    }

    fn begin(&mut self, now: Instant) {
        let looks = VecDeque::from([Look::Damages]);
        let is_hurried = std::mem::take(&mut self.is_wanted);
        self.began = now;
        self.pass = Some(Pass {
            slot: 0,
            looks,
            busy: Vec::new(),
            // A pass that nobody waits for repeats a word that was given.
            busy_again: if is_hurried { BUSY_AGAIN_MAX } else { 0 },
            fields: 0,
            damages: "0".to_owned(),
            mends: VecDeque::new(),
            wrong: 0,
            is_hurried,
            is_reading: false,
            is_settling: false,
        });
    }

    /// Compares what was read with the truth. `is_pending` says whether a change of the topic is on its way.
    pub fn compare(&mut self, looks: &[Look], replies: &[Value], truth: &Truth, is_pending: impl Fn(&Topic) -> bool) {
        let Some(pass) = &mut self.pass else { return };
        pass.is_reading = false;
        let is_busy = |topic: &Topic| is_pending(topic) || self.touched.contains(topic);
        for (look, reply) in looks.iter().zip(replies) {
            match look {
                Look::Damages => {
                    if let Value::BulkString(text) = reply {
                        pass.damages = String::from_utf8_lossy(text).into_owned();
                    }
                }
                Look::Records(slot) => compare_records(*slot, reply, truth, is_busy, &mut pass.mends),
                Look::Members(topic) if !is_busy(topic) => {
                    if let Some(record) = truth.record(topic) {
                        compare_members(topic, reply, record, &mut pass.mends);
                    }
                }
                Look::Members(topic) => pass.busy.push(topic.clone()),
            }
        }
    }

    /// Decides when the next chunk may be read, from what this one took.
    pub fn pace(&mut self, now: Instant, took: Duration, nodes: usize) {
        let fields = self.pass.as_ref().map_or(0, |pass| pass.fields);
        let pause = self.pause(took, fields, nodes);
        let is_hurried = self.pass.as_ref().is_some_and(|pass| pass.is_hurried);
        let is_all_read = self.pass.as_ref().is_some_and(|pass| pass.slot >= SLOTS && pass.looks.is_empty());
        let pause = if is_hurried { Duration::ZERO } else { pause };
        self.due = now + if is_all_read { pause.max(BUSY_AGAIN) } else { pause };
    }

    /// How long to leave the server alone after reading so many fields, which took so long.
    pub fn pause(&mut self, took: Duration, fields: usize, nodes: usize) -> Duration {
        // Slowly forgotten, since a server may have moved further away.
        self.fastest = self.fastest.saturating_add(self.fastest / 64).min(took);
        let fields = u32::try_from(fields).unwrap_or(u32::MAX);
        let cost = took.saturating_sub(self.fastest).min(READ_MAX.saturating_mul(fields)).max(COST_MIN);
        // Each node takes its part of the share.
        let nodes = u32::try_from(nodes.max(1)).unwrap_or(u32::MAX);
        (cost * (ONE_IN - 1)).saturating_mul(nodes).min(PAUSE_MAX)
    }

    /// What to write now.
    pub fn upkeep(&mut self, is_pending: impl Fn(&Topic) -> bool) -> Option<Upkeep> {
        let pass = self.pass.as_mut()?;
        let mut mends = Vec::new();
        let mut size = 0;
        while size < MENDED_MAX
            && let Some(mend) = pass.mends.pop_front()
        {
            // It was right to mend when it was compared; a change that came since has said something newer.
            if mend.topic.as_ref().is_some_and(|topic| is_pending(topic) || self.touched.contains(topic)) {
                self.is_wanted = true;
                continue;
            }
            size += 1 + mend.gone.len() + mend.here.len();
            mends.push(mend);
        }
        if !mends.is_empty() {
            pass.wrong += mends.len();
            return Some(Upkeep::Mend(mends, pass.wrong <= TOLD_MAX));
        }
        (pass.is_over() && !pass.is_reading && !pass.is_settling).then(|| {
            pass.is_settling = true;
            let has_found = pass.wrong > 0;
            Upkeep::Settle(Settle { damages: pass.damages.clone(), has_found, is_told: pass.wrong > TOLD_MAX })
        })
    }

    /// A chunk was not read, or something not written: the pass begins again.
    pub fn abandon(&mut self) {
        self.pass = None;
        self.is_wanted = true;
    }

    /// The end of a pass was acknowledged.
    pub fn settled(&mut self, now: Instant) {
        self.pass = None;
        self.touched.clear();
        self.passes += 1;
        self.due = (self.began + PERIOD).max(now);
    }

    /// Whether a pass is under way.
    pub fn is_looking(&self) -> bool {
        self.pass.is_some()
    }
}

impl Pass {
    /// Whether everything has been read.
    fn is_over(&self) -> bool {
        self.slot >= SLOTS && self.looks.is_empty() && (self.busy.is_empty() || self.busy_again == 0)
    }

    /// The next things to read, a bounded number.
    fn chunk(&mut self, truth: &Truth) -> Vec<Look> {
        let (mut looks, mut fields) = (Vec::new(), 0);
        while looks.len() < LOOKS_MAX && fields < FIELDS_MAX {
            let Some(look) = self.looks.pop_front() else {
                if self.slot >= SLOTS {
                    if self.is_over() || !looks.is_empty() {
                        break;
                    }
                    self.busy_again -= 1;
                    self.looks.extend(self.busy.drain(..).map(Look::Members));
                    continue;
                }
                let slot = Slot(self.slot);
                self.slot += 1;
                self.looks.push_back(Look::Records(slot));
                let present = truth.slot(slot).keys().filter(|topic| is_presence(topic));
                self.looks.extend(present.cloned().map(Look::Members));
                continue;
            };
            fields += match &look {
                Look::Damages => 1,
                Look::Records(slot) => 1 + truth.slot(*slot).len(),
                Look::Members(topic) => 1 + truth.record(topic).map_or(0, |record| record.members.len()),
            };
            looks.push(look);
        }
        self.fields = fields;
        looks
    }
}

fn is_presence(topic: &Topic) -> bool {
    topic.as_str().contains(":presence-")
}

/// Finds records that are wrong, missing, or nobody's.
fn compare_records(
    slot: Slot,
    reply: &Value,
    truth: &Truth,
    is_busy: impl Fn(&Topic) -> bool,
    mends: &mut VecDeque<Mend>,
) {
    let found = pairs(reply);
    if found.is_none() {
        mends.push_back(Mend::of_text(slot, Vec::new(), None, String::new()));
    }
    let mut found: HashMap<&[u8], &[u8]> = found.unwrap_or_default().into_iter().collect();
    for (topic, record) in truth.slot(slot) {
        let text = record.text();
        if found.remove(topic.as_str().as_bytes()) != Some(text.as_bytes()) && !is_busy(topic) {
            mends.push_back(Mend::of_text(slot, topic.as_str().into(), Some(topic.clone()), text));
        }
    }
    for (text, _) in found {
        let topic = std::str::from_utf8(text).ok().and_then(Topic::parse);
        // Another slot's topic in this slot's key says nothing about that topic, whatever is being changed there.
        if topic.as_ref().is_some_and(|topic| topic.slot() == slot && is_busy(topic)) {
            continue;
        }
        mends.push_back(Mend::of_text(slot, text.to_vec(), topic, String::new()));
    }
}

/// Finds members that are wrong, missing, or nobody. Many are mended in several steps.
fn compare_members(topic: &Topic, reply: &Value, record: &Record, mends: &mut VecDeque<Mend>) {
    let found = pairs(reply);
    let is_unsound = found.is_none();
    let mut found: HashMap<&[u8], &[u8]> = found.unwrap_or_default().into_iter().collect();
    let text = || Mend::of_text(topic.slot(), topic.as_str().into(), Some(topic.clone()), record.text());
    let wrong = |found: &mut HashMap<&[u8], &[u8]>, user: &UserId, text: &str| {
        found.remove(user.as_str().as_bytes()) != Some(text.as_bytes())
    };
    let members = record.members.iter().map(|(user, presence)| (user.clone(), presence_text(presence)));
    let here: Vec<(UserId, String)> = members.filter(|(user, text)| wrong(&mut found, user, text)).collect();
    let gone: Vec<Vec<u8>> = found.into_keys().map(<[u8]>::to_vec).collect();
    if is_unsound && here.is_empty() {
        mends.push_back(text());
    }
    mends.extend(here.chunks(MENDED_MAX).map(|here| Mend { here: here.to_vec(), ..text() }));
    mends.extend(gone.chunks(MENDED_MAX).map(|gone| Mend { gone: gone.to_vec(), ..text() }));
}

impl Mend {
    fn of_text(slot: Slot, text: Vec<u8>, topic: Option<Topic>, record: String) -> Self {
        Self { slot, text, topic, record, gone: Vec::new(), here: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use fulmar_protocol::webhook::Kinds;

    use super::*;
    use crate::redis::records::{Change, Presence, Token};

    /// RED-29: a change puts right its own user alone.
    #[test]
    fn members_that_are_just_being_changed_are_looked_at_again_before_a_pass_is_over() {
        let now = Instant::now();
        let topic = Topic::parse("1:presence-a").expect("a topic");
        let user = UserId::parse("ana", 10).expect("a name");
        let member = Some((user, Some(Presence { user_info: None, since: 1 })));
        let mut truth = Truth::new();
        truth.apply(&Change {
            token: Token(1),
            topic: topic.clone(),
            subscriptions: 1,
            member,
            members_max: None,
            is_counted: false,
            wants_roster: false,
            wants_cached: false,
            wants_logged: false,
            hooks: Kinds::default(),
        });
        for (is_busy_for, mended) in [(0, 1), (3, 1), (usize::MAX, 0)] {
            let (mut audit, mut asked, mut found, mut passed) = (Audit::new(now), 0, 0, Duration::ZERO);
            loop {
                if let Some(looks) = audit.looks(now + passed, &truth) {
                    asked += looks.iter().filter(|look| matches!(look, Look::Members(_))).count();
                    // The record is there, and nobody on it.
                    let record = |look: &Look| *look == Look::Records(topic.slot());
                    let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
                    let whole = vec![text(topic.as_str()), text("1 0")];
                    let reply = |look: &Look| Value::Array(if record(look) { whole.clone() } else { Vec::new() });
                    let replies: Vec<Value> = looks.iter().map(reply).collect();
                    audit.compare(&looks, &replies, &truth, |_| asked <= is_busy_for);
                    audit.pace(now + passed, Duration::ZERO, 1);
                }
                match audit.upkeep(|_| false) {
                    Some(Upkeep::Mend(mends, _)) => found += mends.len(),
                    Some(Upkeep::Settle(_)) => break,
                    None => passed += Duration::from_millis(1),
                }
            }
            assert_eq!(found, mended, "busy for {is_busy_for} looks");
            assert!(asked <= 1 + BUSY_AGAIN_MAX as usize && passed < Duration::from_secs(1), "{asked} {passed:?}");
        }
    }

    /// RED-29
    #[test]
    fn audits_of_all_nodes_together_leave_a_server_nineteen_parts_of_twenty() {
        let mut audit = Audit::new(Instant::now());
        let round_trip = Duration::from_micros(300);
        let pauses = |audit: &mut Audit, nodes| {
            audit.pause(round_trip, 1_000, nodes);
            audit.pause(round_trip + Duration::from_millis(1), 1_000, nodes)
        };
        assert_eq!(pauses(&mut audit, 1).as_millis(), 18, "the way there and back is not the server's time");
        assert!(pauses(&mut audit, 10) >= Duration::from_millis(180));
        assert_eq!(audit.pause(Duration::from_secs(1), 100_000, 10), PAUSE_MAX);
        assert!(audit.pause(Duration::from_secs(1), 100, 3) < Duration::from_millis(25), "a hiccup is not the audit's");
        assert!(audit.pause(Duration::ZERO, 1, 1) > Duration::ZERO);
    }
}
