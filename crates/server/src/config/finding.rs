//! What is to be said about a configuration: where, about which key, and how grave it is.
//!
//! A finding never carries a secret: values of secret keys do not get this far.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: the default applies.
    Default,
    /// In the configuration file.
    File {
        /// The file, as it was named.
        path: Arc<Path>,
        /// Line, counted from 1; 0 is the file as a whole.
        line: usize,
    },
    /// In an environment variable.
    Variable(String),
    /// In a flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// What was found. The texts finish a sentence that begins with the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum What {
    /// A file could not be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The file is not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// No such key, or no such variable.
    #[error("is not known{}", did_you_mean(.nearest))]
    Unknown {
        /// The known one that looks most like it.
        nearest: Option<String>,
    },
    /// Another type than the key has.
    #[error("must be {expected}, not {found}")]
    WrongType {
        /// What the key takes.
        expected: String,
        /// What was written: a TOML type, or the text of a variable or flag.
        found: String,
    },
    /// A number outside its range.
    #[error("must be between {min} and {max}, not {found}")]
    OutOfRange {
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
        /// As written.
        found: String,
    },
    /// Text that breaks the rule of its key.
    #[error("{0}")]
    Breaks(&'static str),
    /// A key that every app must have.
    #[error("is missing")]
    Missing,
    /// Two apps must not share this.
    #[error("is already used by the app at {first}")]
    Duplicate {
        /// Where it was used first.
        first: Place,
    },
    /// Only one of the two may be given.
    #[error("cannot be given together with {0}")]
    Excludes(&'static str),
    /// A key that would make the node read a file of its machine for somebody who may not see that machine.
    #[error("belongs to the configuration file; give {instead} instead")]
    FileOnly {
        /// The key that holds the text itself.
        instead: &'static str,
    },
    /// This key is nothing without the other.
    #[error("needs {0} as well")]
    Needs(&'static str),
    /// An app of a changed file would leave the node without any app.
    #[error("leaves no app at all; the apps from before stay (write demo.enabled = false to really remove them)")]
    AppsVanished,
    /// The demo app, whose secret everybody knows, is reachable from other machines.
    #[error(
        "no app is configured, so the demo app is on, and its secret is public: anybody who reaches {host} can \
         publish. Configure an app ([[apps]] or --app ID:KEY:SECRET), or listen on 127.0.0.1"
    )]
    DemoExposed {
        /// The address that is listened on.
        host: String,
    },
    /// The admin API would be reachable from other machines without anything to hold against a caller.
    #[error(
        "{host} is more than this machine, and there is no admin.token or admin.token_file: the admin API is off until \
         there is one"
    )]
    AdminExposed {
        /// The address that was written.
        host: String,
    },
    /// Nothing can connect.
    #[error("leaves no app at all: every connection will be refused with 4001")]
    NoApps,
    /// No connection to this app can ever count as TLS.
    #[error("refuses every connection with 4000, since neither [tls] nor server.trusted_proxies is configured")]
    TlsNeverUsed,
    /// A limit that another limit makes unreachable.
    #[error("is {inner}, but {outer_key} is {outer}: events of that size cannot arrive")]
    Unreachable {
        /// This limit.
        inner: u64,
        /// The limit in the way.
        outer_key: &'static str,
        /// Its value.
        outer: u64,
    },
    /// Servers are named that nobody will talk to.
    #[error("has no effect: backbone.kind is embedded")]
    NotOverRedis,
    /// PROXY headers would be believed from nobody.
    #[error("has no effect: server.trusted_proxies is empty, and PROXY headers are believed from nobody else")]
    NobodyTrusted,
    /// A variable of the client commands that looks as if it was meant for the node.
    #[error("is read by trigger, subscribe and channels only; this node takes {0}")]
    ClientVariable(&'static str),
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default()
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Worth knowing; never a reason to stop.
    Advice,
    /// An unknown key: a node starts without it, since the file may be of a later release; a strict check fails.
    Unknown,
    /// A bad value of a soft key: a node starts with the default, a check fails.
    FallsBack,
    /// A bad value of a hard key: a node does not start.
    Refuses,
}

/// One thing to say about a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where it is written.
    pub place: Place,
    /// The key concerned; empty when it concerns no single key.
    pub key: String,
    /// What is the matter.
    pub what: What,
    /// How grave it is.
    pub weight: Weight,
}

impl Finding {
    pub(super) fn refuses(place: Place, key: impl Into<String>, what: What) -> Self {
        Self { place, key: key.into(), what, weight: Weight::Refuses }
    }

    pub(super) fn falls_back(place: Place, key: impl Into<String>, what: What) -> Self {
        Self { place, key: key.into(), what, weight: Weight::FallsBack }
    }

    pub(super) fn unknown(place: Place, key: impl Into<String>, nearest: Option<String>) -> Self {
        Self { place, key: key.into(), what: What::Unknown { nearest }, weight: Weight::Unknown }
    }

    pub(super) fn advice(place: Place, key: impl Into<String>, what: What) -> Self {
        Self { place, key: key.into(), what, weight: Weight::Advice }
    }

    /// Whether `fulmar check` fails on it; `strict` also fails on unknown keys.
    #[must_use]
    pub fn fails_check(&self, strict: bool) -> bool {
        match self.weight {
            Weight::Advice => false,
            Weight::Unknown => strict,
            Weight::FallsBack | Weight::Refuses => true,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place != Place::Default {
            write!(f, "{}: ", self.place)?;
        }
        let named_by_place = matches!(&self.place, Place::Variable(name) if *name == self.key);
        if !self.key.is_empty() && !named_by_place {
            write!(f, "{} ", self.key)?;
        }
        write!(f, "{}", self.what)?;
        if self.weight == Weight::FallsBack && !matches!(self.what, What::AdminExposed { .. }) {
            f.write_str(" (a node falls back to the default)")?;
        }
        Ok(())
    }
}

/// A configuration that cannot be used. Holds every finding, not only the fatal ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// In the order of the sources, and of the lines within the file.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, finding) in self.findings.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}
