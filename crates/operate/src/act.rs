//! Actions, as commands. What follows from them is not known here: it is observed.

use fulmar_control::observed::SentinelSeen;
use fulmar_control::plan::{Action, SentinelSettings, Who};
use redis::{Cmd, Value, cmd};

use crate::doors::{AskError, Doors, Kind};
use crate::read::{fields, host_and_port};
use crate::watch::Watcher;

/// A command of these words.
fn command(words: &[&str]) -> Cmd {
    let (name, rest) = words.split_first().expect("a command has a name");
    let mut command = cmd(name);
    command.arg(rest);
    command
}

/// Does what the action says, in the group of this name.
///
/// # Errors
/// It was refused, or it is not known whether it was done.
pub(crate) async fn act(
    watcher: &Watcher,
    group: &str,
    action: &Action,
    successor: Option<&str>,
) -> Result<(), AskError> {
    let doors = watcher.doors();
    let ask = async |address: &str, words: &[&str]| doors.ask(Kind::Server, address, &command(words)).await;
    let at = |who: &Who| {
        let address = who.address(successor).map(str::to_owned);
        address.ok_or_else(|| AskError::Refused("nobody was promoted".to_owned()))
    };
    match action {
        Action::Watch => Ok(()),
        Action::Pause { server, hold } => {
            ask(server, &["CLIENT", "PAUSE", &hold.as_millis().to_string(), "WRITE"]).await.map(drop)
        }
        Action::Resume { server } => ask(server, &["CLIENT", "UNPAUSE"]).await.map(drop),
        Action::Prefer { server, priority } => {
            ask(server, &["CONFIG", "SET", "replica-priority", &priority.to_string()]).await?;
            keep(doors, server).await;
            Ok(())
        }
        Action::FailOver => fail_over(watcher, group).await,
        Action::Demote { server, primary } => demote(doors, server, &at(primary)?).await,
        Action::Attach { server, primary } => attach(doors, server, &at(primary)?).await,
        Action::Detach { server, primary } => detach(doors, server, &at(primary)?).await,
        Action::Relearn { sentinel } => {
            doors.ask(Kind::Sentinel, sentinel, &command(&["SENTINEL", "RESET", group])).await.map(drop)
        }
        Action::Monitor { sentinel, primary, like } => monitor(doors, group, sentinel, primary, *like).await,
    }
}

/// Writes the configuration file, where there is one: what was changed outlives a restart.
async fn keep(doors: &Doors, server: &str) {
    // A server without a file refuses, and is none the worse for it.
    let _: Result<_, _> = doors.ask(Kind::Server, server, &command(&["CONFIG", "REWRITE"])).await;
}

/// The first Sentinel that takes it leads the failover.
async fn fail_over(watcher: &Watcher, group: &str) -> Result<(), AskError> {
    let mut last = AskError::Unreachable("no Sentinel answers".to_owned());
    let Some(seen) = watcher.group(group) else { return Err(last) };
    let named = seen.named(watcher.now()).map(str::to_owned);
    let is_right = |sentinel: &&SentinelSeen| {
        sentinel.view.as_ref().is_some_and(|view| named.as_ref().is_none_or(|named| *named == view.value.primary))
    };
    let mut right: Vec<&SentinelSeen> = seen.sentinels.iter().filter(is_right).collect();
    // One in TILT takes the command and does nothing.
    right.sort_by_key(|sentinel| sentinel.view.as_ref().is_some_and(|view| view.value.tilted_for.is_some()));
    for sentinel in right {
        let asked = command(&["SENTINEL", "FAILOVER", group]);
        match watcher.doors().ask(Kind::Sentinel, &sentinel.address, &asked).await {
            Ok(_) => return Ok(()),
            // It may have been heard: asking another could make two leaders.
            Err(error) if sentinel.trouble.is_none() && matches!(error, AskError::Unreachable(_)) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// All in one go: between following and the end of the pause nothing is written, because a replica takes no writes.
async fn demote(doors: &Doors, server: &str, primary: &str) -> Result<(), AskError> {
    let (host, port) = host_and_port(primary);
    let commands = [
        command(&["REPLICAOF", &host, &port]),
        command(&["CLIENT", "UNPAUSE"]),
        command(&["CONFIG", "REWRITE"]),
        command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]),
    ];
    first_refusal(doors.ask_all(Kind::Server, server, &commands).await?.first())
}

async fn attach(doors: &Doors, server: &str, primary: &str) -> Result<(), AskError> {
    let (host, port) = host_and_port(primary);
    for name in ["masteruser", "masterauth"] {
        let known = doors.ask(Kind::Server, primary, &command(&["CONFIG", "GET", name])).await?;
        let value = fields(&known).remove(name).unwrap_or_default();
        doors.ask(Kind::Server, server, &command(&["CONFIG", "SET", name, &value])).await?;
    }
    doors.ask(Kind::Server, server, &command(&["REPLICAOF", &host, &port])).await?;
    keep(doors, server).await;
    Ok(())
}

/// A Sentinel makes whatever it remembers follow again. So the server stays a replica, which takes no writes, and its password for
/// replication becomes one that no primary has.
async fn detach(doors: &Doors, server: &str, primary: &str) -> Result<(), AskError> {
    let (host, port) = host_and_port(primary);
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|error| AskError::Unreachable(format!("no random number: {error}")))?;
    let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let commands = [
        command(&["CONFIG", "SET", "masterauth", &password]),
        command(&["REPLICAOF", "NO", "ONE"]),
        command(&["REPLICAOF", &host, &port]),
        command(&["CONFIG", "REWRITE"]),
    ];
    match doors.ask_all(Kind::Server, server, &commands).await {
        Ok(answers) => first_refusal(answers.first()),
        // A process that is gone gets no data: whether it does is observed on its primary.
        Err(_) => Ok(()),
    }
}

async fn monitor(
    doors: &Doors,
    group: &str,
    sentinel: &str,
    primary: &str,
    like: SentinelSettings,
) -> Result<(), AskError> {
    let (host, port) = host_and_port(primary);
    let ask = async |words: &[&str]| doors.ask(Kind::Sentinel, sentinel, &command(words)).await;
    // It may not know the group at all.
    match ask(&["SENTINEL", "REMOVE", group]).await {
        Ok(_) | Err(AskError::Refused(_)) => {}
        Err(error) => return Err(error),
    }
    ask(&["SENTINEL", "MONITOR", group, &host, &port, &like.quorum.to_string()]).await?;
    let mut settings = vec![
        ("down-after-milliseconds", like.down_after.as_millis().to_string()),
        ("failover-timeout", like.failover_timeout.as_millis().to_string()),
        ("parallel-syncs", like.parallel_syncs.to_string()),
    ];
    let credentials = &doors.settings().credentials;
    settings.extend(credentials.user.clone().map(|user| ("auth-user", user)));
    settings.extend(credentials.password.clone().map(|password| ("auth-pass", password)));
    for (name, value) in settings {
        ask(&["SENTINEL", "SET", group, name, &value]).await?;
    }
    Ok(())
}

fn first_refusal(answer: Option<&Value>) -> Result<(), AskError> {
    match answer {
        Some(Value::ServerError(error)) => Err(AskError::Refused(crate::doors::words(error))),
        _ => Ok(()),
    }
}
