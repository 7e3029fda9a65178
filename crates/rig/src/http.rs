//! Signed HTTP calls as an app's own servers make them: kept-alive, one at a time, blocking; and the bytes of a call and of its
//! answer for those who drive many at once.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fulmar_protocol::app::App;
use fulmar_protocol::signing::Signer;

use crate::RigError;

const ANSWER_MAX: Duration = Duration::from_secs(10);

/// An answer of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP's code.
    pub status: u16,
    /// Whether it says when to come back.
    pub has_retry_after: bool,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or(serde_json::Value::Null)
    }

    /// Reads the answer at the head of `bytes`, and how long it is; `None` until it is complete.
    pub fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let head_bytes = bytes.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..head_bytes]).to_ascii_lowercase();
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let length = header("content-length:").map_or(Some(0), |text| text.trim().parse().ok())?;
        let body = bytes.get(head_bytes..head_bytes + length)?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let has_retry_after = header("retry-after:").is_some();
        let body = String::from_utf8_lossy(body).into_owned();
        Some((Self { status, has_retry_after, body }, head_bytes + length))
    }
}

/// A signed call to `/apps/ID/CALL`, as bytes.
pub fn request(app: &App, method: &str, call: &str, params: &[(&str, &str)], body: &str, key: Option<&str>) -> Vec<u8> {
    let path = format!("/apps/{}/{call}", app.id.as_str());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let query = Signer::of(app).sign_request(method, &path, params, body.as_bytes(), now);
    let mut text = format!("{method} {path}?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
    if let Some(key) = key {
        let _ = write!(text, "Idempotency-Key: {key}\r\n");
    }
    if !body.is_empty() {
        text.push_str("Content-Type: application/json\r\n");
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

/// The status of an unsigned GET on a connection of its own.
///
/// # Errors
/// There is no answer within `patience`.
pub fn status_of(addr: SocketAddr, path: &str, patience: Duration) -> Result<u16, RigError> {
    let mut stream = connect(addr, patience)?;
    let bytes = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    exchange(&mut stream, bytes.as_bytes()).map(|answer| answer.status)
}

/// A GET of a node's admin API, which is found and opened by what the node keeps in its `storage` folder.
///
/// # Errors
/// The node keeps no address or token there, or gives no answer within `patience`.
pub fn ask_admin(storage: &Path, path: &str, patience: Duration) -> Result<Answer, RigError> {
    let kept =
        |name: &str| fs::read_to_string(storage.join(name)).map_err(|e| RigError::io(format!("reading {name}"), e));
    let (address, token) = (kept("admin-address")?, kept("admin-token")?);
    let addr = address.trim().trim_start_matches("http://").parse();
    let addr = addr.map_err(|_| RigError::Peer(format!("not an address: {address:?}")))?;
    let mut stream = connect(addr, patience)?;
    let bytes = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
        token.trim()
    );
    exchange(&mut stream, bytes.as_bytes())
}

/// A kept-alive connection for signed calls of one app.
#[derive(Debug)]
pub struct Rest {
    app: App,
    addr: SocketAddr,
    stream: Option<TcpStream>,
}

impl Rest {
    /// Nothing is opened before the first call.
    pub fn new(addr: SocketAddr, app: &App) -> Self {
        Self { app: app.clone(), addr, stream: None }
    }

    /// A signed GET.
    ///
    /// # Errors
    /// There is no answer.
    pub fn ask(&mut self, call: &str, params: &[(&str, &str)]) -> Result<Answer, RigError> {
        let bytes = request(&self.app, "GET", call, params, "", None);
        self.exchange(&bytes)
    }

    /// A signed POST.
    ///
    /// # Errors
    /// There is no answer.
    pub fn post(&mut self, call: &str, body: &str, key: Option<&str>) -> Result<Answer, RigError> {
        let bytes = request(&self.app, "POST", call, &[], body, key);
        self.exchange(&bytes)
    }

    /// Publishes one event. `data` must need no escaping.
    ///
    /// # Errors
    /// There is no answer.
    pub fn publish(&mut self, channel: &str, data: &str) -> Result<Answer, RigError> {
        self.post("events", &publication(channel, data), None)
    }

    fn exchange(&mut self, bytes: &[u8]) -> Result<Answer, RigError> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.addr, ANSWER_MAX)?,
        };
        let answer = exchange(&mut stream, bytes)?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

/// The body that publishes one event. `data` must need no escaping.
pub fn publication(channel: &str, data: &str) -> String {
    format!(r#"{{"name":"e","channel":"{channel}","data":"{data}"}}"#)
}

fn connect(addr: SocketAddr, patience: Duration) -> Result<TcpStream, RigError> {
    let doing = || format!("connecting to {addr}");
    let stream = TcpStream::connect_timeout(&addr, patience).map_err(|e| RigError::io(doing(), e))?;
    let set = stream.set_read_timeout(Some(patience)).and_then(|()| stream.set_nodelay(true));
    set.map_err(|e| RigError::io(doing(), e))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> Result<Answer, RigError> {
    stream.write_all(bytes).map_err(|e| RigError::io("sending a call", e))?;
    let (mut read, mut scratch) = (Vec::new(), [0; 16 * 1024]);
    loop {
        if let Some((answer, _)) = Answer::read(&read) {
            return Ok(answer);
        }
        match stream.read(&mut scratch) {
            Ok(0) => return Err(RigError::io("reading an answer", std::io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => read.extend_from_slice(&scratch[..count]),
            Err(error) => return Err(RigError::io("reading an answer", error)),
        }
    }
}
