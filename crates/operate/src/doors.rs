//! Connections to servers and Sentinels, one each, made when somebody asks and dropped when one fails.
//!
//! Every question has a deadline. It repeats nothing: what failed is said, and the next question makes a new connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fulmar_backbone::redis::primaries::open;
use fulmar_backbone::redis::settings::Settings;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};

/// Longest a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_millis(1_000);
/// Longest an answer may take.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_millis(1_000);

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There is no connection, or no answer came in time: it may have been done or not.
    #[error("{0}")]
    Unreachable(String),
    /// The server's own words.
    #[error("{0}")]
    Refused(String),
}

/// Whom is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A Redis server.
    Server,
    /// A Sentinel.
    Sentinel,
}

/// All connections.
pub struct Doors {
    servers: Settings,
    sentinels: Settings,
    open: Mutex<HashMap<(Kind, String), MultiplexedConnection>>,
    /// Milliseconds that a question may take with all that belongs to it.
    patience: AtomicU64,
}

impl Doors {
    /// For servers and Sentinels of these settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let mut servers = settings.clone();
        servers.limits.command_timeout = ANSWER_WITHIN;
        let sentinels = Settings { credentials: settings.sentinel_credentials.clone(), database: 0, ..servers.clone() };
        let doors = Self { servers, sentinels, open: Mutex::default(), patience: AtomicU64::default() };
        doors.be_patient(ANSWER_WITHIN);
        doors
    }

    /// How long a question may take from now on.
    pub(crate) fn be_patient(&self, patience: Duration) {
        self.patience.store(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    async fn in_time<T>(
        &self,
        kind: Kind,
        address: &str,
        work: impl Future<Output = Result<T, AskError>>,
    ) -> Result<T, AskError> {
        let patience = self.patience.load(Ordering::Relaxed);
        // Connecting has the same time once more.
        match tokio::time::timeout(Duration::from_millis(2 * patience), work).await {
            Ok(done) => done,
            Err(_) => {
                self.forget(kind, address);
                Err(AskError::Unreachable(format!("no answer within {} ms", 2 * patience)))
            }
        }
    }

    /// The settings for servers.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.servers
    }

    /// Asks one thing.
    ///
    /// # Errors
    /// There is no answer, or it is a refusal.
    pub async fn ask(&self, kind: Kind, address: &str, command: &Cmd) -> Result<Value, AskError> {
        let asking = async {
            let mut connection = self.connection(kind, address).await?;
            self.judged(kind, address, connection.send_packed_command(command).await)
        };
        self.in_time(kind, address, asking).await
    }

    /// Asks several things at once; the server's refusals stand among the answers.
    ///
    /// # Errors
    /// There are no answers.
    pub async fn ask_all(&self, kind: Kind, address: &str, commands: &[Cmd]) -> Result<Vec<Value>, AskError> {
        let mut pipe = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipe.add_command(command.clone());
        }
        let asking = async {
            let mut connection = self.connection(kind, address).await?;
            let answers = connection.send_packed_commands(&pipe, 0, commands.len()).await;
            answers.map_err(|error| self.lost(kind, address, &error))
        };
        self.in_time(kind, address, asking).await
    }

    /// Gives all connections up: for whoever has cut them.
    pub fn forget(&self, kind: Kind, address: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&(kind, address.to_owned()));
    }

    fn judged(&self, kind: Kind, address: &str, answer: Result<Value, redis::RedisError>) -> Result<Value, AskError> {
        match answer {
            Ok(Value::ServerError(error)) => Err(AskError::Refused(words(&error))),
            Ok(value) => Ok(value),
            Err(error) => Err(self.lost(kind, address, &error)),
        }
    }

    fn lost(&self, kind: Kind, address: &str, error: &redis::RedisError) -> AskError {
        self.forget(kind, address);
        AskError::Unreachable(error.to_string())
    }

    async fn connection(&self, kind: Kind, address: &str) -> Result<MultiplexedConnection, AskError> {
        let key = (kind, address.to_owned());
        let kept = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(connection) = kept {
            return Ok(connection);
        }
        let settings = if kind == Kind::Server { &self.servers } else { &self.sentinels };
        let made = tokio::time::timeout(CONNECT_WITHIN, open(address, settings, CONNECT_WITHIN)).await;
        let connection = match made {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(AskError::Unreachable(error.to_string())),
            Err(_) => {
                return Err(AskError::Unreachable(format!("no connection within {} ms", CONNECT_WITHIN.as_millis())));
            }
        };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(key, connection.clone());
        Ok(connection)
    }
}

/// A refusal in the server's own words.
pub(crate) fn words(error: &redis::ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}
