//! Why slots were not moved, in words for whoever asked for it.

/// Why slots were not moved.
#[derive(Debug, thiserror::Error)]
pub enum ReshardError {
    /// There is one server.
    #[error("there is one Redis server here (backbone.topology = \"single\"), and so nowhere to move slots to")]
    OneServer,
    /// The product has slots of its own.
    #[error(
        "Redis Cluster moves its own slots, and the shares of a deployment go along: use `redis-cli --cluster reshard` or \
         `redis-cli --cluster rebalance`"
    )]
    RedisCluster,
    /// A group cannot be used.
    #[error("group {0}: {1}")]
    Unreachable(String, String),
    /// A group lacks replicas.
    #[error("group {group}: {online} of {known} replicas are online")]
    Replicas {
        /// Its name.
        group: String,
        /// Replicas that follow the primary.
        online: usize,
        /// Replicas that Sentinels know.
        known: usize,
    },
    /// Another moves slots.
    #[error("{0}")]
    Busy(String),
    /// Slots are on their way, and nobody moves them.
    #[error("{0} slots are on their way already: `resume` or `abort`")]
    UnderWay(usize),
    /// There is nothing to go on with.
    #[error("no slots are on their way")]
    Nothing,
    /// It is too late to undo.
    #[error("{arrived} of {all} slots have arrived already: `resume`")]
    TooLate {
        /// Slots that their new group has.
        arrived: usize,
        /// Slots that were to move.
        all: usize,
    },
    /// No plan leads there.
    #[error("there must be between 1 and 1024 groups")]
    Groups,
    /// A node does not take the map in.
    #[error("nodes that have not taken in version {version} of the map: {nodes}")]
    Deaf {
        /// The version.
        version: u64,
        /// Their names.
        nodes: String,
    },
    /// A group that is to be left has webhooks that nobody has got yet.
    #[error(
        "webhooks are left in group {0}, which nobody would send when nobody goes there any more: `resume` when they are sent"
    )]
    Webhooks(String),
    /// Whoever watches has stopped it.
    #[error("stopped")]
    Stopped,
}
