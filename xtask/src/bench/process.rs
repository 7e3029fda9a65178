//! The server processes under measurement: started, asked for their CPU and memory, and ended by their own pid.
//!
//! A started server never outlives the bench: it ends with the guard, and by the kernel's hand when the bench dies.

#![allow(unsafe_code)] // Three libc calls that std does not have; each says why it is sound.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::BenchError;

const READY_MAX: Duration = Duration::from_secs(15);
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// One server being measured.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    pid: u32,
    child: Option<Child>,
}

impl Server {
    /// Starts `command` and waits until `addr` accepts connections. What it prints goes to `log`.
    ///
    /// # Errors
    /// It could not be started, ended at once, or did not listen in time.
    pub fn start(command: &mut Command, addr: SocketAddr, log: &Path) -> Result<Self, BenchError> {
        let doing = || format!("starting {:?}", command.get_program());
        let sink = fs::File::create(log).map_err(|e| BenchError::io(format!("creating {}", log.display()), e))?;
        let twin = sink.try_clone().map_err(|e| BenchError::io(doing(), e))?;
        let what = doing();
        command.stdin(Stdio::null()).stdout(sink).stderr(twin);
        // SAFETY: prctl is async-signal-safe and touches nothing but the new process.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().map_err(|e| BenchError::io(what.clone(), e))?;
        let mut server = Self { addr, pid: child.id(), child: Some(child) };
        let deadline = Instant::now() + READY_MAX;
        while TcpStream::connect_timeout(&addr, Duration::from_millis(200)).is_err() {
            let ended = server.child.as_mut().and_then(|c| c.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(BenchError::Peer(format!("{what}: it ended with {status}; see {}", log.display())));
            }
            if Instant::now() > deadline {
                return Err(BenchError::Peer(format!("{what}: nothing listens on {addr}; see {}", log.display())));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// A server somebody else started and will end.
    pub fn running(addr: SocketAddr, pid: u32) -> Self {
        Self { addr, pid, child: None }
    }

    /// CPU time of all its threads so far, ended ones included, to the nanosecond.
    ///
    /// # Errors
    /// The process is gone.
    pub fn cpu(&self) -> Result<Duration, BenchError> {
        cpu_of(self.pid).map_err(|e| BenchError::io(format!("reading the CPU time of process {}", self.pid), e))
    }

    /// Its resident memory now, in bytes.
    ///
    /// # Errors
    /// The process is gone, or /proc is not readable.
    pub fn resident_bytes(&self) -> Result<u64, BenchError> {
        // The cheaper statm counts per core and may be off by dozens of pages.
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        let text = fs::read_to_string(&path).map_err(|e| BenchError::io(format!("reading {path}"), e))?;
        let line = text.lines().find_map(|l| l.strip_prefix("Rss:"));
        let kib = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
        kib.map(|k| k * 1024).ok_or_else(|| BenchError::Peer(format!("{path} has no Rss line")))
    }

    /// Waits until it has done nothing for a moment, so that work it put off is counted too.
    ///
    /// # Errors
    /// The process is gone.
    pub fn settle(&self) -> Result<(), BenchError> {
        let deadline = Instant::now() + SETTLE_MAX;
        let mut before = self.cpu()?;
        let mut quiet = 0;
        while quiet < 3 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
            let now = self.cpu()?;
            quiet = if now.saturating_sub(before) < Duration::from_micros(300) { quiet + 1 } else { 0 };
            before = now;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is as good as ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A free port of this machine. Somebody may take it before the server does; then the server says so.
///
/// # Errors
/// No socket could be made.
pub fn free_port() -> Result<u16, BenchError> {
    let found = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    found.map(|a| a.port()).map_err(|e| BenchError::io("looking for a free port", e))
}

/// CPU time of all threads of a process so far, ended ones included.
///
/// # Errors
/// The process is gone.
pub fn cpu_of(pid: u32) -> io::Result<Duration> {
    // The kernel's name for "CPU time of that whole process": the inverted pid and the scheduler's clock (2).
    let pid = libc::clockid_t::try_from(pid).map_err(io::Error::other)?;
    read_clock((!pid << 3) | 2)
}

/// CPU time of the calling thread so far.
pub fn own_cpu() -> Duration {
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

fn read_clock(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec of our own; a bad clock id is an error, not undefined.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Ok(Duration::new(seconds, nanos))
}

/// Raises this process's limit of open files to what the system allows and returns it; children inherit it.
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live rlimit of our own, for the length of each call.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return 0;
        }
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
    }
    limit.rlim_cur
}

/// How busy the machine was with neither this process nor its children.
#[derive(Debug)]
pub struct Others {
    at: Instant,
    ticks: u64,
}

impl Others {
    /// The state now; children that still run are not yet told apart, nor is any other process but `besides`.
    pub fn now(besides: &[u32]) -> Self {
        let measured: Duration = besides.iter().filter_map(|pid| cpu_of(*pid).ok()).sum();
        let measured = u64::try_from(measured.as_millis()).unwrap_or(0) / 10;
        Self { at: Instant::now(), ticks: machine_busy_ticks().saturating_sub(own_ticks() + measured) }
    }

    /// Cores that were busy for others from `before` until now, and how long that is.
    #[allow(clippy::cast_precision_loss)]
    pub fn cores_since(&self, before: &Self) -> (f64, Duration) {
        const TICKS_PER_S: f64 = 100.0;
        let took = self.at.duration_since(before.at);
        let busy = self.ticks.saturating_sub(before.ticks) as f64 / TICKS_PER_S / took.as_secs_f64().max(1e-3);
        (busy, took)
    }
}

/// Time of all cores that was neither idle nor waiting for a disk, in clock ticks.
fn machine_busy_ticks() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let values: Vec<u64> = fields.take(8).filter_map(|f| f.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    values.iter().enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).map(|(_, v)| v).sum()
}

/// Time of this process and of its children that ended, in clock ticks.
fn own_ticks() -> u64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in brackets may hold anything; utime, stime, cutime, cstime are the 12th to 15th after it.
    let after = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    after.split_whitespace().skip(11).take(4).filter_map(|f| f.parse::<u64>().ok()).sum()
}
