//! What the requests of HTTP sessions tell their worker, as inputs of the engine.

use std::sync::Arc;

use fulmar_engine::{Input, Moment, SessionKey};
use fulmar_protocol::close::CloseCode;

use super::WorkerLoop;
use crate::fallback::line::{Line, Signal};
use crate::ws::handover::Socket;

impl WorkerLoop {
    /// Something about an HTTP session, unless that has ended meanwhile.
    pub(super) fn signalled(&mut self, now: Moment, line: &Arc<Line>, signal: Signal) {
        let is_of = |key: &SessionKey| {
            let connection = self.connections.get(*key as usize);
            connection.is_some_and(|c| matches!(&c.socket, Socket::Fallback(end) if end.is_of(line)))
        };
        let Some(session) = line.key().filter(is_of) else { return };
        match signal {
            Signal::Heard => self.handle(now, Input::Heard { session }),
            Signal::Said(texts, taken) => {
                self.handle(now, Input::Heard { session });
                texts.iter().for_each(|text| self.handle(now, Input::Said { session, text }));
                // Whoever sent this may have stopped waiting.
                let _: Result<(), ()> = taken.send(());
            }
            Signal::TooBig => {
                let reason = "A message is larger than it may be";
                self.handle(now, Input::Evict { session, code: CloseCode::TOO_BIG, reason });
            }
            Signal::Room => self.resume(now, session as usize),
            Signal::Gone => self.end(now, session),
        }
    }
}
