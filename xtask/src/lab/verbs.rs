//! The binary's own verbs, called as an operator calls them: a process, its exit code, and what it wrote.
//!
//! A verb that the binary does not have is told apart from one that fails: a day must not claim what was never tried.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fulmar_rig::{Folder, Process};

use super::timeline::{Timeline, Voice};
use crate::faults::stage::failure;
use crate::project::Failure;

/// How long a call may take.
const ANSWER_MAX: Duration = Duration::from_secs(40);
/// Lines of an answer that the timeline shows.
const LINES_MAX: usize = 40;

/// The exit code of a verb that a guard has refused.
pub const REFUSED: i32 = 3;

/// What a verb answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its exit code; -1 when it was killed.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub said: String,
    /// How long it took.
    pub took: Duration,
}

/// A call that goes on.
pub struct Call {
    process: Process,
    folder: Folder,
    begun: Instant,
    words: String,
}

/// The verbs.
pub struct Verbs {
    program: PathBuf,
    config: PathBuf,
    timeline: Timeline,
    known: HashMap<String, bool>,
}

impl Verbs {
    /// Verbs of `program`, for the deployment that `config` describes.
    pub fn of(program: &Path, config: &Path, timeline: &Timeline) -> Self {
        let (program, config) = (program.to_owned(), config.to_owned());
        Self { program, config, timeline: timeline.clone(), known: HashMap::new() }
    }

    /// Whether the binary has it.
    pub fn has(&mut self, verb: &[&str]) -> bool {
        let name = verb.join(" ");
        if let Some(known) = self.known.get(&name) {
            return *known;
        }
        let mut command = Command::new(&self.program);
        let asked = command.args(verb).arg("--help").stdin(Stdio::null()).output();
        let has = asked.is_ok_and(|output| output.status.success());
        self.known.insert(name, has);
        has
    }

    /// Calls it, waits for its end, and shows what it says.
    pub fn call(&self, words: &[&str]) -> Result<Answer, Failure> {
        self.start(words)?.wait(&self.timeline)
    }

    /// Calls it and does not wait.
    pub fn start(&self, words: &[&str]) -> Result<Call, Failure> {
        let folder = Folder::make("verb").map_err(failure)?;
        let open = |name: &str| {
            let file = folder.path().join(name);
            File::create(&file).map_err(|error| Failure(format!("writing {}: {error}", file.display())))
        };
        let mut command = Command::new(&self.program);
        command.args(words).arg("--config").arg(&self.config).stdin(Stdio::null());
        command.env_clear().stdout(open("out")?).stderr(open("said")?);
        let shown = format!("fulmar {}", words.join(" "));
        let process = Process::start(command, &shown).map_err(failure)?;
        Ok(Call { process, folder, begun: Instant::now(), words: shown })
    }

    /// Waits for a call's end and shows what it says.
    pub fn wait(&self, call: Call) -> Result<Answer, Failure> {
        call.wait(&self.timeline)
    }
}

impl Call {
    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Where its standard output goes.
    pub fn out_file(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// Whether it has written this so far.
    pub fn says(&self, words: &str) -> bool {
        let says =
            |name: &str| fs::read_to_string(self.folder.path().join(name)).is_ok_and(|text| text.contains(words));
        says("out") || says("said")
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.process.kill();
    }

    fn wait(self, timeline: &Timeline) -> Result<Answer, Failure> {
        let status = self.process.ended(ANSWER_MAX).map_err(failure)?;
        let read = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        let code = status.and_then(|status| status.code()).unwrap_or(-1);
        let answer = Answer { code, out: read("out"), said: read("said"), took: self.begun.elapsed() };
        let took_ms = answer.took.as_millis();
        timeline.say(Voice::Verb, format!("`{}` ended with {code} after {took_ms} ms", self.words));
        for text in [&answer.out, &answer.said] {
            for line in text.lines().filter(|line| !line.trim().is_empty()).take(LINES_MAX) {
                timeline.say(Voice::Verb, format!("    {line}"));
            }
        }
        Ok(answer)
    }
}
