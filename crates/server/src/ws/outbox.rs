//! What waits to be written to one connection, and what one turn of a worker writes to many.
//!
//! During a turn a connection only notes the numbers of the frames it is to get ([`Turn`] holds each once). At its end
//! everything pending leaves in one system call; neighbours with the same list share the very same bytes. Only what a
//! full socket did not take is kept per connection, as shared frames, within a budget of bytes and age. When the
//! budget is used up the connection is closed: no frame is ever skipped on a connection that stays open.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use fulmar_engine::Moment;

use super::handover::Socket;

/// Most bytes gathered for one write. More than a socket takes at once gains nothing.
const GATHER_BYTES_MAX: usize = 64 * 1024;
/// What a waiting frame counts beyond its bytes: about what it takes to keep one. Otherwise a million empty pongs would
/// be within a budget that they exceed fifty times.
const WAITING_COST_BYTES: usize = 64;

/// The frames of one turn, each once, and the bytes that were gathered last.
#[derive(Default)]
pub(crate) struct Turn {
    frames: Vec<Bytes>,
    gathered: Vec<u8>,
    gathered_of: Vec<u32>,
}

impl Turn {
    /// Adds a frame; answers the number that connections note.
    pub(crate) fn add(&mut self, frame: Bytes) -> u32 {
        self.frames.push(frame);
        u32::try_from(self.frames.len() - 1).expect("a turn ends long before it has 2^32 frames")
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Forgets the frames. Only when no connection has any pending.
    pub(crate) fn end(&mut self) {
        self.frames.clear();
        self.gathered_of.clear();
    }

    fn frame(&self, number: u32) -> &Bytes {
        &self.frames[number as usize]
    }

    /// The bytes of these frames in one piece.
    fn gather(&mut self, numbers: &[u32]) -> &[u8] {
        if let [number] = numbers {
            return self.frame(*number);
        }
        if self.gathered_of != numbers {
            self.gathered_of.clear();
            self.gathered_of.extend_from_slice(numbers);
            self.gathered.clear();
            for number in numbers {
                self.gathered.extend_from_slice(&self.frames[*number as usize]);
            }
        }
        &self.gathered
    }
}

/// The write side of one connection.
#[derive(Default)]
pub(crate) struct Outbox {
    /// Numbers of this turn's frames.
    pending: Vec<u32>,
    /// What a full socket did not take.
    backlog: Option<Box<Backlog>>,
}

struct Backlog {
    frames: VecDeque<Waiting>,
    /// Bytes of the first frame that are already sent.
    sent_of_first: usize,
    /// What is not sent yet, and what it costs to keep it.
    bytes: usize,
    /// Since when encrypted bytes wait that the socket did not take.
    held_since: Option<Moment>,
}

struct Waiting {
    frame: Bytes,
    since: Moment,
}

/// What may wait for one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) bytes_max: usize,
    pub(crate) age_max_ms: u64,
}

/// How a flush went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Everything left.
    All,
    /// The socket is full; the rest waits until it can be written again.
    Waiting,
    /// More waits than the budget allows.
    TooSlow,
}

impl Outbox {
    /// Notes a frame of this turn. Answers whether it is the first: then the connection is to be flushed.
    pub(crate) fn note(&mut self, number: u32) -> bool {
        self.pending.push(number);
        self.pending.len() == 1
    }

    /// Whether everything was handed to the socket.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.backlog.is_none()
    }

    /// Whether something waits for the socket.
    pub(crate) fn is_waiting(&self) -> bool {
        self.backlog.is_some()
    }

    /// What waits for the socket, and what it costs to keep it.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.bytes)
    }

    /// Whether the oldest waiting byte is older than the budget allows.
    pub(crate) fn is_too_old(&self, now: Moment, budget: &Budget) -> bool {
        let since = self.backlog.as_ref().and_then(|backlog| backlog.oldest());
        since.is_some_and(|since| now.ms_since(since) > budget.age_max_ms)
    }

    /// Writes what this turn noted, or queues it behind what waits already.
    pub(crate) fn flush(
        &mut self,
        socket: &mut Socket,
        turn: &mut Turn,
        now: Moment,
        budget: &Budget,
    ) -> io::Result<Flushed> {
        let mut left = self.pending.as_slice();
        let mut sent_of_first = 0;
        if self.backlog.is_none() {
            while !left.is_empty() {
                let count = fitting(left.iter().map(|number| turn.frame(*number).len()));
                let bytes = turn.gather(&left[..count]);
                let whole = bytes.len();
                let sent = write(socket, bytes)?;
                if sent == whole {
                    left = &left[count..];
                    continue;
                }
                let (frames, rest) = split(sent, left.iter().map(|number| turn.frame(*number).len()));
                left = &left[frames..];
                sent_of_first = rest;
                break;
            }
        }
        if !left.is_empty() || !(self.backlog.is_some() || socket.is_flushed()) {
            let backlog = self.backlog.get_or_insert_with(|| {
                let held_since = (!socket.is_flushed()).then_some(now);
                Box::new(Backlog { frames: VecDeque::new(), sent_of_first, bytes: 0, held_since })
            });
            for number in left {
                backlog.push(turn.frame(*number).clone(), now);
            }
            backlog.bytes -= sent_of_first;
        }
        self.pending.clear();
        // What a burst once needed is not kept for an idle connection.
        self.pending.shrink_to(8);
        Ok(self.state(budget))
    }

    /// The socket can be written again: writes what waits.
    pub(crate) fn resume(&mut self, socket: &mut Socket, budget: &Budget) -> io::Result<Flushed> {
        match socket.flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::Waiting),
            flushed => flushed?,
        }
        let Some(backlog) = &mut self.backlog else { return Ok(Flushed::All) };
        backlog.held_since = None;
        let mut gathered = Vec::new();
        while let Some(first) = backlog.frames.front() {
            let since = first.since;
            let count = fitting(backlog.sizes());
            gathered.clear();
            for waiting in backlog.frames.iter().take(count) {
                gathered.extend_from_slice(&waiting.frame);
            }
            let bytes = &gathered[backlog.sent_of_first..];
            let sent = write(socket, bytes)?;
            let is_all = sent == bytes.len();
            backlog.sent(sent);
            if !socket.is_flushed() {
                backlog.held_since = Some(since);
            }
            if !is_all || !socket.is_flushed() {
                return Ok(self.state(budget));
            }
        }
        self.backlog = None;
        Ok(Flushed::All)
    }

    /// Drops what waits and what this turn noted, but for a frame that is partly sent: whatever comes next begins at a
    /// frame's boundary, and nothing behind the gap is sent.
    pub(crate) fn cut(&mut self) {
        self.pending.clear();
        if let Some(backlog) = &mut self.backlog {
            let kept = usize::from(backlog.sent_of_first > 0);
            backlog.frames.truncate(kept);
            let kept_bytes: usize = backlog.sizes().map(|size| size + WAITING_COST_BYTES).sum();
            backlog.bytes = kept_bytes - backlog.sent_of_first;
            if backlog.frames.is_empty() && backlog.held_since.is_none() {
                self.backlog = None;
            }
        }
    }

    fn state(&self, budget: &Budget) -> Flushed {
        match &self.backlog {
            None => Flushed::All,
            Some(backlog) if backlog.bytes > budget.bytes_max => Flushed::TooSlow,
            Some(_) => Flushed::Waiting,
        }
    }
}

impl Backlog {
    fn push(&mut self, frame: Bytes, now: Moment) {
        self.bytes += frame.len() + WAITING_COST_BYTES;
        self.frames.push_back(Waiting { frame, since: now });
    }

    /// Takes note of so many bytes that left.
    fn sent(&mut self, bytes: usize) {
        let (frames, rest) = split(self.sent_of_first + bytes, self.sizes());
        self.frames.drain(..frames);
        self.sent_of_first = rest;
        self.bytes -= bytes + frames * WAITING_COST_BYTES;
    }

    fn sizes(&self) -> impl Iterator<Item = usize> {
        self.frames.iter().map(|waiting| waiting.frame.len())
    }

    /// Since when the oldest byte waits.
    fn oldest(&self) -> Option<Moment> {
        self.held_since.or_else(|| self.frames.front().map(|waiting| waiting.since))
    }
}

/// How many of the first frames fit into one write; at least one.
fn fitting(sizes: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fits = sizes.take_while(|size| {
        bytes += size;
        bytes <= GATHER_BYTES_MAX
    });
    fits.count().max(1)
}

/// How many whole frames `sent` bytes are, and how many bytes of the next.
fn split(mut sent: usize, sizes: impl Iterator<Item = usize>) -> (usize, usize) {
    let mut frames = 0;
    for size in sizes {
        if sent < size {
            break;
        }
        sent -= size;
        frames += 1;
    }
    (frames, sent)
}

fn write(socket: &mut Socket, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.write(&bytes[sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
