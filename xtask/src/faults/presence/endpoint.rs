//! An app's own server: a real HTTP endpoint that takes webhooks, and now and then is gone before it has answered, so that what it
//! was told must be told again.
//!
//! What it is told is compared elsewhere (`hooks`). It ends with this value.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::Value;

use super::hooks::Hooks;

/// One in so many requests is taken and not answered.
const UNANSWERED_ONE_IN: usize = 10;
/// Longer requests are nobody's that we start.
const BODY_MAX: usize = 4 << 20;

/// See the head of this file.
pub struct Endpoint {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    hooks: Mutex<Hooks>,
    requests: AtomicUsize,
    is_over: AtomicBool,
}

impl Endpoint {
    /// Listens on a free port.
    pub fn open() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let endpoint = Self { addr: listener.local_addr()?, shared: Arc::default() };
        let shared = Arc::clone(&endpoint.shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let mut reader = BufReader::new(&stream);
                    while shared.serve(&stream, &mut reader).is_some() {}
                });
            }
        });
        Ok(endpoint)
    }

    /// What an app that is told everything has in its configuration.
    pub fn config(&self) -> String {
        format!("webhooks_allow_private = true\n[[apps.webhooks]]\nurl = \"http://{}/\"\n", self.addr)
    }

    /// What it was told.
    pub fn hooks(&self) -> MutexGuard<'_, Hooks> {
        self.shared.lock()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Whoever waits for the next to come hears of it by one who comes.
        let _: io::Result<TcpStream> = TcpStream::connect(self.addr);
    }
}

impl Shared {
    /// One request; `None` when there is no further one.
    fn serve(&self, mut stream: &TcpStream, reader: &mut impl BufRead) -> Option<()> {
        let (ids, body) = read(reader)?;
        let events = body["events"].as_array()?;
        if ids.len() != events.len() {
            self.lock().complain(format!("{} ids for {} events", ids.len(), events.len()));
        }
        for (id, event) in ids.iter().zip(events) {
            self.lock().take(id, event);
        }
        if (self.requests.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(UNANSWERED_ONE_IN) {
            return None;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()
    }

    fn lock(&self) -> MutexGuard<'_, Hooks> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ids that a request names, and its body.
fn read(reader: &mut impl BufRead) -> Option<(Vec<String>, Value)> {
    let (mut length, mut ids) = (0, Vec::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some((name, value)) if name.eq_ignore_ascii_case("x-fulmar-event-ids") => {
                ids = value.split(',').map(str::to_owned).collect();
            }
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; Some(length).filter(|length| *length <= BODY_MAX)?];
    reader.read_exact(&mut body).ok()?;
    Some((ids, serde_json::from_slice(&body).ok()?))
}
