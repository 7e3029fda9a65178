//! One child process: started, signalled and ended by its own pid, never by a name.
//!
//! It cannot outlive the process that started it: the kernel kills it. It has a process group of its own, so that Ctrl-C at a
//! terminal reaches the test and not what the test has started.

#![allow(unsafe_code)] // Two libc calls that std does not have; each says why it is sound.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use crate::{RigError, eventually};

/// A running child. All methods do nothing once it has ended.
#[derive(Debug)]
pub struct Process {
    child: Mutex<Option<Child>>,
    pid: u32,
    what: String,
}

impl Process {
    /// Starts `command`; `what` names it in reports.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(mut command: Command, what: &str) -> Result<Self, RigError> {
        command.process_group(0);
        let child = spawn(command).map_err(|e| RigError::io(format!("starting {what}"), e))?;
        Ok(Self { pid: child.id(), child: Mutex::new(Some(child)), what: what.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        let mut child = self.child();
        let ended = child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            *child = None;
        }
        !ended
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGKILL, and does not wait.
    pub fn begin_to_kill(&self) {
        self.signal(libc::SIGKILL);
    }

    /// SIGSTOP: it hangs, its sockets stay open.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// SIGTERM; it may take its time.
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It goes on for longer than `patience`.
    pub fn ended(&self, patience: Duration) -> Result<Option<ExitStatus>, RigError> {
        let look = || match self.child().as_mut() {
            None => Some(None),
            Some(child) => child.try_wait().ok().flatten().map(Some),
        };
        let status = eventually(&format!("the end of {}", self.what), patience, look)?;
        *self.child() = None;
        Ok(status)
    }

    fn signal(&self, signal: i32) {
        // The lock is held: the child is not reaped meanwhile, so the pid is still its own.
        if let Some(child) = self.child().as_mut()
            && matches!(child.try_wait(), Ok(None))
            && let Ok(pid) = libc::pid_t::try_from(child.id())
        {
            // SAFETY: kill touches no memory of ours.
            unsafe { libc::kill(pid, signal) };
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

type Wish = (Command, Sender<io::Result<Child>>);

/// Starts it from a thread that lives as long as this process: the kernel's promise to kill the child is bound to the thread
/// that made it, and a test's own thread may end earlier than what it shares.
fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Wish>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (wishes, wanted) = channel::<Wish>();
        thread::spawn(move || {
            for (mut command, answer) in wanted {
                // SAFETY: prctl is async-signal-safe and touches nothing but the new process.
                unsafe {
                    command.pre_exec(|| {
                        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                        Ok(())
                    });
                }
                let _ = answer.send(command.spawn());
            }
        });
        wishes
    });
    let (answer, answered) = channel();
    spawner.send((command, answer)).expect("the spawner lives as long as this process");
    answered.recv().expect("the spawner answers each wish")
}
