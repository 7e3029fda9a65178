//! The conversations of `tests/transcripts`, played over real sockets against the real binary.
//!
//! The same are played in memory by `fulmar-sim`, which also reads them. Nothing here sleeps: that nothing more comes is
//! proved by pings that come back.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

#[path = "support/apps.rs"]
mod apps;
mod support;

use std::collections::VecDeque;
use std::net::TcpStream;
use std::path::Path;

use fulmar_protocol::app::App;
use fulmar_sim::Heard;
use fulmar_sim::transcript::{Stage, play, read_all};
use serde_json::json;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

use apps::{Troupe, config_of};
use support::{Node, connect, post};

/// Pings after which everything said before has reached everybody. The first to come back proves that a worker has heard
/// what was said and has told the other workers; each of these takes what it was told behind what its sockets say, so
/// that it may come out behind the second but not behind the third.
const ROUNDS_TO_REST: u32 = 3;

#[test]
fn every_conversation_goes_as_written_on_the_real_binary() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/transcripts");
    let mut transcripts = read_all(&folder);
    transcripts.retain(|transcript| !transcript.needs_time);
    assert!(transcripts.len() > 30, "the transcripts are found");
    let node = Node::start("transcripts", &config_of(&transcripts));
    let failed = (0..).zip(&transcripts).filter(|(number, transcript)| {
        let mut stage = Theatre { port: node.port, troupe: Troupe::of(*number, transcript) };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(transcript, &mut stage))).is_err()
    });
    let failed: Vec<_> = failed.map(|(_, transcript)| format!("{}: {}", transcript.name, transcript.title)).collect();
    assert!(failed.is_empty(), "{} of {} failed: {failed:#?}", failed.len(), transcripts.len());
}

struct Person {
    socket: WebSocket<TcpStream>,
    heard: VecDeque<Heard>,
    is_closed: bool,
}

struct Theatre {
    port: u16,
    troupe: Troupe<Person>,
}

impl Person {
    /// Takes one message in; answers what came back with a pong.
    fn read(&mut self) -> Option<Vec<u8>> {
        match self.socket.read() {
            Ok(Message::Text(text)) => self.heard.push_back(Heard::Text(text.as_str().to_owned())),
            Ok(Message::Pong(bytes)) => return Some(bytes.to_vec()),
            Ok(Message::Close(frame)) => {
                let (code, reason) = frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()));
                self.heard.push_back(Heard::Closed(code, reason));
                self.is_closed = true;
                // Sends the answer that the node waits for.
                while self.socket.read().is_ok() {}
            }
            Ok(other) => panic!("nothing of the protocol: {other:?}"),
            Err(error) => panic!("the connection ends without a close frame: {error}"),
        }
        None
    }
}

impl Stage for Theatre {
    fn app(&self, name: &str) -> App {
        self.troupe.app(name)
    }

    fn open(&mut self, who: &str, target: &str, origin: Option<&str>) {
        let mut request = format!("ws://127.0.0.1:{}{target}", self.port).into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", HeaderValue::from_str(origin).unwrap());
        }
        let (socket, _) = tungstenite::client(request, connect(self.port)).expect("every upgrade is accepted");
        self.troupe.people.insert(who.to_owned(), Person { socket, heard: VecDeque::new(), is_closed: false });
    }

    fn say(&mut self, who: &str, text: &str) {
        self.troupe.person(who).socket.send(Message::text(text)).unwrap();
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
            let ping = round.to_be_bytes().to_vec();
            for person in self.troupe.people.values_mut().filter(|person| !person.is_closed) {
                person.socket.send(Message::Ping(ping.clone().into())).unwrap();
                while !person.is_closed && person.read().as_ref() != Some(&ping) {}
            }
        }
    }

    fn overheard(&mut self, who: &str) -> Option<Heard> {
        self.troupe.person(who).heard.pop_front()
    }

    fn leave(&mut self, who: &str) {
        let mut person = self.troupe.people.remove(who).unwrap();
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        person.socket.close(Some(goodbye.clone())).unwrap();
        // What others do at the end may still come first.
        let answer = loop {
            match person.socket.read() {
                Ok(Message::Close(answer)) => break answer,
                Ok(_) => {}
                Err(error) => panic!("{who} says goodbye and is not answered: {error}"),
            }
        };
        assert_eq!(answer, Some(goodbye), "WS-42: the same code comes back");
        let end = person.socket.read();
        assert!(matches!(end, Err(Error::ConnectionClosed)), "and then the socket is closed, not {end:?}");
    }

    fn publish(&mut self, app: &str, channels: &[&str], event: &str, data: &str, except: Option<&str>) {
        let body = json!({"name": event, "channels": channels, "data": data, "socket_id": except});
        post(self.port, &self.app(app), "events", &body);
    }

    fn wait(&mut self, _: u64) {
        unreachable!("conversations that move time are left out");
    }
}
