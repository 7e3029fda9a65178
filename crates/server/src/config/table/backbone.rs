//! The keys of how nodes hear each other. Data; nothing happens here.

use crate::config::keys::{Key, Kind, Preset, hard, integer};
use crate::config::rules::{check_address, check_deployment, check_group, check_topology};

const GIB: u64 = 1 << 30;

pub(super) const KEYS: &[Key] = &[
    hard(
        "backbone.kind",
        Kind::OneOf(&["embedded", "redis"]),
        Preset::Text("embedded"),
        "How nodes hear each other. embedded: not at all, one node is the whole deployment and needs nothing else installed. \
         redis: over the servers that backbone.addresses or backbone.sentinels names.",
    )
    .flag("--backbone"),
    hard(
        "backbone.topology",
        Kind::Text(check_topology),
        Preset::Unset("sentinel where backbone.sentinels is given, single otherwise"),
        "How the Redis servers are arranged. single: one server. sentinel: groups of a primary and replicas, which Sentinels \
         watch; channels are spread over the groups. cluster: Redis Cluster; channels are spread over shares, and it decides \
         which server has which.",
    )
    .flag("--backbone-topology"),
    hard(
        "backbone.addresses",
        Kind::List(check_address),
        Preset::List(&["127.0.0.1:6379"]),
        "The Redis server, host:port, with topology = single. With topology = cluster some of the servers, which name the others.",
    )
    .flag("--backbone-addresses"),
    hard(
        "backbone.sentinels",
        Kind::List(check_address),
        Preset::EmptyList,
        "All Sentinels, host:port each, with topology = sentinel.",
    )
    .flag("--backbone-sentinels"),
    hard(
        "backbone.groups",
        Kind::List(check_group),
        Preset::EmptyList,
        "The groups, by the names that Sentinel knows them by. The same on every node.",
    )
    .flag("--backbone-groups"),
    integer(
        "backbone.shares",
        (1, 128),
        8,
        "shares",
        "Into how many shares the deployment is divided with topology = cluster: at least twice as many as there will ever be \
         primaries. The same on every node, and for ever: a node with another number is refused by the servers.",
    ),
    hard(
        "backbone.deployment",
        Kind::Text(check_deployment),
        Preset::Text("fulmar"),
        "What every key and channel in Redis begins with. The same on every node; another one for another deployment on the \
         same servers.",
    )
    .flag("--backbone-deployment"),
    integer("backbone.database", (0, 65_535), 0, "number", "The number of the Redis database."),
    hard("backbone.user", Kind::Text(check_user), Preset::Unset("the default user"), "The ACL user on the Redis servers."),
    hard(
        "backbone.password",
        Kind::Secret,
        Preset::Unset("none is sent"),
        "The password on the Redis servers. It is never shown.",
    ),
    hard(
        "backbone.password_file",
        Kind::Path,
        Preset::Unset("see backbone.password"),
        "A file that holds the password and nothing else (a line break at its end is not part of it).",
    )
    .flag("--backbone-password-file"),
    hard(
        "backbone.sentinel_user",
        Kind::Text(check_user),
        Preset::Unset("the default user"),
        "The ACL user on the Sentinels.",
    ),
    hard(
        "backbone.sentinel_password",
        Kind::Secret,
        Preset::Unset("none is sent"),
        "The password on the Sentinels. It is never shown.",
    ),
    hard(
        "backbone.sentinel_password_file",
        Kind::Path,
        Preset::Unset("see backbone.sentinel_password"),
        "A file that holds the password on the Sentinels and nothing else.",
    ),
    hard(
        "backbone.tls",
        Kind::Switch,
        Preset::Switch(false),
        "Whether connections to Redis servers and Sentinels are encrypted.",
    ),
    hard(
        "backbone.tls_ca",
        Kind::Path,
        Preset::Unset("those that the system trusts"),
        "Certificates of those who may vouch for the servers, PEM.",
    ),
    hard(
        "backbone.tls_cert",
        Kind::Path,
        Preset::Unset("none is shown"),
        "A certificate that this node shows to the servers, PEM.",
    ),
    hard("backbone.tls_key", Kind::Path, Preset::Unset("none"), "The private key of backbone.tls_cert, PEM."),
    hard(
        "backbone.advertise",
        Kind::Text(check_address),
        Preset::Unset("server.host and server.port, unless the host is a wildcard: then nowhere"),
        "Where other nodes reach this node's HTTP port, host:port. A request of a fallback transport that reaches another node \
         than its session's is passed on there.",
    )
    .flag("--advertise"),
    integer(
        "backbone.buffer_bytes_max",
        (1 << 20, 64 * GIB),
        256 << 20,
        "bytes",
        "Publications that the logs have not confirmed yet, all groups together; each counts for 256 bytes more than it has. Beyond it \
         publishing is answered 503 and client events are dropped.",
    ),
    integer(
        "backbone.publish_timeout_ms",
        (100, 3_450),
        3_400,
        "milliseconds",
        "How long a publish may wait while Redis is away before it is answered 503. SDKs give up at four seconds.",
    ),
    integer(
        "backbone.breaker_ms",
        (10, 1_000),
        100,
        "milliseconds",
        "Silence of a primary after which publications take the second path as well, over replicas or another group. Raise it \
         where Redis is far away.",
    ),
    integer(
        "backbone.bus_bytes_per_s",
        (1 << 20, 64 * GIB),
        128 << 20,
        "bytes per second",
        "What a node publishes over the second path for one group at most. What is beyond it waits, in its order; where that takes \
         longer than half a second, apps of which most is waiting are answered 503. Lower it where the lines of the replicas are \
         slower than nodes times this.",
    ),
    integer(
        "backbone.command_timeout_ms",
        (100, 3_000),
        500,
        "milliseconds",
        "How long a command may wait for its answer before its connection is given up and made anew.",
    ),
    integer(
        "backbone.log_age_s",
        (30, 3_600),
        60,
        "seconds",
        "How long each group's log keeps publications: what a node that was cut off can still catch up on.",
    ),
    integer(
        "backbone.log_entries_max",
        (10_000, 100_000_000),
        200_000,
        "entries",
        "Entries that each group's log keeps at most, whatever their age. Memory of Redis is what it costs.",
    ),
    hard(
        "backbone.group",
        Kind::Capacities,
        Preset::Unset("nothing is known, and fulmar redis add-replica refuses"),
        "What the machines of each group can bear, for the operator's verbs; nodes do not look at it. A table per group, as in \
         [backbone.group.g1]: link_mbit (outgoing megabits per second of each server's line), memory_mb (mebibytes that each \
         server may use), replicas (how many there are meant to be).",
    )
    .soft()
    .reloadable(),
    integer(
        "backbone.outbox_entries_max",
        (16_000, 100_000_000),
        1_000_000,
        "entries",
        "Edges for webhooks that wait in each group's outbox at most, for nodes with the role webhooks; about 150 bytes of Redis \
         each. It has sixteen equal parts, and a channel lies in one. Beyond half of a part, counts, cache misses and client \
         events are dropped; beyond all of it, the oldest edges. \
         What is dropped is counted in `fulmar status`, and logged.",
    ),
];

/// A name that an ACL can have.
fn check_user(text: &str) -> Result<(), &'static str> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err("must be the name of a user, without spaces")
}
