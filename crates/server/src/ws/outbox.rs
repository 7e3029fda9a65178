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
    frames: VecDeque<Bytes>,
    /// Bytes of the first frame that are already sent.
    sent_of_first: usize,
    /// Bytes not sent yet.
    bytes: usize,
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

    /// Bytes that wait for the socket.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.bytes)
    }

    /// Whether the oldest waiting byte is older than the budget allows.
    pub(crate) fn is_too_old(&self, now: Moment, budget: &Budget) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| now.ms_since(backlog.since) > budget.age_max_ms)
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
        if !left.is_empty() {
            let backlog = self.backlog.get_or_insert_with(|| {
                Box::new(Backlog { frames: VecDeque::new(), sent_of_first, bytes: 0, since: now })
            });
            for number in left {
                let frame = turn.frame(*number);
                backlog.bytes += frame.len();
                backlog.frames.push_back(frame.clone());
            }
            backlog.bytes -= sent_of_first;
        }
        self.pending.clear();
        // What a burst once needed is not kept for an idle connection.
        self.pending.shrink_to(8);
        Ok(self.state(budget))
    }

    /// The socket can be written again: writes what waits.
    pub(crate) fn resume(&mut self, socket: &mut Socket, now: Moment, budget: &Budget) -> io::Result<Flushed> {
        match socket.flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::Waiting),
            flushed => flushed?,
        }
        let Some(backlog) = &mut self.backlog else { return Ok(Flushed::All) };
        let mut gathered = Vec::new();
        while !backlog.frames.is_empty() {
            let count = fitting(backlog.frames.iter().map(Bytes::len));
            gathered.clear();
            for frame in backlog.frames.iter().take(count) {
                gathered.extend_from_slice(frame);
            }
            let bytes = &gathered[backlog.sent_of_first..];
            let sent = write(socket, bytes)?;
            let is_all = sent == bytes.len();
            let (frames, rest) = split(backlog.sent_of_first + sent, backlog.frames.iter().map(Bytes::len));
            backlog.frames.drain(..frames);
            backlog.sent_of_first = rest;
            backlog.bytes -= sent;
            if sent > 0 {
                // The reader moves: what waits now has waited since now at most.
                backlog.since = now;
            }
            if !is_all {
                return Ok(self.state(budget));
            }
        }
        self.backlog = None;
        Ok(Flushed::All)
    }

    /// Drops what waits, but for a frame that is partly sent: whatever comes next begins at a frame's boundary.
    pub(crate) fn cut(&mut self) {
        if let Some(backlog) = &mut self.backlog {
            let kept = usize::from(backlog.sent_of_first > 0);
            backlog.frames.truncate(kept);
            backlog.bytes = backlog.frames.iter().map(Bytes::len).sum::<usize>().saturating_sub(backlog.sent_of_first);
            if backlog.frames.is_empty() {
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
