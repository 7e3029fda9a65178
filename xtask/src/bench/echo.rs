//! A bare loopback echo that runs beside every timing and measures the machine, not a server.
//!
//! Two idle threads pass one byte back and forth every few milliseconds. When that takes long, the machine was away
//! (a paused virtual machine, another job holding every core) and the sample taken meanwhile says nothing.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(5);

/// Above this a stall voids the sample.
pub const STALL_MAX: Duration = Duration::from_millis(50);

/// The running echo; it ends when dropped.
#[derive(Debug)]
pub struct Echo {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    worst_ns: AtomicU64,
    last_ns: AtomicU64,
    over: AtomicBool,
}

impl Shared {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Echo {
    /// Starts both threads.
    ///
    /// # Errors
    /// The loopback socket could not be made.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        for end in [&near, &far] {
            end.set_nodelay(true)?;
            // Bounds the wait at the end, should one thread be gone.
            end.set_read_timeout(Some(Duration::from_secs(30)))?;
        }
        let shared = Arc::new(Shared {
            start: Instant::now(),
            worst_ns: AtomicU64::new(0),
            last_ns: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let asked = Arc::clone(&shared);
        let threads = vec![thread::spawn(move || answer(far)), thread::spawn(move || ask(near, &asked))];
        Ok(Self { shared, threads })
    }

    /// Forgets what was seen so far.
    pub fn reset(&self) {
        self.shared.worst_ns.store(0, Ordering::Relaxed);
    }

    /// The longest the echo took since `reset`, an answer still outstanding included.
    pub fn worst(&self) -> Duration {
        let outstanding = self.shared.now_ns().saturating_sub(self.shared.last_ns.load(Ordering::Relaxed));
        let outstanding = Duration::from_nanos(outstanding).saturating_sub(PAUSE);
        outstanding.max(Duration::from_nanos(self.shared.worst_ns.load(Ordering::Relaxed)))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to stop.
            let _ = thread.join();
        }
    }
}

fn answer(mut far: TcpStream) {
    let mut byte = [0];
    while matches!(far.read(&mut byte), Ok(1)) && far.write_all(&byte).is_ok() {}
}

fn ask(mut near: TcpStream, shared: &Shared) {
    let mut byte = [7];
    while !shared.over.load(Ordering::Relaxed) {
        thread::sleep(PAUSE);
        if near.write_all(&byte).is_err() || near.read_exact(&mut byte).is_err() {
            return;
        }
        let now = shared.now_ns();
        let before = shared.last_ns.swap(now, Ordering::Relaxed);
        // The whole turn counts, the sleep's overshoot too: both are the machine being away.
        let took = Duration::from_nanos(now - before).saturating_sub(PAUSE);
        shared.worst_ns.fetch_max(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
