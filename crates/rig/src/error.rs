//! What can go wrong with a rig, in words for whoever reads the report of a test.

use std::io;
use std::time::Duration;

/// Why a rig could not be set up or used.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// The system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A process ended that should have lived.
    #[error("{what} ended at once; it said:\n{log}")]
    Ended {
        /// Which.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// Something did not come to be in time.
    #[error("waited {waited:?} in vain: {what}")]
    Late {
        /// For what.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// A server answered with an error.
    #[error("{call} was answered {answer}")]
    Refused {
        /// The command.
        call: String,
        /// Its words.
        answer: String,
    },
    /// A peer said what nobody expects.
    #[error("{0}")]
    Peer(String),
}

impl RigError {
    /// What the system said while `doing`.
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io { doing: doing.into(), source }
    }
}
