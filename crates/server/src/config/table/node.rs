//! The keys of the node itself. Data; nothing happens here.

use crate::config::keys::{Key, Kind, Preset, hard, integer};
use crate::config::rules::{
    check_host, check_metric_prefix, check_network, check_path_prefix, check_port, check_proxy, check_role, check_sink,
};

const U32_MAX: u64 = u32::MAX as u64;
const GIB: u64 = 1 << 30;

pub(super) const KEYS: &[Key] = &[
    hard(
        "server.host",
        Kind::Text(check_host),
        Preset::Text("127.0.0.1"),
        "The address to listen on. 127.0.0.1 reaches this machine only; 0.0.0.0 (IPv4) or :: (IPv6 and IPv4) reaches \
         every network it is in.",
    )
    .flag("--host"),
    integer(
        "server.port",
        (0, 65_535),
        6001,
        "",
        "The TCP port for WebSocket and HTTP alike. 0 takes a free port, which is printed at start.",
    )
    .flag("--port"),
    hard(
        "server.path_prefix",
        Kind::Text(check_path_prefix),
        Preset::Text(""),
        "What stands before /app and /apps in every path, for proxies that do not cut it off: with /ws the node \
         answers at /ws/app/KEY. Signatures may cover the path with or without it.",
    ),
    integer(
        "server.workers",
        (0, 128),
        0,
        "workers",
        "Event loops that own connections. 0 makes one for each core that no HTTP thread has.",
    )
    .flag("--workers"),
    integer(
        "server.http_threads",
        (0, 128),
        0,
        "threads",
        "Threads that serve handshakes and the REST API. 0 makes one per four cores, at least one.",
    ),
    integer(
        "server.activity_timeout_s",
        (1, 86_400),
        120,
        "seconds",
        "Silence after which a connection is pinged; clients are told the same number. 30 to 60 where proxies cut idle \
         connections.",
    ),
    integer(
        "server.pong_timeout_s",
        (1, 3_600),
        30,
        "seconds",
        "How long a ping may stay unanswered before the connection is closed with 4201.",
    ),
    hard(
        "server.trusted_proxies",
        Kind::List(check_network),
        Preset::EmptyList,
        "Networks (10.0.0.0/8) or addresses of the proxies in front of the node. From them alone PROXY headers, \
         X-Forwarded-For and X-Forwarded-Proto are believed.",
    ),
    hard(
        "server.proxy_protocol",
        Kind::Switch,
        Preset::Switch(false),
        "Whether connections from trusted proxies begin with a PROXY protocol header, version 1 or 2.",
    ),
    hard(
        "server.roles",
        Kind::List(check_role),
        Preset::List(&["websocket", "rest", "webhooks"]),
        "What this node does: websocket takes connections (and XHR sessions), rest takes publishes and queries, webhooks \
         sends what apps' servers are told. Less than all three needs backbone.kind = redis and other nodes for the rest.",
    )
    .flag("--roles"),
    integer(
        "limits.connections_max",
        (0, U32_MAX),
        0,
        "connections",
        "Connections open at once on this node; newcomers beyond it are closed with 4100. 0 derives it from the \
         open-file limit.",
    ),
    integer(
        "limits.connections_per_ip_max",
        (0, U32_MAX),
        0,
        "connections",
        "Connections open at once from one IPv4 address or one IPv6 /64. 0 is no limit.",
    ),
    integer(
        "limits.handshakes_per_s_max",
        (0, U32_MAX),
        0,
        "handshakes per second",
        "WebSocket handshakes this node accepts per second; newcomers beyond it are closed with 4100. 0 is no limit.",
    ),
    integer(
        "limits.handshake_timeout_ms",
        (100, 600_000),
        5_000,
        "milliseconds",
        "How long a new connection may take to send a whole request head (TLS and PROXY header included).",
    ),
    integer("limits.handshake_bytes_max", (1_024, 1 << 20), 8_192, "bytes", "Size of a request head."),
    integer(
        "limits.message_bytes_max",
        (1_024, 64 << 20),
        65_536,
        "bytes",
        "Size of one WebSocket message from a client, all fragments together. Beyond it the connection is closed with \
         1009.",
    ),
    integer(
        "limits.frame_timeout_ms",
        (100, 600_000),
        10_000,
        "milliseconds",
        "How long a WebSocket message may take from its first byte to its last, all fragments together.",
    ),
    integer(
        "limits.channels_per_connection_max",
        (1, U32_MAX),
        10_000,
        "channels",
        "Channels one connection may be subscribed to at once.",
    ),
    integer(
        "limits.subscribes_per_s_max",
        (1, 1_000_000),
        100,
        "subscribes per second and connection",
        "Subscribes one connection may send, beyond a first limits.channels_per_connection_max at once, which is what an \
         SDK sends when it comes back. Beyond it a subscribe is refused and the connection stays.",
    ),
    integer(
        "limits.outbound_bytes_max",
        (65_536, 4 * GIB),
        1 << 20,
        "bytes",
        "What may wait unsent for one connection. A reader that falls further behind is closed with 4100.",
    ),
    integer(
        "limits.outbound_age_max_s",
        (1, 3_600),
        10,
        "seconds",
        "How long a frame may wait unsent. A reader that falls further behind is closed with 4100.",
    ),
    integer(
        "limits.outbound_total_bytes_max",
        (0, 1 << 50),
        0,
        "bytes",
        "What may wait unsent for all connections together. Beyond it those that are furthest behind are closed with \
         4100. 0 is 512 times limits.outbound_bytes_max.",
    ),
    integer(
        "limits.keep_alive_timeout_s",
        (1, 3_600),
        75,
        "seconds",
        "How long an HTTP connection may be idle, the head of its next request included.",
    ),
    integer(
        "limits.answer_timeout_s",
        (1, 3_600),
        10,
        "seconds",
        "How long a caller may take nothing of its answers; then its connection ends.",
    ),
    integer(
        "limits.request_body_bytes_max",
        (1_024, GIB),
        1 << 20,
        "bytes",
        "Size of one REST request body; beyond it 413. Escaping can make a legal batch six times as large as its \
         events.",
    )
    .reloadable(),
    integer(
        "limits.request_timeout_ms",
        (100, 600_000),
        10_000,
        "milliseconds",
        "How long a REST request may take to arrive in full.",
    )
    .reloadable(),
    integer(
        "limits.idempotency_keys_max",
        (0, 10_000_000),
        10_000,
        "keys per app",
        "Idempotency keys remembered per app for 120 seconds, the oldest forgotten first. 0 ignores the header.",
    ),
    integer(
        "limits.inbox_deliveries_max",
        (64, U32_MAX),
        65_536,
        "deliveries per worker",
        "Deliveries that may wait for one worker. While one is full, publishing to channels it follows is answered \
         503.",
    ),
    integer(
        "limits.cache_bytes_max",
        (0, u64::MAX),
        256 << 20,
        "bytes",
        "Memory for the last events of cache channels; beyond it the oldest are forgotten, which costs a cache miss.",
    ),
    integer(
        "shutdown.grace_s",
        (0, 3_600),
        0,
        "seconds",
        "How long the node keeps serving after SIGTERM while /readyz already says no, so that balancers turn away \
         first.",
    ),
    integer(
        "shutdown.drain_s",
        (0, 3_600),
        10,
        "seconds",
        "Over how long the sockets are then closed with 4200, evenly: clients come back at once, so the pace is the \
         node's to set.",
    ),
    hard(
        "tls.cert",
        Kind::Path,
        Preset::Unset("no TLS"),
        "The certificate chain as PEM. Read again when it changes; connections stay open.",
    )
    .flag("--tls-cert"),
    hard("tls.key", Kind::Path, Preset::Unset("no TLS"), "The certificate's private key as PEM.").flag("--tls-key"),
    integer("tls.port", (1, 65_535), 0, "", "A second port that speaks TLS only, while server.port stays plain.")
        .unset("server.port takes both, told apart by the first byte")
        .flag("--tls-port"),
    hard(
        "logging.level",
        Kind::OneOf(&["error", "warn", "info", "debug", "trace"]),
        Preset::Text("info"),
        "The least grave log lines to write.",
    )
    .soft()
    .flag("--log-level"),
    hard(
        "logging.format",
        Kind::OneOf(&["text", "json"]),
        Preset::Text("text"),
        "text for people, json (one object per line) for machines.",
    )
    .soft()
    .flag("--log-format"),
    hard(
        "metrics.statsd",
        Kind::Text(check_sink),
        Preset::Unset("figures are told to nobody"),
        "A daemon that takes lines of DogStatsD over UDP, host:port: the agent of Datadog, Telegraf, statsd_exporter. Where it cannot \
         be reached the node serves all the same, says so once in its log, tries again with growing waits, and `fulmar doctor` \
         names it. UDP tells of a refusal at most: what is lost on the way nobody notices.",
    )
    .soft()
    .flag("--metrics-statsd"),
    integer(
        "metrics.interval_s",
        (1, 3_600),
        10,
        "seconds",
        "How often figures are sent. A counter says by how much it rose since it was last sent, a gauge how it stands.",
    )
    .soft(),
    hard(
        "metrics.prefix",
        Kind::Text(check_metric_prefix),
        Preset::Text("fulmar"),
        "What every name begins with, before a dot: fulmar.connections. Empty is nothing, and no dot.",
    )
    .soft(),
    hard(
        "storage.path",
        Kind::Path,
        Preset::Unset(
            "STATE_DIRECTORY, else fulmar in XDG_STATE_HOME, else ~/.local/state/fulmar; without any of them nothing is \
             kept",
        ),
        "The folder in which a node keeps what must outlive it, such as the apps that were added with `fulmar app`, and \
         webhooks that wait. One node, one folder. Where it is written here and cannot be used, the node does not start.",
    ),
    hard(
        "admin.enabled",
        Kind::Switch,
        Preset::Switch(true),
        "Whether the admin API exists: what `fulmar app` talks to, on a port of its own.",
    )
    .soft(),
    hard(
        "admin.host",
        Kind::Text(check_host),
        Preset::Text("127.0.0.1"),
        "The address the admin API listens on. Anything but this machine's own needs admin.token or admin.token_file as \
         well; without one the admin API stays off.",
    )
    .soft(),
    integer(
        "admin.port",
        (0, 65_535),
        6002,
        "",
        "The admin API's TCP port. 0 takes a free one, which is written to admin-address in the storage folder.",
    )
    .soft(),
    hard(
        "admin.token",
        Kind::Secret,
        Preset::Unset("made at the first start and kept in admin-token in the storage folder, readable to its owner only"),
        "What every call of the admin API must carry (Authorization: Bearer TOKEN); at least 16 characters.",
    )
    .soft(),
    hard(
        "admin.token_file",
        Kind::Path,
        Preset::Unset("see admin.token"),
        "A file that holds the token and nothing else (a line break at its end is not part of it).",
    )
    .soft(),
    hard(
        "webhooks.ports",
        Kind::List(check_port),
        Preset::EmptyList,
        "Ports that webhooks may go to, whatever URLs apps have, such as [\"443\"]. None is no limit.",
    ),
    hard(
        "webhooks.proxy",
        Kind::Text(check_proxy),
        Preset::Text(""),
        "A proxy that takes CONNECT, as http://HOST:PORT, through which all webhooks go. It is asked for the address that \
         was judged, not for the name. Empty connects directly.",
    ),
    hard(
        "demo.enabled",
        Kind::Switch,
        Preset::Unset("on only while no app is configured"),
        "Whether the demo app (id 1, key demo-key, secret demo-secret) and its page at / exist.",
    )
    .reloadable(),
];
