//! Every kind of finding by its stable name. `spec/doctor.md` has the same list with thresholds and where they come from.

macro_rules! ids {
    ($($variant:ident = $name:literal: $about:literal,)*) => {
        /// A kind of finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Id {
            $(#[doc = $about] $variant,)*
        }

        impl Id {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, for `--ignore` and for JSON. It never changes.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it says, in short.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => $about,)*
                }
            }
        }
    };
}

ids! {
    Config = "config": "A mistake in the configuration.",
    CertificateExpiry = "certificate-expiry": "A certificate ends soon or has ended.",
    CertificateUnusable = "certificate-unusable": "A certificate or key cannot be read or used.",
    StorageUnusable = "storage-unusable": "The storage folder cannot be used, or others may read it.",
    StorageSpace = "storage-space": "Little space is left where the storage folder is.",
    FilesFew = "files-few": "Fewer files may be opened here than connections are allowed.",
    LookIncomplete = "look-incomplete": "A server does not let itself be asked what was asked.",
    ServerUnreachable = "server-unreachable": "A server does not answer.",
    NoPrimary = "no-primary": "No server is believed to be the primary and says so itself.",
    StrayPrimary = "stray-primary": "A server takes writes that is not the group's primary.",
    WrongIdentity = "wrong-identity": "A server has the data of another group.",
    NoIdentity = "no-identity": "No node has taken the group into use.",
    GroupsDiffer = "groups-differ": "The stored names of the groups are not those configured.",
    MoveInterrupted = "move-interrupted": "Slots are on their way and nobody moves them.",
    ReplicaMissing = "replica-missing": "Fewer replicas are online than the group is meant to have.",
    NoReplica = "no-replica": "There is one copy of the data only.",
    NoPromotableReplica = "no-promotable-replica": "No replica may be promoted.",
    ReplicaWritable = "replica-writable": "A replica takes writes of its own.",
    ReplicaLagging = "replica-lagging": "A replica is further behind than the stream explains.",
    ResyncLoop = "resync-loop": "Replicas are synced again and again.",
    LinkSaturated = "link-saturated": "The primary's line is full.",
    CapacityUnknown = "capacity-unknown": "It is not written what the machines can bear.",
    SentinelsTooFew = "sentinels-too-few": "Fewer than three Sentinels watch.",
    SentinelUnreachable = "sentinel-unreachable": "A Sentinel does not answer.",
    SentinelTilt = "sentinel-tilt": "A Sentinel watches and does nothing, because its time jumped.",
    SentinelDoesNotKnowGroup = "sentinel-does-not-know-group": "A Sentinel does not watch the group.",
    SentinelsDisagree = "sentinels-disagree": "Sentinels name different primaries.",
    SentinelPeers = "sentinel-peers": "A Sentinel knows more or fewer others than there are.",
    SentinelQuorum = "sentinel-quorum": "The quorum is no majority, or more than there are.",
    FailoverTimeout = "failover-timeout": "A failover that fails is repeated too late.",
    DownAfter = "down-after": "A dead primary is noticed too late, or a busy one is called dead.",
    ParallelSyncs = "parallel-syncs": "Several replicas are away at once after a failover.",
    ConfigEpochZero = "config-epoch-zero": "A Sentinel that is wrong about the group is not corrected by the others.",
    MinReplicas = "min-replicas": "A primary that is cut off goes on taking writes, or one that is not refuses them.",
    ReplicaBufferTooSmall = "replica-buffer-too-small": "A replica's output buffer does not hold what is written during a full sync.",
    BacklogTooSmall = "backlog-too-small": "A replica that was away for a minute needs all data again.",
    PubsubBufferTooSmall = "pubsub-buffer-too-small": "A node that is slow for a moment is cut off.",
    PubsubBufferTooLarge = "pubsub-buffer-too-large": "Slow nodes can fill the server's memory.",
    MaxmemoryPolicy = "maxmemory-policy": "The server may throw records and logs away.",
    MaxmemoryUnset = "maxmemory-unset": "Nothing limits the server's memory but the system.",
    MemoryNearLimit = "memory-near-limit": "Memory runs out.",
    PersistenceFailing = "persistence-failing": "The server cannot write its data to disk.",
    PersistenceDiskSpace = "persistence-disk-space": "Its disk has no room for the next snapshot.",
    AppendfsyncAlways = "appendfsync-always": "Every write waits for the disk.",
    Maxclients = "maxclients": "The server's connections run out.",
    IdleTimeout = "idle-timeout": "The server closes connections that are quiet.",
    BusyReplyThreshold = "busy-reply-threshold": "A script counts as busy before it is.",
    SlowCommands = "slow-commands": "Commands held up all others of late.",
    RedisTooOld = "redis-too-old": "The server is older than what nodes need.",
    RedisVersionsDiffer = "redis-versions-differ": "The servers of a group are of different versions.",
    ClusterState = "cluster-state": "Redis Cluster says that it does not work.",
    ClusterDisabled = "cluster-disabled": "A server is none of a Redis Cluster.",
    ClusterSlots = "cluster-slots": "No server of Redis Cluster has the slot of a share.",
    ClusterFullCoverage = "cluster-require-full-coverage": "The loss of one part stops all of Redis Cluster.",
    ClusterNodeTimeout = "cluster-node-timeout": "A dead primary is noticed too late.",
    ClockSkew = "clock-skew": "A clock is not like the others.",
    NoNodes = "no-nodes": "No node has a lease.",
    NodeSilent = "node-silent": "A node's lease stands and is not renewed.",
    NodeWithoutLease = "node-without-lease": "A node is at work that has no lease.",
    NodeNotAttached = "node-not-attached": "A node does not hear a group.",
    NodeFilesFew = "node-files-few": "A node may open few files for its connections.",
    NodeNotReachable = "node-not-reachable": "A node does not say where others reach it.",
    MetricsSinkUnreachable = "metrics-sink-unreachable": "A node does not get its metrics away.",
    RoleMissing = "role-missing": "No node does one of the three things that nodes do.",
    ReleasesDiffer = "releases-differ": "Nodes run different releases.",
    AppsDiffer = "apps-differ": "Nodes serve different apps.",
    SettingsDiffer = "settings-differ": "Nodes have different settings.",
    WebhookBacklog = "webhook-backlog": "Webhooks wait for long.",
    WebhooksDropped = "webhooks-dropped": "Edges for webhooks were dropped because too many waited.",
    WebhooksGivenUp = "webhooks-given-up": "Webhooks were given up.",
}

impl Id {
    /// The kind of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|id| id.name() == name)
    }
}
