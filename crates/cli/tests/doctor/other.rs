//! A server of another make, age or clock than those of the test run.

use std::process::{Command, Stdio};
use std::time::Duration;

use fulmar_rig::{Folder, Process, free_port};

/// A server program that runs without a configuration file. It ends with this value, and its folder is removed.
pub struct Other {
    pub port: u16,
    process: Process,
    _folder: Folder,
}

impl Other {
    /// Starts it with these further arguments, and does not wait until it answers.
    pub fn start(mut command: Command, arguments: &[&str]) -> Self {
        let port = free_port().unwrap();
        let folder = Folder::make("other").unwrap();
        let shown = command.get_program().display().to_string();
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(folder.path());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::start(command, &shown).unwrap();
        Self { port, process, _folder: folder }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // In order, where it can be: killed, a server with a clock of its own leaves what it shares with its children in /dev/shm.
        self.process.terminate();
        let _ = self.process.ended(Duration::from_secs(5));
    }
}
