//! Whether the operator's user may do all that a plan will ask for, looked at before anything is changed.
//!
//! Redis says so itself (`ACL DRYRUN`, from Redis 7 on). Where it does not, because it is older or that may not be asked either, nothing is
//! concluded, and that is said. What an action asks for stands here once more than in [`crate::act`], and what moving slots does once more
//! than in the backbone's `reshard` and its script; they are read side by side.

use std::collections::BTreeMap;

use fulmar_backbone::redis::keys::Keys;
use fulmar_control::plan::{Action, Guard, Guarded, Plan, Who};
use futures_util::future::join_all;
use redis::{Value, cmd};

use crate::doors::{Doors, Kind, words};
use crate::read::{host_and_port, text};
use crate::watch::Watcher;

/// A command, word by word.
type Words = Vec<String>;
/// What is needed, by who is asked.
type Needs = BTreeMap<(bool, String), Vec<Words>>;

/// What was learned of one server or Sentinel.
struct Looked {
    kind: Kind,
    address: String,
    user: String,
    /// Rules that would mend it, each with the command it is for; or why it cannot be known.
    missing: Result<Vec<(String, String)>, String>,
}

/// Asks whoever the plan will ask whether it will do it.
pub async fn look(watcher: &Watcher, group: &str, plan: &Plan) -> Guarded {
    ask(watcher, needs(watcher, group, plan)).await
}

/// Asks everybody in the groups that are watched whether slots may be moved there: whatever server may become primary meanwhile.
pub async fn look_for_slots(watcher: &Watcher) -> Guarded {
    let mut needs = Needs::new();
    for seen in watcher.groups() {
        let keys = watcher.doors().settings().keys(&seen.name);
        seen.servers.iter().for_each(|server| need(&mut needs, (false, server.address.clone()), of_slots(&keys)));
        let asked = ["SENTINEL GET-MASTER-ADDR-BY-NAME", "SENTINEL REPLICAS"].map(|words| split(words, &seen.name));
        seen.sentinels.iter().for_each(|sentinel| need(&mut needs, (true, sentinel.address.clone()), asked.clone()));
    }
    ask(watcher, needs).await
}

async fn ask(watcher: &Watcher, needs: Needs) -> Guarded {
    let looks = needs.into_iter().map(|((is_sentinel, address), wanted)| async move {
        let kind = if is_sentinel { Kind::Sentinel } else { Kind::Server };
        one(watcher.doors(), kind, address, &wanted).await
    });
    judged(&join_all(looks).await)
}

async fn one(doors: &Doors, kind: Kind, address: String, wanted: &[Words]) -> Looked {
    let settings = doors.settings();
    let credentials = if kind == Kind::Server { &settings.credentials } else { &settings.sentinel_credentials };
    let user = credentials.user.clone().unwrap_or_else(|| "default".to_owned());
    let commands: Vec<_> = wanted
        .iter()
        .map(|wanted| {
            let mut command = cmd("ACL");
            command.arg("DRYRUN").arg(&user).arg(wanted);
            command
        })
        .collect();
    let missing = match doors.ask_all(kind, &address, &commands).await {
        Ok(answers) => wanted.iter().zip(&answers).filter_map(|(wanted, answer)| verdict(wanted, answer)).collect(),
        Err(error) => Err(error.to_string()),
    };
    Looked { kind, address, user, missing }
}

/// The command and the rule that it lacks; nothing where it lacks none, an error where that is not known.
fn verdict(wanted: &Words, answer: &Value) -> Option<Result<(String, String), String>> {
    let said = match answer {
        Value::ServerError(error) => return Some(Err(words(error))),
        Value::Okay => return None,
        other => text(other),
    };
    if said == "OK" {
        return None;
    }
    // It quotes what is lacking: 'client|pause' of commands, the name of a key or channel.
    let quoted = said.split('\'').nth(1).unwrap_or_default();
    let sign = if said.contains("channel") && !said.contains("command") {
        "&"
    } else if said.contains("key") && !said.contains("command") {
        "~"
    } else {
        "+"
    };
    Some(Ok((wanted[..wanted.len().min(2)].join(" "), format!("{sign}{quoted}"))))
}

fn judged(looked: &[Looked]) -> Guarded {
    let mut lacks = Vec::new();
    let mut unknown: Vec<String> = Vec::new();
    for Looked { kind, address, user, missing } in looked {
        match missing {
            Ok(missing) if missing.is_empty() => {}
            Ok(missing) => {
                let commands: Vec<&str> = missing.iter().map(|(command, _)| command.as_str()).collect();
                let mut rules: Vec<&str> = missing.iter().map(|(_, rule)| rule.as_str()).collect();
                rules.dedup();
                let (host, port) = host_and_port(address);
                let what = if *kind == Kind::Sentinel { "the Sentinel " } else { "" };
                lacks.push(format!(
                    "the user {user} may not {} at {what}{address} (redis-cli -h {host} -p {port} ACL SETUSER {user} {})",
                    commands.join(", "),
                    rules.join(" ")
                ));
            }
            Err(why) => unknown.push(format!("{address}: {why}")),
        }
    }
    let figures = match (lacks.is_empty(), unknown.is_empty()) {
        (false, _) => lacks.join("; "),
        (true, false) => format!("not checked at {}", unknown.join("; ")),
        (true, true) => format!("{} servers and Sentinels say that they will do what the plan asks", looked.len()),
    };
    Guarded { guard: Guard::Rights, holds: lacks.is_empty(), figures, is_overridden: false }
}

fn needs(watcher: &Watcher, group: &str, plan: &Plan) -> Needs {
    let seen = watcher.group(group);
    let servers = || seen.iter().flat_map(|seen| seen.servers.iter().map(|server| server.address.clone()));
    let sentinels = || seen.iter().flat_map(|seen| seen.sentinels.iter().map(|sentinel| sentinel.address.clone()));
    let keys = watcher.doors().settings().keys(group);
    let mut needs = Needs::new();
    // The lease lies on whoever is primary, and any of them may become it.
    servers().for_each(|server| need(&mut needs, (false, server), of_lease(&keys)));
    let actions = plan.steps.iter().flat_map(|step| std::iter::once(&step.action).chain(&step.undo));
    for action in actions {
        match action {
            Action::FailOver => {
                sentinels()
                    .for_each(|sentinel| need(&mut needs, (true, sentinel), [split("SENTINEL FAILOVER", group)]));
            }
            Action::Attach { primary, .. } => {
                let asked = ["CONFIG GET masteruser", "CONFIG GET masterauth"].map(|words| split(words, ""));
                match primary {
                    Who::At(address) => need(&mut needs, (false, address.clone()), asked),
                    Who::Successor => servers().for_each(|server| need(&mut needs, (false, server), asked.clone())),
                }
            }
            _ => {}
        }
        if let Some((who, wanted)) = of_action(group, action) {
            need(&mut needs, who, wanted);
        }
    }
    needs
}

fn need(needs: &mut Needs, who: (bool, String), wanted: impl IntoIterator<Item = Words>) {
    let known = needs.entry(who).or_default();
    for wanted in wanted {
        if !known.contains(&wanted) {
            known.push(wanted);
        }
    }
}

fn split(words: &str, last: &str) -> Words {
    words.split(' ').chain([last]).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// What is asked of the one server or Sentinel that the action names, as [`crate::act`] asks it; values are examples.
fn of_action(group: &str, action: &Action) -> Option<((bool, String), Vec<Words>)> {
    let all = |words: &[&str]| words.iter().map(|words| split(words, "")).collect::<Vec<_>>();
    let (is_sentinel, who, wanted) = match action {
        Action::Watch | Action::FailOver => return None,
        Action::Pause { server, .. } => (false, server, all(&["CLIENT PAUSE 1 WRITE", "CLIENT UNPAUSE"])),
        Action::Resume { server } => (false, server, all(&["CLIENT UNPAUSE"])),
        Action::Prefer { server, .. } => (false, server, all(&["CONFIG SET replica-priority 1"])),
        Action::Demote { server, .. } => {
            let wanted = ["REPLICAOF 127.0.0.1 1", "CLIENT UNPAUSE", "CLIENT KILL TYPE normal SKIPME yes"];
            (false, server, all(&wanted))
        }
        Action::Attach { server, .. } => {
            let wanted = ["CONFIG SET masteruser x", "CONFIG SET masterauth x", "REPLICAOF 127.0.0.1 1"];
            (false, server, all(&wanted))
        }
        Action::Detach { server, .. } => (false, server, all(&["CONFIG SET masterauth x", "REPLICAOF 127.0.0.1 1"])),
        Action::Relearn { sentinel } => (true, sentinel, vec![split("SENTINEL RESET", group)]),
        Action::Monitor { sentinel, .. } => {
            let set = vec!["SENTINEL", "SET", group, "quorum", "1"].into_iter().map(str::to_owned).collect();
            let monitor = ["SENTINEL", "MONITOR", group, "127.0.0.1", "1", "1"].map(str::to_owned).to_vec();
            (true, sentinel, vec![split("SENTINEL REMOVE", group), monitor, set])
        }
    };
    Some(((is_sentinel, who.clone()), wanted))
}

/// Scripts are judged by the commands in them as well.
fn of_lease(keys: &Keys) -> [Words; 6] {
    let (lease, fence) = (keys.operator(), keys.operator_fence());
    let of = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    [
        of(&["EVAL", "return 1", "2", &lease, &fence]),
        of(&["GET", &lease]),
        of(&["SET", &lease, "x", "PX", "1"]),
        of(&["INCR", &fence]),
        of(&["PEXPIRE", &lease, "1"]),
        of(&["DEL", &lease]),
    ]
}

/// What whoever moves slots asks of a primary, its script's commands among it; values are examples.
fn of_slots(keys: &Keys) -> Vec<Words> {
    let (identity, outbox) = (keys.identity(), keys.outbox(0));
    let on_keys = [
        ("EVAL return(1) 1", &identity, ""),
        ("EVALSHA 0 1", &identity, ""),
        ("HMGET", &identity, "id"),
        ("HGET", &identity, "head"),
        ("HSET", &identity, "epoch 1"),
        ("HINCRBY", &identity, "slots 1"),
        ("EXISTS", &keys.map(), ""),
        ("GET", &keys.map(), ""),
        ("SET", &keys.map(), "x"),
        ("PEXPIRE", &keys.mover(), "1"),
        ("DEL", &keys.mover(), ""),
        ("HGETALL", &keys.nodes(), ""),
        ("HKEYS", &keys.announced(0), ""),
        ("HLEN", &keys.sealed(0), ""),
        ("XRANGE", &keys.log(), "- +"),
        ("XADD", &outbox, "* w x"),
        ("PTTL", &outbox, ""),
        ("UNLINK", &outbox, ""),
    ];
    let plain = ["ROLE", "INFO server", "WAIT 1 1", "SCRIPT LOAD return(1)", "SCAN 0"].map(|words| split(words, ""));
    let on_keys = on_keys.map(|(words, key, more)| split(words, key).into_iter().chain(split(more, "")).collect());
    plain.into_iter().chain(on_keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn looked(missing: Result<Vec<(String, String)>, String>) -> Looked {
        Looked { kind: Kind::Server, address: "10.0.0.1:6379".to_owned(), user: "ops".to_owned(), missing }
    }

    /// OP-22
    #[test]
    fn what_redis_says_is_lacking_becomes_the_rule_that_mends_it() {
        let check = |command: &str, said: &str, expected: Option<(&str, &str)>| {
            let found = verdict(&split(command, ""), &bulk(said)).map(Result::unwrap);
            let expected = expected.map(|(command, rule)| (command.to_owned(), rule.to_owned()));
            assert_eq!(found, expected, "{said}");
        };
        check("GET x", "OK", None);
        let of_command = "This user has no permissions to run the 'client|pause' command";
        check("CLIENT PAUSE 1 WRITE", of_command, Some(("CLIENT PAUSE", "+client|pause")));
        let of_key = "This user has no permissions to access the 'fulmar:operator' key";
        check("DEL fulmar:operator", of_key, Some(("DEL fulmar:operator", "~fulmar:operator")));
        assert_eq!(verdict(&split("GET x", ""), &Value::Okay), None);
    }

    /// OP-22
    #[test]
    fn a_right_that_is_lacking_refuses_and_one_that_nobody_can_tell_of_does_not() {
        let lacks = || Ok(vec![("CLIENT PAUSE".to_owned(), "+client|pause".to_owned())]);
        let no = judged(&[looked(Ok(Vec::new())), looked(lacks()), looked(Err("NOPERM".to_owned()))]);
        assert_eq!((no.guard, no.holds), (Guard::Rights, false));
        let said = "the user ops may not CLIENT PAUSE at 10.0.0.1:6379 (redis-cli -h 10.0.0.1 -p 6379 ACL SETUSER ops +client|pause)";
        assert_eq!(no.figures, said);
        let unknown = judged(&[looked(Ok(Vec::new())), looked(Err("NOPERM no".to_owned()))]);
        assert_eq!((unknown.holds, unknown.figures.as_str()), (true, "not checked at 10.0.0.1:6379: NOPERM no"));
        assert!(judged(&[looked(Ok(Vec::new()))]).holds);
    }
}
