//! Tells a statsd daemon the figures of this node, again and again, over UDP.
//!
//! It has a thread of its own and shares nothing with those that serve but numbers to read: a name that takes its time, or an
//! address that refuses, is nobody else's wait. Nothing that happens here ends a node or keeps one from starting. What UDP cannot
//! tell, it does not: only a refusal comes back, and only from a machine that is there and may answer.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::Metrics;

use super::Registry;
use super::statsd::Writer;

/// How long a refusal may be on its way, and a datagram wait for room; a refusal that comes later is found in the next round.
const REFUSED_WITHIN: Duration = Duration::from_millis(100);
/// A name is looked up again after this, so that a sink that moves is followed.
const LOOKED_UP_FOR: Duration = Duration::from_secs(60);
/// The longest wait after failures, unless the configured one is longer.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// Rounds without a failure after which all is well again: a refusal from far away comes one round late.
const CLEAN_ROUNDS: u32 = 2;

/// How the sink is doing, for whoever asks.
#[derive(Debug, Default)]
pub(crate) struct SinkState {
    failures: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl SinkState {
    /// Rounds in which not everything could be sent. Rises.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Where the figures do not arrive, and why; `None` while nothing is known to be wrong.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// Why a round did not get its figures away.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the name cannot be resolved: {0}")]
    Unresolved(io::Error),
    #[error("the name has no address")]
    NoAddress,
    #[error("{0}")]
    Unreachable(io::Error),
    #[error("nothing listens there ({0})")]
    Refused(io::Error),
    #[error("the system takes no more datagrams")]
    TooSlow,
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused(error),
            _ if is_only_silence(&error) => Self::TooSlow,
            _ => Self::Unreachable(error),
        }
    }
}

/// The time was over and nothing had happened. Systems call it by either name.
fn is_only_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Begins to tell, where a sink is configured. The thread ends with the process.
pub(crate) fn start(metrics: &Metrics, node: &str, registry: Registry) {
    let Some(address) = metrics.statsd.clone() else { return };
    let mut courier = Courier {
        address,
        interval: metrics.interval,
        writer: Writer::new(&metrics.prefix, node),
        look_up: |address| address.to_socket_addrs().map(|mut found| found.next()),
        link: None,
        state: registry.sink.clone(),
        failed: 0,
        clean: CLEAN_ROUNDS,
    };
    let body = move || {
        loop {
            let wait = courier.round(|| registry.read());
            thread::sleep(wait);
        }
    };
    if let Err(error) = thread::Builder::new().name("metrics".to_owned()).spawn(body) {
        tracing::warn!(%error, "metrics are not sent: no thread for it");
    }
}

/// A socket that speaks to the sink's address of the moment.
struct Link {
    socket: UdpSocket,
    made: Instant,
}

struct Courier {
    address: String,
    interval: Duration,
    writer: Writer,
    look_up: fn(&str) -> io::Result<Option<SocketAddr>>,
    link: Option<Link>,
    state: Arc<SinkState>,
    /// Rounds that failed, one after the other.
    failed: u32,
    /// Rounds since then that did not.
    clean: u32,
}

impl Courier {
    /// Sends all figures once, and answers after which time it is to be done again.
    fn round(&mut self, read: impl Fn() -> Vec<super::Sample>) -> Duration {
        match self.send(read) {
            Ok(()) => self.succeeded(),
            Err(trouble) => self.has_failed(&trouble),
        }
        wait(self.interval, self.failed)
    }

    fn send(&mut self, read: impl Fn() -> Vec<super::Sample>) -> Result<(), Trouble> {
        let link = self.link()?;
        // Read after the name was found, however long that took.
        for datagram in self.writer.write(&read()) {
            link.socket.send(datagram.text.as_bytes())?;
            self.writer.note_sent(datagram);
        }
        // Nobody says anything here but the system, of a refusal, and at once when it has come.
        match link.socket.recv(&mut [0]) {
            Err(error) if !is_only_silence(&error) => return Err(error.into()),
            _ => {}
        }
        self.link = Some(link);
        Ok(())
    }

    /// The socket, which is whoever asked for it until nothing was wrong with it.
    fn link(&mut self) -> Result<Link, Trouble> {
        if let Some(link) = self.link.take() {
            if let Some(refusal) = link.socket.take_error()? {
                return Err(refusal.into());
            }
            if link.made.elapsed() < LOOKED_UP_FOR {
                return Ok(link);
            }
        }
        let found = (self.look_up)(&self.address).map_err(Trouble::Unresolved)?.ok_or(Trouble::NoAddress)?;
        let any = match found {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any)?;
        // Only a connected socket is told of refusals, and only one that waits for so long and no longer cannot be held up.
        socket.connect(found)?;
        socket.set_write_timeout(Some(REFUSED_WITHIN))?;
        socket.set_read_timeout(Some(REFUSED_WITHIN))?;
        Ok(Link { socket, made: Instant::now() })
    }

    fn succeeded(&mut self) {
        self.failed = 0;
        self.clean = self.clean.saturating_add(1);
        if self.clean == CLEAN_ROUNDS && self.state.trouble().is_some() {
            self.state.set_trouble(None);
            tracing::info!(sink = self.address, failures = self.state.failures(), "metrics are sent again");
        }
    }

    fn has_failed(&mut self, trouble: &Trouble) {
        self.link = None;
        self.state.failures.fetch_add(1, Ordering::Relaxed);
        // Once, and not at every try: the counter and the doctor go on saying it.
        if self.state.trouble().is_none() {
            tracing::warn!(
                sink = self.address,
                "metrics do not arrive: {trouble}; this node serves all the same and goes on trying"
            );
        }
        self.state.set_trouble(Some(format!("{}: {trouble}", self.address)));
        (self.failed, self.clean) = (self.failed.saturating_add(1), 0);
    }
}

/// Until the next round, after so many failures.
fn wait(interval: Duration, failed: u32) -> Duration {
    let longer = interval.saturating_mul(1_u32.checked_shl(failed).unwrap_or(u32::MAX));
    longer.min(BACK_OFF_MAX.max(interval))
}

#[cfg(test)]
mod tests {
    use super::super::{Figure, Sample};
    use super::*;

    fn courier(address: &str) -> Courier {
        Courier {
            address: address.to_owned(),
            interval: Duration::from_secs(1),
            writer: Writer::new("fulmar", "here"),
            look_up: |address| match address {
                "gone" => Ok(None),
                "nowhere" => Err(io::Error::other("no such name")),
                address => Ok(address.parse().ok()),
            },
            link: None,
            state: Arc::default(),
            failed: 0,
            clean: CLEAN_ROUNDS,
        }
    }

    fn samples() -> Vec<Sample> {
        vec![Sample { name: "n_total", of: None, figure: Figure::Counter(3) }]
    }

    fn sink() -> (UdpSocket, String) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        (socket, address)
    }

    fn receive(socket: &UdpSocket) -> String {
        let mut bytes = [0; 2_000];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// OPS-43
    #[test]
    fn after_failures_the_waits_grow_up_to_a_minute_or_what_is_configured() {
        let second = Duration::from_secs(1);
        let waits: Vec<u64> = (0..9).map(|failed| wait(second, failed).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(wait(second, 1_000), BACK_OFF_MAX);
        assert_eq!(wait(300 * second, 3), 300 * second);
    }

    /// OPS-43: a real closed port, and then a real socket behind it.
    #[test]
    fn a_sink_that_refuses_is_noticed_within_the_round_and_told_everything_when_it_is_back() {
        let (socket, address) = sink();
        drop(socket);
        let mut courier = courier(&address);
        assert_eq!(courier.round(samples), Duration::from_secs(2));
        assert_eq!(courier.round(samples), Duration::from_secs(4));
        assert_eq!(courier.state.failures(), 2);
        let trouble = courier.state.trouble().unwrap();
        assert!(trouble.starts_with(&format!("{address}: nothing listens there")), "{trouble}");

        let socket = UdpSocket::bind(&address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(courier.round(samples), Duration::from_secs(1));
        assert!(receive(&socket).starts_with("fulmar.n_total:"));
        assert!(courier.state.trouble().is_some(), "one round proves nothing");
        courier.round(samples);
        assert_eq!((courier.state.trouble(), courier.state.failures()), (None, 2));
    }

    /// OPS-43
    #[test]
    fn a_name_that_leads_nowhere_loses_no_count() {
        let (socket, address) = sink();
        let mut courier = courier("nowhere");
        courier.round(samples);
        assert_eq!(courier.state.trouble().as_deref(), Some("nowhere: the name cannot be resolved: no such name"));
        courier.address = "gone".to_owned();
        courier.round(samples);
        assert_eq!(courier.state.trouble().as_deref(), Some("gone: the name has no address"));
        courier.address = address;
        courier.round(samples);
        assert_eq!(receive(&socket), "fulmar.n_total:3|c|#node:here", "all three are yet to be told");
        courier.round(samples);
        assert_eq!(receive(&socket), "fulmar.n_total:0|c|#node:here");
    }
}
