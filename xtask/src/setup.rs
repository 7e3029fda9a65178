//! What a bare Debian lacks for the tests: installed when that can be done without asking anybody.
//!
//! Packages of npm, PyPI, Go and Maven are none of its business, two server programs apart (see `wheel`); the SDK suites install their
//! own. It fails only where nothing can go on without what is missing; for the rest it says what will be skipped.

mod old_redis;
mod valkey;
mod wheel;

use crate::project::{self, Failure, Outcome};

/// Something the tests need, and the Debian package that has it.
struct Need {
    /// Any of these on the path meets it,
    programs: &'static [&'static str],
    /// if this, where given, succeeds as well.
    probe: &'static [&'static str],
    package: &'static str,
    purpose: &'static str,
    /// Whether nothing goes on without it.
    required: bool,
}

const NEEDS: [Need; 13] = [
    Need {
        programs: &["cc", "gcc", "clang"],
        probe: &[],
        package: "build-essential",
        purpose: "to build at all",
        required: true,
    },
    Need { programs: &["git"], probe: &[], package: "git", purpose: "to list the project's files", required: true },
    Need {
        programs: &["python3"],
        // Debian's python3 comes without what makes virtual environments.
        probe: &["python3", "-c", "import ensurepip, venv"],
        package: "python3-venv",
        purpose: "to run the SDK suites",
        required: true,
    },
    Need {
        programs: &["openssl"],
        probe: &[],
        package: "openssl",
        purpose: "for the TLS suite's certificate",
        required: false,
    },
    Need {
        programs: &["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"],
        probe: &[],
        package: "chromium",
        purpose: "for pusher-js in a real browser",
        required: false,
    },
    Need {
        // Debian has the server's own programs off the path, and puts the client on it.
        programs: &["psql"],
        probe: &["sh", "-c", "ls /usr/lib/postgresql/*/bin/initdb"],
        package: "postgresql",
        purpose: "for `fulmar app import` from PostgreSQL",
        required: false,
    },
    Need {
        // The programs without the service: nothing is started on whoever's machine this is.
        programs: &["mariadb-install-db"],
        probe: &["sh", "-c", "command -v mariadbd || test -x /usr/sbin/mariadbd"],
        package: "mariadb-server-core",
        purpose: "for `fulmar app import` from MariaDB",
        required: false,
    },
    Need {
        programs: &["mariadb", "mysql"],
        probe: &[],
        package: "mariadb-client-core",
        purpose: "for `fulmar app import` from MariaDB",
        required: false,
    },
    Need {
        programs: &["redis-server"],
        probe: &[],
        package: "redis-server",
        purpose: "for every test of several nodes",
        required: false,
    },
    Need {
        programs: &["redis-sentinel"],
        probe: &[],
        package: "redis-sentinel",
        purpose: "for every test of several nodes",
        required: false,
    },
    Need {
        programs: &["tc"],
        probe: &[],
        package: "iproute2",
        purpose: "for lines that the kernel caps in the lab",
        required: false,
    },
    Need {
        programs: &["iptables"],
        probe: &[],
        package: "iptables",
        purpose: "for lines that the kernel caps in the lab",
        required: false,
    },
    Need {
        // The tests want its library, which lies off every path.
        programs: &["faketime"],
        probe: &["sh", "-c", "ls /usr/lib/*/faketime/libfaketime.so.1"],
        package: "faketime",
        purpose: "for servers with a wrong clock, which `fulmar doctor` must find",
        required: false,
    },
];

/// Services that come with packages above. Tests start their own; where we installed one, it is not left running.
const SERVICES: [&str; 3] = ["redis-server", "redis-sentinel", "valkey-server"];

/// Toolchains that are not installed for anybody: a suite without its own is skipped, loudly.
const TOOLCHAINS: [(&str, &str); 4] = [
    ("node", "pusher-js, laravel-echo, pusher (Node)"),
    ("npm", "pusher-js, laravel-echo, pusher (Node)"),
    ("go", "pusher-http-go"),
    ("mvn", "pusher-http-java, pusher-websocket-java"),
];

/// Installs what is missing and can be installed.
pub fn run() -> Outcome {
    add_components();
    let missing: Vec<_> = NEEDS.iter().filter(|need| !need.is_met()).collect();
    let apt = Apt::find();
    match &apt {
        _ if missing.is_empty() => {}
        Some(apt) => apt.install(&missing.iter().map(|need| need.package).collect::<Vec<_>>()),
        None => println!("!! cannot install Debian packages here (no apt-get, or neither root nor password-less sudo)"),
    }
    valkey::obtain(apt.as_ref());
    old_redis::obtain();
    for (program, suites) in TOOLCHAINS.iter().filter(|(program, _)| !project::is_installed(program)) {
        println!("!! `{program}` is missing: the suites that need it will be skipped ({suites})");
    }
    for need in missing.iter().filter(|need| !need.is_met()) {
        println!("!! Debian package {} is missing, {}", need.package, need.purpose);
    }
    match missing.iter().find(|need| need.required && !need.is_met()) {
        Some(need) => Err(Failure(format!("install the Debian package {} first", need.package))),
        None => Ok(()),
    }
}

impl Need {
    fn is_met(&self) -> bool {
        let is_there = self.programs.iter().any(|program| project::is_installed(program));
        is_there && self.probe.split_first().is_none_or(|(program, arguments)| succeeds(program, arguments))
    }
}

/// Formatter and linter, where the toolchain was installed without them. What is still missing then shows in `check`.
fn add_components() {
    for (verb, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if project::cargo(&[verb, "--version"]).output().is_ok_and(|output| output.status.success()) {
            continue;
        }
        project::announce(&format!("rustup component add {component}"));
        if let Err(failure) = project::run(&mut project::command("rustup", &["component", "add", component])) {
            println!("!! {failure}");
        }
    }
}

/// Debian's packages, where they can be installed without a question.
struct Apt {
    /// How to become root.
    prefix: &'static [&'static str],
}

impl Apt {
    fn find() -> Option<Self> {
        Some(Self { prefix: privileged()? })
    }

    /// Tries once; what could not be installed shows when the needs are looked at again.
    fn install(&self, packages: &[&str]) {
        let options = ["install", "--yes", "--no-install-recommends"];
        let installed = self.call(&["update"]).and_then(|()| self.call(&[&options, packages].concat()));
        if let Err(failure) = installed {
            println!("!! {failure}");
        }
        for service in SERVICES.iter().filter(|service| packages.contains(service)) {
            still(self.prefix, service);
        }
    }

    /// The same for a package that not every release of Debian has.
    fn install_if_known(&self, package: &str) {
        // Nothing is known before the first update.
        if self.call(&["update"]).is_ok() && succeeds("apt-cache", &["show", package]) {
            self.install(&[package]);
        }
    }

    fn call(&self, verb: &[&str]) -> Outcome {
        // In runlevel 1 a package's script starts no service, where no systemd runs.
        let quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"];
        let words: Vec<_> = self.prefix.iter().chain(&quiet).chain(verb).copied().collect();
        project::announce(&format!("apt-get {}", verb.join(" ")));
        project::run(&mut project::command(words[0], &words[1..]))
    }
}

/// Ends a service that the package has just started, and keeps it from starting with the machine: whoever ran this wanted tests.
fn still(prefix: &[&str], service: &str) {
    let systemctl = ["systemctl", "--quiet", "disable", "--now", service];
    if project::is_installed("systemctl") && std::path::Path::new("/run/systemd/system").exists() {
        let words: Vec<_> = prefix.iter().chain(&systemctl).copied().collect();
        project::announce(&systemctl.join(" "));
        if let Err(failure) = project::run(&mut project::command(words[0], &words[1..])) {
            println!("!! {failure}");
        }
    }
}

/// How to become root without a question, if that is possible.
fn privileged() -> Option<&'static [&'static str]> {
    if !project::is_installed("apt-get") {
        return None;
    }
    if project::is_root() {
        return Some(&[]);
    }
    succeeds("sudo", &["-n", "true"]).then_some(["sudo", "-n"].as_slice())
}

/// Whether a quiet question to another program is answered with yes.
fn succeeds(program: &str, arguments: &[&str]) -> bool {
    project::command(program, arguments).output().is_ok_and(|output| output.status.success())
}
