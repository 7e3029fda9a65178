//! What a group's primary holds of ours: its identity, the leases of nodes, who shares the webhooks, and what waits of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fulmar_backbone::redis::keys::Keys;
use fulmar_backbone::redis::lease::Lease;
use fulmar_backbone::redis::map::SlotMap;
use fulmar_backbone::redis::outbox::EntryId;
use fulmar_backbone::redis::topic::OUTBOX_PARTS;
use fulmar_control::doctor::facts::{ClockFact, DataFacts, MapFacts, NodeFacts, OutboxFacts};
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
        of("HMGET", &[&keys.identity(), "epoch", "groups", "dropped"]),
        of("GET", &[&keys.map()]),
        of("EXISTS", &[&keys.mover()]),
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
    let [about, map, mover, time, nodes, claimants, parts @ ..] = answers.as_slice() else { return None };
    let number = |value: &Value| text(value).parse::<u64>().unwrap_or_default();
    let [epoch, groups, dropped] = list(about) else { return None };
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
        map: SlotMap::parse(&text(map)).filter(|map| map.version > 0).map(|map| MapFacts {
            moving: map.beside.len(),
            groups: map.groups,
            is_worked_on: number(mover) > 0,
        }),
        outbox: OutboxFacts { dropped: number(dropped), ..outbox(parts, now_ms) },
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
        mine.outbox.dropped += theirs.outbox.dropped;
        mine.map = mine.map.take().or(theirs.map);
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
        metrics_trouble: lease.about.metrics_trouble.clone(),
    }
}

fn clock(lease: &Lease, read_ms: u64) -> Option<ClockFact> {
    let its = i64::try_from(lease.clock_ms).ok().filter(|clock| *clock > 0)?;
    let ours = i64::try_from(read_ms).ok()?;
    Some(ClockFact { ahead_ms: its.saturating_sub(ours).saturating_add(LEASE_AGE_MS), error_ms: LEASE_ERROR_MS })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn read_at(begun: Instant, second: u64, leases: &[(&str, u64)]) -> Vec<LeaseRead> {
        let lease =
            |(node, counter): &(&str, u64)| Lease { node: (*node).to_owned(), counter: *counter, ..Lease::default() };
        let at = begun + Duration::from_secs(second);
        { leases.iter() }.map(|of| LeaseRead { lease: lease(of), unix_ms: 1_000 * second, at }).collect()
    }

    /// DOC-17
    #[test]
    fn a_lease_lives_when_it_rises_in_some_group_and_stands_for_as_long_as_it_was_watched() {
        let begun = Instant::now();
        let mut groups = [Leases::default(), Leases::default()];
        groups[0].note(read_at(begun, 1, &[("a", 5), ("b", 7)]));
        groups[1].note(read_at(begun, 1, &[("a", 5), ("b", 7)]));
        assert!(!groups[0].any_stands(), "one look tells nothing");
        groups[0].note(read_at(begun, 3, &[("a", 5), ("b", 7)]));
        groups[1].note(read_at(begun, 3, &[("a", 9), ("b", 7), ("c", 1)]));
        assert!(groups.iter().all(Leases::any_stands));
        let silent: Vec<_> =
            nodes(groups.iter()).iter().map(|node| (node.name.clone(), node.silent_for.as_secs())).collect();
        assert_eq!(silent, [("a".to_owned(), 0), ("b".to_owned(), 2), ("c".to_owned(), 0)]);
    }

    /// DOC-18
    #[test]
    fn the_clock_of_a_lease_is_read_with_its_age_in_mind() {
        let lease = |clock_ms| Lease { clock_ms, ..Lease::default() };
        assert_eq!(clock(&lease(0), 10_000), None, "it does not say");
        assert_eq!(clock(&lease(9_700), 10_000), Some(ClockFact { ahead_ms: 0, error_ms: LEASE_ERROR_MS }));
        assert_eq!(clock(&lease(6_700), 10_000).unwrap().ahead_ms, -3_000);
    }

    /// DOC-19
    #[test]
    fn the_oldest_of_events_and_requests_is_how_long_webhooks_wait() {
        let request = r#"{"id":1,"of":{"batch":{"sealed":40000}}}"#;
        let entry = Value::Array(vec![bulk("70000-0"), Value::Array(Vec::new())]);
        let sealed =
            Value::Array(vec![bulk("0"), Value::Array(vec![bulk("1"), bulk(request), bulk("2"), bulk("no json")])]);
        let parts = [Value::Int(1), Value::Array(vec![entry]), Value::Int(2), sealed, Value::Int(4)];
        let expected = OutboxFacts { waiting: 3, oldest: Duration::from_secs(60), given_up: 4, dropped: 0 };
        assert_eq!(outbox(&parts, 100_000), expected);
        let nothing = [Value::Int(0), Value::Array(Vec::new()), Value::Int(0), Value::Nil, Value::Int(0)];
        assert_eq!(outbox(&nothing, 100_000), OutboxFacts::default());
    }
}
