//! The conversations of `tests/transcripts` once more, over the HTTP fallback transports.
//!
//! The same text as over WebSockets (`transcripts.rs`) and in memory (`fulmar-sim`): a session over HTTP is a connection
//! like any other. Nothing here sleeps: that nothing more comes is proved by messages that are answered.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

#[path = "support/apps.rs"]
mod apps;
mod support;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use fulmar_protocol::app::App;
use fulmar_sim::Heard;
use fulmar_sim::transcript::{Stage, play, read_all};
use serde_json::json;

use apps::{Troupe, config_of};
use support::{Node, PATIENCE, connect, post};

/// As over WebSockets, see there.
const ROUNDS_TO_REST: u32 = 3;
/// Opens paths that are none of a fallback; what is refused and how is tested in `fallback.rs`.
const NOT_OVER_HTTP: &str = "opening-refusals";

/// FB-3
#[test]
fn every_conversation_goes_as_written_over_streaming() {
    play_all(true);
}

/// FB-3
#[test]
fn every_conversation_goes_as_written_over_polling() {
    play_all(false);
}

fn play_all(is_streaming: bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/transcripts");
    let mut transcripts = read_all(&folder);
    transcripts.retain(|transcript| !transcript.needs_time && transcript.name != NOT_OVER_HTTP);
    assert!(transcripts.len() > 30, "the transcripts are found");
    let node = Node::start(&format!("fallback-transcripts-{is_streaming}"), &config_of(&transcripts));
    let failed = (0..).zip(&transcripts).filter(|(number, transcript)| {
        let troupe = Troupe::of(*number, transcript);
        let mut stage = Theatre { port: node.port, number: *number, opened: 0, is_streaming, troupe };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(transcript, &mut stage))).is_err()
    });
    let failed: Vec<_> = failed.map(|(_, transcript)| format!("{}: {}", transcript.name, transcript.title)).collect();
    assert!(failed.is_empty(), "{} of {} failed: {failed:#?}", failed.len(), transcripts.len());
}

struct Person {
    port: u16,
    /// Path of the session, without the verb.
    path: String,
    query: String,
    origin: String,
    /// The answer that is being received, if it goes on.
    stream: Option<Chunks>,
    is_streaming: bool,
    heard: VecDeque<Heard>,
    is_closed: bool,
}

/// The body of a streaming answer.
struct Chunks {
    source: BufReader<TcpStream>,
    read: String,
}

impl Chunks {
    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.find('\n') {
                let rest = self.read.split_off(end + 1);
                return std::mem::replace(&mut self.read, rest);
            }
            let mut size = String::new();
            self.source.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim_end(), 16).expect("the size of a chunk");
            assert!(size > 0, "a stream ends behind a close only");
            let mut chunk = vec![0; size + 2];
            self.source.read_exact(&mut chunk).unwrap();
            self.read.push_str(str::from_utf8(&chunk[..size]).unwrap());
        }
    }
}

impl Person {
    fn request(&self, verb: &str, query: &str, body: &str) -> BufReader<TcpStream> {
        let (path, origin, length) = (&self.path, &self.origin, body.len());
        let mut socket = connect(self.port);
        let head =
            format!("POST {path}/{verb}?{query} HTTP/1.1\r\nHost: x\r\n{origin}Content-Length: {length}\r\n\r\n");
        socket.write_all((head + body).as_bytes()).unwrap();
        BufReader::new(socket)
    }

    fn say(&self, text: &str) -> u16 {
        status(&mut self.request("xhr_send", "t=1&n=2", &json!([text]).to_string())).0
    }

    /// Takes in what comes next.
    fn read(&mut self) {
        if self.is_streaming {
            if self.stream.is_none() {
                let mut source = self.request("xhr_streaming", &self.query, "");
                assert_eq!(status(&mut source).0, 200);
                self.stream = Some(Chunks { source, read: String::new() });
            }
            let line = self.stream.as_mut().unwrap().line();
            self.take(line.trim_end());
        } else {
            let mut source = self.request("xhr", &self.query, "");
            let (status, length) = status(&mut source);
            assert_eq!(status, 200);
            let mut body = vec![0; length];
            source.read_exact(&mut body).unwrap();
            str::from_utf8(&body).unwrap().lines().for_each(|line| self.take(line));
        }
    }

    fn take(&mut self, line: &str) {
        match line.split_at(1) {
            ("o", "") => {}
            ("h", _) => {}
            ("a", texts) => {
                let texts: Vec<String> = serde_json::from_str(texts).unwrap();
                self.heard.extend(texts.into_iter().map(Heard::Text));
            }
            ("c", close) => {
                let (code, reason) = serde_json::from_str(close).unwrap();
                self.heard.push_back(Heard::Closed(code, reason));
                self.is_closed = true;
            }
            _ => panic!("not a frame: {line:?}"),
        }
    }

    /// Reads until an answer to what nobody else says has come; it is not part of the conversation.
    fn read_up_to_an_answer(&mut self, mark: &str) {
        self.say(&json!({"event": mark}).to_string());
        let is_answer = |heard: &Heard| matches!(heard, Heard::Text(text) if text.contains(mark));
        while !self.is_closed {
            if let Some(at) = self.heard.iter().position(is_answer) {
                self.heard.remove(at);
                return;
            }
            self.read();
        }
    }

    /// Breaks off a receive request that certainly waits.
    fn break_off(self) {
        if self.is_streaming {
            drop(self.stream);
            return;
        }
        // Of two polls the older one is answered `h` when the newer one waits; which is which, threads decide.
        let open = || {
            let poll = self.request("xhr", &self.query, "");
            poll.get_ref().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            poll
        };
        let mut polls = [open(), open()];
        loop {
            let Some(answered) = polls.iter_mut().find_map(|poll| is_answered(poll).then_some(poll)) else { continue };
            answered.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
            let mut body = vec![0; status(answered).1];
            answered.read_exact(&mut body).unwrap();
            if body == b"h\n" {
                return;
            }
            // Something was still to be heard: this one did not wait.
            *answered = open();
        }
    }
}

fn is_answered(poll: &mut BufReader<TcpStream>) -> bool {
    match poll.fill_buf() {
        Ok(_) => true,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
            false
        }
    }
}

/// Status and length of an answer; its head is read.
fn status(source: &mut BufReader<TcpStream>) -> (u16, usize) {
    let mut line = String::new();
    source.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no answer but {line:?}")).parse().unwrap();
    let mut length = 0;
    while !line.trim_end().is_empty() {
        line.clear();
        source.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim_end().parse().unwrap();
        }
    }
    (status, length)
}

struct Theatre {
    port: u16,
    number: usize,
    /// Sessions so far: no name is used twice.
    opened: usize,
    is_streaming: bool,
    troupe: Troupe<Person>,
}

impl Stage for Theatre {
    fn app(&self, name: &str) -> App {
        self.troupe.app(name)
    }

    fn open(&mut self, who: &str, target: &str, origin: Option<&str>) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let key = path.strip_prefix("/app/").expect("a fallback has no other paths").split('/').next().unwrap();
        self.opened += 1;
        let session = format!("{who}-{}", self.opened);
        let mut person = Person {
            port: self.port,
            path: format!("/pusher/app/{key}/{}/{session}", self.number),
            query: query.to_owned(),
            origin: origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default(),
            stream: None,
            is_streaming: self.is_streaming,
            heard: VecDeque::new(),
            is_closed: false,
        };
        while person.heard.is_empty() {
            person.read();
        }
        self.troupe.people.insert(who.to_owned(), person);
    }

    fn say(&mut self, who: &str, text: &str) {
        assert_eq!(self.troupe.person(who).say(text), 204);
    }

    fn hear(&mut self, who: &str) -> Option<Heard> {
        let person = self.troupe.person(who);
        while person.heard.is_empty() && !person.is_closed {
            person.read();
        }
        person.heard.pop_front()
    }

    fn rest(&mut self) {
        for round in 0..ROUNDS_TO_REST {
            for person in self.troupe.people.values_mut() {
                person.read_up_to_an_answer(&format!("round-{round}-of-the-rest"));
            }
        }
    }

    fn overheard(&mut self, who: &str) -> Option<Heard> {
        self.troupe.person(who).heard.pop_front()
    }

    fn leave(&mut self, who: &str) {
        let person = self.troupe.people.remove(who).unwrap();
        let (port, path) = (self.port, person.path.clone());
        person.break_off();
        let gone = || {
            let mut socket = connect(port);
            socket
                .write_all(
                    format!("POST {path}/xhr_send HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]").as_bytes(),
                )
                .unwrap();
            status(&mut BufReader::new(socket)).0 == 404
        };
        // A message that came late may have answered the poll that was to be broken off: then the session ends when nobody
        // has asked for 30 seconds.
        let since = std::time::Instant::now();
        while !gone() {
            assert!(since.elapsed() < PATIENCE * 2, "{who} is never gone");
        }
    }

    fn publish(&mut self, app: &str, channels: &[&str], event: &str, data: &str, except: Option<&str>) {
        let body = json!({"name": event, "channels": channels, "data": data, "socket_id": except});
        post(self.port, &self.app(app), "events", &body);
    }

    fn wait(&mut self, _: u64) {
        unreachable!("conversations that move time are left out");
    }
}
