//! A network namespace of the lab's own, in which the kernel caps what a server sends.
//!
//! The lab's process itself enters it, by being run again through `unshare`, so that everything it starts is there as well and the
//! namespace ends with the last of them. Nothing outside is changed: every command that changes something comes after a look at
//! whose namespace this is.
//!
//! A server's answers are known by the port they come from, and its replicas by the address that they connect from. `iptables`
//! puts what it knows so into an `htb` class, since kernels without the classifiers `fw` and `u32` heed no mark.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::faults::stage::REPLICAS_FROM;
use crate::project::{self, Failure, Outcome};

const PROGRAMS: [&str; 4] = ["unshare", "ip", "tc", "iptables"];
/// What a packet may hold. Loopback's own 65,536 would be more than a slow class may send at a time, and a connection would stand still.
const MTU: &str = "1500";
/// What TCP hands over at a time, as much as the proxy does: a short answer waits behind so much of every other connection.
const CHUNK_BYTES: &str = "8192";
/// What the trial sends, and how fast it may.
const TRIAL_BYTES: usize = 400_000;
const TRIAL_BYTES_PER_S: u64 = 1_000_000;
const TRIAL_MAX: Duration = Duration::from_secs(10);
/// Classes of a line begin with this number, two of them for each.
const FIRST_CLASS: usize = 0x10;

/// Why there can be no namespace here; `None` when there can. The trial comes last, and only where all that it needs is there.
pub fn obstacle(
    is_root: bool,
    is_installed: impl Fn(&str) -> bool,
    trial: impl FnOnce() -> Result<(), String>,
) -> Option<String> {
    let missing: Vec<_> = PROGRAMS.into_iter().filter(|program| !is_installed(program)).collect();
    if !missing.is_empty() {
        return Some(format!("there is no {} (cargo xtask setup installs it)", missing.join(", no ")));
    }
    if !is_root {
        return Some("a network namespace takes root".to_owned());
    }
    trial().err().map(|why| format!("a trial of a network namespace failed: {why}"))
}

/// Runs the hidden verb `lab-trial` in a namespace of its own.
pub fn try_out() -> Result<(), String> {
    let tried = again("lab-trial", &[]).map_err(|Failure(why)| why)?.output();
    let output = tried.map_err(|error| format!("`unshare` did not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().last().map_or_else(|| output.status.to_string(), str::to_owned))
}

/// Becomes the same command in a namespace of its own: it does not come back unless it fails.
pub fn enter() -> Failure {
    let words: Vec<_> = std::env::args_os().skip(2).collect();
    match again("lab", &words) {
        Ok(mut command) => Failure(format!("`unshare` did not start: {}", command.exec())),
        Err(failure) => failure,
    }
}

/// This program with a verb, the namespace that it leaves, and further words.
fn again(verb: &str, words: &[std::ffi::OsString]) -> Result<std::process::Command, Failure> {
    let own = std::env::current_exe().map_err(|error| Failure(format!("this program cannot be found: {error}")))?;
    let mut command = std::process::Command::new("unshare");
    command.args(["--net", "--"]).arg(own).args([verb, "--left", &current()?]).args(words);
    Ok(command)
}

/// The namespace that this process is in, as the kernel names it.
fn current() -> Result<String, Failure> {
    let link = fs::read_link("/proc/self/ns/net");
    link.map(|name| name.to_string_lossy().into_owned())
        .map_err(|error| Failure(format!("this process's network namespace is not known: {error}")))
}

/// Makes a namespace fit to be lived in that was entered from the one called `left`.
///
/// # Errors
/// It is that one still, or loopback cannot be set up.
pub fn settle(left: &str) -> Outcome {
    if !is_own(left, &current()?) {
        return Err(Failure("this is no network namespace of the lab's own".to_owned()));
    }
    tell("ip", &["link", "set", "lo", "mtu", MTU, "gso_max_size", CHUNK_BYTES, "up"])
}

/// Whether `here` is another namespace than the one that was left, and both are names of namespaces.
fn is_own(left: &str, here: &str) -> bool {
    [left, here].iter().all(|name| name.starts_with("net:[") && name.ends_with(']')) && left != here
}

/// Runs a command that says nothing unless it fails.
fn tell(program: &str, words: &[&str]) -> Outcome {
    let shown = || format!("`{program} {}`", words.join(" "));
    let output = project::command(program, words).output();
    let output = output.map_err(|error| Failure(format!("{} did not start: {error}", shown())))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure(format!("{} failed: {}", shown(), said.trim().replace('\n', "; "))))
}

/// The capped lines of this namespace.
#[derive(Debug)]
pub struct Shaper {
    /// Ports of servers whose lines have been capped; each has its classes for good, whether or not anything is put there.
    ports: Vec<u16>,
    /// What of a server's traffic is put into a class at the moment.
    rules: Vec<Rule>,
}

/// What of a server's traffic has a class of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    port: u16,
    class: usize,
    is_replication: bool,
}

impl Shaper {
    /// Nothing is capped: what belongs to no class passes at once.
    ///
    /// # Errors
    /// The kernel has no `htb`, or does not let this process use it.
    pub fn begin() -> Result<Self, Failure> {
        tell("iptables", &["-w", "5", "-t", "mangle", "-F", "POSTROUTING"])?;
        // There is none at the first time.
        let _: Outcome = tell("tc", &["qdisc", "del", "dev", "lo", "root"]);
        tell("tc", &["qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb", "default", "0"])?;
        Ok(Self { ports: Vec::new(), rules: Vec::new() })
    }

    /// What comes from this port is at most so much.
    ///
    /// # Errors
    /// A command failed.
    pub fn cap(&mut self, port: u16, bytes_per_s: u64) -> Outcome {
        self.put(port, false, bytes_per_s)
    }

    /// What comes from this port and goes to replicas is at most so much.
    ///
    /// # Errors
    /// A command failed.
    pub fn cap_replication(&mut self, port: u16, bytes_per_s: u64) -> Outcome {
        self.put(port, true, bytes_per_s)
    }

    /// What comes from this port is free again, and what has been waiting leaves at once.
    ///
    /// # Errors
    /// A command failed.
    pub fn free(&mut self, port: u16) -> Outcome {
        let (ended, kept) = self.rules.iter().copied().partition(|rule| rule.port == port);
        self.rules = kept;
        let ended: Vec<Rule> = ended;
        for rule in ended {
            class(rule.class, "100gbit")?;
            rule.tell("-D")?;
        }
        Ok(())
    }

    fn put(&mut self, port: u16, is_replication: bool, bytes_per_s: u64) -> Outcome {
        let known = self.ports.iter().position(|known| *known == port);
        let number = known.unwrap_or_else(|| {
            self.ports.push(port);
            self.ports.len() - 1
        });
        let rule = Rule { port, class: FIRST_CLASS + 2 * number + usize::from(is_replication), is_replication };
        class(rule.class, &format!("{}bit", bytes_per_s * 8))?;
        if !self.rules.contains(&rule) {
            rule.tell("-A")?;
            self.rules.push(rule);
        }
        Ok(())
    }
}

impl Rule {
    fn tell(self, verb: &str) -> Outcome {
        let (port, class) = (self.port.to_string(), format!("1:{:x}", self.class));
        let replicas = REPLICAS_FROM.to_string();
        let mut words = vec!["-w", "5", "-t", "mangle", verb, "POSTROUTING", "-p", "tcp", "--sport", &port];
        // The last rule that holds has its way: replication, where it is capped, is capped after the line.
        if self.is_replication {
            words.extend(["-d", &replicas]);
        }
        words.extend(["-j", "CLASSIFY", "--set-class", &class]);
        tell("iptables", &words)
    }
}

/// Makes a class or changes it.
fn class(number: usize, rate: &str) -> Outcome {
    let id = format!("1:{number:x}");
    tell("tc", &["class", "replace", "dev", "lo", "parent", "1:", "classid", &id, "htb", "rate", rate, "ceil", rate])
}

/// What the trial saw: what was sent, how long it took, and how long it takes at the rate that was set, where one was.
struct Sent {
    what: &'static str,
    took: Duration,
    due: Option<Duration>,
}

/// Sends something over lines of this namespace, which was entered from the one called `left`.
///
/// # Errors
/// It cannot be set up, or a line carries more or less than it should.
pub fn trial(left: &str) -> Outcome {
    settle(left)?;
    let trouble = |error: std::io::Error| Failure(format!("sending over loopback: {error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(trouble)?;
    let addr = listener.local_addr().map_err(trouble)?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(&vec![0; TRIAL_BYTES]));
        }
    });
    let at = |bytes_per_s: u64| Some(Duration::from_millis(TRIAL_BYTES as u64 * 1_000 / bytes_per_s));
    let fetch = |what, from, due| fetch(addr, from).map(|took| Sent { what, took, due }).map_err(trouble);
    let mut shaper = Shaper::begin()?;
    let mut sent = vec![fetch("a free line", Ipv4Addr::LOCALHOST, None)?];
    shaper.cap(addr.port(), TRIAL_BYTES_PER_S)?;
    sent.push(fetch("a capped line", Ipv4Addr::LOCALHOST, at(TRIAL_BYTES_PER_S))?);
    shaper.cap_replication(addr.port(), TRIAL_BYTES_PER_S / 2)?;
    sent.push(fetch("capped replication", REPLICAS_FROM, at(TRIAL_BYTES_PER_S / 2))?);
    shaper.free(addr.port())?;
    sent.push(fetch("a line that is free again", REPLICAS_FROM, None)?);
    judge(&sent).map_err(Failure)
}

/// A capped line must take nearly its time, and a free one less than half of what the slower of them would.
fn judge(sent: &[Sent]) -> Result<(), String> {
    let shortest = sent.iter().filter_map(|sent| sent.due).min().unwrap_or(TRIAL_MAX);
    let is_right = |sent: &&Sent| match sent.due {
        Some(due) => sent.took >= due.mul_f64(0.8),
        None => sent.took < shortest / 2,
    };
    match sent.iter().find(|sent| !is_right(sent)) {
        None => Ok(()),
        Some(wrong) => Err(format!("{} took {} ms for {TRIAL_BYTES} bytes", wrong.what, wrong.took.as_millis())),
    }
}

/// Connects from an address and reads until the end; answers how long it took.
fn fetch(addr: SocketAddr, from: Ipv4Addr) -> std::io::Result<Duration> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into())?;
    let begun = Instant::now();
    socket.connect(&addr.into())?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TRIAL_MAX))?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(begun.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_takes_its_programs_root_and_a_trial_that_works() {
        let all = |_: &str| true;
        assert_eq!(obstacle(true, all, || Ok(())), None);
        let never = || panic!("there is nothing to try");
        let without = obstacle(true, |program| !["tc", "iptables"].contains(&program), never);
        assert_eq!(without.as_deref(), Some("there is no tc, no iptables (cargo xtask setup installs it)"));
        assert_eq!(obstacle(false, all, never).as_deref(), Some("a network namespace takes root"));
        let failed = obstacle(true, all, || Err("Operation not permitted".to_owned()));
        assert_eq!(failed.as_deref(), Some("a trial of a network namespace failed: Operation not permitted"));
    }

    #[test]
    fn nothing_is_changed_in_the_namespace_that_was_to_be_left() {
        assert!(is_own("net:[1]", "net:[2]"));
        for (left, here) in [("net:[1]", "net:[1]"), ("", "net:[1]"), ("x", "net:[1]"), ("net:[1]", "")] {
            assert!(!is_own(left, here), "{left} {here}");
        }
        assert!(settle(&current().unwrap()).is_err());
    }

    #[test]
    fn a_trial_is_believed_when_capped_lines_are_slow_and_free_ones_are_not() {
        let sent = |took: u64, due: Option<u64>| Sent {
            what: "a line",
            took: Duration::from_millis(took),
            due: due.map(Duration::from_millis),
        };
        let check = |free, capped| judge(&[sent(free, None), sent(capped, Some(400)), sent(900, Some(800))]);
        assert_eq!(check(10, 400), Ok(()));
        assert_eq!(check(10, 20), Err("a line took 20 ms for 400000 bytes".to_owned()));
        assert_eq!(check(300, 400), Err("a line took 300 ms for 400000 bytes".to_owned()));
    }
}
