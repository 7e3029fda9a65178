//! A node in a process of its own, and peers that speak to it byte by byte.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fulmar_protocol::app::App;
use fulmar_protocol::signing::Signer;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// How long anything may take before the test gives up. Never waited for when all is well.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const TEXT: u8 = 0x81;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// The app that every node here has.
pub fn app() -> App {
    App::new("1", "k1", "s1")
}

/// Looks until there is something to see. Nothing is assumed about when.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A node, ended with the test.
pub struct Node {
    process: Child,
    pub port: u16,
    log: PathBuf,
    /// Kept open: a node that cannot print is not what is tested.
    _output: BufReader<ChildStdout>,
}

/// A folder for the files of a test.
pub fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("edge-{test}"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

impl Node {
    /// `test` names its files; `settings` is TOML, in front of the app's table and its keys.
    pub fn start(test: &str, settings: &str) -> Self {
        Self::start_as(test, settings, Command::new(env!("CARGO_BIN_EXE_fulmar")))
    }

    /// The same with so many open files at most.
    pub fn start_with_open_files(test: &str, settings: &str, open_files: u32) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {open_files} && exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_fulmar"));
        Self::start_as(test, settings, command)
    }

    fn start_as(test: &str, settings: &str, mut command: Command) -> Self {
        let (file, log) = (folder(test).join("node.toml"), folder(test).join("node.log"));
        let (before, of_app) = settings.split_once("[app]").unwrap_or((settings, ""));
        let app = "[[apps]]\nid = \"1\"\nkey = \"k1\"\nsecret = \"s1\"\nsubscription_counts = true\n";
        std::fs::write(&file, format!("{before}\n{app}{of_app}\n")).unwrap();
        command.args(["serve", "--port", "0", "--workers", "2", "--config"]).arg(&file);
        // Nothing of the environment of the test run may reach the node.
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        let mut process = command.spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        let address = first.split_whitespace().find_map(|word| word.strip_prefix("http://"));
        let said = || std::fs::read_to_string(&log).unwrap();
        let address = address.unwrap_or_else(|| panic!("a node says where it listens, not {first:?}\n{}", said()));
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        Self { process, port, log, _output: output }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end of the process.
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the node ends", || self.process.try_wait().unwrap())
    }

    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    pub fn resident_kib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn connect(&self) -> Wire {
        Wire::plain(plain(self.port))
    }

    pub fn connect_from(&self, ip: &str) -> Wire {
        Wire::plain(plain_from(ip, self.port))
    }

    /// A connection that is established.
    pub fn open(&self) -> Wire {
        let mut wire = self.connect();
        wire.establish();
        wire
    }

    pub fn rest(&self) -> Rest {
        Rest { wire: self.connect() }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("the node said:\n{log}");
        } else {
            assert!(!log.contains("panicked"), "{log}");
        }
    }
}

/// A socket to a node; whoever waits on it in vain panics.
pub fn plain(port: u16) -> TcpStream {
    ready(TcpStream::connect(("127.0.0.1", port)).unwrap())
}

pub fn plain_from(ip: &str, port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from: IpAddr = ip.parse().unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    ready(socket.into())
}

/// A socket of which the kernel keeps little, so that a reader that stops is felt soon.
pub fn plain_with_small_buffer(port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    ready(socket.into())
}

fn ready(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A certificate with its key, as files.
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Identity {
    pub fn make(test: &str) -> Self {
        let identity = Self { cert: folder(test).join("cert.pem"), key: folder(test).join("key.pem") };
        identity.renew();
        identity
    }

    /// Another certificate in the place of the one before.
    pub fn renew(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&self.key, made.signing_key.serialize_pem()).unwrap();
        std::fs::write(&self.cert, made.cert.pem()).unwrap();
        made.cert.der().clone()
    }

    pub fn settings(&self) -> String {
        format!("[tls]\ncert = {:?}\nkey = {:?}\n", self.cert.to_str().unwrap(), self.key.to_str().unwrap())
    }

    /// Speaks TLS over a socket, believing the certificate that is in the file now.
    pub fn secure(&self, stream: TcpStream) -> Wire {
        self.try_secure(stream, &[&rustls::version::TLS13]).expect("the handshake succeeds")
    }

    pub fn try_secure(
        &self,
        mut stream: TcpStream,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> std::io::Result<Wire> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.cert).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = "localhost".try_into().unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Wire { stream: Stream::Tls(Box::new(StreamOwned::new(connection, stream))), read: Vec::new() })
    }
}

pub enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

/// One connection, as bytes and as frames.
pub struct Wire {
    pub stream: Stream,
    /// Read and not used yet.
    read: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// With the final bit.
    pub opcode: u8,
    pub content: Vec<u8>,
}

impl Frame {
    pub fn json(&self) -> Value {
        assert_eq!(self.opcode, TEXT, "{self:?}");
        serde_json::from_slice(&self.content).unwrap()
    }

    /// The code of a close frame that has one.
    pub fn close_code(&self) -> Option<u16> {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        self.content.first_chunk().map(|code| u16::from_be_bytes(*code))
    }
}

/// A frame as clients send it.
pub fn masked(first: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, content.len() as u64);
    let mask = [0x5a, 0x00, 0xff, 0x13];
    bytes.extend(mask);
    bytes.extend(content.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The header of such a frame, without the mask.
pub fn header(first: u8, length: u64) -> Vec<u8> {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..=125), _) => vec![first, 0x80 | length],
        (_, Ok(length)) => [&[first, 0xfe], &length.to_be_bytes()[..]].concat(),
        _ => [&[first, 0xff], &length.to_be_bytes()[..]].concat(),
    }
}

/// A command of the protocol, as a frame.
pub fn command(event: &str, data: Value) -> Vec<u8> {
    masked(TEXT, json!({"event": event, "data": data}).to_string().as_bytes())
}

/// The head of an upgrade.
pub fn upgrade(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}

pub const TARGET: &str = "/app/k1?protocol=7";

impl Wire {
    pub fn plain(stream: TcpStream) -> Self {
        Self { stream: Stream::Plain(stream), read: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Reads more; answers whether there was any.
    fn more(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        let read = match &mut self.stream {
            Stream::Plain(stream) => stream.read(&mut bytes),
            Stream::Tls(stream) => stream.read(&mut bytes),
        };
        match read {
            Ok(count) => {
                self.read.extend_from_slice(&bytes[..count]);
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("waited in vain, having read {:?}", String::from_utf8_lossy(&self.read))
            }
            // A reset is an end as well, and so is a TLS stream cut off.
            Err(_) => false,
        }
    }

    /// Reads until the other side ends the connection.
    pub fn rest(mut self) -> Vec<u8> {
        while self.more() {}
        self.read
    }

    /// The head of an HTTP response.
    pub fn head(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more(), "no head, but {:?}", String::from_utf8_lossy(&self.read));
        };
        String::from_utf8(self.read.drain(..end).collect()).unwrap().to_lowercase()
    }

    /// A whole HTTP response: its head and its body.
    pub fn response(&mut self) -> (String, String) {
        let head = self.head();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            assert!(self.more(), "the body ends early");
        }
        (head, String::from_utf8(self.read.drain(..length).collect()).unwrap())
    }

    /// Sends an upgrade, which must be accepted.
    pub fn upgrade(&mut self, target: &str, headers: &str) {
        self.send(upgrade(target, headers).as_bytes());
        let head = self.head();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
    }

    /// Upgrades and waits for the first event; answers the socket id.
    pub fn establish(&mut self) -> String {
        self.upgrade(TARGET, "");
        self.established()
    }

    /// The first event; answers the socket id.
    pub fn established(&mut self) -> String {
        let first = self.event();
        assert_eq!(first["event"], "pusher:connection_established", "{first}");
        let data: Value = serde_json::from_str(first["data"].as_str().unwrap()).unwrap();
        data["socket_id"].as_str().unwrap().to_owned()
    }

    pub fn subscribe(&mut self, channel: &str) {
        self.send(&command("pusher:subscribe", json!({"channel": channel})));
        let answer = self.event();
        assert_eq!(answer["event"], "pusher_internal:subscription_succeeded", "{answer}");
    }

    /// The next frame, or nothing at the end of the connection, be it within a frame. Counts of subscriptions, which the
    /// tests ask for by REST, are passed over.
    pub fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((header_bytes, length)) = frame_size(&self.read)
                && self.read.len() >= header_bytes + length
            {
                let opcode = self.read[0];
                let content = self.read[header_bytes..header_bytes + length].to_vec();
                self.read.drain(..header_bytes + length);
                if !content.starts_with(br#"{"event":"pusher_internal:subscription_count""#) {
                    return Some(Frame { opcode, content });
                }
                continue;
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// The next frame, which must be a text.
    pub fn event(&mut self) -> Value {
        self.frame().expect("an event comes before the end").json()
    }

    /// Everything up to the end of the connection.
    pub fn frames(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.frame()).collect()
    }

    /// Reads to the end, and answers the code of the close frame before it, if there was one.
    pub fn end(&mut self) -> Option<u16> {
        self.frames().last().filter(|frame| frame.opcode == CLOSE).and_then(Frame::close_code)
    }

    /// Must be turned away: with an error frame, the close frame of the same code, and the end.
    pub fn turned_away(&mut self, code: u16) {
        let error = self.event();
        assert_eq!((&error["event"], &error["data"]["code"]), (&json!("pusher:error"), &json!(code)), "{error}");
        let close = self.frame().expect("a close frame");
        assert_eq!(close.close_code(), Some(code));
        assert_eq!(String::from_utf8_lossy(&close.content[2..]), error["data"]["message"].as_str().unwrap());
        // Answered, so that nobody has to wait.
        let _: std::io::Result<()> = self.try_send(&masked(CLOSE, &code.to_be_bytes()));
        assert_eq!(self.frame(), None, "nothing behind the close frame");
    }

    /// The end of our side.
    pub fn shut(&mut self) {
        // Fails when the other side has ended it before.
        let _: std::io::Result<()> = self.stream.tcp().shutdown(Shutdown::Both);
    }
}

/// Bytes of header and content, as soon as they can be told.
fn frame_size(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? {
        126 => Some((4, u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?).into())),
        127 => Some((10, usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).unwrap())),
        length => Some((2, length.into())),
    }
}

/// A kept-alive connection for signed calls.
pub struct Rest {
    pub wire: Wire,
}

impl Rest {
    /// A signed call as it is sent.
    pub fn request(method: &str, call: &str, params: &[(&str, &str)], body: &str) -> String {
        let path = format!("/apps/1/{call}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let query = Signer::of(&app()).sign_request(method, &path, params, body.as_bytes(), now);
        let length = body.len();
        format!("{method} {path}?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    pub fn publication(channel: &str, event: &str, data: &str) -> String {
        Self::request("POST", "events", &[], &json!({"name": event, "channel": channel, "data": data}).to_string())
    }

    pub fn publish(&mut self, channel: &str, event: &str, data: &str) {
        self.wire.send(Self::publication(channel, event, data).as_bytes());
        let (head, body) = self.wire.response();
        assert!(head.starts_with("http/1.1 200 ") && body == "{}", "{head}{body}");
    }

    pub fn get(&mut self, call: &str, params: &[(&str, &str)]) -> Value {
        self.wire.send(Self::request("GET", call, params, "").as_bytes());
        let (head, body) = self.wire.response();
        assert!(head.starts_with("http/1.1 200 "), "{head}{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Subscriptions of a channel.
    pub fn count(&mut self, channel: &str) -> u64 {
        let answer = self.get(&format!("channels/{channel}"), &[("info", "subscription_count")]);
        answer["subscription_count"].as_u64().unwrap()
    }

    /// The status of an unsigned GET.
    pub fn status(&mut self, path: &str) -> u16 {
        self.wire.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let (head, _) = self.wire.response();
        head.split(' ').nth(1).unwrap().parse().unwrap()
    }
}
