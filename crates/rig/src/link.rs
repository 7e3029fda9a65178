//! A wire between two processes that can be slowed, held up, fallen silent and cut.
//!
//! It forwards TCP from a port of its own to another, two threads a connection: for dozens of connections, not for thousands.
//! It tells replication connections from others by their first command, so that a primary's replicas starve while its
//! publishers and Sentinels see nothing: that is how a host looks whose uplink is saturated.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::ledger::since;
use crate::{RigError, free_port};

const CHUNK_BYTES: usize = 8 * 1024;
/// How often a held connection looks whether it may go on, and a port whether it is to be closed.
const LOOK: Duration = Duration::from_millis(5);

/// The wire. Dropping it cuts it.
#[derive(Debug)]
pub struct Link {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    /// Bytes per second to the side that connected; 0 for as many as there are.
    rate: AtomicU64,
    /// The same for replication connections alone.
    replica_rate: AtomicU64,
    /// The same for all connections together: a line they share.
    line_rate: AtomicU64,
    /// When that line is free again, in nanoseconds since `begun`.
    line_free_ns: AtomicU64,
    begun: Instant,
    delay_us: AtomicU64,
    /// Of this many chunks from the target one is dropped; 0 for none.
    drop_one_in: AtomicU64,
    is_silent: AtomicBool,
    is_cut: AtomicBool,
    is_over: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Link {
    /// A wire to `target`.
    ///
    /// # Errors
    /// No port is free.
    pub fn to(target: SocketAddr) -> Result<Self, RigError> {
        let port = free_port()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|e| RigError::io("listening", e))?;
        listener.set_nonblocking(true).map_err(|e| RigError::io("listening", e))?;
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            rate: AtomicU64::new(0),
            replica_rate: AtomicU64::new(0),
            line_rate: AtomicU64::new(0),
            line_free_ns: AtomicU64::new(0),
            begun: Instant::now(),
            delay_us: AtomicU64::new(0),
            drop_one_in: AtomicU64::new(0),
            is_silent: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            streams: Mutex::new(Vec::new()),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Ok(Self { port, shared })
    }

    /// Where to connect instead of to the target.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// At most so many bytes per second to whoever connected, each connection for itself; 0 lifts it.
    pub fn limit(&self, bytes_per_s: u64) {
        self.shared.rate.store(bytes_per_s, Ordering::Relaxed);
    }

    /// The same on replication connections alone.
    pub fn limit_replication(&self, bytes_per_s: u64) {
        self.shared.replica_rate.store(bytes_per_s, Ordering::Relaxed);
    }

    /// At most so many bytes per second to all who connected together, as a host's uplink has it: connections take turns, a chunk
    /// each. 0 lifts it.
    pub fn limit_line(&self, bytes_per_s: u64) {
        self.shared.line_rate.store(bytes_per_s, Ordering::Relaxed);
    }

    /// Whoever connects from now on is led there. Connections that are open stay where they are.
    pub fn redirect(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Everything is so much later.
    pub fn delay(&self, by: Duration) {
        self.shared.delay_us.store(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Throws away one in `chunks` of what comes from the target: what no network does to TCP, and a bad proxy might. For
    /// tests of a test, which must notice.
    pub fn lose_one_in(&self, chunks: u64) {
        self.shared.drop_one_in.store(chunks, Ordering::Relaxed);
    }

    /// Nothing passes any more, and nobody is told: what a lost host looks like.
    pub fn fall_silent(&self) {
        self.shared.is_silent.store(true, Ordering::Relaxed);
    }

    /// All connections end, and new ones end at once.
    pub fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::Relaxed);
        self.shared.close_all();
    }

    /// Everything passes again. Connections that were cut stay ended.
    pub fn mend(&self) {
        for flag in [&self.shared.is_silent, &self.shared.is_cut] {
            flag.store(false, Ordering::Relaxed);
        }
        let Shared { rate, replica_rate, line_rate, delay_us, drop_one_in, .. } = &*self.shared;
        for number in [rate, replica_rate, line_rate, delay_us, drop_one_in] {
            number.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.shared.close_all();
    }
}

impl Shared {
    fn close_all(&self) {
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Waits while nothing may pass; answers whether the connection goes on at all.
    fn may_pass(&self) -> bool {
        while self.is_silent.load(Ordering::Relaxed) && !self.is_over.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
        }
        !self.is_over.load(Ordering::Relaxed)
    }

    fn keep(&self, stream: &TcpStream) {
        if let Ok(twin) = stream.try_clone() {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that have ended need no closing.
            streams.retain(|stream| stream.peer_addr().is_ok());
            streams.push(twin);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.is_over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((near, _)) if shared.is_cut.load(Ordering::Relaxed) => drop(near),
            Ok((near, _)) => {
                let shared = Arc::clone(shared);
                thread::spawn(move || forward(near, &shared));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
            Err(_) => return,
        }
    }
}

fn forward(near: TcpStream, shared: &Arc<Shared>) {
    // A lost host answers no handshake; as the kernel has answered it here, the silence begins behind it.
    if near.set_nonblocking(false).is_err() || !shared.may_pass() {
        return;
    }
    let target = *shared.target.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(far) = TcpStream::connect_timeout(&target, Duration::from_secs(1)) else { return };
    for stream in [&near, &far] {
        let _ = stream.set_nodelay(true);
        shared.keep(stream);
    }
    let (Ok(near_twin), Ok(far_twin)) = (near.try_clone(), far.try_clone()) else { return };
    let is_replication = Arc::new(AtomicBool::new(false));
    let (said, asked) = (Arc::clone(shared), Arc::clone(&is_replication));
    let back = thread::spawn(move || pump(far_twin, near_twin, &said, &asked, true));
    pump(near, far, shared, &is_replication, false);
    let _ = back.join();
}

/// Moves bytes until either end is gone, then ends both.
fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared, is_replication: &AtomicBool, is_answer: bool) {
    let mut bytes = [0; CHUNK_BYTES];
    let mut chunks = 0_u64;
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !shared.may_pass() {
            break;
        }
        if !is_answer && contains(&bytes[..count], b"REPLCONF") {
            is_replication.store(true, Ordering::Relaxed);
        }
        thread::sleep(Duration::from_micros(shared.delay_us.load(Ordering::Relaxed)));
        chunks += 1;
        let one_in = shared.drop_one_in.load(Ordering::Relaxed);
        if is_answer && one_in > 0 && chunks.is_multiple_of(one_in) {
            continue;
        }
        let begun = Instant::now();
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
        if is_answer {
            share_line(shared, count);
            pace(shared, is_replication.load(Ordering::Relaxed), count, begun);
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Waits as long as these bytes take at the rate there is, looking at it again and again: it may be lifted meanwhile.
fn pace(shared: &Shared, is_replication: bool, count: usize, begun: Instant) {
    loop {
        let all = shared.rate.load(Ordering::Relaxed);
        let own = if is_replication { shared.replica_rate.load(Ordering::Relaxed) } else { 0 };
        let rate = [all, own].into_iter().filter(|rate| *rate > 0).min().unwrap_or(u64::MAX);
        let due = Duration::from_nanos((count as u64).saturating_mul(1_000_000_000) / rate);
        let left = due.saturating_sub(begun.elapsed());
        if left.is_zero() || shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        thread::sleep(left.min(LOOK));
    }
}

/// Waits for this connection's turn on the line that all share. Each has one chunk in it at most, so that a short answer waits for
/// one chunk of every other and not for all they have.
fn share_line(shared: &Shared, count: usize) {
    let rate = shared.line_rate.load(Ordering::Relaxed);
    if rate == 0 {
        return;
    }
    let cost_ns = (count as u64).saturating_mul(1_000_000_000) / rate;
    let now_ns = since(shared.begun);
    let taken = |free_ns: u64| Some(free_ns.max(now_ns) + cost_ns);
    let order = Ordering::Relaxed;
    let free_ns = shared.line_free_ns.fetch_update(order, order, taken).unwrap_or_default().max(now_ns) + cost_ns;
    while since(shared.begun) < free_ns {
        if shared.line_rate.load(order) == 0 || shared.is_over.load(order) {
            return;
        }
        thread::sleep(Duration::from_nanos(free_ns.saturating_sub(since(shared.begun))).min(LOOK));
    }
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|part| part.eq_ignore_ascii_case(needle))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says so many bytes to whoever connects, and the answer it begins with.
    fn speaker(first: u8, count: usize) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut stream = stream;
                    let _ = stream.write_all(&vec![first; count]);
                });
            }
        });
        addr
    }

    fn listen(addr: SocketAddr) -> Vec<u8> {
        let mut heard = Vec::new();
        let _ = TcpStream::connect(addr).unwrap().read_to_end(&mut heard);
        heard
    }

    #[test]
    fn a_line_is_shared_by_all_its_connections() {
        let link = Link::to(speaker(1, 40_000)).unwrap();
        link.limit_line(200_000);
        let begun = Instant::now();
        thread::scope(|scope| {
            let listening: Vec<_> = (0..3).map(|_| scope.spawn(|| listen(link.addr()).len())).collect();
            assert_eq!(listening.into_iter().map(|heard| heard.join().unwrap()).collect::<Vec<_>>(), [40_000; 3]);
        });
        // 120,000 bytes of which the last chunk need not have passed.
        assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
    }

    #[test]
    fn newcomers_are_led_elsewhere() {
        let link = Link::to(speaker(1, 3)).unwrap();
        assert_eq!(listen(link.addr()), [1; 3]);
        link.redirect(speaker(2, 3));
        assert_eq!(listen(link.addr()), [2; 3]);
    }
}
