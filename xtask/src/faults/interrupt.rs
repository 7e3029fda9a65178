//! Ends that come from outside: a signal, or a case that goes on for ever.
//!
//! The first signal lets the case end in order, so that nothing is left behind. The second, and the clock, end this process at
//! once; the kernel ends its children with it.

#![allow(unsafe_code)] // One libc call that std does not have; it says why it is sound.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Once, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use fulmar_rig::Folder;

static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Seconds since `BEGUN` at which the case must be over; 0 for none.
static OVER_BY_S: AtomicU64 = AtomicU64::new(0);
static BEGUN: OnceLock<Instant> = OnceLock::new();

extern "C" fn note(_: i32) {
    IS_INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Whether a signal has come.
pub fn is_interrupted() -> bool {
    IS_INTERRUPTED.load(Ordering::Relaxed)
}

/// From now on signals are noted, and what begins must be over within `longest`.
pub fn watch(longest: Duration) {
    static WATCHER: Once = Once::new();
    let begun = BEGUN.get_or_init(Instant::now);
    OVER_BY_S.store((begun.elapsed() + longest).as_secs() + 1, Ordering::Relaxed);
    WATCHER.call_once(|| {
        for signal in [libc::SIGINT, libc::SIGTERM] {
            // SAFETY: the action is a live value of our own, and what it runs stores one atomic.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = note as *const () as usize;
                action.sa_flags = libc::SA_RESETHAND;
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            }
        }
        thread::spawn(|| {
            loop {
                thread::sleep(Duration::from_millis(200));
                let over_by = OVER_BY_S.load(Ordering::Relaxed);
                if over_by > 0 && BEGUN.get().is_some_and(|begun| begun.elapsed().as_secs() > over_by) {
                    eprintln!("!! the case goes on for ever and is ended");
                    Folder::remove_all();
                    std::process::exit(1);
                }
            }
        });
    });
}

/// The case is over.
pub fn unwatch() {
    OVER_BY_S.store(0, Ordering::Relaxed);
}
