//! The cases: which fault on which topology, and what is promised for it. The table of the project's promises, as data.

use fulmar_rig::Verdict;

use super::stage::{Done, Setting, Stage};
use super::{deeds, output_limit, presence, random, redis_cluster, reshard};

/// A fault and its promises. Nothing is ever lost, doubled, out of order, or refused without a clear 503.
pub struct Case {
    /// As it is called on the command line.
    pub name: &'static str,
    /// What happens.
    pub what: &'static str,
    /// Where.
    pub setting: Setting,
    /// Starts nodes and load.
    pub begin: fn(&mut Stage) -> Done,
    /// What is done under load; it returns when enough time has passed.
    pub deed: fn(&mut Stage) -> Done,
    /// What may happen all the same.
    pub allowed: Allowed,
}

/// What may happen without a promise being broken.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// Publishes answered 503 with `Retry-After`.
    pub refusals: bool,
    /// Deliveries later than 900 ms: held while there was no way.
    pub holds: bool,
    /// The longest delivery, in milliseconds.
    pub longest_ms: Option<u64>,
    /// Nodes whose publishers and subscribers share their fate: late, or without an answer. Never lost, never doubled.
    pub excused: &'static [usize],
    /// Whether sockets on excused nodes may be closed.
    pub closes: bool,
    /// The verdict must be bad: a check of the harness itself.
    pub must_fail: bool,
}

const NOTHING: Allowed =
    Allowed { refusals: false, holds: false, longest_ms: None, excused: &[], closes: false, must_fail: false };
const FAST: Allowed = Allowed { longest_ms: Some(250), ..NOTHING };
const HELD: Allowed = Allowed { holds: true, ..NOTHING };
/// What a drawn fault excuses it says itself, and since when.
const DRAWN: Allowed = Allowed { closes: true, ..NOTHING };
const REFUSED: Allowed = Allowed { refusals: true, ..HELD };

const fn case(
    name: &'static str,
    what: &'static str,
    setting: Setting,
    deed: fn(&mut Stage) -> Done,
    allowed: Allowed,
) -> Case {
    Case { name, what, setting, begin: deeds::begin, deed, allowed }
}

/// It starts nodes itself, and has a ledger of its own.
const fn presence_case(name: &'static str, what: &'static str, setting: Setting, deed: fn(&mut Stage) -> Done) -> Case {
    Case { begin: deeds::begin_later, ..case(name, what, setting, deed, NOTHING) }
}

impl Case {
    /// Whether it goes on for as long as one likes, and runs only when it is named.
    pub fn is_endless(&self) -> bool {
        self.name.starts_with("random")
    }
}

/// All of them, in the order of the table.
pub const CASES: [Case; 34] = [
    case("embedded", "one node without Redis: a check of the harness", Setting::Embedded, deeds::nothing, NOTHING),
    case(
        "embedded-lossy",
        "subscribers behind a wire that swallows frames: the ledger must notice",
        Setting::Embedded,
        deeds::lossy_wire,
        Allowed { must_fail: true, ..NOTHING },
    ),
    Case {
        begin: deeds::begin_later,
        ..case(
            "embedded-presence",
            "members come and go on one node: a check of the harness",
            Setting::Embedded,
            presence::run,
            NOTHING,
        )
    },
    case("none", "nothing happens", Setting::Sentinel, deeds::nothing, NOTHING),
    case("kill-primary", "SIGKILL of a primary", Setting::Sentinel, deeds::kill_primary, FAST),
    case("hang-primary", "SIGSTOP of a primary for 5 s, then SIGCONT", Setting::Sentinel, deeds::hang_primary, FAST),
    case(
        "lagging-replica",
        "a host is lost while its replication links are saturated",
        Setting::SentinelWithLinks,
        deeds::lagging_replica,
        NOTHING,
    ),
    case("planned-failover", "SENTINEL FAILOVER by hand", Setting::Sentinel, deeds::planned_failover, FAST),
    case(
        "wrong-sentinels",
        "all three Sentinels name another group's primary",
        Setting::Sentinel,
        deeds::wrong_sentinels,
        HELD,
    ),
    case(
        "sentinel-names-replica",
        "one Sentinel names a replica",
        Setting::Sentinel,
        deeds::sentinel_names_replica,
        NOTHING,
    ),
    case(
        "group-lost",
        "three processes of a group are lost, and come back empty",
        Setting::Sentinel,
        deeds::group_lost,
        FAST,
    ),
    case(
        "single-restart",
        "the only Redis is away for 2 s and comes back empty",
        Setting::Single,
        deeds::single_restart,
        HELD,
    ),
    case(
        "single-away",
        "the only Redis is away for 8 s and comes back empty",
        Setting::Single,
        deeds::single_away,
        REFUSED,
    ),
    case(
        "node-killed",
        "SIGKILL of a node; some publishers try again elsewhere with an Idempotency-Key",
        Setting::Sentinel,
        deeds::node_killed,
        Allowed { excused: &[2], closes: true, ..NOTHING },
    ),
    case(
        "node-restarted",
        "SIGKILL of a node, which is started again and subscribed to",
        Setting::Sentinel,
        random::kill_node,
        DRAWN,
    ),
    case("fresh-node", "a node is added; its first publish reaches all", Setting::Sentinel, deeds::fresh_node, NOTHING),
    case("reshard", "two groups become three and two again", Setting::SentinelAndOneMore, reshard::run, NOTHING),
    case(
        "reshard-kill",
        "the same, and a primary is killed in the middle of each move",
        Setting::SentinelAndOneMore,
        reshard::kill_primary,
        NOTHING,
    ),
    case("maxmemory", "a primary is full for 4 s", Setting::Sentinel, deeds::maxmemory, REFUSED),
    case(
        "subscriber-output-limit",
        "a primary ends its subscribers by its output limit, five times",
        Setting::Sentinel,
        output_limit::drop_subscribers,
        HELD,
    ),
    case("script-flush", "every server forgets its scripts, five times", Setting::Sentinel, deeds::script_flush, HELD),
    Case {
        begin: deeds::begin_before_redis,
        ..case("redis-late", "nodes start before Redis", Setting::Single, deeds::nothing, NOTHING)
    },
    case(
        "slow-node",
        "a node is stopped for 5 s",
        Setting::Sentinel,
        deeds::slow_node,
        Allowed { excused: &[2], ..NOTHING },
    ),
    case("cluster-none", "nothing happens, over Redis Cluster", Setting::RedisCluster, deeds::nothing, NOTHING),
    case(
        "cluster-failover",
        "CLUSTER FAILOVER on a replica",
        Setting::RedisCluster,
        redis_cluster::planned_failover,
        NOTHING,
    ),
    case(
        "cluster-kill",
        "SIGKILL of a primary of a Redis Cluster",
        Setting::RedisCluster,
        redis_cluster::kill_primary,
        FAST,
    ),
    case(
        "cluster-move",
        "a share's slot of a Redis Cluster is moved to another primary",
        Setting::RedisCluster,
        redis_cluster::move_share,
        NOTHING,
    ),
    case("random", "faults drawn from the seed, one after another", Setting::Sentinel, random::run, DRAWN),
    case(
        "random-wires",
        "the same behind wires, lagging replicas among them",
        Setting::SentinelWithLinks,
        random::run_on_wires,
        DRAWN,
    ),
    Case {
        begin: deeds::begin_later,
        ..case(
            "presence",
            "records deleted, invented, copied and flushed, and a node killed",
            Setting::Sentinel,
            presence::run,
            NOTHING,
        )
    },
    presence_case(
        "presence-faults",
        "members while a primary hangs, is failed over, a node stops, a group is lost, slots move",
        Setting::SentinelAndOneMore,
        presence::rows::on_groups,
    ),
    presence_case(
        "presence-lagging",
        "members while a host is lost whose replicas are behind",
        Setting::SentinelWithLinks,
        presence::rows::on_wires,
    ),
    presence_case(
        "presence-single",
        "members while the only Redis is restarted and flushed",
        Setting::Single,
        presence::rows::on_single,
    ),
    presence_case(
        "presence-cluster",
        "members while primaries of a Redis Cluster are failed over, killed and flushed",
        Setting::RedisCluster,
        presence::rows::on_redis_cluster,
    ),
];

/// What of the promises was not kept.
pub fn misses(allowed: &Allowed, verdict: &Verdict) -> Vec<String> {
    let mut misses = Vec::new();
    let mut none = |count: usize, what: &str| {
        if count > 0 {
            misses.push(format!("{count} {what}"));
        }
    };
    none(verdict.lost, "lost");
    none(verdict.doubled, "doubled");
    none(verdict.strange, "strange receipts");
    none(verdict.inversions, "out of order");
    none(verdict.failed, "failed");
    none(if allowed.refusals { 0 } else { verdict.refused - verdict.refused_apart }, "refused with 503");
    none(if allowed.holds { 0 } else { verdict.late - verdict.late_apart }, "late");
    none(verdict.closed, "sockets closed");
    none(if allowed.closes { 0 } else { verdict.closed_apart }, "sockets closed on an excused node");
    none(usize::from(verdict.publishes == 0), "load at all");
    let longest_ms = verdict.longest.as_millis();
    if let Some(most) = allowed.longest_ms.filter(|most| longest_ms > u128::from(*most)) {
        misses.push(format!("a delivery took {longest_ms} ms, more than {most}"));
    }
    if allowed.must_fail {
        let is_noticed = verdict.lost > 0;
        return if is_noticed { Vec::new() } else { vec!["the ledger did not notice the loss".to_owned()] };
    }
    misses
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let mut names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
    }

    #[test]
    fn a_loss_is_a_miss_whatever_is_allowed() {
        let lossy = Verdict { publishes: 5, lost: 1, ..Verdict::default() };
        assert!(CASES.iter().all(|case| misses(&case.allowed, &lossy).is_empty() == case.allowed.must_fail));
    }

    #[test]
    fn refusals_holds_and_long_deliveries_are_misses_where_they_are_not_allowed() {
        let verdict =
            Verdict { publishes: 5, refused: 1, late: 1, longest: Duration::from_millis(950), ..Verdict::default() };
        assert_eq!(misses(&NOTHING, &verdict).len(), 2);
        assert_eq!(misses(&FAST, &verdict).len(), 3);
        assert_eq!(misses(&HELD, &verdict).len(), 1);
        assert!(misses(&REFUSED, &verdict).is_empty());
    }
}
