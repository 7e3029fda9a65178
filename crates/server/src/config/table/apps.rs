//! The keys of one app. Data; nothing happens here.

use crate::config::keys::{Key, Kind, Preset, hard, integer};
use crate::config::rules::{check_id, check_key, check_network, check_origin};

const U32_MAX: u64 = u32::MAX as u64;

pub(super) const KEYS: &[Key] = &[
    hard(
        "apps.id",
        Kind::Text(check_id),
        Preset::Unset("must be given"),
        "The app's id in REST paths. Digits only where the Python or Go SDK is used: they refuse anything else.",
    )
    .reloadable(),
    hard(
        "apps.key",
        Kind::Text(check_key),
        Preset::Unset("must be given"),
        "The app's public key, which clients connect with.",
    )
    .reloadable(),
    hard(
        "apps.secret",
        Kind::Secret,
        Preset::Unset("must be given, here or in secret_file"),
        "Signs everything of the app. Whoever has it can publish and let anybody into any channel.",
    )
    .reloadable(),
    hard(
        "apps.secret_file",
        Kind::Path,
        Preset::Unset("the secret stands in the file itself"),
        "A file that holds the secret and nothing else (a line break at its end is not part of it).",
    )
    .reloadable(),
    hard(
        "apps.previous_secret",
        Kind::Secret,
        Preset::Unset("only secret verifies"),
        "The secret before a rotation. Either verifies until this one is removed.",
    )
    .reloadable(),
    hard(
        "apps.previous_secret_file",
        Kind::Path,
        Preset::Unset("only secret verifies"),
        "A file that holds the secret before a rotation.",
    )
    .reloadable(),
    hard(
        "apps.enabled",
        Kind::Switch,
        Preset::Switch(true),
        "A disabled app refuses connections with 4003 and REST calls with 403.",
    )
    .reloadable(),
    hard(
        "apps.client_events",
        Kind::Switch,
        Preset::Switch(false),
        "Whether members of private and presence channels may send client- events to each other.",
    )
    .reloadable(),
    hard(
        "apps.subscription_counts",
        Kind::Switch,
        Preset::Switch(false),
        "Whether subscribers are told how many they are.",
    )
    .reloadable(),
    hard(
        "apps.watchlist",
        Kind::Switch,
        Preset::Switch(false),
        "Whether a user who signs in with a watchlist is told which of those users are online, and whenever that changes.",
    )
    .reloadable(),
    hard(
        "apps.authorized_connections",
        Kind::Switch,
        Preset::Switch(false),
        "Whether a connection is closed with 4009 that neither signs in nor subscribes to a private or presence channel \
         in time. Applies to connections opened from then on.",
    )
    .reloadable(),
    hard(
        "apps.tls_only",
        Kind::Switch,
        Preset::Switch(false),
        "Whether connections without TLS are refused with 4000.",
    )
    .reloadable(),
    hard(
        "apps.allowed_origins",
        Kind::List(check_origin),
        Preset::EmptyList,
        "Web pages that may connect: https://host, https://host:port, host, or *.host for its subdomains. Empty is \
         any. Whoever sends no Origin is not a browser and is not held to it.",
    )
    .reloadable(),
    hard(
        "apps.durability",
        Kind::OneOf(&["replicated", "primary", "memory"]),
        Preset::Text("replicated"),
        "When a publish is answered 200, where nodes hear each other over Redis: replicated when a replica has it as well, \
         primary when the primary's log has it, memory when this node has it in its buffer. Over a single Redis server, which \
         has no replica, replicated means primary.",
    )
    .reloadable(),
    hard(
        "apps.webhooks",
        Kind::Webhooks,
        Preset::EmptyList,
        "Who is told what happens: tables with url; events, a list of channel_occupied, channel_vacated, member_added, \
         member_removed, client_event, cache_miss, subscription_count, user_online and user_offline (all but the last two \
         without it); channel_prefix, to be told of channels whose names begin so; and headers, a table of names and \
         values sent with each request. No URL twice in one app.",
    )
    .reloadable(),
    hard(
        "apps.webhook_batching",
        Kind::Switch,
        Preset::Switch(true),
        "Whether webhook events are gathered into requests, up to 20 or what comes within 250 milliseconds. Without it \
         each event is a request of its own.",
    )
    .reloadable(),
    hard(
        "apps.webhooks_allow_private",
        Kind::Switch,
        Preset::Switch(false),
        "Whether webhooks may go to any address, those of this machine and of private networks included. For \
         development, and where whoever writes the file may reach everything the node can.",
    )
    .reloadable(),
    hard(
        "apps.webhooks_allow_networks",
        Kind::List(check_network),
        Preset::EmptyList,
        "Networks (10.1.0.0/16) or addresses that webhooks may go to although they are not public.",
    )
    .reloadable(),
    integer(
        "apps.max_connections",
        (0, U32_MAX),
        0,
        "connections",
        "Connections of the app open at once; beyond it 4004, which makes SDKs give up. 0 is no limit.",
    )
    .reloadable(),
    integer(
        "apps.publishes_per_s_max",
        (0, U32_MAX),
        0,
        "events per second",
        "Events that the app's servers may publish over REST, all nodes together; one that goes to several channels counts for \
         each. Over Redis every node that takes REST calls admits an equal share. Beyond it the whole call is refused with 503 \
         and Retry-After; one that is larger than the share waits for all of it. Client events do not count. 0 is no limit.",
    )
    .reloadable(),
    integer("apps.channel_name_max", (1, 200), 164, "characters", "Length of a channel name, prefix included.")
        .reloadable(),
    integer("apps.event_name_max", (1, 4_096), 200, "characters", "Length of an event name.").reloadable(),
    integer(
        "apps.event_data_bytes_max",
        (1, 64 << 20),
        10_240,
        "bytes",
        "Size of one event's data, decoded; beyond it 413, or pusher:error for client events.",
    )
    .reloadable(),
    integer("apps.publish_channels_max", (1, 10_000), 100, "channels", "Channels one events call may name.")
        .reloadable(),
    integer("apps.batch_events_max", (1, 10_000), 10, "events", "Events one batch_events call may carry.").reloadable(),
    integer("apps.presence_members_max", (1, 1_000_000), 100, "users", "Distinct users on one presence channel.")
        .reloadable(),
    integer(
        "apps.presence_user_info_bytes_max",
        (2, 1 << 20),
        1_024,
        "bytes",
        "Size of one member's user_info as JSON.",
    )
    .reloadable(),
    integer("apps.user_id_max", (1, 4_096), 128, "characters", "Length of a user id.").reloadable(),
    integer(
        "apps.client_events_per_s_max",
        (1, 1_000_000),
        10,
        "events per second and connection",
        "Client events one connection may send; beyond it they are refused with 4301.",
    )
    .reloadable(),
    integer(
        "apps.cache_ttl_s",
        (1, 86_400),
        1_800,
        "seconds",
        "How long the last event of a cache channel is kept for those who subscribe later.",
    )
    .reloadable(),
    integer(
        "apps.watchlist_max",
        (1, 10_000),
        100,
        "users",
        "Users one connection may watch. Of a longer list the first are watched, and the client is told so (4302).",
    )
    .reloadable(),
    integer(
        "apps.unauthorized_connections_max",
        (1, U32_MAX),
        5_000,
        "connections",
        "Connections on one node that have shown no authorization yet, where authorized_connections asks for it. They do \
         not count towards max_connections. Beyond it newcomers are closed with 4100, and SDKs come back.",
    )
    .reloadable(),
    integer(
        "apps.authorized_connections_timeout_s",
        (1, 3_600),
        30,
        "seconds",
        "How long a connection may take to sign in or to subscribe to a private or presence channel, where \
         authorized_connections asks for it.",
    )
    .reloadable(),
];
