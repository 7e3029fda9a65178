//! Conversations written as text: how they are read, and how they are played on any stage.
//!
//! `tests/transcripts/README.md` describes the format for those who write them. A stage is the world in memory or a real
//! node behind real sockets; nothing here knows which, and a transcript that passes on one must pass on the other.

mod play;
mod read;
mod rehearsal;

use std::path::Path;

use fulmar_protocol::app::App;

use crate::world::Heard;

pub use play::play;
pub use rehearsal::rehearse;

/// One conversation.
#[derive(Debug, Clone)]
pub struct Transcript {
    /// Name of its file, without the ending.
    pub name: String,
    /// What it shows: its first line.
    pub title: String,
    /// The apps it needs.
    pub apps: Vec<AppWanted>,
    /// Whether it needs time moved by hand.
    pub needs_time: bool,
    steps: Vec<(usize, Step)>,
}

/// An app that a transcript needs.
#[derive(Debug, Clone)]
pub struct AppWanted {
    /// What the transcript calls it.
    pub name: String,
    /// Keys of the configuration with values in TOML.
    pub settings: Vec<(String, String)>,
}

/// Where a transcript is played.
pub trait Stage {
    /// The app that plays the part of the one the transcript calls `name`.
    fn app(&self, name: &str) -> App;
    /// Opens a connection and calls it `who`.
    fn open(&mut self, who: &str, target: &str, origin: Option<&str>);
    /// Sends a text message. Whether it has taken effect is not known before [`Stage::rest`].
    fn say(&mut self, who: &str, text: &str);
    /// The next thing heard, waited for; `None` when nothing comes.
    fn hear(&mut self, who: &str) -> Option<Heard>;
    /// Waits until all that was said has taken effect, and all that came of it has arrived.
    fn rest(&mut self);
    /// What has arrived already and was not yet heard.
    fn overheard(&mut self, who: &str) -> Option<Heard>;
    /// Ends a connection.
    fn leave(&mut self, who: &str);
    /// Publishes one event through the REST API; it must be accepted.
    fn publish(&mut self, app: &str, channels: &[&str], event: &str, data: &str, except: Option<&str>);
    /// Lets time pass.
    fn wait(&mut self, ms: u64);
}

#[derive(Debug, Clone)]
enum Step {
    Let { name: String, value: String },
    Open { who: String, target: String, origin: Option<String> },
    Connect { who: String, app: String, client: String },
    Say { who: String, text: String },
    Subscribe { who: String, channel: String, member: Option<String> },
    Join { who: String, channel: String },
    Hear { who: String, text: String },
    HearNothing { who: String },
    Closed { who: String, code: u16 },
    Leave { who: String },
    Publish { app: String, channels: Vec<String>, event: String, except: Option<String>, data: String },
    Wait { ms: u64 },
}

/// Reads every transcript of a folder, in the order of their names.
///
/// # Panics
/// When one cannot be read: the message names file and line.
#[must_use]
pub fn read_all(folder: &Path) -> Vec<Transcript> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|ending| ending == "txt")).collect();
    paths.sort();
    let read_one = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.file_stem().expect("it has an ending").to_string_lossy().into_owned();
        read::read(&name, &text).unwrap_or_else(|why| panic!("{}:{why}", path.display()))
    };
    paths.iter().map(read_one).collect()
}
