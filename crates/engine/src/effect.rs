//! What the engine wants done.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use fulmar_protocol::close::CloseCode;
use fulmar_protocol::exchange::Question;
use fulmar_protocol::frame::Frame;

/// Names a connection within its worker. The driver chooses it when it opens a session, and must not use it for
/// another connection before the session has ended.
pub type SessionKey = u32;

/// One thing to do.
#[derive(Debug)]
pub enum Effect {
    /// Queue a frame for one connection.
    Send {
        /// Whom.
        to: SessionKey,
        /// What.
        frame: Frame,
    },
    /// Queue one frame for many connections: one effect, whatever the number.
    FanOut {
        /// What.
        frame: Frame,
        /// Where in [`Effects::targets`] the receivers stand.
        targets: Range<usize>,
    },
    /// Send an RFC 6455 ping: the only check that every SDK answers.
    Ping {
        /// Whom.
        to: SessionKey,
    },
    /// The session has ended: send what is queued, then this close frame, then close the socket.
    Close {
        /// Whose.
        session: SessionKey,
        /// The code for the close frame.
        code: CloseCode,
        /// The reason for the close frame.
        reason: Cow<'static, str>,
    },
    /// Put a question to the backbone.
    Ask(Question),
    /// Count the connection towards the app's quota, which it was not counted towards while it had shown no authorization.
    /// [`crate::Input::Seated`] says what came of it, before anything else of this session is handled.
    TakeSeat {
        /// Whose.
        session: SessionKey,
        /// What the quota is at this moment; none for no limit.
        max: Option<u32>,
    },
}

/// What came of asking for a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seating {
    /// There was one.
    Seated,
    /// The app has as many connections as it may have, and that is certain.
    OverQuota,
    /// It seems so.
    Later,
}

/// Effects in the order they are to be performed. Reused from call to call so that nothing is allocated per delivery.
#[derive(Debug, Default)]
pub struct Effects {
    queue: VecDeque<Effect>,
    targets: Vec<SessionKey>,
}

impl Effects {
    /// The next thing to do.
    pub fn next_effect(&mut self) -> Option<Effect> {
        let next = self.queue.pop_front();
        if next.is_none() {
            self.targets.clear();
        }
        next
    }

    /// The receivers of a fan-out. Valid until [`Effects::next_effect`] has answered `None`.
    #[must_use]
    pub fn targets(&self, range: Range<usize>) -> &[SessionKey] {
        &self.targets[range]
    }

    pub(crate) fn send(&mut self, to: SessionKey, frame: Frame) {
        self.queue.push_back(Effect::Send { to, frame });
    }

    pub(crate) fn ping(&mut self, to: SessionKey) {
        self.queue.push_back(Effect::Ping { to });
    }

    pub(crate) fn close(&mut self, session: SessionKey, code: CloseCode, reason: Cow<'static, str>) {
        self.queue.push_back(Effect::Close { session, code, reason });
    }

    pub(crate) fn ask(&mut self, question: Question) {
        self.queue.push_back(Effect::Ask(question));
    }

    pub(crate) fn take_seat(&mut self, session: SessionKey, max: Option<u32>) {
        self.queue.push_back(Effect::TakeSeat { session, max });
    }

    /// Queues `frame` for the receivers that `add` appends; for none, nothing is queued.
    pub(crate) fn fan_out(&mut self, frame: &Frame, add: impl FnOnce(&mut Vec<SessionKey>)) {
        let start = self.targets.len();
        add(&mut self.targets);
        let targets = start..self.targets.len();
        if !targets.is_empty() {
            self.queue.push_back(Effect::FanOut { frame: frame.clone(), targets });
        }
    }
}
