//! Connections to endpoints that took a request and may take another.
//!
//! Bounded in number and in time: what is beyond either is closed. Knows nothing of what is said on them, and does not
//! judge addresses: whoever takes a connection says which addresses it may lead to at this moment.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Connections kept, over all endpoints; beyond it the oldest is closed.
pub(super) const KEPT_MAX: usize = 64;
/// Connections kept to one place: as many as one endpoint has requests under way at once.
pub(super) const KEPT_PER_PLACE_MAX: usize = 8;
/// How long one is kept that nobody takes: less than the 5 seconds after which Node's servers close it, so that a request
/// seldom meets a connection that is just being closed.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(4);

/// Where a connection leads, and in whose name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    /// The name that the certificate was for, or that a plain connection was made for.
    pub(super) host: String,
    pub(super) is_tls: bool,
}

/// A connection and the task that drives it. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) sender: SendRequest<Full<Bytes>>,
    pub(super) driving: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

/// Connections that wait for a request, the one that has waited longest first.
#[derive(Debug, Default)]
pub(super) struct Pool {
    kept: Mutex<Vec<Kept>>,
}

#[derive(Debug)]
struct Kept {
    place: Place,
    open: Open,
    since: Instant,
}

impl Pool {
    /// The connection that was used last of those that lead where `may_lead` allows.
    pub(super) fn take(&self, now: Instant, may_lead: impl Fn(&Place) -> bool) -> Option<(Place, Open)> {
        let mut kept = self.locked();
        sweep(&mut kept, now);
        let at = kept.iter().rposition(|kept| may_lead(&kept.place))?;
        let Kept { place, open, .. } = kept.remove(at);
        Some((place, open))
    }

    /// Keeps a connection that is free again.
    pub(super) fn put(&self, now: Instant, place: Place, open: Open) {
        let mut kept = self.locked();
        sweep(&mut kept, now);
        if kept.iter().filter(|kept| kept.place == place).count() >= KEPT_PER_PLACE_MAX {
            return;
        }
        if kept.len() >= KEPT_MAX {
            kept.remove(0);
        }
        kept.push(Kept { place, open, since: now });
    }

    /// Closes those that have waited too long, and forgets those that the other side has closed.
    pub(super) fn sweep(&self, now: Instant) {
        sweep(&mut self.locked(), now);
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Kept>> {
        // Nothing that can panic runs under this lock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sweep(kept: &mut Vec<Kept>, now: Instant) {
    kept.retain(|kept| now.duration_since(kept.since) < KEPT_FOR && !kept.open.sender.is_closed());
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    async fn open() -> (Open, DuplexStream) {
        let (ours, theirs) = duplex(64);
        let (sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        (Open { sender, driving: tokio::spawn(async move { drop(connection.await) }) }, theirs)
    }

    fn place(n: u16) -> Place {
        Place { address: SocketAddr::from(([192, 0, 2, 1], n)), host: "a".to_owned(), is_tls: false }
    }

    /// HOOK-33
    #[tokio::test]
    async fn what_is_kept_is_bounded_over_all_for_one_place_and_in_time() {
        let (pool, now) = (Pool::default(), Instant::now());
        let mut peers = Vec::new();
        for n in 0..KEPT_PER_PLACE_MAX + 1 {
            let (open, peer) = open().await;
            pool.put(now + Duration::from_millis(n as u64), place(1), open);
            peers.push(peer);
        }
        assert_eq!(pool.locked().len(), KEPT_PER_PLACE_MAX);
        for n in 0..KEPT_MAX as u16 {
            let (open, peer) = open().await;
            pool.put(now, place(100 + n), open);
            peers.push(peer);
        }
        assert_eq!(pool.locked().len(), KEPT_MAX);
        assert!(pool.take(now, |to| *to == place(1)).is_none(), "the oldest went");
        let last = place(99 + KEPT_MAX as u16);
        assert_eq!(pool.take(now, |_| true).unwrap().0, last, "the one used last is the likeliest to be open");
        assert!(pool.take(now, |to| *to == last).is_none(), "it is nobody else's meanwhile");
        pool.sweep(now + KEPT_FOR - Duration::from_millis(1));
        assert_eq!(pool.locked().len(), KEPT_MAX - 1);
        pool.sweep(now + KEPT_FOR);
        assert!(pool.locked().is_empty());
    }

    /// HOOK-33
    #[tokio::test]
    async fn one_that_the_other_side_has_closed_is_not_used() {
        let (pool, now) = (Pool::default(), Instant::now());
        let (mut open, peer) = open().await;
        drop(peer);
        // It is seen by whoever drives the connection.
        while open.sender.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        pool.put(now, place(1), open);
        assert!(pool.take(now, |_| true).is_none());
    }
}
