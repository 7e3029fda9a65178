//! A naive node: plain PUBLISH and SUBSCRIBE, following whatever Sentinels say. The control of the experiment.
//!
//! It is what several nodes over Redis look like without this project's backbone. Beside it a fault that hurts nobody can be
//! told from a fault that was never felt: without a fault it keeps everything, and it loses in most of the others. It speaks
//! just enough of the protocol for the load; nothing of it is part of the product.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use fulmar_rig::{Resp, RigError, Value};

use crate::project::{Failure, Outcome};

const LOOK: Duration = Duration::from_millis(100);
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// As the real binary is called, of which it understands this much.
#[derive(Debug, Clone, clap::Args)]
pub struct NaiveArgs {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    config: PathBuf,
    #[arg(long)]
    set: Vec<String>,
}

struct Shared {
    sentinels: Vec<SocketAddr>,
    groups: Vec<Group>,
    /// Sockets by channel.
    sockets: Mutex<HashMap<String, Vec<TcpStream>>>,
}

struct Group {
    name: String,
    primary: Mutex<SocketAddr>,
    publishing: Mutex<Option<Resp>>,
}

/// Serves until it is ended.
pub fn serve(args: &NaiveArgs) -> Outcome {
    let text = std::fs::read_to_string(&args.config).map_err(|error| Failure(error.to_string()))?;
    let config: toml::Table = text.parse().map_err(|error: toml::de::Error| Failure(error.to_string()))?;
    let shared = Arc::new(Shared::of(config.get("backbone")));
    for number in 0..shared.groups.len() {
        let (follows, listens) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::spawn(move || follows.follow(number));
        thread::spawn(move || listens.listen(number));
    }
    thread::sleep(5 * LOOK);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).map_err(|error| Failure(error.to_string()))?;
    for stream in listener.incoming().flatten() {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            let _ = shared.converse(stream);
        });
    }
    Ok(())
}

impl Shared {
    fn of(backbone: Option<&toml::Value>) -> Self {
        let list = |key: &str| -> Vec<String> {
            let values = backbone.and_then(|table| table.get(key)).and_then(toml::Value::as_array);
            values.into_iter().flatten().filter_map(|value| value.as_str().map(str::to_owned)).collect()
        };
        let addrs = |key: &str| -> Vec<SocketAddr> { list(key).iter().filter_map(|addr| addr.parse().ok()).collect() };
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let group = |name: String, primary| Group { name, primary: Mutex::new(primary), publishing: Mutex::new(None) };
        let mut groups: Vec<_> = list("groups").into_iter().map(|name| group(name, nowhere)).collect();
        groups.extend(addrs("addresses").into_iter().map(|addr| group("single".to_owned(), addr)));
        Self { sentinels: addrs("sentinels"), groups, sockets: Mutex::new(HashMap::new()) }
    }

    /// Believes the first Sentinel that answers, as many drivers do.
    fn follow(&self, number: usize) {
        let group = &self.groups[number];
        loop {
            let ask = |sentinel: &SocketAddr| -> Result<SocketAddr, RigError> {
                let mut connection = Resp::connect(*sentinel, ANSWER_MAX)?;
                let answer = connection.call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &group.name])?;
                let said = answer.list().iter().map(Value::text).collect::<Vec<_>>().join(":");
                said.parse().map_err(|_| RigError::Peer(said))
            };
            if let Some(addr) = self.sentinels.iter().find_map(|sentinel| ask(sentinel).ok()) {
                let mut primary = lock(&group.primary);
                if *primary != addr {
                    *primary = addr;
                    *lock(&group.publishing) = None;
                }
            }
            thread::sleep(LOOK);
        }
    }

    fn listen(&self, number: usize) {
        loop {
            // What passes until it is connected again, nobody gets.
            let _ = self.listen_once(number);
            thread::sleep(LOOK / 2);
        }
    }

    fn listen_once(&self, number: usize) -> Result<(), RigError> {
        let addr = *lock(&self.groups[number].primary);
        let mut connection = Resp::connect(addr, LOOK)?;
        connection.send(&["PSUBSCRIBE", "faults-*"])?;
        while addr == *lock(&self.groups[number].primary) {
            match connection.answer() {
                Ok(pushed) => {
                    if let [_, _, channel, frame] = pushed.list() {
                        self.deliver(&channel.text(), &frame.text());
                    }
                }
                Err(RigError::Io { source, .. }) if source.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn deliver(&self, channel: &str, text: &str) {
        let bytes = frame(text);
        if let Some(sockets) = lock(&self.sockets).get_mut(channel) {
            sockets.retain_mut(|socket| socket.write_all(&bytes).is_ok());
        }
    }

    fn publish(&self, channel: &str, text: &str) -> Result<(), RigError> {
        let number = channel.bytes().map(usize::from).sum::<usize>() % self.groups.len();
        let group = &self.groups[number];
        let addr = *lock(&group.primary);
        let mut publishing = lock(&group.publishing);
        let mut connection = match publishing.take() {
            Some(connection) => connection,
            None => Resp::connect(addr, ANSWER_MAX)?,
        };
        connection.call(&["PUBLISH", channel, text])?;
        *publishing = Some(connection);
        Ok(())
    }

    /// Requests of one connection, which may become a WebSocket.
    fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let (mut read, mut scratch) = (Vec::new(), [0; 8 * 1024]);
        loop {
            if let Some(head) = find(&read, "\r\n\r\n") {
                let text = String::from_utf8_lossy(&read[..head]).into_owned();
                if text.starts_with("GET /app/") {
                    return self.subscribe(stream);
                }
                let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                let end = head + 4 + length.and_then(|length| length.parse().ok()).unwrap_or(0);
                if read.len() >= end {
                    let body = String::from_utf8_lossy(&read[head + 4..end]).into_owned();
                    read.drain(..end);
                    let status = self.answer(&text, &body);
                    stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes())?;
                    continue;
                }
            }
            match stream.read(&mut scratch)? {
                0 => return Ok(()),
                count => read.extend_from_slice(&scratch[..count]),
            }
        }
    }

    fn answer(&self, head: &str, body: &str) -> &'static str {
        if !head.starts_with("POST") {
            return "200 OK";
        }
        let event: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let channel = event["channel"].as_str().unwrap_or_default();
        let text = format!(r#"{{"event":"e","channel":"{channel}","data":{}}}"#, event["data"]);
        if self.publish(channel, &text).is_ok() { "200 OK" } else { "500 Internal Server Error" }
    }

    fn subscribe(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")?;
        let greeting = r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.1\"}"}"#;
        stream.write_all(&frame(greeting))?;
        let mut scratch = [0; 4 * 1024];
        loop {
            let count = stream.read(&mut scratch)?;
            // One short masked frame at a time is all that the load sends.
            let [_, _, a, b, c, d, content @ ..] = &scratch[..count] else { return Ok(()) };
            let text: Vec<u8> =
                content.iter().zip([a, b, c, d].into_iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            let asked: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            if let Some(channel) = asked["data"]["channel"].as_str() {
                let done = format!(
                    r#"{{"event":"pusher_internal:subscription_succeeded","channel":"{channel}","data":"{{}}"}}"#
                );
                let mut sockets = lock(&self.sockets);
                stream.write_all(&frame(&done))?;
                sockets.entry(channel.to_owned()).or_default().push(stream.try_clone()?);
            }
        }
    }
}

fn frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(short @ ..=125) => bytes.push(short),
        _ => {
            bytes.push(126);
            bytes.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn find(hay: &[u8], needle: &str) -> Option<usize> {
    hay.windows(needle.len()).position(|part| part == needle.as_bytes())
}

fn lock<T>(guarded: &Mutex<T>) -> MutexGuard<'_, T> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}
