//! A node of the real binary with a configuration, and signed calls to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fulmar_protocol::app::App;
use fulmar_protocol::signing::Signer;
use serde_json::Value;

/// How long a node may take to do what it must before the test gives up. Never waited for when all is well.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A node on a port of its own, ended with the test.
pub struct Node {
    process: Child,
    pub port: u16,
    /// Kept open: a node that cannot print is not what is tested.
    _output: BufReader<ChildStdout>,
}

impl Node {
    /// `name` is that of the test, for its file.
    pub fn start(name: &str, config: &str) -> Self {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        command.args(["serve", "--port", "0", "--workers", "2", "--log-level", "error", "--config"]).arg(&file);
        // Nothing of the environment of the test run may reach the node.
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        let address = first.split_whitespace().find_map(|word| word.strip_prefix("http://"));
        let address = address.unwrap_or_else(|| panic!("a node says where it listens, not {first:?}"));
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        Self { process, port, _output: output }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A socket to a node; whoever waits on it in vain panics.
pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Makes a signed call that must be answered with 200.
pub fn post(port: u16, app: &App, call: &str, body: &Value) {
    let (path, body) = (format!("/apps/{}/{call}", app.id), body.to_string());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let query = Signer::of(app).sign_request("POST", &path, &[], body.as_bytes(), now);
    let length = body.len();
    let head = format!(
        "POST {path}?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    let mut stream = connect(port);
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("{}"), "{answer}");
}
