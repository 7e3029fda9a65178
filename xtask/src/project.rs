//! Where the project's files are, and how the verbs start other programs.
//!
//! It decides nothing. Programs get no standard input, so that none can wait for an answer nobody gives.

use std::env;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a verb did not succeed, in words for the person who called it.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a verb answers.
pub type Outcome = Result<(), Failure>;

/// The folder that holds the workspace.
pub fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask is a folder of the workspace").to_path_buf()
}

/// A command run in the root of the project.
pub fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// Cargo, the same that runs this.
pub fn cargo(arguments: &[&str]) -> Command {
    command(&env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()), arguments)
}

/// Whether `program` is on the path.
pub fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether this runs as root.
pub fn is_root() -> bool {
    command("id", &["-u"]).output().is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}

/// Says what begins now.
pub fn announce(what: &str) {
    println!("==> {what}");
}

/// Runs `command` to its end, its output going where ours goes.
pub fn run(command: &mut Command) -> Outcome {
    let shown = shown(command);
    let status = command.status().map_err(|error| Failure(format!("`{shown}` did not start: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure(format!("`{shown}` failed ({status})"))) }
}

/// Runs `command` to its end, shows its output and hands each line of it to `line` as well.
pub fn run_and_read(command: &mut Command, mut line: impl FnMut(&str)) -> Outcome {
    read(command, |text| {
        println!("{text}");
        line(text);
    })
}

/// Runs `command` to its end and hands each line of its output to `line`.
pub fn read(command: &mut Command, mut line: impl FnMut(&str)) -> Outcome {
    let shown = shown(command);
    let not_started = |error| Failure(format!("`{shown}` did not start: {error}"));
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(not_started)?;
    let mut output = BufReader::new(child.stdout.take().expect("it was asked for"));
    let mut bytes = Vec::new();
    while output.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
        line(String::from_utf8_lossy(&bytes).trim_end());
        bytes.clear();
    }
    let status = child.wait().map_err(|error| Failure(format!("`{shown}` was lost: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure(format!("`{shown}` failed ({status})"))) }
}

/// Files of the project, tracked or new, relative to the root; without what `.gitignore` names.
pub fn files() -> Result<Vec<PathBuf>, Failure> {
    // A checkout may belong to another user, as in a container; listing its files is harmless.
    let output =
        command("git", &["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output()
            .map_err(|error| Failure(format!("git is needed to list the project's files: {error}")))?;
    if !output.status.success() {
        return Err(Failure(format!("git could not list the files: {}", String::from_utf8_lossy(&output.stderr))));
    }
    let listed = String::from_utf8_lossy(&output.stdout);
    let present = |path: &PathBuf| root().join(path).is_file();
    let mut files: Vec<_> = listed.split_terminator('\0').map(PathBuf::from).filter(present).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// The text of a file of the project; `None` when it is not text.
pub fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(root().join(path)).ok()
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
