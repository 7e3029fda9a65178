//! What the log says of a server or a Sentinel that is of no use: its own words, what to do about it, and each once in a while.
//! Pure.
//!
//! Nodes try again several times a second, and what is wrong stays wrong until somebody acts: said each time, it would bury
//! everything else; said without the server's words, nobody would know what to do.

use std::collections::VecDeque;
use std::time::Duration;

/// The same fact is logged once in this time.
const AGAIN: Duration = Duration::from_secs(30);
/// Facts that are remembered as said. With more than that in half a minute the oldest may be said again.
const FACTS_MAX: usize = 16;

/// What was said a short while ago.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said: VecDeque<(String, Duration)>,
}

impl Complaints {
    /// Whether this is to be said now: not if it was, a short while ago, whatever else was said in between.
    pub(super) fn is_due(&mut self, now: Duration, what: &str) -> bool {
        self.said.retain(|(_, at)| now < *at + AGAIN);
        if self.said.iter().any(|(said, _)| said == what) {
            return false;
        }
        if self.said.len() >= FACTS_MAX {
            self.said.pop_front();
        }
        self.said.push_back((what.to_owned(), now));
        true
    }
}

/// Whom words are about: what mends it stands elsewhere in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// A server's, where this database was asked for.
    Server { database: i64 },
    /// A Sentinel's.
    Sentinel,
}

/// Why there is no connection, and what to do where the other side's words tell.
pub(super) fn no_connection(why: &str, whose: Whose) -> String {
    let (peer, keys) = match whose {
        Whose::Server { .. } => ("the server", "backbone.user and backbone.password_file"),
        Whose::Sentinel => ("this Sentinel", "backbone.sentinel_user and backbone.sentinel_password_file"),
    };
    let advice = match (why.split(' ').next(), whose) {
        (Some("WRONGPASS"), _) => format!("; give what it knows in {keys}"),
        (Some("NOAUTH"), _) => format!("; it wants a password: {keys}"),
        (Some("NOPERM"), _) => WITHOUT_RIGHT.to_owned(),
        (_, Whose::Server { database }) if why.contains("DB index is out of range") => {
            format!("; it has no database {database}: lower backbone.database, or raise `databases` on the server")
        }
        _ => String::new(),
    };
    format!("no connection to {peer}: {why}{advice}")
}

/// What a Sentinel answers instead of an address.
pub(super) fn sentinel_refuses(code: &str, details: &str) -> String {
    let advice = if code == "NOPERM" { WITHOUT_RIGHT } else { "" };
    format!("this Sentinel does not say who is primary: {code} {details}{advice}")
}

const WITHOUT_RIGHT: &str =
    "; the README lists what a node's user must be allowed, and ACL LOG there says what was refused";

/// Why a server is not taken for the group `identity`, which this node counts among `groups`.
pub(super) fn not_attached(code: &str, details: &str, identity: &str, groups: &str) -> String {
    match code {
        "WRONGGROUP" => format!(
            "REFUSED: this server has the data of {details}, and {identity} is looked for; give the address of the right \
             server, or this deployment a name of its own (backbone.deployment)"
        ),
        "OTHERGROUPS" => format!(
            "REFUSED: the nodes of this deployment go by the groups {details}, and this one by {groups}; make \
             backbone.groups (in Redis Cluster backbone.shares) the same on all"
        ),
        _ => unusable(code, details),
    }
}

/// Why a server is of no use, when it is for no reason of the group's.
pub(super) fn unusable(code: &str, details: &str) -> String {
    let advice = match code {
        "NOPERM" => WITHOUT_RIGHT,
        "CLUSTERDOWN" => {
            "; bring back what it lacks, or let the rest go on (`CONFIG SET cluster-require-full-coverage no` on every server)"
        }
        _ if details.contains("cluster support disabled") => {
            "; it is no server of a Redis Cluster: name some of those in backbone.addresses, or set backbone.topology"
        }
        _ => "",
    };
    format!("the server cannot be used: {code} {details}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    /// NODE-13
    #[test]
    fn each_fact_is_said_once_in_a_while_whatever_is_said_in_between() {
        let mut complaints = Complaints::default();
        assert!(complaints.is_due(S(0), "no connection") && complaints.is_due(S(0), "a replica"));
        for now in 1..30 {
            assert!(!complaints.is_due(S(now), "no connection") && !complaints.is_due(S(now), "a replica"));
        }
        assert!(complaints.is_due(S(30), "no connection"), "it is still so");
        for n in 0..2 * FACTS_MAX {
            assert!(complaints.is_due(S(31), &n.to_string()), "{n} is new");
        }
        assert_eq!(complaints.said.len(), FACTS_MAX);
    }

    /// NODE-13
    #[test]
    fn the_other_side_s_own_words_are_followed_by_what_to_do_and_nothing_is_made_up() {
        let (server, sentinel) = (Whose::Server { database: 99 }, Whose::Sentinel);
        for (why, whose, advice) in [
            ("WRONGPASS invalid username-password pair or user is disabled.", server, "backbone.password_file"),
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                sentinel,
                "backbone.sentinel_password_file",
            ),
            ("NOAUTH HELLO must be called", server, "it wants a password"),
            ("NOPERM this user has no permissions to run the 'role' command", server, "the README lists"),
            ("ERR DB index is out of range", server, "it has no database 99: lower backbone.database"),
        ] {
            let said = no_connection(why, whose);
            let (words, rest) = said.split_once(';').expect("there is advice");
            assert!(words.ends_with(why) && rest.contains(advice), "{said}");
        }
        let refused = "Connection refused (os error 111)";
        assert_eq!(no_connection(refused, server), format!("no connection to the server: {refused}"));
    }
}
