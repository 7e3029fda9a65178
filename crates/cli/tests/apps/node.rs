//! A node of a test's own, asked from the command line, through its admin API and as customers' servers ask it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fulmar_protocol::app::App;
use fulmar_protocol::signing::Signer;
use serde_json::Value;

/// A node with a home of its own, ended with the test.
pub struct Node {
    pub process: Child,
    pub port: u16,
    pub home: PathBuf,
}

impl Node {
    pub fn start(test: &str, args: &[&str]) -> Self {
        let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("apps-{test}"));
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).unwrap();
        Self::start_in(home, args)
    }

    pub fn start_in(home: PathBuf, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        command.args(["serve", "--port", "0", "--workers", "2", "--set", "shutdown.drain_s=0"]).args(args);
        command.env_clear().env("HOME", &home).env("FULMAR_ADMIN__PORT", "0");
        let log = std::fs::File::create(home.join("log")).unwrap();
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next().expect("a node says where it listens").unwrap();
        let address = first.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        // The rest of the banner must have a reader.
        thread::spawn(move || lines.for_each(drop));
        let node = Self { process, port, home };
        // The admin API comes up right after the public port.
        let up = (0..1_000).any(|_| {
            node.kept("admin-address").is_some_and(|text| {
                let is_up = TcpStream::connect(text.trim()).is_ok();
                if !is_up {
                    thread::yield_now();
                }
                is_up
            }) || {
                thread::sleep(Duration::from_millis(5));
                false
            }
        });
        assert!(up || args.iter().any(|arg| arg.contains("admin.enabled=false")), "{}", node.log());
        node
    }

    /// Ends it at once, as a power cut does, and starts another in the same home.
    pub fn killed_and_started(mut self, args: &[&str]) -> Self {
        self.end();
        std::fs::remove_file(self.home.join(".local/state/fulmar/admin-address")).unwrap();
        Self::start_in(self.home.clone(), args)
    }

    pub fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    pub fn kept(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.home.join(".local/state/fulmar").join(name)).ok()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log")).unwrap()
    }

    /// Runs `fulmar ARGS` as the user who runs the node; what it printed, or what it complained of.
    pub fn run(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        command.args(args).env_clear().env("HOME", &self.home).env("USER", "ann");
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    pub fn app(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = ["app", "--json"].iter().chain(args).copied().collect();
        serde_json::from_str(&self.run(&args).unwrap()).unwrap()
    }

    /// One call of the admin API, with the head as given.
    pub fn admin(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
        let address = self.kept("admin-address").unwrap();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}");
        exchange(address.trim(), &format!("{head}Content-Length: {length}\r\n\r\n{body}"))
    }

    pub fn bearer(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.kept("admin-token").unwrap().trim())
    }

    pub fn publish(&self, app: &App) -> u16 {
        publish(self.port, app)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

pub fn exchange(address: &str, request: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

pub fn publish(port: u16, app: &App) -> u16 {
    let body = br#"{"name":"e","channel":"news","data":"{}"}"#;
    let path = format!("/apps/{}/events", app.id);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let query = Signer::of(app).sign_request("POST", &path, &[], body, now);
    let length = body.len();
    let head =
        format!("POST {path}?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json");
    let body = String::from_utf8_lossy(body);
    exchange(&format!("127.0.0.1:{port}"), &format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}")).0
}

pub fn of(added: &Value) -> App {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    App::new(&text(&added["id"]), &text(&added["app"]["settings"]["key"]), &text(&added["secret"]))
}
