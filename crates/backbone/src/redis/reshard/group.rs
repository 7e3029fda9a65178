//! A group as whoever moves slots sees it: one connection to the primary that a majority of Sentinels names and that has shown
//! role and identity.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};

use super::ReshardError;
use crate::redis::keys::Keys;
use crate::redis::lease::Lease;
use crate::redis::link::{Certificates, Greeting, is_primary, maker};
use crate::redis::map::{Held, SlotMap};
use crate::redis::primaries;
use crate::redis::scripts::{self, Facts};
use crate::redis::settings::{Settings, Topology};

/// Longest wait for a connection.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest wait for replicas to have what was written.
const REPLICAS_MS: u64 = 1_000;

/// See the head of this file.
pub(super) struct Group {
    pub(super) name: String,
    address: String,
    settings: Settings,
    pub(super) connection: MultiplexedConnection,
    facts: Facts,
    /// Replicas that Sentinels know.
    pub(super) replicas_known: usize,
}

impl Group {
    /// Finds a group's primary and looks whether it is one. A server without any data is one that a new group may have; if
    /// `may_write`, it is taken for that, and whatever server it is, into use.
    pub(super) async fn open(
        name: &str,
        settings: &Settings,
        keys: &Keys,
        may_write: bool,
    ) -> Result<Self, ReshardError> {
        let failed = |what: String| ReshardError::Unreachable(name.to_owned(), what);
        let of = |error: RedisError| failed(error.to_string());
        let (address, replicas_known) = named(name, settings).await?;
        let mut connection = primaries::open(&address, settings, PATIENCE)
            .await
            .map_err(|error| failed(format!("{address}: {error}")))?;
        let role: Value = redis::cmd("ROLE").query_async(&mut connection).await.map_err(of)?;
        if is_primary(&role) != Some(true) {
            return Err(failed(format!("{address} is not a primary")));
        }
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(of)?;
        let run = field(&info, "run_id").ok_or_else(|| failed(format!("{address} does not say who it is")))?.to_owned();
        let identity = format!("{}/{name}", keys.deployment());
        let configured = settings.topology.groups().join(",");
        let mut about = redis::cmd("HMGET");
        about.arg(keys.identity()).arg("id").arg("epoch").arg("slots").arg("groups");
        let (id, mut epoch, slots, groups): (Option<String>, Option<u64>, Option<u64>, Option<String>) =
            about.query_async(&mut connection).await.map_err(of)?;
        if let Some(id) = id.as_ref().filter(|id| **id != identity) {
            return Err(failed(format!("{address} has the data of {id}")));
        }
        if may_write {
            let mut attach = redis::cmd("EVAL");
            attach.arg(scripts::ATTACH.text()).arg(1).arg(keys.identity());
            attach.arg(&identity).arg(&run).arg(epoch.unwrap_or(0)).arg(1).arg(&configured);
            let attached: Result<Vec<Value>, RedisError> = attach.query_async(&mut connection).await;
            epoch = match attached.map_err(of)?.first() {
                Some(Value::Int(epoch)) => u64::try_from(*epoch).ok(),
                _ => None,
            };
        } else if id.is_some() && groups.as_ref() != Some(&configured) {
            // The script would refuse it; where there is a map, that says which groups there are.
            let is_mapped: bool =
                redis::cmd("EXISTS").arg(keys.map()).query_async(&mut connection).await.map_err(of)?;
            if !is_mapped {
                let groups = groups.unwrap_or_default();
                return Err(failed(format!("{address} is of the groups {groups}, and {configured} are configured")));
            }
        }
        let epoch = epoch.unwrap_or(0);
        let facts = Facts { identity, run, epoch, slots: slots.unwrap_or(0) };
        let (name, settings) = (name.to_owned(), settings.clone());
        Ok(Self { name, address, settings, connection, facts, replicas_known })
    }

    /// Of one server, which nobody moves slots of.
    #[cfg(test)]
    pub(super) async fn of_one_server(address: &str, settings: &Settings) -> Self {
        let connection = primaries::open(address, settings, PATIENCE).await.expect("it answers");
        let facts = Facts { identity: String::new(), run: String::new(), epoch: 0, slots: 0 };
        let (name, address, settings) = (String::new(), address.to_owned(), settings.clone());
        Self { name, address, settings, connection, facts, replicas_known: 0 }
    }

    fn failed(&self, error: &RedisError) -> ReshardError {
        match error.code() {
            // Nobody has taken it: it can be taken again.
            Some("NOTMOVER") if error.detail().is_some_and(|held| held.ends_with(": nobody")) => {
                ReshardError::Unreachable(self.name.clone(), "the lease of whoever moves slots has lapsed".to_owned())
            }
            Some("NOTMOVER") => ReshardError::Busy(error.detail().unwrap_or_default().to_owned()),
            _ => ReshardError::Unreachable(self.name.clone(), error.to_string()),
        }
    }

    /// One command.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, ReshardError> {
        let answer = command.query_async(&mut self.connection).await;
        answer.map_err(|error| self.failed(&error))
    }

    /// Several at once.
    pub(super) async fn ask_all<T: FromRedisValue>(&mut self, commands: &[Cmd]) -> Result<Vec<T>, ReshardError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        commands.iter().for_each(|command| _ = pipe.add_command(command.clone()));
        let answers = pipe.query_async(&mut self.connection).await;
        answers.map_err(|error| self.failed(&error))
    }

    /// A step of the move; see `scripts/reshard.lua`.
    pub(super) async fn step(&mut self, keys: &Keys, mover: &str, words: &[Vec<u8>]) -> Result<(), ReshardError> {
        let mut command = scripts::RESHARD.call(keys, &self.facts);
        command.arg(mover);
        words.iter().for_each(|word| _ = command.arg(&word[..]));
        let mut answer: Result<Value, RedisError> = command.query_async(&mut self.connection).await;
        let is_unknown = |error: &RedisError| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript);
        if answer.as_ref().is_err_and(is_unknown) {
            let _: Value = self.ask(&scripts::RESHARD.load()).await?;
            answer = command.query_async(&mut self.connection).await;
        }
        answer.map(drop).map_err(|error| self.failed(&error))
    }

    /// Waits until every replica that is online has what was written, and looks whether the primary still is the group's.
    pub(super) async fn settle(&mut self) -> Result<(), ReshardError> {
        let online = self.replicas_online().await?;
        if online > 0 {
            let mut wait = redis::cmd("WAIT");
            wait.arg(online).arg(REPLICAS_MS);
            let have: usize = self.ask(&wait).await?;
            if have < online {
                let what = format!("{have} of {online} replicas have what was written");
                return Err(ReshardError::Unreachable(self.name.clone(), what));
            }
        }
        let role: Value = self.ask(&redis::cmd("ROLE")).await?;
        let mut is_its_own = is_primary(&role) == Some(true);
        // One that hung, or was cut off, need not know of its successor. Replicas do, and have left it.
        if is_its_own && online < self.replicas_known {
            is_its_own = named(&self.name, &self.settings).await?.0 == self.address;
        }
        if !is_its_own {
            return Err(ReshardError::Unreachable(self.name.clone(), "it is not the primary any more".to_owned()));
        }
        Ok(())
    }

    pub(super) async fn replicas_online(&mut self) -> Result<usize, ReshardError> {
        let mut info = redis::cmd("INFO");
        info.arg("replication");
        let info: String = self.ask(&info).await?;
        Ok(info.lines().filter(|line| line.starts_with("slave") && line.contains("state=online")).count())
    }

    pub(super) async fn map(&mut self, keys: &Keys) -> Result<Option<SlotMap>, ReshardError> {
        let mut get = redis::cmd("GET");
        get.arg(keys.map());
        let text: Option<String> = self.ask(&get).await?;
        Ok(text.as_deref().and_then(SlotMap::parse))
    }

    pub(super) async fn leases(&mut self, keys: &Keys) -> Result<Vec<Lease>, ReshardError> {
        let mut get = redis::cmd("HGETALL");
        get.arg(keys.nodes());
        let leases: Vec<(String, String)> = self.ask(&get).await?;
        Ok(leases.iter().filter_map(|(node, text)| Lease::parse(node, text)).collect())
    }

    /// What it says of these slots.
    pub(super) async fn held(&mut self, keys: &Keys, slots: &[u16]) -> Result<Vec<Option<Held>>, ReshardError> {
        let mut get = redis::cmd("HMGET");
        get.arg(keys.slots()).arg(slots);
        let texts: Vec<Option<String>> = self.ask(&get).await?;
        Ok(texts.iter().map(|text| text.as_deref().and_then(Held::parse)).collect())
    }
}

/// The server that a majority of the Sentinels names, and how many replicas they know of it.
async fn named(name: &str, settings: &Settings) -> Result<(String, usize), ReshardError> {
    let failed = |what: String| ReshardError::Unreachable(name.to_owned(), what);
    let Topology::Sentinel { sentinels, .. } = &settings.topology else { return Err(ReshardError::OneServer) };
    let tls = settings.tls.as_ref().map(Certificates::read).transpose();
    let tls = tls.map_err(|error| failed(error.to_string()))?.map(std::sync::Arc::new);
    let credentials = settings.sentinel_credentials.clone();
    let greeting = Greeting { credentials, database: 0, tls, asks_who: false };
    let config =
        redis::AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
    let mut votes: Vec<(String, usize, usize)> = Vec::new();
    for address in sentinels {
        let Ok(maker) = maker(address, &greeting) else { continue };
        let Ok(mut sentinel) = maker.get_multiplexed_async_connection_with_config(&config).await else { continue };
        let mut primary = redis::cmd("SENTINEL");
        primary.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let mut replicas = redis::cmd("SENTINEL");
        replicas.arg("REPLICAS").arg(name);
        let primary: Option<(String, String)> = primary.query_async(&mut sentinel).await.ok().flatten();
        let replicas: Vec<Value> = replicas.query_async(&mut sentinel).await.unwrap_or_default();
        let Some((host, port)) = primary else { continue };
        let at = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        match votes.iter_mut().find(|(known, ..)| *known == at) {
            Some((_, votes, known)) => (*votes, *known) = (*votes + 1, (*known).max(replicas.len())),
            None => votes.push((at, 1, replicas.len())),
        }
    }
    let most = votes.into_iter().max_by_key(|(_, votes, _)| *votes);
    match most {
        Some((address, votes, replicas)) if 2 * votes > sentinels.len() => Ok((address, replicas)),
        Some((_, votes, _)) => {
            Err(failed(format!("{votes} of {} Sentinels agree on its primary, which is no majority", sentinels.len())))
        }
        None => Err(failed(format!("none of {} Sentinels names its primary", sentinels.len()))),
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
