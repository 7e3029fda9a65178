//! A session that the node itself opens and reads: an operator's, through the admin API.

use std::convert::Infallible;
use std::sync::Arc;

use fulmar_engine::{AppLookup, Load, Opening};
use fulmar_protocol::app::App;
use fulmar_protocol::name::SocketId;
use fulmar_protocol::opening::{ClientKind, ProtocolVersion};
use tokio::sync::Notify;

use super::line::{Line, Receiver, WorkerEnd};
use super::sessions::Found;
use crate::edge::{Edge, Phase};
use crate::gate::Verdict;
use crate::ws::handover::{Handover, Socket};

impl Edge {
    /// Opens one, with a seat of the node and none of the app. `None` when the node is full. `cut` ends the connection of
    /// whoever reads, when that one does not read the session's end.
    pub(crate) fn open_own_session(
        &self,
        app: &Arc<App>,
        cut: &Arc<Notify>,
    ) -> Option<(Arc<Line>, Receiver, SocketId)> {
        let Verdict::Welcome(seat) = self.gate.enter_for_others() else { return None };
        let socket_id = self.socket_ids.next();
        // Without a slash: no address of a fallback transport leads to it.
        let name = format!("own-{socket_id}");
        let open = || Ok::<_, Infallible>((Line::new(self.least_loaded().clone(), self.clock.clone()), ()));
        let Ok(Found::New(line, receiver, ())) = self.sessions.receive(&name, cut, open) else { return None };
        line.take_seat(seat);
        let load = Load { draining: *self.phase.borrow() >= Phase::Draining, ..Load::default() };
        let opening = Opening {
            app: AppLookup::Found(app.clone()),
            protocol: ProtocolVersion::Number(7),
            client: ClientKind::Other,
            origin: None,
            secure: true,
            must_authorize: false,
            load,
            socket_id,
        };
        let socket = Socket::Fallback(WorkerEnd::new(line.clone()));
        let (response, leftover) = (Vec::new(), Vec::new());
        line.inbox().adopt(Handover { socket, response, leftover, opening, seat: None, app_seat: None });
        Some((line, receiver, socket_id))
    }
}
