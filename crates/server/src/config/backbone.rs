//! What the keys of `[backbone]` and `server.roles` mean together.
//!
//! Values arrive with the right type and range; nothing here contacts anything.

use std::collections::BTreeMap;

use fulmar_backbone::redis::settings::{Credentials, Encryption, Limits, Roles, Settings, Topology};
use fulmar_control::observed::Capacity;

use super::Backbone;
use super::finding::{Finding, Place, What};
use super::keys::KEYS;
use super::taken::Taken;
use super::value::Value;

const NOT_EMBEDDED: &str = "must be all three while backbone.kind is embedded: there is no other node to do the rest";
const OF_SENTINEL: &str = "belongs to topology = sentinel, and the topology is another";
const OF_REDIS_CLUSTER: &str = "belongs to topology = cluster, and the topology is another";
const OF_SINGLE: &str = "belongs to topology = single, and the topology is sentinel: give backbone.sentinels";

/// What a node does.
pub(super) fn roles(taken: &mut Taken, findings: &mut Vec<Finding>) -> Roles {
    let place = taken.place("server.roles");
    let names = taken.list("server.roles");
    let has = |role: &str| names.iter().any(|name| name == role);
    let roles = Roles { websocket: has("websocket"), rest: has("rest"), webhooks: has("webhooks") };
    let is_redis = taken.peek("backbone.kind") == Value::Text("redis".to_owned());
    if names.is_empty() {
        findings.push(Finding::refuses(place, "server.roles", What::Breaks("must hold at least one role")));
    } else if roles != Roles::default() && !is_redis {
        findings.push(Finding::refuses(place, "server.roles", What::Breaks(NOT_EMBEDDED)));
    }
    roles
}

/// What the groups can bear, for the operator's verbs. A group that is none of the deployment's is pointed out.
pub(super) fn capacities(
    taken: &mut Taken,
    backbone: &Backbone,
    findings: &mut Vec<Finding>,
) -> BTreeMap<String, Capacity> {
    let place = taken.place("backbone.group");
    let capacities = taken.capacities("backbone.group");
    if let Backbone::Redis(settings) = backbone {
        let groups = settings.topology.groups();
        for name in capacities.keys().filter(|name| !groups.contains(name)) {
            let meant = groups.first().map(|group| format!("backbone.group.{group}"));
            findings.push(Finding::unknown(place.clone(), format!("backbone.group.{name}"), meant));
        }
    }
    capacities
}

/// How this node hears others.
pub(super) fn backbone(taken: &mut Taken, roles: Roles, findings: &mut Vec<Finding>) -> Backbone {
    let is_redis = taken.text("backbone.kind") == "redis";
    if !is_redis {
        say_what_has_no_effect(taken, findings);
    }
    let before = findings.len();
    let topology = topology(taken, findings);
    let credentials = credentials_of(taken, "backbone.user", "backbone.password");
    let sentinel_credentials = credentials_of(taken, "backbone.sentinel_user", "backbone.sentinel_password");
    let tls = encryption(taken, findings);
    let limits = Limits {
        buffer_bytes_max: taken.number("backbone.buffer_bytes_max"),
        publish_timeout: taken.millis("backbone.publish_timeout_ms"),
        breaker: taken.millis("backbone.breaker_ms"),
        bus_bytes_per_s: taken.number("backbone.bus_bytes_per_s"),
        command_timeout: taken.millis("backbone.command_timeout_ms"),
        log_age: taken.seconds("backbone.log_age_s"),
        log_entries_max: taken.number("backbone.log_entries_max"),
        outbox_entries_max: taken.number("backbone.outbox_entries_max"),
        ..Limits::default()
    };
    let database_at = taken.place("backbone.database");
    let database = taken.number::<u16>("backbone.database").into();
    if database != 0 && matches!(topology, Topology::RedisCluster { .. }) {
        let rule = What::Breaks("must be 0 with topology = cluster: Redis Cluster has no other");
        findings.push(Finding::refuses(database_at, "backbone.database", rule));
    }
    let settings = Settings {
        deployment: taken.text("backbone.deployment"),
        topology,
        database,
        credentials,
        sentinel_credentials,
        tls,
        roles,
        advertise: taken.optional_text("backbone.advertise"),
        limits,
    };
    if is_redis {
        return Backbone::Redis(Box::new(settings));
    }
    // What is not used cannot be wrong in its sum; each value was looked at all the same.
    findings.truncate(before);
    Backbone::Embedded
}

fn topology(taken: &mut Taken, findings: &mut Vec<Finding>) -> Topology {
    let places = ["backbone.addresses", "backbone.sentinels", "backbone.groups"].map(|path| taken.place(path));
    let [addresses_at, sentinels_at, groups_at] = places;
    let topology_at = taken.place("backbone.topology");
    let written = taken.optional_text("backbone.topology");
    let mut addresses = taken.list("backbone.addresses");
    let (sentinels, groups) = (taken.list("backbone.sentinels"), taken.list("backbone.groups"));
    let (shares_at, shares) = (taken.place("backbone.shares"), taken.number("backbone.shares"));
    let mut refuse = |place: &Place, key: &str, what| findings.push(Finding::refuses(place.clone(), key, what));
    let is_redis_cluster = written.as_deref() == Some("cluster");
    if !is_redis_cluster && shares_at != Place::Default {
        refuse(&shares_at, "backbone.shares", What::Breaks(OF_REDIS_CLUSTER));
    }
    let is_sentinel = written.as_deref().map_or(sentinels_at != Place::Default, |word| word == "sentinel");
    if is_sentinel {
        let needing = if topology_at == Place::Default {
            (&sentinels_at, "backbone.sentinels")
        } else {
            (&topology_at, "backbone.topology")
        };
        if sentinels.is_empty() {
            refuse(needing.0, needing.1, What::Needs("the addresses in backbone.sentinels"));
        }
        if groups.is_empty() {
            refuse(needing.0, needing.1, What::Needs("the names in backbone.groups"));
        }
        if addresses_at != Place::Default {
            refuse(&addresses_at, "backbone.addresses", What::Breaks(OF_SINGLE));
        }
        let mut sorted = groups.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() < groups.len() {
            refuse(&groups_at, "backbone.groups", What::Breaks("must not name one group twice"));
        }
        return Topology::Sentinel { sentinels, groups };
    }
    for (place, key) in [(&sentinels_at, "backbone.sentinels"), (&groups_at, "backbone.groups")] {
        if *place != Place::Default {
            refuse(place, key, What::Breaks(OF_SENTINEL));
        }
    }
    if is_redis_cluster {
        if addresses.is_empty() {
            refuse(&addresses_at, "backbone.addresses", What::Breaks("must hold at least one address"));
        }
        return Topology::RedisCluster { seeds: addresses, shares };
    }
    let address = addresses.pop().filter(|_| addresses.is_empty());
    if address.is_none() {
        let rule =
            "must hold exactly one address: the server (for several, see topology = sentinel and topology = cluster)";
        refuse(&addresses_at, "backbone.addresses", What::Breaks(rule));
    }
    Topology::Single(address.unwrap_or_default())
}

fn credentials_of(taken: &mut Taken, user: &str, password: &str) -> Credentials {
    taken.take(&format!("{password}_file"));
    Credentials { user: taken.optional_text(user), password: taken.secret(password) }
}

fn encryption(taken: &mut Taken, findings: &mut Vec<Finding>) -> Option<Encryption> {
    let is_on = taken.switch("backbone.tls");
    let places = ["backbone.tls_ca", "backbone.tls_cert", "backbone.tls_key"].map(|path| (path, taken.place(path)));
    let [ca, cert, key] = places.each_ref().map(|(path, _)| taken.path(path));
    let mut refuse = |at: usize, what| findings.push(Finding::refuses(places[at].1.clone(), places[at].0, what));
    if !is_on {
        for (at, file) in [&ca, &cert, &key].into_iter().enumerate() {
            if file.is_some() {
                refuse(at, What::Needs("backbone.tls = true"));
            }
        }
        return None;
    }
    let shown = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (Some(_), None) => {
            refuse(1, What::Needs("backbone.tls_key"));
            None
        }
        (None, Some(_)) => {
            refuse(2, What::Needs("backbone.tls_cert"));
            None
        }
        (None, None) => None,
    };
    Some(Encryption { ca, shown })
}

/// Somebody who names servers and forgets to say that they are to be used would have several nodes that do not hear each
/// other.
fn say_what_has_no_effect(taken: &Taken, findings: &mut Vec<Finding>) {
    for key in KEYS.iter().filter(|key| key.section() == "backbone" && key.name() != "kind" && !key.is_secret()) {
        let place = taken.place(key.path);
        if place != Place::Default {
            findings.push(Finding::advice(place, key.path, What::NotOverRedis));
        }
    }
}
