//! A node of ours as users run it: the real binary with a configuration, on a port and with a storage folder of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Folder, Process, RigError, eventually, free_port, http};

const READY_MAX: Duration = Duration::from_secs(30);

/// From when on a node counts as started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// It wants traffic: `/readyz` is answered 200.
    ForTraffic,
    /// It lives: `/livez` is answered 200, whatever it waits for.
    Alive,
    /// At once.
    Unseen,
}

/// What a node is started with beside its configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeOptions {
    /// Variables of its environment; there are no others.
    pub variables: Vec<(String, String)>,
    /// How much it steps back behind others (`nice`), from 0 to 19.
    pub niceness: u8,
}

/// A node. It ends with this value, and its folder is removed.
#[derive(Debug)]
pub struct Node {
    process: Mutex<Process>,
    program: PathBuf,
    options: NodeOptions,
    port: u16,
    folder: Folder,
}

impl Node {
    /// Starts `program` with `config` (TOML), and waits until it is `ready`.
    ///
    /// # Errors
    /// It ends, or does not become ready.
    pub fn start(program: &Path, config: &str, ready: Ready) -> Result<Self, RigError> {
        Self::start_with(program, config, ready, &NodeOptions::default())
    }

    /// The same, with more to say.
    ///
    /// # Errors
    /// It ends, or does not become ready.
    pub fn start_with(program: &Path, config: &str, ready: Ready, options: &NodeOptions) -> Result<Self, RigError> {
        let folder = Folder::make("node")?;
        let file = folder.path().join("fulmar.toml");
        fs::write(&file, config).map_err(|e| RigError::io(format!("writing {}", file.display()), e))?;
        let port = free_port()?;
        let process = Mutex::new(launch(program, port, &folder, options)?);
        let node = Self { process, program: program.to_owned(), options: options.clone(), port, folder };
        node.await_ready(ready, READY_MAX)?;
        Ok(node)
    }

    /// Where it serves.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Where it writes that.
    pub fn log_file(&self) -> PathBuf {
        self.folder.path().join("node.log")
    }

    /// Where it keeps what outlives it, the way to its admin API among that.
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    /// Whether the process has not ended.
    pub fn is_running(&self) -> bool {
        self.process().is_running()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// SIGKILL, and does not wait: one with niceness comes to its end only when others leave it the time.
    pub fn begin_to_kill(&self) {
        self.process().begin_to_kill();
    }

    /// SIGSTOP.
    pub fn stop(&self) {
        self.process().stop();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process().resume();
    }

    /// SIGTERM; it drains.
    pub fn terminate(&self) {
        self.process().terminate();
    }

    /// Waits for its end; answers how it ended, unless that was asked before.
    ///
    /// # Errors
    /// It goes on for longer.
    pub fn await_end(&self, patience: Duration) -> Result<Option<ExitStatus>, RigError> {
        self.process().ended(patience)
    }

    /// Ends it if it runs and starts it again, with the same port, configuration and storage.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn restart(&self, ready: Ready) -> Result<(), RigError> {
        self.kill();
        *self.process() = launch(&self.program, self.port, &self.folder, &self.options)?;
        self.await_ready(ready, READY_MAX)
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// It ends, or is not within `patience`.
    pub fn await_ready(&self, ready: Ready, patience: Duration) -> Result<(), RigError> {
        let path = match ready {
            Ready::ForTraffic => "/readyz",
            Ready::Alive => "/livez",
            Ready::Unseen => return Ok(()),
        };
        let mut has_ended = false;
        let waited = eventually(&format!("{path} is answered 200"), patience, || {
            has_ended = !self.is_running();
            let status = || http::status_of(self.addr(), path, Duration::from_secs(1));
            (has_ended || status().is_ok_and(|status| status == 200)).then_some(())
        });
        match waited {
            Ok(()) if !has_ended => Ok(()),
            Ok(()) => Err(RigError::Ended { what: "a node".to_owned(), log: self.last_words() }),
            Err(RigError::Late { what, waited }) => {
                Err(RigError::Late { what: format!("{what}; it said:\n{}", self.last_words()), waited })
            }
            Err(other) => Err(other),
        }
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn launch(program: &Path, port: u16, folder: &Folder, options: &NodeOptions) -> Result<Process, RigError> {
    let log = folder.path().join("node.log");
    let doing = || format!("opening {}", log.display());
    let said = File::options().append(true).create(true).open(&log).map_err(|e| RigError::io(doing(), e))?;
    let twin = said.try_clone().map_err(|e| RigError::io(doing(), e))?;
    // It becomes the program, under the same process id.
    let mut command = if options.niceness > 0 { Command::new("nice") } else { Command::new(program) };
    if options.niceness > 0 {
        command.args(["-n", &options.niceness.to_string()]).arg(program);
    }
    command.args(["serve", "--port", &port.to_string(), "--config"]).arg(folder.path().join("fulmar.toml"));
    command.args(["--set", "admin.port=0", "--set"]);
    command.arg(format!("storage.path={}", folder.path().join("storage").display()));
    // Nothing of the environment of the test run may reach the node.
    command.env_clear().envs(options.variables.iter().cloned());
    command.stdin(Stdio::null()).stdout(twin).stderr(said);
    Process::start(command, &format!("{} serve", program.display()))
}
