//! The lease of an operator on a group: kept in the group's own Redis, so that whoever can operate on it can see it.
//!
//! It lapses by itself. Each carries a fence, a number that rises with every lease ever taken: who comes back from a long sleep finds
//! another number than its own, and stops.

use std::time::{Duration, Instant};

use fulmar_backbone::redis::keys::Keys;
use redis::{Value, cmd};

use crate::doors::{AskError, Doors, Kind};
use crate::read::{list, text};

/// How long a lease is good for after it was renewed last.
pub const LEASE: Duration = Duration::from_secs(30);
/// How often it is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(5);

const TAKE: &str = "local held = redis.call('GET', KEYS[1]) if held then return {'', held} end \
                    local fence = redis.call('INCR', KEYS[2]) local value = fence .. ' ' .. ARGV[1] \
                    redis.call('SET', KEYS[1], value, 'PX', ARGV[2]) return {value, ''}";
const RENEW: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
                     return redis.call('PEXPIRE', KEYS[1], ARGV[2])";
const RELEASE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('DEL', KEYS[1])";

/// Why somebody may not operate, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else is at it.
    #[error("{0} operates on the group now")]
    Held(String),
    /// The lease lapsed, or is another's by now.
    #[error("the lease on the group is no longer this operator's; it is {0}")]
    Lost(String),
    /// The server could not be asked, or takes no writes.
    #[error("the lease on the group cannot be kept: {0}")]
    Unknown(#[from] AskError),
}

/// A lease that was taken.
#[derive(Debug)]
pub struct Lease {
    names: [String; 2],
    value: String,
    renewed: Instant,
}

impl Lease {
    /// Takes the lease on the server, in somebody's name.
    ///
    /// # Errors
    /// It is another's, or the server cannot be asked.
    pub async fn take(doors: &Doors, server: &str, keys: &Keys, who: &str) -> Result<Self, LeaseError> {
        let names = [keys.operator(), keys.operator_fence()];
        let who: String = who.chars().filter(|c| !c.is_control()).take(100).collect();
        let mut script = cmd("EVAL");
        script.arg(TAKE).arg(2).arg(&names).arg(who).arg(millis(LEASE));
        let answer = doors.ask(Kind::Server, server, &script).await?;
        let parts: Vec<String> = list(&answer).iter().map(text).collect();
        match parts.as_slice() {
            [value, _] if !value.is_empty() => Ok(Self { names, value: value.clone(), renewed: Instant::now() }),
            [_, held] => Err(LeaseError::Held(held.clone())),
            _ => Err(AskError::Refused("it does not answer as a lease does".to_owned()).into()),
        }
    }

    /// Its number, which rises with each lease of the group.
    #[must_use]
    pub fn fence(&self) -> &str {
        self.value.split(' ').next().unwrap_or_default()
    }

    /// Makes sure that it is still there. Only reads: a server that is paused answers as well.
    ///
    /// # Errors
    /// It is not, or nobody can say.
    pub async fn check(&self, doors: &Doors, server: &str) -> Result<(), LeaseError> {
        let mut question = cmd("GET");
        question.arg(&self.names[0]);
        match text(&doors.ask(Kind::Server, server, &question).await?) {
            value if value == self.value => Ok(()),
            value if value.is_empty() => Err(LeaseError::Lost("nobody's".to_owned())),
            value => Err(LeaseError::Lost(value)),
        }
    }

    /// Renews it, when it is time to. Writes: not to be asked of a server that is paused.
    ///
    /// # Errors
    /// It is not there any more, or nobody can say.
    pub async fn renew(&mut self, doors: &Doors, server: &str) -> Result<(), LeaseError> {
        if self.renewed.elapsed() < RENEW_EVERY {
            return Ok(());
        }
        let mut script = cmd("EVAL");
        script.arg(RENEW).arg(1).arg(&self.names[0]).arg(&self.value).arg(millis(LEASE));
        match doors.ask(Kind::Server, server, &script).await? {
            Value::Int(1) => {
                self.renewed = Instant::now();
                Ok(())
            }
            _ => Err(LeaseError::Lost("nobody's".to_owned())),
        }
    }

    /// Gives it back. What fails here lapses.
    pub async fn release(self, doors: &Doors, server: &str) {
        let mut script = cmd("EVAL");
        script.arg(RELEASE).arg(1).arg(&self.names[0]).arg(&self.value);
        let _: Result<_, _> = doors.ask(Kind::Server, server, &script).await;
    }
}

fn millis(time: Duration) -> String {
    time.as_millis().to_string()
}
