//! What a group's primary holds of ours: its identity, the leases of nodes, who shares the webhooks, and what waits of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fulmar_backbone::redis::keys::Keys;
use fulmar_backbone::redis::lease::Lease;
use fulmar_backbone::redis::outbox::EntryId;
use fulmar_backbone::redis::topic::OUTBOX_PARTS;
use fulmar_control::doctor::facts::{ClockFact, DataFacts, NodeFacts, OutboxFacts};
use redis::{Cmd, Value, cmd};

use crate::doors::{Doors, Kind, words};
use crate::read::{fields, list, text};

/// Sealed requests of a part that are looked at.
const SEALED_MAX: u64 = 200;
/// A lease that was just renewed was so at some moment of the last second; half of a renewal's time on average.
const LEASE_AGE_MS: i64 = 300;
/// By how much that may be wrong on a busy machine.
const LEASE_ERROR_MS: u64 = 700;

/// What was read of one group.
pub(super) struct Read {
    facts: DataFacts,
    /// What the server did not let itself be asked, in its words.
    pub(super) refused: Vec<String>,
}

/// A lease and when it was read.
pub(super) struct LeaseRead {
    lease: Lease,
    unix_ms: u64,
    at: Instant,
}

/// Leases of a group over several looks: the first and the last sight of each node.
#[derive(Default)]
pub(super) struct Leases(BTreeMap<String, [LeaseSeen; 2]>);

struct LeaseSeen {
    lease: Lease,
    unix_ms: u64,
    at: Instant,
}

/// The wall clock, in milliseconds.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Reads it all; `None` when the server does not answer.
pub(super) async fn read(doors: &Doors, address: &str, (share, keys): (&str, &Keys)) -> Option<(Read, Vec<LeaseRead>)> {
    let mut commands = vec![
        of("HMGET", &[&keys.identity(), "epoch", "groups"]),
        cmd("TIME"),
        of("HGETALL", &[&keys.nodes()]),
        of("HGETALL", &[&keys.claimants()]),
    ];
    for part in 0..OUTBOX_PARTS {
        commands.push(of("XLEN", &[&keys.outbox(part)]));
        commands.push(of("XRANGE", &[&keys.outbox(part), "-", "+", "COUNT", "1"]));
        commands.push(of("HLEN", &[&keys.sealed(part)]));
        commands.push(of("HSCAN", &[&keys.sealed(part), "0", "COUNT", &SEALED_MAX.to_string()]));
        commands.push(of("LLEN", &[&keys.given_up(part)]));
    }
    let answers = doors.ask_all(Kind::Server, address, &commands).await.ok()?;
    let (asked_ms, at) = (unix_ms(), Instant::now());
    let [about, time, nodes, claimants, parts @ ..] = answers.as_slice() else { return None };
    let number = |value: &Value| text(value).parse::<u64>().unwrap_or_default();
    let [epoch, groups] = list(about) else { return None };
    let now_ms = list(time).first().map_or(asked_ms, |seconds| number(seconds) * 1_000);
    let live = |(name, until): (String, String)| (until.parse::<u64>().ok()? > now_ms).then_some(name);
    let leases = fields(nodes)
        .into_iter()
        .filter_map(|(node, said)| Some(LeaseRead { lease: Lease::parse(&node, &said)?, unix_ms: asked_ms, at }));
    let facts = DataFacts {
        epochs: vec![(share.to_owned(), number(epoch))],
        groups: Some(text(groups)).filter(|groups| !groups.is_empty()),
        claimants: fields(claimants).into_iter().filter_map(live).collect(),
        bus_listeners: 0,
        outbox: outbox(parts, now_ms),
    };
    let refused = refusals(&answers);
    Some((Read { facts, refused }, leases.collect()))
}

/// Each kind of refusal once: a user who may not ask for one part may not ask for any.
pub(super) fn refusals<'a>(answers: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    let mut refused: Vec<String> = Vec::new();
    for answer in answers {
        if let Value::ServerError(error) = answer
            && error.code() == "NOPERM"
            && !refused.contains(&words(error))
        {
            refused.push(words(error));
        }
    }
    refused
}

fn of(name: &str, words: &[&str]) -> Cmd {
    let mut command = cmd(name);
    words.iter().for_each(|word| {
        command.arg(*word);
    });
    command
}

fn outbox(parts: &[Value], now_ms: u64) -> OutboxFacts {
    let mut outbox = OutboxFacts::default();
    let number = |value: &Value| text(value).parse::<u64>().unwrap_or_default();
    for part in parts.chunks_exact(5) {
        let [entries, first, requests, some_requests, given_up] = part else { continue };
        outbox.waiting += number(entries) + number(requests);
        outbox.given_up += number(given_up);
        let entry = list(first).first().and_then(|entry| EntryId::parse(&text(list(entry).first()?)));
        let requests = list(some_requests).get(1).map(fields).unwrap_or_default();
        let since =
            { requests.values() }.filter_map(|request| sealed_ms(request)).chain(entry.map(|EntryId(ms, _)| ms)).min();
        if let Some(since) = since {
            outbox.oldest = outbox.oldest.max(Duration::from_millis(now_ms.saturating_sub(since)));
        }
    }
    outbox
}

/// When a request was sealed.
fn sealed_ms(request: &str) -> Option<u64> {
    let request: serde_json::Value = serde_json::from_str(request).ok()?;
    request["of"]["batch"]["sealed"].as_u64()
}

impl Read {
    /// The same of several shares that lie on one server.
    pub(super) fn and(mut self, other: Self) -> Self {
        let (mine, theirs) = (&mut self.facts, other.facts);
        mine.epochs.extend(theirs.epochs);
        mine.groups = mine.groups.take().or(theirs.groups);
        mine.claimants.extend(theirs.claimants);
        mine.claimants.sort_unstable();
        mine.claimants.dedup();
        mine.outbox.waiting += theirs.outbox.waiting;
        mine.outbox.oldest = mine.outbox.oldest.max(theirs.outbox.oldest);
        mine.outbox.given_up += theirs.outbox.given_up;
        let further = other.refused.into_iter().filter(|said| !self.refused.contains(said));
        let further: Vec<String> = further.collect();
        self.refused.extend(further);
        self
    }

    /// What to judge. Who shares the webhooks must have done so in both looks: a node that starts shares before it has a lease.
    pub(super) fn facts(self, before: Option<Self>, bus_listeners: u64) -> DataFacts {
        let mut facts = self.facts;
        let before = before.map(|before| before.facts.claimants).unwrap_or_default();
        facts.claimants.retain(|name| before.contains(name));
        DataFacts { bus_listeners, ..facts }
    }
}

impl Leases {
    /// Adds a look.
    pub(super) fn note(&mut self, read: Vec<LeaseRead>) {
        for LeaseRead { lease, unix_ms, at } in read {
            let last = LeaseSeen { lease: lease.clone(), unix_ms, at };
            let first = || LeaseSeen { lease: lease.clone(), unix_ms, at };
            match self.0.get_mut(&lease.node) {
                Some(seen) if seen[1].lease.counter < lease.counter || seen[0].lease.counter == lease.counter => {
                    seen[1] = last
                }
                Some(_) => {}
                None => {
                    self.0.insert(lease.node.clone(), [first(), last]);
                }
            }
        }
    }

    /// Whether some lease was not renewed while it was looked at.
    pub(super) fn any_stands(&self) -> bool {
        self.0.values().any(|[first, last]| first.lease.counter == last.lease.counter && first.at < last.at)
    }
}

/// Every node once, by its liveliest lease.
pub(super) fn nodes<'a>(groups: impl Iterator<Item = &'a Leases>) -> Vec<NodeFacts> {
    let mut nodes: BTreeMap<&str, &[LeaseSeen; 2]> = BTreeMap::new();
    for (name, seen) in groups.flat_map(|leases| &leases.0) {
        let rise = |[first, last]: &[LeaseSeen; 2]| last.lease.counter.saturating_sub(first.lease.counter);
        let known = nodes.entry(name).or_insert(seen);
        if rise(seen) > rise(known) {
            *known = seen;
        }
    }
    nodes.into_values().map(node).collect()
}

fn node([first, last]: &[LeaseSeen; 2]) -> NodeFacts {
    let lease = &last.lease;
    let stands = lease.counter == first.lease.counter;
    let roles = [("websocket", lease.roles.websocket), ("rest", lease.roles.rest), ("webhooks", lease.roles.webhooks)];
    NodeFacts {
        name: lease.node.clone(),
        silent_for: if stands { last.at.duration_since(first.at) } else { Duration::ZERO },
        clock: clock(lease, last.unix_ms).filter(|_| !stands),
        advertise: lease.advertise.clone(),
        roles: roles.into_iter().filter_map(|(role, has)| has.then_some(role)).collect(),
        attached: lease.attached.clone(),
        connections: lease.connections.iter().map(|(_, count)| count).sum(),
        release: lease.about.release.clone(),
        apps: lease.about.apps.clone(),
        settings: lease.about.settings.clone(),
        open_files: lease.about.open_files,
    }
}

fn clock(lease: &Lease, read_ms: u64) -> Option<ClockFact> {
    let its = i64::try_from(lease.clock_ms).ok().filter(|clock| *clock > 0)?;
    let ours = i64::try_from(read_ms).ok()?;
    Some(ClockFact { ahead_ms: its.saturating_sub(ours).saturating_add(LEASE_AGE_MS), error_ms: LEASE_ERROR_MS })
}
