//! The books of a load: who subscribed what, what is on its way, and whether what came was what should come.
//!
//! It holds no socket. Every delivery is checked against the one unit its lane has on its way; nothing is taken twice.

use std::time::{Duration, Instant};

use super::BenchError;
use super::histogram::Histogram;
use super::wire::{Mark, Signer};

/// Nothing at all happening for this long is a loss.
const STALL_MAX: Duration = Duration::from_secs(8);
/// The longest any phase may take.
const PHASE_MAX: Duration = Duration::from_secs(120);

/// What is on its way from one lane: a request with its events, or a client event.
#[derive(Default, Clone)]
pub struct Unit {
    /// Its number, which the marks carry.
    pub seq: u32,
    /// Deliveries still to come.
    pub missing: u32,
    /// The request has no answer yet.
    pub unanswered: bool,
    /// Of each event in turn.
    pub channels: Vec<u32>,
    /// The connection that sent a client event and must not hear it.
    pub sender: Option<usize>,
    /// From when its deliveries count.
    pub sent: Option<Instant>,
}

impl Unit {
    pub fn is_done(&self) -> bool {
        self.missing == 0 && !self.unanswered
    }
}

/// The books: who subscribed what, what is on its way, what came.
pub struct Board {
    /// In whose name subscriptions and publishes are signed.
    pub signer: Signer,
    /// Channels by index.
    pub names: Vec<String>,
    /// Subscribers of each channel.
    pub audience: Vec<u32>,
    /// Connections that are subscribed.
    pub live: usize,
    /// One per lane.
    pub units: Vec<Unit>,
    /// Lanes that came to rest and were not taken up yet.
    pub done: Vec<usize>,
    /// Frames received so far.
    pub deliveries: u64,
    /// Frames that were neither a delivery nor wrong.
    pub extras: u64,
    /// When something last went forward.
    pub progress: Instant,
    /// Kept while somebody wants it.
    pub latency: Option<Histogram>,
    /// Where the mark was in the last frame.
    pub hint: usize,
    /// The last number of each lane that each connection saw.
    seen: Vec<u32>,
    lanes_heard: LanesHeard,
}

/// Which lanes one connection can hear, and so how large its share of the books is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LanesHeard {
    /// Any of them: they publish to all channels.
    Any,
    /// One: a lane belongs to a channel, and a connection hears one channel.
    One,
}

impl Board {
    /// For one application and these channels; nobody is subscribed yet.
    pub fn new(signer: Signer, names: Vec<String>) -> Self {
        Self {
            signer,
            audience: vec![0; names.len()],
            names,
            live: 0,
            units: Vec::new(),
            done: Vec::new(),
            deliveries: 0,
            extras: 0,
            progress: Instant::now(),
            latency: None,
            hint: 0,
            seen: Vec::new(),
            lanes_heard: LanesHeard::Any,
        }
    }

    /// Room for `lanes` publishers, whose numbers start anew, and for the `conns` connections there are.
    pub fn open_books(&mut self, lanes: usize, conns: usize, lanes_heard: LanesHeard) {
        self.units = vec![Unit::default(); lanes];
        self.lanes_heard = lanes_heard;
        let share = if lanes_heard == LanesHeard::One { 1 } else { lanes };
        self.seen = vec![0; share * conns];
    }

    /// Whether it still moves.
    ///
    /// # Errors
    /// Nothing came for so long that it is lost, or the phase takes forever.
    pub fn check_progress(&self, phase: Instant, what: impl Fn() -> String) -> Result<(), BenchError> {
        if self.progress.elapsed() > STALL_MAX || phase.elapsed() > PHASE_MAX {
            return Err(BenchError::Peer(format!("nothing more comes: {}", what())));
        }
        Ok(())
    }

    /// What a report says is lost.
    pub fn missing(&self) -> String {
        let deliveries: u64 = self.units.iter().map(|u| u64::from(u.missing)).sum();
        let answers = self.units.iter().filter(|u| u.unanswered).count();
        format!("{deliveries} deliveries and {answers} answers are lost")
    }

    /// A lane's request was answered.
    ///
    /// # Errors
    /// It had been before.
    pub fn answered(&mut self, lane: usize) -> Result<(), BenchError> {
        let unit = &mut self.units[lane];
        if !unit.unanswered {
            return Err(BenchError::Peer("an answer came to nothing asked".into()));
        }
        unit.unanswered = false;
        self.progress = Instant::now();
        if unit.is_done() {
            self.done.push(lane);
        }
        Ok(())
    }

    /// A connection subscribed to `channel` received the event with this mark.
    ///
    /// # Errors
    /// It should not have, or not now, or not again.
    pub fn delivered(&mut self, conn: usize, channel: u32, mark: Mark) -> Result<(), BenchError> {
        let lane = usize::from(mark.lane);
        let line = match self.lanes_heard {
            LanesHeard::One => conn,
            LanesHeard::Any => conn * self.units.len() + lane,
        };
        let wrong = |why: &str| Err(BenchError::Peer(format!("a delivery is wrong, {why}: {mark:?}")));
        let Some(unit) = self.units.get_mut(lane) else { return wrong("no such publisher") };
        if unit.seq != mark.seq || unit.missing == 0 {
            return wrong("it is not the one on its way");
        }
        if unit.channels.get(usize::from(mark.place)) != Some(&channel) {
            return wrong("it is not for this channel");
        }
        if unit.sender == Some(conn) {
            return wrong("its sender heard it");
        }
        if self.seen[line] >= mark.seq {
            return wrong("it came twice");
        }
        self.seen[line] = mark.seq;
        self.deliveries += 1;
        unit.missing -= 1;
        if let (Some(latency), Some(sent)) = (&mut self.latency, unit.sent) {
            latency.record(sent.elapsed());
        }
        if unit.is_done() {
            self.progress = Instant::now();
            self.done.push(lane);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two connections on channel 0 and one on channel 1; lane 1 has its number 5 on its way to channel 0.
    fn board() -> Board {
        let mut board = Board::new(Signer::new("1", "k", "s"), vec!["a".into(), "b".into()]);
        board.open_books(2, 3, LanesHeard::Any);
        board.units[1] = Unit { seq: 5, missing: 2, unanswered: true, channels: vec![0], sender: None, sent: None };
        board
    }

    fn mark(lane: u16, seq: u32) -> Mark {
        Mark { lane, place: 0, seq }
    }

    #[track_caller]
    fn check(conn: usize, channel: u32, mark: Mark, expected: &str) {
        let mut board = board();
        board.delivered(0, 0, self::mark(1, 5)).expect("the first delivery is right");
        let said = board.delivered(conn, channel, mark).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(said.contains(expected), "{said}");
    }

    #[test]
    fn a_delivery_that_is_doubled_stale_or_on_the_wrong_channel_is_an_error() {
        check(0, 0, mark(1, 5), "it came twice");
        check(1, 0, mark(1, 4), "not the one on its way");
        check(1, 0, mark(0, 5), "not the one on its way");
        check(2, 1, mark(1, 5), "not for this channel");
        check(1, 0, mark(7, 5), "no such publisher");
        check(1, 0, Mark { lane: 1, place: 1, seq: 5 }, "not for this channel");
    }

    #[test]
    fn a_lane_rests_when_all_have_it_and_the_publisher_has_its_answer() {
        let mut board = board();
        board.delivered(0, 0, mark(1, 5)).expect("right");
        board.answered(1).expect("right");
        assert_eq!((board.done.len(), board.missing().as_str()), (0, "1 deliveries and 0 answers are lost"));
        board.delivered(1, 0, mark(1, 5)).expect("right");
        assert_eq!((board.done.as_slice(), board.deliveries), (&[1][..], 2));
        assert!(board.answered(1).is_err());
        assert!(board.delivered(1, 0, mark(1, 5)).is_err());
    }

    #[test]
    fn the_sender_of_a_client_event_must_not_hear_it() {
        let mut board = board();
        board.units[1].sender = Some(1);
        assert!(board.delivered(1, 0, mark(1, 5)).is_err());
        assert!(board.delivered(0, 0, mark(1, 5)).is_ok());
    }
}
