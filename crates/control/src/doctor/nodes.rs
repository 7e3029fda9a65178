//! The nodes, by what they say in their leases; their clocks beside those of servers and of this machine; and webhooks.

use std::time::Duration;

use super::facts::{Arrangement, ClockFact, Deployment, GroupFacts, NodeFacts};
use super::{Area, Finding, Findings, Id, Weight};

/// A lease is renewed twice a second; one that is not for this long is nobody's.
const SILENT_FOR: Duration = Duration::from_secs(3);
/// How far a clock may be from most others, and from where on calls signed by its time are refused elsewhere.
const SKEW_MS: [u64; 2] = [1_000, 60_000];
/// Files below which a node can hardly be meant for others than its developer.
const FILES_MIN: u64 = 4_096;
/// Share of the files in use by connections, in percent.
const FILES_PERCENT_MAX: u64 = 80;
/// How long a webhook may wait, and from where on it is grave.
const WAITS: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(600)];

pub(super) fn examine(deployment: &Deployment, made: &mut Vec<Finding>) {
    if deployment.arrangement == Arrangement::Embedded {
        return;
    }
    let mut findings = Findings { area: Area::Nodes, server: None, made };
    silent(deployment, &mut findings);
    clocks(deployment, &mut findings);
    let live: Vec<&NodeFacts> = { deployment.nodes.iter() }.filter(|node| node.silent_for < SILENT_FOR).collect();
    if live.is_empty() && deployment.groups.iter().any(|group| group.data.is_some()) {
        findings.advise(
            Id::NoNodes,
            "no node of this deployment has a lease: none runs, or none reaches Redis",
            "fulmar serve",
        );
    } else if !live.is_empty() {
        of_live(&live, &mut findings);
        roles(&live, &mut findings);
    }
    for group in &deployment.groups {
        attached(group, &live, &mut findings);
        without_lease(group, &deployment.nodes, &mut findings);
    }
    findings.area = Area::Webhooks;
    for group in &deployment.groups {
        webhooks(group, &mut findings);
    }
}

fn silent(deployment: &Deployment, findings: &mut Findings<'_>) {
    for node in deployment.nodes.iter().filter(|node| node.silent_for >= SILENT_FOR) {
        findings.warn(
            Id::NodeSilent,
            format!(
                "the lease of node {} stands and was not renewed for {} s: it hangs or is gone, and what it had counts until another \
                 node takes it away",
                called(node),
                node.silent_for.as_secs()
            ),
            "end the node if it hangs; others take its records away 7 s after its death, so start one if none runs",
        );
    }
}

/// A node as people can find it.
fn called(node: &NodeFacts) -> String {
    match &node.advertise {
        Some(at) => format!("{} ({at})", node.name),
        None => node.name.clone(),
    }
}

fn clocks(deployment: &Deployment, findings: &mut Findings<'_>) {
    let servers = deployment.groups.iter().flat_map(|group| &group.servers);
    let servers = servers.filter_map(|server| Some((format!("the server {}", server.address), server.clock?)));
    let nodes = deployment.nodes.iter().filter(|node| node.silent_for < SILENT_FOR);
    let nodes = nodes.filter_map(|node| Some((format!("node {}", called(node)), node.clock?)));
    let here = ("this machine".to_owned(), ClockFact::default());
    let clocks: Vec<(String, ClockFact)> = std::iter::once(here).chain(servers).chain(nodes).collect();
    let mut ahead: Vec<i64> = clocks.iter().map(|(_, clock)| clock.ahead_ms).collect();
    ahead.sort_unstable();
    let middle = ahead[(ahead.len() - 1) / 2];
    for (whose, clock) in clocks {
        let off = (clock.ahead_ms - middle).unsigned_abs();
        let [warn, grave] = SKEW_MS.map(|most| most + clock.error_ms);
        if off <= warn {
            continue;
        }
        let way = if clock.ahead_ms > middle { "ahead of" } else { "behind" };
        findings.add(
            Id::ClockSkew,
            if off > grave { Weight::Grave } else { Weight::Warning },
            format!(
                "the clock of {whose} is {}.{} s {way} most others: ages, claims and signatures are judged by it",
                off / 1_000,
                off % 1_000 / 100
            ),
            "let that machine keep time (chrony, systemd-timesyncd)",
        );
    }
}

fn of_live(live: &[&NodeFacts], findings: &mut Findings<'_>) {
    for (id, what, weight, of, fix) in [
        (
            Id::ReleasesDiffer,
            "run different releases",
            Weight::Warning,
            (|node| &node.release) as fn(&NodeFacts) -> &String,
            "finish the roll-out, or take it back",
        ),
        (
            Id::AppsDiffer,
            "serve different apps, so that one refuses what another takes",
            Weight::Grave,
            |node| &node.apps,
            "give all nodes the same [[apps]] and the same apps of `fulmar app`: compare `fulmar app list` on each",
        ),
        (
            Id::SettingsDiffer,
            "have different limits or times",
            Weight::Warning,
            |node| &node.settings,
            "compare `fulmar config show` on each: [limits], [shutdown], [webhooks], server.path_prefix and the two time-outs",
        ),
    ] {
        let mut said: Vec<&String> = live.iter().map(|node| of(node)).filter(|said| !said.is_empty()).collect();
        said.sort_unstable();
        said.dedup();
        if said.len() > 1 {
            let who = said.iter().map(|value| {
                let nodes = live.iter().filter(|node| of(node) == *value).map(|node| called(node));
                format!("{value}: {}", nodes.collect::<Vec<_>>().join(", "))
            });
            findings.add(id, weight, format!("nodes {what} ({})", who.collect::<Vec<_>>().join("; ")), fix);
        }
    }
    metrics(live, findings);
    for node in live {
        files(node, findings);
        if live.len() > 1 && node.advertise.is_none() && node.roles.contains(&"websocket") {
            findings.advise(
                Id::NodeNotReachable,
                format!("node {} does not say where others reach it: sessions of XHR fallbacks must stay on the node that has them", node.name),
                "set backbone.advertise to a HOST:PORT of that node",
            );
        }
    }
}

/// One sink that is away is one finding, however many nodes miss it.
fn metrics(live: &[&NodeFacts], findings: &mut Findings<'_>) {
    let mut said: Vec<&String> = live.iter().filter_map(|node| node.metrics_trouble.as_ref()).collect();
    said.sort_unstable();
    said.dedup();
    for trouble in said {
        let who = live.iter().filter(|node| node.metrics_trouble.as_ref() == Some(trouble)).map(|node| called(node));
        no_sink(&who.collect::<Vec<_>>().join(", "), trouble, findings);
    }
}

pub(super) fn no_sink(whose: &str, trouble: &str, findings: &mut Findings<'_>) {
    findings.warn(
        Id::MetricsSinkUnreachable,
        format!("metrics of {whose} do not arrive at {trouble}; it serves, and whoever watches those figures sees nothing"),
        "start the daemon there, or set metrics.statsd to where one listens and restart the nodes one after the other; without \
         metrics.statsd nothing is sent",
    );
}

fn files(node: &NodeFacts, findings: &mut Findings<'_>) {
    let (has, used) = (node.open_files, node.connections);
    if has == 0 {
        return;
    }
    let percent = used.saturating_mul(100) / has;
    if percent < FILES_PERCENT_MAX && has >= FILES_MIN {
        return;
    }
    let weight = if percent >= FILES_PERCENT_MAX { Weight::Grave } else { Weight::Warning };
    findings.add(
        Id::NodeFilesFew,
        weight,
        format!("node {} may open {has} files and has {used} connections ({percent}%): beyond that newcomers are closed with 4100", called(node)),
        "raise its limit of open files: LimitNOFILE=1048576 in its unit, or ulimit -Hn where it is started",
    );
}

fn roles(live: &[&NodeFacts], findings: &mut Findings<'_>) {
    for (role, so) in [
        ("websocket", "nobody can connect"),
        ("rest", "publishes are answered 503"),
        ("webhooks", "no webhook is sent, and all of them wait"),
    ] {
        if !live.iter().any(|node| node.roles.contains(&role)) {
            findings.grave(
                Id::RoleMissing,
                format!("none of {} nodes has the role {role}: {so}", live.len()),
                format!("start one with it: fulmar serve --roles {role}"),
            );
        }
    }
}

fn attached(group: &GroupFacts, live: &[&NodeFacts], findings: &mut Findings<'_>) {
    let Some(data) = &group.data else { return };
    for node in live {
        // A lease names the groups that the node hears, and no others.
        let hears = |name: &String| node.attached.iter().find(|(of, _)| of == name).map_or(0, |(_, epoch)| *epoch);
        let behind = data.epochs.iter().find(|(name, epoch)| hears(name) < *epoch);
        if let Some((name, epoch)) = behind {
            let said = match hears(name) {
                0 => "hears nothing of it".to_owned(),
                before => format!("hears what was its primary in epoch {before}"),
            };
            findings.grave(
                Id::NodeNotAttached,
                format!(
                    "node {} does not hear all of group {name}, which is in epoch {epoch}: it {said}, and what it follows reaches it \
                     over the bus only",
                    called(node)
                ),
                "wait for ten seconds after a start or a failover; if it stays, see that node's log for why it does not reach the primary",
            );
        }
    }
}

fn without_lease(group: &GroupFacts, nodes: &[NodeFacts], findings: &mut Findings<'_>) {
    let Some(data) = &group.data else { return };
    let strangers: Vec<&str> = { data.claimants.iter() }
        .filter(|name| !nodes.iter().any(|node| node.name == **name))
        .map(String::as_str)
        .collect();
    let fix = "wait for ten seconds if nodes were just started; else see the logs of the nodes for one that is refused, and start it anew";
    if !strangers.is_empty() {
        findings.grave(
            Id::NodeWithoutLease,
            format!(
                "{} shares the webhooks of group {} and has no lease: its members and counts are taken away as if it were dead",
                strangers.join(", "),
                group.seen.name
            ),
            fix,
        );
    } else if data.bus_listeners > nodes.len() as u64 {
        // A host that vanished leaves its connection until the server's keep-alive notices.
        findings.warn(
            Id::NodeWithoutLease,
            format!(
                "{} connections of nodes listen on the bus of group {} and {} have a lease: the others were taken for dead, or their \
                 machines vanished and the connections stand for a while",
                data.bus_listeners,
                group.seen.name,
                nodes.len()
            ),
            fix,
        );
    }
}

fn webhooks(group: &GroupFacts, findings: &mut Findings<'_>) {
    let Some(outbox) = group.data.as_ref().map(|data| data.outbox) else { return };
    let (name, [late, grave]) = (&group.seen.name, WAITS);
    if outbox.oldest >= late {
        findings.add(
            Id::WebhookBacklog,
            if outbox.oldest >= grave { Weight::Grave } else { Weight::Warning },
            format!(
                "{} webhook events and requests wait in group {name}, the oldest for {} s",
                outbox.waiting,
                outbox.oldest.as_secs()
            ),
            "see which endpoint does not answer: fulmar webhook list; and that nodes with the role webhooks run",
        );
    }
    if outbox.dropped > 0 {
        findings.warn(
            Id::WebhooksDropped,
            format!("{} edges for webhooks of group {name} were dropped because too many waited", outbox.dropped),
            "see that nodes with the role webhooks run and endpoints answer; or raise backbone.outbox_entries_max",
        );
    }
    if outbox.given_up > 0 {
        findings.advise(
            Id::WebhooksGivenUp,
            format!("{} webhook requests of group {name} were given up and are kept", outbox.given_up),
            "fulmar webhook list, then fulmar webhook replay --all",
        );
    }
}
