//! A server of another make or age than those of the test run.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use fulmar_rig::{Folder, Process, free_port};

/// A server program that runs without a configuration file. It ends with this value, and its folder is removed.
pub struct Other {
    pub port: u16,
    _process: Process,
    _folder: Folder,
}

impl Other {
    /// Starts it with these further arguments, and does not wait until it answers.
    pub fn start(program: PathBuf, arguments: &[&str]) -> Self {
        let port = free_port().unwrap();
        let folder = Folder::make("other").unwrap();
        let shown = program.display().to_string();
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(folder.path());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::start(command, &shown).unwrap();
        Self { port, _process: process, _folder: folder }
    }
}
